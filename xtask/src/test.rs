//! `cargo xtask test`: builds once, and runs all tests that can run here.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::ebpf::{self, Stamp, Toolchain};
use crate::{kube, setup, sh};

/// What to test.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed on to `cargo test`: `-p e2e`, a part of a test's name, `-- --nocapture`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Set for the end-to-end tests: what they need has to be there, and a test that
/// can't make its namespaces or containers fails instead of being skipped.
pub(crate) const REQUIRE_LAB: &str = "WHEREIS_PORT_REQUIRE_LAB";

const LEFT_OUT: &str = "NOT root: LEFT OUT were the tests that make network namespaces and \
    containers.\nEach is named above as SKIPPED. Run everything with:\n    \
    sudo env PATH=\"$PATH\" HOME=\"$HOME\" CARGO_TARGET_DIR=target/root cargo xtask test";

/// Builds and tests.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = sh::is_root();
    if root {
        setup::run()?;
        // A choice of tests is run with what is there.
        if args.rest.is_empty() {
            kube::build()?;
        }
    } else {
        eprintln!("not root: tests that make namespaces and containers are left out");
    }
    // The end-to-end tests run programs of other packages, which `cargo test`
    // alone would not build for them.
    build_programs(None)?;
    let mut test = sh::cargo(&["test", "--no-fail-fast", "--locked"]);
    if !names_package(&args.rest) {
        test.arg("--workspace");
    }
    if root {
        test.env(REQUIRE_LAB, "1");
    }
    test.env("WHEREIS_PORT_KUBE_CACHE", kube::programs()?);
    let tested = sh::run(test.args(&args.rest));
    // A choice of tests is a question about those alone.
    let fresh = if args.rest.is_empty() { test_fresh(root) } else { Ok(()) };
    if !root {
        sh::shout(LEFT_OUT);
    }
    tested.and(fresh)
}

/// Builds the kernel side anew, and tests it where it is another one than the
/// prebuilt, which the tests had so far.
fn test_fresh(root: bool) -> Result<()> {
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(missing) if root || std::env::var_os("CI").is_some() => bail!("{missing}"),
        Err(missing) => {
            sh::shout(&format!(
                "The kernel side was NOT built anew, only the prebuilt one was tested: {missing}."
            ));
            return Ok(());
        }
    };
    let object = sh::target_dir()?.join("ebpf/fresh/probe.o");
    let fresh = ebpf::build(&toolchain, &object)?;
    let prebuilt = Stamp::read(&ebpf::prebuilt())?;
    if fresh.object == prebuilt.object {
        eprintln!(
            "the kernel side built anew is the prebuilt one, byte for byte: it was tested above"
        );
        return Ok(());
    }
    eprintln!(
        "the kernel side built anew by {} differs from the prebuilt one ({}): testing it",
        fresh.compiler, prebuilt.compiler
    );
    let tested = test_probe(&object, root);
    // Whoever uses the tool that was built gets the one with the prebuilt object.
    build_programs(None)?;
    tested.context("tests of the kernel side as built anew")
}

/// Runs the tests of the probe with a tool that embeds `object`.
fn test_probe(object: &Path, root: bool) -> Result<()> {
    build_programs(Some(object))?;
    let mut suites = vec![vec!["-p", "whereis-port", "ebpf"]];
    if sh::workspace().join("tests/probe.rs").is_file() {
        suites.push(vec!["-p", "e2e", "--test", "probe"]);
    }
    for suite in suites {
        let mut test = sh::cargo(&["test", "--no-fail-fast", "--locked"]);
        test.args(suite).env(ebpf::OBJECT, object);
        if root {
            test.env(REQUIRE_LAB, "1");
        }
        sh::run(&mut test)?;
    }
    Ok(())
}

/// Builds all programs, with another object of the kernel side if asked to.
pub(crate) fn build_programs(object: Option<&Path>) -> Result<()> {
    let mut build = sh::cargo(&["build", "--workspace", "--bins", "--locked"]);
    if let Some(object) = object {
        build.env(ebpf::OBJECT, object);
    }
    sh::run(&mut build)
}

/// Whether a package is chosen: with `--workspace`, cargo would test all others too.
fn names_package(args: &[String]) -> bool {
    let mut ours = args.iter().take_while(|arg| *arg != "--");
    ours.any(|arg| arg.starts_with("-p") || arg.starts_with("--package"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_chosen_before_the_dashes_only() {
        let names = |line: &str| {
            names_package(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        assert!(names("-p e2e --test docker"));
        assert!(names("--package=e2e"));
        assert!(!names("cgroup -- --nocapture -p"));
        assert!(!names(""));
    }
}
