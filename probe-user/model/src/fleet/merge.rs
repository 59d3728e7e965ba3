//! Puts what many nodes said together: what is the same once, with its nodes.
//!
//! The order in which nodes answered does not matter: everything is sorted.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Ending, Proto, Query, Service, Verdict};

use super::{Fleet, NodeReply, PathEnd, PortPath};

/// What a cluster says to one question.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The question as typed.
    pub query: String,
    /// Over all nodes.
    pub verdict: Verdict,
    /// What is behind the port: Services first, then by how many nodes have it.
    pub groups: Vec<MergedPort>,
    /// Nodes on which surely nothing is there.
    pub nothing: Vec<String>,
    /// Nodes that can't tell, with what they could not read.
    pub unsure: Vec<UnsureNode>,
}

/// A Service, or what is not one, on one port, with what nodes say of it.
#[derive(Debug, Clone, PartialEq)]
pub struct MergedPort {
    /// The protocol.
    pub proto: Proto,
    /// The port.
    pub port: u16,
    /// The Service.
    pub service: Option<Service>,
    /// What takes the port, in words: most nodes' words.
    pub taken_by: String,
    /// What nodes say of it, what most of them say first.
    pub entries: Vec<MergedAnswer>,
    /// Nodes that surely don't have it.
    pub missing: Vec<String>,
}

/// What some nodes say alike, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct MergedAnswer {
    /// Where it leads, each as the node says that knows most of it.
    pub backends: Vec<PathEnd>,
    /// The nodes.
    pub nodes: Vec<String>,
}

/// A node that can't tell, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsureNode {
    /// The node.
    pub node: String,
    /// What could not be read there.
    pub why: String,
}

/// What `fleet` says to `queries`.
pub fn merge(fleet: &Fleet, queries: &[Query]) -> Vec<Merged> {
    queries.iter().enumerate().map(|(at, query)| merge_one(fleet, at, &query.text)).collect()
}

/// What makes answers of nodes be about the same thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct MergeKey {
    /// Services first.
    not_service: bool,
    proto: Proto,
    port: u16,
    /// Namespace, name and port of the Service; else names of what holds the port.
    names: Vec<Option<String>>,
}

/// Where one node's ways of one thing lead: what is compared between nodes.
type Leads = BTreeSet<(Option<String>, Option<String>)>;

#[derive(Default)]
struct Gathered<'a> {
    service: Option<&'a Service>,
    taken_by: BTreeMap<&'a str, usize>,
    /// By what nodes say: the nodes, and their ways.
    entries: BTreeMap<Leads, (BTreeSet<&'a str>, Vec<&'a PortPath>)>,
    nodes: BTreeSet<&'a str>,
}

fn merge_one(fleet: &Fleet, at: usize, query: &str) -> Merged {
    let answered: BTreeMap<&str, &NodeReply> = fleet
        .reports
        .iter()
        .filter_map(|report| {
            let said = report.outcome.as_ref().ok()?.said.get(at)?;
            Some((report.node.as_str(), said))
        })
        .collect();
    let mut all: BTreeMap<MergeKey, Gathered<'_>> = BTreeMap::new();
    for (node, said) in &answered {
        for (key, ways) in by_key(said) {
            let gathered = all.entry(key).or_default();
            gathered.nodes.insert(node);
            gathered.service = ways.iter().find_map(|way| way.service.as_ref());
            if let Some(way) = ways.first() {
                *gathered.taken_by.entry(&way.taken_by).or_default() += 1;
            }
            let leads = ways.iter().map(|way| lead(way)).collect();
            let entry = gathered.entries.entry(leads).or_default();
            entry.0.insert(node);
            entry.1.extend(ways);
        }
    }
    let found: BTreeSet<&str> = answered
        .iter()
        .filter(|(_, said)| said.verdict == Verdict::Found)
        .map(|(n, _)| *n)
        .collect();
    // Who can't tell may have it.
    let sure: Vec<&str> = answered
        .iter()
        .filter(|(_, said)| said.verdict != Verdict::Unknown)
        .map(|(n, _)| *n)
        .collect();
    let mut groups: Vec<MergedPort> = all
        .into_iter()
        .map(|(key, gathered)| group(&key, gathered, sure.iter().copied()))
        .collect();
    // Stable: what is equally common stays in the order of its key.
    groups.sort_by_key(|group| {
        let nodes: usize = group.entries.iter().map(|entry| entry.nodes.len()).sum();
        (group.service.is_none(), std::cmp::Reverse(nodes))
    });
    let of = |verdict: Verdict| answered.iter().filter(move |(_, said)| said.verdict == verdict);
    Merged {
        query: query.to_owned(),
        verdict: match () {
            () if !found.is_empty() => Verdict::Found,
            () if fleet.is_whole() && of(Verdict::Unknown).next().is_none() => Verdict::NotFound,
            () => Verdict::Unknown,
        },
        groups,
        nothing: of(Verdict::NotFound).map(|(node, _)| (*node).to_owned()).collect(),
        unsure: of(Verdict::Unknown)
            .map(|(node, said)| UnsureNode {
                node: (*node).to_owned(),
                why: said.gaps.first().cloned().unwrap_or_else(|| "not said why".to_owned()),
            })
            .collect(),
    }
}

fn by_key(said: &NodeReply) -> BTreeMap<MergeKey, Vec<&PortPath>> {
    let mut ways: BTreeMap<MergeKey, Vec<&PortPath>> = BTreeMap::new();
    for way in &said.ways {
        ways.entry(key(way)).or_default().push(way);
    }
    ways
}

fn key(way: &PortPath) -> MergeKey {
    let backend = &way.backend;
    let names = match &way.service {
        // Some dialects of rules name the Service's port, and the API always does.
        Some(service) => vec![Some(service.namespace.clone()), Some(service.name.clone())],
        // Pods of one DaemonSet or ReplicaSet differ in their names, and are one thing.
        None => vec![
            backend.process.clone(),
            backend.component.clone(),
            backend.pod_namespace.clone(),
            backend.pod_owner.clone(),
            backend.container.clone(),
            backend.image.clone(),
            backend.unit.clone(),
        ],
    };
    MergeKey { not_service: way.service.is_none(), proto: way.proto, port: way.port, names }
}

/// Where a way leads, as far as it must be the same on every node: an address that
/// all know, or why there is none.
fn lead(way: &PortPath) -> (Option<String>, Option<String>) {
    let backend = &way.backend;
    let stops = match backend.ending {
        // No process is named: the reason is what there is.
        Ending::Nothing | Ending::Stopped => {
            Some(backend.why.clone().unwrap_or_else(|| "nothing is there".to_owned()))
        }
        _ => None,
    };
    // Of what is no Service each node has its own, at addresses of its own.
    let address = way.service.as_ref().and(backend.address.clone());
    (address, stops)
}

fn group<'a>(
    key: &MergeKey,
    gathered: Gathered<'a>,
    nodes: impl Iterator<Item = &'a str>,
) -> MergedPort {
    let best = |ways: &[&PortPath]| {
        let mut by_lead: BTreeMap<_, Vec<&PathEnd>> = BTreeMap::new();
        for way in ways {
            by_lead.entry(lead(way)).or_default().push(&way.backend);
        }
        let richest = |backends: Vec<&PathEnd>| {
            backends.into_iter().max_by_key(|backend| richness(backend)).cloned()
        };
        by_lead.into_values().filter_map(richest).collect::<Vec<PathEnd>>()
    };
    let mut entries: Vec<MergedAnswer> = gathered
        .entries
        .values()
        .map(|(nodes, ways)| MergedAnswer {
            backends: best(ways),
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
        })
        .collect();
    // The pod's own node may be one of those that differ: what it knows helps all.
    let all: Vec<&PortPath> =
        gathered.entries.values().flat_map(|(_, ways)| ways).copied().collect();
    let known: BTreeMap<Option<String>, PathEnd> =
        best(&all).into_iter().map(|backend| (backend.address.clone(), backend)).collect();
    for backend in entries.iter_mut().flat_map(|entry| &mut entry.backends) {
        let better = known.get(&backend.address).filter(|_| backend.ending == Ending::Elsewhere);
        if let Some(better) = better.filter(|_| backend.address.is_some()) {
            backend.clone_from(better);
        }
    }
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.nodes.len()));
    let common = gathered.taken_by.iter().max_by_key(|(text, count)| (**count, *text));
    MergedPort {
        proto: key.proto,
        port: key.port,
        service: gathered.service.cloned(),
        taken_by: common.map_or_else(String::new, |(text, _)| (*text).to_owned()),
        entries,
        missing: nodes.filter(|node| !gathered.nodes.contains(node)).map(str::to_owned).collect(),
    }
}

/// How much is known of a backend, and its names, so that among equals the choice
/// does not depend on who answered first.
fn richness(backend: &PathEnd) -> (usize, [Option<&str>; 5]) {
    let names = [
        backend.pod.as_deref(),
        backend.process.as_deref(),
        backend.container.as_deref(),
        backend.image.as_deref(),
        backend.why.as_deref(),
    ];
    let known = names.iter().take(4).filter(|name| name.is_some()).count();
    (known, names)
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
