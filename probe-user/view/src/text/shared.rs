//! Sockets that share one port (SO_REUSEPORT): one block for all of them.

use std::borrow::Cow;

use crate::style::Style;
use whereis_port_model::{Ending, Hop, HopKind, Path, Proto, Socket};

/// How many inodes are named. JSON has them all.
const NAMED: usize = 8;
/// How many of the last groups a path is compared with: sockets that share a
/// port come close behind each other; a range of ports has thousands of paths.
const RECENT: usize = 64;

/// `paths`, with those made one that differ only in which of the sockets that
/// share a port they begin with.
pub(super) fn merge<'a>(paths: &'a [Path], style: &Style) -> Cow<'a, [Path]> {
    let mut groups: Vec<Vec<&Path>> = Vec::new();
    for path in paths {
        let shares = |group: &&mut Vec<&Path>| group.iter().all(|known| is_shared(known, path));
        match groups.iter_mut().rev().take(RECENT).find(shares) {
            Some(group) => group.push(path),
            None => groups.push(vec![path]),
        }
    }
    if groups.len() == paths.len() {
        return Cow::Borrowed(paths);
    }
    groups.iter().filter_map(|group| one(group, style)).collect()
}

/// Whether two paths begin with two sockets that the kernel chooses between for
/// each connection, and are alike from there on.
fn is_shared(one: &Path, other: &Path) -> bool {
    let ([first, rest @ ..], [second, others @ ..]) = (one.hops.as_slice(), other.hops.as_slice())
    else {
        return false;
    };
    let (a, b) = (&one.end, &other.end);
    is_shared_hop(first, second)
        && rest == others
        && (a.ending, &a.why, &a.containers) == (b.ending, &b.why, &b.containers)
        && (&a.pod, &a.service, &a.cluster, &a.unit) == (&b.pod, &b.service, &b.cluster, &b.unit)
}

fn is_shared_hop(one: &Hop, other: &Hop) -> bool {
    let (Some(a), Some(b)) = (&one.socket, &other.socket) else { return false };
    // What the kernel holds has no socket that could be shared: its inode is 0.
    one.kind == HopKind::Listener
        && other.kind == HopKind::Listener
        && (&one.netns, &one.endpoint, one.proto) == (&other.netns, &other.endpoint, other.proto)
        && a.inode != b.inode
        && *a == Socket { inode: a.inode, cgroup_id: a.cgroup_id, queue: a.queue, ..b.clone() }
}

/// One path for a group of them.
fn one(group: &[&Path], style: &Style) -> Option<Path> {
    let mut path = (*group.first()?).clone();
    if group.len() == 1 {
        return Some(path);
    }
    for other in group.iter().skip(1) {
        for process in &other.end.processes {
            if !path.end.processes.iter().any(|known| known.pid == process.pid) {
                path.end.processes.push(process.clone());
            }
        }
        for evidence in &other.end.evidence {
            if !path.end.evidence.contains(evidence) {
                path.end.evidence.push(evidence.clone());
            }
        }
    }
    let inodes: Vec<String> = group
        .iter()
        .filter_map(|path| path.hops.first()?.socket.as_ref())
        .map(|socket| socket.inode.to_string())
        .collect();
    let shown = inodes.len().min(NAMED);
    let more = match inodes.len() - shown {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let hop = path.hops.first_mut()?;
    // UDP sockets can share a port by the older option too.
    let option =
        if hop.proto == Proto::Udp { "SO_REUSEPORT or SO_REUSEADDR" } else { "SO_REUSEPORT" };
    let inodes = inodes.get(..shown).unwrap_or_default().join(", ");
    let count = group.len();
    let each = match hop.proto {
        Proto::Tcp => {
            format!(", each takes about 1 of {count} connections unless a program chooses")
        }
        Proto::Udp => ", with the latter the one that was bound last takes all".to_owned(),
    };
    let note = format!("{count} sockets share this port ({option}){each}: inodes {inodes}{more}");
    for other in group.iter().skip(1).filter_map(|path| path.hops.first()) {
        for evidence in &other.evidence {
            if !hop.evidence.contains(evidence) {
                hop.evidence.push(evidence.clone());
            }
        }
    }
    if let [first, others @ ..] = path.end.processes.as_slice()
        && !others.is_empty()
    {
        let inside = first.inside();
        hop.detail =
            format!("{}, pid {}{inside} and {} more", first.name(), first.pid, others.len());
    }
    path.end.why = Some(match path.end.why.take() {
        Some(why) if path.end.ending != Ending::Process => format!("{why}; {note}"),
        _ => style.text(&note),
    });
    Some(path)
}
