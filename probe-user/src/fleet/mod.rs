//! A whole cluster: asks every node through its agent, and puts the answers together.
//!
//! An agent is a pod that waits; [`manifest`] makes them. The client chooses one for each
//! node ([`choose`]), runs the one-shot in it through the API's exec ([`ask`], the only part
//! that does I/O), reads what it printed ([`read_output`]), and merges what is the same on
//! many nodes ([`merge`]).

mod ask;
mod choose;
mod failure;
mod manifest;
mod merge;
mod read;

pub use ask::{AskProgress, FleetLimits, ask};
pub use choose::{Agent, NodeFacts, PodFacts, choose};
pub use failure::{FailureKind, NodeFailure};
pub use manifest::{CONTAINER, IMAGE, NAMESPACE, SELECTOR, check_namespace, manifest};
pub use merge::{Merged, MergedAnswer, MergedPort, UnsureNode, merge};
pub use read::{NodeAnswer, NodeReply, PathEnd, PortPath, RunOutput, read_output};

use std::net::IpAddr;

use crate::model::{Query, Scope};

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
    use crate::cli::{HostNames, parse_target};

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
