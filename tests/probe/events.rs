//! Events as programs in the kernel see them: also what is over at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Docker, Lab, Test, Tool, Trace, is_loaded, programs_of};
use rustix::process::Signal;
use serde_json::Value;

/// Starts a trace that writes JSON, and checks that programs see the events.
fn trace(tool: Tool<'_>, args: &[&str]) -> Result<Trace> {
    let trace = Trace::start(tool, &[&["--json"], args].concat())?;
    let gaps = trace.start["gaps"].as_array().context("no gaps")?;
    let nat = |gap: &Value| gap["source"].as_str().is_some_and(|s| s.starts_with("NAT events"));
    ensure!(gaps.iter().all(nat), "{}", trace.start);
    Ok(trace)
}

/// `listen tcp 127.0.0.1:80` of an event.
fn brief(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
    let port = event["port"].as_u64().unwrap_or_default();
    format!("{} {} {}:{port}", text("kind"), text("proto"), text("address"))
}

fn all_brief(events: &[Value]) -> Vec<String> {
    events.iter().map(brief).collect()
}

#[test]
fn a_process_that_has_ended_is_told_with_all_that_it_was() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let target = port.to_string();
    let trace = trace(lab.tool(), &[&target])?;
    // Whatever is told now was kept in the kernel: the process is gone by then.
    trace.signal(Signal::STOP)?;
    let mut server = lab.listen_as(
        lab.host(),
        65534,
        &format!("tcp 127.0.0.1:{port} udp [::1]:{port} --for-ms 5 --comm brief"),
    )?;
    server.wait()?;
    let pid = server.pid;
    drop(server);
    trace.signal(Signal::CONT)?;
    let (events, summary) = trace.interrupt()?;
    let mut told = all_brief(&events);
    let ended = told.split_off(2);
    ensure!(told == [format!("listen tcp 127.0.0.1:{port}"), format!("bind udp ::1:{port}")]);
    ensure!(ended.len() == 2 && ended.iter().all(|e| e.starts_with("close ")), "{ended:?}");
    for event in &events {
        let actor = &event["actor"];
        ensure!(event["seen_by"] == "ebpf" && event["process"].is_null(), "{event}");
        ensure!(actor["pid"] == pid && actor["uid"] == 65534, "{event}");
        ensure!(actor["comm"] == "brief" && actor["start_ticks"].is_u64(), "{event}");
        // A process that exits has left its namespaces when it closes its files.
        let left = event["kind"] == "close" && actor["netns_inode"].is_null();
        ensure!(left || actor["netns_inode"] == lab.host().inode, "{event}");
        ensure!(event["netns"]["inode"] == lab.host().inode, "{event}");
        ensure!(event["netns"]["name"] == lab.host().name.as_str(), "{event}");
    }
    ensure!(events[0]["inode"] == events[2]["inode"] || events[0]["inode"] == events[3]["inode"]);
    ensure!(summary["events"] == 4 && summary["lost"] == 0, "{summary}");
    Ok(())
}

#[test]
fn the_line_names_a_process_that_has_ended() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let port = lab::unused_port()?;
    let mut trace = Trace::start(lab.tool(), &["-n", "1", &port.to_string()])?;
    trace.signal(Signal::STOP)?;
    let mut server = lab.listen(&other, &format!("tcp 0.0.0.0:{port} --for-ms 5"))?;
    server.wait()?;
    let pid = server.pid;
    drop(server);
    trace.signal(Signal::CONT)?;
    let line = trace.text()?;
    let place = format!("0.0.0.0:{port}");
    let process = format!("lab-helper[{pid}]");
    for word in ["listen", "tcp", &place, &other.name, &process, "ended"] {
        ensure!(line.contains(word), "no {word:?} in {line}");
    }
    Ok(())
}

#[test]
fn everything_is_told_in_its_order_and_nothing_else() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let (first, second) = (lab::unused_port()?, lab::unused_port()?);
    let trace = trace(lab.tool(), &[&first.to_string(), &second.to_string()])?;
    let outside = lab::unused_port()?;
    let _outside = lab.listen(&other, &format!("tcp 127.0.0.1:{outside} udp [::]:{outside}"))?;
    let server = lab.listen(
        &other,
        &format!("tcp [::]:{first} udp 127.0.0.1:{first} tcp 127.0.0.1:{second} --v6only 1"),
    )?;
    // It has no chance to close anything itself.
    server.kill()?;
    let shared = lab.listen(lab.host(), &format!("udp [::1]:{first} --fork 1 --dup 1"))?;
    drop(shared);
    let (events, summary) = trace.interrupt()?;
    let told = all_brief(&events);
    ensure!(
        told[..3]
            == [
                format!("listen tcp :::{first}"),
                format!("bind udp 127.0.0.1:{first}"),
                format!("listen tcp 127.0.0.1:{second}")
            ],
        "{told:?}"
    );
    let mut closed = told.get(3..6).with_context(|| format!("{told:?}"))?.to_vec();
    closed.sort();
    ensure!(
        closed
            == [
                format!("close tcp 127.0.0.1:{second}"),
                format!("close tcp :::{first}"),
                format!("close udp 127.0.0.1:{first}")
            ],
        "{told:?}"
    );
    ensure!(told[6] == format!("bind udp ::1:{first}"), "{told:?}");
    // A child of it may still hold the last one.
    ensure!(told.len() <= 8, "{told:?}");
    let times: Vec<&str> = events.iter().filter_map(|e| e["time"].as_str()).collect();
    ensure!(times.is_sorted() && times.len() == told.len(), "{times:?}");
    for event in &events[..6] {
        ensure!(event["netns"]["inode"] == other.inode, "{event}");
    }
    ensure!(summary["events"] == told.len(), "{summary}");
    ensure!(summary["by_kind"]["listen"] == 2 && summary["by_kind"]["bind"] == 2, "{summary}");
    Ok(())
}

#[test]
fn a_client_is_neither_a_bind_nor_a_close() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let server = lab.listen(lab.host(), &format!("udp 127.0.0.1:{port}"))?;
    let trace = trace(lab.tool(), &["-e", "bind,close"])?;
    // A client is bound by its first packet; it asks for no port.
    let from = format!("</dev/null nc -u -w1 127.0.0.1 {port}; exec 3>/dev/udp/127.0.0.1/{port}");
    let mut client = lab.spawn(lab.host(), &["bash", "-c", &format!("{from}; echo x >&3")])?;
    client.wait()?;
    // That one was there before the trace, and its end is told all the same.
    server.kill()?;
    let (events, _) = trace.interrupt()?;
    let ours = events.iter().filter(|e| e["netns"]["inode"] == lab.host().inode);
    let told: Vec<String> = ours.map(brief).collect();
    ensure!(told == [format!("close udp 127.0.0.1:{port}")], "{told:?}");
    Ok(())
}

#[test]
fn connections_are_told_from_both_sides() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let target = port.to_string();
    let trace = trace(lab.tool(), &["-e", "connect,accept", &target])?;
    let server = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port} --clients 3"))?;
    let (events, summary) = trace.interrupt()?;
    let by_kind = &summary["by_kind"];
    ensure!(by_kind["connect"] == 3 && by_kind["accept"] == 3, "{summary}: {events:?}");
    ensure!(summary["events"] == 6, "{summary}");
    for event in &events {
        if event["kind"] == "connect" {
            ensure!(event["peer"]["address"] == "127.0.0.1", "{event}");
            ensure!(event["peer"]["port"] == port, "{event}");
            ensure!(event["actor"]["pid"] == server.pid, "{event}");
            ensure!(event["process"]["pid"] == server.pid, "{event}");
        } else {
            ensure!(brief(event) == format!("accept tcp 127.0.0.1:{port}"), "{event}");
            ensure!(event["peer"]["port"].as_u64().is_some_and(|p| p > 1024), "{event}");
            // The packet came in while anybody ran.
            ensure!(event["actor"].is_null(), "{event}");
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_counted_exactly() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let trace = trace(lab.tool(), &["-e", "listen,close", &port.to_string()])?;
    trace.signal(Signal::STOP)?;
    // Each is one event for listening and one for closing.
    lab.burst(lab.host(), &format!("tcp 127.0.0.1:{port}"), 40_000)?;
    trace.signal(Signal::CONT)?;
    let (lines, summary) = trace.interrupt()?;
    let seen = lines.iter().filter(|line| line["type"] == "event").count() as u64;
    let lost = summary["lost"].as_u64().context("no count of the lost")?;
    ensure!(lost > 0, "all 80000 fitted: the test tests nothing");
    ensure!(seen + lost == 80_000, "{seen} seen, {lost} lost");
    ensure!(summary["events"] == seen, "{summary}");
    let told: u64 = lines.iter().filter_map(|line| line["lost"].as_u64()).sum();
    ensure!(told == lost, "{told} of {lost} were told before the end");
    Ok(())
}

#[test]
fn two_traces_see_the_same() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let target = port.to_string();
    let traces = [trace(lab.tool(), &[&target])?, trace(lab.tool(), &[&target])?];
    lab.burst(lab.host(), &format!("tcp 127.0.0.1:{port}"), 500)?;
    lab.burst(lab.host(), &format!("udp 127.0.0.1:{port}"), 500)?;
    for trace in traces {
        let (events, summary) = trace.interrupt()?;
        let kinds = BTreeMap::from([("bind", 500), ("close", 1000), ("listen", 500)]);
        ensure!(summary["by_kind"] == serde_json::json!(kinds), "{summary}");
        ensure!(events.len() == 2000 && summary["lost"] == 0, "{summary}");
    }
    Ok(())
}

#[test]
fn nothing_stays_attached_when_it_is_killed() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?.to_string();
    let trace = trace(lab.tool(), &["-e", "listen,bind,close,connect,accept,nat", &port])?;
    let programs = programs_of(trace.pid())?;
    // One for TCP, two for binding and one for closing UDP.
    ensure!(programs.len() >= 4, "{programs:?}");
    for id in &programs {
        ensure!(is_loaded(*id)?, "{id} is not loaded");
    }
    trace.signal(Signal::KILL)?;
    ensure!(trace.end()?.0.code().is_none());
    let begun = Instant::now();
    for id in programs {
        while is_loaded(id)? {
            ensure!(begun.elapsed() < Duration::from_secs(10), "program {id} is still loaded");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

#[test]
fn a_docker_container_that_has_ended_is_named() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    let lab = docker.lab();
    let (first, second) = (lab::unused_port()?, lab::unused_port()?);
    let (one, two) = (first.to_string(), second.to_string());
    let mut trace = trace(lab.tool(), &["-e", "listen", "-n", "2", &one, &two])?;
    for (name, network, port) in [("short-bridge", "bridge", first), ("short-host", "host", second)]
    {
        let address = format!("0.0.0.0:{port}");
        let command = ["/bin/lab-helper", "listen", "tcp", &address, "--for-ms", "5"];
        let options = ["run", "--detach", "--name", name, "--network", network, "lab/server:1"];
        let id = docker.cli(&[&options[..], &command].concat())?;
        let line = trace.line()?;
        ensure!(brief(&line) == format!("listen tcp {address}"), "{line}");
        ensure!(line["actor"]["comm"] == "lab-helper" && line["actor"]["pid"].is_u64(), "{line}");
        let container = &line["container"];
        ensure!(container["id"] == id.as_str(), "{id}: {line}");
        let is_host = line["netns"]["inode"] == lab.host().inode;
        ensure!(is_host == (network == "host"), "{line}");
    }
    Ok(())
}

#[test]
fn ids_are_those_of_the_tools_own_pid_namespace() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let target = port.to_string();
    let args = ["-e", "listen", "-n", "1", &target];
    let mut outside = trace(lab.tool(), &args)?;
    let alone = ["unshare", "-pf", "--mount-proc"];
    let mut apart = trace(lab.tool().through(&alone), &args)?;
    ensure!(apart.start["gaps"] == serde_json::json!([]), "{}", apart.start);
    // It is process 1 of a namespace of its own, a child of the one that was started.
    let server = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port} --pidns"))?;
    let children = format!("/proc/{0}/task/{0}/children", server.pid);
    let inner: u32 = std::fs::read_to_string(children)?.trim().parse()?;
    let line = outside.line().context("outside")?;
    ensure!(line["actor"]["pid"] == inner && line["process"]["pid"] == inner, "{line}");
    ensure!(line["process"]["inner_pid"] == 1, "{line}");
    let line = apart.line()?;
    ensure!(line["actor"]["pid"].is_null() && line["process"].is_null(), "{line}");
    ensure!(line["actor"]["comm"] == "lab-helper", "{line}");
    Ok(())
}

#[test]
fn a_listener_that_is_bound_anew_is_told_anew() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let trace = trace(lab.tool(), &[&port.to_string()])?;
    for family in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
        let args = format!("tcp {family}:{port} udp {family}:{port} --v6only 0 --clients 2");
        lab.listen(lab.host(), &args)?.kill()?;
    }
    let (events, summary) = trace.interrupt()?;
    // Neither connections nor their end are a listener's.
    ensure!(summary["events"] == 12, "{:?}", all_brief(&events));
    let opened = all_brief(&events).into_iter().filter(|told| !told.starts_with("close"));
    let expected = ["127.0.0.1", "::1", "::ffff:127.0.0.1"].map(|address| {
        [format!("listen tcp {address}:{port}"), format!("bind udp {address}:{port}")]
    });
    ensure!(opened.eq(expected.into_iter().flatten()), "{:?}", all_brief(&events));
    Ok(())
}
