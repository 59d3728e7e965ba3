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

use super::super::netlink::{NESTED, NETFILTER, Netlink, NetlinkRequest, attribute};
use super::super::{LiveNode, files, nat};
use super::parse::{
    CTA_PROTO_DST_PORT, CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO,
    CTA_TUPLE_REPLY, IPPROTO_TCP, IPPROTO_UDP,
};
use super::{entry, setting};
use crate::Conntrack;
use whereis_port_model::{
    Flow, FlowFilter, Gap, GapKind, GapSource, Impact, NetnsId, Port, Proto, Read,
};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`.
const CT_GET: u16 = 1 << 8 | 1;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_FLAG(CTA_PROTO_…)`, as the kernel has them for itself.
const FLAG_PROTO_NUM: u32 = 1 << 3;
const FLAG_SRC_PORT: u32 = 1 << 4;
const FLAG_DST_PORT: u32 = 1 << 5;

/// So many flows of one namespace are kept, the others counted.
const KEPT: usize = 10_000;
/// So few entries of a namespace are sent sooner than looked for: one walk through
/// the table against up to eight (two families, two protocols, two directions).
const FEW: u64 = 16_384;
/// So many lines of a file are read where netlink is refused.
const LINES: u64 = 20_000;
/// The most that one answer may have, in bytes: a table of a million connections.
const BYTES: usize = 512 << 20;

impl Conntrack for LiveNode {
    /// Each is asked once for each filter.
    fn flows(&self, netns: &[NetnsId], filter: &FlowFilter) -> Read<Vec<Flow>> {
        let memo = Rc::clone(self.flows.borrow_mut().entry(*filter).or_default());
        let has_module = nat::has_module("nf_conntrack_netlink");
        let filter = *filter;
        self.inside("conntrack", Impact::Flow, &memo, netns, move |door| {
            read(door.id, &filter, has_module, FEW, KEPT)
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
    let here = files::is_there("/proc/thread-self/net/stat/nf_conntrack");
    // Nothing is tracked, or there is no conntrack. Some kernels hide the number
    // from the namespaces of containers without root.
    if tracked == Some(0) || (tracked.is_none() && !here) {
        return Read::default();
    }
    let mut flows = KeptFlows::new(filter, kept);
    let result = if has_module {
        dump(netns, filter, tracked.is_some_and(|tracked| tracked > few), &mut flows)
    } else {
        Err(io::Error::other("the module nf_conntrack_netlink is not loaded"))
    };
    let source = || GapSource::new(GapKind::Connections, format!("network namespace {netns}"));
    if let Err(error) = result {
        // What came before the error is a part that looks like all.
        flows = KeptFlows::new(filter, kept);
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
pub(super) struct KeptFlows<'a> {
    filter: &'a FlowFilter,
    limit: usize,
    /// What tells a connection from all others of its namespace.
    known: HashSet<(u16, Proto, Address, Address)>,
    value: Vec<Flow>,
    more: usize,
}

impl<'a> KeptFlows<'a> {
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
impl KeptFlows<'_> {
    /// How many are kept, and how many more there are.
    pub(super) fn into_counts(self) -> (usize, usize) {
        (self.value.len(), self.more)
    }
}

/// Reads by netlink: everything, or, with `many` entries, what concerns the port.
fn dump(
    netns: NetnsId,
    filter: &FlowFilter,
    many: bool,
    flows: &mut KeptFlows<'_>,
) -> io::Result<()> {
    if !many || filter.ports.last != filter.ports.first {
        let mut netlink = Netlink::open(NETFILTER, BYTES)?;
        return ask(&mut netlink, netns, &request(0, None)?, flows).map(drop);
    }
    // For each question the kernel walks through the table of all namespaces: so both
    // families at once. A thread begins in the namespace of the one that makes it.
    let six = || -> io::Result<KeptFlows<'_>> {
        let mut flows = KeptFlows::new(filter, flows.limit);
        family(netns, filter, libc::AF_INET6, &mut flows).map(|()| flows)
    };
    let (four, six) = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, six);
        let mut kept = KeptFlows::new(filter, flows.limit);
        let four = family(netns, filter, libc::AF_INET, &mut kept).map(|()| kept);
        let six = match thread {
            Ok(thread) => {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
            }
            // None can be had: one after the other.
            Err(_) => six(),
        };
        (four, six)
    });
    for family in [four?, six?] {
        flows.more += family.more;
        for flow in family.value {
            flows.offer(flow);
        }
    }
    Ok(())
}

/// Reads what concerns the port, of one family.
fn family(
    netns: NetnsId,
    filter: &FlowFilter,
    family: i32,
    flows: &mut KeptFlows<'_>,
) -> io::Result<()> {
    let mut netlink = Netlink::open(NETFILTER, BYTES)?;
    let port = filter.ports.first;
    let family = u8::try_from(family).unwrap_or_default();
    let protos = [Proto::Tcp, Proto::Udp].into_iter();
    let wanted = protos.filter(|known| filter.proto.is_none_or(|proto| proto == *known));
    let asks = wanted.flat_map(|proto| [(proto, true), (proto, false)]);
    for (proto, original) in asks {
        let only = TupleFilter { proto, port, original };
        match ask(&mut netlink, netns, &request(family, Some(only))?, flows) {
            Ok(true) => {}
            // An older kernel: it has sent all of this family.
            Ok(false) => break,
            Err(error) if is_refusal_of_filters(&error) => {
                ask(&mut netlink, netns, &request(family, None)?, flows)?;
                break;
            }
            Err(error) => return Err(error),
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
pub(super) struct TupleFilter {
    pub(super) proto: Proto,
    pub(super) port: Port,
    pub(super) original: bool,
}

/// The request for a dump of one family, 0 for all.
pub(super) fn request(family: u8, only: Option<TupleFilter>) -> io::Result<NetlinkRequest> {
    let request = NetlinkRequest::dump(CT_GET, &[family, 0, 0, 0]);
    let Some(TupleFilter { proto, port, original }) = only else { return Ok(request) };
    let number = match proto {
        Proto::Tcp => IPPROTO_TCP,
        Proto::Udp => IPPROTO_UDP,
    };
    let (tuple, which, port_kind, port_flag) = if original {
        (CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS, CTA_PROTO_DST_PORT, FLAG_DST_PORT)
    } else {
        (CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS, CTA_PROTO_SRC_PORT, FLAG_SRC_PORT)
    };
    let ports =
        [attribute(CTA_PROTO_NUM, &[number])?, attribute(port_kind, &port.0.to_be_bytes())?];
    let flags = attribute(which, &(FLAG_PROTO_NUM | port_flag).to_ne_bytes())?;
    request
        .with(tuple | NESTED, &attribute(CTA_TUPLE_PROTO | NESTED, &ports.concat())?)?
        .with(CTA_FILTER | NESTED, &flags)
}

/// Asks, and offers what comes. Whether all of it passed the filter.
pub(super) fn ask(
    netlink: &mut Netlink,
    netns: NetnsId,
    request: &NetlinkRequest,
    flows: &mut KeptFlows<'_>,
) -> io::Result<bool> {
    let mut all_passed = true;
    netlink.ask(request, |message| {
        if let Some(flow) = entry::of_message(netns, &message) {
            all_passed &= flows.offer(flow);
        }
        true
    })?;
    Ok(all_passed)
}

/// Reads the text that some kernels have, and root may read without a right over
/// the network.
fn file(netns: NetnsId, flows: &mut KeptFlows<'_>) -> io::Result<()> {
    let file = files::stream("/proc/thread-self/net/nf_conntrack")?;
    for line in io::BufReader::new(file).lines() {
        if let Some(flow) = entry::of_line(netns, &line?) {
            flows.offer(flow);
        }
    }
    Ok(())
}
