//! A whole cluster: asks every node through its agent, and puts the answers together.
//!
//! An agent is a pod that waits; [`manifest`] makes them. The client chooses one for each
//! node ([`choose`]), runs the one-shot in it through the API's exec ([`ask`], the only part
//! that does I/O), reads what it printed ([`read_output`]), and merges what is the same on
//! many nodes ([`merge`]).

mod ask;
mod choose;
mod manifest;
mod read;

pub use ask::{AskProgress, FleetLimits, ask};
pub use choose::{Agent, NodeFacts, PodFacts, choose};
pub use manifest::{CONTAINER, IMAGE, NAMESPACE, SELECTOR, check_namespace, manifest};
pub use read::{RunOutput, read_output};
pub use whereis_port_model::fleet::{
    FailureKind, Fleet, Merged, MergedAnswer, MergedPort, NodeAnswer, NodeFailure, NodeReply,
    PathEnd, PortPath, Report, UnsureNode, merge, target,
};
