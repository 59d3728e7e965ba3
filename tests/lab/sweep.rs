//! Removing what a lab made, by the lab's name alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cgroup;

/// Where `ip netns` keeps its names.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// How every name of a lab begins.
pub(crate) const PREFIX: &str = "wp-";

/// The directory of the lab `name`. Short, for a unix socket's path may have 107 bytes.
pub(crate) fn dir(name: &str) -> PathBuf {
    Path::new("/tmp").join(name)
}

/// Removes everything of the lab `name`: kills exactly the processes in its
/// cgroup, then removes cgroups, mounts, namespaces and files.
///
/// # Errors
/// When something of it can't be removed.
pub fn sweep(name: &str) -> Result<()> {
    if creator(name).is_none() {
        bail!("{name:?} is not the name of a lab");
    }
    for mount in cgroup::mounts()? {
        cgroup::kill_and_remove(&mount.join(name))?;
    }
    let dir = dir(name);
    remove_shim_sockets(&dir);
    unmount_below(&dir)?;
    for path in netns_paths(name) {
        unmount(&path);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
    }
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Sweeps the labs whose test process is gone.
///
/// # Errors
/// When something of one can't be removed.
pub fn sweep_dead() -> Result<()> {
    let mut places = vec![PathBuf::from("/tmp"), PathBuf::from(NETNS_DIR)];
    places.extend(cgroup::mounts()?);
    let mut names = BTreeSet::new();
    for place in places {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            let entry = entry.file_name();
            let parts: Vec<&str> = entry.to_str().unwrap_or_default().splitn(4, '-').collect();
            if let ["wp", pid, n, ..] = parts.as_slice() {
                names.insert(format!("{PREFIX}{pid}-{n}"));
            }
        }
    }
    for name in names {
        if creator(&name).is_some_and(|pid| !is_alive(&name, pid)) {
            // Another test may be sweeping the same lab; its own errors are its own.
            if let Err(error) = sweep(&name) {
                eprintln!("leftovers of {name}: {error:#}");
            }
        }
    }
    Ok(())
}

/// When process `pid` started, in clock ticks since boot.
pub(crate) fn start_ticks(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

/// The process id in a lab's name.
fn creator(name: &str) -> Option<u32> {
    let (pid, n) = name.strip_prefix(PREFIX)?.split_once('-')?;
    n.parse::<u32>().ok()?;
    pid.parse().ok()
}

/// Whether the process that made the lab still runs, and is not another one
/// that got its id since.
fn is_alive(name: &str, pid: u32) -> bool {
    let Some(started) = start_ticks(pid) else { return false };
    match std::fs::read_to_string(dir(name).join("creator")) {
        Ok(noted) => noted == started,
        Err(_) => true,
    }
}

fn netns_paths(name: &str) -> Vec<PathBuf> {
    let more = format!("{name}-");
    std::fs::read_dir(NETNS_DIR)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let entry = entry.file_name();
            entry.to_str().is_some_and(|e| e == name || e.starts_with(&more))
        })
        .map(|entry| entry.path())
        .collect()
}

/// containerd's shims put their sockets into `/run/containerd/s`, wherever the
/// rest of containerd is; each notes where.
fn remove_shim_sockets(dir: &Path) {
    let tasks = dir.join("exec/containerd/daemon/io.containerd.runtime.v2.task/moby");
    for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
        let address = std::fs::read_to_string(task.path().join("address")).unwrap_or_default();
        if let Some(socket) = address.strip_prefix("unix://")
            && socket.starts_with("/run/containerd/s/")
        {
            // One that is gone already is what is wanted.
            let _gone = std::fs::remove_file(socket);
        }
    }
}

fn unmount_below(dir: &Path) -> Result<()> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").context("reading mountinfo")?;
    // Later mounts lie on top of earlier ones.
    for line in mountinfo.lines().rev() {
        if let Some(point) = line.split(' ').nth(4) {
            // The kernel writes a space as an octal escape.
            let point = point.replace("\\040", " ");
            if Path::new(&point).starts_with(dir) {
                unmount(Path::new(&point));
            }
        }
    }
    Ok(())
}

fn unmount(path: &Path) {
    // Fails where nothing is mounted; removing what is there tells the rest.
    let _not_mounted = Command::new("umount").arg("-l").arg(path).output();
}
