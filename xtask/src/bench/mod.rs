//! `cargo xtask bench`: whereis-port beside `ss`, `lsof` and `somo`, in one run.
//!
//! All commands run in the same private network namespace, on a big node and on
//! a small one. In each round every command runs once, each round starting with
//! another one, so that whatever else the machine does falls on all alike. What
//! is compared are medians. A missed target is reported, and is no failure: a
//! time depends on the machine.

mod events;
mod fleet;
mod kube;
mod measure;
mod node;
mod report;
mod rules;
mod screen;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{Refused, sh};
use measure::{Case, Samples, Tool};
use node::{Node, Size};
use report::{Machine, Measured};

pub(crate) use events::{BurstArgs, help_burst};
pub(crate) use measure::{PeakArgs, print_peak};
pub(crate) use node::{HelperArgs, help};

/// How to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many times each command is timed.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Write all samples to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Put the tables into README.md.
    #[arg(long)]
    readme: bool,
    /// Measure only the nodes with many rules, and print what they took.
    #[arg(long, conflicts_with_all = ["json", "readme"])]
    rules_only: bool,
    /// Measure only the node whose Kubernetes API is asked, and print what it took.
    #[arg(long, conflicts_with_all = ["json", "readme", "rules_only"])]
    kube: bool,
    /// Measure only a cluster of 200 simulated nodes, and print what asking it took.
    #[arg(long, conflicts_with_all = ["json", "readme", "rules_only"])]
    fleet: bool,
    /// Measure only the screen, and print what it took.
    #[arg(long, conflicts_with_all = ["json", "readme", "rules_only", "kube"])]
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

/// Measures and reports.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.fleet {
        let binary = args.binary.clone().map_or_else(build, Ok)?;
        println!("{}", fleet::measure(&binary, args.rounds.min(fleet::ROUNDS))?);
        return Ok(());
    }
    if !sh::is_root() {
        let reason = "bench needs root: it measures in a network namespace of its own";
        return Err(Refused(reason.to_owned()).into());
    }
    for peer in ["ip", "ss", "lsof", "nft", "iptables-nft-save", "iptables-legacy-save"] {
        if sh::find(peer).is_none() {
            return Err(Refused(format!("{peer} is missing: run cargo xtask setup")).into());
        }
    }
    let binary = match &args.binary {
        Some(file) => file.canonicalize().with_context(|| format!("reading {}", file.display()))?,
        None => build()?,
    };
    if args.rules_only {
        let rules = rules::measure(&binary, args.rounds)?;
        println!("{}", report::of_rules(&rules));
        return Ok(());
    }
    if args.kube {
        println!("{}", kube::table(&kube::measure(&binary, args.rounds)?));
        return Ok(());
    }
    if args.screen {
        println!("{}", screen::table(&screen::measure(&binary)?));
        return Ok(());
    }
    let somo = sh::find("somo");
    if somo.is_none() {
        sh::shout("somo is not installed and is left out (cargo install --locked somo)");
    }

    let mut all = Vec::new();
    for size in [Size::Big, Size::Small] {
        eprintln!("bench: making the {size} node");
        all.extend(node::in_private_namespaces(|| {
            on_node(size, &binary, somo.as_deref(), args.rounds)
        })?);
    }

    eprintln!("bench: events");
    let events = node::in_private_namespaces(|| events::measure(&binary))?;

    let rules = rules::measure(&binary, args.rounds)?;
    let kube = kube::measure(&binary, args.rounds)?;
    let screen = screen::measure(&binary)?;

    let machine = Machine::read(args.rounds)?;
    let markdown = report::markdown(&machine, &all, &events, &rules);
    let (kube, screen) = (kube::table(&kube), screen::table(&screen));
    let markdown = format!("{markdown}\n\n{}\n\n{}", kube.trim_end(), screen.trim_end());
    println!("{markdown}");
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&report::json(&machine, &all, &events, &rules))?;
        fs::write(file, json + "\n").with_context(|| format!("writing {}", file.display()))?;
    }
    if args.readme {
        let file = sh::workspace().join("README.md");
        let old = fs::read_to_string(&file).context("reading README.md")?;
        let new = report::insert(&old, &markdown).context("in README.md")?;
        fs::write(&file, new).context("writing README.md")?;
    }
    Ok(())
}

fn build() -> Result<PathBuf> {
    sh::run(&mut sh::cargo(&["build", "--release", "--locked", "--package", "whereis-port"]))?;
    Ok(sh::target_dir()?.join("release/whereis-port"))
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
            let (expected, found) = (node.holder(port), report::holders(&json));
            ensure!(
                expected.is_some_and(|pid| found.contains(&pid)),
                "port {port} is held by {expected:?}, but whereis-port names {found:?}"
            );
        }
        Question::List => {
            let found = report::listed(&json);
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
        Question::List => node.listeners().map(|(port, _pid)| port).collect(),
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
