//! Waiting for a port, and finding one that is free.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Netns, Run, Test, within};
use serde_json::Value;

/// Runs the tool while, after a moment, `work` is done.
fn meanwhile<T: Send>(
    lab: &Lab,
    args: &[&str],
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<(Run, T)> {
    std::thread::scope(|scope| {
        let tool = scope.spawn(|| lab.tool().args(&["--json", "wait"]).args(args).run());
        // However long this is: what it waits for comes while it waits, or was there before.
        std::thread::sleep(Duration::from_millis(700));
        let done = work();
        let run = tool.join().map_err(|_| anyhow::anyhow!("the tool's thread panicked"))?;
        Ok((run?, done?))
    })
}

#[test]
fn what_is_there_is_not_waited_for() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let listener = lab.listen(lab.host(), "tcp 127.0.0.1:27001")?;
    let run = lab.whereis(&["wait", "27001/tcp", "--timeout", "1m"])?;
    ensure!(run.code == Some(0) && run.json["satisfied"] == true, "{}{}", run.stdout, run.stderr);
    let wait = &run.json["waits"][0];
    ensure!(wait["text"].as_str().is_some_and(|t| t.contains(&listener.pid.to_string())), "{wait}");
    for until in ["reachable", "listen"] {
        let run = lab.whereis(&["wait", "127.0.0.1:27001/tcp", "--until", until])?;
        ensure!(run.code == Some(0), "{until}: {}{}", run.stdout, run.stderr);
    }
    let run = lab.whereis(&["wait", "27002/tcp", "--until", "free"])?;
    ensure!(run.code == Some(0), "{}{}", run.stdout, run.stderr);
    Ok(())
}

#[test]
fn a_listener_that_comes_up_ends_the_wait() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let (run, _listener) = meanwhile(&lab, &["27003/tcp", "--timeout", "2m"], || {
        lab.listen(lab.host(), "tcp 0.0.0.0:27003")
    })?;
    ensure!(run.code == Some(0) && run.json["waits"][0]["satisfied"] == true, "{}", run.stdout);
    let (run, _udp) = meanwhile(&lab, &["27003/udp", "--timeout", "2m"], || {
        within(lab.host(), || Ok(UdpSocket::bind("127.0.0.1:27003")?))
    })?;
    ensure!(run.code == Some(0), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_port_that_is_given_up_ends_the_wait_for_a_free_one() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let listener = lab.listen(lab.host(), "tcp 0.0.0.0:27004")?;
    let run = lab.whereis(&["wait", "27004/tcp", "--until", "free", "--timeout", "300ms"])?;
    ensure!(run.code == Some(1) && run.json["satisfied"] == false, "{}", run.stdout);
    let text = run.json["waits"][0]["text"].as_str().context("no text")?;
    ensure!(text.contains(&listener.pid.to_string()), "{text}");
    let args = ["27004/tcp", "--until", "free", "--timeout", "2m"];
    let (run, ()) = meanwhile(&lab, &args, || listener.kill())?;
    ensure!(run.code == Some(0), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_listener_elsewhere_is_not_the_one_that_is_waited_for() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let inner = lab.netns("inner")?;
    lab.veth((lab.host(), "veth0", "10.9.7.1/24"), (&inner, "eth0", "10.9.7.2/24"))?;
    let _listener = lab.listen(&inner, "tcp 0.0.0.0:27005")?;
    let run = lab.whereis(&["wait", "27005/tcp", "--timeout", "300ms"])?;
    ensure!(run.code == Some(1), "{}", run.stdout);
    let run = lab.whereis(&["wait", "10.9.7.2:27005/tcp", "--until", "reachable"])?;
    ensure!(run.code == Some(0), "{}", run.stdout);
    Ok(())
}

#[test]
fn of_several_all_or_any_are_waited_for() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _listener = lab.listen(lab.host(), "tcp 0.0.0.0:27006")?;
    let both = ["wait", "27006/tcp", "27007/tcp", "--timeout", "300ms"];
    let run = lab.whereis(&both)?;
    let satisfied: Vec<&Value> =
        run.json["waits"].as_array().context("no waits")?.iter().map(|w| &w["satisfied"]).collect();
    ensure!(run.code == Some(1) && satisfied == [true, false], "{}", run.stdout);
    let run = lab.whereis(&[&both[..], &["--any"]].concat())?;
    ensure!(run.code == Some(0) && run.json["satisfied"] == true, "{}", run.stdout);
    for (wrong, says) in [
        (&["wait", "27006-27009"][..], "27006-27009"),
        (&["wait"], "TARGET"),
        (&["wait", "80", "--until", "tomorrow"], "tomorrow"),
        (&["wait", "80", "--timeout", "5"], "5s"),
        (&["wait", "80", "--replay", "/nowhere"], "recording"),
        (&["free", "9-1"], "1-9"),
        (&["free", "127.0.0.1:80-90"], "127.0.0.1"),
        (&["free", "-n", "0"], "0"),
    ] {
        let run = lab.tool().args(wrong).run()?;
        ensure!(run.code == Some(2) && run.stderr.contains(says), "{wrong:?}: {}", run.stderr);
    }
    Ok(())
}

fn ports(run: &Run) -> Result<Vec<u16>> {
    let all = run.json["free_ports"].as_array().with_context(|| run.stderr.clone())?;
    all.iter().map(|port| Ok(u16::try_from(port.as_u64().context("no number")?)?)).collect()
}

/// Whether both protocols can be bound to a port.
fn can_have(netns: &Netns, port: u16) -> Result<bool> {
    within(netns, || {
        let all = SocketAddr::new("0.0.0.0".parse()?, port);
        Ok(TcpListener::bind(all).is_ok() && UdpSocket::bind(all).is_ok())
    })
}

#[test]
fn free_ports_are_those_that_nothing_has_or_wants() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _tcp = lab.listen(lab.host(), "tcp 127.0.0.1:27010")?;
    let _udp = within(lab.host(), || {
        let udp = UdpSocket::bind("127.0.0.1:27011")?;
        udp.connect("127.0.0.1:9")?;
        Ok(udp)
    })?;
    lab.host().sysctl("ipv4/ip_local_reserved_ports", "27012")?;
    lab.host().sysctl("ipv4/ip_local_port_range", "27014 29000")?;
    let mut left = BTreeSet::from([27_009, 27_013]);
    if lab::no_rules().is_none() {
        lab.nft(lab.host(), "table ip t { chain p { type nat hook output priority -100; tcp dport 27013 redirect to :1; }; }")?;
        left.remove(&27_013);
    }
    let run = lab.whereis(&["free", "27009-27099", "-n", "5"])?;
    let found: BTreeSet<u16> = ports(&run)?.into_iter().collect();
    ensure!(found == left && run.code == Some(1), "{}", run.stdout);
    ensure!(can_have(lab.host(), 27_009)?);
    let passed = run.json["passed"].as_array().context("nothing passed over")?;
    let count = |code: &str| passed.iter().find(|p| p["code"] == code).map(|p| &p["count"]);
    ensure!(count("in_use").is_some_and(|n| *n == 2), "{}", run.stdout);
    ensure!(count("reserved").is_some_and(|n| *n == 1), "{}", run.stdout);
    ensure!(count("ephemeral").is_some_and(|n| *n == 86), "{}", run.stdout);
    // One protocol alone has more of them, and the same question the same answer.
    let run = lab.whereis(&["free", "27009-27099/udp", "-n", "2"])?;
    ensure!(ports(&run)? == [27_009, 27_010] && run.code == Some(0), "{}", run.stdout);
    let run = lab.whereis(&["free", "30000-32767"])?;
    ensure!(ports(&run)?.is_empty() && run.code == Some(1), "{}", run.stdout);
    // Privileged ones are not for everybody.
    let run = lab.tool().args(&["--json", "free", "1000-1030"]).uid(65534).run()?;
    ensure!(ports(&run)? == [1024], "{}", run.stdout);
    let text = lab.tool().args(&["free", "27009-27009"]).run()?;
    ensure!(text.stdout == "27009\n" && text.code == Some(0), "{}{}", text.stdout, text.stderr);
    Ok(())
}

#[test]
fn what_rules_take_that_may_not_be_read_is_not_said_to_be_free() -> Test {
    lab::rules_or_skip!();
    let lab = Lab::new()?;
    let rules = "table ip t { chain p { type nat hook output priority -100; tcp dport 27030-27031 redirect to :80; }; }";
    lab.nft(lab.host(), rules)?;
    let run = lab.whereis(&["free", "27030-27039"])?;
    ensure!(ports(&run)? == [27_032] && run.code == Some(0), "{}", run.stdout);
    let run = lab.tool().args(&["--json", "free", "27030-27039"]).uid(65534).run()?;
    let gaps = run.json["gaps"].as_array().context("no gaps")?;
    ensure!(gaps.iter().any(|gap| gap["code"] == "packet_rules"), "{}", run.stdout);
    ensure!(run.code == Some(3), "exit {:?}: {}", run.code, run.stdout);
    let run = lab.tool().args(&["free", "27030-27039"]).uid(65534).run()?;
    ensure!(run.stdout == "27030\n" && run.code == Some(3), "{}{}", run.stdout, run.stderr);
    ensure!(run.stderr.contains("packet rules"), "{}", run.stderr);
    Ok(())
}

#[test]
fn a_port_is_held_until_standard_input_is_closed() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let tool = lab.tool().args(&["free", "27020-27029", "-n", "2", "--hold"]);
    let mut child = tool.command()?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let input = child.stdin.take().context("no input")?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let held: Vec<String> = lines.by_ref().take(2).collect::<Result<_, _>>()?;
    ensure!(held == ["27020", "27021"], "{held:?}");
    ensure!(!can_have(lab.host(), 27_020)? && !can_have(lab.host(), 27_021)?);
    // Who asks meanwhile gets others.
    let run = lab.whereis(&["free", "27020-27029"])?;
    ensure!(ports(&run)? == [27_022], "{}", run.stdout);
    drop(input);
    ensure!(child.wait()?.code() == Some(0));
    ensure!(can_have(lab.host(), 27_020)? && can_have(lab.host(), 27_021)?);
    Ok(())
}
