//! The little that containers need to know of processes.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::CWD;

use super::super::asking::Tokio;
use super::super::files::{self, ARGUMENTS, SMALL};
use super::super::monitors::Monitors;
use super::super::program;
use super::super::reader::{Reader, RootDirectory};
use super::super::safefs::Unreadable;
use super::super::{process, procs};
use whereis_port_model::{CgroupPath, ContainerRef, Pid, parse_proc_cgroup};

/// A procfs.
#[derive(Debug, Clone)]
pub(super) struct Procs {
    proc: PathBuf,
    reader: Reader,
    tokio: Tokio,
    monitors: Monitors,
    own_userns: OnceLock<Option<String>>,
}

impl Procs {
    pub(super) fn new(proc: &Path, reader: Reader) -> Self {
        let monitors = Monitors::new(proc, reader.clone());
        let (proc, tokio) = (proc.to_owned(), Tokio::default());
        Self { proc, reader, tokio, monitors, own_userns: OnceLock::new() }
    }

    /// What reads where others have a say.
    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// What daemons are asked in.
    pub(super) fn tokio(&self) -> Tokio {
        self.tokio.clone()
    }

    /// Every process, lowest id first.
    pub(super) fn all(&self) -> Vec<Pid> {
        procs::open_root(&self.proc).and_then(procs::pids).unwrap_or_default()
    }

    /// The containers a process is in, outermost first. `None` when it is gone.
    pub(super) fn chain(&self, pid: Pid) -> Option<Vec<ContainerRef>> {
        let chain = self.cgroup(pid)?.containers();
        if !chain.is_empty() {
            return Some(chain);
        }
        Some(self.monitors.of(pid).map(|monitored| monitored.container).into_iter().collect())
    }

    /// Who watches over which containers.
    pub(super) fn monitors(&self) -> &Monitors {
        &self.monitors
    }

    /// The cgroup that a process is in.
    pub(super) fn cgroup(&self, pid: Pid) -> Option<CgroupPath> {
        parse_proc_cgroup(&self.text(pid, "cgroup")?)
    }

    pub(super) fn comm(&self, pid: Pid) -> Option<String> {
        Some(self.text(pid, "comm")?.trim_end_matches('\n').to_owned())
    }

    pub(super) fn argv(&self, pid: Pid) -> Vec<String> {
        let process = procs::open_dir(CWD, self.proc.join(pid.to_string()));
        let raw = process.map_err(Unreadable::from).and_then(|process| {
            self.reader.of_process(process.as_fd(), process::CMDLINE, ARGUMENTS)
        });
        files::arguments(&raw.unwrap_or_default())
    }

    /// Its users: real, effective, saved and of the file system.
    pub(super) fn uids(&self, pid: Pid) -> Option<Vec<u32>> {
        let text = self.text(pid, "status")?;
        let uids = text.lines().find_map(|l| l.strip_prefix("Uid:"))?;
        uids.split_whitespace().map(|uid| uid.parse().ok()).collect()
    }

    /// Its effective capabilities, as bits.
    pub(super) fn capabilities(&self, pid: Pid) -> Option<u64> {
        let text = self.text(pid, "status")?;
        let bits = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(bits.trim(), 16).ok()
    }

    /// Its user namespace, as the kernel names it: `user:[4026531837]`.
    pub(super) fn userns(&self, pid: Pid) -> Option<String> {
        let name = procs::link(CWD, self.of(pid, "ns/user")).ok()?;
        Some(name.to_string_lossy().into_owned())
    }

    /// The tool's own user namespace.
    pub(super) fn own_userns(&self) -> Option<&String> {
        let read = || procs::link(CWD, self.proc.join("self/ns/user")).ok();
        self.own_userns.get_or_init(|| Some(read()?.to_string_lossy().into_owned())).as_ref()
    }

    /// The owner and the mode of the file that it runs.
    pub(super) fn exe(&self, pid: Pid) -> Result<(u32, u32), Unreadable> {
        let process = procs::open_dir(CWD, self.proc.join(pid.to_string()))?;
        program::exe(&self.reader, process.as_fd())
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
        procs::parse_parent(self.text(pid, "stat")?.as_bytes())
    }

    /// Whether it is the first process of a PID namespace, as a container's
    /// first process is unless it shares its host's.
    pub(super) fn is_init(&self, pid: Pid) -> bool {
        let status = self.text(pid, "status").unwrap_or_default();
        let ids = status.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap_or("");
        let ids: Vec<&str> = ids.split_whitespace().collect();
        ids.len() > 1 && ids.last() == Some(&"1")
    }

    /// Its directory in procfs.
    pub(super) fn dir(&self, pid: Pid) -> PathBuf {
        self.proc.join(pid.to_string())
    }

    /// Its network namespace.
    pub(super) fn netns(&self, pid: Pid) -> Option<u64> {
        procs::inode_link(CWD, self.of(pid, "ns/net"), b"net:").ok().flatten()
    }

    /// Its working directory, as its own mount namespace names it.
    pub(super) fn cwd(&self, pid: Pid) -> Option<PathBuf> {
        procs::link(CWD, self.of(pid, "cwd")).ok()
    }

    /// Its root directory.
    pub(super) fn root(&self, pid: Pid) -> Result<RootDirectory, Unreadable> {
        self.reader.root_of(&self.proc.join(pid.to_string()))
    }

    /// What its root directory is called.
    pub(super) fn root_name(&self, pid: Pid) -> String {
        self.of(pid, "root").display().to_string()
    }

    /// When it started: with the id, its identity.
    pub(super) fn started(&self, pid: Pid) -> Option<u64> {
        procs::parse_start_time(self.text(pid, "stat")?.as_bytes())
    }

    fn text(&self, pid: Pid, name: &str) -> Option<String> {
        files::text(self.of(pid, name), SMALL).ok()
    }

    fn of(&self, pid: Pid, name: &str) -> PathBuf {
        self.proc.join(pid.to_string()).join(name)
    }
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
}
