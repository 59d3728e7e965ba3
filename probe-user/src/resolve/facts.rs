//! The node's facts as resolving needs them: gaps collected in one place, and
//! names for namespaces.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use crate::model::{
    Address, Container, ContainerRef, Gap, Host, Netns, NetnsId, NetnsRef, ObjectName, Owners, Pid,
    Process, Read, Socket, SocketInode, Watched,
};
use crate::node::Node;

/// A node, its host and namespaces already read, and the gaps met so far.
pub(super) struct Facts<'a> {
    pub(super) node: &'a dyn Node,
    pub(super) host: Host,
    pub(super) netns: Vec<Netns>,
    /// What watching told; `None` when nobody watched.
    pub(super) watched: Option<Watched>,
    gaps: RefCell<Vec<Gap>>,
    names: RefCell<HashMap<NetnsId, Option<String>>>,
    /// What walks along rules read.
    pub(super) memo: super::path::Memo,
}

impl<'a> Facts<'a> {
    pub(super) fn new(node: &'a dyn Node) -> Self {
        let mut gaps = Vec::new();
        let host = node.host().take(&mut gaps);
        let netns = node.netns().take(&mut gaps);
        let watched = node.observed().take(&mut gaps);
        Self {
            node,
            host,
            netns,
            watched,
            gaps: RefCell::new(gaps),
            names: RefCell::default(),
            memo: super::path::Memo::default(),
        }
    }

    /// The value of a read; its gaps become the answer's.
    pub(super) fn take<T>(&self, read: Read<T>) -> T {
        read.take(&mut self.gaps.borrow_mut())
    }

    /// Adds a gap, once.
    pub(super) fn gap(&self, gap: Gap) {
        let mut gaps = self.gaps.borrow_mut();
        if !gaps.contains(&gap) {
            gaps.push(gap);
        }
    }

    /// The gaps met so far.
    pub(super) fn gaps(&self) -> Vec<Gap> {
        self.gaps.borrow().clone()
    }

    /// Every namespace, the own one first, then the host's.
    pub(super) fn all_netns(&self) -> Vec<NetnsId> {
        self.netns.iter().map(|n| n.id).collect()
    }

    /// Puts sockets in the order of answers: by namespace as
    /// [`Self::all_netns`] has them, then by port.
    pub(super) fn sort(&self, sockets: &mut [Socket]) {
        let order = self.all_netns();
        sockets.sort_by_cached_key(|s| {
            let place = order.iter().position(|n| *n == s.netns);
            (place, s.port, s.proto, s.address.is_ipv6(), s.address, s.inode)
        });
    }

    /// Who holds these sockets, in the order that [`Owners::of`] needs.
    pub(super) fn owners(&self, inodes: &BTreeSet<SocketInode>) -> Owners {
        let mut owners = self.take(self.node.owners(inodes));
        owners.holders.sort_unstable();
        owners
    }

    /// One process, if it still exists.
    pub(super) fn process(&self, pid: Pid) -> Option<Process> {
        self.take(self.node.processes(&[pid])).into_iter().next()
    }

    /// What is known of each container in a chain, outermost first. A level of
    /// which no runtime tells has only what its cgroup says.
    pub(super) fn containers(&self, chain: &[ContainerRef], pid: Pid) -> Vec<Container> {
        (0..chain.len())
            .map(|level| {
                let known = self.take(self.node.container(&chain[..=level], pid));
                known.unwrap_or_else(|| Container::from_ref(&chain[level], &chain[..level]))
            })
            .collect()
    }

    /// Every address of every namespace.
    pub(super) fn all_addresses(&self) -> Vec<Address> {
        self.take(self.node.addresses(&self.all_netns()))
    }

    /// The namespace as answers name it: `host`, its `ip netns` name, or the
    /// container whose processes live in it.
    pub(super) fn netns_ref(&self, id: NetnsId) -> NetnsRef {
        if let Some(name) = self.names.borrow().get(&id) {
            return NetnsRef { id, name: name.clone() };
        }
        let name = self.name(id);
        self.names.borrow_mut().insert(id, name.clone());
        NetnsRef { id, name }
    }

    /// Names a namespace after the pod that an API knows it to be of, unless somebody gave it
    /// a name of its own.
    pub(super) fn name_after_pod(&self, id: NetnsId, pod: &ObjectName) {
        let pinned = self.netns.iter().find(|n| n.id == id).and_then(|n| n.name.as_ref());
        if self.host.host_netns != Some(id) && pinned.is_none_or(|name| is_generated(name)) {
            self.names.borrow_mut().insert(id, Some(pod.to_string()));
        }
    }

    /// The containers, outermost first, whose processes live in a namespace. None
    /// for the host's.
    pub(super) fn containers_of(&self, id: NetnsId) -> Vec<Container> {
        let chain = || {
            let netns = self.netns.iter().find(|n| n.id == id)?;
            let process = self.process(*netns.members.first()?)?;
            let mut containers =
                self.containers(&process.cgroup.as_ref()?.containers(), process.pid);
            // The network of a container with its host's network is that of the
            // container around it, if there is one.
            while containers.last()?.network_mode.as_deref() == Some("host") {
                containers.pop();
            }
            Some(containers)
        };
        if self.host.host_netns == Some(id) { Vec::new() } else { chain().unwrap_or_default() }
    }

    fn name(&self, id: NetnsId) -> Option<String> {
        if self.host.host_netns == Some(id) {
            return Some("host".to_owned());
        }
        let netns = self.netns.iter().find(|n| n.id == id)?;
        let container = || self.containers_of(id).last().map(network_name);
        // Runtimes pin namespaces under generated names; a container's own name
        // says more.
        let pinned = netns.name.clone().filter(|name| !is_generated(name));
        pinned
            .or_else(container)
            .or_else(|| netns.name.clone())
            .or_else(|| (id == self.host.own_netns).then(|| "here".to_owned()))
    }
}

/// The name of a network namespace after one of the containers in it. A pod's
/// containers share theirs, so it is named after the pod.
fn network_name(container: &Container) -> String {
    match container.pod.as_ref().map(|pod| (&pod.namespace, &pod.name)) {
        Some((Some(namespace), Some(name))) => format!("{namespace}/{name}"),
        _ => container_name(container),
    }
}

/// Whether a runtime made up this name for a namespace: containerd's `cni-<uuid>`,
/// Podman's `netns-<uuid>`, CRI-O's `<uuid>`.
fn is_generated(name: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let groups = name.split('-').map(|g| (g.len(), g.bytes().all(|b| b.is_ascii_hexdigit())));
    name.starts_with("cni-")
        || name.starts_with("netns-")
        || groups.eq(lengths.into_iter().map(|length| (length, true)))
}

/// The name of a container, or the start of its id as runtimes shorten it.
pub(super) fn container_name(container: &Container) -> String {
    let pod_container = container.pod.as_ref().and_then(|p| p.name.clone());
    container
        .name
        .clone()
        .or(pod_container)
        .unwrap_or_else(|| container.id.chars().take(12).collect())
}
