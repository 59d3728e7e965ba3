//! What is in a lab's containers.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::node::Lab;
use crate::programs::{checked, helper};

impl Lab {
    /// A root file system for containers, with busybox and `lab-helper`.
    ///
    /// # Errors
    /// When busybox is not installed.
    pub fn rootfs(&self) -> Result<PathBuf> {
        let root = self.dir().join("image");
        for dir in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
            std::fs::create_dir_all(root.join(dir))?;
        }
        let busybox = checked(Command::new("sh").args(["-c", "command -v busybox"]))?;
        std::fs::copy(busybox.trim(), root.join("bin/busybox")).context("copying busybox")?;
        let helper = helper()?;
        std::fs::copy(&helper, root.join("bin/lab-helper")).context("copying lab-helper")?;
        // The helper is linked dynamically, and so may the tool be, which some tests copy to it:
        // their libraries come along.
        let mut libraries = checked(Command::new("ldd").arg(&helper))?;
        let of_tool = Command::new("ldd").arg(crate::binary()?).output()?;
        libraries.push_str(&String::from_utf8_lossy(&of_tool.stdout));
        for line in libraries.lines() {
            let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) else {
                continue;
            };
            let to = root.join(library.trim_start_matches('/'));
            std::fs::create_dir_all(to.parent().context("a library in no directory")?)?;
            std::fs::copy(library, to).with_context(|| format!("copying {library}"))?;
        }
        Ok(root)
    }
}
