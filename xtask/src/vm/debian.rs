//! Packages of any release of Debian's, for any processor, by a directory of apt's of its own:
//! nothing of this machine's lists is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::dist::Arch;
use crate::sh;

const MIRROR: &str = "http://deb.debian.org/debian";

const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The file of the newest package of `release` whose name `fits`, downloaded if it isn't there.
pub(crate) fn fetch(release: &str, arch: Arch, fits: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let cache = super::cache()?;
    let apt = Apt::of(&cache, release, arch)?;
    let listed = |apt: &Apt| {
        let text = sh::capture(apt.command("apt-cache").arg("dumpavail")).unwrap_or_default();
        newest(&text, &fits)
    };
    // Asked for once: what is listed then stays, as what was downloaded does.
    let package = match listed(&apt) {
        Some(package) => package,
        None => {
            sh::run(apt.command("apt-get").args(["--quiet", "update"]))?;
            listed(&apt).with_context(|| {
                format!("Debian {release} has no such package for {}", arch.debian())
            })?
        }
    };
    let (name, version) = package;
    // As apt names files: a colon is written as %3a.
    let file = cache.join(format!("{name}_{}_{}.deb", version.replace(':', "%3a"), arch.debian()));
    if !file.is_file() {
        let mut download = apt.command("apt-get");
        download.args(["--quiet", "download"]).arg(format!("{name}={version}"));
        if sh::run(download.current_dir(&cache)).is_err() {
            anyhow::bail!(
                "{name} {version} can't be downloaded: remove {} if it was replaced since",
                apt.dir.display()
            );
        }
    }
    Ok(file)
}

/// Lists of one release for one processor.
struct Apt {
    dir: PathBuf,
    arch: Arch,
}

impl Apt {
    fn of(cache: &Path, release: &str, arch: Arch) -> Result<Self> {
        let dir = cache.join(format!("apt-{release}-{}", arch.debian()));
        for below in ["lists/partial", "cache/archives/partial", "parts", "state"] {
            let below = dir.join(below);
            fs::create_dir_all(&below).with_context(|| format!("making {}", below.display()))?;
        }
        let sources = format!("deb [signed-by={KEYS}] {MIRROR} {release} main\n");
        fs::write(dir.join("sources.list"), sources).context("writing a list of sources")?;
        fs::write(dir.join("status"), "").context("writing an empty status")?;
        Ok(Self { dir, arch })
    }

    /// One of apt's programs that knows this release only.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let mut set = |name: &str, value: &str| {
            command.arg("-o").arg(format!("{name}={value}"));
        };
        let inside = |name: &str| self.dir.join(name).display().to_string();
        set("Dir::Etc::sourcelist", &inside("sources.list"));
        set("Dir::Etc::sourceparts", &inside("parts"));
        set("Dir::State", &inside("state"));
        set("Dir::State::lists", &inside("lists"));
        set("Dir::State::status", &inside("status"));
        set("Dir::Cache", &inside("cache"));
        set("APT::Architecture", self.arch.debian());
        set("APT::Architectures", self.arch.debian());
        set("Acquire::Languages", "none");
        set("APT::Sandbox::User", "root");
        command
    }
}

/// Name and version of the newest package that fits, among what `apt-cache dumpavail` prints.
fn newest(text: &str, fits: impl Fn(&str) -> bool) -> Option<(String, String)> {
    let field = |paragraph: &str, name: &str| {
        paragraph.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned))
    };
    text.split("\n\n")
        .filter_map(|paragraph| {
            let name = field(paragraph, "Package: ")?;
            let version = field(paragraph, "Version: ")?;
            fits(&name).then_some((name, version))
        })
        .max_by_key(|(name, _)| numbers(name))
}

/// The numbers in a name, by which kernels are newer or older.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_taken_by_its_numbers() {
        let text = "Package: linux-image-5.10.0-9-cloud-amd64\nVersion: 5.10.70-1\n\n\
            Package: linux-image-5.10.0-32-cloud-amd64\nVersion: 5.10.223-1\nSection: kernel\n\n\
            Package: linux-image-5.10.0-33-rt-amd64\nVersion: 5.10.226-1\n\n";
        let fits = |name: &str| name.ends_with("-cloud-amd64");
        assert_eq!(
            newest(text, fits),
            Some(("linux-image-5.10.0-32-cloud-amd64".to_owned(), "5.10.223-1".to_owned()))
        );
        assert_eq!(newest(text, |_| false), None);
    }
}
