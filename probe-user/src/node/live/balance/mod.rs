//! Load balancers that are no rules: the kernel's IPVS, and Cilium's maps.

mod cilium;
mod ipvs;

use std::cell::OnceCell;
use std::collections::BTreeSet;

#[cfg(feature = "fuzzing")]
pub(super) use ipvs::fuzz as fuzz_ipvs;

use super::{LiveNode, Memo};
use crate::model::{Frontend, Impact, NetnsId, Read};
use crate::node::LoadBalancers;

/// What was read of load balancers so far.
#[derive(Debug, Default)]
pub(super) struct Balance {
    ipvs: Memo<Frontend>,
    has_ipvs: OnceCell<bool>,
    /// Of every namespace: whoever looks for the maps finds all of them.
    cilium: OnceCell<Read<Vec<Frontend>>>,
    /// The maps that Cilium pins beside those.
    cilium_maps: OnceCell<BTreeSet<u32>>,
}

impl LoadBalancers for LiveNode {
    fn frontends(&self, netns: &[NetnsId]) -> Read<Vec<Frontend>> {
        let cilium = self.cilium();
        let wanted = cilium.value.iter().filter(|frontend| netns.contains(&frontend.netns));
        let mut all: Read<Vec<Frontend>> =
            Read { value: wanted.cloned().collect(), gaps: cilium.gaps.clone() };
        // No namespace is entered for what the kernel does not have: with IPVS, each one
        // has this file.
        if *self.balance.has_ipvs.get_or_init(ipvs::is_there) {
            let of_kernel = self.inside("IPVS", Impact::Port, &self.balance.ipvs, netns, |door| {
                ipvs::frontends(door.id)
            });
            all.value.extend(of_kernel.take(&mut all.gaps));
        }
        all
    }
}

impl LiveNode {
    fn cilium(&self) -> &Read<Vec<Frontend>> {
        self.balance.cilium.get_or_init(|| self.read_cilium())
    }

    /// The ids of all maps that Cilium pins where its services and backends were read, whole:
    /// a program that works with one of them is Cilium's.
    pub(super) fn cilium_maps(&self) -> &BTreeSet<u32> {
        self.balance.cilium_maps.get_or_init(|| match self.cilium() {
            read if read.gaps.is_empty() && !read.value.is_empty() => self.ids_of_cilium_maps(),
            _ => BTreeSet::new(),
        })
    }
}

/// For the fuzz targets: Cilium's maps.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz_cilium(bytes: &[u8]) {
    cilium::fuzz(bytes);
}
