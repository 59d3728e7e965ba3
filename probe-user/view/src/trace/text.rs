//! Events as lines. A line is never written again, so the columns have widths
//! that suit most; what is longer moves the rest of its line.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Summary, time};
use crate::layout::{pad, shorten};
use crate::style::{Ink, Style};
use crate::words;
use whereis_port_model::{
    Actor, DropEvent, DropFate, DroppedBy, Event, EventKind, Gap, NatEvent, SeenBy, Traced, counted,
};

/// What stands for something that is not known.
const NONE: &str = "-";

/// Widths of address and port, namespace, process and container: the first
/// holds every IPv4 address.
const WIDTHS: [usize; 4] = [21, 16, 24, 20];

/// The line of one event; `offset` is local time less UTC, in seconds.
pub fn line(traced: &Traced, style: &Style, offset: Option<i64>) -> String {
    let event = &traced.event;
    let (mark, ink) = (mark(event), ink(event.kind));
    let kind = format!("{mark}{}", event.kind.as_str());
    let netns = traced.netns.as_ref().map_or_else(
        || NONE.to_owned(),
        |netns| {
            netns
                .name
                .as_ref()
                .map_or_else(|| netns.id.to_string(), |name| style.text(&name.to_string()))
        },
    );
    let container = traced.containers.last();
    let container = container.map_or_else(|| NONE.to_owned(), |c| style.text(words::container(c)));
    let cells = [place(event), netns, process(traced, style), container];
    let mut columns = vec![
        style.paint(Ink::Dim, &time::clock(event.at, offset)),
        style.paint(ink, &pad(&kind, 8)),
        pad(event.proto.as_str(), 3),
    ];
    for (index, (cell, width)) in cells.into_iter().zip(WIDTHS).enumerate() {
        // A name may be as long as its owner likes; a file gets all of it.
        let fits = style.width.is_none() || index == 0;
        let cell = if fits { cell } else { shorten(&cell, width * 2, style.glyphs().ellipsis) };
        let padded = pad(&cell, width);
        columns.push(if index == 2 { style.paint(Ink::Strong, &padded) } else { padded });
    }
    let detail = detail(traced, style);
    columns.extend((!detail.is_empty()).then_some(detail));
    format!("{}\n", columns.join("  ").trim_end())
}

/// What precedes an event that was not seen when it happened.
fn mark(event: &Event) -> &'static str {
    if event.seen_by == SeenBy::Comparison { "~" } else { "" }
}

fn ink(kind: EventKind) -> Ink {
    match kind {
        EventKind::Listen | EventKind::Bind => Ink::Good,
        EventKind::Close | EventKind::Drop => Ink::Warn,
        EventKind::Connect | EventKind::Accept | EventKind::Nat => Ink::Label,
    }
}

/// Address and port. One without a port (a connect) has only its address, and no
/// address at all is what the kernel has not chosen yet.
fn place(event: &Event) -> String {
    match event.port {
        Some(port) => SocketAddr::new(event.address, port.0).to_string(),
        None if event.address.is_unspecified() => NONE.to_owned(),
        None => event.address.to_string(),
    }
}

/// `nginx[1234]`. A process that has ended, or is outside the PID namespace, has
/// only the name of its thread.
fn process(traced: &Traced, style: &Style) -> String {
    let id = |actor: &Actor| actor.pid.map_or_else(|| "outside".to_owned(), |pid| pid.to_string());
    match (&traced.process, &traced.event.actor) {
        (Some(process), _) => format!("{}[{}]", style.text(process.name()), process.pid),
        (None, Some(actor)) => format!("{}[{}]", style.text(&actor.comm), id(actor)),
        (None, None) => NONE.to_owned(),
    }
}

/// What else there is to say: the peer, the translation, pod and cluster.
fn detail(traced: &Traced, style: &Style) -> String {
    let glyphs = style.glyphs();
    let mut parts = Vec::new();
    let event = &traced.event;
    if let Some(drop) = &event.dropped {
        parts.extend(dropped(drop, traced.dropped_by.as_ref(), style));
    } else if let Some(nat) = &event.nat {
        parts.push(translation(nat, glyphs.arrow));
    } else if let Some(peer) = event.peer {
        let arrow = if event.kind == EventKind::Accept { glyphs.back } else { glyphs.arrow };
        parts.push(format!("{arrow} {peer}"));
    }
    if let Some(pod) = &traced.pod
        && let Some(name) = &pod.name
    {
        let of =
            pod.namespace.as_ref().map_or_else(String::new, |of| format!("{}/", style.text(of)));
        parts.push(format!("pod {of}{}", style.text(name)));
    }
    if let Some(cluster) = &traced.cluster {
        let name = if cluster.name.is_empty() { &cluster.distribution } else { &cluster.name };
        parts.push(format!("cluster {}", style.text(name)));
    }
    if let Some(unit) = &traced.unit {
        parts.push(style.text(unit));
    }
    let ended = event.actor.as_ref().is_some_and(|actor| actor.pid.is_some());
    if ended && traced.process.is_none() {
        parts.push("process ended".to_owned());
    }
    parts.join(&format!(" {} ", glyphs.dot))
}

/// What became of packets: how many, by whom, where, and why.
fn dropped(drop: &DropEvent, by: Option<&DroppedBy>, style: &Style) -> Vec<String> {
    if drop.fate == DropFate::QueueFull {
        let so_far = if drop.total > drop.packets {
            format!(" ({} so far)", drop.total)
        } else {
            String::new()
        };
        return vec![format!("{}{so_far}", counted(drop.packets, "SYN")), drop.words()];
    }
    let from = drop.source.map_or_else(|| "many senders".to_owned(), |source| source.to_string());
    let mut parts = vec![format!("{} {from}", style.glyphs().back)];
    let about = if drop.estimated { "about " } else { "" };
    let mut what = match drop.flags.names() {
        flags if flags.is_empty() => counted(drop.packets, "packet"),
        flags => counted(drop.packets, &flags.join("+")),
    };
    if drop.total > drop.packets {
        what.push_str(&format!(" ({} so far)", drop.total));
    }
    parts.push(format!("{about}{what}"));
    if let Some(original) = drop.original {
        parts.push(format!("sent to {original}"));
    }
    parts.push(style.text(&drop.words()));
    match by {
        Some(DroppedBy::Rule(rule)) => parts.push(style.text(rule)),
        Some(DroppedBy::Unknown(why)) => {
            parts.push(format!("by which rule is not known: {}", style.text(why)));
        }
        None => {}
    }
    let place = match (&drop.device, drop.ifindex) {
        (Some(device), _) => Some(format!("at {}", style.text(device))),
        (None, Some(index)) => Some(format!("came by device {index}")),
        (None, None) if drop.fate == DropFate::Dropped => Some("sent from here".to_owned()),
        (None, None) => None,
    };
    parts.extend(place);
    parts
}

/// A translation: where the packet goes on to, and for whom, when that changes.
fn translation(nat: &NatEvent, arrow: &str) -> String {
    let what = if nat.begins { "" } else { "ended: " };
    let to = if nat.new_destination == nat.destination {
        String::new()
    } else {
        format!("{arrow} {} ", nat.new_destination)
    };
    let from = if nat.new_source == nat.source {
        format!("from {}", nat.source)
    } else {
        format!("from {} as {}", nat.source, nat.new_source)
    };
    format!("{what}{to}{from}")
}

/// What is watched, for standard error before the first event. `comparing` is
/// the time between readings, where they are compared.
pub fn header(
    kinds: &[EventKind],
    targets: &[String],
    comparing: Option<Duration>,
    style: &Style,
) -> String {
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    let on = if targets.is_empty() {
        "every port".to_owned()
    } else {
        let targets: Vec<String> = targets.iter().map(|target| style.text(target)).collect();
        targets.join(", ")
    };
    let mut text = format!("watching {} on {on}; Ctrl-C ends\n", kinds.join(", "));
    if let Some(interval) = comparing {
        text.push_str(&format!(
            "~: found by comparing readings {interval:?} apart, so up to {interval:?} late; \
             what came and went in between is not seen\n"
        ));
    }
    text
}

/// What can't be watched, for standard error.
pub fn gap(gap: &Gap, style: &Style) -> String {
    let mut text = format!(
        "not watched: {}: {}",
        style.text(&gap.source.to_string()),
        style.text(&gap.reason)
    );
    if let Some(remedy) = &gap.remedy {
        text.push_str(&format!("; {}", style.text(remedy)));
    }
    format!("{}\n", style.paint(Ink::Warn, &text))
}

/// That events were lost, for standard error.
pub fn lost(count: u64, style: &Style) -> String {
    format!("{}\n", style.paint(Ink::Warn, &format!("{} lost", events(count))))
}

/// What was seen, for standard error.
pub fn summary(summary: &Summary) -> String {
    let kinds: Vec<String> =
        summary.by_kind.iter().map(|(kind, count)| format!("{count} {}", kind.as_str())).collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(": {}", kinds.join(", ")) };
    let seconds = summary.watched.as_secs_f64();
    format!("{}{kinds}; {} lost; {seconds:.1} s\n", events(summary.events()), summary.lost)
}

fn events(count: u64) -> String {
    format!("{count} {}", if count == 1 { "event" } else { "events" })
}
