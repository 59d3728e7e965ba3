//! Where rules come from.

use std::net::IpAddr;
use std::sync::Arc;

use crate::Chain;
use crate::model::{
    Bytes, ChainId, Element, IpSet, IpSetId, NetnsId, RouteFound, RouteQuery, Set, SetId,
};

/// Where rules, and what they ask of the node, come from.
///
/// The evaluator asks for the same things again and again: what is slow to read should be
/// kept. [`Snapshot`](crate::Snapshot) is one that has everything in memory.
pub trait RuleSource {
    /// A chain; `None` when its rules are not known.
    fn chain(&self, chain: &ChainId) -> Option<Arc<Chain>>;

    /// A set without its elements; `None` when it is not known.
    fn set(&self, set: &SetId) -> Option<Set>;

    /// All elements of a set; `None` when they are not known.
    fn set_elements(&self, set: &SetId) -> Option<Arc<[Element]>>;

    /// The same, where an answer is whole without them, too: a source that reports what it
    /// could not read need not report this.
    fn few_elements(&self, set: &SetId) -> Option<Arc<[Element]>> {
        self.set_elements(set)
    }

    /// The element that a key belongs to. The outer `None`: it is not known whether
    /// there is one. [`element_of`](crate::element_of) finds it among all elements.
    fn set_element(&self, set: &SetId, key: &Bytes) -> Option<Option<Element>>;

    /// A set of ipset; `None` when it is not known.
    fn ip_set(&self, set: &IpSetId) -> Option<Arc<IpSet>>;

    /// Which way a packet takes; tells the type of an address, too. `None` when it is not
    /// known: that there is no route is [`RouteKind::None`](crate::RouteKind::None).
    fn route(&self, query: &RouteQuery) -> Option<RouteFound>;

    /// The first address of an interface, which REDIRECT at prerouting sends to.
    fn first_address(&self, netns: NetnsId, ifindex: u32, ipv6: bool) -> Option<IpAddr>;

    /// Whether any socket of a namespace that could take a new connection has `IP_TRANSPARENT`;
    /// `None` when that is not known.
    fn has_transparent(&self, _netns: NetnsId) -> Option<bool> {
        None
    }

    /// Whether a packet that came in by a device came over a port of a bridge, and that is noted
    /// (br_netfilter); `None` when it is not known.
    fn over_bridge_port(&self, _packet: &crate::Packet, _ifindex: u32) -> Option<bool> {
        None
    }

    /// Takes so many steps from what the question has; `false` when they are used up: what
    /// becomes of the packets is [`Fate::Unknown`](crate::Fate::Unknown) then. A step is about
    /// what running one simple rule takes. Without a limit, rules that somebody wrote for
    /// that can keep the evaluator busy for very long: [`Limited`](crate::Limited) has one.
    fn spend(&self, _steps: usize) -> bool {
        true
    }
}
