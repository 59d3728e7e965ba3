//! Finding every network namespace of the node.
//!
//! A namespace lives on through a process, a thread, a bind mount or an open
//! descriptor. The first three are looked at; of descriptors and of sockets
//! alone nothing can be seen without reading every table of the node.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::enter::Door;
use super::procs::{inode_link, is_denied, open_dir, other_threads, pids};
use crate::model::{Netns, NetnsId, Pid};

/// What the search gave.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The namespaces by id.
    pub(super) netns: BTreeMap<NetnsId, Netns>,
    /// How each can be entered.
    pub(super) doors: HashMap<NetnsId, Door>,
    /// The namespace of the calling process.
    pub(super) own: Option<NetnsId>,
    /// The initial namespace, as far as kthreadd or init show it.
    pub(super) initial: Option<NetnsId>,
    /// Processes whose namespace could not be told at all.
    pub(super) untold: Vec<Pid>,
}

/// Directories in which namespaces are pinned by name.
const PINNED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Looks at all processes and their threads, at the usual directories and at
/// the mounts of every mount namespace.
pub(super) fn find(proc: &OwnedFd, root: &Path) -> Result<Found, Errno> {
    let mut search = Search::new(proc, root)?;
    for pid in pids(proc)? {
        search.process(proc, pid);
    }
    search.recognise(proc);
    for dir in PINNED {
        search.pinned_in(Path::new(dir));
    }
    Ok(search.found)
}

struct Search {
    found: Found,
    root: PathBuf,
    /// Inode of `/proc/PID/net/tcp` to the namespace, where both were readable.
    by_proc_net: HashMap<u64, NetnsId>,
    /// Mount namespaces whose mounts have been read.
    mounts_read: HashSet<u64>,
    /// The device of nsfs: what is not on it is no namespace.
    nsfs: u64,
}

impl Search {
    fn new(proc: &OwnedFd, root: &Path) -> Result<Self, Errno> {
        let nsfs = rustix::fs::statat(proc, c"self/ns/net", AtFlags::empty())?.st_dev;
        let mut search = Self {
            found: Found::default(),
            root: root.to_owned(),
            by_proc_net: HashMap::new(),
            mounts_read: HashSet::new(),
            nsfs,
        };
        let own = inode_link(proc, c"self/ns/net", b"net:")?.ok_or(Errno::INVAL)?;
        let own = NetnsId::Inode(own);
        search.found.own = Some(own);
        search.entry(own).paths.push(root.join("self/ns/net"));
        if let Some(door) = search.found.doors.get_mut(&own) {
            door.own = true;
        }
        if let Ok(stat) = rustix::fs::statat(proc, c"self/net/tcp", AtFlags::empty()) {
            search.by_proc_net.insert(stat.st_ino, own);
        }
        search.mounts(open_dir(proc, c"self")?.as_fd(), Path::new("/"));
        Ok(search)
    }

    /// The door of a namespace, which is made when it is new.
    fn entry(&mut self, id: NetnsId) -> &mut Door {
        self.found.netns.entry(id).or_insert_with(|| Netns {
            id,
            cookie: None,
            name: None,
            paths: Vec::new(),
            members: Vec::new(),
        });
        self.found.doors.entry(id).or_insert_with(|| Door { id, own: false, paths: Vec::new() })
    }

    /// Looks at one process by paths below `/proc`: opening its directory first
    /// would double the system calls, and a number used again meanwhile does no
    /// harm, for every door is checked when it is opened.
    fn process(&mut self, proc: &OwnedFd, pid: Pid) {
        let link = format!("{pid}/ns/net");
        match inode_link(proc, link.as_str(), b"net:") {
            Ok(Some(inode)) => {
                self.member(NetnsId::Inode(inode), pid, link);
                self.mount_namespace(proc, pid);
            }
            Ok(None) => {}
            Err(error) if is_denied(error) => self.denied(proc, pid),
            // It has exited, or is a zombie without namespaces.
            Err(_) => return,
        }
        for tid in other_threads(proc, pid).unwrap_or_default() {
            let link = format!("{pid}/task/{tid}/ns/net");
            if let Ok(Some(inode)) = inode_link(proc, link.as_str(), b"net:") {
                self.member(NetnsId::Inode(inode), pid, link);
            }
        }
        // Kernel threads live in the initial namespaces.
        if pid == KTHREADD && is_kthreadd(proc) {
            self.found.initial =
                self.found.netns.values().find(|n| n.members.contains(&pid)).map(|n| n.id);
        }
    }

    /// Without ptrace rights the namespace still shows by the inode number of
    /// a file below `/proc/PID/net`, which the kernel makes per namespace.
    fn denied(&mut self, proc: &OwnedFd, pid: Pid) {
        match rustix::fs::statat(proc, format!("{pid}/net/tcp"), AtFlags::empty()) {
            Ok(stat) => {
                let id = self.by_proc_net.get(&stat.st_ino).copied();
                let id = id.unwrap_or(NetnsId::ProcNet(stat.st_ino));
                self.by_proc_net.insert(stat.st_ino, id);
                self.member(id, pid, format!("{pid}/ns/net"));
            }
            Err(error) if is_denied(error) => self.found.untold.push(pid),
            Err(_) => {}
        }
    }

    /// Namespaces of unreadable processes are mostly ones that other processes
    /// live in too: the inode below `/proc/PID/net` of a readable one tells.
    fn recognise(&mut self, proc: &OwnedFd) {
        let veiled: Vec<NetnsId> =
            self.found.netns.keys().copied().filter(|id| id.inode().is_none()).collect();
        if veiled.is_empty() {
            return;
        }
        for netns in self.found.netns.values().filter(|n| n.id.inode().is_some()) {
            for pid in &netns.members {
                let path = format!("{pid}/net/tcp");
                // A thread can live elsewhere than its process, which is what
                // this file tells of.
                let of_process = inode_link(proc, format!("{pid}/ns/net"), b"net:").ok().flatten();
                if of_process == netns.id.inode()
                    && let Ok(stat) = rustix::fs::statat(proc, path, AtFlags::empty())
                {
                    self.by_proc_net.insert(stat.st_ino, netns.id);
                    break;
                }
            }
        }
        for id in veiled {
            let NetnsId::ProcNet(inode) = id else { continue };
            let Some(known) = self.by_proc_net.get(&inode).copied().filter(|known| *known != id)
            else {
                continue;
            };
            self.found.doors.remove(&id);
            if let (Some(veiled), Some(netns)) =
                (self.found.netns.remove(&id), self.found.netns.get_mut(&known))
            {
                netns.members.extend(veiled.members);
                netns.members.sort_unstable();
                netns.members.truncate(Netns::MEMBERS);
            }
        }
    }

    fn member(&mut self, id: NetnsId, pid: Pid, link: String) {
        let path = self.root.join(link);
        let door = self.entry(id);
        if door.paths.len() < Netns::MEMBERS {
            door.paths.push(path);
        }
        if let Some(netns) = self.found.netns.get_mut(&id)
            && netns.members.len() < Netns::MEMBERS
            && netns.members.last() != Some(&pid)
        {
            netns.members.push(pid);
        }
    }

    /// Reads the mounts of the process's mount namespace, once for each.
    fn mount_namespace(&mut self, proc: &OwnedFd, pid: Pid) {
        if let Ok(Some(mount_ns)) = inode_link(proc, format!("{pid}/ns/mnt"), b"mnt:")
            && !self.mounts_read.contains(&mount_ns)
            && let Ok(dir) = open_dir(proc, pid.to_string())
        {
            let root = self.root.join(format!("{pid}/root"));
            self.mounts(dir.as_fd(), &root);
        }
    }

    fn mounts(&mut self, dir: BorrowedFd<'_>, root: &Path) {
        if let Ok(Some(mount_ns)) = inode_link(dir, c"ns/mnt", b"mnt:") {
            self.mounts_read.insert(mount_ns);
        }
        let Ok(text) = read_all(dir, c"mountinfo") else { return };
        for (inode, path) in nsfs_mounts(&text) {
            let id = NetnsId::Inode(inode);
            let full = root.join(path.trim_start_matches('/'));
            self.entry(id).paths.push(full);
            self.pinned(id, &path);
        }
    }

    /// Every namespace pinned in a directory, whether a mount of it is visible
    /// in this mount namespace or not.
    fn pinned_in(&mut self, dir: &Path) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            // A plain file where a namespace was is not on nsfs.
            if let Ok(stat) = rustix::fs::stat(&path)
                && stat.st_dev == self.nsfs
            {
                let id = NetnsId::Inode(stat.st_ino);
                self.entry(id).paths.push(path.clone());
                self.pinned(id, &path.to_string_lossy());
            }
        }
    }

    fn pinned(&mut self, id: NetnsId, path: &str) {
        let Some(netns) = self.found.netns.get_mut(&id) else { return };
        if !netns.paths.iter().any(|p| p == path) {
            netns.paths.push(path.to_owned());
        }
        let name = path.strip_prefix("/run/netns/").or(path.strip_prefix("/var/run/netns/"));
        if netns.name.is_none()
            && let Some(name) = name
        {
            netns.name = Some(name.to_owned());
        }
    }
}

fn read_all(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> std::io::Result<String> {
    use std::io::Read;
    let fd = rustix::fs::openat(
        dir,
        name,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let mut bytes = Vec::new();
    // A mount table has no bound of its own; 16 MiB is some 100,000 mounts.
    std::fs::File::from(fd).take(16 << 20).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The parent of all kernel threads. Only the initial PID namespace has it.
const KTHREADD: Pid = 2;

/// Whether process 2 is kthreadd: in another PID namespace it is anybody, but
/// then it has a parent.
fn is_kthreadd(proc: &OwnedFd) -> bool {
    let stat = read_all(proc.as_fd(), c"2/stat").unwrap_or_default();
    stat.starts_with("2 (kthreadd) ") && stat.split(' ').nth(3) == Some("0")
}

/// The network namespaces bind-mounted somewhere, by inode and mount point.
/// Lines look like
/// `104 27 0:4 net:[4026532184] /run/docker/netns/c05c rw - nsfs nsfs rw`.
fn nsfs_mounts(mountinfo: &str) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    for line in mountinfo.lines().filter(|l| l.contains(" net:[")) {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let mut fields = before.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        let inode = root.strip_prefix("net:[").and_then(|r| r.strip_suffix(']'));
        if let Some(inode) = inode.and_then(|i| i.parse().ok())
            && after.split(' ').next() == Some("nsfs")
        {
            found.push((inode, unescape(point)));
        }
    }
    found
}

/// Mount points have space, tab, newline and backslash as `\040` and so on.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match value {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The cookie of the namespace of this thread (`SO_NETNS_COOKIE`, Linux 5.14).
#[expect(unsafe_code, reason = "no library has this socket option yet")]
pub(super) fn cookie() -> Option<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)
            .ok()?;
    let mut cookie = 0u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `length` bytes, 8, to `cookie`, which
    // has 8, and the length to `length`; both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (result == 0 && length == 8).then_some(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_mounts_are_found_in_mountinfo() {
        // Recorded from a Docker host; the last three lines are traps: another
        // kind of namespace, a file system that only looks like one, a cut line.
        let text = "\
24 1 254:0 / / rw,relatime - ext4 /dev/root rw
104 27 0:4 net:[4026532184] /run/docker/netns/c05cb5da8d13 rw - nsfs nsfs rw
105 27 0:4 net:[4026532185] /run/netns/a\\040b rw shared:5 - nsfs nsfs rw
106 27 0:4 mnt:[4026532186] /run/snapd/ns/x.mnt rw - nsfs nsfs rw
107 27 0:4 net:[4026532187] /run/fake rw - tmpfs tmpfs rw
108 27 0:4 net:[4026532188]";
        assert_eq!(
            nsfs_mounts(text),
            [
                (4_026_532_184, "/run/docker/netns/c05cb5da8d13".to_owned()),
                (4_026_532_185, "/run/netns/a b".to_owned()),
            ]
        );
    }

    #[test]
    fn damaged_escapes_stay_as_they_are() {
        for (field, expected) in
            [("a\\040b", "a b"), ("a\\", "a\\"), ("a\\04", "a\\04"), ("\\999", "\\999")]
        {
            assert_eq!(unescape(field), expected);
        }
    }

    #[test]
    fn the_own_namespace_is_found_and_can_be_opened() {
        let root = Path::new("/proc");
        let found = find(&super::super::procs::open_root(root).unwrap(), root).unwrap();
        let own = found.own.unwrap();
        assert!(!found.netns[&own].members.is_empty());
        assert!(found.doors[&own].own);
        assert!(found.doors[&own].open().is_ok());
    }
}
