//! What follows from the facts.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::{
    Advice, ByName, Cluster, Condition, Connected, Container, ContainerRef, Evidence, Flows, Gap,
    HeldSockets, InTheWay, KubeContext, ListenDrops, NetnsId, Pid, Pod, Port, Process, Proto,
    Provenance, Query, Reached, Served, Service, Session, Socket, SocketUnit, StopKind, ToldBy,
    Why,
};

/// The answer to one question.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The question.
    pub query: Query,
    /// Who connects, of a question about one sender.
    pub sender: Option<AskedSender>,
    /// Whether anything was found; of a question about one sender, whether it gets through.
    pub verdict: Verdict,
    /// Every way from a port that was asked for to what serves it: the tool's
    /// own namespace first, then the host's, then the others.
    pub paths: Vec<Path>,
    /// How many ways more rules have for it, of which there are too many to show: they depend
    /// on who connects.
    pub more: usize,
    /// From where it can be reached.
    pub reach: Vec<Reach>,
    /// Where facts of this node and what a Kubernetes API says differ, and what else is
    /// worth saying of the port as a whole.
    pub findings: Vec<Finding>,
    /// What the listeners of each namespace on these paths did not take.
    pub drops: Vec<ListenDrops>,
    /// What has the port without listening on it, where nothing listens.
    pub held: Vec<HeldSockets>,
    /// How many kinds of holders more there are than those.
    pub more_held: usize,
    /// The only namespace that was asked for.
    pub within: Option<NetnsRef>,
    /// The connections that conntrack knows; `None` when they were not read.
    pub flows: Option<Flows>,
    /// What could not be read, and what that could hide.
    pub gaps: Vec<Gap>,
}

/// The sender of a question about one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedSender {
    /// Who it is, for people. Untrusted.
    pub name: String,
    /// The namespace of who connects; `None` for another machine.
    pub netns: Option<NetnsRef>,
    /// The process that is taken to connect, where one is meant.
    pub process: Option<Pid>,
    /// The device of the tool's namespace that the connections come in by.
    pub device: Option<String>,
    /// The address, where one was given.
    pub address: Option<IpAddr>,
}

/// Something that was noticed: a Service that the API has and this node's rules don't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub code: FindingCode,
    /// What, in one sentence without a final stop. Untrusted where it quotes.
    pub what: String,
    /// The likely cause.
    pub cause: Option<String>,
    /// What would mend it, or what to look at.
    pub fix: Option<Advice>,
    /// How it is known.
    pub evidence: Vec<Evidence>,
}

/// The kinds of things that are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FindingCode {
    /// This node and a Kubernetes API differ, or an API says more.
    Kubernetes,
    /// The queue of a listener is full.
    QueueFull,
    /// Who should accept was stopped by a signal.
    OwnerStopped,
    /// Who should accept was stopped by a debugger.
    OwnerTraced,
    /// Who should accept is frozen.
    OwnerFrozen,
    /// The first thread of who accepts has ended.
    LeaderEnded,
    /// The program of who accepts was removed or replaced.
    ProgramDeleted,
    /// Several sockets share the port.
    PortShared,
    /// A listener on all addresses leaves IPv4 alone.
    Ipv6Only,
    /// A child that runs another program has the listener as well.
    Inherited,
    /// Nothing listens where connections lead, but something has the port at another address.
    OtherAddress,
    /// Nothing has the port in the namespace where connections lead, but others there.
    OtherPort,
    /// A container is told to publish the port, and does not.
    WouldPublish,
    /// A program of a cgroup has a word in who may be bound to the port.
    BindProgram,
    /// A rule leads to an address that nobody has.
    RuleToNobody,
    /// A rule never gets what it is for, because another one comes first.
    ShadowedRule,
    /// Connections go where rules send no new ones.
    OldConnections,
    /// Packets were dropped on their way to the port while it was watched.
    PacketsDropped,
}

/// Whether something is behind the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes.
    Found,
    /// Surely not: everything that could hold the port was readable.
    NotFound,
    /// Nothing was found, but not everything could be read.
    Unknown,
}

/// One way from a port to its end.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Path {
    /// The steps, at least one, in the packet's order.
    pub hops: Vec<Hop>,
    /// What is at the end.
    pub end: End,
    /// What has to be so for connections to go this way, where rules ask what is not known.
    pub conditions: Vec<Condition>,
    /// What is on this way and was not evaluated, so that it may end otherwise; it is among
    /// the conditions.
    pub unsure: Vec<InTheWay>,
    /// From where connections go this way, as far as it is known.
    pub from: Vec<Vantage>,
    /// The kubeconfig contexts whose server this is.
    pub contexts: Vec<KubeContext>,
}

/// A namespace as an answer names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NetnsRef {
    /// Its identity.
    pub id: NetnsId,
    /// What it is called; `None` when nothing names it.
    pub name: Option<NetnsName>,
}

/// Its name, or else its number.
impl std::fmt::Display for NetnsRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => name.fmt(f),
            None => self.id.fmt(f),
        }
    }
}

/// What a namespace is called. A container or `ip netns` may choose any name, `host`
/// too: what is the node's own is said by the variant, never by the word.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NetnsName {
    /// The node's own: the initial namespace of its kernel, by its inode.
    Host,
    /// That of the tool, which nothing else names.
    Here,
    /// The name of its pod, of the container that owns it, or of `ip netns`. Untrusted.
    Given(String),
}

impl NetnsName {
    /// The name as it was given, for comparing and for programs.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Host => "host",
            Self::Here => "here",
            Self::Given(name) => name,
        }
    }

    /// Whether `wanted`, as somebody typed it, means this one. `host` means the node's own
    /// and nothing else: what only calls itself so is told by its inode number.
    pub fn is(&self, wanted: &str) -> bool {
        match self {
            Self::Given(name) => name == wanted && !Self::is_reserved(wanted),
            Self::Host | Self::Here => self.as_str() == wanted,
        }
    }

    /// Whether a given name could be read as one of the tool's own, or as an inode number.
    pub fn is_reserved(name: &str) -> bool {
        let name = name.trim();
        name.eq_ignore_ascii_case("host")
            || name.eq_ignore_ascii_case("here")
            || name.bytes().all(|b| b.is_ascii_digit())
    }
}

/// The name for people: one that was given and reads like the tool's own words stands in
/// quotation marks.
impl std::fmt::Display for NetnsName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Given(name) if Self::is_reserved(name) => write!(f, "\"{name}\""),
            _ => f.write_str(self.as_str()),
        }
    }
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq)]
pub struct Hop {
    /// What kind of step.
    pub kind: HopKind,
    /// The namespace in which it happens; `None` when it is not on this node or
    /// not known.
    pub netns: Option<NetnsRef>,
    /// Where the packet is addressed to at this step.
    pub endpoint: Endpoint,
    /// The protocol.
    pub proto: Proto,
    /// What does it, in one line: `docker-proxy, pid 29328`. Untrusted.
    pub detail: String,
    /// How many connections of all that come to the step before take this one, from 0 to 1;
    /// `None` where all do, or where it is no choice.
    pub share: Option<f64>,
    /// The socket, for a listener.
    pub socket: Option<Socket>,
    /// How it is known.
    pub evidence: Vec<Evidence>,
}

/// Where a packet is addressed to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address. A wildcard for a listener bound to all; `None` when the
    /// target is named by something else (see `name`).
    pub address: Option<IpAddr>,
    /// A name that was not looked up (host name, `svc/hubble-ui`, a socket's
    /// path). Untrusted.
    pub name: Option<String>,
    /// The port.
    pub port: Option<Port>,
}

/// The kinds of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HopKind {
    /// A socket.
    Listener,
    /// A process that passes connections on.
    Forward,
    /// A NAT rule.
    Dnat,
    /// A load-balanced service.
    Service,
    /// The kernel itself.
    Kernel,
    /// The path leaves this node.
    OffNode,
}

/// What is at the end of a path.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct End {
    /// What the end is.
    pub ending: Ending,
    /// Why it ends so, when it is not simply a process.
    pub why: Option<String>,
    /// What stops what is sent there, if something does.
    pub stop: Option<StopKind>,
    /// What would help then, where it is known.
    pub fix: Option<Advice>,
    /// The place where nothing listens, when it ends so.
    pub unserved: Option<Unserved>,
    /// All processes that hold the listener, the likely acceptor first.
    pub processes: Vec<Process>,
    /// The containers it is in, outermost first. What only the cgroup tells has
    /// an id and a runtime, and no name.
    pub containers: Vec<Container>,
    /// The pod.
    pub pod: Option<Pod>,
    /// The Kubernetes service.
    pub service: Option<Service>,
    /// The cluster.
    pub cluster: Option<Cluster>,
    /// Which part of Kubernetes, or of what runs around it, this is.
    pub component: Option<Component>,
    /// What it leads to by the names that clients ask for, where it is a controller of Ingress
    /// or Gateway.
    pub by_name: Option<ByName>,
    /// The certificate that it shows, when it was asked for.
    pub certificate: Option<Served>,
    /// The systemd unit or scope.
    pub unit: Option<String>,
    /// The socket units of systemd that the listener can be of.
    pub socket_units: Vec<SocketUnit>,
    /// What the files around the first process say of it.
    pub provenance: Option<Provenance>,
    /// The login or job that it was started from.
    pub session: Option<Session>,
    /// The devices that the port is of, when the kernel holds it. Untrusted.
    pub devices: Vec<String>,
    /// How the container, pod and cluster are known.
    pub evidence: Vec<Evidence>,
}

/// A place where nothing takes what is sent there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unserved {
    /// The namespace that it arrives in.
    pub netns: NetnsId,
    /// The protocol.
    pub proto: Proto,
    /// The address and port that it arrives at.
    pub at: SocketAddr,
}

/// A part of Kubernetes or of what runs around it: its API server, etcd, a CNI's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its name: `kube-apiserver`, `etcd`, `cilium-agent`.
    pub name: String,
    /// What the port is for: `Kubernetes API`, `etcd peers`, `Hubble server`.
    pub role: String,
    /// Whether process and arguments (or a device) prove it. If not, only the number of the
    /// port speaks for it, and it is shown as "usually …"; or it is the word of a process
    /// whose program is not root's.
    pub confirmed: bool,
    /// Whether the port is that of a Kubernetes API.
    pub is_api: bool,
    /// Certificates, configurations and directories that its arguments name: the option,
    /// and the path as its process sees it.
    pub files: Vec<(String, String)>,
}

/// What kind of end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// One or more processes hold the listener.
    Process,
    /// The kernel holds it.
    Kernel,
    /// The owner exists, but outside the PID namespaces that can be seen.
    OutsidePidNamespace,
    /// Somebody holds it whose descriptors could not be read.
    NotReadable,
    /// Nothing listens there.
    Nothing,
    /// A rule, or the lack of a way, stops what is sent there.
    Stopped,
    /// It goes on where this node's facts end.
    Elsewhere,
    /// The owner could not be told.
    #[default]
    Unknown,
}

/// From where a port can be reached, and why, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The namespace whose port it is said of; `None` where it is said of several.
    pub netns: Option<NetnsRef>,
    /// From where.
    pub from: Vantage,
    /// Which of those there, by their devices or namespaces, where not all get the same. Empty
    /// for all. Untrusted.
    pub by: Vec<String>,
    /// What to connect to from there.
    pub address: Option<SocketAddr>,
    /// `None` when it can't be told.
    pub reachable: Option<bool>,
    /// Why.
    pub why: Why,
    /// What it depends on, where rules ask what is not known.
    pub conditions: Vec<Condition>,
    /// What would make it reachable.
    pub fix: Option<Advice>,
    /// The namespace in which a process stands for the sender; `None` for another machine.
    pub source: Option<NetnsId>,
    /// Whether a listener takes the connection on its way, whatever becomes of it then: a proxy
    /// without anything behind it.
    pub accepted: bool,
    /// What became of a connection that was really made, where one was.
    pub tried: Option<Connected>,
}

impl Reach {
    /// Whether two statements tell people the same, of whatever namespace's port and by whichever
    /// process it could be tried.
    pub fn tells_the_same(&self, other: &Self) -> bool {
        let of = |one: &Self| (one.from, one.address, one.reachable);
        of(self) == of(other)
            && (&self.by, &self.why, &self.conditions, &self.fix)
                == (&other.by, &other.why, &other.conditions, &other.fix)
    }

    /// Whether a connection that was really made shows that this is wrong.
    pub fn is_refuted(&self) -> bool {
        let is_taken = self.accepted && self.tried == Some(Connected::Open);
        let refuted = |(tried, said): (Connected, bool)| tried.contradicts(said);
        !is_taken && self.tried.zip(self.reachable).is_some_and(refuted)
    }

    /// Whether it takes a route over this node, which other machines may have or not.
    pub fn needs_route(&self) -> bool {
        self.conditions.iter().any(|one| one.code == super::ConditionCode::Route)
    }
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vantage {
    /// A process in the tool's namespace that connects to 127.0.0.1 or ::1.
    Loopback,
    /// A process in the tool's namespace that connects to another address.
    Node,
    /// Another machine.
    Outside,
    /// A container on this node.
    Containers,
}

/// The kinds of ports that a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortKind {
    /// A socket that somebody serves.
    Listener,
    /// The kernel has it.
    Kernel,
    /// A process that passes connections on: `ssh -L`, `kubectl port-forward`.
    Forward,
    /// A port that a container publishes, by a proxy, by rules, or both.
    Published,
    /// The NodePort of a Service.
    NodePort,
    /// The hostPort of a pod.
    HostPort,
    /// A port of a Service at an external address of it.
    ExternalIp,
    /// A port of a Service at the address of its load balancer.
    LoadBalancer,
    /// A port of a Service, of which is not known by what kind of address.
    Service,
    /// Other packet rules take it.
    Rules,
}

impl PortKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Listener,
        Self::Kernel,
        Self::Forward,
        Self::Published,
        Self::NodePort,
        Self::HostPort,
        Self::ExternalIp,
        Self::LoadBalancer,
        Self::Service,
        Self::Rules,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Kernel => "kernel",
            Self::Forward => "forward",
            Self::Published => "published",
            Self::NodePort => "NodePort",
            Self::HostPort => "hostPort",
            Self::ExternalIp => "externalIP",
            Self::LoadBalancer => "LoadBalancer",
            Self::Service => "service",
            Self::Rules => "rules",
        }
    }
}

/// Every listener of the node, for `list`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Listing {
    /// One for each socket, or port that the kernel holds without one.
    pub rows: Vec<ListRow>,
    /// What could not be read, and what that could hide.
    pub gaps: Vec<Gap>,
}

/// One listener, or one port that packet rules or a load balancer take, with what is
/// at its own end: ways are not followed.
#[derive(Debug, Clone, PartialEq)]
pub struct ListRow {
    /// The namespace whose port it is.
    pub netns: NetnsRef,
    /// What takes the port: a listener, the kernel, a rule or a service.
    pub kind: HopKind,
    /// The same as people call it: a NodePort, a published port.
    pub port_kind: PortKind,
    /// From how far away it can be reached; `None` where that was not asked for.
    pub reached: Option<Reached>,
    /// The protocol.
    pub proto: Proto,
    /// The address, exactly as bound; a wildcard for all of the namespace.
    pub address: IpAddr,
    /// The port.
    pub port: Port,
    /// The socket; `None` for a port that only rules or a load balancer take.
    pub socket: Option<Socket>,
    /// Whose rules take the port, or which load balancer: `Docker`, `kube-proxy
    /// (iptables)`. `None` for a plain listener and for rules written by hand.
    pub taken_by: Option<String>,
    /// The service that it is a port of. Untrusted.
    pub service: Option<Service>,
    /// Who holds it. Shared by all rows of the same holders.
    pub end: Rc<End>,
    /// Which part of Kubernetes, or of what runs around it, has the port.
    pub component: Option<Component>,
    /// Where connections are passed on to: by a holder that forwards, or by rules.
    pub target: Option<Endpoint>,
    /// Other places that rules or a load balancer choose from, at most a few.
    pub others: Vec<Endpoint>,
    /// How many more there are.
    pub more: usize,
    /// What is there, in one line. Untrusted.
    pub target_detail: Option<String>,
}

impl Container {
    /// A container of which only the cgroup path speaks.
    pub fn from_ref(reference: &ContainerRef, parents: &[ContainerRef]) -> Self {
        Self {
            runtime: reference.runtime,
            id: reference.id.clone(),
            name: None,
            image: None,
            labels: std::collections::BTreeMap::new(),
            networks: Vec::new(),
            ports: Vec::new(),
            network_mode: None,
            pid: None,
            parents: parents.to_vec(),
            pod: reference.pod.as_ref().map(Pod::from),
            via: ToldBy::default(),
            sandbox: false,
            sort: None,
            state: None,
        }
    }
}
