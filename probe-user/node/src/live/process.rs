//! What is known of a process, through procfs.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use procfs::FromRead;
use procfs::process::Stat;

use super::files::{self, ARGUMENTS, Beginning, SMALL};
use super::freezer::Freezers;
use super::monitors::Monitors;
use super::procs::{inode_link, open_dir};
use super::program;
use super::reader::Reader;
use super::safefs::Unreadable;
use whereis_port_model::{
    Ancestor, FsIds, Gap, GapKind, GapSource, Impact, NetnsId, Pid, Process, ProcessHealth,
    ProcessState, StartTime, parse_proc_cgroup,
};

/// How far up the parents are followed: a loop is impossible, but processes
/// move while they are read.
const MAX_ANCESTORS: usize = 64;
/// The file of the command line.
pub(super) const CMDLINE: &str = "cmdline";

/// Reads processes, and remembers parents and user names that many share.
#[derive(Debug)]
pub(super) struct ProcessReader {
    proc: Rc<OwnedFd>,
    /// Seconds since the epoch at boot, and clock ticks per second.
    boot: Option<(u64, u64)>,
    users: HashMap<u32, String>,
    own_userns: Option<u64>,
    parents: RefCell<HashMap<Pid, (Ancestor, Pid)>>,
    reader: Reader,
    monitors: Monitors,
    freezers: OnceCell<Freezers>,
    /// Processes whose command line was not read, and why.
    silent: RefCell<HashMap<Pid, Unreadable>>,
}

impl ProcessReader {
    pub(super) fn new(proc: Rc<OwnedFd>, reader: Reader, monitors: Monitors) -> Self {
        let own_userns = inode_link(&*proc, c"self/ns/user", b"user:").ok().flatten();
        Self {
            proc,
            boot: boot(),
            users: parse_passwd(&files::text("/etc/passwd", files::TABLE).unwrap_or_default()),
            own_userns,
            parents: RefCell::default(),
            reader,
            monitors,
            freezers: OnceCell::new(),
            silent: RefCell::default(),
        }
    }

    /// Reads one process. `None` when it has exited. Everything is read through
    /// one descriptor of its directory, so that all of it is about one process
    /// even when the number is used again meanwhile.
    pub(super) fn read(&self, pid: Pid) -> Option<Process> {
        let dir = open_dir(&*self.proc, pid.to_string()).ok()?;
        let dir = dir.as_fd();
        let stat = read_stat(dir)?;
        let Ids { uid, fs, nspid } = ids(&read_text(dir, c"status")?, pid)?;
        let (own_word, names) = program::is_own_word(&self.reader, dir, uid);
        let exe = link(dir, c"exe");
        let cgroup = read_text(dir, c"cgroup");
        let frozen = cgroup.as_deref().and_then(|text| {
            self.freezers.get_or_init(|| Freezers::find(&self.reader)).is_frozen(text)
        });
        let cgroup = cgroup.as_deref().and_then(parse_proc_cgroup);
        let health = ProcessHealth {
            state: state(&stat),
            frozen,
            program_deleted: exe.as_deref().zip(names).map(|(exe, names)| is_deleted(exe, names)),
        };
        Some(Process {
            pid,
            start: StartTime(stat.starttime),
            started_at: self.boot.map(|(boot, hz)| boot + stat.starttime / hz.max(1)),
            comm: stat.comm,
            cmdline: self.arguments(dir, pid),
            exe,
            cwd: link(dir, c"cwd"),
            uid,
            fs,
            own_word,
            user: self.user(dir, uid),
            nspid,
            netns: inode_link(dir, c"ns/net", b"net:").ok().flatten().map(NetnsId::Inode),
            monitored: match &cgroup {
                Some(path) if !path.containers().is_empty() => None,
                _ => self.monitors.of(pid),
            },
            cgroup,
            ancestors: self.ancestors(u32::try_from(stat.ppid).unwrap_or(0)),
            health,
        })
    }

    /// Its command line. The kernel reads that from the memory of the process, which can be
    /// kept busy for ever.
    fn arguments(&self, dir: BorrowedFd<'_>, pid: Pid) -> Vec<String> {
        match self.reader.of_process(dir, CMDLINE, ARGUMENTS) {
            Ok(raw) => files::arguments(&raw),
            Err(error @ (Unreadable::Silent(_) | Unreadable::LeftOut(_))) => {
                self.silent.borrow_mut().insert(pid, error);
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    /// What is not known of these processes.
    pub(super) fn gaps(&self, pids: &[Pid]) -> Vec<Gap> {
        let silent = self.silent.borrow();
        let mut of = pids.iter().filter_map(|pid| Some((pid, silent.get(pid)?)));
        let Some((first, error)) = of.next() else { return Vec::new() };
        let source = match of.count() {
            0 => format!("/proc/{first}/cmdline"),
            more => format!("/proc/{first}/cmdline and {more} more"),
        };
        let source = GapSource::new(GapKind::CommandLine, source);
        let gap = Gap::new(Impact::Way, source, error.to_string());
        vec![gap.remedy("look what the memory of the process waits for: cat /proc/PID/stack")]
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

/// Whether a process runs: the state is that of its first thread, and signals stop all.
fn state(stat: &Stat) -> Option<ProcessState> {
    match stat.state {
        'R' | 'S' | 'D' | 'I' | 'P' | 'W' | 'K' => Some(ProcessState::Running),
        'T' => Some(ProcessState::Stopped),
        't' => Some(ProcessState::Traced),
        'Z' if stat.num_threads > 1 => Some(ProcessState::LeaderEnded),
        _ => None,
    }
}

/// Whether the file that a process runs is gone from where it was. The kernel says so behind its
/// path, which anybody may call a file; but then it has a name. One in memory never had one.
fn is_deleted(exe: &str, names: u32) -> bool {
    names == 0 && exe.ends_with(" (deleted)") && !exe.starts_with("/memfd:")
}

fn read_stat(dir: BorrowedFd<'_>) -> Option<Stat> {
    Stat::from_read(read_text(dir, c"stat")?.as_bytes()).ok()
}

/// A small file of procfs.
fn read_text(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> Option<String> {
    files::read(dir, name, SMALL).map(Beginning::text).ok()
}

fn link(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> Option<String> {
    Some(super::procs::link(dir, name).ok()?.to_string_lossy().into_owned())
}

/// The ids of a process.
#[derive(Debug, PartialEq)]
struct Ids {
    /// The real user.
    uid: u32,
    fs: Option<FsIds>,
    /// Its own in each PID namespace.
    nspid: Vec<Pid>,
}

/// The ids in the text of `/proc/PID/status`. Before Linux 4.1 there is only the outer PID.
fn ids(status: &str, pid: Pid) -> Option<Ids> {
    let fields = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_ascii_whitespace().filter_map(|id| id.parse::<u32>().ok()))
    };
    // Real, effective, saved, and for files.
    let uid = fields("Uid:")?.next()?;
    let of_files = |name| fields(name)?.nth(3);
    let fs = of_files("Uid:").zip(of_files("Gid:")).map(|(uid, gid)| FsIds { uid, gid });
    let nspid: Vec<Pid> = fields("NSpid:").into_iter().flatten().collect();
    Some(Ids { uid, fs, nspid: if nspid.is_empty() { vec![pid] } else { nspid } })
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

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(text: &str) {
    ids(text, 1);
    parse_passwd(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes() -> ProcessReader {
        let proc = super::super::procs::open_root(std::path::Path::new("/proc")).unwrap();
        let monitors = Monitors::new(std::path::Path::new("/proc"), Reader::default());
        ProcessReader::new(Rc::new(proc), Reader::default(), monitors)
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
    fn a_program_is_deleted_when_it_has_no_name_left() {
        for (exe, names, expected) in [
            ("/usr/bin/x (deleted)", 0, true),
            ("/usr/bin/x (deleted)", 1, false),
            ("/usr/bin/x", 0, false),
            ("/memfd:x (deleted)", 0, false),
        ] {
            assert_eq!(is_deleted(exe, names), expected, "{exe} {names}");
        }
    }

    #[test]
    fn a_process_that_is_stopped_is_told_as_such() {
        use rustix::process::{Pid, Signal, kill_process};
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        let processes = processes();
        let state = || processes.read(child.id()).unwrap().health.state;
        let until = |wanted| {
            while state() != Some(wanted) {
                std::thread::yield_now();
            }
        };
        until(ProcessState::Running);
        kill_process(pid, Signal::STOP).unwrap();
        until(ProcessState::Stopped);
        kill_process(pid, Signal::CONT).unwrap();
        until(ProcessState::Running);
        child.kill().unwrap();
        child.wait().unwrap();
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
        let status = "Name:\tUid: 7\nNgid:\t0\nPid:\t20\nUid:\t33\t34\t34\t35\nGid:\t33\t34\t34\t36\nNSpid:\t20\t1\nVmPeak:\t4 kB\n";
        let fs = Some(FsIds { uid: 35, gid: 36 });
        assert_eq!(ids(status, 20), Some(Ids { uid: 33, fs, nspid: vec![20, 1] }));
        let old = Ids { uid: 0, fs: None, nspid: vec![5] };
        assert_eq!(ids("Uid:\t0\t0\t0\t0\n", 5), Some(old));
        assert_eq!(ids("Name:\tx\n", 5), None);
    }
}
