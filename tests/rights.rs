//! What is said when not everything may be read.

use anyhow::{Context, ensure};
use lab::{Lab, Run, Test};
use serde_json::{Value, json};

/// A user without any rights, who owns nothing else here.
const NOBODY: u32 = 65534;

#[test]
fn somebody_elses_listener_is_listed_and_the_missing_right_named() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _theirs = lab.listen(lab.host(), "tcp 127.0.0.1:21201")?;
    let run = lab.tool().uid(NOBODY).args(&["--json", "21201"]).run()?;
    not_readable(&lab, &run)?;
    ensure!(run.gap_text().contains("CAP_SYS_PTRACE"), "{}", run.gap_text());
    ensure!(run.json["host"]["euid"] == NOBODY, "{}", run.json);
    let text = lab.tool().uid(NOBODY).args(&["--color", "never", "21201"]).run()?;
    ensure!(text.code == Some(0) && text.stdout.contains("127.0.0.1:21201"), "{}", text.stdout);
    ensure!(text.stdout.contains("CAP_SYS_PTRACE"), "{}", text.stdout);
    Ok(())
}

#[test]
fn ones_own_listener_needs_no_right() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mine = lab.listen_as(lab.host(), NOBODY, "tcp 127.0.0.1:21202")?;
    let run = lab.tool().uid(NOBODY).args(&["--json", "21202"]).run()?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.ending() == "process" && path.pids() == [u64::from(mine.pid)], "{}", path.0);
    Ok(())
}

#[test]
fn nothing_is_not_sure_while_a_namespace_is_closed() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    // No process lives in there whose /proc/PID/net could be read instead.
    let closed = lab.netns("closed")?;
    let port = lab::unused_port()?.to_string();
    let options = format!("tcp 127.0.0.1:{port} --socket-netns {}", closed.path.display());
    let _hidden = lab.listen(lab.host(), &options)?;
    let run = lab.tool().uid(NOBODY).args(&["--json", &port]).run()?;
    run.is_nothing()?;
    ensure!(run.code == Some(3), "\"surely nothing\" is wrong: {}", run.stdout);
    Ok(())
}

#[test]
fn another_namespaces_listener_is_seen_without_any_right() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let _theirs = lab.listen(&other, "tcp 127.0.0.1:21204")?;
    let run = lab.tool().uid(NOBODY).args(&["--json", "21204"]).run()?;
    // Which namespace it is can't be told by inode; that it is there can.
    let text = run.is_found()?.stdout.as_str();
    ensure!(text.contains("not_readable"), "{text}");
    Ok(())
}

#[test]
fn root_without_ptrace_is_not_all_seeing() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _theirs = lab.listen(lab.host(), "tcp 127.0.0.1:21205")?;
    let less = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"];
    let run = lab.tool().through(&less).args(&["--json", "21205"]).run()?;
    not_readable(&lab, &run)?;
    ensure!(run.gap_text().contains("CAP_SYS_PTRACE"), "{}", run.gap_text());
    Ok(())
}

#[test]
fn root_that_may_not_enter_namespaces_reads_them_from_outside() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let theirs = lab.listen(&other, "tcp 127.0.0.1:21208 tcp [::1]:21208 udp [::]:21208")?;
    let less = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
    let run = lab.tool().through(&less).args(&["--json", "21208"]).run()?;
    let paths = run.is_found()?.paths_in(&other)?;
    ensure!(paths.len() == 3, "{}", run.stdout);
    for path in paths {
        // The subset rule closes the descriptors of a process with more rights,
        // unless CAP_SYS_PTRACE is there, as it is here.
        ensure!(path.pids() == [u64::from(theirs.pid)], "{}", path.0);
    }
    Ok(())
}

#[test]
fn root_that_may_not_enter_namespaces_is_not_misled_by_a_thread() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let path = other.path.display();
    let options = format!("tcp 127.0.0.1:21209 --thread --socket-netns {path}");
    let theirs = lab.listen(lab.host(), &options)?;
    // What the leader sees is not what is asked about.
    let ours = lab.listen(lab.host(), "tcp 0.0.0.0:21209")?;
    let less = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
    let run = lab.tool().through(&less).args(&["--json", "21209"]).run()?;
    let path = run.is_found()?.path_in(&other)?;
    ensure!(path.pids() == [u64::from(theirs.pid)], "{}", path.0);
    ensure!(run.path_in(lab.host())?.pids() == [u64::from(ours.pid)], "{}", run.stdout);
    ensure!(run.paths()?.len() == 2, "{}", run.stdout);
    Ok(())
}

#[test]
fn a_namespace_with_unreadable_processes_is_listed_once() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let theirs = lab.listen(&other, "tcp 127.0.0.1:21211")?;
    let less = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"];
    let file = lab.dir().join("recording.json");
    let record = file.to_str().context("path")?;
    let run = lab.tool().through(&less).args(&["--json", "21211", "--record", record]).run()?;
    ensure!(run.is_found()?.paths()?.len() == 1, "{}", run.stdout);
    ensure!(run.path_in(&other)?.0["netns"]["name"] == other.name.as_str(), "{}", run.stdout);
    let recording: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    let mut homes = Vec::new();
    netns_of(&recording, theirs.pid, &mut homes);
    ensure!(homes == [&json!({ "inode": other.inode })], "{homes:?}");
    Ok(())
}

/// The ids of the namespaces in a recording that have this process.
fn netns_of<'a>(value: &'a Value, pid: u32, found: &mut Vec<&'a Value>) {
    let members = value["members"].as_array();
    if members.is_some_and(|pids| pids.iter().any(|member| *member == pid)) {
        found.push(&value["id"]);
    }
    match value {
        Value::Array(values) => values.iter().for_each(|v| netns_of(v, pid, found)),
        Value::Object(fields) => fields.values().for_each(|v| netns_of(v, pid, found)),
        _ => {}
    }
}

#[test]
fn closed_namespaces_are_told_in_one_gap() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _closed = ["a", "b", "c", "d", "e"].map(|name| lab.netns(name));
    let busy = lab.netns("busy")?;
    let _theirs = lab.listen(&busy, "tcp 127.0.0.1:21212")?;
    let port = lab::unused_port()?.to_string();
    let run = lab.tool().uid(NOBODY).args(&["--json", &port]).run()?;
    run.is_nothing()?;
    // Namespaces of tests beside this one, whose processes were seen and vanish meanwhile,
    // have another reason, and gaps of their own.
    let hidden = |gap: &&Value| {
        let source = gap["source"].as_str().unwrap_or_default();
        source.starts_with("sockets of") && gap["reason"].to_string().contains("may be one of the")
    };
    // The busy one is pinned, and its processes show its sockets under no name.
    ensure!(run.gaps().into_iter().filter(hidden).count() == 1, "{:#?}", run.gaps());
    Ok(())
}

#[test]
fn a_lack_of_descriptors_is_not_a_lack_of_listeners() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let _theirs = lab.listen(&other, "tcp 127.0.0.1:21213")?;
    for limit in 4..=12 {
        let limited = ["prlimit", &format!("--nofile={limit}")];
        let run = lab.tool().through(&limited).args(&["--json", "21213"]).run()?;
        ensure!(matches!(run.code, Some(0 | 3 | 4)), "{limit}: {:?} {}", run.code, run.stdout);
        for path in run.paths().unwrap_or_default() {
            ensure!(["process", "not_readable"].contains(&path.ending()), "{limit}: {}", path.0);
        }
    }
    Ok(())
}

#[test]
fn root_of_another_user_namespace_has_no_rights_here() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mapped = ["unshare", "--user", "--map-root-user"];
    let run = lab.tool().through(&mapped).args(&["--json", "doctor"]).run()?;
    ensure!(run.json["host"]["euid"] == 0, "{}", run.stdout);
    let has = run.json["capabilities"].as_array().map_or(0, Vec::len);
    ensure!(has == 0, "{}", run.json["capabilities"]);
    Ok(())
}

#[test]
fn an_owner_outside_the_pid_namespace_is_never_none() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _outside = lab.listen(lab.host(), "tcp 127.0.0.1:21206")?;
    let alone = ["unshare", "-pf", "--mount-proc"];
    let run = lab.tool().through(&alone).args(&["--json", "21206"]).run()?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.ending() == "outside_pid_namespace", "{}", path.0);
    ensure!(path.end()["why"].is_string() && path.pids().is_empty(), "{}", path.0);
    ensure!(run.json["host"]["pid_namespace_is_initial"] == false, "{}", run.json);
    let text = lab.tool().through(&alone).args(&["--color", "never", "21206"]).run()?.stdout;
    ensure!(text.contains("PID namespace"), "{text}");
    Ok(())
}

#[test]
fn hidden_processes_are_reported_as_hidden() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _theirs = lab.listen(lab.host(), "tcp 127.0.0.1:21207")?;
    // A new proc instance: remounting the shared one would change the machine's.
    let hidden = [
        "unshare",
        "-m",
        "sh",
        "-c",
        "mount -t proc -o hidepid=2 proc /proc &&
         exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"",
        "sh",
    ];
    let run = lab.tool().through(&hidden).args(&["--json", "21207"]).run()?;
    not_readable(&lab, &run)?;
    ensure!(run.gap_text().contains("hidepid"), "{}", run.gap_text());
    Ok(())
}

#[test]
fn the_doctor_says_what_is_missing() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let run = lab.tool().uid(NOBODY).args(&["--json", "doctor"]).run()?;
    ensure!(run.code == Some(3), "{:?}: {}", run.code, run.stderr);
    let sources = run.json["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let broken: Vec<_> = sources.iter().filter(|source| source["ok"] == false).collect();
    ensure!(!broken.is_empty(), "{}", run.stdout);
    ensure!(broken.iter().all(|source| source["reason"].is_string()), "{broken:?}");
    ensure!(run.stdout.contains("CAP_SYS_PTRACE"), "{}", run.stdout);
    Ok(())
}

/// Checks that the listener is there, and its owner not to be read.
fn not_readable(lab: &Lab, run: &Run) -> Test {
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.ending() == "not_readable", "{}", path.0);
    ensure!(path.pids().is_empty() && path.end()["why"].is_string(), "{}", path.0);
    ensure!(run.gaps().iter().any(|gap| gap["impact"] == "owner"), "{}", run.gap_text());
    Ok(())
}
