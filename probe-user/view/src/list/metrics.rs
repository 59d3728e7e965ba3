//! The list as metrics, in the text format that Prometheus and OpenMetrics have in common.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::sanitize::clean;
use crate::style::Style;
use whereis_port_model::{Ending, HopKind, ListRow, Listing, Proto, SocketState, Workload};

use super::columns::Column;

/// How many series a metric has at most. What is beyond is counted as one of all others: a monitoring
/// system does not suffer from what somebody starts here.
const SERIES: usize = 200;
/// How many characters of a label are kept.
const LABEL: usize = 128;
/// What stands for all that there was no room for.
const OTHERS: &str = "(others)";

/// The labels of a series, in the order of their names.
type Labels = Vec<String>;

/// A gauge.
struct Gauge {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    /// How two values of one series are put together.
    add: fn(u64, u64) -> u64,
    series: BTreeMap<Labels, u64>,
}

impl Gauge {
    fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        add: fn(u64, u64) -> u64,
    ) -> Self {
        Self { name, help, labels, add, series: BTreeMap::new() }
    }

    fn put(&mut self, labels: Labels, value: u64) {
        let add = self.add;
        self.series.entry(labels).and_modify(|known| *known = add(*known, value)).or_insert(value);
    }

    fn write(&self, text: &mut String) {
        if self.series.is_empty() {
            return;
        }
        let name = self.name;
        let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} gauge", self.help);
        // The largest stay, whatever they are called.
        let mut all: Vec<(&Labels, u64)> = self.series.iter().map(|(l, v)| (l, *v)).collect();
        all.sort_by_key(|(labels, value)| (std::cmp::Reverse(*value), *labels));
        let rest = all.split_off(all.len().min(SERIES));
        all.sort();
        for (labels, value) in all {
            self.line(text, labels.iter().map(String::as_str), value);
        }
        if let Some(sum) = rest.into_iter().map(|(_, value)| value).reduce(self.add) {
            self.line(text, self.labels.iter().map(|_| OTHERS), sum);
        }
    }

    fn line<'a>(&self, text: &mut String, values: impl Iterator<Item = &'a str>, value: u64) {
        let labels = self.labels.iter().zip(values);
        let labels = labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
        let labels = labels.collect::<Vec<_>>().join(",");
        let _ = writeln!(text, "{}{{{labels}}} {value}", self.name);
    }
}

/// The listeners by who has them, their accept queues, the ports that rules take; and from how far
/// away they can be reached, where that was asked for.
pub fn metrics(listing: &Listing) -> String {
    let sum = |a: u64, b: u64| a.saturating_add(b);
    let mut listeners = Gauge::new(
        "whereis_port_listeners",
        "Sockets that listen, or take datagrams, by who has them.",
        &["kind", "namespace", "owner", "program", "proto"],
        sum,
    );
    let mut waiting = Gauge::new(
        "whereis_port_accept_queue",
        "Connections that wait to be accepted, the most of one listener.",
        &["kind", "namespace", "owner", "program", "port"],
        u64::max,
    );
    let mut limit = Gauge::new(
        "whereis_port_accept_queue_limit",
        "How many connections may wait to be accepted, the most of one listener.",
        &["kind", "namespace", "owner", "program", "port"],
        u64::max,
    );
    let mut ways = Gauge::new(
        "whereis_port_nat_ports",
        "Ports that packet rules or a load balancer lead elsewhere, by who made them.",
        &["by", "kind", "proto"],
        sum,
    );
    let mut reach = Gauge::new(
        "whereis_port_reach",
        "Ports by how far away they can be reached from.",
        &["reach", "proto"],
        sum,
    );
    let mut gaps = Gauge::new("whereis_port_gaps", "What could not be read.", &["impact"], sum);
    for row in &listing.rows {
        let proto = row.proto.as_str().to_owned();
        let [kind, namespace, owner, program] = owner(row);
        if matches!(row.kind, HopKind::Dnat | HopKind::Service) || row.taken_by.is_some() {
            let by = row.taken_by.as_deref().unwrap_or("packet rules").to_owned();
            ways.put(vec![by, row.port_kind.as_str().to_owned(), proto.clone()], 1);
        }
        if row.socket.is_some() || row.kind == HopKind::Kernel {
            let labels = [&kind, &namespace, &owner, &program, &proto];
            listeners.put(labels.map(Clone::clone).to_vec(), 1);
        }
        let listens = row
            .socket
            .as_ref()
            .filter(|socket| row.proto == Proto::Tcp && socket.state == SocketState::Listen);
        if let Some(queue) = listens.and_then(|socket| socket.queue) {
            let port = row.port.to_string();
            let labels = || [&kind, &namespace, &owner, &program, &port].map(Clone::clone).to_vec();
            waiting.put(labels(), queue.waiting.into());
            limit.put(labels(), queue.limit.into());
        }
        if let Some(reached) = row.reached {
            reach.put(vec![reached.as_str().to_owned(), proto], 1);
        }
    }
    for gap in &listing.gaps {
        gaps.put(vec![super::columns::word(crate::json::Impact::from(gap.impact))], 1);
    }
    let mut text = String::new();
    for gauge in [&listeners, &waiting, &limit, &ways, &reach, &gaps] {
        gauge.write(&mut text);
    }
    text.push_str("# EOF\n");
    text
}

/// Who has it, without what differs from one start to the next: a workload, not its pods; a program,
/// not its processes.
fn owner(row: &ListRow) -> [String; 4] {
    let end = &row.end;
    let program = match (end.ending, end.processes.first()) {
        (Ending::Kernel, _) => "(kernel)".to_owned(),
        (_, Some(process)) => process.name().to_owned(),
        (_, None) => Column::Process.cell(row, &Style::PLAIN),
    };
    let [kind, namespace, name] = match (Workload::of(end), &end.unit) {
        (Some(workload), _) => {
            let kind = super::columns::word(crate::json::WorkloadKind::from(workload.kind));
            [kind, workload.namespace.unwrap_or_default(), workload.name]
        }
        (None, _) if !end.containers.is_empty() => {
            let name = end.containers.last().map_or("", |c| crate::words::container(c));
            ["container".to_owned(), String::new(), name.to_owned()]
        }
        (None, Some(unit)) => ["unit".to_owned(), String::new(), unit.clone()],
        (None, None) => ["program".to_owned(), String::new(), program.clone()],
    };
    [kind, namespace, name, program]
}

/// A label's value as it stands between its quotes.
fn escaped(value: &str) -> String {
    let value: String = clean(value).chars().take(LABEL).collect();
    value.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn listeners_are_counted_by_who_has_them() {
        let mut listing = fixtures::listing();
        for row in &mut listing.rows {
            row.reached = Some(whereis_port_model::Reached::Node);
        }
        insta::assert_snapshot!("metrics", metrics(&listing));
    }

    #[test]
    fn there_are_never_more_series_than_the_limit() {
        let row = fixtures::listing().rows.remove(0);
        let many = |at: u32| {
            let mut end = (*row.end).clone();
            (end.containers, end.pod) = (Vec::new(), None);
            end.unit = Some(format!("evil\"\n\\{at}.service"));
            ListRow { end: end.into(), ..row.clone() }
        };
        let listing = Listing { rows: (0..5000).map(many).collect(), gaps: Vec::new() };
        let text = metrics(&listing);
        let series = text.lines().filter(|line| line.starts_with("whereis_port_listeners{"));
        let values = series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
        let values: Vec<u64> = values.collect();
        assert_eq!((values.len(), values.iter().sum::<u64>()), (SERIES + 1, 5000));
        assert!(text.contains("owner=\"evil\\\" \\\\"), "{text}");
    }
}
