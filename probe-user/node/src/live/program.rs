//! Who can have written the program that a process runs. Its name and its arguments are
//! whatever the process wants them to be.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags, statx};
use rustix::io::Errno;

use super::files::{self, SMALL};
use super::reader::{Reader, Responder};
use super::safefs::Unreadable;

/// The owner and the mode of a file or directory of the kernel's own.
pub(super) fn owner_and_mode(
    dir: impl AsFd,
    path: impl rustix::path::Arg,
) -> Result<(u32, u32), Errno> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let wanted = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::UID;
    let stat = statx(dir, path, flags, wanted)?;
    let mode = u32::from(stat.stx_mode);
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile | FileType::Directory => Ok((stat.stx_uid, mode)),
        _ => Err(Errno::NOENT),
    }
}

/// The owner and the mode of the file that the process runs whose directory in procfs is
/// `dir`. It may lie on a file system that need not answer.
pub(super) fn exe(reader: &Reader, dir: BorrowedFd<'_>) -> Result<(u32, u32), Unreadable> {
    look(reader, dir).map(|(owner, mode, _)| (owner, mode))
}

/// The same, and how many names the file has.
fn look(reader: &Reader, dir: BorrowedFd<'_>) -> Result<(u32, u32, u32), Unreadable> {
    let inode = rustix::fs::fstat(dir)?.st_ino;
    let whose = Responder::process(dir).part(&inode.to_string());
    let (_, stat) = reader.follow(dir, c"exe", &whose)?;
    match FileType::from_raw_mode(stat.mode) {
        // Whoever is in root's group is as good as root.
        FileType::RegularFile if stat.gid == 0 => Ok((stat.uid, stat.mode & !0o020, stat.nlink)),
        FileType::RegularFile => Ok((stat.uid, stat.mode, stat.nlink)),
        _ => Err(Unreadable::WrongKind("regular file")),
    }
}

/// Whether another user than root can have written what runs in the process whose
/// directory in procfs is `dir`, and whose user is `uid`; and how many names the file has.
pub(super) fn is_own_word(reader: &Reader, dir: BorrowedFd<'_>, uid: u32) -> (bool, Option<u32>) {
    match look(reader, dir) {
        Ok((_, mode, names)) if mode & 0o022 != 0 => (true, Some(names)),
        Ok((owner, _, names)) => {
            (owner != 0 && !is_root_of_roots_namespace(dir, owner), Some(names))
        }
        // Somebody serves it who does not answer: surely not root.
        Err(Unreadable::Silent(_) | Unreadable::LeftOut(_)) => (true, None),
        // Kernel threads, and what others are not shown: the user is what is left.
        Err(_) => (uid != 0, None),
    }
}

/// Whether a user is root in the process's user namespace, and root made that: images of
/// containers belong to such users.
fn is_root_of_roots_namespace(dir: BorrowedFd<'_>, uid: u32) -> bool {
    let map = files::read(dir, c"uid_map", SMALL).unwrap_or_default().text();
    let is_root = map.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        fields.next() == Some("0") && fields.next().and_then(|id| id.parse().ok()) == Some(uid)
    });
    is_root && user_namespace(dir, c"ns/user").is_some_and(|ns| creator(&ns) == Some(0))
}

fn user_namespace(dir: impl AsFd, name: &CStr) -> Option<OwnedFd> {
    rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Who made a user namespace (`NS_GET_OWNER_UID`, Linux 4.11).
#[expect(unsafe_code, reason = "no library has this request")]
fn creator(namespace: &OwnedFd) -> Option<u32> {
    const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
    let mut uid: libc::uid_t = u32::MAX;
    // SAFETY: the request writes one uid_t, for which `uid` has room.
    let done = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) };
    (done == 0).then_some(uid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_program_that_others_can_write_is_their_word() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, "").unwrap();
        symlink(&program, dir.path().join("exe")).unwrap();
        let proc = std::fs::File::open(dir.path()).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        let reader = Reader::default();
        let others = 65534;
        for (group, mode, is_others) in
            [(0, 0o755, false), (0, 0o775, false), (others, 0o775, true), (0, 0o757, true)]
        {
            if is_root {
                std::os::unix::fs::chown(&program, None, Some(group)).unwrap();
            }
            std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).unwrap();
            let (told, names) = is_own_word(&reader, proc.as_fd(), 0);
            assert_eq!(names, Some(1));
            assert_eq!(told, is_others || !is_root, "{group} {mode:o}");
        }
        std::fs::remove_file(dir.path().join("exe")).unwrap();
        let is_own = |uid| is_own_word(&reader, proc.as_fd(), uid).0;
        assert!(!is_own(0) && is_own(65534));
    }

    #[test]
    fn the_maker_of_the_own_user_namespace_is_told() {
        let proc = std::fs::File::open("/proc/self").unwrap();
        let namespace = user_namespace(&proc, c"ns/user").unwrap();
        assert!(creator(&namespace).is_some());
    }
}
