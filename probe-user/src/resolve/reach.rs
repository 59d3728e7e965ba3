//! From where a port can be reached: what bind addresses, published ports and routes
//! tell, checked against what becomes of a connection from there (see [`tried`]).

mod shut;
mod tried;

use std::net::{IpAddr, SocketAddr};

use super::facts::{Facts, container_name};
use super::few::few;
use super::path;
use super::place;
use super::published;
use super::ruled::Tried;
use crate::model::{
    Address, Advice, Cause, Command, Container, End, Ending, FixKind, Hop, HopKind, Link, LinkKind,
    NetnsId, Path, Port, Proto, Published, Reach, Socket, SocketState, Vantage,
};
use shut::Shut;

/// How many addresses of another namespace are tried.
const TRIED: usize = 64;
/// How many addresses are named for one vantage.
const MAX_ADDRESSES: usize = 4;

/// The reachability of everything that was found. With several ports or
/// protocols each is told apart: what holds for TCP need not hold for UDP.
pub(super) fn of(facts: &Facts<'_>, paths: &mut [Path], entries: &[Tried]) -> Vec<Reach> {
    let mut tries = tried::Tries::new(facts, entries);
    let mut ports: Vec<(Option<Port>, Proto)> = Vec::new();
    for first in paths.iter().filter_map(|path| path.hops.first()) {
        let port = (first.endpoint.port, first.proto);
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    let mut reach = Vec::new();
    for (port, proto) in &ports {
        let is_it = |p: &&Path| {
            p.hops.first().is_some_and(|h| (h.endpoint.port, h.proto) == (*port, *proto))
        };
        let group: Vec<Path> = paths.iter().filter(is_it).cloned().collect();
        let mut found = of_port(facts, &group);
        if let Some(port) = port {
            tries.check(&mut found, *proto, port.0);
            tries.add_taken(&mut found, *proto, port.0);
            tries.add_refused(&mut found, *proto, port.0);
        }
        settle(&mut found);
        for mut entry in found {
            if let (true, Some(port)) = (ports.len() > 1, port) {
                entry.why.of = Some((*port, *proto));
            }
            reach.push(entry);
        }
    }
    reach.sort_by_key(|r: &Reach| (r.from, r.reachable != Some(true)));
    tries.mark(paths);
    // What takes connections comes before what only holds the port.
    let order = facts.all_netns();
    let place = |path: &Path| {
        let netns = path.hops.first()?.netns.as_ref()?.id;
        order.iter().position(|id| *id == netns)
    };
    let ruled = |path: &Path| {
        path.hops.first().is_some_and(|h| matches!(h.kind, HopKind::Dnat | HopKind::Service))
    };
    if paths.iter().any(ruled) {
        paths.sort_by_key(|path| (place(path), path.from.is_empty() && !ruled(path)));
    }
    reach
}

/// The reachability of one port of one protocol.
fn of_port(facts: &Facts<'_>, paths: &[Path]) -> Vec<Reach> {
    let mut reach: Vec<Reach> = Vec::new();
    let mut shut = Shut::new(paths);
    for path in paths {
        let Some(first) = path.hops.first() else { continue };
        let found = match &first.socket {
            Some(socket) if socket.netns == facts.host.own_netns => here(facts, socket, path),
            Some(socket) => away(facts, socket, (&path.end, inner(path)), &mut shut),
            // No socket: rules or a balancer take it.
            None if matches!(first.kind, HopKind::Dnat | HopKind::Service) => {
                let Some(netns) = first.netns.as_ref().map(|n| n.id) else { continue };
                if netns == facts.host.own_netns {
                    // Every address was tried: what that showed is added later.
                    continue;
                }
                let theirs = facts.addresses_of(netns);
                let at = first.endpoint.address.filter(|a| !a.is_unspecified());
                if let Some(address) = at.filter(|at| theirs.iter().all(|a| a.address != *at)) {
                    let name = facts.netns_ref(netns);
                    let why = Cause::NotOnInterface { address, name: name.to_string() };
                    reach.push(entry(Vantage::Node, None, Some(false), why));
                    continue;
                }
                let (socket, mut end) = stand_in(facts, netns, first);
                end.service.clone_from(&path.end.service);
                end.pod.clone_from(&path.end.pod);
                away(facts, &socket, (&end, inner(path)), &mut shut)
            }
            // Nothing but a runtime's word: what it publishes is the way in.
            None if first.kind == HopKind::Forward => {
                let of = |c: &Container| {
                    let ours = |p: &&Published| Some(p.container_port) == first.endpoint.port;
                    let ports = c.ports.iter().filter(|p| p.host_port.is_some()).filter(ours);
                    ports.flat_map(|p| published_reach(facts, c, p)).collect::<Vec<_>>()
                };
                path.end.containers.iter().flat_map(of).collect()
            }
            None => Vec::new(),
        };
        for entry in found {
            // Two sockets that answer at one address (IPv4 beside dual-stack)
            // make one way in; the first is the one the kernel prefers.
            let same = |r: &Reach| r.address.is_some() && r.address == entry.address;
            let known = |r: &Reach| {
                *r == entry || same(r) && (r.from, r.reachable) == (entry.from, entry.reachable)
            };
            if !reach.iter().any(known) {
                reach.push(entry);
            }
        }
    }
    reach.extend(shut.finish());
    reach
}

/// A "no" that holds for one bind says nothing once another bind makes it a
/// "yes" or a "perhaps" (docker-proxy binds IPv4 and IPv6 apart).
fn settle(reach: &mut Vec<Reach>) {
    let open: Vec<Vantage> =
        reach.iter().filter(|r| r.reachable != Some(false)).map(|r| r.from).collect();
    reach.retain(|r| r.reachable != Some(false) || r.address.is_some() || !open.contains(&r.from));
    // What is said of each address says more than what is said of a place.
    let said: Vec<Vantage> = reach
        .iter()
        .filter(|r| r.reachable == Some(false) && r.address.is_some())
        .map(|r| r.from)
        .collect();
    let general =
        |r: &Reach| r.reachable == Some(false) && r.address.is_none() && said.contains(&r.from);
    let fixes: Vec<(Vantage, Option<Advice>)> =
        reach.iter().filter(|r| general(r)).map(|r| (r.from, r.fix.clone())).collect();
    reach.retain(|r| !general(r));
    for (from, fix) in fixes {
        let without =
            |r: &&mut Reach| r.from == from && r.reachable == Some(false) && r.fix.is_none();
        reach.iter_mut().filter(without).for_each(|r| r.fix.clone_from(&fix));
    }
}

fn entry(
    from: Vantage,
    address: Option<SocketAddr>,
    reachable: Option<bool>,
    cause: Cause,
) -> Reach {
    Reach { from, address, reachable, why: cause.into(), conditions: Vec::new(), fix: None }
}

fn fix(mut reach: Reach, fix: Advice) -> Reach {
    reach.fix = Some(fix);
    reach
}

fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

/// A listener in the namespace the tool runs in.
fn here(facts: &Facts<'_>, socket: &Socket, path: &Path) -> Vec<Reach> {
    let port = socket.port.0;
    let end = &path.end;
    let bound = socket.effective_address();
    if end.ending == Ending::Nothing {
        return dead(socket, end);
    }
    if bound.is_loopback() {
        let only = Cause::BoundElsewhere(bound);
        let hint = shut::loopback_fix(facts, socket, end);
        let addresses = facts.addresses_of(socket.netns);
        let loopback = if addresses.iter().any(|a| a.address.is_loopback()) {
            entry(Vantage::Loopback, Some(at(bound, port)), Some(true), only.clone())
        } else {
            loopback_down(bound, port)
        };
        return vec![
            loopback,
            entry(Vantage::Node, None, Some(false), only.clone()),
            fix(entry(Vantage::Outside, None, Some(false), only.clone()), hint),
            entry(Vantage::Containers, None, Some(false), only),
        ];
    }
    let links = facts.links_of(socket.netns);
    let all = facts.addresses_of(socket.netns);
    let mut own = all.to_vec();
    own.retain(|a| usable(a.address) && socket.match_rank(a.address).is_some());
    // Bound to a device (`SO_BINDTODEVICE`): nothing else brings packets to it.
    own.retain(|a| socket.ifindex.is_none_or(|index| index == a.ifindex));
    own.retain(|a| links.iter().all(|l| l.index != a.ifindex || l.up));
    let is_loopback =
        |index| links.iter().any(|l| l.index == index && l.kind == LinkKind::Loopback);
    let mut reach = Vec::new();
    if let Some(index) = socket.ifindex.filter(|index| !is_loopback(*index)) {
        let name = links.iter().find(|l| l.index == index).map_or("?", |l| l.name.as_str());
        let why = Cause::BoundToInterface(name.to_owned());
        reach.push(entry(Vantage::Loopback, None, Some(false), why));
    } else if socket.is_wildcard() {
        let loopback: IpAddr = match bound {
            IpAddr::V6(_) if socket.takes_ipv4() == Some(false) => {
                std::net::Ipv6Addr::LOCALHOST.into()
            }
            _ => crate::model::LOOPBACK4,
        };
        let why = Cause::BoundToAll { versions_known: socket.takes_ipv4().is_some() };
        if all.iter().any(|a| a.address.is_loopback()) {
            let at = Some(at(loopback, port));
            reach.push(entry(Vantage::Loopback, at, Some(true), why.clone()));
            // A dual-stack bind takes both.
            let other = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
            if bound.is_ipv6() && loopback != other && all.iter().any(|a| a.address == other) {
                let at = Some(SocketAddr::new(other, port));
                reach.push(entry(Vantage::Loopback, at, Some(true), why));
            }
        } else {
            reach.push(loopback_down(loopback, port));
        }
    } else {
        let no = entry(Vantage::Loopback, None, Some(false), Cause::BoundElsewhere(bound));
        reach.push(fix(
            no,
            Advice::from(format!("connect to {}", at(bound, port))).of(FixKind::ConnectElsewhere),
        ));
    }
    if own.is_empty() {
        reach.push(entry(Vantage::Outside, None, Some(false), no_address(socket, &all)));
        return reach;
    }
    let why = if socket.is_wildcard() {
        Cause::BoundToAll { versions_known: true }
    } else {
        Cause::BoundTo(bound)
    };
    for address in own.iter().take(MAX_ADDRESSES) {
        reach.push(entry(Vantage::Node, Some(at(address.address, port)), Some(true), why.clone()));
    }
    // A bridge's or device pair's address is for the containers behind it.
    let (inner, outer): (Vec<&Address>, Vec<&Address>) =
        own.iter().partition(|a| is_inner(a, &links));
    for address in outer.iter().take(MAX_ADDRESSES) {
        let at = at(address.address, port);
        reach.push(entry(Vantage::Outside, Some(at), Some(true), why.clone()));
    }
    if outer.is_empty() {
        reach.push(entry(Vantage::Outside, None, None, Cause::InnerAddressesOnly));
    }
    if let Some(address) = inner.first().or(outer.first()) {
        reach.push(entry(Vantage::Containers, Some(at(address.address, port)), Some(true), why));
    }
    reach
}

/// An address for the containers behind it: a bridge's or a device pair's.
fn is_inner(address: &Address, links: &[Link]) -> bool {
    links
        .iter()
        .any(|l| l.index == address.ifindex && matches!(l.kind, LinkKind::Bridge | LinkKind::Veth))
}

fn loopback_down(address: IpAddr, port: u16) -> Reach {
    let why = Cause::LoopbackDown;
    let up = Advice::from(Command::new("ip link set lo up")).of(FixKind::SetLinkUp);
    fix(entry(Vantage::Loopback, Some(at(address, port)), Some(false), why), up)
}

/// Why no address but loopback's leads to the socket.
fn no_address(socket: &Socket, all: &[Address]) -> Cause {
    if let Some(index) = socket.ifindex {
        return Cause::InterfaceWithoutAddress(index);
    }
    let any = all.iter().any(|a| usable(a.address));
    Cause::NoOtherAddress { ipv6: any.then_some(socket.address.is_ipv6()) }
}

/// A published port behind which nothing is.
fn dead(socket: &Socket, end: &End) -> Vec<Reach> {
    let bound = match socket.effective_address() {
        any if any.is_unspecified() && any.is_ipv6() => std::net::Ipv6Addr::LOCALHOST.into(),
        any if any.is_unspecified() => crate::model::LOOPBACK4,
        one => one,
    };
    let why = Cause::NothingBehind;
    let hint = shut::dead_fix(socket, end);
    let at = Some(at(bound, socket.port.0));
    let mut reach = vec![fix(entry(Vantage::Loopback, at, Some(false), why.clone()), hint.clone())];
    if !bound.is_loopback() || socket.is_wildcard() {
        reach.push(fix(entry(Vantage::Outside, None, Some(false), why), hint));
    }
    reach
}

/// Addresses worth naming: not loopback, and not link-local, which need a zone.
fn usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local(),
    }
}

/// The port at the end of a path: a pod's own, where rules lead to it.
fn inner(path: &Path) -> Option<Port> {
    path.hops.last().and_then(|hop| hop.endpoint.port)
}

/// A listener in another namespace, with what is at its end and the port there.
fn away(
    facts: &Facts<'_>,
    socket: &Socket,
    (end, inner): (&End, Option<Port>),
    shut: &mut Shut,
) -> Vec<Reach> {
    let port = socket.port.0;
    let place = facts.netns_ref(socket.netns);
    let name = place.to_string();
    // A pod's port is not its node's, though both are in the node container.
    let publisher = end.containers.iter().rev().find(|c| {
        c.ports.iter().any(|p| is_published(p, socket)) && lives_in(facts, c, socket.netns)
    });
    let mut reach = Vec::new();
    if let Some(container) = publisher {
        for published in container.ports.iter().filter(|p| is_published(p, socket)) {
            reach.extend(published_reach(facts, container, published));
        }
    }
    let open = |from| reach.iter().any(|r| r.from == from && r.reachable == Some(true));
    if socket.is_loopback() {
        let all = [Vantage::Loopback, Vantage::Node, Vantage::Outside, Vantage::Containers];
        shut.loopback(socket, &name, all.into_iter().filter(|from| !open(*from)));
        return reach;
    }
    let direct = direct(facts, socket);
    let best = direct.first().map(|a| at(*a, port));
    if !reach.iter().any(|r| r.from == Vantage::Loopback) {
        shut.unpublished(socket, &name, (end, inner), best);
    }
    for address in &direct {
        let why = Cause::Routed(name.clone());
        reach.push(entry(Vantage::Node, Some(at(*address, port)), Some(true), why));
    }
    if direct.is_empty() {
        reach.push(entry(Vantage::Node, None, None, Cause::NoLink(name)));
    }
    let networks: Vec<&str> =
        end.containers.iter().rev().flat_map(|c| &c.networks).map(|n| n.name.as_str()).collect();
    if let (Some(best), false) = (best, networks.is_empty()) {
        let why = Cause::SharedNetwork(few(networks));
        reach.push(entry(Vantage::Containers, Some(best), Some(true), why));
    }
    reach
}

/// What takes a port of a namespace without a socket, as if it were one of the
/// container that the namespace belongs to.
fn stand_in(facts: &Facts<'_>, netns: NetnsId, first: &Hop) -> (Socket, End) {
    let address = first.endpoint.address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
    let socket = Socket {
        netns,
        proto: first.proto,
        state: match first.proto {
            Proto::Tcp => SocketState::Listen,
            Proto::Udp => SocketState::Unconnected,
        },
        address,
        port: first.endpoint.port.unwrap_or(Port(0)),
        v6only: address.is_ipv6().then_some(true),
        inode: 0,
        uid: 0,
        ifindex: None,
        cgroup_id: None,
        queue: None,
    };
    let containers = facts.containers_of(netns).to_vec();
    let cluster = containers.iter().rev().find_map(Container::cluster);
    (socket, End { containers, cluster, ..End::default() })
}

/// Whether a namespace is a container's own: its first process lives there, or
/// it has the container's address.
fn lives_in(facts: &Facts<'_>, container: &Container, netns: NetnsId) -> bool {
    published::home(facts, container).map_or_else(
        || {
            let addresses = facts.addresses_of(netns);
            let theirs = container.networks.iter().flat_map(|n| &n.addresses);
            theirs.into_iter().any(|ip| addresses.iter().any(|a| a.address == *ip))
        },
        |first| first == netns,
    )
}

fn is_published(published: &Published, socket: &Socket) -> bool {
    published.host_port.is_some()
        && published.container_port == socket.port
        && published.proto == socket.proto
}

/// The other way in: the port that the container publishes, if it is there.
fn published_reach(facts: &Facts<'_>, container: &Container, published: &Published) -> Vec<Reach> {
    let Some(host_port) = published.host_port else { return Vec::new() };
    let ip = published.host_ip.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
    let says = |elsewhere| Cause::Published {
        container: container_name(container),
        at: at(ip, host_port.0),
        inner: published.container_port,
        proto: published.proto,
        elsewhere,
    };
    let what = says(false);
    let target = if ip.is_unspecified() {
        if ip.is_ipv6() { std::net::Ipv6Addr::LOCALHOST.into() } else { crate::model::LOOPBACK4 }
    } else {
        ip
    };
    let own = facts.host.own_netns;
    let there = place::at_address(facts, own, target, host_port, published.proto);
    if there.is_empty() {
        // Rules may take it all the same: that is found by trying.
        return vec![entry(Vantage::Loopback, Some(at(target, host_port.0)), None, what)];
    }
    if ip.is_loopback() {
        let only = says(true);
        let hint = shut::recreate(container, published);
        return vec![
            entry(Vantage::Loopback, Some(at(ip, host_port.0)), Some(true), what),
            fix(entry(Vantage::Outside, None, Some(false), only), hint),
        ];
    }
    let mut reach = vec![entry(
        Vantage::Loopback,
        Some(at(target, host_port.0)),
        Some(ip.is_unspecified()),
        what.clone(),
    )];
    let mut own_addresses: Vec<Address> = facts.addresses_of(own).to_vec();
    let links = facts.links_of(own);
    own_addresses.retain(|a| {
        usable(a.address)
            && !is_inner(a, &links)
            && (ip == a.address || ip.is_unspecified() && ip.is_ipv4() == a.address.is_ipv4())
    });
    for address in own_addresses.iter().take(MAX_ADDRESSES) {
        reach.push(entry(
            Vantage::Outside,
            Some(at(address.address, host_port.0)),
            Some(true),
            what.clone(),
        ));
    }
    reach
}

/// The addresses of the socket's namespace that a process of the own one gets to.
fn direct(facts: &Facts<'_>, socket: &Socket) -> Vec<IpAddr> {
    let own = facts.host.own_netns;
    let theirs = facts.addresses_of(socket.netns);
    let gets_there = |address: &IpAddr| {
        let to = path::To { proto: socket.proto, address: *address, port: socket.port.0 };
        let arrivals = path::from_process(facts, own, to, &mut Vec::new());
        arrivals.iter().any(|arrival| {
            let first = arrival.hops.first().and_then(|hop| hop.netns.as_ref());
            first.is_some_and(|netns| netns.id == socket.netns)
        })
    };
    theirs
        .iter()
        .map(|a| a.address)
        .filter(|a| usable(*a) && socket.match_rank(*a).is_some())
        .take(TRIED)
        .filter(gets_there)
        .take(MAX_ADDRESSES)
        .collect()
}
