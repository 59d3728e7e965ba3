//! From where a port is reached, as a table: who, at which address, yes or no, and why. What
//! is the same is one row, and what helps is said once.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::layout::{TextPage, pad, width, wrap};
use crate::style::{Ink, Style};
use whereis_port_model::{Advice, AdvicePart, Cause, Reach, Vantage};

use super::notes::{INDENT, LABEL, few};

/// How many addresses of a row are named.
const ADDRESSES: usize = 8;
/// How many senders.
const SENDERS: usize = 8;
/// Columns that the reason needs at least beside the others.
const WHY: usize = 30;
/// Columns of who connects, at most: in a usual terminal, and in a narrow one.
const FROM: [usize; 2] = [24, 16];
/// Columns of a usual terminal.
const USUAL: usize = 90;
/// What stands for a reason that was said in the row before.
const SAME: &str = "as above";

/// A row of the table of reach.
#[derive(Debug)]
struct ReachRow<'a> {
    reachable: Option<bool>,
    from: Vec<String>,
    addresses: Vec<SocketAddr>,
    why: String,
    /// What would help, each with who it helps.
    fixes: Vec<(String, &'a Advice)>,
}

/// Writes the table, and then what would help. `who` is the only one that was asked for, `said`
/// what was proposed before already.
pub(super) fn write(
    page: &mut TextPage<'_>,
    reach: &[&Reach],
    who: Option<&str>,
    said: &[&Advice],
) {
    let rows = rows(page.style, reach, who);
    if rows.is_empty() {
        return;
    }
    if page.style.plain {
        sentences(page, &rows)
    } else {
        table(page, &rows)
    }
    fixes(page, &rows, said);
}

/// Reachable first, then not, then what is not known; equal reasons together, and what is
/// the same of several senders in one row.
fn rows<'a>(style: &Style, reach: &[&'a Reach], who: Option<&str>) -> Vec<ReachRow<'a>> {
    let order = [Some(true), Some(false), None];
    let ordered =
        order.iter().flat_map(|o| reach.iter().copied().filter(move |r| r.reachable == *o));
    let merged = merge_causes(ordered.collect());
    // Addresses of one sender first, then senders with the same addresses.
    let mut each: Vec<ReachRow<'_>> = Vec::new();
    for (one, why) in &merged {
        let from = sender(style, one, who);
        let why = style.text(why);
        let fix = one.fix.iter().map(|fix| (from.clone(), fix));
        let same = |row: &&mut ReachRow<'_>| {
            (row.reachable, &row.why) == (one.reachable, &why)
                && row.from == [from.as_str()]
                && row.addresses.is_empty() == one.address.is_none()
        };
        match each.iter_mut().find(same) {
            Some(row) => {
                let new = one.address.filter(|address| !row.addresses.contains(address));
                row.addresses.extend(new);
                row.fixes.extend(fix);
            }
            None => each.push(ReachRow {
                reachable: one.reachable,
                from: vec![from.clone()],
                addresses: one.address.into_iter().collect(),
                why,
                fixes: fix.collect(),
            }),
        }
    }
    let mut rows: Vec<ReachRow<'_>> = Vec::new();
    for row in each {
        let alike = |known: &&mut ReachRow<'_>| {
            (known.reachable, &known.why, &known.addresses)
                == (row.reachable, &row.why, &row.addresses)
        };
        match rows.iter_mut().find(alike) {
            Some(known) => {
                known.fixes.extend(row.fixes);
                known.from.extend(row.from);
            }
            None => rows.push(row),
        }
    }
    // One reason's rows stand together, where the first of them is.
    let mut sorted: Vec<ReachRow<'_>> = Vec::with_capacity(rows.len());
    for row in rows {
        let like =
            |known: &ReachRow<'_>| (known.reachable, &known.why) == (row.reachable, &row.why);
        match sorted.iter().rposition(like) {
            Some(at) => sorted.insert(at + 1, row),
            None => sorted.push(row),
        }
    }
    sorted
}

/// The reason of each statement. Those that differ in nothing but the namespace or container
/// that they name have one, which names them all.
fn merge_causes(reach: Vec<&Reach>) -> Vec<(&Reach, String)> {
    let alone = |one: &Reach| match (&one.why.cause, one.address) {
        // The address stands beside it.
        (Cause::Published { container, at, elsewhere: false, .. }, Some(address))
            if one.why.but.is_none() && *at == address =>
        {
            format!("published by container {container}")
        }
        _ => one.why.to_string(),
    };
    let reason = |first: &Reach| -> String {
        if subject(first).is_none() {
            return alone(first);
        }
        let mut names: Vec<String> = Vec::new();
        for name in reach.iter().filter(|one| is_like(first, one)).filter_map(|one| subject(one)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let [_, _, ..] = names.as_slice() else { return alone(first) };
        let all = super::sentence::few(&names);
        let mut why = first.why.clone();
        why.cause = match why.cause {
            Cause::ForwardedHere { by, .. } => Cause::ForwardedHere { name: all, by },
            Cause::Published { at, .. } => {
                Cause::Said(format!("containers {all} publish it on {} only", at.ip()))
            }
            _ => Cause::Routed(all),
        };
        why.to_string()
    };
    reach.iter().map(|one| (*one, reason(one))).collect()
}

/// The namespace or container that a reason names, where several can be named together.
fn subject(one: &Reach) -> Option<String> {
    match &one.why.cause {
        Cause::Routed(name) | Cause::ForwardedHere { name, .. } => Some(name.clone()),
        Cause::Published { container, elsewhere: true, .. } => Some(container.clone()),
        _ => None,
    }
}

/// Whether two statements are the same but for that name and the address.
fn is_like(one: &Reach, other: &Reach) -> bool {
    let same_place = match (&one.why.cause, &other.why.cause) {
        (Cause::ForwardedHere { by: a, .. }, Cause::ForwardedHere { by: b, .. }) => a == b,
        (
            Cause::Published { at: a, elsewhere: c, .. },
            Cause::Published { at: b, elsewhere: d, .. },
        ) => (a.ip(), c) == (b.ip(), d),
        (a, b) => a.code() == b.code(),
    };
    same_place
        && (one.from, one.reachable, &one.by, &one.why.of, &one.why.but)
            == (other.from, other.reachable, &other.by, &other.why.of, &other.why.but)
        && one.needs_route() == other.needs_route()
}

/// Who connects, in as few words as a table has room for.
fn sender(style: &Style, one: &Reach, who: Option<&str>) -> String {
    let mut text = match (who, one.from) {
        (Some(who), _) => who.to_owned(),
        (None, Vantage::Loopback) => "loopback".to_owned(),
        (None, Vantage::Node) => "this host".to_owned(),
        (None, Vantage::Outside) => "other machines".to_owned(),
        (None, Vantage::Containers) => "containers".to_owned(),
    };
    if one.needs_route() {
        text.push_str(" with a route over this node");
    }
    if !one.by.is_empty() {
        text = format!("{text} ({})", style.text(&few(&one.by)));
    }
    text
}

fn answer(reachable: Option<bool>) -> (&'static str, Ink) {
    match reachable {
        Some(true) => ("yes", Ink::Good),
        Some(false) => ("no", Ink::Warn),
        None => ("unknown", Ink::Warn),
    }
}

/// Who connects, at most so many.
fn senders(row: &ReachRow<'_>) -> String {
    let shown = row.from.len().min(SENDERS);
    let names = row.from.get(..shown).unwrap_or_default().join(", ");
    match row.from.len() - shown {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

/// The addresses of a row, at most so many, each as wide as it is.
fn addresses(row: &ReachRow<'_>) -> Vec<String> {
    let mut all: Vec<String> =
        row.addresses.iter().take(ADDRESSES).map(ToString::to_string).collect();
    match row.addresses.len().saturating_sub(ADDRESSES) {
        0 => {}
        more => all.push(format!("and {more} more")),
    }
    if all.is_empty() {
        all.push("-".to_owned());
    }
    all
}

fn table(page: &mut TextPage<'_>, rows: &[ReachRow<'_>]) {
    let style = page.style;
    let heads = ["from", "address", "open", "why"];
    let from_of = senders;
    // Where there is no limit, nothing is wrapped.
    let [usual, narrow] = FROM;
    let most = match style.width {
        None => usize::MAX,
        Some(USUAL..) => usual,
        Some(_) => narrow,
    };
    let widest = |cells: &mut dyn Iterator<Item = usize>, head: &str| {
        cells.max().unwrap_or(0).max(width(head))
    };
    let from = widest(&mut rows.iter().map(|row| width(&from_of(row))), "from").min(most);
    let place_of = |row: &ReachRow<'_>| match style.width {
        None => vec![addresses(row).join(", ")],
        Some(_) => addresses(row),
    };
    let place = widest(&mut rows.iter().flat_map(place_of).map(|place| width(&place)), "address");
    let place = place.min(page.room(width(INDENT) + 9 + 2 + 2 + 7 + 2)).max(8);
    let open = widest(&mut rows.iter().map(|row| width(answer(row.reachable).0)), "open");
    let before = width(INDENT) + from + 2 + place + 2 + open + 2;
    let beside = page.room(before) >= WHY;
    // Where that is too much, the reason goes on a line of its own.
    let from = match page.room(width(INDENT) + place + 2 + open + 2 + from) {
        0 => page.room(width(INDENT) + place + 2 + open + 2).clamp(9, narrow),
        _ => from,
    };
    let head = |at: usize, columns: usize| pad(heads[at], columns);
    let mut line = format!("{}  {}  {}", head(0, from), head(1, place), head(2, open));
    if beside {
        line = format!("{line}  why");
    }
    let line = style.paint(Ink::Label, line.trim_end());
    page.line(&format!("{INDENT}{line}"));
    let mut said: Option<(Option<bool>, &str)> = None;
    let mut last: &[SocketAddr] = &[];
    for row in rows {
        let why = if said == Some((row.reachable, &row.why)) { SAME } else { row.why.as_str() };
        said = Some((row.reachable, &row.why));
        let from_cell = wrap(&from_of(row), from);
        let address_cell = match style.width {
            // Several are not told twice.
            Some(_) if row.addresses.len() > 1 && row.addresses == last => {
                vec![SAME.to_owned()]
            }
            _ => place_of(row).iter().flat_map(|address| wrap(address, place)).collect(),
        };
        last = &row.addresses;
        let why_cell =
            if !beside || why.is_empty() { Vec::new() } else { wrap(why, page.room(before)) };
        let lines = from_cell.len().max(address_cell.len()).max(why_cell.len());
        let (word, ink) = answer(row.reachable);
        let cell = |cells: &[String], at: usize| cells.get(at).cloned().unwrap_or_default();
        for at in 0..lines {
            let word = match at {
                0 => style.paint(ink, &pad(word, open)),
                _ => pad("", open),
            };
            page.line(&format!(
                "{INDENT}{}  {}  {word}  {}",
                pad(&cell(&from_cell, at), from),
                pad(&cell(&address_cell, at), place),
                cell(&why_cell, at),
            ));
        }
        if !beside && !why.is_empty() {
            let hang = format!("{INDENT}    ");
            page.paragraph(&hang, &hang, None, why);
        }
    }
}

/// The same without a table.
fn sentences(page: &mut TextPage<'_>, rows: &[ReachRow<'_>]) {
    for row in rows {
        let (word, _) = answer(row.reachable);
        let place = match addresses(row).as_slice() {
            [none] if none == "-" => String::new(),
            all => format!(" to {}", all.join(", ")),
        };
        let why = if row.why.is_empty() { String::new() } else { format!(", {}", row.why) };
        let text = format!("open from {}{place}: {word}{why}", senders(row));
        page.paragraph(INDENT, &format!("{INDENT}  "), None, &text);
    }
}

/// What would help those who do not get there: each way once, with who it helps where it is
/// not all of them.
fn fixes(page: &mut TextPage<'_>, rows: &[ReachRow<'_>], said: &[&Advice]) {
    let style = page.style;
    let mut ways: Vec<Remedy> = Vec::new();
    for (from, fix) in rows.iter().flat_map(|row| &row.fixes) {
        if said.contains(fix) {
            continue;
        }
        for (at, advice) in fix.ways().iter().enumerate() {
            let parts: Vec<String> = advice
                .pieces()
                .iter()
                .map(|piece| style.advice(&Advice::from_pieces(vec![piece.clone()])))
                .collect();
            let names: Vec<bool> =
                advice.pieces().iter().map(|piece| matches!(piece, AdvicePart::Name(_))).collect();
            let same = |way: &&mut Remedy| way.is_like(&parts, &names, from);
            match ways.iter_mut().find(same) {
                Some(way) => way.add(&parts, from),
                None => ways.push(Remedy {
                    parts: parts.into_iter().map(|part| vec![part]).collect(),
                    names,
                    of: vec![from.clone()],
                    alternative: at > 0,
                }),
            }
        }
    }
    let shut = rows.iter().filter(|row| row.reachable != Some(true));
    let all: BTreeSet<&String> = shut.flat_map(|row| &row.from).collect();
    // What helps everybody first.
    let helps_all = |way: &Remedy| way.of.iter().collect::<BTreeSet<_>>().len() >= all.len();
    ways.sort_by_key(|way| !helps_all(way));
    let mut before = false;
    for way in &ways {
        let everybody = helps_all(way);
        let text =
            if everybody { way.text() } else { format!("for {}: {}", few(&way.of), way.text()) };
        let label = if (way.alternative || everybody) && before { "or:" } else { "fix:" };
        before = true;
        page.entry(INDENT, (label, LABEL, Ink::Label), &text);
    }
}

/// An advice that helps: what differs in one name only is one of them.
struct Remedy {
    /// Its parts, each once or as several names.
    parts: Vec<Vec<String>>,
    /// Which of them are names.
    names: Vec<bool>,
    /// Whom it helps.
    of: Vec<String>,
    /// Whether another one before it helps as well.
    alternative: bool,
}

impl Remedy {
    fn is_like(&self, parts: &[String], names: &[bool], from: &String) -> bool {
        if self.names != names || self.parts.len() != parts.len() {
            return false;
        }
        let differ = |(known, part): &(&Vec<String>, &String)| !known.contains(part);
        let mut places = self.parts.iter().zip(parts).enumerate().filter(|(_, pair)| differ(pair));
        match (places.next(), places.next()) {
            (None, _) => true,
            (Some((at, _)), None) => {
                names.get(at).copied().unwrap_or(false) && self.of.contains(from)
            }
            _ => false,
        }
    }

    fn add(&mut self, parts: &[String], from: &String) {
        for (known, part) in self.parts.iter_mut().zip(parts) {
            if !known.contains(part) {
                known.push(part.clone());
            }
        }
        if !self.of.contains(from) {
            self.of.push(from.clone());
        }
    }

    fn text(&self) -> String {
        self.parts.iter().map(|part| super::sentence::few(part)).collect()
    }
}
