//! Text that is scrolled and searched: a path, the sources, the help.

use ratatui::text::Line;

use crate::tui::filter::contains;
use whereis_port_model::{NetnsId, Port, Proto};

/// A line that is about a hop, and the port that the hop is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The line, from 0.
    pub line: usize,
    /// The namespace of the hop.
    pub netns: Option<NetnsId>,
    /// Its protocol.
    pub proto: Proto,
    /// Its port.
    pub port: Port,
}

/// Text in a part of the screen.
#[derive(Debug, Default)]
pub struct Pane {
    /// What is shown.
    pub lines: Vec<Line<'static>>,
    /// The first line on the screen.
    pub top: usize,
    /// The hops in it.
    pub anchors: Vec<Anchor>,
    /// Which of `anchors` is selected.
    pub hop: Option<usize>,
    /// What is searched for, in lower case.
    pub search: String,
}

impl Pane {
    /// Shows other lines. The place on the screen stays where it can.
    pub fn set(&mut self, lines: Vec<Line<'static>>, anchors: Vec<Anchor>) {
        self.hop = self.hop.filter(|hop| *hop < anchors.len());
        self.lines = lines;
        self.anchors = anchors;
        self.top = self.top.min(self.lines.len().saturating_sub(1));
    }

    /// Begins at the top again, with no hop selected.
    pub fn rewind(&mut self) {
        self.top = 0;
        self.hop = None;
    }

    /// Moves by some lines.
    pub fn scroll(&mut self, by: isize, height: usize) {
        let most = self.lines.len().saturating_sub(height);
        self.top = self.top.saturating_add_signed(by).min(most);
    }

    /// Selects the next hop, or the one before, and shows it.
    pub fn next_hop(&mut self, forward: bool, height: usize) {
        let Some(last) = self.anchors.len().checked_sub(1) else { return };
        let hop = match (self.hop, forward) {
            (None, true) => 0,
            (None, false) => last,
            (Some(hop), true) => (hop + 1).min(last),
            (Some(hop), false) => hop.saturating_sub(1),
        };
        self.hop = Some(hop);
        if let Some(anchor) = self.anchors.get(hop) {
            self.show(anchor.line, height);
        }
    }

    /// The hop that is selected.
    pub fn selected(&self) -> Option<&Anchor> {
        self.anchors.get(self.hop?)
    }

    /// Goes to the next line (or the one before) that has what is searched for. Whether
    /// there is one.
    pub fn find(&mut self, forward: bool, height: usize) -> bool {
        if self.search.is_empty() {
            return false;
        }
        let count = self.lines.len();
        let has = |at: &usize| self.lines.get(*at).is_some_and(|line| self.matches(line));
        let found = if forward {
            (1..=count).map(|step| (self.top + step) % count.max(1)).find(has)
        } else {
            (1..=count).map(|step| (self.top + count - step) % count.max(1)).find(has)
        };
        // A search goes by what is at the top, so that the next one goes on from there.
        if let Some(line) = found {
            self.top = line.min(count.saturating_sub(height.min(count)).max(line));
        }
        found.is_some()
    }

    /// Whether a line has what is searched for.
    pub fn matches(&self, line: &Line<'_>) -> bool {
        let text: String = line.spans.iter().map(|span| &*span.content).collect();
        !self.search.is_empty() && contains(&text, &self.search)
    }

    fn show(&mut self, line: usize, height: usize) {
        if line < self.top || line >= self.top + height.max(1) {
            self.top = line.saturating_sub(height / 3);
        }
    }
}
