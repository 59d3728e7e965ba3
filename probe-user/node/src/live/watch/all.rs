//! The watch over all sources: programs in the kernel or the comparison of
//! readings, and conntrack's events beside them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::queues::Queues;
use super::snapshots::Snapshots;
use crate::live::conntrack::{ConntrackListener, Merge};
use crate::live::{LiveNode, ebpf};
use crate::{Sockets as _, Topology as _, Watch, WatchRequest};
use whereis_port_model::{
    Event, EventKind, Gap, Impact, PortRange, Proto, SocketFilter, SourceReport,
};

/// How often the namespaces are looked through for new and dead ones.
const REFRESH: Duration = Duration::from_secs(2);
/// A look is followed by this many times its own duration without one.
const REST: u32 = 20;

/// Where the events of sockets come from.
pub(super) enum SocketEvents {
    /// From the programs.
    Programs(Box<ebpf::EventPrograms>),
    /// From two readings.
    Comparison(Snapshots),
}

/// A running watch.
pub(super) struct All {
    sockets: SocketEvents,
    conntrack: Option<ConntrackEvents>,
    queues: Option<Queues>,
    kinds: Vec<EventKind>,
    ports: Option<PortRange>,
}

/// Conntrack's events, joined with those of the program on the same thing.
struct ConntrackEvents {
    listener: ConntrackListener,
    merge: Option<Merge>,
    refresh: Instant,
    gaps: Vec<Gap>,
}

impl All {
    /// Adds conntrack to a source of sockets' events.
    pub(super) fn new(sockets: SocketEvents, wanted: &WatchRequest) -> Self {
        let nat = wanted.kinds.contains(&EventKind::Nat);
        let twice = matches!(&sockets, SocketEvents::Programs(events) if events.tells_nat());
        let conntrack = nat.then(|| ConntrackEvents::open(twice)).flatten();
        let ports = match wanted.drops.as_slice() {
            [] => wanted.ports.into_iter().collect(),
            some => some.to_vec(),
        };
        let queues = wanted.kinds.contains(&EventKind::Drop).then(|| Queues::new(&ports));
        Self { sockets, conntrack, queues, kinds: wanted.kinds.clone(), ports: wanted.ports }
    }

    fn drain(&mut self, all: bool) -> Vec<Event> {
        let mut events = match &mut self.sockets {
            SocketEvents::Programs(events) => events.drain(all),
            SocketEvents::Comparison(snapshots) if all || snapshots.due() <= Instant::now() => {
                snapshots.next(Duration::ZERO)
            }
            SocketEvents::Comparison(_) => Vec::new(),
        };
        if let Some(conntrack) = &mut self.conntrack {
            conntrack.join(&mut events, all);
        }
        if let Some(queues) = self.queues.as_mut().filter(|q| all || q.due() <= Instant::now()) {
            events.extend(queues.next());
        }
        let (kinds, ports) = (&self.kinds, self.ports);
        // A kind may come along with another one that was wanted.
        events.retain(|event| kinds.contains(&event.kind) && is_on(event, ports));
        events.sort_by_key(|event| event.at);
        events
    }

    /// When something is to be done without any event.
    fn due(&self) -> Option<Instant> {
        let comparison = match &self.sockets {
            SocketEvents::Programs(events) => events.due(),
            SocketEvents::Comparison(snapshots) => Some(snapshots.due()),
        };
        let conntrack = self.conntrack.as_ref().into_iter();
        let conntrack = conntrack.flat_map(|conntrack| {
            let merge = conntrack.merge.as_ref().and_then(Merge::due_at);
            [Some(conntrack.refresh), merge].into_iter().flatten()
        });
        let queues = self.queues.as_ref().map(Queues::due);
        comparison.into_iter().chain(conntrack).chain(queues).min()
    }

    /// Waits until something can be read. `false` when a signal came.
    fn wait(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let programs = match &self.sockets {
            SocketEvents::Programs(events) => Some(events.fd()),
            SocketEvents::Comparison(_) => None,
        };
        let conntrack = self.conntrack.iter().flat_map(|conntrack| conntrack.listener.fds());
        let fds = programs.into_iter().chain(conntrack);
        let mut fds: Vec<PollFd<'_>> =
            fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        poll(&mut fds, timeout.as_ref()).is_ok()
    }
}

impl Watch for All {
    fn next(&mut self, timeout: Duration) -> Vec<Event> {
        if timeout.is_zero() {
            return self.drain(true);
        }
        let until = Instant::now() + timeout;
        loop {
            if let Some(conntrack) = &mut self.conntrack {
                conntrack.refresh();
            }
            let events = self.drain(false);
            if !events.is_empty() || Instant::now() >= until {
                return events;
            }
            let next = self.due().map_or(until, |due| due.min(until));
            if !self.wait(next) {
                // The caller knows what the signal means.
                return self.drain(false);
            }
        }
    }

    fn lost(&self) -> u64 {
        let sockets = match &self.sockets {
            SocketEvents::Programs(events) => events.lost(),
            SocketEvents::Comparison(snapshots) => snapshots.lost(),
        };
        sockets + self.conntrack.as_ref().map_or(0, |conntrack| conntrack.listener.lost())
    }

    fn gaps(&self) -> Vec<Gap> {
        let mut gaps = match &self.sockets {
            SocketEvents::Programs(events) => events.gaps().to_vec(),
            SocketEvents::Comparison(snapshots) => snapshots.gaps(),
        };
        gaps.extend(self.conntrack.iter().flat_map(|conntrack| conntrack.gaps.clone()));
        gaps
    }

    fn sources(&self) -> Vec<SourceReport> {
        let report = |name: &str, detail: String| SourceReport {
            name: name.to_owned(),
            ok: true,
            reason: None,
            remedy: None,
            command: None,
            ms: 0.0,
            detail,
            namespaces: None,
        };
        let mut sources = match &self.sockets {
            SocketEvents::Programs(events) => {
                events.attached().iter().map(|name| report(name, "attached".to_owned())).collect()
            }
            SocketEvents::Comparison(snapshots) => snapshots.sources(),
        };
        if let Some(conntrack) = &self.conntrack {
            let detail = format!("{} namespaces", conntrack.listener.namespaces());
            let mut conntracks = report("conntrack events", detail);
            if let Some(gap) = conntrack.gaps.iter().find(|gap| gap.impact == Impact::Port) {
                conntracks.ok = false;
                conntracks.reason = Some(gap.reason.clone());
                conntracks.remedy.clone_from(&gap.remedy);
            }
            sources.push(conntracks);
        }
        sources
    }
}

impl ConntrackEvents {
    fn open(twice: bool) -> Option<Self> {
        let node = LiveNode::new().ok()?;
        let (listener, gaps) = ConntrackListener::open(&node.all_doors());
        let merge = twice.then(Merge::default);
        Some(Self { listener, merge, refresh: Instant::now() + REFRESH, gaps })
    }

    /// Adds its events, each once. `all`: nothing is to be waited for.
    fn join(&mut self, events: &mut Vec<Event>, all: bool) {
        let told = self.listener.read();
        let Some(merge) = &mut self.merge else { return events.extend(told) };
        let now = Instant::now();
        let mut joined = Vec::new();
        for event in events.drain(..).chain(told) {
            merge.push(event, now, &mut joined);
        }
        if all {
            merge.finish(&mut joined)
        } else {
            merge.due(now, &mut joined)
        }
        *events = joined;
    }

    /// Follows the namespaces that come and go.
    fn refresh(&mut self) {
        if self.refresh > Instant::now() {
            return;
        }
        let begun = Instant::now();
        self.refresh = begun + REFRESH;
        let Ok(node) = LiveNode::new() else { return };
        for gap in self.listener.refresh(&node.all_doors()) {
            if !self.gaps.iter().any(|known| known.source == gap.source) {
                self.gaps.push(gap);
            }
        }
        self.refresh = Instant::now() + REFRESH.max(begun.elapsed() * REST);
    }
}

/// Whether an event is about one of these ports: of NAT, before or behind it.
fn is_on(event: &Event, ports: Option<PortRange>) -> bool {
    let Some(ports) = ports else { return true };
    // Ports of drops are told apart by the programs.
    if matches!(event.kind, EventKind::Connect | EventKind::Drop) {
        return true;
    }
    let behind = event.nat.map(|nat| whereis_port_model::Port(nat.new_destination.port()));
    [event.port, behind].into_iter().flatten().any(|port| ports.contains(port))
}

/// The UDP sockets that are bound already.
pub(super) fn bound(wanted: &WatchRequest) -> HashSet<u64> {
    let Ok(node) = LiveNode::new() else { return HashSet::new() };
    let netns: Vec<_> = node.netns().value.iter().map(|netns| netns.id).collect();
    let filter = SocketFilter { proto: Some(Proto::Udp), ports: wanted.ports };
    node.sockets(&netns, &filter).value.iter().map(|socket| socket.inode).collect()
}
