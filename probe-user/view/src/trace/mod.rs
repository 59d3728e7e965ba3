//! Events as they happen, and what was seen in the end.

mod text;
pub(super) mod time;

use std::collections::BTreeMap;
use std::time::Duration;

pub use text::{gap, header, line, lost, summary};

use whereis_port_model::EventKind;

/// What a watch has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many events of each kind.
    pub by_kind: BTreeMap<EventKind, u64>,
    /// How many were lost.
    pub lost: u64,
    /// How long was watched.
    pub watched: Duration,
}

impl Summary {
    /// Counts an event.
    pub fn count(&mut self, kind: EventKind) {
        *self.by_kind.entry(kind).or_default() += 1;
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.by_kind.values().sum()
    }
}

#[cfg(test)]
mod tests;
