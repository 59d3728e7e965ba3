//! Connections that conntrack knows, and what decides whether packets pass.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{DeviceMode, NetnsId, NetnsRef, Port, PortRange, Proto};

/// A connection that is tracked in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// The namespace.
    pub netns: NetnsId,
    /// The protocol.
    pub proto: Proto,
    /// Who began it.
    pub source: SocketAddr,
    /// What it was sent to, before NAT.
    pub destination: SocketAddr,
    /// Who answers: the destination after NAT.
    pub served_by: SocketAddr,
    /// Whom the server sees: the source after NAT.
    pub seen_as: SocketAddr,
    /// TCP's state as conntrack names it, lower case: `established`, `time_wait`.
    pub state: Option<String>,
    /// Whether the other side has answered.
    pub answered: bool,
    /// The zone, 0 without one.
    pub zone: u16,
    /// Seconds until it is forgotten if nothing more is sent.
    pub timeout: Option<u32>,
    /// What was sent so far; `None` where the kernel does not count
    /// (`net.netfilter.nf_conntrack_acct`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<FlowCounts>,
}

/// What was sent of a connection, as conntrack counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct FlowCounts {
    /// Packets by who began it.
    pub sent_packets: u64,
    /// Their bytes, with the headers of IP and of what is above.
    pub sent_bytes: u64,
    /// Packets of the answers.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
}

impl FlowCounts {
    /// Those of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            sent_packets: self.sent_packets.saturating_add(other.sent_packets),
            sent_bytes: self.sent_bytes.saturating_add(other.sent_bytes),
            received_packets: self.received_packets.saturating_add(other.received_packets),
            received_bytes: self.received_bytes.saturating_add(other.received_bytes),
        }
    }

    /// All bytes.
    pub fn bytes(self) -> u64 {
        self.sent_bytes.saturating_add(self.received_bytes)
    }
}

/// Who is at one end of a connection, as far as this node knows. Names are untrusted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Party {
    /// The namespace, as people know it.
    pub netns: String,
    /// The process that has the socket: its id and name.
    pub process: Option<(super::Pid, String)>,
    /// Its container.
    pub container: Option<String>,
    /// Its pod, `namespace/name`.
    pub pod: Option<String>,
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match (&self.pod, &self.container) {
            (Some(pod), _) => format!("pod {pod}"),
            (None, Some(container)) => format!("container {container}"),
            (None, None) => self.netns.clone(),
        };
        match &self.process {
            Some((pid, name)) => write!(f, "{name}, pid {pid}, in {place}"),
            None => write!(f, "in {place}"),
        }
    }
}

/// A client of the port, with all of its connections that go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowClient {
    /// The address that it connects from.
    pub address: std::net::IpAddr,
    /// Who that is, where it is on this node.
    pub party: Option<Party>,
    /// How many connections it has.
    pub connections: usize,
    /// What was sent on them; `None` where the kernel does not count.
    pub counts: Option<FlowCounts>,
}

impl Flow {
    /// Whether the connection goes on: conntrack remembers for a while those that
    /// have ended.
    pub fn is_open(&self) -> bool {
        !matches!(self.state.as_deref(), Some("time_wait" | "close"))
    }

    /// Whether it was sent to something else than what serves it.
    pub fn is_translated(&self) -> bool {
        self.destination != self.served_by
    }
}

/// Which flows are asked for: those that were sent to these ports, or are served
/// by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FlowFilter {
    /// `None` asks for every protocol.
    pub proto: Option<Proto>,
    /// The ports. The kernel can look for one; of a range it sends everything.
    pub ports: PortRange,
}

impl FlowFilter {
    /// Whether it lets `flow` pass.
    pub fn matches(&self, flow: &Flow) -> bool {
        let asked = |address: SocketAddr| self.ports.contains(Port(address.port()));
        self.proto.is_none_or(|proto| proto == flow.proto)
            && (asked(flow.destination) || asked(flow.served_by))
    }
}

/// The connections on the ports of a question.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flows {
    /// How many go on. One that is tracked in several namespaces on its way counts
    /// once.
    pub open: usize,
    /// From how many addresses.
    pub peers: usize,
    /// How many of them have not been answered yet.
    pub unanswered: usize,
    /// Who serves how many of them, the most first.
    pub to: Vec<FlowsTo>,
    /// In which namespaces how many are tracked.
    pub places: Vec<(NetnsRef, usize)>,
    /// Each of them, in every namespace, those that have ended included; `None`
    /// when that was not asked for.
    pub each: Option<Vec<(NetnsRef, Flow)>>,
    /// Who is at an end of these, by the namespace that tracks it and the address there.
    pub parties: std::collections::BTreeMap<(NetnsId, SocketAddr), Party>,
    /// The clients, those who send and get most first; `None` when that was not asked for.
    pub clients: Option<Vec<FlowClient>>,
}

impl Flows {
    /// Leaves only so many clients, and no connection.
    pub fn only_clients(&mut self, most: usize) {
        self.each = self.each.take().map(|_| Vec::new());
        self.parties.clear();
        if let Some(clients) = &mut self.clients {
            clients.truncate(most);
        }
    }
}

/// How many connections somebody serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowsTo {
    /// The destination after NAT.
    pub server: SocketAddr,
    /// How many.
    pub connections: usize,
}

/// Settings of a namespace that decide whether packets pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetSettings {
    /// The namespace.
    pub netns: NetnsId,
    /// `net.ipv4.ip_forward`.
    pub forward4: Option<bool>,
    /// The devices that do not forward what comes in by them, whatever `forward4` is
    /// (`net.ipv4.conf.*.forwarding`); `None` when that was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unforwarding4: Option<Vec<String>>,
    /// `net.ipv6.conf.all.forwarding`.
    pub forward6: Option<bool>,
    /// `net.ipv4.conf.all.route_localnet`.
    pub route_localnet_all: Option<bool>,
    /// Names of the interfaces with `route_localnet` set.
    pub route_localnet: Vec<String>,
    /// `net.bridge.bridge-nf-call-iptables`; `None` without br_netfilter.
    pub bridge_calls_iptables: Option<bool>,
    /// `net.bridge.bridge-nf-call-ip6tables`; `None` without br_netfilter, or when that was not
    /// read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge_calls_ip6tables: Option<bool>,
    /// The devices that forward IPv6 although `forward6` is off
    /// (`net.ipv6.conf.*.force_forwarding`, Linux 6.17); `None` where that was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_forward6: Option<Vec<String>>,
    /// How many IPsec policies there are; `None` where that was not read, or could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipsec_policies: Option<u32>,
    /// The devices whose reverse path filter is on; `None` when that was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse_path: Option<Vec<DeviceMode>>,
    /// The names of the devices on which it answers for addresses that it leads to
    /// (`net.ipv4.conf.*.proxy_arp`); `None` when that was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_arp: Option<Vec<String>>,
    /// The devices on which it does not answer for all of its addresses
    /// (`net.ipv4.conf.*.arp_ignore`); `None` when that was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arp_ignore: Option<Vec<DeviceMode>>,
}

impl NetSettings {
    /// Whether packets of a version of IP that go over a bridge pass the rules (br_netfilter).
    pub fn filters_bridged(&self, ipv6: bool) -> bool {
        let ip6tables = self.bridge_calls_ip6tables.filter(|_| ipv6);
        ip6tables.or(self.bridge_calls_iptables) == Some(true)
    }
}
