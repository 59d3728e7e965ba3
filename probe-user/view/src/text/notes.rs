//! What stands around the trees: what is wrong, what has the port, and what is not known.

use std::fmt::Write as _;

use crate::layout::TextPage;
use crate::style::Ink;
use crate::words;
use whereis_port_model::{
    Advice, Answer, Connected, End, Ending, Finding, FindingCode, Gap, Host, Impact, Reach, Verdict,
};

pub(super) const INDENT: &str = "  ";
/// Columns for the labels.
pub(super) const LABEL: usize = 11;
/// How many holders of a port are told of without `-v`.
const HELD: usize = 8;
/// How many sources that fail in the same way are named without `-v`.
const NAMED: usize = 3;

/// What became of connections that were really made, where that shows that the answer is wrong.
pub(super) fn refuted(page: &mut TextPage<'_>, answer: &Answer, who: Option<&str>) {
    for one in answer.reach.iter().filter(|one| one.is_refuted()) {
        let (Some(tried), Some(address)) = (one.tried, one.address) else { continue };
        let said = if one.reachable == Some(true) { "reachable" } else { "not reachable" };
        let text = format!(
            "a connection from {} to {address}: {tried}, though it is said to be {said}. This is a \
             fault of whereis-port: please report it with a recording, made by whereis-port \
             --record node.json --redact {}",
            page.style.text(&place(one, who)),
            page.style.text(&answer.query.text),
        );
        page.entry(INDENT, ("WRONG:", LABEL, Ink::Warn), &text);
    }
}

fn place(one: &Reach, who: Option<&str>) -> String {
    match (who, one.address) {
        (Some(who), _) => who.to_owned(),
        (None, Some(_)) => words::vantage_at(one.from).to_owned(),
        (None, None) => words::vantage(one.from).to_owned(),
    }
}

/// What became of the others.
pub(super) fn tried(page: &mut TextPage<'_>, answer: &Answer, who: Option<&str>) {
    let mut groups: Vec<(Connected, Vec<String>)> = Vec::new();
    for one in answer.reach.iter().filter(|one| !one.is_refuted()) {
        let Some(tried) = one.tried else { continue };
        let mut name = page.style.text(&place(one, who));
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
pub(super) fn held(page: &mut TextPage<'_>, answer: &Answer, host: &Host, verbose: bool) {
    let style = page.style;
    let shown = if verbose { answer.held.len() } else { answer.held.len().min(HELD) };
    for held in answer.held.iter().take(shown) {
        let mut text = style.text(&crate::held::sentence(held));
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
pub(super) fn findings(page: &mut TextPage<'_>, findings: &[&Finding]) {
    let style = page.style;
    for finding in findings {
        let mut entry = |label, ink, text: &str| page.entry(INDENT, (label, LABEL, ink), text);
        entry("noticed:", Ink::Warn, &style.text(&finding.what));
        if let Some(cause) = &finding.cause {
            entry("cause:", Ink::Label, &format!("likely {}", style.text(cause)));
        }
        for (at, way) in finding.fix.iter().flat_map(Advice::ways).enumerate() {
            let label = if at == 0 { "fix:" } else { "or:" };
            entry(label, Ink::Label, &style.advice(&way));
        }
    }
}

/// Those that are told here: that sockets share a port is said where they are.
pub(super) fn told(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.code != FindingCode::PortShared).collect()
}

/// What decides how gaps are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GapContext<'a> {
    /// The node, with the rights that there are.
    pub(crate) host: &'a Host,
    /// Whether anything was found.
    pub(crate) verdict: Verdict,
    /// Whether of something that was found nobody is known who holds it.
    pub(crate) unowned: bool,
    /// Whether all is said.
    pub(crate) verbose: bool,
}

/// Whether somebody holds what ends so, and it is not known who.
pub(crate) fn is_unowned(end: &End) -> bool {
    let hidden =
        matches!(end.ending, Ending::OutsidePidNamespace | Ending::NotReadable | Ending::Unknown);
    hidden && end.processes.is_empty()
}

/// What could not be read. Sources that fail in the same way share a line.
pub(crate) fn gaps(page: &mut TextPage<'_>, gaps: &[Gap], about: GapContext<'_>) {
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

fn hidden(impact: Impact, about: GapContext<'_>) -> &'static str {
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
