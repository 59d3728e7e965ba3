//! The lines of `trace`: one object each, told apart by their `type`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::Serialize;

use crate::trace::{Summary, time};
use whereis_port_model as model;

use super::{
    Cluster, Container, DropFate, EventKind, Evidence, Gap, Host, Netns, Pod, Process, Proto,
    SCHEMA_VERSION, SeenBy, Source, TOOL_VERSION,
};
use crate::sanitize::SafeJson;

/// The `type` of a line: a word that only this kind of line has.
macro_rules! line_type {
    ($(#[$doc:meta])* $name:ident = $word:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $(#[$doc])*
            $word,
        }
    };
}
pub(super) use line_type;

line_type! {
    /// The first line.
    StartType = Start
}
line_type! {
    /// An event.
    EventType = Event
}
line_type! {
    /// Events were lost.
    LostType = Lost
}
line_type! {
    /// The last line.
    SummaryType = Summary
}

/// The first line of `whereis-port trace --json`: from now on events are seen.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StartLine<'a> {
    /// `start`.
    pub r#type: StartType,
    /// The version of the structure of all lines.
    pub schema_version: u32,
    /// The version of the tool that writes them.
    pub tool_version: &'a str,
    /// The node.
    pub host: Host<'a>,
    /// The kinds of event that were asked for.
    pub kinds: Vec<EventKind>,
    /// What can't be watched.
    pub gaps: Vec<Gap<'a>>,
    /// What is watched, by which source.
    pub sources: Vec<Source<'a>>,
}

/// An event, a line of `whereis-port trace --json`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct EventLine<'a> {
    /// `event`.
    pub r#type: EventType,
    /// When, in UTC: `2026-11-22T22:29:42.000000000Z`.
    pub time: String,
    /// The same in milliseconds since the epoch.
    pub unix_ms: u64,
    /// What.
    pub kind: EventKind,
    /// How it is known.
    pub seen_by: SeenBy,
    /// The protocol.
    pub proto: Proto,
    /// The network namespace of the socket or connection.
    pub netns: Option<Netns<'a>>,
    /// The socket's address; of `nat` where the packet was sent to.
    pub address: IpAddr,
    /// Its port; null for a connect, which is told before a port is chosen.
    pub port: Option<u16>,
    /// Whom it connects to, or who connected.
    pub peer: Option<Address>,
    /// The socket's inode number in sockfs.
    pub inode: Option<u64>,
    /// Who caused it, as it was at that moment; null when the kernel did it for
    /// somebody else. By comparison: who held the socket when it was first seen.
    pub actor: Option<Actor<'a>>,
    /// The same process in full, when it still ran as this was looked up.
    pub process: Option<Process<'a>>,
    /// The innermost container: the last of `containers`.
    pub container: Option<Container<'a>>,
    /// The containers it is in, outermost first.
    pub containers: Vec<Container<'a>>,
    /// The pod.
    pub pod: Option<Pod<'a>>,
    /// The cluster.
    pub cluster: Option<Cluster<'a>>,
    /// The systemd unit or scope.
    pub unit: Option<&'a str>,
    /// The translation, of `nat`.
    pub nat: Option<Translation>,
    /// Which packets, and what became of them, of `drop`.
    pub drop: Option<Drop<'a>>,
    /// How the containers are known.
    pub evidence: Vec<Evidence<'a>>,
}

/// Packets that were dropped or refused for one cause. `time` of the event is that of the last
/// one, `peer` the sender of the first.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Drop<'a> {
    /// What became of them.
    pub fate: DropFate,
    /// The reason, as the running kernel calls it (`NETFILTER_DROP`); null where it gives none.
    pub reason: Option<&'a str>,
    /// By which rule, in words; null where no rule did it, or it is not known which.
    pub rule: Option<&'a str>,
    /// Why it is not known by which rule; null where it is, or no rule did it.
    pub rule_unknown: Option<&'a str>,
    /// The function of the kernel that let go of them; null where it is not readable.
    pub function: Option<&'a str>,
    /// The device that they were at.
    pub device: Option<&'a str>,
    /// Its index in the namespace.
    pub ifindex: Option<u32>,
    /// Whether they had come into the namespace by a device; else they were sent from there.
    pub came_in: bool,
    /// Their TCP flags: `SYN`, `ACK`, `FIN`, `RST`.
    pub flags: Vec<&'static str>,
    /// The sender; null where there were too many to tell them apart.
    pub source: Option<IpAddr>,
    /// Whom they were sent to before NAT changed that; null where it did not.
    pub original: Option<Address>,
    /// How many since the last line about the same cause.
    pub packets: u64,
    /// How many altogether.
    pub total: u64,
    /// Whether they were so many that not each was looked at, so that the numbers are estimates.
    pub estimated: bool,
    /// When the first of all was dropped, in UTC.
    pub first: String,
}

impl<'a> Drop<'a> {
    fn of(drop: &'a model::DropEvent, by: Option<&'a model::DroppedBy>) -> Self {
        let (rule, rule_unknown) = match by {
            Some(model::DroppedBy::Rule(rule)) => (Some(rule.as_str()), None),
            Some(model::DroppedBy::Unknown(why)) => (None, Some(why.as_str())),
            None => (None, None),
        };
        Self {
            fate: drop.fate.into(),
            reason: drop.reason.as_deref(),
            rule,
            rule_unknown,
            function: drop.place.as_deref(),
            device: drop.device.as_deref(),
            ifindex: drop.ifindex,
            came_in: drop.came_by.is_some(),
            flags: drop.flags.names(),
            source: drop.source,
            original: drop.original.map(Into::into),
            packets: drop.packets,
            total: drop.total,
            estimated: drop.estimated,
            first: time::rfc3339(drop.first),
        }
    }
}

/// An address with a port.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { address: address.ip(), port: address.port() }
    }
}

/// The process that caused an event, as it was at that moment: it may have ended.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Actor<'a> {
    /// Its id in the tool's PID namespace; null when it is outside of that.
    pub pid: Option<u32>,
    /// Its start in clock ticks since boot: with `pid`, its identity.
    pub start_ticks: Option<u64>,
    /// Its user id.
    pub uid: u32,
    /// The name of its thread.
    pub comm: &'a str,
    /// The inode of the network namespace that it was in.
    pub netns_inode: Option<u64>,
    /// Its cgroup: a path, or the last parts of one.
    pub cgroup: Option<&'a str>,
}

impl<'a> From<&'a model::Actor> for Actor<'a> {
    fn from(actor: &'a model::Actor) -> Self {
        Self {
            pid: actor.pid,
            start_ticks: actor.start.map(|start| start.0),
            uid: actor.uid,
            comm: &actor.comm,
            netns_inode: actor.netns.and_then(model::NetnsId::inode),
            cgroup: actor.cgroup.as_deref(),
        }
    }
}

/// What NAT did to one connection.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Translation {
    /// Whether the connection begins; else it ends.
    pub begins: bool,
    /// Source of the packet as it came.
    pub source: Address,
    /// Destination of the packet as it came.
    pub destination: Address,
    /// Source after translation: whom the receiver sees.
    pub new_source: Address,
    /// Destination after translation.
    pub new_destination: Address,
}

impl From<model::NatEvent> for Translation {
    fn from(nat: model::NatEvent) -> Self {
        Self {
            begins: nat.begins,
            source: nat.source.into(),
            destination: nat.destination.into(),
            new_source: nat.new_source.into(),
            new_destination: nat.new_destination.into(),
        }
    }
}

/// Events were lost, a line of `whereis-port trace --json`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LostLine {
    /// `lost`.
    pub r#type: LostType,
    /// How many since the last such line.
    pub lost: u64,
    /// How many altogether.
    pub lost_total: u64,
}

/// The last line of `whereis-port trace --json`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SummaryLine<'a> {
    /// `summary`.
    pub r#type: SummaryType,
    /// How many events were written.
    pub events: u64,
    /// How many were lost.
    pub lost: u64,
    /// How many events of each kind.
    pub by_kind: BTreeMap<&'a str, u64>,
    /// How long was watched, in milliseconds.
    pub watched_ms: u64,
    /// What could not be watched.
    pub gaps: Vec<Gap<'a>>,
}

/// The first line.
pub fn start<'a>(
    kinds: &[model::EventKind],
    host: &'a model::Host,
    gaps: &'a [model::Gap],
    sources: &'a [model::SourceReport],
) -> StartLine<'a> {
    StartLine {
        r#type: StartType::Start,
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        host: host.into(),
        kinds: kinds.iter().map(|kind| (*kind).into()).collect(),
        gaps: gaps.iter().map(Into::into).collect(),
        sources: sources.iter().map(Into::into).collect(),
    }
}

/// The line of an event.
pub fn event(traced: &model::Traced) -> EventLine<'_> {
    let event = &traced.event;
    EventLine {
        r#type: EventType::Event,
        time: time::rfc3339(event.at),
        unix_ms: event.at / 1_000_000,
        kind: event.kind.into(),
        seen_by: event.seen_by.into(),
        proto: event.proto.into(),
        netns: traced.netns.as_ref().map(Into::into),
        address: event.address,
        port: event.port.map(|port| port.0),
        peer: event.peer.map(Into::into),
        inode: event.inode,
        actor: event.actor.as_ref().map(Into::into),
        process: traced.process.as_ref().map(Into::into),
        container: traced.containers.last().map(Into::into),
        containers: traced.containers.iter().map(Into::into).collect(),
        pod: traced.pod.as_ref().map(Into::into),
        cluster: traced.cluster.as_ref().map(Into::into),
        unit: traced.unit.as_deref(),
        nat: event.nat.map(Into::into),
        drop: event.dropped.as_ref().map(|drop| Drop::of(drop, traced.dropped_by.as_ref())),
        evidence: traced.evidence.iter().map(Into::into).collect(),
    }
}

/// The line for `lost` events, of `lost_total` altogether.
pub fn lost(lost: u64, lost_total: u64) -> LostLine {
    LostLine { r#type: LostType::Lost, lost, lost_total }
}

/// The last line.
pub fn summary<'a>(summary: &Summary, gaps: &'a [model::Gap]) -> SummaryLine<'a> {
    SummaryLine {
        r#type: SummaryType::Summary,
        events: summary.events(),
        lost: summary.lost,
        by_kind: summary.by_kind.iter().map(|(kind, count)| (kind.as_str(), *count)).collect(),
        watched_ms: u64::try_from(summary.watched.as_millis()).unwrap_or(u64::MAX),
        gaps: gaps.iter().map(Into::into).collect(),
    }
}

/// Writes `line` on one line of its own.
///
/// # Errors
/// Those of `out`.
pub fn write_line(line: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, SafeJson::compact());
    line.serialize(&mut serializer)?;
    out.write_all(b"\n")
}
