//! Link-local IPv6 addresses: each is of one link alone, whoever is on it may use it, and most
//! devices have one though nobody gave it to them.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use anyhow::{Context as _, Result, ensure};
use lab::{Landing, Netns, Run, Test, within};
use serde_json::Value;

use crate::paths::node::Node;

/// The host and the other machine without IPv6 addresses but for one of the link.
fn narrow(node: &Node) -> Result<Ipv6Addr> {
    let address = |last| Ipv6Addr::new(0xfe80, 0, 0, node.number().into(), 0, 0, 0, last);
    for (netns, last) in [(node.host(), 1), (&node.outside, 2)] {
        netns.ip(&["-6", "address", "flush", "dev", "eth0"])?;
        netns.address("eth0", &format!("{}/64", address(last)))?;
    }
    Ok(address(1))
}

/// Really connects by a device.
fn connect(from: &Netns, by: &str, to: Ipv6Addr, port: u16) -> Result<Landing> {
    let index = within(from, || Ok(std::fs::read_to_string("/proc/thread-self/net/igmp6")?))?;
    let is_it = |line: &&str| line.split_whitespace().nth(1) == Some(by);
    let line = index.lines().find(is_it).context("no such device")?;
    let index: u32 = line.split_whitespace().next().context("no index")?.parse()?;
    from.connect("tcp", SocketAddr::V6(SocketAddrV6::new(to, port, 0, index)))
}

fn is_open(landed: &Landing) -> bool {
    matches!(landed, Landing::At(_))
}

/// What is said of a place.
fn said(run: &Run, from: &str) -> Result<Vec<(Option<String>, Option<bool>)>> {
    let answer = run.answer()?;
    let all = answer["reachable"].as_array().with_context(|| run.stdout.clone())?;
    let of = all.iter().filter(|one| one["from"] == from);
    let one =
        |one: &Value| (one["address"].as_str().map(str::to_owned), one["reachable"].as_bool());
    Ok(of.map(one).collect())
}

#[test]
fn others_on_the_link_reach_what_listens_on_all_addresses() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let address = narrow(&node)?;
    let (six, both) = (lab::unused_port()?, lab::unused_port()?);
    node.serve_here("six", &format!("tcp [::]:{six} --v6only 1"))?;
    node.serve_here("both", &format!("tcp [::]:{both} --v6only 0"))?;
    let (host, outside) = (node.host().clone(), node.outside.clone());
    let at = |port| Some(SocketAddr::new(address.into(), port).to_string());
    ensure!(is_open(&connect(&outside, "eth0", address, six)?), "THE LAB");

    let ask = |args: &[&str]| node.lab.tool().netns(&host).arg("--json").args(args).run();
    let run = ask(&[&format!("{six}/tcp")])?;
    ensure!(said(&run, "outside")? == [(at(six), Some(true))], "{}", run.stdout);
    ensure!(said(&run, "node")? == [(at(six), Some(true))], "{}", run.stdout);
    let run = ask(&["--from", "eth0", &format!("{six}/tcp")])?;
    ensure!(run.code == Some(0), "{}", run.stdout);
    let run = ask(&["list", "-O", "port,address,reach", "--netns", &host.name])?;
    let rows = run.json["listeners"].as_array().context("no listeners")?;
    let row = rows.iter().find(|row| row["port"] == six).context("no row")?;
    ensure!(row["reach"] == "network", "{row}");
    let run = ask(&["audit"])?;
    let exposures = run.json["exposures"].as_array().context("no exposures")?;
    let openings = exposures.iter().filter_map(|one| one["openings"].as_array()).flatten();
    let is_it = |one: &Value| {
        one["from"] == "outside"
            && one["address"] == at(six).unwrap_or_default()
            && one["open"] == true
    };
    ensure!(openings.into_iter().any(is_it), "{}", run.stdout);

    // Where IPv4 answers, that says it.
    let four = Some(SocketAddr::new(node.ip().into(), both).to_string());
    let run = ask(&[&format!("{both}/tcp")])?;
    ensure!(said(&run, "outside")? == [(four.clone(), Some(true))], "{}", run.stdout);
    if lab::no_rules().is_some() {
        return Ok(());
    }
    // And where it is shut, that is not all.
    let shut = |family: &str| {
        let rules = format!(
            "table {family} f {{ chain i {{ type filter hook input priority 0;\n\
             iifname eth0 tcp dport {{ {six}, {both} }} drop\n}}\n}}"
        );
        node.lab.nft(&host, &rules)
    };
    shut("ip")?;
    ensure!(!is_open(&outside.connect("tcp", (node.ip(), both).into())?), "THE LAB");
    ensure!(is_open(&connect(&outside, "eth0", address, both)?), "THE LAB");
    let run = ask(&[&format!("{both}/tcp")])?;
    let expected = [(at(both), Some(true)), (four.clone(), Some(false))];
    ensure!(said(&run, "outside")? == expected, "{}", run.stdout);
    let run = ask(&["--from", "eth0", &format!("{both}/tcp")])?;
    ensure!(run.code == Some(0), "{}", run.stdout);
    shut("ip6")?;
    for port in [six, both] {
        ensure!(!is_open(&connect(&outside, "eth0", address, port)?), "THE LAB");
    }
    let run = ask(&[&format!("{both}/tcp")])?;
    ensure!(said(&run, "outside")? == [(four, Some(false))], "{}", run.stdout);
    let run = ask(&[&format!("{six}/tcp")])?;
    let outside = said(&run, "outside")?;
    ensure!(outside.iter().all(|(_, open)| *open == Some(false)), "{}", run.stdout);
    ensure!(!outside.is_empty(), "{}", run.stdout);
    Ok(())
}

#[test]
fn one_of_another_device_is_reached_by_nobody_on_a_bridge() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let address = narrow(&node)?;
    node.add_pod()?;
    let (host, outside) = (node.host().clone(), node.outside.clone());
    node.serve_here("web", &format!("tcp [{address}]:{port} --device eth0"))?;
    ensure!(is_open(&connect(&outside, "eth0", address, port)?), "THE LAB");
    let run = node.lab.tool().netns(&host).args(&["--json", &format!("{port}/tcp")]).run()?;
    let at = Some(SocketAddr::new(address.into(), port).to_string());
    ensure!(said(&run, "outside")? == [(at, Some(true))], "{}", run.stdout);
    let containers = said(&run, "containers")?;
    ensure!(containers.iter().all(|(_, open)| *open != Some(true)), "{}", run.stdout);
    let mut addresses = containers.iter().filter_map(|(at, _)| at.as_deref());
    ensure!(addresses.all(|at| at.starts_with('[')), "{}", run.stdout);
    Ok(())
}

#[test]
fn who_asks_on_the_link_is_told_of_a_listener_at_the_other_end() -> Test {
    lab::root_or_skip!();
    let mut node = Node::with_pair()?;
    let port = lab::unused_port()?;
    let address = narrow(&node)?;
    let outside = node.outside.clone();
    node.serve_here("web", &format!("tcp [{address}]:{port} --device eth0"))?;
    ensure!(is_open(&connect(&outside, "eth0", address, port)?), "THE LAB");
    let target = format!("[{address}%eth0]:{port}/tcp");
    let run = node.lab.tool().netns(&outside).args(&["--json", "--try", &target]).run()?;
    ensure!(run.code == Some(0), "exit {:?}: {}", run.code, run.stdout);
    let at = Some(SocketAddr::new(address.into(), port).to_string());
    ensure!(said(&run, "node")? == [(at, Some(true))], "{}", run.stdout);
    Ok(())
}
