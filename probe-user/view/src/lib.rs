//! Showing answers: text, JSON, tables. Pure: data in, text out. Everything
//! that came from outside is made safe here, by [`sanitize`], and only here.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "what tests read they have made themselves")
)]

pub mod audit;
pub mod bind;
pub mod diff;
pub mod doctor;
pub mod explain;
pub mod fleet;
pub mod graph;
pub mod history;
pub mod install;
pub mod json;
pub mod list;
pub mod metrics;
pub mod quiet;
pub mod sanitize;
pub mod style;
pub mod text;
pub mod trace;
pub mod tui;
pub mod unix;
pub mod wait;
pub mod yaml;

#[cfg(test)]
mod fixtures;
mod held;
mod layout;
pub mod shell;
mod words;

pub use layout::width as columns;
pub use sanitize::clean;
pub use style::{ColorChoice, Style};
