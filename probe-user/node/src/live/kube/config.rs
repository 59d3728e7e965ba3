//! Kubeconfig files: where they are, and the contexts in them. Passive: nothing is
//! connected to, and no program is run.
//!
//! The rules are those of kubectl (client-go's `clientcmd`): `--kubeconfig` alone, else the
//! files of `KUBECONFIG` merged, else `~/.kube/config`. To these come the files that
//! distributions write on their nodes, each for itself.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use futures_util::FutureExt as _;
use kube::config::{Config, Context, KubeConfigOptions, Kubeconfig, NamedContext};
use sha2::{Digest as _, Sha256};

use super::KubeOptions;
use super::files::{self, KubeconfigIndex, Unread};
use super::trust::Author;
use whereis_port_model::{Gap, GapKind, GapSource, Impact, KubeContext};

/// Where distributions keep the administrator's kubeconfig of the cluster on a node.
pub(super) const ON_NODES: [&str; 6] = [
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/super-admin.conf",
    "/etc/rancher/k3s/k3s.yaml",
    "/etc/rancher/rke2/rke2.yaml",
    "/var/lib/k0s/pki/admin.conf",
    "/var/snap/microk8s/current/credentials/client.config",
];
/// The name of the context of a pod's own service account.
const IN_CLUSTER: &str = "in-cluster";
/// How many contexts are looked at: each is compared with what is on this node.
const CONTEXTS: usize = 256;
/// How many contexts are named where one is not found.
const NAMED: usize = 10;

/// A context, and how its API is reached.
#[derive(Clone)]
pub(super) struct ContextConfig {
    pub(super) context: KubeContext,
    /// What to connect with, or why that is not known.
    pub(super) config: Result<Box<Config>, String>,
    /// Whether programs that the file names may be run.
    pub(super) programs: Programs,
}

/// Whether programs that give credentials may be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Programs {
    /// As kubectl does.
    Run,
    /// Those that only root could have put there: it was said on the command line.
    Roots,
    /// Not as root, unless it is said on the command line.
    NotAsked,
    /// Not for what another user wrote.
    Never,
}

impl Programs {
    fn of(author: Author, options: &KubeOptions) -> Self {
        match author {
            Author::User(_) | Author::Anybody => Self::Never,
            Author::Own if !rustix::process::geteuid().is_root() => Self::Run,
            Author::Own if options.exec => Self::Roots,
            Author::Own => Self::NotAsked,
        }
    }
}

/// One kubeconfig, and the files that it was put together from.
struct KubeconfigSource {
    config: Kubeconfig,
    /// The file of each context, for it is part of its name.
    file_of: HashMap<String, String>,
    current: bool,
    /// Who could have written the files: of all the same.
    author: Author,
}

/// Every context that may be asked, the current one first, and the files that could not
/// be read.
pub(super) fn find(options: &KubeOptions) -> (Vec<ContextConfig>, Vec<Gap>) {
    let mut gaps = Vec::new();
    if options.off {
        return (Vec::new(), gaps);
    }
    let mut found: Vec<ContextConfig> = Vec::new();
    let mut seen = HashSet::new();
    let mut left_out = 0_usize;
    for source in sources(options, &mut gaps) {
        let current = source.config.current_context.as_deref();
        let index = KubeconfigIndex::new(&source.config);
        let is_current =
            |name: &str| source.current && options.context.as_deref().or(current) == Some(name);
        let wanted =
            |named: &&NamedContext| options.context.as_ref().is_none_or(|name| named.name == *name);
        let mut named: Vec<&NamedContext> = source.config.contexts.iter().filter(wanted).collect();
        // The one that is used counts before all others.
        named.sort_by_key(|named| !is_current(&named.name));
        for named in named {
            let Some(context) = &named.context else { continue };
            let file = source.file_of.get(&named.name).cloned().unwrap_or_default();
            if !seen.insert((file.clone(), named.name.clone())) {
                continue;
            }
            if found.len() >= CONTEXTS {
                left_out += 1;
                continue;
            }
            let current = is_current(&named.name);
            let asked_for = options.context.is_some() || options.kubeconfig.is_some() && current;
            let programs = Programs::of(source.author, options);
            let config = usable(&index, named, context, source.author);
            found.push(ContextConfig {
                context: KubeContext {
                    in_cluster: false,
                    name: named.name.clone(),
                    cluster: context.cluster.clone(),
                    server: index.server(context).unwrap_or_default(),
                    namespace: context.namespace.clone().filter(|name| !name.is_empty()),
                    file,
                    current,
                    asked_for,
                    ca: config.as_ref().ok().and_then(|config| authority(config)),
                },
                config,
                programs,
            });
        }
    }
    if left_out > 0 {
        let why = format!("{left_out} more contexts than the {CONTEXTS} that are looked at");
        let gap = Gap::new(Impact::Name, GapSource::new(GapKind::Kubeconfig, "contexts"), why);
        gaps.push(gap.remedy("name the one that is meant with --context"));
    }
    found.extend(in_cluster(options));
    // Of several files with the context that was named, the first counts.
    let one = found.len() == 1 || options.context.is_some();
    if !found.iter().any(|entry| entry.context.current)
        && let Some(first) = found.first_mut().filter(|_| one)
    {
        first.context.current = true;
    }
    found.sort_by_key(|entry| !entry.context.current);
    (found, gaps)
}

/// What the user named has to be there.
pub(super) fn check(options: &KubeOptions) -> Result<(), String> {
    if let Some(file) = &options.kubeconfig {
        files::read(file).map_err(|why| format!("--kubeconfig {}: {why}", file.display()))?;
    }
    let Some(wanted) = &options.context else { return Ok(()) };
    if !find(options).0.is_empty() {
        return Ok(());
    }
    let all = KubeOptions { context: None, ..options.clone() };
    let (found, gaps) = find(&all);
    let unread = |gap: &Gap| format!("; {}: {}", gap.source, gap.reason);
    let unread: String = gaps.iter().take(NAMED).map(unread).collect();
    let mut names: Vec<String> = found.into_iter().map(|entry| entry.context.name).collect();
    if names.len() > NAMED {
        names.truncate(NAMED);
        names.push("others".to_owned());
    }
    if names.is_empty() {
        return Err(format!(
            "--context {wanted:?}: no kubeconfig was found; name one with --kubeconfig FILE{unread}"
        ));
    }
    Err(format!("--context {wanted:?}: there is no such context, but {}{unread}", names.join(", ")))
}

/// What to connect with for a context.
fn usable(
    index: &KubeconfigIndex<'_>,
    named: &NamedContext,
    context: &Context,
    author: Author,
) -> Result<Box<Config>, String> {
    let config = index.alone(named, context, author)?;
    let options = KubeConfigOptions { context: Some(named.name.clone()), ..Default::default() };
    // The function is async without ever waiting.
    match Config::from_custom_kubeconfig(config, &options).now_or_never() {
        Some(Ok(config)) => Ok(Box::new(config)),
        Some(Err(error)) => Err(reason(&error)),
        None => Err("it is not complete".to_owned()),
    }
}

/// The hash of a cluster's certificate authority.
fn authority(config: &Config) -> Option<String> {
    let der = config.root_cert.as_ref()?.first()?;
    Some(hex(&Sha256::digest(der)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An error without the values that may stand beside it in the file.
pub(super) fn reason(error: &kube::config::KubeconfigError) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.chars().take(200).collect()
}

/// The kubeconfigs, in the order in which they count.
fn sources(options: &KubeOptions, gaps: &mut Vec<Gap>) -> Vec<KubeconfigSource> {
    if let Some(file) = &options.kubeconfig {
        return merged(std::slice::from_ref(file), true, gaps);
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
            all.extend(own.flat_map(|file| merged(&[file], true, gaps)));
        }
    }
    // Of the user behind sudo, whose kubectl it is that works.
    let sudo = rustix::process::geteuid().is_root().then(sudo_home).flatten();
    let theirs = sudo.into_iter().map(|(home, uid)| (home.join(".kube/config"), Some(uid)));
    for (file, user) in theirs.chain(ON_NODES.map(|file| (PathBuf::from(file), None))) {
        let current =
            all.iter().all(|source: &KubeconfigSource| source.config.current_context.is_none());
        let known = all.iter().any(|source: &KubeconfigSource| {
            source.file_of.values().any(|known| Path::new(known) == file)
        });
        if known {
            continue;
        }
        let expected = |source: &KubeconfigSource| match source.author {
            Author::Own => true,
            Author::User(uid) => Some(uid) == user,
            Author::Anybody => false,
        };
        let (theirs, strange): (Vec<KubeconfigSource>, Vec<KubeconfigSource>) =
            merged(std::slice::from_ref(&file), current, gaps).into_iter().partition(expected);
        if !strange.is_empty() {
            let source = GapSource::new(GapKind::Kubeconfig, file.display().to_string());
            let why = Unread::Untrusted("somebody else could have written it".to_owned());
            gaps.push(Gap::new(Impact::Name, source, why.to_string()));
        }
        all.extend(theirs);
    }
    all
}

/// The most that is read of the list of users, in bytes.
const USERS: u64 = 4 << 20;

/// The home of the user who called sudo, and the user's number.
fn sudo_home() -> Option<(PathBuf, u32)> {
    let name = std::env::var("SUDO_USER").ok().filter(|name| name != "root")?;
    let mut passwd = Vec::new();
    std::fs::File::open("/etc/passwd").ok()?.take(USERS).read_to_end(&mut passwd).ok()?;
    home_in(&String::from_utf8_lossy(&passwd), &name)
}

fn home_in(passwd: &str, name: &str) -> Option<(PathBuf, u32)> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let uid = line.split(':').nth(2)?.parse().ok()?;
    let home = line.split(':').nth(5).map(PathBuf::from).filter(|home| home.is_absolute())?;
    Some((home, uid))
}

/// Some files as one kubeconfig: what comes first counts, as for kubectl. Contexts that it
/// hides because an earlier file has others of their name come behind, each file for itself:
/// they may be of another cluster. Missing files are left out, others that can't be read are
/// told.
///
/// Files of different authors are not put together: what one of them names must not be taken
/// for what another one says.
fn merged(files: &[PathBuf], current: bool, gaps: &mut Vec<Gap>) -> Vec<KubeconfigSource> {
    let mut all: Vec<KubeconfigSource> = Vec::new();
    let mut hidden = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let source = GapSource::new(GapKind::Kubeconfig, name.as_str());
        let (config, author) = match files::read(file) {
            Ok(read) => read,
            Err(Unread::Missing) => continue,
            Err(why) => {
                let mut gap = Gap::new(Impact::Name, source, why.to_string());
                gap.remedy = why.remedy().map(str::to_owned);
                gaps.push(gap);
                continue;
            }
        };
        let file_of = config.contexts.iter().map(|c| (c.name.clone(), name.clone())).collect();
        let new = KubeconfigSource { config, file_of, current: false, author };
        let Some(known) = all.iter_mut().find(|known| known.author == author) else {
            all.push(new);
            continue;
        };
        hidden.extend(hidden_by(known, &new));
        for (context, file) in new.file_of {
            known.file_of.entry(context).or_insert(file);
        }
        match known.config.clone().merge(new.config) {
            Ok(config) => known.config = config,
            Err(error) => gaps.push(Gap::new(Impact::Name, source, reason(&error))),
        }
    }
    let first = all.iter_mut().find(|source| source.config.current_context.is_some());
    if let Some(first) = first {
        first.current = current;
    } else {
        all.iter_mut().for_each(|source| source.current = current);
    }
    all.into_iter().chain(hidden).collect()
}

/// The contexts of a file that an earlier one has others of the same name of.
fn hidden_by(known: &KubeconfigSource, source: &KubeconfigSource) -> Option<KubeconfigSource> {
    let mut config = source.config.clone();
    config.contexts.retain(|context| known.file_of.contains_key(&context.name));
    config.current_context = None;
    (!config.contexts.is_empty()).then(|| KubeconfigSource {
        config,
        file_of: source.file_of.clone(),
        current: false,
        author: source.author,
    })
}

/// The service account of the pod that the tool runs in.
fn in_cluster(options: &KubeOptions) -> Option<ContextConfig> {
    if options.kubeconfig.is_some() || options.context.as_ref().is_some_and(|c| c != IN_CLUSTER) {
        return None;
    }
    std::env::var_os("KUBERNETES_SERVICE_HOST")?;
    let config = Config::incluster();
    let server = config.as_ref().map(|config| config.cluster_url.to_string()).unwrap_or_default();
    let namespace = config.as_ref().ok().map(|config| config.default_namespace.clone());
    let ca = config.as_ref().ok().and_then(authority);
    Some(ContextConfig {
        context: KubeContext {
            in_cluster: true,
            name: IN_CLUSTER.to_owned(),
            cluster: IN_CLUSTER.to_owned(),
            server,
            namespace,
            file: "/var/run/secrets/kubernetes.io/serviceaccount".to_owned(),
            current: false,
            asked_for: options.context.is_some(),
            ca,
        },
        config: config.map(Box::new).map_err(|error| error.to_string()),
        programs: Programs::Never,
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
        let sources = merged(&[bad.clone(), good], true, &mut gaps);
        assert_eq!(sources[0].config.contexts.len(), 2);
        assert!(gaps[0].source.name.contains(bad.to_str().unwrap()), "{gaps:?}");
        assert!(check(&options(&bad)).is_err());
        assert!(
            check(&options(Path::new("/nowhere/config"))).unwrap_err().contains("no such file")
        );
        assert!(check(&options(Path::new("/dev/null"))).unwrap_err().contains("regular"));
    }

    /// None of them is looked for in all others.
    #[test]
    fn of_many_contexts_some_are_looked_at_and_each_can_be_named() {
        let mut text =
            "apiVersion: v1\nkind: Config\ncurrent-context: c8999\ncontexts:\n".to_owned();
        for at in 0..9000 {
            text.push_str(&format!("- {{name: c{at}, context: {{cluster: c{at}, user: u}}}}\n"));
        }
        text.push_str("clusters:\n");
        for at in 0..9000 {
            let server = format!("https://127.0.0.1:{}", at + 1);
            text.push_str(&format!("- {{name: c{at}, cluster: {{server: '{server}'}}}}\n"));
        }
        text.push_str("users: [{name: u, user: {token: t}}]\n");
        let (_dir, file) = written(&text);
        let (found, gaps) = find(&options(&file));
        assert_eq!(found.len(), CONTEXTS);
        assert_eq!(found[0].context.server, "https://127.0.0.1:9000");
        let [gap] = &gaps[..] else { panic!("{gaps:?}") };
        assert!(gap.reason.contains("8744 more contexts"), "{gap:?}");
        assert!(gap.remedy.as_ref().unwrap().contains("--context"));
        let named = KubeOptions { context: Some("c7000".to_owned()), ..options(&file) };
        let (found, gaps) = find(&named);
        assert_eq!((found.len(), gaps.len()), (1, 0));
        assert_eq!(found[0].context.server, "https://127.0.0.1:7001");
        assert_eq!(check(&named), Ok(()));
        let unknown = KubeOptions { context: Some("prod".to_owned()), ..options(&file) };
        assert!(check(&unknown).unwrap_err().len() < 400);
    }

    #[test]
    fn contexts_of_one_name_in_two_files_stay_apart() {
        let (_dir, one) = written(TWO);
        let (_other, two) = written(&TWO.replace("20971", "30971").replace("cluster1", "other"));
        let sources = merged(&[one, two], true, &mut Vec::new());
        let names = |source: &KubeconfigSource| -> Vec<String> {
            source.config.contexts.iter().map(|context| context.name.clone()).collect()
        };
        let [all, hidden] = &sources[..] else { panic!("{}", sources.len()) };
        assert_eq!(names(all), ["kind-cluster1", "kind-cluster2", "kind-other"]);
        assert_eq!(names(hidden), ["kind-cluster2"]);
        let server = |source: &KubeconfigSource| {
            let clusters = &source.config.clusters;
            let cluster = clusters.iter().find(|c| c.name == "kind-cluster2").unwrap();
            cluster.cluster.as_ref().unwrap().server.clone().unwrap()
        };
        assert_eq!(server(all), "https://127.0.0.1:20971");
        assert_eq!(server(hidden), "https://127.0.0.1:30971");
    }

    #[test]
    fn the_home_of_who_called_sudo_is_found() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\nx:x:1::y:\n";
        assert_eq!(home_in(passwd, "ann"), Some(("/home/ann".into(), 1000)));
        assert_eq!(home_in(passwd, "x"), None);
        assert_eq!(home_in(passwd, "bob"), None);
    }
}
