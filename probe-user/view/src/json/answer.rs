//! Answers: questions, paths, hops, ends, reachability, gaps, sources.

use std::borrow::Cow;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::shell;
use whereis_port_model as model;

use super::{
    ByName, CauseCode, Certificate, Cluster, Component, ConditionCode, Connected, Container,
    Ending, EvidenceCode, FindingCode, FixKind, Flows, GapKind, Group, Held, HopKind, Impact,
    Package, Pod, Process, Proto, Repository, Service, Session, SocketState, SocketUnit, Vantage,
    Verdict,
};

/// The node, and the rights it was read with.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Host<'a> {
    /// Its host name.
    pub hostname: &'a str,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: &'a str,
    /// The network namespace that the tool ran in.
    pub own_netns: Netns<'a>,
    /// Whether the tool ran in the initial PID namespace. When not, owners of
    /// sockets may exist that it can't see.
    pub pid_namespace_is_initial: bool,
    /// The effective user id that the tool ran with.
    pub euid: u32,
}

impl<'a> From<&'a model::Host> for Host<'a> {
    fn from(host: &'a model::Host) -> Self {
        let is_host = host.host_netns.map(|netns| netns == host.own_netns);
        let name =
            if is_host == Some(true) { Some("host") } else { host.own_netns_name.as_deref() };
        Self {
            hostname: &host.hostname,
            kernel: &host.kernel,
            own_netns: Netns {
                inode: host.own_netns.inode(),
                name,
                is_host: is_host == Some(true),
            },
            pid_namespace_is_initial: host.init_pid_ns,
            euid: host.euid,
        }
    }
}

/// A network namespace.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Netns<'a> {
    /// Its inode number in nsfs, as in `net:[4026531833]`; null when not readable.
    pub inode: Option<u64>,
    /// `host` for the node's own, else the name of its pod, of the container that owns it,
    /// or of `ip netns`. Those may be `host` too: `is_host` tells.
    pub name: Option<&'a str>,
    /// Whether it is the node's own. False also where it can't be told which one that is.
    pub is_host: bool,
}

impl<'a> From<&'a model::NetnsRef> for Netns<'a> {
    fn from(netns: &'a model::NetnsRef) -> Self {
        let name = netns.name.as_ref();
        Self {
            inode: netns.id.inode(),
            name: name.map(model::NetnsName::as_str),
            is_host: name == Some(&model::NetnsName::Host),
        }
    }
}

/// The answer to one question.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Answer<'a> {
    /// The question.
    pub query: Query<'a>,
    /// Who connects, of a question with `--from`; null of others.
    pub sender: Option<Sender<'a>>,
    /// Whether something is behind the port; with `--from`, whether that sender gets through to it.
    pub verdict: Verdict,
    /// Every way from a port that was asked for to what serves it.
    pub paths: Vec<Path<'a>>,
    /// The same paths, those together that are alike: what no process serves first, then the
    /// largest.
    pub groups: Vec<Group<'a>>,
    /// How many ways more rules have for it, of which there are too many to show: they depend on
    /// who connects.
    pub more_paths: usize,
    /// From where it can be reached.
    pub reachable: Vec<Reach<'a>>,
    /// Where facts of this node and what a Kubernetes API says differ, and what else is worth
    /// saying of the port as a whole.
    pub findings: Vec<Finding<'a>>,
    /// How many connections listeners did not take, in each namespace with a TCP listener on these
    /// paths, since it was made.
    pub listen_drops: Vec<ListenDrops<'a>>,
    /// What has the port without listening on it, in namespaces where nothing listens there.
    pub held: Vec<Held<'a>>,
    /// How many kinds of holders more there are than those in `held`.
    pub more_held: usize,
    /// The connections that conntrack knows now; null when they were not read: of
    /// a range of ports they are read with `--flows` only.
    pub flows: Option<Flows<'a>>,
    /// What could not be read, and what that could hide.
    pub gaps: Vec<Gap<'a>>,
}

impl<'a> From<&'a model::Answer> for Answer<'a> {
    fn from(answer: &'a model::Answer) -> Self {
        Self {
            query: (&answer.query).into(),
            sender: answer.sender.as_ref().map(Into::into),
            verdict: answer.verdict.into(),
            paths: answer.paths.iter().map(Into::into).collect(),
            groups: model::PathGroup::of(&answer.paths).into_iter().map(Into::into).collect(),
            more_paths: answer.more,
            reachable: answer.reach.iter().map(Into::into).collect(),
            findings: answer.findings.iter().map(Into::into).collect(),
            listen_drops: answer.drops.iter().map(Into::into).collect(),
            held: answer.held.iter().map(Into::into).collect(),
            more_held: answer.more_held,
            flows: answer.flows.as_ref().map(Into::into),
            gaps: answer.gaps.iter().map(Into::into).collect(),
        }
    }
}

/// The sender of a question with `--from`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Sender<'a> {
    /// Who it is, for people.
    pub name: &'a str,
    /// The network namespace of who connects; null for another machine.
    pub netns: Option<Netns<'a>>,
    /// The process that is taken to connect; null where none is meant.
    pub pid: Option<u32>,
    /// The device of the tool's namespace that the connections come in by; null for a process.
    pub device: Option<&'a str>,
    /// The address, where one was given.
    pub address: Option<IpAddr>,
}

impl<'a> From<&'a model::AskedSender> for Sender<'a> {
    fn from(sender: &'a model::AskedSender) -> Self {
        Self {
            name: &sender.name,
            netns: sender.netns.as_ref().map(Into::into),
            pid: sender.process,
            device: sender.device.as_deref(),
            address: sender.address,
        }
    }
}

/// Something that was noticed: a Service that the API has and this node's rules don't.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Finding<'a> {
    /// What kind of thing.
    pub code: FindingCode,
    /// What, in one sentence.
    pub what: &'a str,
    /// The likely cause.
    pub cause: Option<&'a str>,
    /// What would mend it, or what to look at.
    pub fix: Option<Advice<'a>>,
    /// How it is known.
    pub evidence: Vec<Evidence<'a>>,
}

impl<'a> From<&'a model::Finding> for Finding<'a> {
    fn from(finding: &'a model::Finding) -> Self {
        Self {
            code: finding.code.into(),
            what: &finding.what,
            cause: finding.cause.as_deref(),
            fix: finding.fix.as_ref().map(Into::into),
            evidence: finding.evidence.iter().map(Into::into).collect(),
        }
    }
}

/// How many connections the listeners of a namespace did not take since it was made.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ListenDrops<'a> {
    /// The namespace.
    pub netns: Netns<'a>,
    /// Because a listener's queue was full; null when not known.
    pub overflows: Option<u64>,
    /// For any reason, the former included; null when not known.
    pub drops: Option<u64>,
}

impl<'a> From<&'a model::ListenDrops> for ListenDrops<'a> {
    fn from(drops: &'a model::ListenDrops) -> Self {
        Self { netns: (&drops.netns).into(), overflows: drops.overflows, drops: drops.drops }
    }
}

/// A question.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Query<'a> {
    /// As it was typed.
    pub text: &'a str,
    /// The lowest port asked for.
    pub first_port: u16,
    /// The highest port asked for; the same as the lowest for a single port.
    pub last_port: u16,
    /// The protocol; null for all.
    pub proto: Option<Proto>,
    /// The address; null for all.
    pub address: Option<IpAddr>,
    /// The interface that stood behind it: `eth0` of `fe80::1%eth0`.
    pub zone: Option<&'a str>,
    /// The name that was asked for in place of the address.
    pub name: Option<Named<'a>>,
    /// What the port has to lead to, of a question for all ports of something:
    /// `container web`; null otherwise.
    pub subject: Option<String>,
}

impl<'a> From<&'a model::Query> for Query<'a> {
    fn from(query: &'a model::Query) -> Self {
        Self {
            text: &query.text,
            first_port: query.ports.first.0,
            last_port: query.ports.last.0,
            proto: query.proto.map(Into::into),
            address: match query.scope {
                model::Scope::Everywhere => None,
                model::Scope::Address(address) => Some(address),
            },
            zone: query.zone.as_deref(),
            name: query.name.as_ref().map(Into::into),
            subject: query.subject.as_ref().map(ToString::to_string),
        }
    }
}

/// A name of a host, and which of its addresses an answer is about.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Named<'a> {
    /// The name.
    pub name: &'a str,
    /// Which of its addresses this is, from 1: an answer for each follows the one before.
    pub number: usize,
    /// How many addresses it has.
    pub addresses: usize,
    /// Whether they are tried in this order; false where that is not known.
    pub in_order: bool,
    /// Where it says so: `/etc/hosts`.
    pub source: &'a str,
}

impl<'a> From<&'a model::ResolvedName> for Named<'a> {
    fn from(named: &'a model::ResolvedName) -> Self {
        Self {
            name: &named.name,
            number: named.at + 1,
            addresses: named.of,
            in_order: named.ordered,
            source: &named.source,
        }
    }
}

/// One way from a port to its end.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Path<'a> {
    /// The namespace of the first hop.
    pub netns: Netns<'a>,
    /// The steps, in the packet's order.
    pub hops: Vec<Hop<'a>>,
    /// What is at the end.
    pub end: End<'a>,
    /// What has to be so for connections to go this way, where rules ask what is not known;
    /// empty where nothing has to.
    pub conditions: Vec<Condition<'a>>,
    /// From where connections go this way, seen from the namespace that the tool
    /// ran in; empty when that is not known, or from nowhere.
    pub from: Vec<Vantage>,
    /// The kubeconfig contexts whose server this is.
    pub contexts: Vec<Context<'a>>,
}

/// A context of a kubeconfig file.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Context<'a> {
    /// Its name.
    pub name: &'a str,
    /// The cluster's name in the file.
    pub cluster: &'a str,
    /// The server, as written.
    pub server: &'a str,
    /// The file.
    pub file: &'a str,
}

impl<'a> From<&'a model::KubeContext> for Context<'a> {
    fn from(context: &'a model::KubeContext) -> Self {
        Self {
            name: &context.name,
            cluster: &context.cluster,
            server: &context.server,
            file: &context.file,
        }
    }
}

impl<'a> From<&'a model::Path> for Path<'a> {
    fn from(path: &'a model::Path) -> Self {
        let first = path.hops.first().and_then(|hop| hop.netns.as_ref());
        Self {
            netns: first.map(Into::into).unwrap_or_default(),
            hops: path.hops.iter().map(Into::into).collect(),
            end: (&path.end).into(),
            conditions: path.conditions.iter().map(Into::into).collect(),
            from: path.from.iter().map(|from| (*from).into()).collect(),
            contexts: path.contexts.iter().map(Into::into).collect(),
        }
    }
}

/// One step of a path.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Hop<'a> {
    /// What kind of step.
    pub kind: HopKind,
    /// The namespace in which it happens; null when not on this node or not known.
    pub netns: Option<Netns<'a>>,
    /// The address that the packet is sent to at this step, a wildcard for a
    /// listener bound to all; null when the target has only a name.
    pub address: Option<IpAddr>,
    /// A name of the target that was not looked up: a host's name,
    /// `svc/hubble-ui`, a socket's path.
    pub name: Option<&'a str>,
    /// The port.
    pub port: Option<u16>,
    /// The protocol.
    pub proto: Proto,
    /// What does it, in one line for people.
    pub detail: &'a str,
    /// How many connections of all that come to the step before take this one, from 0 to 1;
    /// null where all do, or where it is no choice.
    pub probability: Option<f64>,
    /// The socket, for a listener.
    pub socket: Option<Socket>,
    /// How this step is known.
    pub evidence: Vec<Evidence<'a>>,
}

impl<'a> From<&'a model::Hop> for Hop<'a> {
    fn from(hop: &'a model::Hop) -> Self {
        Self {
            kind: hop.kind.into(),
            netns: hop.netns.as_ref().map(Into::into),
            address: hop.endpoint.address,
            name: hop.endpoint.name.as_deref(),
            port: hop.endpoint.port.map(|p| p.0),
            proto: hop.proto.into(),
            detail: &hop.detail,
            probability: hop.share,
            socket: hop.socket.as_ref().map(Into::into),
            evidence: hop.evidence.iter().map(Into::into).collect(),
        }
    }
}

/// A socket.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Socket {
    /// Its inode number in sockfs.
    pub inode: u64,
    /// The user id of who made it.
    pub uid: u32,
    /// `IPV6_V6ONLY`; null for IPv4, and where it is not readable.
    pub v6only: Option<bool>,
    /// The index of the interface it is bound to (`SO_BINDTODEVICE`).
    pub bound_device_index: Option<u32>,
    /// The cgroup v2 id of the process that made it.
    pub cgroup_id: Option<u64>,
    /// Its state.
    pub state: SocketState,
    /// How many connections wait to be accepted, of TCP that listens; null where not read.
    pub accept_queue: Option<u32>,
    /// How many the listener allows to wait: one more is taken, and then they are dropped.
    pub accept_queue_limit: Option<u32>,
    /// How many connections this listener has dropped since it listens; null where not told.
    pub accept_drops: Option<u32>,
}

impl From<&model::Socket> for Socket {
    fn from(socket: &model::Socket) -> Self {
        Self {
            inode: socket.inode,
            uid: socket.uid,
            v6only: socket.v6only,
            bound_device_index: socket.ifindex,
            cgroup_id: socket.cgroup_id,
            state: socket.state.into(),
            accept_queue: socket.queue.map(|queue| queue.waiting),
            accept_queue_limit: socket.queue.map(|queue| queue.limit),
            accept_drops: socket.queue.and_then(|queue| queue.drops),
        }
    }
}

/// How one statement is known.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Evidence<'a> {
    /// The kind of source: `socket table`, `command line`, `Docker API`.
    pub source: &'a str,
    /// The same as a word that stays.
    pub code: EvidenceCode,
    /// What exactly was seen there.
    pub detail: &'a str,
}

impl<'a> From<&'a model::Evidence> for Evidence<'a> {
    fn from(evidence: &'a model::Evidence) -> Self {
        Self {
            source: evidence.source.as_str(),
            code: (&evidence.source).into(),
            detail: &evidence.detail,
        }
    }
}

/// What is at the end of a path.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct End<'a> {
    /// What kind of end.
    pub ending: Ending,
    /// Why it ends so, when it is not simply a process.
    pub why: Option<&'a str>,
    /// What stops what is sent there, as a word that stays; null where nothing does.
    pub code: Option<CauseCode>,
    /// The process that likely accepts: the first of `processes`.
    pub process: Option<Process<'a>>,
    /// All processes that hold the listener.
    pub processes: Vec<Process<'a>>,
    /// The innermost container: the last of `containers`.
    pub container: Option<Container<'a>>,
    /// The containers it is in, outermost first.
    pub containers: Vec<Container<'a>>,
    /// The pod.
    pub pod: Option<Pod<'a>>,
    /// The Kubernetes service.
    pub service: Option<Service<'a>>,
    /// The cluster.
    pub cluster: Option<Cluster<'a>>,
    /// Which part of Kubernetes, or of what runs around it, this is.
    pub component: Option<Component<'a>>,
    /// What it leads to by the names that clients ask for; null for what is no controller of
    /// Ingress or Gateway.
    pub by_name: Option<ByName<'a>>,
    /// The certificate that it shows; null when it was not asked for (`--tls`), or there is
    /// none.
    pub certificate: Option<Certificate<'a>>,
    /// The systemd unit or scope.
    pub unit: Option<&'a str>,
    /// The socket units of systemd that the listener can be of, by their files: several where
    /// that is not to be told.
    pub socket_units: Vec<SocketUnit<'a>>,
    /// The package that has the executable of `process`; null where no package manager has.
    pub package: Option<Package<'a>>,
    /// The git repository that the working directory of `process` is in.
    pub repository: Option<Repository<'a>>,
    /// The login or job that `process` was started from.
    pub session: Option<Session<'a>>,
    /// How the container, pod and cluster are known.
    pub evidence: Vec<Evidence<'a>>,
}

impl<'a> From<&'a model::End> for End<'a> {
    fn from(end: &'a model::End) -> Self {
        Self {
            ending: end.ending.into(),
            why: end.why.as_deref(),
            code: end.stop.map(|stop| model::CauseCode::from(stop).into()),
            process: end.processes.first().map(Into::into),
            processes: end.processes.iter().map(Into::into).collect(),
            container: end.containers.last().map(Into::into),
            containers: end.containers.iter().map(Into::into).collect(),
            pod: end.pod.as_ref().map(Into::into),
            service: end.service.as_ref().map(Into::into),
            cluster: end.cluster.as_ref().map(Into::into),
            component: end.component.as_ref().map(Into::into),
            by_name: end.by_name.as_ref().map(Into::into),
            certificate: end.certificate.as_ref().map(Into::into),
            unit: end.unit.as_deref(),
            socket_units: end.socket_units.iter().map(Into::into).collect(),
            package: end.provenance.as_ref().and_then(|o| o.package.as_ref()).map(Into::into),
            repository: end.provenance.as_ref().and_then(|o| o.repository.as_ref()).map(Into::into),
            session: end.session.as_ref().map(Into::into),
            evidence: end.evidence.iter().map(Into::into).collect(),
        }
    }
}

/// From where a port can be reached, and why, or why not.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Reach<'a> {
    /// The network namespace whose port it is said of: the tool's own first; null where it is
    /// said of several.
    pub netns: Option<Netns<'a>>,
    /// From where.
    pub from: Vantage,
    /// Which of those there, by their devices or network namespaces, where not all get the
    /// same; empty for all.
    pub by: &'a [String],
    /// What to connect to from there, `address:port`.
    pub address: Option<String>,
    /// Whether it can be reached; null when that can't be told.
    pub reachable: Option<bool>,
    /// Why, or why not.
    pub why: String,
    /// The cause, as a word that stays.
    pub code: CauseCode,
    /// What it depends on, where rules ask what is not known.
    pub conditions: Vec<Condition<'a>>,
    /// What would make it reachable.
    pub fix: Option<Advice<'a>>,
    /// What became of a connection that was really made, with `--try`; null where none was.
    pub tried: Option<Connected>,
}

impl<'a> From<&'a model::Reach> for Reach<'a> {
    fn from(reach: &'a model::Reach) -> Self {
        Self {
            netns: reach.netns.as_ref().map(Into::into),
            from: reach.from.into(),
            by: &reach.by,
            address: reach.address.map(|address| address.to_string()),
            reachable: reach.reachable,
            why: reach.why.to_string(),
            code: reach.why.cause.code().into(),
            conditions: reach.conditions.iter().map(Into::into).collect(),
            fix: reach.fix.as_ref().map(Into::into),
            tried: reach.tried.map(Into::into),
        }
    }
}

/// What an outcome depends on.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Condition<'a> {
    /// What it is about.
    pub code: ConditionCode,
    /// In words that go on after "if".
    pub text: &'a str,
}

impl<'a> From<&'a model::Condition> for Condition<'a> {
    fn from(condition: &'a model::Condition) -> Self {
        Self { code: condition.code.into(), text: &condition.text }
    }
}

/// What would help.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Advice<'a> {
    /// What kind of proposal: where there are several, the first one's.
    pub kind: FixKind,
    /// In words, with commands as a POSIX shell takes them.
    pub text: String,
    /// The first command among them, a program and its arguments; null where there is none.
    pub command: Option<&'a [String]>,
    /// All commands among them, each a program and its arguments. What is written in
    /// capitals is for who runs it to fill in.
    pub commands: Vec<&'a [String]>,
}

impl<'a> From<&'a model::Advice> for Advice<'a> {
    fn from(advice: &'a model::Advice) -> Self {
        Self {
            kind: advice.kind().into(),
            text: shell::text(advice),
            command: advice.commands().next().map(model::Command::words),
            commands: advice.commands().map(model::Command::words).collect(),
        }
    }
}

pub(super) fn remedy<'a>(
    words: Option<&'a str>,
    command: Option<&model::Command>,
) -> Option<Cow<'a, str>> {
    words.map(|words| match command {
        Some(command) => Cow::Owned(shell::remedy(words, command)),
        None => Cow::Borrowed(words),
    })
}

/// A fact that could not be read.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Gap<'a> {
    /// What was being read.
    pub source: String,
    /// What kind of source that is.
    pub code: GapKind,
    /// Why it was not read.
    pub reason: &'a str,
    /// What would give it; null when nothing would. It ends with `remedy_command`.
    pub remedy: Option<Cow<'a, str>>,
    /// The command in it, where there are names in it: a program and its arguments.
    pub remedy_command: Option<&'a [String]>,
    /// What it could hide.
    pub impact: Impact,
}

impl<'a> From<&'a model::Gap> for Gap<'a> {
    fn from(gap: &'a model::Gap) -> Self {
        Self {
            source: gap.source.to_string(),
            code: gap.source.kind.into(),
            reason: &gap.reason,
            remedy: remedy(gap.remedy.as_deref(), gap.command.as_ref()),
            remedy_command: gap.command.as_ref().map(model::Command::words),
            impact: gap.impact.into(),
        }
    }
}

/// What was asked of one source.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Source<'a> {
    /// The source.
    pub name: &'a str,
    /// Whether everything asked of it could be read.
    pub ok: bool,
    /// Why not.
    pub reason: Option<&'a str>,
    /// What would give it. It ends with `remedy_command`.
    pub remedy: Option<Cow<'a, str>>,
    /// The command in it, where there are names in it: a program and its arguments.
    pub remedy_command: Option<&'a [String]>,
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// What was read.
    pub detail: &'a str,
}

impl<'a> From<&'a model::SourceReport> for Source<'a> {
    fn from(source: &'a model::SourceReport) -> Self {
        Self {
            name: &source.name,
            ok: source.ok,
            reason: source.reason.as_deref(),
            remedy: remedy(source.remedy.as_deref(), source.command.as_ref()),
            remedy_command: source.command.as_ref().map(model::Command::words),
            ms: source.ms,
            detail: &source.detail,
        }
    }
}
