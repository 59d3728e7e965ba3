//! The REST API of Docker, which Podman speaks too, over a unix socket.
//!
//! A daemon may be hung, broken or hostile: each question has one time limit
//! from connecting to the last byte, and each response a size limit.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::models::{
    ContainerConfig, ContainerInspectResponse, ContainerSummary, EndpointSettings, NetworkSettings,
    SystemVersion,
};
use bollard::{BollardRequest, ClientVersion, Docker};
use hyper::header::{HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use crate::model::{Container, Network, Port, Proto, Published, Runtime};

/// The newest version of the API that is asked for. Docker 25 to 29 and later
/// speak it; an older server is asked for its own.
const NEWEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 44 };

/// What one question may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From connecting to the last byte.
    pub(super) time: Duration,
    /// Bytes of one response, headers included.
    pub(super) bytes: usize,
}

impl Limits {
    /// The usual ones: far above what a healthy daemon needs.
    pub(super) const USUAL: Self =
        Self { time: Duration::from_millis(300), bytes: 32 * 1024 * 1024 };
}

/// Why a daemon gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The daemon does not know this container. An answer, in a way.
    NotFound,
    /// Not allowed to connect.
    Denied,
    /// No connection, for another reason.
    Unreachable(String),
    /// It did not answer in time.
    Timeout(Duration),
    /// The response went over the limit, in bytes.
    TooBig(usize),
    /// It answered something else than the API does. Untrusted text.
    Garbage(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("does not know this container"),
            Self::Denied => f.write_str("permission denied"),
            Self::Unreachable(why) => write!(f, "cannot connect: {why}"),
            Self::Timeout(limit) => write!(f, "no answer within {} ms", limit.as_millis()),
            Self::TooBig(limit) => write!(f, "answer is larger than {} MiB", limit >> 20),
            Self::Garbage(what) => write!(f, "answer is not understood: {what}"),
        }
    }
}

/// What a daemon says of itself.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    /// Docker or Podman.
    pub(super) runtime: Runtime,
    version: ClientVersion,
}

/// A daemon's socket, to be asked.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// Opened with O_PATH.
    pub(super) socket: Arc<OwnedFd>,
    pub(super) limits: Limits,
}

impl Client {
    /// Asks for one container, and first who is answering unless that is known
    /// already. The first result says who is there, whatever the second is.
    pub(super) fn inspect(
        &self,
        hello: Option<Hello>,
        id: &str,
    ) -> (Option<Hello>, Result<ContainerInspectResponse, Failure>) {
        self.ask(hello, async |docker| docker.inspect_container(id, None).await)
    }

    /// Asks for every running container.
    pub(super) fn list(
        &self,
        hello: Option<Hello>,
    ) -> (Option<Hello>, Result<Vec<ContainerSummary>, Failure>) {
        self.ask(hello, async |docker| docker.list_containers(None).await)
    }

    fn ask<T>(
        &self,
        mut hello: Option<Hello>,
        question: impl AsyncFnOnce(Docker) -> Result<T, bollard::errors::Error>,
    ) -> (Option<Hello>, Result<T, Failure>) {
        // One runtime for each question: dropping it ends whatever a daemon
        // still has going on the connection.
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return (hello, Err(Failure::Unreachable(error.to_string()))),
        };
        let exceeded = Arc::new(AtomicBool::new(false));
        let talk = async {
            let there = match &hello {
                Some(known) => known.clone(),
                None => {
                    let version = self.connect(NEWEST, &exceeded)?.version().await?;
                    hello.insert(greeting(&version)?).clone()
                }
            };
            question(self.connect(there.version, &exceeded)?).await
        };
        let answer = runtime.block_on(async { tokio::time::timeout(self.limits.time, talk).await });
        let answer = match answer {
            Err(_) => Err(Failure::Timeout(self.limits.time)),
            Ok(Err(_)) if exceeded.load(Ordering::Relaxed) => {
                Err(Failure::TooBig(self.limits.bytes))
            }
            Ok(answer) => answer.map_err(failure),
        };
        (hello, answer)
    }

    fn connect(
        &self,
        version: ClientVersion,
        exceeded: &Arc<AtomicBool>,
    ) -> Result<Docker, bollard::errors::Error> {
        let (client, exceeded) = (self.clone(), Arc::clone(exceeded));
        let transport = move |request: BollardRequest| {
            let (client, exceeded) = (client.clone(), Arc::clone(&exceeded));
            async move { client.send(request, version, exceeded).await }
        };
        Docker::connect_with_custom_transport(transport, Some("http://daemon"), 60, &version)
    }

    /// Sends one request on a connection of its own.
    async fn send(
        &self,
        mut request: BollardRequest,
        version: ClientVersion,
        exceeded: Arc<AtomicBool>,
    ) -> Result<hyper::Response<hyper::body::Incoming>, bollard::errors::Error> {
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        // bollard 0.21 leaves the version out of what it asks for. It belongs
        // there, but for the question which one the server speaks: a server
        // refuses a version that is newer than itself even then.
        let path = if path == "/version" {
            path.to_owned()
        } else {
            format!("/v{}.{}{path}", version.major_version, version.minor_version)
        };
        let uri = path.parse::<hyper::Uri>().map_err(io::Error::other)?;
        *request.uri_mut() = uri;
        request.headers_mut().insert(HOST, HeaderValue::from_static("daemon"));

        // By its descriptor: paths of unix sockets end at 108 bytes.
        let path = format!("/proc/self/fd/{}", self.socket.as_raw_fd());
        let stream = UnixStream::connect(path).await?;
        let limited = Limited { stream, left: self.limits.bytes, exceeded };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(limited)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }
}

/// A stream of which only so many bytes can be read.
struct Limited {
    stream: UnixStream,
    left: usize,
    exceeded: Arc<AtomicBool>,
}

impl AsyncRead for Limited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        match self.left.checked_sub(buf.filled().len() - before) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Ok(()))
            }
            None => {
                self.exceeded.store(true, Ordering::Relaxed);
                Poll::Ready(Err(io::Error::other("response is too large")))
            }
        }
    }
}

impl AsyncWrite for Limited {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Who answers, and in which version to go on. An error when the answer has no
/// API version: then it is no daemon of this kind.
fn greeting(version: &SystemVersion) -> Result<Hello, bollard::errors::Error> {
    let parse = |text: &str| {
        let (major, minor) = text.split_once('.')?;
        Some(ClientVersion {
            major_version: major.parse().ok()?,
            minor_version: minor.parse().ok()?,
        })
    };
    let Some(newest) = version.api_version.as_deref().and_then(parse) else {
        return Err(bollard::errors::Error::APIVersionParseError {});
    };
    let components = version.components.iter().flatten();
    let podman = components.into_iter().any(|c| c.name.starts_with("Podman"));
    Ok(Hello {
        runtime: if podman { Runtime::Podman } else { Runtime::Docker },
        version: if newest < NEWEST { newest } else { NEWEST },
    })
}

fn failure(error: bollard::errors::Error) -> Failure {
    use bollard::errors::Error;
    match error {
        Error::DockerResponseServerError { status_code: 404, .. } => Failure::NotFound,
        Error::DockerResponseServerError { status_code, message } => {
            Failure::Garbage(format!("status {status_code}: {}", shortened(&message)))
        }
        Error::IOError { err } if err.kind() == io::ErrorKind::PermissionDenied => Failure::Denied,
        Error::IOError { err } => Failure::Unreachable(err.to_string()),
        other => Failure::Garbage(shortened(&other.to_string())),
    }
}

/// Enough of a foreign text to recognise it.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// A container as inspecting it tells. Without parents, pod and `via`, which the
/// daemon can't know, and with the PID in the daemon's own PID namespace.
pub(super) fn from_inspect(runtime: Runtime, answer: ContainerInspectResponse) -> Container {
    let state = answer.state.unwrap_or_default();
    described(
        runtime,
        answer.id.unwrap_or_default(),
        answer.name,
        state.pid,
        answer.config.unwrap_or_default(),
        answer.network_settings.unwrap_or_default(),
        answer.host_config.and_then(|h| h.network_mode),
    )
}

/// A container from its parts, which the API and Docker's state files share.
pub(super) fn described(
    runtime: Runtime,
    id: String,
    name: Option<String>,
    pid: Option<i64>,
    config: ContainerConfig,
    network: NetworkSettings,
    network_mode: Option<String>,
) -> Container {
    let mut ports = Vec::new();
    for (key, bindings) in network.ports.unwrap_or_default() {
        let Some((proto, container_port)) = port_key(&key) else { continue };
        let mut bound = bindings.unwrap_or_default().into_iter().peekable();
        if bound.peek().is_none() {
            ports.push(Published { proto, container_port, host_port: None, host_ip: None });
        }
        ports.extend(bound.map(|binding| Published {
            proto,
            container_port,
            host_port: binding.host_port.and_then(|p| p.parse().ok()).and_then(port),
            host_ip: binding.host_ip.and_then(|ip| ip.parse().ok()),
        }));
    }
    // On the host's network nothing is published, but the image still says what
    // it listens on.
    for (proto, container_port) in
        config.exposed_ports.iter().flatten().filter_map(|key| port_key(key))
    {
        if !ports.iter().any(|p| p.proto == proto && p.container_port == container_port) {
            ports.push(Published { proto, container_port, host_port: None, host_ip: None });
        }
    }
    ports.sort();
    ports.dedup();
    Container {
        runtime,
        id,
        name: name.map(unslashed).filter(|n| !n.is_empty()),
        image: config.image.filter(|i| !i.is_empty()),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        networks: networks(network.networks),
        ports,
        network_mode: network_mode.filter(|m| !m.is_empty()),
        pid: pid.and_then(|p| u32::try_from(p).ok()).filter(|&p| p != 0),
        parents: Vec::new(),
        pod: None,
        via: String::new(),
    }
}

/// A container as the list of all tells: like [`from_inspect`], without the PID.
pub(super) fn from_summary(runtime: Runtime, answer: ContainerSummary) -> Container {
    // A legacy link to a container is listed as a name of it: `/other/alias`.
    let names = answer.names.unwrap_or_default();
    let own = names.iter().find(|n| !n.trim_start_matches('/').contains('/')).or(names.first());
    let mut ports: Vec<Published> = answer
        .ports
        .unwrap_or_default()
        .into_iter()
        .filter_map(|listed| {
            Some(Published {
                proto: proto(&listed.typ?.to_string())?,
                container_port: port(listed.private_port)?,
                host_port: listed.public_port.and_then(port),
                host_ip: listed.ip.and_then(|ip| ip.parse().ok()),
            })
        })
        .collect();
    ports.sort();
    ports.dedup();
    Container {
        runtime,
        id: answer.id.unwrap_or_default(),
        name: own.cloned().map(unslashed),
        image: answer.image.filter(|i| !i.is_empty()),
        labels: answer.labels.unwrap_or_default().into_iter().collect(),
        networks: networks(answer.network_settings.and_then(|n| n.networks)),
        ports,
        network_mode: answer.host_config.and_then(|h| h.network_mode).filter(|m| !m.is_empty()),
        pid: None,
        parents: Vec::new(),
        pod: None,
        via: String::new(),
    }
}

fn networks(attached: Option<HashMap<String, EndpointSettings>>) -> Vec<Network> {
    let mut networks: Vec<Network> = attached
        .unwrap_or_default()
        .into_iter()
        .map(|(name, endpoint)| Network {
            name,
            addresses: [endpoint.ip_address, endpoint.global_ipv6_address]
                .into_iter()
                .flatten()
                .filter_map(|address| address.parse().ok())
                .collect(),
        })
        .collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    networks
}

/// `6443/tcp`, the key of Docker's maps of ports. `None` for SCTP.
fn port_key(key: &str) -> Option<(Proto, Port)> {
    let (number, name) = key.split_once('/').unwrap_or((key, "tcp"));
    Some((proto(name)?, port(number.parse().ok()?)?))
}

fn proto(name: &str) -> Option<Proto> {
    Proto::ALL.into_iter().find(|p| p.as_str() == name)
}

fn port(number: u16) -> Option<Port> {
    (number != 0).then_some(Port(number))
}

fn unslashed(name: String) -> String {
    name.strip_prefix('/').map(str::to_owned).unwrap_or(name)
}

#[cfg(test)]
pub(super) mod tests;
