//! `cargo xtask check`: everything that is checked without running the tool.

use anyhow::Result;

use crate::{Refused, docs, ebpf, fuzz, names, sh, workflows};

/// Runs all checks, and stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    sh::run(&mut sh::cargo(&["fmt", "--all", "--check"]))?;
    docs::check()?;
    names::check()?;
    workflows::check()?;
    let lint = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    sh::run(&mut sh::cargo(&lint))?;
    let mut doc = sh::cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    sh::run(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    ebpf::check()?;
    fuzz::check()?;
    dependencies()
}

fn dependencies() -> Result<()> {
    if !sh::succeeds(&mut sh::cargo(&["deny", "--version"])) {
        return Err(Refused("cargo-deny is not installed: run cargo xtask setup".to_owned()).into());
    }
    let deny = |args: &[&str]| {
        let mut command = sh::cargo(&["deny", "--workspace", "--locked"]);
        command.args(args);
        command
    };
    sh::run(&mut deny(&["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]))?;
    // Fetching is a step of its own, so that a database that can't be had is told
    // apart from an advisory that applies.
    match sh::run(&mut deny(&["fetch", "db"])) {
        Ok(()) => sh::run(&mut deny(&["--offline", "check", "advisories"])),
        Err(error) => {
            sh::shout(&format!("advisories NOT checked: {error:#}\nEverything else was checked."));
            Ok(())
        }
    }
}
