//! What is not known.

use serde::{Deserialize, Serialize};

use super::{Command, GapSource};

/// What a missing fact could hide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Impact {
    /// A listener, or a rule that takes a port, may exist unseen: "not found"
    /// can't be said.
    Port,
    /// A listener is seen, but perhaps not everybody who holds it.
    Owner,
    /// The name, image or cluster of something that is seen.
    Name,
    /// From where something can be reached.
    Reach,
    /// Where a process passes connections on to.
    Way,
    /// Which connections are open now.
    Flow,
    /// Whether something has a port without listening on it, so that nobody else can be bound
    /// to it.
    Bind,
}

/// A fact that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gap {
    /// What was being read: `/proc/12/fd`, `Docker API (/var/run/docker.sock)`.
    pub source: GapSource,
    /// Why it was not read, starting in lower case, without a final stop.
    pub reason: String,
    /// What would give it: a capability, a package, an option. `None` when
    /// nothing would.
    pub remedy: Option<String>,
    /// The command that the remedy ends with, where there are names from outside in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// What it could hide.
    pub impact: Impact,
}

impl Gap {
    /// A gap in `source` because of `reason`, without a remedy.
    pub fn new(impact: Impact, source: impl Into<GapSource>, reason: impl Into<String>) -> Self {
        Self { source: source.into(), reason: reason.into(), remedy: None, command: None, impact }
    }

    /// The same gap, with what would close it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same gap, with the command that its remedy ends with.
    #[must_use]
    pub fn command(mut self, command: Command) -> Self {
        self.command = Some(command);
        self
    }
}

/// What a read gave: the facts, and what is missing from them. A failed read is
/// an empty value with a gap; nothing is ever just left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read<T> {
    /// The facts.
    pub value: T,
    /// What could not be read of them.
    pub gaps: Vec<Gap>,
}

impl<T> Read<T> {
    /// A complete read.
    pub fn whole(value: T) -> Self {
        Self { value, gaps: Vec::new() }
    }

    /// A read that gave `value` and nothing certain beyond it.
    pub fn partial(value: T, gap: Gap) -> Self {
        Self { value, gaps: vec![gap] }
    }

    /// The same read of what `change` makes of the value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Read<U> {
        Read { value: change(self.value), gaps: self.gaps }
    }

    /// The value, with the gaps moved to `gaps`, each kept once.
    pub fn take(self, gaps: &mut Vec<Gap>) -> T {
        for gap in self.gaps {
            if !gaps.contains(&gap) {
                gaps.push(gap);
            }
        }
        self.value
    }
}

/// What was asked of one source during a run, for `-v`, `doctor` and `sources[]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceReport {
    /// The source: `netns`, `sock_diag`, `procfs owners`, `rtnetlink`, `Docker API`.
    pub name: String,
    /// Whether everything asked of it could be read.
    pub ok: bool,
    /// Why not.
    pub reason: Option<String>,
    /// What would give it.
    pub remedy: Option<String>,
    /// The command that the remedy ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// What was read, for `-v`: `3 namespaces, 412 sockets`.
    pub detail: String,
    /// How many network namespaces were found, of the source that looks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<usize>,
}
