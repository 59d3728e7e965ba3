//! Connections that conntrack knows, and how packets are routed.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{NetnsId, Port, Proto};

/// A connection that is tracked in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// The namespace.
    pub netns: NetnsId,
    /// The protocol.
    pub proto: Proto,
    /// Who began it.
    pub source: SocketAddr,
    /// What it was sent to, before NAT.
    pub destination: SocketAddr,
    /// Who answers: the destination after NAT.
    pub served_by: SocketAddr,
    /// Whom the server sees: the source after NAT.
    pub seen_as: SocketAddr,
    /// TCP's state as conntrack names it, lower case: `established`, `time_wait`.
    pub state: Option<String>,
    /// Whether the other side has answered.
    pub answered: bool,
    /// The zone, 0 without one.
    pub zone: u16,
    /// Seconds until it is forgotten if nothing more is sent.
    pub timeout: Option<u32>,
}

/// Which flows are asked for: those that were sent to this port, or are served by
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FlowFilter {
    /// `None` asks for every protocol.
    pub proto: Option<Proto>,
    /// The port.
    pub port: Port,
}

/// Which way a packet would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RouteQuery {
    /// The namespace.
    pub netns: NetnsId,
    /// Where to.
    pub to: IpAddr,
    /// The packet's mark.
    pub mark: u32,
}

/// The way it takes, as the kernel decides it, policy routing included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteFound {
    /// What kind of destination.
    pub kind: RouteKind,
    /// The interface it leaves by.
    pub oif: Option<u32>,
    /// The next hop; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The address that it would be sent from.
    pub source: Option<IpAddr>,
}

/// Kinds of destination (`RTN_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteKind {
    /// A host elsewhere.
    Unicast,
    /// This namespace itself.
    Local,
    /// All hosts of a network.
    Broadcast,
    /// One of several.
    Anycast,
    /// A group.
    Multicast,
    /// Thrown away silently.
    Blackhole,
    /// Refused: "no route to host".
    Unreachable,
    /// Refused: "permission denied".
    Prohibit,
    /// No route at all.
    None,
}

impl RouteKind {
    /// The kernel's number, `RTN_*` of `linux/rtnetlink.h`; 0 for no route.
    pub fn rtn(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Unicast => 1,
            Self::Local => 2,
            Self::Broadcast => 3,
            Self::Anycast => 4,
            Self::Multicast => 5,
            Self::Blackhole => 6,
            Self::Unreachable => 7,
            Self::Prohibit => 8,
        }
    }
}

/// Settings of a namespace that decide whether packets pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetSettings {
    /// The namespace.
    pub netns: NetnsId,
    /// `net.ipv4.ip_forward`.
    pub forward4: Option<bool>,
    /// `net.ipv6.conf.all.forwarding`.
    pub forward6: Option<bool>,
    /// `net.ipv4.conf.all.route_localnet`.
    pub route_localnet_all: Option<bool>,
    /// Names of the interfaces with `route_localnet` set.
    pub route_localnet: Vec<String>,
    /// `net.bridge.bridge-nf-call-iptables`; `None` without br_netfilter.
    pub bridge_calls_iptables: Option<bool>,
}
