//! Reading facts. The only module that does I/O, and in it only `live` does.

mod live;
mod recorded;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{
    Address, Bytes, Certificate, CgroupPath, ChainId, Connections, Container, ContainerRef,
    Element, Flow, FlowFilter, Frontend, Host, IpSet, IpSetId, KernelPort, KubeAsk, KubeContext,
    KubeObjects, Link, NetSettings, Netns, NetnsId, Owners, Pid, Process, Read, Route, RouteFound,
    RouteQuery, Rule, Ruleset, Set, SetId, Socket, SocketFilter, SocketInode, SourceReport, TlsAsk,
    Watched,
};

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use live::fuzzing;
pub use live::{
    COMPARISON, Changed, Kept, KubeCache, KubeOptions, LiveNode, Pinned, Pulse, check_kube,
    drop_rights, group_id, kube_client, kube_reports, local_offset, pin, probe_reports, unpin,
    watch,
};
pub use recorded::{
    Asked, ElementOf, Facts, FlowsOf, InContainer, Recorded, Recorder, Recording, RecordingError,
    SocketsOf, read_everything, redact,
};
pub use watch::{Wanted, Watch};

/// A node whose facts can be asked for, each at the time it is needed.
///
/// Every read is memoised: asking twice costs nothing and gives the same facts,
/// so that an answer is made from one picture of the node. No read fails: what
/// could not be read is in the gaps of the [`Read`].
pub trait Node {
    /// The node itself and the rights it is read with.
    fn host(&self) -> Read<Host>;

    /// Every network namespace that can be seen, the tool's own first.
    fn netns(&self) -> Read<Vec<Netns>>;

    /// Says which sockets will be asked for, of all namespaces, so that a slow
    /// source can be read while other things are.
    fn expect(&self, _filter: &SocketFilter) {}

    /// Listening TCP and bound, unconnected UDP sockets of these namespaces that
    /// pass `filter`.
    fn sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<Socket>>;

    /// Who holds these sockets.
    fn owners(&self, inodes: &BTreeSet<SocketInode>) -> Read<Owners>;

    /// These processes. One that has exited is left out.
    fn processes(&self, pids: &[Pid]) -> Read<Vec<Process>>;

    /// The interfaces of these namespaces.
    fn links(&self, netns: &[NetnsId]) -> Read<Vec<Link>>;

    /// The addresses of these namespaces.
    fn addresses(&self, netns: &[NetnsId]) -> Read<Vec<Address>>;

    /// The routes of these namespaces' main tables.
    fn routes(&self, netns: &[NetnsId]) -> Read<Vec<Route>>;

    /// Ports the kernel holds in these namespaces that links do not tell of
    /// (WireGuard, L2TP, FOU, NFS, lockd).
    fn kernel_ports(&self, netns: &[NetnsId]) -> Read<Vec<KernelPort>>;

    /// Looks for places that nothing else shows, such as namespaces that only a
    /// descriptor holds. They are gaps: "nothing there" can't be said then.
    fn unseen(&self) -> Read<()> {
        Read::default()
    }

    /// What these namespaces have of packet rules, without the rules. One entry for
    /// each namespace that has any table.
    fn rulesets(&self, _netns: &[NetnsId]) -> Read<Vec<Ruleset>> {
        Read::default()
    }

    /// Says that all rules of these namespaces will be asked for: one dump of each
    /// is then cheaper than one of each chain.
    fn expect_rules(&self, _netns: &[NetnsId]) {}

    /// The rules of a chain, in order; `None` when there is no such chain.
    fn chain(&self, _chain: &ChainId) -> Read<Option<Arc<[Rule]>>> {
        Read::default()
    }

    /// What is known of a set or map without its elements.
    fn set(&self, _set: &SetId) -> Read<Option<Set>> {
        Read::default()
    }

    /// All elements of a set or map; `None` when there is no such set.
    fn set_elements(&self, _set: &SetId) -> Read<Option<Arc<[Element]>>> {
        Read::default()
    }

    /// The element that `key` belongs to, which may be a range or the catch-all one.
    fn set_element(&self, _set: &SetId, _key: &Bytes) -> Read<Option<Element>> {
        Read::default()
    }

    /// A set of ipset.
    fn ip_set(&self, _set: &IpSetId) -> Read<Option<IpSet>> {
        Read::default()
    }

    /// What the load balancers of these namespaces take: IPVS, Cilium.
    fn frontends(&self, _netns: &[NetnsId]) -> Read<Vec<Frontend>> {
        Read::default()
    }

    /// The connections that conntrack knows in these namespaces.
    fn flows(&self, _netns: &[NetnsId], _filter: &FlowFilter) -> Read<Vec<Flow>> {
        Read::default()
    }

    /// How many established TCP connections the ports of these namespaces have. It costs
    /// as much as there are connections, and is not recorded.
    fn connections(&self, _netns: &[NetnsId]) -> Vec<Connections> {
        Vec::new()
    }

    /// Which way a packet takes that a process of a namespace sends.
    fn route(&self, _query: &RouteQuery) -> Read<Option<RouteFound>> {
        Read::default()
    }

    /// What these namespaces forward.
    fn settings(&self, _netns: &[NetnsId]) -> Read<Vec<NetSettings>> {
        Read::default()
    }

    /// The container at the end of `chain` (outermost first), in which process
    /// `pid` runs.
    fn container(&self, chain: &[ContainerRef], pid: Pid) -> Read<Option<Container>>;

    /// Every container that the runtimes of this node know of.
    fn containers(&self) -> Read<Vec<Container>>;

    /// The path of a cgroup v2 by its id.
    fn cgroup_path(&self, id: u64) -> Read<Option<CgroupPath>>;

    /// What watching this node told of where its listeners lead; `None` when it
    /// was not watched.
    fn observed(&self) -> Read<Option<Watched>> {
        Read::default()
    }

    /// The contexts of the kubeconfig files that are used here, the current one first. No
    /// API is asked.
    fn kube_contexts(&self) -> Read<Vec<KubeContext>> {
        Read::default()
    }

    /// Asks Kubernetes APIs, all asks at the same time, and gives what each said in the
    /// order of `asks`.
    fn kube(&self, asks: &[KubeAsk]) -> Vec<Read<KubeObjects>> {
        asks.iter().map(|_| Read::default()).collect()
    }

    /// Begins TLS with listeners, all at the same time, and gives the certificate that each
    /// showed, in the order of `asks`. Nothing else is said to them.
    fn certificates(&self, asks: &[TlsAsk]) -> Vec<Read<Option<Certificate>>> {
        asks.iter().map(|_| Read::default()).collect()
    }

    /// What was asked of which source so far.
    fn sources(&self) -> Vec<SourceReport>;
}
