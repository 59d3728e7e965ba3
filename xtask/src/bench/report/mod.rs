//! What was measured, as tables and as JSON.

mod samples;
mod targets;

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::events::Events;
use super::measure::{Case, Samples, Tool};
use super::node::Size;
use super::rules::OfRules;
use super::{LIMIT, Question};
use crate::sh;

use targets::Target;

/// All samples of one command; none when it was too slow to be timed.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) size: Size,
    pub(crate) question: Question,
    pub(crate) tool: Tool,
    pub(crate) label: &'static str,
    pub(crate) samples: Samples,
}

/// Where and when it was measured.
#[derive(Debug)]
pub(crate) struct Machine {
    date: String,
    kernel: String,
    cpu: String,
    cpus: usize,
    rounds: u32,
}

impl Machine {
    /// This machine, now.
    pub(crate) fn read(rounds: u32) -> Result<Self> {
        let read = |file| std::fs::read_to_string(file).with_context(|| format!("reading {file}"));
        let kernel = read("/proc/sys/kernel/osrelease")?;
        let cpuinfo = read("/proc/cpuinfo")?;
        Ok(Self {
            date: sh::capture(Command::new("date").args(["-u", "+%F"]))?.trim().to_owned(),
            kernel: kernel.trim().to_owned(),
            cpu: cpu_model(&cpuinfo).unwrap_or("unknown processor").to_owned(),
            cpus: std::thread::available_parallelism().context("counting processors")?.get(),
            rounds,
        })
    }
}

/// The processor's name; not every architecture gives one.
fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_key, name)| name.trim())
}

impl Measured {
    /// The samples of `case`; none when it was too slow to be timed.
    pub(crate) fn new(size: Size, question: Question, case: &Case, samples: Samples) -> Self {
        Self { size, question, tool: case.tool, label: case.label, samples }
    }

    fn wall_ms(&self) -> Vec<f64> {
        self.samples.wall.iter().map(|wall| wall.as_secs_f64() * 1_000.0).collect()
    }

    /// The median time, in milliseconds.
    fn ms(&self) -> f64 {
        median(self.wall_ms())
    }

    /// The highest peak of memory, in MB.
    fn peak_mb(&self) -> f64 {
        self.samples.peak as f64 / 1e6
    }
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len(), values.len() % 2) {
        (0, _) => f64::NAN,
        (_, 0) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// The value that this part of the values does not exceed.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

pub(super) fn millis(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| time.as_secs_f64() * 1e3).collect()
}

/// What was measured of `trace`, line by line.
fn event_rows(events: &Events) -> Vec<(&'static str, String)> {
    let Events { made, seen, lost, burst, cpu, .. } = events;
    let per_event = cpu.as_secs_f64() * 1e6 / *seen as f64;
    let delays = millis(&events.delays);
    let (without, with) = (median(events.without.clone()), median(events.with.clone()));
    vec![
        (
            "burst of listens and closes by 4 processes",
            format!("{made} made in {:.2} s: {seen} seen, {lost} lost", burst.as_secs_f64()),
        ),
        ("processor time of `trace` for each event", format!("{per_event:.1} µs")),
        (
            "from `listen()` to the printed line",
            format!(
                "median {:.1} ms, p99 {:.1} ms",
                quantile(&delays, 0.5),
                quantile(&delays, 0.99)
            ),
        ),
        (
            "one listen and close, without and with `trace`",
            format!(
                "{without:.0} ns and {with:.0} ns ({:+.0} ns, {:+.1} %)",
                with - without,
                (with / without - 1.0) * 100.0
            ),
        ),
    ]
}

/// What one section says: for people, and for programs.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) markdown: String,
    pub(crate) json: Value,
}

impl Part {
    /// A part of which there is nothing but its table.
    pub(crate) fn table(markdown: String) -> Self {
        Self { json: json!({ "table": markdown }), markdown }
    }
}

/// What stands above all tables.
pub(crate) fn heading(machine: &Machine) -> String {
    let Machine { date, kernel, cpu, cpus, rounds } = machine;
    format!(
        "Measured on {date}, Linux {kernel}, {cpus} × {cpu}; medians of {rounds} rounds, \
         the commands taking turns."
    )
}

/// The same for programs.
pub(crate) fn machine(machine: &Machine) -> Value {
    json!({
        "date": machine.date,
        "kernel": machine.kernel,
        "cpu": machine.cpu,
        "cpus": machine.cpus,
        "rounds": machine.rounds,
    })
}

/// The node of one size: `about` it, its commands, and what is wanted of them.
pub(crate) fn of_node(size: Size, about: &str, all: &[Measured]) -> Part {
    let mut text = format!(
        "{about}\n\n\
         | node | question | command | time | compared | peak memory |\n\
         |---|---|---|--:|--:|--:|\n"
    );
    // Writing to a string can't fail.
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(text, "{line}");
    };
    for measured in all {
        let Measured { question, label, .. } = measured;
        if measured.samples.wall.is_empty() {
            let limit = LIMIT.as_secs();
            line(format_args!("| {size} | {question} | `{label}` | over {limit} s | | |"));
            continue;
        }
        let ours = all.iter().find(|m| (m.question, m.tool) == (measured.question, Tool::Ours));
        line(format_args!(
            "| {size} | {question} | `{label}` | {:.1} ms | {:.2} | {:.1} MB |",
            measured.ms(),
            measured.ms() / ours.map_or(f64::NAN, Measured::ms),
            measured.peak_mb(),
        ));
    }
    line(format_args!(
        "\n`compared` is the command's time divided by that of whereis-port without a pin: above 1, \
         whereis-port is faster."
    ));
    let targets = targets::of_node(all, size);
    text.push_str(&table_of(&targets));
    let json = json!({ "cases": samples::cases(all), "targets": samples::targets(&targets) });
    Part { markdown: text, json }
}

/// What was measured of `trace`.
pub(crate) fn of_events(events: &Events) -> Part {
    let mut text = String::from(
        "| events, by `whereis-port trace --events listen,close --json` | |\n|---|---|\n",
    );
    for (what, measured) in event_rows(events) {
        let _infallible = writeln!(text, "| {what} | {measured} |");
    }
    let targets = targets::of_events(events);
    text.push_str(&table_of(&targets));
    let json = json!({ "events": samples::events(events), "targets": samples::targets(&targets) });
    Part { markdown: text, json }
}

/// The nodes with many rules.
pub(crate) fn of_rules(rules: &[OfRules]) -> Part {
    let mut text = String::from(
        "5,000 services of 4 endpoints with a NodePort each, as kube-proxy writes them:\n\n\
         | rules by | question | command | time | peak memory |\n|---|---|---|--:|--:|\n",
    );
    for OfRules { kind, about, label, samples } in rules {
        let (ms, peak) = (median(millis(&samples.wall)), samples.peak as f64 / 1e6);
        let _infallible =
            writeln!(text, "| {kind} | {about} | `{label}` | {ms:.1} ms | {peak:.1} MB |");
    }
    let targets = targets::of_rules(rules);
    text.push_str(&table_of(&targets));
    let json = json!({ "rules": samples::rules(rules), "targets": samples::targets(&targets) });
    Part { markdown: text, json }
}

/// The table of what was wanted, with an empty line before it.
fn table_of(targets: &[Target]) -> String {
    let mut text = String::from("\n| target | wanted | measured | |\n|---|---|---|---|\n");
    for Target { what, wanted, got, met } in targets {
        let verdict = if *met { "met" } else { "**missed**" };
        let _infallible = writeln!(text, "| {what} | {wanted} | {got} | {verdict} |");
    }
    text
}

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// `document` with `block` between its two marks.
pub(crate) fn insert(document: &str, block: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).with_context(|| format!("no {BEGIN}"))?;
    let (_old, after) = rest.split_once(END).with_context(|| format!("no {END} after {BEGIN}"))?;
    Ok(format!("{before}{BEGIN}\n{block}\n{END}{after}"))
}

#[cfg(test)]
mod tests;
