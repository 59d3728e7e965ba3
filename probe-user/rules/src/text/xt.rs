//! Matches of iptables in words.

use std::net::IpAddr;

use super::values::{address_type, flags, protocol};
use crate::model::{Side, XtMatch};
use crate::xt::physdev;

const ALL: (u16, u16) = (0, u16::MAX);

/// A match; `None` when it says nothing that the protocol does not.
pub(crate) fn condition(one: &XtMatch, proto: Option<&str>) -> Option<String> {
    Some(match one {
        XtMatch::Addrtype {
            source,
            destination,
            invert_source,
            invert_destination,
            limit_in,
            limit_out,
        } => {
            let mut text = "addrtype".to_owned();
            for (side, types, invert) in
                [("src", *source, *invert_source), ("dst", *destination, *invert_destination)]
            {
                if types != 0 {
                    text.push_str(&format!(" {side} {}{}", not(invert), address_types(types)));
                }
            }
            text.push_str(if *limit_in { " on the interface it came in by" } else { "" });
            text.push_str(if *limit_out { " on the interface it goes out by" } else { "" });
            text
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
            let mut parts = ports("tcp", *sports, *invert_sports, *dports, *invert_dports);
            if flags.0 != 0 {
                let sign = if *invert_flags { "!=" } else { "==" };
                parts.push(format!("tcp flags & {:#x} {sign} {:#x}", flags.0, flags.1));
            }
            if *option != 0 {
                parts.push(format!("tcp option {option}"));
            }
            return joined(parts);
        }
        XtMatch::Udp { sports, dports, invert_sports, invert_dports } => {
            return joined(ports("udp", *sports, *invert_sports, *dports, *invert_dports));
        }
        XtMatch::Multiport { side, ports, invert } => {
            let side = match side {
                Side::Source => "sport",
                Side::Destination => "dport",
                Side::Either => "sport or dport",
            };
            let ports: Vec<String> = ports.iter().map(|p| range(*p)).collect();
            format!("{} {side} {}{{{}}}", proto.unwrap_or("th"), not(*invert), ports.join(","))
        }
        XtMatch::Random { probability, invert } => {
            let percent = f64::from(*probability) * 100.0 / f64::from(1_u32 << 31);
            format!("statistic random {}{percent:.0} %", not(*invert))
        }
        XtMatch::Nth { every, invert } => format!("statistic {}one in {every}", not(*invert)),
        XtMatch::Mark { mark, mask, invert } => masked("meta mark", *mark, *mask, *invert),
        XtMatch::Connmark { mark, mask, invert } => masked("ct mark", *mark, *mask, *invert),
        XtMatch::Conntrack { .. } => return conntrack(one),
        XtMatch::Recent { name, set, seconds, invert } => {
            let what = match (set, seconds) {
                (true, _) => format!("recent {name:?} set"),
                (false, 0) => format!("recent {name:?}"),
                (false, seconds) => format!("recent {name:?} in the last {seconds} s"),
            };
            format!("{}{what}", not(*invert))
        }
        XtMatch::Set { index, source, invert, other } => {
            let sides: Vec<&str> =
                source.iter().map(|source| if *source { "src" } else { "dst" }).collect();
            let more = if *other { " and more" } else { "" };
            format!("{}{}ipset number {index}{more}", sides.join(",") + " ", not(*invert))
        }
        XtMatch::Icmp6 { kind, codes: (first, last), invert } => {
            let code = match (*first, *last) {
                (0, u8::MAX) => String::new(),
                (first, last) if first == last => format!(" code {first}"),
                (first, last) => format!(" code {first}-{last}"),
            };
            format!("icmpv6 type {}{kind}{code}", not(*invert))
        }
        XtMatch::Iprange { source, destination } => {
            let mut parts = Vec::new();
            for (side, range) in [("saddr", source), ("daddr", destination)] {
                if let Some((first, last, invert)) = range {
                    parts.push(format!("ip {side} {}{first}-{last}", not(*invert)));
                }
            }
            return joined(parts);
        }
        XtMatch::Owner { uid, gid, other } => {
            let mut parts = Vec::new();
            for (name, wanted) in [("skuid", uid), ("skgid", gid)] {
                if let Some((first, last, invert)) = wanted {
                    let id =
                        if first == last { first.to_string() } else { format!("{first}-{last}") };
                    parts.push(format!("meta {name} {}{id}", not(*invert)));
                }
            }
            if *other {
                parts.push("(match owner)".to_owned());
            }
            return joined(parts);
        }
        XtMatch::Rpfilter { loose, invert, .. } => {
            format!(
                "rpfilter{}{}",
                if *loose { " --loose" } else { "" },
                if *invert { " --invert" } else { "" }
            )
        }
        XtMatch::Pkttype { kind, invert } => {
            let name = match kind {
                0 => "unicast".to_owned(),
                1 => "broadcast".to_owned(),
                2 => "multicast".to_owned(),
                other => other.to_string(),
            };
            format!("pkttype {}{name}", not(*invert))
        }
        XtMatch::Socket { transparent: true } => "(match socket --transparent)".to_owned(),
        XtMatch::Socket { transparent: false } => "(match socket)".to_owned(),
        XtMatch::Physdev { asks, invert, inside, outside } => {
            let one = |bit: u8, name: &str, value: &str| {
                let sign = if invert & bit != 0 { "! " } else { "" };
                let text = || format!("{sign}{name}{value}");
                (asks & bit != 0).then(text)
            };
            let all = [
                one(physdev::IN, "in ", inside),
                one(physdev::OUT, "out ", outside),
                one(physdev::IS_BRIDGED, "is-bridged", ""),
                one(physdev::IS_IN, "is-in", ""),
                one(physdev::IS_OUT, "is-out", ""),
            ];
            let all: Vec<String> = all.into_iter().flatten().collect();
            format!("physdev {}", all.join(" "))
        }
        XtMatch::Unknown { name, revision: _ } => format!("(match {name})"),
    })
}

fn joined(parts: Vec<String>) -> Option<String> {
    (!parts.is_empty()).then(|| parts.join(" "))
}

fn not(invert: bool) -> &'static str {
    if invert { "!= " } else { "" }
}

fn range((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn ports(
    proto: &str,
    sports: (u16, u16),
    invert_sports: bool,
    dports: (u16, u16),
    invert_dports: bool,
) -> Vec<String> {
    let mut parts = Vec::new();
    for (side, ports, invert) in
        [("sport", sports, invert_sports), ("dport", dports, invert_dports)]
    {
        if ports != ALL || invert {
            parts.push(format!("{proto} {side} {}{}", not(invert), range(ports)));
        }
    }
    parts
}

/// Bits of `1 << RTN_*`.
fn address_types(types: u16) -> String {
    let names: Vec<String> =
        (0..16_u32).filter(|bit| types >> bit & 1 == 1).map(address_type).collect();
    names.join(",")
}

fn masked(name: &str, mark: u32, mask: u32, invert: bool) -> String {
    let sign = if invert { "!=" } else { "==" };
    if mask == u32::MAX {
        format!("{name} {}{mark:#x}", not(invert))
    } else {
        format!("{name} & {mask:#x} {sign} {mark:#x}")
    }
}

fn conntrack(one: &XtMatch) -> Option<String> {
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
        return None;
    };
    let mut parts = Vec::new();
    if let Some((bits, invert)) = states {
        let names = [
            (1, "invalid"),
            (2, "established"),
            (4, "related"),
            (8, "new"),
            (0x40, "snat"),
            (0x80, "dnat"),
            (0x100, "untracked"),
        ];
        parts.push(format!("ct state {}{}", not(*invert), flags(u32::from(*bits), &names)));
    }
    if let Some((bits, invert)) = status {
        let names = [(1, "expected"), (2, "seen-reply"), (4, "assured"), (8, "confirmed")];
        parts.push(format!("ct status {}{}", not(*invert), flags(u32::from(*bits), &names)));
    }
    if let Some((number, invert)) = proto {
        let name = u8::try_from(*number).map_or_else(|_| number.to_string(), protocol);
        parts.push(format!("ct protocol {}{name}", not(*invert)));
    }
    let addresses = [
        ("original saddr", orig_source),
        ("original daddr", orig_destination),
        ("reply saddr", reply_source),
        ("reply daddr", reply_destination),
    ];
    for (name, value) in addresses {
        if let Some((address, mask, invert)) = value {
            parts.push(format!("ct {name} {}{address}{}", not(*invert), prefix(*mask)));
        }
    }
    for (name, value) in [("proto-src", orig_sport), ("proto-dst", orig_dport)] {
        if let Some((first, last, invert)) = value {
            parts.push(format!("ct original {name} {}{}", not(*invert), range((*first, *last))));
        }
    }
    if let Some(reply) = reply_direction {
        parts.push(format!("ct direction {}", if *reply { "reply" } else { "original" }));
    }
    if *other {
        parts.push("(match conntrack)".to_owned());
    }
    joined(parts)
}

/// A mask as the length of a prefix; nothing for that of one address.
fn prefix(mask: IpAddr) -> String {
    let bytes = match mask {
        IpAddr::V4(mask) => mask.octets().to_vec(),
        IpAddr::V6(mask) => mask.octets().to_vec(),
    };
    match super::values::prefix_of(&bytes) {
        Some(bits) if usize::try_from(bits).ok() == Some(bytes.len() * 8) => String::new(),
        Some(bits) => format!("/{bits}"),
        None => format!("/{mask}"),
    }
}
