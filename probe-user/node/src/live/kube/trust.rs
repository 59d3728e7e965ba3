//! Whose word a file is. Root reads kubeconfigs that others wrote, and files that those name:
//! what another user could have put there must not be taken for root's own.
//!
//! A path is walked one component at a time, and what is read is what was looked at. Nothing
//! on a file system that a user, a program or a server controls is touched: it could claim
//! any owner, and need not ever answer.

mod mounts;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::files::Unread;
use mounts::MountView;

/// How many links of root's are followed in one path.
const LINKS: usize = 16;
/// How many components a path may have, those of links included.
const COMPONENTS: usize = 256;
/// The right of the group or of everybody to write.
const OTHERS_WRITE: Mode = Mode::WGRP.union(Mode::WOTH);

/// Who could have written a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    /// Nobody but who runs this, or root.
    Own,
    /// This other user.
    User(u32),
    /// Nobody knows: whoever may write to a directory that is open to all.
    Anybody,
}

/// A regular file that was looked at, and who could have written it.
pub(super) struct Trusted {
    pub(super) file: File,
    pub(super) author: Author,
    pub(super) owner: u32,
}

/// Opens a regular file to be read. As root nothing is opened whose author can't be told.
pub(super) fn open(path: &Path) -> Result<Trusted, Unread> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let me = rustix::process::geteuid();
    if !me.is_root() {
        // As kubectl does: what this user opens it could read anyway.
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Unread::NoFile);
        }
        let own = stat.st_uid == 0 || stat.st_uid == me.as_raw();
        let author = if own { Author::Own } else { Author::User(stat.st_uid) };
        return Ok(Trusted { file: fd.into(), author, owner: stat.st_uid });
    }
    let looked = walk(path, &MountView::read()?)?;
    // The file that was looked at, whatever has become of its path.
    let file = format!("/proc/self/fd/{}", looked.fd.as_raw_fd());
    let fd = rustix::fs::openat(CWD, file, flags, Mode::empty())?;
    Ok(Trusted { file: fd.into(), author: looked.author, owner: looked.owner })
}

/// Whether a program is one that nobody but root could have put there.
pub(super) fn is_roots(program: &Path) -> Result<(), Unread> {
    match walk(program, &MountView::read()?)?.author {
        Author::Own => Ok(()),
        Author::User(uid) => Err(Unread::Untrusted(format!("user {uid} could have written it"))),
        Author::Anybody => Err(Unread::Untrusted("anybody could have put it there".to_owned())),
    }
}

/// What a path leads to, opened with O_PATH.
struct Looked {
    fd: OwnedFd,
    author: Author,
    owner: u32,
}

/// A directory on the way.
struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    /// Whether nobody but root can change what is in it.
    roots: bool,
    /// Whether nobody but root can take away what is root's in it.
    steady: bool,
    /// Whether everybody may put things there.
    shared: bool,
    /// Its owner, and those of the directories above, but for root: all the same one.
    user: Option<u32>,
}

/// Walks to a regular file as root.
fn walk(path: &Path, mounts: &MountView) -> Result<Looked, Unread> {
    let whole = std::path::absolute(path).map_err(Unread::Failed)?;
    let mut names: VecDeque<OsString> = parts(&whole);
    let root = component(None, OsStr::new("/"), Path::new("/"), mounts)?;
    let mut dirs = vec![enter(None, root.0, &root.1, PathBuf::from("/"))?];
    let (mut links, mut steps) = (0, 0);
    while let Some(name) = names.pop_front() {
        steps += 1;
        if steps > COMPONENTS {
            return Err(Unread::Untrusted("its path is too long".to_owned()));
        }
        if name == ".." {
            if dirs.len() > 1 {
                dirs.pop();
            }
            continue;
        }
        let Some(dir) = dirs.last() else { return Err(Unread::Missing) };
        let at = dir.path.join(&name);
        let (fd, stat) = component(Some(dir), &name, &at, mounts)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                links += 1;
                if !dir.roots || stat.st_uid != 0 || links > LINKS {
                    return Err(untrusted(&at, "is a link"));
                }
                let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                if target.is_absolute() {
                    dirs.truncate(1);
                }
                for name in parts(target).into_iter().rev() {
                    names.push_front(name);
                }
            }
            FileType::Directory if names.is_empty() => return Err(Unread::NoFile),
            FileType::Directory => {
                let entered = enter(Some(dir), fd, &stat, at)?;
                dirs.push(entered);
            }
            _ if !names.is_empty() => return Err(Unread::Missing),
            FileType::RegularFile => return regular(dir, fd, &stat, &at),
            _ => return Err(Unread::NoFile),
        }
    }
    Err(Unread::NoFile)
}

/// Opens one component, without following it and without asking anybody but the kernel.
fn component(
    dir: Option<&Dir>,
    name: &OsStr,
    at: &Path,
    mounts: &MountView,
) -> Result<(OwnedFd, Stat), Unread> {
    // Before it is touched: to look at a mounted file system may mean to ask a server.
    mounts.at(at).map_err(|kind| untrusted(at, &kind))?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match dir {
        Some(dir) => rustix::fs::openat(&dir.fd, name, flags, Mode::empty())?,
        None => rustix::fs::openat(CWD, name, flags, Mode::empty())?,
    };
    // What was mounted there meanwhile has a number of its own.
    mounts.holds(fd.as_fd()).map_err(|kind| untrusted(at, &kind))?;
    let stat = rustix::fs::fstat(&fd)?;
    Ok((fd, stat))
}

/// Takes a directory into the walk.
fn enter(above: Option<&Dir>, fd: OwnedFd, stat: &Stat, path: PathBuf) -> Result<Dir, Unread> {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let shared = mode.intersects(OTHERS_WRITE);
    if shared && !mode.contains(Mode::SVTX) {
        return Err(untrusted(&path, "can be written by others"));
    }
    let user = user(above.and_then(|dir| dir.user), stat.st_uid)?;
    // In a sticky directory others can't replace root's, nor move a directory of root's there.
    let steady = above.is_none_or(|dir| dir.steady) && stat.st_uid == 0;
    Ok(Dir { fd, path, roots: steady && !shared, steady, shared, user })
}

/// What is known of a file at the end of a walk.
fn regular(dir: &Dir, fd: OwnedFd, stat: &Stat, at: &Path) -> Result<Looked, Unread> {
    if Mode::from_raw_mode(stat.st_mode).intersects(OTHERS_WRITE) {
        return Err(untrusted(at, "can be written by others"));
    }
    // Where others can make links, it may be another's file under a name of theirs.
    if stat.st_nlink > 1 && !dir.roots {
        return Err(untrusted(at, "has several names (hard links)"));
    }
    let author = match user(dir.user, stat.st_uid)? {
        Some(user) => Author::User(user),
        // Everybody can move a file of root's there that he found in a directory of his.
        None if dir.shared => Author::Anybody,
        None => Author::Own,
    };
    Ok(Looked { fd, author, owner: stat.st_uid })
}

/// The user of a path, with one more owner in it.
fn user(known: Option<u32>, owner: u32) -> Result<Option<u32>, Unread> {
    match known {
        _ if owner == 0 => Ok(known),
        None => Ok(Some(owner)),
        Some(one) if one == owner => Ok(known),
        Some(one) => {
            Err(Unread::Untrusted(format!("its path belongs to several users ({one} and {owner})")))
        }
    }
}

fn untrusted(at: &Path, what: &str) -> Unread {
    Unread::Untrusted(format!("{} {what}", at.display()))
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(part).collect()
}

impl From<Errno> for Unread {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR => Self::Missing,
            other => Self::Failed(other.into()),
        }
    }
}
