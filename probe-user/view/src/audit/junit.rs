//! An audit as JUnit XML: a test for each port and class of senders, and for each finding that is
//! of none.

use std::fmt::Write as _;

use crate::sanitize::clean;
use whereis_port_model::{Audit, AuditFinding, CheckState, Exposure, Host, Opening};

use super::{SENDERS, sender};

/// One test.
struct Case {
    class: String,
    name: String,
    result: Result,
}

/// What came of it.
enum Result {
    Passed,
    /// The code and the words of each finding.
    Failed(Vec<(&'static str, String)>),
    Unknown(String),
}

/// An audit as JUnit XML.
pub fn junit(audit: &Audit, host: &Host) -> String {
    let cases = cases(audit);
    let failed = cases.iter().filter(|case| matches!(case.result, Result::Failed(_))).count();
    let unknown = cases.iter().filter(|case| matches!(case.result, Result::Unknown(_))).count();
    let counts = format!(
        "tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{unknown}\"",
        cases.len()
    );
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(out, "<testsuites name=\"whereis-port audit\" {counts}>");
    let _ = writeln!(
        out,
        "  <testsuite name=\"ports of {}\" {counts} hostname=\"{}\">",
        escaped(&host.hostname),
        escaped(&host.hostname)
    );
    for case in &cases {
        let head =
            format!("classname=\"{}\" name=\"{}\"", escaped(&case.class), escaped(&case.name));
        match &case.result {
            Result::Passed => {
                let _ = writeln!(out, "    <testcase {head}/>");
            }
            Result::Failed(all) => {
                let _ = writeln!(out, "    <testcase {head}>");
                for (code, what) in all {
                    let what = escaped(what);
                    let _ = writeln!(
                        out,
                        "      <failure type=\"{code}\" message=\"{what}\">{what}</failure>"
                    );
                }
                out.push_str("    </testcase>\n");
            }
            Result::Unknown(why) => {
                let _ = writeln!(out, "    <testcase {head}>");
                let _ = writeln!(out, "      <skipped message=\"{}\"/>", escaped(why));
                out.push_str("    </testcase>\n");
            }
        }
    }
    if !audit.gaps.is_empty() {
        out.push_str("    <system-err>");
        for gap in &audit.gaps {
            let _ = writeln!(
                out,
                "not known: {}: {}",
                escaped(&gap.source.to_string()),
                escaped(&gap.reason)
            );
        }
        out.push_str("</system-err>\n");
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

fn cases(audit: &Audit) -> Vec<Case> {
    let mut used = vec![false; audit.findings.len()];
    let mut cases = Vec::new();
    for exposure in &audit.exposures {
        for from in SENDERS {
            let all: Vec<&Opening> = exposure
                .openings
                .iter()
                .filter(|one| one.reach.from == from && one.judged)
                .collect();
            if all.is_empty() {
                continue;
            }
            let mut failed = Vec::new();
            let is_here =
                |finding: &AuditFinding| finding.from == Some(from) && is_of(finding, exposure);
            for (at, finding) in audit.findings.iter().enumerate().filter(|(_, f)| is_here(f)) {
                if let Some(used) = used.get_mut(at) {
                    *used = true;
                }
                failed.push((finding.code.as_str(), finding.what.clone()));
            }
            let unknown =
                all.iter().find(|one| one.reach.reachable.is_none() && one.allowed.is_none());
            let result = match (failed.is_empty(), unknown) {
                (false, _) => Result::Failed(failed),
                (true, Some(one)) => Result::Unknown(one.reach.why.to_string()),
                (true, None) => Result::Passed,
            };
            cases.push(Case {
                class: format!("{}/{}", exposure.netns, sender(from)),
                name: format!("{}/{}", exposure.port, exposure.proto),
                result,
            });
        }
    }
    for report in &audit.profiles {
        for check in &report.checks {
            let name = format!("{}-{}/{}", check.ports.first, check.ports.last, check.proto);
            let result = match check.state {
                CheckState::Met | CheckState::Unused | CheckState::Closed => Result::Passed,
                CheckState::Unknown => Result::Unknown(check.why.clone()),
                state => Result::Failed(vec![(state.as_str(), check.why.clone())]),
            };
            cases.push(Case { class: format!("profile/{}", report.name), name, result });
        }
    }
    let of_profile = |finding: &AuditFinding| {
        use whereis_port_model::AuditCode::{
            RequiredHeldByOther, RequiredMissing, RequiredUnreachable,
        };
        matches!(finding.code, RequiredHeldByOther | RequiredMissing | RequiredUnreachable)
    };
    // What is about no class of senders.
    for (finding, used) in audit.findings.iter().zip(used) {
        if !used && !of_profile(finding) {
            cases.push(Case {
                class: "node".to_owned(),
                name: super::places::of(finding),
                result: Result::Failed(vec![(finding.code.as_str(), finding.what.clone())]),
            });
        }
    }
    cases
}

fn is_of(finding: &AuditFinding, exposure: &Exposure) -> bool {
    finding.places.iter().any(|place| {
        place.netns.id == exposure.netns.id
            && place.proto == exposure.proto
            && place.ports.contains(exposure.port)
    })
}

/// Text in which nothing is XML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            c => out.push(c),
        }
    }
    out
}
