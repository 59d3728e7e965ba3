//! Events as they happen: seen, told with who did it, and ended in good order.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, ensure};
use lab::{FakeContainer, FakeDocker, Lab, Test, Trace};
use rustix::process::Signal;
use serde_json::Value;

/// Every way of watching that there may be here.
const WAYS: [&[&str]; 2] = [&["--no-ebpf", "--interval", "50ms"], &["--interval", "50ms"]];

#[test]
fn a_listener_is_seen_to_come_and_go_with_its_process() -> Test {
    lab::root_or_skip!();
    for way in WAYS {
        let lab = Lab::new()?;
        let port = lab::unused_port()?;
        let target = port.to_string();
        let args = [&["--json", "--count", "2", &target], way].concat();
        let mut trace = Trace::start(lab.tool(), &args)?;

        let listener = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
        let line = trace.line()?;
        ensure!(line["type"] == "event" && line["kind"] == "listen", "{line}");
        ensure!(line["proto"] == "tcp" && line["address"] == "127.0.0.1", "{line}");
        ensure!(line["port"] == port, "{line}");
        ensure!(line["netns"]["inode"] == lab.host().inode, "{line}");
        ensure!(line["netns"]["name"] == lab.host().name.as_str(), "{line}");
        ensure!(line["actor"]["pid"] == listener.pid && line["actor"]["uid"] == 0, "{line}");
        ensure!(line["process"]["pid"] == listener.pid, "{line}");
        ensure!(line["process"]["cmdline"][1] == "listen", "{line}");
        ensure!(line["unix_ms"].as_u64().is_some_and(|ms| ms > 1_700_000_000_000), "{line}");

        listener.kill()?;
        let line = trace.line()?;
        ensure!(line["kind"] == "close" && line["port"] == port, "{line}");
        let line = trace.line()?;
        ensure!(line["type"] == "summary" && line["events"] == 2, "{line}");
        ensure!(line["by_kind"]["listen"] == 1 && line["by_kind"]["close"] == 1, "{line}");
        let (status, rest, _) = trace.end()?;
        ensure!(status.code() == Some(0) && rest.is_empty(), "{status}: {rest:?}");
    }
    Ok(())
}

#[test]
fn only_what_was_asked_for_is_told() -> Test {
    lab::root_or_skip!();
    for way in WAYS {
        let lab = Lab::new()?;
        let port = lab::unused_port()?;
        let target = format!("{port}/udp");
        let args = [&["--json", "-e", "bind", "-n", "1", &target, "1/udp"], way].concat();
        let mut trace = Trace::start(lab.tool(), &args)?;
        // The same port by another protocol, another port, and then the one.
        let _tcp = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
        let _other = lab.listen(lab.host(), &format!("udp 127.0.0.1:{}", lab::unused_port()?))?;
        let _udp = lab.listen(lab.host(), &format!("udp 127.0.0.1:{port}"))?;
        let line = trace.line()?;
        ensure!(line["kind"] == "bind" && line["proto"] == "udp", "{line}");
        ensure!(line["port"] == port, "{line}");
        ensure!(trace.line()?["type"] == "summary", "{}", trace.stderr());
        ensure!(trace.end()?.0.code() == Some(0));
    }
    Ok(())
}

#[test]
fn containers_and_namespaces_made_while_watching_are_named() -> Test {
    lab::root_or_skip!();
    for way in WAYS {
        let lab = Lab::new()?;
        let id = "c4".repeat(32);
        // A daemon that names a process of somewhere else is not believed; this one names none.
        let container = FakeContainer { id: &id, name: "shop", labels: (0, 0), pid: 0 };
        let daemon = FakeDocker::with(lab.dir(), &container)?;
        let port = lab::unused_port()?;
        let target = port.to_string();
        let args = [&["--json", "-e", "listen", "-n", "1", &target], way].concat();
        let tool = lab.tool().env("DOCKER_HOST", &daemon.url());
        let mut trace = Trace::start(tool, &args)?;
        let new = lab.netns("new")?;
        let proc = lab.listen_in_container(&new, &id, &format!("tcp 0.0.0.0:{port}"))?;
        let line = trace.line()?;
        ensure!(line["netns"]["inode"] == new.inode, "{line}");
        ensure!(line["netns"]["name"] == new.name.as_str(), "{line}");
        ensure!(line["container"]["id"] == id.as_str(), "{line}");
        ensure!(line["container"]["name"] == "shop", "{line}");
        ensure!(line["process"]["pid"] == proc.pid, "{line}");
    }
    Ok(())
}

#[test]
fn comparing_is_said_and_marked() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let args = ["--no-ebpf", "--interval", "50ms", "-n", "1", &port.to_string()];
    let mut trace = Trace::start(lab.tool(), &args)?;
    trace.hears("\n~: found by comparing readings 50ms apart")?;
    let listener = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
    let line = trace.text()?;
    let words: Vec<&str> = line.split_whitespace().skip(1).take(4).collect();
    let place = format!("127.0.0.1:{port}");
    ensure!(words == ["~listen", "tcp", &place, &lab.host().name], "{line}");
    ensure!(line.contains(&format!("lab-helper[{}]", listener.pid)), "{line}");
    let (status, _, said) = trace.end()?;
    ensure!(status.code() == Some(0), "{status}");
    ensure!(said.contains("--no-ebpf") && said.contains("1 event: 1 listen; 0 lost"), "{said}");
    Ok(())
}

#[test]
fn an_interrupt_ends_it_with_a_summary_and_what_had_happened() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    for (signal, json) in [(Signal::INT, false), (Signal::TERM, true)] {
        let port = lab::unused_port()?.to_string();
        // It would be an hour until the next reading.
        let mut args = vec!["--no-ebpf", "--interval", "1h", &port];
        args.extend(json.then_some("--json"));
        let trace = Trace::start(lab.tool(), &args)?;
        let _listener = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
        trace.signal(signal)?;
        let (status, out, said) = trace.end()?;
        ensure!(status.code() == Some(0), "{signal:?}: {status}: {said}");
        ensure!(out.len() == if json { 2 } else { 1 }, "{out:?}");
        ensure!(out[0].contains("listen") && out[0].contains(&port), "{out:?}");
        let summary = if json { &out[1] } else { &said };
        let words = if json { "\"events\":1" } else { "1 event: 1 listen; 0 lost" };
        ensure!(summary.contains(words), "{out:?} {said}");
    }
    Ok(())
}

#[test]
fn seeing_nothing_is_not_nothing_happened_where_readings_are_compared() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?.to_string();
    let args = ["--json", "--no-ebpf", "--duration", "100ms", &port];
    let trace = Trace::start(lab.tool(), &args)?;
    let (status, out, said) = trace.end()?;
    ensure!(status.code() == Some(3), "{status}: {said}");
    let last: Value = serde_json::from_str(out.last().context("no summary")?)?;
    ensure!(last["type"] == "summary" && last["events"] == 0, "{last}");
    ensure!(last["gaps"][0]["source"] == "eBPF", "{last}");
    Ok(())
}

#[test]
fn a_reader_that_goes_away_ends_it() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?.to_string();
    for way in WAYS {
        let mut command = lab.tool().args(&["trace", "--json", &port]).args(way).command()?;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut first = String::new();
        // The pipe is closed with its reader, and nothing happens that could be written.
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut first)?;
        let trace = Trace::of(child)?;
        let (status, _, said) = trace.end()?;
        ensure!(first.contains("start"), "{first}");
        ensure!(matches!(status.code(), Some(1 | 3)) && said.is_empty(), "{status}: {said}");
    }
    Ok(())
}

#[test]
fn a_user_without_rights_watches_what_he_can_see() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let args = ["--json", "-n", "1", "--interval", "50ms", &port.to_string()];
    let mut trace = Trace::start(lab.tool().uid(65534), &args)?;
    let listener = lab.listen_as(lab.host(), 65534, &format!("tcp 127.0.0.1:{port}"))?;
    let line = trace.line()?;
    ensure!(line["kind"] == "listen" && line["actor"]["pid"] == listener.pid, "{line}");
    ensure!(line["seen_by"] == "comparison", "{line}");
    Ok(())
}

#[test]
fn what_the_tool_logs_is_shown_when_asked_for_twice() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?.to_string();
    for (verbose, logs) in [("-v", false), ("-vv", true)] {
        let args = [verbose, "--no-ebpf", "--duration", "50ms", &port];
        let (_, out, said) = Trace::start(lab.tool(), &args)?.end()?;
        ensure!(out.is_empty(), "{out:?}");
        ensure!(said.contains("DEBUG") == logs, "{verbose}: {said}");
        ensure!(said.contains("comparing readings"), "{verbose}: {said}");
    }
    Ok(())
}

#[test]
fn bad_input_is_refused_before_anything_is_watched() -> Test {
    for (args, words) in [
        (["--events", "foo"].as_slice(), ["foo", "listen"]),
        (&["--duration", "x"], ["x", "10s"]),
        (&["--duration", "10"], ["10s", "10ms"]),
        (&["--duration", "0s"], ["0s", "no time"]),
        (&["--interval", "0ms"], ["0ms", "10ms"]),
        (&["--count", "0"], ["0", "count"]),
        (&["0"], ["0", "1 to 65535"]),
        (&["80", "list"], ["list", "command"]),
        (&["--replay", "node.json"], ["trace", "recording"]),
    ] {
        let run = lab::ask(&[&["trace"], args].concat())?;
        ensure!(run.code == Some(2) && run.stdout.is_empty(), "{args:?}: {:?}", run.code);
        for word in words {
            ensure!(run.stderr.contains(word), "{args:?}: no {word:?} in {}", run.stderr);
        }
    }
    let run = lab::ask(&["80", "--duration", "1s"])?;
    ensure!(run.code == Some(2) && run.stderr.contains("whereis-port trace"), "{}", run.stderr);
    Ok(())
}
