//! Load balancers that are no rules.

mod ipvs;

use super::{LiveNode, Memo};
use crate::model::{Frontend, Impact, NetnsId, Read};

#[cfg(feature = "fuzzing")]
pub(super) use ipvs::fuzz as fuzz_ipvs;

/// What was read of balancers so far.
#[derive(Debug, Default)]
pub(super) struct Balance {
    ipvs: Memo<Frontend>,
}

impl LiveNode {
    pub(super) fn frontends_inside(&self, netns: &[NetnsId]) -> Read<Vec<Frontend>> {
        // The module makes its files in every namespace: where this one has none, no
        // other need be entered.
        if !ipvs::is_there() {
            return Read::default();
        }
        self.inside("IPVS", Impact::Port, &self.balance.ipvs, netns, |door| {
            ipvs::frontends(door.id)
        })
    }
}
