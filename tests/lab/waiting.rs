//! What all labs of Kubernetes share while they wait for their components.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often it is looked whether something is ready.
const STEP: Duration = Duration::from_millis(50);
/// How many lines of a log help.
const LINES: usize = 8;

/// Waits until `ready` says so, for as long as `patience`. If it never does, the error has its
/// last complaint and what `logs` gives.
pub(crate) fn until(
    what: &str,
    patience: Duration,
    ready: impl Fn() -> Result<()>,
    logs: impl Fn() -> String,
) -> Result<()> {
    let begin = Instant::now();
    loop {
        let error = match ready() {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if begin.elapsed() > patience {
            bail!("{what} is not ready: {error:#}\n{}", logs());
        }
        std::thread::sleep(STEP);
    }
}

/// The last lines of each component's log, `DIR/NAME.log`.
pub(crate) fn last_lines<'a>(dir: &Path, names: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for name in names {
        let log = std::fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let _ =
            writeln!(text, "{name}:\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_never_gets_ready_says_why_and_shows_the_logs() {
        let tried = Cell::new(0);
        let ready = || {
            tried.set(tried.get() + 1);
            bail!("no answer to try {}", tried.get())
        };
        let error = until("etcd", Duration::ZERO, ready, || "etcd:\nout of space".to_owned());
        let error = error.unwrap_err().to_string();
        assert_eq!(
            error,
            format!("etcd is not ready: no answer to try {}\netcd:\nout of space", tried.get())
        );
    }

    #[test]
    fn what_gets_ready_is_asked_no_more() {
        let tried = Cell::new(0);
        let ready = || {
            tried.set(tried.get() + 1);
            anyhow::ensure!(tried.get() == 2, "not yet");
            Ok(())
        };
        until("etcd", Duration::from_secs(60), ready, String::new).unwrap();
        assert_eq!(tried.get(), 2);
    }
}
