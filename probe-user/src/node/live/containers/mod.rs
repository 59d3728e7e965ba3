//! Containers: from their runtimes' APIs, else from the runtimes' state files.
//!
//! Whatever runs inside a container is not trusted with anything outside of it:
//! a daemon, or a file, found in a container only tells of containers directly
//! below that one.

mod daemons;
mod docker;
mod procs;
mod statefiles;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use self::daemons::{Daemon, Running};
use self::docker::{Failure, Limits};
use self::procs::Procs;
use self::statefiles::Monitor;
use super::safefs::{Root, Unreadable};
use crate::model::{Container, ContainerRef, Gap, Impact, Pid, Pod, Process, Read, Runtime};

/// How long files inside a container may take: it can serve them itself, by
/// FUSE, and never answer.
const NESTED_FILES: Duration = Duration::from_secs(1);

/// The containers of this node. Each daemon is looked up once and each container
/// asked for once.
#[derive(Debug)]
pub(super) struct Containers {
    procs: Procs,
    /// The root of the tool's own mount namespace.
    root: PathBuf,
    docker_host: Option<String>,
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    usual: Option<Vec<Daemon>>,
    found: Option<(Vec<Running>, Vec<Daemon>)>,
    /// Daemons that are there but can't be reached.
    unreachable: Vec<Gap>,
    /// By the ids of the chain.
    known: HashMap<Vec<String>, Read<Option<Container>>>,
    all: Option<Read<Vec<Container>>>,
}

impl Containers {
    /// Containers of the node whose procfs is `proc`.
    pub(super) fn new(proc: &Path) -> Self {
        Self {
            procs: Procs::new(proc),
            root: PathBuf::from("/"),
            docker_host: std::env::var("DOCKER_HOST").ok(),
            limits: Limits::USUAL,
            state: Mutex::default(),
        }
    }

    /// The container at the end of `chain` (outermost first), in which `process`
    /// runs.
    pub(super) fn one(&self, chain: &[ContainerRef], process: &Process) -> Read<Option<Container>> {
        let parents: Vec<Pid> = process.ancestors.iter().map(|a| a.pid).collect();
        self.look_up(&mut self.state(), chain, process.pid, &parents)
    }

    /// Every container that a daemon lists, or that a process runs in.
    pub(super) fn all(&self) -> Read<Vec<Container>> {
        let mut state = self.state();
        if let Some(all) = &state.all {
            return all.clone();
        }
        let mut all = Read::<Vec<Container>>::default();
        self.find_daemons(&mut state);
        self.find_running(&mut state);
        all.gaps.clone_from(&state.unreachable);
        self.list(&mut state, &mut all);
        self.sweep(&mut state, &mut all);
        state.all.insert(all).clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing here is left half done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(
        &self,
        state: &mut State,
        chain: &[ContainerRef],
        pid: Pid,
        ancestors: &[Pid],
    ) -> Read<Option<Container>> {
        let Some((target, parents)) = chain.split_last() else { return Read::default() };
        let key = ids(chain);
        if let Some(known) = state.known.get(&key) {
            return known.clone();
        }
        let mut read = Read::default();
        let watched = self.monitor(chain, ancestors);
        let mut container = match target.runtime {
            Runtime::Lxc | Runtime::Nspawn => Some(statefiles::by_name(target)),
            // Their daemons speak gRPC; the state files say as much.
            Runtime::Containerd | Runtime::Nerdctl | Runtime::CriO => self
                .by_files(state, chain, watched, &mut read.gaps)
                .or_else(|| self.by_api(state, chain, watched, &mut read.gaps)),
            Runtime::Docker | Runtime::Podman | Runtime::Unknown => self
                .by_api(state, chain, watched, &mut read.gaps)
                .or_else(|| self.by_files(state, chain, watched, &mut read.gaps)),
        };
        match &mut container {
            Some(container) => {
                container.parents = parents.to_vec();
                container.pid = self.first_process(chain, container.pid, pid, ancestors);
            }
            None if read.gaps.is_empty() => {
                let short: String = target.id.chars().take(12).collect();
                read.gaps.push(Gap::new(
                    Impact::Name,
                    format!("container {short}"),
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

    fn by_api(
        &self,
        state: &mut State,
        chain: &[ContainerRef],
        monitor: Option<Pid>,
        gaps: &mut Vec<Gap>,
    ) -> Option<Container> {
        let uid = monitor.and_then(|pid| self.procs.uid(pid));
        let mut failed = Vec::new();
        self.find_daemons(state);
        let found =
            ask_for(state.usual.iter_mut().flatten(), chain, uid, &mut failed).or_else(|| {
                self.find_running(state);
                let daemons = state.found.iter_mut().flat_map(|(_, daemons)| daemons);
                ask_for(daemons, chain, uid, &mut failed)
            });
        // What others failed to say is not missed when one knows the container.
        if found.is_none() {
            gaps.extend(failed);
            gaps.extend(state.unreachable.iter().cloned());
        }
        found
    }

    fn find_daemons(&self, state: &mut State) {
        if state.usual.is_none() {
            let (host, gaps) = (self.docker_host.as_deref(), &mut state.unreachable);
            state.usual = Some(daemons::at_usual_places(&self.root, host, self.limits, gaps));
        }
    }

    fn find_running(&self, state: &mut State) {
        if state.found.is_none() {
            let running = daemons::running(&self.procs);
            let known = state.usual.as_deref().unwrap_or_default();
            let found = daemons::of_running(&self.procs, &self.root, &running, known, self.limits);
            state.found = Some((running, found));
        }
    }

    fn by_files(
        &self,
        state: &mut State,
        chain: &[ContainerRef],
        monitor: Option<Pid>,
        gaps: &mut Vec<Gap>,
    ) -> Option<Container> {
        let (target, parents) = chain.split_last()?;
        self.find_running(state);
        let running = state.found.iter().flat_map(|(running, _)| running);
        let beside: Vec<&Running> = running.filter(|r| same(&r.chain, parents)).collect();
        let data_roots: Vec<String> =
            beside.iter().flat_map(|r| r.data_roots.iter().cloned()).collect();
        // Without its monitor, a container in a container can still be found
        // where its daemon lives.
        let keeper = monitor.or_else(|| beside.first().map(|r| r.pid));
        let (root, whose) = match (keeper, parents.is_empty()) {
            (Some(pid), _) => (self.procs.root(pid), Some(pid)),
            (None, true) => (self.root.clone(), None),
            (None, false) => {
                gaps.push(Gap::new(
                    Impact::Name,
                    format!("files of {}", outer_name(parents)),
                    "no process found that keeps containers there",
                ));
                return None;
            }
        };
        let started = whose.and_then(|pid| self.procs.started(pid));
        let monitor =
            monitor.map(|pid| Monitor { argv: self.procs.argv(pid), cwd: self.procs.cwd(pid) });
        let target = target.clone();
        let at_host = parents.is_empty();
        let (path, own) = (root, self.root.clone());
        let search = move || {
            let opened = match Root::open(&path) {
                // The tool's own root is most often the same one as the shim's.
                Err(Unreadable::Denied) if at_host => Root::open(&own),
                opened => opened,
            };
            let opened = opened.map_err(|e| (path.display().to_string(), e))?;
            statefiles::find(&opened, &target, monitor.as_ref(), &data_roots)
        };
        let found = if at_host { Some(search()) } else { in_time(search, NESTED_FILES) };
        let name = |file: &str| match at_host {
            true => file.to_owned(),
            false => format!("{file} in {}", outer_name(parents)),
        };
        match found {
            // A process that took the PID over lives in some other root.
            Some(Ok(found)) if whose.and_then(|pid| self.procs.started(pid)) == started => found
                .map(|mut container| {
                    if !at_host {
                        container.via = name(&container.via);
                    }
                    container
                }),
            Some(Ok(_)) => None,
            Some(Err((file, error))) => {
                let gap = Gap::new(Impact::Name, name(&file), error.to_string());
                gaps.push(match error {
                    Unreadable::Denied => gap.remedy("run as root with CAP_SYS_PTRACE"),
                    _ => gap,
                });
                None
            }
            None => {
                let reason = format!("no answer within {} ms", NESTED_FILES.as_millis());
                gaps.push(Gap::new(Impact::Name, name("state files"), reason));
                None
            }
        }
    }

    /// What the system's own daemons list. Others can invent containers: those of
    /// theirs that really run are found by [`Self::sweep`].
    fn list(&self, state: &mut State, all: &mut Read<Vec<Container>>) {
        let usual = state.usual.iter_mut().flatten();
        let found = state.found.iter_mut().flat_map(|(_, daemons)| daemons);
        for daemon in usual.chain(found).filter(|d| d.is_the_systems()) {
            let listed = match daemon.ask(docker::Client::list) {
                Ok(listed) => listed,
                Err(failure) => {
                    all.gaps.push(daemon.gap(&failure));
                    continue;
                }
            };
            for summary in listed {
                let mut container = docker::from_summary(daemon.runtime, summary);
                container.via = daemon.name();
                if !all.value.iter().any(|known| known.id == container.id) {
                    all.value.push(container);
                }
            }
        }
    }

    /// Adds containers that no daemon lists, by the processes that run in them.
    fn sweep(&self, state: &mut State, all: &mut Read<Vec<Container>>) {
        let mut known: HashMap<Vec<String>, usize> = HashMap::new();
        for (at, container) in all.value.iter().enumerate() {
            let mut key = ids(&container.parents);
            key.push(container.id.clone());
            known.insert(key, at);
        }
        let mut tried: BTreeSet<Vec<String>> = BTreeSet::new();
        for pid in self.procs.all() {
            let Some(chain) = self.procs.chain(pid) else { continue };
            for depth in 1..=chain.len() {
                let chain = &chain[..depth];
                let key = ids(chain);
                if let Some(&at) = known.get(&key) {
                    let container = &mut all.value[at];
                    container.pid =
                        container.pid.or_else(|| self.first_process(chain, None, pid, &[]));
                } else if tried.insert(key.clone()) {
                    let ancestors = self.procs.ancestors(pid);
                    let read = self.look_up(state, chain, pid, &ancestors);
                    if let Some(container) = read.take(&mut all.gaps) {
                        known.insert(key, all.value.len());
                        all.value.push(container);
                    }
                }
            }
        }
        // Asking for one of them later gives the same facts.
        for (key, at) in known {
            let whole = Read::whole(Some(all.value[at].clone()));
            state.known.entry(key).or_insert(whole);
        }
    }
}

/// Asks the daemons that may speak for the container, until one knows it.
fn ask_for<'a>(
    daemons: impl Iterator<Item = &'a mut Daemon>,
    chain: &[ContainerRef],
    monitor_uid: Option<u32>,
    gaps: &mut Vec<Gap>,
) -> Option<Container> {
    let target = chain.last()?;
    for daemon in daemons {
        if !daemon.speaks_for(chain, monitor_uid) {
            continue;
        }
        match daemon.ask(|client, hello| client.inspect(hello, &target.id)) {
            Ok(answer) => {
                let mut container = docker::from_inspect(daemon.runtime, answer);
                if container.id != target.id {
                    let failure = Failure::Garbage("it is about another container".to_owned());
                    gaps.push(daemon.gap(&failure));
                    continue;
                }
                container.via = daemon.name();
                container.pod = pod(target, &container);
                return Some(container);
            }
            Err(Failure::NotFound) => {}
            Err(failure) => gaps.push(daemon.gap(&failure)),
        }
    }
    None
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

/// Runs `search` in a thread, and gives up on it after `limit`. A thread that
/// hangs in the kernel is left behind: nothing can end it.
fn in_time<T: Send + 'static>(
    search: impl FnOnce() -> T + Send + 'static,
    limit: Duration,
) -> Option<T> {
    let (send, receive) = mpsc::channel();
    std::thread::Builder::new().spawn(move || _ = send.send(search())).ok()?;
    receive.recv_timeout(limit).ok()
}

fn outer_name(parents: &[ContainerRef]) -> String {
    let id = parents.last().map_or("", |p| p.id.as_str());
    format!("container {}", id.chars().take(12).collect::<String>())
}

fn ids(chain: &[ContainerRef]) -> Vec<String> {
    chain.iter().map(|c| c.id.clone()).collect()
}

fn same(a: &[ContainerRef], b: &[ContainerRef]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.id == b.id)
}

#[cfg(test)]
mod tests;
