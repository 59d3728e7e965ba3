//! The command `history`: who had a port, from what `record-events` kept.

use std::io::{self, Write};

use super::Failure;
use crate::cli::{self, Global, HistoryArgs};
use crate::exit::Exit;
use crate::model::{Event, History, HistoryEntry, HistoryRecord, ListenerRecord, Query, SeenBy};
use crate::node::{self, history};
use crate::resolve;
use crate::view;

pub(super) fn run(
    global: &Global,
    args: &HistoryArgs,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    if global.replay.is_some() || global.record.is_some() {
        return Err(Failure::Usage(
            "history reads what record-events kept, and no recording of a node".to_owned(),
        ));
    }
    let queries = super::queries(global, &args.targets)?;
    let now = node::moment().wall;
    let offset = |at: u64| node::local_offset(at / 1_000_000_000);
    let time = |text: &Option<String>| {
        text.as_deref()
            .map(|text| cli::time(text, now, offset(now).unwrap_or(0)))
            .transpose()
            .map_err(Failure::Usage)
    };
    let (at, since) = (time(&args.at)?, time(&args.since)?);
    let wanted = |entry: &HistoryEntry| match &entry.what {
        HistoryRecord::Listener { listener, .. } | HistoryRecord::Event { listener, .. } => {
            queries.iter().any(|query| is_asked(listener, query))
        }
        _ => true,
    };
    let stored = history::read(&args.dir, wanted).map_err(|error| {
        let what = format!("{}: {error}", args.dir.display());
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Failure::Usage(what),
            _ => Failure::Tool(what),
        }
    })?;
    let mut told = resolve::history(&stored.entries, stored.damaged, at);
    if let Some(since) = since {
        told.holdings.retain(|holding| holding.to.inner().wall >= since);
        told.unrecorded.retain(|gap| gap.to.wall >= since);
        told.lost.retain(|(at, ..)| at.wall >= since);
    }
    if global.json {
        view::json::write(&view::json::history(&args.targets, &told), out)?;
    } else {
        let text = view::history::text(&args.targets, &told, &super::style(global), &offset);
        out.write_all(text.as_bytes())?;
    }
    Ok(exit(&told))
}

/// Whether a listener has a port that is asked for: as of an event.
fn is_asked(listener: &ListenerRecord, query: &Query) -> bool {
    let event = Event {
        at: 0,
        kind: crate::model::EventKind::Listen,
        proto: listener.proto,
        netns: listener.netns,
        address: listener.address,
        port: listener.port,
        peer: None,
        inode: None,
        actor: None,
        nat: None,
        dropped: None,
        seen_by: SeenBy::Comparison,
    };
    resolve::concerns(&event, query)
}

fn exit(told: &History) -> Exit {
    let is_whole = told.gaps.is_empty() && told.lost.is_empty() && told.damaged == 0;
    let was_recorded = told.asked.map_or(told.unrecorded.is_empty(), |asked| asked.times > 0);
    match (told.holdings.is_empty(), is_whole && was_recorded) {
        (false, _) => Exit::Found,
        (true, true) => Exit::NotFound,
        (true, false) => Exit::Unknown,
    }
}
