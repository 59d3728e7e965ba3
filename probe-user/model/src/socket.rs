//! Sockets as the kernel reports them, and how to ask for them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{NetnsId, Proto, SocketInode};

/// A transport port, in host byte order. Never 0: the kernel uses 0 for "unbound".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Port(pub u16);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest port.
    pub first: Port,
    /// The highest port, not below `first`.
    pub last: Port,
}

impl PortRange {
    /// The range that holds just one port.
    pub fn one(port: Port) -> Self {
        Self { first: port, last: port }
    }

    /// Whether `port` lies in the range.
    pub fn contains(&self, port: Port) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether every port of `other` lies in the range.
    pub fn covers(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// What a socket on a port does there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketState {
    /// TCP in state LISTEN.
    Listen,
    /// UDP bound to a port and not connected: takes packets from any peer.
    Unconnected,
    /// TCP bound to a port, and neither listening nor connected.
    Bound,
    /// TCP that is being connected from here.
    SynSent,
    /// TCP that is being connected to here.
    SynReceived,
    /// TCP with a connection; UDP with a peer, which it takes packets from alone.
    Established,
    /// TCP closed here, the other side has not said that it knows.
    FinWait1,
    /// TCP closed here, and not yet by the other side.
    FinWait2,
    /// TCP closed by both, this side first: the kernel remembers it for a minute.
    TimeWait,
    /// TCP closed by the other side, and not yet by the process here.
    CloseWait,
    /// TCP closed by both, the other side first and not yet acknowledged.
    LastAck,
    /// TCP closed by both at the same time.
    Closing,
}

impl SocketState {
    /// Whether it takes what anybody sends: a listener.
    pub fn is_listener(self) -> bool {
        matches!(self, Self::Listen | Self::Unconnected)
    }
}

/// One listening or bound socket, from sock_diag or `/proc/PID/net`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Socket {
    /// The namespace the socket lives in. Fixed when the socket was made; the
    /// processes that hold it may live in another one.
    pub netns: NetnsId,
    /// The protocol.
    pub proto: Proto,
    /// The state.
    pub state: SocketState,
    /// The bound address, exactly as bound: `::ffff:127.0.0.1` stays as it is.
    pub address: IpAddr,
    /// The bound port, host byte order.
    pub port: Port,
    /// `IPV6_V6ONLY` of an IPv6 socket. `None` for IPv4, and where only
    /// `/proc/PID/net/tcp6` could be read, which does not tell.
    pub v6only: Option<bool>,
    /// Inode in sockfs. 0 when the kernel gave none.
    pub inode: SocketInode,
    /// User id of the socket (the creator's fsuid), in the tool's user namespace.
    pub uid: u32,
    /// Interface index the socket is bound to (`SO_BINDTODEVICE`).
    pub ifindex: Option<u32>,
    /// The cgroup v2 id of the task that created the socket
    /// (`INET_DIAG_CGROUP_ID`, Linux 5.8).
    pub cgroup_id: Option<u64>,
    /// The connections that wait to be accepted, of TCP that listens. `None` for all else,
    /// and where nothing that was read tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<AcceptQueue>,
}

/// Connections of a listener that are made, and that no process has accepted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AcceptQueue {
    /// How many there are (`sk_ack_backlog`; `Recv-Q` of ss).
    pub waiting: u32,
    /// How many `listen` allowed, cut at `net.core.somaxconn` (`sk_max_ack_backlog`; `Send-Q`
    /// of ss).
    pub limit: u32,
    /// How many connections this listener has dropped since it listens, for want of room or of
    /// memory (`sk_drops`, `INET_DIAG_SKMEMINFO`; as `d` in `skmem` of ss). `None` where not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops: Option<u32>,
}

impl AcceptQueue {
    /// Whether new connections are dropped: the kernel takes one more than the limit
    /// (`sk_acceptq_is_full`).
    pub fn is_full(self) -> bool {
        self.waiting > self.limit
    }
}

impl Socket {
    /// The address with a v4-mapped IPv6 address as the IPv4 one it stands for.
    pub fn effective_address(&self) -> IpAddr {
        self.address.to_canonical()
    }

    /// Whether the socket takes packets for IPv4. `None` when `v6only` is unknown.
    pub fn takes_ipv4(&self) -> Option<bool> {
        match self.effective_address() {
            IpAddr::V4(_) => Some(true),
            IpAddr::V6(a) if a.is_unspecified() => self.v6only.map(|only| !only),
            IpAddr::V6(_) => Some(false),
        }
    }

    /// How well the bind matches a packet to `to`, as the kernel ranks it: a
    /// specific address beats a wildcard of the same family, and that beats a
    /// dual-stack wildcard. `None` when it does not match. A dual-stack bind
    /// whose `v6only` is unknown counts as a match: the caller says so.
    pub fn match_rank(&self, to: IpAddr) -> Option<u8> {
        let to = to.to_canonical();
        let bound = self.effective_address();
        if bound == to {
            return Some(3);
        }
        if !bound.is_unspecified() {
            return None;
        }
        match (bound, to) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => Some(2),
            (IpAddr::V6(_), IpAddr::V4(_)) if self.takes_ipv4() != Some(false) => Some(1),
            _ => None,
        }
    }

    /// Whether it is bound to every address of its family.
    pub fn is_wildcard(&self) -> bool {
        self.effective_address().is_unspecified()
    }

    /// Whether only the loopback of its own namespace reaches it.
    pub fn is_loopback(&self) -> bool {
        self.effective_address().is_loopback()
    }
}

/// Which sockets are asked for. The kernel applies it where it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SocketFilter {
    /// `None` asks for every protocol.
    pub proto: Option<Proto>,
    /// `None` asks for every port.
    pub ports: Option<PortRange>,
}

impl SocketFilter {
    /// Every socket there is.
    pub const ALL: Self = Self { proto: None, ports: None };

    /// Whether `socket` passes.
    pub fn matches(&self, socket: &Socket) -> bool {
        self.proto.is_none_or(|p| p == socket.proto)
            && self.ports.is_none_or(|r| r.contains(socket.port))
    }

    /// Whether everything that `other` asks for is asked for by this filter too.
    pub fn covers(&self, other: &Self) -> bool {
        let proto = self.proto.is_none() || self.proto == other.proto;
        let ports = match (&self.ports, &other.ports) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(theirs)) => mine.covers(theirs),
        };
        proto && ports
    }
}

/// The IPv4 loopback address.
pub const LOOPBACK4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How many established TCP connections have one local end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// The namespace.
    pub netns: NetnsId,
    /// The local address; an IPv4-mapped one as IPv4.
    pub address: IpAddr,
    /// The local port.
    pub port: Port,
    /// How many.
    pub count: u32,
}
