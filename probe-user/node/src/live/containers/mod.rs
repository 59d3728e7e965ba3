//! Containers: from their runtimes' APIs, else from the runtimes' state files.
//!
//! Whatever runs inside a container is not trusted with anything outside of it:
//! a daemon, or a file, found in a container only tells of containers directly
//! below that one. Whose word counts for a container is decided in [`trust`].

mod all;
mod asked;
mod cilium;
mod contexts;
mod daemons;
mod differ;
mod docker;
mod exchange;
mod files;
mod procs;
mod relay;
mod running;
mod runtimes;
mod statefiles;
mod trust;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::daemons::DaemonSocket;
use self::docker::RequestLimits;
use self::procs::Procs;
use self::running::Running;
use self::runtimes::RuntimeSocket;
use self::trust::Who;
use super::asking::DaemonBudget;
use super::monitors::Monitors;
use super::reader::Reader;
use whereis_port_model::{
    Container, ContainerRef, Gap, GapKind, GapSource, Impact, Pid, Pod, Process, Read, Relay,
    Runtime,
};

/// The containers of this node. Each daemon is looked up once and each container
/// asked for once.
#[derive(Debug)]
pub(super) struct Containers {
    procs: Procs,
    /// The root of the tool's own mount namespace.
    root: PathBuf,
    docker_host: Option<String>,
    context: contexts::DockerContextChoice,
    limits: RequestLimits,
    state: Mutex<RuntimesState>,
}

/// Where daemons with Docker's API listen, and where runtimes of Kubernetes.
type RuntimeSockets = (Vec<DaemonSocket>, Vec<RuntimeSocket>);

/// What is known of daemons and runtimes so far, and what they answered.
#[derive(Debug, Default)]
struct RuntimesState {
    usual: Option<RuntimeSockets>,
    running: Option<Vec<Running>>,
    /// At the sockets that running ones name.
    found: RuntimeSockets,
    /// Whether so much will be asked that lists of everything are cheaper.
    wants_lists: bool,
    /// What asking may still cost.
    budget: Option<DaemonBudget>,
    /// Daemons that are there but can't be reached.
    unreachable: Vec<Gap>,
    known: HashMap<ChainKey, Read<Option<Container>>>,
    all: Option<Read<Vec<Container>>>,
    relays: HashMap<Pid, Read<Relay>>,
    unpublished: Option<Read<Vec<Container>>>,
}

impl RuntimesState {
    fn budget(&self, limits: RequestLimits) -> DaemonBudget {
        self.budget.unwrap_or_else(|| DaemonBudget::of(limits))
    }

    /// Every daemon with Docker's API that was found so far.
    fn daemons(&mut self) -> impl Iterator<Item = &mut DaemonSocket> {
        let usual = self.usual.iter_mut().flat_map(|(daemons, _)| daemons);
        usual.chain(&mut self.found.0)
    }
}

/// The ids of a container's chain, and who made the outermost one's cgroup when that was
/// not root: any user who has a part of the tree of cgroups can make any names in there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ChainKey {
    ids: Vec<String>,
    maker: Option<u32>,
}

/// A container to be looked up, with all that is known of it before.
#[derive(Debug, Clone, Copy)]
struct ContainerLookup<'a> {
    chain: &'a [ContainerRef],
    target: &'a ContainerRef,
    parents: &'a [ContainerRef],
    /// The process that watches over it.
    monitor: Option<Pid>,
    holder: &'a Who,
}

impl Containers {
    /// Containers of the node whose procfs is `proc`; `reader` looks where others have a
    /// say.
    pub(super) fn new(proc: &Path, reader: Reader) -> Self {
        Self {
            procs: Procs::new(proc, reader),
            root: PathBuf::from("/"),
            docker_host: std::env::var("DOCKER_HOST").ok(),
            context: contexts::DockerContextChoice::by_environment(),
            limits: RequestLimits::USUAL,
            state: Mutex::default(),
        }
    }

    /// Who watches over which containers.
    pub(super) fn monitors(&self) -> &Monitors {
        self.procs.monitors()
    }

    /// All optional reading may take so long: one question to a daemon takes a part of it,
    /// and all of them take half, but never more than they usually may.
    pub(super) fn within(&mut self, limit: Duration) {
        self.limits.time = RequestLimits::USUAL.time.min(limit.saturating_mul(3) / 20);
    }

    /// The container at the end of `chain` (outermost first), in which `process`
    /// runs.
    pub(super) fn one(&self, chain: &[ContainerRef], process: &Process) -> Read<Option<Container>> {
        let parents: Vec<Pid> = process.ancestors.iter().map(|a| a.pid).collect();
        self.look_up(&mut self.state(), chain, process.pid, &parents)
    }

    fn state(&self) -> MutexGuard<'_, RuntimesState> {
        // Nothing here is left half done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(
        &self,
        state: &mut RuntimesState,
        chain: &[ContainerRef],
        pid: Pid,
        ancestors: &[Pid],
    ) -> Read<Option<Container>> {
        let Some((target, parents)) = chain.split_last() else { return Read::default() };
        let key = self.key(chain, pid);
        if let Some(known) = state.known.get(&key) {
            return known.clone();
        }
        let mut read = Read::default();
        let monitor = self.monitor(chain, ancestors);
        let holder = self.procs.holder(&self.root, chain, pid, monitor);
        let mut container = match (target.runtime, &holder) {
            (Runtime::Lxc | Runtime::Nspawn, _) => Some(statefiles::by_name(target)),
            // Gone meanwhile.
            (_, None) => None,
            (_, Some(holder)) => {
                let wanted = ContainerLookup { chain, target, parents, monitor, holder };
                self.described(state, &wanted, &mut read.gaps)
            }
        };
        if let (Some(uid), None, Some(_)) = (key.maker, &container, &target.pod) {
            // The names of pods in cgroups are the kubelet's word, which this one is not.
            read.gaps.push(Gap::new(
                Impact::Name,
                GapSource::new(GapKind::ContainerPod, short(target)),
                format!("its cgroup was made by user {uid}: that it is of a pod is only a claim"),
            ));
            let unsaid = ContainerRef { pod: None, ..target.clone() };
            container = Some(Container::from_ref(&unsaid, parents));
        }
        match &mut container {
            Some(container) => {
                container.parents = parents.to_vec();
                container.pid = self.first_process(chain, container.pid, pid, ancestors);
            }
            None if read.gaps.is_empty() => {
                read.gaps.push(Gap::new(
                    Impact::Name,
                    GapSource::new(GapKind::Container, short(target)),
                    "no daemon and no state file that can be read knows it",
                ));
            }
            None => {}
        }
        read.value = container;
        state.known.insert(key, read.clone());
        read
    }

    /// The process that watches over the container: the nearest parent outside.
    fn monitor(&self, chain: &[ContainerRef], ancestors: &[Pid]) -> Option<Pid> {
        ancestors.iter().copied().find_map(|pid| {
            let outer = self.procs.chain(pid)?;
            // One that is further out than the container's host was started by
            // hand (nsenter) and says nothing of where the files are.
            (outer.len() < chain.len())
                .then(|| (same(&outer, &chain[..chain.len() - 1])).then_some(pid))
        })?
    }

    /// The first process of the container, in the tool's own PID namespace. A
    /// daemon's word counts if that process is in the container: it can be stale
    /// or a number of another PID namespace.
    fn first_process(
        &self,
        chain: &[ContainerRef],
        said: Option<Pid>,
        pid: Pid,
        ancestors: &[Pid],
    ) -> Option<Pid> {
        let inside = |pid: &Pid| self.procs.chain(*pid).is_some_and(|c| same(&c, chain));
        said.filter(inside).or_else(|| {
            let mut line = std::iter::once(&pid).chain(ancestors);
            line.find(|pid| self.procs.is_init(**pid) && inside(pid)).copied()
        })
    }

    fn key(&self, chain: &[ContainerRef], pid: Pid) -> ChainKey {
        let maker = self.procs.maker(&self.root, pid).or_else(|| {
            let in_none = self.procs.cgroup(pid).is_none_or(|path| path.containers().is_empty());
            in_none.then(|| self.procs.monitors().of(pid)).flatten().map(|monitored| monitored.uid)
        });
        ChainKey { ids: ids(chain), maker: maker.filter(|uid| *uid != 0) }
    }

    /// What whoever may speak for the container says of it.
    fn described(
        &self,
        state: &mut RuntimesState,
        wanted: &ContainerLookup<'_>,
        gaps: &mut Vec<Gap>,
    ) -> Option<Container> {
        match wanted.target.runtime {
            // What Kubernetes runs has names, labels and an image in its runtime;
            // files have less, and may be all that there is.
            Runtime::Containerd | Runtime::CriO if wanted.target.pod.is_some() => self
                .by_cri(state, wanted, gaps)
                .or_else(|| self.by_files_or_api(state, wanted, gaps)),
            Runtime::Docker | Runtime::Unknown if wanted.target.pod.is_some() => self
                .by_cri(state, wanted, gaps)
                .or_else(|| self.by_api(state, wanted, gaps))
                .or_else(|| self.by_files(state, wanted, gaps)),
            // Daemons of the rest say no more than their files.
            Runtime::Containerd | Runtime::Nerdctl | Runtime::CriO => self
                .by_files(state, wanted, gaps)
                .or_else(|| self.by_cri(state, wanted, gaps))
                .or_else(|| self.by_api(state, wanted, gaps)),
            _ => self.by_api(state, wanted, gaps).or_else(|| self.by_files(state, wanted, gaps)),
        }
    }

    /// By files, unless a daemon knows the name that they don't: with cgroupfs,
    /// Docker's containers in pods look like containerd's.
    fn by_files_or_api(
        &self,
        state: &mut RuntimesState,
        wanted: &ContainerLookup<'_>,
        gaps: &mut Vec<Gap>,
    ) -> Option<Container> {
        let found = self.by_files(state, wanted, gaps);
        match &found {
            Some(container) if container.name.is_some() => found,
            _ => self.by_api(state, wanted, gaps).or(found),
        }
    }
}

/// The pod of a container that Docker runs for Kubernetes, by its labels.
fn pod(target: &ContainerRef, container: &Container) -> Option<Pod> {
    let label = |name: &str| container.labels.get(name).cloned();
    target.pod.as_ref().map(|pod| Pod {
        namespace: label("io.kubernetes.pod.namespace"),
        name: label("io.kubernetes.pod.name"),
        uid: Some(pod.uid.clone()),
        ..Pod::default()
    })
}

fn outer_name(parents: &[ContainerRef]) -> String {
    format!("container {}", parents.last().map(short).unwrap_or_default())
}

fn short(container: &ContainerRef) -> String {
    container.id.chars().take(12).collect()
}

fn ids(chain: &[ContainerRef]) -> Vec<String> {
    chain.iter().map(|c| c.id.clone()).collect()
}

fn same(a: &[ContainerRef], b: &[ContainerRef]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.id == b.id)
}

#[cfg(feature = "fuzzing")]
pub(super) use {docker::fuzz as fuzz_docker, running::fuzz as fuzz_arguments};

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz_state_files(bytes: &[u8]) {
    statefiles::fuzz(bytes);
}

#[cfg(test)]
mod tests;
