//! Who may say what a container is.

use std::os::unix::fs::{PermissionsExt, chown};

use super::*;

const TASKS: &str = "io.containerd.runtime.v2.task/default";

impl Lab {
    /// Makes a process another user's, in a user namespace.
    fn user(&self, pid: Pid, uid: u32, userns: &str) {
        let dir = self.path("proc").join(pid.to_string());
        let text = format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:\t{pid}\t1\n");
        fs::write(dir.join("status"), text).unwrap();
        fs::create_dir_all(dir.join("ns")).unwrap();
        _ = fs::remove_file(dir.join("ns/user"));
        symlink(userns, dir.join("ns/user")).unwrap();
    }

    /// A bundle of containerd's that names its container.
    fn named(&self, state: &str, letter: &str, name: &str) -> PathBuf {
        let dir = self.path("host").join(state).join(TASKS).join(id(letter));
        fs::create_dir_all(&dir).unwrap();
        let text = serde_json::json!({"annotations": {"nerdctl/name": name}}).to_string();
        fs::write(dir.join("config.json"), text).unwrap();
        dir.join("config.json")
    }

    /// A container of nerdctl's with its shim, both root's.
    fn nerdctl(&self, letter: &str) -> Process {
        let shim = "/usr/bin/containerd-shim-runc-v2 -namespace default";
        self.process(10, 1, shim, "/", "host");
        self.process(11, 10, "httpd", &format!("/nerdctl-{}.scope", id(letter)), "inside")
    }

    fn name_of(&self, process: &Process) -> Option<String> {
        self.one(process).value?.name
    }
}

#[test]
fn a_process_that_is_called_containerd_names_nobody_elses_containers() {
    let lab = Lab::new();
    lab.named("home/evil", "a", "FORGED");
    let process = lab.nerdctl("a");
    for (pid, uid, userns) in [(20, 65534, "user:[1]"), (21, 0, "user:[2]")] {
        lab.process(pid, 1, "containerd --state /home/evil", "/user.slice", "host");
        lab.user(pid, uid, userns);
    }
    lab.user(10, 0, "user:[1]");
    assert_eq!(lab.name_of(&process), None);
    // The same arguments of root's own are believed.
    let lab = Lab::new();
    lab.named("home/evil", "a", "told");
    let process = lab.nerdctl("a");
    lab.process(20, 1, "containerd --state /home/evil", "/", "host");
    assert_eq!(lab.name_of(&process).as_deref(), Some("told"));
    // But not before the usual place.
    let lab = Lab::new();
    lab.named("home/evil", "a", "told");
    lab.named("run/containerd", "a", "usual");
    lab.process(20, 1, "containerd --state /home/evil", "/", "host");
    assert_eq!(lab.name_of(&lab.nerdctl("a")).as_deref(), Some("usual"));
}

#[test]
fn a_program_that_others_can_write_is_no_daemon() {
    let lab = Lab::new();
    lab.named("home/evil", "a", "FORGED");
    let process = lab.nerdctl("a");
    lab.process(20, 1, "containerd --state /home/evil", "/", "host");
    let program = lab.path("program");
    fs::set_permissions(&program, PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(lab.name_of(&process), None);
}

#[test]
fn a_program_with_the_rights_of_several_users_is_no_daemon() {
    let lab = Lab::new();
    lab.named("home/evil", "a", "FORGED");
    let process = lab.nerdctl("a");
    lab.process(20, 1, "containerd --state /home/evil", "/", "host");
    let status = lab.path("proc/20/status");
    fs::write(status, "Uid:\t1000\t0\t0\t0\nNSpid:\t20\t1\n").unwrap();
    assert_eq!(lab.name_of(&process), None);
}

#[test]
fn a_users_daemon_names_that_users_containers() {
    let lab = Lab::new();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let file = lab.named("home/u/state", "a", "mine");
    let process = lab.nerdctl("a");
    lab.process(20, 1, "containerd --state /home/u/state", "/user.slice", "host");
    for pid in [10, 20] {
        lab.user(pid, 4_000_000, "user:[2]");
    }
    // Root's file in the user's place is not the user's word.
    assert_eq!(lab.name_of(&process), None);
    let lab = Lab { containers: Containers { state: Mutex::default(), ..lab.containers }, ..lab };
    for path in [file.parent().unwrap(), &file] {
        chown(path, Some(4_000_000), None).unwrap();
    }
    assert_eq!(lab.name_of(&process).as_deref(), Some("mine"));
}

#[test]
fn a_cgroup_that_a_user_made_is_no_container_of_roots() {
    let lab = Lab::new();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    serve(&lab.path("host/var/run/docker.sock"), healthy("web"));
    let cgroup = format!("/user.slice/u/docker-{}.scope", id("a"));
    let above = lab.path("host/sys/fs/cgroup/user.slice/u");
    fs::create_dir_all(&above).unwrap();
    chown(&above, Some(4_000_000), None).unwrap();
    // Its login's parents are root's.
    lab.process(10, 1, "sshd", "/system.slice", "host");
    let mut pretender = lab.process(12, 10, "nc", &cgroup, "inside");
    assert_eq!(lab.name_of(&pretender), None);
    // The true one has the same id.
    let process = lab.docker_process("a");
    assert_eq!(lab.name_of(&process).as_deref(), Some("web-a"));
    assert_eq!(lab.name_of(&pretender), None);
    // In `list`, too.
    let all = lab.containers.all().value;
    assert_eq!(all.iter().filter(|c| c.name.is_some()).count(), 1, "{all:?}");
    // The names of pods in cgroups are the kubelet's.
    let pod = "pod1e597579-417e-482f-bf65-5fe170c3aebd";
    pretender = lab.process(13, 10, "nc", &format!("/user.slice/u/{pod}/{}", id("b")), "inside");
    fs::create_dir_all(above.join(pod)).unwrap();
    chown(above.join(pod), Some(4_000_000), None).unwrap();
    let read = lab.one(&pretender);
    assert_eq!(read.value.as_ref().unwrap().pod, None);
    assert!(read.gaps.iter().any(|gap| gap.reason.contains("made by user 4000000")), "{read:?}");
}

#[test]
fn a_daemon_that_names_another_containers_process_is_not_believed() {
    let lab = Lab::new();
    serve(&lab.path("host/var/run/docker.sock"), healthy("web"));
    // The daemon says that its process is 11, which is in none.
    lab.process(11, 1, "bash", "/user.slice", "host");
    let process = lab.process(12, 1, "httpd", &format!("/docker/{}", id("a")), "inside");
    let read = lab.one(&process);
    assert_eq!(read.value, None);
    assert!(read.gaps[0].reason.contains("not in this container"), "{read:?}");
}

#[test]
fn an_api_and_a_file_that_contradict_each_other_are_both_told() {
    let lab = Lab::new();
    serve(&lab.path("host/var/run/docker.sock"), healthy("web"));
    let dir = lab.path("host/var/lib/docker/containers").join(id("a"));
    fs::create_dir_all(&dir).unwrap();
    let state = |name: &str| {
        let config = serde_json::json!({"Image": "img:1", "Labels": {}});
        let text = serde_json::json!({"ID": id("a"), "Name": name, "Config": config});
        fs::write(dir.join("config.v2.json"), text.to_string()).unwrap();
    };
    state("/other");
    let read = lab.one(&lab.docker_process("a"));
    assert_eq!(read.value.unwrap().name.as_deref(), Some("web-a"));
    let [gap] = &read.gaps[..] else { panic!("{:?}", read.gaps) };
    let start = "Docker API (/var/run/docker.sock) says that its name is \"web-a\", state file ";
    assert!(gap.reason.starts_with(start) && gap.reason.ends_with(" says \"other\""), "{gap:?}");

    let lab = Lab { containers: Containers { state: Mutex::default(), ..lab.containers }, ..lab };
    state("/web-a");
    assert_eq!(lab.one(&lab.docker_process("a")).gaps, []);
}

#[test]
fn a_state_file_is_never_quoted_and_a_link_is_not_read() {
    let lab = Lab::new();
    let file = lab.named("run/containerd", "a", "x");
    fs::write(&file, "\"hunter2-secret\"").unwrap();
    let process = lab.nerdctl("a");
    let read = lab.one(&process);
    assert!(read.gaps.iter().any(|gap| gap.reason.contains("line 1, column 16")), "{read:?}");
    assert!(!format!("{read:?}").contains("hunter2"), "{read:?}");

    let lab = Lab { containers: Containers { state: Mutex::default(), ..lab.containers }, ..lab };
    fs::remove_file(&file).unwrap();
    fs::write(lab.path("host/secret"), r#"{"annotations":{"nerdctl/name":"hunter2"}}"#).unwrap();
    symlink("/secret", &file).unwrap();
    let read = lab.one(&process);
    assert_eq!(read.value, None);
    assert!(read.gaps.iter().any(|gap| gap.reason == "not a file, but a link"), "{read:?}");
}

#[test]
fn the_unprivileged_of_a_container_name_nothing_in_it() {
    let lab = Lab::new();
    let node = format!("/docker/{}", id("c"));
    fs::create_dir_all(lab.path("node/srv")).unwrap();
    serve(&lab.path("node/srv/d.sock"), healthy("FORGED"));
    lab.process(20, 1, "init", &node, "node");
    lab.process(21, 20, "dockerd -H unix:///srv/d.sock", &node, "node");
    lab.user(21, 65534, "user:[1]");
    lab.process(22, 20, "containerd-shim-runc-v2 -namespace moby", &node, "node");
    let nested = format!("{node}/docker/{}", id("b"));
    let process = lab.process(23, 22, "httpd", &nested, "node/inside");
    assert_eq!(lab.name_of(&process), None);
}

#[test]
fn silent_daemons_are_asked_up_to_a_limit_and_the_rest_is_counted() {
    let mut lab = Lab::new();
    lab.containers.limits =
        RequestLimits { time: Duration::from_millis(30), ..RequestLimits::USUAL };
    let node = format!("/docker/{}", id("c"));
    let asked = Arc::new(AtomicUsize::new(0));
    fs::create_dir_all(lab.path("node/srv")).unwrap();
    for daemon in 0..16 {
        let mut line = "dockerd".to_owned();
        for socket in 0..4 {
            let name = format!("{daemon}-{socket}.sock");
            let count = Arc::clone(&asked);
            serve(&lab.path("node/srv").join(&name), move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                Reply::Silence
            });
            line += &format!(" -H unix:///srv/{name}");
        }
        lab.process(20 + daemon, 1, &line, &node, "node");
    }
    lab.process(50, 1, "containerd-shim-runc-v2 -namespace moby", &node, "node");
    let nested = format!("{node}/docker/{}", id("b"));
    let read = lab.one(&lab.process(51, 50, "httpd", &nested, "node/inside"));
    assert_eq!(read.value, None);
    assert!(asked.load(Ordering::Relaxed) <= 4, "{asked:?}");
    let gap = read.gaps.iter().find(|gap| gap.source.name.starts_with("daemons in")).unwrap();
    // Where the time was over before, a few more.
    let more: usize = gap.reason.split(' ').next().unwrap().parse().unwrap();
    assert!((60..64).contains(&more), "{gap:?}");
}

#[test]
fn without_time_no_daemon_is_asked_and_that_is_said() {
    let mut lab = Lab::new();
    serve(&lab.path("host/var/run/docker.sock"), healthy("web"));
    lab.containers.within(Duration::ZERO);
    let read = lab.one(&lab.docker_process("a"));
    assert_eq!(read.value, None);
    assert!(read.gaps.iter().any(|gap| gap.reason.contains("not asked")), "{read:?}");
}
