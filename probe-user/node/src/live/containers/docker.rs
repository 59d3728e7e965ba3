//! The REST API of Docker, which Podman speaks too, over a unix socket.
//!
//! A daemon may be hung, broken or hostile: each question has one time limit
//! from connecting to the last byte, and each response a size limit.

mod facts;

use std::io;

use bollard::models::{ContainerInspectResponse, ContainerSummary, SystemVersion};
use bollard::query_parameters::ListContainersOptionsBuilder;
use bollard::{BollardRequest, ClientVersion, Docker};
use hyper::header::{HOST, HeaderValue};
use hyper::rt::Executor as _;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

pub(super) use self::facts::{described, from_inspect, from_summary, unpublished};
use super::super::asking::{ConnectionTasks, SocketPeer, Tokio, shortened};
pub(super) use super::super::asking::{DaemonFailure, RequestLimits};
use super::super::reader::OpenedSocket;
use super::exchange::{PODS, Pods, exchange, pods};
use super::trust::Judge;
use whereis_port_model::Runtime;
use whereis_port_model::parse_error::told;

/// The newest version of the API that is asked for. Docker 25 to 29 and later
/// speak it; an older server is asked for its own.
const NEWEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 44 };

/// What a daemon says of itself.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    /// Docker or Podman.
    pub(super) runtime: Runtime,
    version: ClientVersion,
}

/// The socket of a daemon with Docker's API, to be asked.
#[derive(Debug, Clone)]
pub(super) struct DockerClient {
    pub(super) socket: OpenedSocket,
    pub(super) limits: RequestLimits,
    /// Who may listen there; `None` for anybody.
    pub(super) judge: Option<Judge>,
    pub(super) tokio: Tokio,
}

impl DockerClient {
    /// Asks for one container, and first who is answering unless that is known
    /// already. The first result says who is there, whatever the second is.
    pub(super) fn inspect(
        &self,
        hello: Option<Hello>,
        id: &str,
    ) -> (Option<Hello>, Result<ContainerInspectResponse, DaemonFailure>) {
        self.ask(hello, async |docker| docker.inspect_container(id, None).await)
    }

    /// Asks for every running container.
    pub(super) fn list(
        &self,
        hello: Option<Hello>,
    ) -> (Option<Hello>, Result<Vec<ContainerSummary>, DaemonFailure>) {
        self.ask(hello, async |docker| docker.list_containers(None).await)
    }

    /// Asks for every container, also of those that do not run.
    pub(super) fn list_all(
        &self,
        hello: Option<Hello>,
    ) -> (Option<Hello>, Result<Vec<ContainerSummary>, DaemonFailure>) {
        let all = ListContainersOptionsBuilder::new().all(true).build();
        self.ask(hello, async |docker| docker.list_containers(Some(all)).await)
    }

    /// Asks for the networks that containers can be on.
    pub(super) fn networks(
        &self,
        hello: Option<Hello>,
    ) -> (Option<Hello>, Result<Vec<bollard::models::Network>, DaemonFailure>) {
        self.ask(hello, async |docker| docker.list_networks(None).await)
    }

    /// Asks Podman for the pods that its containers are in.
    pub(super) fn pods(
        &self,
        hello: Option<Hello>,
    ) -> (Option<Hello>, Result<Pods, DaemonFailure>) {
        let answer = self.tokio.ask(self.limits, async |connections| {
            let is_meant = |peer| self.judge.as_ref().map_or(Ok(()), |judge| judge.check(peer));
            exchange(&self.socket, &connections, self.limits.bytes, is_meant, PODS).await
        });
        let unclear =
            || DaemonFailure::Garbage("it is not in the form that is expected".to_owned());
        (hello, answer.and_then(|answer| pods(&answer).ok_or_else(unclear)))
    }

    fn ask<T>(
        &self,
        mut hello: Option<Hello>,
        question: impl AsyncFnOnce(Docker) -> Result<T, bollard::errors::Error>,
    ) -> (Option<Hello>, Result<T, DaemonFailure>) {
        let answer = self.tokio.ask(self.limits, async |connections| {
            let talk = async {
                let there = match &hello {
                    Some(known) => known.clone(),
                    None => {
                        let version = self.connect(NEWEST, &connections)?.version().await?;
                        hello.insert(greeting(&version)?).clone()
                    }
                };
                question(self.connect(there.version, &connections)?).await
            };
            talk.await.map_err(failure)
        });
        (hello, answer)
    }

    fn connect(
        &self,
        version: ClientVersion,
        connections: &ConnectionTasks,
    ) -> Result<Docker, bollard::errors::Error> {
        let (client, connections) = (self.clone(), connections.clone());
        let transport = move |request: BollardRequest| {
            let (client, connections) = (client.clone(), connections.clone());
            async move { client.send(request, version, &connections).await }
        };
        Docker::connect_with_custom_transport(transport, Some("http://daemon"), 60, &version)
    }

    /// Sends one request on a connection of its own.
    async fn send(
        &self,
        mut request: BollardRequest,
        version: ClientVersion,
        connections: &ConnectionTasks,
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

        let stream = UnixStream::from_std(self.socket.connect().map_err(io::Error::from)?)?;
        if let Some(judge) = &self.judge {
            let peer = SocketPeer::of(&stream)?;
            judge.check(peer).map_err(|refused| io::Error::other(NotTrusted(refused)))?;
        }
        let limited = connections.limited(stream, self.limits.bytes);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(limited)).await?;
        connections.execute(async { _ = connection.await });
        Ok(sender.send_request(request).await?)
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

/// Who listens at a socket is not to be talked to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotTrusted(DaemonFailure);

fn failure(error: bollard::errors::Error) -> DaemonFailure {
    use bollard::errors::Error;
    match error {
        Error::DockerResponseServerError { status_code: 404, .. } => DaemonFailure::NotFound,
        Error::DockerResponseServerError { status_code, message } => {
            DaemonFailure::Garbage(format!("status {status_code}: {}", shortened(&message)))
        }
        Error::IOError { err } => match err.downcast::<NotTrusted>() {
            Ok(NotTrusted(failure)) => failure,
            Err(err) => err.into(),
        },
        // Its message has a part of the text.
        Error::JsonDataError { column, .. } => DaemonFailure::Garbage(format!(
            "it is not in the form that is expected (column {column})"
        )),
        Error::JsonSerdeError { err } => DaemonFailure::Garbage(format!("it {}", told(&err))),
        other => DaemonFailure::Garbage(shortened(&other.to_string())),
    }
}

#[cfg(feature = "fuzzing")]
pub(in super::super) fn fuzz(bytes: &[u8]) {
    if let Ok(version) = serde_json::from_slice::<SystemVersion>(bytes) {
        let _ = greeting(&version);
    }
    if let Ok(answer) = serde_json::from_slice(bytes) {
        from_inspect(Runtime::Docker, answer);
    }
    if let Ok(answer) = serde_json::from_slice(bytes) {
        facts::from_summary(Runtime::Docker, answer);
    }
}

#[cfg(test)]
pub(super) mod tests;
