//! With a pin the answers are the same, only sooner.

use anyhow::{Context, Result, ensure};
use lab::{Crowd, Lab, Mounts, Random, Run, Test, difference, listed};
use serde_json::Value;

use crate::probe::{PINNED, pin, used, used_pin};

/// What the same question gives with the pin, and without any.
fn both(lab: &Lab, mounts: &Mounts, args: &[&str]) -> Result<[Run; 2]> {
    let pinned = lab.tool().inside(mounts).arg("--json").args(args).run()?;
    let without = lab.whereis(args)?;
    ensure!(used_pin(&pinned), "{}", pinned.json["sources"]);
    ensure!(!without.stdout.contains(PINNED), "{}", without.json["sources"]);
    ensure!(pinned.code == without.code, "{:?}: {:?}", pinned.code, without.code);
    Ok([pinned, without])
}

#[test]
fn a_question_is_answered_as_without_a_pin() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let one = lab.listen(lab.host(), "tcp 127.0.0.1:22001 udp 127.0.0.1:22001 --dup 2")?;
    let path = other.path.display();
    let _forked = lab.listen(&other, "tcp [::]:22001 tcp 0.0.0.0:22002 --fork 2 --v6only 1")?;
    let _across =
        lab.listen(lab.host(), &format!("udp [::1]:22003 --socket-netns {path} --thread"))?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;

    for question in ["22001", "22001/udp", "127.0.0.1:22001", "22001-22003"] {
        let [pinned, without] = both(&lab, &mounts, &[question])?;
        let values = |run: &Run| -> Result<Vec<Value>> {
            Ok(run.paths()?.iter().map(|path| path.0.clone()).collect())
        };
        let (with, without) = (values(&pinned)?, values(&without)?);
        ensure!(!with.is_empty(), "{question}: {}", pinned.stdout);
        ensure!(with == without, "{question}:\n{with:?}\n{without:?}");
    }
    let [pinned, without] = both(&lab, &mounts, &["22001/tcp"])?;
    ensure!(pinned.path_in(lab.host())?.pids() == [u64::from(one.pid)], "{}", pinned.stdout);
    ensure!(pinned.answer()?["verdict"] == without.answer()?["verdict"]);

    let [pinned, without] = both(&lab, &mounts, &["list"])?;
    // A list by the pin does not know queues: null.
    const QUEUES: [&str; 2] = ["accept_queue", "accept_queue_limit"];
    let queues = |run: &Run| -> Result<bool> {
        Ok(run.listeners()?.iter().any(|row| QUEUES.iter().any(|key| !row.0[*key].is_null())))
    };
    ensure!(!queues(&pinned)? && queues(&without)?, "{}", pinned.stdout);
    let values = |run: &Run| -> Result<Vec<Value>> {
        let mut rows: Vec<Value> = run.listeners()?.iter().map(|row| row.0.clone()).collect();
        for row in rows.iter_mut().filter_map(Value::as_object_mut) {
            QUEUES.iter().for_each(|key| drop(row.remove(*key)));
        }
        Ok(rows)
    };
    let (with, without) = (values(&pinned)?, values(&without)?);
    ensure!(with.len() == 5 && with == without, "{with:?}\n{without:?}");
    Ok(())
}

#[test]
fn nothing_is_found_as_without_a_pin() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;
    let port = lab::unused_port()?.to_string();
    let run = lab.tool().inside(&mounts).args(&["--json", &port]).run()?;
    run.is_nothing()?;
    ensure!(used_pin(&run), "{}", run.stdout);
    Ok(())
}

#[test]
fn the_list_of_a_crowd_is_what_everybody_says() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    // An emulated machine takes minutes for a crowd that is nothing to the one around it.
    let (processes, sockets, least) =
        if lab::is_other_kernel() { (30, 20, 150) } else { (90, 60, 2000) };
    let crowd = Crowd::gather(&lab, &mut Random::new()?, processes, sockets)?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;

    let [pinned, without] = both(&lab, &mounts, &["list"])?;
    let (mut with, mut without) = (listed(&pinned)?, listed(&without)?);
    let mut count = 0;
    for netns in &crowd.netns {
        let mine = with.remove(&netns.inode).unwrap_or_default();
        let theirs = without.remove(&netns.inode).unwrap_or_default();
        ensure!(mine == theirs, "{}:\n{}", netns.name, difference(&mine, &theirs));
        count += mine.len();
        crowd.compare(&lab, netns, mine)?;
    }
    ensure!(with.is_empty() && without.is_empty(), "{with:?} {without:?}");
    ensure!(count > least, "only {count} sockets: the test tests nothing");
    Ok(())
}

#[test]
fn a_connection_is_no_listener() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    // Two of the clients are accepted, two wait; all have descriptors or none.
    let _busy = lab.listen(lab.host(), "tcp 127.0.0.1:22010 udp 127.0.0.1:22010 --clients 4")?;
    let _client = lab.listen(lab.host(), "udp 127.0.0.1:22011 --connect 127.0.0.1:22010")?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;
    let [pinned, _] = both(&lab, &mounts, &["22010"])?;
    ensure!(pinned.paths_in(lab.host())?.len() == 2, "{}", pinned.stdout);
    let [pinned, _] = both(&lab, &mounts, &["list"])?;
    let ports: Vec<_> = pinned.listeners()?.iter().map(|l| l.0["port"].clone()).collect();
    ensure!(ports == [22010, 22010], "{ports:?}");
    Ok(())
}

#[test]
fn a_raw_socket_is_no_listener() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    // Its port, to the kernel, is the number of the protocol.
    let _raw = lab.listen(lab.host(), "udp 127.0.0.1:22012 --raw")?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;
    let [pinned, _] = both(&lab, &mounts, &["17/udp"])?;
    pinned.is_nothing()
}

#[test]
fn a_namespace_that_only_a_socket_keeps_is_seen_with_a_pin() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let left = lab.netns("left")?;
    let args = format!("tcp 127.0.0.1:22030 --socket-netns {}", left.path.display());
    let holder = lab.listen(lab.host(), &args)?;
    left.unname()?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;
    let pinned = lab.tool().inside(&mounts).args(&["--json", "22030"]).run()?;
    let path = pinned.is_found()?.path_in(&left)?;
    ensure!(path.pids() == [u64::from(holder.pid)], "{}", pinned.stdout);
    let list = lab.tool().inside(&mounts).args(&["--json", "list"]).run()?;
    let ports: Vec<_> = list.listeners()?.iter().map(|l| l.0["port"].clone()).collect();
    ensure!(ports == [22030], "{ports:?}");
    Ok(())
}

#[test]
fn what_no_process_holds_is_listed_as_without_a_pin() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let kernel = lab.netns("kernel")?;
    lab.vxlan(&kernel, "vx0", 7, 22020)?;
    kernel.ip(&["link", "set", "vx0", "up"])?;
    let _sender = lab.listen(lab.host(), "tcp 127.0.0.1:22021 udp [::1]:22022 --in-flight")?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;
    let [pinned, without] = both(&lab, &mounts, &["list"])?;
    let list = |run: &Run| -> Result<Vec<(Value, Value)>> {
        let found = run.listeners()?;
        Ok(found.iter().map(|l| (l.0["port"].clone(), l.0["socket_inode"].clone())).collect())
    };
    let found = list(&pinned)?;
    ensure!(found == list(&without)?, "{found:?}");
    for port in [22020, 22021, 22022] {
        let here = found.iter().filter(|(p, _)| *p == port).count();
        ensure!(here >= 1, "{port} is missing: {found:?}");
        let [one, other] = both(&lab, &mounts, &[&port.to_string()])?;
        // Where a process can't be read, it may be the holder; that may change meanwhile.
        let ends = |run: &Run| -> Result<Vec<String>> {
            let paths = run.paths()?;
            Ok(paths.iter().map(|p| p.ending().replace("not_readable", "unknown")).collect())
        };
        let ends = (ends(&one)?, ends(&other)?);
        ensure!(!ends.0.is_empty() && ends.0 == ends.1, "{port}: {ends:?}");
    }
    let vxlan = pinned.listeners()?;
    let vxlan = vxlan.iter().find(|l| l.0["port"] == 22020).context("no VXLAN")?;
    ensure!(vxlan.pids().is_empty() && vxlan.ending() == "kernel", "{}", vxlan.0);
    Ok(())
}

#[test]
fn an_owner_outside_the_pid_namespace_is_not_named_by_a_pin() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _outside = lab.listen(lab.host(), "tcp 127.0.0.1:22030")?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;
    let alone = ["unshare", "-pf", "--mount-proc"];
    let run = lab.tool().inside(&mounts).through(&alone).args(&["--json", "22030"]).run()?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.ending() == "outside_pid_namespace" && path.pids().is_empty(), "{}", path.0);
    // Without a /proc of its own, ids of one namespace would meet names of another.
    let run = lab.tool().inside(&mounts).through(&["unshare", "-pf"]);
    let run = run.args(&["--json", "22030"]).run()?;
    ensure!(!used_pin(&run), "{}", run.stdout);
    Ok(())
}

#[test]
fn several_servers_of_one_port_are_all_named() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let args = "tcp 0.0.0.0:22040 udp [::]:22040 --reuseport --v6only 1";
    let servers = [lab.listen(lab.host(), args)?, lab.listen(lab.host(), args)?];
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;
    let [pinned, without] = both(&lab, &mounts, &["list"])?;
    ensure!(listed(&pinned)? == listed(&without)?, "{}", pinned.stdout);
    let listeners = pinned.listeners()?;
    ensure!(listeners.len() == 4, "{}", pinned.stdout);
    for server in servers {
        let his = listeners.iter().filter(|l| l.pids() == [u64::from(server.pid)]).count();
        ensure!(his == 2, "{his} of {}: {}", server.pid, pinned.stdout);
    }
    Ok(())
}

#[test]
fn what_comes_and_goes_meanwhile_changes_nothing_else() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let server = lab.listen(&other, "tcp 127.0.0.1:22050 udp [::1]:22050 --fork 1")?;
    let mut holders: Vec<u64> = server.holders.iter().map(|pid| u64::from(*pid)).collect();
    holders.sort_unstable();
    let _flapping = [
        lab.flap(&other, "tcp 127.0.0.1:22051")?,
        lab.flap(&other, "udp 127.0.0.1:22052")?,
        lab.flap(lab.host(), "tcp 127.0.0.1:22050 tcp [::1]:22051")?,
    ];
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;
    for _ in 0..8 {
        let run = lab.tool().inside(&mounts).args(&["--json", "list"]).run()?;
        ensure!(used_pin(&run), "{}", run.json["sources"]);
        // Says when one is there twice.
        let listed = listed(&run)?;
        let there = listed.get(&other.inode).into_iter().flatten();
        let ours: Vec<_> = there.filter(|(_, entry)| entry.port == 22050).collect();
        ensure!(ours.len() == 2, "{ours:?}");
        for (_, entry) in ours {
            ensure!(entry.pids.iter().copied().eq(holders.iter().copied()), "{entry:?}");
        }
        let run = lab.tool().inside(&mounts).args(&["--json", "22050/udp"]).run()?;
        ensure!(run.is_found()?.path_in(&other)?.pids() == holders, "{}", run.stdout);
    }
    Ok(())
}

#[test]
fn with_very_many_open_files_the_iterator_is_loaded_for_one_reading() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let server = lab.listen(&other, "tcp 127.0.0.1:22060 --dup 1")?;
    // A process may open so many, as a rule.
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let limit = limits.lines().find(|line| line.starts_with("Max open files"));
    let limit = limit.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    let each = limit.unwrap_or(1024_u32).clamp(100, 50_000) - 50;
    let args = format!("tcp 127.0.0.1:0 --files {each}");
    let many = (0..=220_000 / each).map(|_| lab.listen(lab.host(), &args));
    let _many = many.collect::<Result<Vec<_>>>()?;

    let loaded = "eBPF iterator (loaded)";
    let run = lab.whereis(&["22060"])?;
    ensure!(used(&run, loaded), "{}", run.json["sources"]);
    let path = run.is_found()?.path_in(&other)?;
    ensure!(path.pids() == [u64::from(server.pid)], "{}", path.0);
    let less = ["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin", "--inh-caps", "-all"];
    let run = lab.tool().through(&less).args(&["--json", "22060"]).run()?;
    ensure!(!used(&run, loaded), "{}", run.json["sources"]);
    let path = run.is_found()?.path_in(&other)?;
    ensure!(path.pids() == [u64::from(server.pid)], "{}", path.0);
    Ok(())
}
