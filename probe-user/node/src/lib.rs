//! Reading facts. The only module that does I/O, and in it only `live` does.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "what tests read they have made themselves")
)]

pub mod history;
mod live;
mod recorded;
mod watch;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use live::fuzzing;
pub use live::{
    COMPARISON, ChangeSet, HeldPort, KubeCache, KubeOptions, LiveNode, LoadedIterators, Pinned,
    Pulse, boot_id, check_kube, drop_rights, group_id, hold_port, kube_client, kube_reports,
    local_offset, moment, named_text, pin, probe_reports, system_text, unpin, watch,
};
pub use recorded::{
    ElementOf, FactTable, FlowsOf, InContainer, Recorded, RecordedFact, RecordedFacts, Recorder,
    Recording, RecordingError, SocketsOf, read_everything, redact, save_private,
};
pub use watch::{Watch, WatchRequest};
pub use whereis_port_model::{
    Attachments, Attempts, Clusters, Conntrack, Listeners, LoadBalancers, Netfilter, Node,
    Observed, Prefetch, Processes, Reports, Runtimes, Sockets, Topology,
};
