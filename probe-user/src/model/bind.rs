//! Binding a socket to a port: what was asked, and what becomes of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{NetnsId, Port, Proto};

/// A socket that somebody would like to bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BindAsk {
    /// The namespace.
    pub netns: NetnsId,
    /// The protocol.
    pub proto: Proto,
    /// The address. An IPv4 address, also an IPv4-mapped one, is one of IPv4; `::` takes IPv4
    /// as well, unless `v6only` is set.
    pub address: IpAddr,
    /// `IPV6_V6ONLY`. Of no meaning for other addresses than `::`.
    pub v6only: bool,
    /// The port.
    pub port: Port,
    /// The index of the interface to bind to (`SO_BINDTODEVICE`).
    pub ifindex: Option<u32>,
    /// The user, as the tool's user namespace counts.
    pub uid: u32,
    /// Whether that user may have a privileged port (CAP_NET_BIND_SERVICE).
    pub privileged: bool,
    /// `SO_REUSEADDR`.
    pub reuse_addr: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
}

impl BindAsk {
    /// A server of root's that takes everything that is sent to a port, without options.
    pub fn server(netns: NetnsId, proto: Proto, address: IpAddr, port: Port) -> Self {
        Self {
            netns,
            proto,
            address,
            v6only: false,
            port,
            ifindex: None,
            uid: 0,
            privileged: true,
            reuse_addr: false,
            reuse_port: false,
        }
    }
}
