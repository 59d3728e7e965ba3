//! What has a port without listening on it.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::held::sentence;
use whereis_port_model as model;

use super::{Advice, End, HeldAs, Netns, Proto, SocketState};

/// Sockets that have a port, alike and of the same holders.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Held<'a> {
    /// The namespace.
    pub netns: Netns<'a>,
    /// The protocol.
    pub proto: Proto,
    /// The port.
    pub port: u16,
    /// What they have it for.
    pub role: HeldAs,
    /// How many sockets there are. What follows is of one of them: of those that the kernel
    /// lets go by itself, the last.
    pub sockets: usize,
    /// Its state.
    pub state: SocketState,
    /// Its address.
    pub address: IpAddr,
    /// The other end of its connection, `address:port`.
    pub peer: Option<String>,
    /// Its inode number in sockfs; 0 when no process has it.
    pub inode: u64,
    /// The user id of who made it; 0 also of what no process has any more.
    pub uid: u32,
    /// In how many milliseconds the kernel lets it go, of what the kernel alone remembers; null
    /// for all else.
    pub expires_ms: Option<u32>,
    /// Whether the kernel gives this port to whoever asks for none; null when not known.
    pub ephemeral: Option<bool>,
    /// Whether they keep a server without further options from being bound there (of a question
    /// about an address: to it); null when not known.
    pub blocks_bind: Option<bool>,
    /// Who has them.
    pub end: End<'a>,
    /// All of it in words.
    pub text: String,
    /// What would free the port.
    pub fix: Option<Advice<'a>>,
}

impl<'a> From<&'a model::HeldSockets> for Held<'a> {
    fn from(held: &'a model::HeldSockets) -> Self {
        let socket = &held.socket.socket;
        Self {
            netns: (&held.netns).into(),
            proto: socket.proto.into(),
            port: socket.port.0,
            role: held.role.into(),
            sockets: held.count,
            state: socket.state.into(),
            address: socket.address,
            peer: held.socket.peer.map(|peer| peer.to_string()),
            inode: socket.inode,
            uid: socket.uid,
            expires_ms: held.socket.expires_ms,
            ephemeral: held.ephemeral,
            blocks_bind: held.blocks,
            end: (&held.end).into(),
            text: sentence(held),
            fix: held.fix.as_ref().map(Into::into),
        }
    }
}
