//! Matches and targets of iptables.
//!
//! Source: `linux/netfilter/xt_*.h`. Ports are in host byte order here.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::expr::Rejection;

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The source.
    Source,
    /// The destination.
    Destination,
    /// One of them.
    Either,
}

/// A match. Comments are the rule's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XtMatch {
    /// `addrtype`: types as bits `1 << RTN_*` (unicast 1, local 2, broadcast 3,
    /// multicast 5); 0 does not test.
    Addrtype {
        /// Wanted types of the source.
        source: u16,
        /// Wanted types of the destination.
        destination: u16,
        /// `! --src-type`.
        invert_source: bool,
        /// `! --dst-type`.
        invert_destination: bool,
        /// `--limit-iface-in`.
        limit_in: bool,
        /// `--limit-iface-out`.
        limit_out: bool,
    },
    /// `tcp`. Does not hold for other protocols.
    Tcp {
        /// First and last source port.
        sports: (u16, u16),
        /// First and last destination port.
        dports: (u16, u16),
        /// Whether the source port must lie outside.
        invert_sports: bool,
        /// Whether the destination port must lie outside.
        invert_dports: bool,
        /// Flags looked at, and those of them that must be set; `invert_flags` for
        /// any other combination. The first packet has SYN (2) only.
        flags: (u8, u8),
        /// See `flags`.
        invert_flags: bool,
        /// A TCP option that must be there, 0 for none: not modelled.
        option: u8,
    },
    /// `udp`. Does not hold for other protocols.
    Udp {
        /// First and last source port.
        sports: (u16, u16),
        /// First and last destination port.
        dports: (u16, u16),
        /// Whether the source port must lie outside.
        invert_sports: bool,
        /// Whether the destination port must lie outside.
        invert_dports: bool,
    },
    /// `icmp6`. Does not hold for other protocols.
    Icmp6 {
        /// The type of the message.
        kind: u8,
        /// First and last code.
        codes: (u8, u8),
        /// `! --icmpv6-type`.
        invert: bool,
    },
    /// `multiport`.
    Multiport {
        /// Which ports.
        side: Side,
        /// First and last of each.
        ports: Vec<(u16, u16)>,
        /// Whether it must be none of them.
        invert: bool,
    },
    /// `statistic --mode random`.
    Random {
        /// Of 2^31.
        probability: u32,
        /// Whether it must not be so.
        invert: bool,
    },
    /// `statistic --mode nth`.
    Nth {
        /// One of so many.
        every: u32,
        /// Whether it must not be so.
        invert: bool,
    },
    /// `mark`.
    Mark {
        /// The value under the mask.
        mark: u32,
        /// The mask.
        mask: u32,
        /// Whether it must differ.
        invert: bool,
    },
    /// `connmark`.
    Connmark {
        /// The value under the mask.
        mark: u32,
        /// The mask.
        mask: u32,
        /// Whether it must differ.
        invert: bool,
    },
    /// `conntrack` and `state`. Every test that is there must hold.
    Conntrack {
        /// `--ctstate`, and whether inverted: invalid 1, established 2, related 4,
        /// new 8, snat 0x40, dnat 0x80, untracked 0x100.
        #[serde(default)]
        states: Option<(u16, bool)>,
        /// `--ctstatus`, and whether inverted: `IPS_*`.
        #[serde(default)]
        status: Option<(u16, bool)>,
        /// `--ctproto`, and whether inverted.
        #[serde(default)]
        proto: Option<(u16, bool)>,
        /// `--ctorigsrc`: address, mask, and whether inverted.
        #[serde(default)]
        orig_source: Option<(IpAddr, IpAddr, bool)>,
        /// `--ctorigdst`.
        #[serde(default)]
        orig_destination: Option<(IpAddr, IpAddr, bool)>,
        /// `--ctreplsrc`.
        #[serde(default)]
        reply_source: Option<(IpAddr, IpAddr, bool)>,
        /// `--ctrepldst`.
        #[serde(default)]
        reply_destination: Option<(IpAddr, IpAddr, bool)>,
        /// `--ctorigsrcport`: first, last, and whether inverted.
        #[serde(default)]
        orig_sport: Option<(u16, u16, bool)>,
        /// `--ctorigdstport`.
        #[serde(default)]
        orig_dport: Option<(u16, u16, bool)>,
        /// `--ctdir REPLY` (`true`) or `ORIGINAL`.
        #[serde(default)]
        reply_direction: Option<bool>,
        /// Tests that are not modelled: may hold or not.
        #[serde(default)]
        other: bool,
    },
    /// `recent`.
    Recent {
        /// Name of the list. Untrusted.
        name: String,
        /// `--set`: adds, and holds unless inverted.
        set: bool,
        /// `--seconds`, 0 for none.
        seconds: u32,
        /// Whether it must not be in.
        invert: bool,
    },
    /// `set`: the ipset's index, and which parts of the packet make the key.
    Set {
        /// Index of the set.
        index: u16,
        /// For each dimension whether it is the source's (`true`) or destination's.
        source: Vec<bool>,
        /// Whether it must not be in.
        invert: bool,
        /// Whether more is tested than membership: then it is not modelled.
        other: bool,
    },
    /// `iprange`.
    Iprange {
        /// First, last, and whether it must lie outside.
        source: Option<(IpAddr, IpAddr, bool)>,
        /// The same of the destination.
        destination: Option<(IpAddr, IpAddr, bool)>,
    },
    /// `owner`: user and group ids.
    Owner {
        /// First and last user id, and whether it must lie outside.
        uid: Option<(u32, u32, bool)>,
        /// The same of the group.
        #[serde(default)]
        gid: Option<(u32, u32, bool)>,
        /// Whether anything else is tested: then it may hold or not.
        other: bool,
    },
    /// `socket`: a socket of the namespace takes the packet.
    Socket {
        /// `--transparent`: one that has `IP_TRANSPARENT`.
        transparent: bool,
    },
    /// `physdev`: over which ports of a bridge it goes, as br_netfilter notes it. Bits as in
    /// `linux/netfilter/xt_physdev.h`: 1 in, 2 out, 4 is-bridged, 8 is-in, 16 is-out.
    Physdev {
        /// What is asked.
        asks: u8,
        /// What of it must not be so.
        invert: u8,
        /// The port that it came in by; a `+` at its end stands for anything.
        inside: String,
        /// The port that it leaves by.
        outside: String,
    },
    /// `rpfilter`: an answer to who sent it would leave by where it came in.
    Rpfilter {
        /// `--loose`: or by any other interface.
        loose: bool,
        /// `--validmark`: routed with the packet's mark.
        mark: bool,
        /// `--accept-local`: one from an own address counts as well.
        accept_local: bool,
        /// `--invert`.
        invert: bool,
    },
    /// `pkttype`: whom the link layer sent it to (`PACKET_HOST` 0, `PACKET_BROADCAST` 1, ...).
    Pkttype {
        /// The type.
        kind: u32,
        /// The rule asks for the opposite.
        invert: bool,
    },
    /// One that is not modelled: may hold or not.
    Unknown {
        /// Its name. Untrusted.
        name: String,
        /// Its revision.
        revision: u8,
    },
}

impl XtMatch {
    /// A `conntrack` match of states alone (`--ctstate`, and whether inverted), or of nothing;
    /// `other`: it has tests that are not modelled.
    pub fn conntrack(states: Option<(u16, bool)>, other: bool) -> Self {
        Self::Conntrack {
            states,
            status: None,
            proto: None,
            orig_source: None,
            orig_destination: None,
            reply_source: None,
            reply_destination: None,
            orig_sport: None,
            orig_dport: None,
            reply_direction: None,
            other,
        }
    }
}

/// A range to translate to (`nf_nat_range2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRange {
    /// First and last address; `None` keeps the address.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// First and last port; `None` keeps the port.
    pub ports: Option<(u16, u16)>,
    /// Of a shifted range (`8080-8090/8080`): the port that maps to the first.
    pub base: Option<u16>,
    /// `NF_NAT_RANGE_*` as read. Netmap is 0x40.
    pub flags: u32,
}

/// What a mark becomes: `(old & !mask) ^ mark`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkOp {
    /// The bits changed afterwards.
    pub mark: u32,
    /// The bits cleared first.
    pub mask: u32,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XtTarget {
    /// `DNAT`. Terminal.
    Dnat(NatRange),
    /// `SNAT`. Terminal.
    Snat(NatRange),
    /// `REDIRECT`. Terminal.
    Redirect(NatRange),
    /// `MASQUERADE`. Terminal.
    Masquerade(NatRange),
    /// `NETMAP`. Terminal.
    Netmap(NatRange),
    /// `MARK`.
    Mark(MarkOp),
    /// `CONNMARK`: sets the connection's mark.
    Connmark(MarkOp),
    /// `CONNMARK --save-mark`, `--restore-mark`.
    ConnmarkCopy {
        /// Whether the packet's mark is set from the connection's.
        restore: bool,
    },
    /// `REJECT`. Terminal.
    Reject(Rejection),
    /// `TPROXY`. Terminal.
    Tproxy {
        /// The address, if one is said.
        address: Option<IpAddr>,
        /// The port, if one is said.
        port: Option<u16>,
        /// The mark it sets.
        mark: MarkOp,
    },
    /// `NOTRACK`, `CT --notrack`.
    Notrack,
    /// `CT --zone`: the zone of conntrack that its connection is looked for in.
    Zone(u16),
    /// `NFQUEUE`: a program in user space decides. Terminal.
    Queue,
    /// One that changes nothing here: LOG, NFLOG, TCPMSS, CHECKSUM, SET. Its name.
    NoEffect(String),
    /// One that is not modelled: what happens is not known.
    Unknown {
        /// Its name. Untrusted.
        name: String,
        /// Its revision.
        revision: u8,
    },
}
