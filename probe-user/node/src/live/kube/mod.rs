//! Kubernetes APIs: which there are (`config.rs`, `files.rs`), how one gets in (`client.rs`,
//! `login.rs`), what is asked (`fetch.rs`) and what was answered (`parse.rs`). For the screen
//! they are watched (`watch.rs`), and what is known of them is kept (`store.rs`, `cache.rs`).
//!
//! An API may be out of reach, slow, hostile or closed to us: all asks of a run together
//! have one time limit, each answer a size limit, and what is not answered is a gap.

mod cache;
mod client;
mod config;
mod fetch;
mod files;
mod login;
mod parse;
mod reports;
mod store;
mod trust;
mod watch;

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

pub use cache::KubeCache;
pub(super) use client::ApiFailure;
use config::ContextConfig;
pub use reports::kube_reports;
use whereis_port_model::{
    ContextId, Gap, GapKind, Impact, KubeAsk, KubeContext, KubeObjects, Read,
};

/// What all asks of one run may take together: an answer comes within two seconds,
/// whatever an API does.
const TIME: Duration = Duration::from_millis(1500);

/// Which Kubernetes APIs may be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeOptions {
    /// `--kubeconfig`: only this file.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`: only this context.
    pub context: Option<String>,
    /// `--no-kube`: none.
    pub off: bool,
    /// `--kube-exec`: programs for credentials are run as root, too.
    pub exec: bool,
}

/// Checks what the user typed, before anything is read: files and contexts that were named
/// have to be there.
///
/// # Errors
/// What is wrong, and what there is.
pub fn check_kube(options: &KubeOptions) -> Result<(), String> {
    if options.off {
        return Ok(());
    }
    config::check(options)
}

/// A client of one context's API: of the one asked for, or of the current one. It has to be
/// asked for within a tokio runtime, and may take seconds where a program gives credentials.
///
/// # Errors
/// Why there is none, and what to do about it.
pub fn kube_client(
    options: &KubeOptions,
    context: Option<&ContextId>,
) -> Result<kube::Client, Gap> {
    let (found, mut gaps) = config::find(options);
    let wanted = |entry: &&ContextConfig| match context {
        Some(id) => entry.context.id() == *id,
        None => entry.context.current,
    };
    let Some(entry) = found.iter().find(wanted) else {
        return Err(gaps.pop().unwrap_or_else(|| {
            Gap::new(Impact::Name, GapKind::KubernetesApi, "no kubeconfig names a cluster")
                .remedy("name one with --kubeconfig FILE, or set KUBECONFIG")
        }));
    };
    let client = client::log_in(entry, TIME * 4).and_then(client::connect);
    client.map_err(|failure| failure.gap(&entry.context))
}

/// The APIs of one run: each is connected to once, and asked each thing once.
#[derive(Default)]
pub(super) struct Kube {
    /// What all requests may take together; `None` for the usual time.
    time: Option<Duration>,
    options: KubeOptions,
    cache: Option<Arc<KubeCache>>,
    found: OnceCell<(Vec<ContextConfig>, Vec<Gap>)>,
    runtime: OnceCell<Option<tokio::runtime::Runtime>>,
    until: OnceCell<Instant>,
    clients: RefCell<HashMap<ContextId, Result<kube::Client, ApiFailure>>>,
    said: RefCell<HashMap<KubeAsk, Read<KubeObjects>>>,
}

impl fmt::Debug for Kube {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kube").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Kube {
    pub(super) fn new(options: KubeOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// The same, with what is watched of the APIs: what that knows is not asked for.
    pub(super) fn cached(cache: Arc<KubeCache>) -> Self {
        Self { cache: Some(Arc::clone(&cache)), ..Self::new(cache.options().clone()) }
    }

    /// All optional reading may take so long: requests take three quarters of it, but never
    /// more than they usually may.
    pub(super) fn within(&mut self, limit: Duration) {
        self.time = Some(TIME.min(limit.saturating_mul(3) / 4));
    }

    /// The contexts of all kubeconfig files. No API is asked.
    pub(super) fn contexts(&self) -> Read<Vec<KubeContext>> {
        let (found, gaps) = self.found();
        Read { value: found.iter().map(|f| f.context.clone()).collect(), gaps: gaps.clone() }
    }

    fn found(&self) -> &(Vec<ContextConfig>, Vec<Gap>) {
        self.found.get_or_init(|| config::find(&self.options))
    }

    /// Asks all at once; what was asked before is not asked again.
    pub(super) fn ask(&self, asks: &[KubeAsk]) -> Vec<Read<KubeObjects>> {
        let mut new: Vec<&KubeAsk> = Vec::new();
        for ask in asks {
            if self.said.borrow().contains_key(ask) || new.contains(&ask) {
                continue;
            }
            match self.cache.as_ref().and_then(|cache| cache.answer(ask)) {
                Some(known) => {
                    self.said.borrow_mut().insert(ask.clone(), Read::whole(known));
                }
                None => new.push(ask),
            }
        }
        if !new.is_empty() {
            self.fetch(&new);
        }
        let said = self.said.borrow();
        asks.iter().map(|ask| said.get(ask).cloned().unwrap_or_default()).collect()
    }

    /// What was read so far.
    pub(super) fn summary(&self) -> String {
        let said = self.said.borrow();
        let count = |of: fn(&KubeObjects) -> usize| -> usize {
            said.values().map(|read| of(&read.value)).sum()
        };
        format!(
            "{} services, {} endpoint slices, {} pods, {} nodes in {} questions",
            count(|o| o.services.len()),
            count(|o| o.endpoints.len()),
            count(|o| o.pods.len()),
            count(|o| o.nodes.len()),
            said.len(),
        )
    }

    fn fetch(&self, asks: &[&KubeAsk]) {
        let until = *self.until.get_or_init(|| Instant::now() + self.time.unwrap_or(TIME));
        let runtime = self.runtime.get_or_init(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().ok()
        });
        let Some(runtime) = runtime else { return };
        let mut of_context: BTreeMap<&ContextId, Vec<&KubeAsk>> = BTreeMap::new();
        for &ask in asks {
            of_context.entry(&ask.context).or_default().push(ask);
        }
        let all = of_context.into_iter().map(|(id, asks)| self.of_context(id, asks, until));
        let reads = runtime.block_on(join_all(all));
        let mut said = self.said.borrow_mut();
        said.extend(reads.into_iter().flatten().map(|(ask, read)| (ask.clone(), read)));
    }

    /// What one API says to all asks, which go out together.
    async fn of_context<'a>(
        &self,
        id: &ContextId,
        asks: Vec<&'a KubeAsk>,
        until: Instant,
    ) -> Vec<(&'a KubeAsk, Read<KubeObjects>)> {
        let nothing = |gap: Gap| {
            let read = Read::partial(KubeObjects::default(), gap);
            asks.iter().map(|ask| (*ask, read.clone())).collect()
        };
        let Some(entry) = self.found().0.iter().find(|f| f.context.id() == *id) else {
            return nothing(Gap::new(
                Impact::Name,
                GapKind::KubernetesApi,
                "there is no such context",
            ));
        };
        let until = until.min(Instant::now() + self.share(until));
        let client = match self.client(entry, until).await {
            Ok(client) => client,
            Err(failure) => return nothing(failure.gap(&entry.context)),
        };
        let reads = asks.iter().map(|ask| self.answer(&client, entry, ask, until));
        let reads = join_all(reads).await;
        asks.into_iter().zip(reads).collect()
    }

    async fn answer(
        &self,
        client: &kube::Client,
        entry: &ContextConfig,
        ask: &KubeAsk,
        until: Instant,
    ) -> Read<KubeObjects> {
        let left = until.saturating_duration_since(Instant::now());
        let answer = tokio::time::timeout(left, fetch::fetch(client, entry, &ask.wish)).await;
        match answer.unwrap_or(Err(ApiFailure::Timeout)) {
            Ok(read) => read,
            Err(failure) => {
                let failure = failure.explained(entry);
                let gap = failure.gap(&entry.context);
                if failure.is_lasting() {
                    // What comes later would only wait for the same.
                    self.clients.borrow_mut().insert(entry.context.id(), Err(failure));
                }
                Read::partial(KubeObjects::default(), gap)
            }
        }
    }

    /// How long one API may take of what is left: where there are several, one that is silent
    /// leaves some for the others.
    fn share(&self, until: Instant) -> Duration {
        let left = until.saturating_duration_since(Instant::now());
        if self.found().0.len() > 1 { left * 2 / 3 } else { left }
    }

    async fn client(
        &self,
        entry: &ContextConfig,
        until: Instant,
    ) -> Result<kube::Client, ApiFailure> {
        let id = entry.context.id();
        if let Some(known) = self.clients.borrow().get(&id) {
            return known.clone();
        }
        let client = connect(entry, until).await;
        self.clients.borrow_mut().insert(id, client.clone());
        client
    }
}

/// Logs in, on a thread of its own for a program may give the credentials, and connects.
async fn connect(entry: &ContextConfig, until: Instant) -> Result<kube::Client, ApiFailure> {
    let left = until.saturating_duration_since(Instant::now());
    let (send, config) = tokio::sync::oneshot::channel();
    let owned = entry.clone();
    let thread = std::thread::Builder::new().name("kube-login".to_owned());
    let config = match thread.spawn(move || _ = send.send(client::log_in(&owned, left))) {
        Ok(_) => config.await.map_err(|_| ApiFailure::Config("logging in failed".to_owned()))?,
        // tokio looks names up in a thread, and does not do without.
        Err(error) if !client::is_address(entry) => Err(ApiFailure::Unreachable(format!(
            "no thread can be made to look its name up: {error}"
        ))),
        Err(_) => client::log_in(entry, left),
    };
    client::connect(config?)
}

#[cfg(feature = "fuzzing")]
pub(super) use {files::fuzz as fuzz_config, parse::fuzz as fuzz_objects};
