//! The words of the domain: pure data shared by everything else.
//!
//! Facts (what was read from a node) and answers (what follows from them) both
//! live here. Nothing in this module does I/O, and nothing here knows where a
//! fact came from or how an answer is shown.

mod advice;
mod answer;
mod attached;
mod audit;
mod balance;
mod bind;
mod by_name;
mod cgroup;
mod cilium;
mod connect;
mod container;
mod diff;
mod dropped;
pub mod escape;
mod event;
mod evidence;
pub mod fleet;
mod flow;
pub mod forward;
mod gap;
mod gap_source;
mod health;
mod held;
mod history;
mod host;
mod kube;
mod net;
mod node;
mod other;
mod owner;
pub mod parse_error;
mod process;
mod provenance;
mod query;
mod reached;
mod reason;
mod relay;
mod runtimes;
mod socket;
pub mod target;
mod tls;
mod watched;
mod ways;
mod workload;

pub use advice::{Advice, AdvicePart, Command, FixKind};
pub use answer::{
    Answer, AskedSender, Component, End, Ending, Endpoint, Finding, FindingCode, Hop, HopKind,
    ListRow, Listing, NetnsName, NetnsRef, Path, PortKind, Reach, Unserved, Vantage, Verdict,
};
pub use attached::{
    Attached, Attachment, CgroupHook, CgroupOf, CgroupProgram, DeviceHook, InTheWay, Program,
};
pub use audit::{
    Audit, AuditCode, AuditFinding, AuditPlace, CheckState, Exposure, Level, Opening, OwnerKind,
    OwnerName, ProfileCheck, ProfileReport, is_given, owners_of, stable_owner,
};
pub use balance::{Balancer, Frontend, FrontendKind, FrontendScope, Server, SourceRanges};
pub use bind::{Bind, BindAsk, BindError, BindNote, FreePorts, SkipReason};
pub use by_name::{ByName, NameRoute, Serves};
pub use cgroup::{CgroupPath, ContainerRef, ManagedUnit, PodRef, parse_proc_cgroup};
pub use cilium::{Cilium, CiliumEndpoint, CiliumIdentity, CiliumPolicy, CiliumPolicyOf, SocketLb};
pub use connect::{ConnectAsk, Connected};
pub use container::{
    Cluster, Container, Network, Pod, Published, Runtime, Service, is_manifest_hash,
};
pub use diff::{Baseline, BaselinePort, Change, ChangeKind, Difference, PortHolder, ReachedBy};
pub use dropped::{DropEvent, DropFate, Dropped, DroppedBy, TcpFlags};
pub use event::{Actor, Event, EventKind, NatEvent, SeenBy, Traced};
pub use evidence::{Evidence, EvidenceSource, Teller, ToldBy};
pub use flow::{Flow, FlowClient, FlowCounts, FlowFilter, Flows, FlowsTo, NetSettings, Party};
pub use gap::{Gap, Impact, Read, SourceReport};
pub use gap_source::{GapKind, GapSource};
pub use health::{Ailment, ListenDrops, ProcessHealth, ProcessState};
pub use held::{HeldAs, HeldSockets, PortFacts, PortSocket};
pub use history::{
    History, HistoryEntry, HistoryHolder, HistoryQuery, HistoryRecord, Holding, HoldingEdge,
    ListenerRecord, Moment, Unrecorded,
};
pub use host::{Capability, Host};
pub use kube::{
    ContainerKind, ContextId, KubeAsk, KubeClass, KubeContainer, KubeContainerPort, KubeContext,
    KubeEndpoint, KubeEndpointPort, KubeEndpoints, KubeGateway, KubeNameRule, KubeNames, KubeNode,
    KubeObjects, KubePod, KubeService, KubeServicePort, KubeWish, NameApi, NameKind, NameTarget,
    ObjectName, PathCompare, ServiceKind,
};
pub use net::{KernelPort, Netns, Transparent};
pub use node::{
    Attachments, Attempts, Clusters, Conntrack, Listeners, LoadBalancers, Netfilter, Node,
    Observed, Prefetch, Processes, Reports, Runtimes, Sockets, Topology,
};
pub use other::{
    FileId, OtherKind, OtherPlace, OtherSocket, SocketFile, UnixAnswer, UnixClient, UnixListener,
};
pub use owner::{Owner, Owners};
pub use process::{Ancestor, FsIds, Monitored, Process, StartTime};
pub use provenance::{
    Listens, Package, PackageManager, Provenance, Repository, Session, SessionKind, SocketUnit,
    apk_owner, checked_out,
};
pub use query::{Query, ResolvedName, Scope, SenderName, Subject};
pub use reached::Reached;
pub use reason::{Cause, CauseCode, StopKind, Why};
pub use relay::{Forwarded, Relay};
pub use runtimes::{By, Daemon, Description, RUNTIMES, Speaks};
pub use socket::LOOPBACK4;
pub use socket::{AcceptQueue, Connections, Port, PortRange, Socket, SocketFilter, SocketState};
pub use tls::{Certificate, CertificateName, Served, TlsAsk, Validity};
pub use watched::{Accepted, ObservedTarget, Watched};
pub use watched::{counted, spoken_ms};
pub use ways::{
    DeviceMode, InputFound, InputQuery, LocalRoute, Neighbour, NeighbourState, PacketFlow,
    PolicyRule,
};
pub use workload::{PathGroup, Workload, WorkloadKind};
// Packet rules, and what of a namespace they ask for, are the evaluator's words.
pub use whereis_port_rules::{
    Address, BaseChain, BitOp, BridgePort, Bytes, ChainId, ChainKind, CmpOp, Condition,
    ConditionCode, CtKey, Element, Expr, Family, FibResult, HardwareAddress, Hook, IpSet, IpSetId,
    IpSetMember, Link, LinkKind, MapsTo, MarkOp, MetaKey, NatKind, NatRange, NetnsId, PayloadBase,
    Proto, Reg, Rejection, Route, RouteFound, RouteKind, RouteOf, RouteQuery, Rule, RuleVerdict,
    RulesBackend, Ruleset, Set, SetId, Side, Table, TableId, XtMatch, XtTarget, element_of,
};

/// A process id in the tool's own PID namespace.
pub type Pid = u32;

/// The inode number of a socket in sockfs: what `/proc/PID/fd/N` and sock_diag
/// both name. Unique on the machine while the socket lives, reused afterwards.
pub type SocketInode = u64;
