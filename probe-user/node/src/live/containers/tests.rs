//! The source of containers as a whole, over a procfs and a root that are made
//! for the test.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::docker::tests::{Reply, VERSION, serve};
use super::*;
use whereis_port_model::{Ancestor, CgroupPath, StartTime};

mod identity;
mod pods;

struct Lab {
    dir: tempfile::TempDir,
    containers: Containers,
}

fn id(letter: &str) -> String {
    letter.repeat(64)
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["proc", "host/var/run", "host/run/user"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("program"), "").unwrap();
        let mut containers = Containers::new(&dir.path().join("proc"), Reader::default());
        containers.root = dir.path().join("host");
        containers.docker_host = None;
        containers.context = contexts::DockerContextChoice::default();
        // A slow test machine is no hung daemon.
        containers.limits.time = Duration::from_secs(20);
        Self { dir, containers }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A process in `cgroup` whose root directory is `root`.
    fn process(&self, pid: Pid, parent: Pid, argv: &str, cgroup: &str, root: &str) -> Process {
        let dir = self.path("proc").join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        let comm: String = argv.split(' ').next().unwrap().rsplit('/').next().unwrap().into();
        let comm: String = comm.chars().take(15).collect();
        let rest = format!("S {parent} {}77", "0 ".repeat(17));
        fs::write(dir.join("stat"), format!("{pid} ({comm}) {rest}\n")).unwrap();
        fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
        fs::write(dir.join("cmdline"), argv.replace(' ', "\0") + "\0").unwrap();
        fs::write(dir.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        fs::write(dir.join("status"), format!("Uid:\t0\t0\t0\t0\nNSpid:\t{pid}\t1\n")).unwrap();
        let root = self.path(root);
        fs::create_dir_all(&root).unwrap();
        for (name, target) in [("root", root), ("exe", self.path("program"))] {
            _ = fs::remove_file(dir.join(name));
            symlink(target, dir.join(name)).unwrap();
        }
        let ancestors = Procs::new(&self.path("proc"), Reader::default()).ancestors(pid);
        Process {
            pid,
            start: StartTime(77),
            started_at: None,
            comm,
            cmdline: Vec::new(),
            exe: None,
            cwd: None,
            uid: 0,
            fs: None,
            own_word: false,
            user: None,
            nspid: vec![pid, 1],
            netns: None,
            cgroup: Some(CgroupPath(cgroup.to_owned())),
            monitored: None,
            ancestors: ancestors
                .into_iter()
                .map(|pid| Ancestor { pid, comm: String::new() })
                .collect(),
            health: whereis_port_model::ProcessHealth::default(),
        }
    }

    fn one(&self, process: &Process) -> Read<Option<Container>> {
        let chain = process.cgroup.as_ref().unwrap().containers();
        self.containers.one(&chain, process)
    }

    /// A container of Docker's at host level: dockerd's shim and the process.
    fn docker_process(&self, letter: &str) -> Process {
        self.process(10, 1, "/usr/bin/containerd-shim-runc-v2 -namespace moby", "/", "host");
        self.process(11, 10, "httpd", &format!("/docker/{}", id(letter)), "inside")
    }
}

/// Docker's answer for a container; `label` is one label's value.
fn inspect(id: &str, name: &str, label: &str) -> String {
    serde_json::json!({
        "Id": id, "Name": format!("/{name}"), "State": {"Pid": 11},
        "Config": {"Image": "img:1", "Labels": {"l": label}},
        "HostConfig": {"NetworkMode": "bridge"},
    })
    .to_string()
}

/// A daemon that names every container `NAME-<first letter of its id>`.
fn healthy(name: &'static str) -> impl Fn(&str) -> Reply + Send + Sync + 'static {
    move |path: &str| match path.split('/').collect::<Vec<_>>()[..] {
        ["", "version"] => Reply::Json(200, VERSION.to_owned()),
        ["", "v1.41", "containers", id, "json"] => {
            Reply::Json(200, inspect(id, &format!("{name}-{}", &id[..1]), ""))
        }
        ["", "v1.41", "containers", "json"] => Reply::Json(200, "[]".to_owned()),
        _ => Reply::Json(400, "{}".to_owned()),
    }
}

#[test]
fn a_daemon_names_its_container_and_is_asked_once() {
    let lab = Lab::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let answer = healthy("web");
    serve(&lab.path("host/var/run/docker.sock"), move |path| {
        count.fetch_add(1, Ordering::Relaxed);
        answer(path)
    });
    let process = lab.docker_process("a");
    let first = lab.one(&process);
    assert_eq!(first.gaps, []);
    let container = first.value.clone().unwrap();
    assert_eq!(container.name.as_deref(), Some("web-a"));
    assert_eq!(container.image.as_deref(), Some("img:1"));
    assert_eq!(container.pid, Some(11));
    assert_eq!(container.via.to_string(), "Docker API (/var/run/docker.sock)");
    assert!(container.parents.is_empty());
    assert_eq!(lab.one(&process), first);
    // Its version, and the container.
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn a_hung_daemon_leaves_a_gap_and_the_state_files_name_the_container() {
    let mut lab = Lab::new();
    lab.containers.limits = RequestLimits::USUAL;
    serve(&lab.path("host/var/run/docker.sock"), |_| Reply::Silence);
    let dir = lab.path("host/var/lib/docker/containers").join(id("a"));
    fs::create_dir_all(&dir).unwrap();
    let state = serde_json::json!({"ID": id("a"), "Name": "/from-file"}).to_string();
    fs::write(dir.join("config.v2.json"), state).unwrap();
    let before = Instant::now();
    let read = lab.one(&lab.docker_process("a"));
    assert!(before.elapsed() < Duration::from_secs(2));
    assert_eq!(read.value.unwrap().name.as_deref(), Some("from-file"));
    assert_eq!(read.gaps.len(), 1);
    assert_eq!(read.gaps[0].source.to_string(), "Docker API (/var/run/docker.sock)");
    assert_eq!(read.gaps[0].reason, "no answer within 300 ms");
    assert_eq!(read.gaps[0].impact, Impact::Name);
    assert!(read.gaps[0].remedy.is_some());
    // It is not waited for a second time.
    let before = Instant::now();
    let other = lab.process(12, 10, "httpd", &format!("/docker/{}", id("b")), "inside");
    assert_eq!(lab.one(&other).value, None);
    assert!(before.elapsed() < Duration::from_millis(250));
}

#[test]
fn one_container_too_big_to_read_does_not_hide_the_others() {
    let lab = Lab::new();
    let (big, answer) = (id("a"), healthy("web"));
    let label = "x".repeat(10_000);
    let labels: serde_json::Map<String, serde_json::Value> =
        (0..10_000).map(|n| (format!("label{n}"), label.clone().into())).collect();
    let body = serde_json::json!({"Id": big, "Name": "/big", "Config": {"Labels": labels}});
    let body = body.to_string();
    assert!(body.len() > 100_000_000);
    serve(&lab.path("host/var/run/docker.sock"), move |path| {
        if path.contains(&big) { Reply::Json(200, body.clone()) } else { answer(path) }
    });
    let read = lab.one(&lab.docker_process("a"));
    assert_eq!(read.value, None);
    assert!(read.gaps.iter().any(|g| g.reason == "answer is larger than 32 MiB"), "{read:?}");
    let other = lab.one(&lab.docker_process("b"));
    assert_eq!(other.value.unwrap().name.as_deref(), Some("web-b"));
    assert_eq!(other.gaps, []);
}

#[test]
fn a_list_too_big_to_read_still_leaves_what_runs() {
    let mut lab = Lab::new();
    lab.containers.limits.bytes = 1 << 20;
    let answer = healthy("web");
    serve(&lab.path("host/var/run/docker.sock"), move |path| match path {
        path if path.starts_with("/v1.41/containers/json") => Reply::Endless,
        path => answer(path),
    });
    lab.docker_process("a");
    let all = lab.containers.all();
    let names: Vec<&str> = all.value.iter().filter_map(|c| c.name.as_deref()).collect();
    assert_eq!(names, ["web-a"]);
    assert_eq!(all.gaps.len(), 1);
    assert_eq!(all.gaps[0].reason, "answer is larger than 1 MiB");
}

#[test]
fn a_hostile_name_is_kept_as_it_is() {
    let lab = Lab::new();
    serve(&lab.path("host/var/run/docker.sock"), |path| match path {
        "/version" => Reply::Json(200, VERSION.to_owned()),
        _ => Reply::Json(200, inspect(&id("a"), "\x1b[2J", "\u{202e}")),
    });
    let read = lab.one(&lab.docker_process("a"));
    let container = read.value.unwrap();
    assert_eq!(container.name.as_deref(), Some("\x1b[2J"));
    assert_eq!(container.labels["l"], "\u{202e}");
}

#[test]
fn an_answer_about_another_container_is_not_taken() {
    let lab = Lab::new();
    serve(&lab.path("host/var/run/docker.sock"), |path| match path {
        "/version" => Reply::Json(200, VERSION.to_owned()),
        _ => Reply::Json(200, inspect(&id("f"), "other", "")),
    });
    let read = lab.one(&lab.docker_process("a"));
    assert_eq!(read.value, None);
    assert!(read.gaps[0].reason.contains("another container"), "{read:?}");
}

#[test]
fn a_daemon_inside_a_container_names_only_its_own_containers() {
    let lab = Lab::new();
    let node = format!("/docker/{}", id("a"));
    serve(&lab.path("host/var/run/docker.sock"), healthy("outer"));
    lab.process(10, 1, "/usr/bin/containerd-shim-runc-v2 -namespace moby", "/", "host");
    lab.process(20, 10, "dockerd -H unix:///srv/d.sock", &node, "node");
    fs::create_dir_all(lab.path("node/srv")).unwrap();
    serve(&lab.path("node/srv/d.sock"), healthy("inner"));
    lab.process(21, 20, "containerd-shim-runc-v2 -namespace moby", &node, "node");
    let process =
        lab.process(22, 21, "httpd", &format!("{node}/docker/{}", id("b")), "node/inside");

    let inner = lab.one(&process).value.unwrap();
    assert_eq!(inner.name.as_deref(), Some("inner-b"));
    assert_eq!(inner.parents.len(), 1);
    assert_eq!(inner.via.to_string(), "Docker API (/srv/d.sock in container aaaaaaaaaaaa)");
    // It said 11, in a PID namespace of its own: process 22 is the first there.
    assert_eq!(inner.pid, Some(22));

    // The outer one is named by the host's daemon, the whole of it by `all`.
    let chain = process.cgroup.as_ref().unwrap().containers();
    let outer = lab.containers.one(&chain[..1], &process).value.unwrap();
    assert_eq!(outer.name.as_deref(), Some("outer-a"));
    let all = lab.containers.all();
    let names: Vec<&str> = all.value.iter().filter_map(|c| c.name.as_deref()).collect();
    assert_eq!(names, ["outer-a", "inner-b"]);
    assert_eq!(all.gaps, []);
}

#[test]
fn a_pods_container_in_a_kind_node_is_named_by_the_nodes_files() {
    let lab = Lab::new();
    let node = format!("/docker/{}", id("a"));
    lab.process(10, 1, "/usr/bin/containerd-shim-runc-v2 -namespace moby", "/", "host");
    lab.process(20, 10, "/sbin/init", &node, "node");
    lab.process(21, 20, "containerd-shim-runc-v2 -namespace k8s.io -id c", &node, "node");
    let cgroup = format!("{node}/kubelet/kubepods/pod8daa50c3a64c9ff60bb9eab7b44b56fd/{}", id("b"));
    let process = lab.process(22, 21, "kube-apiserver", &cgroup, "node/inside");
    let place = format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{}", id("b"));
    let fixture = include_bytes!("fixtures/hand-made/cri-container.json");
    // The host has a container of the same id, which has nothing to do with it.
    for (root, name) in [("node", "kube-apiserver"), ("host", "wrong")] {
        let dir = lab.path(root).join(&place);
        fs::create_dir_all(&dir).unwrap();
        let text =
            String::from_utf8_lossy(fixture).replace("\"kube-apiserver\"", &format!("\"{name}\""));
        fs::write(dir.join("config.json"), text).unwrap();
    }
    let read = lab.one(&process);
    assert_eq!(read.gaps, []);
    let container = read.value.unwrap();
    assert_eq!(container.name.as_deref(), Some("kube-apiserver"));
    assert_eq!(container.pod.unwrap().namespace.as_deref(), Some("kube-system"));
    assert!(container.via.place.ends_with("in container aaaaaaaaaaaa"), "{}", container.via);
}

#[test]
fn a_state_file_that_leads_out_of_the_container_is_not_followed() {
    let lab = Lab::new();
    let node = format!("/docker/{}", id("a"));
    lab.process(10, 1, "/usr/bin/containerd-shim-runc-v2 -namespace moby", "/", "host");
    lab.process(21, 10, "containerd-shim-runc-v2 -namespace k8s.io", &node, "node");
    let cgroup = format!("{node}/kubepods/pod8daa50c3a64c9ff60bb9eab7b44b56fd/{}", id("b"));
    let process = lab.process(22, 21, "x", &cgroup, "node/inside");
    let secret = lab.path("secret.json");
    fs::write(&secret, include_bytes!("fixtures/hand-made/cri-container.json")).unwrap();
    let dir = lab.path("node/run/containerd/io.containerd.runtime.v2.task/k8s.io").join(id("b"));
    fs::create_dir_all(&dir).unwrap();
    symlink(&secret, dir.join("config.json")).unwrap();
    let read = lab.one(&process);
    assert_eq!(read.value, None);
    assert!(!read.gaps.is_empty());
}

#[test]
fn nobody_knows_the_container() {
    let lab = Lab::new();
    let read = lab.one(&lab.docker_process("a"));
    assert_eq!(read.value, None);
    assert_eq!(read.gaps.len(), 1);
    assert_eq!(read.gaps[0].source.to_string(), "container aaaaaaaaaaaa");
    // Without a chain there is nothing to ask.
    assert_eq!(lab.containers.one(&[], &lab.docker_process("a")), Read::default());
}

#[test]
fn machines_are_named_without_asking_anybody() {
    let lab = Lab::new();
    lab.process(10, 1, "lxc-start", "/lxc.monitor.web1", "host");
    let read = lab.one(&lab.process(11, 10, "init", "/lxc.payload.web1/init.scope", "inside"));
    assert_eq!(read.gaps, []);
    let container = read.value.unwrap();
    assert_eq!((container.name.as_deref(), container.runtime), (Some("web1"), Runtime::Lxc));
    assert_eq!(container.pid, Some(11));
}
