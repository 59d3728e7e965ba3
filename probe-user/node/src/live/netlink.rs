//! Netlink by hand: the framing that all of its families share, and conversations in it.
//!
//! Kernel: `include/uapi/linux/netlink.h`, `net/netlink/af_netlink.c`. Headers are in host byte
//! order; so are numbers in attributes, but for nfnetlink's, which are big endian. Lengths are in
//! bytes and count their own header, but not the padding to 4 bytes behind it. All that is used
//! here is older than Linux 3.2, which marks dumps that were interrupted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
pub(super) use rustix::net::netlink::{GENERIC, NETFILTER, SOCK_DIAG};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `NETLINK_ROUTE`, which is 0.
pub(super) const ROUTE: Option<Protocol> = None;
/// `NLM_F_REQUEST`.
pub(super) const REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
/// The first kind that a family gives a meaning.
const NLMSG_MIN_TYPE: u16 = 0x10;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// The kernel fills at most 32 KiB for one read of a dump (`netlink_dump`).
const BUFFER: usize = 64 * 1024;
/// How long an answer is waited for. The kernel has it before the question is sent whole:
/// waiting at all means that it gives none.
const PATIENCE: Duration = Duration::from_secs(5);

/// `NLA_F_NESTED`: a flag of the kind of attributes that have others in them.
pub(super) const NESTED: u16 = 0x8000;
/// Both flags, of which none belongs to the kind (`NLA_TYPE_MASK`).
const KIND: u16 = 0x3fff;

/// One message without its header.
#[derive(Debug, Clone, Copy)]
pub(super) struct NetlinkMessage<'a> {
    pub(super) kind: u16,
    flags: u16,
    /// The number of the question that it answers.
    sequence: u32,
    pub(super) body: &'a [u8],
}

impl<'a> NetlinkMessage<'a> {
    /// The attributes behind the header of generic netlink or of nfnetlink, of 4 bytes both
    /// (`struct genlmsghdr`, `struct nfgenmsg`).
    pub(super) fn attributes(&self) -> &'a [u8] {
        self.body.get(4..).unwrap_or_default()
    }

    /// How the answer ends, if it does with this.
    fn end(&self) -> Option<io::Result<()>> {
        let code = self.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        match self.kind {
            // A dump that failed half-way says so at its end only.
            NLMSG_DONE if code >= 0 => Some(Ok(())),
            NLMSG_ERROR if code == 0 => Some(Ok(())),
            NLMSG_DONE | NLMSG_ERROR => Some(Err(os_error(code))),
            NLMSG_OVERRUN => Some(Err(os_error(libc::ENOBUFS))),
            _ => None,
        }
    }
}

/// The error of a code of the kernel, which is negative. Any number is taken.
fn os_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code.saturating_abs())
}

/// The first message in some bytes, and what comes behind it. `None` for damage.
fn split(bytes: &[u8]) -> Option<(NetlinkMessage<'_>, &[u8])> {
    let header = bytes.first_chunk::<HEADER>()?;
    let [a, b, c, d, kind0, kind1, flags0, flags1, e, f, g, h, ..] = *header;
    let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
    let message = NetlinkMessage {
        kind: u16::from_ne_bytes([kind0, kind1]),
        flags: u16::from_ne_bytes([flags0, flags1]),
        sequence: u32::from_ne_bytes([e, f, g, h]),
        body: bytes.get(HEADER..length)?,
    };
    // The last one may lack its padding.
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The messages in what one read of a socket gave, up to the first that is damaged.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = NetlinkMessage<'_>> {
    std::iter::from_fn(move || {
        let (message, rest) = split(bytes)?;
        bytes = rest;
        Some(message)
    })
}

/// The attributes in some bytes, by kind, without flags. Damage is an attribute of a kind that
/// the kernel does not have, [`DAMAGED`]: who reads a list sees that something is in it.
#[derive(Debug, Clone)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

/// Not a kind of any attribute: kinds have 14 bits.
pub(super) const DAMAGED: u16 = u16::MAX;

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let whole = self.0.first_chunk().and_then(|[a, b, c, d]| {
            let length = usize::from(u16::from_ne_bytes([*a, *b]));
            let value = self.0.get(4..length)?;
            Some((length, u16::from_ne_bytes([*c, *d]) & KIND, value))
        });
        let Some((length, kind, value)) = whole else {
            return Some((DAMAGED, std::mem::take(&mut self.0)));
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The value of the first attribute of a kind.
pub(super) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    Attributes(attributes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// An attribute with its padding, as the kernel takes it. An error for a value of 64 KiB or more.
pub(super) fn attribute(kind: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(value.len().saturating_add(4))
        .map_err(|_| io::Error::other("a name is too long to be asked for"))?;
    let mut bytes = Vec::with_capacity(usize::from(length).next_multiple_of(4));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(bytes)
}

/// A netlink message that asks, header included.
#[derive(Debug, Clone)]
pub(super) struct NetlinkRequest {
    /// Whole, but for length and number.
    bytes: Vec<u8>,
}

impl NetlinkRequest {
    /// `header` is that of the family, and whatever has a fixed size.
    pub(super) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend(header);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Self { bytes }
    }

    /// For everything of a kind.
    pub(super) fn dump(kind: u16, header: &[u8]) -> Self {
        Self::new(kind, REQUEST | NLM_F_DUMP, header)
    }

    /// For one thing. That it is acknowledged tells the end of the answer.
    pub(super) fn get(kind: u16, header: &[u8]) -> Self {
        Self::new(kind, REQUEST | NLM_F_ACK, header)
    }

    /// The same with one more attribute.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> io::Result<Self> {
        self.bytes.extend(attribute(kind, value)?);
        Ok(self)
    }

    fn numbered(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        // The kernel takes no notice of one that is longer than it says.
        let length = u32::try_from(bytes.len()).unwrap_or_default();
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }
}

/// How a reply came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NetlinkReply {
    /// In how many reads.
    pub(super) pieces: usize,
}

/// A conversation with the kernel, about the namespace that its socket was made in. It can be
/// used in any thread then.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    /// The most that one answer may have, in bytes.
    most: usize,
    /// Whether an answer was not read to its end: what is left of it would be in the way of
    /// every other.
    spoilt: bool,
}

impl Netlink {
    /// In the namespace of the calling thread, with answers of at most so many bytes.
    pub(super) fn open(protocol: impl Into<Option<Protocol>>, most: usize) -> io::Result<Self> {
        let socket = socket(protocol)?;
        // From now on the socket hears nobody but the kernel.
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0, most, spoilt: false })
    }

    /// Whether nothing more can be asked.
    pub(super) fn is_spoilt(&self) -> bool {
        self.spoilt
    }

    /// A question as it is sent next, for who sends it in another way than by [`Self::ask`].
    /// What the kernel says to it is passed over by who reads next.
    pub(super) fn number(&mut self, request: &NetlinkRequest) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        request.numbered(self.sequence)
    }

    /// Asks, and gives each message of the answer to `each` until that wants no more: to go on
    /// with a long answer costs the kernel more with each piece. Nothing else can be asked then.
    ///
    /// What the kernel answers with an error is that error. A dump that was interrupted by a
    /// change is [`io::ErrorKind::Interrupted`]: what came may be a mixture.
    pub(super) fn ask(
        &mut self,
        request: &NetlinkRequest,
        mut each: impl FnMut(NetlinkMessage<'_>) -> bool,
    ) -> io::Result<NetlinkReply> {
        if self.spoilt {
            return Err(io::Error::other("an earlier answer was left unread"));
        }
        let question = self.number(request);
        rustix::net::send(&self.socket, &question, SendFlags::empty())?;
        // Until it is read to its end, even if it is of no use.
        self.spoilt = true;
        // Not kept: there may be hundreds of conversations.
        let mut buffer = Vec::with_capacity(BUFFER);
        let (mut left, mut pieces, mut interrupted) = (self.most, 0, false);
        loop {
            receive(&self.socket, &mut buffer)?;
            left = left.checked_sub(buffer.len()).ok_or_else(|| too_much(self.most))?;
            let (mut rest, mut has_any) = (buffer.as_slice(), false);
            while !rest.is_empty() {
                let Some((message, next)) = split(rest) else {
                    let why = "the kernel's answer is damaged";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                };
                rest = next;
                // What is left of an earlier question.
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                if let Some(end) = message.end() {
                    self.spoilt = false;
                    let end = if interrupted { Err(os_error(libc::EINTR)) } else { end };
                    return end.map(|()| NetlinkReply { pieces: pieces + usize::from(has_any) });
                }
                if message.kind >= NLMSG_MIN_TYPE {
                    has_any = true;
                    if !each(message) {
                        return Ok(NetlinkReply { pieces });
                    }
                }
            }
            pieces += usize::from(has_any);
        }
    }

    /// Everything that `parse` makes of the messages of an answer, at most so many. When it was
    /// interrupted it is read again, once; after that it is taken as it is.
    pub(super) fn collect<T>(
        &mut self,
        request: &NetlinkRequest,
        most: usize,
        mut parse: impl FnMut(NetlinkMessage<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut is_last = false;
        loop {
            let mut all = Vec::new();
            let asked = self.ask(request, |message| {
                all.extend(parse(message));
                all.len() <= most
            });
            match asked {
                Err(error) if error.kind() == io::ErrorKind::Interrupted && !is_last => {
                    is_last = true;
                }
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ if all.len() > most => {
                    return Err(io::Error::other(format!("there are more than {most}")));
                }
                _ => return Ok(all),
            }
        }
    }
}

/// Reads once.
fn receive(socket: &OwnedFd, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        buffer.clear();
        let room = rustix::buffer::spare_capacity(buffer);
        match rustix::net::recv(socket, room, RecvFlags::empty()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let why = format!("no answer within {} s", PATIENCE.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A socket of the namespace of the calling thread, not connected.
pub(super) fn socket(protocol: impl Into<Option<Protocol>>) -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::NETLINK, SocketType::DGRAM);
    Ok(rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol.into())?)
}

fn too_much(most: usize) -> io::Error {
    io::Error::other(format!("it is more than {} MiB", most >> 20))
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// For the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    for message in messages(bytes) {
        let _ = message.end();
        let nested = |(_, value)| Attributes(value).count();
        let _: usize = Attributes(message.attributes()).map(nested).sum();
        find(message.attributes(), 1);
    }
}

#[cfg(test)]
mod tests;
