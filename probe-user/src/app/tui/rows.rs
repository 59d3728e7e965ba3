//! The thread that reads the ports: all of them now and then, and those of events at once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::slot::Slot;
use super::source::NodeSource;
use crate::model::{Connections, HopKind, NetnsId, Port, PortRange, Proto};
use crate::node::{self, ChangeSet, LiveNode, LoadedIterators, Node, Pulse, Topology as _};
use crate::resolve::{self, ListFilter};
use crate::view::Style;
use crate::view::tui::state::ports::{Delta, Differ};
use crate::view::tui::state::{Message, Readout};
use crate::view::tui::{Row, rows};

/// How much of the rows is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RowsRequest {
    /// Everything.
    Whole,
    /// What has changed, if a look at the node can tell.
    Changes,
    /// These ports: something happened on them.
    Ports(BTreeSet<Port>),
}

/// The shortest and the longest time between two looks at the node, which are only a
/// safety net: events tell most of what happens.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);
/// Without an iterator each look reads everything, and not so often.
const SHORTEST_WHOLE: Duration = Duration::from_secs(5);
/// A look is followed by this many times its own duration without one, which keeps an
/// idle screen below one percent of a core.
const REST: u32 = 200;
/// After this time everything is read: names and load balancers change unseen.
const WHOLE: Duration = Duration::from_secs(60);
/// How many ports are read one by one; with more, everything is.
const FEW: usize = 8;
/// How long loading of programs that watch may keep the first reading waiting.
const PATIENCE: Duration = Duration::from_secs(2);
/// For how long events are gathered before their ports are read.
const GATHER: Duration = Duration::from_millis(60);

/// Reads until nobody listens any more.
pub(super) fn run(
    source: &NodeSource,
    ebpf: bool,
    style: Style,
    loaded: &Receiver<()>,
    wanted: &Slot<RowsRequest>,
    out: &Sender<Message>,
) {
    let mut reader =
        RowsReader { source, style, kept: None, differ: Differ::default(), pulse: None };
    // Loading needs the kernel's types, tens of megabytes for a moment. One after the
    // other, and before there are rows, that is had only once.
    let _in_time = loaded.recv_timeout(PATIENCE);
    if ebpf {
        reader.keep_iterators();
    }
    // What is loaded stays.
    node::drop_rights();
    let mut next = Some(RowsRequest::Whole);
    let mut rest = SHORTEST_WHOLE;
    let mut looked_at = Instant::now();
    let mut whole_at = Instant::now();
    let mut first = true;
    loop {
        let message = match next.take() {
            None => None,
            Some(wanted) => {
                let since = Instant::now();
                let wanted = match wanted {
                    RowsRequest::Ports(ports) if ports.len() > FEW => RowsRequest::Whole,
                    RowsRequest::Changes if whole_at.elapsed() >= WHOLE => RowsRequest::Whole,
                    wanted => wanted,
                };
                let looks = !matches!(wanted, RowsRequest::Ports(_));
                let read = super::caught(|| reader.read(wanted));
                let took = since.elapsed();
                let whole = read.as_ref().map_or(true, |(_, readout)| readout.whole);
                if whole {
                    whole_at = Instant::now();
                }
                if looks {
                    let shortest = if whole { SHORTEST_WHOLE } else { SHORTEST };
                    rest = (took * REST).clamp(shortest, LONGEST);
                    // Looks cost less than the reading that comes first.
                    if std::mem::take(&mut first) && reader.pulse.is_some() {
                        rest = SHORTEST;
                    }
                    looked_at = Instant::now();
                }
                Some(match read {
                    Ok((delta, mut readout)) => {
                        readout.ms = took.as_secs_f64() * 1000.0;
                        Message::Rows(delta, Box::new(readout))
                    }
                    Err(why) => Message::Failed(why),
                })
            }
        };
        if message.is_some_and(|message| out.blocking_send(message).is_err()) {
            return;
        }
        // A recorded node does not change.
        let timeout = match source {
            NodeSource::Live(_) => rest.saturating_sub(looked_at.elapsed()),
            _ => Duration::from_secs(3600),
        };
        next = match wanted.take(timeout) {
            Some(first) => {
                // What else is wanted within a moment is read together with it.
                std::thread::sleep(GATHER);
                Some(RowsRequest::with(wanted.take(Duration::ZERO), first))
            }
            None => matches!(source, NodeSource::Live(_)).then_some(RowsRequest::Changes),
        };
    }
}

impl RowsRequest {
    /// This, and what was wanted before.
    pub(super) fn with(before: Option<Self>, more: Self) -> Self {
        match (before, more) {
            (None, more) => more,
            (Some(Self::Ports(mut known)), Self::Ports(more)) => {
                known.extend(more);
                Self::Ports(known)
            }
            (Some(Self::Whole), _) | (_, Self::Whole) => Self::Whole,
            (Some(ports @ Self::Ports(_)), Self::Changes) | (Some(Self::Changes), ports) => ports,
        }
    }
}

/// Reads rows again and again, and keeps what is known from one reading to the next.
struct RowsReader<'a> {
    source: &'a NodeSource,
    style: Style,
    /// Iterators that stay loaded.
    kept: Option<Rc<LoadedIterators>>,
    differ: Differ,
    /// The last look, if any can be had.
    pulse: Option<Pulse>,
}

impl RowsReader<'_> {
    /// Loads the iterators for all further readings, where they are not pinned.
    fn keep_iterators(&mut self) {
        // A recorded node has none.
        let live = matches!(self.source, NodeSource::Live(_));
        self.kept = if live { LoadedIterators::load().map(Rc::new) } else { None };
        // The first reading looks as well, if a look can be had.
        self.pulse = live.then(Pulse::default);
    }

    fn live(&self) -> Result<LiveNode, String> {
        let node = self.source.open_live()?;
        Ok(match &self.kept {
            Some(kept) => node.with_iterators(Rc::clone(kept)),
            None => node,
        })
    }

    /// Reads what is wanted, and says what has changed.
    fn read(&mut self, wanted: RowsRequest) -> Result<(Delta, Readout), String> {
        match wanted {
            RowsRequest::Ports(ports) => Ok(self.ports(&self.live()?, &ports)),
            RowsRequest::Changes if self.pulse.is_some() => self.changes(),
            RowsRequest::Whole | RowsRequest::Changes => self.whole(),
        }
    }

    fn whole(&mut self) -> Result<(Delta, Readout), String> {
        let NodeSource::Live(_) = self.source else {
            return Ok(whole(&*self.source.open()?, &self.style, &mut self.differ));
        };
        let node = self.live()?;
        // First, so that the next look sees what changes during the reading.
        if self.pulse.is_some() {
            self.pulse = node.pulse();
        }
        Ok(whole(&node, &self.style, &mut self.differ))
    }

    /// Looks at the node, and reads what is different.
    fn changes(&mut self) -> Result<(Delta, Readout), String> {
        let node = self.live()?;
        let (Some(before), Some(now)) = (&self.pulse, node.pulse()) else {
            self.pulse = None;
            return self.whole();
        };
        let (mut delta, mut readout) = match now.since(before) {
            ChangeSet::Nothing => (Delta::default(), Readout::default()),
            ChangeSet::Ports(ports) if ports.len() <= FEW => self.ports(&node, &ports),
            ChangeSet::Ports(_) | ChangeSet::Everything => {
                self.pulse = Some(now);
                return Ok(whole(&node, &self.style, &mut self.differ));
            }
        };
        let counted = {
            let counts = ConnectionCounts::new(self.differ.rows(), &now.connections);
            self.differ.count(|row| counts.of(row))
        };
        delta.put.retain(|row| counted.put.iter().all(|counted| counted.key != row.key));
        delta.put.extend(counted.put);
        readout.host = Some(node.host().value);
        readout.looked = true;
        self.pulse = Some(now);
        Ok((delta, readout))
    }

    fn ports(&mut self, node: &LiveNode, ports: &BTreeSet<Port>) -> (Delta, Readout) {
        let mut delta = Delta::default();
        for port in ports {
            let filter = ListFilter { ports: Some(PortRange::one(*port)), ..ListFilter::default() };
            let listing = resolve::list(node, &filter);
            let one = self.differ.diff(rows(&listing, &self.style), |key| key.port == *port);
            delta.put.extend(one.put);
            delta.gone.extend(one.gone);
        }
        (delta, Readout { host: Some(node.host().value), ..Readout::default() })
    }
}

/// Reads everything, and says what has changed.
pub(super) fn whole(node: &dyn Node, style: &Style, differ: &mut Differ) -> (Delta, Readout) {
    let (rows, readout) = all(node, style);
    (differ.diff(rows, |_| true), readout)
}

/// Every port of a node.
pub(super) fn all(node: &dyn Node, style: &Style) -> (Vec<Row>, Readout) {
    let listing = resolve::list(node, &ListFilter::default());
    let mut rows = rows(&listing, style);
    let netns: Vec<NetnsId> = node.netns().value.iter().map(|netns| netns.id).collect();
    let connections = node.connections(&netns);
    let counts = ConnectionCounts::new(rows.iter(), &connections);
    let conns: Vec<Option<u32>> = rows.iter().map(|row| counts.of(row)).collect();
    for (row, conns) in rows.iter_mut().zip(conns) {
        row.conns = conns;
    }
    let readout = Readout {
        host: Some(node.host().value),
        netns: netns.len(),
        gaps: listing.gaps.clone(),
        sources: node.sources(),
        ms: 0.0,
        whole: true,
        looked: false,
    };
    (rows, readout)
}

/// The connections whose local end is a listener's: of those with the same port the one
/// that is bound to the address has them, else those that are bound to all.
struct ConnectionCounts {
    by_port: HashMap<(NetnsId, Port), Vec<(IpAddr, u32)>>,
    bound: HashSet<(NetnsId, Port, IpAddr)>,
}

impl ConnectionCounts {
    fn new<'a>(rows: impl Iterator<Item = &'a Row>, connections: &[Connections]) -> Self {
        let mut by_port: HashMap<(NetnsId, Port), Vec<(IpAddr, u32)>> = HashMap::new();
        for one in connections {
            by_port.entry((one.netns, one.port)).or_default().push((one.address, one.count));
        }
        let key = |row: &Row| (row.key.netns, row.key.port, row.key.address.to_canonical());
        let listeners = rows.filter(|row| is_counted(row));
        let bound =
            listeners.map(key).filter(|(netns, port, _)| by_port.contains_key(&(*netns, *port)));
        Self { bound: bound.collect(), by_port }
    }

    fn of(&self, row: &Row) -> Option<u32> {
        // Where no connection is known they were not read, or there are none anywhere.
        if self.by_port.is_empty() || !is_counted(row) {
            return None;
        }
        let address = row.key.address.to_canonical();
        let here = self.by_port.get(&(row.key.netns, row.key.port)).into_iter().flatten();
        let mine = here.filter(|(local, _)| {
            let other = self.bound.contains(&(row.key.netns, row.key.port, *local));
            *local == address
                || (address.is_unspecified() && !other && (address.is_ipv6() || local.is_ipv4()))
        });
        Some(mine.map(|(_, count)| count).sum())
    }
}

fn is_counted(row: &Row) -> bool {
    row.kind == HopKind::Listener && row.key.proto == Proto::Tcp
}
