//! Network namespaces, and what of them rules ask for.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Which network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetnsId {
    /// The inode number in nsfs, as in `net:[4026531833]`. Reused after the
    /// namespace dies.
    Inode(u64),
    /// The inode number of `/proc/PID/net/tcp`, which the kernel allocates per
    /// namespace. All that a user without ptrace rights can see: it tells
    /// namespaces apart, but is not the number that other tools print.
    ProcNet(u64),
}

impl NetnsId {
    /// The nsfs inode, where it is known.
    #[inline]
    pub fn inode(self) -> Option<u64> {
        match self {
            Self::Inode(inode) => Some(inode),
            Self::ProcNet(_) => None,
        }
    }
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inode(inode) => write!(f, "{inode}"),
            Self::ProcNet(inode) => write!(f, "proc-net:{inode}"),
        }
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The namespace.
    pub netns: NetnsId,
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Interface name. Untrusted: a container names its own.
    pub name: String,
    /// Whether it is administratively up.
    pub up: bool,
    /// What it is.
    pub kind: LinkKind,
    /// Index of the bridge or bond it belongs to.
    pub master: Option<u32>,
    /// Index of the peer of a veth, or of the lower device (`IFLA_LINK`).
    pub peer: Option<u32>,
    /// The namespace of that peer, when it is another one that is known.
    pub peer_netns: Option<NetnsId>,
    /// How it is set as a port of a bridge; `None` where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge_port: Option<BridgePort>,
    /// Its hardware address, where it has one as Ethernet devices have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<HardwareAddress>,
    /// Nobody is asked for by it, and it answers nobody who asks (`IFF_NOARP`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub noarp: bool,
}

/// The hardware address of an Ethernet device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HardwareAddress(pub [u8; 6]);

impl std::fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// How a port of a bridge is set (`bridge -d link`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BridgePort {
    /// Nothing gets from one such port to another (Linux 4.18).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// A frame may leave by the port that it came in by.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hairpin: bool,
}

/// The kinds of interface that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// Loopback.
    Loopback,
    /// A hardware device, or one without link info.
    Device,
    /// A bridge.
    Bridge,
    /// One end of a virtual Ethernet pair.
    Veth,
    /// VXLAN: the kernel holds UDP `port` while the device is up.
    Vxlan {
        /// Host byte order.
        port: u16,
        /// `None` with `external` (collect metadata).
        vni: Option<u32>,
    },
    /// GENEVE: the kernel holds UDP `port` while the device is up.
    Geneve {
        /// Host byte order.
        port: u16,
    },
    /// Bareudp: the kernel holds UDP `port` while the device is up.
    Bareudp {
        /// Host byte order.
        port: u16,
    },
    /// WireGuard. Its port comes from generic netlink, not with the link.
    Wireguard,
    /// Any other kind, by the kernel's name for it.
    Other(String),
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The namespace.
    pub netns: NetnsId,
    /// The interface.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The namespace.
    pub netns: NetnsId,
    /// Network address; unspecified with prefix 0 for a default route.
    pub destination: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// The next hop, `None` when the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// Interface it leaves by.
    pub ifindex: Option<u32>,
}

/// The transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP, MPTCP listeners included: they are in the TCP tables too.
    Tcp,
    /// UDP.
    Udp,
}

impl Proto {
    /// All protocols that are read.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// The kernel's number, `IPPROTO_*`.
    #[inline]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The name as users write it, `tcp` or `udp`.
    #[inline]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
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
    /// What else rules of policy routing may ask, where they do.
    #[serde(flatten)]
    pub of: RouteOf,
}

/// Whose packet is routed: what rules of policy routing ask besides destination and mark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RouteOf {
    /// Its source address; `None` before one is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// The user who sends; `None` for root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    /// Its source port, host byte order; `None` for any ephemeral port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// The port that it goes to, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// The interface that its socket is bound to (`SO_BINDTODEVICE`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oif: Option<u32>,
}

impl RouteQuery {
    /// Which way a packet takes of which nothing else counts.
    pub fn new(netns: NetnsId, to: IpAddr, mark: u32) -> Self {
        Self { netns, to, mark, of: RouteOf::default() }
    }
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
    #[inline]
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
