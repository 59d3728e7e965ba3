//! Pinning: the only thing that the tool leaves behind, when it is asked to.
//!
//! A pinned iterator costs one read and no loading, and who may read the file
//! gets the owners of all sockets without any other right.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::super::procs;
use super::load::{self, Kernel, LoadError};
use super::object::VERSION;
use super::place::{self, Iterator, OWN, USUAL, Untrusted};

/// How long another `pin` or `unpin` is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The directory of the pins.
    pub directory: PathBuf,
    /// Whether a bpffs was mounted for it.
    pub mounted: bool,
    /// The version of the programs.
    pub version: &'static str,
    /// Whose members may read them, besides root.
    pub group: Option<u32>,
}

/// The id of a group, from the text of `/etc/group` or from a number.
pub fn group_id(name: &str, groups: &str) -> Option<u32> {
    let listed = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let id = (fields.next()? == name).then(|| fields.nth(1))??;
        id.parse().ok()
    });
    listed.or_else(|| name.parse().ok())
}

/// Pins the iterators, in place of those that are pinned already.
///
/// # Errors
/// Says what does not work and what would help.
pub fn pin(group: Option<u32>) -> Result<Pinned, String> {
    pin_both(group).map_err(|refused| match refused.remedy {
        Some(remedy) => format!("{}; {remedy}", refused.reason),
        None => refused.reason,
    })
}

fn pin_both(group: Option<u32>) -> Result<Pinned, LoadError> {
    // Whatever another user may load: what is theirs is not trusted, and a
    // directory of theirs would be in the way of root's.
    if !rustix::process::geteuid().is_root() {
        return Err(LoadError::new("a pin has to belong to root").remedy("run it as root"));
    }
    // Everything that can be refused comes before anything is made.
    let kernel = Kernel::read()?;
    let mut ebpf = kernel.open()?;
    let mut links = Vec::new();
    for which in [Iterator::Sockets, Iterator::Tasks] {
        links.push((which, kernel.attach(&mut ebpf, which)?));
    }
    let (directory, mounted) = directory(group)?;
    let _one_at_a_time = lock(&directory)?;
    let mut pins = Vec::new();
    for (which, link) in links {
        // Nobody may read it before its mode is right: it is made with 0600 under
        // another name, and the name that is looked for comes last.
        let new = directory.join(format!("new-{}", which.file()));
        remove(&new)?;
        load::pin(link, &new)?;
        pins.push((which, new));
    }
    for (which, new) in pins {
        let mode = if let Some(group) = group {
            rustix::fs::chown(&new, None::<Uid>, Some(Gid::from_raw(group)))
                .map_err(|error| failed("changing the group of", &new, error.into()))?;
            0o440
        } else {
            0o400
        };
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))
            .map_err(|error| failed("changing the mode of", &new, error))?;
        let path = directory.join(which.file());
        fs::rename(&new, &path).map_err(|error| failed("naming", &path, error))?;
    }
    sweep(&directory, |name| !name.ends_with(VERSION));
    // A pin in the other place would still be readable by whom it was made for.
    let other = if directory == Path::new(USUAL) { OWN } else { USUAL };
    unpin_in(other, &mut Vec::new()).map_err(LoadError::new)?;
    Ok(Pinned { directory, mounted, version: VERSION, group })
}

/// Removes every pin, of any version, and what `pin` mounted and made. Gives the
/// pins that were there.
///
/// # Errors
/// Says what could not be removed, after the rest was.
pub fn unpin() -> Result<Vec<PathBuf>, String> {
    let mut removed = Vec::new();
    let results = [USUAL, OWN].map(|dir| unpin_in(dir, &mut removed));
    results.into_iter().collect::<Result<(), String>>()?;
    Ok(removed)
}

fn unpin_in(dir: &str, removed: &mut Vec<PathBuf>) -> Result<(), String> {
    let path = Path::new(dir);
    match place::open_trusted(dir) {
        Ok(None) => return Ok(()),
        Err(Untrusted::Because(why)) => {
            return Err(format!("{why}; look who made it, and remove it"));
        }
        Err(Untrusted::Denied) => return Err(format!("{dir} can't be read: run it as root")),
        Ok(Some(_)) => {}
    }
    let _one_at_a_time = lock(path).map_err(|refused| refused.reason)?;
    removed.extend(sweep(path, |_| true));
    let left = left_in(path);
    if !left.is_empty() {
        let left = left.join(", ");
        return Err(format!("{dir}: not removed: {left}; run it as root, or look whose it is"));
    }
    if dir == OWN {
        // Detached, for the lock keeps it in use; whoever reads may go on.
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH)
            .map_err(|error| failed("unmounting", path, error.into()).reason)?;
    }
    fs::remove_dir(path).map_err(|error| failed("removing", path, error).reason)?;
    if dir == OWN {
        // Only if nothing else is in there.
        let _ = fs::remove_dir(Path::new(OWN).with_file_name(""));
    }
    Ok(())
}

/// Where to pin: in the usual bpffs, else in one that is mounted for it.
fn directory(group: Option<u32>) -> Result<(PathBuf, bool), LoadError> {
    let usual = Path::new(USUAL);
    let bpffs = usual.parent().unwrap_or(usual);
    let mounted = rustix::fs::open(bpffs, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        .is_ok_and(place::is_bpffs);
    // systemd mounts it for root alone: then a group could not get to its pin.
    let enterable = rustix::fs::stat(bpffs).is_ok_and(|stat| {
        let mode = stat.st_mode;
        mode & 0o001 != 0 || (Some(stat.st_gid) == group && mode & 0o010 != 0)
    });
    if mounted && (group.is_none() || enterable) {
        make(usual)?;
        return Ok((usual.to_owned(), false));
    }
    let own = Path::new(OWN);
    if let Some(parent) = own.parent() {
        make(parent)?;
    }
    make(own)?;
    let there = rustix::fs::open(own, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        .is_ok_and(place::is_bpffs);
    if there {
        return Ok((own.to_owned(), false));
    }
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC;
    rustix::mount::mount("bpf", own, "bpf", flags, Some(c"mode=0755"))
        .map_err(|error| failed("mounting a bpffs at", own, error.into()))?;
    Ok((own.to_owned(), true))
}

/// Makes a directory that others may enter and not write.
fn make(path: &Path) -> Result<(), LoadError> {
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => {
            // Whatever the umask is.
            let permissions = fs::Permissions::from_mode(0o755);
            fs::set_permissions(path, permissions)
                .map_err(|error| failed("changing the mode of", path, error))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(path).map_err(|e| failed("looking at", path, e))?;
            if !meta.is_dir() || meta.uid() != 0 || meta.mode() & 0o022 != 0 {
                return Err(LoadError::new(format!(
                    "{} is not a directory that only root can write to",
                    path.display()
                ))
                .remedy("look who made it, and remove it"));
            }
            Ok(())
        }
        Err(error) => Err(failed("making", path, error)),
    }
}

/// Keeps a second `pin` or `unpin` waiting until this one is done.
fn lock(directory: &Path) -> Result<std::os::fd::OwnedFd, LoadError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, Mode::empty())
        .map_err(|error| failed("opening", directory, error.into()))?;
    // Whoever may read the directory can lock it: nobody is waited for long.
    let until = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(&fd, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(Errno::WOULDBLOCK) => {
                let text = format!("{} is locked by another process", directory.display());
                return Err(LoadError::new(text)
                    .remedy("wait for the other pin or unpin, or see who keeps it: lslocks"));
            }
            Err(error) => return Err(failed("locking", directory, error.into())),
        }
    }
    // While this waited, an `unpin` may have removed it.
    let id = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let there = rustix::fs::stat(directory).ok().map(id);
    if there.is_none() || there != rustix::fs::fstat(&fd).ok().map(id) {
        let text = format!("{} was just removed by another unpin", directory.display());
        return Err(LoadError::new(text).remedy("run it again"));
    }
    Ok(fd)
}

/// Removes the pins whose name is chosen, and gives them.
fn sweep(directory: &Path, chosen: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let ours = |name: &str| {
        let name = name.strip_prefix("new-").unwrap_or(name);
        name.starts_with("sockets-") || name.starts_with("tasks-")
    };
    let mut names = names_in(directory);
    names.retain(|name| ours(name) && chosen(name));
    let paths = names.into_iter().map(|name| directory.join(name));
    paths.filter(|path| fs::remove_file(path).is_ok()).collect()
}

/// What is in a directory, besides what the kernel puts into every bpffs itself.
fn left_in(directory: &Path) -> Vec<String> {
    let mut names = names_in(directory);
    names.retain(|name| !["maps.debug", "progs.debug"].contains(&name.as_str()));
    names
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut add = |name: &std::ffi::CStr| names.push(name.to_string_lossy().into_owned());
    if let Ok(directory) = procs::open_dir(rustix::fs::CWD, directory) {
        let _so_far = procs::each_name(directory, &mut add);
    }
    names.retain(|name| name != "." && name != "..");
    names
}

fn remove(path: &Path) -> Result<(), LoadError> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(failed("removing", path, error.into())),
    }
}

fn failed(what: &str, path: &Path, error: io::Error) -> LoadError {
    let refused = LoadError::new(format!("{what} {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => refused.remedy("run it as root"),
        _ => refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_name_or_a_number() {
        let groups = "root:x:0:\ndocker:x:998:me,you\nbad\n";
        assert_eq!(group_id("docker", groups), Some(998));
        assert_eq!(group_id("1234", groups), Some(1234));
        assert_eq!(group_id("dock", groups), None);
        assert_eq!(group_id("bad", groups), None);
        assert_eq!(group_id("", groups), None);
    }
}
