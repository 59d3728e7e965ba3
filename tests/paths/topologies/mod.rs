//! Nodes that are made at random: bridges with and without addresses, cards with containers of
//! their own, routes, reverse path filters, policy rules, packet rules of both kinds, listeners.
//! From every sender to every address a connection is really made, and compared with what the
//! tool says of it.

mod build;
mod random;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{Netns, Run, Test, within};
use serde_json::Value;

use build::Topology;
use random::Random;

/// How many nodes, unless the environment says otherwise.
const NODES: u64 = 500;
/// The port that is asked for on all of them, and one that a rule may lead to it.
const PORT: u16 = 7400;
const TRANSLATED: u16 = 7401;
/// How many statements may be "not known", in per cent.
const UNKNOWN: usize = 15;
/// How long a connection may take: all is on this machine.
const PATIENCE: Duration = Duration::from_millis(400);
/// How long a neighbour that did not answer is asked for: three times, a second each.
const FORGOTTEN: Duration = Duration::from_secs(4);

/// What was said, and how much of it was not known.
#[derive(Default)]
struct Count {
    said: usize,
    open: usize,
    unknown: usize,
    /// Why not, and how often.
    because: BTreeMap<String, usize>,
}

/// Who answers each connection of one sender; none where nobody does.
type Landed = BTreeMap<SocketAddr, Option<String>>;

fn connect_once(to: SocketAddr, patience: Duration) -> Option<String> {
    let stream = TcpStream::connect_timeout(&to, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let name = std::io::read_to_string(stream).ok()?;
    (!name.is_empty()).then_some(name)
}

/// Once more, alone: another packet may have been the first that asked for a neighbour, with a
/// source that nobody answers to, and the machine may have been busy.
fn connect_again(sender: &Netns, to: SocketAddr) -> Result<Option<String>> {
    std::thread::sleep(FORGOTTEN);
    within(sender, || Ok(connect_once(to, FORGOTTEN)))
}

/// Connects from `sender` to everything at once.
fn connect(topology: &Topology, sender: &Netns, questions: &[SocketAddr]) -> Result<Landed> {
    let connect = |to: SocketAddr| connect_once(to, PATIENCE);
    let landed = within(sender, || {
        std::thread::scope(|scope| {
            let one = |to: &SocketAddr| {
                let to = *to;
                (to, scope.spawn(move || connect(to)))
            };
            let threads: Vec<_> = questions.iter().map(one).collect();
            let landed = threads.into_iter().map(|(to, thread)| {
                let name = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
                Ok((to, name))
            });
            landed.collect::<Result<Landed>>()
        })
    });
    landed.with_context(|| format!("THE LAB: {}\n{}", sender.name, topology.made))
}

/// All connections that are made from one namespace.
fn questions(topology: &Topology) -> Vec<SocketAddr> {
    let of = |address: &IpAddr| [PORT, TRANSLATED].map(|port| SocketAddr::new(*address, port));
    topology.addresses.iter().flat_map(of).collect()
}

/// Waits until every IPv6 address is known to be nobody else's.
fn settle(topology: &Topology) -> Test {
    for netns in &topology.senders {
        let list = ["-n", &netns.name, "-6", "address", "show", "tentative"];
        let is_settled =
            || -> Result<bool> { Ok(Command::new("ip").args(list).output()?.stdout.is_empty()) };
        let begin = Instant::now();
        while !is_settled()? {
            ensure!(begin.elapsed() < Duration::from_secs(20), "{}: IPv6 is tentative", netns.name);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// What is said of all connections that a sender may make.
fn ask(topology: &Topology, sender: &Netns) -> Result<Run> {
    let from = format!("netns:{}", sender.inode);
    let targets = questions(topology).into_iter().map(|to| format!("{to}/tcp"));
    let args: Vec<String> =
        ["--json", "--from", &from].map(str::to_owned).into_iter().chain(targets).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    topology.node.lab.tool().netns(topology.node.host()).args(&args).run()
}

/// Everybody connects at the same time: most of that is waiting for what is dropped.
fn connect_all(topology: &Topology) -> Result<Vec<Landed>> {
    let questions = questions(topology);
    std::thread::scope(|scope| {
        let one = |sender| {
            let questions = &questions;
            scope.spawn(move || connect(topology, sender, questions))
        };
        let threads: Vec<_> = topology.senders.iter().map(one).collect();
        let ended = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.map(|all| all.map_err(|_| anyhow::anyhow!("a sender panicked"))?).collect()
    })
}

/// Whether what is said of one sender is what happens to its connections.
fn check(
    topology: &Topology,
    sender: &Netns,
    (run, landed): (&Run, &Landed),
    count: &Mutex<Count>,
) -> Result<String> {
    let questions = questions(topology);
    let answers = run.json["answers"].as_array().with_context(|| said(run))?;
    ensure!(answers.len() == questions.len(), "{} answers: {}", answers.len(), said(run));
    let mut problems = String::new();
    for (to, answer) in questions.iter().zip(answers) {
        let verdict = answer["verdict"].as_str().unwrap_or_default();
        let mut name = landed.get(to).cloned().flatten();
        if name.is_none() && verdict == "found" {
            name = connect_again(sender, *to)?;
        }
        let name = name.as_deref();
        {
            let mut count = count.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            count.said += 1;
            count.open += usize::from(verdict == "found");
            if verdict == "unknown" {
                count.unknown += 1;
                *count
                    .because
                    .entry(format!(
                        "{}: {}",
                        sender.name.rsplit('-').next().unwrap_or_default(),
                        because(topology, answer)
                    ))
                    .or_default() += 1;
            }
        }
        let wrong = match (verdict, name) {
            ("found", None) | ("not_found", Some(_)) => true,
            ("found", Some(name)) => !ends(answer).contains(&pid(topology, name)?),
            _ => false,
        };
        if wrong {
            let (from, name) = (&sender.name, name.unwrap_or("nobody"));
            let why = &answer["reachable"][0]["why"];
            let ends = ends(answer);
            let shown = &answer["reachable"][0]["conditions"];
            writeln!(
                problems,
                "{from} to {to}: {name} answers, but {verdict}: {why} {ends:?} {shown}"
            )?;
        }
    }
    Ok(problems)
}

/// Why something is not known, without what differs from node to node.
fn because(topology: &Topology, answer: &Value) -> String {
    let codes = answer["reachable"][0]["conditions"].as_array().into_iter().flatten();
    let codes: Vec<&str> = codes.filter_map(|one| one["code"].as_str()).collect();
    let gaps = answer["gaps"].as_array().into_iter().flatten();
    let gaps: Vec<&str> = gaps.filter_map(|gap| gap["what"].as_str()).collect();
    let why = answer["reachable"][0]["why"].as_str().unwrap_or_default();
    let number = format!("10.{}.", topology.node.number());
    format!(
        "{codes:?} {} {gaps:?}",
        why.replace(&number, "10.N.").replace(topology.node.lab.name(), "wp")
    )
}

/// The processes that an answer names.
fn ends(answer: &Value) -> BTreeSet<u64> {
    let paths = answer["paths"].as_array().into_iter().flatten();
    paths.filter_map(|path| path["end"]["process"]["pid"].as_u64()).collect()
}

fn pid(topology: &Topology, name: &str) -> Result<u64> {
    let mut servers = topology.node.servers.iter();
    let server = servers.find(|server| server.name == name).with_context(|| name.to_owned())?;
    Ok(server.pid.into())
}

fn said(run: &Run) -> String {
    format!("exit {:?}: {}{}", run.code, run.stdout, run.stderr)
}

/// Whether what a plain question says of the host itself is what happens.
fn check_plain(topology: &Topology) -> Result<String> {
    let host = topology.node.host();
    let asked = [PORT, TRANSLATED].map(|port| format!("{port}/tcp"));
    let args = ["--json", &asked[0], &asked[1]];
    let run = topology.node.lab.tool().netns(host).args(&args).run()?;
    let answers = run.json["answers"].as_array().with_context(|| said(&run))?;
    let entries = answers.iter().filter_map(|answer| answer["reachable"].as_array()).flatten();
    let of_host = entries.filter(|entry| entry["from"] == "loopback" || entry["from"] == "node");
    let mut problems = String::new();
    let stated: Vec<(SocketAddr, bool, &Value)> = of_host
        .filter_map(|entry| {
            let address: SocketAddr = entry["address"].as_str()?.parse().ok()?;
            // Nobody gets to these without naming the interface.
            if matches!(address.ip(), IpAddr::V6(a) if a.is_unicast_link_local()) {
                return None;
            }
            Some((address, entry["reachable"].as_bool()?, entry))
        })
        .collect();
    let questions: Vec<SocketAddr> = stated.iter().map(|(to, ..)| *to).collect();
    let landed = connect(topology, host, &questions)?;
    for (to, is_open, entry) in stated {
        let mut name = landed.get(&to).cloned().flatten();
        if name.is_none() && is_open {
            name = connect_again(host, to)?;
        }
        if name.is_some() != is_open {
            let name = name.as_deref().unwrap_or("nobody");
            writeln!(problems, "plain question: {to}: {name} answers, but {entry}")?;
        }
    }
    Ok(problems)
}

/// Everything that is wrong of one node.
fn wrong_of(seed: u64, count: &Mutex<Count>) -> Result<String> {
    let mut random = Random::new(seed);
    let topology = Topology::build(&mut random).context("THE LAB")?;
    if topology.has_ipv6 {
        settle(&topology)?;
    }
    let ask_all = || topology.senders.iter().map(|one| ask(&topology, one)).collect::<Result<_>>();
    let (runs, landed): (Vec<Run>, Vec<Landed>);
    // What a connection leaves behind, as neighbours that were found, is to change no answer.
    if seed.is_multiple_of(2) {
        runs = ask_all()?;
        landed = connect_all(&topology)?;
    } else {
        landed = connect_all(&topology)?;
        runs = ask_all()?;
    }
    let mut problems = String::new();
    for ((sender, run), landed) in topology.senders.iter().zip(&runs).zip(&landed) {
        problems += &check(&topology, sender, (run, landed), count)?;
    }
    problems += &check_plain(&topology)?;
    Ok(match problems.is_empty() {
        true => problems,
        false => format!("WHEREIS_PORT_TOPOLOGY={seed}:\n{problems}{}", topology.made),
    })
}

#[test]
fn nodes_made_at_random_are_what_the_tool_says_of_them() -> Test {
    lab::rules_or_skip!();
    let number = |name: &str, default| {
        std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok()).unwrap_or(default)
    };
    let first = number("WHEREIS_PORT_TOPOLOGY", 1);
    let nodes = number("WHEREIS_PORT_TOPOLOGIES", NODES);
    let (count, problems) = (Mutex::new(Count::default()), Mutex::new(String::new()));
    let next = AtomicU64::new(first);
    // Most of a node's time is waiting for what is dropped.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + nodes {
                        break;
                    }
                    let found = wrong_of(seed, &count).unwrap_or_else(|error| {
                        format!("WHEREIS_PORT_TOPOLOGY={seed}: {error:#}\n")
                    });
                    problems
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push_str(&found);
                }
            });
        }
    });
    let count = count.into_inner().unwrap_or_default();
    let problems = problems.into_inner().unwrap_or_default();
    println!("{} statements, {} open, {} not known", count.said, count.open, count.unknown);
    let mut because: Vec<_> = count.because.iter().collect();
    because.sort_by_key(|(_, often)| std::cmp::Reverse(**often));
    for (why, often) in because.into_iter().take(60) {
        println!("{often:5} {why}");
    }
    ensure!(problems.is_empty(), "{problems}");
    ensure!(count.open > 0, "nothing is open");
    ensure!(
        count.unknown * 100 <= count.said * UNKNOWN,
        "{} of {} are not known",
        count.unknown,
        count.said
    );
    Ok(())
}
