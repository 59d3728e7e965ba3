//! Forwarders that are part of something larger: a container engine, systemd.

use crate::{Pid, PortRange, Proto};

use super::text::{self, BindAddress};
use super::{ForwardTarget, ForwarderLine, Mapping, ROOTLESSKIT, ROOTLESSPORT, SLIRP4NETNS, Word};

/// Recognises by the program's file name.
pub(super) fn recognise(name: &str, args: &[String]) -> Option<ForwarderLine> {
    Some(match name {
        "rootlesskit" => {
            ForwarderLine::unsaid(ROOTLESSKIT, "its forwards are only told by its API socket", args)
        }
        "rootlessport" | "rootlessport-child" => {
            // Its configuration comes on standard input; the arguments, if any,
            // are the parent's own.
            ForwarderLine::unsaid(
                ROOTLESSPORT,
                "its forwards are only told by podman's API, which its user starts with systemctl --user start podman.socket",
                args,
            )
        }
        "slirp4netns" => {
            let mut line = ForwarderLine::unsaid(
                SLIRP4NETNS,
                "its forwards are only told by its API socket",
                args,
            );
            if let Some(path) = slirp_netns_of(args) {
                line.words =
                    vec![Word::keep("--netns-type=path"), Word::path(&path), Word::keep("tap0")];
            }
            line
        }
        "systemd-socket-proxyd" => socket_proxyd(args)?,
        "incusd" | "lxd" => forkproxy(args)?,
        "cilium" => cilium(args)?,
        _ => return None,
    })
}

/// The namespace that slirp4netns serves, as a path: `slirp4netns [OPTIONS] PID|PATH TAP`.
pub fn slirp_netns(argv: &[String]) -> Option<String> {
    slirp_netns_of(argv.get(1..)?)
}

fn slirp_netns_of(args: &[String]) -> Option<String> {
    let [.., netns, tap] = args else { return None };
    if netns.starts_with('-') || tap.starts_with('-') {
        return None;
    }
    let is_pid = !netns.is_empty() && netns.bytes().all(|b| b.is_ascii_digit());
    match is_pid {
        true => Some(format!("/proc/{netns}/ns/net")),
        false => netns.starts_with('/').then(|| netns.clone()),
    }
}

/// Newer versions of `cilium hubble port-forward` and `cilium hubble ui` forward
/// in their own process; older ones run kubectl.
fn cilium(args: &[String]) -> Option<ForwarderLine> {
    let has = |word: &str| args.iter().any(|a| a == word);
    let verb = ["port-forward", "ui"].into_iter().find(|v| has(v))?;
    if !has("hubble") {
        return None;
    }
    let mut line = ForwarderLine::unsaid("cilium hubble", "a Hubble service in the cluster", args);
    line.words = vec![Word::keep("hubble"), Word::keep(verb)];
    Some(line)
}

/// `systemd-socket-proxyd [--connections-max=N] [--exit-idle-time=T] TARGET`. It
/// inherits its listener, so that any port may be its own.
fn socket_proxyd(args: &[String]) -> Option<ForwarderLine> {
    let mut found = None;
    let mut left = args.iter().map(String::as_str);
    while let Some(arg) = left.next() {
        match arg {
            "-c" | "--connections-max" | "--exit-idle-time" => {
                left.next()?;
            }
            arg if arg.starts_with('-') && arg.len() > 1 => {}
            arg => found = found.or(Some(arg)),
        }
    }
    let to = found.filter(|t| !t.is_empty())?;
    let (target, word) = if let Some(name) = to.strip_prefix('@') {
        (ForwardTarget::Unix(to.to_owned()), Word::keep("@").then_path(name))
    } else if to.starts_with('/') {
        (ForwardTarget::Unix(to.to_owned()), Word::path(to))
    } else {
        // Without a port it goes to the service `http`: systemd's own default.
        let (host, port) = match text::host_port(to) {
            Some((host, port)) => (host, port),
            None => (to, "80"),
        };
        let word = Word::default().then_bracketed(host);
        match text::port_or_service(port) {
            Some(number) => {
                (text::target(host, number, Proto::Tcp)?, word.then(format_args!(":{number}")))
            }
            None => (
                ForwardTarget::Unsaid("a port that is given by a service's name"),
                word.then(":").then_name(port),
            ),
        }
    };
    let mapping = Mapping::tcp(BindAddress::Any, None, target, text::quote([to]));
    Some(ForwarderLine {
        kind: "systemd-socket-proxyd",
        mappings: vec![mapping],
        words: vec![word],
    })
}

/// `forkproxy -- LISTEN_PID LISTEN_PIDFD LISTEN CONNECT_PID CONNECT_PIDFD CONNECT …`,
/// or without `--` and the descriptors in LXD up to 4.0.
fn forkproxy(args: &[String]) -> Option<ForwarderLine> {
    let at = args.iter().position(|a| a == "forkproxy")?;
    let rest = args.get(at + 1..)?;
    let rest = rest.strip_prefix(&["--".to_owned()]).unwrap_or(rest);
    let (listen_pid, listen, connect_pid, connect) = match rest {
        [pid, fd, listen, to_pid, _, connect, ..] if fd.parse::<i64>().is_ok() => {
            (pid, listen, to_pid, connect)
        }
        [pid, listen, to_pid, connect, ..] => (pid, listen, to_pid, connect),
        _ => return None,
    };
    let listen_pid: Pid = listen_pid.parse().ok()?;
    let connect_pid: Pid = connect_pid.parse().ok()?;
    let from = ProxyEnd::from(listen)?;
    let to = ProxyEnd::from(connect)?;
    let ProxyEnd::Ip(proto, address, from_ports) = from else { return None };

    let netns = format!("/proc/{connect_pid}/ns/net");
    let quote = text::quote([listen.as_str(), connect_pid.to_string().as_str(), connect]);
    let mut mappings = Vec::new();
    // Where each range begins among all ports, for the two lists go in step.
    let mut index = 0;
    for ports in &from_ports {
        let (ports, target) = match &to {
            ProxyEnd::Unix(path) => (*ports, ForwardTarget::Unix((*path).to_owned())),
            ProxyEnd::Ip(to_proto, host, to_ports) => {
                let host = text::unbracket(host);
                let ip =
                    if host == "localhost" { "127.0.0.1".parse().ok() } else { host.parse().ok() };
                let width = ports.last.0 - ports.first.0;
                // One port there takes all; else they go in step, as long as one range does.
                let to_one = to_ports.iter().map(width_of).sum::<u32>() == 1;
                let first = if to_one { to_ports.first()?.first } else { nth(to_ports, index)? };
                if to_one && width > 0 {
                    (*ports, ForwardTarget::Unsaid("one port for a range of ports"))
                } else {
                    let target = match ip {
                        Some(ip) => {
                            ForwardTarget::InNetns(netns.clone(), Some(ip), first, *to_proto)
                        }
                        None => text::target(host, first, *to_proto)?,
                    };
                    (*ports, target)
                }
            }
        };
        index += width_of(&ports);
        mappings.push(Mapping {
            proto: Some(proto),
            bind: BindAddress::from(address),
            ports: Some(ports),
            except: Vec::new(),
            target,
            screens: Vec::new(),
            quote: quote.clone(),
        });
    }
    let words = vec![
        Word::keep("forkproxy"),
        Word::keep("--"),
        Word::keep(listen_pid),
        Word::keep("-1"),
        peer_word(listen)?,
        Word::keep(connect_pid),
        Word::keep("-1"),
        peer_word(connect)?,
    ];
    Some(ForwarderLine { kind: "forkproxy", mappings, words })
}

fn width_of(range: &PortRange) -> u32 {
    u32::from(range.last.0 - range.first.0) + 1
}

/// The port at `index` among those of all `ranges`.
fn nth(ranges: &[PortRange], mut index: u32) -> Option<crate::Port> {
    for range in ranges {
        match index.checked_sub(width_of(range)) {
            Some(beyond) => index = beyond,
            None => {
                return u16::try_from(index).ok().map(|i| crate::Port(range.first.0 + i));
            }
        }
    }
    None
}

/// One end of an LXD or Incus proxy: `tcp:0.0.0.0:80-90,100` or `unix:/path`.
enum ProxyEnd<'a> {
    Ip(Proto, &'a str, Vec<PortRange>),
    Unix(&'a str),
}

impl<'a> ProxyEnd<'a> {
    fn from(text: &'a str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let proto = match kind {
            "unix" => return Some(Self::Unix(rest)).filter(|_| !rest.is_empty()),
            kind => Proto::ALL.into_iter().find(|p| p.as_str() == kind)?,
        };
        let (host, ports) = text::host_port(rest)?;
        let ports = ports.split(',').map(text::range).collect::<Option<Vec<_>>>()?;
        Some(Self::Ip(proto, host, ports))
    }
}

fn peer_word(peer: &str) -> Option<Word> {
    let (kind, rest) = peer.split_once(':')?;
    let word = Word::keep(format_args!("{kind}:"));
    Some(match kind {
        "unix" => match rest.strip_prefix('@') {
            Some(name) => word.then("@").then_path(name),
            None => word.then_path(rest),
        },
        _ => {
            let (host, ports) = text::host_port(rest)?;
            word.then_bracketed(host).then(format_args!(":{ports}"))
        }
    })
}
