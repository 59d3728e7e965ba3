//! Kubeconfig files: where they are, and the contexts in them. Passive: nothing is
//! connected to, and no program is run.
//!
//! The rules are those of kubectl (client-go's `clientcmd`): `--kubeconfig` alone, else the
//! files of `KUBECONFIG` merged, else `~/.kube/config`. To these come the files that
//! distributions write on their nodes, each for itself.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use futures_util::FutureExt as _;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use sha2::{Digest as _, Sha256};

use super::KubeOptions;
use crate::model::{Gap, Impact, KubeContext};

/// The largest kubeconfig that is read, in bytes.
const LARGEST: u64 = 1 << 20;
/// Where distributions keep the administrator's kubeconfig of the cluster on a node.
const ON_NODES: [&str; 6] = [
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/super-admin.conf",
    "/etc/rancher/k3s/k3s.yaml",
    "/etc/rancher/rke2/rke2.yaml",
    "/var/lib/k0s/pki/admin.conf",
    "/var/snap/microk8s/current/credentials/client.config",
];
/// The name of the context of a pod's own service account.
const IN_CLUSTER: &str = "in-cluster";

/// A context, and how its API is reached.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) context: KubeContext,
    /// What to connect with, or why that is not known.
    pub(super) config: Result<Box<Config>, String>,
    /// Whether programs that the file names may be run: it is the user's own, or root's.
    pub(super) trusted: bool,
}

/// One kubeconfig, and the files that it was put together from.
struct Source {
    config: Kubeconfig,
    /// The file of each context, for it is part of its name.
    file_of: Vec<(String, String)>,
    current: bool,
    trusted: bool,
}

/// Every context that may be asked, the current one first, and the files that could not
/// be read.
pub(super) fn find(options: &KubeOptions) -> (Vec<Found>, Vec<Gap>) {
    let mut gaps = Vec::new();
    if options.off {
        return (Vec::new(), gaps);
    }
    let mut found: Vec<Found> = Vec::new();
    for source in sources(options, &mut gaps) {
        let current = source.config.current_context.clone();
        for named in &source.config.contexts {
            let is_current = source.current
                && match &options.context {
                    Some(wanted) => named.name == *wanted,
                    None => current.as_ref() == Some(&named.name),
                };
            let file = source.file_of.iter().find(|(name, _)| *name == named.name);
            let file = file.map(|(_, file)| file.clone()).unwrap_or_default();
            let asked_for = options.context.as_ref() == Some(&named.name)
                || options.context.is_none() && options.kubeconfig.is_some() && is_current;
            if let Some(entry) = entry(&source, &named.name, file, is_current, asked_for)
                && !found.iter().any(|known| known.context.id() == entry.context.id())
            {
                found.push(entry);
            }
        }
    }
    found.extend(in_cluster(options));
    if options.context.is_some() {
        found.retain(|entry| entry.context.asked_for);
    }
    if !found.iter().any(|entry| entry.context.current)
        && let [only] = &mut found[..]
    {
        only.context.current = true;
    }
    found.sort_by_key(|entry| !entry.context.current);
    (found, gaps)
}

/// What the user named has to be there.
pub(super) fn check(options: &KubeOptions) -> Result<(), String> {
    if let Some(file) = &options.kubeconfig {
        read(file).map_err(|why| format!("--kubeconfig {}: {why}", file.display()))?;
    }
    let Some(wanted) = &options.context else { return Ok(()) };
    let all = KubeOptions { context: None, ..options.clone() };
    let names: Vec<String> = find(&all).0.into_iter().map(|entry| entry.context.name).collect();
    if names.contains(wanted) {
        return Ok(());
    }
    if names.is_empty() {
        return Err(format!(
            "--context {wanted:?}: no kubeconfig was found; name one with --kubeconfig FILE"
        ));
    }
    Err(format!("--context {wanted:?}: there is no such context, but {}", names.join(", ")))
}

fn entry(
    source: &Source,
    name: &str,
    file: String,
    current: bool,
    asked_for: bool,
) -> Option<Found> {
    let named = source.config.contexts.iter().find(|context| context.name == name)?;
    let context = named.context.as_ref()?;
    let cluster = source.config.clusters.iter().find(|c| c.name == context.cluster);
    let server = cluster.and_then(|c| c.cluster.as_ref()).and_then(|c| c.server.clone());
    let options = KubeConfigOptions { context: Some(name.to_owned()), ..Default::default() };
    // The function is async without ever waiting.
    let config = Config::from_custom_kubeconfig(source.config.clone(), &options).now_or_never();
    let config = match config {
        Some(Ok(config)) => Ok(Box::new(config)),
        Some(Err(error)) => Err(reason(&error)),
        None => Err("it is not complete".to_owned()),
    };
    let ca =
        config.as_ref().ok().and_then(|c| c.root_cert.as_ref()).and_then(|certs| certs.first());
    Some(Found {
        context: KubeContext {
            name: name.to_owned(),
            cluster: context.cluster.clone(),
            server: server.unwrap_or_default(),
            namespace: context.namespace.clone().filter(|namespace| !namespace.is_empty()),
            file,
            current,
            asked_for,
            ca: ca.map(|der| hex(&Sha256::digest(der))),
        },
        config,
        trusted: source.trusted,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An error without the values that may stand beside it in the file.
fn reason(error: &kube::config::KubeconfigError) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.chars().take(200).collect()
}

/// The kubeconfigs, in the order in which they count.
fn sources(options: &KubeOptions, gaps: &mut Vec<Gap>) -> Vec<Source> {
    if let Some(file) = &options.kubeconfig {
        return merged(std::slice::from_ref(file), true, gaps).into_iter().collect();
    }
    let mut all = Vec::new();
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    match std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
        Some(list) => {
            let mut files: Vec<PathBuf> = Vec::new();
            for file in std::env::split_paths(&list).filter(|f| !f.as_os_str().is_empty()) {
                if !files.contains(&file) {
                    files.push(file);
                }
            }
            all.extend(merged(&files, true, gaps));
        }
        None => {
            let own = home.iter().map(|home| home.join(".kube/config"));
            all.extend(own.filter_map(|file| merged(&[file], true, gaps)));
        }
    }
    // Of the user behind sudo, whose kubectl it is that works.
    let sudo = rustix::process::geteuid().is_root().then(sudo_home).flatten();
    let others = sudo.map(|home| home.join(".kube/config")).into_iter();
    for file in others.chain(ON_NODES.map(PathBuf::from)) {
        let current = all.iter().all(|source: &Source| source.config.current_context.is_none());
        let known = all.iter().any(|source: &Source| {
            source.file_of.iter().any(|(_, known)| Path::new(known) == file)
        });
        if !known {
            all.extend(merged(&[file], current, gaps));
        }
    }
    all
}

/// The home of the user who called sudo.
fn sudo_home() -> Option<PathBuf> {
    let name = std::env::var("SUDO_USER").ok().filter(|name| name != "root")?;
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    home_in(&passwd, &name)
}

fn home_in(passwd: &str, name: &str) -> Option<PathBuf> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(5).map(PathBuf::from).filter(|home| home.is_absolute())
}

/// Some files as one kubeconfig: what comes first counts, as for kubectl. Missing ones are
/// left out, others that can't be read are told.
fn merged(files: &[PathBuf], current: bool, gaps: &mut Vec<Gap>) -> Option<Source> {
    let mut all: Option<Source> = None;
    for file in files {
        let (config, trusted) = match read(file) {
            Ok(read) => read,
            Err(Unread::Missing) => continue,
            Err(why) => {
                let source = format!("kubeconfig {}", file.display());
                gaps.push(Gap::new(Impact::Name, source, why.to_string()));
                continue;
            }
        };
        let name = file.display().to_string();
        let file_of = config.contexts.iter().map(|c| (c.name.clone(), name.clone())).collect();
        all = Some(match all {
            None => Source { config, file_of, current, trusted },
            Some(mut known) => {
                known.file_of.extend(file_of);
                known.trusted &= trusted;
                match known.config.clone().merge(config) {
                    Ok(config) => known.config = config,
                    Err(error) => gaps.push(Gap::new(
                        Impact::Name,
                        format!("kubeconfig {name}"),
                        reason(&error),
                    )),
                }
                known
            }
        });
    }
    all
}

/// Why a kubeconfig was not read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("there is no such file")]
    Missing,
    #[error("{0}")]
    Failed(std::io::Error),
    #[error("it is not a regular file")]
    NoFile,
    #[error("it is larger than 1 MiB")]
    TooBig,
    #[error("it can't be understood: {0}")]
    Malformed(String),
}

/// Reads one file, and says whether it is the user's own or root's.
fn read(file: &Path) -> Result<(Kubeconfig, bool), Unread> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Unread::Missing,
        _ => Unread::Failed(error),
    };
    // A FIFO would never answer.
    let meta = std::fs::metadata(file).map_err(failed)?;
    if !meta.is_file() {
        return Err(Unread::NoFile);
    }
    let mut text = Vec::new();
    File::open(file).and_then(|f| f.take(LARGEST + 1).read_to_end(&mut text)).map_err(failed)?;
    if text.len() as u64 > LARGEST {
        return Err(Unread::TooBig);
    }
    // Paths in it are relative to it, which only the reader of files knows.
    let config = Kubeconfig::read_from(file).map_err(|error| Unread::Malformed(reason(&error)))?;
    let euid = rustix::process::geteuid().as_raw();
    Ok((config, meta.uid() == 0 || meta.uid() == euid))
}

/// The service account of the pod that the tool runs in.
fn in_cluster(options: &KubeOptions) -> Option<Found> {
    if options.kubeconfig.is_some() || options.context.as_ref().is_some_and(|c| c != IN_CLUSTER) {
        return None;
    }
    std::env::var_os("KUBERNETES_SERVICE_HOST")?;
    let config = Config::incluster();
    let server = config.as_ref().map(|config| config.cluster_url.to_string()).unwrap_or_default();
    let namespace = config.as_ref().ok().map(|config| config.default_namespace.clone());
    Some(Found {
        context: KubeContext {
            name: IN_CLUSTER.to_owned(),
            cluster: IN_CLUSTER.to_owned(),
            server,
            namespace,
            file: "/var/run/secrets/kubernetes.io/serviceaccount".to_owned(),
            current: false,
            asked_for: options.context.is_some(),
            ca: None,
        },
        config: config.map(Box::new).map_err(|error| error.to_string()),
        trusted: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r"
apiVersion: v1
kind: Config
current-context: kind-cluster2
clusters:
- {name: kind-cluster1, cluster: {server: 'https://127.0.0.1:45381'}}
- {name: kind-cluster2, cluster: {server: 'https://127.0.0.1:20971', certificate-authority: ca.crt}}
contexts:
- {name: kind-cluster1, context: {cluster: kind-cluster1, user: one, namespace: web}}
- {name: kind-cluster2, context: {cluster: kind-cluster2, user: two}}
users:
- {name: one, user: {token: secret-of-one}}
";

    fn options(file: &Path) -> KubeOptions {
        KubeOptions { kubeconfig: Some(file.to_owned()), ..KubeOptions::default() }
    }

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, text).unwrap();
        (dir, file)
    }

    #[test]
    fn the_contexts_of_a_file_are_found_without_its_secrets() {
        let (_dir, file) = written(TWO);
        let (found, gaps) = find(&options(&file));
        assert_eq!(gaps, []);
        let [two, one] = &found[..] else { panic!("{}", found.len()) };
        assert_eq!(two.context.name, "kind-cluster2");
        assert!(two.context.current && two.context.asked_for);
        assert_eq!(two.context.server, "https://127.0.0.1:20971");
        assert!(!one.context.current && !one.context.asked_for);
        assert_eq!(one.context.namespace.as_deref(), Some("web"));
        // The authority's file is not there: the context is, all the same.
        assert!(two.config.is_err() && one.config.is_ok());
        assert!(!format!("{:?}", one.context).contains("secret"));
    }

    #[test]
    fn a_context_that_was_named_is_the_only_one() {
        let (_dir, file) = written(TWO);
        let wanted = KubeOptions { context: Some("kind-cluster1".into()), ..options(&file) };
        let found = find(&wanted).0;
        assert_eq!(found.len(), 1);
        assert!(found[0].context.current && found[0].context.asked_for);
        let unknown = KubeOptions { context: Some("prod".into()), ..options(&file) };
        let why = check(&unknown).unwrap_err();
        assert!(why.contains("\"prod\"") && why.contains("kind-cluster1"), "{why}");
    }

    #[test]
    fn what_is_no_kubeconfig_is_named_and_the_rest_is_used() {
        let (_dir, good) = written(TWO);
        let (_other, bad) = written("a: [");
        let mut gaps = Vec::new();
        let source = merged(&[bad.clone(), good], true, &mut gaps).unwrap();
        assert_eq!(source.config.contexts.len(), 2);
        assert!(gaps[0].source.contains(bad.to_str().unwrap()), "{gaps:?}");
        assert!(check(&options(&bad)).is_err());
        assert!(
            check(&options(Path::new("/nowhere/config"))).unwrap_err().contains("no such file")
        );
        assert!(check(&options(Path::new("/dev/null"))).unwrap_err().contains("regular"));
    }

    #[test]
    fn the_home_of_who_called_sudo_is_found() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\nx:x:1::y:\n";
        assert_eq!(home_in(passwd, "ann"), Some("/home/ann".into()));
        assert_eq!(home_in(passwd, "x"), None);
        assert_eq!(home_in(passwd, "bob"), None);
    }
}
