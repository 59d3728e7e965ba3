//! Rules that were left behind, and what removes them.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lab::Test;
use serde_json::Value;

use crate::paths::node::Node;

fn findings(node: &Node, port: u16) -> Result<Vec<Value>> {
    let run = node.lab.whereis(&[&format!("{port}/tcp")])?;
    Ok(run.answer()?["findings"].as_array().context("no findings")?.clone())
}

/// Does on the node what was proposed.
fn carry_out(node: &Node, command: &Value) -> Test {
    let words = command.as_array().context("no command")?.iter().filter_map(Value::as_str);
    let status = Command::new("ip")
        .args(["netns", "exec", &node.host().name])
        .args(words)
        .status()
        .context("ip netns exec")?;
    ensure!(status.success(), "{command}: {status}");
    Ok(())
}

fn commands(text: &str) -> Vec<Value> {
    let starts = ["nft delete", "iptables-legacy", "ip6tables-legacy"];
    text.split([':', ';'])
        .map(str::trim)
        .filter(|part| starts.iter().any(|start| part.starts_with(start)))
        .map(|part| part.split(' ').map(Value::from).collect())
        .collect()
}

#[test]
fn a_rule_that_comes_too_late_is_named_with_what_removes_either() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let first = node.serve_in_pod("first", inner)?;
    let second = node.serve_in_pod("second", inner)?;
    let nft = format!(
        "table ip a {{ chain pre {{ type nat hook prerouting priority -110;
           tcp dport {port} dnat to {first}:{inner}\n}}\n}}
         table ip b {{ chain pre {{ type nat hook prerouting priority -100;
           tcp dport {port} dnat to {second}:{inner}
           tcp dport 1-65535 dnat to {second}:1\n}}\n}}"
    );
    let legacy = |to: Ipv4Addr| {
        format!("-t nat -A PREROUTING -p tcp --dport {port} -j DNAT --to-destination {to}:{inner}")
    };
    for legacy_rules in [false, true] {
        if legacy_rules {
            for to in [first, second] {
                let words: Vec<Value> =
                    format!("iptables-legacy {}", legacy(to)).split(' ').map(Value::from).collect();
                carry_out(&node, &words.into())?;
            }
        } else {
            node.lab.nft(node.host(), &nft)?;
        }
        let found = findings(&node, port)?;
        ensure!(found.len() == 1 && found[0]["code"] == "shadowed_rule", "{found:?}");
        let what = found[0]["what"].as_str().unwrap_or_default();
        let goes = format!("it goes to {first}:{inner}, and never to {second}:{inner}");
        ensure!(what.ends_with(&goes), "{what}");
        let text = found[0]["fix"]["text"].as_str().unwrap_or_default();
        let both = commands(text);
        ensure!(both.len() == 2, "{text}");
        // Without the first one it goes where the second one leads.
        carry_out(&node, &both[0])?;
        let found = findings(&node, port)?;
        ensure!(found.is_empty(), "{found:?}");
        let run = node.lab.whereis(&[&format!("{port}/tcp")])?;
        let to = &run.answer()?["paths"][0]["hops"][1]["address"];
        ensure!(*to == second.to_string().as_str(), "{}", run.stdout);
        if !legacy_rules {
            node.lab.nft(node.host(), "delete table ip a; delete table ip b")?;
        }
    }
    Ok(())
}

#[test]
fn rules_of_both_kinds_of_tables_for_one_port_are_told() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let first = node.serve_in_pod("first", inner)?;
    let second = node.serve_in_pod("second", inner)?;
    for (program, to) in [("iptables-nft", first), ("iptables-legacy", second)] {
        let rule = format!(
            "{program} -t nat -A PREROUTING -p tcp --dport {port} -j DNAT --to-destination {to}:{inner}"
        );
        carry_out(&node, &rule.split(' ').map(Value::from).collect())?;
    }
    let found = findings(&node, port)?;
    ensure!(found.len() == 1 && found[0]["code"] == "shadowed_rule", "{found:?}");
    let what = found[0]["what"].as_str().unwrap_or_default();
    for to in [first, second] {
        ensure!(what.contains(&format!("{to}:{inner}")), "{what}");
    }
    // Without one of them the other is sure.
    let both = commands(found[0]["fix"]["text"].as_str().unwrap_or_default());
    ensure!(both.len() == 2, "{found:?}");
    carry_out(&node, &both[0])?;
    ensure!(findings(&node, port)?.is_empty(), "{:?}", findings(&node, port)?);
    Ok(())
}

#[test]
fn rules_that_share_or_take_what_is_left_shadow_nothing() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let first = node.serve_in_pod("first", inner)?;
    let second = node.serve_in_pod("second", inner)?;
    for rules in [
        // One of two, by chance.
        format!(
            "tcp dport {port} numgen random mod 2 == 0 dnat to {first}:{inner}
             tcp dport {port} dnat to {second}:{inner}"
        ),
        // Those that come in from one network, and all others.
        format!(
            "tcp dport {port} ip saddr 10.0.0.0/8 dnat to {first}:{inner}
             tcp dport {port} dnat to {second}:{inner}"
        ),
        // A port, and all that nobody else wants.
        format!(
            "tcp dport {port} dnat to {first}:{inner}
             meta l4proto tcp dnat to {second}:{inner}"
        ),
        // The same twice.
        format!(
            "tcp dport {port} dnat to {first}:{inner}
             tcp dport {port} dnat to {first}:{inner}"
        ),
    ] {
        let table = format!(
            "table ip t {{ chain pre {{ type nat hook prerouting priority -100;\n{rules}\n}}\n}}"
        );
        node.lab.nft(node.host(), &table)?;
        let found = findings(&node, port)?;
        ensure!(found.is_empty(), "{rules}: {found:?}");
        node.lab.nft(node.host(), "delete table ip t")?;
    }
    Ok(())
}

#[test]
fn a_rule_that_leads_to_nobody_is_named_with_what_removes_it() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let there = node.serve_in_pod("web", inner)?;
    let gone = node.pod_ip(100);
    node.lab.nft(
        node.host(),
        &format!(
            "table ip t {{ chain pre {{ type nat hook prerouting priority -100;
               tcp dport {port} dnat to {gone}:{inner}
               tcp dport {inner} dnat to {there}:{inner}\n}}\n}}"
        ),
    )?;
    let mut found = findings(&node, port)?;
    // Namespaces of other tests that go meanwhile might be joined to the bridge.
    for _ in 0..20 {
        if !found.is_empty() {
            break;
        }
        found = findings(&node, port)?;
    }
    ensure!(found.len() == 1 && found[0]["code"] == "rule_to_nobody", "{found:?}");
    ensure!(findings(&node, inner)?.is_empty());
    carry_out(&node, &found[0]["fix"]["command"])?;
    let run = node.lab.whereis(&[&format!("{port}/tcp")])?;
    ensure!(run.code == Some(1), "{}", run.stdout);
    Ok(())
}
