//! The node as one question sees it: each fact is read once, and kept with the gaps that
//! belong to it. Only this file asks a node for facts.
//!
//! What is asked of several namespaces is one read, whose gaps may have words for all of them
//! together. A read without gaps tells of each of its namespaces, too.
//!
//! Facts that come in no order of the kernel's are put into one here, so that an answer does not
//! depend on which came first. Addresses, links, routes and rules keep the order they have.

use std::borrow::Borrow;
use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::rc::Rc;
use std::sync::Arc;

use whereis_port_model::Node;
use whereis_port_model::{
    Address, Attached, Bytes, Certificate, CgroupOf, CgroupPath, CgroupProgram, ChainId, Cilium,
    CiliumPolicy, CiliumPolicyOf, Container, ContainerRef, Element, Flow, FlowFilter, Frontend,
    Gap, Host, InputFound, InputQuery, IpSet, IpSetId, KernelPort, KubeAsk, KubeContext,
    KubeObjects, Link, LocalRoute, Neighbour, NetSettings, Netns, NetnsId, OtherSocket, Owners,
    Pid, PolicyRule, PortFacts, PortSocket, Process, Provenance, Read, Relay, Route, RouteFound,
    RouteQuery, Rule, Ruleset, Set, SetId, Socket, SocketFilter, SocketInode, SocketUnit, TlsAsk,
    Transparent, Watched,
};

/// Something that was read, and what is missing from it.
#[derive(Clone)]
pub(super) struct Fact<T> {
    pub(super) value: T,
    pub(super) gaps: Rc<[Gap]>,
}

impl<T> From<Read<T>> for Fact<T> {
    fn from(read: Read<T>) -> Self {
        Self { value: read.value, gaps: read.gaps.into() }
    }
}

/// Facts of one kind, by what was asked for.
struct FactCache<Q, T>(RefCell<HashMap<Q, Fact<T>>>);

impl<Q, T> Default for FactCache<Q, T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<Q: Eq + Hash, T: Clone> FactCache<Q, T> {
    fn get<B>(&self, asked: &B, read: impl FnOnce() -> Read<T>) -> Fact<T>
    where
        Q: Borrow<B>,
        B: Eq + Hash + ToOwned<Owned = Q> + ?Sized,
    {
        if let Some(known) = self.0.borrow().get(asked) {
            return known.clone();
        }
        let fact = Fact::from(read());
        self.0.borrow_mut().insert(asked.to_owned(), fact.clone());
        fact
    }
}

/// Facts that belong to namespaces.
type OfNetns<T> = FactCache<Vec<NetnsId>, Rc<[T]>>;

impl<T: Clone> OfNetns<T> {
    fn of(
        &self,
        netns: &[NetnsId],
        place: impl Fn(&T) -> NetnsId,
        read: impl FnOnce(&[NetnsId]) -> Read<Vec<T>>,
    ) -> Fact<Rc<[T]>> {
        if let Some(known) = self.0.borrow().get(netns) {
            return known.clone();
        }
        let all: Fact<Rc<[T]>> = read(netns).map(Rc::from).into();
        let mut known = self.0.borrow_mut();
        if netns.len() > 1 && all.gaps.is_empty() {
            let mut each: HashMap<NetnsId, Vec<T>> = HashMap::new();
            for fact in all.value.iter() {
                each.entry(place(fact)).or_default().push(fact.clone());
            }
            for id in netns {
                let of_one = || Fact::from(Read::whole(each.remove(id).unwrap_or_default().into()));
                known.entry(vec![*id]).or_insert_with(of_one);
            }
        }
        known.insert(netns.to_vec(), all.clone());
        all
    }
}

/// All facts that were read so far.
#[derive(Default)]
struct KnownFacts {
    sockets: FactCache<(Vec<NetnsId>, SocketFilter), Rc<[Socket]>>,
    port_sockets: FactCache<(Vec<NetnsId>, SocketFilter), Rc<[PortSocket]>>,
    port_facts: OfNetns<PortFacts>,
    owners: FactCache<BTreeSet<SocketInode>, Rc<Owners>>,
    processes: FactCache<Vec<Pid>, Rc<[Process]>>,
    links: OfNetns<Link>,
    addresses: OfNetns<Address>,
    every_address: OnceCell<Fact<Rc<[Address]>>>,
    routes: OfNetns<Route>,
    kernel_ports: OfNetns<KernelPort>,
    transparent: OfNetns<Transparent>,
    other_sockets: OfNetns<OtherSocket>,
    rulesets: OfNetns<Ruleset>,
    frontends: OfNetns<Frontend>,
    cilium: OfNetns<Cilium>,
    cilium_policies: FactCache<CiliumPolicyOf, Option<Arc<[CiliumPolicy]>>>,
    settings: OfNetns<NetSettings>,
    policy_rules: OfNetns<PolicyRule>,
    local_routes: OfNetns<LocalRoute>,
    neighbours: OfNetns<Neighbour>,
    attached: OfNetns<Attached>,
    cgroup_programs: FactCache<CgroupOf, Option<Rc<[CgroupProgram]>>>,
    chains: FactCache<ChainId, Option<Arc<[Rule]>>>,
    sets: FactCache<SetId, Option<Rc<Set>>>,
    set_elements: FactCache<SetId, Option<Arc<[Element]>>>,
    ip_sets: FactCache<IpSetId, Option<Arc<IpSet>>>,
    route: FactCache<RouteQuery, Option<RouteFound>>,
    input_route: FactCache<InputQuery, Option<InputFound>>,
    container: FactCache<(Vec<ContainerRef>, Pid), Option<Rc<Container>>>,
    containers: OnceCell<Fact<Rc<[Container]>>>,
    relays: FactCache<Pid, Rc<Relay>>,
    unpublished: OnceCell<Fact<Rc<[Container]>>>,
    cgroup_paths: FactCache<u64, Option<CgroupPath>>,
    provenances: FactCache<Pid, Option<Provenance>>,
    socket_units: OnceCell<Fact<Rc<[SocketUnit]>>>,
    unseen: OnceCell<Fact<()>>,
    kube_contexts: OnceCell<Fact<Rc<[KubeContext]>>>,
    kube: FactCache<KubeAsk, Rc<KubeObjects>>,
}

/// What an API has, by name.
fn in_order(mut objects: KubeObjects) -> KubeObjects {
    objects.services.sort_by(|a, b| a.name.cmp(&b.name));
    objects.endpoints.sort_by(|a, b| a.service.cmp(&b.service));
    objects.pods.sort_by(|a, b| a.name.cmp(&b.name));
    objects.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    objects.classes.sort_by(|a, b| (a.api, &a.name).cmp(&(b.api, &b.name)));
    objects.gateways.sort_by(|a, b| (a.api, &a.name).cmp(&(b.api, &b.name)));
    objects.names.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    objects
}

/// A node, and what is known of it.
pub(super) struct World<'a> {
    node: &'a dyn Node,
    pub(super) host: Fact<Host>,
    pub(super) netns: Fact<Rc<[Netns]>>,
    pub(super) watched: Fact<Option<Rc<Watched>>>,
    known: KnownFacts,
}

/// Methods that give what namespaces have.
macro_rules! of_netns {
    ($($fact:ident: $of:ty $(, by $key:expr)?;)*) => {
        $(pub(super) fn $fact(&self, netns: &[NetnsId]) -> Fact<Rc<[$of]>> {
            let read = |netns: &[NetnsId]| {
                let read = self.node.$fact(netns);
                $(let read = read.map(|mut all| {
                    all.sort_by_key($key);
                    all
                });)?
                read
            };
            self.known.$fact.of(netns, |fact| fact.netns, read)
        })*
    };
}

/// In the order of a key.
fn sorted<T, K: Ord>(mut all: Vec<T>, key: impl FnMut(&T) -> K) -> Rc<[T]> {
    all.sort_by_key(key);
    all.into()
}

impl<'a> World<'a> {
    pub(super) fn new(node: &'a dyn Node) -> Self {
        let host: Fact<Host> = node.host().into();
        let own = host.value.own_netns;
        let netns = node.netns().map(|all| sorted(all, |one| (one.id != own, one.id)));
        Self {
            node,
            host,
            netns: netns.into(),
            watched: node.observed().map(|watched| watched.map(Rc::new)).into(),
            known: KnownFacts::default(),
        }
    }

    of_netns! {
        links: Link;
        addresses: Address;
        routes: Route;
        transparent: Transparent;
        kernel_ports: KernelPort, by |one| (one.netns, one.proto, one.port, one.what.clone());
        other_sockets: OtherSocket, by |one| (one.netns, one.kind, one.inode);
        rulesets: Ruleset, by |one| one.netns;
        frontends: Frontend, by |one| (one.netns, one.address, one.port, one.proto, one.mark);
        cilium: Cilium, by |one| one.netns;
        settings: NetSettings, by |one| one.netns;
        attached: Attached;
        policy_rules: PolicyRule;
        local_routes: LocalRoute;
        port_facts: PortFacts, by |one| one.netns;
        neighbours: Neighbour;
    }

    /// Says which sockets will be asked for, so that a slow source can begin.
    pub(super) fn prefetch_sockets(&self, filter: &SocketFilter) {
        self.node.prefetch_sockets(filter);
    }

    /// Says that all rules of these namespaces will be asked for.
    pub(super) fn prefetch_rules(&self, netns: &[NetnsId]) {
        self.node.prefetch_rules(netns);
    }

    pub(super) fn sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Fact<Rc<[Socket]>> {
        let asked = (netns.to_vec(), *filter);
        let key = |one: &Socket| (one.netns, one.proto, one.port, one.address, one.inode);
        let read = || self.node.sockets(netns, filter).map(|all| sorted(all, key));
        self.known.sockets.get(&asked, read)
    }

    pub(super) fn port_sockets(
        &self,
        netns: &[NetnsId],
        filter: &SocketFilter,
    ) -> Fact<Rc<[PortSocket]>> {
        let asked = (netns.to_vec(), *filter);
        self.known.port_sockets.get(&asked, || self.node.port_sockets(netns, filter).map(Rc::from))
    }

    /// In the order that [`Owners::of`] needs.
    pub(super) fn owners(&self, inodes: &BTreeSet<SocketInode>) -> Fact<Rc<Owners>> {
        let read = || {
            self.node.owners(inodes).map(|mut owners| {
                owners.holders.sort_unstable();
                Rc::new(owners)
            })
        };
        self.known.owners.get(inodes, read)
    }

    pub(super) fn processes(&self, pids: &[Pid]) -> Fact<Rc<[Process]>> {
        let read = || self.node.processes(pids).map(|all| sorted(all, |one| one.pid));
        self.known.processes.get(pids, read)
    }

    /// Those of every namespace. They are asked for at every step of a way.
    pub(super) fn every_address(&self) -> Fact<Rc<[Address]>> {
        let all = || self.addresses(&self.netns.value.iter().map(|n| n.id).collect::<Vec<_>>());
        self.known.every_address.get_or_init(all).clone()
    }

    pub(super) fn chain(&self, chain: &ChainId) -> Fact<Option<Arc<[Rule]>>> {
        self.known.chains.get(chain, || self.node.chain(chain))
    }

    pub(super) fn set(&self, set: &SetId) -> Fact<Option<Rc<Set>>> {
        self.known.sets.get(set, || self.node.set(set).map(|set| set.map(Rc::new)))
    }

    pub(super) fn set_elements(&self, set: &SetId) -> Fact<Option<Arc<[Element]>>> {
        self.known.set_elements.get(set, || self.node.set_elements(set))
    }

    /// Kept by who asks, for whom it has a price.
    pub(super) fn set_element(&self, set: &SetId, key: &Bytes) -> Fact<Option<Element>> {
        self.node.set_element(set, key).into()
    }

    pub(super) fn ip_set(&self, set: &IpSetId) -> Fact<Option<Arc<IpSet>>> {
        self.known.ip_sets.get(set, || self.node.ip_set(set).map(|set| set.map(Arc::new)))
    }

    pub(super) fn route(&self, query: &RouteQuery) -> Fact<Option<RouteFound>> {
        self.known.route.get(query, || self.node.route(query))
    }

    pub(super) fn input_route(&self, query: &InputQuery) -> Fact<Option<InputFound>> {
        self.known.input_route.get(query, || self.node.input_route(query))
    }

    /// The container at the end of a chain.
    pub(super) fn container(
        &self,
        chain: &[ContainerRef],
        pid: Pid,
    ) -> Fact<Option<Rc<Container>>> {
        let asked = (chain.to_vec(), pid);
        let read = || self.node.container(chain, pid).map(|found| found.map(Rc::new));
        self.known.container.get(&asked, read)
    }

    pub(super) fn containers(&self) -> Fact<Rc<[Container]>> {
        let id = |one: &Container| (one.runtime, one.id.clone());
        let read = || self.node.containers().map(|all| sorted(all, id)).into();
        self.known.containers.get_or_init(read).clone()
    }

    /// Containers that are told to publish ports and do not.
    pub(super) fn unpublished(&self) -> Fact<Rc<[Container]>> {
        let id = |one: &Container| (one.runtime, one.id.clone());
        let read = || self.node.unpublished().map(|all| sorted(all, id)).into();
        self.known.unpublished.get_or_init(read).clone()
    }

    /// What a forwarder shows beyond its arguments.
    pub(super) fn relay(&self, pid: Pid) -> Fact<Rc<Relay>> {
        self.known.relays.get(&pid, || self.node.relay(pid).map(Rc::new))
    }

    pub(super) fn cgroup_path(&self, id: u64) -> Fact<Option<CgroupPath>> {
        self.known.cgroup_paths.get(&id, || self.node.cgroup_path(id))
    }

    pub(super) fn provenance(&self, pid: Pid) -> Fact<Option<Provenance>> {
        self.known.provenances.get(&pid, || self.node.provenance(pid))
    }

    pub(super) fn socket_units(&self) -> Fact<Rc<[SocketUnit]>> {
        let name = |unit: &SocketUnit| unit.name.clone();
        let read = || self.node.socket_units().map(|all| sorted(all, name)).into();
        self.known.socket_units.get_or_init(read).clone()
    }

    /// The programs that take effect in a cgroup.
    pub(super) fn cgroup_programs(&self, of: CgroupOf) -> Fact<Option<Rc<[CgroupProgram]>>> {
        let read = || self.node.cgroup_programs(&of).map(|all| all.map(Rc::from));
        self.known.cgroup_programs.get(&of, read)
    }

    pub(super) fn cilium_policy(&self, of: CiliumPolicyOf) -> Fact<Option<Arc<[CiliumPolicy]>>> {
        self.known.cilium_policies.get(&of, || self.node.cilium_policy(&of))
    }

    pub(super) fn unseen(&self) -> Fact<()> {
        self.known.unseen.get_or_init(|| self.node.unseen().into()).clone()
    }

    pub(super) fn kube_contexts(&self) -> Fact<Rc<[KubeContext]>> {
        self.known
            .kube_contexts
            .get_or_init(|| self.node.kube_contexts().map(Rc::from).into())
            .clone()
    }

    /// All that are not known yet are asked at the same time.
    pub(super) fn kube(&self, asks: &[KubeAsk]) -> Vec<Fact<Rc<KubeObjects>>> {
        let mut missing: Vec<KubeAsk> = Vec::new();
        for ask in asks.iter().filter(|ask| !self.known.kube.0.borrow().contains_key(ask)) {
            if !missing.contains(ask) {
                missing.push(ask.clone());
            }
        }
        if !missing.is_empty() {
            let said = self.node.kube(&missing).into_iter();
            let said = said.map(|read| read.map(|all| Rc::new(in_order(all))).into());
            self.known.kube.0.borrow_mut().extend(missing.into_iter().zip(said));
        }
        let known = self.known.kube.0.borrow();
        asks.iter().filter_map(|ask| known.get(ask).cloned()).collect()
    }

    /// Asked once for each answer, and not kept.
    pub(super) fn flows(&self, netns: &[NetnsId], filter: &FlowFilter) -> Read<Vec<Flow>> {
        self.node.flows(netns, filter)
    }

    /// Asked once for all answers, and not kept.
    pub(super) fn certificates(&self, asks: &[TlsAsk]) -> Vec<Read<Option<Certificate>>> {
        self.node.certificates(asks)
    }
}
