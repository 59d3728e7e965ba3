//! From where a port can be reached, as far as bind addresses, published ports
//! and routes tell. Packet filters and NAT rules are not evaluated yet, and
//! every `why` that depends on them says so.

use std::net::IpAddr;

use super::facts::{Facts, container_name};
use super::route;
use super::walk;
use crate::model::{
    Address, Container, End, Ending, LinkKind, Path, Published, Reach, Socket, Vantage,
};

/// How many addresses are named for one vantage.
const MAX_ADDRESSES: usize = 4;
const UNFILTERED: &str = "packet filter rules are not evaluated by this version";

/// The reachability of everything that was found.
pub(super) fn of(facts: &Facts<'_>, paths: &[Path]) -> Vec<Reach> {
    let mut reach: Vec<Reach> = Vec::new();
    for path in paths {
        let Some(socket) = path.hops.first().and_then(|h| h.socket.as_ref()) else { continue };
        let found = if socket.netns == facts.host.own_netns {
            here(facts, socket, &path.end)
        } else {
            away(facts, socket, &path.end)
        };
        for entry in found {
            if !reach.contains(&entry) {
                reach.push(entry);
            }
        }
    }
    settle(&mut reach);
    reach.sort_by_key(|r| (r.from, r.reachable != Some(true)));
    reach
}

/// A "no" that holds for one bind says nothing once another bind of the same
/// namespace makes it a "yes" (docker-proxy binds IPv4 and IPv6 apart).
fn settle(reach: &mut Vec<Reach>) {
    let yes: Vec<Vantage> =
        reach.iter().filter(|r| r.reachable == Some(true)).map(|r| r.from).collect();
    reach.retain(|r| r.reachable == Some(true) || r.address.is_some() || !yes.contains(&r.from));
}

fn entry(
    from: Vantage,
    address: Option<String>,
    reachable: Option<bool>,
    why: impl Into<String>,
) -> Reach {
    Reach { from, address, reachable, why: why.into(), fix: None }
}

fn fix(mut reach: Reach, fix: impl Into<String>) -> Reach {
    reach.fix = Some(fix.into());
    reach
}

fn at(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

/// A listener in the namespace the tool runs in.
fn here(facts: &Facts<'_>, socket: &Socket, end: &End) -> Vec<Reach> {
    let port = socket.port.0;
    if end.ending == Ending::Nothing {
        let why = end.why.clone().unwrap_or_default();
        let bound = Some(at(socket.effective_address(), port));
        let dead = entry(
            Vantage::Loopback,
            bound,
            Some(false),
            format!("the forwarder accepts and the connection ends at once: {why}"),
        );
        return vec![fix(dead, "start what should listen there, or remove the published port")];
    }
    let bound = socket.effective_address();
    if bound.is_loopback() {
        let only = format!("bound to {bound} only");
        let hint = format!(
            "bind it to another address, or forward to it from one (ssh -L {port}:{})",
            at(bound, port)
        );
        return vec![
            entry(Vantage::Loopback, Some(at(bound, port)), Some(true), only.clone()),
            entry(Vantage::Node, None, Some(false), only.clone()),
            fix(entry(Vantage::Outside, None, Some(false), only.clone()), hint),
            entry(Vantage::Containers, None, Some(false), only),
        ];
    }
    let mut own: Vec<Address> = facts.take(facts.node.addresses(&[socket.netns]));
    own.retain(|a| usable(a.address) && socket.match_rank(a.address).is_some());
    let mut reach = Vec::new();
    if socket.is_wildcard() {
        let loopback: IpAddr = match bound {
            IpAddr::V6(_) if socket.takes_ipv4() == Some(false) => {
                std::net::Ipv6Addr::LOCALHOST.into()
            }
            _ => crate::model::LOOPBACK4,
        };
        let why = if socket.takes_ipv4().is_none() {
            "bound to all addresses; whether IPv4 is among them could not be read"
        } else {
            "bound to all addresses"
        };
        reach.push(entry(Vantage::Loopback, Some(at(loopback, port)), Some(true), why));
    } else {
        let no = entry(Vantage::Loopback, None, Some(false), format!("bound to {bound} only"));
        reach.push(fix(no, format!("connect to {}", at(bound, port))));
    }
    if own.is_empty() {
        reach.push(entry(
            Vantage::Outside,
            None,
            Some(false),
            "this namespace has no other address",
        ));
        return reach;
    }
    let why = if socket.is_wildcard() {
        "bound to all addresses".to_owned()
    } else {
        format!("bound to {bound}")
    };
    let links = facts.take(facts.node.links(&[socket.netns]));
    let virtual_link = |a: &Address| {
        links
            .iter()
            .any(|l| l.index == a.ifindex && matches!(l.kind, LinkKind::Bridge | LinkKind::Veth))
    };
    for address in own.iter().take(MAX_ADDRESSES) {
        reach.push(entry(Vantage::Node, Some(at(address.address, port)), Some(true), why.clone()));
    }
    // A bridge's or device pair's address is for the containers behind it.
    let (inner, outer): (Vec<&Address>, Vec<&Address>) = own.iter().partition(|a| virtual_link(a));
    for address in outer.iter().take(MAX_ADDRESSES) {
        let why = format!("{why}; {UNFILTERED}");
        reach.push(entry(Vantage::Outside, Some(at(address.address, port)), Some(true), why));
    }
    if outer.is_empty() {
        reach.push(entry(
            Vantage::Outside,
            None,
            None,
            "every address it is bound to belongs to a bridge or a device pair: it depends on what is behind them",
        ));
    }
    if let Some(address) = inner.first().or(outer.first()) {
        let why = format!("{why}; {UNFILTERED}");
        reach.push(entry(Vantage::Containers, Some(at(address.address, port)), Some(true), why));
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

/// A listener in another namespace.
fn away(facts: &Facts<'_>, socket: &Socket, end: &End) -> Vec<Reach> {
    let port = socket.port.0;
    let place = facts.netns_ref(socket.netns);
    let name = place.name.clone().unwrap_or_else(|| place.id.to_string());
    let publisher =
        end.containers.iter().rev().find(|c| c.ports.iter().any(|p| is_published(p, socket)));
    let mut reach = Vec::new();
    if let Some(container) = publisher {
        for published in container.ports.iter().filter(|p| is_published(p, socket)) {
            reach.extend(published_reach(facts, container, published));
        }
    }
    let bound = socket.effective_address();
    if bound.is_loopback() {
        let why = format!("bound to {bound} inside {name} only");
        for from in [Vantage::Loopback, Vantage::Node, Vantage::Outside, Vantage::Containers] {
            if !reach.iter().any(|r| r.from == from && r.reachable == Some(true)) {
                reach.push(entry(from, None, Some(false), why.clone()));
            }
        }
        return reach;
    }
    let direct = direct(facts, socket);
    let best = direct.first().map(|a| at(*a, port));
    if !reach.iter().any(|r| r.from == Vantage::Loopback) {
        let why =
            format!("it listens in network namespace {name}, and is not published on this one");
        let no = entry(Vantage::Loopback, None, Some(false), why.clone());
        reach.push(match (&best, cluster_fix(end, port)) {
            (Some(best), Some(recreate)) => {
                fix(no, format!("use {best} from this host, or {recreate}"))
            }
            (Some(best), None) => fix(no, format!("use {best} from this host")),
            (None, Some(recreate)) => fix(no, recreate),
            (None, None) => no,
        });
        let no = entry(Vantage::Outside, None, Some(false), why);
        reach.push(match publish_fix(end, port) {
            Some(how) => fix(no, how),
            None => no,
        });
    }
    for address in &direct {
        let why = format!("this namespace has a route to {name}; {UNFILTERED}");
        reach.push(entry(Vantage::Node, Some(at(*address, port)), Some(true), why));
    }
    if direct.is_empty() {
        reach.push(entry(
            Vantage::Node,
            None,
            None,
            format!("no address of {name} that this namespace has a link to"),
        ));
    }
    let networks: Vec<&str> =
        end.containers.iter().rev().flat_map(|c| &c.networks).map(|n| n.name.as_str()).collect();
    if let (Some(best), false) = (best, networks.is_empty()) {
        let why = format!("containers on network {}", networks.join(", "));
        reach.push(entry(Vantage::Containers, Some(best), Some(true), why));
    }
    reach
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
    let name = container_name(container);
    let what = format!(
        "container {name} publishes {}->{}/{}",
        at(ip, host_port.0),
        published.container_port,
        published.proto
    );
    let target = if ip.is_unspecified() {
        if ip.is_ipv6() { std::net::Ipv6Addr::LOCALHOST.into() } else { crate::model::LOOPBACK4 }
    } else {
        ip
    };
    let own = facts.host.own_netns;
    let there = walk::at_address(facts, own, target, host_port, published.proto);
    if there.is_empty() {
        let why = format!(
            "{what}, but no socket of this namespace has that port: NAT rules decide, and are not evaluated by this version"
        );
        return vec![entry(Vantage::Loopback, Some(at(target, host_port.0)), None, why)];
    }
    if ip.is_loopback() {
        let only = format!("{what}: on {ip} only");
        let hint =
            format!("recreate the container with -p {host_port}:{}", published.container_port);
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
    let mut own_addresses: Vec<Address> = facts.take(facts.node.addresses(&[own]));
    own_addresses.retain(|a| {
        usable(a.address)
            && (ip == a.address || ip.is_unspecified() && ip.is_ipv4() == a.address.is_ipv4())
    });
    for address in own_addresses.iter().take(MAX_ADDRESSES) {
        let why = format!("{what}; {UNFILTERED}");
        reach.push(entry(
            Vantage::Outside,
            Some(at(address.address, host_port.0)),
            Some(true),
            why,
        ));
    }
    reach
}

/// The addresses of the socket's namespace that the own one reaches by a link
/// of its own: routed there directly, and the two are joined by a device pair
/// or the address is in no other namespace.
fn direct(facts: &Facts<'_>, socket: &Socket) -> Vec<IpAddr> {
    let own = facts.host.own_netns;
    let routes = facts.take(facts.node.routes(&[own]));
    let theirs = facts.take(facts.node.addresses(&[socket.netns]));
    theirs
        .iter()
        .map(|a| a.address)
        .filter(|a| usable(*a) && socket.match_rank(*a).is_some())
        .filter(|a| route::lookup(&routes, *a).is_some_and(|r| r.gateway.is_none()))
        .filter(|a| walk::locate(facts, own, *a) == [socket.netns])
        .take(MAX_ADDRESSES)
        .collect()
}

/// What makes a port of a cluster's node container reachable from this host.
fn cluster_fix(end: &End, port: u16) -> Option<String> {
    let cluster = end.cluster.as_ref()?;
    match cluster.distribution.as_str() {
        "kind" => Some(format!(
            "recreate cluster {} with extraPortMappings for containerPort {port} (ports can't be added to an existing node), \
             or kubectl --context kind-{} port-forward",
            cluster.name, cluster.name
        )),
        "k3d" => Some(format!(
            "k3d cluster edit {} --port-add HOSTPORT:{port}@loadbalancer",
            cluster.name
        )),
        "minikube" => {
            Some(format!("minikube -p {} service, or kubectl port-forward", cluster.name))
        }
        _ => None,
    }
}

fn publish_fix(end: &End, port: u16) -> Option<String> {
    if let Some(how) = cluster_fix(end, port) {
        return Some(how);
    }
    let outermost = end.containers.first()?;
    (end.containers.len() == 1 && end.pod.is_none()).then(|| {
        format!("recreate container {} with -p HOSTPORT:{port}", container_name(outermost))
    })
}
