//! The view of events: a stream that can be filtered and paused, and what came and went.

use std::collections::{HashMap, VecDeque};

use crate::tui::ansi::plain;
use crate::tui::filter::Filter;
use whereis_port_model::{EventKind, NetnsId, Port, Proto};

/// How many events are kept.
const KEPT: usize = 5_000;
/// How many listeners the history has at most.
const REMEMBERED: usize = 2_000;

/// An event as the screen shows it. All text in it is safe to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// When: nanoseconds since the epoch.
    pub at: u64,
    /// What.
    pub kind: EventKind,
    /// The protocol.
    pub proto: Proto,
    /// The socket's namespace.
    pub netns: Option<NetnsId>,
    /// Its port.
    pub port: Option<Port>,
    /// The process that did it.
    pub process: String,
    /// Its container.
    pub container: String,
    /// The socket's inode.
    pub inode: Option<u64>,
    /// The whole line, as `whereis-port trace` has it, with the inks of its parts.
    pub line: String,
}

/// A listener that came, by what it is, and how often it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lived {
    /// Protocol and port.
    pub port: (Proto, Port),
    /// The process.
    pub process: String,
    /// Its container.
    pub container: String,
    /// How often it came.
    pub came: u64,
    /// How often it went.
    pub went: u64,
    /// How long it lived last, in nanoseconds.
    pub last: Option<u64>,
    /// The shortest of all.
    pub shortest: Option<u64>,
    /// When something happened last: nanoseconds since the epoch.
    pub at: u64,
}

/// What tells a listener that is open from any other: its namespace, protocol, port and
/// inode.
type ListenerId = (Option<NetnsId>, Proto, Option<Port>, Option<u64>);

/// The view of events, with all that it keeps.
#[derive(Debug, Default)]
pub struct EventsView {
    all: VecDeque<EventRow>,
    /// How many there were before those that are kept.
    dropped: u64,
    /// How many were lost in the kernel.
    pub lost: u64,
    /// What is wanted.
    pub filter: Filter,
    /// How many lines from the newest one the last on the screen is. 0 follows.
    pub back: usize,
    /// Up to which event is shown while it is paused.
    pub paused: Option<u64>,
    /// Whether the history is shown instead of the stream.
    pub history: bool,
    lived: Vec<Lived>,
    by: HashMap<(Proto, Port, String, String), usize>,
    open: HashMap<ListenerId, (usize, u64)>,
}

impl EventsView {
    /// Takes in what has happened.
    pub fn add(&mut self, events: Vec<EventRow>) {
        for event in events {
            self.remember(&event);
            let wanted = self.filter.passes_line(&plain(&event.line));
            self.all.push_back(event);
            // What is looked at stays where it is.
            if self.back > 0 && wanted && self.paused.is_none() {
                self.back += 1;
            }
        }
        while self.all.len() > KEPT {
            self.all.pop_front();
            self.dropped += 1;
        }
    }

    /// How many there have been.
    pub fn total(&self) -> u64 {
        self.dropped + self.all.len() as u64
    }

    /// Pauses at what is there now, or goes on.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused.then(|| self.total());
    }

    /// The last `height` events that are wanted and on the screen, oldest first.
    pub fn page(&self, height: usize) -> Vec<&EventRow> {
        let upto = self.paused.map_or(self.all.len(), |total| {
            usize::try_from(total.saturating_sub(self.dropped)).unwrap_or(usize::MAX)
        });
        let wanted = |event: &&EventRow| {
            self.filter.is_empty() || self.filter.passes_line(&plain(&event.line))
        };
        let kept = self.all.iter().take(upto).rev().filter(wanted);
        let mut page: Vec<&EventRow> = kept.skip(self.back).take(height).collect();
        page.reverse();
        page
    }

    /// Moves by some lines; positive is to newer ones.
    pub fn scroll(&mut self, by: isize) {
        self.back = self.back.saturating_add_signed(-by).min(self.all.len().saturating_sub(1));
    }

    /// What came and went, the latest first.
    pub fn lived(&self) -> Vec<&Lived> {
        let mut lived: Vec<&Lived> = self
            .lived
            .iter()
            .filter(|lived| {
                let line = format!(
                    "{}/{} {} {}",
                    lived.port.1, lived.port.0, lived.process, lived.container
                );
                self.filter.is_empty() || self.filter.passes_line(&line)
            })
            .collect();
        lived.sort_by_key(|lived| std::cmp::Reverse(lived.at));
        lived
    }

    fn remember(&mut self, event: &EventRow) {
        let place = (event.netns, event.proto, event.port, event.inode);
        match (event.kind, event.port) {
            (EventKind::Listen | EventKind::Bind, Some(port)) => {
                let name = (event.proto, port, event.process.clone(), event.container.clone());
                let at = match self.by.get(&name) {
                    Some(at) => *at,
                    None if self.lived.len() >= REMEMBERED => return,
                    None => {
                        self.by.insert(name, self.lived.len());
                        self.lived.push(Lived {
                            port: (event.proto, port),
                            process: event.process.clone(),
                            container: event.container.clone(),
                            came: 0,
                            went: 0,
                            last: None,
                            shortest: None,
                            at: event.at,
                        });
                        self.lived.len() - 1
                    }
                };
                if let Some(lived) = self.lived.get_mut(at) {
                    lived.came += 1;
                    lived.at = event.at;
                }
                self.open.insert(place, (at, event.at));
            }
            (EventKind::Close, _) => {
                let Some((at, since)) = self.open.remove(&place) else { return };
                if let Some(lived) = self.lived.get_mut(at) {
                    let time = event.at.saturating_sub(since);
                    lived.went += 1;
                    lived.last = Some(time);
                    lived.shortest = Some(lived.shortest.map_or(time, |least| least.min(time)));
                    lived.at = event.at;
                }
            }
            _ => {}
        }
    }
}
