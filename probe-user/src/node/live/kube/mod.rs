//! Kubernetes APIs: which there are (`config.rs`), how one gets in (`client.rs`,
//! `login.rs`), what is asked (`fetch.rs`) and what was answered (`parse.rs`).
//!
//! An API may be out of reach, slow, hostile or closed to us: all asks of a run together
//! have one time limit, each answer a size limit, and what is not answered is a gap.

mod client;
mod config;
mod fetch;
mod login;
mod parse;

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::model::{ContextId, Gap, Impact, KubeAsk, KubeContext, KubeObjects, Read};
pub(super) use client::Failure;
use config::Found;

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

/// A client of one context's API: of the one asked for, or of the current one.
///
/// # Errors
/// Why there is none, and what to do about it.
pub fn kube_client(
    options: &KubeOptions,
    context: Option<&ContextId>,
) -> Result<kube::Client, String> {
    let (found, mut gaps) = config::find(options);
    let wanted = |entry: &&Found| match context {
        Some(id) => entry.context.id() == *id,
        None => entry.context.current,
    };
    let Some(entry) = found.iter().find(wanted) else {
        return Err(gaps.pop().map_or_else(
            || {
                "no kubeconfig names a cluster; name one with --kubeconfig FILE, or set KUBECONFIG"
                    .to_owned()
            },
            |gap| format!("{}: {}", gap.source, gap.reason),
        ));
    };
    client::connect(entry, TIME * 4).map_err(|failure| {
        let gap = failure.gap(&entry.context);
        let remedy = gap.remedy.map_or_else(String::new, |remedy| format!("; {remedy}"));
        format!("{}: {}{remedy}", gap.source, gap.reason)
    })
}

/// The APIs of one run: each is connected to once, and asked each thing once.
#[derive(Default)]
pub(super) struct Kube {
    options: KubeOptions,
    found: OnceCell<(Vec<Found>, Vec<Gap>)>,
    runtime: OnceCell<Option<tokio::runtime::Runtime>>,
    until: OnceCell<Instant>,
    clients: RefCell<HashMap<ContextId, Result<kube::Client, Failure>>>,
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

    /// The contexts of all kubeconfig files. No API is asked.
    pub(super) fn contexts(&self) -> Read<Vec<KubeContext>> {
        let (found, gaps) = self.found();
        Read { value: found.iter().map(|f| f.context.clone()).collect(), gaps: gaps.clone() }
    }

    fn found(&self) -> &(Vec<Found>, Vec<Gap>) {
        self.found.get_or_init(|| config::find(&self.options))
    }

    /// Asks all at once; what was asked before is not asked again.
    pub(super) fn ask(&self, asks: &[KubeAsk]) -> Vec<Read<KubeObjects>> {
        let mut new: Vec<&KubeAsk> = Vec::new();
        for ask in asks {
            if !self.said.borrow().contains_key(ask) && !new.contains(&ask) {
                new.push(ask);
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
        let until = *self.until.get_or_init(|| Instant::now() + TIME);
        let runtime = self.runtime.get_or_init(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().ok()
        });
        let Some(runtime) = runtime else { return };
        let reads = runtime.block_on(join_all(asks.iter().map(|ask| self.one(ask, until))));
        let mut said = self.said.borrow_mut();
        said.extend(asks.iter().map(|ask| (*ask).clone()).zip(reads));
    }

    async fn one(&self, ask: &KubeAsk, until: Instant) -> Read<KubeObjects> {
        let Some(entry) = self.found().0.iter().find(|f| f.context.id() == ask.context) else {
            let gap = Gap::new(Impact::Name, "Kubernetes API", "there is no such context");
            return Read::partial(KubeObjects::default(), gap);
        };
        let client = match self.client(entry, until) {
            Ok(client) => client,
            Err(failure) => {
                return Read::partial(KubeObjects::default(), failure.gap(&entry.context));
            }
        };
        let left = until.saturating_duration_since(Instant::now());
        let answer = tokio::time::timeout(left, fetch::fetch(&client, entry, &ask.wish)).await;
        let answer = answer.unwrap_or(Err(Failure::Timeout));
        match answer {
            Ok(read) => read,
            Err(failure) => {
                let gap = failure.gap(&entry.context);
                if failure.is_lasting() {
                    // What comes later would only wait for the same.
                    self.clients.borrow_mut().insert(entry.context.id(), Err(failure));
                }
                Read::partial(KubeObjects::default(), gap)
            }
        }
    }

    fn client(&self, entry: &Found, until: Instant) -> Result<kube::Client, Failure> {
        let id = entry.context.id();
        if let Some(known) = self.clients.borrow().get(&id) {
            return known.clone();
        }
        let left = until.saturating_duration_since(Instant::now());
        let client = client::connect(entry, left);
        self.clients.borrow_mut().insert(id, client.clone());
        client
    }
}
