//! Whether a packet may come from where it does.

use super::*;
use whereis_port_model::{ConditionCode, DeviceMode, Reach};

/// A host with two devices to the outside, of which the first has the default route.
fn host(mode: u8) -> TestNode {
    let mut node = TestNode::new().tcp(HOST, "0.0.0.0:80").held_by(10, HOST, "nginx");
    node = node.address(HOST, "198.51.100.1");
    node.addresses.last_mut().unwrap().ifindex = 3;
    node.links.retain(|link| link.kind == LinkKind::Loopback);
    for (index, name) in [(2, "up0"), (3, "up1")] {
        node.links.push(Link {
            netns: HOST,
            index,
            name: name.to_owned(),
            up: true,
            kind: LinkKind::Device,
            master: None,
            peer: None,
            peer_netns: None,
            bridge_port: None,
            hardware: None,
            noarp: false,
        });
    }
    node.routes =
        vec![route("0.0.0.0", 0, 2), route("192.0.2.0", 24, 2), route("198.51.100.0", 24, 3)];
    let on = |device: &str| DeviceMode { device: device.to_owned(), mode };
    node.settings.push(NetSettings {
        netns: HOST,
        forward4: Some(true),
        unforwarding4: None,
        forward6: Some(true),
        route_localnet_all: Some(false),
        route_localnet: Vec::new(),
        force_forward6: None,
        ipsec_policies: None,
        bridge_calls_iptables: None,
        bridge_calls_ip6tables: None,
        proxy_arp: Some(Vec::new()),
        arp_ignore: None,
        reverse_path: Some(vec![on("up0"), on("up1")]),
    });
    node
}

fn route(destination: &str, prefix: u8, ifindex: u32) -> Route {
    let destination = destination.parse().unwrap();
    Route { netns: HOST, destination, prefix, gateway: None, ifindex: Some(ifindex) }
}

/// What is said of other machines at each address.
fn outside(node: &TestNode) -> Vec<(String, Option<bool>, Vec<ConditionCode>)> {
    let answer = node.ask("80");
    let of = answer.reach.iter().filter(|r| r.from == Vantage::Outside);
    of.map(|r| {
        let codes = r.conditions.iter().map(|c| c.code).collect();
        (r.address.unwrap().ip().to_string(), r.reachable, codes)
    })
    .collect()
}

#[test]
fn of_a_sender_that_is_not_known_the_way_back_is_a_condition() {
    use ConditionCode::{Client, OtherClient};
    let (first, second) = ("192.0.2.10".to_owned(), "198.51.100.1".to_owned());
    let strict = outside(&host(1));
    assert!(strict.contains(&(first.clone(), Some(true), vec![Client])), "{strict:?}");
    assert!(strict.contains(&(second.clone(), None, vec![OtherClient])), "{strict:?}");
    // A rule may send it back by any device.
    let mut node = host(1);
    node.policies.push(whereis_port_model::PolicyRule {
        netns: HOST,
        ipv6: false,
        priority: 100,
        inverted: false,
        from: Some(("10.0.0.0".parse().unwrap(), 8)),
        to: None,
        iif: None,
        uids: None,
        more: false,
        table: Some(100),
    });
    assert!(outside(&node).contains(&(first.clone(), None, vec![OtherClient])));
    let yes = [(first.clone(), Some(true), vec![]), (second, Some(true), vec![])];
    assert_eq!(outside(&host(2)), yes, "the default route leads back to all");
    let mut node = host(2);
    node.routes.remove(0);
    assert!(outside(&node).contains(&(first, None, vec![OtherClient])), "none does");
    let mut node = host(1);
    node.settings[0].reverse_path = None;
    assert_eq!(outside(&node), yes, "a recording that does not have it");
}

#[test]
fn of_a_sender_that_is_known_the_kernel_decides() {
    let node = |refused: bool| {
        let mut node = host(1).namespace(A, "web").address(A, "198.51.100.2").veth(HOST, A);
        node = node.route(A, "198.51.100.0", 24);
        node.links.iter_mut().find(|l| l.index == 3).unwrap().peer_netns = Some(A);
        node.links.iter_mut().find(|l| l.index == 3).unwrap().kind = LinkKind::Veth;
        let query = InputQuery {
            netns: HOST,
            to: "198.51.100.1".parse().unwrap(),
            from: "198.51.100.2".parse().unwrap(),
            iif: 3,
            mark: 0,
            flow: None,
        };
        if refused {
            node.inputs.insert(query, InputFound::SourceRefused);
        }
        let answer = node.ask("80");
        let there = |r: &&Reach| {
            r.from == Vantage::Containers && r.address.is_some_and(|a| a.ip() == query.to)
        };
        // Those behind the bridge use that address, too, and have other ways.
        let told = |r: &&Reach| there(r) && refused == (r.reachable == Some(false));
        let one = answer.reach.iter().find(told).unwrap();
        (one.reachable, one.why.cause.code(), one.why.to_string())
    };
    assert_eq!(node(false).0, Some(true));
    let (reachable, code, why) = node(true);
    assert_eq!((reachable, code), (Some(false), CauseCode::ReversePath), "{why}");
    assert!(why.contains("reverse path filter of up1 (rp_filter is 1)"), "{why}");
}

#[test]
fn a_local_route_takes_packets_to_an_address_that_no_interface_has() {
    let node = |table| {
        let mut node = host(0).tcp(HOST, "203.0.113.8:8080").held_by(11, HOST, "cdn");
        node.local_routes.push(whereis_port_model::LocalRoute {
            netns: HOST,
            destination: "203.0.113.0".parse().unwrap(),
            prefix: 24,
            table,
        });
        node.ask("8080")
    };
    let answer = node(255);
    let at = || Some("203.0.113.8:8080".to_owned());
    for from in [Vantage::Node, Vantage::Outside] {
        assert_eq!(reachable(&answer, from), [(Some(true), at())]);
    }
    let outside = answer.reach.iter().find(|r| r.from == Vantage::Outside).unwrap();
    assert_eq!(outside.why.cause.code(), CauseCode::LocalRoute);
    assert!(outside.why.to_string().ends_with("of those who route that here"), "{outside:?}");
    // Another table may be for packets with a mark alone.
    let answer = node(100);
    assert!(answer.reach.iter().all(|r| r.reachable != Some(true)), "{:?}", answer.reach);
}
