//! Output into a pipe whose reader has gone.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use lab::{Lab, Test};

/// Runs `command` with nobody at the other end of its output.
fn into_nothing(command: &mut Command) -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let output = command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(stderr.is_empty(), "{command:?}: {stderr}");
    // 1 and 3 are answers of a question, whoever reads them.
    let ok = matches!(output.status.code(), Some(0 | 1 | 3));
    ensure!(ok, "{command:?}: {}", output.status);
    Ok(())
}

#[test]
fn a_closed_pipe_ends_it_quietly() -> Test {
    for args in [
        ["list"].as_slice(),
        &["list", "-o", "csv"],
        &["list", "--json"],
        &["list", "--ndjson"],
        &["--json", "1-65535"],
        &["1-65535"],
        &["doctor"],
        &["--help"],
        &["man"],
        &["schema"],
        &["completions", "bash"],
    ] {
        into_nothing(Command::new(lab::binary()?).args(args))?;
    }
    Ok(())
}

#[test]
fn more_than_a_buffer_full_ends_as_quietly() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mut many = String::new();
    for port in 1..=400 {
        write!(many, "tcp 127.0.0.1:{port} ")?;
    }
    let _many = lab.listen(lab.host(), &many)?;
    for args in [
        ["list"].as_slice(),
        &["list", "-o", "wide"],
        &["list", "-o", "csv"],
        &["list", "--json"],
        &["list", "--ndjson"],
        &["--json", "1-400"],
        &["1-400"],
    ] {
        into_nothing(&mut lab.tool().args(args).command()?)?;
    }
    Ok(())
}
