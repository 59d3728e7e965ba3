//! Packages of any release of Debian's, for any processor, by a directory of apt's of its own:
//! nothing of this machine's lists is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::dist::Arch;
use crate::sh;

const MIRROR: &str = "http://deb.debian.org";

const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The file of this package of `release`, downloaded if it isn't there.
pub(crate) fn fetch(release: &str, arch: Arch, package: &str) -> Result<PathBuf> {
    let apt = Apt::of(&super::cache()?, release, arch)?;
    let (name, version) = apt.find(|name| name == package)?;
    apt.download(&name, &version)
}

/// The newest kernel of `release` for virtual machines whose version begins with `start`: the
/// package that is called after it, and those that newer releases have its parts in.
pub(crate) fn kernel(release: &str, arch: Arch, start: &str) -> Result<Vec<PathBuf>> {
    let apt = Apt::of(&super::cache()?, release, arch)?;
    let is_one = |name: &str| kernel_version(name, arch).is_some_and(|v| v.starts_with(start));
    let (image, version) = apt.find(is_one)?;
    let mut files = vec![apt.download(&image, &version)?];
    for part in ["linux-base-", "linux-binary-", "linux-modules-"] {
        let part = image.replacen("linux-image-", part, 1);
        if let Some((name, version)) = newest(&apt.listed(), |name| name == part) {
            files.push(apt.download(&name, &version)?);
        }
    }
    Ok(files)
}

/// The version in the name of a kernel's package: not that of one which only names the newest.
fn kernel_version(name: &str, arch: Arch) -> Option<&str> {
    let end = format!("-cloud-{}", arch.debian());
    let version = name.strip_prefix("linux-image-")?.strip_suffix(&end)?;
    let begins = version.starts_with(|c: char| c.is_ascii_digit());
    // As 5.10.0-32 and 6.12.117+deb12, and not 6.12.
    (begins && version.matches('.').count() >= 2).then_some(version)
}

/// Lists of one release for one processor.
struct Apt {
    cache: PathBuf,
    dir: PathBuf,
    release: String,
    arch: Arch,
}

impl Apt {
    fn of(cache: &Path, release: &str, arch: Arch) -> Result<Self> {
        let dir = cache.join(format!("apt-{release}-{}", arch.debian()));
        for below in ["lists/partial", "cache/archives/partial", "parts", "state"] {
            let below = dir.join(below);
            fs::create_dir_all(&below).with_context(|| format!("making {}", below.display()))?;
        }
        let signed = format!("deb [signed-by={KEYS}] {MIRROR}");
        let mut sources = format!("{signed}/debian {release} main\n");
        if release == "bookworm" {
            sources += &format!("{signed}/debian-security {release}-security main\n");
        }
        fs::write(dir.join("sources.list"), sources).context("writing a list of sources")?;
        fs::write(dir.join("status"), "").context("writing an empty status")?;
        let below = dir.display();
        let configuration = format!(
            "Dir::Etc::sourcelist \"{below}/sources.list\";\nDir::Etc::sourceparts \"{below}/parts\";\n\
             Dir::State \"{below}/state\";\nDir::State::lists \"{below}/lists\";\n\
             Dir::State::status \"{below}/status\";\nDir::Cache \"{below}/cache\";\n\
             APT::Architecture \"{arch}\";\nAPT::Architectures {{ \"{arch}\"; }};\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n",
            arch = arch.debian(),
        );
        fs::write(dir.join("apt.conf"), configuration).context("writing apt's configuration")?;
        Ok(Self { cache: cache.to_owned(), dir, release: release.to_owned(), arch })
    }

    /// One of apt's programs that knows this release only.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.dir.join("apt.conf"));
        command
    }

    /// What is known of all packages.
    fn listed(&self) -> String {
        sh::capture(self.command("apt-cache").arg("dumpavail")).unwrap_or_default()
    }

    /// Name and version of the newest package that fits. Lists that have one are not asked for
    /// again, as what was downloaded isn't.
    fn find(&self, fits: impl Fn(&str) -> bool) -> Result<(String, String)> {
        if let Some(found) = newest(&self.listed(), &fits) {
            return Ok(found);
        }
        sh::run(self.command("apt-get").args(["--quiet", "update"]))?;
        newest(&self.listed(), &fits).with_context(|| {
            format!("Debian {} has no such package for {}", self.release, self.arch.debian())
        })
    }

    fn download(&self, name: &str, version: &str) -> Result<PathBuf> {
        // As apt names files: a colon is written as %3a.
        let version_in_name = version.replace(':', "%3a");
        let file = self.cache.join(format!("{name}_{version_in_name}_{}.deb", self.arch.debian()));
        if !file.is_file() {
            let mut download = self.command("apt-get");
            download.args(["--quiet", "download"]).arg(format!("{name}={version}"));
            sh::run(download.current_dir(&self.cache)).with_context(|| {
                format!("remove {} if another version replaced it", self.dir.display())
            })?;
        }
        Ok(file)
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
        let fits = |name: &str| kernel_version(name, Arch::X86_64).is_some();
        assert!(!fits("linux-image-6.12-cloud-amd64") && !fits("linux-image-cloud-amd64"));
        assert_eq!(
            newest(text, fits),
            Some(("linux-image-5.10.0-32-cloud-amd64".to_owned(), "5.10.223-1".to_owned()))
        );
        assert_eq!(newest(text, |_| false), None);
    }
}
