//! What a whole cluster says: the answer of each node, and all of them put together.

mod failure;
mod merge;

pub use failure::{FailureKind, NodeFailure};
pub use merge::{Merged, MergedAnswer, MergedPort, UnsureNode, merge};

use std::net::IpAddr;

use crate::{Ending, Proto, Query, Scope, Service, Verdict};

/// What one node said, or why it said nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The node's name in the API.
    pub node: String,
    /// The pod that was asked.
    pub pod: Option<String>,
    /// What came of it.
    pub outcome: Result<NodeAnswer, NodeFailure>,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// Everything that was asked of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fleet {
    /// One for each node that is known of, by name.
    pub reports: Vec<Report>,
    /// Why nodes without an agent can't be named, when the API did not list nodes.
    pub nodes_unknown: Option<NodeFailure>,
}

impl Fleet {
    /// Whether every node of the cluster gave an answer.
    pub fn is_whole(&self) -> bool {
        self.nodes_unknown.is_none()
            && !self.reports.is_empty()
            && self.reports.iter().all(|report| report.outcome.is_ok())
    }
}

/// What a node said.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeAnswer {
    /// The version of its agent.
    pub tool_version: String,
    /// One for each question, in their order.
    pub said: Vec<NodeReply>,
}

/// What a node answered to one question.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeReply {
    /// Whether something is there.
    pub verdict: Verdict,
    /// Where the port leads.
    pub ways: Vec<PortPath>,
    /// How many ways more there were than are kept.
    pub cut: usize,
    /// What could not be read there.
    pub gaps: Vec<String>,
}

/// One path from a port, as a node told it.
#[derive(Debug, Clone, PartialEq)]
pub struct PortPath {
    /// The protocol.
    pub proto: Proto,
    /// The port that was asked for.
    pub port: u16,
    /// Whether packet rules or a balancer take it; else a socket does.
    pub by_rules: bool,
    /// What takes it there, in words of the agent.
    pub taken_by: String,
    /// The Service.
    pub service: Option<Service>,
    /// What is at the end.
    pub backend: PathEnd,
}

/// What is at the end of a path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PathEnd {
    /// `address:port`, of what is not on every address.
    pub address: Option<String>,
    /// What kind of end.
    pub ending: Ending,
    /// Why it ends so.
    pub why: Option<String>,
    /// The process's name.
    pub process: Option<String>,
    /// The innermost container's name.
    pub container: Option<String>,
    /// Its image.
    pub image: Option<String>,
    /// The pod's namespace.
    pub pod_namespace: Option<String>,
    /// The pod's name.
    pub pod: Option<String>,
    /// What made the pod: `DaemonSet/kube-proxy`.
    pub pod_owner: Option<String>,
    /// Which part of Kubernetes it is.
    pub component: Option<String>,
    /// The systemd unit.
    pub unit: Option<String>,
}

/// How `query` is put to an agent: in numbers, for a name of a service may mean
/// nothing where the agent is.
pub fn target(query: &Query) -> String {
    let (first, last) = (query.ports.first.0, query.ports.last.0);
    let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
    let address = match query.scope {
        Scope::Everywhere => String::new(),
        Scope::Address(IpAddr::V4(address)) => format!("{address}:"),
        Scope::Address(IpAddr::V6(address)) => format!("[{address}]:"),
    };
    let proto = query.proto.map_or_else(String::new, |proto| format!("/{proto}"));
    format!("{address}{ports}{proto}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{HostNames, parse_target};

    #[test]
    fn a_target_is_understood_by_the_agent_as_it_was_here() {
        let services = "https 443/tcp\n".to_owned();
        let names = HostNames { services, ..HostNames::default() };
        for (typed, sent) in [
            ("30518", "30518"),
            ("https/tcp", "443/tcp"),
            ("8000-8010/udp", "8000-8010/udp"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80/tcp", "[::1]:80/tcp"),
            ("0.0.0.0:80", "0.0.0.0:80"),
        ] {
            let query = parse_target(typed, &names).unwrap().remove(0);
            assert_eq!(target(&query), sent);
            let again = parse_target(sent, &HostNames::default()).unwrap().remove(0);
            assert_eq!(
                (again.ports, again.proto, again.scope),
                (query.ports, query.proto, query.scope)
            );
        }
    }
}
