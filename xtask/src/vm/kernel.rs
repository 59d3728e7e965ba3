//! Debian's kernels: fetched once, unpacked, with an index of their modules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::debian;
use crate::dist::Arch;
use crate::sh;

/// The kernels that are known by name, and that end-to-end tests are run on.
pub(crate) const NAMES: &[&str] = &["6.1", "6.12"];

/// Those that the static binary is asked a few questions on.
pub(crate) const SMOKE: &[&str] = &["5.10", "newest", "6.12-arm64"];

/// A kernel and its modules, unpacked.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The processor that it is for.
    pub(crate) arch: Arch,
    /// As `uname -r` says.
    pub(crate) version: String,
    pub(crate) image: PathBuf,
    /// Directory with `modules.dep`, in which modules are named relative to it.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// The kernel called `name`, or that of the package in the file `name`.
    pub(crate) fn get(name: &str) -> Result<Self> {
        let mut arch = Arch::X86_64;
        let packages = match name {
            "5.10" => debian::kernel("bullseye", arch, "5.10.")?,
            "newest" => debian::kernel("sid", arch, "")?,
            "6.12-arm64" => {
                arch = Arch::Aarch64;
                debian::kernel("bookworm", arch, "6.12.")?
            }
            "6.1" => vec![fetch("linux-image-cloud-amd64")?],
            "6.12" => vec![fetch("linux-image-6.12-cloud-amd64")?],
            file if Path::new(file).is_file() => vec![std::path::absolute(file)?],
            other => bail!(
                "no kernel {other}: give {} or the file of a Debian package with a kernel",
                [NAMES, SMOKE].concat().join(", ")
            ),
        };
        Self::unpack(&packages, arch)
    }

    /// Unpacks them into one directory, which is called after the first.
    fn unpack(packages: &[PathBuf], arch: Arch) -> Result<Self> {
        let stem = packages.first().and_then(|package| package.file_stem());
        let dir = super::cache()?.join(stem.context("the package has no name")?);
        if !dir.is_dir() {
            // Under another name until it is whole.
            let part = dir.with_file_name("unpacking");
            let _left = fs::remove_dir_all(&part);
            for package in packages {
                sh::run(Command::new("dpkg-deb").arg("--extract").args([package, &part]))?;
            }
            let version = version(&part)?;
            // Newer packages have the modules, and the kernel with them, below usr/lib.
            if !part.join("lib").exists() {
                std::os::unix::fs::symlink("usr/lib", part.join("lib")).context("naming lib")?;
            }
            // `depmod` wants the modules where a system has them.
            sh::run(Command::new("depmod").arg("--basedir").args([part.as_path()]).arg(&version))?;
            fs::rename(&part, &dir)?;
        }
        let version = version(&dir)?;
        Ok(Self {
            arch,
            image: image(&dir, &version).context("the package has no kernel")?,
            modules: dir.join("lib/modules").join(&version),
            version,
        })
    }

    /// The modules below one of `places` (relative, without ending), and what
    /// they need, each as a path relative to `modules`.
    pub(crate) fn choose(&self, places: &[&str]) -> Result<Vec<String>> {
        let file = self.modules.join("modules.dep");
        let text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(closure(&text, places))
    }
}

/// The version of the only kernel in an unpacked package: in its name, or that of its modules.
fn version(dir: &Path) -> Result<String> {
    let names = |below: &str| {
        let entries = fs::read_dir(dir.join(below)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let boot =
        names("boot").iter().find_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()));
    boot.or_else(|| names("usr/lib/modules").into_iter().next())
        .with_context(|| format!("{} has no kernel", dir.display()))
}

/// Where the kernel itself is.
fn image(dir: &Path, version: &str) -> Option<PathBuf> {
    let boot = dir.join("boot").join(format!("vmlinuz-{version}"));
    let beside = dir.join("usr/lib/modules").join(version).join("vmlinuz");
    [boot, beside].into_iter().find(|file| file.is_file())
}

/// The file of the package that `meta` depends on, downloaded if it isn't there.
fn fetch(meta: &str) -> Result<PathBuf> {
    let dir = super::cache()?;
    let known = || {
        let depends = sh::capture(Command::new("apt-cache").args(["depends", meta])).ok()?;
        depended(&depends)
    };
    let update = || sh::run(Command::new("apt-get").args(["--quiet", "update"]));
    let package = match known() {
        Some(package) => package,
        None => {
            update()?;
            known().with_context(|| {
                format!("there is no package {meta} here: give --kernel the file of a package")
            })?
        }
    };
    if let Some(file) = downloaded(&dir, &package) {
        return Ok(file);
    }
    let download = || {
        let mut command = Command::new("apt-get");
        command.current_dir(&dir).args(["--quiet", "download", &package]);
        sh::run(&mut command)
    };
    // A list from last week names a package that was replaced since.
    if download().is_err() {
        update()?;
        download()?;
    }
    downloaded(&dir, &package).with_context(|| format!("{package} was downloaded and is not there"))
}

fn downloaded(dir: &Path, package: &str) -> Option<PathBuf> {
    let start = format!("{package}_");
    let files = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    files
        .filter(|file| file.extension().is_some_and(|e| e == "deb"))
        .filter(|file| file.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&start)))
        .max()
}

/// The kernel among what `apt-cache depends` prints.
fn depended(text: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
        .map(str::to_owned)
}

/// Modules below `places` with all that they need, out of a `modules.dep`.
fn closure(modules_dep: &str, places: &[&str]) -> Vec<String> {
    let chosen = |module: &str| {
        let name = module.split(".ko").next().unwrap_or(module);
        places.iter().any(|place| {
            if place.ends_with('/') { name.starts_with(place) } else { name == *place }
        })
    };
    let mut all: Vec<String> = modules_dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(module, _)| chosen(module))
        // The list of what is needed is complete: nothing is to be looked up again.
        .flat_map(|(module, needs)| std::iter::once(module).chain(needs.split_whitespace()))
        .map(str::to_owned)
        .collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_with_what_they_need() {
        let dep = "kernel/drivers/net/tun.ko.xz:\n\
            kernel/drivers/net/tuna.ko.xz:\n\
            kernel/drivers/net/vxlan/vxlan.ko.xz: kernel/net/ipv4/udp_tunnel.ko.xz\n\
            kernel/fs/nfs/nfs.ko.xz: kernel/net/sunrpc/sunrpc.ko.xz\n";
        assert_eq!(
            closure(dep, &["kernel/drivers/net/tun", "kernel/drivers/net/vxlan/"]),
            [
                "kernel/drivers/net/tun.ko.xz",
                "kernel/drivers/net/vxlan/vxlan.ko.xz",
                "kernel/net/ipv4/udp_tunnel.ko.xz"
            ]
        );
    }

    #[test]
    fn the_kernel_is_found_among_what_a_package_depends_on() {
        let text = "linux-image-6.12-cloud-amd64\n  Depends: linux-base\n  \
            Depends: linux-image-6.12.117+deb12-cloud-amd64\n";
        assert_eq!(depended(text).as_deref(), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(depended("linux-image-amd64\n"), None);
    }
}
