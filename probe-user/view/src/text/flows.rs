//! The connections that there are now.

use std::fmt::Write as _;

use super::notes::{INDENT, LABEL};
use crate::layout::{TextPage, pad, width};
use crate::style::Ink;
use whereis_port_model::{Flow, FlowClient, FlowCounts, Flows, FlowsTo, NetnsRef};

/// How many servers are named.
const NAMED: usize = 4;
/// How many clients are named.
const CLIENTS: usize = 10;

/// Whether there is anything to say: that there is no connection only to who asked
/// for each.
pub(super) fn says(flows: &Flows) -> bool {
    flows.open > 0 || flows.each.is_some()
}

/// How many there are, and each when that was asked for.
pub(super) fn write(page: &mut TextPage<'_>, flows: &Flows) {
    page.entry(INDENT, ("flows now:", LABEL, Ink::Label), &count(page, flows));
    clients(page, flows);
    let each = flows.each.as_deref().unwrap_or_default();
    for place in places(each) {
        let of_place = each.iter().filter(|(netns, _)| netns.id == place.id);
        let of_place: Vec<&Flow> = of_place.map(|(_, flow)| flow).collect();
        let label = page.style.text(&place.to_string());
        let label = page.style.paint(Ink::Label, &format!("in {label}:"));
        page.line(&format!("{INDENT}  {label}"));
        list(page, flows, &of_place);
    }
}

/// Who the clients are, where anybody of this node is among them or the kernel counts.
fn clients(page: &mut TextPage<'_>, flows: &Flows) {
    let all = flows.clients.as_deref().unwrap_or_default();
    let is_told = |one: &FlowClient| one.party.is_some() || one.counts.is_some();
    if !all.iter().any(is_told) {
        return;
    }
    // Where only the clients were asked for, all that were asked for are told.
    let alone = flows.each.as_ref().is_some_and(Vec::is_empty);
    let named = if alone { all.len() } else { CLIENTS };
    for client in all.iter().take(named) {
        let who = match &client.party {
            Some(party) => format!("{}: {party}", client.address),
            None => client.address.to_string(),
        };
        let s = if client.connections == 1 { "" } else { "s" };
        let mut text = format!("{}, {} connection{s}", page.style.text(&who), client.connections);
        if let Some(counts) = client.counts {
            let _ = write!(text, ", {}", bytes(counts));
        }
        page.entry(INDENT, ("client:", LABEL, Ink::Label), &text);
    }
    if let Some(rest) = all.get(named..).filter(|rest| !rest.is_empty()) {
        let text = format!("and {} more", rest.len());
        page.entry(INDENT, ("client:", LABEL, Ink::Label), &text);
    }
}

/// `1.2 MB sent, 3 kB received`.
fn bytes(counts: FlowCounts) -> String {
    let shown = |bytes: u64| match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{}.{} kB", bytes / 1_000, bytes % 1_000 / 100),
        1_000_000..1_000_000_000 => {
            format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
        }
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes % 1_000_000_000 / 100_000_000),
    };
    format!("{} sent, {} received", shown(counts.sent_bytes), shown(counts.received_bytes))
}

fn count(page: &TextPage<'_>, flows: &Flows) -> String {
    if flows.open == 0 {
        return "none".to_owned();
    }
    let s = if flows.peers == 1 { "" } else { "s" };
    let mut text = format!("{} from {} peer{s}", flows.open, flows.peers);
    if flows.unanswered > 0 {
        let _ = write!(text, " ({} unanswered)", flows.unanswered);
    }
    let arrow = page.style.glyphs().arrow;
    for FlowsTo { server, connections } in flows.to.iter().take(NAMED) {
        let _ = write!(text, ", {connections} {arrow} {server}");
    }
    if let Some(rest) = flows.to.get(NAMED..).filter(|rest| !rest.is_empty()) {
        let connections: usize = rest.iter().map(|to| to.connections).sum();
        let _ = write!(text, ", {connections} {arrow} {} others", rest.len());
    }
    text
}

/// The namespaces, in the order in which they come.
fn places(each: &[(NetnsRef, Flow)]) -> Vec<&NetnsRef> {
    let mut places: Vec<&NetnsRef> = Vec::new();
    for (place, _) in each {
        if places.last() != Some(&place) {
            places.push(place);
        }
    }
    places
}

/// One line for each: from whom to what, who serves it and as whom it sees them.
fn list(page: &mut TextPage<'_>, all: &Flows, flows: &[&Flow]) {
    let glyphs = page.style.glyphs();
    let columns = |text: fn(&Flow) -> String| flows.iter().map(|f| width(&text(f))).max();
    let source = columns(|f| f.source.to_string()).unwrap_or(0);
    let destination = columns(|f| f.destination.to_string()).unwrap_or(0);
    let server = columns(server).unwrap_or(0);
    for flow in flows {
        let mut line = format!(
            "{} {} {}",
            pad(&flow.source.to_string(), source),
            glyphs.arrow,
            pad(&format!("{}/{}", flow.destination, flow.proto), destination + 4),
        );
        let served = match server {
            0 => String::new(),
            _ if flow.is_translated() => format!(" {} {}", glyphs.becomes, flow.served_by),
            _ => String::new(),
        };
        let room = if server == 0 { 0 } else { server + 2 + width(glyphs.becomes) };
        line.push_str(&pad(&served, room));
        let mut details = Vec::new();
        details.extend(flow.state.as_deref().map(|state| page.style.text(state)));
        if !flow.answered {
            details.push("unanswered".to_owned());
        }
        if flow.seen_as != flow.source {
            details.push(format!("seen as {}", flow.seen_as));
        }
        details.extend(flow.counts.map(bytes));
        for (role, end) in [("by", flow.source), ("to", flow.served_by)] {
            if let Some(party) = all.parties.get(&(flow.netns, end)) {
                details.push(format!("{role} {}", page.style.text(&party.to_string())));
            }
        }
        let _ = write!(line, "  {}", details.join(", "));
        // In a narrow terminal the columns are given up.
        let indent = format!("{INDENT}    ");
        if width(&line) <= page.room(width(&indent)) {
            page.line(&format!("{indent}{line}"));
        } else {
            page.paragraph(&indent, &format!("{indent}  "), None, &line);
        }
    }
}

fn server(flow: &Flow) -> String {
    if flow.is_translated() { flow.served_by.to_string() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::super::{Detail, answers};
    use crate::Style;
    use crate::fixtures::{connected, host};
    use whereis_port_model::{Answer, FlowsTo};

    fn lines(answer: Answer) -> Vec<String> {
        let text = answers(&[answer], &host(), &Style::PLAIN, Detail::Usual, &[]);
        let from = text.lines().skip_while(|line| !line.contains("flows now:"));
        from.map(|line| line.trim_start().to_owned()).collect()
    }

    #[test]
    fn without_the_list_there_is_one_line_and_without_connections_none() {
        let mut answer = connected();
        let flows = answer.flows.as_mut().unwrap();
        flows.each = None;
        let line =
            "flows now: 3 from 2 peers (1 unanswered), 2 → 172.18.0.4:6443, 1 → 192.0.2.1:20971";
        assert_eq!(lines(answer.clone()), [line]);
        answer.flows = Some(whereis_port_model::Flows::default());
        assert!(lines(answer.clone()).is_empty());
        answer.flows.as_mut().unwrap().each = Some(Vec::new());
        assert_eq!(lines(answer), ["flows now: none"]);
    }

    #[test]
    fn of_many_servers_the_first_are_named() {
        let mut answer = connected();
        let flows = answer.flows.as_mut().unwrap();
        flows.each = None;
        flows.to = (1..=6u8)
            .map(|n| FlowsTo { server: ([10, 0, 0, n], 80).into(), connections: 2 })
            .collect();
        let text = lines(answer).concat();
        assert!(text.ends_with("2 → 10.0.0.4:80, 4 → 2 others"), "{text}");
    }
}
