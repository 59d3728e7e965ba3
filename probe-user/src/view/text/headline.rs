//! The one line that says it all: port, address, what is behind it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::model::{
    Answer, Container, End, Ending, Hop, HopKind, Host, NetnsName, NetnsRef, Socket, Verdict,
};
use crate::view::layout::Page;
use crate::view::style::{Ink, Style};
use crate::view::words;

use super::tree::Node;

/// How many ends of one root are named.
const NAMED: usize = 3;

/// One line for trees that are one published port; else for the only one.
pub(super) fn write(page: &mut Page<'_>, roots: &[&Node<'_>], host: &Host) {
    let Some(root) = roots.first() else { return };
    let style = page.style;
    let hop = root.hop;
    let mut places: Vec<String> = Vec::new();
    for root in roots {
        let place = match (&root.hop.endpoint.address, &root.hop.endpoint.name) {
            (Some(std::net::IpAddr::V6(address)), _) => format!("[{address}]"),
            (Some(address), _) => address.to_string(),
            (None, Some(name)) => style.text(name),
            (None, None) => "(address not known)".to_owned(),
        };
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let more = match places.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    places.truncate(NAMED);
    let place = format!("{}{more}", places.join(", "));
    let port = hop.endpoint.port.map_or_else(|| "?".to_owned(), |p| p.to_string());
    let mut line = format!("{port}/{}  {place}", hop.proto);

    let leaves = root.leaves();
    let in_own_container = |netns: &NetnsRef| {
        let name = netns.name.as_ref().map(NetnsName::as_str);
        let named = |c: &Container| name.is_some() && c.name.as_deref() == name;
        !leaves.is_empty() && leaves.iter().all(|(_, end)| end.containers.iter().any(named))
    };
    if let Some(netns) = &hop.netns {
        let is_host = netns.name == Some(NetnsName::Host);
        if !is_host && netns.id != host.own_netns && !in_own_container(netns) {
            let _ = write!(line, "  in netns {}", style.netns(netns));
        }
    }
    let arrow = style.glyphs().arrow;
    match leaves.as_slice() {
        [] => {}
        [(hops, end)] => {
            for step in steps(style, hops, end) {
                let _ = write!(line, "  {arrow} {step}");
            }
        }
        many => {
            let mut ends: Vec<String> = Vec::new();
            for (hops, end) in many {
                let steps = steps(style, hops, end);
                let words = steps.get(steps.len().saturating_sub(2)..).unwrap_or_default();
                let name = words.join(&format!(" {arrow} "));
                if !ends.contains(&name) {
                    ends.push(name);
                }
            }
            let more = ends.len().saturating_sub(NAMED);
            ends.truncate(NAMED);
            let _ = write!(line, "  {arrow} {} ways: {}", many.len(), ends.join("; "));
            if more > 0 {
                let _ = write!(line, "; and {more} more");
            }
        }
    }
    headline(page, &line);
}

/// Whether one sender gets through.
pub(super) fn of_sender(page: &mut Page<'_>, answer: &Answer, who: &str) {
    let is = match answer.verdict {
        Verdict::Found => "reachable",
        Verdict::NotFound => "not reachable",
        Verdict::Unknown => "not known to be reachable",
    };
    let text = page.style.text(&answer.query.text);
    page.paragraph("", "    ", Some(Ink::Strong), &format!("{text} from {who}: {is}"));
}

/// Where a port is that is not in the tool's own namespace.
pub(super) fn elsewhere(page: &mut Page<'_>, answer: &Answer, roots: &[&Node<'_>]) {
    let places: BTreeSet<_> =
        roots.iter().filter_map(|root| Some(root.hop.netns.as_ref()?.id)).collect();
    let text = page.style.text(&answer.query.text);
    headline(
        page,
        &format!("{text}: nothing here, but inside {} other network namespaces", places.len()),
    );
}

/// Writes the line with its double spaces, which set its parts apart, kept
/// where it need not be wrapped.
fn headline(page: &mut Page<'_>, line: &str) {
    if crate::view::layout::width(line) <= page.room(0) {
        let painted = page.style.paint(Ink::Strong, line);
        page.line(&painted);
    } else {
        page.paragraph("", "    ", Some(Ink::Strong), line);
    }
}

/// What the way to `end` leads through, in as few words as possible.
fn steps(style: &Style, hops: &[&Hop], end: &End) -> Vec<String> {
    // A container of which only the id is known is named by what is around it.
    let named = end.containers.iter().any(|c| c.name.is_some());
    let process = end.processes.first().map(|process| process.name());
    let mut steps: Vec<String> = end
        .containers
        .iter()
        .filter(|c| c.name.is_some() || !named)
        // Kubernetes calls most containers like what runs in them.
        .filter(|c| c.pod.is_none() || c.name.as_deref() != process)
        .map(|c| format!("{} ({})", style.text(words::container(c)), c.runtime))
        .collect();
    if steps.is_empty() {
        // Without a container to name, the addresses on the way say most.
        match (end.ending, end.processes.first(), hops) {
            (Ending::Elsewhere | Ending::Unknown, Some(process), _) => {
                steps.push(format!("{}, pid {}", style.text(process.name()), process.pid));
            }
            // Who passes it on is known, if not who takes it.
            (Ending::Unknown | Ending::NotReadable | Ending::Nothing, None, [first, _, ..]) => {
                steps.push(style.text(&first.detail));
            }
            _ => {}
        }
        for pair in hops.windows(2) {
            let [before, hop] = pair else { continue };
            let to = &hop.endpoint;
            let is_known = to.address.is_some() || to.name.is_some() || to.port.is_some();
            if is_known && !is_arrival(before, hop) {
                steps.push(style.endpoint(&hop.endpoint));
            }
        }
    }
    steps.push(last(style, hops, end));
    steps
}

/// Whether `hop` is the listener at the very place that `before` leads to.
fn is_arrival(before: &Hop, hop: &Hop) -> bool {
    let (target, socket) = (&before.endpoint, &hop.endpoint);
    let any = socket.address.is_some_and(|address| address.is_unspecified());
    before.kind != HopKind::Listener
        && hop.kind == HopKind::Listener
        && target.port == socket.port
        && (any || target.address == socket.address)
}

/// Whether the way leads through its last socket twice.
fn is_circle(hops: &[&Hop]) -> bool {
    let Some((last, before)) = hops.split_last() else { return false };
    let Some(socket) = &last.socket else { return false };
    // Read at different times, how many wait in its queue may differ.
    let same = |other: &Socket| Socket { queue: socket.queue, ..other.clone() } == *socket;
    before.iter().any(|hop| hop.socket.as_ref().is_some_and(same))
}

fn last(style: &Style, hops: &[&Hop], end: &End) -> String {
    let mut text = match end.ending {
        Ending::Process => match end.processes.as_slice() {
            [] => "a process".to_owned(),
            [process] if !end.containers.is_empty() => style.text(process.name()),
            [process] => format!("{}, pid {}", style.text(process.name()), process.pid),
            [process, others @ ..] => {
                format!(
                    "{}, pid {} (+{} more)",
                    style.text(process.name()),
                    process.pid,
                    others.len()
                )
            }
        },
        Ending::Kernel => match hops.last() {
            // What the kernel holds is said to be its own already.
            Some(hop) if hop.kind == HopKind::Kernel => style.text(&hop.detail),
            Some(hop) => format!("kernel: {}", style.text(&hop.detail)),
            None => "kernel".to_owned(),
        },
        Ending::OutsidePidNamespace => "owner outside this PID namespace".to_owned(),
        Ending::NotReadable => "owner not readable".to_owned(),
        Ending::Nothing => "nothing listens there".to_owned(),
        Ending::Stopped => "stopped on the way".to_owned(),
        Ending::Elsewhere => "beyond what is visible here".to_owned(),
        Ending::Unknown if is_circle(hops) => "in a circle".to_owned(),
        Ending::Unknown if !end.processes.is_empty() => "where from there is not known".to_owned(),
        Ending::Unknown => "owner not known".to_owned(),
    };
    // A static pod is called like its process and its node: said already.
    let process = end.processes.first().map_or("", |process| process.name());
    let pod = end.pod.as_ref().and_then(|pod| pod.name.as_ref());
    if let Some(name) = pod.filter(|name| process.is_empty() || !name.starts_with(process)) {
        let _ = write!(text, ", pod {}", style.text(name));
    }
    if let Some(service) = &end.service {
        let _ = write!(text, ", service {}", style.text(&service.name));
    }
    if let Some(cluster) = &end.cluster {
        let _ = write!(text, ", cluster {}", words::cluster(style, cluster));
    }
    match &end.unit {
        // What goes on elsewhere is not of the unit that passes it on.
        Some(unit) if end.containers.is_empty() && end.ending != Ending::Elsewhere => {
            let _ = write!(text, ", {}", style.text(unit));
        }
        _ => {}
    }
    text
}
