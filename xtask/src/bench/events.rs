//! `whereis-port trace` beside processes that listen and close.
//!
//! Three things are measured: whether a burst is told completely, how long it
//! takes from `listen()` to the line that tells of it, and what the programs in
//! the kernel cost those who listen.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Processes of the burst.
const PROCESSES: u16 = 4;
/// Pairs of listen and close of each.
const PAIRS: u32 = 5_000;
/// The burst is made of this many parts, one every `PART`.
const PARTS: u32 = 100;
const PART: Duration = Duration::from_millis(10);
/// Each process of the burst listens on a port of its own, from this one on.
const BURST_PORT: u16 = 30_001;
/// Each paced listen has a port of its own, from this one on.
const PACED_PORT: u16 = 31_000;
/// How many paced listens there are, and how far apart.
const PACED: u16 = 300;
const PACE: Duration = Duration::from_millis(7);
/// The micro-benchmark listens on this port, so many times in each round.
const COST_PORT: u16 = 30_100;
const COST_PAIRS: u32 = 2_000;
/// Rounds of the micro-benchmark, each without and with a trace.
const COST_ROUNDS: usize = 7;
/// Clock ticks per second in `/proc/PID/stat`: the same for every architecture.
const USER_HZ: f64 = 100.0;

/// What was measured of `trace`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events {
    /// Events that the burst made.
    pub(crate) made: u64,
    /// Those that were told of.
    pub(crate) seen: u64,
    /// Events that the trace said it lost.
    pub(crate) lost: u64,
    /// How long the burst took.
    pub(crate) burst: Duration,
    /// Processor time of the trace for the burst.
    pub(crate) cpu: Duration,
    /// From before `listen()` to the line having been read, one for each.
    pub(crate) delays: Vec<Duration>,
    /// Nanoseconds for each listen and close without a trace, one per round.
    pub(crate) without: Vec<f64>,
    /// The same while a trace runs.
    pub(crate) with: Vec<f64>,
}

/// One process of a burst.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct BurstArgs {
    /// The port it listens on.
    #[arg(long)]
    port: u16,
}

/// Measures all of it, in the namespace of this thread.
pub(crate) fn measure(binary: &Path) -> Result<Events> {
    let mut events = Events::default();
    burst(binary, &mut events).context("measuring a burst of events")?;
    events.delays = delays(binary).context("measuring the delay of events")?;
    for _round in 0..COST_ROUNDS {
        events.without.push(cost()?);
        let trace = Trace::start(binary)?;
        events.with.push(cost()?);
        trace.end()?;
    }
    Ok(events)
}

fn burst(binary: &Path, events: &mut Events) -> Result<()> {
    let trace = Trace::start(binary)?;
    let mut helpers = Vec::new();
    for number in 0..PROCESSES {
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command.arg("bench-burst").arg(format!("--port={}", BURST_PORT + number));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        helpers.push(child.context("starting a process of the burst")?);
    }
    for helper in &mut helpers {
        let stdout = helper.stdout.as_mut().context("a helper without standard output")?;
        stdout.read_exact(&mut [0]).context("waiting for a process of the burst")?;
    }
    let before = trace.cpu()?;
    let start = Instant::now();
    // The end of its standard input lets each go.
    helpers.iter_mut().for_each(|helper| drop(helper.stdin.take()));
    for helper in &mut helpers {
        let status = helper.wait().context("waiting for a process of the burst")?;
        ensure!(status.success(), "a process of the burst: {status}");
    }
    events.burst = start.elapsed();
    events.made = 2 * u64::from(PROCESSES) * u64::from(PAIRS);
    let cpu = trace.cpu_when_idle()?;
    events.cpu = cpu.saturating_sub(before);
    let told = trace.end()?;
    let ports = BURST_PORT..BURST_PORT + PROCESSES;
    events.seen = told.lines.iter().filter(|line| ports.contains(&line.port)).count() as u64;
    events.lost = told.lost;
    Ok(())
}

/// The helper: listens and closes, in parts, so that the burst takes a second.
pub(crate) fn help_burst(args: &BurstArgs) -> Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(b".").and_then(|()| stdout.flush()).context("saying ready")?;
    std::io::stdin().read_to_end(&mut Vec::new()).context("waiting for the start")?;
    let start = Instant::now();
    for part in 0..PARTS {
        for _pair in 0..PAIRS / PARTS {
            listen(args.port)?;
        }
        std::thread::sleep((PART * (part + 1)).saturating_sub(start.elapsed()));
    }
    Ok(())
}

/// Listens and closes.
fn listen(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    listener.map(drop).with_context(|| format!("listening on port {port}"))
}

/// Nanoseconds for one listen and close.
fn cost() -> Result<f64> {
    let start = Instant::now();
    for _pair in 0..COST_PAIRS {
        listen(COST_PORT)?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(COST_PAIRS))
}

/// How long the line of each of some hundred listens took.
fn delays(binary: &Path) -> Result<Vec<Duration>> {
    let trace = Trace::start(binary)?;
    let mut began = BTreeMap::new();
    for port in PACED_PORT..PACED_PORT + PACED {
        began.insert(port, Instant::now());
        listen(port)?;
        std::thread::sleep(PACE);
    }
    trace.cpu_when_idle()?;
    let told = trace.end()?;
    let listens = told.lines.iter().filter(|line| line.listens);
    let delays: Vec<_> = listens
        .filter_map(|line| Some(line.read.saturating_duration_since(*began.get(&line.port)?)))
        .collect();
    ensure!(
        delays.len() == began.len(),
        "{} listens were made and {} told of",
        began.len(),
        delays.len()
    );
    Ok(delays)
}

/// A line of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    read: Instant,
    port: u16,
    listens: bool,
}

/// All that a trace told.
#[derive(Debug, Default)]
struct Told {
    lines: Vec<Line>,
    lost: u64,
    ended: bool,
}

/// Lines, and when each was read.
type Timed = Vec<(Instant, String)>;

/// A running `whereis-port trace`, whose lines a thread reads.
struct Trace {
    child: Child,
    reader: Option<JoinHandle<Result<Timed>>>,
}

impl Trace {
    /// Starts it and waits until it watches.
    fn start(binary: &Path) -> Result<Self> {
        let mut child = Command::new(binary)
            .args(["trace", "--events", "listen,close", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting whereis-port trace")?;
        let stdout = child.stdout.take();
        // From here on it is stopped however this ends.
        let mut trace = Self { child, reader: None };
        let mut lines = BufReader::new(stdout.context("a command without standard output")?);
        let mut first = String::new();
        lines.read_line(&mut first).context("waiting for whereis-port trace")?;
        ensure!(by_ebpf(&first), "whereis-port trace can't use eBPF here: {first}");
        // Nothing is parsed while it runs: that would take the processor from it.
        trace.reader = Some(std::thread::spawn(move || {
            let mut all = Vec::new();
            for line in lines.lines() {
                let line = line.context("reading from whereis-port trace")?;
                all.push((Instant::now(), line));
            }
            Ok(all)
        }));
        Ok(trace)
    }

    /// The processor time it has used.
    fn cpu(&self) -> Result<Duration> {
        let file = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
        cpu_time(&stat).with_context(|| format!("understanding {file}"))
    }

    /// The processor time it has used when it has nothing to do any more.
    fn cpu_when_idle(&self) -> Result<Duration> {
        let mut last = self.cpu()?;
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.cpu()?;
            // One tick may fall on a reader that only looks for events.
            if now.saturating_sub(last) <= Duration::from_millis(10) {
                return Ok(now);
            }
            last = now;
        }
    }

    /// Ends it as a user would, and gives what it told.
    fn end(mut self) -> Result<Told> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process id")?, Signal::INT)
            .context("ending whereis-port trace")?;
        let reader = self.reader.take().context("a trace that is not read")?;
        let lines = reader.join().map_err(|_panic| anyhow!("the reading thread panicked"))??;
        let mut told = Told::default();
        for (read, line) in lines {
            told.take(read, &line).with_context(|| format!("understanding {line:?}"))?;
        }
        ensure!(told.ended, "whereis-port trace ended without a summary");
        Ok(told)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // After `end` it ends by itself, and has nothing to lose.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Told {
    fn take(&mut self, read: Instant, line: &str) -> Result<()> {
        let line: Value = serde_json::from_str(line)?;
        match line["type"].as_str() {
            Some("event") => {
                let port = line["port"].as_u64().and_then(|port| port.try_into().ok());
                let listens = line["kind"] == "listen";
                self.lines.push(Line { read, port: port.context("no port")?, listens });
            }
            Some("summary") => {
                self.lost = line["lost"].as_u64().context("no count of what was lost")?;
                self.ended = true;
            }
            _other => {}
        }
        Ok(())
    }
}

/// Whether the first line says that programs in the kernel watch.
fn by_ebpf(first: &str) -> bool {
    let line: Value = serde_json::from_str(first).unwrap_or_default();
    line["type"] == "start" && line["gaps"].as_array().is_some_and(Vec::is_empty)
}

/// User and system time in `/proc/PID/stat`. The name, in brackets, can hold anything.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_name, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs_f64(f64::from(user.checked_add(system)?) / USER_HZ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 9";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time("7 (a) S 1"), None);
    }

    #[test]
    fn lines_are_told_apart() {
        let mut told = Told::default();
        let now = Instant::now();
        told.take(now, r#"{"type":"event","kind":"listen","port":80}"#).unwrap();
        told.take(now, r#"{"type":"event","kind":"close","port":81}"#).unwrap();
        told.take(now, r#"{"type":"lost","lost":3}"#).unwrap();
        assert!(!told.ended);
        told.take(now, r#"{"type":"summary","lost":17}"#).unwrap();
        assert!(told.ended);
        assert_eq!(told.lost, 17);
        let ports: Vec<_> = told.lines.iter().map(|line| (line.port, line.listens)).collect();
        assert_eq!(ports, [(80, true), (81, false)]);
        assert!(told.take(now, "nothing").is_err());
    }
}
