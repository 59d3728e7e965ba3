//! A packet's path: what the rules, balancers and routes of one namespace after the
//! other do to the first packet of a connection, until a socket takes it.
//!
//! ```text
//! a process here ──▶ OUTPUT ──▶ route ──▶ POSTROUTING ──▶ lo ──▶ INPUT ──▶ socket
//! from outside ──▶ PREROUTING ──▶ route ──▶ INPUT ──▶ socket
//!                                  └─▶ FORWARD ──▶ POSTROUTING ──▶ the next namespace
//! ```

mod answer;
mod back;
mod balance;
mod cilium;
mod cross;
mod decisive;
#[cfg(test)]
mod differential;
mod discovery;
mod firewall;
mod found;
mod hops;
mod in_the_way;
mod judge;
pub(super) mod leftover;
mod mesh;
mod neighbours;
mod policy;
mod send;
mod senders;
mod stage;

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use whereis_port_rules::Packet;

use super::budget::Cache;
use super::facts::Facts;
use super::from_node;
use super::walk::Visited;
use whereis_port_model::{
    Advice, Balancer, BaseChain, Cilium, Condition, End, Family, Gap, GapKind, GapSource, Hop,
    Impact, InTheWay, NetSettings, NetnsId, Path, Pid, Proto, Ruleset, Service,
};

pub(super) use decisive::decisive;
pub(super) use firewall::{Admission, admission};
pub(super) use found::{
    TracedConnection, WayKey, attempt, by_senders, is_taken, may_take, of_namespace, paths,
    to_address, way_key,
};
pub(super) use in_the_way::is_unread;
pub(super) use judge::{Judgement, judge, list};
pub(super) use send::{from_bound, from_elsewhere, from_process, loopback};
pub(super) use senders::{
    Sender, behind_others, beside, bridge_behind, by_route, card_below, is_ipvlan, is_upper,
    leads_outside, link_local_only, local_route, passing_through, to_every_address, to_link_local,
    to_one_address, usable_addresses,
};
pub(super) use whereis_port_model::StopKind;

/// The protocol, address and port that a connection is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PacketDestination {
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
    pub(super) depends: Vec<Condition>,
    /// What it met on its way that was not evaluated, so that it may end otherwise.
    pub(super) unsure: Vec<InTheWay>,
    /// What may send single clients elsewhere.
    pub(super) notes: Vec<String>,
    /// Why it gets nowhere; `None` when something takes it.
    pub(super) stop: Option<Stop>,
    /// How many ways more this stands for, which are not told apart.
    pub(super) more: usize,
    /// The namespaces that it came into from outside, in order.
    pub(super) entered: Vec<NetnsId>,
}

/// Why a packet gets nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) kind: StopKind,
    /// In words, without the place: `dropped by rule …`.
    pub(super) why: String,
    /// What would help, where it is known.
    pub(super) fix: Option<Advice>,
}

/// A path of forwarding that is being followed: its hops so far, and what it depends on.
#[derive(Debug, Clone)]
struct ForwardPath {
    hops: Vec<Hop>,
    /// The namespaces that it came into from outside, in order.
    entered: Vec<NetnsId>,
    probability: f64,
    depends: Vec<Condition>,
    unsure: Vec<InTheWay>,
    notes: Vec<String>,
    /// The Kubernetes service that led here: the last one.
    service: Option<Service>,
    /// The packet as it left each namespace on its way, for the answer to it; `None` where
    /// something other than rules and routes moved it on.
    legs: Option<Vec<Packet>>,
}

impl ForwardPath {
    fn begin() -> Self {
        Self {
            hops: Vec::new(),
            entered: Vec::new(),
            probability: 1.0,
            depends: Vec::new(),
            unsure: Vec::new(),
            notes: Vec::new(),
            service: None,
            legs: Some(Vec::new()),
        }
    }

    fn stop(self, kind: StopKind, why: impl Into<String>) -> Arrival {
        self.stop_with(kind, why, None, End::default())
    }

    fn stop_with(
        self,
        kind: StopKind,
        why: impl Into<String>,
        fix: Option<Advice>,
        mut end: End,
    ) -> Arrival {
        let why = why.into();
        end.ending = match kind {
            StopKind::Nothing | StopKind::NoBackend => whereis_port_model::Ending::Nothing,
            StopKind::Unknown => whereis_port_model::Ending::Unknown,
            StopKind::Dropped
            | StopKind::Rejected
            | StopKind::NoRoute
            | StopKind::NotForwarding
            | StopKind::LoopbackOnWire
            | StopKind::ReversePath
            | StopKind::NoNeighbour
            | StopKind::NoWay
            | StopKind::Reserved => whereis_port_model::Ending::Stopped,
        };
        end.why.get_or_insert_with(|| why.clone());
        end.stop = Some(kind);
        self.arrive(Path { end, ..Path::default() }, Some(Stop { kind, why, fix }))
    }

    /// The way, and what comes behind its last step.
    fn arrive(self, path: Path, stop: Option<Stop>) -> Arrival {
        let mut hops = self.hops;
        hops.extend(path.hops);
        // What a forwarder's own connection depends on, this one does, too.
        let mut unsure = self.unsure;
        unsure.extend(path.unsure);
        let is_told = |one: &Condition| unsure.iter().any(|what| what.condition() == *one);
        let mut depends = self.depends;
        depends.extend(path.conditions.into_iter().filter(|one| !is_told(one)));
        let mut end = path.end;
        end.service = end.service.or(self.service);
        end.stop = end.stop.or(stop.as_ref().map(|stop| stop.kind));
        Arrival {
            hops,
            end,
            probability: self.probability,
            depends,
            unsure,
            notes: self.notes,
            stop,
            more: 0,
            entered: self.entered,
        }
    }
}

/// How many namespaces and translations one connection may pass. Routes alone can lead
/// in a circle, and so can rules.
const MAX_DEPTH: usize = 8;

/// A device, by its namespace and index.
type NetnsDevice = (NetnsId, u32);

/// What walks found out so far: they come by the same again and again.
#[derive(Default)]
pub(super) struct WalkCache {
    rulesets: Cache<NetnsId, Option<Rc<Ruleset>>>,
    frontends: Cache<(NetnsId, Balancer), Rc<balance::Frontends>>,
    cilium: Cache<NetnsId, Option<Rc<Cilium>>>,
    pub(super) rules: from_node::RuleCache,
    stages: stage::HookCache,
    translated: leftover::TranslationLog,
    neighbours: Cache<(NetnsDevice, IpAddr), neighbours::Neighbours>,
    /// By device and version of IP: IPv6.
    link_ends: Cache<(NetnsDevice, bool), Option<neighbours::Ends>>,
    all_links: RefCell<Option<(Rc<neighbours::Links>, bool)>>,
    /// The rules of policy routing of a namespace and version of IP.
    pub(super) policies: Cache<(NetnsId, bool), Rc<[whereis_port_model::PolicyRule]>>,
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
    let read = facts.take(facts.world.rulesets(&missing));
    for ruleset in read.iter() {
        let of_bridge = |c: &BaseChain| c.id.table.family == Family::Bridge;
        if ruleset.base_chains.iter().any(of_bridge) {
            let name = facts.netns_ref(ruleset.netns);
            facts.gap(Gap::new(
                Impact::Reach,
                GapSource::new(GapKind::BridgeRules, format!("network namespace {name}")),
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
fn settings(facts: &Facts<'_>, netns: NetnsId) -> Option<NetSettings> {
    facts.take(facts.world.settings(&[netns])).first().cloned()
}

/// Whether the kernel forwards packets that come into a namespace; `None` where that is not
/// known.
pub(super) fn forwards(facts: &Facts<'_>, netns: NetnsId, ipv6: bool) -> Option<bool> {
    let settings = settings(facts, netns)?;
    if ipv6 { settings.forward6 } else { settings.forward4 }
}

/// The state of one walk: where it has been.
struct Walk<'a, 'f> {
    facts: &'a Facts<'f>,
    visited: &'a RefCell<&'a mut Visited>,
    /// The process that connects, where it is known which.
    sender: Option<Pid>,
    /// The address that it is bound to, where one is meant.
    bound: Option<std::net::IpAddr>,
    /// Whether the sender stands for all that are where it is.
    anybody: bool,
}

/// Nothing is sent: who would send it has no route there.
fn no_route(to: IpAddr) -> Vec<Arrival> {
    vec![ForwardPath::begin().stop(StopKind::NoRoute, format!("no route leads to {to} from there"))]
}

/// An arrival as a path of the answer: what it depends on is said at its first step.
pub(super) fn to_path(arrival: Arrival) -> Path {
    let mut conditions = arrival.depends;
    conditions.extend(arrival.unsure.iter().map(InTheWay::condition));
    let mut path = Path {
        hops: arrival.hops,
        end: arrival.end,
        conditions,
        unsure: arrival.unsure,
        ..Path::default()
    };
    if let Some(hop) = path.hops.first_mut().filter(|_| !path.conditions.is_empty()) {
        hop.detail.push_str(&format!(", if {}", judge::list(&path.conditions)));
    }
    path
}
