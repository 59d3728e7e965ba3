//! The little that containers need to know of processes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::model::{ContainerRef, Pid, parse_proc_cgroup};

/// A procfs.
#[derive(Debug, Clone)]
pub(super) struct Procs {
    proc: PathBuf,
}

impl Procs {
    pub(super) fn new(proc: &Path) -> Self {
        Self { proc: proc.to_owned() }
    }

    /// Every process, lowest id first.
    pub(super) fn all(&self) -> Vec<Pid> {
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let mut pids: Vec<Pid> =
            entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        pids
    }

    /// The containers a process is in, outermost first. `None` when it is gone.
    pub(super) fn chain(&self, pid: Pid) -> Option<Vec<ContainerRef>> {
        let text = fs::read(self.of(pid, "cgroup")).ok()?;
        let path = parse_proc_cgroup(&String::from_utf8_lossy(&text))?;
        Some(path.containers())
    }

    pub(super) fn comm(&self, pid: Pid) -> Option<String> {
        let text = fs::read(self.of(pid, "comm")).ok()?;
        Some(String::from_utf8_lossy(&text).trim_end_matches('\n').to_owned())
    }

    pub(super) fn argv(&self, pid: Pid) -> Vec<String> {
        split_argv(&fs::read(self.of(pid, "cmdline")).unwrap_or_default())
    }

    /// The user it runs as.
    pub(super) fn uid(&self, pid: Pid) -> Option<u32> {
        let text = fs::read_to_string(self.of(pid, "status")).ok()?;
        let uids = text.lines().find_map(|l| l.strip_prefix("Uid:"))?;
        uids.split_whitespace().next()?.parse().ok()
    }

    /// Its parents, nearest first.
    pub(super) fn ancestors(&self, pid: Pid) -> Vec<Pid> {
        let mut found = Vec::new();
        let mut at = pid;
        // Parents can't form a loop, but PIDs are reused while this runs.
        while found.len() < 64 {
            match self.parent(at) {
                Some(parent) if parent != 0 && !found.contains(&parent) => {
                    found.push(parent);
                    at = parent;
                }
                _ => break,
            }
        }
        found
    }

    fn parent(&self, pid: Pid) -> Option<Pid> {
        let text = fs::read(self.of(pid, "stat")).ok()?;
        parent_in_stat(&String::from_utf8_lossy(&text))
    }

    /// Whether it is the first process of a PID namespace, as a container's
    /// first process is unless it shares its host's.
    pub(super) fn is_init(&self, pid: Pid) -> bool {
        let status = fs::read_to_string(self.of(pid, "status")).unwrap_or_default();
        let ids = status.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap_or("");
        let ids: Vec<&str> = ids.split_whitespace().collect();
        ids.len() > 1 && ids.last() == Some(&"1")
    }

    /// Its working directory, as its own mount namespace names it.
    pub(super) fn cwd(&self, pid: Pid) -> Option<PathBuf> {
        fs::read_link(self.of(pid, "cwd")).ok()
    }

    /// Where its root directory can be opened.
    pub(super) fn root(&self, pid: Pid) -> PathBuf {
        self.of(pid, "root")
    }

    /// When it started: with the id, its identity.
    pub(super) fn started(&self, pid: Pid) -> Option<u64> {
        let text = fs::read(self.of(pid, "stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
    }

    fn of(&self, pid: Pid, name: &str) -> PathBuf {
        self.proc.join(pid.to_string()).join(name)
    }
}

/// `/proc/PID/cmdline`: arguments, each ended by a NUL.
pub(super) fn split_argv(raw: &[u8]) -> Vec<String> {
    let raw = raw.strip_suffix(b"\0").unwrap_or(raw);
    if raw.is_empty() {
        return Vec::new();
    }
    raw.split(|&b| b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
}

/// The fourth field of `/proc/PID/stat`. The second is a name in parentheses
/// that may hold anything, parentheses and spaces included.
fn parent_in_stat(text: &str) -> Option<Pid> {
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The values of an option in `argv`: `--name V`, `--name=V`, and `-n V` for a
/// short one.
pub(super) fn option_values<'a>(argv: &'a [String], names: &[&str]) -> Vec<&'a str> {
    let mut values = Vec::new();
    let mut args = argv.iter().skip(1);
    while let Some(arg) = args.next() {
        for name in names {
            if arg == name {
                values.extend(args.next().map(String::as_str));
                break;
            }
            if let Some(value) = arg.strip_prefix(name).and_then(|r| r.strip_prefix('=')) {
                values.push(value);
                break;
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn options_are_found_in_all_their_forms() {
        let argv = argv("dockerd -H unix:///a --host unix:///b --host=unix:///c --data-root /d");
        assert_eq!(
            option_values(&argv, &["-H", "--host"]),
            ["unix:///a", "unix:///b", "unix:///c"]
        );
        assert_eq!(option_values(&argv, &["--data-root"]), ["/d"]);
        assert!(option_values(&argv, &["--data"]).is_empty());
        // The program's own name is no option, and a missing value no panic.
        assert!(option_values(&["-H".to_owned(), "-H".to_owned()], &["-H"]).is_empty());
    }

    #[test]
    fn a_process_can_not_lie_about_its_parent_by_its_name() {
        assert_eq!(parent_in_stat("12 (a) S 1 (b) S 34 12 12 0"), Some(34));
        assert_eq!(parent_in_stat("12 (a) S 34"), Some(34));
        assert_eq!(parent_in_stat("garbage"), None);
    }

    #[test]
    fn arguments_may_be_empty() {
        assert_eq!(split_argv(b"a\0\0b\0"), ["a", "", "b"]);
        assert!(split_argv(b"").is_empty());
    }
}
