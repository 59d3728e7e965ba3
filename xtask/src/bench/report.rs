//! What was measured, as tables and as JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::events::Events;
use super::measure::{Case, Samples, Tool};
use super::node::Size;
use super::rules::{About, Kind, OfRules};
use super::{LIMIT, Question};
use crate::sh;

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

/// A bound that whereis-port should keep.
#[derive(Debug, Clone, PartialEq)]
struct Target {
    what: &'static str,
    wanted: &'static str,
    got: String,
    met: bool,
}

/// What is wanted on a node with many rules.
fn targets_of_rules(rules: &[OfRules]) -> Vec<Target> {
    let ms = |kind, about| {
        let found = rules.iter().find(|row| (row.kind, row.about) == (kind, about));
        found.map_or(f64::NAN, |row| median(millis(&row.samples.wall)))
    };
    let at_most = |what, wanted, ms: f64, bound| Target {
        what,
        wanted,
        got: format!("{ms:.1} ms"),
        met: ms <= bound,
    };
    let list = Kind::ALL.map(|kind| ms(kind, About::List));
    // A median that is missing must not be met.
    let list = list.into_iter().reduce(|a, b| if a > b || a.is_nan() { a } else { b });
    let ours = rules.iter().filter(|row| row.about != About::Rules);
    let peak = ours.map(|row| row.samples.peak as f64 / 1e6).fold(0.0, f64::max);
    vec![
        at_most(
            "one NodePort of 5,000, iptables-nft",
            "at most 50 ms",
            ms(Kind::IptablesNft, About::OnePort),
            50.0,
        ),
        at_most("one NodePort of 5,000, nft", "at most 50 ms", ms(Kind::Nft, About::OnePort), 50.0),
        at_most(
            "one NodePort of 5,000, iptables-legacy",
            "at most 120 ms",
            ms(Kind::IptablesLegacy, About::OnePort),
            120.0,
        ),
        at_most(
            "full list with 5,000 services, slowest of the three",
            "under 1,000 ms",
            list.unwrap_or(f64::NAN),
            1_000.0,
        ),
        Target {
            what: "memory with 5,000 services, highest of all runs",
            wanted: "under 150 MB",
            got: format!("{peak:.1} MB"),
            met: peak > 0.0 && peak < 150.0,
        },
    ]
}

/// The table of nodes with many rules.
pub(crate) fn of_rules(rules: &[OfRules]) -> String {
    let mut text = String::from(
        "5,000 services of 4 endpoints with a NodePort each, as kube-proxy writes them:\n\n\
         | rules by | question | command | time | peak memory |\n|---|---|---|--:|--:|\n",
    );
    for OfRules { kind, about, label, samples } in rules {
        let (ms, peak) = (median(millis(&samples.wall)), samples.peak as f64 / 1e6);
        // Writing to a string can't fail.
        let _infallible =
            writeln!(text, "| {kind} | {about} | `{label}` | {ms:.1} ms | {peak:.1} MB |");
    }
    text
}

fn targets(all: &[Measured], events: &Events) -> Vec<Target> {
    use Question::{List, OnePort};
    use Size::{Big, Small};

    let ms = |size, question, tool| {
        let mut cases = all.iter();
        cases
            .find(|m| (m.size, m.question, m.tool) == (size, question, tool))
            .map_or(f64::NAN, Measured::ms)
    };
    // How many times our time another tool takes.
    let faster = |size, question, tool| ms(size, question, tool) / ms(size, question, Tool::Ours);
    let at_least = |what, wanted, times: f64, bound| Target {
        what,
        wanted,
        got: format!("{times:.2} times as fast"),
        met: times >= bound,
    };
    let pinned = |size, question, tool| ms(size, question, tool) / ms(size, question, Tool::Pinned);
    let small = ms(Small, OnePort, Tool::Pinned) / ms(Small, OnePort, Tool::SsPort);
    let delay = quantile(&millis(&events.delays), 0.5);
    let slower = ms(Small, OnePort, Tool::Ours) / ms(Small, OnePort, Tool::SsPort);
    let ours = all.iter().filter(|m| matches!(m.tool, Tool::Ours | Tool::Pinned));
    let peak = ours.map(Measured::peak_mb).fold(0.0, f64::max);
    vec![
        Target {
            what: "one port, small node, against `ss -tlnp sport = :P`",
            wanted: "at most 1.5 times its time",
            got: format!("{slower:.2} times its time"),
            met: slower <= 1.5,
        },
        at_least(
            "one port, big node, against `ss -tlnp sport = :P`",
            "at least 1.2 times as fast",
            faster(Big, OnePort, Tool::SsPort),
            1.2,
        ),
        at_least(
            "one port, big node, against `lsof`",
            "at least twice as fast",
            faster(Big, OnePort, Tool::Lsof),
            2.0,
        ),
        at_least(
            "full list, big node, against `ss -tlnp`",
            "not slower",
            faster(Big, List, Tool::Ss),
            1.0,
        ),
        at_least(
            "full list, small node, against `ss -tlnp`",
            "not slower",
            faster(Small, List, Tool::Ss),
            1.0,
        ),
        Target {
            what: "memory, highest of all runs",
            wanted: "under 30 MB",
            got: format!("{peak:.1} MB"),
            met: peak < 30.0,
        },
        at_least(
            "full list, big node, pinned, against `ss -tlnp`",
            "at least 10 times as fast",
            pinned(Big, List, Tool::Ss),
            10.0,
        ),
        at_least(
            "one port, big node, pinned, against `ss -tlnp sport = :P`",
            "at least 10 times as fast",
            pinned(Big, OnePort, Tool::SsPort),
            10.0,
        ),
        Target {
            what: "one port, small node, pinned, against `ss -tlnp sport = :P`",
            wanted: "at most 0.8 times its time",
            got: format!("{small:.2} times its time"),
            met: small <= 0.8,
        },
        Target {
            what: "events of a burst",
            wanted: "all seen, or counted as lost",
            got: format!("{} made, {} seen, {} lost", events.made, events.seen, events.lost),
            met: events.made > 0
                && (events.seen == events.made || events.seen + events.lost == events.made),
        },
        Target {
            what: "from `listen()` to the printed line, median",
            wanted: "under 50 ms",
            got: format!("{delay:.1} ms"),
            met: delay < 50.0,
        },
    ]
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

/// The tables for people.
pub(crate) fn markdown(
    machine: &Machine,
    all: &[Measured],
    events: &Events,
    rules: &[OfRules],
) -> String {
    let mut text = String::new();
    let Machine { date, kernel, cpu, cpus, rounds } = machine;
    // Writing to a string can't fail.
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(text, "{line}");
    };
    line(format_args!(
        "Measured on {date}, Linux {kernel}, {cpus} × {cpu}; medians of {rounds} rounds, \
         the commands taking turns."
    ));
    line(format_args!(
        "Big node: 8,000 listeners and 8,000 other descriptors in 8 processes, 300 more processes. \
         Small node: 3 listeners."
    ));
    line(format_args!(""));
    line(format_args!("| node | question | command | time | compared | peak memory |"));
    line(format_args!("|---|---|---|--:|--:|--:|"));
    for measured in all {
        let Measured { size, question, label, .. } = measured;
        if measured.samples.wall.is_empty() {
            let limit = LIMIT.as_secs();
            line(format_args!("| {size} | {question} | `{label}` | over {limit} s | | |"));
            continue;
        }
        let ours = all.iter().find(|other| {
            (other.size, other.question, other.tool)
                == (measured.size, measured.question, Tool::Ours)
        });
        line(format_args!(
            "| {size} | {question} | `{label}` | {:.1} ms | {:.2} | {:.1} MB |",
            measured.ms(),
            measured.ms() / ours.map_or(f64::NAN, Measured::ms),
            measured.peak_mb(),
        ));
    }
    line(format_args!(""));
    line(format_args!(
        "`compared` is the command's time divided by whereis-port's: above 1, whereis-port is faster."
    ));
    line(format_args!(""));
    line(format_args!("| events, by `whereis-port trace --events listen,close --json` | |"));
    line(format_args!("|---|---|"));
    for (what, measured) in event_rows(events) {
        line(format_args!("| {what} | {measured} |"));
    }
    line(format_args!(""));
    line(format_args!("{}", of_rules(rules)));
    line(format_args!("| target | wanted | measured | |"));
    line(format_args!("|---|---|---|---|"));
    for Target { what, wanted, got, met } in
        targets(all, events).into_iter().chain(targets_of_rules(rules))
    {
        let verdict = if met { "met" } else { "**missed**" };
        line(format_args!("| {what} | {wanted} | {got} | {verdict} |"));
    }
    text.trim_end().to_owned()
}

/// All samples, for programs.
pub(crate) fn json(
    machine: &Machine,
    all: &[Measured],
    events: &Events,
    rules: &[OfRules],
) -> Value {
    let cases: Vec<_> = all
        .iter()
        .map(|m| {
            json!({
                "node": m.size.to_string(),
                "question": m.question.to_string(),
                "command": m.label,
                "median_ms": m.ms(),
                "wall_ms": m.wall_ms(),
                "peak_bytes": m.samples.peak,
            })
        })
        .collect();
    let of_rules: Vec<_> = rules
        .iter()
        .map(|row| {
            json!({
                "rules": row.kind.to_string(),
                "question": row.about.to_string(),
                "command": row.label,
                "wall_ms": millis(&row.samples.wall),
                "peak_bytes": row.samples.peak,
            })
        })
        .collect();
    let targets: Vec<_> = targets(all, events)
        .into_iter()
        .chain(targets_of_rules(rules))
        .map(|t| json!({ "target": t.what, "wanted": t.wanted, "measured": t.got, "met": t.met }))
        .collect();
    json!({
        "date": machine.date,
        "kernel": machine.kernel,
        "cpu": machine.cpu,
        "cpus": machine.cpus,
        "rounds": machine.rounds,
        "cases": cases,
        "rules": of_rules,
        "events": {
            "made": events.made,
            "seen": events.seen,
            "lost": events.lost,
            "burst_ms": events.burst.as_secs_f64() * 1e3,
            "cpu_ms": events.cpu.as_secs_f64() * 1e3,
            "delay_ms": millis(&events.delays),
            "pair_ns_without": events.without,
            "pair_ns_with": events.with,
        },
        "targets": targets,
    })
}

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// `document` with `block` between its two marks.
pub(crate) fn insert(document: &str, block: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).with_context(|| format!("no {BEGIN}"))?;
    let (_old, after) = rest.split_once(END).with_context(|| format!("no {END} after {BEGIN}"))?;
    Ok(format!("{before}{BEGIN}\n{block}\n{END}{after}"))
}

/// The processes that our answer to one question names.
pub(crate) fn holders(answer: &Value) -> BTreeSet<u32> {
    let paths = items(&answer["answers"]).flat_map(|answer| items(&answer["paths"]));
    paths.flat_map(|path| pids(&path["end"])).collect()
}

/// The port and process of everything in our list.
pub(crate) fn listed(list: &Value) -> BTreeSet<(u16, u32)> {
    items(&list["listeners"])
        .filter_map(|listener| Some((u16::try_from(listener["port"].as_u64()?).ok()?, listener)))
        .flat_map(|(port, listener)| pids(listener).map(move |pid| (port, pid)))
        .collect()
}

fn pids(end: &Value) -> impl Iterator<Item = u32> {
    items(&end["processes"]).filter_map(|process| process["pid"].as_u64()?.try_into().ok())
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(size: Size, question: Question, tool: Tool, ms: u64, mb: u64) -> Measured {
        let samples = Samples { wall: vec![Duration::from_millis(ms); 3], peak: mb * 1_000_000 };
        Measured { size, question, tool, label: "a command", samples }
    }

    fn events() -> Events {
        Events {
            made: 40_000,
            seen: 39_990,
            lost: 10,
            burst: Duration::from_secs(1),
            cpu: Duration::from_millis(400),
            delays: (1..=98).map(Duration::from_millis).collect(),
            without: vec![1_000.0; 3],
            with: vec![1_500.0; 3],
        }
    }

    #[test]
    fn what_is_lost_must_be_counted() {
        let met = |events: &Events| {
            let all = targets(&[], events);
            (all[9].met, all[10].met)
        };
        assert_eq!(met(&events()), (true, true));
        assert_eq!(met(&Events { lost: 9, ..events() }), (false, true));
        assert_eq!(met(&Events { lost: 3, seen: 40_000, ..events() }), (true, true));
        let slow = vec![Duration::from_millis(50)];
        assert_eq!(met(&Events { delays: slow, ..events() }), (true, false));
        assert_eq!(met(&Events::default()), (false, false));
    }

    fn run(ours: u64, peak: u64) -> Vec<Measured> {
        let mut all = Vec::new();
        for size in [Size::Big, Size::Small] {
            for question in [Question::OnePort, Question::List] {
                all.push(measured(size, question, Tool::Ours, ours, peak));
                all.push(measured(size, question, Tool::Pinned, 1, 1));
                all.push(measured(size, question, Tool::SsPort, 12, 1));
                all.push(measured(size, question, Tool::Ss, 12, 1));
                all.push(measured(size, question, Tool::Lsof, 20, 1));
            }
        }
        all
    }

    fn met(all: &[Measured]) -> Vec<bool> {
        targets(all, &events()).into_iter().map(|target| target.met).collect()
    }

    /// The first six, and the others met.
    fn pinned_met(first: [bool; 6]) -> Vec<bool> {
        [&first[..], &[true; 5]].concat()
    }

    #[test]
    fn targets_are_met_at_their_bounds_and_missed_beyond() {
        assert_eq!(met(&run(10, 29)), [true; 11]);
        assert_eq!(met(&run(11, 29)), pinned_met([true, false, false, true, true, true]));
        assert_eq!(met(&run(18, 30)), pinned_met([true, false, false, false, false, false]));
        assert_eq!(met(&run(19, 1)), pinned_met([false, false, false, false, false, true]));
    }

    fn ruled(ms: u64) -> Vec<OfRules> {
        let samples = Samples { wall: vec![Duration::from_millis(ms)], peak: 149_000_000 };
        let abouts = [About::OnePort, About::List, About::Rules];
        let row =
            |kind, about| OfRules { kind, about, label: "a command", samples: samples.clone() };
        Kind::ALL.iter().flat_map(|kind| abouts.map(|about| row(*kind, about))).collect()
    }

    #[test]
    fn targets_with_many_rules() {
        let met = |rules: &[OfRules]| {
            targets_of_rules(rules).into_iter().map(|target| target.met).collect::<Vec<_>>()
        };
        assert_eq!(met(&ruled(50)), [true; 5]);
        assert_eq!(met(&ruled(51)), [false, false, true, true, true]);
        assert_eq!(met(&ruled(1_001)), [false, false, false, false, true]);
        assert_eq!(met(&[]), [false; 5]);
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        let mut all = run(1, 1);
        all.retain(|m| m.tool != Tool::Lsof);
        assert!(!met(&all)[2]);
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 100.0]), 3.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 100.0]), 3.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn the_table_has_every_command_and_every_target() {
        let machine = Machine {
            date: "2020-01-02".into(),
            kernel: "6.1.0".into(),
            cpu: "Some CPU".into(),
            cpus: 2,
            rounds: 3,
        };
        let text = markdown(&machine, &run(10, 29), &events(), &ruled(50));
        assert_eq!(text.matches("`a command`").count(), 29);
        assert!(
            text.contains("| big | one port | `a command` | 20.0 ms | 2.00 | 1.0 MB |"),
            "{text}"
        );
        assert_eq!(text.matches("| met |").count(), 16, "{text}");
        assert!(
            text.contains("| nft | one NodePort | `a command` | 50.0 ms | 149.0 MB |"),
            "{text}"
        );
        assert!(text.contains("1000 ns and 1500 ns (+500 ns, +50.0 %)"), "{text}");
        assert!(text.contains("each event | 10.0 µs |"), "{text}");
        assert!(text.contains("2020-01-02, Linux 6.1.0, 2 × Some CPU; medians of 3"), "{text}");
    }

    #[test]
    fn a_command_that_was_too_slow_is_shown_as_such() {
        let machine = Machine {
            date: String::new(),
            kernel: String::new(),
            cpu: String::new(),
            cpus: 1,
            rounds: 1,
        };
        let mut all = run(10, 29);
        all[4].samples.wall.clear();
        let text = markdown(&machine, &all, &events(), &ruled(50));
        assert!(text.contains("| big | one port | `a command` | over 10 s | | |"), "{text}");
        assert_eq!(
            json(&machine, &all, &events(), &ruled(50))["cases"][4]["median_ms"],
            Value::Null
        );
    }

    #[test]
    fn the_block_is_replaced_and_nothing_else() {
        let old = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = insert(&old, "new").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(insert(&new, "new").unwrap(), new);
        assert!(insert("no marks", "new").is_err());
        assert!(insert(&format!("{END} {BEGIN}"), "new").is_err());
    }

    #[test]
    fn our_answers_are_read() {
        let answer = json!({ "answers": [{ "paths": [
            { "end": { "processes": [{ "pid": 7 }, { "pid": 8 }] } },
            { "end": { "processes": [] } },
        ] }] });
        assert_eq!(holders(&answer), BTreeSet::from([7, 8]));
        let list = json!({ "listeners": [
            { "port": 80, "processes": [{ "pid": 7 }] },
            { "port": 81, "processes": [] },
        ] });
        assert_eq!(listed(&list), BTreeSet::from([(80, 7)]));
        assert!(listed(&json!({})).is_empty());
    }

    #[test]
    fn a_processor_without_a_name_is_none() {
        let x86 = "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\n";
        assert_eq!(cpu_model(x86), Some("Some CPU @ 2GHz"));
        assert_eq!(cpu_model("processor\t: 0\nBogoMIPS\t: 50.00\n"), None);
    }
}
