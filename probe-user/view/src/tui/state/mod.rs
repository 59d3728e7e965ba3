//! What is on the screen, and how it changes. Pure: messages in, effects out; the time
//! comes with the messages.

pub mod events;
pub mod pane;
pub mod ports;

mod command;
mod keyed;
mod text;

#[cfg(test)]
mod tests;

use crossterm::event::{KeyEvent, MouseEvent};

use super::config::Config;
use super::layout::ScreenLayout;
use super::row::RowKey;
use super::theme::{Depth, Theme};
use crate::style::Style;
use events::{EventRow, EventsView};
use pane::Pane;
use ports::{Clock, Delta, PortsView};
use whereis_port_model::{Answer, Gap, Host, NetnsId, Port, Proto, SourceReport};

/// How long after the selection has moved its path is asked for: a key that is held
/// down asks once.
const SETTLE: u64 = 150;
/// After how long a path that is on the screen is read anew.
const STALE: u64 = 10_000;
/// For how long a message is shown.
const MESSAGE: u64 = 5_000;

/// The views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The table of ports.
    Ports,
    /// The path of one port.
    Path,
    /// What happens.
    Events,
    /// What is read, and what is missing.
    Sources,
}

impl View {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Ports, Self::Path, Self::Events, Self::Sources];

    /// Its name.
    pub fn title(self) -> &'static str {
        match self {
            Self::Ports => "Ports",
            Self::Path => "Path",
            Self::Events => "Events",
            Self::Sources => "Sources",
        }
    }
}

/// A question that the screen asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The port.
    pub port: Port,
    /// The protocol; `None` for both.
    pub proto: Option<Proto>,
    /// The row that it is about; `None` for every path of the port.
    pub row: Option<RowKey>,
}

/// The answer to a question.
#[derive(Debug)]
pub struct Answered {
    /// The question.
    pub question: Question,
    /// The answer.
    pub answer: Answer,
    /// The node when it was asked.
    pub host: Host,
    /// What was read for it.
    pub sources: Vec<SourceReport>,
}

/// What a reading of the node told, beside its rows.
#[derive(Debug, Clone, Default)]
pub struct Readout {
    /// The node.
    pub host: Option<Host>,
    /// How many network namespaces there are.
    pub netns: usize,
    /// What could not be read.
    pub gaps: Vec<Gap>,
    /// What was read, and how long that took.
    pub sources: Vec<SourceReport>,
    /// How long the whole reading took, in milliseconds.
    pub ms: f64,
    /// Whether all of the node was read, not only ports that have changed.
    pub whole: bool,
    /// Whether it was looked for changes, and only they were read.
    pub looked: bool,
}

/// How the node is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Programs in the kernel tell what happens.
    Ebpf,
    /// Readings are compared.
    Snapshots,
    /// The same, by somebody who can't read everything.
    Unprivileged,
    /// A recorded node, which does not change.
    Replay,
}

impl Mode {
    /// Its name on the screen.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ebpf => "eBPF",
            Self::Snapshots => "snapshots",
            Self::Unprivileged => "unprivileged",
            Self::Replay => "replay",
        }
    }
}

/// What happens to the screen.
#[derive(Debug)]
pub enum Message {
    /// A key was pressed.
    Key(KeyEvent),
    /// Text was pasted.
    Paste(String),
    /// The mouse did something.
    Mouse(MouseEvent),
    /// The terminal has another size.
    Resize(u16, u16),
    /// Time has passed.
    Tick,
    /// Rows have changed.
    Rows(Delta, Box<Readout>),
    /// A reading failed.
    Failed(String),
    /// A question was answered.
    Answer(Box<Answered>),
    /// Things have happened.
    Events(Vec<EventRow>),
    /// How many events were lost so far, and how the node is followed.
    Watching {
        /// How many events were lost so far.
        lost: u64,
        /// How the node is followed.
        mode: Mode,
        /// What can't be watched.
        gaps: Vec<Gap>,
        /// What is watched.
        sources: Vec<SourceReport>,
    },
    /// How Kubernetes APIs are watched.
    Kube(Box<SourceReport>),
    /// Something to say.
    Say(String),
}

/// What the screen wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// An answer.
    Ask(Question),
    /// Everything read anew.
    Refresh,
    /// Text in the clipboard.
    Copy(String),
    /// Text in a file of this name.
    Export {
        /// The file's name.
        name: String,
        /// What is to be in it.
        text: String,
    },
    /// The screen drawn from nothing.
    Redraw,
    /// The program stopped, until it is continued.
    Suspend,
    /// The end.
    Quit,
}

/// A line that is being typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What it is for.
    pub asks: Asks,
    /// What was typed.
    pub text: String,
    /// What was there before, for Esc.
    before: String,
}

/// What a line is typed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// A filter, or a search in text.
    Filter,
    /// A command.
    Command,
}

/// What is on the screen.
#[derive(Debug)]
pub struct State {
    /// The settings.
    pub config: Config,
    /// Colours, as the terminal has them.
    pub theme: Theme,
    /// How texts are made: whether beyond ASCII.
    pub style: Style,
    /// Columns and lines of the terminal.
    pub size: (u16, u16),
    /// The time.
    pub clock: Clock,
    /// Which view is shown.
    pub view: View,
    /// The table.
    pub ports: PortsView,
    /// The path.
    pub path: Pane,
    /// What happens.
    pub events: EventsView,
    /// The sources.
    pub sources: Pane,
    /// The help, when it is shown.
    pub help: Option<Pane>,
    /// The line that is being typed.
    pub input: Option<Input>,
    /// Something to say, and until when.
    pub message: Option<(String, u64)>,
    /// Whether changes are held back.
    pub paused: bool,
    /// Whether a path is shown with all of its evidence.
    pub evidence: bool,
    /// How the node is followed.
    pub mode: Mode,
    /// What the last reading told.
    pub readout: Readout,
    /// How many whole readings there were.
    pub readings: u64,
    /// How many looks for changes there were, and how long the last took, in milliseconds.
    pub looks: (u64, f64),
    /// What watching tells of itself.
    pub watching: (Vec<Gap>, Vec<SourceReport>),
    /// How Kubernetes APIs are watched, if they are.
    pub kube: Option<Box<SourceReport>>,
    /// The answer that is shown.
    pub answered: Option<Box<Answered>>,
    /// What was asked last, and when.
    asked: Option<(Question, u64)>,
    /// Whether an answer is still to come.
    pub waiting: bool,
    /// Since when the selection is as it is, and of which row.
    settled: (Option<RowKey>, u64),
    /// A port that a command asked for, whatever is selected.
    free: Option<Question>,
    /// What has changed since changes are held back.
    held: Option<Delta>,
}

impl State {
    /// A screen on which nothing is yet.
    pub fn new(config: Config, depth: Depth, unicode: bool, size: (u16, u16)) -> Self {
        let unicode = config.ascii.map_or(unicode, |ascii| !ascii);
        Self {
            theme: config.theme.clone().at(depth),
            style: Style { color: true, unicode, ..Style::PLAIN },
            config,
            size,
            clock: Clock::default(),
            view: View::Ports,
            ports: PortsView::default(),
            path: Pane::default(),
            events: EventsView::default(),
            sources: Pane::default(),
            help: None,
            input: None,
            message: None,
            paused: false,
            evidence: false,
            mode: Mode::Snapshots,
            readout: Readout::default(),
            readings: 0,
            looks: (0, 0.0),
            watching: (Vec::new(), Vec::new()),
            kube: None,
            answered: None,
            asked: None,
            waiting: false,
            settled: (None, 0),
            free: None,
            held: None,
        }
    }

    /// Takes in what has happened, at a time, and says what is to be done.
    pub fn update(&mut self, message: Message, clock: Clock) -> Vec<Effect> {
        self.clock = clock;
        let mut effects = match message {
            Message::Key(key) => self.key(key),
            Message::Paste(text) => {
                self.paste(&text);
                Vec::new()
            }
            Message::Mouse(mouse) => self.mouse(mouse),
            Message::Resize(width, height) => {
                self.size = (width, height);
                self.retext();
                Vec::new()
            }
            Message::Tick => {
                self.tick();
                Vec::new()
            }
            Message::Rows(delta, readout) => {
                self.rows(delta, *readout);
                Vec::new()
            }
            Message::Failed(why) => {
                // What failed may have been the answer: it is asked for again later.
                self.waiting = false;
                self.say(why);
                Vec::new()
            }
            Message::Answer(answered) => {
                self.answer(answered);
                Vec::new()
            }
            Message::Events(events) => {
                self.events.add(events);
                Vec::new()
            }
            Message::Watching { lost, mode, gaps, sources } => {
                self.events.lost = lost;
                self.mode = mode;
                self.watching = (gaps, sources);
                self.sources_text();
                Vec::new()
            }
            Message::Kube(report) => {
                self.kube = Some(report);
                if self.view == View::Sources {
                    self.sources_text();
                }
                Vec::new()
            }
            Message::Say(text) => {
                self.say(text);
                Vec::new()
            }
        };
        effects.extend(self.wanted());
        effects
    }

    /// Where the parts of the screen are. `None` when it is too small.
    pub fn layout(&self) -> Option<ScreenLayout> {
        ScreenLayout::of(self.size, self.view, self.config.wide)
    }

    /// How many lines the view has.
    fn height(&self) -> usize {
        self.layout().map_or(1, |layout| usize::from(layout.main.height))
    }

    /// How many lines and columns the path has.
    fn path_size(&self) -> Option<(usize, usize)> {
        let layout = self.layout()?;
        let place = match self.view {
            View::Path => layout.main,
            View::Ports => layout.beside?,
            View::Events | View::Sources => return None,
        };
        Some((usize::from(place.width), usize::from(place.height)))
    }

    fn say(&mut self, text: String) {
        self.message = Some((text, self.clock.now + MESSAGE));
    }

    fn tick(&mut self) {
        let keep = self.config.keep_gone.saturating_mul(1000);
        if !self.paused {
            let expired = self.ports.expire(self.clock, keep);
            // Rows stop being new without anything happening to them.
            if !expired && self.ports.filter.text().contains("state:") {
                self.ports.order(self.clock);
            }
        }
        if self.message.as_ref().is_some_and(|(_, until)| self.clock.now >= *until) {
            self.message = None;
        }
    }

    fn rows(&mut self, delta: Delta, readout: Readout) {
        self.readings += u64::from(readout.whole);
        if readout.looked {
            self.looks = (self.looks.0 + 1, readout.ms);
            self.sources_text();
        }
        // A reading of some ports tells nothing of the rest.
        if readout.whole || self.readout.host.is_none() {
            self.readout = readout;
            self.sources_text();
        }
        if self.paused {
            self.held.get_or_insert_default().add(delta, |key| self.ports.has(key));
        } else if !delta.put.is_empty() || !delta.gone.is_empty() || !self.ports.is_filled() {
            self.ports.apply(delta, self.clock);
        }
        // What is shown of a port may have changed with it.
        self.ports.scroll(self.height());
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        self.events.pause(self.paused);
        if !self.paused
            && let Some(delta) = self.held.take()
        {
            self.ports.apply(delta, self.clock);
        }
    }

    /// The question whose answer is to be on the screen.
    fn wanted(&mut self) -> Option<Effect> {
        let key = self.ports.selected().map(|live| live.row.key.clone());
        if key != self.settled.0 {
            self.settled = (key.clone(), self.clock.now);
        }
        self.path_size()?;
        let of_row =
            |key: RowKey| Question { port: key.port, proto: Some(key.proto), row: Some(key) };
        let question = self.free.clone().or_else(|| key.map(of_row))?;
        let fresh = match &self.asked {
            Some((asked, at)) if *asked == question => {
                let age = self.clock.now.saturating_sub(*at);
                self.waiting || self.paused || self.mode == Mode::Replay || age < STALE
            }
            _ => false,
        };
        // The view of one path is asked for at once; beside the table one that stays.
        let settled = self.view == View::Path
            || self.clock.now.saturating_sub(self.settled.1) >= SETTLE
            || self.asked.is_none();
        if fresh || !settled {
            return None;
        }
        if self.asked.as_ref().is_none_or(|(asked, _)| *asked != question) {
            self.path.rewind();
        }
        self.asked = Some((question.clone(), self.clock.now));
        self.waiting = true;
        Some(Effect::Ask(question))
    }

    fn answer(&mut self, answered: Box<Answered>) {
        // An answer to what is not asked any more says nothing about what is.
        if self.asked.as_ref().is_some_and(|(asked, _)| *asked == answered.question) {
            self.waiting = false;
            self.answered = Some(answered);
            self.path_text();
        }
    }

    /// Goes to the row of a port in a namespace. Whether there is one.
    fn go_to(&mut self, netns: Option<NetnsId>, proto: Option<Proto>, port: Port) -> bool {
        let fits = |row: &super::row::Row| {
            row.key.port == port
                && proto.is_none_or(|proto| proto == row.key.proto)
                && netns.is_none_or(|netns| netns == row.key.netns)
        };
        let mut found = self.ports.select_row(fits);
        if !found && self.ports.rows.iter().any(|live| fits(&live.row)) {
            // It is there, and only not shown.
            self.ports.filter = super::filter::Filter::default();
            self.ports.only = ports::QuickFilter::default();
            self.ports.group = None;
            self.ports.order(self.clock);
            found = self.ports.select_row(fits);
        }
        if found {
            self.free = None;
            self.ports.scroll(self.height());
        }
        found
    }
}
