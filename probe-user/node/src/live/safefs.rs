//! Reading files that somebody else controls.
//!
//! What lies below `/proc/PID/root` belongs to a container: it may hold links
//! that lead out, FIFOs that never answer and files without end. Everything is
//! resolved inside the root, opened without waiting, and read up to a limit.
//!
//! A file system that somebody serves may still not answer: only the helper process of
//! [`super::reader`] calls these.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use thiserror::Error;

/// Why something below a root was not read.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// There is nothing by that name. The usual case when places are tried.
    #[error("does not exist")]
    Missing,
    /// The rights to read it are missing.
    #[error("permission denied")]
    Denied,
    /// It is a directory, a FIFO, a device: not what is read here.
    #[error("not a {0}")]
    WrongKind(&'static str),
    /// It is larger than the limit, in bytes.
    #[error("larger than {0} bytes")]
    TooBig(usize),
    /// Whoever serves it did not answer for so long.
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// It was not even tried, and why.
    #[error("not read: {0}")]
    LeftOut(String),
    /// Somebody else's than it should be: that user.
    #[error("belongs to user {0}, whose word does not count here")]
    Foreign(u32),
    /// Any other failure.
    #[error("{0}")]
    Failed(String),
}

impl From<Errno> for Unreadable {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR | Errno::SRCH => Self::Missing,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            // What O_NOFOLLOW answers, and a link that leads to itself.
            Errno::LOOP => Self::WrongKind("path without symbolic links"),
            Errno::NXIO => Self::WrongKind("regular file"),
            other => Self::Failed(std::io::Error::from(other).to_string()),
        }
    }
}

impl From<Unreadable> for std::io::Error {
    fn from(error: Unreadable) -> Self {
        let kind = match error {
            Unreadable::Missing => ErrorKind::NotFound,
            Unreadable::Denied => ErrorKind::PermissionDenied,
            Unreadable::Silent(_) => ErrorKind::TimedOut,
            _ => return Self::other(error.to_string()),
        };
        Self::new(kind, error.to_string())
    }
}

/// A directory taken as the root of everything below it: no path leads out.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
}

impl From<OwnedFd> for Root {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<Root> for OwnedFd {
    fn from(root: Root) -> Self {
        root.fd
    }
}

impl Root {
    /// Takes `path` as a root: `/proc/PID/root` or `/`.
    pub(super) fn open(path: &Path) -> Result<Self, Unreadable> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::openat(CWD, path, flags, Mode::empty())? })
    }

    /// The content of the regular file `rel`, at most `max_bytes` of it: a
    /// larger file is refused, not cut.
    pub(super) fn read(&self, rel: &Path, max_bytes: usize) -> Result<Vec<u8>, Unreadable> {
        // Looked at before it is opened, for opening a device can have effects; and then
        // opened is what was looked at, whatever has taken its place meanwhile.
        let look = self.at(rel, OFlags::PATH)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&look)?.st_mode) != FileType::RegularFile {
            return Err(Unreadable::WrongKind("regular file"));
        }
        content(reopened(&look)?, max_bytes)
    }

    /// The content of the regular file `rel`, which is no link, and who owns it and its
    /// directory.
    pub(super) fn read_owned(
        &self,
        rel: &Path,
        max_bytes: usize,
    ) -> Result<([u32; 2], Vec<u8>), Unreadable> {
        let file = self.at(rel, OFlags::PATH | OFlags::NOFOLLOW)?;
        let stat = rustix::fs::fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Symlink => return Err(Unreadable::WrongKind("file, but a link")),
            _ => return Err(Unreadable::WrongKind("regular file")),
        }
        let above = rel.parent().filter(|above| *above != Path::new(""));
        let above = above.unwrap_or(Path::new("."));
        let above = rustix::fs::fstat(self.at(above, OFlags::PATH | OFlags::DIRECTORY)?)?;
        let content = content(reopened(&file)?, max_bytes)?;
        Ok(([stat.st_uid, above.st_uid], content))
    }

    /// Who owns `rel`.
    pub(super) fn owner(&self, rel: &Path) -> Result<u32, Unreadable> {
        Ok(rustix::fs::fstat(self.at(rel, OFlags::PATH)?)?.st_uid)
    }

    /// The names in directory `rel`, in the directory's order. One with more
    /// than `max_entries` is refused.
    pub(super) fn list(&self, rel: &Path, max_entries: usize) -> Result<Vec<OsString>, Unreadable> {
        let fd = self.at(rel, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK)?;
        let mut names = Vec::new();
        for entry in Dir::new(fd)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if names.len() == max_entries {
                return Err(Unreadable::Failed(format!("more than {max_entries} entries")));
            }
            names.push(name.to_owned());
        }
        Ok(names)
    }

    /// The name of the first regular file in directory `rel` whose name ends with `suffix` and
    /// that has one of these lines. Those with `hint` in their names are looked at first. What
    /// takes more than so many bytes, or too long, is given up.
    pub(super) fn find_line(
        &self,
        rel: &Path,
        (suffix, hint): (&[u8], &[u8]),
        lines: &[&[u8]],
        max_bytes: usize,
    ) -> Result<Option<OsString>, Unreadable> {
        /// How many files there may be.
        const ENTRIES: usize = 50_000;
        /// How long all of it may take: whoever waits for it does so longer.
        const LONG: Duration = Duration::from_millis(300);
        let since = std::time::Instant::now();
        let mut names = self.list(rel, ENTRIES)?;
        names.retain(|name| name.as_bytes().ends_with(suffix));
        let is_likely = |name: &OsString| {
            !hint.is_empty() && name.as_bytes().windows(hint.len()).any(|part| part == hint)
        };
        names.sort_by_cached_key(|name| (!is_likely(name), name.clone()));
        let mut left = max_bytes;
        for name in names {
            if since.elapsed() > LONG {
                return Err(Unreadable::Failed(format!("more than {} ms", LONG.as_millis())));
            }
            // One that is larger than all others together is none of them.
            let Ok(text) = self.read(&rel.join(&name), left) else { continue };
            if text.split(|b| *b == b'\n').any(|line| lines.contains(&line)) {
                return Ok(Some(name));
            }
            left = left.saturating_sub(text.len());
            if left == 0 {
                return Err(Unreadable::TooBig(max_bytes));
            }
        }
        Ok(None)
    }

    /// The socket `rel` itself, opened with O_PATH. Connecting to it by
    /// `/proc/self/fd/N` reaches exactly this socket, whatever happens to the
    /// path meanwhile and however long the path is.
    pub(super) fn socket(&self, rel: &Path) -> Result<OwnedFd, Unreadable> {
        let fd = self.at(rel, OFlags::PATH)?;
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::Socket => Ok(fd),
            _ => Err(Unreadable::WrongKind("socket")),
        }
    }

    /// A mount point below this root, opened with O_PATH. No symbolic link is on its way:
    /// one that is there by now could lead anywhere.
    pub(super) fn point(&self, rel: &Path) -> Result<OwnedFd, Unreadable> {
        self.resolved(rel, OFlags::PATH, ResolveFlags::NO_SYMLINKS)
    }

    /// Opens `rel`, resolved inside this root.
    fn at(&self, rel: &Path, flags: OFlags) -> Result<OwnedFd, Unreadable> {
        self.resolved(rel, flags, ResolveFlags::empty())
    }

    fn resolved(
        &self,
        rel: &Path,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, Unreadable> {
        let flags = flags | OFlags::CLOEXEC;
        let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something was renamed during the look-up, which a container
        // can make happen forever.
        for _ in 0..4 {
            match rustix::fs::openat2(&self.fd, rel, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                // Before Linux 5.6, or refused by a seccomp filter that does
                // not know the call.
                Err(Errno::NOSYS | Errno::PERM) => return self.step_by_step(rel, flags),
                other => return Ok(other?),
            }
        }
        Err(Unreadable::Failed("kept changing while it was opened".to_owned()))
    }

    /// Opens `rel` one component at a time, following no link at all. Links
    /// inside the root are lost, as `/var/run` is; those that lead out too.
    fn step_by_step(&self, rel: &Path, flags: OFlags) -> Result<OwnedFd, Unreadable> {
        let mut names: Vec<&OsStr> = Vec::new();
        for component in rel.components() {
            match component {
                Component::Normal(name) => names.push(name),
                Component::ParentDir => _ = names.pop(),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        let Some((last, above)) = names.split_last() else {
            return Ok(rustix::fs::openat(&self.fd, ".", flags, Mode::empty())?);
        };
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut dir: Option<OwnedFd> = None;
        for name in above {
            let at: BorrowedFd<'_> = dir.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            dir = Some(rustix::fs::openat(at, *name, step, Mode::empty())?);
        }
        let at: BorrowedFd<'_> = dir.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
        // With O_PATH, O_NOFOLLOW opens the link itself instead of failing.
        let stat = rustix::fs::statat(at, *last, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP.into());
        }
        Ok(rustix::fs::openat(at, *last, flags | OFlags::NOFOLLOW, Mode::empty())?)
    }
}

/// What was looked at, opened to be read: whatever has taken its place meanwhile is not.
fn reopened(look: &OwnedFd) -> Result<OwnedFd, Unreadable> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", look.as_raw_fd());
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The content of an open file, if it is a regular one that is not too big.
fn content(fd: OwnedFd, max_bytes: usize) -> Result<Vec<u8>, Unreadable> {
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Unreadable::WrongKind("regular file"));
    }
    if usize::try_from(stat.st_size).unwrap_or(usize::MAX) > max_bytes {
        return Err(Unreadable::TooBig(max_bytes));
    }
    // The size is a claim, of procfs and FUSE a wrong one: the limit holds
    // for what comes.
    let mut content = Vec::new();
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    match File::from(fd).take(limit).read_to_end(&mut content) {
        Ok(_) if content.len() > max_bytes => Err(Unreadable::TooBig(max_bytes)),
        Ok(_) => Ok(content),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Unreadable::Denied),
        Err(error) => Err(Unreadable::Failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::time::{Duration, Instant};

    use super::*;

    /// A container's root with `inside`, next to a `secret` outside of it.
    fn lab() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(dir.path().join("secret"), "host").unwrap();
        std::fs::write(root.join("inside"), "container").unwrap();
        let opened = Root::open(&root).unwrap();
        (dir, opened)
    }

    #[test]
    fn reads_what_is_inside_under_a_relative_and_an_absolute_name() {
        let (_dir, root) = lab();
        for name in ["inside", "/inside", "etc/../inside", "../../inside"] {
            assert_eq!(root.read(Path::new(name), 100).unwrap(), b"container", "{name}");
        }
        assert_eq!(root.read(Path::new("none"), 100), Err(Unreadable::Missing));
        assert_eq!(root.read(Path::new("inside/x"), 100), Err(Unreadable::Missing));
    }

    #[test]
    fn a_link_that_leads_out_reads_nothing_outside() {
        let (dir, root) = lab();
        let inside = dir.path().join("root");
        symlink(dir.path().join("secret"), inside.join("absolute")).unwrap();
        symlink("../secret", inside.join("relative")).unwrap();
        symlink("../..", inside.join("dir")).unwrap();
        for name in ["absolute", "relative", "dir/secret", "../secret"] {
            assert_eq!(root.read(Path::new(name), 100), Err(Unreadable::Missing), "{name}");
        }
        // A link that is meant for the container's own root works.
        symlink("/inside", inside.join("etc/link")).unwrap();
        assert_eq!(root.read(Path::new("etc/link"), 100).unwrap(), b"container");
    }

    #[test]
    fn without_openat2_no_link_is_followed() {
        let (dir, root) = lab();
        let inside = dir.path().join("root");
        symlink("../..", inside.join("dir")).unwrap();
        symlink("../secret", inside.join("relative")).unwrap();
        let open = |name: &str| root.step_by_step(Path::new(name), OFlags::RDONLY);
        assert!(open("inside").is_ok());
        assert!(open("../../etc/../inside").is_ok());
        assert!(open("../secret").is_err());
        assert!(open("dir/secret").is_err());
        assert!(open("relative").is_err());
        assert!(root.step_by_step(Path::new("relative"), OFlags::PATH).is_err());
    }

    #[test]
    fn a_fifo_does_not_hang_and_a_device_is_not_opened() {
        let (dir, root) = lab();
        let fifo = dir.path().join("root/fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let before = Instant::now();
        assert_eq!(root.read(Path::new("fifo"), 100), Err(Unreadable::WrongKind("regular file")));
        assert_eq!(root.read(Path::new("etc"), 100), Err(Unreadable::WrongKind("regular file")));
        assert!(before.elapsed() < Duration::from_secs(1));
        let host = Root::open(Path::new("/")).unwrap();
        assert_eq!(
            host.read(Path::new("dev/zero"), 100),
            Err(Unreadable::WrongKind("regular file"))
        );
    }

    #[test]
    fn a_file_over_the_limit_is_refused_even_if_it_claims_no_size() {
        let (_dir, root) = lab();
        assert_eq!(root.read(Path::new("inside"), 9).unwrap().len(), 9);
        assert_eq!(root.read(Path::new("inside"), 8), Err(Unreadable::TooBig(8)));
        // Files of procfs have size 0.
        let proc = Root::open(Path::new("/proc")).unwrap();
        assert_eq!(proc.read(Path::new("version"), 4), Err(Unreadable::TooBig(4)));
    }

    #[test]
    fn the_owners_of_a_file_are_told_and_links_are_none() {
        let (dir, root) = lab();
        let me = rustix::process::geteuid().as_raw();
        let read = |name: &str| root.read_owned(Path::new(name), 100);
        assert_eq!(read("/inside"), Ok(([me, me], b"container".to_vec())));
        assert_eq!(read("none"), Err(Unreadable::Missing));
        assert_eq!(read("etc"), Err(Unreadable::WrongKind("regular file")));
        let inside = dir.path().join("root");
        symlink("/inside", inside.join("etc/link")).unwrap();
        assert_eq!(read("etc/link"), Err(Unreadable::WrongKind("file, but a link")));
        // A directory on the way may be a link, as /var/run is.
        symlink("etc", inside.join("dir")).unwrap();
        std::fs::write(inside.join("etc/there"), "x").unwrap();
        assert_eq!(read("dir/there").unwrap().1, b"x");
    }

    #[test]
    fn lists_a_directory_up_to_a_limit() {
        let (_dir, root) = lab();
        let mut names = root.list(Path::new("/"), 10).unwrap();
        names.sort();
        assert_eq!(names, ["etc", "inside"]);
        assert!(matches!(root.list(Path::new("/"), 1), Err(Unreadable::Failed(_))));
        assert_eq!(root.list(Path::new("none"), 10), Err(Unreadable::Missing));
    }

    #[test]
    fn only_a_socket_is_given_as_a_socket() {
        let (dir, root) = lab();
        let _listener = UnixListener::bind(dir.path().join("root/s.sock")).unwrap();
        assert!(root.socket(Path::new("s.sock")).is_ok());
        assert_eq!(root.socket(Path::new("inside")).err(), Some(Unreadable::WrongKind("socket")));
        assert_eq!(root.socket(Path::new("none")).err(), Some(Unreadable::Missing));
    }
}
