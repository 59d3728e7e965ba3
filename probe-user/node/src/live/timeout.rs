//! How long reading may take of what an answer can do without.
//!
//! The sockets of the node, who holds them, and the rules of its own namespaces are read
//! however long that takes. All else is optional: what APIs say, and the rules of other
//! namespaces. Whoever controls those could make reading them take as long as they like, so
//! all of them share one limit. It counts the time that was spent on them, not the time since
//! the start: a big node is no reason to leave them out. Container runtimes have a budget that
//! is a part of it ([`super::asking::DaemonBudget`]): of the machine's own only waiting in vain
//! counts.

use std::cell::Cell;
use std::time::{Duration, Instant};

use whereis_port_model::{Gap, GapSource, Impact};

/// The time for optional reading, of one run.
#[derive(Debug)]
pub(super) struct Timeout {
    limit: Duration,
    spent: Cell<Duration>,
    /// Since when something optional is being read.
    since: Cell<Option<Instant>>,
}

/// While this lives, something optional is being read.
#[derive(Debug)]
pub(super) struct TimedRead<'t> {
    timeout: &'t Timeout,
    /// Whether it is part of another reading, which counts the time.
    inner: bool,
}

impl Timeout {
    /// When nothing is said.
    pub(super) const USUAL: Duration = Duration::from_secs(2);

    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, spent: Cell::new(Duration::ZERO), since: Cell::new(None) }
    }

    /// How much there was at the start.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// How much is left: what one reading may take at most.
    pub(super) fn left(&self) -> Duration {
        let running = self.since.get().map_or(Duration::ZERO, |since| since.elapsed());
        self.limit.saturating_sub(self.spent.get()).saturating_sub(running)
    }

    /// Begins to read something optional; `None` when the time is used up, and then it is
    /// left out, and a gap ([`Timeout::gap`]).
    pub(super) fn begin(&self) -> Option<TimedRead<'_>> {
        if self.left().is_zero() {
            return None;
        }
        let inner = self.since.get().is_some();
        if !inner {
            self.since.set(Some(Instant::now()));
        }
        Some(TimedRead { timeout: self, inner })
    }

    /// Says that something was left out.
    pub(super) fn gap(&self, impact: Impact, source: impl Into<GapSource>) -> Gap {
        let why = format!(
            "not read: what is optional took longer than {} together",
            in_words(self.limit)
        );
        Gap::new(impact, source, why).remedy("give it more time: --timeout 10s")
    }
}

impl Default for Timeout {
    fn default() -> Self {
        Self::new(Self::USUAL)
    }
}

impl Drop for TimedRead<'_> {
    fn drop(&mut self) {
        if let (false, Some(since)) = (self.inner, self.timeout.since.take()) {
            self.timeout.spent.set(self.timeout.spent.get().saturating_add(since.elapsed()));
        }
    }
}

fn in_words(time: Duration) -> String {
    match time.as_millis() {
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_readings_does_not_count() {
        let timeout = Timeout::new(Duration::from_secs(1000));
        drop(timeout.begin());
        let spent = timeout.spent.get();
        assert!(timeout.since.get().is_none());
        assert_eq!(timeout.left(), Duration::from_secs(1000) - spent);
    }

    #[test]
    fn a_reading_within_another_counts_once() {
        let timeout = Timeout::new(Duration::from_secs(1000));
        let outer = timeout.begin();
        drop(timeout.begin());
        assert_eq!(timeout.spent.get(), Duration::ZERO);
        drop(outer);
        assert!(timeout.since.get().is_none());
    }

    #[test]
    fn when_it_is_used_up_nothing_more_is_begun_and_that_is_said() {
        let timeout = Timeout::new(Duration::ZERO);
        assert!(timeout.begin().is_none());
        let gap = timeout.gap(Impact::Name, whereis_port_model::GapKind::Runtime);
        assert!(gap.reason.contains("0 s") && gap.remedy.is_some_and(|r| r.contains("--timeout")));
        assert_eq!(in_words(Duration::from_millis(1500)), "1500 ms");
    }
}
