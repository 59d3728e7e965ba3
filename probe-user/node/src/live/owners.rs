//! Who holds a socket: one pass over the descriptor tables of all processes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::{Errno, Result};

use super::files;
use super::held;
use super::procs::{
    cores, each_number, is_gone, open_dir, other_threads, pids, read_inode_link, start_time,
    stat_field,
};
use super::reader::Reader;
use super::safefs::Unreadable;
use whereis_port_model::{Owner, Owners, Pid, SocketInode, StartTime};

/// Looks for all holders of `wanted`. It can't stop at the first: a descriptor
/// can be inherited or passed on.
pub(super) fn scan(proc: &OwnedFd, wanted: &BTreeSet<SocketInode>) -> Result<Owners> {
    walk(proc, pids(proc)?, &DescriptorFilter::new(wanted))
}

/// Looks for holders among these processes only.
pub(super) fn scan_only(
    proc: &OwnedFd,
    pids: Vec<Pid>,
    wanted: &BTreeSet<SocketInode>,
) -> Result<Owners> {
    walk(proc, pids, &DescriptorFilter::new(wanted))
}

/// Looks for descriptors of network namespaces that are not among `known`. The
/// inodes of what it gives are theirs. The processes are those of whose descriptors
/// some could not be told, each with why.
pub(super) fn namespaces(
    proc: &OwnedFd,
    known: BTreeSet<u64>,
    reader: &Reader,
) -> Result<(Owners, BTreeMap<Pid, Unreadable>)> {
    let untold = Mutex::default();
    let inodes = Inodes::Except { known, reader: reader.clone(), untold: &untold };
    let owners = walk(proc, pids(proc)?, &DescriptorFilter { prefix: b"net:", inodes })?;
    Ok((owners, untold.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

fn walk(proc: &OwnedFd, pids: Vec<Pid>, wanted: &DescriptorFilter<'_>) -> Result<Owners> {
    let owners = Mutex::new(Owners::default());
    let next = AtomicUsize::new(0);
    let cores = cores(1).min(4).min(pids.len().div_ceil(4).max(1));
    let work = || {
        let mut mine = Owners::default();
        // Handed out in small lots: one process can hold most descriptors.
        while let Some(lot) = {
            let start = next.fetch_add(4, Ordering::Relaxed);
            pids.get(start..(start + 4).min(pids.len())).filter(|lot| !lot.is_empty())
        } {
            for pid in lot {
                process(proc, *pid, wanted, &mut mine);
            }
        }
        let mut owners = owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.holders.append(&mut mine.holders);
        owners.denied.append(&mut mine.denied);
        owners.denied_total += mine.denied_total;
    };
    std::thread::scope(|scope| {
        for _ in 1..cores {
            // One that can't be had leaves its work to the others.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut owners = owners.into_inner().unwrap_or_else(PoisonError::into_inner);
    owners.holders.sort_unstable();
    owners.denied.sort_unstable();
    owners.denied.truncate(Owners::DENIED);
    Ok(owners)
}

/// The descriptors that are looked for.
struct DescriptorFilter<'a> {
    /// What `/proc/PID/fd/N` points to begins with this.
    prefix: &'static [u8],
    inodes: Inodes<'a>,
}

/// Nearly always a handful or very many.
enum Inodes<'a> {
    Few(Vec<u64>),
    Many(std::collections::HashSet<u64>),
    Except { known: BTreeSet<u64>, reader: Reader, untold: &'a Mutex<BTreeMap<Pid, Unreadable>> },
}

impl DescriptorFilter<'_> {
    fn new(sockets: &BTreeSet<SocketInode>) -> Self {
        let inodes = if sockets.len() <= 8 {
            Inodes::Few(sockets.iter().copied().collect())
        } else {
            Inodes::Many(sockets.iter().copied().collect())
        };
        Self { prefix: b"socket:", inodes }
    }

    fn contains(&self, inode: u64) -> bool {
        match &self.inodes {
            Inodes::Few(few) => few.contains(&inode),
            Inodes::Many(many) => many.contains(&inode),
            Inodes::Except { known, .. } => !known.contains(&inode),
        }
    }
}

/// Looks through one process, its threads included where they have descriptor
/// tables of their own.
fn process(proc: &OwnedFd, pid: Pid, wanted: &DescriptorFilter<'_>, owners: &mut Owners) {
    let dir = match open_dir(proc, pid.to_string()) {
        Ok(dir) => dir,
        Err(error) => return unless_gone(error, pid, owners),
    };
    let leader = match table(dir.as_fd(), pid, c"fd", wanted) {
        Ok(found) => found,
        // A leader that has ended has no table, but its threads may have one. Nobody but root
        // may look where it was.
        Err(error) if is_gone(error) || has_ended(dir.as_fd()) => HashMap::new(),
        Err(_) => return deny(pid, owners),
    };
    confirm(dir.as_fd(), pid, None, &leader, owners);
    let threads = match other_threads(proc, pid) {
        Ok(threads) => threads,
        Err(error) => return unless_gone(error, pid, owners),
    };
    // Threads left behind by their leader have a table in common that is not its.
    let mut last = pid;
    for tid in threads {
        if shares_descriptors(pid, tid) || (last != pid && shares_descriptors(last, tid)) {
            continue;
        }
        let Ok(path) = std::ffi::CString::new(format!("task/{tid}/fd")) else { continue };
        match table(dir.as_fd(), pid, &path, wanted) {
            Ok(mut found) => {
                found.retain(|inode, _| !leader.contains_key(inode));
                confirm(dir.as_fd(), pid, Some(tid), &found, owners);
                last = tid;
            }
            Err(error) if is_gone(error) => {}
            Err(_) => return deny(pid, owners),
        }
    }
}

/// Whether a process has ended, and only its parent does not know yet.
fn has_ended(process: BorrowedFd<'_>) -> bool {
    let stat = files::read(process, c"stat", files::SMALL).unwrap_or_default().bytes;
    matches!(stat_field(&stat, 3), Some("Z" | "X"))
}

/// What can't be read for whatever reason, a lack of descriptors included, may
/// hold a socket; only what is gone holds none.
fn unless_gone(error: Errno, pid: Pid, owners: &mut Owners) {
    if !is_gone(error) {
        deny(pid, owners);
    }
}

fn deny(pid: Pid, owners: &mut Owners) {
    owners.denied_total += 1;
    owners.denied.push(pid);
}

/// What is wanted of one descriptor table, each with its lowest descriptor.
fn table(
    process: BorrowedFd<'_>,
    pid: Pid,
    path: &CStr,
    wanted: &DescriptorFilter<'_>,
) -> Result<HashMap<SocketInode, u32>> {
    let table = open_dir(process, path)?;
    let mut found = HashMap::new();
    let mut denied = None;
    each_number(&table, |number, name| {
        let mut root = false;
        match read_inode_link(&table, name, wanted.prefix, |target| root = *target == *b"/") {
            Ok(Some(inode)) if wanted.contains(inode) => {
                let lowest = found.entry(inode).or_insert(number);
                *lowest = number.min(*lowest);
            }
            // Where a mount was that is gone.
            Ok(None) if root => {
                if let Inodes::Except { reader, untold, .. } = &wanted.inodes {
                    match held::detached(reader, process, path, &table, name) {
                        Ok(Some(inode)) if wanted.contains(inode) => {
                            found.insert(inode, number);
                        }
                        Ok(_) => {}
                        Err(error) => {
                            let mut untold = untold.lock().unwrap_or_else(PoisonError::into_inner);
                            untold.entry(pid).or_insert(error);
                        }
                    }
                }
            }
            Ok(_) => {}
            Err(error) if is_gone(error) => {}
            Err(error) => denied = Some(error),
        }
        denied.is_none()
    })?;
    denied.map_or(Ok(found), Err)
}

/// Adds what was found, if the process is still the same one: between reading
/// its descriptors and reading its start time it may have gone, and its PID may
/// belong to another. `dir` refers to the process itself, not to the number, so
/// a start time read through it is the right one or an error.
fn confirm(
    dir: BorrowedFd<'_>,
    pid: Pid,
    tid: Option<Pid>,
    found: &HashMap<SocketInode, u32>,
    owners: &mut Owners,
) {
    if found.is_empty() {
        return;
    }
    if let Ok(Some(start)) = start_time(dir) {
        owners.holders.extend(found.iter().map(|(inode, fd)| Owner {
            inode: *inode,
            pid,
            start: StartTime(start),
            tid,
            fd: *fd,
        }));
    }
}

/// Whether a thread uses the descriptor table of its leader, as nearly all do.
/// `kcmp` (Linux 3.5, `CONFIG_KCMP`) tells by one call what else would cost
/// reading the whole table again; where it is missing the table is read.
#[expect(unsafe_code, reason = "kcmp has no safe wrapper; it takes integers only")]
fn shares_descriptors(pid: Pid, tid: Pid) -> bool {
    const KCMP_FILES: libc::c_long = 2;
    let (pid, tid) = (libc::c_long::from(pid), libc::c_long::from(tid));
    // SAFETY: kcmp takes five integers and touches no memory of this process.
    let order = unsafe {
        libc::syscall(libc::SYS_kcmp, pid, tid, KCMP_FILES, 0 as libc::c_long, 0 as libc::c_long)
    };
    order == 0
        || (order < 0
            && std::io::Error::last_os_error().raw_os_error() == Some(Errno::SRCH.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use super::*;

    fn inode_of(socket: &impl AsFd) -> SocketInode {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    fn scan_for(inode: SocketInode) -> Vec<Owner> {
        let proc = super::super::procs::open_root(Path::new("/proc")).unwrap();
        scan(&proc, &BTreeSet::from([inode])).unwrap().holders
    }

    #[test]
    fn own_socket_is_found_once_with_its_lowest_descriptor() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let copy = listener.try_clone().unwrap();
        let found = scan_for(inode_of(&listener));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].pid, std::process::id());
        let lowest = listener.as_raw_fd().min(copy.as_raw_fd());
        assert_eq!(i64::from(found[0].fd), i64::from(lowest));
        assert_eq!(found[0].tid, None);
    }

    #[test]
    fn a_closed_socket_has_no_owner() {
        let inode = inode_of(&TcpListener::bind("127.0.0.1:0").unwrap());
        assert!(scan_for(inode).is_empty());
    }

    #[test]
    #[expect(unsafe_code, reason = "the thread gets a descriptor table of its own on purpose")]
    fn a_socket_of_a_thread_with_its_own_table_is_found() {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            // SAFETY: the thread uses no descriptor made by another thread
            // afterwards, and no other thread uses one of its.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }.unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            tell.send((inode_of(&listener), rustix::thread::gettid())).unwrap();
            let _ = stopped.recv();
        });
        let (inode, tid) = told.recv().unwrap();
        let found = scan_for(inode);
        drop(stop);
        thread.join().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        let tid = u32::try_from(tid.as_raw_nonzero().get()).unwrap();
        assert_eq!((found[0].pid, found[0].tid), (std::process::id(), Some(tid)));
    }
}
