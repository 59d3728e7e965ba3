//! The command `trace`: events as they happen, until somebody or something ends it.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::Failure;
use crate::cli::{Global, TraceArgs};
use crate::exit::Exit;
use crate::model::{Event, Gap, Host, Impact, PortRange, Query, Traced};
use crate::node::{self, LiveNode, Reports as _, Topology as _, Watch, WatchRequest};
use crate::resolve;
use crate::view::trace::Summary;
use crate::view::{self, Style};

/// How long is waited at most before looking whether to end: a signal may come
/// just before a wait, and a closed pipe wakes nobody.
const TICK: Duration = Duration::from_millis(250);

/// How often the node is read anew, at most, to name what is unknown.
const REFRESH: Duration = Duration::from_secs(1);
/// When it is read anew in any case: names change, and what was read of
/// processes that have ended takes memory.
const STALE: Duration = Duration::from_secs(60);
/// So many events make it stale too.
const MANY: usize = 4096;

/// Watches until it is ended, and says what was seen.
pub(super) fn run(
    global: &Global,
    args: &TraceArgs,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    if global.replay.is_some() || global.record.is_some() {
        return Err(Failure::Usage(
            "trace watches this node as it runs: it can't use or write a recording".to_owned(),
        ));
    }
    let queries = super::queries(global, &args.targets)?;
    let stop = stop_on_signals()?;
    let wanted = WatchRequest {
        kinds: args.events.clone(),
        ports: all_ports(&queries),
        drops: queries.iter().map(|query| query.ports).collect(),
        interval: args.interval,
        ebpf: !args.no_ebpf,
        buffer: None,
    };
    let mut watch = node::watch(&wanted).map_err(|error| super::no_procfs(&error))?;
    // What is loaded stays; from now on only reading is left.
    node::drop_rights();
    let names = EventNames::new(global.timeout)?;
    let begun = Instant::now();
    let mut tracer = Tracer {
        end: args.duration.map(|duration| begun + duration),
        left: args.count,
        queries,
        names,
        rules: super::drops::DroppingRules::new(global.timeout),
        printer: Printer::new(global, args),
        summary: Summary::default(),
    };
    tracer.printer.start(&tracer.names.node.host().value, watch.as_ref(), out)?;
    let ended = tracer.watch(watch.as_mut(), &stop, out);
    let mut summary = tracer.summary;
    summary.watched = begun.elapsed();
    let closed = matches!(ended, Err(Failure::ClosedPipe));
    if !closed {
        ended?;
    }
    tracer.printer.end(&summary, &watch.gaps(), closed, out)?;
    if global.verbose > 0 && !global.json {
        let host = tracer.names.node.host().value;
        let sources = [watch.sources(), tracer.names.node.sources()].concat();
        let sources = view::doctor::judged(&host, sources);
        complain(&view::doctor::report(&host, &sources, &tracer.printer.style));
    }
    Ok(exit(&summary, &watch.gaps()))
}

/// What the exit status says of a watch.
fn exit(summary: &Summary, gaps: &[Gap]) -> Exit {
    if summary.events() > 0 {
        Exit::Found
    } else if summary.lost > 0 || gaps.iter().any(|gap| gap.impact == Impact::Port) {
        Exit::Unknown
    } else {
        Exit::NotFound
    }
}

/// The smallest range with every port that is asked for; `None` for all ports.
fn all_ports(queries: &[Query]) -> Option<PortRange> {
    let first = queries.iter().map(|query| query.ports.first).min()?;
    let last = queries.iter().map(|query| query.ports.last).max()?;
    Some(PortRange { first, last })
}

/// A flag that the first Ctrl-C or SIGTERM sets; the second ends at once.
pub(super) fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Failure::Tool(format!("handling signal {signal}: {error}")))?;
    }
    Ok(stop)
}

/// A running trace.
struct Tracer {
    end: Option<Instant>,
    /// How many more events are wanted.
    left: Option<u64>,
    queries: Vec<Query>,
    names: EventNames,
    rules: super::drops::DroppingRules,
    printer: Printer,
    summary: Summary,
}

impl Tracer {
    fn watch(
        &mut self,
        watch: &mut dyn Watch,
        stop: &AtomicBool,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        loop {
            let left = self.end.map_or(TICK, |end| end.saturating_duration_since(Instant::now()));
            let last = left.is_zero() || stop.load(Ordering::Relaxed);
            // What happened before the end belongs to it.
            let mut events = watch.next(if last { Duration::ZERO } else { left.min(TICK) });
            events.retain(|event| self.is_wanted(event));
            events.truncate(
                self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX)),
            );
            self.left = self.left.map(|left| left - events.len() as u64);
            let mut all = self.names.trace(&events);
            self.rules.add(&mut all);
            for traced in all {
                self.printer.event(&traced, out)?;
                self.summary.count(traced.event.kind);
            }
            self.lost(watch.lost(), out)?;
            self.printer.gaps(&watch.gaps());
            out.flush()?;
            if last || self.left == Some(0) {
                return Ok(());
            }
            if nobody_reads() {
                return Err(Failure::ClosedPipe);
            }
        }
    }

    fn is_wanted(&self, event: &Event) -> bool {
        self.queries.is_empty() || self.queries.iter().any(|q| resolve::concerns(event, q))
    }

    fn lost(&mut self, total: u64, out: &mut impl Write) -> Result<(), Failure> {
        let lost = total.saturating_sub(self.summary.lost);
        if lost > 0 {
            self.summary.lost = total;
            self.printer.lost(lost, total, out)?;
        }
        Ok(())
    }
}

/// Whether standard output is a pipe or a terminal that nobody reads any more.
fn nobody_reads() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let ended = PollFlags::ERR | PollFlags::HUP;
    matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(1..))
        && polled[0].revents().intersects(ended)
}

/// Names processes, containers and namespaces of events, and reads the node anew when there are
/// new ones.
pub(super) struct EventNames {
    node: LiveNode,
    timeout: Option<Duration>,
    /// When it was read anew; `None` before the first time.
    read: Option<Instant>,
    begun: Instant,
    events: usize,
    /// What a fresh reading could not name either.
    nameless: HashSet<String>,
}

impl EventNames {
    pub(super) fn new(timeout: Option<Duration>) -> Result<Self, Failure> {
        let node = LiveNode::new().map_err(|error| super::no_procfs(&error))?.with_timeout(timeout);
        let begun = Instant::now();
        Ok(Self { node, timeout, read: None, begun, events: 0, nameless: HashSet::new() })
    }

    /// The node as it was read last.
    pub(super) fn node(&self) -> &LiveNode {
        &self.node
    }

    /// The node, read anew.
    pub(super) fn fresh(&mut self) -> &LiveNode {
        self.refresh();
        &self.node
    }

    pub(super) fn trace(&mut self, events: &[Event]) -> Vec<Traced> {
        if events.is_empty() {
            return Vec::new();
        }
        self.events += events.len();
        let age = self.read.unwrap_or(self.begun).elapsed();
        if age > STALE || (self.events > MANY && age > REFRESH) {
            self.refresh();
        }
        let traced = resolve::trace(&self.node, events);
        if self.unnamed(&traced).is_empty() || self.read.is_some_and(|r| r.elapsed() < REFRESH) {
            return traced;
        }
        self.refresh();
        let traced = resolve::trace(&self.node, events);
        let unnamed = self.unnamed(&traced);
        self.nameless.extend(unnamed);
        traced
    }

    fn unnamed(&self, traced: &[Traced]) -> BTreeSet<String> {
        let mut unnamed = resolve::unnamed(&self.node, traced);
        unnamed.retain(|name| !self.nameless.contains(name));
        unnamed
    }

    fn refresh(&mut self) {
        // Without procfs for a moment, what was read before still counts.
        if let Ok(node) = LiveNode::new() {
            self.node = node.with_timeout(self.timeout);
        }
        self.read = Some(Instant::now());
        self.events = 0;
        // Numbers are used again, so this is not for ever.
        if self.nameless.len() > MANY {
            self.nameless.clear();
        }
    }
}

/// Writes events, and what is to be said about them.
struct Printer {
    json: bool,
    style: Style,
    /// Of standard error.
    notes: Style,
    args: TraceArgs,
    said: Vec<Gap>,
}

impl Printer {
    fn new(global: &Global, args: &TraceArgs) -> Self {
        let env = |name: &str| std::env::var(name).ok();
        let notes = Style::detect(global.color, io::stderr().is_terminal(), env, None);
        Self {
            json: global.json,
            style: super::style(global),
            notes,
            args: args.clone(),
            said: Vec::new(),
        }
    }

    fn start(&mut self, host: &Host, watch: &dyn Watch, out: &mut impl Write) -> io::Result<()> {
        let (gaps, sources) = (watch.gaps(), watch.sources());
        if self.json {
            let line = view::json::start(&self.args.events, host, &gaps, &sources);
            view::json::write_line(&line, out)?;
            out.flush()?;
            return Ok(());
        }
        let comparing = sources.iter().any(|source| source.name == node::COMPARISON);
        let comparing = comparing.then_some(self.args.interval);
        self.gaps(&gaps);
        let TraceArgs { events, targets, .. } = &self.args;
        complain(&view::trace::header(events, targets, comparing, &self.notes));
        Ok(())
    }

    fn event(&self, traced: &Traced, out: &mut impl Write) -> io::Result<()> {
        if self.json {
            return view::json::write_line(&view::json::event(traced), out);
        }
        let offset = node::local_offset(traced.event.at / 1_000_000_000);
        out.write_all(view::trace::line(traced, &self.style, offset).as_bytes())
    }

    fn lost(&self, lost: u64, total: u64, out: &mut impl Write) -> io::Result<()> {
        if self.json {
            return view::json::write_line(&view::json::lost(lost, total), out);
        }
        // In the order in which it happened, where both go to one terminal.
        out.flush()?;
        complain(&view::trace::lost(lost, &self.notes));
        Ok(())
    }

    /// Says what can't be watched, each once. JSON has it in its first and last line.
    fn gaps(&mut self, gaps: &[Gap]) {
        for gap in gaps {
            if !self.json && !self.said.contains(gap) {
                complain(&view::trace::gap(gap, &self.notes));
                self.said.push(gap.clone());
            }
        }
    }

    fn end(
        &self,
        summary: &Summary,
        gaps: &[Gap],
        closed: bool,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if !self.json {
            complain(&view::trace::summary(summary));
        } else if !closed {
            view::json::write_line(&view::json::summary(summary, gaps), out)?;
            out.flush()?;
        }
        Ok(())
    }
}

/// Writes to standard error, whether or not anybody reads it.
fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventKind, Port, Scope};

    fn query(first: u16, last: u16) -> Query {
        Query {
            text: String::new(),
            ports: PortRange { first: Port(first), last: Port(last) },
            proto: None,
            scope: Scope::Everywhere,
            zone: None,
            name: None,
            subject: None,
        }
    }

    #[test]
    fn one_range_has_every_port_asked_for() {
        assert_eq!(all_ports(&[]), None);
        let all = all_ports(&[query(80, 80), query(8000, 8010), query(22, 22)]);
        assert_eq!(all, Some(PortRange { first: Port(22), last: Port(8010) }));
    }

    #[test]
    fn nothing_seen_means_nothing_only_when_everything_was_watched() {
        let nothing = Summary::default();
        let mut some = Summary::default();
        some.count(EventKind::Listen);
        let lossy = Summary { lost: 1, ..Summary::default() };
        let gap = |impact| [Gap::new(impact, crate::model::GapKind::Ebpf, "not there")];
        assert_eq!(exit(&nothing, &[]), Exit::NotFound);
        assert_eq!(exit(&nothing, &gap(Impact::Name)), Exit::NotFound);
        assert_eq!(exit(&nothing, &gap(Impact::Port)), Exit::Unknown);
        assert_eq!(exit(&lossy, &[]), Exit::Unknown);
        assert_eq!(exit(&some, &gap(Impact::Port)), Exit::Found);
    }
}
