//! Rules as real engines wrote them, with the addresses of a lab, and fixes for what they do
//! not let through.

use std::net::Ipv6Addr;

use anyhow::{Result, ensure};
use lab::{Backend, Test};

use crate::node::{LOOPBACK, Node, case};

/// A node with a pod `web`, which stands for Docker's container, and a second one.
fn node() -> Result<Node> {
    let mut node = Node::new()?;
    let pod = node.add_pod()?;
    node.serve(&pod, "web", "tcp 0.0.0.0:80 tcp 0.0.0.0:81 tcp 0.0.0.0:82")?;
    node.add_pod()?;
    Ok(node)
}

/// The rules with the addresses and devices of a node in place of those of the recording.
fn of(node: &Node, rules: &str) -> String {
    let number = node.number();
    rules
        .replace("docker0", "br0")
        .replace("172.17.0.0/16", &format!("10.{number}.1.0/24"))
        .replace("172.17.0.2", &node.pod_ip(0).to_string())
        .replace("172.17.0.3", &node.pod_ip(1).to_string())
        .replace("192.168.77.5", &node.ip().to_string())
}

/// The ports of Docker 29, without its proxies: what they do is done by nobody here.
fn docker_29(node: &Node) -> Test {
    let (ip, pod) = (node.ip(), node.pod_ip(0));
    node.check(
        "18080",
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("loopback", Ipv6Addr::LOCALHOST, &["refused"]),
            case("node", ip, &["web"]),
            case("outside", ip, &["web"]),
            case("containers", node.gateway(), &["refused"]),
        ],
    )?;
    node.check(
        "18081",
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", ip, &["refused"]),
            case("outside", ip, &["refused"]),
        ],
    )?;
    node.check(
        "18082",
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", ip, &["web"]),
            case("node", node.gateway(), &["refused"]),
            case("outside", ip, &["web"]),
        ],
    )?;
    // From outside the container's own address is dropped before anything else.
    node.check("80", &[case("node", pod, &["web"]), case("outside", pod, &["timeout"])])
}

#[test]
fn what_docker_29_writes_with_nftables() -> Test {
    lab::rules_or_skip!();
    let node = node()?;
    let rules = include_str!("../data/engine-rules/docker-29-nft.txt");
    node.lab.nft(node.host(), &of(&node, rules))?;
    docker_29(&node)
}

#[test]
fn what_docker_29_writes_with_iptables() -> Test {
    lab::rules_or_skip!();
    let node = node()?;
    let rules = include_str!("../data/engine-rules/docker-29-iptables.txt");
    node.lab.iptables(node.host(), Backend::Nft, &of(&node, rules))?;
    docker_29(&node)
}

#[test]
fn letting_loopback_out_is_proposed_only_where_it_helps() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let pod = node.serve_in_pod("web", inner)?;
    let dnat = format!(
        "table ip of_loopback {{ chain output {{
           type nat hook output priority -100; policy accept;
           ip daddr 127.0.0.1 tcp dport {port} dnat to {pod}:{inner}\n}}\n}}"
    );
    node.lab.nft(node.host(), &dnat)?;
    let question = format!("127.0.0.1:{port}/tcp");
    let text = || -> Result<String> {
        Ok(node.lab.tool().args(&["--color", "never", &question]).run()?.stdout)
    };
    node.check(&question, &[case("loopback", LOOPBACK, &["timeout"])])?;
    let said = text()?;
    ensure!(!said.contains("route_localnet=1"), "{said}");
    ensure!(said.contains("no rule masquerades it"), "{said}");
    // With a rule that gives it another source the setting is what is missing.
    let masquerade = "table ip of_loopback { chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 127.0.0.1 oifname \"br0\" masquerade\n}\n}";
    node.lab.nft(node.host(), masquerade)?;
    let said = text()?;
    ensure!(said.contains("sysctl -w net/ipv4/conf/br0/route_localnet=1"), "{said}");
    node.host().sysctl("ipv4/conf/br0/route_localnet", "1")?;
    node.check(&question, &[case("loopback", LOOPBACK, &["web"])])
}
