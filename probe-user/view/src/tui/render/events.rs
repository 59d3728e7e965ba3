//! The view of events: the stream, or what came and went.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::layout::{pad, pad_left, shorten};
use crate::tui::ansi;
use crate::tui::state::State;
use crate::tui::state::events::Lived;
use crate::tui::theme::Role;

pub(super) fn draw(state: &State, place: Rect, buffer: &mut Buffer) {
    if state.events.history {
        return history(state, place, buffer);
    }
    let page = state.events.page(usize::from(place.height));
    if page.is_empty() {
        let text = if state.mode == crate::tui::state::Mode::Replay {
            "a recorded node: nothing happens on it"
        } else if !state.events.filter.is_empty() && state.events.total() > 0 {
            "no event that happened passes the filter; esc undoes it"
        } else {
            "nothing has happened yet: listens, closes, connects and NAT come here"
        };
        let room = usize::from(place.width) - 1;
        buffer.set_stringn(place.x + 1, place.y, text, room, state.theme.of(Role::Dim));
    }
    for (y, event) in (place.y..place.bottom()).zip(page) {
        let line = ansi::one(event.line.trim_end(), &state.theme);
        buffer.set_line(place.x, y, &line, place.width);
    }
}

/// One line for each listener that came while the screen was open.
fn history(state: &State, place: Rect, buffer: &mut Buffer) {
    let lived = state.events.lived();
    let head = line(state, ["PORT", "CAME", "WENT", "LAST", "SHORTEST", "PROCESS", "CONTAINER"]);
    buffer.set_stringn(
        place.x,
        place.y,
        head,
        usize::from(place.width),
        state.theme.of(Role::Header),
    );
    for (y, lived) in (place.y + 1..place.bottom()).zip(lived.iter().skip(state.events.back)) {
        let Lived { port, process, container, came, went, last, shortest, .. } = lived;
        let time = |time: &Option<u64>| time.map_or_else(|| "-".to_owned(), lasted);
        let cells = [
            format!("{}/{}", port.1, port.0),
            came.to_string(),
            went.to_string(),
            time(last),
            time(shortest),
            state.style.text(process),
            state.style.text(container),
        ];
        let text = line(state, cells.each_ref().map(String::as_str));
        buffer.set_stringn(
            place.x,
            y,
            text,
            usize::from(place.width),
            ratatui::style::Style::new(),
        );
    }
}

fn line(state: &State, cells: [&str; 7]) -> String {
    let widths = [10, 6, 6, 8, 8, 24, 30];
    let mut line = String::new();
    for (at, (cell, width)) in cells.into_iter().zip(widths).enumerate() {
        let cell = shorten(cell, width, state.style.glyphs().ellipsis);
        let cell = if (1..5).contains(&at) { pad_left(&cell, width) } else { pad(&cell, width) };
        line.push(' ');
        line.push_str(&cell);
    }
    line
}

/// A time in nanoseconds, for people.
fn lasted(time: u64) -> String {
    match time {
        0..1_000_000 => "<1ms".to_owned(),
        1_000_000..1_000_000_000 => format!("{}ms", time / 1_000_000),
        _ => crate::tui::state::ports::short_age(time / 1_000_000_000),
    }
}
