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
use crate::place::locate;
use whereis_port_model::{
    Advice, Bytes, ChainId, Command, ConditionCode, Element, Evidence, EvidenceSource, Family,
    Finding, FindingCode, FixKind, Hook, IpSet, IpSetId, NetnsId, Path, Query, RouteFound,
    RouteQuery, RulesBackend, Set, SetId, StopKind,
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
        let shadow = shadowed(facts, one).filter(|shadow| !is_used(&shadow.second));
        let (key, made) = match shadow {
            Some(shadow) => {
                let key = (place(&shadow.first), place(&shadow.second));
                (key, two_rules(facts, one, &shadow))
            }
            None if leads_nowhere(one, paths) => {
                ((place(first), String::new()), to_nobody(one, first))
            }
            None => continue,
        };
        if told.insert(key) {
            findings.push(made);
        }
    }
    if let Some((one, other)) = undecided(&all, facts.host.own_netns)
        && told.insert((place_of(one), place_of(other)))
    {
        findings.push(two_tables(one, other));
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

/// A rule that never gets what is meant for it: the step that has it in its place, the other
/// one, and where that would send it.
struct Shadow {
    first: Step,
    second: Step,
    to: (IpAddr, u16),
    meanings: (Meaning, Meaning),
}

/// The rule that would have the packet if the one that has it were not there, and where it would
/// send it: one that is meant for this port, and surely gets nothing.
fn shadowed(facts: &Facts<'_>, one: &Translated) -> Option<Shadow> {
    let (before, outcome) = (&one.before, &one.outcome);
    if !outcome.depends.is_empty() {
        return None;
    }
    let all = ruleset(facts, before.netns)?;
    let mut rules = (*all).clone();
    rules.base_chains.retain(|chain| one.part.has(chain));
    let of_first = dialect::meaning(&outcome.trail);
    if outcome.probability < 1.0 {
        // Which of its endpoints a Service chooses is no matter.
        let node = FromNode::new(facts, before.netns);
        let all = traverse(&node, &rules, one.hook, before.clone());
        let same = |other: &Outcome| {
            other.depends.is_empty() && is_same_service(&of_first, &dialect::meaning(&other.trail))
        };
        if all.is_empty() || !all.iter().all(same) {
            return None;
        }
    }
    // The last one first: that without which it goes to somebody else.
    let steps = outcome.trail.iter().rev().filter(|step| step.rule().is_some());
    for first in steps {
        if first.element.is_some() {
            return None;
        }
        let source = Without { node: FromNode::new(facts, before.netns), rule: first };
        let gets = |packet: &Packet| {
            let all = traverse(&source, &rules, one.hook, packet.clone());
            let first = all.first()?;
            let meaning = dialect::meaning(&first.trail);
            let is_whole = all.len() == 1
                || all.iter().all(|one| is_same_service(&meaning, &dialect::meaning(&one.trail)));
            let is_sure = all.iter().all(|one| one.depends.is_empty());
            let after = &first.packet;
            let to = (after.destination, after.dport);
            let is_taken = first.fate == Fate::Passes && to != (packet.destination, packet.dport);
            (is_taken && is_whole && is_sure).then(|| (first.clone(), meaning))
        };
        let (second, of_second) = gets(before)?;
        let to = (second.packet.destination, second.packet.dport);
        if is_same_service(&of_first, &of_second) {
            continue;
        }
        let step = second.trail.last().filter(|step| step.rule().is_some())?.clone();
        // What takes any port is meant for those that nobody else wants.
        let mut any = before.clone();
        any.dport ^= OTHER_PORT;
        let takes_any = gets(&any).is_some_and(|(outcome, _)| outcome.trail.last() == Some(&step));
        let is_other = to != (outcome.packet.destination, outcome.packet.dport);
        return (is_other && !takes_any).then(|| Shadow {
            first: first.clone(),
            second: step,
            to,
            meanings: (of_first, of_second),
        });
    }
    None
}

fn is_same_service(one: &Meaning, other: &Meaning) -> bool {
    one.service.is_some() && one.service == other.service
}

/// Where a rule leads, by the name of what is there.
fn named(facts: &Facts<'_>, meaning: &Meaning, (address, port): (IpAddr, u16)) -> String {
    if let Some(service) = &meaning.service {
        return format!("Service {}/{}", service.namespace, service.name);
    }
    let to = std::net::SocketAddr::new(address, port);
    match locate(facts, facts.host.own_netns, address)[..] {
        [place] if place != facts.host.own_netns => format!("{to} ({})", facts.netns_ref(place)),
        _ => to.to_string(),
    }
}

/// What makes both take another port: rules of Services come back when they are removed.
fn apart(facts: &Facts<'_>, shadow: &Shadow, to: (IpAddr, u16)) -> Option<Advice> {
    let (first, second) = &shadow.meanings;
    if first.service.is_none() && second.service.is_none() {
        return None;
    }
    let mut ways = Advice::new();
    for (meaning, to) in [(first, to), (second, shadow.to)] {
        let name = named(facts, meaning, to);
        let other = match (meaning.what, &meaning.service) {
            (Some(dialect::NODE_PORT), Some(_)) => format!("give {name} another nodePort"),
            (_, Some(_)) => format!("give {name} another port or address"),
            (Some(dialect::HOST_PORT), None) => format!("give {name} another hostPort"),
            (Some(dialect::PUBLISHED), None) => format!("publish {name} at another port"),
            (_, None) => continue,
        };
        ways = ways.or(Advice::from(other).of(FixKind::Other));
    }
    (!ways.is_empty()).then_some(ways)
}

fn asked(one: &Translated) -> String {
    format!("{}/{}", one.before.dport, one.before.proto)
}

fn place_of(one: &Translated) -> String {
    one.outcome.trail.last().map_or_else(String::new, place)
}

fn leads_to(one: &Translated) -> std::net::SocketAddr {
    std::net::SocketAddr::new(one.outcome.packet.destination, one.outcome.packet.dport)
}

fn made(one: &Translated, code: FindingCode, words: (String, String), fix: Advice) -> Finding {
    let (what, cause) = words;
    Finding {
        code,
        what,
        cause: Some(cause),
        fix: Some(fix),
        evidence: vec![Evidence::new(
            EvidenceSource::PacketRules,
            whereis_port_rules::text::summary(&one.outcome.trail),
        )],
    }
}

/// What removes the one of two rules that is not meant.
fn either(all: [(std::net::SocketAddr, &Step); 2]) -> Advice {
    let mut fix = Advice::from("remove the one that is not meant");
    for (at, (to, step)) in all.into_iter().enumerate() {
        let words = if at == 0 { ": to " } else { "; to " };
        if let Some(command) = removal(step) {
            fix = fix.words(format!("{words}{to}: ")).command(command);
        }
    }
    fix.of(FixKind::RemoveRule)
}

fn two_rules(facts: &Facts<'_>, one: &Translated, shadow: &Shadow) -> Finding {
    let (to, other) = (leads_to(one), std::net::SocketAddr::new(shadow.to.0, shadow.to.1));
    let asked = asked(one);
    let cause =
        format!("{} comes before {}", hops::rule(&shadow.first), hops::rule(&shadow.second));
    let first = (to.ip(), to.port());
    let (what, fix) = match apart(facts, shadow, first) {
        Some(fix) => {
            let (of_first, of_second) = &shadow.meanings;
            let (to, other) = (named(facts, of_first, first), named(facts, of_second, shadow.to));
            (format!("two rules take {asked}: it goes to {to}, and never to {other}"), fix)
        }
        None => (
            format!("two rules take {asked}: it goes to {to}, and never to {other}"),
            either([(to, &shadow.first), (other, &shadow.second)]),
        ),
    };
    made(one, FindingCode::ShadowedRule, (what, cause), fix)
}

fn to_nobody(one: &Translated, first: &Step) -> Finding {
    let fix = Advice::from("remove it if that will not come back");
    let fix = match removal(first) {
        Some(command) => fix.words(": ").command(command),
        None => fix,
    };
    let what =
        format!("a rule leads {} to {}, and nobody has that address", asked(one), leads_to(one));
    let cause = format!("{} was left behind, or what it is for is down", hops::rule(first));
    made(one, FindingCode::RuleToNobody, (what, cause), fix.of(FixKind::RemoveRule))
}

/// Two translations of one packet of which nobody knows which comes first: each of another kind of
/// tables.
fn undecided(all: &[Translated], own: NetnsId) -> Option<(&Translated, &Translated)> {
    let is_one = |one: &&Translated| {
        let depends = &one.outcome.depends;
        one.before.netns == own
            && !depends.is_empty()
            && depends.iter().all(|one| one.code == ConditionCode::Order)
    };
    let mut ours = all.iter().filter(is_one);
    ours.find_map(|one| {
        let backend = |one: &Translated| one.outcome.trail.last().map(|s| s.chain.table.backend);
        let differs = |other: &&Translated| {
            (other.hook, other.before.destination) == (one.hook, one.before.destination)
                && (other.before.dport, other.before.proto) == (one.before.dport, one.before.proto)
                && backend(other) != backend(one)
                && leads_to(other) != leads_to(one)
        };
        Some((one, all.iter().filter(is_one).find(differs)?))
    })
}

fn two_tables(one: &Translated, other: &Translated) -> Finding {
    let (to, elsewhere) = (leads_to(one), leads_to(other));
    let what = format!(
        "rules of iptables-legacy and of nf_tables take {}: whether it goes to {to} or to {elsewhere} \
         depends on which of them came first",
        asked(one)
    );
    let cause = "those of one of them were left behind when the other came into use".to_owned();
    let fix = match (one.outcome.trail.last(), other.outcome.trail.last()) {
        (Some(first), Some(second)) => either([(to, first), (elsewhere, second)]),
        _ => Advice::new(),
    };
    made(one, FindingCode::ShadowedRule, (what, cause), fix)
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
