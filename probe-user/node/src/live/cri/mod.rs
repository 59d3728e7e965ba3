//! The Container Runtime Interface: what containerd, CRI-O and cri-dockerd tell
//! the kubelet of pods, by gRPC over a unix socket.
//!
//! Only questions that change nothing are asked. A runtime may be hung, broken or
//! hostile: all questions about one container together have one time limit and
//! one limit of bytes.

mod facts;
mod proto;

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::{Mutex, PoisonError};

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use self::proto::{
    ContainerStatusRequest, ContainerStatusResponse, Filter, ListContainersRequest,
    ListPodSandboxRequest, ListResponse, PodSandbox, PodSandboxStatus, PodSandboxStatusRequest,
    PodSandboxStatusResponse,
};
pub(super) use super::asking::SocketPeer;
use super::asking::{ConnectionTasks, DaemonFailure, RequestLimits, Tokio, shortened};
use super::reader::OpenedSocket;
use whereis_port_model::{Container, Runtime};

/// How many containers, or pods, of one list are looked at. A node has some
/// hundred.
const MOST: usize = 16_384;

/// The largest single message, in bytes. A node with a thousand containers lists
/// them in less than 2 MiB.
const MESSAGE: usize = 8 * 1024 * 1024;

/// A version of the Container Runtime Interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CriVersion {
    /// Kubernetes 1.23 and later.
    V1,
    /// Before; containerd until 1.7 speaks both.
    V1Alpha2,
}

impl CriVersion {
    fn package(self) -> &'static str {
        match self {
            Self::V1 => "runtime.v1",
            Self::V1Alpha2 => "runtime.v1alpha2",
        }
    }
}

/// What a runtime said, and why it said no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RuntimeReply<T> {
    pub(super) value: T,
    /// A question that failed after the first one had an answer.
    pub(super) missing: Option<DaemonFailure>,
}

/// The socket of a runtime with the Container Runtime Interface, to be asked.
#[derive(Debug, Clone)]
pub(super) struct CriClient {
    /// Opened with O_PATH.
    pub(super) socket: OpenedSocket,
    pub(super) limits: RequestLimits,
    /// What it is, by its place.
    pub(super) runtime: Runtime,
    pub(super) tokio: Tokio,
}

impl CriClient {
    /// Asks for one container or pod sandbox, and its pod. `known` is the version
    /// it answered in before; `judge` may refuse to talk to whoever listens.
    ///
    /// The first result is the version in which it answered, whatever the second
    /// is. [`DaemonFailure::NotFound`] without a version means that it is no CRI.
    pub(super) fn one(
        &self,
        known: Option<CriVersion>,
        id: &str,
        judge: impl Fn(SocketPeer) -> Result<(), DaemonFailure>,
    ) -> (Option<CriVersion>, Result<RuntimeReply<Container>, DaemonFailure>) {
        self.ask(known, judge, async |talk| talk.one(self.runtime, id).await)
    }

    /// Asks for all containers and sandboxes.
    pub(super) fn list(
        &self,
        known: Option<CriVersion>,
        judge: impl Fn(SocketPeer) -> Result<(), DaemonFailure>,
    ) -> (Option<CriVersion>, Result<Vec<Container>, DaemonFailure>) {
        // What is only nice to have does not use up the time for the rest.
        let until = Instant::now() + self.limits.time / 2;
        self.ask(known, judge, async |talk| talk.list(self.runtime, until).await)
    }

    fn ask<T>(
        &self,
        known: Option<CriVersion>,
        judge: impl Fn(SocketPeer) -> Result<(), DaemonFailure>,
        question: impl AsyncFnOnce(&mut Talk) -> Result<T, Status>,
    ) -> (Option<CriVersion>, Result<T, DaemonFailure>) {
        let mut version = known;
        let answer = self.tokio.ask(self.limits, async |connections| {
            let grpc = self.connect(judge, &connections).await?;
            let mut talk = Talk { grpc, version: known.unwrap_or(CriVersion::V1), answered: false };
            let answer = question(&mut talk).await;
            if talk.answered {
                version = Some(talk.version);
            }
            answer.map_err(|status| failure(&status))
        });
        (version, answer)
    }

    async fn connect(
        &self,
        judge: impl Fn(SocketPeer) -> Result<(), DaemonFailure>,
        connections: &ConnectionTasks,
    ) -> Result<Grpc<Channel>, DaemonFailure> {
        let stream = UnixStream::from_std(self.socket.connect().map_err(std::io::Error::from)?)?;
        judge(SocketPeer::of(&stream)?)?;
        let limited = connections.limited(stream, self.limits.bytes);
        // One connection and no other: a second one would have limits of its own.
        let only = Mutex::new(Some(TokioIo::new(limited)));
        let connector = tower::service_fn(move |_| {
            let taken = only.lock().unwrap_or_else(PoisonError::into_inner).take();
            let closed = || std::io::Error::other("the runtime closed the connection");
            std::future::ready(taken.ok_or_else(closed))
        });
        let channel = Endpoint::from_static("http://localhost")
            .executor(connections.clone())
            .connect_with_connector(connector)
            .await
            .map_err(|error| DaemonFailure::Garbage(reasons(&error)))?;
        Ok(Grpc::new(channel).max_decoding_message_size(MESSAGE.min(self.limits.bytes)))
    }
}

/// A connection on which questions are asked.
#[derive(Clone)]
struct Talk {
    grpc: Grpc<Channel>,
    version: CriVersion,
    /// Whether the version is known to be right.
    answered: bool,
}

impl Talk {
    async fn one(&mut self, runtime: Runtime, id: &str) -> Result<RuntimeReply<Container>, Status> {
        let filter = Some(Filter { id: id.to_owned() });
        let listed = self.first("ListContainers", ListContainersRequest { filter }).await?;
        let container = items(listed).find(|c: &proto::Container| c.id == id);
        let mut missing = None;
        let Some(mut container) = container else {
            let pod = self.pod(id).await?;
            let Some(pod) = pod else { return Err(Status::not_found("")) };
            let status = self.pod_status(id, true).await;
            let status = status.map_err(|status| missing = Some(failure(&status))).ok();
            let value = facts::from_sandbox(runtime, &pod, status.as_ref());
            return Ok(RuntimeReply { value, missing });
        };
        let mut failed = |status: Status| missing = Some(failure(&status));
        let sandbox = container.pod_sandbox_id.clone();
        let pod = self.pod(&sandbox).await.map_err(&mut failed).ok().flatten();
        let status = self.pod_status(&sandbox, false).await.map_err(&mut failed).ok();
        if container.image.as_ref().is_some_and(|image| facts::image_name(image).is_none()) {
            // The kubelet asks for images by digest; the status has the name.
            let question = ContainerStatusRequest { container_id: id.to_owned() };
            let told: Result<ContainerStatusResponse, _> =
                self.call("ContainerStatus", question).await;
            let told = told.map_err(&mut failed).ok().and_then(|t| t.status?.image);
            container.image = told.or(container.image);
        }
        let status = status.and_then(|s| s.status);
        let value = facts::from_container(runtime, container, pod.as_ref(), status.as_ref());
        Ok(RuntimeReply { value, missing })
    }

    async fn list(&mut self, runtime: Runtime, until: Instant) -> Result<Vec<Container>, Status> {
        let listed = self.first("ListContainers", ListContainersRequest { filter: None }).await?;
        let pods: ListResponse =
            self.call("ListPodSandbox", ListPodSandboxRequest { filter: None }).await?;
        let pods: HashMap<String, PodSandbox> =
            items(pods).map(|pod: PodSandbox| (pod.id.clone(), pod)).collect();
        let networks = self.networks(pods.keys().cloned().collect(), until).await;
        let mut all: Vec<Container> = items(listed)
            .map(|container: proto::Container| {
                let pod = pods.get(&container.pod_sandbox_id);
                let status = networks.get(&container.pod_sandbox_id);
                facts::from_container(runtime, container, pod, status)
            })
            .collect();
        all.extend(pods.values().map(|pod| {
            let status = networks.get(&pod.id).cloned().map(|status| PodSandboxStatusResponse {
                status: Some(status),
                info: HashMap::new(),
            });
            facts::from_sandbox(runtime, pod, status.as_ref())
        }));
        Ok(all)
    }

    /// The networks of pods, as many as are told until then: side by side, as
    /// each is a question of its own.
    async fn networks(
        &self,
        pods: Vec<String>,
        until: Instant,
    ) -> HashMap<String, PodSandboxStatus> {
        let mut asked = JoinSet::new();
        for id in pods {
            let mut talk = self.clone();
            asked.spawn(async move { talk.pod_status(&id, false).await });
        }
        let mut told = HashMap::new();
        while let Ok(Some(answer)) = timeout_at(until, asked.join_next()).await {
            if let Ok(Ok(PodSandboxStatusResponse { status: Some(status), .. })) = answer {
                told.insert(status.id.clone(), status);
            }
        }
        told
    }

    async fn pod(&mut self, id: &str) -> Result<Option<PodSandbox>, Status> {
        let filter = Some(Filter { id: id.to_owned() });
        let listed: ListResponse =
            self.call("ListPodSandbox", ListPodSandboxRequest { filter }).await?;
        Ok(items(listed).find(|pod: &PodSandbox| pod.id == id))
    }

    async fn pod_status(
        &mut self,
        id: &str,
        verbose: bool,
    ) -> Result<PodSandboxStatusResponse, Status> {
        let question = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose };
        let mut told: PodSandboxStatusResponse = self.call("PodSandboxStatus", question).await?;
        told.status = told.status.filter(|status| status.id == id);
        Ok(told)
    }

    /// The first question, which also finds out in which version to talk.
    async fn first(
        &mut self,
        method: &str,
        question: impl Message + Clone + 'static,
    ) -> Result<ListResponse, Status> {
        let mut answer = self.call(method, question.clone()).await;
        let is_older = matches!(&answer, Err(status) if status.code() == Code::Unimplemented);
        if is_older && self.version == CriVersion::V1 {
            self.version = CriVersion::V1Alpha2;
            answer = self.call(method, question).await;
        }
        match answer {
            // Another service than CRI, as of dockerd's own containerd.
            Err(status) if status.code() == Code::Unimplemented => Err(Status::not_found("")),
            answer => {
                self.answered = answer.is_ok();
                answer
            }
        }
    }

    async fn call<A: Message + Default + 'static>(
        &mut self,
        method: &str,
        question: impl Message + 'static,
    ) -> Result<A, Status> {
        let path = format!("/{}.RuntimeService/{method}", self.version.package());
        let path = PathAndQuery::try_from(path).map_err(|e| Status::internal(e.to_string()))?;
        self.grpc.ready().await.map_err(|error| Status::unavailable(reasons(&error)))?;
        let question = tonic::Request::new(question);
        let answer = self.grpc.unary(question, path, ProstCodec::default()).await?;
        Ok(answer.into_inner())
    }
}

/// The items of a list that can be parsed. A list with one broken item still
/// tells of the others.
fn items<T: Message + Default>(list: ListResponse) -> impl Iterator<Item = T> {
    list.items.into_iter().take(MOST).filter_map(|item| T::decode(item).ok())
}

fn failure(status: &Status) -> DaemonFailure {
    match status.code() {
        Code::NotFound => DaemonFailure::NotFound,
        // What tonic says of a message over the limit.
        Code::OutOfRange => DaemonFailure::TooBig(MESSAGE),
        code => {
            let mut text = format!("{code:?}: {}", shortened(status.message()));
            if let Some(cause) = status.source() {
                text = format!("{text}: {}", reasons(cause));
            }
            DaemonFailure::Garbage(shortened(&text))
        }
    }
}

/// An error with what caused it.
fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    shortened(&text)
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    let runtime = Runtime::Containerd;
    let pods: Vec<PodSandbox> =
        ListResponse::decode(bytes).map(|l| items(l).collect()).unwrap_or_default();
    let status = PodSandboxStatusResponse::decode(bytes).ok();
    for pod in &pods {
        facts::from_sandbox(runtime, pod, status.as_ref());
    }
    if let Ok(list) = ListResponse::decode(bytes) {
        for told in items::<proto::Container>(list) {
            let status = status.as_ref().and_then(|told| told.status.as_ref());
            facts::from_container(runtime, told, pods.first(), status);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
