//! Netlink messages of nf_tables: taking them apart in place, and asking for them.
//!
//! Kernel: `net/netfilter/nfnetlink.c`, `net/netfilter/nf_tables_api.c`. All numbers in
//! attributes are big endian, unlike those of other netlink families.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::{Arc, mpsc};
use std::thread;

use rustix::net::{SendFlags, send};

use super::super::allowance::Allowance;
use crate::live::netlink::{self, NETFILTER, Netlink, NetlinkRequest};
pub(super) use crate::live::netlink::{Attributes, NESTED, attribute};
use whereis_port_model::SetId;

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

/// A message of nf_tables behind its header.
#[derive(Debug, Clone, Copy)]
pub(in crate::live::rules) struct NftMessage<'a> {
    /// `NFPROTO_*`.
    pub(super) family: u8,
    /// The attributes.
    pub(super) body: &'a [u8],
}

impl<'a> NftMessage<'a> {
    fn of(message: &netlink::NetlinkMessage<'a>) -> Self {
        let family = message.body.first().copied().unwrap_or_default();
        Self { family, body: message.attributes() }
    }
}

/// The messages in what one read of the socket gave.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn messages(bytes: &[u8]) -> impl Iterator<Item = NftMessage<'_>> {
    netlink::messages(bytes).map(|message| NftMessage::of(&message))
}

/// Why a read gave nothing that can be relied on.
#[derive(Debug)]
pub(in crate::live::rules) enum Failed {
    /// The rules changed meanwhile.
    Changed,
    /// A change is being made, which does not end in time.
    Busy,
    /// There is more than is read.
    TooMuch,
    /// A set has more elements than are read.
    TooMany(SetId),
    /// The kernel or the socket said so.
    Io(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Interrupted => Self::Changed,
            _ => Self::Io(error),
        }
    }
}

impl Failed {
    /// Whether the kernel says that it has no nf_tables.
    pub(in crate::live::rules) fn is_not_there(&self) -> bool {
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
pub(in crate::live::rules) struct Conversation {
    netlink: Netlink,
    /// Whether elements came in several pieces since the generation was asked for.
    in_pieces: bool,
    /// How much may be read.
    allowance: Arc<Allowance>,
    /// Whether a change is being made that did not end in time.
    busy: bool,
}

/// A request to nf_tables: the command, and what it is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct NftRequest<'a> {
    pub(super) command: u16,
    /// `NFPROTO_*`, 0 for all.
    pub(super) family: u8,
    pub(super) attributes: &'a [(u16, &'a [u8])],
}

impl Conversation {
    /// In the namespace of the calling thread; it can be used in any thread then.
    pub(in crate::live::rules) fn open(allowance: Arc<Allowance>) -> io::Result<Self> {
        let netlink = Netlink::open(NETFILTER, usize::MAX)?;
        Ok(Self { netlink, in_pieces: false, allowance, busy: false })
    }

    /// Whether nothing more can be asked: an answer was not read to its end.
    pub(in crate::live::rules) fn is_spoilt(&self) -> bool {
        self.netlink.is_spoilt()
    }

    /// Everything of a kind.
    pub(super) fn dump(
        &mut self,
        question: NftRequest<'_>,
        mut each: impl FnMut(NftMessage<'_>),
    ) -> Result<(), Failed> {
        self.dump_while(question, |message| {
            each(message);
            true
        })
    }

    /// The same, until `each` wants no more: to go on with a long answer costs the kernel
    /// more with each piece. Nothing else can be asked in this conversation then.
    pub(super) fn dump_while(
        &mut self,
        question: NftRequest<'_>,
        each: impl FnMut(NftMessage<'_>) -> bool,
    ) -> Result<(), Failed> {
        let pieces = self.ask(question, NetlinkRequest::dump, each)?;
        // They come in an order that changes with what is not in use yet.
        self.in_pieces |= pieces > 1 && question.command == GET_SETELEM;
        Ok(())
    }

    /// One thing by its name.
    pub(super) fn get(
        &mut self,
        question: NftRequest<'_>,
        mut each: impl FnMut(NftMessage<'_>),
    ) -> Result<(), Failed> {
        self.ask(question, NetlinkRequest::get, |message| {
            each(message);
            true
        })
        .map(drop)
    }

    /// The generation of the rules, which counts up with each change. (The program
    /// that the kernel names beside it is the one that asks.)
    pub(in crate::live::rules) fn generation(&mut self) -> Result<u32, Failed> {
        let mut generation = 0;
        let question = NftRequest { command: GET_GENERATION, family: 0, attributes: &[] };
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
    ///
    /// No signal ends that wait, and who makes the change decides how long it takes. So a
    /// thread waits, which is left behind when it takes too long: it ends with the change.
    fn settle(&mut self) -> Result<(), Failed> {
        if self.busy {
            return Err(Failed::Busy);
        }
        let message = self.netlink.number(&no_transaction()?);
        let socket = self.netlink.as_fd().try_clone_to_owned()?;
        let (done, wait) = mpsc::sync_channel(1);
        let again = message.clone();
        let ask = move || {
            // Nobody waits for it any more.
            let _ = done.send(send(&socket, &message, SendFlags::empty()));
        };
        if thread::Builder::new().name("settle".to_owned()).spawn(ask).is_err() {
            send(&self.netlink, &again, SendFlags::empty()).map_err(io::Error::from)?;
            return Ok(());
        }
        match wait.recv_timeout(self.allowance.patience) {
            Ok(sent) => {
                sent.map_err(io::Error::from)?;
                Ok(())
            }
            Err(_) => {
                self.busy = true;
                Err(Failed::Busy)
            }
        }
    }

    /// Takes so many bytes more from what may be read: of what takes more room than it had
    /// in messages.
    pub(super) fn take(&self, bytes: usize) -> Result<(), Failed> {
        if self.allowance.take(bytes) { Ok(()) } else { Err(Failed::TooMuch) }
    }

    pub(super) fn allowance(&self) -> Arc<Allowance> {
        Arc::clone(&self.allowance)
    }

    /// In how many pieces the answer came.
    fn ask(
        &mut self,
        question: NftRequest<'_>,
        kind: fn(u16, &[u8]) -> NetlinkRequest,
        mut each: impl FnMut(NftMessage<'_>) -> bool,
    ) -> Result<usize, Failed> {
        self.take(1)?;
        let mut request = kind(SUBSYSTEM | question.command, &[question.family, 0, 0, 0]);
        for (kind, value) in question.attributes {
            request = request.with(*kind, value)?;
        }
        let (allowance, mut is_enough) = (&self.allowance, true);
        let answer = self.netlink.ask(&request, |message| {
            is_enough = allowance.take(message.body.len());
            is_enough && each(NftMessage::of(&message))
        });
        if is_enough { Ok(answer?.pieces) } else { Err(Failed::TooMuch) }
    }
}

/// A transaction of nf_tables for a generation that is none (`nfnetlink_rcv_batch`). It has
/// no end either: a kernel that knows no generations here gives it up.
fn no_transaction() -> io::Result<NetlinkRequest> {
    // Behind family and version: which subsystem it is for (`res_id`).
    let subsystem = (SUBSYSTEM >> 8).to_be_bytes();
    let header = [0, 0, subsystem[0], subsystem[1]];
    // `NFNL_BATCH_GENID`.
    NetlinkRequest::new(BATCH_BEGIN, netlink::REQUEST, &header).with(1, &u32::MAX.to_be_bytes())
}
