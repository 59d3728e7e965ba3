//! Sets of ipset, which rules of iptables name by an index.
//!
//! Kernel: `net/netfilter/ipset/ip_set_core.c`, numbers in
//! `linux/netfilter/ipset/ip_set.h`. Protocol 7, which Linux has since 4.20.

mod members;
#[cfg(test)]
mod tests;

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use self::members::Listing;
use crate::model::{IpSet, IpSetId, NetnsId};
use crate::node::live::genl::{NLMSG_DONE, NLMSG_ERROR, messages};
use crate::node::live::nat::has_module;

/// `NFNL_SUBSYS_IPSET`.
const SUBSYSTEM: u16 = 6 << 8;
const CMD_LIST: u16 = 7;
const CMD_GET_BYINDEX: u16 = 15;
const PROTOCOL: u8 = 7;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
/// Attributes of a command.
const ATTR_PROTOCOL: u16 = 1;
const ATTR_SETNAME: u16 = 2;
const ATTR_INDEX: u16 = 11;
/// Big endian.
const NET_BYTEORDER: u16 = 0x4000;

/// How many members are read of a set. Beyond that they are not known.
const MEMBERS: usize = 65_536;

/// A set of the calling thread's namespace; `None` when there is none of that
/// index. Needs `CAP_NET_ADMIN` in the namespace.
pub(in crate::node::live::rules) fn read(netns: NetnsId, index: u16) -> io::Result<Option<IpSet>> {
    // Asking a kernel without would make it load the module.
    if !has_module("ip_set") {
        return Ok(None);
    }
    read_up_to(MEMBERS, netns, index)
}

fn read_up_to(limit: usize, netns: NetnsId, index: u16) -> io::Result<Option<IpSet>> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut name = None;
    let attribute = (ATTR_INDEX | NET_BYTEORDER, &index.to_be_bytes()[..]);
    let found = ask(&socket, CMD_GET_BYINDEX, REQUEST, attribute, |attributes| {
        name = value_of(attributes, ATTR_SETNAME).map(<[u8]>::to_vec);
        false
    })?;
    let Some(name) = name.filter(|_| found) else { return Ok(None) };
    let mut listing = Listing::new(limit);
    // A second reading of a set that was renamed or went away finds none.
    let attribute = (ATTR_SETNAME, &name[..]);
    let add = |attributes: &[u8]| listing.add(attributes);
    if !ask(&socket, CMD_LIST, REQUEST | DUMP, attribute, add)? {
        return Ok(None);
    }
    let name = name.strip_suffix(b"\0").unwrap_or(&name);
    let name = String::from_utf8_lossy(name).into_owned();
    let (kind, members) = listing.finish();
    Ok(Some(IpSet { id: IpSetId { netns, index }, name, kind, members }))
}

/// Sends a command and gives the attributes of each answer to `each`, which says
/// whether it wants more. `false` when what was asked for is not there.
fn ask(
    socket: &Socket,
    command: u16,
    flags: u16,
    attribute: (u16, &[u8]),
    mut each: impl FnMut(&[u8]) -> bool,
) -> io::Result<bool> {
    socket.send(&request(command, flags, attribute), 0)?;
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        for message in messages(&buffer) {
            match message.kind {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => {
                    let code = message.body.first_chunk().map_or(0, |c| i32::from_ne_bytes(*c));
                    return match -code {
                        0 => Ok(true),
                        libc::ENOENT => Ok(false),
                        errno => Err(io::Error::from_raw_os_error(errno)),
                    };
                }
                // The header of nfnetlink comes before the attributes.
                _ if !each(message.body.get(4..).unwrap_or_default()) => return Ok(true),
                _ => {}
            }
        }
    }
}

fn request(command: u16, flags: u16, (kind, value): (u16, &[u8])) -> Vec<u8> {
    // Family, version and resource of nfnetlink: none of them counts here.
    let mut body = vec![0; 4];
    for (kind, value) in [(ATTR_PROTOCOL, &[PROTOCOL][..]), (kind, value)] {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        body.extend(length.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend(u32::try_from(16 + body.len()).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend((SUBSYSTEM | command).to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn value_of(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    each_of(attributes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Attributes without their flags, as far as they are undamaged.
pub(super) fn each_of(mut attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..4)?.first_chunk()?) & 0x3fff;
        let value = attributes.get(4..length)?;
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// For the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    let mut listing = Listing::new(MEMBERS);
    for message in messages(bytes) {
        let attributes = message.body.get(4..).unwrap_or_default();
        value_of(attributes, ATTR_SETNAME);
        if !listing.add(attributes) {
            break;
        }
    }
    listing.finish();
}
