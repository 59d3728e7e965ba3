//! Running one rule: its expressions, in order, on a packet of which some is unknown.

use std::net::IpAddr;
use std::sync::Arc;

use super::branch::{Branch, words};
use super::load::Tracked;
use super::lookup::{chosen_if, each, lookup, map};
use super::nat::{self, Translation};
use super::regs::{Holds, Missing, meets};
use super::{Packet, Source, Step, load, xt};
use crate::model::{
    Bytes, ChainId, CmpOp, CtKey, Element, Expr, Hook, MetaKey, NatKind, NatRange, Reg, Rejection,
    Rule, RuleVerdict, SetId, XtMatch, XtTarget,
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
}

/// What a rule makes of a branch: it goes on as it is, or as several.
pub(super) enum Ran {
    One(Ended),
    Many(Vec<(Branch, Ended)>),
}

/// A rule in its chain.
#[derive(Clone, Copy)]
pub(super) struct Place<'r> {
    pub(super) chain: &'r ChainId,
    pub(super) rules: &'r Arc<[Rule]>,
    pub(super) at: usize,
    pub(super) hook: Hook,
}

impl Place<'_> {
    fn rule(&self) -> Option<&Rule> {
        self.rules.get(self.at)
    }

    pub(super) fn step(&self, element: Option<Element>) -> Step {
        Step {
            chain: self.chain.clone(),
            rules: Arc::clone(self.rules),
            at: Some(self.at),
            element,
        }
    }

    /// Adds the rule to the trail if it did something (`acted`) or decides something.
    fn tell(&self, branch: &mut Branch, ended: &Ended, acted: bool) {
        let decides = !matches!(ended, Ended::Next | Ended::Verdict(RuleVerdict::Return));
        // The element that a map of this rule led to says more.
        let is_told = branch.trail.last().is_some_and(|last| {
            last.element.is_some() && last.at == Some(self.at) && last.chain == *self.chain
        });
        if (acted || decides) && !is_told {
            branch.trail.push(self.step(None));
        }
        if acted {
            branch.kept = branch.trail.len();
        }
    }

    pub(super) fn set(&self, name: &Arc<str>) -> SetId {
        SetId { table: self.chain.table.clone(), name: Arc::clone(name) }
    }

    /// What tells a question of this rule from all others.
    pub(super) fn question(&self, what: &str) -> String {
        let handle = self.rule().map_or(0, |rule| rule.handle);
        let ChainId { table, name } = self.chain;
        format!("{what} (rule {handle} of {table} chain {name})")
    }
}

/// What an expression makes of a branch.
pub(super) enum Does {
    Goes,
    Ends(Ended),
    /// Not sure whether it goes on.
    If(Holds, String),
    /// Goes on as several, each from the next expression on.
    Splits(Vec<(Branch, Option<Ended>)>),
}

/// Runs the rule at a place. `Ran::One`: the branch itself was changed.
pub(super) fn run(source: &dyn Source, branch: &mut Branch, place: Place<'_>) -> Ran {
    from(source, branch, place, 0, false)
}

fn from(
    source: &dyn Source,
    branch: &mut Branch,
    place: Place<'_>,
    first: usize,
    mut acted: bool,
) -> Ran {
    let Some(rule) = place.rule() else { return Ran::One(Ended::Next) };
    for (at, expr) in rule.exprs.iter().enumerate().skip(first) {
        match step(source, branch, place, expr, &mut acted) {
            Does::Goes => {}
            Does::Ends(ended) => {
                place.tell(branch, &ended, acted);
                return Ran::One(ended);
            }
            Does::If(holds, question) => {
                let (yes, mut no) = match (holds, branch.knows(&question)) {
                    (Holds::Yes, _) | (Holds::Maybe(_), Some(true)) => continue,
                    (Holds::No, _) | (Holds::Maybe(_), Some(false)) => {
                        place.tell(branch, &Ended::Next, acted);
                        return Ran::One(Ended::Next);
                    }
                    (Holds::Maybe(_), None) => (
                        branch.clone().assuming(question.clone(), true),
                        branch.clone().assuming(question, false),
                    ),
                    (Holds::Often(p), _) => {
                        if p <= 0.0 {
                            place.tell(branch, &Ended::Next, acted);
                            return Ran::One(Ended::Next);
                        }
                        if p >= 1.0 {
                            continue;
                        }
                        let with =
                            |p| Branch { probability: branch.probability * p, ..branch.clone() };
                        (with(p), with(1.0 - p))
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

/// Whether a branch goes on as if the rule had not been there.
fn is_as_before(branch: &Branch, before: &Branch, ended: &Ended) -> bool {
    *ended == Ended::Next
        && branch.trail.len() == before.trail.len()
        && branch.packet == before.packet
        && branch.notes == before.notes
}

fn continued(
    source: &dyn Source,
    mut branch: Branch,
    place: Place<'_>,
    first: usize,
    acted: bool,
) -> Vec<(Branch, Ended)> {
    match from(source, &mut branch, place, first, acted) {
        Ran::One(ended) => vec![(branch, ended)],
        Ran::Many(all) => all,
    }
}

fn step(
    source: &dyn Source,
    branch: &mut Branch,
    place: Place<'_>,
    expr: &Expr,
    acted: &mut bool,
) -> Does {
    let Branch { packet, regs, tracked, .. } = branch;
    match expr {
        Expr::Meta { key, dreg } => go(load::meta(regs, packet, key, *dreg)),
        Expr::Payload { base, offset, len, dreg } => {
            load::payload(regs, packet, *base, *offset, *len, *dreg);
            Does::Goes
        }
        Expr::Ct { key, reply, dreg } => go(load::ct(regs, packet, *tracked, *key, *reply, *dreg)),
        Expr::Fib { dreg, result, saddr, iif, oif, present, .. } => {
            if *present {
                regs.forget(*dreg, 1, Missing::Detail("the route back"));
            } else {
                load::fib(regs, source, packet, *result, (*saddr, *iif || *oif), *dreg);
            }
            Does::Goes
        }
        Expr::Immediate { dreg, value } => {
            regs.set(*dreg, &value.0);
            Does::Goes
        }
        Expr::Bitwise { sreg, dreg, len, op } => {
            regs.bitwise(*sreg, *dreg, *len, op);
            Does::Goes
        }
        Expr::Byteorder { sreg, dreg, len, size } => {
            regs.byteorder(*sreg, *dreg, *len, *size);
            Does::Goes
        }
        Expr::Load { dreg, len, .. } => {
            let len = usize::try_from(*len).unwrap_or(16);
            regs.forget(*dreg, len, Missing::Detail("what is not modelled of the packet"));
            Does::Goes
        }
        Expr::Numgen { dreg, modulus, offset, .. } | Expr::Hash { dreg, modulus, offset, .. } => {
            regs.choose(*dreg, *modulus, *offset);
            Does::Goes
        }
        Expr::Cmp { sreg, op, value } => compared(source, branch, place, *sreg, *op, value),
        Expr::Range { sreg, invert, from, to } => {
            if let Some(values) = regs.choice(*sreg, from.0.len()).cloned() {
                let within = |value: &[u8]| *from.0 <= *value && *value <= *to.0;
                return chosen_if(branch, *sreg, &values, |value| within(value) != *invert);
            }
            let holds = regs.within(*sreg, &from.0, &to.0);
            let missing = regs.missing(*sreg, from.0.len());
            ask(place, if *invert { holds.invert() } else { holds }, missing)
        }
        Expr::Lookup { set, sreg, invert } => lookup(source, branch, place, set, *sreg, *invert),
        Expr::Map { set, sreg, dreg } => map(source, branch, place, set, *sreg, *dreg),
        Expr::SetMeta { key: MetaKey::Mark, sreg } if let Some(values) = regs.choice(*sreg, 4) => {
            *acted = true;
            let marked = |branch: &mut Branch, mark| branch.packet.mark = mark;
            let values = Arc::clone(values);
            Does::Splits(each(branch, &values, *sreg, marked))
        }
        Expr::SetMeta { key: MetaKey::Mark, sreg } => match regs.get(*sreg, 4).map(word) {
            Some(mark) => {
                packet.mark = mark;
                *acted = true;
                Does::Goes
            }
            None => Does::Ends(Ended::Unknown),
        },
        // Before conntrack, or kept away from it, there is no connection to mark.
        Expr::SetCt { key: CtKey::Mark, sreg } if *tracked == Tracked::Yes => {
            *acted = true;
            if let Some(values) = regs.choice(*sreg, 4) {
                let marked = |branch: &mut Branch, mark| branch.packet.ct_mark = mark;
                let values = Arc::clone(values);
                return Does::Splits(each(branch, &values, *sreg, marked));
            }
            match regs.get(*sreg, 4).map(word) {
                Some(mark) => {
                    packet.ct_mark = mark;
                    Does::Goes
                }
                None => Does::Ends(Ended::Unknown),
            }
        }
        Expr::SetMeta { .. } | Expr::SetCt { .. } | Expr::NoEffect(_) => Does::Goes,
        // Another packet than the one that was asked about.
        Expr::SetPayload { .. } => Does::Ends(Ended::Unknown),
        Expr::Verdict(RuleVerdict::Continue) => Does::Goes,
        Expr::Verdict(RuleVerdict::Break) => Does::Ends(Ended::Next),
        Expr::Verdict(verdict) => Does::Ends(Ended::Verdict(verdict.clone())),
        Expr::Notrack => {
            // After conntrack it is too late.
            if *tracked == Tracked::NotYet {
                packet.untracked = true;
                *tracked = Tracked::No;
                *acted = true;
            }
            Does::Goes
        }
        Expr::Reject(how) => Does::Ends(Ended::Rejected(*how)),
        Expr::Masquerade { .. } => {
            packet.seen_as = Some(super::SeenAs::Masqueraded);
            Does::Ends(Ended::Settled)
        }
        Expr::Redirect { port, flags } => match ports(regs, *port) {
            Ok(ports) => redirect(source, branch, place, ports, *flags),
            Err(()) => Does::Ends(Ended::Unknown),
        },
        // In a table for both, a translation is for packets of its own family.
        Expr::Nat { ipv6, address: Some(_), .. } if *ipv6 != packet.destination.is_ipv6() => {
            Does::Goes
        }
        Expr::Nat { kind, ipv6, address, port, flags } => {
            let len = if *ipv6 { 16 } else { 4 };
            let one = |reg: Reg| address_of(regs.get(reg, len)?);
            let addresses = match address {
                None => Some(None),
                Some((from, to)) => one(*from).zip(one(*to)).map(Some),
            };
            match (addresses, ports(regs, *port)) {
                (Some(addresses), Ok(ports)) => {
                    let to = Translation { addresses, ports, base: None, flags: *flags };
                    translate(branch, *kind, &to)
                }
                _ => Does::Ends(Ended::Unknown),
            }
        }
        Expr::Tproxy { address, port } => {
            let len = if packet.destination.is_ipv6() { 16 } else { 4 };
            let to = match address {
                Some(reg) => regs.get(*reg, len).and_then(address_of),
                None => Some(packet.destination),
            };
            let port = match port {
                Some(reg) => regs.get(*reg, 2).map(be16),
                None => Some(packet.dport),
            };
            match to.zip(port) {
                Some(to) => {
                    packet.tproxy = Some(to);
                    *acted = true;
                    Does::Goes
                }
                None => Does::Ends(Ended::Unknown),
            }
        }
        Expr::Match(one) => matched(source, branch, place, one),
        Expr::Target(target) => targeted(source, branch, place, target, acted),
        Expr::Opaque(what) => Does::If(
            Holds::Maybe(Missing::Detail("a condition that is not modelled")),
            place.question(what),
        ),
    }
}

pub(super) fn go(goes: bool) -> Does {
    if goes { Does::Goes } else { Does::Ends(Ended::Next) }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |word| u32::from_ne_bytes(*word))
}

fn be16(bytes: &[u8]) -> u16 {
    bytes.first_chunk::<2>().map_or(0, |port| u16::from_be_bytes(*port))
}

pub(super) fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        _ => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
    }
}

/// The ports in registers; `Err` when they are not known.
fn ports(
    regs: &super::regs::Registers,
    port: Option<(Reg, Reg)>,
) -> Result<Option<(u16, u16)>, ()> {
    let Some((from, to)) = port else { return Ok(None) };
    let one = |reg| regs.get(reg, 2).map(be16);
    one(from).zip(one(to)).map(Some).ok_or(())
}

/// A condition on something that may not be known.
fn ask(place: Place<'_>, holds: Holds, missing: Option<Missing>) -> Does {
    match holds {
        Holds::Yes => Does::Goes,
        Holds::No => Does::Ends(Ended::Next),
        Holds::Often(_) => Does::If(holds, String::new()),
        Holds::Maybe(what) => Does::If(holds, place.question(words(missing.unwrap_or(what)))),
    }
}

fn compared(
    source: &dyn Source,
    branch: &Branch,
    place: Place<'_>,
    sreg: Reg,
    op: CmpOp,
    value: &Bytes,
) -> Does {
    if let Some(values) = branch.regs.choice(sreg, value.0.len()) {
        return chosen_if(branch, sreg, values, |one| meets(one, op, &value.0));
    }
    let holds = branch.regs.compare(sreg, op, &value.0);
    let Holds::Maybe(Missing::ClientAddress) = holds else {
        return ask(place, holds, None);
    };
    let Some((_, known)) = branch.regs.partly(sreg, value.0.len()) else { return Does::Goes };
    let unknown: u32 = known.iter().map(|k| k.count_zeros()).sum();
    // Addresses are compared from their first bit on.
    let prefix = u8::try_from(unknown).unwrap_or(u8::MAX);
    let is_prefix = known.iter().flat_map(|k| (0..8).rev().map(move |bit| k >> bit & 1));
    let is_prefix = is_prefix.collect::<Vec<_>>().windows(2).all(|w| w[0] <= w[1]);
    let ipv6 = branch.packet.destination.is_ipv6();
    let mut whole = value.0.clone();
    whole.resize(if ipv6 { 16 } else { 4 }, 0);
    let (Some(network), true, CmpOp::Eq | CmpOp::Neq) = (address_of(&whole), is_prefix, op) else {
        return ask(place, holds, None);
    };
    if is_of_this_node(source, &branch.packet, network, prefix) {
        return go(op == CmpOp::Neq);
    }
    let question = if u32::from(prefix) == if ipv6 { 128 } else { 32 } {
        format!("the client's address is {network}")
    } else {
        format!("the client's address is in {network}/{prefix}")
    };
    let invert = op == CmpOp::Neq;
    if let Some(is) = branch.client_is_in(network, prefix) {
        return go(is != invert);
    }
    let mut ways = client_is(branch, question, invert);
    if let Does::Splits(ways) = &mut ways {
        for ((way, _), holds) in ways.iter_mut().zip([!invert, invert]) {
            way.clients.push((network, prefix, holds));
        }
    }
    ways
}

/// Goes on for a client of which something is assumed, or of which it is not.
pub(super) fn client_is(branch: &Branch, question: String, invert: bool) -> Does {
    let yes = branch.clone().assuming(question.clone(), true);
    let no = branch.clone().assuming(question, false);
    let (goes, ends) = if invert { (no, yes) } else { (yes, no) };
    Does::Splits(vec![(goes, None), (ends, Some(Ended::Next))])
}

/// Whether somebody elsewhere can't have such an address: loopback's, this node's own,
/// and those that packets are sent to by another interface than it came in by.
fn is_of_this_node(source: &dyn Source, packet: &Packet, network: IpAddr, prefix: u8) -> bool {
    if network.is_loopback() && (network.is_ipv6() || prefix >= 8) {
        return true;
    }
    let not_from_there = |to: IpAddr| {
        let query = crate::model::RouteQuery { netns: packet.netns, to, mark: 0 };
        let Some(route) = source.route(&query) else { return false };
        let here = packet.iif.as_ref().map(|nic| nic.index);
        match route.kind {
            crate::model::RouteKind::Local => true,
            // The ends of a network's range are broadcast addresses of it.
            crate::model::RouteKind::Unicast | crate::model::RouteKind::Broadcast => {
                here.is_some() && route.oif != here
            }
            _ => false,
        }
    };
    not_from_there(network) && nat::last_of(network, prefix).is_some_and(not_from_there)
}

fn matched(source: &dyn Source, branch: &mut Branch, place: Place<'_>, one: &XtMatch) -> Does {
    // Session affinity of kube-proxy: who came before goes where he went.
    if let XtMatch::Recent { name, set: false, seconds, invert: false } = one
        && name.starts_with("KUBE-SEP-")
    {
        branch.note(format!(
            "session affinity: a client that came in the last {seconds} s goes where it went"
        ));
        return Does::Ends(Ended::Next);
    }
    match xt::holds(source, &branch.packet, branch.tracked, one) {
        Holds::Maybe(Missing::Detail(_)) if let XtMatch::Unknown { name, .. } = one => Does::If(
            Holds::Maybe(Missing::Detail("a match")),
            place.question(&format!("match {name}")),
        ),
        holds => ask(place, holds, None),
    }
}

fn translation(range: &NatRange) -> Translation {
    Translation {
        addresses: range.addresses,
        ports: range.ports,
        base: range.base,
        flags: range.flags,
    }
}

fn targeted(
    source: &dyn Source,
    branch: &mut Branch,
    place: Place<'_>,
    target: &XtTarget,
    acted: &mut bool,
) -> Does {
    let packet = &mut branch.packet;
    match target {
        XtTarget::Dnat(range) => translate(branch, NatKind::Dnat, &translation(range)),
        XtTarget::Snat(range) => translate(branch, NatKind::Snat, &translation(range)),
        XtTarget::Netmap(range) => {
            let kind = match place.hook {
                Hook::Postrouting | Hook::Input => NatKind::Snat,
                _ => NatKind::Dnat,
            };
            let flags = range.flags | 0x40;
            translate(branch, kind, &Translation { flags, ..translation(range) })
        }
        XtTarget::Redirect(range) => redirect(source, branch, place, range.ports, range.flags),
        XtTarget::Masquerade(_) => {
            packet.seen_as = Some(super::SeenAs::Masqueraded);
            Does::Ends(Ended::Settled)
        }
        XtTarget::Mark(op) => {
            packet.mark = packet.mark & !op.mask ^ op.mark;
            *acted = true;
            Does::Goes
        }
        // Without a connection there is nothing to mark, and no mark to restore.
        XtTarget::Connmark(_) | XtTarget::ConnmarkCopy { .. } if branch.tracked != Tracked::Yes => {
            Does::Goes
        }
        XtTarget::Connmark(op) => {
            packet.ct_mark = packet.ct_mark & !op.mask ^ op.mark;
            *acted = true;
            Does::Goes
        }
        XtTarget::ConnmarkCopy { restore: true } => {
            packet.mark = packet.ct_mark;
            *acted = true;
            Does::Goes
        }
        XtTarget::ConnmarkCopy { restore: false } => {
            packet.ct_mark = packet.mark;
            *acted = true;
            Does::Goes
        }
        XtTarget::Reject(how) => Does::Ends(Ended::Rejected(*how)),
        XtTarget::Tproxy { address, port, mark } => {
            let to = address.unwrap_or(packet.destination);
            packet.tproxy = Some((to, port.unwrap_or(packet.dport)));
            packet.mark = packet.mark & !mark.mask ^ mark.mark;
            Does::Ends(Ended::Settled)
        }
        XtTarget::Notrack => {
            if branch.tracked == Tracked::NotYet {
                packet.untracked = true;
                branch.tracked = Tracked::No;
                *acted = true;
            }
            Does::Goes
        }
        XtTarget::NoEffect(_) => Does::Goes,
        XtTarget::Unknown { .. } => Does::Ends(Ended::Unknown),
    }
}

fn translate(branch: &mut Branch, kind: NatKind, to: &Translation) -> Does {
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
    send_to(branch, &all)
}

fn redirect(
    source: &dyn Source,
    branch: &mut Branch,
    place: Place<'_>,
    ports: Option<(u16, u16)>,
    flags: u32,
) -> Does {
    let packet = &branch.packet;
    let ipv6 = packet.destination.is_ipv6();
    let address = match (place.hook, &packet.iif) {
        (Hook::Output, _) => Some(crate::resolve::path::loopback(ipv6)),
        (_, Some(nic)) => source.first_address(packet.netns, nic.index, ipv6),
        (_, None) => None,
    };
    // Without an address there the kernel drops the packet.
    let Some(address) = address else { return Does::Ends(Ended::Verdict(RuleVerdict::Drop)) };
    let to = Translation { addresses: Some((address, address)), ports, base: None, flags };
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
