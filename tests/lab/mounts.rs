//! Mount namespaces, in which a test may mount and hide what it likes.

use std::process::Command;

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::node::Lab;
use crate::process::Proc;
use crate::programs::{checked, helper};

/// How many entries of a map are given as arguments.
const MOST_ARGUMENTS: usize = 1000;

/// A mount namespace with a `/run` of its own, kept by a process. Nothing that is
/// mounted in there is seen outside, and it ends when this is dropped.
#[derive(Debug)]
pub struct Mounts {
    keeper: Proc,
}

impl Lab {
    /// A new mount namespace in which `script` was run by the shell. The names of
    /// network namespaces, `/run/netns`, are the host's own, also those to come.
    ///
    /// # Errors
    /// When a command of the script fails.
    pub fn mounts(&self, script: &str) -> Result<Mounts> {
        self.mounts_of(self.host(), script)
    }

    /// The same, with its process in a network namespace other than the host's: what
    /// stands for a container that is a node.
    ///
    /// # Errors
    /// When a command of the script fails.
    pub fn mounts_of(&self, netns: &Netns, script: &str) -> Result<Mounts> {
        let aside = self.dir().join("netns");
        std::fs::create_dir_all(&aside)?;
        let aside = aside.display();
        let script = format!(
            "set -e
             mount --rbind /run/netns {aside}
             mount -t tmpfs -o mode=755 tmpfs /run
             mkdir /run/netns
             mount --rbind {aside} /run/netns
             umount -l {aside}
             {script}
             echo '{{\"ports\":[],\"holders\":[]}}'
             exec sleep 100000"
        );
        let argv = ["unshare", "-m", "--propagation", "slave", "sh", "-c", &script];
        let keeper = Proc::wait_ready(self.command(netns, &argv)?)
            .with_context(|| format!("a mount namespace with {script}"))?;
        Ok(Mounts { keeper })
    }

    /// A mount namespace with a bpffs at the usual place.
    ///
    /// # Errors
    /// When it can't be mounted.
    pub fn bpffs(&self) -> Result<Mounts> {
        self.mounts("mount -t bpf -o mode=755 bpf /sys/fs/bpf")
    }
}

impl Mounts {
    /// What is put in front of a command to run it in there.
    pub(crate) fn door(&self) -> Vec<String> {
        let pid = self.keeper.pid.to_string();
        ["nsenter", "-m", "-t", &pid, "--"].map(str::to_owned).to_vec()
    }

    /// Makes a map of the kernel with these entries, and pins it in there.
    ///
    /// # Errors
    /// When the kernel does not let it be made, or nothing can be pinned there.
    pub fn pin_map(&self, path: &str, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.pin("pin-map", path, entries)
    }

    /// The same of a trie of prefixes.
    ///
    /// # Errors
    /// As [`Self::pin_map`].
    pub fn pin_trie(&self, path: &str, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.pin("pin-trie", path, entries)
    }

    fn pin(&self, what: &str, path: &str, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let mut args = vec![what.to_owned(), path.to_owned()];
        let mut texts = entries.iter().map(|(k, v)| format!("{}:{}", hex(k), hex(v)));
        if entries.len() <= MOST_ARGUMENTS {
            args.extend(texts);
            return self.helper(&args);
        }
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), texts.by_ref().collect::<Vec<_>>().join("\n"))?;
        args.push(format!("@{}", file.path().display()));
        self.helper(&args)
    }

    /// Pins a link of a program to a cgroup, for `connect()` to IPv4 or IPv6.
    ///
    /// # Errors
    /// When the kernel does not let it be made, or nothing can be pinned there.
    pub fn pin_connect(&self, path: &str, cgroup: &std::path::Path, ipv6: bool) -> Result<()> {
        let at = if ipv6 { "11" } else { "10" };
        let cgroup = cgroup.display().to_string();
        self.helper(&["pin-link".to_owned(), path.to_owned(), cgroup, at.to_owned()])
    }

    fn helper(&self, args: &[String]) -> Result<()> {
        let door = self.door();
        let (program, before) = door.split_first().context("no door")?;
        checked(Command::new(program).args(before).arg(helper()?).args(args)).map(drop)
    }

    /// Starts a process with this name in there, in a network namespace of the lab, which tells
    /// everybody at a socket what is in a file.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn teller(
        &self,
        lab: &Lab,
        netns: &Netns,
        (name, socket): (&str, &str),
        file: &std::path::Path,
    ) -> Result<Proc> {
        let mut argv = self.door();
        argv.extend([helper()?.display().to_string(), "tell".to_owned(), name.to_owned()]);
        argv.extend([socket.to_owned(), file.display().to_string()]);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        Proc::wait_ready(lab.command(netns, &argv)?)
    }

    /// What is at a path in there, as it is called outside.
    pub fn seen_from_outside(&self, path: &str) -> std::path::PathBuf {
        format!("/proc/{}/root{path}", self.keeper.pid).into()
    }

    /// Runs a script in there, and gives what it prints.
    ///
    /// # Errors
    /// When one of its commands fails.
    pub fn sh(&self, script: &str) -> Result<String> {
        let door = self.door();
        let (program, args) = door.split_first().context("no door")?;
        checked(Command::new(program).args(args).args(["sh", "-ec", script]))
    }
}
