//! What a listing of a set says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::live::netlink::Attributes;
use whereis_port_model::IpSetMember;

/// Attributes of a listing.
const TYPENAME: u16 = 3;
const DATA: u16 = 7;
const ADT: u16 = 8;
/// Attributes of a set, inside of [`DATA`].
const BITMASK: u16 = 12;
const NETMASK: u16 = 20;
const ELEMENTS: u16 = 24;
/// Attributes of a member.
const IP: u16 = 1;
const IP_TO: u16 = 2;
const CIDR: u16 = 3;
const PORT: u16 = 4;
const PORT_TO: u16 = 5;
const PROTO: u16 = 7;
const FLAGS: u16 = 8;
const IP2: u16 = 20;
const CIDR2: u16 = 21;
const IFACE: u16 = 23;
/// `IPSET_FLAG_PHYSDEV`, `IPSET_FLAG_NOMATCH`, `IPSET_FLAG_IFACE_WILDCARD`.
const PHYSDEV: u32 = 1 << 1;
const NOMATCH: u32 = 1 << 2;
const WILDCARD: u32 = 1 << 7;

/// The types whose members consist of what [`IpSetMember`] has.
const UNDERSTOOD: [&str; 11] = [
    "hash:ip",
    "hash:net",
    "hash:ip,port",
    "hash:ip,port,ip",
    "hash:ip,port,net",
    "hash:net,port",
    "hash:net,net",
    "hash:net,port,net",
    "hash:net,iface",
    "bitmap:ip",
    "bitmap:port",
];

/// A set as far as its listing was read, which comes in several messages.
pub(super) struct SetListing {
    limit: usize,
    kind: String,
    /// The prefix length that addresses without one are cut to.
    netmask: Option<u8>,
    members: Option<Vec<IpSetMember>>,
}

impl SetListing {
    /// Of more members than the limit none will be known.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, kind: String::new(), netmask: None, members: Some(Vec::new()) }
    }

    /// Adds the attributes of a message. Whether more messages are of use.
    pub(super) fn add(&mut self, attributes: &[u8]) -> bool {
        for (kind, value) in Attributes(attributes) {
            match kind {
                TYPENAME => {
                    let name = value.strip_suffix(b"\0").unwrap_or(value);
                    self.kind = String::from_utf8_lossy(name).into_owned();
                    if !UNDERSTOOD.contains(&self.kind.as_str()) {
                        self.members = None;
                    }
                }
                DATA => self.header(value),
                ADT => self.members(value),
                _ => {}
            }
        }
        self.members.is_some()
    }

    /// Type and members.
    pub(super) fn finish(self) -> (String, Option<Vec<IpSetMember>>) {
        (self.kind, self.members)
    }

    fn header(&mut self, attributes: &[u8]) {
        for (kind, value) in Attributes(attributes) {
            match kind {
                NETMASK => self.netmask = value.first().copied(),
                // A mask that is no prefix can't be said of a member.
                BITMASK => self.members = None,
                // Known before the members come, but not by every type.
                ELEMENTS if be32(value).is_some_and(|count| count as usize > self.limit) => {
                    self.members = None;
                }
                _ => {}
            }
        }
    }

    fn members(&mut self, attributes: &[u8]) {
        for (_, member) in Attributes(attributes).filter(|(kind, _)| *kind == DATA) {
            let Some(members) = &mut self.members else { return };
            match member_of(member, self.netmask) {
                Some(member) if members.len() < self.limit => members.push(member),
                _ => self.members = None,
            }
        }
    }
}

/// `None` for one that has more to it than can be said.
fn member_of(attributes: &[u8], netmask: Option<u8>) -> Option<IpSetMember> {
    let (mut address, mut cidr) = (None, netmask);
    let (mut second, mut second_cidr) = (None, None);
    let (mut first_port, mut last_port) = (None, None);
    let (mut address_to, mut proto, mut iface, mut flags) = (None, None, None, 0);
    for (kind, value) in Attributes(attributes) {
        match kind {
            IP => address = Some(address_of(value)?),
            IP_TO => address_to = Some(address_of(value)?),
            CIDR => cidr = Some(*value.first()?),
            IP2 => second = Some(address_of(value)?),
            CIDR2 => second_cidr = Some(*value.first()?),
            PORT => first_port = Some(be16(value)?),
            PORT_TO => last_port = Some(be16(value)?),
            PROTO => proto = Some(*value.first()?),
            IFACE => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                iface = Some(String::from_utf8_lossy(name).into_owned());
            }
            FLAGS => flags = be32(value)?,
            _ => {}
        }
    }
    if flags & (PHYSDEV | WILDCARD) != 0 {
        return None;
    }
    Some(IpSetMember {
        address: address.map(|ip| (ip, cidr.unwrap_or(width(ip)))),
        address_to,
        proto,
        ports: first_port.map(|first| (first, last_port.unwrap_or(first))),
        second: second.map(|ip| (ip, second_cidr.unwrap_or(width(ip)))),
        iface,
        nomatch: flags & NOMATCH != 0,
    })
}

/// An address is an attribute in an attribute: 1 for IPv4, 2 for IPv6.
fn address_of(attributes: &[u8]) -> Option<IpAddr> {
    Attributes(attributes).find_map(|(kind, value)| match kind {
        1 => Some(Ipv4Addr::from(*value.first_chunk()?).into()),
        2 => Some(Ipv6Addr::from(*value.first_chunk()?).into()),
        _ => None,
    })
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn be16(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn be32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}
