//! The ports of a node at one time, and what is different at another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Pid, Port, Proto, StartTime, Vantage};

/// The ports of a node at one time: what `list --save` writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// [`Baseline::FORMAT`].
    pub format: String,
    /// The version of this form.
    pub version: u64,
    /// The version of the tool that wrote it.
    pub tool_version: String,
    /// The node's name. Untrusted.
    pub hostname: String,
    /// When, in seconds since the epoch.
    pub taken_at: u64,
    /// Every port, in the order of namespaces and ports.
    pub ports: Vec<BaselinePort>,
    /// What could not be read, so that ports, or who gets to them, may be missing.
    pub not_known: Vec<String>,
}

impl Baseline {
    /// What a file of this form begins with.
    pub const FORMAT: &str = "whereis-port baseline";
    /// The version that is written.
    pub const VERSION: u64 = 1;

    /// Whether there may be more than is in it.
    pub fn is_partial(&self) -> bool {
        !self.not_known.is_empty()
    }
}

/// One port of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselinePort {
    /// The namespace, by its name, or else its inode number. Untrusted.
    pub netns: String,
    /// The protocol.
    pub proto: Proto,
    /// The port.
    pub port: Port,
    /// The addresses that it is bound to or taken at.
    pub addresses: BTreeSet<IpAddr>,
    /// Whose it is, as a policy names it; `None` where that could not be read.
    pub owner: Option<String>,
    /// The processes that hold it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<PortHolder>,
    /// By which rules, balancers or forwarders it is taken, and where they lead. Untrusted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ways: BTreeSet<String>,
    /// Who gets to it.
    pub reached: Vec<ReachedBy>,
}

/// A process that holds a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortHolder {
    /// Its id.
    pub pid: Pid,
    /// When it was started, in clock ticks since boot.
    pub start: StartTime,
    /// Its name. Untrusted.
    pub name: String,
}

/// Whether somebody gets to a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachedBy {
    /// From where.
    pub from: Vantage,
    /// At which addresses they do.
    pub open: BTreeSet<IpAddr>,
    /// At which addresses, if any, it is not known whether they do.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unknown: BTreeSet<IpAddr>,
    /// By which devices or from which namespaces, where that is told. Untrusted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub by: BTreeSet<String>,
}

/// What is different between two times.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Each change, in the order of namespaces and ports.
    pub changes: Vec<Change>,
    /// What could not be read before, and now.
    pub not_known: BTreeMap<&'static str, Vec<String>>,
}

impl Difference {
    /// Whether anything is surely different.
    pub fn is_sure(&self) -> bool {
        self.changes.iter().any(|change| change.sure && change.kind != ChangeKind::Restarted)
    }

    /// Whether something may be different, and it is not known.
    pub fn is_unsure(&self) -> bool {
        !self.not_known.is_empty() || self.changes.iter().any(|change| !change.sure)
    }
}

/// One change of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What kind of change.
    pub kind: ChangeKind,
    /// The namespace. Untrusted.
    pub netns: String,
    /// The protocol.
    pub proto: Proto,
    /// The port.
    pub port: Port,
    /// Whose it is now, or was. Untrusted.
    pub owner: Option<String>,
    /// From where, of a change of who gets to it.
    pub from: Option<Vantage>,
    /// What was. Untrusted.
    pub before: Option<String>,
    /// What is. Untrusted.
    pub after: Option<String>,
    /// Whether it is surely so: else what could not be read on one side may be why.
    pub sure: bool,
}

/// What kinds of changes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// The port was not there before.
    Came,
    /// It is not there any more.
    Went,
    /// Somebody else has it.
    Owner,
    /// It is bound or taken at other addresses.
    Address,
    /// It is taken by other rules, or they lead elsewhere.
    Way,
    /// Others get to it.
    Reach,
    /// The same owner was started anew. No difference, but worth a word.
    Restarted,
}

impl ChangeKind {
    /// The word for people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Came => "came",
            Self::Went => "went",
            Self::Owner => "owner",
            Self::Address => "address",
            Self::Way => "way",
            Self::Reach => "reach",
            Self::Restarted => "restarted",
        }
    }
}
