//! Userland forwarders, recognised by their command line.

use std::net::IpAddr;

use crate::model::{Port, Proto};

/// Where a forwarder's command line says that a listener leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The forwarder's name: `docker-proxy`, `ssh -L`, `kubectl port-forward`.
    pub kind: &'static str,
    /// Where it leads.
    pub target: Target,
    /// The part of the command line that says so, for the evidence. Untrusted.
    pub quote: String,
}

/// The far end of a forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An address and port, seen from the forwarder's own namespace.
    Address(IpAddr, Port, Proto),
    /// An address and port, seen from the namespace that this path pins
    /// (`pasta --netns`). `None` for the address: that namespace's own.
    InNetns(String, Option<IpAddr>, Port, Proto),
    /// A host name, not looked up, and a port.
    Host(String, Port, Proto),
    /// A Kubernetes object: `svc/hubble-ui`, its namespace, and its port.
    Kubernetes {
        /// Kind and name.
        object: String,
        /// The namespace, when said.
        namespace: Option<String>,
        /// The context, when said.
        context: Option<String>,
        /// The port, a number or a name.
        port: String,
    },
    /// A unix socket's path.
    Unix(String),
    /// Through another machine: `ssh -L` resolves its target there.
    Remote {
        /// Who connects on: the ssh destination.
        via: String,
        /// Host and port as seen from there.
        host: String,
        /// The port there.
        port: Port,
    },
    /// It forwards, but its command line does not say where
    /// (`rootlessport`, `slirp4netns`, `gvproxy`, `ssh -D`).
    Unsaid(&'static str),
}

/// Recognises a forwarder from its arguments (`argv`, never empty for one) and
/// says where the listener on `address`:`port` leads. `None` when the process is
/// no known forwarder, or forwards other ports than this one.
pub fn parse(argv: &[String], proto: Proto, address: IpAddr, port: Port) -> Option<Forward> {
    let _ = (argv, proto, address, port);
    None
}
