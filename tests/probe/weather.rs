//! What there is where the kernel or its owner gives less.

use anyhow::{Context, ensure};
use lab::{Lab, Test, Tool, Trace};
use serde_json::Value;

use crate::probe::{pin, used_pin};

/// Hides the kernel's description of its types.
const NO_BTF: &str = "mount -t tmpfs tmpfs /sys/kernel/btf";

/// The whole root without what loading programs takes.
const NO_BPF: [&str; 5] =
    ["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin", "--inh-caps", "-all"];

/// Checks that a trace compares readings and says why, and that it and a question
/// are right all the same.
fn compares<'a>(lab: &'a Lab, tool: impl Fn() -> Tool<'a>, why: &str) -> Test {
    let port = lab::unused_port()?;
    let target = port.to_string();
    let mut trace = Trace::start(tool(), &["--json", "-n", "1", "--interval", "50ms", &target])?;
    let gap = &trace.start["gaps"][0];
    ensure!(gap["source"] == "eBPF", "{}", trace.start);
    ensure!(gap["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{gap}");
    let server = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
    let line = trace.line()?;
    ensure!(line["seen_by"] == "comparison" && line["kind"] == "listen", "{line}");
    ensure!(line["actor"]["pid"] == server.pid && line["port"] == port, "{line}");
    let run = tool().args(&["--json", &target]).run()?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.pids() == [u64::from(server.pid)], "{}", run.stdout);
    ensure!(!used_pin(&run), "{}", run.stdout);
    let run = tool().args(&["--json", "doctor"]).run()?;
    ensure!(run.code == Some(3) && run.stdout.contains(why), "no {why:?} in {}", run.stdout);
    let run = tool().arg("pin").run()?;
    ensure!(run.code == Some(4) && run.stderr.contains(why), "{:?}: {}", run.code, run.stderr);
    Ok(())
}

#[test]
fn without_btf_readings_are_compared() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mounts = lab.bpffs()?;
    mounts.sh(NO_BTF)?;
    compares(&lab, || lab.tool().inside(&mounts), "BTF")?;
    // `pin` left nothing that would be in the way.
    mounts.sh("! test -e /sys/fs/bpf/whereis-port").map(drop)
}

#[test]
fn a_pin_needs_no_btf_any_more() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let server = lab.listen(lab.host(), "tcp 127.0.0.1:22201")?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;
    mounts.sh(NO_BTF)?;
    let less = NO_BPF;
    let run = lab.tool().inside(&mounts).through(&less).args(&["--json", "22201"]).run()?;
    ensure!(used_pin(run.is_found()?), "{}", run.stdout);
    ensure!(run.path_in(lab.host())?.pids() == [u64::from(server.pid)], "{}", run.stdout);
    Ok(())
}

#[test]
fn without_the_right_to_load_programs_readings_are_compared() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mounts = lab.bpffs()?;
    compares(&lab, || lab.tool().inside(&mounts).through(&NO_BPF), "does not permit it")?;
    mounts.sh("! test -e /sys/fs/bpf/whereis-port").map(drop)
}

#[test]
fn cgroup2_need_not_be_mounted() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mounts = lab.mounts(
        "umount -l $(grep ' cgroup2 ' /proc/self/mounts | cut -d' ' -f2); ! grep cgroup2 /proc/self/mounts",
    )?;
    let port = lab::unused_port()?;
    let args = ["--json", "-e", "bind,close", "-n", "2", &port.to_string()];
    let mut trace = Trace::start(lab.tool().inside(&mounts), &args)?;
    ensure!(trace.start["gaps"] == serde_json::json!([]), "{}", trace.start);
    let server = lab.listen(lab.host(), &format!("udp 127.0.0.1:{port}"))?;
    let pid = server.pid;
    server.kill()?;
    for kind in ["bind", "close"] {
        let line = trace.line()?;
        ensure!(line["kind"] == kind && line["seen_by"] == "ebpf", "{line}");
        ensure!(line["actor"]["pid"] == pid, "{line}");
    }
    mounts.sh("! grep cgroup2 /proc/self/mounts").map(drop)
}

#[test]
fn a_user_with_two_capabilities_sees_tcp_and_is_told_what_udp_takes() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let target = port.to_string();
    for (rights, udp) in [("+bpf,+perfmon", false), ("+bpf,+perfmon,+net_admin", true)] {
        let user = [
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--inh-caps",
            rights,
            "--ambient-caps",
            rights,
        ];
        let tool = lab.tool().through(&user);
        let mut trace = Trace::start(tool, &["--json", "-e", "listen,bind", &target])?;
        let gaps: Vec<Value> = trace.start["gaps"].as_array().context("no gaps")?.clone();
        if udp {
            ensure!(gaps.is_empty(), "{gaps:?}");
        } else {
            ensure!(gaps.len() == 1 && gaps[0]["source"] == "UDP events (eBPF)", "{gaps:?}");
            let remedy = gaps[0]["remedy"].as_str().unwrap_or_default();
            ensure!(remedy.contains("CAP_NET_ADMIN"), "{remedy}");
        }
        let other = lab.netns(&format!("n{}", rights.len()))?;
        let server = lab.listen(&other, &format!("tcp 127.0.0.1:{port} udp 127.0.0.1:{port}"))?;
        let line = trace.line()?;
        ensure!(line["kind"] == "listen" && line["seen_by"] == "ebpf", "{line}");
        ensure!(line["actor"]["pid"] == server.pid && line["port"] == port, "{line}");
        ensure!(line["netns"]["inode"] == other.inode, "{line}");
        if udp {
            let line = trace.line()?;
            ensure!(line["kind"] == "bind" && line["actor"]["pid"] == server.pid, "{line}");
        }
    }
    Ok(())
}

#[test]
fn no_memory_may_be_locked_and_programs_run_all_the_same() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mounts = lab.bpffs()?;
    let less = ["prlimit", "--memlock=0"];
    let run = lab.tool().inside(&mounts).through(&less).arg("pin").run()?;
    ensure!(run.code == Some(0), "{}", run.stderr);
    let port = lab::unused_port()?;
    let args = ["--json", "-e", "listen", "-n", "1", &port.to_string()];
    let mut trace = Trace::start(lab.tool().through(&less), &args)?;
    let _server = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
    ensure!(trace.line()?["seen_by"] == "ebpf");
    Ok(())
}

#[test]
fn what_the_programs_log_is_shown_when_asked_for() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let mut trace = Trace::start(lab.tool(), &["-vv", "-n", "1", &port.to_string()])?;
    let _server = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
    trace.hears(&format!("tcp state 7 to 10, port {port}"))
}
