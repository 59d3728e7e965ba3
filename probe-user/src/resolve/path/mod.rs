//! A packet's path: what the rules, balancers and routes of one namespace after the
//! other do to the first packet of a connection, until a socket takes it.
//!
//! ```text
//! a process here ──▶ OUTPUT ──▶ route ──▶ POSTROUTING ──▶ lo ──▶ INPUT ──▶ socket
//! from outside ──▶ PREROUTING ──▶ route ──▶ INPUT ──▶ socket
//!                                  └─▶ FORWARD ──▶ POSTROUTING ──▶ the next namespace
//! ```

mod balance;
mod cross;
#[cfg(test)]
mod differential;
mod found;
mod hops;
mod judge;
mod send;
mod stage;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use super::facts::Facts;
use super::walk::Visited;
use crate::model::{
    BaseChain, End, Family, Gap, Hop, Impact, NetSettings, NetnsId, Path, Proto, Ruleset, Service,
};

pub(super) use found::{
    Entry, From, is_taken, may_take, of_namespace, paths, same_way, to_address, to_own_address,
};
pub(super) use judge::{Judgement, judge};
pub(super) use send::{from_elsewhere, from_process, loopback};

/// Where a connection is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct To {
    pub(super) proto: Proto,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// How one of the possible ways of a connection ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Arrival {
    /// The steps: translations, then what the listener leads to.
    pub(super) hops: Vec<Hop>,
    pub(super) end: End,
    /// How likely, among those with the same assumptions.
    pub(super) probability: f64,
    /// What it takes for this to happen.
    pub(super) depends: Vec<String>,
    /// What may send single clients elsewhere.
    pub(super) notes: Vec<String>,
    /// Why it gets nowhere; `None` when something takes it.
    pub(super) stop: Option<Stop>,
}

/// Why a packet gets nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) kind: StopKind,
    /// In words, without the place: `dropped by rule …`.
    pub(super) why: String,
    /// What would help, where it is known.
    pub(super) fix: Option<String>,
}

/// What stops a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum StopKind {
    /// Nothing listens: refused.
    Nothing,
    /// A rule or policy drops it.
    Dropped,
    /// A rule refuses it.
    Rejected,
    /// A service without a backend.
    NoBackend,
    /// The kernel does not let it pass: no route, no forwarding, loopback addresses
    /// on a wire.
    NoWay,
    /// It is not known what becomes of it.
    Unknown,
}

/// A way that is being followed.
#[derive(Debug, Clone)]
struct Way {
    hops: Vec<Hop>,
    /// How many namespaces it came into from outside.
    entered: usize,
    probability: f64,
    depends: Vec<String>,
    notes: Vec<String>,
    /// The Kubernetes service that led here: the last one.
    service: Option<Service>,
}

impl Way {
    fn begin() -> Self {
        Self {
            hops: Vec::new(),
            entered: 0,
            probability: 1.0,
            depends: Vec::new(),
            notes: Vec::new(),
            service: None,
        }
    }

    fn stop(self, kind: StopKind, why: impl Into<String>) -> Arrival {
        self.stop_with(kind, why, None, End::default())
    }

    fn stop_with(
        self,
        kind: StopKind,
        why: impl Into<String>,
        fix: Option<String>,
        mut end: End,
    ) -> Arrival {
        let why = why.into();
        end.ending = match kind {
            StopKind::Nothing | StopKind::NoBackend => crate::model::Ending::Nothing,
            StopKind::Unknown => crate::model::Ending::Unknown,
            StopKind::Dropped | StopKind::Rejected | StopKind::NoWay => {
                crate::model::Ending::Stopped
            }
        };
        end.why.get_or_insert_with(|| why.clone());
        self.arrive(Path { end, ..Path::default() }, Some(Stop { kind, why, fix }))
    }

    /// The way, and what comes behind its last step.
    fn arrive(self, path: Path, stop: Option<Stop>) -> Arrival {
        let mut hops = self.hops;
        hops.extend(path.hops);
        let mut end = path.end;
        end.service = end.service.or(self.service);
        Arrival {
            hops,
            end,
            probability: self.probability,
            depends: self.depends,
            notes: self.notes,
            stop,
        }
    }
}

/// How many namespaces and translations one connection may pass. Routes alone can lead
/// in a circle, and so can rules.
const MAX_DEPTH: usize = 8;

/// What was read for walks so far: a walk asks for the same rulesets again and again.
#[derive(Default)]
pub(super) struct Memo {
    rulesets: RefCell<HashMap<NetnsId, Option<Rc<Ruleset>>>>,
    settings: RefCell<HashMap<NetnsId, Option<Rc<NetSettings>>>>,
}

/// The ruleset of a namespace; `None` when it has none.
pub(super) fn ruleset(facts: &Facts<'_>, netns: NetnsId) -> Option<Rc<Ruleset>> {
    if let Some(known) = facts.memo.rulesets.borrow().get(&netns) {
        return known.clone();
    }
    read_rulesets(facts, &[netns]);
    facts.memo.rulesets.borrow().get(&netns).cloned().flatten()
}

/// Reads the rulesets of several namespaces at once.
pub(super) fn read_rulesets(facts: &Facts<'_>, netns: &[NetnsId]) {
    let missing: Vec<NetnsId> =
        netns.iter().copied().filter(|id| !facts.memo.rulesets.borrow().contains_key(id)).collect();
    if missing.is_empty() {
        return;
    }
    let read = facts.take(facts.node.rulesets(&missing));
    for ruleset in &read {
        let of_bridge = |c: &BaseChain| c.id.table.family == Family::Bridge;
        if ruleset.base_chains.iter().any(of_bridge) {
            let name = facts.netns_ref(ruleset.netns).name;
            let name = name.unwrap_or_else(|| ruleset.netns.to_string());
            facts.gap(Gap::new(
                Impact::Reach,
                format!("bridge rules of network namespace {name}"),
                "they may stop frames between the members of a bridge, and are not followed by this version",
            ));
        }
    }
    let mut memo = facts.memo.rulesets.borrow_mut();
    for id in missing {
        memo.insert(id, read.iter().find(|r| r.netns == id).cloned().map(Rc::new));
    }
}

/// The settings of a namespace.
fn settings(facts: &Facts<'_>, netns: NetnsId) -> Option<Rc<NetSettings>> {
    if let Some(known) = facts.memo.settings.borrow().get(&netns) {
        return known.clone();
    }
    let read = facts.take(facts.node.settings(&[netns])).into_iter().next().map(Rc::new);
    facts.memo.settings.borrow_mut().insert(netns, read.clone());
    read
}

/// The state of one walk: where it has been.
struct Walk<'a, 'f> {
    facts: &'a Facts<'f>,
    visited: &'a RefCell<&'a mut Visited>,
}

/// An arrival as a path of the answer: what it depends on is said at its first step.
pub(super) fn to_path(arrival: Arrival) -> Path {
    let mut path =
        Path { hops: arrival.hops, end: arrival.end, from: Vec::new(), contexts: Vec::new() };
    if let Some(hop) = path.hops.first_mut().filter(|_| !arrival.depends.is_empty()) {
        hop.detail.push_str(&format!(", if {}", arrival.depends.join(", and ")));
    }
    path
}
