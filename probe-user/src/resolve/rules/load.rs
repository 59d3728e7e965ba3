//! What expressions load of a packet: bytes, and which bits of them are known.

use std::net::IpAddr;

use super::regs::{Missing, Registers};
use super::{Nic, Packet, SeenAs, Sender, Source};
use crate::model::{Base, CtKey, FibResult, MetaKey, Proto, Reg, RouteKind, RouteQuery};

/// Room for a name in a register (`IFNAMSIZ`).
const NAME: usize = 16;
/// How much of a header is modelled.
const HEADER: usize = 60;

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub(super) fn protocol(proto: Proto) -> u8 {
    match proto {
        Proto::Tcp => 6,
        Proto::Udp => 17,
    }
}

/// Loads something about the packet; `false` ends the rule.
pub(super) fn meta(regs: &mut Registers, packet: &Packet, key: &MetaKey, dreg: Reg) -> bool {
    let index = |nic: &Option<Nic>| nic.as_ref().map_or(0, |nic| nic.index).to_ne_bytes();
    let name = |nic: &Option<Nic>| {
        let mut bytes = [0; NAME];
        for (to, from) in bytes.iter_mut().zip(nic.iter().flat_map(|nic| nic.name.bytes())) {
            *to = from;
        }
        bytes
    };
    let ipv6 = packet.destination.is_ipv6();
    match key {
        MetaKey::Mark => regs.set(dreg, &packet.mark.to_ne_bytes()),
        MetaKey::Iif => regs.set(dreg, &index(&packet.iif)),
        MetaKey::Oif => regs.set(dreg, &index(&packet.oif)),
        MetaKey::Iifname => regs.set(dreg, &name(&packet.iif)),
        MetaKey::Oifname => regs.set(dreg, &name(&packet.oif)),
        MetaKey::Nfproto => regs.set(dreg, &[if ipv6 { 10 } else { 2 }]),
        MetaKey::L4proto => regs.set(dreg, &[protocol(packet.proto)]),
        // A packet from a wire has no socket, and the rule ends.
        MetaKey::Skuid | MetaKey::Skgid if packet.iif.is_some() => return false,
        MetaKey::Skuid => match packet.uid {
            Some(uid) => regs.set(dreg, &uid.to_ne_bytes()),
            None => regs.forget(dreg, 4, Missing::User),
        },
        MetaKey::Skgid => regs.forget(dreg, 4, Missing::User),
        MetaKey::Prandom => regs.forget(dreg, 4, Missing::Random),
        MetaKey::Protocol => {
            regs.set(dreg, &if ipv6 { 0x86dd_u16 } else { 0x0800 }.to_be_bytes());
        }
        MetaKey::Pkttype => match &packet.iif {
            Some(nic) if &*nic.name != "lo" => regs.set(dreg, &[0]),
            _ => regs.forget(dreg, 1, Missing::Detail("the packet's type")),
        },
        MetaKey::Other(_) => {
            regs.forget(dreg, 16, Missing::Detail("a property of the packet"));
        }
    }
    true
}

/// Loads bytes of the packet.
pub(super) fn payload(
    regs: &mut Registers,
    packet: &Packet,
    base: Base,
    offset: u32,
    len: u32,
    dreg: Reg,
) {
    // What nearly all rules of a large chain ask.
    match (base, offset, len, packet.destination) {
        (Base::Transport, 2, 2, _) => return regs.set(dreg, &packet.dport.to_be_bytes()),
        (Base::Network, 16, 4, IpAddr::V4(to)) => return regs.set(dreg, &to.octets()),
        (Base::Network, 24, 16, IpAddr::V6(to)) => return regs.set(dreg, &to.octets()),
        _ => {}
    }
    let (Ok(offset), Ok(len)) = (usize::try_from(offset), usize::try_from(len)) else { return };
    let (bytes, known, missing) = match base {
        Base::Network => network(packet, offset),
        Base::Transport => transport(packet, offset),
        Base::Link => ([0; HEADER], [0; HEADER], Missing::Detail("the frame's header")),
        Base::Inner => ([0; HEADER], [0; HEADER], Missing::Detail("what the packet carries")),
    };
    match (bytes.get(offset..offset + len), known.get(offset..offset + len)) {
        (Some(bytes), Some(known)) => regs.write(dreg, bytes, known, missing),
        _ => regs.forget(dreg, len, Missing::Detail("what the packet carries")),
    }
}

type Header = ([u8; HEADER], [u8; HEADER], Missing);

fn put(header: &mut Header, at: usize, bytes: &[u8]) {
    for (n, byte) in bytes.iter().enumerate() {
        if let (Some(to), Some(known)) = (header.0.get_mut(at + n), header.1.get_mut(at + n)) {
            *to = *byte;
            *known = 0xff;
        }
    }
}

fn network(packet: &Packet, offset: usize) -> Header {
    let ipv6 = packet.destination.is_ipv6();
    let source_at = if ipv6 { 8 } else { 12 };
    let source_end = if ipv6 { 24 } else { 16 };
    let missing = if (source_at..source_end).contains(&offset) {
        Missing::ClientAddress
    } else {
        Missing::Detail("a field of the IP header")
    };
    let mut header = ([0; HEADER], [0; HEADER], missing);
    let header = &mut header;
    if ipv6 {
        put(header, 0, &[0x60]);
        header.1[0] = 0xf0;
        put(header, 6, &[protocol(packet.proto)]);
        put(header, 24, &octets(packet.destination));
    } else {
        put(header, 0, &[0x45]);
        // No fragment; whether it may be made one is not known.
        put(header, 6, &[0, 0]);
        header.1[6] = 0xbf;
        put(header, 9, &[protocol(packet.proto)]);
        put(header, 16, &octets(packet.destination));
    }
    if let Sender::Address(source) = packet.source
        && source.is_ipv6() == ipv6
    {
        put(header, source_at, &octets(source));
    }
    *header
}

fn transport(packet: &Packet, offset: usize) -> Header {
    let missing =
        if offset < 2 { Missing::ClientPort } else { Missing::Detail("a field of its header") };
    let mut header = ([0; HEADER], [0; HEADER], missing);
    if let Some(port) = packet.sport {
        put(&mut header, 0, &port.to_be_bytes());
    }
    put(&mut header, 2, &packet.dport.to_be_bytes());
    if packet.proto == Proto::Tcp {
        // The first packet has SYN, and no other flag that counts.
        put(&mut header, 13, &[2]);
    }
    header
}

/// What conntrack says of the packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracked {
    /// Not yet looked at: rules before conntrack.
    NotYet,
    Yes,
    No,
}

pub(super) const NEW: u32 = 8;
const INVALID: u32 = 1;
const UNTRACKED: u32 = 64;

impl Tracked {
    pub(super) fn state(self) -> u32 {
        match self {
            Self::NotYet => INVALID,
            Self::Yes => NEW,
            Self::No => UNTRACKED,
        }
    }
}

/// Whether the destination was translated.
pub(super) fn has_dnat(packet: &Packet) -> bool {
    packet.original.is_some_and(|to| to != (packet.destination, packet.dport))
}

pub(super) fn has_snat(packet: &Packet) -> bool {
    packet.seen_as.is_some_and(|seen| seen != SeenAs::Itself)
}

/// Where it was sent to before NAT.
pub(super) fn original(packet: &Packet) -> (IpAddr, u16) {
    packet.original.unwrap_or((packet.destination, packet.dport))
}

/// Loads something about the connection; `false` ends the rule.
pub(super) fn ct(
    regs: &mut Registers,
    packet: &Packet,
    tracked: Tracked,
    key: CtKey,
    reply: Option<bool>,
    dreg: Reg,
) -> bool {
    if key == CtKey::State {
        regs.set(dreg, &tracked.state().to_ne_bytes());
        return true;
    }
    if tracked != Tracked::Yes {
        return false;
    }
    let (dst, dport) = original(packet);
    match (key, reply.unwrap_or(false)) {
        (CtKey::State, _) => {}
        (CtKey::Direction, _) => regs.set(dreg, &[0]),
        (CtKey::Status, _) => {
            let bits = u32::from(has_snat(packet)) << 4 | u32::from(has_dnat(packet)) << 5;
            let missing = Missing::Detail("the connection's status");
            regs.write(dreg, &bits.to_ne_bytes(), &0x30_u32.to_ne_bytes(), missing);
        }
        (CtKey::Mark, _) => regs.set(dreg, &packet.ct_mark.to_ne_bytes()),
        (CtKey::Protocol, _) => regs.set(dreg, &[protocol(packet.proto)]),
        (CtKey::Dst, false) => regs.set(dreg, &octets(dst)),
        (CtKey::ProtoDst, false) => regs.set(dreg, &dport.to_be_bytes()),
        (CtKey::Src, true) => regs.set(dreg, &octets(packet.destination)),
        (CtKey::ProtoSrc, true) => regs.set(dreg, &packet.dport.to_be_bytes()),
        (CtKey::Src, false) => match packet.source {
            Sender::Address(source) => regs.set(dreg, &octets(source)),
            Sender::Elsewhere => {
                let len = octets(packet.destination).len();
                regs.forget(dreg, len, Missing::ClientAddress);
            }
        },
        (CtKey::ProtoSrc, false) => match packet.sport {
            Some(port) => regs.set(dreg, &port.to_be_bytes()),
            None => regs.forget(dreg, 2, Missing::ClientPort),
        },
        (CtKey::Dst | CtKey::ProtoDst | CtKey::Other(_), _) => {
            regs.forget(dreg, 16, Missing::Detail("a property of the connection"));
        }
    }
    true
}

/// The type of an address for this node (`RTN_*`).
pub(super) fn address_type(
    source: &dyn Source,
    packet: &Packet,
    of_source: bool,
) -> Option<RouteKind> {
    let address = match (of_source, packet.source) {
        (false, _) => packet.destination,
        (true, Sender::Address(address)) => address,
        (true, Sender::Elsewhere) => return Some(RouteKind::Unicast),
    };
    let query = RouteQuery { netns: packet.netns, to: address, mark: 0 };
    let kind = source.route(&query)?.kind;
    Some(match kind {
        // No route is told as a plain address.
        RouteKind::None => RouteKind::Unicast,
        kind => kind,
    })
}

/// Asks the routing tables.
pub(super) fn fib(
    regs: &mut Registers,
    source: &dyn Source,
    packet: &Packet,
    result: FibResult,
    (saddr, by_interface): (bool, bool),
    dreg: Reg,
) {
    let unknown = Missing::Detail("the route back");
    match result {
        FibResult::AddrType => match address_type(source, packet, saddr) {
            // Whether that interface has the address is another question.
            Some(RouteKind::Local) if by_interface => {
                regs.forget(dreg, 4, Missing::Detail("which interface has the address"));
            }
            Some(kind) => regs.set(dreg, &u32::from(kind.rtn()).to_ne_bytes()),
            None => regs.forget(dreg, 4, Missing::Detail("the type of the address")),
        },
        FibResult::Oif => regs.forget(dreg, 4, unknown),
        FibResult::Oifname => regs.forget(dreg, NAME, unknown),
    }
}
