//! What the tool can't do when the kernel's BTF does not tell a field.

use std::fmt;

/// A part of the tool that needs fields of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::live) enum ProbePart {
    /// The iterator over sockets.
    Sockets,
    /// The iterator over tasks.
    Tasks,
    /// TCP life cycle.
    Listen,
    /// UDP life cycle.
    Bind,
    /// The name of the cgroup in an event.
    Cgroup,
    /// The program on the NAT set-up.
    Nat,
    /// The programs on packets that are dropped.
    Drops,
    /// One fact alone, in words: all else works without it.
    Detail(&'static str),
}

impl ProbePart {
    /// All but details.
    pub(in crate::live) const ALL: [Self; 7] = [
        Self::Sockets,
        Self::Tasks,
        Self::Listen,
        Self::Bind,
        Self::Cgroup,
        Self::Nat,
        Self::Drops,
    ];
}

impl fmt::Display for ProbePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sockets => "sockets with their owners in one pass",
            Self::Tasks => "processes with their namespaces in one pass",
            Self::Listen => "TCP listens and connects as they happen",
            Self::Bind => "UDP binds as they happen",
            Self::Cgroup => "containers of processes that have exited",
            Self::Nat => "NAT as it happens from the kernel's own set-up",
            Self::Drops => "packets that are dropped, with the kernel's reason",
            Self::Detail(words) => words,
        })
    }
}

/// A field that the BTF does not give, and what can't be done without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::live) struct MissingField {
    /// What is missing, as a sentence without a full stop.
    pub(in crate::live) reason: String,
    /// What is off without it.
    pub(in crate::live) parts: Vec<ProbePart>,
}

impl MissingField {
    /// Whether nothing but details is off without it.
    pub(in crate::live) fn is_detail(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, ProbePart::Detail(_) | ProbePart::Cgroup))
    }
}

impl fmt::Display for MissingField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; off without it: ", self.reason)?;
        for (number, part) in self.parts.iter().enumerate() {
            write!(f, "{}{part}", if number > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}
