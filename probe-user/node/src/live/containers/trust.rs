//! Whose word counts.
//!
//! Anybody can call a process `dockerd` and give it any arguments. What the kernel says
//! of it nobody chooses: its user, its user namespace, and who owns the file that it
//! runs. A daemon speaks for a container only where it is the same user, in the same
//! user namespace, as who holds that container: the nearest process outside of it that
//! is a parent of its processes (a shim, conmon), or who could make its cgroup.

use std::path::Path;

use rustix::fs::CWD;

use super::super::asking::{DaemonFailure, SocketPeer};
use super::super::program::owner_and_mode;
use super::super::safefs::Unreadable;
use super::procs::Procs;
use super::same;
use whereis_port_model::{ContainerRef, Pid};

/// Who a process is to the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Who {
    /// Its user, as the tool's own user namespace counts them.
    pub(super) uid: u32,
    /// Its user namespace; `None` where that can't be read.
    pub(super) userns: Option<String>,
}

impl Who {
    /// Whether this is root as the tool's own user namespace knows it, or the user who
    /// asks and has no more rights than that user.
    pub(super) fn is_trusted_with_the_machine(&self, own: Option<&String>) -> bool {
        is_ours(self.uid) && is_the_same(self.userns.as_ref(), own)
    }

    /// Whether this one may say what a container of `holder` is. Root of a user namespace
    /// below is not root outside of it.
    pub(super) fn speaks_for(&self, holder: &Self) -> bool {
        let alike = is_the_same(self.userns.as_ref(), holder.userns.as_ref());
        is_the_askers(self.uid) || self.uid == holder.uid && (self.uid != 0 || alike)
    }

    /// Whether a file of `owner` can be this one's word. Root reads for a user only what
    /// that user owns: its directories may have links to what it may not read.
    pub(super) fn vouches_for(&self, owner: u32) -> bool {
        owner == self.uid || is_the_askers(owner)
    }
}

/// Whether two user namespaces are the same, as far as both can be read. Root can read all.
fn is_the_same(a: Option<&String>, b: Option<&String>) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// Whether a user may speak for the machine as a whole.
fn is_ours(uid: u32) -> bool {
    uid == 0 || is_the_askers(uid)
}

/// Whether a user is who asks. Whoever asks without root's rights can only fool himself.
fn is_the_askers(uid: u32) -> bool {
    uid != 0 && uid == rustix::process::geteuid().as_raw()
}

/// Who may listen at a socket.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    pub(super) procs: Procs,
    /// The containers around the place where the socket was found.
    pub(super) chain: Vec<ContainerRef>,
    /// Whose socket it is.
    pub(super) uid: u32,
}

impl Judge {
    /// Whether who listens belongs where the socket was found. A container can have
    /// another one's socket, or the host's, mounted at the usual place.
    pub(super) fn check(&self, peer: SocketPeer) -> Result<(), DaemonFailure> {
        let refused = |why: &str| Err(DaemonFailure::Unreachable(why.to_owned()));
        // Root opens sockets for others, as systemd does.
        if peer.uid != self.uid && peer.uid != 0 && !is_the_askers(peer.uid) {
            return refused("another user than its owner listens there");
        }
        // Who began to listen may be gone, or outside this PID namespace.
        match peer.pid.and_then(|pid| self.procs.chain(pid)) {
            Some(chain) if !same(&chain, &self.chain) => {
                refused("who listens there is in another container, or outside of this one")
            }
            _ => Ok(()),
        }
    }
}

impl Procs {
    /// Who a process is. `None` when it is gone, and when it runs with several users'
    /// rights, as a program that is set-user-ID does: its arguments are another's.
    pub(super) fn who(&self, pid: Pid) -> Option<Who> {
        let uids = self.uids(pid)?;
        let uid = *uids.first()?;
        uids.iter().all(|other| *other == uid).then(|| Who { uid, userns: self.userns(pid) })
    }

    /// A user in the tool's own user namespace.
    pub(super) fn someone_here(&self, uid: u32) -> Who {
        Who { uid, userns: self.own_userns().cloned() }
    }

    /// Whether a process of this user runs a file that nobody but root and that user can
    /// have written.
    pub(super) fn runs_what_others_cannot_write(&self, pid: Pid, uid: u32) -> bool {
        match self.exe(pid) {
            Ok((owner, mode)) => (is_ours(owner) || owner == uid) && mode & 0o022 == 0,
            // Root's programs are not shown to others; its user is.
            Err(Unreadable::Denied) => uid == 0,
            Err(_) => false,
        }
    }

    /// Who holds the container at the end of `chain`, in which `pid` runs.
    pub(super) fn holder(
        &self,
        root: &Path,
        chain: &[ContainerRef],
        pid: Pid,
        monitor: Option<Pid>,
    ) -> Option<Who> {
        let monitors = monitor.and_then(|pid| self.who(pid));
        let parents = &chain[..chain.len().checked_sub(1)?];
        if !parents.is_empty() {
            // Without a monitor, who is first in the container around it.
            return monitors.or_else(|| {
                let first = |pid: &Pid| self.chain(*pid).is_some_and(|c| same(&c, parents));
                let first = self.all().into_iter().find(first)?;
                self.who(first)
            });
        }
        // A login shell's parents are root's, too: what it was given of the tree of
        // cgroups tells its processes from root's containers.
        match self.maker(root, pid) {
            Some(uid) if uid != 0 => Some(Who { uid, userns: None }),
            _ => Some(monitors.unwrap_or_else(|| self.someone_here(0))),
        }
    }

    /// Who owns the directory in which the cgroup of the outermost container of a process
    /// is: only that user, and root, could make it.
    pub(super) fn maker(&self, root: &Path, pid: Pid) -> Option<u32> {
        let path = self.cgroup(pid)?;
        owner_of_cgroup(root, path.above_container()?)
    }
}

/// The owner of a cgroup's directory, in any hierarchy that is mounted at a usual place.
fn owner_of_cgroup(root: &Path, cgroup: &str) -> Option<u32> {
    // It is outside of what the tool's own cgroup namespace shows.
    if cgroup.split('/').any(|part| part == "..") {
        return None;
    }
    ["sys/fs/cgroup", "sys/fs/cgroup/unified", "sys/fs/cgroup/systemd"].iter().find_map(|mount| {
        let path = root.join(mount).join(cgroup.trim_start_matches('/'));
        owner_and_mode(CWD, &path).ok().map(|(owner, _)| owner)
    })
}
