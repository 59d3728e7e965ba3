//! What a packet's fields are: bytes, and which bits of them are known.

use std::net::IpAddr;

use super::lower::Field;
use super::value::{Bits, UnknownInput};
use super::{Discovery, Nic, Packet, PacketSender, RuleSource, SeenAs};
use crate::model::{CtKey, FibResult, MetaKey, PayloadBase, Proto, RouteKind, RouteOf, RouteQuery};

/// Room for a name in a register (`IFNAMSIZ`).
const NAME: usize = 16;
/// `PACKET_MULTICAST`.
const MULTICAST: u8 = 2;
/// How much of a header is modelled.
const HEADER: usize = 60;

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// The number of the protocol of a packet, `IPPROTO_*`.
pub(super) fn protocol(packet: &Packet) -> u8 {
    match packet.discovery {
        Some(_) => 58,
        None => packet.proto.number(),
    }
}

/// Whether a packet is one of a protocol.
pub(super) fn is_of(packet: &Packet, proto: Proto) -> bool {
    packet.discovery.is_none() && packet.proto == proto
}

/// A field of a packet. Ask [`has`] before: a packet may not have it.
pub(super) fn value(
    source: &dyn RuleSource,
    packet: &Packet,
    tracked: Tracked,
    field: &Field,
) -> Bits {
    let ipv6 = packet.destination.is_ipv6();
    match field {
        // What nearly all rules of a large chain ask.
        Field::Dport => Bits::whole(&packet.dport.to_be_bytes()),
        Field::Daddr { ipv6: of, len } if *of == ipv6 && packet.to().is_some() => {
            address(packet.destination, usize::from(*len))
        }
        Field::Daddr { ipv6, len } => {
            header(packet, PayloadBase::Network, if *ipv6 { 24 } else { 16 }, u32::from(*len))
        }
        Field::Saddr { ipv6, len } => {
            header(packet, PayloadBase::Network, if *ipv6 { 8 } else { 12 }, u32::from(*len))
        }
        Field::Protocol { ipv6 } => {
            header(packet, PayloadBase::Network, if *ipv6 { 6 } else { 9 }, 1)
        }
        Field::Sport => header(packet, PayloadBase::Transport, 0, 2),
        Field::Header { base, offset, len } => header(packet, *base, *offset, *len),
        Field::Meta(key) => meta(packet, key),
        Field::Ct { key, reply } => ct(packet, tracked, *key, *reply),
        Field::Fib { present, result, saddr: true, iif, oif: false, mark }
            if *result != FibResult::AddrType =>
        {
            let mark = if *mark { packet.mark } else { 0 };
            let back = goes_back(source, packet, *iif, mark);
            match (back, &packet.iif) {
                // A register of its own (`nft_reg_store8`).
                (Some(is), _) if *present => Bits::whole(&[u8::from(is), 0, 0, 0]),
                (Some(true), Some(nic)) if *iif && *result == FibResult::Oif => {
                    Bits::whole(&nic.index.to_ne_bytes())
                }
                (Some(false), _) if *result == FibResult::Oif => Bits::whole(&[0; 4]),
                _ => Bits::unknown(4, UnknownInput::Detail(BACK)),
            }
        }
        Field::Fib { present: true, .. } => Bits::unknown(4, UnknownInput::Detail(BACK)),
        Field::Fib { result, saddr, iif, oif, .. } => {
            fib(source, packet, *result, *saddr, *iif || *oif)
        }
        Field::Other { len, .. } => {
            let len = usize::try_from(*len).unwrap_or(16);
            Bits::unknown(len, UnknownInput::Detail("what is not modelled of the packet"))
        }
    }
}

/// Whether a packet has a field: else the rule that asks for it ends.
pub(super) fn has(packet: &Packet, tracked: Tracked, field: &Field) -> bool {
    match field {
        // A packet from a wire has no socket.
        Field::Meta(MetaKey::Skuid | MetaKey::Skgid) => packet.iif.is_none(),
        Field::Ct { key, .. } => *key == CtKey::State || tracked == Tracked::Yes,
        _ => true,
    }
}

fn address(address: IpAddr, len: usize) -> Bits {
    match address {
        IpAddr::V4(a) => Bits::whole(a.octets().get(..len).unwrap_or(&a.octets())),
        IpAddr::V6(a) => Bits::whole(a.octets().get(..len).unwrap_or(&a.octets())),
    }
}

/// Something about the packet.
fn meta(packet: &Packet, key: &MetaKey) -> Bits {
    let index =
        |nic: &Option<Nic>| Bits::whole(&nic.as_ref().map_or(0, |nic| nic.index).to_ne_bytes());
    let name = |nic: &Option<Nic>| {
        let mut bytes = [0; NAME];
        for (to, from) in bytes.iter_mut().zip(nic.iter().flat_map(|nic| nic.name.bytes())) {
            *to = from;
        }
        Bits::whole(&bytes)
    };
    let ipv6 = packet.destination.is_ipv6();
    match key {
        MetaKey::Mark => Bits::whole(&packet.mark.to_ne_bytes()),
        MetaKey::Iif => index(&packet.iif),
        MetaKey::Oif => index(&packet.oif),
        MetaKey::Iifname => name(&packet.iif),
        MetaKey::Oifname => name(&packet.oif),
        MetaKey::Nfproto => Bits::whole(&[if ipv6 { 10 } else { 2 }]),
        MetaKey::L4proto => Bits::whole(&[protocol(packet)]),
        MetaKey::Skuid => match packet.uid {
            Some(uid) => Bits::whole(&uid.to_ne_bytes()),
            None => Bits::unknown(4, UnknownInput::User),
        },
        MetaKey::Skgid => match packet.gid {
            Some(gid) => Bits::whole(&gid.to_ne_bytes()),
            None => Bits::unknown(4, UnknownInput::User),
        },
        MetaKey::Prandom => Bits::unknown(4, UnknownInput::Random),
        MetaKey::Protocol => Bits::whole(&if ipv6 { 0x86dd_u16 } else { 0x0800 }.to_be_bytes()),
        MetaKey::Pkttype => Bits::whole(&[packet_type(packet)]),
        MetaKey::Other(_) => Bits::unknown(16, UnknownInput::Detail("a property of the packet")),
    }
}

/// To whom a packet is (`PACKET_*`): to this host, also at output and by loopback, but for what
/// asks a group for an address.
pub(super) fn packet_type(packet: &Packet) -> u8 {
    if packet.discovery == Some(Discovery::Solicitation) { MULTICAST } else { 0 }
}

/// Bytes of the packet.
fn header(packet: &Packet, base: PayloadBase, offset: u32, len: u32) -> Bits {
    let carried = || {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        Bits::unknown(len, UnknownInput::Detail("what the packet carries"))
    };
    let (Ok(from), Ok(count)) = (usize::try_from(offset), usize::try_from(len)) else {
        return carried();
    };
    let Some(to) = from.checked_add(count) else { return carried() };
    let (bytes, known, missing) = match base {
        PayloadBase::Network => network(packet, from),
        PayloadBase::Transport => transport(packet, from),
        PayloadBase::Link => ([0; HEADER], [0; HEADER], UnknownInput::Detail("the frame's header")),
        PayloadBase::Inner => {
            ([0; HEADER], [0; HEADER], UnknownInput::Detail("what the packet carries"))
        }
    };
    match (bytes.get(from..to), known.get(from..to)) {
        (Some(bytes), Some(known)) => Bits::partly(bytes, known, missing),
        _ => carried(),
    }
}

/// The bytes of a header, which of their bits are known, and what the others are.
type HeaderBytes = ([u8; HEADER], [u8; HEADER], UnknownInput);

fn put(header: &mut HeaderBytes, at: usize, bytes: &[u8]) {
    for (n, byte) in bytes.iter().enumerate() {
        if let (Some(to), Some(known)) = (header.0.get_mut(at + n), header.1.get_mut(at + n)) {
            *to = *byte;
            *known = 0xff;
        }
    }
}

fn network(packet: &Packet, offset: usize) -> HeaderBytes {
    let ipv6 = packet.destination.is_ipv6();
    let source_at = if ipv6 { 8 } else { 12 };
    let source_end = if ipv6 { 24 } else { 16 };
    let length = source_end - source_at;
    let is_to = (source_end..source_end + length).contains(&offset) && packet.to().is_none();
    let missing = if (source_at..source_end).contains(&offset) || is_to {
        UnknownInput::ClientAddress
    } else {
        UnknownInput::Detail("a field of the IP header")
    };
    let mut header = ([0; HEADER], [0; HEADER], missing);
    let header = &mut header;
    if ipv6 {
        put(header, 0, &[0x60]);
        header.1[0] = 0xf0;
        put(header, 6, &[protocol(packet)]);
        packet.to().iter().for_each(|to| put(header, 24, &octets(*to)));
        if packet.discovery.is_some() {
            put(header, 7, &[255]);
        }
    } else {
        put(header, 0, &[0x45]);
        // No fragment; whether it may be made one is not known.
        put(header, 6, &[0, 0]);
        header.1[6] = 0xbf;
        put(header, 9, &[protocol(packet)]);
        packet.to().iter().for_each(|to| put(header, 16, &octets(*to)));
    }
    if let PacketSender::Address(source) = packet.source
        && source.is_ipv6() == ipv6
    {
        put(header, source_at, &octets(source));
    }
    *header
}

fn transport(packet: &Packet, offset: usize) -> HeaderBytes {
    let missing = if offset < 2 {
        UnknownInput::ClientPort
    } else {
        UnknownInput::Detail("a field of its header")
    };
    let mut header = ([0; HEADER], [0; HEADER], missing);
    if let Some(message) = packet.discovery {
        header.2 = UnknownInput::Detail("a field of its header");
        put(&mut header, 0, &[message.number(), 0]);
        return header;
    }
    if let Some(port) = packet.sport {
        put(&mut header, 0, &port.to_be_bytes());
    }
    put(&mut header, 2, &packet.dport.to_be_bytes());
    if packet.proto == Proto::Tcp {
        put(&mut header, 13, &[tcp_flags(packet)]);
    }
    header
}

/// The first packet has SYN, its answer ACK as well, what follows ACK alone, and no other flag
/// that counts.
pub(super) fn tcp_flags(packet: &Packet) -> u8 {
    match (packet.answer, packet.established) {
        (Some(_), _) => 0x12,
        (None, true) => 0x10,
        (None, false) => 2,
    }
}

/// Whether both directions of its connection were seen.
pub(super) fn is_established(packet: &Packet) -> bool {
    packet.answer.is_some() || packet.established
}

/// What conntrack says of the packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracked {
    /// Not yet looked at: rules before conntrack.
    NotYet,
    Yes,
    /// It was, and there is no such connection.
    Invalid,
    No,
}

pub(super) const ESTABLISHED: u32 = 2;
pub(super) const NEW: u32 = 8;
const INVALID: u32 = 1;
const UNTRACKED: u32 = 64;

impl Tracked {
    /// The state of a packet's connection (`NF_CT_STATE_*`).
    pub(super) fn state(self, packet: &Packet) -> u32 {
        match self {
            Self::NotYet | Self::Invalid => INVALID,
            Self::Yes if is_established(packet) => ESTABLISHED,
            Self::Yes => NEW,
            Self::No => UNTRACKED,
        }
    }
}

/// Whether the destination was translated.
pub(super) fn has_dnat(packet: &Packet) -> bool {
    if let Some(answer) = &packet.answer {
        return answer.dnat;
    }
    packet.original.is_some_and(|to| to != (packet.destination, packet.dport))
}

pub(super) fn has_snat(packet: &Packet) -> bool {
    if let Some(answer) = &packet.answer {
        return answer.snat;
    }
    packet.seen_as.is_some_and(|seen| seen != SeenAs::Itself)
}

/// Where it was sent to before NAT.
pub(super) fn original(packet: &Packet) -> (IpAddr, u16) {
    let asked = packet.answer.map(|answer| answer.asked);
    asked.or(packet.original).unwrap_or((packet.destination, packet.dport))
}

/// Who sent a connection's first packet.
pub(super) fn client(packet: &Packet) -> PacketSender {
    packet.answer.map_or(packet.source, |answer| answer.client)
}

/// The port of the client, where it is known.
pub(super) fn client_port(packet: &Packet) -> Option<u16> {
    packet.sport.filter(|_| packet.answer.is_none())
}

/// Who answers, where that is known: behind DNAT.
pub(super) fn server(packet: &Packet) -> Option<(IpAddr, u16)> {
    match (packet.answer, packet.source) {
        (None, _) => Some((packet.destination, packet.dport)),
        (Some(_), PacketSender::Address(source)) => packet.sport.map(|port| (source, port)),
        (Some(_), PacketSender::Elsewhere) => None,
    }
}

/// Something about the connection.
fn ct(packet: &Packet, tracked: Tracked, key: CtKey, reply: Option<bool>) -> Bits {
    let (dst, dport) = original(packet);
    let whole = |address: IpAddr| Bits::whole(&octets(address));
    match (key, reply.unwrap_or(false)) {
        (CtKey::State, _) => Bits::whole(&tracked.state(packet).to_ne_bytes()),
        (CtKey::Direction, _) => Bits::whole(&[u8::from(packet.answer.is_some())]),
        (CtKey::Status, _) => {
            let bits = u32::from(has_snat(packet)) << 4 | u32::from(has_dnat(packet)) << 5;
            let missing = UnknownInput::Detail("the connection's status");
            Bits::partly(&bits.to_ne_bytes(), &0x30_u32.to_ne_bytes(), missing)
        }
        (CtKey::Mark, _) => Bits::whole(&packet.ct_mark.to_ne_bytes()),
        (CtKey::Protocol, _) => Bits::whole(&[protocol(packet)]),
        (CtKey::Dst, false) => whole(dst),
        (CtKey::ProtoDst, false) => Bits::whole(&dport.to_be_bytes()),
        (CtKey::Src, true) if let Some((address, _)) = server(packet) => whole(address),
        (CtKey::ProtoSrc, true) if let Some((_, port)) = server(packet) => {
            Bits::whole(&port.to_be_bytes())
        }
        (CtKey::Src, false) => match client(packet) {
            PacketSender::Address(source) => whole(source),
            PacketSender::Elsewhere => {
                let len = if packet.destination.is_ipv6() { 16 } else { 4 };
                Bits::unknown(len, UnknownInput::ClientAddress)
            }
        },
        (CtKey::ProtoSrc, false) => match client_port(packet) {
            Some(port) => Bits::whole(&port.to_be_bytes()),
            None => Bits::unknown(2, UnknownInput::ClientPort),
        },
        (CtKey::Src | CtKey::ProtoSrc | CtKey::Dst | CtKey::ProtoDst | CtKey::Other(_), _) => {
            Bits::unknown(16, UnknownInput::Detail("a property of the connection"))
        }
    }
}

/// The type of an address for this node (`RTN_*`): of IPv4 what the local table says
/// (`inet_dev_addr_type`), of IPv6 what any route does (`nft_fib6_eval_type`).
pub(super) fn address_type(
    source: &dyn RuleSource,
    packet: &Packet,
    of_source: bool,
) -> Option<RouteKind> {
    let address = match (of_source, packet.source) {
        (false, _) => match packet.to() {
            Some(to) => to,
            None => return Some(RouteKind::Unicast),
        },
        (true, PacketSender::Address(address)) => address,
        (true, PacketSender::Elsewhere) => return Some(RouteKind::Unicast),
    };
    let query = RouteQuery::new(packet.netns, address, 0);
    let kind = source.route(&query)?.kind;
    Some(match kind {
        RouteKind::None if address.is_ipv6() => RouteKind::Unreachable,
        RouteKind::None | RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit
            if address.is_ipv4() =>
        {
            RouteKind::Unicast
        }
        kind => kind,
    })
}

const BACK: &str = "the route back";

/// An address that stands for those of any other machine (RFC 5737, RFC 3849).
pub const ANYWHERE4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(198, 51, 100, 1);
/// The same of IPv6.
pub const ANYWHERE6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Whether an answer to who sent a packet has a route, by the interface that the packet came in
/// by if that is asked: what filters of the reverse path ask (`nft_fib4_eval`, `rpfilter_mt`).
/// What comes in by loopback always has.
pub(super) fn goes_back(
    source: &dyn RuleSource,
    packet: &Packet,
    by_interface: bool,
    mark: u32,
) -> Option<bool> {
    let iif = packet.iif.as_ref()?;
    if &*iif.name == "lo" {
        return Some(true);
    }
    let to = match packet.source {
        PacketSender::Address(from) => from,
        PacketSender::Elsewhere if packet.destination.is_ipv6() => ANYWHERE6.into(),
        PacketSender::Elsewhere => ANYWHERE4.into(),
    };
    // As if the answer came from where the packet goes.
    let of = RouteOf { from: Some(packet.destination), ..RouteOf::default() };
    let found = source.route(&RouteQuery { netns: packet.netns, to, mark, of })?;
    let is_known = matches!(packet.source, PacketSender::Address(_));
    match found.kind {
        RouteKind::Unicast if !by_interface || found.oif == Some(iif.index) => Some(true),
        // One of several next hops may be another's.
        RouteKind::Unicast => None,
        _ => is_known.then_some(false),
    }
}

/// What the routing tables say.
fn fib(
    source: &dyn RuleSource,
    packet: &Packet,
    result: FibResult,
    saddr: bool,
    by_interface: bool,
) -> Bits {
    let unknown = UnknownInput::Detail(BACK);
    match result {
        FibResult::AddrType => match address_type(source, packet, saddr) {
            // Whether that interface has the address is another question.
            Some(RouteKind::Local) if by_interface => {
                Bits::unknown(4, UnknownInput::Detail("which interface has the address"))
            }
            Some(kind) => Bits::whole(&u32::from(kind.rtn()).to_ne_bytes()),
            None => Bits::unknown(4, UnknownInput::Detail("the type of the address")),
        },
        FibResult::Oif => Bits::unknown(4, unknown),
        FibResult::Oifname => Bits::unknown(NAME, unknown),
    }
}
