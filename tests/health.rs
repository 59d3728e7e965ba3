//! Listeners that do not answer though everything leads to them, and what else is noticed of them.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Run, Test, within};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Asks until the answer is so: a signal takes a moment.
fn until(lab: &Lab, question: &str, is_so: impl Fn(&Run) -> Result<bool>) -> Result<Run> {
    for _ in 0..500 {
        let run = lab.whereis(&[question])?;
        if is_so(&run)? {
            return Ok(run);
        }
    }
    anyhow::bail!("it never came to be so: {}", lab.whereis(&[question])?.stdout)
}

/// The codes of what is noticed.
fn noticed(run: &Run) -> Result<Vec<&str>> {
    let findings = run.answer()?["findings"].as_array().context("no findings")?;
    Ok(findings.iter().filter_map(|finding| finding["code"].as_str()).collect())
}

/// What is said of the loopback: whether it can be reached, and the word for why.
fn loopback(run: &Run) -> Result<(Option<bool>, &str)> {
    let reach = run.answer()?["reachable"].as_array().context("no statement")?;
    let one = reach.iter().find(|r| r["from"] == "loopback").context("none of the loopback")?;
    Ok((one["reachable"].as_bool(), one["code"].as_str().context("no code")?))
}

fn process(run: &Run) -> Result<&Value> {
    Ok(&run.answer()?["paths"][0]["end"]["process"])
}

/// A socket that listens and lets one connection wait, and who would like to connect.
fn queue(port: u16) -> Result<(OwnedFd, Vec<OwnedFd>)> {
    let at = SocketAddr::new("127.0.0.1".parse()?, port);
    let new = |flags| {
        let flags = SocketFlags::CLOEXEC | flags;
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
    };
    let listener = new(SocketFlags::empty())?;
    rustix::net::bind(&listener, &at)?;
    rustix::net::listen(&listener, 1)?;
    // The kernel lets in one more than the limit; the rest waits for an answer that does not come.
    let mut clients = Vec::new();
    for _ in 0..2 {
        let client = new(SocketFlags::empty())?;
        rustix::net::connect(&client, &at)?;
        clients.push(client);
    }
    let client = new(SocketFlags::NONBLOCK)?;
    let pending = rustix::net::connect(&client, &at);
    ensure!(pending == Err(rustix::io::Errno::INPROGRESS), "{pending:?}");
    clients.push(client);
    Ok((listener, clients))
}

#[test]
fn a_full_queue_is_not_reachable_for_sure() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let (listener, clients) = within(lab.host(), || queue(28001))?;
    let run = lab.whereis(&["28001/tcp"])?;
    ensure!(loopback(run.is_found()?)? == (None, "queue_full"), "{}", run.stdout);
    ensure!(noticed(&run)? == ["queue_full"], "{}", run.stdout);
    let socket = &run.answer()?["paths"][0]["hops"][0]["socket"];
    ensure!(socket["accept_queue"] == 2 && socket["accept_queue_limit"] == 1, "{socket}");
    // This listener's own, where that of the namespace is of all.
    ensure!(socket["accept_drops"].as_u64().is_some_and(|drops| drops > 0), "{socket}");
    let drops = &run.answer()?["listen_drops"][0];
    ensure!(drops["netns"]["inode"] == lab.host().inode, "{drops}");
    ensure!(drops["overflows"].as_u64().is_some_and(|n| n > 0), "{drops}");
    let text = lab.tool().arg("28001/tcp").run()?.stdout;
    ensure!(text.contains("2 connections wait to be accepted at 127.0.0.1:28001"), "{text}");
    ensure!(!text.contains("; reachable ") && text.contains("not known whether"), "{text}");
    let wide = lab.tool().args(&["list", "-o", "wide", "-t"]).run()?.stdout;
    ensure!(
        wide.contains("QUEUE") && wide.contains("2/1") && wide.contains("queue full"),
        "{wide}"
    );
    let waited =
        lab.whereis(&["wait", "28001/tcp", "--until", "reachable", "--timeout", "100ms"])?;
    ensure!(waited.code == Some(3), "{}", waited.stdout);
    // One is accepted: there is room again.
    let _served = rustix::net::accept(&listener)?;
    let run = lab.whereis(&["28001/tcp"])?;
    ensure!(loopback(&run)? == (Some(true), "bound_to_address"), "{}", run.stdout);
    ensure!(noticed(&run)?.is_empty(), "{}", run.stdout);
    drop(clients);
    Ok(())
}

#[test]
fn a_process_that_is_stopped_answers_nobody() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let listener = lab.listen(lab.host(), "tcp 127.0.0.1:28002")?;
    let pid = Pid::from_raw(i32::try_from(listener.pid)?).context("a process id")?;
    let state = |wanted: &str| until(&lab, "28002/tcp", |run| Ok(process(run)?["state"] == wanted));
    kill_process(pid, Signal::STOP)?;
    let run = state("stopped")?;
    ensure!(loopback(&run)? == (None, "owner_stopped"), "{}", run.stdout);
    ensure!(noticed(&run)? == ["owner_stopped"], "{}", run.stdout);
    let fix = &run.answer()?["findings"][0]["fix"]["command"];
    ensure!(*fix == serde_json::json!(["kill", "-CONT", listener.pid.to_string()]), "{fix}");
    kill_process(pid, Signal::CONT)?;
    let run = state("running")?;
    ensure!(loopback(&run)?.0 == Some(true) && noticed(&run)?.is_empty(), "{}", run.stdout);
    Ok(())
}

#[test]
fn one_of_several_that_are_stopped_is_enough() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let server = lab.listen(lab.host(), "tcp 127.0.0.1:28003 --fork 1")?;
    let pid = Pid::from_raw(i32::try_from(server.pid)?).context("a process id")?;
    kill_process(pid, Signal::STOP)?;
    let run = until(&lab, "28003/tcp", |run| {
        let processes = run.answer()?["paths"][0]["end"]["processes"].as_array();
        Ok(processes.into_iter().flatten().any(|process| process["state"] == "stopped"))
    })?;
    ensure!(loopback(&run)?.0 == Some(true) && noticed(&run)?.is_empty(), "{}", run.stdout);
    kill_process(pid, Signal::CONT)?;
    Ok(())
}

#[test]
fn a_frozen_cgroup_answers_nobody() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let argv = ["lab-helper"];
    let _listener = lab.listen_in(lab.host(), "paused", "tcp 127.0.0.1:28004", &argv)?;
    let group = lab.cgroup().join("paused");
    if !group.join("cgroup.freeze").exists() {
        lab::skip_on_this_kernel("cgroup v2 has no freezer here");
        return Ok(());
    }
    std::fs::write(group.join("cgroup.freeze"), "1")?;
    while !std::fs::read_to_string(group.join("cgroup.events"))?.contains("frozen 1") {
        std::thread::yield_now();
    }
    let run = lab.whereis(&["28004/tcp"]);
    // That mounts another `/sys`, without cgroups.
    let inside = ["netns", "exec", &lab.host().name];
    let inside = std::process::Command::new("ip")
        .args(inside)
        .arg(lab::binary()?)
        .args(["--json", "28004/tcp"])
        .output();
    std::fs::write(group.join("cgroup.freeze"), "0")?;
    let run = run?;
    let inside: Value = serde_json::from_slice(&inside?.stdout)?;
    let answer = &inside["answers"][0];
    ensure!(answer["findings"][0]["code"] == "owner_frozen", "{answer}");
    ensure!(process(&run)?["frozen"] == true, "{}", run.stdout);
    ensure!(loopback(&run)? == (None, "owner_frozen"), "{}", run.stdout);
    ensure!(noticed(&run)? == ["owner_frozen"], "{}", run.stdout);
    let run = lab.whereis(&["28004/tcp"])?;
    ensure!(loopback(&run)?.0 == Some(true), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_process_without_its_first_thread_serves_all_the_same() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let listener = lab.listen(lab.host(), "tcp 127.0.0.1:28005 --thread --leader-exits")?;
    let ended = |run: &Run| Ok(process(run)?["state"] == "leader_ended");
    let run = until(&lab, "28005/tcp", ended)?;
    ensure!(process(&run)?["pid"] == listener.pid, "{}", run.stdout);
    ensure!(noticed(&run)? == ["leader_ended"], "{}", run.stdout);
    ensure!(loopback(&run)?.0 == Some(true), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_program_that_is_gone_is_noticed() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _listener = lab.listen_like(lab.host(), "tcp 127.0.0.1:28006", &["serve-it", "-x"])?;
    let run = lab.whereis(&["28006/tcp"])?;
    ensure!(process(&run)?["program_deleted"] == false, "{}", run.stdout);
    ensure!(noticed(&run)?.is_empty(), "{}", run.stdout);
    std::fs::remove_file(lab.dir().join("like/serve-it"))?;
    let run = lab.whereis(&["28006/tcp"])?;
    ensure!(process(&run)?["program_deleted"] == true, "{}", run.stdout);
    ensure!(noticed(&run)? == ["program_deleted"], "{}", run.stdout);
    Ok(())
}

#[test]
fn who_shares_a_port_takes_a_share() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let args = "tcp 127.0.0.1:28007 --reuseport";
    let _one = lab.listen_like(lab.host(), args, &["first-server", "--old"])?;
    let _two = lab.listen_like(lab.host(), args, &["second-server", "--new"])?;
    let run = lab.whereis(&["28007/tcp"])?;
    ensure!(noticed(&run)? == ["port_shared"], "{}", run.stdout);
    let text = lab.tool().arg("28007/tcp").run()?.stdout;
    for part in ["each takes about 1 of 2 connections", "first-server --old", "second-server --new"]
    {
        ensure!(text.contains(part), "{part}: {text}");
    }
    // Forked off, they have one socket: nothing is shared.
    let _forks = lab.listen(lab.host(), "tcp 127.0.0.1:28008 --fork 2")?;
    ensure!(noticed(&lab.whereis(&["28008/tcp"])?)?.is_empty());
    Ok(())
}

#[test]
fn ipv6_only_is_said() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _only = lab.listen(lab.host(), "tcp [::]:28009 --v6only 1")?;
    ensure!(within(lab.host(), || Ok(TcpStream::connect("127.0.0.1:28009").is_err()))?);
    let run = lab.whereis(&["28009/tcp"])?;
    ensure!(noticed(&run)? == ["ipv6_only"], "{}", run.stdout);
    let text = lab.tool().arg("28009/tcp").run()?.stdout;
    ensure!(text.contains("bound to all IPv6 addresses, and to none of IPv4"), "{text}");
    // Another socket takes IPv4: all is well.
    let _four = lab.listen(lab.host(), "tcp 0.0.0.0:28009")?;
    ensure!(noticed(&lab.whereis(&["28009/tcp"])?)?.is_empty());
    let _dual = lab.listen(lab.host(), "tcp [::]:28010 --v6only 0")?;
    ensure!(noticed(&lab.whereis(&["28010/tcp"])?)?.is_empty());
    Ok(())
}

#[test]
fn a_forwarder_that_is_stopped_is_noticed_on_the_way() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _server = lab.listen(lab.host(), "tcp 127.0.0.1:28011")?;
    let argv = ["socat", "TCP-LISTEN:28012,fork", "TCP:127.0.0.1:28011"];
    let socat = lab.listen_like(lab.host(), "tcp 127.0.0.1:28012", &argv)?;
    let pid = Pid::from_raw(i32::try_from(socat.pid)?).context("a process id")?;
    kill_process(pid, Signal::STOP)?;
    let run = until(&lab, "28012/tcp", |run| Ok(!noticed(run)?.is_empty()))?;
    ensure!(noticed(&run)? == ["owner_stopped"], "{}", run.stdout);
    ensure!(loopback(&run)? == (None, "owner_stopped"), "{}", run.stdout);
    kill_process(pid, Signal::CONT)?;
    Ok(())
}

#[test]
fn a_child_with_another_program_that_has_the_listener_is_noticed() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let listener = within(lab.host(), || Ok(std::net::TcpListener::bind("127.0.0.1:28013")?))?;
    ensure!(noticed(&lab.whereis(&["28013/tcp"])?)?.is_empty());
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty())?;
    let child = std::process::Command::new("sleep").arg("100").spawn();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
    let mut child = child?;
    let run = lab.whereis(&["28013/tcp"]);
    child.kill()?;
    child.wait()?;
    let run = run?;
    ensure!(noticed(&run)?.contains(&"inherited"), "{}", run.stdout);
    Ok(())
}
