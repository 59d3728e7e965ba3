//! What has a port on which nothing listens.

use super::*;
use whereis_port_model::{HeldAs, HeldSockets};

/// The usual settings: 32768 to 60999 are given out, but for one of them.
fn settings(netns: NetnsId) -> PortFacts {
    PortFacts {
        ephemeral: Some(PortRange { first: Port(32_768), last: Port(60_999) }),
        reserved: Some(vec![PortRange::one(Port(40_001))]),
        ..PortFacts::unknown(netns)
    }
}

impl TestNode {
    /// A socket in this state, with a peer if that is not empty; its inode is 1000 and its place.
    fn has(mut self, state: SocketState, proto: Proto, at: &str, peer: &str) -> Self {
        let node = TestNode::new().socket(self.host.own_netns, proto, at);
        let mut socket = node.sockets[0].clone();
        (socket.state, socket.inode) = (state, 1000 + self.port_sockets.len() as u64);
        let peer = (!peer.is_empty()).then(|| peer.parse().unwrap());
        self.port_sockets.push(PortSocket { socket, peer, expires_ms: None });
        self
    }

    fn last_has(mut self, change: impl FnOnce(&mut PortSocket)) -> Self {
        change(self.port_sockets.last_mut().unwrap());
        self
    }

    /// A process that has the last of them.
    fn had_by(self, pid: Pid) -> Self {
        let inode = self.port_sockets.last().unwrap().socket.inode;
        let mut node = self.tcp(NetnsId::Inode(9), "127.0.0.1:1").held_by(pid, HOST, "client");
        node.sockets.pop();
        node.owners.holders.last_mut().unwrap().inode = inode;
        node
    }

    fn usual(mut self) -> Self {
        self.port_facts = vec![settings(HOST)];
        self
    }
}

fn only(answer: &Answer) -> &HeldSockets {
    assert_eq!((answer.verdict, answer.held.len()), (Verdict::NotFound, 1), "{:?}", answer.held);
    &answer.held[0]
}

#[test]
fn the_port_of_an_outgoing_connection_is_not_free() {
    let node = TestNode::new()
        .usual()
        .has(SocketState::Established, Proto::Tcp, "127.0.0.1:40000", "127.0.0.1:80")
        .had_by(77)
        .tcp(HOST, "0.0.0.0:80");
    let answer = node.ask("40000/tcp");
    let held = only(&answer);
    assert_eq!(
        (held.role, held.blocks, held.ephemeral),
        (HeldAs::Outgoing, Some(true), Some(true))
    );
    assert_eq!(held.end.processes[0].pid, 77);
    let commands: Vec<String> =
        held.fix.as_ref().unwrap().commands().map(|c| c.words().join(" ")).collect();
    let reserve = "sysctl -w net.ipv4.ip_local_reserved_ports=40001,40000";
    assert_eq!(commands, ["kill 77", reserve]);
}

#[test]
fn what_a_connection_is_for_is_told_by_both_ports_and_else_not_at_all() {
    for (at, peer, role) in [
        ("192.0.2.10:8080", "192.0.2.99:50000", HeldAs::LikelyAccepted),
        ("192.0.2.10:50000", "192.0.2.99:8080", HeldAs::LikelyOutgoing),
        ("192.0.2.10:50000", "192.0.2.99:50001", HeldAs::Connection),
        ("192.0.2.10:80", "192.0.2.99:81", HeldAs::Connection),
    ] {
        let node = TestNode::new().usual().has(SocketState::Established, Proto::Tcp, at, peer);
        let port = at.rsplit(':').next().unwrap();
        assert_eq!(only(&node.ask(port)).role, role, "{at} {peer}");
    }
    // Without the settings nothing is guessed.
    let node = TestNode::new().has(
        SocketState::CloseWait,
        Proto::Tcp,
        "192.0.2.10:8080",
        "192.0.2.99:50000",
    );
    let answer = node.ask("8080");
    assert_eq!((only(&answer).role, only(&answer).ephemeral), (HeldAs::Connection, None));
}

#[test]
fn what_is_left_of_connections_is_told_with_its_time() {
    let ended = |ms| {
        move |found: &mut PortSocket| {
            (found.socket.inode, found.expires_ms) = (0, Some(ms));
        }
    };
    let node = TestNode::new()
        .has(SocketState::TimeWait, Proto::Tcp, "127.0.0.1:81", "127.0.0.1:50000")
        .last_has(ended(1_500))
        .has(SocketState::TimeWait, Proto::Tcp, "127.0.0.1:81", "127.0.0.1:50001")
        .last_has(ended(42_000));
    let answer = node.ask("81");
    let held = only(&answer);
    assert_eq!(
        (held.role, held.count, held.socket.expires_ms),
        (HeldAs::TimeWait, 2, Some(42_000))
    );
    assert_eq!(held.end.ending, Ending::Kernel);
    assert!(answer.gaps.is_empty(), "{:?}", answer.gaps);
}

#[test]
fn every_state_that_holds_a_port_has_its_role() {
    use SocketState::{Bound, Established, FinWait1, SynReceived, SynSent};
    for (state, proto, peer, inode, role) in [
        (Bound, Proto::Tcp, "", 5, HeldAs::Bound),
        (SynSent, Proto::Tcp, "192.0.2.99:80", 5, HeldAs::Outgoing),
        (SynReceived, Proto::Tcp, "192.0.2.99:80", 0, HeldAs::Unaccepted),
        (Established, Proto::Tcp, "192.0.2.99:80", 0, HeldAs::Unaccepted),
        (FinWait1, Proto::Tcp, "192.0.2.99:80", 0, HeldAs::Closing),
        (FinWait1, Proto::Tcp, "192.0.2.99:80", 5, HeldAs::Connection),
        (Established, Proto::Udp, "192.0.2.99:53", 5, HeldAs::ConnectedUdp),
    ] {
        let node = TestNode::new()
            .has(state, proto, "192.0.2.10:81", peer)
            .last_has(|found| found.socket.inode = inode);
        let answer = node.ask("81");
        assert_eq!(only(&answer).role, role, "{state:?} {proto}");
        // A request for a connection is its listener's.
        let blocks = if state == SynReceived { None } else { Some(true) };
        assert_eq!(only(&answer).blocks, blocks, "{state:?}");
    }
}

#[test]
fn a_question_about_an_address_is_told_of_what_keeps_it_from_being_bound() {
    let node = TestNode::new().tcp(HOST, "192.0.2.10:53").held_by(7, HOST, "dnsmasq").has(
        SocketState::Established,
        Proto::Tcp,
        "127.0.0.1:54",
        "127.0.0.1:80",
    );
    // A listener at one address is in the way of who asks for all of them.
    for all in ["0.0.0.0:53", "[::]:53"] {
        let answer = node.ask(all);
        let held = only(&answer);
        assert_eq!((held.role, held.blocks), (HeldAs::Listener, Some(true)), "{all}");
        assert_eq!(held.end.processes[0].pid, 7);
    }
    assert_eq!(node.ask("127.0.0.1:53").held, []);
    assert_eq!(node.ask("127.0.0.1:54").held.len(), 1);
    assert_eq!(node.ask("192.0.2.10:54").held, []);
}

#[test]
fn a_listener_elsewhere_leaves_the_own_namespace_to_be_looked_at() {
    let inner = NetnsId::Inode(7);
    let connected = |node: TestNode| {
        node.has(SocketState::Established, Proto::Tcp, "127.0.0.1:40000", "127.0.0.1:80")
    };
    let node = connected(TestNode::new().namespace(inner, "c").tcp(inner, "0.0.0.0:40000"));
    let answer = node.ask("40000/tcp");
    assert_eq!((answer.verdict, answer.held.len()), (Verdict::Found, 1));
    // What a listener accepted says nothing that the listener does not.
    let node = connected(TestNode::new().tcp(HOST, "127.0.0.1:40000"));
    assert_eq!(node.ask("40000/tcp").held, []);
}

#[test]
fn surely_free_is_said_only_of_what_was_read() {
    let mut node = TestNode::new();
    node.port_gaps = vec![Gap::new(Impact::Bind, GapKind::Recording, "not read")];
    let answer = node.ask("81");
    assert_eq!(answer.verdict, Verdict::NotFound);
    assert!(answer.gaps.iter().any(|gap| gap.impact == Impact::Bind), "{:?}", answer.gaps);
    let node = TestNode { port_gaps: node.port_gaps, ..TestNode::new().tcp(HOST, "0.0.0.0:82") };
    assert_eq!(node.ask("82").gaps, []);
}

#[test]
fn many_sockets_of_one_process_are_told_once() {
    let mut node = TestNode::new();
    for port in 50_000..50_100 {
        let peer = format!("192.0.2.99:{port}");
        node = node.has(SocketState::CloseWait, Proto::Tcp, "192.0.2.10:81", &peer).had_by(7);
    }
    let answer = node.ask("81");
    assert_eq!((only(&answer).count, answer.more_held), (100, 0));
    let mut node = TestNode::new();
    for port in 0..100 {
        let peer = "192.0.2.99:80";
        node = node.has(SocketState::Bound, Proto::Tcp, &format!("0.0.0.0:{}", 81 + port), peer);
    }
    let answer = node.ask("1-1000");
    assert_eq!((answer.held.len(), answer.more_held), (64, 36));
}
