//! pasta, which forwards into a network namespace, and passt, into a machine.

use crate::{Port, PortRange, Proto};

use super::text::{self, BindAddress};
use super::{ForwardTarget, ForwarderLine, Mapping, PASTA, Word};

/// The options that take a value as the next word when they have none after `=`.
const VALUED: [&str; 52] = [
    "-s",
    "--socket",
    "-F",
    "--fd",
    "-p",
    "--pcap",
    "-P",
    "--pid",
    "-l",
    "--log-file",
    "--log-size",
    "-m",
    "--mtu",
    "-a",
    "--address",
    "-n",
    "--netmask",
    "-M",
    "--mac-addr",
    "-g",
    "--gateway",
    "-i",
    "--interface",
    "-o",
    "--outbound",
    "--outbound-if4",
    "--outbound-if6",
    "-D",
    "--dns",
    "--dns-forward",
    "--dns-host",
    "-S",
    "--search",
    "-H",
    "--hostname",
    "--fqdn",
    "-t",
    "--tcp-ports",
    "-u",
    "--udp-ports",
    "-T",
    "--tcp-ns",
    "-U",
    "--udp-ns",
    "--userns",
    "--netns",
    "--runas",
    "--map-host-loopback",
    "--map-guest-addr",
    "-I",
    "--ns-ifname",
    "--ns-mac-addr",
];

const EVERY_PORT: PortRange = PortRange { first: Port(1), last: Port(u16::MAX) };

/// `pasta -t 8080-8080:80-80 -u none --netns /run/user/1000/netns/netns-…`.
pub(super) fn pasta(args: &[String]) -> ForwarderLine {
    let said = PastaArgs::from(args);
    let path =
        said.netns.map(|n| if n.contains('/') { n.to_owned() } else { format!("/run/netns/{n}") });
    let path = path.or_else(|| said.pid.map(|pid| format!("/proc/{pid}/ns/net")));
    let target = |port, proto| match &path {
        Some(path) => ForwardTarget::InNetns(path.clone(), None, port, proto),
        None => ForwardTarget::Unsaid("the namespace that pasta made for its command"),
    };
    // What pasta does by itself when told nothing is to follow the namespace.
    let mut line = said.line(PASTA, "auto", target);
    if let Some(path) = &path {
        line.words.extend([Word::keep("--netns"), Word::path(path)]);
        line.mappings.iter_mut().for_each(|m| m.quote = format!("{} --netns {path}", m.quote));
    }
    line
}

/// `passt -t 2222:22`.
pub(super) fn passt(args: &[String]) -> ForwarderLine {
    let target = |_, _| ForwardTarget::Unsaid("the virtual machine that passt serves");
    PastaArgs::from(args).line("passt", "none", target)
}

/// The arguments of pasta, not yet looked into.
#[derive(Default)]
struct PastaArgs<'a> {
    ports: Vec<(Proto, &'a str)>,
    netns: Option<&'a str>,
    pid: Option<&'a str>,
}

impl<'a> PastaArgs<'a> {
    fn from(args: &'a [String]) -> Self {
        let mut said = Self::default();
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            if !arg.starts_with('-') {
                // The process to join, or the command to run: no option follows.
                said.pid =
                    Some(arg).filter(|a| !a.is_empty() && a.bytes().all(|b| b.is_ascii_digit()));
                break;
            }
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, value),
                _ if VALUED.contains(&arg) => match args.next() {
                    Some(value) => (arg, value),
                    None => break,
                },
                _ => match (arg.get(..2), arg.get(2..)) {
                    (Some(name @ ("-t" | "-u")), Some(value)) => (name, value),
                    _ => continue,
                },
            };
            match name {
                "-t" | "--tcp-ports" => said.ports.push((Proto::Tcp, value)),
                "-u" | "--udp-ports" => said.ports.push((Proto::Udp, value)),
                "--netns" => said.netns = Some(value),
                _ => {}
            }
        }
        said
    }

    fn line(
        &self,
        kind: &'static str,
        default: &'static str,
        target: impl Fn(Port, Proto) -> ForwardTarget,
    ) -> ForwarderLine {
        let mut line = ForwarderLine { kind, mappings: Vec::new(), words: Vec::new() };
        for proto in Proto::ALL {
            let flag = if proto == Proto::Tcp { "-t" } else { "-u" };
            let mut specs: Vec<_> =
                self.ports.iter().filter(|(p, _)| *p == proto).map(|(_, spec)| *spec).collect();
            if specs.is_empty() {
                specs.push(default);
            }
            for spec in specs {
                // One that is not understood forwards nothing that could be matched.
                let parsed = PastaPorts::from(spec).unwrap_or_default();
                line.words.extend([Word::keep(flag), parsed.word()]);
                line.mappings.extend(parsed.ports.iter().map(|(from, to)| Mapping {
                    proto: Some(proto),
                    bind: parsed.address.map_or(BindAddress::Any, BindAddress::from),
                    ports: Some(*from),
                    except: parsed.except.clone(),
                    target: target(*to, proto),
                    screens: Vec::new(),
                    quote: format!("{flag} {spec}"),
                }));
            }
        }
        line
    }
}

/// The value of `-t` or `-u`: `[ADDRESS[%INTERFACE]/]PORTS[:PORTS],…,~PORTS`.
#[derive(Default)]
struct PastaPorts<'a> {
    address: Option<&'a str>,
    /// The ports listened on and the first one they lead to.
    ports: Vec<(PortRange, Port)>,
    except: Vec<PortRange>,
}

impl<'a> PastaPorts<'a> {
    fn from(spec: &'a str) -> Option<Self> {
        let mut parsed = Self::default();
        match spec {
            "none" => return Some(parsed),
            "auto" | "all" => {
                parsed.ports.push((EVERY_PORT, EVERY_PORT.first));
                return Some(parsed);
            }
            _ => {}
        }
        let list = match spec.split_once('/') {
            Some((address, list)) => {
                let address = address.split('%').next().unwrap_or(address);
                parsed.address = Some(address).filter(|a| !a.is_empty());
                list
            }
            None => spec,
        };
        for part in list.split(',') {
            if let Some(except) = part.strip_prefix('~') {
                parsed.except.push(text::range(except)?);
            } else if matches!(part, "auto" | "all") {
                parsed.ports.push((EVERY_PORT, EVERY_PORT.first));
            } else {
                let (from, to) = part.split_once(':').unwrap_or((part, part));
                parsed.ports.push((text::range(from)?, text::range(to)?.first));
            }
        }
        if parsed.ports.is_empty() {
            // Only exclusions: every other port is forwarded.
            parsed.ports.push((EVERY_PORT, EVERY_PORT.first));
        }
        Some(parsed)
    }

    /// The same, written anew.
    fn word(&self) -> Word {
        let mut word = Word::default();
        if let Some(address) = self.address {
            word = word.then_host(address).then("/");
        }
        let ports = self.ports.iter().map(|(from, to)| match *from {
            EVERY_PORT => "auto".to_owned(),
            PortRange { first, last } => {
                let to_last = to.0.saturating_add(last.0 - first.0);
                format!("{first}-{last}:{to}-{to_last}")
            }
        });
        let except = self.except.iter().map(|r| format!("~{}-{}", r.first, r.last));
        let list: Vec<_> = ports.chain(except).collect();
        word.then(if list.is_empty() { "none".to_owned() } else { list.join(",") })
    }
}
