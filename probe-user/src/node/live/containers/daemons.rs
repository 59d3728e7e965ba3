//! Where Docker and Podman listen, and for which containers each may speak.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::fstat;

use super::super::safefs::{Root, Unreadable};
use super::docker::{Client, Failure, Hello, Limits};
use super::procs::Procs;
use super::running::{Kind, Running};
use crate::model::{ContainerRef, Gap, Impact, Runtime};

/// How many sockets of one daemon are looked at.
pub(super) const PER_DAEMON: usize = 4;

/// How often a daemon may fail to answer before it is not asked any more.
pub(super) const STRIKES: u8 = 3;

/// A daemon's socket, and what is known of who listens there.
#[derive(Debug)]
pub(super) struct Daemon {
    /// Docker or Podman: by its path, and as soon as it has spoken by its word.
    pub(super) runtime: Runtime,
    /// The path as its own side names it.
    pub(super) path: String,
    /// The containers it runs in itself. It may only name containers directly
    /// below: a container can't speak of what is outside of it.
    pub(super) chain: Vec<ContainerRef>,
    /// Who owns it. A user's daemon may only name that user's containers.
    pub(super) uid: u32,
    client: Client,
    identity: (u64, u64),
    hello: Option<Hello>,
    down: Option<Failure>,
    strikes: u8,
}

impl Daemon {
    fn new(socket: OwnedFd, path: &str, runtime: Runtime, limits: Limits) -> Option<Self> {
        let stat = fstat(&socket).ok()?;
        Some(Self {
            runtime,
            path: path.to_owned(),
            chain: Vec::new(),
            uid: stat.st_uid,
            client: Client { socket: Arc::new(socket), limits },
            identity: (stat.st_dev, stat.st_ino),
            hello: None,
            down: None,
            strikes: 0,
        })
    }

    /// How answers from here are called: `Docker API (/var/run/docker.sock)`.
    pub(super) fn name(&self) -> String {
        let kind = if self.runtime == Runtime::Podman { "Podman" } else { "Docker" };
        match self.chain.last() {
            None => format!("{kind} API ({})", self.path),
            Some(place) => {
                let short: String = place.id.chars().take(12).collect();
                format!("{kind} API ({} in container {short})", self.path)
            }
        }
    }

    /// Whether this daemon may say what the last container of `chain` is, when
    /// the process that watches over the container runs as `monitor_uid`.
    pub(super) fn speaks_for(&self, chain: &[ContainerRef], monitor_uid: Option<u32>) -> bool {
        let Some((target, parents)) = chain.split_last() else { return false };
        let place = parents.len() == self.chain.len()
            && parents.iter().zip(&self.chain).all(|(a, b)| a.id == b.id);
        let kind = match target.runtime {
            // Also what a cgroup parent of the user's own choice hides.
            Runtime::Unknown => true,
            // cri-dockerd with cgroupfs: the path can't be told from containerd's.
            Runtime::Containerd => self.runtime == Runtime::Docker && target.pod.is_some(),
            runtime => runtime == self.runtime,
        };
        place && kind && (self.is_trusted() || monitor_uid == Some(self.uid))
    }

    /// Whether it is the daemon of the machine, or of the user who asks.
    pub(super) fn is_the_systems(&self) -> bool {
        self.chain.is_empty() && self.is_trusted()
    }

    fn is_trusted(&self) -> bool {
        self.uid == 0 || self.uid == rustix::process::geteuid().as_raw()
    }

    /// Asks something of the daemon, unless it has shown that it doesn't answer.
    pub(super) fn ask<T>(
        &mut self,
        question: impl FnOnce(&Client, Option<Hello>) -> (Option<Hello>, Result<T, Failure>),
    ) -> Result<T, Failure> {
        if let Some(failure) = &self.down {
            return Err(failure.clone());
        }
        let (hello, answer) = question(&self.client, self.hello.take());
        if let Some(hello) = &hello {
            self.runtime = hello.runtime;
        }
        match &answer {
            Ok(_) | Err(Failure::NotFound | Failure::TooBig(_)) if hello.is_some() => {
                self.strikes = 0;
            }
            // One container may be what the daemon fails at: the next is asked.
            Err(failure) => {
                self.strikes += 1;
                if hello.is_none() || self.strikes == STRIKES {
                    self.down = Some(failure.clone());
                }
            }
            Ok(_) => {}
        }
        self.hello = hello;
        answer
    }

    /// The gap that a failed question leaves.
    pub(super) fn gap(&self, failure: &Failure) -> Gap {
        let gap = Gap::new(Impact::Name, self.name(), failure.to_string());
        match failure {
            Failure::Denied if self.runtime == Runtime::Podman || self.uid != 0 => {
                gap.remedy("run as root")
            }
            Failure::Denied => {
                gap.remedy("run as root, or as a user in group docker (which is as good as root)")
            }
            Failure::Unreachable(_) => gap.remedy("start the daemon, if it should be running"),
            Failure::Timeout(_) => gap.remedy("check whether the daemon hangs"),
            Failure::NotFound | Failure::TooBig(_) | Failure::Garbage(_) => gap,
        }
    }
}

/// Daemons at the usual places of the tool's own mount namespace, whose root is
/// `root`; `docker_host` is `$DOCKER_HOST`.
pub(super) fn at_usual_places(
    root: &Path,
    docker_host: Option<&str>,
    limits: Limits,
    gaps: &mut Vec<Gap>,
) -> Vec<Daemon> {
    let mut found = Vec::new();
    let root = match Root::open(root) {
        Ok(root) => root,
        Err(error) => {
            gaps.push(Gap::new(Impact::Name, root.display().to_string(), error.to_string()));
            return found;
        }
    };
    let host = docker_host.and_then(|h| h.strip_prefix("unix://"));
    let mut places: Vec<(String, Runtime)> = Vec::new();
    places.extend(host.map(|path| (path.to_owned(), Runtime::Docker)));
    places.push(("/var/run/docker.sock".to_owned(), Runtime::Docker));
    places.push(("/run/podman/podman.sock".to_owned(), Runtime::Podman));
    let mut users = root.list(Path::new("/run/user"), 4096).unwrap_or_default();
    users.sort();
    for user in users {
        let user = user.display();
        places.push((format!("/run/user/{user}/docker.sock"), Runtime::Docker));
        places.push((format!("/run/user/{user}/podman/podman.sock"), Runtime::Podman));
    }
    for (path, runtime) in places {
        let asked_for = host == Some(path.as_str());
        match root.socket(Path::new(&path)) {
            Ok(socket) => add(&mut found, Daemon::new(socket, &path, runtime, limits)),
            // Nobody there: the usual case. Other users' directories can't be
            // looked into; what is missing then shows where it is needed.
            Err(Unreadable::Missing | Unreadable::Denied) if !asked_for => {}
            Err(error) if asked_for => gaps.push(
                Gap::new(Impact::Name, format!("Docker API ({path})"), error.to_string())
                    .remedy("correct DOCKER_HOST"),
            ),
            Err(error) => {
                gaps.push(Gap::new(
                    Impact::Name,
                    format!("Docker API ({path})"),
                    error.to_string(),
                ));
            }
        }
    }
    found
}

/// The sockets of daemons that run here, without those in `known`.
pub(super) fn of_running(
    procs: &Procs,
    own_root: &Path,
    running: &[Running],
    known: &[Daemon],
    limits: Limits,
) -> Vec<Daemon> {
    let mut found: Vec<Daemon> = Vec::new();
    for process in running {
        let Kind::Api(runtime) = process.kind else { continue };
        let root = Root::open(&procs.root(process.pid)).or_else(|error| {
            // At this level the tool's own root is most often the same one.
            if process.chain.is_empty() { Root::open(own_root) } else { Err(error) }
        });
        // Reading the state files there fails likewise, and says so where it
        // matters: at a container that is not named.
        let Ok(root) = root else { continue };
        for path in process.sockets.iter().take(PER_DAEMON) {
            let Ok(socket) = root.socket(Path::new(path)) else { continue };
            let Some(mut daemon) = Daemon::new(socket, path, runtime, limits) else {
                continue;
            };
            if known.iter().any(|other| other.identity == daemon.identity) {
                continue;
            }
            daemon.chain.clone_from(&process.chain);
            // Whoever is confined to a container can be root there; the place
            // it runs in is what limits it.
            daemon.uid = match &process.chain[..] {
                [] => process.uid.max(daemon.uid),
                _ => 0,
            };
            add(&mut found, Some(daemon));
        }
    }
    found
}

/// Adds a daemon unless its socket is there already under another name.
fn add(daemons: &mut Vec<Daemon>, daemon: Option<Daemon>) {
    if let Some(daemon) = daemon
        && !daemons.iter().any(|other| other.identity == daemon.identity)
    {
        daemons.push(daemon);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::model::PodRef;

    fn daemon(chain: &[&str], uid: u32) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let _listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let socket = Root::open(dir.path()).unwrap().socket(Path::new("s")).unwrap();
        let mut daemon = Daemon::new(socket, "/s", Runtime::Docker, Limits::USUAL).unwrap();
        daemon.chain = chain.iter().map(|id| container(id, Runtime::Docker)).collect();
        daemon.uid = uid;
        daemon
    }

    fn container(id: &str, runtime: Runtime) -> ContainerRef {
        ContainerRef { runtime, id: id.to_owned(), pod: None }
    }

    #[test]
    fn a_daemon_speaks_only_for_what_is_directly_below_it() {
        use Runtime::{Containerd, Docker, Podman, Unknown};
        let host = daemon(&[], 0);
        assert!(host.speaks_for(&[container("a", Docker)], None));
        assert!(host.speaks_for(&[container("a", Unknown)], None));
        assert!(!host.speaks_for(&[container("a", Podman)], None));
        assert!(!host.speaks_for(&[container("a", Containerd)], None));
        let pod = Some(PodRef { uid: "u".to_owned() });
        assert!(host.speaks_for(&[ContainerRef { pod, ..container("a", Containerd) }], None));
        assert!(!host.speaks_for(&[container("a", Docker), container("b", Docker)], None));
        assert!(!host.speaks_for(&[], None));

        let inner = daemon(&["a"], 0);
        assert!(inner.speaks_for(&[container("a", Docker), container("b", Docker)], None));
        // Not for its host's containers, nor for those of the container beside it.
        assert!(!inner.speaks_for(&[container("a", Docker)], None));
        assert!(!inner.speaks_for(&[container("c", Docker), container("b", Docker)], None));
    }

    #[test]
    fn a_users_daemon_speaks_only_for_that_users_containers() {
        let users = daemon(&[], 4_000_000);
        let chain = [container("a", Runtime::Docker)];
        assert!(!users.is_the_systems());
        assert!(users.speaks_for(&chain, Some(4_000_000)));
        assert!(!users.speaks_for(&chain, Some(0)));
        assert!(!users.speaks_for(&chain, None));
    }

    #[test]
    fn a_daemon_that_fails_at_one_container_is_asked_for_the_next() {
        use super::super::docker::tests::hello;
        let mut daemon = daemon(&[], 0);
        let timeout = Failure::Timeout(std::time::Duration::from_millis(1));
        for _ in 0..5 {
            let big = daemon.ask(|_, _| (Some(hello()), Err::<(), _>(Failure::TooBig(1))));
            assert_eq!(big, Err(Failure::TooBig(1)));
        }
        assert_eq!(daemon.ask(|_, _| (Some(hello()), Ok(1))), Ok(1));
        for _ in 0..STRIKES {
            assert!(daemon.ask(|_, _| (Some(hello()), Err::<(), _>(timeout.clone()))).is_err());
        }
        // Now it counts as down, without being asked.
        assert_eq!(daemon.ask(|_, _| (Some(hello()), Ok(1))), Err(timeout.clone()));
    }

    #[test]
    fn a_gap_names_the_socket_and_says_what_to_do() {
        let gap = daemon(&[], 0).gap(&Failure::Denied);
        assert_eq!(gap.source, "Docker API (/s)");
        assert_eq!(gap.reason, "permission denied");
        assert!(gap.remedy.unwrap().contains("group docker"));
        assert_eq!(gap.impact, Impact::Name);
        let inner = daemon(&["abcdefabcdefabcdef"], 0).gap(&Failure::TooBig(32 << 20));
        assert_eq!(inner.source, "Docker API (/s in container abcdefabcdef)");
        assert_eq!(inner.reason, "answer is larger than 32 MiB");
    }
}
