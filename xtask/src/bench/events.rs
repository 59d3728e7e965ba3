//! What `whereis-port trace` keeps up with, how late it is, and what its programs
//! cost those who listen and close.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Processes of the burst.
const PROCESSES: u16 = 4;
/// Listens, each with a close, of one process of the burst.
const PAIRS: u32 = 5_000;
/// Listens whose delay is measured.
const PACED: u32 = 300;
/// Pairs of one round of the measurement of what the programs cost.
const COST_PAIRS: u32 = 10_000;
/// Rounds of that, with and without a trace in turn.
const COST_ROUNDS: usize = 7;

const FIRST_PORT: u16 = 40_000;

/// What was measured of events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events {
    /// Listens and closes of the burst.
    pub(crate) made: u64,
    /// How long the processes took for them.
    pub(crate) burst: Duration,
    /// How many of them were printed.
    pub(crate) seen: u64,
    /// How many the tool said that it had lost.
    pub(crate) lost: u64,
    /// Processor time of the tool for the burst.
    pub(crate) cpu: Duration,
    /// Delays from before listen() to the line, ascending.
    pub(crate) delays: Vec<Duration>,
    /// Times of a pair of listen and close without a trace, ascending.
    pub(crate) alone: Vec<Duration>,
    /// The same while a trace runs.
    pub(crate) traced: Vec<Duration>,
}

/// What one process of the burst does.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct ChurnArgs {
    /// Its port.
    #[arg(long)]
    port: u16,
    /// How often it listens and closes.
    #[arg(long)]
    pairs: u32,
    /// Waits so many microseconds after each, and prints the time before each.
    #[arg(long)]
    pause: Option<u64>,
}

/// The helper: listens and closes, and prints how long all took, in nanoseconds.
pub(crate) fn churn(args: &ChurnArgs) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let begun = Instant::now();
    for _ in 0..args.pairs {
        let before = now();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))?;
        drop(listener);
        if let Some(pause) = args.pause {
            writeln!(stdout, "{}", before.as_nanos())?;
            std::thread::sleep(Duration::from_micros(pause));
        }
    }
    if args.pause.is_none() {
        writeln!(stdout, "{}", begun.elapsed().as_nanos())?;
    }
    Ok(())
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Measures everything, in the network namespace of this thread.
pub(crate) fn measure(binary: &Path) -> Result<Events> {
    let mut events = burst(binary)?;
    events.delays = delays(binary)?;
    for round in 0..COST_ROUNDS * 2 {
        if round % 2 == 0 {
            events.alone.push(cost()?);
        } else {
            let trace = Trace::start(binary, "listen,close")?;
            events.traced.push(cost()?);
            trace.end()?;
        }
    }
    events.alone.sort_unstable();
    events.traced.sort_unstable();
    Ok(events)
}

fn burst(binary: &Path) -> Result<Events> {
    let trace = Trace::start(binary, "listen,close")?;
    let before = trace.cpu()?;
    let begun = Instant::now();
    let ports = FIRST_PORT..FIRST_PORT + PROCESSES;
    let processes = ports.map(|port| start_churn(port, PAIRS, None)).collect::<Result<Vec<_>>>()?;
    for process in processes {
        lines_of(process)?;
    }
    let burst = begun.elapsed();
    // What is left in the buffer is read by the end of this.
    std::thread::sleep(Duration::from_millis(500));
    let cpu = trace.cpu()?.saturating_sub(before);
    let lines = trace.end()?;
    let of_type = |name| lines.iter().filter(move |line| line.0["type"] == name);
    let summary = of_type("summary").next().context("trace printed no summary")?;
    Ok(Events {
        made: u64::from(PROCESSES) * u64::from(PAIRS) * 2,
        burst,
        seen: of_type("event").count() as u64,
        lost: summary.0["lost"].as_u64().context("a summary without the lost")?,
        cpu,
        ..Events::default()
    })
}

fn delays(binary: &Path) -> Result<Vec<Duration>> {
    let trace = Trace::start(binary, "listen")?;
    let stamps = lines_of(start_churn(FIRST_PORT, PACED, Some(3_000))?)?;
    std::thread::sleep(Duration::from_millis(300));
    let lines = trace.end()?;
    let listens: Vec<Duration> =
        lines.iter().filter(|line| line.0["type"] == "event").map(|line| line.1).collect();
    ensure!(listens.len() == stamps.len(), "{} of {} listens seen", listens.len(), stamps.len());
    let mut delays: Vec<Duration> = stamps
        .iter()
        .zip(listens)
        .map(|(before, seen)| seen.saturating_sub(Duration::from_nanos(*before)))
        .collect();
    delays.sort_unstable();
    Ok(delays)
}

/// How long one pair takes.
fn cost() -> Result<Duration> {
    let times = lines_of(start_churn(FIRST_PORT, COST_PAIRS, None)?)?;
    let total = times.first().context("a helper printed nothing")?;
    Ok(Duration::from_nanos(*total) / COST_PAIRS)
}

fn start_churn(port: u16, pairs: u32, pause: Option<u64>) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.arg("bench-churn").arg(format!("--port={port}")).arg(format!("--pairs={pairs}"));
    command.args(pause.map(|pause| format!("--pause={pause}")));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting a helper")
}

/// The numbers that a helper printed by its end.
fn lines_of(child: Child) -> Result<Vec<u64>> {
    let output = child.wait_with_output().context("waiting for a helper")?;
    ensure!(output.status.success(), "a helper: {}", output.status);
    let text = String::from_utf8(output.stdout).context("what a helper printed")?;
    text.lines().map(|line| line.parse().context("a number of a helper")).collect()
}

/// A line, and when it came.
type Line = (Value, Duration);

/// A running trace, whose output is read as it comes.
struct Trace {
    child: Child,
    reader: JoinHandle<Result<Vec<Line>>>,
}

impl Trace {
    /// Starts one, and waits until it watches.
    fn start(binary: &Path, events: &str) -> Result<Self> {
        let ports = format!("{FIRST_PORT}-{}", FIRST_PORT + PROCESSES - 1);
        let mut child = Command::new(binary)
            .args(["trace", "--json", "--events", events, &ports])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting whereis-port trace")?;
        let stdout = child.stdout.take().context("a command without standard output")?;
        let mut stdout = BufReader::new(stdout);
        let mut first = String::new();
        stdout.read_line(&mut first).context("reading from trace")?;
        ensure!(first.contains("\"start\""), "trace began with {first:?}");
        ensure!(first.contains("eBPF"), "trace does without eBPF: {first}");
        Ok(Self { child, reader: std::thread::spawn(|| read(stdout)) })
    }

    /// Processor time so far.
    fn cpu(&self) -> Result<Duration> {
        let file = format!("/proc/{}/schedstat", self.child.id());
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
        let nanoseconds = text.split(' ').next().and_then(|n| n.parse().ok());
        Ok(Duration::from_nanos(nanoseconds.with_context(|| format!("{file}: {text}"))?))
    }

    /// Ends it as Ctrl-C does, and gives all that it printed.
    fn end(mut self) -> Result<Vec<Line>> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process id")?, Signal::INT).context("ending trace")?;
        let lines = self.reader.join().map_err(|_| anyhow!("the reader panicked"))?;
        self.child.wait().context("waiting for trace")?;
        lines
    }
}

/// Takes the lines as they come; what they say is looked at afterwards, so that
/// the reader keeps nobody waiting.
fn read(stdout: BufReader<ChildStdout>) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for line in stdout.lines() {
        lines.push((line.context("reading from trace")?, now()));
    }
    let parsed = lines.into_iter().map(|(line, at)| Ok((serde_json::from_str(&line)?, at)));
    parsed.collect()
}

impl Events {
    /// The median delay.
    pub(crate) fn delay(&self) -> Duration {
        middle(&self.delays)
    }

    /// The delay that one of a hundred exceeds.
    pub(crate) fn late(&self) -> Duration {
        self.delays.get(self.delays.len() * 99 / 100).copied().unwrap_or_default()
    }

    /// Whether every event was seen or counted as lost.
    pub(crate) fn is_whole(&self) -> bool {
        self.made > 0 && self.seen + self.lost == self.made
    }

    /// What a pair of listen and close takes, without and with a trace.
    pub(crate) fn pair(&self) -> (Duration, Duration) {
        (middle(&self.alone), middle(&self.traced))
    }
}

fn middle(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_seen_nor_counted_is_missed() {
        let events = |seen, lost| Events { made: 10, seen, lost, ..Events::default() };
        assert!(events(10, 0).is_whole());
        assert!(events(7, 3).is_whole());
        assert!(!events(9, 0).is_whole());
        assert!(!Events::default().is_whole());
    }

    #[test]
    fn delays_are_told_by_the_median_and_the_late_ones() {
        let delays = (1..=200).map(Duration::from_millis).collect();
        let events = Events { delays, ..Events::default() };
        assert_eq!(events.delay(), Duration::from_millis(101));
        assert_eq!(events.late(), Duration::from_millis(199));
    }
}
