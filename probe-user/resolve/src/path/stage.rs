//! One hook: which ways go on, and which end there.

use std::cell::Cell;
use std::rc::Rc;

use whereis_port_rules::dialect::{self, Meaning};
use whereis_port_rules::{Fate, Outcome, Packet, SeenAs, traverse};

use super::{Arrival, ForwardPath, StopKind, hops, policy, ruleset};
use crate::budget::{Cache, WAY};
use crate::facts::Facts;
use crate::from_node::FromNode;
use whereis_port_model::{
    Advice, BaseChain, ChainKind, Command, Container, End, FixKind, Hook, NetnsId, Rejection,
    Ruleset, Service,
};

/// A way and the packet on it.
pub(super) type Going = (ForwardPath, Packet);

/// Which of a hook's chains are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum HookPart {
    All,
    /// Those before IPVS looks at what a process sends, which is right behind NAT.
    BeforeIpvs,
    /// Those behind it.
    BehindIpvs,
}

/// Where IPVS looks at what a process sends (`ip_vs_core.c`).
const IPVS: i32 = -98;
/// Where chains of type nat run, whatever their priority.
const NAT: i32 = -100;

impl HookPart {
    pub(super) fn has(self, chain: &BaseChain) -> bool {
        let priority = if chain.kind == ChainKind::Nat { NAT } else { chain.priority };
        match self {
            Self::All => true,
            Self::BeforeIpvs => priority <= IPVS,
            Self::BehindIpvs => priority > IPVS,
        }
    }
}

/// How many ways of one connection go through a hook.
const WAYS: usize = 512;
/// How many outcomes are kept, and the longest that are worth it.
const KEPT: usize = 4096;

/// What hooks did to packets so far. Several ways of a connection, and connections to the
/// same place, often come to a hook as the same packet.
#[derive(Default)]
pub(super) struct HookCache {
    parts: Cache<(NetnsId, HookPart), Rc<Ruleset>>,
    outcomes: Cache<(Hook, HookPart, Packet), Rc<[Outcome]>>,
    kept: Cell<usize>,
}

/// What a hook does to a packet.
pub(super) fn outcomes(
    facts: &Facts<'_>,
    hook: Hook,
    part: HookPart,
    packet: &Packet,
) -> Option<Rc<[Outcome]>> {
    let all = ruleset(facts, packet.netns)?;
    let memo = &facts.memo.stages;
    let key = (hook, part, packet.clone());
    if let Some(known) = memo.outcomes.borrow().get(&key) {
        return Some(Rc::clone(known));
    }
    let rules = match part {
        HookPart::All => all,
        part => {
            Rc::clone(memo.parts.borrow_mut().entry((packet.netns, part)).or_insert_with(|| {
                let mut some = Ruleset::clone(&all);
                some.base_chains.retain(|chain| part.has(chain));
                Rc::new(some)
            }))
        }
    };
    let source = FromNode::new(facts, packet.netns);
    let outcomes: Rc<[Outcome]> = traverse(&source, &rules, hook, packet.clone()).into();
    let kept = memo.kept.get() + outcomes.len();
    if kept <= KEPT {
        memo.kept.set(kept);
        memo.outcomes.borrow_mut().insert(key, Rc::clone(&outcomes));
    }
    Some(outcomes)
}

/// Sends packets through a hook of the namespace that they are in.
pub(super) fn pass(
    facts: &Facts<'_>,
    hook: Hook,
    going: Vec<Going>,
    ended: &mut Vec<Arrival>,
) -> Vec<Going> {
    pass_part(facts, hook, HookPart::All, going, ended)
}

/// The same through some of the chains.
pub(super) fn pass_part(
    facts: &Facts<'_>,
    hook: Hook,
    part: HookPart,
    going: Vec<Going>,
    ended: &mut Vec<Arrival>,
) -> Vec<Going> {
    let mut passed = Vec::new();
    for (way, packet) in going {
        let Some(outcomes) = outcomes(facts, hook, part, &packet) else {
            passed.push((way, packet));
            continue;
        };
        let share = facts.budget.of(packet.netns);
        for (at, outcome) in outcomes.iter().enumerate() {
            let told = u64::try_from(outcome.trail.len()).unwrap_or(u64::MAX);
            let cost = WAY.saturating_add(told.saturating_mul(64));
            if passed.len() + ended.len() >= WAYS || !facts.budget.spend(&share, cost) {
                let mut rest = way.stop(StopKind::Unknown, TOO_MANY);
                rest.more = outcomes.len() - at;
                ended.push(rest);
                break;
            }
            match outcome.fate {
                Fate::Passes => {
                    let after = &outcome.packet;
                    if (after.destination, after.dport) != (packet.destination, packet.dport) {
                        facts.memo.translated.note((hook, part), &packet, outcome);
                    }
                    passed.push(through(facts, &way, &packet, outcome));
                }
                _ => ended.push(stopped(facts, &way, outcome)),
            }
        }
    }
    passed
}

const TOO_MANY: &str = "the rules have more branches than are followed";

fn branch(way: &ForwardPath, outcome: &Outcome) -> ForwardPath {
    let mut way = way.clone();
    way.probability *= outcome.probability;
    let new = outcome.depends.iter().filter(|d| !way.depends.contains(d)).cloned();
    let new: Vec<_> = new.collect();
    way.depends.extend(new);
    for note in &outcome.notes {
        if !way.notes.contains(note) {
            way.notes.push(note.clone());
        }
    }
    way
}

fn through(facts: &Facts<'_>, way: &ForwardPath, before: &Packet, outcome: &Outcome) -> Going {
    let mut way = branch(way, outcome);
    let after = &outcome.packet;
    if (after.destination, after.dport) != (before.destination, before.dport) {
        let mut meaning = dialect::meaning(&outcome.trail);
        if meaning.by.is_none() && is_service_lb(facts, before.netns) {
            meaning.by = Some("k3s ServiceLB");
        }
        way.service = service(&meaning).or(way.service);
        way.hops.extend(hops::translation(facts, before, outcome, &meaning));
    } else if let Some((address, port)) = after.tproxy.filter(|_| before.tproxy.is_none()) {
        way.hops.extend(hops::tproxy(facts, before, (address, port), outcome));
    }
    let source_set = |packet: &Packet| packet.seen_as.is_some_and(|s| s != SeenAs::Itself);
    if source_set(after) && !source_set(before) {
        hops::note_source(&mut way.hops, outcome);
    }
    (way, outcome.packet.clone())
}

/// What to do where a policy leaves nobody.
pub(super) fn local_only(policy: &str) -> String {
    format!(
        "use a node that runs a pod of it ({policy}: Local), or set the policy to Cluster; see "
    )
}

fn stopped(facts: &Facts<'_>, way: &ForwardPath, outcome: &Outcome) -> Arrival {
    let way = branch(way, outcome);
    let meaning = dialect::meaning(&outcome.trail);
    let rule = hops::deciding_rule(outcome);
    let mut end = End { service: service(&meaning), ..End::default() };
    end.evidence.push(hops::evidence(outcome));
    if let Some(refused) = meaning.refused {
        let service = meaning.service.as_ref().map_or_else(
            || "the service".to_owned(),
            |s| format!("Service {}/{}", s.namespace, s.name),
        );
        let fix = match &meaning.service {
            Some(s) if refused == dialect::NO_LOCAL_ENDPOINTS => Some(
                Advice::from(local_only(meaning.policy.unwrap_or(dialect::EITHER_POLICY)))
                    .command(
                        Command::new("kubectl -n").arg(&s.namespace).args("get endpointslices"),
                    )
                    .of(FixKind::ChangePolicy),
            ),
            Some(s) => {
                let describe = Command::new("kubectl -n").arg(&s.namespace);
                let describe = describe.args("describe service").name(&s.name);
                let see = Advice::from("see why it has none: ").command(describe);
                Some(see.of(FixKind::Inspect))
            }
            None => None,
        };
        return way.stop_with(StopKind::NoBackend, format!("{service} {refused}"), fix, end);
    }
    let (kind, why) = match outcome.fate {
        Fate::Dropped => (StopKind::Dropped, format!("dropped by {rule}")),
        Fate::Rejected(Rejection::Reset | Rejection::Port) => {
            (StopKind::Rejected, format!("refused by {rule}"))
        }
        Fate::Rejected(Rejection::Other) => {
            (StopKind::Rejected, format!("refused as unreachable by {rule}"))
        }
        Fate::Queued => (StopKind::Unknown, format!("a program in user space decides: {rule}")),
        Fate::NotModelled => (StopKind::Unknown, format!("what it does is not evaluated: {rule}")),
        Fate::Unknown | Fate::Passes => (StopKind::Unknown, TOO_MANY.to_owned()),
    };
    let by_policy = matches!(kind, StopKind::Dropped | StopKind::Rejected)
        .then(|| policy::words(facts, &outcome.trail.last()?.chain))
        .flatten();
    let why = by_policy.map_or(why.clone(), |words| format!("{why}; {words}"));
    let mut arrival = way.stop_with(kind, why, None, end);
    arrival.more = outcome.more;
    arrival
}

fn service(meaning: &Meaning) -> Option<Service> {
    let name = meaning.service.as_ref()?;
    Some(Service {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        port: name.port.clone(),
    })
}

/// Whether a namespace is that of a pod which k3s makes for a LoadBalancer service: its
/// rules say nothing of whose they are.
fn is_service_lb(facts: &Facts<'_>, netns: NetnsId) -> bool {
    let is_one = |container: &Container| {
        let pod = container.pod.as_ref().and_then(|pod| pod.name.as_deref());
        pod.is_some_and(|name| name.starts_with("svclb-"))
    };
    facts.containers_of(netns).iter().any(is_one)
}
