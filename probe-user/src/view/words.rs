//! Words that several views use for the model's terms.

use crate::model::{Capability, Container, Ending, HopKind, Vantage};

/// The kernel's name of a capability.
pub(super) fn capability(capability: Capability) -> &'static str {
    match capability {
        Capability::CapSysPtrace => "CAP_SYS_PTRACE",
        Capability::CapSysAdmin => "CAP_SYS_ADMIN",
        Capability::CapNetAdmin => "CAP_NET_ADMIN",
        Capability::CapDacReadSearch => "CAP_DAC_READ_SEARCH",
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

/// What stands in a table for an owner that is not a visible process. `None`
/// for one that is.
pub(super) fn marker(ending: Ending) -> Option<&'static str> {
    match ending {
        Ending::Process => None,
        Ending::Kernel => Some("(kernel)"),
        Ending::OutsidePidNamespace => Some("(outside PID ns)"),
        Ending::NotReadable => Some("(not readable)"),
        Ending::Nothing | Ending::Elsewhere | Ending::Unknown => Some("(unknown)"),
    }
}

/// A container's id as runtimes show it, twelve digits of a long hexadecimal
/// one. Other ids (names of LXC and systemd-nspawn) stay whole.
pub(super) fn short_id(id: &str) -> &str {
    let long = id.len() >= 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if long { id.get(..12).unwrap_or(id) } else { id }
}

/// What a container is called: its name, else its short id.
pub(super) fn container(container: &Container) -> &str {
    container.name.as_deref().unwrap_or_else(|| short_id(&container.id))
}
