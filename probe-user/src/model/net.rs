//! Network namespaces and what is configured in them.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Pid, Port, Proto};

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

/// A network namespace, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netns {
    /// Its identity.
    pub id: NetnsId,
    /// `SO_NETNS_COOKIE` (Linux 5.14): never reused while the machine runs.
    pub cookie: Option<u64>,
    /// The name given by `ip netns`, the last part of a path in `/run/netns`.
    pub name: Option<String>,
    /// Paths that pin it: `/run/netns/NAME`, `/run/docker/netns/…`, other bind mounts.
    pub paths: Vec<String>,
    /// Some processes that live in it (threads of others included), lowest
    /// first, at most [`Netns::MEMBERS`].
    pub members: Vec<Pid>,
}

impl Netns {
    /// How many member processes are kept: enough to survive one that exits.
    pub const MEMBERS: usize = 8;
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
    /// WireGuard. Its port comes from generic netlink: see [`KernelPort`].
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

/// A port that the kernel itself holds, with what holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelPort {
    /// The namespace.
    pub netns: NetnsId,
    /// The protocol.
    pub proto: Proto,
    /// The port.
    pub port: Port,
    /// What it is, in the field's words: `WireGuard`, `L2TP tunnel 7`, `NFS server`.
    pub what: String,
    /// The interface, when there is one. Untrusted.
    pub interface: Option<String>,
    /// Where it was read, for the evidence: `genetlink wireguard`.
    pub source: String,
    /// Whether its socket is connected to a peer: it is then in no table of
    /// listeners, and held all the same. What is only a setting is not.
    #[serde(default)]
    pub connected: bool,
}
