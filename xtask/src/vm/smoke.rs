//! A few questions to the static binary, on a kernel that the other tests aren't run on.
//!
//! Nothing of this machine is in there but the binary and a static busybox, so that it fits every
//! processor and every age of kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::initramfs::{Tree, pack};
use super::kernel::Kernel;
use crate::{Refused, sh};

/// The name of the suite, as the report has it.
pub(crate) const NAME: &str = "smoke";

/// Makes the file system for `kernel`, with its own modules for sockets' tables.
pub(crate) fn initramfs(dir: &Path, kernel: &Kernel, limit: u64) -> Result<PathBuf> {
    let binary = binary(kernel)?;
    let root = dir.join(format!("smoke-{}", kernel.arch.name()));
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("emptying {}", root.display()))?;
    }
    let tree = Tree::new(&root)?;
    tree.copy(&binary, Path::new("/usr/local/bin/whereis-port"))?;
    tree.copy(&busybox(kernel)?, Path::new("/usr/bin/busybox"))?;
    std::os::unix::fs::symlink("busybox", root.join("usr/bin/sh")).context("naming sh")?;
    let script = include_str!("smoke.sh").replace("@LIMIT@", &limit.to_string());
    tree.text("init", &script, 0o755)?;
    tree.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644)?;
    for (index, module) in kernel.choose(MODULES)?.iter().enumerate() {
        // Numbered in an order in which each comes after what it needs.
        let name = Path::new(module).file_name().context("a module has no name")?;
        let name = format!("/modules/{index:02}-{}", name.display());
        tree.copy(&kernel.modules.join(module), Path::new(&name))?;
    }
    let archive = dir.join(format!("smoke-{}.cpio", kernel.version));
    pack(&root, &archive)?;
    Ok(archive)
}

/// What tells of sockets, where it is a module.
const MODULES: &[&str] = &[
    "kernel/net/ipv4/inet_diag",
    "kernel/net/ipv4/tcp_diag",
    "kernel/net/ipv4/udp_diag",
    "kernel/net/unix/unix_diag",
];

/// The static binary that `dist` has built.
fn binary(kernel: &Kernel) -> Result<PathBuf> {
    let target = kernel.arch.target();
    let file = sh::target_dir()?.join("static").join(target).join("dist/whereis-port");
    if !file.is_file() {
        let text = format!("{} is missing: run cargo xtask dist --target {target}", file.display());
        return Err(Refused(text).into());
    }
    Ok(file)
}

/// A static busybox for this processor: this machine's, or that of Debian's package.
fn busybox(kernel: &Kernel) -> Result<PathBuf> {
    if Some(kernel.arch) == crate::dist::Arch::host() {
        return sh::find("busybox").context("busybox is missing: cargo xtask setup");
    }
    let file = super::debian::fetch("bookworm", kernel.arch, "busybox-static")?;
    let dir = file.with_extension("");
    if !dir.is_dir() {
        sh::run(Command::new("dpkg-deb").arg("--extract").args([&file, &dir]))?;
    }
    Ok(dir.join("bin/busybox"))
}
