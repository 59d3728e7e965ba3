//! What follows the trees: from where the port can be reached, and what is not
//! known.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::model::{
    Advice, Answer, Connected, End, Ending, Finding, FindingCode, Gap, Host, Impact, Reach,
    Vantage, Verdict,
};
use crate::view::layout::{Page, width};
use crate::view::style::Ink;
use crate::view::words;

pub(super) const INDENT: &str = "  ";
/// Columns for the labels.
pub(super) const LABEL: usize = 21;
/// How many holders of a port are told of without `-v`.
const HELD: usize = 8;
/// How many sources that fail in the same way are named without `-v`.
const NAMED: usize = 3;

/// What is said of a port for one reason: from several places, or at several
/// addresses, or one of either.
#[derive(Debug)]
struct Statement<'a> {
    reachable: Option<bool>,
    from: Vec<Vantage>,
    by: &'a [String],
    /// Whether a route over this node is needed.
    routed: bool,
    addresses: Vec<SocketAddr>,
    why: String,
    fix: Option<&'a Advice>,
}

/// From where, and from where not, and what would help. `who` is the only one that was asked
/// for.
pub(super) fn reach(page: &mut Page<'_>, reach: &[&Reach], who: Option<&str>) {
    let statements = statements(reach);
    let place = |s: &Statement<'_>| (s.reachable, s.from.clone(), s.by.to_vec(), s.routed);
    let mut at = 0;
    while let Some(first) = statements.get(at) {
        // One place that is reached in several ways gets a line for each.
        let alike = statements[at..].iter().take_while(|s| place(s) == place(first));
        let group: Vec<&Statement<'_>> = alike.collect();
        at += group.len();
        write(page, &group, who);
    }
}

/// Reachable first, then not, then what is not known; equal reasons together.
fn statements<'a>(reach: &[&'a Reach]) -> Vec<Statement<'a>> {
    let order = [Some(true), Some(false), None];
    let ordered =
        order.iter().flat_map(|o| reach.iter().copied().filter(move |r| r.reachable == *o));
    let mut statements: Vec<Statement<'_>> = Vec::new();
    for one in ordered {
        let why = one.why.to_string();
        let fix = one.fix.as_ref();
        let same = statements
            .iter_mut()
            .find(|s| (s.reachable, &s.why, s.fix) == (one.reachable, &why, fix) && fits(s, one));
        match same {
            Some(statement) => {
                if !statement.from.contains(&one.from) {
                    statement.from.push(one.from);
                }
                statement.addresses.extend(one.address);
            }
            None => statements.push(Statement {
                reachable: one.reachable,
                from: vec![one.from],
                by: &one.by,
                routed: one.needs_route(),
                addresses: one.address.into_iter().collect(),
                why,
                fix,
            }),
        }
    }
    statements
}

/// Several addresses are for one place, and several places have no address.
fn fits(statement: &Statement<'_>, one: &Reach) -> bool {
    if (statement.by, statement.routed) != (one.by.as_slice(), one.needs_route()) {
        return false;
    }
    if !one.by.is_empty() && statement.from != [one.from] {
        return false;
    }
    match &one.address {
        Some(_) => statement.from == [one.from] && !statement.addresses.is_empty(),
        None => statement.addresses.is_empty(),
    }
}

fn write(page: &mut Page<'_>, group: &[&Statement<'_>], who: Option<&str>) {
    let style = page.style;
    let Some(first) = group.first() else { return };
    let (label, ink) = match first.reachable {
        Some(true) => ("reachable from:", Ink::Good),
        Some(false) => ("not reachable from:", Ink::Warn),
        None => ("not known if from:", Ink::Warn),
    };
    let reason = |statement: &Statement<'_>| {
        let mut text = style.text(&statement.why);
        if let Some(fix) = statement.fix {
            let _ = write!(text, "; fix: {}", style.advice(fix));
        }
        text
    };
    let at = |statement: &Statement<'_>| {
        let addresses: Vec<String> = statement.addresses.iter().map(ToString::to_string).collect();
        addresses.join(", ")
    };
    let has_addresses = group.iter().all(|statement| !statement.addresses.is_empty());
    let word = if has_addresses { words::vantage_at } else { words::vantage };
    let places: Vec<&str> = first.from.iter().map(|from| word(*from)).collect();
    let mut text = who.map_or_else(|| places.join(", "), str::to_owned);
    if first.routed {
        text.push_str(" with a route over this node");
    }
    if !first.by.is_empty() {
        let _ = write!(text, " ({})", style.text(&few(first.by)));
    }
    match group {
        [one] => {
            if has_addresses {
                let _ = write!(text, " at {}", at(one));
            }
            if !one.why.is_empty() {
                let because = if one.reachable == Some(false) { ", because" } else { ":" };
                let _ = write!(text, "{because} {}", reason(one));
            }
            page.entry(INDENT, (label, LABEL, ink), &text);
        }
        several => {
            page.entry(INDENT, (label, LABEL, ink), &format!("{text}:"));
            let indent = format!("{INDENT}{}", " ".repeat(LABEL));
            let widest = several.iter().map(|s| width(&at(s))).max().unwrap_or(0);
            let columns = if has_addresses { widest + 2 } else { 2 };
            for one in several {
                let label = if has_addresses { at(one) } else { "-".to_owned() };
                page.entry(&indent, (&label, columns, Ink::Label), &reason(one));
            }
        }
    }
}

/// What became of connections that were really made, what is wrong first.
pub(super) fn tried(page: &mut Page<'_>, answer: &Answer, who: Option<&str>) {
    let all = answer.reach.iter().filter(|one| one.tried.is_some());
    let wrong: Vec<&Reach> = all.clone().filter(|one| one.is_refuted()).collect();
    let place = |one: &Reach| match (who, one.address) {
        (Some(who), _) => who.to_owned(),
        (None, Some(_)) => words::vantage_at(one.from).to_owned(),
        (None, None) => words::vantage(one.from).to_owned(),
    };
    for one in &wrong {
        let (Some(tried), Some(address)) = (one.tried, one.address) else { continue };
        let said = if one.reachable == Some(true) { "reachable" } else { "not reachable" };
        let text = format!(
            "a connection from {} to {address}: {tried}, though it is said to be {said}. This is a \
             fault of whereis-port: please report it with a recording, made by whereis-port \
             --record node.json --redact {}",
            page.style.text(&place(one)),
            page.style.text(&answer.query.text),
        );
        page.entry(INDENT, ("WRONG:", LABEL, Ink::Warn), &text);
    }
    let mut groups: Vec<(Connected, Vec<String>)> = Vec::new();
    for one in all.filter(|one| !one.is_refuted()) {
        let Some(tried) = one.tried else { continue };
        let mut name = page.style.text(&place(one));
        if let (Some(address), true) = (one.address, tried != Connected::NotTried) {
            name = format!("{address} from {name}");
        }
        match groups.iter_mut().find(|(known, _)| *known == tried) {
            Some((_, names)) if names.contains(&name) => {}
            Some((_, names)) => names.push(name),
            None => groups.push((tried, vec![name])),
        }
    }
    groups.sort_by_key(|(tried, _)| *tried == Connected::NotTried);
    for (tried, names) in groups {
        let text = format!("{}: {tried}", few_of(&names, HELD));
        page.entry(INDENT, ("tried:", LABEL, Ink::Label), &text);
    }
}

/// Some of these names, and how many more there are.
pub(super) fn few(names: &[String]) -> String {
    few_of(names, NAMED)
}

fn few_of(names: &[String], shown: usize) -> String {
    let mut text = names.iter().take(shown).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > shown {
        let _ = write!(text, " and {} more", names.len() - shown);
    }
    text
}

/// What has the port without listening on it.
pub(super) fn held(page: &mut Page<'_>, answer: &Answer, host: &Host, verbose: bool) {
    let style = page.style;
    let shown = if verbose { answer.held.len() } else { answer.held.len().min(HELD) };
    for held in answer.held.iter().take(shown) {
        let mut text = style.text(&crate::view::held::sentence(held));
        if answer.query.ports.first != answer.query.ports.last || answer.query.proto.is_none() {
            text = format!("{}/{}: {text}", held.socket.socket.port, held.socket.socket.proto);
        }
        if held.netns.id != host.own_netns {
            text = format!("in netns {}: {text}", style.netns(&held.netns));
        }
        if let Some(fix) = &held.fix {
            let _ = write!(text, "; fix: {}", style.advice(fix));
        }
        page.entry(INDENT, ("held:", LABEL, Ink::Warn), &text);
    }
    if answer.held.len() > shown {
        let text = format!("and {} more (-v shows them)", answer.held.len() - shown);
        page.entry(INDENT, ("held:", LABEL, Ink::Warn), &text);
    }
    if answer.more_held > 0 {
        let text = format!("and {} more: ask for fewer ports", answer.more_held);
        page.entry(INDENT, ("held:", LABEL, Ink::Warn), &text);
    }
}

/// What was noticed, why it is so, and what would mend it.
pub(super) fn findings(page: &mut Page<'_>, findings: &[Finding]) {
    // That sockets share a port is said where they are.
    for finding in findings.iter().filter(|finding| finding.code != FindingCode::PortShared) {
        let style = page.style;
        let mut text = style.text(&finding.what);
        if let Some(cause) = &finding.cause {
            let _ = write!(text, "; likely because {}", style.text(cause));
        }
        if let Some(fix) = &finding.fix {
            let _ = write!(text, "; fix: {}", style.advice(fix));
        }
        page.entry(INDENT, ("noticed:", LABEL, Ink::Warn), &text);
    }
}

/// What gaps are told about.
#[derive(Debug, Clone, Copy)]
pub(in crate::view) struct About<'a> {
    /// The node, with the rights that there are.
    pub(in crate::view) host: &'a Host,
    /// Whether anything was found.
    pub(in crate::view) verdict: Verdict,
    /// Whether of something that was found nobody is known who holds it.
    pub(in crate::view) unowned: bool,
    /// Whether all is said.
    pub(in crate::view) verbose: bool,
}

/// Whether somebody holds what ends so, and it is not known who.
pub(in crate::view) fn is_unowned(end: &End) -> bool {
    let hidden =
        matches!(end.ending, Ending::OutsidePidNamespace | Ending::NotReadable | Ending::Unknown);
    hidden && end.processes.is_empty()
}

/// What could not be read. Sources that fail in the same way share a line.
pub(in crate::view) fn gaps(page: &mut Page<'_>, gaps: &[Gap], about: About<'_>) {
    let mut groups: Vec<(&Gap, Vec<String>)> = Vec::new();
    for gap in gaps {
        let alike = |known: &Gap| {
            (known.impact, &known.reason, &known.remedy, &known.command)
                == (gap.impact, &gap.reason, &gap.remedy, &gap.command)
        };
        match groups.iter_mut().find(|(known, _)| alike(known)) {
            Some((_, sources)) => sources.push(gap.source.to_string()),
            None => groups.push((gap, vec![gap.source.to_string()])),
        }
    }
    let style = page.style;
    let shorten = |text: &str| {
        if about.verbose {
            style.text(text)
        } else {
            words::short_ids(&style.text(text), style.glyphs().ellipsis)
        }
    };
    for (gap, sources) in groups {
        let shown = if about.verbose { sources.len() } else { sources.len().min(NAMED) };
        let mut names: Vec<String> = sources.iter().take(shown).map(|s| shorten(s)).collect();
        if sources.len() > shown {
            names.push(format!("and {} more", sources.len() - shown));
        }
        let mut text = format!(
            "{} ({}): {}",
            hidden(gap.impact, about),
            names.join(", "),
            shorten(&gap.reason)
        );
        if let Some(remedy) = &gap.remedy {
            let remedy = words::remedy(remedy, about.host);
            let _ = write!(text, " {} {}", style.glyphs().arrow, shorten(&remedy));
            if let Some(command) = &gap.command {
                let _ = write!(text, " {}", style.command(command));
            }
        }
        page.entry(INDENT, ("not known:", LABEL, Ink::Warn), &text);
    }
}

fn hidden(impact: Impact, about: About<'_>) -> &'static str {
    match impact {
        Impact::Port if about.verdict == Verdict::Found => "whether anything else listens",
        Impact::Port => "whether anything listens",
        Impact::Owner if about.unowned => "who holds it",
        Impact::Owner => "whether others hold it too",
        Impact::Name => "names of containers, images or clusters",
        Impact::Reach => "from where it can be reached",
        Impact::Way => "where connections lead",
        Impact::Flow => "which connections are open",
        Impact::Bind => "whether something has it without listening",
    }
}
