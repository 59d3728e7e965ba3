//! Why a node did not answer, in words.

use std::time::Duration;

use crate::{Command, spoken_ms};

/// The kinds of reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// No agent's pod is on the node.
    NoAgent,
    /// The agent's pod is not ready.
    NotReady,
    /// The API refuses it to this user.
    Forbidden,
    /// No answer came in time.
    Timeout,
    /// The answer was longer than is read.
    TooLong,
    /// The connection ended before the answer was complete.
    Cut,
    /// The agent speaks another version of the answer's format.
    OtherVersion,
    /// What it printed is no answer.
    NotAnAnswer,
    /// The agent failed, and said why.
    Failed,
    /// The API did not get through to the agent.
    Unreachable,
}

/// Why a node did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFailure {
    /// The kind of reason.
    pub kind: FailureKind,
    /// Why, in words.
    pub reason: String,
    /// What would help.
    pub remedy: Option<String>,
    /// The command that this ends with.
    pub command: Option<Command>,
}

impl NodeFailure {
    /// Of this kind, for this reason.
    pub fn new(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), remedy: None, command: None }
    }

    /// With what would help.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// With the command that this ends with.
    #[must_use]
    pub fn command(mut self, command: Command) -> Self {
        self.command = Some(command);
        self
    }

    /// No answer within `limit`.
    pub fn timeout(limit: Duration) -> Self {
        Self::new(
            FailureKind::Timeout,
            format!(
                "no complete answer within {}",
                spoken_ms(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
            ),
        )
        .remedy("allow more with --timeout")
    }

    /// More than `limit` bytes.
    pub fn too_long(limit: u64) -> Self {
        Self::new(FailureKind::TooLong, format!("its answer is longer than {} MB", limit >> 20))
            .remedy("ask for fewer ports at once")
    }

    /// What the API said instead of running the tool: HTTP status and message.
    pub fn of_status(code: u16, message: &str, verb: &str, what: &str) -> Self {
        match code {
            401 => Self::new(
                FailureKind::Forbidden,
                format!("the API does not know who asks (401): {message}"),
            )
            .remedy("renew the credentials of this kubeconfig context"),
            403 => {
                Self::new(FailureKind::Forbidden, format!("the API refuses it (403): {message}"))
                    .remedy(format!("a role that allows the verb {verb} on {what}"))
            }
            404 => Self::new(FailureKind::NotReady, format!("the pod is gone (404): {message}"))
                .remedy("ask again when its successor is ready"),
            code => Self::new(
                FailureKind::Unreachable,
                format!("the API did not get through to the agent ({code}): {message}"),
            ),
        }
    }
}
