//! The control groups of a lab: how its processes are found and killed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Where the hierarchies are mounted: version 2 first, then those of version 1.
pub(crate) fn mounts() -> Result<Vec<PathBuf>> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").context("reading mountinfo")?;
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let mut fields = before.split(' ');
        let (Some(root), Some(point)) = (fields.nth(3), fields.next()) else { continue };
        // Only whole hierarchies: a container's part of one has another root.
        let kind = after.split(' ').next().unwrap_or_default();
        if root == "/" && (kind == "cgroup2" || kind == "cgroup") {
            found.push((kind == "cgroup", PathBuf::from(point)));
        }
    }
    found.sort();
    found.dedup();
    Ok(found.into_iter().map(|(_, point)| point).collect())
}

/// Where version 2 is mounted.
pub(crate) fn unified() -> Result<PathBuf> {
    let first = mounts()?.into_iter().next().context("no cgroup file system is mounted")?;
    if !first.join("cgroup.controllers").exists() {
        bail!("no cgroup2 file system is mounted");
    }
    Ok(first)
}

/// Kills every process in `dir` and below, and removes the tree.
pub(crate) fn kill_and_remove(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while dir.exists() {
        kill(dir)?;
        match remove(dir) {
            Ok(()) => break,
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("removing {}", dir.display()));
            }
            // The processes need a moment to go.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    Ok(())
}

/// The processes in `dir` and below.
pub(crate) fn processes(dir: &Path) -> Vec<i32> {
    tree(dir)
        .iter()
        .filter_map(|group| std::fs::read_to_string(group.join("cgroup.procs")).ok())
        .flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn kill(dir: &Path) -> Result<()> {
    // Linux 5.14 kills a whole tree at once, forks in flight included.
    if std::fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    for pid in processes(dir) {
        // 0 stands for a process of another PID namespace: never for "all of us".
        let Some(pid) = rustix::process::Pid::from_raw(pid) else { continue };
        match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).context("killing a process of the lab"),
        }
    }
    Ok(())
}

fn remove(dir: &Path) -> std::io::Result<()> {
    for group in tree(dir) {
        match std::fs::remove_dir(&group) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// `dir` and everything below, children before parents.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(entries) = std::fs::read_dir(dir) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                found.extend(tree(&entry.path()));
            }
        }
        found.push(dir.to_owned());
    }
    found
}
