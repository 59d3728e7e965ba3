//! The path of a cgroup v2 by its id, which is the inode number of its directory.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use whereis_port_model::CgroupPath;

/// How many directories are looked at before the search is given up: a node
/// with more cgroups than this has other problems.
const LIMIT: usize = 200_000;

/// How deep the search goes: each level holds a descriptor open, and whoever
/// has a part of the tree to himself can nest groups at will.
const DEPTH: usize = 64;

/// Looks for the cgroup with this id in the mounts of cgroup2. `Err` says why
/// it can't be looked for.
pub(super) fn path(mountinfo: &str, id: u64) -> Result<Option<CgroupPath>, String> {
    let mount = mount_point(mountinfo).ok_or("no cgroup2 is mounted")?;
    let root =
        rustix::fs::open(&mount, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| format!("{mount}: {error}"))?;
    if rustix::fs::fstat(&root).is_ok_and(|stat| stat.st_ino == id) {
        return Ok(Some(CgroupPath("/".to_owned())));
    }
    let mut left = LIMIT;
    Ok(search(root, id, "", DEPTH, &mut left).map(CgroupPath))
}

/// Depth first. `st_ino` of a directory entry is the id, so that only
/// directories on the way are opened.
fn search(dir: OwnedFd, id: u64, path: &str, depth: usize, left: &mut usize) -> Option<String> {
    let deeper = depth.checked_sub(1)?;
    let mut below = Vec::new();
    let listing = rustix::fs::openat(
        &dir,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    for entry in rustix::fs::Dir::new(listing).ok()?.flatten() {
        let name = entry.file_name().to_string_lossy();
        if entry.file_type() != rustix::fs::FileType::Directory || name == "." || name == ".." {
            continue;
        }
        *left = left.checked_sub(1)?;
        let child = format!("{path}/{name}");
        if entry.ino() == id {
            return Some(child);
        }
        below.push((entry.file_name().to_owned(), child));
    }
    below.into_iter().find_map(|(name, child)| {
        let next = rustix::fs::openat(
            dir.as_fd(),
            name,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        );
        search(next.ok()?, id, &child, deeper, left)
    })
}

/// Where cgroup2 is mounted, its root if possible.
pub(super) fn mount_point(mountinfo: &str) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next() == Some("cgroup2")).then_some(())?;
        let mut fields = before.split(' ').skip(3);
        Some((fields.next()?, fields.next()?))
    });
    let (_, point) = mounts.min_by_key(|(root, _)| root.len())?;
    Some(super::mounts::unescape(point.as_bytes()).to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_the_whole_tree_is_preferred() {
        // From a hybrid Debian 12 host, and a container's view of its own part.
        let text = "\
33 24 0:29 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
40 33 0:36 /docker/abc /run/part rw - cgroup2 cgroup2 rw
41 33 0:36 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 33 0:37 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu";
        assert_eq!(mount_point(text).as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount_point(""), None);
    }

    #[test]
    fn an_unknown_id_is_nothing_and_the_root_is_found() {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let Some(point) = mount_point(&mounts) else {
            eprintln!("SKIPPED: no cgroup2 is mounted here");
            return;
        };
        let root = rustix::fs::stat(point.as_str()).unwrap().st_ino;
        assert_eq!(path(&mounts, root), Ok(Some(CgroupPath("/".to_owned()))));
        assert_eq!(path(&mounts, u64::MAX), Ok(None));
    }

    #[test]
    fn the_search_ends_at_a_bounded_depth() {
        let top = tempfile::tempdir().unwrap();
        let mut dir = top.path().to_owned();
        let mut inodes = Vec::new();
        for _ in 0..DEPTH + 2 {
            dir.push("d");
            std::fs::create_dir(&dir).unwrap();
            inodes.push(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&dir).unwrap()));
        }
        let look = |inode| {
            let root = rustix::fs::open(top.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .unwrap();
            search(root, inode, "", DEPTH, &mut { LIMIT })
        };
        assert_eq!(look(inodes[DEPTH - 1]), Some("/d".repeat(DEPTH)));
        assert_eq!(look(inodes[DEPTH]), None);
    }
}
