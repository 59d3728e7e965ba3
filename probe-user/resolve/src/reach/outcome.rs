//! What became of one connection that was tried, as a statement.

use std::net::SocketAddr;

use whereis_port_rules::Nic;

use super::{at, shut};
use crate::beside;
use crate::facts::Facts;
use crate::path::{self, Arrival, Judgement, TracedConnection};
use whereis_port_model::{Cause, End, Hop, HopKind, NetnsId, Port, Reach, StopKind};

/// How many targets one line names.
const TARGETS: usize = 3;

/// Who accepted a connection, wherever it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcceptedBy {
    /// Something does, or stops it on its way.
    Somehow,
    /// Nothing listens there, and no rule knows the port.
    Not,
}

/// What became of a connection.
pub(super) struct ConnectionOutcome {
    pub(super) reach: Reach,
    pub(super) taken: AcceptedBy,
    /// By which devices of which namespaces it came in.
    pub(super) devices: Vec<(NetnsId, Nic)>,
}

impl ConnectionOutcome {
    /// Of one sender, and not of all who may be at its place: what stops some of these may stop
    /// this one.
    pub(super) fn of_one_client(&mut self, tried: &TracedConnection) {
        let stops = |a: &&Arrival| a.stop.is_some() && !a.depends.is_empty();
        if self.reach.reachable != Some(true) {
            return;
        }
        if let Some((first, stop)) =
            tried.arrivals.iter().find(stops).and_then(|a| Some((a, a.stop.as_ref()?)))
        {
            let words = format!("{} if {}", stop.why, path::list(&first.depends));
            self.reach.reachable = None;
            self.reach.why = Cause::Stopped { kind: stop.kind, words }.into();
            self.reach.conditions.clone_from(&first.depends);
            self.reach.fix.clone_from(&stop.fix);
        }
    }
}

/// Judges a connection. `named` says why it is open, where that is not what takes it.
pub(super) fn of(
    facts: &Facts<'_>,
    tried: &TracedConnection,
    named: Option<Cause>,
) -> ConnectionOutcome {
    let arrivals = &tried.arrivals;
    let Judgement { arrives, why, fix } = path::judge(arrivals);
    let decisive = path::decisive(arrivals);
    let mut reach = Reach {
        netns: None,
        from: tried.sender.from,
        by: Vec::new(),
        address: Some(at(tried.to.address, tried.to.port)),
        reachable: arrives,
        why: Cause::NoRule.into(),
        conditions: decisive.conditions(),
        fix,
        source: source(tried),
        accepted: arrivals.iter().any(|a| a.hops.iter().any(|hop| hop.socket.is_some())),
        tried: None,
    };
    let mut taken = AcceptedBy::Somehow;
    let port = Port(tried.to.port);
    match arrives {
        Some(true) => {
            let cause = by_rules(arrivals).or(named).or_else(|| bound(arrivals));
            reach.why = cause.unwrap_or(Cause::Said(String::new())).into();
            reach.why.but = why;
        }
        Some(false) if is_refused(arrivals) => match dead(arrivals) {
            Some(end) => {
                reach.why = Cause::NothingBehind.into();
                reach.fix = Some(shut::dead_fix(facts, port, end));
            }
            None if arrivals.iter().all(|a| a.hops.is_empty()) => taken = AcceptedBy::Not,
            None => {
                let end = arrivals.first().map(|a| &a.end);
                let published = end.filter(|end| shut::is_published(port, end));
                let beside = || beside::fix(facts, end?.unserved?);
                reach.fix = published.map(|end| shut::dead_fix(facts, port, end)).or_else(beside);
                reach.why = decisive.cause(why.unwrap_or_default()).into();
            }
        },
        Some(false) | None => reach.why = decisive.cause(why.unwrap_or_default()).into(),
    }
    let devices = tried.sender.by.iter().map(|(nic, _)| (tried.netns, nic.clone())).collect();
    ConnectionOutcome { reach, taken, devices }
}

/// Where a process stands for the sender: not where it would come back to itself, which is not
/// what others get.
fn source(tried: &TracedConnection) -> Option<NetnsId> {
    // Nobody binds to an address to try it.
    let source = tried.sender.source(tried.netns).filter(|_| tried.sender.address.is_none())?;
    let comes_back = |a: &Arrival| a.entered.contains(&source);
    (tried.sender.by.is_none() || !tried.arrivals.iter().any(comes_back)).then_some(source)
}

/// Whether nothing listens wherever it goes.
fn is_refused(arrivals: &[Arrival]) -> bool {
    let nothing = |s: &path::Stop| s.kind == StopKind::Nothing;
    !arrivals.is_empty() && arrivals.iter().all(|a| a.stop.as_ref().is_some_and(nothing))
}

/// The end of a connection that a socket takes which has nothing behind it.
fn dead(arrivals: &[Arrival]) -> Option<&End> {
    arrivals.iter().find_map(|a| a.hops.first()?.socket.as_ref().map(|_| &a.end))
}

/// That a socket takes it: by what it is bound to.
fn bound(arrivals: &[Arrival]) -> Option<Cause> {
    let socket = arrivals.iter().find_map(|a| a.hops.first()?.socket.as_ref())?;
    Some(match socket.is_wildcard() {
        true => Cause::BoundToAll { versions_known: socket.takes_ipv4().is_some() },
        false => Cause::BoundTo(socket.effective_address()),
    })
}

/// How rules or a balancer take it, in a line: `published port, Docker: to
/// 172.17.0.2:80`.
fn by_rules(arrivals: &[Arrival]) -> Option<Cause> {
    let taken: Vec<&Arrival> = arrivals.iter().filter(|a| path::is_taken(a)).collect();
    let one = taken.first()?;
    let Some(first) = one.hops.first() else {
        let stopped =
            |stop: &path::Stop| Cause::Stopped { kind: stop.kind, words: stop.why.clone() };
        return one.stop.as_ref().map(stopped);
    };
    let mut targets: Vec<SocketAddr> = Vec::new();
    for hop in taken.iter().filter_map(|a| a.hops.get(1)) {
        if let Some(target) = translated(hop)
            && !targets.contains(&target)
        {
            targets.push(target);
        }
    }
    let more = targets.len().saturating_sub(TARGETS);
    targets.truncate(TARGETS);
    let mut text = first.detail.clone();
    if !targets.is_empty() {
        let named: Vec<String> = targets.iter().map(ToString::to_string).collect();
        text.push_str(&format!(": to {}", named.join(", ")));
    }
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    Some(Cause::TakenByRules { words: text, to: targets })
}

fn translated(hop: &Hop) -> Option<SocketAddr> {
    let to = hop.endpoint.address.zip(hop.endpoint.port)?;
    (hop.kind == HopKind::Dnat).then(|| at(to.0, to.1.0))
}
