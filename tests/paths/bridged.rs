//! What goes between two ports of a bridge, where the rules of its namespace see that
//! (br_netfilter): the packets after the first, and IPv6, which has a setting of its own. And
//! rules that ask which of the containers on a bridge connects.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lab::Test;
use serde_json::Value;

use super::calico::agrees;
use crate::paths::node::Node;

#[test]
fn a_filter_of_what_follows_the_answer_sees_what_is_bridged() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let client = node.add_pod()?;
    let server = node.serve_in_pod("web", port)?;
    let host = node.host().clone();
    let filters = |on: &str| host.sysctl("bridge/bridge-nf-call-iptables", on);
    if filters("0").is_err() {
        lab::skip_on_this_kernel("no br_netfilter");
        return Ok(());
    }
    let rules = format!(
        "table inet f {{ chain f {{ type filter hook forward priority 0;\n\
         ct state established tcp dport {port} drop\n}}\n}}"
    );
    node.lab.nft(&host, &rules)?;
    agrees(&node, &client, (server, port).into(), true)?;
    filters("1")?;
    agrees(&node, &client, (server, port).into(), false)
}

#[test]
fn an_answer_of_ipv6_goes_past_who_translated_unless_that_is_set() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let (client, server) = (node.add_pod()?, node.add_pod()?);
    let host = node.host().clone();
    let network = u16::from(node.number());
    let address = |last| Ipv6Addr::new(0xfd00, network, 1, 0, 0, 0, 0, last);
    for (netns, device, last) in [(&host, "br0", 1), (&client, "eth0", 2), (&server, "eth0", 3)] {
        let own = format!("{}/64", address(last));
        netns.ip(&["address", "add", &own, "dev", device, "nodad"])?;
    }
    client.ip(&["route", "add", "default", "via", &address(1).to_string()])?;
    host.sysctl("ipv6/conf/all/forwarding", "1")?;
    let filters = |on: &str| host.sysctl("bridge/bridge-nf-call-ip6tables", on);
    if filters("0").is_err() {
        lab::skip_on_this_kernel("no br_netfilter");
        return Ok(());
    }
    node.serve(&server, "web", &format!("tcp [::]:{port}"))?;
    let service = Ipv6Addr::new(0xfd00, network, 9, 0, 0, 0, 0, 1);
    let rules = format!(
        "table ip6 s {{ chain pre {{ type nat hook prerouting priority -100;\n\
         ip6 daddr {service} tcp dport {port} dnat to [{}]:{port}\n}}\n}}",
        address(3)
    );
    node.lab.nft(&host, &rules)?;
    let to = SocketAddr::new(IpAddr::V6(service), port);
    agrees(&node, &client, to, false)?;
    filters("1")?;
    agrees(&node, &client, to, true)
}

#[test]
fn a_rule_that_asks_which_container_connects_makes_no_plain_no() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let pods = [node.add_pod()?, node.add_pod()?, node.add_pod()?];
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let (host, gateway) = (node.host().clone(), node.gateway());
    let set = |verdict: &str, let_in: usize| -> Test {
        node.lab.nft(&host, "flush ruleset")?;
        let rules = format!(
            "table ip f {{ chain i {{ type filter hook input priority 0;\n\
             iifname br0 tcp dport {port} ip saddr {verdict} {} drop\n}}\n}}",
            node.pod_ip(u8::try_from(let_in)?)
        );
        node.lab.nft(&host, &rules)
    };
    let of_containers = || -> Result<Value> {
        let run = node.lab.whereis(&[&format!("{gateway}:{port}/tcp")])?;
        let all = run.answer()?["reachable"].as_array().context("no reach")?.clone();
        let entry = all.into_iter().find(|entry| entry["from"] == "containers");
        entry.context("nothing is said of containers")
    };
    for chosen in 0..pods.len() {
        set("!=", chosen)?;
        for (n, pod) in pods.iter().enumerate() {
            agrees(&node, pod, (gateway, port).into(), n == chosen)?;
        }
        let said = of_containers()?;
        ensure!(said["reachable"].is_null(), "{chosen}: {said}");
        ensure!(said["why"].as_str().is_some_and(|why| why.contains("the client's address")));
        set("==", chosen)?;
        for (n, pod) in pods.iter().enumerate() {
            agrees(&node, pod, (gateway, port).into(), n != chosen)?;
        }
        let said = of_containers()?;
        ensure!(said["reachable"] != false, "{chosen}: {said}");
        let why = said["why"].as_str().unwrap_or_default();
        ensure!(why.contains(&node.pod_ip(u8::try_from(chosen)?).to_string()), "{said}");
    }
    Ok(())
}
