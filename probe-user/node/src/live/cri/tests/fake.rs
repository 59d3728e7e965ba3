//! A runtime with one pod, which can misbehave in every way.

use std::convert::Infallible;
use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::bytes::Bytes;

use super::super::proto::*;
use super::{Filter, Message, SANDBOX, UID, WEB};

/// How it replies to everything.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    /// As it should.
    Well,
    /// It reads and says nothing.
    Silence,
    /// It begins an answer and goes no further.
    Stalls,
    /// One message that never ends.
    Endless,
    /// A message that says it will have so many bytes.
    Announced(u32),
    /// These bytes instead of HTTP/2.
    Raw(&'static [u8]),
    /// These bytes as message.
    Message(&'static [u8]),
    /// An error.
    Status(u32, &'static str),
    /// An error with a long text.
    LongStatus,
}

/// Every question that came, with its path.
pub(crate) type Asked = Arc<Mutex<Vec<(String, Bytes)>>>;

#[derive(Clone)]
pub(crate) struct Fake {
    pub(in super::super) container: Container,
    pub(in super::super) pod: PodSandbox,
    pub(crate) network: i32,
    pub(crate) reply: Reply,
    /// The only package that it knows services of.
    pub(crate) only: Option<&'static str>,
    pub(crate) ignores_filter: bool,
    pub(crate) broken_items: bool,
    pub(crate) pod_is_gone: bool,
    pub(crate) asked: Asked,
}

impl Fake {
    /// [`Fake::pod`], with everything replied like this.
    pub(crate) fn replying(reply: Reply) -> Self {
        Self { reply, ..Self::pod() }
    }

    /// The pod `default/web-abc` with the container `web`, as a kubelet makes it.
    pub(crate) fn pod() -> Self {
        let names = [
            ("io.kubernetes.pod.name", "web-abc"),
            ("io.kubernetes.pod.namespace", "default"),
            ("io.kubernetes.pod.uid", UID),
        ];
        let map = |more: &[(&str, &str)], names: &[(&str, &str)]| {
            let all = more.iter().chain(names);
            all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let ports = r#"[{"name":"http","hostPort":8080,"containerPort":80,"protocol":"TCP"},
            {"containerPort":9090},{"containerPort":0},{"containerPort":1,"protocol":"SCTP"}]"#;
        let container = Container {
            id: WEB.to_owned(),
            pod_sandbox_id: SANDBOX.to_owned(),
            metadata: Some(ContainerMetadata { name: "web".to_owned() }),
            image: Some(ImageSpec {
                image: "docker.io/library/nginx:latest".to_owned(),
                ..ImageSpec::default()
            }),
            labels: map(&[("io.kubernetes.container.name", "web")], &names),
            annotations: map(&[("io.kubernetes.container.ports", ports)], &[]),
        };
        let pod = PodSandbox {
            id: SANDBOX.to_owned(),
            metadata: Some(PodSandboxMetadata {
                name: "web-abc".to_owned(),
                uid: UID.to_owned(),
                namespace: "default".to_owned(),
            }),
            labels: map(&[("app", "web")], &names),
            annotations: map(&[("kubernetes.io/config.source", "api")], &[]),
        };
        Self {
            container,
            pod,
            network: POD,
            reply: Reply::Well,
            only: None,
            ignores_filter: false,
            broken_items: false,
            pod_is_gone: false,
            asked: Asked::default(),
        }
    }

    pub(crate) fn asked(&self) -> Asked {
        Arc::clone(&self.asked)
    }

    fn list(&self, filter: Option<Filter>, id: &str, item: Vec<u8>) -> Vec<u8> {
        let wanted = filter.is_none_or(|f| f.id == id) || self.ignores_filter;
        let mut items = if wanted { vec![item.into()] } else { Vec::new() };
        if self.broken_items {
            items.insert(0, Bytes::from_static(b"\xff\xff"));
            items.insert(0, Bytes::new());
        }
        ListResponse { items }.encode_to_vec()
    }

    /// The message to a question, or a status.
    fn answer(&self, path: &str, question: Bytes) -> Result<Vec<u8>, u32> {
        let package = self.only.unwrap_or("runtime.v1.");
        let method = path.rsplit('/').next().unwrap();
        if !path.trim_start_matches('/').starts_with(package) {
            return Err(12);
        }
        Ok(match method {
            "ListContainers" => {
                let filter = ListContainersRequest::decode(question).unwrap().filter;
                self.list(filter, WEB, self.container.encode_to_vec())
            }
            "ListPodSandbox" if self.pod_is_gone => Vec::new(),
            "ListPodSandbox" => {
                let filter = ListPodSandboxRequest::decode(question).unwrap().filter;
                self.list(filter, SANDBOX, self.pod.encode_to_vec())
            }
            "PodSandboxStatus" if self.pod_is_gone => return Err(5),
            "PodSandboxStatus" => self.status(&PodSandboxStatusRequest::decode(question).unwrap()),
            "ContainerStatus" => {
                let image =
                    Some(ImageSpec { image: "from-status:1".to_owned(), ..ImageSpec::default() });
                ContainerStatusResponse { status: Some(ContainerStatus { image }) }.encode_to_vec()
            }
            _ => return Err(12),
        })
    }

    fn status(&self, question: &PodSandboxStatusRequest) -> Vec<u8> {
        let options = Some(NamespaceOption { network: self.network });
        let network = PodSandboxNetworkStatus { ip: "10.1.2.3".to_owned(), additional_ips: vec![] };
        let status = PodSandboxStatus {
            id: question.pod_sandbox_id.clone(),
            network: Some(network),
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) }),
        };
        let info = r#"{"pid":4711,"image":"registry.k8s.io/pause:3.9","more":{}}"#;
        let info = [("info".to_owned(), info.to_owned())];
        let info = if question.verbose { info.into() } else { [].into() };
        PodSandboxStatusResponse { status: Some(status), info }.encode_to_vec()
    }

    fn response(&self, path: &str, question: Bytes) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        self.asked.lock().unwrap().push((path.to_owned(), question.slice(5..)));
        let framed = |message: &[u8]| {
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            Bytes::from([&[0], &length[..], message].concat())
        };
        let (mut status, mut text) = (0, String::new());
        let frames: Vec<Bytes> = match self.reply {
            Reply::Announced(length) => {
                vec![Bytes::from([&[0], &length.to_be_bytes()[..], &[0; 200]].concat())]
            }
            Reply::Message(bytes) => vec![framed(bytes)],
            Reply::Status(code, message) => {
                (status, text) = (code, message.to_owned());
                vec![]
            }
            Reply::LongStatus => {
                (status, text) = (2, "long ".repeat(1000));
                vec![]
            }
            _ => match self.answer(path, question.slice(5..)) {
                Ok(message) => vec![framed(&message)],
                Err(code) => {
                    status = code;
                    vec![]
                }
            },
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.into());
        if !text.is_empty() {
            trailers.insert("grpc-message", text.parse().unwrap());
        }
        let end = Ok(Frame::trailers(trailers));
        let frames = frames.into_iter().map(|bytes| Ok(Frame::data(bytes)));
        let body = match self.reply {
            Reply::Endless => {
                // Below the size of one message, so that all bytes together count.
                let header = Bytes::from([&[0], &u32::MAX.to_be_bytes()[..]].concat());
                let zeros = std::iter::repeat_with(|| Ok(Frame::data(Bytes::from(vec![0; 65536]))));
                let all = std::iter::once(Ok(Frame::data(header))).chain(zeros);
                StreamBody::new(futures_util::stream::iter(all)).boxed_unsync()
            }
            Reply::Stalls => StreamBody::new(futures_util::stream::pending()).boxed_unsync(),
            _ => {
                let all = frames.chain(std::iter::once(end)).collect::<Vec<_>>();
                StreamBody::new(futures_util::stream::iter(all)).boxed_unsync()
            }
        };
        let response = Response::builder().header("content-type", "application/grpc");
        response.body(body).unwrap()
    }
}

/// Serves `fake` at `path` until the test's process ends.
pub(crate) fn serve(path: &Path, fake: Fake) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let fake = fake.clone();
            std::thread::spawn(move || talk(stream, fake));
        }
    });
}

fn talk(mut stream: UnixStream, fake: Fake) {
    match fake.reply {
        Reply::Silence => {
            // Until the client goes.
            _ = std::io::copy(&mut stream, &mut std::io::sink());
            return;
        }
        Reply::Raw(bytes) => {
            _ = stream.write_all(bytes);
            return;
        }
        _ => {}
    }
    stream.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = TokioIo::new(tokio::net::UnixStream::from_std(stream).unwrap());
        let fake = Arc::new(fake);
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let fake = Arc::clone(&fake);
            async move {
                let path = request.uri().path().to_owned();
                let question = request.into_body().collect().await.unwrap().to_bytes();
                Ok::<_, Infallible>(fake.response(&path, question))
            }
        });
        // Fails when the client has had enough, as it should.
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        _ = server.serve_connection(stream, service).await;
    });
}
