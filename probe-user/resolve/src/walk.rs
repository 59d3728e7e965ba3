//! Following a port: listener, forwarder, the namespace that has the target's
//! address, the listener there, and so on to the end.

use std::net::IpAddr;

use super::facts::{Facts, container_name};
use super::kube;
use super::observed::{self, ObservedDestination, ObservedListener};
use super::owner;
use super::path::{self, PacketDestination};
use super::place::at_address;
use super::published::{published_beyond, publisher};
use super::relay;
use super::reserved;
use whereis_port_model::forward::{self, Forward, ForwardTarget};
use whereis_port_model::{
    Advice, Command, End, Ending, Endpoint, Evidence, EvidenceSource, FixKind, Hop, HopKind,
    NetnsId, Path, Pid, Port, Process, Proto, RouteFound, Socket, StopKind, Unserved,
};

/// How many forwards in a row are followed. Real chains have two or three.
const MAX_HOPS: usize = 16;

/// Where a path has been: a forwarder that leads back is a loop.
pub(super) type Visited = Vec<(NetnsId, Proto, IpAddr, Port)>;

/// Every path that begins at this socket.
pub(super) fn from_socket(facts: &Facts<'_>, socket: &Socket) -> Vec<Path> {
    follow(facts, socket, &mut Vec::new())
}

pub(super) fn follow(facts: &Facts<'_>, socket: &Socket, visited: &mut Visited) -> Vec<Path> {
    let ends = owner::ends(facts, socket);
    let mut paths = Vec::new();
    for mut end in ends {
        let hop = listener(facts, socket, &end);
        reserved::mark(facts, socket, &mut end);
        let forward = end.processes.iter().find_map(|process| {
            let found = forward::of(process, socket)?;
            Some((process.clone(), found))
        });
        let seen = observed::of(facts, socket, &end.processes);
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
        // What was seen tells where the command line doesn't.
        let ways = match (&forward, &seen) {
            (None, Some(seen)) => seen.targets.clone(),
            (Some((_, forward)), Some(seen)) => observed::instead_of(&forward.target, seen),
            (_, None) => Vec::new(),
        };
        let tails = if forward.is_none() && ways.is_empty() {
            observed::note(socket, &mut end, seen.as_ref());
            published_beyond(facts, socket, end)
        } else if visited.contains(&place) || visited.len() >= MAX_HOPS {
            end.ending = Ending::Unknown;
            end.why = Some("the forwards lead in a circle: this step was passed before".to_owned());
            vec![Path { end, ..Path::default() }]
        } else {
            visited.push(place);
            let tails = match (&forward, &seen) {
                (Some((process, forward)), _) if ways.is_empty() => {
                    through(facts, socket, process, forward, end, seen.as_ref(), visited)
                }
                (_, Some(seen)) => {
                    let quote = forward.as_ref().map(|(_, forward)| forward.quote.clone());
                    // An argument that is not believed is worth saying all the same.
                    let said = quote.or(end.why.take());
                    let said = said.map(|said| Evidence::new(EvidenceSource::CommandLine, said));
                    let from = end.processes.first().and_then(|p| p.netns);
                    let ways = observed::shown(facts, socket, &ways, seen);
                    let from = from.unwrap_or(socket.netns);
                    let by = end.processes.first().map(|p| p.pid);
                    let along = |way| along(facts, way, (from, by), &said, visited);
                    ways.iter().flat_map(along).collect()
                }
                _ => Vec::new(),
            };
            visited.pop();
            tails
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
    let mut evidence = vec![Evidence::new(
        EvidenceSource::SocketTable,
        format!("netns {}, inode {}", netns.id, socket.inode),
    )];
    if let Some(process) = end.processes.first() {
        evidence.push(Evidence::new(
            EvidenceSource::Descriptors,
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
        share: None,
    }
}

/// What comes after a forwarder.
fn through(
    facts: &Facts<'_>,
    socket: &Socket,
    process: &Process,
    forward: &Forward,
    forwarder: End,
    seen: Option<&ObservedListener>,
    visited: &mut Visited,
) -> Vec<Path> {
    let from = process.netns.unwrap_or(socket.netns);
    let api = match &forward.target {
        ForwardTarget::Kubernetes { context, .. } | ForwardTarget::KubernetesApi { context } => {
            kube::connected(facts, process, context.as_deref())
        }
        _ => None,
    };
    let lead = relay::of(facts, socket, process, forward);
    let (endpoint, proto, place) = match &lead {
        Some(lead) => (lead.endpoint(), lead.proto, Some(lead.place)),
        None => target(facts, socket, process, forward, from),
    };
    let mut hop = Hop {
        kind: HopKind::Forward,
        netns: place.map(|id| facts.netns_ref(id)),
        endpoint,
        proto,
        detail: forward::words(process, forward),
        socket: None,
        evidence: vec![Evidence::new(EvidenceSource::CommandLine, forward.quote.clone())],
        share: None,
    };
    hop.evidence.extend(lead.iter().flat_map(|lead| lead.evidence.iter().cloned()));
    if process.own_word {
        let detail = format!("pid {} runs a program that is not root's: its own word", process.pid);
        hop.evidence.push(Evidence::new(EvidenceSource::Process, detail));
    }
    if let Some(api) = &api {
        hop.evidence.push(api.evidence.clone());
        let paths = through_api(facts, &hop, (process, from), forward, api, visited);
        if !paths.is_empty() {
            return paths;
        }
    }
    if matches!(
        forward.target,
        ForwardTarget::Address(..) | ForwardTarget::InNetns(..) | ForwardTarget::Host(..)
    ) {
        observed::confirm(&mut hop, seen);
    }
    let (Some(place), Some(address), Some(port)) = (place, hop.endpoint.address, hop.endpoint.port)
    else {
        let mut why = elsewhere(&forward.target);
        // The forwarder stays visible as the last process that is known.
        let mut end = End { ending: Ending::Elsewhere, ..forwarder };
        if let Some(place) = place {
            why = format!("it leads into network namespace {}; {why}", facts.netns_ref(place));
            let inside = facts.containers_of(place);
            if end.containers.is_empty() {
                end.containers = inside.to_vec();
            }
        }
        end.why = Some(why);
        end.cluster = end.cluster.or(api.map(|api| api.cluster()));
        return vec![Path { hops: vec![hop], end, ..Path::default() }];
    };
    let mut paths = arrive(facts, (place, Some(process.pid)), address, port, proto, visited);
    if lead.is_some() && facts.links_of(place).is_empty() {
        past_the_door(facts, (place, address, port, proto), &mut paths, visited);
    }
    if forward.kind == forward::DOCKER_PROXY {
        for path in &mut paths {
            if path.end.stop == Some(StopKind::NoNeighbour) {
                path.end.fix = Some(left_over(process));
            }
        }
    }
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
    lead_by(hop, &mut paths);
    paths
}

/// What comes after kubectl, whose connection tells of which cluster the API is: that API, or
/// the pods of which it chose one. Nothing where it is not known which these are.
fn through_api(
    facts: &Facts<'_>,
    hop: &Hop,
    (process, from): (&Process, NetnsId),
    forward: &Forward,
    api: &kube::ApiConnection,
    visited: &mut Visited,
) -> Vec<Path> {
    let ForwardTarget::Kubernetes { object, namespace, port, .. } = &forward.target else {
        let (address, port) = (api.to.ip(), Port(api.to.port()));
        let endpoint = Endpoint { address: Some(address), name: None, port: Some(port) };
        let by = (from, Some(process.pid));
        let mut paths = arrive(facts, by, address, port, Proto::Tcp, visited);
        lead_by(Hop { endpoint, ..hop.clone() }, &mut paths);
        return paths;
    };
    let Some(chosen) = kube::chosen(facts, api, object, namespace.as_deref(), port) else {
        return Vec::new();
    };
    let mut paths = Vec::new();
    for pod in &chosen.pods {
        let mut tails = match pod.netns {
            Some(netns) => in_pod(facts, netns, pod.port, visited),
            None => {
                let node = pod.node.as_deref().unwrap_or("another node");
                let why = format!("pod {} is on node {node}", pod.name);
                let of = whereis_port_model::Pod {
                    namespace: Some(pod.name.namespace.clone()),
                    name: Some(pod.name.name.clone()),
                    node: pod.node.clone(),
                    ..whereis_port_model::Pod::default()
                };
                let end = End { ending: Ending::Elsewhere, why: Some(why), ..End::default() };
                vec![Path { end: End { pod: Some(of), ..end }, ..Path::default() }]
            }
        };
        for tail in &mut tails {
            tail.end.service.clone_from(&chosen.service);
            tail.end.cluster = tail.end.cluster.take().or_else(|| Some(api.cluster()));
        }
        let name = Some(format!("pod/{}", pod.name.name));
        let mut hop =
            Hop { endpoint: Endpoint { address: None, name, port: Some(pod.port) }, ..hop.clone() };
        if chosen.total > 1 {
            hop.detail.push_str(&format!(" to {object}: one of {} pods", chosen.total));
        }
        if chosen.elsewhere {
            let text = "kubectl chose this pod, and none of a node that was not asked for";
            let one = whereis_port_model::Condition {
                code: whereis_port_model::ConditionCode::NotRead,
                text: text.to_owned(),
            };
            tails.iter_mut().for_each(|tail| tail.conditions.push(one.clone()));
            hop.detail.push_str(", or one on another node");
        }
        lead_by(hop, &mut tails);
        paths.extend(tails);
    }
    paths
}

/// What takes a connection from inside of a pod to its own loopback, where runtimes connect
/// for the API.
fn in_pod(facts: &Facts<'_>, netns: NetnsId, port: Port, visited: &mut Visited) -> Vec<Path> {
    for ipv6 in [false, true] {
        let sockets = at_address(facts, netns, path::loopback(ipv6), port, Proto::Tcp);
        if let Some(socket) = sockets.first() {
            return follow(facts, socket, visited);
        }
    }
    vec![nothing(facts, netns, path::loopback(false), port, Proto::Tcp, false)]
}

/// What comes after a forwarder into a namespace that can't be entered, where its sockets can
/// be read all the same: routes are not known there, and rules stay in the way.
fn past_the_door(
    facts: &Facts<'_>,
    (place, address, port, proto): (NetnsId, IpAddr, Port, Proto),
    paths: &mut [Path],
    visited: &mut Visited,
) {
    let sockets = at_address(facts, place, address, port, proto);
    let beyond = sockets.first().and_then(|s| follow(facts, s, visited).into_iter().next());
    for path in paths {
        path.end = match &beyond {
            Some(beyond) => {
                path.hops.extend(beyond.hops.iter().cloned());
                beyond.end.clone()
            }
            None => {
                let name = facts.netns_ref(place);
                let why = format!("network namespace {name} can't be entered from here");
                let containers = facts.containers_of(place).to_vec();
                End { ending: Ending::Elsewhere, why: Some(why), containers, ..End::default() }
            }
        };
    }
}

/// What mends a docker-proxy whose container is gone: Docker starts one for each port that
/// a container publishes, and ends it with that.
fn left_over(process: &Process) -> Advice {
    let end = Command::new("kill").arg(process.pid.to_string());
    Advice::from(
        "docker-proxy is left over from a container that is gone: restart Docker, or end it: ",
    )
    .command(end)
    .of(FixKind::Start)
}

/// What comes after a process that was seen to connect to there.
fn along(
    facts: &Facts<'_>,
    way: &ObservedDestination,
    (from, by): (NetnsId, Option<Pid>),
    said: &Option<Evidence>,
    visited: &mut Visited,
) -> Vec<Path> {
    let from = way.from.unwrap_or(from);
    let mut hop = way.hop(facts, from);
    hop.evidence.extend(said.clone());
    let mut paths =
        arrive(facts, (from, by), way.to.ip(), Port(way.to.port()), Proto::Tcp, visited);
    lead_by(hop, &mut paths);
    paths
}

/// Puts the step that leads to them in front of paths.
fn lead_by(mut hop: Hop, paths: &mut [Path]) {
    for path in paths {
        // The step leads into the namespace that its target lives in.
        if let Some(next) = path.hops.first().and_then(|h| h.netns.clone()) {
            hop.netns = Some(next);
        }
        path.hops.insert(0, hop.clone());
    }
}

/// The target as an endpoint, and the namespace from which it is addressed when
/// it is an address at all.
fn target(
    facts: &Facts<'_>,
    socket: &Socket,
    process: &Process,
    forward: &Forward,
    from: NetnsId,
) -> (Endpoint, Proto, Option<NetnsId>) {
    let (mut endpoint, mut proto) = forward.target.endpoint();
    if matches!(forward.target, ForwardTarget::Unsaid(_)) {
        proto = socket.proto;
    }
    let place = match &forward.target {
        ForwardTarget::Address(..) => Some(from),
        ForwardTarget::InNetns(path, address, port, _) => {
            let place = named_netns(facts, process, path);
            if place.is_some() {
                let address = address.unwrap_or(whereis_port_model::LOOPBACK4);
                endpoint = Endpoint { address: Some(address), name: None, port: Some(*port) };
            }
            place
        }
        _ => None,
    };
    (endpoint, proto, place)
}

/// The namespace that a forwarder names by a path. The path counts in the
/// forwarder's own mount and PID namespaces: one inside a container says nothing
/// out here, and one that pins several namespaces says nothing certain.
pub(super) fn named_netns(facts: &Facts<'_>, process: &Process, path: &str) -> Option<NetnsId> {
    let inside = !process.containers().is_empty();
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

fn elsewhere(target: &ForwardTarget) -> String {
    match target {
        ForwardTarget::Address(..) => "the target's address is not on this node".to_owned(),
        ForwardTarget::InNetns(path, ..) => format!("the namespace {path} is not visible"),
        ForwardTarget::Host(name, ..) => format!("{name} was not looked up: names are not resolved"),
        ForwardTarget::Kubernetes { object, context, .. } => {
            let context = context.as_ref().map_or_else(String::new, |c| format!(" of context {c}"));
            format!("through the Kubernetes API{context} to {object}")
        }
        ForwardTarget::KubernetesApi { context } => match context {
            Some(context) => format!("to the Kubernetes API of context {context}"),
            None => "to the Kubernetes API of a kubeconfig context; no connection is open that would tell which"
                .to_owned(),
        },
        ForwardTarget::Unix(path) => format!("to the unix socket {path}"),
        ForwardTarget::Remote { via, .. } => format!("resolved and connected by {via}"),
        ForwardTarget::Machine(_, _, what) => format!("inside a virtual machine: {what}"),
        ForwardTarget::Unsaid(what) => {
            format!("it forwards, but its command line does not say where: {what}")
        }
    }
}

/// What happens to a packet that is sent from a namespace, by a process where it is known
/// which, to `address`:`port`.
fn arrive(
    facts: &Facts<'_>,
    (from, by): (NetnsId, Option<Pid>),
    address: IpAddr,
    port: Port,
    proto: Proto,
    visited: &mut Visited,
) -> Vec<Path> {
    // To the unspecified address is to this namespace itself.
    let address = match address.to_canonical() {
        any if any.is_unspecified() => path::loopback(any.is_ipv6()),
        one => one,
    };
    let to = PacketDestination { proto, address, port: port.0 };
    let arrivals = path::from_process(facts, from, by, to, visited);
    arrivals.into_iter().map(path::to_path).collect()
}

pub(super) fn nothing(
    facts: &Facts<'_>,
    place: NetnsId,
    address: IpAddr,
    port: Port,
    proto: Proto,
    ambiguous: bool,
) -> Path {
    let name = facts.netns_ref(place);
    let mut why =
        format!("nothing listens on {port}/{proto} at {address} in network namespace {name}");
    if ambiguous {
        why.push_str(" (several namespaces have this address)");
    }
    Path {
        hops: Vec::new(),
        end: End {
            ending: Ending::Nothing,
            why: Some(why),
            unserved: Some(Unserved { netns: place, proto, at: (address, port.0).into() }),
            ..End::default()
        },
        ..Path::default()
    }
}

pub(super) fn off_node(
    facts: &Facts<'_>,
    from: NetnsId,
    to: PacketDestination,
    route: &RouteFound,
) -> Path {
    let address = to.address;
    let detail = match route.gateway {
        Some(gateway) => format!("leaves this node by next hop {gateway}"),
        None => "on a network this node is attached to".to_owned(),
    };
    let links = facts.links_of(from);
    let device = links.iter().find(|l| Some(l.index) == route.oif);
    let by = device.map_or_else(String::new, |l| format!(", by {}", l.name));
    let hop = Hop {
        kind: HopKind::OffNode,
        netns: None,
        endpoint: Endpoint { address: Some(address), name: None, port: Some(Port(to.port)) },
        proto: to.proto,
        detail: format!("{detail}{by}"),
        socket: None,
        evidence: vec![Evidence::new(
            EvidenceSource::Rtnetlink,
            "no namespace joined to this one has this address",
        )],
        share: None,
    };
    let mut why = format!("no network namespace that is visible on this node has {address}");
    let same = facts.all_addresses().iter().find(|a| a.address == address).cloned();
    if let Some(other) = same {
        let name = facts.netns_ref(other.netns);
        why = format!(
            "network namespace {name} has {address}, but no route and link leads there from here"
        );
    }
    Path {
        hops: vec![hop],
        end: End { ending: Ending::Elsewhere, why: Some(why), ..End::default() },
        ..Path::default()
    }
}
