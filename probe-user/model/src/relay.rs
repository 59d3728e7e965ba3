//! What a process that passes connections on shows of itself.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Container, NetnsId, Port, Proto};

/// What a forwarder shows beyond its arguments. Which namespaces it has is the kernel's word;
/// all else is its own, or its user's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// The network namespaces that it or a child of its is in, and those that it has a
    /// descriptor of, in order.
    pub netns: Vec<NetnsId>,
    /// What it says at a socket of its own (rootlesskit `GET /v1/ports`, slirp4netns
    /// `list_hostfwd`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forwarded>,
    /// The path of that socket. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// The containers whose ports a daemon of the same user says to publish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
}

/// One port that a forwarder says to forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarded {
    /// The protocol.
    pub proto: Proto,
    /// The address it listens at; `None` for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The port it listens on.
    pub host_port: Port,
    /// The address that it leads to inside, where it says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// The port that it leads to inside.
    pub to_port: Port,
}
