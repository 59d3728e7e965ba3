//! Addresses that nobody on a link has, and those that somebody answers for all the same.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use lab::{Netns, Run, Test};
use serde_json::Value;

use crate::paths::calico::agrees;
use crate::paths::in_the_way::said;
use crate::paths::node::{LOOPBACK, Node, case};

/// A node with a pod, and a port that leads to an address on the bridge that nobody has.
struct Gone {
    node: Node,
    pod: Netns,
    port: u16,
    inner: u16,
    to: Ipv4Addr,
}

impl Gone {
    fn new() -> Result<Self> {
        let mut node = Node::new()?;
        let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
        let pod = node.add_pod()?;
        node.serve(&pod, "web", &format!("tcp 0.0.0.0:{inner}"))?;
        let to = Ipv4Addr::new(10, node.number(), 1, 200);
        let rules = format!(
            "table ip nat {{ chain pre {{ type nat hook prerouting priority -100; \
               tcp dport {port} dnat to {to}:{inner}; }}\n }}"
        );
        node.lab.nft(node.host(), &rules)?;
        Ok(Self { node, pod, port, inner, to })
    }

    /// What is said of other machines that connect to the host.
    fn said(&self) -> Result<Value> {
        let to = (IpAddr::from(self.node.ip()), self.port).into();
        let mut run = self.node.lab.whereis(&[&self.port.to_string()])?;
        // A namespace of another test that goes meanwhile might be joined to the bridge.
        let is_gone = |run: &Run| {
            let is_of =
                |gap: &Value| gap["code"] == "network_namespaces" && gap["impact"] == "reach";
            run.gaps().iter().any(|gap| is_of(gap))
        };
        for _ in 0..20 {
            if !is_gone(&run) {
                break;
            }
            run = self.node.lab.whereis(&[&self.port.to_string()])?;
        }
        said(&run, "outside", to)
    }

    fn is_unknown(&self) -> Test {
        let entry = self.said()?;
        ensure!(entry["reachable"].is_null(), "{entry}");
        Ok(())
    }
}

#[test]
fn an_address_that_no_port_of_the_bridge_leads_to_is_nobodys() -> Test {
    lab::rules_or_skip!();
    let gone = Gone::new()?;
    // The kernel asks for three seconds before it gives up.
    gone.node.check(&gone.port.to_string(), &[case("outside", gone.node.ip(), &["timeout"])])?;
    let entry = gone.said()?;
    ensure!(entry["reachable"] == false && entry["code"] == "no_neighbour", "{entry}");
    let why = entry["why"].as_str().unwrap_or_default();
    ensure!(why.contains(&format!("nobody on br0 has {}", gone.to)), "{why}");
    Ok(())
}

#[test]
fn one_of_two_backends_that_is_gone_takes_half_of_the_connections_with_it() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let alive = node.serve_in_pod("web", inner)?;
    let gone = Ipv4Addr::new(10, node.number(), 1, 200);
    let rules = format!(
        "table ip nat {{ chain pre {{ type nat hook prerouting priority -100; \
           tcp dport {port} dnat to numgen inc mod 2 map {{ 0 : {alive}, 1 : {gone} }} : {inner}; \
         }}\n }}"
    );
    node.lab.nft(node.host(), &rules)?;
    node.check(&port.to_string(), &[case("outside", node.ip(), &["web", "timeout"])])?;
    let run = node.lab.whereis(&[&port.to_string()])?;
    let entry = said(&run, "outside", (IpAddr::from(node.ip()), port).into())?;
    let why = entry["why"].as_str().unwrap_or_default();
    ensure!(why.contains("50 % of connections fail: nobody on br0 has"), "{why}");
    Ok(())
}

#[test]
fn whoever_answers_for_the_address_gets_it() -> Test {
    lab::rules_or_skip!();
    let gone = Gone::new()?;
    let address = format!("{}/32", gone.to);
    gone.pod.ip(&["route", "add", "local", &address, "dev", "lo"])?;
    gone.node.check(&gone.port.to_string(), &[case("outside", gone.node.ip(), &["web"])])
}

#[test]
fn where_not_all_of_the_link_is_seen_nobody_is_not_said() -> Test {
    lab::rules_or_skip!();
    let gone = Gone::new()?;
    let host = gone.node.host();
    ensure!(gone.said()?["reachable"] == false);
    // Somebody else may be behind a TAP device.
    host.ip(&["tuntap", "add", "dev", "tap0", "mode", "tap"])?;
    host.ip(&["link", "set", "tap0", "master", "br0", "up"])?;
    gone.is_unknown()?;
    host.ip(&["link", "del", "tap0"])?;
    ensure!(gone.said()?["reachable"] == false);
    // A macvlan on the bridge is one more member.
    let upper = gone.node.lab.netns("upper")?;
    let macvlan = ["link", "add", "link", "br0", "name", "mv", "netns", &upper.name];
    host.ip(&[&macvlan[..], &["type", "macvlan", "mode", "bridge"]].concat())?;
    ensure!(gone.said()?["reachable"] == false);
    upper.ip(&["link", "set", "mv", "up"])?;
    gone.is_unknown()?;
    upper.ip(&["link", "del", "mv"])?;
    ensure!(gone.said()?["reachable"] == false);
    // One who leads there may answer for it, and only who forwards does.
    gone.pod.sysctl("ipv4/conf/eth0/proxy_arp", "1")?;
    gone.pod.sysctl("ipv4/ip_forward", "0")?;
    ensure!(gone.said()?["reachable"] == false);
    gone.pod.sysctl("ipv4/ip_forward", "1")?;
    gone.is_unknown()?;
    gone.pod.sysctl("ipv4/conf/eth0/proxy_arp", "0")?;
    ensure!(gone.said()?["reachable"] == false);
    // A program may answer for a device without an address.
    let flush = ["address", "flush", "dev", "eth0"];
    gone.pod.ip(&flush)?;
    gone.is_unknown()?;
    // Somebody has answered.
    gone.pod.address("eth0", &format!("{}/24", gone.node.pod_ip(0)))?;
    ensure!(gone.said()?["reachable"] == false);
    let to = gone.to.to_string();
    let stranger = ["lladdr", "02:00:00:00:00:01", "dev", "br0"];
    let replace = [&["neigh", "replace", &to], &stranger[..]].concat();
    host.ip(&[&replace[..], &["nud", "stale"]].concat())?;
    gone.is_unknown()?;
    // What is set leads to nobody who is there.
    host.ip(&[&replace[..], &["nud", "permanent"]].concat())?;
    let said = gone.said()?;
    ensure!(said["reachable"] == false && said["fix"].is_null(), "{said}");
    Ok(())
}

#[test]
fn that_nobody_answered_is_said_where_more_is_not_known() -> Test {
    lab::rules_or_skip!();
    let gone = Gone::new()?;
    let host = gone.node.host();
    host.ip(&["tuntap", "add", "dev", "tap0", "mode", "tap"])?;
    host.ip(&["link", "set", "tap0", "master", "br0", "up"])?;
    let landed = host.connect("tcp", (gone.to, gone.inner).into())?;
    ensure!(landed.server().is_none(), "THE LAB: {landed}");
    let why = gone.said()?["why"].as_str().map(str::to_owned).context("no reason")?;
    let told = format!("nobody answered for {} when it was last looked for", gone.to);
    ensure!(why.contains(&told), "{why}");
    Ok(())
}

#[test]
fn a_docker_proxy_without_its_container_is_left_over() -> Test {
    lab::root_or_skip!();
    if !lab::has("docker-proxy") {
        lab::skip("docker-proxy is not installed (package docker.io)");
        return Ok(());
    }
    let mut node = Node::new()?;
    node.add_pod()?;
    let port = lab::unused_port()?;
    let gone = Ipv4Addr::new(10, node.number(), 1, 200);
    let proxy = crate::paths::dnat::docker_proxy(&node, port, gone, 80)?;
    node.check(&port.to_string(), &[case("loopback", LOOPBACK, &["timeout"])])?;
    let run = node.lab.whereis(&[&port.to_string()])?;
    let entry = said(&run, "loopback", (IpAddr::from(LOOPBACK), port).into())?;
    ensure!(entry["reachable"] == false && entry["code"] == "no_neighbour", "{entry}");
    let command = entry["fix"]["command"].as_array().context("no command")?;
    let pid = proxy.pid.to_string();
    ensure!(command.iter().any(|word| *word == pid.as_str()), "{entry}");
    // Its container is there again.
    node.serve_in_pod("web", 80)?;
    let pod = format!("{}-pod1", node.lab.name());
    let there = format!("{gone}/24");
    let status = std::process::Command::new("ip")
        .args(["-n", &pod, "address", "add", &there, "dev", "eth0"])
        .status()?;
    ensure!(status.success());
    let host = node.host().clone();
    host.ip(&["neigh", "flush", "all"])?;
    node.check(&port.to_string(), &[case("loopback", LOOPBACK, &["web"])])
}

/// What is set decides where packets go, whoever has the address; and who neither asks nor answers
/// finds nobody and is found by nobody.
#[test]
fn packets_go_to_the_hardware_address_that_is_set() -> Test {
    lab::root_or_skip!();
    let mut node = Node::with_pair()?;
    let port = lab::unused_port()?;
    let client = node.add_pod()?;
    let server = node.serve_in_pod("web", port)?;
    node.serve_here("host", &format!("tcp 0.0.0.0:{port}"))?;
    let (host, outside) = (node.host().clone(), node.outside.clone());
    let (pod, gateway) = (node.pods[1].clone(), node.gateway().to_string());
    let hardware = |n: usize| format!("02:00:00:00:00:{n:02x}");
    let all = [&host, &outside, &client, &pod];
    for (n, netns) in all.iter().enumerate() {
        netns.ip(&["link", "set", "eth0", "address", &hardware(n)])?;
    }
    let set = |netns: &Netns, address: &str, device: &str, to: &str| {
        netns.ip(&["neigh", "replace", address, "lladdr", to, "dev", device, "nud", "permanent"])
    };
    let forget = |netns: &Netns, address: &str, device: &str| {
        netns.ip(&["neigh", "del", address, "dev", device])
    };
    let (nobodys, to) = ("02:00:00:00:00:99", server.to_string());
    let open = |sender: &Netns, is_open| agrees(&node, sender, (server, port).into(), is_open);
    for (sender, device) in [(&host, "br0"), (&client, "eth0")] {
        open(sender, true)?;
        set(sender, &to, device, nobodys)?;
        open(sender, false)?;
        // It is that of somebody else on the link, who is no router to there.
        let other = if sender.inode == host.inode { 2 } else { 0 };
        set(sender, &to, device, &hardware(other))?;
        open(sender, false)?;
        set(sender, &to, device, &hardware(3))?;
        open(sender, true)?;
        forget(sender, &to, device)?;
        open(sender, true)?;
    }
    // The way back, and the gateway.
    let back = node.pod_ip(0).to_string();
    set(&pod, &back, "eth0", nobodys)?;
    open(&client, false)?;
    forget(&pod, &back, "eth0")?;
    set(&client, &gateway, "eth0", nobodys)?;
    agrees(&node, &client, (node.ip(), port).into(), false)?;
    forget(&client, &gateway, "eth0")?;
    agrees(&node, &client, (node.ip(), port).into(), true)?;
    // A pair: who sends, and who takes.
    let (ip, outside_ip) = (node.ip().to_string(), node.outside_ip().to_string());
    agrees(&node, &outside, (node.ip(), port).into(), true)?;
    set(&outside, &ip, "eth0", nobodys)?;
    agrees(&node, &outside, (node.ip(), port).into(), false)?;
    forget(&outside, &ip, "eth0")?;
    // Who does not ask sends to itself, and who does not answer is not found: both have to be told.
    for netns in [&host, &outside] {
        netns.ip(&["link", "set", "eth0", "arp", "off"])?;
        for one in [&host, &outside] {
            one.ip(&["neigh", "flush", "all"])?;
        }
        agrees(&node, &outside, (node.ip(), port).into(), false)?;
        set(&outside, &ip, "eth0", &hardware(0))?;
        agrees(&node, &outside, (node.ip(), port).into(), false)?;
        set(&host, &outside_ip, "eth0", &hardware(1))?;
        agrees(&node, &outside, (node.ip(), port).into(), true)?;
        forget(&outside, &ip, "eth0")?;
        agrees(&node, &outside, (node.ip(), port).into(), false)?;
        forget(&host, &outside_ip, "eth0")?;
        netns.ip(&["link", "set", "eth0", "arp", "on"])?;
        agrees(&node, &outside, (node.ip(), port).into(), true)?;
    }
    Ok(())
}
