//! Which ports the rules of a namespace take: for `list`, and to know what to ask.

use std::net::IpAddr;

use super::Source;
use super::dialect::Meaning;
use crate::model::{Proto, Ruleset};

/// A port that rules take, with or without a socket.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::resolve) struct Taken {
    pub(in crate::resolve) proto: Proto,
    /// The address; `None` for every address of the namespace.
    pub(in crate::resolve) address: Option<IpAddr>,
    pub(in crate::resolve) port: u16,
    /// Where it leads: at most [`Taken::TARGETS`], then how many there are.
    pub(in crate::resolve) targets: Vec<(IpAddr, u16)>,
    pub(in crate::resolve) total: usize,
    pub(in crate::resolve) meaning: Meaning,
    /// Whether all packets to it are refused or dropped.
    pub(in crate::resolve) refused: bool,
}

impl Taken {
    /// How many targets are kept.
    pub(in crate::resolve) const TARGETS: usize = 4;
}

/// Every port that rules translate, redirect or refuse for want of a backend, for
/// packets to this namespace (`local`), or to any other address, too.
pub(in crate::resolve) fn taken(_source: &dyn Source, _ruleset: &Ruleset) -> Vec<Taken> {
    Vec::new()
}
