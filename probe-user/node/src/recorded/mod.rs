//! Recording what a run read, and answering from such a recording.
//!
//! A recording keeps questions to the node together with what it answered, so
//! that a replay gives the same answers, gaps included. What was never asked is
//! not in it, and a replay says so instead of taking it for "nothing there".

/// The facts that belong to namespaces, by the trait that asks for them: what one is, and what a
/// replay says that has none. Each has a method and a table of the same name.
macro_rules! of_netns {
    ($make:ident, Topology) => {
        $make! {
            links: Link, Owner, "the interfaces of some namespaces were";
            addresses: Address, Reach, "the addresses of some namespaces were";
            routes: Route, Reach, "the routes of some namespaces were";
            settings: NetSettings, Reach, "what some namespaces forward was";
            port_facts: PortFacts, Bind, "who may have a port in some namespaces was";
        }
    };
    ($make:ident, Sockets) => {
        $make! {
            kernel_ports: KernelPort, Owner, "the kernel's own ports in some namespaces were";
            transparent: Transparent, Reach, "whether some namespaces have transparent sockets was";
            other_sockets: OtherSocket, Owner, "sockets without ports of some namespaces were";
        }
    };
    ($make:ident, Netfilter) => {
        $make! { rulesets: Ruleset, Port, "the packet rules of some namespaces were"; }
    };
    ($make:ident, LoadBalancers) => {
        $make! {
            frontends: Frontend, Port, "the load balancers of some namespaces were";
            cilium: Cilium, Reach, "Cilium's datapath in some namespaces was";
        }
    };
}

/// The facts that have a key of their own, in the same way: method, table, key and what one is.
macro_rules! of_key {
    ($make:ident, Netfilter) => {
        $make! {
            chain, chains: ChainId, Arc<[Rule]>, "a chain of packet rules was";
            set, sets: SetId, Set, "a set of packet rules was";
            set_elements, set_elements: SetId, Arc<[Element]>,
                "the elements of a set of packet rules were";
            ip_set, ip_sets: IpSetId, IpSet, "an ipset was";
        }
    };
    ($make:ident, LoadBalancers) => {
        $make! {
            cilium_policy, cilium_policies: CiliumPolicyOf, Arc<[CiliumPolicy]>,
                "the policy of an endpoint of Cilium was";
        }
    };
}

mod everything;
mod file;
mod kube;
mod names;
mod recorder;
mod redact;
mod replay;
mod scrub;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use whereis_port_model::{
    Address, Attached, Bytes, Certificate, CgroupOf, CgroupPath, CgroupProgram, ChainId, Cilium,
    CiliumPolicy, CiliumPolicyOf, Container, ContainerRef, Element, Flow, FlowFilter, Frontend,
    Gap, Host, InputFound, InputQuery, IpSet, IpSetId, KernelPort, KubeAsk, KubeContext,
    KubeObjects, Link, LocalRoute, Neighbour, NetSettings, Netns, NetnsId, OtherSocket, Owners,
    Pid, PolicyRule, PortFacts, PortSocket, Process, Provenance, Read, Relay, Route, RouteFound,
    RouteQuery, Rule, Ruleset, Set, SetId, Socket, SocketFile, SocketFilter, SocketInode,
    SocketUnit, SourceReport, TlsAsk, Transparent, Watched,
};

pub use everything::read_everything;
pub use file::{RecordingError, save_private};
pub use recorder::Recorder;
pub use redact::redact;
pub use replay::Recorded;
use table::FactKind as _;
pub use table::{FactTable, RecordedFact};

/// Everything that one or more runs read from a node. It is one JSON file, and
/// one that can hold secrets: command lines are in it, unless it is redacted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// Always [`Recording::FORMAT`].
    pub format: String,
    /// The version of the format, see [`Recording::VERSION`].
    pub version: u32,
    /// The version of the tool that made it.
    pub tool_version: String,
    /// Whether names and addresses have been replaced.
    pub redacted: bool,
    /// What was read.
    pub facts: RecordedFacts,
    /// What was asked of which source.
    pub sources: Vec<SourceReport>,
}

impl Recording {
    /// What tells a recording from any other JSON file.
    pub const FORMAT: &'static str = "whereis-port-recording";
    /// The version of the format that is written, and the newest that is read.
    pub const VERSION: u32 = 1;

    /// A recording of `facts`, made by this version of the tool.
    pub fn new(facts: RecordedFacts, mut sources: Vec<SourceReport>) -> Self {
        // JSON has no infinity, and only short decimals are read back as exactly
        // the number that was written.
        for source in &mut sources {
            let rounded = (source.ms * 1000.0).round() / 1000.0;
            source.ms = if rounded.is_finite() { rounded } else { 0.0 };
        }
        Self {
            format: Self::FORMAT.to_owned(),
            version: Self::VERSION,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            redacted: false,
            facts,
            sources,
        }
    }
}

/// Declares the kinds of facts, in the order in which they are written: a table for each that
/// has questions, else what was read, if it was.
macro_rules! facts {
    ($($(#[$about:meta])* $kind:ident: $of:ty,)*) => {
        /// What was asked of a node, and what it answered, each question once.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct RecordedFacts {
            /// The node itself.
            pub host: Read<Host>,
            $($(#[$about])* pub $kind: $of,)*
        }

        impl RecordedFacts {
            /// Facts of a node of which only the host was asked for.
            pub fn new(host: Read<Host>) -> Self {
                Self { host, $($kind: <$of>::default(),)* }
            }

            /// Every gap.
            fn gaps(&mut self) -> impl Iterator<Item = &mut Gap> {
                self.host.gaps.iter_mut()$(.chain(self.$kind.gaps()))*
            }
        }
    };
}

facts! {
    /// Its network namespaces; `None` when they were not asked for.
    #[serde(default)]
    netns: Option<Read<Vec<Netns>>>,
    /// Sockets.
    #[serde(default)]
    sockets: FactTable<SocketsOf, Vec<Socket>>,
    /// Who holds sockets, by inodes.
    #[serde(default)]
    owners: FactTable<BTreeSet<SocketInode>, Owners>,
    /// Processes.
    #[serde(default)]
    processes: FactTable<Vec<Pid>, Vec<Process>>,
    /// Interfaces.
    #[serde(default)]
    links: FactTable<Vec<NetnsId>, Vec<Link>>,
    /// Addresses.
    #[serde(default)]
    addresses: FactTable<Vec<NetnsId>, Vec<Address>>,
    /// Routes.
    #[serde(default)]
    routes: FactTable<Vec<NetnsId>, Vec<Route>>,
    /// Ports that the kernel holds.
    #[serde(default)]
    kernel_ports: FactTable<Vec<NetnsId>, Vec<KernelPort>>,
    /// Whether namespaces have transparent sockets. Older recordings do not tell.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    transparent: FactTable<Vec<NetnsId>, Vec<Transparent>>,
    /// Recordings once had whether there are rules, and not the rules.
    #[serde(default, skip_serializing)]
    nat: Ignored,
    /// What looking for hidden places gave; `None` when that was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unseen: Option<Read<()>>,
    /// Rulesets without their rules.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    rulesets: FactTable<Vec<NetnsId>, Vec<Ruleset>>,
    /// Chains.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    chains: FactTable<ChainId, Option<Arc<[Rule]>>>,
    /// Sets without their elements.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    sets: FactTable<SetId, Option<Set>>,
    /// Sets' elements.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    set_elements: FactTable<SetId, Option<Arc<[Element]>>>,
    /// Single elements of sets.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    set_element: FactTable<ElementOf, Option<Element>>,
    /// Sets of ipset.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    ip_sets: FactTable<IpSetId, Option<IpSet>>,
    /// What load balancers take.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    frontends: FactTable<Vec<NetnsId>, Vec<Frontend>>,
    /// Cilium's datapath. Older recordings have none.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    cilium: FactTable<Vec<NetnsId>, Vec<Cilium>>,
    /// Policies of Cilium's endpoints. Older recordings have none.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    cilium_policies: FactTable<CiliumPolicyOf, Option<Arc<[CiliumPolicy]>>>,
    /// Connections.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    flows: FactTable<FlowsOf, Vec<Flow>>,
    /// Ways that packets take.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    route: FactTable<RouteQuery, Option<RouteFound>>,
    /// Ways that packets take which come in.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    input_routes: FactTable<InputQuery, Option<InputFound>>,
    /// Neighbours.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    neighbours: FactTable<Vec<NetnsId>, Vec<Neighbour>>,
    /// Local routes.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    local_routes: FactTable<Vec<NetnsId>, Vec<LocalRoute>>,
    /// Rules of policy routing.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    policy_rules: FactTable<Vec<NetnsId>, Vec<PolicyRule>>,
    /// What namespaces forward.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    settings: FactTable<Vec<NetnsId>, Vec<NetSettings>>,
    /// What is attached to devices.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    attached: FactTable<Vec<NetnsId>, Vec<Attached>>,
    /// Programs of cgroups.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    cgroup_programs: FactTable<CgroupOf, Option<Vec<CgroupProgram>>>,
    /// Sockets in any state. Older recordings have none.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    port_sockets: FactTable<SocketsOf, Vec<PortSocket>>,
    /// Sockets without ports.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    other_sockets: FactTable<Vec<NetnsId>, Vec<OtherSocket>>,
    /// What is at paths of sockets.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    socket_files: FactTable<String, SocketFile>,
    /// What decides who may have a port. Older recordings have none.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    port_facts: FactTable<Vec<NetnsId>, Vec<PortFacts>>,
    /// The contexts of kubeconfig files; `None` when they were not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kube_contexts: Option<Read<Vec<KubeContext>>>,
    /// What Kubernetes APIs said.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    kube: FactTable<KubeAsk, KubeObjects>,
    /// Certificates that listeners showed.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    certificates: FactTable<TlsAsk, Option<Certificate>>,
    /// Single containers.
    #[serde(default)]
    container: FactTable<InContainer, Option<Container>>,
    /// All containers; `None` when they were not asked for.
    #[serde(default)]
    containers: Option<Read<Vec<Container>>>,
    /// Containers that publish nothing, though they are told to; `None` when they were not
    /// asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unpublished: Option<Read<Vec<Container>>>,
    /// What forwarders show. Older recordings have none.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    relays: FactTable<Pid, Relay>,
    /// Paths of cgroups, by id.
    #[serde(default)]
    cgroup_paths: FactTable<u64, Option<CgroupPath>>,
    /// What the files around processes say.
    #[serde(default, skip_serializing_if = "FactTable::is_empty")]
    provenances: FactTable<Pid, Option<Provenance>>,
    /// Socket units; `None` when they were not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    socket_units: Option<Read<Vec<SocketUnit>>>,
    /// What watching told; `None` when nobody watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    observed: Option<Read<Option<Watched>>>,
}

/// What older recordings have and nothing needs any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ignored;

impl table::FactKind for Ignored {
    fn gaps(&mut self) -> impl Iterator<Item = &mut Gap> {
        std::iter::empty()
    }
}

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// Which sockets were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketsOf {
    /// In which namespaces.
    pub netns: Vec<NetnsId>,
    /// Which of theirs.
    pub filter: SocketFilter,
}

/// Which element was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElementOf {
    /// Of which set.
    pub set: SetId,
    /// With which key.
    pub key: Bytes,
}

/// Which flows were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowsOf {
    /// In which namespaces.
    pub netns: Vec<NetnsId>,
    /// Which of theirs.
    pub filter: FlowFilter,
}

/// Which container was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InContainer {
    /// The container and those around it, outermost first.
    pub chain: Vec<ContainerRef>,
    /// A process that runs in it.
    pub pid: Pid,
}
