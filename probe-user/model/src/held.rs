//! What has a port: sockets in whatever state, and what of a namespace decides who may have one.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Advice, End, NetnsId, NetnsRef, Port, PortRange, Socket};

/// A socket that has a port, in any state: from sock_diag, the probe, or `/proc/PID/net`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortSocket {
    /// The socket itself. Its inode is 0 when no process has it: not yet, or not any more.
    pub socket: Socket,
    /// The other end of its connection.
    pub peer: Option<SocketAddr>,
    /// In how many milliseconds the kernel lets it go, of a connection that the kernel alone
    /// remembers (`idiag_expires` of TIME_WAIT, and of FIN_WAIT2 that its process has closed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u32>,
}

/// What of a namespace decides who may have a port, and what the kernel counts of listeners.
/// What could not be read is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortFacts {
    /// The namespace.
    pub netns: NetnsId,
    /// Ports that the kernel gives to who asks for none (`net.ipv4.ip_local_port_range`).
    pub ephemeral: Option<PortRange>,
    /// Those that it leaves out (`net.ipv4.ip_local_reserved_ports`), in order.
    pub reserved: Option<Vec<PortRange>>,
    /// The lowest port that needs no CAP_NET_BIND_SERVICE
    /// (`net.ipv4.ip_unprivileged_port_start`, Linux 4.11; 1024 before).
    pub unprivileged_from: Option<u16>,
    /// Whether a socket may be bound to an address that no interface has
    /// (`net.ipv4.ip_nonlocal_bind`).
    pub nonlocal4: Option<bool>,
    /// The same of IPv6 (`net.ipv6.ip_nonlocal_bind`).
    pub nonlocal6: Option<bool>,
    /// How many connections were dropped since the namespace was made, because a listener's
    /// queue was full (`TcpExt: ListenOverflows` of `/proc/net/netstat`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_overflows: Option<u64>,
    /// How many were dropped by listeners for any reason (`ListenDrops`), the former included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_drops: Option<u64>,
}

impl PortFacts {
    /// A namespace of which nothing of this is known.
    pub fn unknown(netns: NetnsId) -> Self {
        Self {
            netns,
            ephemeral: None,
            reserved: None,
            unprivileged_from: None,
            nonlocal4: None,
            nonlocal6: None,
            listen_overflows: None,
            listen_drops: None,
        }
    }

    /// Whether the kernel gives this port to who asks for none; `None` when not known.
    pub fn gives_out(&self, port: Port) -> Option<bool> {
        Some(self.ephemeral?.contains(port) && !self.is_reserved(port)?)
    }

    /// Whether the kernel is told to leave it out.
    pub fn is_reserved(&self, port: Port) -> Option<bool> {
        Some(self.reserved.as_ref()?.iter().any(|range| range.contains(port)))
    }
}

/// Sockets that have a port on which nothing listens, alike and of the same holders.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldSockets {
    /// The namespace.
    pub netns: NetnsRef,
    /// What they have it for.
    pub role: HeldAs,
    /// One of them: the one that the kernel keeps longest.
    pub socket: PortSocket,
    /// How many there are.
    pub count: usize,
    /// Whether the kernel gives the port to whoever asks for none; `None` when not known.
    pub ephemeral: Option<bool>,
    /// Whether they keep a server from being bound there without further options; `None` when
    /// not known.
    pub blocks: Option<bool>,
    /// Who has them.
    pub end: End,
    /// What would free the port.
    pub fix: Option<Advice>,
}

/// What a socket has its port for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldAs {
    /// It listens (TCP), or takes packets from anybody (UDP), at another address than was
    /// asked for.
    Listener,
    /// TCP that was bound, and neither listens nor is connected.
    Bound,
    /// This end of a connection that was made from here, as a listener at the other end shows.
    Outgoing,
    /// The same, as far as the ports tell: this one is of those that the kernel gives out, the
    /// other one is not.
    LikelyOutgoing,
    /// A connection to here that was accepted, as far as the ports tell.
    LikelyAccepted,
    /// A connection of which it is not known who made it.
    Connection,
    /// UDP with a peer.
    ConnectedUdp,
    /// A connection that has ended, and that the kernel remembers for a while.
    TimeWait,
    /// A connection that its process has closed, and whose end the kernel waits for.
    Closing,
    /// A connection that is being made, or that nobody has accepted.
    Unaccepted,
}
