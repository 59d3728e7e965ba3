//! Network policies as plug-ins write them into packet rules: chains of their own for each, and
//! a rule behind these that stops what none of them let in. What happens is decided by the rules;
//! this only puts the policy's name and its conditions beside the rule that stopped a packet.

use whereis_port_rules::text;

use crate::facts::Facts;
use crate::few::few;
use whereis_port_model::{ChainId, Expr, Rule, RuleVerdict};

/// How the chains of policies for what comes in begin, and whose they are.
const CHAINS: [(&str, &str); 3] =
    [("cali-pi-", "Calico"), ("cali-po-", "Calico"), ("KUBE-NWPLCY-", "kube-router")];
/// How many policies are told.
const POLICIES: usize = 3;

/// The policies that a chain asks, in words: `NetworkPolicy (Calico) default/web lets in …`.
pub(super) fn words(facts: &Facts<'_>, chain: &ChainId) -> Option<String> {
    let rules = facts.world.chain(chain).value?;
    let mut told: Vec<String> = Vec::new();
    for rule in rules.iter() {
        let Some(target) = jumps_to(rule) else { continue };
        let Some((_, by)) = CHAINS.iter().find(|(start, _)| target.starts_with(start)) else {
            continue;
        };
        let of = ChainId { table: chain.table.clone(), name: target.into() };
        let Some(policy) = facts.world.chain(&of).value else { continue };
        let name = name(rule, &policy).unwrap_or_else(|| target.to_owned());
        let lets: Vec<String> = policy.iter().filter_map(|one| conditions(&of, one)).collect();
        let lets = if lets.is_empty() { "nothing".to_owned() } else { few(&lets) };
        told.push(format!("NetworkPolicy ({by}) {name} lets in {lets}"));
        if told.len() == POLICIES {
            break;
        }
    }
    (!told.is_empty()).then(|| told.join("; "))
}

fn jumps_to(rule: &Rule) -> Option<&str> {
    rule.exprs.iter().find_map(|expr| match expr {
        Expr::Verdict(RuleVerdict::Jump(chain) | RuleVerdict::Goto(chain)) => Some(&**chain),
        _ => None,
    })
}

/// The policy's name, as comments have it: `Policy default/knp.default.web ingress` of Calico,
/// `run through nw policy web` and `… policy name web namespace default` of kube-router.
/// Untrusted.
fn name(jump: &Rule, policy: &[Rule]) -> Option<String> {
    let comments = policy.iter().filter_map(|rule| rule.comment.as_deref());
    let of_calico = |comment: &str| {
        let name = comment.strip_prefix("Policy ")?;
        let name = name.strip_suffix(" ingress").or(name.strip_suffix(" egress")).unwrap_or(name);
        Some(name.to_owned())
    };
    let of_router = |comment: &str| {
        let (name, namespace) = comment.split_once(" policy name ")?.1.split_once(" namespace ")?;
        Some(format!("{namespace}/{name}"))
    };
    let of_jump = || {
        let name = jump.comment.as_deref()?.strip_prefix("run through nw policy ")?;
        Some(name.to_owned())
    };
    comments
        .clone()
        .find_map(of_calico)
        .or_else(|| comments.clone().find_map(of_router))
        .or_else(of_jump)
}

/// What a rule of a policy asks, without what it does.
fn conditions(chain: &ChainId, rule: &Rule) -> Option<String> {
    let plain = Rule { comment: None, ..rule.clone() };
    let text = text::describe(chain, &plain);
    let asks = text.split_once(" → ")?.0.trim();
    (!asks.is_empty()).then(|| asks.to_owned())
}
