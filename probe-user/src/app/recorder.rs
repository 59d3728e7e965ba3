//! The command `record-events`: what happens is kept, and told once it is on the disk.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Failure;
use super::drops::DroppingRules;
use super::metrics::MetricsServer;
use super::trace::{EventNames, stop_on_signals};
use crate::cli::{Global, RecordEventsArgs};
use crate::exit::Exit;
use crate::model::{
    DroppedBy, EventKind, HistoryEntry, HistoryHolder, HistoryRecord, Impact, ListenerRecord,
    Moment, Traced,
};
use crate::node::history::{StoreError, StoreLimits, Writer};
use crate::node::{self, Watch, WatchRequest};
use crate::resolve;
use crate::view;
use crate::view::metrics::Numbers;

/// How long is waited at most before looking whether to end.
const TICK: Duration = Duration::from_millis(250);
/// How often it is kept that the recorder runs: so much of the end of one that was killed is
/// not known.
const ALIVE: Duration = Duration::from_secs(10);
/// How many entries wait for room on the disk; what comes then is counted only.
const WAITING: usize = 100_000;
/// How many are written at once.
const AT_ONCE: usize = 1000;
/// How often is tried again to write what waits.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the queues of listeners are read for metrics.
const QUEUES: Duration = Duration::from_secs(15);
/// The longest name that is kept.
const LONGEST: usize = 256;

pub(super) fn run(
    global: &Global,
    args: &RecordEventsArgs,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    if global.replay.is_some() || global.record.is_some() {
        return Err(Failure::Usage(
            "record-events watches this node as it runs: it can't use or write a recording"
                .to_owned(),
        ));
    }
    let stop = stop_on_signals()?;
    let boot = node::boot_id()
        .map_err(|error| Failure::Tool(format!("reading the id of this boot: {error}")))?;
    let limits = StoreLimits { keep: args.keep, size: args.max_size };
    let writer = Writer::open(&args.dir, limits, &boot)?;
    let mut server = args.metrics.as_ref().map(MetricsServer::start).transpose()?;
    let mut kinds = args.events.clone();
    // Without these it is not known who listens when a new file begins.
    for kind in [EventKind::Listen, EventKind::Bind, EventKind::Close] {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let wanted = WatchRequest {
        kinds,
        ports: None,
        drops: Vec::new(),
        interval: args.interval,
        ebpf: !args.no_ebpf,
        buffer: None,
    };
    let mut watch = node::watch(&wanted).map_err(|error| super::no_procfs(&error))?;
    // What is loaded stays; from now on only reading is left.
    node::drop_rights();
    let mut recorder = EventRecorder {
        writer,
        names: EventNames::new(global.timeout)?,
        rules: DroppingRules::new(global.timeout),
        kinds: args.events.clone(),
        open: HashMap::new(),
        waiting: Vec::new(),
        unkept: 0,
        failing: None,
        lost: 0,
        spoke: Instant::now(),
        verbose: global.verbose > 0,
        numbers: Numbers::default(),
    };
    recorder.begin(watch.as_ref(), out)?;
    let gaps = recorder.gaps(watch.as_ref());
    for gap in &gaps {
        complain(&format!("not recorded: {}", view::clean(gap)));
    }
    complain(&format!(
        "recording in {}; Ctrl-C ends",
        view::clean(&args.dir.display().to_string())
    ));
    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut queues = None::<Instant>;
    loop {
        let left = end.map_or(TICK, |end| end.saturating_duration_since(Instant::now()));
        let last = left.is_zero() || stop.load(Ordering::Relaxed);
        recorder.step(watch.as_mut(), if last { Duration::ZERO } else { left.min(TICK) });
        if last {
            recorder.waiting.push((node::moment(), HistoryRecord::End));
        }
        recorder.flush(last, out);
        if let Some(server) = &mut server {
            if queues.is_none_or(|read| read.elapsed() > QUEUES) {
                recorder.numbers.queues = resolve::queues(recorder.names.fresh());
                queues = Some(Instant::now());
            }
            recorder.numbers.listeners = listeners(&recorder.open);
            recorder.numbers.bytes = recorder.writer.total();
            server.publish(&recorder.numbers);
        }
        if last {
            break;
        }
    }
    match recorder.failing {
        None => Ok(Exit::Found),
        Some((_, why)) => Err(Failure::Tool(format!(
            "{why}; {} events are not kept",
            recorder.waiting.len() as u64 + recorder.unkept
        ))),
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::InUse { .. } => Self::Usage(error.to_string()),
            StoreError::Io { .. } => Self::Tool(error.to_string()),
        }
    }
}

/// A running recorder of events.
struct EventRecorder {
    writer: Writer,
    names: EventNames,
    rules: DroppingRules,
    /// The kinds that are kept.
    kinds: Vec<EventKind>,
    /// What listens, and since when it is known to.
    open: HashMap<ListenerIdentity, (ListenerRecord, Option<Moment>)>,
    /// What is not on the disk yet.
    waiting: Vec<(Moment, HistoryRecord)>,
    /// How many events there was no room for, not even to wait.
    unkept: u64,
    /// Since when, and why, nothing can be written.
    failing: Option<(Instant, String)>,
    /// How many events the watch had lost.
    lost: u64,
    /// When an entry was kept last.
    spoke: Instant,
    verbose: bool,
    numbers: Numbers,
}

/// What makes a listener the same one.
type ListenerIdentity = (
    Option<crate::model::NetnsId>,
    crate::model::Proto,
    std::net::IpAddr,
    Option<crate::model::Port>,
    Option<u64>,
);

fn key(listener: &ListenerRecord) -> ListenerIdentity {
    (listener.netns, listener.proto, listener.address, listener.port, listener.inode)
}

impl EventRecorder {
    fn gaps(&self, watch: &dyn Watch) -> Vec<String> {
        let gaps = watch.gaps().into_iter().filter(|gap| gap.impact == Impact::Port);
        gaps.map(|gap| format!("{}: {}", gap.source, gap.reason)).collect()
    }

    /// Keeps what listens, before anything else.
    fn begin(&mut self, watch: &dyn Watch, out: &mut impl Write) -> Result<(), Failure> {
        let begun = node::moment();
        let (events, unread) = resolve::listening(self.names.fresh());
        let traced = resolve::trace(self.names.node(), &events);
        self.open.extend(traced.iter().map(|traced| {
            let listener = listener(traced);
            (key(&listener), (listener, None))
        }));
        let mut gaps = self.gaps(watch);
        let unread = unread.into_iter().filter(|gap| gap.impact == Impact::Port);
        gaps.extend(unread.map(|gap| format!("{}: {}", gap.source, gap.reason)));
        let entries = self.snapshot(begun, false, gaps);
        let kept = self.writer.append(entries)?;
        self.writer.prune();
        self.acknowledge(&kept, out);
        Ok(())
    }

    /// What listens, as entries.
    fn snapshot(
        &self,
        at: Moment,
        goes_on: bool,
        gaps: Vec<String>,
    ) -> Vec<(Moment, HistoryRecord)> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let begin = HistoryRecord::Begin { goes_on, kinds: self.kinds.clone(), gaps, version };
        let one = |(listener, since): &(ListenerRecord, Option<Moment>)| {
            (at, HistoryRecord::Listener { listener: listener.clone(), since: *since })
        };
        let all = self.open.values().map(one);
        std::iter::once((at, begin)).chain(all).chain([(at, HistoryRecord::Ready)]).collect()
    }

    /// Waits for events, and takes them in.
    fn step(&mut self, watch: &mut dyn Watch, timeout: Duration) {
        let events = watch.next(timeout);
        let now = node::moment();
        let mut traced = self.names.trace(&events);
        self.rules.add(&mut traced);
        for traced in &traced {
            let kind = traced.event.kind;
            // The time of an event is by the clock as it is set now.
            let mono = (i128::from(traced.event.at) - i128::from(now.wall)) + i128::from(now.mono);
            let at = Moment { mono: u64::try_from(mono).unwrap_or(0), wall: traced.event.at };
            let listener = listener(traced);
            match kind {
                EventKind::Listen | EventKind::Bind => {
                    self.open.insert(key(&listener), (listener.clone(), Some(at)));
                }
                EventKind::Close => drop(self.open.remove(&key(&listener))),
                EventKind::Connect | EventKind::Accept | EventKind::Nat | EventKind::Drop => {}
            }
            self.numbers.count(&traced.event);
            if !self.kinds.contains(&kind) {
                continue;
            }
            let rule = match &traced.dropped_by {
                Some(DroppedBy::Rule(rule)) => Some(cut(rule)),
                _ => None,
            };
            let (peer, dropped) = (traced.event.peer, traced.event.dropped.clone());
            self.keep(at, HistoryRecord::Event { kind, listener, peer, dropped, rule });
        }
        let lost = watch.lost();
        if lost > self.lost {
            let why = "they came faster than they were read".to_owned();
            self.keep(now, HistoryRecord::Lost { events: lost - self.lost, why });
            self.lost = lost;
            self.numbers.lost = lost;
        }
        if self.waiting.is_empty() && self.spoke.elapsed() >= ALIVE {
            self.keep(now, HistoryRecord::Alive);
        }
    }

    fn keep(&mut self, at: Moment, what: HistoryRecord) {
        if self.waiting.len() < WAITING {
            self.waiting.push((at, what));
        } else {
            self.unkept += 1;
        }
    }

    /// Writes what waits. Where that fails it waits on, and is tried again.
    fn flush(&mut self, last: bool, out: &mut impl Write) {
        let is_early = |(since, _): &(Instant, String)| since.elapsed() < AGAIN;
        if self.waiting.is_empty() || (!last && self.failing.as_ref().is_some_and(is_early)) {
            return;
        }
        // Some may fit where all together do not.
        while !self.waiting.is_empty() {
            let some = self.waiting.len().min(AT_ONCE);
            let entries = self.waiting.iter().take(some).cloned().collect();
            match self.writer.append(entries) {
                Ok(kept) => {
                    drop(self.waiting.drain(..some));
                    self.numbers.entries += kept.len() as u64;
                    self.acknowledge(&kept, out);
                }
                Err(error) => {
                    self.fails(error.to_string());
                    return;
                }
            }
            if self.waiting.is_empty() && self.unkept > 0 {
                let why = "there was no room for them on the disk".to_owned();
                let events = std::mem::take(&mut self.unkept);
                self.numbers.lost += events;
                self.waiting.push((node::moment(), HistoryRecord::Lost { events, why }));
            }
        }
        if self.failing.take().is_some() {
            complain("writing works again");
        }
        self.spoke = Instant::now();
        self.numbers.is_failing = false;
        if self.writer.is_full() {
            self.turn();
        }
    }

    /// Says once why nothing can be written.
    fn fails(&mut self, why: String) {
        if self.failing.as_ref().is_none_or(|(_, before)| *before != why) {
            complain(&format!("{}; events wait in memory", view::clean(&why)));
        }
        self.failing = Some((Instant::now(), why));
        self.numbers.is_failing = true;
    }

    /// Goes on in a new file, which begins with all that listens.
    fn turn(&mut self) {
        if let Err(error) = self.writer.turn() {
            tracing::debug!("a new file: {error}");
            return;
        }
        let entries = self.snapshot(node::moment(), true, Vec::new());
        match self.writer.append(entries) {
            Ok(kept) => self.numbers.entries += kept.len() as u64,
            // The file before has it all; it is only not forgotten as soon.
            Err(error) => tracing::debug!("a new file: {error}"),
        }
    }

    /// Tells what is on the disk, as long as somebody reads it: recording goes on in any case.
    fn acknowledge(&mut self, kept: &[HistoryEntry], out: &mut impl Write) {
        if self.verbose {
            let text: String = kept.iter().map(view::history::kept).collect();
            self.verbose = out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok();
        }
    }
}

/// Who has a port, as it is kept.
fn listener(traced: &Traced) -> ListenerRecord {
    let event = &traced.event;
    let name = |name: &crate::model::NetnsName| cut(&name.to_string());
    let holder = event.actor.as_ref().map(|actor| HistoryHolder {
        pid: actor.pid,
        start: actor.start,
        uid: actor.uid,
        name: cut(traced.process.as_ref().map_or(&actor.comm, |p| p.name())),
        container: traced.containers.last().map(|c| cut(c.name.as_deref().unwrap_or(&c.id))),
        pod: traced.pod.as_ref().and_then(|pod| {
            let name = pod.name.as_deref()?;
            Some(cut(&pod
                .namespace
                .as_ref()
                .map_or_else(|| name.to_owned(), |n| format!("{n}/{name}"))))
        }),
        unit: traced.unit.as_deref().map(cut),
    });
    ListenerRecord {
        netns: event.netns,
        netns_name: traced.netns.as_ref().and_then(|netns| netns.name.as_ref()).map(name),
        proto: event.proto,
        address: event.address,
        port: event.port,
        inode: event.inode,
        holder,
    }
}

/// A name may be as long as its owner likes.
fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// How many listeners each owner has.
fn listeners(
    open: &HashMap<ListenerIdentity, (ListenerRecord, Option<Moment>)>,
) -> HashMap<(&'static str, String), u64> {
    let mut all = HashMap::new();
    for (listener, _) in open.values() {
        let owner = listener.holder.as_ref().map_or("", |holder| {
            let known = [&holder.pod, &holder.container, &holder.unit];
            known.into_iter().flatten().next().unwrap_or(&holder.name)
        });
        *all.entry((listener.proto.as_str(), owner.to_owned())).or_default() += 1;
    }
    all
}

/// Writes to standard error, whether or not anybody reads it.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
