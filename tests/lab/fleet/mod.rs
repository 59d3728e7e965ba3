//! A cluster of simulated nodes: an API server over TLS that lists them and their agents'
//! pods, and plays the tool in each through exec over WebSocket, as Kubernetes does.

pub mod crowd;
mod exec;
mod said;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::netns::Netns;

pub use said::{answer, nothing, service_path};

/// What an agent does when it is asked.
#[derive(Debug, Clone)]
pub enum Does {
    /// Prints this, and ends with this status.
    Says(Arc<str>, i32),
    /// Prints nothing on standard output, but this on standard error.
    Complains(String, i32),
    /// The same as the inner one, after a while.
    After(Duration, Box<Does>),
    /// Nothing, ever.
    Hangs,
    /// The connection ends behind the first half of this.
    BreaksOff(Arc<str>),
    /// Prints without end.
    Babbles,
    /// The API server answers with this status and message instead.
    Refused(u16, String),
    /// The container has no such program.
    HasNoTool,
}

/// What a node has.
#[derive(Debug, Clone)]
pub enum Has {
    /// An agent that is ready.
    Agent(Does),
    /// An agent that waits, for this reason.
    Waiting(String),
    /// No agent.
    Nothing,
}

/// A running cluster. It ends with this.
pub struct FakeFleet {
    address: SocketAddr,
    authority: PathBuf,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for FakeFleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeFleet").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What the server's tasks and the test share.
struct Shared {
    nodes: BTreeMap<String, Has>,
    now: AtomicUsize,
    peak: AtomicUsize,
    no_nodes: AtomicBool,
    no_pods: AtomicBool,
    commands: Mutex<Vec<Vec<String>>>,
}

impl FakeFleet {
    /// Starts one on a free port of 127.0.0.1. What a client needs to know is written to `dir`.
    ///
    /// # Errors
    /// When it can't listen or write.
    pub fn start(dir: &Path, nodes: impl IntoIterator<Item = (String, Has)>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Self::on(listener, dir, nodes)
    }

    /// The same as a kubelet: only what a real API server passes on to its node's agent is
    /// asked of it, on all addresses of `netns`, at this port.
    ///
    /// # Errors
    /// When it can't listen or write.
    pub fn kubelet(netns: &Netns, port: u16, dir: &Path, does: Does) -> Result<Self> {
        let file = std::fs::File::open(&netns.path)?;
        let bound = std::thread::spawn(move || -> Result<TcpListener> {
            let network = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(network))?;
            Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?)
        });
        let listener = bound.join().map_err(|_| anyhow!("listening"))??;
        Self::on(listener, dir, [("node".to_owned(), Has::Agent(does))])
    }

    fn on(
        listener: TcpListener,
        dir: &Path,
        nodes: impl IntoIterator<Item = (String, Has)>,
    ) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let authority = dir.join("authority.crt");
        std::fs::write(&authority, made.cert.pem())?;
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())?;
        let shared = Arc::new(Shared {
            nodes: nodes.into_iter().collect(),
            now: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            no_nodes: AtomicBool::new(false),
            no_pods: AtomicBool::new(false),
            commands: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let of_thread = Arc::clone(&shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    // A server that can't serve shows in what the test asks of it.
                    _ = serve(listener, TlsAcceptor::from(Arc::new(tls)), of_thread) => {}
                }
            });
            runtime.shutdown_background();
        });
        Ok(Self { address, authority, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Refuses to list nodes.
    pub fn refuse_nodes(&self) {
        self.shared.no_nodes.store(true, Ordering::Relaxed);
    }

    /// Refuses to list pods.
    pub fn refuse_pods(&self) {
        self.shared.no_pods.store(true, Ordering::Relaxed);
    }

    /// How many agents were asked at the same time, at most.
    pub fn peak(&self) -> usize {
        self.shared.peak.load(Ordering::Relaxed)
    }

    /// What was run in agents, with arguments.
    pub fn commands(&self) -> Vec<Vec<String>> {
        self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes a kubeconfig for it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn kubeconfig(&self, dir: &Path) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fleet",
            "clusters": [{"name": "fleet", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority": self.authority,
            }}],
            "users": [{"name": "fleet", "user": {"token": "known"}}],
            "contexts": [{"name": "fleet", "context": {"cluster": "fleet", "user": "fleet"}}],
        });
        let file = dir.join("kubeconfig");
        // JSON is YAML, too.
        std::fs::write(&file, config.to_string()).with_context(|| file.display().to_string())?;
        Ok(file)
    }
}

impl Drop for FakeFleet {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    shared: Arc<Shared>,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            // Whoever breaks off is not the server's business.
            let Ok(stream) = tls.accept(stream).await else { return };
            let answer = service_fn(move |request| reply(request, Arc::clone(&shared)));
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), answer).with_upgrades().await;
        });
    }
}

type Answer = Response<Full<Bytes>>;

async fn reply(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let known = request.headers().get("authorization").is_some_and(|a| a == "Bearer known");
    Ok(match parts.as_slice() {
        // As a kubelet, of the API server, which has no token here.
        ["exec", "whereis-port", pod, "agent"] => exec::reply(request, pod, shared),
        _ if !known => refusal(401, "Unauthorized"),
        ["api", "v1", "nodes"] if shared.no_nodes.load(Ordering::Relaxed) => refusal(
            403,
            "nodes is forbidden: User \"dev\" cannot list resource \"nodes\" in API group \"\" at the cluster scope",
        ),
        ["api", "v1", "nodes"] => page(&request, "NodeList", nodes(&shared)),
        ["api", "v1", "namespaces", namespace, "pods"]
            if shared.no_pods.load(Ordering::Relaxed) =>
        {
            let what = format!(
                "pods is forbidden: User \"dev\" cannot list resource \"pods\" in the namespace \"{namespace}\""
            );
            refusal(403, &what)
        }
        ["api", "v1", "namespaces", "whereis-port", "pods"] => {
            page(&request, "PodList", pods(&shared))
        }
        ["api", "v1", "namespaces", _, "pods"] => page(&request, "PodList", Vec::new()),
        ["api", "v1", "namespaces", "whereis-port", "pods", pod, "exec"] => {
            exec::reply(request, pod, shared)
        }
        _ => refusal(404, "there is no such thing"),
    })
}

fn refusal(code: u16, message: &str) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "", "code": code});
    let mut answer = Response::new(Full::from(status.to_string()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::IM_A_TEAPOT);
    answer
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    answer
}

/// A page of a list: smaller ones than are asked for, as a server may give.
fn page(request: &Request<Incoming>, kind: &str, all: Vec<Value>) -> Answer {
    let query = request.uri().query().unwrap_or_default();
    let token = query.split('&').find_map(|pair| pair.strip_prefix("continue="));
    let begin: usize = token.and_then(|token| token.parse().ok()).unwrap_or(0);
    let end = all.len().min(begin + 90);
    let next = if end < all.len() { end.to_string() } else { String::new() };
    let items = all.get(begin..end).unwrap_or_default();
    let list = json!({"kind": kind, "apiVersion": "v1",
        "metadata": {"resourceVersion": "1", "continue": next}, "items": items});
    Response::new(Full::from(list.to_string()))
}

fn nodes(shared: &Shared) -> Vec<Value> {
    let node = |name: &String| {
        // As large as real ones, of which most is this.
        let images: Vec<Value> = (0..40)
            .map(|n| json!({"names": [format!("registry.example/image-{n}@sha256:{}", "0".repeat(64))], "sizeBytes": 1}))
            .collect();
        json!({"metadata": {"name": name}, "spec": {}, "status": {
            "conditions": [{"type": "Ready", "status": "True"}], "images": images}})
    };
    shared.nodes.keys().map(node).collect()
}

fn pods(shared: &Shared) -> Vec<Value> {
    let pod = |(node, has): (&String, &Has)| {
        let (ready, state) = match has {
            Has::Nothing => return None,
            Has::Agent(_) => ("True", json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})),
            Has::Waiting(reason) => ("False", json!({"waiting": {"reason": reason}})),
        };
        Some(json!({
            "metadata": {"name": format!("whereis-port-agent-{node}"), "namespace": "whereis-port",
                "labels": {"app.kubernetes.io/name": "whereis-port", "app.kubernetes.io/component": "agent"}},
            "spec": {"nodeName": node, "containers": [{"name": "agent"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{"name": "agent", "ready": ready == "True", "restartCount": 0,
                    "image": "x", "imageID": "x", "state": state}]},
        }))
    };
    shared.nodes.iter().filter_map(pod).collect()
}
