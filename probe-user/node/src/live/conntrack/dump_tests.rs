//! The dump against the real kernel, in network namespaces of its own.

use std::net::{TcpListener, TcpStream, UdpSocket};

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::super::netlink::{NETFILTER, Netlink};
use super::dump::{KeptFlows, TupleFilter, ask, read, request};
use super::tests::{Lab, RULES, can_make_labs};
use whereis_port_model::{Flow, FlowFilter, Impact, NetnsId, Port, PortRange, Proto, Read};

fn filter(port: u16) -> FlowFilter {
    FlowFilter { proto: None, ports: PortRange::one(Port(port)) }
}

/// Reads in the lab. With `few` 0, the kernel looks for the port.
fn flows(lab: &Lab, filter: FlowFilter, few: u64, kept: usize) -> Read<Vec<Flow>> {
    let id = lab.door.id;
    let mut read = lab.run(move || read(id, &filter, true, few, kept));
    read.value.sort_by_key(|flow| (flow.proto, flow.destination, flow.source));
    read
}

#[test]
fn connections_through_nat_are_listed_with_what_became_of_them() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.rules(RULES);
    let (client, seen_as, _open) = lab.run(|| {
        let server = TcpListener::bind("127.0.0.1:9090").unwrap();
        let client = TcpStream::connect("127.0.0.1:8080").unwrap();
        let (stream, seen_as) = server.accept().unwrap();
        (client.local_addr().unwrap(), seen_as, (client, stream))
    });
    let (sender, _open_too) = lab.run(|| {
        let receiver = UdpSocket::bind("127.0.0.1:5300").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", "127.0.0.1:10500").unwrap();
        (socket.local_addr().unwrap(), (socket, receiver))
    });
    for few in [0, u64::MAX] {
        // By the port it was sent to, and by the one that serves it.
        for port in [8080, 9090] {
            let Read { value, gaps } = flows(&lab, filter(port), few, 100);
            assert_eq!(gaps, []);
            let [flow] = value.as_slice() else { panic!("{port} {few}: {value:?}") };
            assert_eq!((flow.netns, flow.proto), (lab.door.id, Proto::Tcp));
            assert_eq!((flow.source, flow.seen_as), (client, seen_as));
            assert_eq!(flow.destination.to_string(), "127.0.0.1:8080");
            assert_eq!(flow.served_by.to_string(), "127.0.0.1:9090");
            assert_eq!((flow.state.as_deref(), flow.answered), (Some("established"), true));
            assert!(flow.is_open() && flow.is_translated() && flow.timeout.is_some());
        }
        for port in [10_500, 5300] {
            let value = flows(&lab, filter(port), few, 100).value;
            let [flow] = value.as_slice() else { panic!("{port} {few}: {value:?}") };
            assert_eq!((flow.proto, flow.source, flow.answered), (Proto::Udp, sender, false));
            assert_eq!((flow.destination.port(), flow.served_by.port()), (10_500, 5300));
        }
        let tcp = FlowFilter { proto: Some(Proto::Tcp), ..filter(5300) };
        assert_eq!(flows(&lab, tcp, few, 100), Read::default());
        // A range is read as well.
        let ports = PortRange { first: Port(5000), last: Port(8080) };
        assert_eq!(flows(&lab, FlowFilter { proto: None, ports }, few, 100).value.len(), 2);
    }
}

#[test]
fn of_many_connections_those_of_the_port_come_each_once() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.rules(RULES);
    lab.command(
        "ip6tables-restore",
        &["--wait"],
        "*nat\n-A OUTPUT -p udp --dport 7 -j REDIRECT --to-ports 8\nCOMMIT\n",
    );
    let _open = lab.run(|| {
        let receiver = UdpSocket::bind("127.0.0.1:5300").unwrap();
        let senders: Vec<UdpSocket> = (0..4u16)
            .map(|_| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                for port in 10_000..10_125u16 {
                    socket.send_to(b"x", ("127.0.0.1", port)).unwrap();
                }
                socket
            })
            .collect();
        let six = UdpSocket::bind("[::1]:0").unwrap();
        let _ = six.send_to(b"x", "[::1]:10007");
        (receiver, senders, six)
    });
    let sent = |few, kept| {
        let Read { value, gaps } = flows(&lab, filter(10_007), few, kept);
        let addresses: Vec<_> = value.iter().map(|flow| flow.destination.to_string()).collect();
        (addresses, gaps)
    };
    let four = vec!["127.0.0.1:10007".to_owned(); 4];
    let wanted = [four.clone(), vec!["[::1]:10007".to_owned()]].concat();
    assert_eq!(sent(0, 100), (wanted.clone(), Vec::new()));
    assert_eq!(sent(u64::MAX, 100), (wanted, Vec::new()));
    // The kernel sends nothing else, where it can look for ports (Linux 5.8).
    let id = lab.door.id;
    let looked_for = lab.run(move || {
        let mut netlink = Netlink::open(NETFILTER, usize::MAX).unwrap();
        [(10_007, true), (5300, false), (10_007, false)].map(|(port, original)| {
            let filter = filter(port);
            let mut kept = KeptFlows::new(&filter, 1000);
            let only = TupleFilter { proto: Proto::Udp, port: Port(port), original };
            let request = request(u8::try_from(libc::AF_INET).unwrap(), Some(only)).unwrap();
            (ask(&mut netlink, id, &request, &mut kept).unwrap(), kept.into_counts().0)
        })
    });
    if linux_at_least(5, 8) {
        assert_eq!(looked_for, [(true, 4), (true, 500), (true, 0)]);
    }
    // All are served by one port. What is too many is counted.
    for few in [0, u64::MAX] {
        let Read { value, gaps } = flows(&lab, filter(5300), few, 100);
        assert_eq!(value.len(), 100);
        let [gap] = gaps.as_slice() else { panic!("{gaps:?}") };
        assert_eq!((gap.impact, gap.remedy.as_deref()), (Impact::Flow, None));
        assert!(gap.reason.contains("400 more than the 100"), "{gap:?}");
        assert_eq!(flows(&lab, filter(5300), few, 1000).value.len(), 500);
    }
}

#[test]
fn a_namespace_that_tracks_nothing_has_none() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    let _open = lab.run(|| {
        let server = TcpListener::bind("127.0.0.1:8080").unwrap();
        (TcpStream::connect("127.0.0.1:8080").unwrap(), server)
    });
    assert_eq!(flows(&lab, filter(8080), 0, 100), Read::default());
    // Not being allowed to ask is no matter then.
    let id = lab.door.id;
    let read = lab.run(move || {
        give_up_rights();
        read(id, &filter(8080), true, 0, 100)
    });
    assert_eq!(read, Read::default());
}

fn linux_at_least(major: u32, minor: u32) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').filter_map(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

fn give_up_rights() {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).unwrap();
}

#[test]
fn without_the_right_the_text_is_read_or_the_gap_names_it() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.rules(RULES);
    let _open = lab.run(|| {
        let server = TcpListener::bind("127.0.0.1:9090").unwrap();
        (TcpStream::connect("127.0.0.1:8080").unwrap(), server)
    });
    let id = lab.door.id;
    let (has_file, read) = lab.run(move || {
        give_up_rights();
        let has_file = std::fs::File::open("/proc/thread-self/net/nf_conntrack").is_ok();
        (has_file, read(id, &filter(8080), true, 0, 100))
    });
    if has_file {
        assert_eq!((read.value.len(), read.gaps), (1, Vec::new()));
        return;
    }
    let [gap] = read.gaps.as_slice() else { panic!("{read:?}") };
    assert!(read.value.is_empty() && gap.reason.contains("CAP_NET_ADMIN"), "{gap:?}");
    assert_eq!(gap.remedy.as_deref(), Some("run as root, or with CAP_NET_ADMIN"));
}

#[test]
fn a_module_that_is_missing_is_named() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.rules(RULES);
    lab.run(|| TcpStream::connect("127.0.0.1:8081").unwrap_err());
    let _open = lab.run(|| {
        let server = TcpListener::bind("127.0.0.1:9090").unwrap();
        (TcpStream::connect("127.0.0.1:8080").unwrap(), server)
    });
    let id = lab.door.id;
    let read = lab.run(move || read(id, &filter(8080), false, 0, 100));
    // Where the kernel has the text, it does without.
    if read.value.is_empty() {
        assert_eq!(read.gaps[0].remedy.as_deref(), Some("modprobe nf_conntrack_netlink"));
    }
}

#[test]
fn what_comes_twice_is_kept_once() {
    let address = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let flow = |source| Flow {
        netns: NetnsId::Inode(1),
        proto: Proto::Tcp,
        source: address(source),
        destination: address(80),
        served_by: address(80),
        seen_as: address(source),
        state: None,
        answered: true,
        zone: 0,
        timeout: None,
        counts: None,
    };
    let filter = filter(80);
    let mut kept = KeptFlows::new(&filter, 2);
    assert!(kept.offer(flow(1)) && kept.offer(flow(1)) && kept.offer(flow(2)));
    assert!(kept.offer(Flow { zone: 5, ..flow(1) }) && kept.offer(flow(2)) && kept.offer(flow(3)));
    let mut other = flow(4);
    other.destination = address(81);
    other.served_by = address(81);
    assert!(!kept.offer(other));
    assert_eq!(kept.into_counts(), (2, 2));
}
