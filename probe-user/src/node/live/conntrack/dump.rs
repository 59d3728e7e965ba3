//! The connections that conntrack knows now.
//!
//! Kernel: `ctnetlink_dump_table` of `net/netfilter/nf_conntrack_netlink.c`. One
//! dump walks the table of all namespaces, whatever it is asked for; what a filter
//! saves is the sending of each entry. Since Linux 5.8 a dump can be of one port:
//! of one family, one protocol and one direction (`CTA_FILTER`). Older kernels
//! ignore that, so that every entry is looked at again. Nothing is changed:
//! counters are not reset.

use std::collections::HashSet;
use std::io::{self, BufRead as _};
use std::net::SocketAddr as Address;
use std::rc::Rc;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::super::genl::{self, NLMSG_DONE, NLMSG_ERROR};
use super::super::{LiveNode, nat};
use super::parse::{
    CTA_PROTO_DST_PORT, CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO,
    CTA_TUPLE_REPLY, IPPROTO_TCP, IPPROTO_UDP,
};
use super::{entry, setting};
use crate::model::{Flow, FlowFilter, Gap, Impact, NetnsId, Port, Proto, Read};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`.
const CT_GET: u16 = 1 << 8 | 1;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const REQUEST_DUMP: u16 = 1 | 0x300;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_FLAG(CTA_PROTO_…)`, as the kernel has them for itself.
const FLAG_PROTO_NUM: u32 = 1 << 3;
const FLAG_SRC_PORT: u32 = 1 << 4;
const FLAG_DST_PORT: u32 = 1 << 5;
const NLA_F_NESTED: u16 = 1 << 15;

/// So many flows of one namespace are kept, the others counted.
const KEPT: usize = 10_000;
/// So few entries of a namespace are sent sooner than looked for: one walk through
/// the table against up to eight (two families, two protocols, two directions).
const FEW: u64 = 16_384;
/// So many lines of a file are read where netlink is refused.
const LINES: u64 = 20_000;
/// Longer than any part of a dump.
const PART: usize = 32 * 1024;

impl LiveNode {
    /// The flows of these namespaces, each asked once for each filter.
    pub(in crate::node::live) fn flows_inside(
        &self,
        netns: &[NetnsId],
        filter: &FlowFilter,
    ) -> Read<Vec<Flow>> {
        let memo = Rc::clone(self.flows.borrow_mut().entry(*filter).or_default());
        let has_module = nat::has_module("nf_conntrack_netlink");
        self.inside("conntrack", Impact::Flow, &memo, netns, |door| {
            read(door.id, filter, has_module, FEW, KEPT)
        })
    }
}

/// The flows of the namespace of this thread. `few` and `kept` are limits.
pub(super) fn read(
    netns: NetnsId,
    filter: &FlowFilter,
    has_module: bool,
    few: u64,
    kept: usize,
) -> Read<Vec<Flow>> {
    let tracked = setting("nf_conntrack_count").and_then(|count| count.parse::<u64>().ok());
    let here = std::path::Path::new("/proc/thread-self/net/stat/nf_conntrack").exists();
    // Nothing is tracked, or there is no conntrack. Some kernels hide the number
    // from the namespaces of containers without root.
    if tracked == Some(0) || (tracked.is_none() && !here) {
        return Read::default();
    }
    let mut flows = Kept::new(filter, kept);
    let result = if has_module {
        dump(netns, filter, tracked.is_some_and(|tracked| tracked > few), &mut flows)
    } else {
        Err(io::Error::other("the module nf_conntrack_netlink is not loaded"))
    };
    let source = || format!("connections of network namespace {netns}");
    if let Err(error) = result {
        // What came before the error is a part that looks like all.
        flows = Kept::new(filter, kept);
        if tracked.is_some_and(|tracked| tracked > LINES) || file(netns, &mut flows).is_err() {
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            let (why, remedy) = if denied {
                let why = "reading conntrack takes CAP_NET_ADMIN there".to_owned();
                (why, Some("run as root, or with CAP_NET_ADMIN"))
            } else {
                (error.to_string(), (!has_module).then_some("modprobe nf_conntrack_netlink"))
            };
            let gap = Gap::new(Impact::Flow, source(), why);
            let gap = match remedy {
                Some(remedy) => gap.remedy(remedy),
                None => gap,
            };
            return Read::partial(Vec::new(), gap);
        }
    }
    let more = flows.more;
    let value = flows.value;
    if more == 0 {
        return Read::whole(value);
    }
    let why = format!("there are {more} more than the {kept} that are kept");
    Read::partial(value, Gap::new(Impact::Flow, source(), why))
}

/// The flows that pass a filter, each once, as many as are kept.
pub(super) struct Kept<'a> {
    filter: &'a FlowFilter,
    limit: usize,
    /// What tells a connection from all others of its namespace.
    known: HashSet<(u16, Proto, Address, Address)>,
    value: Vec<Flow>,
    more: usize,
}

impl<'a> Kept<'a> {
    pub(super) fn new(filter: &'a FlowFilter, limit: usize) -> Self {
        Self { filter, limit, known: HashSet::new(), value: Vec::new(), more: 0 }
    }

    /// Whether the filter lets it pass. The dump of a table that changes can have
    /// an entry twice, and so have two dumps.
    pub(super) fn offer(&mut self, flow: Flow) -> bool {
        if !self.filter.matches(&flow) {
            return false;
        }
        let key = (flow.zone, flow.proto, flow.source, flow.destination);
        if self.value.len() < self.limit {
            if self.known.insert(key) {
                self.value.push(flow);
            }
        } else if !self.known.contains(&key) {
            self.more += 1;
        }
        true
    }
}

#[cfg(test)]
impl Kept<'_> {
    /// How many are kept, and how many more there are.
    pub(super) fn into_counts(self) -> (usize, usize) {
        (self.value.len(), self.more)
    }
}

/// Reads by netlink: everything, or, with `many` entries, what concerns the port.
fn dump(netns: NetnsId, filter: &FlowFilter, many: bool, flows: &mut Kept<'_>) -> io::Result<()> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let port = filter.ports.first;
    if !many || filter.ports.last != port {
        return ask(&socket, netns, &message(0, None), flows).map(drop);
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).unwrap_or_default();
        let protos = [Proto::Tcp, Proto::Udp].into_iter();
        let wanted = protos.filter(|known| filter.proto.is_none_or(|proto| proto == *known));
        let asks = wanted.flat_map(|proto| [(proto, true), (proto, false)]);
        for (proto, original) in asks {
            let only = Only { proto, port, original };
            match ask(&socket, netns, &message(family, Some(only)), flows) {
                Ok(true) => {}
                // An older kernel: it has sent all of this family.
                Ok(false) => break,
                Err(error) if is_refusal_of_filters(&error) => {
                    ask(&socket, netns, &message(family, None), flows)?;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Whether a kernel that knows filters does not take this one.
fn is_refusal_of_filters(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ERANGE))
}

/// The entries that are asked for: those with this port as the destination of the
/// first packet, or as the source of the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Only {
    pub(super) proto: Proto,
    pub(super) port: Port,
    pub(super) original: bool,
}

/// The request for a dump of one family, 0 for all.
pub(super) fn message(family: u8, only: Option<Only>) -> Vec<u8> {
    // The length comes last; sequence and port number are of no use here.
    let mut message = vec![0; 20];
    message[4..6].copy_from_slice(&CT_GET.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    message[16] = family;
    if let Some(Only { proto, port, original }) = only {
        let number = match proto {
            Proto::Tcp => IPPROTO_TCP,
            Proto::Udp => IPPROTO_UDP,
        };
        let (tuple, which, flags, port_kind, port_flag) = if original {
            let port = (CTA_PROTO_DST_PORT, FLAG_DST_PORT);
            (CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS, FLAG_PROTO_NUM, port.0, port.1)
        } else {
            let port = (CTA_PROTO_SRC_PORT, FLAG_SRC_PORT);
            (CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS, FLAG_PROTO_NUM, port.0, port.1)
        };
        let mut ports = attribute(CTA_PROTO_NUM, &[number]);
        ports.extend(attribute(port_kind, &port.0.to_be_bytes()));
        let ports = attribute(CTA_TUPLE_PROTO | NLA_F_NESTED, &ports);
        message.extend(attribute(tuple | NLA_F_NESTED, &ports));
        let flags = attribute(which, &(flags | port_flag).to_ne_bytes());
        message.extend(attribute(CTA_FILTER | NLA_F_NESTED, &flags));
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut attribute = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    attribute.extend_from_slice(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// Sends one request and offers what comes. Whether all of it passed the filter.
pub(super) fn ask(
    socket: &Socket,
    netns: NetnsId,
    message: &[u8],
    flows: &mut Kept<'_>,
) -> io::Result<bool> {
    socket.send(message, 0)?;
    let mut buffer = Vec::with_capacity(PART);
    let mut all_passed = true;
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        for message in genl::messages(&buffer) {
            match message.kind {
                NLMSG_DONE => return Ok(all_passed),
                NLMSG_ERROR => {
                    let code =
                        message.body.first_chunk::<4>().map_or(0, |c| i32::from_ne_bytes(*c));
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                _ => {
                    if let Some(flow) = entry::of_message(netns, &message) {
                        all_passed &= flows.offer(flow);
                    }
                }
            }
        }
    }
}

/// Reads the text that some kernels have, and root may read without a right over
/// the network.
fn file(netns: NetnsId, flows: &mut Kept<'_>) -> io::Result<()> {
    let file = std::fs::File::open("/proc/thread-self/net/nf_conntrack")?;
    for line in io::BufReader::new(file).lines() {
        if let Some(flow) = entry::of_line(netns, &line?) {
            flows.offer(flow);
        }
    }
    Ok(())
}
