//! Where runtimes of Kubernetes listen, and of which containers each may speak.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::fstat;

use super::super::asking::{Failure, Limits};
use super::super::cri::{Client, Peer, Told, Version};
use super::super::safefs::Root;
use super::daemons::{PER_DAEMON, STRIKES};
use super::procs::Procs;
use super::running::{Kind, Running};
use super::same;
use crate::model::{Container, ContainerRef, Gap, Impact, Runtime};

/// Where runtimes listen that were not seen running: kubeadm's and kind's, k3s's
/// and RKE2's, k0s's, MicroK8s's; CRI-O's; those for Docker.
const USUAL: [&str; 8] = [
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/var/run/crio/crio.sock",
    "/var/run/cri-dockerd.sock",
    "/run/k3s/cri-dockerd/cri-dockerd.sock",
    "/var/run/dockershim.sock",
];

/// How many containers are asked for one by one. A question about one port needs
/// few; a list of everything is cheaper than many single questions.
const SINGLE: usize = 8;

/// How many sockets are asked in one container, where each can take as long as
/// it is given.
const PER_CONTAINER: usize = 4;

/// A runtime's socket, and what is known of who listens there.
#[derive(Debug)]
pub(super) struct Listener {
    /// The path as its own side names it.
    path: String,
    /// The containers it runs in itself. It may only name containers directly
    /// below.
    chain: Vec<ContainerRef>,
    /// Who owns it. A user's runtime may only name that user's containers.
    uid: u32,
    client: Client,
    identity: (u64, u64),
    version: Option<Version>,
    down: Option<Failure>,
    strikes: u8,
    /// Whether so much will be asked that a list of everything is cheaper.
    pub(super) wants_list: bool,
    /// How many single containers it was asked for.
    asked: usize,
    /// Whether it was asked for all.
    has_listed: bool,
    /// What it listed, by id.
    listed: Option<HashMap<String, Container>>,
}

impl Listener {
    fn new(socket: OwnedFd, path: &str, limits: Limits) -> Option<Self> {
        let stat = fstat(&socket).ok()?;
        let client = Client { socket: Arc::new(socket), limits, runtime: runtime_at(path) };
        Some(Self {
            path: path.to_owned(),
            chain: Vec::new(),
            uid: stat.st_uid,
            client,
            identity: (stat.st_dev, stat.st_ino),
            version: None,
            down: None,
            strikes: 0,
            wants_list: false,
            asked: 0,
            has_listed: false,
            listed: None,
        })
    }

    /// How answers from here are called: `CRI (/run/containerd/containerd.sock)`.
    pub(super) fn name(&self) -> String {
        match self.chain.last() {
            None => format!("CRI ({})", self.path),
            Some(place) => {
                let short: String = place.id.chars().take(12).collect();
                format!("CRI ({} in container {short})", self.path)
            }
        }
    }

    /// Whether this runtime may say what the last container of `chain` is, when
    /// the process that watches over the container runs as `monitor_uid`.
    pub(super) fn speaks_for(&self, chain: &[ContainerRef], monitor_uid: Option<u32>) -> bool {
        let Some((target, parents)) = chain.split_last() else { return false };
        let runtime = self.client.runtime;
        let kind = match target.runtime {
            Runtime::Unknown => target.pod.is_some(),
            // cri-dockerd with cgroupfs: the path can't be told from containerd's.
            Runtime::Containerd => runtime != Runtime::CriO,
            other => runtime == other,
        };
        let trusted = self.uid == 0 || self.uid == rustix::process::geteuid().as_raw();
        same(&self.chain, parents) && kind && (trusted || monitor_uid == Some(self.uid))
    }

    /// Asks for one container or sandbox.
    pub(super) fn one(&mut self, procs: &Procs, id: &str) -> Result<Told<Container>, Failure> {
        self.asked += 1;
        if (self.wants_list || self.asked > SINGLE) && !self.has_listed {
            self.has_listed = true;
            // Where that fails, single ones may still be told.
            let listed = self.ask(procs, |client, version, judge| client.list(version, judge));
            let by_id = |c: Container| (c.id.clone(), c);
            self.listed = listed.ok().map(|all| all.into_iter().map(by_id).collect());
        }
        if let Some(listed) = &self.listed {
            let value = listed.get(id).cloned().ok_or(Failure::NotFound)?;
            return Ok(Told { value, missing: None });
        }
        self.ask(procs, |client, version, judge| client.one(version, id, judge))
    }

    fn ask<T>(
        &mut self,
        procs: &Procs,
        question: impl FnOnce(
            &Client,
            Option<Version>,
            &dyn Fn(Peer) -> Result<(), Failure>,
        ) -> (Option<Version>, Result<T, Failure>),
    ) -> Result<T, Failure> {
        if let Some(failure) = &self.down {
            return Err(failure.clone());
        }
        let judge = |peer: Peer| self.judge(procs, peer);
        let (version, answer) = question(&self.client, self.version, &judge);
        self.version = version;
        match &answer {
            Ok(_) | Err(Failure::NotFound | Failure::TooBig(_)) if version.is_some() => {
                self.strikes = 0;
            }
            // One container may be what the runtime fails at: the next is asked.
            Err(failure) => {
                self.strikes += 1;
                if version.is_none() || self.strikes == STRIKES {
                    self.down = Some(failure.clone());
                }
            }
            Ok(_) => {}
        }
        answer
    }

    /// Whether who listens belongs where the socket was found. A container can
    /// have another one's socket, or the host's, mounted at the usual place.
    fn judge(&self, procs: &Procs, peer: Peer) -> Result<(), Failure> {
        let refused = |why: &str| Err(Failure::Unreachable(why.to_owned()));
        if self.chain.is_empty() && ![0, self.uid].contains(&peer.uid) {
            return refused("another user than its owner listens there");
        }
        // Who began to listen may be gone, or outside this PID namespace.
        match peer.pid.and_then(|pid| procs.chain(pid)) {
            Some(chain) if !same(&chain, &self.chain) => {
                refused("who listens there is in another container, or outside of this one")
            }
            _ => Ok(()),
        }
    }

    /// The gap that a failed question leaves.
    pub(super) fn gap(&self, failure: &Failure) -> Gap {
        let gap = Gap::new(Impact::Name, self.name(), failure.to_string());
        match failure {
            Failure::Denied => gap.remedy("run as root"),
            Failure::Timeout(_) => gap.remedy("check whether the container runtime hangs"),
            Failure::Unreachable(_) => {
                gap.remedy("start the container runtime, if it should be running")
            }
            Failure::Garbage(_) => gap.remedy("check what listens there"),
            Failure::NotFound | Failure::TooBig(_) => gap,
        }
    }
}

/// Asks the runtimes that may speak for the container, until one knows it.
pub(super) fn ask_for<'a>(
    listeners: impl Iterator<Item = &'a mut Listener>,
    procs: &Procs,
    chain: &[ContainerRef],
    monitor_uid: Option<u32>,
    gaps: &mut Vec<Gap>,
) -> Option<Container> {
    let target = chain.last()?;
    for listener in listeners.filter(|l| l.speaks_for(chain, monitor_uid)) {
        match listener.one(procs, &target.id) {
            Ok(Told { value: mut container, missing }) => {
                // What others failed to say is not missed.
                gaps.clear();
                gaps.extend(missing.map(|failure| listener.gap(&failure)));
                container.via = listener.name();
                if let (Some(pod), Some(path)) = (&mut container.pod, &target.pod) {
                    // The path is the kubelet's word.
                    pod.uid = Some(path.uid.clone());
                }
                return Some(container);
            }
            Err(Failure::NotFound) => {}
            Err(failure) => gaps.push(listener.gap(&failure)),
        }
    }
    None
}

/// Which runtime serves at a path.
fn runtime_at(path: &str) -> Runtime {
    let name = path.rsplit('/').next().unwrap_or_default();
    match () {
        () if name.contains("crio") => Runtime::CriO,
        () if name.contains("dockerd") || name.contains("dockershim") => Runtime::Docker,
        () => Runtime::Containerd,
    }
}

/// Runtimes at the usual places of the tool's own mount namespace, whose root is
/// `root`.
pub(super) fn at_usual_places(root: &Path, limits: Limits) -> Vec<Listener> {
    let mut found = Vec::new();
    // Without a root to open, that of Docker's sockets is a gap already.
    let Ok(root) = Root::open(root) else { return found };
    for path in USUAL {
        if let Ok(socket) = root.socket(Path::new(path)) {
            add(&mut found, &[], Listener::new(socket, path, limits));
        }
    }
    found
}

/// The sockets of runtimes that run here, without those in `known`.
pub(super) fn of_running(
    procs: &Procs,
    own_root: &Path,
    running: &[Running],
    known: &[Listener],
    limits: Limits,
) -> Vec<Listener> {
    let mut found: Vec<Listener> = Vec::new();
    for process in running {
        let Kind::Cri(runtime) = process.kind else { continue };
        let is_full = |found: &[Listener]| {
            let beside = found.iter().filter(|other| same(&other.chain, &process.chain));
            beside.count() >= PER_CONTAINER
        };
        let root = Root::open(&procs.root(process.pid)).or_else(|error| {
            // At this level the tool's own root is most often the same one.
            if process.chain.is_empty() { Root::open(own_root) } else { Err(error) }
        });
        let Ok(root) = root else { continue };
        for path in process.sockets.iter().take(PER_DAEMON) {
            if !process.chain.is_empty() && is_full(&found) {
                break;
            }
            let Ok(socket) = root.socket(Path::new(path)) else { continue };
            let Some(mut listener) = Listener::new(socket, path, limits) else { continue };
            if runtime != Runtime::Containerd {
                listener.client.runtime = runtime;
            }
            listener.chain.clone_from(&process.chain);
            // Whoever is confined to a container can be root there; the place
            // it runs in is what limits it.
            listener.uid = match &process.chain[..] {
                [] => process.uid.max(listener.uid),
                _ => 0,
            };
            add(&mut found, known, Some(listener));
        }
    }
    found
}

/// Adds a listener unless its socket is there already under another name. The
/// lower user counts then: anybody can name somebody else's socket.
fn add(found: &mut Vec<Listener>, known: &[Listener], listener: Option<Listener>) {
    let Some(listener) = listener else { return };
    if known.iter().any(|other| other.identity == listener.identity) {
        return;
    }
    let same_place = |other: &&mut Listener| {
        other.identity == listener.identity && same(&other.chain, &listener.chain)
    };
    match found.iter_mut().find(same_place) {
        Some(other) => other.uid = other.uid.min(listener.uid),
        None => found.push(listener),
    }
}
