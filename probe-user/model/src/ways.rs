//! Which way packets take that come into a namespace, and what decides besides the routes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{HardwareAddress, NetnsId, Proto, RouteFound};

/// A packet that comes into a namespace by a device, before it is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputQuery {
    /// The namespace.
    pub netns: NetnsId,
    /// Where to.
    pub to: IpAddr,
    /// Its source address.
    pub from: IpAddr,
    /// The device, by its index.
    pub iif: u32,
    /// Its mark.
    pub mark: u32,
    /// Its protocol and ports, where rules of policy routing ask for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<PacketFlow>,
}

/// Protocol and ports of a packet. A port that is not known is any ephemeral one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketFlow {
    /// The protocol.
    pub proto: Proto,
    /// The source port, host byte order.
    pub sport: Option<u16>,
    /// The destination port, host byte order.
    pub dport: Option<u16>,
}

/// What the kernel does with it, policy routing by source and device included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputFound {
    /// It is routed, if only to nowhere.
    Routed(RouteFound),
    /// It is dropped for its source address: the reverse path filter, or an address that is
    /// the namespace's own (`fib_validate_source`, net/ipv4/fib_frontend.c).
    SourceRefused,
}

/// A rule of policy routing (`ip rule`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// The namespace.
    pub netns: NetnsId,
    /// Whether it is for IPv6, else for IPv4.
    pub ipv6: bool,
    /// Its place: the lowest comes first.
    pub priority: u32,
    /// Whether it holds for all that it does not name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inverted: bool,
    /// The network of the source, with its prefix length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<(IpAddr, u8)>,
    /// The network of the destination, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<(IpAddr, u8)>,
    /// The name of the device that a packet comes in by. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iif: Option<String>,
    /// The users who send, both ends included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uids: Option<(u32, u32)>,
    /// Whether it asks anything else: mark, ports, protocol, VRF.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// The table that it leads to; `None` for another action, and 254 for the main one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
}

impl PolicyRule {
    /// Whether it is one that every namespace has: to the tables `local`, `main` and `default`,
    /// for all packets.
    pub fn is_usual(&self) -> bool {
        let asks = self.inverted || self.more;
        let asks = asks
            || self.from.is_some()
            || self.to.is_some()
            || self.iif.is_some()
            || self.uids.is_some();
        !asks
            && matches!(
                (self.priority, self.table),
                (0, Some(255)) | (32766, Some(254)) | (_, Some(253))
            )
    }

    /// Whether it may be for a packet from one address to another, as far as these are known, that
    /// comes in by a device or is sent here.
    pub fn may_take(&self, from: Option<IpAddr>, to: Option<IpAddr>, iif: Option<&str>) -> bool {
        let within = |net: Option<(IpAddr, u8)>, is: Option<IpAddr>| match (net, is) {
            (Some((net, prefix)), Some(is)) => whereis_port_rules::route::covers(net, prefix, is),
            (Some(_), None) | (None, _) => true,
        };
        // What a host sends itself comes in by loopback.
        let by = |name: &str| iif.unwrap_or("lo") == name;
        let takes =
            within(self.from, from) && within(self.to, to) && self.iif.as_deref().is_none_or(by);
        takes || self.inverted
    }
}

/// A route by which a namespace takes packets as its own (type `local`), in any table: for an
/// address of an interface, or for a whole network that none has ("AnyIP").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalRoute {
    /// The namespace.
    pub netns: NetnsId,
    /// The network.
    pub destination: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// The table that it is in; 255 is `local`, which comes first.
    pub table: u32,
}

/// What a namespace knows of who has an address on one of its links (`ip neigh`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The namespace.
    pub netns: NetnsId,
    /// The device.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// What is known.
    pub state: NeighbourState,
    /// Where packets to it are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<HardwareAddress>,
}

/// What is known of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeighbourState {
    /// Somebody answered for the address, if not just now (`REACHABLE`, `STALE`, `DELAY`,
    /// `PROBE`).
    Answered,
    /// Nobody did when it was last looked for, or has yet (`FAILED`, `INCOMPLETE`).
    Unanswered,
    /// It was set, and nobody is asked (`PERMANENT`, `NOARP`).
    Set,
    /// This namespace answers for it in the place of another (`NTF_PROXY`).
    Proxied,
}

/// What a setting of `net.ipv4.conf.*` is for a device: the greater of what is set for the device
/// and for all. `rp_filter`, `arp_ignore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMode {
    /// The device. Untrusted.
    pub device: String,
    /// The mode. Of `rp_filter` 1: the way back has to be by the same device, 2: there has to be
    /// one. Of `arp_ignore` 1 and 2: only for the device's own addresses, 8: for none.
    pub mode: u8,
}
