//! Drawing a state. Only what is on the screen is looked at, however many rows there are.

pub mod columns;

mod events;
mod frame;
mod table;
mod text;

#[cfg(test)]
mod tests;

use ratatui::buffer::Buffer;
use ratatui::layout::Position;

use super::layout::SMALLEST;
use super::state::{State, View};

/// Draws `state`. Gives where the cursor is, when something is typed.
pub fn draw(state: &State, buffer: &mut Buffer) -> Option<Position> {
    let area = *buffer.area();
    let Some(layout) = state.layout() else {
        let (width, height) = SMALLEST;
        let lines =
            ["too small for a screen".to_owned(), format!("{width} x {height} at least; q ends")];
        for (y, line) in (area.y..area.bottom()).zip(lines) {
            buffer.set_stringn(
                area.x,
                y,
                line,
                usize::from(area.width),
                ratatui::style::Style::new(),
            );
        }
        return None;
    };
    frame::bar(state, layout.bar, buffer);
    frame::tabs(state, layout.tabs, buffer);
    if let Some(help) = &state.help {
        let place = layout.head.union(layout.main);
        text::pane(state, help, place, buffer);
        return frame::foot(state, layout.foot, buffer);
    }
    match state.view {
        View::Ports => table::draw(state, layout.head, layout.main, buffer),
        View::Path => text::path(state, layout.main, buffer),
        View::Events => events::draw(state, layout.main, buffer),
        View::Sources => text::pane(state, &state.sources, layout.main, buffer),
    }
    if let Some(beside) = layout.beside {
        let line = if state.style.unicode { "│" } else { "|" };
        for y in beside.y..beside.bottom() {
            let look = state.theme.of(super::theme::Role::Border);
            buffer.set_stringn(beside.x.saturating_sub(1), y, line, 1, look);
        }
        text::path(state, beside, buffer);
    }
    frame::foot(state, layout.foot, buffer)
}
