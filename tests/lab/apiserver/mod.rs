//! An API server of Kubernetes as a test needs it: with objects that the test says, over
//! TLS, and misbehaving in whatever way is tested.
//!
//! It lists in pages, gets, filters as the tool asks for it, knows one token, and refuses
//! what its rules don't allow. Real ones are in other tests; this one can be slow, closed,
//! or talk nonsense when it is wanted.

mod certs;
mod objects;
mod reply;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::netns::Netns;

pub use certs::{Certificate, ClientCertificate};
pub use objects::{Objects, node, pod, service, slice};

/// The token that the server knows.
pub const TOKEN: &str = "token-that-is-known";

/// What is asked of the server, as its rules of access see it.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// `get`, `list` or `watch`.
    pub verb: &'a str,
    /// `services`, `pods`.
    pub kind: &'a str,
    /// `None` for all namespaces, and for what is in none.
    pub namespace: Option<&'a str>,
}

/// Which API of EndpointSlices it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Slices {
    /// `discovery.k8s.io/v1`, since 1.21.
    #[default]
    V1,
    /// `discovery.k8s.io/v1beta1`, of 1.17 to 1.24.
    V1Beta1,
    /// None: only Endpoints.
    None,
}

/// How the server behaves.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// How long each answer takes.
    pub delay: Duration,
    /// Requests are read and never answered.
    pub hang: bool,
    /// How many times a list that was begun has expired when it goes on.
    pub gone: u32,
    /// How many watches are told that the version they begin at is not known any more.
    pub expired: u32,
    /// Answers of lists end in the middle.
    pub truncated: bool,
    /// Answers of lists never end.
    pub endless: bool,
    /// Which EndpointSlices it has.
    pub slices: Slices,
}

type Rules = Box<dyn Fn(Access<'_>) -> bool + Send>;

/// What the server's thread and the test share.
struct Shared {
    stored: objects::Stored,
    weather: Weather,
    allows: Rules,
    asked: Vec<String>,
    /// Who is told of changes, by the path that is watched.
    watchers: Vec<(String, UnboundedSender<Bytes>)>,
}

impl Shared {
    /// What is told from now on of the objects at a path.
    fn watch(&mut self, path: &str) -> Option<UnboundedReceiver<Bytes>> {
        let (sender, receiver) = unbounded_channel();
        self.watchers.push((path.to_owned(), sender));
        Some(receiver)
    }
}

/// A running server. It ends with this.
pub struct ApiServer {
    address: SocketAddr,
    authority: String,
    shared: Arc<Mutex<Shared>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Starts one on a free port of 127.0.0.1 in `netns`, or where the caller is.
    ///
    /// # Errors
    /// When it can't listen there.
    pub fn start(netns: Option<&Netns>, objects: &Objects) -> Result<Self> {
        Self::with_certificate(netns, objects, Certificate::Good)
    }

    /// The same with a certificate that may be no good.
    ///
    /// # Errors
    /// As [`ApiServer::start`].
    pub fn with_certificate(
        netns: Option<&Netns>,
        objects: &Objects,
        certificate: Certificate,
    ) -> Result<Self> {
        let listener = listen(netns)?;
        let address = listener.local_addr()?;
        let (tls, authority) = certs::server(certificate)?;
        let shared = Arc::new(Mutex::new(Shared {
            stored: objects::Stored::new(objects)?,
            weather: Weather::default(),
            allows: Box::new(|_| true),
            asked: Vec::new(),
            watchers: Vec::new(),
        }));
        let (stop, stopped) = oneshot::channel();
        let of_thread = Arc::clone(&shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    // A server that can't serve shows in what the test asks of it.
                    _ = serve(listener, TlsAcceptor::from(tls), of_thread) => {}
                }
            });
        });
        Ok(Self { address, authority, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Changes how it behaves.
    pub fn weather(&self, weather: Weather) {
        self.shared().weather = weather;
    }

    /// Makes one more Service, and tells those who watch.
    ///
    /// # Errors
    /// When it can't be written as JSON.
    pub fn add_service(&self, service: &k8s_openapi::api::core::v1::Service) -> Result<()> {
        let mut shared = self.shared();
        let json = shared.stored.add_service(service)?;
        let event = Bytes::from(format!("{{\"type\":\"ADDED\",\"object\":{json}}}\n"));
        for (_, watcher) in shared.watchers.iter().filter(|(path, _)| path == "/api/v1/services") {
            // Who does not watch any more is told nothing.
            let _ = watcher.send(event.clone());
        }
        Ok(())
    }

    /// Allows only what `allows` says.
    pub fn allow(&self, allows: impl Fn(Access<'_>) -> bool + Send + 'static) {
        self.shared().allows = Box::new(allows);
    }

    /// The paths that were asked for so far.
    pub fn asked(&self) -> Vec<String> {
        self.shared().asked.clone()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A kubeconfig for it, in which the test may change things.
    pub fn kubeconfig(&self, name: &str) -> Value {
        use base64::Engine as _;
        let authority = base64::prelude::BASE64_STANDARD.encode(&self.authority);
        kubeconfig(name, &self.url(), Some(&authority), json!({"token": TOKEN}))
    }

    /// Writes [`ApiServer::kubeconfig`] to a file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_kubeconfig(&self, dir: &Path, name: &str) -> Result<PathBuf> {
        write(dir, name, &self.kubeconfig(name))
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

impl Drop for ApiServer {
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

/// A kubeconfig with one context, cluster and user, all called `name`.
pub fn kubeconfig(name: &str, server: &str, authority: Option<&str>, user: Value) -> Value {
    let mut cluster = json!({"server": server});
    if let Some(authority) = authority {
        cluster["certificate-authority-data"] = authority.into();
    }
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    })
}

/// Writes a kubeconfig. JSON is YAML, too.
///
/// # Errors
/// When it can't be written.
pub fn write(dir: &Path, name: &str, config: &Value) -> Result<PathBuf> {
    let file = dir.join(format!("{name}.kubeconfig"));
    std::fs::write(&file, serde_json::to_vec_pretty(config)?)
        .with_context(|| file.display().to_string())?;
    Ok(file)
}

/// A listening socket in a namespace: it stays there, whoever holds it.
fn listen(netns: Option<&Netns>) -> Result<TcpListener> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listener = match netns {
        None => bind()?,
        Some(netns) => {
            let file = std::fs::File::open(&netns.path)?;
            let bound = std::thread::spawn(move || -> Result<TcpListener> {
                let kind = rustix::thread::LinkNameSpaceType::Network;
                rustix::thread::move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&file),
                    Some(kind),
                )?;
                Ok(bind()?)
            });
            bound.join().map_err(|_| anyhow!("listening"))??
        }
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    shared: Arc<Mutex<Shared>>,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            // Whoever breaks off is not the server's business.
            let Ok(stream) = tls.accept(stream).await else { return };
            let answer = service_fn(move |request| reply::reply(request, Arc::clone(&shared)));
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
