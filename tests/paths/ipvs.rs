//! Virtual servers of IPVS, as kube-proxy's IPVS mode and keepalived make them.

use std::time::{Duration, Instant};

use anyhow::ensure;
use lab::{Netns, Test};

use crate::paths::node::{LOOPBACK, Node, case};

/// Leaves the test, saying so, where there is no IPVS.
macro_rules! ipvs_or_skip {
    () => {
        lab::root_or_skip!();
        if !lab::has("ipvsadm") {
            lab::skip("ipvsadm is not installed");
            return Ok(());
        }
        let probe = lab::Lab::new()?;
        if let Err(error) = ipvsadm(&probe, probe.host(), "-A -t 127.0.0.1:1 -s rr\n") {
            lab::skip_on_this_kernel(&format!("this kernel has no IPVS: {error:#}"));
            return Ok(());
        }
    };
}

fn ipvsadm(lab: &lab::Lab, netns: &Netns, rules: &str) -> Test {
    for line in rules.lines() {
        let argv: Vec<&str> = ["ipvsadm"].into_iter().chain(line.split_whitespace()).collect();
        lab.talk(lab.command(netns, &argv)?, "")?;
    }
    Ok(())
}

impl Node {
    fn ipvs(&self, rules: &str) -> Test {
        ipvsadm(&self.lab, self.host(), rules)
    }
}

/// A node with two pods that serve on port 8080, and a port that nobody uses.
fn two_pods() -> anyhow::Result<(Node, u16)> {
    let mut node = Node::new()?;
    node.serve_in_pod("a", 8080)?;
    node.serve_in_pod("b", 8080)?;
    Ok((node, lab::unused_port()?))
}

#[test]
fn a_tcp_service_leads_to_each_of_its_servers() -> Test {
    ipvs_or_skip!();
    let (node, port) = two_pods()?;
    let (ip, a, b) = (node.ip(), node.pod_ip(0), node.pod_ip(1));
    node.ipvs(&format!(
        "-A -t {ip}:{port} -s rr\n\
         -a -t {ip}:{port} -r {a}:8080 -m -w 1\n\
         -a -t {ip}:{port} -r {b}:8080 -m -w 5\n"
    ))?;
    let cases = [
        case("loopback", LOOPBACK, &["refused"]),
        case("node", ip, &["a", "b"]),
        case("outside", ip, &["a", "b"]),
    ];
    node.check(&port.to_string(), &cases)?;

    let run = node.lab.tool().netns(node.host()).args(&["--json", &port.to_string()]).run()?;
    let paths = run.paths()?;
    for server in [a, b] {
        let steps = [
            format!("service {ip}:{port}/tcp"),
            format!("dnat {server}:8080/tcp"),
            "listener 0.0.0.0:8080/tcp".to_owned(),
        ];
        let same = |path: &&lab::View<'_>| {
            let found = path.steps();
            found.len() == 3 && found[1..] == steps[1..] && found[0].starts_with("service ")
        };
        let path = paths.iter().find(same);
        ensure!(path.is_some(), "no path {steps:?} in {}", run.stdout);
        // Whatever the weights: this scheduler takes one after the other.
        let half = path.is_some_and(|path| path.0["hops"][1].to_string().contains("50 %"));
        ensure!(half, "not half of all: {}", run.stdout);
    }

    // A user without rights reads the same from a table.
    let plain = node.lab.tool().netns(node.host()).uid(65534);
    let run = plain.args(&["--json", &port.to_string()]).run()?;
    let steps: Vec<_> = run.paths()?.iter().flat_map(|path| path.steps()).collect();
    let dnat = format!("dnat {a}:8080/tcp");
    ensure!(steps.contains(&dnat), "{}", run.stdout);
    ensure!(run.stdout.contains("/proc/net/ip_vs"), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_udp_service_leads_to_each_of_its_servers() -> Test {
    ipvs_or_skip!();
    let mut node = Node::new()?;
    for name in ["a", "b"] {
        let pod = node.add_pod()?;
        node.serve(&pod, name, "udp 0.0.0.0:5353")?;
    }
    let port = lab::unused_port()?;
    let (ip, a, b) = (node.ip(), node.pod_ip(0), node.pod_ip(1));
    node.ipvs(&format!(
        "-A -u {ip}:{port} -s rr\n\
         -a -u {ip}:{port} -r {a}:5353 -m\n\
         -a -u {ip}:{port} -r {b}:5353 -m\n"
    ))?;
    node.check(
        &format!("{port}/udp"),
        &[case("node", ip, &["a", "b"]), case("outside", ip, &["a", "b"])],
    )
}

#[test]
fn a_service_of_ipv6_leads_to_its_server() -> Test {
    ipvs_or_skip!();
    let mut node = Node::new()?;
    let pod = node.add_pod()?;
    let n = node.number();
    node.host().address("br0", &format!("fd00:{n}:1::1/64"))?;
    node.host().sysctl("ipv6/conf/all/forwarding", "1")?;
    pod.address("eth0", &format!("fd00:{n}:1::2/64"))?;
    pod.ip(&["-6", "route", "add", "default", "via", &format!("fd00:{n}:1::1")])?;
    node.outside.ip(&["-6", "route", "add", "default", "via", &format!("fd00:{n}::1")])?;
    node.serve(&pod, "six", "tcp [::]:8080")?;
    // New addresses of IPv6 are of no use for a second or two.
    let direct: std::net::SocketAddr = format!("[fd00:{n}:1::2]:8080").parse()?;
    for from in [node.host(), &node.outside] {
        let begun = Instant::now();
        while from.connect("tcp", direct)?.server().is_none() {
            ensure!(begun.elapsed() < Duration::from_secs(10), "THE LAB: no way to {direct}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let (ip, port) = (node.ipv6(), lab::unused_port()?);
    node.ipvs(&format!(
        "-A -t [{ip}]:{port} -s rr\n\
         -a -t [{ip}]:{port} -r [fd00:{n}:1::2]:8080 -m\n"
    ))?;
    node.check(
        &port.to_string(),
        &[
            case("node", ip, &["six"]),
            case("outside", ip, &["six"]),
            case("outside", node.ip(), &["refused"]),
        ],
    )
}

#[test]
fn a_service_by_mark_takes_what_a_rule_marks() -> Test {
    ipvs_or_skip!();
    let (node, port) = two_pods()?;
    let (ip, a, b) = (node.ip(), node.pod_ip(0), node.pod_ip(1));
    node.lab.nft(
        node.host(),
        &format!(
            "table inet marks {{\n\
             chain in {{ type filter hook prerouting priority mangle; ip daddr {ip} tcp dport {port} meta mark set 7; }}\n\
             }}\n"
        ),
    )?;
    node.ipvs(&format!("-A -f 7 -s rr\n-a -f 7 -r {a}:8080 -m\n-a -f 7 -r {b}:8080 -m\n"))?;
    node.check(
        &port.to_string(),
        // What a process here sends is marked when it comes in again.
        &[
            case("outside", ip, &["a", "b"]),
            case("node", ip, &["a", "b"]),
            case("node", node.gateway(), &["refused"]),
        ],
    )
}

#[test]
fn a_server_of_weight_zero_gets_no_connections() -> Test {
    ipvs_or_skip!();
    let (node, port) = two_pods()?;
    let (ip, a, b) = (node.ip(), node.pod_ip(0), node.pod_ip(1));
    node.ipvs(&format!(
        "-A -t {ip}:{port} -s wrr\n\
         -a -t {ip}:{port} -r {a}:8080 -m -w 0\n\
         -a -t {ip}:{port} -r {b}:8080 -m -w 2\n"
    ))?;
    node.check(&port.to_string(), &[case("node", ip, &["b"]), case("outside", ip, &["b"])])
}

#[test]
fn a_service_without_servers_refuses() -> Test {
    ipvs_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let ip = node.ip();
    // It would take the connections, were it not for the service.
    node.serve_here("behind", &format!("tcp 0.0.0.0:{port}"))?;
    node.ipvs(&format!("-A -t {ip}:{port} -s rr\n"))?;
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["behind"]),
            case("node", ip, &["refused"]),
            case("node", node.gateway(), &["behind"]),
            case("outside", ip, &["refused"]),
        ],
    )?;
    let run = node.lab.tool().netns(node.host()).args(&["--json", &port.to_string()]).run()?;
    let reach = run.answer()?["reachable"].as_array().into_iter().flatten();
    let mut outside = reach.filter(|entry| entry["from"] == "outside");
    let told = outside
        .any(|entry| entry["reachable"] == false && entry.to_string().contains("no backends"));
    ensure!(told, "{}", run.stdout);
    Ok(())
}

#[test]
fn a_persistent_service_keeps_a_client_at_a_server() -> Test {
    ipvs_or_skip!();
    let (node, port) = two_pods()?;
    let (ip, a, b) = (node.ip(), node.pod_ip(0), node.pod_ip(1));
    node.ipvs(&format!(
        "-A -t {ip}:{port} -s rr -p 10800\n\
         -a -t {ip}:{port} -r {a}:8080 -m\n\
         -a -t {ip}:{port} -r {b}:8080 -m\n"
    ))?;
    node.check(
        &port.to_string(),
        &[case("node", ip, &["a", "b"]).sticky(), case("outside", ip, &["a", "b"]).sticky()],
    )?;
    let run = node.lab.tool().netns(node.host()).args(&["--json", &port.to_string()]).run()?;
    ensure!(run.stdout.contains("session affinity for 10800 s"), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_server_on_the_node_itself_is_reached_there() -> Test {
    ipvs_or_skip!();
    let mut node = Node::new()?;
    let (port, other, own) = (lab::unused_port()?, lab::unused_port()?, lab::unused_port()?);
    let ip = node.ip();
    node.serve_here("other", &format!("tcp {ip}:{other}"))?;
    node.serve_here("own", &format!("tcp {ip}:{own}"))?;
    node.ipvs(&format!(
        "-A -t {ip}:{port} -s rr\n-a -t {ip}:{port} -r {ip}:{other} -m\n\
         -A -t {ip}:{own} -s rr\n-a -t {ip}:{own} -r {ip}:{own} -g\n"
    ))?;
    let at = |lands| [case("node", ip, lands), case("outside", ip, lands)];
    node.check(&port.to_string(), &at(&["other"]))?;
    node.check(&own.to_string(), &at(&["own"]))
}

#[test]
fn filters_see_the_service_from_outside_and_the_server_from_here() -> Test {
    ipvs_or_skip!();
    let (node, port) = two_pods()?;
    let (ip, a) = (node.ip(), node.pod_ip(0));
    node.ipvs(&format!("-A -t {ip}:{port} -s rr\n-a -t {ip}:{port} -r {a}:8080 -m\n"))?;
    let filter = |hook: &str, when: &str, port: u16| {
        format!(
            "table ip guard\ndelete table ip guard\n\
             table ip guard {{\n\
             chain c {{ type filter hook {hook} priority filter; {when} tcp dport {port} drop; }}\n\
             }}\n"
        )
    };
    let question = port.to_string();
    let at = |node_lands, outside| [case("node", ip, node_lands), case("outside", ip, outside)];
    node.lab.nft(node.host(), &filter("input", "", port))?;
    node.check(&question, &at(&["a"], &["timeout"]))?;
    node.lab.nft(node.host(), &filter("output", "", port))?;
    node.check(&question, &at(&["a"], &["a"]))?;
    node.lab.nft(node.host(), &filter("output", "", 8080))?;
    node.check(&question, &at(&["timeout"], &["timeout"]))?;
    // Conntrack is kept away from these connections, unless it is asked to look.
    node.lab.nft(node.host(), &filter("output", "ct state untracked", 8080))?;
    node.check(&question, &at(&["timeout"], &["timeout"]))?;
    node.host().sysctl("ipv4/vs/conntrack", "1")?;
    node.check(&question, &at(&["a"], &["a"]))
}

#[test]
fn a_cluster_ip_on_the_dummy_interface_leads_to_its_pods() -> Test {
    ipvs_or_skip!();
    let (mut node, port) = two_pods()?;
    let service = format!("10.{}.9.9", node.number());
    let host = node.host().clone();
    host.ip(&["link", "add", "kube-ipvs0", "type", "dummy"])?;
    host.address("kube-ipvs0", &format!("{service}/32"))?;
    node.serve_here("here", &format!("tcp 127.0.0.1:{port}"))?;
    let (a, b) = (node.pod_ip(0), node.pod_ip(1));
    node.ipvs(&format!(
        "-A -t {service}:{port} -s rr\n\
         -a -t {service}:{port} -r {a}:8080 -m\n\
         -a -t {service}:{port} -r {b}:8080 -m\n"
    ))?;
    let address: std::net::Ipv4Addr = service.parse()?;
    node.check(&format!("{service}:{port}"), &[case("node", address, &["a", "b"])])?;
    // Of the port of the node, the address of a service says nothing.
    let run = node.lab.tool().netns(&host).args(&["--json", &port.to_string()]).run()?;
    let steps: Vec<_> = run.paths_in(&host)?.iter().map(lab::View::steps).collect();
    ensure!(steps == [[format!("listener 127.0.0.1:{port}/tcp")]], "{steps:?}\n{}", run.stdout);
    Ok(())
}
