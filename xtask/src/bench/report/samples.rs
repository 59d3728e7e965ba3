//! All samples, for programs.

use serde_json::{Value, json};

use super::super::events::Events;
use super::super::rules::OfRules;
use super::{Measured, Target, millis};

/// The commands on one node.
pub(crate) fn cases(all: &[Measured]) -> Value {
    let of = |m: &Measured| {
        json!({
            "node": m.size.to_string(),
            "question": m.question.to_string(),
            "command": m.label,
            "median_ms": m.ms(),
            "wall_ms": m.wall_ms(),
            "peak_bytes": m.samples.peak,
        })
    };
    all.iter().map(of).collect()
}

/// The commands on nodes with many rules.
pub(crate) fn rules(rules: &[OfRules]) -> Value {
    let of = |row: &OfRules| {
        json!({
            "rules": row.kind.to_string(),
            "question": row.about.to_string(),
            "command": row.label,
            "wall_ms": millis(&row.samples.wall),
            "peak_bytes": row.samples.peak,
        })
    };
    rules.iter().map(of).collect()
}

/// What was measured of `trace`.
pub(crate) fn events(events: &Events) -> Value {
    json!({
        "made": events.made,
        "seen": events.seen,
        "lost": events.lost,
        "burst_ms": events.burst.as_secs_f64() * 1e3,
        "cpu_ms": events.cpu.as_secs_f64() * 1e3,
        "delay_ms": millis(&events.delays),
        "pair_ns_without": events.without,
        "pair_ns_with": events.with,
    })
}

/// What was wanted, and what came out.
pub(crate) fn targets(targets: &[Target]) -> Value {
    let of = |t: &Target| json!({ "target": t.what, "wanted": t.wanted, "measured": t.got, "met": t.met });
    targets.iter().map(of).collect()
}
