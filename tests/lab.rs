//! The lab itself: that what it builds is there, and is gone afterwards.

use std::process::Command;

use anyhow::{Context, ensure};
use lab::{Docker, Lab, Test};

fn ss(lab: &Lab, netns: &lab::Netns, args: &[&str]) -> anyhow::Result<String> {
    let mut argv = vec!["ss", "-Hneptul"];
    argv.extend(args);
    let output = lab.command(netns, &argv)?.output()?;
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn a_listener_is_in_its_namespace_only() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let listener = lab.listen(lab.host(), "tcp 127.0.0.1:20971 udp [::1]:20972")?;
    ensure!(listener.ports == [20971, 20972]);
    let here = ss(&lab, lab.host(), &[])?;
    ensure!(here.contains("127.0.0.1:20971") && here.contains("[::1]:20972"), "{here}");
    ensure!(here.contains(&format!("pid={}", listener.pid)), "{here}");
    ensure!(ss(&lab, &other, &[])?.is_empty());
    Ok(())
}

#[test]
fn a_socket_gets_more_holders() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let forked = lab.listen(lab.host(), "tcp 127.0.0.1:1001 --fork 2 --dup 1")?;
    ensure!(forked.holders.len() == 3);
    let passed = lab.listen(lab.host(), "tcp 127.0.0.1:1002 --pass")?;
    ensure!(passed.holders != [passed.pid]);
    let other = lab.netns("other")?;
    let path = other.path.display();
    let foreign = lab.listen(lab.host(), &format!("tcp 127.0.0.1:1003 --socket-netns {path}"))?;
    let threaded = lab.listen(lab.host(), "tcp 127.0.0.1:1004 --thread")?;
    let named = lab.listen(lab.host(), "tcp 127.0.0.1:1005 --imitate kube-apiserver --a=b")?;
    let here = ss(&lab, lab.host(), &[])?;
    for pid in forked.holders.iter().chain(&passed.holders) {
        ensure!(here.contains(&format!("pid={pid},")), "{pid} in {here}");
    }
    ensure!(!here.contains(&format!("pid={},", passed.pid)), "{here}");
    ensure!(here.contains(":1004 ") && here.contains("kube-apiserver"), "{here}");
    let there = ss(&lab, &other, &[])?;
    ensure!(there.contains(&format!("pid={},", foreign.pid)), "{there}");
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", named.pid))?;
    ensure!(line == "kube-apiserver\0--a=b\0", "{line:?}");
    let fds = std::fs::read_dir(format!("/proc/{}/fd", threaded.pid))?.flatten();
    let sockets = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    ensure!(!sockets.into_iter().any(|to| to.starts_with("socket:")));
    Ok(())
}

#[test]
fn links_join_namespaces() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let (near, far) = (lab.netns("near")?, lab.netns("far")?);
    lab.bridge(lab.host(), "br0", "10.9.9.1/24")?;
    for (netns, port, address) in [(&near, "p1", "10.9.9.2/24"), (&far, "p2", "10.9.9.3/24")] {
        lab.veth((lab.host(), port, "169.254.0.1/32"), (netns, "eth0", address))?;
        lab.host().ip(&["link", "set", port, "master", "br0"])?;
    }
    let _server = lab.listen(&far, "tcp 10.9.9.3:80")?;
    let connect = ["bash", "-c", "exec 3<>/dev/tcp/10.9.9.3/80"];
    ensure!(lab.command(&near, &connect)?.status()?.success());
    ensure!(lab.command(lab.host(), &connect)?.status()?.success());
    Ok(())
}

#[test]
fn nothing_is_left_of_a_dropped_lab() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    lab.netns("more")?;
    let listener = lab.listen(lab.host(), "tcp 127.0.0.1:20971 --fork 3")?;
    let (name, group) = (lab.name().to_owned(), lab.cgroup().to_owned());
    ensure!(lab.processes().len() == 4);
    drop(lab);
    drop(listener);
    ensure!(!group.exists());
    let names = Command::new("ip").args(["netns", "list"]).output()?;
    let names = String::from_utf8(names.stdout)?;
    let left = |n: &str| n == name || n.starts_with(&format!("{name}-"));
    ensure!(!names.lines().any(|line| left(line.split(' ').next().unwrap_or_default())));
    ensure!(!std::path::Path::new("/tmp").join(name).exists());
    Ok(())
}

#[test]
fn nothing_is_left_of_a_killed_test() -> Test {
    lab::root_or_skip!();
    // This test's own program, run again, plays the test that gets killed.
    if std::env::var_os("LAB_DIE").is_some() {
        let lab = Lab::new()?;
        let _listener = lab.listen(lab.host(), "tcp 127.0.0.1:20971 --fork 3")?;
        println!("LAB {}", lab.name());
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
    }
    let name = concat!(module_path!(), "::nothing_is_left_of_a_killed_test");
    let name = name.split_once("::").context("a test is in a module")?.1;
    let output = Command::new(std::env::current_exe()?)
        .args(["--exact", name, "--nocapture"])
        .env("LAB_DIE", "1")
        .output()?;
    let output = String::from_utf8(output.stdout)?;
    let name = output.lines().find_map(|line| line.split_once("LAB ")).context("no lab")?.1;
    let netns = std::path::Path::new("/run/netns").join(name);
    let dir = std::path::Path::new("/tmp").join(name);
    for _ in 0..500 {
        if !netns.exists() && !dir.exists() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    anyhow::bail!("{name} is still there")
}

#[test]
fn docker_runs_containers() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::start()?;
    let web = docker.run("web", "-p 127.0.0.1:8080:80", "listen tcp 0.0.0.0:80")?;
    let here = ss(docker.lab(), docker.lab().host(), &["-p"])?;
    ensure!(here.contains("127.0.0.1:8080") && here.contains("docker-proxy"), "{here}");
    let inside = ss(docker.lab(), &web.netns, &[])?;
    ensure!(inside.contains(&format!("pid={},", web.pid)), "{inside}");
    ensure!(web.address(&docker)?.starts_with("10.213.0."));
    let node = docker.kind_node("n1", "c1", "")?;
    let (_proc, pid) = node.component(
        "8daa50c3a64c9ff60bb9eab7b44b56fd",
        &"ab".repeat(32),
        "tcp [::]:6443",
        &["kube-apiserver", "--secure-port=6443"],
    )?;
    let inside = ss(docker.lab(), &node.container.netns, &[])?;
    ensure!(
        inside.contains("kube-apiserver") && inside.contains(&format!("pid={pid},")),
        "{inside}"
    );
    let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    ensure!(group.contains(&format!("/docker/{}/kubelet/kubepods/", node.container.id)), "{group}");
    let group = docker.lab().cgroup().to_owned();
    let dir = docker.lab().dir().to_owned();
    drop(docker);
    ensure!(!group.exists() && !dir.exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(dir.to_str().context("path")?), "{mounts}");
    Ok(())
}
