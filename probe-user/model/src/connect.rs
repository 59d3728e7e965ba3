//! What becomes of a connection that is really made.

use std::fmt;
use std::net::SocketAddr;

use super::NetnsId;

/// A TCP connection to try: a process of the tool's makes it in a namespace, and sends nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectAsk {
    /// From where.
    pub netns: NetnsId,
    /// To what.
    pub to: SocketAddr,
}

/// What the kernel said to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Connected {
    /// It is made, and stays.
    Open,
    /// It is made, and the other end closes or resets it at once: a proxy with nothing behind
    /// it, or a server that has no more to say.
    ClosedAtOnce,
    /// Refused.
    Refused,
    /// Nobody answered in time.
    TimedOut,
    /// No way leads there, or somebody on it says so.
    Unreachable,
    /// It could not be tried.
    NotTried,
}

impl Connected {
    /// Whether this can't be, if the other end is said to be reachable, or not.
    pub fn contradicts(self, reachable: bool) -> bool {
        match self {
            Self::Open => !reachable,
            Self::Refused | Self::TimedOut | Self::Unreachable => reachable,
            // Of a proxy, both are true.
            Self::ClosedAtOnce | Self::NotTried => false,
        }
    }
}

impl fmt::Display for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "connected",
            Self::ClosedAtOnce => "connected, and closed at once by the other end",
            Self::Refused => "refused",
            Self::TimedOut => "no answer in a second",
            Self::Unreachable => "no way there",
            Self::NotTried => "not tried",
        })
    }
}
