//! Every listener of the node, one row each, and every port that only rules or load
//! balancers take.

mod cilium;
mod reached;
mod taken;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::component;
use super::facts::{Facts, container_name};
use super::owner;
use super::published;
use super::relay;
use super::reserved;
use whereis_port_model::Node;
use whereis_port_model::forward;
use whereis_port_model::{
    End, Ending, Endpoint, HopKind, Impact, ListRow, Listing, NetnsId, Owners, Pid, PortKind,
    PortRange, Process, Proto, Socket, SocketFilter, SocketInode, StartTime, StopKind,
};

pub use reached::add as add_reached;

/// Which rows are wanted. What is `None` or empty does not filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only this protocol.
    pub proto: Option<Proto>,
    /// Only these ports.
    pub ports: Option<PortRange>,
    /// Only IPv4 (`Some(true)`) or only IPv6 sockets.
    pub ipv4: Option<bool>,
    /// Only namespaces with this name or inode number.
    pub netns: Option<String>,
    /// Only sockets that this process holds.
    pub pid: Option<Pid>,
    /// Only sockets of containers whose name contains this, or whose id begins
    /// with it.
    pub container: Option<String>,
    /// Only sockets held by processes whose name contains this.
    pub process: Option<String>,
}

/// Lists the node's listeners.
pub fn list(node: &dyn Node, filter: &ListFilter) -> Listing {
    within(&Facts::new(node), filter)
}

/// The same, of facts that share a budget with others.
pub(super) fn within(facts: &Facts<'_>, filter: &ListFilter) -> Listing {
    let asked = SocketFilter { proto: filter.proto, ports: filter.ports };
    facts.world.prefetch_sockets(&asked);
    let mut places = facts.all_netns();
    if let Some(wanted) = &filter.netns {
        places.retain(|id| {
            id.inode().is_some_and(|i| i.to_string() == *wanted)
                || facts.netns_ref(*id).name.is_some_and(|name| name.is(wanted))
        });
    }
    let mut sockets = facts.take(facts.world.sockets(&places, &asked)).to_vec();
    if let Some(ipv4) = filter.ipv4 {
        sockets.retain(|s| s.address.is_ipv4() == ipv4);
    }
    facts.sort(&mut sockets);
    let mut rows = rows(facts, sockets);
    taken::add(facts, &places, filter, &mut rows);
    for row in &mut rows {
        published::name_row(facts, row);
    }
    let mut rows: Vec<ListRow> = rows.into_iter().filter(|row| passes(row, filter)).collect();
    for row in &mut rows {
        row.component = component::of_row(row);
    }
    facts.say_cut(Impact::Port);
    if rows.is_empty() {
        super::hidden(facts);
    }
    Listing { rows, gaps: facts.gaps() }
}

fn rows(facts: &Facts<'_>, sockets: Vec<Socket>) -> Vec<ListRow> {
    let inodes: BTreeSet<SocketInode> = sockets.iter().map(|s| s.inode).collect();
    // All owners in one pass.
    let owners = facts.owners(&inodes);
    let mut known = EndCache::default();
    let mut rows = Vec::with_capacity(sockets.len());
    for socket in sockets {
        let netns = facts.netns_ref(socket.netns);
        for one in &*ends(facts, &socket, &owners, &mut known) {
            let mut end = Rc::clone(&one.end);
            let (mut target, mut target_detail) = (None, None);
            let mut forwarder = None;
            if one.forwards {
                if let Some(found) = leads_to(facts, &socket, &end) {
                    forwarder = Some(found.kind);
                    (target, target_detail) = (Some(found.to), Some(found.detail));
                    if let Some(place) = found.place {
                        published::name(facts, place, None, &mut end);
                    }
                }
            } else if reserved::may_be(&end) && !reserved::is_of_kube_proxy(&end.processes) {
                let mut marked = (*end).clone();
                reserved::mark(facts, &socket, &mut marked);
                end = Rc::new(marked);
            }
            let kernel = end.ending == Ending::Kernel;
            let port_kind = kind_of(&end, forwarder);
            rows.push(ListRow {
                netns: netns.clone(),
                kind: if kernel { HopKind::Kernel } else { HopKind::Listener },
                port_kind,
                reached: None,
                proto: socket.proto,
                address: socket.address,
                port: socket.port,
                socket: Some(socket.clone()),
                taken_by: None,
                service: None,
                end,
                component: None,
                target,
                others: Vec::new(),
                more: 0,
                target_detail,
            });
        }
    }
    rows
}

/// An end, and whether one of its processes is a forwarder.
struct SharedEnd {
    end: Rc<End>,
    forwards: bool,
}

/// What an end depends on: the namespace, whether a NodePort service could have
/// the port, and the holders. Servers with thousands of listeners are few.
type EndKey = (NetnsId, bool, Vec<(Pid, StartTime)>);

/// The ends of sockets, by what they depend on.
#[derive(Default)]
struct EndCache {
    all: HashMap<EndKey, Rc<[SharedEnd]>>,
    last: Option<(EndKey, Rc<[SharedEnd]>)>,
}

/// The ends of a socket, from `known` if one of the same holders was there before.
fn ends(
    facts: &Facts<'_>,
    socket: &Socket,
    owners: &Owners,
    known: &mut EndCache,
) -> Rc<[SharedEnd]> {
    let holders = owners.of(socket.inode).iter().map(|owner| (owner.pid, owner.start));
    let key = (socket.netns, owner::may_be_node_port(socket), holders.collect::<Vec<_>>());
    let find = || {
        let ends = owner::held_by(facts, socket, owners).into_iter();
        let shared = |end| {
            let forwards = forwarders(&end).next().is_some();
            SharedEnd { end: Rc::new(end), forwards }
        };
        ends.map(shared).collect()
    };
    // What has no holder is explained by the socket itself.
    if key.2.is_empty() {
        return find();
    }
    // Most often it is the same as just before, which needs no look-up.
    match &known.last {
        Some((last, ends)) if *last == key => Rc::clone(ends),
        _ => {
            let ends = Rc::clone(known.all.entry(key.clone()).or_insert_with(find));
            known.last = Some((key, Rc::clone(&ends)));
            ends
        }
    }
}

/// The forwarders that publish ports of containers.
const PUBLISHERS: [&str; 5] = [
    forward::DOCKER_PROXY,
    forward::PASTA,
    forward::ROOTLESSKIT,
    forward::ROOTLESSPORT,
    forward::SLIRP4NETNS,
];

/// What kind of port a socket is; rules that it stands for may know better.
fn kind_of(end: &End, forwarder: Option<&str>) -> PortKind {
    match (end.stop, forwarder) {
        _ if end.ending == Ending::Kernel => PortKind::Kernel,
        (Some(StopKind::Reserved), _) if end.containers.is_empty() => PortKind::Service,
        (Some(StopKind::Reserved), _) => PortKind::Published,
        (_, Some(kind)) if PUBLISHERS.contains(&kind) => PortKind::Published,
        (_, Some(_)) => PortKind::Forward,
        _ => PortKind::Listener,
    }
}

fn forwarders(end: &End) -> impl Iterator<Item = &Process> {
    end.processes.iter().filter(|p| forward::is_its_program(p) && forward::is_forwarder(p))
}

/// Where a forwarder's row leads.
struct LeadsTo {
    /// The kind of forwarder.
    kind: &'static str,
    to: Endpoint,
    detail: String,
    /// The namespace that it leads into, where the forwarder shows it.
    place: Option<NetnsId>,
}

/// Where a forwarder's row leads, as its command line says, or what it shows beyond that.
fn leads_to(facts: &Facts<'_>, socket: &Socket, end: &End) -> Option<LeadsTo> {
    let found = forwarders(end).find_map(|p| Some((p, forward::of(p, socket)?)));
    let (process, forward) = found?;
    let lead = relay::of(facts, socket, process, &forward);
    let place = lead.as_ref().map(|lead| lead.place);
    let said = lead.filter(|lead| lead.to.is_some()).map(|lead| lead.endpoint());
    let to = said.unwrap_or_else(|| forward.target.endpoint().0);
    let kind = forward.kind;
    Some(LeadsTo { kind, to, detail: forward::words(process, &forward), place })
}

fn passes(row: &ListRow, filter: &ListFilter) -> bool {
    let end = &row.end;
    filter.pid.is_none_or(|pid| end.processes.iter().any(|p| p.pid == pid))
        && filter
            .process
            .as_ref()
            .is_none_or(|name| end.processes.iter().any(|p| p.name().contains(name.as_str())))
        && filter.container.as_ref().is_none_or(|name| {
            end.containers.iter().any(|c| {
                container_name(c).contains(name.as_str()) || c.id.starts_with(name.as_str())
            })
        })
}
