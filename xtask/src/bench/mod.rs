//! `cargo xtask bench`: whereis-port beside `ss`, `lsof` and `somo`, in one run.
//!
//! All commands run in the same private network namespace, on a big node and on
//! a small one. In each round every command runs once, each round starting with
//! another one, so that whatever else the machine does falls on all alike. What
//! is compared are medians. A missed target is reported, and is no failure: a
//! time depends on the machine.

mod answers;
mod busy;
mod events;
mod fleet;
mod kube;
mod measure;
mod node;
mod report;
mod rules;
mod screen;
mod sections;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::sh;
use measure::{Case, Samples, Tool};
use node::{Node, Size};
use report::Measured;

pub(crate) use events::{BurstArgs, help_burst};
pub(crate) use measure::{PeakArgs, print_peak};
pub(crate) use node::{HelperArgs, help};
pub(crate) use sections::run;

/// How to measure. Without one of the sections' options, all but `--fleet` are measured. Each
/// is printed, and saved in `target/bench`, as it ends.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many times each command is timed.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Write all samples to this file, anew as each section ends.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Put the tables into docs/src/benchmarks.md.
    #[arg(long, conflicts_with_all = ["nodes", "events", "rules_only", "kube", "fleet", "screen"])]
    docs: bool,
    /// Measure the big and the small node, beside `ss`, `lsof` and `somo`.
    #[arg(long)]
    nodes: bool,
    /// Measure the events of `trace`.
    #[arg(long)]
    events: bool,
    /// Measure the nodes with many rules.
    #[arg(long)]
    rules_only: bool,
    /// Measure the node whose Kubernetes API is asked.
    #[arg(long)]
    kube: bool,
    /// Measure a cluster of 200 simulated nodes.
    #[arg(long)]
    fleet: bool,
    /// Measure the screen.
    #[arg(long)]
    screen: bool,
    /// Measure this binary instead of building the release binary.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// A command that takes longer than this once is not timed.
const LIMIT: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Who listens on one port.
    OnePort,
    /// All listeners.
    List,
}

/// Everything that is measured on one node, in the namespace of this thread.
fn on_node(size: Size, binary: &Path, somo: Option<&Path>, rounds: u32) -> Result<Vec<Measured>> {
    let node = Node::start(size)?;
    sh::capture(std::process::Command::new(binary).arg("pin")).context("pinning")?;
    let mut all = Vec::new();
    for question in [Question::OnePort, Question::List] {
        let cases = cases(question, node.asked_port(), binary, somo);
        check_ours(question, binary, &node).context("pinned")?;
        {
            let _no_pins = node::NoPins::new()?;
            check_ours(question, binary, &node).context("not pinned")?;
        }
        let (mut timed, mut slow) = (Vec::new(), Vec::new());
        for case in cases {
            if check_peer(&case, question, &node)? {
                timed.push(case);
            } else {
                eprintln!("bench: {} takes more than {LIMIT:?}: not timed", case.label);
                slow.push(Measured::new(size, question, &case, Samples::default()));
            }
        }
        eprintln!("bench: {size} node, {question}: {rounds} rounds");
        let samples = measure::alternate(&timed, rounds)?;
        let done = timed.iter().zip(samples);
        all.extend(done.map(|(case, samples)| Measured::new(size, question, case, samples)));
        all.append(&mut slow);
    }
    Ok(all)
}

fn cases(question: Question, port: u16, binary: &Path, somo: Option<&Path>) -> Vec<Case> {
    let all = match question {
        Question::OnePort => vec![
            (Tool::Ours, binary, vec![port.to_string()], "whereis-port P"),
            (Tool::Pinned, binary, vec![port.to_string()], "whereis-port P (pinned)"),
            (
                Tool::SsPort,
                Path::new("ss"),
                words(&["-tlnp", "sport", "=", &format!(":{port}")]),
                "ss -tlnp sport = :P",
            ),
            (Tool::Ss, Path::new("ss"), words(&["-tlnp"]), "ss -tlnp"),
            (
                Tool::Lsof,
                Path::new("lsof"),
                words(&["-nP", &format!("-iTCP:{port}"), "-sTCP:LISTEN"]),
                "lsof -nP -iTCP:P -sTCP:LISTEN",
            ),
        ],
        Question::List => vec![
            (Tool::Ours, binary, words(&["list"]), "whereis-port list"),
            (Tool::Pinned, binary, words(&["list"]), "whereis-port list (pinned)"),
            (Tool::Json, binary, words(&["list", "--json"]), "whereis-port list --json"),
            (
                Tool::PinnedJson,
                binary,
                words(&["list", "--json"]),
                "whereis-port list --json (pinned)",
            ),
            (
                Tool::PinnedLines,
                binary,
                words(&["list", "--ndjson"]),
                "whereis-port list --ndjson (pinned)",
            ),
            (
                Tool::PinnedCsv,
                binary,
                words(&["list", "-o", "csv"]),
                "whereis-port list -o csv (pinned)",
            ),
            (Tool::Ss, Path::new("ss"), words(&["-tlnp"]), "ss -tlnp"),
            (
                Tool::Lsof,
                Path::new("lsof"),
                words(&["-nP", "-iTCP", "-sTCP:LISTEN"]),
                "lsof -nP -iTCP -sTCP:LISTEN",
            ),
        ],
    };
    let peer = somo.map(|somo| {
        let mut args = words(&["--no-config", "--no-pager", "-t", "-l"]);
        if question == Question::OnePort {
            args.extend(words(&["-p", &port.to_string()]));
            (Tool::Somo, somo, args, "somo -t -l -p P")
        } else {
            (Tool::Somo, somo, args, "somo -t -l")
        }
    });
    all.into_iter()
        .chain(peer)
        .map(|(tool, program, args, label)| Case { tool, program: program.into(), args, label })
        .collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// A fast wrong answer is worth nothing: ours must name the process that holds
/// the port, and the list must have every listener, each with its process.
fn check_ours(question: Question, binary: &Path, node: &Node) -> Result<()> {
    let port = node.asked_port();
    let asked = match question {
        Question::OnePort => port.to_string(),
        Question::List => "list".to_owned(),
    };
    let mut command = std::process::Command::new(binary);
    let json = sh::capture(command.args(["--json", &asked])).context("checking our answer")?;
    let json: serde_json::Value = serde_json::from_str(&json).context("parsing our answer")?;
    match question {
        Question::OnePort => {
            let (expected, found) = (node.holder(port), answers::holders(&json));
            ensure!(
                expected.is_some_and(|pid| found.contains(&pid)),
                "port {port} is held by {expected:?}, but whereis-port names {found:?}"
            );
        }
        Question::List => {
            let found = answers::listed(&json);
            if let Some(missing) = node.listeners().find(|listener| !found.contains(listener)) {
                bail!("whereis-port list lacks (port, pid) {missing:?} of its {}", found.len());
            }
        }
    }
    Ok(())
}

/// A peer that finds nothing, for lack of rights or for an unknown option, would
/// look fast. Gives `false` for one that takes too long to be timed.
fn check_peer(case: &Case, question: Question, node: &Node) -> Result<bool> {
    let Some(output) = case.output_within(LIMIT)? else {
        return Ok(false);
    };
    let ports = match question {
        Question::OnePort => vec![node.asked_port()],
        Question::List => node.ports().collect(),
    };
    let shown: BTreeSet<&str> = output.split(|c: char| !c.is_ascii_digit()).collect();
    let missing = ports.iter().find(|port| !shown.contains(port.to_string().as_str()));
    ensure!(missing.is_none(), "{} does not show port {missing:?}", case.label);
    Ok(true)
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OnePort => "one port",
            Self::List => "full list",
        })
    }
}
