//! What goes over the channel between a question and its helper process.

use std::ffi::{OsStr, OsString};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::super::safefs::Unreadable;

/// The largest request: a path, and what is said of it.
pub(super) const REQUEST: usize = 4096 + 64;
/// How much of an answer goes into one packet.
pub(super) const PACKET: usize = 64 * 1024;

/// What the helper is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RequestOp {
    /// A directory as the root of what is read below it: its descriptor.
    Open,
    /// The content of a regular file below a root.
    Read,
    /// The same of a file that is no link, after who owns it and its directory.
    ReadOwned,
    /// Who owns something below a root.
    Owner,
    /// The names in a directory below a root.
    List,
    /// A mount point below a root, reached without links: its descriptor, and what it is.
    Look,
    /// A socket below a root: its descriptor, and whose it is.
    Socket,
    /// A connection with a socket that was opened: the descriptor of the connection.
    Connect,
    /// What a link of procfs leads to: its descriptor, and what it is.
    Follow,
    /// The beginning of a file of procfs.
    Proc,
    /// The name of the first file in a directory that has one of two lines.
    FindLine,
}

impl RequestOp {
    const ALL: [Self; 11] = [
        Self::Open,
        Self::Read,
        Self::ReadOwned,
        Self::Owner,
        Self::List,
        Self::Look,
        Self::Socket,
        Self::Connect,
        Self::Follow,
        Self::Proc,
        Self::FindLine,
    ];
}

/// One request. What it is relative to goes beside it, as a descriptor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReadRequest {
    pub(super) op: RequestOp,
    /// Bytes or entries.
    pub(super) limit: u64,
    pub(super) path: OsString,
}

impl ReadRequest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.op as u8];
        bytes.extend(self.limit.to_le_bytes());
        bytes.extend(self.path.as_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first()?;
        let op = RequestOp::ALL.into_iter().find(|op| *op as u8 == *first)?;
        let (limit, path) = rest.split_first_chunk()?;
        let path = OsString::from_vec(path.to_vec());
        Some(Self { op, limit: u64::from_le_bytes(*limit), path })
    }
}

/// What is known of a file without asking whoever serves it once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct Stat {
    /// As in `st_dev`.
    pub(in super::super) dev: u64,
    /// The inode.
    pub(in super::super) ino: u64,
    /// The owner, as the file system says: one that a process serves can say anything.
    pub(in super::super) uid: u32,
    /// The group, likewise.
    pub(in super::super) gid: u32,
    /// Kind and rights.
    pub(in super::super) mode: u32,
    /// How many names it has.
    pub(in super::super) nlink: u32,
}

impl Stat {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.dev.to_le_bytes());
        bytes.extend(self.ino.to_le_bytes());
        for number in [self.uid, self.gid, self.mode, self.nlink] {
            bytes.extend(number.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (dev, bytes) = bytes.split_first_chunk()?;
        let (ino, mut bytes) = bytes.split_first_chunk()?;
        let mut numbers = [0; 4];
        for number in &mut numbers {
            let (first, rest) = bytes.split_first_chunk()?;
            *number = u32::from_le_bytes(*first);
            bytes = rest;
        }
        let [uid, gid, mode, nlink] = numbers;
        let (dev, ino) = (u64::from_le_bytes(*dev), u64::from_le_bytes(*ino));
        Some(Self { dev, ino, uid, gid, mode, nlink })
    }
}

/// An answer, or why there is none: how it went, and how many bytes follow.
pub(super) type ReplyHeader = [u8; 5];

const KINDS: [&str; 5] =
    ["regular file", "file, but a link", "socket", "directory", "path without symbolic links"];

/// How an error goes over the channel: a code, and a text.
pub(super) fn encode_error(error: &Unreadable) -> (u8, Vec<u8>) {
    match error {
        Unreadable::Missing => (1, Vec::new()),
        Unreadable::Denied => (2, Vec::new()),
        Unreadable::WrongKind(kind) => (3, kind.as_bytes().to_vec()),
        Unreadable::TooBig(limit) => (4, (*limit as u64).to_le_bytes().to_vec()),
        other => (5, other.to_string().into_bytes()),
    }
}

pub(super) fn decode_error(code: u8, text: &[u8]) -> Unreadable {
    let words = || String::from_utf8_lossy(text).into_owned();
    match code {
        1 => Unreadable::Missing,
        2 => Unreadable::Denied,
        3 => {
            let kind = KINDS.into_iter().find(|kind| kind.as_bytes() == text);
            kind.map_or_else(|| Unreadable::Failed(words()), Unreadable::WrongKind)
        }
        4 => {
            let limit = text.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            Unreadable::TooBig(usize::try_from(limit).unwrap_or(usize::MAX))
        }
        _ => Unreadable::Failed(words()),
    }
}

/// Names of a directory, each ended by a NUL.
pub(super) fn encode_names(names: &[OsString]) -> Vec<u8> {
    names.iter().flat_map(|name| name.as_bytes().iter().copied().chain([0])).collect()
}

pub(super) fn decode_names(bytes: &[u8]) -> Vec<OsString> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|b| *b == 0).map(|name| OsStr::from_bytes(name).to_owned()).collect()
}

/// Sends one packet, with a descriptor beside it.
pub(super) fn send(
    channel: BorrowedFd<'_>,
    packet: &[u8],
    fd: Option<BorrowedFd<'_>>,
    flags: SendFlags,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds {
        beside.push(SendAncillaryMessage::ScmRights(fds));
    }
    let flags = flags | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(channel, &[IoSlice::new(packet)], &mut beside, flags).map(drop)
}

/// Receives one packet, with the descriptor beside it. No byte at all means that the other
/// side is gone.
pub(super) fn receive(
    channel: BorrowedFd<'_>,
    packet: &mut [u8],
    flags: RecvFlags,
) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let read =
        rustix::net::recvmsg(channel, &mut [IoSliceMut::new(packet)], &mut beside, flags)?.bytes;
    let fd = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((read, fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_come_back_as_they_were() {
        for op in RequestOp::ALL {
            let path = OsString::from_vec(b"/a b/\xff".to_vec());
            let request = ReadRequest { op, limit: 7, path };
            assert_eq!(ReadRequest::decode(&request.encode()), Some(request));
        }
        assert_eq!(ReadRequest::decode(b""), None);
        assert_eq!(ReadRequest::decode(b"\x00123"), None);
        let stat = Stat { dev: 1 << 40, ino: 2, uid: 3, gid: 4, mode: 5, nlink: 6 };
        assert_eq!(Stat::decode(&stat.encode()), Some(stat));
        assert_eq!(Stat::decode(b"123"), None);
        for names in [vec![], vec!["a".into()], vec!["a".into(), OsString::from("b c")]] {
            assert_eq!(decode_names(&encode_names(&names)), names);
        }
        for error in [
            Unreadable::Missing,
            Unreadable::Denied,
            Unreadable::WrongKind("socket"),
            Unreadable::WrongKind("path without symbolic links"),
            Unreadable::TooBig(5),
            Unreadable::Failed("why".to_owned()),
        ] {
            let (code, text) = encode_error(&error);
            assert_eq!(decode_error(code, &text), error);
        }
    }
}
