//! Processes that mean harm.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::mounts::Mounts;
use crate::netns::Netns;
use crate::node::Lab;
use crate::process::Proc;
use crate::programs::helper;

/// A mount namespace in which `/mnt` is a file system of a process, with a directory `d` and a
/// socket `s`. It ends with the lab's processes.
#[derive(Debug)]
pub struct Fuse {
    /// The mount namespace.
    pub mounts: Mounts,
    freeze: PathBuf,
}

impl Lab {
    /// Makes one, and runs `script` in there while it still answers.
    ///
    /// # Errors
    /// When it can't be mounted, or a command of the script fails.
    pub fn fuse(&self, script: &str) -> Result<Fuse> {
        let freeze = self.dir().join("freeze");
        let helper = helper()?;
        let script = format!(
            "{} fuse /mnt {} > {ready} 2>&1 &
             until grep -q ports {ready}; do kill -0 $!; sleep 0.01; done
             {script}",
            helper.display(),
            freeze.display(),
            ready = self.dir().join("fuse").display(),
        );
        Ok(Fuse { mounts: self.mounts(&script)?, freeze })
    }

    /// A listener in the lab's cgroup `group` that sees the mounts of `fuse`, with the name
    /// and arguments `argv`.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn listen_at(
        &self,
        fuse: &Fuse,
        netns: &Netns,
        group: &str,
        args: &str,
        argv: &[&str],
    ) -> Result<Proc> {
        let group = self.cgroup().join(group);
        std::fs::create_dir_all(&group).with_context(|| format!("making {}", group.display()))?;
        let mut command = fuse.mounts.door();
        command.push(helper()?.display().to_string());
        command.push("listen".to_owned());
        command.extend(args.split_whitespace().map(str::to_owned));
        command.push("--imitate".to_owned());
        command.extend(argv.iter().map(|&arg| arg.to_owned()));
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        Proc::wait_ready(self.command_in(Some(netns), &group, None, &command)?)
            .with_context(|| format!("lab-helper listen {args} as {argv:?}"))
    }

    /// A process of user `uid` called `name`, with a command line of so many bytes.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn stretch(&self, netns: &Netns, uid: u32, name: &str, bytes: usize) -> Result<Proc> {
        let helper = crate::programs::for_everyone(&helper()?)?;
        let helper = helper.to_str().context("path of lab-helper")?;
        let argv = [helper, "stretch", name, &bytes.to_string()];
        let group = self.cgroup().join("procs");
        Proc::wait_ready(self.command_in(Some(netns), &group, Some(uid), &argv)?)
            .with_context(|| format!("lab-helper stretch {bytes}"))
    }

    /// A process with a mount namespace in which its network namespace is mounted so often.
    ///
    /// # Errors
    /// When it can't mount.
    pub fn binds(&self, netns: &Netns, count: u32) -> Result<Proc> {
        let dir = self.dir().join("binds");
        std::fs::create_dir_all(&dir)?;
        let (helper, count) = (helper()?, count.to_string());
        let argv = [helper.to_str(), Some("binds"), Some(&count), dir.to_str()];
        let argv: Vec<&str> = argv.into_iter().flatten().collect();
        Proc::wait_ready(self.command(netns, &argv)?).context("lab-helper binds")
    }
}

impl Fuse {
    /// From now on it takes questions, and answers none.
    ///
    /// # Errors
    /// When that can't be said to it.
    pub fn silence(&self) -> Result<()> {
        std::fs::write(&self.freeze, "").context("silencing a file system")
    }
}
