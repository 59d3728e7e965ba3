//! What is wrong with a listener, or with who should accept its connections.

use serde::{Deserialize, Serialize};

use super::{AcceptQueue, NetnsRef, Process, Socket};

/// How a process is, as the kernel sees it. What is not known is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessHealth {
    /// Whether it runs (field 3 of `/proc/PID/stat`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ProcessState>,
    /// Whether its cgroup is frozen (`cgroup.events` of cgroup v2, `freezer.state` of v1), as
    /// `docker pause` does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<bool>,
    /// Whether the file that it runs is gone from where it was: removed or replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_deleted: Option<bool>,
}

impl ProcessHealth {
    /// Whether nothing of it is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// It does, or could: it runs, sleeps, or waits for a device.
    Running,
    /// It was stopped by a signal.
    Stopped,
    /// A debugger stopped it.
    Traced,
    /// Its first thread has ended, and others go on: tools that read `/proc/PID/fd` see nothing.
    LeaderEnded,
}

/// What is wrong with a listener. The first of several is the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ailment {
    /// Everybody who has it is frozen.
    Frozen,
    /// Everybody who has it was stopped by a signal.
    Stopped,
    /// Everybody who has it was stopped by a debugger.
    Traced,
    /// No more connections fit into its queue.
    QueueFull,
    /// The first thread of who most likely accepts has ended.
    LeaderEnded,
    /// The program of who most likely accepts is gone from where it was.
    ProgramDeleted,
}

impl Ailment {
    /// What is wrong with a socket and those who have it, the likely acceptor first.
    pub fn of(socket: &Socket, processes: &[Process]) -> Vec<Self> {
        let every = |is: fn(&ProcessHealth) -> bool| {
            !processes.is_empty() && processes.iter().all(|process| is(&process.health))
        };
        let stopped = |health: &ProcessHealth| health.state == Some(ProcessState::Stopped);
        let traced = |health: &ProcessHealth| health.state == Some(ProcessState::Traced);
        let first = processes.first().map(|process| process.health).unwrap_or_default();
        [
            (Self::Frozen, every(|health| health.frozen == Some(true))),
            (Self::Stopped, every(stopped)),
            (Self::Traced, every(traced)),
            (Self::QueueFull, socket.queue.is_some_and(AcceptQueue::is_full)),
            (Self::LeaderEnded, first.state == Some(ProcessState::LeaderEnded)),
            (Self::ProgramDeleted, first.program_deleted == Some(true)),
        ]
        .into_iter()
        .filter_map(|(ailment, is_so)| is_so.then_some(ailment))
        .collect()
    }

    /// Whether who connects gets no answer, as long as it is so.
    pub fn keeps_waiting(self) -> bool {
        matches!(self, Self::Frozen | Self::Stopped | Self::Traced | Self::QueueFull)
    }

    /// In a word or two.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Stopped => "stopped",
            Self::Traced => "stopped by a debugger",
            Self::QueueFull => "queue full",
            Self::LeaderEnded => "first thread ended",
            Self::ProgramDeleted => "program deleted",
        }
    }
}

/// How many connections the listeners of a namespace did not take since it was made. What could
/// not be read is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenDrops {
    /// The namespace.
    pub netns: NetnsRef,
    /// Because a queue was full.
    pub overflows: Option<u64>,
    /// For any reason, the former included.
    pub drops: Option<u64>,
}
