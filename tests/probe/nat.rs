//! Translations, as they happen.

use anyhow::{Context, ensure};
use lab::{Lab, Netns, Test, Trace};
use serde_json::Value;

/// The translations of this lab's namespaces that begin.
fn begun(events: &[Value], netns: &Netns) -> Vec<Value> {
    let ours = events.iter().filter(|event| event["netns"]["inode"] == netns.inode);
    ours.filter(|event| event["nat"]["begins"] == true).cloned().collect()
}

fn socket(value: &Value) -> String {
    format!("{}:{}", value["address"].as_str().unwrap_or("?"), value["port"])
}

#[test]
fn a_redirected_connection_is_told_once_with_both_tuples() -> Test {
    lab::root_or_skip!();
    if !lab::has("iptables") {
        lab::skip("iptables is not installed");
        return Ok(());
    }
    let lab = Lab::new()?;
    let client = lab.netns("client")?;
    lab.veth((lab.host(), "v0", "10.216.0.1/24"), (&client, "v1", "10.216.0.2/24"))?;
    let asked = lab::unused_port()?;
    let (redirected, behind) = (asked.to_string(), lab::unused_port()?);
    let to = format!("127.0.0.1:{behind}");
    let redirect = behind.to_string();
    let rules: [&[&str]; 2] = [
        &["PREROUTING", "-p", "tcp", "--dport", &redirected, "-j", "REDIRECT", "--to", &redirect],
        &["OUTPUT", "-p", "tcp", "--dport", &redirected, "-j", "DNAT", "--to", &to],
    ];
    for rule in rules {
        let argv = [&["iptables", "-t", "nat", "-A"], rule].concat();
        let status = lab.command(lab.host(), &argv)?.status()?;
        ensure!(status.success(), "{argv:?}: {status}");
    }
    let _server = lab.listen(lab.host(), &format!("tcp 0.0.0.0:{behind}"))?;
    let trace = Trace::start(lab.tool(), &["--json", "--events", "nat"])?;
    let connect = |netns: &Netns, address: &str| -> Test {
        let script = format!("exec 3<>/dev/tcp/{address}/{asked}");
        let status = lab.command(netns, &["bash", "-c", &script])?.status()?;
        ensure!(status.success(), "{script}: {status}");
        Ok(())
    };
    connect(&client, "10.216.0.1")?;
    connect(lab.host(), "127.0.0.1")?;
    let (events, _) = trace.interrupt()?;
    let told = begun(&events, lab.host());
    let nat = told.iter().map(|event| &event["nat"]).collect::<Vec<_>>();
    let [from_outside, from_here] = nat.as_slice() else { anyhow::bail!("{told:?}") };
    let source = from_outside["source"]["address"].as_str().context("no source")?;
    ensure!(source == "10.216.0.2", "{from_outside}");
    ensure!(from_outside["new_source"] == from_outside["source"], "{from_outside}");
    let asked_for = socket(&from_outside["destination"]);
    ensure!(asked_for == format!("10.216.0.1:{asked}"), "{from_outside}");
    let led_to = socket(&from_outside["new_destination"]);
    ensure!(led_to == format!("10.216.0.1:{behind}"), "{from_outside}");
    ensure!(socket(&from_here["destination"]) == format!("127.0.0.1:{asked}"), "{from_here}");
    ensure!(socket(&from_here["new_destination"]) == to, "{from_here}");
    ensure!(told[0]["port"] == asked && told[0]["proto"] == "tcp", "{}", told[0]);
    // The program on conntrack knows who sent a packet, and that nobody here sent
    // one that came in. Here only other kernels have kprobes.
    if lab::is_other_kernel() {
        ensure!(told.iter().all(|event| event["seen_by"] == "ebpf"), "{told:?}");
        ensure!(told[0]["actor"].is_null(), "{}", told[0]);
        ensure!(told[1]["actor"]["comm"] == "bash", "{}", told[1]);
    }
    Ok(())
}

#[test]
fn a_translation_is_asked_for_by_the_port_before_or_behind_it() -> Test {
    lab::root_or_skip!();
    if !lab::has("iptables") {
        lab::skip("iptables is not installed");
        return Ok(());
    }
    let lab = Lab::new()?;
    let ports = [(lab::unused_port()?, lab::unused_port()?), (lab::unused_port()?, 9)];
    for (asked, behind) in ports {
        let (asked, to) = (asked.to_string(), format!("127.0.0.1:{behind}"));
        let rule = ["-p", "udp", "--dport", &asked, "-j", "DNAT", "--to", &to];
        let argv = [&["iptables", "-t", "nat", "-A", "OUTPUT"], &rule[..]].concat();
        let status = lab.command(lab.host(), &argv)?.status()?;
        ensure!(status.success(), "{argv:?}: {status}");
    }
    let [(asked, behind), (other, _)] = ports;
    let by_asked = Trace::start(lab.tool(), &["--json", "-e", "nat", &asked.to_string()])?;
    let by_behind = Trace::start(lab.tool(), &["--json", "-e", "nat", &behind.to_string()])?;
    for port in [other, asked] {
        let script = format!("echo x >/dev/udp/127.0.0.1/{port}");
        // What nobody listens on may be refused.
        lab.command(lab.host(), &["bash", "-c", &script])?.status()?;
    }
    for trace in [by_asked, by_behind] {
        let (events, _) = trace.interrupt()?;
        let told = begun(&events, lab.host());
        let [event] = told.as_slice() else { anyhow::bail!("{told:?}") };
        ensure!(event["port"] == asked && event["proto"] == "udp", "{event}");
        ensure!(event["nat"]["new_destination"]["port"] == behind, "{event}");
    }
    Ok(())
}
