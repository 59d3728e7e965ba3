//! Rules in words, for evidence.

mod program;
mod values;
mod xt;

pub(crate) use xt::condition as xt_condition;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::Step;
use crate::model::{Bytes, ChainId, Rule, RulesBackend};
use program::RuleText;

/// A rule in one line, close to what `iptables -S` or `nft list` print of it:
/// `tcp dport 30518 → goto KUBE-EXT-…`. Untrusted where it quotes.
pub fn describe(chain: &ChainId, rule: &Rule) -> String {
    let program = RuleText::of(chain, rule);
    let conditions = program.conditions();
    let actions = program.actions.join(", ");
    let mut text = match (conditions.is_empty(), actions.is_empty()) {
        (_, true) => conditions,
        (true, false) => format!("→ {actions}"),
        (false, false) => format!("{conditions} → {actions}"),
    };
    if let Some(comment) = &rule.comment {
        if !text.is_empty() {
            text.push(' ');
        }
        let _ = write!(text, "/* {comment} */");
    }
    text
}

/// The rules that led to an outcome, in one line: the chains, with the ports that
/// they tell apart, and what the last rule does.
pub fn summary(trail: &[Step]) -> String {
    let mut text = String::new();
    let mut table = None;
    let way = straight(trail);
    for step in &way {
        if !text.is_empty() {
            text.push_str(" → ");
        }
        if table != Some(&step.chain.table) {
            table = Some(&step.chain.table);
            text.push_str(&step.chain.table.name);
            if step.chain.table.backend == RulesBackend::Legacy {
                text.push_str(" (legacy)");
            }
            text.push(' ');
        }
        text.push_str(&step.chain.name);
        let ports = step.rule().map(|rule| ports(&step.chain, rule)).unwrap_or_default();
        if !ports.is_empty() {
            let _ = write!(text, " ({ports})");
        }
    }
    if let Some(last) = way.last() {
        let _ = write!(text, " {}", action(last));
    }
    text.truncate(text.trim_end().len());
    text
}

/// The steps without the detours: chains that were called and returned from, such
/// as those that only mark.
pub(super) fn straight(trail: &[Step]) -> Vec<&Step> {
    let mut way: Vec<&Step> = Vec::new();
    for step in trail {
        if let Some(at) = way.iter().position(|known| known.chain == step.chain) {
            way.truncate(at);
        }
        way.push(step);
    }
    way
}

/// What a rule says of ports.
fn ports(chain: &ChainId, rule: &Rule) -> String {
    let mut program = RuleText::of(chain, rule);
    program.conditions.retain(|condition| condition.tests_port);
    program.conditions()
}

/// What the rule of a step does, without the name of a chain.
fn action(step: &Step) -> String {
    let Some(rule) = step.rule() else {
        return if step.at.is_none() { "policy".to_owned() } else { String::new() };
    };
    // The element that was chosen says more than the map does.
    if let Some(element) = &step.element {
        if let Some(verdict) = &element.verdict {
            return values::verdict(verdict);
        }
        if let Some((address, port)) = element.data.as_ref().and_then(target) {
            return match port {
                Some(port) => format!("dnat to {}", SocketAddr::new(address, port)),
                None => format!("dnat to {address}"),
            };
        }
    }
    RuleText::of(&step.chain, rule).actions.join(", ")
}

/// An address, and the port behind it, as maps for DNAT have them.
pub(super) fn target(data: &Bytes) -> Option<(IpAddr, Option<u16>)> {
    let bytes = &data.0;
    let port = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    match bytes.len() {
        4 | 8 => {
            let address: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
            Some((IpAddr::from(address), port(4)))
        }
        16 | 20 => {
            let address: [u8; 16] = bytes.get(..16)?.try_into().ok()?;
            Some((IpAddr::from(address), port(16)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
