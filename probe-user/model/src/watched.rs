//! What watching a node for a while told about where its listeners lead.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Dropped, NetnsId, Pid, Port, StartTime};

/// What was seen while connections and connects were watched. It says nothing
/// about a listener that had nothing to do meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// How long was watched, in milliseconds.
    pub ms: u64,
    /// The listeners that got a connection.
    pub accepted: Vec<Accepted>,
    /// Where connections led.
    pub observed: Vec<ObservedTarget>,
    /// How many connects processes that own a listener made, wherever to.
    pub connects: u64,
    /// How many events were lost: every count here may be too low then.
    pub lost: u64,
    /// What was dropped on its way to the ports that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Dropped>,
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
pub struct ObservedTarget {
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

impl Watched {
    /// What was seen on the node, in one line: `12 connections accepted, 14 connects
    /// by processes that listen, 0 events lost`.
    pub fn summary(&self) -> String {
        let accepted = self.accepted.iter().map(|listener| listener.connections).sum();
        format!(
            "{} accepted, {} by processes that listen, {} lost",
            counted(accepted, "connection"),
            counted(self.connects, "connect"),
            counted(self.lost, "event"),
        )
    }
}

/// `1 connect`, `2 connects`.
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// `500 ms`, `5 s`, `2.5 s`.
pub fn spoken_ms(ms: u64) -> String {
    match (ms / 1000, ms % 1000) {
        (0, ms) => format!("{ms} ms"),
        (s @ ..10, rest @ 100..) => format!("{s}.{} s", rest / 100),
        (s, _) => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (ms, expected) in
            [(500, "500 ms"), (1000, "1 s"), (1050, "1 s"), (2500, "2.5 s"), (65_900, "65 s")]
        {
            assert_eq!(spoken_ms(ms), expected);
        }
    }
}
