//! The facts that one answer uses: with the gaps of those that it used, and names for
//! namespaces.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use crate::budget::Budget;
use crate::world::{Fact, World};
use whereis_port_model::Node;
use whereis_port_model::forward;
use whereis_port_model::{
    Address, Container, ContainerRef, Gap, GapKind, GapSource, Host, Impact, Link, Netns, NetnsId,
    NetnsName, NetnsRef, ObjectName, Owners, Pid, Process, Runtime, Socket, SocketInode, Watched,
};

/// How many namespaces a gap names.
const NAMED: usize = 3;

/// A node's facts, and the gaps of those that one answer used.
pub(super) struct Facts<'a> {
    /// What is read, for all answers to one question together.
    pub(super) world: Rc<World<'a>>,
    pub(super) host: Host,
    pub(super) netns: Rc<[Netns]>,
    /// What watching told; `None` when nobody watched.
    pub(super) watched: Option<Rc<Watched>>,
    /// How much may be made of packet rules, by all facts of one question together.
    pub(super) budget: Rc<Budget>,
    /// How many ways more there are than those that are shown.
    more: Cell<usize>,
    gaps: RefCell<Vec<Gap>>,
    /// Those of them that belong to what APIs were asked.
    api_gaps: RefCell<Vec<Gap>>,
    names: RefCell<HashMap<NetnsId, Option<NetnsName>>>,
    containers: RefCell<HashMap<NetnsId, Rc<[Container]>>>,
    /// What walks along rules found out.
    pub(super) memo: super::path::WalkCache,
}

impl<'a> Facts<'a> {
    pub(super) fn new(node: &'a dyn Node) -> Self {
        let world = World::new(node);
        let budget = Budget::new(&world.host.value, &world.netns.value);
        Self::of(Rc::new(world), Rc::new(budget))
    }

    /// The same for what asks of every port at once: so many times as much may be made of rules.
    pub(super) fn for_all_ports(node: &'a dyn Node, times: u64) -> Self {
        let world = World::new(node);
        let budget = Budget::times(&world.host.value, &world.netns.value, times);
        Self::of(Rc::new(world), Rc::new(budget))
    }

    fn of(world: Rc<World<'a>>, budget: Rc<Budget>) -> Self {
        let facts = Self {
            host: world.host.value.clone(),
            netns: Rc::clone(&world.netns.value),
            watched: world.watched.value.clone(),
            world,
            budget,
            more: Cell::new(0),
            gaps: RefCell::default(),
            api_gaps: RefCell::default(),
            names: RefCell::default(),
            containers: RefCell::default(),
            memo: super::path::WalkCache::default(),
        };
        for gaps in [&facts.world.host.gaps, &facts.world.netns.gaps, &facts.world.watched.gaps] {
            facts.note(gaps);
        }
        facts
    }

    /// The same, for another answer to the same question.
    pub(super) fn again(&self) -> Self {
        Self::of(Rc::clone(&self.world), Rc::clone(&self.budget))
    }

    /// Notes that there are so many ways more than those that are shown.
    pub(super) fn leave_unshown(&self, ways: usize) {
        self.more.set(self.more.get() + ways);
    }

    /// How many there are.
    pub(super) fn unshown(&self) -> usize {
        self.more.get()
    }

    /// Says which rules were not followed to their end, if it was not said yet.
    pub(super) fn say_cut(&self, impact: Impact) {
        let (cut, untried) = self.budget.cut();
        if cut.is_empty() {
            return;
        }
        let name = |id: &NetnsId| self.netns_ref(*id).to_string();
        let (s, more) =
            (if cut.len() == 1 { "" } else { "s" }, if cut.len() > NAMED { ", …" } else { "" });
        let names = cut.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
        let count = if cut.len() > NAMED { format!("{} ", cut.len()) } else { String::new() };
        let untried = match untried {
            0 => String::new(),
            1 => " and 1 connection was not tried".to_owned(),
            n => format!(" and {n} connections were not tried"),
        };
        self.gap(
            Gap::new(
                impact,
                GapSource::new(
                    GapKind::PacketRules,
                    format!("{count}network namespace{s} {names}{more}"),
                ),
                format!("following them takes more steps than one question may: some are not known to their end{untried}"),
            )
            .remedy("ask for one address, port and protocol: ADDR:PORT/tcp"),
        );
    }

    /// A fact's value; its gaps become the answer's.
    pub(super) fn take<T>(&self, fact: Fact<T>) -> T {
        self.note(&fact.gaps);
        fact.value
    }

    /// The same of what APIs told.
    pub(super) fn take_of_api<T>(&self, fact: Fact<T>) -> T {
        self.api_gaps.borrow_mut().extend_from_slice(&fact.gaps);
        self.take(fact)
    }

    fn note(&self, new: &[Gap]) {
        let mut gaps = self.gaps.borrow_mut();
        for gap in new {
            if !gaps.contains(gap) {
                gaps.push(gap.clone());
            }
        }
    }

    /// Adds a gap, once.
    pub(super) fn gap(&self, gap: Gap) {
        self.note(&[gap]);
    }

    /// The gaps of what was used so far.
    pub(super) fn gaps(&self) -> Vec<Gap> {
        self.gaps.borrow().clone()
    }

    /// Whether there is such a gap among them.
    pub(super) fn has_gap(&self, is_such: impl Fn(&Gap) -> bool) -> bool {
        self.gaps.borrow().iter().any(is_such)
    }

    /// Whether a gap belongs to what APIs were asked.
    pub(super) fn is_of_api(&self, gap: &Gap) -> bool {
        self.api_gaps.borrow().contains(gap)
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

    /// Who holds these sockets.
    pub(super) fn owners(&self, inodes: &BTreeSet<SocketInode>) -> Rc<Owners> {
        self.take(self.world.owners(inodes))
    }

    /// One process, if it still exists.
    pub(super) fn process(&self, pid: Pid) -> Option<Process> {
        self.take(self.world.processes(&[pid])).first().cloned()
    }

    /// What is known of each container in a chain, outermost first. A level of
    /// which no runtime tells has only what its cgroup says.
    pub(super) fn containers(&self, chain: &[ContainerRef], pid: Pid) -> Vec<Container> {
        (0..chain.len())
            .map(|level| {
                let known = self.take(self.world.container(&chain[..=level], pid));
                let unknown = || Container::from_ref(&chain[level], &chain[..level]);
                known.map_or_else(unknown, |known| (*known).clone())
            })
            .collect()
    }

    /// The interfaces of a namespace.
    pub(super) fn links_of(&self, netns: NetnsId) -> Rc<[Link]> {
        self.take(self.world.links(&[netns]))
    }

    /// The addresses of a namespace.
    pub(super) fn addresses_of(&self, netns: NetnsId) -> Rc<[Address]> {
        self.take(self.world.addresses(&[netns]))
    }

    /// Every address of every namespace.
    pub(super) fn all_addresses(&self) -> Rc<[Address]> {
        self.take(self.world.every_address())
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
            self.names.borrow_mut().insert(id, Some(NetnsName::Given(pod.to_string())));
        }
    }

    /// The containers, outermost first, whose processes live in a namespace. None
    /// for the host's.
    pub(super) fn containers_of(&self, id: NetnsId) -> Rc<[Container]> {
        if let Some(known) = self.containers.borrow().get(&id) {
            return Rc::clone(known);
        }
        let chain = || {
            let netns = self.netns.iter().find(|n| n.id == id)?;
            // A thread of rootlessport is in the namespace that it forwards into.
            let mut members = netns.members.iter().filter_map(|pid| self.process(*pid));
            let process = members.find(|process| !forward::is_forwarder(process))?;
            let mut containers = self.containers(&process.containers(), process.pid);
            // The network of a container with its host's network is that of the
            // container around it, if there is one.
            while containers.last()?.network_mode.as_deref() == Some("host") {
                containers.pop();
            }
            Some(containers)
        };
        let found = if self.host.host_netns == Some(id) { None } else { chain() };
        let found: Rc<[Container]> = found.unwrap_or_default().into();
        self.containers.borrow_mut().insert(id, Rc::clone(&found));
        found
    }

    fn name(&self, id: NetnsId) -> Option<NetnsName> {
        if self.host.host_netns == Some(id) {
            return Some(NetnsName::Host);
        }
        let netns = self.netns.iter().find(|n| n.id == id)?;
        let container = || self.containers_of(id).last().map(network_name);
        // Runtimes pin namespaces under generated names; a container's own name
        // says more.
        let pinned = netns.name.clone().filter(|name| !is_generated(name));
        pinned
            .or_else(container)
            .or_else(|| netns.name.clone())
            .map(NetnsName::Given)
            .or_else(|| (id == self.host.own_netns).then_some(NetnsName::Here))
    }
}

/// The name of a network namespace after one of the containers in it. A pod's
/// containers share theirs, so it is named after the pod.
fn network_name(container: &Container) -> String {
    match container.pod.as_ref().map(|pod| (&pod.namespace, &pod.name)) {
        Some((Some(namespace), Some(name))) => format!("{namespace}/{name}"),
        // Podman's pods are in no namespace of names.
        Some((None, Some(name))) if container.runtime == Runtime::Podman => name.clone(),
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
