//! Sockets from the kernel's sock_diag, in the namespace of the calling thread.
//!
//! Kernel: `net/ipv4/inet_diag.c`, Linux 3.3 and later; ports are compared by
//! the kernel, so that one port costs one record. No right is needed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_packet_sock_diag::{SockDiagMessage, constants as c};
use netlink_sys::{Socket as Netlink, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use crate::model::{NetnsId, Port, PortRange, Proto, Socket, SocketFilter, SocketState};

/// `INET_DIAG_CGROUP_ID` (Linux 5.8), not named by the library.
const CGROUP_ID: u16 = 21;
/// `INET_DIAG_REQ_BYTECODE`.
const REQ_BYTECODE: u16 = 1;
/// `INET_DIAG_BC_S_GE` and `INET_DIAG_BC_S_LE`: source port at least, at most.
const BC_S_GE: u8 = 2;
const BC_S_LE: u8 = 3;
/// `NLM_F_DUMP_INTR`: the table changed during the dump.
const DUMP_INTERRUPTED: u16 = 0x10;

/// Every socket that passes `filter`. An error of kind `Unsupported` says that
/// the kernel has no handler for a protocol.
pub(super) fn dump(netns: NetnsId, filter: &SocketFilter) -> io::Result<Vec<Socket>> {
    let mut netlink = Netlink::new(NETLINK_SOCK_DIAG)?;
    netlink.connect(&SocketAddr::new(0, 0))?;
    let mut sockets = Vec::new();
    for proto in Proto::ALL.into_iter().filter(|p| filter.proto.is_none_or(|f| f == *p)) {
        for family in [c::AF_INET, c::AF_INET6] {
            dump_one(&mut netlink, netns, proto, family, filter.ports, &mut sockets)?;
        }
    }
    Ok(sockets)
}

/// One dump, repeated once if the table changed under it.
fn dump_one(
    netlink: &mut Netlink,
    netns: NetnsId,
    proto: Proto,
    family: u8,
    ports: Option<PortRange>,
    sockets: &mut Vec<Socket>,
) -> io::Result<()> {
    let request = request(proto, family, ports);
    let start = sockets.len();
    for _ in 0..2 {
        sockets.truncate(start);
        netlink.send(&request, 0)?;
        let mut interrupted = false;
        receive(netlink, |header, response| {
            interrupted |= header.flags & DUMP_INTERRUPTED != 0;
            if let Some(socket) = convert(netns, proto, &response)
                && ports.is_none_or(|r| r.contains(socket.port))
            {
                sockets.push(socket);
            }
        })?;
        if !interrupted {
            break;
        }
    }
    Ok(())
}

/// Reads one dump to its end.
fn receive(
    netlink: &mut Netlink,
    mut each: impl FnMut(&NetlinkHeader, InetResponse),
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        buffer.clear();
        netlink.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            // Messages are aligned to 4 bytes; the last one may lack its padding.
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    each(&message.header, *response);
                }
                NetlinkPayload::Done(done) if done.code == -libc::ENOENT => {
                    return Err(io::Error::new(
                        io::ErrorKind::Unsupported,
                        "the kernel has no sock_diag handler for the protocol",
                    ));
                }
                // A dump that failed half-way says so at its end only.
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => {
                    let code = error.code.map_or(0, std::num::NonZeroI32::get);
                    return Err(io::Error::from_raw_os_error(-code));
                }
                _ => {}
            }
        }
    }
}

/// The request, with the port filter the kernel applies: one port is compared
/// by the dump itself, a range by byte code.
fn request(proto: Proto, family: u8, ports: Option<PortRange>) -> Vec<u8> {
    let mut socket_id = if family == c::AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    socket_id.cookie = [0xff; 8];
    if let Some(PortRange { first, last }) = ports
        && first == last
    {
        socket_id.source_port = first.0;
    }
    let (protocol, states) = match proto {
        Proto::Tcp => (c::IPPROTO_TCP, StateFlags::LISTEN),
        Proto::Udp => (c::IPPROTO_UDP, StateFlags::CLOSE),
    };
    let mut message = NetlinkMessage::new(
        NetlinkHeader::default(),
        SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol,
            extensions: ExtensionFlags::empty(),
            states,
            socket_id,
        })
        .into(),
    );
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut bytes = vec![0; message.header.length as usize];
    message.serialize(&mut bytes);
    if let Some(range) = ports.filter(|r| r.first != r.last) {
        bytes.extend(range_filter(range));
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
    }
    bytes
}

/// `INET_DIAG_REQ_BYTECODE` that accepts a range of source ports: two compare
/// operations of 8 bytes, each with its port in host byte order. A jump of "the
/// rest plus 4" rejects.
fn range_filter(range: PortRange) -> Vec<u8> {
    let mut attribute = Vec::with_capacity(20);
    attribute.extend(20u16.to_ne_bytes());
    attribute.extend(REQ_BYTECODE.to_ne_bytes());
    for (code, no, port) in [(BC_S_GE, 20u16, range.first), (BC_S_LE, 12, range.last)] {
        attribute.extend([code, 8]);
        attribute.extend(no.to_ne_bytes());
        attribute.extend([0, 0]);
        attribute.extend(port.0.to_ne_bytes());
    }
    attribute
}

/// A response as a fact; `None` for what is not bound to a port.
fn convert(netns: NetnsId, proto: Proto, response: &InetResponse) -> Option<Socket> {
    let id = &response.header.socket_id;
    if id.source_port == 0 {
        return None;
    }
    let mut v6only = None;
    let mut cgroup_id = None;
    for nla in &response.nlas {
        match nla {
            Nla::SkV6Only(only) => v6only = Some(*only),
            Nla::Other(other) if other.kind() == CGROUP_ID && other.value_len() == 8 => {
                let mut bytes = [0; 8];
                other.emit_value(&mut bytes);
                cgroup_id = Some(u64::from_ne_bytes(bytes));
            }
            _ => {}
        }
    }
    Some(Socket {
        netns,
        proto,
        state: match proto {
            Proto::Tcp => SocketState::Listen,
            Proto::Udp => SocketState::Unconnected,
        },
        address: source_address(id.source_address, response.header.family),
        port: Port(id.source_port),
        v6only: v6only.filter(|_| response.header.family == c::AF_INET6),
        inode: u64::from(response.header.inode),
        uid: response.header.uid,
        ifindex: (id.interface_id != 0).then_some(id.interface_id),
        cgroup_id,
    })
}

/// The address in the family of the table it was found in.
fn source_address(address: IpAddr, family: u8) -> IpAddr {
    match (family, address) {
        (c::AF_INET6, IpAddr::V4(a)) if a.is_unspecified() => Ipv6Addr::UNSPECIFIED.into(),
        (c::AF_INET, IpAddr::V6(_)) => Ipv4Addr::UNSPECIFIED.into(),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const HERE: NetnsId = NetnsId::Inode(1);

    fn one(port: u16) -> SocketFilter {
        SocketFilter { proto: None, ports: Some(PortRange::one(Port(port))) }
    }

    #[test]
    fn the_kernel_answers_for_one_port_only() {
        let wanted = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = wanted.local_addr().unwrap().port();
        let found = dump(HERE, &one(port)).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].port, Port(port));
        assert_eq!(found[0].address, crate::model::LOOPBACK4);
        assert_eq!(found[0].state, SocketState::Listen);
        assert_ne!(found[0].inode, 0);
        assert_ne!(other.local_addr().unwrap().port(), port);
    }

    #[test]
    fn a_range_is_filtered_by_the_kernel() {
        let sockets: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut ports: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
        ports.sort_unstable();
        let range = PortRange { first: Port(ports[1]), last: Port(ports[2]) };
        let bytes = request(Proto::Tcp, c::AF_INET, Some(range));
        // The kernel alone must have filtered: ask it without our own check.
        let mut netlink = Netlink::new(NETLINK_SOCK_DIAG).unwrap();
        netlink.connect(&SocketAddr::new(0, 0)).unwrap();
        netlink.send(&bytes, 0).unwrap();
        let mut seen = Vec::new();
        receive(&mut netlink, |_, r| seen.push(r.header.socket_id.source_port)).unwrap();
        assert!(seen.contains(&ports[1]) && seen.contains(&ports[2]), "{seen:?}");
        assert!(seen.iter().all(|p| range.contains(Port(*p))), "{seen:?} outside {range:?}");
    }

    #[test]
    fn v6only_and_dual_stack_are_told_apart() {
        let dual = TcpListener::bind("[::]:0").unwrap();
        let found = dump(HERE, &one(dual.local_addr().unwrap().port())).unwrap();
        assert_eq!(found[0].v6only, Some(false));
        assert_eq!(found[0].takes_ipv4(), Some(true));
    }

    #[test]
    fn udp_is_listed_when_bound_and_not_when_connected() {
        let bound = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let connected = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect(bound.local_addr().unwrap()).unwrap();
        let found = dump(HERE, &one(bound.local_addr().unwrap().port())).unwrap();
        assert_eq!((found[0].proto, found[0].state), (Proto::Udp, SocketState::Unconnected));
        assert!(dump(HERE, &one(connected.local_addr().unwrap().port())).unwrap().is_empty());
    }
}
