//! The processes of a lab.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A process of a lab, killed when dropped.
#[must_use = "the process is killed when this is dropped"]
#[derive(Debug)]
pub struct Proc {
    child: Child,
    /// Its id.
    pub pid: u32,
    /// The ports it listens on, in the order they were asked for.
    pub ports: Vec<u16>,
    /// Every process that holds its sockets.
    pub holders: Vec<u32>,
}

impl Proc {
    /// Starts a helper and waits for the line in which it says that it listens.
    pub(crate) fn wait_ready(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut out = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        let mut proc = Self::started(child);
        if line.is_empty() {
            let error = proc.child.stderr.take().map(std::io::read_to_string).transpose()?;
            bail!("{}", error.unwrap_or_default().trim());
        }
        let ready: serde_json::Value = serde_json::from_str(&line)?;
        proc.ports = serde_json::from_value(ready["ports"].clone())?;
        proc.holders = serde_json::from_value(ready["holders"].clone())?;
        Ok(proc)
    }

    /// A process that is already started.
    pub(crate) fn started(child: Child) -> Self {
        Self { pid: child.id(), child, ports: Vec::new(), holders: Vec::new() }
    }

    /// Whether it has exited.
    ///
    /// # Errors
    /// When that can't be told.
    pub fn has_exited(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// When it can't be killed.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it exits by itself.
    ///
    /// # Errors
    /// When it does not within ten seconds.
    pub fn wait(&mut self) -> Result<std::process::ExitStatus> {
        for _ in 0..1000 {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("process {} does not end", self.pid)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // It may have exited already; either way it must not stay a zombie.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
