//! A snapshot that is asked for so long and no longer.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use super::Snapshot;
use crate::model::{
    Bytes, ChainId, Element, IpSet, IpSetId, NetnsId, RouteFound, RouteQuery, Set, SetId,
};
use crate::{Chain, RuleSource};

/// A [`Snapshot`] for one question that may take so many steps: for rules that somebody may
/// have written to keep whoever evaluates them busy. Made by [`Snapshot::limited`].
#[derive(Debug)]
pub struct Limited<'s> {
    snapshot: &'s Snapshot,
    left: Cell<usize>,
}

impl<'s> Limited<'s> {
    pub(super) fn new(snapshot: &'s Snapshot, steps: usize) -> Self {
        Self { snapshot, left: Cell::new(steps) }
    }

    /// Whether all steps are used up: then answers are not whole.
    pub fn is_used_up(&self) -> bool {
        self.left.get() == 0
    }
}

impl RuleSource for Limited<'_> {
    fn chain(&self, chain: &ChainId) -> Option<Arc<Chain>> {
        self.snapshot.chain(chain)
    }

    fn set(&self, set: &SetId) -> Option<Set> {
        self.snapshot.set(set)
    }

    fn set_elements(&self, set: &SetId) -> Option<Arc<[Element]>> {
        self.snapshot.set_elements(set)
    }

    fn set_element(&self, set: &SetId, key: &Bytes) -> Option<Option<Element>> {
        // They are looked through one by one.
        let count = self.snapshot.set_elements.get(set).map_or(1, |all| all.len());
        if self.spend(count) { self.snapshot.set_element(set, key) } else { None }
    }

    fn ip_set(&self, set: &IpSetId) -> Option<Arc<IpSet>> {
        self.snapshot.ip_set(set)
    }

    fn has_transparent(&self, netns: NetnsId) -> Option<bool> {
        self.snapshot.has_transparent(netns)
    }

    fn route(&self, query: &RouteQuery) -> Option<RouteFound> {
        // So are addresses and routes.
        let count = self.snapshot.addresses.len() + self.snapshot.routes.len();
        if self.spend(count) { self.snapshot.route(query) } else { None }
    }

    fn first_address(&self, netns: NetnsId, ifindex: u32, ipv6: bool) -> Option<IpAddr> {
        self.snapshot.first_address(netns, ifindex, ipv6)
    }

    fn spend(&self, steps: usize) -> bool {
        let left = self.left.get().checked_sub(steps);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }
}
