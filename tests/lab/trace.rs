//! A running `whereis-port trace`.

use std::io::{BufRead, BufReader};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::Test;
use crate::tool::Tool;

/// How long an event, or the end, may take before the test fails.
const LIMIT: Duration = Duration::from_secs(30);

/// A running trace, killed when dropped.
#[derive(Debug)]
pub struct Trace {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    /// What was already received of standard error.
    said: String,
    /// With `--json` the first line: what is watched, and what can't be.
    pub start: Value,
}

impl Trace {
    /// Starts it, and waits until it watches.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(tool: Tool<'_>, args: &[&str]) -> Result<Self> {
        let mut command = tool.arg("trace").args(args).command()?;
        let mut trace = Self::of(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)?;
        if args.contains(&"--json") {
            let line = trace.line()?;
            ensure!(line["type"] == "start" && line["schema_version"] == 1, "{line}");
            trace.start = line;
        } else {
            trace.hears("watching")?;
        }
        Ok(trace)
    }

    /// One that was started already. Its output may have another reader.
    ///
    /// # Errors
    /// When its standard error is no pipe.
    pub fn of(mut child: Child) -> Result<Self> {
        let out = child.stdout.take().map_or_else(|| channel().1, lines);
        let err = lines(child.stderr.take().context("no error output")?);
        Ok(Self { child, out, err, said: String::new(), start: Value::Null })
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its output.
    ///
    /// # Errors
    /// When none comes.
    pub fn text(&mut self) -> Result<String> {
        let line = self.out.recv_timeout(LIMIT);
        line.with_context(|| format!("no more output: {}", self.stderr()))
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// When none comes or it is none.
    pub fn line(&mut self) -> Result<Value> {
        let line = self.text()?;
        serde_json::from_str(&line).with_context(|| line.clone())
    }

    /// Waits until standard error has said `word`.
    ///
    /// # Errors
    /// When it does not.
    pub fn hears(&mut self, word: &str) -> Test {
        while !self.said.contains(word) {
            let line = self.err.recv_timeout(LIMIT);
            self.said += &line.with_context(|| format!("no {word:?} in {}", self.said))?;
            self.said.push('\n');
        }
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Test {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("no process")?, signal)?)
    }

    /// What it has said on standard error so far.
    pub fn stderr(&mut self) -> String {
        while let Ok(line) = self.err.try_recv() {
            self.said += &line;
            self.said.push('\n');
        }
        self.said.clone()
    }

    /// Its exit, the rest of its output, and all that it said on standard error.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn end(mut self) -> Result<(ExitStatus, Vec<String>, String)> {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if begun.elapsed() > LIMIT {
                bail!("it does not end: {}", self.stderr());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // Both end with the process, so neither waits for ever.
        let rest: Vec<String> = self.out.iter().collect();
        let said = self.err.iter().map(|line| line + "\n");
        Ok((status, rest, std::mem::take(&mut self.said) + &said.collect::<String>()))
    }

    /// Interrupts it, and gives what it has written since the last line that was
    /// asked for, as JSON: events, and the summary last.
    ///
    /// # Errors
    /// When it does not end well, or the last line is no summary.
    pub fn interrupt(self) -> Result<(Vec<Value>, Value)> {
        self.signal(Signal::INT)?;
        let (status, rest, said) = self.end()?;
        ensure!(matches!(status.code(), Some(0 | 1 | 3)), "{status}: {said}");
        let lines = rest.iter().map(|line| serde_json::from_str(line));
        let mut lines = lines.collect::<Result<Vec<Value>, _>>().context("reading its lines")?;
        let summary = lines.pop().context("no summary")?;
        ensure!(summary["type"] == "summary", "{summary}");
        Ok((lines, summary))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// The lines of a pipe, as they come.
fn lines(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
