//! Rules and what they ask for, from a node's facts.

use std::net::IpAddr;
use std::sync::Arc;

use super::Source;
use crate::model::{
    Bytes, ChainId, Element, IpSet, IpSetId, NetnsId, RouteFound, RouteQuery, Rule, Set, SetId,
};
use crate::resolve::facts::Facts;
use crate::resolve::route;

/// A node as rules ask it. What could not be read becomes a gap of the answer.
pub(in crate::resolve) struct FromNode<'a, 'f>(&'a Facts<'f>);

impl<'a, 'f> FromNode<'a, 'f> {
    pub(in crate::resolve) fn new(facts: &'a Facts<'f>) -> Self {
        Self(facts)
    }
}

impl Source for FromNode<'_, '_> {
    fn chain(&self, chain: &ChainId) -> Option<Arc<[Rule]>> {
        self.0.take(self.0.node.chain(chain))
    }

    fn set(&self, set: &SetId) -> Option<Set> {
        self.0.take(self.0.node.set(set))
    }

    fn set_elements(&self, set: &SetId) -> Option<Arc<[Element]>> {
        self.0.take(self.0.node.set_elements(set))
    }

    fn set_element(&self, set: &SetId, key: &Bytes) -> Option<Option<Element>> {
        let read = self.0.node.set_element(set, key);
        // No element and no gap: surely there is none.
        let known = read.value.is_some() || read.gaps.is_empty();
        let element = self.0.take(read);
        known.then_some(element)
    }

    fn ip_set(&self, set: &IpSetId) -> Option<IpSet> {
        self.0.take(self.0.node.ip_set(set))
    }

    fn route(&self, query: &RouteQuery) -> Option<RouteFound> {
        route::decide(self.0, query)
    }

    fn first_address(&self, netns: NetnsId, ifindex: u32, ipv6: bool) -> Option<IpAddr> {
        let addresses = self.0.take(self.0.node.addresses(&[netns]));
        let of = |a: &&crate::model::Address| a.ifindex == ifindex && a.address.is_ipv6() == ipv6;
        addresses.iter().find(of).map(|a| a.address)
    }
}
