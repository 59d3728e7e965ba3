//! Rules as real engines wrote them, with the addresses of a lab, and fixes for what they do
//! not let through.

use std::net::Ipv6Addr;

use anyhow::{Result, ensure};
use lab::{Backend, Test};

use crate::paths::node::{LOOPBACK, Node, case};

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

#[test]
fn what_crio_writes_with_nftables() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let first = node.add_pod()?;
    node.serve(&first, "web", "tcp 0.0.0.0:80 tcp 0.0.0.0:81 tcp 0.0.0.0:82 udp 0.0.0.0:53")?;
    node.add_pod()?;
    let (ip, gateway, pod) = (node.ip(), node.gateway(), node.pod_ip(0));
    let rules = include_str!("../data/engine-rules/crio-nft.txt");
    // The maps were empty when they were recorded; these are the forms of their elements.
    let elements = format!(
        "add element ip crio-hostports hostports {{
            tcp . 30180 : {pod} . 80, udp . 30153 : {pod} . 53
         }}
         add element ip crio-hostports hostipports {{
            {ip} . tcp . 30181 : {pod} . 81, 127.0.0.1 . tcp . 30182 : {pod} . 82
         }}
         add element ip crio-hostports hairpins {{ {pod} . {pod} }}"
    );
    node.lab.nft(node.host(), &format!("{rules}\n{elements}"))?;
    // Loopback is translated as well, and goes out with an address that nobody takes.
    node.check(
        "30180",
        &[
            case("loopback", LOOPBACK, &["timeout"]),
            case("node", ip, &["web"]),
            case("node", gateway, &["web"]),
            case("outside", ip, &["web"]),
            case("containers", gateway, &["web"]),
        ],
    )?;
    node.check(
        "30181",
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", ip, &["web"]),
            case("node", gateway, &["refused"]),
            case("outside", ip, &["web"]),
            case("containers", ip, &["web"]),
            case("containers", gateway, &["refused"]),
        ],
    )?;
    node.check(
        "30182",
        &[case("loopback", LOOPBACK, &["timeout"]), case("outside", ip, &["refused"])],
    )?;
    node.check("30153/udp", &[case("node", ip, &["web"]), case("outside", ip, &["web"])])
}

/// Docker 29 without its proxies takes IPv6 but for link-local clients, who meet the socket that
/// only keeps the port.
#[test]
fn what_docker_29_writes_for_ipv6_beside_a_socket_that_keeps_the_port() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let pod = node.add_pod()?;
    let number = node.number();
    let at = |last: u8| format!("fd00:{number}:1::{last}");
    node.host().ip(&["addr", "add", &format!("{}/64", at(1)), "dev", "br0", "nodad"])?;
    node.host().sysctl("ipv6/conf/all/forwarding", "1")?;
    pod.ip(&["addr", "add", &format!("{}/64", at(2)), "dev", "eth0", "nodad"])?;
    pod.ip(&["-6", "route", "add", "default", "via", &at(1)])?;
    let back = format!("fd00:{number}:1::/64");
    node.outside.ip(&["-6", "route", "add", &back, "via", &format!("fd00:{number}::1")])?;
    node.serve(&pod, "web", "tcp [::]:80")?;
    node.serve_here("keeps", "tcp [::]:19130")?;
    let to = at(2);
    let rules = format!(
        r#"table ip6 docker-bridges {{
            map filter-forward-in-jumps {{
                type ifname : verdict
                elements = {{ "br0" : jump filter-forward-in__br0 }}
            }}
            map nat-postrouting-in-jumps {{
                type ifname : verdict
                elements = {{ "br0" : jump nat-postrouting-in__br0 }}
            }}
            chain filter-FORWARD {{
                type filter hook forward priority filter; policy accept;
                oifname vmap @filter-forward-in-jumps
            }}
            chain nat-OUTPUT {{
                type nat hook output priority -100; policy accept;
                fib daddr type local counter jump nat-prerouting-and-output
            }}
            chain nat-POSTROUTING {{
                type nat hook postrouting priority srcnat; policy accept;
                oifname vmap @nat-postrouting-in-jumps
            }}
            chain nat-PREROUTING {{
                type nat hook prerouting priority dstnat; policy accept;
                fib daddr type local counter jump nat-prerouting-and-output
            }}
            chain nat-prerouting-and-output {{
                ip6 saddr != fe80::/10 tcp dport 19130 counter dnat to [{to}]:80 comment "DNAT"
            }}
            chain raw-PREROUTING {{
                type filter hook prerouting priority raw; policy accept;
                ip6 daddr {to} iifname != "br0" counter drop comment "DROP DIRECT ACCESS"
            }}
            chain filter-forward-in__br0 {{
                ct state established,related counter accept
                iifname "br0" counter accept comment "ICC"
                ip6 daddr {to} tcp dport 80 accept
                counter drop comment "UNPUBLISHED PORT DROP"
            }}
            chain nat-postrouting-in__br0 {{
                fib saddr type local counter masquerade comment "MASQUERADE FROM HOST"
            }}
        }}"#
    );
    node.lab.nft(node.host(), &rules)?;
    // These rules are of IPv6 alone: the socket takes what comes to IPv4.
    node.check(
        "19130",
        &[
            case("node", node.ipv6(), &["web"]),
            case("outside", node.ipv6(), &["web"]),
            case("node", node.ip(), &["keeps"]),
            case("outside", node.ip(), &["keeps"]),
        ],
    )?;
    // From outside the container's own address is dropped before anything else.
    let direct: std::net::IpAddr = to.parse()?;
    node.check("80", &[case("node", direct, &["web"]), case("outside", direct, &["timeout"])])
}
