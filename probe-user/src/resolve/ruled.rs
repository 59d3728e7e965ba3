//! Ports that rules and load balancers take, in every namespace: with a socket
//! behind them or without one.

use super::facts::Facts;
use super::path::{self, Entry, To};
use super::rules::from_node::FromNode;
use super::rules::ports;
use crate::model::{Gap, Impact, NetnsId, Path, Proto, Query, Scope};

/// How many ports of a range are tried one by one; of a wider range only those that
/// rules name.
const TRIED: u16 = 4;

/// The connections that were tried in one namespace.
pub(super) struct Tried {
    pub(super) netns: NetnsId,
    pub(super) entries: Vec<Entry>,
}

/// Tries the ports of the question in every namespace where something but a socket
/// could take them.
pub(super) fn try_all(facts: &Facts<'_>, query: &Query) -> Vec<Tried> {
    let all = facts.all_netns();
    let all: Vec<NetnsId> = match query.scope {
        // Every namespace has a loopback of its own; a connection means this one's.
        Scope::Address(address) if address.to_canonical().is_loopback() => {
            vec![facts.host.own_netns]
        }
        Scope::Address(address) if address.is_unspecified() => Vec::new(),
        _ => all,
    };
    path::read_rulesets(facts, &all);
    let mut tried = Vec::new();
    for netns in all {
        if !path::may_take(facts, netns) {
            continue;
        }
        let mut entries = Vec::new();
        for (proto, port) in ports_of(facts, netns, query) {
            match query.scope {
                Scope::Everywhere => {
                    entries.extend(path::of_namespace(facts, netns, proto, port));
                }
                Scope::Address(address) => {
                    let to = To { proto, address: address.to_canonical(), port };
                    entries.extend(path::to_address(facts, netns, to));
                }
            }
        }
        tried.push(Tried { netns, entries });
    }
    tried
}

/// The ports to try: all that are asked for, or those of them that rules name.
fn ports_of(facts: &Facts<'_>, netns: NetnsId, query: &Query) -> Vec<(Proto, u16)> {
    let protos = Proto::ALL.into_iter().filter(|p| query.proto.is_none_or(|asked| asked == *p));
    let (first, last) = (query.ports.first.0, query.ports.last.0);
    if last - first < TRIED {
        return protos.flat_map(|proto| (first..=last).map(move |port| (proto, port))).collect();
    }
    let protos: Vec<Proto> = protos.collect();
    let mut ports: Vec<(Proto, u16)> = Vec::new();
    if let Some(ruleset) = path::ruleset(facts, netns) {
        let named = ports::taken(&FromNode::new(facts), &ruleset);
        ports.extend(named.iter().map(|t| (t.proto, t.port)));
    }
    for frontend in facts.take(facts.node.frontends(&[netns])) {
        let of = Proto::ALL.into_iter().filter(|p| frontend.proto.is_none_or(|n| n == p.number()));
        ports.extend(of.map(|proto| (proto, frontend.port)));
    }
    ports.retain(|(proto, port)| protos.contains(proto) && (first..=last).contains(port));
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The paths of what rules and balancers take.
pub(super) fn paths(facts: &Facts<'_>, tried: &[Tried]) -> Vec<Path> {
    let mut paths = Vec::new();
    for one in tried {
        // They were tried port by port.
        let same_port = |a: &Entry, b: &Entry| (a.to.proto, a.to.port) == (b.to.proto, b.to.port);
        for of_port in one.entries.chunk_by(same_port) {
            let mut found = path::paths(of_port);
            for path in &mut found {
                if let Some(first) = path.hops.first_mut().filter(|h| h.netns.is_none()) {
                    first.netns = Some(facts.netns_ref(one.netns));
                }
            }
            paths.extend(found);
        }
    }
    paths
}

/// How many addresses of services are followed.
const SERVICES: usize = 8;

/// Services that have the port at an address of their own: asked for only when nothing
/// of a node's own takes it.
pub(super) fn services(facts: &Facts<'_>, query: &Query) -> Vec<Path> {
    if query.scope != Scope::Everywhere || query.ports.first != query.ports.last {
        return Vec::new();
    }
    let port = query.ports.first.0;
    let protos = || Proto::ALL.into_iter().filter(|p| query.proto.is_none_or(|asked| asked == *p));
    let mut tried = Vec::new();
    let mut left = 0;
    for netns in facts.all_netns() {
        let Some(ruleset) = path::ruleset(facts, netns) else { continue };
        for proto in protos() {
            let source = FromNode::new(facts);
            let all = ports::services::addresses(&source, &ruleset, proto, port);
            left += all.len().saturating_sub(SERVICES);
            for address in all.into_iter().take(SERVICES) {
                let entries = path::to_address(facts, netns, To { proto, address, port });
                tried.push(Tried { netns, entries });
            }
        }
    }
    if left > 0 {
        facts.gap(Gap::new(
            Impact::Way,
            format!("services with port {port}"),
            format!("{left} more have it at an address of their own, and are not followed"),
        ));
    }
    paths(facts, &tried)
}
