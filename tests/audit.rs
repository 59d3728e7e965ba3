//! What others can reach, as `audit` says it, and as connections that are really made show it; and
//! what `diff` says is different.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, ensure};
use lab::{Lab, Landing, Netns, Proc, Run, Test};
use serde_json::Value;

/// A host with a firewall, another machine, and a pod on a bridge.
struct Node {
    // Processes go before the lab that they are in.
    servers: Vec<Proc>,
    lab: Lab,
    outside: Netns,
    pod: Netns,
    number: u8,
}

impl Node {
    fn new() -> Result<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let lab = Lab::new()?;
        let host = lab.host();
        let outside = lab.netns("outside")?;
        let pod = lab.netns("pod")?;
        let at = |last: &str| format!("10.{number}.{last}/24");
        let v6 = |last: u8| format!("fd0a:{number}::{last}/64");
        lab.lan(&[(host, &[&at("0.1"), &v6(1)]), (&outside, &[&at("0.2"), &v6(2)])])?;
        outside.ip(&["route", "add", "default", "via", &format!("10.{number}.0.1")])?;
        host.ip(&["route", "add", "default", "via", &format!("10.{number}.0.2")])?;
        lab.bridge(host, "br0", &at("1.1"))?;
        host.ip(&[
            "link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", &pod.name,
        ])?;
        host.ip(&["link", "set", "v0", "master", "br0", "up"])?;
        pod.address("eth0", &at("1.2"))?;
        pod.ip(&["link", "set", "eth0", "up"])?;
        pod.ip(&["route", "add", "default", "via", &format!("10.{number}.1.1")])?;
        host.sysctl("ipv4/ip_forward", "1")?;
        Ok(Self { servers: Vec::new(), lab, outside, pod, number })
    }

    fn ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, 0, 1)
    }

    fn ipv6(&self) -> Result<IpAddr> {
        Ok(format!("fd0a:{}::1", self.number).parse()?)
    }

    fn pod_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, 1, 2)
    }

    fn serve(&mut self, netns: &Netns, listen: &str) -> Result<u32> {
        let process = self.lab.listen(netns, &format!("{listen} --answer it"))?;
        let pid = process.pid;
        self.servers.push(process);
        Ok(pid)
    }

    fn serve_here(&mut self, listen: &str) -> Result<u32> {
        let host = self.lab.host().clone();
        self.serve(&host, listen)
    }

    fn host(&self, argv: &[&str]) -> Test {
        ensure!(self.lab.command(self.lab.host(), argv)?.status()?.success(), "{argv:?}");
        Ok(())
    }

    /// Rules of `iptables`, one a line.
    fn iptables(&self, rules: &str) -> Test {
        for rule in rules.lines().map(str::trim).filter(|rule| !rule.is_empty()) {
            let mut argv = vec!["iptables", "-w"];
            argv.extend(rule.split_whitespace());
            self.host(&argv)?;
        }
        Ok(())
    }

    /// Whether the other machine really gets to an address.
    fn gets(&self, address: impl Into<IpAddr>, port: u16) -> Result<bool> {
        let landed = self.outside.connect("tcp", SocketAddr::new(address.into(), port))?;
        Ok(matches!(landed, Landing::At(_)))
    }

    /// An audit of the host's own ports, and what is published here of others.
    fn audit(&self, args: &[&str]) -> Result<Run> {
        self.lab.tool().args(&["--json", "--no-kube", "audit"]).args(args).run()
    }

    /// The same of one namespace only: other labs have ports as well.
    fn own(&self) -> String {
        self.lab.host().inode.to_string()
    }
}

/// What an audit says of one sender and address of a port.
fn open(run: &Run, netns: &Netns, port: u16, from: &str, to: &str) -> Result<Option<bool>> {
    let all = run.json["exposures"].as_array().context("no exposures")?;
    let is_it = |one: &&Value| one["netns"]["inode"] == netns.inode && one["port"] == port;
    let one = all.iter().find(is_it).with_context(|| format!("no port {port}: {}", run.stdout))?;
    let openings = one["openings"].as_array().context("no openings")?;
    let of = |one: &&Value| one["from"] == from;
    let at = openings.iter().filter(of).find(|one| one["address"] == to);
    // Where nothing takes it at any address, no address is told.
    let any = openings.iter().filter(of).find(|one| one["address"].is_null());
    let found = at.or(any).with_context(|| format!("nothing of {from} to {to}: {one}"))?;
    Ok(found["open"].as_bool())
}

/// The ports of each finding in a namespace.
fn findings(run: &Run, netns: &Netns) -> Result<BTreeMap<String, Vec<u64>>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for one in run.json["audit_findings"].as_array().context("no findings")? {
        let code = one["code"].as_str().context("no code")?;
        for place in one["ports"].as_array().into_iter().flatten() {
            if place["netns"]["inode"] == netns.inode {
                let ports = found.entry(code.to_owned()).or_default();
                ports.extend(place["first"].as_u64());
            }
        }
    }
    Ok(found)
}

/// Rules as ufw and firewalld leave them: only ssh is let in, and Docker publishes a port.
const FIREWALL: &str = "-P INPUT DROP
    -A INPUT -i lo -j ACCEPT
    -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A INPUT -p tcp --dport 22 -j ACCEPT";

#[test]
fn what_is_published_past_a_firewall_is_open_and_a_finding() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let pod = node.pod.clone();
    node.serve(&pod, "tcp 0.0.0.0:80")?;
    node.serve_here("tcp 0.0.0.0:22")?;
    node.serve_here("tcp [::]:9090")?;
    node.serve_here("tcp 127.0.0.1:9091")?;
    node.iptables(FIREWALL)?;
    let to = format!("{}:80", node.pod_ip());
    node.iptables(&format!("-t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to {to}"))?;
    let (ip, v6) = (node.ip(), node.ipv6()?);
    for (address, port, expected) in [
        (ip.into(), 22, true),
        (ip.into(), 8080, true),
        (ip.into(), 9090, false),
        (v6, 9090, true),
        (ip.into(), 9091, false),
    ] {
        ensure!(node.gets(address, port)? == expected, "THE LAB: {address} {port}");
    }
    let run = node.audit(&[])?;
    let host = node.lab.host();
    let at = |port: u16| format!("{ip}:{port}");
    ensure!(open(&run, host, 22, "outside", &at(22))? == Some(true));
    ensure!(open(&run, host, 8080, "outside", &at(8080))? == Some(true));
    ensure!(open(&run, host, 9090, "outside", &at(9090))? == Some(false));
    ensure!(open(&run, host, 9090, "outside", &format!("[{v6}]:9090"))? == Some(true));
    ensure!(open(&run, host, 9091, "outside", &at(9091))? == Some(false));
    ensure!(open(&run, host, 9091, "loopback", "127.0.0.1:9091")? == Some(true));
    let found = findings(&run, host)?;
    let expected = [("ipv6_open", vec![9090]), ("published_past_firewall", vec![8080])];
    let expected = expected.map(|(code, ports)| (code.to_owned(), ports));
    // Behind a firewall that is for IPv4 alone, what is bound to all addresses is open by IPv6.
    let mut found_here = found.clone();
    let none = found_here.remove("no_firewall");
    ensure!(found_here == BTreeMap::from(expected), "{found:?}");
    ensure!(none.is_none_or(|ports| ports == [9090]), "{found:?}");
    ensure!(run.code == Some(1), "{:?}", run.code);
    Ok(())
}

#[test]
fn a_pod_that_is_reached_by_a_route_is_a_finding_and_one_that_is_not_is_none() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let pod = node.pod.clone();
    node.serve(&pod, "tcp 0.0.0.0:80 tcp 127.0.0.1:81")?;
    let ip = node.pod_ip();
    ensure!(node.gets(ip, 80)? && !node.gets(ip, 81)?, "THE LAB");
    let run = node.audit(&[])?;
    ensure!(open(&run, &pod, 80, "outside", &format!("{ip}:80"))? == Some(true));
    ensure!(open(&run, &pod, 80, "node", &format!("{ip}:80"))? == Some(true));
    let found = findings(&run, &pod)?;
    ensure!(found == BTreeMap::from([("open_by_route".to_owned(), vec![80])]), "{found:?}");
    // A list and a line for scripts have a word of their own for it.
    let words = || -> Result<(String, String)> {
        let ask = |args: &[&str]| node.lab.tool().netns(node.lab.host()).args(args).run();
        let inode = pod.inode.to_string();
        let list = ["list", "--netns", &inode, "-w", "port=80", "-O", "reach", "-o", "csv"];
        let list = ask(&list)?.stdout.lines().last().unwrap_or_default().to_owned();
        let line = ask(&["-q", &format!("{ip}:80/tcp")])?.stdout;
        Ok((list, line.split(' ').nth(7).unwrap_or_default().to_owned()))
    };
    let both = |word: &str| (word.to_owned(), word.to_owned());
    let said = words()?;
    ensure!(said == both("route"), "{said:?}");
    node.iptables(&format!("-A FORWARD -d {ip} -i eth0 -j DROP"))?;
    ensure!(!node.gets(ip, 80)?, "THE LAB: with a rule");
    let found = findings(&node.audit(&[])?, &pod)?;
    ensure!(found.is_empty(), "{found:?}");
    let said = words()?;
    ensure!(said == both("node"), "{said:?}");
    Ok(())
}

#[test]
fn a_generated_policy_is_clean_and_what_comes_later_is_a_finding() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let pod = node.pod.clone();
    node.serve(&pod, "tcp 0.0.0.0:80")?;
    node.serve_here("tcp 0.0.0.0:22 tcp 127.0.0.1:9091 udp [::]:5353")?;
    node.iptables(FIREWALL)?;
    let to = format!("{}:80", node.pod_ip());
    node.iptables(&format!("-t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to {to}"))?;
    let own = node.own();
    let only = ["--netns", own.as_str()];
    let made =
        node.lab.tool().args(&["--no-kube", "audit", "--generate-policy"]).args(&only).run()?;
    ensure!(matches!(made.code, Some(0 | 3)), "{:?}: {}", made.code, made.stderr);
    let policy = node.lab.dir().join("open.toml");
    std::fs::write(&policy, &made.stdout)?;
    let path = policy.to_str().context("a path")?;
    let with = |more: &[&str]| node.audit(&[&["--policy", path], only.as_slice(), more].concat());
    let clean = with(&[])?;
    ensure!(findings(&clean, node.lab.host())?.is_empty(), "{}{}", made.stdout, clean.stdout);
    // Other labs may hide something; nothing of this one does.
    ensure!(matches!(clean.code, Some(0 | 3)) && clean.json["not_known"] == 0, "{}", clean.stdout);
    node.iptables("-A INPUT -p tcp --dport 8443 -j ACCEPT")?;
    node.serve_here("tcp 0.0.0.0:8443")?;
    let found = with_policy(&node, path)?;
    let of = found.get("not_allowed").context("no finding")?;
    ensure!(of.iter().all(|port| *port == 8443), "{found:?}");
    let outside = node.audit(&["--policy", path, "--netns", &own, "--senders", "outside"])?;
    let found = findings(&outside, node.lab.host())?;
    ensure!(found.get("not_allowed") == Some(&vec![8443]), "{found:?}");
    ensure!(outside.code == Some(1), "{:?}", outside.code);
    Ok(())
}

fn with_policy(node: &Node, path: &str) -> Result<BTreeMap<String, Vec<u64>>> {
    let own = node.own();
    findings(&node.audit(&["--policy", path, "--netns", &own])?, node.lab.host())
}

#[test]
fn a_policy_that_is_wrong_is_refused_with_its_place() -> Test {
    let dir = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<PathBuf> {
        let path = dir.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let policy = file("p.toml", "[[allow]]\nform = [\"outside\"]\nports = [\"x\"]\n")?;
    let policy = policy.to_str().context("a path")?;
    let run = lab::ask(&["audit", "--policy", policy])?;
    ensure!(run.code == Some(2) && run.stdout.is_empty(), "{:?}", run.code);
    ensure!(run.stderr.contains(&format!("{policy}:2:1: no key \"form\"")), "{}", run.stderr);
    ensure!(run.stderr.contains(&format!("{policy}:3:10: \"x\" is no port")), "{}", run.stderr);
    for (args, says) in [
        (&["audit", "--policy", "/nowhere/p.toml"][..], "/nowhere/p.toml"),
        (&["audit", "--profile", "k8s"], "kubeadm-worker"),
        (&["audit", "--json", "-o", "sarif"], "two forms"),
        (&["audit", "--senders", "everybody"], "everybody"),
        (&["audit", "--generate-policy", "--policy", policy], "--generate-policy"),
        (&["diff"], "<A>"),
        (&["diff", policy], policy),
        (&["diff", "/nowhere/a.json"], "/nowhere/a.json"),
    ] {
        let run = lab::ask(args)?;
        ensure!(run.code == Some(2) && run.stderr.contains(says), "{args:?}: {}", run.stderr);
    }
    Ok(())
}

#[test]
fn ports_that_are_alike_are_told_as_each_of_them_is() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let pod = node.pod.clone();
    node.serve(&pod, "tcp 0.0.0.0:80")?;
    node.host(&["iptables", "-w", "-N", "ONLY"])?;
    let to = |port: u16| {
        format!("-t nat -A PREROUTING -p tcp --dport {port} -j DNAT --to {}:80", node.pod_ip())
    };
    // Ninety that are alike, one that leads to nobody, and one that a rule stops before.
    let rules: Vec<String> = (21_000..21_090).map(to).collect();
    node.iptables(&rules.join("\n"))?;
    let gone =
        format!("-t nat -A PREROUTING -p tcp --dport 21091 -j DNAT --to {}:81", node.pod_ip());
    node.iptables(&gone)?;
    node.iptables("-t raw -A PREROUTING -i eth0 -p tcp --dport 21007 -j DROP")?;
    let (ip, own) = (node.ip(), node.own());
    for (port, expected) in [(21_000, true), (21_089, true), (21_091, false), (21_007, false)] {
        ensure!(node.gets(ip, port)? == expected, "THE LAB: {port}");
    }
    let grouped = node.audit(&["--netns", &own])?;
    let every = node.audit(&["--netns", &own, "--every"])?;
    ensure!(grouped.json["grouped"].as_u64() >= Some(80), "{}", grouped.json["grouped"]);
    ensure!(every.json["grouped"] == 0, "{}", every.json["grouped"]);
    let told = |run: &Run| -> Result<Vec<Value>> {
        let mut all = run.json["exposures"].as_array().context("no exposures")?.clone();
        all.retain(|one| one["netns"]["inode"] == node.lab.host().inode);
        for one in &mut all {
            one["like"] = Value::Null;
        }
        Ok(all)
    };
    for (one, other) in told(&grouped)?.iter().zip(&told(&every)?) {
        ensure!(one == other, "{one}\n{other}");
    }
    ensure!(told(&grouped)?.len() == told(&every)?.len());
    let host = node.lab.host();
    for (port, expected) in [(21_000, true), (21_089, true), (21_091, false), (21_007, false)] {
        let said = open(&grouped, host, port, "outside", &format!("{ip}:{port}"))?;
        ensure!(said == Some(expected), "{port}: {said:?}");
    }
    Ok(())
}

#[test]
fn a_profile_says_what_is_missing_shut_or_held_by_another() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    node.serve_here(
        "tcp 0.0.0.0:22 tcp 0.0.0.0:6443 tcp 0.0.0.0:10256 tcp 127.0.0.1:2379 udp 0.0.0.0:8472",
    )?;
    node.iptables(FIREWALL)?;
    node.iptables("-A INPUT -p tcp --dport 2379 -j ACCEPT")?;
    let line = |ports: &str, owner: &str, required: bool| {
        format!(
            "[[profile.port]]\nports = \"{ports}\"\nfrom = \"outside\"\nowner = [\"{owner}\"]\nrequired = {required}\nrole = \"of {ports}\"\nsource = \"https://example.org\"\n"
        )
    };
    let us = "process:lab-helper";
    let text = ["[[profile]]\nname = \"mine\"\n".to_owned()]
        .into_iter()
        .chain([
            line("22/tcp", us, true),
            line("6443/tcp", us, true),
            line("2379/tcp", us, true),
            line("9345/tcp", us, true),
            line("8472/udp", "kernel:cilium_vxlan", true),
            line("10250/tcp", us, false),
            line("10256/tcp", us, false) + "only = \"with balancers\"\nmay-be-shut = true\n",
        ])
        .collect::<String>();
    let file = node.lab.dir().join("mine.toml");
    std::fs::write(&file, text)?;
    ensure!(node.gets(node.ip(), 22)? && !node.gets(node.ip(), 6443)?, "THE LAB");
    let run = node.audit(&["--profile", file.to_str().context("a path")?])?;
    let checks = run.json["profiles"][0]["checks"].as_array().context("no checks")?;
    let state = |port: u64| -> Result<&str> {
        let one = checks.iter().find(|one| one["first"] == port).context("no check")?;
        one["state"].as_str().context("no state")
    };
    // What other labs hide may be a port of this one, as far as the tool can know.
    ensure!(state(22)? == "met" && state(6443)? == "unreachable", "{checks:?}");
    ensure!(state(2379)? == "unreachable" && state(8472)? == "held_by_other", "{checks:?}");
    ensure!(matches!(state(9345)?, "missing" | "unknown"), "{checks:?}");
    ensure!(matches!(state(10250)?, "unused" | "unknown"), "{checks:?}");
    // Who needs that does not show here: it is said, and no finding.
    ensure!(state(10256)? == "closed", "{checks:?}");
    let findings = run.json["audit_findings"].as_array().context("no findings")?;
    let shut = findings.iter().filter(|one| one["code"] == "required_unreachable");
    let mut shut: Vec<u64> = shut.filter_map(|one| one["ports"][0]["first"].as_u64()).collect();
    shut.sort_unstable();
    ensure!(shut == [2379, 6443], "{shut:?}");
    let why = |port: u64| {
        let one = checks.iter().find(|one| one["first"] == port);
        one.and_then(|one| one["why"].as_str()).unwrap_or_default()
    };
    ensure!(why(6443).contains("INPUT"), "{}", why(6443));
    ensure!(why(2379).contains("bound to 127.0.0.1"), "{}", why(2379));
    ensure!(run.code == Some(1), "{:?}", run.code);
    Ok(())
}

#[test]
fn without_rights_nothing_is_called_open_and_the_status_says_so() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    node.serve_here("tcp 0.0.0.0:22")?;
    node.iptables(FIREWALL)?;
    let own = node.own();
    let args = ["--json", "--no-kube", "audit", "--netns", &own, "--senders", "outside"];
    let run = node.lab.tool().uid(65_534).args(&args).run()?;
    ensure!(run.code == Some(3), "{:?}: {}", run.code, run.stdout);
    ensure!(run.json["complete"] == false && run.json["audit_findings"] == Value::Array(vec![]));
    let at = format!("{}:22", node.ip());
    ensure!(open(&run, node.lab.host(), 22, "outside", &at)?.is_none(), "{}", run.stdout);
    Ok(())
}

/// The schema of SARIF 2.1.0, as OASIS published it.
const SARIF: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/sarif-2.1.0.json");

/// A recording of two nodes with findings.
const RECORDED: [&str; 2] = ["kind", "k3s"];

fn recorded(name: &str) -> String {
    format!("{}/data/{name}.json", env!("CARGO_MANIFEST_DIR"))
}

/// What a program of Python says of a file.
fn python(script: &str, args: &[&str]) -> Result<std::process::Output> {
    Ok(Command::new("python3").args(["-W", "ignore", "-c", script]).args(args).output()?)
}

#[test]
fn sarif_is_valid_by_its_schema_and_junit_is_xml() -> Test {
    let dir = tempfile::tempdir()?;
    let has_validator = python("import jsonschema", &[]).is_ok_and(|run| run.status.success());
    let mut found = 0;
    for name in RECORDED {
        let file = recorded(name);
        let run = |form: &str| lab::ask(&["--replay", &file, "audit", "-o", form]);
        let sarif = run("sarif")?;
        let results = sarif.json["runs"][0]["results"].as_array().context("no results")?;
        let rules = sarif.json["runs"][0]["tool"]["driver"]["rules"].as_array();
        let rules = rules.context("no rules")?;
        found += results.len();
        ensure!(sarif.code == Some(i32::from(!results.is_empty())), "{:?}", sarif.code);
        ensure!(sarif.json["version"] == "2.1.0");
        for one in results {
            let at = one["ruleIndex"].as_u64().context("no index")?;
            let rule = rules.get(usize::try_from(at)?).context("no such rule")?;
            ensure!(rule["id"] == one["ruleId"], "{one}");
            ensure!(one["locations"].as_array().is_some_and(|all| !all.is_empty()), "{one}");
        }
        let at = dir.path().join(format!("{name}.sarif"));
        std::fs::write(&at, &sarif.stdout)?;
        if has_validator {
            let script = "import json, jsonschema, sys
schema, found = (json.load(open(name)) for name in sys.argv[1:3])
jsonschema.validators.validator_for(schema)(schema).validate(found)";
            let checked = python(script, &[SARIF, at.to_str().context("a path")?])?;
            ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
        let junit = run("junit")?;
        let at = dir.path().join(format!("{name}.xml"));
        std::fs::write(&at, &junit.stdout)?;
        if lab::has("python3") {
            let script = "import sys, xml.etree.ElementTree as tree
top = tree.parse(sys.argv[1]).getroot()
cases = top.findall('.//testcase')
failed = [case for case in cases if case.findall('failure')]
assert top.tag == 'testsuites' and len(cases) == int(top.get('tests'))
assert len(failed) == int(top.get('failures')) and bool(failed) == (sys.argv[2] == 'true')";
            let has = (!results.is_empty()).to_string();
            let checked = python(script, &[at.to_str().context("a path")?, &has])?;
            ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
        let markdown = run("markdown")?;
        ensure!(markdown.stdout.starts_with("# Audit of "), "{}", markdown.stdout);
        let bars = |line: &str| line.replace("\\|", "").matches('|').count();
        let table: Vec<usize> =
            markdown.stdout.lines().filter(|l| l.starts_with('|')).map(bars).collect();
        ensure!(!table.is_empty() && table.iter().all(|bars| *bars == 6), "{}", markdown.stdout);
    }
    ensure!(found > 0, "no recorded node has a finding");
    if !has_validator {
        lab::skip("python3 has no jsonschema: SARIF was not compared with its schema");
    }
    Ok(())
}

#[test]
fn a_profile_is_found_by_what_runs_on_a_recorded_node() -> Test {
    let run = lab::ask(&["--json", "--replay", &recorded("k3s"), "audit", "--profile"])?;
    let names: Vec<&str> = run.json["profiles"]
        .as_array()
        .context("no profiles")?
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    ensure!(names == ["k3s-server", "cilium"], "{names:?}");
    for one in run.json["profiles"].as_array().into_iter().flatten() {
        for check in one["checks"].as_array().into_iter().flatten() {
            let state = check["state"].as_str().unwrap_or_default();
            let required = check["required"] == true;
            ensure!(!required || state == "met", "{check}");
        }
    }
    Ok(())
}

/// The kinds of changes of ports of one namespace.
fn changes(run: &Run, ports: &[u64]) -> Result<Vec<(u64, String)>> {
    let all = run.json["changes"].as_array().with_context(|| run.stderr.clone())?;
    let mut found: Vec<(u64, String)> = all
        .iter()
        .filter_map(|one| Some((one["port"].as_u64()?, one["kind"].as_str()?.to_owned())))
        .filter(|(port, _)| ports.contains(port))
        .collect();
    found.sort();
    Ok(found)
}

#[test]
fn what_came_went_or_changed_is_told_and_a_restart_is_no_difference() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    node.serve_here("tcp 0.0.0.0:23601")?;
    node.serve_here("tcp 0.0.0.0:23602")?;
    node.serve_here("tcp 0.0.0.0:23603")?;
    let saved = node.lab.dir().join("before.json");
    let saved = saved.to_str().context("a path")?.to_owned();
    let run = node.lab.tool().args(&["--no-kube", "list", "--save", &saved]).run()?;
    ensure!(run.code == Some(0), "{:?}: {}", run.code, run.stderr);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&saved)?);
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    let ports = [23601, 23602, 23603, 23604];
    let diff =
        |args: &[&str]| node.lab.tool().args(&["--json", "--no-kube", "diff"]).args(args).run();
    let same = diff(&[&saved])?;
    ensure!(changes(&same, &ports)?.is_empty(), "{}", same.stdout);
    // The same with itself, whatever other labs do meanwhile.
    let itself = diff(&[&saved, &saved])?;
    ensure!(matches!(itself.code, Some(0 | 3)), "{:?}", itself.code);
    // One goes, one comes, one is shut, and one is started anew.
    let again = node.servers.remove(1);
    drop(again);
    drop(node.servers.remove(0));
    node.serve_here("tcp 0.0.0.0:23602")?;
    node.serve_here("tcp 127.0.0.1:23604")?;
    node.iptables("-A INPUT -p tcp --dport 23603 -j DROP")?;
    let found = node.lab.tool().args(&["--json", "--no-kube", "diff", &saved]).run()?;
    let kinds = changes(&found, &ports)?;
    let kind = |port: u64, kind: &str| (port, kind.to_owned());
    let mut expected = vec![
        kind(23601, "went"),
        kind(23602, "restarted"),
        kind(23603, "reach"),
        kind(23604, "came"),
    ];
    let mut once = kinds.clone();
    once.dedup();
    expected.sort();
    ensure!(once == expected, "{kinds:?}: {}", found.stdout);
    ensure!(matches!(found.code, Some(1 | 3)), "{:?}", found.code);
    let text =
        |args: &[&str]| node.lab.tool().args(&["--no-kube", "diff", &saved]).args(args).run();
    ensure!(!text(&[])?.stdout.contains("23602/tcp"), "a restart is told without -v");
    ensure!(text(&["-v"])?.stdout.contains("23602/tcp"));
    Ok(())
}

#[test]
fn a_recording_of_an_audit_is_audited_and_compared_as_the_node_is() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    node.serve_here("tcp 0.0.0.0:23701 tcp 127.0.0.1:23702")?;
    node.iptables(FIREWALL)?;
    let own = node.own();
    let file = node.lab.dir().join("node.json");
    let file = file.to_str().context("a path")?;
    let live = node.audit(&["--netns", &own, "--senders", "outside"])?;
    let recorded =
        node.lab.tool().args(&["--json", "--no-kube", "--record", file, "audit"]).run()?;
    ensure!(matches!(recorded.code, Some(0 | 1 | 3)), "{:?}", recorded.code);
    let again = lab::ask(&[
        "--json",
        "--no-kube",
        "--replay",
        file,
        "audit",
        "--netns",
        &own,
        "--senders",
        "outside",
    ])?;
    ensure!(live.json["exposures"] == again.json["exposures"], "{}\n{}", live.stdout, again.stdout);
    let same = lab::ask(&["--json", "diff", file, file])?;
    ensure!(changes(&same, &[23701, 23702])?.is_empty(), "{}", same.stdout);
    ensure!(Path::new(file).is_file());
    Ok(())
}
