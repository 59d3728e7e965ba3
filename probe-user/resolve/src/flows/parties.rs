//! Who is at the ends of connections, where that is on this node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use crate::facts::{Facts, container_name};
use whereis_port_model::{
    Flow, FlowClient, FlowCounts, NetnsId, Party, PortSocket, Proto, SocketFilter, SocketInode,
};

/// Of how many connections the ends are looked for.
const NAMED: usize = 4096;

/// One end: the namespace that tracks the connection, its address there, and the other one.
type TrackedEnd = (NetnsId, SocketAddr, SocketAddr);

/// Who is at each end that is on this node.
pub(super) fn of(facts: &Facts<'_>, flows: &[Flow]) -> BTreeMap<(NetnsId, SocketAddr), Party> {
    let mut having: HashMap<IpAddr, Vec<NetnsId>> = HashMap::new();
    for one in facts.all_addresses().iter() {
        having.entry(one.address).or_default().push(one.netns);
    }
    let mut ends: BTreeMap<(TrackedEnd, Proto), Vec<NetnsId>> = BTreeMap::new();
    for flow in flows.iter().take(NAMED) {
        let both = [(flow.source, flow.destination), (flow.served_by, flow.seen_as)];
        for (own, other) in both {
            // Every namespace has a loopback of its own.
            let places = match own.ip().is_loopback() {
                true => vec![flow.netns],
                false => having.get(&own.ip()).cloned().unwrap_or_default(),
            };
            if !places.is_empty() {
                ends.insert(((flow.netns, own, other), flow.proto), places);
            }
        }
    }
    let places: BTreeSet<NetnsId> = ends.values().flatten().copied().collect();
    let places: Vec<NetnsId> =
        facts.all_netns().into_iter().filter(|id| places.contains(id)).collect();
    if places.is_empty() {
        return BTreeMap::new();
    }
    // A name that can't be told is no gap of what was asked.
    let sockets = facts.world.port_sockets(&places, &SocketFilter::ALL).value;
    let mut at: HashMap<(NetnsId, Proto, u16), Vec<&PortSocket>> = HashMap::new();
    for one in sockets.iter() {
        let socket = &one.socket;
        at.entry((socket.netns, socket.proto, socket.port.0)).or_default().push(one);
    }
    let mut found: Vec<((NetnsId, SocketAddr), NetnsId, Option<SocketInode>)> = Vec::new();
    for (((tracked, own, other), proto), places) in &ends {
        let pick = |netns: &NetnsId| {
            let all = at.get(&(*netns, *proto, own.port()))?;
            let best = all.iter().filter_map(|one| Some((rank(one, *own, *other)?, *one)));
            best.max_by_key(|(rank, _)| *rank).map(|(_, one)| (*netns, one.socket.inode))
        };
        match places.iter().find_map(pick) {
            Some((netns, inode)) => {
                found.push(((*tracked, *own), netns, Some(inode).filter(|inode| *inode != 0)));
            }
            None => {
                if let [only] = places.as_slice() {
                    found.push(((*tracked, *own), *only, None));
                }
            }
        }
    }
    let inodes: BTreeSet<SocketInode> = found.iter().filter_map(|(_, _, inode)| *inode).collect();
    let owners = facts.world.owners(&inodes).value;
    let party = |netns: NetnsId, inode: Option<SocketInode>| {
        let pid = inode.and_then(|inode| owners.of(inode).first()).map(|owner| owner.pid);
        let process = pid.and_then(|pid| facts.world.processes(&[pid]).value.first().cloned());
        let containers = match &process {
            Some(process) => facts.containers(&process.containers(), process.pid),
            None => facts.containers_of(netns).to_vec(),
        };
        let last = containers.last();
        let pod = last.and_then(|container| container.pod.as_ref());
        let pod = pod.and_then(|pod| match (&pod.namespace, &pod.name) {
            (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
            (None, Some(name)) => Some(name.clone()),
            _ => None,
        });
        Party {
            netns: facts.netns_ref(netns).to_string(),
            process: process.map(|process| (process.pid, process.name().to_owned())),
            container: last.map(container_name),
            pod,
        }
    };
    found.into_iter().map(|(end, netns, inode)| (end, party(netns, inode))).collect()
}

/// How well a socket fits an end: one with this peer best, then one without a peer at the
/// address, then one at all addresses.
fn rank(one: &PortSocket, own: SocketAddr, other: SocketAddr) -> Option<u8> {
    let bound = one.socket.match_rank(own.ip())?;
    match one.peer.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port())) {
        Some(peer) if peer == other => Some(8),
        Some(_) => None,
        None => Some(bound),
    }
}

/// The clients of connections that go on, those who send and get most first.
pub(super) fn clients(
    flows: &[&Flow],
    parties: &BTreeMap<(NetnsId, SocketAddr), Party>,
) -> Vec<FlowClient> {
    let mut all: BTreeMap<(IpAddr, Option<&Party>), FlowClient> = BTreeMap::new();
    for flow in flows {
        let party = parties.get(&(flow.netns, flow.source));
        let address = flow.source.ip();
        let new = || FlowClient {
            address,
            party: party.cloned(),
            connections: 0,
            counts: Some(FlowCounts::default()),
        };
        let client = all.entry((address, party)).or_insert_with(new);
        client.connections += 1;
        client.counts = client.counts.zip(flow.counts).map(|(known, more)| known.and(more));
    }
    let mut all: Vec<FlowClient> = all.into_values().collect();
    all.sort_by_key(|one| {
        let bytes = one.counts.map_or(0, FlowCounts::bytes);
        (std::cmp::Reverse((bytes, one.connections)), one.address)
    });
    all
}
