//! Sockets that only keep a port from being taken by others: who holds one never accepts.
//!
//! dockerd without its proxies, conmon for Podman, and kube-proxy before Kubernetes 1.24 hold
//! such sockets beside the rules that take the port. What lands on one all the same gets a
//! connection of the kernel's, and no answer.

use super::facts::{Facts, container_name};
use super::forward::is_its_program;
use super::owner;
use super::published;
use crate::model::{
    Container, ContainerRef, End, Evidence, EvidenceSource, HopKind, Path, Process, RUNTIMES,
    Runtime, Socket, StopKind,
};

/// Says of an end that it only reserves the port, if it is so, and for which container.
pub(super) fn mark(facts: &Facts<'_>, socket: &Socket, end: &mut End) {
    let Some(reserved) = of(facts, socket, &end.processes) else { return };
    end.stop = Some(StopKind::Reserved);
    let whom = match reserved {
        For::NodePort => "a NodePort service".to_owned(),
        For::Container(container, evidence) => {
            let name = container_name(&container);
            end.evidence.push(evidence);
            end.pod.clone_from(&container.pod);
            end.cluster = container.cluster();
            end.containers = vec![*container];
            format!("container {name}")
        }
    };
    let said = end.why.take().map_or_else(String::new, |why| format!("; {why}"));
    end.why = Some(format!(
        "accepted by the kernel, never answered: the port is only reserved for {whom}{said}"
    ));
}

/// Whether such an end may be one, for lists of thousands.
pub(super) fn may_be(end: &End) -> bool {
    let reserves = |comm: &str| RUNTIMES.iter().any(|one| one.reserves == Some(comm));
    let may = |comm: &str| comm == "kube-proxy" || reserves(comm);
    end.processes.first().is_some_and(|process| may(&process.comm))
}

/// Whom a port is reserved for.
enum For {
    NodePort,
    Container(Box<Container>, Evidence),
}

/// Whether whoever holds the socket never accepts. A name decides nothing alone: the program is
/// root's, and a container has to be the holder's.
fn of(facts: &Facts<'_>, socket: &Socket, processes: &[Process]) -> Option<For> {
    let first = processes.first()?;
    let all = |name: &str| {
        let is = |p: &Process| p.comm == name && !p.own_word && is_its_program(p);
        processes.iter().all(is)
    };
    if owner::is_node_port(socket, processes) && all("kube-proxy") {
        return Some(For::NodePort);
    }
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
        return Some(For::Container(Box::new(container), evidence));
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
        return Some(For::Container(Box::new(container.clone()), evidence));
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
