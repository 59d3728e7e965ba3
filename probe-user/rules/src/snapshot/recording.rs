//! What of a recording is about rules.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Snapshot;
use crate::Chain;
use crate::model::{
    Address, Bytes, ChainId, Element, IpSet, IpSetId, Link, NetnsId, Route, RouteFound, RouteQuery,
    Rule, Ruleset, Set, SetId,
};

/// The format, and its newest version that is understood.
const FORMAT: (&str, u64) = ("whereis-port-recording", 1);

/// A recording: questions to a node, each with what was read.
#[derive(Deserialize)]
pub(super) struct RecordingFile {
    format: String,
    version: u64,
    facts: NetfilterFacts,
}

/// The facts of a recording that rules need.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct NetfilterFacts {
    rulesets: Vec<SnapshotFact<Vec<NetnsId>, Vec<Ruleset>>>,
    chains: Vec<SnapshotFact<ChainId, Option<Arc<[Rule]>>>>,
    sets: Vec<SnapshotFact<SetId, Option<Set>>>,
    set_elements: Vec<SnapshotFact<SetId, Option<Arc<[Element]>>>>,
    set_element: Vec<SnapshotFact<ElementQuery, Option<Element>>>,
    ip_sets: Vec<SnapshotFact<IpSetId, Option<IpSet>>>,
    links: Vec<SnapshotFact<Vec<NetnsId>, Vec<Link>>>,
    addresses: Vec<SnapshotFact<Vec<NetnsId>, Vec<Address>>>,
    routes: Vec<SnapshotFact<Vec<NetnsId>, Vec<Route>>>,
    route: Vec<SnapshotFact<RouteQuery, Option<RouteFound>>>,
}

/// A question to the node and what was read for it.
#[derive(Deserialize)]
struct SnapshotFact<Q, A> {
    asked: Q,
    read: FactValue<A>,
}

/// What was read, and how much of it could not be.
#[derive(Deserialize)]
struct FactValue<A> {
    value: A,
    /// What could not be read of it.
    gaps: Vec<IgnoredAny>,
}

/// Which element of a set was asked for.
#[derive(Deserialize)]
struct ElementQuery {
    set: SetId,
    key: Bytes,
}

/// Why a recording is not understood.
pub(super) enum UnreadableRecording {
    Foreign,
    Newer(u64),
}

impl fmt::Display for UnreadableRecording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("it is not a whereis-port recording"),
            Self::Newer(version) => write!(
                f,
                "it has version {version} of the format of recordings, and {} is the newest known",
                FORMAT.1
            ),
        }
    }
}

impl TryFrom<RecordingFile> for Snapshot {
    type Error = UnreadableRecording;

    fn try_from(recording: RecordingFile) -> Result<Self, UnreadableRecording> {
        if recording.format != FORMAT.0 {
            return Err(UnreadableRecording::Foreign);
        }
        if recording.version > FORMAT.1 {
            return Err(UnreadableRecording::Newer(recording.version));
        }
        let facts = recording.facts;
        let chain = |(id, rules): (ChainId, Arc<[Rule]>)| {
            let chain = Arc::new(Chain::new(&id, rules));
            (id, chain)
        };
        let element = |asked: SnapshotFact<ElementQuery, Option<Element>>| {
            // No element and no gap: surely there is none.
            let is_known = asked.read.value.is_some() || asked.read.gaps.is_empty();
            is_known.then_some(((asked.asked.set, asked.asked.key), asked.read.value))
        };
        Ok(Self {
            rulesets: each(facts.rulesets, |rules| rules.netns),
            chains: known(facts.chains).map(chain).collect(),
            sets: known(facts.sets).collect(),
            set_elements: known(facts.set_elements).collect(),
            set_element: facts.set_element.into_iter().filter_map(element).collect(),
            ip_sets: known(facts.ip_sets).map(|(id, set)| (id, Arc::new(set))).collect(),
            links: each(facts.links, |link| link.netns),
            addresses: each(facts.addresses, |address| address.netns),
            routes: each(facts.routes, |route| route.netns),
            decided: known(facts.route).collect(),
        })
    }
}

/// What was read, where anything was.
fn known<Q, A>(asked: Vec<SnapshotFact<Q, Option<A>>>) -> impl Iterator<Item = (Q, A)> {
    asked.into_iter().filter_map(|one| Some((one.asked, one.read.value?)))
}

/// Facts of namespaces: of each as it was read first, when it was asked for again.
fn each<T>(
    asked: Vec<SnapshotFact<Vec<NetnsId>, Vec<T>>>,
    netns: impl Fn(&T) -> NetnsId,
) -> Vec<T> {
    let mut first = HashMap::new();
    let mut all = Vec::new();
    for (at, one) in asked.into_iter().enumerate() {
        for netns in one.asked {
            first.entry(netns).or_insert(at);
        }
        all.extend(one.read.value.into_iter().filter(|fact| first.get(&netns(fact)) == Some(&at)));
    }
    all
}
