//! Keys and values of Cilium's maps, as bytes.
//!
//! Which layout a map has is told by the sizes of its keys and values alone: they have
//! changed with versions, and maps of two versions are there during an update. Addresses
//! and ports are in network order, the rest in the machine's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use whereis_port_model::FrontendKind;

/// A service, or one of its slots: each leads to a backend, and number 0 is the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServiceKey {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// The protocol's number; 0 stands for all of them.
    pub(super) proto: u8,
    /// 1 for clients in the cluster, where they are told apart.
    pub(super) scope: u8,
    pub(super) slot: u16,
}

/// What a service or a slot leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServiceValue {
    /// A backend's id in slots; in the service itself more than one thing.
    union: u32,
    /// How many slots, from 1, take new connections.
    pub(super) count: u16,
    /// The service's number.
    pub(super) id: u16,
    flags: u8,
    flags2: u8,
    /// How many slots behind those are quarantined (1.18).
    pub(super) quarantined: u16,
}

/// The server that an id of a backend stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CiliumBackend {
    pub(super) to: SocketAddr,
    state: u8,
}

const EXTERNAL_IP: u8 = 0x01;
const NODE_PORT: u8 = 0x02;
const EXTERNAL_LOCAL: u8 = 0x04;
const HOST_PORT: u8 = 0x08;
const AFFINITY: u8 = 0x10;
const LOAD_BALANCER: u8 = 0x20;
const ROUTABLE: u8 = 0x40;
const SOURCE_RANGE: u8 = 0x80;

const LOCAL_REDIRECT: u8 = 0x01;
const NAT_46_64: u8 = 0x02;
const L7: u8 = 0x04;
const LOOPBACK: u8 = 0x08;
const INTERNAL_LOCAL: u8 = 0x10;
const TWO_SCOPES: u8 = 0x20;
/// In a slot: quarantined, before 1.18. In a service: its source ranges are those that are
/// refused; since 1.18 its slots have the service's own flags.
const QUARANTINED: u8 = 0x40;
const DSR: u8 = 0x80;

/// Whether maps of services with keys and values of these sizes can be read.
pub(super) fn knows_services(key_size: usize, value_size: usize) -> bool {
    matches!((key_size, value_size), (12 | 24, 12))
}

/// Whether maps of backends with keys and values of these sizes can be read.
pub(super) fn knows_backends(key_size: usize, value_size: usize) -> bool {
    matches!((key_size, value_size), (2 | 4, 8 | 12 | 20 | 24))
}

/// `lb4_key` or `lb6_key`.
pub(super) fn service_key(bytes: &[u8]) -> Option<ServiceKey> {
    let (address, rest) = address(bytes, bytes.len() == 24)?;
    let [p0, p1, s0, s1, proto, scope, _, _] = *rest else { return None };
    Some(ServiceKey {
        address,
        port: u16::from_be_bytes([p0, p1]),
        proto,
        scope,
        slot: u16::from_ne_bytes([s0, s1]),
    })
}

/// `lb4_service` or `lb6_service`.
pub(super) fn service_value(bytes: &[u8]) -> Option<ServiceValue> {
    let [u0, u1, u2, u3, c0, c1, i0, i1, flags, flags2, q0, q1] = *bytes else { return None };
    Some(ServiceValue {
        union: u32::from_ne_bytes([u0, u1, u2, u3]),
        count: u16::from_ne_bytes([c0, c1]),
        id: u16::from_be_bytes([i0, i1]),
        flags,
        flags2,
        quarantined: u16::from_ne_bytes([q0, q1]),
    })
}

/// A backend's id: 16 bits in the first version of the maps.
pub(super) fn backend_id(bytes: &[u8]) -> Option<u32> {
    match *bytes {
        [a, b] => Some(u16::from_ne_bytes([a, b]).into()),
        [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d])),
        _ => None,
    }
}

/// `lb4_backend` or `lb6_backend`, of any version. The longer ones also tell the
/// cluster and the zone.
pub(super) fn backend(bytes: &[u8]) -> Option<CiliumBackend> {
    let (address, rest) = address(bytes, matches!(bytes.len(), 20 | 24))?;
    let ([p0, p1, _, state] | [p0, p1, _, state, _, _, _, _]) = *rest else { return None };
    Some(CiliumBackend { to: SocketAddr::new(address, u16::from_be_bytes([p0, p1])), state })
}

fn address(bytes: &[u8], ipv6: bool) -> Option<(IpAddr, &[u8])> {
    Some(if ipv6 {
        let (address, rest) = bytes.split_first_chunk::<16>()?;
        (Ipv6Addr::from(*address).into(), rest)
    } else {
        let (address, rest) = bytes.split_first_chunk::<4>()?;
        (Ipv4Addr::from(*address).into(), rest)
    })
}

impl ServiceKey {
    /// Whether it is a service. Port 0 is a mark that everything else for this
    /// address is to be dropped.
    pub(super) fn is_service(&self) -> bool {
        self.slot == 0 && self.port != 0
    }
}

impl ServiceValue {
    /// The backend, of a slot.
    pub(super) fn backend(&self) -> u32 {
        self.union
    }

    /// Whether a slot's backend is not used, for the checks of its health.
    pub(super) fn is_quarantined_in(&self, service: &Self) -> bool {
        self.flags2 & QUARANTINED != 0 && service.refused_sources() != Some(true)
    }

    /// Whether source ranges are checked, and those that are known refused.
    pub(super) fn refused_sources(&self) -> Option<bool> {
        (self.flags & SOURCE_RANGE != 0).then_some(self.flags2 & QUARANTINED != 0)
    }

    /// Whether clients inside and outside of the cluster have entries of their own.
    pub(super) fn has_two_scopes(&self) -> bool {
        self.flags2 & TWO_SCOPES != 0
    }

    /// The kind of a service.
    pub(super) fn kind(&self) -> FrontendKind {
        let has = |flag| self.flags & flag != 0;
        match () {
            () if self.flags2 & LOCAL_REDIRECT != 0 => FrontendKind::LocalRedirect,
            () if has(NODE_PORT) => FrontendKind::NodePort,
            () if has(HOST_PORT) => FrontendKind::HostPort,
            () if has(LOAD_BALANCER) => FrontendKind::LoadBalancer,
            () if has(EXTERNAL_IP) => FrontendKind::ExternalIp,
            () => FrontendKind::ClusterIp,
        }
    }

    /// The port of the local proxy that serves it instead of its backends.
    pub(super) fn proxy_port(&self) -> Option<u16> {
        #[expect(clippy::cast_possible_truncation, reason = "the port is in the lower half")]
        let port = u16::from_be(self.union as u16);
        (self.flags2 & L7 != 0).then_some(port)
    }

    /// For how many seconds a client stays with its backend.
    pub(super) fn affinity(&self) -> Option<u32> {
        (self.flags & AFFINITY != 0 && self.flags2 & L7 == 0).then_some(self.union & 0x00ff_ffff)
    }

    /// How a backend is chosen, where that is not the default of the whole node.
    pub(super) fn algorithm(&self) -> Option<&'static str> {
        match self.union >> 24 {
            _ if self.flags2 & L7 != 0 => None,
            1 => Some("random"),
            2 => Some("maglev"),
            _ => None,
        }
    }

    /// The other flags, in words. Bits of later versions have none.
    pub(super) fn words(&self) -> Vec<String> {
        let first = [(EXTERNAL_LOCAL, "local"), (SOURCE_RANGE, "source-range")];
        let second = [
            (INTERNAL_LOCAL, "internal-local"),
            (QUARANTINED, "source-range-deny"),
            (NAT_46_64, "nat46x64"),
            (LOOPBACK, if self.flags & HOST_PORT != 0 { "loopback" } else { "delegated" }),
            (DSR, "dsr"),
        ];
        let first = first.iter().filter(|(flag, _)| self.flags & flag != 0);
        let second = second.iter().filter(|(flag, _)| self.flags2 & flag != 0);
        let routable = (self.flags & ROUTABLE == 0).then_some("not-routable");
        let words = first.chain(second).map(|(_, word)| *word);
        words.chain(routable).map(str::to_owned).collect()
    }
}

impl CiliumBackend {
    /// Its state, where that is not simply active.
    pub(super) fn state(&self) -> Option<String> {
        match self.state {
            0 => None,
            1 => Some("terminating".to_owned()),
            2 => Some("quarantined".to_owned()),
            3 => Some("maintenance".to_owned()),
            other => Some(format!("state {other}")),
        }
    }

    /// Whether a state does not keep new connections away. One that is ending still
    /// gets them while there is no other: the service's count tells.
    pub(super) fn is_usable(&self) -> bool {
        self.state <= 1
    }
}
