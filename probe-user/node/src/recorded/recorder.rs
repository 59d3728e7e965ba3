//! A node that remembers what it was asked.

use std::cell::{OnceCell, RefCell, RefMut};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::{ElementOf, FlowsOf, InContainer, RecordedFacts, Recording, SocketsOf};
use crate::{
    Attachments, Attempts, Clusters, Conntrack, Listeners, LoadBalancers, Netfilter, Node,
    Observed, Prefetch, Processes, Reports, Runtimes, Sockets, Topology,
};
use whereis_port_model::{
    Address, Attached, BindAsk, BindError, Bytes, Certificate, CgroupOf, CgroupPath, CgroupProgram,
    ChainId, Cilium, CiliumPolicy, CiliumPolicyOf, ConnectAsk, Connected, Connections, Container,
    ContainerRef, Element, Flow, FlowFilter, Frontend, Host, InputFound, InputQuery, IpSet,
    IpSetId, KernelPort, KubeAsk, KubeContext, KubeObjects, Link, LocalRoute, Neighbour,
    NetSettings, Netns, NetnsId, OtherSocket, Owners, Pid, PolicyRule, PortFacts, PortSocket,
    Process, Provenance, Read, Relay, Route, RouteFound, RouteQuery, Rule, Ruleset, Set, SetId,
    Socket, SocketFile, SocketFilter, SocketInode, SocketUnit, SourceReport, TlsAsk, Transparent,
    Watched,
};

/// Passes every read on to another node and keeps what it gave.
pub struct Recorder<'a> {
    node: &'a dyn Node,
    facts: OnceCell<RefCell<RecordedFacts>>,
}

impl<'a> Recorder<'a> {
    /// A recorder of what will be asked of `node`.
    pub fn new(node: &'a dyn Node) -> Self {
        Self { node, facts: OnceCell::new() }
    }

    /// What was asked and answered so far, each question once, in the order in
    /// which they came.
    pub fn recording(&self) -> Recording {
        let mut facts = self.facts().clone();
        // A node keeps it, and nothing is read for it.
        facts.observed = Some(self.node.observed()).filter(|read| *read != Read::default());
        Recording::new(facts, self.node.sources())
    }

    fn facts(&self) -> RefMut<'_, RecordedFacts> {
        self.facts.get_or_init(|| RefCell::new(RecordedFacts::new(self.node.host()))).borrow_mut()
    }

    /// Reads something that has no questions, once.
    fn once<T: Clone>(
        &self,
        kept: impl Fn(&mut RecordedFacts) -> &mut Option<Read<T>>,
        read: impl FnOnce(&dyn Node) -> Read<T>,
    ) -> Read<T> {
        if let Some(known) = kept(&mut self.facts()) {
            return known.clone();
        }
        let read = read(self.node);
        *kept(&mut self.facts()) = Some(read.clone());
        read
    }
}

impl fmt::Debug for Recorder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

/// Keeps an answer in the table of its kind, and gives it.
macro_rules! keep {
    ($recorder:ident.$table:ident, $asked:expr, $read:expr) => {{
        let read = $read;
        $recorder.facts().$table.keep($asked, read.clone());
        read
    }};
}

/// Methods that keep what is read of namespaces.
macro_rules! keep_of_netns {
    ($($fact:ident: $of:ty, $impact:ident, $missing:literal;)*) => {
        $(fn $fact(&self, netns: &[NetnsId]) -> Read<Vec<$of>> {
            keep!(self.$fact, netns.to_vec(), self.node.$fact(netns))
        })*
    };
}

/// Methods that keep what is read by a key.
macro_rules! keep_of_key {
    ($($fact:ident, $table:ident: $key:ty, $of:ty, $missing:literal;)*) => {
        $(fn $fact(&self, key: &$key) -> Read<Option<$of>> {
            keep!(self.$table, key.clone(), self.node.$fact(key))
        })*
    };
}

impl Topology for Recorder<'_> {
    of_netns!(keep_of_netns, Topology);

    fn host(&self) -> Read<Host> {
        self.node.host()
    }

    fn netns(&self) -> Read<Vec<Netns>> {
        self.once(|facts| &mut facts.netns, |node| node.netns())
    }

    fn unseen(&self) -> Read<()> {
        self.once(|facts| &mut facts.unseen, |node| node.unseen())
    }

    fn route(&self, query: &RouteQuery) -> Read<Option<RouteFound>> {
        keep!(self.route, *query, self.node.route(query))
    }

    fn input_route(&self, query: &InputQuery) -> Read<Option<InputFound>> {
        keep!(self.input_routes, *query, self.node.input_route(query))
    }

    fn neighbours(&self, netns: &[NetnsId]) -> Read<Vec<Neighbour>> {
        keep!(self.neighbours, netns.to_vec(), self.node.neighbours(netns))
    }

    fn local_routes(&self, netns: &[NetnsId]) -> Read<Vec<LocalRoute>> {
        keep!(self.local_routes, netns.to_vec(), self.node.local_routes(netns))
    }

    fn policy_rules(&self, netns: &[NetnsId]) -> Read<Vec<PolicyRule>> {
        keep!(self.policy_rules, netns.to_vec(), self.node.policy_rules(netns))
    }
}

impl Sockets for Recorder<'_> {
    of_netns!(keep_of_netns, Sockets);

    fn sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<Socket>> {
        let asked = SocketsOf { netns: netns.to_vec(), filter: filter.to_owned() };
        keep!(self.sockets, asked, self.node.sockets(netns, filter))
    }

    fn port_sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<PortSocket>> {
        let asked = SocketsOf { netns: netns.to_vec(), filter: filter.to_owned() };
        keep!(self.port_sockets, asked, self.node.port_sockets(netns, filter))
    }

    fn owners(&self, inodes: &BTreeSet<SocketInode>) -> Read<Owners> {
        keep!(self.owners, inodes.clone(), self.node.owners(inodes))
    }

    fn socket_file(&self, path: &str) -> SocketFile {
        let found = self.node.socket_file(path);
        self.facts().socket_files.keep(path.to_owned(), Read::whole(found.clone()));
        found
    }

    // They are not recorded.
    fn connections(&self, netns: &[NetnsId]) -> Vec<Connections> {
        self.node.connections(netns)
    }
}

impl Processes for Recorder<'_> {
    fn processes(&self, pids: &[Pid]) -> Read<Vec<Process>> {
        keep!(self.processes, pids.to_vec(), self.node.processes(pids))
    }

    fn cgroup_path(&self, id: u64) -> Read<Option<CgroupPath>> {
        keep!(self.cgroup_paths, id, self.node.cgroup_path(id))
    }

    fn provenance(&self, pid: Pid) -> Read<Option<Provenance>> {
        keep!(self.provenances, pid, self.node.provenance(pid))
    }

    fn socket_units(&self) -> Read<Vec<SocketUnit>> {
        self.once(|facts| &mut facts.socket_units, |node| node.socket_units())
    }
}

impl Attachments for Recorder<'_> {
    fn attached(&self, netns: &[NetnsId]) -> Read<Vec<Attached>> {
        keep!(self.attached, netns.to_vec(), self.node.attached(netns))
    }

    fn cgroup_programs(&self, of: &CgroupOf) -> Read<Option<Vec<CgroupProgram>>> {
        keep!(self.cgroup_programs, *of, self.node.cgroup_programs(of))
    }
}

impl Netfilter for Recorder<'_> {
    of_netns!(keep_of_netns, Netfilter);
    of_key!(keep_of_key, Netfilter);

    fn set_element(&self, set: &SetId, key: &Bytes) -> Read<Option<Element>> {
        let asked = ElementOf { set: set.clone(), key: key.clone() };
        keep!(self.set_element, asked, self.node.set_element(set, key))
    }
}

impl Conntrack for Recorder<'_> {
    fn flows(&self, netns: &[NetnsId], filter: &FlowFilter) -> Read<Vec<Flow>> {
        let asked = FlowsOf { netns: netns.to_vec(), filter: *filter };
        keep!(self.flows, asked, self.node.flows(netns, filter))
    }
}

impl LoadBalancers for Recorder<'_> {
    of_netns!(keep_of_netns, LoadBalancers);
    of_key!(keep_of_key, LoadBalancers);
}

impl Runtimes for Recorder<'_> {
    fn container(&self, chain: &[ContainerRef], pid: Pid) -> Read<Option<Container>> {
        let asked = InContainer { chain: chain.to_vec(), pid };
        keep!(self.container, asked, self.node.container(chain, pid))
    }

    fn containers(&self) -> Read<Vec<Container>> {
        self.once(|facts| &mut facts.containers, |node| node.containers())
    }

    fn unpublished(&self) -> Read<Vec<Container>> {
        self.once(|facts| &mut facts.unpublished, |node| node.unpublished())
    }

    fn relay(&self, pid: Pid) -> Read<Relay> {
        keep!(self.relays, pid, self.node.relay(pid))
    }
}

impl Clusters for Recorder<'_> {
    fn kube_contexts(&self) -> Read<Vec<KubeContext>> {
        self.once(|facts| &mut facts.kube_contexts, |node| node.kube_contexts())
    }

    fn kube(&self, asks: &[KubeAsk]) -> Vec<Read<KubeObjects>> {
        let reads = self.node.kube(asks);
        asks.iter().zip(reads).map(|(ask, read)| keep!(self.kube, ask.clone(), read)).collect()
    }
}

impl Listeners for Recorder<'_> {
    fn certificates(&self, asks: &[TlsAsk]) -> Vec<Read<Option<Certificate>>> {
        let reads = self.node.certificates(asks);
        asks.iter().zip(reads).map(|(ask, read)| keep!(self.certificates, *ask, read)).collect()
    }
}

impl Attempts for Recorder<'_> {
    // What would happen to another try is not known.
    fn try_connect(&self, asks: &[ConnectAsk]) -> Read<Vec<Connected>> {
        self.node.try_connect(asks)
    }

    fn try_bind(&self, ask: &BindAsk) -> Read<Option<Result<(), BindError>>> {
        self.node.try_bind(ask)
    }
}

impl Observed for Recorder<'_> {
    fn observed(&self) -> Read<Option<Watched>> {
        self.node.observed()
    }
}

impl Reports for Recorder<'_> {
    fn sources(&self) -> Vec<SourceReport> {
        self.node.sources()
    }
}

impl Prefetch for Recorder<'_> {
    fn prefetch_sockets(&self, filter: &SocketFilter) {
        self.node.prefetch_sockets(filter);
    }

    fn prefetch_rules(&self, netns: &[NetnsId]) {
        self.node.prefetch_rules(netns);
    }
}
