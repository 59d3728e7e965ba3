//! Every end-to-end test, in one program: it is linked once, and starts once.
//!
//! A file of tests is a module: `cargo xtask test -p e2e docker::` runs those of
//! `docker.rs` (and of `paths/docker.rs`). They run side by side, as many at once as there
//! are processors, in the order of their names: nothing in here may change what belongs to
//! the whole process, as its environment, its directory or its mask for new files.

mod audit;
mod badinput;
mod beside;
mod bind;
mod cilium;
mod cri;
mod differential;
mod dist;
mod docker;
mod fleet;
mod flows;
mod forms;
mod health;
mod held;
mod history;
mod hostile;
mod identity;
mod kernel;
mod kube_api;
mod lab;
mod learn;
mod list;
mod paths;
mod pipe;
mod probe;
mod races;
mod record;
mod rights;
mod rules_hostile;
mod rules_weather;
mod scenarios;
mod screens;
mod sockets;
mod sudo;
mod targets;
mod terminal;
mod trace;
mod tui;
mod turn;
mod unix;
mod wait;

/// What needs a Kubernetes that was built from source: `cargo xtask test --extended`.
#[path = "."]
mod extended {
    #[path = "fleet/api_server.rs"]
    mod fleet;
    mod kind;
    mod kube;
    mod kubelet;
}
