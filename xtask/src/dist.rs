//! `cargo xtask dist`: packs what a release consists of.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::sh;

const COMPLETIONS: &[(&str, &str)] =
    &[("bash", "whereis-port.bash"), ("zsh", "_whereis-port"), ("fish", "whereis-port.fish")];

const DOCUMENTS: &[&str] = &["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// Builds and packs `target/dist/whereis-port-VERSION-ARCH.tar.gz` and its checksum.
pub(crate) fn run() -> Result<()> {
    let target = sh::target_dir()?;
    sh::run(&mut sh::cargo(&["build", "--release", "--locked", "--package", "whereis-port"]))?;
    let binary = target.join("release/whereis-port");

    let name = format!("whereis-port-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let dist = target.join("dist");
    let content = dist.join(&name);
    if content.exists() {
        fs::remove_dir_all(&content).with_context(|| format!("emptying {}", content.display()))?;
    }
    fs::create_dir_all(content.join("completions"))
        .with_context(|| format!("making {}", content.display()))?;

    copy(&binary, &content.join("whereis-port"))?;
    for document in DOCUMENTS {
        copy(&sh::workspace().join(document), &content.join(document))?;
    }
    save(&binary, &["man"], &content.join("whereis-port.1"))?;
    for (shell, file) in COMPLETIONS {
        save(&binary, &["completions", shell], &content.join("completions").join(file))?;
    }

    let archive = format!("{name}.tar.gz");
    // The same content gives the same order and owners, whoever packs it.
    let tidy = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner"];
    sh::run(Command::new("tar").current_dir(&dist).args(tidy).arg("-czf").args([&archive, &name]))?;
    let checksum = sh::capture(Command::new("sha256sum").current_dir(&dist).arg(&archive))?;
    let file = dist.join(format!("{archive}.sha256"));
    fs::write(&file, &checksum).with_context(|| format!("writing {}", file.display()))?;
    println!("{}", dist.join(&archive).display());
    print!("{checksum}");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

/// Writes what the binary prints to a file.
fn save(binary: &Path, args: &[&str], to: &Path) -> Result<()> {
    let text = sh::capture(Command::new(binary).args(args))?;
    fs::write(to, text).with_context(|| format!("writing {}", to.display()))
}
