//! What `bind` takes.

use clap::{Args, ValueEnum};

/// The help behind the options of `bind`.
pub(super) const HELP: &str = "\
It is predicted by the kernel's rules, and nothing is touched: who has the port in whatever state
(also connections, TIME_WAIT, sockets that are merely bound), addresses, wildcards, IPv6 with and
without IPv4, interfaces, VRFs, privileged ports. Without an address it is for all of them.

No source tells whether another socket has SO_REUSEADDR or SO_REUSEPORT. Where that decides, the
answer is \"not known\", and --try tells. Security modules, seccomp and programs of cgroups that
refuse a bind are not looked at; --try meets those that are in the tool's own way.

Examples:
  whereis-port bind 8080                     could a server have port 8080, and if not, why?
  whereis-port bind 127.0.0.1:8080/tcp --reuse
  whereis-port bind 80 --uid 1000            for another user, who may not have port 80
  whereis-port bind 53 --netns web           in another network namespace
  whereis-port bind 8080/tcp --try && serve  as the kernel says, not as predicted

Exit status:
  0  it works                      2  bad usage, for example a namespace that there is none of
  1  it does not; it is said why   3  it is not known; it is said what is missing
  4  the tool itself failed";

/// What somebody would like to bind.
#[derive(Debug, Clone, Args)]
pub struct BindArgs {
    /// What is asked for.
    #[arg(
        value_name = "TARGET",
        required = true,
        allow_negative_numbers = true,
        help = "PORT, PORT/PROTO, ADDR:PORT[/PROTO], [V6]:PORT, or a service name; TCP and UDP \
                when no protocol is named"
    )]
    pub targets: Vec<String>,
    /// For this user, by number, who has no capability unless it is root; the one who asks otherwise
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// In this network namespace, by name or inode number
    #[arg(long, value_name = "NETNS")]
    pub netns: Option<String>,
    /// With SO_REUSEADDR, SO_REUSEPORT, or both
    #[arg(
        long,
        value_name = "OPTION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "addr"
    )]
    pub reuse: Option<Reuse>,
    /// Without IPv4, where the address is :: (IPV6_V6ONLY)
    #[arg(long)]
    pub ipv6_only: bool,
    /// Bound to this interface (SO_BINDTODEVICE)
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Bind such a socket really, and close it at once; nothing listens, and nothing is sent
    #[arg(long = "try")]
    pub attempt: bool,
}

/// Options that let sockets share a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reuse {
    /// SO_REUSEADDR
    Addr,
    /// SO_REUSEPORT
    Port,
    /// Both
    Both,
}

impl BindArgs {
    /// Whether the socket has SO_REUSEADDR.
    pub fn reuse_addr(&self) -> bool {
        matches!(self.reuse, Some(Reuse::Addr | Reuse::Both))
    }

    /// Whether it has SO_REUSEPORT.
    pub fn reuse_port(&self) -> bool {
        matches!(self.reuse, Some(Reuse::Port | Reuse::Both))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(args: &[&str]) -> Result<BindArgs, String> {
        let args = [&["whereis-port", "bind"], args].concat();
        match Cli::try_parse_from(args).map_err(|error| error.to_string())?.command {
            Some(Command::Bind(args)) => Ok(args),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn an_option_without_a_value_takes_no_target() {
        let args = parse(&["--reuse", "8080"]).unwrap();
        assert_eq!((args.reuse, args.targets), (Some(Reuse::Addr), vec!["8080".to_owned()]));
        let args = parse(&["8080", "--reuse=both", "--try"]).unwrap();
        assert!(args.reuse_addr() && args.reuse_port() && args.attempt);
        let args = parse(&["8080", "--reuse=port"]).unwrap();
        assert!(!args.reuse_addr() && args.reuse_port());
        for wrong in
            [&["8080", "--reuse=all"][..], &[], &["80", "--uid", "-1"], &["80", "--uid", "x"]]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
