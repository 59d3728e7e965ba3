//! From an event to who caused it: its process, container and namespace by name.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::facts::Facts;
use whereis_port_model::Node;
use whereis_port_model::{
    AcceptQueue, Actor, CgroupPath, Container, ContainerRef, Event, EventKind, Evidence,
    EvidenceSource, Gap, NetnsRef, Port, Process, Proto, Query, Scope, SeenBy, Socket,
    SocketFilter, Traced,
};

/// Whether an event is one that `query` asks for: by the port that is listened
/// on, connected to, or translated.
pub fn concerns(event: &Event, query: &Query) -> bool {
    if query.proto.is_some_and(|proto| proto != event.proto) {
        return false;
    }
    let own = (event.address, event.port);
    let of = |place: SocketAddr| (place.ip(), Some(Port(place.port())));
    let place_fits = |place| fits(place, query);
    match event.kind {
        EventKind::Listen | EventKind::Bind | EventKind::Close | EventKind::Accept => {
            place_fits(own)
        }
        EventKind::Connect => event.peer.map(of).is_some_and(place_fits),
        EventKind::Nat => {
            let nat = event.nat.into_iter();
            let places = nat.flat_map(|nat| [of(nat.destination), of(nat.new_destination)]);
            place_fits(own) || places.into_iter().any(place_fits)
        }
        EventKind::Drop => {
            let original = event.dropped.as_ref().and_then(|dropped| dropped.original);
            place_fits(own) || original.map(of).is_some_and(place_fits)
        }
    }
}

fn fits((address, port): (IpAddr, Option<Port>), query: &Query) -> bool {
    let address_fits = || match query.scope {
        Scope::Everywhere => true,
        Scope::Address(asked) => {
            let (bound, asked) = (address.to_canonical(), asked.to_canonical());
            // An IPv6 wildcard may take IPv4 too; what is not sure is shown.
            let takes = bound.is_unspecified() && (bound.is_ipv6() || asked.is_ipv4());
            bound == asked || takes
        }
    };
    port.is_some_and(|port| query.ports.contains(port)) && address_fits()
}

/// Says of each event who caused it, as far as the node tells.
pub fn trace(node: &dyn Node, events: &[Event]) -> Vec<Traced> {
    let facts = Facts::new(node);
    events.iter().map(|event| one(&facts, event)).collect()
}

/// All that listens now, as if it had just begun to: with who holds each.
pub fn listening(node: &dyn Node) -> (Vec<Event>, Vec<Gap>) {
    let mut gaps = Vec::new();
    let netns: Vec<_> = node.netns().take(&mut gaps).iter().map(|netns| netns.id).collect();
    let filter = SocketFilter { proto: None, ports: None };
    let sockets = node.sockets(&netns, &filter).take(&mut gaps);
    let inodes: BTreeSet<_> = sockets.iter().map(|s| s.inode).filter(|inode| *inode != 0).collect();
    let owners = node.owners(&inodes).take(&mut gaps);
    let pids: BTreeSet<_> = owners.holders.iter().map(|owner| owner.pid).collect();
    let pids: Vec<_> = pids.into_iter().collect();
    let processes = node.processes(&pids).value;
    let event = |socket: &Socket| {
        let holders = owners.of(socket.inode).iter().filter(|_| socket.inode != 0);
        // Of several the oldest, and init only when nobody else does.
        let owner = holders.min_by_key(|owner| (owner.pid == 1, owner.start, owner.pid));
        let process = owner.and_then(|owner| {
            processes.iter().find(|p| p.pid == owner.pid && p.start == owner.start)
        });
        let actor = process.map(|process| Actor {
            pid: Some(process.pid),
            start: Some(process.start),
            uid: process.uid,
            comm: process.comm.clone(),
            netns: process.netns,
            cgroup: process.cgroup.as_ref().map(|cgroup| cgroup.0.clone()),
        });
        Event {
            at: 0,
            kind: match socket.proto {
                Proto::Tcp => EventKind::Listen,
                Proto::Udp => EventKind::Bind,
            },
            proto: socket.proto,
            netns: Some(socket.netns),
            address: socket.address,
            port: Some(socket.port),
            peer: None,
            inode: Some(socket.inode).filter(|inode| *inode != 0),
            actor,
            nat: None,
            dropped: None,
            seen_by: SeenBy::Comparison,
        }
    };
    let events = sockets.iter().map(event).collect();
    (events, gaps)
}

/// The accept queues of all listeners.
pub fn queues(node: &dyn Node) -> Vec<(NetnsRef, Socket, AcceptQueue)> {
    let netns: Vec<_> = node.netns().value.iter().map(|netns| netns.id).collect();
    let filter = SocketFilter { proto: Some(Proto::Tcp), ports: None };
    let facts = Facts::new(node);
    let sockets = node.sockets(&netns, &filter).value;
    let one = |socket: Socket| {
        let queue = socket.queue?;
        Some((facts.netns_ref(socket.netns), socket, queue))
    };
    sockets.into_iter().filter_map(one).collect()
}

/// What `node` could not name in these events, and one that is read anew may:
/// namespaces and containers that were made since it was read.
pub fn unnamed(node: &dyn Node, traced: &[Traced]) -> BTreeSet<String> {
    let known: BTreeSet<_> = node.netns().value.iter().map(|netns| netns.id).collect();
    let mut unnamed = BTreeSet::new();
    for traced in traced {
        let netns = traced.event.netns.filter(|id| !known.contains(id));
        unnamed.extend(netns.map(|id| id.to_string()));
        let untold = traced.containers.iter().filter(|container| is_untold(container));
        unnamed.extend(untold.map(|container| container.id.clone()));
    }
    unnamed
}

/// Whether no runtime has told of a container.
fn is_untold(container: &Container) -> bool {
    container.via.is_untold()
}

fn one(facts: &Facts<'_>, event: &Event) -> Traced {
    let process = event.actor.as_ref().and_then(|actor| alive(facts, actor));
    let mut traced = Traced {
        event: event.clone(),
        netns: event.netns.map(|id| facts.netns_ref(id)),
        process,
        containers: Vec::new(),
        pod: None,
        cluster: None,
        unit: None,
        evidence: Vec::new(),
        dropped_by: None,
    };
    // Who lives where packets died has not dropped them.
    if event.kind == EventKind::Drop {
        return traced;
    }
    containers(facts, &mut traced);
    traced.pod = traced.containers.iter().rev().find_map(|c| c.pod.clone());
    traced.cluster = traced.containers.iter().rev().find_map(Container::cluster);
    traced
}

/// The process, when it still runs: its start must be the same, or the id is
/// another one's by now.
fn alive(facts: &Facts<'_>, actor: &Actor) -> Option<Process> {
    facts.process(actor.pid?).filter(|process| Some(process.start) == actor.start)
}

/// Finds the containers: by the process, else by the cgroup that it was in, else
/// by the namespace. A process that is known to be in no container is in none,
/// whatever the namespace.
fn containers(facts: &Facts<'_>, traced: &mut Traced) {
    let actor = traced.event.actor.as_ref();
    if let Some((process, cgroup)) =
        traced.process.as_ref().and_then(|p| Some((p, p.cgroup.as_ref()?)))
    {
        let chain = process.containers();
        traced.containers = facts.containers(&chain, process.pid);
        traced.unit = cgroup.unit().filter(|_| chain.is_empty());
        if !cgroup.containers().is_empty() {
            let detail = format!("pid {} is in {}", process.pid, cgroup.0);
            traced.evidence.push(Evidence::new(EvidenceSource::Cgroup, detail));
        }
    } else if let Some(cgroup) = actor.and_then(|actor| actor.cgroup.as_ref()) {
        let path = CgroupPath(cgroup.clone());
        let chain = path.containers();
        traced.unit = path.unit().filter(|_| chain.is_empty());
        if !chain.is_empty() {
            traced.containers = by_cgroup(facts, chain);
            let detail = format!("the process was in {cgroup} when it happened");
            traced.evidence.push(Evidence::new(EvidenceSource::Cgroup, detail));
        }
    } else if let Some(netns) = actor.and_then(|actor| actor.netns).or(traced.event.netns) {
        traced.containers = facts.containers_of(netns).to_vec();
        if !traced.containers.is_empty() {
            let detail = format!("processes of this container live in netns {netns}");
            traced.evidence.push(Evidence::new(EvidenceSource::NamespaceMembers, detail));
        }
    }
}

/// The containers of a cgroup path, of which only the last part may be known: the
/// runtime knows what a nested one is inside of.
fn by_cgroup(facts: &Facts<'_>, mut chain: Vec<ContainerRef>) -> Vec<Container> {
    let known = facts.take(facts.world.containers());
    let of_id = |id: &str| known.iter().find(|container| container.id == id);
    if let Some(innermost) = chain.last()
        && let Some(parents) = of_id(&innermost.id).map(|container| &container.parents)
        && parents.len() >= chain.len()
    {
        chain = parents.iter().chain([innermost]).cloned().collect();
    }
    let named = |level: usize| {
        let unknown = || Container::from_ref(&chain[level], &chain[..level]);
        of_id(&chain[level].id).cloned().unwrap_or_else(unknown)
    };
    (0..chain.len()).map(named).collect()
}
