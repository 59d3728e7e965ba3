//! Whose rules these are, and what they say: Docker, kube-proxy, CNI, netavark, …

use super::Step;

/// What the rules that took a packet mean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::resolve) struct Meaning {
    /// Who wrote them, in a user's words: `Docker`, `kube-proxy (iptables)`,
    /// `CNI portmap`. `None` for rules written by hand.
    pub(in crate::resolve) by: Option<&'static str>,
    /// What the frontend is: `published port`, `NodePort`, `hostPort`, `cluster IP`.
    pub(in crate::resolve) what: Option<&'static str>,
    /// The Kubernetes service. Untrusted.
    pub(in crate::resolve) service: Option<ServiceName>,
    /// The container or sandbox that the rules name by id. Untrusted.
    pub(in crate::resolve) container_id: Option<String>,
    /// The pod that the rules name: namespace, name. Untrusted.
    pub(in crate::resolve) pod: Option<(String, String)>,
    /// Why there is no backend: `has no endpoints`, `has no local endpoints`.
    pub(in crate::resolve) refused: Option<&'static str>,
}

/// A service as rules name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::resolve) struct ServiceName {
    pub(in crate::resolve) namespace: String,
    pub(in crate::resolve) name: String,
    /// The name of its port, if it has one.
    pub(in crate::resolve) port: Option<String>,
}

/// What a trail of rules means.
pub(in crate::resolve) fn meaning(_trail: &[Step]) -> Meaning {
    Meaning::default()
}

/// Why a service with `externalTrafficPolicy: Local` has no backend on this node.
pub(in crate::resolve) const NO_LOCAL_ENDPOINTS: &str = "has no local endpoints";
