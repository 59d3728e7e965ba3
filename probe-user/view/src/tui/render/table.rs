//! The table of ports.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::columns::{self, PlacedColumn};
use crate::layout::{pad, pad_left};
use crate::tui::filter::Life;
use crate::tui::state::State;
use crate::tui::state::ports::{LiveRow, TableLine, cell};
use crate::tui::theme::Role;

pub(super) fn draw(state: &State, head: Rect, main: Rect, buffer: &mut Buffer) {
    let placed = columns::fit(&state.ports.widths, main.width);
    let look = state.theme.of(Role::Header);
    for place in &placed {
        let title = columns::title(place.column, state.style.glyphs().arrow);
        let title = fitted(state, &title, *place);
        let sorted = place.column == state.ports.sort;
        let look =
            if sorted { look.add_modifier(ratatui::style::Modifier::UNDERLINED) } else { look };
        put(buffer, head, *place, head.y, &title, look);
    }
    if state.ports.shown.is_empty() {
        let text = if !state.ports.is_filled() {
            "reading the node"
        } else if state.ports.rows.is_empty() {
            "nothing listens here"
        } else {
            "nothing passes the filter; esc undoes it"
        };
        buffer.set_stringn(
            main.x + 1,
            main.y,
            text,
            usize::from(main.width),
            state.theme.of(Role::Dim),
        );
        return;
    }
    let items = state.ports.shown.iter().enumerate().skip(state.ports.top);
    for (y, (at, item)) in (main.y..main.bottom()).zip(items) {
        let selected = at == state.ports.selected;
        let line = Rect::new(main.x, y, main.width, 1);
        match item {
            TableLine::Group { name, count, folded } => {
                let sign = match (state.style.unicode, folded) {
                    (true, true) => "▸",
                    (true, false) => "▾",
                    (false, true) => "+",
                    (false, false) => "-",
                };
                let rows = if *count == 1 { "row" } else { "rows" };
                let text = format!("{sign} {}  {count} {rows}", state.style.text(name));
                let look = state.theme.of(Role::Group);
                buffer.set_stringn(line.x + 1, y, text, usize::from(line.width) - 1, look);
            }
            TableLine::Row(row) => {
                if let Some(live) = state.ports.rows.get(*row) {
                    draw_row(state, live, &placed, line, buffer);
                }
            }
        }
        if selected {
            buffer.set_style(line, state.theme.of(Role::Selected));
            buffer.set_stringn(line.x, y, ">", 1, state.theme.of(Role::Selected));
        }
    }
}

fn draw_row(
    state: &State,
    live: &LiveRow,
    placed: &[PlacedColumn],
    line: Rect,
    buffer: &mut Buffer,
) {
    let (mark, look) = match live.life(state.clock.now) {
        Life::New => ("+", state.theme.of(Role::New)),
        Life::Gone => ("x", state.theme.of(Role::Gone)),
        Life::Live => (" ", Style::default()),
    };
    buffer.set_stringn(line.x + 1, line.y, mark, 1, look);
    for place in placed {
        let text = cell(live, place.column, state.clock).unwrap_or("-".into());
        let text = fitted(state, &text, *place);
        put(buffer, line, *place, line.y, &text, look);
    }
}

fn fitted(state: &State, text: &str, place: PlacedColumn) -> String {
    let width = usize::from(place.width);
    let text = place.column.fitted(text, width, state.style.glyphs().ellipsis);
    if place.column.is_number() { pad_left(&text, width) } else { pad(&text, width) }
}

fn put(buffer: &mut Buffer, line: Rect, place: PlacedColumn, y: u16, text: &str, look: Style) {
    buffer.set_stringn(line.x + place.x, y, text, usize::from(place.width), look);
}
