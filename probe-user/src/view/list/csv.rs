//! The list as CSV.

use std::io::Write;

use crate::model::Listing;
use crate::view::json::{Ending, HopKind, SocketState};
use crate::view::sanitize::clean;
use crate::view::style::Style;

use super::columns::Column;

/// The columns, with stable names. New ones are added at the end.
const HEADER: [&str; 30] = [
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
];

/// Writes the listeners as CSV. What there is none of is an empty cell, but for
/// an owner that is not known: `process` then says so, and `ending` why. Cells
/// that a spreadsheet would take for a formula begin with an apostrophe.
///
/// # Errors
/// Those of `out`.
pub fn csv(listing: &Listing, headers: bool, out: impl Write) -> std::io::Result<()> {
    // The library's error hides that of `out`, which tells a closed pipe.
    write(listing, headers, out).map_err(|error| match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => std::io::Error::other(format!("{other:?}")),
    })
}

fn write(listing: &Listing, headers: bool, out: impl Write) -> csv::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    if headers {
        writer.write_record(HEADER)?;
    }
    let style = &Style::PLAIN;
    for row in &listing.rows {
        let cell = |column: Column| column.value(row, style).unwrap_or_default().into_owned();
        let container = row.end.containers.last();
        let pids: Vec<String> = row.end.processes.iter().map(|p| p.pid.to_string()).collect();
        let targets = row.target.iter().chain(&row.others).map(|e| style.endpoint(e));
        let targets: Vec<String> = targets.collect();
        let record = [
            cell(Column::Port),
            cell(Column::Proto),
            cell(Column::Address),
            row.socket.as_ref().map(|s| word(SocketState::from(s.state))).unwrap_or_default(),
            row.socket
                .as_ref()
                .and_then(|s| s.v6only)
                .map(|only| only.to_string())
                .unwrap_or_default(),
            process(row, style),
            cell(Column::Pid),
            pids.join(" "),
            cell(Column::Container),
            container.map(|c| clean(&c.id).into_owned()).unwrap_or_default(),
            row.netns.name.as_ref().map(|name| style.text(name)).unwrap_or_default(),
            row.netns.id.inode().map(|inode| inode.to_string()).unwrap_or_default(),
            cell(Column::Target),
            cell(Column::User),
            cell(Column::Uid),
            cell(Column::Pod),
            cell(Column::Cluster),
            cell(Column::Unit),
            cell(Column::Image),
            cell(Column::Inode),
            row.end.processes.first().map(|_| cell(Column::Cmdline)).unwrap_or_default(),
            word(Ending::from(row.end.ending)),
            row.end.why.as_ref().map(|why| style.text(why)).unwrap_or_default(),
            word(HopKind::from(row.kind)),
            targets.join(" "),
            (targets.len() + row.more).to_string(),
            row.taken_by.as_ref().map(|by| style.text(by)).unwrap_or_default(),
            cell(Column::Service),
            cell(Column::Component),
            cell(Column::Files),
        ];
        writer.write_record(record.map(|cell| harmless(&cell)))?;
    }
    Ok(writer.flush()?)
}

/// The process's name alone: how many there are is in `pids`.
fn process(row: &crate::model::ListRow, style: &Style) -> String {
    match (crate::view::words::marker(row.end.ending), row.end.processes.first()) {
        (None, Some(process)) => style.text(process.name()),
        _ => Column::Process.cell(row, style),
    }
}

/// A word as the JSON documents have it.
fn word(word: impl serde::Serialize) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// The cell, so that no spreadsheet calculates it.
fn harmless(cell: &str) -> String {
    if cell.trim_start().starts_with(['=', '+', '-', '@']) {
        format!("'{cell}")
    } else {
        cell.to_owned()
    }
}
