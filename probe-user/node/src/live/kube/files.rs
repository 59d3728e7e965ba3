//! Kubeconfig files and the files that they name, read with care: they may be another
//! user's, and then they must not make root read what that user could not.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use kube::config::{Context, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext};

use super::config::reason;
use super::trust::{self, Author};

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
    #[error("as root it is not read: {0}")]
    Untrusted(String),
    #[error("it can't be understood: {0}")]
    Malformed(String),
}

impl Unread {
    /// What would help, where that is not obvious.
    pub(super) fn remedy(&self) -> Option<&'static str> {
        matches!(self, Self::Untrusted(_)).then_some(
            "run without sudo, or name a copy with --kubeconfig that only you and root can write to",
        )
    }
}

/// Reads a kubeconfig, and says who could have written it. Paths in it become absolute.
pub(super) fn read(file: &Path) -> Result<(Kubeconfig, Author), Unread> {
    let (bytes, author, _) = contents(file)?;
    let text = String::from_utf8(bytes).map_err(|_| Unread::Malformed("no UTF-8".to_owned()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut config =
        Kubeconfig::from_yaml(text).map_err(|error| Unread::Malformed(reason(&error)))?;
    if let Some(dir) = file.parent() {
        absolute(&mut config, dir);
    }
    Ok((config, author))
}

/// The bytes of a regular file of bounded size, who could have written it, and its owner.
fn contents(file: &Path) -> Result<(Vec<u8>, Author, u32), Unread> {
    let opened = trust::open(file)?;
    let mut bytes = Vec::new();
    opened.file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(Unread::Failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Unread::TooBig);
    }
    Ok((bytes, opened.author, opened.owner))
}

/// A file that a kubeconfig of `author` names: one that this author could have read, and
/// written. Root's kubeconfig may name root's files, and those of who called sudo.
fn named(path: &Path, author: Author) -> Result<Vec<u8>, Unread> {
    let (bytes, of, owner) = contents(path)?;
    let allowed = match author {
        Author::Own if rustix::process::geteuid().is_root() => match of {
            Author::Own => true,
            Author::User(user) => Some(user) == asker(),
            Author::Anybody => false,
        },
        Author::Own => true,
        Author::User(user) => of == author && owner == user,
        Author::Anybody => false,
    };
    if allowed { Ok(bytes) } else { Err(Unread::NotTheirs) }
}

/// The user who called sudo.
fn asker() -> Option<u32> {
    std::env::var("SUDO_UID").ok()?.parse().ok()
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

/// What is in a kubeconfig, by name: of several with one name the first counts.
pub(super) struct KubeconfigIndex<'a> {
    clusters: HashMap<&'a str, &'a NamedCluster>,
    users: HashMap<&'a str, &'a NamedAuthInfo>,
}

impl<'a> KubeconfigIndex<'a> {
    pub(super) fn new(config: &'a Kubeconfig) -> Self {
        let mut index = Self { clusters: HashMap::new(), users: HashMap::new() };
        for cluster in &config.clusters {
            index.clusters.entry(&cluster.name).or_insert(cluster);
        }
        for user in &config.auth_infos {
            index.users.entry(&user.name).or_insert(user);
        }
        index
    }

    /// The server of a context, as it is written.
    pub(super) fn server(&self, context: &Context) -> Option<String> {
        self.clusters.get(&*context.cluster)?.cluster.as_ref()?.server.clone()
    }

    /// A kubeconfig with one context and what it needs, the files that it names included.
    pub(super) fn alone(
        &self,
        named: &NamedContext,
        context: &Context,
        author: Author,
    ) -> Result<Kubeconfig, String> {
        let cluster = self.clusters.get(&*context.cluster).map(|found| (*found).clone());
        let user = context.user.as_deref().and_then(|user| self.users.get(user));
        let mut config = Kubeconfig {
            clusters: cluster.into_iter().collect(),
            auth_infos: user.map(|found| (*found).clone()).into_iter().collect(),
            contexts: vec![named.clone()],
            ..Kubeconfig::default()
        };
        inline(&mut config, author)?;
        Ok(config)
    }
}

/// Puts the files that a kubeconfig names into it.
fn inline(config: &mut Kubeconfig, author: Author) -> Result<(), String> {
    let load = |what: &str, path: &str| -> Result<Vec<u8>, String> {
        named(Path::new(path), author).map_err(|why| format!("{what} {path}: {why}"))
    };
    for cluster in config.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        if let Some(path) = cluster.certificate_authority.take().filter(|path| !path.is_empty())
            && cluster.certificate_authority_data.is_none()
        {
            let bytes = load("certificate-authority", &path)?;
            cluster.certificate_authority_data = Some(BASE64.encode(bytes));
        }
    }
    for user in config.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
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
    }
    Ok(())
}

#[cfg(feature = "fuzzing")]
pub(in super::super) fn fuzz(bytes: &[u8]) {
    if let Ok(mut config) = Kubeconfig::from_yaml(&String::from_utf8_lossy(bytes)) {
        absolute(&mut config, Path::new("/etc"));
    }
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
        inline(&mut config, Author::Own).unwrap();
        let cluster = config.clusters[0].cluster.clone().unwrap();
        assert_eq!(cluster.certificate_authority_data, Some(BASE64.encode("PEM")));
        let user = serde_json::to_value(&config.auth_infos[0]).unwrap();
        assert_eq!(user["user"]["token"], "secret");
    }

    #[test]
    fn another_users_kubeconfig_can_not_name_files_that_are_not_theirs() {
        let (_dir, config) = written();
        let me = rustix::process::geteuid().as_raw();
        for author in [Author::User(me + 1), Author::Anybody] {
            let why = inline(&mut config.clone(), author).unwrap_err();
            assert!(why.contains("ca.crt") && why.contains("owns the kubeconfig"), "{why}");
        }
    }

    #[test]
    fn a_file_that_would_not_end_is_not_read() {
        let (dir, mut config) = written();
        let fifo = dir.path().join("token");
        std::fs::remove_file(&fifo).unwrap();
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let why = inline(&mut config, Author::Own).unwrap_err();
        assert!(why.contains("regular"), "{why}");
        assert!(read(Path::new("/dev/zero")).is_err());
        std::fs::write(dir.path().join("big"), vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(matches!(read(&dir.path().join("big")), Err(Unread::TooBig)));
    }
}
