//! The command line: flags as typed, and questions as understood.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::model::{Port, PortRange, Proto, Query, Scope};
use crate::view::ColorChoice;

const EXAMPLES: &str = "\
Examples:
  whereis-port 30518                 who is behind port 30518, TCP and UDP, anywhere on this node
  whereis-port 53/udp 443/tcp        two questions, each about one protocol
  whereis-port 127.0.0.1:8080        what a connection to this address and port reaches
  whereis-port '[::1]:8080/tcp'      the same for IPv6, in brackets
  whereis-port 8000-8010             a range
  whereis-port https                 a name of /etc/services
  whereis-port --json 6443 | jq -r '.answers[].paths[].end.process.name'
  whereis-port list -t --container web
  whereis-port --record node.json list    everything, to answer from elsewhere
  whereis-port --replay node.json 30518

Exit status:
  0  found                 1  surely nothing there
  2  bad usage or input    3  not found, but something could not be read (it is said what)
  4  the tool itself failed
  (doctor: 0 all sources readable, 3 some are not)

Without root, listeners of other users are listed without their owner. See
`whereis-port doctor` for what can be read here and what would give the rest.";

/// Who is behind a port, and how does traffic get there?
///
/// Looks through every network namespace of this node for listeners, names
/// their processes, containers and clusters, follows forwarders such as
/// docker-proxy to where they lead, and says from where the port can be reached.
#[derive(Debug, Parser)]
#[command(name = "whereis-port", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What is asked for.
    #[arg(
        value_name = "TARGET",
        allow_hyphen_values = false,
        help = "PORT, PORT/PROTO, ADDR:PORT[/PROTO], [V6]:PORT, FIRST-LAST, or a service name"
    )]
    pub targets: Vec<String>,

    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,

    /// The command, when it is not a question.
    #[command(subcommand)]
    pub command: Option<Command>,
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

    /// Show what was read, how long each source took, and all evidence
    #[arg(short, long, global = true)]
    pub verbose: bool,

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
    /// List every listener of every network namespace
    List(ListArgs),
    /// Say what can be read here, what can't, and what would give it
    Doctor,
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
    #[arg(short, long)]
    pub tcp: bool,
    /// UDP
    #[arg(short, long)]
    pub udp: bool,
    /// IPv4; with -6 both
    #[arg(short = '4', long)]
    pub ipv4: bool,
    /// IPv6 (dual-stack sockets included)
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// Only this network namespace, by name or inode number
    #[arg(long, value_name = "NETNS")]
    pub netns: Option<String>,
    /// Only sockets that this process holds
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Only containers whose name contains this, or whose id begins with it
    #[arg(long, value_name = "NAME")]
    pub container: Option<String>,
    /// Only processes whose name contains this
    #[arg(long, value_name = "NAME")]
    pub process: Option<String>,
    /// Sort by a column: port, proto, address, process, pid, container, netns, …; `:desc` reverses
    #[arg(short, long, value_name = "COL[:desc]")]
    pub sort: Option<String>,
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub output: ListOutput,
    /// Leave the header line out
    #[arg(long)]
    pub no_headers: bool,
}

/// The form of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ListOutput {
    /// What fits the terminal
    #[default]
    Table,
    /// Every column
    Wide,
    /// JSON
    Json,
    /// CSV with every column
    Csv,
}

/// A target that is no question.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{target:?} is not a port: {reason}")]
pub struct BadTarget {
    target: String,
    reason: String,
}

/// Understands a target. `services` is the text of services(5).
///
/// # Errors
/// Says what is wrong with the target and, where it can, what was meant.
pub fn parse_target(target: &str, services: &str) -> Result<Query, BadTarget> {
    let bad = |reason: String| BadTarget { target: target.to_owned(), reason };
    let (place, proto) = match target.rsplit_once('/') {
        None => (target, None),
        Some((place, "tcp" | "TCP")) => (place, Some(Proto::Tcp)),
        Some((place, "udp" | "UDP")) => (place, Some(Proto::Udp)),
        Some((_, other)) => return Err(bad(format!("unknown protocol {other:?}, use tcp or udp"))),
    };
    let (scope, port) = split(place).map_err(bad)?;
    let ports = ports(port, services, proto).map_err(bad)?;
    // A service name can say the protocol too: only one that has it counts.
    Ok(Query { text: target.to_owned(), ports, proto, scope })
}

fn split(place: &str) -> Result<(Scope, &str), String> {
    if let Some(rest) = place.strip_prefix('[') {
        let (address, port) =
            rest.split_once("]:").ok_or("an address in brackets needs a port: [ADDRESS]:PORT")?;
        let address = address
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| format!("{address:?} is not an IPv6 address"))?;
        return Ok((Scope::Address(IpAddr::V6(address)), port));
    }
    match place.rsplit_once(':') {
        None => {
            if place.parse::<std::net::Ipv4Addr>().is_ok() {
                return Err(format!("the port is missing: {place}:PORT"));
            }
            Ok((Scope::Everywhere, place))
        }
        Some(("", port)) => Ok((Scope::Everywhere, port)),
        Some((address, port)) => {
            if let Ok(v4) = address.parse::<std::net::Ipv4Addr>() {
                return Ok((Scope::Address(v4.into()), port));
            }
            if address == "localhost" {
                return Ok((Scope::Address(crate::model::LOOPBACK4), port));
            }
            if place.parse::<std::net::Ipv6Addr>().is_ok()
                || address.parse::<std::net::Ipv6Addr>().is_ok()
            {
                return Err(format!("an IPv6 address needs brackets: [{address}]:{port}"));
            }
            Err(format!("{address:?} is not an IP address; names are not looked up"))
        }
    }
}

fn ports(text: &str, services: &str, proto: Option<Proto>) -> Result<PortRange, String> {
    if text.is_empty() {
        return Err("the port is missing".to_owned());
    }
    // A service name can hold a dash too, but begins with no digit and no dash.
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    if numeric {
        if let Some((first, last)) = text.split_once('-')
            && !first.is_empty()
        {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("the range runs backwards, use {last}-{first}"));
            }
            return Ok(PortRange { first, last });
        }
        return Ok(PortRange::one(number(text)?));
    }
    service(text, services, proto).map(PortRange::one).ok_or_else(|| {
        let of = proto.map_or_else(String::new, |p| format!(" for {p}"));
        format!("no number from 1 to 65535, and no service of that name{of} in /etc/services")
    })
}

fn number(text: &str) -> Result<Port, String> {
    let out_of_range = || format!("{text:?} is out of range, ports are 1 to 65535");
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(out_of_range());
    }
    text.parse().ok().filter(|p| *p != 0).map(Port).ok_or_else(out_of_range)
}

/// The port of a service name or alias, from the text of services(5).
fn service(name: &str, services: &str, proto: Option<Proto>) -> Option<Port> {
    services.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let official = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let known = Proto::ALL.into_iter().find(|p| p.as_str() == protocol)?;
        let named = official == name || words.any(|alias| alias == name);
        (named && proto.is_none_or(|p| p == known)).then(|| port.parse().ok().map(Port))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &str = "\
# comment
ssh             22/tcp                          # SSH
domain          53/tcp
domain          53/udp
http            80/tcp          www             # WorldWideWeb HTTP
bootps          67/udp
z3950           210/tcp         wais
iso-tsap        102/tcp         tsap
sctponly        9999/sctp
broken
";

    fn check(target: &str, expected: (u16, u16, Option<Proto>, Option<&str>)) {
        let query = parse_target(target, SERVICES).unwrap();
        let address = match query.scope {
            Scope::Everywhere => None,
            Scope::Address(a) => Some(a.to_string()),
        };
        let found = (query.ports.first.0, query.ports.last.0, query.proto, address.as_deref());
        assert_eq!(found, expected, "{target}");
        assert_eq!(query.text, target);
    }

    #[test]
    fn every_form_is_understood() {
        use Proto::{Tcp, Udp};
        check("30518", (30518, 30518, None, None));
        check(":30518", (30518, 30518, None, None));
        check("53/udp", (53, 53, Some(Udp), None));
        check("8000-8010", (8000, 8010, None, None));
        check("8000-8010/tcp", (8000, 8010, Some(Tcp), None));
        check("127.0.0.1:80", (80, 80, None, Some("127.0.0.1")));
        check("localhost:80/tcp", (80, 80, Some(Tcp), Some("127.0.0.1")));
        check("[::1]:80/udp", (80, 80, Some(Udp), Some("::1")));
        check("0.0.0.0:80", (80, 80, None, Some("0.0.0.0")));
        check("ssh", (22, 22, None, None));
        check("www", (80, 80, None, None));
        check("iso-tsap", (102, 102, None, None));
        check("bootps/udp", (67, 67, Some(Udp), None));
        check("10.0.0.1:http", (80, 80, None, Some("10.0.0.1")));
        check("65535", (65535, 65535, None, None));
    }

    #[test]
    fn what_is_no_port_is_named_with_the_reason() {
        for (target, part) in [
            ("0", "out of range"),
            ("65536", "out of range"),
            ("99999999999999999999", "out of range"),
            ("-1", "out of range"),
            ("1-0", "out of range"),
            ("9000-8000", "use 8000-9000"),
            ("80/sctpx", "sctpx"),
            ("80/", "unknown protocol"),
            ("::1:80", "[::1]:80"),
            ("fe80::1", "brackets"),
            ("[::1]", "needs a port"),
            ("[::1]80", "needs a port"),
            ("[1.2.3.4]:80", "not an IPv6 address"),
            ("1.2.3.4", "port is missing"),
            ("1.2.3.4:", "port is missing"),
            ("1.2.3:80", "not an IP address"),
            ("example.org:80", "not looked up"),
            ("nosuch", "no service"),
            ("bootps/tcp", "for tcp"),
            ("", "port is missing"),
            ("sctponly", "no service"),
        ] {
            let error = parse_target(target, SERVICES).unwrap_err().to_string();
            assert!(error.contains(part), "{target}: {error}");
            assert!(error.contains(&format!("{target:?}")), "{target}: {error}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
