//! A node that remembers what it was asked.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::{Asked, ElementOf, Facts, FlowsOf, Ignored, InContainer, Recording, SocketsOf};
use crate::model::{
    Address, Bytes, Certificate, CgroupPath, ChainId, Container, ContainerRef, Element, Flow,
    FlowFilter, Frontend, Host, IpSet, IpSetId, KernelPort, KubeAsk, KubeContext, KubeObjects,
    Link, NetSettings, Netns, NetnsId, Owners, Pid, Process, Read, Route, RouteFound, RouteQuery,
    Rule, Ruleset, Set, SetId, Socket, SocketFilter, SocketInode, SourceReport, TlsAsk, Watched,
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
    unseen: RefCell<Option<Read<()>>>,
    rulesets: Asks<Vec<NetnsId>, Vec<Ruleset>>,
    chains: Asks<ChainId, Option<Arc<[Rule]>>>,
    sets: Asks<SetId, Option<Set>>,
    set_elements: Asks<SetId, Option<Arc<[Element]>>>,
    set_element: Asks<ElementOf, Option<Element>>,
    ip_sets: Asks<IpSetId, Option<IpSet>>,
    frontends: Asks<Vec<NetnsId>, Vec<Frontend>>,
    flows: Asks<FlowsOf, Vec<Flow>>,
    route: Asks<RouteQuery, Option<RouteFound>>,
    settings: Asks<Vec<NetnsId>, Vec<NetSettings>>,
    kube_contexts: RefCell<Option<Read<Vec<KubeContext>>>>,
    kube: Asks<KubeAsk, KubeObjects>,
    certificates: Asks<TlsAsk, Option<Certificate>>,
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
            unseen: RefCell::default(),
            rulesets: Asks::default(),
            chains: Asks::default(),
            sets: Asks::default(),
            set_elements: Asks::default(),
            set_element: Asks::default(),
            ip_sets: Asks::default(),
            frontends: Asks::default(),
            flows: Asks::default(),
            route: Asks::default(),
            settings: Asks::default(),
            kube_contexts: RefCell::default(),
            kube: Asks::default(),
            certificates: Asks::default(),
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
            nat: Ignored,
            unseen: self.unseen.borrow().clone(),
            rulesets: self.rulesets.list(),
            chains: self.chains.list(),
            sets: self.sets.list(),
            set_elements: self.set_elements.list(),
            set_element: self.set_element.list(),
            ip_sets: self.ip_sets.list(),
            frontends: self.frontends.list(),
            flows: self.flows.list(),
            route: self.route.list(),
            settings: self.settings.list(),
            kube_contexts: self.kube_contexts.borrow().clone(),
            kube: self.kube.list(),
            certificates: self.certificates.list(),
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

    fn unseen(&self) -> Read<()> {
        self.unseen.borrow_mut().get_or_insert_with(|| self.node.unseen()).clone()
    }

    fn rulesets(&self, netns: &[NetnsId]) -> Read<Vec<Ruleset>> {
        self.rulesets.keep(netns.to_vec(), self.node.rulesets(netns))
    }

    fn expect_rules(&self, netns: &[NetnsId]) {
        self.node.expect_rules(netns);
    }

    fn chain(&self, chain: &ChainId) -> Read<Option<Arc<[Rule]>>> {
        self.chains.keep(chain.clone(), self.node.chain(chain))
    }

    fn set(&self, set: &SetId) -> Read<Option<Set>> {
        self.sets.keep(set.clone(), self.node.set(set))
    }

    fn set_elements(&self, set: &SetId) -> Read<Option<Arc<[Element]>>> {
        self.set_elements.keep(set.clone(), self.node.set_elements(set))
    }

    fn set_element(&self, set: &SetId, key: &Bytes) -> Read<Option<Element>> {
        let asked = ElementOf { set: set.clone(), key: key.clone() };
        self.set_element.keep(asked, self.node.set_element(set, key))
    }

    fn ip_set(&self, set: &IpSetId) -> Read<Option<IpSet>> {
        self.ip_sets.keep(set.clone(), self.node.ip_set(set))
    }

    fn frontends(&self, netns: &[NetnsId]) -> Read<Vec<Frontend>> {
        self.frontends.keep(netns.to_vec(), self.node.frontends(netns))
    }

    fn flows(&self, netns: &[NetnsId], filter: &FlowFilter) -> Read<Vec<Flow>> {
        let asked = FlowsOf { netns: netns.to_vec(), filter: *filter };
        self.flows.keep(asked, self.node.flows(netns, filter))
    }

    fn route(&self, query: &RouteQuery) -> Read<Option<RouteFound>> {
        self.route.keep(*query, self.node.route(query))
    }

    fn settings(&self, netns: &[NetnsId]) -> Read<Vec<NetSettings>> {
        self.settings.keep(netns.to_vec(), self.node.settings(netns))
    }

    fn kube_contexts(&self) -> Read<Vec<KubeContext>> {
        self.kube_contexts.borrow_mut().get_or_insert_with(|| self.node.kube_contexts()).clone()
    }

    fn kube(&self, asks: &[KubeAsk]) -> Vec<Read<KubeObjects>> {
        let reads = self.node.kube(asks);
        asks.iter().zip(reads).map(|(ask, read)| self.kube.keep(ask.clone(), read)).collect()
    }

    fn certificates(&self, asks: &[TlsAsk]) -> Vec<Read<Option<Certificate>>> {
        let reads = self.node.certificates(asks);
        asks.iter().zip(reads).map(|(ask, read)| self.certificates.keep(*ask, read)).collect()
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
