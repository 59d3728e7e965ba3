//! The thread that watches: what happens goes to the screen, and the ports of listeners
//! that came or went to the thread that reads them.

use std::collections::BTreeSet;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::mpsc::Sender as Messages;

use super::super::trace::EventNames;
use super::rows;
use super::slot::Slot;
use crate::model::{Capability, Event, EventKind, Port, Traced};
use crate::node::{self, Node, Watch};
use crate::view::Style;
use crate::view::tui::state::events::EventRow;
use crate::view::tui::state::{Message, Mode};

/// How long is waited at most for something to happen.
const TICK: Duration = Duration::from_millis(500);
/// How long events are gathered: a screen is not drawn more often.
const GATHER: Duration = Duration::from_millis(50);
/// Bytes of events that may wait: they are taken all the time, and the buffer counts as
/// memory of the screen, twice.
const BUFFER: u32 = 2 << 20;
/// How many connects and translations of one turn are shown; what a listener does is
/// shown in any case.
const SHOWN: usize = 100;

/// Watches until nobody looks any more.
pub(super) fn run(
    interval: Duration,
    ebpf: bool,
    style: Style,
    loaded: Sender<()>,
    wanted: &Slot<rows::RowsRequest>,
    out: &Messages<Message>,
) -> Result<(), String> {
    // Accepts would be too many, and drops are for who asks for them.
    let left_out = [EventKind::Accept, EventKind::Drop];
    let kinds = EventKind::ALL.into_iter().filter(|kind| !left_out.contains(kind)).collect();
    let asked = node::WatchRequest {
        kinds,
        ports: None,
        drops: Vec::new(),
        interval,
        ebpf,
        buffer: Some(BUFFER),
    };
    let mut watch = node::watch(&asked).map_err(|error| format!("/proc: {error}"))?;
    // What is loaded stays; from now on only reading is left.
    node::drop_rights();
    // Whoever waits for it may go on; as they may where this ends before.
    drop(loaded);
    let mut names = EventNames::new(None).map_err(|_| "/proc can't be read".to_owned())?;
    let mut said = None;
    loop {
        let now = (watch.lost(), watch.gaps());
        if said.as_ref() != Some(&now) {
            let message = watching(watch.as_ref(), names.node());
            if out.blocking_send(message).is_err() {
                return Ok(());
            }
            said = Some(now);
        }
        let mut events = watch.next(TICK);
        if events.is_empty() {
            if out.is_closed() {
                return Ok(());
            }
            continue;
        }
        std::thread::sleep(GATHER);
        events.extend(watch.next(Duration::ZERO));
        let ports = changed(&events);
        if !ports.is_empty() {
            wanted.put(|before| rows::RowsRequest::with(before, rows::RowsRequest::Ports(ports)));
        }
        let (events, left_out) = few(events);
        let mut lines: Vec<EventRow> =
            names.trace(&events).iter().map(|traced| line(traced, &style)).collect();
        if let Some(last) = lines.last().filter(|_| left_out > 0) {
            let line = format!("{left_out} more connects and translations are not shown\n");
            lines.push(EventRow { line, inode: None, port: None, ..last.clone() });
        }
        if out.blocking_send(Message::Events(lines)).is_err() {
            return Ok(());
        }
    }
}

/// How the node is watched.
fn watching(watch: &dyn Watch, node: &dyn Node) -> Message {
    let host = node.host().value;
    let sources = watch.sources();
    let compares = sources.iter().any(|source| source.name == node::COMPARISON);
    let mode = match compares {
        true if host.euid != 0 && !host.has(Capability::CapSysPtrace) => Mode::Unprivileged,
        true => Mode::Snapshots,
        false => Mode::Ebpf,
    };
    Message::Watching { lost: watch.lost(), mode, gaps: watch.gaps(), sources }
}

/// The ports on which a listener came or went.
fn changed(events: &[Event]) -> BTreeSet<Port> {
    let kinds = [EventKind::Listen, EventKind::Bind, EventKind::Close];
    let changes = events.iter().filter(|event| kinds.contains(&event.kind));
    changes.filter_map(|event| event.port).collect()
}

/// Not more events than somebody could read, and how many were left out.
fn few(events: Vec<Event>) -> (Vec<Event>, usize) {
    let before = events.len();
    let mut room = SHOWN;
    let kept: Vec<Event> = events
        .into_iter()
        .filter(|event| match event.kind {
            EventKind::Listen | EventKind::Bind | EventKind::Close => true,
            EventKind::Connect | EventKind::Accept | EventKind::Nat | EventKind::Drop => {
                let fits = room > 0;
                room = room.saturating_sub(1);
                fits
            }
        })
        .collect();
    let left_out = before - kept.len();
    (kept, left_out)
}

fn line(traced: &Traced, style: &Style) -> EventRow {
    let event = &traced.event;
    let offset = node::local_offset(event.at / 1_000_000_000);
    let actor = event.actor.as_ref().map(|actor| actor.comm.clone());
    let process = traced.process.as_ref().map(|process| process.name().to_owned()).or(actor);
    let container = traced.containers.last().and_then(|container| container.name.clone());
    // Long names are shortened as in a terminal.
    let style = Style { width: Some(120), ..*style };
    EventRow {
        at: event.at,
        kind: event.kind,
        proto: event.proto,
        netns: event.netns,
        port: event.port,
        process: process.unwrap_or_else(|| "-".to_owned()),
        container: container.unwrap_or_else(|| "-".to_owned()),
        inode: event.inode,
        line: crate::view::trace::line(traced, &style, offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Proto, SeenBy};

    fn event(kind: EventKind, port: u16) -> Event {
        Event {
            at: 0,
            kind,
            proto: Proto::Tcp,
            netns: None,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            port: Some(Port(port)),
            peer: None,
            inode: None,
            actor: None,
            nat: None,
            dropped: None,
            seen_by: SeenBy::Ebpf,
        }
    }

    #[test]
    fn a_flood_of_connects_hides_no_listener() {
        let mut events: Vec<Event> = (0..500).map(|_| event(EventKind::Connect, 80)).collect();
        events.push(event(EventKind::Listen, 8080));
        let ports = changed(&events);
        assert_eq!(ports.into_iter().collect::<Vec<_>>(), [Port(8080)]);
        let (kept, left_out) = few(events);
        assert_eq!((kept.len(), left_out), (SHOWN + 1, 400));
        assert_eq!(kept.last().unwrap().kind, EventKind::Listen);
    }
}
