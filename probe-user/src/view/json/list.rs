//! The rows of a list.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::model;

use super::{Cluster, Container, End, Ending, Netns, Pod, Process, Proto, SocketState};

/// One listener of a list, or a port that only rules or a load balancer take.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Listener<'a> {
    /// What takes the port: `listener`, `kernel`, `dnat` or `service`.
    pub kind: super::HopKind,
    /// The namespace whose port it is.
    pub netns: Netns<'a>,
    /// The protocol.
    pub proto: Proto,
    /// The bound address, exactly as bound; a wildcard for rules that take all addresses.
    pub address: IpAddr,
    /// The bound port.
    pub port: u16,
    /// The socket's state; null without a socket.
    pub state: Option<SocketState>,
    /// `IPV6_V6ONLY`; null for IPv4, and where it is not readable.
    pub v6only: Option<bool>,
    /// The socket's inode number in sockfs; 0 when it has none.
    pub socket_inode: u64,
    /// The user id of who made it; null without a socket.
    pub uid: Option<u32>,
    /// That user's name, when the process that likely accepts runs as that user.
    pub user: Option<&'a str>,
    /// What kind of owner.
    pub ending: Ending,
    /// Why, when it is not simply a process.
    pub why: Option<&'a str>,
    /// The process that likely accepts: the first of `processes`.
    pub process: Option<Process<'a>>,
    /// All processes that hold the listener.
    pub processes: Vec<Process<'a>>,
    /// The innermost container: the last of `containers`.
    pub container: Option<Container<'a>>,
    /// The containers it is in, outermost first.
    pub containers: Vec<Container<'a>>,
    /// The pod.
    pub pod: Option<Pod<'a>>,
    /// The cluster.
    pub cluster: Option<Cluster<'a>>,
    /// Which part of Kubernetes, or of what runs around it, has the port.
    pub component: Option<super::Component<'a>>,
    /// The systemd unit or scope.
    pub unit: Option<&'a str>,
    /// Where connections are passed on to; null when they end here.
    pub target: Option<Target<'a>>,
    /// The targets that rules or a load balancer choose from, `target` first: at most a
    /// few of `target_count`.
    pub targets: Vec<Target<'a>>,
    /// How many targets there are.
    pub target_count: usize,
    /// Whose rules take the port, or which load balancer; null for a plain listener and
    /// for rules written by hand.
    pub taken_by: Option<&'a str>,
    /// The Kubernetes service whose port it is.
    pub service: Option<super::Service<'a>>,
}

impl<'a> From<&'a model::ListRow> for Listener<'a> {
    fn from(row: &'a model::ListRow) -> Self {
        let end = End::from(&*row.end);
        let socket = row.socket.as_ref();
        let target = |endpoint: &'a model::Endpoint| Target {
            address: endpoint.address,
            name: endpoint.name.as_deref(),
            port: endpoint.port.map(|p| p.0),
            detail: row.target_detail.as_deref(),
        };
        Self {
            kind: row.kind.into(),
            netns: (&row.netns).into(),
            proto: row.proto.into(),
            address: row.address,
            port: row.port.0,
            state: socket.map(|s| s.state.into()),
            v6only: socket.and_then(|s| s.v6only),
            socket_inode: socket.map_or(0, |s| s.inode),
            uid: socket.map(|s| s.uid),
            // A process may hold a socket that another user made.
            user: end
                .process
                .as_ref()
                .filter(|p| socket.is_some_and(|s| p.uid == s.uid))
                .and_then(|p| p.user),
            ending: end.ending,
            why: end.why,
            process: end.process,
            processes: end.processes,
            container: end.container,
            containers: end.containers,
            pod: end.pod,
            cluster: end.cluster,
            component: row.component.as_ref().map(Into::into),
            unit: end.unit,
            target: row.target.as_ref().map(target),
            targets: row.target.iter().chain(&row.others).map(target).collect(),
            target_count: usize::from(row.target.is_some()) + row.others.len() + row.more,
            taken_by: row.taken_by.as_deref(),
            service: row.service.as_ref().map(Into::into),
        }
    }
}

/// Where a forwarder leads.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Target<'a> {
    /// The address; null when the target has only a name.
    pub address: Option<IpAddr>,
    /// A name that was not looked up.
    pub name: Option<&'a str>,
    /// The port.
    pub port: Option<u16>,
    /// What is there, in one line for people.
    pub detail: Option<&'a str>,
}
