//! The cells of a table.

use crate::layout::width;
use crate::style::Style;
use whereis_port_model::ListRow;

use super::columns::{Column, NONE};

/// The cells of some columns, one row after the other in one text: none of what
/// can be tens of thousands is allocated for itself.
pub(super) struct Cells<'a> {
    columns: &'a [Column],
    text: String,
    /// Where each ends in `text`, and how wide it is.
    ends: Vec<(u32, u32)>,
    /// How wide the widest of each column is.
    widths: Vec<usize>,
    /// Whether all of a column are [`NONE`].
    empty: Vec<bool>,
}

impl<'a> Cells<'a> {
    /// With one row for each group of them: what they have in common once, and all else together.
    pub(super) fn new(columns: &'a [Column], rows: &[&[ListRow]], style: &Style) -> Self {
        let count = rows.len() * columns.len();
        let mut cells = Self {
            columns,
            text: String::with_capacity(8 * count),
            ends: Vec::with_capacity(count),
            widths: vec![0; columns.len()],
            empty: vec![true; columns.len()],
        };
        for row in rows {
            let summaries = cells.widths.iter_mut().zip(&mut cells.empty);
            for (column, (widest, empty)) in columns.iter().zip(summaries) {
                let start = cells.text.len();
                for (at, one) in row.iter().enumerate() {
                    let before = cells.text.len();
                    if at > 0 {
                        cells.text.push_str(", ");
                    }
                    let this = cells.text.len();
                    column.write(one, style, &mut cells.text);
                    let (known, new) = cells.text[start..].split_at(this - start);
                    if at > 0 && known.split(", ").any(|known| known == new) {
                        cells.text.truncate(before);
                    }
                }
                let cell = &cells.text[start..];
                let width = width(cell);
                *widest = width.max(*widest);
                *empty &= cell == NONE;
                cells.ends.push((short(cells.text.len()), short(width)));
            }
        }
        cells
    }

    /// The cell of a row, and how wide it is. Empty for a column that is not there.
    pub(super) fn get(&self, row: usize, column: Column) -> (&str, usize) {
        let Some(at) = self.at(column) else { return ("", 0) };
        let at = row * self.columns.len() + at;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before].0);
        let (end, width) = self.ends[at];
        (&self.text[start as usize..end as usize], width as usize)
    }

    /// How wide the widest cell of a column is.
    pub(super) fn width(&self, column: Column) -> usize {
        self.at(column).map_or(0, |at| self.widths[at])
    }

    /// Whether no row has anything there.
    pub(super) fn is_empty(&self, column: Column) -> bool {
        self.at(column).is_some_and(|at| self.empty[at])
    }

    fn at(&self, column: Column) -> Option<usize> {
        self.columns.iter().position(|known| *known == column)
    }
}

/// A place in the text. A table of 4 GiB is none that anybody could read.
fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
