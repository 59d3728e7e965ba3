//! What `wait` and `free` take.

use clap::{Args, ValueEnum};

/// The help behind the options of `wait`.
pub(super) const WAIT_HELP: &str = "\
It ends at once when it is so already. Else it waits for events, where eBPF is there, and looks
again each second; without eBPF four times a second.

  listen      something serves the port: a listener here, or what packet rules take to one; at an
              address whatever takes connections there, in other namespaces, too
  free        a server could be bound there, without any option: TIME_WAIT counts
  reachable   from this host, by all that `whereis-port PORT` says; nothing is sent

Examples:
  whereis-port wait 8080                            until a server listens on 8080, 30 s at most
  whereis-port wait 5432 6379 --timeout 1m          until both are there
  whereis-port wait 8080/tcp --until free && serve
  whereis-port wait 172.18.0.2:80/tcp --until reachable

Exit status:
  0  it is so                  2  bad usage
  1  not in that time          3  not in that time, and not all could be read that tells of it
  4  the tool itself failed";

/// The help behind the options of `free`.
pub(super) const FREE_HELP: &str = "\
Ports that a server of this user could be bound to now, in this network namespace, lowest first,
and that nothing else is known to want: not one of those that the kernel gives to whoever asks for
none (ip_local_port_range), nor a reserved one, nor one of Kubernetes' NodePorts (30000 to 32767),
nor one that a container publishes or packet rules take. A port is free for TCP and for UDP,
unless a protocol is named.

Examples:
  whereis-port free                    the lowest from 20000 on
  whereis-port free 8000-8999/tcp -n 3
  sleep inf | whereis-port free --hold keep it: for as long as standard input is open

Exit status:
  0  so many were found                2  bad usage
  1  fewer; it is said why             3  for some, or for all, it is not known
  4  the tool itself failed";

/// What to wait for.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// What is waited for.
    #[arg(
        value_name = "TARGET",
        required = true,
        allow_negative_numbers = true,
        help = "PORT, PORT/PROTO, ADDR:PORT[/PROTO], [V6]:PORT, or a service name"
    )]
    pub targets: Vec<String>,
    /// Until what is so
    #[arg(long, value_name = "WHAT", default_value = "listen")]
    pub until: Until,
    /// Until it is so of one of several; of all otherwise, at the same time
    #[arg(long)]
    pub any: bool,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Until {
    /// Something serves the port
    Listen,
    /// A server could be bound there
    Free,
    /// It can be reached from this host
    Reachable,
}

/// Which ports, and how many.
#[derive(Debug, Clone, Args)]
pub struct FreeArgs {
    /// Where to look.
    #[arg(
        value_name = "FROM-TO",
        default_value = "20000-29999",
        allow_negative_numbers = true,
        help = "FROM-TO or FROM-TO/PROTO"
    )]
    pub range: String,
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub count: u16,
    /// Have sockets bound to them, which do not listen, until standard input is closed
    #[arg(long)]
    pub hold: bool,
}
