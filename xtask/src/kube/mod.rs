//! `cargo xtask kube`: a real Kubernetes for the tests, of the version that the first kind
//! clusters had. Debian has its sources; nothing else is fetched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use crate::sh;

/// What is built.
const PROGRAMS: [&str; 7] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
    "pause",
];

/// What to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Build Kubernetes 1.20.2 from Debian's source package, once, into target/kube or
    /// $WHEREIS_PORT_KUBE_CACHE. As root, for it installs Go; about six minutes.
    Build,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    match args.what {
        What::Build => build(),
    }
}

/// Whether all of it is there.
pub(crate) fn is_built() -> Result<bool> {
    let out = programs()?;
    Ok(PROGRAMS.iter().all(|name| out.join(name).is_file()))
}

/// Builds what is not there.
pub(crate) fn build() -> Result<()> {
    let out = programs()?;
    if is_built()? {
        return Ok(());
    }
    if !sh::is_root() {
        bail!("building Kubernetes installs packages: run cargo xtask kube build as root");
    }
    eprintln!("kube: building Kubernetes into {}", out.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kube/build.sh");
    let work = sh::target_dir()?.join("kube-build");
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    sh::run(Command::new("bash").arg(script).args([&out, &work]))?;
    // Some gigabytes of sources and of what Go keeps of its work, read-only.
    let _left = Command::new("chmod").arg("-R").arg("u+w").arg(&work).status();
    fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))
}

/// Where the programs are, or will be.
pub(crate) fn programs() -> Result<PathBuf> {
    Ok(match std::env::var_os("WHEREIS_PORT_KUBE_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => sh::target_dir()?.join("kube"),
    })
}
