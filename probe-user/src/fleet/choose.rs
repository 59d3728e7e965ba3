//! Which pod is asked for which node.

use std::collections::{BTreeMap, BTreeSet};

use super::{FailureKind, NodeFailure};
use crate::model::Command;

/// What matters of an agent's pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// The node that it is bound to.
    pub node: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub ending: bool,
    /// Why it is not ready: a container's state, or the pod's phase.
    pub why: Option<String>,
}

/// What matters of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Whether it says that it is ready.
    pub ready: bool,
}

/// A node's agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Agent {
    /// The node.
    pub node: String,
    /// The pod.
    pub pod: String,
}

/// One agent for each node that has a ready one, and why the others have none.
/// Both are sorted by node.
pub fn choose(pods: &[PodFacts], nodes: &[NodeFacts]) -> (Vec<Agent>, Vec<(String, NodeFailure)>) {
    let mut by_node: BTreeMap<&str, Vec<&PodFacts>> = BTreeMap::new();
    for pod in pods {
        if let Some(node) = &pod.node {
            by_node.entry(node).or_default().push(pod);
        }
    }
    let ready: BTreeMap<&str, bool> =
        nodes.iter().map(|node| (node.name.as_str(), node.ready)).collect();
    // A pod's node may be missing in the list: nodes come and go, or could not be listed.
    let names: BTreeSet<&str> = ready.keys().chain(by_node.keys()).copied().collect();
    let (mut agents, mut without) = (Vec::new(), Vec::new());
    for node in names {
        let pods = by_node.get(node).map(Vec::as_slice).unwrap_or_default();
        // While agents are replaced there may be two: one that is not ending is asked.
        let usable = pods.iter().filter(|pod| pod.ready);
        match usable.min_by_key(|pod| (pod.ending, &pod.name)) {
            Some(pod) => {
                agents.push(Agent { node: node.to_owned(), pod: pod.name.clone() });
            }
            None => without.push((node.to_owned(), why_not(pods, ready.get(node).copied()))),
        }
    }
    (agents, without)
}

fn why_not(pods: &[&PodFacts], node_ready: Option<bool>) -> NodeFailure {
    let down = node_ready == Some(false);
    let Some(pod) = pods.iter().min_by_key(|pod| (pod.ending, &pod.name)) else {
        let also = if down { ", and the node is not ready" } else { "" };
        return NodeFailure::new(FailureKind::NoAgent, format!("no agent's pod is on it{also}"))
            .remedy("whereis-port cluster manifest | kubectl apply -f -, or see why the DaemonSet leaves it out");
    };
    let why = match &pod.why {
        _ if down => ": the node is not ready".to_owned(),
        Some(why) => format!(": {why}"),
        None => String::new(),
    };
    NodeFailure::new(FailureKind::NotReady, format!("its agent {} is not ready{why}", pod.name))
        .remedy("see")
        .command(Command::new("kubectl describe pod").name(&pod.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, ready: bool) -> PodFacts {
        PodFacts { name: name.into(), node: Some(node.into()), ready, ..PodFacts::default() }
    }

    fn node(name: &str, ready: bool) -> NodeFacts {
        NodeFacts { name: name.into(), ready }
    }

    #[test]
    fn every_node_has_an_agent_or_a_reason() {
        let mut pulling = pod("p2", "b", false);
        pulling.why = Some("ImagePullBackOff".into());
        let unbound = PodFacts { name: "p9".into(), ..PodFacts::default() };
        let pods = [pulling, pod("p1", "a", true), pod("p4", "d", false), unbound];
        let nodes = [node("a", true), node("b", true), node("c", true), node("d", false)];
        let (agents, without) = choose(&pods, &nodes);
        assert_eq!(agents, [Agent { node: "a".into(), pod: "p1".into() }]);
        let said: Vec<_> = without
            .iter()
            .map(|(node, why)| (node.as_str(), why.kind, why.reason.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                ("b", FailureKind::NotReady, "its agent p2 is not ready: ImagePullBackOff"),
                ("c", FailureKind::NoAgent, "no agent's pod is on it"),
                ("d", FailureKind::NotReady, "its agent p4 is not ready: the node is not ready"),
            ]
        );
    }

    #[test]
    fn nodes_that_could_not_be_listed_are_known_by_their_pods() {
        let (agents, without) = choose(&[pod("p", "x", true)], &[]);
        assert_eq!(agents.len(), 1);
        assert!(without.is_empty());
    }

    #[test]
    fn of_two_agents_the_one_that_stays_is_asked() {
        let mut old = pod("a-old", "n", true);
        old.ending = true;
        let pods = [old, pod("b-new", "n", true), pod("c-new", "n", true)];
        let (agents, _) = choose(&pods, &[node("n", true)]);
        assert_eq!(agents, [Agent { node: "n".into(), pod: "b-new".into() }]);
    }
}
