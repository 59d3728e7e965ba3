//! What the rules of a namespace do to a packet, as the kernel would run them.
//!
//! Pure: rules, sets and routes come from a [`Source`]. What is not known of a
//! packet (the address of a client somewhere else) or of a condition (a rate limit)
//! makes two branches, each with what it assumes; what is random makes one branch for
//! each choice, with its probability. Nothing is assumed true or false silently.

mod branch;
mod chains;
pub(super) mod dialect;
pub(super) mod from_node;
mod hook;
mod load;
mod lookup;
mod machine;
mod nat;
pub(super) mod ports;
mod regs;
pub(super) mod text;
mod xt;

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{
    Bytes, ChainId, Element, IpSet, IpSetId, NetnsId, Proto, Rejection, RouteFound, RouteQuery,
    Rule, Ruleset, Set, SetId,
};

/// Where rules, and what they ask of the node, come from.
pub(super) trait Source {
    /// The rules of a chain; `None` when they are not known.
    fn chain(&self, chain: &ChainId) -> Option<Arc<[Rule]>>;
    /// A set without its elements.
    fn set(&self, set: &SetId) -> Option<Set>;
    /// All elements of a set; `None` when they are not known.
    fn set_elements(&self, set: &SetId) -> Option<Arc<[Element]>>;
    /// The element that a key belongs to. The outer `None`: it is not known whether
    /// there is one.
    fn set_element(&self, set: &SetId, key: &Bytes) -> Option<Option<Element>>;
    /// A set of ipset.
    fn ip_set(&self, set: &IpSetId) -> Option<IpSet>;
    /// Which way a packet takes; tells the type of an address, too.
    fn route(&self, query: &RouteQuery) -> Option<RouteFound>;
    /// The first address of an interface, which REDIRECT at prerouting sends to.
    fn first_address(&self, netns: NetnsId, ifindex: u32, ipv6: bool) -> Option<IpAddr>;
}

/// A network interface as rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nic {
    pub(super) index: u32,
    pub(super) name: Arc<str>,
}

/// Who sent a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sender {
    /// This address.
    Address(IpAddr),
    /// Some machine elsewhere: no address of this node, no loopback address.
    Elsewhere,
}

/// The first packet of a connection, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) netns: NetnsId,
    pub(super) proto: Proto,
    pub(super) source: Sender,
    /// `None` for any ephemeral port.
    pub(super) sport: Option<u16>,
    pub(super) destination: IpAddr,
    pub(super) dport: u16,
    /// `None` at output.
    pub(super) iif: Option<Nic>,
    /// `None` before routing.
    pub(super) oif: Option<Nic>,
    pub(super) mark: u32,
    pub(super) ct_mark: u32,
    /// The user id of the sending process; `None` when not known or not local.
    pub(super) uid: Option<u32>,
    /// Whether conntrack, and so NAT, is kept away from it.
    pub(super) untracked: bool,
    /// Where it was sent to before DNAT, once that is decided: DNAT changes a
    /// connection at most once. `Some` with the same values when it is left alone.
    pub(super) original: Option<(IpAddr, u16)>,
    /// Whom the receiver will see, once that is decided.
    pub(super) seen_as: Option<SeenAs>,
    /// The socket that TPROXY gave it to.
    pub(super) tproxy: Option<(IpAddr, u16)>,
}

/// What SNAT makes of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeenAs {
    /// It stays.
    Itself,
    /// This address.
    Address(IpAddr),
    /// The address of the interface that it goes out by.
    Masqueraded,
}

/// What becomes of a packet at one hook: one of several possible ways.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    /// The packet afterwards.
    pub(super) packet: Packet,
    /// Whether it goes on.
    pub(super) fate: Fate,
    /// How likely this is among those with the same assumptions: 0 to 1.
    pub(super) probability: f64,
    /// What it takes for this to happen, for people: `the client's address is in
    /// 10.42.0.0/16`, `limit`. Empty when it surely does.
    pub(super) depends: Vec<String>,
    /// What may send single clients elsewhere: `session affinity for 10800 s`.
    pub(super) notes: Vec<String>,
    /// The rules that did something: jumps, marks, NAT, verdicts.
    pub(super) trail: Vec<Step>,
}

/// Whether a packet goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It passes the hook.
    Passes,
    /// It is dropped, by the last rule of the trail, or by the policy of a chain
    /// when that has no rule.
    Dropped,
    /// It is refused.
    Rejected(Rejection),
    /// A program in user space decides.
    Queued,
    /// Too many branches, too deep, or a loop: it is not known what becomes of it.
    Unknown,
}

/// A rule that did something to a packet.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) chain: ChainId,
    /// The chain's rules.
    pub(super) rules: Arc<[Rule]>,
    /// Which of them; `None` is the chain's policy.
    pub(super) at: Option<usize>,
    /// The set element that a map led to, with its comment.
    pub(super) element: Option<Element>,
}

impl Step {
    pub(super) fn rule(&self) -> Option<&Rule> {
        self.rules.get(self.at?)
    }
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        (&self.chain, self.at, &self.element) == (&other.chain, other.at, &other.element)
    }
}

/// Runs a packet through all chains of a hook in the kernel's order.
///
/// Chains of type nat are passed only by the first packet of a connection and by
/// those that are tracked; the first of them that translates decides. Where chains
/// of equal priority would give different results and their order is not known,
/// every order is an outcome that says what it depends on.
pub(super) fn traverse(
    source: &dyn Source,
    ruleset: &Ruleset,
    hook: crate::model::Hook,
    packet: Packet,
) -> Vec<Outcome> {
    hook::Traversal::new(source, hook).run(ruleset, packet)
}

#[cfg(test)]
mod tests;
