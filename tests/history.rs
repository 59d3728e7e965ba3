//! Events that are kept, and what they tell afterwards: nothing that was acknowledged is lost,
//! and nothing that was not recorded is passed over.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, Run, Test};
use rustix::process::Signal;
use serde_json::Value;

/// How long something may take before the test fails.
const LIMIT: Duration = Duration::from_secs(60);

/// A running recorder, killed when dropped.
struct Recorder {
    child: Child,
    /// What it has said is on the disk.
    kept: Receiver<String>,
    said: Receiver<String>,
}

impl Recorder {
    /// Starts it, and waits until it records.
    fn start(lab: &Lab, dir: &Path, args: &[&str]) -> Result<Self> {
        let dir = dir.to_str().context("a path")?;
        let args = [&["-v", "record-events", "--dir", dir], args].concat();
        let mut command = lab.tool().args(&args).command()?;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let kept = lines(child.stdout.take().context("no output")?);
        let said = lines(child.stderr.take().context("no errors")?);
        let mut recorder = Self { child, kept, said };
        recorder.hears("recording in")?;
        Ok(recorder)
    }

    /// Waits until it complains or says so.
    fn hears(&mut self, word: &str) -> Test {
        let mut all = String::new();
        loop {
            let line =
                self.said.recv_timeout(LIMIT).with_context(|| format!("no {word:?} in {all}"))?;
            all += &line;
            if line.contains(word) {
                return Ok(());
            }
        }
    }

    /// Waits until an entry with these words is on the disk.
    fn keeps(&mut self, words: &[&str]) -> Result<String> {
        loop {
            let line = self.kept.recv_timeout(LIMIT).with_context(|| format!("no {words:?}"))?;
            if words.iter().all(|word| line.contains(word)) {
                return Ok(line);
            }
        }
    }

    fn signal(&self, signal: Signal) -> Test {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        Ok(rustix::process::kill_process(pid.context("no process")?, signal)?)
    }

    /// Ends it, and gives its exit status, with all that it had acknowledged and not told yet.
    fn end(mut self, signal: Signal) -> Result<(Option<i32>, Vec<String>, String)> {
        self.signal(signal)?;
        let status = self.child.wait()?;
        let said: String = self.said.iter().map(|line| line + "\n").collect();
        Ok((status.code(), self.kept.iter().collect(), said))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn history(lab: &Lab, dir: &Path, args: &[&str]) -> Result<Run> {
    let dir = dir.to_str().context("a path")?;
    lab.tool().args(&["--json", "history", "--dir", dir]).args(args).run()
}

/// The holdings in this lab's host.
fn holdings<'a>(lab: &Lab, run: &'a Run) -> Result<Vec<&'a Value>> {
    let all = run.json["holdings"].as_array();
    let all = all.with_context(|| format!("{:?}: {}{}", run.code, run.stdout, run.stderr))?;
    Ok(all.iter().filter(|one| one["netns_inode"] == lab.host().inode).collect())
}

/// The numbers of acknowledged entries.
fn numbers(lines: &[String]) -> BTreeSet<u64> {
    lines.iter().filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect()
}

/// The numbers of the entries in a store.
fn stored(dir: &Path) -> Result<BTreeSet<u64>> {
    let mut all = BTreeSet::new();
    for file in std::fs::read_dir(dir)? {
        let file = file?;
        if file.file_name().to_string_lossy().starts_with("events-") {
            for line in std::fs::read_to_string(file.path())?.lines() {
                let json = line.split_once(' ').map(|(_, json)| json);
                let entry = json.and_then(|json| serde_json::from_str::<Value>(json).ok());
                all.extend(entry.and_then(|entry| entry["seq"].as_u64()));
            }
        }
    }
    Ok(all)
}

#[test]
fn who_had_a_port_then_and_for_how_long() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let dir = lab.dir().join("store");
    let port = lab::unused_port()?;
    let question = port.to_string();
    let old = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
    let mut recorder = Recorder::start(&lab, &dir, &[])?;
    recorder.keeps(&["ready"])?;
    let pids = (old.pid, {
        old.kill()?;
        recorder.keeps(&["close", &question])?;
        let new = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port} --comm later"))?;
        recorder.keeps(&["listen", &question])?;
        let pid = new.pid;
        new.kill()?;
        recorder.keeps(&["close", &question])?;
        pid
    });
    // It is read while it is written to.
    let run = history(&lab, &dir, &[&question])?;
    let told = holdings(&lab, &run)?;
    ensure!(run.code == Some(0) && told.len() == 2, "{:?}: {}", run.code, run.stdout);
    ensure!(
        told[0]["holder"]["pid"] == pids.0 && told[0]["from"]["known"] == "before",
        "{}",
        told[0]
    );
    ensure!(told[0]["to"]["known"] == "seen", "{}", told[0]);
    ensure!(told[1]["holder"]["pid"] == pids.1, "{}", told[1]);
    ensure!(told[1]["from"]["known"] == "seen" && told[1]["to"]["known"] == "seen", "{}", told[1]);
    ensure!(told[1]["lasted_ms"].as_u64().is_some_and(|ms| ms < 60_000), "{}", told[1]);
    let (code, ..) = recorder.end(Signal::TERM)?;
    ensure!(code == Some(0), "{code:?}");

    // Long before the recorder began nothing is known, which is not nobody.
    let early = history(&lab, &dir, &[&question, "--at", "2001-01-01 03:12"])?;
    ensure!(early.code == Some(3) && early.json["times_recorded"] == 0, "{}", early.stdout);
    let text =
        lab.tool().args(&["history", &question, "--dir", dir.to_str().context("path")?]).run()?;
    for word in ["since before", "from ", "lab-helper[", &pids.1.to_string(), "recorded from"] {
        ensure!(text.stdout.contains(word), "no {word:?} in {}", text.stdout);
    }
    let nobody = history(&lab, &dir, &[&lab::unused_port()?.to_string()])?;
    ensure!(matches!(nobody.code, Some(1 | 3)) && holdings(&lab, &nobody)?.is_empty());
    Ok(())
}

#[test]
fn what_was_acknowledged_outlives_kill_and_the_gap_is_told() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let dir = lab.dir().join("store");
    let port = lab::unused_port()?;
    let question = port.to_string();
    let mut acknowledged = BTreeSet::new();
    for round in 0..4_u64 {
        let mut recorder = Recorder::start(&lab, &dir, &[])?;
        let burst = lab.flap(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
        let mut lines = Vec::new();
        // Killed at another place each time, in the middle of writing.
        for _ in 0..(3 + round * 17) {
            lines.push(recorder.keeps(&[])?);
        }
        let (code, rest, _) = recorder.end(Signal::KILL)?;
        ensure!(code.is_none(), "{code:?}");
        lines.extend(rest);
        acknowledged.extend(numbers(&lines));
        drop(burst);
        let stored = stored(&dir)?;
        let missing: Vec<_> = acknowledged.difference(&stored).collect();
        ensure!(missing.is_empty(), "{missing:?} of {} are lost", acknowledged.len());
    }
    let mut last = Recorder::start(&lab, &dir, &[])?;
    last.keeps(&["ready"])?;
    last.end(Signal::INT)?;
    let run = history(&lab, &dir, &[&question])?;
    let gaps = run.json["unrecorded"].as_array().context("no gaps")?;
    ensure!(gaps.len() == 4, "{gaps:?}");
    ensure!(gaps.iter().all(|gap| gap["ended"] == false && gap["booted"] == false), "{gaps:?}");
    ensure!(run.json["damaged"] == 0, "{}", run.stdout);
    let text =
        lab.tool().args(&["history", &question, "--dir", dir.to_str().context("path")?]).run()?;
    ensure!(text.stdout.contains("not recorded from"), "{}", text.stdout);
    Ok(())
}

#[test]
fn a_listener_that_was_there_before_and_after_a_gap_is_one() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let dir = lab.dir().join("store");
    let port = lab::unused_port()?;
    let stays = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
    let mut goes = Some(lab.listen(lab.host(), &format!("udp 127.0.0.1:{port}"))?);
    for signal in [Signal::KILL, Signal::INT] {
        let mut recorder = Recorder::start(&lab, &dir, &[])?;
        recorder.keeps(&["ready"])?;
        recorder.end(signal)?;
        if let Some(goes) = goes.take() {
            goes.kill()?;
        }
    }
    let run = history(&lab, &dir, &[&port.to_string()])?;
    let told = holdings(&lab, &run)?;
    ensure!(told.len() == 2, "{}", run.stdout);
    let of = |proto: &str| told.iter().find(|one| one["proto"] == proto).context("one is missing");
    ensure!(of("tcp")?["holder"]["pid"] == stays.pid && of("tcp")?["to"]["known"] == "last");
    ensure!(of("udp")?["to"]["known"] == "between", "{}", of("udp")?);
    Ok(())
}

#[test]
fn a_second_recorder_is_refused_and_says_why() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let dir = lab.dir().join("store");
    let first = Recorder::start(&lab, &dir, &[])?;
    let path = dir.to_str().context("a path")?;
    let second = lab.tool().args(&["record-events", "--dir", path, "--duration", "1s"]).run()?;
    ensure!(second.code == Some(2), "{:?}", second.code);
    ensure!(second.stderr.contains("another recorder"), "{}", second.stderr);
    ensure!(second.stderr.contains(&first.child.id().to_string()), "{}", second.stderr);
    Ok(())
}

#[test]
fn a_full_disk_loses_nothing_and_is_told() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let dir = lab.dir().join("small");
    std::fs::create_dir(&dir)?;
    // Large enough for what other tests do meanwhile: the recorder keeps that, too.
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "none"]).arg(&dir).status()?;
    ensure!(mounted.success());
    let result = full_disk(&lab, &dir);
    let _ = Command::new("umount").arg("-l").arg(&dir).status()?;
    result
}

fn full_disk(lab: &Lab, dir: &Path) -> Test {
    let port = lab::unused_port()?;
    let question = port.to_string();
    let store = dir.join("store");
    let mut recorder = Recorder::start(lab, &store, &[])?;
    recorder.keeps(&["ready"])?;
    // Whatever is left goes to a file.
    let ballast = dir.join("ballast");
    let mut file = std::fs::File::create(&ballast)?;
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    // What still fits on the last page of the store is written.
    lab.burst(lab.host(), &format!("tcp 127.0.0.1:{port}"), 100)?;
    recorder.hears("events wait in memory")?;
    let server = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port} --comm waits"))?;
    std::fs::remove_file(&ballast)?;
    recorder.hears("writing works again")?;
    let pid = server.pid;
    server.kill()?;
    let (code, rest, said) = recorder.end(Signal::INT)?;
    ensure!(code == Some(0), "{code:?} {said}");
    let stored = stored(&store)?;
    let missing: Vec<_> = numbers(&rest).into_iter().filter(|n| !stored.contains(n)).collect();
    ensure!(missing.is_empty(), "{missing:?}");
    let run = history(lab, &store, &[&question])?;
    let told = holdings(lab, &run)?;
    let count = told.iter().filter(|one| one["from"]["known"] == "seen").count();
    ensure!(count == 101, "{count} of 101: {:?}", run.json["lost"]);
    ensure!(told.iter().any(|one| one["holder"]["pid"] == pid), "{}", run.stdout);
    ensure!(run.json["damaged"] == 0, "{}", run.stdout);
    Ok(())
}

#[test]
fn it_keeps_to_its_size() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let dir = lab.dir().join("store");
    let port = lab::unused_port()?;
    let stays = lab.listen(lab.host(), &format!("udp 127.0.0.1:{port}"))?;
    let recorder = Recorder::start(&lab, &dir, &["--max-size", "1M"])?;
    lab.burst(lab.host(), &format!("tcp 127.0.0.1:{port}"), 4000)?;
    recorder.end(Signal::INT)?;
    let mut size = 0;
    for file in std::fs::read_dir(&dir)? {
        size += file?.metadata()?.len();
    }
    ensure!(size <= 1 << 20, "{size}");
    ensure!(stored(&dir)?.first() > Some(&1), "nothing was removed: the test tests nothing");
    // What still listens is known whatever was removed.
    let run = history(&lab, &dir, &[&format!("{port}/udp")])?;
    let told = holdings(&lab, &run)?;
    ensure!(told.len() == 1 && told[0]["holder"]["pid"] == stays.pid, "{}", run.stdout);
    Ok(())
}

/// What is answered to a question over HTTP.
fn ask(mut stream: impl Read + Write, accept: &str) -> Result<String> {
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
    ensure!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    Ok(body.to_owned())
}

/// Asks until the answer has these words: numbers are published a moment later.
fn until(path: &Path, words: &[&str]) -> Result<String> {
    let begun = std::time::Instant::now();
    loop {
        let text = ask(UnixStream::connect(path)?, "text/plain")?;
        if words.iter().all(|word| text.contains(word)) {
            return Ok(text);
        }
        if begun.elapsed() > LIMIT {
            bail!("no {words:?} in {text}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn metrics_are_those_that_prometheus_reads() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let dir = lab.dir().join("store");
    let socket = lab.dir().join("metrics.sock");
    let port = lab::unused_port()?;
    let _server = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
    let at = format!("unix:{}", socket.display());
    let recorder =
        Recorder::start(&lab, &dir, &["--metrics", &at, "-e", "listen,bind,close,drop"])?;
    let _later = lab.listen(lab.host(), &format!("udp 127.0.0.1:{port}"))?;
    // A port on which nothing listens.
    let closed = std::net::SocketAddr::from(([127, 0, 0, 1], lab::unused_port()?));
    let landing = lab.host().connect("tcp", closed)?;
    ensure!(landing == lab::Landing::Refused, "{landing:?}");
    let queue = format!("address=\"127.0.0.1\",port=\"{port}\"}}");
    let text = until(
        &socket,
        &[
            "whereis_port_events_total{kind=\"bind\"}",
            "whereis_port_listeners{proto=\"udp\",owner=\"lab-helper\"}",
            "whereis_port_accept_queue_waiting{",
            &queue,
            "whereis_port_store_writable 1",
        ],
    )?;
    ensure!(!text.contains("# EOF"), "{text}");
    if lab::has("promtool") {
        let mut command = Command::new("promtool");
        command.args(["check", "metrics"]);
        let said = lab.talk(command, &text)?;
        ensure!(said.is_empty(), "promtool: {said}");
    } else {
        lab::skip("promtool is not installed (package prometheus): its check is left out");
    }
    let open = ask(UnixStream::connect(&socket)?, "application/openmetrics-text;version=1.0.0")?;
    ensure!(open.ends_with("# EOF\n"), "{open}");
    // One that says nothing keeps nobody else waiting for long.
    let _silent = UnixStream::connect(&socket)?;
    ask(UnixStream::connect(&socket)?, "text/plain")?;
    recorder.end(Signal::INT)?;
    ensure!(!socket.exists(), "the socket is left behind");

    // Over TCP, in the recorder's own namespace.
    let port = lab::unused_port()?;
    let at = format!("127.0.0.1:{port}");
    let _recorder = Recorder::start(&lab, &dir, &["--metrics", &at])?;
    let text = lab::within(lab.host(), || ask(TcpStream::connect(&at)?, "text/plain"))?;
    ensure!(text.contains("whereis_port_store_bytes"), "{text}");
    Ok(())
}

#[test]
fn the_unit_is_one_that_systemd_takes() -> Test {
    if !lab::has("systemd-analyze") {
        lab::skip("systemd-analyze is not installed (package systemd)");
        return Ok(());
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/whereis-port-events.service");
    let text = std::fs::read_to_string(unit)?;
    // The tool is not installed where this runs.
    let dir = tempfile::tempdir()?;
    let copy = dir.path().join("whereis-port-events.service");
    std::fs::write(&copy, text.replace("/usr/bin/whereis-port", "/bin/true"))?;
    let output = Command::new("systemd-analyze").arg("verify").arg(&copy).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    Ok(())
}

#[test]
fn what_can_not_be_kept_or_read_is_refused() -> Test {
    let run = lab::ask(&["history", "80", "--dir", "/nowhere/at/all"])?;
    ensure!(
        run.code == Some(2) && run.stderr.contains("/nowhere/at/all"),
        "{:?} {}",
        run.code,
        run.stderr
    );
    for (args, words) in [
        (["record-events", "--dir", "/tmp/x", "--keep", "7"].as_slice(), ["7", "unit"]),
        (&["record-events", "--dir", "/tmp/x", "--max-size", "1K"], ["1K", "little"]),
        (&["record-events", "--dir", "/tmp/x", "--metrics", "nine"], ["nine", "127.0.0.1:9469"]),
        (&["record-events"], ["--dir", "required"]),
        (&["history", "80", "--dir", "/tmp", "--at", "25:00"], ["25:00", "03:12"]),
        (&["history", "--dir", "/tmp"], ["TARGET", "required"]),
    ] {
        let run = lab::ask(args)?;
        ensure!(run.code == Some(2), "{args:?}: {:?}", run.code);
        for word in words {
            ensure!(run.stderr.contains(word), "{args:?}: no {word:?} in {}", run.stderr);
        }
    }
    Ok(())
}
