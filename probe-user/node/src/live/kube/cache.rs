//! The APIs that are watched while a screen is shown, and what is known of them. Watching is
//! a thread's own business: whoever asks gets what is known, or asks the API as before.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::store::Store;
use super::{KubeOptions, config, watch};
use whereis_port_model::{ContextId, KubeAsk, KubeObjects, KubeWish, SourceReport};

/// How many APIs are watched at once; others are asked.
const MOST: usize = 4;

/// What is known of one API, shared with who watches it.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedStore {
    store: Arc<Mutex<Store>>,
    changes: Arc<AtomicU64>,
}

impl SharedStore {
    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something; what is done says whether anybody would see that.
    pub(super) fn change(&self, change: impl FnOnce(&mut Store) -> bool) {
        let mut store = self.store();
        if change(&mut store) {
            store.changed = Some(Instant::now());
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is known of the Kubernetes APIs that were asked for something: each is watched from
/// then on, until this is dropped.
pub struct KubeCache {
    options: KubeOptions,
    contexts: Mutex<BTreeMap<ContextId, SharedStore>>,
    changes: Arc<AtomicU64>,
    watcher: UnboundedSender<(ContextId, SharedStore)>,
    /// Taken by the thread when the first API is to be watched.
    wanted: Mutex<Option<UnboundedReceiver<(ContextId, SharedStore)>>>,
}

impl fmt::Debug for KubeCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeCache").field("options", &self.options).finish_non_exhaustive()
    }
}

impl KubeCache {
    /// Nothing is read or connected to before something is asked for. `None` when no API may
    /// be asked.
    #[must_use]
    pub fn new(options: KubeOptions) -> Option<Arc<Self>> {
        let (watcher, wanted) = unbounded_channel();
        (!options.off).then(|| {
            Arc::new(Self {
                options,
                contexts: Mutex::default(),
                changes: Arc::default(),
                watcher,
                wanted: Mutex::new(Some(wanted)),
            })
        })
    }

    /// How often something has changed: another number is a reason to ask again.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    pub(super) fn options(&self) -> &KubeOptions {
        &self.options
    }

    /// What is known, if it is enough. An API that is asked for more than its nodes is
    /// watched from now on: those of clusters without a node here are asked for these only.
    pub(super) fn answer(&self, ask: &KubeAsk) -> Option<KubeObjects> {
        let shared = {
            let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
            match contexts.get(&ask.context) {
                Some(shared) => shared.clone(),
                None if matches!(ask.wish, KubeWish::Node(_) | KubeWish::Nodes) => return None,
                None if contexts.len() >= MOST => return None,
                None => {
                    let changes = Arc::clone(&self.changes);
                    let shared = SharedStore { changes, ..SharedStore::default() };
                    contexts.insert(ask.context.clone(), shared.clone());
                    self.start();
                    let _ = self.watcher.send((ask.context.clone(), shared));
                    return None;
                }
            }
        };
        shared.store().answer(&ask.wish)
    }

    /// Starts the thread, once.
    fn start(&self) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(wanted) = wanted else { return };
        let options = self.options.clone();
        let thread = std::thread::Builder::new().name("kube-watch".to_owned());
        // Without the thread everything is asked for as before.
        let _ = thread.spawn(move || run(&options, wanted));
    }

    /// How the APIs are watched, if one is.
    pub fn report(&self) -> Option<SourceReport> {
        let contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reasons = Vec::new();
        let mut objects = 0;
        let mut changed: Option<Instant> = None;
        for (id, shared) in contexts.iter() {
            let store = shared.store();
            objects += store.len();
            changed = changed.max(store.changed);
            reasons.extend(store.reasons().iter().map(|why| format!("context {}: {why}", id.name)));
        }
        let last = match changed {
            Some(changed) => format!("last change {} s ago", changed.elapsed().as_secs()),
            None => "nothing read yet".to_owned(),
        };
        (!contexts.is_empty()).then(|| SourceReport {
            name: "Kubernetes watch".to_owned(),
            ok: reasons.is_empty(),
            remedy: (!reasons.is_empty())
                .then(|| "until it is watched, the screen asks every 10 s".to_owned()),
            reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
            command: None,
            ms: 0.0,
            detail: format!("watching, {objects} objects, {last}"),
            namespaces: None,
        })
    }
}

/// Watches what is wanted, until nobody can want anything any more.
fn run(options: &KubeOptions, mut wanted: UnboundedReceiver<(ContextId, SharedStore)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        while let Some((context, shared)) = wanted.recv().await {
            let (found, _) = config::find(options);
            if let Some(entry) = found.into_iter().find(|f| f.context.id() == context) {
                tokio::spawn(watch::watch(entry, shared));
            }
        }
    });
    // A program that gives credentials would be waited for.
    runtime.shutdown_background();
}
