//! A node that answers from a recording.

use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::names::is_id;
use super::{ElementOf, FlowsOf, InContainer, RecordedFact, Recording, SocketsOf};
use crate::{
    Attachments, Attempts, Clusters, Conntrack, Listeners, LoadBalancers, Netfilter, Observed,
    Prefetch, Processes, Reports, Runtimes, Sockets, Topology,
};
use whereis_port_model::{
    Address, Attached, BindAsk, BindError, Bytes, Certificate, CgroupOf, CgroupPath, CgroupProgram,
    ChainId, Cilium, CiliumPolicy, CiliumPolicyOf, ConnectAsk, Connected, Connections, Container,
    ContainerRef, Element, Flow, FlowFilter, Frontend, Gap, GapKind, Host, Impact, InputFound,
    InputQuery, IpSet, IpSetId, KernelPort, KubeAsk, KubeContext, KubeObjects, Link, LocalRoute,
    Neighbour, NetSettings, Netns, NetnsId, OtherSocket, Owners, Pid, PolicyRule, PortFacts,
    PortSocket, Process, Provenance, Read, Relay, Route, RouteFound, RouteQuery, Rule, Ruleset,
    Set, SetId, Socket, SocketFile, SocketFilter, SocketInode, SocketUnit, SourceReport, TlsAsk,
    Transparent, Watched,
};

/// Answers from a recording. The same question as was asked then gets the same
/// answer; another one is put together from all that was read, and what was not
/// is a gap.
#[derive(Debug)]
pub struct Recorded {
    recording: Recording,
}

impl Recorded {
    /// A node that answers from `recording`.
    pub fn new(recording: Recording) -> Self {
        Self { recording }
    }

    /// What it answers from.
    pub fn recording(&self) -> &Recording {
        &self.recording
    }
}

/// The gap for what nobody asked for when the recording was made.
fn unrecorded(impact: Impact, what: &str) -> Gap {
    Gap::new(impact, GapKind::Recording, format!("{what} not read when this was recorded"))
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
        let wanted = read.value.iter().filter(|fact| keys.contains(&key(fact))).cloned();
        let some = Read { value: wanted.collect::<Vec<T>>(), gaps: read.gaps.clone() };
        all.value.extend(some.take(&mut all.gaps));
    }
    if !left.is_empty() {
        all.gaps.push(missing());
    }
    all
}

/// The same for facts of namespaces.
fn of_netns<T: Clone>(
    asks: &[RecordedFact<Vec<NetnsId>, Vec<T>>],
    wanted: &[NetnsId],
    key: impl Fn(&T) -> NetnsId,
    missing: (Impact, &str),
) -> Read<Vec<T>> {
    let asks: Vec<_> = asks.iter().map(|a| (a.asked.as_slice(), &a.read)).collect();
    gather(wanted, &asks, key, || unrecorded(missing.0, missing.1))
}

/// The same for sockets: of the same filter, or of one that asked for more.
fn of_filter<T: Clone>(
    known: &[RecordedFact<SocketsOf, Vec<T>>],
    netns: &[NetnsId],
    filter: &SocketFilter,
    key: impl Fn(&T) -> NetnsId,
    missing: impl FnOnce() -> Gap,
) -> Read<Vec<T>> {
    let asks = |fits: &dyn Fn(&SocketFilter) -> bool| -> Vec<_> {
        let fitting = known.iter().filter(|a| fits(&a.asked.filter));
        fitting.map(|a| (a.asked.netns.as_slice(), &a.read)).collect()
    };
    let same = asks(&|recorded| recorded == filter);
    if let Some((_, read)) = same.iter().find(|(asked, _)| *asked == netns) {
        return (*read).clone();
    }
    gather(netns, &asks(&|recorded| recorded.covers(filter)), key, missing)
}

/// Methods that answer about namespaces.
macro_rules! answer_of_netns {
    ($($fact:ident: $of:ty, $impact:ident, $missing:literal;)*) => {
        $(fn $fact(&self, netns: &[NetnsId]) -> Read<Vec<$of>> {
            let missing = (Impact::$impact, $missing);
            of_netns(&self.recording.facts.$fact, netns, |fact| fact.netns, missing)
        })*
    };
}

/// Methods that answer about a key.
macro_rules! answer_of_key {
    ($($fact:ident, $table:ident: $key:ty, $of:ty, $missing:literal;)*) => {
        $(fn $fact(&self, key: &$key) -> Read<Option<$of>> {
            let known = self.recording.facts.$table.get(key).cloned();
            known.unwrap_or_else(|| nothing(Impact::Reach, $missing))
        })*
    };
}

impl Topology for Recorded {
    of_netns!(answer_of_netns, Topology);

    fn host(&self) -> Read<Host> {
        self.recording.facts.host.clone()
    }

    fn netns(&self) -> Read<Vec<Netns>> {
        let read = self.recording.facts.netns.clone();
        read.unwrap_or_else(|| nothing(Impact::Port, "the network namespaces were"))
    }

    fn unseen(&self) -> Read<()> {
        self.recording.facts.unseen.clone().unwrap_or_default()
    }

    fn route(&self, query: &RouteQuery) -> Read<Option<RouteFound>> {
        // Without an answer the main table tells, which is recorded, too.
        self.recording.facts.route.get(query).cloned().unwrap_or_default()
    }

    fn input_route(&self, query: &InputQuery) -> Read<Option<InputFound>> {
        // Likewise.
        self.recording.facts.input_routes.get(query).cloned().unwrap_or_default()
    }

    fn neighbours(&self, netns: &[NetnsId]) -> Read<Vec<Neighbour>> {
        let asks = &self.recording.facts.neighbours;
        if asks.is_empty() {
            return Read::default();
        }
        let missing = (Impact::Reach, "the neighbours of some namespaces were");
        of_netns(asks, netns, |one| one.netns, missing)
    }

    fn local_routes(&self, netns: &[NetnsId]) -> Read<Vec<LocalRoute>> {
        let asks = &self.recording.facts.local_routes;
        if asks.is_empty() {
            return Read::default();
        }
        let missing = (Impact::Reach, "the local routes of some namespaces were");
        of_netns(asks, netns, |route| route.netns, missing)
    }

    fn policy_rules(&self, netns: &[NetnsId]) -> Read<Vec<PolicyRule>> {
        let asks = &self.recording.facts.policy_rules;
        if asks.is_empty() {
            return Read::default();
        }
        let missing = (Impact::Reach, "the routing rules of some namespaces were");
        of_netns(asks, netns, |rule| rule.netns, missing)
    }
}

impl Sockets for Recorded {
    of_netns!(answer_of_netns, Sockets);

    fn sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<Socket>> {
        let missing = || unrecorded(Impact::Port, "the sockets of some ports or namespaces were");
        let known = &self.recording.facts.sockets;
        let mut read = of_filter(known, netns, filter, |s| s.netns, missing);
        read.value.retain(|socket| filter.matches(socket));
        read
    }

    fn port_sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<PortSocket>> {
        let missing = || unrecorded(Impact::Bind, "sockets that do not listen were");
        let known = &self.recording.facts.port_sockets;
        let mut read = of_filter(known, netns, filter, |s| s.socket.netns, missing);
        read.value.retain(|found| filter.matches(&found.socket));
        read
    }

    fn owners(&self, inodes: &BTreeSet<SocketInode>) -> Read<Owners> {
        let asks = &self.recording.facts.owners;
        if let Some(same) = asks.get(inodes) {
            return same.clone();
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

    fn socket_file(&self, path: &str) -> SocketFile {
        let known = self.recording.facts.socket_files.get(&path.to_owned());
        known.map_or_else(
            || SocketFile::Unknown("it was not looked at when this was recorded".to_owned()),
            |read| read.value.clone(),
        )
    }

    fn connections(&self, _: &[NetnsId]) -> Vec<Connections> {
        Vec::new()
    }
}

impl Processes for Recorded {
    fn processes(&self, pids: &[Pid]) -> Read<Vec<Process>> {
        let asks: Vec<_> =
            self.recording.facts.processes.iter().map(|a| (a.asked.as_slice(), &a.read)).collect();
        let missing = || unrecorded(Impact::Owner, "some processes were");
        gather(pids, &asks, |process| process.pid, missing)
    }

    fn cgroup_path(&self, id: u64) -> Read<Option<CgroupPath>> {
        let known = self.recording.facts.cgroup_paths.get(&id).cloned();
        known.unwrap_or_else(|| nothing(Impact::Name, "the path of a cgroup was"))
    }

    // Nothing depends on these: what was not recorded is not told.
    fn provenance(&self, pid: Pid) -> Read<Option<Provenance>> {
        self.recording.facts.provenances.get(&pid).cloned().unwrap_or_default()
    }

    fn socket_units(&self) -> Read<Vec<SocketUnit>> {
        self.recording.facts.socket_units.clone().unwrap_or_default()
    }
}

// A recording that has none of a kind was made before they were read: it says what was known
// then.
impl Attachments for Recorded {
    fn attached(&self, netns: &[NetnsId]) -> Read<Vec<Attached>> {
        let asks = &self.recording.facts.attached;
        if asks.is_empty() {
            return Read::default();
        }
        of_netns(asks, netns, |one| one.netns, (Impact::Reach, ATTACHED))
    }

    fn cgroup_programs(&self, of: &CgroupOf) -> Read<Option<Vec<CgroupProgram>>> {
        let asks = &self.recording.facts.cgroup_programs;
        match asks.get(of) {
            Some(same) => same.clone(),
            None if asks.is_empty() => Read::default(),
            None => nothing(Impact::Reach, ATTACHED),
        }
    }
}

const ATTACHED: &str = "the programs that are attached to some devices or cgroups were";

impl Netfilter for Recorded {
    of_netns!(answer_of_netns, Netfilter);
    of_key!(answer_of_key, Netfilter);

    fn set_element(&self, set: &SetId, key: &Bytes) -> Read<Option<Element>> {
        let asked = ElementOf { set: set.clone(), key: key.clone() };
        let facts = &self.recording.facts;
        if let Some(same) = facts.set_element.get(&asked) {
            return same.clone();
        }
        if facts.set_elements.get(set).is_none() {
            return nothing(Impact::Reach, "an element of a set of packet rules was");
        }
        // All of them are there: it is one of those, or none.
        let fields = self.set(set).value.map(|set| set.fields).unwrap_or_default();
        let find =
            |all: Arc<[Element]>| whereis_port_model::element_of(&fields, &all, key).cloned();
        self.set_elements(set).map(|all| all.and_then(find))
    }
}

impl Conntrack for Recorded {
    fn flows(&self, netns: &[NetnsId], filter: &FlowFilter) -> Read<Vec<Flow>> {
        // What was read of more namespaces holds what is asked of some, and what was read of
        // all protocols what is asked of one.
        let covers = |asked: &FlowsOf| {
            let proto = asked.filter.proto;
            asked.filter.ports == filter.ports
                && (proto.is_none() || proto == filter.proto)
                && netns.iter().all(|id| asked.netns.contains(id))
        };
        match self.recording.facts.flows.iter().find(|a| covers(&a.asked)) {
            Some(ask) => {
                let mut read = ask.read.clone();
                read.value.retain(|flow| netns.contains(&flow.netns) && filter.matches(flow));
                read
            }
            None => nothing(Impact::Flow, "the connections of this port were"),
        }
    }
}

impl LoadBalancers for Recorded {
    of_netns!(answer_of_netns, LoadBalancers);
    of_key!(answer_of_key, LoadBalancers);
}

impl Runtimes for Recorded {
    fn container(&self, chain: &[ContainerRef], pid: Pid) -> Read<Option<Container>> {
        let facts = &self.recording.facts;
        let asked = InContainer { chain: chain.to_vec(), pid };
        if let Some(same) = facts.container.get(&asked) {
            return same.clone();
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

    fn unpublished(&self) -> Read<Vec<Container>> {
        // A hint, which is not missed in recordings that are older.
        self.recording.facts.unpublished.clone().unwrap_or_default()
    }

    fn relay(&self, pid: Pid) -> Read<Relay> {
        let asks = &self.recording.facts.relays;
        match asks.get(&pid) {
            Some(same) => same.clone(),
            // It was made before they were read.
            None if asks.is_empty() => Read::default(),
            None => nothing(Impact::Way, "what a forwarder shows was"),
        }
    }
}

impl Clusters for Recorded {
    fn kube_contexts(&self) -> Read<Vec<KubeContext>> {
        // Recordings of nodes without Kubernetes have none.
        self.recording.facts.kube_contexts.clone().unwrap_or_default()
    }

    fn kube(&self, asks: &[KubeAsk]) -> Vec<Read<KubeObjects>> {
        let known = &self.recording.facts.kube;
        let unread = || nothing(Impact::Name, "this part of the Kubernetes API was");
        asks.iter().map(|ask| super::kube::answer(known, ask).unwrap_or_else(unread)).collect()
    }
}

impl Listeners for Recorded {
    fn certificates(&self, asks: &[TlsAsk]) -> Vec<Read<Option<Certificate>>> {
        let known = &self.recording.facts.certificates;
        let answer = |ask: &TlsAsk| match known.get(ask) {
            Some(same) => same.clone(),
            None => Read::partial(
                None,
                Gap::new(
                    Impact::Name,
                    GapKind::Recording,
                    "the certificate of a listener was not asked for when this was recorded",
                )
                .remedy("record the question again: whereis-port PORT --tls --record FILE"),
            ),
        };
        asks.iter().map(answer).collect()
    }
}

impl Attempts for Recorded {
    fn try_connect(&self, asks: &[ConnectAsk]) -> Read<Vec<Connected>> {
        Read::whole(vec![Connected::NotTried; asks.len()])
    }

    fn try_bind(&self, _: &BindAsk) -> Read<Option<Result<(), BindError>>> {
        let gap = Gap::new(Impact::Bind, GapKind::Recording, "nothing can be tried on a recording");
        Read::partial(None, gap)
    }
}

impl Observed for Recorded {
    fn observed(&self) -> Read<Option<Watched>> {
        self.recording.facts.observed.clone().unwrap_or_default()
    }
}

impl Reports for Recorded {
    fn sources(&self) -> Vec<SourceReport> {
        self.recording.sources.clone()
    }
}

impl Prefetch for Recorded {
    fn prefetch_sockets(&self, _: &SocketFilter) {}

    fn prefetch_rules(&self, _: &[NetnsId]) {}
}
