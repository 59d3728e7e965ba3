//! The node itself and the rights the tool has on it.

use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;
use rustix::thread::CapabilitySet;

use super::{files, netns};
use whereis_port_model::{Capability, Host, NetnsId};

/// Inode of the initial PID namespace, the same since Linux 3.8
/// (`PROC_PID_INIT_INO` in `include/linux/proc_ns.h`).
const INITIAL_PID_NS: u64 = 0xEFFF_FFFC;

/// Inode of the initial user namespace (`PROC_USER_INIT_INO`, likewise).
const INITIAL_USER_NS: u64 = 0xEFFF_FFFD;

pub(super) fn read(
    proc: &OwnedFd,
    own: NetnsId,
    own_name: Option<String>,
    initial: Option<NetnsId>,
) -> Host {
    let uname = rustix::system::uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    let kernel = text(uname.release());
    let pid_ns = rustix::fs::statat(proc, c"self/ns/pid", AtFlags::empty()).map(|s| s.st_ino);
    let user_ns = rustix::fs::statat(proc, c"self/ns/user", AtFlags::empty()).map(|s| s.st_ino);
    // A kernel without user namespaces has no such file, and one kind of root.
    let root_of_all = matches!(user_ns, Ok(INITIAL_USER_NS) | Err(rustix::io::Errno::NOENT));
    let mounts = mountinfo();
    Host {
        hostname: text(uname.nodename()),
        now: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
        euid: rustix::process::geteuid().as_raw(),
        // Root of another user namespace has all of them, over nothing of
        // the node's.
        capabilities: if root_of_all { capabilities() } else { Vec::new() },
        binds_privileged: binds_privileged(user_ns.ok()),
        own_netns: own,
        own_netns_name: own_name,
        host_netns: initial,
        init_pid_ns: pid_ns == Ok(INITIAL_PID_NS),
        hidepid: hidepid(&mounts),
        wsl: kernel.to_ascii_lowercase().contains("microsoft"),
        kernel,
    }
}

/// The mounts of this mount namespace. A mount point need not be UTF-8.
pub(super) fn mountinfo() -> String {
    files::text(c"/proc/self/mountinfo", files::TABLE).unwrap_or_default()
}

fn capabilities() -> Vec<Capability> {
    let effective =
        rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    [
        (CapabilitySet::SYS_PTRACE, Capability::CapSysPtrace),
        (CapabilitySet::SYS_ADMIN, Capability::CapSysAdmin),
        (CapabilitySet::NET_ADMIN, Capability::CapNetAdmin),
        (CapabilitySet::DAC_READ_SEARCH, Capability::CapDacReadSearch),
        (CapabilitySet::NET_BIND_SERVICE, Capability::CapNetBindService),
    ]
    .into_iter()
    .filter(|(bit, _)| effective.contains(*bit))
    .map(|(_, capability)| capability)
    .collect()
}

/// Whether this process may have a privileged port in its network namespace: it has the
/// capability, and its user namespace, where it has one, is that to which the network namespace
/// belongs, or one above.
fn binds_privileged(user_ns: Option<u64>) -> Option<bool> {
    let sets = rustix::thread::capabilities(None).ok()?;
    if !sets.effective.contains(CapabilitySet::NET_BIND_SERVICE) {
        return Some(false);
    }
    let Some(own) = user_ns else { return Some(true) };
    match netns::user_namespaces() {
        Ok(all) => Some(all.contains(&own)),
        // It belongs to one outside.
        Err(rustix::io::Errno::PERM) => Some(false),
        Err(_) => None,
    }
}

/// The `hidepid` option of `/proc`, as a number since Linux 3.3 and as a word
/// since 5.8; `subset=pid` hides `/proc/net` as well.
fn hidepid(mountinfo: &str) -> u8 {
    let proc = mountinfo.lines().rev().find(|line| line.split(' ').nth(4) == Some("/proc"));
    let options = proc.and_then(|line| line.split_once(" - ")).map_or("", |(_, after)| after);
    let options = options.split(' ').next_back().unwrap_or_default();
    options
        .split(',')
        .filter_map(|option| match option {
            "hidepid=1" | "hidepid=noaccess" => Some(1),
            "hidepid=2" | "hidepid=invisible" | "subset=pid" => Some(2),
            "hidepid=4" | "hidepid=ptraceable" => Some(4),
            _ => None,
        })
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidepid_is_read_from_the_last_mount_on_proc() {
        // Recorded with `mount -t proc -o hidepid=… proc /proc` on Linux 6.18.
        let plain = "22 26 0:21 / /proc rw,relatime shared:5 - proc proc rw";
        let hidden = "90 26 0:50 / /proc rw,relatime - proc proc rw,hidepid=invisible";
        let below = "91 90 0:21 / /proc/sys ro - proc proc rw,hidepid=1";
        assert_eq!(hidepid(plain), 0);
        assert_eq!(hidepid(&format!("{plain}\n{hidden}\n{below}")), 2);
        assert_eq!(hidepid("1 2 0:3 / /proc rw - proc proc rw,hidepid=4"), 4);
        assert_eq!(hidepid("1 2 0:3 / /proc rw - proc proc rw,subset=pid"), 2);
        assert_eq!(hidepid(""), 0);
    }
}
