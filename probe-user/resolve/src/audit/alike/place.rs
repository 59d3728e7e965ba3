//! Places that connections are sent to, and what all that decides on the way to them is like.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use whereis_port_rules::{Nic, Outcome, Packet, PacketSender, ports, route};

use crate::facts::Facts;
use crate::from_node::{self, FromNode};
use crate::{path, route as routes};
use whereis_port_model::{
    Ailment, Ending, Exposure, Hook, Link, ListRow, NeighbourState, NetnsId, Port, Proto, Ruleset,
};

/// How many addresses are run at once, and by how many devices: rules that ask for both look at
/// each of one with each of the others.
const TOGETHER: usize = 256;
const DEVICES: usize = 12;
const PAIRS: usize = 4;

/// What is known of places so far.
pub(super) struct PlaceCache<'a, 'f> {
    facts: &'a Facts<'f>,
    own: NetnsId,
    ruleset: Option<Rc<Ruleset>>,
    /// The namespaces that have an address.
    having: HashMap<IpAddr, Vec<NetnsId>>,
    /// What was known of a neighbour of the own namespace.
    neighbours: HashMap<IpAddr, NeighbourState>,
    /// What has a port of a namespace.
    units: HashMap<(NetnsId, Proto, Port), String>,
    /// Whether anything is in the way that is not told apart here.
    is_opaque: bool,
    /// The addresses that are told apart together.
    all: Vec<IpAddr>,
    namespaces: HashMap<NetnsId, Option<String>>,
    forwarded: HashMap<(u32, Proto, u16), Option<HashMap<IpAddr, String>>>,
}

impl<'a, 'f> PlaceCache<'a, 'f> {
    pub(super) fn new(facts: &'a Facts<'f>, units: &[Exposure]) -> Self {
        let own = facts.host.own_netns;
        let mut having: HashMap<IpAddr, Vec<NetnsId>> = HashMap::new();
        for one in facts.all_addresses().iter().filter(|one| !one.address.is_loopback()) {
            having.entry(one.address).or_default().push(one.netns);
        }
        let near = facts.take(facts.world.neighbours(&[own]));
        let neighbours = near.iter().map(|one| (one.address, one.state)).collect();
        let key = |unit: &Exposure| (unit.netns.id, unit.proto, unit.port);
        let targets = |unit: &'_ Exposure| -> Vec<IpAddr> {
            let rows = unit.rows.iter().flat_map(|row| row.target.iter().chain(&row.others));
            rows.filter_map(|to| Some(to.address?.to_canonical())).collect()
        };
        let mut all: Vec<IpAddr> = units.iter().flat_map(targets).collect();
        all.extend(having.keys().copied());
        all.sort_unstable();
        all.dedup();
        // What asks more than the main table, or is attached to a device, is not compared here.
        let is_opaque =
            [false, true].iter().any(|v6| !routes::policies(facts, own, *v6).is_empty())
                || !facts.take(facts.world.attached(&[own])).is_empty()
                || !facts.take(facts.world.frontends(&[own])).is_empty();
        Self {
            facts,
            own,
            ruleset: path::ruleset(facts, own),
            having,
            neighbours,
            units: units.iter().map(|unit| (key(unit), listeners(&unit.rows))).collect(),
            is_opaque,
            all,
            namespaces: HashMap::new(),
            forwarded: HashMap::new(),
        }
    }

    /// What the only namespace that has an address is called, for what is said of it.
    pub(super) fn name_of(&self, address: IpAddr) -> String {
        match self.having.get(&address).map(Vec::as_slice) {
            Some([one]) => self.facts.netns_ref(*one).to_string(),
            _ => String::new(),
        }
    }

    /// What a place is like that rules of the own namespace send packets to; `None` where it is
    /// like no other.
    pub(super) fn of_target(
        &mut self,
        address: IpAddr,
        mark: u32,
        (proto, port): (Proto, u16),
    ) -> Option<String> {
        if self.is_opaque {
            return None;
        }
        let rules = self.forwarded(mark, (proto, port))?.get(&address)?.clone();
        let way = self.way_to(address);
        match self.having.get(&address).map(Vec::as_slice) {
            None => Some(format!("off {port} {way} {rules}")),
            Some([one]) if *one != self.own => {
                let netns = *one;
                let inside = self.namespace(netns)?;
                let listens = self.units.get(&(netns, proto, Port(port)));
                let listens = listens.map_or("nothing", String::as_str).to_owned();
                let known = self.neighbours.get(&address);
                Some(format!("in {port} {way} {rules} {inside} {listens} {known:?}"))
            }
            Some(_) => None,
        }
    }

    /// What a port of another namespace is like, and what it is called; `None` where it is like
    /// no other.
    pub(super) fn of_unit(&mut self, unit: &Exposure) -> Option<(String, Vec<String>)> {
        let netns = unit.netns.id;
        let port = (unit.proto, unit.port.0);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for (address, places) in &self.having {
            if places.contains(&netns) {
                addresses.push(*address);
            }
        }
        addresses.sort_by_key(|address| (address.is_ipv6(), *address));
        let mut key = format!("unit {} {} ", unit.proto, unit.port);
        let mut names = vec![unit.netns.to_string()];
        for address in addresses {
            if is_link_local(address) {
                continue;
            }
            let like = self.of_target(address, 0, port)?;
            write!(key, "{like};").ok()?;
            names.push(SocketAddr::new(address, unit.port.0).to_string());
            names.push(address.to_string());
        }
        Some((key, names))
    }

    /// The route of the own namespace, by its place in the table.
    fn way_to(&self, address: IpAddr) -> String {
        let all = self.facts.take(self.facts.world.routes(&[self.own]));
        match route::lookup(all.iter(), address) {
            // A route for one address is like another one by the same device.
            Some(one) => format!("{} {:?} {:?}", one.prefix, one.gateway, self.device(one.ifindex)),
            None => "none".to_owned(),
        }
    }

    /// What a device of the own namespace is, without its name: each pod may have one.
    fn device(&self, index: Option<u32>) -> String {
        let links = self.facts.links_of(self.own);
        let link = links.iter().find(|link| Some(link.index) == index);
        match link {
            Some(link) if link.peer_netns.is_some() => format!("pair {}", shape(link)),
            _ => format!("{index:?}"),
        }
    }

    /// What the rules behind routing do to packets to each address.
    fn forwarded(
        &mut self,
        mark: u32,
        (proto, port): (Proto, u16),
    ) -> Option<&HashMap<IpAddr, String>> {
        let key = (mark, proto, port);
        if !self.forwarded.contains_key(&key) {
            let found = self.run(mark, proto, port);
            self.forwarded.insert(key, found);
        }
        self.forwarded.get(&key)?.as_ref()
    }

    fn run(&self, mark: u32, proto: Proto, port: u16) -> Option<HashMap<IpAddr, String>> {
        let mut like: HashMap<IpAddr, String> =
            self.all.iter().map(|address| (*address, String::new())).collect();
        let Some(ruleset) = &self.ruleset else { return Some(like) };
        let devices = self.devices();
        let source = FromNode::new(self.facts, self.own);
        let of_version = |ipv6: bool| move |one: &&IpAddr| one.is_ipv6() == ipv6;
        let all = [false, true].map(|v6| self.all.iter().filter(of_version(v6)).copied().collect());
        for some in all.iter().flat_map(|all: &Vec<IpAddr>| all.chunks(TOGETHER)) {
            let Some(first) = some.first() else { continue };
            let to = SocketAddr::new(*first, port);
            for hook in [Hook::Prerouting, Hook::Output, Hook::Forward, Hook::Postrouting] {
                let early = matches!(hook, Hook::Prerouting | Hook::Output);
                // What is translated has these behind it.
                if early && mark != 0 {
                    continue;
                }
                let mut packet = Packet::new(self.own, proto, PacketSender::Elsewhere, to);
                packet.mark = mark;
                let output = hook == Hook::Output;
                packet.iif = if output { None } else { devices.first().cloned() };
                packet.oif = match hook {
                    Hook::Prerouting => None,
                    _ => devices.first().cloned(),
                };
                let ways = (if output { &[][..] } else { &devices }, some);
                let found = ports::at_addresses(&source, ruleset, hook, &packet, ways)?;
                for (addresses, outcome) in &found {
                    let what = told(outcome);
                    for address in some.iter().filter(|one| ports::has(addresses, **one)) {
                        write!(like.entry(*address).or_default(), "{hook:?} {what};").ok()?;
                    }
                }
            }
        }
        Some(like)
    }

    /// The devices by which packets come in, but for the ports of bridges; of pairs, of which each
    /// pod may have one, a few.
    fn devices(&self) -> Vec<Nic> {
        let links = self.facts.links_of(self.own);
        let here = from_node::here(self.facts, self.own);
        let link = |nic: &Nic| links.iter().find(|link| link.index == nic.index);
        let is_port = |nic: &Nic| link(nic).is_some_and(|link| link.master.is_some());
        let is_pair = |nic: &Nic| link(nic).is_some_and(|link| link.peer_netns.is_some());
        let (pairs, others): (Vec<Nic>, Vec<Nic>) =
            here.devices.iter().filter(|nic| !is_port(nic)).cloned().partition(is_pair);
        others.into_iter().chain(pairs.into_iter().take(PAIRS)).take(DEVICES).collect()
    }

    /// What a namespace is like inside; `None` where it is like no other.
    fn namespace(&mut self, netns: NetnsId) -> Option<String> {
        if let Some(known) = self.namespaces.get(&netns) {
            return known.clone();
        }
        let found = self.look_into(netns);
        self.namespaces.insert(netns, found.clone());
        found
    }

    fn look_into(&self, netns: NetnsId) -> Option<String> {
        let facts = self.facts;
        let has_rules = path::ruleset(facts, netns).is_some_and(|all| !all.base_chains.is_empty());
        let has_policies =
            [false, true].iter().any(|v6| !routes::policies(facts, netns, *v6).is_empty());
        let programs = facts.take(facts.world.attached(&[netns]));
        if has_rules || has_policies || !programs.is_empty() {
            return None;
        }
        let mut text = String::new();
        let host = facts.links_of(self.own);
        for link in facts.links_of(netns).iter() {
            let port = host
                .iter()
                .find(|l| link.peer_netns == Some(self.own) && Some(l.index) == link.peer);
            write!(text, "{} {:?};", shape(link), port.map(|port| (shape(port), port.master)))
                .ok()?;
        }
        for address in facts.addresses_of(netns).iter() {
            write!(text, "{} {};", address.prefix, address.address.is_ipv6()).ok()?;
        }
        for one in facts.take(facts.world.routes(&[netns])).iter() {
            write!(text, "{}/{} {:?};", one.destination, one.prefix, one.gateway).ok()?;
        }
        for one in facts.take(facts.world.settings(&[netns])).iter() {
            let mut one = one.clone();
            one.netns = self.own;
            write!(text, "{one:?}").ok()?;
        }
        let containers = facts.containers_of(netns);
        let of = |c: &whereis_port_model::Container| {
            c.networks.iter().map(|network| network.name.clone()).collect::<Vec<_>>()
        };
        write!(text, "{:?}", containers.iter().map(of).collect::<Vec<_>>()).ok()?;
        Some(text)
    }
}

/// What becomes of a packet, and for one that is stopped by which rule.
fn told(outcome: &Outcome) -> String {
    let packet = &outcome.packet;
    let stopped = outcome.fate != whereis_port_rules::Fate::Passes;
    let last = outcome.trail.last().filter(|_| stopped);
    let rule = last.map(|step| (step.chain.clone(), step.rule().map(|rule| rule.handle)));
    format!(
        "{:?} {} {:x} {:x} {:?} {:?} {rule:?}",
        outcome.fate,
        outcome.probability.to_bits(),
        packet.mark,
        packet.ct_mark,
        packet.seen_as,
        outcome.depends,
    )
}

/// What of an interface decides, without what it is called.
fn shape(link: &Link) -> String {
    format!("{:?} {} {} {:?}", link.kind, link.up, link.master.is_some(), link.bridge_port)
}

/// What listens there, without who it is.
fn listeners(rows: &[ListRow]) -> String {
    let one = |row: &ListRow| {
        let socket = row.socket.as_ref().map(|socket| {
            let bound = socket.effective_address();
            let bound = if bound.is_unspecified() || bound.is_loopback() {
                bound.to_string()
            } else {
                "one".to_owned()
            };
            let ailments = Ailment::of(socket, &row.end.processes);
            (bound, socket.v6only, socket.ifindex, socket.state, ailments)
        });
        // Who passes connections on is like nobody.
        let forwards = row.target.as_ref().map(|to| (to, row.socket.as_ref().map(|s| s.inode)));
        let ends = row.end.ending == Ending::Process;
        format!("{:?} {socket:?} {forwards:?} {ends} {:?}", row.kind, row.end.stop)
    };
    let mut all: Vec<String> = rows.iter().map(one).collect();
    all.sort_unstable();
    all.join(" & ")
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
