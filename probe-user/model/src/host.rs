//! The node itself, and what the tool may do on it.

use serde::{Deserialize, Serialize};

use super::NetnsId;

/// The node the facts come from, and the rights they were read with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Host name of the UTS namespace the tool ran in.
    pub hostname: String,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// Seconds since the epoch when reading began.
    pub now: u64,
    /// Effective user id.
    pub euid: u32,
    /// Which of the capabilities that matter are effective.
    pub capabilities: Vec<Capability>,
    /// Whether the tool itself may have a privileged port in its own namespace: its
    /// CAP_NET_BIND_SERVICE counts in the user namespace that this belongs to. `None` where that
    /// was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binds_privileged: Option<bool>,
    /// The namespace the tool ran in.
    pub own_netns: NetnsId,
    /// Its `ip netns` name. Untrusted.
    pub own_netns_name: Option<String>,
    /// The initial namespace, when that could be told (from kthreadd, or from
    /// PID 1 of the initial PID namespace).
    pub host_netns: Option<NetnsId>,
    /// Whether the tool ran in the initial PID namespace. When not, processes
    /// outside it hold sockets that nobody in here can attribute.
    pub init_pid_ns: bool,
    /// The `hidepid=` option of `/proc` (1, 2 or 4), or `subset=pid` as 2; 0 for none.
    pub hidepid: u8,
    /// Set when this looks like a WSL2 distribution.
    pub wsl: bool,
}

/// A capability that reading needs, by the kernel's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Capability {
    /// Read other users' `/proc/PID/fd`, `/proc/PID/ns`, `/proc/PID/root`.
    CapSysPtrace,
    /// Enter namespaces.
    CapSysAdmin,
    /// Ask for WireGuard devices, nf_tables and conntrack.
    CapNetAdmin,
    /// Read files of other users.
    CapDacReadSearch,
    /// Bind privileged ports. Nothing is read with it.
    CapNetBindService,
}

impl Host {
    /// Whether `capability` is effective.
    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }
}
