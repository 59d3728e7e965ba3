//! Random rules loaded into a real namespace, a real packet sent, and where it lands
//! compared with what the walk says.
//!
//! ```text
//! client 10.77.0.2 ── v1│v0 10.77.0.1, .3  host  10.78.0.1 p0│p1 ── pod 10.78.0.2
//! ```
//!
//! Every fourth ruleset is of IPv6, where addresses of `fd00:77::/64` and `fd00:78::/64` stand
//! for these.
//!
//! Host and pod each listen on three ports, TCP and UDP, and answer with their name.
//! What lists say is compared for every ruleset, packets are sent through the first
//! 1,200. `WHEREIS_PORT_SEED=N` repeats one ruleset, `WHEREIS_PORT_RULESETS=N` sets how many.

mod agreement;
mod rules;
mod world;

use std::collections::BTreeSet;
use std::fmt;

use whereis_port_rules::{Nic, PacketSender};

use super::{Arrival, PacketDestination, StopKind, from_elsewhere, from_process};
use crate::facts::Facts;
use crate::walk::Visited;
use rules::Random;
use whereis_port_model::{HopKind, NetnsId, Proto};
use whereis_port_node::LiveNode;
use world::{CLIENT, HOST, OTHER, POD, PORTS, World, of_ipv6};

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Landing {
    /// The listener with this name answers.
    At(String),
    /// "Connection refused".
    Refused,
    /// Nothing comes back, or another error.
    Silent,
    /// The walk can't tell.
    Unknown,
}

impl fmt::Display for Landing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// One connection to try.
#[derive(Debug, Clone, Copy)]
struct Try {
    from_client: bool,
    proto: Proto,
    to: &'static str,
    port: u16,
}

impl Try {
    fn random(random: &mut Random, ipv6: bool) -> Self {
        let from_client = random.one_in(2);
        let to = match from_client {
            true => *random.of(&[HOST, OTHER, POD]),
            false => *random.of(&["127.0.0.1", HOST, OTHER, POD]),
        };
        let to = if ipv6 { of_ipv6(to) } else { to };
        let proto = if random.one_in(2) { Proto::Tcp } else { Proto::Udp };
        let port = if random.one_in(8) { 1009 } else { *random.of(&PORTS) };
        Self { from_client, proto, to, port }
    }
}

/// What the walk says of a connection.
fn predicted(facts: &Facts<'_>, world: &World, one: Try) -> BTreeSet<Landing> {
    let address = one.to.parse().unwrap();
    let to = PacketDestination { proto: one.proto, address, port: one.port };
    let arrivals = if one.from_client {
        let iif = Nic { index: world.uplink, name: "v0".into() };
        let client = if address.is_ipv6() { of_ipv6(CLIENT) } else { CLIENT };
        let client = PacketSender::Address(client.parse().unwrap());
        from_elsewhere(facts, world.host.id, (iif, client, None), to)
    } else {
        from_process(facts, world.host.id, None, to, &mut Visited::new())
    };
    arrivals.iter().flat_map(|arrival| landings(arrival, world, one)).collect()
}

fn landings(arrival: &Arrival, world: &World, one: Try) -> Vec<Landing> {
    if let Some(stop) = &arrival.stop {
        return match stop.kind {
            // Who sends UDP against a rule at output is told so by the call itself.
            StopKind::Rejected if one.proto == Proto::Udp => {
                vec![Landing::Refused, Landing::Silent]
            }
            StopKind::Nothing | StopKind::Rejected | StopKind::NoBackend => vec![Landing::Refused],
            StopKind::Dropped => vec![Landing::Silent],
            StopKind::NoRoute
            | StopKind::NotForwarding
            | StopKind::LoopbackOnWire
            | StopKind::ReversePath
            | StopKind::NoNeighbour
            | StopKind::NoWay
            | StopKind::Reserved => vec![Landing::Silent, Landing::Refused],
            StopKind::Unknown => vec![Landing::Unknown],
        };
    }
    let Some(hop) = arrival.hops.iter().rev().find(|hop| hop.kind == HopKind::Listener) else {
        return vec![Landing::Silent];
    };
    let netns: Option<NetnsId> = hop.netns.as_ref().map(|netns| netns.id);
    let place = if netns == Some(world.pod.id) { "pod" } else { "host" };
    let port = hop.endpoint.port.map_or(0, |port| port.0);
    vec![Landing::At(format!("{place}:{port}"))]
}

/// How many packets are sent through each ruleset, up to which one.
const TRIES: usize = 4;
const WITH_PACKETS: u64 = 1200;

/// What came of some rulesets.
#[derive(Debug, Default)]
struct Score {
    rulesets: usize,
    refused: usize,
    tries: usize,
    decided: usize,
    wrong: Vec<String>,
    /// Ports that lists have, and where lists and questions disagree.
    listed: usize,
    disagreed: Vec<String>,
}

fn play(world: &World, seed: u64, score: &mut Score) {
    let mut random = Random::new(seed);
    let ipv6 = seed % 4 == 3;
    let rules = rules::ruleset(&mut random, ipv6);
    if !world.load(&rules) {
        // The kernel or the program did not take it.
        score.refused += 1;
        return;
    }
    score.rulesets += 1;
    let node = LiveNode::new().unwrap().with_timeout(Some(std::time::Duration::from_secs(600)));
    let facts = Facts::new(&node);
    score.listed += agreement::check(&facts, world, ipv6, &mut score.disagreed);
    score.disagreed.iter_mut().filter(|one| !one.contains("SEED")).for_each(|one| {
        *one = format!("WHEREIS_PORT_SEED={seed}: {one}\n{rules}");
    });
    let tries = if seed < WITH_PACKETS { TRIES } else { 0 };
    for _ in 0..tries {
        let one = Try::random(&mut random, ipv6);
        let said = predicted(&facts, world, one);
        let connect = || world.connect(one, said.contains(&Landing::Refused));
        let mut landed = connect();
        // On a busy machine an answer may be late; what is dropped is dropped again.
        for _ in 0..2 {
            if landed == Landing::Silent && !said.contains(&landed) {
                landed = connect();
            }
        }
        score.tries += 1;
        if said.contains(&Landing::Unknown) {
            continue;
        }
        score.decided += usize::from(said.len() == 1);
        if !said.contains(&landed) {
            score.wrong.push(format!(
                "WHEREIS_PORT_SEED={seed}: {one:?}: said {said:?}, landed {landed}; gaps {:?}\n{rules}",
                facts.gaps()
            ));
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_rules_do_what_the_kernel_does() {
    if !world::is_possible() {
        return;
    }
    let required = std::env::var_os("WHEREIS_PORT_REQUIRE_LAB").is_some();
    let many = number("WHEREIS_PORT_RULESETS").unwrap_or(if required { 5000 } else { 100 });
    let seeds: Vec<u64> = match number("WHEREIS_PORT_SEED") {
        Some(seed) => vec![seed],
        None => (0..many).collect(),
    };
    // Most of it is waiting: for the kernel to free rules, and for what is dropped.
    let workers = 4;
    let scores: Vec<Score> = std::thread::scope(|scope| {
        let run = |worker: usize| {
            let seeds = &seeds;
            move || {
                let world = World::new();
                let mut score = Score::default();
                for seed in seeds.iter().skip(worker).step_by(workers) {
                    play(&world, *seed, &mut score);
                    if score.wrong.len() + score.disagreed.len() > 4 {
                        break;
                    }
                }
                score
            }
        };
        let started: Vec<_> = (0..workers).map(|worker| scope.spawn(run(worker))).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let sum = |of: fn(&Score) -> usize| scores.iter().map(of).sum::<usize>();
    let wrong: Vec<&str> = scores.iter().flat_map(|s| &s.wrong).map(String::as_str).collect();
    let disagreed: Vec<&str> =
        scores.iter().flat_map(|s| &s.disagreed).map(String::as_str).collect();
    assert!(disagreed.is_empty(), "{}", disagreed.join("\n"));
    println!("{} ports at addresses listed", sum(|s| s.listed));
    println!(
        "{} rulesets, {} not loaded; {} packets, {} of them with one prediction",
        sum(|s| s.rulesets),
        sum(|s| s.refused),
        sum(|s| s.tries),
        sum(|s| s.decided),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A test that loads nothing, or is told nothing, proves nothing.
    if seeds.len() > 50 {
        assert!(sum(|s| s.refused) * 4 < seeds.len(), "too many rulesets were not loaded");
        assert!(sum(|s| s.decided) * 4 > sum(|s| s.tries) * 3, "too little was predicted");
    }
}
