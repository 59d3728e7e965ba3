//! Words that several views use for the model's terms.

use std::borrow::Cow;

use super::style::Style;
use whereis_port_model::{
    Capability, Cluster, Container, Ending, HopKind, Host, SocketState, Vantage,
};

/// Every capability that a remedy may name.
const CAPABILITIES: [Capability; 4] = [
    Capability::CapSysPtrace,
    Capability::CapSysAdmin,
    Capability::CapNetAdmin,
    Capability::CapDacReadSearch,
];

/// A cluster by its name, if that is known, and what made it: `"cluster2" (kind)`.
pub(super) fn cluster(style: &Style, cluster: &Cluster) -> String {
    let distribution = style.text(&cluster.distribution);
    if cluster.name.is_empty() {
        format!("of {distribution}, name not known")
    } else {
        format!("\"{}\" ({distribution})", style.text(&cluster.name))
    }
}

/// A remedy for who runs the tool: capabilities that are all there already are
/// none, then something else refused.
pub(super) fn remedy<'a>(remedy: &'a str, host: &Host) -> Cow<'a, str> {
    let named: Vec<Capability> =
        CAPABILITIES.into_iter().filter(|c| remedy.contains(capability(*c))).collect();
    if named.is_empty() || !named.iter().all(|c| host.has(*c)) {
        return Cow::Borrowed(remedy);
    }
    let names: Vec<&str> = named.iter().map(|c| capability(*c)).collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    Cow::Owned(format!(
        "a security module or a user namespace refused, although {} {verb} there",
        names.join(" and ")
    ))
}

/// The kernel's name of a capability.
pub(super) fn capability(capability: Capability) -> &'static str {
    match capability {
        Capability::CapSysPtrace => "CAP_SYS_PTRACE",
        Capability::CapSysAdmin => "CAP_SYS_ADMIN",
        Capability::CapNetAdmin => "CAP_NET_ADMIN",
        Capability::CapDacReadSearch => "CAP_DAC_READ_SEARCH",
        Capability::CapNetBindService => "CAP_NET_BIND_SERVICE",
    }
}

/// A kind of hop.
pub(super) fn hop(kind: HopKind) -> &'static str {
    match kind {
        HopKind::Listener => "listener",
        HopKind::Forward => "forward",
        HopKind::Dnat => "DNAT",
        HopKind::Service => "service",
        HopKind::Kernel => "kernel",
        HopKind::OffNode => "off node",
    }
}

/// A socket's state, by the kernel's name for it.
pub(super) fn socket_state(state: SocketState) -> &'static str {
    match state {
        SocketState::Listen => "LISTEN",
        SocketState::Unconnected => "UNCONN",
        SocketState::Bound => "BOUND",
        SocketState::SynSent => "SYN_SENT",
        SocketState::SynReceived => "SYN_RECV",
        SocketState::Established => "ESTABLISHED",
        SocketState::FinWait1 => "FIN_WAIT1",
        SocketState::FinWait2 => "FIN_WAIT2",
        SocketState::TimeWait => "TIME_WAIT",
        SocketState::CloseWait => "CLOSE_WAIT",
        SocketState::LastAck => "LAST_ACK",
        SocketState::Closing => "CLOSING",
    }
}

/// A place from which a port may be reached.
pub(super) fn vantage(from: Vantage) -> &'static str {
    match from {
        Vantage::Loopback => "this host's loopback",
        Vantage::Node => "this host's other addresses",
        Vantage::Outside => "other machines",
        Vantage::Containers => "containers on this node",
    }
}

/// The same in front of what to connect to from there.
pub(super) fn vantage_at(from: Vantage) -> &'static str {
    match from {
        // The address need not be one of the host's own.
        Vantage::Node => "this host",
        other => vantage(other),
    }
}

/// The same for connections that come from there, to whatever address.
pub(super) fn vantage_of(from: Vantage) -> &'static str {
    match from {
        Vantage::Loopback => "this host over loopback",
        Vantage::Node => "this host to other addresses",
        other => vantage(other),
    }
}

/// What stands in a table for an owner that is not a visible process. `None`
/// for one that is.
pub(super) fn marker(ending: Ending) -> Option<&'static str> {
    match ending {
        Ending::Process => None,
        Ending::Kernel => Some("(kernel)"),
        Ending::OutsidePidNamespace => Some("(outside PID ns)"),
        Ending::NotReadable => Some("(not readable)"),
        Ending::Nothing | Ending::Stopped | Ending::Elsewhere | Ending::Unknown => {
            Some("(unknown)")
        }
    }
}

/// A container's id as runtimes show it, twelve digits of a long hexadecimal
/// one. Other ids (names of LXC and systemd-nspawn) stay whole.
pub(super) fn short_id(id: &str) -> &str {
    let long = id.len() >= 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if long { id.get(..12).unwrap_or(id) } else { id }
}

/// `text` with every long hexadecimal id in it, of a container say, cut as
/// [`short_id`] does, and marked as cut.
pub(super) fn short_ids(text: &str, ellipsis: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        let (id, after) = rest.split_at(end);
        short.push_str(short_id(id));
        if short_id(id).len() < id.len() {
            short.push_str(ellipsis);
        }
        let next = after.find(|c: char| c.is_ascii_hexdigit()).unwrap_or(after.len());
        let (between, after) = after.split_at(next);
        short.push_str(between);
        rest = after;
    }
    short
}

/// `text` with what there is one of in the singular: `1 process`, not `1 processes`.
pub(super) fn singular(text: &str) -> String {
    let mut one = false;
    let words = text.split(' ').map(|word| {
        let before = std::mem::replace(&mut one, word == "1");
        let plurals = ["processes", "namespaces", "sockets", "containers", "holders"];
        match plurals.into_iter().find(|plural| before && word.trim_end_matches(',') == *plural) {
            Some("processes") => word.replace("processes", "process"),
            Some(plural) => word.replace(plural, plural.trim_end_matches('s')),
            None => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What a container is called: its name, else its short id.
pub(super) fn container(container: &Container) -> &str {
    container.name.as_deref().unwrap_or_else(|| short_id(&container.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{host, user_host};

    #[test]
    fn nobody_is_told_to_get_what_is_there() {
        let text = "run as root, or with CAP_SYS_PTRACE and CAP_SYS_ADMIN";
        assert_eq!(remedy(text, &user_host()), text);
        let refused = remedy(text, &host());
        assert!(refused.contains("although CAP_SYS_PTRACE and CAP_SYS_ADMIN are there"));
        let half = Host { capabilities: vec![Capability::CapSysPtrace], ..host() };
        assert_eq!(remedy(text, &half), text);
        assert_eq!(remedy("install nft", &host()), "install nft");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(singular("0 from 1 namespaces"), "0 from 1 namespace");
        assert_eq!(singular("1 sockets, 11 processes"), "1 socket, 11 processes");
        assert_eq!(singular("1 processes, 2 holders"), "1 process, 2 holders");
    }

    #[test]
    fn only_long_ids_are_cut() {
        let id = "4639af7a1e65".repeat(6);
        let text = format!("/run/containerd/k8s.io/{id}/config.json, container:{id}");
        assert_eq!(
            short_ids(&text, "…"),
            "/run/containerd/k8s.io/4639af7a1e65…/config.json, container:4639af7a1e65…"
        );
        assert_eq!(short_ids("dead beef 日本 4026531840", "…"), "dead beef 日本 4026531840");
    }
}
