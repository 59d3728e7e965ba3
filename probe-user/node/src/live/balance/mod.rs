//! Load balancers that are no rules: the kernel's IPVS, and Cilium's maps.

mod cilium;
mod ipvs;

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

#[cfg(feature = "fuzzing")]
pub(super) use ipvs::fuzz as fuzz_ipvs;

use super::{LiveNode, NetnsCache};
use crate::LoadBalancers;
use whereis_port_model::{Cilium, CiliumPolicy, CiliumPolicyOf, Frontend, Impact, NetnsId, Read};

/// What was read of an endpoint's policy.
type EndpointPolicy = Read<Option<Arc<[CiliumPolicy]>>>;

/// What was read of load balancers so far.
#[derive(Debug, Default)]
pub(super) struct Balance {
    ipvs: NetnsCache<Frontend>,
    has_ipvs: OnceCell<bool>,
    /// Of every namespace: whoever looks for the maps finds all of them.
    cilium: OnceCell<Read<Vec<Frontend>>>,
    cilium_places: OnceCell<Read<Vec<cilium::CiliumPins>>>,
    cilium_datapath: RefCell<HashMap<NetnsId, Read<Vec<Cilium>>>>,
    cilium_policies: RefCell<HashMap<CiliumPolicyOf, EndpointPolicy>>,
    /// The maps that Cilium pins beside those.
    cilium_maps: OnceCell<BTreeSet<u32>>,
}

impl LoadBalancers for LiveNode {
    fn frontends(&self, netns: &[NetnsId]) -> Read<Vec<Frontend>> {
        let cilium = self.cilium_frontends();
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

    fn cilium(&self, netns: &[NetnsId]) -> Read<Vec<Cilium>> {
        let mut all: Read<Vec<Cilium>> = Read::default();
        for id in netns {
            let mut known = self.balance.cilium_datapath.borrow_mut();
            let read = known.entry(*id).or_insert_with(|| self.read_cilium_datapath(*id));
            all.value.extend(read.clone().take(&mut all.gaps));
        }
        all
    }

    fn cilium_policy(&self, of: &CiliumPolicyOf) -> EndpointPolicy {
        let mut known = self.balance.cilium_policies.borrow_mut();
        known.entry(*of).or_insert_with(|| self.read_cilium_policy(*of)).clone()
    }
}

impl LiveNode {
    fn cilium_frontends(&self) -> &Read<Vec<Frontend>> {
        self.balance.cilium.get_or_init(|| self.read_cilium())
    }

    /// The ids of all maps that Cilium pins where its services and backends were read, whole:
    /// a program that works with one of them is Cilium's.
    pub(super) fn cilium_maps(&self) -> &BTreeSet<u32> {
        self.balance.cilium_maps.get_or_init(|| match self.cilium_frontends() {
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
