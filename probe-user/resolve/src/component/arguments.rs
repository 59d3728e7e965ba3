//! Options as the components of Kubernetes take them: `--name=value` and `--name value`.

use whereis_port_model::Process;

/// The arguments of one process.
pub(super) struct Arguments<'a>(&'a [String]);

/// Options whose values are files or directories worth knowing: certificates, keys,
/// configurations, data.
const FILES: [&str; 32] = [
    "tls-cert-file",
    "tls-private-key-file",
    "client-ca-file",
    "etcd-cafile",
    "etcd-certfile",
    "etcd-keyfile",
    "kubelet-client-certificate",
    "kubelet-client-key",
    "kubelet-certificate-authority",
    "proxy-client-cert-file",
    "requestheader-client-ca-file",
    "service-account-key-file",
    "service-account-signing-key-file",
    "service-account-private-key-file",
    "cluster-signing-cert-file",
    "root-ca-file",
    "authentication-kubeconfig",
    "authorization-kubeconfig",
    "kubeconfig",
    "bootstrap-kubeconfig",
    "config",
    "config-file",
    "config-dir",
    "conf",
    "cert-file",
    "key-file",
    "trusted-ca-file",
    "peer-cert-file",
    "peer-key-file",
    "peer-trusted-ca-file",
    "data-dir",
    "root-dir",
];

impl<'a> Arguments<'a> {
    pub(super) fn of(process: &'a Process) -> Self {
        Self(process.cmdline.get(1..).unwrap_or_default())
    }

    /// Whether any of them has this in it.
    pub(super) fn has(&self, text: &str) -> bool {
        self.0.iter().any(|argument| argument.contains(text))
    }

    /// Every option with its value, without dashes.
    fn options(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.0;
        all.iter().enumerate().filter_map(move |(at, argument)| {
            let name = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'))?;
            if let Some((name, value)) = name.split_once('=') {
                return Some((name, value));
            }
            let value = all.get(at + 1).filter(|value| !value.starts_with('-'))?;
            Some((name, value.as_str()))
        })
    }

    /// The value of an option; the last one counts.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.options().filter(|(known, _)| *known == name).last().map(|(_, value)| value)
    }

    /// The port that an option gives, else the default one.
    pub(super) fn port(&self, name: &str, default: u16) -> u16 {
        match self.get(name) {
            Some(value) => port_of(value).unwrap_or(default),
            None => default,
        }
    }

    /// Whether an option names this port: of a list of URLs or addresses any.
    pub(super) fn names(&self, option: &str, port: u16, default: u16) -> bool {
        match self.get(option) {
            Some(list) => list.split(',').any(|one| port_of(one.trim()) == Some(port)),
            None => port == default,
        }
    }

    /// The first argument that is no option: `server` of `k3s server`.
    pub(super) fn command(&self) -> Option<&'a str> {
        self.0.iter().find(|argument| !argument.starts_with('-')).map(String::as_str)
    }

    /// The files that options name.
    pub(super) fn files(&self) -> Vec<(String, String)> {
        let named =
            self.options().filter(|(name, value)| FILES.contains(name) && value.contains('/'));
        named.map(|(name, value)| (format!("--{name}"), value.to_owned())).collect()
    }
}

/// The port in `6443`, `:6443`, `127.0.0.1:6443`, `[::]:6443`, `https://127.0.0.1:2379/x`.
fn port_of(text: &str) -> Option<u16> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    authority.rsplit(':').next()?.parse().ok()
}
