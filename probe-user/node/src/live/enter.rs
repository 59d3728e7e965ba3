//! Doing something inside other network namespaces.
//!
//! The calling thread never enters one: threads of a pool do, which do nothing else and end
//! with it, so that nothing else of the process can find itself elsewhere.

use std::cell::Cell;
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

use super::reader::{Reader, RootDirectory};
use super::safefs::Unreadable;
use super::{files, mounts};
use whereis_port_model::NetnsId;

/// A namespace and the files through which it can be entered.
#[derive(Debug, Clone)]
pub(super) struct NetnsHandle {
    /// The namespace.
    pub(super) id: NetnsId,
    /// Whether the process is in it already.
    pub(super) own: bool,
    /// What may lead to it. A process may have exited or a name have been reused,
    /// so each is checked.
    pub(super) ways: Vec<NetnsPath>,
}

/// A file by which a namespace can be entered.
#[derive(Debug, Clone)]
pub(super) enum NetnsPath {
    /// One that only the kernel's and root's own files lead to: `/proc/PID/ns/net`,
    /// `/run/netns/NAME`.
    Path(PathBuf),
    /// A mount in a table, at this point.
    Mount(Arc<MountNamespace>, PathBuf),
}

/// A mount table, and where the files that are mounted in it can be looked at.
#[derive(Debug)]
pub(super) struct MountNamespace {
    /// `/proc/PID`.
    process: PathBuf,
    reader: Reader,
    root: OnceLock<Result<RootDirectory, Unreadable>>,
    /// The namespaces that are in it now, asked for when one can't be opened.
    now: OnceLock<HashSet<u64>>,
}

/// Why a namespace could not be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EnterError {
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

impl NetnsHandle {
    /// Opens the namespace. The descriptor surely refers to it: the inode and
    /// the file system are compared before anything but the path is opened.
    pub(super) fn open(&self) -> Result<OwnedFd, EnterError> {
        let inode = self.id.inode().ok_or(EnterError::Denied(Errno::ACCESS))?;
        let mut refused = EnterError::Gone;
        // First what can be opened at once.
        let (mounts, paths): (Vec<&NetnsPath>, Vec<&NetnsPath>) =
            self.ways.iter().partition(|way| matches!(way, NetnsPath::Mount(..)));
        for way in paths.into_iter().chain(mounts) {
            match way.open(inode) {
                Ok(Some(fd)) => return Ok(fd),
                Ok(None) | Err(EnterError::Gone) => {
                    if refused == EnterError::Gone && way.is_still_mounted(inode) {
                        refused = EnterError::Unreachable;
                    }
                }
                Err(error @ EnterError::Denied(_)) => refused = error,
                Err(error) if refused == EnterError::Gone => refused = error,
                Err(_) => {}
            }
        }
        Err(refused)
    }
}

impl From<Errno> for EnterError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::SRCH | Errno::NOTDIR | Errno::LOOP => Self::Gone,
            error if super::procs::is_denied(error) => Self::Denied(error),
            error => Self::Failed(error),
        }
    }
}

impl From<Unreadable> for EnterError {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Missing | Unreadable::WrongKind(_) => Self::Gone,
            Unreadable::Denied => Self::Denied(Errno::ACCESS),
            Unreadable::Silent(_) | Unreadable::LeftOut(_) => Self::Unreachable,
            Unreadable::TooBig(_) | Unreadable::Foreign(_) | Unreadable::Failed(_) => {
                Self::Failed(Errno::IO)
            }
        }
    }
}

impl NetnsPath {
    /// Opens the file if it is the namespace with this inode. Looked at by
    /// `O_PATH` first: a path inside a container could be a device or a FIFO by
    /// now.
    fn open(&self, inode: u64) -> Result<Option<OwnedFd>, EnterError> {
        let (look, dev, ino) = match self {
            Self::Path(path) => {
                let look = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                let stat = rustix::fs::fstat(&look)?;
                (look, stat.st_dev, stat.st_ino)
            }
            Self::Mount(mounts, point) => {
                let (look, stat) = mounts.root()?.look(point)?;
                (look, stat.dev, stat.ino)
            }
        };
        let nsfs = rustix::fs::stat("/proc/self/ns/net")?.st_dev;
        if ino != inode || dev != nsfs {
            return Ok(None);
        }
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&look.as_fd()));
        Ok(Some(rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Whether it is a mount that is still listed, though it did not open.
    fn is_still_mounted(&self, inode: u64) -> bool {
        let Self::Mount(mounts, _) = self else { return false };
        mounts.now().contains(&inode)
    }
}

impl MountNamespace {
    /// The table of the process whose directory in procfs is `process`.
    pub(super) fn new(process: PathBuf, reader: Reader) -> Self {
        Self { process, reader, root: OnceLock::new(), now: OnceLock::new() }
    }

    fn root(&self) -> Result<&RootDirectory, Unreadable> {
        let root = self.root.get_or_init(|| self.reader.root_of(&self.process));
        root.as_ref().map_err(Clone::clone)
    }

    fn now(&self) -> &HashSet<u64> {
        self.now.get_or_init(|| {
            let path = self.process.join("mountinfo");
            let text = files::read(rustix::fs::CWD, path, files::TABLE).unwrap_or_default();
            let table = mounts::interesting(&text.bytes, usize::MAX);
            table.pins.into_iter().map(|pin| pin.inode).collect()
        })
    }
}

/// The threads of one question that are in other namespaces: as many as can run at once, but
/// not more than there are namespaces to be in. They have the rights of the thread that asks.
#[derive(Debug)]
pub(super) struct Pool {
    jobs: Sender<Job>,
    queue: Arc<Mutex<Receiver<Job>>>,
    threads: Cell<usize>,
}

/// Gets the namespace that its thread is in, if that is not the own one.
type Job = Box<dyn FnOnce(&mut Option<NetnsId>) + Send>;

impl Default for Pool {
    fn default() -> Self {
        let (jobs, queue) = mpsc::channel();
        Self { jobs, queue: Arc::new(Mutex::new(queue)), threads: Cell::new(0) }
    }
}

impl Pool {
    /// Runs `work` inside each namespace and returns the results in order. The own
    /// namespace needs no thread.
    pub(super) fn in_each<T: Send + 'static>(
        &self,
        doors: &[NetnsHandle],
        work: impl Fn(&NetnsHandle) -> T + Send + Sync + 'static,
    ) -> Vec<Result<T, EnterError>> {
        self.grow(doors.iter().filter(|door| !door.own).count());
        let (work, (done, results)) = (Arc::new(work), mpsc::channel());
        for (index, door) in doors.iter().enumerate().filter(|(_, door)| !door.own) {
            let (door, work, done) = (door.clone(), Arc::clone(&work), done.clone());
            let job = move |at: &mut Option<NetnsId>| {
                let result = enter(&door, at).map(|()| work(&door));
                // Whoever asked waits for it.
                let _ = done.send((index, result));
            };
            if self.threads.get() > 0 {
                // The queue is there as long as the pool.
                let _ = self.jobs.send(Box::new(job));
            }
        }
        drop(done);
        let own = |door: &NetnsHandle| door.own.then(|| Ok(work(door)));
        let mut all: Vec<Option<Result<T, EnterError>>> = doors.iter().map(own).collect();
        // Until the last job is done, or dropped.
        for (index, result) in results {
            all[index] = Some(result);
        }
        all.into_iter().map(|r| r.unwrap_or(Err(EnterError::Failed(Errno::AGAIN)))).collect()
    }

    /// One that can't be had leaves its work to the others.
    fn grow(&self, namespaces: usize) {
        while self.threads.get() < namespaces.min(super::procs::cores(2)) {
            let queue = Arc::clone(&self.queue);
            let thread = std::thread::Builder::new().name("netns".to_owned());
            if thread.spawn(move || work_off(&queue)).is_err() {
                return;
            }
            self.threads.set(self.threads.get() + 1);
        }
    }

    /// How many threads there are.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.threads.get()
    }
}

/// Does what is to be done, until the pool is gone.
fn work_off(queue: &Mutex<Receiver<Job>>) {
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
    let mut at = None;
    while let Ok(job) = next() {
        // Then there is no result; other jobs are to be done all the same.
        let _panicked = catch_unwind(AssertUnwindSafe(|| job(&mut at)));
    }
}

/// Moves this thread, which is `at` a namespace, into another one.
#[expect(clippy::disallowed_methods, reason = "here it is done, by threads of a pool")]
fn enter(door: &NetnsHandle, at: &mut Option<NetnsId>) -> Result<(), EnterError> {
    if *at == Some(door.id) {
        return Ok(());
    }
    let fd = door.open()?;
    rustix::thread::move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| match super::procs::is_denied(error) {
            true => EnterError::Denied(error),
            false => EnterError::Failed(error),
        })?;
    *at = Some(door.id);
    Ok(())
}

/// Moves this thread, the only one of a helper process, into the network namespace of its
/// parent. Without the right to it it was never anywhere else.
#[expect(clippy::disallowed_methods, reason = "it is where the process that made it is already")]
pub(super) fn back_to(parent: rustix::process::Pid) {
    let path = format!("/proc/{}/ns/net", parent.as_raw_nonzero());
    if let Ok(fd) = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        let network = Some(LinkNameSpaceType::Network);
        let _without = rustix::thread::move_into_link_name_space(fd.as_fd(), network);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::super::conntrack::Lab;
    use super::*;

    fn here() -> NetnsId {
        NetnsId::Inode(std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino())
    }

    #[test]
    fn each_namespace_is_entered_and_the_own_one_is_not_left() {
        if !Lab::can_be_made() {
            return;
        }
        let (own, labs) = (here(), [Lab::new(), Lab::new(), Lab::new()]);
        let mut doors: Vec<NetnsHandle> = labs.iter().map(|lab| lab.door.clone()).collect();
        doors.push(NetnsHandle { id: own, own: true, ways: Vec::new() });
        doors.push(NetnsHandle { id: NetnsId::Inode(1), own: false, ways: Vec::new() });
        let pool = Pool::default();
        let caller = std::thread::current().id();
        for _ in 0..3 {
            let been = pool.in_each(&doors, |_| (here(), std::thread::current().id()));
            for (door, been) in doors.iter().zip(&been[..4]) {
                let (id, thread) = been.unwrap();
                assert_eq!((id, thread == caller), (door.id, door.own));
            }
            assert_eq!(been[4], Err(EnterError::Gone));
        }
        assert!(pool.threads() <= super::super::procs::cores(2).min(4));
        assert_eq!(here(), own);
    }

    #[test]
    fn work_that_panics_is_a_result_less_and_no_other() {
        if !Lab::can_be_made() {
            return;
        }
        let labs = [Lab::new(), Lab::new(), Lab::new()];
        let doors: Vec<NetnsHandle> = labs.iter().map(|lab| lab.door.clone()).collect();
        let pool = Pool::default();
        for panics in doors.iter().map(|door| door.id) {
            let results = pool.in_each(&doors, move |door| {
                assert_ne!(door.id, panics, "this is what is tested");
                here()
            });
            let wanted = |door: &NetnsHandle| match door.id == panics {
                true => Err(EnterError::Failed(Errno::AGAIN)),
                false => Ok(door.id),
            };
            assert_eq!(results, doors.iter().map(wanted).collect::<Vec<_>>());
        }
    }
}
