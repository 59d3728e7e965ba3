//! The texts of the screen, made anew when what they say or their width changes.

use ratatui::text::{Line, Span};

use super::pane::Anchor;
use super::{Answered, State, View};
use crate::style::{Ink, Style};
use crate::tui::ansi;
use crate::tui::keys::{KeyAction, KeyContext};
use crate::tui::theme::Role;
use crate::{doctor, text, words};
use whereis_port_model::SourceReport;

impl State {
    /// Makes all texts anew, for another width.
    pub(super) fn retext(&mut self) {
        self.path_text();
        self.sources_text();
        if self.help.is_some() {
            self.open_help();
        }
    }

    /// The style of a text that is `width` columns wide.
    fn style_of(&self, width: usize) -> Style {
        Style { width: Some(width), ..self.style }
    }

    /// The text of the path that is shown.
    pub(super) fn path_text(&mut self) {
        let Some((width, _)) = self.path_size() else { return };
        let Some(answered) = &self.answered else { return };
        let style = self.style_of(width);
        let Answered { answer, host, .. } = &**answered;
        let answers = std::slice::from_ref(answer);
        let detail = if self.evidence { text::Detail::Verbose } else { text::Detail::Usual };
        let text = text::answers(answers, host, &style, detail, &[]);
        let text = ansi::folded(&text, width);
        let anchors = anchors(answered, &text, &style);
        self.path.set(ansi::lines(&text, &self.theme), anchors);
    }

    /// The text of the view of sources.
    pub(super) fn sources_text(&mut self) {
        let Some(host) = &self.readout.host else { return };
        let style = self.style_of(usize::from(self.size.0));
        let mut sources: Vec<SourceReport> = doctor::judged(host, self.readout.sources.clone());
        sources.extend(self.watching.1.iter().chain(self.kube.as_deref()).cloned());
        let looks = match self.looks {
            (0, _) => String::new(),
            (looks, ms) => format!("  {looks} looks for changes; the last took {ms:.0} ms\n"),
        };
        let mut text = format!(
            "{}\n  {} readings of the whole node; the last took {:.0} ms for {} ports in {} namespaces\n{looks}  {} events, {} lost\n\n",
            style.paint(Ink::Strong, "reading"),
            self.readings,
            self.readout.ms,
            self.ports.count(),
            self.readout.netns,
            self.events.total(),
            self.events.lost,
        );
        text.push_str(&doctor::report(host, &sources, &style));
        for gap in self.readout.gaps.iter().chain(&self.watching.0) {
            text.push_str(&crate::trace::gap(gap, &style));
        }
        let text = ansi::folded(&text, usize::from(self.size.0));
        self.sources.set(ansi::lines(&text, &self.theme), Vec::new());
    }

    /// Shows the help, made from the keys that are bound.
    pub(super) fn open_help(&mut self) {
        let top = self.help.as_ref().map_or(0, |pane| pane.top);
        let mut lines = Vec::new();
        for place in KeyContext::ALL {
            if !lines.is_empty() {
                lines.push(Line::default());
            }
            lines.push(Line::from(Span::styled(place.title(), self.theme.of(Role::Strong))));
            for action in KeyAction::ALL.iter().filter(|action| action.place() == place) {
                let keys = format!("  {:<18}", self.config.keys.shown(*action));
                lines.push(Line::from(vec![
                    Span::styled(keys, self.theme.of(Role::Label)),
                    Span::raw(action.about()),
                ]));
            }
        }
        lines.push(Line::default());
        for (head, about) in HELP {
            lines.push(Line::from(vec![
                Span::styled(format!("  {head:<18}"), self.theme.of(Role::Label)),
                Span::raw(about),
            ]));
        }
        let mut pane = super::pane::Pane::default();
        pane.set(lines, Vec::new());
        pane.top = top;
        self.help = Some(pane);
    }

    /// What the screen answers, as text for a file, and the file's name.
    pub(super) fn exported(&self) -> (String, String) {
        let plain = Style::PLAIN;
        match self.view {
            View::Path => {
                let Some(answered) = &self.answered else {
                    return ("path.txt".to_owned(), String::new());
                };
                let answer = std::slice::from_ref(&answered.answer);
                let text = text::answers(
                    answer,
                    &answered.host,
                    &plain,
                    text::Detail::Verbose,
                    &answered.sources,
                );
                let question = &answered.question;
                let proto = question.proto.map(|proto| format!("-{proto}")).unwrap_or_default();
                (format!("{}{proto}.txt", question.port), text)
            }
            View::Ports => {
                let rows = self.ports.shown.iter().filter_map(|item| match item {
                    super::ports::TableLine::Row(at) => self.ports.rows.get(*at),
                    super::ports::TableLine::Group { .. } => None,
                });
                ("ports.txt".to_owned(), rows.map(|live| live.row.line() + "\n").collect())
            }
            View::Events => {
                let page = self.events.page(usize::MAX);
                let lines = page.iter().map(|event| ansi::plain(&event.line) + "\n");
                ("events.txt".to_owned(), lines.collect())
            }
            View::Sources => {
                let lines = self.sources.lines.iter();
                ("sources.txt".to_owned(), lines.map(|line| format!("{line}\n")).collect())
            }
        }
    }
}

/// What the help says beside the keys.
const HELP: [(&str, &str); 7] = [
    ("filter words", "any cell has them: kapi finds kube-apiserver; -word leaves it out"),
    (
        "filter terms",
        "port:6443 port:8000-8010 proto:udp ip:6 netns: process: pid: user: container:",
    ),
    ("", "pod: cluster: service: target: kind:listener|published|NodePort state:new|live|gone"),
    (":port N", "go to a port; one that has no row is asked for all the same"),
    (
        ":netns NAME",
        "only this namespace; :filter, :sort COLUMN[:desc], :group, :export FILE, :quit",
    ),
    (
        "marks",
        "+ new, x gone, > selected; the age of what was there before is at most its process's",
    ),
    ("mouse", "click selects, again opens; a column's name sorts; the wheel scrolls"),
];

/// Which lines of a text are about which hop.
fn anchors(answered: &Answered, text: &str, style: &Style) -> Vec<Anchor> {
    let plain: Vec<String> = text.lines().map(ansi::plain).collect();
    let mut anchors: Vec<Anchor> = Vec::new();
    for hop in answered.answer.paths.iter().flat_map(|path| &path.hops) {
        let Some(port) = hop.endpoint.port else { continue };
        let (endpoint, kind) = (style.endpoint(&hop.endpoint), words::hop(hop.kind));
        let is_it = |line: &String| {
            let place = line.find(&endpoint);
            // Further digits would be another port's.
            let ends = place.and_then(|at| line.get(at + endpoint.len()..)).is_some_and(|rest| {
                !rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains(kind)
            });
            let before = place.and_then(|at| line.get(..at)).unwrap_or_default();
            ends && !before.ends_with(|c: char| c.is_ascii_hexdigit() || c == '.')
        };
        let taken = |at: &usize| anchors.iter().any(|anchor| anchor.line == *at);
        let found = plain.iter().enumerate().filter(|(_, line)| is_it(line)).map(|(at, _)| at);
        if let Some(line) = found.into_iter().find(|at| !taken(at)) {
            let netns = hop.netns.as_ref().map(|netns| netns.id);
            anchors.push(Anchor { line, netns, proto: hop.proto, port });
        }
    }
    anchors.sort_by_key(|anchor| anchor.line);
    anchors
}
