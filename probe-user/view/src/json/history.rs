//! The document of `history`.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Proto, SCHEMA_VERSION, TOOL_VERSION};
use crate::trace::time;
use whereis_port_model as model;

/// What `whereis-port history --json` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct HistoryDocument<'a> {
    /// The version of the structure.
    pub schema_version: u32,
    /// The version of the tool.
    pub tool_version: &'a str,
    /// What was asked for.
    pub history_of: &'a [String],
    /// The time that was asked about, in UTC; null for all.
    pub at: Option<String>,
    /// How often it was that time while it was recorded: 0 where nothing was recorded then, 2
    /// where the clock was set back; null for a question without a time.
    pub times_recorded: Option<u32>,
    /// The first and the last that was recorded; null for nothing.
    pub recorded: Option<Span>,
    /// Who had it, in the order of beginnings.
    pub holdings: Vec<HoldingOf<'a>>,
    /// When nothing was recorded between these.
    pub unrecorded: Vec<UnrecordedSpan>,
    /// Events that were lost.
    pub lost: Vec<LostEvents<'a>>,
    /// What recorders could not watch, in words.
    pub not_watched: &'a [String],
    /// How many lines of the store are damaged.
    pub damaged: u64,
}

/// A span of time, in UTC.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Span {
    /// Its beginning.
    pub from: String,
    /// Its end.
    pub to: String,
}

/// How the beginning or the end of a holding is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EdgeKind {
    /// It was seen to happen at that time.
    Seen,
    /// It was there when recording began, at that time: it began before.
    Before,
    /// It was seen last at that time, and was gone when recording went on, at `latest`.
    Between,
    /// It was still there at that time, the last that was recorded.
    Last,
}

/// The beginning or the end of a holding.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct EdgeOf {
    /// How it is known.
    pub known: EdgeKind,
    /// When, in UTC, as the clock said then.
    pub time: String,
    /// The same in nanoseconds since boot.
    pub boottime_ns: u64,
    /// When it was gone at the latest, of `between`.
    pub latest: Option<String>,
}

impl From<model::HoldingEdge> for EdgeOf {
    fn from(edge: model::HoldingEdge) -> Self {
        let known = match edge {
            model::HoldingEdge::Seen(_) => EdgeKind::Seen,
            model::HoldingEdge::Before(_) => EdgeKind::Before,
            model::HoldingEdge::Between(..) => EdgeKind::Between,
            model::HoldingEdge::Last(_) => EdgeKind::Last,
        };
        let latest = match edge {
            model::HoldingEdge::Between(_, to) => Some(time::rfc3339(to.wall)),
            _ => None,
        };
        let at = edge.inner();
        Self { known, time: time::rfc3339(at.wall), boottime_ns: at.mono, latest }
    }
}

/// Somebody had a port for some time.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct HoldingOf<'a> {
    /// The protocol.
    pub proto: Proto,
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: Option<u16>,
    /// The inode of the network namespace.
    pub netns_inode: Option<u64>,
    /// Its name then.
    pub netns_name: Option<&'a str>,
    /// The socket's inode.
    pub inode: Option<u64>,
    /// The process; null where it was not known.
    pub holder: Option<HolderOf<'a>>,
    /// The id of the boot that it was in.
    pub boot_id: &'a str,
    /// From when.
    pub from: EdgeOf,
    /// Until when.
    pub to: EdgeOf,
    /// For how long surely, by the clock that nobody sets.
    pub lasted_ms: u64,
    /// How much of that was not recorded.
    pub unrecorded_ms: u64,
}

/// A process, as it was then.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct HolderOf<'a> {
    /// Its id; null when it was outside of the recorder's PID namespace.
    pub pid: Option<u32>,
    /// Its start in clock ticks since boot: with `pid`, its identity.
    pub start_ticks: Option<u64>,
    /// Its user id.
    pub uid: u32,
    /// Its name.
    pub name: &'a str,
    /// The container.
    pub container: Option<&'a str>,
    /// The pod, with its namespace.
    pub pod: Option<&'a str>,
    /// The systemd unit.
    pub unit: Option<&'a str>,
}

/// A time in which nothing was recorded.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct UnrecordedSpan {
    /// The last that was recorded before, in UTC.
    pub from: String,
    /// The first that was recorded after.
    pub to: String,
    /// Whether the machine was booted meanwhile.
    pub booted: bool,
    /// Whether the recorder before was ended in good order; else it was killed.
    pub ended: bool,
}

/// Events that were lost.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LostEvents<'a> {
    /// Before this time, in UTC.
    pub before: String,
    /// How many.
    pub events: u64,
    /// Why.
    pub why: &'a str,
}

/// The document.
pub fn history<'a>(targets: &'a [String], history: &'a model::History) -> HistoryDocument<'a> {
    let span = |from: model::Moment, to: model::Moment| Span {
        from: time::rfc3339(from.wall),
        to: time::rfc3339(to.wall),
    };
    let asked = history.asked;
    HistoryDocument {
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        history_of: targets,
        at: asked.map(|asked| time::rfc3339(asked.at)),
        times_recorded: asked.map(|asked| u32::try_from(asked.times).unwrap_or(u32::MAX)),
        recorded: history.recorded.map(|(first, last)| span(first, last)),
        holdings: history.holdings.iter().map(holding).collect(),
        unrecorded: history
            .unrecorded
            .iter()
            .map(|gap| UnrecordedSpan {
                from: time::rfc3339(gap.from.wall),
                to: time::rfc3339(gap.to.wall),
                booted: gap.booted,
                ended: gap.ended,
            })
            .collect(),
        lost: history
            .lost
            .iter()
            .map(|(at, events, why)| LostEvents {
                before: time::rfc3339(at.wall),
                events: *events,
                why,
            })
            .collect(),
        not_watched: &history.gaps,
        damaged: history.damaged,
    }
}

fn holding(holding: &model::Holding) -> HoldingOf<'_> {
    let listener = &holding.listener;
    HoldingOf {
        proto: listener.proto.into(),
        address: listener.address,
        port: listener.port.map(|port| port.0),
        netns_inode: listener.netns.and_then(model::NetnsId::inode),
        netns_name: listener.netns_name.as_deref(),
        inode: listener.inode,
        holder: listener.holder.as_ref().map(|holder| HolderOf {
            pid: holder.pid,
            start_ticks: holder.start.map(|start| start.0),
            uid: holder.uid,
            name: &holder.name,
            container: holder.container.as_deref(),
            pod: holder.pod.as_deref(),
            unit: holder.unit.as_deref(),
        }),
        boot_id: &holding.boot,
        from: holding.from.into(),
        to: holding.to.into(),
        lasted_ms: holding.lasted() / 1_000_000,
        unrecorded_ms: holding.unrecorded / 1_000_000,
    }
}
