//! What others can reach, and what of it somebody should look at.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{
    Advice, Container, Ending, Gap, HopKind, ListRow, NetnsName, NetnsRef, Pod, Port, PortRange,
    Proto, Reach, Vantage,
};

/// What an audit of a node says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Audit {
    /// Every port that was tried, the tool's own namespace first.
    pub exposures: Vec<Exposure>,
    /// What somebody should look at, the worst first.
    pub findings: Vec<AuditFinding>,
    /// What the profiles ask for, and whether it is so.
    pub profiles: Vec<ProfileReport>,
    /// What could not be read, and what that could hide.
    pub gaps: Vec<Gap>,
    /// How many statements there are of which it is not known whether a port is open, and which
    /// no policy allows.
    pub unsure: usize,
    /// Whether a policy said what may be open.
    pub by_policy: bool,
    /// How many ports were told by another one that is the same for all rules, devices and
    /// listeners on the way.
    pub grouped: usize,
}

impl Audit {
    /// Whether something that was not read could hide a port, or make a statement wrong.
    pub fn is_partial(&self) -> bool {
        use super::Impact;
        // Of very many Services those that have addresses of load balancers are not listed.
        let decides = |gap: &Gap| {
            matches!(gap.impact, Impact::Port | Impact::Reach)
                || gap.source.kind == super::GapKind::Services
        };
        let unknown = |check: &ProfileCheck| check.state == CheckState::Unknown;
        self.unsure > 0
            || self.gaps.iter().any(decides)
            || self.profiles.iter().flat_map(|profile| &profile.checks).any(unknown)
    }
}

/// One port of one namespace, and who gets to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Exposure {
    /// The namespace.
    pub netns: NetnsRef,
    /// The protocol.
    pub proto: Proto,
    /// The port.
    pub port: Port,
    /// What has it: listeners, and what rules or balancers take, at least one.
    pub rows: Vec<ListRow>,
    /// From where it is reached, and from where not.
    pub openings: Vec<Opening>,
    /// The port that was tried in its place, where they are alike.
    pub like: Option<Port>,
}

/// One statement of an exposure.
#[derive(Debug, Clone, PartialEq)]
pub struct Opening {
    /// The statement.
    pub reach: Reach,
    /// Of other machines the device that they come in by. Untrusted.
    pub device: Option<String>,
    /// The rule of a policy that allows it, by its place there.
    pub allowed: Option<usize>,
    /// Whether the policy that there is judges such senders at all.
    pub judged: bool,
}

impl Opening {
    /// By which devices, or from which namespaces, where that is told.
    pub fn by(&self) -> Vec<&str> {
        match &self.device {
            Some(device) => vec![device],
            None => self.reach.by.iter().map(String::as_str).collect(),
        }
    }

    /// Whether it is surely open.
    pub fn is_open(&self) -> bool {
        self.reach.reachable == Some(true)
    }
}

impl Exposure {
    /// Whether somebody surely gets to it from there.
    pub fn is_open_to(&self, from: Vantage) -> bool {
        self.openings.iter().any(|one| one.reach.from == from && one.is_open())
    }

    /// All names that somebody may know its owner by.
    pub fn owners(&self) -> Vec<OwnerName> {
        named(self.rows.iter())
    }

    /// The name that tells most of its owner.
    pub fn owner(&self) -> Option<OwnerName> {
        self.owners().into_iter().min_by_key(|name| name.kind)
    }

    /// What has it where a statement is about: a Service may have the port at some addresses,
    /// and a pod at others. All where that is not told.
    fn rows_of(&self, one: &Opening) -> Vec<&ListRow> {
        let at = one.reach.address.map(|address| address.ip().to_canonical());
        let fits = |row: &&ListRow| match &one.reach.why.cause {
            super::Cause::TakenByRules { to, .. } if !to.is_empty() => {
                let mut targets = row.target.iter().chain(&row.others);
                let leads = |to: &SocketAddr| (Some(to.ip()), Some(Port(to.port())));
                targets.any(|e| to.iter().any(|to| leads(to) == (e.address, e.port)))
            }
            super::Cause::BoundToAll { .. } | super::Cause::BoundToAllIpv6 => {
                row.socket.is_some() && row.address.is_unspecified() && row.taken_by.is_none()
            }
            super::Cause::BoundTo(bound) => row.socket.is_some() && row.address == *bound,
            _ => at.is_some_and(|at| row.address.to_canonical() == at),
        };
        let found: Vec<&ListRow> = self.rows.iter().filter(fits).collect();
        if found.is_empty() { self.rows.iter().collect() } else { found }
    }

    /// All names that somebody may know the owner by of what a statement is about.
    pub fn owners_at(&self, one: &Opening) -> Vec<OwnerName> {
        named(self.rows_of(one).into_iter())
    }

    /// The name that tells most of that owner.
    pub fn owner_at(&self, one: &Opening) -> Option<OwnerName> {
        self.owners_at(one).into_iter().min_by_key(|name| name.kind)
    }

    /// The addresses that it is at, as they are bound or taken.
    pub fn addresses(&self) -> BTreeSet<std::net::IpAddr> {
        self.rows.iter().map(|row| row.address).collect()
    }

    /// Whether rules or a balancer take it, whatever listens.
    pub fn is_taken(&self) -> bool {
        let is_taken = |row: &ListRow| {
            matches!(row.kind, HopKind::Dnat | HopKind::Service) || row.taken_by.is_some()
        };
        self.rows.iter().any(is_taken)
    }
}

/// The names of the owners of rows, each once.
fn named<'a>(rows: impl Iterator<Item = &'a ListRow>) -> Vec<OwnerName> {
    let mut all: Vec<OwnerName> = Vec::new();
    for name in rows.flat_map(owners_of) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// What kind of name an owner is known by, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerKind {
    /// A Service of Kubernetes, `namespace/name`.
    Service,
    /// A pod, `namespace/name`.
    Pod,
    /// A container.
    Container,
    /// A part of Kubernetes, proven by its program and arguments.
    Component,
    /// A process, by its name. Only of programs that nobody but root can have written.
    Process,
    /// The kernel itself, by its device.
    Kernel,
    /// A unit of systemd.
    Unit,
    /// The image of a container.
    Image,
    /// The user that a process runs as, by name or number.
    User,
}

impl OwnerKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Service,
        Self::Pod,
        Self::Container,
        Self::Component,
        Self::Process,
        Self::Kernel,
        Self::Unit,
        Self::Image,
        Self::User,
    ];

    /// As a policy writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Pod => "pod",
            Self::Container => "container",
            Self::Component => "component",
            Self::Process => "process",
            Self::Kernel => "kernel",
            Self::Unit => "unit",
            Self::Image => "image",
            Self::User => "user",
        }
    }
}

/// A name that an owner is known by. Untrusted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnerName {
    /// What kind of name.
    pub kind: OwnerKind,
    /// The name.
    pub name: String,
}

impl std::fmt::Display for OwnerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name)
    }
}

/// The names that a row's owner is known by.
pub fn owners_of(row: &ListRow) -> Vec<OwnerName> {
    let end = &row.end;
    let mut all = Vec::new();
    let mut add = |kind, name: &str| {
        if !name.is_empty() {
            all.push(OwnerName { kind, name: name.to_owned() });
        }
    };
    if let Some(service) = row.service.as_ref().or(end.service.as_ref()) {
        add(OwnerKind::Service, &format!("{}/{}", service.namespace, service.name));
    }
    let pod = end.pod.as_ref().or_else(|| end.containers.iter().rev().find_map(|c| c.pod.as_ref()));
    if let Some(name) = pod.and_then(pod_name) {
        add(OwnerKind::Pod, &name);
    }
    let container: Option<&Container> = end.containers.last();
    if let Some(name) = container.and_then(|container| container.name.as_deref()) {
        add(OwnerKind::Container, name);
    }
    if let Some(component) = row.component.as_ref().filter(|component| component.confirmed) {
        add(OwnerKind::Component, &component.name);
    }
    for process in &end.processes {
        // Anybody can give a program of his own the name of another.
        if !process.own_word {
            add(OwnerKind::Process, process.name());
        }
        match &process.user {
            Some(user) => add(OwnerKind::User, user),
            None => add(OwnerKind::User, &process.uid.to_string()),
        }
    }
    if end.ending == Ending::Kernel {
        if end.devices.is_empty() {
            add(OwnerKind::Kernel, "kernel");
        }
        end.devices.iter().for_each(|device| add(OwnerKind::Kernel, device));
    }
    if let Some(unit) = end.unit.as_deref() {
        add(OwnerKind::Unit, unit);
    }
    if let Some(image) = container.and_then(|container| container.image.as_deref()) {
        add(OwnerKind::Image, image);
    }
    all
}

fn pod_name(pod: &Pod) -> Option<String> {
    let name = pod.name.as_deref()?;
    Some(match pod.namespace.as_deref() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    })
}

/// Something of an audit that somebody should look at.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditFinding {
    /// What kind of thing.
    pub code: AuditCode,
    /// The ports that it is said of; of a port that a profile misses, that one.
    pub places: Vec<AuditPlace>,
    /// From where, where it is about a sender.
    pub from: Option<Vantage>,
    /// By which devices or from which namespaces. Untrusted.
    pub by: Vec<String>,
    /// Whose it is, as people know it. Untrusted.
    pub owner: Option<OwnerName>,
    /// What, in one sentence without a final stop. Untrusted where it quotes.
    pub what: String,
    /// What would mend it.
    pub fix: Option<Advice>,
}

/// One port of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPlace {
    /// The namespace.
    pub netns: NetnsRef,
    /// The protocol; of a profile's port both may be meant.
    pub proto: Proto,
    /// The port, or the range that nothing holds.
    pub ports: PortRange,
}

/// The kinds of things that an audit finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuditCode {
    /// The policy does not allow it.
    NotAllowed,
    /// The firewall of the node would stop it, but rules translate it before.
    PublishedPastFirewall,
    /// Open by IPv6, where a rule stops IPv4.
    Ipv6Open,
    /// The API of Docker is open to other machines.
    DockerApiOpen,
    /// etcd is open to other machines.
    EtcdOpen,
    /// A database or cache is open to other machines.
    DatabaseOpen,
    /// The API of a kubelet is open to other machines.
    KubeletOpen,
    /// A dashboard or console is open to other machines.
    DashboardOpen,
    /// Nothing publishes it, and other machines get to it by a route over this node.
    OpenByRoute,
    /// Bound to all addresses, and no rule stops other machines at this port or at others.
    NoFirewall,
    /// A NodePort that is taken at every address.
    NodePortEverywhere,
    /// Nothing holds a port that a profile requires.
    RequiredMissing,
    /// Something else holds it.
    RequiredHeldByOther,
    /// The right component holds it, and other machines do not get to it.
    RequiredUnreachable,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// It is not as it was meant to be.
    Error,
    /// It may not be.
    Warning,
    /// Worth knowing.
    Note,
}

impl AuditCode {
    /// Every code, in the order of findings.
    pub const ALL: [Self; 14] = [
        Self::NotAllowed,
        Self::PublishedPastFirewall,
        Self::Ipv6Open,
        Self::DockerApiOpen,
        Self::EtcdOpen,
        Self::DatabaseOpen,
        Self::KubeletOpen,
        Self::DashboardOpen,
        Self::OpenByRoute,
        Self::NoFirewall,
        Self::NodePortEverywhere,
        Self::RequiredMissing,
        Self::RequiredHeldByOther,
        Self::RequiredUnreachable,
    ];

    /// The word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::PublishedPastFirewall => "published_past_firewall",
            Self::Ipv6Open => "ipv6_open",
            Self::DockerApiOpen => "docker_api_open",
            Self::EtcdOpen => "etcd_open",
            Self::DatabaseOpen => "database_open",
            Self::KubeletOpen => "kubelet_open",
            Self::DashboardOpen => "dashboard_open",
            Self::OpenByRoute => "open_by_route",
            Self::NoFirewall => "no_firewall",
            Self::NodePortEverywhere => "node_port_everywhere",
            Self::RequiredMissing => "required_missing",
            Self::RequiredHeldByOther => "required_held_by_other",
            Self::RequiredUnreachable => "required_unreachable",
        }
    }

    /// How bad it is.
    pub fn level(self) -> Level {
        match self {
            Self::NotAllowed
            | Self::PublishedPastFirewall
            | Self::Ipv6Open
            | Self::DockerApiOpen
            | Self::EtcdOpen
            | Self::DatabaseOpen
            | Self::RequiredMissing
            | Self::RequiredHeldByOther
            | Self::RequiredUnreachable => Level::Error,
            Self::KubeletOpen | Self::DashboardOpen | Self::OpenByRoute | Self::NoFirewall => {
                Level::Warning
            }
            Self::NodePortEverywhere => Level::Note,
        }
    }

    /// The kind of thing in a few words, for headings.
    pub fn title(self) -> &'static str {
        match self {
            Self::NotAllowed => "not allowed by the policy",
            Self::PublishedPastFirewall => "published past the firewall",
            Self::Ipv6Open => "open by IPv6 where IPv4 is closed",
            Self::DockerApiOpen => "Docker's API is open to other machines",
            Self::EtcdOpen => "etcd is open to other machines",
            Self::DatabaseOpen => "a database is open to other machines",
            Self::KubeletOpen => "a kubelet is open to other machines",
            Self::DashboardOpen => "a dashboard is open to other machines",
            Self::OpenByRoute => "reached by a route, though not published",
            Self::NoFirewall => "bound to all addresses behind no firewall",
            Self::NodePortEverywhere => "NodePort on every interface",
            Self::RequiredMissing => "required, and nothing holds it",
            Self::RequiredHeldByOther => "required, and something else holds it",
            Self::RequiredUnreachable => "required, and other machines do not get to it",
        }
    }
}

impl Level {
    /// The word of SARIF for it, which people read as well.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// What one profile asks for, and whether it is so.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileReport {
    /// Its name.
    pub name: String,
    /// Of what, in a few words.
    pub title: String,
    /// What showed that it is one for this node; `None` where somebody named it.
    pub found_by: Option<String>,
    /// What it asks for.
    pub checks: Vec<ProfileCheck>,
}

/// One port, or range of ports, that a profile asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileCheck {
    /// The ports.
    pub ports: PortRange,
    /// The protocol.
    pub proto: Proto,
    /// What for.
    pub role: String,
    /// Who has to get to it; `None` for nobody but the node itself.
    pub from: Option<Vantage>,
    /// Whether it has to be there.
    pub required: bool,
    /// Where it is asked for, behind the word "only"; `None` for everywhere.
    pub only: Option<String>,
    /// How it is.
    pub state: CheckState,
    /// The same in words. Untrusted where it quotes.
    pub why: String,
    /// Where it is written that it is asked for.
    pub source: String,
}

impl ProfileCheck {
    /// What for, and where: `kubelet API, only with the metrics server`.
    pub fn asked(&self) -> String {
        match &self.only {
            Some(only) => format!("{}, only {only}", self.role),
            None => self.role.clone(),
        }
    }
}

/// How it is with a port that a profile asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckState {
    /// As it should be.
    Met,
    /// Nothing holds it, and it is not required.
    Unused,
    /// Nothing holds it.
    Missing,
    /// Something else holds it.
    HeldByOther,
    /// It can't be reached.
    Unreachable,
    /// It can't be reached, and only clusters that the node does not show to be one need that.
    Closed,
    /// It is not known.
    Unknown,
}

impl CheckState {
    /// The word for programs and people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Unused => "unused",
            Self::Missing => "missing",
            Self::HeldByOther => "held_by_other",
            Self::Unreachable => "unreachable",
            Self::Closed => "closed",
            Self::Unknown => "unknown",
        }
    }
}

/// The name of a pod without what its Deployment, or the like, adds to it: a `*` stands for that.
pub(super) fn stable_pod_name(name: &str) -> String {
    let is_random = |part: &str, from: usize, to: usize| {
        (from..=to).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_digit() || b"bcdfghjklmnpqrstvwxz".contains(&b))
    };
    let Some((rest, last)) = name.rsplit_once('-') else { return name.to_owned() };
    if !is_random(last, 5, 5) {
        return name.to_owned();
    }
    match rest.rsplit_once('-') {
        // The hash of a ReplicaSet's template.
        Some((rest, hash)) if is_random(hash, 6, 10) => format!("{rest}-*"),
        _ => format!("{rest}-*"),
    }
}

/// An owner as a policy writes it: a pod without what changes when it is made anew.
pub fn stable_owner(owner: &OwnerName) -> String {
    let name = match owner.kind {
        OwnerKind::Pod => stable_pod_name(&owner.name),
        _ => owner.name.clone(),
    };
    format!("{}:{name}", owner.kind.as_str())
}

/// Whether a namespace is one that somebody named so, and not the node's or the tool's own.
pub fn is_given(netns: &NetnsRef) -> bool {
    matches!(netns.name, Some(NetnsName::Given(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_name_is_told_without_what_changes() {
        for (name, stable) in [
            ("shop/cart-7d9c5b8f6d-x2x5k", "shop/cart-*"),
            ("kube-system/cilium-x7k2p", "kube-system/cilium-*"),
            ("db/postgres-0", "db/postgres-0"),
            ("kube-system/etcd-node1", "kube-system/etcd-node1"),
            ("plain", "plain"),
        ] {
            assert_eq!(stable_pod_name(name), stable, "{name}");
        }
    }

    #[test]
    fn codes_are_different_words() {
        let words: BTreeSet<&str> = AuditCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), AuditCode::ALL.len());
    }
}
