//! The screen: every port of the node, live.
//!
//! Pure, like all views: `state` is what is on the screen and how messages change it,
//! `render` draws a state. Terminals, readers and clocks are in `app/tui`.
//!
//! ```text
//!  app/tui: keys, rows, answers, events        state: update        render: draw
//!            ───────── Message ─────────▶  State  ──────────────▶  Frame
//!            ◀──────── Effect ───────────
//! ```

mod ansi;
mod filter;
mod layout;
mod row;
mod theme;

pub mod config;
pub mod keys;
pub mod render;
pub mod state;

#[cfg(test)]
mod fixtures;

#[cfg(feature = "fuzzing")]
pub use filter::Filter;
pub use row::{Row, RowKey, rows};
pub use theme::{Depth, Theme};
