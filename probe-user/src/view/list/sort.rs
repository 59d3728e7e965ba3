//! Sorting a list by a column.

use std::cmp::Ordering;

use crate::model::ListRow;
use crate::view::style::Style;

use super::columns::Column;

/// Sorts `rows` by `by`: a column's name in any case, with `:desc` behind it for
/// the greatest first; or several, with commas between them. Rows that have nothing there come
/// last in either order; rows that are equal there are sorted by port, protocol, address and
/// namespace.
///
/// # Errors
/// A message that names the known columns, when `by` is not one of them.
pub fn sort_rows(rows: &mut [ListRow], by: &str) -> Result<(), String> {
    let one = |by: &str| {
        let (name, order) = by.split_once(':').unwrap_or((by, "asc"));
        let descending = match order {
            "asc" => false,
            "desc" => true,
            other => return Err(format!("unknown order {other:?}: asc or desc")),
        };
        Ok((Column::named(name.trim())?, descending))
    };
    let all = by.split(',').map(one).collect::<Result<Vec<_>, String>>()?;
    rows.sort_by_cached_key(|row| {
        let values = all.iter().map(|(column, descending)| Key::of(*column, row, *descending));
        let tie = (
            row.port.0,
            row.proto,
            row.address,
            row.netns.id,
            row.socket.as_ref().map_or(0, |s| s.inode),
        );
        (values.collect::<Vec<Key>>(), tie)
    });
    Ok(())
}

/// What a row has in a column that it is sorted by.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    descending: bool,
    value: Option<Value>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Number(u64),
    Address(std::net::IpAddr),
    Text(String),
}

impl Key {
    fn of(column: Column, row: &ListRow, descending: bool) -> Self {
        let value = match column {
            Column::Address => Some(Value::Address(row.address)),
            column if column.is_number() => {
                column.value(row, &Style::PLAIN).and_then(|v| v.parse().ok()).map(Value::Number)
            }
            column => column.value(row, &Style::PLAIN).map(|v| Value::Text(v.to_lowercase())),
        };
        Self { descending, value }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.value, &other.value) {
            (Some(a), Some(b)) if self.descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
