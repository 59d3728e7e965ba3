//! Ports that rules and load balancers take, in every namespace: with a socket
//! behind them or without one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use whereis_port_rules::{dialect, ports};

use super::facts::Facts;
use super::from_node::{self, FromNode};
use super::path::{self, PacketDestination, TracedConnection};
use whereis_port_model::{
    Balancer, Ending, Frontend, FrontendKind, Gap, GapKind, GapSource, Impact, NetnsId, Path, Port,
    Proto, Query, Scope, Socket,
};

/// How many ports of a range are tried one by one; of a wider range only those that
/// rules name.
const TRIED: u16 = 4;

/// The connections that were tried in one namespace.
pub(super) struct Tried {
    pub(super) netns: NetnsId,
    pub(super) entries: Vec<TracedConnection>,
}

/// Tries the ports of the question in every namespace where something but a socket
/// could take them; and which namespaces take them only because they take nearly every port.
pub(super) fn try_all(
    facts: &Facts<'_>,
    query: &Query,
    sockets: &[Socket],
) -> (Vec<Tried>, Vec<NetnsId>) {
    let all = facts.all_netns();
    let all: Vec<NetnsId> = match query.scope {
        // Every namespace has a loopback of its own; a connection means this one's.
        Scope::Address(address) if address.to_canonical().is_loopback() => {
            vec![facts.host.own_netns]
        }
        Scope::Address(address) if address.is_unspecified() => Vec::new(),
        Scope::Address(_) if query.zone.is_some() => vec![facts.host.own_netns],
        _ => all,
    };
    path::read_rulesets(facts, &all);
    let mut tried = Vec::new();
    let mut indifferent = Vec::new();
    for netns in all {
        if !path::may_take(facts, netns) {
            continue;
        }
        let mut entries = Vec::new();
        for (proto, port) in ports_of(facts, netns, query) {
            let found = match query.scope {
                Scope::Everywhere => path::of_namespace(facts, netns, (proto, port), &[]),
                Scope::Address(address) => {
                    let to = PacketDestination { proto, address: address.to_canonical(), port };
                    path::to_address(facts, netns, to)
                }
            };
            let listens = |s: &Socket| (s.netns, s.proto, s.port) == (netns, proto, Port(port));
            let is_asked = asked_at(facts, netns, query) || sockets.iter().any(listens);
            if !is_asked && takes_most(facts, netns, &found) {
                indifferent.push(netns);
                continue;
            }
            entries.extend(found);
        }
        if query.proto.is_none() {
            leave_out_guesses(facts, netns, &mut entries);
        }
        tried.push(Tried { netns, entries });
    }
    indifferent.dedup();
    (tried, indifferent)
}

/// Says of namespaces that they take nearly every port, where nothing else is told of one.
pub(super) fn say_indifferent(facts: &Facts<'_>, indifferent: &[NetnsId]) {
    if let Some(first) = indifferent.first() {
        let name = facts.netns_ref(*first);
        let others = match indifferent.len() - 1 {
            0 => String::new(),
            n => format!(" and {n} others"),
        };
        facts.gap(Gap::new(
            Impact::Way,
            GapSource::new(GapKind::PacketRules, format!("network namespace {name}{others}")),
            "they take nearly every port, whoever has it: that is not told of each",
        ));
    }
}

/// Leaves out connections by a protocol that only an entry for all of them takes, where
/// nothing on this node serves it behind, and something by the other one: Cilium did not tell
/// protocols before 1.17.
fn leave_out_guesses(facts: &Facts<'_>, netns: NetnsId, entries: &mut Vec<TracedConnection>) {
    let frontends = facts.take(facts.world.frontends(&[netns]));
    let of_cilium = || frontends.iter().filter(|f| f.balancer == Balancer::Cilium);
    let ports: BTreeSet<u16> = of_cilium().filter(|f| f.proto.is_none()).map(|f| f.port).collect();
    for port in ports {
        let of = |proto| move |e: &&TracedConnection| (e.to.proto, e.to.port) == (proto, port);
        let serves = |proto| {
            let mut all = entries.iter().filter(of(proto)).flat_map(|e| &e.arrivals);
            all.any(|a| a.stop.is_none() && a.end.ending != Ending::Elsewhere)
        };
        let [tcp, udp] = [serves(Proto::Tcp), serves(Proto::Udp)];
        let guess = match (tcp, udp) {
            (true, true) => continue,
            (false, true) => Proto::Tcp,
            (_, false) => Proto::Udp,
        };
        entries.retain(|e| !of(guess)(&e));
    }
}

/// Whether a question is about an address of this very namespace.
fn asked_at(facts: &Facts<'_>, netns: NetnsId, query: &Query) -> bool {
    let Scope::Address(address) = query.scope else { return false };
    facts.addresses_of(netns).iter().any(|a| a.address == address.to_canonical())
}

/// How far the ports are apart that are tried beside one: everywhere among all of them.
const STRIDE: u16 = 7919;

/// Whether rules of a namespace that is not the node's own take a port only because they
/// take most ports: a sidecar's, for one, or those of somebody who has a network namespace
/// and wants to be an answer to every question. They say nothing of the port.
fn takes_most(facts: &Facts<'_>, netns: NetnsId, found: &[TracedConnection]) -> bool {
    const OTHERS: u16 = 8;
    const FEW: usize = 2;
    let taken = |arrivals: &[path::Arrival]| arrivals.iter().any(path::is_taken);
    if facts.budget.is_home(netns) {
        return false;
    }
    let Some(one) = found.iter().find(|entry| taken(&entry.arrivals)) else { return false };
    let is_too = |n: &u16| {
        let to = PacketDestination { port: one.to.port.wrapping_add(n * STRIDE).max(1), ..one.to };
        taken(&path::attempt(facts, netns, one.sender.clone(), to).arrivals)
    };
    // Without steps left to know it, it is no answer either: that they ran out is said.
    (1..=OTHERS).filter(is_too).take(FEW).count() == FEW
        || facts.budget.is_used_up(&facts.budget.of(netns))
}

/// From so many ports on rules take nearly all.
const NEARLY_ALL: u128 = 60_000;

/// Says what rules take of some ports that is not told port by port.
pub(super) fn say_unclear(
    facts: &Facts<'_>,
    netns: NetnsId,
    found: &ports::TakenPorts,
    asked: RangeInclusive<u16>,
) {
    let name = facts.netns_ref(netns);
    let gap = |impact, why| {
        let source = GapSource::new(GapKind::PacketRules, format!("network namespace {name}"));
        facts.gap(Gap::new(impact, source, why).remedy("ask for one port"));
    };
    if let Some(rule) = &found.unclear {
        gap(Impact::Port, format!("which ports a rule takes is not known: {rule}"));
    }
    let (from, to) = (u128::from(*asked.start()), u128::from(*asked.end()));
    let is_asked = |many: &&ports::Many| !many.ports.within(from, to).is_empty();
    let mut asked = found.many.iter().filter(is_asked);
    let Some(many) = asked.next() else { return };
    let count = many.ports.len();
    let others = match asked.count() {
        0 => String::new(),
        1 => " (and another)".to_owned(),
        n => format!(" (and {n} others)"),
    };
    let (impact, which) = match (count >= NEARLY_ALL, many.surely) {
        (true, true) => (Impact::Way, "nearly every port is".to_owned()),
        (false, true) => (Impact::Port, format!("{count} ports are")),
        (_, false) => (Impact::Port, format!("some of {count} ports are")),
    };
    let rule = &many.rule;
    gap(impact, format!("{which} taken by a rule{others}, which is not told of each: {rule}"));
}

/// The ports to try: all that are asked for, or those of them that rules name.
fn ports_of(facts: &Facts<'_>, netns: NetnsId, query: &Query) -> Vec<(Proto, u16)> {
    let protos = Proto::ALL.into_iter().filter(|p| query.proto.is_none_or(|asked| asked == *p));
    let (first, last) = (query.ports.first.0, query.ports.last.0);
    if last - first < TRIED {
        return protos.flat_map(|proto| (first..=last).map(move |port| (proto, port))).collect();
    }
    let protos: Vec<Proto> = protos.collect();
    let mut ports: Vec<(Proto, u16)> = Vec::new();
    if let Some(ruleset) = path::ruleset(facts, netns) {
        let here = from_node::here(facts, netns);
        let found = ports::taken(&FromNode::new(facts, netns), &ruleset, &here);
        say_unclear(facts, netns, &found, first..=last);
        ports.extend(found.ports.iter().map(|t| (t.proto, t.port)));
        // One stands for all that a rule takes together.
        for many in &found.many {
            let some = many.ports.within(u128::from(first), u128::from(last));
            let one = some.iter().next().and_then(|port| u16::try_from(port).ok());
            ports.extend(one.map(|port| (many.proto, port)));
        }
    }
    for frontend in facts.take(facts.world.frontends(&[netns])).iter() {
        let of = Proto::ALL.into_iter().filter(|p| frontend.proto.is_none_or(|n| n == p.number()));
        ports.extend(of.map(|proto| (proto, frontend.port)));
    }
    ports.retain(|(proto, port)| protos.contains(proto) && (first..=last).contains(port));
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The paths of what rules and balancers take.
pub(super) fn paths(facts: &Facts<'_>, tried: &[Tried]) -> Vec<Path> {
    let mut paths = Vec::new();
    for one in tried {
        // They were tried port by port.
        let same_port = |a: &TracedConnection, b: &TracedConnection| {
            (a.to.proto, a.to.port) == (b.to.proto, b.to.port)
        };
        for of_port in one.entries.chunk_by(same_port) {
            let (mut found, more) = path::paths(of_port);
            facts.leave_unshown(more);
            for path in &mut found {
                if let Some(first) = path.hops.first_mut().filter(|h| h.netns.is_none()) {
                    first.netns = Some(facts.netns_ref(one.netns));
                }
            }
            paths.extend(found);
        }
    }
    paths
}

/// The addresses at which balancers that are no rules have a port, in order.
fn balanced_at(facts: &Facts<'_>, netns: NetnsId, proto: Proto, port: u16) -> Vec<IpAddr> {
    let frontends = facts.take(facts.world.frontends(&[netns]));
    let has = |f: &&Frontend| {
        f.port == port && f.mark.is_none() && f.proto.is_none_or(|number| number == proto.number())
    };
    let all = frontends.iter().filter(has).filter_map(|f| f.address);
    let all: BTreeSet<IpAddr> = all.filter(|address| !address.is_unspecified()).collect();
    all.into_iter().collect()
}

/// How many addresses of services are followed.
const SERVICES: usize = 8;

/// The cluster IPs at which a namespace's rules and balancers have a port.
pub(super) fn cluster_ips(
    facts: &Facts<'_>,
    netns: NetnsId,
    (proto, port): (Proto, u16),
) -> BTreeSet<IpAddr> {
    let frontends = facts.take(facts.world.frontends(&[netns]));
    let is_it = |f: &&Frontend| f.port == port && f.kind == Some(FrontendKind::ClusterIp);
    let mut all: BTreeSet<IpAddr> =
        frontends.iter().filter(is_it).filter_map(|f| f.address).collect();
    if let Some(ruleset) = path::ruleset(facts, netns) {
        let here = from_node::here(facts, netns);
        let found = ports::services_of(&FromNode::new(facts, netns), &ruleset, &here, proto, port);
        let is_it = |taken: &&ports::TakenPort| taken.meaning.what == Some(dialect::CLUSTER_IP);
        all.extend(found.ports.iter().filter(is_it).filter_map(|taken| taken.address));
    }
    all
}

/// Connections to addresses that no interface of the own namespace has, and that its rules take
/// from everybody: external ones of Services, beside what a node's own addresses have.
pub(super) fn external(facts: &Facts<'_>, query: &Query) -> Vec<Tried> {
    if query.scope != Scope::Everywhere || query.ports.first != query.ports.last {
        return Vec::new();
    }
    let (netns, port) = (facts.host.own_netns, query.ports.first.0);
    let Some(ruleset) = path::ruleset(facts, netns) else { return Vec::new() };
    let here = from_node::here(facts, netns);
    let protos = Proto::ALL.into_iter().filter(|p| query.proto.is_none_or(|asked| asked == *p));
    let mut tried = Vec::new();
    for proto in protos {
        let found = ports::services_of(&FromNode::new(facts, netns), &ruleset, &here, proto, port);
        let is_told = |taken: &&ports::TakenPort| taken.meaning.what != Some(dialect::CLUSTER_IP);
        let all: BTreeSet<IpAddr> =
            found.ports.iter().filter(is_told).filter_map(|taken| taken.address).collect();
        for address in all.into_iter().take(SERVICES) {
            let entries =
                path::to_address(facts, netns, PacketDestination { proto, address, port });
            tried.push(Tried { netns, entries });
        }
    }
    tried
}

/// Connections to services that have the port at an address of their own, by the rules and
/// balancers of these namespaces: tried only when nothing of a node's own takes it.
pub(super) fn services(facts: &Facts<'_>, query: &Query, places: &[NetnsId]) -> Vec<Tried> {
    if query.scope != Scope::Everywhere || query.ports.first != query.ports.last {
        return Vec::new();
    }
    let port = query.ports.first.0;
    let protos = || Proto::ALL.into_iter().filter(|p| query.proto.is_none_or(|asked| asked == *p));
    let mut tried = Vec::new();
    let mut left = 0;
    for netns in places.iter().copied() {
        let ruleset = path::ruleset(facts, netns);
        let mut entries = Vec::new();
        for proto in protos() {
            let mut all = balanced_at(facts, netns, proto, port);
            if let Some(ruleset) = &ruleset {
                let here = from_node::here(facts, netns);
                let source = FromNode::new(facts, netns);
                all.extend(ports::addresses(&source, ruleset, &here, proto, port));
            }
            left += all.len().saturating_sub(SERVICES);
            for address in all.into_iter().take(SERVICES) {
                entries.extend(path::to_address(
                    facts,
                    netns,
                    PacketDestination { proto, address, port },
                ));
            }
        }
        if query.proto.is_none() {
            leave_out_guesses(facts, netns, &mut entries);
        }
        // The ways of one address after those of another.
        for of_one in entries.chunk_by(|a, b| a.to == b.to) {
            tried.push(Tried { netns, entries: of_one.to_vec() });
        }
    }
    if left > 0 {
        facts.gap(Gap::new(
            Impact::Way,
            GapSource::new(GapKind::Services, format!("port {port}")),
            format!("{left} more have it at an address of their own, and are not followed"),
        ));
    }
    tried
}
