//! Processes.

use serde::{Deserialize, Serialize};

use super::{CgroupPath, ContainerRef, NetnsId, Pid, ProcessHealth};

/// Start time of a process in clock ticks since boot (field 22 of
/// `/proc/PID/stat`). With the PID it names one process for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StartTime(pub u64);

/// What is known of a process. Everything textual is untrusted: a process
/// chooses its own name and arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id in the tool's PID namespace.
    pub pid: Pid,
    /// With `pid`, its identity.
    pub start: StartTime,
    /// Start time in seconds since the epoch.
    pub started_at: Option<u64>,
    /// Its name (`comm`), at most 15 bytes.
    pub comm: String,
    /// Its arguments. Empty for kernel threads and zombies.
    pub cmdline: Vec<String>,
    /// The executable, as seen in the process's own mount namespace.
    pub exe: Option<String>,
    /// The working directory, likewise.
    pub cwd: Option<String>,
    /// Real user id.
    pub uid: u32,
    /// The ids that its sockets get; `None` where they were not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs: Option<FsIds>,
    /// Whether its program is one that another user than root can have written: then its
    /// name and arguments are no more than what that user says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_word: bool,
    /// The user's name on this host. Wrong names are worse than none: `None`
    /// when the process lives in another user namespace.
    pub user: Option<String>,
    /// Its id in each PID namespace it is in, outermost first; the last is the
    /// one it sees itself.
    pub nspid: Vec<Pid>,
    /// Its network namespace, when readable.
    pub netns: Option<NetnsId>,
    /// The best cgroup path (v2, else the `name=systemd`, else any v1 line).
    pub cgroup: Option<CgroupPath>,
    /// The container that it is in, where its cgroup is in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitored: Option<Monitored>,
    /// Its parents, nearest first, up to init.
    pub ancestors: Vec<Ancestor>,
    /// Whether it runs, as far as that is known.
    #[serde(default, skip_serializing_if = "ProcessHealth::is_unknown")]
    pub health: ProcessHealth,
}

/// A container as the process says that watches over it: conmon, or a shim of containerd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitored {
    /// The container.
    pub container: ContainerRef,
    /// Who says so, by its arguments.
    pub by: Pid,
    /// The user of that one: nobody else's word is it.
    pub uid: u32,
}

impl Process {
    /// The containers that it is in, outermost first: by its cgroup, else by who watches
    /// over it.
    pub fn containers(&self) -> Vec<ContainerRef> {
        let chain = self.cgroup.as_ref().map(CgroupPath::containers).unwrap_or_default();
        match &self.monitored {
            Some(monitored) if chain.is_empty() => vec![monitored.container.clone()],
            _ => chain,
        }
    }

    /// The name people know it by: the last part of `argv[0]` when `comm` is
    /// that name cut at 15 bytes, else `comm`.
    pub fn name(&self) -> &str {
        let full = self.cmdline.first().map(|a| a.rsplit('/').next().unwrap_or(a));
        match full {
            Some(full) if self.comm.len() == 15 && full.starts_with(self.comm.as_str()) => {
                full.split_whitespace().next().unwrap_or(full)
            }
            _ => &self.comm,
        }
    }

    /// Its ids in the namespaces inside the tool's own, outermost first, as
    /// people read them: ` (717 inside)`, ` (717, then 1 inside)`; empty for none.
    pub fn inside(&self) -> String {
        let ids: Vec<String> = self.nspid.iter().skip(1).map(ToString::to_string).collect();
        if ids.is_empty() { String::new() } else { format!(" ({} inside)", ids.join(", then ")) }
    }

    /// The id inside its own PID namespace, when that is another one.
    pub fn inner_pid(&self) -> Option<Pid> {
        self.nspid.last().copied().filter(|_| self.nspid.len() > 1)
    }
}

/// The user and the group of what a process makes (`fsuid` and `fsgid` of its first thread): the
/// kernel gives them to its sockets, and rules ask for them. As the tool's user namespace counts
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsIds {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A parent of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Its id.
    pub pid: Pid,
    /// Its name. Untrusted.
    pub comm: String,
}
