//! What listens in another namespace: by a port that is published, by a route to its own
//! address, or by the network that it shares.

use std::net::IpAddr;

use super::outcome::{self, AcceptedBy};
use super::shut::{self, Shut};
use super::tries::Tries;
use super::{ADDRESSES, at, entry, fix, usable};
use crate::facts::{Facts, container_name};
use crate::few::few;
use crate::path::{self, PacketDestination, Sender};
use crate::published;
use whereis_port_model::{
    Cause, Condition, ConditionCode, Container, End, Hop, HopKind, NetnsId, Path, Port, Proto,
    Published, Reach, Socket, SocketState, Vantage,
};
use whereis_port_rules::PacketSender;

/// How many addresses of another namespace are tried.
const TRIED: usize = 64;
/// How many of them are named for one place.
const NAMED: usize = 4;

/// From where a path is reached that begins in another namespace than the own one.
pub(super) fn of(
    facts: &Facts<'_>,
    tries: &mut Tries<'_, '_>,
    path: &Path,
    shut: &mut Shut,
) -> Vec<Reach> {
    let Some(first) = path.hops.first() else { return Vec::new() };
    match &first.socket {
        Some(socket) if socket.netns == facts.host.own_netns => Vec::new(),
        Some(socket) => inside(facts, tries, socket, (&path.end, inner(path)), shut),
        // No socket: rules or a balancer take it.
        None if matches!(first.kind, HopKind::Dnat | HopKind::Service) => {
            let Some(netns) = first.netns.as_ref().map(|n| n.id) else { return Vec::new() };
            if netns == facts.host.own_netns {
                return Vec::new();
            }
            let theirs = facts.addresses_of(netns);
            let at = first.endpoint.address.filter(|a| !a.is_unspecified());
            if let Some(address) = at.filter(|at| theirs.iter().all(|a| a.address != *at)) {
                let name = facts.netns_ref(netns);
                let why = Cause::NotOnInterface { address, name: name.to_string() };
                return vec![entry(Vantage::Node, None, Some(false), why)];
            }
            let (socket, mut end) = stand_in(facts, netns, first);
            end.service.clone_from(&path.end.service);
            end.pod.clone_from(&path.end.pod);
            inside(facts, tries, &socket, (&end, inner(path)), shut)
        }
        // Nothing but a runtime's word: what it publishes is the way in.
        None if first.kind == HopKind::Forward => {
            let home = first.netns.as_ref().map(|netns| netns.id);
            let mut reach = Vec::new();
            for container in &path.end.containers {
                let ours = |p: &&Published| Some(p.container_port) == first.endpoint.port;
                let ports = container.ports.iter().filter(|p| p.host_port.is_some());
                for published in ports.filter(ours) {
                    reach.extend(of_published(tries, container, published, home));
                }
            }
            reach
        }
        None => Vec::new(),
    }
}

/// The port at the end of a path: a pod's own, where rules lead to it.
fn inner(path: &Path) -> Option<Port> {
    path.hops.last().and_then(|hop| hop.endpoint.port)
}

/// A listener in another namespace, with what is at its end and the port there.
fn inside(
    facts: &Facts<'_>,
    tries: &mut Tries<'_, '_>,
    socket: &Socket,
    (end, inner): (&End, Option<Port>),
    shut: &mut Shut,
) -> Vec<Reach> {
    let name = facts.netns_ref(socket.netns).to_string();
    // A pod's port is not its node's, though both are in the node container.
    let publisher = end.containers.iter().rev().find(|c| {
        c.ports.iter().any(|p| is_published(p, socket)) && lives_in(facts, c, socket.netns)
    });
    let mut reach = Vec::new();
    if let Some(container) = publisher {
        for published in container.ports.iter().filter(|p| is_published(p, socket)) {
            let home = Some(socket.netns);
            reach.extend(of_published(tries, container, published, home));
        }
    }
    let open = |reach: &[Reach], from| {
        reach.iter().any(|r: &Reach| r.from == from && r.reachable == Some(true))
    };
    if socket.is_loopback() {
        let all = [Vantage::Loopback, Vantage::Node, Vantage::Outside, Vantage::Containers];
        shut.loopback(socket, &name, all.into_iter().filter(|from| !open(&reach, *from)));
        return reach;
    }
    let direct = direct(facts, tries, socket, &name);
    let uplink = by_uplink(facts, socket, &name);
    let best = direct.iter().find(|r| r.reachable == Some(true)).and_then(|r| r.address);
    if !reach.iter().any(|r| r.from == Vantage::Loopback) {
        let mut from = vec![Vantage::Loopback, Vantage::Outside];
        from.retain(|from| *from != Vantage::Outside || uplink.is_empty());
        shut.unpublished(socket, &name, (end, inner), best, from);
    }
    if direct.is_empty() {
        shut.unlinked(&name);
    }
    let all = [Vantage::Node, Vantage::Outside, Vantage::Containers];
    reach.extend(by_address(facts, tries, (socket, end), (direct, uplink), &all));
    reach
}

/// What gets to a listener of another namespace at its own addresses. `direct` is what processes
/// of the own namespace get, `uplink` what other machines do without this node.
fn by_address(
    facts: &Facts<'_>,
    tries: &mut Tries<'_, '_>,
    (socket, end): (&Socket, &End),
    (direct, uplink): (Vec<Reach>, Vec<(path::TracedConnection, Reach)>),
    wanted: &[Vantage],
) -> Vec<Reach> {
    let name = facts.netns_ref(socket.netns).to_string();
    let at = |address| PacketDestination { proto: socket.proto, address, port: socket.port.0 };
    let best = direct.iter().find(|r| r.reachable == Some(true)).and_then(|r| r.address);
    let addresses: Vec<IpAddr> = direct.iter().filter_map(|r| Some(r.address?.ip())).collect();
    let mut reach = Vec::new();
    if wanted.contains(&Vantage::Node) {
        reach.extend(direct);
    }
    if wanted.contains(&Vantage::Outside) {
        for (tried, one) in uplink {
            tries.keep(tried);
            reach.push(one);
        }
        for address in &addresses {
            reach.extend(by_route(facts, socket.netns, at(*address), &name));
        }
    }
    if let Some(address) = best.map(|best| best.ip()).or(addresses.first().copied())
        && wanted.contains(&Vantage::Containers)
    {
        reach.extend(by_network(facts, tries, socket.netns, at(address), end));
    }
    reach
}

/// The same of a path that begins in another namespace, and of nothing that publishes it: that is
/// told of the port that is published.
pub(super) fn exposed(
    facts: &Facts<'_>,
    tries: &mut Tries<'_, '_>,
    path: &Path,
    wanted: &[Vantage],
) -> Vec<Reach> {
    let Some(first) = path.hops.first() else { return Vec::new() };
    let Some(netns) = first.netns.as_ref().map(|place| place.id) else { return Vec::new() };
    let (socket, end) = match &first.socket {
        Some(socket) => (socket.clone(), path.end.clone()),
        None if matches!(first.kind, HopKind::Dnat | HopKind::Service) => {
            let theirs = facts.addresses_of(netns);
            let at = first.endpoint.address.filter(|a| !a.is_unspecified());
            if at.is_some_and(|at| theirs.iter().all(|a| a.address != at)) {
                return Vec::new();
            }
            stand_in(facts, netns, first)
        }
        None => return Vec::new(),
    };
    if netns == facts.host.own_netns || socket.is_loopback() {
        return Vec::new();
    }
    let name = facts.netns_ref(netns).to_string();
    let direct = direct(facts, tries, &socket, &name);
    let uplink = match wanted.contains(&Vantage::Outside) {
        true => by_uplink(facts, &socket, &name),
        false => Vec::new(),
    };
    by_address(facts, tries, (&socket, &end), (direct, uplink), wanted)
}

/// A process of the own namespace, to the addresses of another one that it gets to.
fn direct(facts: &Facts<'_>, tries: &mut Tries<'_, '_>, socket: &Socket, name: &str) -> Vec<Reach> {
    let own = facts.host.own_netns;
    let theirs = facts.addresses_of(socket.netns);
    let mut found = Vec::new();
    // One that no interface has may be taken by a route.
    let bound = socket.effective_address();
    let fits = |a: &IpAddr| (usable(*a) || *a == bound) && socket.match_rank(*a).is_some();
    let by_route = (!theirs.iter().any(|a| a.address == bound)).then_some(bound);
    let all = theirs.iter().map(|a| a.address).chain(by_route);
    for address in all.filter(fits).take(TRIED) {
        let to = PacketDestination { proto: socket.proto, address, port: socket.port.0 };
        let tried = path::attempt(facts, own, Sender::process(Vantage::Node), to);
        // Where no link leads there, what was tried is somebody else with that address.
        if tried.arrivals.iter().any(|arrival| comes_to(arrival, socket.netns)) {
            found.push(outcome::of(facts, &tried, Some(Cause::Routed(name.to_owned()))).reach);
            tries.keep(tried);
        }
        if found.len() == NAMED {
            break;
        }
    }
    found
}

/// Whether a connection gets into a namespace, whatever becomes of it there.
fn comes_to(arrival: &path::Arrival, netns: NetnsId) -> bool {
    let is_it = |hop: &Hop| hop.netns.as_ref().is_some_and(|place| place.id == netns);
    arrival.hops.iter().any(is_it) || arrival.entered.contains(&netns)
}

/// Another machine, which sends what is for that address to this one: exposed though nothing
/// publishes it.
fn by_route(facts: &Facts<'_>, netns: NetnsId, to: PacketDestination, name: &str) -> Option<Reach> {
    let own = facts.host.own_netns;
    if path::forwards(facts, own, to.address.is_ipv6()) != Some(true) {
        return None;
    }
    let sender = path::passing_through(facts, own, to.address)?;
    let device = sender.by.as_ref().map(|(nic, _)| nic.name.to_string());
    let tried = path::attempt(facts, own, sender, to);
    if !tried.arrivals.iter().any(|arrival| comes_to(arrival, netns)) {
        return None;
    }
    let by = device.unwrap_or_default();
    let named = Cause::ForwardedHere { name: name.to_owned(), by };
    let mut reach = outcome::of(facts, &tried, Some(named)).reach;
    // That it is shut by this way, too, is no more than that nothing publishes it.
    if reach.reachable == Some(false) {
        return None;
    }
    let text = format!("it has a route to {} over this node", to.address);
    reach.conditions.insert(0, Condition { code: ConditionCode::Route, text });
    Some(reach)
}

/// Another machine, to the addresses that a namespace has on the network of a card, by macvlan or
/// ipvlan, or where the card is its own: nothing publishes them, and nothing needs to.
fn by_uplink(
    facts: &Facts<'_>,
    socket: &Socket,
    name: &str,
) -> Vec<(path::TracedConnection, Reach)> {
    let links = facts.links_of(socket.netns);
    let mut all = Vec::new();
    for address in facts.addresses_of(socket.netns).iter() {
        let fits = usable(address.address) && socket.match_rank(address.address).is_some();
        let link = links.iter().find(|l| fits && l.up && l.index == address.ifindex);
        let Some((link, lower)) = link.and_then(|l| Some((l, path::card_below(facts, l)?))) else {
            continue;
        };
        let to = PacketDestination {
            proto: socket.proto,
            address: address.address,
            port: socket.port.0,
        };
        let sender = Sender::behind(Vantage::Outside, link, (PacketSender::Elsewhere, None));
        let tried = path::attempt(facts, socket.netns, sender, to);
        let named = Cause::OnNetworkOf { name: name.to_owned(), device: lower.name.clone() };
        let mut reach = outcome::of(facts, &tried, Some(named)).reach;
        // In its mode L3 nobody is told whose the address is.
        if path::is_ipvlan(link) {
            let text = format!("it has a route to {} by this node, or the mode is L2", to.address);
            reach.conditions.insert(0, Condition { code: ConditionCode::Route, text });
        }
        all.push((tried, reach));
        if all.len() == NAMED {
            break;
        }
    }
    all
}

/// Somebody on the same bridge; or, where a pair leads to this node alone, behind another of
/// its devices.
fn by_network(
    facts: &Facts<'_>,
    tries: &mut Tries<'_, '_>,
    netns: NetnsId,
    to: PacketDestination,
    end: &End,
) -> Vec<Reach> {
    let own = facts.host.own_netns;
    let links = facts.links_of(netns);
    let addresses = facts.addresses_of(netns);
    let has = addresses.iter().find(|a| a.address == to.address);
    let link = has.and_then(|a| links.iter().find(|l| l.index == a.ifindex));
    let Some((link, peer)) = link.and_then(|link| Some((link, link.peer_netns?))) else {
        return Vec::new();
    };
    let bridge = path::bridge_behind(facts, link);
    let networks: Vec<&str> =
        end.containers.iter().rev().flat_map(|c| &c.networks).map(|n| n.name.as_str()).collect();
    let (place, senders, named) = match bridge {
        Some(_) if !networks.is_empty() => (
            netns,
            vec![path::beside(facts, link, to.address)],
            Cause::SharedNetwork(few(networks)),
        ),
        Some(bridge) => {
            let named = Cause::SharedBridge(bridge.name.clone());
            (netns, vec![path::beside(facts, link, to.address)], named)
        }
        None if peer == own => {
            let mut others = path::behind_others(facts, own, to.address, netns);
            others.truncate(ADDRESSES);
            (own, others, Cause::Routed(facts.netns_ref(netns).to_string()))
        }
        None => return Vec::new(),
    };
    let mut outcomes: Vec<outcome::ConnectionOutcome> = senders
        .into_iter()
        .map(|sender| {
            let tried = path::attempt(facts, place, sender, to);
            let outcome = outcome::of(facts, &tried, Some(named.clone()));
            tries.keep(tried);
            outcome
        })
        .collect();
    super::tries::tell_apart(facts, &mut outcomes);
    outcomes.into_iter().map(|outcome| outcome.reach).collect()
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

/// The other way in: the port that the container publishes, tried from this host and from
/// outside. `home` is the namespace that it has to lead to, where that is known.
fn of_published(
    tries: &mut Tries<'_, '_>,
    container: &Container,
    published: &Published,
    home: Option<NetnsId>,
) -> Vec<Reach> {
    let Some(host_port) = published.host_port else { return Vec::new() };
    let ip = published.host_ip.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
    let says = |elsewhere| Cause::Published {
        container: container_name(container),
        at: at(ip, host_port.0),
        inner: published.container_port,
        proto: published.proto,
        elsewhere,
    };
    let entries = tries.of(published.proto, host_port.0, true);
    let facts = tries.facts;
    // What takes it there may be a Service's rule, or another container's.
    let is_other = |arrival: &path::Arrival| {
        let mut targets = arrival.hops.iter().skip(1).filter(|hop| hop.kind == HopKind::Dnat);
        let has = |netns: NetnsId, address: Option<IpAddr>| {
            facts.addresses_of(netns).iter().any(|one| Some(one.address) == address)
        };
        home.is_some_and(|home| {
            !comes_to(arrival, home) && targets.any(|hop| !has(home, hop.endpoint.address))
        })
    };
    // Nobody on loopback uses another address.
    let near =
        if ip.is_unspecified() || ip.is_loopback() { Vantage::Loopback } else { Vantage::Node };
    let mut reach = Vec::new();
    for from in [near, Vantage::Outside] {
        let mut no: Option<Reach> = None;
        let mut open = 0;
        let mut untaken = true;
        for tried in entries.iter().filter(|tried| tried.sender.from == from) {
            let address = tried.to.address;
            // What another container publishes at another address is its own.
            if !ip.is_unspecified() && ip != address {
                continue;
            }
            let outcome = outcome::of(tries.facts, tried, Some(says(false)));
            let mut one = outcome.reach;
            untaken &= outcome.taken == AcceptedBy::Not;
            if !tried.arrivals.is_empty() && tried.arrivals.iter().all(is_other) {
                continue;
            }
            match one.reachable {
                Some(false) if outcome.taken == AcceptedBy::Not => {}
                Some(false) => no = no.or(Some(one)),
                _ if home.is_some_and(|home| !tried.arrivals.iter().any(|a| comes_to(a, home))) => {
                }
                _ if open < NAMED => {
                    open += 1;
                    if one.reachable == Some(true) {
                        one.why.cause = says(false);
                    }
                    reach.push(one);
                }
                _ => {}
            }
        }
        if open > 0 {
            continue;
        }
        match no {
            Some(no) => reach.push(no),
            None if from == Vantage::Outside && ip.is_loopback() => {
                let only = entry(from, None, Some(false), says(true));
                reach.push(fix(only, shut::recreate(container, published)));
            }
            // The runtime says so, and nothing that can be seen does it.
            None if from == near && untaken => {
                let target = match ip {
                    any if any.is_unspecified() => path::loopback(any.is_ipv6()),
                    one => one,
                };
                let address = Some(at(target, host_port.0));
                reach.push(entry(from, address, None, says(false)));
            }
            None => {}
        }
    }
    reach
}
