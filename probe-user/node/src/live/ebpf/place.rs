//! Where pinned iterators are, and whether one that is found can be trusted.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::object::VERSION;

/// Where the distribution mounts bpffs, as a rule for root alone.
pub(super) const USUAL: &str = "/sys/fs/bpf/whereis-port";
/// Where `pin` mounts one itself, when there is none or the group may not enter it.
pub(super) const OWN: &str = "/run/whereis-port/bpf";

/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
const BPF_FS: u64 = 0xcafe_4a11;

/// The iterators that are pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Iterator {
    /// Every socket that a descriptor leads to.
    Sockets,
    /// Every process.
    Tasks,
}

impl Iterator {
    /// The name of its program.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Tasks => "tasks",
        }
    }

    /// The name of its pin.
    pub(super) fn file(self) -> String {
        format!("{}-{VERSION}", self.program())
    }
}

/// What was found where pins may be.
#[derive(Debug)]
pub(super) enum PinLookup {
    /// A pin that can be trusted and read.
    Ready(File),
    /// None.
    Nothing,
    /// One that this user may not read.
    Denied,
    /// One that is not used, and why.
    Refused(String),
}

/// Looks for a pin in both places.
pub(super) fn find(iterator: Iterator) -> PinLookup {
    let mut best = PinLookup::Nothing;
    for dir in [USUAL, OWN] {
        match look(dir, iterator) {
            PinLookup::Nothing => {}
            found @ PinLookup::Ready(_) => return found,
            other => best = other,
        }
    }
    best
}

/// Looks for a pin in one directory. What root alone could have put there is
/// trusted, and nothing else: a reading from somebody else's file could name any
/// process as the owner of any port.
pub(super) fn look(dir: &str, iterator: Iterator) -> PinLookup {
    let directory = match open_trusted(dir) {
        Ok(Some(directory)) => directory,
        Ok(None) => return PinLookup::Nothing,
        Err(Untrusted::Denied) => return PinLookup::Denied,
        Err(Untrusted::Because(why)) => return PinLookup::Refused(why),
    };
    let name = iterator.file();
    let stat = match rustix::fs::statat(&directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return other_version(dir, &directory, iterator),
        Err(Errno::ACCESS | Errno::PERM) => return PinLookup::Denied,
        Err(error) => {
            return PinLookup::Refused(format!("{dir}/{name}: {}", io::Error::from(error)));
        }
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return PinLookup::Refused(format!("{dir}/{name} is no pinned iterator"));
    }
    if let Some(why) = distrust(stat.st_uid, stat.st_mode) {
        return PinLookup::Refused(format!("{dir}/{name} {why}"));
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat(&directory, name.as_str(), flags, Mode::empty()) {
        Ok(file) => PinLookup::Ready(file.into()),
        Err(Errno::ACCESS | Errno::PERM) => PinLookup::Denied,
        Err(error) => PinLookup::Refused(format!("{dir}/{name}: {}", io::Error::from(error))),
    }
}

/// Why a directory is not used.
pub(super) enum Untrusted {
    /// This user may not look into it.
    Denied,
    /// It is not safe.
    Because(String),
}

/// Opens a directory that is on bpffs and that root alone can write to. `None`
/// when there is none.
pub(super) fn open_trusted(dir: &str) -> Result<Option<OwnedFd>, Untrusted> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(dir, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::ACCESS | Errno::PERM) => return Err(Untrusted::Denied),
        Err(error) => return Err(Untrusted::Because(format!("{dir}: {}", io::Error::from(error)))),
    };
    if !is_bpffs(&fd) {
        return Ok(None);
    }
    let stat = rustix::fs::fstat(&fd)
        .map_err(|error| Untrusted::Because(format!("{dir}: {}", io::Error::from(error))))?;
    match distrust(stat.st_uid, stat.st_mode) {
        Some(why) => Err(Untrusted::Because(format!("{dir} {why}"))),
        None => Ok(Some(fd)),
    }
}

/// Whether a descriptor is on bpffs.
pub(super) fn is_bpffs(fd: impl AsFd) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type as u64 == BPF_FS)
}

/// Why a file or directory with this owner and mode is not trusted.
pub(super) fn distrust(uid: u32, mode: u32) -> Option<String> {
    if uid != 0 {
        return Some(format!("belongs to user {uid}, not to root"));
    }
    let others = mode & 0o022;
    (others != 0).then(|| format!("can be written by others (mode {:o})", mode & 0o7777))
}

/// What to say of a directory without a pin of this version.
fn other_version(dir: &str, directory: &OwnedFd, iterator: Iterator) -> PinLookup {
    let prefix = format!("{}-", iterator.program());
    let Ok(mut entries) = rustix::fs::Dir::read_from(directory) else { return PinLookup::Nothing };
    let other = entries.find_map(|entry| {
        let name = entry.ok()?.file_name().to_string_lossy().into_owned();
        name.starts_with(&prefix).then_some(name)
    });
    other.map_or(PinLookup::Nothing, |name| {
        PinLookup::Refused(format!("{dir}/{name} is of another version than this tool ({VERSION})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_root_alone_can_write_is_trusted() {
        assert_eq!(distrust(0, 0o100_440), None);
        assert_eq!(distrust(0, 0o040_755), None);
        assert!(distrust(1000, 0o100_400).is_some());
        assert!(distrust(0, 0o100_660).is_some());
        assert!(distrust(0, 0o041_777).is_some());
    }

    #[test]
    fn a_directory_that_is_not_on_bpffs_holds_no_pin() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join(Iterator::Sockets.file()), "").unwrap();
        assert!(matches!(look(path, Iterator::Sockets), PinLookup::Nothing));
    }
}
