//! What happens on a node, as it happens.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{
    Cluster, Container, DropEvent, DroppedBy, Evidence, NetnsId, NetnsRef, Pid, Pod, Port, Process,
    Proto, StartTime,
};

/// The kinds of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// TCP: a socket listens now.
    Listen,
    /// UDP: a socket was bound to a port.
    Bind,
    /// It listens no more, or was released.
    Close,
    /// TCP: a process connects to somewhere.
    Connect,
    /// TCP: a listener got a connection.
    Accept,
    /// A connection begins or ends that NAT changes.
    Nat,
    /// Packets were dropped or refused on their way to a port.
    Drop,
}

impl EventKind {
    /// All of them, in the order they are shown in.
    pub const ALL: [Self; 7] =
        [Self::Listen, Self::Bind, Self::Close, Self::Connect, Self::Accept, Self::Nat, Self::Drop];

    /// The name that users write and read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Bind => "bind",
            Self::Close => "close",
            Self::Connect => "connect",
            Self::Accept => "accept",
            Self::Nat => "nat",
            Self::Drop => "drop",
        }
    }
}

/// How an event is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeenBy {
    /// A program in the kernel saw it when it happened.
    Ebpf,
    /// Conntrack told of it when it happened.
    Conntrack,
    /// Two readings of the node differ. It happened between them, and whatever
    /// came and went between them was not seen.
    Comparison,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When: nanoseconds since the epoch, as the kernel saw it.
    pub at: u64,
    /// What.
    pub kind: EventKind,
    /// The protocol.
    pub proto: Proto,
    /// The network namespace of the socket or of the connection.
    pub netns: Option<NetnsId>,
    /// The socket's address; of [`EventKind::Nat`], where the packet was sent to
    /// before NAT.
    pub address: IpAddr,
    /// Its port. `None` for a connect, which is told before a port is chosen.
    pub port: Option<Port>,
    /// Whom it connects to, or who connected.
    pub peer: Option<SocketAddr>,
    /// The socket's inode in sockfs, where it is known.
    pub inode: Option<u64>,
    /// Who did it. `None` when the kernel did it for somebody else. Of
    /// [`SeenBy::Comparison`]: who held the socket when it was first seen.
    pub actor: Option<Actor>,
    /// The translation, for [`EventKind::Nat`].
    pub nat: Option<NatEvent>,
    /// What became of which packets, for [`EventKind::Drop`]. `at` is when the last of them
    /// was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Box<DropEvent>>,
    /// How it is known.
    pub seen_by: SeenBy,
}

/// The process that caused an event, as it was at that moment: it may have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Its id; `None` when it is outside the tool's PID namespace.
    pub pid: Option<Pid>,
    /// With `pid`, its identity.
    pub start: Option<StartTime>,
    /// User id, in the initial user namespace.
    pub uid: u32,
    /// The name of its thread. Untrusted.
    pub comm: String,
    /// The network namespace that it is in.
    pub netns: Option<NetnsId>,
    /// Its cgroup as far as it is known: a path below a hierarchy's root, or the
    /// last parts of one.
    pub cgroup: Option<String>,
}

/// What NAT did to one connection. The tuples are in the order in which packets
/// go: what came in, and what goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NatEvent {
    /// Whether the connection begins; else it ends.
    pub begins: bool,
    /// Source of the packet as it came.
    pub source: SocketAddr,
    /// Destination of the packet as it came.
    pub destination: SocketAddr,
    /// Source after translation: whom the receiver sees.
    pub new_source: SocketAddr,
    /// Destination after translation.
    pub new_destination: SocketAddr,
}

/// An event, and what is known of who caused it and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Traced {
    /// The event.
    pub event: Event,
    /// Its namespace, with the name that answers give it.
    pub netns: Option<NetnsRef>,
    /// The process that caused it, when it still runs.
    pub process: Option<Process>,
    /// The containers it is in, outermost first.
    pub containers: Vec<Container>,
    /// Their pod.
    pub pod: Option<Pod>,
    /// Their cluster.
    pub cluster: Option<Cluster>,
    /// The systemd unit, for a process in no container.
    pub unit: Option<String>,
    /// How the containers are known.
    pub evidence: Vec<Evidence>,
    /// By which rule packets were dropped, where rules did it.
    pub dropped_by: Option<DroppedBy>,
}
