//! What builds the kernel side: a compiler that brings the sources of `core`,
//! and bpf-linker.
//!
//! `core` is not shipped compiled for BPF, and building it is an unstable option
//! of cargo. A nightly of rustup allows it; `RUSTC_BOOTSTRAP` makes Debian's
//! compiler, which is a stable one, allow it too.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::sh;

/// The version of bpf-linker, and the LLVM that it is built with: not older than
/// the compiler's, whose bitcode it reads.
const LINKER: &str = "0.13.0";
const LLVM: &str = "22";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Debian's packages: a compiler kept current for browsers, its sources, and LLVM.
const PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "llvm-22-dev"];

/// A way to build the kernel side.
#[derive(Debug)]
pub(crate) struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

/// A compiler that can build the standard library for another target.
#[derive(Debug, Clone)]
pub(crate) struct Compiler {
    /// Where it comes from, for people.
    origin: String,
    sysroot: PathBuf,
}

/// What is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missing {
    compiler: bool,
    linker: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compiler = "a compiler with the sources of core (a rustup nightly with rust-src, or \
            Debian's rustc-web, cargo-web and rust-web-src)";
        let linker = format!("bpf-linker {LINKER}");
        let missing: Vec<&str> = [(self.compiler, compiler), (self.linker, &linker)]
            .into_iter()
            .filter_map(|(missing, what)| missing.then_some(what))
            .collect();
        write!(
            f,
            "the kernel side can't be built here without {}; cargo xtask setup installs what is \
             missing. Only changes of probe-ebpf need it: builds embed the prebuilt object",
            missing.join(", and ")
        )
    }
}

impl Toolchain {
    /// The first that is complete: a nightly of rustup, else Debian's.
    pub(crate) fn find() -> Result<Self, Missing> {
        match (Compiler::find(), find_linker()) {
            (Some(compiler), Some(linker)) => Ok(Self { compiler, linker }),
            (compiler, linker) => {
                Err(Missing { compiler: compiler.is_none(), linker: linker.is_none() })
            }
        }
    }

    /// The toolchain's cargo, in the workspace, with its own compiler.
    pub(crate) fn cargo(&self) -> Command {
        self.compiler.cargo()
    }

    pub(crate) fn linker(&self) -> &Path {
        &self.linker
    }

    /// Where the sources of `core` are, as the compiler names them.
    pub(crate) fn library(&self) -> PathBuf {
        self.compiler.library()
    }

    /// What the compiler calls itself.
    pub(crate) fn version(&self) -> Result<String> {
        let rustc = self.compiler.program("rustc");
        let text = sh::capture(Command::new(rustc).arg("--version").env_remove("LD_LIBRARY_PATH"))?;
        Ok(text.trim().to_owned())
    }

    /// A command that copies an object without its debug information.
    pub(crate) fn strip_debug(&self) -> Option<Command> {
        let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let component = self.compiler.sysroot.join("lib/rustlib").join(host);
        let program = [component.as_path(), Path::new(LLVM_PREFIX)]
            .into_iter()
            .map(|dir| dir.join("bin/llvm-objcopy"))
            .find(|file| file.is_file())?;
        let mut command = Command::new(program);
        command.arg("--strip-debug");
        Some(command)
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {}", self.compiler.origin, self.linker.display())
    }
}

impl Compiler {
    /// The first that is complete: a nightly of rustup, else Debian's.
    pub(crate) fn find() -> Option<Self> {
        let debian = Self { origin: "Debian's /usr/bin/rustc".into(), sysroot: "/usr".into() };
        nightlies().into_iter().chain([debian]).find(Self::is_complete)
    }

    fn is_complete(&self) -> bool {
        self.library().join("Cargo.lock").is_file()
            && ["rustc", "cargo"].iter().all(|program| self.program(program).is_file())
    }

    /// Its cargo, in the workspace, with unstable options allowed.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(self.program("cargo"));
        command
            .current_dir(sh::workspace())
            .env("RUSTC", self.program("rustc"))
            .env("RUSTC_BOOTSTRAP", "1")
            // Those of the toolchain that runs this.
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("LD_LIBRARY_PATH");
        sh::forget_package(&mut command);
        command
    }

    /// Where the sources of the standard library are, as the compiler names them.
    pub(crate) fn library(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust/library")
    }

    fn program(&self, name: &str) -> PathBuf {
        self.sysroot.join("bin").join(name)
    }
}

/// The nightlies that rustup has installed, the newest of dated ones first.
fn nightlies() -> Vec<Compiler> {
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let Some(home) = home.or_else(|| Some(std::env::home_dir()?.join(".rustup"))) else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(home.join("toolchains")).into_iter().flatten().flatten();
    let mut names: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"nightly"))
        })
        .collect();
    names.sort();
    let compiler = |sysroot: PathBuf| {
        let name = sysroot.file_name().unwrap_or_default().display().to_string();
        Compiler { origin: format!("rustup's {name}"), sysroot }
    };
    names.into_iter().rev().map(compiler).collect()
}

/// bpf-linker on the search path, or where `cargo install` puts it.
fn find_linker() -> Option<PathBuf> {
    let installed = || Some(cargo_home().ok()?.join("bin/bpf-linker")).filter(|f| f.is_file());
    let file = sh::find("bpf-linker").or_else(installed)?;
    // One whose LLVM was removed is there and does not start.
    sh::succeeds(Command::new(&file).arg("--version").env_remove("LD_LIBRARY_PATH")).then_some(file)
}

/// Where cargo keeps the sources of libraries.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}

/// Installs what is missing, as root on Debian, with `apt`, an `apt-get` that asks
/// nothing.
pub(crate) fn install(missing: Missing, mut apt: Command) -> Result<()> {
    let llvm = Path::new(LLVM_PREFIX).join("bin/llvm-config");
    if missing.compiler || !llvm.is_file() {
        let known = Command::new("apt-cache").args(["show", "--quiet=2"]).args(PACKAGES).output();
        if !known.is_ok_and(|output| output.status.success()) {
            bail!(
                "this system has no packages {}: for the kernel side, install a rustup nightly \
                 with rust-src, and bpf-linker {LINKER} with an LLVM of that nightly's version",
                PACKAGES.join(", ")
            );
        }
        eprintln!("setup: installing Debian's compiler and LLVM: they build the kernel side");
        // It takes the place of the system's own compiler, which somebody may want.
        let install = ["install", "--yes", "--no-install-recommends", "--no-remove"];
        sh::run(apt.args(install).args(PACKAGES))?;
    }
    if find_linker().is_none() {
        eprintln!("setup: installing bpf-linker {LINKER}: links the kernel side");
        let mut command = sh::cargo(&["install", "--locked", "bpf-linker", "--version", LINKER]);
        command.args(["--no-default-features", "--features", &format!("llvm-{LLVM}")]);
        sh::run(command.env("LLVM_PREFIX", LLVM_PREFIX))?;
    }
    Ok(())
}

/// The commands that install what is missing, for a user who is not root.
pub(crate) fn advice(missing: Missing) -> String {
    let mut text = String::new();
    if missing.compiler || !Path::new(LLVM_PREFIX).is_dir() {
        text += &format!(
            "\n    sudo apt-get install --yes --no-install-recommends {}",
            PACKAGES.join(" ")
        );
    }
    if missing.linker {
        text += &format!(
            "\n    LLVM_PREFIX={LLVM_PREFIX} cargo install --locked bpf-linker --version {LINKER} \
             --no-default-features --features llvm-{LLVM}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_alone_and_with_a_way_on() {
        let text = Missing { compiler: false, linker: true }.to_string();
        assert!(text.contains("without bpf-linker 0.13.0; cargo xtask setup"), "{text}");
        assert!(!text.contains("rustc"), "{text}");
        let text = Missing { compiler: true, linker: true }.to_string();
        assert!(text.contains("rust-src") && text.contains("bpf-linker"), "{text}");
    }
}
