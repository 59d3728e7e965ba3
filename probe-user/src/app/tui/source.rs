//! The node that is shown: this one, or a recorded one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Failure, kube_options, no_procfs};
use crate::cli::Global;
use crate::model::SourceReport;
use crate::node::{self, KubeCache, KubeOptions, LiveNode, Node, Recorded, Recording};

/// A small recorded node that comes with the tool: two kind clusters.
const DEMO: &str = include_str!("../../../demo.json");

/// How a node is opened. Each thread opens its own: what one has read is its own.
#[derive(Debug, Clone)]
pub(super) enum NodeSource {
    /// This node.
    Live(LiveOptions),
    /// A file, whose node had this time.
    File(PathBuf, u64),
    /// The node that comes with the tool.
    Demo(u64),
}

/// How this node is read.
#[derive(Debug, Clone)]
pub(super) struct LiveOptions {
    kube: KubeOptions,
    timeout: Option<Duration>,
    /// What is known of its Kubernetes APIs by watching them.
    watched: Option<Arc<KubeCache>>,
}

impl NodeSource {
    /// What the options ask for, checked.
    pub(super) fn new(global: &Global, demo: bool) -> Result<Self, Failure> {
        if demo && global.replay.is_some() {
            return Err(Failure::Usage(
                "--demo and --replay ask for two nodes at once: leave one of them out".to_owned(),
            ));
        }
        if demo {
            return Ok(Self::Demo(self::demo()?.facts.host.value.now));
        }
        if let Some(path) = &global.replay {
            let recorded =
                Recorded::load(path).map_err(|error| Failure::Usage(error.to_string()))?;
            return Ok(Self::File(path.clone(), recorded.recording().facts.host.value.now));
        }
        let kube = kube_options(global);
        node::check_kube(&kube).map_err(Failure::Usage)?;
        LiveNode::new().map_err(|error| no_procfs(&error))?;
        Ok(Self::Live(LiveOptions { kube, timeout: global.timeout, watched: None }))
    }

    /// The same, whose Kubernetes APIs are watched from the first question on: for a screen that
    /// stays.
    pub(super) fn watching(&self) -> Self {
        match self {
            Self::Live(LiveOptions { kube, timeout, .. }) => {
                let (kube, timeout) = (kube.clone(), *timeout);
                Self::Live(LiveOptions { watched: KubeCache::new(kube.clone()), kube, timeout })
            }
            other => other.clone(),
        }
    }

    /// How its Kubernetes APIs are watched, if they are.
    pub(super) fn report(&self) -> Option<SourceReport> {
        match self {
            Self::Live(LiveOptions { watched, .. }) => {
                watched.as_ref().and_then(|cache| cache.report())
            }
            _ => None,
        }
    }

    /// How often something has changed in the Kubernetes APIs that are watched.
    pub(super) fn changes(&self) -> u64 {
        match self {
            Self::Live(LiveOptions { watched: Some(cache), .. }) => cache.changes(),
            _ => 0,
        }
    }

    /// When a recorded node was recorded, in seconds since the epoch.
    pub(super) fn recorded_at(&self) -> Option<u64> {
        match self {
            Self::Live(_) => None,
            Self::File(_, at) | Self::Demo(at) => Some(*at),
        }
    }

    /// The node as it is now.
    pub(super) fn open(&self) -> Result<Box<dyn Node>, String> {
        Ok(match self {
            Self::Live(_) => Box::new(self.open_live()?),
            Self::File(path, _) => {
                Box::new(Recorded::load(path).map_err(|error| error.to_string())?)
            }
            Self::Demo(_) => Box::new(Recorded::new(demo().map_err(|_| "the demo is damaged")?)),
        })
    }

    /// This node, if it is this node that is shown.
    pub(super) fn open_live(&self) -> Result<LiveNode, String> {
        let Self::Live(LiveOptions { kube, timeout, watched }) = self else {
            return Err("it is a recorded node".to_owned());
        };
        let live =
            LiveNode::new().map_err(|error| format!("/proc: {error}"))?.with_timeout(*timeout);
        Ok(match watched {
            Some(cache) => live.with_kube_cache(Arc::clone(cache)),
            None => live.with_kube(kube.clone()),
        })
    }
}

fn demo() -> Result<Recording, Failure> {
    serde_json::from_str(DEMO).map_err(|error| Failure::Tool(format!("the demo: {error}")))
}
