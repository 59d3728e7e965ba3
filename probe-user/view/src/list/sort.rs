//! Sorting a list by columns, and leaving rows out by what they have in one.

use std::cmp::Ordering;
use std::str::FromStr;

use crate::style::Style;
use whereis_port_model::ListRow;

use super::columns::{Column, Rank};

/// What rows are sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order(Vec<(Column, bool)>);

impl Order {
    /// Whether rows are sorted by how far away they can be reached from.
    pub fn needs_reach(&self) -> bool {
        self.0.iter().any(|(column, _)| *column == Column::Reach)
    }
}

/// A column's name in any case, with `:desc` behind it for the greatest first; or several, with
/// commas between them.
impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = |by: &str| {
            let (name, order) = by.split_once(':').unwrap_or((by, "asc"));
            let descending = match order {
                "asc" => false,
                "desc" => true,
                other => return Err(format!("unknown order {other:?}: asc or desc")),
            };
            Ok((Column::named(name.trim())?, descending))
        };
        text.split(',').map(one).collect::<Result<_, String>>().map(Self)
    }
}

/// Sorts `rows`. Those that have nothing in a column come last in either order; those that are equal
/// are sorted by port, protocol, address and namespace.
pub fn sort_rows(rows: &mut [ListRow], by: &Order) {
    rows.sort_by_cached_key(|row| {
        let values = by.0.iter().map(|(column, descending)| SortKey {
            descending: *descending,
            value: column.rank(row),
        });
        let tie = (
            row.port.0,
            row.proto,
            row.address,
            row.netns.id,
            row.socket.as_ref().map_or(0, |s| s.inode),
        );
        (values.collect::<Vec<SortKey>>(), tie)
    });
}

/// What a row has in a column that it is sorted by.
#[derive(Debug, PartialEq, Eq)]
struct SortKey {
    descending: bool,
    value: Option<Rank>,
}

impl Ord for SortKey {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.value, &other.value) {
            (Some(a), Some(b)) if self.descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
    }
}

impl PartialOrd for SortKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Rows that have something in a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnFilter {
    column: Column,
    /// Whether it is enough that the cell contains it.
    contains: bool,
    not: bool,
    text: String,
}

impl ColumnFilter {
    /// Whether it asks how far away a port can be reached from.
    pub fn needs_reach(&self) -> bool {
        self.column == Column::Reach
    }

    /// Whether a row passes.
    pub fn passes(&self, row: &ListRow) -> bool {
        let value = self.column.value(row, &Style::PLAIN).unwrap_or_default().to_lowercase();
        let has = match self.contains {
            true => value.contains(&self.text),
            false => value == self.text,
        };
        has != self.not
    }
}

/// `COL=TEXT`, `COL~TEXT`, and `!=` and `!~`, all in any case.
impl FromStr for ColumnFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no COL=TEXT, COL~TEXT, COL!=TEXT or COL!~TEXT");
        let at = text.find(['=', '~']).ok_or_else(wrong)?;
        let (name, rest) = text.split_at(at);
        let contains = rest.starts_with('~');
        let (name, not) = name.strip_suffix('!').map_or((name, false), |name| (name, true));
        let column = Column::named(name.trim())?;
        let value = rest.get(1..).unwrap_or_default().to_lowercase();
        Ok(Self { column, contains, not, text: value })
    }
}
