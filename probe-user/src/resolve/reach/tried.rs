//! What becomes of a connection from somewhere, tried on the facts.

use std::collections::{HashMap, HashSet};

use super::at;
use crate::model::{Cause, HopKind, Path, Proto, Reach, StopKind, Vantage};
use crate::resolve::facts::Facts;
use crate::resolve::path::{self, Entry, From, Judgement, To};
use crate::resolve::ruled::Tried;
use crate::resolve::walk::Visited;

/// How many addresses are named of which the same is true.
const ADDRESSES: usize = 8;
/// How many targets one line names.
const TARGETS: usize = 3;

/// Connections tried so far, each from one place.
pub(super) struct Tries<'a, 'f> {
    facts: &'a Facts<'f>,
    done: HashMap<(Vantage, To), Vec<path::Arrival>>,
    /// In the order in which they were tried, by port.
    order: HashMap<(Proto, u16), Vec<(Vantage, To)>>,
    /// How many of them, by port, are to addresses of the own namespace.
    own: HashMap<(Proto, u16), usize>,
}

impl<'a, 'f> Tries<'a, 'f> {
    /// With what was tried already: of the own namespace's entries.
    pub(super) fn new(facts: &'a Facts<'f>, tried: &[Tried]) -> Self {
        let mut tries =
            Self { facts, done: HashMap::new(), order: HashMap::new(), own: HashMap::new() };
        let own = tried.iter().filter(|t| t.netns == facts.host.own_netns);
        for entry in own.flat_map(|t| &t.entries) {
            tries.keep(vantage(entry), entry.to, entry.arrivals.clone());
        }
        tries.own = tries.order.iter().map(|(port, tried)| (*port, tried.len())).collect();
        tries
    }

    fn keep(&mut self, from: Vantage, to: To, arrivals: Vec<path::Arrival>) {
        if self.done.insert((from, to), arrivals).is_none() {
            self.order.entry((to.proto, to.port)).or_default().push((from, to));
        }
    }

    /// What was tried of a port, in order.
    fn of_port(&self, proto: Proto, port: u16) -> &[(Vantage, To)] {
        self.order.get(&(proto, port)).map_or(&[], Vec::as_slice)
    }

    /// Tries a connection, once. `None` from where none can be made.
    fn get(&mut self, from: Vantage, to: To) -> Option<&[path::Arrival]> {
        if !self.done.contains_key(&(from, to)) {
            let own = self.facts.host.own_netns;
            let arrivals = match from {
                Vantage::Loopback | Vantage::Node => {
                    path::from_process(self.facts, own, to, &mut Visited::new())
                }
                Vantage::Outside | Vantage::Containers => {
                    path::to_own_address(self.facts, own, to)?
                }
            };
            self.keep(from, to, arrivals);
        }
        self.done.get(&(from, to)).map(Vec::as_slice)
    }

    /// Corrects statements by what becomes of such connections.
    pub(super) fn check(&mut self, reach: &mut [Reach], proto: Proto, port: u16) {
        for entry in reach {
            let Some(address) = entry.address else { continue };
            // A container's published port is another one than was asked for.
            let to = To { proto, address: address.ip(), port: address.port() };
            let same = address.port() == port;
            let Some(arrivals) = self.get(entry.from, to) else { continue };
            let by_rules = how(arrivals).filter(|_| same);
            apply(entry, arrivals, by_rules);
        }
    }

    /// Adds what rules or balancers take at addresses that nothing else spoke of.
    pub(super) fn add_taken(&self, reach: &mut Vec<Reach>, proto: Proto, port: u16) {
        for (from, to) in self.of_port(proto, port).iter().copied() {
            let address = at(to.address, to.port);
            let known = |r: &Reach| r.from == from && r.address == Some(address);
            if reach.iter().any(known) {
                continue;
            }
            let Some(arrivals) = self.done.get(&(from, to)) else { continue };
            let Some(how) = how(arrivals) else { continue };
            let mut entry = Reach {
                from,
                address: Some(address),
                reachable: None,
                why: how.clone().into(),
                conditions: Vec::new(),
                fix: None,
            };
            apply(&mut entry, arrivals, Some(how));
            add(reach, entry);
        }
    }

    /// Adds, where rules or balancers take it from somewhere, from where nothing does.
    pub(super) fn add_refused(&self, reach: &mut Vec<Reach>, proto: Proto, port: u16) {
        let own = self.own.get(&(proto, port)).copied().unwrap_or_default();
        let own = self.of_port(proto, port).get(..own).unwrap_or_default();
        let taken = own.iter().any(|one| {
            self.done.get(one).is_some_and(|arrivals| arrivals.iter().any(path::is_taken))
        });
        if !taken {
            return;
        }
        for (from, to) in own {
            let address = at(to.address, to.port);
            let known =
                |r: &Reach| r.from == *from && (r.address.is_none() || r.address == Some(address));
            // IPv6 beside IPv4 is worth a word only where it would be used.
            if reach.iter().any(known) || to.address.is_ipv6() {
                continue;
            }
            let Some(arrivals) = self.done.get(&(*from, *to)) else { continue };
            let judgement = path::judge(arrivals);
            if judgement.arrives == Some(false) {
                let nothing = arrivals.iter().all(|a| a.hops.is_empty());
                let decisive = path::decisive(arrivals);
                let cause = if nothing && is_refused(arrivals) {
                    Cause::NoRule
                } else {
                    decisive.cause(judgement.why.unwrap_or_default())
                };
                let entry = Reach {
                    from: *from,
                    address: Some(address),
                    reachable: Some(false),
                    why: cause.into(),
                    conditions: decisive.conditions(),
                    fix: judgement.fix,
                };
                add(reach, entry);
            }
        }
    }

    /// Says of each path from where connections were seen to go it.
    pub(super) fn mark(&self, paths: &mut [Path]) {
        let mut ways: HashMap<(Vantage, To), HashSet<path::WayKey>> = HashMap::new();
        for path in paths {
            let key = path::way_key(path);
            let first = path.hops.first();
            let Some((proto, port)) = first.and_then(|h| Some((h.proto, h.endpoint.port?.0)))
            else {
                continue;
            };
            for (from, to) in self.of_port(proto, port) {
                let Some(arrivals) = self.done.get(&(*from, *to)) else { continue };
                let ways = ways.entry((*from, *to)).or_insert_with(|| {
                    let key = |a: &path::Arrival| path::way_key(&path::to_path(a.clone()));
                    arrivals.iter().map(key).collect()
                });
                if !path.from.contains(from) && ways.contains(&key) {
                    path.from.push(*from);
                }
            }
            path.from.sort_unstable();
        }
    }
}

/// Adds a statement, unless the same is said of enough addresses: more of it says
/// nothing new.
fn add(reach: &mut Vec<Reach>, entry: Reach) {
    let same =
        |r: &&Reach| (r.from, r.reachable, &r.why) == (entry.from, entry.reachable, &entry.why);
    if reach.iter().filter(same).count() < ADDRESSES {
        reach.push(entry);
    }
}

/// The same place, in the words of answers.
fn vantage(entry: &Entry) -> Vantage {
    match entry.from {
        From::Loopback => Vantage::Loopback,
        From::Own => Vantage::Node,
        From::Outside => Vantage::Outside,
        From::Inner => Vantage::Containers,
    }
}

fn is_refused(arrivals: &[path::Arrival]) -> bool {
    let nothing = |s: &path::Stop| s.kind == StopKind::Nothing;
    arrivals.iter().all(|a| a.stop.as_ref().is_some_and(nothing))
}

fn apply(entry: &mut Reach, arrivals: &[path::Arrival], by_rules: Option<Cause>) {
    let Judgement { arrives, why, fix } = path::judge(arrivals);
    let decisive = path::decisive(arrivals);
    match arrives {
        // Why a bind or an interface keeps it out is known better already.
        Some(false) if entry.reachable == Some(false) => return,
        Some(true) => {
            if let Some(how) = by_rules {
                entry.why.cause = how;
            }
            if let Some(but) = why {
                entry.why.but = Some(but);
            }
        }
        Some(false) => {
            entry.why = decisive.cause(why.unwrap_or_default()).into();
            entry.fix = fix.or(entry.fix.take());
        }
        None => {
            if let Some(why) = why {
                entry.why = decisive.cause(why).into();
            }
            entry.fix = fix.or(entry.fix.take());
        }
    }
    entry.reachable = arrives;
    entry.conditions = decisive.conditions();
}

/// How rules or a balancer take it, in a line: `published port, Docker: to
/// 172.17.0.2:80`.
fn how(arrivals: &[path::Arrival]) -> Option<Cause> {
    let taken: Vec<&path::Arrival> = arrivals.iter().filter(|a| path::is_taken(a)).collect();
    let one = taken.first()?;
    let Some(first) = one.hops.first() else {
        let stopped =
            |stop: &path::Stop| Cause::Stopped { kind: stop.kind, words: stop.why.clone() };
        return one.stop.as_ref().map(stopped);
    };
    let mut targets = Vec::new();
    for hop in taken.iter().filter_map(|a| a.hops.get(1)) {
        let target = hop.endpoint.address.zip(hop.endpoint.port);
        if let (HopKind::Dnat, Some((address, port))) = (hop.kind, target) {
            let target = at(address, port.0).to_string();
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
    }
    let more = targets.len().saturating_sub(TARGETS);
    targets.truncate(TARGETS);
    let mut text = first.detail.clone();
    if !targets.is_empty() {
        text.push_str(&format!(": to {}", targets.join(", ")));
    }
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    Some(Cause::TakenByRules(text))
}
