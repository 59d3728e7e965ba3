use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use whereis_port_model::{GapKind, Owner, PortRange, SocketState, StartTime};

use super::*;

const HERE: NetnsId = NetnsId::Inode(1);
const THERE: NetnsId = NetnsId::Inode(2);

fn socket(netns: NetnsId, port: u16, inode: u64) -> Socket {
    Socket {
        netns,
        proto: Proto::Tcp,
        state: SocketState::Listen,
        address: Ipv4Addr::UNSPECIFIED.into(),
        port: Port(port),
        v6only: None,
        inode,
        uid: 0,
        ifindex: None,
        cgroup_id: None,
        queue: None,
    }
}

fn reading(sockets: &[Socket], unread: &[NetnsId]) -> SocketSnapshot {
    SocketSnapshot {
        sockets: sockets.iter().map(|s| (key(s), s.clone())).collect(),
        unread: unread.iter().copied().collect(),
    }
}

#[test]
fn a_socket_is_new_or_gone_or_neither() {
    let last = reading(&[socket(HERE, 80, 10), socket(HERE, 81, 11)], &[]);
    let mut now = reading(&[socket(HERE, 80, 10), socket(HERE, 82, 12)], &[]);
    let (new, gone) = changes(&last, &mut now);
    assert_eq!((new, gone), (vec![socket(HERE, 82, 12)], vec![socket(HERE, 81, 11)]));
}

#[test]
fn one_that_took_anothers_place_is_told_as_both() {
    let last = reading(&[socket(HERE, 80, 10)], &[]);
    let (new, gone) = changes(&last, &mut reading(&[socket(HERE, 80, 20)], &[]));
    assert_eq!((new[0].inode, gone[0].inode), (20, 10));
}

#[test]
fn what_can_not_be_read_for_a_while_has_neither_gone_nor_come() {
    let (here, there) = (socket(HERE, 80, 10), socket(THERE, 80, 20));
    let first = reading(&[here.clone(), there.clone()], &[]);
    let mut second = reading(std::slice::from_ref(&here), &[THERE]);
    assert_eq!(changes(&first, &mut second), (Vec::new(), Vec::new()));
    // What happened meanwhile can't be told from what was always there.
    let mut third = reading(&[here, there.clone(), socket(THERE, 81, 21)], &[]);
    assert_eq!(changes(&second, &mut third), (Vec::new(), Vec::new()));
    // A namespace that is gone took its sockets along.
    let mut last = reading(&[], &[]);
    assert_eq!(changes(&third, &mut last).1.len(), 3);
}

#[test]
fn of_several_holders_the_oldest_counts_and_init_last() {
    let owner = |pid, start| Owner { inode: 10, pid, start: StartTime(start), tid: None, fd: 3 };
    let owners =
        Owners { holders: vec![owner(1, 0), owner(7, 20), owner(9, 10)], ..Owners::default() };
    let mut asked = None;
    actor(&owners, &socket(HERE, 80, 10), |pid| {
        asked = Some(pid);
        None
    });
    assert_eq!(asked, Some(9));
}

#[test]
fn sockets_of_this_process_are_seen_to_come_and_go() {
    let wanted = |kinds: &[EventKind], port| WatchRequest {
        kinds: kinds.to_vec(),
        ports: Some(PortRange::one(Port(port))),
        drops: Vec::new(),
        interval: Duration::from_secs(3600),
        ebpf: false,
        buffer: None,
    };
    let why = || Gap::new(Impact::Port, GapKind::Ebpf, "not used");
    let kinds = [EventKind::Listen, EventKind::Bind, EventKind::Close];
    let of = |events: Vec<Event>| {
        let mine = events.into_iter().filter(|event| {
            event.actor.as_ref().and_then(|actor| actor.pid) == Some(std::process::id())
        });
        mine.map(|event| (event.kind, event.port, event.seen_by)).collect::<Vec<_>>()
    };

    // The port is held by UDP until TCP takes the same number.
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    let mut watch = Snapshots::start(&wanted(&kinds, port), why()).unwrap();
    assert_eq!(watch.next(Duration::ZERO), []);
    let tcp = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let seen = of(watch.next(Duration::ZERO));
    assert_eq!(seen, [(EventKind::Listen, Some(Port(port)), SeenBy::Comparison)]);
    drop(tcp);
    let seen = of(watch.next(Duration::ZERO));
    assert_eq!(seen, [(EventKind::Close, Some(Port(port)), SeenBy::Comparison)]);
    // It is not time for the next one yet.
    drop(udp);
    assert_eq!(watch.next(Duration::from_millis(1)), []);

    // A kind that was not asked for is not told.
    let mut watch = Snapshots::start(&wanted(&[EventKind::Close], port), why()).unwrap();
    let udp = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    assert_eq!(watch.next(Duration::ZERO), []);
    drop(udp);
    assert_eq!(of(watch.next(Duration::ZERO)).len(), 1);
}

#[test]
fn what_comparing_can_not_show_is_said() {
    let wanted = WatchRequest {
        kinds: vec![EventKind::Listen, EventKind::Connect],
        ports: Some(PortRange::one(Port(1))),
        drops: Vec::new(),
        interval: Duration::from_secs(1),
        ebpf: false,
        buffer: None,
    };
    let watch = Snapshots::start(&wanted, Gap::new(Impact::Port, GapKind::Ebpf, "x")).unwrap();
    let gaps: Vec<String> = watch.gaps().into_iter().map(|gap| gap.source.to_string()).collect();
    assert_eq!(gaps[..2], ["eBPF", "connect events"]);
}
