//! Ports that a server could have now, and that nothing else is known to want.

use std::collections::{BTreeMap, BTreeSet};

use super::bind::{self, BindQuestion};
use super::facts::Facts;
use super::held;
use super::list::{ListFilter, within};
use super::owner::NODE_PORTS;
use whereis_port_model::Node;
use whereis_port_model::{
    BindNote, FreePorts, Gap, GapKind, Impact, NetnsId, Port, PortRange, Proto, Query, Scope,
    SkipReason, SocketFilter,
};

/// How many ports are looked at closely beyond those that are wanted: each is a question of its
/// own.
const CLOSELY: usize = 256;

/// Finds the lowest `count` such ports of a range in the tool's namespace, for a protocol or for
/// both. Those of `lost` are none.
pub fn free_ports(
    node: &dyn Node,
    range: PortRange,
    proto: Option<Proto>,
    count: usize,
    lost: &BTreeSet<Port>,
) -> FreePorts {
    let facts = Facts::new(node);
    let netns = facts.host.own_netns;
    let settings = held::port_facts(&facts, netns);
    let filter = SocketFilter { proto, ports: Some(range) };
    let sockets = facts.take(facts.world.port_sockets(&[netns], &filter));
    let in_use: BTreeSet<Port> = sockets.iter().map(|found| found.socket.port).collect();
    let containers = facts.take(facts.world.containers());
    let published: BTreeSet<Port> = containers
        .iter()
        .flat_map(|container| &container.ports)
        .filter(|published| proto.is_none_or(|proto| proto == published.proto))
        .filter_map(|published| published.host_port)
        .collect();
    let rows =
        within(&facts.again(), &ListFilter { proto, ports: Some(range), ..ListFilter::default() });
    let taken: BTreeSet<Port> =
        rows.rows.iter().filter(|row| row.netns.id == netns).map(|row| row.port).collect();
    // Rules that take very many ports are in no list: each port has to be tried.
    let unlisted = rows.gaps.iter().any(|gap| gap.source.kind == GapKind::PacketRules);
    let mut passed: BTreeMap<SkipReason, usize> = BTreeMap::new();
    let mut gaps: Vec<Gap> = unread(&facts, netns);
    let doubtful = !gaps.is_empty();
    let mut ports = Vec::new();
    let mut looked = 0;
    for port in (range.first.0..=range.last.0).map(Port) {
        if ports.len() >= count || looked >= count + CLOSELY {
            break;
        }
        let why = if settings.is_reserved(port) == Some(true) {
            Some(SkipReason::Reserved)
        } else if settings.ephemeral.is_some_and(|range| range.contains(port)) {
            Some(SkipReason::Ephemeral)
        } else if NODE_PORTS.contains(&port.0) {
            Some(SkipReason::NodePort)
        } else if in_use.contains(&port) {
            Some(SkipReason::InUse)
        } else if published.contains(&port) {
            Some(SkipReason::Published)
        } else if taken.contains(&port) {
            Some(SkipReason::TakenByRules)
        } else if lost.contains(&port) {
            Some(SkipReason::Lost)
        } else {
            looked += 1;
            closely(&facts, port, proto, unlisted, &mut gaps)
        };
        match why {
            Some(why) => *passed.entry(why).or_default() += 1,
            None => ports.push(port),
        }
    }
    if settings.ephemeral.is_none() {
        gaps.extend(facts.gaps().into_iter().filter(|gap| gap.impact == Impact::Bind));
    }
    FreePorts {
        range,
        proto,
        netns: facts.netns_ref(netns),
        ports,
        passed: passed.into_iter().collect(),
        doubtful,
        gaps,
    }
}

/// What of sockets, rules and balancers that may have ports could not be read. A recording that was
/// made before they were read says so of them together.
fn unread(facts: &Facts<'_>, netns: NetnsId) -> Vec<Gap> {
    let rules = facts.world.rulesets(&[netns]).gaps;
    let balancers = facts.world.frontends(&[netns]).gaps;
    rules.iter().chain(balancers.iter()).cloned().collect()
}

/// Whether a server could have the port, by all that decides it; why not, otherwise.
fn closely(
    facts: &Facts<'_>,
    port: Port,
    proto: Option<Proto>,
    rules: bool,
    gaps: &mut Vec<Gap>,
) -> Option<SkipReason> {
    let question = BindQuestion {
        query: Query {
            text: port.to_string(),
            ports: PortRange::one(port),
            proto,
            scope: Scope::Everywhere,
            zone: None,
            name: None,
            subject: None,
        },
        netns: None,
        uid: None,
        reuse_addr: false,
        reuse_port: false,
        v6only: false,
        device: None,
        attempt: false,
    };
    for bind in bind::predict(facts, &question, facts.host.own_netns, None, rules) {
        let has = |is: fn(&BindNote) -> bool| bind.notes.iter().any(is);
        match bind.predicted {
            Some(true) if has(|note| matches!(note, BindNote::TakenByRules(_))) => {
                return Some(SkipReason::TakenByRules);
            }
            Some(true) => {}
            Some(false) if has(|note| matches!(note, BindNote::Privileged(_))) => {
                return Some(SkipReason::Privileged);
            }
            Some(false) => return Some(SkipReason::InUse),
            None => {
                for gap in bind.gaps {
                    if !gaps.contains(&gap) {
                        gaps.push(gap);
                    }
                }
                return Some(SkipReason::NotKnown);
            }
        }
    }
    None
}
