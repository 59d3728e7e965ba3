//! What NAT makes of a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Packet, PacketSender, SeenAs};

/// `NF_NAT_RANGE_PROTO_RANDOM` and `…_FULLY`.
const RANDOM: u32 = 4 | 0x10;
/// `NF_NAT_RANGE_PROTO_OFFSET`.
const OFFSET: u32 = 0x20;
/// `NF_NAT_RANGE_NETMAP`.
const NETMAP: u32 = 0x40;
/// How many addresses of a range are told apart.
const SEVERAL: u128 = 32;

/// What NAT puts into a packet: what is left out stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NatMapping {
    pub(super) addresses: Option<(IpAddr, IpAddr)>,
    pub(super) ports: Option<(u16, u16)>,
    pub(super) base: Option<u16>,
    pub(super) flags: u32,
}

/// Where a packet may be sent to, all as likely, and what else is to be said.
pub(super) type Destinations = (Vec<(IpAddr, u16)>, Option<String>);

/// The destinations that DNAT may give a packet, all as likely, and what else is to
/// be said. `None` when they can't be told.
pub(super) fn destinations(packet: &Packet, to: &NatMapping) -> Option<Destinations> {
    let (port, note) = match to.ports {
        None => (packet.dport, None),
        Some((first, last)) if to.flags & OFFSET != 0 => {
            let shift = packet.dport.wrapping_sub(to.base.unwrap_or(first));
            let count = u32::from(last.saturating_sub(first)) + 1;
            let at = u32::from(shift) % count;
            (first.wrapping_add(u16::try_from(at).unwrap_or(0)), None)
        }
        Some((first, last)) if first == last => (first, None),
        Some(_) if to.flags & RANDOM != 0 => return None,
        // The kernel keeps a port that is in the range.
        Some((first, last)) if (first..=last).contains(&packet.dport) => (packet.dport, None),
        Some((first, last)) => {
            (first, Some(format!("another port up to {last} if {first} is taken")))
        }
    };
    let note = match to.addresses {
        // `find_best_ips_proto`: a hash of the client's address, so the share is one of clients.
        Some((first, last)) if first != last && to.flags & NETMAP == 0 => {
            let same = format!("one client always gets the same of {first} to {last}");
            Some(note.map_or(same.clone(), |note| format!("{same}; {note}")))
        }
        _ => note,
    };
    let addresses = match to.addresses {
        None => vec![packet.destination],
        Some((first, last)) if first == last => vec![first],
        Some((first, last)) if to.flags & NETMAP != 0 => {
            vec![netmap(packet.destination, first, last)?]
        }
        Some((first, last)) => {
            let (a, b) = (number(first), number(last));
            if b.checked_sub(a)? >= SEVERAL {
                return None;
            }
            (a..=b).map(|n| address(n, first.is_ipv6())).collect::<Option<Vec<_>>>()?
        }
    };
    Some((addresses.into_iter().map(|address| (address, port)).collect(), note))
}

/// What SNAT makes of the source, and what else is to be said.
pub(super) fn seen_as(packet: &Packet, to: &NatMapping) -> (SeenAs, Option<String>) {
    match to.addresses {
        None => (SeenAs::Itself, None),
        Some((first, last)) if first == last => (SeenAs::Address(first), None),
        Some((first, last)) => {
            if to.flags & NETMAP != 0
                && let PacketSender::Address(source) = packet.source
                && let Some(address) = netmap(source, first, last)
            {
                return (SeenAs::Address(address), None);
            }
            let note = format!("the source becomes one of {first} to {last}");
            (SeenAs::Address(first), Some(note))
        }
    }
}

pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

pub(super) fn address(number: u128, ipv6: bool) -> Option<IpAddr> {
    if ipv6 {
        Some(Ipv6Addr::from(number).into())
    } else {
        Some(Ipv4Addr::from(u32::try_from(number).ok()?).into())
    }
}

/// The loopback address of an IP version.
pub(super) fn loopback(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
}

/// The same host in another network.
fn netmap(is: IpAddr, first: IpAddr, last: IpAddr) -> Option<IpAddr> {
    let host = number(first) ^ number(last);
    address(number(is) & host | number(first) & !host, first.is_ipv6())
}

/// The last address of a network.
pub(super) fn last_of(network: IpAddr, prefix: u8) -> Option<IpAddr> {
    let bits: u32 = if network.is_ipv6() { 128 } else { 32 };
    let host = bits.checked_sub(u32::from(prefix))?;
    let ones = u128::MAX.checked_shr(128 - host).unwrap_or(0);
    address(number(network) | ones, network.is_ipv6())
}
