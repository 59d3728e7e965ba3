//! Whether a socket could be bound.

use super::*;
use crate::BindQuestion;
use whereis_port_model::{Bind, BindNote};

fn settings() -> PortFacts {
    PortFacts {
        ephemeral: Some(PortRange { first: Port(32_768), last: Port(60_999) }),
        reserved: Some(Vec::new()),
        unprivileged_from: Some(1024),
        nonlocal4: Some(false),
        nonlocal6: Some(false),
        ..PortFacts::unknown(HOST)
    }
}

fn question(target: &str) -> BindQuestion {
    BindQuestion {
        query: query(target),
        netns: None,
        uid: None,
        reuse_addr: false,
        reuse_port: false,
        v6only: false,
        device: None,
        attempt: false,
    }
}

/// The only answer to a question about one protocol.
fn ask(node: &TestNode, question: &BindQuestion) -> Bind {
    let mut binds = super::super::bind(node, question).unwrap();
    assert_eq!(binds.len(), 1);
    binds.remove(0)
}

fn node() -> TestNode {
    TestNode { port_facts: vec![settings()], ..TestNode::new() }
}

#[test]
fn what_was_not_read_is_not_promised() {
    assert_eq!(ask(&node(), &question("81/tcp")).predicted, Some(true));
    let unread = vec![Gap::new(Impact::Bind, GapKind::Recording, "not read")];
    let unknown = ask(&TestNode { port_gaps: unread.clone(), ..node() }, &question("81/tcp"));
    assert_eq!((unknown.predicted, unknown.gaps.len()), (None, 1));
    // A socket that is seen is in the way, whatever else there may be.
    let taken = TestNode { port_gaps: unread, ..node().tcp(HOST, "0.0.0.0:81") };
    let no = ask(&taken, &question("81/tcp"));
    assert_eq!((no.predicted, no.gaps), (Some(false), vec![]));
    // Neither settings nor routes: whether the address is there is not known.
    let bare = TestNode::new();
    assert_eq!(ask(&bare, &question("192.0.2.99:81/tcp")).predicted, None);
    assert_eq!(ask(&bare, &question("192.0.2.10:81/tcp")).predicted, Some(true));
    let of = BindQuestion { uid: Some(5), ..question("81/tcp") };
    assert_eq!(ask(&bare, &of).notes, [BindNote::PrivilegedNotKnown]);
}

#[test]
fn who_asks_may_have_the_port_or_not() {
    let of = |uid, target: &str| ask(&node(), &BindQuestion { uid, ..question(target) }).predicted;
    assert_eq!(of(None, "81/tcp"), Some(true));
    assert_eq!(of(Some(0), "81/tcp"), Some(true));
    assert_eq!(of(Some(5), "81/tcp"), Some(false));
    assert_eq!(of(Some(5), "1024/tcp"), Some(true));
    let mut plain = node();
    (plain.host.euid, plain.host.capabilities) = (7, Vec::new());
    assert_eq!(ask(&plain, &question("81/tcp")).predicted, Some(false));
    plain.host.capabilities = vec![Capability::CapNetBindService];
    assert_eq!(ask(&plain, &question("81/tcp")).predicted, Some(true));
}

#[test]
fn without_ipv6_all_addresses_are_those_of_ipv4() {
    let facts = PortFacts { nonlocal6: None, ..settings() };
    let node = TestNode { port_facts: vec![facts], ..TestNode::new() };
    let bind = ask(&node, &question("8080/tcp"));
    assert_eq!((bind.predicted, bind.ask.address.is_ipv4()), (Some(true), true));
    let bind = ask(&node, &question("[::1]:8080/tcp"));
    assert_eq!((bind.predicted, bind.notes), (Some(false), vec![BindNote::NoIpv6]));
}

#[test]
fn what_works_for_one_version_of_ip_is_told() {
    let four = ask(&node().tcp(HOST, "127.0.0.1:81"), &question("81/tcp"));
    assert_eq!(four.notes, [BindNote::OnlyFor { ipv6: true }]);
    let mut six = node().tcp(HOST, "[::]:81");
    six.sockets[0].v6only = Some(true);
    let six = ask(&six, &question("81/tcp"));
    assert_eq!((six.predicted, six.notes), (Some(false), vec![BindNote::OnlyFor { ipv6: false }]));
    let both = ask(&node().tcp(HOST, "[::]:81"), &question("81/tcp"));
    assert_eq!(both.notes, []);
}

#[test]
fn udp_stops_at_the_first_that_it_may_share_with() {
    let with_port = BindQuestion { reuse_port: true, ..question("81/udp") };
    let mut node = node().socket(HOST, Proto::Udp, "127.0.0.1:81");
    node.sockets[0].uid = 7;
    // Of another user: no.
    assert_eq!(ask(&node, &with_port).predicted, Some(false));
    // And one of the same user, that may have the option: it depends on which comes first.
    let node = node.socket(HOST, Proto::Udp, "127.0.0.2:81");
    assert_eq!(ask(&node, &with_port).predicted, None);
    assert_eq!(ask(&node, &question("81/udp")).predicted, Some(false));
}

#[test]
fn a_vrf_has_ports_apart_unless_they_are_joined() {
    let mut node = node().tcp(HOST, "0.0.0.0:8080");
    node.sockets[0].ifindex = Some(7);
    node.links.push(Link {
        netns: HOST,
        index: 7,
        name: "blue".to_owned(),
        up: true,
        kind: LinkKind::Other("vrf".to_owned()),
        master: None,
        peer: None,
        peer_netns: None,
        bridge_port: None,
        hardware: None,
        noarp: false,
    });
    assert_eq!(ask(&node, &question("8080/tcp")).predicted, None);
    let inside = BindQuestion { device: Some("blue".to_owned()), ..question("8080/tcp") };
    assert_eq!(ask(&node, &inside).predicted, Some(false));
}

#[test]
fn a_namespace_is_named_once() {
    let two = [NetnsId::Inode(7), NetnsId::Inode(8)];
    let node = node().namespace(two[0], "web").namespace(two[1], "web");
    let of = |name: &str| {
        super::super::bind(&node, &BindQuestion { netns: Some(name.into()), ..question("81/tcp") })
    };
    assert!(of("web").unwrap_err().contains("several"), "{:?}", of("web"));
    assert!(of("no").unwrap_err().contains("web"), "{:?}", of("no"));
    assert_eq!(of("8").unwrap()[0].netns.id, two[1]);
    assert_eq!(of("host").unwrap()[0].netns.id, HOST);
}
