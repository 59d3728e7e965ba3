//! Runtimes that are healthy, old, slow, hostile or none at all.

mod fake;

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::reader::RootDirectory;
use super::proto::{ImageSpec, NODE};
use super::*;
use whereis_port_model::{Port, Proto, Published};

pub(crate) use self::fake::{Asked, Fake, Reply, serve};

pub(crate) const WEB: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const SANDBOX: &str = "5555555555555555555555555555555555555555555555555555555555555555";
pub(crate) const UID: &str = "0f7a2b1c-5d34-4f6e-8a90-1b2c3d4e5f60";

struct Lab {
    _dir: tempfile::TempDir,
    client: CriClient,
}

impl Lab {
    fn new(fake: Fake) -> Self {
        let dir = tempfile::tempdir().unwrap();
        serve(&dir.path().join("s"), fake);
        let socket = RootDirectory::at(dir.path()).socket(Path::new("s")).unwrap();
        // A slow test machine is no hung runtime.
        let limits = RequestLimits { time: Duration::from_secs(20), ..RequestLimits::USUAL };
        let client =
            CriClient { socket, limits, runtime: Runtime::Containerd, tokio: Tokio::default() };
        Self { _dir: dir, client }
    }

    fn one(
        &self,
        id: &str,
    ) -> (Option<CriVersion>, Result<RuntimeReply<Container>, DaemonFailure>) {
        self.client.one(None, id, |_| Ok(()))
    }

    fn failure(&self) -> DaemonFailure {
        self.one(WEB).1.unwrap_err()
    }
}

#[test]
fn a_container_is_told_with_its_pod() {
    let lab = Lab::new(Fake::pod());
    let (version, told) = lab.one(WEB);
    let told = told.unwrap();
    assert_eq!((version, told.missing), (Some(CriVersion::V1), None));
    let web = told.value;
    assert_eq!((web.id.as_str(), web.name.as_deref()), (WEB, Some("web")));
    assert_eq!(web.image.as_deref(), Some("docker.io/library/nginx:latest"));
    assert_eq!(web.labels["io.kubernetes.container.name"], "web");
    assert!(!web.sandbox);
    let port = |container_port, host_port: Option<u16>| Published {
        proto: Proto::Tcp,
        container_port: Port(container_port),
        host_port: host_port.map(Port),
        host_ip: None,
    };
    assert_eq!(web.ports, [port(80, Some(8080)), port(9090, None)]);
    assert_eq!(web.networks[0].addresses, ["10.1.2.3".parse::<std::net::IpAddr>().unwrap()]);
    let pod = web.pod.unwrap();
    assert_eq!(pod.namespace.as_deref(), Some("default"));
    assert_eq!(pod.name.as_deref(), Some("web-abc"));
    assert_eq!(pod.uid.as_deref(), Some(UID));
    // Of the labels only the pod's own: the kubelet's repeat its name.
    assert_eq!(pod.labels, [("app".to_owned(), "web".to_owned())].into());
    assert_eq!((pod.host_network, pod.is_static), (Some(false), Some(false)));
}

#[test]
fn only_what_is_asked_for_is_asked() {
    let fake = Fake::pod();
    let asked = fake.asked();
    let lab = Lab::new(fake);
    lab.one(WEB).1.unwrap();
    let asked = asked.lock().unwrap();
    let methods: Vec<&str> = asked.iter().map(|(path, _)| path.as_str()).collect();
    let of = |method: &str| format!("/runtime.v1.RuntimeService/{method}");
    assert_eq!(methods, [of("ListContainers"), of("ListPodSandbox"), of("PodSandboxStatus")]);
    // Lists with a filter: a node may have hundreds of pods.
    let filter = |id: &str| Some(Filter { id: id.to_owned() });
    let list = ListContainersRequest::decode(asked[0].1.clone()).unwrap();
    assert_eq!(list.filter, filter(WEB));
    let list = ListPodSandboxRequest::decode(asked[1].1.clone()).unwrap();
    assert_eq!(list.filter, filter(SANDBOX));
}

#[test]
fn a_sandbox_is_the_pause_container() {
    let told = Lab::new(Fake::pod()).one(SANDBOX).1.unwrap();
    let pause = told.value;
    assert!(pause.sandbox);
    assert_eq!(pause.name.as_deref(), Some("pause"));
    assert_eq!(pause.image.as_deref(), Some("registry.k8s.io/pause:3.9"));
    assert_eq!(pause.pid, Some(4711));
    assert_eq!(pause.pod.unwrap().name.as_deref(), Some("web-abc"));
}

#[test]
fn a_static_pod_on_the_nodes_network() {
    let mut fake = Fake::pod();
    fake.pod.annotations.insert("kubernetes.io/config.source".into(), "file".into());
    fake.network = NODE;
    let web = Lab::new(fake).one(WEB).1.unwrap().value;
    assert_eq!(web.network_mode.as_deref(), Some("host"));
    assert!(web.networks.is_empty());
    // A host port of such a pod is the same port again, and published by nobody.
    assert!(web.ports.iter().all(|port| port.host_port.is_none()), "{:?}", web.ports);
    let pod = web.pod.unwrap();
    assert_eq!((pod.host_network, pod.is_static), (Some(true), Some(true)));
}

#[test]
fn an_image_that_is_a_digest_is_asked_for_by_name() {
    let mut fake = Fake::pod();
    let digest = format!("sha256:{}", "1".repeat(64));
    fake.container.image = Some(ImageSpec { image: digest, ..ImageSpec::default() });
    let web = Lab::new(fake).one(WEB).1.unwrap().value;
    assert_eq!(web.image.as_deref(), Some("from-status:1"));
}

#[test]
fn an_older_runtime_is_asked_in_its_own_version() {
    let fake = Fake { only: Some("runtime.v1alpha2"), ..Fake::pod() };
    let (version, told) = Lab::new(fake).one(WEB);
    assert_eq!(version, Some(CriVersion::V1Alpha2));
    assert_eq!(told.unwrap().value.name.as_deref(), Some("web"));
}

#[test]
fn who_speaks_no_cri_knows_no_container() {
    let fake = Fake { only: Some("containerd.services"), ..Fake::pod() };
    let (version, told) = Lab::new(fake).one(WEB);
    assert_eq!((version, told), (None, Err(DaemonFailure::NotFound)));
}

#[test]
fn a_container_that_it_does_not_have_is_not_found() {
    let (version, told) = Lab::new(Fake::pod()).one(&"b".repeat(64));
    assert_eq!((version, told), (Some(CriVersion::V1), Err(DaemonFailure::NotFound)));
    // Nor is one that it names when asked for another.
    let fake = Fake { ignores_filter: true, ..Fake::pod() };
    assert_eq!(Lab::new(fake).one(&"b".repeat(64)).1, Err(DaemonFailure::NotFound));
}

#[test]
fn everything_is_listed_with_networks() {
    let lab = Lab::new(Fake::pod());
    let listed = lab.client.list(None, |_| Ok(())).1.unwrap();
    let names: Vec<_> = listed.iter().map(|c| (c.name.as_deref().unwrap(), c.sandbox)).collect();
    assert_eq!(names, [("web", false), ("pause", true)]);
    let asked = lab.one(WEB).1.unwrap().value;
    assert_eq!(listed[0], asked, "a list says the same as a question for one");
}

#[test]
fn a_runtime_that_hangs_is_given_up_on() {
    for reply in [Reply::Silence, Reply::Stalls] {
        let mut lab = Lab::new(Fake { reply, ..Fake::pod() });
        lab.client.limits = RequestLimits::USUAL;
        let begun = Instant::now();
        assert_eq!(lab.failure(), DaemonFailure::Timeout(RequestLimits::USUAL.time), "{reply:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn answers_without_end_are_cut_off() {
    let lab = Lab::new(Fake { reply: Reply::Endless, ..Fake::pod() });
    assert!(matches!(lab.failure(), DaemonFailure::TooBig(_)), "{:?}", lab.failure());
    let mut lab = Lab::new(Fake { reply: Reply::Announced(1 << 30), ..Fake::pod() });
    assert_eq!(lab.failure(), DaemonFailure::TooBig(MESSAGE));
    lab.client.limits.bytes = 100;
    assert_eq!(lab.failure(), DaemonFailure::TooBig(100));
}

#[test]
fn nonsense_is_told_as_such() {
    let garbage = |reply| match Lab::new(Fake { reply, ..Fake::pod() }).failure() {
        DaemonFailure::Garbage(text) => text,
        other => panic!("{reply:?}: {other:?}"),
    };
    garbage(Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"));
    garbage(Reply::Raw(b"\x00\x00\x00"));
    garbage(Reply::Raw(b""));
    garbage(Reply::Message(b"\xff\xff\xff"));
    let text = garbage(Reply::Status(2, "server is not initialized yet"));
    assert!(text.contains("server is not initialized yet"), "{text}");
    // Text of any length is shortened.
    assert!(garbage(Reply::LongStatus).chars().count() <= 200);
}

#[test]
fn broken_items_do_not_hide_the_others() {
    let fake = Fake { broken_items: true, ..Fake::pod() };
    let told = Lab::new(fake).one(WEB).1.unwrap();
    assert_eq!(told.value.name.as_deref(), Some("web"));
}

#[test]
fn a_pod_that_vanishes_between_two_questions_leaves_its_name() {
    let fake = Fake { pod_is_gone: true, ..Fake::pod() };
    let told = Lab::new(fake).one(WEB).1.unwrap();
    // The kubelet's labels of the container name the pod, too.
    let pod = told.value.pod.unwrap();
    assert_eq!(pod.name.as_deref(), Some("web-abc"));
    assert_eq!(pod.host_network, None);
    assert!(told.missing.is_some());
}

#[test]
fn who_listens_is_looked_at_before_anything_is_asked() {
    let fake = Fake::pod();
    let asked = fake.asked();
    let lab = Lab::new(fake);
    let refused = DaemonFailure::Unreachable("somebody else".to_owned());
    let judge = |peer: SocketPeer| {
        assert_eq!(peer.pid, Some(std::process::id()));
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        Err(refused.clone())
    };
    assert_eq!(lab.client.one(None, WEB, judge).1, Err(refused.clone()));
    assert!(asked.lock().unwrap().is_empty());
}
