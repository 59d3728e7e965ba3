//! Doing something inside other network namespaces.
//!
//! The calling thread never enters one: threads made for it do, and end
//! afterwards, so that nothing else of the process can find itself elsewhere.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

use crate::model::NetnsId;

/// A namespace and the files through which it can be entered.
#[derive(Debug, Clone)]
pub(super) struct Door {
    /// The namespace.
    pub(super) id: NetnsId,
    /// Whether the process is in it already.
    pub(super) own: bool,
    /// What may lead to it. A process may have exited or a name have been reused,
    /// so each is checked.
    pub(super) ways: Vec<Way>,
}

/// A file that may refer to a namespace.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// One that our own files lead to: `/proc/PID/ns/net`, `/run/netns/NAME`.
    Path(PathBuf),
    /// A mount that a process sees.
    Mount {
        /// `/proc/PID`.
        process: PathBuf,
        /// Where it is, below the root of that process.
        point: PathBuf,
        /// Whether looking there may block for ever; it is not done then.
        blocked: bool,
    },
}

/// Why a namespace could not be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is gone: no file refers to it any more.
    Gone,
    /// It is pinned by a mount that can't be looked at: another mount covers it,
    /// or it lies on a file system that may never answer.
    Unreachable,
    /// The kernel did not allow it.
    Denied(Errno),
    /// Something else went wrong.
    Failed(Errno),
}

impl Door {
    /// Opens the namespace. The descriptor surely refers to it: the inode and
    /// the file system are compared before anything but the path is opened.
    pub(super) fn open(&self) -> Result<OwnedFd, Refused> {
        let inode = self.id.inode().ok_or(Refused::Denied(Errno::ACCESS))?;
        let mut refused = Refused::Gone;
        for way in &self.ways {
            match way.open(inode) {
                Ok(Some(fd)) => return Ok(fd),
                Ok(None) | Err(Errno::NOENT | Errno::SRCH | Errno::NOTDIR | Errno::LOOP) => {
                    if refused == Refused::Gone && way.is_still_mounted(inode) {
                        refused = Refused::Unreachable;
                    }
                }
                Err(error) if super::procs::is_denied(error) => refused = Refused::Denied(error),
                Err(error) if refused == Refused::Gone => refused = Refused::Failed(error),
                Err(_) => {}
            }
        }
        Err(refused)
    }
}

impl Way {
    /// Opens the file if it is the namespace with this inode. Looked at by
    /// `O_PATH` first: a path inside a container could be a device or a FIFO by
    /// now.
    fn open(&self, inode: u64) -> Result<Option<OwnedFd>, Errno> {
        let look = match self {
            Self::Path(path) => {
                rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?
            }
            Self::Mount { blocked: true, .. } => return Ok(None),
            Self::Mount { process, point, .. } => look_below(&process.join("root"), point)?,
        };
        let stat = rustix::fs::fstat(&look)?;
        let nsfs = rustix::fs::stat("/proc/self/ns/net")?.st_dev;
        if stat.st_ino != inode || stat.st_dev != nsfs {
            return Ok(None);
        }
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&look.as_fd()));
        rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(Some)
    }

    /// Whether it is a mount that is still listed, though it did not open.
    fn is_still_mounted(&self, inode: u64) -> bool {
        let Self::Mount { process, .. } = self else { return false };
        let table = super::mounts::read(rustix::fs::CWD, process.join("mountinfo"));
        let pins = super::mounts::pins(&table.unwrap_or_default(), true);
        pins.iter().any(|pin| pin.inode == inode)
    }
}

/// Opens a mount point, which has no symbolic link on its way: one that is there
/// by now could lead out of the container.
pub(super) fn look_below(root: &Path, point: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: something was renamed during the look-up.
    for _ in 0..4 {
        match rustix::fs::openat2(&top, point, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            // Before Linux 5.6, or refused by a seccomp filter that does not
            // know the call.
            Err(Errno::NOSYS | Errno::PERM) => {
                let below = point.strip_prefix("/").unwrap_or(point);
                return rustix::fs::openat(&top, below, flags, Mode::empty());
            }
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Runs `work` inside each namespace and returns the results in order. The own
/// namespace needs no thread.
pub(super) fn in_each<T: Send>(
    doors: &[Door],
    work: impl Fn(&Door) -> T + Sync,
) -> Vec<Result<T, Refused>> {
    let others = doors.iter().filter(|d| !d.own).count();
    let results: Mutex<Vec<Option<Result<T, Refused>>>> =
        Mutex::new(doors.iter().map(|_| None).collect());
    let put = |index: usize, result| {
        let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        results[index] = Some(result);
    };
    let next = AtomicUsize::new(0);
    let cores = super::procs::cores(2);
    std::thread::scope(|scope| {
        for _ in 0..others.min(cores) {
            // One thread that can't be had leaves its work to the others.
            let _ = std::thread::Builder::new().spawn_scoped(scope, || {
                while let Some((index, door)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    doors.get(index).map(|door| (index, door))
                } {
                    if !door.own {
                        put(index, enter(door).map(|()| work(door)));
                    }
                }
            });
        }
        for (index, door) in doors.iter().enumerate().filter(|(_, door)| door.own) {
            put(index, Ok(work(door)));
        }
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.into_iter().map(|r| r.unwrap_or(Err(Refused::Failed(Errno::AGAIN)))).collect()
}

/// Moves this thread into the namespace.
fn enter(door: &Door) -> Result<(), Refused> {
    let fd = door.open()?;
    rustix::thread::move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
        |error| {
            if super::procs::is_denied(error) {
                Refused::Denied(error)
            } else {
                Refused::Failed(error)
            }
        },
    )
}
