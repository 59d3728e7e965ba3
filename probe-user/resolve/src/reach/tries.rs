//! The connections that were tried, each once.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;

use whereis_port_rules::Nic;

use super::outcome::{self, AcceptedBy, ConnectionOutcome};
use crate::facts::Facts;
use crate::path::{self, Arrival, PacketDestination, TracedConnection};
use crate::ruled::Tried;
use whereis_port_model::{Hop, HopKind, NetnsId, Path, Port, Proto, Reach, Socket, Vantage};

/// Connections to ports at addresses of the own namespace, or through it.
pub(super) struct Tries<'a, 'f> {
    pub(super) facts: &'a Facts<'f>,
    asked: HashMap<(Proto, u16), Rc<[TracedConnection]>>,
    /// Those of which every address was tried.
    everywhere: HashSet<(Proto, u16)>,
    /// Addresses that are meant themselves.
    named: HashSet<IpAddr>,
    /// Connections to addresses of other namespaces.
    away: HashMap<(Proto, u16), Vec<TracedConnection>>,
    /// The ways that are meant, where others are told of no port.
    only: Option<MeantWays>,
}

/// Ways to what is asked for by its name.
struct MeantWays {
    ways: HashSet<path::WayKey>,
    /// Where they begin.
    firsts: HashSet<IpAddr>,
    /// Where rules on them lead: who is stopped on the way there did not get to its end.
    targets: HashSet<(IpAddr, Port)>,
}

impl<'a, 'f> Tries<'a, 'f> {
    /// With what was tried already.
    pub(super) fn new(facts: &'a Facts<'f>, tried: &[Tried]) -> Self {
        let own = tried.iter().filter(|t| t.netns == facts.host.own_netns);
        let mut by_port: HashMap<(Proto, u16), Vec<TracedConnection>> = HashMap::new();
        for entry in own.flat_map(|t| &t.entries) {
            by_port.entry((entry.to.proto, entry.to.port)).or_default().push(entry.clone());
        }
        let asked = by_port.into_iter().map(|(port, entries)| (port, entries.into())).collect();
        Self {
            facts,
            asked,
            everywhere: HashSet::new(),
            named: HashSet::new(),
            away: HashMap::new(),
            only: None,
        }
    }

    /// Leaves out connections that others get.
    pub(super) fn only_to(&mut self, paths: &[Path]) {
        let firsts = paths.iter().filter_map(|path| path.hops.first()?.endpoint.address);
        self.only = Some(MeantWays {
            ways: paths.iter().map(path::way_key).collect(),
            firsts: firsts.map(|address| address.to_canonical()).collect(),
            targets: paths.iter().flat_map(|path| targets(&path.hops)).collect(),
        });
    }

    /// Whether a connection is one that is told of: it gets to what is meant, or would if
    /// nothing stopped it.
    pub(super) fn is_told(&self, entry: &TracedConnection) -> bool {
        let Some(only) = &self.only else { return true };
        let is_on_it = |arrival: &Arrival| {
            if targets(&arrival.hops).any(|to| only.targets.contains(&to)) {
                return true;
            }
            if !arrival.hops.is_empty() || path::is_taken(arrival) {
                return only.ways.contains(&path::way_key(&path::to_path(arrival.clone())));
            }
            only.firsts.contains(&entry.to.address)
                || super::is_address_of(self.facts, entry.netns, entry.to.address)
        };
        entry.arrivals.iter().any(is_on_it)
    }

    /// With all that can be tried of one port, which was tried already.
    pub(super) fn whole(
        facts: &'a Facts<'f>,
        port: (Proto, u16),
        entries: Vec<TracedConnection>,
    ) -> Self {
        Self {
            facts,
            asked: HashMap::from([(port, entries.into())]),
            everywhere: HashSet::from([port]),
            named: HashSet::new(),
            away: HashMap::new(),
            only: None,
        }
    }

    /// What was tried of a port, to every address of the own namespace if that is wanted.
    pub(super) fn of(
        &mut self,
        proto: Proto,
        port: u16,
        everywhere: bool,
    ) -> Rc<[TracedConnection]> {
        if everywhere && self.everywhere.insert((proto, port)) {
            let known = self.asked.remove(&(proto, port)).unwrap_or_default();
            let own = self.facts.host.own_netns;
            let mut all: Vec<TracedConnection> = known.to_vec();
            all.extend(path::of_namespace(self.facts, own, (proto, port), &known));
            self.asked.insert((proto, port), all.into());
        }
        self.asked.get(&(proto, port)).cloned().unwrap_or_default()
    }

    /// Tries more addresses than those of interfaces.
    pub(super) fn add(&mut self, proto: Proto, port: u16, addresses: &[IpAddr]) {
        for address in addresses {
            self.named.insert(*address);
            let known = self.asked.entry((proto, port)).or_default();
            if known.iter().any(|entry| entry.to.address == *address) {
                continue;
            }
            let to = PacketDestination { proto, address: *address, port };
            let more = path::to_address(self.facts, self.facts.host.own_netns, to);
            *known = known.iter().cloned().chain(more).collect();
        }
    }

    /// Tries addresses from other machines that have a route over this node, where nobody else
    /// outside has one.
    pub(super) fn add_by_route(&mut self, proto: Proto, port: u16, addresses: &[IpAddr]) {
        let own = self.facts.host.own_netns;
        for address in addresses {
            let known = self.asked.entry((proto, port)).or_default();
            let is_it = |entry: &TracedConnection| {
                entry.to.address == *address && entry.sender.from == Vantage::Outside
            };
            if known.iter().any(is_it) {
                continue;
            }
            let Some(sender) = path::by_route(self.facts, own, *address) else { continue };
            let to = PacketDestination { proto, address: *address, port };
            let more = path::attempt(self.facts, own, sender, to);
            *known = known.iter().cloned().chain([more]).collect();
        }
    }

    /// What became of each: senders of one place are told apart where that is not the same
    /// for all of them.
    pub(super) fn outcomes(
        &mut self,
        proto: Proto,
        port: u16,
        everywhere: bool,
        sockets: &[&Socket],
    ) -> Vec<ConnectionOutcome> {
        let netns = self.facts.host.own_netns;
        let mut entries = self.of(proto, port, everywhere).to_vec();
        if everywhere {
            let takes = |to: IpAddr| sockets.iter().any(|socket| socket.match_rank(to).is_some());
            let known = |to: IpAddr| entries.iter().any(|entry| entry.to.address == to);
            let mut near = path::to_link_local(self.facts, netns);
            near.retain(|(_, to)| takes(*to) && !known(*to));
            entries.extend(path::by_senders(self.facts, netns, (proto, port), near));
        }
        let is_extra = |one: &ConnectionOutcome| {
            let narrow = link_local(one).filter(|address| !self.named.contains(address));
            narrow.is_some_and(|address| super::is_address_of(self.facts, netns, address))
        };
        entries.retain(|entry| self.is_told(entry));
        let of = |entry: &TracedConnection| (entry.clone(), outcome::of(self.facts, entry, None));
        let (extra, mut tried): (Vec<_>, Vec<_>) =
            entries.iter().map(of).partition(|(_, one)| is_extra(one));
        if !extra.is_empty() {
            let tells =
                |one: &ConnectionOutcome| tells_more(one, tried.iter().map(|(_, other)| other));
            let more: Vec<_> = extra.into_iter().filter(|(_, one)| tells(one)).collect();
            tried.extend(more);
            let left = tried.iter().map(|(entry, _)| entry.clone()).collect();
            self.asked.insert((proto, port), left);
        }
        let mut all: Vec<ConnectionOutcome> = tried.into_iter().map(|(_, one)| one).collect();
        tell_apart(self.facts, &mut all);
        all
    }

    /// Keeps a connection to an address of another namespace.
    pub(super) fn keep(&mut self, entry: TracedConnection) {
        self.away.entry((entry.to.proto, entry.to.port)).or_default().push(entry);
    }

    /// Says of each path from where connections were seen to go it.
    pub(super) fn mark(&self, paths: &mut [Path]) {
        let mut ways: HashMap<(Proto, u16), Vec<HashSet<path::WayKey>>> = HashMap::new();
        for path in paths {
            let key = path::way_key(path);
            let first = path.hops.first();
            let Some(port) = first.and_then(|h| Some((h.proto, h.endpoint.port?.0))) else {
                continue;
            };
            let own = self.asked.get(&port).map_or(&[][..], |own| own);
            let entries = || own.iter().chain(self.away.get(&port).into_iter().flatten());
            let ways = ways.entry(port).or_insert_with(|| {
                let key = |a: &path::Arrival| path::way_key(&path::to_path(a.clone()));
                entries().map(|entry| entry.arrivals.iter().map(key).collect()).collect()
            });
            for (entry, ways) in entries().zip(ways) {
                let from = entry.sender.from;
                if !path.from.contains(&from) && ways.contains(&key) {
                    path.from.push(from);
                }
            }
            path.from.sort_unstable();
        }
    }
}

/// Where rules on a way lead.
fn targets(hops: &[Hop]) -> impl Iterator<Item = (IpAddr, Port)> {
    // The first step is what was asked for.
    let translated = hops.iter().skip(1).filter(|hop| hop.kind == HopKind::Dnat);
    translated.filter_map(|hop| hop.endpoint.address.zip(hop.endpoint.port))
}

/// Whether a link-local IPv6 address of which nobody asked tells of a place what the place's other
/// addresses do not: that it gets in all the same.
pub(super) fn tells_more<'o>(
    one: &ConnectionOutcome,
    others: impl Iterator<Item = &'o ConnectionOutcome>,
) -> bool {
    let is_no = one.reach.reachable == Some(false);
    if one.taken == AcceptedBy::Not {
        return false;
    }
    for other in others.filter(|other| other.reach.from == one.reach.from) {
        if other.reach.reachable == Some(true) || is_no && other.taken != AcceptedBy::Not {
            return false;
        }
    }
    true
}

/// The address of a link alone, of IPv6, that an outcome is about.
pub(super) fn link_local(outcome: &ConnectionOutcome) -> Option<IpAddr> {
    let is_it = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
    outcome.reach.address.map(|at| at.ip()).filter(is_it)
}

/// Puts together those senders of a place that get the same, and names them where others
/// there get something else.
pub(super) fn tell_apart(facts: &Facts<'_>, all: &mut Vec<ConnectionOutcome>) {
    let place = |r: &Reach| (r.from, r.address);
    let mut kept: Vec<ConnectionOutcome> = Vec::with_capacity(all.len());
    for outcome in all.drain(..) {
        match kept.iter_mut().find(|known| known.reach.tells_the_same(&outcome.reach)) {
            Some(known) => known.devices.extend(outcome.devices),
            None => kept.push(outcome),
        }
    }
    let places: Vec<_> = kept.iter().map(|k| place(&k.reach)).collect();
    for outcome in &mut kept {
        let here = place(&outcome.reach);
        if places.iter().filter(|one| **one == here).count() > 1 {
            let mut by: Vec<String> = Vec::new();
            for name in outcome.devices.iter().map(|device| name_of(facts, device)) {
                if !by.contains(&name) {
                    by.push(name);
                }
            }
            outcome.reach.by = by;
        }
    }
    *all = kept;
}

/// The device, or the namespace of the only one who is behind it.
fn name_of(facts: &Facts<'_>, (netns, nic): &(NetnsId, Nic)) -> String {
    let links = facts.links_of(*netns);
    let peer = links.iter().find(|l| l.index == nic.index).and_then(|l| l.peer_netns);
    peer.map_or_else(|| nic.name.to_string(), |peer| facts.netns_ref(peer).to_string())
}
