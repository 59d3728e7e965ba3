//! A node that changes while it is read, and daemons that don't play along.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use lab::{FakeContainer, FakeDocker, Lab, Test, View};

/// How long an answer may take when a daemon does not answer.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_process_that_exits_while_it_is_asked_for() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _flapping = lab.flap(lab.host(), "tcp 127.0.0.1:21301")?;
    for round in 0..15 {
        let json = if round % 3 == 0 { ["--json", "list"] } else { ["--json", "21301"] };
        let run = lab.tool().args(&json).run()?;
        ensure!(matches!(run.code, Some(0 | 1 | 3)), "{:?}: {}", run.code, run.stderr);
        ensure!(run.json.is_object(), "{}", run.stdout);
        if round % 3 != 0 {
            let found = run.answer()?["verdict"] == "found";
            ensure!(found == (run.code == Some(0)), "{:?} but {}", run.code, run.stdout);
        }
    }
    Ok(())
}

#[test]
fn namespaces_that_come_and_go() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| -> Test {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                let netns = lab.netns(&format!("churn{n}"))?;
                n += 1;
                let listener = lab.listen(&netns, "tcp 127.0.0.1:21302")?;
                netns.unname()?;
                listener.kill()?;
            }
            Ok(())
        });
        let asked = (0..15).try_for_each(|round| -> Test {
            let question = if round % 3 == 0 { "list" } else { "21302" };
            let run = lab.whereis(&[question])?;
            ensure!(matches!(run.code, Some(0 | 1 | 3)), "{:?}: {}", run.code, run.stderr);
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        churn.join().map_err(|_| anyhow::anyhow!("the churning thread panicked"))??;
        asked
    })
}

#[test]
fn a_daemon_that_accepts_and_never_answers() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let daemon = FakeDocker::silent(lab.dir())?;
    degrades(&lab, &daemon, 21303)
}

#[test]
fn a_daemon_that_answers_garbage() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let daemon = FakeDocker::garbage(lab.dir())?;
    degrades(&lab, &daemon, 21304)
}

/// Checks that a container is still found, by its cgroup, and that the answer
/// says which daemon did not give its name.
fn degrades(lab: &Lab, daemon: &FakeDocker, port: u16) -> Test {
    let id = "a1".repeat(32);
    let proc = lab.listen_in_container(lab.host(), &id, &format!("tcp 127.0.0.1:{port}"))?;
    for args in [["--json", &port.to_string()], ["--json", "list"]] {
        let run = lab.tool().env("DOCKER_HOST", &daemon.url()).args(&args).run()?;
        ensure!(run.code == Some(0), "{:?}: {}{}", run.code, run.stdout, run.stderr);
        ensure!(run.took < SOON, "it took {:?}", run.took);
        let socket = daemon.path().to_str().context("path")?;
        ensure!(run.gap_text().contains(socket), "no {socket} in: {}", run.gap_text());
        let views: Vec<View<'_>> = if args[1] == "list" { run.listeners()? } else { run.paths()? };
        let view = views.iter().find(|v| v.pid() == Some(u64::from(proc.pid)));
        let view = view.with_context(|| format!("not found: {}", run.stdout))?;
        ensure!(view.end()["container"]["id"] == id.as_str(), "{}", view.0);
    }
    Ok(())
}

#[test]
fn a_container_with_a_hostile_name() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let id = "b2".repeat(32);
    let proc = lab.listen_in_container(lab.host(), &id, "tcp 127.0.0.1:21305")?;
    let name = "\u{1b}[2Jowned\u{202e}";
    let container = FakeContainer { id: &id, name, labels: (1, 10), pid: proc.pid };
    let daemon = FakeDocker::with(lab.dir(), &container)?;
    let tool = || lab.tool().env("DOCKER_HOST", &daemon.url());
    for args in [["--color", "never", "21305"], ["--color", "never", "list"]] {
        let run = tool().args(&args).run()?;
        ensure!(run.stdout.contains("owned"), "the name is gone: {}", run.stdout);
        ensure!(!run.stdout.contains(['\u{1b}', '\u{202e}']), "{:?}", run.stdout);
    }
    let run = tool().args(&["--json", "21305"]).run()?;
    ensure!(!run.stdout.contains(['\u{1b}', '\u{202e}']), "{:?}", run.stdout);
    ensure!(run.path_in(lab.host())?.container() == Some(name), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_container_with_a_hundred_megabytes_of_labels() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let id = "c3".repeat(32);
    let proc = lab.listen_in_container(lab.host(), &id, "tcp 127.0.0.1:21306")?;
    let container =
        FakeContainer { id: &id, name: "heavy", labels: (10_000, 10_000), pid: proc.pid };
    let daemon = FakeDocker::with(lab.dir(), &container)?;
    let run = lab.tool().env("DOCKER_HOST", &daemon.url()).args(&["--json", "21306"]).run()?;
    ensure!(run.code == Some(0) && run.took < SOON, "{:?} after {:?}", run.code, run.took);
    let path = run.path_in(lab.host())?;
    ensure!(path.pid() == Some(u64::from(proc.pid)), "{}", path.ending());
    let container = &path.end()["container"];
    ensure!(container["id"] == id.as_str(), "{}", container["id"]);
    // Either it took all that, or it says that it did not.
    let named = container["name"] == "heavy";
    ensure!(named || run.gap_text().contains("docker.sock"), "{}", run.gap_text());
    Ok(())
}

#[test]
fn a_docker_host_that_is_not_there() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _proc = lab.listen(lab.host(), "tcp 127.0.0.1:21307")?;
    for host in ["unix:///no/such/socket", "tcp://", "nonsense", "", "\u{1b}[2J"] {
        let run = lab.tool().env("DOCKER_HOST", host).args(&["--json", "21307"]).run()?;
        ensure!(run.code == Some(0) && run.took < SOON, "{host:?}: {:?}", run.code);
        ensure!(run.path_in(lab.host())?.ending() == "process", "{host:?}: {}", run.stdout);
    }
    Ok(())
}
