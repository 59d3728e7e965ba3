//! Reading files of the kernel: `/proc`, `/sys`. Each has a limit, for others have a say in
//! how long most of them are.
//!
//! Files that others made are read by [`super::reader`], and by nothing else.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

/// What one of the small files may have: `status`, `cgroup`, a setting.
pub(super) const SMALL: usize = 64 * 1024;
/// What a command line may have. It costs its process nothing to have one of many GiB.
pub(super) const ARGUMENTS: usize = 32 * 1024;
/// How many arguments of it are looked at.
pub(super) const MOST_ARGUMENTS: usize = 4096;
/// What a table may have: mounts, sockets, modules, users.
pub(super) const TABLE: usize = 16 << 20;

/// What a table may have that is read line by line.
const STREAM: u64 = 1 << 30;

/// The beginning of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Beginning {
    /// As much as was asked for.
    pub(super) bytes: Vec<u8>,
    /// Whether there was more.
    pub(super) cut: bool,
}

impl Beginning {
    /// The bytes as text, with what is not UTF-8 replaced: a process may call itself anything.
    pub(super) fn text(self) -> String {
        let text = String::from_utf8(self.bytes);
        text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

/// Reads a file of the kernel, at most `limit` bytes of it.
pub(super) fn read(
    dir: impl AsFd,
    path: impl rustix::path::Arg,
    limit: usize,
) -> Result<Beginning> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(dir, path, flags, Mode::empty())?);
    // Most files of procfs fit at once; their size is not told beforehand.
    let mut bytes = Vec::with_capacity(limit.min(4096));
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let cut = bytes.len() > limit;
    bytes.truncate(limit);
    Ok(Beginning { bytes, cut })
}

/// The text of a file of the kernel, which is cut at `limit` bytes.
pub(super) fn text(path: impl rustix::path::Arg, limit: usize) -> Result<String> {
    read(rustix::fs::CWD, path, limit).map(Beginning::text)
}

/// The text of a file of root's in `/etc`, or nothing. What is over 16 MiB is cut.
pub fn system_text(path: &str) -> String {
    text(path, TABLE).unwrap_or_default()
}

/// How much of a file is read that somebody names.
const NAMED: usize = 1 << 20;

/// The text of a file that the user of the tool names.
///
/// # Errors
/// Those of reading it, and that it is over 1 MiB.
pub fn named_text(path: &str) -> std::io::Result<String> {
    let read = read(rustix::fs::CWD, path, NAMED)?;
    if read.cut {
        return Err(std::io::Error::other("it has more than 1 MiB"));
    }
    Ok(read.text())
}

/// Whether the kernel has this file.
pub(super) fn is_there(path: impl rustix::path::Arg) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok()
}

/// A file of the kernel with a line for each of very many things, to be read line by line: no
/// line is longer than the kernel makes it, and what is kept is for the caller to limit.
pub(super) fn stream(path: impl rustix::path::Arg) -> Result<impl std::io::Read> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?).take(STREAM))
}

/// The arguments of a command line, each ended by a NUL: no more than a program that is known
/// would have.
pub(super) fn arguments(raw: &[u8]) -> Vec<String> {
    let raw = raw.strip_suffix(b"\0").unwrap_or(raw);
    if raw.is_empty() {
        return Vec::new();
    }
    let each = raw.split(|b| *b == 0).take(MOST_ARGUMENTS);
    each.map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_at_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "12345").unwrap();
        let read = |limit| read(rustix::fs::CWD, &path, limit).unwrap();
        assert_eq!(read(5), Beginning { bytes: b"12345".to_vec(), cut: false });
        assert_eq!(read(4), Beginning { bytes: b"1234".to_vec(), cut: true });
    }

    #[test]
    fn a_fifo_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(text(&path, 10).as_deref(), Ok(""));
    }

    #[test]
    fn arguments_keep_empty_ones_and_are_not_without_end() {
        assert_eq!(arguments(b""), Vec::<String>::new());
        assert_eq!(arguments(b"a\0\0-x\0"), ["a", "", "-x"]);
        assert_eq!(arguments(b"set by setproctitle"), ["set by setproctitle"]);
        assert_eq!(arguments(&[0; ARGUMENTS]).len(), MOST_ARGUMENTS);
    }
}
