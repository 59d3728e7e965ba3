//! Rules and what they ask for, from a node's facts.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use whereis_port_rules::ports::Here;
use whereis_port_rules::{Chain, Packet, RuleSource};

use crate::budget::{Cache, Share};
use crate::facts::Facts;
use crate::route;
use whereis_port_model::{
    Bytes, ChainId, Element, IpSet, IpSetId, LinkKind, NetnsId, RouteFound, RouteQuery, Set, SetId,
};

/// A node as the rules of one of its namespaces ask it. What could not be read becomes a gap
/// of the answer.
pub(super) struct FromNode<'a, 'f> {
    facts: &'a Facts<'f>,
    share: Rc<Share>,
}

/// What asking for an element costs that was not asked for before: of a set with ranges, and
/// of another.
const RANGES: usize = 2000;
const ONE: usize = 200;
/// How many chains are kept: a listing asks for each once.
const CHAINS: usize = 4096;

/// What was made of rules so far, and the elements that were paid for.
#[derive(Default)]
pub(super) struct RuleCache {
    chains: Cache<ChainId, Option<Arc<Chain>>>,
    elements: Cache<(SetId, Bytes), Option<Option<Element>>>,
}

/// Where packets of others come into a namespace, and where to.
pub(super) fn here(facts: &Facts<'_>, netns: NetnsId) -> Here {
    Here::new(netns, &facts.links_of(netns), &facts.addresses_of(netns))
}

impl<'a, 'f> FromNode<'a, 'f> {
    pub(super) fn new(facts: &'a Facts<'f>, netns: NetnsId) -> Self {
        Self { facts, share: facts.budget.of(netns) }
    }
}

impl RuleSource for FromNode<'_, '_> {
    fn chain(&self, chain: &ChainId) -> Option<Arc<Chain>> {
        let memo = &self.facts.memo.rules.chains;
        if let Some(known) = memo.borrow().get(chain) {
            return known.clone();
        }
        let rules = self.facts.take(self.facts.world.chain(chain));
        let lowered = rules.map(|rules| Arc::new(Chain::new(chain, rules)));
        if memo.borrow().len() < CHAINS {
            memo.borrow_mut().insert(chain.clone(), lowered.clone());
        }
        lowered
    }

    fn set(&self, set: &SetId) -> Option<Set> {
        self.facts.take(self.facts.world.set(set)).map(|set| (*set).clone())
    }

    fn set_elements(&self, set: &SetId) -> Option<Arc<[Element]>> {
        self.facts.take(self.facts.world.set_elements(set))
    }

    fn set_element(&self, set: &SetId, key: &Bytes) -> Option<Option<Element>> {
        let memo = &self.facts.memo.rules.elements;
        let asked = (set.clone(), key.clone());
        if let Some(known) = memo.borrow().get(&asked) {
            return known.clone();
        }
        // Those of a set with ranges are looked through one by one.
        let is_long = self.facts.take(self.facts.world.set(set)).is_some_and(|set| set.interval);
        if !self.spend(if is_long { RANGES } else { ONE }) {
            return None;
        }
        let read = self.facts.world.set_element(set, key);
        // No element and no gap: surely there is none.
        let known = read.value.is_some() || read.gaps.is_empty();
        let element = known.then_some(self.facts.take(read));
        memo.borrow_mut().insert(asked, element.clone());
        element
    }

    fn few_elements(&self, set: &SetId) -> Option<Arc<[Element]>> {
        // That there are too many to be read is no news to an answer that needs none.
        self.facts.world.set_elements(set).value
    }

    fn ip_set(&self, set: &IpSetId) -> Option<Arc<IpSet>> {
        self.facts.take(self.facts.world.ip_set(set))
    }

    fn has_transparent(&self, netns: NetnsId) -> Option<bool> {
        self.facts.take(self.facts.world.transparent(&[netns])).first()?.any
    }

    fn over_bridge_port(&self, packet: &Packet, ifindex: u32) -> Option<bool> {
        let links = self.facts.links_of(packet.netns);
        let link = links.iter().find(|link| link.index == ifindex)?;
        if link.kind != LinkKind::Bridge {
            return Some(false);
        }
        let settings = self.facts.take(self.facts.world.settings(&[packet.netns]));
        Some(settings.first()?.filters_bridged(packet.destination.is_ipv6()))
    }

    fn spend(&self, steps: usize) -> bool {
        self.facts.budget.spend(&self.share, u64::try_from(steps).unwrap_or(u64::MAX))
    }

    fn route(&self, query: &RouteQuery) -> Option<RouteFound> {
        route::decide(self.facts, query)
    }

    fn first_address(&self, netns: NetnsId, ifindex: u32, ipv6: bool) -> Option<IpAddr> {
        let addresses = self.facts.addresses_of(netns);
        let of =
            |a: &&whereis_port_model::Address| a.ifindex == ifindex && a.address.is_ipv6() == ipv6;
        addresses.iter().find(of).map(|a| a.address)
    }
}
