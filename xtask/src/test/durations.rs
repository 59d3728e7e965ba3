//! How long each test took, read from what the test programs print.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Makes the test programs print times: an option that stable ones have, but don't take.
pub(super) const HARNESS: &[&str] = &["-Zunstable-options", "--report-time"];

/// Makes them take it. The compiler must not see this, or it would build everything anew.
pub(super) const CARGO: &[&str] =
    &["--config", "target.'cfg(unix)'.runner=['env', 'RUSTC_BOOTSTRAP=1']"];

/// How many tests are listed.
const LISTED: usize = 30;

/// Tests and the seconds that each took.
#[derive(Debug, Default)]
pub(super) struct Durations {
    tests: Vec<(String, f64)>,
}

impl Durations {
    /// Runs tests in view of the user.
    pub(super) fn run(&mut self, command: &mut Command) -> Result<()> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("running cargo test")?;
        let lines = BufReader::new(child.stdout.take().context("cargo test has no output")?);
        for line in lines.split(b'\n') {
            let line = line.context("reading what the tests print")?;
            let line = String::from_utf8_lossy(&line);
            // Who reads this may have gone; the tests go on.
            let _unread = writeln!(std::io::stdout(), "{line}");
            self.tests.extend(read(&line));
        }
        let status = child.wait().context("waiting for cargo test")?;
        if !status.success() {
            bail!("cargo test: {status}");
        }
        Ok(())
    }
}

/// The name and the seconds in `test docker::a ... ok <1.234s>`. What else is on the line was
/// printed by the test itself.
fn read(line: &str) -> Option<(String, f64)> {
    let (_, rest) = line.split_once("test ")?;
    let (name, rest) = rest.split_once(" ... ")?;
    let (_, time) = rest.rsplit_once('<')?;
    let seconds = time.strip_suffix("s>")?.parse().ok()?;
    Some((name.to_owned(), seconds))
}

/// The file that a test is in, as far as its name says.
fn file(name: &str) -> &str {
    name.rsplit_once("::").map_or("", |(file, _)| file)
}

impl fmt::Display for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tests: Vec<_> = self.tests.iter().collect();
        tests.sort_by(|a, b| b.1.total_cmp(&a.1));
        writeln!(f, "\nseconds  the slowest of {} tests", tests.len())?;
        for (name, seconds) in tests.iter().take(LISTED) {
            writeln!(f, "{seconds:7.1}  {name}")?;
        }
        let mut files = BTreeMap::<&str, (f64, usize)>::new();
        for (name, seconds) in &self.tests {
            let sum = files.entry(file(name)).or_default();
            *sum = (sum.0 + seconds, sum.1 + 1);
        }
        let mut files: Vec<_> = files.into_iter().collect();
        files.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
        writeln!(f, "\nseconds  tests  the slowest files")?;
        for (file, (seconds, count)) in files.iter().take(LISTED) {
            writeln!(f, "{seconds:7.1}  {count:5}  {file}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_where_there_are_any() {
        let read = |line| read(line).map(|(name, seconds)| (name, (seconds * 1000.0) as u32));
        let one = ("docker::a_port".to_owned(), 1234);
        assert_eq!(read("test docker::a_port ... ok <1.234s>"), Some(one.clone()));
        assert_eq!(read("noise: test docker::a_port ... FAILED <1.234s>"), Some(one));
        assert_eq!(read("test a ... ignored, it takes a minute"), None);
        assert_eq!(read("test result: ok. 1 passed; finished in 3.10s"), None);
    }

    #[test]
    fn the_slowest_come_first() {
        let tests = [("a::b::x", 1.0), ("a::c::y", 4.0), ("a::b::z", 3.5)];
        let tests = tests.map(|(name, seconds)| (name.to_owned(), seconds)).to_vec();
        let text = Durations { tests }.to_string();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(lines[2], "4.0  a::c::y");
        assert!(lines.contains(&"4.5      2  a::b"), "{text}");
    }
}
