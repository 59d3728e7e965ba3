//! An audit in Markdown, for issues and reports.

use std::fmt::Write as _;

use crate::sanitize::clean;
use crate::shell;
use whereis_port_model::{Audit, Host, Opening};

use super::{SENDERS, lines, places, sender};

/// An audit in Markdown, with tables as GitHub and others know them.
pub fn markdown(audit: &Audit, host: &Host) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "# Audit of {}\n", escaped(&host.hostname));
    if audit.findings.is_empty() {
        out.push_str("No findings.\n");
    }
    if !audit.findings.is_empty() {
        out.push_str("| level | finding | ports | what | fix |\n|---|---|---|---|---|\n");
    }
    for finding in &audit.findings {
        let fix = finding.fix.as_ref().map(shell::text).unwrap_or_default();
        let _ = writeln!(
            out,
            "| {} | `{}` | {} | {} | {} |",
            finding.code.level().as_str(),
            finding.code.as_str(),
            escaped(&places::of(finding)),
            escaped(&finding.what),
            escaped(&fix),
        );
    }
    for report in &audit.profiles {
        let _ = writeln!(out, "\n## Profile {}\n", escaped(&report.name));
        out.push_str("| ports | for | state | why | source |\n|---|---|---|---|---|\n");
        for check in &report.checks {
            let ports = match check.ports.first == check.ports.last {
                true => check.ports.first.to_string(),
                false => format!("{}-{}", check.ports.first, check.ports.last),
            };
            let _ = writeln!(
                out,
                "| {ports}/{} | {} | {} | {} | {} |",
                check.proto,
                escaped(&check.asked()),
                check.state.as_str(),
                escaped(&check.why),
                escaped(&check.source),
            );
        }
    }
    for from in SENDERS {
        let open = lines(audit, from, Opening::is_open);
        if open.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n## Open to {}\n", sender(from));
        out.push_str("| port | by | address | owner | why |\n|---|---|---|---|---|\n");
        for line in open {
            let own = line.exposure.netns.id == host.own_netns;
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} |",
                escaped(&line.port(own)),
                escaped(&line.by().join(", ")),
                line.addresses().join(", "),
                escaped(&line.owner()),
                escaped(&line.why()),
            );
        }
    }
    if audit.unsure > 0 || !audit.gaps.is_empty() {
        out.push_str("\n## Not known\n\n");
        if audit.unsure > 0 {
            let _ = writeln!(out, "- {} statements could not be decided", audit.unsure);
        }
        for gap in &audit.gaps {
            let _ =
                writeln!(out, "- {}: {}", escaped(&gap.source.to_string()), escaped(&gap.reason));
        }
    }
    out
}

/// Text in which nothing is Markdown or HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' | '@' | '$' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}
