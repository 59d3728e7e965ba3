//! Recording what a run read, and answering from such a recording.
//!
//! A recording keeps questions to the node together with what it answered, so
//! that a replay gives the same answers, gaps included. What was never asked is
//! not in it, and a replay says so instead of taking it for "nothing there".

mod everything;
mod file;
mod kube;
mod names;
mod recorder;
mod redact;
mod replay;
mod scrub;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{
    Address, Bytes, Certificate, CgroupPath, ChainId, Container, ContainerRef, Element, Flow,
    FlowFilter, Frontend, Host, IpSet, IpSetId, KernelPort, KubeAsk, KubeContext, KubeObjects,
    Link, NetSettings, Netns, NetnsId, Owners, Pid, Process, Read, Route, RouteFound, RouteQuery,
    Rule, Ruleset, Set, SetId, Socket, SocketFilter, SocketInode, SourceReport, TlsAsk, Watched,
};

pub use everything::read_everything;
pub use file::RecordingError;
pub use recorder::Recorder;
pub use redact::redact;
pub use replay::Recorded;

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
    pub facts: Facts,
    /// What was asked of which source.
    pub sources: Vec<SourceReport>,
}

impl Recording {
    /// What tells a recording from any other JSON file.
    pub const FORMAT: &'static str = "whereis-port-recording";
    /// The version of the format that is written, and the newest that is read.
    pub const VERSION: u32 = 1;

    /// A recording of `facts`, made by this version of the tool.
    pub fn new(facts: Facts, mut sources: Vec<SourceReport>) -> Self {
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

/// What was asked of a node, and what it answered, each question once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The node itself.
    pub host: Read<Host>,
    /// Its network namespaces; `None` when they were not asked for.
    #[serde(default)]
    pub netns: Option<Read<Vec<Netns>>>,
    /// Sockets.
    #[serde(default)]
    pub sockets: Vec<Asked<SocketsOf, Vec<Socket>>>,
    /// Who holds sockets, by inodes.
    #[serde(default)]
    pub owners: Vec<Asked<BTreeSet<SocketInode>, Owners>>,
    /// Processes.
    #[serde(default)]
    pub processes: Vec<Asked<Vec<Pid>, Vec<Process>>>,
    /// Interfaces.
    #[serde(default)]
    pub links: Vec<Asked<Vec<NetnsId>, Vec<Link>>>,
    /// Addresses.
    #[serde(default)]
    pub addresses: Vec<Asked<Vec<NetnsId>, Vec<Address>>>,
    /// Routes.
    #[serde(default)]
    pub routes: Vec<Asked<Vec<NetnsId>, Vec<Route>>>,
    /// Ports that the kernel holds.
    #[serde(default)]
    pub kernel_ports: Vec<Asked<Vec<NetnsId>, Vec<KernelPort>>>,
    /// Recordings once had whether there are rules, and not the rules.
    #[serde(default, skip_serializing)]
    pub nat: Ignored,
    /// What looking for hidden places gave; `None` when that was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<Read<()>>,
    /// Rulesets without their rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rulesets: Vec<Asked<Vec<NetnsId>, Vec<Ruleset>>>,
    /// Chains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<Asked<ChainId, Option<Arc<[Rule]>>>>,
    /// Sets without their elements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Asked<SetId, Option<Set>>>,
    /// Sets' elements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_elements: Vec<Asked<SetId, Option<Arc<[Element]>>>>,
    /// Single elements of sets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_element: Vec<Asked<ElementOf, Option<Element>>>,
    /// Sets of ipset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_sets: Vec<Asked<IpSetId, Option<IpSet>>>,
    /// What load balancers take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frontends: Vec<Asked<Vec<NetnsId>, Vec<Frontend>>>,
    /// Connections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<Asked<FlowsOf, Vec<Flow>>>,
    /// Ways that packets take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<Asked<RouteQuery, Option<RouteFound>>>,
    /// What namespaces forward.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Asked<Vec<NetnsId>, Vec<NetSettings>>>,
    /// The contexts of kubeconfig files; `None` when they were not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_contexts: Option<Read<Vec<KubeContext>>>,
    /// What Kubernetes APIs said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kube: Vec<Asked<KubeAsk, KubeObjects>>,
    /// Certificates that listeners showed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Asked<TlsAsk, Option<Certificate>>>,
    /// Single containers.
    #[serde(default)]
    pub container: Vec<Asked<InContainer, Option<Container>>>,
    /// All containers; `None` when they were not asked for.
    #[serde(default)]
    pub containers: Option<Read<Vec<Container>>>,
    /// Paths of cgroups, by id.
    #[serde(default)]
    pub cgroup_paths: Vec<Asked<u64, Option<CgroupPath>>>,
    /// What watching told; `None` when nobody watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Read<Option<Watched>>>,
}

impl Facts {
    /// Facts of a node of which only the host was asked for.
    pub fn new(host: Read<Host>) -> Self {
        Self {
            host,
            netns: None,
            sockets: Vec::new(),
            owners: Vec::new(),
            processes: Vec::new(),
            links: Vec::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            kernel_ports: Vec::new(),
            nat: Ignored,
            unseen: None,
            rulesets: Vec::new(),
            chains: Vec::new(),
            sets: Vec::new(),
            set_elements: Vec::new(),
            set_element: Vec::new(),
            ip_sets: Vec::new(),
            frontends: Vec::new(),
            flows: Vec::new(),
            route: Vec::new(),
            settings: Vec::new(),
            kube_contexts: None,
            kube: Vec::new(),
            certificates: Vec::new(),
            container: Vec::new(),
            containers: None,
            cgroup_paths: Vec::new(),
            observed: None,
        }
    }
}

/// What older recordings have and nothing needs any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked<Q, A> {
    /// What was asked for.
    pub asked: Q,
    /// What was read.
    pub read: Read<A>,
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
