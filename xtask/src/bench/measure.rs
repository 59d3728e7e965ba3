//! Timing commands.

use std::io::Read;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// whereis-port.
    Ours,
    /// `ss`, asked for one port.
    SsPort,
    /// `ss`, asked for everything.
    Ss,
    /// `lsof`.
    Lsof,
    /// `somo`.
    Somo,
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

/// One run of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// From before it was started until it had ended.
    pub(crate) wall: Duration,
    /// The most memory it had, in bytes. What the kernel gives includes the
    /// moment before exec, so it is never less than this program itself has.
    pub(crate) peak: u64,
}

impl Case {
    /// The command, ready to run.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        command
    }

    /// What it prints, or `None` when it takes longer than `limit`.
    pub(crate) fn output_within(&self, limit: Duration) -> Result<Option<String>> {
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

    fn run(&self) -> Result<Sample> {
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("starting {}", self.label))?;
        let mut stdout = child.stdout.take().context("a command without standard output")?;
        let bytes = drain(&mut stdout).with_context(|| format!("reading from {}", self.label))?;
        let (status, peak) = wait(&child)?;
        let wall = start.elapsed();
        ensure!(status == 0, "{} ended with wait status {status:#x}", self.label);
        ensure!(bytes > 0, "{} printed nothing", self.label);
        Ok(Sample { wall, peak })
    }
}

/// Runs all cases once per round, each round starting with another one, and
/// gives the samples of each case.
pub(crate) fn alternate(cases: &[Case], rounds: u32) -> Result<Vec<Vec<Sample>>> {
    let mut samples = vec![Vec::new(); cases.len()];
    for round in 0..rounds as usize {
        for turn in 0..cases.len() {
            let index = (round + turn) % cases.len();
            samples[index].push(cases[index].run()?);
        }
    }
    Ok(samples)
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
    fn every_case_runs_once_per_round() {
        let samples = alternate(&[shell("echo a"), shell("echo b")], 3).unwrap();
        assert_eq!(samples.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
        assert!(samples.iter().flatten().all(|sample| sample.peak > 0));
    }

    #[test]
    fn more_output_than_a_pipe_holds_is_read() {
        let samples = alternate(&[shell("head -c 1000000 /dev/zero")], 1).unwrap();
        assert_eq!(samples.len(), 1);
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
        let failed = alternate(&[shell("echo a; exit 3")], 1).unwrap_err();
        assert!(failed.to_string().contains("0x300"), "{failed}");
        let silent = alternate(&[shell("true")], 1).unwrap_err();
        assert!(silent.to_string().contains("printed nothing"), "{silent}");
    }
}
