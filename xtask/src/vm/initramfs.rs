//! The file system of a virtual machine: the tool, the tests and what they run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::Tests;
use super::kernel::Kernel;
use crate::sh;

/// What the tests run there, besides the applets of busybox. Some are applets too,
/// with other options or manners: its `cat` ends when nobody reads what it writes.
const PROGRAMS: &[&str] = &[
    "sh", "bash", "cat", "sleep", "timeout", "tar", "mount", "umount", "nsenter", "unshare",
    "setpriv", "prlimit", "ip", "ss", "tc", "bridge", "ldd", "kmod",
];

/// The same, where this machine has it.
const OPTIONAL: &[&str] = &[
    "nft",
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-restore",
    "iptables-legacy",
    "iptables-legacy-save",
    "iptables-legacy-restore",
    "ip6tables-legacy-restore",
    "iptables-nft-restore",
    "ip6tables-nft-restore",
    "ipset",
    "docker-proxy",
    "ipvsadm",
    "conntrack",
    "wg",
    "socat",
];

/// Modules that tests need: a path without ending, or a directory.
const MODULES: &[&str] = &[
    "kernel/net/ipv4/",
    "kernel/net/ipv6/",
    "kernel/net/netfilter/",
    "kernel/net/bridge/",
    "kernel/net/unix/",
    "kernel/net/packet/",
    "kernel/net/netlink/",
    "kernel/net/8021q/",
    "kernel/drivers/net/vxlan/",
    "kernel/drivers/net/wireguard/",
    "kernel/drivers/net/geneve",
    "kernel/drivers/net/veth",
    "kernel/drivers/net/dummy",
    "kernel/drivers/net/macvlan",
    "kernel/drivers/net/tun",
    "kernel/fs/overlayfs/",
];

/// What is the same for every kernel.
#[derive(Debug)]
pub(crate) struct Base {
    dir: PathBuf,
    archive: PathBuf,
}

impl Base {
    /// Makes it in `dir`, with `tests`.
    pub(crate) fn make(dir: &Path, tests: &[Tests], limit: u64) -> Result<Self> {
        let root = dir.join("root");
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("emptying {}", root.display()))?;
        }
        let tree = Tree::new(&root)?;
        for program in PROGRAMS {
            let found = sh::find(program);
            let file = found.with_context(|| format!("{program} is missing: cargo xtask setup"))?;
            tree.program(&file, &file)?;
        }
        for file in OPTIONAL.iter().filter_map(|program| sh::find(program)) {
            tree.program(&file, &file)?;
        }
        // Plugins of iptables are loaded by name.
        for plugins in fs::read_dir("/usr/lib").into_iter().flatten().flatten() {
            let plugins = plugins.path().join("xtables");
            for plugin in fs::read_dir(plugins).into_iter().flatten().flatten() {
                tree.copy(&plugin.path(), &plugin.path())?;
            }
        }
        tree.busybox()?;

        let built = sh::target_dir()?.join("debug");
        for program in ["whereis-port", "lab-helper"] {
            tree.small(&built.join(program), program)?;
        }
        let programs: BTreeMap<_, _> =
            tests.iter().map(|test| (test.program, &test.file)).collect();
        for (name, file) in programs {
            tree.small(file, name)?;
        }
        tree.text("init", &init(tests, limit)?, 0o755)?;
        tree.text(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:\n",
            0o644,
        )?;
        tree.text("etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644)?;
        tree.text("etc/services", "https 443/tcp\nhttps 443/udp\n", 0o644)?;
        let protocols = "icmp 1\ntcp 6\nudp 17\nipv6-icmp 58\nsctp 132\n";
        tree.text("etc/protocols", protocols, 0o644)?;
        tree.text("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", 0o644)?;

        let archive = dir.join("base.cpio");
        pack(&root, &archive)?;
        Ok(Self { dir: dir.to_owned(), archive })
    }

    /// The whole file system for `kernel`: archives one after the other are
    /// unpacked over each other.
    pub(crate) fn with_modules(&self, kernel: &Kernel) -> Result<PathBuf> {
        let root = self.dir.join("modules");
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("emptying {}", root.display()))?;
        }
        let below = root.join("usr/lib/modules").join(&kernel.version);
        let modules = kernel.choose(MODULES)?;
        let index =
            ["modules.builtin", "modules.builtin.modinfo", "modules.order"].map(str::to_owned);
        for file in modules.iter().chain(&index) {
            copy(&kernel.modules.join(file), &below.join(file))?;
        }
        symlink("usr/lib", root.join("lib"))?;
        sh::run(Command::new("depmod").arg("--basedir").arg(&root).arg(&kernel.version))?;
        let archive = self.dir.join("modules.cpio");
        pack(&root, &archive)?;

        let whole = self.dir.join(format!("initramfs-{}.cpio", kernel.version));
        let context = || format!("writing {}", whole.display());
        let mut file = File::create(&whole).with_context(context)?;
        for part in [&self.archive, &archive] {
            std::io::copy(&mut File::open(part)?, &mut file).with_context(context)?;
        }
        Ok(whole)
    }
}

/// A root directory that is being filled.
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let dirs = [
            "usr/bin",
            "usr/sbin",
            "usr/lib",
            "usr/lib64",
            "usr/local/bin",
            "dev",
            "proc",
            "sys",
            "tmp",
            "run",
            "root",
            "etc",
            "var",
        ];
        for dir in dirs {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        }
        for dir in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{dir}"), root.join(dir))?;
        }
        symlink("../run", root.join("var/run"))?;
        Ok(Self { root: root.to_owned() })
    }

    /// Where `path` of the machine is in here.
    fn inside(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Copies a file under the name `to`, following links.
    pub(crate) fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        copy(from, &self.inside(to))
    }

    /// Copies a program with the libraries that it names.
    fn program(&self, from: &Path, to: &Path) -> Result<()> {
        self.copy(from, to)?;
        // Fails for scripts and for what is linked statically: no libraries.
        let listed = Command::new("ldd").arg(from).output().context("running ldd")?;
        for library in libraries(&String::from_utf8_lossy(&listed.stdout)) {
            let library = Path::new(&library);
            if !self.inside(library).exists() {
                self.copy(library, library)?;
            }
        }
        Ok(())
    }

    /// Copies a program that was built here, without its debug information.
    fn small(&self, from: &Path, name: &str) -> Result<()> {
        let to = Path::new("/usr/local/bin").join(name);
        self.program(from, &to)?;
        if sh::find("strip").is_some() {
            let mut strip = Command::new("strip");
            sh::capture(strip.arg("-o").arg(self.inside(&to)).arg(from))?;
        }
        Ok(())
    }

    /// busybox, and a name for each of its applets that nothing else has.
    fn busybox(&self) -> Result<()> {
        let busybox = sh::find("busybox").context("busybox is missing: cargo xtask setup")?;
        self.program(&busybox, Path::new("/usr/bin/busybox"))?;
        let applets = sh::capture(Command::new(busybox).arg("--list"))?;
        for applet in applets.lines() {
            let taken =
                ["usr/bin", "usr/sbin"].iter().any(|d| self.root.join(d).join(applet).exists());
            if !taken {
                symlink("busybox", self.root.join("usr/bin").join(applet))?;
            }
        }
        // The kernel asks for modules by this name.
        symlink("../bin/kmod", self.root.join("usr/sbin/modprobe")).context("naming modprobe")
    }

    pub(crate) fn text(&self, name: &str, text: &str, mode: u32) -> Result<()> {
        let file = self.root.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        Ok(())
    }
}

/// The script that is the first process.
fn init(tests: &[Tests], limit: u64) -> Result<String> {
    let mut runs = String::new();
    for Tests { suite, program, names, filter, .. } in tests {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
        ensure!(filter.chars().all(plain), "{filter:?} is no part of a test's name");
        runs += &format!("run {suite} {program} '{filter}' {}\n", names.join(" "));
    }
    Ok(include_str!("init.sh").replace("@LIMIT@", &limit.to_string()).replace("@RUN@\n", &runs))
}

/// The files that `ldd` prints.
fn libraries(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(str::to_owned)
        .collect()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    fs::copy(from, to)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Packs all below `root` in the format that the kernel unpacks, owned by root.
pub(crate) fn pack(root: &Path, archive: &Path) -> Result<()> {
    let mut find = Command::new("find")
        .current_dir(root)
        .args([".", "-print0"])
        .stdout(Stdio::piped())
        .spawn()
        .context("running find")?;
    let names = find.stdout.take().context("find has no output")?;
    let packed = Command::new("cpio")
        .current_dir(root)
        .args(["--create", "--null", "--quiet", "--format=newc", "--owner=+0:+0", "--file"])
        .arg(archive)
        .stdin(names)
        .status()
        .context("running cpio")?;
    let found = find.wait().context("waiting for find")?;
    if !packed.success() || !found.success() {
        bail!("packing {}: find {found}, cpio {packed}", archive.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007f)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert!(libraries(text).iter().eq(&expected), "{:?}", libraries(text));
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn the_script_runs_what_was_chosen_and_no_shell_code() {
        let tests = |filter: &str| {
            let (program, names) = ("test-e2e", &["^paths::nft::", "^paths::kube::"]);
            let filter = filter.to_owned();
            [Tests { suite: "paths", file: PathBuf::new(), program, names, filter }]
        };
        let script = init(&tests("two"), 60).unwrap();
        let run = "\nrun paths test-e2e 'two' ^paths::nft:: ^paths::kube::\n";
        assert!(script.contains(run), "{script}");
        assert!(script.contains("sleep 60;") && !script.contains("@RUN@"), "{script}");
        assert!(init(&tests("a'; reboot"), 60).is_err());
    }
}
