use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::facts::port_key;
use super::*;
use crate::live::reader::RootDirectory;
use whereis_port_model::{Container, Port, Proto, Published};

/// What a daemon says of itself that speaks this tool's newest version.
pub(crate) fn hello() -> Hello {
    Hello { runtime: Runtime::Docker, version: NEWEST }
}

/// What a fake daemon does with a request.
pub(crate) enum Reply {
    /// Status and body.
    Json(u16, String),
    /// Bytes that are no HTTP.
    Raw(Vec<u8>),
    /// A header, and then bytes as long as somebody reads.
    Endless,
    /// Nothing, with the connection kept open.
    Silence,
}

/// A daemon at `path` that answers each request as `answer` says, which gets
/// the request's path. It ends with the test's process.
pub(crate) fn serve(path: &Path, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || reply(stream, &*answer));
        }
    });
}

fn reply(mut stream: UnixStream, answer: &dyn Fn(&str) -> Reply) {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(read @ 1..) => request.extend_from_slice(&chunk[..read]),
            _ => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    // Writing fails when the client has had enough, as it should.
    match answer(request.split(' ').nth(1).unwrap()) {
        Reply::Json(status, body) => {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
            _ = stream.write_all(head.as_bytes());
            _ = stream.write_all(body.as_bytes());
        }
        Reply::Raw(bytes) => _ = stream.write_all(&bytes),
        Reply::Endless => {
            _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = format!("10000\r\n{}\r\n", "[".repeat(0x10000));
            while stream.write_all(chunk.as_bytes()).is_ok() {}
        }
        Reply::Silence => _ = stream.read(&mut chunk),
    }
}

pub(crate) const VERSION: &str = r#"{"ApiVersion":"1.41","MinAPIVersion":"1.12"}"#;

fn fixture(name: &str) -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/live/containers/fixtures").join(name);
    std::fs::read_to_string(path).unwrap()
}

struct Lab {
    _dir: tempfile::TempDir,
    client: DockerClient,
}

fn lab(limits: RequestLimits, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Lab {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("d.sock");
    serve(&path, answer);
    let socket = RootDirectory::at(dir.path()).socket(Path::new("d.sock")).unwrap();
    Lab { client: DockerClient { socket, limits, judge: None, tokio: Tokio::default() }, _dir: dir }
}

/// Without the time limit of the real thing, for a test machine that is slow.
const PATIENT: RequestLimits =
    RequestLimits { time: Duration::from_secs(20), bytes: 32 * 1024 * 1024 };

#[test]
fn the_version_of_the_server_is_spoken() {
    let daemon = lab(PATIENT, |path| match path {
        "/version" => Reply::Json(200, VERSION.to_owned()),
        path if path.starts_with("/v1.41/containers/json") => {
            Reply::Json(200, fixture("docker-20.10/containers.json"))
        }
        other => Reply::Json(400, format!(r#"{{"message":"unexpected {other}"}}"#)),
    });
    let (hello, listed) = daemon.client.list(None);
    assert_eq!(hello.unwrap().runtime, Runtime::Docker);
    assert_eq!(listed.unwrap().len(), 3);
}

#[test]
fn a_daemon_that_never_answers_costs_its_time_limit() {
    let daemon = lab(RequestLimits::USUAL, |_| Reply::Silence);
    let before = Instant::now();
    let (_, answer) = daemon.client.inspect(None, "x");
    assert_eq!(answer.unwrap_err().to_string(), "no answer within 300 ms");
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_daemon_that_answers_garbage_is_said_to() {
    for garbage in [
        Reply::Raw(b"\x00\xff\x1b[2J not http at all\r\n\r\n".to_vec()),
        Reply::Json(200, "[[[".to_owned()),
        Reply::Json(200, "{}".to_owned()),
        Reply::Json(500, "\x1b[2J".repeat(10_000)),
    ] {
        let garbage = std::sync::Mutex::new(Some(garbage));
        let daemon = lab(PATIENT, move |_| garbage.lock().unwrap().take().unwrap());
        let (hello, answer) = daemon.client.inspect(None, "x");
        assert!(hello.is_none());
        let text = match answer.unwrap_err() {
            DaemonFailure::Garbage(text) => text,
            other => panic!("not garbage: {other:?}"),
        };
        assert!(text.chars().count() < 300, "{} characters", text.len());
    }
}

#[test]
fn an_endless_answer_ends_at_the_size_limit() {
    let limits = RequestLimits { bytes: 1 << 20, ..PATIENT };
    let daemon = lab(limits, |path| match path {
        "/version" => Reply::Json(200, VERSION.to_owned()),
        _ => Reply::Endless,
    });
    let (hello, answer) = daemon.client.list(None);
    assert!(hello.is_some());
    assert_eq!(answer.unwrap_err(), DaemonFailure::TooBig(1 << 20));
    // Also where the daemon should only say who it is.
    let daemon = lab(limits, |_| Reply::Endless);
    assert_eq!(daemon.client.list(None).1.unwrap_err(), DaemonFailure::TooBig(1 << 20));
}

#[test]
fn nobody_behind_the_socket_is_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(dir.path().join("s")).unwrap());
    let socket = RootDirectory::at(dir.path()).socket(Path::new("s")).unwrap();
    let client = DockerClient { socket, limits: PATIENT, judge: None, tokio: Tokio::default() };
    assert!(matches!(client.list(None).1, Err(DaemonFailure::Unreachable(_))));
}

#[test]
fn a_container_that_is_unknown_is_no_error() {
    let daemon = lab(PATIENT, |path| match path {
        "/version" => Reply::Json(200, VERSION.to_owned()),
        _ => Reply::Json(404, r#"{"message":"No such container: x"}"#.to_owned()),
    });
    assert_eq!(daemon.client.inspect(None, "x").1.unwrap_err(), DaemonFailure::NotFound);
}

fn published(proto: Proto, inside: u16, outside: Option<(&str, u16)>) -> Published {
    Published {
        proto,
        container_port: Port(inside),
        host_port: outside.map(|(_, p)| Port(p)),
        host_ip: outside.map(|(ip, _)| ip.parse().unwrap()),
    }
}

/// The ports of container `web` as it was started for the recording.
pub(crate) fn web_ports() -> Vec<Published> {
    vec![
        published(Proto::Tcp, 6443, Some(("127.0.0.1", 20971))),
        published(Proto::Tcp, 9000, None),
        published(Proto::Udp, 80, Some(("0.0.0.0", 8080))),
        published(Proto::Udp, 80, Some(("::", 8080))),
    ]
}

#[test]
fn inspecting_a_real_docker_container_tells_all_of_it() {
    let answer = serde_json::from_str(&fixture("docker-20.10/inspect-web.json")).unwrap();
    let web = from_inspect(Runtime::Docker, answer);
    assert!(web.id.starts_with("018c01615fcb") && web.id.len() == 64);
    assert_eq!(web.name.as_deref(), Some("web"));
    assert_eq!(web.image.as_deref(), Some("lab/busybox:1"));
    assert_eq!(web.labels["io.x-k8s.kind.cluster"], "cluster2");
    assert_eq!(web.network_mode.as_deref(), Some("labnet"));
    assert_eq!(web.pid, Some(15588));
    assert_eq!(web.ports, web_ports());
    assert_eq!(web.networks.len(), 1);
    assert_eq!(web.networks[0].name, "labnet");
    let addresses: Vec<String> =
        web.networks[0].addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["172.30.9.2", "fd00:2097:2::2"]);
    assert_eq!(web.cluster().unwrap().name, "cluster2");
}

#[test]
fn network_modes_of_real_docker_containers() {
    let read =
        |name: &str| from_inspect(Runtime::Docker, serde_json::from_str(&fixture(name)).unwrap());
    let host = read("docker-20.10/inspect-hostnet.json");
    assert_eq!(host.network_mode.as_deref(), Some("host"));
    assert!(host.ports.is_empty());
    let shares = read("docker-20.10/inspect-shares.json");
    assert!(shares.network_mode.unwrap().starts_with("container:018c01615fcb"));
    assert!(shares.networks.is_empty());
}

#[test]
fn the_list_of_real_docker_containers_says_the_same_as_inspecting_one() {
    let listed: Vec<ContainerSummary> =
        serde_json::from_str(&fixture("docker-20.10/containers.json")).unwrap();
    let listed: Vec<Container> =
        listed.into_iter().map(|c| from_summary(Runtime::Docker, c)).collect();
    let names: Vec<&str> = listed.iter().filter_map(|c| c.name.as_deref()).collect();
    assert_eq!(names, ["shares", "hostnet", "web"]);
    for container in listed {
        let name = format!("docker-20.10/inspect-{}.json", container.name.as_deref().unwrap());
        let inspected =
            from_inspect(Runtime::Docker, serde_json::from_str(&fixture(&name)).unwrap());
        assert_eq!(container, Container { pid: None, ..inspected });
    }
}

#[test]
fn podmans_answers_are_read_too() {
    let listed: Vec<ContainerSummary> =
        serde_json::from_str(&fixture("podman-4.3/containers.json")).unwrap();
    let listed = from_summary(Runtime::Podman, listed.into_iter().next().unwrap());
    let inspected = from_inspect(
        Runtime::Podman,
        serde_json::from_str(&fixture("podman-4.3/inspect.json")).unwrap(),
    );
    for container in [&listed, &inspected] {
        assert_eq!(container.name.as_deref(), Some("podweb"));
        assert_eq!(container.image.as_deref(), Some("localhost/lab/busybox:1"));
        assert_eq!(container.labels["a"], "b");
    }
    assert_eq!(inspected.network_mode.as_deref(), Some("none"));
    assert_eq!(inspected.pid, Some(17132));
}

#[test]
fn ports_that_are_none_are_left_out() {
    assert_eq!(port_key("53/udp"), Some((Proto::Udp, Port(53))));
    assert_eq!(port_key("80"), Some((Proto::Tcp, Port(80))));
    for bad in ["0/tcp", "65536/tcp", "x/tcp", "1/sctp", "", "/"] {
        assert_eq!(port_key(bad), None, "{bad}");
    }
}

#[test]
fn of_several_names_the_one_that_is_no_link_is_taken() {
    let summary = ContainerSummary {
        names: Some(vec!["/other/alias".to_owned(), "/own".to_owned()]),
        ..ContainerSummary::default()
    };
    assert_eq!(from_summary(Runtime::Docker, summary).name.as_deref(), Some("own"));
}
