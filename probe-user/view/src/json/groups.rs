//! Paths of an answer that are alike.

use schemars::JsonSchema;
use serde::Serialize;

use whereis_port_model as model;

use super::{Ending, Netns, Proto, WorkloadKind};

/// Paths that are alike: the same port leads to the same program of the same workload, or ends in
/// the same way.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Group<'a> {
    /// The port; null where it is not known.
    pub port: Option<u16>,
    /// The protocol.
    pub proto: Proto,
    /// How they end.
    pub ending: Ending,
    /// The program that serves it; null without a process.
    pub program: Option<&'a str>,
    /// What made what serves it; null where nothing is known to have.
    pub workload: Option<Workload>,
    /// How many paths there are.
    pub count: usize,
    /// Their places in `paths`, from 0.
    pub paths: Vec<usize>,
    /// The namespaces whose port it is.
    pub netns: Vec<Netns<'a>>,
}

/// What made containers or processes that are alike.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Workload {
    /// Its kind.
    pub kind: WorkloadKind,
    /// What it is in: a Kubernetes namespace, a Compose project.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl<'a> From<model::PathGroup<'a>> for Group<'a> {
    fn from(group: model::PathGroup<'a>) -> Self {
        Self {
            port: group.port.map(|port| port.0),
            proto: group.proto.into(),
            ending: group.ending.into(),
            program: group.program,
            workload: group.workload.map(Into::into),
            count: group.paths.len(),
            paths: group.paths,
            netns: group.netns.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<model::Workload> for Workload {
    fn from(workload: model::Workload) -> Self {
        Self { kind: workload.kind.into(), namespace: workload.namespace, name: workload.name }
    }
}
