//! What watching a node for a while told about where its listeners lead.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{NetnsId, Pid, Port, StartTime};

/// What was seen while connections and connects were watched. It says nothing
/// about a listener that had nothing to do meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// How long was watched, in milliseconds.
    pub ms: u64,
    /// The listeners that got a connection.
    pub accepted: Vec<Accepted>,
    /// Where connections led.
    pub observed: Vec<Observed>,
    /// How many connects processes that own a listener made, wherever to.
    pub connects: u64,
    /// How many events were lost: every count here may be too low then.
    pub lost: u64,
}

/// A listener that got connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The namespace of the listener.
    pub netns: NetnsId,
    /// The address that it is bound to.
    pub address: IpAddr,
    /// Its port.
    pub port: Port,
    /// How many connections it got.
    pub connections: u64,
    /// How many connects led to yet other targets than those that were kept.
    pub unkept: u64,
}

/// Where connections to one listener were seen to lead, by one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The namespace of the listener.
    pub netns: NetnsId,
    /// The address that it is bound to.
    pub address: IpAddr,
    /// The listener's port.
    pub port: Port,
    /// The process that owns the listener and connected.
    pub pid: Pid,
    /// With `pid`, its identity.
    pub start: StartTime,
    /// The namespace that its connects were made in.
    pub to_netns: Option<NetnsId>,
    /// Where it connected to.
    pub to: SocketAddr,
    /// How many accepted connections were followed by a connect to there.
    pub connects: u64,
    /// How many of `connects` may as well belong to another listener of the same
    /// process, which had got a connection shortly before, too.
    pub ambiguous: u64,
    /// How many connections the listener got meanwhile.
    pub accepted: u64,
}
