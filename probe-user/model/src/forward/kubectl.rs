//! `kubectl port-forward`, also as run by `cilium hubble port-forward`, and `kubectl proxy`.

use crate::{LOOPBACK4, Port};

use super::text::{self, BindAddress};
use super::{ForwardTarget, ForwarderLine, Mapping, Word};

/// The flags of kubectl and of `port-forward` that take a value.
const VALUED: [&str; 29] = [
    "address",
    "as",
    "as-group",
    "as-uid",
    "as-user-extra",
    "cache-dir",
    "certificate-authority",
    "client-certificate",
    "client-key",
    "cluster",
    "context",
    "kubeconfig",
    "kuberc",
    "log-backtrace-at",
    "log-dir",
    "log-file",
    "log-file-max-size",
    "log-flush-frequency",
    "namespace",
    "password",
    "pod-running-timeout",
    "profile",
    "profile-output",
    "request-timeout",
    "server",
    "stderrthreshold",
    "tls-server-name",
    "token",
    "user",
];
const VALUED_TOO: [&str; 3] = ["username", "v", "vmodule"];
/// Those of `proxy`.
const OF_PROXY: [&str; 10] = [
    "accept-hosts",
    "accept-paths",
    "api-prefix",
    "keepalive",
    "port",
    "reject-methods",
    "reject-paths",
    "unix-socket",
    "www",
    "www-prefix",
];

/// The kinds of object that have pods to forward to.
const KINDS: [&str; 24] = [
    "po",
    "pod",
    "pods",
    "svc",
    "service",
    "services",
    "deploy",
    "deployment",
    "deployments",
    "deployment.apps",
    "rs",
    "replicaset",
    "replicasets",
    "replicaset.apps",
    "sts",
    "statefulset",
    "statefulsets",
    "statefulset.apps",
    "ds",
    "daemonset",
    "daemonset.apps",
    "rc",
    "job",
    "job.batch",
];

/// `kubectl` inside another program: `k3s kubectl port-forward …`.
pub(super) fn bundled(args: &[String]) -> Option<ForwarderLine> {
    let (first, rest) = args.split_first()?;
    if first != "kubectl" {
        return None;
    }
    let mut line = kubectl(rest)?;
    line.words.insert(0, Word::keep("kubectl"));
    Some(line)
}

/// `kubectl [FLAGS] port-forward [FLAGS] TYPE/NAME [LOCAL:]REMOTE…`, the flags
/// anywhere.
pub(super) fn kubectl(args: &[String]) -> Option<ForwarderLine> {
    let said = PortForwardArgs::from(args)?;
    if said.positional.first() == Some(&"proxy") {
        return proxy(args, &said);
    }
    let [verb, object, ports @ ..] = said.positional.as_slice() else { return None };
    if *verb != "port-forward" || object.is_empty() || ports.is_empty() {
        return None;
    }
    let (kind, name) = object.split_once('/').unwrap_or(("pod", object));
    if kind.is_empty() || name.is_empty() {
        return None;
    }

    let mut words = vec![Word::keep("port-forward")];
    for (flag, value) in [("--namespace", said.namespace), ("--context", said.context)] {
        if let Some(value) = value {
            words.extend([Word::keep(flag), Word::name(value)]);
        }
    }
    for address in &said.addresses {
        words.extend([Word::keep("--address"), Word::host(address)]);
    }
    words.push(if KINDS.contains(&kind) {
        Word::keep(format_args!("{kind}/")).then_name(name)
    } else {
        Word::name(kind).then("/").then_name(name)
    });

    // Nothing said means `localhost`, which is 127.0.0.1 and ::1.
    let binds: Vec<_> = match said.addresses.as_slice() {
        [] => vec![BindAddress::Loopback],
        addresses => addresses.iter().map(|a| BindAddress::from(a)).collect(),
    };
    let mut quoted = vec!["port-forward"];
    quoted.extend(said.namespace.iter().flat_map(|n| ["-n", n]));
    quoted.extend(said.context.iter().flat_map(|c| ["--context", c]));
    quoted.push(object);

    let mut mappings = Vec::new();
    for spec in ports {
        let (local, remote) = spec.split_once(':').unwrap_or((spec, spec));
        if remote.is_empty() {
            return None;
        }
        // No local port, 0, or only a port's name: the port is not in the words.
        let local = match local {
            "" | "0" => None,
            local if spec.contains(':') => Some(text::port(local)?),
            local => text::port(local),
        };
        words.push(port_word(spec, local, remote));
        let target = ForwardTarget::Kubernetes {
            object: format!("{kind}/{name}"),
            namespace: said.namespace.map(str::to_owned),
            context: said.context.map(str::to_owned),
            port: remote.to_owned(),
        };
        let quote = text::quote(quoted.iter().copied().chain([*spec]));
        mappings
            .extend(binds.iter().map(|b| Mapping::tcp(*b, local, target.clone(), quote.clone())));
    }
    Some(ForwarderLine { kind: "kubectl port-forward", mappings, words })
}

/// `kubectl proxy [--address ADDRESS] [--port PORT]`, which speaks to the API for others.
fn proxy(args: &[String], said: &PortForwardArgs<'_>) -> Option<ForwarderLine> {
    // With a socket of a path it has no port.
    if said.socket {
        return None;
    }
    let port = match said.port {
        None => Some(Port(8001)),
        Some("0") => None,
        Some(port) => Some(text::port(port)?),
    };
    let bind = said.addresses.first().map_or(BindAddress::Ip(LOOPBACK4), |a| BindAddress::from(a));
    let target = ForwardTarget::KubernetesApi { context: said.context.map(str::to_owned) };
    let mut words = vec![Word::keep("proxy")];
    if let Some(context) = said.context {
        words.extend([Word::keep("--context"), Word::name(context)]);
    }
    if let Some(address) = said.addresses.first() {
        words.extend([Word::keep("--address"), Word::host(address)]);
    }
    if let Some(port) = said.port {
        words.extend([Word::keep("--port"), Word::keep(port)]);
    }
    let quote = text::quote(args.iter().map(String::as_str));
    let mappings = vec![Mapping::tcp(bind, port, target, quote)];
    Some(ForwarderLine { kind: "kubectl proxy", mappings, words })
}

/// The port's word again, with the name that may be in it marked as one.
fn port_word(spec: &str, local: Option<Port>, remote: &str) -> Word {
    let mut word = Word::default();
    if spec.contains(':') {
        let local = local.map(|p| p.to_string()).unwrap_or_default();
        word = word.then(format_args!("{local}:"));
    }
    if text::port(remote).is_some() { word.then(remote) } else { word.then_name(remote) }
}

/// The arguments of `kubectl port-forward`.
#[derive(Default)]
struct PortForwardArgs<'a> {
    namespace: Option<&'a str>,
    context: Option<&'a str>,
    addresses: Vec<&'a str>,
    positional: Vec<&'a str>,
    /// Of `proxy` alone.
    port: Option<&'a str>,
    socket: bool,
}

impl<'a> PortForwardArgs<'a> {
    /// `None` when a flag lacks its value.
    fn from(args: &'a [String]) -> Option<Self> {
        let mut said = Self::default();
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            if arg == "--" {
                said.positional.extend(args);
                break;
            }
            let (name, value) = if let Some(flag) = arg.strip_prefix("--") {
                match flag.split_once('=') {
                    Some((name, value)) => (name, value),
                    None if takes_value(flag) => (flag, args.next()?),
                    None => continue,
                }
            } else if let Some(flag) = arg.strip_prefix('-').filter(|f| !f.is_empty()) {
                let mut chars = flag.chars();
                let name = match chars.next() {
                    Some('n') => "namespace",
                    Some('p') => "port",
                    Some('u') => "unix-socket",
                    Some('s' | 'v' | 'w') => "",
                    _ => continue,
                };
                let glued = chars.as_str();
                match glued.strip_prefix('=').unwrap_or(glued) {
                    "" => (name, args.next()?),
                    value => (name, value),
                }
            } else {
                said.positional.push(arg);
                continue;
            };
            match name {
                "namespace" => said.namespace = Some(value).filter(|v| !v.is_empty()),
                "context" => said.context = Some(value).filter(|v| !v.is_empty()),
                "port" => said.port = Some(value),
                "unix-socket" => said.socket = true,
                "address" => said.addresses.extend(value.split(',').filter(|a| !a.is_empty())),
                _ => {}
            }
        }
        Some(said)
    }
}

fn takes_value(flag: &str) -> bool {
    VALUED.contains(&flag) || VALUED_TOO.contains(&flag) || OF_PROXY.contains(&flag)
}
