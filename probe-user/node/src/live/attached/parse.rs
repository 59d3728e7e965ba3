//! What rtnetlink says of devices, queueing disciplines and filters.
//!
//! Kernel: `include/uapi/linux/if_link.h`, `pkt_sched.h`, `pkt_cls.h`, `net/sched/cls_api.c`.
//! All numbers are in host byte order.

use crate::live::netlink::{Attributes, find};
use whereis_port_model::{Attachment, Program};

/// A device, as far as programs can be attached to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttachableDevice {
    pub(super) index: u32,
    pub(super) is_netkit: bool,
    /// The programs that XDP runs for it.
    pub(super) xdp: Vec<u32>,
}

/// A queueing discipline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Qdisc {
    /// Of which device.
    pub(super) index: u32,
    /// 0 for those that the kernel makes by itself.
    pub(super) handle: u32,
    pub(super) kind: String,
}

/// Queueing disciplines that lose packets on purpose.
pub(super) const LOSSY: [&str; 3] = ["netem", "blackhole", "plug"];

/// From `RTM_NEWLINK`.
pub(super) fn device(body: &[u8]) -> Option<AttachableDevice> {
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_XDP: u16 = 43;
    /// `PROG_ID`, `DRV_PROG_ID`, `SKB_PROG_ID`, `HW_PROG_ID`: with several, one for each.
    const IDS: std::ops::RangeInclusive<u16> = 4..=7;
    let (header, attributes) = body.split_at_checked(16)?;
    let index = number(header.get(4..)?)?;
    let kind = find(attributes, IFLA_LINKINFO).and_then(|info| find(info, IFLA_INFO_KIND));
    let mut xdp = Vec::new();
    for (at, value) in Attributes(find(attributes, IFLA_XDP).unwrap_or_default()) {
        let id = number(value).filter(|id| *id != 0 && IDS.contains(&at));
        if let Some(id) = id.filter(|id| !xdp.contains(id)) {
            xdp.push(id);
        }
    }
    Some(AttachableDevice { index, is_netkit: kind.map(text).as_deref() == Some("netkit"), xdp })
}

/// From `RTM_NEWQDISC`.
pub(super) fn qdisc(body: &[u8]) -> Option<Qdisc> {
    let (header, attributes) = body.split_at_checked(20)?;
    let kind = find(attributes, TCA_KIND).map(text).unwrap_or_default();
    Some(Qdisc { index: number(header.get(4..)?)?, handle: number(header.get(8..)?)?, kind })
}

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;

/// `struct tcmsg` that asks for the filters of one place.
pub(super) fn filters_of(index: u32, parent: u32) -> [u8; 20] {
    let mut header = [0; 20];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    header
}

/// From `RTM_NEWTFILTER`: what may keep or change packets. `None` for a filter that only
/// chooses a class, and for the head of a chain of filters.
pub(super) fn filter(body: &[u8]) -> Option<Attachment> {
    let (header, attributes) = body.split_at_checked(20)?;
    let kind = find(attributes, TCA_KIND).map(text).unwrap_or_default();
    let handle = number(header.get(8..)?)?;
    let options = match find(attributes, TCA_OPTIONS) {
        Some(options) => options,
        None if handle == 0 => return None,
        None => return Some(Attachment::Filter { kind, actions: Vec::new() }),
    };
    if kind == "bpf" {
        return of_bpf(options);
    }
    // The number of the attribute that has the actions, and of an old one that polices.
    let (act, police) = match kind.as_str() {
        "matchall" => (2, None),
        "flower" | "basic" => (3, None),
        "fw" => (4, Some(2)),
        "u32" => (7, Some(6)),
        "cgroup" => (1, None),
        _ => return Some(Attachment::Filter { kind, actions: Vec::new() }),
    };
    let police = police.and_then(|police| find(options, police)).map(|_| "police".to_owned());
    let mut actions: Vec<String> = police.into_iter().collect();
    actions.extend(harmful(find(options, act).unwrap_or_default()));
    (!actions.is_empty()).then_some(Attachment::Filter { kind, actions })
}

/// Of a filter that is a BPF program.
fn of_bpf(options: &[u8]) -> Option<Attachment> {
    const ACT: u16 = 1;
    const NAME: u16 = 7;
    const FLAGS: u16 = 8;
    const ID: u16 = 11;
    /// `TCA_BPF_FLAG_ACT_DIRECT`: what the program gives is what happens.
    const DIRECT: u32 = 1;
    let id = find(options, ID).and_then(number);
    let flags = find(options, FLAGS).and_then(number).unwrap_or_default();
    if flags & DIRECT == 0 {
        // It only chooses the packets for actions, or a class.
        let actions: Vec<String> = harmful(find(options, ACT)?).collect();
        let kind = "bpf".to_owned();
        return (!actions.is_empty()).then_some(Attachment::Filter { kind, actions });
    }
    // The name that tc gave it, as `prog.o:[section]`, where the kernel tells no other.
    let name = match id {
        Some(_) => String::new(),
        None => find(options, NAME).map(text).unwrap_or_default(),
    };
    Some(Attachment::Program(Program { id, name, balancer: None }))
}

/// Those of a filter's actions that may keep a packet or send it elsewhere.
fn harmful(actions: &[u8]) -> impl Iterator<Item = String> + '_ {
    const KIND: u16 = 1;
    const OPTIONS: u16 = 2;
    Attributes(actions).filter_map(|(_, action)| {
        let kind = find(action, KIND).map(text).unwrap_or_default();
        let options = find(action, OPTIONS).unwrap_or_default();
        (!is_harmless(&kind, options)).then_some(kind)
    })
}

fn is_harmless(kind: &str, options: &[u8]) -> bool {
    const PARMS: u16 = 2;
    /// `TC_ACT_UNSPEC`, `TC_ACT_OK`, `TC_ACT_PIPE`.
    const ON: [i32; 3] = [-1, 0, 3];
    /// `TCA_EGRESS_MIRROR`, `TCA_INGRESS_MIRROR`: of a copy.
    const MIRROR: [u32; 2] = [2, 4];
    // `tc_gen` is at the begin of what each action has: index, capabilities, action, counts.
    let Some(parms) = find(options, PARMS) else { return false };
    let goes_on = parms.get(8..).and_then(number).is_some_and(|a| ON.contains(&a.cast_signed()));
    match kind {
        "gact" => goes_on,
        "mirred" => {
            goes_on && parms.get(20..).and_then(number).is_some_and(|to| MIRROR.contains(&to))
        }
        _ => false,
    }
}

/// The number at the begin of some bytes.
fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_ne_bytes)
}

/// A text that ends with a NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::netlink::attribute;

    fn nested(kind: u16, of: &[&[u8]]) -> Vec<u8> {
        attribute(kind, &of.concat()).unwrap()
    }

    fn word(kind: u16, value: &str) -> Vec<u8> {
        attribute(kind, &[value.as_bytes(), &[0]].concat()).unwrap()
    }

    fn count(kind: u16, value: u32) -> Vec<u8> {
        attribute(kind, &value.to_ne_bytes()).unwrap()
    }

    /// A filter with these options, as the kernel says it.
    fn of(kind: &str, options: &[&[u8]]) -> Option<Attachment> {
        let mut body = vec![0; 20];
        body[8] = 1;
        body.extend(word(TCA_KIND, kind));
        body.extend(nested(TCA_OPTIONS, options));
        filter(&body)
    }

    /// An action of a list, with its verdict and what it does.
    fn action(kind: &str, verdict: i32, does: u32) -> Vec<u8> {
        let mut parms = [0; 28];
        parms[8..12].copy_from_slice(&verdict.to_ne_bytes());
        parms[20..24].copy_from_slice(&does.to_ne_bytes());
        let parms = nested(2, &[&attribute(2, &parms).unwrap()]);
        nested(1, &[&word(1, kind), &parms])
    }

    fn with(kind: &str, action: &str) -> Option<Attachment> {
        Some(Attachment::Filter { kind: kind.to_owned(), actions: vec![action.to_owned()] })
    }

    #[test]
    fn filters_count_that_may_keep_a_packet() {
        let classid = count(1, 0x1_0001);
        assert_eq!(of("flower", &[&classid]), None);
        assert_eq!(of("flower", &[&nested(3, &[&action("gact", 2, 0)])]), with("flower", "gact"));
        assert_eq!(of("flower", &[&nested(3, &[&action("gact", 0, 0)])]), None);
        let mirred = |verdict, does| nested(2, &[&action("mirred", verdict, does)]);
        assert_eq!(of("matchall", &[&mirred(4, 1)]), with("matchall", "mirred"));
        assert_eq!(of("matchall", &[&mirred(3, 2)]), None);
        assert_eq!(of("matchall", &[&mirred(4, 2)]), with("matchall", "mirred"));
        assert_eq!(of("u32", &[&nested(6, &[])]), with("u32", "police"));
        let unknown = Attachment::Filter { kind: "rsvp".to_owned(), actions: Vec::new() };
        assert_eq!(of("rsvp", &[&classid]), Some(unknown));
    }

    #[test]
    fn a_program_counts_where_it_decides() {
        let program = |id, name: &str| {
            Some(Attachment::Program(Program { id, name: name.to_owned(), balancer: None }))
        };
        let direct = count(8, 1);
        let name = word(7, "drop.o:[tc]");
        assert_eq!(of("bpf", &[&name, &direct, &count(11, 12)]), program(Some(12), ""));
        assert_eq!(of("bpf", &[&name, &direct]), program(None, "drop.o:[tc]"));
        assert_eq!(of("bpf", &[&name, &count(8, 0), &count(11, 12)]), None);
        let drop = nested(1, &[&action("gact", 2, 0)]);
        assert_eq!(of("bpf", &[&drop, &count(11, 12)]), with("bpf", "gact"));
    }

    #[test]
    fn the_head_of_a_chain_is_no_filter() {
        let mut body = vec![0; 20];
        body.extend(word(TCA_KIND, "bpf"));
        assert_eq!(filter(&body), None);
    }

    #[test]
    fn a_device_has_each_program_of_xdp_once() {
        let mut body = vec![0; 16];
        body[4] = 7;
        let attached = attribute(2, &[2]).unwrap();
        let xdp = nested(43, &[&attached, &count(4, 99), &count(6, 99), &count(7, 100)]);
        body.extend(xdp);
        let device = device(&body).unwrap();
        assert_eq!((device.index, device.is_netkit, device.xdp), (7, false, vec![99, 100]));
    }
}
