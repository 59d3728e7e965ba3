//! Rules that were left behind: one that leads where nobody is, and one that never gets a
//! packet because another comes first.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use whereis_port_rules::dialect::{self, Meaning};
use whereis_port_rules::{Chain, Fate, Outcome, Packet, RuleSource, Step, traverse};

use super::stage::HookPart;
use super::{hops, ruleset};
use crate::facts::Facts;
use crate::from_node::FromNode;
use whereis_port_model::{
    Advice, Bytes, ChainId, Command, Element, Evidence, EvidenceSource, Family, Finding,
    FindingCode, FixKind, Hook, IpSet, IpSetId, NetnsId, Path, Query, RouteFound, RouteQuery,
    RulesBackend, Set, SetId, StopKind,
};

/// How many translations are looked at again.
const MOST: usize = 64;

/// What makes another port of one.
const OTHER_PORT: u16 = 0x2aaa;

/// A packet that rules sent elsewhere, and how.
struct Translated {
    hook: Hook,
    part: HookPart,
    before: Packet,
    outcome: Outcome,
}

/// The translations of a question so far.
#[derive(Default)]
pub(crate) struct TranslationLog {
    all: RefCell<Vec<Translated>>,
}

impl TranslationLog {
    /// Notes a translation, once for each rule that makes one and address that it is asked for.
    pub(super) fn note(&self, (hook, part): (Hook, HookPart), before: &Packet, outcome: &Outcome) {
        let mut all = self.all.borrow_mut();
        let is_known = |one: &Translated| {
            one.hook == hook
                && one.outcome.trail.last() == outcome.trail.last()
                && one.before.destination == before.destination
        };
        if all.len() < MOST && !all.iter().any(is_known) {
            let (before, outcome) = (before.clone(), outcome.clone());
            all.push(Translated { hook, part, before, outcome });
        }
    }
}

/// What rules were left behind on the ways of a question about one port.
pub(crate) fn check(facts: &Facts<'_>, query: &Query, paths: &[Path]) -> Vec<Finding> {
    if query.ports.first != query.ports.last {
        return Vec::new();
    }
    let all = facts.memo.translated.all.take();
    let mut findings: Vec<Finding> = Vec::new();
    let mut told: BTreeSet<(String, String)> = BTreeSet::new();
    for one in all.iter().filter(|one| one.before.netns == facts.host.own_netns) {
        let Some(first) = one.outcome.trail.last() else { continue };
        // What another sender gets is not in vain.
        let is_used = |step: &Step| {
            let mut deciding = all.iter().filter_map(|one| one.outcome.trail.last());
            deciding.any(|used| place(used) == place(step))
        };
        let (what, others) = match shadowed(facts, one).filter(|(second, _)| !is_used(second)) {
            Some(second) => (FindingCode::ShadowedRule, Some(second)),
            None if leads_nowhere(one, paths) => (FindingCode::RuleToNobody, None),
            None => continue,
        };
        let key = (place(first), others.as_ref().map_or_else(String::new, |(s, _)| place(s)));
        if told.insert(key) {
            findings.push(finding(one, what, first, others));
        }
    }
    findings
}

fn place(step: &Step) -> String {
    let handle = step.rule().map_or(0, |rule| rule.handle);
    format!("{} {} {handle}", step.chain.table, step.chain.name)
}

/// Whether nobody has the address that a rule leads to. Who balances looks after its own rules.
fn leads_nowhere(one: &Translated, paths: &[Path]) -> bool {
    let after = &one.outcome.packet;
    let is_there = |path: &&Path| {
        let to = path.hops.get(1).map(|hop| &hop.endpoint);
        to.is_some_and(|to| {
            to.address == Some(after.destination) && to.port.is_some_and(|p| p.0 == after.dport)
        })
    };
    let mut there = paths.iter().filter(is_there).peekable();
    let meaning = dialect::meaning(&one.outcome.trail);
    meaning.service.is_none()
        && one.outcome.trail.last().is_some_and(|step| step.element.is_none())
        && there.peek().is_some()
        && there.all(|path| path.end.stop == Some(StopKind::NoNeighbour))
}

/// The rule that would have the packet if the one that has it were not there, and where it would
/// send it: one that is meant for this port, and surely gets nothing.
fn shadowed(facts: &Facts<'_>, one: &Translated) -> Option<(Step, (IpAddr, u16))> {
    let (before, outcome) = (&one.before, &one.outcome);
    let first = outcome.trail.last()?;
    let is_sure = outcome.probability >= 1.0 && outcome.depends.is_empty();
    if !is_sure || first.rule().is_none() || first.element.is_some() {
        return None;
    }
    let all = ruleset(facts, before.netns)?;
    let mut rules = (*all).clone();
    rules.base_chains.retain(|chain| one.part.has(chain));
    let source = Without { node: FromNode::new(facts, before.netns), rule: first };
    let gets = |packet: &Packet| {
        let all = traverse(&source, &rules, one.hook, packet.clone());
        let [outcome] = all.as_slice() else { return None };
        let after = &outcome.packet;
        let to = (after.destination, after.dport);
        let is_taken = outcome.fate == Fate::Passes && to != (packet.destination, packet.dport);
        (is_taken && outcome.depends.is_empty()).then(|| outcome.clone())
    };
    let second = gets(before)?;
    let to = (second.packet.destination, second.packet.dport);
    let (of_first, of_second) = (dialect::meaning(&outcome.trail), dialect::meaning(&second.trail));
    let is_other = to != (outcome.packet.destination, outcome.packet.dport)
        && !is_same_service(&of_first, &of_second);
    let step = second.trail.last().filter(|step| step.rule().is_some())?.clone();
    // What takes any port is meant for those that nobody else wants.
    let mut any = before.clone();
    any.dport ^= OTHER_PORT;
    let takes_any =
        gets(&any).is_some_and(|outcome| outcome.trail.last().is_some_and(|last| *last == step));
    (is_other && !takes_any).then_some((step, to))
}

fn is_same_service(one: &Meaning, other: &Meaning) -> bool {
    one.service.is_some() && one.service == other.service
}

fn finding(
    one: &Translated,
    code: FindingCode,
    first: &Step,
    second: Option<(Step, (IpAddr, u16))>,
) -> Finding {
    let asked = format!("{}/{}", one.before.dport, one.before.proto);
    let after = &one.outcome.packet;
    let to = std::net::SocketAddr::new(after.destination, after.dport);
    let (what, cause, fix) = match second {
        Some((second, (address, port))) => {
            let other = std::net::SocketAddr::new(address, port);
            let mut fix = Advice::from("remove the one that is not meant");
            for (leads, step) in [(to, first), (other, &second)] {
                let words = if leads == to { ": to " } else { "; to " };
                if let Some(command) = removal(step) {
                    fix = fix.words(format!("{words}{leads}: ")).command(command);
                }
            }
            (
                format!("two rules take {asked}: it goes to {to}, and never to {other}"),
                format!("{} comes before {}", hops::rule(first), hops::rule(&second)),
                fix,
            )
        }
        None => {
            let fix = Advice::from("remove it if that will not come back");
            let fix = match removal(first) {
                Some(command) => fix.words(": ").command(command),
                None => fix,
            };
            (
                format!("a rule leads {asked} to {to}, and nobody has that address"),
                format!("{} was left behind, or what it is for is down", hops::rule(first)),
                fix,
            )
        }
    };
    Finding {
        code,
        what,
        cause: Some(cause),
        fix: Some(fix.of(FixKind::RemoveRule)),
        evidence: vec![Evidence::new(
            EvidenceSource::PacketRules,
            whereis_port_rules::text::summary(&one.outcome.trail),
        )],
    }
}

/// What removes a rule.
fn removal(step: &Step) -> Option<Command> {
    let rule = step.rule()?;
    let table = &step.chain.table;
    let handle = rule.handle.to_string();
    Some(match table.backend {
        RulesBackend::Legacy => {
            let program =
                if table.family == Family::Ip6 { "ip6tables-legacy" } else { "iptables-legacy" };
            let command = Command::new(program).args("-t").arg(&*table.name);
            command.args("-D").arg(&*step.chain.name).arg(handle)
        }
        RulesBackend::Nft => {
            let command = Command::new("nft delete rule").args(table.family.as_str());
            command.name(&*table.name).name(&*step.chain.name).args("handle").arg(handle)
        }
    })
}

/// A node as if it had one rule less.
struct Without<'a, 'f> {
    node: FromNode<'a, 'f>,
    rule: &'a Step,
}

impl RuleSource for Without<'_, '_> {
    fn chain(&self, chain: &ChainId) -> Option<Arc<Chain>> {
        if *chain != self.rule.chain {
            return self.node.chain(chain);
        }
        let mut rules = self.rule.rules.to_vec();
        let at = self.rule.at?;
        if at < rules.len() {
            rules.remove(at);
        }
        Some(Arc::new(Chain::new(chain, rules.into())))
    }

    fn set(&self, set: &SetId) -> Option<Set> {
        self.node.set(set)
    }

    fn set_elements(&self, set: &SetId) -> Option<Arc<[Element]>> {
        self.node.set_elements(set)
    }

    fn few_elements(&self, set: &SetId) -> Option<Arc<[Element]>> {
        self.node.few_elements(set)
    }

    fn set_element(&self, set: &SetId, key: &Bytes) -> Option<Option<Element>> {
        self.node.set_element(set, key)
    }

    fn ip_set(&self, set: &IpSetId) -> Option<Arc<IpSet>> {
        self.node.ip_set(set)
    }

    fn route(&self, query: &RouteQuery) -> Option<RouteFound> {
        self.node.route(query)
    }

    fn first_address(&self, netns: NetnsId, ifindex: u32, ipv6: bool) -> Option<IpAddr> {
        self.node.first_address(netns, ifindex, ipv6)
    }

    fn has_transparent(&self, netns: NetnsId) -> Option<bool> {
        self.node.has_transparent(netns)
    }

    fn over_bridge_port(&self, packet: &Packet, ifindex: u32) -> Option<bool> {
        self.node.over_bridge_port(packet, ifindex)
    }

    fn spend(&self, steps: usize) -> bool {
        self.node.spend(steps)
    }
}
