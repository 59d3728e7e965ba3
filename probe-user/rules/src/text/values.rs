//! Values of registers in words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::RuleVerdict;

/// What a register holds, which decides how a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// An address of an IP version, and how many of its bytes were loaded.
    Address {
        ipv6: bool,
    },
    Port,
    /// A number in the machine's byte order, better in hexadecimal digits.
    Mark,
    /// A number in the machine's byte order.
    Number,
    Interface,
    Protocol,
    Family,
    State,
    AddressType,
    Other,
}

/// A value as users know it.
pub(super) fn value(kind: ValueKind, bytes: &[u8]) -> String {
    match kind {
        ValueKind::Address { ipv6 } => address(ipv6, bytes),
        ValueKind::Port => number_be(bytes).to_string(),
        ValueKind::Mark => format!("{:#x}", number(bytes)),
        ValueKind::Number => number(bytes).to_string(),
        ValueKind::Interface => interface(bytes),
        ValueKind::Protocol => protocol(bytes.first().copied().unwrap_or_default()),
        ValueKind::Family => match bytes.first() {
            Some(2) => "ipv4".to_owned(),
            Some(10) => "ipv6".to_owned(),
            other => other.map_or_else(String::new, u8::to_string),
        },
        ValueKind::State => states(number(bytes)),
        ValueKind::AddressType => address_type(number(bytes)),
        ValueKind::Other => hex(bytes),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// A number in the machine's byte order.
pub(super) fn number(bytes: &[u8]) -> u32 {
    let mut all = [0; 4];
    for (to, from) in all.iter_mut().zip(bytes) {
        *to = *from;
    }
    u32::from_ne_bytes(all)
}

/// A number in network byte order.
pub(super) fn number_be(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// An address; with its prefix when only some of its bytes are there.
fn address(ipv6: bool, bytes: &[u8]) -> String {
    let mut all = [0; 16];
    for (to, from) in all.iter_mut().zip(bytes) {
        *to = *from;
    }
    let whole = if ipv6 { 16 } else { 4 };
    let address = if ipv6 {
        IpAddr::V6(Ipv6Addr::from(all))
    } else {
        IpAddr::V4(Ipv4Addr::new(all[0], all[1], all[2], all[3]))
    };
    if bytes.len() < whole { format!("{address}/{}", bytes.len() * 8) } else { address.to_string() }
}

/// How many bits a mask has, when they are its first ones.
pub(super) fn prefix_of(mask: &[u8]) -> Option<u32> {
    let ones: u32 = mask.iter().map(|byte| byte.leading_ones()).take_while(|n| *n == 8).sum();
    let full = usize::try_from(ones / 8).ok()?;
    let part = mask.get(full).map_or(0, |byte| byte.leading_ones());
    let all: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    (all == ones + part).then_some(all)
}

/// An interface name. One that does not end in a NUL is the beginning of names.
fn interface(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    let name = String::from_utf8_lossy(bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes));
    let any = if end.is_none() && bytes.len() < 16 { "*" } else { "" };
    format!("\"{name}{any}\"")
}

pub(super) fn protocol(number: u8) -> String {
    match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        58 => "ipv6-icmp",
        132 => "sctp",
        136 => "udplite",
        other => return other.to_string(),
    }
    .to_owned()
}

/// Bits of a connection's state.
pub(super) fn states(bits: u32) -> String {
    let names = [(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
    flags(bits, &names)
}

/// The names of the bits that are set; what has none as a number.
pub(super) fn flags(bits: u32, names: &[(u32, &str)]) -> String {
    let mut words: Vec<String> =
        names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| (*name).into()).collect();
    let known = names.iter().fold(0, |all, (bit, _)| all | bit);
    if bits & !known != 0 || words.is_empty() {
        words.push(format!("{:#x}", bits & !known));
    }
    words.join(",")
}

/// `RTN_*`.
pub(super) fn address_type(number: u32) -> String {
    match number {
        0 => "unspec",
        1 => "unicast",
        2 => "local",
        3 => "broadcast",
        4 => "anycast",
        5 => "multicast",
        6 => "blackhole",
        7 => "unreachable",
        8 => "prohibit",
        other => return other.to_string(),
    }
    .to_owned()
}

pub(super) fn verdict(verdict: &RuleVerdict) -> String {
    match verdict {
        RuleVerdict::Accept => "accept".to_owned(),
        RuleVerdict::Drop => "drop".to_owned(),
        RuleVerdict::Continue => "continue".to_owned(),
        RuleVerdict::Break => "break".to_owned(),
        RuleVerdict::Return => "return".to_owned(),
        RuleVerdict::Jump(chain) => format!("jump {chain}"),
        RuleVerdict::Goto(chain) => format!("goto {chain}"),
        RuleVerdict::Queue => "queue to a program".to_owned(),
    }
}
