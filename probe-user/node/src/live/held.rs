//! Descriptors of network namespaces.
//!
//! `/proc/PID/fd/N` is `net:[INODE]` when the namespace was opened through
//! `/proc`. Opened through a bind mount, as `ip netns` makes them, it is the
//! path of that mount, and `/` once it is gone.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::files;
use super::procs::{each_number, open_dir, read_inode_link};
use super::reader::{Reader, Responder};
use super::safefs::Unreadable;

/// The first inode of nsfs: it shares its numbers with `/proc`
/// (`PROC_DYNAMIC_FIRST` in `fs/proc/generic.c`, `PROC_IPC_INIT_INO`).
const FIRST: u64 = 0xEFFF_FFF0;

/// The network namespace that a descriptor was opened on through a mount that
/// is gone, so that it points to `/`. `process` is the directory of a process, `path` that of
/// `table`.
///
/// # Errors
/// When nobody could say what the descriptor leads to.
pub(super) fn detached(
    reader: &Reader,
    process: BorrowedFd<'_>,
    path: &CStr,
    table: &OwnedFd,
    name: &CStr,
) -> Result<Option<u64>, Unreadable> {
    let info = format!("{}info/{}", path.to_string_lossy(), name.to_string_lossy());
    let info = files::read(process, info, files::SMALL).unwrap_or_default().bytes;
    if !may_be_namespace(&info) {
        return Ok(None);
    }
    // The root of any file system that was unmounted looks the same, and the number is its
    // word: its server may be dead, or silent on purpose.
    let whose = Responder::process(process);
    let (fd, stat) = match reader.follow(table.as_fd(), name, &whose) {
        Err(error @ (Unreadable::Silent(_) | Unreadable::LeftOut(_))) => return Err(error),
        Err(_) => return Ok(None),
        Ok(found) => found,
    };
    let nsfs = rustix::fs::stat("/proc/self/ns/net");
    if !nsfs.is_ok_and(|nsfs| nsfs.st_dev == stat.dev) {
        return Ok(None);
    }
    let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let opened = rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    Ok(opened.ok().filter(|fd| kind(fd) == libc::CLONE_NEWNET).map(|_| stat.ino))
}

/// How many descriptors of a process are looked at, and how many namespaces of it count.
const DESCRIPTORS: usize = 4096;
const NAMESPACES: usize = 64;

/// The network namespaces that a process has descriptors of, and why there may be more.
/// Reading the links is not enough: of a namespace that was opened through a mount they have
/// the mount's path, in whatever mount namespace that was.
pub(super) fn of_process(
    reader: &Reader,
    process: BorrowedFd<'_>,
) -> (Vec<u64>, Option<Unreadable>) {
    let mut found = Vec::new();
    let mut untold = None;
    let Ok(table) = open_dir(process, c"fd") else { return (found, untold) };
    let mut left = DESCRIPTORS;
    // One that ends meanwhile has what was found.
    let _ended = each_number(open_dir(&table, c".").as_ref().unwrap_or(&table), |_, name| {
        let mut is_path = false;
        match read_inode_link(&table, name, b"net:", |target| is_path = target.starts_with(b"/")) {
            Ok(Some(inode)) => found.push(inode),
            Ok(None) if is_path => match detached(reader, process, c"fd", &table, name) {
                Ok(inode) => found.extend(inode),
                Err(error) => untold = Some(error),
            },
            _ => {}
        }
        left -= 1;
        left > 0 && found.len() < NAMESPACES && untold.is_none()
    });
    found.sort_unstable();
    found.dedup();
    (found, untold)
}

/// Whether `/proc/PID/fdinfo/N` has an inode that a namespace can have. Before
/// Linux 5.19 it tells none.
fn may_be_namespace(info: &[u8]) -> bool {
    let text = String::from_utf8_lossy(info);
    let inode = text.lines().find_map(|line| line.strip_prefix("ino:"));
    inode.is_none_or(|inode| inode.trim().parse().is_ok_and(|inode: u64| inode >= FIRST))
}

/// Which kind of namespace it is (`NS_GET_NSTYPE`, Linux 4.11).
#[expect(unsafe_code, reason = "no library has this request; it takes no argument")]
fn kind(fd: &OwnedFd) -> libc::c_int {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request has no argument and touches no memory of this process.
    unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_namespace_is_touched() {
        assert!(may_be_namespace(b"pos:\t0\nflags:\t02\nmnt_id:\t9\nino:\t4026532184\n"));
        assert!(!may_be_namespace(b"pos:\t0\nflags:\t02\nmnt_id:\t9\nino:\t2\n"));
        assert!(may_be_namespace(b"pos:\t0\nflags:\t02\nmnt_id:\t9\n"));
    }

    #[test]
    fn kinds_of_namespaces_are_told_apart() {
        let open = |path: &str| std::fs::File::open(path).unwrap().into();
        assert_eq!(kind(&open("/proc/self/ns/net")), libc::CLONE_NEWNET);
        assert_eq!(kind(&open("/proc/self/ns/uts")), libc::CLONE_NEWUTS);
        assert_ne!(kind(&open("/proc/self/stat")), libc::CLONE_NEWNET);
    }
}
