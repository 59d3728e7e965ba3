//! Reading all there is, so that a recording of it can answer any question.

use std::collections::BTreeSet;

use super::super::Node;
use crate::model::{Pid, SocketFilter};

/// Asks `node` for every fact. A recording made of it answers later what nobody
/// has asked yet.
pub fn read_everything(node: &dyn Node) {
    let _ = node.host();
    let namespaces = node.netns().value;
    let netns: Vec<_> = namespaces.iter().map(|n| n.id).collect();

    let sockets = node.sockets(&netns, &SocketFilter::ALL).value;
    let inodes = sockets.iter().map(|s| s.inode).filter(|inode| *inode != 0).collect();
    let owners = node.owners(&inodes).value;
    let held: BTreeSet<_> = owners.holders.iter().map(|o| o.inode).collect();
    for id in sockets
        .iter()
        .filter(|s| !held.contains(&s.inode))
        .filter_map(|s| s.cgroup_id)
        .collect::<BTreeSet<_>>()
    {
        let _ = node.cgroup_path(id);
    }

    let containers = node.containers().value;
    // Not only the owners: the processes that live in a namespace name it, and
    // those that could not be read are candidates for what nobody seems to own.
    let mut pids: BTreeSet<Pid> = owners.holders.iter().map(|o| o.pid).collect();
    pids.extend(&owners.denied);
    pids.extend(namespaces.iter().flat_map(|n| &n.members));
    pids.extend(containers.iter().filter_map(|c| c.pid));
    let pids: Vec<_> = pids.into_iter().collect();
    for process in node.processes(&pids).value {
        let chain = process.cgroup.map(|path| path.containers()).unwrap_or_default();
        if !chain.is_empty() {
            let _ = node.container(&chain, process.pid);
        }
    }

    let _ = node.links(&netns);
    let _ = node.addresses(&netns);
    let _ = node.routes(&netns);
    let _ = node.kernel_ports(&netns);
    let _ = node.nat(&netns);
}
