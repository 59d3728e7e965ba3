//! Which of a namespace's ports rules and balancers take, and where they lead.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use whereis_port_rules::{Nic, Sender};

use super::{Arrival, StopKind, To, from_elsewhere, from_process, ruleset, send};
use crate::model::{
    Address, BaseChain, ChainKind, Ending, Endpoint, Gap, GapKind, Hook, HopKind, Impact, Link,
    LinkKind, LocalRoute, NetnsId, Path, Pid, Port, Proto, RouteKind, RouteQuery,
};
use crate::resolve::facts::Facts;
use crate::resolve::walk::Visited;

/// From where a connection to an address of a namespace comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::resolve) enum From {
    /// A process of the namespace, to a loopback address.
    Loopback,
    /// A process of the namespace, to another of its addresses.
    Own,
    /// From outside by the interface that has the address.
    Outside,
    /// The same, where that interface is a bridge or a device pair: containers are
    /// behind it.
    Inner,
}

/// A connection to a port of a namespace, and all ways it may take.
#[derive(Debug, Clone)]
pub(in crate::resolve) struct Entry {
    pub(in crate::resolve) from: From,
    pub(in crate::resolve) to: To,
    pub(in crate::resolve) arrivals: Vec<Arrival>,
}

/// How many addresses of one namespace are tried.
const ADDRESSES: usize = 64;

/// Whether anything but sockets could take a port of a namespace.
pub(in crate::resolve) fn may_take(facts: &Facts<'_>, netns: NetnsId) -> bool {
    // Transparent proxies take packets in chains that filter.
    let takes = |c: &BaseChain| {
        c.kind == ChainKind::Nat || c.kind == ChainKind::Filter && c.hook == Hook::Prerouting
    };
    let rules = ruleset(facts, netns).is_some_and(|rules| rules.base_chains.iter().any(takes));
    rules || !facts.take(facts.world.frontends(&[netns])).is_empty()
}

/// Tries a port of a namespace from everywhere: each of its addresses.
pub(in crate::resolve) fn of_namespace(
    facts: &Facts<'_>,
    netns: NetnsId,
    proto: Proto,
    port: u16,
) -> Vec<Entry> {
    let addresses = facts.addresses_of(netns);
    let links = facts.links_of(netns);
    let mut usable: Vec<&Address> = addresses.iter().filter(|a| is_usable(a, &links)).collect();
    if usable.len() > ADDRESSES {
        let left = usable.len() - ADDRESSES;
        usable.truncate(ADDRESSES);
        facts.gap(Gap::new(
            Impact::Port,
            GapKind::PacketRules,
            format!("{left} more addresses of network namespace {netns} were not tried"),
        ));
    }
    let mut all: Vec<Attempt> = Vec::new();
    for ipv6 in [false, true] {
        let address = send::loopback(ipv6);
        if addresses.iter().any(|a| a.address == address) {
            all.push(Attempt { from: From::Loopback, address, by: None });
        }
    }
    for one in &usable {
        all.push(Attempt { from: From::Own, address: one.address, by: None });
        let Some(link) = links.iter().find(|l| l.index == one.ifindex) else { continue };
        if is_inner(link, &links) {
            continue;
        }
        if let Some(link) = way_in(facts, link, &links, one.address) {
            let by = Some((nic(link), Sender::Elsewhere));
            all.push(Attempt { from: From::Outside, address: one.address, by });
        }
    }
    // Containers may use any address of the node; of several networks one is tried for
    // each address, its own if it has one.
    let inner: Vec<(&Address, &Link)> = usable
        .iter()
        .filter_map(|a| {
            Some((*a, links.iter().find(|l| l.index == a.ifindex && is_inner(l, &links))?))
        })
        .collect();
    for one in &usable {
        let own = inner.iter().find(|(a, _)| a.address == one.address);
        let same_family =
            || inner.iter().find(|(a, _)| a.address.is_ipv6() == one.address.is_ipv6());
        let Some((by, link)) = own.or_else(same_family) else { continue };
        let by = Some((nic(link), neighbour(facts, netns, by)));
        all.push(Attempt { from: From::Inner, address: one.address, by });
    }
    let share = facts.budget.of(netns);
    let cost = CONNECTION + u64::try_from(links.len() + addresses.len()).unwrap_or(u64::MAX);
    let count = all.len();
    let mut entries = Vec::with_capacity(count);
    for Attempt { from, address, by } in all {
        if !facts.budget.spend(&share, cost) {
            facts.budget.leave_out(&share, count - entries.len());
            break;
        }
        let to = To { proto, address, port };
        let arrivals = match by {
            Some((nic, source)) => from_elsewhere(facts, netns, nic, source, to),
            None => from_process(facts, netns, to, &mut Visited::new()),
        };
        entries.push(Entry { from, to, arrivals });
    }
    entries
}

/// What trying a connection costs besides the rules that it meets.
const CONNECTION: u64 = 500;

/// A connection to be tried: by a process of the namespace, or in by an interface.
struct Attempt {
    from: From,
    address: IpAddr,
    by: Option<(Nic, Sender)>,
}

fn nic(link: &Link) -> Nic {
    Nic { index: link.index, name: link.name.as_str().into() }
}

/// Tries one address from a namespace: a process of it connects, and if it has the
/// address, somebody else does.
pub(in crate::resolve) fn to_address(facts: &Facts<'_>, netns: NetnsId, to: To) -> Vec<Entry> {
    let from = if to.address.is_loopback() { From::Loopback } else { From::Own };
    let arrivals = from_process(facts, netns, to, &mut Visited::new());
    let mut entries = vec![Entry { from, to, arrivals }];
    if from == From::Loopback {
        return entries;
    }
    let addresses = facts.addresses_of(netns);
    let links = facts.links_of(netns);
    // Behind a bridge or a device pair are containers, not other machines.
    let of_inner = addresses
        .iter()
        .filter(|a| a.address == to.address)
        .any(|a| links.iter().any(|l| l.index == a.ifindex && is_inner(l, &links)));
    if !of_inner && let Some(arrivals) = to_own_address(facts, netns, to) {
        entries.push(Entry { from: From::Outside, to, arrivals });
    }
    let inner = addresses.iter().filter(|a| a.address.is_ipv6() == to.address.is_ipv6()).find_map(
        |address| {
            let link = links.iter().find(|l| l.index == address.ifindex)?;
            (is_usable(address, &links) && is_inner(link, &links)).then_some((address, link))
        },
    );
    if let Some((address, link)) = inner {
        let source = neighbour(facts, netns, address);
        let arrivals = from_elsewhere(facts, netns, nic(link), source, to);
        entries.push(Entry { from: From::Inner, to, arrivals });
    }
    entries
}

/// What becomes of a connection that comes in to one of a namespace's addresses, by
/// the interface that has it. `None` when none has.
pub(in crate::resolve) fn to_own_address(
    facts: &Facts<'_>,
    netns: NetnsId,
    to: To,
) -> Option<Vec<Arrival>> {
    let addresses = facts.addresses_of(netns);
    let links = facts.links_of(netns);
    let Some(address) = addresses.iter().find(|a| a.address == to.address) else {
        local_route(facts, netns, to.address)?;
        let link = default_way_in(facts, netns, &links, to.address)?;
        return Some(from_elsewhere(facts, netns, nic(link), Sender::Elsewhere, to));
    };
    let link = links.iter().find(|l| l.index == address.ifindex)?;
    let source =
        if is_inner(link, &links) { neighbour(facts, netns, address) } else { Sender::Elsewhere };
    let link = way_in(facts, link, &links, to.address)?;
    Some(from_elsewhere(facts, netns, nic(link), source, to))
}

/// The local route by which a namespace takes packets to an address that no interface of it
/// has, if the kernel routes them so.
pub(in crate::resolve) fn local_route(
    facts: &Facts<'_>,
    netns: NetnsId,
    address: IpAddr,
) -> Option<LocalRoute> {
    let address = address.to_canonical();
    let on_interface = || facts.addresses_of(netns).iter().any(|a| a.address == address);
    if address.is_loopback() || address.is_unspecified() || on_interface() {
        return None;
    }
    let covers =
        |l: &&LocalRoute| whereis_port_rules::route::covers(l.destination, l.prefix, address);
    let all = facts.take(facts.world.local_routes(&[netns]));
    let route = all.iter().filter(covers).max_by_key(|l| l.prefix)?.clone();
    let query = RouteQuery { netns, to: address, mark: 0 };
    let found = crate::resolve::route::decide(facts, &query)?;
    (found.kind == RouteKind::Local).then_some(route)
}

/// The interface by which packets from outside to an address come in: the one that has
/// it. Nothing comes in by the loopback or a dummy device, though services' addresses
/// are often put there: it is then the one of the default route, else any other.
fn way_in<'l>(
    facts: &Facts<'_>,
    has: &'l Link,
    links: &'l [Link],
    address: IpAddr,
) -> Option<&'l Link> {
    if leads_in(has) {
        return Some(has);
    }
    default_way_in(facts, has.netns, links, address)
}

/// The interface of the default route, else any other that leads in.
fn default_way_in<'l>(
    facts: &Facts<'_>,
    netns: NetnsId,
    links: &'l [Link],
    address: IpAddr,
) -> Option<&'l Link> {
    let routes = facts.take(facts.world.routes(&[netns]));
    let default =
        routes.iter().find(|r| r.prefix == 0 && r.destination.is_ipv6() == address.is_ipv6());
    let by_default = links.iter().find(|l| default.is_some_and(|r| r.ifindex == Some(l.index)));
    let others = || links.iter().filter(|l| l.up && leads_in(l));
    by_default.or_else(|| others().find(|l| !is_inner(l, links))).or_else(|| others().next())
}

/// Whether packets come in by an interface.
fn leads_in(link: &Link) -> bool {
    link.kind != LinkKind::Loopback
        && !matches!(&link.kind, LinkKind::Other(kind) if kind == "dummy")
}

/// Addresses worth trying: not loopback's, not link-local ones, and up. Those of
/// kube-proxy's dummy interface are of services, not of the node.
fn is_usable(address: &Address, links: &[Link]) -> bool {
    let local = match address.address {
        IpAddr::V4(a) => a.is_loopback() || a.is_link_local(),
        IpAddr::V6(a) => a.is_loopback() || a.is_unicast_link_local(),
    };
    let link = links.iter().find(|l| l.index == address.ifindex);
    !local && link.is_none_or(|l| l.up && l.name != "kube-ipvs0")
}

/// Whether what comes in by an interface is from this node: a bridge, one end of a pair
/// whose other end is in a namespace that is known, or in this one.
pub(super) fn is_inner(link: &Link, links: &[Link]) -> bool {
    let joined = |other: &Link| Some(other.index) == link.peer && other.peer == Some(link.index);
    match link.kind {
        LinkKind::Bridge => true,
        LinkKind::Veth => link.peer_netns.is_some() || links.iter().any(joined),
        _ => false,
    }
}

/// Some container on the network of an address.
fn neighbour(facts: &Facts<'_>, netns: NetnsId, of: &Address) -> Sender {
    let all = facts.all_addresses();
    let near = |a: &&Address| {
        a.netns != netns
            && a.address != of.address
            && whereis_port_rules::route::covers(of.address, of.prefix, a.address)
    };
    all.iter().find(near).map_or(Sender::Elsewhere, |a| Sender::Address(a.address))
}

/// Whether rules or a balancer of the first namespace took it.
pub(in crate::resolve) fn is_taken(arrival: &Arrival) -> bool {
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

/// The paths of what rules and balancers take among these connections to one port: one
/// for each way, with the addresses that lead to it put together; and how many more there
/// are than these.
pub(in crate::resolve) fn paths(entries: &[Entry]) -> (Vec<Path>, usize) {
    let mut paths: Vec<(Path, BTreeSet<IpAddr>)> = Vec::new();
    let mut known: HashMap<WayKey, Option<usize>> = HashMap::new();
    let (mut unsure, mut more) = (0, 0);
    for entry in entries {
        for arrival in entry.arrivals.iter().filter(|a| is_taken(a)) {
            let path = path(entry, arrival);
            match known.entry(way_key(&path)) {
                Slot::Occupied(at) => {
                    if let Some((known, addresses)) = at.get().and_then(|at| paths.get_mut(at)) {
                        add_evidence(known, &path);
                        addresses.insert(entry.to.address);
                    }
                }
                Slot::Vacant(new) => {
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
        Some((hop.kind, hop.netns.as_ref().map(|n| n.id), hop.endpoint.clone(), hop.detail.clone()))
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

fn path(entry: &Entry, arrival: &Arrival) -> Path {
    let mut path = super::to_path(arrival.clone());
    if path.hops.is_empty() {
        // Refused before any translation: the frontend is all there is.
        let evidence = path.end.evidence.clone();
        path.hops.push(crate::model::Hop {
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

/// A step without its words.
type Step = (HopKind, Option<NetnsId>, Option<IpAddr>, Option<Port>, Proto);

/// What two paths have in common that are the same but for the address asked for, and for
/// which hook the evidence is of.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::resolve) struct WayKey {
    steps: Vec<Step>,
    ending: Ending,
    pids: Vec<Pid>,
    ipv6: Option<bool>,
}

pub(in crate::resolve) fn way_key(path: &Path) -> WayKey {
    let step = |(at, hop): (usize, &crate::model::Hop)| {
        // The first one is what was asked for: any address will do.
        let endpoint = if at == 0 { None } else { hop.endpoint.address };
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
