//! The list as CSV.

use std::io::{self, Write};

use whereis_port_model::Listing;

use super::SelectedColumns;
use super::columns::Column;

/// Writes the listeners as CSV. What there is none of is an empty cell, but for
/// an owner that is not known: `process` then says so, and `ending` why. What
/// a spreadsheet would take for a formula begins with an apostrophe.
///
/// # Errors
/// Those of `out`.
pub fn csv(
    listing: &Listing,
    chosen: Option<&SelectedColumns>,
    headers: bool,
    mut out: impl Write,
) -> io::Result<()> {
    let columns = SelectedColumns::or(chosen, Column::of_csv);
    if headers {
        let names: Vec<String> = columns.iter().map(|column| column.name()).collect();
        writeln!(out, "{}", names.join(","))?;
    }
    let mut line = String::new();
    for row in &listing.rows {
        line.clear();
        for column in &columns {
            let cell = column.exact(row).unwrap_or_default();
            if is_plain(&cell) {
                line.push_str(&cell);
            } else {
                line.push_str(&quoted(harmless(&cell)));
            }
            line.push(',');
        }
        line.pop();
        line.push('\n');
        out.write_all(line.as_bytes())?;
    }
    out.flush()
}

/// Whether the cell can stand in a line as it is: nearly all can.
fn is_plain(cell: &str) -> bool {
    let is_plain = |b: u8| (0x20..0x7f).contains(&b) && !matches!(b, b',' | b'"' | b';');
    cell.bytes().all(is_plain) && !cell.trim_start().starts_with(FORMULA)
}

/// What begins a formula, in full width and small forms too, as spreadsheets for Chinese and
/// Japanese take them.
const FORMULA: [char; 12] = [
    '=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}', '\u{fe66}', '\u{fe62}',
    '\u{fe63}', '\u{fe6b}',
];

/// What separates cells, for one spreadsheet or another.
const SEPARATORS: [char; 4] = [';', '\t', '\r', '\n'];

/// The cell, so that no spreadsheet calculates it, nor a part of it that would be a cell to
/// one with other separators.
fn harmless(cell: &str) -> String {
    let mut safe = String::with_capacity(cell.len());
    for part in cell.split_inclusive(SEPARATORS) {
        if part.trim_start().starts_with(FORMULA) {
            safe.push('\'');
        }
        safe.push_str(part);
    }
    safe
}

/// The cell as it stands in a line (RFC 4180).
fn quoted(cell: String) -> String {
    let special = |c| matches!(c, ',' | '"') || SEPARATORS.contains(&c);
    if cell.contains(special) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}
