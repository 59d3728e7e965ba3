//! `cargo xtask build-ebpf`: builds the kernel side, which normal builds embed
//! as it is kept in `probe-user/node/prebuilt`.

mod sources;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{Refused, sh};

pub(crate) use sources::Stamp;
pub(crate) use toolchain::{Compiler, Toolchain, advice, cargo_home, install};

/// Makes the build embed another object than the prebuilt one; read by
/// `probe-user/node/build.rs`.
pub(crate) const OBJECT: &str = "WHEREIS_PORT_PROBE_OBJECT";

const TARGET: &str = "bpfel-unknown-none";

/// The cargo profile for the kernel side, in the workspace's manifest.
const PROFILE: &str = "ebpf";

/// No BTF of its own: nothing is relocated against the kernel, and without it the
/// object is half as large and loads in half the time.
const FLAGS: &[&str] = &["-Cdebuginfo=0"];

/// What to build.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the object goes, its hashes beside it as `.sources`.
    /// Without this: `probe-user/node/prebuilt/probe.o`, which builds embed.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Builds the object, or says what that needs.
pub(crate) fn run(args: &Args) -> Result<()> {
    let toolchain = Toolchain::find().map_err(|missing| Refused(missing.to_string()))?;
    let out = match &args.out {
        Some(file) => std::path::absolute(file)?,
        None => prebuilt(),
    };
    build(&toolchain, &out)?;
    Ok(())
}

/// The object that normal builds embed.
pub(crate) fn prebuilt() -> PathBuf {
    sh::workspace().join("probe-user/node/prebuilt/probe.o")
}

/// Builds the object and writes it to `out`, with its stamp beside it.
pub(crate) fn build(toolchain: &Toolchain, out: &Path) -> Result<Stamp> {
    eprintln!("building the kernel side with {toolchain}");
    // A target directory of its own: other flags would make cargo build everything
    // in the main one again.
    let target = sh::target_dir()?.join("ebpf");
    let mut command = toolchain.cargo();
    command
        .args(["build", "--locked", "--package", "probe-ebpf", "--profile", PROFILE])
        .args(["-Zbuild-std=core", "--target", TARGET])
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", toolchain.linker())
        .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain)?.join("\u{1f}"));
    sh::run(&mut command)?;

    if let Some(dir) = out.parent() {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let built = target.join(TARGET).join(PROFILE).join("probe");
    // The debug information has done its duty: BTF and line numbers for the
    // verifier's messages are in sections of their own.
    if let Some(mut strip) = toolchain.strip_debug() {
        sh::run(strip.args([&built, out]))?;
    } else {
        eprintln!("llvm-objcopy is missing: the object keeps its debug information");
        fs::copy(&built, out).with_context(|| format!("writing {}", out.display()))?;
    }
    let stamp = Stamp::of(sh::workspace(), out, &toolchain.version()?)?;
    stamp.write(out)?;
    println!("{}: version {}", out.display(), stamp.version());
    Ok(stamp)
}

/// Flags for rustc, with which the object does not tell where it was built.
fn flags(toolchain: &Toolchain) -> Result<Vec<String>> {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
    flags.push(remap(&toolchain.library(), "/rust/library"));
    flags.push(remap(&toolchain::cargo_home()?, "/cargo"));
    flags.push(remap(sh::workspace(), "/whereis-port"));
    Ok(flags)
}

/// Fails unless the prebuilt object is whole and made from the sources as they are.
pub(crate) fn check() -> Result<()> {
    let object = prebuilt();
    let advice = "run cargo xtask build-ebpf and commit what it writes";
    let kept = Stamp::read(&object).with_context(|| advice.to_owned())?;
    let now = Stamp::of(sh::workspace(), &object, &kept.compiler)?;
    if kept.object != now.object {
        bail!("{} is not the file that its stamp is about: {advice}", object.display());
    }
    if kept.sources != now.sources {
        bail!("the kernel side changed after {} was built: {advice}", object.display());
    }
    eprintln!("the prebuilt kernel side is that of the sources: version {}", kept.version());
    Ok(())
}
