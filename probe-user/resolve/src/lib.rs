//! From facts and a question to an answer. No I/O, no clock, and it can't fail:
//! what is missing becomes a gap of the answer.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "what tests read they have made themselves")
)]

mod audit;
mod beside;
mod bind;
mod budget;
mod certificate;
mod cluster;
mod component;
mod conflict;
mod diff;
mod dropped;
mod event;
mod facts;
mod few;
mod flows;
mod free;
mod from_node;
mod health;
mod held;
mod history;
mod kube;
mod learn;
mod list;
mod observed;
mod owner;
mod path;
mod place;
mod publish;
mod published;
mod reach;
mod relay;
mod reserved;
mod reverse;
mod route;
mod ruled;
mod sender;
mod tried;
mod turn;
mod unix;
mod walk;
mod world;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

pub use audit::{AuditOptions, AuditPolicy, Profiles, TomlError, audit};
pub use bind::{BindQuestion, bind};
pub use certificate::add as add_certificates;
pub use diff::{baseline, diff};
pub use dropped::{add_dropped, dropped_by};
pub use event::{concerns, listening, queues, trace, unnamed};
pub use flows::add as add_flows;
pub use free::free_ports;
pub use history::history;
pub use kube::{name_services, read as read_kube};
pub use learn::{Learner, WINDOW};
pub use list::{ListFilter, add_reached, list};
pub use reverse::reverse;
pub use sender::answer_for;
pub use tried::add_tried;
pub use unix::{list_others, unix};

use facts::Facts;
use whereis_port_model::Node;
use whereis_port_model::{
    Answer, Capability, Command, Container, Ending, Gap, GapKind, GapSource, Impact, KernelPort,
    NetnsId, Path, Query, RouteKind, RouteQuery, Runtime, Scope, Socket, SocketInode, Verdict,
};

/// Answers one question from the facts of a node.
pub fn answer(node: &dyn Node, query: &Query) -> Answer {
    answer_of(node, query, &|_| true)
}

/// The same, of those paths only that begin at an address in a namespace, or, where none
/// does, anywhere in the namespace.
pub fn answer_at(node: &dyn Node, query: &Query, netns: NetnsId, address: IpAddr) -> Answer {
    let facts = Facts::new(node);
    let first =
        |path: &Path| path.hops.first().map(|hop| (hop.netns.clone(), hop.endpoint.address));
    let here = |path: &Path| {
        first(path).is_some_and(|(place, _)| place.is_some_and(|place| place.id == netns))
    };
    let at = |path: &Path| here(path) && first(path).is_some_and(|(_, a)| a == Some(address));
    let mut answer = answer_within(&facts, query, &at);
    if answer.paths.is_empty() {
        answer = answer_within(&facts.again(), query, &here);
    }
    // A loopback's other addresses are only tried where somebody in the namespace asks for
    // them: Docker's resolver at 127.0.0.11. Nobody else reaches them.
    if answer.paths.is_empty() && address.to_canonical().is_loopback() {
        let query = Query { scope: Scope::Address(address), ..query.clone() };
        let mut facts = facts.again();
        facts.host.own_netns = netns;
        let named = answer_from(&facts, &query, &here);
        if !named.paths.is_empty() {
            return Answer { reach: Vec::new(), ..named };
        }
    }
    answer
}

/// The same, of one namespace, by the name that answers show or its inode number.
///
/// # Errors
/// That no namespace is called so, or several are.
pub fn answer_in(node: &dyn Node, query: &Query, netns: &str) -> Result<Answer, String> {
    let facts = Facts::new(node);
    let netns = find_netns(&facts, netns)?;
    let here = |path: &Path| {
        path.hops.first().and_then(|hop| hop.netns.as_ref()).is_some_and(|place| place.id == netns)
    };
    let place = facts.netns_ref(netns);
    let mut facts = facts.again();
    // The loopback that is meant is that of the namespace.
    if matches!(query.scope, Scope::Address(address) if address.to_canonical().is_loopback()) {
        facts.host.own_netns = netns;
    }
    Ok(Answer { within: Some(place), ..answer_within(&facts, query, &here) })
}

/// The same, of those paths only that are wanted.
fn answer_of(node: &dyn Node, query: &Query, wanted: &dyn Fn(&Path) -> bool) -> Answer {
    answer_within(&Facts::new(node), query, wanted)
}

fn answer_within(facts: &Facts<'_>, query: &Query, wanted: &dyn Fn(&Path) -> bool) -> Answer {
    facts.world.prefetch_sockets(&query.filter());
    answer_from(facts, query, wanted)
}

fn answer_from(facts: &Facts<'_>, query: &Query, wanted: &dyn Fn(&Path) -> bool) -> Answer {
    let sockets = matching(facts, query);
    // One pass over the descriptors for all of them.
    let inodes: BTreeSet<SocketInode> = sockets.iter().map(|s| s.inode).collect();
    if !inodes.is_empty() {
        facts.owners(&inodes);
    }
    let mut paths: Vec<Path> = sockets.iter().flat_map(|s| walk::from_socket(facts, s)).collect();
    let (mut tried, indifferent) = ruled::try_all(facts, query, &sockets);
    paths.extend(ruled::paths(facts, &tried));
    if paths.is_empty() {
        paths = kernel_only(facts, query);
    }
    if paths.is_empty() {
        paths = published_only(facts, query);
    }
    // What others have in namespaces of their own is not what an address has here.
    let own = facts.host.own_netns;
    let begins_here = |path: &Path| {
        path.hops.first().and_then(|hop| hop.netns.as_ref()).is_none_or(|place| place.id == own)
    };
    if paths.iter().any(begins_here) {
        let external = ruled::external(facts, query);
        paths.extend(ruled::paths(facts, &external));
        tried.extend(external);
    } else {
        let places = if paths.is_empty() { facts.all_netns() } else { vec![own] };
        let services = ruled::services(facts, query, &places);
        paths.splice(..0, ruled::paths(facts, &services));
        tried.extend(services);
    }
    if let Scope::Address(address) = query.scope
        && paths.is_empty()
    {
        unheld(facts, query, address.to_canonical());
    }
    if paths.is_empty() {
        ruled::say_indifferent(facts, &indifferent);
    }
    cluster::name(facts, &mut paths);
    let joined = kube::join(facts, query, &mut paths, wanted);
    paths.retain(wanted);
    facts.say_cut(Impact::Port);
    let verdict = verdict(facts, &paths);
    let (held, more_held) = held::of(facts, query, &paths);
    let mut reach = reach::of(facts, query, &mut paths, &tried);
    facts.say_cut(Impact::Reach);
    kube::complete(&joined, &paths, &mut reach);
    let would = published::would(facts, query, &paths);
    let mut findings = health::check(facts, &paths, &mut reach);
    let beside = beside::check(facts, query, &paths);
    let is_said = !beside.is_empty();
    findings.extend(beside);
    reserved::fold(&mut paths);
    findings.extend(would);
    findings.extend(path::leftover::check(facts, query, &paths));
    findings.extend(bind::refusers(facts, query, &paths));
    findings.extend(joined.findings.iter().cloned());
    findings.extend(joined.unserved.iter().filter(|_| !is_said).cloned());
    let drops = health::drops(facts, &paths);
    turn::complete(facts, &mut paths);
    let mut gaps = facts.gaps();
    gaps.retain(|gap| !joined.fills(gap));
    if paths.is_empty() {
        // There is nothing whose name could be missing. But an API may know of a port that
        // no rule takes.
        gaps.retain(|gap| gap.impact != Impact::Name || facts.is_of_api(gap));
    }
    if verdict != Verdict::NotFound {
        // Only "surely nothing" needs to know of everything that could hold the port.
        gaps.retain(|gap| gap.impact != Impact::Bind);
    }
    Answer {
        query: query.clone(),
        sender: None,
        verdict,
        paths,
        more: facts.unshown(),
        reach,
        drops,
        held,
        more_held,
        within: None,
        flows: None,
        gaps,
        findings,
    }
}

/// The sockets that the question is about: the own namespace's first, then the
/// host's, then the others'.
fn matching(facts: &Facts<'_>, query: &Query) -> Vec<Socket> {
    let filter = query.filter();
    let places: Vec<NetnsId> = match query.scope {
        Scope::Everywhere => facts.all_netns(),
        Scope::Address(address) => places_asked(facts, query, address.to_canonical()),
    };
    let mut sockets = facts.take(facts.world.sockets(&places, &filter)).to_vec();
    if let Scope::Address(address) = query.scope {
        if let Some(zone) = &query.zone {
            let links = facts.links_of(facts.host.own_netns);
            let index = links.iter().find(|link| link.name == *zone).map(|link| link.index);
            // Of somebody else on that link it is their interface that has this address.
            let is_other = |s: &Socket| s.netns != facts.host.own_netns;
            sockets.retain(|s| s.ifindex.is_none() || s.ifindex == index || is_other(s));
        }
        sockets = nearest(sockets, address);
        // Every namespace has a loopback; a connection from here means this one's. Of the
        // unspecified address the others' are of interest when nothing is there.
        let here = |s: &Socket| s.netns == facts.host.own_netns;
        let to = address.to_canonical();
        if to.is_loopback() || to.is_unspecified() && sockets.iter().any(here) {
            sockets.retain(here);
        }
    }
    facts.sort(&mut sockets);
    sockets
}

/// The namespaces that a question about an address is about: with an interface, the own one
/// alone.
fn places_asked(facts: &Facts<'_>, query: &Query, address: IpAddr) -> Vec<NetnsId> {
    let Some(zone) = &query.zone else { return places_of(facts, address) };
    let own = facts.host.own_netns;
    let links = facts.links_of(own);
    let index = links.iter().find(|link| link.name == *zone).map(|link| link.index);
    let all = facts.addresses_of(own);
    // An address of a link alone is one of this interface, or of nobody here.
    let is_narrow = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
    let has = all.iter().any(|a| a.address == address && Some(a.ifindex) == index);
    // Or of somebody of this node on that link.
    if has || !is_narrow {
        return vec![own];
    }
    let mut others = place::locate(facts, own, address);
    others.retain(|id| *id != own && index.is_some());
    others
}

/// The namespaces that take packets to an address.
fn places_of(facts: &Facts<'_>, address: IpAddr) -> Vec<NetnsId> {
    let broadcast = matches!(address, IpAddr::V4(a) if a.is_broadcast());
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || broadcast {
        return facts.all_netns();
    }
    let all = facts.all_addresses();
    let of_address = all.iter().filter(|a| a.address == address);
    let mut places: Vec<NetnsId> = of_address.map(|a| a.netns).collect();
    places.dedup();
    if places.is_empty() {
        // A route can make a namespace take what no interface of it has.
        let takes = |netns: &NetnsId| {
            let query = RouteQuery::new(*netns, address, 0);
            facts.take(facts.world.route(&query)).is_some_and(|r| r.kind == RouteKind::Local)
        };
        places = facts.all_netns().into_iter().filter(takes).collect();
    }
    places
}

/// The namespace that somebody means: by the name that answers show, or its inode number.
fn find_netns(facts: &Facts<'_>, wanted: &str) -> Result<NetnsId, String> {
    let all = facts.all_netns();
    let named: Vec<_> = all.iter().map(|id| facts.netns_ref(*id)).collect();
    let is_meant = |netns: &&whereis_port_model::NetnsRef| {
        let inode = netns.id.inode().map(|inode| inode.to_string());
        netns.name.as_ref().is_some_and(|name| name.is(wanted)) || inode.as_deref() == Some(wanted)
    };
    let meant: Vec<NetnsId> = named.iter().filter(is_meant).map(|netns| netns.id).collect();
    match meant.as_slice() {
        [one] => Ok(*one),
        [] => {
            let names = few::few(named.iter().filter(|netns| netns.name.is_some()));
            Err(format!(
                "no network namespace {wanted:?} is visible; there is {names}, or an inode number"
            ))
        }
        several => {
            let inodes = few::few(several);
            Err(format!("several network namespaces are called {wanted:?}: ask by inode: {inodes}"))
        }
    }
}

/// The names of network namespaces, as answers show them.
pub fn netns_names(node: &dyn Node) -> Vec<String> {
    let facts = Facts::new(node);
    let all = facts.all_netns().into_iter().filter_map(|id| facts.netns_ref(id).name);
    all.map(|name| name.as_str().to_owned()).collect()
}

/// Says of an address that no namespace has that something may take it all the same.
fn unheld(facts: &Facts<'_>, query: &Query, address: IpAddr) {
    let nowhere = places_asked(facts, query, address).is_empty();
    if let (Some(zone), true) = (&query.zone, nowhere) {
        facts.gap(Gap::new(
            Impact::Port,
            GapKind::Addresses,
            format!("{zone} has no address {address} here: who has it on that link is not known"),
        ));
    } else if nowhere {
        facts.gap(Gap::new(
            Impact::Port,
            GapKind::Addresses,
            format!(
                "no interface of a visible network namespace has {address}; packet steering (eBPF, \
                 TPROXY by routes) could still take it, and is not read by this version"
            ),
        ));
    }
}

/// Of each namespace, protocol and port only the sockets that would get a
/// packet to the address.
fn nearest(sockets: Vec<Socket>, address: IpAddr) -> Vec<Socket> {
    let mut groups: std::collections::BTreeMap<_, Vec<Socket>> = std::collections::BTreeMap::new();
    for socket in sockets {
        groups.entry((socket.netns, socket.proto, socket.port)).or_default().push(socket);
    }
    groups.into_values().flat_map(|group| place::best_match(group, address)).collect()
}

/// A port of the kernel's own that no table of listeners has: an L2TP tunnel's
/// socket is connected to its peer, and takes packets from nobody else.
fn kernel_only(facts: &Facts<'_>, query: &Query) -> Vec<Path> {
    if query.scope != Scope::Everywhere {
        return Vec::new();
    }
    let ports = facts.take(facts.world.kernel_ports(&facts.all_netns()));
    let asked = |p: &KernelPort| {
        p.connected
            && query.ports.contains(p.port)
            && query.proto.is_none_or(|proto| proto == p.proto)
    };
    ports.iter().filter(|p| asked(p)).map(|port| owner::kernel_path(facts, port.clone())).collect()
}

/// With no socket anywhere, a container runtime may still know of a published
/// port: one served by NAT alone, or one of an engine whose namespaces are out
/// of sight.
fn published_only(facts: &Facts<'_>, query: &Query) -> Vec<Path> {
    if query.scope != Scope::Everywhere {
        return Vec::new();
    }
    let wanted = |proto| query.proto.is_none_or(|p| p == proto);
    let mut paths = Vec::new();
    let containers = facts.take(facts.world.containers());
    let mut containers: Vec<&Container> = containers.iter().collect();
    containers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    for container in containers {
        for published in container.ports.iter().filter(|p| wanted(p.proto) && p.host_port.is_some())
        {
            let asked = |port| query.ports.contains(port);
            if published.host_port.is_some_and(asked) || asked(published.container_port) {
                let path =
                    published::into_container(facts, facts.host.own_netns, container, published);
                if path.end.ending == Ending::Nothing {
                    // A runtime's word for a port that nobody serves is no find.
                    let why = path.end.why.unwrap_or_default();
                    let source =
                        GapSource::new(GapKind::PublishedPort, facts::container_name(container));
                    facts.gap(Gap::new(Impact::Reach, source, format!("publishes it, but {why}")));
                } else if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
    }
    paths
}

/// "Not found" is said only when nothing that could hold the port was hidden.
fn verdict(facts: &Facts<'_>, paths: &[Path]) -> Verdict {
    if !paths.is_empty() {
        return Verdict::Found;
    }
    hidden(facts);
    facts.take(facts.world.unseen());
    if facts.has_gap(|g| g.impact == Impact::Port) { Verdict::Unknown } else { Verdict::NotFound }
}

/// What runs a program in a container.
fn exec(container: &Container) -> Option<Command> {
    let name = container.name.as_ref().unwrap_or(&container.id);
    Some(match container.runtime {
        Runtime::Docker => Command::new("docker exec").name(name),
        Runtime::Podman => Command::new("podman exec").name(name),
        Runtime::Nerdctl => Command::new("nerdctl exec").name(name),
        Runtime::Containerd | Runtime::CriO => Command::new("crictl exec").name(&container.id),
        Runtime::Lxc | Runtime::Nspawn | Runtime::Unknown => return None,
    })
}

/// Gaps for what can't be seen from here at all, whatever is asked.
fn hidden(facts: &Facts<'_>) {
    let host = &facts.host;
    if !host.init_pid_ns {
        let mut remedy = "run in the machine's initial PID namespace".to_owned();
        let containers = facts.take(facts.world.containers());
        let first = containers.iter().filter_map(|c| Some((facts::container_name(c), exec(c)?)));
        let look = first.min_by(|a, b| a.0.cmp(&b.0)).map(|(_, exec)| {
            remedy.push_str(match containers.len() {
                1 => ", or look inside the container:",
                _ => ", or look inside the containers, as in this one:",
            });
            exec.args("netstat -ltnp")
        });
        let mut gap = Gap::new(
            Impact::Port,
            GapKind::PidNamespace,
            "this is not the machine's initial PID namespace: network namespaces of processes outside it are not visible",
        )
        .remedy(remedy);
        gap.command = look;
        facts.gap(gap);
    }
    if host.hidepid >= 2 && !host.has(Capability::CapSysPtrace) {
        facts.gap(
            Gap::new(Impact::Port, GapKind::Proc, "processes of other users are hidden (hidepid), and so are their network namespaces")
                .remedy("run as root, or with CAP_SYS_PTRACE"),
        );
    }
}
