//! `cluster`: asks every node, shows progress, and what all say together.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, kube_options, queries, style};
use crate::cli::{self, FleetArgs, FleetCommand, Global};
use crate::exit::Exit;
use crate::fleet::{self, AskProgress, FleetLimits, Report};
use crate::node;
use crate::view;

/// Waits until it is told to end. Listens on nothing: who may exec here runs the tool.
pub(super) fn agent() -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::Tool(format!("waiting for a signal: {error}"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let mut told = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
        tokio::select! {
            _ = told.recv() => Ok(Exit::Found),
            _ = interrupted.recv() => Ok(Exit::Found),
        }
    })
}

/// Says what may come next behind `kubectl whereis_port`.
pub(super) fn complete() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    // Nobody reads what is wrong with a completion.
    let _ = io::stdout().write_all(cli::complete(&args).as_bytes());
    Exit::Found.into()
}

pub(super) fn run(
    global: &Global,
    args: &FleetArgs,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    if let Some(FleetCommand::Manifest { image, namespace }) = &args.command {
        let text = fleet::manifest(namespace, image).map_err(Failure::Usage)?;
        out.write_all(text.as_bytes())?;
        return Ok(Exit::Found);
    }
    if global.replay.is_some() || global.record.is_some() {
        return Err(Failure::Usage(
            "a recording is of one node: leave --record and --replay out, or use them on the node"
                .to_owned(),
        ));
    }
    fleet::check_namespace(&args.namespace).map_err(Failure::Usage)?;
    let queries = queries(global, &args.targets)?;
    if let Some(query) = queries.iter().find(|query| query.zone.is_some()) {
        return Err(Failure::Usage(format!(
            "{:?} names an interface, which is of one node: leave it out",
            query.text
        )));
    }
    let targets: Vec<String> = queries.iter().map(fleet::target).collect();
    if global.no_kube {
        return Err(Failure::Usage(
            "a cluster is asked through its API: leave --no-kube out".to_owned(),
        ));
    }
    let options = kube_options(global);
    node::check_kube(&options).map_err(Failure::Usage)?;
    let usual = FleetLimits::default();
    let limits = FleetLimits { each: global.timeout.unwrap_or(usual.each), ..usual };
    let mut progress = Progress::new();
    let asked = fleet::ask(&options, &args.namespace, &targets, limits, |seen| match seen {
        AskProgress::Nodes(nodes) => progress.begin(nodes),
        AskProgress::Report(report) => {
            progress.report(report);
            if global.json {
                view::json::write_line(&view::json::node_line(report), out)?;
                // Whoever reads them wants them as they come.
                out.flush()?;
            }
            Ok::<(), Failure>(())
        }
    });
    progress.end();
    let fleet = asked?;
    let merged = fleet::merge(&fleet, &queries);
    if global.json {
        view::json::write_line(&view::json::cluster_line(&fleet, &merged), out)?;
    } else {
        let text = view::fleet::text(&fleet, &merged, &style(global), global.verbose > 0);
        out.write_all(text.as_bytes())?;
    }
    Ok(Exit::of(merged.iter().map(|answer| answer.verdict)))
}

/// What is shown on standard error, when that is a terminal, while one waits.
struct Progress {
    shown: bool,
    nodes: usize,
    done: usize,
    failed: usize,
    seen: BTreeSet<String>,
}

impl Progress {
    fn new() -> Self {
        let shown = io::stderr().is_terminal();
        Self { shown, nodes: 0, done: 0, failed: 0, seen: BTreeSet::new() }
    }

    fn begin(&mut self, nodes: usize) -> Result<(), Failure> {
        self.nodes = nodes;
        self.line();
        Ok(())
    }

    fn report(&mut self, report: &Report) {
        self.done += 1;
        if !self.shown {
            return;
        }
        match &report.outcome {
            Ok(answer) => {
                for way in answer.said.iter().flat_map(|said| &said.ways) {
                    let news = view::fleet::headline(way);
                    if self.seen.len() < 200 && self.seen.insert(news.clone()) {
                        self.say(&format!("{}: {news}", view::clean(&report.node)));
                    }
                }
            }
            Err(_) => self.failed += 1,
        }
        self.line();
    }

    /// One line above the progress. What is said there is no result: it may get lost.
    fn say(&self, text: &str) {
        let _ = writeln!(io::stderr(), "\r\u{1b}[K{text}");
    }

    fn line(&self) {
        if self.shown {
            let failed = match self.failed {
                0 => String::new(),
                failed => format!(", {failed} without an answer"),
            };
            let text = format!("\r\u{1b}[K{} of {} nodes{failed}", self.done, self.nodes);
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }

    fn end(&self) {
        if self.shown {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
