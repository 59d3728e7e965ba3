//! Every listener of the node: as a table, as CSV, Markdown or metrics, or by a template.

mod cells;
pub(crate) mod columns;
mod csv;
mod markdown;
mod metrics;
mod sort;
mod template;

use std::borrow::Cow;
use std::fmt::Write as _;

use whereis_port_model::{Capability, Ending, Host, ListRow, Listing};

use super::layout::{TextPage, width};
use super::style::{Ink, Style};
use super::words;

use cells::Cells;
use columns::Column;

pub use csv::csv;
pub use markdown::markdown;
pub use metrics::metrics;
pub use sort::{ColumnFilter, Order, sort_rows};
pub use template::{Template, TemplateError};

/// What a table has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableOptions {
    /// All columns, nothing shortened (`-o wide`).
    pub wide: bool,
    /// The first line, with the names of the columns.
    pub headers: bool,
    /// These columns, in this order, and no others.
    pub columns: Option<SelectedColumns>,
}

/// Columns that somebody named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedColumns {
    /// Whether they come behind the usual ones.
    more: bool,
    columns: Vec<Column>,
}

impl SelectedColumns {
    /// Whether how far away a port can be reached from is one of them.
    pub fn needs_reach(&self) -> bool {
        self.columns.contains(&Column::Reach)
    }

    /// Those that were chosen, or else the usual ones.
    fn or(chosen: Option<&Self>, usual: impl Fn() -> Vec<Column>) -> Vec<Column> {
        let Some(chosen) = chosen else { return usual() };
        let mut columns = if chosen.more { usual() } else { Vec::new() };
        let new = chosen.columns.iter().filter(|column| !columns.contains(column));
        columns.extend(new.copied().collect::<Vec<_>>());
        columns
    }
}

impl std::str::FromStr for SelectedColumns {
    type Err = String;

    /// Names in any case, with commas between them; with a `+` in front, behind the usual ones.
    fn from_str(text: &str) -> Result<Self, String> {
        let (more, text) = text.strip_prefix('+').map_or((false, text), |text| (true, text));
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let columns = names.map(Column::named).collect::<Result<Vec<Column>, String>>()?;
        if columns.is_empty() {
            return Err("no column is named".to_owned());
        }
        let mut twice = columns.iter().enumerate();
        if let Some((_, column)) =
            twice.find(|(at, column)| columns.get(..*at).is_some_and(|all| all.contains(column)))
        {
            return Err(format!("column {} is named twice", column.name()));
        }
        Ok(Self { more, columns })
    }
}

/// The columns with what each has, for help.
pub fn about_columns() -> Vec<(String, &'static str)> {
    let all = columns::ALL.iter().filter(|column| column.is_of_rows());
    all.map(|column| (column.name(), column.about())).collect()
}

/// A row in a few words: who has it, and in which namespace.
pub fn short(row: &ListRow) -> String {
    let cell = |column: Column| column.cell(row, &Style::PLAIN);
    format!("{} in {}", cell(Column::Process), cell(Column::Netns))
}

/// Columns between two cells.
const GAP: usize = 2;
/// How many rows are told in one at most.
const TOGETHER: usize = 8;

/// The listeners as a table, and below it what the marks in it mean.
///
/// A table that is wider than the terminal leaves out columns that no row has
/// anything in, has its widest texts shortened in their middle, then leaves out what tells the
/// least; ports, addresses and process ids are always whole.
pub fn table(listing: &Listing, host: &Host, style: &Style, options: &TableOptions) -> String {
    let all = match options.wide {
        true => SelectedColumns::or(options.columns.as_ref(), Column::of_wide),
        false => SelectedColumns::or(options.columns.as_ref(), || usual(listing)),
    };
    let groups = publishes(&listing.rows, options.wide);
    let cells = Cells::new(&all, &groups, style);
    let mut columns = all.clone();
    let title = |column: Column| if options.headers { column.title() } else { "" };
    let limit = if options.wide { None } else { style.width };
    // What somebody asked for stays.
    let asked = |column: &Column| {
        options.columns.as_ref().is_some_and(|chosen| chosen.columns.contains(column))
    };
    let mut widths = loop {
        let natural = columns.iter().map(|c| cells.width(*c).max(width(title(*c))));
        let natural: Vec<usize> = natural.collect();
        let Some(limit) = limit else { break natural };
        let is_empty = |at: &usize| {
            !listing.rows.is_empty() && cells.is_empty(columns[*at]) && !asked(&columns[*at])
        };
        let is_wide = total(&natural) > limit;
        let empty = (0..columns.len()).find(is_empty).filter(|_| is_wide);
        if empty.is_none()
            && let Some(widths) = fit(&columns, natural.clone(), limit)
        {
            break widths;
        }
        // The least telling go first: with a pod, what it is in.
        let has_pods = columns.contains(&Column::Pod);
        let least: &[Column] = match has_pods {
            true => &[Column::Container, Column::Netns, Column::Kind, Column::Target],
            false => &[Column::Kind, Column::Target, Column::Netns],
        };
        let mut least = least.iter().filter(|column| !asked(column));
        let at = least.find_map(|c| columns.iter().position(|known| known == c));
        let Some(at) = empty.or(at) else {
            let least = |(width, column): (usize, &Column)| {
                if column.is_text() { width.min(column.narrowest()) } else { width }
            };
            break natural.into_iter().zip(&columns).map(least).collect();
        };
        columns.remove(at);
    };
    // The last column needs no spaces behind it.
    if let (Some(last), None) = (widths.last_mut(), limit) {
        *last = 0;
    }

    let mut page = TextPage::new(style);
    let mut text = String::new();
    if options.headers {
        line(&mut text, style, &columns, &widths, |c| (title(c), width(title(c))));
        page.line(&style.paint(Ink::Strong, text.trim_end()));
    }
    for row in 0..groups.len() {
        text.clear();
        line(&mut text, style, &columns, &widths, |column| cells.get(row, column));
        page.line(&text);
    }
    legend(&mut page, listing, host);
    page.finish()
}

/// The columns of a table that nobody chose any of: which Service a port is of, which pod is behind
/// it, and what kind of port it is, where there is any of these.
fn usual(listing: &Listing) -> Vec<Column> {
    let any = |is: fn(&ListRow) -> bool| listing.rows.iter().any(is);
    let has = |column: &Column| match column {
        Column::Service => any(|row| row.service.is_some()),
        // A pod of which only the id is known tells nobody anything.
        Column::Pod => any(|row| row.end.pod.as_ref().is_some_and(|pod| pod.name.is_some())),
        Column::Kind => any(|row| columns::is_telling(row.port_kind)),
        _ => true,
    };
    Column::of_table().into_iter().filter(has).collect()
}

/// The rows, those together that are one published port, or one port of a Service, at several
/// addresses; with `each`, every one by itself. Together they have to follow each other.
fn publishes(rows: &[ListRow], each: bool) -> Vec<&[ListRow]> {
    let same = |one: &ListRow, other: &ListRow| {
        let container =
            |row: &ListRow| row.end.containers.last().map(|c| (c.runtime, c.id.clone()));
        let target = |row: &ListRow| row.target.as_ref().map(|target| target.port);
        // Of a Service its endpoints differ with the version of IP.
        let of_service = one.service.is_some() && one.port_kind == other.port_kind;
        let of_container = (target(one).is_some() && target(one) == target(other))
            && (container(one).is_some() && container(one) == container(other));
        !each
            && (one.netns.id, one.port, one.proto) == (other.netns.id, other.port, other.proto)
            && (of_service || of_container)
            && one.service == other.service
            && one.reached == other.reached
    };
    rows.chunk_by(same).flat_map(|group| group.chunks(TOGETHER)).collect()
}

/// How wide a line is.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

/// The widths with the widest texts made narrower until all fit into `limit`.
/// `None` when they can't.
fn fit(columns: &[Column], mut widths: Vec<usize>, limit: usize) -> Option<Vec<usize>> {
    loop {
        if total(&widths) <= limit {
            return Some(widths);
        }
        let widest = columns
            .iter()
            .zip(&mut widths)
            .filter(|(column, width)| column.is_text() && **width > column.narrowest())
            .max_by_key(|(_, width)| **width);
        let (_, width) = widest?;
        *width -= 1;
    }
}

/// Writes one line to `out`. `cell` gives what a column has, and how wide it is.
fn line<'a>(
    out: &mut String,
    style: &Style,
    columns: &[Column],
    widths: &[usize],
    cell: impl Fn(Column) -> (&'a str, usize),
) {
    for (column, columns) in columns.iter().zip(widths) {
        let (cell, mut used) = cell(*column);
        if !out.is_empty() {
            spaces(out, GAP);
        }
        let shortened = column.is_text() && style.width.is_some() && (1..used).contains(columns);
        let cell = if shortened {
            // How many more there are stays whole: `nginx: work… (+3)`.
            let more = cell
                .rfind(" (+")
                .filter(|at| *column == Column::Process && cell.len() - at < *columns);
            let (name, more) = cell.split_at(more.unwrap_or(cell.len()));
            let room = columns.saturating_sub(width(more));
            let cell = format!("{}{more}", column.fitted(name, room, style.glyphs().ellipsis));
            used = width(&cell);
            Cow::Owned(cell)
        } else {
            Cow::Borrowed(cell)
        };
        let padding = columns.saturating_sub(used);
        if column.is_number() {
            spaces(out, padding);
            out.push_str(&cell);
        } else {
            out.push_str(&cell);
            spaces(out, padding);
        }
    }
}

fn spaces(out: &mut String, count: usize) {
    out.extend(std::iter::repeat_n(' ', count));
}

/// How the legend calls what is said to take a port without a socket.
const BY_NAME: &str = "(NAME)";
const TAKEN: &str = "taken by packet rules or a load balancer of that name: there is no socket, and `whereis-port PORT` follows them";

/// What the marks in the table mean, and what would give the owner; then the gaps.
fn legend(page: &mut TextPage<'_>, listing: &Listing, host: &Host) {
    let mut marks: Vec<(&'static str, usize, String)> = Vec::new();
    for row in listing.rows.iter().filter(|row| row.socket.is_some()) {
        let Some(mark) = words::marker(row.end.ending)
            .or_else(|| row.end.processes.is_empty().then_some(columns::UNKNOWN))
        else {
            continue;
        };
        match marks.iter_mut().find(|(known, ..)| *known == mark) {
            Some((_, count, _)) => *count += 1,
            None => marks.push((mark, 1, meaning(row.end.ending, host))),
        }
    }
    let ruled = listing.rows.iter().filter(|row| row.socket.is_none()).count();
    if ruled > 0 {
        marks.push((BY_NAME, ruled, TAKEN.to_owned()));
    }
    if !marks.is_empty() || !listing.gaps.is_empty() {
        page.line("");
    }
    let columns = marks.iter().map(|(mark, ..)| mark.len()).max().unwrap_or(0) + 1;
    for (mark, count, meaning) in marks {
        let mut text = meaning;
        let _ = write!(text, " ({count} {})", if count == 1 { "row" } else { "rows" });
        page.entry("", (mark, columns, Ink::Warn), &text);
    }
    super::text::list_gaps(page, listing, host);
}

fn meaning(ending: Ending, host: &Host) -> String {
    match ending {
        Ending::Kernel => {
            "held by the kernel itself: no process has it, and nothing is missing".to_owned()
        }
        Ending::OutsidePidNamespace => {
            "the owner exists outside this PID namespace: ask on the host itself".to_owned()
        }
        Ending::NotReadable if host.has(Capability::CapSysPtrace) => {
            "the owner's descriptors can't be read: a security module or a user namespace refused, although CAP_SYS_PTRACE is there".to_owned()
        }
        Ending::NotReadable if host.euid == 0 => {
            "the owner's descriptors can't be read: CAP_SYS_PTRACE would give it".to_owned()
        }
        Ending::NotReadable => {
            "the owner's descriptors can't be read: run as root, or with CAP_SYS_PTRACE".to_owned()
        }
        _ => "the owner could not be told: `whereis-port PORT` says why".to_owned(),
    }
}

#[cfg(test)]
mod tests;
