//! What a recorder of events keeps, and what it tells afterwards.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

use super::{DropEvent, EventKind, NetnsId, Pid, Port, Proto, StartTime};

/// When something was: by two clocks, since people set one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// Nanoseconds since boot, time in suspend included: it only goes forward.
    pub mono: u64,
    /// Nanoseconds since the epoch, as the clock said then.
    pub wall: u64,
}

/// One line of the store: when it was written, and what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Its number: each is one more than that of the one before.
    pub seq: u64,
    /// The boot of the kernel that it is of: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// When.
    #[serde(flatten)]
    pub at: Moment,
    /// What.
    #[serde(flatten)]
    pub what: HistoryRecord,
}

/// What a line of the store says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HistoryRecord {
    /// A recorder begins, or goes on in a new file: what listens follows.
    Begin {
        /// Whether it only goes on in a new file.
        #[serde(default)]
        goes_on: bool,
        /// The kinds of event that it keeps.
        kinds: Vec<EventKind>,
        /// What it can't watch, in words.
        gaps: Vec<String>,
        /// The version of the tool.
        version: String,
    },
    /// One that listens as a recorder begins.
    Listener {
        /// Which.
        listener: ListenerRecord,
        /// Since when, where it was seen to begin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Moment>,
    },
    /// All that listens was told. What was there before and is not told has ended.
    Ready,
    /// Something happened.
    Event {
        /// What.
        kind: EventKind,
        /// To whom.
        listener: ListenerRecord,
        /// The other end, of accepts and connects.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<SocketAddr>,
        /// Which packets, of drops.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dropped: Option<Box<DropEvent>>,
        /// By which rule, of drops.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
    },
    /// The recorder runs: nothing happened since the last line.
    Alive,
    /// Events were lost: in the kernel, or since they could not be written.
    Lost {
        /// How many.
        events: u64,
        /// Why.
        why: String,
    },
    /// The recorder ends.
    End,
}

/// A listener as the store has it: its address, and who held it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRecord {
    /// The namespace.
    pub netns: Option<NetnsId>,
    /// Its name. Untrusted, as all names here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_name: Option<String>,
    /// The protocol.
    pub proto: Proto,
    /// The address.
    pub address: IpAddr,
    /// The port; `None` where it was not chosen yet.
    pub port: Option<Port>,
    /// The socket's inode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// The process that holds it, or has caused the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<HistoryHolder>,
}

impl ListenerRecord {
    /// What makes it the same one: the socket, where it is known.
    pub fn is_same(&self, other: &Self) -> bool {
        let key = |one: &Self| (one.netns, one.proto, one.address, one.port);
        let inode = match (self.inode, other.inode) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        key(self) == key(other) && inode
    }
}

/// A process that held a port, with its container, pod and unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryHolder {
    /// Its id, where it is in the tool's PID namespace.
    pub pid: Option<Pid>,
    /// With that, its identity.
    pub start: Option<StartTime>,
    /// Its user.
    pub uid: u32,
    /// Its name.
    pub name: String,
    /// The container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The pod, with its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The unit of systemd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// How the beginning or the end of a holding is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldingEdge {
    /// It was seen to happen.
    Seen(Moment),
    /// It was there when recording began: it began before that.
    Before(Moment),
    /// It was there until then, and not any more when recording went on.
    Between(Moment, Moment),
    /// It was there when recording ended, or is still there as it goes on.
    Last(Moment),
}

impl HoldingEdge {
    /// The time that is surely within.
    pub fn inner(self) -> Moment {
        match self {
            Self::Seen(at) | Self::Before(at) | Self::Between(at, _) | Self::Last(at) => at,
        }
    }
}

/// Somebody had a port for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Who, and what.
    pub listener: ListenerRecord,
    /// The boot that it was in.
    pub boot: String,
    /// From when.
    pub from: HoldingEdge,
    /// Until when.
    pub to: HoldingEdge,
    /// How much of that nobody recorded, in nanoseconds.
    pub unrecorded: u64,
}

impl Holding {
    /// For how long it was surely held, in nanoseconds: by the clock that nobody sets.
    pub fn lasted(&self) -> u64 {
        self.to.inner().mono.saturating_sub(self.from.inner().mono)
    }
}

/// A time in which nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrecorded {
    /// The last that was recorded before.
    pub from: Moment,
    /// The first that was recorded after.
    pub to: Moment,
    /// Whether the machine was booted meanwhile.
    pub booted: bool,
    /// Whether the recorder before was ended in good order.
    pub ended: bool,
}

/// What a store tells of ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The first and the last that was recorded.
    pub recorded: Option<(Moment, Moment)>,
    /// Who had what, in the order of beginnings.
    pub holdings: Vec<Holding>,
    /// When nothing was recorded between these.
    pub unrecorded: Vec<Unrecorded>,
    /// Events that were lost, with when and why.
    pub lost: Vec<(Moment, u64, String)>,
    /// What recorders could not watch, each once.
    pub gaps: Vec<String>,
    /// Lines of the store that are damaged.
    pub damaged: u64,
    /// For a question about one time: whether that time was recorded.
    pub asked: Option<HistoryQuery>,
}

/// The time that a question to the store is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Nanoseconds since the epoch.
    pub at: u64,
    /// How often it was that time while it was recorded: a clock that is set back has a
    /// time twice, one that is set forward has it not at all.
    pub times: usize,
}
