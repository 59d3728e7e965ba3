//! From facts and a question to an answer. No I/O, no clock, and it can't fail:
//! what is missing becomes a gap of the answer.

mod facts;
mod forward;
mod list;
mod owner;
mod reach;
mod route;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use forward::{Forward, Target, parse as parse_forward};
pub(crate) use forward::{Piece, Word, telling_words};
pub use list::{ListFilter, list};

use crate::model::{
    Answer, Capability, Gap, Impact, KernelPort, NetnsId, Path, Query, Scope, Socket, SocketInode,
    Verdict,
};
use crate::node::Node;
use facts::Facts;

/// Answers one question from the facts of a node.
pub fn answer(node: &dyn Node, query: &Query) -> Answer {
    let facts = Facts::new(node);
    let sockets = matching(&facts, query);
    // One pass over the descriptors for all of them.
    let inodes: BTreeSet<SocketInode> = sockets.iter().map(|s| s.inode).collect();
    if !inodes.is_empty() {
        let _ = facts.node.owners(&inodes);
    }
    let mut paths: Vec<Path> = sockets.iter().flat_map(|s| walk::from_socket(&facts, s)).collect();
    if paths.is_empty() {
        paths = kernel_only(&facts, query);
    }
    if paths.is_empty() {
        paths = published_only(&facts, query);
    }
    let verdict = verdict(&facts, &paths);
    let reach = reach::of(&facts, &paths);
    let mut gaps = facts.gaps();
    if paths.is_empty() {
        // There is nothing whose name could be missing.
        gaps.retain(|gap| gap.impact != Impact::Name);
    }
    Answer { query: query.clone(), verdict, paths, reach, gaps }
}

/// The sockets that the question is about: the own namespace's first, then the
/// host's, then the others'.
fn matching(facts: &Facts<'_>, query: &Query) -> Vec<Socket> {
    let filter = query.filter();
    let places: Vec<NetnsId> = match query.scope {
        Scope::Everywhere => facts.all_netns(),
        // Every namespace has a loopback of its own.
        Scope::Address(address) if address.to_canonical().is_loopback() => facts.all_netns(),
        Scope::Address(address) if address.is_unspecified() => facts.all_netns(),
        Scope::Address(address) => {
            let address = address.to_canonical();
            let mut places: Vec<NetnsId> = facts
                .all_addresses()
                .into_iter()
                .filter(|a| a.address == address)
                .map(|a| a.netns)
                .collect();
            places.dedup();
            if places.is_empty() {
                facts.gap(Gap::new(
                    Impact::Reach,
                    "addresses",
                    format!("no visible network namespace of this node has the address {address}"),
                ));
            }
            places
        }
    };
    let mut sockets = facts.take(facts.node.sockets(&places, &filter));
    if let Scope::Address(address) = query.scope {
        sockets = nearest(sockets, address);
    }
    let order = facts.all_netns();
    sockets.sort_by_key(|s| {
        let place = order.iter().position(|n| *n == s.netns);
        (place, s.port, s.proto, s.address.is_ipv6(), s.address, s.inode)
    });
    sockets
}

/// Of each namespace, protocol and port only the sockets that would get a
/// packet to the address.
fn nearest(sockets: Vec<Socket>, address: std::net::IpAddr) -> Vec<Socket> {
    if address.is_unspecified() {
        return sockets.into_iter().filter(|s| s.address == address).collect();
    }
    let mut groups: std::collections::BTreeMap<_, Vec<Socket>> = std::collections::BTreeMap::new();
    for socket in sockets {
        groups.entry((socket.netns, socket.proto, socket.port)).or_default().push(socket);
    }
    groups.into_values().flat_map(|group| walk::best_match(group, address)).collect()
}

/// A port of the kernel's own that no table of listeners has: an L2TP tunnel's
/// socket is connected to its peer, and takes packets from nobody else.
fn kernel_only(facts: &Facts<'_>, query: &Query) -> Vec<Path> {
    if query.scope != Scope::Everywhere {
        return Vec::new();
    }
    let ports = facts.take(facts.node.kernel_ports(&facts.all_netns()));
    let asked = |p: &KernelPort| {
        query.ports.contains(p.port) && query.proto.is_none_or(|proto| proto == p.proto)
    };
    ports.into_iter().filter(asked).map(|port| owner::kernel_path(facts, port)).collect()
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
    let mut containers = facts.take(facts.node.containers());
    containers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    for container in containers {
        for published in container.ports.iter().filter(|p| wanted(p.proto) && p.host_port.is_some())
        {
            let asked = |port| query.ports.contains(port);
            if published.host_port.is_some_and(asked) || asked(published.container_port) {
                let path = walk::into_container(facts, facts.host.own_netns, &container, published);
                if !paths.contains(&path) {
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
    let host = &facts.host;
    if !host.init_pid_ns {
        let mut remedy = "run in the machine's initial PID namespace".to_owned();
        let containers = facts.take(facts.node.containers());
        let mut names: Vec<String> = containers.iter().map(facts::container_name).collect();
        names.sort_unstable();
        if let (Some(first), Some(name)) = (containers.first(), names.first()) {
            remedy.push_str(&format!(
                ", or look inside the containers: {} exec {name} netstat -ltnp",
                first.runtime
            ));
            if names.len() > 1 {
                remedy.push_str(&format!(", likewise {}", names[1..].join(", ")));
            }
        }
        facts.gap(
            Gap::new(
                Impact::Port,
                "PID namespace",
                "this is not the machine's initial PID namespace: network namespaces of processes outside it are not visible",
            )
            .remedy(remedy),
        );
    }
    if host.hidepid >= 2 && !host.has(Capability::CapSysPtrace) {
        facts.gap(
            Gap::new(Impact::Port, "/proc", "processes of other users are hidden (hidepid), and so are their network namespaces")
                .remedy("run as root, or with CAP_SYS_PTRACE"),
        );
    }
    for nat in facts.take(facts.node.nat(&facts.all_netns())) {
        let place = facts.netns_ref(nat.netns);
        let name = place.name.unwrap_or_else(|| nat.netns.to_string());
        facts.gap(
            Gap::new(
                Impact::Port,
                format!("NAT rules of network namespace {name}"),
                format!("{}: they may take the port without any socket, and are not evaluated by this version", nat.found.join(", ")),
            )
            .remedy("look with: nft list ruleset; iptables-save -t nat; ipvsadm -Ln"),
        );
    }
    if facts.gaps().iter().any(|g| g.impact == Impact::Port) {
        Verdict::Unknown
    } else {
        Verdict::NotFound
    }
}
