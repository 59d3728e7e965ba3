//! `cargo xtask fuzz`: damaged input for every parser of what others control.
//!
//! The targets are one program, of the crate in `fuzz/`, which libFuzzer drives. It
//! is built with the stable compiler: what libFuzzer needs to know of the code that
//! ran comes from a pass of LLVM.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::sh;

/// What to fuzz.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For how long, each target.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// How many targets run at a time [default: one for each processor].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// These targets only. Without any: all.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// The triple is given, so that build scripts and macros are built without the flags.
const TRIPLE: &str = if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-unknown-linux-gnu"
};

/// Edges that were taken and values that were compared, as libFuzzer wants them.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Megabytes a target may have. All of it together, with libFuzzer's own tables.
const MEMORY: u32 = 1024;
/// Seconds one input may take.
const PATIENCE: u32 = 10;
/// Bytes of the longest input: what one read of a socket gives.
const LONGEST: u32 = 32 * 1024;
/// Recorded inputs of the unit tests that are seeds, too.
const FIXTURES: &[(&str, &str)] = &[
    ("docker", "probe-user/node/src/live/containers/fixtures/docker-20.10"),
    ("docker", "probe-user/node/src/live/containers/fixtures/podman-4.3"),
    ("recordings", "tests/data"),
    ("state_files", "probe-user/node/src/live/containers/fixtures/docker-20.10"),
    ("state_files", "probe-user/node/src/live/containers/fixtures/podman-4.3"),
    ("state_files", "probe-user/node/src/live/containers/fixtures/hand-made"),
];
/// Beyond its time, a target that does not end is stopped.
const GRACE: Duration = Duration::from_secs(60);

/// Builds and runs the targets; fails when one finds something.
pub(crate) fn run(args: &Args) -> Result<()> {
    let program = build()?;
    let known = names(&program)?;
    if let Some(unknown) = args.targets.iter().find(|target| !known.contains(target)) {
        bail!("there is no target {unknown}: there are {}", known.join(", "));
    }
    let mut wanted = if args.targets.is_empty() { known } else { args.targets.clone() };
    wanted.reverse();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.map_or(cpus, usize::from).min(wanted.len());
    let work = sh::target_dir()?.join("fuzz/work");
    let (queue, found) = (Mutex::new(wanted), Mutex::new(Vec::new()));
    let worker = || -> Result<()> {
        loop {
            let next = queue.lock().ok().and_then(|mut queue| queue.pop());
            let Some(target) = next else { return Ok(()) };
            let outcome = fuzz(&program, &target, args.seconds, &work)?;
            eprintln!("fuzz: {target}: {}", outcome.summary());
            if let (Some(failure), Ok(mut found)) = (outcome.failure, found.lock()) {
                found.push(format!("{target}:\n{failure}"));
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(_panic) => bail!("a thread that runs targets panicked"),
        })
    })?;
    let found = found.into_inner().unwrap_or_default();
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// That the targets' own lock file knows all the dependencies the tool has now: it
/// would else be found out by a build that comes last.
pub(crate) fn check() -> Result<()> {
    let mut read = sh::cargo(&["metadata", "--locked", "--format-version", "1"]);
    sh::capture(read.current_dir(sh::workspace().join("fuzz"))).context(
        "fuzz/Cargo.lock is behind Cargo.lock: copy it over and run cargo metadata in fuzz/",
    )?;
    Ok(())
}

fn build() -> Result<PathBuf> {
    let dir = sh::target_dir()?.join("fuzz");
    let mut build = sh::cargo(&["build", "--locked", "--target", TRIPLE]);
    build.current_dir(sh::workspace().join("fuzz")).arg("--target-dir").arg(&dir);
    // Set by cargo for this program, and not meant for another workspace.
    build.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    sh::run(&mut build)?;
    Ok(dir.join(TRIPLE).join("debug/fuzz"))
}

fn names(program: &Path) -> Result<Vec<String>> {
    let printed = sh::capture(Command::new(program).env_remove("FUZZ_TARGET"))?;
    let names: Vec<String> = printed.lines().map(str::to_owned).collect();
    ensure!(!names.is_empty(), "{} names no targets", program.display());
    Ok(names)
}

/// What came of one target.
#[derive(Debug, Default)]
struct Outcome {
    executions: u64,
    per_second: u64,
    /// Edges that were reached.
    coverage: u64,
    failure: Option<String>,
}

impl Outcome {
    fn summary(&self) -> String {
        let Self { executions, per_second, coverage, failure } = self;
        let end = if failure.is_some() { "FAILED" } else { "nothing found" };
        format!("{executions} executions, {per_second} a second, {coverage} edges: {end}")
    }
}

fn fuzz(program: &Path, target: &str, seconds: u32, work: &Path) -> Result<Outcome> {
    let corpus = work.join("corpus").join(target);
    let crashes = work.join("crashes").join(target);
    for dir in [&corpus, &crashes] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let log = work.join(format!("{target}.log"));
    let file = fs::File::create(&log).with_context(|| format!("writing {}", log.display()))?;
    let mut command = Command::new(program);
    command
        .env("FUZZ_TARGET", target)
        .env("RUST_BACKTRACE", "1")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-timeout={PATIENCE}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .args(["-print_final_stats=1", "-use_value_profile=1"])
        .arg(&corpus)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file);
    let seeds = sh::workspace().join("fuzz/seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    for (_, fixtures) in FIXTURES.iter().filter(|(of, _)| *of == target) {
        command.arg(sh::workspace().join(fixtures));
    }
    let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
    let ended = wait(child, Duration::from_secs(seconds.into()) + GRACE)?;
    let mut text = Vec::new();
    fs::File::open(&log)
        .and_then(|mut file| file.read_to_end(&mut text))
        .with_context(|| format!("reading {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let mut outcome = told(&text);
    if !ended || outcome.executions == 0 {
        let why = failure(&text).unwrap_or_else(|| "it did not end in time".to_owned());
        outcome.failure = Some(format!("{why}\nsee {}", log.display()));
    }
    Ok(outcome)
}

/// Whether it ended by itself, and well.
fn wait(mut child: Child, limit: Duration) -> Result<bool> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("waiting for a target")? {
            return Ok(status.success());
        }
        if start.elapsed() > limit {
            child.kill().context("stopping a target")?;
            child.wait().context("waiting for a target")?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What libFuzzer said at its end.
fn told(log: &str) -> Outcome {
    let number = |name: &str| {
        let line = log.lines().rev().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().parse().ok()
    };
    let coverage = log.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once(" cov: ")?;
        rest.split_whitespace().next()?.parse().ok()
    });
    Outcome {
        executions: number("stat::number_of_executed_units").unwrap_or_default(),
        per_second: number("stat::average_exec_per_sec").unwrap_or_default(),
        coverage: coverage.unwrap_or_default(),
        failure: None,
    }
}

/// The lines that say what went wrong, and where the input is kept.
fn failure(log: &str) -> Option<String> {
    const SIGNS: [&str; 4] = ["panicked at", "ERROR: libFuzzer", "SUMMARY: ", "Test unit written"];
    let lines: Vec<&str> = log.lines().collect();
    let says = |line: &&str| SIGNS.iter().any(|sign| line.contains(sign));
    let mut shown = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        if says(line) {
            shown.push(*line);
            if line.contains("panicked at") {
                shown.extend(lines.get(number + 1));
            }
        }
    }
    (!shown.is_empty()).then(|| shown.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: &str = "#5\tNEW    cov: 20 ft: 3\n\nthread '<unnamed>' panicked at src/a.rs:3:4:\n\
        index out of bounds\nstack backtrace:\n==7== ERROR: libFuzzer: deadly signal\n\
        artifact_prefix='x/'; Test unit written to x/crash-1\n\
        stat::number_of_executed_units: 12\nstat::average_exec_per_sec:     3\n";

    #[test]
    fn what_libfuzzer_says_is_read() {
        let outcome = told(CRASH);
        assert_eq!((outcome.executions, outcome.per_second, outcome.coverage), (12, 3, 20));
        assert_eq!(outcome.summary(), "12 executions, 3 a second, 20 edges: nothing found");
        assert_eq!(told("").executions, 0);
    }

    #[test]
    fn a_failure_names_the_panic_and_the_input() {
        let failure = failure(CRASH).unwrap();
        assert!(failure.contains("src/a.rs:3:4:\nindex out of bounds\n"), "{failure}");
        assert!(failure.ends_with("written to x/crash-1"), "{failure}");
        assert_eq!(super::failure("#2\tDONE   cov: 5"), None);
    }

    #[test]
    fn a_target_that_does_not_end_is_stopped() {
        let sleep = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(!wait(sleep, Duration::from_millis(10)).unwrap());
        assert!(wait(Command::new("true").spawn().unwrap(), GRACE).unwrap());
        assert!(!wait(Command::new("false").spawn().unwrap(), GRACE).unwrap());
    }
}
