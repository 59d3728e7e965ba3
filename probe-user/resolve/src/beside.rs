//! What listens beside a place where nothing does: on the same port at another address, or on
//! other ports of the same pod or container.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::facts::Facts;
use super::few::few;
use super::places_asked;
use super::reserved;
use whereis_port_model::{
    Advice, End, Evidence, EvidenceSource, Finding, FindingCode, FixKind, NetnsId, Path, Port,
    PortRange, Proto, Query, Scope, Socket, SocketFilter, Unserved,
};

/// How many sockets are named.
const NAMED: usize = 4;
/// At how many places is looked.
const PLACES: usize = 16;

/// What is noticed of the places where these paths end at nothing, and of the address of the
/// question where nothing takes what is sent there.
pub(super) fn check(facts: &Facts<'_>, query: &Query, paths: &[Path]) -> Vec<Finding> {
    let mut places: Vec<(Unserved, Option<&End>)> = Vec::new();
    let mut add = |place: Unserved, end| {
        if places.len() < PLACES && places.iter().all(|(known, _)| *known != place) {
            places.push((place, end));
        }
    };
    for end in paths.iter().map(|path| &path.end) {
        if let Some(place) = end.unserved {
            add(place, Some(end));
        }
    }
    if let Scope::Address(address) = query.scope {
        asked(facts, query, address, paths).into_iter().for_each(|place| add(place, None));
    }
    let of = |(place, end): (Unserved, Option<&End>)| {
        let mut same = same_port(facts, place);
        if same.is_empty() {
            return other_ports(facts, place, end);
        }
        // Who only keeps a port from others would not serve it elsewhere either.
        same.retain(|socket| !reserved::may_hold(facts, socket));
        elsewhere(facts, place, &same)
    };
    places.into_iter().filter_map(of).collect()
}

/// What would make the listener that is meant take it.
pub(super) fn fix(facts: &Facts<'_>, place: Unserved) -> Option<Advice> {
    let same = same_port(facts, place);
    same.first().map(|first| advice(place, first))
}

/// The ports of the question at an address that nothing takes, where others have them.
fn asked(facts: &Facts<'_>, query: &Query, address: IpAddr, paths: &[Path]) -> Vec<Unserved> {
    let to = address.to_canonical();
    if to.is_unspecified() {
        return Vec::new();
    }
    let netns =
        if to.is_loopback() { vec![facts.host.own_netns] } else { places_asked(facts, query, to) };
    let served = |netns: NetnsId, proto: Proto, port: Port| {
        let firsts = paths.iter().filter_map(|path| path.hops.first());
        let own = to.is_loopback();
        firsts.into_iter().any(|hop| {
            let here = hop.netns.as_ref().is_none_or(|place| place.id == netns);
            (here || !own) && hop.proto == proto && hop.endpoint.port == Some(port)
        })
    };
    let mut places: Vec<Unserved> = Vec::new();
    for netns in netns.into_iter().take(PLACES) {
        for socket in read(facts, netns, &query.filter()) {
            let (proto, port) = (socket.proto, socket.port);
            let place = Unserved { netns, proto, at: SocketAddr::new(to, port.0) };
            if socket.match_rank(to).is_none()
                && !served(netns, proto, port)
                && !places.contains(&place)
            {
                places.push(place);
            }
        }
    }
    places
}

/// Sockets of a namespace; none where not all of them could be read: what is told besides has
/// no gaps of its own.
fn read(facts: &Facts<'_>, netns: NetnsId, filter: &SocketFilter) -> Vec<Socket> {
    let fact = facts.world.sockets(&[netns], filter);
    if fact.gaps.is_empty() { fact.value.to_vec() } else { Vec::new() }
}

/// What has the port in the namespace, and does not take what is sent to the place.
fn same_port(facts: &Facts<'_>, place: Unserved) -> Vec<Socket> {
    let ports = Some(PortRange::one(Port(place.at.port())));
    read(facts, place.netns, &SocketFilter { proto: Some(place.proto), ports })
}

/// Something has the port at another address, or by another interface.
fn elsewhere(facts: &Facts<'_>, place: Unserved, sockets: &[Socket]) -> Option<Finding> {
    let first = sockets.first()?;
    let what = format!(
        "nothing takes what is sent to {}/{}{}: {} only",
        place.at,
        place.proto,
        inside(facts, place.netns),
        said(facts, sockets, |socket| bound(facts, socket)),
    );
    Some(Finding {
        code: FindingCode::OtherAddress,
        what,
        cause: None,
        fix: Some(advice(place, first)),
        evidence: evidence(facts, sockets),
    })
}

/// Where in the node a place is, if it is not here.
fn inside(facts: &Facts<'_>, netns: NetnsId) -> String {
    if netns == facts.host.own_netns {
        return String::new();
    }
    format!(" in netns {}", facts.netns_ref(netns))
}

/// What a socket is bound to.
fn bound(facts: &Facts<'_>, socket: &Socket) -> String {
    let mut text = SocketAddr::new(socket.address, socket.port.0).to_string();
    if socket.is_wildcard() && socket.takes_ipv4() == Some(false) {
        text.push_str(" for IPv6");
    }
    if let Some(index) = socket.ifindex {
        let links = facts.links_of(socket.netns);
        let name = links.iter().find(|link| link.index == index).map(|link| link.name.as_str());
        text.push_str(&format!(" by interface {}", name.unwrap_or("?")));
    }
    text
}

/// Who listens where.
fn said(facts: &Facts<'_>, sockets: &[Socket], at: impl Fn(&Socket) -> String) -> String {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    let inodes: BTreeSet<_> = sockets.iter().take(NAMED).map(|socket| socket.inode).collect();
    let owners = facts.owners(&inodes);
    for socket in sockets.iter().take(NAMED) {
        let process = owners.of(socket.inode).iter().find_map(|owner| facts.process(owner.pid));
        let who = match process {
            Some(process) => {
                format!("{}, pid {}{},", process.name(), process.pid, process.inside())
            }
            None => "somebody who is not known".to_owned(),
        };
        match groups.iter_mut().find(|(known, _)| *known == who) {
            Some((_, all)) => all.push(at(socket)),
            None => groups.push((who, vec![at(socket)])),
        }
    }
    let one = |(who, at): (String, Vec<String>)| format!("{who} listens on {}", at.join(", "));
    let mut text = groups.into_iter().map(one).collect::<Vec<_>>().join("; ");
    if sockets.len() > NAMED {
        text.push_str(&format!("; and {} more", sockets.len() - NAMED));
    }
    text
}

fn evidence(facts: &Facts<'_>, sockets: &[Socket]) -> Vec<Evidence> {
    let mut all = Vec::new();
    for socket in sockets.iter().take(NAMED) {
        let detail = format!("netns {}, inode {}", socket.netns, socket.inode);
        all.push(Evidence::new(EvidenceSource::SocketTable, detail));
        let owners = facts.owners(&BTreeSet::from([socket.inode]));
        if let Some(owner) = owners.of(socket.inode).first() {
            let detail =
                format!("/proc/{}/fd/{} is socket:[{}]", owner.pid, owner.fd, socket.inode);
            all.push(Evidence::new(EvidenceSource::Descriptors, detail));
        }
    }
    all
}

/// What a listener would have to be bound to.
fn advice(place: Unserved, socket: &Socket) -> Advice {
    let to = place.at.ip();
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let takes = socket.match_rank(to).is_some();
    let bind = if takes && socket.ifindex.is_some() {
        Advice::from("let it listen without being bound to the interface")
    } else if socket.is_wildcard() && to.is_ipv4() {
        Advice::from("let it listen on 0.0.0.0 as well, or without IPV6_V6ONLY")
    } else if to.is_loopback() {
        Advice::from(format!("let it listen on {to} as well, or on {any}"))
    } else {
        Advice::from(format!("let it listen on {any}, or on {to}"))
    };
    let bind = bind.of(FixKind::Bind);
    // Whoever is in the same namespace gets there by the other address.
    if to.is_loopback() && socket.ifindex.is_none() && !socket.is_wildcard() {
        let at = SocketAddr::new(socket.address, socket.port.0);
        let there = Advice::from(format!("connect to {at}")).of(FixKind::ConnectElsewhere);
        return there.or(bind);
    }
    bind
}

/// Nothing has the port in a pod or container: what else is there?
fn other_ports(facts: &Facts<'_>, place: Unserved, end: Option<&End>) -> Option<Finding> {
    let home = place.netns == facts.host.own_netns || Some(place.netns) == facts.host.host_netns;
    // A cluster's node has ports of many others.
    let is_node = end.is_some_and(|end| end.cluster.is_some() && end.pod.is_none());
    // Of UDP nothing tells a server's port from a client's.
    if home || is_node || place.proto != Proto::Tcp {
        return None;
    }
    let to = place.at.ip();
    let all = read(facts, place.netns, &SocketFilter { proto: Some(Proto::Tcp), ports: None });
    let takes = |socket: &&Socket| socket.match_rank(to).is_some() && socket.ifindex.is_none();
    let others: Vec<Socket> = all.iter().filter(takes).cloned().collect();
    let ports: BTreeSet<u16> = others.iter().map(|socket| socket.port.0).collect();
    // A node's own namespace, seen from elsewhere, has ports of many.
    if others.is_empty() || ports.len() > NAMED {
        return None;
    }
    let what = format!(
        "nothing has port {}{}, but {}",
        place.at.port(),
        inside(facts, place.netns),
        said(facts, &others, |socket| bound(facts, socket)),
    );
    let ports = few(&ports);
    let lead = match end.and_then(|end| end.service.as_ref()) {
        Some(service) => Advice::from("let Service ")
            .name(format!("{}/{}", service.namespace, service.name))
            .words(format!(" lead to port {ports} (its targetPort)")),
        None => Advice::from(format!("let it lead to port {ports}")),
    };
    let fix = lead.words(format!(", or let it listen on {}", place.at.port())).of(FixKind::Start);
    Some(Finding {
        code: FindingCode::OtherPort,
        what,
        cause: None,
        fix: Some(fix),
        evidence: evidence(facts, &others),
    })
}
