//! Timing commands.

use std::ffi::OsString;
use std::io::Read;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::node::NoPins;
use crate::sh;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// whereis-port, with nothing pinned.
    Ours,
    /// whereis-port, with its iterators pinned.
    Pinned,
    /// whereis-port's list as JSON, with nothing pinned.
    Json,
    /// The same with its iterators pinned.
    PinnedJson,
    /// The same as a line for each object.
    PinnedLines,
    /// whereis-port's list as CSV, with its iterators pinned.
    PinnedCsv,
    /// `ss`, asked for one port.
    SsPort,
    /// `ss`, asked for everything.
    Ss,
    /// `lsof`.
    Lsof,
    /// `somo`.
    Somo,
    /// A command that prints rules.
    Rules,
}

impl Tool {
    /// Whether it is whereis-port.
    pub(crate) fn is_ours(self) -> bool {
        self.is_unpinned()
            || matches!(self, Self::Pinned | Self::PinnedJson | Self::PinnedLines | Self::PinnedCsv)
    }

    /// Whether it is whereis-port, and must not see what is pinned.
    fn is_unpinned(self) -> bool {
        matches!(self, Self::Ours | Self::Json)
    }
}

/// One command to time.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) tool: Tool,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// The command as the tables show it.
    pub(crate) label: &'static str,
}

/// What is known of one command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    /// Times from before it was started until it had ended, one per round. None
    /// when it was too slow to be timed.
    pub(crate) wall: Vec<Duration>,
    /// The most memory it had in any of a few more runs, in bytes.
    pub(crate) peak: u64,
}

/// A command whose memory is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct PeakArgs {
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// How often a command's memory is measured.
const PEAK_RUNS: usize = 3;

impl Case {
    /// Shows what is pinned only to the command that uses it. Not timed.
    fn pins(&self) -> Result<Option<NoPins>> {
        self.tool.is_unpinned().then(NoPins::new).transpose()
    }

    /// The command, ready to run.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        command
    }

    /// What it prints, or `None` when it takes longer than `limit`.
    pub(crate) fn output_within(&self, limit: Duration) -> Result<Option<String>> {
        let _pins = self.pins()?;
        let mut child = self
            .command()
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", self.label))?;
        let mut stdout = child.stdout.take().context("a command without standard output")?;
        let (done, result) = mpsc::channel();
        std::thread::spawn(move || {
            let mut output = Vec::new();
            // Nobody waits any more when the limit was reached.
            let _too_late = done.send(stdout.read_to_end(&mut output).map(|_bytes| output));
        });
        let Ok(output) = result.recv_timeout(limit) else {
            child.kill().with_context(|| format!("stopping {}", self.label))?;
            child.wait().with_context(|| format!("waiting for {}", self.label))?;
            return Ok(None);
        };
        let output = output.with_context(|| format!("reading from {}", self.label))?;
        let status = child.wait().with_context(|| format!("waiting for {}", self.label))?;
        ensure!(status.success(), "{}: {status}", self.label);
        Ok(Some(String::from_utf8_lossy(&output).into_owned()))
    }

    fn time(&self) -> Result<Duration> {
        let _pins = self.pins()?;
        let start = Instant::now();
        let (status, _peak) = run_to_end(self.command().stderr(Stdio::null()))?;
        let wall = start.elapsed();
        ensure!(status == 0, "{} ended with wait status {status:#x}", self.label);
        Ok(wall)
    }

    /// Its peak of memory, in bytes.
    ///
    /// The kernel counts the moment before exec too, when the memory is that of
    /// whoever starts the command. So that is a process that has just begun, and
    /// no command is said to have less than the few megabytes that it has.
    fn peak(&self) -> Result<u64> {
        let _pins = self.pins()?;
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command.arg("bench-peak").arg("--").arg(&self.program).args(&self.args);
        let printed = sh::capture(&mut command)?;
        printed.trim().parse().with_context(|| format!("memory of {}: {printed:?}", self.label))
    }
}

/// The helper: runs a command and prints its peak of memory in bytes.
pub(crate) fn print_peak(args: &PeakArgs) -> Result<()> {
    let (program, rest) = args.command.split_first().context("no command")?;
    let mut command = Command::new(program);
    let (status, peak) = run_to_end(command.args(rest).stdin(Stdio::null()).stderr(Stdio::null()))?;
    ensure!(status == 0, "{} ended with wait status {status:#x}", program.display());
    println!("{peak}");
    Ok(())
}

/// Runs all cases once per round, each round starting with another one, and
/// gives what is known of each case.
pub(crate) fn alternate(cases: &[Case], rounds: u32) -> Result<Vec<Samples>> {
    let mut samples = vec![Samples::default(); cases.len()];
    for round in 0..rounds as usize {
        for turn in 0..cases.len() {
            let index = (round + turn) % cases.len();
            samples[index].wall.push(cases[index].time()?);
        }
    }
    for (case, samples) in cases.iter().zip(&mut samples) {
        for _run in 0..PEAK_RUNS {
            samples.peak = samples.peak.max(case.peak()?);
        }
    }
    Ok(samples)
}

/// Runs `command`, reads all it prints, and gives its wait status and its peak
/// of memory in bytes.
fn run_to_end(command: &mut Command) -> Result<(i32, u64)> {
    let name = command.get_program().display().to_string();
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {name}"))?;
    let mut stdout = child.stdout.take().context("a command without standard output")?;
    let bytes = drain(&mut stdout).with_context(|| format!("reading from {name}"))?;
    let ended = wait(&child)?;
    ensure!(bytes > 0 || ended.0 != 0, "{name} printed nothing");
    Ok(ended)
}

/// Reads to the end, so that no command is held up by a full pipe.
fn drain(from: &mut impl Read) -> std::io::Result<usize> {
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(total),
            bytes => total += bytes,
        }
    }
}

/// Waits for `child` and gives its wait status and its peak memory in bytes.
fn wait(child: &Child) -> Result<(i32, u64)> {
    let pid = i32::try_from(child.id()).context("a process id")?;
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        #[expect(unsafe_code, reason = "std does not give a child's resource usage")]
        // SAFETY: both pointers are to live, writable memory of the right type.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        if waited == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            bail!("waiting for process {pid}: {error}");
        }
    }
    #[expect(unsafe_code, reason = "rusage has no safe constructor")]
    // SAFETY: all zeroes is a valid rusage, and wait4 has filled it in.
    let usage = unsafe { usage.assume_init() };
    let kib = u64::try_from(usage.ru_maxrss).context("a negative memory size")?;
    Ok((status, kib * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Case {
        Case {
            tool: Tool::Ss,
            program: "sh".into(),
            args: vec!["-c".into(), script.into()],
            label: "sh",
        }
    }

    #[test]
    fn more_output_than_a_pipe_holds_is_read() {
        shell("head -c 1000000 /dev/zero").time().unwrap();
    }

    #[test]
    fn memory_is_that_of_the_command() {
        // The shell holds ten million bytes in a variable.
        let hungry = "x=$(head -c 10000000 /dev/zero | tr '\\0' a); echo ${#x}";
        let (status, peak) = run_to_end(&mut shell(hungry).command()).unwrap();
        assert_eq!(status, 0);
        assert!(peak > 10_000_000, "{peak}");
    }

    #[test]
    fn a_command_that_does_not_end_is_stopped() {
        let limit = Duration::from_millis(50);
        assert_eq!(shell("exec sleep 1000").output_within(limit).unwrap(), None);
        let minutes = Duration::from_secs(600);
        assert_eq!(shell("echo a").output_within(minutes).unwrap().as_deref(), Some("a\n"));
        assert!(shell("exit 3").output_within(minutes).is_err());
    }

    #[test]
    fn a_command_that_fails_or_prints_nothing_is_no_sample() {
        let failed = shell("echo a; exit 3").time().unwrap_err();
        assert!(failed.to_string().contains("0x300"), "{failed}");
        let silent = shell("true").time().unwrap_err();
        assert!(silent.to_string().contains("printed nothing"), "{silent}");
    }
}
