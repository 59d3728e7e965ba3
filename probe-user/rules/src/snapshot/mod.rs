//! Rules in memory.

mod limited;
mod recording;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use crate::model::{
    Address, Bytes, ChainId, Element, IpSet, IpSetId, Link, NetnsId, Route, RouteFound, RouteKind,
    RouteQuery, Rule, Ruleset, Set, SetId, element_of,
};
use crate::ports::Here;
use crate::{Chain, Nic, RuleSource, route};

pub use limited::Limited;

/// A [`RuleSource`] that has everything in memory: rules that were written down, or those of a
/// recording.
///
/// It deserialises from what `whereis-port list --record FILE` writes; all that is not about
/// rules is left out. What was not read then is not known here, either.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "recording::RecordingFile")]
pub struct Snapshot {
    rulesets: Vec<Ruleset>,
    chains: HashMap<ChainId, Arc<Chain>>,
    sets: HashMap<SetId, Set>,
    set_elements: HashMap<SetId, Arc<[Element]>>,
    /// Elements that were asked for by their key.
    set_element: HashMap<(SetId, Bytes), Option<Element>>,
    ip_sets: HashMap<IpSetId, Arc<IpSet>>,
    links: Vec<Link>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    /// Routes as the kernel decided them.
    decided: HashMap<RouteQuery, RouteFound>,
}

impl Snapshot {
    /// One without anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the tables and base chains of a namespace, or replaces them.
    pub fn add_ruleset(&mut self, ruleset: Ruleset) {
        self.rulesets.retain(|known| known.netns != ruleset.netns);
        self.rulesets.push(ruleset);
    }

    /// Adds the rules of a chain, in order, or replaces them. A base chain has to be in its
    /// [`Ruleset`], too.
    pub fn add_chain(&mut self, id: ChainId, rules: impl Into<Arc<[Rule]>>) {
        let chain = Chain::new(&id, rules.into());
        self.chains.insert(id, Arc::new(chain));
    }

    /// Adds a set or map with all its elements, or replaces it.
    pub fn add_set(&mut self, set: Set, elements: impl Into<Arc<[Element]>>) {
        self.set_elements.insert(set.id.clone(), elements.into());
        self.sets.insert(set.id.clone(), set);
    }

    /// Adds a set of ipset, or replaces it.
    pub fn add_ip_set(&mut self, set: IpSet) {
        self.ip_sets.insert(set.id.clone(), Arc::new(set));
    }

    /// Adds an interface.
    pub fn add_link(&mut self, link: Link) {
        self.links.push(link);
    }

    /// Adds an address of an interface: packets to it are for its namespace.
    pub fn add_address(&mut self, address: Address) {
        self.addresses.push(address);
    }

    /// Adds a route.
    pub fn add_route(&mut self, route: Route) {
        self.routes.push(route);
    }

    /// The tables and base chains of every namespace. In a recording the one that the tool
    /// ran in comes first.
    pub fn rulesets(&self) -> &[Ruleset] {
        &self.rulesets
    }

    /// The same for one question that may take so many steps, of some 20 ns each. Rules that
    /// were written for that need more than anybody has.
    pub fn limited(&self, steps: usize) -> Limited<'_> {
        Limited::new(self, steps)
    }

    /// The addresses of all interfaces.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// An interface by its index.
    pub fn nic(&self, netns: NetnsId, index: u32) -> Option<Nic> {
        let is_it = |link: &&Link| (link.netns, link.index) == (netns, index);
        let link = self.links.iter().find(is_it)?;
        Some(Nic { index, name: link.name.as_str().into() })
    }

    /// Where packets of others come into a namespace, and where to.
    pub fn here(&self, netns: NetnsId) -> Here {
        Here::new(netns, &self.links, &self.addresses)
    }

    /// The way that addresses and the table of routes lead to.
    fn by_table(&self, netns: NetnsId, to: IpAddr) -> Option<RouteFound> {
        let of_netns = || self.addresses.iter().filter(move |address| address.netns == netns);
        let found = |kind, oif, gateway, source| RouteFound { kind, oif, gateway, source };
        let own = of_netns().find(|a| a.address == to);
        if own.is_some() || to.is_loopback() {
            return Some(found(RouteKind::Local, own.map(|a| a.ifindex), None, Some(to)));
        }
        let routes = || self.routes.iter().filter(move |route| route.netns == netns);
        if let Some(route) = route::lookup(routes(), to) {
            let by = |a: &&Address| {
                Some(a.ifindex) == route.ifindex && a.address.is_ipv6() == to.is_ipv6()
            };
            let source = of_netns().find(by).map(|a| a.address);
            return Some(found(RouteKind::Unicast, route.ifindex, route.gateway, source));
        }
        // Of a namespace of which nothing is known, it is not known either.
        let is_known = routes().next().is_some() || of_netns().next().is_some();
        is_known.then(|| found(RouteKind::None, None, None, None))
    }
}

impl RuleSource for Snapshot {
    fn chain(&self, chain: &ChainId) -> Option<Arc<Chain>> {
        self.chains.get(chain).cloned()
    }

    fn set(&self, set: &SetId) -> Option<Set> {
        self.sets.get(set).cloned()
    }

    fn set_elements(&self, set: &SetId) -> Option<Arc<[Element]>> {
        self.set_elements.get(set).cloned()
    }

    fn set_element(&self, set: &SetId, key: &Bytes) -> Option<Option<Element>> {
        if let Some(known) = self.set_element.get(&(set.clone(), key.clone())) {
            return Some(known.clone());
        }
        let elements = self.set_elements.get(set)?;
        let fields = self.sets.get(set).map(|set| set.fields.as_slice()).unwrap_or_default();
        Some(element_of(fields, elements, key).cloned())
    }

    fn ip_set(&self, set: &IpSetId) -> Option<Arc<IpSet>> {
        self.ip_sets.get(set).cloned()
    }

    fn route(&self, query: &RouteQuery) -> Option<RouteFound> {
        let decided = self.decided.get(query).cloned();
        decided.or_else(|| self.by_table(query.netns, query.to.to_canonical()))
    }

    fn first_address(&self, netns: NetnsId, ifindex: u32, ipv6: bool) -> Option<IpAddr> {
        let is_one =
            |a: &&Address| (a.netns, a.ifindex) == (netns, ifindex) && a.address.is_ipv6() == ipv6;
        self.addresses.iter().find(is_one).map(|a| a.address)
    }
}

#[cfg(test)]
mod tests;
