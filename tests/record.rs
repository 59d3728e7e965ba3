//! Recordings: the same answer later, elsewhere, and without names when asked.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, ensure};
use lab::{FakeContainer, FakeDocker, Lab, Test};
use serde_json::Value;

#[test]
fn a_recording_gives_the_answer_of_the_node() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let web = lab.netns("web")?;
    lab.veth((lab.host(), "veth0", "10.9.2.1/24"), (&web, "eth0", "10.9.2.2/24"))?;
    let _server = lab.listen(&web, "tcp 0.0.0.0:80 --fork 2")?;
    let argv = ["socat", "TCP-LISTEN:21401,fork", "TCP:10.9.2.2:80"];
    let _socat = lab.listen_like(lab.host(), "tcp 0.0.0.0:21401", &argv)?;
    let file = lab.dir().join("node.json");
    let file = file.to_str().context("path")?;

    let recorded = lab.whereis(&["list", "--record", file])?;
    ensure!(recorded.code == Some(0), "{}", recorded.stderr);
    let mode = std::fs::metadata(file)?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "command lines can hold secrets, but mode {mode:o}");

    let live = lab.whereis(&["21401"])?;
    let live_paths: Vec<&Value> =
        live.is_found()?.paths_in(lab.host())?.iter().map(|path| path.0).collect();
    ensure!(live_paths.len() == 1 && live_paths[0].to_string().contains("socat"), "{}", live.json);

    // From another namespace, to which the recording owes nothing.
    let replayed = lab.tool().netns(&web).args(&["--json", "--replay", file, "21401"]).run()?;
    let replayed_paths: Vec<&Value> =
        replayed.is_found()?.paths_in(lab.host())?.iter().map(|path| path.0).collect();
    // What needs the files of each process is read for a question, and not for a list.
    let without_files = |paths: &[&Value]| -> Vec<Value> {
        let mut paths: Vec<Value> = paths.iter().map(|path| (*path).clone()).collect();
        // What a listener dropped is asked for one port, and not for a recording of everything.
        for hop in paths.iter_mut().filter_map(|path| path["hops"].as_array_mut()).flatten() {
            if let Some(socket) = hop["socket"].as_object_mut() {
                socket.remove("accept_drops");
            }
        }
        for end in paths.iter_mut().filter_map(|path| path["end"].as_object_mut()) {
            end.remove("repository");
            end.remove("package");
        }
        paths
    };
    let (live_paths, replayed_paths) = (without_files(&live_paths), without_files(&replayed_paths));
    ensure!(live_paths == replayed_paths, "{live_paths:#?}\n{replayed_paths:#?}");

    let again = lab.whereis(&["--replay", file, "21401"])?;
    ensure!(again.stdout == replayed.stdout, "one recording, two answers");

    let list = lab.whereis(&["--replay", file, "list"])?;
    ensure!(list.json["listeners"] == recorded.json["listeners"], "the list differs");
    let doctor = lab.whereis(&["--replay", file, "doctor"])?;
    ensure!(matches!(doctor.code, Some(0 | 3)), "{:?}: {}", doctor.code, doctor.stderr);
    Ok(())
}

#[test]
fn a_question_can_be_recorded_alone() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _server = lab.listen(lab.host(), "tcp 127.0.0.1:21402")?;
    let file = lab.dir().join("one.json");
    let file = file.to_str().context("path")?;
    let live = lab.whereis(&["21402", "--record", file])?;
    let replayed = lab.whereis(&["21402", "--replay", file])?;
    ensure!(live.is_found()?.answer()?["paths"] == replayed.is_found()?.answer()?["paths"]);
    Ok(())
}

#[test]
fn a_recording_can_be_looked_at_in_a_terminal() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let name = "ev\u{9b}2J\u{202e}\u{2066}\u{200b}\u{34f}\u{3164}il\u{1b}]0;x\u{7}";
    let _server = lab.listen_like(lab.host(), "tcp 127.0.0.1:21405", &[name])?;
    let file = lab.dir().join("hostile.json");
    let path = file.to_str().context("path")?;
    let live = lab.whereis(&["21405", "--record", path])?;
    let live = live.is_found()?.path_in(lab.host())?.end()["process"]["cmdline"].clone();
    let text = std::fs::read_to_string(&file)?;
    let hidden = |c: char| (c.is_control() && c != '\n') || name.contains(c) && !c.is_ascii();
    ensure!(!text.contains(hidden), "raw characters in the recording");
    ensure!(text.contains("\\u202e") && text.contains("\\u009b") && text.contains("\\u3164"));
    // The value is the same, and so is the answer.
    ensure!(live[0] == name, "{live}");
    let replayed = lab.whereis(&["21405", "--replay", path])?;
    let replayed = replayed.is_found()?.path_in(lab.host())?.end()["process"]["cmdline"].clone();
    ensure!(replayed == live, "{replayed} is not {live}");
    Ok(())
}

#[test]
fn a_recording_replaces_an_old_file_and_its_mode() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let file = lab.dir().join("old.json");
    std::fs::write(&file, "x".repeat(10_000_000))?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644))?;
    let path = file.to_str().context("path")?;
    ensure!(lab.whereis(&["list", "--record", path])?.code == Some(0));
    ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600);
    ensure!(lab.whereis(&["--replay", path, "list"])?.code == Some(0));
    Ok(())
}

#[test]
fn a_redacted_recording_has_no_names() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let id = "d4".repeat(32);
    let argv = ["server", "--password=hunter2hunter2"];
    let _secret = lab.listen_like(lab.host(), "tcp 127.0.0.1:21404", &argv)?;
    let proc = lab.listen_in_container(lab.host(), &id, "tcp 127.0.0.1:21403")?;
    let container =
        FakeContainer { id: &id, name: "payroll-of-acme", labels: (1, 8), pid: proc.pid };
    let daemon = FakeDocker::with(lab.dir(), &container)?;
    let file = lab.dir().join("redacted.json");
    let path = file.to_str().context("path")?;
    let host = [
        "unshare",
        "-u",
        "sh",
        "-c",
        "echo acme-node-7 >/proc/sys/kernel/hostname; exec \"$@\"",
        "sh",
    ];
    let tool = || lab.tool().through(&host).env("DOCKER_HOST", &daemon.url());
    let names = ["payroll-of-acme", "acme-node-7", "hunter2hunter2"];

    let open = tool().args(&["list", "--record", path]).run()?;
    ensure!(open.code == Some(0), "{}", open.stderr);
    let text = std::fs::read_to_string(&file)?;
    for name in names {
        ensure!(text.contains(name), "the test tests nothing: {name} was never there");
    }
    let run = tool().args(&["list", "--record", path, "--redact"]).run()?;
    ensure!(run.code == Some(0), "{}", run.stderr);
    let text = std::fs::read_to_string(&file)?;
    for name in names {
        ensure!(!text.contains(name), "{name} is in the recording");
    }
    // It still answers.
    let run = lab.whereis(&["--replay", path, "21403"])?;
    run.is_found()?;
    ensure!(run.stdout.contains("process"), "{}", run.stdout);
    Ok(())
}
