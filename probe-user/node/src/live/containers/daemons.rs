//! Where Docker and Podman listen, and for which containers each may speak.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use super::super::asking::DaemonBudget;
use super::super::reader::{OpenedSocket, Responder, RootDirectory};
use super::super::safefs::Unreadable;
use super::docker::{DaemonFailure, DockerClient, Hello, RequestLimits};
use super::procs::Procs;
use super::same;
use super::trust::{Judge, Who};
use whereis_port_model::{
    Container, ContainerRef, Gap, GapKind, GapSource, Impact, Pod, Runtime, Speaks, Teller, ToldBy,
};

/// How often a daemon may fail to answer before it is not asked any more.
pub(super) const STRIKES: u8 = 3;

/// A daemon's socket, and what is known of who listens there.
#[derive(Debug)]
pub(super) struct DaemonSocket {
    /// Docker or Podman: by its path, and as soon as it has spoken by its word.
    pub(super) runtime: Runtime,
    /// The path as its own side names it.
    pub(super) path: String,
    /// The containers it runs in itself. It may only name containers directly
    /// below: a container can't speak of what is outside of it.
    pub(super) chain: Vec<ContainerRef>,
    /// Whose it is. A user's daemon may only name that user's containers.
    pub(super) who: Who,
    /// Whether only root, or who asks, has a say in it.
    machines: bool,
    client: DockerClient,
    identity: (u64, u64),
    hello: Option<Hello>,
    down: Option<DaemonFailure>,
    strikes: u8,
    asked: bool,
    /// The pods of Podman's containers, by the ids of these.
    pods: Option<HashMap<String, Pod>>,
    /// The driver of each network, and whether it is internal.
    networks: Option<HashMap<String, (Option<String>, bool)>>,
}

impl DaemonSocket {
    /// A daemon at a socket; without `who` it is the socket's owner's.
    pub(super) fn new(
        socket: OpenedSocket,
        path: &str,
        runtime: Runtime,
        limits: RequestLimits,
        (procs, chain, who): (&Procs, &[ContainerRef], Option<&Who>),
    ) -> Self {
        let stat = socket.stat;
        let who = who.cloned().unwrap_or_else(|| procs.someone_here(stat.uid));
        let judge = Judge { procs: procs.clone(), chain: chain.to_vec(), uid: who.uid };
        Self {
            runtime,
            path: path.to_owned(),
            chain: chain.to_vec(),
            machines: chain.is_empty() && who.is_trusted_with_the_machine(procs.own_userns()),
            who,
            client: DockerClient { socket, limits, judge: Some(judge), tokio: procs.tokio() },
            identity: (stat.dev, stat.ino),
            hello: None,
            down: None,
            strikes: 0,
            asked: false,
            pods: None,
            networks: None,
        }
    }

    /// Whether both are the same socket.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// How answers from here are called: `Docker API (/var/run/docker.sock)`.
    pub(super) fn name(&self) -> ToldBy {
        let podman = self.runtime == Runtime::Podman;
        let teller = if podman { Teller::PodmanApi } else { Teller::DockerApi };
        ToldBy::new(teller, place(&self.path, &self.chain))
    }

    /// Whether this daemon may say what the last container of `chain` is, which `holder`
    /// holds.
    pub(super) fn speaks_for(&self, chain: &[ContainerRef], holder: &Who) -> bool {
        let Some((target, parents)) = chain.split_last() else { return false };
        let place = same(parents, &self.chain);
        let kind = match target.runtime {
            // Also what a cgroup parent of the user's own choice hides.
            Runtime::Unknown => true,
            // cri-dockerd with cgroupfs: the path can't be told from containerd's.
            Runtime::Containerd => self.runtime == Runtime::Docker && target.pod.is_some(),
            runtime => runtime == self.runtime,
        };
        place && kind && self.who.speaks_for(holder)
    }

    /// Whether it is the daemon of the machine, or of the user who asks.
    pub(super) fn is_the_systems(&self) -> bool {
        self.machines
    }

    /// Asks something of the daemon, unless it has shown that it doesn't answer.
    pub(super) fn ask<T, Q>(
        &mut self,
        budget: &mut DaemonBudget,
        question: Q,
    ) -> Result<T, DaemonFailure>
    where
        Q: FnOnce(&DockerClient, Option<Hello>) -> (Option<Hello>, Result<T, DaemonFailure>),
    {
        if let Some(failure) = &self.down {
            return Err(failure.clone());
        }
        let mut client = self.client.clone();
        let time = budget.grant(client.limits.time, self.machines, self.asked);
        client.limits.time = time.ok_or(DaemonFailure::NotAsked)?;
        self.asked = true;
        let began = Instant::now();
        let (hello, answer) = question(&client, self.hello.take());
        if !self.machines || matches!(answer, Err(DaemonFailure::Timeout(_))) {
            budget.spend(began);
        }
        if let Some(hello) = &hello {
            self.runtime = hello.runtime;
        }
        match &answer {
            Ok(_) | Err(DaemonFailure::NotFound | DaemonFailure::TooBig(_)) if hello.is_some() => {
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

    /// The pod that a container is in, as Podman says.
    pub(super) fn pod_of(&mut self, budget: &mut DaemonBudget, id: &str) -> Option<Pod> {
        if self.runtime != Runtime::Podman {
            return None;
        }
        if self.pods.is_none() {
            // Without an answer there are none: older ones have another API.
            let told = self.ask(budget, DockerClient::pods).unwrap_or_default();
            self.pods = Some(told.into_iter().collect());
        }
        self.pods.as_ref()?.get(id).cloned()
    }

    /// Adds what kind of networks a container is on.
    pub(super) fn tell_networks(&mut self, budget: &mut DaemonBudget, container: &mut Container) {
        if container.networks.is_empty() {
            return;
        }
        if self.networks.is_none() {
            // It is a help, and not missed.
            let told = self.ask(budget, DockerClient::networks).unwrap_or_default();
            let each = told.into_iter().filter_map(|network| {
                Some((network.name?, (network.driver, network.internal == Some(true))))
            });
            self.networks = Some(each.collect());
        }
        for network in &mut container.networks {
            let known = self.networks.as_ref().and_then(|known| known.get(&network.name));
            if let Some((driver, internal)) = known {
                network.driver.clone_from(driver);
                network.internal = *internal;
            }
        }
    }

    /// The gap that a failed question leaves.
    pub(super) fn gap(&self, failure: &DaemonFailure) -> Gap {
        let source = GapSource::new(GapKind::Runtime, self.name().to_string());
        let gap = Gap::new(Impact::Name, source, failure.to_string());
        match failure {
            DaemonFailure::Denied if self.runtime == Runtime::Podman || self.who.uid != 0 => {
                gap.remedy("run as root")
            }
            DaemonFailure::Denied => {
                gap.remedy("run as root, or as a user in group docker (which is as good as root)")
            }
            DaemonFailure::Unreachable(_) => {
                gap.remedy("start the daemon, if it should be running")
            }
            DaemonFailure::Timeout(_) => gap.remedy("check whether the daemon hangs"),
            _ => gap,
        }
    }
}

/// Daemons at the usual places of the tool's own mount namespace, whose root is
/// `root`; `docker_host` is `$DOCKER_HOST`, or that of the context in use.
pub(super) fn at_usual_places(
    procs: &Procs,
    root: &Path,
    docker_host: Option<&str>,
    limits: RequestLimits,
    gaps: &mut Vec<Gap>,
) -> Vec<DaemonSocket> {
    let mut found = Vec::new();
    let root = match procs.reader().open(root, Responder::own(root)) {
        Ok(root) => root,
        Err(error) => {
            let source = GapSource::new(GapKind::Runtime, root.display().to_string());
            gaps.push(Gap::new(Impact::Name, source, error.to_string()));
            return found;
        }
    };
    let host = docker_host.and_then(|h| h.strip_prefix("unix://"));
    // What is in a user's directory is that user's, wherever a link leads.
    let mut places: Vec<(RootDirectory, String, Runtime, Option<u32>)> = Vec::new();
    let machines = |path: &str, runtime| (root.part(path), path.to_owned(), runtime, None);
    places.extend(host.map(|path| machines(path, Runtime::Docker)));
    for (runtime, daemon) in Runtime::daemons(Speaks::Api) {
        places.extend(daemon.sockets.iter().map(|path| machines(path, runtime)));
    }
    let mut users = root.part("/run/user").list(Path::new("/run/user"), 4096).unwrap_or_default();
    users.sort();
    for user in users {
        let Some(uid) = user.to_str().and_then(|user| user.parse().ok()) else { continue };
        let directory = format!("/run/user/{uid}");
        let tree = root.part_of_others(&directory);
        for (runtime, daemon) in Runtime::daemons(Speaks::Api) {
            let each = |below| (tree.clone(), format!("{directory}/{below}"), runtime, Some(uid));
            places.extend(daemon.user_sockets.iter().map(each));
        }
    }
    for (root, path, runtime, uid) in places {
        let asked_for = host == Some(path.as_str());
        let who = uid.map(|uid| procs.someone_here(uid));
        match root.socket(Path::new(&path)) {
            Ok(socket) => {
                let place = (procs, &[][..], who.as_ref());
                add(&mut found, DaemonSocket::new(socket, &path, runtime, limits, place));
            }
            // Nobody there: the usual case. Other users' directories can't be
            // looked into; what is missing then shows where it is needed.
            Err(Unreadable::Missing | Unreadable::Denied) if !asked_for => {}
            Err(error) if asked_for => gaps.push(
                Gap::new(
                    Impact::Name,
                    GapSource::new(GapKind::Runtime, format!("Docker API ({path})")),
                    error.to_string(),
                )
                .remedy("correct DOCKER_HOST, or the context of Docker"),
            ),
            Err(error) => {
                gaps.push(Gap::new(
                    Impact::Name,
                    GapSource::new(GapKind::Runtime, format!("Docker API ({path})")),
                    error.to_string(),
                ));
            }
        }
    }
    found
}

/// A path as its own side names it, and which side that is.
pub(super) fn place(path: &str, chain: &[ContainerRef]) -> String {
    match chain.last() {
        None => path.to_owned(),
        Some(place) => {
            let short: String = place.id.chars().take(12).collect();
            format!("{path} in container {short}")
        }
    }
}

/// Sockets of which nobody could say whether they are there.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// Those that were waited for. The time for that is limited, so they are few.
    silent: Vec<Gap>,
    left_out: usize,
    why: String,
}

impl Unanswered {
    /// Takes in why a socket was not opened. Most often there is none, which is nothing
    /// to be told.
    pub(super) fn note(&mut self, path: &str, chain: &[ContainerRef], error: Unreadable) {
        match error {
            Unreadable::Silent(_) => {
                let source =
                    GapSource::new(GapKind::Runtime, format!("socket {}", place(path, chain)));
                let gap = Gap::new(Impact::Name, source, error.to_string());
                self.silent.push(gap.remedy("look who serves the file system that it lies on"));
            }
            Unreadable::LeftOut(why) => {
                self.left_out += 1;
                self.why = why;
            }
            _ => {}
        }
    }

    pub(super) fn tell(self, gaps: &mut Vec<Gap>) {
        gaps.extend(self.silent);
        if self.left_out > 0 {
            let source = format!("{} more sockets of container runtimes", self.left_out);
            let source = GapSource::new(GapKind::Runtime, source);
            gaps.push(Gap::new(Impact::Name, source, format!("not looked at: {}", self.why)));
        }
    }
}

/// Adds a daemon unless its socket is there already under another name.
pub(super) fn add(daemons: &mut Vec<DaemonSocket>, daemon: DaemonSocket) {
    if !daemons.iter().any(|other| other.is_at(&daemon) && other.who == daemon.who) {
        daemons.push(daemon);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::super::reader::Reader;
    use super::*;
    use whereis_port_model::PodRef;

    fn daemon(chain: &[&str], uid: u32) -> DaemonSocket {
        let dir = tempfile::tempdir().unwrap();
        let _listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let socket = RootDirectory::at(dir.path()).socket(Path::new("s")).unwrap();
        let chain: Vec<_> = chain.iter().map(|id| container(id, Runtime::Docker)).collect();
        let (procs, who) = (Procs::new(dir.path(), Reader::default()), user(uid));
        let place = (&procs, &chain[..], Some(&who));
        DaemonSocket::new(socket, "/s", Runtime::Docker, RequestLimits::USUAL, place)
    }

    fn user(uid: u32) -> Who {
        Who { uid, userns: Some("user:[1]".to_owned()) }
    }

    fn container(id: &str, runtime: Runtime) -> ContainerRef {
        ContainerRef { runtime, id: id.to_owned(), pod: None }
    }

    #[test]
    fn a_daemon_speaks_only_for_what_is_directly_below_it() {
        use Runtime::{Containerd, Docker, Podman, Unknown};
        let host = daemon(&[], 0);
        assert!(host.speaks_for(&[container("a", Docker)], &user(0)));
        assert!(host.speaks_for(&[container("a", Unknown)], &user(0)));
        assert!(!host.speaks_for(&[container("a", Podman)], &user(0)));
        assert!(!host.speaks_for(&[container("a", Containerd)], &user(0)));
        let pod = Some(PodRef { uid: "u".to_owned() });
        assert!(host.speaks_for(&[ContainerRef { pod, ..container("a", Containerd) }], &user(0)));
        assert!(!host.speaks_for(&[container("a", Docker), container("b", Docker)], &user(0)));
        assert!(!host.speaks_for(&[], &user(0)));

        let inner = daemon(&["a"], 0);
        assert!(inner.speaks_for(&[container("a", Docker), container("b", Docker)], &user(0)));
        // Not for its host's containers, nor for those of the container beside it.
        assert!(!inner.speaks_for(&[container("a", Docker)], &user(0)));
        assert!(!inner.speaks_for(&[container("c", Docker), container("b", Docker)], &user(0)));
    }

    #[test]
    fn a_users_daemon_speaks_only_for_that_users_containers() {
        let users = daemon(&[], 4_000_000);
        let chain = [container("a", Runtime::Docker)];
        assert!(!users.is_the_systems());
        assert!(users.speaks_for(&chain, &user(4_000_000)));
        assert!(!users.speaks_for(&chain, &user(0)));
        // Root of a user namespace that a user has made is not the machine's, and where
        // namespaces can't be read, users are what is left.
        let root = daemon(&[], 0);
        let below = Who { uid: 0, userns: Some("user:[2]".to_owned()) };
        assert!(!root.speaks_for(&chain, &below) && root.speaks_for(&chain, &user(0)));
        assert!(root.speaks_for(&chain, &Who { uid: 0, userns: None }));
        assert!(!root.speaks_for(&chain, &user(4_000_000)));
    }

    #[test]
    fn a_daemon_that_fails_at_one_container_is_asked_for_the_next() {
        use super::super::docker::tests::hello;
        let mut daemon = daemon(&[], 0);
        let mut budget = DaemonBudget::of(RequestLimits::USUAL);
        let timeout = DaemonFailure::Timeout(std::time::Duration::from_millis(1));
        for _ in 0..5 {
            let big = daemon
                .ask(&mut budget, |_, _| (Some(hello()), Err::<(), _>(DaemonFailure::TooBig(1))));
            assert_eq!(big, Err(DaemonFailure::TooBig(1)));
        }
        assert_eq!(daemon.ask(&mut budget, |_, _| (Some(hello()), Ok(1))), Ok(1));
        for _ in 0..STRIKES {
            assert!(
                daemon
                    .ask(&mut budget, |_, _| (Some(hello()), Err::<(), _>(timeout.clone())))
                    .is_err()
            );
        }
        // Now it counts as down, without being asked.
        assert_eq!(daemon.ask(&mut budget, |_, _| (Some(hello()), Ok(1))), Err(timeout.clone()));
    }

    #[test]
    fn a_gap_names_the_socket_and_says_what_to_do() {
        let gap = daemon(&[], 0).gap(&DaemonFailure::Denied);
        assert_eq!(gap.source.to_string(), "Docker API (/s)");
        assert_eq!(gap.reason, "permission denied");
        assert!(gap.remedy.unwrap().contains("group docker"));
        assert_eq!(gap.impact, Impact::Name);
        let inner = daemon(&["abcdefabcdefabcdef"], 0).gap(&DaemonFailure::TooBig(32 << 20));
        assert_eq!(inner.source.to_string(), "Docker API (/s in container abcdefabcdef)");
        assert_eq!(inner.reason, "answer is larger than 32 MiB");
    }
}
