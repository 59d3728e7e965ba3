//! `cargo xtask dist`: packs what a release consists of.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::sh;

/// What to pack.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only if this is the tag of this version, and CHANGELOG.md has a heading with a date for it.
    ///
    /// Its section is written to notes.md beside the archive.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
}

const COMPLETIONS: &[(&str, &str)] =
    &[("bash", "whereis-port.bash"), ("zsh", "_whereis-port"), ("fish", "whereis-port.fish")];

const DOCUMENTS: &[&str] = &["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// Builds and packs `target/dist/whereis-port-VERSION-ARCH.tar.gz` and its checksum.
pub(crate) fn run(args: &Args) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let notes = args.tag.as_deref().map(|tag| notes_of(tag, version)).transpose()?;
    let target = sh::target_dir()?;
    sh::run(&mut sh::cargo(&["build", "--release", "--locked", "--package", "whereis-port"]))?;
    let binary = target.join("release/whereis-port");

    let name = format!("whereis-port-{version}-{}", std::env::consts::ARCH);
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
    copy_all(&sh::workspace().join("docs/src"), &content.join("docs/src"))?;
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
    if let Some(notes) = notes {
        let file = dist.join("notes.md");
        fs::write(&file, notes).with_context(|| format!("writing {}", file.display()))?;
    }
    println!("{}", dist.join(&archive).display());
    print!("{checksum}");
    Ok(())
}

/// What the changelog says of the version that this tag is for.
fn notes_of(tag: &str, version: &str) -> Result<String> {
    ensure!(
        tag.strip_prefix('v') == Some(version),
        "the tag {tag} is not that of version {version}: it would be v{version}"
    );
    let file = sh::workspace().join("CHANGELOG.md");
    let changelog = fs::read_to_string(file).context("reading CHANGELOG.md")?;
    section(&changelog, version).with_context(|| {
        format!("CHANGELOG.md has no heading \"## {version}: DATE\", as 2027-01-31 is a date")
    })
}

/// The section of a changelog for a version that was released.
fn section(changelog: &str, version: &str) -> Option<String> {
    let mut lines = changelog.lines().skip_while(|line| {
        let heading = line.strip_prefix("## ").and_then(|rest| rest.strip_prefix(version));
        !heading.and_then(|rest| rest.strip_prefix(": ")).is_some_and(is_date)
    });
    lines.next()?;
    let section: Vec<&str> = lines.take_while(|line| !line.starts_with("## ")).collect();
    Some(section.join("\n").trim().to_owned() + "\n")
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let digits = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    parts.iter().map(|part| part.len()).eq([4, 2, 2]) && parts.iter().all(digits)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

/// A directory with all below it: the pages that the README refers to.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &to)?;
        } else {
            copy(&entry.path(), &to)?;
        }
    }
    Ok(())
}

/// Writes what the binary prints to a file.
fn save(binary: &Path, args: &[&str], to: &Path) -> Result<()> {
    let text = sh::capture(Command::new(binary).args(args))?;
    fs::write(to, text).with_context(|| format!("writing {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_with_a_date_has_notes() {
        let changelog = "# Changelog\n\n## 0.2.0: 2027-03-01\n\nNew.\n\n- a\n\n## 0.1.0: 2027-01-31\n\nFirst.\n";
        assert_eq!(section(changelog, "0.2.0").as_deref(), Some("New.\n\n- a\n"));
        assert_eq!(section(changelog, "0.1.0").as_deref(), Some("First.\n"));
        assert_eq!(section(changelog, "0.1"), None);
        assert_eq!(section("## Unreleased: 0.1.0\n\nFirst.\n", "0.1.0"), None);
        assert_eq!(section("## 0.1.0: soon\n\nFirst.\n", "0.1.0"), None);
    }

    #[test]
    fn a_tag_of_another_version_is_refused() {
        let refused = notes_of("v9.9.9", "0.1.0").unwrap_err().to_string();
        assert!(refused.contains("it would be v0.1.0"), "{refused}");
    }
}
