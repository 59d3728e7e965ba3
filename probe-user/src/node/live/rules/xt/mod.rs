//! Matches and targets of iptables, out of the kernel's structures.

use crate::model::{XtMatch, XtTarget};

/// What a match is.
#[derive(Debug)]
pub(in crate::node::live::rules) enum MatchInfo {
    /// A test.
    Match(XtMatch),
    /// The text of `comment`.
    #[expect(dead_code, reason = "being written")]
    Comment(String),
}

pub(in crate::node::live::rules) fn match_of(
    name: &str,
    revision: u8,
    _ipv6: bool,
    _info: &[u8],
) -> MatchInfo {
    MatchInfo::Match(XtMatch::Unknown { name: name.to_owned(), revision })
}

pub(in crate::node::live::rules) fn target_of(
    name: &str,
    revision: u8,
    _ipv6: bool,
    _info: &[u8],
) -> XtTarget {
    XtTarget::Unknown { name: name.to_owned(), revision }
}
