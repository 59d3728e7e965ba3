//! Whether processes are frozen by their cgroup, as `docker pause` and systemd do it: cgroup v2
//! (`cgroup.events`, Linux 5.2), or the freezer of v1.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, fstatfs, open};

use super::files::{self, SMALL};
use super::procs;
use super::reader::Reader;

/// `CGROUP2_SUPER_MAGIC` and `CGROUP_SUPER_MAGIC`, linux/magic.h.
const CGROUP2: u64 = 0x6367_7270;
const CGROUP: u64 = 0x0027_e0eb;

/// How many parents are looked at.
const PARENTS: usize = 16;
/// Where version 2 is mounted, and the freezer of version 1.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const FREEZER: [&str; 1] = ["/sys/fs/cgroup/freezer"];

/// Where cgroups are mounted that can be frozen: at the usual places, which root made.
#[derive(Debug, Default)]
pub(super) struct Freezers {
    unified: Option<OwnedFd>,
    v1: Option<OwnedFd>,
}

impl Freezers {
    /// Those of the own mount namespace, or else of a parent's: `ip netns exec` mounts another
    /// `/sys`.
    pub(super) fn find(reader: &Reader) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let is = |fd: &OwnedFd, magic: u64| {
            fstatfs(fd).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(magic))
        };
        let find = |places: &[&str], magic, at: &dyn Fn(&str) -> Option<OwnedFd>| {
            places.iter().filter_map(|path| at(path)).find(|fd| is(fd, magic))
        };
        let both = |at: &dyn Fn(&str) -> Option<OwnedFd>| Self {
            unified: find(&UNIFIED, CGROUP2, at),
            v1: find(&FREEZER, CGROUP, at),
        };
        let own = both(&|path| open(path, flags, Mode::empty()).ok());
        if own.unified.is_some() || own.v1.is_some() {
            return own;
        }
        let parent = |process: &str| {
            let stat = files::read(CWD, format!("/proc/{process}/stat"), SMALL).ok()?.bytes;
            procs::parse_parent(&stat).filter(|pid| *pid > 0)
        };
        let parents = std::iter::successors(parent("self"), |pid| parent(&pid.to_string()));
        for pid in parents.take(PARENTS) {
            let Ok(root) = reader.root_of(&Path::new("/proc").join(pid.to_string())) else {
                continue;
            };
            let theirs = both(&|path| {
                let (found, _) = root.look(Path::new(path)).ok()?;
                open(format!("/proc/self/fd/{}", found.as_raw_fd()), flags, Mode::empty()).ok()
            });
            if theirs.unified.is_some() || theirs.v1.is_some() {
                return theirs;
            }
        }
        own
    }

    /// Whether a process is, by the text of its `/proc/PID/cgroup`. `None` when neither tells.
    pub(super) fn is_frozen(&self, cgroup: &str) -> Option<bool> {
        let (unified, v1) = paths(cgroup);
        let read = |mount: &Option<OwnedFd>, path: Option<&str>, file: &str| {
            let (mount, path) = (mount.as_ref()?, path?);
            // The root has no such file, and can't be frozen.
            if path == "/" {
                return Some(String::new());
            }
            let read = files::read(mount, format!("./{path}/{file}"), SMALL).ok();
            read.map(files::Beginning::text)
        };
        let two = read(&self.unified, unified, "cgroup.events")
            .map(|text| text.lines().any(|line| line.split_once(' ') == Some(("frozen", "1"))));
        let one = read(&self.v1, v1, "freezer.state").map(|text| text.trim() == "FROZEN");
        match (two, one) {
            (None, None) => None,
            (two, one) => Some(two == Some(true) || one == Some(true)),
        }
    }
}

/// The paths in the unified tree and in that of the freezer. One outside of what is seen here
/// leads up.
fn paths(text: &str) -> (Option<&str>, Option<&str>) {
    let mut found = (None, None);
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            continue;
        }
        if controllers.is_empty() {
            found.0 = Some(path);
        } else if controllers.split(',').any(|controller| controller == "freezer") {
            found.1 = Some(path);
        }
    }
    found
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(text: &str) {
    paths(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_trees_are_told_apart_and_none_leads_up() {
        let text = "9:name=systemd:/a\n6:devices,freezer:/docker/x\n0::/system.slice/x.service\n";
        assert_eq!(paths(text), (Some("/system.slice/x.service"), Some("/docker/x")));
        assert_eq!(paths("0::/../../other\n"), (None, None));
        assert_eq!(paths("0::/a:b/c\n7:freezer\n"), (Some("/a:b/c"), None));
    }

    #[test]
    fn nobody_freezes_this_test() {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        assert_ne!(Freezers::find(&Reader::default()).is_frozen(&own), Some(true));
        assert_eq!(Freezers::default().is_frozen(&own), None);
    }
}
