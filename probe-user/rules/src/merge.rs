//! The branches of a hook as outcomes: what has the same result is put together.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::branch::Branch;
use super::question::{Assumption, Predicate};
use super::{Fate, Outcome, Packet, RuleSource};
use crate::model::Condition;

/// Up to how many outcomes with the same result are compared pair by pair.
const PAIRS: usize = 64;
/// How many outcomes with the same result are told apart by what they assume.
const SAME: usize = 8;
/// How many outcomes are told apart that depend on what is not known of the sender.
const UNSURE: usize = 32;
/// Up to how many conditions an outcome names them all.
const CONDITIONS: usize = 8;

/// An outcome whose assumptions are not in words yet.
struct RawOutcome {
    outcome: Outcome,
    assumed: Vec<Assumption>,
}

fn outcome((branch, fate): (Branch, Fate)) -> RawOutcome {
    let outcome = Outcome {
        packet: branch.packet,
        fate,
        probability: branch.probability,
        depends: Vec::new(),
        notes: branch.notes,
        trail: branch.trail,
        more: 0,
    };
    RawOutcome { outcome, assumed: branch.assumed }
}

/// Puts together what has the same result: whatever is assumed, or by adding up. Where
/// many things lead to the same result, one of them is named, with their number; and of
/// very many results a few, with the number of the others.
pub(super) fn merge(source: &dyn RuleSource, branches: Vec<(Branch, Fate)>) -> Vec<Outcome> {
    // In the order of the first of each result.
    let mut groups: HashMap<(Fate, Packet), Vec<(usize, RawOutcome)>> = HashMap::new();
    for (at, raw) in branches.into_iter().map(outcome).enumerate() {
        let key = (raw.outcome.fate, raw.outcome.packet.clone());
        groups.entry(key).or_default().push((at, raw));
    }
    let mut groups: Vec<Vec<(usize, RawOutcome)>> = groups.into_values().collect();
    remembered(source, &mut groups);
    let mut all: Vec<(usize, RawOutcome)> = Vec::new();
    for mut group in groups {
        add_up(source, &mut group);
        if group.len() <= PAIRS {
            pairs(&mut group);
        }
        if group.len() > SAME {
            group = of_many(source, group);
        }
        all.extend(group);
    }
    all.sort_by_key(|(at, _)| *at);
    let outcomes = all.into_iter().map(|(_, raw)| in_words(raw)).collect();
    few(outcomes)
}

/// Where all that rules remember of a client only chooses among what others get, too, as
/// session affinity does, that is a note: its outcomes are left out, and nobody else's depend
/// on it.
fn remembered(source: &dyn RuleSource, groups: &mut [Vec<(usize, RawOutcome)>]) {
    let memory = |one: &&Assumption| one.question.remembered_for().is_some();
    let came = |raw: &RawOutcome| -> Vec<Arc<Predicate>> {
        let those = raw.assumed.iter().filter(memory).filter(|one| one.holds);
        those.map(|one| Arc::clone(&one.question)).collect()
    };
    let others = |raw: &RawOutcome| -> Vec<Assumption> {
        raw.assumed.iter().filter(|one| !memory(one)).cloned().collect()
    };
    // What sends a client where nobody else gets, or under other conditions.
    let (mut known, mut decisive) = (HashSet::new(), HashSet::new());
    for group in &*groups {
        let (old, new): (Vec<&RawOutcome>, Vec<&RawOutcome>) =
            group.iter().map(|(_, raw)| raw).partition(|raw| !came(raw).is_empty());
        if old.is_empty() {
            continue;
        }
        source.spend(group.iter().map(|(_, raw)| raw.assumed.len()).sum());
        let new: HashSet<Vec<Assumption>> = new.into_iter().map(others).collect();
        for raw in old {
            known.extend(came(raw));
            if !new.contains(&others(raw)) {
                decisive.extend(came(raw));
            }
        }
    }
    let is_idle = |question: &Arc<Predicate>| !decisive.contains(question);
    if !known.iter().any(is_idle) {
        return;
    }
    for group in groups {
        let mut seconds = None;
        group.retain(|(_, raw)| {
            let came = came(raw);
            let leaves = !came.is_empty() && came.iter().all(is_idle);
            if leaves {
                seconds = seconds.max(came.iter().filter_map(|one| one.remembered_for()).max());
            }
            !leaves
        });
        for (_, raw) in group {
            raw.assumed.retain(|one| {
                !(memory(&one) && known.contains(&one.question) && is_idle(&one.question))
            });
            let note = match seconds {
                Some(0) => "session affinity: who came before may always get the same".to_owned(),
                Some(s) => {
                    format!("session affinity: who came in the last {s} s may always get the same")
                }
                None => continue,
            };
            add_notes(&mut raw.outcome, vec![note]);
        }
    }
}

/// What assumes the same, one behind the other: random choices that lead to the same.
fn add_up(source: &dyn RuleSource, group: &mut Vec<(usize, RawOutcome)>) {
    let mut kept: Vec<(usize, RawOutcome)> = Vec::with_capacity(group.len());
    for (at, raw) in group.drain(..) {
        source.spend(1 + raw.assumed.len());
        match kept.last_mut() {
            Some((_, last)) if last.assumed == raw.assumed => {
                last.outcome.probability += raw.outcome.probability;
                add_notes(&mut last.outcome, raw.outcome.notes);
            }
            _ => kept.push((at, raw)),
        }
    }
    *group = kept;
}

fn pairs(all: &mut Vec<(usize, RawOutcome)>) {
    let mut changed = true;
    while changed {
        changed = false;
        let mut a = 0;
        while a < all.len() {
            let mut b = a + 1;
            while b < all.len() {
                let Some((assumed, probability)) = joined(&all[a].1, &all[b].1) else {
                    b += 1;
                    continue;
                };
                let (_, other) = all.remove(b);
                let (_, one) = &mut all[a];
                // What holds of nearly all senders is told, not what holds of a few.
                let of_few = |raw: &RawOutcome| raw.assumed.iter().filter(|one| one.holds).count();
                if of_few(&other) < of_few(one) {
                    one.outcome.trail.clone_from(&other.outcome.trail);
                }
                one.assumed = assumed;
                one.outcome.probability = probability;
                add_notes(&mut one.outcome, other.outcome.notes);
                changed = true;
            }
            a += 1;
        }
    }
}

fn add_notes(outcome: &mut Outcome, notes: Vec<String>) {
    for note in notes {
        if !outcome.notes.contains(&note) {
            outcome.notes.push(note);
        }
    }
}

/// What two outcomes with the same result assume together and how likely they are then,
/// if they can be one.
fn joined(a: &RawOutcome, b: &RawOutcome) -> Option<(Vec<Assumption>, f64)> {
    let (p, q) = (a.outcome.probability, b.outcome.probability);
    let only = |mine: &[Assumption], theirs: &[Assumption]| -> Vec<Assumption> {
        mine.iter().filter(|x| !theirs.contains(x)).cloned().collect()
    };
    let (mine, theirs) = (only(&a.assumed, &b.assumed), only(&b.assumed, &a.assumed));
    match (mine.as_slice(), theirs.as_slice()) {
        ([], []) => Some((a.assumed.clone(), p + q)),
        // Whether it holds or not.
        ([x], [y]) if x.question == y.question && (p - q).abs() < 1e-9 => {
            Some((a.assumed.iter().filter(|z| *z != x).cloned().collect(), p))
        }
        _ => None,
    }
}

/// One outcome for all that are as likely: what they all assume, and one of the rest.
fn of_many(source: &dyn RuleSource, group: Vec<(usize, RawOutcome)>) -> Vec<(usize, RawOutcome)> {
    let mut by_chance: Vec<(usize, RawOutcome, Vec<Assumption>, usize)> = Vec::new();
    for (at, raw) in group {
        source.spend(1 + 2 * raw.assumed.len());
        let likely = raw.outcome.probability.to_bits();
        let same = by_chance.iter_mut().find(|k| k.1.outcome.probability.to_bits() == likely);
        let Some((_, known, common, count)) = same else {
            let common = raw.assumed.clone();
            by_chance.push((at, raw, common, 1));
            continue;
        };
        let assumed: HashSet<&Assumption> = raw.assumed.iter().collect();
        common.retain(|one| assumed.contains(one));
        add_notes(&mut known.outcome, raw.outcome.notes);
        *count += 1;
    }
    let one = |(at, mut raw, mut common, count): (usize, RawOutcome, Vec<Assumption>, usize)| {
        if count > 1 {
            let first = raw.assumed.iter().rev().find(|one| one.holds && !common.contains(one));
            let question = Predicate::OneOf { count, such_as: first.cloned() };
            common.push(Assumption { question: Arc::new(question), holds: true });
            raw.assumed = common;
        }
        (at, raw)
    };
    by_chance.into_iter().map(one).collect()
}

/// With its assumptions in words.
fn in_words(raw: RawOutcome) -> Outcome {
    let mut depends: Vec<Condition> = Vec::new();
    if raw.assumed.len() <= CONDITIONS {
        depends.extend(raw.assumed.iter().map(Assumption::condition));
    } else {
        let holds = raw.assumed.iter().filter(|one| one.holds);
        depends.extend(holds.take(CONDITIONS / 2).map(Assumption::condition));
        let others = raw.assumed.len() - depends.len();
        depends.push(Condition::several(format!("{others} other conditions turn out so")));
    }
    Outcome { depends, ..raw.outcome }
}

/// A few of those that depend on something, and one that stands for the others.
fn few(all: Vec<Outcome>) -> Vec<Outcome> {
    let unsure = all.iter().filter(|outcome| !outcome.depends.is_empty()).count();
    // Those of packets that stand for several are of different packets.
    let is_wide = all.iter().any(|outcome| outcome.packet.wide.is_some());
    if unsure <= UNSURE || is_wide {
        return all;
    }
    let (mut kept, mut seen, mut rest) = (Vec::new(), 0, None::<Outcome>);
    for outcome in all {
        seen += usize::from(!outcome.depends.is_empty());
        // The last is most often what becomes of a packet when no condition holds.
        if outcome.depends.is_empty() || seen < UNSURE || seen == unsure {
            kept.push(outcome);
        } else {
            rest.get_or_insert(outcome).more += 1;
        }
    }
    kept.extend(rest.map(|rest| Outcome {
        fate: Fate::Unknown,
        depends: vec![Condition::several(format!("one of {} other conditions holds", rest.more))],
        trail: Vec::new(),
        ..rest
    }));
    kept
}
