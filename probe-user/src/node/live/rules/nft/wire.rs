//! Netlink messages of nf_tables: taking them apart in place, and asking for them.
//!
//! Kernel: `net/netfilter/nfnetlink.c`, `net/netfilter/nf_tables_api.c`. All numbers in
//! attributes are big endian, unlike those of other netlink families.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// `NFNL_SUBSYS_NFTABLES << 8`.
const SUBSYSTEM: u16 = 10 << 8;
pub(super) const GET_TABLE: u16 = 1;
pub(super) const GET_CHAIN: u16 = 4;
pub(super) const GET_RULE: u16 = 7;
pub(super) const GET_SET: u16 = 10;
pub(super) const GET_SETELEM: u16 = 13;
const GET_GENERATION: u16 = 16;

/// `NFNL_MSG_BATCH_BEGIN`: a transaction, for the subsystem that it names.
const BATCH_BEGIN: u16 = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
/// What comes in an order that changes with what is not in use yet.
const ELEMENTS: (u16, u16) = (GET_SETELEM, NLM_F_REQUEST | NLM_F_DUMP);
/// `NLA_F_NESTED`.
pub(super) const NESTED: u16 = 0x8000;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: usize = 16 + 4;
/// The kernel fills at most 32 KiB for one read of a dump (`netlink_dump`).
const BUFFER: usize = 64 * 1024;

/// The attributes in some bytes. Damage is an attribute of a kind that the kernel
/// does not have, [`DAMAGED`]: who reads a list sees that something is in it.
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
        let header = self.0.first_chunk::<4>().map(|[a, b, c, d]| {
            let length = usize::from(u16::from_ne_bytes([*a, *b]));
            (length, u16::from_ne_bytes([*c, *d]) & 0x3fff)
        });
        let Some((length, kind)) = header else {
            return Some((DAMAGED, std::mem::take(&mut self.0)));
        };
        match self.0.get(4..length) {
            Some(value) => {
                self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
                Some((kind, value))
            }
            None => Some((DAMAGED, std::mem::take(&mut self.0))),
        }
    }
}

/// The attributes of one object by their kind, without those above 20, of which
/// nothing is read. The first of a kind counts.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>([Option<&'a [u8]>; 21]);

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        let mut fields = Self::default();
        for (kind, value) in Attributes(bytes) {
            if let Some(field) = fields.0.get_mut(usize::from(kind)) {
                field.get_or_insert(value);
            }
        }
        fields
    }

    pub(super) fn get(&self, kind: usize) -> Option<&'a [u8]> {
        self.0.get(kind).copied().flatten()
    }

    pub(super) fn u32(&self, kind: usize) -> Option<u32> {
        self.get(kind)?.first_chunk().copied().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&self, kind: usize) -> Option<u64> {
        self.get(kind)?.first_chunk().copied().map(u64::from_be_bytes)
    }

    /// A string without its NUL.
    pub(super) fn name(&self, kind: usize) -> Option<&'a [u8]> {
        self.get(kind).map(until_nul)
    }
}

/// A string of the kernel without the NUL at its end and what may lie behind.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// One message of nf_tables.
#[derive(Debug, Clone, Copy)]
pub(in crate::node::live::rules) struct Message<'a> {
    /// `NFPROTO_*`.
    pub(super) family: u8,
    /// The attributes.
    pub(super) body: &'a [u8],
}

/// What comes in answers besides messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// The end, with an error of the kernel or 0.
    End(i32),
    /// Damaged: nothing behind it can be read.
    Damaged,
}

/// What one read of the socket gave. `each` gets the messages; returned is how the
/// answer ends, if it does, and whether the kernel says that it is a mixture.
pub(super) fn walk<'a>(
    mut rest: &'a [u8],
    sequence: u32,
    mut each: impl FnMut(Message<'a>),
) -> (Option<Control>, bool) {
    let mut mixed = false;
    let word =
        |bytes: &[u8], at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes);
    while !rest.is_empty() {
        let (Some(length), Some(kinds), Some(number)) =
            (word(rest, 0), word(rest, 4), word(rest, 8))
        else {
            return (Some(Control::Damaged), mixed);
        };
        let [a, b, c, d] = kinds.to_ne_bytes();
        let (kind, flags) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(payload) = rest.get(16..length) else {
            return (Some(Control::Damaged), mixed);
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        // What is left of an earlier question.
        if number != sequence {
            continue;
        }
        mixed |= flags & NLM_F_DUMP_INTR != 0;
        match kind {
            NLMSG_DONE | NLMSG_ERROR => {
                let code = payload.first_chunk().copied().map_or(0, i32::from_ne_bytes);
                return (Some(Control::End(code)), mixed);
            }
            _ if kind & 0xff00 == SUBSYSTEM => match (payload.first(), payload.get(4..)) {
                (Some(family), Some(body)) => each(Message { family: *family, body }),
                _ => return (Some(Control::Damaged), mixed),
            },
            _ => {}
        }
    }
    (None, mixed)
}

/// The messages in what one read of the socket gave.
#[cfg(test)]
pub(super) fn messages(bytes: &[u8]) -> Vec<Message<'_>> {
    let sequence = bytes.get(8..).and_then(|b| b.first_chunk().copied());
    let mut messages = Vec::new();
    walk(bytes, sequence.map_or(0, u32::from_ne_bytes), |message| messages.push(message));
    messages
}

/// Why a read gave nothing that can be relied on.
#[derive(Debug)]
pub(in crate::node::live::rules) enum Failed {
    /// The rules changed meanwhile.
    Changed,
    /// The kernel or the socket said so.
    Io(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Failed {
    /// Whether the kernel says that it has no nf_tables.
    pub(in crate::node::live::rules) fn is_not_there(&self) -> bool {
        const NONE: [i32; 3] = [libc::EINVAL, libc::EOPNOTSUPP, libc::EPROTONOSUPPORT];
        matches!(self, Self::Io(error) if error.raw_os_error().is_some_and(|n| NONE.contains(&n)))
    }

    /// That a thing does not exist is no failure of reading it.
    pub(super) fn or_missing(self) -> Result<(), Self> {
        if self.is_missing() { Ok(()) } else { Err(self) }
    }

    /// Whether what was asked for does not exist.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.raw_os_error() == Some(libc::ENOENT))
    }
}

/// A conversation with nf_tables of the namespace that the socket was made in.
#[derive(Debug)]
pub(in crate::node::live::rules) struct Conversation {
    socket: Socket,
    sequence: u32,
    /// Whether elements came in several pieces since the generation was asked for.
    in_pieces: bool,
}

/// What a question is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) command: u16,
    /// `NFPROTO_*`, 0 for all.
    pub(super) family: u8,
    pub(super) attributes: &'a [(u16, &'a [u8])],
}

impl Conversation {
    /// In the namespace of the calling thread; it can be used in any thread then.
    pub(in crate::node::live::rules) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_NETFILTER)?;
        // From now on the socket hears nobody but the kernel.
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, in_pieces: false })
    }

    /// Everything of a kind.
    pub(super) fn dump(
        &mut self,
        question: Question<'_>,
        each: impl FnMut(Message<'_>),
    ) -> Result<(), Failed> {
        self.ask(question, NLM_F_REQUEST | NLM_F_DUMP, each)
    }

    /// One thing by its name.
    pub(super) fn get(
        &mut self,
        question: Question<'_>,
        each: impl FnMut(Message<'_>),
    ) -> Result<(), Failed> {
        self.ask(question, NLM_F_REQUEST | NLM_F_ACK, each)
    }

    /// The generation of the rules, which counts up with each change. (The program
    /// that the kernel names beside it is the one that asks.)
    pub(in crate::node::live::rules) fn generation(&mut self) -> Result<u32, Failed> {
        let mut generation = 0;
        let question = Question { command: GET_GENERATION, family: 0, attributes: &[] };
        self.get(question, |message| {
            generation = Fields::of(message.body).u32(1).unwrap_or_default();
        })?;
        Ok(generation)
    }

    /// The generation of rules that are all in use: the kernel counts up before it takes
    /// the old ones out, and who reads meanwhile gets a mixture.
    pub(super) fn settled(&mut self) -> Result<u32, Failed> {
        // At first, since what is read of rules that are about to change is of no use.
        self.settle()?;
        let generation = self.generation()?;
        self.settle()?;
        self.in_pieces = false;
        Ok(generation)
    }

    /// Whether what was read since [`Conversation::settled`] is all of that generation.
    /// Elements that came in several pieces are if nothing was being changed meanwhile: the
    /// kernel finds where it left off by counting them, those not in use yet among them.
    pub(super) fn is_still(&mut self, generation: u32) -> Result<bool, Failed> {
        if std::mem::take(&mut self.in_pieces) {
            self.settle()?;
        }
        Ok(self.generation()? == generation)
    }

    /// Waits for the end of a change that is being made: the kernel makes one at a time, and
    /// takes the same lock to see whether this one may begin (`nf_tables_valid_genid`). It
    /// may not, since it is for a generation that is none. Nothing changes; that the kernel
    /// says so is passed over by who reads next.
    fn settle(&mut self) -> Result<(), Failed> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&batch(self.sequence), 0)?;
        Ok(())
    }

    fn ask(
        &mut self,
        question: Question<'_>,
        flags: u16,
        mut each: impl FnMut(Message<'_>),
    ) -> Result<(), Failed> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&request(question, flags, self.sequence)?, 0)?;
        let mut buffer = Vec::with_capacity(BUFFER);
        let (mut changed, mut pieces) = (false, 0_u8);
        // Read to the end even if it is of no use: a dump that was not finished
        // would be in the way of the next one.
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            let mut has_any = false;
            let (control, mixed) = walk(&buffer, self.sequence, |message| {
                has_any = true;
                each(message);
            });
            changed |= mixed;
            pieces = pieces.saturating_add(has_any.into());
            self.in_pieces |= pieces > 1 && (question.command, flags) == ELEMENTS;
            match control {
                None => {}
                Some(Control::End(0)) if !changed => return Ok(()),
                Some(Control::End(code)) if changed || code == -libc::EINTR => {
                    return Err(Failed::Changed);
                }
                Some(Control::End(code)) => {
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()).into());
                }
                Some(Control::Damaged) => {
                    return Err(io::Error::other("the kernel's answer is damaged").into());
                }
            }
        }
    }
}

/// A transaction of nf_tables for a generation that is none (`nfnetlink_rcv_batch`). It has
/// no end either: a kernel that knows no generations here gives it up.
fn batch(sequence: u32) -> [u8; HEADERS + 8] {
    let mut bytes = [0; HEADERS + 8];
    bytes[0..4].copy_from_slice(&28_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&BATCH_BEGIN.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    // Which subsystem it is for (`res_id`).
    bytes[18..20].copy_from_slice(&(SUBSYSTEM >> 8).to_be_bytes());
    // `NFNL_BATCH_GENID`.
    bytes[20..22].copy_from_slice(&8_u16.to_ne_bytes());
    bytes[22..24].copy_from_slice(&1_u16.to_ne_bytes());
    bytes[24..28].copy_from_slice(&u32::MAX.to_be_bytes());
    bytes
}

fn request(question: Question<'_>, flags: u16, sequence: u32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADERS];
    for (kind, value) in question.attributes {
        bytes.extend(attribute(*kind, value)?);
    }
    let too_long = |_| io::Error::other("a name is too long to be asked for");
    let length = u32::try_from(bytes.len()).map_err(too_long)?;
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&(SUBSYSTEM | question.command).to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes[16] = question.family;
    Ok(bytes)
}

/// An attribute with its padding.
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
