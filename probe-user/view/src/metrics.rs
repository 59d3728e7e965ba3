//! Numbers for Prometheus and whoever else reads OpenMetrics.
//!
//! Labels are bounded: of owners, reasons and queues the most frequent have a line of their own,
//! and the rest is `other`. Both forms are the same but for the name of a counter's family and
//! the end, so that every reader gets the one that it understands.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use crate::clean;
use whereis_port_model::{AcceptQueue, DropFate, Event, EventKind, NetnsRef, Socket};

/// The content type of OpenMetrics.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// That of Prometheus' text format.
pub const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How many owners, reasons and queues have lines of their own.
const MOST: usize = 50;
/// The longest label.
const LONGEST: usize = 128;

/// What is counted.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// Events by kind.
    pub events: BTreeMap<EventKind, u64>,
    /// Packets that were dropped or refused, by what became of them and why.
    pub dropped: BTreeMap<(DropFate, String), u64>,
    /// Events that were lost.
    pub lost: u64,
    /// Listeners by protocol and owner.
    pub listeners: HashMap<(&'static str, String), u64>,
    /// Accept queues.
    pub queues: Vec<(NetnsRef, Socket, AcceptQueue)>,
    /// How many entries were written since the recorder began.
    pub entries: u64,
    /// How many bytes the store has.
    pub bytes: u64,
    /// Whether nothing can be written now.
    pub is_failing: bool,
}

impl Numbers {
    /// Counts an event.
    pub fn count(&mut self, event: &Event) {
        *self.events.entry(event.kind).or_default() += 1;
        if let Some(dropped) = &event.dropped {
            let reason = dropped.reason.clone().or_else(|| dropped.place.clone());
            let mut key = (dropped.fate, reason.unwrap_or_default());
            if !self.dropped.contains_key(&key) && self.dropped.len() >= MOST {
                key.1 = "other".to_owned();
            }
            *self.dropped.entry(key).or_default() += dropped.packets;
        }
    }
}

/// The text of all.
pub fn text(numbers: &Numbers, openmetrics: bool) -> String {
    let mut page = MetricsPage { text: String::new(), openmetrics };
    page.counter("events", "Events that were seen, by kind.", &by_kind(numbers));
    page.counter("events_lost", "Events that were lost.", &[(Vec::new(), numbers.lost)]);
    page.gauge("listeners", "Sockets that listen, by who has them.", &owners(numbers));
    let (waiting, limits, dropped) = queues(numbers);
    page.gauge("accept_queue_waiting", "Connections that wait to be accepted.", &waiting);
    page.gauge("accept_queue_limit", "How many may wait.", &limits);
    let what = "Connections that a listener did not take, since it listens.";
    page.counter("accept_queue_dropped", what, &dropped);
    let what = "Packets that were dropped or refused, by what became of them and why.";
    page.counter("dropped_packets", what, &reasons(numbers));
    let entries = [(Vec::new(), numbers.entries)];
    page.counter("store_entries", "Entries written since the recorder began.", &entries);
    page.gauge("store_bytes", "Size of the store.", &[(Vec::new(), numbers.bytes)]);
    let writable = [(Vec::new(), u64::from(!numbers.is_failing))];
    page.gauge("store_writable", "1 when events can be written.", &writable);
    if openmetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

/// The labels of a sample, and its value.
type MetricSample = (Vec<(&'static str, String)>, u64);

/// A page of samples that is being written.
struct MetricsPage {
    text: String,
    openmetrics: bool,
}

impl MetricsPage {
    /// A family of counters: OpenMetrics names it without the `_total` of its lines.
    fn counter(&mut self, name: &str, what: &str, lines: &[MetricSample]) {
        let of_line = format!("whereis_port_{name}_total");
        let family =
            if self.openmetrics { format!("whereis_port_{name}") } else { of_line.clone() };
        self.family(&family, &of_line, "counter", what, lines);
    }

    fn gauge(&mut self, name: &str, what: &str, lines: &[MetricSample]) {
        let name = format!("whereis_port_{name}");
        self.family(&name, &name, "gauge", what, lines);
    }

    fn family(&mut self, family: &str, name: &str, kind: &str, what: &str, lines: &[MetricSample]) {
        // One without lines is left out: not every reader likes it.
        if lines.is_empty() {
            return;
        }
        let _ = write!(self.text, "# HELP {family} {what}\n# TYPE {family} {kind}\n");
        for (labels, value) in lines {
            let labels: Vec<String> =
                labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
            let labels =
                if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.text, "{name}{labels} {value}");
        }
    }
}

/// A label's value: names come from outside.
fn escaped(value: &str) -> String {
    let value: String = value.chars().take(LONGEST).collect();
    clean(&value).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn by_kind(numbers: &Numbers) -> Vec<MetricSample> {
    let one = |kind: EventKind| {
        let count = numbers.events.get(&kind).copied().unwrap_or(0);
        (vec![("kind", kind.as_str().to_owned())], count)
    };
    EventKind::ALL.into_iter().map(one).collect()
}

fn owners(numbers: &Numbers) -> Vec<MetricSample> {
    let mut all: Vec<(&(&'static str, String), u64)> =
        numbers.listeners.iter().map(|(key, count)| (key, *count)).collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut lines: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (index, ((proto, owner), count)) in all.into_iter().enumerate() {
        let owner = match (index < MOST, owner.as_str()) {
            (false, _) => "other",
            (true, "") => "unknown",
            (true, owner) => owner,
        };
        *lines.entry((proto, owner)).or_default() += count;
    }
    let one = |((proto, owner), count): ((&str, &str), u64)| {
        (vec![("proto", proto.to_owned()), ("owner", owner.to_owned())], count)
    };
    lines.into_iter().map(one).collect()
}

fn reasons(numbers: &Numbers) -> Vec<MetricSample> {
    let one = |((fate, reason), count): (&(DropFate, String), &u64)| {
        let fate = match fate {
            DropFate::Dropped => "dropped",
            DropFate::Reset => "reset",
            DropFate::Icmp => "icmp",
            DropFate::QueueFull => "queue_full",
        };
        (vec![("fate", fate.to_owned()), ("reason", reason.clone())], *count)
    };
    numbers.dropped.iter().map(one).collect()
}

/// The fullest queues: those waiting, limits, and what was dropped.
fn queues(numbers: &Numbers) -> (Vec<MetricSample>, Vec<MetricSample>, Vec<MetricSample>) {
    let mut all: Vec<_> = numbers.queues.iter().collect();
    all.sort_by_key(|(netns, socket, queue)| {
        let drops = queue.drops.unwrap_or(0);
        (std::cmp::Reverse((queue.waiting, drops)), netns.id, socket.address, socket.port)
    });
    let (mut waiting, mut limits, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
    let mut known = std::collections::HashSet::new();
    for (netns, socket, queue) in all {
        let name = netns.name.as_ref().map_or_else(|| netns.id.to_string(), ToString::to_string);
        let labels = vec![
            ("netns", name),
            ("address", socket.address.to_string()),
            ("port", socket.port.0.to_string()),
        ];
        // Those that share a port are one to who scrapes: the fullest.
        if known.len() >= MOST || !known.insert(labels.clone()) {
            continue;
        }
        waiting.push((labels.clone(), u64::from(queue.waiting)));
        limits.push((labels.clone(), u64::from(queue.limit)));
        dropped.extend(queue.drops.map(|drops| (labels, u64::from(drops))));
    }
    (waiting, limits, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Numbers {
        let listeners = [(("tcp", "nginx".to_owned()), 2), (("udp", String::new()), 1)];
        let mut numbers =
            Numbers { lost: 3, bytes: 4096, listeners: listeners.into(), ..Numbers::default() };
        numbers.events.insert(EventKind::Listen, 7);
        numbers.dropped.insert((DropFate::Dropped, "NETFILTER_DROP".to_owned()), 12);
        numbers
    }

    #[test]
    fn both_forms_say_the_same() {
        insta::assert_snapshot!("metrics", text(&numbers(), false));
        let open = text(&numbers(), true);
        assert!(open.contains("# TYPE whereis_port_events counter\n"), "{open}");
        assert!(open.contains("\nwhereis_port_events_total{kind=\"listen\"} 7\n"), "{open}");
        assert!(open.ends_with("# EOF\n"), "{open}");
    }

    #[test]
    fn labels_are_bounded_and_safe() {
        let mut numbers = Numbers::default();
        for number in 0..500 {
            numbers.listeners.insert(("tcp", format!("owner {number}")), 1);
        }
        numbers.listeners.insert(("tcp", "a\"\\\n\u{1b}[31m".repeat(100)), 99);
        let text = text(&numbers, false);
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with("whereis_port_listeners{")).collect();
        assert_eq!(lines.len(), MOST + 1);
        assert!(lines.iter().any(|line| line.contains("\"other\"") && line.ends_with(" 451")));
        assert!(!text.contains('\u{1b}') && lines.iter().all(|line| line.len() < 1000));
    }
}
