//! Whether a socket may have the port of another one, as the kernel decides it.
//!
//! Kernel: `inet_csk_bind_conflict` and `inet_rcv_saddr_equal` of
//! `net/ipv4/inet_connection_sock.c`, `udp_lib_lport_inuse` of `net/ipv4/udp.c`; the same rules
//! since Linux 4.12. What no source tells of the other socket (its SO_REUSEADDR and SO_REUSEPORT)
//! is not known here: where it decides, so is the answer.

use std::net::IpAddr;

use whereis_port_model::{BindAsk, PortSocket, Proto, SocketState};

/// Whether `other`, of the same namespace, protocol and port, keeps `asked` from being bound.
/// `None` when that can't be told.
pub(super) fn conflict(asked: &BindAsk, other: &PortSocket) -> Option<bool> {
    let device = other.socket.ifindex;
    if asked.ifindex.is_some_and(|index| device.is_some_and(|device| device != index)) {
        return Some(false);
    }
    if is_no_socket_yet(other) {
        return None;
    }
    match overlap(asked, other) {
        Some(false) => Some(false),
        Some(true) => refused(asked, other).filter(|_| !is_remembered(asked, other)),
        None => None,
    }
}

/// Whether the kernel may let `asked` pass without a look at `other`: TCP remembers of a port the
/// user and address that it last let pass with SO_REUSEPORT, without the device, and compares
/// as if IPv6 were IPv4 (`sk_reuseport_match`).
fn is_remembered(asked: &BindAsk, other: &PortSocket) -> bool {
    let for_ipv4 = BindAsk { address: std::net::Ipv4Addr::UNSPECIFIED.into(), ..*asked };
    let is_dual = asked.address.is_unspecified() && asked.address.is_ipv6() && !asked.v6only;
    asked.proto == Proto::Tcp
        && asked.reuse_port
        && (other.socket.ifindex.is_some() || is_dual && overlap(&for_ipv4, other) != Some(true))
}

/// A request for a connection has no port of its own: it is its listener's.
fn is_no_socket_yet(other: &PortSocket) -> bool {
    other.socket.inode == 0 && other.socket.state == SocketState::SynReceived
}

/// Whether two sockets on one address and port can't both be, as their options and users decide.
fn refused(asked: &BindAsk, other: &PortSocket) -> Option<bool> {
    let socket = &other.socket;
    let by_port = match () {
        () if !asked.reuse_port => Some(true),
        // Of what is left of a connection, the user does not matter.
        () if other.expires_ms.is_some() && asked.proto == Proto::Tcp => None,
        () if asked.uid != socket.uid => Some(true),
        // It depends on the other's SO_REUSEPORT.
        () => None,
    };
    // Where both have SO_REUSEADDR, only a TCP listener refuses another one.
    let may_reuse = asked.reuse_addr && socket.state != SocketState::Listen;
    if may_reuse { None } else { by_port }
}

/// Whether two sockets would take packets to the same address.
fn overlap(asked: &BindAsk, other: &PortSocket) -> Option<bool> {
    let socket = &other.socket;
    match (asked.address.to_canonical(), socket.effective_address()) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            Some(one == other || one.is_unspecified() || other.is_unspecified())
        }
        // A connection that a dual-stack socket has counts as one of IPv4, too, for who asks for
        // all of IPv4. What is not connected tells that it is not.
        (IpAddr::V4(one), IpAddr::V6(other)) if one.is_unspecified() || other.is_unspecified() => {
            socket.v6only.map(|only| !only)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => Some(false),
        (IpAddr::V6(one), IpAddr::V4(_)) => Some(one.is_unspecified() && !asked.v6only),
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            Some(one == other || one.is_unspecified() || other.is_unspecified())
        }
    }
}

#[cfg(test)]
mod tests;
