//! What has a port on which nothing listens: an outgoing connection's own port, what a closed
//! listener left, sockets that are merely bound. Nobody else can be bound there then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};

use super::bind;
use super::facts::{Facts, container_name};
use super::owner;
use super::places_asked;
use super::reserved;
use super::turn;
use whereis_port_model::forward;
use whereis_port_model::{
    Advice, BindAsk, Command, Container, End, Ending, Evidence, EvidenceSource, FixKind, HeldAs,
    HeldSockets, NetnsId, Owners, Path, Pid, Port, PortFacts, PortRange, PortSocket, Process,
    Proto, Query, Scope, SocketFilter, SocketInode, SocketState,
};

/// How many kinds of holders are told of.
const MOST: usize = 64;
/// How many different other ends are looked for on this node.
const PEERS: usize = 16;

/// What has the ports of a question where nothing listens on them, and how many kinds more
/// there are than are told of.
///
/// Where nothing was found at all, every namespace that the question is about is looked into;
/// else the own one and the node's, where they have no listener: that something listens inside
/// a container does not say whether the port is free here.
pub(super) fn of(facts: &Facts<'_>, query: &Query, paths: &[Path]) -> (Vec<HeldSockets>, usize) {
    if query.subject.is_some() {
        return (Vec::new(), 0);
    }
    let listens = |netns: &NetnsId| {
        let first = paths.iter().filter_map(|path| path.hops.first());
        first.filter_map(|hop| hop.socket.as_ref()).any(|socket| socket.netns == *netns)
    };
    let near =
        |netns: &NetnsId| *netns == facts.host.own_netns || Some(*netns) == facts.host.host_netns;
    let mut places = match query.scope {
        Scope::Everywhere => facts.all_netns(),
        // Every namespace has these: the own one is meant. Who has nothing there may have thought
        // of the loopback of another.
        Scope::Address(address) if address.to_canonical().is_loopback() => facts.all_netns(),
        Scope::Address(address) if address.is_unspecified() => vec![facts.host.own_netns],
        Scope::Address(address) => places_asked(facts, query, address.to_canonical()),
    };
    places.retain(|netns| paths.is_empty() || near(netns) && !listens(netns));
    if places.is_empty() {
        return (Vec::new(), 0);
    }
    let sockets = facts.take(facts.world.port_sockets(&places, &query.filter()));
    let asked = match query.scope {
        Scope::Everywhere => None,
        Scope::Address(address) => Some(address),
    };
    let server = |netns, proto, port| {
        BindAsk::server(netns, proto, asked.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), port)
    };
    let blocks = |found: &PortSocket| {
        let s = &found.socket;
        bind::conflict(facts, &server(s.netns, s.proto, s.port), found)
    };
    // A listener at another address is no answer, but it may be in the way of who asks for all.
    let is_told = |found: &&PortSocket| match asked {
        None => !found.socket.state.is_listener(),
        Some(address)
            if address.to_canonical().is_loopback()
                && found.socket.netns != facts.host.own_netns =>
        {
            found.socket.state.is_listener() && blocks(found) == Some(true)
        }
        Some(_) => blocks(found) != Some(false),
    };
    let told: Vec<&PortSocket> = sockets.iter().filter(is_told).collect();
    gather(facts, &told, &blocks)
}

/// Those sockets, with who has each, and those that are alike together.
pub(super) fn gather(
    facts: &Facts<'_>,
    sockets: &[&PortSocket],
    blocks: &dyn Fn(&PortSocket) -> Option<bool>,
) -> (Vec<HeldSockets>, usize) {
    let inodes: BTreeSet<SocketInode> =
        sockets.iter().map(|s| s.socket.inode).filter(|inode| *inode != 0).collect();
    let owners = facts.owners(&inodes);
    let mut roles = Roles { facts, known: BTreeMap::new() };
    let mut groups: BTreeMap<HeldKey, Vec<&PortSocket>> = BTreeMap::new();
    let order = facts.all_netns();
    for found in sockets.iter().filter(|s| !owners.gone.contains(&s.socket.inode)) {
        let s = &found.socket;
        let mut holders: Vec<Pid> = owners.of(s.inode).iter().map(|owner| owner.pid).collect();
        holders.dedup();
        let key = HeldKey {
            place: order.iter().position(|netns| *netns == s.netns),
            port: s.port,
            proto: s.proto,
            role: roles.of(found),
            // Of what nobody has, the user and cgroup tell most.
            unheld: holders.is_empty().then_some((s.uid, s.cgroup_id)),
            holders,
        };
        groups.entry(key).or_default().push(found);
    }
    let more = groups.len().saturating_sub(MOST);
    let held = groups.into_iter().take(MOST);
    let held = held.filter_map(|(key, group)| one(facts, key.role, &group, &owners, blocks));
    (of_listeners(held.collect()), more)
}

/// What a process accepted is told with its listener where that is in the way, too: both end with
/// it. Of what others have of a listener that is there, it is not said that it was closed.
fn of_listeners(all: Vec<HeldSockets>) -> Vec<HeldSockets> {
    let place =
        |held: &HeldSockets| (held.netns.id, held.socket.socket.port, held.socket.socket.proto);
    let pid = |held: &HeldSockets| held.end.processes.first().map(|process| process.pid);
    let listens = |held: &&HeldSockets| held.role == HeldAs::Listener && held.blocks == Some(true);
    let listeners: Vec<_> = all.iter().filter(listens).map(|l| (place(l), pid(l))).collect();
    let told = |mut held: HeldSockets| {
        let at = place(&held);
        let here = || listeners.iter().filter(|(place, _)| *place == at);
        match held.role {
            _ if here().next().is_none() => Some(held),
            HeldAs::Unaccepted => None,
            HeldAs::LikelyAccepted | HeldAs::Connection => {
                let own = pid(&held);
                held.role = HeldAs::Connection;
                let is_own = own.is_some() && here().any(|(_, listener)| *listener == own);
                (!is_own).then_some(held)
            }
            _ => Some(held),
        }
    };
    if listeners.is_empty() { all } else { all.into_iter().filter_map(told).collect() }
}

/// What makes sockets alike, in the order in which they are told.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct HeldKey {
    place: Option<usize>,
    port: Port,
    proto: Proto,
    role: HeldAs,
    holders: Vec<Pid>,
    unheld: Option<(u32, Option<u64>)>,
}

fn one(
    facts: &Facts<'_>,
    role: HeldAs,
    group: &[&PortSocket],
    owners: &Owners,
    blocks: &dyn Fn(&PortSocket) -> Option<bool>,
) -> Option<HeldSockets> {
    let first = *group.iter().max_by_key(|found| {
        (found.expires_ms, std::cmp::Reverse((found.peer, found.socket.address)))
    })?;
    let each: Vec<Option<bool>> = group.iter().map(|found| blocks(found)).collect();
    let blocks = if each.contains(&Some(true)) {
        Some(true)
    } else if each.contains(&None) {
        None
    } else {
        Some(false)
    };
    let settings = port_facts(facts, first.socket.netns);
    let end = end(facts, first, role, owners);
    let ephemeral = settings.gives_out(first.socket.port);
    let fix = fix(facts, role, first, &end, &settings);
    Some(HeldSockets {
        netns: facts.netns_ref(first.socket.netns),
        role,
        socket: first.clone(),
        count: group.len(),
        ephemeral,
        blocks,
        end,
        fix,
    })
}

/// What decides who may have a port there.
pub(super) fn port_facts(facts: &Facts<'_>, netns: NetnsId) -> PortFacts {
    let known = facts.take(facts.world.port_facts(&[netns]));
    known.first().cloned().unwrap_or_else(|| PortFacts::unknown(netns))
}

/// Who has it.
fn end(facts: &Facts<'_>, found: &PortSocket, role: HeldAs, owners: &Owners) -> End {
    let socket = &found.socket;
    if socket.inode == 0 && (role == HeldAs::TimeWait || role == HeldAs::Closing) {
        let why = "no process has it any more: the kernel keeps it until it has surely ended";
        return End { ending: Ending::Kernel, why: Some(why.to_owned()), ..End::default() };
    }
    let mut ends = owner::held_by(facts, socket, owners).into_iter();
    let mut end = ends.next().unwrap_or_default();
    // One that several containers share is told of the first, with the processes of all.
    end.processes.extend(ends.flat_map(|other| other.processes));
    let holders = owners.of(socket.inode);
    if let Some(process) = end.processes.first()
        && let Some(owner) = holders.iter().find(|owner| owner.pid == process.pid)
    {
        let detail = format!("/proc/{}/fd/{} is socket:[{}]", owner.pid, owner.fd, socket.inode);
        end.evidence.push(Evidence::new(EvidenceSource::Descriptors, detail));
    }
    turn::by_unit(facts, &mut end, socket);
    end
}

/// Tells what sockets have their ports for.
struct Roles<'a, 'b> {
    facts: &'a Facts<'b>,
    /// Whether something listens at the other end, of those ends that were looked at.
    known: BTreeMap<(NetnsId, SocketAddr), bool>,
}

impl Roles<'_, '_> {
    fn of(&mut self, found: &PortSocket) -> HeldAs {
        let socket = &found.socket;
        match socket.state {
            SocketState::Listen | SocketState::Unconnected => HeldAs::Listener,
            SocketState::Bound => HeldAs::Bound,
            SocketState::TimeWait => HeldAs::TimeWait,
            // Of FIN_WAIT2, what no process has is as little as TIME_WAIT.
            _ if found.expires_ms.is_some() => HeldAs::TimeWait,
            _ if socket.proto == Proto::Udp => HeldAs::ConnectedUdp,
            SocketState::SynReceived => HeldAs::Unaccepted,
            SocketState::FinWait1
            | SocketState::FinWait2
            | SocketState::LastAck
            | SocketState::Closing
                if socket.inode == 0 =>
            {
                HeldAs::Closing
            }
            _ if socket.inode == 0 => HeldAs::Unaccepted,
            SocketState::SynSent => HeldAs::Outgoing,
            _ => self.direction(found),
        }
    }

    /// The kernel does not keep who made a connection. A listener at the other end says it, or
    /// else which of both ports is one that the kernel gives out.
    fn direction(&mut self, found: &PortSocket) -> HeldAs {
        let (netns, Some(peer)) = (found.socket.netns, found.peer) else {
            return HeldAs::Connection;
        };
        if self.listens(netns, peer) {
            return HeldAs::Outgoing;
        }
        let settings = port_facts(self.facts, netns);
        let given_out = |port| settings.ephemeral.map(|range| range.contains(port));
        match (given_out(found.socket.port), given_out(Port(peer.port()))) {
            (Some(true), Some(false)) => HeldAs::LikelyOutgoing,
            (Some(false), Some(true)) => HeldAs::LikelyAccepted,
            _ => HeldAs::Connection,
        }
    }

    /// Whether something listens in the namespace where a peer is its own address.
    fn listens(&mut self, netns: NetnsId, peer: SocketAddr) -> bool {
        if let Some(known) = self.known.get(&(netns, peer)) {
            return *known;
        }
        let to = peer.ip().to_canonical();
        let is_own = || {
            let addresses = self.facts.addresses_of(netns);
            to.is_loopback() || addresses.iter().any(|a| a.address == to)
        };
        if self.known.len() >= PEERS || !is_own() {
            return false;
        }
        let ports = Some(PortRange::one(Port(peer.port())));
        let filter = SocketFilter { proto: Some(Proto::Tcp), ports };
        let sockets = self.facts.take(self.facts.world.sockets(&[netns], &filter));
        let listens = sockets.iter().any(|socket| socket.match_rank(to).is_some());
        self.known.insert((netns, peer), listens);
        listens
    }
}

/// What would free the port.
fn fix(
    facts: &Facts<'_>,
    role: HeldAs,
    found: &PortSocket,
    end: &End,
    settings: &PortFacts,
) -> Option<Advice> {
    let free = |advice: Advice| advice.of(FixKind::FreePort);
    // It comes back with the Service that it keeps the port for, and without it none works.
    if reserved::is_of_kube_proxy(&end.processes) && owner::may_be_node_port(&found.socket) {
        let words = "use another port, or give the Service that has this NodePort another one";
        return Some(free(Advice::from(words)));
    }
    let stop = || match end.processes.first().filter(|process| is_proxy(process, found)) {
        // What is in its unit, or started by it, is the engine: not all of that is to end.
        Some(proxy) => published(facts, found, end).or_else(|| Some(turn::kill(proxy))).map(free),
        // An engine, and kube-proxy, have one for each port that they keep from others.
        None if reserved::may_be(end) => None,
        None => turn::stop(end).map(free),
    };
    match role {
        HeldAs::TimeWait | HeldAs::Closing => {
            let wait = match found.expires_ms {
                Some(ms) => format!("wait {} s", ms.div_ceil(1000)),
                None => "wait until it has ended".to_owned(),
            };
            let reuse = "; or bind with SO_REUSEADDR, which helps if its socket had that, too";
            Some(free(Advice::from(format!("{wait}{reuse}"))))
        }
        HeldAs::Outgoing | HeldAs::LikelyOutgoing | HeldAs::ConnectedUdp => {
            let keep = keep_free(found.socket.port, settings);
            match (stop(), keep) {
                (Some(stop), Some(keep)) => {
                    Some(stop.and("; so that it does not come again: ", keep))
                }
                (stop, keep) => stop.or(keep),
            }
        }
        HeldAs::Bound | HeldAs::Listener => published(facts, found, end).map(free).or_else(stop),
        HeldAs::LikelyAccepted | HeldAs::Connection => stop().map(|stop| {
            let reuse = "bind with SO_REUSEADDR, which helps if its socket had that, too";
            stop.or(Advice::from(reuse))
        }),
        HeldAs::Unaccepted => stop(),
    }
}

/// What makes the kernel give the port to nobody who asks for none.
fn keep_free(port: Port, settings: &PortFacts) -> Option<Advice> {
    if settings.gives_out(port) != Some(true) {
        return None;
    }
    let mut reserved: Vec<String> = Vec::new();
    for range in settings.reserved.iter().flatten() {
        reserved.push(match range.first == range.last {
            true => range.first.to_string(),
            false => format!("{}-{}", range.first, range.last),
        });
    }
    /// A list that is longer is for its owner to edit.
    const SHORT: usize = 8;
    let list = |mut all: Vec<String>| {
        all.push(port.to_string());
        format!("net.ipv4.ip_local_reserved_ports={}", all.join(","))
    };
    Some(match reserved.len() {
        0..=SHORT => Advice::new().command(Command::new("sysctl -w").arg(list(reserved))),
        _ => Advice::from(format!("add {port} to net.ipv4.ip_local_reserved_ports")),
    })
}

/// A container engine without a proxy of its own binds the port of what it publishes, and
/// leaves the rest to rules.
fn published(facts: &Facts<'_>, found: &PortSocket, end: &End) -> Option<Advice> {
    let socket = &found.socket;
    let is_engine = end.processes.first().is_some_and(|process| !process.own_word);
    if !is_engine || !end.containers.is_empty() {
        return None;
    }
    let publishes = |container: &&Container| {
        container.ports.iter().any(|published| {
            published.host_port == Some(socket.port) && published.proto == socket.proto
        })
    };
    let containers = facts.take(facts.world.containers());
    let container = containers.iter().find(publishes)?;
    let stop = turn::of_container(container, end.processes.first()?)?;
    let about = Advice::from("it keeps the port for container ").name(container_name(container));
    Some(about.and(", which publishes it: ", stop))
}

/// Whether a holder is the proxy that an engine starts for each port that is published.
fn is_proxy(process: &Process, found: &PortSocket) -> bool {
    !process.own_word
        && forward::is_its_program(process)
        && forward::of(process, &found.socket).is_some_and(|f| f.kind == forward::DOCKER_PROXY)
}
