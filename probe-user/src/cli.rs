//! The command line: flags as typed, and questions as understood.

mod audit;
mod bind;
mod complete;
mod diff;
mod fleet;
mod history;
mod sender;
mod trace;
mod tui;
mod wait;

use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::model::{SenderName, Subject};
use crate::view::ColorChoice;

pub use audit::{AuditArgs, AuditOutput, AuditSender};
pub use bind::{BindArgs, Reuse};
pub use complete::{ASKED, CompletionKind, CompletionRequest, wanted};
pub use diff::DiffArgs;
pub use fleet::{CalledAs, FleetArgs, FleetCommand, called_as, complete, parse_plugin};
pub use history::{HistoryArgs, MetricsAt, RecordEventsArgs, time};
pub use sender::parse_sender;
pub use trace::TraceArgs;
pub use tui::{ConfigCommand, TuiArgs};
pub use wait::{FreeArgs, Until, WaitArgs};
pub use whereis_port_model::target::{BadTarget, HostNames, parse_target, unix_target};

const EXAMPLES: &str = "\
Examples:
  whereis-port 30518                 who is behind port 30518, TCP and UDP, anywhere on this node,
                                     also when only packet rules take it (NodePort, hostPort, -p)
  whereis-port 53/udp 443/tcp        two questions, each about one protocol
  whereis-port 127.0.0.1:8080        what a connection to this address and port reaches
  whereis-port '[::1]:8080/tcp'      the same for IPv6, in brackets
  whereis-port 8000-8010             a range
  whereis-port https                 a name of /etc/services
  whereis-port http://localhost:3000/ a URL; a name of /etc/hosts at each of its addresses
  whereis-port /run/docker.sock      who listens on a UNIX socket; @NAME for an abstract one
  whereis-port --json 6443 | jq -r '.answers[].paths[].end.process.name'
  whereis-port 8080 --watch 5s       also where a proxy on it leads, learnt from its traffic
  whereis-port 8080 --flows          also every connection on it, and who serves each
  whereis-port 5432 --from pod:shop/cart  does that pod reach it, and if not, what stops it
  whereis-port 6443 --tls            also the certificate that is served there
  whereis-port -q 8080/tcp 6443/tcp  one line each, for scripts
  whereis-port 30518 -o svg > way.svg   a picture of who gets where
  whereis-port list -t --container web
  whereis-port trace 8080            listeners on port 8080 as they come and go
  whereis-port bind 8080             could a server have this port, and if not, why
  whereis-port wait 8080             until something listens on it
  whereis-port free -n 2             ports that nothing has or wants
  whereis-port audit                 what others can reach here, and what of it is odd
  whereis-port diff before.json      what is different now
  whereis-port cluster 30518         the same question to every node of a Kubernetes cluster
  whereis-port --record node.json list    everything, to answer from elsewhere
  whereis-port --replay node.json 30518

Exit status:
  0  found                 1  surely nothing there
  2  bad usage or input    3  not found, but something could not be read (it is said what)
  4  the tool itself failed
  5  with --try: a connection that was really made shows that the answer is wrong
  With --from: 0 the sender gets through, 1 it does not, 3 it is not known.
  (doctor: 0 all sources readable, 3 some are not; trace: 0 at least one event)

What an answer says of rules: `if` and `depends on` name what a rule asks that can't be
known before somebody connects, such as the client's address. `not known` names what
could not be read, or is not followed.

Without root, listeners of other users are listed without their owner, and packet
rules (CAP_NET_ADMIN) are not read. See `whereis-port doctor` for what can be read
here and what would give the rest.";

const LIST_HELP: &str = "\
A port that no socket holds, but packet rules or a load balancer take, has a row, too.
Its process is the name of what made the rules, in parentheses: (kube-proxy, iptables).
Published ports, and ports of a Service, are one row with all their addresses; JSON and CSV
have each.

Columns, for -O, -s and -w:
  port proto address kind reach process pid pids user uid cmdline unit service pod container
  container_id image cluster component files netns netns_inode target targets target_count
  taken_by queue accept_queue accept_queue_limit health inode state v6only ending why
  kind is listener, kernel, forward, published, NodePort, hostPort, externalIP, LoadBalancer,
  service or rules. reach is loopback, node, route, network, none or unknown: each port is asked for
  as a question would, and so only where it is shown, sorted by or filtered for.

A row of JSON has names and ids of its process, container, pod and cluster. What else is
known of these is said once, in tables: ref is the place there. With --ndjson each line is
an object with a type: list, then process, container, pod and list_cluster before the first
listener that refers to them, and list_end with the gaps.

Examples:
  whereis-port list -t --container web         TCP listeners of containers called like web
  whereis-port list --netns host -s process    the host's own namespace, by process
  whereis-port list -O +reach -s reach:desc    how far away each port can be reached from
  whereis-port list -w reach=network -w 'process!~sshd'   what other machines reach, but sshd
  whereis-port list -w kind=NodePort -s service,port
  whereis-port list -o csv > ports.csv         every column, for a spreadsheet
  whereis-port list --template '{{ port }}/{{ proto }} {{ process }}{% if pod %} in {{ pod }}{% endif %}'
  whereis-port list -o openmetrics > ports.prom   for Prometheus' textfile collector
  whereis-port list -o mermaid                 which port leads where
  whereis-port list --ndjson | jq -r 'select(.port > 30000).process.name'
  whereis-port list --save before.json         keep what there is, for whereis-port diff

Exit status:
  0  at least one row
  1  none that fits, and everything that could hold one was readable
  2  bad usage, for example a namespace that there is none of
  3  none that fits, but something could not be read
  4  the tool itself failed";

const PIN_HELP: &str = "\
The programs stay in the kernel until `whereis-port unpin` or the next boot. They
run only while somebody reads them. Pins are in /sys/fs/bpf/whereis-port, or, where
that is not mounted or the group may not enter it, in a bpffs of their own at
/run/whereis-port/bpf.

What --group reveals to the group's members: every inet socket of every network
namespace of this machine with its addresses, and the id, name, start time and
namespaces of every process, whatever /proc hides from them.

Exit status:
  0  done
  2  there is no such group
  4  the kernel or the file system refused; it is said why";

/// Who is behind a port, and how does traffic get there?
///
/// Looks through every network namespace of this node for listeners, and for packet
/// rules that take the port without one. Follows rules, routes and forwarders such as
/// docker-proxy from namespace to namespace, names the processes, containers and
/// clusters at the end, and says from where the port can be reached, and if not, why.
#[derive(Debug, Parser)]
#[command(name = "whereis-port", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What is asked for.
    #[arg(
        value_name = "TARGET",
        allow_negative_numbers = true,
        help = "PORT, PORT/PROTO, ADDR:PORT[/PROTO], [V6]:PORT, HOST:PORT, FIRST-LAST, A,B, a URL, or a service name"
    )]
    pub targets: Vec<String>,

    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,

    /// Every port that leads to something, in place of a target.
    #[command(flatten)]
    pub subject: SubjectArgs,

    /// Watch for this long (500ms, 5s, 2m) where connections lead, then answer: tells it of
    /// proxies whose command line doesn't; needs eBPF, and traffic meanwhile
    #[arg(long, value_name = "TIME", value_parser = trace::positive, conflicts_with = "replay")]
    pub watch: Option<Duration>,

    /// List the connections that are open on the port now, in all namespaces, with who serves
    /// each; without it they are counted only, and only for a single port
    #[arg(long)]
    pub flows: bool,

    /// Only the clients of the port who send and get most, so many of them (10 when no number is
    /// given), by process, pod and address, in place of each connection
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "10"
    )]
    pub top: Option<usize>,

    /// Ask for one sender alone: does it get through, by which way, and if not, which rule or
    /// route stops it. pod:NAMESPACE/NAME, container:NAME, pid:N, netns:NAME, an ADDRESS (here or
    /// elsewhere, by the device that the route to it uses), or a DEVICE that connections come in by
    #[arg(long, value_name = "SENDER", value_parser = parse_sender)]
    pub from: Option<SenderName>,

    /// Only what begins in this network namespace, by name or inode number
    #[arg(long, value_name = "NETNS", conflicts_with = "from")]
    pub netns: Option<String>,

    /// Show every network namespace that has the port whole, not only this one
    #[arg(long)]
    pub all: bool,

    /// Really connect from every sender of this node that the answer tells of (TCP, a second at
    /// most, nothing is sent), and show it beside what was concluded; exit status 5 if they differ
    #[arg(long = "try", conflicts_with = "replay")]
    pub attempt: bool,

    /// Begin TLS with each listener at the end of a path, and show its certificate: for whom,
    /// by whom, until when; nothing is sent beyond the handshake
    #[arg(long)]
    pub tls: bool,

    /// Print one line for each port and protocol, for scripts: TARGET PROCESS PID SERVICE.NS POD.NS
    /// CONTAINER NETNS REACH VERDICT MORE, one blank between them, - for none or not known
    #[arg(short, long, conflicts_with_all = ["json", "plain", "output"])]
    pub quiet: bool,

    /// The form of the answer; text when nothing is said
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<AnswerOutput>,

    /// The command, when it is not a question.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The question the other way round: which ports lead there?
#[derive(Debug, Args, Default)]
#[group(id = "subject", multiple = false)]
pub struct SubjectArgs {
    /// Every port that leads to a Kubernetes service
    #[arg(
        long,
        value_name = "[NAMESPACE/]NAME",
        help_heading = "Ask for all ports of something",
        conflicts_with = "targets"
    )]
    pub service: Option<String>,
    /// Every port that leads to a pod
    #[arg(
        long,
        value_name = "[NAMESPACE/]NAME",
        help_heading = "Ask for all ports of something",
        conflicts_with = "targets"
    )]
    pub pod: Option<String>,
    /// Every port that leads to a container, by its name or the beginning of its id
    #[arg(
        long,
        value_name = "NAME",
        help_heading = "Ask for all ports of something",
        conflicts_with = "targets"
    )]
    pub container: Option<String>,
    /// Every port that leads to a process
    #[arg(
        long,
        value_name = "PID",
        help_heading = "Ask for all ports of something",
        conflicts_with = "targets"
    )]
    pub pid: Option<u32>,
    /// Every port that leads to a process or container with this name
    #[arg(
        long,
        value_name = "NAME",
        help_heading = "Ask for all ports of something",
        conflicts_with = "targets"
    )]
    pub name: Option<String>,
    /// Every port of a cluster's nodes and pods on this machine
    #[arg(
        long,
        value_name = "NAME",
        help_heading = "Ask for all ports of something",
        conflicts_with = "targets"
    )]
    pub cluster: Option<String>,
}

impl SubjectArgs {
    /// Whether anything was asked for.
    pub fn is_given(&self) -> bool {
        let names = [&self.service, &self.pod, &self.container, &self.cluster, &self.name];
        names.iter().any(|name| name.is_some()) || self.pid.is_some()
    }

    /// What was asked for, if anything.
    ///
    /// # Errors
    /// A name that none can have, with what is wrong with it.
    pub fn subject(&self) -> Result<Option<Subject>, String> {
        let plain = |option: &str, name: &String| {
            let name = name.trim();
            if name.is_empty() {
                Err(format!("{option} needs a name"))
            } else {
                Ok(name.to_owned())
            }
        };
        let object = |option: &str, text: &String| {
            let text = plain(option, text)?;
            let wrong = || format!("{option} {text:?} is no name: write NAMESPACE/NAME or NAME");
            match text.split_once('/') {
                Some((namespace, name))
                    if namespace.is_empty() || name.is_empty() || name.contains('/') =>
                {
                    Err(wrong())
                }
                Some((namespace, name)) => Ok((Some(namespace.to_owned()), name.to_owned())),
                None => Ok((None, text)),
            }
        };
        let subject = if let Some(text) = &self.service {
            let (namespace, name) = object("--service", text)?;
            Subject::Service(namespace, name)
        } else if let Some(text) = &self.pod {
            let (namespace, name) = object("--pod", text)?;
            Subject::Pod(namespace, name)
        } else if let Some(text) = &self.container {
            Subject::Container(plain("--container", text)?)
        } else if let Some(pid) = self.pid {
            Subject::Process(pid)
        } else if let Some(text) = &self.cluster {
            Subject::Cluster(plain("--cluster", text)?)
        } else if let Some(text) = &self.name {
            Subject::Name(plain("--name", text)?)
        } else {
            return Ok(None);
        };
        Ok(Some(subject))
    }
}

/// Options that every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Print JSON (see `whereis-port schema`)
    #[arg(long, global = true)]
    pub json: bool,

    /// When to use colour; NO_COLOR and a TERM of "dumb" mean never
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,

    /// Print text for logs and screen readers: no colour, no tables, nothing drawn or cut, one
    /// statement a line
    #[arg(long, global = true, conflicts_with = "json")]
    pub plain: bool,

    /// Show what was read, how long each source took, and all evidence; -vv also what the tool
    /// and its eBPF programs log, on standard error
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Ask the Kubernetes APIs of this kubeconfig only; else those of KUBECONFIG, ~/.kube/config
    /// and the files that distributions keep on their nodes
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Kubernetes",
        conflicts_with = "no_kube"
    )]
    pub kubeconfig: Option<PathBuf>,

    /// Ask this context's API only, also when it has no node here
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        help_heading = "Kubernetes",
        conflicts_with = "no_kube"
    )]
    pub context: Option<String>,

    /// As root, too, run the program that a kubeconfig takes its credentials from: only of a
    /// kubeconfig, and only a program, that nobody but root could have written
    #[arg(long, global = true, help_heading = "Kubernetes", conflicts_with = "no_kube")]
    pub kube_exec: bool,

    /// Ask no Kubernetes API: pods and services are named as far as the node itself tells
    #[arg(long, global = true, help_heading = "Kubernetes")]
    pub no_kube: bool,

    /// How long optional reading may take in all (500ms, 5s, 1m): names from container runtimes and
    /// APIs, rules of other network namespaces; what is left out then is said; 2s if not given.
    /// With `cluster`, how long one node may take; 10s if not given. With `wait`, how long to
    /// wait; 30s if not given
    #[arg(long, global = true, value_name = "TIME", value_parser = trace::positive)]
    pub timeout: Option<Duration>,

    /// Write what this run read to FILE (mode 0600: command lines can hold secrets)
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "replay")]
    pub record: Option<PathBuf>,

    /// Replace names, addresses and arguments in the recording
    #[arg(long, global = true, requires = "record")]
    pub redact: bool,

    /// Answer from a recording instead of this node; needs no rights
    #[arg(long, global = true, value_name = "FILE")]
    pub replay: Option<PathBuf>,
}

/// The commands that are not a question.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List every listener of every network namespace, and ports that only packet rules take
    #[command(after_help = LIST_HELP)]
    List(ListArgs),
    /// Show every port on the screen, live; the same as no command on a terminal
    #[command(after_help = tui::HELP)]
    Tui(TuiArgs),
    /// Watch listeners come and go, with who did it, as it happens
    #[command(after_help = trace::HELP)]
    Trace(TraceArgs),
    /// Say what others can reach on this node, and what of it is not as it should be
    #[command(after_help = audit::HELP)]
    Audit(AuditArgs),
    /// Say what is different between two recordings or baselines, or one and now
    #[command(after_help = diff::HELP)]
    Diff(DiffArgs),
    /// Keep who listens, and what comes and goes, for `history`; and give metrics
    #[command(after_help = history::RECORD_HELP)]
    RecordEvents(RecordEventsArgs),
    /// Say who had a port in the past, and for how long, from what `record-events` kept
    #[command(after_help = history::HISTORY_HELP)]
    History(HistoryArgs),
    /// Say whether a server could be bound to a port, and if not, what is in its way
    #[command(after_help = bind::HELP)]
    Bind(BindArgs),
    /// Wait until a port is served, free or reachable
    #[command(after_help = wait::WAIT_HELP)]
    Wait(WaitArgs),
    /// Find ports that a server could have, and that nothing else is known to want
    #[command(after_help = wait::FREE_HELP)]
    Free(FreeArgs),
    /// Ask every node of a Kubernetes cluster, through agents
    #[command(after_help = fleet::HELP)]
    Cluster(FleetArgs),
    /// Wait to be asked by `cluster`: what an agent's pod runs
    #[command(hide = true)]
    Agent,
    /// Say what can be read here, what can't, and what would give it
    Doctor,
    /// Explain a code of the JSON: what it means, how it is concluded, how to check it by hand
    Explain {
        /// The code, such as `not_published`; without one every code is listed
        code: Option<String>,
    },
    /// Pin the socket iterator, so that later questions cost one read (root)
    #[command(after_help = PIN_HELP)]
    Pin {
        /// Let members of this group read it: they get all owners without root
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
    },
    /// Remove what `pin` left, of any version (root)
    Unpin,
    /// Check the configuration of the screen, or print one to begin with
    Config {
        /// What to do
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff)
    Man,
    /// Print the JSON schema of the output
    Schema,
}

/// What to list, and how.
#[derive(Debug, Args, Default)]
pub struct ListArgs {
    /// TCP; with -u both, as without either
    #[arg(short, long, help_heading = "Filters")]
    pub tcp: bool,
    /// UDP
    #[arg(short, long, help_heading = "Filters")]
    pub udp: bool,
    /// IPv4; with -6 both
    #[arg(short = '4', long, help_heading = "Filters")]
    pub ipv4: bool,
    /// IPv6 (dual-stack sockets included)
    #[arg(short = '6', long, help_heading = "Filters")]
    pub ipv6: bool,
    /// UNIX sockets that take connections or messages, in place of ports
    #[arg(
        short = 'x',
        long,
        help_heading = "Filters",
        conflicts_with_all = ["tcp", "udp", "ipv4", "ipv6", "netns", "pid", "container", "process", "only", "sort", "columns", "ndjson"]
    )]
    pub unix: bool,
    /// The same, and raw and packet sockets: they see what is sent to any port
    #[arg(
        long,
        help_heading = "Filters",
        conflicts_with_all = ["tcp", "udp", "ipv4", "ipv6", "netns", "pid", "container", "process", "only", "sort", "columns", "ndjson"]
    )]
    pub all_sockets: bool,
    /// Only this network namespace, by name or inode number
    #[arg(long, value_name = "NETNS", help_heading = "Filters")]
    pub netns: Option<String>,
    /// Only sockets that this process holds
    #[arg(long, value_name = "PID", help_heading = "Filters")]
    pub pid: Option<u32>,
    /// Only containers whose name contains this, or whose id begins with it
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    pub container: Option<String>,
    /// Only processes whose name contains this
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    pub process: Option<String>,
    /// Only rows that have this in a column: kind=NodePort, reach=network; ~ in place of = for what
    /// contains it, != and !~ for what does not; `COL=` for none
    #[arg(short = 'w', long = "where", value_name = "COL=TEXT", help_heading = "Filters")]
    pub only: Vec<crate::view::list::ColumnFilter>,
    /// Sort by a column; `:desc` reverses; several with commas between them: service,port
    #[arg(short, long, value_name = "COL[:desc],...", help_heading = "Output")]
    pub sort: Option<crate::view::list::Order>,
    /// These columns, in this order: port,service,reach. Of a table, Markdown and CSV
    #[arg(short = 'O', long, value_name = "COL,...", help_heading = "Output")]
    pub columns: Option<crate::view::list::SelectedColumns>,
    /// The form of the output; a table when nothing is said
    #[arg(short, long, value_name = "FORM", help_heading = "Output")]
    pub output: Option<ListOutput>,
    /// Print JSON, one object on each line: the same as `-o ndjson`
    #[arg(long, help_heading = "Output")]
    pub ndjson: bool,
    /// Print this for each row: text with {{ port }} or any other column in it, and {{ row }} for
    /// what JSON has of it (Jinja); @FILE reads it from a file
    #[arg(
        long,
        value_name = "TEMPLATE",
        help_heading = "Output",
        conflicts_with_all = ["output", "ndjson", "columns", "unix", "all_sockets"]
    )]
    pub template: Option<String>,
    /// Leave the header line out
    #[arg(long, help_heading = "Output")]
    pub no_headers: bool,
    /// Also write every port, with who has it and who gets to it, to FILE: what `diff` compares
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Output",
        conflicts_with_all = ["unix", "all_sockets"]
    )]
    pub save: Option<PathBuf>,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum AnswerOutput {
    /// For people
    #[default]
    Text,
    /// JSON
    Json,
    /// JSON's document as YAML
    Yaml,
    /// Who gets where by which way, for Graphviz
    Dot,
    /// The same as a Mermaid flowchart
    Mermaid,
    /// The same as a picture
    Svg,
}

/// The form of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ListOutput {
    /// What fits the terminal
    #[default]
    Table,
    /// More columns, and nothing cut
    Wide,
    /// JSON
    Json,
    /// JSON, one object on each line
    Ndjson,
    /// JSON's document as YAML
    Yaml,
    /// CSV with every column but reach
    Csv,
    /// A table in Markdown
    Markdown,
    /// Metrics, as Prometheus reads them: listeners by owner, accept queues, ports of rules
    Openmetrics,
    /// Which port leads where, for Graphviz
    Dot,
    /// The same as a Mermaid flowchart
    Mermaid,
    /// The same as a picture
    Svg,
}

/// Where `--tls` belongs.
pub const TLS_BELONGS: &str = "--tls belongs to a question: whereis-port 6443 --tls";

/// What is wrong with a command line that clap did not understand, when more can
/// be said than it does: an option of a command that stands without it.
pub fn misplaced(error: &clap::Error) -> Option<String> {
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if error.kind() == clap::error::ErrorKind::InvalidValue
        && said(ContextKind::InvalidArg).is_some_and(|arg| arg.starts_with("--output"))
        && let Some(form) = said(ContextKind::InvalidValue)
        && ListOutput::from_str(form, true).is_ok()
    {
        return Some(format!(
            "-o {form} belongs to the command `list` and comes behind it: whereis-port list -o {form}"
        ));
    }
    if error.kind() != clap::error::ErrorKind::UnknownArgument {
        return None;
    }
    match error.get(ContextKind::InvalidArg) {
        // Of a question, behind a command.
        Some(ContextValue::String(option)) if option == "--tls" => Some(TLS_BELONGS.to_owned()),
        // Where its command was given, it would have taken the option.
        Some(ContextValue::String(option)) => of_command(option),
        _ => None,
    }
}

/// Where `option` belongs, when it is one of a command.
pub fn of_command(option: &str) -> Option<String> {
    let command = Cli::command();
    let knows = |sub: &&clap::Command| {
        sub.get_opts().any(|known| {
            let long = known.get_long().map(|long| format!("--{long}"));
            let short = known.get_short().map(|short| format!("-{short}"));
            long.as_deref() == Some(option) || short.as_deref() == Some(option)
        })
    };
    let name = command.get_subcommands().find(knows)?.get_name();
    Some(format!(
        "{option} belongs to the command `{name}` and comes behind it: whereis-port {name} {option} …"
    ))
}

/// The names of all commands.
pub fn commands() -> Vec<String> {
    Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_the_list_names_every_column() {
        let command = Cli::command();
        let list = command.find_subcommand("list").unwrap();
        let help = list.get_after_help().unwrap().to_string();
        let words: Vec<&str> = help.split_whitespace().collect();
        for (name, _) in crate::view::list::about_columns() {
            assert!(words.contains(&name.as_str()), "{name}");
        }
    }
}
