//! Ports that are the same for everything on the way to them: ports that rules take, and those of
//! other namespaces. Rules are run once for all ports and addresses, and what they tell apart is
//! apart. Of those that nothing tells apart one is tried.
//!
//! Nothing is taken for alike where only few are there, or where something is on the way that is
//! not understood as data: attached programs, policy routing, rules of the other namespace.

mod place;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use whereis_port_rules::ports::{self, PacketClass};

use place::PlaceCache;

use crate::facts::Facts;
use crate::from_node::{self, FromNode};
use crate::path;
use whereis_port_model::{Cause, Exposure, Opening, Port, Proto, Why};

/// Up to how many ports each is tried by itself.
const FEW: usize = 64;

/// One unit of a group.
pub(super) struct Member {
    /// Its place.
    pub(super) at: usize,
    /// What is called otherwise in what is said of it: of each member the same things, in the
    /// same order.
    names: Vec<String>,
}

/// The units in groups of those that are alike.
pub(super) fn groups(facts: &Facts<'_>, units: &[Exposure], every: bool) -> Vec<Vec<Member>> {
    let own = facts.host.own_netns;
    let mut keys: Vec<Option<(String, Vec<String>)>> = units.iter().map(|_| None).collect();
    let of_rules =
        |unit: &&Exposure| unit.netns.id == own && unit.rows.iter().all(|row| row.socket.is_none());
    let elsewhere = |unit: &&Exposure| unit.netns.id != own;
    if !every && units.iter().filter(|unit| of_rules(unit) || elsewhere(unit)).count() > FEW {
        let mut places = PlaceCache::new(facts, units);
        let taken = taken_by_port(facts);
        for (at, unit) in units.iter().enumerate() {
            let key = if elsewhere(&unit) {
                places.of_unit(unit)
            } else if of_rules(&unit) {
                taken.as_ref().and_then(|taken| by_rules(taken, unit, &mut places))
            } else {
                None
            };
            if let Some(slot) = keys.get_mut(at) {
                *slot = key;
            }
        }
    }
    let mut groups: Vec<Vec<Member>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (at, key) in keys.into_iter().enumerate() {
        let Some((key, names)) = key else {
            groups.push(vec![Member { at, names: Vec::new() }]);
            continue;
        };
        let member = Member { at, names };
        match known.get(&key).and_then(|group| groups.get_mut(*group)) {
            // The same things have to be called otherwise.
            Some(group) if group.first().is_some_and(|f| f.names.len() == member.names.len()) => {
                group.push(member);
            }
            _ => {
                known.insert(key, groups.len());
                groups.push(vec![member]);
            }
        }
    }
    groups
}

/// What the first hook does to each port that it does anything special to.
struct HookEffects {
    pieces: Vec<PacketClass>,
    by_port: HashMap<(Proto, u16), Vec<usize>>,
    /// Those of so many ports that they are in no such list.
    of_many: Vec<usize>,
}

/// How many ports a piece has that is listed by each of them.
const LISTED: u128 = 1024;

fn taken_by_port(facts: &Facts<'_>) -> Option<HookEffects> {
    let own = facts.host.own_netns;
    let ruleset = path::ruleset(facts, own)?;
    let here = from_node::here(facts, own);
    let pieces = ports::pieces(&FromNode::new(facts, own), &ruleset, &here)?;
    let mut by_port: HashMap<(Proto, u16), Vec<usize>> = HashMap::new();
    let mut of_many = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        if piece.ports.len() > LISTED {
            of_many.push(at);
            continue;
        }
        for port in piece.ports.iter().filter_map(|port| u16::try_from(port).ok()) {
            by_port.entry((piece.proto, port)).or_default().push(at);
        }
    }
    Some(HookEffects { pieces, by_port, of_many })
}

impl HookEffects {
    /// What becomes of packets to a port, in the order of the rules.
    fn of(&self, proto: Proto, port: u16) -> Vec<&PacketClass> {
        let number = u128::from(port);
        let many = self.of_many.iter().filter_map(|at| self.pieces.get(*at));
        let has = |piece: &&PacketClass| {
            piece.proto == proto && !piece.ports.within(number, number).is_empty()
        };
        let listed = self.by_port.get(&(proto, port)).into_iter().flatten();
        listed.filter_map(|at| self.pieces.get(*at)).chain(many.filter(has)).collect()
    }
}

/// What tells a port that rules take from others: where it leads, under which conditions.
fn by_rules(
    taken: &HookEffects,
    unit: &Exposure,
    places: &mut PlaceCache<'_, '_>,
) -> Option<(String, Vec<String>)> {
    let pieces = taken.of(unit.proto, unit.port.0);
    if pieces.is_empty() {
        return None;
    }
    let mut names: Vec<String> = Vec::new();
    for row in &unit.rows {
        if let Some(service) = &row.service {
            names.push(format!("{}/{}", service.namespace, service.name));
        }
    }
    let mut key = format!("rules {} {} ", unit.proto, names.len());
    for row in &unit.rows {
        let by = row.taken_by.as_deref().unwrap_or_default();
        write!(key, "{:?}@{} {by} {:?};", row.kind, row.address, row.port_kind).ok()?;
    }
    let mut targets: Vec<(IpAddr, u16)> = Vec::new();
    for piece in pieces {
        let outcome = &piece.outcome;
        let packet = &outcome.packet;
        write!(
            key,
            "{:?}{}{:?}{:?}={:?} {} {:x} {:x} {:?} {:?} {} ",
            piece.pass,
            piece.ipv6,
            piece.addresses,
            piece.devices,
            outcome.fate,
            outcome.probability.to_bits(),
            packet.mark,
            packet.ct_mark,
            packet.seen_as,
            packet.tproxy.is_some(),
            outcome.more,
        )
        .ok()?;
        let target = piece.target(unit.port.0);
        let mut conditions: Vec<String> =
            outcome.depends.iter().map(|one| format!("{:?} {}", one.code, one.text)).collect();
        conditions.extend(outcome.notes.iter().cloned());
        if let Some((address, port)) = target {
            let at = match targets.iter().position(|known| *known == (address, port)) {
                Some(at) => at,
                None => {
                    targets.push((address, port));
                    targets.len() - 1
                }
            };
            write!(key, "->{at}:{} ", places.of_target(address, packet.mark, (unit.proto, port))?)
                .ok()?;
            // A server's own address is asked for, to tell whether it comes back to itself.
            let own = address.to_string();
            for one in &mut conditions {
                *one = renamed(one, &[(own.as_str(), "T")]);
            }
        }
        write!(key, "{conditions:?};").ok()?;
    }
    for (address, port) in targets {
        names.push(SocketAddr::new(address, port).to_string());
        names.push(address.to_string());
        names.push(places.name_of(address));
    }
    Some((key, names))
}

/// What is said of one member, as it is said of another.
pub(super) fn retold(
    openings: &[Opening],
    first: &Member,
    other: &Member,
    (unit, port): (&Exposure, Port),
) -> Vec<Opening> {
    let pairs: Vec<(&str, &str)> = first
        .names
        .iter()
        .zip(&other.names)
        .filter(|(one, other)| one != other && !one.is_empty())
        .map(|(one, other)| (one.as_str(), other.as_str()))
        .collect();
    let address = |to: SocketAddr| {
        let ip = to.ip().to_string();
        let moved =
            pairs.iter().find(|(one, _)| *one == ip).and_then(|(_, other)| other.parse().ok());
        SocketAddr::new(moved.unwrap_or(to.ip()), port.0)
    };
    let mut all = openings.to_vec();
    for one in &mut all {
        let reach = &mut one.reach;
        reach.netns = Some(unit.netns.clone());
        reach.address = reach.address.map(address);
        reach.fix = None;
        reach.why = why(&reach.why, &pairs);
        for condition in &mut reach.conditions {
            condition.text = renamed(&condition.text, &pairs);
        }
    }
    all
}

/// The reason with other names.
fn why(why: &Why, pairs: &[(&str, &str)]) -> Why {
    let text = |words: &String| renamed(words, pairs);
    let cause = match &why.cause {
        Cause::TakenByRules { words, to } => {
            let moved = |to: &SocketAddr| text(&to.to_string()).parse().unwrap_or(*to);
            Cause::TakenByRules { words: text(words), to: to.iter().map(moved).collect() }
        }
        Cause::Stopped { kind, words } => Cause::Stopped { kind: *kind, words: text(words) },
        Cause::Depends(words) => Cause::Depends(text(words)),
        Cause::LeavesNode(words) => Cause::LeavesNode(text(words)),
        Cause::Said(words) => Cause::Said(text(words)),
        Cause::Routed(name) => Cause::Routed(text(name)),
        Cause::NoLink(name) => Cause::NoLink(text(name)),
        Cause::ForwardedHere { name, by } => {
            Cause::ForwardedHere { name: text(name), by: by.clone() }
        }
        Cause::OnNetworkOf { name, device } => {
            Cause::OnNetworkOf { name: text(name), device: device.clone() }
        }
        cause => cause.clone(),
    };
    Why { of: why.of, cause, but: why.but.as_ref().map(text) }
}

/// A text with each of these words replaced, in one pass: what was put in is not replaced again.
/// Where several fit, the longest does; none inside of a longer number or name.
fn renamed(text: &str, pairs: &[(&str, &str)]) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before: Option<char> = None;
    while let Some(c) = rest.chars().next() {
        let fits = |(one, _): &&(&str, &str)| {
            let after = rest.strip_prefix(*one).and_then(|after| after.chars().next());
            rest.starts_with(one)
                && !before.is_some_and(is_part)
                && !after.is_some_and(|c| c.is_ascii_alphanumeric())
        };
        let found = pairs.iter().filter(fits).max_by_key(|(one, _)| one.len());
        if let Some((one, other)) = found {
            out.push_str(other);
            before = one.chars().last();
            rest = rest.get(one.len()..).unwrap_or_default();
            continue;
        }
        out.push(c);
        before = Some(c);
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::renamed;

    #[test]
    fn whole_names_are_replaced_once() {
        let pairs = [
            ("10.42.0.2:80", "10.42.0.3:80"),
            ("10.42.0.2", "10.42.0.3"),
            ("10.42.0.3", "10.42.0.2"),
        ];
        for (text, expected) in [
            ("to 10.42.0.2:80, 10.42.0.3", "to 10.42.0.3:80, 10.42.0.2"),
            ("to 10.42.0.20 and 110.42.0.2", "to 10.42.0.20 and 110.42.0.2"),
            ("[10.42.0.2]:8080", "[10.42.0.3]:8080"),
            ("", ""),
        ] {
            assert_eq!(renamed(text, &pairs), expected, "{text}");
        }
    }
}
