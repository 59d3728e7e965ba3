//! Packets that differ in where they are sent to and where they come in, all at once.
//!
//! A packet that stands for others says of its destination, port and device one of
//! those it stands for. A test that tells them apart splits it first, so that what is
//! said of the one is true of all.

use std::net::IpAddr;
use std::sync::Arc;

use super::nat::{address, number};
use super::{Nic, Packet, PacketSender};

/// Numbers as ranges, both ends included: in order, and apart from each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ranges(Arc<[(u128, u128)]>);

impl Ranges {
    /// Of any ranges.
    pub(crate) fn new(all: impl IntoIterator<Item = (u128, u128)>) -> Self {
        let mut all: Vec<(u128, u128)> = all.into_iter().filter(|(a, b)| a <= b).collect();
        all.sort_unstable();
        let mut joined: Vec<(u128, u128)> = Vec::with_capacity(all.len());
        for (from, to) in all {
            match joined.last_mut() {
                Some((_, end)) if from <= end.saturating_add(1) => *end = (*end).max(to),
                _ => joined.push((from, to)),
            }
        }
        Self(joined.into())
    }

    pub(crate) fn ports(all: impl IntoIterator<Item = (u16, u16)>) -> Self {
        Self::new(all.into_iter().map(|(a, b)| (u128::from(a), u128::from(b))))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> u128 {
        self.0.iter().fold(0_u128, |all, (a, b)| all.saturating_add(b - a).saturating_add(1))
    }

    fn first(&self) -> Option<u128> {
        self.0.first().map(|(from, _)| *from)
    }

    /// Whether it has no more than one.
    pub(crate) fn is_one(&self) -> bool {
        match &*self.0 {
            [] => true,
            [(from, to)] => from == to,
            _ => false,
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = u128> {
        self.0.iter().flat_map(|(from, to)| *from..=*to)
    }

    pub(crate) fn as_ranges(&self) -> &[(u128, u128)] {
        &self.0
    }

    /// In pieces that begin at some of these: each is the same for what knows no others.
    pub(crate) fn cut(&self, at: &[u128]) -> Vec<(u128, u128)> {
        let mut pieces = Vec::with_capacity(self.0.len() + at.len());
        for (from, to) in self.0.iter() {
            let mut from = *from;
            let first = at.partition_point(|cut| *cut <= from);
            for cut in at.iter().skip(first).take_while(|cut| **cut <= *to) {
                pieces.push((from, cut - 1));
                from = *cut;
            }
            pieces.push((from, *to));
        }
        pieces
    }

    /// Those from one to another.
    pub fn within(&self, from: u128, to: u128) -> Self {
        let first = self.0.partition_point(|(_, end)| *end < from);
        let some = self.0.iter().skip(first).take_while(|(start, _)| *start <= to);
        Self(some.map(|(a, b)| ((*a).max(from), (*b).min(to))).collect())
    }

    /// Those that are among others, and those that are not.
    pub(crate) fn split(&self, others: &Self) -> (Self, Self) {
        let (mut within, mut without) = (Vec::new(), Vec::new());
        let mut at = others.0.partition_point(|(_, to)| Some(*to) < self.first());
        let begin = others.0.get(at).map_or(u128::MAX, |(from, _)| *from);
        let skip = self.0.partition_point(|(_, to)| *to < begin);
        without.extend_from_slice(self.0.get(..skip).unwrap_or_default());
        let mut rest = self.0.iter().skip(skip);
        while let Some((from, to)) = rest.next() {
            let mut from = Some(*from);
            while let Some(start) = from {
                let Some((a, b)) = others.0.get(at) else {
                    without.push((start, *to));
                    break;
                };
                if *b < start {
                    at += 1;
                    continue;
                }
                if start < *a {
                    without.push((start, (*to).min(a.saturating_sub(1))));
                }
                if *to < *a {
                    break;
                }
                within.push((start.max(*a), (*to).min(*b)));
                from = (*b < *to).then(|| b + 1);
            }
            if at >= others.0.len() {
                without.extend(rest.by_ref().copied());
            }
        }
        (Self(within.into()), Self(without.into()))
    }
}

/// What a packet stands for: all of these at all of those.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wide {
    /// The ports that it was sent to.
    pub(crate) ports: Ranges,
    /// The addresses that it was sent to, as numbers.
    pub(crate) addresses: Ranges,
    /// The devices that it may have come in by; none at output.
    pub(crate) devices: Arc<[Nic]>,
    /// Whether its port is still the one that it was sent to.
    pub(crate) same_port: bool,
    /// Whether its address is.
    pub(crate) same_address: bool,
    /// Whether it comes from the address that it was sent to.
    pub(crate) from_itself: bool,
    /// Whether TPROXY left the port to the packet.
    pub(crate) tproxy_port: bool,
}

impl Packet {
    /// Whether this stands for packets to several ports that rules can still tell apart.
    pub(crate) fn has_ports(&self) -> bool {
        self.wide.as_ref().is_some_and(|wide| !wide.ports.is_one())
    }

    pub(crate) fn has_addresses(&self) -> bool {
        self.wide.as_ref().is_some_and(|wide| !wide.addresses.is_one())
    }

    pub(crate) fn has_devices(&self) -> bool {
        self.wide.as_ref().is_some_and(|wide| wide.devices.len() > 1)
    }

    /// This one, as one to a port that it stands for.
    pub(crate) fn at_port(&mut self, port: u128) {
        let Ok(port) = u16::try_from(port) else { return };
        if let Some((_, original)) = &mut self.original {
            *original = port;
        }
        if self.wide.as_ref().is_some_and(|wide| wide.same_port) {
            self.dport = port;
        }
        if self.wide.as_ref().is_some_and(|wide| wide.tproxy_port)
            && let Some((_, to)) = &mut self.tproxy
        {
            *to = port;
        }
    }

    /// The same of an address.
    pub(crate) fn at_address(&mut self, number: u128) {
        let ipv6 = self.original.map_or(self.destination, |(to, _)| to).is_ipv6();
        let Some(address) = address(number, ipv6) else { return };
        let Some(wide) = &self.wide else { return };
        if wide.from_itself {
            self.source = PacketSender::Address(address);
        }
        if wide.same_address {
            self.destination = address;
        }
        if let Some((original, _)) = &mut self.original {
            *original = address;
        }
    }

    /// The same of a device.
    pub(crate) fn at_device(&mut self, device: &Nic) {
        self.iif = Some(device.clone());
    }

    /// Only those to some of the ports.
    pub(crate) fn with_ports(&self, ports: Ranges) -> Self {
        let mut packet = self.clone();
        if let Some(first) = ports.first() {
            packet.at_port(first);
        }
        if let Some(wide) = &mut packet.wide {
            Arc::make_mut(wide).ports = ports;
        }
        packet
    }

    /// Only those to some of the addresses.
    pub(crate) fn with_addresses(&self, addresses: Ranges) -> Self {
        let mut packet = self.clone();
        if let Some(first) = addresses.first() {
            packet.at_address(first);
        }
        if let Some(wide) = &mut packet.wide {
            Arc::make_mut(wide).addresses = addresses;
        }
        packet
    }

    /// Only those that came in by some of the devices.
    pub(crate) fn with_devices(&self, devices: Arc<[Nic]>) -> Self {
        let mut packet = self.clone();
        if let Some(first) = devices.first() {
            packet.at_device(first);
        }
        if let Some(wide) = &mut packet.wide {
            Arc::make_mut(wide).devices = devices;
        }
        packet
    }
}

/// An address as a number.
pub(crate) fn numbered(all: &[IpAddr]) -> Ranges {
    Ranges::new(all.iter().map(|address| (number(*address), number(*address))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(of: &[(u16, u16)], by: &[(u16, u16)]) -> (Vec<u128>, Vec<u128>) {
        let of = Ranges::ports(of.iter().copied());
        let (within, without) = of.split(&Ranges::ports(by.iter().copied()));
        assert_eq!(Ranges::new(within.0.iter().copied()), within, "in order");
        (within.iter().collect(), without.iter().collect())
    }

    #[test]
    fn ranges_split_into_what_is_among_others_and_what_is_not() {
        let sets: [&[(u16, u16)]; 9] = [
            &[],
            &[(0, 0)],
            &[(3, 3)],
            &[(0, 15)],
            &[(2, 4), (6, 9)],
            &[(1, 2), (4, 4), (8, 15)],
            &[(5, 5), (7, 7), (9, 9)],
            &[(10, 12)],
            &[(0, 1), (14, 15)],
        ];
        for one in sets {
            for other in sets {
                let is_in = |n: &u128| other.iter().any(|(a, b)| (*a..=*b).contains(&(*n as u16)));
                let all: Vec<u128> = Ranges::ports(one.iter().copied()).iter().collect();
                let (within, without) = all.iter().copied().partition(is_in);
                assert_eq!(split(one, other), (within, without), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(Ranges::ports([(5, 6), (1, 2), (3, 4), (9, 8)]).as_ranges(), [(1, 6)]);
    }
}
