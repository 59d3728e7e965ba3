//! What `wait` and `free` print.

use schemars::JsonSchema;
use serde::Serialize;

use crate::wait;
use whereis_port_model as model;

use super::{Gap, Netns, Proto, SCHEMA_VERSION, TOOL_VERSION};

/// What `whereis-port wait --json` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct WaitDocument<'a> {
    /// The version of this document's structure.
    pub schema_version: u32,
    /// The version of the tool that wrote it.
    pub tool_version: &'a str,
    /// Whether what was waited for has come.
    pub satisfied: bool,
    /// How long was waited, in milliseconds.
    pub waited_ms: u64,
    /// Each target, in their order.
    pub waits: Vec<Wait<'a>>,
}

/// How it is with one target.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Wait<'a> {
    /// The target, as it was typed.
    pub query: &'a str,
    /// Whether it is as was waited for; null when that is not known.
    pub satisfied: Option<bool>,
    /// Why, in short.
    pub text: &'a str,
}

/// The document for a wait.
pub fn waited<'a>(document: &wait::WaitReport<'a>) -> WaitDocument<'a> {
    let one = |waited: &'a wait::Waited| Wait {
        query: &waited.query,
        satisfied: waited.is_so,
        text: &waited.text,
    };
    WaitDocument {
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        satisfied: document.is_so(),
        waited_ms: u64::try_from(document.took.as_millis()).unwrap_or(u64::MAX),
        waits: document.waited.iter().map(one).collect(),
    }
}

/// What `whereis-port free --json` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FreeDocument<'a> {
    /// The version of this document's structure.
    pub schema_version: u32,
    /// The version of the tool that wrote it.
    pub tool_version: &'a str,
    /// Where they were looked for.
    pub netns: Netns<'a>,
    /// The lowest port that was looked at.
    pub first_port: u16,
    /// The highest port that would have been looked at.
    pub last_port: u16,
    /// For which protocol; null for both.
    pub proto: Option<Proto>,
    /// The ports.
    pub free_ports: Vec<u16>,
    /// Whether they are held while this is read.
    pub held: bool,
    /// How many ports were passed over, and why.
    pub passed: Vec<PassedOver>,
    /// What could not be read.
    pub gaps: Vec<Gap<'a>>,
}

/// Ports that were passed over for one reason.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PassedOver {
    /// The reason.
    pub code: Passed,
    /// How many.
    pub count: usize,
}

/// Why a port is not proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Passed {
    /// The kernel gives it to whoever asks for none.
    Ephemeral,
    /// It is reserved for somebody.
    Reserved,
    /// It is of those that Kubernetes takes for Services.
    NodePort,
    /// It needs a capability that is not there.
    Privileged,
    /// A socket has it, in whatever state.
    InUse,
    /// A container publishes it.
    Published,
    /// Packet rules or a balancer take it.
    TakenByRules,
    /// Whether it is free is not known.
    NotKnown,
    /// It was found to be taken when it was to be held.
    Lost,
}

impl From<model::SkipReason> for Passed {
    fn from(passed: model::SkipReason) -> Self {
        match passed {
            model::SkipReason::Ephemeral => Self::Ephemeral,
            model::SkipReason::Reserved => Self::Reserved,
            model::SkipReason::NodePort => Self::NodePort,
            model::SkipReason::Privileged => Self::Privileged,
            model::SkipReason::InUse => Self::InUse,
            model::SkipReason::Published => Self::Published,
            model::SkipReason::TakenByRules => Self::TakenByRules,
            model::SkipReason::NotKnown => Self::NotKnown,
            model::SkipReason::Lost => Self::Lost,
        }
    }
}

/// The document for ports that are free.
pub fn free(free: &model::FreePorts, held: bool) -> FreeDocument<'_> {
    let passed = |(why, count): &(model::SkipReason, usize)| PassedOver {
        code: (*why).into(),
        count: *count,
    };
    FreeDocument {
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        netns: (&free.netns).into(),
        first_port: free.range.first.0,
        last_port: free.range.last.0,
        proto: free.proto.map(Into::into),
        free_ports: free.ports.iter().map(|port| port.0).collect(),
        held,
        passed: free.passed.iter().map(passed).collect(),
        gaps: free.gaps.iter().map(Into::into).collect(),
    }
}
