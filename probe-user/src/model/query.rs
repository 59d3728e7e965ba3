//! What was asked.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{PortRange, Proto, SocketFilter};

/// One question: who is behind these ports?
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Query {
    /// The question as typed.
    pub text: String,
    /// The ports, one or a range.
    pub ports: PortRange,
    /// The protocol; `None` asks for TCP and UDP.
    pub proto: Option<Proto>,
    /// Where.
    pub scope: Scope,
}

/// Where a port is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// On every address of every namespace.
    Everywhere,
    /// Where a packet to this address would arrive.
    Address(IpAddr),
}

impl Query {
    /// The sockets that could answer it.
    pub fn filter(&self) -> SocketFilter {
        SocketFilter { proto: self.proto, ports: Some(self.ports) }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
