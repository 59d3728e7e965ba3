//! Views of text.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;

use crate::tui::state::State;
use crate::tui::state::pane::Pane;
use crate::tui::theme::Role;

/// The path, or why there is none yet.
pub(super) fn path(state: &State, place: Rect, buffer: &mut Buffer) {
    if state.answered.is_none() {
        let text = if state.waiting { "following it" } else { "no port is selected" };
        let look = state.theme.of(Role::Dim);
        buffer.set_stringn(place.x + 1, place.y, text, usize::from(place.width) - 1, look);
        return;
    }
    pane(state, &state.path, place, buffer);
}

/// Lines of text from the first one that is on the screen.
pub(super) fn pane(state: &State, pane: &Pane, place: Rect, buffer: &mut Buffer) {
    let hop = pane.selected().map(|anchor| anchor.line);
    let lines = pane.lines.iter().enumerate().skip(pane.top);
    for (y, (at, line)) in (place.y..place.bottom()).zip(lines) {
        buffer.set_line(place.x, y, line, place.width);
        let whole = Rect::new(place.x, y, place.width, 1);
        if hop == Some(at) {
            buffer.set_style(whole, state.theme.of(Role::Selected));
        } else if pane.matches(line) {
            buffer
                .set_style(whole, ratatui::style::Style::new().add_modifier(Modifier::UNDERLINED));
        }
    }
    // What is below the screen is said at its last line.
    let below = pane.lines.len().saturating_sub(pane.top + usize::from(place.height));
    if below > 0 && place.height > 1 {
        let text = format!(" {below} more ");
        let x = place.right().saturating_sub(u16::try_from(text.len()).unwrap_or(u16::MAX));
        buffer.set_string(x.max(place.x), place.bottom() - 1, text, state.theme.of(Role::Bar));
    }
}
