//! The connections on the ports of a question.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use whereis_port_model as model;

use super::{Netns, Proto};

/// How many connections are open on the ports of a question, as conntrack knows
/// them now.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Flows<'a> {
    /// How many go on: sent to the port, or served by it. One that several
    /// namespaces track on its way counts once. A gap with the impact `flow` says
    /// where there are more than were counted.
    pub open: usize,
    /// From how many addresses.
    pub peers: usize,
    /// How many of them have not been answered yet.
    pub unanswered: usize,
    /// Who serves how many of them, the most first.
    pub to: Vec<FlowsTo>,
    /// In which namespaces how many are tracked.
    pub namespaces: Vec<FlowsIn<'a>>,
    /// Each one, in every namespace, those that have just ended included; null
    /// without `--flows`.
    pub connections: Option<Vec<Flow<'a>>>,
    /// The clients, those who send and get most first; null without `--flows`.
    pub clients: Option<Vec<FlowClient<'a>>>,
}

/// A client, with all of its connections that go on.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FlowClient<'a> {
    /// The address that it connects from.
    pub address: IpAddr,
    /// Who that is; null where it is not on this node.
    pub party: Option<Party<'a>>,
    /// How many connections it has.
    pub connections: usize,
    /// What was sent on them; null where the kernel does not count.
    pub counts: Option<FlowCounts>,
}

/// Who is at one end of a connection, as far as this node knows.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Party<'a> {
    /// The network namespace, as people know it.
    pub netns: &'a str,
    /// The id of the process that has the socket; null where that could not be read.
    pub pid: Option<u32>,
    /// Its name.
    pub process: Option<&'a str>,
    /// Its container.
    pub container: Option<&'a str>,
    /// Its pod, `namespace/name`.
    pub pod: Option<&'a str>,
}

/// What was sent of a connection, as conntrack counts it, with the headers of IP.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct FlowCounts {
    /// Packets by who began it.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets of the answers.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
}

impl<'a> From<&'a model::Party> for Party<'a> {
    fn from(party: &'a model::Party) -> Self {
        Self {
            netns: &party.netns,
            pid: party.process.as_ref().map(|(pid, _)| *pid),
            process: party.process.as_ref().map(|(_, name)| name.as_str()),
            container: party.container.as_deref(),
            pod: party.pod.as_deref(),
        }
    }
}

impl From<model::FlowCounts> for FlowCounts {
    fn from(counts: model::FlowCounts) -> Self {
        let model::FlowCounts { sent_packets, sent_bytes, received_packets, received_bytes } =
            counts;
        Self { sent_packets, sent_bytes, received_packets, received_bytes }
    }
}

/// How many connections somebody serves.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FlowsTo {
    /// The server's address, after NAT.
    pub address: IpAddr,
    /// The server's port, after NAT.
    pub port: u16,
    /// How many.
    pub connections: usize,
}

/// How many open connections a namespace tracks.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FlowsIn<'a> {
    /// The namespace.
    pub netns: Netns<'a>,
    /// How many.
    pub open: usize,
}

/// One connection, as one namespace tracks it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Flow<'a> {
    /// The namespace.
    pub netns: Netns<'a>,
    /// The protocol.
    pub proto: Proto,
    /// Who began it.
    pub source: FlowEnd,
    /// What it was sent to, before NAT.
    pub destination: FlowEnd,
    /// Who serves it: the destination after NAT.
    pub served_by: FlowEnd,
    /// Whom the server sees: the source after NAT.
    pub seen_as: FlowEnd,
    /// TCP's state as conntrack names it, in lower case; null for UDP.
    pub state: Option<&'a str>,
    /// Whether it has been answered.
    pub answered: bool,
    /// The zone, 0 without one.
    pub zone: u16,
    /// Seconds until it is forgotten if nothing more is sent; null when it is not
    /// told.
    pub timeout: Option<u32>,
    /// Who began it; null where that is not on this node.
    pub client: Option<Party<'a>>,
    /// Who serves it; null where that is not on this node.
    pub server: Option<Party<'a>>,
    /// What was sent so far; null where the kernel does not count
    /// (`net.netfilter.nf_conntrack_acct`).
    pub counts: Option<FlowCounts>,
}

/// One end of a connection.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FlowEnd {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

impl From<std::net::SocketAddr> for FlowEnd {
    fn from(end: std::net::SocketAddr) -> Self {
        Self { address: end.ip(), port: end.port() }
    }
}

impl<'a> From<&'a model::Flows> for Flows<'a> {
    fn from(flows: &'a model::Flows) -> Self {
        let to = flows.to.iter().map(|to| FlowsTo {
            address: to.server.ip(),
            port: to.server.port(),
            connections: to.connections,
        });
        let place = |(netns, open): &'a (model::NetnsRef, usize)| FlowsIn {
            netns: netns.into(),
            open: *open,
        };
        Self {
            open: flows.open,
            peers: flows.peers,
            unanswered: flows.unanswered,
            to: to.collect(),
            namespaces: flows.places.iter().map(place).collect(),
            connections: flows
                .each
                .as_ref()
                .map(|each| each.iter().map(|one| flow(flows, one)).collect()),
            clients: flows.clients.as_ref().map(|all| all.iter().map(Into::into).collect()),
        }
    }
}

fn flow<'a>(
    flows: &'a model::Flows,
    (netns, flow): &'a (model::NetnsRef, model::Flow),
) -> Flow<'a> {
    let party = |end| flows.parties.get(&(flow.netns, end)).map(Into::into);
    Flow {
        netns: netns.into(),
        proto: flow.proto.into(),
        source: flow.source.into(),
        destination: flow.destination.into(),
        served_by: flow.served_by.into(),
        seen_as: flow.seen_as.into(),
        state: flow.state.as_deref(),
        answered: flow.answered,
        zone: flow.zone,
        timeout: flow.timeout,
        client: party(flow.source),
        server: party(flow.served_by),
        counts: flow.counts.map(Into::into),
    }
}

impl<'a> From<&'a model::FlowClient> for FlowClient<'a> {
    fn from(client: &'a model::FlowClient) -> Self {
        Self {
            address: client.address,
            party: client.party.as_ref().map(Into::into),
            connections: client.connections,
            counts: client.counts.map(Into::into),
        }
    }
}
