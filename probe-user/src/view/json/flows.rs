//! The connections on the ports of a question.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::model;

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
            connections: flows.each.as_ref().map(|each| each.iter().map(Into::into).collect()),
        }
    }
}

impl<'a> From<&'a (model::NetnsRef, model::Flow)> for Flow<'a> {
    fn from((netns, flow): &'a (model::NetnsRef, model::Flow)) -> Self {
        Self {
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
        }
    }
}
