//! Where nothing tells of events: reading the sockets again and again, and
//! comparing. What comes and goes between two readings is not seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::thread::NanosleepRelativeResult;

use crate::{Node, Processes as _, Sockets as _, Watch, WatchRequest};
use whereis_port_model::{
    Actor, Event, EventKind, Gap, GapKind, GapSource, Impact, NetnsId, Owners, Port, Process,
    Proto, SeenBy, Socket, SocketFilter, SocketInode, SourceReport,
};

use super::super::LiveNode;
use super::COMPARISON;

/// What makes a socket the same one in two readings.
type SocketKey = (NetnsId, Proto, Port, IpAddr, SocketInode);

/// The node's sockets at one time.
#[derive(Debug, Default)]
pub(super) struct SocketSnapshot {
    sockets: BTreeMap<SocketKey, Socket>,
    /// Namespaces whose sockets could not be read: what was there may still be.
    unread: BTreeSet<NetnsId>,
}

/// A watch that compares readings.
#[derive(Debug)]
pub(super) struct Snapshots {
    kinds: Vec<EventKind>,
    filter: SocketFilter,
    interval: Duration,
    due: Instant,
    last: SocketSnapshot,
    /// Who held a socket when it was first seen.
    holders: HashMap<SocketKey, Actor>,
    gaps: Vec<Gap>,
    readings: u64,
    spent: Duration,
}

impl Snapshots {
    /// Takes the first reading, to which the next ones are compared. `why` says
    /// why there is nothing better.
    ///
    /// # Errors
    /// When procfs is not mounted.
    pub(super) fn start(wanted: &WatchRequest, why: Gap) -> io::Result<Self> {
        let mut gaps = vec![why];
        // NAT is told by conntrack, beside this.
        let only = [EventKind::Connect, EventKind::Accept, EventKind::Drop];
        for kind in only.into_iter().filter(|kind| wanted.kinds.contains(kind)) {
            let reason = "comparing readings does not show them";
            let source = GapSource::new(GapKind::Events, format!("{} events", kind.as_str()));
            gaps.push(Gap::new(Impact::Port, source, reason));
        }
        let mut watch = Self {
            kinds: wanted.kinds.clone(),
            filter: SocketFilter { proto: None, ports: wanted.ports },
            interval: wanted.interval,
            due: Instant::now(),
            last: SocketSnapshot::default(),
            holders: HashMap::new(),
            gaps,
            readings: 0,
            spent: Duration::ZERO,
        };
        let node = LiveNode::new()?;
        watch.last = watch.read(&node);
        Ok(watch)
    }

    /// When the next reading is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    fn read(&mut self, node: &dyn Node) -> SocketSnapshot {
        let since = Instant::now();
        let mut gaps = Vec::new();
        let places: Vec<NetnsId> = node.netns().take(&mut gaps).iter().map(|n| n.id).collect();
        let all = node.sockets(&places, &self.filter);
        let mut unread = BTreeSet::new();
        if !all.gaps.is_empty() {
            // Already read: this only tells which of them failed.
            let failed = |id: &NetnsId| !node.sockets(&[*id], &self.filter).gaps.is_empty();
            unread = places.into_iter().filter(failed).collect();
        }
        let sockets = all.take(&mut gaps);
        for gap in gaps.into_iter().filter(|gap| gap.impact == Impact::Port) {
            if !self.gaps.iter().any(|known| known.source == gap.source) {
                self.gaps.push(gap);
            }
        }
        tracing::debug!(
            sockets = sockets.len(),
            took = ?since.elapsed(),
            "reading {} of this node",
            self.readings
        );
        self.readings += 1;
        self.spent += since.elapsed();
        self.due = Instant::now() + self.interval;
        SocketSnapshot { sockets: sockets.into_iter().map(|s| (key(&s), s)).collect(), unread }
    }

    /// Reads once more, and tells what has changed.
    fn compare(&mut self) -> Vec<Event> {
        // Without procfs for a moment there is nothing to compare.
        let Ok(node) = LiveNode::new() else { return Vec::new() };
        let mut reading = self.read(&node);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let (new, gone) = changes(&self.last, &mut reading);
        self.last = reading;
        let inodes: BTreeSet<SocketInode> = new.iter().map(|s| s.inode).collect();
        if !inodes.is_empty() {
            let owners = node.owners(&inodes).value;
            for socket in &new {
                let actor = actor(&owners, socket, |pid| node.processes(&[pid]).value.pop());
                self.holders.extend(actor.map(|actor| (key(socket), actor)));
            }
        }
        // What took the place of another one came after that had gone.
        let closed: Vec<Event> = gone
            .iter()
            .map(|s| event(s, EventKind::Close, at, self.holders.remove(&key(s))))
            .collect();
        let opened =
            new.iter().map(|s| event(s, opening(s.proto), at, self.holders.get(&key(s)).cloned()));
        let mut events: Vec<Event> = closed.into_iter().chain(opened).collect();
        events.retain(|event| self.kinds.contains(&event.kind));
        events
    }
}

impl Watch for Snapshots {
    fn next(&mut self, timeout: Duration) -> Vec<Event> {
        if timeout.is_zero() {
            return self.compare();
        }
        let until_due = self.due.saturating_duration_since(Instant::now());
        if !sleep(until_due.min(timeout)) || until_due > timeout {
            return Vec::new();
        }
        self.compare()
    }

    fn lost(&self) -> u64 {
        // What was not seen can't be counted; the gap about eBPF says so.
        0
    }

    fn gaps(&self) -> Vec<Gap> {
        self.gaps.clone()
    }

    fn sources(&self) -> Vec<SourceReport> {
        let why = self.gaps.first();
        vec![SourceReport {
            name: COMPARISON.to_owned(),
            ok: why.is_none(),
            reason: why.map(|gap| gap.reason.clone()),
            remedy: why.and_then(|gap| gap.remedy.clone()),
            command: None,
            ms: self.spent.as_secs_f64() * 1000.0,
            detail: format!("{} readings, {:?} apart", self.readings, self.interval),
            namespaces: None,
        }]
    }
}

/// Sleeps, or says that a signal came.
fn sleep(time: Duration) -> bool {
    let Ok(time) = time.try_into() else { return false };
    matches!(rustix::thread::nanosleep(&time), NanosleepRelativeResult::Ok)
}

fn key(socket: &Socket) -> SocketKey {
    (socket.netns, socket.proto, socket.port, socket.address, socket.inode)
}

fn opening(proto: Proto) -> EventKind {
    match proto {
        Proto::Tcp => EventKind::Listen,
        Proto::Udp => EventKind::Bind,
    }
}

/// The sockets that are new, and those that are gone. What can't be read any more
/// is not gone, and moves on into the new reading.
fn changes(last: &SocketSnapshot, now: &mut SocketSnapshot) -> (Vec<Socket>, Vec<Socket>) {
    let mut gone = Vec::new();
    for (key, socket) in &last.sockets {
        if now.sockets.contains_key(key) {
            continue;
        }
        if now.unread.contains(&socket.netns) {
            now.sockets.insert(*key, socket.clone());
        } else {
            gone.push(socket.clone());
        }
    }
    // What becomes readable is not new.
    let is_new = |(key, socket): &(&SocketKey, &Socket)| {
        !last.sockets.contains_key(*key) && !last.unread.contains(&socket.netns)
    };
    let new = now.sockets.iter().filter(is_new).map(|(_, socket)| socket.clone()).collect();
    (new, gone)
}

/// The process that holds a socket: of several the oldest, and init only when
/// nobody else does.
fn actor(
    owners: &Owners,
    socket: &Socket,
    process: impl FnOnce(whereis_port_model::Pid) -> Option<Process>,
) -> Option<Actor> {
    let holders = owners.of(socket.inode).iter().filter(|_| socket.inode != 0);
    let owner = holders.min_by_key(|owner| (owner.pid == 1, owner.start, owner.pid))?;
    let process = process(owner.pid).filter(|process| process.start == owner.start)?;
    Some(Actor {
        pid: Some(process.pid),
        start: Some(process.start),
        uid: process.uid,
        comm: process.comm,
        netns: process.netns,
        cgroup: process.cgroup.map(|cgroup| cgroup.0),
    })
}

fn event(socket: &Socket, kind: EventKind, at: u64, actor: Option<Actor>) -> Event {
    Event {
        at,
        kind,
        proto: socket.proto,
        netns: Some(socket.netns),
        address: socket.address,
        port: Some(socket.port),
        peer: None,
        inode: Some(socket.inode).filter(|inode| *inode != 0),
        actor,
        nat: None,
        dropped: None,
        seen_by: SeenBy::Comparison,
    }
}

#[cfg(test)]
mod tests;
