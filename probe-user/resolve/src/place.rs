//! Where a packet to an address arrives: which namespace, and which socket there.

use std::net::IpAddr;

use super::facts::Facts;
use whereis_port_model::{NetnsId, Port, PortRange, Proto, Socket, SocketFilter};

/// The namespaces that a packet from `from` to `address` can arrive in: the own
/// one if it has the address, else those that have it and that a route and
/// device pairs lead to. Several only where several are as near.
pub(super) fn locate(facts: &Facts<'_>, from: NetnsId, address: IpAddr) -> Vec<NetnsId> {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() {
        return vec![from];
    }
    let own = facts.addresses_of(from);
    if own.iter().any(|a| a.address == address) {
        return vec![from];
    }
    let all = facts.all_addresses();
    let of_address = all.iter().filter(|a| a.address == address);
    let mut places: Vec<NetnsId> = of_address.map(|a| a.netns).collect();
    places.sort_unstable();
    places.dedup();
    if places.is_empty() {
        return places;
    }
    let routes = facts.take(facts.world.routes(&[from]));
    if whereis_port_rules::route::lookup(routes.iter(), address).is_none() {
        return Vec::new();
    }
    joined(facts, from, &places)
}

/// How many namespaces a packet may pass on its way inside the node: host, node
/// container, pod.
const MAX_DISTANCE: usize = 3;

/// Those of `places` that device pairs join to `from`, the nearest ones. Having
/// the address is not enough: private ranges repeat, in nested engines above all.
fn joined(facts: &Facts<'_>, from: NetnsId, places: &[NetnsId]) -> Vec<NetnsId> {
    let mut passed = vec![from];
    let mut edge = vec![from];
    for _ in 0..MAX_DISTANCE {
        let links = facts.take(facts.world.links(&edge));
        // Nothing gets through a device that is down.
        let up = links.iter().filter(|link| link.up);
        let mut next: Vec<NetnsId> = up.filter_map(|link| link.peer_netns).collect();
        next.sort_unstable();
        next.dedup();
        next.retain(|id| !passed.contains(id));
        let near: Vec<NetnsId> = next.iter().copied().filter(|id| places.contains(id)).collect();
        if !near.is_empty() || next.is_empty() {
            return near;
        }
        passed.extend(&next);
        edge = next;
    }
    Vec::new()
}

/// The sockets of a namespace that get a packet to this address: those with the
/// most specific bind, several when they share the port (`SO_REUSEPORT`).
pub(super) fn at_address(
    facts: &Facts<'_>,
    place: NetnsId,
    address: IpAddr,
    port: Port,
    proto: Proto,
) -> Vec<Socket> {
    let filter = SocketFilter { proto: Some(proto), ports: Some(PortRange::one(port)) };
    best_match(facts.take(facts.world.sockets(&[place], &filter)).to_vec(), address)
}

/// The same, of a packet that came in by a device: a socket that is bound to one
/// (`SO_BINDTODEVICE`) takes nothing from others, and before those that are bound to none.
pub(super) fn by_device(
    facts: &Facts<'_>,
    place: NetnsId,
    address: IpAddr,
    (proto, port): (Proto, Port),
    device: u32,
) -> Vec<Socket> {
    let filter = SocketFilter { proto: Some(proto), ports: Some(PortRange::one(port)) };
    let mut sockets = facts.take(facts.world.sockets(&[place], &filter)).to_vec();
    if sockets.iter().any(|s| s.ifindex.is_some()) {
        // A VRF stands for the devices in it.
        let links = facts.links_of(place);
        let vrf = links.iter().find(|l| l.index == device).and_then(|l| l.master);
        let takes = |s: &Socket| s.ifindex.is_none_or(|of| of == device || Some(of) == vrf);
        sockets.retain(takes);
    }
    let mut best = best_match(sockets, address);
    if best.iter().any(|s| s.ifindex.is_some()) {
        best.retain(|s| s.ifindex.is_some());
    }
    best
}

/// Keeps the sockets that the kernel prefers for `address`.
pub(super) fn best_match(mut sockets: Vec<Socket>, address: IpAddr) -> Vec<Socket> {
    let best = sockets.iter().filter_map(|s| s.match_rank(address)).max();
    sockets.retain(|s| best.is_some() && s.match_rank(address) == best);
    sockets
}
