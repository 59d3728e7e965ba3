//! Load balancers that are no rules: IPVS, and Cilium's maps.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::NetnsId;

/// An address and port that a load balancer takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontend {
    /// The namespace whose traffic it takes.
    pub netns: NetnsId,
    /// Who balances.
    pub balancer: Balancer,
    /// IP protocol number: 6, 17, 132; `None` takes all of them.
    pub proto: Option<u8>,
    /// The address; unspecified for Cilium's entries that stand for every address
    /// of the node, and for an IPVS service by mark, of which it tells the version of IP.
    /// `None` where that is not known.
    pub address: Option<IpAddr>,
    /// The port, host byte order; 0 takes all ports.
    pub port: u16,
    /// The mark that selects an IPVS service.
    pub mark: Option<u32>,
    /// What kind of service Kubernetes has made of it, as Cilium's flags tell.
    pub kind: Option<FrontendKind>,
    /// `external` or `internal` traffic only (Cilium's scopes).
    pub scope: Option<FrontendScope>,
    /// The scheduler, or Cilium's algorithm: `rr`, `random`, `maglev`.
    pub scheduler: Option<String>,
    /// Session affinity, in seconds.
    pub affinity: Option<u32>,
    /// The balancer's own number for it (Cilium's `rev_nat_index`).
    pub id: Option<u32>,
    /// The port of the local proxy that serves it instead of backends (Cilium L7).
    pub proxy_port: Option<u16>,
    /// Which clients from outside it takes, where not all (`loadBalancerSourceRanges`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<SourceRanges>,
    /// The other flags that are set, for people: `local`, `source-range`, `dsr`,
    /// `not-routable`.
    pub flags: Vec<String>,
    /// Where it leads.
    pub backends: Vec<Server>,
    /// `namespace/name:port`, where the balancer's owner tells it. Untrusted.
    pub name: Option<String>,
    /// Where it was read, for the evidence.
    pub source: String,
}

/// Clients that are told apart by their address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRanges {
    /// Whether these are kept out; else all others are.
    pub deny: bool,
    /// Addresses, each with the length of its prefix in bits.
    pub ranges: Vec<(IpAddr, u8)>,
}

/// Who balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balancer {
    /// The kernel's IPVS: after INPUT's filters, or at OUTPUT.
    Ipvs,
    /// Cilium's programs: before any rule.
    Cilium,
}

/// The kinds that Cilium tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of Kubernetes")]
pub enum FrontendKind {
    ClusterIp,
    NodePort,
    ExternalIp,
    HostPort,
    LoadBalancer,
    LocalRedirect,
}

/// Whose traffic a frontend takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrontendScope {
    /// Of clients outside the cluster.
    External,
    /// Of clients in the cluster.
    Internal,
}

/// One server behind a frontend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Address and port.
    pub to: SocketAddr,
    /// IPVS: its weight; 0 takes no new connections.
    pub weight: Option<u32>,
    /// Whether it takes new connections.
    pub active: bool,
    /// Its state, if it is not simply active: `terminating`, `quarantined`, `maintenance`.
    pub state: Option<String>,
    /// IPVS: how packets get there: `masq`, `route`, `tunnel`, `local`.
    pub method: Option<String>,
    /// Connections now open.
    pub connections: Option<u32>,
}
