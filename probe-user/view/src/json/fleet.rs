//! The lines of `cluster`: one object each, told apart by their `type`.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use whereis_port_model::fleet;

use super::{Ending, Proto, SCHEMA_VERSION, Service, TOOL_VERSION, Verdict};

/// The `type` of a node's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeType {
    /// What one node said.
    Node,
}

/// The `type` of the last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClusterType {
    /// What all nodes said.
    Cluster,
}

/// What one node said, a line of `whereis-port cluster --json`, in the order in which
/// nodes answer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NodeLine<'a> {
    /// `node`.
    pub r#type: NodeType,
    /// The node.
    #[serde(flatten)]
    pub node: FleetNode<'a>,
    /// What it said to each question; null when it did not answer.
    pub answers: Option<Vec<NodeSaid<'a>>>,
}

/// A node of the cluster, and what came of asking it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FleetNode<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The agent's pod.
    pub pod: Option<&'a str>,
    /// Whether it answered.
    pub answered: bool,
    /// Why it did not.
    pub failure: Option<FleetFailure<'a>>,
    /// The version of its agent.
    pub tool_version: Option<&'a str>,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// Why a node did not answer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FleetFailure<'a> {
    /// The kind of reason.
    pub kind: FailureKind,
    /// Why.
    pub reason: &'a str,
    /// What would help.
    pub remedy: Option<Cow<'a, str>>,
    /// The command in it, where there are names in it: a program and its arguments.
    pub remedy_command: Option<&'a [String]>,
}

/// Kinds of reason for which a node does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
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
    /// The answer ended too early.
    Cut,
    /// The agent speaks another version of the format.
    OtherVersion,
    /// What it printed is no answer.
    NotAnAnswer,
    /// The agent failed, and said why.
    Failed,
    /// The API did not get through to the agent.
    Unreachable,
}

impl From<fleet::FailureKind> for FailureKind {
    fn from(kind: fleet::FailureKind) -> Self {
        use fleet::FailureKind as Kind;
        match kind {
            Kind::NoAgent => Self::NoAgent,
            Kind::NotReady => Self::NotReady,
            Kind::Forbidden => Self::Forbidden,
            Kind::Timeout => Self::Timeout,
            Kind::TooLong => Self::TooLong,
            Kind::Cut => Self::Cut,
            Kind::OtherVersion => Self::OtherVersion,
            Kind::NotAnAnswer => Self::NotAnAnswer,
            Kind::Failed => Self::Failed,
            Kind::Unreachable => Self::Unreachable,
        }
    }
}

impl<'a> From<&'a fleet::NodeFailure> for FleetFailure<'a> {
    fn from(failure: &'a fleet::NodeFailure) -> Self {
        Self {
            kind: failure.kind.into(),
            reason: &failure.reason,
            remedy: super::answer::remedy(failure.remedy.as_deref(), failure.command.as_ref()),
            remedy_command: failure.command.as_ref().map(whereis_port_model::Command::words),
        }
    }
}

/// What one node said to one question.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NodeSaid<'a> {
    /// Whether something is there.
    pub verdict: Verdict,
    /// Where the port leads.
    pub ways: Vec<FleetWay<'a>>,
    /// How many ways more there were.
    pub cut: usize,
    /// What could not be read there.
    pub gaps: &'a [String],
}

/// Where a port leads on one node.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FleetWay<'a> {
    /// The protocol.
    pub proto: Proto,
    /// The port.
    pub port: u16,
    /// What takes it there, in words.
    pub taken_by: &'a str,
    /// The Service.
    pub service: Option<Service<'a>>,
    /// What is at the end.
    pub backend: FleetBackend<'a>,
}

/// What is at the end.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FleetBackend<'a> {
    /// `address:port`, where the port leads on to another one.
    pub address: Option<&'a str>,
    /// What kind of end.
    pub ending: Ending,
    /// Why it ends so.
    pub why: Option<&'a str>,
    /// The process's name.
    pub process: Option<&'a str>,
    /// The innermost container's name.
    pub container: Option<&'a str>,
    /// Its image.
    pub image: Option<&'a str>,
    /// The pod's namespace.
    pub pod_namespace: Option<&'a str>,
    /// The pod's name.
    pub pod: Option<&'a str>,
    /// What made the pod.
    pub pod_owner: Option<&'a str>,
    /// Which part of Kubernetes it is.
    pub component: Option<&'a str>,
    /// The systemd unit.
    pub unit: Option<&'a str>,
}

impl<'a> From<&'a fleet::PathEnd> for FleetBackend<'a> {
    fn from(backend: &'a fleet::PathEnd) -> Self {
        Self {
            address: backend.address.as_deref(),
            ending: backend.ending.into(),
            why: backend.why.as_deref(),
            process: backend.process.as_deref(),
            container: backend.container.as_deref(),
            image: backend.image.as_deref(),
            pod_namespace: backend.pod_namespace.as_deref(),
            pod: backend.pod.as_deref(),
            pod_owner: backend.pod_owner.as_deref(),
            component: backend.component.as_deref(),
            unit: backend.unit.as_deref(),
        }
    }
}

/// What all nodes said, the last line of `whereis-port cluster --json`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ClusterLine<'a> {
    /// `cluster`.
    pub r#type: ClusterType,
    /// The version of the structure of all lines.
    pub schema_version: u32,
    /// The version of the tool that writes them.
    pub tool_version: &'a str,
    /// One for each question, in their order.
    pub answers: Vec<FleetAnswer<'a>>,
    /// Every node that is known of, by name.
    pub nodes: Vec<FleetNode<'a>>,
    /// Why nodes without an agent are not known, when nodes could not be listed.
    pub nodes_unknown: Option<FleetFailure<'a>>,
}

/// What all nodes said to one question.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FleetAnswer<'a> {
    /// The question, as it was typed.
    pub query: &'a str,
    /// Over all nodes; `not_found` only when every node of the cluster said so.
    pub verdict: Verdict,
    /// What is behind the port: Services first, then by how many nodes have it.
    pub groups: Vec<FleetGroup<'a>>,
    /// Nodes on which surely nothing is there.
    pub nothing_on: &'a [String],
    /// Nodes that can't tell.
    pub unsure_on: Vec<Unsure<'a>>,
}

/// One thing on one port: a Service, or what is not one.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FleetGroup<'a> {
    /// The protocol.
    pub proto: Proto,
    /// The port.
    pub port: u16,
    /// The Service.
    pub service: Option<Service<'a>>,
    /// What takes the port, in words of most nodes.
    pub taken_by: &'a str,
    /// What nodes say of it, what most of them say first. More than one: nodes differ.
    pub entries: Vec<FleetEntry<'a>>,
    /// Nodes that surely don't have it.
    pub missing_on: &'a [String],
}

/// What some nodes say alike.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FleetEntry<'a> {
    /// The nodes.
    pub nodes: &'a [String],
    /// Where it leads, each as the node says that knows most of it.
    pub backends: Vec<FleetBackend<'a>>,
}

/// A node that can't tell.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Unsure<'a> {
    /// The node.
    pub node: &'a str,
    /// What could not be read there.
    pub why: &'a str,
}

/// The line of one node.
pub fn node_line(report: &fleet::Report) -> NodeLine<'_> {
    let answers = report.outcome.as_ref().ok().map(|answer| answer.said.iter().map(said).collect());
    NodeLine { r#type: NodeType::Node, node: node(report), answers }
}

fn node(report: &fleet::Report) -> FleetNode<'_> {
    let answer = report.outcome.as_ref();
    FleetNode {
        node: &report.node,
        pod: report.pod.as_deref(),
        answered: answer.is_ok(),
        failure: answer.err().map(Into::into),
        tool_version: answer.ok().map(|answer| answer.tool_version.as_str()),
        ms: report.ms,
    }
}

fn said(said: &fleet::NodeReply) -> NodeSaid<'_> {
    NodeSaid {
        verdict: said.verdict.into(),
        ways: said
            .ways
            .iter()
            .map(|one| FleetWay {
                proto: one.proto.into(),
                port: one.port,
                taken_by: &one.taken_by,
                service: one.service.as_ref().map(Into::into),
                backend: (&one.backend).into(),
            })
            .collect(),
        cut: said.cut,
        gaps: &said.gaps,
    }
}

/// The last line.
pub fn cluster_line<'a>(fleet: &'a fleet::Fleet, merged: &'a [fleet::Merged]) -> ClusterLine<'a> {
    ClusterLine {
        r#type: ClusterType::Cluster,
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        answers: merged.iter().map(answer).collect(),
        nodes: fleet.reports.iter().map(node).collect(),
        nodes_unknown: fleet.nodes_unknown.as_ref().map(Into::into),
    }
}

fn answer(merged: &fleet::Merged) -> FleetAnswer<'_> {
    FleetAnswer {
        query: &merged.query,
        verdict: merged.verdict.into(),
        groups: merged.groups.iter().map(group).collect(),
        nothing_on: &merged.nothing,
        unsure_on: merged
            .unsure
            .iter()
            .map(|missing| Unsure { node: &missing.node, why: &missing.why })
            .collect(),
    }
}

fn group(group: &fleet::MergedPort) -> FleetGroup<'_> {
    FleetGroup {
        proto: group.proto.into(),
        port: group.port,
        service: group.service.as_ref().map(Into::into),
        taken_by: &group.taken_by,
        entries: group
            .entries
            .iter()
            .map(|entry| FleetEntry {
                nodes: &entry.nodes,
                backends: entry.backends.iter().map(Into::into).collect(),
            })
            .collect(),
        missing_on: &group.missing,
    }
}
