//! `cargo xtask test`: builds once, and runs all tests that can run here.

mod durations;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::ebpf::{self, Stamp, Toolchain};
use crate::setup::{self, For};
use crate::{kube, sh};
use durations::Durations;

/// What to test.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run what `test` leaves out: the tests with a Kubernetes that is built from source, and
    /// those of the kernel side, built anew. With a choice of tests: builds for them what they need.
    #[arg(long)]
    extended: bool,

    /// Say at the end which tests took longest. Examples in the documentation of code are not among them.
    #[arg(long)]
    durations: bool,

    /// Passed on to `cargo test`: `-p e2e`, a part of a test's name, `-- --nocapture`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Set for the end-to-end tests: what they need has to be there, and a test that
/// can't make its namespaces or containers fails instead of being skipped.
pub(crate) const REQUIRE_LAB: &str = "WHEREIS_PORT_REQUIRE_LAB";

/// How the names of tests begin that need a Kubernetes from source.
const EXTENDED: &str = "extended::";
/// And of those that have names of other files in theirs.
const PATHS: &str = "paths::";

const LEFT_OUT: &str = "NOT root: LEFT OUT were the tests that make network namespaces and \
    containers.\nEach is named above as SKIPPED. Run everything with:\n    \
    sudo env PATH=\"$PATH\" HOME=\"$HOME\" CARGO_TARGET_DIR=target/root cargo xtask test";

/// Builds and tests.
pub(crate) fn run(args: &Args) -> Result<()> {
    let began = Instant::now();
    let root = sh::is_root();
    let all = args.rest.is_empty();
    if root {
        let what: &[For] = if args.extended { &[For::Test, For::Extended] } else { &[For::Test] };
        setup::run(what)?;
    } else {
        eprintln!("not root: tests that make namespaces and containers are left out");
    }
    if args.extended {
        kube::build()?;
    }
    // The end-to-end tests run programs of other packages, which `cargo test`
    // alone would not build for them.
    build_programs(None)?;
    let built = began.elapsed();
    let tested = chosen(args)?.run(root, args.durations);
    // A file at a time, as each has the machine to itself: they share its namespaces.
    let files = if all { files(args.extended)? } else { Vec::new() };
    let mut failed = Vec::new();
    for file in files {
        if let Err(problem) = of_file(&file).run(root, args.durations) {
            failed.push(format!("{file}: {problem:#}"));
        }
    }
    let tested = tested.and_then(|()| match failed.as_slice() {
        [] => Ok(()),
        some => bail!("tests failed: {}", some.join(", ")),
    });
    let fresh = if args.extended && all { test_fresh(root) } else { Ok(()) };
    if !root {
        sh::shout(LEFT_OUT);
    }
    if all && !args.extended {
        eprintln!(
            "left out: tests of a Kubernetes from source, and of the kernel side built anew: cargo xtask test \
             --extended"
        );
    }
    let minutes = |time: std::time::Duration| time.as_secs_f64() / 60.0;
    eprintln!(
        "{:.1} min, {:.1} of them for what is run by tests",
        minutes(began.elapsed()),
        minutes(built)
    );
    tested.and(fresh)
}

/// The modules of the end-to-end tests, as `tests/e2e.rs` has them: `docker`, or, of those that
/// need a Kubernetes from source, `extended::kind`.
fn files(extended: bool) -> Result<Vec<String>> {
    let path = sh::workspace().join("tests/e2e.rs");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(modules(&text, extended))
}

fn modules(text: &str, extended: bool) -> Vec<String> {
    let of_line = |line: &str| {
        let name = line.trim().strip_prefix("mod ")?.strip_suffix(';')?;
        match (line.starts_with(' '), extended) {
            (true, true) => Some(format!("{EXTENDED}{name}")),
            (false, false) => Some(name.to_owned()),
            _ => None,
        }
    };
    text.lines().filter_map(of_line).collect()
}

/// The tests of one module.
fn of_file(file: &str) -> Choice {
    let mut harness = vec![format!("{file}::")];
    // A name is found anywhere in that of a test.
    for other in [EXTENDED, PATHS] {
        if !harness[0].starts_with(other) {
            harness.extend(["--skip".to_owned(), other.to_owned()]);
        }
    }
    Choice { cargo: ["-p", "e2e", "--test", "e2e"].map(str::to_owned).to_vec(), harness }
}

/// The tests that these arguments choose.
fn chosen(args: &Args) -> Result<Choice> {
    let mut choice = Choice::parse(&args.rest);
    if args.rest.is_empty() && args.extended {
        // Those of the labs themselves; the others follow, file by file.
        choice.cargo.extend(["-p", "e2e", "--lib"].map(str::to_owned));
    } else if args.rest.is_empty() {
        choice.cargo.extend(["--workspace", "--exclude", "e2e"].map(str::to_owned));
    } else if !args.extended && !kube::is_built()? {
        // They would all fail for want of it.
        choice.harness.extend(["--skip", EXTENDED].map(str::to_owned));
        eprintln!(
            "left out, if they are meant: tests of a Kubernetes from source, which is not built. Add --extended"
        );
    }
    if !args.rest.is_empty() && !names_package(&choice.cargo) {
        choice.cargo.push("--workspace".to_owned());
    }
    Ok(choice)
}

/// Arguments of `cargo test`, and of the programs that it runs.
#[derive(Debug, Default)]
struct Choice {
    cargo: Vec<String>,
    harness: Vec<String>,
}

impl Choice {
    /// What is before, and what is after the dashes.
    fn parse(rest: &[String]) -> Self {
        let mut parts = rest.splitn(2, |arg| arg == "--").map(<[String]>::to_vec);
        Self { cargo: parts.next().unwrap_or_default(), harness: parts.next().unwrap_or_default() }
    }

    fn run(&self, root: bool, durations: bool) -> Result<()> {
        if !durations {
            return sh::run(&mut self.command(&[], &[], root)?);
        }
        let mut took = Durations::default();
        // Examples of documentation are run by a program that has no such option.
        let chosen = names_target(&self.cargo);
        let tests: &[&str] = if chosen { &[] } else { &["--tests"] };
        let options = [durations::CARGO, tests].concat();
        let tested = took.run(&mut self.command(&options, durations::HARNESS, root)?);
        let examples = if chosen || self.cargo.iter().any(|arg| arg == "e2e") {
            Ok(())
        } else {
            sh::run(&mut self.command(&["--doc"], &[], root)?)
        };
        println!("{took}");
        tested.and(examples)
    }

    fn command(&self, options: &[&str], harness: &[&str], root: bool) -> Result<Command> {
        let mut test = sh::cargo(&["test", "--no-fail-fast", "--locked"]);
        if root {
            test.env(REQUIRE_LAB, "1");
        }
        test.env("WHEREIS_PORT_KUBE_CACHE", kube::programs()?);
        test.args(options).args(&self.cargo);
        test.arg("--").args(&self.harness).args(harness);
        Ok(test)
    }
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
    for suite in [["-p", "whereis-port-node", "ebpf"], ["-p", "e2e", "probe::"]] {
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
    args.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package"))
}

/// Whether a kind of target is chosen.
fn names_target(args: &[String]) -> bool {
    let kinds = ["--lib", "--bin", "--test", "--doc", "--example", "--bench", "--all-targets"];
    args.iter().any(|arg| kinds.iter().any(|kind| arg.starts_with(kind)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn end_to_end_tests_are_run_file_by_file() {
        let text = "//! Tests.\n\nmod docker;\nmod paths;\n\nmod extended {\n    mod kind;\n}\n";
        assert_eq!(modules(text, false), ["docker", "paths"]);
        assert_eq!(modules(text, true), ["extended::kind"]);
        let harness = |file| of_file(file).harness.join(" ");
        assert_eq!(harness("docker"), "docker:: --skip extended:: --skip paths::");
        assert_eq!(harness("paths"), "paths:: --skip extended::");
        assert_eq!(harness("extended::kind"), "extended::kind:: --skip paths::");
        assert!(files(false).unwrap().contains(&"docker".to_owned()));
        assert!(files(true).unwrap().contains(&"extended::kubelet".to_owned()));
    }

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Args {
        Line::parse_from(format!("test {line}").split_whitespace()).args
    }

    #[test]
    fn a_package_is_chosen_before_the_dashes_only() {
        let names = |line: &str| names_package(&Choice::parse(&parse(line).rest).cargo);
        assert!(names("-p e2e docker::"));
        assert!(names("--package=e2e"));
        assert!(!names("cgroup -- --nocapture -p"));
        assert!(!names(""));
    }

    #[test]
    fn our_own_options_come_first_and_the_rest_is_for_cargo() {
        let args = parse("--durations -p e2e --test e2e docker:: -- --nocapture");
        assert!(args.durations && !args.extended);
        let choice = Choice::parse(&args.rest);
        assert_eq!(choice.cargo.join(" "), "-p e2e --test e2e docker::");
        assert_eq!(choice.harness, ["--nocapture"]);
        assert!(names_target(&choice.cargo) && !names_target(&["-p".to_owned()]));
        assert!(parse("--extended").extended);
    }
}
