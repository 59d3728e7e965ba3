//! What is known of a process, through procfs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use procfs::FromRead;
use procfs::process::Stat;
use rustix::fs::{Mode, OFlags};

use super::procs::{inode_link, open_dir};
use crate::model::{Ancestor, NetnsId, Pid, Process, StartTime, parse_proc_cgroup};

/// How far up the parents are followed: a loop is impossible, but processes
/// move while they are read.
const MAX_ANCESTORS: usize = 64;
/// Command lines can be megabytes long; what is over this is cut.
const MAX_ARGUMENTS: usize = 32 * 1024;

/// Reads processes, and remembers parents and user names that many share.
#[derive(Debug)]
pub(super) struct Processes {
    proc: Rc<OwnedFd>,
    /// Seconds since the epoch at boot, and clock ticks per second.
    boot: Option<(u64, u64)>,
    users: HashMap<u32, String>,
    own_userns: Option<u64>,
    parents: RefCell<HashMap<Pid, (Ancestor, Pid)>>,
}

impl Processes {
    pub(super) fn new(proc: Rc<OwnedFd>) -> Self {
        let own_userns = inode_link(&*proc, c"self/ns/user", b"user:").ok().flatten();
        Self {
            proc,
            boot: boot(),
            users: parse_passwd(&std::fs::read_to_string("/etc/passwd").unwrap_or_default()),
            own_userns,
            parents: RefCell::default(),
        }
    }

    /// Reads one process. `None` when it has exited. Everything is read through
    /// one descriptor of its directory, so that all of it is about one process
    /// even when the number is used again meanwhile.
    pub(super) fn read(&self, pid: Pid) -> Option<Process> {
        let dir = open_dir(&*self.proc, pid.to_string()).ok()?;
        let dir = dir.as_fd();
        let stat = read_stat(dir)?;
        let (uid, nspid) = ids(&read_text(dir, c"status", 1 << 20)?, pid)?;
        Some(Process {
            pid,
            start: StartTime(stat.starttime),
            started_at: self.boot.map(|(boot, hz)| boot + stat.starttime / hz.max(1)),
            comm: stat.comm,
            cmdline: arguments(&read_text(dir, c"cmdline", MAX_ARGUMENTS).unwrap_or_default()),
            exe: link(dir, c"exe"),
            cwd: link(dir, c"cwd"),
            uid,
            user: self.user(dir, uid),
            nspid,
            netns: inode_link(dir, c"ns/net", b"net:").ok().flatten().map(NetnsId::Inode),
            cgroup: read_text(dir, c"cgroup", 64 * 1024).as_deref().and_then(parse_proc_cgroup),
            ancestors: self.ancestors(u32::try_from(stat.ppid).unwrap_or(0)),
        })
    }

    /// The name of a user id on this host, unless the process counts its ids in
    /// another user namespace.
    fn user(&self, dir: BorrowedFd<'_>, uid: u32) -> Option<String> {
        let theirs = inode_link(dir, c"ns/user", b"user:").ok().flatten();
        if theirs.is_some() && theirs != self.own_userns {
            return None;
        }
        self.users.get(&uid).cloned()
    }

    fn ancestors(&self, mut pid: Pid) -> Vec<Ancestor> {
        let mut ancestors: Vec<Ancestor> = Vec::new();
        let mut parents = self.parents.borrow_mut();
        while pid != 0 && ancestors.len() < MAX_ANCESTORS {
            let known = parents.get(&pid).cloned().or_else(|| {
                let stat = read_stat(open_dir(&*self.proc, pid.to_string()).ok()?.as_fd())?;
                let found =
                    (Ancestor { pid, comm: stat.comm }, u32::try_from(stat.ppid).unwrap_or(0));
                parents.insert(pid, found.clone());
                Some(found)
            });
            let Some((ancestor, parent)) = known else { break };
            if ancestors.iter().any(|a| a.pid == ancestor.pid) {
                break;
            }
            ancestors.push(ancestor);
            pid = parent;
        }
        ancestors
    }
}

fn read_stat(dir: BorrowedFd<'_>) -> Option<Stat> {
    Stat::from_read(read_text(dir, c"stat", 4096)?.as_bytes()).ok()
}

/// A file of procfs, at most `limit` bytes, with what is not UTF-8 replaced: a
/// process may call itself anything.
pub(super) fn read_text(
    dir: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    limit: usize,
) -> Option<String> {
    let fd = rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    // Most files of procfs fit at once; their size is not told beforehand.
    let mut bytes = Vec::with_capacity(4096);
    std::fs::File::from(fd).take(limit as u64).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8(bytes);
    Some(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn link(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> Option<String> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new()).ok()?;
    Some(target.to_string_lossy().into_owned())
}

/// The arguments, each ended by a NUL in the kernel's text.
fn arguments(text: &str) -> Vec<String> {
    let text = text.strip_suffix('\0').unwrap_or(text);
    if text.is_empty() { Vec::new() } else { text.split('\0').map(str::to_owned).collect() }
}

/// From the text of `/proc/PID/status` the real user id, and the process's ids in
/// each PID namespace. Before Linux 4.1 there is only the outer one.
fn ids(status: &str, pid: Pid) -> Option<(u32, Vec<Pid>)> {
    let fields = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_ascii_whitespace().filter_map(|id| id.parse().ok()))
    };
    let uid = fields("Uid:")?.next()?;
    let nspid: Vec<Pid> = fields("NSpid:").into_iter().flatten().collect();
    Some((uid, if nspid.is_empty() { vec![pid] } else { nspid }))
}

/// When the machine booted, in seconds since the epoch, and ticks per second.
fn boot() -> Option<(u64, u64)> {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::Realtime);
    let up = clock_gettime(ClockId::Boottime);
    let boot = (now.tv_sec - up.tv_sec) - i64::from(now.tv_nsec < up.tv_nsec);
    Some((u64::try_from(boot).ok()?, procfs::ticks_per_second()))
}

/// User names by id from passwd(5). The first name of an id counts.
fn parse_passwd(text: &str) -> HashMap<u32, String> {
    let mut users = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1).and_then(|u| u.parse().ok()))
        {
            users.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes() -> Processes {
        let proc = super::super::procs::open_root(std::path::Path::new("/proc")).unwrap();
        Processes::new(Rc::new(proc))
    }

    #[test]
    fn the_own_process_is_read_whole() {
        let me = std::process::id();
        let process = processes().read(me).unwrap();
        assert_eq!(process.pid, me);
        assert!(!process.cmdline.is_empty());
        assert!(process.exe.is_some() && process.cwd.is_some());
        assert_eq!(process.nspid.first(), Some(&me));
        assert!(process.netns.is_some());
        assert_ne!(process.ancestors, []);
        let age =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
                - process.started_at.unwrap();
        assert!(age < 3600, "started {age} s ago");
    }

    #[test]
    fn a_process_that_is_gone_is_none() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(processes().read(child.id()), None);
    }

    #[test]
    fn passwd_lines_are_read_and_damage_is_skipped() {
        let users = parse_passwd(
            "root:x:0:0:r:/root:/bin/sh\ntoor:x:0:0::/:\n\nbad\nn:x:y:\nweb:x:33:33::/:\n",
        );
        assert_eq!(users.get(&0).map(String::as_str), Some("root"));
        assert_eq!(users.get(&33).map(String::as_str), Some("web"));
        assert_eq!(users.len(), 2);
    }

    #[test]
    fn ids_are_read_from_the_status() {
        // A name can't have a newline: the kernel escapes it.
        let status = "Name:\tUid: 7\nNgid:\t0\nPid:\t20\nUid:\t33\t34\t34\t34\nNSpid:\t20\t1\nVmPeak:\t4 kB\n";
        assert_eq!(ids(status, 20), Some((33, vec![20, 1])));
        assert_eq!(ids("Uid:\t0\t0\t0\t0\n", 5), Some((0, vec![5])));
        assert_eq!(ids("Name:\tx\n", 5), None);
    }

    #[test]
    fn arguments_keep_empty_ones() {
        assert_eq!(arguments(""), Vec::<String>::new());
        assert_eq!(arguments("a\0\0-x\0"), ["a", "", "-x"]);
        assert_eq!(arguments("set by setproctitle"), ["set by setproctitle"]);
    }
}
