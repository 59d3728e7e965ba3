//! Sockets without any rule in the way.

use std::net::{IpAddr, Ipv6Addr};

use lab::Test;

use crate::node::{LOOPBACK, Node, case, with_each};

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
