//! Connections that a listener does not take because its accept queue is full. No tracepoint
//! tells of their SYNs, but each listener counts them (`sk_drops`): the counts are compared.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::live::LiveNode;
use crate::{Sockets as _, Topology as _};
use whereis_port_model::{
    DropEvent, DropFate, Event, EventKind, NetnsId, Port, PortRange, Proto, SeenBy, Socket,
    SocketFilter, TcpFlags,
};

/// How often the counts are read.
const INTERVAL: Duration = Duration::from_secs(1);
/// A reading is followed by this many times its own duration without one.
const REST: u32 = 20;

/// What makes a listener the same one: namespace, address, port and inode.
type ListenerKey = (NetnsId, IpAddr, Port, u64);

/// What one listener dropped because its queue was full.
#[derive(Debug, Clone, Copy)]
struct QueueDrops {
    drops: u32,
    total: u64,
    first: u64,
}

/// What is watched.
#[derive(Debug)]
pub(super) struct Queues {
    ports: Vec<PortRange>,
    filter: SocketFilter,
    known: HashMap<ListenerKey, QueueDrops>,
    due: Instant,
}

impl Queues {
    /// Reads the counts to compare the next ones to.
    pub(super) fn new(ports: &[PortRange]) -> Self {
        let first = ports.iter().map(|range| range.first).min();
        let range = first.zip(ports.iter().map(|range| range.last).max());
        let range = range.map(|(first, last)| PortRange { first, last });
        let filter = SocketFilter { proto: Some(Proto::Tcp), ports: range };
        let mut queues =
            Self { ports: ports.to_vec(), filter, known: HashMap::new(), due: Instant::now() };
        queues.next();
        queues
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// What was dropped since the last reading.
    pub(super) fn next(&mut self) -> Vec<Event> {
        let begun = Instant::now();
        let Ok(node) = LiveNode::new() else {
            self.due = begun + INTERVAL;
            return Vec::new();
        };
        let netns: Vec<NetnsId> = node.netns().value.iter().map(|netns| netns.id).collect();
        let sockets = node.sockets(&netns, &self.filter).value;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let events = self.compare(&sockets, u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        self.due = Instant::now() + INTERVAL.max(begun.elapsed() * REST);
        events
    }

    fn compare(&mut self, sockets: &[Socket], now: u64) -> Vec<Event> {
        let mut known = HashMap::new();
        let mut events = Vec::new();
        for socket in sockets {
            let is_wanted =
                self.ports.is_empty() || self.ports.iter().any(|p| p.contains(socket.port));
            let Some((queue, drops)) = socket.queue.and_then(|queue| Some((queue, queue.drops?)))
            else {
                continue;
            };
            if !is_wanted {
                continue;
            }
            let key = (socket.netns, socket.address, socket.port, socket.inode);
            let before = self.known.get(&key);
            let new = before.map_or(0, |before| drops.wrapping_sub(before.drops));
            let total = before.map_or(0, |before| before.total) + u64::from(new);
            let first = before.map(|before| before.first).filter(|first| *first != 0);
            let first = first.unwrap_or(if new > 0 { now } else { 0 });
            // One that is not full has dropped them for want of memory.
            if new > 0 && queue.is_full() {
                events.push(event(socket, u64::from(new), total, first, now));
            }
            known.insert(key, QueueDrops { drops, total, first });
        }
        self.known = known;
        events
    }
}

fn event(socket: &Socket, packets: u64, total: u64, first: u64, now: u64) -> Event {
    let dropped = DropEvent {
        fate: DropFate::QueueFull,
        reason: None,
        place: None,
        device: None,
        ifindex: None,
        came_by: None,
        flags: TcpFlags::default(),
        source: None,
        original: None,
        packets,
        total,
        estimated: false,
        first,
    };
    Event {
        at: now,
        kind: EventKind::Drop,
        proto: Proto::Tcp,
        netns: Some(socket.netns),
        address: socket.address,
        port: Some(socket.port),
        peer: None,
        inode: Some(socket.inode).filter(|inode| *inode != 0),
        actor: None,
        nat: None,
        dropped: Some(Box::new(dropped)),
        seen_by: SeenBy::Comparison,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whereis_port_model::{AcceptQueue, SocketState};

    fn socket(waiting: u32, drops: u32) -> Socket {
        Socket {
            netns: NetnsId::Inode(7),
            proto: Proto::Tcp,
            state: SocketState::Listen,
            address: "0.0.0.0".parse().unwrap(),
            port: Port(80),
            v6only: None,
            inode: 99,
            uid: 0,
            ifindex: None,
            cgroup_id: None,
            queue: Some(AcceptQueue { waiting, limit: 1, drops: Some(drops) }),
        }
    }

    fn queues() -> Queues {
        Queues {
            ports: Vec::new(),
            filter: SocketFilter { proto: None, ports: None },
            known: HashMap::new(),
            due: Instant::now(),
        }
    }

    #[test]
    fn what_a_full_queue_did_not_take_is_counted() {
        let mut queues = queues();
        let mut told = |waiting, drops| {
            let events = queues.compare(&[socket(waiting, drops)], 5);
            let of = |event: &Event| event.dropped.as_ref().map(|d| (d.packets, d.total));
            events.iter().filter_map(of).collect::<Vec<_>>()
        };
        assert_eq!(told(2, 10), [], "what was before is not told");
        assert_eq!(told(2, 13), [(3, 3)]);
        assert_eq!(told(2, 13), []);
        assert_eq!(told(2, 14), [(1, 4)]);
        assert_eq!(told(0, 15), [], "it was not full");
    }
}
