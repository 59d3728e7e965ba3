//! Whose rules these are, and what they say: Docker, kube-proxy, CNI, netavark, …
//!
//! All of it is read from the names of chains, tables and sets and from comments. None
//! of them proves anything: whoever may write rules may write these names, too.

mod kube;
mod names;

use super::Step;
use crate::model::{RuleVerdict, TableId};

/// What the rules that took a packet mean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meaning {
    /// Who wrote them, in a user's words: `Docker`, `kube-proxy (iptables)`,
    /// `CNI portmap`. `None` for rules written by hand.
    pub by: Option<&'static str>,
    /// What the frontend is: `published port`, `NodePort`, `hostPort`, `cluster IP`.
    pub what: Option<&'static str>,
    /// The Kubernetes service. Untrusted.
    pub service: Option<ServiceName>,
    /// The container or sandbox that the rules name by id. Untrusted.
    pub container_id: Option<String>,
    /// The pod that the rules name: namespace, name. Untrusted.
    pub pod: Option<(String, String)>,
    /// The network or zone that the rules name: `network cbr0`, `zone public`.
    /// Untrusted.
    pub place: Option<String>,
    /// Why there is no backend: `has no endpoints`, `has no local endpoints`.
    pub refused: Option<&'static str>,
    /// The setting of the Service that asks for backends on this node, where there are none:
    /// `internalTrafficPolicy`.
    pub policy: Option<&'static str>,
}

/// A service as rules name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceName {
    /// The namespace of Kubernetes that it is in.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The name of its port, if it has one.
    pub port: Option<String>,
}

/// Why a service has no backend anywhere.
pub const NO_ENDPOINTS: &str = "has no endpoints";
/// Why a service whose traffic policy is `Local` has no backend on this node.
pub const NO_LOCAL_ENDPOINTS: &str = "has no local endpoints";
/// The setting for what comes from outside of the cluster.
pub const EXTERNAL_POLICY: &str = "externalTrafficPolicy";
/// The setting for what comes from pods and nodes to a service's own address.
pub const INTERNAL_POLICY: &str = "internalTrafficPolicy";
/// Where rules do not tell which of the two.
pub const EITHER_POLICY: &str = "internalTrafficPolicy or externalTrafficPolicy";
/// What a service's own address is called.
pub const CLUSTER_IP: &str = "cluster IP";
/// What a NodePort is called.
pub const NODE_PORT: &str = "NodePort";
/// What an external IP of a Service is called.
pub const EXTERNAL_IP: &str = "external IP";
/// What the address of a Service's load balancer is called.
pub const LOAD_BALANCER_IP: &str = "load balancer IP";
/// What a port is called that a container publishes.
pub const PUBLISHED: &str = "published port";
/// What a hostPort of a pod is called.
pub const HOST_PORT: &str = "hostPort";

/// A place that a trail passes: a chain, and the rule or element of it.
struct TrailPoint<'a> {
    table: &'a TableId,
    chain: &'a str,
    comment: Option<&'a str>,
    element: Option<&'a crate::model::Element>,
    /// The set that a map of the rule looks up.
    map: Option<&'a str>,
    /// Where the rule leads.
    next: Option<&'a str>,
    /// Whether the rule is for all addresses of the namespace.
    local: bool,
}

/// What a trail of rules means.
pub fn meaning(trail: &[Step]) -> Meaning {
    let mut meaning = Meaning::default();
    for step in super::text::straight(trail) {
        let mark = mark(step);
        if !kube::read(&mark, &mut meaning) {
            names::read(&mark, &mut meaning);
        }
    }
    meaning
}

fn mark(step: &Step) -> TrailPoint<'_> {
    use crate::model::{Expr, FibResult, XtMatch};
    let rule = step.rule();
    let exprs = rule.map(|rule| rule.exprs.as_slice()).unwrap_or_default();
    let map = exprs.iter().find_map(|expr| match expr {
        Expr::Map { set, .. } => Some(&**set),
        _ => None,
    });
    let said = exprs.iter().find_map(|expr| match expr {
        Expr::Verdict(verdict) => Some(verdict),
        _ => None,
    });
    let chosen = step.element.as_ref().and_then(|element| element.verdict.as_ref());
    let next = match chosen.or(said) {
        Some(RuleVerdict::Jump(chain) | RuleVerdict::Goto(chain)) => Some(&**chain),
        _ => None,
    };
    let local = exprs.iter().any(|expr| match expr {
        Expr::Match(one) => {
            matches!(**one, XtMatch::Addrtype { destination: 4, invert_destination: false, .. })
        }
        Expr::Fib { saddr, result, .. } => !saddr && *result == FibResult::AddrType,
        _ => false,
    });
    TrailPoint {
        table: &step.chain.table,
        chain: &step.chain.name,
        comment: rule.and_then(|rule| rule.comment.as_deref()),
        element: step.element.as_ref(),
        map,
        next,
        local,
    }
}

#[cfg(test)]
mod tests;
