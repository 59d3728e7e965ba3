//! Who connects: the senders that a namespace's devices and addresses tell of. One stands
//! for all of which nothing that is known is different.

use std::net::IpAddr;

use whereis_port_rules::Nic;
use whereis_port_rules::route::covers;

use super::send;
use crate::facts::Facts;
use whereis_port_model::{
    Address, Gap, GapKind, Impact, Link, LinkKind, LocalRoute, NetnsId, Pid, RouteKind, RouteQuery,
    Vantage,
};

/// How many addresses of one namespace are tried.
const ADDRESSES: usize = 64;
/// With how many networks of containers each is tried with the others' addresses of this node.
const NETWORKS: usize = 4;
/// At how many devices a link-local address is tried.
const LINK_LOCAL: usize = 4;
/// From behind how many devices with containers of its own each is tried.
const DEVICES: usize = 32;

pub(crate) use whereis_port_rules::PacketSender;

/// Somebody who is not of this node.
const ELSEWHERE: (PacketSender, Option<NetnsId>) = (PacketSender::Elsewhere, None);

/// Somebody who connects.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sender {
    /// Where that is, seen from the namespace: loopback and node are a process of it.
    pub(crate) from: Vantage,
    /// The device that the packet comes in by, and whose it is; `None` for a process.
    pub(crate) by: Option<(Nic, PacketSender)>,
    /// The namespace of who is behind that device, where it is one of this node's.
    pub(crate) of: Option<NetnsId>,
    /// Which process, where one is meant.
    pub(crate) process: Option<Pid>,
    /// The address of its namespace that it connects from, where one is meant.
    pub(crate) address: Option<IpAddr>,
}

impl Sender {
    /// A process of the namespace.
    pub(crate) fn process(from: Vantage) -> Self {
        Self { from, by: None, of: None, process: None, address: None }
    }

    /// Somebody behind a device of the namespace.
    pub(crate) fn behind(
        from: Vantage,
        link: &Link,
        (source, of): (PacketSender, Option<NetnsId>),
    ) -> Self {
        Self { from, by: Some((nic(link), source)), of, process: None, address: None }
    }

    /// The namespace in which a process stands for it, of a connection to or through `netns`.
    pub(crate) fn source(&self, netns: NetnsId) -> Option<NetnsId> {
        if self.by.is_some() { self.of } else { Some(netns) }
    }
}

fn nic(link: &Link) -> Nic {
    Nic { index: link.index, name: link.name.as_str().into() }
}

/// Each sender with each address of a namespace that it may use.
pub(crate) fn to_every_address(facts: &Facts<'_>, netns: NetnsId) -> Vec<(Sender, IpAddr)> {
    let addresses = facts.addresses_of(netns);
    let links = facts.links_of(netns);
    let mut usable: Vec<&Address> = addresses.iter().filter(|a| is_usable(a, &links)).collect();
    if usable.len() > ADDRESSES {
        let left = usable.len() - ADDRESSES;
        usable.truncate(ADDRESSES);
        facts.gap(Gap::new(
            Impact::Port,
            GapKind::PacketRules,
            format!("{left} more addresses of network namespace {netns} were not tried"),
        ));
    }
    let mut all: Vec<(Sender, IpAddr)> = Vec::new();
    for ipv6 in [false, true] {
        let address = send::loopback(ipv6);
        if addresses.iter().any(|a| a.address == address) {
            all.push((Sender::process(Vantage::Loopback), address));
        }
    }
    for one in &usable {
        all.push((Sender::process(Vantage::Node), one.address));
        if let Some(sender) = from_outside(facts, &links, one) {
            all.push((sender, one.address));
        }
    }
    for one in &usable {
        let near = inner_devices(facts, netns, &links, one.address);
        all.extend(near.into_iter().map(|sender| (sender, one.address)));
    }
    all
}

/// Each sender with the link-local IPv6 address of a device that has no other one of that version
/// for it: nobody uses it who has a choice, but whoever is on the link may.
pub(crate) fn to_link_local(facts: &Facts<'_>, netns: NetnsId) -> Vec<(Sender, IpAddr)> {
    let links = facts.links_of(netns);
    let mut all: Vec<(Sender, IpAddr)> = Vec::new();
    for one in link_local_only(facts, netns).iter().take(LINK_LOCAL) {
        if all.is_empty() {
            all.push((Sender::process(Vantage::Node), one.address));
        }
        let outside = from_outside(facts, &links, one);
        all.extend(outside.map(|sender| (sender, one.address)));
        let near = inner_devices(facts, netns, &links, one.address);
        all.extend(near.into_iter().map(|sender| (sender, one.address)));
    }
    all
}

/// The link-local IPv6 addresses of devices that lead to others and have no other IPv6 address:
/// those that lead to other machines first.
pub(crate) fn link_local_only(facts: &Facts<'_>, netns: NetnsId) -> Vec<Address> {
    let addresses = facts.addresses_of(netns);
    let links = facts.links_of(netns);
    let is_alone = |one: &Address| {
        let other =
            |a: &Address| a.ifindex == one.ifindex && a.address.is_ipv6() && is_usable(a, &links);
        !addresses.iter().any(other)
    };
    let link = |one: &Address| links.iter().find(|l| l.index == one.ifindex);
    let leads = |one: &Address| {
        let leads = |l: &Link| {
            l.up && l.master.is_none() && (leads_outside(l, &links) || has_inner(l, &links))
        };
        link(one).is_some_and(leads)
    };
    let is_it =
        |a: &&Address| a.address.is_ipv6() && is_link_local(a.address) && leads(a) && is_alone(a);
    let mut all: Vec<Address> = addresses.iter().filter(is_it).cloned().collect();
    let outside = |a: &Address| link(a).is_some_and(|l| leads_outside(l, &links));
    all.sort_by_key(|a| (!outside(a), a.ifindex));
    // One of a device stands for its others.
    all.dedup_by_key(|a| a.ifindex);
    all
}

/// Who may connect to an address, from a namespace or from elsewhere through it.
pub(crate) fn to_one_address(facts: &Facts<'_>, netns: NetnsId, address: IpAddr) -> Vec<Sender> {
    if address.is_loopback() {
        return vec![Sender::process(Vantage::Loopback)];
    }
    let addresses = facts.addresses_of(netns);
    let links = facts.links_of(netns);
    let mut all = vec![Sender::process(Vantage::Node)];
    match addresses.iter().find(|a| a.address == address) {
        Some(own) => {
            all.extend(from_outside(facts, &links, own).or_else(|| by_route(facts, netns, address)))
        }
        // A service's, for one, which others send to this node.
        None => all.extend(passing_through(facts, netns, address)),
    }
    all.extend(inner_devices(facts, netns, &links, address));
    all
}

/// Another machine, which uses an address: by the device that has it.
fn from_outside(facts: &Facts<'_>, links: &[Link], address: &Address) -> Option<Sender> {
    let has = links.iter().find(|l| l.index == address.ifindex)?;
    let by = match has.kind {
        _ if leads_outside(has, links) => has,
        // Services' addresses are often put on a device that nothing comes in by.
        _ if leads_in(has) => return None,
        _ => way_in(facts, has.netns, links, address.address)?,
    };
    Some(Sender::behind(Vantage::Outside, by, ELSEWHERE))
}

/// The device by which other machines reach a namespace: that of the default route, else
/// any that leads outside.
pub(crate) fn way_in<'l>(
    facts: &Facts<'_>,
    netns: NetnsId,
    links: &'l [Link],
    address: IpAddr,
) -> Option<&'l Link> {
    let routes = facts.take(facts.world.routes(&[netns]));
    let default =
        routes.iter().find(|r| r.prefix == 0 && r.destination.is_ipv6() == address.is_ipv6());
    let by_default = links.iter().find(|l| default.is_some_and(|r| r.ifindex == Some(l.index)));
    let others = || links.iter().filter(|l| l.up && leads_in(l));
    by_default.or_else(|| others().find(|l| leads_outside(l, links))).or_else(|| others().next())
}

/// From outside to an address of a network that other machines are not on, as that of a bridge of
/// containers: whoever has a route over this node gets there, for a host takes what is for any of
/// its addresses by every device.
pub(crate) fn by_route(facts: &Facts<'_>, netns: NetnsId, address: IpAddr) -> Option<Sender> {
    let links = facts.links_of(netns);
    let addresses = facts.addresses_of(netns);
    let own = addresses.iter().find(|a| a.address == address)?;
    let has = links.iter().find(|l| l.index == own.ifindex)?;
    if !is_usable(own, &links) || !leads_in(has) || from_outside(facts, &links, own).is_some() {
        return None;
    }
    passing_through(facts, netns, address)
}

/// From outside to an address that is not the namespace's own, by its default way in.
pub(crate) fn passing_through(
    facts: &Facts<'_>,
    netns: NetnsId,
    address: IpAddr,
) -> Option<Sender> {
    let links = facts.links_of(netns);
    let by = way_in(facts, netns, &links, address).filter(|link| leads_outside(link, &links))?;
    Some(Sender::behind(Vantage::Outside, by, ELSEWHERE))
}

/// Somebody on the network of an address, who needs no router.
pub(crate) fn beside(facts: &Facts<'_>, link: &Link, address: IpAddr) -> Sender {
    let addresses = facts.addresses_of(link.netns);
    let of = addresses.iter().find(|a| a.address == address);
    let source =
        of.map_or(ELSEWHERE, |of| neighbour(facts, (link.netns, link.peer_netns), of, address));
    Sender::behind(Vantage::Containers, link, source)
}

/// Those behind the devices of a namespace that lead to containers, but for one of them: they
/// send through it.
pub(crate) fn behind_others(
    facts: &Facts<'_>,
    netns: NetnsId,
    address: IpAddr,
    but: NetnsId,
) -> Vec<Sender> {
    let links = facts.links_of(netns);
    let of = |sender: &Sender| {
        let index = sender.by.as_ref().map(|(nic, _)| nic.index);
        links.iter().find(|link| Some(link.index) == index).and_then(|link| link.peer_netns)
    };
    let mut all = inner_devices(facts, netns, &links, address);
    all.retain(|sender| of(sender) != Some(but));
    all
}

/// Those behind each bridge and device pair of a namespace who may use one of its addresses:
/// of a bridge that has addresses of that version itself, only if it has this one or it is
/// one for others as well.
fn inner_devices(
    facts: &Facts<'_>,
    netns: NetnsId,
    links: &[Link],
    address: IpAddr,
) -> Vec<Sender> {
    let addresses = facts.addresses_of(netns);
    let of = |link: &Link| {
        // Nobody gets further with a link-local address.
        let theirs = addresses.iter().filter(|a| a.ifindex == link.index && is_usable(a, links));
        theirs.filter(|a| a.address.is_ipv6() == address.is_ipv6()).cloned().collect::<Vec<_>>()
    };
    let has = addresses.iter().find(|a| a.address == address);
    let on_inner =
        has.and_then(|a| links.iter().find(|l| l.index == a.ifindex && has_inner(l, links)));
    let mut all = Vec::new();
    let mut left = 0;
    let inner = |l: &&Link| l.up && l.master.is_none() && has_inner(l, links);
    // What a pair leads to is a network like any other, and no bridge of containers' own.
    let on_bridge = on_inner.is_some_and(|own| own.kind == LinkKind::Bridge);
    let many = on_bridge && links.iter().filter(inner).count() > NETWORKS;
    // What is asked of each of them is read for those that are tried, and at once: to tell whose
    // other end a device is, every namespace of the node is opened.
    let peers: Vec<NetnsId> =
        links.iter().filter(inner).filter_map(|link| link.peer_netns).take(DEVICES).collect();
    if peers.len() > 1 {
        let _known = (facts.take(facts.world.links(&peers)), facts.world.addresses(&peers));
    }
    for link in links.iter().filter(inner) {
        // Of many networks each asks for its own address only; of a few, for what it has a route
        // to.
        let is_other = on_inner.is_some_and(|own| own.index != link.index);
        let is_elsewhere = has.is_some_and(|a| a.ifindex != link.index);
        if is_other && many || is_elsewhere && is_link_local(address) {
            continue;
        }
        if all.len() >= DEVICES {
            left += 1;
            continue;
        }
        let of = of(link);
        let near = of.iter().find(|a| a.address == address).or(of.first());
        let source = match (near, link.peer_netns) {
            (Some(near), _) => neighbour(facts, (netns, None), near, address),
            (None, Some(peer)) => resident(facts, peer, address.is_ipv6()),
            (None, None) if has.is_some_and(|a| a.ifindex == link.index) => ELSEWHERE,
            // A bridge without an address routes nothing.
            (None, None) => continue,
        };
        if is_other && source.1.is_some_and(|of| !has_route(facts, of, address)) {
            continue;
        }
        all.push(Sender::behind(Vantage::Containers, link, source));
    }
    if left > 0 {
        facts.gap(Gap::new(
            Impact::Reach,
            GapKind::PacketRules,
            format!("from behind {left} more devices of containers nothing was tried"),
        ));
    }
    all
}

/// The local route by which a namespace takes packets to an address that no interface of it
/// has, if the kernel routes them so.
pub(crate) fn local_route(
    facts: &Facts<'_>,
    netns: NetnsId,
    address: IpAddr,
) -> Option<LocalRoute> {
    let address = address.to_canonical();
    let on_interface = || facts.addresses_of(netns).iter().any(|a| a.address == address);
    if address.is_loopback() || address.is_unspecified() || on_interface() {
        return None;
    }
    let takes = |l: &&LocalRoute| covers(l.destination, l.prefix, address);
    let all = facts.take(facts.world.local_routes(&[netns]));
    let route = all.iter().filter(takes).max_by_key(|l| l.prefix)?.clone();
    let query = RouteQuery::new(netns, address, 0);
    let found = crate::route::decide(facts, &query)?;
    (found.kind == RouteKind::Local).then_some(route)
}

/// The addresses of a namespace that somebody may use from elsewhere.
pub(crate) fn usable_addresses(facts: &Facts<'_>, netns: NetnsId) -> Vec<IpAddr> {
    let links = facts.links_of(netns);
    let addresses = facts.addresses_of(netns);
    addresses.iter().filter(|a| is_usable(a, &links)).map(|a| a.address).collect()
}

/// Whether an address is one of a link alone.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

/// Addresses worth trying: not loopback's, not link-local ones, and up. Those of
/// kube-proxy's dummy interface are of services, not of the node.
fn is_usable(address: &Address, links: &[Link]) -> bool {
    let local = address.address.is_loopback() || is_link_local(address.address);
    let link = links.iter().find(|l| l.index == address.ifindex);
    !local && link.is_none_or(|l| l.up && l.name != "kube-ipvs0")
}

/// Whether packets come in by an interface at all.
fn leads_in(link: &Link) -> bool {
    !matches!(&link.kind, LinkKind::Loopback)
        && !matches!(&link.kind, LinkKind::Other(kind) if kind == "dummy")
}

/// The bridge that the other end of a device pair is a port of, in the namespace where that is.
pub(crate) fn bridge_behind(facts: &Facts<'_>, link: &Link) -> Option<Link> {
    let theirs = facts.links_of(link.peer_netns?);
    let port = theirs.iter().find(|l| Some(l.index) == link.peer)?;
    let is_it = |l: &&Link| Some(l.index) == port.master && l.kind == LinkKind::Bridge;
    theirs.iter().find(is_it).cloned()
}

/// Whether somebody who is not of this node may be behind an interface: it is no bridge, or
/// one with such a port, and no end of a pair whose other end is known.
pub(crate) fn leads_outside(link: &Link, links: &[Link]) -> bool {
    match link.kind {
        LinkKind::Bridge => links
            .iter()
            .filter(|port| port.master == Some(link.index) && port.index != link.index)
            .any(|port| leads_in(port) && !is_pair(port, links) && !is_tap(port)),
        _ => leads_in(link) && !is_pair(link, links),
    }
}

/// The card by which other machines get to an interface of a namespace without its host: the
/// interface itself, or the one below a macvlan or ipvlan.
pub(crate) fn card_below(facts: &Facts<'_>, link: &Link) -> Option<Link> {
    if link.kind == LinkKind::Device {
        return Some(link.clone());
    }
    let below = is_upper(link).then_some(link.peer?)?;
    let links = facts.links_of(link.peer_netns.unwrap_or(link.netns));
    let lower = links.iter().find(|l| l.index == below && leads_outside(l, &links))?;
    Some(lower.clone())
}

/// Whether an interface has addresses of its own on the network of the one below.
pub(crate) fn is_upper(link: &Link) -> bool {
    is_ipvlan(link) || is_macvlan(link)
}

/// Whether it has a hardware address of its own there.
pub(super) fn is_macvlan(link: &Link) -> bool {
    matches!(&link.kind, LinkKind::Other(kind) if kind == "macvlan")
}

/// Whether it shares the hardware address as well.
pub(crate) fn is_ipvlan(link: &Link) -> bool {
    matches!(&link.kind, LinkKind::Other(kind) if kind == "ipvlan")
}

/// Whether only containers of this node are behind an interface.
pub(super) fn is_inner(link: &Link, links: &[Link]) -> bool {
    has_inner(link, links) && !leads_outside(link, links)
}

/// Whether containers of this node may be behind an interface. Behind a pair of which the
/// other end is here, and no bridge's, is nobody.
fn has_inner(link: &Link, links: &[Link]) -> bool {
    let ends_here =
        |other: &Link| link.peer_netns.is_none() && joined(link, other) && other.master.is_none();
    link.kind == LinkKind::Bridge || is_pair(link, links) && !links.iter().any(ends_here)
}

/// One end of a pair whose other end is in a namespace that is known, or in this one.
fn is_pair(link: &Link, links: &[Link]) -> bool {
    let here = |other: &Link| joined(link, other);
    link.kind == LinkKind::Veth && (link.peer_netns.is_some() || links.iter().any(here))
}

/// Two ends of one pair.
fn joined(link: &Link, other: &Link) -> bool {
    Some(other.index) == link.peer && other.peer == Some(link.index)
}

/// A virtual machine's.
fn is_tap(link: &Link) -> bool {
    matches!(&link.kind, LinkKind::Other(kind) if kind == "tun")
}

/// How many on a network are looked at.
const NEIGHBOURS: usize = 8;

/// Some container on the network of an address, and its namespace: one that has a route to where
/// it connects, and at whose devices nothing is attached, which would be its own matter. Not the
/// namespace of the bridge, which is at it without a port.
fn neighbour(
    facts: &Facts<'_>,
    (netns, bridge): (NetnsId, Option<NetnsId>),
    of: &Address,
    to: IpAddr,
) -> (PacketSender, Option<NetnsId>) {
    let all = facts.all_addresses();
    let near = |a: &&Address| {
        a.netns != netns
            && Some(a.netns) != bridge
            && a.address != of.address
            && covers(of.address, of.prefix, a.address)
    };
    let weight = |a: &Address| {
        let is_bare = facts.take(facts.world.attached(&[a.netns])).is_empty()
            && crate::route::policies(facts, a.netns, to.is_ipv6()).is_empty();
        (has_route(facts, a.netns, to), is_bare)
    };
    let mut best: Option<(&Address, (bool, bool))> = None;
    // Private ranges repeat: who is joined to it comes before who has such an address.
    let is_joined = |a: &Address| joins(facts, a.netns, bridge.unwrap_or(netns));
    let (joined, others): (Vec<_>, Vec<_>) = all.iter().filter(near).partition(|a| is_joined(a));
    for one in joined.into_iter().chain(others).take(NEIGHBOURS) {
        let this = weight(one);
        if best.is_none_or(|(_, known)| known < this) {
            best = Some((one, this));
        }
        if this == (true, true) {
            break;
        }
    }
    best.map_or(ELSEWHERE, |(a, _)| (PacketSender::Address(a.address), Some(a.netns)))
}

/// Whether a device pair leads from one namespace into another.
fn joins(facts: &Facts<'_>, netns: NetnsId, to: NetnsId) -> bool {
    facts.links_of(netns).iter().any(|link| link.peer_netns == Some(to))
}

/// The others on the network of a device, as far as they are seen and joined to its namespace: all
/// but one.
pub(super) fn others(
    facts: &Facts<'_>,
    (netns, by): (NetnsId, &Nic),
    (own, of): (IpAddr, NetnsId),
) -> Vec<(PacketSender, NetnsId)> {
    let addresses = facts.addresses_of(netns);
    let network =
        addresses.iter().find(|a| a.ifindex == by.index && covers(a.address, a.prefix, own));
    let Some(network) = network else { return Vec::new() };
    let all = facts.all_addresses();
    let others = all.iter().filter(|a| {
        a.netns != netns
            && a.netns != of
            && addresses.iter().all(|own| own.address != a.address)
            && covers(network.address, network.prefix, a.address)
            && joins(facts, a.netns, netns)
    });
    others.map(|a| (PacketSender::Address(a.address), a.netns)).collect()
}

/// Somebody else on the network of a device, where one is seen that has a route to where it
/// connects.
pub(super) fn another(
    facts: &Facts<'_>,
    link: (NetnsId, &Nic),
    who: (IpAddr, NetnsId),
    to: IpAddr,
) -> Option<(PacketSender, Option<NetnsId>)> {
    let all = others(facts, link, who).into_iter().take(NEIGHBOURS);
    let mut fit = all.filter(|(_, of)| has_route(facts, *of, to));
    fit.next().map(|(source, of)| (source, Some(of)))
}

/// Whether a namespace may have a route to an address: surely not only where all that tells of
/// it was read.
pub(super) fn has_route(facts: &Facts<'_>, netns: NetnsId, to: IpAddr) -> bool {
    let read = facts.world.routes(&[netns]);
    if !read.gaps.is_empty() || whereis_port_rules::route::lookup(read.value.iter(), to).is_some() {
        return true;
    }
    let query = RouteQuery::new(netns, to, 0);
    let found = crate::route::decide(facts, &query);
    found.is_none_or(|route| matches!(route.kind, RouteKind::Unicast | RouteKind::Local))
}

/// Somebody in a namespace.
fn resident(facts: &Facts<'_>, netns: NetnsId, ipv6: bool) -> (PacketSender, Option<NetnsId>) {
    let addresses = facts.addresses_of(netns);
    let links = facts.links_of(netns);
    let fits = |a: &&Address| a.address.is_ipv6() == ipv6 && is_usable(a, &links);
    let source = addresses
        .iter()
        .find(fits)
        .map_or(PacketSender::Elsewhere, |a| PacketSender::Address(a.address));
    (source, Some(netns))
}
