//! Running one rule: its tests and actions, in order, on a packet of which some is unknown.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use super::branch::{Branch, SlotValue};
use super::fields::{self, Tracked};
use super::lookup::{chosen_if, each, find, is_in};
use super::lower::{Action, Chain, Nat, Op, Term, Test, Translates, ValueSlot};
use super::nat::{self, NatMapping};
use super::question::{Predicate, words};
use super::split::{self, SplitResult};
use super::value::{Bits, Holds, TermValue, UnknownInput, meets};
use super::{Packet, RuleSource, Step, xt};
use crate::model::{
    ChainId, CmpOp, CtKey, Element, Hook, MetaKey, NatKind, Rejection, RouteKind, RouteQuery, Rule,
    RuleVerdict, SetId, XtMatch,
};

/// How a rule ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ended {
    /// On to the next rule.
    Next,
    Verdict(RuleVerdict),
    /// NAT is decided, or TPROXY: the packet is accepted.
    Settled,
    Rejected(Rejection),
    /// What becomes of the packet is not known.
    Unknown,
    /// It would take more steps than there are.
    TooMany,
}

/// What a rule makes of a branch: it goes on as it is, or as several.
pub(super) enum Ran {
    One(Ended),
    Many(Vec<(Branch, Ended)>),
}

/// A rule in its chain.
#[derive(Clone, Copy)]
pub(super) struct RulePosition<'r> {
    pub(super) id: &'r ChainId,
    pub(super) chain: &'r Arc<Chain>,
    pub(super) at: usize,
    pub(super) hook: Hook,
    /// How many branches were made of packets that stand for several: they are no doubt
    /// about what happens.
    pub(super) parts: &'r Cell<usize>,
}

impl RulePosition<'_> {
    fn rule(&self) -> Option<&Rule> {
        self.chain.rules.get(self.at)
    }

    pub(super) fn step(&self, element: Option<Element>) -> Step {
        Step {
            chain: self.id.clone(),
            rules: Arc::clone(&self.chain.rules),
            at: Some(self.at),
            element,
        }
    }

    /// Adds the rule to the trail if it did something (`acted`) or decides something.
    fn tell(&self, branch: &mut Branch, ended: &Ended, acted: bool) {
        let decides = !matches!(ended, Ended::Next | Ended::Verdict(RuleVerdict::Return));
        // The element that a map of this rule led to says more.
        let is_told = branch.trail.last().is_some_and(|last| {
            last.element.is_some() && last.at == Some(self.at) && last.chain == *self.id
        });
        if (acted || decides) && !is_told {
            branch.trail.push(self.step(None));
        }
        if acted {
            branch.kept = branch.trail.len();
        }
    }

    pub(super) fn set(&self, name: &Arc<str>) -> SetId {
        SetId { table: self.id.table.clone(), name: Arc::clone(name) }
    }

    /// Whether something that this rule asks holds.
    pub(super) fn question(&self, what: &str) -> Predicate {
        let handle = self.rule().map_or(0, |rule| rule.handle);
        Predicate::Rule { what: what.into(), handle, at: self.at, chain: self.id.clone() }
    }
}

/// What a part of a rule makes of a branch.
pub(super) enum Does {
    Goes,
    Ends(Ended),
    /// Goes on if this is so, which is not known.
    If(Predicate),
    /// Goes on so often, from 0 to 1.
    Often(f64),
    /// Goes on as several, each from the next part on.
    Splits(Vec<(Branch, Option<Ended>)>),
    /// Packets that it treats differently: each runs it again.
    Parts(Vec<Branch>),
}

/// Runs the rule at a place. `Ran::One`: the branch itself was changed.
pub(super) fn run(source: &dyn RuleSource, branch: &mut Branch, place: RulePosition<'_>) -> Ran {
    branch.slots.clear();
    from(source, branch, place, 0, false)
}

fn from(
    source: &dyn RuleSource,
    branch: &mut Branch,
    place: RulePosition<'_>,
    first: usize,
    mut acted: bool,
) -> Ran {
    let Some(program) = place.chain.programs.get(place.at) else { return Ran::One(Ended::Next) };
    for (at, op) in program.iter().enumerate().skip(first) {
        let mut does = match split::parts(source, branch, place, op) {
            SplitResult::Same => step(source, branch, place, op, &mut acted),
            SplitResult::Several(parts) => Does::Parts(parts),
            SplitResult::Unclear => Does::Ends(Ended::Unknown),
        };
        // What does not hold anyhow needs no branches.
        if let (Op::Test(_), Does::If(_) | Does::Often(_) | Does::Splits(_) | Does::Parts(_)) =
            (op, &does)
        {
            match ahead(source, branch, place, program.get(at + 1..).unwrap_or_default()) {
                Lookahead::Open => {}
                Lookahead::Fails => does = Does::Ends(Ended::Next),
                Lookahead::Several(parts) if !matches!(does, Does::Parts(_)) => {
                    does = Does::Parts(parts);
                }
                Lookahead::Several(_) => {}
            }
        }
        match does {
            Does::Goes => {}
            Does::Ends(ended) => {
                place.tell(branch, &ended, acted);
                return Ran::One(ended);
            }
            Does::Parts(parts) => {
                place.parts.set(place.parts.get() + parts.len().saturating_sub(1));
                let again = |part| continued(source, part, place, at, acted);
                return Ran::Many(parts.into_iter().flat_map(again).collect());
            }
            Does::If(_) | Does::Often(_) => {
                let (yes, mut no) = match does {
                    Does::If(question) => match branch.knows(&question) {
                        Some(true) => continue,
                        Some(false) => {
                            place.tell(branch, &Ended::Next, acted);
                            return Ran::One(Ended::Next);
                        }
                        None => {
                            let question = Arc::new(question);
                            let assuming = |holds| branch.clone().assuming(&question, holds);
                            (assuming(true), assuming(false))
                        }
                    },
                    Does::Often(p) if p >= 1.0 => continue,
                    Does::Often(p) if p > 0.0 => {
                        let with =
                            |p| Branch { probability: branch.probability * p, ..branch.clone() };
                        (with(p), with(1.0 - p))
                    }
                    _ => {
                        place.tell(branch, &Ended::Next, acted);
                        return Ran::One(Ended::Next);
                    }
                };
                let mut all = continued(source, yes, place, at + 1, acted);
                if !acted && all.iter().all(|(yes, ended)| is_as_before(yes, branch, ended)) {
                    // Such as a limit on what is logged: nothing depends on it.
                    return Ran::One(Ended::Next);
                }
                place.tell(&mut no, &Ended::Next, acted);
                all.push((no, Ended::Next));
                return Ran::Many(all);
            }
            Does::Splits(branches) => {
                let mut all = Vec::new();
                for (mut branch, ended) in branches {
                    match ended {
                        None => all.extend(continued(source, branch, place, at + 1, acted)),
                        Some(ended) => {
                            match &ended {
                                // The element of a map told the rule already.
                                Ended::Verdict(verdict) if *verdict != RuleVerdict::Return => {
                                    if acted {
                                        branch.kept = branch.trail.len();
                                    }
                                }
                                ended => place.tell(&mut branch, ended, acted),
                            }
                            all.push((branch, ended));
                        }
                    }
                }
                return Ran::Many(all);
            }
        }
    }
    place.tell(branch, &Ended::Next, acted);
    Ran::One(Ended::Next)
}

/// What the tests behind one that may hold or not say.
enum Lookahead {
    Open,
    /// One surely does not hold: what may be is of no account.
    Fails,
    /// They tell packets apart.
    Several(Vec<Branch>),
}

fn ahead(
    source: &dyn RuleSource,
    branch: &Branch,
    place: RulePosition<'_>,
    program: &[Op],
) -> Lookahead {
    let mut branch = branch.clone();
    for op in program {
        let test = match op {
            Op::Test(test) => test,
            Op::Needs(_) => continue,
            // From here on it depends on what is done.
            _ => break,
        };
        match split::parts(source, &branch, place, op) {
            SplitResult::Same => {}
            SplitResult::Several(parts) => return Lookahead::Several(parts),
            SplitResult::Unclear => break,
        }
        match tested(source, &mut branch, place, test) {
            Does::Ends(Ended::Next) => return Lookahead::Fails,
            Does::Parts(parts) => return Lookahead::Several(parts),
            _ => {}
        }
    }
    Lookahead::Open
}

/// Whether a branch goes on as if the rule had not been there.
fn is_as_before(branch: &Branch, before: &Branch, ended: &Ended) -> bool {
    *ended == Ended::Next
        && branch.trail.len() == before.trail.len()
        && branch.packet == before.packet
        && branch.notes == before.notes
}

fn continued(
    source: &dyn RuleSource,
    mut branch: Branch,
    place: RulePosition<'_>,
    first: usize,
    acted: bool,
) -> Vec<(Branch, Ended)> {
    match from(source, &mut branch, place, first, acted) {
        Ran::One(ended) => vec![(branch, ended)],
        Ran::Many(all) => all,
    }
}

fn step(
    source: &dyn RuleSource,
    branch: &mut Branch,
    place: RulePosition<'_>,
    op: &Op,
    acted: &mut bool,
) -> Does {
    match op {
        Op::Test(test) => tested(source, branch, place, test),
        Op::Needs(field) => go(fields::has(&branch.packet, branch.tracked, field)),
        Op::Draw { slot, modulus, offset, how: _ } => {
            let held = draw(*modulus, *offset);
            branch.hold(*slot, held);
            Does::Goes
        }
        Op::Find { set, key, slot } => find(source, branch, place, set, key, *slot),
        Op::Keep { slot, term } => {
            let held = match eval(source, branch, term) {
                TermValue::Bits(bits) => SlotValue::Bits(bits),
                TermValue::Drawn(_, words) => SlotValue::Words(words),
            };
            branch.hold(*slot, held);
            Does::Goes
        }
        Op::Do(action) => act(source, branch, place, action, acted),
    }
}

/// The value of a term.
pub(super) fn eval(source: &dyn RuleSource, branch: &Branch, term: &Term) -> TermValue {
    let held = |slot: ValueSlot| match branch.slots.get(usize::from(slot)) {
        Some(SlotValue::Words(words)) => TermValue::Drawn(slot, Arc::clone(words)),
        Some(SlotValue::Bits(bits)) => TermValue::Bits(bits.clone()),
        None => TermValue::Bits(Bits::unknown(16, UnknownInput::Detail("a value"))),
    };
    let rest = |value: TermValue, at: u32| {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let len = value.bits().bytes.len().saturating_sub(at);
        if at == 0 { value } else { value.part(at, len) }
    };
    match term {
        Term::Field(field) => {
            TermValue::Bits(fields::value(source, &branch.packet, branch.tracked, field))
        }
        Term::Constant(bytes) => TermValue::Bits(Bits::whole(&bytes.0)),
        Term::Drawn(slot) | Term::Kept { slot, .. } => held(*slot),
        Term::Data { slot, at, .. } => rest(held(*slot), *at),
        Term::Computed { of, how, len } => eval(source, branch, of).compute(how, *len),
        Term::Part { of, at } => rest(eval(source, branch, of), *at),
        Term::Unknown => TermValue::Bits(Bits::unknown(16, UnknownInput::Detail("a value"))),
    }
}

/// How many numbers that may be drawn are told apart.
const NUMBERS: u32 = 4096;

fn draw(modulus: u32, offset: u32) -> SlotValue {
    if modulus > NUMBERS {
        return SlotValue::Bits(Bits::unknown(4, UnknownInput::Random));
    }
    SlotValue::one_of((0..modulus.max(1)).map(|n| n.wrapping_add(offset).to_ne_bytes()).collect())
}

pub(super) fn tested(
    source: &dyn RuleSource,
    branch: &mut Branch,
    place: RulePosition<'_>,
    test: &Test,
) -> Does {
    match test {
        Test::Compare { term, op, value } => match eval(source, branch, term) {
            TermValue::Drawn(slot, words) => {
                chosen_if(branch, slot, &words, |one| meets(one, *op, &value.0))
            }
            TermValue::Bits(bits) => compared(source, branch, place, &bits, *op, &value.0),
        },
        Test::Range { term, invert, from, to } => match eval(source, branch, term) {
            TermValue::Drawn(slot, words) => {
                let within = |one: &[u8]| *from.0 <= *one && *one <= *to.0;
                chosen_if(branch, slot, &words, |one| within(one) != *invert)
            }
            TermValue::Bits(bits) => {
                let holds = bits.within(&from.0, &to.0);
                ask(place, if *invert { holds.invert() } else { holds })
            }
        },
        Test::In { set, key, invert } => is_in(source, branch, place, set, key, *invert),
        Test::Match(one) => matched(source, branch, place, one),
        Test::Opaque(what) => Does::If(place.question(what)),
    }
}

fn act(
    source: &dyn RuleSource,
    branch: &mut Branch,
    place: RulePosition<'_>,
    action: &Action,
    acted: &mut bool,
) -> Does {
    match action {
        Action::SetMeta { key: MetaKey::Mark, to } => {
            *acted = true;
            set(source, branch, to, |packet, mark| packet.mark = mark)
        }
        // It is looked for where the last rule before conntrack says.
        Action::SetCt { key: CtKey::ZONE, to } => {
            if branch.tracked != Tracked::NotYet {
                return Does::Goes;
            }
            let zone = of(source, branch, to, |bits| {
                bits.get(2).and_then(|bytes| Some(u16::from_ne_bytes(*bytes.first_chunk()?)))
            });
            match zone {
                Some(zone) => branch.packet.zone = zone,
                None => return Does::Ends(Ended::Unknown),
            }
            *acted = true;
            Does::Goes
        }
        // Before conntrack, or kept away from it, there is no connection to mark, and no
        // mark to restore.
        Action::SetCt { .. } | Action::CopyMark { .. } if branch.tracked != Tracked::Yes => {
            Does::Goes
        }
        Action::SetCt { key: CtKey::Mark, to } => {
            *acted = true;
            set(source, branch, to, |packet, mark| packet.ct_mark = mark)
        }
        Action::CopyMark { restore } => {
            let packet = &mut branch.packet;
            if *restore {
                packet.mark = packet.ct_mark;
            } else {
                packet.ct_mark = packet.mark;
            }
            *acted = true;
            Does::Goes
        }
        Action::SetMeta { .. } | Action::SetCt { .. } | Action::Nothing(_) => Does::Goes,
        // Another packet than the one that was asked about.
        Action::SetPayload { .. } | Action::Unknown(_) => Does::Ends(Ended::Unknown),
        Action::Verdict(RuleVerdict::Continue) => Does::Goes,
        Action::Verdict(RuleVerdict::Break) => Does::Ends(Ended::Next),
        Action::Verdict(verdict) => Does::Ends(Ended::Verdict(verdict.clone())),
        Action::Settle => Does::Ends(Ended::Settled),
        Action::Notrack => {
            // After conntrack it is too late.
            if branch.tracked == Tracked::NotYet {
                branch.packet.untracked = true;
                branch.tracked = Tracked::No;
                *acted = true;
            }
            Does::Goes
        }
        Action::Reject(how) => Does::Ends(Ended::Rejected(*how)),
        Action::Masquerade => {
            branch.packet.seen_as = Some(super::SeenAs::Masqueraded);
            Does::Ends(Ended::Settled)
        }
        Action::Redirect { ports, flags } => match pair(source, branch, ports.as_ref(), port_of) {
            Some(ports) => redirect(source, branch, place, ports, *flags),
            None => Does::Ends(Ended::Unknown),
        },
        Action::Nat(nat) => translated(source, branch, place, nat),
        // Without a transparent socket the rule of nf_tables does nothing. That of iptables drops
        // the packet, which is for who delivers it.
        Action::Tproxy { drops: false, .. }
            if source.has_transparent(branch.packet.netns) == Some(false) =>
        {
            Does::Ends(Ended::Next)
        }
        Action::Tproxy { address, port, .. } => {
            let leaves_port = port.is_none();
            let to = match address {
                Some(term) => of(source, branch, term, |bits| address_of(bits, branch.ipv6())),
                None => Some(branch.packet.destination),
            };
            let port = match port {
                Some(term) => of(source, branch, term, port_of),
                None => Some(branch.packet.dport),
            };
            match to.zip(port) {
                Some(to) => {
                    branch.packet.tproxy = Some(to);
                    if let Some(wide) = &mut branch.packet.wide {
                        let wide = Arc::make_mut(wide);
                        wide.tproxy_port = leaves_port && wide.same_port;
                    }
                    *acted = true;
                    Does::Goes
                }
                None => Does::Ends(Ended::Unknown),
            }
        }
    }
}

/// Sets a mark to the value of a term: on several branches, where it was drawn.
fn set(
    source: &dyn RuleSource,
    branch: &mut Branch,
    to: &Term,
    mark: impl Fn(&mut Packet, u32),
) -> Does {
    match eval(source, branch, to) {
        TermValue::Drawn(slot, words) => {
            let marked = |branch: &mut Branch, word| mark(&mut branch.packet, word);
            Does::Splits(each(branch, slot, &words, marked))
        }
        TermValue::Bits(bits) => match bits.get(4).map(word) {
            Some(word) => {
                mark(&mut branch.packet, word);
                Does::Goes
            }
            None => Does::Ends(Ended::Unknown),
        },
    }
}

pub(super) fn go(goes: bool) -> Does {
    if goes { Does::Goes } else { Does::Ends(Ended::Next) }
}

pub(super) fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |word| u32::from_ne_bytes(*word))
}

/// A port in the first bytes of a register.
fn port_of(bits: &Bits) -> Option<u16> {
    Some(u16::from_be_bytes(*bits.get(2)?.first_chunk::<2>()?))
}

/// An address in the first bytes of one.
fn address_of(bits: &Bits, ipv6: bool) -> Option<IpAddr> {
    address(bits.get(if ipv6 { 16 } else { 4 })?)
}

pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        _ => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
    }
}

/// What a term is, where that is known.
fn of<T>(
    source: &dyn RuleSource,
    branch: &Branch,
    term: &Term,
    read: impl Fn(&Bits) -> Option<T>,
) -> Option<T> {
    match eval(source, branch, term) {
        TermValue::Bits(bits) => read(&bits),
        TermValue::Drawn(..) => None,
    }
}

/// The ends of a range, if there is one; the outer `None`: they are not known.
fn pair<T>(
    source: &dyn RuleSource,
    branch: &Branch,
    ends: Option<&(Term, Term)>,
    read: impl Fn(&Bits) -> Option<T>,
) -> Option<Option<(T, T)>> {
    let Some((first, last)) = ends else { return Some(None) };
    let first = of(source, branch, first, &read)?;
    Some(Some((first, of(source, branch, last, &read)?)))
}

fn translated(
    source: &dyn RuleSource,
    branch: &mut Branch,
    place: RulePosition<'_>,
    nat: &Nat,
) -> Does {
    // In a table for both, a translation is for packets of its own family.
    if nat.addresses.is_some() && nat.ipv6.is_some_and(|ipv6| ipv6 != branch.ipv6()) {
        return Does::Goes;
    }
    let ipv6 = branch.ipv6();
    let addresses = pair(source, branch, nat.addresses.as_ref(), |bits| address_of(bits, ipv6));
    let ports = pair(source, branch, nat.ports.as_ref(), port_of);
    let Some((addresses, ports)) = addresses.zip(ports) else {
        return Does::Ends(Ended::Unknown);
    };
    let kind = match (nat.kind, place.hook) {
        (Translates::Source, _) => NatKind::Snat,
        (Translates::Destination, _) => NatKind::Dnat,
        (Translates::ByHook, Hook::Postrouting | Hook::Input) => NatKind::Snat,
        (Translates::ByHook, _) => NatKind::Dnat,
    };
    translate(branch, kind, &NatMapping { addresses, ports, base: nat.base, flags: nat.flags })
}

/// A condition on something that may not be known.
fn ask(place: RulePosition<'_>, holds: Holds) -> Does {
    match holds {
        Holds::Yes => Does::Goes,
        Holds::No => Does::Ends(Ended::Next),
        Holds::Often(p) => Does::Often(p),
        Holds::Maybe(what) => Does::If(place.question(words(what))),
    }
}

fn compared(
    source: &dyn RuleSource,
    branch: &Branch,
    place: RulePosition<'_>,
    bits: &Bits,
    op: CmpOp,
    value: &[u8],
) -> Does {
    let holds = bits.compare(op, value);
    let Holds::Maybe(UnknownInput::ClientAddress) = holds else {
        return ask(place, holds);
    };
    let known = bits.known(value.len());
    let unknown: u32 = known.iter().map(|k| k.count_zeros()).sum();
    // Addresses are compared from their first bit on.
    let prefix = u8::try_from(unknown).unwrap_or(u8::MAX);
    let is_prefix = known.iter().flat_map(|k| (0..8).rev().map(move |bit| k >> bit & 1));
    let is_prefix = is_prefix.collect::<Vec<_>>().windows(2).all(|w| w[0] <= w[1]);
    let ipv6 = branch.ipv6();
    let mut whole = value.to_vec();
    whole.resize(if ipv6 { 16 } else { 4 }, 0);
    let (Some(network), true, CmpOp::Eq | CmpOp::Neq) = (address(&whole), is_prefix, op) else {
        return ask(place, holds);
    };
    if is_of_this_node(source, &branch.packet, network, prefix) {
        return go(op == CmpOp::Neq);
    }
    let invert = op == CmpOp::Neq;
    if let Some(is) = branch.client_is_in(network, prefix) {
        return go(is != invert);
    }
    let mut ways = client_is(branch, Predicate::ClientIn { network, prefix }, invert);
    if let Does::Splits(ways) = &mut ways {
        for ((way, _), holds) in ways.iter_mut().zip([!invert, invert]) {
            way.clients.push((network, prefix, holds));
        }
    }
    ways
}

/// Goes on for a client of which something is assumed, or of which it is not.
pub(super) fn client_is(branch: &Branch, question: Predicate, invert: bool) -> Does {
    let question = Arc::new(question);
    let yes = branch.clone().assuming(&question, true);
    let no = branch.clone().assuming(&question, false);
    let (goes, ends) = if invert { (no, yes) } else { (yes, no) };
    Does::Splits(vec![(goes, None), (ends, Some(Ended::Next))])
}

/// Whether somebody elsewhere can't have such an address: loopback's, this node's own,
/// and those that packets are sent to by another interface than it came in by.
fn is_of_this_node(source: &dyn RuleSource, packet: &Packet, network: IpAddr, prefix: u8) -> bool {
    if network.is_loopback() && (network.is_ipv6() || prefix >= 8) {
        return true;
    }
    let not_from_there = |to: IpAddr| {
        let query = RouteQuery::new(packet.netns, to, 0);
        let Some(route) = source.route(&query) else { return false };
        let here = packet.iif.as_ref().map(|nic| nic.index);
        match route.kind {
            RouteKind::Local => true,
            // The ends of a network's range are broadcast addresses of it.
            RouteKind::Unicast | RouteKind::Broadcast => here.is_some() && route.oif != here,
            _ => false,
        }
    };
    not_from_there(network) && nat::last_of(network, prefix).is_some_and(not_from_there)
}

fn matched(
    source: &dyn RuleSource,
    branch: &mut Branch,
    place: RulePosition<'_>,
    one: &XtMatch,
) -> Does {
    // Whether somebody came before is asked once for each list, by whatever rules.
    if let XtMatch::Recent { name, set: false, seconds, invert } = one {
        let question = Predicate::Recent { list: name.as_str().into(), seconds: *seconds };
        return match branch.knows(&question) {
            Some(is) if is == *invert => Does::Ends(Ended::Next),
            Some(_) => Does::Goes,
            None => client_is(branch, question, *invert),
        };
    }
    match xt::holds(source, &branch.packet, branch.tracked, one) {
        Holds::Maybe(UnknownInput::Detail(_)) if let XtMatch::Unknown { name, .. } = one => {
            Does::If(place.question(&format!("match {name}")))
        }
        Holds::Maybe(UnknownInput::Detail(_)) if matches!(one, XtMatch::Socket { .. }) => {
            Does::If(place.question("match socket"))
        }
        Holds::Maybe(UnknownInput::Detail(_)) if matches!(one, XtMatch::Physdev { .. }) => {
            let text = crate::text::xt_condition(one, None);
            Does::If(place.question(&text.unwrap_or_else(|| "match physdev".to_owned())))
        }
        holds => ask(place, holds),
    }
}

fn translate(branch: &mut Branch, kind: NatKind, to: &NatMapping) -> Does {
    if kind == NatKind::Snat {
        let (seen_as, note) = nat::seen_as(&branch.packet, to);
        branch.packet.seen_as = Some(seen_as);
        note.into_iter().for_each(|note| branch.note(note));
        return Does::Ends(Ended::Settled);
    }
    let Some((all, note)) = nat::destinations(&branch.packet, to) else {
        return Does::Ends(Ended::Unknown);
    };
    if let Some(note) = note {
        branch.note(note);
    }
    let keeps = to.ports.is_none_or(|(first, last)| {
        first != last && to.base.is_none() && (first..=last).contains(&branch.packet.dport)
    });
    if let Some(wide) = &mut branch.packet.wide {
        let wide = Arc::make_mut(wide);
        wide.same_port &= keeps;
        wide.same_address &= to.addresses.is_none();
    }
    send_to(branch, &all)
}

fn redirect(
    source: &dyn RuleSource,
    branch: &mut Branch,
    place: RulePosition<'_>,
    ports: Option<(u16, u16)>,
    flags: u32,
) -> Does {
    let packet = &branch.packet;
    let ipv6 = packet.destination.is_ipv6();
    let address = match (place.hook, &packet.iif) {
        // Each device has another: for all of them, this machine.
        _ if packet.wide.is_some() => Some(nat::loopback(ipv6)),
        (Hook::Output, _) => Some(nat::loopback(ipv6)),
        (_, Some(nic)) => source.first_address(packet.netns, nic.index, ipv6),
        (_, None) => None,
    };
    // Without an address there the kernel drops the packet.
    let Some(address) = address else { return Does::Ends(Ended::Verdict(RuleVerdict::Drop)) };
    let to = NatMapping { addresses: Some((address, address)), ports, base: None, flags };
    translate(branch, NatKind::Dnat, &to)
}

/// The packet is sent to one of these, all as likely.
fn send_to(branch: &mut Branch, all: &[(IpAddr, u16)]) -> Does {
    let to = |branch: &mut Branch, (address, port): (IpAddr, u16)| {
        let before = (branch.packet.destination, branch.packet.dport);
        branch.packet.original.get_or_insert(before);
        branch.packet.destination = address;
        branch.packet.dport = port;
    };
    if let [one] = all {
        to(branch, *one);
        return Does::Ends(Ended::Settled);
    }
    let split = |one: &(IpAddr, u16)| {
        let mut branch = branch.in_cases(1, all.len());
        to(&mut branch, *one);
        (branch, Some(Ended::Settled))
    };
    Does::Splits(all.iter().map(split).collect())
}
