//! Ports that a container publishes: what its runtime says of them, and the way
//! in that it tells of.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::facts::{Facts, container_name};
use super::place::{at_address, locate};
use super::walk::{follow, nothing};
use whereis_port_model::{
    Advice, Capability, Command, Container, End, Ending, Endpoint, Evidence, EvidenceSource,
    Finding, FindingCode, FixKind, Hop, HopKind, ListRow, NetnsId, Network, Path, Port, Proto,
    Published, Query, Runtime, Socket,
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
        Some((c.clone(), evidence(c, published)))
    };
    let on_path = paths.iter().flat_map(|p| &p.end.containers).find_map(matches);
    on_path.or_else(|| {
        let dead = paths.iter().all(|p| p.end.containers.is_empty());
        let all = dead.then(|| facts.take(facts.world.containers()))?;
        all.iter().filter(|c| has_address(c, address)).find_map(matches)
    })
}

/// That a runtime says so.
pub(super) fn evidence(container: &Container, published: &Published) -> Evidence {
    Evidence::new(told(container), says(container, published))
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

/// Names in a row of a list the container that publishes its port: what leads into a container
/// is that container's.
pub(super) fn name_row(facts: &Facts<'_>, row: &mut ListRow) {
    let is_forward = row.kind == HopKind::Listener && row.target.is_some();
    if !row.end.containers.is_empty() || !is_forward && row.kind != HopKind::Dnat {
        return;
    }
    let Some(target) = &row.target else { return };
    let Some(address) = target.address.filter(|a| !a.is_loopback() && !a.is_unspecified()) else {
        return;
    };
    let netns = row.netns.id;
    if let [place] = locate(facts, netns, address)[..]
        && place != netns
        // Of a namespace that only what is around it names, nothing new is known.
        && facts.containers_of(place).len() > facts.containers_of(netns).len()
    {
        let port = target.port;
        name(facts, place, Some((row.proto, row.port, address, port)), &mut row.end);
    }
}

/// Names the container in a namespace that a published port leads into. Several may share it:
/// then the one that publishes the port (`row`: protocol, host's port, target).
pub(super) fn name(
    facts: &Facts<'_>,
    place: NetnsId,
    row: Option<(Proto, Port, IpAddr, Option<Port>)>,
    end: &mut Rc<End>,
) {
    let inside = facts.containers_of(place);
    let Some(one) = inside.last() else { return };
    let publishes = |container: &&Container| {
        row.is_some_and(|(proto, port, address, inner)| {
            let is = |p: &Published| {
                (p.proto, p.host_port) == (proto, Some(port))
                    && inner.is_none_or(|inner| inner == p.container_port)
            };
            container.parents == one.parents
                && has_address(container, address)
                && container.ports.iter().any(is)
        })
    };
    // The containers of a pod have one network: which of them it is stays open. Podman's are
    // published by one of them.
    let in_pod = one.pod.is_some() && one.runtime != Runtime::Podman;
    let known = match in_pod {
        true => None,
        false => facts.take(facts.world.containers()).iter().find(publishes).cloned(),
    };
    let container = known.as_ref().unwrap_or(one);
    let mut named = End { pod: container.pod.clone(), ..(**end).clone() };
    if !in_pod {
        named.containers = inside[..inside.len() - 1].to_vec();
        named.containers.push(container.clone());
        named.cluster = named.containers.iter().rev().find_map(Container::cluster);
    }
    *end = Rc::new(named);
}

/// How many containers are named that would publish a port.
const WOULD: usize = 4;

/// Of a port that nothing has: containers that are told to publish it, and why they do not.
pub(super) fn would(facts: &Facts<'_>, query: &Query, paths: &[Path]) -> Vec<Finding> {
    if !paths.is_empty() || query.subject.is_some() {
        return Vec::new();
    }
    let wanted = |p: &&Published| {
        query.proto.is_none_or(|proto| proto == p.proto)
            && p.host_port.is_some_and(|port| query.ports.contains(port))
    };
    let all = facts.take(facts.world.unpublished());
    let found = all.iter().filter_map(|one| Some((one, one.ports.iter().find(wanted)?)));
    found.filter_map(|(container, port)| would_publish(container, port)).take(WOULD).collect()
}

fn would_publish(container: &Container, published: &Published) -> Option<Finding> {
    let name = container_name(container);
    let program = container.runtime.as_str();
    let running = matches!(container.state.as_deref(), None | Some("running"));
    let (cause, fix) = match (running, container.network_mode.as_deref()) {
        (false, _) => {
            let state = container.state.clone().unwrap_or_default();
            let fix = match state.as_str() {
                // It is started again and again, and ends each time.
                "restarting" => {
                    let logs = Command::new(program).args("logs").name(&name);
                    Some(Advice::from("see why it ends: ").command(logs).of(FixKind::Inspect))
                }
                // What is being taken away, or could not be, is not started again.
                "removing" => None,
                "dead" => {
                    let remove = Command::new(program).args("rm -f").name(&name);
                    Some(Advice::from(remove).of(FixKind::Start))
                }
                _ => {
                    let start = Command::new(program).args("start").name(&name);
                    Some(Advice::from(start).of(FixKind::Start))
                }
            };
            (format!("it is {state}"), fix)
        }
        (true, Some("host")) => {
            let cause = "its network is the host's, where ports are not published: it listens \
                         there on the ports of its own choice";
            (cause.to_owned(), None)
        }
        (true, _) => {
            let shut = |n: &Network| match &n.driver {
                _ if n.internal => format!("{} is internal", n.name),
                Some(driver) => format!("{} is of {driver}", n.name),
                None => n.name.clone(),
            };
            let networks = super::few::few(container.networks.iter().map(shut));
            let connect = Command::new(program).args("network connect bridge").name(&name);
            let all_shut = container.networks.iter().all(Network::publishes_nothing);
            if container.networks.is_empty() || !all_shut {
                return None;
            }
            let cause = format!("no network of it publishes ports: {networks}");
            let advice = Advice::from("put it on a network that does, as well: ").command(connect);
            let is_docker = container.runtime == Runtime::Docker;
            (cause, is_docker.then(|| advice.of(FixKind::Publish)))
        }
    };
    let host = match (published.host_ip, published.host_port) {
        (Some(ip), Some(port)) => SocketAddr::new(ip, port.0).to_string(),
        (_, port) => port.map_or_else(String::new, |port| port.to_string()),
    };
    let (inner, proto) = (published.container_port, published.proto);
    Some(Finding {
        code: FindingCode::WouldPublish,
        what: format!("container {name} is told to publish {host}->{inner}/{proto}, and does not"),
        cause: Some(cause),
        fix,
        evidence: vec![Evidence::new(told(container), format!("container {name}"))],
    })
}

/// The namespace of a container's first process, if that process, which the
/// runtime named, is really in the container.
pub(super) fn home(facts: &Facts<'_>, container: &Container) -> Option<NetnsId> {
    let process = facts.process(container.pid?)?;
    process.containers().iter().any(|c| c.id == container.id).then_some(process.netns)?
}

fn has_address(container: &Container, address: IpAddr) -> bool {
    container.networks.iter().any(|n| n.addresses.contains(&address))
}

/// Whether a published port is this listener.
pub(super) fn publishes(published: &Published, socket: &Socket) -> bool {
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
        evidence: vec![evidence(container, published)],
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
