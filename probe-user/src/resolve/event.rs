//! From an event to who caused it: its process, container and namespace by name.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::facts::Facts;
use crate::model::{
    Actor, CgroupPath, Container, ContainerRef, Event, EventKind, Evidence, EvidenceSource, Port,
    Process, Query, Scope, Traced,
};
use crate::node::Node;

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
    };
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
