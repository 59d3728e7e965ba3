//! UNIX sockets, and others without a port.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::unix::place;
use whereis_port_model as model;

use super::{End, Gap, Host, Netns, OtherKind, SCHEMA_VERSION, Source, TOOL_VERSION, Verdict};

/// What `whereis-port --json /PATH` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct UnixDocument<'a> {
    /// The version of this document's structure.
    pub schema_version: u32,
    /// The version of the tool that wrote it.
    pub tool_version: &'a str,
    /// The node.
    pub host: Host<'a>,
    /// One answer for each question, in their order.
    pub unix: Vec<UnixAnswer<'a>>,
    /// What was read, and what could not be.
    pub sources: Vec<Source<'a>>,
}

/// What `whereis-port list -x --json` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SocketsDocument<'a> {
    /// The version of this document's structure.
    pub schema_version: u32,
    /// The version of the tool that wrote it.
    pub tool_version: &'a str,
    /// The node.
    pub host: Host<'a>,
    /// The sockets.
    pub sockets: Vec<OtherListener<'a>>,
    /// What could not be read.
    pub gaps: Vec<Gap<'a>>,
    /// What was read, and what could not be.
    pub sources: Vec<Source<'a>>,
}

/// The answer to a question about a UNIX socket.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct UnixAnswer<'a> {
    /// The path, or the abstract name behind `@`.
    pub name: &'a str,
    /// Whether somebody listens.
    pub verdict: Verdict,
    /// What is at the path; null of an abstract name.
    pub file: Option<FileKind>,
    /// Whether the file is there and surely nobody listens on it.
    pub stale: bool,
    /// Who listens on it.
    pub listeners: Vec<OtherListener<'a>>,
    /// How many listen under the same name at another file.
    pub elsewhere: usize,
    /// What could not be read.
    pub gaps: Vec<Gap<'a>>,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A socket.
    Socket,
    /// Nothing.
    Missing,
    /// Something else.
    NoSocket,
    /// It could not be looked at.
    Unknown,
}

/// A socket without a port, and who has it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct OtherListener<'a> {
    /// The namespace.
    pub netns: Netns<'a>,
    /// Its kind.
    pub kind: OtherKind,
    /// The path that it was bound to.
    pub path: Option<&'a str>,
    /// The abstract name that it was bound to.
    pub abstract_name: Option<&'a str>,
    /// The IP protocol whose packets it sees (raw).
    pub ip_protocol: Option<u8>,
    /// The address that they are sent to, if not any (raw).
    pub address: Option<IpAddr>,
    /// The index of the interface whose packets it sees, 0 for all (packet).
    pub device_index: Option<u32>,
    /// The same in words.
    pub text: String,
    /// Its inode in sockfs.
    pub inode: u64,
    /// Who made it; null where not told.
    pub uid: Option<u32>,
    /// How many connections wait to be accepted.
    pub accept_queue: Option<u32>,
    /// How many the listener allows to wait.
    pub accept_queue_limit: Option<u32>,
    /// Who has it.
    pub end: End<'a>,
    /// Who is connected; the first few.
    pub clients: Vec<UnixClient<'a>>,
    /// How many connections more there are.
    pub more_connections: usize,
}

/// Who is connected to a UNIX socket.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct UnixClient<'a> {
    /// The process.
    pub pid: u32,
    /// Its name.
    pub name: &'a str,
    /// How many connections it has.
    pub connections: usize,
}

impl<'a> From<&'a model::UnixListener> for OtherListener<'a> {
    fn from(listener: &'a model::UnixListener) -> Self {
        use model::OtherPlace;
        let socket = &listener.socket;
        let mut one = Self {
            netns: (&listener.netns).into(),
            kind: socket.kind.into(),
            path: None,
            abstract_name: None,
            ip_protocol: None,
            address: None,
            device_index: None,
            text: place(&socket.at),
            inode: socket.inode,
            uid: socket.uid,
            accept_queue: socket.queue.map(|queue| queue.waiting),
            accept_queue_limit: socket.queue.map(|queue| queue.limit),
            end: (&listener.end).into(),
            clients: listener
                .clients
                .iter()
                .map(|client| UnixClient {
                    pid: client.pid,
                    name: &client.name,
                    connections: client.connections,
                })
                .collect(),
            more_connections: listener.more,
        };
        match &socket.at {
            OtherPlace::Path(path, _) => one.path = Some(path),
            OtherPlace::Abstract(name) => one.abstract_name = Some(name),
            OtherPlace::Protocol(protocol, address) => {
                (one.ip_protocol, one.address) = (Some(*protocol), *address);
            }
            OtherPlace::Device(index, _) => one.device_index = Some(*index),
        }
        one
    }
}

impl<'a> From<&'a model::UnixAnswer> for UnixAnswer<'a> {
    fn from(answer: &'a model::UnixAnswer) -> Self {
        let file = answer.file.as_ref().map(|file| match file {
            model::SocketFile::Socket(_) => FileKind::Socket,
            model::SocketFile::Missing => FileKind::Missing,
            model::SocketFile::NoSocket => FileKind::NoSocket,
            model::SocketFile::Unknown(_) => FileKind::Unknown,
        });
        Self {
            name: &answer.text,
            verdict: answer.verdict.into(),
            stale: file == Some(FileKind::Socket) && answer.verdict == model::Verdict::NotFound,
            file,
            listeners: answer.listeners.iter().map(Into::into).collect(),
            elsewhere: answer.elsewhere,
            gaps: answer.gaps.iter().map(Into::into).collect(),
        }
    }
}

/// The document for questions about UNIX sockets.
pub fn unix<'a>(
    answers: &'a [model::UnixAnswer],
    host: &'a model::Host,
    sources: &'a [model::SourceReport],
) -> UnixDocument<'a> {
    UnixDocument {
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        host: host.into(),
        unix: answers.iter().map(Into::into).collect(),
        sources: sources.iter().map(Into::into).collect(),
    }
}

/// The document for a list of them.
pub fn sockets<'a>(
    rows: &'a [model::UnixListener],
    gaps: &'a [model::Gap],
    host: &'a model::Host,
    sources: &'a [model::SourceReport],
) -> SocketsDocument<'a> {
    SocketsDocument {
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        host: host.into(),
        sockets: rows.iter().map(Into::into).collect(),
        gaps: gaps.iter().map(Into::into).collect(),
        sources: sources.iter().map(Into::into).collect(),
    }
}
