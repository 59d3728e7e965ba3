//! Who had a port, and for how long.

use std::net::SocketAddr;

use super::style::{Ink, Style};
use super::trace::time;
use whereis_port_model::{
    History, HistoryEntry, HistoryRecord, Holding, HoldingEdge, ListenerRecord, Moment, counted,
};

/// Local time less UTC at a time in nanoseconds, in seconds.
pub type Offset<'a> = &'a dyn Fn(u64) -> Option<i64>;

/// The answer to a question about the past.
pub fn text(targets: &[String], history: &History, style: &Style, offset: Offset<'_>) -> String {
    let asked: Vec<String> = targets.iter().map(|target| style.text(target)).collect();
    let asked = asked.join(", ");
    let day = |at: Moment| time::local(at.wall, offset(at.wall));
    let mut text = String::new();
    let at = history.asked.map(|asked| time::local(asked.at, offset(asked.at)));
    let head = match (&at, history.holdings.is_empty(), history.asked.map(|asked| asked.times)) {
        (Some(at), _, Some(0)) => format!("{at} was not recorded"),
        (Some(at), true, _) => format!("nobody had {asked} at {at}"),
        (Some(at), false, _) => format!("{asked} at {at}"),
        (None, true, _) => format!("nobody had {asked} while it was recorded"),
        (None, false, _) => asked.clone(),
    };
    text.push_str(&format!("{}\n", style.paint(Ink::Strong, &head)));
    if let Some(asked) = history.asked.filter(|asked| asked.times > 1) {
        let note = format!("the clock was set back: it was that time {} times", asked.times);
        text.push_str(&format!("  {}\n", style.paint(Ink::Warn, &note)));
    }
    for holding in &history.holdings {
        text.push_str(&format!("  {}\n", line(holding, style, &day)));
    }
    if let Some((first, last)) = history.recorded {
        text.push_str(&format!("recorded from {} to {}\n", day(first), day(last)));
    }
    for gap in &history.unrecorded {
        let why = match (gap.booted, gap.ended) {
            (true, _) => ": the machine was booted",
            (false, true) => ": the recorder was ended",
            (false, false) => ": the recorder was killed",
        };
        let line = format!("not recorded from {} to {}{why}", day(gap.from), day(gap.to));
        text.push_str(&format!("{}\n", style.paint(Ink::Warn, &line)));
    }
    for (at, events, why) in &history.lost {
        let line =
            format!("{} lost before {}: {}", counted(*events, "event"), day(*at), style.text(why));
        text.push_str(&format!("{}\n", style.paint(Ink::Warn, &line)));
    }
    for gap in &history.gaps {
        let line = format!("not recorded: {}", style.text(gap));
        text.push_str(&format!("{}\n", style.paint(Ink::Warn, &line)));
    }
    if history.damaged > 0 {
        let line = format!("{} of the store damaged", counted(history.damaged, "line"));
        text.push_str(&format!("{}\n", style.paint(Ink::Warn, &line)));
    }
    text
}

/// `tcp 0.0.0.0:8080  host  nginx[4711]  nginx.service  from … to …: 2 h 10 min`.
fn line(holding: &Holding, style: &Style, day: &dyn Fn(Moment) -> String) -> String {
    let from = match holding.from {
        HoldingEdge::Before(at) => format!("since before {}", day(at)),
        edge => format!("from {}", day(edge.inner())),
    };
    let to = match holding.to {
        HoldingEdge::Seen(at) => format!("to {}", day(at)),
        HoldingEdge::Between(from, to) => format!("until between {} and {}", day(from), day(to)),
        HoldingEdge::Before(at) | HoldingEdge::Last(at) => format!("still at {}", day(at)),
    };
    let at_least = match (holding.from, holding.to) {
        (HoldingEdge::Seen(_), HoldingEdge::Seen(_)) => "",
        _ => "at least ",
    };
    let mut line = format!(
        "{}  {from} {to}: {at_least}{}",
        who(&holding.listener, style),
        spoken(holding.lasted())
    );
    if holding.unrecorded > 0 {
        line.push_str(&format!(", of which {} not recorded", spoken(holding.unrecorded)));
    }
    line
}

fn who(listener: &ListenerRecord, style: &Style) -> String {
    let place = match listener.port {
        Some(port) => SocketAddr::new(listener.address, port.0).to_string(),
        None => listener.address.to_string(),
    };
    let netns = match (&listener.netns_name, listener.netns) {
        (Some(name), _) => style.text(name),
        (None, Some(id)) => id.to_string(),
        (None, None) => "-".to_owned(),
    };
    let mut parts = vec![format!("{} {place}", listener.proto.as_str()), netns];
    match &listener.holder {
        Some(holder) => {
            let pid = holder.pid.map_or_else(|| "outside".to_owned(), |pid| pid.to_string());
            parts.push(style.paint(Ink::Strong, &format!("{}[{pid}]", style.text(&holder.name))));
            let of = [&holder.pod, &holder.container, &holder.unit];
            parts.extend(of.into_iter().flatten().map(|name| style.text(name)));
        }
        None => parts.push("owner not known".to_owned()),
    }
    parts.join("  ")
}

/// `2 h 10 min 5 s`, to the second; less than that in milliseconds.
fn spoken(nanoseconds: u64) -> String {
    let (seconds, ms) = (nanoseconds / 1_000_000_000, nanoseconds / 1_000_000 % 1000);
    if seconds == 0 {
        return format!("{ms} ms");
    }
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (length, unit) in units {
        let count = left / length;
        left %= length;
        if count > 0 {
            parts.push(format!("{count} {unit}"));
        }
    }
    parts.join(" ")
}

/// An entry that is on the disk, as a line.
pub fn kept(entry: &HistoryEntry) -> String {
    let style = Style::PLAIN;
    let what = match &entry.what {
        HistoryRecord::Begin { goes_on, .. } => {
            if *goes_on { "goes on" } else { "begin" }.to_owned()
        }
        HistoryRecord::Listener { listener, .. } => format!("listener {}", who(listener, &style)),
        HistoryRecord::Ready => "ready".to_owned(),
        HistoryRecord::Event { kind, listener, .. } => {
            format!("{} {}", kind.as_str(), who(listener, &style))
        }
        HistoryRecord::Alive => "alive".to_owned(),
        HistoryRecord::Lost { events, .. } => format!("lost {events}"),
        HistoryRecord::End => "end".to_owned(),
    };
    format!("kept {} {} {what}\n", entry.seq, time::rfc3339(entry.at.wall))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spoken_to_the_second() {
        const S: u64 = 1_000_000_000;
        for (time, expected) in [
            (5_000_000, "5 ms"),
            (S, "1 s"),
            (61 * S, "1 min 1 s"),
            (7810 * S, "2 h 10 min 10 s"),
            (86_400 * S, "1 d"),
        ] {
            assert_eq!(spoken(time), expected);
        }
    }
}
