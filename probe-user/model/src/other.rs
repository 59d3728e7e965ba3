//! Sockets that have no port of TCP or UDP: UNIX sockets, and those that see packets as they are.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{AcceptQueue, End, Gap, NetnsId, NetnsRef, SocketInode, Verdict};

/// A socket without a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherSocket {
    /// The namespace that it was made in.
    pub netns: NetnsId,
    /// Its kind.
    pub kind: OtherKind,
    /// What it is bound to.
    pub at: OtherPlace,
    /// Whether it takes connections, or packets of anybody.
    pub listens: bool,
    /// Its inode in sockfs.
    pub inode: SocketInode,
    /// Who made it, where that is told.
    pub uid: Option<u32>,
    /// The other end of its connection (UNIX).
    pub peer: Option<SocketInode>,
    /// The connections that wait to be accepted.
    pub queue: Option<AcceptQueue>,
}

/// The kinds of such sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OtherKind {
    /// UNIX, of connections that are streams.
    UnixStream,
    /// UNIX, of connections that keep messages apart.
    UnixSeqpacket,
    /// UNIX, of messages.
    UnixDatagram,
    /// Sees every packet of an IP protocol that comes to this namespace.
    Raw,
    /// Sees every packet of a device, of whatever port.
    Packet,
}

impl OtherKind {
    /// As people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnixStream => "stream",
            Self::UnixSeqpacket => "seqpacket",
            Self::UnixDatagram => "datagram",
            Self::Raw => "raw",
            Self::Packet => "packet",
        }
    }

    /// Whether it is a UNIX socket.
    pub fn is_unix(self) -> bool {
        matches!(self, Self::UnixStream | Self::UnixSeqpacket | Self::UnixDatagram)
    }
}

/// What such a socket is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OtherPlace {
    /// A path, as who bound it said it; with the file where the kernel tells it. Untrusted.
    Path(String, Option<FileId>),
    /// An abstract name, without its first NUL. Untrusted.
    Abstract(String),
    /// An IP protocol, and an address if not all.
    Protocol(u8, Option<IpAddr>),
    /// The index of a device (0 for all), and a protocol of Ethernet (3 for all).
    Device(u32, u16),
}

/// A file: the number of its file system, as the kernel counts it inside, and its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// The file system: the major number from bit 20 on, the minor one below.
    pub dev: u32,
    /// The inode; of longer numbers the kernel tells the lower half.
    pub ino: u32,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketFile {
    /// A socket.
    Socket(FileId),
    /// Nothing.
    Missing,
    /// Something else.
    NoSocket,
    /// It could not be looked at, and why.
    Unknown(String),
}

/// The answer to a question about a UNIX socket.
#[derive(Debug, Clone, PartialEq)]
pub struct UnixAnswer {
    /// The question as it was typed.
    pub text: String,
    /// What is at the path; `None` of an abstract name.
    pub file: Option<SocketFile>,
    /// Whether anybody listens.
    pub verdict: Verdict,
    /// Who listens there.
    pub listeners: Vec<UnixListener>,
    /// How many listen under the same name at another file, so that nobody gets to them by it.
    pub elsewhere: usize,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

/// A socket without a port, with who has it.
#[derive(Debug, Clone, PartialEq)]
pub struct UnixListener {
    /// The namespace.
    pub netns: NetnsRef,
    /// The socket.
    pub socket: OtherSocket,
    /// Who has it.
    pub end: End,
    /// Who is connected, each with how many connections; the first few.
    pub clients: Vec<UnixClient>,
    /// How many connections more there are than those of the clients.
    pub more: usize,
}

/// Who is connected to a UNIX socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixClient {
    /// The process.
    pub pid: super::Pid,
    /// Its name. Untrusted.
    pub name: String,
    /// How many connections it has.
    pub connections: usize,
}
