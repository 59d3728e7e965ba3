//! The facts of a node, as those ask for them who make answers: traits that whoever reads a
//! node, or has a recording of one, implements.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::{
    Address, Attached, BindAsk, BindError, Bytes, Certificate, CgroupOf, CgroupPath, CgroupProgram,
    ChainId, Cilium, CiliumPolicy, CiliumPolicyOf, ConnectAsk, Connected, Connections, Container,
    ContainerRef, Element, Flow, FlowFilter, Frontend, Host, InputFound, InputQuery, IpSet,
    IpSetId, KernelPort, KubeAsk, KubeContext, KubeObjects, Link, LocalRoute, Neighbour,
    NetSettings, Netns, NetnsId, OtherSocket, Owners, Pid, PolicyRule, PortFacts, PortSocket,
    Process, Provenance, Read, Relay, Route, RouteFound, RouteQuery, Rule, Ruleset, Set, SetId,
    Socket, SocketFile, SocketFilter, SocketInode, SocketUnit, SourceReport, TlsAsk, Transparent,
    Watched,
};

/// The machine, its network namespaces, and how they are joined.
pub trait Topology {
    /// The node itself and the rights it is read with.
    fn host(&self) -> Read<Host>;

    /// Every network namespace that can be seen, the tool's own first.
    fn netns(&self) -> Read<Vec<Netns>>;

    /// Looks for places that nothing else shows, such as namespaces that only a
    /// descriptor holds. They are gaps: "nothing there" can't be said then.
    fn unseen(&self) -> Read<()>;

    /// The interfaces of these namespaces.
    fn links(&self, netns: &[NetnsId]) -> Read<Vec<Link>>;

    /// The addresses of these namespaces.
    fn addresses(&self, netns: &[NetnsId]) -> Read<Vec<Address>>;

    /// The routes of these namespaces' main tables.
    fn routes(&self, netns: &[NetnsId]) -> Read<Vec<Route>>;

    /// Which way a packet takes that a process of a namespace sends.
    fn route(&self, query: &RouteQuery) -> Read<Option<RouteFound>>;

    /// Whom these namespaces know on their links, and for whom they answer there.
    fn neighbours(&self, netns: &[NetnsId]) -> Read<Vec<Neighbour>>;

    /// The local routes of these namespaces, of all tables.
    fn local_routes(&self, netns: &[NetnsId]) -> Read<Vec<LocalRoute>>;

    /// What becomes of a packet that comes into a namespace, as far as routing decides it;
    /// `None` when that can't be told.
    fn input_route(&self, query: &InputQuery) -> Read<Option<InputFound>>;

    /// The rules of policy routing of these namespaces.
    fn policy_rules(&self, netns: &[NetnsId]) -> Read<Vec<PolicyRule>>;

    /// What these namespaces forward.
    fn settings(&self, netns: &[NetnsId]) -> Read<Vec<NetSettings>>;

    /// What in these namespaces decides who may have a port, and what the kernel counts of
    /// their listeners.
    fn port_facts(&self, netns: &[NetnsId]) -> Read<Vec<PortFacts>>;
}

/// Who listens, and who holds that.
pub trait Sockets {
    /// Listening TCP and bound, unconnected UDP sockets of these namespaces that
    /// pass `filter`.
    fn sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<Socket>>;

    /// Every socket of these namespaces that has a port and passes `filter`, whatever its
    /// state: listeners, connections, what is left of them, and what is merely bound. What
    /// could not be read keeps nobody from saying who listens: its impact is
    /// [`Impact::Bind`](crate::Impact::Bind).
    fn port_sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<PortSocket>>;

    /// Who holds these sockets.
    fn owners(&self, inodes: &BTreeSet<SocketInode>) -> Read<Owners>;

    /// Whether these namespaces have transparent sockets.
    fn transparent(&self, netns: &[NetnsId]) -> Read<Vec<Transparent>>;
    /// The sockets of these namespaces that have no port: UNIX sockets that have a name or are
    /// connected with one that has, and those that see packets as they are.
    fn other_sockets(&self, netns: &[NetnsId]) -> Read<Vec<OtherSocket>>;

    /// What is at a path, as the tool sees it.
    fn socket_file(&self, path: &str) -> SocketFile;

    /// Ports the kernel holds in these namespaces that links do not tell of
    /// (WireGuard, L2TP, FOU, NFS, lockd).
    fn kernel_ports(&self, netns: &[NetnsId]) -> Read<Vec<KernelPort>>;

    /// How many established TCP connections the ports of these namespaces have. It costs
    /// as much as there are connections, and is not recorded.
    fn connections(&self, netns: &[NetnsId]) -> Vec<Connections>;
}

/// Processes and the cgroups that they are in.
pub trait Processes {
    /// These processes. One that has exited is left out.
    fn processes(&self, pids: &[Pid]) -> Read<Vec<Process>>;

    /// The path of a cgroup v2 by its id.
    fn cgroup_path(&self, id: u64) -> Read<Option<CgroupPath>>;

    /// What the files around a process say of it: its package, and the repository that it
    /// works in. `None` where that is not readable; nothing depends on it.
    fn provenance(&self, pid: Pid) -> Read<Option<Provenance>>;

    /// The socket units of the system, by their files.
    fn socket_units(&self) -> Read<Vec<SocketUnit>>;
}

/// Programs and filters that the kernel runs for packets and sockets, and that are no rules.
pub trait Attachments {
    /// What is attached to the devices of these namespaces, or to them as a whole, and may
    /// keep packets or send them elsewhere: XDP, tc, tcx, netkit, sk_lookup.
    fn attached(&self, netns: &[NetnsId]) -> Read<Vec<Attached>>;

    /// The programs that take effect in a cgroup v2 and can keep a connection from being
    /// made; `None` when there is no such cgroup.
    fn cgroup_programs(&self, of: &CgroupOf) -> Read<Option<Vec<CgroupProgram>>>;
}

/// Packet rules with their sets.
pub trait Netfilter {
    /// What these namespaces have of packet rules, without the rules. One entry for
    /// each namespace that has any table.
    fn rulesets(&self, netns: &[NetnsId]) -> Read<Vec<Ruleset>>;

    /// The rules of a chain, in order; `None` when there is no such chain.
    fn chain(&self, chain: &ChainId) -> Read<Option<Arc<[Rule]>>>;

    /// What is known of a set or map without its elements.
    fn set(&self, set: &SetId) -> Read<Option<Set>>;

    /// All elements of a set or map; `None` when there is no such set.
    fn set_elements(&self, set: &SetId) -> Read<Option<Arc<[Element]>>>;

    /// The element that `key` belongs to, which may be a range or the catch-all one.
    fn set_element(&self, set: &SetId, key: &Bytes) -> Read<Option<Element>>;

    /// A set of ipset.
    fn ip_set(&self, set: &IpSetId) -> Read<Option<IpSet>>;
}

/// Connections that are tracked.
pub trait Conntrack {
    /// The connections that conntrack knows in these namespaces.
    fn flows(&self, netns: &[NetnsId], filter: &FlowFilter) -> Read<Vec<Flow>>;
}

/// Load balancers that are no rules.
pub trait LoadBalancers {
    /// What the load balancers of these namespaces take: IPVS, Cilium.
    fn frontends(&self, netns: &[NetnsId]) -> Read<Vec<Frontend>>;

    /// What else there is of Cilium's datapath in these namespaces.
    fn cilium(&self, netns: &[NetnsId]) -> Read<Vec<Cilium>>;

    /// What an endpoint of Cilium lets in and out. `None` when it has no policy map.
    fn cilium_policy(&self, of: &CiliumPolicyOf) -> Read<Option<Arc<[CiliumPolicy]>>>;
}

/// Container runtimes.
pub trait Runtimes {
    /// The container at the end of `chain` (outermost first), in which process
    /// `pid` runs.
    fn container(&self, chain: &[ContainerRef], pid: Pid) -> Read<Option<Container>>;

    /// Every container that the runtimes of this node know of.
    fn containers(&self) -> Read<Vec<Container>>;

    /// Containers that are told to publish ports and do not, with these ports alone: those that
    /// do not run, and those on networks that publish none.
    fn unpublished(&self) -> Read<Vec<Container>>;

    /// What a process that forwards ports shows beyond its arguments.
    fn relay(&self, pid: Pid) -> Read<Relay>;
}

/// Kubernetes APIs.
pub trait Clusters {
    /// The contexts of the kubeconfig files that are used here, the current one first. No
    /// API is asked.
    fn kube_contexts(&self) -> Read<Vec<KubeContext>>;

    /// Asks Kubernetes APIs, all asks at the same time, and gives what each said in the
    /// order of `asks`.
    fn kube(&self, asks: &[KubeAsk]) -> Vec<Read<KubeObjects>>;
}

/// What listeners themselves show to who connects.
pub trait Listeners {
    /// Begins TLS with listeners, all at the same time, and gives the certificate that each
    /// showed, in the order of `asks`. Nothing else is said to them.
    fn certificates(&self, asks: &[TlsAsk]) -> Vec<Read<Option<Certificate>>>;
}

/// What is tried, because nothing tells of it for sure.
pub trait Attempts {
    /// Binds such a socket in its namespace and closes it at once: nothing listens, and nothing
    /// is sent. What the kernel said; `None` when it could not be tried.
    fn try_bind(&self, ask: &BindAsk) -> Read<Option<Result<(), BindError>>>;

    /// Makes TCP connections, sends nothing, and closes them: what became of each, in the order of
    /// `asks`. It takes a second at most for each namespace.
    fn try_connect(&self, asks: &[ConnectAsk]) -> Read<Vec<Connected>>;
}

/// What was seen while somebody watched.
pub trait Observed {
    /// What watching this node told of where its listeners lead; `None` when it
    /// was not watched.
    fn observed(&self) -> Read<Option<Watched>>;
}

/// How reading went.
pub trait Reports {
    /// What was asked of which source so far.
    fn sources(&self) -> Vec<SourceReport>;
}

/// What is going to be asked for, so that it can be read sooner or at once. Nothing depends on
/// it but time.
pub trait Prefetch {
    /// Says which sockets will be asked for, of all namespaces, so that a slow
    /// source can be read while other things are.
    fn prefetch_sockets(&self, filter: &SocketFilter);

    /// Says that all rules of these namespaces will be asked for: one dump of each
    /// is then cheaper than one of each chain.
    fn prefetch_rules(&self, netns: &[NetnsId]);
}

/// A node whose facts can be asked for, each at the time it is needed.
///
/// Every read is memoised: asking twice costs nothing and gives the same facts,
/// so that an answer is made from one picture of the node. No read fails: what
/// could not be read is in the gaps of the [`Read`]. None has a body here: who has no
/// such facts says so.
pub trait Node:
    Topology
    + Sockets
    + Processes
    + Attachments
    + Netfilter
    + Conntrack
    + LoadBalancers
    + Runtimes
    + Clusters
    + Listeners
    + Attempts
    + Observed
    + Reports
    + Prefetch
{
}

impl<N> Node for N where
    N: Topology
        + Sockets
        + Processes
        + Attachments
        + Netfilter
        + Conntrack
        + LoadBalancers
        + Runtimes
        + Clusters
        + Listeners
        + Attempts
        + Observed
        + Reports
        + Prefetch
{
}
