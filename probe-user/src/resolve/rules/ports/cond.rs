//! What rules test of protocol, destination address and port.

use std::net::IpAddr;

/// Conditions that all have to hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Cond {
    pub(super) proto: Option<u8>,
    pub(super) dst: Dst,
    /// First and last port of each; `None` for all.
    pub(super) ports: Option<Vec<(u16, u16)>>,
}

/// A destination address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) enum Dst {
    #[default]
    Any,
    /// All of the namespace.
    Local,
    /// This one.
    At(IpAddr),
    /// Those of a network.
    In(IpAddr, u8),
}

impl Cond {
    /// Both; `None` when no packet is of both.
    pub(super) fn and(&self, other: &Self) -> Option<Self> {
        let proto = match (self.proto, other.proto) {
            (Some(one), Some(two)) if one != two => return None,
            (one, two) => one.or(two),
        };
        let ports = match (&self.ports, &other.ports) {
            (Some(one), Some(two)) => {
                let both = one
                    .iter()
                    .flat_map(|(a, b)| two.iter().map(move |(c, d)| ((*a).max(*c), (*b).min(*d))));
                let both: Vec<(u16, u16)> = both.filter(|(from, to)| from <= to).collect();
                if both.is_empty() {
                    return None;
                }
                Some(both)
            }
            (one, two) => one.as_ref().or(two.as_ref()).cloned(),
        };
        Some(Self { proto, dst: self.dst.and(other.dst)?, ports })
    }

    /// Whether an address or port is tested.
    pub(super) fn has_place(&self) -> bool {
        self.ports.is_some() || self.dst != Dst::Any
    }
}

impl Dst {
    fn and(self, other: Self) -> Option<Self> {
        let covers = crate::resolve::route::covers;
        match (self, other) {
            (Self::Any, one) | (one, Self::Any) => Some(one),
            (Self::At(one), Self::At(two)) => (one == two).then_some(self),
            (Self::At(at), Self::In(net, bits)) | (Self::In(net, bits), Self::At(at)) => {
                covers(net, bits, at).then_some(Self::At(at))
            }
            (Self::Local, one) | (one, Self::Local) => Some(one),
            (Self::In(one, a), Self::In(two, b)) => {
                let (wide, wide_bits, narrow) = if a <= b { (one, a, two) } else { (two, b, one) };
                let narrow_dst = if a <= b { other } else { self };
                covers(wide, wide_bits, narrow).then_some(narrow_dst)
            }
        }
    }
}
