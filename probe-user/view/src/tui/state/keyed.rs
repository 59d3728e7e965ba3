//! What keys and the mouse do.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, MouseButton, MouseEvent, MouseEventKind};

use super::ports::{Column, ON_SCREEN, TableLine};
use super::{Asks, Effect, Input, State, View};
use crate::tui::config::always_quits;
use crate::tui::filter::Filter;
use crate::tui::keys::{KeyAction, KeyContext, KeyPress};
use crate::tui::render::columns;
use whereis_port_model::{Advice, AdvicePart};

/// How many lines the wheel moves.
const WHEEL: isize = 3;
/// The longest line that can be typed.
const LONGEST: usize = 500;

impl State {
    pub(super) fn key(&mut self, key: KeyEvent) -> Vec<Effect> {
        if key.kind == KeyEventKind::Release {
            return Vec::new();
        }
        if self.input.is_some() {
            return self.typed(key);
        }
        if always_quits(key) {
            return vec![Effect::Quit];
        }
        self.message = None;
        let place = if self.help.is_some() {
            KeyContext::Text
        } else {
            match self.view {
                View::Ports => KeyContext::Ports,
                View::Path | View::Sources => KeyContext::Text,
                View::Events => KeyContext::Events,
            }
        };
        match self.config.keys.action(place, KeyPress::of(key)) {
            Some(action) => self.act(action),
            None => Vec::new(),
        }
    }

    fn act(&mut self, action: KeyAction) -> Vec<Effect> {
        let page = isize::try_from(self.height()).unwrap_or(isize::MAX);
        match action {
            KeyAction::Quit if self.help.is_some() => self.help = None,
            KeyAction::Quit => return vec![Effect::Quit],
            KeyAction::Help if self.help.is_some() => self.help = None,
            KeyAction::Help => self.open_help(),
            KeyAction::Suspend => return vec![Effect::Suspend],
            KeyAction::Redraw => return vec![Effect::Redraw],
            KeyAction::Refresh => {
                self.asked = None;
                self.say("reading everything anew".to_owned());
                return vec![Effect::Refresh];
            }
            KeyAction::NextView => self.turn(1),
            KeyAction::PreviousView => self.turn(View::ALL.len() - 1),
            KeyAction::ViewPorts => self.show(View::Ports),
            KeyAction::ViewPath => self.show(View::Path),
            KeyAction::ViewEvents => self.show(View::Events),
            KeyAction::ViewSources => self.show(View::Sources),
            KeyAction::Down => self.step(1),
            KeyAction::Up => self.step(-1),
            KeyAction::PageDown => self.step(page),
            KeyAction::PageUp => self.step(-page),
            KeyAction::Top | KeyAction::TextTop | KeyAction::EventsTop => self.step(isize::MIN / 2),
            KeyAction::Bottom => self.step(isize::MAX / 2),
            KeyAction::Open => self.open(),
            KeyAction::Back => self.back(),
            KeyAction::Filter => self.input(Asks::Filter),
            KeyAction::Command => self.input(Asks::Command),
            KeyAction::NextMatch => self.next_match(true),
            KeyAction::PreviousMatch => self.next_match(false),
            KeyAction::Copy | KeyAction::CopyJson => {
                return self.copy(action == KeyAction::CopyJson);
            }
            KeyAction::CopyFix => return self.copy_fix(),
            KeyAction::Export => {
                let (name, text) = self.exported();
                return vec![Effect::Export { name: format!("whereis-port-{name}"), text }];
            }
            KeyAction::Pause => self.pause(),
            KeyAction::NextHop => self.next_hop(true),
            KeyAction::PreviousHop => self.next_hop(false),
            KeyAction::Evidence => {
                self.evidence = !self.evidence;
                self.path_text();
            }
            KeyAction::History => {
                self.events.history = !self.events.history;
                self.events.back = 0;
            }
            _ => self.table(action),
        }
        Vec::new()
    }

    /// What keys do to the table.
    fn table(&mut self, action: KeyAction) {
        let clock = self.clock;
        let only = &mut self.ports.only;
        match action {
            KeyAction::Group => self.ports.next_group(clock),
            KeyAction::Fold => self.ports.fold(clock),
            KeyAction::FoldAll => self.ports.fold_all(clock),
            KeyAction::Sort => {
                let at = ON_SCREEN.iter().position(|column| *column == self.ports.sort);
                let next = at.map_or(0, |at| (at + 1) % ON_SCREEN.len());
                self.ports.sort = ON_SCREEN.get(next).copied().unwrap_or(Column::Port);
            }
            KeyAction::Reverse => self.ports.descending = !self.ports.descending,
            KeyAction::Tcp => (only.tcp, only.udp) = (!only.tcp, false),
            KeyAction::Udp => (only.tcp, only.udp) = (false, !only.udp),
            KeyAction::Family => {
                only.ipv4 = match only.ipv4 {
                    None => Some(true),
                    Some(true) => Some(false),
                    Some(false) => None,
                }
            }
            KeyAction::Loopback => only.loopback = !only.loopback,
            KeyAction::Containers => only.containers = !only.containers,
            KeyAction::Kernel => only.no_kernel = !only.no_kernel,
            _ => return,
        }
        self.ports.order(clock);
        self.ports.scroll(self.height());
    }

    fn turn(&mut self, by: usize) {
        let at = View::ALL.iter().position(|view| *view == self.view).unwrap_or_default();
        if let Some(view) = View::ALL.get((at + by) % View::ALL.len()) {
            self.show(*view);
        }
    }

    pub(super) fn show(&mut self, view: View) {
        self.help = None;
        self.view = view;
        self.retext();
        self.ports.scroll(self.height());
    }

    fn step(&mut self, by: isize) {
        let height = self.height();
        if let Some(help) = &mut self.help {
            return help.scroll(by, height);
        }
        match self.view {
            View::Ports => {
                self.free = None;
                self.ports.select(self.ports.selected.saturating_add_signed(by));
                self.ports.scroll(height);
            }
            View::Path => self.path.scroll(by, height),
            View::Events => self.events.scroll(by),
            View::Sources => self.sources.scroll(by, height),
        }
    }

    fn open(&mut self) {
        if self.help.take().is_some() {
            return;
        }
        match self.view {
            View::Ports => match self.ports.shown.get(self.ports.selected) {
                Some(TableLine::Group { .. }) => self.ports.fold(self.clock),
                Some(TableLine::Row(_)) => self.show(View::Path),
                None => {}
            },
            View::Path => {
                let Some(anchor) = self.path.selected().cloned() else {
                    let key = self.config.keys.first(KeyAction::NextHop);
                    return self.say(format!("select a hop with {key} first"));
                };
                if self.go_to(anchor.netns, Some(anchor.proto), anchor.port) {
                    self.show(View::Ports);
                } else {
                    self.say(format!("port {} of that hop has no row here", anchor.port));
                }
            }
            View::Events | View::Sources => {}
        }
    }

    fn back(&mut self) {
        if self.help.take().is_some() {
            return;
        }
        match self.view {
            View::Ports if !self.ports.filter.text().is_empty() => {
                self.ports.filter = Filter::default();
                self.ports.order(self.clock);
                self.ports.scroll(self.height());
            }
            View::Ports => self.free = None,
            View::Events if !self.events.filter.is_empty() => {
                self.events.filter = Filter::default();
            }
            View::Path if !self.path.search.is_empty() => self.path.search.clear(),
            View::Sources if !self.sources.search.is_empty() => self.sources.search.clear(),
            View::Path | View::Events | View::Sources => {
                self.free = None;
                self.show(View::Ports);
            }
        }
    }

    fn next_match(&mut self, forward: bool) {
        let height = self.height();
        let pane = match (&mut self.help, self.view) {
            (Some(help), _) => help,
            (None, View::Path) => &mut self.path,
            (None, View::Sources) => &mut self.sources,
            (None, View::Ports) => {
                self.ports.next_change(forward, self.clock.now);
                return self.ports.scroll(height);
            }
            (None, View::Events) => return self.events.scroll(if forward { 1 } else { -1 }),
        };
        if !pane.find(forward, height) && !pane.search.is_empty() {
            let text = format!("nothing more has {:?}", pane.search);
            self.say(text);
        }
    }

    fn next_hop(&mut self, forward: bool) {
        if self.help.is_none() && self.view == View::Path {
            let height = self.height();
            self.path.next_hop(forward, height);
        }
    }

    fn copy(&mut self, json: bool) -> Vec<Effect> {
        let text = match self.view {
            View::Ports => self
                .ports
                .selected()
                .map(|live| if json { live.row.json() } else { live.row.line() }),
            View::Path if json => self.answered.as_ref().map(|answered| {
                let answers = std::slice::from_ref(&answered.answer);
                let document = crate::json::answers(answers, &answered.host, &answered.sources);
                let mut out = Vec::new();
                // Writing to memory can't fail.
                let _ = crate::json::write(&document, &mut out);
                String::from_utf8_lossy(&out).into_owned()
            }),
            View::Path | View::Events | View::Sources => Some(self.exported().1),
        };
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            self.say("there is nothing to copy here".to_owned());
            return Vec::new();
        };
        self.say("copied, if the terminal allows it (OSC 52)".to_owned());
        vec![Effect::Copy(text)]
    }

    /// Copies the first command that the answer on the screen proposes: against what was noticed, or
    /// for who does not reach the port.
    fn copy_fix(&mut self) -> Vec<Effect> {
        let answer =
            self.answered.as_ref().filter(|_| self.view == View::Path && self.help.is_none());
        let answer = answer.map(|answered| &answered.answer);
        let findings = answer.iter().flat_map(|a| &a.findings).filter_map(|f| f.fix.as_ref());
        let reach = answer.iter().flat_map(|a| &a.reach).filter_map(|r| r.fix.as_ref());
        let mut pieces = findings.chain(reach).flat_map(Advice::pieces);
        let command = pieces.find_map(|piece| match piece {
            AdvicePart::Command(command) => crate::shell::line(command),
            _ => None,
        });
        let Some(command) = command else {
            self.say("no command is proposed here".to_owned());
            return Vec::new();
        };
        self.say(format!("copied, if the terminal allows it (OSC 52): {command}"));
        vec![Effect::Copy(command)]
    }

    fn input(&mut self, asks: Asks) {
        let text = match (asks, self.view) {
            (Asks::Command, _) => String::new(),
            (Asks::Filter, _) if self.help.is_some() => String::new(),
            (Asks::Filter, View::Ports) => self.ports.filter.text().to_owned(),
            (Asks::Filter, View::Events) => self.events.filter.text().to_owned(),
            (Asks::Filter, View::Path) => self.path.search.clone(),
            (Asks::Filter, View::Sources) => self.sources.search.clone(),
        };
        self.input = Some(Input { asks, before: text.clone(), text });
    }

    fn typed(&mut self, key: KeyEvent) -> Vec<Effect> {
        use crossterm::event::KeyModifiers;
        let Some(input) = &mut self.input else { return Vec::new() };
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Esc => return self.untyped(),
            KeyCode::Char('c' | 'g') if control => return self.untyped(),
            KeyCode::Enter => {
                let Some(input) = self.input.take() else { return Vec::new() };
                return match input.asks {
                    Asks::Command => self.command(&input.text),
                    Asks::Filter => {
                        self.filter(&input.text, true);
                        Vec::new()
                    }
                };
            }
            KeyCode::Backspace if input.text.is_empty() => return self.untyped(),
            KeyCode::Backspace => {
                input.text.pop();
            }
            KeyCode::Char('u') if control => input.text.clear(),
            KeyCode::Char('w') if control => {
                let kept = input.text.trim_end().rfind(' ').map_or(0, |at| at + 1);
                input.text.truncate(kept);
            }
            KeyCode::Char(c) if !control && input.text.len() < LONGEST => input.text.push(c),
            _ => return Vec::new(),
        }
        if input.asks == Asks::Filter {
            let text = input.text.clone();
            self.filter(&text, false);
        }
        Vec::new()
    }

    /// Gives up what was typed: the filter is what it was before.
    fn untyped(&mut self) -> Vec<Effect> {
        if let Some(input) = self.input.take().filter(|input| input.asks == Asks::Filter) {
            self.filter(&input.before, false);
        }
        Vec::new()
    }

    pub(super) fn paste(&mut self, text: &str) {
        let Some(input) = &mut self.input else { return };
        let line = text.lines().next().unwrap_or_default();
        input.text.extend(line.chars().filter(|c| !c.is_control()).take(LONGEST));
        if input.asks == Asks::Filter {
            let text = input.text.clone();
            self.filter(&text, false);
        }
    }

    /// Filters the view, or searches in its text; `done` goes to the next match.
    pub(super) fn filter(&mut self, text: &str, done: bool) {
        let height = self.height();
        let pane = match (&mut self.help, self.view) {
            (Some(help), _) => help,
            (None, View::Path) => &mut self.path,
            (None, View::Sources) => &mut self.sources,
            (None, View::Ports) => {
                self.ports.filter = Filter::parse(text);
                self.ports.order(self.clock);
                return self.ports.scroll(height);
            }
            (None, View::Events) => {
                self.events.filter = Filter::parse(text);
                self.events.back = 0;
                return;
            }
        };
        pane.search = text.to_lowercase();
        if done {
            self.next_match(true);
        }
    }

    pub(super) fn mouse(&mut self, mouse: MouseEvent) -> Vec<Effect> {
        let Some(layout) = self.layout() else { return Vec::new() };
        let place = ratatui::layout::Position::new(mouse.column, mouse.row);
        match mouse.kind {
            MouseEventKind::ScrollDown | MouseEventKind::ScrollUp => {
                let by = if mouse.kind == MouseEventKind::ScrollDown { WHEEL } else { -WHEEL };
                match layout.beside.filter(|beside| beside.contains(place)) {
                    Some(beside) if self.help.is_none() => {
                        self.path.scroll(by, usize::from(beside.height));
                    }
                    _ => self.step(by),
                }
            }
            MouseEventKind::Down(MouseButton::Left) if self.help.is_some() => self.help = None,
            MouseEventKind::Down(MouseButton::Left) if layout.tabs.contains(place) => {
                if let Some(view) = columns::tab_at(mouse.column) {
                    self.show(view);
                }
            }
            MouseEventKind::Down(MouseButton::Left)
                if self.view == View::Ports && layout.head.contains(place) =>
            {
                let shown = columns::fit(&self.ports.widths, layout.head.width);
                if let Some(column) = columns::at(&shown, mouse.column) {
                    self.ports.descending = self.ports.sort == column && !self.ports.descending;
                    self.ports.sort = column;
                    self.ports.order(self.clock);
                }
            }
            MouseEventKind::Down(MouseButton::Left)
                if self.view == View::Ports && layout.main.contains(place) =>
            {
                let at = self.ports.top + usize::from(mouse.row - layout.main.y);
                if at < self.ports.shown.len() {
                    let again = self.ports.selected == at;
                    self.free = None;
                    self.ports.select(at);
                    if again {
                        self.open();
                    }
                }
            }
            _ => {}
        }
        Vec::new()
    }
}
