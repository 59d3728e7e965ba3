//! Network namespaces, and the ports that are used in them.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::programs::checked;
use crate::sweep;

/// A network namespace of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netns {
    /// Its `ip netns` name.
    pub name: String,
    /// The file that pins it.
    pub path: PathBuf,
    /// Its identity.
    pub inode: u64,
}

impl Netns {
    pub(crate) fn add(name: &str) -> Result<Self> {
        checked(Command::new("ip").args(["netns", "add", name]))?;
        let path = Path::new(sweep::NETNS_DIR).join(name);
        let inode = std::fs::metadata(&path)?.ino();
        let netns = Self { name: name.to_owned(), path, inode };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// Runs `ip` on this namespace.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn ip(&self, args: &[&str]) -> Result<()> {
        checked(Command::new("ip").args(["-n", &self.name]).args(args)).map(drop)
    }

    /// Adds an address, usable at once.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn address(&self, link: &str, address: &str) -> Result<()> {
        let mut args = vec!["address", "add", address, "dev", link];
        if address.contains(':') {
            // Duplicate address detection would keep it unusable for a second.
            args.push("nodad");
        }
        self.ip(&args)
    }

    /// Removes the name. The namespace lives on while anything uses it.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn unname(&self) -> Result<()> {
        checked(Command::new("ip").args(["netns", "delete", &self.name])).map(drop)
    }
}

/// The network namespace of a process.
///
/// # Errors
/// When it has exited.
pub fn netns_inode(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/ns/net");
    Ok(std::fs::metadata(&path).with_context(|| path.clone())?.ino())
}

/// A port that nobody on this machine uses, in any namespace: for a test that
/// asks for nothing, since the tool sees every namespace there is. It differs
/// from call to call.
///
/// # Errors
/// When `/proc` can't be read.
pub fn unused_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut used = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        // Tables are long on a busy node, and the same in the whole namespace.
        let netns = std::fs::read_link(process.path().join("ns/net"));
        if netns.is_ok_and(|netns| !seen.insert(netns)) {
            continue;
        }
        for table in ["tcp", "tcp6", "udp", "udp6"] {
            let path = process.path().join("net").join(table);
            // Not a process, or one that has exited.
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            let local = text.lines().filter_map(|line| line.split_whitespace().nth(1));
            used.extend(local.filter_map(|local| {
                let (_, port) = local.rsplit_once(':')?;
                u16::from_str_radix(port, 16).ok()
            }));
        }
    }
    // Two test processes at the same time begin at different places. No test listens on a
    // port of these by its number, and the kernel gives none of them to clients.
    let begin = std::process::id().wrapping_mul(211);
    let mut candidates = (0..5_000_u32).map(|_| {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        13_000 + begin.wrapping_add(next) % 5_000
    });
    let found = candidates.find_map(|port| u16::try_from(port).ok().filter(|p| !used.contains(p)));
    found.context("every port is in use")
}
