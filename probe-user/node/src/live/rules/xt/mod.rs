//! The extensions of xtables, as legacy tables and nf_tables' compat layer have
//! them: a name, a revision, and a blob that is a C structure.
//!
//! Sources: `linux/netfilter/xt_*.h`, `linux/netfilter/nf_nat.h`,
//! `linux/netfilter_ipv4/ipt_*.h`, `linux/netfilter_ipv6/ip6t_*.h`. The offsets
//! are those of 64-bit little and big endian machines alike. Numbers are in host
//! byte order but for addresses, and for ports where it is said.
//!
//! What is not understood, a blob that is too short included, is `Unknown`.

#[cfg(test)]
pub(super) mod lab;
mod matches;
#[cfg(test)]
mod older;
mod targets;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use whereis_port_model::{XtMatch, XtTarget};

/// What a match is for a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::live::rules) enum MatchInfo {
    /// A test.
    Match(XtMatch),
    /// The rule's comment.
    Comment(String),
}

/// The match of that name and revision in a rule for IPv4 or IPv6.
pub(in crate::live::rules) fn match_of(
    name: &str,
    revision: u8,
    ipv6: bool,
    info: &[u8],
) -> MatchInfo {
    let blob = Blob { bytes: info, ipv6 };
    if name == "comment" {
        return MatchInfo::Comment(text(info));
    }
    MatchInfo::Match(
        matches::parse(name, revision, blob)
            .unwrap_or_else(|| XtMatch::Unknown { name: name.to_owned(), revision }),
    )
}

/// The target of that name and revision in a rule for IPv4 or IPv6.
pub(in crate::live::rules) fn target_of(
    name: &str,
    revision: u8,
    ipv6: bool,
    info: &[u8],
) -> XtTarget {
    let blob = Blob { bytes: info, ipv6 };
    targets::parse(name, revision, blob)
        .unwrap_or_else(|| XtTarget::Unknown { name: name.to_owned(), revision })
}

/// A structure of the kernel, and for which address family it is.
#[derive(Clone, Copy)]
struct Blob<'a> {
    bytes: &'a [u8],
    ipv6: bool,
}

impl<'a> Blob<'a> {
    fn array<const N: usize>(self, at: usize) -> Option<&'a [u8; N]> {
        self.bytes.get(at..)?.first_chunk()
    }

    fn u8(self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    /// Of one byte, whether it is another than 0.
    fn bool(self, at: usize) -> Option<bool> {
        Some(self.u8(at)? != 0)
    }

    fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(|bytes| u16::from_ne_bytes(*bytes))
    }

    /// In network byte order.
    fn be16(self, at: usize) -> Option<u16> {
        self.array(at).map(|bytes| u16::from_be_bytes(*bytes))
    }

    fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(|bytes| u32::from_ne_bytes(*bytes))
    }

    fn v4(self, at: usize) -> Option<IpAddr> {
        self.array(at).map(|bytes| Ipv4Addr::from(*bytes).into())
    }

    fn v6(self, at: usize) -> Option<IpAddr> {
        self.array(at).map(|bytes| Ipv6Addr::from(*bytes).into())
    }

    /// `union nf_inet_addr`: 16 bytes, of which IPv4 uses the first four.
    fn inet(self, at: usize) -> Option<IpAddr> {
        if self.ipv6 { self.v6(at) } else { self.v4(at) }
    }
}

/// A string that a NUL ends, unless it fills its place.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}
