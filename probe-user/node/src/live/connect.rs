//! Connecting to a port, to see whether it works. Nothing is sent, and it is closed soon.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};

use super::{LiveNode, gaps};
use whereis_port_model::{ConnectAsk, Connected, Gap, GapKind, Impact, NetnsId, Read};

/// How long a connection may take to be made.
const LIMIT: Duration = Duration::from_secs(1);
/// How long one that is made is looked at: a proxy that finds nothing behind it closes it.
const LOOKED_AT: Duration = Duration::from_millis(200);

impl LiveNode {
    /// Makes these connections, those of one namespace all at the same time, and says what became
    /// of each.
    pub(super) fn connect_all(&self, asks: &[ConnectAsk]) -> Read<Vec<Connected>> {
        let since = Instant::now();
        let mut by_netns: BTreeMap<NetnsId, Vec<SocketAddr>> = BTreeMap::new();
        for ask in asks {
            by_netns.entry(ask.netns).or_default().push(ask.to);
        }
        let doors = self.doors(by_netns.keys().copied());
        let wanted = by_netns.clone();
        let all = self.pool.in_each(&doors, move |door| {
            each(wanted.get(&door.id).map(Vec::as_slice).unwrap_or_default())
        });
        let mut gaps_found = Vec::new();
        let mut said: BTreeMap<(NetnsId, SocketAddr), Connected> = BTreeMap::new();
        for ((netns, to), result) in by_netns.iter().zip(all) {
            match result {
                Ok(results) => {
                    said.extend(to.iter().zip(results).map(|(to, one)| ((*netns, *to), one)));
                }
                Err(refused) => gaps_found.push(Gap::new(
                    Impact::Reach,
                    GapKind::Port,
                    format!(
                        "from network namespace {netns} nothing was tried: {}",
                        gaps::reason(refused)
                    ),
                )),
            }
        }
        self.log("connections", since, &gaps_found, format!("{} tried", asks.len()));
        let of = |ask: &ConnectAsk| said.get(&(ask.netns, ask.to)).copied();
        let value = asks.iter().map(|ask| of(ask).unwrap_or(Connected::NotTried)).collect();
        Read { value, gaps: gaps_found }
    }
}

/// How many are tried a second time.
const AGAIN: usize = 4;

/// How far an attempt to connect has got.
enum ConnectProgress {
    Begun(OwnedFd),
    Made(OwnedFd),
    Done(Connected),
}

/// Connects from the namespace of this thread. Where one port answers some and not others, its
/// queue may have been full of the former: those are tried once more, each alone.
fn each(to: &[SocketAddr]) -> Vec<Connected> {
    let mut said = at_once(to);
    let answered: Vec<u16> = to
        .iter()
        .zip(&said)
        .filter(|(_, one)| matches!(one, Connected::Open | Connected::ClosedAtOnce))
        .map(|(to, _)| to.port())
        .collect();
    let silent = |(to, one): (&SocketAddr, &Connected)| {
        *one == Connected::TimedOut && answered.contains(&to.port())
    };
    let again: Vec<usize> = (0..to.len()).filter(|at| silent((&to[*at], &said[*at]))).collect();
    for at in again.into_iter().take(AGAIN) {
        said[at] = at_once(&to[at..=at]).pop().unwrap_or(Connected::NotTried);
    }
    said
}

fn at_once(to: &[SocketAddr]) -> Vec<Connected> {
    let mut states: Vec<ConnectProgress> = to.iter().map(begin).collect();
    let is_begun = |state: &ConnectProgress| matches!(state, ConnectProgress::Begun(_));
    wait(&mut states, LIMIT, PollFlags::OUT, is_begun, |fd| match sockopt::socket_error(&fd) {
        Ok(Ok(())) => ConnectProgress::Made(fd),
        Ok(Err(error)) | Err(error) => ConnectProgress::Done(failed(error)),
    });
    let is_made = |state: &ConnectProgress| matches!(state, ConnectProgress::Made(_));
    wait(&mut states, LOOKED_AT, PollFlags::IN, is_made, |fd| {
        let mut byte = [0; 1];
        let peeked = rustix::net::recv(&fd, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        ConnectProgress::Done(match peeked {
            // It speaks first.
            Ok((1.., _)) => Connected::Open,
            Ok(_) | Err(_) => Connected::ClosedAtOnce,
        })
    });
    let end = |state| match state {
        ConnectProgress::Begun(_) => Connected::TimedOut,
        ConnectProgress::Made(_) => Connected::Open,
        ConnectProgress::Done(said) => said,
    };
    states.into_iter().map(end).collect()
}

fn begin(to: &SocketAddr) -> ConnectProgress {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let Ok(socket) = rustix::net::socket_with(family, SocketType::STREAM, flags, None) else {
        return ConnectProgress::Done(Connected::NotTried);
    };
    match rustix::net::connect(&socket, to) {
        Ok(()) => ConnectProgress::Made(socket),
        Err(Errno::INPROGRESS) => ConnectProgress::Begun(socket),
        Err(error) => ConnectProgress::Done(failed(error)),
    }
}

fn failed(error: Errno) -> Connected {
    match error {
        Errno::CONNREFUSED | Errno::CONNRESET => Connected::Refused,
        Errno::TIMEDOUT => Connected::TimedOut,
        Errno::HOSTUNREACH
        | Errno::NETUNREACH
        | Errno::INVAL
        | Errno::ACCESS
        | Errno::PERM
        | Errno::NETDOWN
        | Errno::ADDRNOTAVAIL => Connected::Unreachable,
        _ => Connected::NotTried,
    }
}

/// Waits until nothing that is `waiting` is left, and makes of each what it has come to.
fn wait(
    states: &mut [ConnectProgress],
    limit: Duration,
    events: PollFlags,
    waiting: impl Fn(&ConnectProgress) -> bool,
    next: impl Fn(OwnedFd) -> ConnectProgress,
) {
    let until = Instant::now() + limit;
    loop {
        let mut of: Vec<usize> = Vec::new();
        let mut polled: Vec<PollFd<'_>> = Vec::new();
        for (at, state) in states.iter().enumerate().filter(|(_, state)| waiting(state)) {
            if let ConnectProgress::Begun(fd) | ConnectProgress::Made(fd) = state {
                polled.push(PollFd::new(fd, events));
                of.push(at);
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        if polled.is_empty() || left.is_zero() {
            return;
        }
        let left = Timespec::try_from(left).ok();
        if rustix::event::poll(&mut polled, left.as_ref()).is_err() {
            continue;
        }
        let ready: Vec<usize> = of
            .iter()
            .zip(&polled)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(at, _)| *at)
            .collect();
        drop(polled);
        for at in ready {
            let state =
                std::mem::replace(&mut states[at], ConnectProgress::Done(Connected::NotTried));
            states[at] = match state {
                ConnectProgress::Begun(fd) | ConnectProgress::Made(fd) => next(fd),
                done @ ConnectProgress::Done(_) => done,
            };
        }
    }
}
