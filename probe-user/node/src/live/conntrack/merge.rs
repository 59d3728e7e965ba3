//! Two sources tell of the same NAT: conntrack's events, which know no process,
//! and a program in the kernel, which knows the one that sent the packet. Here
//! the two become one event.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use whereis_port_model::{Event, NatEvent, NetnsId, Proto, SeenBy};

/// How far apart the two may come. Both are read by one loop, but one of them
/// may have a queue to be worked off.
const WINDOW: Duration = Duration::from_secs(1);
/// How many events are remembered: those of one second, on a busy node. With
/// more, the oldest are passed on as they are.
const REMEMBERED: usize = 16 * 1024;

/// What makes two events the same.
type EventKey = (Option<NetnsId>, Proto, NatEvent);

/// Makes one event of two. To be used only where both sources run: what comes
/// from conntrack alone waits for the other one in vain.
pub(in crate::live) struct Merge {
    window: Duration,
    capacity: usize,
    /// By key, oldest first: the same connection may begin again within the window.
    known: HashMap<EventKey, VecDeque<PendingEvent>>,
    /// All of them, and some that have found their other half, oldest first.
    order: VecDeque<(u64, Instant, EventKey)>,
    next: u64,
}

/// An event whose other half has not come.
struct PendingEvent {
    number: u64,
    seen_by: SeenBy,
    /// The event, if it waits; else it was passed on.
    waits: Option<Event>,
}

impl Default for Merge {
    fn default() -> Self {
        Self::new(WINDOW, REMEMBERED)
    }
}

impl Merge {
    fn new(window: Duration, capacity: usize) -> Self {
        let (known, order) = (HashMap::new(), VecDeque::new());
        Self { window, capacity, known, order, next: 0 }
    }

    /// Takes an event and adds to `out` what is to be told now. The program in
    /// the kernel is believed at once; what conntrack tells waits for it, so that
    /// the process is not missed. Everything but the beginning of a connection
    /// with NAT goes through: nobody else tells it.
    pub(in crate::live) fn push(&mut self, event: Event, now: Instant, out: &mut Vec<Event>) {
        self.due(now, out);
        let Some(nat) = event.nat.filter(|nat| nat.begins) else {
            if let Some(nat) = event.nat {
                // It must not end before it has begun.
                let key = (event.netns, event.proto, NatEvent { begins: true, ..nat });
                let waiting = self.known.get_mut(&key).into_iter().flatten();
                out.extend(waiting.filter_map(|known| known.waits.take()));
            }
            out.push(event);
            return;
        };
        let key = (event.netns, event.proto, nat);
        if let Some(other) = self.take_other_half(&key, event.seen_by) {
            // One that was passed on has nothing to add to it.
            out.extend(other.waits.map(|waiting| join(waiting, event)));
            return;
        }
        if self.order.len() >= self.capacity {
            self.forget_oldest(out);
        }
        let seen_by = event.seen_by;
        let waits = if seen_by == SeenBy::Conntrack && event.actor.is_none() {
            Some(event)
        } else {
            out.push(event);
            None
        };
        let number = self.next;
        self.next += 1;
        self.known.entry(key).or_default().push_back(PendingEvent { number, seen_by, waits });
        self.order.push_back((number, now, key));
    }

    /// Adds to `out` what has waited long enough.
    pub(in crate::live) fn due(&mut self, now: Instant, out: &mut Vec<Event>) {
        while let Some((_, since, _)) = self.order.front()
            && now.saturating_duration_since(*since) > self.window
        {
            self.forget_oldest(out);
        }
    }

    /// Adds to `out` everything that waits: the watch ends.
    pub(in crate::live) fn finish(&mut self, out: &mut Vec<Event>) {
        while !self.order.is_empty() {
            self.forget_oldest(out);
        }
    }

    /// When to call [`Merge::due`] at the latest; `None` if nothing waits.
    pub(in crate::live) fn due_at(&self) -> Option<Instant> {
        // A little more than the window, so that it is over then.
        let after = self.window + Duration::from_millis(1);
        self.order.front().map(|(_, since, _)| *since + after)
    }

    fn take_other_half(&mut self, key: &EventKey, seen_by: SeenBy) -> Option<PendingEvent> {
        let same = self.known.get_mut(key)?;
        let at = same.iter().position(|known| known.seen_by != seen_by)?;
        let other = same.remove(at);
        if same.is_empty() {
            self.known.remove(key);
        }
        other
    }

    fn forget_oldest(&mut self, out: &mut Vec<Event>) {
        let Some((number, _, key)) = self.order.pop_front() else { return };
        let Some(same) = self.known.get_mut(&key) else { return };
        if let Some(known) = same.pop_front_if(|known| known.number == number) {
            out.extend(known.waits);
        }
        if same.is_empty() {
            self.known.remove(&key);
        }
    }
}

/// One event of the two, as the program in the kernel tells it: its time is that
/// of the packet.
fn join(a: Event, b: Event) -> Event {
    let (mut event, other) = if a.seen_by == SeenBy::Ebpf { (a, b) } else { (b, a) };
    event.actor = event.actor.or(other.actor);
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use whereis_port_model::{Actor, EventKind, Port};

    const NOBODY: Option<Actor> = None;

    fn nat(port: u16, begins: bool) -> NatEvent {
        let address = |a: &str, port| std::net::SocketAddr::new(a.parse().unwrap(), port);
        NatEvent {
            begins,
            source: address("192.0.2.10", port),
            destination: address("192.0.2.1", 8080),
            new_source: address("192.0.2.10", port),
            new_destination: address("172.30.0.2", 80),
        }
    }

    fn event(seen_by: SeenBy, nat: NatEvent, actor: Option<Actor>) -> Event {
        Event {
            at: if seen_by == SeenBy::Ebpf { 1 } else { 2 },
            kind: EventKind::Nat,
            proto: Proto::Tcp,
            netns: Some(NetnsId::Inode(7)),
            address: nat.destination.ip(),
            port: Some(Port(nat.destination.port())),
            peer: Some(nat.source),
            inode: None,
            actor,
            nat: Some(nat),
            dropped: None,
            seen_by,
        }
    }

    fn curl() -> Option<Actor> {
        let comm = "curl".to_owned();
        Some(Actor { pid: Some(12), start: None, uid: 0, comm, netns: None, cgroup: None })
    }

    fn from_program(port: u16, actor: Option<Actor>) -> Event {
        event(SeenBy::Ebpf, nat(port, true), actor)
    }

    fn from_conntrack(port: u16) -> Event {
        event(SeenBy::Conntrack, nat(port, true), NOBODY)
    }

    /// What is told after each of these, which come together.
    fn told(merge: &mut Merge, events: impl IntoIterator<Item = Event>) -> Vec<Vec<Event>> {
        let now = Instant::now();
        let push = |event| {
            let mut out = Vec::new();
            merge.push(event, now, &mut out);
            out
        };
        events.into_iter().map(push).collect()
    }

    #[test]
    fn one_connection_is_told_once_with_its_process_whoever_tells_it_first() {
        let with_process = from_program(1, curl());
        let mut merge = Merge::default();
        let first = told(&mut merge, [with_process.clone(), from_conntrack(1)]);
        assert_eq!(first, [vec![with_process.clone()], vec![]]);
        let second = told(&mut merge, [from_conntrack(1), with_process.clone()]);
        assert_eq!(second, [vec![], vec![with_process]]);
        let mut rest = Vec::new();
        merge.finish(&mut rest);
        assert_eq!(rest, []);
    }

    #[test]
    fn one_without_a_process_is_told_once_too() {
        let mut merge = Merge::default();
        let told = told(&mut merge, [from_conntrack(1), from_program(1, NOBODY)]);
        assert_eq!(told, [vec![], vec![from_program(1, NOBODY)]]);
    }

    #[test]
    fn what_only_conntrack_tells_is_told_when_the_window_is_over() {
        let mut merge = Merge::default();
        let start = Instant::now();
        let mut out = Vec::new();
        merge.push(from_conntrack(1), start, &mut out);
        merge.due(start + WINDOW / 2, &mut out);
        assert_eq!(out, []);
        merge.due(merge.due_at().unwrap(), &mut out);
        assert_eq!(out, [from_conntrack(1)]);
        assert_eq!(merge.due_at(), None);
        // What comes after that is another connection.
        merge.push(from_program(1, curl()), start + WINDOW * 3, &mut out);
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn other_connections_are_left_alone() {
        let mut elsewhere = from_program(1, curl());
        elsewhere.netns = Some(NetnsId::Inode(8));
        let mut udp = from_program(1, curl());
        udp.proto = Proto::Udp;
        let mut other_target = nat(1, true);
        other_target.new_destination.set_port(81);
        let other_target = event(SeenBy::Ebpf, other_target, curl());
        let others = [elsewhere, udp, other_target, from_program(2, curl())];
        let mut merge = Merge::default();
        told(&mut merge, [from_conntrack(1)]);
        for (other, told) in others.clone().into_iter().zip(told(&mut merge, others)) {
            assert_eq!(told, [other]);
        }
        let mut rest = Vec::new();
        merge.finish(&mut rest);
        assert_eq!(rest, [from_conntrack(1)]);
    }

    #[test]
    fn a_connection_that_begins_twice_is_told_twice() {
        let mut merge = Merge::default();
        let ends = event(SeenBy::Conntrack, nat(1, false), NOBODY);
        let events = [
            from_program(1, curl()),
            from_program(1, curl()),
            from_conntrack(1),
            ends.clone(),
            from_conntrack(1),
            ends.clone(),
        ];
        let all: Vec<Event> = told(&mut merge, events).into_iter().flatten().collect();
        assert_eq!(all, [from_program(1, curl()), from_program(1, curl()), ends.clone(), ends]);
    }

    #[test]
    fn events_of_other_kinds_go_through() {
        let mut listen = from_program(1, curl());
        listen.kind = EventKind::Listen;
        listen.nat = None;
        let told = told(&mut Merge::default(), [listen.clone(), listen.clone()]);
        assert_eq!(told, [vec![listen.clone()], vec![listen]]);
    }

    #[test]
    fn a_flood_takes_bounded_memory_and_loses_nothing() {
        let mut merge = Merge::new(WINDOW, 100);
        let now = Instant::now();
        let mut out = Vec::new();
        for port in 0..1000 {
            merge.push(from_conntrack(port), now, &mut out);
            assert!(merge.order.len() <= 100 && merge.known.len() <= 100);
        }
        // Joined ones must not pile up either.
        for port in 900..1000 {
            merge.push(from_program(port, curl()), now, &mut out);
        }
        assert_eq!(out.len(), 1000);
        assert_eq!(merge.known.len(), 0);
        merge.finish(&mut out);
        assert_eq!(out.len(), 1000);
        let ports: std::collections::BTreeSet<_> =
            out.iter().map(|event| event.peer.unwrap().port()).collect();
        assert_eq!(ports.len(), 1000);
    }
}
