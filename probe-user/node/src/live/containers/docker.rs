//! The REST API of Docker, which Podman speaks too, over a unix socket.
//!
//! A daemon may be hung, broken or hostile: each question has one time limit
//! from connecting to the last byte, and each response a size limit.

mod api;
mod facts;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::rt::Executor as _;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use self::api::{ApiVersion, ContainerInspect, DockerNetwork, Refusal, SystemVersion};
pub(super) use self::api::{ContainerConfig, ContainerSummary, NetworkSettings};
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
const NEWEST: ApiVersion = ApiVersion(1, 44);

/// What a daemon says of itself.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    /// Docker or Podman.
    pub(super) runtime: Runtime,
    version: ApiVersion,
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
    ) -> (Option<Hello>, Result<ContainerInspect, DaemonFailure>) {
        // Who named it may have put in what means something in a path.
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let id: String = id.chars().filter(is_plain).collect();
        self.ask(hello, &format!("/containers/{id}/json"))
    }

    /// Asks for every running container.
    pub(super) fn list(
        &self,
        hello: Option<Hello>,
    ) -> (Option<Hello>, Result<Vec<ContainerSummary>, DaemonFailure>) {
        self.ask(hello, "/containers/json")
    }

    /// Asks for every container, also of those that do not run.
    pub(super) fn list_all(
        &self,
        hello: Option<Hello>,
    ) -> (Option<Hello>, Result<Vec<ContainerSummary>, DaemonFailure>) {
        self.ask(hello, "/containers/json?all=true")
    }

    /// Asks for the networks that containers can be on.
    pub(super) fn networks(
        &self,
        hello: Option<Hello>,
    ) -> (Option<Hello>, Result<Vec<DockerNetwork>, DaemonFailure>) {
        self.ask(hello, "/networks")
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

    fn ask<T: DeserializeOwned>(
        &self,
        mut hello: Option<Hello>,
        path: &str,
    ) -> (Option<Hello>, Result<T, DaemonFailure>) {
        let answer = self.tokio.ask(self.limits, async |connections| {
            let there = match &hello {
                Some(known) => known.clone(),
                // Without a version: a server refuses one that is newer than its own.
                None => hello.insert(greeting(&self.get("/version", &connections).await?)?).clone(),
            };
            let ApiVersion(major, minor) = there.version;
            self.get(&format!("/v{major}.{minor}{path}"), &connections).await
        });
        (hello, answer)
    }

    /// Sends one request on a connection of its own, and understands the answer.
    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        connections: &ConnectionTasks,
    ) -> Result<T, DaemonFailure> {
        let garbage =
            |error: &dyn std::error::Error| DaemonFailure::Garbage(shortened(&error.to_string()));
        let stream = UnixStream::from_std(self.socket.connect().map_err(std::io::Error::from)?)?;
        if let Some(judge) = &self.judge {
            judge.check(SocketPeer::of(&stream)?)?;
        }
        let limited = connections.limited(stream, self.limits.bytes);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(limited))
            .await
            .map_err(|error| garbage(&error))?;
        connections.execute(async { _ = connection.await });
        let request = hyper::Request::get(path).header(HOST, "daemon");
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| garbage(&error))?;
        let response = sender.send_request(request).await.map_err(|error| garbage(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| garbage(&error))?;
        let body = body.to_bytes();
        if status == hyper::StatusCode::NOT_FOUND {
            return Err(DaemonFailure::NotFound);
        }
        if !status.is_success() {
            let refusal: Refusal = serde_json::from_slice(&body).unwrap_or_default();
            let message = shortened(&refusal.message);
            return Err(DaemonFailure::Garbage(format!("status {}: {message}", status.as_u16())));
        }
        // What the parser says of it may quote the text.
        serde_json::from_slice(&body)
            .map_err(|error| DaemonFailure::Garbage(format!("it {}", told(&error))))
    }
}

/// Who answers, and in which version to go on. An error when the answer has no
/// API version: then it is no daemon of this kind.
fn greeting(version: &SystemVersion) -> Result<Hello, DaemonFailure> {
    let newest = version.api_version.as_deref().and_then(ApiVersion::parse);
    let newest =
        newest.ok_or_else(|| DaemonFailure::Garbage("it has no API version".to_owned()))?;
    let mut components = version.components.iter().flatten();
    let podman = components.any(|component| component.name.starts_with("Podman"));
    Ok(Hello {
        runtime: if podman { Runtime::Podman } else { Runtime::Docker },
        version: newest.min(NEWEST),
    })
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
