//! The certificates that listeners show: one TLS handshake with each, in its own network
//! namespace, and nothing more. Certificates are read, not verified.

mod handshake;
mod parse;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::{LiveNode, gaps};
use crate::Listeners;
use whereis_port_model::{Certificate, Gap, GapKind, GapSource, Impact, Read, TlsAsk};

const SOURCE: &str = "TLS handshakes";

impl Listeners for LiveNode {
    fn certificates(&self, asks: &[TlsAsk]) -> Vec<Read<Option<Certificate>>> {
        let mut new: Vec<TlsAsk> = Vec::new();
        for ask in asks {
            if !self.certificates.borrow().contains_key(ask) && !new.contains(ask) {
                new.push(*ask);
            }
        }
        if !new.is_empty() {
            let since = Instant::now();
            let reads = self.begin_tls(&new);
            let gaps: Vec<Gap> = reads.iter().flat_map(|read| read.gaps.clone()).collect();
            let mut memo = self.certificates.borrow_mut();
            memo.extend(new.into_iter().zip(reads));
            let read = memo.values().filter(|read| read.value.is_some()).count();
            let detail = format!("{read} certificates of {} listeners", memo.len());
            self.log(SOURCE, since, &gaps, detail);
        }
        let memo = self.certificates.borrow();
        asks.iter().map(|ask| memo.get(ask).cloned().unwrap_or_default()).collect()
    }
}

impl LiveNode {
    /// A socket belongs to the namespace that it was made in: only making them needs to be
    /// inside, and all handshakes go on together here.
    fn begin_tls(&self, asks: &[TlsAsk]) -> Vec<Read<Option<Certificate>>> {
        let doors = self.doors(asks.iter().map(|ask| ask.netns));
        let sockets = self.pool.in_each(&doors, |_| (socket(false), socket(true)));
        let begun = asks.iter().zip(sockets).map(|(ask, made)| {
            let (v4, v6) = made.map_err(gaps::reason)?;
            let socket = if ask.address.is_ipv6() { v6 } else { v4 };
            let socket = socket.map_err(|error| format!("no socket for it: {error}"))?;
            Ok((socket, SocketAddr::new(ask.address, ask.port.0)))
        });
        let shown = handshake::all(begun.collect());
        let reads = asks.iter().zip(shown).map(|(ask, shown)| {
            let certificate = shown.and_then(|der| {
                parse::certificate(&der)
                    .map_err(|why| format!("its certificate is not understood: {why}"))
            });
            match certificate {
                Ok(certificate) => Read::whole(Some(certificate)),
                Err(why) => {
                    let at = SocketAddr::new(ask.address, ask.port.0);
                    let source = format!("{at} in netns {}", ask.netns);
                    let source = GapSource::new(GapKind::Certificate, source);
                    Read::partial(None, Gap::new(Impact::Name, source, why))
                }
            }
        });
        reads.collect()
    }
}

/// A socket for TCP, not connected, in the namespace of the calling thread.
fn socket(v6: bool) -> io::Result<TcpStream> {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    Ok(socket.into())
}

/// For the fuzz target: whatever the bytes are, an answer comes.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    let _ = parse::certificate(bytes);
}
