//! The answer to a connection: its own route, which rules of policy routing may choose by its
//! source, and the rules that see it.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use lab::{Backend, Netns, Test};

use crate::paths::in_the_way::said;
use crate::paths::node::{Case, LOOPBACK, Node, case};

/// A host with a server, and a pod with another one, to which a second port of the host leads.
struct Both {
    node: Node,
    port: u16,
}

const TRANSLATED: u16 = 7391;

impl Both {
    fn new() -> Result<Self> {
        let mut node = Node::new()?;
        let port = lab::unused_port()?;
        node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
        node.serve_in_pod("inner", 7392)?;
        node.add_pod()?;
        let to = node.pod_ip(0);
        node.lab.nft(
            node.host(),
            &format!(
                "table ip n {{ chain pre {{ type nat hook prerouting priority -100;
                 tcp dport {TRANSLATED} dnat to {to}:7392\n}}\n}}"
            ),
        )?;
        Ok(Self { node, port })
    }

    fn ip(&self, netns: &Netns, args: &str) -> Test {
        netns.ip(&args.split(' ').collect::<Vec<_>>())
    }

    /// What one statement says in words.
    fn why(&self, port: u16, from: &str, to: IpAddr) -> Result<String> {
        let run = self.node.lab.whereis(&[&port.to_string()])?;
        let entry = said(&run, from, (to, port).into())?;
        Ok(entry["why"].as_str().unwrap_or_default().to_owned())
    }

    /// Real connections, and a word of why the first one fails.
    fn check(&self, port: u16, cases: &[Case<'_>], word: &str) -> Test {
        self.node.check(&port.to_string(), cases)?;
        if let Some(first) = cases.first().filter(|_| !word.is_empty()) {
            let why = self.why(port, first.from, first.address)?;
            ensure!(why.contains(word), "{why:?} does not say {word:?}");
        }
        Ok(())
    }

    fn filter(&self, netns: &Netns, rules: &str) -> Test {
        let chain = |name: &str, priority: &str, rules: &str| {
            format!(
                "chain {name} {{ type filter hook {name} priority {priority};\n{}\n}}\n",
                rules.replace("; ", "\n")
            )
        };
        let (name, rules) = rules.split_once(": ").context("no chain")?;
        let (name, priority) = name.split_once(' ').unwrap_or((name, "0"));
        let text = format!("table inet f {{\n{}}}\n", chain(name, priority, rules));
        self.node.lab.nft(netns, &format!("table inet f\ndelete table inet f\n{text}"))
    }
}

#[test]
fn an_answer_takes_the_route_of_the_address_that_was_connected_to() -> Test {
    lab::root_or_skip!();
    let both = Both::new()?;
    let (host, port) = (both.node.host().clone(), both.port);
    let (gateway, own) = (both.node.gateway(), both.node.ip());
    both.ip(&host, &format!("rule add priority 90 from {gateway} lookup 100"))?;
    both.ip(&host, "route add unreachable default table 100")?;
    let cases = [
        case("containers", gateway, &["timeout"]),
        case("containers", own, &["web"]),
        case("outside", own, &["web"]),
        case("node", gateway, &["web"]),
    ];
    both.check(port, &cases, &format!("ip rule 90 (from {gateway}/32)"))?;
    // In a table that leads on it is as it was.
    both.ip(&host, "route replace default dev br0 table 100")?;
    let open = [case("containers", gateway, &["web"]), case("outside", own, &["web"])];
    both.check(port, &open, "")?;
    both.ip(&host, "rule del priority 90")?;
    both.ip(&host, &format!("rule add priority 91 from {own} prohibit"))?;
    let cases = [case("outside", own, &["timeout"]), case("containers", gateway, &["web"])];
    both.check(port, &cases, "ip rule 91")
}

#[test]
fn a_process_is_routed_again_by_the_source_that_was_chosen() -> Test {
    lab::root_or_skip!();
    let both = Both::new()?;
    let host = both.node.host().clone();
    let to = both.node.pod_ip(0);
    both.ip(&host, &format!("rule add priority 90 from {} prohibit", both.node.gateway()))?;
    let run = both.node.lab.tool().netns(&host).args(&["--json", "--try", &format!("{to}:7392")]);
    let run = run.run()?;
    let entry = said(&run, "node", (IpAddr::from(to), 7392).into())?;
    ensure!(entry["reachable"] == false && entry["tried"] == "unreachable", "{entry}");
    ensure!(entry["why"].as_str().is_some_and(|why| why.contains("ip rule 90")), "{entry}");
    // Of users the kernel asks as well.
    both.ip(&host, "rule del priority 90")?;
    both.ip(&host, "rule add priority 92 uidrange 4711-4712 prohibit")?;
    let question = format!("{to}:7392/tcp");
    let plain = both.node.lab.listen_as(&host, 4711, "tcp 0.0.0.0:8081")?;
    let root = both.node.lab.listen(&host, "tcp 0.0.0.0:8082")?;
    for (pid, code) in [(plain.pid, 1), (root.pid, 0)] {
        let args = ["--json", "--from", &format!("pid:{pid}"), &question];
        let run = both.node.lab.tool().netns(&host).args(&args).run()?;
        ensure!(run.code == Some(code), "pid {pid}: {}", run.stdout);
    }
    let run = both.node.lab.tool().netns(&host).args(&["--json", &question]).run()?;
    let entry = said(&run, "node", (IpAddr::from(to), 7392).into())?;
    ensure!(entry["reachable"].is_null(), "{entry}");
    let conditions = entry["conditions"].to_string();
    ensure!(conditions.contains("4711 to 4712") && conditions.contains("ip rule 92"), "{entry}");
    Ok(())
}

#[test]
fn what_comes_in_by_a_device_has_routes_of_its_own() -> Test {
    lab::root_or_skip!();
    let both = Both::new()?;
    let host = both.node.host().clone();
    let (gateway, own) = (both.node.gateway(), both.node.ip());
    let open = [case("outside", own, &["inner"]), case("containers", gateway, &["inner"])];
    both.check(TRANSLATED, &open, "")?;
    both.ip(&host, "rule add priority 90 iif br0 lookup 100")?;
    both.ip(&host, "route add unreachable default table 100")?;
    // The answer comes in by the bridge.
    let cases = [case("outside", own, &["timeout"]), case("node", own, &["refused"])];
    both.check(TRANSLATED, &cases, "ip rule 90 (iif br0)")?;
    both.ip(&host, "rule del priority 90")?;
    // Somebody outside may have such an address, or not.
    let network = format!("10.{}.77.0/24", both.node.number());
    both.ip(&host, &format!("rule add priority 91 from {network} prohibit"))?;
    let run = both.node.lab.whereis(&[&TRANSLATED.to_string()])?;
    let entry = said(&run, "outside", (IpAddr::from(own), TRANSLATED).into())?;
    ensure!(entry["reachable"] == true, "{entry}");
    let why = entry["why"].as_str().unwrap_or_default();
    ensure!(why.contains(&network) && why.contains("ip rule 91"), "{why}");
    let stranger = format!("10.{}.77.7", both.node.number());
    let question = format!("{own}:{TRANSLATED}/tcp");
    let args = ["--json", "--from", &stranger, &question];
    let run = both.node.lab.tool().netns(&host).args(&args).run()?;
    ensure!(run.code == Some(1), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_rule_that_refuses_the_answer_is_said() -> Test {
    lab::root_or_skip!();
    let both = Both::new()?;
    let (host, port) = (both.node.host().clone(), both.port);
    let (gateway, own) = (both.node.gateway(), both.node.ip());
    for (rules, outside, word) in [
        (format!("output: oifname eth0 tcp sport {port} drop"), "timeout", "its answer is dropped"),
        (
            format!("output: ct state established accept; oifname eth0 tcp sport {port} drop"),
            "web",
            "",
        ),
        (
            format!("postrouting: ct direction reply oifname eth0 tcp sport {port} drop"),
            "timeout",
            "its answer is dropped",
        ),
        // Not a first packet.
        (
            format!("output: oifname eth0 tcp flags & (syn|ack) == syn tcp sport {port} drop"),
            "web",
            "",
        ),
        // Without conntrack nothing is established.
        (format!("prerouting -300: tcp dport {port} notrack; tcp sport {port} notrack"), "web", ""),
    ] {
        both.filter(&host, &rules)?;
        let lands = [outside];
        let cases = [
            case("outside", own, &lands),
            case("containers", gateway, &["web"]),
            case("loopback", LOOPBACK, &["web"]),
        ];
        both.check(port, &cases, word).with_context(|| rules.clone())?;
    }
    Ok(())
}

#[test]
fn an_answer_passes_the_rules_and_the_nat_of_every_namespace_that_was_passed() -> Test {
    lab::root_or_skip!();
    let both = Both::new()?;
    let host = both.node.host().clone();
    let (own, pod) = (both.node.ip(), both.node.pods[0].clone());
    for (at, rules, lands, word) in [
        (&host, "forward: iifname br0 tcp sport 7392 drop", "timeout", "its answer is dropped"),
        (&host, "forward: ct status dnat accept; iifname br0 drop", "inner", ""),
        (&host, "forward: meta l4proto tcp ct original proto-dst 7391 accept; drop", "inner", ""),
        (&host, "prerouting -300: iifname br0 notrack", "timeout", "does not track it"),
        (&pod, "output: tcp sport 7392 drop", "timeout", "its answer is dropped"),
        (&pod, "output: ct state established accept; drop", "inner", ""),
    ] {
        both.filter(at, rules)?;
        let lands = [lands];
        let checked = both.check(TRANSLATED, &[case("outside", own, &lands)], word);
        checked.with_context(|| rules.to_owned())?;
        both.node.lab.nft(at, "delete table inet f")?;
    }
    Ok(())
}

#[test]
fn without_masquerading_an_answer_goes_past_who_translated() -> Test {
    lab::root_or_skip!();
    let both = Both::new()?;
    let (host, gateway) = (both.node.host().clone(), both.node.gateway());
    let filters = |on: &str| host.sysctl("bridge/bridge-nf-call-iptables", on);
    if filters("0").is_err() {
        lab::skip_on_this_kernel("no br_netfilter");
        return Ok(());
    }
    both.check(
        TRANSLATED,
        &[case("containers", gateway, &["timeout"])],
        "which translated the connection",
    )?;
    filters("1")?;
    both.check(TRANSLATED, &[case("containers", gateway, &["inner"])], "")?;
    filters("0")?;
    both.node.lab.nft(
        &host,
        "table ip m { chain post { type nat hook postrouting priority 100;
         tcp dport 7392 masquerade\n}\n}",
    )?;
    both.check(TRANSLATED, &[case("containers", gateway, &["inner"])], "")
}

/// In another conntrack zone an answer answers nothing.
#[test]
fn an_answer_in_another_zone_is_not_known_to_get_back() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let to = IpAddr::from(node.ip());
    let states = |pre: &str, out: &str| {
        node.lab.iptables(
            node.host(),
            Backend::Nft,
            &format!(
                "*raw\n-F\n{pre}{out}COMMIT\n*filter\n-F\n-A INPUT -i lo -j ACCEPT\n\
                 -A INPUT -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT\n\
                 -A INPUT -j DROP\nCOMMIT\n"
            ),
        )
    };
    let pre = "-A PREROUTING -i eth0 -j CT --zone 5\n";
    let out = "-A OUTPUT -o eth0 -j CT --zone 5\n";
    states("", "")?;
    node.check(&port.to_string(), &[case("outside", to, &["web"])])?;
    states(pre, out)?;
    node.check(&port.to_string(), &[case("outside", to, &["web"])])?;
    for (pre, out) in [(pre, ""), ("", out)] {
        states(pre, out)?;
        // The client's kernel takes it for connected: no data comes.
        let landed = node.outside.connect("tcp", (to, port).into())?;
        ensure!(landed.server().is_none(), "THE LAB: {landed}");
        let run = node.lab.whereis(&[&port.to_string()])?;
        let entry = said(&run, "outside", (to, port).into())?;
        let why = entry["why"].as_str().unwrap_or_default();
        ensure!(entry["reachable"] != true && why.contains("conntrack zone"), "{entry}");
    }
    states("", "")?;
    node.lab.nft(
        node.host(),
        "table ip z { chain p { type filter hook prerouting priority raw; iif eth0 ct zone set 7\n}\n}",
    )?;
    let run = node.lab.whereis(&[&port.to_string()])?;
    let entry = said(&run, "outside", (to, port).into())?;
    ensure!(entry["reachable"].is_null(), "{entry}");
    Ok(())
}

/// What a rule does that is not modelled is said by the rule's name.
#[test]
fn a_target_that_is_not_modelled_is_named() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let to = IpAddr::from(node.ip());
    let queue = "-j NFQUEUE --queue-num 5";
    for (rule, table, chain, word) in [
        (queue, "filter", "INPUT", "a program in user space decides"),
        ("-j TTL --ttl-set 1", "mangle", "PREROUTING", "not evaluated: rule"),
        ("-j HMARK --hmark-tuple src --hmark-mod 2 --hmark-rnd 1", "mangle", "INPUT", "HMARK"),
    ] {
        let text = format!("*{table}\n-A {chain} -p tcp --dport {port} {rule}\nCOMMIT\n");
        if let Err(error) = node.lab.iptables(node.host(), Backend::Nft, &text) {
            lab::skip_on_this_kernel(&format!("{rule}: {error:#}"));
            continue;
        }
        let run = node.lab.whereis(&[&port.to_string()])?;
        let entry = said(&run, "outside", (to, port).into())?;
        let why = entry["why"].as_str().unwrap_or_default();
        ensure!(entry["reachable"].is_null() && why.contains(word), "{entry}");
        ensure!(!why.contains("more branches"), "{entry}");
        node.lab.iptables(node.host(), Backend::Nft, &format!("*{table}\n-F\nCOMMIT\n"))?;
    }
    Ok(())
}
