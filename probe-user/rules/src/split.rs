//! What a part of a rule tells apart of a packet that stands for several.

use std::net::IpAddr;
use std::sync::Arc;

use super::branch::Branch;
use super::lower::{Action, Compute, Field, Nat, Op, Term, Test};
use super::machine::{Does, Ended, RulePosition, address as address_of, eval, tested};
use super::nat::{last_of, number};
use super::value::{Holds, TermValue};
use super::wide::Ranges;
use super::{Nic, RuleSource, xt};
use crate::model::{
    BitOp, CmpOp, CtKey, FibResult, IpSet, IpSetId, MetaKey, PayloadBase, Side, XtMatch,
};

/// What became of a packet that stands for several.
pub(super) enum SplitResult {
    /// It is the same for all.
    Same,
    /// Each is the same for all in it.
    Several(Vec<Branch>),
    /// There are too many to look at each.
    Unclear,
}

/// Up to how many addresses or devices are looked at one by one.
const MEMBERS: usize = 4096;
/// Every port is looked at where a test computes with it.
const PORTS: usize = 65_536;
/// What looking at one costs.
const ONE: usize = 4;

/// The parts of a packet that a part of a rule, which is no look-up, treats differently.
pub(super) fn parts(
    source: &dyn RuleSource,
    branch: &Branch,
    place: RulePosition<'_>,
    op: &Op,
) -> SplitResult {
    let packet = &branch.packet;
    if packet.wide.is_none() {
        return SplitResult::Same;
    }
    let test = match op {
        Op::Test(Test::In { .. } | Test::Opaque(_)) => return SplitResult::Same,
        Op::Test(test) => test,
        Op::Do(Action::Nat(nat)) => return of_nat(source, branch, nat),
        Op::Do(Action::Redirect { ports: Some((first, last)), .. }) => {
            return keeps(source, branch, first, last);
        }
        _ => return SplitResult::Same,
    };
    of_test(source, branch, place, test)
}

fn of_test(
    source: &dyn RuleSource,
    branch: &Branch,
    place: RulePosition<'_>,
    test: &Test,
) -> SplitResult {
    let packet = &branch.packet;
    if let Some(both) = without_port_and_port(test) {
        for one in both {
            match of_test(source, branch, place, &Test::Match(one.into())) {
                SplitResult::Same => {}
                parts => return parts,
            }
        }
        return SplitResult::Same;
    }
    let has_addresses = packet.has_addresses() && depends(test, &|field| is_address(branch, field));
    let has_ports = packet.has_ports() && depends(test, &|field| is_port(branch, field));
    if packet.has_devices() && depends(test, &is_device) {
        let all = packet.wide.as_ref().map(|wide| Arc::clone(&wide.devices)).unwrap_or_default();
        let with = |branch: &mut Branch, device: &Nic| branch.packet.at_device(device);
        let classes = match packet.wide.as_ref().filter(|_| has_addresses) {
            Some(wide) => at_addresses(source, branch, place, test, &all, &wide.addresses),
            None => classes(source, branch, place, test, all.iter().cloned(), with),
        };
        match apart(branch, classes, |devices| branch.packet.with_devices(devices.into())) {
            SplitResult::Same => {}
            parts => return parts,
        }
    }
    if has_addresses {
        let all = packet.wide.as_ref().map(|wide| wide.addresses.clone());
        let Some(all) = all else { return SplitResult::Same };
        if let Some(inside) = addresses_of(branch, test) {
            let (within, without) = all.split(&inside);
            if !within.is_empty() && !without.is_empty() {
                let narrowed = [within, without].map(|some| branch.packet.with_addresses(some));
                return several(branch, narrowed);
            }
        } else {
            let Some(pieces) = pieces(&all, || cuts(source, branch, test)) else {
                return SplitResult::Unclear;
            };
            let with = |branch: &mut Branch, one: &(u128, u128)| branch.packet.at_address(one.0);
            let classes = match ip_set(source, branch, test).filter(|_| has_ports) {
                Some((set, sides)) => by_members(source, branch, &set, sides, &pieces),
                None => classes(source, branch, place, test, pieces.into_iter(), with),
            };
            match apart(branch, classes, |some| branch.packet.with_addresses(Ranges::new(some))) {
                SplitResult::Same => {}
                parts => return parts,
            }
        }
    }
    if has_ports {
        let all = packet.wide.as_ref().map(|wide| wide.ports.clone());
        let Some(all) = all else { return SplitResult::Same };
        if let Some(inside) = ports_of(branch, test) {
            return in_and_out(branch, &all, &inside);
        }
        if let Some((set, sides)) = ip_set(source, branch, test) {
            return of_set(source, branch, (place, test), (&set, sides), &all);
        }
        if !source.spend(PORTS) {
            return SplitResult::Unclear;
        }
        let with = |branch: &mut Branch, one: &u128| branch.packet.at_port(*one);
        let mut classes = by_class(source, branch, place, test, all.iter(), with);
        if classes.len() > 1 {
            let narrowed = |(_, some): (u8, Vec<u128>)| {
                branch.packet.with_ports(Ranges::new(some.into_iter().map(|n| (n, n))))
            };
            return several(branch, classes.drain(..).map(narrowed));
        }
    }
    SplitResult::Same
}

/// A match of conditions for address and port, as one without and one of the port: both must
/// hold. Which addresses it tells apart can't be seen at one port.
fn without_port_and_port(test: &Test) -> Option<[XtMatch; 2]> {
    let Test::Match(one) = test else { return None };
    let XtMatch::Conntrack { orig_dport: Some(ports), .. } = **one else { return None };
    let mut rest = (**one).clone();
    let mut port = XtMatch::conntrack(None, false);
    for (one, orig) in [(&mut rest, None), (&mut port, Some(ports))] {
        if let XtMatch::Conntrack { orig_dport, .. } = one {
            *orig_dport = orig;
        }
    }
    (rest != XtMatch::conntrack(None, false)).then_some([rest, port])
}

/// The set that a test asks for its members, if these are known.
fn ip_set<'a>(
    source: &dyn RuleSource,
    branch: &Branch,
    test: &'a Test,
) -> Option<(Arc<IpSet>, &'a [bool])> {
    let Test::Match(one) = test else { return None };
    let XtMatch::Set { index, source: sides, other: false, .. } = &**one else { return None };
    let set = source.ip_set(&IpSetId { netns: branch.packet.netns, index: *index })?;
    set.members.is_some().then_some((set, sides))
}

/// Addresses by the members that they may be of at any port.
fn by_members(
    source: &dyn RuleSource,
    branch: &Branch,
    set: &IpSet,
    sides: &[bool],
    pieces: &[(u128, u128)],
) -> Option<Vec<Vec<(u128, u128)>>> {
    let members = set.members.as_ref().map_or(0, Vec::len);
    if !source.spend(pieces.len().saturating_mul(members + ONE)) {
        return None;
    }
    let mut one = branch.clone();
    let key = |piece: &(u128, u128)| -> Vec<(usize, Holds)> {
        one.packet.at_address(piece.0);
        let members = xt::at_any_port(&one.packet, set, sides);
        members.map(|(at, _, holds)| (at, holds)).collect()
    };
    Some(grouped(pieces.iter().copied(), key).into_iter().map(|(_, pieces)| pieces).collect())
}

/// Devices by how a test turns out for each of these addresses.
fn at_addresses(
    source: &dyn RuleSource,
    branch: &Branch,
    place: RulePosition<'_>,
    test: &Test,
    devices: &[Nic],
    addresses: &Ranges,
) -> Option<Vec<Vec<Nic>>> {
    let pieces = pieces(addresses, || cuts(source, branch, test))?;
    let many = devices.len().saturating_mul(pieces.len());
    if many > MEMBERS || !source.spend(many * ONE) {
        return None;
    }
    let mut one = branch.clone();
    let key = |device: &Nic| -> Vec<u8> {
        one.packet.at_device(device);
        let at = |piece: &(u128, u128)| {
            one.packet.at_address(piece.0);
            class(source, &mut one, place, test)
        };
        pieces.iter().map(at).collect()
    };
    Some(grouped(devices.iter().cloned(), key).into_iter().map(|(_, devices)| devices).collect())
}

/// Ports by whether they are in a set.
fn of_set(
    source: &dyn RuleSource,
    branch: &Branch,
    (place, test): (RulePosition<'_>, &Test),
    (set, sides): (&IpSet, &[bool]),
    all: &Ranges,
) -> SplitResult {
    if !xt::asks_for_dport(set, sides) {
        return SplitResult::Same;
    }
    if !source.spend(set.members.as_ref().map_or(0, Vec::len)) {
        return SplitResult::Unclear;
    }
    let members: Vec<_> = xt::at_any_port(&branch.packet, set, sides).collect();
    let ports = || members.iter().filter_map(|(_, member, _)| member.ports);
    if members.iter().all(|(_, member, holds)| *holds == Holds::Yes && !member.nomatch) {
        return in_and_out(branch, all, &Ranges::ports(ports()));
    }
    let mut cuts: Vec<u128> =
        ports().flat_map(|(first, last)| [u128::from(first), u128::from(last) + 1]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let with = |branch: &mut Branch, one: &(u128, u128)| branch.packet.at_port(one.0);
    let classes = classes(source, branch, place, test, all.cut(&cuts).into_iter(), with);
    apart(branch, classes, |some| branch.packet.with_ports(Ranges::new(some)))
}

/// Addresses one by one, where they are few, else in pieces between these.
pub(super) fn pieces(
    all: &Ranges,
    cuts: impl Fn() -> Option<Vec<u128>>,
) -> Option<Vec<(u128, u128)>> {
    if all.len() <= MEMBERS as u128 {
        return Some(all.iter().map(|n| (n, n)).collect());
    }
    let mut cuts = cuts()?;
    cuts.sort_unstable();
    cuts.dedup();
    Some(all.cut(&cuts))
}

/// Where a test of addresses may turn out otherwise than before; `None` where that may be
/// anywhere.
fn cuts(source: &dyn RuleSource, branch: &Branch, test: &Test) -> Option<Vec<u128>> {
    let ends = |first: IpAddr, last: IpAddr| [number(first), number(last).saturating_add(1)];
    let network = |network: IpAddr, bits: u8| Some(ends(network, last_of(network, bits)?));
    // The ends of loopback's network are no addresses of it.
    let types = || {
        let [first, last] = [[127, 0, 0, 1], [127, 255, 255, 255]].map(IpAddr::from);
        vec![number(first), number(last)]
    };
    match test {
        Test::Compare { term: Term::Field(Field::Fib { result, .. }), .. }
            if *result == FibResult::AddrType =>
        {
            Some(types())
        }
        Test::Range {
            term: Term::Field(Field::Daddr { .. } | Field::Saddr { .. }),
            from,
            to,
            ..
        } => Some(ends(address_of(&from.0)?, address_of(&to.0)?).to_vec()),
        Test::Match(one) => match &**one {
            XtMatch::Addrtype { .. } => Some(types()),
            XtMatch::Iprange { source, destination } => {
                let of = |range: &Option<(IpAddr, IpAddr, bool)>| range.map(|(a, b, _)| ends(a, b));
                Some([of(source), of(destination)].into_iter().flatten().flatten().collect())
            }
            XtMatch::Conntrack { orig_source, orig_destination, reply_source, .. } => {
                let mut all = Vec::new();
                for (address, mask, _) in
                    [orig_source, orig_destination, reply_source].into_iter().flatten()
                {
                    let ones = number(*mask).count_ones();
                    let bits = u8::try_from(ones).ok()?;
                    let last = last_of(*address, bits)?;
                    // A mask with holes has more ends than two.
                    let whole = number(last) ^ number(*address) | number(*mask);
                    let full = if address.is_ipv6() { u128::MAX } else { u128::from(u32::MAX) };
                    if whole != full {
                        return None;
                    }
                    all.extend(ends(*address, last));
                }
                Some(all)
            }
            XtMatch::Set { .. } => {
                // One that is not known is the same for all.
                let set = ip_set(source, branch, test).map(|(set, _)| set);
                let mut all = Vec::new();
                for member in set.iter().flat_map(|set| &set.members).flatten() {
                    for (address, bits) in member.address.into_iter().chain(member.second) {
                        all.extend(network(address, bits)?);
                    }
                    if let Some((first, last)) = member.address.zip(member.address_to) {
                        all.extend(ends(first.0, last));
                    }
                }
                Some(all)
            }
            _ => None,
        },
        _ => None,
    }
}

fn in_and_out(branch: &Branch, all: &Ranges, inside: &Ranges) -> SplitResult {
    let (within, without) = all.split(inside);
    if within.is_empty() || without.is_empty() {
        return SplitResult::Same;
    }
    several(branch, [within, without].map(|some| branch.packet.with_ports(some)))
}

/// The parts of a packet that classes of its members are; `None`: too many to look at each.
fn apart<M>(
    branch: &Branch,
    classes: Option<Vec<Vec<M>>>,
    narrowed: impl Fn(Vec<M>) -> super::Packet,
) -> SplitResult {
    match classes {
        Some(classes) if classes.len() > 1 => several(branch, classes.into_iter().map(narrowed)),
        Some(_) => SplitResult::Same,
        None => SplitResult::Unclear,
    }
}

fn several(branch: &Branch, packets: impl IntoIterator<Item = super::Packet>) -> SplitResult {
    let with = |packet| Branch { packet, ..branch.clone() };
    SplitResult::Several(packets.into_iter().map(with).collect())
}

/// What some have in common for a test; `None` where there are too many.
fn classes<M: Clone>(
    source: &dyn RuleSource,
    branch: &Branch,
    place: RulePosition<'_>,
    test: &Test,
    members: impl Iterator<Item = M>,
    with: impl Fn(&mut Branch, &M),
) -> Option<Vec<Vec<M>>> {
    let members: Vec<M> = members.take(MEMBERS + 1).collect();
    if members.len() > MEMBERS || !source.spend(members.len() * ONE) {
        return None;
    }
    let classes = by_class(source, branch, place, test, members.into_iter(), with);
    Some(classes.into_iter().map(|(_, members)| members).collect())
}

/// Members by how a test turns out for each, in the order of the first of each class.
fn by_class<M: Clone>(
    source: &dyn RuleSource,
    branch: &Branch,
    place: RulePosition<'_>,
    test: &Test,
    members: impl Iterator<Item = M>,
    with: impl Fn(&mut Branch, &M),
) -> Vec<(u8, Vec<M>)> {
    let mut one = branch.clone();
    grouped(members, |member| {
        with(&mut one, member);
        class(source, &mut one, place, test)
    })
}

/// How a test turns out, as far as packets are told apart by it.
fn class(source: &dyn RuleSource, branch: &mut Branch, place: RulePosition<'_>, test: &Test) -> u8 {
    match tested(source, branch, place, test) {
        Does::Goes => 0,
        Does::Ends(Ended::Next) => 1,
        Does::Ends(_) => 2,
        Does::If(_) | Does::Often(_) => 3,
        Does::Splits(_) | Does::Parts(_) => 4,
    }
}

/// Members by a key, in the order of the first of each.
fn grouped<K: PartialEq, M>(
    members: impl Iterator<Item = M>,
    mut key: impl FnMut(&M) -> K,
) -> Vec<(K, Vec<M>)> {
    let mut groups: Vec<(K, Vec<M>)> = Vec::new();
    for member in members {
        let key = key(&member);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, members)) => members.push(member),
            None => groups.push((key, vec![member])),
        }
    }
    groups
}

/// Where a translation keeps the port of some.
fn of_nat(source: &dyn RuleSource, branch: &Branch, nat: &Nat) -> SplitResult {
    const OFFSET: u32 = 0x20;
    match &nat.ports {
        Some(_) if nat.flags & OFFSET != 0 && branch.packet.has_ports() => {
            // Each port goes to one of its own.
            let all = branch.packet.wide.as_ref().map(|wide| wide.ports.clone());
            let each: Vec<u128> = all.iter().flat_map(Ranges::iter).take(MEMBERS + 1).collect();
            if each.len() > MEMBERS || !source.spend(each.len() * ONE) {
                return SplitResult::Unclear;
            }
            let narrowed = |n: u128| branch.packet.with_ports(Ranges::new([(n, n)]));
            several(branch, each.into_iter().map(narrowed))
        }
        Some((first, last)) => keeps(source, branch, first, last),
        None => SplitResult::Same,
    }
}

/// The kernel keeps a port that is in the range it translates to.
fn keeps(source: &dyn RuleSource, branch: &Branch, first: &Term, last: &Term) -> SplitResult {
    let same = branch.packet.wide.as_ref().filter(|wide| wide.same_port && first != last);
    let Some(wide) = same.filter(|_| branch.packet.has_ports()) else { return SplitResult::Same };
    let port = |term: &Term| match eval(source, branch, term) {
        TermValue::Bits(bits) => Some(u16::from_be_bytes(*bits.get(2)?.first_chunk()?)),
        TermValue::Drawn(..) => None,
    };
    match port(first).zip(port(last)) {
        Some(range) => in_and_out(branch, &wide.ports, &Ranges::ports([range])),
        None => SplitResult::Same,
    }
}

/// Whether a test asks for such a field.
fn depends(test: &Test, field: &dyn Fn(&Field) -> bool) -> bool {
    let source = Field::Saddr { ipv6: false, len: 4 };
    let destination = Field::Daddr { ipv6: false, len: 4 };
    let (sport, dport) = (Field::Sport, Field::Dport);
    let back = Field::Fib {
        result: FibResult::Oif,
        saddr: true,
        iif: true,
        oif: false,
        mark: false,
        present: true,
    };
    let original = |key| {
        field(&Field::Ct { key, reply: Some(false) })
            || field(&Field::Ct { key, reply: Some(true) })
    };
    match test {
        Test::Compare { term, .. } | Test::Range { term, .. } => term.has(field),
        Test::In { key, .. } => key.parts.iter().any(|(term, _)| term.has(field)),
        Test::Opaque(_) => false,
        Test::Match(one) => match &**one {
            XtMatch::Tcp { .. } | XtMatch::Udp { .. } => field(&sport) || field(&dport),
            XtMatch::Multiport { side: Side::Source, .. } => field(&sport),
            XtMatch::Multiport { .. } => field(&dport),
            XtMatch::Addrtype { source: types, .. } => *types != 0 && field(&source),
            XtMatch::Iprange { .. } => field(&source) || field(&destination),
            XtMatch::Rpfilter { .. } => field(&back),
            XtMatch::Set { .. } => field(&source) || field(&destination) || field(&dport),
            XtMatch::Conntrack { .. } => {
                original(CtKey::Src) || original(CtKey::Dst) || original(CtKey::ProtoDst)
            }
            _ => false,
        },
    }
}

/// Whether devices that packets come in by may differ in a field.
pub(super) fn is_device(field: &Field) -> bool {
    match field {
        Field::Meta(MetaKey::Iif | MetaKey::Iifname | MetaKey::Pkttype) => true,
        // Which clients there are depends on the device.
        Field::Saddr { .. } | Field::Ct { key: CtKey::Src, reply: Some(false) | None } => true,
        Field::Fib { iif, .. } => *iif,
        _ => false,
    }
}

/// Whether addresses that packets are sent to may differ in a field.
pub(super) fn is_address(branch: &Branch, field: &Field) -> bool {
    let wide = branch.packet.wide.as_ref();
    let same = wide.is_some_and(|wide| wide.same_address);
    let itself = wide.is_some_and(|wide| wide.from_itself);
    match field {
        Field::Daddr { .. } => same,
        Field::Saddr { .. } => itself,
        Field::Ct { key: CtKey::Dst, reply } => *reply != Some(true),
        Field::Ct { key: CtKey::Src, reply: Some(true) } => same,
        Field::Ct { key: CtKey::Src, .. } => itself,
        Field::Header { base: PayloadBase::Network, .. } => same || itself,
        Field::Fib { saddr, .. } => {
            if *saddr {
                itself
            } else {
                same
            }
        }
        _ => false,
    }
}

/// Whether ports that packets are sent to may differ in a field.
pub(super) fn is_port(branch: &Branch, field: &Field) -> bool {
    let same = branch.packet.wide.as_ref().is_some_and(|wide| wide.same_port);
    match field {
        Field::Dport => same,
        Field::Ct { key: CtKey::ProtoDst, reply } => *reply != Some(true),
        Field::Ct { key: CtKey::ProtoSrc, reply } => same && *reply == Some(true),
        Field::Header { base: PayloadBase::Transport, offset, len } => {
            same && *offset < 4 && offset.saturating_add(*len) > 2
        }
        _ => false,
    }
}

/// The destination ports for which a test holds, as far as it is one of the port alone.
fn ports_of(branch: &Branch, test: &Test) -> Option<Ranges> {
    let of = |value: &[u8]| Some(u128::from(u16::from_be_bytes(*value.first_chunk()?)));
    let wide = branch.packet.wide.as_ref()?;
    match test {
        Test::Compare { term, op, value } if value.0.len() == 2 && is_the_port(term) => {
            let n = of(&value.0)?;
            let (below, above) = (n.checked_sub(1), n + 1);
            let to = |end: Option<u128>| end.map(|end| (0, end));
            Some(Ranges::new(match op {
                CmpOp::Eq => vec![(n, n)],
                CmpOp::Neq => to(below).into_iter().chain([(above, 0xffff)]).collect(),
                CmpOp::Lt => to(below).into_iter().collect(),
                CmpOp::Lte => vec![(0, n)],
                CmpOp::Gt => vec![(above, 0xffff)],
                CmpOp::Gte => vec![(n, 0xffff)],
            }))
        }
        Test::Compare {
            term: Term::Computed { of: port, how: Compute::Bits(BitOp::MaskXor { mask, xor }), .. },
            op: CmpOp::Eq | CmpOp::Neq,
            value,
        } if is_the_port(port) && xor.0.iter().all(|byte| *byte == 0) => masked(
            u16::from_be_bytes(*mask.0.first_chunk()?),
            u16::from_be_bytes(*value.0.first_chunk()?),
        ),
        Test::Range { term, from, to, .. } if from.0.len() == 2 && is_the_port(term) => {
            Some(Ranges::new([(of(&from.0)?, of(&to.0)?)]))
        }
        Test::Match(one) if wide.same_port => match &**one {
            XtMatch::Tcp { dports, .. } | XtMatch::Udp { dports, .. } => {
                Some(Ranges::ports([*dports]))
            }
            XtMatch::Multiport { ports, .. } => Some(Ranges::ports(ports.iter().copied())),
            _ => None,
        },
        // Of a port that does not tell them apart any more.
        Test::Match(one) => match &**one {
            XtMatch::Tcp { .. } | XtMatch::Udp { .. } | XtMatch::Multiport { .. } => {
                Some(Ranges::new([(0, u128::MAX)]))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether a term is the destination port: as it is now, or as it was sent.
fn is_the_port(term: &Term) -> bool {
    match term {
        Term::Field(Field::Dport) => true,
        Term::Field(Field::Ct { key: CtKey::ProtoDst, reply }) => *reply != Some(true),
        _ => false,
    }
}

/// Numbers that a mask makes a value of, if there are not too many.
fn masked(mask: u16, value: u16) -> Option<Ranges> {
    const FREE: u32 = 12;
    let free = !mask;
    if free.count_ones() > FREE {
        return None;
    }
    if value & free != 0 {
        // A value with bits that the mask takes away is none.
        return Some(Ranges::new([]));
    }
    // Every subset of the bits that are free, each from the one before.
    let next = |some: &u16| Some(some.wrapping_sub(free) & free).filter(|some| *some != 0);
    let subsets = std::iter::successors(Some(0_u16), next);
    Some(Ranges::ports(subsets.map(|some| (value | some, value | some))))
}

/// The same of destination addresses.
fn addresses_of(branch: &Branch, test: &Test) -> Option<Ranges> {
    let Test::Compare { term, op: CmpOp::Eq | CmpOp::Neq, value } = test else { return None };
    let (field, mask) = match term {
        Term::Field(field) => (field, None),
        Term::Computed { of, how: Compute::Bits(BitOp::MaskXor { mask, xor }), .. }
            if xor.0.iter().all(|byte| *byte == 0) =>
        {
            let Term::Field(field) = &**of else { return None };
            (field, Some(mask))
        }
        _ => return None,
    };
    let wide = branch.packet.wide.as_ref()?;
    let (ipv6, len) = match field {
        Field::Daddr { ipv6, len } if wide.same_address => (ipv6, len),
        Field::Saddr { ipv6, len } if wide.from_itself => (ipv6, len),
        _ => return None,
    };
    if *ipv6 != branch.ipv6() || value.0.len() > usize::from(*len) {
        return None;
    }
    let size: u32 = if *ipv6 { 16 } else { 4 };
    let given = u32::try_from(value.0.len()).ok()?;
    let bits = match mask {
        None => given * 8,
        Some(mask) => {
            let ones: u32 = mask.0.iter().map(|byte| byte.count_ones()).sum();
            let leading = mask.0.iter().map(|b| b.leading_ones()).scan(true, |all, n| {
                let counts = if *all { n } else { 0 };
                *all &= n == 8;
                Some(counts)
            });
            let leading: u32 = leading.sum();
            if leading != ones || u32::try_from(mask.0.len()) != Ok(given) {
                return None;
            }
            ones
        }
    };
    let number = value.0.iter().fold(0_u128, |all, byte| all << 8 | u128::from(*byte));
    let shift = (size.checked_sub(given)?) * 8;
    let from = number.checked_shl(shift).unwrap_or(0);
    let host = size * 8 - bits;
    let ones = if host >= 128 { u128::MAX } else { (1_u128 << host) - 1 };
    // A value with bits that the mask takes away equals nothing.
    if from & ones != 0 {
        return Some(Ranges::new([]));
    }
    Some(Ranges::new([(from, from | ones)]))
}
