//! Network namespaces, and ports that the kernel holds in them.

use serde::{Deserialize, Serialize};

use super::{NetnsId, Pid, Port, Proto};

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
    /// The inode of the user namespace that owns it: who is root there writes its packet
    /// rules. `None` when the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_ns: Option<u64>,
}

impl Netns {
    /// The inode of the machine's initial user namespace (`PROC_USER_INIT_INO`).
    pub const INITIAL_USER_NS: u64 = 0xEFFF_FFFD;

    /// Whether another user namespace than the initial one owns it: anybody can make such
    /// ones.
    pub fn is_of_other_users(&self) -> bool {
        self.user_ns.is_some_and(|inode| inode != Self::INITIAL_USER_NS)
    }

    /// How many member processes are kept: enough to survive one that exits.
    pub const MEMBERS: usize = 8;
}

/// Whether a namespace has sockets that take packets to foreign addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transparent {
    /// The namespace.
    pub netns: NetnsId,
    /// Whether any listener, or socket of UDP, has `IP_TRANSPARENT`; `None` where the kernel
    /// does not tell (before Linux 5.9).
    pub any: Option<bool>,
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
