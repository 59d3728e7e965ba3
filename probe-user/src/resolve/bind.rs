//! Whether a socket could be bound to a port, and what keeps it from that.

use super::conflict;
use super::facts::Facts;
use crate::model::{BindAsk, LinkKind, NetnsId, PortSocket, Proto};

/// Whether a socket keeps another one from being bound.
pub(super) fn conflict(facts: &Facts<'_>, asked: &BindAsk, other: &PortSocket) -> Option<bool> {
    // TCP counts the ports of each VRF apart, unless a setting joins them.
    if asked.proto == Proto::Tcp
        && vrf(facts, asked.netns, asked.ifindex) != vrf(facts, asked.netns, other.socket.ifindex)
    {
        return conflict::conflict(asked, other).filter(|conflicts| !conflicts);
    }
    conflict::conflict(asked, other)
}

/// The VRF that a device is, or belongs to.
fn vrf(facts: &Facts<'_>, netns: NetnsId, ifindex: Option<u32>) -> Option<u32> {
    let index = ifindex?;
    let links = facts.links_of(netns);
    let is_vrf = |index: u32| {
        let kind = |kind: &LinkKind| matches!(kind, LinkKind::Other(kind) if kind == "vrf");
        links.iter().any(|link| link.index == index && kind(&link.kind))
    };
    let master = links.iter().find(|link| link.index == index).and_then(|link| link.master);
    [Some(index), master].into_iter().flatten().find(|index| is_vrf(*index))
}
