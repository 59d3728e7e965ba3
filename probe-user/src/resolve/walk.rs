//! Following a port: listener, forwarder, the namespace that has the target's
//! address, the listener there, and so on to the end.

use std::net::IpAddr;

use super::facts::{Facts, container_name};
use super::forward::{self, Forward, Target};
use super::owner;
use crate::model::{
    Capability, Container, End, Ending, Endpoint, Evidence, Hop, HopKind, NetnsId, Path, Port,
    PortRange, Process, Proto, Published, Socket, SocketFilter,
};

/// How many forwards in a row are followed. Real chains have two or three.
const MAX_HOPS: usize = 16;

/// Where a path has been: a forwarder that leads back is a loop.
type Visited = Vec<(NetnsId, Proto, IpAddr, Port)>;

/// Every path that begins at this socket.
pub(super) fn from_socket(facts: &Facts<'_>, socket: &Socket) -> Vec<Path> {
    follow(facts, socket, &mut Vec::new())
}

fn follow(facts: &Facts<'_>, socket: &Socket, visited: &mut Visited) -> Vec<Path> {
    let ends = owner::ends(facts, socket);
    let mut paths = Vec::new();
    for mut end in ends {
        let hop = listener(facts, socket, &end);
        let forward = end.processes.iter().find_map(|process| {
            let found = forward::parse(
                &process.cmdline,
                socket.proto,
                socket.effective_address(),
                socket.port,
            )?;
            Some((process.clone(), found))
        });
        let forward = match forward {
            Some((process, found)) if !forward::is_its_program(&process) => {
                // Anybody can write docker-proxy into its arguments.
                end.why = Some(format!(
                    "its arguments are those of {} ({}), but its program is {}: not followed",
                    found.kind,
                    found.quote,
                    process.exe.as_deref().unwrap_or_default()
                ));
                None
            }
            forward => forward,
        };
        let place = (socket.netns, socket.proto, socket.effective_address(), socket.port);
        let tails = match forward {
            Some(_) if visited.contains(&place) || visited.len() >= MAX_HOPS => {
                end.ending = Ending::Unknown;
                end.why =
                    Some("the forwards lead in a circle: this step was passed before".to_owned());
                vec![Path { hops: Vec::new(), end }]
            }
            Some((process, forward)) => {
                visited.push(place);
                let tails = through(facts, socket, &process, &forward, end, visited);
                visited.pop();
                tails
            }
            None => published_beyond(facts, socket, end),
        };
        for mut tail in tails {
            tail.hops.insert(0, hop.clone());
            paths.push(tail);
        }
    }
    paths
}

fn listener(facts: &Facts<'_>, socket: &Socket, end: &End) -> Hop {
    let kind = if end.ending == Ending::Kernel { HopKind::Kernel } else { HopKind::Listener };
    let detail = match (end.processes.first(), end.ending) {
        (Some(process), _) => {
            let inner = process.inside();
            let others = end.processes.len() - 1;
            let more = if others > 0 { format!(" and {others} more") } else { String::new() };
            format!("{}, pid {}{inner}{more}", process.name(), process.pid)
        }
        (None, Ending::Kernel) => end.why.clone().unwrap_or_default(),
        (None, Ending::OutsidePidNamespace) => "owner outside this PID namespace".to_owned(),
        (None, Ending::NotReadable) => "owner not readable".to_owned(),
        (None, _) => "owner unknown".to_owned(),
    };
    let netns = facts.netns_ref(socket.netns);
    let mut evidence =
        vec![Evidence::new("socket table", format!("netns {}, inode {}", netns.id, socket.inode))];
    if let Some(process) = end.processes.first() {
        evidence.push(Evidence::new(
            "descriptors",
            format!("/proc/{}/fd holds socket:[{}]", process.pid, socket.inode),
        ));
    } else if kind == HopKind::Kernel {
        evidence.extend(end.evidence.iter().cloned());
    }
    Hop {
        kind,
        netns: Some(netns),
        endpoint: Endpoint { address: Some(socket.address), name: None, port: Some(socket.port) },
        proto: socket.proto,
        detail,
        socket: Some(socket.clone()),
        evidence,
    }
}

/// What comes after a forwarder.
fn through(
    facts: &Facts<'_>,
    socket: &Socket,
    process: &Process,
    forward: &Forward,
    forwarder: End,
    visited: &mut Visited,
) -> Vec<Path> {
    let from = process.netns.unwrap_or(socket.netns);
    let (endpoint, proto, place) = target(facts, process, forward, from);
    let mut hop = Hop {
        kind: HopKind::Forward,
        netns: place.map(|id| facts.netns_ref(id)),
        endpoint,
        proto,
        detail: forward.kind.to_owned(),
        socket: None,
        evidence: vec![Evidence::new("command line", forward.quote.clone())],
    };
    let (Some(place), Some(address), Some(port)) = (place, hop.endpoint.address, hop.endpoint.port)
    else {
        let why = elsewhere(&forward.target);
        // The forwarder stays visible as the last process that is known.
        let end = End { ending: Ending::Elsewhere, why: Some(why), ..forwarder };
        return vec![Path { hops: vec![hop], end }];
    };
    let mut paths = arrive(facts, place, address, port, proto, visited);
    let published = publisher(facts, socket, address, port, &paths);
    if let Some((container, evidence)) = published {
        hop.evidence.push(evidence);
        for path in &mut paths {
            if path.end.ending == Ending::Nothing && path.end.containers.is_empty() {
                path.end.cluster = container.cluster();
                path.end.pod.clone_from(&container.pod);
                if let Some(why) = &mut path.end.why {
                    why.push_str(&format!(" (container {})", container_name(&container)));
                }
                path.end.containers = vec![container.clone()];
            }
        }
    }
    for path in &mut paths {
        // The step leads into the namespace that its target lives in.
        if let Some(next) = path.hops.first().and_then(|h| h.netns.clone()) {
            hop.netns = Some(next);
        }
        path.hops.insert(0, hop.clone());
    }
    paths
}

/// The target as an endpoint, and the namespace from which it is addressed when
/// it is an address at all.
fn target(
    facts: &Facts<'_>,
    process: &Process,
    forward: &Forward,
    from: NetnsId,
) -> (Endpoint, Proto, Option<NetnsId>) {
    let at = |address, port| Endpoint { address: Some(address), name: None, port: Some(port) };
    let named = |name: String, port| Endpoint { address: None, name: Some(name), port };
    match &forward.target {
        Target::Address(address, port, proto) => (at(*address, *port), *proto, Some(from)),
        Target::InNetns(path, address, port, proto) => {
            let place = named_netns(facts, process, path);
            match (place, address) {
                (Some(place), Some(address)) => (at(*address, *port), *proto, Some(place)),
                (Some(place), None) => (at(crate::model::LOOPBACK4, *port), *proto, Some(place)),
                (None, _) => (named(path.clone(), Some(*port)), *proto, None),
            }
        }
        Target::Host(name, port, proto) => (named(name.clone(), Some(*port)), *proto, None),
        Target::Kubernetes { object, namespace, port, .. } => {
            let name =
                namespace.as_ref().map_or_else(|| object.clone(), |n| format!("{n}/{object}"));
            let number = port.parse().ok().map(Port);
            let name = if number.is_none() { format!("{name}:{port}") } else { name };
            (named(name, number), Proto::Tcp, None)
        }
        Target::Unix(path) => (named(format!("unix:{path}"), None), Proto::Tcp, None),
        Target::Remote { via, host, port } => {
            (named(format!("{host} via {via}"), Some(*port)), Proto::Tcp, None)
        }
        Target::Unsaid(_) => (Endpoint { address: None, name: None, port: None }, Proto::Tcp, None),
    }
}

/// The namespace that a forwarder names by a path. The path counts in the
/// forwarder's own mount and PID namespaces: one inside a container says nothing
/// out here, and one that pins several namespaces says nothing certain.
fn named_netns(facts: &Facts<'_>, process: &Process, path: &str) -> Option<NetnsId> {
    let inside = process.cgroup.as_ref().is_some_and(|c| !c.containers().is_empty());
    if inside || process.nspid.len() > 1 {
        return None;
    }
    let pinned = facts.netns.iter().filter(|n| n.paths.iter().any(|p| same_path(p, path)));
    match pinned.map(|n| n.id).collect::<Vec<_>>()[..] {
        [one] => Some(one),
        [] => {
            let pid = path.strip_prefix("/proc/")?.strip_suffix("/ns/net")?.parse().ok()?;
            facts.process(pid)?.netns
        }
        _ => None,
    }
}

/// `/var/run` is `/run` on every system that has both.
fn same_path(a: &str, b: &str) -> bool {
    let short =
        |p: &str| p.strip_prefix("/var").filter(|r| r.starts_with("/run/")).unwrap_or(p).to_owned();
    short(a) == short(b)
}

fn elsewhere(target: &Target) -> String {
    match target {
        Target::Address(..) => "the target's address is not on this node".to_owned(),
        Target::InNetns(path, ..) => format!("the namespace {path} is not visible"),
        Target::Host(name, ..) => format!("{name} was not looked up: names are not resolved"),
        Target::Kubernetes { object, context, .. } => {
            let context = context.as_ref().map_or_else(String::new, |c| format!(" of context {c}"));
            format!("through the Kubernetes API{context} to {object}")
        }
        Target::Unix(path) => format!("to the unix socket {path}"),
        Target::Remote { via, .. } => format!("resolved and connected by {via}"),
        Target::Unsaid(what) => {
            format!("it forwards, but its command line does not say where: {what}")
        }
    }
}

/// What happens to a packet that is sent from `from` to `address`:`port`.
fn arrive(
    facts: &Facts<'_>,
    from: NetnsId,
    address: IpAddr,
    port: Port,
    proto: Proto,
    visited: &mut Visited,
) -> Vec<Path> {
    let places = locate(facts, from, address);
    if places.is_empty() {
        return vec![off_node(facts, from, address, port, proto)];
    }
    let mut paths = Vec::new();
    for place in &places {
        let sockets = at_address(facts, *place, address, port, proto);
        if sockets.is_empty() {
            paths.push(nothing(facts, *place, address, port, proto, places.len() > 1));
        }
        for socket in &sockets {
            paths.extend(follow(facts, socket, visited));
        }
    }
    // With several candidates only those where something listens count, unless
    // there is none: the rest have the address by accident.
    if places.len() > 1 && paths.iter().any(|p| p.end.ending != Ending::Nothing) {
        paths.retain(|p| p.end.ending != Ending::Nothing);
    }
    paths
}

/// The namespaces that a packet from `from` to `address` can arrive in: the own
/// one if it has the address, else those that have it and that a route and
/// device pairs lead to. Several only where several are as near.
pub(super) fn locate(facts: &Facts<'_>, from: NetnsId, address: IpAddr) -> Vec<NetnsId> {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() {
        return vec![from];
    }
    let own = facts.take(facts.node.addresses(&[from]));
    if own.iter().any(|a| a.address == address) {
        return vec![from];
    }
    let of_address = facts.all_addresses().into_iter().filter(|a| a.address == address);
    let mut places: Vec<NetnsId> = of_address.map(|a| a.netns).collect();
    places.sort_unstable();
    places.dedup();
    if places.is_empty() {
        return places;
    }
    let routes = facts.take(facts.node.routes(&[from]));
    if super::route::lookup(&routes, address).is_none() {
        return Vec::new();
    }
    joined(facts, from, &places)
}

/// How many namespaces a packet may pass on its way inside the node: host, node
/// container, pod.
const MAX_DISTANCE: usize = 3;

/// Those of `places` that device pairs join to `from`, the nearest ones. Having
/// the address is not enough: private ranges repeat, in nested engines above all.
fn joined(facts: &Facts<'_>, from: NetnsId, places: &[NetnsId]) -> Vec<NetnsId> {
    let mut passed = vec![from];
    let mut edge = vec![from];
    for _ in 0..MAX_DISTANCE {
        let links = facts.take(facts.node.links(&edge));
        let mut next: Vec<NetnsId> = links.iter().filter_map(|l| l.peer_netns).collect();
        next.sort_unstable();
        next.dedup();
        next.retain(|id| !passed.contains(id));
        let near: Vec<NetnsId> = next.iter().copied().filter(|id| places.contains(id)).collect();
        if !near.is_empty() || next.is_empty() {
            return near;
        }
        passed.extend(&next);
        edge = next;
    }
    Vec::new()
}

/// The sockets of a namespace that get a packet to this address: those with the
/// most specific bind, several when they share the port (`SO_REUSEPORT`).
pub(super) fn at_address(
    facts: &Facts<'_>,
    place: NetnsId,
    address: IpAddr,
    port: Port,
    proto: Proto,
) -> Vec<Socket> {
    let filter = SocketFilter { proto: Some(proto), ports: Some(PortRange::one(port)) };
    best_match(facts.take(facts.node.sockets(&[place], &filter)), address)
}

/// Keeps the sockets that the kernel prefers for `address`.
pub(super) fn best_match(mut sockets: Vec<Socket>, address: IpAddr) -> Vec<Socket> {
    let best = sockets.iter().filter_map(|s| s.match_rank(address)).max();
    sockets.retain(|s| best.is_some() && s.match_rank(address) == best);
    sockets
}

fn nothing(
    facts: &Facts<'_>,
    place: NetnsId,
    address: IpAddr,
    port: Port,
    proto: Proto,
    ambiguous: bool,
) -> Path {
    let netns = facts.netns_ref(place);
    let name = netns.name.clone().unwrap_or_else(|| place.to_string());
    let mut why =
        format!("nothing listens on {port}/{proto} at {address} in network namespace {name}");
    if ambiguous {
        why.push_str(" (several namespaces have this address)");
    }
    Path {
        hops: Vec::new(),
        end: End { ending: Ending::Nothing, why: Some(why), ..End::default() },
    }
}

fn off_node(facts: &Facts<'_>, from: NetnsId, address: IpAddr, port: Port, proto: Proto) -> Path {
    let routes = facts.take(facts.node.routes(&[from]));
    let detail = match super::route::lookup(&routes, address) {
        Some(route) => match route.gateway {
            Some(gateway) => format!("leaves this node by next hop {gateway}"),
            None => "on a network this node is attached to".to_owned(),
        },
        None => "no route leads there".to_owned(),
    };
    let hop = Hop {
        kind: HopKind::OffNode,
        netns: None,
        endpoint: Endpoint { address: Some(address), name: None, port: Some(port) },
        proto,
        detail,
        socket: None,
        evidence: vec![Evidence::new(
            "rtnetlink",
            "no namespace joined to this one has this address",
        )],
    };
    let mut why = format!("no network namespace that is visible on this node has {address}");
    let same = facts.all_addresses().into_iter().find(|a| a.address == address);
    if let Some(other) = same {
        let name = facts.netns_ref(other.netns).name.unwrap_or_else(|| other.netns.to_string());
        why = format!(
            "network namespace {name} has {address}, but no route and link leads there from here"
        );
    }
    Path {
        hops: vec![hop],
        end: End { ending: Ending::Elsewhere, why: Some(why), ..End::default() },
    }
}

/// The container that publishes the forwarder's listener as this target, with
/// the evidence. Looked for in what the path already knows before any runtime
/// is asked for all its containers.
fn publisher(
    facts: &Facts<'_>,
    socket: &Socket,
    address: IpAddr,
    port: Port,
    paths: &[Path],
) -> Option<(Container, Evidence)> {
    let matches = |c: &Container| {
        let published =
            c.ports.iter().find(|p| publishes(p, socket) && p.container_port == port)?;
        let at = published.host_ip.map_or_else(String::new, |ip| format!("{}:", show(ip)));
        let name = container_name(c);
        let detail =
            format!("container {name} publishes {at}{}->{port}/{}", socket.port, socket.proto);
        Some((c.clone(), Evidence::new(owner::source(c).0, detail)))
    };
    let on_path = paths.iter().flat_map(|p| &p.end.containers).find_map(matches);
    on_path.or_else(|| {
        let dead = paths.iter().all(|p| p.end.containers.is_empty());
        let all = if dead { facts.take(facts.node.containers()) } else { Vec::new() };
        all.iter().filter(|c| has_address(c, address)).find_map(matches)
    })
}

fn show(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(_) => ip.to_string(),
        IpAddr::V6(_) => format!("[{ip}]"),
    }
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
fn published_beyond(facts: &Facts<'_>, socket: &Socket, end: End) -> Vec<Path> {
    let hidden =
        matches!(end.ending, Ending::OutsidePidNamespace | Ending::NotReadable | Ending::Unknown);
    if !hidden || !end.containers.is_empty() {
        return vec![Path { hops: Vec::new(), end }];
    }
    let containers = facts.take(facts.node.containers());
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
            Path { hops: path.hops, end }
        })
        .collect();
    if paths.is_empty() {
        paths.push(Path { hops: Vec::new(), end });
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
    let (source, told_by) = owner::source(container);
    let name = container_name(container);
    let host = published.host_port.map_or_else(String::new, |port| {
        let at = published.host_ip.map_or_else(String::new, |ip| format!("{}:", show(ip)));
        format!("{at}{port}->")
    });
    let mut hop = Hop {
        kind: HopKind::Forward,
        netns: None,
        endpoint: Endpoint { address, name: None, port: Some(published.container_port) },
        proto: published.proto,
        detail: format!("published by container {name}"),
        socket: None,
        evidence: vec![Evidence::new(
            source.clone(),
            format!(
                "container {name} publishes {host}{}/{}",
                published.container_port, published.proto
            ),
        )],
    };
    // Its namespace is entered only when it is surely the container's: the
    // runtime's process for it must live there.
    let first = container.pid.and_then(|pid| facts.process(pid)).filter(|process| {
        let chain = process.cgroup.as_ref().map(|c| c.containers()).unwrap_or_default();
        chain.iter().any(|c| c.id == container.id)
    });
    let place =
        first.and_then(|process| process.netns).or_else(
            || match locate(facts, from, address?)[..] {
                [one] if one != from => Some(one),
                _ => None,
            },
        );
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
                "what listens inside container {name} can't be seen from here; its name and ports are the word of the {source}, \
                 and the container itself can tell more: {} exec {name} netstat -ltnp",
                container.runtime
            )),
            containers: vec![container.clone()],
            pod: container.pod.clone(),
            cluster: container.cluster(),
            evidence: vec![Evidence::new(source, format!("container {name} ({told_by})"))],
            ..End::default()
        },
    }
}
