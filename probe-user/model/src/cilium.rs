//! Cilium's datapath besides its services: who is translated where, who is who, and what an
//! endpoint lets in.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{CgroupHook, NetnsId};

/// What Cilium's maps and pins tell of the namespace that it works for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cilium {
    /// The namespace: the node's.
    pub netns: NetnsId,
    /// Where `connect()` is translated; `None` where no pin tells: versions before 1.14 attach
    /// without links.
    pub socket_lb: Option<Vec<SocketLb>>,
    /// Its endpoints (`cilium_lxc`): pods, and the addresses of the node.
    pub endpoints: Vec<CiliumEndpoint>,
    /// Which identity an address has (`cilium_ipcache`): the longest prefix counts. `None` where
    /// the map is not there.
    pub identities: Option<Vec<CiliumIdentity>>,
}

/// A program of socket LB: it translates `connect()` in a cgroup and in those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketLb {
    /// For which calls.
    pub at: CgroupHook,
    /// The cgroup v2: the inode of its directory.
    pub cgroup: u64,
    /// The program's id.
    pub program: u32,
}

/// An address behind a device of the node, or of the node itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CiliumEndpoint {
    /// The address.
    pub address: IpAddr,
    /// The device of the node that leads there; 0 for the node's own addresses.
    pub ifindex: u32,
    /// Its number on this node; 0 for the node itself.
    pub id: u16,
}

/// The identity of some addresses, by which policies are decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CiliumIdentity {
    /// The addresses.
    pub address: IpAddr,
    /// The length of their prefix, in bits.
    pub prefix: u8,
    /// The identity: 1 the node, 2 everybody else, 6 other nodes, from 2^24 on prefixes that
    /// policies of this node name.
    pub identity: u32,
}

impl CiliumIdentity {
    /// The node itself.
    pub const HOST: u32 = 1;
    /// Whoever has no identity of its own.
    pub const WORLD: u32 = 2;
    /// Other nodes of the cluster.
    pub const REMOTE_NODE: u32 = 6;
    /// Nodes that an API server runs on.
    pub const API_SERVER: u32 = 7;
}

impl Cilium {
    /// The endpoint behind a device.
    pub fn behind(&self, ifindex: u32) -> Option<&CiliumEndpoint> {
        self.endpoints.iter().find(|one| one.ifindex == ifindex && ifindex != 0)
    }

    /// The pod that has an address.
    pub fn pod_at(&self, address: IpAddr) -> Option<&CiliumEndpoint> {
        self.endpoints.iter().find(|one| one.address == address && one.id != 0)
    }

    /// The identity of an address: `None` when the map is not known.
    pub fn identity(&self, address: IpAddr) -> Option<u32> {
        let covers = |one: &&CiliumIdentity| {
            whereis_port_rules::route::covers(one.address, one.prefix, address)
        };
        let all = self.identities.as_ref()?;
        let found = all.iter().filter(covers).max_by_key(|one| one.prefix);
        Some(found.map_or(CiliumIdentity::WORLD, |one| one.identity))
    }
}

/// Which endpoint's policy is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CiliumPolicyOf {
    /// The node's namespace.
    pub netns: NetnsId,
    /// The endpoint's number.
    pub endpoint: u16,
}

/// An entry of an endpoint's policy map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CiliumPolicy {
    /// For what the endpoint sends; else for what it gets.
    pub egress: bool,
    /// The other side; 0 for everybody.
    pub identity: u32,
    /// The protocol's number; 0 for all.
    pub proto: u8,
    /// The first port, host byte order.
    pub port: u16,
    /// How many bits of protocol and port count: 0 none, 8 the protocol, 24 both.
    pub prefix: u8,
    /// Whether it refuses.
    pub deny: bool,
    /// The port of the proxy that connections are passed through; 0 without one.
    pub proxy: u16,
    /// Whether both sides have to be authenticated first.
    pub auth: bool,
    /// A higher one comes first (1.19); 0 in earlier versions.
    pub precedence: u32,
}

impl CiliumPolicy {
    /// Whether it is for connections to a port, from an identity.
    pub fn covers(&self, identity: u32, proto: u8, port: u16) -> bool {
        let proto_fits = self.prefix < 8 || self.proto == proto;
        // A port's prefix keeps the upper bits.
        let mask = match self.prefix.saturating_sub(8).min(16) {
            0 => 0,
            bits => u16::MAX << (16 - bits),
        };
        let port_fits = self.port & mask == port & mask;
        !self.egress && [0, identity].contains(&self.identity) && proto_fits && port_fits
    }

    /// What decides of connections to a port from an identity; `None` refuses them
    /// (`__policy_can_access`, bpf/lib/policy.h).
    pub fn decide(all: &[Self], identity: u32, proto: u8, port: u16) -> Option<&Self> {
        let covers = all.iter().filter(|one| one.covers(identity, proto, port));
        covers.max_by_key(|one| (one.precedence, one.prefix, one.identity != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: CiliumPolicy = CiliumPolicy {
        egress: false,
        identity: 0,
        proto: 0,
        port: 0,
        prefix: 0,
        deny: false,
        proxy: 0,
        auth: false,
        precedence: 0,
    };

    #[test]
    fn the_longest_entry_decides_and_of_equals_that_of_the_identity() {
        let http = CiliumPolicy { proto: 6, port: 8080, prefix: 24, identity: 9, ..NONE };
        let shut = CiliumPolicy { identity: 9, deny: true, ..NONE };
        let all = [NONE, shut, http];
        let of = |identity, port| CiliumPolicy::decide(&all, identity, 6, port);
        assert_eq!(of(9, 8080), Some(&http));
        assert_eq!(of(9, 80), Some(&shut));
        assert_eq!(of(3, 8080), Some(&NONE));
        let first = CiliumPolicy { precedence: 1, deny: true, ..NONE };
        assert_eq!(CiliumPolicy::decide(&[http, first], 9, 6, 8080), Some(&first));
        assert_eq!(CiliumPolicy::decide(&[http], 3, 6, 8080), None);
        let range = CiliumPolicy { proto: 6, port: 8080, prefix: 20, ..NONE };
        let taken = |port| CiliumPolicy::decide(&[range], 3, 6, port).is_some();
        assert_eq!([8079, 8080, 8095, 8096].map(taken), [false, true, true, false]);
    }
}
