//! Sockets without any rule in the way.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, ensure};
use lab::{Backend, Landing, Test};

use crate::paths::node::{LOOPBACK, Node, case, with_each};

#[test]
fn a_server_on_every_address_is_reached_from_everywhere() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    node.add_pod()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["web"]),
            case("loopback", Ipv6Addr::LOCALHOST, &["refused"]),
            case("node", node.ip(), &["web"]),
            case("outside", node.ip(), &["web"]),
            case("outside", node.ipv6(), &["refused"]),
            case("containers", node.gateway(), &["web"]),
        ],
    )
}

#[test]
fn a_server_on_loopback_is_reached_from_this_host_only() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    node.add_pod()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp 127.0.0.1:{port}"))?;
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["web"]),
            case("node", node.ip(), &["refused"]),
            case("outside", node.ip(), &["refused"]),
            case("containers", node.gateway(), &["refused"]),
        ],
    )
}

#[test]
fn a_server_on_one_address_is_reached_there_only() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    node.add_pod()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp {}:{port}", node.ip()))?;
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", node.ip(), &["web"]),
            case("outside", node.ip(), &["web"]),
            case("containers", node.ip(), &["web"]),
        ],
    )
}

#[test]
fn a_server_on_both_families_is_reached_by_both() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp [::]:{port}"))?;
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["web"]),
            case("loopback", Ipv6Addr::LOCALHOST, &["web"]),
            case("node", node.ipv6(), &["web"]),
            case("outside", node.ip(), &["web"]),
            case("outside", node.ipv6(), &["web"]),
        ],
    )
}

#[test]
fn two_servers_on_one_port_are_told_apart_by_address() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    node.serve_here("inner", &format!("tcp 127.0.0.1:{port}"))?;
    node.serve_here("outer", &format!("tcp {}:{port}", node.ip()))?;
    node.serve_here("six", &format!("tcp [::]:{port} --v6only 1"))?;
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["inner"]),
            case("loopback", IpAddr::from(Ipv6Addr::LOCALHOST), &["six"]),
            case("node", node.ip(), &["outer"]),
            case("node", node.ipv6(), &["six"]),
            case("outside", node.ip(), &["outer"]),
            case("outside", node.ipv6(), &["six"]),
        ],
    )
}

#[test]
fn a_udp_server_answers_where_it_is_bound() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    node.serve_here("dns", &format!("udp {}:{port}", node.ip()))?;
    node.check(
        &format!("{port}/udp"),
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", node.ip(), &["dns"]),
            case("outside", node.ip(), &["dns"]),
        ],
    )
}

#[test]
fn a_port_that_the_firewall_drops_is_not_reached_from_outside() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let mut node = Node::new()?;
        let port = lab::unused_port()?;
        node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
        let rules = format!("*filter\n-A INPUT -i eth0 -p tcp --dport {port} -j DROP\nCOMMIT\n");
        node.lab.iptables(node.host(), backend, &rules)?;
        node.check(
            &port.to_string(),
            &[
                case("loopback", LOOPBACK, &["web"]),
                case("node", node.ip(), &["web"]),
                case("outside", node.ip(), &["timeout"]),
            ],
        )?;
        Ok(())
    })
}

#[test]
fn a_server_bound_to_a_device_is_reached_by_that_device_only() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    node.add_pod()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port} --device eth0"))?;
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["refused"]),
            // Though that goes over the loopback device.
            case("node", node.ip(), &["web"]),
            case("node", node.gateway(), &["refused"]),
            case("outside", node.ip(), &["web"]),
            case("containers", node.gateway(), &["refused"]),
        ],
    )
}

#[test]
fn a_port_of_a_container_that_nothing_publishes_is_exposed_by_a_route() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let ip = node.serve_in_pod("web", port)?;
    node.add_pod()?;
    let open = [
        case("loopback", LOOPBACK, &["refused"]),
        case("node", ip, &["web"]),
        case("outside", ip, &["web"]),
        case("outside", node.ip(), &["refused"]),
        case("containers", ip, &["web"]),
    ];
    node.check(&port.to_string(), &open)?;
    let run = node.lab.tool().netns(node.host()).args(&["--json", &port.to_string()]).run()?;
    let all = run.answer()?["reachable"].as_array().cloned().unwrap_or_default();
    let exposed = all.iter().find(|one| one["code"] == "exposed_by_route").context("exposed")?;
    ensure!(exposed["conditions"][0]["code"] == "route", "{exposed}");
    // The usual rule of an engine against that.
    let engines = format!("*raw\n-A PREROUTING -d {ip} ! -i br0 -j DROP\nCOMMIT\n");
    node.lab.iptables(node.host(), Backend::ALL[0], &engines)?;
    let shut = [
        case("node", ip, &["web"]),
        case("outside", ip, &["timeout"]),
        case("containers", ip, &["web"]),
    ];
    node.check(&port.to_string(), &shut)
}

/// A pair of devices leads to a network like any other: those behind a bridge use the address that
/// is on it, too, and are told apart from who is at the other end.
#[test]
fn who_is_behind_a_bridge_uses_the_address_of_a_pair() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    node.add_pod()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let side = node.lab.netns("side")?;
    let at = |last: u8| format!("10.{}.9.{last}", node.number());
    let to: IpAddr = at(1).parse()?;
    let host = node.host();
    let peer = ["type", "veth", "peer", "name", "pair1", "netns", &side.name];
    host.ip(&[&["link", "add", "pair0"][..], &peer].concat())?;
    for (netns, device, last) in [(host, "pair0", 1), (&side, "pair1", 2)] {
        netns.ip(&["addr", "add", &format!("{}/24", at(last)), "dev", device])?;
        netns.ip(&["link", "set", device, "up"])?;
    }
    node.lab.nft(
        host,
        &format!(
            "table inet side {{ chain in {{ type filter hook input priority 0; \
               iifname pair0 tcp dport {port} drop; }}\n }}"
        ),
    )?;
    ensure!(side.connect("tcp", (to, port).into())? == Landing::TimedOut);
    let pod = node.pods.first().context("no pod")?;
    ensure!(pod.connect("tcp", (to, port).into())? == Landing::At("web".to_owned()));
    let run = node.lab.whereis(&[&port.to_string()])?;
    let reach = run.answer()?["reachable"].as_array().context("no statement")?;
    let said = |reachable: bool| {
        let is_it = |r: &&serde_json::Value| {
            r["from"] == "containers"
                && r["reachable"] == reachable
                && r["address"].as_str().is_some_and(|address| address.starts_with(&at(1)))
        };
        reach.iter().find(is_it).map(|r| r["by"].to_string()).unwrap_or_default()
    };
    ensure!(said(true).contains("br0"), "{reach:?}");
    ensure!(said(false).contains("side"), "{reach:?}");
    Ok(())
}
