//! A node that remembers what it was asked.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::hash::Hash;

use super::{Asked, Facts, InContainer, Recording, SocketsOf};
use crate::model::{
    Address, CgroupPath, Container, ContainerRef, Host, KernelPort, Link, NatPresence, Netns,
    NetnsId, Owners, Pid, Process, Read, Route, Socket, SocketFilter, SocketInode, SourceReport,
    Watched,
};
use crate::node::Node;

/// Passes every read on to another node and keeps what it gave.
pub struct Recorder<'a> {
    node: &'a dyn Node,
    netns: RefCell<Option<Read<Vec<Netns>>>>,
    containers: RefCell<Option<Read<Vec<Container>>>>,
    sockets: Asks<SocketsOf, Vec<Socket>>,
    owners: Asks<BTreeSet<SocketInode>, Owners>,
    processes: Asks<Vec<Pid>, Vec<Process>>,
    links: Asks<Vec<NetnsId>, Vec<Link>>,
    addresses: Asks<Vec<NetnsId>, Vec<Address>>,
    routes: Asks<Vec<NetnsId>, Vec<Route>>,
    kernel_ports: Asks<Vec<NetnsId>, Vec<KernelPort>>,
    nat: Asks<Vec<NetnsId>, Vec<NatPresence>>,
    container: Asks<InContainer, Option<Container>>,
    cgroup_paths: Asks<u64, Option<CgroupPath>>,
}

impl<'a> Recorder<'a> {
    /// A recorder of what will be asked of `node`.
    pub fn new(node: &'a dyn Node) -> Self {
        Self {
            node,
            netns: RefCell::default(),
            containers: RefCell::default(),
            sockets: Asks::default(),
            owners: Asks::default(),
            processes: Asks::default(),
            links: Asks::default(),
            addresses: Asks::default(),
            routes: Asks::default(),
            kernel_ports: Asks::default(),
            nat: Asks::default(),
            container: Asks::default(),
            cgroup_paths: Asks::default(),
        }
    }

    /// What was asked and answered so far, each question once, in the order in
    /// which they came.
    pub fn recording(&self) -> Recording {
        let facts = Facts {
            host: self.node.host(),
            netns: self.netns.borrow().clone(),
            sockets: self.sockets.list(),
            owners: self.owners.list(),
            processes: self.processes.list(),
            links: self.links.list(),
            addresses: self.addresses.list(),
            routes: self.routes.list(),
            kernel_ports: self.kernel_ports.list(),
            nat: self.nat.list(),
            container: self.container.list(),
            containers: self.containers.borrow().clone(),
            cgroup_paths: self.cgroup_paths.list(),
            // A node keeps it, and nothing is read for it.
            observed: Some(self.node.observed()).filter(|read| *read != Read::default()),
        };
        Recording::new(facts, self.node.sources())
    }
}

impl fmt::Debug for Recorder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

/// The answers to questions of one kind.
struct Asks<Q, A> {
    seen: RefCell<HashSet<Q>>,
    list: RefCell<Vec<Asked<Q, A>>>,
}

impl<Q, A> Default for Asks<Q, A> {
    fn default() -> Self {
        Self { seen: RefCell::default(), list: RefCell::default() }
    }
}

impl<Q: Clone + Eq + Hash, A: Clone> Asks<Q, A> {
    /// Keeps the answer, unless the question came before: a node gives the same
    /// answer twice.
    fn keep(&self, asked: Q, read: Read<A>) -> Read<A> {
        if self.seen.borrow_mut().insert(asked.clone()) {
            self.list.borrow_mut().push(Asked { asked, read: read.clone() });
        }
        read
    }

    fn list(&self) -> Vec<Asked<Q, A>> {
        self.list.borrow().clone()
    }
}

impl Node for Recorder<'_> {
    fn host(&self) -> Read<Host> {
        self.node.host()
    }

    fn netns(&self) -> Read<Vec<Netns>> {
        self.netns.borrow_mut().get_or_insert_with(|| self.node.netns()).clone()
    }

    fn sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<Socket>> {
        let asked = SocketsOf { netns: netns.to_vec(), filter: filter.to_owned() };
        self.sockets.keep(asked, self.node.sockets(netns, filter))
    }

    fn owners(&self, inodes: &BTreeSet<SocketInode>) -> Read<Owners> {
        self.owners.keep(inodes.clone(), self.node.owners(inodes))
    }

    fn processes(&self, pids: &[Pid]) -> Read<Vec<Process>> {
        self.processes.keep(pids.to_vec(), self.node.processes(pids))
    }

    fn links(&self, netns: &[NetnsId]) -> Read<Vec<Link>> {
        self.links.keep(netns.to_vec(), self.node.links(netns))
    }

    fn addresses(&self, netns: &[NetnsId]) -> Read<Vec<Address>> {
        self.addresses.keep(netns.to_vec(), self.node.addresses(netns))
    }

    fn routes(&self, netns: &[NetnsId]) -> Read<Vec<Route>> {
        self.routes.keep(netns.to_vec(), self.node.routes(netns))
    }

    fn kernel_ports(&self, netns: &[NetnsId]) -> Read<Vec<KernelPort>> {
        self.kernel_ports.keep(netns.to_vec(), self.node.kernel_ports(netns))
    }

    fn nat(&self, netns: &[NetnsId]) -> Read<Vec<NatPresence>> {
        self.nat.keep(netns.to_vec(), self.node.nat(netns))
    }

    fn container(&self, chain: &[ContainerRef], pid: Pid) -> Read<Option<Container>> {
        let asked = InContainer { chain: chain.to_vec(), pid };
        self.container.keep(asked, self.node.container(chain, pid))
    }

    fn containers(&self) -> Read<Vec<Container>> {
        self.containers.borrow_mut().get_or_insert_with(|| self.node.containers()).clone()
    }

    fn cgroup_path(&self, id: u64) -> Read<Option<CgroupPath>> {
        self.cgroup_paths.keep(id, self.node.cgroup_path(id))
    }

    fn observed(&self) -> Read<Option<Watched>> {
        self.node.observed()
    }

    fn expect(&self, filter: &SocketFilter) {
        self.node.expect(filter);
    }

    fn sources(&self) -> Vec<SourceReport> {
        self.node.sources()
    }
}
