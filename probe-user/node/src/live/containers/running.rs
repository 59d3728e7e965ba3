//! Which daemons run, in containers too, and where their command lines say that
//! they listen.

use std::path::{Path, PathBuf};

use super::procs::{Procs, option_values};
use super::same;
use super::trust::Who;
use whereis_port_model::{ContainerRef, Pid, Runtime, Speaks};

/// How many daemons of one kind and user are taken from the process list, in one
/// container or outside of all: anybody can start as many processes called
/// `dockerd` as they like.
const PER_USER: usize = 16;

/// How many sockets of daemons of one kind and user are looked at, in one container or
/// outside of all; and how many of the machine's own.
const SOCKETS: usize = 4;
const SOCKETS_OF_THE_MACHINE: usize = 64;

/// The largest configuration file of containerd that is read, in bytes.
const MAX_CONFIG: usize = 256 * 1024;

/// How many files of a directory of them.
const CONFIGS: usize = 64;

/// The API that a daemon is asked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RuntimeApi {
    /// By the REST API of Docker.
    Api(Runtime),
    /// By the Container Runtime Interface.
    Cri(Runtime),
}

/// A daemon that runs as a process here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) pid: Pid,
    pub(super) who: Who,
    pub(super) chain: Vec<ContainerRef>,
    pub(super) kind: RuntimeApi,
    /// Sockets from its command line, else the usual ones.
    pub(super) sockets: Vec<String>,
    /// How many more sockets it and others of its kind name than are looked at.
    pub(super) more: usize,
    /// Docker's data directories, and the state directories of containerd, from
    /// its command line.
    pub(super) data_roots: Vec<String>,
    pub(super) states: Vec<String>,
}

/// The options of a daemon's command line that say where it listens and keeps files.
#[derive(Debug, Default, PartialEq, Eq)]
struct RuntimeOptions {
    sockets: Vec<String>,
    data_roots: Vec<String>,
    states: Vec<String>,
}

/// Finds daemons among the processes, in containers too. Whoever runs a program that others
/// can write, or with the rights of several users, is none.
pub(super) fn running(procs: &Procs) -> Vec<Running> {
    let mut found: Vec<Running> = Vec::new();
    for pid in procs.all() {
        let comm = procs.comm(pid);
        let Some((runtime, daemon)) = comm.as_deref().and_then(Runtime::of_program) else {
            continue;
        };
        let kind = match daemon.speaks {
            Speaks::Api => RuntimeApi::Api(runtime),
            Speaks::Cri => RuntimeApi::Cri(runtime),
        };
        let (Some(chain), Some(who)) = (procs.chain(pid), procs.who(pid)) else { continue };
        if !procs.runs_what_others_cannot_write(pid, who.uid) {
            continue;
        }
        let argv = procs.argv(pid);
        let is_the_hosts = chain.is_empty() && who.is_trusted_with_the_machine(procs.own_userns());
        let at_host = is_the_hosts.then_some(pid);
        let config = |path: &Path| config(procs, at_host?, path);
        let said = match kind {
            RuntimeApi::Api(runtime) => api(runtime, &argv, who.uid, config),
            RuntimeApi::Cri(_) => cri(comm.as_deref().unwrap_or_default(), &argv, config),
        };
        let Some(RuntimeOptions { mut sockets, data_roots, states }) = said else { continue };
        let beside: Vec<usize> = (0..found.len())
            .filter(|&at| {
                let other = &found[at];
                other.who == who && same(&other.chain, &chain) && other.kind == kind
            })
            .collect();
        // What another one names, too, is no socket more.
        let is_new = |path: &String| !beside.iter().any(|&at| found[at].sockets.contains(path));
        sockets.retain(|path| is_the_hosts || is_new(path));
        let looked_at: usize = beside.iter().map(|&at| found[at].sockets.len()).sum();
        let most = if is_the_hosts { SOCKETS_OF_THE_MACHINE } else { SOCKETS };
        let more = sockets.len().saturating_sub(most.saturating_sub(looked_at));
        sockets.truncate(sockets.len() - more);
        match beside.last() {
            Some(&last) if beside.len() == PER_USER => found[last].more += more + sockets.len(),
            _ => found.push(Running { pid, who, chain, kind, sockets, more, data_roots, states }),
        }
    }
    found
}

/// A configuration file of a daemon outside of all containers: one inside could
/// let its reader wait. With a `*` in its name, all that are called so, one after the other.
fn config(procs: &Procs, pid: Pid, path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    if let Some((begin, end)) = name.split_once('*') {
        let dir = path.parent()?;
        let is_so = |name: &str| {
            name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
        };
        let mut names = procs.root(pid).ok()?.list(dir, CONFIGS).ok()?;
        // No name with a `*` itself: each is read once.
        names.retain(|name| name.to_str().is_some_and(|name| is_so(name) && !name.contains('*')));
        names.sort();
        let texts = names.iter().filter_map(|name| config(procs, pid, &dir.join(name)));
        return Some(texts.collect::<Vec<_>>().join("\n"));
    }
    let content = procs.root(pid).ok()?.read(path, MAX_CONFIG).ok()?;
    Some(String::from_utf8_lossy(&content).into_owned())
}

/// A daemon with Docker's API, by its command line. `None` when it is no daemon:
/// `podman run`.
fn api(
    runtime: Runtime,
    argv: &[String],
    uid: u32,
    config: impl Fn(&Path) -> Option<String>,
) -> Option<RuntimeOptions> {
    let unix = |text: &str| text.strip_prefix("unix://").map(str::to_owned);
    if runtime == Runtime::Podman {
        let at = argv.windows(2).position(|w| w[0] == "system" && w[1] == "service")?;
        let mut sockets: Vec<String> = argv[at + 2..].iter().filter_map(|a| unix(a)).collect();
        if sockets.is_empty() {
            sockets.push(match uid {
                0 => "/run/podman/podman.sock".to_owned(),
                uid => format!("/run/user/{uid}/podman/podman.sock"),
            });
        }
        return Some(RuntimeOptions { sockets, ..RuntimeOptions::default() });
    }
    let file = option_values(argv, &["--config-file"]).first().copied();
    let text = config(Path::new(file.unwrap_or("/etc/docker/daemon.json")));
    let written: DockerConfig =
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    // It refuses to start with both.
    let hosts = option_values(argv, &["-H", "--host"]).into_iter().map(str::to_owned);
    let hosts = hosts.chain(written.hosts.unwrap_or_default());
    let mut sockets: Vec<String> = hosts.filter_map(|host| unix(&host)).collect();
    // Also with `fd://`, where systemd opens the usual one, and with TCP alone:
    // then there is nothing at that place.
    if sockets.is_empty() {
        sockets.push("/var/run/docker.sock".to_owned());
        if uid != 0 {
            sockets.push(format!("/run/user/{uid}/docker.sock"));
        }
    }
    let data_roots = option_values(argv, &["--data-root", "-g", "--graph"]);
    let data_roots = data_roots.into_iter().map(str::to_owned).chain(written.data_root).collect();
    Some(RuntimeOptions { sockets, data_roots, ..RuntimeOptions::default() })
}

/// What of dockerd's `daemon.json` says where things are.
#[derive(Debug, Default, serde::Deserialize)]
struct DockerConfig {
    hosts: Option<Vec<String>>,
    #[serde(rename = "data-root")]
    data_root: Option<String>,
}

/// A runtime of Kubernetes, or who uses one, by its name and command line.
fn cri(
    comm: &str,
    argv: &[String],
    config: impl Fn(&Path) -> Option<String>,
) -> Option<RuntimeOptions> {
    let plain = |text: &str| text.strip_prefix("unix://").unwrap_or(text).to_owned();
    let given = |names: &[&str]| -> Vec<String> {
        let values = option_values(argv, names).into_iter().map(plain);
        values.filter(|path| path.starts_with('/')).collect()
    };
    let or = |given: Vec<String>, usual: &[&str]| match given.is_empty() {
        true => usual.iter().map(|&path| path.to_owned()).collect(),
        false => given,
    };
    let said = match comm {
        "containerd" => {
            let mut said = RuntimeOptions {
                sockets: given(&["-a", "--address"]),
                states: given(&["--state"]),
                ..RuntimeOptions::default()
            };
            if said.sockets.is_empty() || said.states.is_empty() {
                let files = or(given(&["-c", "--config"]), &["/etc/containerd/config.toml"]);
                let text = files.first().and_then(|file| containerd_text(file, &config));
                let written = containerd_config(text.as_deref().unwrap_or_default());
                said.sockets = match said.sockets.is_empty() {
                    true => written.sockets,
                    false => said.sockets,
                };
                said.states = match said.states.is_empty() {
                    true => written.states,
                    false => said.states,
                };
            }
            said.sockets = or(said.sockets, &["/run/containerd/containerd.sock"]);
            said
        }
        "crio" => {
            let mut sockets = given(&["--listen"]);
            if sockets.is_empty() {
                let file = or(given(&["-c", "--config"]), &["/etc/crio/crio.conf"]);
                let more = or(given(&["-d", "--config-dir"]), &["/etc/crio/crio.conf.d"]);
                // What is read later counts more.
                let texts = file.into_iter().chain(more.iter().map(|dir| format!("{dir}/*.conf")));
                let said = texts.filter_map(|path| config(Path::new(&path)));
                sockets = said.filter_map(|text| crio_config(&text)).last().into_iter().collect();
            }
            let sockets = or(sockets, &["/var/run/crio/crio.sock"]);
            RuntimeOptions { sockets, ..RuntimeOptions::default() }
        }
        "cri-dockerd" => {
            let usual = ["/run/cri-dockerd.sock", "/var/run/cri-dockerd.sock"];
            let sockets = or(given(&["--container-runtime-endpoint"]), &usual);
            RuntimeOptions { sockets, ..RuntimeOptions::default() }
        }
        // Without it, an old kubelet serves Docker's containers itself.
        "kubelet" => {
            let usual = ["/var/run/dockershim.sock"];
            let sockets = or(given(&["--container-runtime-endpoint"]), &usual);
            RuntimeOptions { sockets, ..RuntimeOptions::default() }
        }
        // Its containerd is a process of its own; with `--docker` it serves CRI.
        "k3s" | "k3s-server" | "k3s-agent" => {
            let sockets = vec!["/run/k3s/cri-dockerd/cri-dockerd.sock".to_owned()];
            RuntimeOptions { sockets, ..RuntimeOptions::default() }
        }
        _ => return None,
    };
    Some(said)
}

/// Where CRI-O's configuration says that it listens: `listen` of its section `crio.api`.
fn crio_config(text: &str) -> Option<String> {
    let of_api = |(section, key, value): (&str, &str, &str)| {
        (section == "[crio.api]" && key == "listen").then(|| value.to_owned())
    };
    let found = settings(text).into_iter().rev().find_map(of_api);
    let plain = found.map(|path| path.strip_prefix("unix://").map(str::to_owned).unwrap_or(path));
    plain.filter(|path| path.starts_with('/'))
}

/// The text of containerd's configuration with what it imports, which counts more and so comes
/// first: a file name, or a pattern, below the directory of the file that names it.
fn containerd_text(file: &str, config: &impl Fn(&Path) -> Option<String>) -> Option<String> {
    let mut texts = vec![config(Path::new(file))?];
    let mut known = vec![PathBuf::from(file)];
    let mut at = 0;
    while let (Some(text), Some(from)) = (texts.get(at), known.get(at)) {
        let dir = from.parent().unwrap_or(Path::new("/"));
        let named: Vec<PathBuf> = imports(text).into_iter().map(|name| dir.join(name)).collect();
        for path in named {
            if known.len() < CONFIGS
                && !known.contains(&path)
                && let Some(text) = config(&path)
            {
                known.push(path);
                texts.push(text);
            }
        }
        at += 1;
    }
    texts.reverse();
    // What stands before the first section of each stays without one.
    Some(texts.join("\n[]\n"))
}

/// What a configuration of containerd imports: a list of texts, which may go over several lines.
fn imports(text: &str) -> Vec<&str> {
    let mut lines = text.lines().map(str::trim).take_while(|line| !line.starts_with('['));
    let is_it = |line: &str| {
        line.strip_prefix("imports").is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let mut all = Vec::new();
    let Some(first) = lines.by_ref().find(|line| is_it(line)) else { return all };
    let more = text.lines().map(str::trim).skip_while(|line| *line != first).skip(1);
    let begin = first.split_once('[').map_or("", |(_, list)| list);
    for line in std::iter::once(begin).chain(more) {
        let mut rest = line;
        while let Some(at) = rest.find(['"', '\'', '#', ']']) {
            let (mark, after) = rest[at..].split_at(1);
            match mark {
                "#" => break,
                "]" => return all,
                quote => {
                    let Some((name, after)) = after.split_once(quote) else { return all };
                    all.push(name);
                    rest = after;
                }
            }
        }
    }
    all
}

/// The two settings of containerd's `config.toml` that say where things are:
/// `state`, and `address` of its section `grpc`.
fn containerd_config(text: &str) -> RuntimeOptions {
    let mut said = RuntimeOptions::default();
    for (section, key, value) in settings(text) {
        match (section, key) {
            ("" | "[]", "state") => said.states.push(value.to_owned()),
            ("[grpc]", "address") => said.sockets.push(value.to_owned()),
            _ => {}
        }
    }
    // Of several files the first one counts.
    said.states.truncate(1);
    said.sockets.truncate(1);
    said
}

/// The texts in a file of TOML: section, key and value.
fn settings(text: &str) -> Vec<(&str, &str, &str)> {
    let mut all = Vec::new();
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.trim();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let Some(quote) = quote else { continue };
        let Some((value, _)) = value[1..].split_once(quote) else { continue };
        all.push((section, key.trim(), value));
    }
    all
}

#[cfg(feature = "fuzzing")]
pub(in super::super) fn fuzz(bytes: &[u8]) {
    let argv = crate::live::fuzzing::lines(bytes);
    let text = String::from_utf8_lossy(bytes);
    for runtime in [Runtime::Docker, Runtime::Podman] {
        api(runtime, &argv, 0, |_| Some(text.clone().into_owned()));
    }
    for comm in ["containerd", "crio", "cri-dockerd", "kubelet", "k3s"] {
        cri(comm, &argv, |_| Some(text.clone().into_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn sockets(runtime: Runtime, line: &str, uid: u32) -> Option<Vec<String>> {
        api(runtime, &argv(line), uid, |_| None).map(|said| said.sockets)
    }

    #[test]
    fn sockets_come_from_the_command_line() {
        let said = api(
            Runtime::Docker,
            &argv("dockerd -H fd:// --host=unix:///tmp/a.sock --host unix:///b --data-root /d"),
            0,
            |_| None,
        )
        .unwrap();
        assert_eq!(said.sockets, ["/tmp/a.sock", "/b"]);
        assert_eq!(said.data_roots, ["/d"]);
        let docker = |line, uid| sockets(Runtime::Docker, line, uid).unwrap();
        assert_eq!(docker("dockerd -H fd://", 0), ["/var/run/docker.sock"]);
        assert_eq!(docker("dockerd", 1000), ["/var/run/docker.sock", "/run/user/1000/docker.sock"]);
        let podman = |line| sockets(Runtime::Podman, line, 0);
        assert_eq!(podman("podman system service -t 0 unix:///p").unwrap(), ["/p"]);
        assert_eq!(podman("podman run -d x"), None);
    }

    /// Where a runtime of Kubernetes with this command line listens; the last
    /// part of the name of its program is its name.
    fn cri_sockets(line: &str) -> Vec<String> {
        let argv = argv(line);
        let comm = argv[0].rsplit('/').next().unwrap();
        cri(comm, &argv, |_| None).unwrap().sockets
    }

    #[test]
    fn runtimes_of_kubernetes_say_where_they_listen() {
        for (line, socket) in [
            ("/usr/bin/containerd", "/run/containerd/containerd.sock"),
            (
                "containerd -c /var/lib/rancher/k3s/agent/etc/containerd/config.toml \
                 -a /run/k3s/containerd/containerd.sock --state /run/k3s/containerd",
                "/run/k3s/containerd/containerd.sock",
            ),
            (
                "/var/lib/k0s/bin/containerd --root=/var/lib/k0s/containerd \
                 --state=/run/k0s/containerd --address=/run/k0s/containerd.sock",
                "/run/k0s/containerd.sock",
            ),
            ("/usr/bin/crio", "/var/run/crio/crio.sock"),
            ("crio --listen unix:///run/x.sock", "/run/x.sock"),
            (
                "kubelet --container-runtime-endpoint=unix:///run/containerd/containerd.sock",
                "/run/containerd/containerd.sock",
            ),
            ("kubelet --container-runtime-endpoint /run/crio.sock", "/run/crio.sock"),
            ("kubelet", "/var/run/dockershim.sock"),
            ("cri-dockerd --container-runtime-endpoint fd://", "/run/cri-dockerd.sock"),
            ("/usr/local/bin/k3s-server", "/run/k3s/cri-dockerd/cri-dockerd.sock"),
        ] {
            assert_eq!(cri_sockets(line)[0], socket, "{line}");
        }
    }

    #[test]
    fn dockerds_configuration_says_where_it_listens() {
        let of = |line: &str, text: &'static str| {
            let said = api(Runtime::Docker, &argv(line), 0, |path| {
                (path == Path::new("/d.json")).then(|| text.to_owned())
            });
            let said = said.unwrap();
            (said.sockets, said.data_roots)
        };
        let text = r#"{"hosts": ["tcp://127.0.0.1:2375", "unix:///x.sock"], "data-root": "/data"}"#;
        let own = |socket: &str, roots: &[&str]| {
            (vec![socket.to_owned()], roots.iter().map(|root| (*root).to_owned()).collect())
        };
        assert_eq!(of("dockerd --config-file /d.json", text), own("/x.sock", &["/data"]));
        assert_eq!(of("dockerd", text), own("/var/run/docker.sock", &[]));
        for broken in ["", "{", "[]", r#"{"hosts": 5}"#] {
            let usual = own("/var/run/docker.sock", &[]);
            assert_eq!(of("dockerd --config-file=/d.json", broken), usual, "{broken}");
        }
    }

    #[test]
    fn crios_configuration_says_where_it_listens_and_the_last_word_counts() {
        let sockets = |line: &str| {
            let read = |path: &Path| match path.to_str().unwrap() {
                "/etc/crio/crio.conf" => Some("[crio]\n[crio.api]\nlisten = \"/a.sock\"\n"),
                "/etc/crio/crio.conf.d/*.conf" => {
                    Some("[crio.api]\n# listen = \"/no\"\nlisten = '/b.sock'\n")
                }
                "/x.conf" => Some("[crio.metrics]\nlisten = \"/no\"\n"),
                _ => None,
            };
            cri("crio", &argv(line), |path| read(path).map(str::to_owned)).unwrap().sockets
        };
        assert_eq!(sockets("crio"), ["/b.sock"]);
        assert_eq!(sockets("crio -d /none"), ["/a.sock"]);
        assert_eq!(
            sockets("crio --config /x.conf --config-dir /none"),
            ["/var/run/crio/crio.sock"]
        );
        assert_eq!(sockets("crio --listen /c.sock"), ["/c.sock"]);
    }

    #[test]
    fn containerds_configuration_says_where_it_is() {
        let text = "version = 2\nstate = \"/tmp/state\"\n#address = \"/no\"\n[grpc]\n  \
                    address = '/tmp/c.sock' # here\n  uid = 0\n[debug]\n address = \"/no\"\n";
        let said = cri("containerd", &argv("containerd --config /c.toml"), |path| {
            (path == Path::new("/c.toml")).then(|| text.to_owned())
        });
        let said = said.unwrap();
        assert_eq!(said.sockets, ["/tmp/c.sock"]);
        assert_eq!(said.states, ["/tmp/state"]);
        // What is given on the command line counts more.
        let line = "containerd -c /c.toml --address /a.sock --state /s";
        let said = cri("containerd", &argv(line), |_| Some(text.to_owned())).unwrap();
        assert_eq!((said.sockets, said.states), (vec!["/a.sock".into()], vec!["/s".into()]));
        // Of what it imports, the last counts.
        let said = cri("containerd", &argv("containerd"), |path| {
            let text = match path.to_str().unwrap() {
                "/etc/containerd/config.toml" => {
                    "version = 3\nimports = [\"conf.d/*.toml\", # more\n '/x.toml']\n\
                     state = \"/a\"\n[grpc]\naddress = \"/a.sock\"\n"
                }
                "/etc/containerd/conf.d/*.toml" => "[grpc]\naddress = \"/b.sock\"\n",
                "/x.toml" => "imports = ['/x.toml', '/gone']\nstate = \"/c\"\n",
                _ => return None,
            };
            Some(text.to_owned())
        });
        let said = said.unwrap();
        assert_eq!((said.sockets, said.states), (vec!["/b.sock".into()], vec!["/c".into()]));
        for broken in
            ["imports", "imports =", "imports = [", "imports = ['", "[a]\nimports = ['b']"]
        {
            assert_eq!(imports(broken), [""; 0], "{broken}");
        }
        for broken in ["[grpc", "=", "address =", "address = \"x", "state = \"é"] {
            assert_eq!(containerd_config(broken), RuntimeOptions::default(), "{broken}");
        }
    }
}
