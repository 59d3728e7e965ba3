//! From where a port can be reached. Each statement is what became of a connection that was
//! tried on the facts: from each sender that they tell of, to each address it may use.

mod anyip;
mod away;
mod outcome;
mod shut;
mod tries;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::facts::Facts;
use super::path::{self, PacketDestination, TracedConnection};
use super::ruled::{self, Tried};
use outcome::{AcceptedBy, ConnectionOutcome};
use shut::Shut;
use tries::Tries;
use whereis_port_model::{
    Address, Advice, Cause, CauseCode, Command, Condition, ConditionCode, FixKind, Hop, HopKind,
    LOOPBACK4, Link, LinkKind, NetnsId, Path, Port, PortRange, Proto, Query, Reach, Scope, Socket,
    SocketFilter, Vantage,
};

/// How many addresses are named of which the same is true.
const ADDRESSES: usize = 8;

/// The reachability of everything that was found. With several ports or
/// protocols each is told apart: what holds for TCP need not hold for UDP.
pub(super) fn of(
    facts: &Facts<'_>,
    query: &Query,
    paths: &mut [Path],
    tried: &[Tried],
) -> Vec<Reach> {
    let mut tries = Tries::new(facts, tried);
    // Of a pod or Service it is told who gets to it, not to others that have the port, too.
    if query.subject.is_some() {
        tries.only_to(paths);
    }
    let own = facts.host.own_netns;
    let asked = match &query.scope {
        Scope::Address(asked) if is_address_of(facts, own, asked.to_canonical()) => {
            Some(asked.to_canonical())
        }
        _ => None,
    };
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
        if let (Some(port), Some(asked)) = (port, asked) {
            tries.add(*proto, port.0, &[asked]);
        }
        for mut entry in of_port(facts, &mut tries, &group, *port, *proto) {
            if let (true, Some(port)) = (ports.len() > 1, port) {
                entry.why.of = Some((*port, *proto));
            }
            reach.push(entry);
        }
    }
    if let Some(asked) = asked {
        only_asked(facts, asked, &mut reach);
    }
    // There has to be somewhere else to connect to.
    let is_near = |r: &Reach| matches!(r.from, Vantage::Loopback | Vantage::Node);
    if !reach.iter().any(|r| is_near(r) && r.reachable == Some(true)) {
        let leads_nowhere = |fix: &Advice| {
            fix.kind() == FixKind::ConnectElsewhere && fix.commands().next().is_none()
        };
        for one in reach.iter_mut().filter(|r| is_near(r)) {
            one.fix.take_if(|fix| leads_nowhere(fix));
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

/// The reachability of one port of the own namespace, by connections of everybody who is to be
/// tried, and of nobody else. `paths` begin with what has the port there.
pub(super) fn of_own(
    facts: &Facts<'_>,
    paths: &[Path],
    entries: Vec<TracedConnection>,
    (port, proto): (Port, Proto),
) -> Vec<Reach> {
    let mut tries = Tries::whole(facts, (proto, port.0), entries);
    let mut reach = here(facts, &mut tries, paths, port, proto);
    let place = facts.netns_ref(facts.host.own_netns);
    reach.iter_mut().for_each(|one| one.netns = Some(place.clone()));
    reach
}

/// The reachability of what is in another namespace at its own addresses, whoever publishes it.
pub(super) fn of_other(facts: &Facts<'_>, path: &Path, wanted: &[Vantage]) -> Vec<Reach> {
    let mut tries = Tries::new(facts, &[]);
    let mut reach = away::exposed(facts, &mut tries, path, wanted);
    let place = path.hops.first().and_then(|hop| hop.netns.clone());
    reach.iter_mut().for_each(|one| one.netns.clone_from(&place));
    reach
}

/// Of a question about an address of the own namespace: not what others of its addresses lead
/// to, which may be somebody else's.
fn only_asked(facts: &Facts<'_>, asked: IpAddr, reach: &mut Vec<Reach>) {
    let own = facts.host.own_netns;
    let is_other = |r: &Reach| match r.address {
        Some(address) => address.ip() != asked && is_address_of(facts, own, address.ip()),
        // Nobody else means this loopback.
        None => asked.is_loopback() && r.reachable.is_none(),
    };
    reach.retain(|r| !is_other(r));
}

fn is_address_of(facts: &Facts<'_>, netns: NetnsId, address: IpAddr) -> bool {
    address.is_loopback() || facts.addresses_of(netns).iter().any(|one| one.address == address)
}

/// What became of the connections that one sender made: where something takes them, or, where
/// nothing does, what was tried. `asked` tells whether these addresses were asked for.
pub(super) fn of_sender(
    facts: &Facts<'_>,
    entries: &[TracedConnection],
    asked: bool,
) -> Vec<Reach> {
    let tried = entries.iter().map(|one| {
        let mut outcome = outcome::of(facts, one, None);
        outcome.of_one_client(one);
        (one, outcome)
    });
    let mut outcomes: Vec<(&TracedConnection, ConnectionOutcome)> = tried.collect();
    let port = |entry: &TracedConnection| (Port(entry.to.port), entry.to.proto);
    if !asked {
        let is_extra = |(_, outcome): &(&TracedConnection, ConnectionOutcome)| {
            tries::link_local(outcome).is_some()
        };
        let (extra, others): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(is_extra);
        outcomes = others;
        let more = extra.into_iter().filter(|(one, outcome)| {
            let same = outcomes.iter().filter(|(other, _)| port(other) == port(one));
            tries::tells_more(outcome, same.map(|(_, other)| other))
        });
        let more: Vec<_> = more.collect();
        outcomes.extend(more);
        // Of many addresses those count at which something takes it, or stops it on its way; else
        // those that the sender has a route to.
        let no_route = |o: &ConnectionOutcome| o.reach.why.cause.code() == CauseCode::NoRoute;
        let weight = |o: &ConnectionOutcome| match o.taken {
            AcceptedBy::Somehow if no_route(o) => 0,
            AcceptedBy::Not => 1,
            AcceptedBy::Somehow => 2,
        };
        let most = outcomes.iter().map(|(_, outcome)| weight(outcome)).max();
        outcomes.retain(|(_, outcome)| Some(weight(outcome)) == most);
    }
    let several = outcomes.iter().any(|(one, _)| port(one) != port(outcomes[0].0));
    let mut reach: Vec<Reach> = Vec::new();
    for (entry, outcome) in outcomes {
        let mut one = outcome.reach;
        if outcome.taken == AcceptedBy::Not {
            one.why = nobody(facts, &holders(facts, entry).iter().collect::<Vec<_>>()).into();
        }
        one.netns = Some(facts.netns_ref(entry.netns));
        one.why.of = several.then(|| port(entry));
        let like = |r: &&Reach| (r.reachable, &r.why) == (one.reachable, &one.why);
        if reach.iter().filter(like).count() < ADDRESSES {
            reach.push(one);
        }
    }
    reach.sort_by_key(|r| r.reachable != Some(true));
    reach
}

/// What holds the port where a connection goes to, and does not take it.
fn holders(facts: &Facts<'_>, entry: &TracedConnection) -> Vec<Socket> {
    let PacketDestination { proto, address, port } = entry.to;
    let mut places: Vec<NetnsId> =
        facts.all_addresses().iter().filter(|a| a.address == address).map(|a| a.netns).collect();
    if address.is_loopback() || places.contains(&entry.netns) {
        places = vec![entry.netns];
    }
    let filter = SocketFilter { proto: Some(proto), ports: Some(PortRange::one(Port(port))) };
    match places.as_slice() {
        [one] => facts.take(facts.world.sockets(&[*one], &filter)).to_vec(),
        _ => Vec::new(),
    }
}

/// The reachability of one port of one protocol: at the addresses of the own namespace, and
/// inside of others.
fn of_port(
    facts: &Facts<'_>,
    tries: &mut Tries<'_, '_>,
    group: &[Path],
    port: Option<Port>,
    proto: Proto,
) -> Vec<Reach> {
    let mut own = port.map_or_else(Vec::new, |port| here(facts, tries, group, port, proto));
    let place = facts.netns_ref(facts.host.own_netns);
    own.iter_mut().for_each(|reach| reach.netns = Some(place.clone()));
    let mut shut = Shut::new(group);
    let mut others: Vec<Reach> = Vec::new();
    for path in group {
        let place = path.hops.first().and_then(|hop| hop.netns.clone());
        for mut entry in away::of(facts, tries, path, &mut shut) {
            entry.netns.clone_from(&place);
            let same = |r: &Reach| r.address.is_some() && r.address == entry.address;
            let known = |r: &Reach| {
                r.tells_the_same(&entry)
                    || same(r) && (r.from, r.reachable) == (entry.from, entry.reachable)
            };
            if !own.iter().chain(&others).any(known) {
                others.push(entry);
            }
        }
    }
    others.extend(shut.finish(facts));
    settle(&own, &mut others);
    own.into_iter().chain(others).collect()
}

/// That another namespace is shut to a place says nothing where something is open to it. What
/// needs a route that few have is not open to a place.
fn settle(own: &[Reach], others: &mut Vec<Reach>) {
    let is_open = |r: &&Reach| r.reachable != Some(false) && !r.needs_route();
    let open: Vec<Vantage> = others.iter().filter(is_open).map(|r| r.from).collect();
    let of_place = |r: &Reach| r.reachable == Some(false) && r.address.is_none();
    // The own namespace's port is what was asked for: that others have one of that number,
    // too, which is shut, changes nothing.
    let is_own = |from| own.iter().any(|r: &Reach| r.from == from);
    others.retain(|r| !of_place(r) || !open.contains(&r.from) && !is_own(r.from));
    others.retain(|r| r.why.cause.code() != CauseCode::NoLink || !is_own(r.from));
    // What is said of each address says more than what is said of a place.
    let said: Vec<Vantage> = others
        .iter()
        .filter(|r| r.reachable == Some(false) && r.address.is_some())
        .map(|r| r.from)
        .collect();
    let general = |r: &Reach| of_place(r) && said.contains(&r.from);
    let fixes: Vec<(Vantage, Option<Advice>)> =
        others.iter().filter(|r| general(r)).map(|r| (r.from, r.fix.clone())).collect();
    others.retain(|r| !general(r));
    for (from, fix) in fixes {
        let without =
            |r: &&mut Reach| r.from == from && r.reachable == Some(false) && r.fix.is_none();
        others.iter_mut().filter(without).for_each(|r| r.fix.clone_from(&fix));
    }
}

fn entry(
    from: Vantage,
    address: Option<SocketAddr>,
    reachable: Option<bool>,
    cause: Cause,
) -> Reach {
    Reach {
        netns: None,
        from,
        by: Vec::new(),
        address,
        reachable,
        why: cause.into(),
        conditions: Vec::new(),
        fix: None,
        source: None,
        accepted: false,
        tried: None,
    }
}

fn fix(mut reach: Reach, fix: Advice) -> Reach {
    reach.fix = Some(fix);
    reach
}

fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

/// What holds or takes the port in the own namespace.
fn here(
    facts: &Facts<'_>,
    tries: &mut Tries<'_, '_>,
    group: &[Path],
    port: Port,
    proto: Proto,
) -> Vec<Reach> {
    let own = facts.host.own_netns;
    let is_own = |hop: &&Hop| hop.netns.as_ref().is_some_and(|netns| netns.id == own);
    let firsts: Vec<&Hop> =
        group.iter().filter_map(|path| path.hops.first()).filter(is_own).collect();
    let sockets: Vec<&Socket> = firsts.iter().filter_map(|hop| hop.socket.as_ref()).collect();
    // What is asked of one address is told of all that the port's own has.
    let everywhere = firsts.iter().any(|hop| {
        hop.socket.is_some() || hop.endpoint.address.is_none_or(|address| address.is_unspecified())
    });
    let by_route = anyip::addresses(facts, &sockets);
    tries.add(proto, port.0, &by_route);
    tries.add(proto, port.0, &bound_apart(facts, &sockets));
    let bound: Vec<IpAddr> = sockets.iter().map(|s| s.effective_address()).collect();
    tries.add_by_route(proto, port.0, &bound);
    let mut outcomes = tries.outcomes(proto, port.0, everywhere && !firsts.is_empty(), &sockets);
    without_other_versions(&firsts, &sockets, &mut outcomes);
    say_route(facts, (proto, port.0), &mut outcomes);
    by_route.iter().for_each(|address| anyip::name(facts, *address, port, &mut outcomes));
    let takes = |outcome: &ConnectionOutcome| outcome.taken != AcceptedBy::Not;
    if let Some(group) = of_group(facts, &sockets).filter(|_| !outcomes.iter().any(takes)) {
        let of = |from| entry(from, None, None, Cause::BoundToGroup(group));
        return [Vantage::Node, Vantage::Outside, Vantage::Containers].map(of).to_vec();
    }
    if sockets.is_empty() && !outcomes.iter().any(takes) {
        return Vec::new();
    }
    let mut reach = fold(outcomes, &sockets, |sockets| nobody(facts, sockets));
    if let Some(first) = sockets.first() {
        add_hints(facts, first, group, &mut reach);
        let is_ruled = |hop: &&Hop| {
            let is_open = hop.endpoint.address.is_none_or(|address| !address.is_loopback());
            matches!(hop.kind, HopKind::Dnat | HopKind::Service) && is_open
        };
        add_untried(facts, &sockets, firsts.iter().any(is_ruled), &mut reach);
    }
    reach
}

/// Leaves out that there is no route to addresses which no socket would take anything at.
fn without_other_versions(
    firsts: &[&Hop],
    sockets: &[&Socket],
    outcomes: &mut Vec<ConnectionOutcome>,
) {
    if sockets.is_empty() || sockets.len() < firsts.len() {
        return;
    }
    outcomes.retain(|outcome| {
        let is_no_route = outcome.reach.why.cause.code() == CauseCode::NoRoute;
        let takes = |at: SocketAddr| sockets.iter().any(|s| s.match_rank(at.ip()).is_some());
        !is_no_route || outcome.reach.address.is_none_or(takes)
    });
}

/// Says of other machines that connect to an address of a network that they are not on, or to a
/// cluster IP, that they need a route.
fn say_route(facts: &Facts<'_>, port: (Proto, u16), outcomes: &mut [ConnectionOutcome]) {
    let own = facts.host.own_netns;
    let mut cluster_ips = None;
    let is_outside = |o: &&mut ConnectionOutcome| o.reach.from == Vantage::Outside;
    for outcome in outcomes.iter_mut().filter(is_outside) {
        let Some(address) = outcome.reach.address.map(|address| address.ip()) else { continue };
        let is_routed = match is_address_of(facts, own, address) {
            true => path::by_route(facts, own, address).is_some(),
            false => cluster_ips
                .get_or_insert_with(|| ruled::cluster_ips(facts, own, port))
                .contains(&address),
        };
        if is_routed {
            let text = format!("it has a route to {address} over this node");
            let route = Condition { code: ConditionCode::Route, text };
            outcome.reach.conditions.insert(0, route);
        }
    }
}

/// The address of a group, or of all on a network, that all of these sockets are bound to.
fn of_group(facts: &Facts<'_>, sockets: &[&Socket]) -> Option<IpAddr> {
    let all = facts.addresses_of(sockets.first()?.netns);
    let is_broadcast = |to: std::net::Ipv4Addr| {
        let of = |a: &Address| match a.address {
            IpAddr::V4(own) if a.prefix < 31 => {
                let host = u32::MAX.checked_shr(a.prefix.into()).unwrap_or_default();
                to.to_bits() == own.to_bits() | host
            }
            _ => false,
        };
        to.is_broadcast() || all.iter().any(of)
    };
    let is_group = |a: IpAddr| match a {
        IpAddr::V4(a) => a.is_multicast() || is_broadcast(a),
        IpAddr::V6(a) => a.is_multicast(),
    };
    let mut bound = sockets.iter().map(|s| s.effective_address());
    let first = bound.next().filter(|a| is_group(*a))?;
    bound.all(is_group).then_some(first)
}

/// The addresses that sockets are bound to and that nobody uses who does not mean just them:
/// others of loopback's (127.0.0.53), link-local ones, those of an interface that is down.
fn bound_apart(facts: &Facts<'_>, sockets: &[&Socket]) -> Vec<IpAddr> {
    let own = facts.host.own_netns;
    let usual = path::usable_addresses(facts, own);
    let is_own = |a: &IpAddr| is_address_of(facts, own, *a);
    let is_usual = |a: &IpAddr| *a == path::loopback(a.is_ipv6()) || usual.contains(a);
    let bound = sockets.iter().map(|s| s.effective_address());
    bound.filter(|a| is_own(a) && !is_usual(a)).collect()
}

/// Why nothing takes a connection to a port that something else of the namespace holds.
fn nobody(facts: &Facts<'_>, sockets: &[&Socket]) -> Cause {
    let Some(first) = sockets.first() else { return Cause::NoRule };
    let bound = first.effective_address();
    let Some(index) = first.ifindex else {
        let has = bound.is_unspecified()
            || is_address_of(facts, first.netns, bound)
            || path::local_route(facts, first.netns, bound).is_some();
        return if has { Cause::BoundElsewhere(bound) } else { Cause::AddressGone(bound) };
    };
    let links = facts.links_of(first.netns);
    match links.iter().find(|l| l.index == index) {
        Some(link) => Cause::BoundToInterface(link.name.clone()),
        None => Cause::InterfaceGone(index),
    }
}

/// One statement for what is the same: each address that is open, or shut by something on
/// the way; and for a place where nothing takes it anywhere, the place.
fn fold(
    outcomes: Vec<ConnectionOutcome>,
    sockets: &[&Socket],
    nobody: impl Fn(&[&Socket]) -> Cause,
) -> Vec<Reach> {
    let mut reach: Vec<Reach> = Vec::new();
    let mut untaken: Vec<Reach> = Vec::new();
    for outcome in outcomes {
        let list = if outcome.taken == AcceptedBy::Not { &mut untaken } else { &mut reach };
        let one = outcome.reach;
        let like =
            |r: &&Reach| (r.from, r.reachable, &r.why) == (one.from, one.reachable, &one.why);
        if list.iter().filter(like).count() < ADDRESSES
            && !list.iter().any(|known| known.tells_the_same(&one))
        {
            list.push(one);
        }
    }
    for mut one in untaken {
        let other = reach.iter().find(|r| r.from == one.from && r.by != one.by);
        if reach.iter().any(|r| r.from == one.from) {
            // What others of that place get there is not what these do.
            if other.is_some_and(|r| r.address == one.address) {
                one.why = nobody(sockets).into();
                reach.push(one);
            }
            continue;
        }
        one.why = nobody(sockets).into();
        // Of a port that rules take from elsewhere each address is told. IPv6 beside IPv4 is
        // worth a word only where it would be used.
        if !sockets.is_empty() {
            one.address = None;
        } else if one.address.is_some_and(|address| address.is_ipv6()) {
            continue;
        }
        reach.push(one);
    }
    reach.dedup_by(|a, b| a.tells_the_same(b));
    reach
}

/// What would help where a socket is bound to something else.
fn add_hints(facts: &Facts<'_>, socket: &Socket, group: &[Path], reach: &mut [Reach]) {
    let bound = socket.effective_address();
    let of =
        |path: &&Path| path.hops.first().is_some_and(|hop| hop.socket.as_ref() == Some(socket));
    let end = group.iter().find(of).map(|path| &path.end);
    let elsewhere = |r: &&mut Reach| matches!(r.why.cause, Cause::BoundElsewhere(_));
    for one in reach.iter_mut().filter(elsewhere) {
        let advice = match one.from {
            Vantage::Outside if bound.is_loopback() => {
                end.map(|end| shut::loopback_fix(facts, socket, end))
            }
            Vantage::Loopback if !bound.is_loopback() && !bound.is_unspecified() => {
                let to = Advice::from(format!("connect to {}", at(bound, socket.port.0)));
                Some(to.of(FixKind::ConnectElsewhere))
            }
            _ => None,
        };
        one.fix = one.fix.take().or(advice);
    }
}

/// The places from which no connection could be tried, for want of an address. Of several sockets
/// the one counts that is open to most; rules, with `ruled`, may take what no socket would.
fn add_untried(facts: &Facts<'_>, sockets: &[&Socket], ruled: bool, reach: &mut Vec<Reach>) {
    let is_open = |socket: &&&Socket| !socket.effective_address().is_loopback();
    let Some(first) = sockets.iter().find(is_open).or(sockets.first()) else { return };
    let port = first.port.0;
    let bound = first.effective_address();
    let all = facts.addresses_of(first.netns);
    let missing = |reach: &[Reach], from| reach.iter().all(|r: &Reach| r.from != from);
    if missing(reach, Vantage::Loopback) {
        let address = match bound {
            loopback if loopback.is_loopback() => loopback,
            IpAddr::V6(_) if first.takes_ipv4() == Some(false) => Ipv6Addr::LOCALHOST.into(),
            _ => LOOPBACK4,
        };
        reach.push(loopback_down(address, port));
    }
    if bound.is_loopback() {
        // Whoever it is gets to no loopback but its own.
        for from in [Vantage::Node, Vantage::Outside, Vantage::Containers] {
            if missing(reach, from) {
                let mut no = if ruled && from == Vantage::Outside {
                    entry(from, None, None, Cause::InnerAddressesOnly)
                } else {
                    entry(from, None, Some(false), Cause::BoundElsewhere(bound))
                };
                if from == Vantage::Outside {
                    no.fix = reach.iter().find_map(|r| (r.from == from).then(|| r.fix.clone())?);
                }
                reach.push(no);
            }
        }
        return;
    }
    if missing(reach, Vantage::Outside) {
        let usable = |a: &&Address| usable(a.address) || a.address == bound;
        let links = facts.links_of(first.netns);
        // One that is bound to takes packets by other interfaces as well.
        let up = |a: &Address| {
            let leads = |l: &Link| l.up && l.kind != LinkKind::Loopback || a.address == bound;
            links.iter().all(|l| l.index != a.ifindex || leads(l))
        };
        let takes = |a: &Address| first.match_rank(a.address).is_some() && up(a);
        let one = if all.iter().filter(usable).any(takes) {
            entry(Vantage::Outside, None, None, Cause::InnerAddressesOnly)
        } else {
            entry(Vantage::Outside, None, Some(false), no_address(first, &all))
        };
        reach.push(one);
    }
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

/// Addresses worth naming: not loopback, and not link-local, which need a zone.
fn usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local(),
    }
}
