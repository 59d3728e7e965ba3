//! What is learnt from events written down here.

use super::*;
use whereis_port_model::{Owner, SeenBy, SocketState};

const HERE: NetnsId = NetnsId::Inode(100);
const THERE: NetnsId = NetnsId::Inode(200);
const MS: u64 = 1_000_000;

/// A listener with its inode, at an address.
fn listener(inode: u64, at: &str) -> Socket {
    let at: SocketAddr = at.parse().unwrap();
    Socket {
        netns: HERE,
        proto: Proto::Tcp,
        state: SocketState::Listen,
        address: at.ip(),
        port: Port(at.port()),
        v6only: at.is_ipv6().then_some(false),
        inode,
        uid: 0,
        ifindex: None,
        cgroup_id: None,
        queue: None,
    }
}

/// A learner about these listeners, each held by these processes.
fn learner(listeners: &[(&str, &[Pid])]) -> Learner {
    let mut sockets = Vec::new();
    let mut owners = Owners::default();
    for (inode, (at, pids)) in (1..).zip(listeners) {
        sockets.push(listener(inode, at));
        let held = |pid: &Pid| Owner { inode, pid: *pid, start: StartTime(7), tid: None, fd: 3 };
        owners.holders.extend(pids.iter().map(held));
    }
    Learner::new(&sockets, &owners)
}

fn event(kind: EventKind, at: u64) -> Event {
    Event {
        at: at * MS,
        kind,
        proto: Proto::Tcp,
        netns: Some(HERE),
        address: "127.0.0.1".parse().unwrap(),
        port: None,
        peer: None,
        inode: None,
        actor: None,
        nat: None,
        dropped: None,
        seen_by: SeenBy::Ebpf,
    }
}

/// A connection to `local`, `at` milliseconds from the start.
fn accept(at: u64, local: &str) -> Event {
    let local: SocketAddr = local.parse().unwrap();
    let peer = Some("192.0.2.7:40000".parse().unwrap());
    let event = event(EventKind::Accept, at);
    Event { address: local.ip(), port: Some(Port(local.port())), peer, ..event }
}

fn connect(at: u64, pid: Pid, to: &str) -> Event {
    let actor = Actor {
        pid: Some(pid),
        start: Some(StartTime(7)),
        uid: 0,
        comm: "proxy".to_owned(),
        netns: Some(HERE),
        cgroup: None,
    };
    Event { peer: Some(to.parse().unwrap()), actor: Some(actor), ..event(EventKind::Connect, at) }
}

fn learn(mut learner: Learner, events: &[Event]) -> Watched {
    events.iter().for_each(|event| learner.take(event));
    learner.finish(Duration::from_secs(5), 0)
}

/// `port pid→target connects/accepted`, with `?N` for N ambiguous ones.
fn told(watched: &Watched) -> Vec<String> {
    let one = |seen: &ObservedTarget| {
        let unsure =
            if seen.ambiguous > 0 { format!(" ?{}", seen.ambiguous) } else { String::new() };
        format!(
            "{} {}→{} {}/{}{unsure}",
            seen.port, seen.pid, seen.to, seen.connects, seen.accepted
        )
    };
    watched.observed.iter().map(one).collect()
}

const BACKEND: &str = "10.0.0.5:80";

#[test]
fn a_connect_follows_a_connection_that_came_before() {
    let mut events = Vec::new();
    for at in 0..12 {
        events.extend([accept(at * 100, "127.0.0.1:8080"), connect(at * 100 + 1, 5, BACKEND)]);
    }
    let watched = learn(learner(&[("0.0.0.0:8080", &[5])]), &events);
    assert_eq!(told(&watched), ["8080 5→10.0.0.5:80 12/12"]);
    assert_eq!((watched.ms, watched.connects, watched.lost), (5000, 12, 0));
    assert_eq!(watched.observed[0].to_netns, Some(HERE));
}

#[test]
fn a_connect_before_any_connection_teaches_nothing() {
    let proxy = || learner(&[("0.0.0.0:8080", &[5])]);
    let alone = learn(proxy(), &[connect(1, 5, BACKEND)]);
    assert_eq!((told(&alone), alone.connects), (vec![], 1));
    assert_eq!(alone.accepted, []);
    // The order of time counts, not that of arrival.
    let late = learn(proxy(), &[accept(50, "127.0.0.1:8080"), connect(49, 5, BACKEND)]);
    assert_eq!(told(&late), Vec::<String>::new());
    assert_eq!(late.accepted[0].connections, 1);
}

#[test]
fn what_comes_after_the_window_is_for_something_else() {
    let proxy = || learner(&[("0.0.0.0:8080", &[5])]);
    let at = |at| learn(proxy(), &[accept(10, "127.0.0.1:8080"), connect(at, 5, BACKEND)]);
    assert_eq!(told(&at(2010)), ["8080 5→10.0.0.5:80 1/1"]);
    assert_eq!(told(&at(2011)), Vec::<String>::new());
}

#[test]
fn retries_count_once_and_two_backends_both() {
    let events = [
        accept(0, "127.0.0.1:8080"),
        connect(1, 5, BACKEND),
        connect(2, 5, BACKEND),
        connect(3, 5, "10.0.0.6:80"),
    ];
    let watched = learn(learner(&[("0.0.0.0:8080", &[5])]), &events);
    assert_eq!(told(&watched), ["8080 5→10.0.0.5:80 1/1", "8080 5→10.0.0.6:80 1/1"]);
}

#[test]
fn connections_that_are_used_again_leave_a_lower_count() {
    let mut events: Vec<Event> = (0..14).map(|at| accept(at, "127.0.0.1:8080")).collect();
    events.extend((0..2).map(|at| connect(20 + at, 5, BACKEND)));
    let watched = learn(learner(&[("0.0.0.0:8080", &[5])]), &events);
    assert_eq!(told(&watched), ["8080 5→10.0.0.5:80 2/14"]);
}

#[test]
fn of_two_busy_listeners_none_is_picked() {
    let two = || learner(&[("0.0.0.0:8080", &[5]), ("0.0.0.0:9090", &[5])]);
    let only = [accept(0, "127.0.0.1:9090"), connect(1, 5, BACKEND)];
    assert_eq!(told(&learn(two(), &only)), ["9090 5→10.0.0.5:80 1/1"]);
    let both = [accept(0, "127.0.0.1:8080"), accept(0, "127.0.0.1:9090"), connect(1, 5, BACKEND)];
    let unsure = ["8080 5→10.0.0.5:80 1/1 ?1", "9090 5→10.0.0.5:80 1/1 ?1"];
    assert_eq!(told(&learn(two(), &both)), unsure);
}

#[test]
fn workers_share_a_listener_and_others_have_no_part_in_it() {
    let events = [
        accept(0, "127.0.0.1:8080"),
        accept(1, "127.0.0.1:8080"),
        connect(2, 5, BACKEND),
        connect(3, 6, BACKEND),
        // Two connections can't have been followed by three connects.
        connect(4, 6, BACKEND),
        connect(5, 77, "10.0.0.9:80"),
    ];
    let watched = learn(learner(&[("0.0.0.0:8080", &[5, 6])]), &events);
    assert_eq!(told(&watched), ["8080 5→10.0.0.5:80 1/2", "8080 6→10.0.0.5:80 1/2"]);
    assert_eq!(watched.connects, 3);
}

#[test]
fn a_reused_pid_is_somebody_else() {
    let mut other = connect(1, 5, BACKEND);
    if let Some(actor) = &mut other.actor {
        actor.start = Some(StartTime(8));
    }
    let watched =
        learn(learner(&[("0.0.0.0:8080", &[5])]), &[accept(0, "127.0.0.1:8080"), other.clone()]);
    assert_eq!((told(&watched), watched.connects), (vec![], 0));
    // Outside this PID namespace it has no id at all.
    other.actor = other.actor.map(|actor| Actor { pid: None, start: None, ..actor });
    let watched = learn(learner(&[("0.0.0.0:8080", &[5])]), &[accept(0, "127.0.0.1:8080"), other]);
    assert_eq!(told(&watched), Vec::<String>::new());
}

#[test]
fn the_bind_that_the_kernel_prefers_got_the_connection() {
    let listeners: [(&str, &[Pid]); 2] = [("127.0.0.1:80", &[5]), ("[::]:80", &[6])];
    let events = |to| [accept(0, to), connect(1, 5, BACKEND), connect(1, 6, "10.0.0.6:80")];
    let near = learn(learner(&listeners), &events("127.0.0.1:80"));
    assert_eq!(told(&near), ["80 5→10.0.0.5:80 1/1"]);
    let far = learn(learner(&listeners), &events("[::ffff:192.0.2.1]:80"));
    assert_eq!(told(&far), ["80 6→10.0.0.6:80 1/1"]);
}

#[test]
fn asking_a_name_server_or_oneself_leads_nowhere() {
    let through = |own: &str, to: &str| {
        told(&learn(learner(&[(own, &[5])]), &[accept(0, own), connect(1, 5, to)])).len()
    };
    assert_eq!(through("192.0.2.1:80", "10.0.0.2:53"), 0);
    assert_eq!(through("192.0.2.1:53", "10.0.0.2:53"), 1, "a DNS forwarder leads to DNS servers");
    assert_eq!(through("192.0.2.1:80", "192.0.2.1:80"), 0);
    assert_eq!(through("127.0.0.1:80", "127.0.0.1:80"), 0);
    assert_eq!(through("192.0.2.1:80", "10.0.0.2:80"), 1, "the same port elsewhere");
    assert_eq!(through("192.0.2.1:80", "127.0.0.1:80"), 1, "another listener's");
    // The same address in another namespace is not itself.
    let mut there = connect(1, 5, "127.0.0.1:80");
    there.netns = Some(THERE);
    let watched = learn(learner(&[("127.0.0.1:80", &[5])]), &[accept(0, "127.0.0.1:80"), there]);
    assert_eq!(watched.observed[0].to_netns, Some(THERE));
}

#[test]
fn udp_and_other_events_teach_nothing() {
    let mut udp = accept(0, "127.0.0.1:8080");
    udp.proto = Proto::Udp;
    let mut listens = accept(0, "127.0.0.1:8080");
    listens.kind = EventKind::Listen;
    let watched =
        learn(learner(&[("0.0.0.0:8080", &[5])]), &[udp, listens, connect(1, 5, BACKEND)]);
    assert_eq!((watched.accepted.len(), watched.observed.len()), (0, 0));
}

#[test]
fn memory_is_bounded_and_what_is_left_out_is_counted() {
    let mut learner = learner(&[("0.0.0.0:8080", &[5])]);
    for _ in 0..100_000 {
        learner.take(&accept(1, "127.0.0.1:8080"));
    }
    for target in 0..2000_u32 {
        let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + target);
        learner.take(&connect(2, 5, &format!("{ip}:80")));
    }
    assert!(learner.listeners[0].recent.len() <= RECENT);
    let watched = learner.finish(Duration::from_secs(1), 3);
    assert_eq!(watched.observed.len(), TARGETS);
    let listener = &watched.accepted[0];
    assert_eq!((listener.connections, listener.unkept), (100_000, 2000 - TARGETS as u64));
    assert_eq!((watched.connects, watched.lost), (2000, 3));
}

#[test]
fn counts_of_all_listeners_are_bounded_together() {
    let mut learner = learner(&[("0.0.0.0:8080", &[5])]);
    learner.room = 1;
    let events =
        [accept(0, "127.0.0.1:8080"), connect(1, 5, BACKEND), connect(2, 5, "10.0.0.6:80")];
    let watched = learn(learner, &events);
    assert_eq!(told(&watched), ["8080 5→10.0.0.5:80 1/1"]);
    assert_eq!(watched.accepted[0].unkept, 1);
}
