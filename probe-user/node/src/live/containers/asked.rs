//! One container by the daemons that may speak for it.

use std::path::Path;

use super::super::asking::{DaemonBudget, DaemonFailure};
use super::super::cri::RuntimeReply;
use super::super::reader::{OpenedSocket, Responder};
use super::super::safefs::Unreadable;
use super::daemons::{DaemonSocket, Unanswered};
use super::docker;
use super::running::{Running, RuntimeApi};
use super::runtimes::RuntimeSocket;
use super::trust::Who;
use super::{
    ContainerLookup, Containers, RuntimeSockets, RuntimesState, daemons, differ, outer_name, pod,
    runtimes, same,
};
use whereis_port_model::{Container, ContainerRef, Gap, GapKind, GapSource, Impact, Runtime};

/// What questions left open.
#[derive(Debug, Default)]
struct Open {
    gaps: Vec<Gap>,
    /// How many daemons were left out.
    not_asked: usize,
}

impl Containers {
    pub(super) fn by_api(
        &self,
        state: &mut RuntimesState,
        wanted: &ContainerLookup<'_>,
        gaps: &mut Vec<Gap>,
    ) -> Option<Container> {
        let mut open = Open::default();
        let found = self.ask_usual_first(state, wanted, &mut open, is_api, |at, budget, open| {
            self.ask_daemons(&mut at.0, wanted, budget, open)
        });
        match found {
            // What others failed to say is not missed when one knows the container.
            Some(_) => gaps.extend(self.by_its_files(state, wanted, found.as_ref())),
            None => {
                gaps.extend(open.gaps);
                gaps.extend(left_out("daemons", wanted, open.not_asked));
                gaps.extend(state.unreachable.iter().cloned());
            }
        }
        found
    }

    pub(super) fn by_cri(
        &self,
        state: &mut RuntimesState,
        wanted: &ContainerLookup<'_>,
        gaps: &mut Vec<Gap>,
    ) -> Option<Container> {
        let mut open = Open::default();
        let found = self.ask_usual_first(state, wanted, &mut open, is_cri, |at, budget, open| {
            ask_runtimes(&mut at.1, wanted, budget, open)
        });
        gaps.extend(open.gaps);
        match found {
            Some(_) => gaps.extend(self.by_its_files(state, wanted, found.as_ref())),
            None => gaps.extend(left_out("container runtimes", wanted, open.not_asked)),
        }
        found
    }

    /// Asks those at the usual places, and when none of them knows the container those that
    /// running ones name.
    fn ask_usual_first(
        &self,
        state: &mut RuntimesState,
        wanted: &ContainerLookup<'_>,
        open: &mut Open,
        is_wanted: fn(RuntimeApi) -> bool,
        mut ask: impl FnMut(&mut RuntimeSockets, &mut DaemonBudget, &mut Open) -> Option<Container>,
    ) -> Option<Container> {
        self.find_daemons(state);
        let mut budget = state.budget(self.limits);
        let usual = state.usual.as_mut();
        let mut found = usual.and_then(|usual| ask(usual, &mut budget, open));
        if found.is_none() {
            open.not_asked += self.look_up_sockets(state, wanted.parents, wanted.holder, is_wanted);
            found = ask(&mut state.found, &mut budget, open);
        }
        state.budget = Some(budget);
        found
    }

    /// What the files of a container say otherwise than its daemon. Only those of the
    /// machine's own containers are asked twice.
    fn by_its_files(
        &self,
        state: &mut RuntimesState,
        wanted: &ContainerLookup<'_>,
        told: Option<&Container>,
    ) -> Option<Gap> {
        let is_the_machines = wanted.parents.is_empty()
            && wanted.holder.is_trusted_with_the_machine(self.procs.own_userns());
        if !is_the_machines || state.wants_lists {
            return None;
        }
        // What can't be read is not missed: it is known already.
        let filed = self.by_files(state, wanted, &mut Vec::new())?;
        differ::gap(wanted.target, told?, &filed)
    }

    fn ask_daemons(
        &self,
        daemons: &mut [DaemonSocket],
        wanted: &ContainerLookup<'_>,
        budget: &mut DaemonBudget,
        open: &mut Open,
    ) -> Option<Container> {
        let target = wanted.target;
        let daemons = daemons.iter_mut();
        for daemon in daemons.filter(|d| d.speaks_for(wanted.chain, wanted.holder)) {
            match daemon.ask(budget, |client, hello| client.inspect(hello, &target.id)) {
                Ok(answer) => {
                    let mut container = docker::from_inspect(daemon.runtime, answer);
                    let refused = match container.pid {
                        _ if container.id != target.id => Some("it is about another container"),
                        // It counts processes as this procfs does, so this is no other one.
                        Some(pid) if daemon.is_the_systems() && self.is_elsewhere(pid, wanted) => {
                            Some("it names a process that is not in this container")
                        }
                        _ => None,
                    };
                    if let Some(refused) = refused {
                        open.gaps.push(daemon.gap(&DaemonFailure::Garbage(refused.to_owned())));
                        continue;
                    }
                    container.via = daemon.name();
                    let of_podman = daemon.pod_of(budget, &container.id);
                    container.pod = pod(target, &container).or(of_podman);
                    daemon.tell_networks(budget, &mut container);
                    return Some(container);
                }
                Err(DaemonFailure::NotFound) => {}
                Err(DaemonFailure::NotAsked) => open.not_asked += 1,
                Err(failure) => open.gaps.push(daemon.gap(&failure)),
            }
        }
        None
    }

    /// Whether a process is in another container than this, or in none.
    pub(super) fn is_elsewhere(&self, pid: u32, wanted: &ContainerLookup<'_>) -> bool {
        self.procs.chain(pid).is_some_and(|chain| !same(&chain, wanted.chain))
    }

    pub(super) fn find_daemons(&self, state: &mut RuntimesState) {
        if state.usual.is_none() {
            let (procs, root, gaps) = (&self.procs, &self.root, &mut state.unreachable);
            let host = self.docker_host.clone().or_else(|| {
                let root = procs.reader().open(root, Responder::own(root)).ok()?;
                self.context.host(&root)
            });
            let daemons = daemons::at_usual_places(procs, root, host.as_deref(), self.limits, gaps);
            let listeners = runtimes::at_usual_places(procs, root, self.limits, gaps);
            state.usual = Some((daemons, listeners));
        }
    }

    /// Looks up the sockets of daemons that run in the container at the end of `place`, or
    /// outside of all, and may speak for what `holder` holds. Returns how many are left out.
    pub(super) fn look_up_sockets(
        &self,
        state: &mut RuntimesState,
        place: &[ContainerRef],
        holder: &Who,
        is_wanted: fn(RuntimeApi) -> bool,
    ) -> usize {
        self.find_running(state);
        let mut running = state.running.take().unwrap_or_default();
        let (mut more, mut unanswered) = (0, Unanswered::default());
        for process in &mut running {
            let speaks = same(&process.chain, place) && process.who.speaks_for(holder);
            if !speaks || !is_wanted(process.kind) {
                continue;
            }
            more += process.more;
            for path in std::mem::take(&mut process.sockets) {
                match self.socket(process, &path) {
                    Ok(socket) => self.add(state, process, &path, socket),
                    Err(error) => unanswered.note(&path, &process.chain, error),
                }
            }
        }
        unanswered.tell(&mut state.unreachable);
        state.running = Some(running);
        more
    }

    fn add(&self, state: &mut RuntimesState, process: &Running, path: &str, socket: OpenedSocket) {
        let place = (&self.procs, &process.chain[..], Some(&process.who));
        let none = (Vec::new(), Vec::new());
        let (daemons, listeners) = state.usual.as_ref().unwrap_or(&none);
        match process.kind {
            RuntimeApi::Api(runtime) => {
                let daemon = DaemonSocket::new(socket, path, runtime, self.limits, place);
                if !daemons.iter().any(|other| other.is_at(&daemon)) {
                    daemons::add(&mut state.found.0, daemon);
                }
            }
            RuntimeApi::Cri(runtime) => {
                let runtime = Some(runtime).filter(|r| *r != Runtime::Containerd);
                let mut listener = RuntimeSocket::new(socket, path, runtime, self.limits, place);
                listener.wants_list = state.wants_lists;
                runtimes::add(&mut state.found.1, listeners, listener);
            }
        }
    }

    /// A socket as the process that names it sees it.
    fn socket(&self, process: &Running, path: &str) -> Result<OpenedSocket, Unreadable> {
        let root = self.procs.root(process.pid).or_else(|error| {
            // At this level the tool's own root is most often the same one.
            match process.chain.is_empty() {
                true => self.procs.reader().open(&self.root, Responder::own(&self.root)),
                false => Err(error),
            }
        });
        root?.socket(Path::new(path))
    }
}

pub(super) fn is_api(kind: RuntimeApi) -> bool {
    matches!(kind, RuntimeApi::Api(_))
}

fn is_cri(kind: RuntimeApi) -> bool {
    matches!(kind, RuntimeApi::Cri(_))
}

/// Asks the runtimes of Kubernetes, until one knows the container.
fn ask_runtimes(
    listeners: &mut [RuntimeSocket],
    wanted: &ContainerLookup<'_>,
    budget: &mut DaemonBudget,
    open: &mut Open,
) -> Option<Container> {
    let target = wanted.target;
    for listener in listeners.iter_mut().filter(|l| l.speaks_for(wanted.chain, wanted.holder)) {
        match listener.one(budget, &target.id) {
            Ok(RuntimeReply { value: mut container, missing }) => {
                // What others failed to say is not missed.
                open.gaps.clear();
                open.gaps.extend(missing.map(|failure| listener.gap(&failure)));
                container.via = listener.name();
                open.gaps.extend(differ::pod_uid(target, &mut container));
                return Some(container);
            }
            Err(DaemonFailure::NotFound) => {}
            Err(DaemonFailure::NotAsked) => open.not_asked += 1,
            Err(failure) => open.gaps.push(listener.gap(&failure)),
        }
    }
    None
}

/// The gap that daemons leave that were not asked.
fn left_out(kind: &str, wanted: &ContainerLookup<'_>, count: usize) -> Option<Gap> {
    let place = match wanted.parents {
        [] => format!("{kind} of user {}", wanted.holder.uid),
        parents => format!("{kind} in {}", outer_name(parents)),
    };
    let reason = format!(
        "{count} more {} not asked: there is a limit for each container and user, and one \
         for the time that all take together",
        if count == 1 { "socket was" } else { "sockets were" },
    );
    (count > 0).then(|| Gap::new(Impact::Name, GapSource::new(GapKind::Runtime, place), reason))
}
