//! Ports that a container publishes: what its runtime says of them, and the way
//! in that it tells of.

use std::net::{IpAddr, SocketAddr};

use super::facts::{Facts, container_name};
use super::place::{at_address, locate};
use super::walk::{follow, nothing};
use crate::model::{
    Capability, Container, End, Ending, Endpoint, Evidence, EvidenceSource, Hop, HopKind, NetnsId,
    Path, Port, Published, Socket,
};

/// The container that publishes the forwarder's listener as this target, with
/// the evidence. Looked for in what the path already knows before any runtime
/// is asked for all its containers.
pub(super) fn publisher(
    facts: &Facts<'_>,
    socket: &Socket,
    address: IpAddr,
    port: Port,
    paths: &[Path],
) -> Option<(Container, Evidence)> {
    let matches = |c: &Container| {
        let published =
            c.ports.iter().find(|p| publishes(p, socket) && p.container_port == port)?;
        Some((c.clone(), Evidence::new(told(c), says(c, published))))
    };
    let on_path = paths.iter().flat_map(|p| &p.end.containers).find_map(matches);
    on_path.or_else(|| {
        let dead = paths.iter().all(|p| p.end.containers.is_empty());
        let all = dead.then(|| facts.take(facts.world.containers()))?;
        all.iter().filter(|c| has_address(c, address)).find_map(matches)
    })
}

/// Who told of a container, as a source.
fn told(container: &Container) -> EvidenceSource {
    EvidenceSource::Told(container.via.teller)
}

/// What a runtime says: `container web publishes 127.0.0.1:8080->80/tcp`.
fn says(container: &Container, published: &Published) -> String {
    let host = match (published.host_ip, published.host_port) {
        (Some(ip), Some(port)) => format!("{}->", SocketAddr::new(ip, port.0)),
        (None, Some(port)) => format!("{port}->"),
        (_, None) => String::new(),
    };
    let name = container_name(container);
    format!("container {name} publishes {host}{}/{}", published.container_port, published.proto)
}

/// The namespace of a container's first process, if that process, which the
/// runtime named, is really in the container.
pub(super) fn home(facts: &Facts<'_>, container: &Container) -> Option<NetnsId> {
    let process = facts.process(container.pid?)?;
    let chain = process.cgroup.as_ref()?.containers();
    chain.iter().any(|c| c.id == container.id).then_some(process.netns)?
}

fn has_address(container: &Container, address: IpAddr) -> bool {
    container.networks.iter().any(|n| n.addresses.contains(&address))
}

/// Whether a published port is this listener.
fn publishes(published: &Published, socket: &Socket) -> bool {
    published.proto == socket.proto
        && published.host_port == Some(socket.port)
        && published.host_ip.is_none_or(|ip| ip == socket.effective_address())
}

/// A listener whose owner is hidden may still be a container's published port:
/// the runtime's API says which, and where it leads.
pub(super) fn published_beyond(facts: &Facts<'_>, socket: &Socket, end: End) -> Vec<Path> {
    let hidden =
        matches!(end.ending, Ending::OutsidePidNamespace | Ending::NotReadable | Ending::Unknown);
    if !hidden || !end.containers.is_empty() {
        return vec![Path { end, ..Path::default() }];
    }
    let containers = facts.take(facts.world.containers());
    let mut paths: Vec<Path> = containers
        .iter()
        .filter_map(|c| Some((c, c.ports.iter().find(|p| publishes(p, socket))?)))
        .map(|(container, published)| {
            let path = into_container(facts, socket.netns, container, published);
            let why = end.why.clone().unwrap_or_default();
            let why = match &path.end.why {
                Some(beyond) => format!("{why}; {beyond}"),
                None => why,
            };
            // The path may end in a visible process: the hidden owner is then
            // only the forwarder before it.
            let end = if path.end.processes.is_empty() {
                End { why: Some(why), ..path.end }
            } else {
                path.end
            };
            Path { hops: path.hops, end, ..Path::default() }
        })
        .collect();
    if paths.is_empty() {
        paths.push(Path { end, ..Path::default() });
    }
    paths
}

/// From the host into a container that publishes a port, as its runtime says.
pub(super) fn into_container(
    facts: &Facts<'_>,
    from: NetnsId,
    container: &Container,
    published: &Published,
) -> Path {
    let address = container.networks.iter().flat_map(|n| &n.addresses).copied().next();
    let name = container_name(container);
    let mut hop = Hop {
        kind: HopKind::Forward,
        netns: None,
        endpoint: Endpoint { address, name: None, port: Some(published.container_port) },
        proto: published.proto,
        detail: format!("published by container {name}"),
        socket: None,
        evidence: vec![Evidence::new(told(container), says(container, published))],
        share: None,
    };
    // Its namespace is entered only when it is surely the container's.
    let place = home(facts, container).or_else(|| match locate(facts, from, address?)[..] {
        [one] if one != from => Some(one),
        _ => None,
    });
    if let (Some(place), Some(address)) = (place, address) {
        hop.netns = Some(facts.netns_ref(place));
        let sockets = at_address(facts, place, address, published.container_port, published.proto);
        let beyond =
            sockets.first().and_then(|s| follow(facts, s, &mut Vec::new()).into_iter().next());
        if let Some(mut path) = beyond {
            path.hops.insert(0, hop);
            return path;
        }
        let mut path =
            nothing(facts, place, address, published.container_port, published.proto, false);
        path.hops.push(hop);
        path.end.containers = vec![container.clone()];
        path.end.cluster = container.cluster();
        return path;
    }
    Path {
        hops: vec![hop],
        end: End {
            ending: match () {
                () if !facts.host.init_pid_ns => Ending::OutsidePidNamespace,
                () if !facts.host.has(Capability::CapSysPtrace) => Ending::NotReadable,
                () => Ending::Unknown,
            },
            why: Some(format!(
                "what listens inside container {name} can't be seen from here; its name and ports are the word of the {}, \
                 and the container itself can tell more: {} exec {name} netstat -ltnp",
                container.via.teller, container.runtime
            )),
            containers: vec![container.clone()],
            pod: container.pod.clone(),
            cluster: container.cluster(),
            evidence: vec![Evidence::new(
                told(container),
                format!("container {name} ({})", container.via.at()),
            )],
            ..End::default()
        },
        ..Path::default()
    }
}
