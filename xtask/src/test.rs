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
    let mut test = sh::cargo(&["test", "--workspace", "--no-fail-fast", "--locked"]);
    if root {
        test.env(REQUIRE_LAB, "1");
    }
    let tested = sh::run(test.args(&args.rest));
    if !root {
        sh::shout(LEFT_OUT);
    }
    tested
}
