//! Connections that are open on a port, made for real through rules.

use std::io::Read as _;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use lab::{Lab, Netns, Test};
use serde_json::Value;

/// A host that passes its port on to two servers, and a client beside it.
struct Node {
    lab: Lab,
    client: Netns,
    servers: [Netns; 2],
}

const HOST: &str = "10.9.1.1";
const SERVERS: [&str; 2] = ["10.9.2.2", "10.9.3.2"];

impl Node {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let client = lab.netns("client")?;
        let servers = [lab.netns("one")?, lab.netns("two")?];
        lab.veth((lab.host(), "c", "10.9.1.1/24"), (&client, "eth0", "10.9.1.2/24"))?;
        lab.veth((lab.host(), "s1", "10.9.2.1/24"), (&servers[0], "eth0", "10.9.2.2/24"))?;
        lab.veth((lab.host(), "s2", "10.9.3.1/24"), (&servers[1], "eth0", "10.9.3.2/24"))?;
        for (server, gateway) in servers.iter().zip(["10.9.2.1", "10.9.3.1"]) {
            server.ip(&["route", "add", "default", "via", gateway])?;
        }
        let node = Self { lab, client, servers };
        node.host(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
        Ok(node)
    }

    /// Runs a command in the host's namespace.
    fn host(&self, argv: &[&str]) -> Result<()> {
        ensure!(self.lab.command(self.lab.host(), argv)?.status()?.success(), "{argv:?}");
        Ok(())
    }

    /// Adds or removes (`-D`) the rule that passes a port on to a server.
    fn rule(&self, what: &str, port: u16, server: usize) -> Result<()> {
        let (port, to) = (port.to_string(), format!("{}:80", SERVERS[server]));
        let rule = ["PREROUTING", "-p", "tcp", "--dport", &port, "-j", "DNAT", "--to", &to];
        self.host(&[&["iptables", "-w", "-t", "nat", what], rule.as_slice()].concat())
    }

    /// The answer to `args`, as JSON and as text.
    fn ask(&self, args: &[&str]) -> Result<(Value, String)> {
        let json = self.lab.whereis(args)?;
        let text = self.lab.tool().args(args).run()?;
        Ok((json.json["answers"][0].clone(), text.stdout))
    }
}

/// Connections that end with this.
struct Open(Child);

impl Open {
    /// Connects so many times.
    fn connect(lab: &Lab, from: &Netns, to: &str, port: u16, times: usize) -> Result<Self> {
        let open: String = (3..3 + times)
            .map(|fd| format!("exec {fd}<>/dev/tcp/{to}/{port} || exit 1; "))
            .collect();
        let script = format!("{open} echo x; read end");
        let mut child = lab
            .command(from, &["bash", "-c", &script])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = [0];
        child.stdout.as_mut().context("no output")?.read_exact(&mut ready)?;
        Ok(Self(child))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn has_iptables() -> bool {
    let has =
        ["/usr/sbin", "/sbin"].iter().any(|d| std::path::Path::new(d).join("iptables").exists());
    assert!(has || std::env::var_os("WHEREIS_PORT_REQUIRE_LAB").is_none(), "no iptables");
    has
}

#[test]
fn connections_through_rules_are_counted_and_listed_with_who_serves_them() -> Test {
    lab::root_or_skip!();
    if !has_iptables() {
        return Ok(());
    }
    let node = Node::new()?;
    let port = lab::unused_port()?;
    let target = format!("{port}/tcp");
    let _servers = [
        node.lab.listen(&node.servers[0], "tcp 0.0.0.0:80")?,
        node.lab.listen(&node.servers[1], "tcp 0.0.0.0:80")?,
        // As a userland proxy has it.
        node.lab.listen(node.lab.host(), &format!("tcp 0.0.0.0:{port}"))?,
    ];
    node.rule("-A", port, 0)?;
    let (answer, text) = node.ask(&[&target])?;
    ensure!(
        answer["flows"]["open"] == 0 && answer["flows"]["to"] == serde_json::json!([]),
        "{answer}"
    );
    ensure!(!text.contains("flows now"), "{text}");

    let _two = Open::connect(&node.lab, &node.client, HOST, port, 2)?;
    node.rule("-D", port, 0)?;
    node.rule("-A", port, 1)?;
    let _one = Open::connect(&node.lab, &node.client, HOST, port, 1)?;
    // What is not on the port is not counted.
    node.rule("-A", lab::unused_port()?, 1)?;

    let (answer, text) = node.ask(&[&target])?;
    let flows = &answer["flows"];
    ensure!(flows["open"] == 3 && flows["peers"] == 1 && flows["unanswered"] == 0, "{flows}");
    let to = |server: &str, connections: u64| serde_json::json!({"address": server, "port": 80, "connections": connections});
    ensure!(flows["to"] == Value::from(vec![to(SERVERS[0], 2), to(SERVERS[1], 1)]), "{flows}");
    ensure!(flows["namespaces"][0]["netns"]["inode"] == node.lab.host().inode, "{flows}");
    ensure!(flows["connections"].is_null(), "{flows}");
    let line = "3 from 1 peer, 2 → 10.9.2.2:80, 1 → 10.9.3.2:80";
    let has = |text: &str, line: &str| {
        text.lines().any(|l| l.contains("flows now:") && l.ends_with(line))
    };
    ensure!(has(&text, line), "{text}");

    let (answer, text) = node.ask(&[&target, "--flows"])?;
    let each = answer["flows"]["connections"].as_array().context("no list")?;
    ensure!(each.len() == 3, "{each:?}");
    for (flow, server) in each.iter().zip([SERVERS[0], SERVERS[0], SERVERS[1]]) {
        ensure!(flow["netns"]["inode"] == node.lab.host().inode, "{flow}");
        ensure!(
            flow["source"]["address"] == "10.9.1.2" && flow["source"] == flow["seen_as"],
            "{flow}"
        );
        ensure!(
            flow["destination"] == serde_json::json!({"address": HOST, "port": port}),
            "{flow}"
        );
        ensure!(flow["served_by"] == serde_json::json!({"address": server, "port": 80}), "{flow}");
        ensure!(flow["state"] == "established" && flow["answered"] == true, "{flow}");
    }
    ensure!(has(&text, line), "{text}");
    let listed = text.lines().filter(|l| l.contains(&format!("{HOST}:{port}/tcp ⇒ "))).count();
    ensure!(listed == 3 && text.contains("⇒ 10.9.3.2:80  established"), "{text}");

    // By the port behind it, and of a range only when asked to. Other tests have
    // connections on such ports, too, elsewhere.
    let here = |target: &str| -> Result<usize> {
        let (answer, _) = node.ask(&[target, "--flows"])?;
        let each = answer["flows"]["connections"].as_array().context("no list")?;
        let host = node.lab.host().inode;
        Ok(each.iter().filter(|flow| flow["netns"]["inode"] == host).count())
    };
    let range = format!("{port}-{}/tcp", port + 1);
    ensure!(here("80/tcp")? == 3 && here(&range)? == 3);
    ensure!(node.ask(&[&range])?.0["flows"].is_null());
    Ok(())
}

#[test]
fn what_was_recorded_is_told_again() -> Test {
    lab::root_or_skip!();
    if !has_iptables() {
        return Ok(());
    }
    let node = Node::new()?;
    let port = lab::unused_port()?;
    let target = format!("{port}/tcp");
    let _servers = [
        node.lab.listen(&node.servers[0], "tcp 0.0.0.0:80")?,
        node.lab.listen(node.lab.host(), &format!("tcp 0.0.0.0:{port}"))?,
    ];
    node.rule("-A", port, 0)?;
    let _two = Open::connect(&node.lab, &node.client, HOST, port, 2)?;
    let file = node.lab.dir().join("node.json");
    let file = file.to_str().context("path")?;
    let live = node.lab.whereis(&[&target, "--flows", "--record", file])?.json;
    ensure!(live["answers"][0]["flows"]["open"] == 2, "{live}");
    // Of all namespaces was read what is needed of some.
    for args in [[&*target, "--flows"].as_slice(), &[&target]] {
        let again = node.lab.whereis(&[args, &["--replay", file]].concat())?.json;
        ensure!(again["answers"][0]["flows"]["open"] == 2, "{again}");
    }
    // What was never read is a gap to who asks for it, and no news to others.
    let gaps = |args: &[&str]| -> Result<usize> {
        let run = node.lab.whereis(&[args, &["--replay", file]].concat())?;
        let gaps = run.json["answers"][0]["gaps"].as_array().context("no gaps")?.clone();
        Ok(gaps.iter().filter(|gap| gap["impact"] == "flow").count())
    };
    let udp = format!("{port}/udp");
    ensure!(gaps(&[&udp])? == 0 && gaps(&[&udp, "--flows"])? == 1);
    Ok(())
}

#[test]
fn without_rights_the_list_says_what_it_takes() -> Test {
    lab::root_or_skip!();
    if !has_iptables() {
        return Ok(());
    }
    let node = Node::new()?;
    let port = lab::unused_port()?;
    let target = format!("{port}/tcp");
    let _servers = [
        node.lab.listen(&node.servers[0], "tcp 0.0.0.0:80")?,
        node.lab.listen(node.lab.host(), &format!("tcp 0.0.0.0:{port}"))?,
    ];
    node.rule("-A", port, 0)?;
    let _one = Open::connect(&node.lab, &node.client, HOST, port, 1)?;
    let ask = |args: &[&str]| node.lab.tool().uid(65_534).args(args).run();
    let run = ask(&[&target, "--flows"])?;
    let line = run.stdout.lines().find(|line| line.contains("which connections are open"));
    ensure!(line.is_some(), "{}", run.stdout);
    ensure!(run.stdout.contains("reading conntrack takes CAP_NET_ADMIN"), "{}", run.stdout);
    let run = ask(&[&target])?;
    ensure!(!run.stdout.contains("which connections are open"), "{}", run.stdout);
    Ok(())
}

#[test]
fn flows_belong_to_a_question() -> Test {
    let lab = std::process::Command::new(lab::binary()?).args(["list", "--flows"]).output()?;
    ensure!(lab.status.code() == Some(2), "{lab:?}");
    let bare = std::process::Command::new(lab::binary()?).arg("--flows").output()?;
    let said = String::from_utf8_lossy(&bare.stderr).into_owned();
    ensure!(bare.status.code() == Some(2) && said.contains("belongs to a question"), "{bare:?}");
    Ok(())
}

#[test]
fn connections_confirm_rules_or_show_that_they_changed_since() -> Test {
    lab::root_or_skip!();
    if !has_iptables() {
        return Ok(());
    }
    let node = Node::new()?;
    let port = lab::unused_port()?;
    let target = format!("{port}/tcp");
    let _servers = [
        node.lab.listen(&node.servers[0], "tcp 0.0.0.0:80")?,
        node.lab.listen(&node.servers[1], "tcp 0.0.0.0:80")?,
    ];
    node.rule("-A", port, 0)?;
    let _open = Open::connect(&node.lab, &node.client, HOST, port, 3)?;
    let (answer, _) = node.ask(&[&target])?;
    let proof = answer["paths"][0]["hops"][1]["evidence"].to_string();
    ensure!(proof.contains("3 connections now translated to 10.9.2.2:80"), "{proof}");

    node.rule("-D", port, 0)?;
    node.rule("-A", port, 1)?;
    let (answer, text) = node.ask(&[&target])?;
    ensure!(answer["paths"][0]["hops"][1]["address"] == SERVERS[1], "{text}");
    let findings = answer["findings"].as_array().context("no findings")?;
    let old = findings.iter().find(|one| one["code"] == "old_connections").context(text.clone())?;
    let what = old["what"].as_str().unwrap_or_default();
    ensure!(what.ends_with("3 connections are still translated to 10.9.2.2:80"), "{old}");
    // What it proposes ends them.
    let command: Vec<&str> =
        old["fix"]["command"].as_array().into_iter().flatten().filter_map(|w| w.as_str()).collect();
    let deleted = std::process::Command::new("ip")
        .args(["netns", "exec", &node.lab.host().name])
        .args(&command)
        .output()?;
    ensure!(deleted.status.success(), "{command:?}: {}", String::from_utf8_lossy(&deleted.stderr));
    let (answer, text) = node.ask(&[&target])?;
    ensure!(!answer.to_string().contains("old_connections"), "{text}");
    Ok(())
}
