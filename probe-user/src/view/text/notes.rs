//! What follows the trees: from where the port can be reached, and what is not
//! known.

use std::fmt::Write as _;

use crate::model::{Gap, Impact, Reach, Verdict};
use crate::view::layout::Page;
use crate::view::style::Ink;
use crate::view::words;

const INDENT: &str = "  ";
/// Columns for the labels.
const LABEL: usize = 21;
/// How many sources that fail in the same way are named without `-v`.
const NAMED: usize = 3;

/// From where, and from where not, and what would help.
pub(super) fn reach(page: &mut Page<'_>, reach: &[Reach]) {
    let order = [Some(true), Some(false), None];
    for one in order.iter().flat_map(|order| reach.iter().filter(move |r| r.reachable == *order)) {
        let style = page.style;
        let (label, ink) = match one.reachable {
            Some(true) => ("reachable from:", Ink::Good),
            Some(false) => ("not reachable from:", Ink::Warn),
            None => ("not known if from:", Ink::Warn),
        };
        let mut text = words::vantage(one.from).to_owned();
        if let Some(address) = &one.address {
            let _ = write!(text, " at {}", style.text(address));
        }
        if !one.why.is_empty() {
            let because = if one.reachable == Some(false) { ", because" } else { ":" };
            let _ = write!(text, "{because} {}", style.text(&one.why));
        }
        if let Some(fix) = &one.fix {
            let _ = write!(text, "; fix: {}", style.text(fix));
        }
        page.entry(INDENT, (label, LABEL, ink), &text);
    }
}

/// What could not be read. Sources that fail in the same way share a line.
pub(super) fn gaps(page: &mut Page<'_>, gaps: &[Gap], verdict: Verdict, verbose: bool) {
    let mut groups: Vec<(&Gap, Vec<&str>)> = Vec::new();
    for gap in gaps {
        let alike = |known: &Gap| {
            (known.impact, &known.reason, &known.remedy) == (gap.impact, &gap.reason, &gap.remedy)
        };
        match groups.iter_mut().find(|(known, _)| alike(known)) {
            Some((_, sources)) => sources.push(&gap.source),
            None => groups.push((gap, vec![&gap.source])),
        }
    }
    for (gap, sources) in groups {
        let style = page.style;
        let shown = if verbose { sources.len() } else { sources.len().min(NAMED) };
        let mut names: Vec<String> = sources.iter().take(shown).map(|s| style.text(s)).collect();
        if sources.len() > shown {
            names.push(format!("and {} more", sources.len() - shown));
        }
        let mut text = format!(
            "{} ({}): {}",
            hidden(gap.impact, verdict),
            names.join(", "),
            style.text(&gap.reason)
        );
        if let Some(remedy) = &gap.remedy {
            let _ = write!(text, " {} {}", style.glyphs().arrow, style.text(remedy));
        }
        page.entry(INDENT, ("not known:", LABEL, Ink::Warn), &text);
    }
}

fn hidden(impact: Impact, verdict: Verdict) -> &'static str {
    match impact {
        Impact::Port if verdict == Verdict::Found => "whether anything else listens",
        Impact::Port => "whether anything listens",
        Impact::Owner => "everybody who holds it",
        Impact::Name => "names of containers, images or clusters",
        Impact::Reach => "from where it can be reached",
    }
}
