//! `whereis-port`: who is behind a port, and how traffic gets there.
//!
//! Facts are read by [`node`], turned into answers by [`resolve`] and shown by
//! [`view`]; [`model`] is the vocabulary they share. `ARCHITECTURE.md` has the map.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "what tests read they have made themselves")
)]

pub mod app;
pub mod cli;
pub mod exit;
pub mod fleet;

pub use whereis_port_model as model;
pub use whereis_port_node as node;
pub use whereis_port_resolve as resolve;
pub use whereis_port_view as view;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
