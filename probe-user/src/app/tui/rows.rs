//! The thread that reads the ports: all of them now and then, and those of events at once.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::source::Source;
use crate::model::{Connections, HopKind, NetnsId, Port, PortRange, Proto};
use crate::node::Node;
use crate::resolve::{self, ListFilter};
use crate::view::Style;
use crate::view::tui::state::ports::{Delta, Differ};
use crate::view::tui::state::{Message, Readout};
use crate::view::tui::{Row, rows};

/// What is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything.
    Whole,
    /// These ports: something happened on them.
    Ports(BTreeSet<Port>),
}

/// The shortest and the longest time between two readings of everything, which are only a
/// safety net: rules and names can change without an event.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
/// A reading of everything is followed by this many times its own duration without one,
/// which keeps an idle screen below one percent of a core.
const REST: u32 = 200;
/// How many ports are read one by one; with more, everything is.
const FEW: usize = 8;
/// For how long events are gathered before their ports are read.
const GATHER: Duration = Duration::from_millis(60);

/// Reads until nobody wants anything any more.
pub(super) fn run(
    source: &Source,
    style: Style,
    wanted: &Receiver<Wanted>,
    out: &UnboundedSender<Message>,
) {
    let mut differ = Differ::default();
    let mut next = Some(Wanted::Whole);
    let mut rest = SHORTEST;
    let mut read_at = Instant::now();
    loop {
        let message = match next.take() {
            None => None,
            Some(wanted) => {
                let since = Instant::now();
                let whole = match &wanted {
                    Wanted::Ports(ports) if ports.len() <= FEW => Some(ports),
                    _ => None,
                };
                let read = super::caught(|| read(source, &style, whole, &mut differ));
                if whole.is_none() {
                    rest = (since.elapsed() * REST).clamp(SHORTEST, LONGEST);
                    read_at = Instant::now();
                }
                Some(match read {
                    Ok((delta, mut readout)) => {
                        readout.ms = since.elapsed().as_secs_f64() * 1000.0;
                        Message::Rows(delta, Box::new(readout))
                    }
                    Err(why) => Message::Failed(why),
                })
            }
        };
        if message.is_some_and(|message| out.send(message).is_err()) {
            return;
        }
        // A recorded node does not change.
        let timeout = match source {
            Source::Live(_) => rest.saturating_sub(read_at.elapsed()),
            _ => Duration::from_secs(3600),
        };
        next = match wanted.recv_timeout(timeout) {
            Ok(first) => Some(gather(first, wanted)),
            Err(RecvTimeoutError::Timeout) => {
                matches!(source, Source::Live(_)).then_some(Wanted::Whole)
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

/// What else is wanted within a moment, together with `first`.
fn gather(first: Wanted, wanted: &Receiver<Wanted>) -> Wanted {
    let until = Instant::now() + GATHER;
    let mut all = first;
    while let Ok(more) = wanted.recv_timeout(until.saturating_duration_since(Instant::now())) {
        all = match (all, more) {
            (Wanted::Ports(mut known), Wanted::Ports(more)) => {
                known.extend(more);
                Wanted::Ports(known)
            }
            _ => Wanted::Whole,
        };
    }
    all
}

/// Reads everything, or some ports, and says what has changed.
pub(super) fn read(
    source: &Source,
    style: &Style,
    ports: Option<&BTreeSet<Port>>,
    differ: &mut Differ,
) -> Result<(Delta, Readout), String> {
    let node = source.open()?;
    let Some(ports) = ports else {
        let (rows, readout) = all(&*node, style);
        return Ok((differ.diff(rows, |_| true), readout));
    };
    let mut delta = Delta::default();
    for port in ports {
        let filter = ListFilter { ports: Some(PortRange::one(*port)), ..ListFilter::default() };
        let listing = resolve::list(&*node, &filter);
        let one = differ.diff(rows(&listing, style), |key| key.port == *port);
        delta.put.extend(one.put);
        delta.gone.extend(one.gone);
    }
    let host = Some(node.host().value);
    Ok((delta, Readout { host, whole: false, ..Readout::default() }))
}

/// Every port of a node.
pub(super) fn all(node: &dyn Node, style: &Style) -> (Vec<Row>, Readout) {
    let listing = resolve::list(node, &ListFilter::default());
    let mut rows = rows(&listing, style);
    let netns: Vec<NetnsId> = node.netns().value.iter().map(|netns| netns.id).collect();
    count(&mut rows, &node.connections(&netns));
    let readout = Readout {
        host: Some(node.host().value),
        netns: netns.len(),
        gaps: listing.gaps.clone(),
        sources: node.sources(),
        ms: 0.0,
        whole: true,
    };
    (rows, readout)
}

/// Gives listeners the connections whose local end is theirs: of those with the same port
/// the one that is bound to the address, else those that are bound to all.
fn count(rows: &mut [Row], connections: &[Connections]) {
    if connections.is_empty() {
        return;
    }
    let mut by_port: HashMap<(NetnsId, Port), Vec<(IpAddr, u32)>> = HashMap::new();
    for one in connections {
        by_port.entry((one.netns, one.port)).or_default().push((one.address, one.count));
    }
    let listener = |row: &Row| row.kind == HopKind::Listener && row.key.proto == Proto::Tcp;
    let bound: BTreeSet<(NetnsId, Port, IpAddr)> = rows
        .iter()
        .filter(|row| listener(row))
        .map(|row| (row.key.netns, row.key.port, row.key.address.to_canonical()))
        .collect();
    for row in rows.iter_mut().filter(|row| listener(row)) {
        let address = row.key.address.to_canonical();
        let here = by_port.get(&(row.key.netns, row.key.port)).into_iter().flatten();
        let mine = here.filter(|(local, _)| {
            let other = bound.contains(&(row.key.netns, row.key.port, *local));
            *local == address
                || (address.is_unspecified() && !other && (address.is_ipv6() || local.is_ipv4()))
        });
        row.conns = Some(mine.map(|(_, count)| count).sum());
    }
}
