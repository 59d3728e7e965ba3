//! Addresses on a link that nobody has, as far as all of it is seen.

use super::*;
use whereis_port_model::{Attachment, DeviceHook, Neighbour, NeighbourState, Program};

const PROXY: &str = "/usr/bin/docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 172.18.0.77 -container-port 80";

fn settings(netns: NetnsId) -> NetSettings {
    NetSettings {
        netns,
        forward4: Some(true),
        unforwarding4: None,
        forward6: Some(true),
        route_localnet_all: Some(false),
        route_localnet: Vec::new(),
        force_forward6: None,
        ipsec_policies: None,
        bridge_calls_iptables: None,
        bridge_calls_ip6tables: None,
        reverse_path: None,
        proxy_arp: Some(Vec::new()),
        arp_ignore: None,
    }
}

fn link(netns: NetnsId, index: u32, kind: LinkKind) -> Link {
    let name = format!("dev{index}");
    Link {
        netns,
        index,
        name,
        up: true,
        kind,
        master: None,
        peer: None,
        peer_netns: None,
        bridge_port: None,
        hardware: None,
        noarp: false,
    }
}

/// A host whose bridge leads to one container, and a proxy to an address that it lacks.
fn host() -> TestNode {
    let mut node = TestNode::new().namespace(A, "web").tcp(HOST, "0.0.0.0:8080");
    node = node.held_by(10, HOST, PROXY).route(HOST, "172.18.0.0", 16);
    node = node.address(HOST, "172.18.0.1").address(A, "172.18.0.2");
    node.addresses.last_mut().unwrap().ifindex = 9;
    let port = Link {
        master: Some(5),
        peer: Some(9),
        peer_netns: Some(A),
        ..link(HOST, 6, LinkKind::Veth)
    };
    let inner = Link { peer: Some(6), peer_netns: Some(HOST), ..link(A, 9, LinkKind::Veth) };
    node.links = vec![link(HOST, 5, LinkKind::Bridge), port, inner];
    node.settings = vec![settings(HOST), settings(A)];
    node
}

/// How the path ends, and why.
fn ends(node: &TestNode) -> (Ending, String) {
    let answer = node.ask("8080");
    let end = &answer.paths[0].end;
    (end.ending, end.why.clone().unwrap_or_default())
}

#[test]
fn a_proxy_to_nobody_is_left_over() {
    let node = host();
    let (ending, why) = ends(&node);
    assert_eq!(
        (ending, why.as_str()),
        (Ending::Stopped, "nobody on dev5 has 172.18.0.77: all that are joined to it are seen")
    );
    let answer = node.ask("8080");
    let loopback = answer.reach.iter().find(|r| r.from == Vantage::Loopback).unwrap();
    assert_eq!(loopback.reachable, Some(false));
    assert_eq!(loopback.why.cause.code(), CauseCode::NoNeighbour);
    let fix = loopback.fix.as_ref().unwrap();
    let kill = whereis_port_model::Command::new("kill 10");
    assert!(fix.commands().any(|command| *command == kill), "{fix:?}");
}

#[test]
fn what_is_not_seen_may_have_it() {
    type Change = fn(&mut TestNode);
    let changes: [(&str, Change); 7] = [
        ("a device that is no pair", |node| {
            node.links.push(Link { master: Some(5), ..link(HOST, 7, LinkKind::Device) });
        }),
        ("a pair whose other end is not seen", |node| {
            let pair = link(HOST, 7, LinkKind::Veth);
            node.links.push(Link { master: Some(5), peer: Some(3), ..pair });
        }),
        ("a device upon another", |node| {
            let upper = link(B, 3, LinkKind::Other("macvlan".to_owned()));
            node.netns.push(netns(B, None));
            node.links.push(Link { peer: Some(9), peer_netns: Some(A), ..upper });
        }),
        ("a program", |node| {
            let program = Program { id: Some(1), name: String::new(), balancer: None };
            let what = Attachment::Program(program);
            let at = DeviceHook::TcIngress;
            node.attached.value.push(Attached { netns: A, ifindex: Some(9), at, what });
        }),
        ("a namespace without an address", |node| node.addresses.retain(|a| a.ifindex != 9)),
        ("one that answers for others", |node| {
            node.settings[1].proxy_arp = Some(vec!["dev9".to_owned()]);
        }),
        ("settings that were not read", |node| node.settings[1].proxy_arp = None),
    ];
    for (what, change) in changes {
        let mut node = host();
        change(&mut node);
        assert_eq!(ends(&node).0, Ending::Elsewhere, "{what}");
    }
    // Who answered is none of those who are seen.
    let mut node = host();
    node.neighbours.push(Neighbour {
        netns: HOST,
        ifindex: 5,
        address: "172.18.0.77".parse().unwrap(),
        state: NeighbourState::Answered,
        hardware: None,
    });
    let (ending, why) = ends(&node);
    assert!(ending == Ending::Unknown && why.contains("somebody answered"), "{ending:?}: {why}");
}

#[test]
fn where_all_is_seen_whoever_takes_the_address_gets_it() {
    let mut node = host().tcp(A, "0.0.0.0:80").held_by(20, A, "nginx");
    node.local_routes.push(whereis_port_model::LocalRoute {
        netns: A,
        destination: "172.18.0.64".parse().unwrap(),
        prefix: 26,
        table: 255,
    });
    let through = "0.0.0.0:8080 > 172.18.0.77:80 > 0.0.0.0:80 > nginx";
    assert_eq!(shape(&node.ask("8080")), [through]);
}
