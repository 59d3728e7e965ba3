//! Where runtimes of Kubernetes listen, and of which containers each may speak.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use super::super::asking::{DaemonBudget, DaemonFailure, RequestLimits, SocketPeer};
use super::super::cri::{CriClient, CriVersion, RuntimeReply};
use super::super::reader::{OpenedSocket, Responder};
use super::daemons::{STRIKES, Unanswered, place};
use super::procs::Procs;
use super::same;
use super::trust::{Judge, Who};
use whereis_port_model::{
    Container, ContainerRef, Gap, GapKind, GapSource, Impact, Runtime, Speaks, Teller, ToldBy,
};

/// How many containers are asked for one by one. A question about one port needs
/// few; a list of everything is cheaper than many single questions.
const SINGLE: usize = 8;

/// A runtime's socket, and what is known of who listens there.
#[derive(Debug)]
pub(super) struct RuntimeSocket {
    /// The path as its own side names it.
    path: String,
    /// The containers it runs in itself. It may only name containers directly
    /// below.
    chain: Vec<ContainerRef>,
    /// Whose it is. A user's runtime may only name that user's containers.
    who: Who,
    /// Whether only root, or who asks, has a say in it.
    machines: bool,
    judge: Judge,
    client: CriClient,
    identity: (u64, u64),
    version: Option<CriVersion>,
    down: Option<DaemonFailure>,
    strikes: u8,
    /// Whether so much will be asked that a list of everything is cheaper.
    pub(super) wants_list: bool,
    /// How many single containers it was asked for, and whether anything was asked at all.
    asked: usize,
    spoken_to: bool,
    /// Whether it was asked for all.
    has_listed: bool,
    /// What it listed, by id.
    listed: Option<HashMap<String, Container>>,
}

impl RuntimeSocket {
    /// A runtime at a socket; without `who` it is the socket's owner's.
    pub(super) fn new(
        socket: OpenedSocket,
        path: &str,
        runtime: Option<Runtime>,
        limits: RequestLimits,
        (procs, chain, who): (&Procs, &[ContainerRef], Option<&Who>),
    ) -> Self {
        let stat = socket.stat;
        let runtime = runtime.unwrap_or_else(|| runtime_at(path));
        let client = CriClient { socket, limits, runtime, tokio: procs.tokio() };
        let who = who.cloned().unwrap_or_else(|| procs.someone_here(stat.uid));
        Self {
            path: path.to_owned(),
            chain: chain.to_vec(),
            machines: chain.is_empty() && who.is_trusted_with_the_machine(procs.own_userns()),
            judge: Judge { procs: procs.clone(), chain: chain.to_vec(), uid: who.uid },
            who,
            client,
            identity: (stat.dev, stat.ino),
            version: None,
            down: None,
            strikes: 0,
            wants_list: false,
            asked: 0,
            spoken_to: false,
            has_listed: false,
            listed: None,
        }
    }

    /// How answers from here are called: `CRI (/run/containerd/containerd.sock)`.
    pub(super) fn name(&self) -> ToldBy {
        ToldBy::new(Teller::Cri, place(&self.path, &self.chain))
    }

    /// Whether this runtime may say what the last container of `chain` is, which `holder`
    /// holds.
    pub(super) fn speaks_for(&self, chain: &[ContainerRef], holder: &Who) -> bool {
        let Some((target, parents)) = chain.split_last() else { return false };
        let runtime = self.client.runtime;
        let kind = match target.runtime {
            Runtime::Unknown => target.pod.is_some(),
            // cri-dockerd with cgroupfs: the path can't be told from containerd's.
            Runtime::Containerd => runtime != Runtime::CriO,
            other => runtime == other,
        };
        same(&self.chain, parents) && kind && self.who.speaks_for(holder)
    }

    /// Asks for one container or sandbox.
    pub(super) fn one(
        &mut self,
        budget: &mut DaemonBudget,
        id: &str,
    ) -> Result<RuntimeReply<Container>, DaemonFailure> {
        self.asked += 1;
        if (self.wants_list || self.asked > SINGLE) && !self.has_listed {
            self.has_listed = true;
            // Where that fails, single ones may still be told.
            let listed = self.ask(budget, |client, version, judge| client.list(version, judge));
            let by_id = |c: Container| (c.id.clone(), c);
            self.listed = listed.ok().map(|all| all.into_iter().map(by_id).collect());
        }
        if let Some(listed) = &self.listed {
            let value = listed.get(id).cloned().ok_or(DaemonFailure::NotFound)?;
            return Ok(RuntimeReply { value, missing: None });
        }
        self.ask(budget, |client, version, judge| client.one(version, id, judge))
    }

    fn ask<T>(
        &mut self,
        budget: &mut DaemonBudget,
        question: impl FnOnce(
            &CriClient,
            Option<CriVersion>,
            &dyn Fn(SocketPeer) -> Result<(), DaemonFailure>,
        ) -> (Option<CriVersion>, Result<T, DaemonFailure>),
    ) -> Result<T, DaemonFailure> {
        if let Some(failure) = &self.down {
            return Err(failure.clone());
        }
        let mut client = self.client.clone();
        let time = budget.grant(client.limits.time, self.machines, self.spoken_to);
        client.limits.time = time.ok_or(DaemonFailure::NotAsked)?;
        self.spoken_to = true;
        let judge = |peer: SocketPeer| self.judge.check(peer);
        let began = Instant::now();
        let (version, answer) = question(&client, self.version, &judge);
        if !self.machines || matches!(answer, Err(DaemonFailure::Timeout(_))) {
            budget.spend(began);
        }
        self.version = version;
        match &answer {
            Ok(_) | Err(DaemonFailure::NotFound | DaemonFailure::TooBig(_))
                if version.is_some() =>
            {
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

    /// The gap that a failed question leaves.
    pub(super) fn gap(&self, failure: &DaemonFailure) -> Gap {
        let source = GapSource::new(GapKind::Runtime, self.name().to_string());
        let gap = Gap::new(Impact::Name, source, failure.to_string());
        match failure {
            DaemonFailure::Denied => gap.remedy("run as root"),
            DaemonFailure::Timeout(_) => gap.remedy("check whether the container runtime hangs"),
            DaemonFailure::Unreachable(_) => {
                gap.remedy("start the container runtime, if it should be running")
            }
            DaemonFailure::Garbage(_) => gap.remedy("check what listens there"),
            DaemonFailure::NotFound | DaemonFailure::TooBig(_) | DaemonFailure::NotAsked => gap,
        }
    }
}

/// Which runtime serves at a path.
fn runtime_at(path: &str) -> Runtime {
    let name = path.rsplit('/').next().unwrap_or_default();
    let mut all = Runtime::daemons(Speaks::Cri);
    let found = all.find(|(_, daemon)| daemon.marks.iter().any(|mark| name.contains(mark)));
    found.map_or(Runtime::Containerd, |(runtime, _)| runtime)
}

/// Runtimes at the usual places of the tool's own mount namespace, whose root is
/// `root`.
pub(super) fn at_usual_places(
    procs: &Procs,
    root: &Path,
    limits: RequestLimits,
    gaps: &mut Vec<Gap>,
) -> Vec<RuntimeSocket> {
    let mut found = Vec::new();
    // Without a root to open, that of Docker's sockets is a gap already.
    let Ok(root) = procs.reader().open(root, Responder::own(root)) else { return found };
    let mut unanswered = Unanswered::default();
    for path in Runtime::daemons(Speaks::Cri).flat_map(|(_, daemon)| daemon.sockets).copied() {
        match root.part(path).socket(Path::new(path)) {
            Ok(socket) => {
                let listener = RuntimeSocket::new(socket, path, None, limits, (procs, &[], None));
                add(&mut found, &[], listener);
            }
            Err(error) => unanswered.note(path, &[], error),
        }
    }
    unanswered.tell(gaps);
    found
}

/// Adds a listener unless its socket is there already under another name.
pub(super) fn add(
    found: &mut Vec<RuntimeSocket>,
    known: &[RuntimeSocket],
    listener: RuntimeSocket,
) {
    let is_known = |other: &RuntimeSocket| other.identity == listener.identity;
    // Anybody can name somebody else's socket.
    let is_found = |other: &RuntimeSocket| {
        is_known(other) && same(&other.chain, &listener.chain) && other.who == listener.who
    };
    if !known.iter().any(is_known) && !found.iter().any(is_found) {
        found.push(listener);
    }
}
