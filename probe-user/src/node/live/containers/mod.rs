//! Containers: from their runtimes' APIs, else from the runtimes' state files.
//!
//! Whatever runs inside a container is not trusted with anything outside of it:
//! a daemon, or a file, found in a container only tells of containers directly
//! below that one.

mod all;
mod daemons;
mod docker;
mod procs;
mod running;
mod runtimes;
mod statefiles;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use self::daemons::Daemon;
use self::docker::{Failure, Limits};
use self::procs::Procs;
use self::running::Running;
use self::runtimes::Listener;
use self::statefiles::{Monitor, Places};
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
    usual: Option<(Vec<Daemon>, Vec<Listener>)>,
    running: Option<Vec<Running>>,
    found: Option<(Vec<Daemon>, Vec<Listener>)>,
    /// Daemons that are there but can't be reached.
    unreachable: Vec<Gap>,
    /// By the ids of the chain.
    known: HashMap<Vec<String>, Read<Option<Container>>>,
    all: Option<Read<Vec<Container>>>,
}

impl State {
    /// Every daemon with Docker's API that was found so far.
    fn daemons(&mut self) -> impl Iterator<Item = &mut Daemon> {
        self.usual.iter_mut().chain(&mut self.found).flat_map(|(daemons, _)| daemons)
    }

    /// Every runtime of Kubernetes that was found so far.
    fn listeners(&mut self) -> impl Iterator<Item = &mut Listener> {
        self.usual.iter_mut().chain(&mut self.found).flat_map(|(_, listeners)| listeners)
    }
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
            // What Kubernetes runs has names, labels and an image in its runtime;
            // files have less, and may be all that there is.
            Runtime::Containerd | Runtime::CriO if target.pod.is_some() => self
                .by_cri(state, chain, watched, &mut read.gaps)
                .or_else(|| self.by_files_or_api(state, chain, watched, &mut read.gaps)),
            Runtime::Docker | Runtime::Unknown if target.pod.is_some() => self
                .by_cri(state, chain, watched, &mut read.gaps)
                .or_else(|| self.by_api(state, chain, watched, &mut read.gaps))
                .or_else(|| self.by_files(state, chain, watched, &mut read.gaps)),
            // Daemons of the rest say no more than their files.
            Runtime::Containerd | Runtime::Nerdctl | Runtime::CriO => self
                .by_files(state, chain, watched, &mut read.gaps)
                .or_else(|| self.by_cri(state, chain, watched, &mut read.gaps))
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

    /// By files, unless a daemon knows the name that they don't: with cgroupfs,
    /// Docker's containers in pods look like containerd's.
    fn by_files_or_api(
        &self,
        state: &mut State,
        chain: &[ContainerRef],
        monitor: Option<Pid>,
        gaps: &mut Vec<Gap>,
    ) -> Option<Container> {
        let found = self.by_files(state, chain, monitor, gaps);
        match &found {
            Some(container) if container.name.is_some() => found,
            _ => self.by_api(state, chain, monitor, gaps).or(found),
        }
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
        let usual = state.usual.iter_mut().flat_map(|(daemons, _)| daemons);
        let found = ask_for(usual, chain, uid, &mut failed).or_else(|| {
            self.find_running(state);
            let daemons = state.found.iter_mut().flat_map(|(daemons, _)| daemons);
            ask_for(daemons, chain, uid, &mut failed)
        });
        // What others failed to say is not missed when one knows the container.
        if found.is_none() {
            gaps.extend(failed);
            gaps.extend(state.unreachable.iter().cloned());
        }
        found
    }

    fn by_cri(
        &self,
        state: &mut State,
        chain: &[ContainerRef],
        monitor: Option<Pid>,
        gaps: &mut Vec<Gap>,
    ) -> Option<Container> {
        let uid = monitor.and_then(|pid| self.procs.uid(pid));
        let (procs, mut failed) = (&self.procs, Vec::new());
        self.find_daemons(state);
        let usual = state.usual.iter_mut().flat_map(|(_, listeners)| listeners);
        let found = runtimes::ask_for(usual, procs, chain, uid, &mut failed).or_else(|| {
            self.find_running(state);
            let listeners = state.found.iter_mut().flat_map(|(_, listeners)| listeners);
            runtimes::ask_for(listeners, procs, chain, uid, &mut failed)
        });
        gaps.extend(failed);
        found
    }

    fn find_daemons(&self, state: &mut State) {
        if state.usual.is_none() {
            let (host, gaps) = (self.docker_host.as_deref(), &mut state.unreachable);
            let daemons = daemons::at_usual_places(&self.root, host, self.limits, gaps);
            let listeners = runtimes::at_usual_places(&self.root, self.limits);
            state.usual = Some((daemons, listeners));
        }
    }

    fn find_running(&self, state: &mut State) {
        if state.found.is_none() {
            let running = running::running(&self.procs);
            let none = (Vec::new(), Vec::new());
            let (daemons, listeners) = state.usual.as_ref().unwrap_or(&none);
            let (procs, root, limits) = (&self.procs, &self.root, self.limits);
            let daemons = daemons::of_running(procs, root, &running, daemons, limits);
            let listeners = runtimes::of_running(procs, root, &running, listeners, limits);
            state.found = Some((daemons, listeners));
            state.running = Some(running);
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
        let running = state.running.iter().flatten();
        let beside: Vec<&Running> = running.filter(|r| same(&r.chain, parents)).collect();
        let told = Places {
            data_roots: beside.iter().flat_map(|r| r.data_roots.iter().cloned()).collect(),
            states: beside.iter().flat_map(|r| r.states.iter().cloned()).collect(),
        };
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
            statefiles::find(&opened, &target, monitor.as_ref(), &told)
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
