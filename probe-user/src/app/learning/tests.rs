//! Learning from a watch that is written down.

use std::collections::VecDeque;

use super::*;
use crate::model::{
    Actor, Event, GapKind, NetnsId, Owner, Owners, Port, SeenBy, Socket, SocketState, StartTime,
};

/// A watch that gives one batch of events at a time, then nothing.
#[derive(Default)]
struct Scripted {
    batches: VecDeque<Vec<Event>>,
    lost: u64,
    gaps: Vec<Gap>,
    asked: Vec<Duration>,
}

impl Watch for Scripted {
    fn next(&mut self, timeout: Duration) -> Vec<Event> {
        self.asked.push(timeout);
        self.batches.pop_front().unwrap_or_default()
    }

    fn lost(&self) -> u64 {
        self.lost
    }

    fn gaps(&self) -> Vec<Gap> {
        self.gaps.clone()
    }

    fn sources(&self) -> Vec<SourceReport> {
        Vec::new()
    }
}

const HERE: NetnsId = NetnsId::Inode(100);

fn proxy() -> Learner {
    let socket = Socket {
        netns: HERE,
        proto: Proto::Tcp,
        state: SocketState::Listen,
        address: "0.0.0.0".parse().unwrap(),
        port: Port(8080),
        v6only: None,
        inode: 1,
        uid: 0,
        ifindex: None,
        cgroup_id: None,
        queue: None,
    };
    let holder = Owner { inode: 1, pid: 5, start: StartTime(7), tid: None, fd: 3 };
    Learner::new(&[socket], &Owners { holders: vec![holder], ..Owners::default() })
}

fn accept() -> Event {
    Event {
        at: 1,
        kind: EventKind::Accept,
        proto: Proto::Tcp,
        netns: Some(HERE),
        address: "127.0.0.1".parse().unwrap(),
        port: Some(Port(8080)),
        peer: Some("127.0.0.1:40000".parse().unwrap()),
        inode: None,
        actor: None,
        nat: None,
        dropped: None,
        seen_by: SeenBy::Ebpf,
    }
}

fn connect() -> Event {
    let actor = Actor {
        pid: Some(5),
        start: Some(StartTime(7)),
        uid: 0,
        comm: "proxy".to_owned(),
        netns: Some(HERE),
        cgroup: None,
    };
    let peer = Some("10.0.0.5:80".parse().unwrap());
    Event { at: 2, kind: EventKind::Connect, port: None, peer, actor: Some(actor), ..accept() }
}

#[test]
fn it_learns_from_every_batch_until_the_time_is_over() {
    let batches = VecDeque::from([vec![accept()], vec![], vec![connect()]]);
    let mut watch = Scripted { batches, lost: 3, ..Scripted::default() };
    let time = Duration::from_millis(20);
    let read =
        watch_for_learning(&mut watch, &mut proxy(), Instant::now(), time, &AtomicBool::new(false));
    let watched = read.value.unwrap();
    assert_eq!(watched.observed.len(), 1);
    assert!(watched.ms >= 20 && watched.lost == 3, "{watched:?}");
    assert!(watched.summary().starts_with("1 connection accepted, 1 connect by"), "{watched:?}");
    assert_eq!(read.gaps.len(), 1);
    assert!(read.gaps[0].reason.starts_with("3 events lost"), "{:?}", read.gaps);
    assert!(watch.asked.iter().all(|wait| *wait <= TICK));
    assert_eq!(watch.asked.last(), Some(&Duration::ZERO), "what came last is taken, too");
}

#[test]
fn ctrl_c_ends_it_with_what_it_has() {
    let batches = VecDeque::from([vec![accept(), connect()]]);
    let mut watch = Scripted { batches, ..Scripted::default() };
    let stopped = AtomicBool::new(true);
    let read = watch_for_learning(
        &mut watch,
        &mut proxy(),
        Instant::now(),
        Duration::from_secs(3600),
        &stopped,
    );
    assert_eq!(watch.asked, [Duration::ZERO]);
    assert_eq!(read.value.unwrap().observed.len(), 1);
}

#[test]
fn what_could_not_be_watched_is_said_and_hides_no_port() {
    let gap = Gap::new(Impact::Port, GapKind::Ebpf, "accept can't be watched");
    let mut watch = Scripted { gaps: vec![gap.clone()], ..Scripted::default() };
    let read = watch_for_learning(
        &mut watch,
        &mut proxy(),
        Instant::now(),
        Duration::ZERO,
        &AtomicBool::new(false),
    );
    assert_eq!(read.gaps, [Gap { impact: Impact::Way, ..gap }]);
}

#[test]
fn comparing_readings_teaches_nothing_and_says_what_would() {
    let report = SourceReport {
        name: node::COMPARISON.to_owned(),
        ok: false,
        reason: None,
        remedy: None,
        command: None,
        ms: 0.0,
        detail: String::new(),
        namespaces: None,
    };
    let why =
        Gap::new(Impact::Port, GapKind::Ebpf, "eBPF is not available: no rights").remedy("be root");
    let gap = unable(std::slice::from_ref(&report), &[why]).unwrap();
    assert!(gap.reason.contains("needs eBPF") && gap.reason.contains("no rights"), "{gap:?}");
    assert_eq!((gap.remedy.as_deref(), gap.impact), (Some("be root"), Impact::Way));
    assert!(unable(&[report], &[]).unwrap().remedy.is_some());
    assert_eq!(unable(&[], &[]), None);
}
