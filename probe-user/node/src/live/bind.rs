//! Binding a socket, to see whether it works. It is closed at once: nothing listens, and nothing
//! is sent.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::Uid;

use super::{LiveNode, gaps};
use crate::Attempts;
use whereis_port_model::{
    BindAsk, BindError, ConnectAsk, Connected, Gap, GapKind, GapSource, Impact, NetnsId, Port,
    Proto, Read,
};

/// A port of the own namespace that nobody else can have while this lives: a socket is bound to
/// it at all addresses, and neither listens nor sends.
#[derive(Debug)]
pub struct HeldPort(#[expect(dead_code, reason = "it is held, and that is all")] OwnedFd);

/// Holds a port.
///
/// # Errors
/// What the kernel says when it can't be had.
pub fn hold_port(proto: Proto, port: Port) -> io::Result<HeldPort> {
    // The namespace is that of the thread, whatever it is called.
    let all = |address: IpAddr| BindAsk::server(NetnsId::Inode(0), proto, address, port);
    let six = bound(&all(Ipv6Addr::UNSPECIFIED.into()));
    let socket = match six {
        Ok(Err(Errno::AFNOSUPPORT)) => bound(&all(Ipv4Addr::UNSPECIFIED.into())),
        six => six,
    };
    match socket {
        Ok(Ok(socket)) => Ok(HeldPort(socket)),
        Ok(Err(errno)) => Err(errno.into()),
        Err((what, errno)) => Err(io::Error::other(format!("{what}: {errno}"))),
    }
}

/// Why a socket could not even be made as it was asked for.
type Untried = (&'static str, Errno);

impl Attempts for LiveNode {
    fn try_connect(&self, asks: &[ConnectAsk]) -> Read<Vec<Connected>> {
        self.connect_all(asks)
    }

    fn try_bind(&self, ask: &BindAsk) -> Read<Option<Result<(), BindError>>> {
        let since = Instant::now();
        let (doors, asked) = (self.doors([ask.netns]), *ask);
        let result = self.pool.in_each(&doors, move |_| as_user(&asked)).pop();
        let why = match result {
            Some(Ok(Ok(said))) => {
                self.log("bind", since, &[], "tried".to_owned());
                return Read::whole(Some(said.map_err(error)));
            }
            Some(Ok(Err((what, errno)))) => format!("{what}: {errno}"),
            Some(Err(refused)) => gaps::reason(refused),
            None => "the namespace is gone".to_owned(),
        };
        let source = GapSource::new(GapKind::Port, format!("{}/{}", ask.port, ask.proto));
        let gap = Gap::new(Impact::Bind, source, format!("it could not be tried: {why}"));
        self.log("bind", since, std::slice::from_ref(&gap), "not tried".to_owned());
        Read::partial(None, gap)
    }
}

/// Tries it as the user that was asked for: in a thread of its own, which never comes back.
fn as_user(ask: &BindAsk) -> Result<Result<(), Errno>, Untried> {
    if rustix::process::geteuid().as_raw() == ask.uid {
        return attempt(ask);
    }
    let work = || {
        let uid = Uid::from_raw(ask.uid);
        // Of this thread alone; the capabilities of root go with it.
        rustix::thread::set_thread_res_uid(uid, uid, uid)
            .map_err(|errno| ("becoming that user", errno))?;
        attempt(ask)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work);
        let thread = thread.map_err(|_| ("starting a thread", Errno::AGAIN))?;
        thread.join().unwrap_or(Err(("trying", Errno::IO)))
    })
}

fn attempt(ask: &BindAsk) -> Result<Result<(), Errno>, Untried> {
    bound(ask).map(|said| said.map(drop))
}

/// Such a socket, bound.
fn bound(ask: &BindAsk) -> Result<Result<OwnedFd, Errno>, Untried> {
    let address = match ask.address.to_canonical() {
        IpAddr::V6(_) => ask.address,
        four => four,
    };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match ask.proto {
        Proto::Tcp => SocketType::STREAM,
        Proto::Udp => SocketType::DGRAM,
    };
    let socket = match rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None) {
        Ok(socket) => socket,
        Err(errno @ Errno::AFNOSUPPORT) => return Ok(Err(errno)),
        Err(errno) => return Err(("making a socket", errno)),
    };
    let set = |what: &'static str, done: Result<(), Errno>| done.map_err(|errno| (what, errno));
    if ask.reuse_addr {
        set("SO_REUSEADDR", sockopt::set_socket_reuseaddr(&socket, true))?;
    }
    if ask.reuse_port {
        set("SO_REUSEPORT", sockopt::set_socket_reuseport(&socket, true))?;
    }
    if address.is_ipv6() {
        set("IPV6_V6ONLY", sockopt::set_ipv6_v6only(&socket, ask.v6only))?;
    }
    let to = match (address, ask.ifindex) {
        // Its interface is part of the address, and needs no right of its own.
        (IpAddr::V6(narrow), Some(index)) if narrow.is_unicast_link_local() => {
            SocketAddrV6::new(narrow, ask.port.0, 0, index).into()
        }
        (_, index) => {
            if let Some(index) = index {
                set("binding to the interface", to_device(&socket, index))?;
            }
            SocketAddr::new(address, ask.port.0)
        }
    };
    let done = rustix::net::bind(&socket, &to);
    Ok(done.map(|()| socket))
}

/// `SO_BINDTOIFINDEX` (Linux 5.1).
#[expect(unsafe_code, reason = "rustix has no such option")]
fn to_device(socket: &OwnedFd, index: u32) -> Result<(), Errno> {
    use std::os::fd::AsRawFd as _;
    let index = i32::try_from(index).map_err(|_| Errno::INVAL)?;
    let size = libc::socklen_t::try_from(size_of_val(&index)).map_err(|_| Errno::INVAL)?;
    // SAFETY: the option takes an int, which lives as long as the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTOIFINDEX,
            (&raw const index).cast(),
            size,
        )
    };
    if done == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

fn error(errno: Errno) -> BindError {
    match errno {
        Errno::ADDRINUSE => BindError::InUse,
        Errno::ACCESS => BindError::Privileged,
        Errno::ADDRNOTAVAIL => BindError::NotAvailable,
        Errno::INVAL | Errno::NODEV => BindError::Invalid,
        Errno::AFNOSUPPORT => BindError::NoFamily,
        Errno::PERM => BindError::NotPermitted,
        other => BindError::Other(other.raw_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_is_tried_and_leaves_nothing() {
        let node = LiveNode::new().unwrap();
        let netns = node.found().0.own.unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let ask = |address: &str, port| {
            BindAsk::server(netns, Proto::Tcp, address.parse().unwrap(), Port(port))
        };
        let tried = |ask: &BindAsk| node.try_bind(ask).value.unwrap();
        assert_eq!(tried(&ask("0.0.0.0", port)), Err(BindError::InUse));
        assert_eq!(tried(&ask("127.0.0.2", port)), Ok(()));
        // Twice: the first one is gone.
        assert_eq!(tried(&ask("127.0.0.2", port)), Ok(()));
        assert_eq!(tried(&ask("192.0.2.1", port)), Err(BindError::NotAvailable));
        drop(taken);
        assert_eq!(tried(&ask("0.0.0.0", port)), Ok(()));
    }
}
