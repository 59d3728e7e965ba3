//! Sorting a list by a column.

use std::cmp::Ordering;

use crate::model::ListRow;
use crate::view::style::Style;

use super::columns::{Column, WIDE};

/// Sorts `rows` by `by`: a column's name in any case, with `:desc` behind it for
/// the greatest first. Rows that have nothing there come last in either order;
/// rows that are equal there are sorted by port, protocol, address and namespace.
///
/// # Errors
/// A message that names the known columns, when `by` is not one of them.
pub fn sort_rows(rows: &mut [ListRow], by: &str) -> Result<(), String> {
    let (name, order) = by.split_once(':').unwrap_or((by, "asc"));
    let descending = match order {
        "asc" => false,
        "desc" => true,
        other => return Err(format!("unknown order {other:?}: asc or desc")),
    };
    let column =
        WIDE.into_iter().find(|c| c.title().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let known: Vec<String> = WIDE.iter().map(|c| c.title().to_lowercase()).collect();
            format!("unknown column {name:?}: one of {}", known.join(", "))
        })?;
    rows.sort_by_cached_key(|row| Key::of(column, row, descending));
    Ok(())
}

/// What a row is sorted by.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    descending: bool,
    value: Option<Value>,
    tie: (u16, crate::model::Proto, std::net::IpAddr, crate::model::NetnsId, u64),
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
        let tie = (
            row.port.0,
            row.proto,
            row.address,
            row.netns.id,
            row.socket.as_ref().map_or(0, |s| s.inode),
        );
        Self { descending, value, tie }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_value = match (&self.value, &other.value) {
            (Some(a), Some(b)) if self.descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        by_value.then_with(|| self.tie.cmp(&other.tie))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
