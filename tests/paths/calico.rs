//! Containers whose gateway is nobody's address: the host answers for it (`proxy_arp`), as with
//! Calico, or it is known by a hardware address that is set. And what else decides on such a way:
//! devices that do not forward, sockets that are bound to a device, and masquerading on loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lab::{Landing, Netns, Test};

use crate::paths::node::Node;

/// A node with a container that is joined by a pair and has no neighbour but the host.
struct Calico {
    node: Node,
    pod: Netns,
    ip: Ipv4Addr,
}

const GATEWAY: &str = "169.254.1.1";

impl Calico {
    fn new() -> Result<Self> {
        let node = Node::new()?;
        let pod = node.lab.netns("calico")?;
        let ip = Ipv4Addr::new(10, node.number(), 3, 2);
        let host = node.host();
        let peer = ["peer", "name", "eth0", "netns", &pod.name];
        host.ip(&[&["link", "add", "cali0", "type", "veth"], &peer[..]].concat())?;
        host.ip(&["link", "set", "cali0", "up"])?;
        host.ip(&["route", "add", &ip.to_string(), "dev", "cali0", "scope", "link"])?;
        host.sysctl("ipv4/conf/cali0/proxy_arp", "1")?;
        host.sysctl("ipv4/neigh/cali0/proxy_delay", "0")?;
        pod.ip(&["address", "add", &format!("{ip}/32"), "dev", "eth0"])?;
        pod.ip(&["link", "set", "eth0", "up"])?;
        pod.ip(&["route", "add", GATEWAY, "dev", "eth0", "scope", "link"])?;
        pod.ip(&["route", "add", "default", "via", GATEWAY])?;
        Ok(Self { node, pod, ip })
    }

    /// Whether the container gets through to an address, and that the tool says so.
    fn gets_to(&self, ip: Ipv4Addr, port: u16, is_open: bool) -> Test {
        agrees(&self.node, &self.pod, (ip, port).into(), is_open)
    }
}

/// Whether a sender gets through is what is expected, and what the tool says.
pub(super) fn agrees(node: &Node, sender: &Netns, to: SocketAddr, is_open: bool) -> Test {
    let mut landed = sender.connect("tcp", to)?;
    // A neighbour that was asked for in vain just before is not asked for at once.
    for _ in 0..2 {
        if is_open && !matches!(landed, Landing::At(_)) {
            landed = sender.connect("tcp", to)?;
        }
    }
    ensure!(matches!(landed, Landing::At(_)) == is_open, "THE LAB: {to}: {landed}");
    let from = format!("netns:{}", sender.inode);
    let args = ["--json", "--from", &from, &format!("{to}/tcp")];
    let run = node.lab.tool().netns(node.host()).args(&args).run()?;
    ensure!(run.code == Some(i32::from(!is_open)), "{to}: exit {:?}: {}", run.code, run.stdout);
    Ok(())
}

#[test]
fn what_goes_to_a_proxied_gateway_passes_the_host_and_its_rules() -> Test {
    lab::root_or_skip!();
    let mut calico = Calico::new()?;
    let port = lab::unused_port()?;
    let other = calico.node.serve_in_pod("web", port)?;
    calico.node.serve_here("host", &format!("tcp 0.0.0.0:{port}"))?;
    calico.gets_to(other, port, true)?;
    calico.gets_to(calico.node.ip(), port, true)?;
    let rules = format!(
        "table ip cali {{ chain f {{ type filter hook forward priority 0;\n\
         iifname cali0 tcp dport {port} drop\n}}\n}}"
    );
    calico.node.lab.nft(calico.node.host(), &rules)?;
    calico.gets_to(other, port, false)?;
    calico.gets_to(calico.node.ip(), port, true)
}

#[test]
fn nobody_answers_for_a_gateway_where_the_host_does_not_forward() -> Test {
    lab::root_or_skip!();
    let mut calico = Calico::new()?;
    let port = lab::unused_port()?;
    calico.node.serve_here("host", &format!("tcp 0.0.0.0:{port}"))?;
    calico.node.host().sysctl("ipv4/ip_forward", "0")?;
    calico.gets_to(calico.node.ip(), port, false)
}

#[test]
fn a_gateway_that_is_set_by_its_hardware_address_is_the_other_end() -> Test {
    lab::root_or_skip!();
    let mut calico = Calico::new()?;
    let port = lab::unused_port()?;
    let other = calico.node.serve_in_pod("web", port)?;
    calico.node.host().sysctl("ipv4/conf/cali0/proxy_arp", "0")?;
    // It may be a program that answers, on a pair whose other end has no address.
    let from = format!("netns:{}", calico.pod.inode);
    let args = ["--json", "--from", &from, &format!("{other}:{port}/tcp")];
    let run = calico.node.lab.tool().netns(calico.node.host()).args(&args).run()?;
    ensure!(run.code == Some(3), "exit {:?}: {}", run.code, run.stdout);
    let read = calico.node.lab.command(calico.node.host(), &["ip", "-j", "link", "show", "cali0"]);
    let shown = String::from_utf8(read?.output()?.stdout)?;
    let shown: serde_json::Value = serde_json::from_str(&shown).context("ip -j")?;
    let address = shown[0]["address"].as_str().context("no hardware address")?;
    let neighbour = ["neigh", "replace", GATEWAY, "lladdr", address, "dev", "eth0"];
    calico.pod.ip(&[&neighbour[..], &["nud", "permanent"]].concat())?;
    calico.gets_to(other, port, true)
}

#[test]
fn a_device_that_does_not_forward_stops_what_comes_in_by_it() -> Test {
    lab::root_or_skip!();
    let mut calico = Calico::new()?;
    let port = lab::unused_port()?;
    let other = calico.node.serve_in_pod("web", port)?;
    let ip = calico.ip;
    calico.node.serve(&calico.pod.clone(), "calico", &format!("tcp {ip}:{port}"))?;
    let pod = calico.node.pods[0].clone();
    agrees(&calico.node, &pod, (ip, port).into(), true)?;
    calico.node.host().sysctl("ipv4/conf/br0/forwarding", "0")?;
    agrees(&calico.node, &pod, (ip, port).into(), false)?;
    // Its answer comes in by the bridge, too.
    calico.gets_to(other, port, false)
}

#[test]
fn an_answer_to_a_neighbour_that_nobody_is_gets_nowhere() -> Test {
    lab::root_or_skip!();
    let mut calico = Calico::new()?;
    let port = lab::unused_port()?;
    let other = calico.node.serve_in_pod("web", port)?;
    calico.gets_to(other, port, true)?;
    // As if the client were on the bridge.
    calico.node.pods[0].ip(&["route", "add", &calico.ip.to_string(), "dev", "eth0"])?;
    calico.gets_to(other, port, false)
}

#[test]
fn the_answer_of_a_socket_that_is_bound_to_a_device_needs_no_route() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let (bound, free) = (lab::unused_port()?, lab::unused_port()?);
    let pod = node.add_pod()?;
    node.serve(&pod, "bound", &format!("tcp 0.0.0.0:{bound} --device eth0"))?;
    node.serve(&pod, "free", &format!("tcp 0.0.0.0:{free}"))?;
    let network = format!("10.{}.1.0/24", node.number());
    pod.ip(&["rule", "add", "priority", "90", "to", &network, "blackhole"])?;
    let ip: IpAddr = node.pod_ip(0).into();
    agrees(&node, node.host(), (ip, bound).into(), true)?;
    agrees(&node, node.host(), (ip, free).into(), false)
}

#[test]
fn filters_see_the_source_that_masquerading_gives_on_loopback() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let n = node.number();
    let rules = format!(
        "table ip t {{\n\
         chain post {{ type nat hook postrouting priority 100;\n\
         ip saddr 10.{n}.1.0/24 oifname != br0 snat to 10.{n}.0.1\n}}\n\
         chain in {{ type filter hook input priority 0;\n\
         ip saddr != 10.{n}.1.0/24 tcp dport {port} drop\n}}\n}}"
    );
    agrees(&node, node.host(), (node.gateway(), port).into(), true)?;
    node.lab.nft(node.host(), &rules)?;
    agrees(&node, node.host(), (node.gateway(), port).into(), false)
}

/// `fib … exists` and `missing`, over loopback and where the way back is another.
#[test]
fn rules_that_ask_for_a_way_back_are_decided() -> Test {
    lab::root_or_skip!();
    for (rule, of_host) in [
        ("fib saddr . iif oif exists", false),
        ("fib saddr . iif oif missing", true),
        ("fib saddr oif exists", false),
    ] {
        let mut node = Node::new()?;
        let port = lab::unused_port()?;
        node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
        let pod = node.add_pod()?;
        let ip: IpAddr = node.ip().into();
        // The host has a way to it by another device.
        let far = format!("10.{}.0.77", node.number());
        pod.address("eth0", &format!("{far}/32"))?;
        let gateway = node.gateway().to_string();
        pod.ip(&["route", "replace", "default", "via", &gateway, "src", &far])?;
        let text = format!(
            "table inet t {{ chain in {{ type filter hook input priority 0;\n\
             {rule} tcp dport {port} drop\n}}\n}}"
        );
        node.lab.nft(node.host(), &text)?;
        agrees(&node, node.host(), (ip, port).into(), of_host).context(rule)?;
        // What gets in has no answer all the same: that leaves by the other device.
        let landed = pod.connect("tcp", (ip, port).into())?;
        ensure!(!matches!(landed, Landing::At(_)), "THE LAB: {rule}: {landed}");
        let from = format!("netns:{}", pod.inode);
        let args = ["--json", "--from", &from, &format!("{ip}:{port}/tcp")];
        let run = node.lab.tool().netns(node.host()).args(&args).run()?;
        ensure!(run.code != Some(0), "{rule}: {}", run.stdout);
    }
    Ok(())
}

#[test]
fn what_only_another_table_makes_local_is_answered_by_nobody() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let pod = node.add_pod()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let n = node.number();
    let (network, address) = (format!("10.{n}.77.0/24"), Ipv4Addr::new(10, n, 77, 7));
    let host = node.host().clone();
    host.ip(&["route", "add", "local", "default", "dev", "lo", "table", "100"])?;
    host.ip(&["rule", "add", "priority", "90", "to", &network, "lookup", "100"])?;
    for sender in [&pod, &host] {
        agrees(&node, sender, (address, port).into(), false)?;
    }
    host.ip(&["route", "add", "local", &network, "dev", "lo"])?;
    for sender in [&pod, &host] {
        agrees(&node, sender, (address, port).into(), true)?;
    }
    Ok(())
}

#[test]
fn a_reverse_path_filter_drops_the_question_for_an_address_as_well() -> Test {
    lab::root_or_skip!();
    let mut calico = Calico::new()?;
    let port = lab::unused_port()?;
    let other = calico.node.serve_in_pod("web", port)?;
    let host = calico.node.host().clone();
    let pod = calico.node.lab.netns("near")?;
    let n = calico.node.number();
    let (here, there) = (format!("10.{n}.5.1"), format!("10.{n}.5.2"));
    let side = |ip: &str| format!("{ip}/24");
    calico.node.lab.veth((&host, "near0", &side(&here)), (&pod, "eth0", &side(&there)))?;
    pod.ip(&["route", "add", "default", "via", &here])?;
    host.sysctl("ipv4/conf/near0/rp_filter", "2")?;
    agrees(&calico.node, &pod, (other, port).into(), true)?;
    // Only answers from this address take it, and that of ARP is one.
    pod.ip(&["neigh", "flush", "all"])?;
    host.ip(&["route", "add", "unreachable", "default", "table", "100"])?;
    host.ip(&["rule", "add", "priority", "90", "from", &here, "lookup", "100"])?;
    agrees(&calico.node, &pod, (other, port).into(), false)
}
