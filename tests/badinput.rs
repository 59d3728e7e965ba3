//! What is no question is refused, and the message says what it was.

use anyhow::ensure;
use lab::Test;

/// Checks that `args` are refused with a message that has all of `words`.
fn check(args: &[&str], words: &[&str]) -> Test {
    let run = lab::ask(args)?;
    ensure!(run.code == Some(2), "{args:?}: exit {:?}: {}", run.code, run.stderr);
    ensure!(run.stdout.is_empty(), "{args:?}: {}", run.stdout);
    for word in words {
        ensure!(run.stderr.contains(word), "{args:?}: no {word:?} in: {}", run.stderr);
    }
    Ok(())
}

#[test]
fn a_target_that_is_none() -> Test {
    check(&["0"], &["0"])?;
    check(&["65536"], &["65536"])?;
    check(&["99999999999999999999"], &["99999999999999999999"])?;
    check(&["-1"], &["\"-1\"", "1 to 65535"])?;
    check(&["lsit"], &["lsit", "`list`"])?;
    check(&["80/sctpx"], &["80/sctpx"])?;
    check(&["80/"], &["80/"])?;
    check(&[""], &[])?;
    check(&[" "], &[])?;
    check(&[":80/tcp/udp"], &[":80/tcp/udp"])?;
    check(&["256.0.0.1:80"], &["256.0.0.1"])?;
    check(&["[::1:80"], &["[::1:80"])?;
    check(&["nosuchservice"], &["nosuchservice"])?;
    check(&["9000-8000"], &["9000-8000"])?;
    check(&["8000-"], &["8000-"])?;
    check(&["0-10"], &["0-10"])?;
    check(&["80", "0"], &["0"])
}

#[test]
fn an_ipv6_address_needs_brackets_and_the_message_shows_them() -> Test {
    check(&["::1:80"], &["::1:80", "[::1]:80"])
}

#[test]
fn an_unknown_option_or_value() -> Test {
    check(&["--no-such-flag"], &["--no-such-flag"])?;
    check(&["list", "--no-such-flag"], &["--no-such-flag"])?;
    check(&["list", "-o", "xml"], &["xml"])?;
    check(&["--color", "pink", "80"], &["pink"])?;
    check(&["completions", "cmd.exe"], &["cmd.exe"])?;
    check(&["list", "-s", "nosuchcolumn"], &["nosuchcolumn"])
}

#[test]
fn a_question_and_a_command_at_once() -> Test {
    check(&["80", "list"], &["whereis-port list", "first"])?;
    check(&["--json", "80", "doctor"], &["whereis-port doctor", "first"])
}

#[test]
fn a_code_that_there_is_none_of() -> Test {
    check(&["explain", "publishd"], &["no code is called", "publishd", "`whereis-port explain`"])?;
    check(&["explain", "not_publish"], &["codes like it", "not_published"])
}

#[test]
fn columns_that_there_are_none_of() -> Test {
    check(&["list", "-O", "port,size"], &["unknown column", "size", "service"])?;
    check(&["list", "-O", "port", "--json"], &["-O", "table"])
}

#[test]
fn an_option_of_the_list_without_the_list() -> Test {
    check(&["80", "-o", "csv"], &["-o", "`list`"])?;
    check(&["80", "-6"], &["-6", "`list`"])?;
    check(&["--netns", "host", "list"], &["--netns", "question"])?;
    check(&["doctor", "-t"], &["-t", "`list`"])
}

#[test]
fn two_forms_at_once() -> Test {
    check(&["list", "--json", "-o", "csv"], &["--json", "-o"])?;
    check(&["--json", "list", "-o", "table"], &["--json", "-o"])?;
    check(&["list", "--ndjson", "--json"], &["--ndjson", "--json"])?;
    check(&["list", "--ndjson", "-o", "csv"], &["--ndjson", "-o"])?;
    check(&["80", "--ndjson"], &["--ndjson", "`list`"])?;
    let run = lab::ask(&["list", "--json", "-o", "json"])?;
    ensure!(run.json["schema_version"] == 1, "{}", run.stderr);
    Ok(())
}

#[test]
fn a_namespace_that_there_is_none_of() -> Test {
    let node = format!("{}/data/kind.json", env!("CARGO_MANIFEST_DIR"));
    for form in [&[][..], &["--json"], &["-o", "csv"]] {
        let args = [&["--replay", &node, "list", "--netns", "nosuch"], form].concat();
        check(&args, &["nosuch", "host", "cluster2-control-plane"])?;
    }
    let run = lab::ask(&["--replay", &node, "list", "--netns", "cluster2-control-plane"])?;
    ensure!(run.code == Some(0), "{}", run.stderr);
    Ok(())
}

#[test]
fn options_for_everything_stand_before_or_after_the_command() -> Test {
    for args in [["--json", "list"], ["list", "--json"], ["--json", "doctor"], ["doctor", "--json"]]
    {
        let run = lab::ask(&args)?;
        ensure!(run.json["schema_version"] == 1, "{args:?}: {}{}", run.stdout, run.stderr);
    }
    Ok(())
}

#[test]
fn a_message_does_not_pass_on_what_a_terminal_would_obey() -> Test {
    let run = lab::ask(&["\u{1b}[2J80"])?;
    ensure!(run.code == Some(2) && !run.stderr.contains('\u{1b}'), "{:?}", run.stderr);
    Ok(())
}

#[test]
fn a_recording_that_is_none() -> Test {
    let dir = tempfile::tempdir()?;
    let good = dir.path().join("good.json");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let run = lab::ask(&["list", "--record", &path("good.json")])?;
    ensure!(run.code == Some(0), "{:?}: {}", run.code, run.stderr);
    let bytes = std::fs::read(&good)?;
    std::fs::write(path("truncated"), &bytes[..bytes.len() / 2])?;
    std::fs::write(path("foreign"), r#"{"kind":"List","items":[]}"#)?;
    std::fs::write(path("empty"), "")?;
    std::fs::write(path("binary"), [0_u8, 255, 27, 91, 50, 74])?;
    std::fs::write(path("array"), "[1,2,3]")?;
    std::fs::write(path("deep"), "[".repeat(100_000))?;
    std::fs::create_dir(path("directory"))?;
    for name in ["missing", "truncated", "foreign", "empty", "binary", "array", "deep", "directory"]
    {
        check(&["--replay", &path(name), "80"], &[&path(name)])?;
        check(&["--replay", &path(name), "list"], &[&path(name)])?;
    }
    Ok(())
}

#[test]
fn a_recording_that_can_not_be_written() -> Test {
    check(&["list", "--record", "/no/such/directory/file.json"], &["/no/such/directory"])?;
    check(&["list", "--record", "/tmp"], &["/tmp", "directory"])?;
    check(&["list", "--record", "-"], &["standard output"])?;
    // A failure that only shows when it is written comes after the answer.
    let run = lab::ask(&["list", "--record", "/proc/file.json"])?;
    // Only root may try to make a file there.
    let late = run.code == Some(4) && !run.stdout.is_empty();
    ensure!(late || run.code == Some(2), "{:?}: {}", run.code, run.stderr);
    ensure!(run.stderr.contains("/proc/file.json"), "{}", run.stderr);
    Ok(())
}
