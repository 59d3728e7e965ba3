//! The list as CSV.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use crate::model::{ListRow, Listing};
use crate::view::json::{Ending, HopKind, SocketState};
use crate::view::sanitize::clean;
use crate::view::style::Style;

use super::columns::Column;

/// The columns, with stable names. New ones are added at the end.
const HEADER: [&str; 33] = [
    "port",
    "proto",
    "address",
    "state",
    "v6only",
    "process",
    "pid",
    "pids",
    "container",
    "container_id",
    "netns",
    "netns_inode",
    "target",
    "user",
    "uid",
    "pod",
    "cluster",
    "unit",
    "image",
    "inode",
    "cmdline",
    "ending",
    "why",
    "kind",
    "targets",
    "target_count",
    "taken_by",
    "service",
    "component",
    "files",
    "accept_queue",
    "accept_queue_limit",
    "health",
];

/// Writes the listeners as CSV. What there is none of is an empty cell, but for
/// an owner that is not known: `process` then says so, and `ending` why. What
/// a spreadsheet would take for a formula begins with an apostrophe.
///
/// # Errors
/// Those of `out`.
pub fn csv(listing: &Listing, headers: bool, mut out: impl Write) -> io::Result<()> {
    if headers {
        writeln!(out, "{}", HEADER.join(","))?;
    }
    let style = &Style::PLAIN;
    let mut line = String::new();
    let (mut states, mut endings, mut kinds) =
        (Words::default(), Words::default(), Words::default());
    for row in &listing.rows {
        let cell = |column: Column| column.value(row, style).unwrap_or_default();
        let container = row.end.containers.last();
        let pids: Vec<String> = row.end.processes.iter().map(|p| p.pid.to_string()).collect();
        let targets = row.target.iter().chain(&row.others).map(|e| style.endpoint(e));
        let targets: Vec<String> = targets.collect();
        let socket = row.socket.as_ref();
        let queue = socket.and_then(|socket| socket.queue);
        let record: [Cow<'_, str>; HEADER.len()] = [
            cell(Column::Port),
            cell(Column::Proto),
            cell(Column::Address),
            socket.map(|s| states.word(SocketState::from(s.state))).unwrap_or_default().into(),
            match socket.and_then(|s| s.v6only) {
                Some(true) => "true".into(),
                Some(false) => "false".into(),
                None => Cow::default(),
            },
            process(row, style),
            cell(Column::Pid),
            pids.join(" ").into(),
            cell(Column::Container),
            container.map(|c| clean(&c.id)).unwrap_or_default(),
            row.netns
                .name
                .as_ref()
                .map(|name| style.text(&name.to_string()))
                .unwrap_or_default()
                .into(),
            row.netns.id.inode().map(|inode| inode.to_string()).unwrap_or_default().into(),
            cell(Column::Target),
            cell(Column::User),
            cell(Column::Uid),
            cell(Column::Pod),
            cell(Column::Cluster),
            cell(Column::Unit),
            cell(Column::Image),
            cell(Column::Inode),
            row.end.processes.first().map(|_| cell(Column::Cmdline)).unwrap_or_default(),
            endings.word(Ending::from(row.end.ending)).into(),
            row.end.why.as_ref().map(|why| style.text(why)).unwrap_or_default().into(),
            kinds.word(HopKind::from(row.kind)).into(),
            targets.join(" ").into(),
            (targets.len() + row.more).to_string().into(),
            row.taken_by.as_ref().map(|by| style.text(by)).unwrap_or_default().into(),
            cell(Column::Service),
            cell(Column::Component),
            cell(Column::Files),
            queue.map(|queue| queue.waiting.to_string()).unwrap_or_default().into(),
            queue.map(|queue| queue.limit.to_string()).unwrap_or_default().into(),
            cell(Column::Health),
        ];
        line.clear();
        for cell in &record {
            if is_plain(cell) {
                line.push_str(cell);
            } else {
                line.push_str(&quoted(harmless(cell)));
            }
            line.push(',');
        }
        line.pop();
        line.push('\n');
        out.write_all(line.as_bytes())?;
    }
    out.flush()
}

/// The process's name alone: how many there are is in `pids`.
fn process<'a>(row: &'a ListRow, style: &Style) -> Cow<'a, str> {
    match (crate::view::words::marker(row.end.ending), row.end.processes.first()) {
        (None, Some(process)) => style.shown(process.name()),
        _ => Column::Process.cell(row, style).into(),
    }
}

/// Words as the JSON documents have them, of a kind that has a few.
struct Words<T>(Vec<(T, String)>);

impl<T> Default for Words<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Serialize + Copy + PartialEq> Words<T> {
    fn word(&mut self, of: T) -> String {
        if let Some((_, word)) = self.0.iter().find(|(known, _)| *known == of) {
            return word.clone();
        }
        let word = match serde_json::to_value(of) {
            Ok(serde_json::Value::String(word)) => word,
            _ => String::new(),
        };
        self.0.push((of, word.clone()));
        word
    }
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
