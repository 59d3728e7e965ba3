//! Where senders connect to: addresses that only this listener has, links that are down, and the
//! same address twice.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lab::{Backend, Landing, Netns, Test};
use serde_json::Value;

use crate::paths::in_the_way::said;
use crate::paths::node::{LOOPBACK, Node, case};

/// What `--from` says of one connection: whether it gets through, and the whole answer.
fn from(node: &Node, sender: &Netns, to: SocketAddr) -> Result<(Option<i32>, Value)> {
    let args = ["--json", "--from", &format!("netns:{}", sender.name), &format!("{to}/tcp")];
    let ask = || node.lab.tool().netns(node.host()).args(&args).run();
    // A namespace of another test that goes meanwhile might be joined to the same link.
    let is_gone = |run: &lab::Run| {
        run.gaps().iter().any(|gap| gap["code"] == "network_namespaces" && gap["impact"] == "reach")
    };
    let mut run = ask()?;
    for _ in 0..20 {
        if !is_gone(&run) {
            break;
        }
        run = ask()?;
    }
    Ok((run.code, run.answer()?.clone()))
}

fn why(entry: &Value) -> &str {
    entry["why"].as_str().unwrap_or_default()
}

#[test]
fn a_listener_at_another_loopback_address_is_reached_there() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let stub = Ipv4Addr::new(127, 0, 0, 53);
    node.serve_here("stub", &format!("tcp {stub}:{port}"))?;
    node.check(
        &port.to_string(),
        &[case("loopback", stub, &["stub"]), case("outside", node.ip(), &["refused"])],
    )?;
    let (code, _) = from(&node, node.host(), (stub, port).into())?;
    ensure!(code == Some(0), "{code:?}");
    let args = ["--json", "--from", &format!("netns:{}", node.host().name), &port.to_string()];
    let run = node.lab.tool().netns(node.host()).args(&args).run()?;
    ensure!(run.code == Some(0), "{}", run.stdout);
    Ok(())
}

#[test]
fn nothing_gets_through_a_loopback_that_is_down() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let pod = node.add_pod()?;
    let port = lab::unused_port()?;
    node.serve(&pod, "web", &format!("tcp 0.0.0.0:{port}"))?;
    pod.ip(&["link", "set", "lo", "down"])?;
    for address in [LOOPBACK, node.pod_ip(0)] {
        let to = SocketAddr::from((address, port));
        let landed = pod.connect("tcp", to)?;
        ensure!(!matches!(landed, Landing::At(_)), "THE LAB: {to}: {landed}");
        let args = ["--json", "--from", &format!("netns:{}", pod.name), &format!("{to}/tcp")];
        let run = node.lab.tool().netns(&pod).args(&args).run()?;
        ensure!(run.code == Some(1), "{}", run.stdout);
        let said = &run.answer()?["reachable"][0];
        ensure!(why(said).contains("loopback interface"), "{said}");
        ensure!(said["fix"]["command"] == serde_json::json!(["ip", "link", "set", "lo", "up"]));
    }
    Ok(())
}

#[test]
fn an_address_keeps_its_listener_when_its_interface_goes_down() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let n = node.number();
    let address = Ipv4Addr::new(10, n, 77, 1);
    node.host().ip(&["link", "add", "idle", "type", "veth", "peer", "name", "idle2"])?;
    node.host().address("idle", &format!("{address}/24"))?;
    node.host().ip(&["link", "set", "idle", "up"])?;
    node.host().ip(&["link", "set", "idle", "down"])?;
    node.serve_here("web", &format!("tcp {address}:{port}"))?;
    node.check(&port.to_string(), &[case("node", address, &["web"])])
}

/// Filters that ask whether an answer would leave by where the packet came in: what firewalld
/// and NixOS have by default.
#[test]
fn a_rule_for_the_reverse_path_lets_those_in_who_have_one() -> Test {
    lab::root_or_skip!();
    let check = |node: &Node, port: u16| -> Test {
        for netns in [&node.outside, node.host()] {
            let landed = netns.connect("tcp", (node.ip(), port).into())?;
            ensure!(landed == Landing::At("web".to_owned()), "THE LAB: {landed}");
        }
        let run = node.lab.whereis(&[&port.to_string()])?;
        for vantage in ["node", "outside"] {
            let entry = said(&run, vantage, (node.ip(), port).into())?;
            ensure!(entry["reachable"] == true, "{vantage}: {entry}");
            let conditions = entry["conditions"].as_array().context("no conditions")?;
            ensure!(conditions.is_empty(), "{vantage}: {entry}");
        }
        Ok(())
    };
    let served = || -> Result<(Node, u16)> {
        let mut node = Node::new()?;
        let port = lab::unused_port()?;
        node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
        Ok((node, port))
    };
    let (node, port) = served()?;
    node.lab.nft(
        node.host(),
        "table inet f { chain p { type filter hook prerouting priority -300;\n\
         meta pkttype { broadcast, multicast } drop\n\
         fib saddr . mark . iif oif missing drop\n}\n}",
    )?;
    check(&node, port)?;
    for backend in Backend::ALL {
        let (node, port) = served()?;
        let rules = "*mangle\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n\
                     :POSTROUTING ACCEPT\n\
                     -A PREROUTING -m pkttype --pkt-type broadcast -j DROP\n\
                     -A PREROUTING -m rpfilter --validmark --invert -j DROP\nCOMMIT\n";
        node.lab.iptables(node.host(), backend, rules)?;
        check(&node, port).with_context(|| backend.name())?;
    }
    Ok(())
}

#[test]
fn nobody_is_behind_a_port_of_a_bridge_that_is_down() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let ip = node.serve_in_pod("web", port)?;
    let to = SocketAddr::from((ip, port));
    let (code, _) = from(&node, node.host(), to)?;
    ensure!(code == Some(0), "{code:?}");
    for (netns, device) in [(node.host(), "veth0"), (&node.pods[0], "eth0")] {
        netns.ip(&["link", "set", device, "down"])?;
        node.host().ip(&["neigh", "flush", "all"])?;
        let landed = node.host().connect("tcp", to)?;
        ensure!(!matches!(landed, Landing::At(_)), "THE LAB: {device} is down: {landed}");
        let (code, answer) = from(&node, node.host(), to)?;
        ensure!(code == Some(1), "{device} is down: {answer}");
        let said = &answer["reachable"][0];
        ensure!(why(said).contains("nobody on br0 has"), "{said}");
        netns.ip(&["link", "set", device, "up"])?;
    }
    Ok(())
}

#[test]
fn of_two_with_one_address_it_is_not_told_who_answers() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let ip = node.serve_in_pod("first", port)?;
    node.serve_in_pod("second", port)?;
    node.pods[1].address("eth0", &format!("{ip}/24"))?;
    let (code, answer) = from(&node, node.host(), (ip, port).into())?;
    let ends = answer["paths"].as_array().context("no paths")?;
    ensure!(code == Some(0) && ends.len() == 2, "exit {code:?}: {answer}");
    let conditions = ends.iter().flat_map(|path| path["conditions"].as_array()).flatten();
    ensure!(conditions.filter(|one| one["code"] == "neighbour").count() == 2, "{answer}");
    Ok(())
}

#[test]
fn containers_of_several_bridges_are_told_apart_at_every_address_of_the_host() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let first = node.add_pod()?;
    let n = node.number();
    node.lab.bridge(node.host(), "br1", &format!("10.{n}.9.1/24"))?;
    let second = node.lab.netns("second")?;
    node.host().ip(&[
        "link",
        "add",
        "other",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        &second.name,
    ])?;
    node.host().ip(&["link", "set", "other", "master", "br1", "up"])?;
    second.address("eth0", &format!("10.{n}.9.2/24"))?;
    second.ip(&["link", "set", "eth0", "up"])?;
    second.ip(&["route", "add", "default", "via", &format!("10.{n}.9.1")])?;
    let rule = format!(
        "table ip f {{ chain i {{ type filter hook input priority 0;\n\
         iifname br1 tcp dport {port} drop\n}}\n}}"
    );
    node.lab.nft(node.host(), &rule)?;
    let run = node.lab.whereis(&[&port.to_string()])?;
    let all = run.answer()?["reachable"].as_array().context("no reach")?;
    for address in [node.ip(), node.gateway()] {
        let to = SocketAddr::from((IpAddr::from(address), port));
        for (pod, bridge, open) in [(&first, "br0", true), (&second, "br1", false)] {
            let landed = pod.connect("tcp", to)?;
            ensure!(matches!(landed, Landing::At(_)) == open, "THE LAB: {bridge}: {landed}");
            let is_it = |r: &&Value| {
                let by = r["by"].as_array();
                r["from"] == "containers"
                    && r["address"] == to.to_string().as_str()
                    && by.is_some_and(|by| by.iter().any(|name| name == bridge))
            };
            let entry = all.iter().find(is_it).with_context(|| format!("{bridge}: {all:#?}"))?;
            ensure!(entry["reachable"] == open, "{entry}");
        }
    }
    Ok(())
}

#[test]
fn nothing_gets_from_one_isolated_port_of_a_bridge_to_another() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let ip = node.serve_in_pod("web", port)?;
    let other = node.add_pod()?;
    let to = SocketAddr::from((ip, port));
    for device in ["veth0", "veth1"] {
        node.host().ip(&["link", "set", device, "type", "bridge_slave", "isolated", "on"])?;
    }
    for (sender, open) in [(node.host(), true), (&other, false)] {
        let landed = sender.connect("tcp", to)?;
        ensure!(matches!(landed, Landing::At(_)) == open, "THE LAB: {}: {landed}", sender.name);
        let (code, answer) = from(&node, sender, to)?;
        ensure!(code == Some(i32::from(!open)), "{}: {answer}", sender.name);
        let said = &answer["reachable"][0];
        ensure!(open || why(said).contains("isolated"), "{said}");
    }
    Ok(())
}

#[test]
fn what_is_translated_back_to_where_it_came_from_needs_hairpin_mode_over_a_bridge() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let (outer, inner) = (lab::unused_port()?, lab::unused_port()?);
    let ip = node.serve_in_pod("web", inner)?;
    let (pod, other) = (node.pods[0].clone(), node.add_pod()?);
    node.lab.nft(
        node.host(),
        &format!(
            "table ip t {{ chain pre {{ type nat hook prerouting priority dstnat;
               fib daddr type local tcp dport {outer} dnat to {ip}:{inner}
             }}
             chain post {{ type nat hook postrouting priority srcnat;
               ip daddr {ip} tcp dport {inner} masquerade
             }}
             }}"
        ),
    )?;
    let to = SocketAddr::from((node.ip(), outer));
    let filters = |on: &str| node.host().sysctl("bridge/bridge-nf-call-iptables", on);
    if filters("0").is_err() {
        lab::skip_on_this_kernel("no br_netfilter");
        return Ok(());
    }
    for (bridge, hairpin, open) in
        [("0", "off", true), ("1", "off", false), ("1", "on", true), ("0", "on", true)]
    {
        let case = format!("bridge-nf-call-iptables {bridge}, hairpin {hairpin}");
        filters(bridge)?;
        let port = ["link", "set", "veth0", "type", "bridge_slave", "hairpin", hairpin];
        node.host().ip(&port)?;
        for (sender, open) in [(&pod, open), (&other, true)] {
            let landed = sender.connect("tcp", to)?;
            let lands = matches!(landed, Landing::At(_));
            ensure!(lands == open, "THE LAB: {case}: {}: {landed}", sender.name);
            let (code, answer) = from(&node, sender, to)?;
            ensure!(code == Some(i32::from(!open)), "{case}: {}: {answer}", sender.name);
            let said = &answer["reachable"][0];
            ensure!(open || why(said).contains("hairpin mode is off"), "{said}");
        }
    }
    Ok(())
}

#[test]
fn what_ipsec_and_rules_for_arp_do_is_not_evaluated_and_said() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let to = SocketAddr::from((node.ip(), port));
    let unknown = |code: &str| -> Test {
        let run = node.lab.whereis(&[&port.to_string()])?;
        let entry = said(&run, "outside", to)?;
        ensure!(entry["reachable"].is_null(), "{entry}");
        let conditions = entry["conditions"].as_array().context("no conditions")?;
        ensure!(conditions.iter().any(|one| one["code"] == code), "{entry}");
        // Who stays in the host meets neither.
        ensure!(said(&run, "node", to)?["reachable"] == true, "{}", run.stdout);
        Ok(())
    };
    node.lab.nft(
        node.host(),
        "table arp f { chain i { type filter hook input priority 0; policy drop; }\n}",
    )?;
    unknown("arp_rules")?;
    node.lab.nft(node.host(), "flush ruleset")?;
    let policy = ["xfrm", "policy", "add", "dir", "in", "src", "0.0.0.0/0", "action", "block"];
    if node.host().ip(&policy).is_err() {
        eprintln!("NOT TESTED: this kernel has no IPsec policies");
        return Ok(());
    }
    unknown("ipsec")
}

#[test]
fn a_listener_of_a_group_is_not_said_to_be_shut() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let network = Ipv4Addr::new(10, node.number(), 0, 255);
    node.serve_here("mdns", &format!("udp {network}:{port}"))?;
    let run = node.lab.whereis(&[&format!("{port}/udp")])?;
    let all = run.answer()?["reachable"].as_array().context("no reach")?;
    ensure!(!all.is_empty(), "{}", run.stdout);
    for entry in all {
        ensure!(entry["reachable"].is_null() && entry["code"] == "bound_to_group", "{entry}");
    }
    Ok(())
}

#[test]
fn a_device_may_forward_where_the_others_do_not() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let n = node.number();
    let pod = node.add_pod()?;
    node.host().address("br0", &format!("fd00:{n}:1::1/64"))?;
    pod.address("eth0", &format!("fd00:{n}:1::2/64"))?;
    pod.ip(&["-6", "route", "add", "default", "via", &format!("fd00:{n}:1::1")])?;
    node.outside.ip(&["-6", "route", "add", "default", "via", &format!("fd00:{n}::1")])?;
    node.serve(&pod, "web", &format!("tcp [::]:{port}"))?;
    let to = SocketAddr::new(format!("fd00:{n}:1::2").parse()?, port);
    node.host().sysctl("ipv6/conf/all/forwarding", "0")?;
    let by_card = || -> Result<(Option<i32>, Value)> {
        let args = ["--json", "--from", "eth0", &format!("{to}/tcp")];
        let run = node.lab.tool().netns(node.host()).args(&args).run()?;
        Ok((run.code, run.answer()?.clone()))
    };
    let (code, answer) = by_card()?;
    ensure!(code == Some(1) && why(&answer["reachable"][0]).contains("forwarding"), "{answer}");
    for device in ["eth0", "br0"] {
        if node.host().sysctl(&format!("ipv6/conf/{device}/force_forwarding"), "1").is_err() {
            eprintln!("NOT TESTED: this kernel has no force_forwarding (Linux 6.17)");
            return Ok(());
        }
    }
    // Link-local addresses that were given a moment ago are not used at once.
    let web = Landing::At("web".to_owned());
    let mut tries = (0..5).map(|_| node.outside.connect("tcp", to));
    ensure!(tries.any(|landed| landed.is_ok_and(|landed| landed == web)), "THE LAB: no way");
    let (code, answer) = by_card()?;
    ensure!(code == Some(0), "{answer}");
    Ok(())
}

#[test]
fn rules_that_let_through_no_neighbour_discovery_cut_ipv6_off() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp [::]:{port}"))?;
    let (n, pod) = (node.number(), node.add_pod()?);
    node.host().address("br0", &format!("fd00:{n}:1::1/64"))?;
    pod.address("eth0", &format!("fd00:{n}:1::2/64"))?;
    let to = SocketAddr::new(node.ipv6(), port);
    let near = SocketAddr::new(format!("fd00:{n}:1::1").parse()?, port);
    let nft = |rules: &str| {
        let table = format!(
            "table inet f {{ chain in {{ type filter hook input priority 0; policy drop;
               ct state established,related accept
               iif lo accept
               tcp dport {port} accept
               {rules}\n}}\n}}"
        );
        node.lab.nft(node.host(), &table)
    };
    let iptables = |args: &str| -> Test {
        let run = std::process::Command::new("ip")
            .args(["netns", "exec", &node.host().name, "ip6tables-legacy"])
            .args(args.split(' '))
            .output()?;
        ensure!(run.status.success(), "{args}: {}", String::from_utf8_lossy(&run.stderr));
        Ok(())
    };
    let asked = "-p icmpv6 --icmpv6-type neighbour-solicitation";
    for (rules, open) in [
        ("nft", false),
        ("nft icmpv6 type echo-request accept", false),
        ("nft icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept", true),
        ("nft meta l4proto ipv6-icmp accept", true),
        ("nft ct state untracked accept", true),
        ("legacy", false),
        ("legacy ask", true),
    ] {
        match rules.strip_prefix("nft") {
            Some(rules) => nft(rules)?,
            None => {
                iptables(&format!("-A INPUT -p tcp --dport {port} -j ACCEPT"))?;
                if rules.ends_with("ask") {
                    iptables(&format!("-A INPUT {asked} -j ACCEPT"))?;
                }
                iptables("-P INPUT DROP")?;
            }
        }
        for netns in [node.host(), &node.outside, &pod] {
            netns.ip(&["neigh", "flush", "all"])?;
        }
        // The question first: a connection makes neighbours known.
        let run = node.lab.tool().netns(node.host()).args(&["--json", &port.to_string()]).run()?;
        let plain = said(&run, "outside", to)?;
        let (code, answer) = from(&node, &pod, near)?;
        for (netns, to) in [(&node.outside, to), (&pod, near)] {
            let landed = netns.connect("tcp", to)?;
            ensure!(matches!(landed, Landing::At(_)) == open, "THE LAB: {rules}: {landed}");
        }
        ensure!(code == Some(i32::from(!open)), "{rules}: {answer}");
        ensure!(plain["reachable"] == open, "{rules}: {plain}");
        for said in [&plain, &answer["reachable"][0]] {
            ensure!(open || why(said).contains("neighbour discovery"), "{rules}: {said}");
        }
        if rules.starts_with("nft") {
            node.lab.nft(node.host(), "delete table inet f")?;
        } else {
            iptables("-P INPUT ACCEPT")?;
            iptables("-F INPUT")?;
        }
    }
    Ok(())
}

#[test]
fn who_does_not_answer_arp_for_an_address_is_not_reached_by_it() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let ip = node.serve_in_pod("web", port)?;
    let pod = node.pods[0].clone();
    let virtual_ip = Ipv4Addr::new(10, node.number(), 9, 9);
    pod.address("lo", &format!("{virtual_ip}/32"))?;
    node.host().ip(&["route", "add", &virtual_ip.to_string(), "dev", "br0"])?;
    for (mode, own, other) in
        [("0", true, true), ("1", true, false), ("2", true, false), ("8", false, false)]
    {
        pod.sysctl("ipv4/conf/eth0/arp_ignore", mode)?;
        for (address, open) in [(ip, own), (virtual_ip, other)] {
            node.host().ip(&["neigh", "flush", "all"])?;
            let to = SocketAddr::from((address, port));
            let (code, answer) = from(&node, node.host(), to)?;
            let landed = node.host().connect("tcp", to)?;
            ensure!(matches!(landed, Landing::At(_)) == open, "THE LAB: {mode}: {to}: {landed}");
            ensure!(code == Some(i32::from(!open)), "{mode}: {to}: {answer}");
            let said = &answer["reachable"][0];
            ensure!(open || why(said).contains("arp_ignore"), "{said}");
        }
    }
    // Who is known already is not asked.
    pod.sysctl("ipv4/conf/eth0/arp_ignore", "0")?;
    let to = SocketAddr::from((ip, port));
    ensure!(matches!(node.host().connect("tcp", to)?, Landing::At(_)), "THE LAB");
    pod.sysctl("ipv4/conf/eth0/arp_ignore", "8")?;
    let (code, answer) = from(&node, node.host(), to)?;
    ensure!(code == Some(0), "{answer}");
    Ok(())
}

/// Checks what is said of one connection against what happens.
fn agrees(node: &Node, sender: &Netns, to: SocketAddr, open: bool, word: &str) -> Test {
    let landed = sender.connect("tcp", to)?;
    ensure!(matches!(landed, Landing::At(_)) == open, "THE LAB: {}: {landed}", sender.name);
    let (code, answer) = from(node, sender, to)?;
    let said = &answer["reachable"][0];
    // Not known is right, too, where something was not evaluated.
    let right = if open { code == Some(0) } else { code != Some(0) && why(said).contains(word) };
    ensure!(right, "{}: {code:?}: {answer}", sender.name);
    Ok(())
}

#[test]
fn what_follows_the_answer_has_to_get_through_as_well() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let (port, outer, inner) = (lab::unused_port()?, lab::unused_port()?, lab::unused_port()?);
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let ip = node.serve_in_pod("inner", inner)?;
    let other = node.add_pod()?;
    let (host, own) = (node.host().clone(), SocketAddr::from((node.ip(), port)));
    let published = SocketAddr::from((node.ip(), outer));
    let loopback = SocketAddr::from((LOOPBACK, port));
    let nat = format!(
        "table ip n {{ chain pre {{ type nat hook prerouting priority dstnat;
           tcp dport {outer} dnat to {ip}:{inner}\n}}
         chain post {{ type nat hook postrouting priority srcnat;
           ip daddr {ip} masquerade\n}}\n}}"
    );
    node.lab.nft(&host, &nat)?;
    for (chain, rules, open) in [
        ("input", "ct state new accept; iif lo accept; drop", [false, true, true]),
        ("input", "ct state established drop", [false, false, true]),
        ("input", "tcp flags & (syn|ack) != syn tcp dport PORT drop", [false, false, true]),
        ("input", "tcp flags == ack tcp dport PORT reject with tcp reset", [false, false, true]),
        ("input", "ct state { new, established } accept; drop", [true, true, true]),
        ("forward", "ct state new accept; tcp sport INNER accept; drop", [true, true, false]),
        ("forward", "ct state established,new accept; drop", [true, true, true]),
        ("output", "ct state new accept; tcp sport PORT accept; drop", [true, false, true]),
        // NAT comes before it.
        ("prerouting", "ct state established tcp dport OUTER drop", [true, true, true]),
        ("prerouting", "ct state established tcp dport INNER drop", [true, true, false]),
    ] {
        let rules = rules
            .replace("PORT", &port.to_string())
            .replace("INNER", &inner.to_string())
            .replace("OUTER", &outer.to_string())
            .replace("; ", "\n");
        let table = format!(
            "table ip f {{ chain c {{ type filter hook {chain} priority 0\n{rules}\n}}\n}}"
        );
        node.lab.nft(&host, &table)?;
        let word = "its answer";
        let cases = [(&other, own), (&host, loopback), (&other, published)];
        for ((sender, to), open) in cases.into_iter().zip(open) {
            agrees(&node, sender, to, open, word).with_context(|| format!("{chain}: {rules}"))?;
        }
        node.lab.nft(&host, "delete table ip f")?;
    }
    Ok(())
}

#[test]
fn rules_for_the_frames_of_a_port_or_bridge_count_for_answers_too() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let ip = node.serve_in_pod("inner", inner)?;
    let (host, pod) = (node.host().clone(), node.pods[0].clone());
    let (own, there) = (SocketAddr::from((node.gateway(), port)), SocketAddr::from((ip, inner)));
    let chain = |table: &str, hook: &str, rule: &str| {
        format!("table {table} f {{ chain c {{ type filter hook {hook}\n{rule}\n}}\n}}")
    };
    for (table, rules) in [
        (
            "netdev",
            chain("netdev", "ingress device veth0 priority 0", &format!("tcp sport {inner} drop")),
        ),
        (
            "netdev",
            chain("netdev", "ingress device veth0 priority 0", &format!("tcp dport {port} drop")),
        ),
        ("bridge", chain("bridge", "prerouting priority 0", "iifname veth0 ip protocol tcp drop")),
    ] {
        node.lab.nft(&host, &rules)?;
        for (sender, to) in [(&host, there), (&pod, own)] {
            let open = matches!(sender.connect("tcp", to)?, Landing::At(_));
            let (code, answer) = from(&node, sender, to)?;
            ensure!(code == Some(3) || open && code == Some(0), "{rules}: {open}: {answer}");
        }
        node.lab.nft(&host, &format!("delete table {table} f"))?;
    }
    Ok(())
}

#[test]
fn answers_that_are_not_forwarded_or_go_to_somebody_else_are_no_answers() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let inner = lab::unused_port()?;
    let ip = node.serve_in_pod("inner", inner)?;
    let to = SocketAddr::from((ip, inner));
    let (host, pod) = (node.host().clone(), node.pods[0].clone());
    let other = node.add_pod()?;
    let (gateway, gone) = (node.gateway().to_string(), node.pod_ip(1).to_string());
    // A client behind a network of its own.
    let far = node.lab.netns("far")?;
    let n = node.number();
    let pair = ["link", "add", "vfar", "type", "veth", "peer", "name", "eth0", "netns"];
    host.ip(&[&pair[..], &[&far.name]].concat())?;
    host.address("vfar", &format!("10.{n}.7.1/24"))?;
    far.address("eth0", &format!("10.{n}.7.2/24"))?;
    host.ip(&["link", "set", "vfar", "up"])?;
    far.ip(&["link", "set", "eth0", "up"])?;
    far.ip(&["route", "add", "default", "via", &format!("10.{n}.7.1")])?;
    agrees(&node, &far, to, true, "")?;
    host.sysctl("ipv4/conf/br0/forwarding", "0")?;
    agrees(&node, &far, to, false, "")?;
    agrees(&node, &host, to, true, "")?;
    agrees(&node, &other, to, true, "")?;
    host.sysctl("ipv4/conf/br0/forwarding", "1")?;
    agrees(&node, &far, to, true, "")?;
    pod.ip(&["route", "replace", "default", "via", &gone])?;
    agrees(&node, &far, to, false, "")?;
    agrees(&node, &other, to, true, "")?;
    pod.ip(&["route", "replace", "default", "via", &gateway])?;
    agrees(&node, &far, to, true, "")
}

#[test]
fn the_unspecified_address_is_the_senders_own_loopback() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let (v4, v6) = (lab::unused_port()?, lab::unused_port()?);
    node.serve_here("four", &format!("tcp 127.0.0.1:{v4}"))?;
    node.serve_here("six", &format!("tcp [::1]:{v6}"))?;
    let host = node.host().clone();
    let pod = node.add_pod()?;
    for to in [SocketAddr::from((Ipv4Addr::UNSPECIFIED, v4)), format!("[::]:{v6}").parse()?] {
        agrees(&node, &host, to, true, "")?;
        agrees(&node, &pod, to, false, "")?;
    }
    Ok(())
}

#[test]
fn rules_that_see_bridged_frames_may_drop_or_translate_them() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let (here, inner) = (lab::unused_port()?, lab::unused_port()?);
    node.serve_here("web", &format!("tcp 0.0.0.0:{here}"))?;
    let ip = node.serve_in_pod("inner", inner)?;
    let (host, other) = (node.host().clone(), node.add_pod()?);
    if host.sysctl("bridge/bridge-nf-call-iptables", "1").is_err() {
        lab::skip_on_this_kernel("no br_netfilter");
        return Ok(());
    }
    let to = SocketAddr::from((ip, inner));
    agrees(&node, &other, to, true, "")?;
    for (chain, rule, said) in [
        ("filter hook prerouting priority -300", format!("ip daddr {ip} drop"), Some(1)),
        ("filter hook prerouting priority -300", format!("ip saddr {ip} drop"), Some(1)),
        ("filter hook postrouting priority 0", format!("tcp dport {inner} drop"), Some(1)),
        // It gets to the host, where another program listens.
        (
            "nat hook prerouting priority -100",
            format!("tcp dport {inner} redirect to :{here}"),
            Some(3),
        ),
        ("nat hook postrouting priority 100", "masquerade".to_owned(), Some(3)),
        ("nat hook prerouting priority -100", "fib daddr type local redirect".to_owned(), Some(0)),
    ] {
        let table = format!("table ip f {{ chain c {{ type {chain}\n{rule}\n}}\n}}");
        node.lab.nft(&host, &table)?;
        let landed = other.connect("tcp", to)?;
        ensure!(matches!(landed, Landing::At(_)) == (said != Some(1)), "THE LAB: {rule}: {landed}");
        let (code, answer) = from(&node, &other, to)?;
        ensure!(code == said, "{rule}: {code:?}: {answer}");
        node.lab.nft(&host, "delete table ip f")?;
    }
    Ok(())
}
