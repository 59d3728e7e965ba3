//! Output into a pipe whose reader has gone.

use std::process::Stdio;

use anyhow::ensure;
use lab::Test;

#[test]
fn a_closed_pipe_ends_it_quietly() -> Test {
    for args in [
        ["list"].as_slice(),
        &["list", "-o", "csv"],
        &["list", "--json"],
        &["--json", "1-65535"],
        &["1-65535"],
        &["doctor"],
        &["--help"],
        &["man"],
        &["schema"],
        &["completions", "bash"],
    ] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let output = std::process::Command::new(lab::binary()?)
            .args(args)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()?
            .wait_with_output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(stderr.is_empty(), "{args:?}: {stderr}");
        // 1 and 3 are answers of a question, whoever reads them.
        let ok = matches!(output.status.code(), Some(0 | 1 | 3));
        ensure!(ok, "{args:?}: {}", output.status);
    }
    Ok(())
}
