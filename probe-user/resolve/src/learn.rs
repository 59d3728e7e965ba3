//! Learning from events where connections through a process lead.
//!
//! The rule: a connect of a process follows a connection that one of its
//! listeners accepted at most [`WINDOW`] before. Each accepted connection counts
//! at most once for each target, the oldest first, so that "12 of 14 accepted
//! connections were followed by a connect to 10.0.0.5:80" is what happened:
//! retries do not count twice, two backends for one connection both count, and
//! backends whose connections are used again are connected to less often than
//! the listener accepts. A connect without such a connection before it (health
//! checks, a log server) teaches nothing.
//!
//! Where several listeners of the process accepted within the window, the
//! connect counts for each of them, as ambiguous: none is picked.
//!
//! What is no target: DNS servers (unless the listener serves DNS itself), for
//! their being asked goes with connecting to any name, and the listener itself,
//! which processes connect to in order to check on themselves.
//!
//! A process is known by its id and start time. A process that was started for
//! one connection and gave up the listener owns none: its connects are not taken
//! for its parent's.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use whereis_port_model::{
    Accepted, Actor, Event, EventKind, NetnsId, ObservedTarget, Owners, Pid, Port, Proto, Socket,
    SocketInode, StartTime, Watched,
};

/// How long after a connection was accepted a connect may still be for it.
pub const WINDOW: Duration = Duration::from_secs(2);

/// How many accepted connections of a listener are kept at most. With more in
/// one window the oldest count as not followed.
const RECENT: usize = 1024;
/// How many targets of one listener are told apart.
const TARGETS: usize = 256;
/// How many counts are kept in all, one for each target and process.
const COUNTS: usize = 65_536;

/// Learns from events. Takes them in the order in which they happened; its memory
/// is bounded, however many there are.
#[derive(Debug)]
pub struct Learner {
    listeners: Vec<LearnedListener>,
    at_port: HashMap<(NetnsId, Port), Vec<usize>>,
    of_process: HashMap<Pid, BTreeSet<(StartTime, usize)>>,
    /// How many counts may still be made.
    room: usize,
    connects: u64,
}

/// One listener: sockets that share an address and port are one.
#[derive(Debug)]
struct LearnedListener {
    /// One of its sockets.
    socket: Socket,
    /// How many connections it got: also the number of the next one.
    accepted: u64,
    /// When it got the last of them.
    recent: VecDeque<u64>,
    targets: BTreeMap<LearnedDestination, DestinationCounts>,
    unkept: u64,
}

/// A destination, and the namespace that it was connected to from.
type LearnedDestination = (SocketAddr, Option<NetnsId>);

/// Connections to one destination, by the process that made them.
#[derive(Debug, Default)]
struct DestinationCounts {
    /// The number of the first connection that has not been counted for it.
    next: u64,
    counts: BTreeMap<(Pid, StartTime), ConnectCount>,
}

/// How many connects a process made, and how many of them several listeners could have caused.
#[derive(Debug, Default)]
struct ConnectCount {
    connects: u64,
    ambiguous: u64,
}

impl Learner {
    /// A learner about these listeners and those who hold them.
    pub fn new(sockets: &[Socket], owners: &Owners) -> Self {
        let mut learner = Self {
            listeners: Vec::new(),
            at_port: HashMap::new(),
            of_process: HashMap::new(),
            room: COUNTS,
            connects: 0,
        };
        let mut holders: HashMap<SocketInode, Vec<(Pid, StartTime)>> = HashMap::new();
        for owner in &owners.holders {
            holders.entry(owner.inode).or_default().push((owner.pid, owner.start));
        }
        let mut known: HashMap<(NetnsId, IpAddr, Port), usize> = HashMap::new();
        for socket in sockets.iter().filter(|s| s.proto == Proto::Tcp) {
            let at =
                *known.entry((socket.netns, socket.address, socket.port)).or_insert_with(|| {
                    let at = learner.listeners.len();
                    learner.listeners.push(LearnedListener::new(socket));
                    learner.at_port.entry((socket.netns, socket.port)).or_default().push(at);
                    at
                });
            for (pid, start) in holders.get(&socket.inode).into_iter().flatten() {
                learner.of_process.entry(*pid).or_default().insert((*start, at));
            }
        }
        learner
    }

    /// Takes one event. Those of other kinds than accept and connect teach nothing.
    pub fn take(&mut self, event: &Event) {
        if event.proto != Proto::Tcp {
            return;
        }
        match (event.kind, &event.actor, event.peer) {
            (EventKind::Accept, _, _) => self.accept(event),
            (EventKind::Connect, Some(actor), Some(to)) => {
                let to = SocketAddr::new(to.ip().to_canonical(), to.port());
                self.connect(event.at, actor, (to, event.netns));
            }
            _ => {}
        }
    }

    fn accept(&mut self, event: &Event) {
        let (Some(netns), Some(port)) = (event.netns, event.port) else { return };
        let there = self.at_port.get(&(netns, port)).map(Vec::as_slice).unwrap_or_default();
        // The kernel gave it to the most specific bind.
        let rank = |at: &usize| self.listeners.get(*at)?.socket.match_rank(event.address);
        let best = there.iter().filter_map(rank).max();
        let best: Vec<usize> =
            there.iter().copied().filter(|at| best.is_some() && rank(at) == best).collect();
        for at in best {
            if let Some(listener) = self.listeners.get_mut(at) {
                listener.accept(event.at);
            }
        }
    }

    fn connect(&mut self, at: u64, actor: &Actor, way: LearnedDestination) {
        let Some(owned) = actor.pid.and_then(|pid| self.of_process.get(&pid)) else { return };
        let is_owner = |start: StartTime| actor.start.is_none_or(|known| known == start);
        let owned: Vec<(StartTime, usize)> =
            owned.iter().copied().filter(|(start, _)| is_owner(*start)).collect();
        if owned.is_empty() {
            return;
        }
        self.connects += 1;
        let mut served = Vec::new();
        for (start, index) in owned {
            if let Some(listener) = self.listeners.get_mut(index)
                && listener.is_target(way)
                && listener.has_accepted(at)
            {
                served.push((start, index));
            }
        }
        let ambiguous = served.len() > 1;
        for (start, index) in served {
            if let (Some(listener), Some(pid)) = (self.listeners.get_mut(index), actor.pid) {
                listener.connect(at, way, (pid, start), ambiguous, &mut self.room);
            }
        }
    }

    /// What was learnt in the time that was watched, of which `lost` events are
    /// not known.
    pub fn finish(&self, time: Duration, lost: u64) -> Watched {
        let busy = || self.listeners.iter().filter(|listener| listener.accepted > 0);
        Watched {
            ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            accepted: busy().map(LearnedListener::accepted).collect(),
            observed: busy().flat_map(LearnedListener::observed).collect(),
            connects: self.connects,
            lost,
            dropped: Vec::new(),
        }
    }
}

impl LearnedListener {
    fn new(socket: &Socket) -> Self {
        Self {
            socket: socket.clone(),
            accepted: 0,
            recent: VecDeque::new(),
            targets: BTreeMap::new(),
            unkept: 0,
        }
    }

    fn accept(&mut self, at: u64) {
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        // In order, whatever the clocks of several CPUs say.
        let at = self.recent.back().map_or(at, |last| at.max(*last));
        self.recent.push_back(at);
        self.accepted += 1;
    }

    /// Whether a connect to there may be a connection going on.
    fn is_target(&self, (to, netns): LearnedDestination) -> bool {
        const DNS: [u16; 2] = [53, 853];
        let own = self.socket.port.0;
        if DNS.contains(&to.port()) && !DNS.contains(&own) {
            return false;
        }
        let here = to.ip().is_loopback()
            || to.ip().is_unspecified()
            || to.ip() == self.socket.effective_address();
        let itself = here
            && to.port() == own
            && netns.is_none_or(|netns| netns == self.socket.netns)
            && (to.ip().is_unspecified() || self.socket.match_rank(to.ip()).is_some());
        !itself
    }

    /// Whether it got a connection within the window before `at`. Forgets what is
    /// older: later connects have later windows.
    fn has_accepted(&mut self, at: u64) -> bool {
        let window = u64::try_from(WINDOW.as_nanos()).unwrap_or(u64::MAX);
        let since = at.saturating_sub(window);
        while self.recent.front().is_some_and(|accepted| *accepted < since) {
            self.recent.pop_front();
        }
        self.recent.front().is_some_and(|accepted| *accepted <= at)
    }

    fn connect(
        &mut self,
        at: u64,
        way: LearnedDestination,
        process: (Pid, StartTime),
        ambiguous: bool,
        room: &mut usize,
    ) {
        let known = self.targets.get(&way);
        let is_new = known.is_none_or(|target| !target.counts.contains_key(&process));
        if is_new && (*room == 0 || known.is_none() && self.targets.len() >= TARGETS) {
            self.unkept += 1;
            return;
        }
        // The numbers of those that are still kept begin here.
        let first = self.accepted - self.recent.len() as u64;
        let target = self.targets.entry(way).or_default();
        let number = target.next.max(first);
        let place = usize::try_from(number - first).unwrap_or(usize::MAX);
        if self.recent.get(place).is_none_or(|accepted| *accepted > at) {
            // A further try for a connection that has been counted.
            return;
        }
        target.next = number + 1;
        *room -= usize::from(is_new);
        let count = target.counts.entry(process).or_default();
        count.connects += 1;
        count.ambiguous += u64::from(ambiguous);
    }

    fn accepted(&self) -> Accepted {
        Accepted {
            netns: self.socket.netns,
            address: self.socket.address,
            port: self.socket.port,
            connections: self.accepted,
            unkept: self.unkept,
        }
    }

    fn observed(&self) -> impl Iterator<Item = ObservedTarget> {
        self.targets.iter().flat_map(|((to, to_netns), target)| {
            target.counts.iter().map(|((pid, start), count)| ObservedTarget {
                netns: self.socket.netns,
                address: self.socket.address,
                port: self.socket.port,
                pid: *pid,
                start: *start,
                to_netns: *to_netns,
                to: *to,
                connects: count.connects,
                ambiguous: count.ambiguous,
                accepted: self.accepted,
            })
        })
    }
}

#[cfg(test)]
mod tests;
