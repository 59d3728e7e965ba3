//! Kubeconfig files and the files that they name, read with care: they may be another
//! user's, and then they must not make root read what that user could not.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use kube::config::Kubeconfig;

use super::config::reason;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("there is no such file")]
    Missing,
    #[error("{0}")]
    Failed(std::io::Error),
    #[error("it is not a regular file")]
    NoFile,
    #[error("it is larger than 1 MiB")]
    TooBig,
    #[error("it is not the file of who owns the kubeconfig")]
    NotTheirs,
    #[error("it can't be understood: {0}")]
    Malformed(String),
}

/// Reads a kubeconfig, and says who owns it. Paths in it become absolute.
pub(super) fn read(file: &Path) -> Result<(Kubeconfig, u32), Unread> {
    let (bytes, owner) = contents(file)?;
    let text = String::from_utf8(bytes).map_err(|_| Unread::Malformed("no UTF-8".to_owned()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut config =
        Kubeconfig::from_yaml(text).map_err(|error| Unread::Malformed(reason(&error)))?;
    if let Some(dir) = file.parent() {
        absolute(&mut config, dir);
    }
    Ok((config, owner))
}

/// The bytes of a regular file of bounded size, and its owner.
fn contents(file: &Path) -> Result<(Vec<u8>, u32), Unread> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Unread::Missing,
        _ => Unread::Failed(error),
    };
    // A FIFO, or what takes its place meanwhile, would never answer.
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(file).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(Unread::NoFile);
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Unread::TooBig);
    }
    Ok((bytes, meta.uid()))
}

/// Makes the paths in a kubeconfig absolute: they are relative to its directory. Of programs
/// only those with a slash are paths.
fn absolute(config: &mut Kubeconfig, dir: &Path) {
    let fix = |path: &mut Option<String>| {
        if let Some(path) = path
            && let Some(absolute) = dir.join(path.as_str()).to_str()
        {
            *path = absolute.to_owned();
        }
    };
    for cluster in config.clusters.iter_mut().filter_map(|c| c.cluster.as_mut()) {
        fix(&mut cluster.certificate_authority);
    }
    for user in config.auth_infos.iter_mut().filter_map(|u| u.auth_info.as_mut()) {
        fix(&mut user.client_certificate);
        fix(&mut user.client_key);
        fix(&mut user.token_file);
        if let Some(exec) = &mut user.exec
            && exec.command.as_ref().is_some_and(|command| command.contains('/'))
        {
            fix(&mut exec.command);
        }
    }
}

/// Puts the files that a context names into the kubeconfig itself. Where `owners` are given,
/// each file has to be one of theirs.
pub(super) fn inline(
    config: &mut Kubeconfig,
    context: &str,
    owners: Option<&[u32]>,
) -> Result<(), String> {
    let named = config.contexts.iter().find(|named| named.name == context);
    let Some(context) = named.and_then(|named| named.context.clone()) else { return Ok(()) };
    let load = |what: &str, path: &str| -> Result<Vec<u8>, String> {
        let read = contents(Path::new(path)).and_then(|(bytes, owner)| match owners {
            Some(owners) if !owners.contains(&owner) => Err(Unread::NotTheirs),
            _ => Ok(bytes),
        });
        read.map_err(|why| format!("{what} {path}: {why}"))
    };
    let cluster = config.clusters.iter_mut().find(|named| named.name == context.cluster);
    if let Some(cluster) = cluster.and_then(|named| named.cluster.as_mut())
        && let Some(path) = cluster.certificate_authority.take().filter(|path| !path.is_empty())
        && cluster.certificate_authority_data.is_none()
    {
        let bytes = load("certificate-authority", &path)?;
        cluster.certificate_authority_data = Some(BASE64.encode(bytes));
    }
    let is_user = |name: &str| Some(name) == context.user.as_deref();
    let user = config.auth_infos.iter_mut().find(|named| is_user(&named.name));
    let Some(user) = user.and_then(|named| named.auth_info.as_mut()) else { return Ok(()) };
    if let Some(path) = user.client_certificate.take().filter(|path| !path.is_empty())
        && user.client_certificate_data.is_none()
    {
        user.client_certificate_data = Some(BASE64.encode(load("client-certificate", &path)?));
    }
    if let Some(path) = user.client_key.take().filter(|path| !path.is_empty())
        && user.client_key_data.is_none()
    {
        user.client_key_data = Some(BASE64.encode(load("client-key", &path)?).into());
    }
    if let Some(path) = user.token_file.take().filter(|path| !path.is_empty())
        && user.token.is_none()
    {
        let token = String::from_utf8(load("tokenFile", &path)?);
        let token = token.map_err(|_| format!("tokenFile {path}: it is no text"))?;
        user.token = Some(token.trim().to_owned().into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', certificate-authority: ca.crt}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
users: [{name: u, user: {tokenFile: token}}]
";

    fn written() -> (tempfile::TempDir, Kubeconfig) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config"), CONFIG).unwrap();
        std::fs::write(dir.path().join("ca.crt"), "PEM").unwrap();
        std::fs::write(dir.path().join("token"), "secret\n").unwrap();
        let config = read(&dir.path().join("config")).unwrap().0;
        (dir, config)
    }

    #[test]
    fn files_are_found_beside_the_kubeconfig() {
        let (_dir, mut config) = written();
        inline(&mut config, "x", None).unwrap();
        let cluster = config.clusters[0].cluster.clone().unwrap();
        assert_eq!(cluster.certificate_authority_data, Some(BASE64.encode("PEM")));
        let user = serde_json::to_value(&config.auth_infos[0]).unwrap();
        assert_eq!(user["user"]["token"], "secret");
    }

    #[test]
    fn another_users_kubeconfig_can_not_name_files_that_are_not_theirs() {
        let (_dir, config) = written();
        let me = rustix::process::geteuid().as_raw();
        let why = inline(&mut config.clone(), "x", Some(&[me + 1])).unwrap_err();
        assert!(why.contains("ca.crt") && why.contains("owns the kubeconfig"), "{why}");
        inline(&mut config.clone(), "x", Some(&[me])).unwrap();
    }

    #[test]
    fn a_file_that_would_not_end_is_not_read() {
        let (dir, mut config) = written();
        let fifo = dir.path().join("token");
        std::fs::remove_file(&fifo).unwrap();
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let why = inline(&mut config, "x", None).unwrap_err();
        assert!(why.contains("regular"), "{why}");
        assert!(matches!(read(Path::new("/dev/zero")), Err(Unread::NoFile)));
        std::fs::write(dir.path().join("big"), vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(matches!(read(&dir.path().join("big")), Err(Unread::TooBig)));
    }
}
