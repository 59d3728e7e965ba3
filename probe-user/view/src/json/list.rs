//! The rows of a list, and the tables that they refer to.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, Write};
use std::net::IpAddr;
use std::rc::Rc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::sanitize::SafeJson;
use whereis_port_model as model;

use super::event::line_type;
use super::{
    Cluster, Container, Ending, Gap, Host, Netns, Pod, Process, Proto, SCHEMA_VERSION, SocketState,
    Source, TOOL_VERSION, write_line,
};

/// How many levels of a list are laid out for people: a row stays on its line.
const LEVELS: usize = 2;

/// What `whereis-port list --json` prints. What belongs to a process, container, pod or
/// cluster is said once, in its table; rows refer to it by `ref`, its place there.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ListDocument<'a> {
    /// The version of this document's structure.
    pub schema_version: u32,
    /// The version of the tool that wrote it.
    pub tool_version: &'a str,
    /// The node.
    pub host: Host<'a>,
    /// The processes that hold listeners.
    pub processes: Vec<ProcessEntry<'a>>,
    /// The containers that listeners are in.
    pub containers: Vec<ContainerEntry<'a>>,
    /// The pods that listeners are in.
    pub pods: Vec<PodEntry<'a>>,
    /// The clusters that listeners belong to.
    pub clusters: Vec<ClusterEntry<'a>>,
    /// Every listener.
    pub listeners: Vec<Listener<'a>>,
    /// What could not be read, and what that could hide.
    pub gaps: Vec<Gap<'a>>,
    /// What was read, and what could not be.
    pub sources: Vec<Source<'a>>,
}

/// The document for a list.
pub fn list<'a>(
    listing: &'a model::Listing,
    host: &'a model::Host,
    sources: &'a [model::SourceReport],
) -> ListDocument<'a> {
    let mut tables = ListTables::default();
    let listeners = listing.rows.iter().map(|row| tables.row(row)).collect();
    ListDocument {
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        host: host.into(),
        processes: tables.processes.new_entries().collect(),
        containers: tables.containers.new_entries().collect(),
        pods: tables.pods.new_entries().collect(),
        clusters: tables.clusters.new_entries().collect(),
        listeners,
        gaps: listing.gaps.iter().map(Into::into).collect(),
        sources: sources.iter().map(Into::into).collect(),
    }
}

/// Writes the document: each row, and each entry of a table, on a line of its own.
///
/// # Errors
/// Those of `out`.
pub fn write_list(document: &ListDocument<'_>, out: &mut impl Write) -> io::Result<()> {
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut *out, SafeJson::levels(LEVELS));
    document.serialize(&mut serializer)?;
    out.write_all(b"\n")
}

/// Writes the same as lines, one object each: an entry of a table before the first row that
/// refers to it.
///
/// # Errors
/// Those of `out`.
pub fn write_list_lines(
    listing: &model::Listing,
    host: &model::Host,
    sources: &[model::SourceReport],
    out: &mut impl Write,
) -> io::Result<()> {
    let first = ListLine {
        r#type: ListType::List,
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        host: host.into(),
    };
    write_line(&first, out)?;
    let mut tables = ListTables::default();
    for row in &listing.rows {
        let row = tables.row(row);
        for entry in tables.processes.new_entries() {
            write_line(&ProcessLine { r#type: ProcessType::Process, entry }, out)?;
        }
        for entry in tables.containers.new_entries() {
            write_line(&ContainerLine { r#type: ContainerType::Container, entry }, out)?;
        }
        for entry in tables.pods.new_entries() {
            write_line(&PodLine { r#type: PodType::Pod, entry }, out)?;
        }
        for entry in tables.clusters.new_entries() {
            write_line(&ListClusterLine { r#type: ListClusterType::ListCluster, entry }, out)?;
        }
        write_line(&ListenerLine { r#type: ListenerType::Listener, row }, out)?;
    }
    let last = ListEndLine {
        r#type: ListEndType::ListEnd,
        listeners: listing.rows.len(),
        gaps: listing.gaps.iter().map(Into::into).collect(),
        sources: sources.iter().map(Into::into).collect(),
    };
    write_line(&last, out)
}

/// One listener of a list, or a port that only rules or a load balancer take.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Listener<'a> {
    /// What takes the port: `listener`, `kernel`, `dnat` or `service`.
    pub kind: super::HopKind,
    /// The same as people call it: a NodePort, a published port.
    pub port_kind: super::PortKind,
    /// From how far away it can be reached; null where it was not asked for.
    pub reach: Option<super::Reached>,
    /// The namespace whose port it is.
    pub netns: Netns<'a>,
    /// The protocol.
    pub proto: Proto,
    /// The bound address, exactly as bound; a wildcard for rules that take all addresses.
    pub address: IpAddr,
    /// The bound port.
    pub port: u16,
    /// The socket's state; null without a socket.
    pub state: Option<SocketState>,
    /// `IPV6_V6ONLY`; null for IPv4, and where it is not readable.
    pub v6only: Option<bool>,
    /// The socket's inode number in sockfs; 0 when it has none.
    pub socket_inode: u64,
    /// The user id of who made it; null without a socket.
    pub uid: Option<u32>,
    /// How many connections wait to be accepted, of TCP that listens; null where not read.
    pub accept_queue: Option<u32>,
    /// How many the listener allows to wait: one more is taken, and then they are dropped.
    pub accept_queue_limit: Option<u32>,
    /// That user's name, when the process that likely accepts runs as that user.
    pub user: Option<&'a str>,
    /// What kind of owner.
    pub ending: Ending,
    /// Why, when it is not simply a process.
    pub why: Option<&'a str>,
    /// The process that likely accepts: the first of `processes`.
    pub process: Option<ProcessRef<'a>>,
    /// All processes that hold the listener, each by its `ref`.
    pub processes: Vec<usize>,
    /// The innermost container: the last of `containers`.
    pub container: Option<ContainerRef<'a>>,
    /// The containers it is in, outermost first, each by its `ref`.
    pub containers: Vec<usize>,
    /// The pod.
    pub pod: Option<PodRef<'a>>,
    /// The cluster.
    pub cluster: Option<ClusterRef<'a>>,
    /// Which part of Kubernetes, or of what runs around it, has the port.
    pub component: Option<super::Component<'a>>,
    /// The systemd unit or scope.
    pub unit: Option<&'a str>,
    /// Where connections are passed on to; null when they end here.
    pub target: Option<Target<'a>>,
    /// The targets that rules or a load balancer choose from, `target` first: at most a
    /// few of `target_count`.
    pub targets: Vec<TargetAddress<'a>>,
    /// How many targets there are.
    pub target_count: usize,
    /// Whose rules take the port, or which load balancer; null for a plain listener and
    /// for rules written by hand.
    pub taken_by: Option<&'a str>,
    /// The Kubernetes service whose port it is.
    pub service: Option<super::Service<'a>>,
}

/// A process, as a row has it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ProcessRef<'a> {
    /// Its `ref` in the table of processes.
    pub r#ref: usize,
    /// Its id in the tool's PID namespace.
    pub pid: u32,
    /// The name people know it by.
    pub name: &'a str,
}

/// A container, as a row has it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ContainerRef<'a> {
    /// Its `ref` in the table of containers.
    pub r#ref: usize,
    /// The full id.
    pub id: &'a str,
    /// The name.
    pub name: Option<&'a str>,
}

/// A pod, as a row has it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PodRef<'a> {
    /// Its `ref` in the table of pods.
    pub r#ref: usize,
    /// Its namespace.
    pub namespace: Option<&'a str>,
    /// Its name.
    pub name: Option<&'a str>,
}

/// A cluster, as a row has it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ClusterRef<'a> {
    /// Its `ref` in the table of clusters.
    pub r#ref: usize,
    /// Its name; null where only what made it is known.
    pub name: Option<&'a str>,
    /// What made it.
    pub distribution: &'a str,
}

/// Where a forwarder leads.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Target<'a> {
    /// The address; null when the target has only a name.
    pub address: Option<IpAddr>,
    /// A name that was not looked up.
    pub name: Option<&'a str>,
    /// The port.
    pub port: Option<u16>,
    /// What is there, in one line for people.
    pub detail: Option<&'a str>,
}

/// One of the targets that rules or a load balancer choose from.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TargetAddress<'a> {
    /// The address; null when the target has only a name.
    pub address: Option<IpAddr>,
    /// A name that was not looked up.
    pub name: Option<&'a str>,
    /// The port.
    pub port: Option<u16>,
}

impl<'a> From<&'a model::Endpoint> for TargetAddress<'a> {
    fn from(endpoint: &'a model::Endpoint) -> Self {
        Self {
            address: endpoint.address,
            name: endpoint.name.as_deref(),
            port: endpoint.port.map(|p| p.0),
        }
    }
}

/// An entry of a table: its place, and what the model's facts say.
macro_rules! entry {
    ($(#[$doc:meta])* $name:ident = $field:ident: $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, JsonSchema)]
        pub struct $name<'a> {
            /// What rows refer to it by: its place in the table, from 0.
            pub r#ref: usize,
            /// What is known of it.
            #[serde(flatten)]
            pub $field: $kind<'a>,
        }

        impl<'a> From<(usize, &'a model::$kind)> for $name<'a> {
            fn from((at, of): (usize, &'a model::$kind)) -> Self {
                Self { r#ref: at, $field: of.into() }
            }
        }
    };
}

entry! {
    /// A process of a list.
    ProcessEntry = process: Process
}
entry! {
    /// A container of a list.
    ContainerEntry = container: Container
}
entry! {
    /// A pod of a list.
    PodEntry = pod: Pod
}
entry! {
    /// A cluster of a list.
    ClusterEntry = cluster: Cluster
}

line_type! {
    /// The first line of a list.
    ListType = List
}
line_type! {
    /// A process that the following rows refer to.
    ProcessType = Process
}
line_type! {
    /// A container that the following rows refer to.
    ContainerType = Container
}
line_type! {
    /// A pod that the following rows refer to.
    PodType = Pod
}
line_type! {
    /// A cluster that the following rows refer to.
    ListClusterType = ListCluster
}
line_type! {
    /// A row of a list.
    ListenerType = Listener
}
line_type! {
    /// The last line of a list.
    ListEndType = ListEnd
}

/// The first line of `whereis-port list --ndjson`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ListLine<'a> {
    /// `list`.
    pub r#type: ListType,
    /// The version of the structure of all lines.
    pub schema_version: u32,
    /// The version of the tool that wrote them.
    pub tool_version: &'a str,
    /// The node.
    pub host: Host<'a>,
}

/// The last line of `whereis-port list --ndjson`: without it, the list is not complete.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ListEndLine<'a> {
    /// `list_end`.
    pub r#type: ListEndType,
    /// How many lines of the type `listener` there were.
    pub listeners: usize,
    /// What could not be read, and what that could hide.
    pub gaps: Vec<Gap<'a>>,
    /// What was read, and what could not be.
    pub sources: Vec<Source<'a>>,
}

/// A row of a list, on its line.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ListenerLine<'a> {
    /// `listener`.
    pub r#type: ListenerType,
    /// The row.
    #[serde(flatten)]
    pub row: Listener<'a>,
}

/// A process of a list, on its line.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ProcessLine<'a> {
    /// `process`.
    pub r#type: ProcessType,
    /// The entry.
    #[serde(flatten)]
    pub entry: ProcessEntry<'a>,
}

/// A container of a list, on its line.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ContainerLine<'a> {
    /// `container`.
    pub r#type: ContainerType,
    /// The entry.
    #[serde(flatten)]
    pub entry: ContainerEntry<'a>,
}

/// A pod of a list, on its line.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PodLine<'a> {
    /// `pod`.
    pub r#type: PodType,
    /// The entry.
    #[serde(flatten)]
    pub entry: PodEntry<'a>,
}

/// A cluster of a list, on its line: `cluster` is the type of a line of the command of that name.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ListClusterLine<'a> {
    /// `list_cluster`.
    pub r#type: ListClusterType,
    /// The entry.
    #[serde(flatten)]
    pub entry: ClusterEntry<'a>,
}

/// What the rows of a list refer to, each once, in the order of first use.
#[derive(Default)]
struct ListTables<'a> {
    /// By the address of what the rows of the same holders share.
    ends: HashMap<*const model::End, Holders<'a>>,
    processes: InternTable<'a, (u32, model::StartTime), model::Process>,
    containers: InternTable<'a, &'a str, model::Container>,
    pods: InternTable<'a, (Option<&'a str>, Option<&'a str>), model::Pod>,
    clusters: InternTable<'a, &'a str, model::Cluster>,
}

/// Who holds a listener, as its row says it.
#[derive(Clone)]
struct Holders<'a> {
    process: Option<(ProcessRef<'a>, &'a model::Process)>,
    processes: Vec<usize>,
    container: Option<ContainerRef<'a>>,
    containers: Vec<usize>,
    pod: Option<PodRef<'a>>,
    cluster: Option<ClusterRef<'a>>,
}

impl<'a> ListTables<'a> {
    /// The row, with what it refers to in the tables.
    fn row(&mut self, row: &'a model::ListRow) -> Listener<'a> {
        let socket = row.socket.as_ref();
        let end = &*row.end;
        let holders = match self.ends.get(&Rc::as_ptr(&row.end)) {
            Some(known) => known.clone(),
            None => {
                let holders = self.holders(end);
                self.ends.insert(Rc::as_ptr(&row.end), holders.clone());
                holders
            }
        };
        Listener {
            kind: row.kind.into(),
            port_kind: row.port_kind.into(),
            reach: row.reached.map(Into::into),
            netns: (&row.netns).into(),
            proto: row.proto.into(),
            address: row.address,
            port: row.port.0,
            state: socket.map(|s| s.state.into()),
            v6only: socket.and_then(|s| s.v6only),
            socket_inode: socket.map_or(0, |s| s.inode),
            uid: socket.map(|s| s.uid),
            accept_queue: socket.and_then(|s| s.queue).map(|queue| queue.waiting),
            accept_queue_limit: socket.and_then(|s| s.queue).map(|queue| queue.limit),
            // A process may hold a socket that another user made.
            user: holders
                .process
                .as_ref()
                .filter(|(_, p)| socket.is_some_and(|s| p.uid == s.uid))
                .and_then(|(_, p)| p.user.as_deref()),
            ending: end.ending.into(),
            why: end.why.as_deref(),
            process: holders.process.map(|(process, _)| process),
            processes: holders.processes,
            container: holders.container,
            containers: holders.containers,
            pod: holders.pod,
            cluster: holders.cluster,
            component: row.component.as_ref().map(Into::into),
            unit: end.unit.as_deref(),
            target: row.target.as_ref().map(|endpoint| Target {
                address: endpoint.address,
                name: endpoint.name.as_deref(),
                port: endpoint.port.map(|p| p.0),
                detail: row.target_detail.as_deref(),
            }),
            targets: row.target.iter().chain(&row.others).map(Into::into).collect(),
            target_count: usize::from(row.target.is_some()) + row.others.len() + row.more,
            taken_by: row.taken_by.as_deref(),
            service: row.service.as_ref().map(Into::into),
        }
    }

    fn holders(&mut self, end: &'a model::End) -> Holders<'a> {
        let processes: Vec<usize> =
            end.processes.iter().map(|p| self.processes.place((p.pid, p.start), p)).collect();
        let containers: Vec<usize> =
            end.containers.iter().map(|c| self.containers.place(&c.id, c)).collect();
        let process = end.processes.first().zip(processes.first()).map(|(process, at)| {
            (ProcessRef { r#ref: *at, pid: process.pid, name: process.name() }, process)
        });
        let container = end.containers.last().zip(containers.last()).map(|(container, at)| {
            ContainerRef { r#ref: *at, id: &container.id, name: container.name.as_deref() }
        });
        let pod = end.pod.as_ref().map(|pod| PodRef {
            r#ref: self.pods.place((pod.uid.as_deref(), pod.name.as_deref()), pod),
            namespace: pod.namespace.as_deref(),
            name: pod.name.as_deref(),
        });
        let cluster = end.cluster.as_ref().map(|cluster| ClusterRef {
            r#ref: self.clusters.place(&cluster.name, cluster),
            name: Some(cluster.name.as_str()).filter(|name| !name.is_empty()),
            distribution: &cluster.distribution,
        });
        Holders { process, processes, container, containers, pod, cluster }
    }
}

/// One kind of thing, each once: equal ones have one place. What has the same key is compared.
struct InternTable<'a, K, T> {
    entries: Vec<&'a T>,
    by_key: HashMap<K, Vec<usize>>,
    /// How many of the entries were given out.
    given: usize,
}

impl<K, T> Default for InternTable<'_, K, T> {
    fn default() -> Self {
        Self { entries: Vec::new(), by_key: HashMap::new(), given: 0 }
    }
}

impl<'a, K: Hash + Eq, T: PartialEq> InternTable<'a, K, T> {
    /// The place of `item`, which is the next one when it is new.
    fn place(&mut self, key: K, item: &'a T) -> usize {
        let places = self.by_key.entry(key).or_default();
        let known = places.iter().find(|at| self.entries.get(**at) == Some(&item));
        if let Some(at) = known {
            return *at;
        }
        let at = self.entries.len();
        places.push(at);
        self.entries.push(item);
        at
    }

    /// The entries that were not given out before, with their places.
    fn new_entries<E: From<(usize, &'a T)>>(&mut self) -> impl Iterator<Item = E> {
        let from = std::mem::replace(&mut self.given, self.entries.len());
        self.entries.iter().enumerate().skip(from).map(|(at, item)| E::from((at, *item)))
    }
}
