//! `cargo xtask test`: builds once, and runs all tests that can run here.

use anyhow::Result;

use crate::{setup, sh};

/// What to test.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed on to `cargo test`: `-p e2e`, a part of a test's name, `-- --nocapture`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Set for the end-to-end tests: what they need has to be there, and a test that
/// can't make its namespaces or containers fails instead of being skipped.
const REQUIRE_LAB: &str = "WHEREIS_PORT_REQUIRE_LAB";

const LEFT_OUT: &str = "NOT root: LEFT OUT were the tests that make network namespaces and \
    containers.\nEach is named above as SKIPPED. Run everything with:\n    \
    sudo env PATH=\"$PATH\" HOME=\"$HOME\" CARGO_TARGET_DIR=target/root cargo xtask test";

/// Builds and tests.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = sh::is_root();
    if root {
        setup::run()?;
    } else {
        eprintln!("not root: tests that make namespaces and containers are left out");
    }
    // The end-to-end tests run programs of other packages, which `cargo test`
    // alone would not build for them.
    sh::run(&mut sh::cargo(&["build", "--workspace", "--bins", "--locked"]))?;
    let mut test = sh::cargo(&["test", "--no-fail-fast", "--locked"]);
    if !names_package(&args.rest) {
        test.arg("--workspace");
    }
    if root {
        test.env(REQUIRE_LAB, "1");
    }
    let tested = sh::run(test.args(&args.rest));
    if !root {
        sh::shout(LEFT_OUT);
    }
    tested
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
