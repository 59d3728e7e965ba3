//! Whether processes are frozen by their cgroup, as `docker pause` and systemd do it: cgroup v2
//! (`cgroup.events`, Linux 5.2), or the freezer of v1.

use rustix::fs::statfs;

use super::files::{self, SMALL};

/// `CGROUP2_SUPER_MAGIC` and `CGROUP_SUPER_MAGIC`, linux/magic.h.
const CGROUP2: u64 = 0x6367_7270;
const CGROUP: u64 = 0x0027_e0eb;

/// Where cgroups are mounted that can be frozen: at the usual places, which root made.
#[derive(Debug, Default)]
pub(super) struct Freezers {
    unified: Option<&'static str>,
    v1: Option<&'static str>,
}

impl Freezers {
    pub(super) fn find() -> Self {
        let is = |path: &&str, magic: u64| {
            statfs(*path).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(magic))
        };
        Self {
            unified: ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
                .into_iter()
                .find(|path| is(path, CGROUP2)),
            v1: Some("/sys/fs/cgroup/freezer").filter(|path| is(path, CGROUP)),
        }
    }

    /// Whether a process is, by the text of its `/proc/PID/cgroup`. `None` when neither tells.
    pub(super) fn is_frozen(&self, cgroup: &str) -> Option<bool> {
        let (unified, v1) = paths(cgroup);
        let read = |mount: Option<&str>, path: Option<&str>, file: &str| {
            let (mount, path) = (mount?, path?);
            // The root has no such file, and can't be frozen.
            if path == "/" {
                return Some(String::new());
            }
            files::text(format!("{mount}{path}/{file}"), SMALL).ok()
        };
        let two = read(self.unified, unified, "cgroup.events")
            .map(|text| text.lines().any(|line| line.split_once(' ') == Some(("frozen", "1"))));
        let one = read(self.v1, v1, "freezer.state").map(|text| text.trim() == "FROZEN");
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
        assert_ne!(Freezers::find().is_frozen(&own), Some(true));
        assert_eq!(Freezers::default().is_frozen(&own), None);
    }
}
