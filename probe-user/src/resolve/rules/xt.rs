//! Whether iptables' matches hold for a packet.

use std::net::IpAddr;

use super::load::{self, Tracked};
use super::regs::{Holds, Missing};
use super::{Packet, Sender, Source};
use crate::model::{IpSet, IpSetId, IpSetMember, Proto, RouteKind, Side, XtMatch};

/// A match's result, and what it is about when that is not known.
pub(super) fn holds(
    source: &dyn Source,
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
                let is_one = match load::address_type(source, packet, of_source) {
                    Some(RouteKind::Local) if limited => {
                        Holds::Maybe(Missing::Detail("which interface has the address"))
                    }
                    Some(kind) => Holds::from(types & 1u16 << kind.rtn() != 0),
                    None => Holds::Maybe(Missing::Detail("the type of the address")),
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
            if packet.proto != Proto::Tcp {
                return Holds::No;
            }
            let syn = Holds::from((2 & flags.0 == flags.1) != *invert_flags);
            let option = match option {
                0 => Holds::Yes,
                _ => Holds::Maybe(Missing::Detail("a TCP option")),
            };
            port(packet.sport, *sports, *invert_sports)
                .and(port(Some(packet.dport), *dports, *invert_dports))
                .and(syn)
                .and(option)
        }
        XtMatch::Udp { sports, dports, invert_sports, invert_dports } => {
            if packet.proto != Proto::Udp {
                return Holds::No;
            }
            port(packet.sport, *sports, *invert_sports).and(port(
                Some(packet.dport),
                *dports,
                *invert_dports,
            ))
        }
        XtMatch::Multiport { side, ports, invert } => {
            let any = |one: Option<u16>| match one {
                Some(port) => Holds::from(ports.iter().any(|(a, b)| (*a..=*b).contains(&port))),
                None => Holds::Maybe(Missing::ClientPort),
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
        XtMatch::Recent { .. } => Holds::Maybe(Missing::Detail("who connected recently")),
        XtMatch::Set { index, source: sides, invert, other } => {
            if *other {
                return Holds::Maybe(Missing::Detail("an ipset's counters"));
            }
            let id = IpSetId { netns: packet.netns, index: *index };
            let is_in = match source.ip_set(&id) {
                Some(set) => in_set(packet, &set, sides),
                None => Holds::Maybe(Missing::Detail("what is in an ipset")),
            };
            if *invert { is_in.invert() } else { is_in }
        }
        XtMatch::Iprange { source: from, destination: to } => {
            let of_source = match (packet.source, from) {
                (_, None) => Holds::Yes,
                (Sender::Address(address), Some((a, b, invert))) => {
                    Holds::from((*a <= address && address <= *b) != *invert)
                }
                (Sender::Elsewhere, Some(_)) => Holds::Maybe(Missing::ClientAddress),
            };
            let of_destination = to.is_none_or(|(a, b, invert)| {
                (a <= packet.destination && packet.destination <= b) != invert
            });
            of_source.and(Holds::from(of_destination))
        }
        XtMatch::Owner { uid, other } => {
            let user = match (uid, packet.uid) {
                (None, _) => Holds::Yes,
                // No socket of this node sent it.
                (Some((_, _, invert)), _) if packet.iif.is_some() => Holds::from(*invert),
                (Some((a, b, invert)), Some(uid)) => {
                    Holds::from((*a..=*b).contains(&uid) != *invert)
                }
                (Some(_), None) => Holds::Maybe(Missing::User),
            };
            match other {
                true => user.and(Holds::Maybe(Missing::Detail("who sent it"))),
                false => user,
            }
        }
        XtMatch::Unknown { .. } => Holds::Maybe(Missing::Detail("a match that is not understood")),
    }
}

fn port(port: Option<u16>, (first, last): (u16, u16), invert: bool) -> Holds {
    let is_in = match port {
        _ if (first, last) == (0, u16::MAX) => Holds::Yes,
        Some(port) => Holds::from((first..=last).contains(&port)),
        None => Holds::Maybe(Missing::ClientPort),
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
            Tracked::NotYet => 1,
            Tracked::Yes => 8,
            Tracked::No => 0x100,
        };
        let tracked = tracked == Tracked::Yes;
        let bit = bit
            | if tracked && load::has_snat(packet) { 0x40 } else { 0 }
            | if tracked && load::has_dnat(packet) { 0x80 } else { 0 };
        all = all.and(Holds::from((bit & wanted != 0) != *invert));
    }
    if tracked != Tracked::Yes {
        // Without a connection the kernel looks at nothing but the state.
        return if states.is_some() { all } else { Holds::No };
    }
    let (dst, dport) = load::original(packet);
    let source = match packet.source {
        Sender::Address(address) => Some(address),
        Sender::Elsewhere => None,
    };
    let address = |is: Option<IpAddr>, wanted: &Option<(IpAddr, IpAddr, bool)>| match (is, wanted) {
        (_, None) => Holds::Yes,
        (Some(is), Some((wanted, mask, invert))) => {
            Holds::from(masked(is, *mask, *wanted) != *invert)
        }
        (None, Some(_)) => Holds::Maybe(Missing::ClientAddress),
    };
    all = all
        .and(address(source, orig_source))
        .and(address(Some(dst), orig_destination))
        .and(address(Some(packet.destination), reply_source));
    if reply_destination.is_some() {
        all = all.and(Holds::Maybe(Missing::Detail("whom the server sees")));
    }
    let ports = |is: Option<u16>, wanted: &Option<(u16, u16, bool)>| match wanted {
        None => Holds::Yes,
        Some((first, last, invert)) => port(is, (*first, *last), *invert),
    };
    all = all.and(ports(packet.sport, orig_sport)).and(ports(Some(dport), orig_dport));
    if let Some((number, invert)) = proto {
        let is = u16::from(load::protocol(packet.proto));
        all = all.and(Holds::from((is == *number) != *invert));
    }
    if *reply_direction == Some(true) {
        return Holds::No;
    }
    if let Some((wanted, invert)) = status {
        let known = u16::from(load::has_snat(packet)) << 4 | u16::from(load::has_dnat(packet)) << 5;
        all = all.and(match (wanted & 0x30 == *wanted, known & wanted != 0) {
            (_, true) => Holds::from(!invert),
            (true, false) => Holds::from(*invert),
            (false, false) => Holds::Maybe(Missing::Detail("the connection's status")),
        });
    }
    if *other { all.and(Holds::Maybe(Missing::Detail("the connection"))) } else { all }
}

/// Whether an address is a wanted one under a mask.
fn masked(is: IpAddr, mask: IpAddr, wanted: IpAddr) -> bool {
    let (is, mask, wanted) = (load::octets(is), load::octets(mask), load::octets(wanted));
    is.len() == wanted.len()
        && is.iter().zip(&mask).zip(&wanted).all(|((is, mask), wanted)| (is ^ wanted) & mask == 0)
}

fn in_set(packet: &Packet, set: &IpSet, sides: &[bool]) -> Holds {
    let Some(members) = &set.members else {
        return Holds::Maybe(Missing::Detail("what is in an ipset"));
    };
    let prefix = |m: &IpSetMember| m.address.map_or(u8::MAX, |(_, prefix)| prefix);
    let mut all: Vec<(u8, bool, Holds)> = members
        .iter()
        .map(|m| (prefix(m), m.nomatch, is_member(packet, set, m, sides)))
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

fn is_member(packet: &Packet, set: &IpSet, member: &IpSetMember, sides: &[bool]) -> Holds {
    let dimensions = set.kind.split(':').nth(1).unwrap_or_default().split(',');
    let mut all = Holds::Yes;
    let mut addresses = 0;
    for (at, dimension) in dimensions.enumerate() {
        let of_source = sides.get(at).copied().unwrap_or(false);
        let address = match (of_source, packet.source) {
            (false, _) => Some(packet.destination),
            (true, Sender::Address(source)) => Some(source),
            (true, Sender::Elsewhere) => None,
        };
        all = all.and(match dimension {
            "ip" | "net" => {
                addresses += 1;
                let wanted = if addresses == 1 { member.address } else { member.second };
                let last = member.address_to.filter(|_| addresses == 1);
                match (address, wanted, last) {
                    (None, ..) => Holds::Maybe(Missing::ClientAddress),
                    (Some(is), Some((first, _)), Some(last)) => {
                        Holds::from(first <= is && is <= last)
                    }
                    (Some(is), Some((net, prefix)), None) => {
                        Holds::from(crate::resolve::route::covers(net, prefix, is))
                    }
                    (Some(_), None, _) => Holds::No,
                }
            }
            "port" => {
                let port = if of_source { packet.sport } else { Some(packet.dport) };
                let number = load::protocol(packet.proto);
                // A bitmap of ports is of any protocol.
                let proto = member.proto.is_none_or(|p| p == number);
                match (port, member.ports) {
                    (_, None) => Holds::No,
                    (None, Some(_)) => Holds::Maybe(Missing::ClientPort),
                    (Some(port), Some((first, last))) => {
                        Holds::from(proto && (first..=last).contains(&port))
                    }
                }
            }
            _ => Holds::Maybe(Missing::Detail("what is in an ipset")),
        });
    }
    all
}
