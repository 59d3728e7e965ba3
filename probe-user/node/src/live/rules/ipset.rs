//! Sets of ipset, which rules of iptables name by an index.
//!
//! Kernel: `net/netfilter/ipset/ip_set_core.c`, numbers in
//! `linux/netfilter/ipset/ip_set.h`. Protocol 7, which Linux has since 4.20.

mod members;
#[cfg(test)]
mod tests;

use std::io;

use self::members::SetListing;
use crate::live::nat::has_module;
use crate::live::netlink::{NETFILTER, Netlink, NetlinkReply, NetlinkRequest, find};
use whereis_port_model::{IpSet, IpSetId, NetnsId};

/// `NFNL_SUBSYS_IPSET`.
const SUBSYSTEM: u16 = 6 << 8;
const CMD_LIST: u16 = 7;
const CMD_GET_BYINDEX: u16 = 15;
const PROTOCOL: u8 = 7;
/// Attributes of a command.
const ATTR_PROTOCOL: u16 = 1;
const ATTR_SETNAME: u16 = 2;
const ATTR_INDEX: u16 = 11;
/// Big endian.
const NET_BYTEORDER: u16 = 0x4000;

/// The most that one answer may have, in bytes: far above so many members.
const BYTES: usize = 64 << 20;
/// How many members are read of a set. Beyond that they are not known.
const MEMBERS: usize = 65_536;

/// A set of the calling thread's namespace; `None` when there is none of that
/// index. Needs `CAP_NET_ADMIN` in the namespace.
pub(in crate::live::rules) fn read(netns: NetnsId, index: u16) -> io::Result<Option<IpSet>> {
    // Asking a kernel without would make it load the module.
    if !has_module("ip_set") {
        return Ok(None);
    }
    read_up_to(MEMBERS, netns, index)
}

fn read_up_to(limit: usize, netns: NetnsId, index: u16) -> io::Result<Option<IpSet>> {
    let mut netlink = Netlink::open(NETFILTER, BYTES)?;
    let mut name = None;
    let index_be = index.to_be_bytes();
    let by_index =
        request(NetlinkRequest::get, CMD_GET_BYINDEX, ATTR_INDEX | NET_BYTEORDER, &index_be)?;
    is_there(netlink.ask(&by_index, |message| {
        name = find(message.attributes(), ATTR_SETNAME).map(<[u8]>::to_vec).or(name.take());
        true
    }))?;
    let Some(name) = name else { return Ok(None) };
    let mut listing = SetListing::new(limit);
    let list = request(NetlinkRequest::dump, CMD_LIST, ATTR_SETNAME, &name)?;
    // A second reading of a set that was renamed or went away finds none.
    if !is_there(netlink.ask(&list, |message| listing.add(message.attributes())))? {
        return Ok(None);
    }
    let name = name.strip_suffix(b"\0").unwrap_or(&name);
    let name = String::from_utf8_lossy(name).into_owned();
    let (kind, members) = listing.finish();
    Ok(Some(IpSet { id: IpSetId { netns, index }, name, kind, members }))
}

/// Whether what was asked for is there.
fn is_there(answer: io::Result<NetlinkReply>) -> io::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn request(
    of: fn(u16, &[u8]) -> NetlinkRequest,
    command: u16,
    kind: u16,
    value: &[u8],
) -> io::Result<NetlinkRequest> {
    // Family, version and resource of nfnetlink: none of them counts here.
    of(SUBSYSTEM | command, &[0; 4]).with(ATTR_PROTOCOL, &[PROTOCOL])?.with(kind, value)
}

/// For the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    let mut listing = SetListing::new(MEMBERS);
    for message in crate::live::netlink::messages(bytes) {
        if !listing.add(message.attributes()) {
            break;
        }
    }
    listing.finish();
}
