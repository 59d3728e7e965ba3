//! Sockets that only keep a port from being taken by others: who holds one never accepts.
//!
//! dockerd without its proxies, conmon for Podman, and kube-proxy before Kubernetes 1.24 hold
//! such sockets beside the rules that take the port. What lands on one all the same gets a
//! connection of the kernel's, and no answer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use whereis_port_rules::ports;

use super::facts::{Facts, container_name};
use super::from_node::{self, FromNode};
use super::owner;
use super::path;
use super::published;
use whereis_port_model::forward::is_its_program;
use whereis_port_model::{
    Container, ContainerRef, End, Evidence, EvidenceSource, Frontend, FrontendKind, HopKind, Path,
    Process, RUNTIMES, Runtime, Socket, StopKind,
};

/// Says of an end that it only reserves the port, if it is so, and for which container.
pub(super) fn mark(facts: &Facts<'_>, socket: &Socket, end: &mut End) {
    if is_of_kube_proxy(&end.processes) {
        mark_node_port(socket, end, is_taken(facts, socket));
        return;
    }
    let Some(reserved) = of(facts, socket, &end.processes) else { return };
    end.stop = Some(StopKind::Reserved);
    let (container, evidence) = reserved;
    let name = container_name(&container);
    end.evidence.push(evidence);
    end.pod.clone_from(&container.pod);
    end.cluster = container.cluster();
    end.containers = vec![*container];
    say(end, &format!("container {name}"));
}

fn say(end: &mut End, whom: &str) {
    let said = end.why.take().map_or_else(String::new, |why| format!("; {why}"));
    end.why = Some(format!(
        "accepted by the kernel, never answered: the port is only reserved for {whom}{said}"
    ));
}

/// Whether kube-proxy holds a socket, and nobody else. A name decides nothing alone: the program
/// is root's.
pub(super) fn is_of_kube_proxy(processes: &[Process]) -> bool {
    !processes.is_empty() && processes.iter().all(|p| is(p, "kube-proxy"))
}

/// Says of a socket of kube-proxy what it is there for: what rules take it only reserves.
/// `None` where it is not known what rules do with the port.
pub(super) fn mark_node_port(socket: &Socket, end: &mut End, is_taken: Option<bool>) {
    match is_taken {
        Some(true) => {
            end.stop = Some(StopKind::Reserved);
            end.why = Some(owner::HOLDS_NODE_PORT.to_owned());
            let is_node_port = owner::may_be_node_port(socket);
            say(end, if is_node_port { "a NodePort service" } else { "a Service" });
        }
        Some(false) if owner::is_node_port(socket, &end.processes) => {
            let why = "no rule takes this port: kube-proxy itself answers here, to load balancers that check \
                       whether this node has an endpoint of a Service";
            end.why = Some(why.to_owned());
        }
        _ => {}
    }
}

/// Whether rules or a balancer take or refuse the port of a socket, before anything gets to it.
fn is_taken(facts: &Facts<'_>, socket: &Socket) -> Option<bool> {
    let (netns, proto, port) = (socket.netns, socket.proto, socket.port.0);
    let at = |address: IpAddr| socket.address.is_unspecified() || socket.address == address;
    let frontends = facts.take(facts.world.frontends(&[netns]));
    // What has the port at an address of its own alone says nothing of the node's.
    let links = facts.links_of(netns);
    let dummy = links.iter().find(|l| l.name == "kube-ipvs0").map(|l| l.index);
    let addresses = facts.addresses_of(netns);
    let of_service =
        |a: IpAddr| addresses.iter().any(|one| one.address == a && Some(one.ifindex) == dummy);
    let balances = |f: &Frontend| {
        f.port == port
            && f.kind != Some(FrontendKind::ClusterIp)
            && !(dummy.is_some() && f.address.is_some_and(of_service))
            && f.proto.is_none_or(|number| number == proto.number())
            && f.address.is_some_and(at)
    };
    if frontends.iter().any(balances) {
        return Some(true);
    }
    let ruleset = path::ruleset(facts, netns)?;
    let here = from_node::here(facts, netns);
    let found = ports::taken_of(&FromNode::new(facts, netns), &ruleset, &here, proto, port);
    let takes = |taken: &ports::TakenPort| taken.address.is_none_or(at);
    match found.ports.iter().any(takes) {
        true => Some(true),
        // One that takes nearly all ports was not made for this one.
        false => {
            let is_whole = !facts.budget.is_used_up(&facts.budget.of(netns));
            (is_whole && found.unclear.is_none() && found.many.is_empty()).then_some(false)
        }
    }
}

/// Whether such an end may be one, for lists of thousands.
pub(super) fn may_be(end: &End) -> bool {
    end.processes.first().is_some_and(|process| is_reserver(&process.comm))
}

/// The same of a socket.
pub(super) fn may_hold(facts: &Facts<'_>, socket: &Socket) -> bool {
    let owners = facts.owners(&BTreeSet::from([socket.inode]));
    let owner = owners.of(socket.inode).first();
    let process = owner.and_then(|owner| facts.process(owner.pid));
    process.is_some_and(|process| is_reserver(&process.comm))
}

fn is_reserver(comm: &str) -> bool {
    comm == "kube-proxy" || RUNTIMES.iter().any(|one| one.reserves == Some(comm))
}

fn is(process: &Process, name: &str) -> bool {
    process.comm == name && !process.own_word && is_its_program(process)
}

/// The container that a port is reserved for, if whoever holds the socket never accepts: its
/// program is root's, and the container is the holder's.
fn of(
    facts: &Facts<'_>,
    socket: &Socket,
    processes: &[Process],
) -> Option<(Box<Container>, Evidence)> {
    let first = processes.first()?;
    let all = |name: &str| processes.iter().all(|process| is(process, name));
    if all("conmon") {
        let at = first.cmdline.iter().position(|a| a == "-c" || a == "--cid")?;
        let id = first.cmdline.get(at + 1)?;
        let known = facts.take(facts.world.containers());
        let watches = |container: &&Container| {
            let process = container.pid.and_then(|pid| facts.process(pid));
            container.id == *id
                && process.is_some_and(|p| p.ancestors.iter().any(|a| a.pid == first.pid))
        };
        let container = known.iter().find(watches).cloned().unwrap_or_else(|| {
            let unnamed = ContainerRef { runtime: Runtime::Podman, id: id.clone(), pod: None };
            Container::from_ref(&unnamed, &[])
        });
        let detail = format!("pid {}: conmon of container {}", first.pid, short(id));
        let evidence = Evidence::new(EvidenceSource::CommandLine, detail);
        return Some((Box::new(container), evidence));
    }
    if all("dockerd") {
        let known = facts.take(facts.world.containers());
        let place = first.containers();
        let found = known.iter().find_map(|container| {
            let port = container.ports.iter().find(|p| published::publishes(p, socket))?;
            (container.runtime == Runtime::Docker && container.parents == place)
                .then_some((container, port))
        });
        // Its own API and a swarm's ports are served.
        let (container, port) = found?;
        let evidence = published::evidence(container, port);
        return Some((Box::new(container.clone()), evidence));
    }
    None
}

fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// Puts a socket that only reserves a port together with the rules that take it: they are one
/// answer. Where something lands on the socket all the same, reachability says so.
pub(super) fn fold(paths: &mut Vec<Path>) {
    let at = |path: &Path| {
        let hop = path.hops.first()?;
        Some((hop.netns.as_ref()?.id, hop.proto, hop.endpoint.port?))
    };
    let is_ruled = |path: &Path| {
        path.hops.first().is_some_and(|h| matches!(h.kind, HopKind::Dnat | HopKind::Service))
    };
    let only_reserves =
        |path: &Path| path.hops.len() == 1 && path.end.stop == Some(StopKind::Reserved);
    let ruled: Vec<_> = paths.iter().filter(|path| is_ruled(path)).map(at).collect();
    let stands = |path: &Path| only_reserves(path) && ruled.contains(&at(path));
    let (reserved, mut others): (Vec<Path>, Vec<Path>) =
        std::mem::take(paths).into_iter().partition(stands);
    for path in &reserved {
        let Some(holder) = path.end.processes.first() else { continue };
        let detail =
            format!("pid {} ({}) reserves the port, and never accepts", holder.pid, holder.comm);
        let evidence = Evidence::new(EvidenceSource::Descriptors, detail);
        let same = others.iter_mut().filter(|other| is_ruled(other) && at(other) == at(path));
        for hop in same.filter_map(|other| other.hops.first_mut()) {
            if !hop.evidence.contains(&evidence) {
                hop.evidence.push(evidence.clone());
            }
        }
    }
    *paths = others;
}
