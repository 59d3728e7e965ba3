//! Whether iptables' matches hold for a packet.

use std::net::IpAddr;

use super::fields::{self, Tracked};
use super::value::{Holds, UnknownInput};
use super::{Packet, PacketSender, RuleSource};
use crate::model::{IpSet, IpSetId, IpSetMember, Proto, RouteKind, Side, XtMatch};

/// A match's result, and what it is about when that is not known.
pub(super) fn holds(
    source: &dyn RuleSource,
    packet: &Packet,
    tracked: Tracked,
    one: &XtMatch,
) -> Holds {
    match one {
        XtMatch::Addrtype {
            source: from,
            destination: to,
            invert_source,
            invert_destination,
            limit_in,
            limit_out,
        } => {
            let limited = *limit_in || *limit_out;
            let side = |types: u16, invert: bool, of_source: bool| {
                if types == 0 {
                    return Holds::Yes;
                }
                let is_one = if packet.destination.is_ipv6() {
                    is_of_type6(source, packet, types, of_source, limited)
                } else {
                    match fields::address_type(source, packet, of_source) {
                        Some(RouteKind::Local) if limited => WHOSE,
                        Some(kind) => Holds::from(types & bit(kind) != 0),
                        None => TYPE,
                    }
                };
                if invert { is_one.invert() } else { is_one }
            };
            side(*from, *invert_source, true).and(side(*to, *invert_destination, false))
        }
        XtMatch::Tcp {
            sports,
            dports,
            invert_sports,
            invert_dports,
            flags,
            invert_flags,
            option,
        } => {
            if !fields::is_of(packet, Proto::Tcp) {
                return Holds::No;
            }
            let syn =
                Holds::from((fields::tcp_flags(packet) & flags.0 == flags.1) != *invert_flags);
            let option = match option {
                0 => Holds::Yes,
                _ => Holds::Maybe(UnknownInput::Detail("a TCP option")),
            };
            port(packet.sport, *sports, *invert_sports)
                .and(port(Some(packet.dport), *dports, *invert_dports))
                .and(syn)
                .and(option)
        }
        XtMatch::Udp { sports, dports, invert_sports, invert_dports } => {
            if !fields::is_of(packet, Proto::Udp) {
                return Holds::No;
            }
            port(packet.sport, *sports, *invert_sports).and(port(
                Some(packet.dport),
                *dports,
                *invert_dports,
            ))
        }
        XtMatch::Icmp6 { kind, codes: (first, _), invert } => match packet.discovery {
            Some(message) => {
                // Its code is 0.
                Holds::from((message.number() == *kind && *first == 0) != *invert)
            }
            None => Holds::No,
        },
        XtMatch::Multiport { side, ports, invert } => {
            let any = |one: Option<u16>| match one {
                Some(port) => Holds::from(ports.iter().any(|(a, b)| (*a..=*b).contains(&port))),
                None => Holds::Maybe(UnknownInput::ClientPort),
            };
            let one = match side {
                Side::Source => any(packet.sport),
                Side::Destination => any(Some(packet.dport)),
                Side::Either => {
                    any(packet.sport).invert().and(any(Some(packet.dport)).invert()).invert()
                }
            };
            if *invert { one.invert() } else { one }
        }
        XtMatch::Random { probability, invert } => {
            let often = f64::from(*probability) / f64::from(1u32 << 31);
            let often = Holds::Often(often.min(1.0));
            if *invert { often.invert() } else { often }
        }
        XtMatch::Nth { every, invert } => {
            let often = Holds::Often(1.0 / f64::from((*every).max(1)));
            if *invert { often.invert() } else { often }
        }
        XtMatch::Mark { mark, mask, invert } => {
            Holds::from((packet.mark & mask == *mark) != *invert)
        }
        XtMatch::Connmark { mark, mask, invert } => match tracked {
            Tracked::Yes => Holds::from((packet.ct_mark & mask == *mark) != *invert),
            _ => Holds::No,
        },
        XtMatch::Conntrack { .. } => conntrack(packet, tracked, one),
        XtMatch::Recent { set: true, invert, .. } => Holds::from(!invert),
        XtMatch::Recent { .. } => Holds::Maybe(UnknownInput::ClientAddress),
        XtMatch::Set { index, source: sides, invert, other } => {
            if *other {
                return Holds::Maybe(UnknownInput::Detail("an ipset's counters"));
            }
            let id = IpSetId { netns: packet.netns, index: *index };
            let is_in = match source.ip_set(&id) {
                Some(set) if source.spend(set.members.as_ref().map_or(0, Vec::len)) => {
                    in_set(packet, &set, sides)
                }
                Some(_) => Holds::Maybe(UnknownInput::Detail("what is in an ipset")),
                None => Holds::Maybe(UnknownInput::Detail("what is in an ipset")),
            };
            if *invert { is_in.invert() } else { is_in }
        }
        XtMatch::Iprange { source: from, destination: to } => {
            let of_source = match (packet.source, from) {
                (_, None) => Holds::Yes,
                (PacketSender::Address(address), Some((a, b, invert))) => {
                    Holds::from((*a <= address && address <= *b) != *invert)
                }
                (PacketSender::Elsewhere, Some(_)) => Holds::Maybe(UnknownInput::ClientAddress),
            };
            let of_destination = match (packet.to(), to) {
                (_, None) => Holds::Yes,
                (Some(address), Some((a, b, invert))) => {
                    Holds::from((*a <= address && address <= *b) != *invert)
                }
                (None, Some(_)) => Holds::Maybe(UnknownInput::ClientAddress),
            };
            of_source.and(of_destination)
        }
        XtMatch::Owner { uid, gid, other } => {
            let is = |wanted: &Option<(u32, u32, bool)>, id: Option<u32>| match (wanted, id) {
                (None, _) => Holds::Yes,
                // No socket of this node sent it.
                (Some((_, _, invert)), _) if packet.iif.is_some() => Holds::from(*invert),
                (Some((a, b, invert)), Some(id)) => Holds::from((*a..=*b).contains(&id) != *invert),
                (Some(_), None) => Holds::Maybe(UnknownInput::User),
            };
            let owner = is(uid, packet.uid).and(is(gid, packet.gid));
            match other {
                true => owner.and(Holds::Maybe(UnknownInput::Detail("who sent it"))),
                false => owner,
            }
        }
        XtMatch::Socket { transparent } => {
            let none = *transparent && source.has_transparent(packet.netns) == Some(false);
            if none {
                Holds::No
            } else {
                Holds::Maybe(UnknownInput::Detail("which socket takes it"))
            }
        }
        XtMatch::Physdev { asks, invert, .. } => {
            let over_port = match &packet.iif {
                None => Some(false),
                Some(nic) => source.over_bridge_port(packet, nic.index),
            };
            // What is sent on over another port of the same bridge.
            let onward = packet.iif.is_some() && packet.iif == packet.oif;
            let differs = |bit: u8, is: bool| asks & bit != 0 && is == (invert & bit != 0);
            match over_port {
                // Without a port nothing of it is so (`physdev_mt` in `net/netfilter/xt_physdev.c`).
                Some(false) => Holds::from(*asks & !*invert == 0),
                Some(true)
                    if differs(physdev::IS_IN, true)
                        || differs(physdev::IS_OUT, onward)
                        || differs(physdev::IS_BRIDGED, onward)
                        || asks & physdev::OUT != 0 && !onward =>
                {
                    Holds::No
                }
                Some(true) if asks & (physdev::IN | physdev::OUT) == 0 => Holds::Yes,
                _ => Holds::Maybe(UnknownInput::Detail("the port of the bridge")),
            }
        }
        XtMatch::Rpfilter { loose, mark, accept_local, invert } => {
            let mark = if *mark { packet.mark } else { 0 };
            match fields::goes_back(source, packet, !*loose, mark) {
                Some(true) => Holds::from(!*invert),
                Some(false) if !*accept_local => Holds::from(*invert),
                _ => Holds::Maybe(UnknownInput::Detail("the route back")),
            }
        }
        // Nothing here is to a group.
        XtMatch::Pkttype { kind, invert } => {
            Holds::from((*kind == u32::from(fields::packet_type(packet))) != *invert)
        }
        XtMatch::Unknown { .. } => {
            Holds::Maybe(UnknownInput::Detail("a match that is not understood"))
        }
    }
}

/// What `physdev` asks (`linux/netfilter/xt_physdev.h`).
pub(crate) mod physdev {
    pub(crate) const IN: u8 = 1;
    pub(crate) const OUT: u8 = 2;
    pub(crate) const IS_BRIDGED: u8 = 4;
    pub(crate) const IS_IN: u8 = 8;
    pub(crate) const IS_OUT: u8 = 16;
}

const WHOSE: Holds = Holds::Maybe(UnknownInput::Detail("which interface has the address"));
const TYPE: Holds = Holds::Maybe(UnknownInput::Detail("the type of the address"));

/// The bit of a type in `addrtype`.
fn bit(kind: RouteKind) -> u16 {
    1 << kind.rtn()
}

/// Whether an address of IPv6 is of these types. Unlike with IPv4 they do not exclude each
/// other, and several must hold: the node's own is unicast as well (`match_type6` in
/// `net/netfilter/xt_addrtype.c`).
fn is_of_type6(
    source: &dyn RuleSource,
    packet: &Packet,
    types: u16,
    of_source: bool,
    limited: bool,
) -> Holds {
    let asks = |kind| types & bit(kind) != 0;
    let address = match (of_source, packet.source) {
        (false, _) => packet.to().unwrap_or(std::net::Ipv6Addr::LOCALHOST.into()),
        (true, PacketSender::Address(address)) => address,
        // An address that others may have.
        (true, PacketSender::Elsewhere) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    let (multicast, unspecified) = (address.is_multicast(), address.is_unspecified());
    if (asks(RouteKind::Multicast) && !multicast)
        || (asks(RouteKind::Unicast) && (multicast || unspecified))
        || (asks(RouteKind::None) && !unspecified)
    {
        return Holds::No;
    }
    let looked_up = [RouteKind::Local, RouteKind::Anycast, RouteKind::Unreachable];
    if !looked_up.into_iter().any(asks) {
        return Holds::Yes;
    }
    match fields::address_type(source, packet, of_source) {
        Some(RouteKind::Local) if limited => WHOSE,
        // Whatever refuses is unreachable.
        Some(RouteKind::Blackhole | RouteKind::Prohibit) => {
            Holds::from(asks(RouteKind::Unreachable))
        }
        Some(kind) => Holds::from(looked_up.contains(&kind) && asks(kind)),
        None => TYPE,
    }
}

fn port(port: Option<u16>, (first, last): (u16, u16), invert: bool) -> Holds {
    let is_in = match port {
        _ if (first, last) == (0, u16::MAX) => Holds::Yes,
        Some(port) => Holds::from((first..=last).contains(&port)),
        None => Holds::Maybe(UnknownInput::ClientPort),
    };
    if invert { is_in.invert() } else { is_in }
}

fn conntrack(packet: &Packet, tracked: Tracked, one: &XtMatch) -> Holds {
    let XtMatch::Conntrack {
        states,
        status,
        proto,
        orig_source,
        orig_destination,
        reply_source,
        reply_destination,
        orig_sport,
        orig_dport,
        reply_direction,
        other,
    } = one
    else {
        return Holds::No;
    };
    let mut all = Holds::Yes;
    if let Some((wanted, invert)) = states {
        let bit = match tracked {
            Tracked::NotYet | Tracked::Invalid => 1,
            Tracked::Yes if fields::is_established(packet) => 2,
            Tracked::Yes => 8,
            Tracked::No => 0x100,
        };
        let tracked = tracked == Tracked::Yes;
        let bit = bit
            | if tracked && fields::has_snat(packet) { 0x40 } else { 0 }
            | if tracked && fields::has_dnat(packet) { 0x80 } else { 0 };
        all = all.and(Holds::from((bit & wanted != 0) != *invert));
    }
    if tracked != Tracked::Yes {
        // Without a connection the kernel looks at nothing but the state.
        return if states.is_some() { all } else { Holds::No };
    }
    let (dst, dport) = fields::original(packet);
    let source = match fields::client(packet) {
        PacketSender::Address(address) => Some(address),
        PacketSender::Elsewhere => None,
    };
    let address = |is: Option<IpAddr>, wanted: &Option<(IpAddr, IpAddr, bool)>| match (is, wanted) {
        (_, None) => Holds::Yes,
        (Some(is), Some((wanted, mask, invert))) => {
            Holds::from(masked(is, *mask, *wanted) != *invert)
        }
        (None, Some(_)) => Holds::Maybe(UnknownInput::ClientAddress),
    };
    all = all
        .and(address(source, orig_source))
        .and(address(Some(dst), orig_destination))
        .and(address(fields::server(packet).map(|(address, _)| address), reply_source));
    if reply_destination.is_some() {
        all = all.and(Holds::Maybe(UnknownInput::Detail("whom the server sees")));
    }
    let ports = |is: Option<u16>, wanted: &Option<(u16, u16, bool)>| match wanted {
        None => Holds::Yes,
        Some((first, last, invert)) => port(is, (*first, *last), *invert),
    };
    all =
        all.and(ports(fields::client_port(packet), orig_sport)).and(ports(Some(dport), orig_dport));
    if let Some((number, invert)) = proto {
        let is = u16::from(fields::protocol(packet));
        all = all.and(Holds::from((is == *number) != *invert));
    }
    if reply_direction.is_some_and(|reply| reply != packet.answer.is_some()) {
        return Holds::No;
    }
    if let Some((wanted, invert)) = status {
        let known =
            u16::from(fields::has_snat(packet)) << 4 | u16::from(fields::has_dnat(packet)) << 5;
        all = all.and(match (wanted & 0x30 == *wanted, known & wanted != 0) {
            (_, true) => Holds::from(!invert),
            (true, false) => Holds::from(*invert),
            (false, false) => Holds::Maybe(UnknownInput::Detail("the connection's status")),
        });
    }
    if *other { all.and(Holds::Maybe(UnknownInput::Detail("the connection"))) } else { all }
}

/// Whether an address is a wanted one under a mask.
fn masked(is: IpAddr, mask: IpAddr, wanted: IpAddr) -> bool {
    let (is, mask, wanted) = (fields::octets(is), fields::octets(mask), fields::octets(wanted));
    is.len() == wanted.len()
        && is.iter().zip(&mask).zip(&wanted).all(|((is, mask), wanted)| (is ^ wanted) & mask == 0)
}

fn in_set(packet: &Packet, set: &IpSet, sides: &[bool]) -> Holds {
    let Some(members) = &set.members else {
        return Holds::Maybe(UnknownInput::Detail("what is in an ipset"));
    };
    let prefix = |m: &IpSetMember| m.address.map_or(u8::MAX, |(_, prefix)| prefix);
    let mut all: Vec<(u8, bool, Holds)> = members
        .iter()
        .map(|m| (prefix(m), m.nomatch, is_member(packet, set, m, sides, false)))
        .filter(|(.., holds)| *holds != Holds::No)
        .collect();
    if all.iter().all(|(_, nomatch, _)| *nomatch) {
        return Holds::No;
    }
    // The smallest network decides; what surely holds before what may.
    all.sort_by_key(|(prefix, _, holds)| (std::cmp::Reverse(*prefix), *holds != Holds::Yes));
    match all.first() {
        Some((_, true, holds)) => holds.invert(),
        Some((_, false, holds)) => *holds,
        None => Holds::No,
    }
}

/// The members, with their places, that a packet may be of if its destination port were any.
pub(super) fn at_any_port<'a>(
    packet: &'a Packet,
    set: &'a IpSet,
    sides: &'a [bool],
) -> impl Iterator<Item = (usize, &'a IpSetMember, Holds)> {
    let all = set.members.iter().flatten().enumerate();
    let holds = |(at, m)| (at, m, is_member(packet, set, m, sides, true));
    all.map(holds).filter(|(.., holds)| *holds != Holds::No)
}

/// Whether a set is asked for a packet's destination port.
pub(super) fn asks_for_dport(set: &IpSet, sides: &[bool]) -> bool {
    let of_source = |at| sides.get(at).copied().unwrap_or(false);
    dimensions(set).enumerate().any(|(at, dimension)| dimension == "port" && !of_source(at))
}

fn dimensions(set: &IpSet) -> impl Iterator<Item = &str> {
    set.kind.split(':').nth(1).unwrap_or_default().split(',')
}

fn is_member(
    packet: &Packet,
    set: &IpSet,
    member: &IpSetMember,
    sides: &[bool],
    any_port: bool,
) -> Holds {
    let mut all = Holds::Yes;
    let mut addresses = 0;
    for (at, dimension) in dimensions(set).enumerate() {
        let of_source = sides.get(at).copied().unwrap_or(false);
        let address = match (of_source, packet.source) {
            (false, _) => packet.to(),
            (true, PacketSender::Address(source)) => Some(source),
            (true, PacketSender::Elsewhere) => None,
        };
        all = all.and(match dimension {
            "ip" | "net" => {
                addresses += 1;
                let wanted = if addresses == 1 { member.address } else { member.second };
                let last = member.address_to.filter(|_| addresses == 1);
                match (address, wanted, last) {
                    (None, ..) => Holds::Maybe(UnknownInput::ClientAddress),
                    (Some(is), Some((first, _)), Some(last)) => {
                        Holds::from(first <= is && is <= last)
                    }
                    (Some(is), Some((net, prefix)), None) => {
                        Holds::from(crate::route::covers(net, prefix, is))
                    }
                    (Some(_), None, _) => Holds::No,
                }
            }
            "port" => {
                let port = if of_source { packet.sport } else { Some(packet.dport) };
                let number = fields::protocol(packet);
                // A bitmap of ports is of any protocol.
                let proto = member.proto.is_none_or(|p| p == number);
                match (port, member.ports) {
                    (_, None) => Holds::No,
                    (_, Some(_)) if any_port && !of_source => Holds::from(proto),
                    (None, Some(_)) => Holds::Maybe(UnknownInput::ClientPort),
                    (Some(port), Some((first, last))) => {
                        Holds::from(proto && (first..=last).contains(&port))
                    }
                }
            }
            _ => Holds::Maybe(UnknownInput::Detail("what is in an ipset")),
        });
    }
    all
}
