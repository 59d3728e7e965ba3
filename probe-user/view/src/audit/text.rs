//! An audit for people.

use crate::doctor;
use crate::layout::{TextPage, pad, shorten, width, wrap};
use crate::style::{Ink, Style};
use crate::text::gaps;
use whereis_port_model::{
    Audit, AuditFinding, CheckState, Host, Level, Opening, ProfileReport, SourceReport, Vantage,
    Verdict,
};

use super::{ExposureLine, SENDERS, lines, places, sender};

const INDENT: &str = "  ";
/// How many statements that are not known are told without -v.
const UNKNOWN: usize = 12;
/// The most columns of each text but the last.
const WIDEST: usize = 34;
/// Columns that the last one needs beside the others.
const WHY: usize = 30;

/// The text for an audit.
pub fn text(
    audit: &Audit,
    host: &Host,
    style: &Style,
    verbose: bool,
    sources: &[SourceReport],
) -> String {
    let mut page = TextPage::new(style);
    let headline = headline(audit);
    page.paragraph("", INDENT, Some(Ink::Strong), &headline);
    findings(&mut page, audit);
    for report in &audit.profiles {
        profile(&mut page, report);
    }
    for from in SENDERS {
        let open = lines(audit, from, Opening::is_open);
        if !open.is_empty() {
            page.gap();
            let title = format!("open to {}", sender(from));
            page.line(&page.style.paint(Ink::Strong, &title));
            table(&mut page, host, from, &open);
        }
    }
    unknown(&mut page, audit, host, verbose);
    if !audit.gaps.is_empty() {
        page.gap();
        gaps(&mut page, &audit.gaps, host, Verdict::Found, verbose);
    }
    if verbose && !sources.is_empty() {
        page.gap();
        page.line(&style.paint(Ink::Strong, "what was read"));
        doctor::sources(&mut page, sources, host);
    }
    page.finish()
}

fn plural(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn headline(audit: &Audit) -> String {
    let open = |from| audit.exposures.iter().filter(|one| one.is_open_to(from)).count();
    let findings = match audit.findings.len() {
        0 => "no findings".to_owned(),
        n => plural(n, "finding", "findings"),
    };
    let mut text = format!(
        "{findings}; open: {} to other machines, {} to containers, {} in all",
        plural(open(Vantage::Outside), "port", "ports"),
        open(Vantage::Containers),
        audit.exposures.iter().filter(|one| one.openings.iter().any(Opening::is_open)).count(),
    );
    if audit.unsure > 0 {
        let many = plural(audit.unsure, "statement is", "statements are");
        text.push_str(&format!("; {many} not known"));
    }
    if audit.grouped > 0 {
        let many = plural(audit.grouped, "port was", "ports were");
        text.push_str(&format!("; {many} tried by others that are alike (--every tries each)"));
    }
    text
}

fn findings(page: &mut TextPage<'_>, audit: &Audit) {
    for finding in &audit.findings {
        page.gap();
        one(page, finding);
    }
}

fn one(page: &mut TextPage<'_>, finding: &AuditFinding) {
    let style = page.style;
    let level = finding.code.level();
    let ink = if level == Level::Note { Ink::Label } else { Ink::Warn };
    let ports = style.text(&places::of(finding));
    let title = format!("{}: {} ({})", finding.code.title(), ports, finding.code.as_str());
    page.entry("", (&format!("{}:", level.as_str()), 9, ink), &title);
    page.paragraph(INDENT, INDENT, None, &style.text(&finding.what));
    if let Some(fix) = &finding.fix {
        page.entry(INDENT, ("fix:", 5, Ink::Label), &style.advice(fix));
    }
}

fn profile(page: &mut TextPage<'_>, report: &ProfileReport) {
    let style = page.style;
    page.gap();
    let mut title = format!("profile {}: {}", style.text(&report.name), style.text(&report.title));
    if let Some(by) = &report.found_by {
        title.push_str(&format!(", by {}", style.text(by)));
    }
    page.paragraph("", INDENT, Some(Ink::Strong), &title);
    for check in &report.checks {
        let ports = match check.ports.first == check.ports.last {
            true => format!("{}/{}", check.ports.first, check.proto),
            false => format!("{}-{}/{}", check.ports.first, check.ports.last, check.proto),
        };
        let (word, ink) = match check.state {
            CheckState::Met => ("met", Ink::Good),
            CheckState::Unused => ("unused", Ink::Dim),
            CheckState::Missing => ("missing", Ink::Warn),
            CheckState::HeldByOther => ("other", Ink::Warn),
            CheckState::Unreachable => ("shut", Ink::Warn),
            CheckState::Closed => ("closed", Ink::Dim),
            CheckState::Unknown => ("unknown", Ink::Warn),
        };
        let is_optional = !check.required && check.only.is_none();
        let optional = if is_optional { ", optional" } else { "" };
        let text = format!("{} ({}{optional}): {}", ports, check.asked(), check.why);
        page.entry(INDENT, (word, 9, ink), &style.text(&text));
    }
    let mut told: Vec<&str> = Vec::new();
    for source in report.checks.iter().map(|check| &*check.source) {
        if !told.contains(&source) {
            told.push(source);
            page.entry(INDENT, ("see", 9, Ink::Label), &style.text(source));
        }
    }
}

/// What is not known, in few lines.
fn unknown(page: &mut TextPage<'_>, audit: &Audit, host: &Host, verbose: bool) {
    let is_unknown = |one: &Opening| one.reach.reachable.is_none() && one.allowed.is_none();
    let mut left = 0;
    for from in SENDERS {
        let mut all = lines(audit, from, is_unknown);
        if all.is_empty() {
            continue;
        }
        if !verbose && all.len() > UNKNOWN {
            left += all.len() - UNKNOWN;
            all.truncate(UNKNOWN);
        }
        page.gap();
        let title = format!("not known whether open to {}", sender(from));
        page.line(&page.style.paint(Ink::Strong, &title));
        table(page, host, from, &all);
    }
    if left > 0 {
        page.line(&format!("{INDENT}and {left} more: -v shows them"));
    }
}

/// By which devices: nothing where that is not told.
fn by(style: &Style, line: &ExposureLine<'_>) -> String {
    let by = line.by();
    if by.is_empty() { String::new() } else { style.text(&by.join(", ")) }
}

fn table(page: &mut TextPage<'_>, host: &Host, from: Vantage, all: &[ExposureLine<'_>]) {
    let style = page.style;
    let cells = |line: &ExposureLine<'_>| {
        let own = line.exposure.netns.id == host.own_netns;
        [
            style.text(&line.port(own)),
            by(style, line),
            line.addresses().join(", "),
            style.text(&line.owner()),
            style.text(&line.why()),
        ]
    };
    let rows: Vec<[String; 5]> = all.iter().map(cells).collect();
    if style.plain {
        for [port, by, at, owner, why] in &rows {
            let by = if by.is_empty() { String::new() } else { format!(" by {by}") };
            let at = if at.is_empty() { String::new() } else { format!(" at {at}") };
            page.line(&format!("{}{by}: {port}{at}, of {owner}: {why}", sender(from)));
        }
        return;
    }
    let titles = ["PORT", "BY", "ADDRESS", "OWNER", "WHY"];
    let mut widths: Vec<usize> = (0..4)
        .map(|column| {
            let all = rows.iter().map(|row| width(row.get(column).map_or("", |cell| cell)));
            all.max().unwrap_or_default()
        })
        .collect();
    let shown: Vec<usize> = (0..4).filter(|column| widths.get(*column) != Some(&0)).collect();
    for column in &shown {
        if let (Some(width), Some(title)) = (widths.get_mut(*column), titles.get(*column)) {
            *width = (*width).max(title.len());
            if style.width.is_some() {
                *width = (*width).min(WIDEST);
            }
        }
    }
    let used: usize = shown.iter().filter_map(|column| widths.get(*column)).map(|w| w + 2).sum();
    let lead = |row: &[&str]| {
        let mut line = INDENT.to_owned();
        for column in &shown {
            let (cell, width) = (row.get(*column).copied(), widths.get(*column).copied());
            let (cell, width) = (cell.unwrap_or_default(), width.unwrap_or_default());
            line.push_str(&pad(&shorten(cell, width, style.glyphs().ellipsis), width + 2));
        }
        line
    };
    let room = page.room(INDENT.len() + used);
    let head = lead(&titles);
    page.line(&style.paint(Ink::Dim, &format!("{head}{}", titles[4])));
    for row in &rows {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        let begin = lead(&cells);
        let why = row.last().map_or("", |why| why);
        if room < WHY {
            page.line(&begin);
            page.paragraph("      ", "      ", None, why);
            continue;
        }
        for (at, part) in wrap(why, room).iter().enumerate() {
            let before = if at == 0 { begin.clone() } else { " ".repeat(INDENT.len() + used) };
            page.line(&format!("{before}{part}"));
        }
    }
}
