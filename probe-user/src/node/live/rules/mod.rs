//! Packet rules, read from the kernel itself.

mod ipset;
mod legacy;
mod xt;

use std::sync::Arc;

use super::LiveNode;
use crate::model::{
    Bytes, ChainId, Element, IpSet, IpSetId, NetnsId, Read, Rule, Ruleset, Set, SetId,
};

/// What was read of rules so far, and the sockets it is read by.
#[derive(Debug, Default)]
pub(super) struct Rules;

impl LiveNode {
    pub(super) fn rulesets_inside(&self, _netns: &[NetnsId]) -> Read<Vec<Ruleset>> {
        Read::default()
    }

    pub(super) fn expect_all_rules(&self, _netns: &[NetnsId]) {}

    pub(super) fn chain_rules(&self, _chain: &ChainId) -> Read<Option<Arc<[Rule]>>> {
        Read::default()
    }

    pub(super) fn set_of(&self, _set: &SetId) -> Read<Option<Set>> {
        Read::default()
    }

    pub(super) fn elements_of(&self, _set: &SetId) -> Read<Option<Arc<[Element]>>> {
        Read::default()
    }

    pub(super) fn element_of(&self, _set: &SetId, _key: &Bytes) -> Read<Option<Element>> {
        Read::default()
    }

    pub(super) fn ip_set_of(&self, _set: &IpSetId) -> Read<Option<IpSet>> {
        Read::default()
    }
}
