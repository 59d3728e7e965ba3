//! Sockets from the kernel's sock_diag, in the namespace of the calling thread.
//!
//! Kernel: `net/ipv4/inet_diag.c`, Linux 3.3 and later; ports are compared by
//! the kernel, so that one port costs one record. No right is needed.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netlink_packet_core::NetlinkSerializable as _;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagMessage, constants as c};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::netlink::{Attributes, Netlink, NetlinkRequest, SOCK_DIAG};
use whereis_port_model::{
    AcceptQueue, Connections, NetnsId, Port, PortRange, PortSocket, Proto, Socket, SocketFilter,
    SocketState,
};

/// How many sockets of one namespace are taken in.
const MOST: usize = 1_000_000;
/// The most that one answer may have, in bytes: so many sockets with all that is said of them.
const BYTES: usize = 256 << 20;
/// How many sockets that have one of the ports that are asked for are taken in, whatever their
/// state: one port of a server can have many thousands of connections.
const MOST_OF_PORTS: usize = 4096;
/// The same, of every port.
const MOST_OF_ALL: usize = 10_000;
/// The message of both a question and its answers.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// The older question, for TCP of both IP versions at once: one walk through the tables in
/// place of two.
const TCPDIAG_GETSOCK: u16 = 18;
/// Every state that the kernel has, `TCP_BOUND_INACTIVE` of Linux 6.8 included: without it the
/// table of what is merely bound is left out. Older kernels pass over the bit.
const EVERY_STATE: u32 = 0x3ffe;
/// `idiag_timer` of what the kernel alone remembers: `idiag_expires` is its rest then.
const TIME_WAIT_TIMER: u8 = 3;
/// `INET_DIAG_SKMEMINFO`: numbers of 32 bits, of which the ninth is `SK_MEMINFO_DROPS` (Linux 4.6).
const SKMEMINFO: u16 = 7;
const DROPS: usize = 8;
/// `INET_DIAG_SKV6ONLY`.
const V6ONLY: u16 = 11;
/// `INET_DIAG_CGROUP_ID` (Linux 5.8).
const CGROUP_ID: u16 = 21;
/// `INET_DIAG_SOCKOPT` (Linux 5.9).
const SOCKOPT: u16 = 22;
/// `INET_DIAG_REQ_BYTECODE`.
const REQ_BYTECODE: u16 = 1;
/// `INET_DIAG_BC_S_GE` and `INET_DIAG_BC_S_LE`: source port at least, at most.
const BC_S_GE: u8 = 2;
const BC_S_LE: u8 = 3;

/// Every socket that passes `filter`. An error of kind `Unsupported` says that
/// the kernel has no handler for a protocol.
pub(super) fn dump(netns: NetnsId, filter: &SocketFilter) -> io::Result<Vec<Socket>> {
    dump_some(netns, filter, |_, _| true)
}

/// The same, without asking for the sockets of a protocol and IP version of which
/// there are none: `any` says whether there are (`true` for IPv6). The kernel
/// walks the listeners of all namespaces for each question.
pub(super) fn dump_some(
    netns: NetnsId,
    filter: &SocketFilter,
    any: impl Fn(Proto, bool) -> bool,
) -> io::Result<Vec<Socket>> {
    let mut netlink = Netlink::open(SOCK_DIAG, BYTES)?;
    let mut sockets = Vec::new();
    for proto in Proto::ALL.into_iter().filter(|p| filter.proto.is_none_or(|f| f == *p)) {
        for family in [c::AF_INET, c::AF_INET6] {
            if !any(proto, family == c::AF_INET6) {
                continue;
            }
            let request = request(proto, family, filter.ports)?;
            let most = MOST - sockets.len();
            let all = netlink.collect(&request, most, |message| {
                let socket = convert(netns, proto, message.body)?.socket;
                let wanted = filter.ports.is_none_or(|range| range.contains(socket.port));
                (wanted && socket.state.is_listener()).then_some(socket)
            });
            sockets.extend(all.map_err(unsupported)?);
        }
    }
    Ok(sockets)
}

/// Every socket that passes `filter`, whatever its state, and whether there are more than are
/// taken in. TCP that is merely bound is among them since Linux 6.8.
pub(super) fn dump_of_ports(
    netns: NetnsId,
    filter: &SocketFilter,
) -> io::Result<(Vec<PortSocket>, bool)> {
    let most = if filter.ports.is_some() { MOST_OF_PORTS } else { MOST_OF_ALL };
    let mut sockets: Vec<PortSocket> = Vec::new();
    for proto in Proto::ALL.into_iter().filter(|p| filter.proto.is_none_or(|f| f == *p)) {
        let requests = match proto {
            Proto::Tcp => vec![both_versions(filter.ports)?],
            Proto::Udp => [c::AF_INET, c::AF_INET6]
                .into_iter()
                .map(|family| request_states(proto, family, filter.ports, StateFlags::all()))
                .collect::<io::Result<_>>()?,
        };
        for request in requests {
            // What is left of an answer that was too long is not to be in the next one's way.
            let mut netlink = Netlink::open(SOCK_DIAG, BYTES)?;
            let mut cut = false;
            let read = netlink.ask(&request, |message| {
                let socket = convert(netns, proto, message.body)
                    .filter(|s| filter.ports.is_none_or(|range| range.contains(s.socket.port)));
                cut = socket.is_some() && sockets.len() >= most;
                sockets.extend(socket.filter(|_| !cut));
                !cut
            });
            match read {
                Ok(_) => {}
                // Connections come and go all the time: those that stayed are there.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unsupported(error)),
            }
            if cut {
                return Ok((sockets, true));
            }
        }
    }
    Ok((sockets, false))
}

/// Whether any socket that could take a new connection has `IP_TRANSPARENT`; `None` where the
/// kernel does not tell (before Linux 5.9).
pub(super) fn has_transparent() -> io::Result<Option<bool>> {
    let mut netlink = Netlink::open(SOCK_DIAG, BYTES)?;
    let mut told = Some(false);
    for proto in Proto::ALL {
        for family in [c::AF_INET, c::AF_INET6] {
            let read = netlink.ask(&request(proto, family, None)?, |message| {
                told = match (told, is_transparent(message.body)) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (told, is) => told.and(is),
                };
                told != Some(true)
            });
            match read.map_err(unsupported) {
                Ok(_) => {}
                // There are none of what the kernel does not have.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(error) => return Err(error),
            }
            if told == Some(true) {
                return Ok(told);
            }
        }
    }
    Ok(told)
}

/// The bit of `IP_TRANSPARENT` in `struct inet_diag_sockopt`.
fn is_transparent(response: &[u8]) -> Option<bool> {
    const TRANSPARENT: u8 = if cfg!(target_endian = "little") { 0x20 } else { 0x04 };
    let (_, attributes) = InetDiag::read_from_prefix(response).ok()?;
    let mut all = Attributes(attributes);
    let (_, value) = all.find(|(kind, _)| *kind == SOCKOPT)?;
    value.first().map(|bits| bits & TRANSPARENT != 0)
}

/// The older question for TCP of both versions, in every state (`struct inet_diag_req`).
fn both_versions(ports: Option<PortRange>) -> io::Result<NetlinkRequest> {
    let one = ports.filter(|range| range.first == range.last);
    let header = OldRequest {
        family: c::AF_INET,
        lengths: [0; 3],
        source_port: one.map_or([0; 2], |range| range.first.0.to_be_bytes()),
        rest: [0; 38],
        cookie: [u32::MAX; 2],
        states: EVERY_STATE,
        tables: 0,
    };
    with_range(NetlinkRequest::dump(TCPDIAG_GETSOCK, header.as_bytes()), ports)
}

/// `struct inet_diag_req`, include/uapi/linux/inet_diag.h. The port is in network byte order.
#[repr(C)]
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
struct OldRequest {
    family: u8,
    lengths: [u8; 3],
    source_port: [u8; 2],
    /// The other port, both addresses, and the interface: none of them.
    rest: [u8; 38],
    cookie: [u32; 2],
    states: u32,
    tables: u32,
}

/// The kernel has no handler for a protocol, or no sock_diag.
fn unsupported(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOENT) => io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel has no sock_diag handler for the protocol",
        ),
        _ => error,
    }
}

/// How many established TCP connections each local address and port has.
pub(super) fn established(netns: NetnsId) -> io::Result<Vec<Connections>> {
    let mut netlink = Netlink::open(SOCK_DIAG, BYTES)?;
    let mut counts: BTreeMap<(IpAddr, Port), u32> = BTreeMap::new();
    for family in [c::AF_INET, c::AF_INET6] {
        let request = request_states(Proto::Tcp, family, None, StateFlags::ESTABLISHED)?;
        let read = netlink.ask(&request, |message| {
            if let Some(PortSocket { socket, .. }) = convert(netns, Proto::Tcp, message.body) {
                *counts.entry((socket.address.to_canonical(), socket.port)).or_default() += 1;
            }
            true
        });
        // What changed meanwhile does not matter to a count.
        read.map(drop).or_else(|error| match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
        })?;
    }
    let one = |((address, port), count)| Connections { netns, address, port, count };
    Ok(counts.into_iter().map(one).collect())
}

/// The request, with the port filter the kernel applies: one port is compared
/// by the dump itself, a range by byte code.
fn request(proto: Proto, family: u8, ports: Option<PortRange>) -> io::Result<NetlinkRequest> {
    let states = match proto {
        Proto::Tcp => StateFlags::LISTEN,
        Proto::Udp => StateFlags::CLOSE,
    };
    request_states(proto, family, ports, states)
}

fn request_states(
    proto: Proto,
    family: u8,
    ports: Option<PortRange>,
    states: StateFlags,
) -> io::Result<NetlinkRequest> {
    let mut socket_id = if family == c::AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    socket_id.cookie = [0xff; 8];
    if let Some(PortRange { first, last }) = ports
        && first == last
    {
        socket_id.source_port = first.0;
    }
    let protocol = match proto {
        Proto::Tcp => c::IPPROTO_TCP,
        Proto::Udp => c::IPPROTO_UDP,
    };
    let message = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol,
        // Of the sockets of a whole node it would be half as much again.
        extensions: match ports {
            Some(_) if states == StateFlags::LISTEN => ExtensionFlags::SKMEMINFO,
            _ => ExtensionFlags::empty(),
        },
        states,
        socket_id,
    });
    let mut header = vec![0; message.buffer_len()];
    message.serialize(&mut header);
    with_range(NetlinkRequest::dump(SOCK_DIAG_BY_FAMILY, &header), ports)
}

/// The same question of a range of ports, which byte code tells.
fn with_range(request: NetlinkRequest, ports: Option<PortRange>) -> io::Result<NetlinkRequest> {
    match ports.filter(|r| r.first != r.last) {
        Some(range) => request.with(REQ_BYTECODE, &range_filter(range)),
        None => Ok(request),
    }
}

/// `INET_DIAG_REQ_BYTECODE` that accepts a range of source ports: two compare
/// operations of 8 bytes, each with its port in host byte order. A jump of "the
/// rest plus 4" rejects.
fn range_filter(range: PortRange) -> Vec<u8> {
    let mut code = Vec::with_capacity(16);
    for (compare, no, port) in [(BC_S_GE, 20u16, range.first), (BC_S_LE, 12, range.last)] {
        code.extend([compare, 8]);
        code.extend(no.to_ne_bytes());
        code.extend([0, 0]);
        code.extend(port.0.to_ne_bytes());
    }
    code
}

/// `struct inet_diag_msg`, include/uapi/linux/inet_diag.h. Ports and addresses
/// are in network byte order.
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct InetDiag {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    source_port: [u8; 2],
    destination_port: [u8; 2],
    source: [u8; 16],
    destination: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
    expires: u32,
    receive_queue: u32,
    send_queue: u32,
    uid: u32,
    inode: u32,
}

/// The state by its number (include/net/tcp_states.h); `None` for one that is not known.
pub(super) fn state(proto: Proto, number: u8) -> Option<SocketState> {
    Some(match (proto, number) {
        (_, 1) => SocketState::Established,
        (Proto::Udp, 7) => SocketState::Unconnected,
        (Proto::Udp, _) => return None,
        (Proto::Tcp, 2) => SocketState::SynSent,
        // What is not a socket yet is told as SYN_RECV by the kernel, and of older ones as 12.
        (Proto::Tcp, 3 | 12) => SocketState::SynReceived,
        (Proto::Tcp, 4) => SocketState::FinWait1,
        (Proto::Tcp, 5) => SocketState::FinWait2,
        (Proto::Tcp, 6) => SocketState::TimeWait,
        (Proto::Tcp, 7 | 13) => SocketState::Bound,
        (Proto::Tcp, 8) => SocketState::CloseWait,
        (Proto::Tcp, 9) => SocketState::LastAck,
        (Proto::Tcp, 10) => SocketState::Listen,
        (Proto::Tcp, 11) => SocketState::Closing,
        (Proto::Tcp, _) => return None,
    })
}

/// A response as a fact; `None` for what is not bound to a port.
fn convert(netns: NetnsId, proto: Proto, response: &[u8]) -> Option<PortSocket> {
    let (head, attributes) = InetDiag::read_from_prefix(response).ok()?;
    let port = u16::from_be_bytes(head.source_port);
    if port == 0 {
        return None;
    }
    let mut v6only = None;
    let mut cgroup_id = None;
    let mut drops = None;
    for (kind, value) in Attributes(attributes) {
        match kind {
            SKMEMINFO => {
                let number = value.get(4 * DROPS..4 * DROPS + 4).and_then(|n| n.try_into().ok());
                drops = number.map(u32::from_ne_bytes);
            }
            V6ONLY => v6only = value.first().map(|only| *only != 0),
            CGROUP_ID => cgroup_id = value.try_into().ok().map(u64::from_ne_bytes),
            _ => {}
        }
    }
    let v6 = head.family == c::AF_INET6;
    let address = |bytes: [u8; 16]| -> IpAddr {
        let [a, b, c, d, ..] = bytes;
        if v6 { bytes.into() } else { Ipv4Addr::new(a, b, c, d).into() }
    };
    let state = state(proto, head.state)?;
    let peer = u16::from_be_bytes(head.destination_port);
    let queue = AcceptQueue { waiting: head.receive_queue, limit: head.send_queue, drops };
    let socket = Socket {
        netns,
        proto,
        state,
        address: address(head.source),
        port: Port(port),
        v6only: v6only.filter(|_| v6),
        inode: u64::from(head.inode),
        uid: head.uid,
        ifindex: (head.interface != 0).then_some(head.interface),
        cgroup_id,
        queue: (state == SocketState::Listen).then_some(queue),
    };
    Some(PortSocket {
        socket,
        peer: (peer != 0).then(|| SocketAddr::new(address(head.destination), peer)),
        expires_ms: (head.timer == TIME_WAIT_TIMER).then_some(head.expires),
    })
}

/// For the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    for message in super::netlink::messages(bytes) {
        convert(NetnsId::Inode(1), Proto::Tcp, message.body);
        convert(NetnsId::Inode(1), Proto::Udp, message.body);
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
        assert_eq!(found[0].address, whereis_port_model::LOOPBACK4);
        assert_eq!(found[0].state, SocketState::Listen);
        assert_ne!(found[0].inode, 0);
        assert_ne!(other.local_addr().unwrap().port(), port);
    }

    #[test]
    fn connections_are_counted_by_their_local_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..3)
            .map(|_| (std::net::TcpStream::connect(place).unwrap(), listener.accept().unwrap()))
            .collect();
        let counted = || {
            let all = established(NetnsId::Inode(1)).unwrap();
            let here = all.iter().find(|c| (c.address, c.port.0) == (place.ip(), place.port()));
            here.map(|connections| connections.count)
        };
        assert_eq!(counted(), Some(3));
        drop(clients);
        // A process that another test starts has them, too, until it runs its program.
        let give_up = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while counted().is_some() && std::time::Instant::now() < give_up {
            std::thread::yield_now();
        }
        assert_eq!(counted(), None);
    }

    #[test]
    fn a_range_is_filtered_by_the_kernel() {
        let sockets: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut ports: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
        ports.sort_unstable();
        let range = PortRange { first: Port(ports[1]), last: Port(ports[2]) };
        // The kernel alone must have filtered: ask it without our own check.
        let request = request(Proto::Tcp, c::AF_INET, Some(range)).unwrap();
        let mut netlink = Netlink::open(SOCK_DIAG, BYTES).unwrap();
        let port = |found: PortSocket| found.socket.port.0;
        let seen = netlink
            .collect(&request, MOST, |message| convert(HERE, Proto::Tcp, message.body).map(port))
            .unwrap();
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

    /// An answer as the kernel writes it, with the attributes that come first.
    fn answer(family: u8, source: [u8; 16], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let head = InetDiag {
            family,
            state: 10,
            timer: 0,
            retransmits: 0,
            source_port: 443u16.to_be_bytes(),
            destination_port: [0; 2],
            source,
            destination: [0; 16],
            interface: 3,
            cookie: [1, 0],
            expires: 0,
            receive_queue: 2,
            send_queue: 128,
            uid: 33,
            inode: 777,
        };
        let mut bytes = head.as_bytes().to_vec();
        assert_eq!(bytes.len(), 72);
        for (kind, value) in attributes {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn an_answer_is_read_with_its_attributes() {
        let mut v4 = [0; 16];
        v4[..4].copy_from_slice(&[10, 0, 0, 9]);
        // Another attribute in front, and one that only IPv6 has a use for.
        let mut memory = [0; 36];
        memory[32] = 5;
        let cgroup = 77u64.to_ne_bytes();
        let all: [(u16, &[u8]); 4] =
            [(8, &[0]), (V6ONLY, &[1]), (CGROUP_ID, &cgroup), (SKMEMINFO, &memory)];
        let bytes = answer(2, v4, &all);
        let PortSocket { socket, peer, expires_ms } = convert(HERE, Proto::Tcp, &bytes).unwrap();
        assert_eq!((peer, expires_ms), (None, None));
        assert_eq!(socket.queue, Some(AcceptQueue { waiting: 2, limit: 128, drops: Some(5) }));
        assert_eq!(socket.address, Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!((socket.port, socket.inode, socket.uid), (Port(443), 777, 33));
        assert_eq!((socket.v6only, socket.cgroup_id, socket.ifindex), (None, Some(77), Some(3)));
        let v6 = std::net::Ipv6Addr::LOCALHOST.octets();
        let mut bytes = answer(10, v6, &[(V6ONLY, &[1])]);
        // UDP knows the states ESTABLISHED and CLOSE alone.
        assert_eq!(convert(HERE, Proto::Udp, &bytes), None);
        bytes[1] = 7;
        let socket = convert(HERE, Proto::Udp, &bytes).unwrap().socket;
        assert_eq!(socket.address, std::net::Ipv6Addr::LOCALHOST);
        assert_eq!((socket.v6only, socket.cgroup_id), (Some(true), None));
        assert_eq!(socket.state, SocketState::Unconnected);
    }

    #[test]
    fn a_damaged_answer_is_no_panic() {
        let bytes = answer(10, [0; 16], &[(CGROUP_ID, &[1, 2]), (V6ONLY, &[])]);
        for length in 0..bytes.len() {
            let read = convert(HERE, Proto::Tcp, &bytes[..length]);
            assert_eq!(read.is_some(), length >= 72, "{length}");
        }
        assert_eq!(convert(HERE, Proto::Tcp, &bytes).unwrap().socket.cgroup_id, None);
    }
}
