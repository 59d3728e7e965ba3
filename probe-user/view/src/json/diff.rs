//! What is different between two times.

use schemars::JsonSchema;
use serde::Serialize;

use crate::diff::words;
use whereis_port_model as model;

use super::{ChangeKind, Proto, SCHEMA_VERSION, TOOL_VERSION, Vantage};

/// What `whereis-port diff --json` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DiffDocument<'a> {
    /// The version of this document's structure.
    pub schema_version: u32,
    /// The version of the tool that wrote it.
    pub tool_version: &'a str,
    /// What was: the node's name, and when.
    pub before: DiffSide<'a>,
    /// What is.
    pub after: DiffSide<'a>,
    /// Each change. `restarted` is no difference.
    pub changes: Vec<Change<'a>>,
    /// Whether all that decides could be read on both sides.
    pub complete: bool,
}

/// One of two times.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DiffSide<'a> {
    /// The node's name.
    pub hostname: &'a str,
    /// When, in seconds since the epoch.
    pub taken_at: u64,
    /// How many ports it had.
    pub ports: usize,
    /// What could not be read.
    pub not_known: &'a [String],
}

/// A change of one port.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Change<'a> {
    /// What kind of change.
    pub kind: ChangeKind,
    /// The namespace, by name, or else its inode number.
    pub netns: &'a str,
    /// The protocol.
    pub proto: Proto,
    /// The port.
    pub port: u16,
    /// Whose it is now, or was, as a policy names it.
    pub owner: Option<&'a str>,
    /// From where, of a change of who gets to it.
    pub from: Option<Vantage>,
    /// What was.
    pub before: Option<&'a str>,
    /// What is.
    pub after: Option<&'a str>,
    /// Whether it is surely so: else what could not be read on one side may be why.
    pub sure: bool,
    /// All of it in words.
    pub text: String,
}

/// The document for what is different.
pub fn diff<'a>(
    difference: &'a model::Difference,
    before: &'a model::Baseline,
    after: &'a model::Baseline,
) -> DiffDocument<'a> {
    let side = |one: &'a model::Baseline| DiffSide {
        hostname: &one.hostname,
        taken_at: one.taken_at,
        ports: one.ports.len(),
        not_known: &one.not_known,
    };
    DiffDocument {
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        before: side(before),
        after: side(after),
        changes: difference.changes.iter().map(change).collect(),
        complete: !difference.is_unsure(),
    }
}

fn change(change: &model::Change) -> Change<'_> {
    Change {
        kind: change.kind.into(),
        netns: &change.netns,
        proto: change.proto.into(),
        port: change.port.0,
        owner: change.owner.as_deref(),
        from: change.from.map(Into::into),
        before: change.before.as_deref(),
        after: change.after.as_deref(),
        sure: change.sure,
        text: words(change),
    }
}
