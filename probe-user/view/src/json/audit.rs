//! What others can reach, and what of it somebody should look at.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use whereis_port_model as model;

use super::{
    Advice, AuditCode, CauseCode, CheckState, Condition, Gap, HopKind, Host, Level, Netns,
    OwnerKind, Proto, SCHEMA_VERSION, Service, Source, TOOL_VERSION, Vantage,
};

/// What `whereis-port audit --json` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AuditDocument<'a> {
    /// The version of this document's structure.
    pub schema_version: u32,
    /// The version of the tool that wrote it.
    pub tool_version: &'a str,
    /// The node.
    pub host: Host<'a>,
    /// What somebody should look at, the worst first.
    pub audit_findings: Vec<AuditFinding<'a>>,
    /// What the profiles ask for, and whether it is so.
    pub profiles: Vec<Profile<'a>>,
    /// Every port of which something is known, and who gets to it.
    pub exposures: Vec<Exposure<'a>>,
    /// How many statements there are of which it is not known whether a port is open, and which
    /// no policy allows.
    pub not_known: usize,
    /// How many ports were told by another one that is alike (`like` of an exposure).
    pub grouped: usize,
    /// Whether all that decides could be read and evaluated.
    pub complete: bool,
    /// What could not be read, and what that could hide.
    pub gaps: Vec<Gap<'a>>,
    /// What was read, and what could not be.
    pub sources: Vec<Source<'a>>,
}

/// Something that somebody should look at.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AuditFinding<'a> {
    /// The kind of thing, as a word that stays.
    pub code: AuditCode,
    /// How bad it is.
    pub level: Level,
    /// The ports that it is said of.
    pub ports: Vec<AuditPlace<'a>>,
    /// From where, where it is about a sender.
    pub from: Option<Vantage>,
    /// By which devices or from which namespaces.
    pub by: &'a [String],
    /// Whose it is, as people know it; null where nobody is known, or it is of several.
    pub owner: Option<OwnerName>,
    /// What, in one sentence.
    pub what: &'a str,
    /// What would mend it.
    pub fix: Option<Advice<'a>>,
}

/// A port, or a range of ports, of a namespace.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AuditPlace<'a> {
    /// The namespace.
    pub netns: Netns<'a>,
    /// The protocol.
    pub proto: Proto,
    /// The first port.
    pub first: u16,
    /// The last port, the first one where it is one alone.
    pub last: u16,
}

/// A name that an owner is known by, as a policy may use it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct OwnerName {
    /// What kind of name.
    pub kind: OwnerKind,
    /// The name.
    pub name: String,
    /// Both, as a policy writes them; a pod without what changes when it is made anew.
    pub pattern: String,
}

/// One port of one namespace, and who gets to it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Exposure<'a> {
    /// The namespace.
    pub netns: Netns<'a>,
    /// The protocol.
    pub proto: Proto,
    /// The port.
    pub port: u16,
    /// The addresses that it is bound to or taken at; a wildcard for all.
    pub addresses: Vec<IpAddr>,
    /// What takes it: `listener`, `kernel`, `dnat` or `service`, of each.
    pub kinds: Vec<HopKind>,
    /// All names that its owner is known by, the most telling first.
    pub owners: Vec<OwnerName>,
    /// Whose rules take the port, or which load balancer.
    pub taken_by: Option<&'a str>,
    /// The Kubernetes service whose port it is.
    pub service: Option<Service<'a>>,
    /// Whether it is a NodePort.
    pub node_port: bool,
    /// From where it is reached, and from where not.
    pub openings: Vec<Opening<'a>>,
    /// The port that was tried in its place, where they are alike; null where it was tried itself.
    pub like: Option<u16>,
}

/// Whether some senders get to a port.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Opening<'a> {
    /// From where.
    pub from: Vantage,
    /// By which devices or from which namespaces; empty for all.
    pub by: Vec<&'a str>,
    /// What is connected to, `address:port`.
    pub address: Option<String>,
    /// Whether it is open; null when that can't be told.
    pub open: Option<bool>,
    /// Why, or why not.
    pub why: String,
    /// The cause, as a word that stays.
    pub code: CauseCode,
    /// What it depends on.
    pub conditions: Vec<Condition<'a>>,
    /// Whether the policy allows it; null without one, or where it judges no such senders.
    pub allowed: Option<bool>,
}

/// A profile.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Profile<'a> {
    /// Its name.
    pub name: &'a str,
    /// Of what, in a few words.
    pub title: &'a str,
    /// What showed that it is one for this node; null where somebody named it.
    pub found_by: Option<&'a str>,
    /// What it asks for.
    pub checks: Vec<ProfileCheck<'a>>,
}

/// A port, or a range, that a profile asks for.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ProfileCheck<'a> {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
    /// The protocol.
    pub proto: Proto,
    /// What for.
    pub role: &'a str,
    /// Who has to get to it; null for the node itself alone.
    pub from: Option<Vantage>,
    /// Whether it has to be there.
    pub required: bool,
    /// Where it is asked for at all, as words behind "only"; null for everywhere.
    pub only: Option<&'a str>,
    /// How it is.
    pub state: CheckState,
    /// The same in words.
    pub why: &'a str,
    /// Where it is written that it is asked for.
    pub source: &'a str,
}

/// The document for an audit.
pub fn audit<'a>(
    audit: &'a model::Audit,
    host: &'a model::Host,
    sources: &'a [model::SourceReport],
) -> AuditDocument<'a> {
    AuditDocument {
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        host: host.into(),
        audit_findings: audit.findings.iter().map(finding).collect(),
        profiles: audit.profiles.iter().map(profile).collect(),
        exposures: audit.exposures.iter().map(|one| exposure(one, audit.by_policy)).collect(),
        not_known: audit.unsure,
        grouped: audit.grouped,
        complete: !audit.is_partial(),
        gaps: audit.gaps.iter().map(Into::into).collect(),
        sources: sources.iter().map(Into::into).collect(),
    }
}

fn owner(name: &model::OwnerName) -> OwnerName {
    OwnerName {
        kind: name.kind.into(),
        name: name.name.clone(),
        pattern: model::stable_owner(name),
    }
}

fn finding(finding: &model::AuditFinding) -> AuditFinding<'_> {
    AuditFinding {
        code: finding.code.into(),
        level: finding.code.level().into(),
        ports: finding
            .places
            .iter()
            .map(|place| AuditPlace {
                netns: (&place.netns).into(),
                proto: place.proto.into(),
                first: place.ports.first.0,
                last: place.ports.last.0,
            })
            .collect(),
        from: finding.from.map(Into::into),
        by: &finding.by,
        owner: finding.owner.as_ref().map(owner),
        what: &finding.what,
        fix: finding.fix.as_ref().map(Into::into),
    }
}

fn exposure(one: &model::Exposure, by_policy: bool) -> Exposure<'_> {
    let mut owners = one.owners();
    owners.sort_by_key(|name| name.kind);
    Exposure {
        netns: (&one.netns).into(),
        proto: one.proto.into(),
        port: one.port.0,
        addresses: one.addresses().into_iter().collect(),
        kinds: one.rows.iter().map(|row| row.kind.into()).collect(),
        owners: owners.iter().map(owner).collect(),
        taken_by: one.rows.iter().find_map(|row| row.taken_by.as_deref()),
        service: one.rows.iter().find_map(|row| row.service.as_ref()).map(Into::into),
        node_port: one
            .rows
            .iter()
            .any(|row| row.port_kind == whereis_port_model::PortKind::NodePort),
        openings: one.openings.iter().map(|one| opening(one, by_policy)).collect(),
        like: one.like.map(|port| port.0),
    }
}

fn opening(one: &model::Opening, by_policy: bool) -> Opening<'_> {
    let reach = &one.reach;
    Opening {
        from: reach.from.into(),
        by: one.by(),
        address: reach.address.map(|address| address.to_string()),
        open: reach.reachable,
        why: reach.why.to_string(),
        code: reach.why.cause.code().into(),
        conditions: reach.conditions.iter().map(Into::into).collect(),
        allowed: (by_policy && one.judged).then_some(one.allowed.is_some()),
    }
}

fn profile(report: &model::ProfileReport) -> Profile<'_> {
    Profile {
        name: &report.name,
        title: &report.title,
        found_by: report.found_by.as_deref(),
        checks: report
            .checks
            .iter()
            .map(|one| ProfileCheck {
                first: one.ports.first.0,
                last: one.ports.last.0,
                proto: one.proto.into(),
                role: &one.role,
                from: one.from.map(Into::into),
                required: one.required,
                only: one.only.as_deref(),
                state: one.state.into(),
                why: &one.why,
                source: &one.source,
            })
            .collect(),
    }
}
