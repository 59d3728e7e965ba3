//! Sets, maps, and numbers that are drawn.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::branch::{Branch, SlotValue};
use super::lower::{Field, SetKey, Term, ValueSlot};
use super::machine::{Does, Ended, RulePosition, address, client_is, eval, go, word};
use super::nat::number;
use super::question::Predicate;
use super::split;
use super::value::{Bits, Octets, TermValue, UnknownInput, Words};
use super::wide::Ranges;
use super::{Nic, Packet, RuleSource};
use crate::model::{Bytes, Element, RuleVerdict, Set, SetId, element_of};

/// How many branches one rule makes at most, of a draw or a map.
const CHOICES: usize = 1024;
/// How many elements are looked through for a key of which some is unknown.
const ELEMENTS: usize = 4096;

/// The key of a look-up, as long as the set's keys are.
pub(super) fn key_of(
    source: &dyn RuleSource,
    branch: &Branch,
    key: &SetKey,
    len: usize,
) -> TermValue {
    if let [(term, _)] = key.parts.as_slice() {
        return eval(source, branch, term).part(0, len);
    }
    let (mut bytes, mut known, mut missing) = (Octets::new(), Octets::new(), None);
    for (term, part) in &key.parts {
        let room = len.saturating_sub(bytes.len());
        let words = usize::try_from(*part).unwrap_or(room).next_multiple_of(4).min(room);
        let bits = eval(source, branch, term).bits().part(0, words);
        missing = missing.or(bits.missing());
        bytes.extend_from_slice(&bits.bytes);
        known.extend_from_slice(&bits.known(words));
    }
    if bytes.len() < len {
        return TermValue::Bits(Bits::unknown(len, UnknownInput::Detail("a value")));
    }
    let missing = missing.unwrap_or(UnknownInput::Detail("a value"));
    TermValue::Bits(Bits::partly(&bytes, &known, missing))
}

/// Whether a key is in a set.
pub(super) fn is_in(
    source: &dyn RuleSource,
    branch: &mut Branch,
    place: RulePosition<'_>,
    name: &Arc<str>,
    key: &SetKey,
    invert: bool,
) -> Does {
    let set = place.set(name);
    let unread =
        || Does::If(place.question(&format!("a match in set {name}, which could not be read")));
    let Some(len) = key_len(source, &set) else { return unread() };
    match wide_key(source, branch, &set, key, len) {
        WideKey::One => {}
        WideKey::Parts(parts) => return Does::Parts(parts),
        WideKey::Unread => return unread(),
        WideKey::Unclear => return Does::Ends(Ended::Unknown),
        WideKey::Elements { all, of, rest } => {
            place.parts.set(place.parts.get() + 1);
            let within = Ranges::new(of.iter().flat_map(|(_, range)| range.as_ranges().to_vec()));
            let within = if rest.is_some() { all.clone() } else { within };
            let (within, without) = all.split(&within);
            let mut ways = Vec::new();
            for (ports, is_in) in [(within, true), (without, false)] {
                if !ports.is_empty() {
                    let packet = branch.packet.with_ports(ports);
                    let ended = (is_in == invert).then_some(Ended::Next);
                    ways.push((Branch { packet, ..branch.clone() }, ended));
                }
            }
            return Does::Splits(ways);
        }
    }
    let bits = match key_of(source, branch, key, len) {
        TermValue::Drawn(slot, words) => {
            let Some((head, elements)) = source.set(&set).zip(source.set_elements(&set)) else {
                return unread();
            };
            if !source.spend(words.len() * elements.len() / 4) {
                return Does::Ends(Ended::TooMany);
            }
            let is_in = |key: &[u8]| {
                element_of(&head.fields, &elements, &Bytes::from(key)).is_some() != invert
            };
            return chosen_if(branch, slot, &words, is_in);
        }
        TermValue::Bits(bits) => bits,
    };
    if let Some(key) = bits.get(len) {
        return match source.set_element(&set, &Bytes::from(key)) {
            Some(element) => go(element.is_some() != invert),
            None => unread(),
        };
    }
    let missing = bits.missing();
    if possible(source, &set, &bits).is_some_and(|all| all.is_empty()) {
        return go(invert);
    }
    let what = missing.unwrap_or(UnknownInput::Detail("a value"));
    let dynamic = source.set(&set).is_some_and(|head| head.dynamic);
    let question = Predicate::InSet { what, set, dynamic };
    match branch.knows(&question) {
        Some(is) => go(is != invert),
        None => client_is(branch, question, invert),
    }
}

/// Follows a map: what an element says, on the branch that has its key.
pub(super) fn find(
    source: &dyn RuleSource,
    branch: &mut Branch,
    place: RulePosition<'_>,
    name: &Arc<str>,
    key: &SetKey,
    to: Option<ValueSlot>,
) -> Does {
    let set = place.set(name);
    let Some(len) = key_len(source, &set) else { return Does::Ends(Ended::Unknown) };
    let wide = wide_key(source, branch, &set, key, len);
    let with = |mut branch: Branch, element: Option<Element>| {
        let Some(element) = element else { return (branch, Some(Ended::Next)) };
        match (to, &element.data, &element.verdict) {
            (Some(slot), Some(data), _) => {
                branch.hold(slot, SlotValue::Bits(Bits::whole(&data.0)));
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
    match wide {
        WideKey::One => {}
        WideKey::Parts(parts) => return Does::Parts(parts),
        WideKey::Unread | WideKey::Unclear => return Does::Ends(Ended::Unknown),
        WideKey::Elements { all, of, rest } => {
            place.parts.set(place.parts.get() + of.len());
            let taken = Ranges::new(of.iter().flat_map(|(_, range)| range.as_ranges().to_vec()));
            let (_, without) = all.split(&taken);
            let others = (without, rest);
            let of = of.into_iter().map(|(element, ports)| (ports, Some(element)));
            let all = of.chain([others]).filter(|(ports, _)| !ports.is_empty());
            let way = |(ports, element)| {
                let packet = branch.packet.with_ports(ports);
                with(Branch { packet, ..branch.clone() }, element)
            };
            return Does::Splits(all.map(way).collect());
        }
    }
    let bits = match key_of(source, branch, key, len) {
        TermValue::Drawn(slot, words) if words.len() <= CHOICES => {
            let Some((head, elements)) = source.set(&set).zip(source.set_elements(&set)) else {
                return Does::Ends(Ended::Unknown);
            };
            if !source.spend(words.len() * elements.len() / 4) {
                return Does::Ends(Ended::TooMany);
            }
            let split = |(key, branch): ([u8; 4], Branch)| {
                let element = element_of(&head.fields, &elements, &Bytes::from(key.as_slice()));
                with(branch, element.cloned())
            };
            return Does::Splits(distinct(branch, slot, &words).into_iter().map(split).collect());
        }
        TermValue::Drawn(..) => return Does::Ends(Ended::Unknown),
        TermValue::Bits(bits) => bits,
    };
    if let Some(key) = bits.get(len) {
        return match source.set_element(&set, &Bytes::from(key)) {
            Some(None) => Does::Ends(Ended::Next),
            Some(element) => Does::Splits(vec![with(branch.clone(), element)]),
            None => Does::Ends(Ended::Unknown),
        };
    }
    let missing = bits.missing();
    let Some(all) = possible(source, &set, &bits).filter(|all| all.len() <= 64) else {
        return Does::Ends(Ended::Unknown);
    };
    let mut branches = Vec::new();
    let mut rest = branch.clone();
    // Keys of no other element belong to the catch-all one.
    let (any, all): (Vec<Element>, Vec<Element>) = all.into_iter().partition(|e| e.catch_all);
    for element in all {
        let question = Arc::new(key_is(missing, &element, &set));
        let is = branch.clone().assuming(&question, true);
        branches.push(with(is, Some(element)));
        rest = rest.assuming(&question, false);
    }
    branches.push(with(rest, any.into_iter().next()));
    Does::Splits(branches)
}

/// What it takes for an element of a map to be the one.
fn key_is(missing: Option<UnknownInput>, element: &Element, map: &SetId) -> Predicate {
    let address = |bytes: &Bytes| {
        let is_address =
            missing == Some(UnknownInput::ClientAddress) && [4, 16].contains(&bytes.0.len());
        address(&bytes.0).filter(|_| is_address)
    };
    let what = missing.unwrap_or(UnknownInput::Detail("a value"));
    match (address(&element.key), element.key_end.as_ref().map(address)) {
        (Some(one), None) => Predicate::Between { what, first: one, last: one },
        (Some(first), Some(Some(last))) => Predicate::Between { what, first, last },
        _ => Predicate::Element { what, key: element.key.clone(), map: map.clone() },
    }
}

/// The elements that a key of which some bits are unknown may belong to.
fn possible(source: &dyn RuleSource, set: &SetId, key: &Bits) -> Option<Vec<Element>> {
    let elements = source.few_elements(set).filter(|all| all.len() <= ELEMENTS)?;
    source.spend(elements.len());
    let known = key.known(key.bytes.len());
    let fits = |element: &Element| {
        let same = |((e, b), k): ((&u8, &u8), &u8)| (e ^ b) & k == 0;
        element.catch_all
            || element.key_end.is_some()
            || element.key.0.iter().zip(&key.bytes).zip(&known).all(same)
    };
    Some(elements.iter().filter(|e| fits(e)).cloned().collect())
}

/// What a set tells apart of a packet that stands for several.
enum WideKey {
    /// The key is the same for all, or there is one packet only.
    One,
    /// Others for each of these.
    Parts(Vec<Branch>),
    /// The elements for ports, and the catch-all one.
    Elements { all: Ranges, of: Vec<(Element, Ranges)>, rest: Option<Element> },
    /// Its elements are not known.
    Unread,
    /// There are too many to look at each, or it can't be told for which they hold.
    Unclear,
}

fn wide_key(
    source: &dyn RuleSource,
    branch: &Branch,
    set: &SetId,
    key: &SetKey,
    len: usize,
) -> WideKey {
    let packet = &branch.packet;
    let Some(wide) = &packet.wide else { return WideKey::One };
    let mut at = 0;
    let mut places: Vec<(Range<usize>, &Term)> = Vec::new();
    for (term, part) in &key.parts {
        let words = usize::try_from(*part).unwrap_or(len).next_multiple_of(4);
        let end = if key.parts.len() == 1 { len } else { (at + words).min(len) };
        if at < end {
            places.push((at..end, term));
        }
        at = end;
    }
    let of = |field: &dyn Fn(&Field) -> bool| -> Vec<Range<usize>> {
        let those = places.iter().filter(|(_, term)| term.has(field));
        those.map(|(place, _)| place.clone()).collect()
    };
    let devices = if packet.has_devices() { of(&split::is_device) } else { Vec::new() };
    let is_address = |field: &Field| split::is_address(branch, field);
    let addresses = if packet.has_addresses() { of(&is_address) } else { Vec::new() };
    let is_port = |field: &Field| split::is_port(branch, field);
    let ports = if packet.has_ports() { of(&is_port) } else { Vec::new() };
    if devices.is_empty() && addresses.is_empty() && ports.is_empty() {
        return WideKey::One;
    }
    let Some((head, elements)) = source.set(set).zip(source.set_elements(set)) else {
        return WideKey::Unread;
    };
    let mut one = branch.clone();
    let mut fitting = |places: &[Range<usize>], with: &dyn Fn(&mut Packet)| -> Vec<bool> {
        with(&mut one.packet);
        let bits = key_of(source, &one, key, len).bits();
        let in_place = |e: &Element, place: &Range<usize>| fits(e, place, &bits);
        elements.iter().map(|e| places.iter().all(|place| in_place(e, place))).collect()
    };
    if !devices.is_empty() {
        if !source.spend(wide.devices.len() * elements.len().max(1)) {
            return WideKey::Unclear;
        }
        let mut classes: Classes<Vec<bool>, Nic> = Vec::new();
        for device in wide.devices.iter() {
            let fit = fitting(&devices, &|packet| packet.at_device(device));
            put(&mut classes, fit, device.clone());
        }
        if classes.len() > 1 {
            let narrowed = |(_, devices): (_, Vec<Nic>)| packet.with_devices(devices.into());
            return parts_of(branch, classes.into_iter().map(narrowed));
        }
    }
    if !addresses.is_empty() {
        let is_whole = |place: &&(Range<usize>, &Term)| {
            let (place, term) = place;
            let full = if branch.ipv6() { 16 } else { 4 };
            let daddr = Field::Daddr { ipv6: branch.ipv6(), len: full };
            let saddr = Field::Saddr { ipv6: branch.ipv6(), len: full };
            let is_one = **term == Term::Field(daddr) || **term == Term::Field(saddr);
            place.len() == usize::from(full) && is_one
        };
        let cuts = || {
            let [place] = addresses.as_slice() else { return None };
            let whole = places.iter().filter(is_whole).any(|(whole, _)| whole == place);
            let ends = |e: &Element| {
                let first = address(e.key.0.get(place.clone())?)?;
                let last = e
                    .key_end
                    .as_ref()
                    .map_or(Some(first), |end| address(end.0.get(place.clone())?))?;
                Some([number(first), number(last).saturating_add(1)])
            };
            whole.then(|| elements.iter().filter_map(ends).flatten().collect())
        };
        let all = split::pieces(&wide.addresses, cuts);
        let cost = all.as_ref().map_or(0, Vec::len) * elements.len().max(1);
        let Some(all) = all.filter(|_| source.spend(cost)) else { return WideKey::Unclear };
        let mut classes: Classes<Vec<bool>, (u128, u128)> = Vec::new();
        for piece in all {
            let fit = fitting(&addresses, &|packet| packet.at_address(piece.0));
            put(&mut classes, fit, piece);
        }
        if classes.len() > 1 {
            let narrowed = |(_, some): (_, Vec<_>)| packet.with_addresses(Ranges::new(some));
            return parts_of(branch, classes.into_iter().map(narrowed));
        }
    }
    let [place] = ports.as_slice() else {
        return if ports.is_empty() { WideKey::One } else { WideKey::Unclear };
    };
    let is_whole = places.iter().any(|(p, term)| p == place && **term == Term::Field(Field::Dport));
    if !source.spend(elements.len() * 4) {
        return WideKey::Unclear;
    }
    let bits = key_of(source, branch, key, len).bits();
    let others: Vec<Range<usize>> =
        places.iter().map(|(place, _)| place.clone()).filter(|p| p != place).collect();
    let is_known = |place: &Range<usize>| bits.part(place.start, place.len()).known.is_none();
    if !is_whole || !others.iter().all(is_known) {
        // Where an element's ports begin or end, or one by one where it is not they that count.
        let cuts = elements.iter().filter_map(|element| port_range(element, place));
        let mut cuts: Vec<u128> = cuts.flat_map(|(from, to)| [from, to + 1]).collect();
        cuts.sort_unstable();
        let pieces = match is_whole {
            true => wide.ports.cut(&cuts),
            false => wide.ports.iter().map(|port| (port, port)).collect(),
        };
        return by_port(source, branch, &head, &elements, key, len, pieces);
    }
    let mut found: Vec<(Element, Ranges)> = Vec::new();
    let mut rest = None;
    for element in elements.iter() {
        if element.catch_all {
            rest = Some(element.clone());
        } else if others.iter().all(|place| fits(element, place, &bits))
            && let Some((from, to)) = port_range(element, place)
        {
            let within = wide.ports.within(from, to);
            if !within.is_empty() {
                found.push((element.clone(), within));
            }
        }
    }
    WideKey::Elements { all: wide.ports.clone(), of: first_come(found), rest }
}

/// The same by pieces of the ports, where the key has something that is made of the port, or
/// that is not known.
fn by_port(
    source: &dyn RuleSource,
    branch: &Branch,
    head: &Set,
    elements: &[Element],
    key: &SetKey,
    len: usize,
    pieces: Vec<(u128, u128)>,
) -> WideKey {
    if !source.spend(pieces.len() * elements.len().max(1) / 4) {
        return WideKey::Unclear;
    }
    let mut one = branch.clone();
    let mut classes: Classes<Vec<usize>, (u128, u128)> = Vec::new();
    for piece in pieces {
        one.packet.at_port(piece.0);
        let bits = key_of(source, &one, key, len).bits();
        let may_be: Vec<usize> = match bits.get(len) {
            Some(bytes) => {
                let found = element_of(&head.fields, elements, &Bytes::from(bytes));
                let at = |found: &Element| elements.iter().position(|e| std::ptr::eq(e, found));
                found.and_then(at).into_iter().collect()
            }
            None => {
                let all = 0..len;
                elements
                    .iter()
                    .zip(0..)
                    .filter(|(e, _)| fits(e, &all, &bits))
                    .map(|(_, n)| n)
                    .collect()
            }
        };
        put(&mut classes, may_be, piece);
    }
    if let [_] = classes.as_slice() {
        return WideKey::One;
    }
    let narrowed = |(_, some): (_, Vec<_>)| branch.packet.with_ports(Ranges::new(some));
    parts_of(branch, classes.into_iter().map(narrowed))
}

fn parts_of(branch: &Branch, packets: impl Iterator<Item = Packet>) -> WideKey {
    WideKey::Parts(packets.map(|packet| Branch { packet, ..branch.clone() }).collect())
}

/// Members by what they have in common.
type Classes<K, M> = Vec<(K, Vec<M>)>;

fn put<K: PartialEq, M>(classes: &mut Classes<K, M>, class: K, member: M) {
    match classes.iter_mut().find(|(known, _)| *known == class) {
        Some((_, members)) => members.push(member),
        None => classes.push((class, vec![member])),
    }
}

/// Where elements have ports in common the first of them counts.
fn first_come(mut found: Vec<(Element, Ranges)>) -> Vec<(Element, Ranges)> {
    let begins = |(_, ports): &(Element, Ranges)| ports.as_ranges().first().map(|(from, _)| *from);
    let mut order: Vec<&(Element, Ranges)> = found.iter().collect();
    order.sort_by_key(|one| begins(one));
    let ends = |(_, ports): &(Element, Ranges)| ports.as_ranges().last().map(|(_, to)| *to);
    if order.windows(2).all(|two| ends(two[0]) < begins(two[1])) {
        return found;
    }
    let mut taken = Ranges::new([]);
    for (_, ports) in &mut found {
        let (_, left) = ports.split(&taken);
        let both = taken.as_ranges().iter().chain(left.as_ranges()).copied();
        taken = Ranges::new(both.collect::<Vec<_>>());
        *ports = left;
    }
    found.retain(|(_, ports)| !ports.is_empty());
    found
}

/// Whether an element's part at a place fits a key of which some may not be known.
fn fits(element: &Element, place: &Range<usize>, bits: &Bits) -> bool {
    if element.catch_all {
        return true;
    }
    let part = bits.part(place.start, place.len());
    let (Some(from), known) = (element.key.0.get(place.clone()), part.known(place.len())) else {
        return false;
    };
    match &element.key_end {
        None => from.iter().zip(&part.bytes).zip(&known).all(|((e, b), k)| (e ^ b) & k == 0),
        Some(end) => {
            let Some(to) = end.0.get(place.clone()) else { return false };
            part.get(place.len()).is_none_or(|bytes| from <= bytes && bytes <= to)
        }
    }
}

/// The ports of an element's part.
fn port_range(element: &Element, place: &Range<usize>) -> Option<(u128, u128)> {
    let port = |key: &Bytes| {
        let bytes = key.0.get(place.start..)?.first_chunk::<2>()?;
        Some(u128::from(u16::from_be_bytes(*bytes)))
    };
    let from = port(&element.key)?;
    Some((from, element.key_end.as_ref().map_or(Some(from), port)?))
}

pub(super) fn key_len(source: &dyn RuleSource, set: &SetId) -> Option<usize> {
    usize::try_from(source.set(set)?.key_len).ok()
}

/// Goes on with those numbers that may have been drawn for which something holds of
/// `words`, what was computed of each, and not with the others.
pub(super) fn chosen_if(
    branch: &Branch,
    slot: ValueSlot,
    words: &Words,
    holds: impl Fn(&[u8]) -> bool,
) -> Does {
    let (mut yes, mut no): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    for (at, word) in words.iter().enumerate() {
        if holds(word) { yes.push(at) } else { no.push(at) }
    }
    if yes.is_empty() || no.is_empty() {
        return go(no.is_empty());
    }
    let with = |some: &[usize]| branch.drawn(slot, some);
    Does::Splits(vec![(with(&yes), None), (with(&no), Some(Ended::Next))])
}

/// One branch for each word that was computed of what is drawn, with what follows from it.
pub(super) fn each(
    branch: &Branch,
    slot: ValueSlot,
    words: &Words,
    then: impl Fn(&mut Branch, u32),
) -> Vec<(Branch, Option<Ended>)> {
    let one = |(key, mut branch): ([u8; 4], Branch)| {
        then(&mut branch, word(&key));
        (branch, None)
    };
    distinct(branch, slot, words).into_iter().map(one).collect()
}

/// Each word, in the order of the numbers, with a branch where what is drawn gives it.
fn distinct(branch: &Branch, slot: ValueSlot, words: &Words) -> Vec<([u8; 4], Branch)> {
    let mut all: Vec<([u8; 4], usize)> = words.iter().copied().zip(0..).collect();
    all.sort_by_key(|(key, _)| word(key));
    let same = all.chunk_by(|(a, _), (b, _)| a == b);
    let one = |same: &[([u8; 4], usize)]| {
        let (key, _) = same.first()?;
        let places: SmallVec<[usize; 8]> = same.iter().map(|(_, at)| *at).collect();
        Some((*key, branch.drawn(slot, &places)))
    };
    same.filter_map(one).collect()
}
