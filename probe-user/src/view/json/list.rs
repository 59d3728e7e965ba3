//! The rows of a list.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::model;

use super::{Cluster, Container, End, Ending, Netns, Pod, Process, Proto, SocketState};

/// One listener of a list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Listener<'a> {
    /// The namespace of the socket.
    pub netns: Netns<'a>,
    /// The protocol.
    pub proto: Proto,
    /// The bound address, exactly as bound.
    pub address: IpAddr,
    /// The bound port.
    pub port: u16,
    /// The socket's state.
    pub state: SocketState,
    /// `IPV6_V6ONLY`; null for IPv4, and where it is not readable.
    pub v6only: Option<bool>,
    /// The socket's inode number in sockfs; 0 when it has none.
    pub socket_inode: u64,
    /// The user id of who made it.
    pub uid: u32,
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
    /// The systemd unit or scope.
    pub unit: Option<&'a str>,
    /// Where its holder passes connections on to; null when it is no forwarder.
    pub target: Option<Target<'a>>,
}

impl<'a> From<&'a model::ListRow> for Listener<'a> {
    fn from(row: &'a model::ListRow) -> Self {
        let end = End::from(&*row.end);
        Self {
            netns: (&row.netns).into(),
            proto: row.socket.proto.into(),
            address: row.socket.address,
            port: row.socket.port.0,
            state: row.socket.state.into(),
            v6only: row.socket.v6only,
            socket_inode: row.socket.inode,
            uid: row.socket.uid,
            // A process may hold a socket that another user made.
            user: end.process.as_ref().filter(|p| p.uid == row.socket.uid).and_then(|p| p.user),
            ending: end.ending,
            why: end.why,
            process: end.process,
            processes: end.processes,
            container: end.container,
            containers: end.containers,
            pod: end.pod,
            cluster: end.cluster,
            unit: end.unit,
            target: row.target.as_ref().map(|endpoint| Target {
                address: endpoint.address,
                name: endpoint.name.as_deref(),
                port: endpoint.port.map(|p| p.0),
                detail: row.target_detail.as_deref(),
            }),
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
