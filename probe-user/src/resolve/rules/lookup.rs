//! Sets, maps, and words that are one of some values.

use std::sync::Arc;

use super::Source;
use super::branch::{Branch, words};
use super::machine::{Does, Ended, Place, address_of, client_is, go};
use super::regs::{Holds, Missing, Values};
use crate::model::{Bytes, Element, Reg, RuleVerdict, SetId, element_of};

/// How many branches one rule makes at most, of a choice or a map.
const CHOICES: usize = 1024;
/// How many elements are looked through for a key of which some is unknown.
const ELEMENTS: usize = 4096;

pub(super) fn lookup(
    source: &dyn Source,
    branch: &mut Branch,
    place: Place<'_>,
    name: &Arc<str>,
    sreg: Reg,
    invert: bool,
) -> Does {
    let set = place.set(name);
    let Some(len) = key_len(source, &set) else {
        let holds = Holds::Maybe(Missing::Detail("a set that could not be read"));
        return Does::If(
            holds,
            place.question(&format!("a match in set {name}, which could not be read")),
        );
    };
    if let Some(key) = branch.regs.get(sreg, len) {
        let key = Bytes::from(key);
        return match source.set_element(&set, &key) {
            Some(element) => go(element.is_some() != invert),
            None => Does::If(
                Holds::Maybe(Missing::Detail("a set that could not be read")),
                place.question(&format!("a match in set {name}, which could not be read")),
            ),
        };
    }
    let missing = branch.regs.missing(sreg, len);
    if let Some(values) = branch.regs.choice(sreg, len)
        && let Some((head, elements)) = source.set(&set).zip(source.set_elements(&set))
    {
        let is_in =
            |key: &[u8]| element_of(&head.fields, &elements, &Bytes::from(key)).is_some() != invert;
        return chosen_if(branch, sreg, values, is_in);
    }
    if missing == Some(Missing::ClientAddress) && name.starts_with("affinity-") {
        // kube-proxy's session affinity: who came before goes where he went.
        branch.note("session affinity: a client that came before goes where it went".to_owned());
        return go(invert);
    }
    if possible(source, branch, &set, sreg, len).is_some_and(|all| all.is_empty()) {
        return go(invert);
    }
    let what = words(missing.unwrap_or(Missing::Detail("a value")));
    let question = format!("{what} is in set {name} of {}", set.table);
    match branch.knows(&question) {
        Some(is) => go(is != invert),
        None => client_is(branch, question, invert),
    }
}

/// Follows a map: what an element says, on the branch that has its key.
pub(super) fn map(
    source: &dyn Source,
    branch: &mut Branch,
    place: Place<'_>,
    name: &Arc<str>,
    sreg: Reg,
    dreg: Option<Reg>,
) -> Does {
    let set = place.set(name);
    let Some(len) = key_len(source, &set) else { return Does::Ends(Ended::Unknown) };
    let with = |mut branch: Branch, element: Option<Element>| {
        let Some(element) = element else { return (branch, Some(Ended::Next)) };
        match (dreg, &element.data, &element.verdict) {
            (Some(dreg), Some(data), _) => {
                branch.regs.set(dreg, &data.0);
                branch.trail.push(place.step(Some(element)));
                (branch, None)
            }
            (None, _, Some(RuleVerdict::Continue)) => (branch, None),
            (None, _, Some(RuleVerdict::Break)) => (branch, Some(Ended::Next)),
            (None, _, Some(RuleVerdict::Return)) => {
                (branch, Some(Ended::Verdict(RuleVerdict::Return)))
            }
            (None, _, Some(verdict)) => {
                let ended = Ended::Verdict(verdict.clone());
                branch.trail.push(place.step(Some(element)));
                (branch, Some(ended))
            }
            // A stateful object decides nothing by itself.
            _ => (branch, None),
        }
    };
    if let Some(key) = branch.regs.get(sreg, len) {
        let key = Bytes::from(key);
        return match source.set_element(&set, &key) {
            Some(None) => Does::Ends(Ended::Next),
            Some(element) => Does::Splits(vec![with(branch.clone(), element)]),
            None => Does::Ends(Ended::Unknown),
        };
    }
    let missing = branch.regs.missing(sreg, len);
    if let Some(values) = branch.regs.choice(sreg, len).filter(|all| all.len() <= CHOICES)
        && let Some((head, elements)) = source.set(&set).zip(source.set_elements(&set))
    {
        let split = |(key, count): ([u8; 4], usize)| {
            let mut branch = branch.in_cases(count, values.len());
            branch.regs.set(sreg, &key);
            let element = element_of(&head.fields, &elements, &Bytes::from(key.as_slice()));
            with(branch, element.cloned())
        };
        return Does::Splits(distinct(values).into_iter().map(split).collect());
    }
    let Some(all) = possible(source, branch, &set, sreg, len).filter(|all| all.len() <= 64) else {
        return Does::Ends(Ended::Unknown);
    };
    let mut branches = Vec::new();
    let mut rest = branch.clone();
    // Keys of no other element belong to the catch-all one.
    let (any, all): (Vec<Element>, Vec<Element>) = all.into_iter().partition(|e| e.catch_all);
    for element in all {
        let question = key_is(missing, &element, &set);
        let is = branch.clone().assuming(question.clone(), true);
        branches.push(with(is, Some(element)));
        rest = rest.assuming(question, false);
    }
    branches.push(with(rest, any.into_iter().next()));
    Does::Splits(branches)
}

/// What it takes for an element of a map to be the one.
fn key_is(missing: Option<Missing>, element: &Element, set: &SetId) -> String {
    let address = |bytes: &Bytes| {
        let is_address =
            missing == Some(Missing::ClientAddress) && [4, 16].contains(&bytes.0.len());
        address_of(&bytes.0).filter(|_| is_address)
    };
    let what = words(missing.unwrap_or(Missing::Detail("a value")));
    match (address(&element.key), element.key_end.as_ref().map(address)) {
        (Some(one), None) => format!("{what} is {one}"),
        (Some(first), Some(Some(last))) => format!("{what} is one of {first} to {last}"),
        _ => format!("{what} is {:?} in map {} of {}", element.key, set.name, set.table),
    }
}

/// The elements that a key of which some bits are unknown may belong to.
fn possible(
    source: &dyn Source,
    branch: &Branch,
    set: &SetId,
    sreg: Reg,
    len: usize,
) -> Option<Vec<Element>> {
    let (bytes, known) = branch.regs.partly(sreg, len)?;
    let elements = source.set_elements(set).filter(|all| all.len() <= ELEMENTS)?;
    let fits = |element: &Element| {
        element.catch_all
            || element.key_end.is_some()
            || element.key.0.iter().zip(bytes).zip(known).all(|((e, b), k)| (e ^ b) & k == 0)
    };
    Some(elements.iter().filter(|e| fits(e)).cloned().collect())
}

fn key_len(source: &dyn Source, set: &SetId) -> Option<usize> {
    usize::try_from(source.set(set)?.key_len).ok()
}

/// Goes on with those values of a word for which something holds, and not with the
/// others.
pub(super) fn chosen_if(
    branch: &Branch,
    sreg: Reg,
    values: &Values,
    holds: impl Fn(&[u8]) -> bool,
) -> Does {
    let (yes, no): (Vec<[u8; 4]>, Vec<[u8; 4]>) = values.iter().partition(|value| holds(*value));
    if yes.is_empty() || no.is_empty() {
        return go(no.is_empty());
    }
    let with = |some: Vec<[u8; 4]>| {
        let mut branch = branch.in_cases(some.len(), values.len());
        branch.regs.narrow(sreg, some.into());
        branch
    };
    Does::Splits(vec![(with(yes), None), (with(no), Some(Ended::Next))])
}

/// One branch for each value that a word may have, with what follows from it.
pub(super) fn each(
    branch: &Branch,
    values: &Values,
    sreg: Reg,
    then: impl Fn(&mut Branch, u32),
) -> Vec<(Branch, Option<Ended>)> {
    let one = |(value, count): ([u8; 4], usize)| {
        let mut branch = branch.in_cases(count, values.len());
        branch.regs.set(sreg, &value);
        then(&mut branch, u32::from_ne_bytes(value));
        (branch, None)
    };
    distinct(values).into_iter().map(one).collect()
}

/// Each value, with how often it is there.
fn distinct(values: &Values) -> Vec<([u8; 4], usize)> {
    let mut all = values.to_vec();
    all.sort_unstable_by_key(|value| u32::from_ne_bytes(*value));
    all.chunk_by(|a, b| a == b).filter_map(|same| Some((*same.first()?, same.len()))).collect()
}
