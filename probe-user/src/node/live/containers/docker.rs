//! The REST API of Docker, which Podman speaks too, over a unix socket.
//!
//! A daemon may be hung, broken or hostile: each question has one time limit
//! from connecting to the last byte, and each response a size limit.

mod facts;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bollard::models::{ContainerInspectResponse, ContainerSummary, SystemVersion};
use bollard::{BollardRequest, ClientVersion, Docker};
use hyper::header::{HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

pub(super) use self::facts::{described, from_inspect, from_summary};
pub(super) use super::super::asking::{Failure, Limits};
use super::super::asking::{Limited, shortened};
use crate::model::Runtime;

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
        let limited = Limited::new(stream, self.limits.bytes, exceeded);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(limited)).await?;
        tokio::spawn(connection);
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

fn failure(error: bollard::errors::Error) -> Failure {
    use bollard::errors::Error;
    match error {
        Error::DockerResponseServerError { status_code: 404, .. } => Failure::NotFound,
        Error::DockerResponseServerError { status_code, message } => {
            Failure::Garbage(format!("status {status_code}: {}", shortened(&message)))
        }
        Error::IOError { err } => err.into(),
        other => Failure::Garbage(shortened(&other.to_string())),
    }
}

#[cfg(test)]
pub(super) mod tests;
