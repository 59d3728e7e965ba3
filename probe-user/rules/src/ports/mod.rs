//! Which ports the rules of a namespace take: for `list`, and to know what to ask.
//!
//! Packets to all ports of all addresses of the namespace are sent through its rules at
//! once. What tells them apart splits them, so that what is said here of a port is what
//! is said of one packet to it.

mod alike;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::dialect::{self, Meaning};
use super::nat::{self, address, number};
use super::wide::{Wide, numbered};
use super::{Fate, Nic, Outcome, Packet, PacketSender, RuleSource, text, traverse};
use crate::model::{Address, BaseChain, ChainKind, Hook, Link, LinkKind, NetnsId, Proto, Ruleset};

pub use super::wide::Ranges;
pub use alike::{PacketClass, at_addresses, has, pieces};

/// Where packets come in, and where to.
#[derive(Debug, Clone)]
pub struct Here {
    /// The namespace.
    pub netns: NetnsId,
    /// The devices that lead to others.
    pub devices: Arc<[Nic]>,
    /// The namespace's addresses.
    pub addresses: Vec<IpAddr>,
}

impl Here {
    /// Where packets of others come into a namespace, and where to. Links and addresses of
    /// other namespaces are no concern.
    pub fn new(netns: NetnsId, links: &[Link], addresses: &[Address]) -> Self {
        let leads_in = |link: &&Link| {
            let dummy = matches!(&link.kind, LinkKind::Other(kind) if kind == "dummy");
            link.netns == netns && link.up && link.kind != LinkKind::Loopback && !dummy
        };
        let nic = |link: &Link| Nic { index: link.index, name: link.name.as_str().into() };
        let own = addresses.iter().filter(|address| address.netns == netns);
        let mut addresses: Vec<IpAddr> = own.map(|a| a.address.to_canonical()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Self { netns, devices: links.iter().filter(leads_in).map(nic).collect(), addresses }
    }
}

/// A port that rules take, with or without a socket.
#[derive(Debug, Clone, PartialEq)]
pub struct TakenPort {
    /// The protocol.
    pub proto: Proto,
    /// The address; `None` for every address of the namespace.
    pub address: Option<IpAddr>,
    /// The port, host byte order.
    pub port: u16,
    /// Whether it is IPv6 that is taken.
    pub ipv6: bool,
    /// Where it leads: at most [`TakenPort::TARGETS`].
    pub targets: Vec<(IpAddr, u16)>,
    /// How many there are in all.
    pub total: usize,
    /// Who takes it, and what for, as the rules say.
    pub meaning: Meaning,
    /// Whether all packets to it are refused or dropped.
    pub refused: bool,
}

impl TakenPort {
    /// How many targets are kept.
    pub const TARGETS: usize = 4;
}

/// More ports than are named one by one, which a rule takes together.
#[derive(Debug, Clone, PartialEq)]
pub struct Many {
    /// The protocol.
    pub proto: Proto,
    /// The ports, host byte order.
    pub ports: Ranges,
    /// Whether it surely takes all of them: else some, as far as it is known.
    pub surely: bool,
    /// The rule, in words.
    pub rule: String,
}

/// The ports that the rules of a namespace take, and what can't be said port by port.
#[derive(Debug, Default)]
pub struct TakenPorts {
    /// In the order of port, protocol and address.
    pub ports: Vec<TakenPort>,
    /// What takes very many.
    pub many: Vec<Many>,
    /// A rule of which it is not known what it does with which ports, in words.
    pub unclear: Option<String>,
}

/// What a port that is found costs.
const PORT: usize = 100;
/// How many ports of one rule are listed: a range of more is no published port.
const MAX_PORTS: usize = 1024;

/// Every port of this namespace's addresses that rules translate, redirect or refuse
/// for want of a backend. In the order of port, protocol and address.
pub fn taken(source: &dyn RuleSource, ruleset: &Ruleset, here: &Here) -> TakenPorts {
    every(source, ruleset, here, &Proto::ALL, (1, u16::MAX))
}

/// The same of one port alone.
pub fn taken_of(
    source: &dyn RuleSource,
    ruleset: &Ruleset,
    here: &Here,
    proto: Proto,
    port: u16,
) -> TakenPorts {
    every(source, ruleset, here, &[proto], (port, port))
}

fn every(
    source: &dyn RuleSource,
    ruleset: &Ruleset,
    here: &Here,
    protos: &[Proto],
    ports: (u16, u16),
) -> TakenPorts {
    let found = TakenPorts::default();
    let mut search = PortSearch { source, ruleset, here, ports, kept: BTreeMap::new(), found };
    for ipv6 in [false, true] {
        let takes = |chain: &&BaseChain| chain.id.table.family.takes(ipv6);
        if ruleset.base_chains.iter().any(|chain| takes(&chain)) {
            for proto in protos {
                search.try_others(*proto, ipv6);
                search.try_own(*proto, ipv6);
            }
        }
    }
    search.finish()
}

/// How many addresses that are not the namespace's are told at most.
const ADDRESSES: usize = 4096;

/// The addresses that are not the namespace's at which its rules take a port: those of
/// services. Whole networks are none.
pub fn addresses(
    source: &dyn RuleSource,
    ruleset: &Ruleset,
    here: &Here,
    proto: Proto,
    port: u16,
) -> Vec<IpAddr> {
    let found = services_of(source, ruleset, here, proto, port);
    found.ports.into_iter().filter_map(|taken| taken.address).take(ADDRESSES).collect()
}

/// What [`services`] tells, of one port alone.
pub fn services_of(
    source: &dyn RuleSource,
    ruleset: &Ruleset,
    here: &Here,
    proto: Proto,
    port: u16,
) -> TakenPorts {
    at_others(source, ruleset, here, &[proto], (port, port))
}

/// Every port of addresses that are not the namespace's which rules translate: those of
/// services. Whole networks are none. In the order of port, protocol and address.
pub fn services(source: &dyn RuleSource, ruleset: &Ruleset, here: &Here) -> TakenPorts {
    at_others(source, ruleset, here, &Proto::ALL, (1, u16::MAX))
}

fn at_others(
    source: &dyn RuleSource,
    ruleset: &Ruleset,
    here: &Here,
    protos: &[Proto],
    ports: (u16, u16),
) -> TakenPorts {
    let found = TakenPorts::default();
    let mut search = PortSearch { source, ruleset, here, ports, kept: BTreeMap::new(), found };
    for ipv6 in [false, true] {
        for proto in protos {
            search.try_services(*proto, ipv6);
        }
    }
    search.finish()
}

/// A port, protocol, address and IP version.
type PortKey = (u16, Proto, Option<IpAddr>, bool);

/// What is known of a port so far: the hook that takes it, where it leads, and what for.
struct PortEntry {
    pass: Hook,
    targets: BTreeSet<(IpAddr, u16)>,
    meaning: Meaning,
}

/// A search for ports: packets to all of them at once, and what was found so far.
struct PortSearch<'a> {
    source: &'a dyn RuleSource,
    ruleset: &'a Ruleset,
    here: &'a Here,
    /// The first and the last port that are asked for.
    ports: (u16, u16),
    kept: BTreeMap<PortKey, PortEntry>,
    found: TakenPorts,
}

impl PortSearch<'_> {
    /// Packets of others, to all addresses that they can be sent to.
    fn try_others(&mut self, proto: Proto, ipv6: bool) {
        let own = self.own(ipv6);
        let (Some(first), Some(device)) = (own.first(), self.here.devices.first()) else { return };
        let all = numbered(&own);
        let packet = self.packet(proto, *first, all.clone(), Arc::clone(&self.here.devices));
        let packet = Packet { iif: Some(device.clone()), ..packet };
        for outcome in traverse(self.source, self.ruleset, Hook::Prerouting, packet) {
            if outcome.fate != Fate::Passes || is_taken(&outcome) || !self.has_filters(Hook::Input)
            {
                self.add(Hook::Prerouting, &all, &outcome);
                continue;
            }
            for outcome in traverse(self.source, self.ruleset, Hook::Input, outcome.packet) {
                self.add(Hook::Prerouting, &all, &outcome);
            }
        }
    }

    /// Packets that processes of the namespace send to it.
    fn try_own(&mut self, proto: Proto, ipv6: bool) {
        let own = self.own(ipv6);
        let loopback = loopback(ipv6);
        let all = numbered(&own);
        let every = Ranges::new(all.as_ranges().iter().copied().chain([loopback.1]));
        let oif = Some(Nic { index: 1, name: "lo".into() });
        let packet =
            Packet { oif, ..self.packet(proto, loopback.0, every.clone(), Arc::default()) };
        // What holds for all addresses but loopback's is said of all.
        let all = if own.is_empty() { every } else { all };
        for outcome in traverse(self.source, self.ruleset, Hook::Output, packet) {
            self.add(Hook::Output, &all, &outcome);
        }
    }

    /// Packets to all of its addresses: those of others, and those of its own processes.
    fn first_packets(&self, proto: Proto, ipv6: bool) -> Vec<(Hook, Packet)> {
        let own = self.own(ipv6);
        let mut all = Vec::new();
        if let (Some(first), Some(device)) = (own.first(), self.here.devices.first()) {
            let to = numbered(&own);
            let packet = self.packet(proto, *first, to, Arc::clone(&self.here.devices));
            all.push((Hook::Prerouting, Packet { iif: Some(device.clone()), ..packet }));
        }
        let loopback = loopback(ipv6);
        let to = numbered(&own);
        let every = Ranges::new(to.as_ranges().iter().copied().chain([loopback.1]));
        let oif = Some(Nic { index: 1, name: "lo".into() });
        let packet = self.packet(proto, loopback.0, every, Arc::default());
        all.push((Hook::Output, Packet { oif, ..packet }));
        all
    }

    /// Packets to all addresses but the namespace's, of its processes and of others.
    fn try_services(&mut self, proto: Proto, ipv6: bool) {
        let is_one = |a: &&IpAddr| a.is_ipv6() == ipv6;
        let Some(own) = self.here.addresses.iter().find(is_one) else { return };
        let every = if ipv6 { u128::MAX } else { u128::from(u32::MAX) };
        let local = self.here.addresses.iter().filter(is_one).map(|a| (number(*a), number(*a)));
        let local = Ranges::new(local.chain([loopback(ipv6).1]));
        let (_, others) = Ranges::new([(0, every)]).split(&local);
        let packet = self.packet(proto, *own, others, Arc::clone(&self.here.devices));
        let mine = Packet { source: PacketSender::Address(*own), ..packet.clone() };
        let theirs =
            self.here.devices.first().map(|device| Packet { iif: Some(device.clone()), ..packet });
        let ways = theirs.map(|theirs| (Hook::Prerouting, theirs));
        for (hook, mut packet) in ways.into_iter().chain([(Hook::Output, mine)]) {
            if let Some(wide) = packet.wide.as_mut().map(Arc::make_mut) {
                wide.from_itself = false;
                if hook == Hook::Output {
                    wide.devices = Arc::default();
                }
            }
            for outcome in traverse(self.source, self.ruleset, hook, packet) {
                if is_taken(&outcome) {
                    self.add_service(hook, &outcome, ipv6);
                }
            }
        }
    }

    fn add_service(&mut self, pass: Hook, outcome: &Outcome, ipv6: bool) {
        let packet = &outcome.packet;
        let Some(wide) = &packet.wide else { return };
        let most = MAX_PORTS as u128;
        if wide.addresses.len() > most || wide.ports.len() > most {
            return;
        }
        let meaning = dialect::meaning(&outcome.trail);
        for address in wide.addresses.iter().filter_map(|n| address(n, ipv6)) {
            for port in wide.ports.iter().filter_map(|port| u16::try_from(port).ok()) {
                if !self.source.spend(1) {
                    return;
                }
                let target = Some(target(packet, wide, port));
                self.keep((port, packet.proto, Some(address), ipv6), pass, target, &meaning);
            }
        }
    }

    /// The namespace's addresses of an IP version, without loopback's.
    fn own(&self, ipv6: bool) -> Vec<IpAddr> {
        let is_own = |a: &&IpAddr| a.is_ipv6() == ipv6 && !a.is_loopback();
        self.here.addresses.iter().filter(is_own).copied().collect()
    }

    /// To every port that is asked for of some addresses: of others by devices, without any by processes of
    /// the namespace.
    fn packet(&self, proto: Proto, to: IpAddr, all: Ranges, devices: Arc<[Nic]>) -> Packet {
        let wide = Wide {
            ports: Ranges::ports([self.ports]),
            addresses: all.clone(),
            from_itself: devices.is_empty(),
            devices,
            same_port: true,
            same_address: true,
            tproxy_port: false,
        };
        let first = SocketAddr::new(to, self.ports.0);
        let mut packet = Packet::new(self.here.netns, proto, PacketSender::Elsewhere, first);
        packet.wide = Some(Arc::new(wide));
        // One of them stands for all.
        packet.with_addresses(all)
    }

    fn has_filters(&self, hook: Hook) -> bool {
        let filters = |chain: &BaseChain| chain.hook == hook && chain.kind == ChainKind::Filter;
        self.ruleset.base_chains.iter().any(filters)
    }

    /// Takes notice of what becomes of packets that a pass began with `all` addresses.
    fn add(&mut self, pass: Hook, all: &Ranges, outcome: &Outcome) {
        let packet = &outcome.packet;
        let Some(wide) = &packet.wide else { return };
        // What becomes of a packet behind a translation is another question.
        let refuses = !is_taken(outcome);
        if refuses && matches!(outcome.fate, Fate::NotModelled | Fate::Unknown) {
            if self.found.unclear.is_none() && self.source.spend(1) {
                self.found.unclear = Some(Self::rule(outcome));
            }
            return;
        }
        if refuses && !matches!(outcome.fate, Fate::Dropped | Fate::Rejected(_)) {
            return;
        }
        let meaning = dialect::meaning(&outcome.trail);
        if refuses && meaning.refused.is_none() {
            return;
        }
        let ports: Vec<u128> = wide.ports.iter().take(MAX_PORTS + 1).collect();
        if ports.len() > MAX_PORTS {
            if !refuses {
                let (proto, ports) = (packet.proto, wide.ports.clone());
                let surely = outcome.depends.is_empty();
                let many = Many { proto, ports, surely, rule: Self::rule(outcome) };
                if !self.found.many.contains(&many) {
                    self.found.many.push(many);
                }
            }
            return;
        }
        let ipv6 = packet.original.map_or(packet.destination, |(to, _)| to).is_ipv6();
        let is_everywhere = wide.addresses.split(all).0 == *all;
        let addresses: Vec<Option<IpAddr>> = match is_everywhere {
            true => vec![None],
            false => each_address(&wide.addresses, ipv6).into_iter().map(Some).collect(),
        };
        for address in addresses {
            if address.is_some() && meaning.what == Some(dialect::CLUSTER_IP) {
                continue;
            }
            for port in &ports {
                let Ok(port) = u16::try_from(*port) else { continue };
                if !self.source.spend(PORT) {
                    return;
                }
                let target = (!refuses).then(|| target(packet, wide, port));
                self.keep((port, packet.proto, address, ipv6), pass, target, &meaning);
            }
        }
    }

    fn keep(&mut self, key: PortKey, pass: Hook, target: Option<(IpAddr, u16)>, meaning: &Meaning) {
        let new = || PortEntry { pass, targets: BTreeSet::new(), meaning: meaning.clone() };
        let kept = self.kept.entry(key).or_insert_with(new);
        // What the first pass says counts; a second way adds nothing.
        if let Some(target) = target.filter(|_| kept.pass == pass || kept.targets.is_empty()) {
            if kept.targets.is_empty() {
                kept.meaning = meaning.clone();
                kept.pass = pass;
            }
            kept.targets.insert(target);
        }
    }

    /// The rule that decided, in words.
    fn rule(outcome: &Outcome) -> String {
        let last = outcome.trail.iter().rev().find_map(|step| Some((step, step.rule()?)));
        let words = last.map(|(step, rule)| {
            format!("{} (chain {})", text::describe(&step.chain, rule), step.chain.name)
        });
        words.unwrap_or_else(|| "one that is not told".to_owned())
    }

    fn finish(self) -> TakenPorts {
        let mut found = self.found;
        for ((port, proto, address, ipv6), kept) in &self.kept {
            // What is taken at every address needs no row for one of them.
            let everywhere = self.kept.get(&(*port, *proto, None, *ipv6));
            if address.is_some() && everywhere.is_some_and(|all| all.targets == kept.targets) {
                continue;
            }
            found.ports.push(TakenPort {
                proto: *proto,
                address: *address,
                port: *port,
                ipv6: *ipv6,
                targets: kept.targets.iter().take(TakenPort::TARGETS).copied().collect(),
                total: kept.targets.len(),
                meaning: kept.meaning.clone(),
                refused: kept.targets.is_empty(),
            });
        }
        found
    }
}

/// How many addresses of loopback's network are told apart.
const LOOPBACKS: u128 = 16;

/// The loopback address of an IP version, and all of its network as numbers.
fn loopback(ipv6: bool) -> (IpAddr, (u128, u128)) {
    let one = nat::loopback(ipv6);
    if ipv6 {
        return (one, (number(one), number(one)));
    }
    let last = IpAddr::from([127, 255, 255, 255]);
    (one, (number(IpAddr::from([127, 0, 0, 0])), number(last)))
}

/// Addresses one by one: of most of loopback's network the one that is used.
fn each_address(all: &Ranges, ipv6: bool) -> Vec<IpAddr> {
    let (one, (from, to)) = loopback(ipv6);
    let (here, others) = all.split(&Ranges::new([(from, to)]));
    let many = here.len() > LOOPBACKS;
    let here = here.iter().take(if many { 0 } else { MAX_PORTS });
    let numbers = others.iter().take(MAX_PORTS).chain(here);
    numbers.filter_map(|n| address(n, ipv6)).chain(many.then_some(one)).collect()
}

/// Whether packets go elsewhere than they were sent to.
fn is_taken(outcome: &Outcome) -> bool {
    let packet = &outcome.packet;
    let wide = packet.wide.as_ref();
    let stays = wide.is_none_or(|wide| wide.same_port && wide.same_address);
    packet.tproxy.is_some() || !stays && packet.original.is_some()
}

/// Where a packet to a port is sent then.
fn target(packet: &Packet, wide: &Wide, port: u16) -> (IpAddr, u16) {
    match packet.tproxy {
        Some((to, _)) if wide.tproxy_port => (to, port),
        Some(to) => to,
        None if wide.same_port => (packet.destination, port),
        None => (packet.destination, packet.dport),
    }
}

#[cfg(test)]
mod tests;
