//! Questions about one sender, connections that are really made, and the same port elsewhere.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lab::{Landing, Run, Test};
use serde_json::Value;

use crate::paths::node::Node;

fn ask(node: &Node, args: &[&str]) -> Result<Run> {
    node.lab.tool().netns(node.host()).args(args).run()
}

/// The exit status of a question about one sender, which is to be what its verdict says.
fn through(run: &Run) -> Result<Option<bool>> {
    let through = match run.answer()?["verdict"].as_str() {
        Some("found") => Some(true),
        Some("not_found") => Some(false),
        _ => None,
    };
    let expected = match through {
        Some(true) => 0,
        Some(false) => 1,
        None => 3,
    };
    ensure!(run.code == Some(expected), "exit {:?}: {}", run.code, run.stdout);
    Ok(through)
}

fn first_reach(run: &Run) -> Result<&Value> {
    run.answer()?["reachable"].get(0).with_context(|| format!("no statement: {}", run.stdout))
}

#[test]
fn a_rule_that_asks_for_the_user_is_decided_for_a_process() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    node.serve_here("web", "tcp 0.0.0.0:8080")?;
    node.lab.nft(
        node.host(),
        "table ip t { chain out { type filter hook output priority 0; \
         tcp dport 8080 meta skuid 4711 reject with tcp reset\n}\n}",
    )?;
    let to = format!("{}:8080/tcp", node.ip());
    let plain = node.lab.listen_as(node.host(), 4711, "tcp 0.0.0.0:8081")?;
    let root = node.lab.listen(node.host(), "tcp 0.0.0.0:8082")?;
    for (pid, expected) in [(plain.pid, Some(false)), (root.pid, Some(true))] {
        let run = ask(&node, &["--json", "--from", &format!("pid:{pid}"), &to])?;
        ensure!(through(&run)? == expected, "pid {pid}: {}", run.stdout);
        ensure!(run.answer()?["sender"]["pid"] == pid, "{}", run.stdout);
        let conditions = first_reach(&run)?["conditions"].as_array().context("no conditions")?;
        ensure!(conditions.is_empty(), "{}", run.stdout);
    }
    // Of anybody it is not known.
    let run = ask(&node, &["--json", "--from", "127.0.0.1", &to])?;
    ensure!(through(&run)?.is_none(), "{}", run.stdout);
    Ok(())
}

#[test]
fn other_machines_are_told_apart_by_their_address() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    node.serve_here("web", "tcp 0.0.0.0:8080")?;
    let friend: IpAddr = node.outside_ip().into();
    node.lab.nft(
        node.host(),
        &format!(
            "table ip t {{ chain in {{ type filter hook input priority 0; \
             tcp dport 8080 ip saddr != {friend} iifname != \"lo\" drop\n}}\n}}"
        ),
    )?;
    let to = SocketAddr::new(node.ip().into(), 8080);
    let landed = node.outside.connect("tcp", to)?;
    ensure!(matches!(landed, Landing::At(_)), "THE LAB: {landed}");
    let question = format!("{to}/tcp");
    let stranger = format!("10.{}.0.77", node.number());
    for (from, expected) in [(friend.to_string(), Some(true)), (stranger, Some(false))] {
        let run = ask(&node, &["--json", "--from", &from, &question])?;
        ensure!(through(&run)? == expected, "{from}: {}", run.stdout);
    }
    let run = ask(&node, &["--json", "--from", "no-such-device", &question])?;
    ensure!(run.code == Some(2) && run.stderr.contains("nobody is called"), "{}", run.stderr);
    Ok(())
}

#[test]
fn connections_that_are_really_made_stand_beside_what_was_concluded() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    node.serve_here("web", "tcp 0.0.0.0:8080")?;
    let pod = node.add_pod()?;
    let run = ask(&node, &["--json", "--try", "8080/tcp"])?;
    ensure!(run.code == Some(0), "exit {:?}: {}", run.code, run.stdout);
    let reach = run.answer()?["reachable"].as_array().context("no statements")?;
    for from in ["loopback", "node", "containers"] {
        let tried = |r: &&Value| r["from"] == from && r["tried"] == "open";
        ensure!(reach.iter().any(|r| tried(&r)), "from {from}: {}", run.stdout);
    }
    let to = format!("{}:8081/tcp", node.ip());
    let from = format!("netns:{}", pod.inode);
    let run = ask(&node, &["--json", "--try", "--from", &from, &to])?;
    ensure!(through(&run)? == Some(false), "{}", run.stdout);
    ensure!(first_reach(&run)?["tried"] == "refused", "{}", run.stdout);
    let run = ask(&node, &["--json", "8080/tcp"])?;
    ensure!(first_reach(&run)?["tried"].is_null(), "{}", run.stdout);
    Ok(())
}

#[test]
fn the_same_port_in_other_namespaces_is_told_in_a_few_lines() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    node.serve_here("web", "tcp 0.0.0.0:8080")?;
    for n in 0..5 {
        node.serve_in_pod(&format!("inner{n}"), 8080)?;
    }
    let text = |args: &[&str]| -> Result<String> {
        let run = ask(&node, &[&["--color", "never", "8080/tcp"], args].concat())?;
        ensure!(run.code == Some(0), "exit {:?}: {}", run.code, run.stdout);
        Ok(run.stdout)
    };
    let usual = text(&[])?;
    ensure!(usual.lines().count() <= 25, "{} lines: {usual}", usual.lines().count());
    ensure!(usual.contains("elsewhere:") && usual.contains("× lab-helper, in netns"), "{usual}");
    ensure!(usual.matches("8080/tcp").count() == 2, "one tree, one headline: {usual}");
    let all = text(&["--all"])?;
    ensure!(!all.contains("elsewhere:") && all.matches("8080/tcp").count() > 6, "{all}");
    let name = format!("{}", node.pods[0].inode);
    let one = text(&["--netns", &name])?;
    ensure!(one.contains(&format!("{}:8080", node.pod_ip(0))), "{one}");
    // What is said of the own port is said first, and of no other.
    let run = ask(&node, &["--json", "8080/tcp"])?;
    let host = node.host().inode;
    let reach = run.answer()?["reachable"].as_array().context("no statements")?;
    let own: Vec<&Value> = reach.iter().filter(|r| r["netns"]["inode"] == host).collect();
    ensure!(own.len() >= 4, "{}", run.stdout);
    ensure!(own.iter().all(|r| r["reachable"] == true), "{}", run.stdout);
    Ok(())
}

#[test]
fn an_address_is_the_source_of_its_connections() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    node.serve_here("web", "tcp 0.0.0.0:8080")?;
    let pod = node.add_pod()?;
    let n = node.number();
    let (first, second) = (node.pod_ip(0).to_string(), format!("10.{n}.1.77"));
    pod.address("eth0", &format!("{second}/24"))?;
    let to = format!("{}:8080/tcp", node.gateway());
    let landed = pod.connect("tcp", SocketAddr::new(node.gateway().into(), 8080))?;
    ensure!(landed == Landing::At("web".to_owned()), "THE LAB: {landed}");
    for (rule, shut) in [("", &second), ("!=", &first)] {
        let rules = format!(
            "flush ruleset\ntable ip f {{ chain i {{ type filter hook input priority 0;\n\
             ip saddr {rule} {second} tcp dport 8080 drop\n}}\n}}"
        );
        node.lab.nft(node.host(), &rules)?;
        for address in [&first, &second] {
            let run = ask(&node, &["--json", "--from", address, &to])?;
            ensure!(through(&run)? == Some(address != shut), "{rule} {address}: {}", run.stdout);
        }
    }
    // One of this host's own.
    node.lab.nft(
        node.host(),
        &format!(
            "flush ruleset\ntable ip f {{ chain i {{ type filter hook input priority 0;\n\
             ip saddr {} tcp dport 8080 drop\n}}\n}}",
            node.ip()
        ),
    )?;
    for (address, open) in [(node.ip(), false), (node.gateway(), true)] {
        let run = ask(&node, &["--json", "--from", &address.to_string(), &to])?;
        ensure!(through(&run)? == Some(open), "{address}: {}", run.stdout);
    }
    Ok(())
}

#[test]
fn a_forwarder_that_takes_some_clients_only_is_nothing_to_the_others() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    node.serve_here("web", &format!("tcp 127.0.0.1:{inner}"))?;
    let friend = node.outside_ip();
    let stranger = format!("10.{}.0.77", node.number());
    let to = format!("{}:{port}/tcp", node.ip());
    let mask = format!("{friend}:255.255.255.255");
    for (option, known) in [
        (format!("range={friend}/32"), true),
        (format!("range={mask}"), true),
        ("lowport".to_owned(), false),
        ("sourceport=7".to_owned(), false),
        ("tcpwrap=web".to_owned(), false),
    ] {
        let listens = format!("TCP-LISTEN:{port},fork,{option}");
        let argv = ["socat", &listens, &format!("TCP:127.0.0.1:{inner}")];
        let socat = node.lab.listen_like(node.host(), &format!("tcp 0.0.0.0:{port}"), &argv)?;
        let senders = [(friend.to_string(), true), (stranger.clone(), false)];
        for (from, open) in senders.into_iter().chain([("127.0.0.1".to_owned(), false)]) {
            let run = ask(&node, &["--json", "--from", &from, &to])?;
            ensure!(through(&run)? == known.then_some(open), "{option} {from}: {}", run.stdout);
        }
        let run = ask(&node, &["--json", &format!("{port}/tcp")])?;
        let reach = run.answer()?["reachable"].as_array().context("no statements")?;
        let outside = reach.iter().find(|r| r["from"] == "outside").context("nothing outside")?;
        let conditions = outside["conditions"].as_array().context("no conditions")?;
        let client = conditions.iter().any(|one| one["code"] == "other_client");
        ensure!(client == known && (known || outside["reachable"].is_null()), "{outside}");
        let loopback = reach.iter().find(|r| r["from"] == "loopback").context("no loopback")?;
        ensure!(loopback["reachable"].as_bool() == known.then_some(false), "{loopback}");
        socat.kill()?;
    }
    Ok(())
}
