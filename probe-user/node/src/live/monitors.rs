//! Which container a process is in, where its cgroup says nothing: with cgroup v1 that of a
//! user's container does not, nor with `podman run --cgroups=disabled`.
//!
//! conmon and containerd's shims are started for one container each, and are the parents of
//! what runs in it. Their arguments are the word of their user, and nobody else's: who may
//! speak for that container is decided as for every other one.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::CWD;

use super::files::{self, ARGUMENTS, SMALL};
use super::reader::Reader;
use super::{process, procs, program};
use whereis_port_model::{ContainerRef, Monitored, Pid, Runtime};

/// How far up parents are followed.
const DEPTH: usize = 64;

/// The monitors of a procfs. Each process is looked at once; copies share what is known.
#[derive(Debug, Clone)]
pub(super) struct Monitors {
    proc: PathBuf,
    reader: Reader,
    known: Arc<Mutex<HashMap<Pid, Option<Monitored>>>>,
}

impl Monitors {
    pub(super) fn new(proc: &Path, reader: Reader) -> Self {
        Self { proc: proc.to_owned(), reader, known: Arc::default() }
    }

    /// The container that a process is in, as its nearest parent says that watches over one.
    pub(super) fn of(&self, pid: Pid) -> Option<Monitored> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut passed = Vec::new();
        let mut at = pid;
        let found = loop {
            if let Some(found) = known.get(&at) {
                break found.clone();
            }
            passed.push(at);
            let Some((dir, parent)) = self.parent(at).filter(|_| passed.len() <= DEPTH) else {
                break None;
            };
            if parent <= 1 {
                break None;
            }
            if let Some(found) = self.watched(dir.as_fd(), parent) {
                break Some(found);
            }
            at = parent;
        };
        known.extend(passed.into_iter().map(|pid| (pid, found.clone())));
        found
    }

    /// The directory of a process, and its parent.
    fn parent(&self, pid: Pid) -> Option<(std::os::fd::OwnedFd, Pid)> {
        let dir = procs::open_dir(CWD, self.proc.join(pid.to_string())).ok()?;
        let stat = files::read(&dir, c"stat", SMALL).ok()?.bytes;
        Some((dir, procs::parse_parent(&stat)?))
    }

    /// The container that `monitor` watches over, if its child is in there.
    fn watched(&self, child: BorrowedFd<'_>, monitor: Pid) -> Option<Monitored> {
        let dir = procs::open_dir(CWD, self.proc.join(monitor.to_string())).ok()?;
        let dir = dir.as_fd();
        let comm = files::read(dir, c"comm", SMALL).ok()?.text();
        let comm = comm.trim_end();
        if !Runtime::is_monitor(comm) {
            return None;
        }
        // What it starts itself, `podman container cleanup`, sees what it sees; a container
        // has mounts of its own.
        let mounts = |dir| procs::inode_link(dir, c"ns/mnt", b"mnt:").ok().flatten();
        if mounts(child)? == mounts(dir)? {
            return None;
        }
        let status = files::read(dir, c"status", SMALL).ok()?.text();
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        let mut uids = uids.split_ascii_whitespace().map(|uid| uid.parse::<u32>().ok());
        let uid = uids.next()??;
        if uids.any(|other| other != Some(uid)) {
            return None;
        }
        let (owner, mode) = program::exe(&self.reader, dir).ok()?;
        if mode & 0o022 != 0 || owner != 0 && owner != uid {
            return None;
        }
        let raw = self.reader.of_process(dir, process::CMDLINE, ARGUMENTS).ok()?;
        let container = started_for(&files::arguments(&raw))?;
        Some(Monitored { container, by: monitor, uid })
    }
}

/// The container that conmon or a shim was started for, by its arguments.
fn started_for(argv: &[String]) -> Option<ContainerRef> {
    let program = argv.first()?.rsplit('/').next()?;
    let value = |names: &[&str]| {
        let at = argv.iter().position(|argument| names.contains(&argument.as_str()))?;
        argv.get(at + 1).map(String::as_str)
    };
    let (runtime, id) = if program == "conmon" {
        let exits = value(&["--exit-dir"]).unwrap_or_default();
        let runtime = if exits.contains("/crio/") { Runtime::CriO } else { Runtime::Podman };
        (runtime, value(&["-c", "--cid"])?)
    } else if program.starts_with("containerd-shim") {
        let runtime = match value(&["-namespace", "--namespace"])? {
            "moby" => Runtime::Docker,
            // One shim has all containers of a pod, and is called after its sandbox.
            "k8s.io" => return None,
            _ => Runtime::Containerd,
        };
        (runtime, value(&["-id", "--id"])?)
    } else {
        return None;
    };
    let is_id = id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then(|| ContainerRef { runtime, id: id.to_owned(), pod: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitors_name_their_container_by_its_whole_id() {
        let id = "5d".repeat(32);
        let of = |line: &str| {
            let line = line.replace("ID", &id);
            let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
            started_for(&argv).map(|found| (found.runtime, found.id == id))
        };
        let podman = "/usr/bin/conmon --api-version 1 -c ID -u ID -r /usr/bin/runc -b \
                      /home/u/.local/share/containers/storage/vfs-containers/ID/userdata -n web \
                      --exit-dir /run/user/1000/libpod/tmp/exits";
        assert_eq!(of(podman), Some((Runtime::Podman, true)));
        let crio = "/usr/bin/conmon -b /run/containers -c ID --exit-dir /var/run/crio/exits -n x";
        assert_eq!(of(crio), Some((Runtime::CriO, true)));
        let shim = "/usr/bin/containerd-shim-runc-v2 -namespace moby -id ID -address /run/c.sock";
        assert_eq!(of(shim), Some((Runtime::Docker, true)));
        for none in [
            "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id ID",
            "/usr/bin/conmon -c web",
            "/usr/bin/conmon -c",
            "/usr/bin/podman -c ID",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
