//! The helper process as a process: made, ended, left behind.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::super::enter;
use super::serve::serve;

/// How many helpers may be left behind, by all questions of this process. Each is a copy of
/// it that waits until a file system answers or goes away.
const LEFT_BEHIND: usize = 8;

/// Helpers that were left behind, each with what it waits for; and those that were told to
/// end and have not been seen to.
static LEFT: Mutex<Vec<(libc::pid_t, Option<String>)>> = Mutex::new(Vec::new());

/// A helper process, which serves what comes over its channel, and ends with it.
#[derive(Debug)]
pub(super) struct Child {
    channel: OwnedFd,
    pid: libc::pid_t,
}

impl Child {
    pub(super) fn start() -> io::Result<Self> {
        if left().iter().filter(|(_, waits)| waits.is_some()).count() >= LEFT_BEHIND {
            let text = format!("{LEFT_BEHIND} processes wait already for what does not answer");
            return Err(io::Error::other(text));
        }
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self { pid: fork(theirs.as_raw_fd())?, channel: ours })
    }

    pub(super) fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Gives it up while it waits for something: it is killed, and not waited for.
    pub(super) fn leave_behind(self, waits: String) {
        let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
        // Still in the list: its number is no other's yet.
        if let Some(own) = left.iter_mut().find(|(pid, _)| *pid == self.pid) {
            own.1 = Some(waits);
            if let Some(pid) = rustix::process::Pid::from_raw(self.pid) {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Whether a helper still waits for this.
pub(super) fn is_waited_for(key: &str) -> bool {
    left().iter().any(|(_, waits)| waits.as_deref() == Some(key))
}

/// Those that were left behind, without those that have ended meanwhile.
fn left() -> MutexGuard<'static, Vec<(libc::pid_t, Option<String>)>> {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    left.retain(|(pid, _)| !has_ended(*pid));
    left
}

#[expect(unsafe_code, reason = "rustix takes no number of a process that may be gone")]
fn has_ended(pid: libc::pid_t) -> bool {
    // SAFETY: a null pointer for the status is allowed; nothing of this process is touched.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) != 0 }
}

/// Makes the process, which serves `channel` and nothing else.
#[expect(unsafe_code, reason = "std makes processes only of programs; this one is a copy")]
fn fork(channel: RawFd) -> io::Result<libc::pid_t> {
    let parent = rustix::process::getpid();
    // The kernel ends a process with the *thread* that made it: only the main thread lives
    // as long as this process does. All others rely on the end of the channel.
    let by_main = rustix::thread::gettid() == parent;
    let mut list = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the sets are made by sigfillset and filled in by pthread_sigmask. Only signals
    // of this thread are blocked, for the moment of the fork: handlers of this process must
    // not run in the child, whose descriptors are others.
    let (pid, error) = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        // SAFETY: the child is a copy with this one thread. It takes no lock that another
        // thread may have held (the allocator's are the C library's care), never returns
        // from here and unwinds into nothing.
        let pid = libc::fork();
        if pid == 0 {
            let _panicked = std::panic::catch_unwind(|| live(channel, parent, by_main));
            libc::_exit(0);
        }
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        (pid, error)
    };
    if pid < 0 {
        return Err(error);
    }
    list.push((pid, None));
    Ok(pid)
}

/// What the child does.
#[expect(unsafe_code, reason = "descriptors are closed that Rust's owners will never use again")]
fn live(channel: RawFd, parent: rustix::process::Pid, by_main: bool) {
    const CHANNEL: RawFd = 3;
    // SAFETY: nothing of this copy uses any other descriptor from here on: its owners are
    // never dropped, since the process ends by _exit.
    let channel = unsafe {
        if channel != CHANNEL && libc::dup3(channel, CHANNEL, libc::O_CLOEXEC) < 0 {
            return;
        }
        // What is left behind must not keep the caller's pipe open.
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for fd in 0..CHANNEL {
            if null < 0 || libc::dup2(null, fd) < 0 {
                libc::close(fd);
            }
        }
        if libc::syscall(libc::SYS_close_range, CHANNEL + 1, libc::c_uint::MAX, 0) < 0 {
            let most = libc::sysconf(libc::_SC_OPEN_MAX).clamp(1024, 1 << 20);
            for fd in CHANNEL + 1..most as RawFd {
                libc::close(fd);
            }
        }
        OwnedFd::from_raw_fd(CHANNEL)
    };
    if by_main {
        let kill = Some(rustix::process::Signal::KILL);
        let _without = rustix::process::set_parent_process_death_signal(kill);
    } else {
        // The thread may be in a namespace that this process must not keep alive.
        enter::back_to(parent);
    }
    if rustix::process::getppid() == Some(parent) {
        serve(channel.as_fd());
    }
}
