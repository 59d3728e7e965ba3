//! Static binaries: musl instead of the machine's C library, by way of zig.
//!
//! No toolchain of rustup's is needed for the target: the standard library is built with the
//! binary, from the sources that Debian's rust-web-src or a nightly's rust-src have. `zig cc` is
//! compiler and linker for C, with a musl of its own for every processor.
//!
//! Nothing of where it was built gets into the binary, so that another directory gives the same.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::Arch;
use crate::ebpf::{self, Compiler};
use crate::{Refused, sh};

/// The version of zig, from PyPI. Another one may make other bytes.
const ZIG: &str = "0.17.1";

/// What builds static binaries.
#[derive(Debug)]
pub(crate) struct Tools {
    compiler: Compiler,
    zig: PathBuf,
}

impl Tools {
    /// What is there, or what to install.
    pub(crate) fn find() -> Result<Self> {
        let ours = sh::target_dir()?.join("zig");
        let zig =
            Some(ours.join("ziglang/zig")).filter(|f| f.is_file()).or_else(|| sh::find("zig"));
        match (Compiler::find(), zig) {
            (Some(compiler), Some(zig)) => Ok(Self { compiler, zig }),
            (compiler, zig) => {
                Err(Refused(advice(compiler.is_none(), zig.is_none(), &ours)).into())
            }
        }
    }

    /// The directory of zig's that has the sources of musl and of what unwinds.
    pub(crate) fn zig_lib(&self) -> Option<PathBuf> {
        Some(self.zig.parent()?.join("lib")).filter(|dir| dir.is_dir())
    }

    /// Builds the binary of the sources in `sources` below `target`.
    pub(crate) fn build(&self, arch: Arch, sources: &Path, target: &Path) -> Result<PathBuf> {
        let tools = target.join("tools");
        fs::create_dir_all(&tools).with_context(|| format!("making {}", tools.display()))?;
        let cc = tools.join(format!("{}-cc", arch.target()));
        fs::write(&cc, wrapper(&self.zig, arch))
            .and_then(|()| fs::set_permissions(&cc, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("writing {}", cc.display()))?;

        let triple = arch.target();
        let name = triple.replace('-', "_");
        let flags = flags(&[
            (&self.compiler.library(), "/rust/library"),
            (&ebpf::cargo_home()?, "/cargo"),
            // The last that fits is taken: this is for one outside of the sources.
            (target, "/build"),
            (sources, "/whereis-port"),
        ]);
        let mut command = self.compiler.cargo();
        command
            .current_dir(sources)
            .args(["build", "--profile", "dist", "--locked", "--package", "whereis-port"])
            .args(["--bin", "whereis-port", "-Zbuild-std=std,panic_unwind", "--target", triple])
            .env("CARGO_TARGET_DIR", target)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .env(format!("CC_{name}"), &cc)
            .env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), &cc)
            .env("ZIG_GLOBAL_CACHE_DIR", target.join("zig-cache"))
            .env("ZIG_LOCAL_CACHE_DIR", target.join("zig-cache"));
        sh::run(&mut command)?;
        let binary = target.join(triple).join("dist/whereis-port");
        is_static(&binary, arch)?;
        Ok(binary)
    }

    /// Builds it once more, of a copy of the sources in another directory, and compares.
    pub(crate) fn verify(&self, arch: Arch, first: &Path) -> Result<()> {
        let dir = tempfile::Builder::new().prefix("whereis-port-verify-").tempdir()?;
        let sources = dir.path().join("elsewhere");
        copy_sources(sh::workspace(), &sources)?;
        // At the same place below the sources: what build scripts write is named by it.
        let target = sh::target_dir()?.join("static");
        let target = match target.strip_prefix(sh::workspace()) {
            Ok(inside) => sources.join(inside),
            Err(_) => dir.path().join("built"),
        };
        let second = self.build(arch, &sources, &target)?;
        let (one, two) = (read(first)?, read(&second)?);
        if let Some(at) = difference(&one, &two) {
            let kept = first.with_extension("other");
            fs::copy(&second, &kept).with_context(|| format!("writing {}", kept.display()))?;
            bail!(
                "{} is not reproducible: built in another directory it differs from byte {at} on \
                 ({} and {} bytes); the other one is {}",
                first.display(),
                one.len(),
                two.len(),
                kept.display()
            );
        }
        println!("{}: the same bytes when built in another directory", first.display());
        Ok(())
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("reading {}", file.display()))
}

/// The files that git knows, as they are in the directory now.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    let listed = sh::capture(Command::new("git").current_dir(from).args(["ls-files", "-z"]))?;
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let (file, copy) = (from.join(name), to.join(name));
        // One that was deleted and is not committed yet.
        if !file.is_file() {
            continue;
        }
        let parent = copy.parent().unwrap_or(to);
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        fs::copy(&file, &copy).with_context(|| format!("copying {}", file.display()))?;
    }
    Ok(())
}

/// Where two files begin to differ.
fn difference(one: &[u8], two: &[u8]) -> Option<usize> {
    let at = one.iter().zip(two).position(|(a, b)| a != b);
    at.or_else(|| (one.len() != two.len()).then(|| one.len().min(two.len())))
}

/// Flags for rustc: static, with zig's start files, and these directories under other names.
fn flags(names: &[(&Path, &str)]) -> Vec<String> {
    let mut flags = vec!["-Clink-self-contained=no".into(), "-Ctarget-feature=+crt-static".into()];
    let remap = |(from, to): &(&Path, &str)| format!("--remap-path-prefix={}={to}", from.display());
    flags.extend(names.iter().map(remap));
    flags
}

/// The compiler and linker for C: `zig cc`, without what is its own affair.
///
/// rustc names the start files of a C library that isn't there, and crates that compile C name
/// the target as clang does.
fn wrapper(zig: &Path, arch: Arch) -> String {
    format!(
        "#!/bin/sh
# zig cc for {target}, which brings its own start files.
for word do
    shift
    case \"$word\" in
    crt1.o | rcrt1.o | Scrt1.o | crti.o | crtn.o | crtbegin*.o | crtend*.o | --target=*) ;;
    */crt1.o | */rcrt1.o | */Scrt1.o | */crti.o | */crtn.o | */crtbegin*.o | */crtend*.o) ;;
    *) set -- \"$@\" \"$word\" ;;
    esac
done
exec '{zig}' cc -target {target} \"$@\"
",
        target = arch.zig(),
        zig = zig.display().to_string().replace('\'', r"'\''"),
    )
}

/// What to install, for whom it is missing.
fn advice(compiler: bool, zig: bool, ours: &Path) -> String {
    let mut text = "static binaries can't be built here; install first:".to_owned();
    if compiler {
        text += "\n    apt-get install --no-install-recommends rustc-web cargo-web rust-web-src \
                 (Debian's; or a rustup nightly with rust-src)";
    }
    if zig {
        text += &format!(
            "\n    pip3 install --no-deps --target {} ziglang=={ZIG} (or zig {ZIG} on the search path)",
            ours.display()
        );
    }
    text
}

/// Whether the file is a program for this processor that needs no library.
pub(crate) fn is_static(file: &Path, arch: Arch) -> Result<()> {
    let bytes = read(file)?;
    let elf = Elf::read(&bytes).with_context(|| format!("{} is no program", file.display()))?;
    ensure!(
        elf.machine == arch.machine(),
        "{} is not for {}: its machine is {}",
        file.display(),
        arch.name(),
        elf.machine
    );
    ensure!(!elf.interpreted, "{} is not static: it names an interpreter", file.display());
    Ok(())
}

/// The little that is read of a program (elf(5)): 64 bits, little-endian.
struct Elf {
    machine: u16,
    /// Whether it has a segment PT_INTERP, as what is linked dynamically has.
    interpreted: bool,
}

impl Elf {
    fn read(bytes: &[u8]) -> Option<Self> {
        const PT_INTERP: u16 = 3;
        if bytes.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let table =
            usize::try_from(u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?)).ok()?;
        let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
        let mut interpreted = false;
        for index in 0..count {
            interpreted |= half(table.checked_add(index * size)?)? == PT_INTERP;
        }
        Some(Self { machine: half(18)?, interpreted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_alone() {
        let ours = Path::new("/t/zig");
        let text = advice(false, true, ours);
        assert!(text.contains("pip3 install --no-deps --target /t/zig ziglang==0.17.1"), "{text}");
        assert!(!text.contains("rustc-web"), "{text}");
        let text = advice(true, false, ours);
        assert!(text.contains("rust-web-src") && !text.contains("pip3"), "{text}");
    }

    #[test]
    fn the_linker_is_not_given_what_zig_brings() {
        let dir = tempfile::tempdir().unwrap();
        let zig = dir.path().join("it's zig");
        fs::write(&zig, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").unwrap();
        let cc = dir.path().join("cc");
        fs::write(&cc, wrapper(&zig, Arch::Aarch64)).unwrap();
        fs::set_permissions(&zig, fs::Permissions::from_mode(0o755)).unwrap();
        let words =
            ["/x/crt1.o", "crtbeginT.o", "a b.o", "--target=aarch64-x", "-lunwind", "-o", "crt"];
        let printed = sh::capture(Command::new("sh").arg(&cc).args(words)).unwrap();
        let left: Vec<&str> = printed.lines().collect();
        assert_eq!(left, ["cc", "-target", "aarch64-linux-musl", "a b.o", "-lunwind", "-o", "crt"]);
    }

    #[test]
    fn this_program_is_none_that_is_static() {
        let me = std::env::current_exe().unwrap();
        let elf = Elf::read(&read(&me).unwrap()).unwrap();
        assert!(elf.interpreted);
        assert_eq!(Some(elf.machine), Arch::host().map(Arch::machine));
        assert!(Elf::read(b"\x7fELF\x02\x01").is_none());
        assert!(Elf::read(b"#!/bin/sh").is_none());
    }

    #[test]
    fn files_differ_where_a_byte_does_or_one_ends() {
        assert_eq!(difference(b"abc", b"abc"), None);
        assert_eq!(difference(b"abc", b"axc"), Some(1));
        assert_eq!(difference(b"abc", b"ab"), Some(2));
    }
}
