//! Packets that were dropped or refused on their way to a port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Event, NetnsId, Port, Proto, counted};

/// What became of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropFate {
    /// The kernel threw them away, without a word to the sender.
    Dropped,
    /// A TCP reset was sent.
    Reset,
    /// An ICMP error was sent.
    Icmp,
    /// The accept queue of the listener was full, and the kernel did not take them.
    QueueFull,
}

/// The flags of TCP that tell what a packet is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "they are flags")]
pub struct TcpFlags {
    /// A connection begins.
    pub syn: bool,
    /// Acknowledges.
    pub ack: bool,
    /// No more data comes.
    pub fin: bool,
    /// Reset.
    pub rst: bool,
}

impl TcpFlags {
    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        let all = [(self.syn, "SYN"), (self.ack, "ACK"), (self.fin, "FIN"), (self.rst, "RST")];
        all.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect()
    }

    /// Whether a connection was to begin.
    pub fn is_syn(self) -> bool {
        self.syn && !self.ack
    }
}

/// Packets of one cause: what they have in common, and how many they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropEvent {
    /// What became of them.
    pub fate: DropFate,
    /// The reason, as the running kernel calls it: `NETFILTER_DROP`. `None` where it gives none.
    pub reason: Option<String>,
    /// The function of the kernel that let go of them, where addresses are readable.
    pub place: Option<String>,
    /// The name of the device that they were at. Untrusted.
    pub device: Option<String>,
    /// Its index in the namespace.
    pub ifindex: Option<u32>,
    /// The index of the device that they came into the namespace by; `None` where they were
    /// sent from there.
    pub came_by: Option<u32>,
    /// Their flags.
    pub flags: TcpFlags,
    /// The sender; `None` where there were too many to tell them apart.
    pub source: Option<IpAddr>,
    /// Whom they were sent to before NAT changed that.
    pub original: Option<SocketAddr>,
    /// How many since this cause was told of last.
    pub packets: u64,
    /// How many altogether.
    pub total: u64,
    /// Whether they were so many that not each was looked at.
    pub estimated: bool,
    /// When the first of all was dropped: nanoseconds since the epoch.
    pub first: u64,
}

impl DropEvent {
    /// Whether packet rules did it, or the reverse path filter: what can be asked of the rules.
    pub fn is_by_rules(&self) -> bool {
        let by_place = matches!(self.place.as_deref(), Some("nf_hook_slow" | "nf_hook_slow_list"));
        match (self.fate, self.reason.as_deref()) {
            (DropFate::Dropped, Some(reason)) => {
                matches!(reason, "NETFILTER_DROP" | "IP_RPFILTER")
            }
            (DropFate::Dropped, None) => by_place,
            _ => false,
        }
    }

    /// What became of them and why, in words: `dropped (NETFILTER_DROP)`.
    pub fn words(&self) -> String {
        let why = self.reason.clone().or_else(|| Some(format!("in {}", self.place.as_ref()?)));
        let why = why.map_or_else(String::new, |why| format!(" ({why})"));
        match self.fate {
            DropFate::Dropped => format!("dropped{why}"),
            DropFate::Reset => format!("reset sent{why}"),
            DropFate::Icmp => format!("error sent{why}"),
            DropFate::QueueFull => "dropped, for the accept queue is full".to_owned(),
        }
    }
}

/// By which rule packets were dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DroppedBy {
    /// The simulator says so, in words: `dropped by rule 3 of inet filter input`.
    Rule(String),
    /// It does not, and why.
    Unknown(String),
}

/// Packets of one cause that were dropped while the node was watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The protocol.
    pub proto: Proto,
    /// The namespace.
    pub netns: Option<NetnsId>,
    /// Whom they were sent to.
    pub address: IpAddr,
    /// The port there.
    pub port: Port,
    /// What became of them; `packets` and `total` are the same here.
    pub what: DropEvent,
    /// By which rule.
    pub by: Option<DroppedBy>,
}

impl Dropped {
    /// Takes in the last event of a cause.
    pub fn of(event: &Event) -> Option<Self> {
        let what = event.dropped.as_deref()?.clone();
        let what = DropEvent { packets: what.total, ..what };
        let port = event.port?;
        let (proto, netns, address) = (event.proto, event.netns, event.address);
        Some(Self { proto, netns, address, port, what, by: None })
    }

    /// Whether another event is of the same cause.
    pub fn is_same(&self, other: &Self) -> bool {
        let key = |one: &Self| {
            let what = &one.what;
            let cause = (what.fate, what.reason.clone(), what.place.clone());
            let place = (what.ifindex, what.came_by.is_some(), what.flags, what.source);
            (one.proto, one.netns, one.address, one.port, cause, place)
        };
        key(self) == key(other)
    }
}

impl fmt::Display for Dropped {
    /// `12 SYNs dropped by rule 3 of inet filter input at eth0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.what.flags.is_syn() { "SYN" } else { "packet" };
        f.write_str(&counted(self.what.total, what))?;
        match &self.by {
            Some(DroppedBy::Rule(rule)) => write!(f, " {rule}")?,
            _ => write!(f, " {}", self.what.words())?,
        }
        match &self.what.device {
            Some(device) => write!(f, " at {device}"),
            None => Ok(()),
        }
    }
}
