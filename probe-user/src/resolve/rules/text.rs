//! Rules in words, for evidence.

use crate::model::{ChainId, Rule};

/// A rule in one line, close to what `iptables -S` or `nft list` print of it:
/// `tcp dport 30518 goto KUBE-EXT-…`. Untrusted where it quotes.
pub(in crate::resolve) fn describe(_chain: &ChainId, _rule: &Rule) -> String {
    String::new()
}

/// The rules that led to an outcome, in one line.
pub(in crate::resolve) fn summary(trail: &[super::Step]) -> String {
    let names: Vec<String> = trail.iter().map(|step| step.chain.name.to_string()).collect();
    names.join(" → ")
}
