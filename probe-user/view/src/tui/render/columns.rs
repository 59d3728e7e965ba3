//! Which columns a table of some width has, and where.

use crate::list::columns::ScreenColumn;
use crate::tui::state::View;
use crate::tui::state::ports::{Column, ON_SCREEN};

/// What precedes the columns: the selection and the mark of a row.
pub(super) const MARKS: u16 = 3;

/// A column on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedColumn {
    /// Which.
    pub column: Column,
    /// Where it begins.
    pub x: u16,
    /// How wide it is.
    pub width: u16,
}

/// The columns that fit into `total`, of which `widest` says how wide the widest cell is.
/// One in which nothing is has no place.
pub fn fit(widest: &[u16; ON_SCREEN.len()], total: u16) -> Vec<PlacedColumn> {
    let gap = if total < 100 { 1 } else { 2 };
    // In the order of what a reader needs first.
    let mut needed: Vec<(Column, ScreenColumn)> =
        ON_SCREEN.into_iter().filter_map(|column| Some((column, column.on_screen()?))).collect();
    needed.sort_by_key(|(_, screen)| screen.need);
    let widest = |column: Column| {
        let at = ON_SCREEN.iter().position(|known| *known == column);
        at.and_then(|at| widest.get(at)).copied().unwrap_or_default()
    };
    let always =
        |column| matches!(column, Column::Port | Column::Proto | Column::Address | Column::Process);
    let mut room = total.saturating_sub(MARKS);
    let mut chosen: Vec<(Column, u16)> = Vec::new();
    for (column, ScreenColumn { narrowest, .. }) in needed.iter().copied() {
        if widest(column) == 0 && !always(column) {
            continue;
        }
        let natural = widest(column).max(title_width(column));
        let width = narrowest.min(natural);
        let needs = width + if chosen.is_empty() { 0 } else { gap };
        if needs <= room {
            room -= needs;
            chosen.push((column, width));
        }
    }
    // What is left goes first to what readers look at, then to those that miss most.
    let enough = needed.iter().filter(|(_, screen)| screen.enough > 0);
    for (column, ScreenColumn { enough, .. }) in enough.copied() {
        if let Some(chosen) = chosen.iter_mut().find(|(known, _)| *known == column) {
            let more = enough.min(widest(column)).saturating_sub(chosen.1).min(room);
            chosen.1 += more;
            room -= more;
        }
    }
    while room > 0 {
        let missing = |(column, width): &(Column, u16)| widest(*column).saturating_sub(*width);
        let Some(most) = chosen.iter_mut().max_by_key(|column| missing(column)) else { break };
        if missing(most) == 0 {
            break;
        }
        most.1 += 1;
        room -= 1;
    }
    let order = |column: &Column| ON_SCREEN.iter().position(|known| known == column);
    chosen.sort_by_key(|(column, _)| order(column));
    let mut x = MARKS;
    let place = |(column, width): (Column, u16)| {
        let placed = PlacedColumn { column, x, width };
        x += width + gap;
        placed
    };
    chosen.into_iter().map(place).collect()
}

/// What is written above a column.
pub(super) fn title(column: Column, arrow: &str) -> String {
    match column {
        Column::Target => format!("{arrow} TARGET"),
        column => column.title().to_owned(),
    }
}

fn title_width(column: Column) -> u16 {
    let width = title(column, "->").len();
    u16::try_from(width).unwrap_or(u16::MAX)
}

/// The column at a place.
pub fn at(placed: &[PlacedColumn], x: u16) -> Option<Column> {
    placed.iter().rev().find(|placed| placed.x <= x).map(|placed| placed.column)
}

/// Where the name of a view stands in the line of views.
pub(super) fn tab_place(view: View) -> (u16, u16) {
    let mut x = 0;
    for known in View::ALL {
        let width = u16::try_from(tab(known).len()).unwrap_or(u16::MAX);
        if known == view {
            return (x, width);
        }
        x += width;
    }
    (x, 0)
}

/// What stands there.
pub(super) fn tab(view: View) -> String {
    let number = View::ALL.iter().position(|known| *known == view).unwrap_or_default() + 1;
    format!(" {number} {} ", view.title())
}

/// The view whose name is at a place.
pub fn tab_at(x: u16) -> Option<View> {
    View::ALL.into_iter().find(|view| {
        let (first, width) = tab_place(*view);
        (first..first + width).contains(&x)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDEST: [u16; 14] = [5, 5, 15, 22, 7, 30, 20, 40, 12, 14, 40, 9, 3, 5];

    fn names(total: u16) -> Vec<&'static str> {
        fit(&WIDEST, total).iter().map(|placed| placed.column.title()).collect()
    }

    #[test]
    fn a_table_is_never_wider_than_its_place() {
        for total in 20..400 {
            let placed = fit(&WIDEST, total);
            let end = placed.last().map_or(0, |last| last.x + last.width);
            assert!(end <= total.max(MARKS), "{total}: {end}");
        }
    }

    #[test]
    fn more_room_shows_more_columns() {
        let eighty = ["PORT", "PROTO", "ADDRESS", "PROCESS", "PID", "CONTAINER", "TARGET"];
        assert_eq!(names(80), eighty);
        assert_eq!(names(260).len(), 14);
    }

    #[test]
    fn what_no_row_has_takes_no_room() {
        let mut widest = WIDEST;
        widest[7] = 0;
        let placed = fit(&widest, 240);
        assert!(placed.iter().all(|placed| placed.column != Column::Pod));
        // Without any row the names of the first columns are still there.
        assert_eq!(fit(&[0; 14], 80).len(), 4);
    }

    #[test]
    fn a_place_belongs_to_the_column_before_it() {
        let placed = fit(&WIDEST, 80);
        assert_eq!(at(&placed, placed[0].x), Some(Column::Port));
        assert_eq!(at(&placed, placed[1].x - 1), Some(Column::Port));
        assert_eq!(at(&placed, 0), None);
        assert_eq!(tab_at(1), Some(View::Ports));
        assert_eq!(tab_at(10), Some(View::Path));
        assert_eq!(tab_at(79), None);
    }
}
