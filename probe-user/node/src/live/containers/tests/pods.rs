//! Containers of pods, by the runtimes of Kubernetes and without them.

use super::super::super::cri::tests as cri;
use super::*;
use whereis_port_model::Teller;

const KUBE: &str = "kubepods/besteffort/pod0f7a2b1c-5d34-4f6e-8a90-1b2c3d4e5f60";

impl Lab {
    /// A runtime at the socket `path` of `root`, and everything it was asked.
    fn cri(&self, root: &str, path: &str, fake: cri::Fake) -> cri::Asked {
        let (asked, socket) = (fake.asked(), self.path(root).join(path));
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        cri::serve(&socket, fake);
        asked
    }

    /// The process of the container `web` in the cgroup `outer`, with its shim.
    fn web(&self, outer: &str, root: &str) -> Process {
        self.process(10, 1, "containerd-shim-runc-v2 -namespace k8s.io -id c", outer, root);
        self.process(11, 10, "nginx", &format!("{outer}/{KUBE}/{}", cri::WEB), "inside")
    }

    /// The bundle of the container `web`, with another name for it.
    fn bundle(&self, root: &str) {
        let tasks = "run/containerd/io.containerd.runtime.v2.task/k8s.io";
        let dir = self.path(root).join(tasks).join(cri::WEB);
        fs::create_dir_all(&dir).unwrap();
        fs::write(
            dir.join("config.json"),
            include_bytes!("../fixtures/hand-made/cri-container.json"),
        )
        .unwrap();
    }
}

const SOCKET: &str = "run/containerd/containerd.sock";

#[test]
fn the_runtime_names_a_pods_container_before_files_do() {
    let lab = Lab::new();
    let asked = lab.cri("host", SOCKET, cri::Fake::pod());
    lab.bundle("host");
    let process = lab.web("", "host");
    let read = lab.one(&process);
    // The bundle is that of another container, and does not pass silently.
    let [gap] = &read.gaps[..] else { panic!("{:?}", read.gaps) };
    assert!(gap.reason.starts_with("CRI (/run/containerd/containerd.sock) says that its name"));
    assert!(gap.reason.contains(r#" is "web", state file "#), "{gap:?}");
    assert!(gap.reason.contains(r#" says "kube-apiserver""#), "{gap:?}");
    let web = read.value.clone().unwrap();
    assert_eq!(web.name.as_deref(), Some("web"));
    assert_eq!(web.via.to_string(), "CRI (/run/containerd/containerd.sock)");
    assert_eq!(web.pid, Some(11));
    assert_eq!(web.pod.unwrap().labels["app"], "web");
    // Asked once, also when the answer is needed again.
    let before = asked.lock().unwrap().len();
    assert_eq!(lab.one(&process), read);
    assert_eq!(asked.lock().unwrap().len(), before);
}

#[test]
fn a_hung_runtime_leaves_a_gap_and_the_bundle_names_the_container() {
    let mut lab = Lab::new();
    lab.containers.limits = RequestLimits::USUAL;
    lab.cri("host", SOCKET, cri::Fake::replying(cri::Reply::Silence));
    lab.bundle("host");
    let before = Instant::now();
    let read = lab.one(&lab.web("", "host"));
    assert!(before.elapsed() < Duration::from_secs(2));
    let web = read.value.unwrap();
    assert_eq!(web.name.as_deref(), Some("kube-apiserver"));
    assert!(web.via.teller == Teller::StateFile, "{}", web.via);
    let [gap] = &read.gaps[..] else { panic!("{:?}", read.gaps) };
    assert_eq!(gap.source.to_string(), "CRI (/run/containerd/containerd.sock)");
    assert_eq!(gap.reason, "no answer within 300 ms");
    assert_eq!(gap.remedy.as_deref(), Some("check whether the container runtime hangs"));
    assert_eq!(gap.impact, Impact::Name);
    // It is not waited for again, for another container of the pod.
    let before = Instant::now();
    let other = lab.process(12, 10, "x", &format!("/{KUBE}/{}", id("b")), "inside");
    lab.one(&other);
    assert!(before.elapsed() < Duration::from_millis(250));
}

#[test]
fn a_runtime_that_speaks_nonsense_is_told_of() {
    let lab = Lab::new();
    let reply = cri::Reply::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    lab.cri("host", SOCKET, cri::Fake::replying(reply));
    let read = lab.one(&lab.web("", "host"));
    assert_eq!(read.value, None);
    let gap = &read.gaps[0];
    assert!(gap.reason.starts_with("answer is not understood"), "{gap:?}");
    assert_eq!(gap.remedy.as_deref(), Some("check what listens there"));
}

#[test]
fn a_container_that_is_no_pods_costs_no_question() {
    let lab = Lab::new();
    let asked = lab.cri("host", SOCKET, cri::Fake::pod());
    serve(&lab.path("host/var/run/docker.sock"), healthy("web"));
    lab.one(&lab.docker_process("a"));
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn a_runtime_inside_a_container_names_only_its_own_containers() {
    let lab = Lab::new();
    let node = format!("/docker/{}", id("a"));
    let outside = lab.cri("host", SOCKET, cri::Fake::pod());
    let inside = lab.cri("node", SOCKET, cri::Fake::pod());
    lab.process(20, 1, "containerd", &node, "node");
    let web = lab.web(&node, "node");
    let named = lab.one(&web).value.unwrap();
    assert_eq!(named.name.as_deref(), Some("web"));
    assert_eq!(
        named.via.to_string(),
        "CRI (/run/containerd/containerd.sock in container aaaaaaaaaaaa)"
    );
    assert_eq!(named.parents.len(), 1);
    assert!(outside.lock().unwrap().is_empty());
    inside.lock().unwrap().clear();
    // A container of the same id outside, or in another container, is not its.
    for other in
        [format!("/{KUBE}/{}", cri::WEB), format!("/docker/{}/{KUBE}/{}", id("c"), cri::WEB)]
    {
        lab.one(&lab.process(30, 1, "x", &other, "inside"));
    }
    assert!(inside.lock().unwrap().is_empty());
    assert!(!outside.lock().unwrap().is_empty());
}

#[test]
fn a_socket_that_leads_out_of_the_container_is_not_followed() {
    let lab = Lab::new();
    let node = format!("/docker/{}", id("a"));
    let outside = lab.cri("outside", "s", cri::Fake::pod());
    let dir = lab.path("node/run/containerd");
    fs::create_dir_all(&dir).unwrap();
    symlink(lab.path("outside/s"), dir.join("containerd.sock")).unwrap();
    lab.process(20, 1, "containerd", &node, "node");
    assert_eq!(lab.one(&lab.web(&node, "node")).value, None);
    assert!(outside.lock().unwrap().is_empty());
}

#[test]
fn a_socket_of_somebody_elses_is_not_asked() {
    let lab = Lab::new();
    let node = format!("/docker/{}", id("a"));
    // The runtime is this test, which seems to run outside of the container.
    let asked = lab.cri("node", SOCKET, cri::Fake::pod());
    lab.process(std::process::id(), 1, "test", "/user.slice", "host");
    lab.process(20, 1, "containerd", &node, "node");
    let read = lab.one(&lab.web(&node, "node"));
    assert_eq!(read.value, None);
    assert!(read.gaps.iter().any(|gap| gap.reason.contains("in another container")), "{read:?}");
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn many_sockets_of_one_container_are_not_all_waited_for() {
    let mut lab = Lab::new();
    lab.containers.limits =
        RequestLimits { time: Duration::from_millis(50), ..RequestLimits::USUAL };
    let node = format!("/docker/{}", id("a"));
    for n in 0..10 {
        let name = format!("{n}.sock");
        let fake = cri::Fake::replying(cri::Reply::Silence);
        lab.cri("node", &name, fake);
        lab.process(20 + n, 1, &format!("containerd --address /{name}"), &node, "node");
    }
    let read = lab.one(&lab.web(&node, "node"));
    let waited = read.gaps.iter().filter(|gap| gap.reason.starts_with("no answer")).count();
    // A machine that is busy waits longer for each.
    assert!((1..=4).contains(&waited), "{:?}", read.gaps);
    let left_out =
        read.gaps.iter().find(|gap| gap.source.name.starts_with("container runtimes in"));
    let reason = &left_out.unwrap().reason;
    let more = format!("{} more sockets were not asked", 10 - waited);
    assert!(reason.starts_with(&more), "{reason}");
}

#[test]
fn all_containers_are_asked_for_at_once() {
    let lab = Lab::new();
    let asked = lab.cri("host", SOCKET, cri::Fake::pod());
    lab.web("", "host");
    lab.process(12, 10, "pause", &format!("/{KUBE}/{}", cri::SANDBOX), "inside");
    let all = lab.containers.all();
    assert_eq!(all.gaps, []);
    let names: Vec<_> = all.value.iter().map(|c| (c.name.as_deref().unwrap(), c.sandbox)).collect();
    assert_eq!(names, [("web", false), ("pause", true)]);
    assert!(all.value.iter().all(|c| c.pod.as_ref().unwrap().host_network == Some(false)));
    let asked = asked.lock().unwrap();
    let lists = asked.iter().filter(|(path, _)| path.ends_with("/ListContainers")).count();
    assert_eq!((lists, asked.len()), (1, 3));
}

#[test]
fn many_single_questions_become_one() {
    let lab = Lab::new();
    let asked = lab.cri("host", SOCKET, cri::Fake::pod());
    for n in 0..40 {
        let other = format!("/{KUBE}/{n:064x}");
        lab.one(&lab.process(100 + n, 1, "x", &other, "inside"));
    }
    // Each single one is two: it is neither a container nor a sandbox.
    assert_eq!(asked.lock().unwrap().len(), 8 * 2 + 3);
    assert_eq!(lab.one(&lab.web("", "host")).value.unwrap().name.as_deref(), Some("web"));
    assert_eq!(asked.lock().unwrap().len(), 8 * 2 + 3);
}

#[test]
fn without_rights_the_names_of_logs_tell_the_pod() {
    let lab = Lab::new();
    let uid = "0f7a2b1c-5d34-4f6e-8a90-1b2c3d4e5f60";
    for dir in [format!("default_web-abc_{uid}"), "kube-system_dns_another-uid".to_owned()] {
        fs::create_dir_all(lab.path("host/var/log/pods").join(dir)).unwrap();
    }
    let links = lab.path("host/var/log/containers");
    fs::create_dir_all(&links).unwrap();
    for (container, id) in [("web", cri::WEB.to_owned()), ("side", id("b"))] {
        symlink("x", links.join(format!("web-abc_default_{container}-{id}.log"))).unwrap();
    }
    let read = lab.one(&lab.web("", "host"));
    let web = read.value.unwrap();
    assert_eq!(web.name.as_deref(), Some("web"));
    assert_eq!(web.via.to_string(), format!("state file /var/log/pods/default_web-abc_{uid}"));
    let pod = web.pod.unwrap();
    assert_eq!(pod.namespace.as_deref(), Some("default"));
    assert_eq!(pod.name.as_deref(), Some("web-abc"));
}
