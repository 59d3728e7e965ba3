//! What a gap is about.

use serde::{Deserialize, Serialize};

/// What was being read when something could not be: decisions look at the kind, people at
/// the sentence that it is shown as.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "RecordedGapSource")]
pub struct GapSource {
    /// What kind of source.
    pub kind: GapKind,
    /// Which one, as the sentence ends: `network namespace 7`, a container's short id, the
    /// path of a socket. Empty where there is one of the kind, or it is about all. Untrusted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// As recordings have it: in parts, or as a mere sentence, which nothing is decided by.
#[derive(Deserialize)]
#[serde(untagged)]
enum RecordedGapSource {
    Parts {
        kind: GapKind,
        #[serde(default)]
        name: String,
    },
    Sentence(String),
}

impl From<RecordedGapSource> for GapSource {
    fn from(recorded: RecordedGapSource) -> Self {
        match recorded {
            RecordedGapSource::Parts { kind, name } => Self { kind, name },
            RecordedGapSource::Sentence(name) => Self { kind: GapKind::Other, name },
        }
    }
}

/// The kinds of source that can have a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapKind {
    /// Which network namespaces there are, or what is in one.
    NetworkNamespaces,
    /// The PID namespaces around the tool's own.
    PidNamespace,
    /// Something below `/proc`.
    Proc,
    /// Descriptors of processes: `/proc/PID/fd`.
    Descriptors,
    /// One process.
    Process,
    /// The arguments of processes.
    CommandLine,
    /// The path of a cgroup.
    Cgroup,
    /// The sockets of namespaces.
    Sockets,
    /// A socket on a port.
    Port,
    /// Interfaces.
    Links,
    /// Addresses.
    Addresses,
    /// Routes.
    Routes,
    /// Who has addresses on the links of a namespace.
    Neighbours,
    /// Ports that the kernel itself holds.
    KernelPorts,
    /// What the kernel forwards.
    Settings,
    /// Packet rules of namespaces.
    PacketRules,
    /// A set of addresses that packet rules ask.
    IpSet,
    /// Rules for frames in a bridge.
    BridgeRules,
    /// Programs and filters that are attached to devices and cgroups.
    Attached,
    /// A load balancer that is no rule.
    Balancer,
    /// Services with the same port.
    Services,
    /// Connections that conntrack knows.
    Connections,
    /// The name, image and labels of one container, by the beginning of its id.
    Container,
    /// The pod of one container, by the beginning of its id.
    ContainerPod,
    /// A port that a container publishes, by the container's name.
    PublishedPort,
    /// A container runtime or several, or a socket where one may be.
    Runtime,
    /// Files of container runtimes.
    StateFile,
    /// A kubeconfig file, or the contexts in one.
    Kubeconfig,
    /// A Kubernetes API.
    KubernetesApi,
    /// The certificate of a listener.
    Certificate,
    /// eBPF as a whole, or programs of it.
    Ebpf,
    /// A kind of events.
    Events,
    /// Where connections of one listener were seen to lead.
    Observed,
    /// What was watched for before the answer.
    Watch,
    /// A recording that does not have it.
    Recording,
    /// Anything else.
    Other,
}

impl GapKind {
    /// What the kind is called alone, and what stands before a name.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NetworkNamespaces => ("network namespaces", ""),
            Self::PidNamespace => ("PID namespace", ""),
            Self::Proc => ("/proc", "/proc/"),
            Self::Descriptors => ("/proc/*/fd", ""),
            Self::Process => ("processes", "process "),
            Self::CommandLine => ("command lines", ""),
            Self::Cgroup => ("cgroup2", ""),
            Self::Sockets => ("sockets", "sockets of "),
            Self::Port => ("ports", "port "),
            Self::Links => ("links", "links of "),
            Self::Addresses => ("addresses", "addresses of "),
            Self::Routes => ("routes", "routes of "),
            Self::Neighbours => ("neighbours", "neighbours of "),
            Self::KernelPorts => ("generic netlink", "generic netlink of "),
            Self::Settings => ("network settings", "network settings of "),
            Self::PacketRules => ("packet rules", "packet rules of "),
            Self::IpSet => ("ipsets", ""),
            Self::BridgeRules => ("bridge rules", "bridge rules of "),
            Self::Attached => ("attached programs", "attached programs of "),
            Self::Balancer => ("load balancers", ""),
            Self::Services => ("services", "services with "),
            Self::Connections => ("connections", "connections of "),
            Self::Container | Self::PublishedPort => ("containers", "container "),
            Self::ContainerPod => ("pods of containers", "pod of container "),
            Self::Runtime => ("container runtimes", ""),
            Self::StateFile => ("state files", ""),
            Self::Kubeconfig => ("kubeconfig", "kubeconfig "),
            Self::KubernetesApi => ("Kubernetes API", ""),
            Self::Certificate => ("TLS", "TLS of "),
            Self::Ebpf => ("eBPF", ""),
            Self::Events => ("events", ""),
            Self::Observed => ("observed connects", "observed connects of "),
            Self::Watch => ("--watch", ""),
            Self::Recording => ("recording", ""),
            Self::Other => ("facts", ""),
        }
    }
}

impl GapSource {
    /// The source of this kind that `name` tells apart from others.
    pub fn new(kind: GapKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

/// All of a kind.
impl From<GapKind> for GapSource {
    fn from(kind: GapKind) -> Self {
        Self { kind, name: String::new() }
    }
}

/// For people, as in `packet rules of network namespace 7`.
impl std::fmt::Display for GapSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (alone, before) = self.kind.words();
        if self.name.is_empty() { f.write_str(alone) } else { write!(f, "{before}{}", self.name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_a_sentence_and_comes_back_in_parts() {
        let rules = GapSource::new(GapKind::PacketRules, "network namespace 7");
        assert_eq!(rules.to_string(), "packet rules of network namespace 7");
        assert_eq!(GapSource::from(GapKind::PacketRules).to_string(), "packet rules");
        let json = serde_json::to_string(&rules).unwrap();
        assert_eq!(json, r#"{"kind":"packet_rules","name":"network namespace 7"}"#);
        assert_eq!(serde_json::from_str::<GapSource>(&json).unwrap(), rules);
    }

    #[test]
    fn a_mere_sentence_has_no_kind() {
        let read: GapSource = serde_json::from_str(r#""container 5d1f8f6a0c8f""#).unwrap();
        assert_eq!(read, GapSource::new(GapKind::Other, "container 5d1f8f6a0c8f"));
        assert_eq!(read.to_string(), "container 5d1f8f6a0c8f");
    }
}
