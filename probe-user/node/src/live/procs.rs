//! Walking `/proc` cheaply: directory entries and links through descriptors,
//! without building a path or a string for each of thousands of them.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::{Errno, Result};

use whereis_port_model::Pid;

/// Enough for a few hundred directory entries in one system call.
const BUFFER: usize = 32 * 1024;

/// How many threads can run at once, or `unknown`. Asked once: the answer takes
/// the reading of several files of the cgroup.
pub(super) fn cores(unknown: usize) -> usize {
    static CORES: OnceLock<Option<usize>> = OnceLock::new();
    CORES
        .get_or_init(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(unknown)
}

/// Opens a directory of procfs, relative to `dir`.
pub(super) fn open_dir(dir: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd> {
    rustix::fs::openat(
        dir,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens the root of procfs.
pub(super) fn open_root(proc: &Path) -> Result<OwnedFd> {
    open_dir(rustix::fs::CWD, proc)
}

/// Calls `each` with every entry that is a number, until it returns `false`.
pub(super) fn each_number(dir: impl AsFd, mut each: impl FnMut(u32, &CStr) -> bool) -> Result<()> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(number) = parse_number(name.to_bytes())
            && !each(number, name)
        {
            break;
        }
    }
    Ok(())
}

/// Calls `each` with every entry.
pub(super) fn each_name(dir: impl AsFd, mut each: impl FnMut(&CStr)) -> Result<()> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        each(entry?.file_name());
    }
    Ok(())
}

/// Every process id in `proc`, ascending.
pub(super) fn pids(proc: impl AsFd) -> Result<Vec<Pid>> {
    let mut pids = Vec::with_capacity(256);
    // Opened anew: a directory's descriptor remembers how far it was read.
    each_number(open_dir(proc, c".")?, |pid, _| {
        pids.push(pid);
        true
    })?;
    pids.sort_unstable();
    Ok(pids)
}

/// The threads of a process other than its leader. Empty without a system call
/// per thread when it has none: the link count of `task` is 2 plus the threads.
pub(super) fn other_threads(proc: impl AsFd, pid: Pid) -> Result<Vec<Pid>> {
    let task = format!("{pid}/task");
    if rustix::fs::statat(&proc, task.as_str(), AtFlags::empty())?.st_nlink <= 3 {
        return Ok(Vec::new());
    }
    let mut tids = Vec::new();
    each_number(open_dir(&proc, task.as_str())?, |tid, _| {
        if tid != pid {
            tids.push(tid);
        }
        true
    })?;
    Ok(tids)
}

/// What a link like `net:[4026531833]` or `socket:[114819]` points to.
pub(super) fn inode_link(
    dir: impl AsFd,
    name: impl rustix::path::Arg,
    prefix: &[u8],
) -> Result<Option<u64>> {
    read_inode_link(dir, name, prefix, |_| {})
}

/// The same; `look` sees what the link points to, cut at 64 bytes.
pub(super) fn read_inode_link(
    dir: impl AsFd,
    name: impl rustix::path::Arg,
    prefix: &[u8],
    look: impl FnOnce(&[u8]),
) -> Result<Option<u64>> {
    let mut buffer = [MaybeUninit::uninit(); 64];
    let (target, _) = rustix::fs::readlinkat_raw(dir, name, &mut buffer)?;
    look(target);
    Ok(parse_inode(target, prefix))
}

/// What a link of procfs points to. Nothing of that is touched.
pub(super) fn link(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<PathBuf> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
    Ok(std::ffi::OsString::from_vec(target.into_bytes()).into())
}

/// `PREFIX[NUMBER]`.
fn parse_inode(target: &[u8], prefix: &[u8]) -> Option<u64> {
    let digits = target.strip_prefix(prefix)?.strip_prefix(b"[")?.strip_suffix(b"]")?;
    (!digits.is_empty()).then_some(())?;
    digits.iter().try_fold(0u64, |n, d| {
        let digit = d.is_ascii_digit().then(|| u64::from(d - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

fn parse_number(name: &[u8]) -> Option<u32> {
    if !name.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// Whether an error says that the process or thread is gone.
pub(super) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::SRCH)
}

/// Whether an error says that the reader lacks a right.
pub(super) fn is_denied(error: Errno) -> bool {
    matches!(error, Errno::ACCESS | Errno::PERM)
}

/// A field of the text of `/proc/PID/stat` by its number in proc(5), 3 or more: those are
/// counted after the last `)`, since the second is a name that may hold spaces and brackets.
pub(super) fn stat_field(stat: &[u8], number: usize) -> Option<&str> {
    let after = stat.iter().rposition(|b| *b == b')')? + 1;
    let fields = std::str::from_utf8(stat.get(after..)?).ok()?;
    fields.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

/// When the process started, in ticks of the clock since the machine did.
pub(super) fn parse_start_time(stat: &[u8]) -> Option<u64> {
    stat_field(stat, 22)?.parse().ok()
}

/// The process that started it, or took it over.
pub(super) fn parse_parent(stat: &[u8]) -> Option<Pid> {
    stat_field(stat, 4)?.parse().ok()
}

/// Reads the start time of the process whose directory is `process`.
pub(super) fn start_time(process: BorrowedFd<'_>) -> Result<Option<u64>> {
    let fd = rustix::fs::openat(process, c"stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [0u8; 1024];
    let length = rustix::io::read(&fd, &mut buffer)?;
    Ok(parse_start_time(&buffer[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_parsed_strictly() {
        assert_eq!(parse_inode(b"socket:[114819]", b"socket:"), Some(114_819));
        assert_eq!(parse_inode(b"net:[4026531833]", b"net:"), Some(4_026_531_833));
        for bad in
            [&b"socket:[]"[..], b"socket:[12", b"socket:[1x]", b"pipe:[12]", b"/tmp/socket:[1]"]
        {
            assert_eq!(parse_inode(bad, b"socket:"), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_process_name_cannot_shift_the_fields_behind_it() {
        let stat = b"29391 (a) R 1 (b) S 29328 1 2 3 4 5 6 7 8 9 10 11 12 13 20 0 1 0 555 0 0";
        // Counted by hand: 555 is the twentieth field after the last bracket.
        assert_eq!(parse_start_time(stat), Some(555));
        assert_eq!((parse_parent(stat), stat_field(stat, 3)), (Some(29328), Some("S")));
        for cut in [&b"12 (cut"[..], b"", b"12 (a) S", b"12 (a)"] {
            assert_eq!((parse_start_time(cut), parse_parent(cut)), (None, None));
        }
        assert_eq!(stat_field(stat, 2), None);
    }

    #[test]
    fn own_process_is_listed_with_its_start_time() {
        let proc = open_root(Path::new("/proc")).unwrap();
        let me = std::process::id();
        assert!(pids(&proc).unwrap().contains(&me));
        let dir = open_dir(&proc, me.to_string()).unwrap();
        assert!(start_time(dir.as_fd()).unwrap().is_some());
    }

    #[test]
    fn threads_other_than_the_leader_are_found() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || stopped.recv());
        let proc = open_root(Path::new("/proc")).unwrap();
        let me = std::process::id();
        let threads = other_threads(&proc, me).unwrap();
        drop(stop);
        let _ = thread.join();
        assert!(!threads.is_empty());
        assert!(!threads.contains(&me));
    }
}
