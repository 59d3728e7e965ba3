//! Packet rules as the kernel has them: nf_tables and legacy xtables in one model.
//!
//! A rule is a small program over registers, as nf_tables runs it. What comes from
//! iptables (extensions of nf_tables' compat layer, and all of legacy xtables) is
//! in it as [`Expr::Match`] and [`Expr::Target`]; the address and interface tests
//! of a legacy entry are written as the expressions that iptables-nft makes of
//! them. Whatever is not understood stays as [`Expr::Opaque`]: whether it holds is
//! then not known, and a path through it depends on it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Bytes, Expr, NetnsId, RuleVerdict};

/// Which of the kernel's two kinds of packet rules a table is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RulesBackend {
    /// nf_tables, iptables-nft included.
    Nft,
    /// ip_tables and ip6_tables, what iptables-legacy writes.
    Legacy,
}

/// The address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
    /// ARP. Never on a packet's way here.
    Arp,
    /// Frames on a bridge.
    Bridge,
    /// Frames of one device, before everything else.
    Netdev,
}

impl Family {
    /// As nft writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        }
    }

    /// Whether IP packets of a version pass its chains at the IP hooks.
    #[inline]
    pub fn takes(self, ipv6: bool) -> bool {
        match self {
            Self::Ip => !ipv6,
            Self::Ip6 => ipv6,
            Self::Inet => true,
            Self::Arp | Self::Bridge | Self::Netdev => false,
        }
    }
}

/// Which table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableId {
    /// The namespace.
    pub netns: NetnsId,
    /// Where it lives.
    pub backend: RulesBackend,
    /// Its family.
    pub family: Family,
    /// Its name. Untrusted.
    pub name: Arc<str>,
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let legacy = if self.backend == RulesBackend::Legacy { " (legacy)" } else { "" };
        write!(f, "{} {}{legacy}", self.family.as_str(), self.name)
    }
}

/// Which chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainId {
    /// Its table.
    pub table: TableId,
    /// Its name. Untrusted.
    pub name: Arc<str>,
}

impl Hash for ChainId {
    /// Of what tells chains apart: there are ten thousands of one table, and few of one
    /// name in a namespace.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.table.netns {
            NetnsId::Inode(number) | NetnsId::ProcNet(number) => state.write_u64(number),
        }
        state.write(self.name.as_bytes());
    }
}

/// Which set or map of nf_tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetId {
    /// Its table.
    pub table: TableId,
    /// Its name: unique in the table, also of anonymous ones. Untrusted.
    pub name: Arc<str>,
}

/// Which set of ipset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpSetId {
    /// The namespace.
    pub netns: NetnsId,
    /// Its index, which is how rules refer to it.
    pub index: u16,
}

/// What a namespace has of rules, without the rules: enough to know where a packet
/// enters them. Rules are read chain by chain, as a path needs them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    /// The namespace.
    pub netns: NetnsId,
    /// The generation of nf_tables that was read; `None` without nf_tables.
    pub generation: Option<u32>,
    /// The program that changed nf_tables last, as the kernel tells. Untrusted.
    pub changed_by: Option<String>,
    /// The tables, in the kernel's order.
    pub tables: Vec<Table>,
    /// The chains that hang in a hook, in the kernel's order. None of dormant tables.
    pub base_chains: Vec<BaseChain>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Which.
    pub id: TableId,
    /// Its handle: tables of one namespace count up. `None` for legacy ones.
    pub handle: Option<u64>,
    /// Whether its chains are switched off.
    pub dormant: bool,
    /// Its comment. Untrusted.
    pub comment: Option<String>,
}

/// A chain that packets enter at a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseChain {
    /// Which.
    pub id: ChainId,
    /// Its handle, which counts up in its table. `None` for legacy ones.
    pub handle: Option<u64>,
    /// Where.
    pub hook: Hook,
    /// Lower ones run first.
    pub priority: i32,
    /// What it may do.
    pub kind: ChainKind,
    /// What happens at its end: `true` accepts, `false` drops.
    pub accepts: bool,
    /// The devices of a netdev or ingress chain.
    pub devices: Vec<String>,
}

/// Where in the kernel a chain hangs. In the order of a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// A device's ingress, before everything else; of `inet` tables since Linux 5.10.
    Ingress,
    /// What comes in, before routing.
    Prerouting,
    /// What is for this namespace.
    Input,
    /// What passes through it.
    Forward,
    /// What processes of this namespace send.
    Output,
    /// What goes out, after routing.
    Postrouting,
    /// A device's egress (Linux 5.16).
    Egress,
}

impl Hook {
    /// As nft writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        }
    }
}

/// What kind of base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainKind {
    /// Sees every packet. Legacy tables other than `nat` are of this kind too.
    Filter,
    /// Sees the first packet of a connection; its first translation counts.
    Nat,
    /// A filter chain at output whose marks reroute (legacy `mangle`).
    Route,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// nf_tables: the handle. Legacy: its number in the chain, from 1 on, as
    /// `iptables -L --line-numbers` shows it.
    pub handle: u64,
    /// Its comment. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What it does, in order. An expression that does not hold ends the rule.
    pub exprs: Vec<Expr>,
    /// How many packets passed its counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
}

/// What is known of a set or map without its elements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// Which.
    pub id: SetId,
    /// Whether elements are ranges.
    pub interval: bool,
    /// Whether its keys are concatenations with ranges (`KEY`, `KEY_END`; Linux 5.6).
    pub concat: bool,
    /// Whether rules add elements (`dynset`), as session affinity does.
    pub dynamic: bool,
    /// Length of a key in bytes.
    pub key_len: u32,
    /// Lengths in bytes of the parts of a key that is a concatenation, as far as the
    /// kernel tells. In the key each begins at a multiple of 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<u32>,
    /// What a key is mapped to.
    pub maps_to: MapsTo,
    /// Its comment. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// What elements of a set hold besides their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapsTo {
    /// Nothing: it is a set.
    Nothing,
    /// A verdict.
    Verdict,
    /// Bytes for a register.
    Data,
    /// A stateful object, such as a counter.
    Object,
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    /// The key; the first one of a range. Empty for the catch-all element.
    pub key: Bytes,
    /// The last key of a range, included. Ranges of interval sets that the kernel
    /// gives as boundaries are put together when they are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_end: Option<Bytes>,
    /// Whether it is the element `*`, for keys that no other has (Linux 5.13).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub catch_all: bool,
    /// The verdict of a verdict map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<RuleVerdict>,
    /// The data of a map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Bytes>,
    /// Its comment. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A set of ipset, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpSet {
    /// Which.
    pub id: IpSetId,
    /// Its name. Untrusted.
    pub name: String,
    /// Its type: `hash:ip,port`, `bitmap:port`.
    pub kind: String,
    /// Its members; `None` when they are too many, or of a type that is not understood.
    pub members: Option<Vec<IpSetMember>>,
}

/// A member of an ipset. The parts that its type has are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpSetMember {
    /// First address and prefix length.
    pub address: Option<(std::net::IpAddr, u8)>,
    /// The last address of a range.
    pub address_to: Option<std::net::IpAddr>,
    /// IP protocol number of a port.
    pub proto: Option<u8>,
    /// First and last port.
    pub ports: Option<(u16, u16)>,
    /// Second address and prefix length.
    pub second: Option<(std::net::IpAddr, u8)>,
    /// Interface name, of types with one.
    pub iface: Option<String>,
    /// `nomatch`: an exception.
    pub nomatch: bool,
}

/// The element that `key` belongs to: one with that key, a range around it, or the
/// catch-all one. `fields` is [`Set::fields`].
pub fn element_of<'a>(fields: &[u32], elements: &'a [Element], key: &Bytes) -> Option<&'a Element> {
    let is_in = |element: &&Element| match &element.key_end {
        _ if element.catch_all => false,
        None => element.key == *key,
        Some(end) => is_within(fields, &element.key.0, &end.0, &key.0),
    };
    elements.iter().find(is_in).or_else(|| elements.iter().find(|element| element.catch_all))
}

/// Whether a key lies in a range. Each part of a concatenation has a range of its own.
fn is_within(fields: &[u32], mut from: &[u8], mut to: &[u8], mut key: &[u8]) -> bool {
    if from.len() != key.len() || to.len() != key.len() {
        return false;
    }
    for field in fields {
        let padded = usize::try_from(*field).unwrap_or(usize::MAX).saturating_add(3) & !3;
        let at = padded.min(key.len());
        let ((low, from_rest), (high, to_rest)) = (from.split_at(at), to.split_at(at));
        let (part, key_rest) = key.split_at(at);
        if part < low || part > high {
            return false;
        }
        (from, to, key) = (from_rest, to_rest, key_rest);
    }
    // All of it, where the parts are not known.
    from <= key && key <= to
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a node's hundred thousand rules each has about eight.
    #[test]
    fn an_expression_takes_little_memory() {
        assert!(size_of::<Expr>() <= 32, "{}", size_of::<Expr>());
    }

    fn range(key: [u8; 8], end: [u8; 8]) -> Element {
        Element {
            key: Bytes::from(key.to_vec()),
            key_end: Some(Bytes::from(end.to_vec())),
            catch_all: false,
            verdict: None,
            data: None,
            comment: None,
        }
    }

    #[test]
    fn each_part_of_a_concatenation_lies_in_its_own_range() {
        // 10.0.0.0/8 . 80-90, as nft sends it.
        let nets = [range([10, 0, 0, 0, 0, 80, 0, 0], [10, 255, 255, 255, 0, 90, 0, 0])];
        let is_in = |fields: &[u32], key: [u8; 8]| {
            element_of(fields, &nets, &Bytes::from(key.to_vec())).is_some()
        };
        assert!(is_in(&[4, 2], [10, 9, 8, 7, 0, 85, 0, 0]));
        assert!(is_in(&[4, 2], [10, 0, 0, 0, 0, 90, 0, 0]));
        // Between both ends as bytes in a row, but the port is outside.
        assert!(!is_in(&[4, 2], [10, 9, 8, 7, 0, 91, 0, 0]));
        assert!(!is_in(&[4, 2], [10, 9, 8, 7, 0, 0, 0, 0]));
        assert!(!is_in(&[4, 2], [11, 0, 0, 0, 0, 85, 0, 0]));
        assert!(element_of(&[4, 2], &nets, &Bytes::from(vec![10])).is_none());
    }

    #[test]
    fn the_catch_all_element_comes_last() {
        let mut all = range([0; 8], [0; 8]);
        (all.catch_all, all.key_end, all.key) = (true, None, Bytes::default());
        let elements = [all, range([1; 8], [2; 8])];
        let find =
            |key: u8| element_of(&[], &elements, &Bytes::from(vec![key; 8])).unwrap().catch_all;
        assert_eq!((find(1), find(2), find(3)), (false, false, true));
        let empty = Bytes::default();
        assert!(element_of(&[], &elements, &empty).unwrap().catch_all);
    }
}
