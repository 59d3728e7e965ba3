//! Whose word counts: names and arguments of processes are claims.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use lab::{FakeContainer, FakeDocker, Lab, Test};

/// A user with no rights at all.
const NOBODY: u32 = 65534;
const TASKS: &str = "io.containerd.runtime.v2.task/default";

/// A directory of a user's own in the lab.
fn users(lab: &Lab, name: &str) -> anyhow::Result<PathBuf> {
    let dir = lab.dir().join(name);
    fs::create_dir_all(&dir)?;
    chown(&dir, Some(NOBODY), Some(NOBODY))?;
    Ok(dir)
}

/// Writes a file with its directories, all of one owner.
fn write(path: &Path, below: &Path, owner: u32, text: &str) -> Test {
    fs::create_dir_all(path.parent().context("no directory")?)?;
    fs::write(path, text)?;
    for path in path.ancestors().take_while(|path| path.starts_with(below)) {
        chown(path, Some(owner), Some(owner))?;
    }
    Ok(())
}

fn bundle(name: &str) -> String {
    format!(r#"{{"annotations":{{"nerdctl/name":"{name}","nerdctl/namespace":"default"}}}}"#)
}

fn docker_state(id: &str, name: &str) -> String {
    format!(
        r#"{{"ID":"{id}","Name":"/{name}","Config":{{"Image":"img","Labels":
        {{"io.x-k8s.kind.cluster":"{name}","io.x-k8s.kind.role":"control-plane"}}}}}}"#
    )
}

#[test]
fn programs_of_a_user_name_nothing_of_roots() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let (a, b) = ("a1".repeat(32), "b1".repeat(32));
    let mounts = lab.mounts("")?;
    // Root's own containerd says where it keeps what it says.
    let state = lab.dir().join("state");
    write(&state.join(TASKS).join(&a).join("config.json"), &state, 0, &bundle("real-name"))?;
    let argv = ["containerd", "--state", &state.display().to_string(), "--address", "/nowhere"];
    let _root = lab.listen_like(lab.host(), "tcp 127.0.0.1:0", &argv)?;
    let evil = users(&lab, "evil")?;
    write(&evil.join(TASKS).join(&a).join("config.json"), &evil, NOBODY, &bundle("FORGED"))?;
    let state = evil.join("containers").join(&b).join("config.v2.json");
    write(&state, &evil, NOBODY, &docker_state(&b, "FORGED"))?;
    let args = "tcp 127.0.0.1:21601";
    let first = lab.listen_in(lab.host(), &format!("nerdctl-{a}.scope"), args, &["web"])?;
    let second = lab.listen_in_container(lab.host(), &b, "tcp 127.0.0.1:21602")?;
    // One socket says FORGED of each.
    let container = FakeContainer { id: &b, name: "FORGED", labels: (0, 0), pid: second.pid };
    let daemon = FakeDocker::with(&evil, &container)?;
    chown(daemon.path(), Some(NOBODY), None)?;
    let (dir, url) = (evil.display().to_string(), daemon.url());
    let socket = daemon.path().display().to_string();
    let programs: [&[&str]; 9] = [
        &["containerd", "--state", &dir, "--address", &socket],
        &["dockerd", "--data-root", &dir, "-H", &url],
        &["podman", "system", "service", &url],
        &["crio", "--listen", &socket],
        &["kubelet", "--container-runtime-endpoint", &url],
        &["k3s", "server"],
        &["cri-dockerd", "--container-runtime-endpoint", &url],
        &["conmon", "-c", &a, "-n", "FORGED"],
        &["containerd-shim-runc-v2", "-namespace", "default", "-id", &a],
    ];
    let mut running = Vec::new();
    for argv in programs {
        running.push(lab.listen_like_a_user(lab.host(), NOBODY, "tcp 127.0.0.1:0", argv)?);
    }
    for port in ["21601", "21602"] {
        for format in ["--json", "-v"] {
            let run = lab.tool().inside(&mounts).args(&[format, port]).run()?;
            ensure!(!run.stdout.contains("FORGED"), "{}", run.stdout);
        }
    }
    let run = lab.tool().inside(&mounts).args(&["--json", "21601"]).run()?;
    let path = run.path_in(lab.host())?;
    ensure!(path.pid() == Some(u64::from(first.pid)), "{}", path.0);
    ensure!(path.container() == Some("real-name"), "{}", path.0);
    let run = lab.tool().inside(&mounts).args(&["--json", "list"]).run()?;
    ensure!(run.stdout.contains("real-name"), "{}", run.stdout);
    // Of the processes' own arguments only.
    let forged = run.stdout.matches("FORGED").count();
    ensure!(forged <= 2, "{forged}: {}", run.stdout);
    Ok(())
}

#[test]
fn a_link_to_what_only_root_may_read_is_never_quoted() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let id = "c1".repeat(32);
    let mounts = lab.mounts("")?;
    let secret = lab.dir().join("secret");
    write(&secret, &secret, 0, "\"hunter2-secret-token\"")?;
    let evil = users(&lab, "evil")?;
    let state = evil.join("containers").join(&id).join("config.v2.json");
    write(&state, &evil, NOBODY, "")?;
    fs::remove_file(&state)?;
    symlink(&secret, &state)?;
    let _web = lab.listen_in_container(lab.host(), &id, "tcp 127.0.0.1:21603")?;
    // Also where root's own daemon is sent to it: by a link, by the file itself.
    let dir = evil.display().to_string();
    let argv = ["dockerd", "--data-root", &dir, "-H", "unix:///nowhere"];
    let _root = lab.listen_like(lab.host(), "tcp 127.0.0.1:0", &argv)?;
    let _user = lab.listen_like_a_user(lab.host(), NOBODY, "tcp 127.0.0.1:0", &argv)?;
    let quoted = || -> Test {
        for args in [["--json", "21603"], ["-v", "21603"], ["--json", "list"]] {
            let run = lab.tool().inside(&mounts).args(&args).run()?;
            ensure!(!run.stdout.contains("hunter2"), "{}", run.stdout);
        }
        Ok(())
    };
    quoted()?;
    fs::remove_file(&state)?;
    fs::hard_link(&secret, &state)?;
    quoted()?;
    // A file of root's in a place of root's: what is wrong is said by its place.
    write(&state, &evil, 0, "\"hunter2-secret-token\"")?;
    quoted()?;
    let run = lab.tool().inside(&mounts).args(&["--json", "21603"]).run()?;
    ensure!(run.gap_text().contains("line 1, column 22"), "{}", run.gap_text());
    Ok(())
}

#[test]
fn two_sources_that_contradict_each_other_are_both_shown() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let id = "d1".repeat(32);
    let mounts = lab.mounts("")?;
    let data = lab.dir().join("data");
    let state = data.join("containers").join(&id).join("config.v2.json");
    write(&state, &data, 0, &docker_state(&id, "by-the-file"))?;
    let dir = data.display().to_string();
    let argv = ["dockerd", "--data-root", &dir, "-H", "unix:///nowhere"];
    let _root = lab.listen_like(lab.host(), "tcp 127.0.0.1:0", &argv)?;
    let web = lab.listen_in_container(lab.host(), &id, "tcp 127.0.0.1:21604")?;
    let container = FakeContainer { id: &id, name: "by-the-api", labels: (0, 0), pid: web.pid };
    let daemon = FakeDocker::with(lab.dir(), &container)?;
    let tool = || lab.tool().inside(&mounts).env("DOCKER_HOST", &daemon.url());
    let run = tool().args(&["--json", "21604"]).run()?;
    ensure!(run.path_in(lab.host())?.container() == Some("by-the-api"), "{}", run.stdout);
    ensure!(run.gap_text().contains("by-the-file"), "{}", run.gap_text());
    let run = tool().args(&["21604"]).run()?;
    ensure!(
        run.stdout.contains("by-the-api") && run.stdout.contains("by-the-file"),
        "{}",
        run.stdout
    );
    // Whose process is somebody else's is no word about this container.
    let container = FakeContainer { pid: std::process::id(), ..container };
    let other = lab.dir().join("other");
    fs::create_dir_all(&other)?;
    let daemon = FakeDocker::with(&other, &container)?;
    let tool = lab.tool().inside(&mounts).env("DOCKER_HOST", &daemon.url());
    let run = tool.args(&["--json", "21604"]).run()?;
    ensure!(run.path_in(lab.host())?.container() == Some("by-the-file"), "{}", run.stdout);
    Ok(())
}

#[test]
fn what_a_user_calls_kubelet_is_confirmed_as_nothing() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let argv = [
        "kubelet",
        "--node-name=prod-1",
        "--port=21605",
        "--provider-id=kind://docker/prod/prod-control-plane",
    ];
    let ask = |text: bool| {
        let format = if text { "-v" } else { "--json" };
        lab.tool().args(&[format, "21605"]).run()
    };
    let check = |who: &str| -> Test {
        let run = ask(false)?;
        let path = run.path_in(lab.host())?;
        let end = path.end();
        ensure!(end["cluster"].is_null(), "{who}: {end}");
        ensure!(end["component"]["confirmed"] != true, "{who}: {end}");
        ensure!(!ask(true)?.stdout.contains("cluster  "), "{who}: {}", ask(true)?.stdout);
        Ok(())
    };
    let kubelet = lab.listen_like_a_user(lab.host(), NOBODY, "tcp 127.0.0.1:21605", &argv)?;
    check("its own program")?;
    drop(kubelet);
    // The same of root's.
    let _kubelet = lab.listen_like(lab.host(), "tcp 127.0.0.1:21605", &argv)?;
    let run = ask(false)?;
    let path = run.path_in(lab.host())?;
    ensure!(path.end()["cluster"]["name"] == "prod", "{}", path.0);
    Ok(())
}

#[test]
fn a_users_forwarder_leads_where_it_says_by_its_own_word() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _target = lab.listen(lab.host(), "tcp 127.0.0.1:21607")?;
    let argv = ["socat", "TCP-LISTEN:21606", "TCP:127.0.0.1:21607"];
    let _user = lab.listen_like_a_user(lab.host(), NOBODY, "tcp 0.0.0.0:21606", &argv)?;
    let run = lab.whereis(&["21606"])?;
    let path = run.path_in(lab.host())?;
    let detail = path.hops()[1]["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains("by its own word"), "{}", path.0);
    Ok(())
}

#[test]
fn silent_daemons_of_one_container_are_asked_up_to_a_limit() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let (outer, inner) = ("e1".repeat(32), "f1".repeat(32));
    let group = format!("docker/{outer}");
    let sockets = lab.dir().join("sockets");
    fs::create_dir_all(&sockets)?;
    let _silent = lab.silent_in(&group, &sockets, 64)?;
    let mut daemons = Vec::new();
    for daemon in 0..16 {
        let urls: Vec<String> = (0..4)
            .map(|n| format!("unix://{}", sockets.join((daemon * 4 + n).to_string()).display()))
            .collect();
        let mut argv = vec!["dockerd"];
        argv.extend(urls.iter().flat_map(|url| ["-H", url.as_str()]));
        daemons.push(lab.listen_in(lab.host(), &group, "tcp 127.0.0.1:0", &argv)?);
    }
    let args = "tcp 127.0.0.1:21608";
    let group = format!("{group}/docker/{inner}");
    let web = lab.listen_in(lab.host(), &group, args, &["web"])?;
    let asked = || fs::read_to_string(sockets.join("asked")).map(|text| text.lines().count());
    let run = lab.whereis(&["21608"])?;
    let path = run.path_in(lab.host())?;
    ensure!(path.pid() == Some(u64::from(web.pid)), "{}", path.0);
    // Other tools that run at the same time may ask there, too.
    ensure!(asked()? > 0, "{}", run.gap_text());
    ensure!(run.gap_text().contains("60 more sockets were not asked"), "{}", run.gap_text());
    Ok(())
}
