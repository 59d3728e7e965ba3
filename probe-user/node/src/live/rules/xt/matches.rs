//! The blobs of matches.

use super::{Blob, text};
use whereis_port_model::{Side, XtMatch};

/// `None` for what is not modelled, and for a blob that is too short or odd.
pub(super) fn parse(name: &str, revision: u8, blob: Blob<'_>) -> Option<XtMatch> {
    match (name, revision) {
        ("addrtype", 0) => Some(XtMatch::Addrtype {
            source: blob.u16(0)?,
            destination: blob.u16(2)?,
            invert_source: blob.u32(4)? != 0,
            invert_destination: blob.u32(8)? != 0,
            limit_in: false,
            limit_out: false,
        }),
        ("addrtype", 1) => {
            let flags = blob.u32(4)?;
            Some(XtMatch::Addrtype {
                source: blob.u16(0)?,
                destination: blob.u16(2)?,
                invert_source: flags & 1 != 0,
                invert_destination: flags & 2 != 0,
                limit_in: flags & 4 != 0,
                limit_out: flags & 8 != 0,
            })
        }
        ("tcp", 0) => {
            let invert = blob.u8(11)?;
            Some(XtMatch::Tcp {
                sports: (blob.u16(0)?, blob.u16(2)?),
                dports: (blob.u16(4)?, blob.u16(6)?),
                invert_sports: invert & 1 != 0,
                invert_dports: invert & 2 != 0,
                flags: (blob.u8(9)?, blob.u8(10)?),
                invert_flags: invert & 4 != 0,
                option: blob.u8(8)?,
            })
        }
        ("udp", 0) => {
            let invert = blob.u8(8)?;
            Some(XtMatch::Udp {
                sports: (blob.u16(0)?, blob.u16(2)?),
                dports: (blob.u16(4)?, blob.u16(6)?),
                invert_sports: invert & 1 != 0,
                invert_dports: invert & 2 != 0,
            })
        }
        ("icmp6", 0) => Some(XtMatch::Icmp6 {
            kind: blob.u8(0)?,
            codes: (blob.u8(1)?, blob.u8(2)?),
            invert: blob.u8(3)? & 1 != 0,
        }),
        ("multiport", 1) => multiport(blob),
        ("statistic", 0) => {
            let invert = blob.u16(2)? & 1 != 0;
            match blob.u16(0)? {
                0 => Some(XtMatch::Random { probability: blob.u32(4)?, invert }),
                // The kernel has one less than was asked for: it counts from 0.
                1 => Some(XtMatch::Nth { every: blob.u32(4)?.checked_add(1)?, invert }),
                _ => None,
            }
        }
        ("mark", 1) => {
            Some(XtMatch::Mark { mark: blob.u32(0)?, mask: blob.u32(4)?, invert: blob.bool(8)? })
        }
        ("connmark", 1) => Some(XtMatch::Connmark {
            mark: blob.u32(0)?,
            mask: blob.u32(4)?,
            invert: blob.bool(8)?,
        }),
        ("state", 0) => Some(state(blob.u32(0)?)),
        ("conntrack", 1..=3) => conntrack(revision, blob),
        ("recent", 0 | 1) => {
            let name: &[u8; 200] = blob.array(10)?;
            Some(XtMatch::Recent {
                name: text(name),
                set: blob.u8(8)? & 2 != 0,
                seconds: blob.u32(0)?,
                invert: blob.bool(9)?,
            })
        }
        // The first revision looks at no options; `XT_SOCKET_TRANSPARENT` of the others.
        ("socket", 0) => Some(XtMatch::Socket { transparent: false }),
        ("socket", 1..=3) => Some(XtMatch::Socket { transparent: blob.u8(0)? & 1 != 0 }),
        ("physdev", 0) => {
            let name = |at: usize| -> Option<String> {
                let (device, mask): (&[u8; 16], &[u8; 16]) =
                    (blob.array(at)?, blob.array(at + 16)?);
                // The NUL behind a whole name is compared as well.
                let compared = mask.iter().take_while(|byte| **byte != 0).count();
                let whole = device.iter().take(compared).any(|byte| *byte == 0);
                let text = text(device);
                Some(if whole || compared == 0 { text } else { format!("{text}+") })
            };
            let (inside, outside) = (name(0)?, name(32)?);
            Some(XtMatch::Physdev { asks: blob.u8(65)?, invert: blob.u8(64)?, inside, outside })
        }
        ("rpfilter", 0) => {
            let flags = blob.u8(0)?;
            Some(XtMatch::Rpfilter {
                loose: flags & 1 != 0,
                mark: flags & 2 != 0,
                accept_local: flags & 4 != 0,
                invert: flags & 8 != 0,
            })
        }
        ("pkttype", 0) => Some(XtMatch::Pkttype { kind: blob.u32(0)?, invert: blob.u32(4)? != 0 }),
        ("set", 1..=4) => set(revision, blob),
        ("iprange", 1) => {
            let flags = blob.u8(64)?;
            let range = |at: usize, bit: u8, inverted: u8| -> Option<_> {
                let range = (blob.inet(at)?, blob.inet(at + 16)?, flags & inverted != 0);
                Some(Some(range).filter(|_| flags & bit != 0))
            };
            Some(XtMatch::Iprange { source: range(0, 1, 0x10)?, destination: range(32, 2, 0x20)? })
        }
        ("owner", 1) => {
            let (tests, invert) = (blob.u8(16)?, blob.u8(17)?);
            let uid = (blob.u32(0)?, blob.u32(4)?, invert & 1 != 0);
            let gid = (blob.u32(8)?, blob.u32(12)?, invert & 2 != 0);
            // With supplementary groups (8) more than the one group counts.
            let by_group = tests & 2 != 0 && tests & 8 == 0;
            Some(XtMatch::Owner {
                uid: Some(uid).filter(|_| tests & 1 != 0),
                gid: Some(gid).filter(|_| by_group),
                other: tests & !3 != 0,
            })
        }
        _ => None,
    }
}

fn multiport(blob: Blob<'_>) -> Option<XtMatch> {
    let side = match blob.u8(0)? {
        0 => Side::Source,
        1 => Side::Destination,
        2 => Side::Either,
        _ => return None,
    };
    let invert = blob.bool(47)?;
    let count = usize::from(blob.u8(1)?);
    if count > 15 {
        return None;
    }
    let mut ports = Vec::with_capacity(count);
    let mut at = 0;
    while at < count {
        let first = blob.u16(2 + 2 * at)?;
        let is_range = blob.bool(32 + at)?;
        at += usize::from(is_range);
        if at == count {
            return None;
        }
        ports.push((first, blob.u16(2 + 2 * at)?));
        at += 1;
    }
    Some(XtMatch::Multiport { side, ports, invert })
}

fn state(mask: u32) -> XtMatch {
    // All bits are those of `conntrack`, but for untracked.
    let untracked = if mask & 0x40 != 0 { 0x100 } else { 0 };
    let states = u16::try_from(mask & 0xf).unwrap_or_default() | untracked;
    XtMatch::conntrack(Some((states, false)), mask & !0x4f != 0)
}

/// `struct xt_conntrack_mtinfo1` to `3`: wider masks came first, ranges of ports in
/// host byte order next.
fn conntrack(revision: u8, blob: Blob<'_>) -> Option<XtMatch> {
    const STATE: u16 = 1;
    const PROTO: u16 = 2;
    const ORIG_SOURCE: u16 = 4;
    const ORIG_DESTINATION: u16 = 8;
    const REPLY_SOURCE: u16 = 0x10;
    const REPLY_DESTINATION: u16 = 0x20;
    const STATUS: u16 = 0x40;
    const ORIG_SPORT: u16 = 0x100;
    const ORIG_DPORT: u16 = 0x200;
    const DIRECTION: u16 = 0x1000;
    /// How it was written (`-m state`).
    const ALIAS: u16 = 0x2000;
    const MODELLED: u16 = STATE
        | PROTO
        | ORIG_SOURCE
        | ORIG_DESTINATION
        | REPLY_SOURCE
        | REPLY_DESTINATION
        | STATUS
        | ORIG_SPORT
        | ORIG_DPORT
        | DIRECTION
        | ALIAS;

    let (tests, inverted) = (blob.u16(146)?, blob.u16(148)?);
    let is_inverted = |test: u16| inverted & test != 0;
    let (states, status) = if revision == 1 {
        (blob.u8(150)?.into(), blob.u8(151)?.into())
    } else {
        (blob.u16(150)?, blob.u16(152)?)
    };
    let masked = |test: u16, mask: u16| (tests & test != 0).then(|| (mask, is_inverted(test)));
    let address = |test: u16, at: usize| -> Option<_> {
        let address = (blob.inet(at)?, blob.inet(at + 16)?, is_inverted(test));
        Some(Some(address).filter(|_| tests & test != 0))
    };
    let ports = |test: u16, first: usize, last: usize| -> Option<_> {
        let (first, last) = if revision == 3 {
            (blob.u16(first)?, blob.u16(last)?)
        } else {
            (blob.be16(first)?, blob.be16(first)?)
        };
        Some((tests & test != 0).then(|| (first, last, is_inverted(test))))
    };
    Some(XtMatch::Conntrack {
        states: masked(STATE, states),
        status: masked(STATUS, status),
        proto: masked(PROTO, blob.u16(136)?),
        orig_source: address(ORIG_SOURCE, 0)?,
        orig_destination: address(ORIG_DESTINATION, 32)?,
        reply_source: address(REPLY_SOURCE, 64)?,
        reply_destination: address(REPLY_DESTINATION, 96)?,
        orig_sport: ports(ORIG_SPORT, 138, 154)?,
        orig_dport: ports(ORIG_DPORT, 140, 156)?,
        reply_direction: (tests & DIRECTION != 0).then(|| is_inverted(DIRECTION)),
        other: tests & !MODELLED != 0,
    })
}

fn set(revision: u8, blob: Blob<'_>) -> Option<XtMatch> {
    /// `--return-nomatch`, in the flags of revision 2.
    const RETURN_NOMATCH: u8 = 0x80;
    /// `! --update-counters` and `! --update-subcounters`.
    const COUNTERS: u32 = 0x18;

    let (dimensions, flags) = (blob.u8(2)?, blob.u8(3)?);
    if dimensions > 6 {
        return None;
    }
    let other = match revision {
        // The comparisons with counters are a value and how to compare, 0 for not.
        3 => blob.bool(8)? || blob.bool(24)? || blob.u32(40)? & !COUNTERS != 0,
        4 => blob.bool(16)? || blob.bool(32)? || blob.u32(40)? & !COUNTERS != 0,
        _ => flags & RETURN_NOMATCH != 0,
    };
    Some(XtMatch::Set {
        index: blob.u16(0)?,
        source: (1..=dimensions).map(|dimension| flags & 1 << dimension != 0).collect(),
        invert: flags & 1 != 0,
        other,
    })
}
