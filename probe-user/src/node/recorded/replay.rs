//! A node that answers from a recording.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::names::is_id;
use super::{Asked, ElementOf, FlowsOf, InContainer, Recording};
use crate::model::{
    Address, Bytes, Certificate, CgroupPath, ChainId, Container, ContainerRef, Element, Flow,
    FlowFilter, Frontend, Gap, Host, Impact, IpSet, IpSetId, KernelPort, KubeAsk, KubeContext,
    KubeObjects, Link, NetSettings, Netns, NetnsId, Owners, Pid, Process, Read, Route, RouteFound,
    RouteQuery, Rule, Ruleset, Set, SetId, Socket, SocketFilter, SocketInode, SourceReport, TlsAsk,
    Watched,
};
use crate::node::Node;

/// Answers from a recording. The same question as was asked then gets the same
/// answer; another one is put together from all that was read, and what was not
/// is a gap.
#[derive(Debug)]
pub struct Recorded {
    recording: Recording,
    /// Where in the recording a container or a cgroup was asked for.
    container: HashMap<InContainer, usize>,
    cgroup_paths: HashMap<u64, usize>,
    chains: HashMap<ChainId, usize>,
    sets: HashMap<SetId, usize>,
    set_elements: HashMap<SetId, usize>,
    set_element: HashMap<ElementOf, usize>,
    ip_sets: HashMap<IpSetId, usize>,
    route: HashMap<RouteQuery, usize>,
}

impl Recorded {
    /// A node that answers from `recording`.
    pub fn new(recording: Recording) -> Self {
        let facts = &recording.facts;
        let container = index(facts.container.iter().map(|a| a.asked.clone()));
        let cgroup_paths = index(facts.cgroup_paths.iter().map(|a| a.asked));
        let chains = index(facts.chains.iter().map(|a| a.asked.clone()));
        let sets = index(facts.sets.iter().map(|a| a.asked.clone()));
        let set_elements = index(facts.set_elements.iter().map(|a| a.asked.clone()));
        let set_element = index(facts.set_element.iter().map(|a| a.asked.clone()));
        let ip_sets = index(facts.ip_sets.iter().map(|a| a.asked.clone()));
        let route = index(facts.route.iter().map(|a| a.asked));
        Self {
            recording,
            container,
            cgroup_paths,
            chains,
            sets,
            set_elements,
            set_element,
            ip_sets,
            route,
        }
    }

    /// What it answers from.
    pub fn recording(&self) -> &Recording {
        &self.recording
    }
}

fn index<K: Eq + Hash>(keys: impl Iterator<Item = K>) -> HashMap<K, usize> {
    let mut index = HashMap::new();
    for (at, key) in keys.enumerate() {
        index.entry(key).or_insert(at);
    }
    index
}

/// The gap for what nobody asked for when the recording was made.
fn unrecorded(impact: Impact, what: &str) -> Gap {
    Gap::new(impact, "recording", format!("{what} not read when this was recorded"))
        .remedy("record again with `whereis-port list --record FILE`")
}

/// A read of nothing but that gap.
fn nothing<T: Default>(impact: Impact, what: &str) -> Read<T> {
    Read::partial(T::default(), unrecorded(impact, what))
}

/// Which of several answers serve a question about `wanted`: for each answer the
/// keys it is used for, and the keys that none has.
fn assign<K, A>(wanted: &[K], asks: impl Iterator<Item = A>) -> (Vec<HashSet<K>>, HashSet<K>)
where
    K: Copy + Eq + Hash,
    A: IntoIterator<Item = K>,
{
    let mut left: HashSet<K> = wanted.iter().copied().collect();
    let used = asks.map(|keys| keys.into_iter().filter(|key| left.remove(key)).collect()).collect();
    (used, left)
}

/// Facts that belong to one key each, from all answers that have some of `wanted`.
fn gather<'a, K, T>(
    wanted: &[K],
    asks: &[(&'a [K], &'a Read<Vec<T>>)],
    key: impl Fn(&T) -> K,
    missing: impl FnOnce() -> Gap,
) -> Read<Vec<T>>
where
    K: Copy + Eq + Hash + 'a,
    T: Clone,
{
    if let Some((_, read)) = asks.iter().find(|(asked, _)| *asked == wanted) {
        return (*read).clone();
    }
    let (used, left) = assign(wanted, asks.iter().map(|(asked, _)| asked.iter().copied()));
    let mut all = Read::whole(Vec::new());
    for ((_, read), keys) in asks.iter().zip(used).filter(|(_, keys)| !keys.is_empty()) {
        let some = (*read).clone().take(&mut all.gaps);
        all.value.extend(some.into_iter().filter(|fact| keys.contains(&key(fact))));
    }
    if !left.is_empty() {
        all.gaps.push(missing());
    }
    all
}

/// The same for facts of namespaces.
fn of_netns<T: Clone>(
    asks: &[Asked<Vec<NetnsId>, Vec<T>>],
    wanted: &[NetnsId],
    key: impl Fn(&T) -> NetnsId,
    missing: (Impact, &str),
) -> Read<Vec<T>> {
    let asks: Vec<_> = asks.iter().map(|a| (a.asked.as_slice(), &a.read)).collect();
    gather(wanted, &asks, key, || unrecorded(missing.0, missing.1))
}

/// The answer to the same question, or what there is without one.
fn one<Q: Eq + Hash, A: Clone>(
    asks: &[Asked<Q, A>],
    index: &HashMap<Q, usize>,
    asked: &Q,
    otherwise: impl FnOnce() -> Read<A>,
) -> Read<A> {
    match index.get(asked).and_then(|at| asks.get(*at)) {
        Some(same) => same.read.clone(),
        None => otherwise(),
    }
}

impl Node for Recorded {
    fn host(&self) -> Read<Host> {
        self.recording.facts.host.clone()
    }

    fn netns(&self) -> Read<Vec<Netns>> {
        let read = self.recording.facts.netns.clone();
        read.unwrap_or_else(|| nothing(Impact::Port, "the network namespaces were"))
    }

    fn sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<Socket>> {
        let missing = || unrecorded(Impact::Port, "the sockets of some ports or namespaces were");
        let asks = |fits: &dyn Fn(&SocketFilter) -> bool| -> Vec<_> {
            let fitting = self.recording.facts.sockets.iter().filter(|a| fits(&a.asked.filter));
            fitting.map(|a| (a.asked.netns.as_slice(), &a.read)).collect()
        };
        let same = asks(&|recorded| recorded == filter);
        if let Some((_, read)) = same.iter().find(|(asked, _)| *asked == netns) {
            return (*read).clone();
        }
        let mut read =
            gather(netns, &asks(&|recorded| recorded.covers(filter)), |s| s.netns, missing);
        read.value.retain(|socket| filter.matches(socket));
        read
    }

    fn owners(&self, inodes: &BTreeSet<SocketInode>) -> Read<Owners> {
        let asks = &self.recording.facts.owners;
        if let Some(same) = asks.iter().find(|a| a.asked == *inodes) {
            return same.read.clone();
        }
        let wanted: Vec<_> = inodes.iter().copied().collect();
        let (used, left) = assign(&wanted, asks.iter().map(|a| a.asked.iter().copied()));
        let mut all = Read::whole(Owners::default());
        let mut denied = BTreeSet::new();
        for (ask, keys) in asks.iter().zip(used).filter(|(_, keys)| !keys.is_empty()) {
            let some = ask.read.clone().take(&mut all.gaps);
            all.value.holders.extend(some.holders.into_iter().filter(|o| keys.contains(&o.inode)));
            all.value.denied_total = all.value.denied_total.max(some.denied_total);
            all.value.gone.extend(some.gone.into_iter().filter(|inode| keys.contains(inode)));
            denied.extend(some.denied);
        }
        all.value.holders.sort();
        all.value.denied = denied.into_iter().take(Owners::DENIED).collect();
        if !left.is_empty() {
            all.gaps.push(unrecorded(Impact::Owner, "the owners of some sockets were"));
        }
        all
    }

    fn processes(&self, pids: &[Pid]) -> Read<Vec<Process>> {
        let asks: Vec<_> =
            self.recording.facts.processes.iter().map(|a| (a.asked.as_slice(), &a.read)).collect();
        let missing = || unrecorded(Impact::Owner, "some processes were");
        gather(pids, &asks, |process| process.pid, missing)
    }

    fn links(&self, netns: &[NetnsId]) -> Read<Vec<Link>> {
        let missing = (Impact::Owner, "the interfaces of some namespaces were");
        of_netns(&self.recording.facts.links, netns, |link| link.netns, missing)
    }

    fn addresses(&self, netns: &[NetnsId]) -> Read<Vec<Address>> {
        let missing = (Impact::Reach, "the addresses of some namespaces were");
        of_netns(&self.recording.facts.addresses, netns, |address| address.netns, missing)
    }

    fn routes(&self, netns: &[NetnsId]) -> Read<Vec<Route>> {
        let missing = (Impact::Reach, "the routes of some namespaces were");
        of_netns(&self.recording.facts.routes, netns, |route| route.netns, missing)
    }

    fn kernel_ports(&self, netns: &[NetnsId]) -> Read<Vec<KernelPort>> {
        let missing = (Impact::Owner, "the kernel's own ports in some namespaces were");
        of_netns(&self.recording.facts.kernel_ports, netns, |port| port.netns, missing)
    }

    fn unseen(&self) -> Read<()> {
        self.recording.facts.unseen.clone().unwrap_or_default()
    }

    fn rulesets(&self, netns: &[NetnsId]) -> Read<Vec<Ruleset>> {
        let missing = (Impact::Port, "the packet rules of some namespaces were");
        of_netns(&self.recording.facts.rulesets, netns, |rules| rules.netns, missing)
    }

    fn chain(&self, chain: &ChainId) -> Read<Option<Arc<[Rule]>>> {
        one(&self.recording.facts.chains, &self.chains, chain, || {
            nothing(Impact::Reach, "a chain of packet rules was")
        })
    }

    fn set(&self, set: &SetId) -> Read<Option<Set>> {
        one(&self.recording.facts.sets, &self.sets, set, || {
            nothing(Impact::Reach, "a set of packet rules was")
        })
    }

    fn set_elements(&self, set: &SetId) -> Read<Option<Arc<[Element]>>> {
        one(&self.recording.facts.set_elements, &self.set_elements, set, || {
            nothing(Impact::Reach, "the elements of a set of packet rules were")
        })
    }

    fn set_element(&self, set: &SetId, key: &Bytes) -> Read<Option<Element>> {
        let asked = ElementOf { set: set.clone(), key: key.clone() };
        one(&self.recording.facts.set_element, &self.set_element, &asked, || {
            match self.set_elements.get(set) {
                // All of them are there: it is one of those, or none.
                Some(_) => {
                    let fields = self.set(set).value.map(|set| set.fields).unwrap_or_default();
                    let find =
                        |all: Arc<[Element]>| crate::model::element_of(&fields, &all, key).cloned();
                    self.set_elements(set).map(|all| all.and_then(find))
                }
                None => nothing(Impact::Reach, "an element of a set of packet rules was"),
            }
        })
    }

    fn ip_set(&self, set: &IpSetId) -> Read<Option<IpSet>> {
        one(&self.recording.facts.ip_sets, &self.ip_sets, set, || {
            nothing(Impact::Reach, "an ipset was")
        })
    }

    fn frontends(&self, netns: &[NetnsId]) -> Read<Vec<Frontend>> {
        let missing = (Impact::Port, "the load balancers of some namespaces were");
        of_netns(&self.recording.facts.frontends, netns, |frontend| frontend.netns, missing)
    }

    fn flows(&self, netns: &[NetnsId], filter: &FlowFilter) -> Read<Vec<Flow>> {
        // What was read of more namespaces holds what is asked of some.
        let covers = |asked: &FlowsOf| {
            asked.filter == *filter && netns.iter().all(|id| asked.netns.contains(id))
        };
        match self.recording.facts.flows.iter().find(|a| covers(&a.asked)) {
            Some(ask) => {
                let mut read = ask.read.clone();
                read.value.retain(|flow| netns.contains(&flow.netns));
                read
            }
            None => nothing(Impact::Flow, "the connections of this port were"),
        }
    }

    fn route(&self, query: &RouteQuery) -> Read<Option<RouteFound>> {
        // Without an answer the main table tells, which is recorded, too.
        one(&self.recording.facts.route, &self.route, query, Read::default)
    }

    fn settings(&self, netns: &[NetnsId]) -> Read<Vec<NetSettings>> {
        let missing = (Impact::Reach, "what some namespaces forward was");
        of_netns(&self.recording.facts.settings, netns, |settings| settings.netns, missing)
    }

    fn kube_contexts(&self) -> Read<Vec<KubeContext>> {
        // Recordings of nodes without Kubernetes have none.
        self.recording.facts.kube_contexts.clone().unwrap_or_default()
    }

    fn kube(&self, asks: &[KubeAsk]) -> Vec<Read<KubeObjects>> {
        let known = &self.recording.facts.kube;
        let unread = || nothing(Impact::Name, "this part of the Kubernetes API was");
        asks.iter().map(|ask| super::kube::answer(known, ask).unwrap_or_else(unread)).collect()
    }

    fn certificates(&self, asks: &[TlsAsk]) -> Vec<Read<Option<Certificate>>> {
        let known = &self.recording.facts.certificates;
        let answer = |ask: &TlsAsk| match known.iter().find(|k| k.asked == *ask) {
            Some(same) => same.read.clone(),
            None => Read::partial(
                None,
                Gap::new(
                    Impact::Name,
                    "recording",
                    "the certificate of a listener was not asked for when this was recorded",
                )
                .remedy("record the question again: whereis-port PORT --tls --record FILE"),
            ),
        };
        asks.iter().map(answer).collect()
    }

    fn container(&self, chain: &[ContainerRef], pid: Pid) -> Read<Option<Container>> {
        let facts = &self.recording.facts;
        let asked = InContainer { chain: chain.to_vec(), pid };
        if let Some(same) = self.container.get(&asked).and_then(|at| facts.container.get(*at)) {
            return same.read.clone();
        }
        let Some((last, parents)) = chain.split_last() else { return Read::whole(None) };
        let all = facts.containers.iter().flat_map(|read| &read.value);
        // An id is unique. A name, as LXC has, is so only inside what is around it.
        let found = all
            .filter(|c| c.id == last.id && (is_id(&c.id) || c.parents == parents))
            .max_by_key(|c| c.parents == parents);
        match found {
            Some(container) => Read::whole(Some(container.clone())),
            None => nothing(Impact::Name, "a container was"),
        }
    }

    fn containers(&self) -> Read<Vec<Container>> {
        let read = self.recording.facts.containers.clone();
        read.unwrap_or_else(|| nothing(Impact::Name, "the list of containers was"))
    }

    fn cgroup_path(&self, id: u64) -> Read<Option<CgroupPath>> {
        let asked = self.cgroup_paths.get(&id);
        match asked.and_then(|at| self.recording.facts.cgroup_paths.get(*at)) {
            Some(same) => same.read.clone(),
            None => nothing(Impact::Name, "the path of a cgroup was"),
        }
    }

    fn observed(&self) -> Read<Option<Watched>> {
        self.recording.facts.observed.clone().unwrap_or_default()
    }

    fn sources(&self) -> Vec<SourceReport> {
        self.recording.sources.clone()
    }
}
