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
pub(super) struct Recording {
    format: String,
    version: u64,
    facts: Facts,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Facts {
    rulesets: Vec<Asked<Vec<NetnsId>, Vec<Ruleset>>>,
    chains: Vec<Asked<ChainId, Option<Arc<[Rule]>>>>,
    sets: Vec<Asked<SetId, Option<Set>>>,
    set_elements: Vec<Asked<SetId, Option<Arc<[Element]>>>>,
    set_element: Vec<Asked<ElementOf, Option<Element>>>,
    ip_sets: Vec<Asked<IpSetId, Option<IpSet>>>,
    links: Vec<Asked<Vec<NetnsId>, Vec<Link>>>,
    addresses: Vec<Asked<Vec<NetnsId>, Vec<Address>>>,
    routes: Vec<Asked<Vec<NetnsId>, Vec<Route>>>,
    route: Vec<Asked<RouteQuery, Option<RouteFound>>>,
}

#[derive(Deserialize)]
struct Asked<Q, A> {
    asked: Q,
    read: Read<A>,
}

#[derive(Deserialize)]
struct Read<A> {
    value: A,
    /// What could not be read of it.
    gaps: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct ElementOf {
    set: SetId,
    key: Bytes,
}

/// Why a recording is not understood.
pub(super) enum Refused {
    Foreign,
    Newer(u64),
}

impl fmt::Display for Refused {
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

impl TryFrom<Recording> for Snapshot {
    type Error = Refused;

    fn try_from(recording: Recording) -> Result<Self, Refused> {
        if recording.format != FORMAT.0 {
            return Err(Refused::Foreign);
        }
        if recording.version > FORMAT.1 {
            return Err(Refused::Newer(recording.version));
        }
        let facts = recording.facts;
        let chain = |(id, rules): (ChainId, Arc<[Rule]>)| {
            let chain = Arc::new(Chain::new(&id, rules));
            (id, chain)
        };
        let element = |asked: Asked<ElementOf, Option<Element>>| {
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
fn known<Q, A>(asked: Vec<Asked<Q, Option<A>>>) -> impl Iterator<Item = (Q, A)> {
    asked.into_iter().filter_map(|one| Some((one.asked, one.read.value?)))
}

/// Facts of namespaces: of each as it was read first, when it was asked for again.
fn each<T>(asked: Vec<Asked<Vec<NetnsId>, Vec<T>>>, netns: impl Fn(&T) -> NetnsId) -> Vec<T> {
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
