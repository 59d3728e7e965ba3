//! NAT as it happens: conntrack's events, in every network namespace.
//!
//! Kernel: `net/netfilter/nf_conntrack_netlink.c` and `nf_conntrack_ecache.c`.
//! One netlink socket for each namespace, since a socket hears only the namespace
//! it was made in. (`NETLINK_LISTEN_ALL_NSID` would hear several, but only those
//! that have an id in the listener's namespace, and giving them one is a change.)
//!
//! **Where it listens:** in each namespace, if the kernel has conntrack at all.
//! Conntrack tracks a namespace when a rule in there asks for it, which no file
//! tells: `nf_conntrack_count` is there in all of them and is 0 in an idle one
//! too. A subscription costs a descriptor, makes no namespace be tracked, and
//! hears of rules that are added while it listens.
//!
//! **What it changes:** with `nf_conntrack_events` at 2, the default since Linux
//! 5.19, new connections get room for events while anybody listens. And a socket
//! keeps its namespace alive: see [`ConntrackListener::refresh`]. No module is loaded.
//!
//! The messages are taken apart here and not by netlink-packet-netfilter (0.4):
//! it gives up a whole message when one attribute that is of no interest has an
//! unknown form, does not know the timestamps, and allocates for every attribute
//! of every message, where most are of connections without NAT.

mod dump;
#[cfg(test)]
mod dump_tests;
mod entry;
mod merge;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SocketAddrAny};

pub(in crate::live) use merge::Merge;
#[cfg(test)]
pub(in crate::live) use tests::Lab;

use super::enter::{EnterError, NetnsHandle, Pool};
use super::{files, gaps, nat, netlink};
use whereis_port_model::{
    Event, EventKind, Gap, GapKind, GapSource, Impact, NetnsId, Port, SeenBy,
};

/// `NFNLGRP_CONNTRACK_NEW` and `NFNLGRP_CONNTRACK_DESTROY`, as bits.
const GROUPS: u32 = 1 << 0 | 1 << 2;
/// Room for some ten thousand messages, which is what a burst of connections
/// makes between two reads. Taken only as it fills.
const RECEIVE_BUFFER: usize = 8 << 20;
/// How many messages of one namespace are read before the next one's: a busy
/// namespace must not keep the others waiting.
const AT_ONCE: usize = 4096;
/// In how many namespaces is listened at most: each takes a descriptor and a buffer, and is
/// entered before the watch begins. Anybody can make thousands.
const MOST: usize = 1000;
/// Longer than any message about one connection.
const MESSAGE: usize = 32 * 1024;

/// Where the kernel keeps conntrack's settings, for the namespace of the thread
/// that looks.
const SETTINGS: &str = "/proc/sys/net/netfilter";

/// Listens to conntrack in many namespaces.
pub(super) struct ConntrackListener {
    subscriptions: Vec<Subscription>,
    /// Lost by subscriptions that have ended.
    lost: u64,
    receive_buffer: usize,
    buffer: Vec<u8>,
}

/// One socket, in one namespace.
struct Subscription {
    netns: NetnsId,
    socket: OwnedFd,
    /// How often the kernel said that it had dropped something.
    overruns: u64,
    /// How many messages it said that it had dropped.
    dropped: u64,
    /// Whether it may have dropped more since that number was read.
    overrun: bool,
}

/// Why events of conntrack can't be had.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ConntrackError {
    NoModule,
    NotBuilt,
    Off,
    Earlier,
    Denied,
    Descriptors,
    Entry(String),
    Failed(String),
}

impl ConntrackListener {
    /// Subscribes in each of these namespaces. The gaps say where no events, or
    /// not all, will come from.
    pub(super) fn open(doors: &[NetnsHandle]) -> (Self, Vec<Gap>) {
        Self::with_receive_buffer(doors, RECEIVE_BUFFER)
    }

    fn with_receive_buffer(doors: &[NetnsHandle], receive_buffer: usize) -> (Self, Vec<Gap>) {
        let buffer = Vec::with_capacity(MESSAGE);
        let mut listener = Self { subscriptions: Vec::new(), lost: 0, receive_buffer, buffer };
        let gaps = listener.refresh(doors);
        (listener, gaps)
    }

    /// Makes the subscriptions those of exactly these namespaces: new ones are
    /// added, and those that are not among `doors` end. To be called every few
    /// seconds with the namespaces as they are then: a namespace whose last
    /// process has ended lives on, with its interfaces, while a socket of it is
    /// open. The gaps are those of the new ones.
    pub(super) fn refresh(&mut self, doors: &[NetnsHandle]) -> Vec<Gap> {
        let (doors, left_out) = choose(doors);
        let wanted: HashSet<NetnsId> = doors.iter().map(|door| door.id).collect();
        for mut ended in self.subscriptions.extract_if(.., |known| !wanted.contains(&known.netns)) {
            ended.count_dropped();
            self.lost += ended.lost();
        }
        let known: HashSet<NetnsId> = self.subscriptions.iter().map(|known| known.netns).collect();
        let new: Vec<NetnsHandle> =
            doors.into_iter().filter(|door| !known.contains(&door.id)).cloned().collect();
        let has_module = !new.is_empty() && nat::has_module("nf_conntrack_netlink");
        let receive_buffer = self.receive_buffer;
        let results = Pool::default().in_each(&new, move |_| subscribe(has_module, receive_buffer));
        let mut troubles = Vec::new();
        for (door, result) in new.iter().zip(results) {
            let (socket, trouble) = match result {
                Ok(Ok(subscribed)) => subscribed,
                Ok(Err(error)) => (None, Some(ConntrackError::of(&error))),
                Err(EnterError::Gone) if door.id.inode().is_some() => (None, None),
                Err(EnterError::Failed(Errno::MFILE)) => (None, Some(ConntrackError::Descriptors)),
                Err(refused @ EnterError::Denied(_)) => {
                    (None, Some(ConntrackError::Entry(gaps::reason(refused))))
                }
                Err(refused) => (None, Some(ConntrackError::Failed(gaps::reason(refused)))),
            };
            troubles.extend(trouble.map(|trouble| (door.id, trouble)));
            self.subscriptions.extend(socket.map(|socket| Subscription {
                netns: door.id,
                socket,
                overruns: 0,
                dropped: 0,
                overrun: false,
            }));
        }
        let mut gaps = as_gaps(&troubles);
        gaps.extend(left_out);
        gaps
    }

    /// The descriptors to poll for reading before [`ConntrackListener::read`].
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.subscriptions.iter().map(|subscription| subscription.socket.as_fd())
    }

    /// How many namespaces are listened to.
    pub(super) fn namespaces(&self) -> usize {
        self.subscriptions.len()
    }

    /// How many messages were lost: at least this many, exactly this many where
    /// the kernel counts them (Linux 4.12). It does not tell what they were about,
    /// so some may have been of connections without NAT.
    pub(super) fn lost(&self) -> u64 {
        self.lost + self.subscriptions.iter().map(Subscription::lost).sum::<u64>()
    }

    /// What has come, without waiting: connections of TCP and UDP that NAT
    /// changes, in the order of their times. The time is that of reading, unless
    /// the kernel takes times (`nf_conntrack_timestamp`). There may be more when
    /// very much has come; the descriptors are still readable then.
    pub(super) fn read(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for subscription in &mut self.subscriptions {
            subscription.read(&mut self.buffer, &mut events);
        }
        events.sort_by_key(|event| event.at);
        events
    }
}

/// The namespaces that are listened to: the own one and those with the lowest numbers, which are
/// the oldest as a rule, so that one that is listened to stays. And what is left out.
fn choose(doors: &[NetnsHandle]) -> (Vec<&NetnsHandle>, Option<Gap>) {
    let mut chosen: Vec<&NetnsHandle> = doors.iter().collect();
    chosen.sort_by_key(|door| (!door.own, door.id));
    let left_out = chosen.len().saturating_sub(MOST);
    chosen.truncate(MOST);
    let gap = (left_out > 0).then(|| {
        let reason = format!(
            "{left_out} of {} namespaces are not listened to, only {MOST} at once",
            doors.len()
        );
        let source = GapSource::new(GapKind::Events, "NAT events of more namespaces");
        let gap = Gap::new(Impact::Port, source, reason);
        gap.remedy("run it inside of the namespace: nsenter --net=FILE whereis-port trace -e nat")
    });
    (chosen, gap)
}

impl Subscription {
    fn read(&mut self, buffer: &mut Vec<u8>, events: &mut Vec<Event>) {
        let now = now();
        for _ in 0..AT_ONCE {
            buffer.clear();
            let room = rustix::buffer::spare_capacity(buffer);
            match rustix::net::recvfrom(&self.socket, room, RecvFlags::DONTWAIT) {
                // Anybody with rights in the namespace may write to the socket:
                // only the kernel is believed.
                Ok((.., sender)) if sender.as_ref().is_some_and(is_kernel) => {
                    let messages = netlink::messages(buffer);
                    let told = messages.filter_map(|message| parse::nat_message(&message));
                    events.extend(told.map(|message| event(self.netns, now, message)));
                }
                Ok(_) => {}
                Err(Errno::NOBUFS) => {
                    self.overruns += 1;
                    self.overrun = true;
                }
                Err(Errno::INTR) => {}
                // Nothing is left. The kernel has dropped everything that
                // came between an overrun and now.
                Err(_) => {
                    if self.overrun {
                        self.count_dropped();
                        self.overrun = false;
                    }
                    return;
                }
            }
        }
    }

    fn lost(&self) -> u64 {
        self.overruns.max(self.dropped)
    }

    fn count_dropped(&mut self) {
        self.dropped = dropped(&self.socket).unwrap_or(self.dropped);
    }
}

fn is_kernel(sender: &SocketAddrAny) -> bool {
    SocketAddrNetlink::try_from(sender.clone()).is_ok_and(|sender| sender.pid() == 0)
}

fn event(netns: NetnsId, now: u64, message: parse::NatMessage) -> Event {
    let parse::NatMessage { proto, nat, at } = message;
    Event {
        at: at.unwrap_or(now),
        kind: EventKind::Nat,
        proto,
        netns: Some(netns),
        address: nat.destination.ip(),
        port: Some(Port(nat.destination.port())),
        peer: Some(nat.source),
        inode: None,
        actor: None,
        nat: Some(nat),
        dropped: None,
        seen_by: SeenBy::Conntrack,
    }
}

/// Nanoseconds since the epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Subscribes in the namespace of this thread: the socket, unless there is nothing
/// to hear, and what will be missing.
fn subscribe(
    has_module: bool,
    receive_buffer: usize,
) -> io::Result<(Option<OwnedFd>, Option<ConntrackError>)> {
    // The second one is of the namespaces of containers without root, whose
    // settings older kernels hide.
    let has_settings = files::is_there(Path::new(SETTINGS).join("nf_conntrack_count"));
    if !has_settings && !files::is_there("/proc/thread-self/net/stat/nf_conntrack") {
        return Ok((None, None));
    }
    if !has_module {
        return Ok((None, Some(ConntrackError::NoModule)));
    }
    let socket = netlink::socket(netlink::NETFILTER)?;
    // More than the administrator's limit takes a right in the initial namespace.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, receive_buffer).is_err() {
        // A small buffer loses events sooner, and that is counted.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, receive_buffer);
    }
    let trouble = match setting("nf_conntrack_events").as_deref() {
        Some("0") => Some(ConntrackError::Off),
        Some("2") if setting("nf_conntrack_count").is_some_and(|n| n != "0") => {
            Some(ConntrackError::Earlier)
        }
        None if has_settings => return Ok((None, Some(ConntrackError::NotBuilt))),
        _ => None,
    };
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok((Some(socket), trouble))
}

fn setting(name: &str) -> Option<String> {
    let text = files::text(Path::new(SETTINGS).join(name), files::SMALL).ok()?;
    Some(text.trim().to_owned())
}

impl ConntrackError {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Denied,
            Some(libc::EMFILE) => Self::Descriptors,
            _ => Self::Failed(error.to_string()),
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::NoModule => "the module nf_conntrack_netlink is not loaded".to_owned(),
            Self::NotBuilt => "the kernel was built without conntrack events".to_owned(),
            Self::Off => "they are switched off (net.netfilter.nf_conntrack_events is 0)".to_owned(),
            Self::Earlier => "connections that were tracked before may end untold (net.netfilter.nf_conntrack_events is 2: on demand)".to_owned(),
            Self::Denied => "subscribing takes CAP_NET_ADMIN there".to_owned(),
            Self::Descriptors => {
                "there are more namespaces than files may be open, and each takes one".to_owned()
            }
            Self::Entry(why) | Self::Failed(why) => why.clone(),
        }
    }

    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::NoModule => Some("modprobe nf_conntrack_netlink"),
            Self::Off => Some("sysctl -w net.netfilter.nf_conntrack_events=1 in that namespace"),
            Self::Earlier => Some(
                "sysctl -w net.netfilter.nf_conntrack_events=1 in that namespace, before the connections begin",
            ),
            Self::Denied => Some("run as root, or with CAP_NET_ADMIN"),
            Self::Descriptors => Some("raise the limit: ulimit -n"),
            Self::Entry(_) => Some("run as root, or with CAP_SYS_ADMIN"),
            Self::NotBuilt | Self::Failed(_) => None,
        }
    }
}

/// One gap for all namespaces with the same trouble.
fn as_gaps(troubles: &[(NetnsId, ConntrackError)]) -> Vec<Gap> {
    let reasons: Vec<_> = troubles.iter().map(|(id, trouble)| (*id, trouble.reason())).collect();
    gaps::each_reason(&reasons, |namespaces, why, ids| {
        let trouble = troubles.iter().find(|(id, _)| ids.contains(id)).map(|(_, trouble)| trouble);
        // All that begins from now on is told, and so is its end.
        let impact =
            if trouble == Some(&ConntrackError::Earlier) { Impact::Name } else { Impact::Port };
        let source = GapSource::new(GapKind::Events, format!("NAT events of {namespaces}"));
        let gap = Gap::new(impact, source, why);
        match trouble.and_then(ConntrackError::remedy) {
            Some(remedy) => gap.remedy(remedy),
            None => gap,
        }
    })
}

/// How many messages the kernel has dropped because the socket's buffer was full
/// (`SO_MEMINFO`, Linux 4.12).
#[expect(unsafe_code, reason = "no library has this socket option yet")]
fn dropped(socket: &OwnedFd) -> Option<u64> {
    /// `SK_MEMINFO_DROPS` of `linux/sock_diag.h`.
    const DROPS: usize = 8;
    let mut numbers = [0u32; DROPS + 1];
    let size = size_of_val(&numbers);
    let mut length = libc::socklen_t::try_from(size).ok()?;
    // SAFETY: the kernel writes at most `length` bytes, the size of `numbers`, to
    // `numbers`, and how many to `length`; both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0 && usize::try_from(length) == Ok(size)).then(|| u64::from(numbers[DROPS]))
}

/// For the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    for message in super::netlink::messages(bytes) {
        parse::nat_message(&message);
        entry::of_message(NetnsId::Inode(1), &message);
    }
    for line in String::from_utf8_lossy(bytes).lines() {
        entry::of_line(NetnsId::Inode(1), line);
    }
}
