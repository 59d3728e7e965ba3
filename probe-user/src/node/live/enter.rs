//! Doing something inside other network namespaces.
//!
//! The calling thread never enters one: threads made for it do, and end
//! afterwards, so that nothing else of the process can find itself elsewhere.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Mode, OFlags};
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
    /// Files that may refer to it: `/proc/PID/ns/net`, `/run/netns/NAME`.
    /// A process may have exited or a name have been reused, so each is checked.
    pub(super) paths: Vec<PathBuf>,
}

/// Why a namespace could not be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is gone: no file refers to it any more.
    Gone,
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
        for path in &self.paths {
            match open_checked(path, inode) {
                Ok(Some(fd)) => return Ok(fd),
                Ok(None) | Err(Errno::NOENT | Errno::SRCH | Errno::NOTDIR) => {}
                Err(error) if super::procs::is_denied(error) => refused = Refused::Denied(error),
                Err(error) if refused == Refused::Gone => refused = Refused::Failed(error),
                Err(_) => {}
            }
        }
        Err(refused)
    }
}

/// Opens `path` if it is the namespace with this inode. Looked at by `O_PATH`
/// first: a path inside a container could be a device or a FIFO by now.
fn open_checked(path: &std::path::Path, inode: u64) -> Result<Option<OwnedFd>, Errno> {
    let look = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&look)?;
    let nsfs = rustix::fs::stat("/proc/self/ns/net")?.st_dev;
    if stat.st_ino != inode || stat.st_dev != nsfs {
        return Ok(None);
    }
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&look.as_fd()));
    rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(Some)
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
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..others.min(cores) {
            scope.spawn(|| {
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
    results.into_iter().map(|r| r.unwrap_or(Err(Refused::Gone))).collect()
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
