//! Which of a namespace's ports rules and balancers take, and where they lead.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use whereis_port_rules::Nic;

use super::senders::{self, Sender};
use super::{Arrival, PacketDestination, StopKind, from_bound, from_elsewhere, ruleset};
use crate::facts::Facts;
use crate::walk::Visited;
use whereis_port_model::{
    BaseChain, ChainKind, Condition, ConditionCode, Ending, Endpoint, Hook, HopKind, NetnsId, Path,
    Pid, Port, Proto, Vantage,
};

/// A connection to a port of a namespace, and all ways it may take.
#[derive(Debug, Clone)]
pub(crate) struct TracedConnection {
    /// The namespace that it begins in, or comes to.
    pub(crate) netns: NetnsId,
    pub(crate) sender: Sender,
    pub(crate) to: PacketDestination,
    pub(crate) arrivals: Vec<Arrival>,
}

/// Whether anything but sockets could take a port of a namespace.
pub(crate) fn may_take(facts: &Facts<'_>, netns: NetnsId) -> bool {
    // Transparent proxies take packets in chains that filter.
    let takes = |c: &BaseChain| {
        c.kind == ChainKind::Nat || c.kind == ChainKind::Filter && c.hook == Hook::Prerouting
    };
    let rules = ruleset(facts, netns).is_some_and(|rules| rules.base_chains.iter().any(takes));
    rules || !facts.take(facts.world.frontends(&[netns])).is_empty()
}

/// Tries a port of a namespace from everywhere: each of its addresses, but for what is known.
pub(crate) fn of_namespace(
    facts: &Facts<'_>,
    netns: NetnsId,
    (proto, port): (Proto, u16),
    known: &[TracedConnection],
) -> Vec<TracedConnection> {
    let mut all = senders::to_every_address(facts, netns);
    all.retain(|(sender, address)| {
        !known.iter().any(|e| (&e.sender, e.to.address) == (sender, *address))
    });
    by_senders(facts, netns, (proto, port), all)
}

/// The same by these senders, each to an address.
pub(crate) fn by_senders(
    facts: &Facts<'_>,
    netns: NetnsId,
    (proto, port): (Proto, u16),
    all: Vec<(Sender, IpAddr)>,
) -> Vec<TracedConnection> {
    let share = facts.budget.of(netns);
    let size = facts.links_of(netns).len() + facts.addresses_of(netns).len();
    let cost = CONNECTION + u64::try_from(size).unwrap_or(u64::MAX);
    let count = all.len();
    let mut entries = Vec::with_capacity(count);
    for (sender, address) in all {
        if !facts.budget.spend(&share, cost) {
            facts.budget.leave_out(&share, count - entries.len());
            break;
        }
        let entry = attempt(facts, netns, sender, PacketDestination { proto, address, port });
        // What rules lead on from there is sent from a link-local address, too, which no router
        // forwards.
        if is_link_local6(address) && entry.arrivals.iter().any(is_taken) {
            continue;
        }
        entries.push(entry);
    }
    entries
}

fn is_link_local6(address: IpAddr) -> bool {
    address.is_ipv6() && senders::is_link_local(address)
}

/// What trying a connection costs besides the rules that it meets.
const CONNECTION: u64 = 500;

/// Tries one address from a namespace: a process of it connects, and if it has the
/// address, somebody else does.
pub(crate) fn to_address(
    facts: &Facts<'_>,
    netns: NetnsId,
    to: PacketDestination,
) -> Vec<TracedConnection> {
    let all = senders::to_one_address(facts, netns, to.address);
    all.into_iter().map(|sender| attempt(facts, netns, sender, to)).collect()
}

/// Tries one connection to or through a namespace.
pub(crate) fn attempt(
    facts: &Facts<'_>,
    netns: NetnsId,
    sender: Sender,
    to: PacketDestination,
) -> TracedConnection {
    let by = |(nic, source): (Nic, senders::PacketSender), of: Option<NetnsId>| match of {
        Some(of)
            if !senders::is_link_local(to.address)
                && !senders::has_route(facts, of, to.address) =>
        {
            super::no_route(to.address)
        }
        Some(of) if let Some(why) = super::send::refused_at_once(facts, of, to) => vec![why],
        of => from_elsewhere(facts, netns, (nic, source, of), to),
    };
    let arrivals = match &sender.by {
        Some(known) => by(known.clone(), sender.of),
        None => {
            let who = (sender.process, sender.address);
            from_bound(facts, netns, who, to, &mut Visited::new())
        }
    };
    // Who stands for others of its network is told apart where it gets to itself.
    if let (Some((nic, senders::PacketSender::Address(own))), Some(of)) = (&sender.by, sender.of)
        && arrivals.iter().any(|a| a.entered.contains(&of))
        && let Some(other) = senders::another(facts, (netns, nic), (*own, of), to.address)
    {
        let others = by((nic.clone(), other.0), other.1);
        let arrivals = with_hairpin(others, arrivals, *own);
        let sender = Sender { by: Some((nic.clone(), other.0)), of: other.1, ..sender };
        return TracedConnection { netns, sender, to, arrivals };
    }
    // And where rules ask who connects: others may get what it does not.
    if let (Some((nic, senders::PacketSender::Address(own))), Some(of), Vantage::Containers) =
        (&sender.by, sender.of, sender.from)
        && ask_who_connects(facts, netns, nic, to)
    {
        let others = senders::others(facts, (netns, nic), (*own, of));
        let more = others.len() > CLIENTS;
        let tried = others.into_iter().take(CLIENTS).filter_map(|(source, of)| {
            let senders::PacketSender::Address(address) = source else { return None };
            let leads = senders::has_route(facts, of, to.address);
            let theirs = leads.then(|| by((nic.clone(), source), Some(of)))?;
            // What a server gets from itself is told otherwise.
            let is_itself = theirs.iter().any(|arrival| arrival.entered.contains(&of));
            (!is_itself).then_some((address, theirs))
        });
        let mut all: Vec<(IpAddr, Vec<Arrival>)> = vec![(*own, arrivals)];
        all.extend(tried);
        let mut arrivals = by_client(all);
        if more {
            let anybody = (nic.clone(), senders::PacketSender::Elsewhere, None);
            arrivals.extend(from_elsewhere(facts, netns, anybody, to));
        }
        return TracedConnection { netns, sender, to, arrivals };
    }
    TracedConnection { netns, sender, to, arrivals }
}

/// How many of a network are tried one by one where rules ask who connects.
const CLIENTS: usize = 64;

/// Whether what becomes of a connection from behind a device depends on whose it is.
fn ask_who_connects(facts: &Facts<'_>, netns: NetnsId, nic: &Nic, to: PacketDestination) -> bool {
    let anybody = (nic.clone(), senders::PacketSender::Elsewhere, None);
    let all = from_elsewhere(facts, netns, anybody, to);
    let is_who =
        |one: &Condition| matches!(one.code, ConditionCode::Client | ConditionCode::OtherClient);
    all.iter().flat_map(|arrival| &arrival.depends).any(is_who)
}

/// How many are named that get something else than others.
const NAMED: usize = 4;

/// What clients get, each of its own, together: what is the same is said once.
fn by_client(all: Vec<(IpAddr, Vec<Arrival>)>) -> Vec<Arrival> {
    struct Group {
        clients: Vec<IpAddr>,
        kinds: HashSet<Option<StopKind>>,
        arrivals: Vec<Arrival>,
    }
    let mut groups: Vec<Group> = Vec::new();
    for (client, arrivals) in all {
        let kinds = kinds(&arrivals);
        match groups.iter_mut().find(|group| group.kinds == kinds) {
            Some(group) => group.clients.push(client),
            None => groups.push(Group { clients: vec![client], kinds, arrivals }),
        }
    }
    // The few are named, and of as many on both sides those that get through.
    groups.sort_by_key(|group| (group.clients.len(), !group.kinds.contains(&None)));
    let Some(few) = groups.first().filter(|_| groups.len() > 1) else {
        return groups.pop().map_or_else(Vec::new, |group| group.arrivals);
    };
    let names: Vec<String> = few.clients.iter().take(NAMED).map(IpAddr::to_string).collect();
    let more = if few.clients.len() > NAMED { " or one more of these" } else { "" };
    let names = format!("{}{more}", names.join(" or "));
    let are_two = groups.len() == 2 && more.is_empty();
    let conditions = groups.iter().enumerate().map(|(at, _)| match (at, are_two) {
        (0, true) => Condition {
            code: ConditionCode::Client,
            text: format!("the client's address is {names}"),
        },
        (0, false) => Condition::of_rule(format!("the client's address is {names}")),
        _ => Condition {
            code: ConditionCode::OtherClient,
            text: format!("the client's address is not {names}"),
        },
    });
    let conditions: Vec<Condition> = conditions.collect();
    let each = groups.into_iter().zip(conditions).flat_map(|(group, condition)| {
        group.arrivals.into_iter().map(move |mut one| {
            one.depends.push(condition.clone());
            one
        })
    });
    each.collect()
}

/// How connections end, and that some arrive.
fn kinds(all: &[Arrival]) -> HashSet<Option<StopKind>> {
    all.iter().map(|a| a.stop.as_ref().map(|stop| stop.kind)).collect()
}

/// What others get, and what the server itself gets where that is something else.
fn with_hairpin(mut others: Vec<Arrival>, own: Vec<Arrival>, address: IpAddr) -> Vec<Arrival> {
    if kinds(&others) == kinds(&own) {
        return others;
    }
    let is = |not: &str, code| Condition {
        code,
        text: format!("the client's address is{not} {address}, which is the server's own"),
    };
    for one in &mut others {
        one.depends.push(is(" not", ConditionCode::OtherClient));
    }
    let of_own = |mut one: Arrival| {
        let own = is("", ConditionCode::Hairpin);
        one.depends.retain(|known| *known != own);
        one.depends.push(own);
        one
    };
    others.extend(own.into_iter().filter(|one| one.stop.is_some()).map(of_own));
    others
}

/// Whether rules or a balancer of the first namespace took it.
pub(crate) fn is_taken(arrival: &Arrival) -> bool {
    let translated = arrival
        .hops
        .first()
        .is_some_and(|hop| matches!(hop.kind, HopKind::Dnat | HopKind::Service));
    translated || arrival.stop.as_ref().is_some_and(|s| s.kind == StopKind::NoBackend)
}

/// How many ways are shown that depend on what is not known of who connects.
const UNSURE: usize = 8;
/// How many ways of one port are shown.
const PATHS: usize = 256;

/// Whether that is what a server gets which connects to itself by way of others, and fails: who is
/// told so is not on a path of its own.
fn fails_itself(entry: &TracedConnection, arrival: &Arrival) -> bool {
    let is_server = |one: &Condition| one.code == ConditionCode::Hairpin;
    let returns = entry.sender.of.is_some_and(|of| arrival.entered.contains(&of));
    arrival.stop.is_some() && (returns || arrival.depends.iter().any(is_server))
}

/// The paths of what rules and balancers take among these connections to one port: one
/// for each way, with the addresses that lead to it put together; and how many more there
/// are than these.
pub(crate) fn paths(entries: &[TracedConnection]) -> (Vec<Path>, usize) {
    let mut paths: Vec<(Path, BTreeSet<IpAddr>)> = Vec::new();
    let mut known: HashMap<WayKey, Option<usize>> = HashMap::new();
    let (mut unsure, mut more) = (0, 0);
    for entry in entries {
        for arrival in entry.arrivals.iter().filter(|a| is_taken(a) && !fails_itself(entry, a)) {
            let path = path(entry, arrival);
            match known.entry(way_key(&path)) {
                Entry::Occupied(at) => {
                    if let Some((known, addresses)) = at.get().and_then(|at| paths.get_mut(at)) {
                        add_evidence(known, &path);
                        addresses.insert(entry.to.address);
                    }
                }
                Entry::Vacant(new) => {
                    let depends = !arrival.depends.is_empty();
                    if paths.len() >= PATHS || depends && unsure >= UNSURE {
                        new.insert(None);
                        more += 1;
                        continue;
                    }
                    unsure += usize::from(depends);
                    new.insert(Some(paths.len()));
                    paths.push((path, BTreeSet::from([entry.to.address])));
                }
            }
        }
    }
    let untold = entries.iter().map(|e| e.arrivals.iter().map(|a| a.more).sum::<usize>()).max();
    more += untold.unwrap_or_default();
    let all = |ipv6: bool| {
        let mut all: BTreeSet<IpAddr> = entries.iter().map(|e| e.to.address).collect();
        all.retain(|a| a.is_ipv6() == ipv6 && !a.is_loopback());
        all
    };
    let everywhere = [all(false), all(true)];
    let mut found: Vec<Path> = paths
        .into_iter()
        .map(|(mut path, addresses)| {
            let v6 = addresses.iter().all(IpAddr::is_ipv6);
            let every = addresses.iter().filter(|a| a.is_ipv6() == v6).count() > 1
                && everywhere[usize::from(v6)].is_subset(&addresses);
            if every && let Some(first) = path.hops.first_mut() {
                let any = if v6 {
                    IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
                } else {
                    IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
                };
                first.endpoint.address = Some(any);
            }
            path
        })
        .collect();
    share_root(&mut found);
    (found, more)
}

/// The ways behind one frontend begin with the same step: what is known of it by one
/// is known by all.
fn share_root(paths: &mut [Path]) {
    let root = |path: &Path| {
        let hop = path.hops.first()?;
        let netns = hop.netns.as_ref().map(|n| n.id);
        Some((hop.kind, netns, hop.proto, hop.endpoint.clone(), path.end.service.clone()))
    };
    for at in 0..paths.len() {
        let (before, rest) = paths.split_at_mut(at);
        let Some(path) = rest.first_mut() else { continue };
        let same = before.iter_mut().find(|known| root(known) == root(path));
        if let Some(known) = same
            && let (Some(mine), Some(theirs)) = (path.hops.first_mut(), known.hops.first())
        {
            // How it goes on is told by the next step.
            mine.evidence.clone_from(&theirs.evidence);
        }
    }
}

fn path(entry: &TracedConnection, arrival: &Arrival) -> Path {
    let mut path = super::to_path(arrival.clone());
    if path.hops.is_empty() {
        // Refused before any translation: the frontend is all there is.
        let evidence = path.end.evidence.clone();
        path.hops.push(whereis_port_model::Hop {
            kind: HopKind::Service,
            netns: None,
            endpoint: Endpoint {
                address: Some(entry.to.address),
                name: None,
                port: Some(Port(entry.to.port)),
            },
            proto: entry.to.proto,
            detail: path.end.why.clone().unwrap_or_default(),
            socket: None,
            evidence,
            share: None,
        });
    }
    path
}

/// What a hop is without its words.
type StepKey = (HopKind, Option<NetnsId>, Option<IpAddr>, Option<Port>, Proto);

/// What two paths have in common that are the same but for the address asked for, and for
/// which hook the evidence is of.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct WayKey {
    steps: Vec<StepKey>,
    ending: Ending,
    pids: Vec<Pid>,
    ipv6: Option<bool>,
}

pub(crate) fn way_key(path: &Path) -> WayKey {
    let step = |(at, hop): (usize, &whereis_port_model::Hop)| {
        // Of rules the first one is what was asked for: any address will do.
        let asked = at == 0 && hop.socket.is_none();
        let endpoint = if asked { None } else { hop.endpoint.address };
        (hop.kind, hop.netns.as_ref().map(|n| n.id), endpoint, hop.endpoint.port, hop.proto)
    };
    let first = path.hops.first().and_then(|hop| hop.endpoint.address);
    WayKey {
        steps: path.hops.iter().enumerate().map(step).collect(),
        ending: path.end.ending,
        pids: path.end.processes.iter().map(|p| p.pid).collect(),
        ipv6: first.map(|address| address.is_ipv6()),
    }
}

/// How much evidence of one kind of step is kept: other hooks say the same.
const EVIDENCE: usize = 16;

fn add_evidence(known: &mut Path, other: &Path) {
    for (mine, theirs) in known.hops.iter_mut().zip(&other.hops) {
        for evidence in &theirs.evidence {
            if mine.evidence.len() < EVIDENCE && !mine.evidence.contains(evidence) {
                mine.evidence.push(evidence.clone());
            }
        }
    }
}
