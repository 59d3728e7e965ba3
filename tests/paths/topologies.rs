//! Nodes that are made at random: bridges with and without addresses, routes, reverse path
//! filters, packet rules, listeners. From every sender, what the tool says is compared with a
//! connection that is really made.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use lab::{Landing, Netns, Run, Test};
use serde_json::Value;

use crate::node::Node;

/// How many nodes, unless the environment says otherwise.
const NODES: u64 = 24;
/// The port that is asked for on all of them, and one that a rule may lead to it.
const PORT: u16 = 7400;
const TRANSLATED: u16 = 7401;
/// How many statements may be "not known", in per cent.
const UNKNOWN: usize = 15;

/// xorshift64*: the same node for the same number, everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    fn one_of(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        let at = self.below(all.len() as u64);
        all[usize::try_from(at).unwrap_or(0)]
    }
}

/// What was said, and what was tried of it.
#[derive(Default)]
struct Count {
    said: usize,
    unknown: usize,
    tried: usize,
}

impl Count {
    fn add(&mut self, run: &Run) -> Result<()> {
        let reach = run.answer()?["reachable"].as_array().context("no statements")?;
        for one in reach.iter().filter(|one| !one["address"].is_null()) {
            self.said += 1;
            self.unknown += usize::from(one["reachable"].is_null());
            let tried = !matches!(one["tried"].as_str(), None | Some("not_tried"));
            self.tried += usize::from(tried);
        }
        Ok(())
    }
}

/// A node, and all who send.
fn build(random: &mut Random) -> Result<(Node, Vec<Netns>, String)> {
    let mut node = Node::new()?;
    let number = node.number();
    let mut made = String::new();
    let host = node.host().clone();
    let mut say = |text: String| writeln!(made, "  {text}");
    for _ in 0..=random.below(2) {
        let pod = node.add_pod()?;
        if random.one_of(4) {
            pod.ip(&["route", "del", "default"])?;
            say(format!("{} has no default route", pod.name))?;
        }
    }
    let mut senders: Vec<Netns> = node.pods.clone();
    if random.one_of(2) {
        // A second bridge, which may have no address of the host's.
        let with_address = !random.one_of(4);
        say(format!("br1, with an address: {with_address}"))?;
        host.ip(&["link", "add", "br1", "type", "bridge"])?;
        host.ip(&["link", "set", "br1", "up"])?;
        if with_address {
            host.address("br1", &format!("10.{number}.2.1/24"))?;
        }
        for n in 0..=random.below(2) {
            let pod = node.lab.netns(&format!("other{n}"))?;
            let port = format!("other{n}");
            let peer = ["peer", "name", "eth0", "netns", &pod.name];
            host.ip(&[&["link", "add", &port, "type", "veth"], &peer[..]].concat())?;
            host.ip(&["link", "set", &port, "master", "br1", "up"])?;
            pod.address("eth0", &format!("10.{number}.2.{}/24", n + 2))?;
            pod.ip(&["link", "set", "eth0", "up"])?;
            if with_address {
                pod.ip(&["route", "add", "default", "via", &format!("10.{number}.2.1")])?;
            }
            senders.push(pod);
        }
    }
    if random.one_of(2) {
        let pod = node.lab.netns("paired")?;
        say("a pair without a bridge".to_owned())?;
        let peer = ["peer", "name", "eth0", "netns", &pod.name];
        host.ip(&[&["link", "add", "pair0", "type", "veth"], &peer[..]].concat())?;
        host.address("pair0", &format!("10.{number}.3.1/30"))?;
        host.ip(&["link", "set", "pair0", "up"])?;
        pod.address("eth0", &format!("10.{number}.3.2/30"))?;
        pod.ip(&["link", "set", "eth0", "up"])?;
        pod.ip(&["route", "add", "default", "via", &format!("10.{number}.3.1")])?;
        senders.push(pod);
    }
    if random.one_of(4) {
        say("the host does not forward".to_owned())?;
        host.sysctl("ipv4/ip_forward", "0")?;
    }
    if random.one_of(3) {
        let (device, mode) = (random.pick(&["all", "br0", "eth0"]), random.pick(&["1", "2"]));
        say(format!("rp_filter of {device} is {mode}"))?;
        host.sysctl(&format!("ipv4/conf/{device}/rp_filter"), mode)?;
    }
    for rule in policies(random, &node, &senders)? {
        say(rule)?;
    }
    // Listeners: the host's, and one in some namespaces.
    let at = random.pick(&["0.0.0.0", "127.0.0.1", "[::]", "own", "none"]);
    let own = node.ip().to_string();
    say(format!("the host listens at {at}"))?;
    if at != "none" {
        let at = if at == "own" { own.as_str() } else { at };
        node.serve_here("host", &format!("tcp {at}:{PORT}"))?;
    }
    let mut target = None;
    for (n, sender) in senders.iter().enumerate() {
        if random.one_of(2) {
            let at = random.pick(&["0.0.0.0", "0.0.0.0", "127.0.0.1"]);
            say(format!("{} listens at {at}", sender.name))?;
            node.serve(sender, &format!("pod{n}"), &format!("tcp {at}:{PORT}"))?;
            if n < node.pods.len() {
                target = Some(node.pod_ip(u8::try_from(n)?));
            }
        }
    }
    let rules = rules(random, &node, target);
    say(rules.clone())?;
    node.lab.nft(&host, &rules)?;
    Ok((node, senders, made))
}

/// Rules of policy routing: by source, device, destination and port, to a table that has a way on,
/// refuses, or has nothing.
fn policies(random: &mut Random, node: &Node, senders: &[Netns]) -> Result<Vec<String>> {
    let number = node.number();
    let mut said = Vec::new();
    for (n, netns) in [node.host()].into_iter().chain(senders).enumerate() {
        for priority in ["90", "91"] {
            if !random.one_of(if n == 0 { 3 } else { 6 }) {
                continue;
            }
            let one = |third: u64, fourth: u64| format!("10.{number}.{third}.{fourth}");
            let network = |third: u64| format!("10.{number}.{third}.0/24");
            let what = match random.below(6) {
                0 | 1 => format!("from {}", one(random.below(3), random.below(3) + 1)),
                2 => format!("from {}", network(random.below(4))),
                3 => format!("to {}", network(random.below(4))),
                4 => format!("iif {}", random.pick(&["br0", "eth0", "lo"])),
                _ => format!("{} {PORT} ipproto tcp", random.pick(&["sport", "dport"])),
            };
            let action = random.pick(&["lookup 100", "lookup 100", "prohibit", "blackhole"]);
            let rule = format!("rule add priority {priority} {what} {action}");
            netns.ip(&rule.split(' ').collect::<Vec<_>>())?;
            said.push(format!("{}: ip {rule}", netns.name));
        }
        let route = match random.below(4) {
            0 => "unreachable default",
            1 => "throw default",
            2 => continue,
            _ if n == 0 => "default dev br0",
            _ => "default dev eth0",
        };
        let args = format!("route add {route} table 100");
        netns.ip(&args.split(' ').collect::<Vec<_>>())?;
        said.push(format!("{}: ip {args}", netns.name));
    }
    Ok(said)
}

/// A few rules, which may refuse, and one that may translate.
fn rules(random: &mut Random, node: &Node, target: Option<std::net::Ipv4Addr>) -> String {
    let number = node.number();
    let mut rule = |by: &str| {
        if random.one_of(2) {
            return String::new();
        }
        let device = random.pick(&["br0", "br1", "pair0", "eth0", "lo"]);
        let side = random.pick(&["dport", "dport", "dport", "sport"]);
        let ports = random.pick(&["7400", "7400-7401", "7401", "!= 7400"]);
        let source = match random.below(3) {
            0 => format!("ip saddr 10.{number}.1.0/24 "),
            _ => String::new(),
        };
        let what = random.pick(&["drop", "reject with tcp reset", "accept", "drop"]);
        format!("{by} \"{device}\" {source}tcp {side} {ports} {what}\n")
    };
    let (input, forward) = (rule("iifname"), rule("iifname") + &rule("oifname"));
    let output = rule("oifname");
    let dnat = match target {
        Some(ip) => format!("tcp dport {TRANSLATED} dnat ip to {ip}:{PORT}\n"),
        None => String::new(),
    };
    // Most firewalls begin so: rules are for the first packet.
    let stateless = random.one_of(3);
    let established = |rules: &str| match stateless {
        true => rules.to_owned(),
        false => format!("ct state established accept\n{rules}"),
    };
    let chain = |name: &str, kind: &str, priority: &str, rules: &str| {
        format!("chain {name} {{\ntype {kind} hook {name} priority {priority};\n{rules}}}\n")
    };
    let filters = [("input", &input), ("forward", &forward), ("output", &output)];
    let mut text = "table inet f {\n".to_owned();
    for (name, rules) in filters {
        text += &chain(name, "filter", "0", &established(rules));
    }
    text += "}\ntable inet n {\n";
    text += &chain("prerouting", "nat", "-100", &dnat);
    text += "}\n";
    text
}

/// What is said of other machines is compared with one.
fn agree_outside(node: &Node, run: &Run) -> Test {
    let reach = run.answer()?["reachable"].as_array().context("no statements")?;
    let of_outside =
        |r: &&Value| r["from"] == "outside" && r["by"].as_array().is_none_or(Vec::is_empty);
    for one in reach.iter().filter(of_outside) {
        let (Some(address), Some(said)) = (one["address"].as_str(), one["reachable"].as_bool())
        else {
            continue;
        };
        let to: SocketAddr = address.parse()?;
        let has_route =
            one["conditions"].as_array().is_some_and(|c| c.iter().all(|c| c["code"] == "route"));
        if to.is_ipv6() || !has_route {
            continue;
        }
        let landed = node.outside.connect("tcp", to)?;
        let is_open = matches!(landed, Landing::At(_));
        ensure!(is_open == said, "from outside to {to}: {landed}, but {one}");
    }
    Ok(())
}

/// Whether anything that is said of this node is wrong.
fn check(node: &Node, senders: &[Netns], count: &mut Count) -> Test {
    let ask = |args: &[&str]| -> Result<Run> {
        let all = [&["--json", "--try"], args].concat();
        let run = node.lab.tool().netns(node.host()).args(&all).run()?;
        ensure!(run.code != Some(5), "it is refuted: {args:?}: {}", refuted(&run));
        ensure!(matches!(run.code, Some(0 | 1 | 3)), "exit {:?}: {}", run.code, run.stderr);
        Ok(run)
    };
    for port in [PORT, TRANSLATED] {
        let question = format!("{port}/tcp");
        let run = ask(&[&question])?;
        count.add(&run)?;
        agree_outside(node, &run)?;
        for sender in senders {
            let from = format!("netns:{}", sender.inode);
            count.add(&ask(&["--from", &from, &question])?)?;
        }
    }
    Ok(())
}

/// The statements that are refuted.
fn refuted(run: &Run) -> String {
    let reach = run.json["answers"][0]["reachable"].as_array().into_iter().flatten();
    let wrong = |r: &&Value| match r["tried"].as_str() {
        Some("open") => r["reachable"] == false,
        Some("refused" | "timed_out" | "unreachable") => r["reachable"] == true,
        _ => false,
    };
    reach.filter(wrong).map(|one| format!("\n  {one}")).collect()
}

#[test]
fn nodes_made_at_random_are_what_the_tool_says_of_them() -> Test {
    lab::root_or_skip!();
    let number = |name: &str, default| {
        std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok()).unwrap_or(default)
    };
    let first = number("WHEREIS_PORT_TOPOLOGY", 1);
    let nodes = number("WHEREIS_PORT_TOPOLOGIES", NODES);
    let mut count = Count::default();
    let mut problems = String::new();
    for seed in first..first + nodes {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (node, senders, made) = build(&mut random).context("THE LAB")?;
        if let Err(problem) = check(&node, &senders, &mut count) {
            writeln!(problems, "WHEREIS_PORT_TOPOLOGY={seed}: {problem:#}\n{made}")?;
        }
    }
    println!("{} statements, {} tried, {} not known", count.said, count.tried, count.unknown);
    ensure!(problems.is_empty(), "{problems}");
    ensure!(count.tried > 0, "nothing was tried");
    ensure!(
        count.unknown * 100 <= count.said * UNKNOWN,
        "{} of {} are not known",
        count.unknown,
        count.said
    );
    Ok(())
}
