//! The steps that rules and balancers make, as answers show them.

use std::net::IpAddr;

use whereis_port_rules::dialect::Meaning;
use whereis_port_rules::{Outcome, Packet, Step, text};

use crate::facts::Facts;
use whereis_port_model::{Endpoint, Evidence, EvidenceSource, Hop, HopKind, Port};

/// The rules that led to an outcome.
pub(super) fn evidence(outcome: &Outcome) -> Evidence {
    Evidence::new(EvidenceSource::PacketRules, text::summary(&outcome.trail))
}

/// The rule that decided, in words.
pub(super) fn deciding_rule(outcome: &Outcome) -> String {
    match outcome.trail.last() {
        Some(step) => rule(step),
        None => "a rule".to_owned(),
    }
}

/// A rule, in words.
pub(super) fn rule(step: &Step) -> String {
    let place = format!("{} chain {}", step.chain.table, step.chain.name);
    match step.rule() {
        Some(rule) => format!("rule \"{}\" in {place}", text::describe(&step.chain, rule)),
        None => format!("the policy of {place}"),
    }
}

/// The steps of a destination that rules changed: what was asked for, and what it
/// became.
pub(super) fn translation(
    facts: &Facts<'_>,
    before: &Packet,
    outcome: &Outcome,
    meaning: &Meaning,
) -> [Hop; 2] {
    let after = &outcome.packet;
    let kind = if meaning.service.is_some() { HopKind::Service } else { HopKind::Dnat };
    let asked = (before.destination, before.dport);
    // One frontend may lead to several targets: what is the frontend's is the way to
    // where they part. A map that has them is one rule with the way there.
    let map = outcome.trail.last().is_some_and(|step| step.element.is_some());
    let apart = 1 + usize::from(outcome.probability < 1.0) - usize::from(map);
    let common = outcome.trail.len().saturating_sub(apart).max(1).min(outcome.trail.len());
    let common = outcome.trail.get(..common).unwrap_or_default();
    let mut proof = vec![Evidence::new(EvidenceSource::PacketRules, text::summary(common))];
    proof.extend(
        outcome.notes.iter().map(|note| Evidence::new(EvidenceSource::PacketRules, note.clone())),
    );
    let taken = hop(facts, before, kind, asked, words(meaning, "taken by a rule"), proof);
    let share =
        if outcome.probability < 1.0 { percent(outcome.probability) } else { "always".to_owned() };
    let became = (after.destination, after.dport);
    let mut became = hop(facts, before, HopKind::Dnat, became, share, vec![evidence(outcome)]);
    became.share = (outcome.probability < 1.0).then_some(outcome.probability);
    [taken, became]
}

/// What was asked for, and the socket that TPROXY hands it to.
pub(super) fn tproxy(
    facts: &Facts<'_>,
    before: &Packet,
    to: (IpAddr, u16),
    outcome: &Outcome,
) -> [Hop; 2] {
    let asked = (before.destination, before.dport);
    let given = "TPROXY: given to a socket without translation".to_owned();
    let taken = "taken by a rule".to_owned();
    [
        hop(facts, before, HopKind::Dnat, asked, taken, vec![evidence(outcome)]),
        hop(facts, before, HopKind::Dnat, to, given, vec![evidence(outcome)]),
    ]
}

pub(super) fn hop(
    facts: &Facts<'_>,
    packet: &Packet,
    kind: HopKind,
    to: (IpAddr, u16),
    detail: String,
    evidence: Vec<Evidence>,
) -> Hop {
    Hop {
        kind,
        netns: Some(facts.netns_ref(packet.netns)),
        endpoint: Endpoint { address: Some(to.0), name: None, port: Some(Port(to.1)) },
        proto: packet.proto,
        detail,
        socket: None,
        evidence,
        share: None,
    }
}

/// Says on the last step that the server will see another source.
pub(super) fn note_source(hops: &mut [Hop], outcome: &Outcome) {
    if let Some(hop) = hops.last_mut() {
        hop.evidence.push(Evidence::new(
            EvidenceSource::PacketRules,
            format!("the source changes, too: {}", text::summary(&outcome.trail)),
        ));
    }
}

/// What rules mean, in a line: `NodePort of Service default/web port http, kube-proxy
/// (iptables)`.
pub(super) fn words(meaning: &Meaning, otherwise: &str) -> String {
    let mut text = meaning.what.unwrap_or_default().to_owned();
    if let Some(service) = &meaning.service {
        if !text.is_empty() {
            text.push_str(" of ");
        }
        text.push_str(&format!("Service {}/{}", service.namespace, service.name));
        if let Some(port) = &service.port {
            text.push_str(&format!(" port {port}"));
        }
    }
    match (meaning.by, text.is_empty()) {
        (Some(by), true) => by.to_owned(),
        (Some(by), false) => format!("{text}, {by}"),
        (None, true) => otherwise.to_owned(),
        (None, false) => text,
    }
}

/// `33 %`.
pub(super) fn percent(probability: f64) -> String {
    format!("{:.0} %", probability * 100.0)
}
