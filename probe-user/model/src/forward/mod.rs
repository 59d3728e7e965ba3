//! Userland forwarders, recognised by their command line.
//!
//! Each forwarder has a recogniser that turns its arguments into a `ForwarderLine`:
//! every port it says it forwards, and the words that say so. Which of them is
//! meant by one listener is decided here, alike for all.

mod daemons;
mod docker;
mod kubectl;
mod pasta;
mod socat;
mod ssh;
mod text;
mod vm;
mod words;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::{Endpoint, Port, PortRange, Process, Proto, Socket};

use text::{BindAddress, file_name};

pub use daemons::slirp_netns;
pub use words::{Word, WordPart};

/// Where a forwarder's command line says that a listener leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The forwarder's name: `docker-proxy`, `ssh -L`, `kubectl port-forward`.
    pub kind: &'static str,
    /// Where it leads.
    pub target: ForwardTarget,
    /// Whom it takes connections from, where not from all: every one of these.
    pub screens: Vec<ClientFilter>,
    /// The part of the command line that says so, for the evidence. Untrusted.
    pub quote: String,
}

/// Clients whose connections a forwarder does not end at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFilter {
    /// Those with an address of this network.
    Network(IpAddr, u8),
    /// Those that something else allows, which is not followed: the option, in words.
    Other(&'static str),
}

/// The kind of Docker's proxies for published ports.
pub const DOCKER_PROXY: &str = "docker-proxy";

// These show more than their arguments say.

/// The network of rootless containers, in user space.
pub const PASTA: &str = "pasta";
/// Rootless podman's.
pub const ROOTLESSPORT: &str = "rootlessport";
/// Rootless Docker's, and what starts it.
pub const ROOTLESSKIT: &str = "rootlesskit";
/// The same, of old.
pub const SLIRP4NETNS: &str = "slirp4netns";

/// The far end of a forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardTarget {
    /// An address and port, seen from the forwarder's own namespace.
    Address(IpAddr, Port, Proto),
    /// An address and port, seen from the namespace that this path pins
    /// (`pasta --netns`, or `/proc/PID/ns/net`). `None` for the address: that
    /// namespace's own.
    InNetns(String, Option<IpAddr>, Port, Proto),
    /// A host name, not looked up, and a port.
    Host(String, Port, Proto),
    /// A Kubernetes object: `svc/hubble-ui`, its namespace, and its port.
    Kubernetes {
        /// Kind and name. A bare name is a pod's: `pod/NAME`.
        object: String,
        /// The namespace, when said.
        namespace: Option<String>,
        /// The context, when said.
        context: Option<String>,
        /// The port, a number or a name.
        port: String,
    },
    /// The API of a cluster itself: `kubectl proxy`.
    KubernetesApi {
        /// The context, when said.
        context: Option<String>,
    },
    /// A unix socket's path, with `@` in front for an abstract one.
    Unix(String),
    /// Through another machine: `ssh -L` resolves its target there.
    Remote {
        /// Who connects on: the ssh destination, as typed.
        via: String,
        /// The host as seen from there.
        host: String,
        /// The port there.
        port: Port,
    },
    /// Into a virtual machine: to this port of it, where that is said, and what is known besides.
    Machine(Option<Port>, Proto, &'static str),
    /// It forwards, but its command line does not say where
    /// (`rootlessport`, `slirp4netns`, `ssh -D`). Holds what is known
    /// instead, in lower case.
    Unsaid(&'static str),
}

/// A forwarder's command line, understood.
#[derive(Debug)]
struct ForwarderLine {
    /// The forwarder's name.
    kind: &'static str,
    /// Every forward that it tells of.
    mappings: Vec<Mapping>,
    /// The arguments that a recogniser needs to understand it the same way.
    words: Vec<Word>,
}

impl ForwarderLine {
    /// A forwarder that never says on its command line what it forwards.
    fn unsaid(kind: &'static str, instead: &'static str, args: &[String]) -> Self {
        let mapping = Mapping {
            proto: None,
            bind: BindAddress::Any,
            ports: None,
            except: Vec::new(),
            target: ForwardTarget::Unsaid(instead),
            screens: Vec::new(),
            quote: text::quote(args.iter().map(String::as_str)),
        };
        Self { kind, mappings: vec![mapping], words: Vec::new() }
    }
}

/// One forward that a command line tells of.
#[derive(Debug, Clone)]
struct Mapping {
    /// `None` when it does not depend on the protocol.
    proto: Option<Proto>,
    /// The address it listens on.
    bind: BindAddress,
    /// The ports it listens on; `None` when the command line does not name one
    /// (a random port, an inherited socket).
    ports: Option<PortRange>,
    /// Ports left out of `ports`.
    except: Vec<PortRange>,
    /// Where the first of `ports` leads; the others follow it in step.
    target: ForwardTarget,
    /// Whom it takes connections from, where not from all.
    screens: Vec<ClientFilter>,
    /// The words that say so.
    quote: String,
}

impl Mapping {
    /// A forward of one TCP port.
    fn tcp(bind: BindAddress, port: Option<Port>, target: ForwardTarget, quote: String) -> Self {
        let ports = port.map(PortRange::one);
        Self {
            proto: Some(Proto::Tcp),
            bind,
            ports,
            except: Vec::new(),
            target,
            screens: Vec::new(),
            quote,
        }
    }

    fn takes(&self, proto: Proto, address: IpAddr, port: Port) -> bool {
        self.proto.is_none_or(|p| p == proto)
            && self.bind.takes(address)
            && self.ports.is_none_or(|r| r.contains(port))
            && !self.except.iter().any(|r| r.contains(port))
    }

    /// How many ports it names; one that names none is the least telling.
    fn width(&self) -> u16 {
        self.ports.map_or(u16::MAX, |r| r.last.0 - r.first.0)
    }

    /// Where `port` leads.
    fn target(&self, port: Port) -> Option<ForwardTarget> {
        let step = match self.ports {
            Some(range) => port.0.checked_sub(range.first.0)?,
            None => 0,
        };
        let shift = |to: Port| to.0.checked_add(step).map(Port);
        Some(match self.target.clone() {
            ForwardTarget::Address(ip, to, proto) => ForwardTarget::Address(ip, shift(to)?, proto),
            ForwardTarget::InNetns(path, ip, to, proto) => {
                ForwardTarget::InNetns(path, ip, shift(to)?, proto)
            }
            ForwardTarget::Host(host, to, proto) => ForwardTarget::Host(host, shift(to)?, proto),
            other => other,
        })
    }
}

/// Recognises a forwarder from its arguments (`argv`, never empty for one) and
/// says where the listener on `address`:`port` leads. `None` when the process is
/// no known forwarder, or forwards other ports than this one.
pub fn parse(argv: &[String], proto: Proto, address: IpAddr, port: Port) -> Option<Forward> {
    let (_, line) = recognise(argv)?;
    let fitting: Vec<_> = line.mappings.iter().filter(|m| m.takes(proto, address, port)).collect();
    let best = fitting.iter().min_by_key(|m| m.width())?;
    // Of several that name no port any could be meant: none is picked by luck.
    let unnamed = best.ports.is_none() && fitting.iter().any(|m| m.target != best.target);
    let (target, screens, quote) = if unnamed {
        let quotes = fitting.iter().map(|m| m.quote.as_str());
        (
            ForwardTarget::Unsaid("one of several forwards from ports picked at random"),
            Vec::new(),
            text::quote(quotes),
        )
    } else {
        (best.target(port)?, best.screens.clone(), best.quote.clone())
    };
    Some(Forward { kind: line.kind, target, screens, quote })
}

/// The command line of a forwarder cut down to the words from which [`parse`]
/// tells the same about every port, each word taken apart into what may be shown
/// and what names something. `None` when it is no known forwarder.
pub fn telling_words(argv: &[String]) -> Option<Vec<Word>> {
    let (program, line) = recognise(argv)?;
    let mut words = vec![Word::keep(program)];
    words.extend(line.words);
    Some(words)
}

/// The program's file name and what its arguments say.
fn recognise(argv: &[String]) -> Option<(&str, ForwarderLine)> {
    let (program, args) = argv.split_first()?;
    if let Some(line) = ssh::control_master(program) {
        return Some((ssh::CONTROL_MASTER, line));
    }
    // By file name, never by a part of the path: anybody may name a directory.
    let name = file_name(program);
    let line = match name {
        "nsenter" => {
            let end = args.iter().position(|a| a == "--")?;
            let inner = args.get(end + 1..)?;
            // One level is all there is in the field, and it bounds the recursion.
            if inner.first().is_some_and(|p| file_name(p) == "nsenter") {
                return None;
            }
            return recognise(inner);
        }
        DOCKER_PROXY => docker::proxy(DOCKER_PROXY, args)?,
        "rootlesskit-docker-proxy" => docker::proxy("rootlesskit-docker-proxy", args)?,
        "vpnkit-expose-port" => docker::proxy("vpnkit-expose-port", args)?,
        "pasta" | "pasta.avx2" => pasta::pasta(args),
        "passt" | "passt.avx2" => pasta::passt(args),
        "ssh" => ssh::ssh(args)?,
        "socat" | "socat1" => socat::socat(args)?,
        "kubectl" | "kubectl.exe" | "kubecolor" | "oc" | "microk8s.kubectl" => {
            kubectl::kubectl(args)?
        }
        "k3s" | "k0s" | "microk8s" => kubectl::bundled(args)?,
        _ => daemons::recognise(name, args).or_else(|| vm::recognise(name, args))?,
    };
    Some((name, line))
}

/// Whether a process's arguments are those of a forwarder, whatever it forwards.
pub fn is_forwarder(process: &Process) -> bool {
    recognise(&process.cmdline).is_some()
}

/// Where a process's arguments say that its listener leads.
pub fn of(process: &Process, socket: &Socket) -> Option<Forward> {
    parse(&process.cmdline, socket.proto, socket.effective_address(), socket.port)
}

/// A forwarder's kind in words. One whose program its own user can have written leads
/// where it says that it does, or does not.
pub fn words(process: &Process, forward: &Forward) -> String {
    let claim = if process.own_word { ", by its own word" } else { "" };
    format!("{}{claim}", forward.kind)
}

/// Whether a process runs the program that its arguments name, as far as that
/// can be told: arguments are whatever their process wants them to be. Names may
/// go on (`socat1`, `kubectl-1.30`), and some programs come under others' names.
pub fn is_its_program(process: &Process) -> bool {
    let Some(exe) = &process.exe else { return true };
    let runs = file_name(exe.strip_suffix(" (deleted)").unwrap_or(exe));
    let says = process.cmdline.first().map_or("", |argument| file_name(argument));
    const MULTI: [&str; 9] =
        ["busybox", "k3s", "rke2", "k0s", "minikube", "oc", "passt", "nsenter", "rootlesskit"];
    runs.starts_with(says)
        || says.starts_with(runs)
        || MULTI.iter().any(|multi| runs.starts_with(multi))
}

impl ForwardTarget {
    /// The target as an endpoint: an address, or the name of what has none here.
    pub fn endpoint(&self) -> (Endpoint, Proto) {
        let named = |name: String, port| Endpoint { address: None, name: Some(name), port };
        match self {
            Self::Address(address, port, proto) => {
                (Endpoint { address: Some(*address), name: None, port: Some(*port) }, *proto)
            }
            Self::InNetns(path, address, port, proto) => {
                let name = address.map_or_else(|| path.clone(), |a| format!("{a} in {path}"));
                (named(name, Some(*port)), *proto)
            }
            Self::Host(name, port, proto) => (named(name.clone(), Some(*port)), *proto),
            Self::Kubernetes { object, namespace, port, .. } => {
                let name =
                    namespace.as_ref().map_or_else(|| object.clone(), |n| format!("{n}/{object}"));
                let number = port.parse().ok().map(Port);
                let name = if number.is_none() { format!("{name}:{port}") } else { name };
                (named(name, number), Proto::Tcp)
            }
            Self::KubernetesApi { .. } => {
                (named("the Kubernetes API".to_owned(), None), Proto::Tcp)
            }
            Self::Unix(path) => (named(format!("unix:{path}"), None), Proto::Tcp),
            Self::Remote { via, host, port } => {
                (named(format!("{host} via {via}"), Some(*port)), Proto::Tcp)
            }
            Self::Machine(port, proto, _) => (named("virtual machine".to_owned(), *port), *proto),
            Self::Unsaid(_) => (Endpoint { address: None, name: None, port: None }, Proto::Tcp),
        }
    }
}
