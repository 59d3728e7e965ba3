//! An audit as SARIF 2.1.0 (OASIS), for code scanning: a rule for each kind of finding, a result
//! for each finding, and a notification for each thing that could not be read.

use std::io::{self, Write};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::explain;
use crate::json;
use crate::sanitize::clean;
use crate::shell;
use whereis_port_model::{Audit, AuditCode, AuditFinding, AuditPlace, Gap};

use super::places;

/// Where the schema of the format is.
const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// How many ports of a finding are located: the words name the rest.
const LOCATIONS: usize = 100;

/// Writes an audit as SARIF.
///
/// # Errors
/// Those of `out`.
pub fn sarif(audit: &Audit, out: &mut impl Write) -> io::Result<()> {
    let rules: Vec<Value> = AuditCode::ALL.into_iter().map(rule).collect();
    let results: Vec<Value> = audit.findings.iter().map(result).collect();
    let notifications: Vec<Value> = audit.gaps.iter().map(notification).collect();
    let document = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {
                "driver": {
                    "name": "whereis-port",
                    "version": env!("CARGO_PKG_VERSION"),
                    "informationUri": env!("CARGO_PKG_REPOSITORY"),
                    "rules": rules,
                }
            },
            "invocations": [{
                "executionSuccessful": true,
                "toolExecutionNotifications": notifications,
            }],
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    json::write(&document, out)
}

fn rule(code: AuditCode) -> Value {
    let pages = explain::of(code.as_str());
    let page = pages.iter().find(|page| page.group == explain::CodeGroup::Audit);
    let means = page.map_or(code.title(), |page| page.means);
    let concluded = page.map_or("", |page| page.concluded);
    json!({
        "id": code.as_str(),
        "name": code.as_str(),
        "shortDescription": { "text": code.title() },
        "fullDescription": { "text": means },
        "help": { "text": format!("{means}\n\nHow it is known: {concluded}") },
        "defaultConfiguration": { "level": code.level().as_str() },
        "properties": { "tags": ["security", "network"] },
    })
}

fn result(finding: &AuditFinding) -> Value {
    let index = AuditCode::ALL.iter().position(|code| *code == finding.code);
    let mut text = format!("{}: {}", clean(&places::of(finding)), clean(&finding.what));
    if let Some(fix) = &finding.fix {
        text.push_str(&format!(". Fix: {}", clean(&shell::text(fix))));
    }
    let locations: Vec<Value> = finding.places.iter().take(LOCATIONS).map(location).collect();
    // The same finding of tomorrow has the same one: of its code, place and owner.
    let owner = finding.owner.as_ref().map(ToString::to_string).unwrap_or_default();
    let place = finding.places.first().map(name_of).unwrap_or_default();
    let digest = Sha256::digest(format!("{}\n{place}\n{owner}", finding.code.as_str()));
    let print: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    json!({
        "ruleId": finding.code.as_str(),
        "ruleIndex": index,
        "level": finding.code.level().as_str(),
        "message": { "text": text },
        "locations": locations,
        "partialFingerprints": { "whereisPort/v1": print },
    })
}

fn name_of(place: &AuditPlace) -> String {
    let ports = match place.ports.first == place.ports.last {
        true => place.ports.first.to_string(),
        false => format!("{}-{}", place.ports.first, place.ports.last),
    };
    format!("{}/{ports}/{}", place.netns, place.proto)
}

/// A port is no file: its name is a logical location, and a path of the same words stands for it
/// where only files are understood.
fn location(place: &AuditPlace) -> Value {
    let name = name_of(place);
    json!({
        "physicalLocation": {
            "artifactLocation": { "uri": encoded(&name) },
            "region": { "startLine": 1 },
        },
        "logicalLocations": [{
            "name": clean(&format!("{}/{}", place.ports.first, place.proto)),
            "fullyQualifiedName": clean(&name),
            "kind": "resource",
        }],
    })
}

fn notification(gap: &Gap) -> Value {
    json!({
        "level": "warning",
        "message": { "text": format!("not known: {}: {}", clean(&gap.source.to_string()), clean(&gap.reason)) },
    })
}

/// A relative reference, with all that is not plain percent-encoded (RFC 3986).
fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
