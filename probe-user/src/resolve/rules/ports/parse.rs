//! A chain as conditions and where they lead.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::{Source, text};
use super::cond::{Cond, Dst};
use crate::model::{
    Base, BitOp, Bytes, ChainId, CmpOp, Element, Expr, Family, FibResult, LOOPBACK4, MetaKey,
    NatKind, NatRange, Rule, RuleVerdict, SetId, Side, XtMatch, XtTarget,
};

/// The rules of a chain, each with one branch for every element of the maps that it
/// looks up.
pub(super) struct Parsed {
    pub(super) rules: Arc<[Rule]>,
    pub(super) branches: Vec<Branch>,
}

pub(super) struct Branch {
    /// The rule.
    pub(super) at: usize,
    pub(super) cond: Cond,
    pub(super) act: Act,
    pub(super) element: Option<Element>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Act {
    To(Target),
    Refuse,
    Chain {
        to: ChainId,
    },
    /// The rest of the chain is not reached.
    Stop,
    Nothing,
}

/// Where DNAT leads; what it keeps is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    address: IpAddr,
    port: Option<u16>,
}

impl Target {
    pub(super) fn of(self, port: u16) -> (IpAddr, u16) {
        (self.address, self.port.unwrap_or(port))
    }
}

/// What a register holds of what is asked for here.
#[derive(Debug, Clone, PartialEq)]
enum Field {
    Proto,
    Dport,
    Daddr {
        ipv6: bool,
        bits: u8,
    },
    Local,
    Value(Bytes),
    /// A part of the data of the map that was looked up last, from that byte on.
    Data,
    Other,
}

/// One of the ways through a rule.
#[derive(Clone, Default)]
struct Way {
    cond: Cond,
    element: Option<Element>,
}

pub(super) fn chain(source: &dyn Source, id: &ChainId, rules: Arc<[Rule]>) -> Parsed {
    let mut branches = Vec::with_capacity(rules.len());
    for (at, rule) in rules.iter().enumerate() {
        let mut reading = Reading {
            source,
            chain: id,
            at,
            registers: std::array::from_fn(|_| None),
            ways: vec![Way::default()],
            conditional: false,
            branches: &mut branches,
        };
        for expr in &rule.exprs {
            if !reading.step(expr) {
                break;
            }
        }
    }
    Parsed { rules, branches }
}

struct Reading<'a> {
    source: &'a dyn Source,
    chain: &'a ChainId,
    at: usize,
    registers: [Option<(Field, u32)>; 16],
    ways: Vec<Way>,
    /// Whether something else than what is in the ways is tested.
    conditional: bool,
    branches: &'a mut Vec<Branch>,
}

impl Reading<'_> {
    /// Reads an expression; `false` ends the rule.
    fn step(&mut self, expr: &Expr) -> bool {
        match expr {
            Expr::Meta { key, dreg } => {
                let field = if *key == MetaKey::L4proto { Field::Proto } else { Field::Other };
                self.set(dreg.0, field, if *key == MetaKey::Iifname { 16 } else { 4 });
            }
            Expr::Payload { base, offset, len, dreg } => {
                self.set(dreg.0, self.payload(*base, *offset, *len), *len);
            }
            Expr::Fib { dreg, result: FibResult::AddrType, saddr: false, .. } => {
                self.set(dreg.0, Field::Local, 4);
            }
            Expr::Fib { dreg, .. }
            | Expr::Ct { dreg, .. }
            | Expr::Numgen { dreg, .. }
            | Expr::Hash { dreg, .. }
            | Expr::Load { dreg, .. } => self.set(dreg.0, Field::Other, 4),
            Expr::Immediate { dreg, value } => {
                let len = u32::try_from(value.0.len()).unwrap_or(16);
                self.set(dreg.0, Field::Value(value.clone()), len);
            }
            Expr::Bitwise { sreg, dreg, op, .. } => self.bitwise(sreg.0, dreg.0, op),
            Expr::Byteorder { dreg, len, .. } => self.set(dreg.0, Field::Other, *len),
            Expr::Cmp { sreg, op, value } => return self.compare(sreg.0, *op, &value.0),
            Expr::Range { sreg, invert, from, to } => {
                match (self.field(sreg.0), port(&from.0), port(&to.0)) {
                    (Field::Dport, Some(from), Some(to)) if !invert => {
                        return self
                            .and(&Cond { ports: Some(vec![(from, to)]), ..Cond::default() });
                    }
                    _ => self.conditional = true,
                }
            }
            Expr::Lookup { set, sreg, invert } => return self.lookup(set, sreg.0, *invert),
            Expr::Map { set, sreg, dreg } => {
                return self.map(set, sreg.0, dreg.map(|reg| reg.0));
            }
            Expr::Match(one) => return self.matches(one),
            Expr::Verdict(verdict) => {
                let act = self.verdict(verdict);
                self.end(&act);
                return false;
            }
            Expr::Nat { kind: NatKind::Dnat, address, port, .. } => {
                self.nat(address.map(|(reg, _)| reg.0), port.map(|(reg, _)| reg.0));
                return false;
            }
            Expr::Redirect { port, .. } => {
                let port = port.and_then(|(reg, _)| self.port_of(reg.0));
                self.end(&Act::To(Target { address: self.here(), port }));
                return false;
            }
            Expr::Tproxy { address, port } => {
                let address = address.and_then(|reg| self.address_of(reg.0));
                let address = address.unwrap_or_else(|| self.here());
                let port = port.and_then(|reg| self.port_of(reg.0));
                self.end(&Act::To(Target { address, port }));
                return false;
            }
            Expr::Reject(_) => {
                self.end(&Act::Refuse);
                return false;
            }
            Expr::Target(target) => return self.target(target),
            Expr::Opaque(_) => self.conditional = true,
            _ => {}
        }
        true
    }

    fn payload(&self, base: Base, offset: u32, len: u32) -> Field {
        let bits = u8::try_from(len * 8).unwrap_or(128);
        match (base, offset, len) {
            (Base::Transport, 2, 2) => Field::Dport,
            (Base::Network, 9, 1) if self.chain.table.family == Family::Ip => Field::Proto,
            (Base::Network, 16, 1..=4) if self.chain.table.family != Family::Ip6 => {
                Field::Daddr { ipv6: false, bits }
            }
            (Base::Network, 24, 1..=16) if self.chain.table.family != Family::Ip => {
                Field::Daddr { ipv6: true, bits }
            }
            _ => Field::Other,
        }
    }

    fn bitwise(&mut self, sreg: u8, dreg: u8, op: &BitOp) {
        let field = match (self.field(sreg), op) {
            (Field::Daddr { ipv6, .. }, BitOp::MaskXor { mask, .. }) => {
                let bits: u32 = mask.0.iter().map(|byte| byte.leading_ones()).sum();
                Field::Daddr { ipv6, bits: u8::try_from(bits).unwrap_or(128) }
            }
            _ => Field::Other,
        };
        self.set(dreg, field, 4);
    }

    fn compare(&mut self, sreg: u8, op: CmpOp, value: &[u8]) -> bool {
        let mut cond = Cond::default();
        match (self.field(sreg), op) {
            (Field::Proto, CmpOp::Eq) => cond.proto = value.first().copied(),
            (Field::Dport, CmpOp::Eq) => cond.ports = port(value).map(|p| vec![(p, p)]),
            (Field::Dport, CmpOp::Gte) => cond.ports = port(value).map(|p| vec![(p, u16::MAX)]),
            (Field::Dport, CmpOp::Lte) => cond.ports = port(value).map(|p| vec![(0, p)]),
            (Field::Daddr { ipv6, bits }, CmpOp::Eq) => cond.dst = destination(ipv6, bits, value),
            (Field::Local, CmpOp::Eq) if value.first() == Some(&2) || value.last() == Some(&2) => {
                cond.dst = Dst::Local;
            }
            _ => self.conditional = true,
        }
        self.and(&cond)
    }

    /// A set: one way for each of its elements, where they say what is asked for.
    fn lookup(&mut self, set: &Arc<str>, sreg: u8, invert: bool) -> bool {
        let fields = self.key(sreg);
        if invert || fields.iter().all(|(field, _)| *field == Field::Other) {
            self.conditional = true;
            return true;
        }
        self.multiply(set, &fields, false)
    }

    fn map(&mut self, set: &Arc<str>, sreg: u8, dreg: Option<u8>) -> bool {
        let fields = self.key(sreg);
        if !self.multiply(set, &fields, true) {
            return false;
        }
        if let Some(dreg) = dreg {
            self.set(dreg, Field::Data, 4);
            return true;
        }
        for way in std::mem::take(&mut self.ways) {
            let verdict = way.element.as_ref().and_then(|element| element.verdict.as_ref());
            let act = verdict.map_or(Act::Nothing, |verdict| self.verdict(verdict));
            self.push(way, act);
        }
        // A key without an element ends the rule.
        false
    }

    fn multiply(&mut self, set: &Arc<str>, fields: &[(Field, u32)], keep: bool) -> bool {
        let id = SetId { table: self.chain.table.clone(), name: Arc::clone(set) };
        let Some(elements) = self.source.set_elements(&id) else {
            self.conditional = true;
            return !keep;
        };
        let mut ways = Vec::with_capacity(elements.len());
        for way in &self.ways {
            for element in elements.iter() {
                let cond = if element.catch_all {
                    Some(way.cond.clone())
                } else {
                    way.cond.and(&key_cond(fields, element))
                };
                let element = if keep { Some(element.clone()) } else { way.element.clone() };
                ways.extend(cond.map(|cond| Way { cond, element }));
            }
        }
        self.ways = ways;
        !self.ways.is_empty()
    }

    fn matches(&mut self, one: &XtMatch) -> bool {
        let mut cond = Cond::default();
        match one {
            XtMatch::Tcp { dports, invert_dports: false, .. } => {
                cond.proto = Some(6);
                cond.ports = (*dports != (0, u16::MAX)).then(|| vec![*dports]);
            }
            XtMatch::Udp { dports, invert_dports: false, .. } => {
                cond.proto = Some(17);
                cond.ports = (*dports != (0, u16::MAX)).then(|| vec![*dports]);
            }
            XtMatch::Multiport { side: Side::Destination, ports, invert: false } => {
                cond.ports = Some(ports.clone());
            }
            XtMatch::Addrtype { destination, invert_destination: false, .. }
                if destination & 4 != 0 =>
            {
                cond.dst = Dst::Local;
            }
            _ => self.conditional = true,
        }
        self.and(&cond)
    }

    fn target(&mut self, target: &XtTarget) -> bool {
        let act = match target {
            XtTarget::Dnat(NatRange { addresses, ports, .. }) => Act::To(Target {
                address: addresses.map_or_else(|| self.here(), |(first, _)| first),
                port: ports.map(|(first, _)| first),
            }),
            XtTarget::Redirect(NatRange { ports, .. }) => {
                Act::To(Target { address: self.here(), port: ports.map(|(first, _)| first) })
            }
            XtTarget::Tproxy { address, port, .. } => {
                Act::To(Target { address: address.unwrap_or_else(|| self.here()), port: *port })
            }
            XtTarget::Reject(_) => Act::Refuse,
            XtTarget::Snat(_) | XtTarget::Masquerade(_) | XtTarget::Netmap(_) => Act::Nothing,
            _ => return true,
        };
        self.end(&act);
        false
    }

    fn nat(&mut self, address: Option<u8>, port: Option<u8>) {
        let of_map = address.is_some_and(|reg| self.field(reg) == Field::Data);
        let port = port.and_then(|reg| self.port_of(reg));
        if !of_map {
            let address = match address {
                Some(reg) => self.address_of(reg),
                None => Some(self.here()),
            };
            if let Some(address) = address {
                self.end(&Act::To(Target { address, port }));
            }
            return;
        }
        for way in std::mem::take(&mut self.ways) {
            let data = way.element.as_ref().and_then(|element| element.data.as_ref());
            if let Some((address, of_data)) = data.and_then(text::target) {
                let port = port.or(of_data);
                self.push(way, Act::To(Target { address, port }));
            }
        }
    }

    fn verdict(&self, verdict: &RuleVerdict) -> Act {
        match verdict {
            RuleVerdict::Jump(to) | RuleVerdict::Goto(to) => {
                Act::Chain { to: ChainId { table: self.chain.table.clone(), name: Arc::clone(to) } }
            }
            RuleVerdict::Drop => Act::Refuse,
            RuleVerdict::Accept | RuleVerdict::Return | RuleVerdict::Queue => Act::Stop,
            RuleVerdict::Continue | RuleVerdict::Break => Act::Nothing,
        }
    }

    /// Ends all ways in the same.
    fn end(&mut self, act: &Act) {
        for way in std::mem::take(&mut self.ways) {
            // Only what holds for every packet ends the chain.
            let whole = !self.conditional && way.cond == Cond::default();
            let act = if *act == Act::Stop && !whole { Act::Nothing } else { act.clone() };
            self.push(way, act);
        }
    }

    fn push(&mut self, way: Way, act: Act) {
        if act != Act::Nothing {
            self.branches.push(Branch { at: self.at, cond: way.cond, act, element: way.element });
        }
    }

    fn and(&mut self, cond: &Cond) -> bool {
        let both =
            |way: &Way| Some(Way { cond: way.cond.and(cond)?, element: way.element.clone() });
        self.ways = self.ways.iter().filter_map(both).collect();
        !self.ways.is_empty()
    }

    fn set(&mut self, reg: u8, field: Field, len: u32) {
        if let Some(register) = self.registers.get_mut(usize::from(reg)) {
            *register = Some((field, len));
        }
    }

    fn field(&self, reg: u8) -> Field {
        let register = self.registers.get(usize::from(reg)).and_then(Option::as_ref);
        register.map_or(Field::Other, |(field, _)| field.clone())
    }

    /// The parts of a key, with their lengths in bytes.
    fn key(&self, sreg: u8) -> Vec<(Field, u32)> {
        let mut fields = Vec::new();
        let mut at = usize::from(sreg);
        while let Some(Some((field, len))) = self.registers.get(at) {
            fields.push((field.clone(), *len));
            at += usize::try_from(len.div_ceil(4)).unwrap_or(1).max(1);
        }
        fields
    }

    fn address_of(&self, reg: u8) -> Option<IpAddr> {
        match self.field(reg) {
            Field::Value(value) => text::target(&value).map(|(address, _)| address),
            _ => None,
        }
    }

    fn port_of(&self, reg: u8) -> Option<u16> {
        match self.field(reg) {
            Field::Value(value) => port(&value.0),
            _ => None,
        }
    }

    /// This machine, for what is redirected to it.
    fn here(&self) -> IpAddr {
        match self.chain.table.family {
            Family::Ip6 => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            _ => LOOPBACK4,
        }
    }
}

fn port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?))
}

fn destination(ipv6: bool, bits: u8, value: &[u8]) -> Dst {
    let mut all = [0; 16];
    for (to, from) in all.iter_mut().zip(value) {
        *to = *from;
    }
    if ipv6 {
        let address = IpAddr::from(all);
        return if bits < 128 { Dst::In(address, bits) } else { Dst::At(address) };
    }
    let address = IpAddr::from([all[0], all[1], all[2], all[3]]);
    if bits < 32 { Dst::In(address, bits) } else { Dst::At(address) }
}

/// What an element's key says of the packet.
fn key_cond(fields: &[(Field, u32)], element: &Element) -> Cond {
    let mut cond = Cond::default();
    let mut at = 0;
    for (field, len) in fields {
        let len = usize::try_from(*len).unwrap_or(16);
        let part = |bytes: &Bytes| bytes.0.get(at..at + len).map(<[u8]>::to_vec);
        let first = part(&element.key).unwrap_or_default();
        let last = element.key_end.as_ref().and_then(part).unwrap_or_else(|| first.clone());
        match field {
            Field::Proto if first == last => cond.proto = first.first().copied(),
            Field::Dport => cond.ports = port(&first).zip(port(&last)).map(|range| vec![range]),
            Field::Daddr { ipv6, bits } if first == last => {
                cond.dst = destination(*ipv6, *bits, &first);
            }
            Field::Local if first.first() == Some(&2) => cond.dst = Dst::Local,
            _ => {}
        }
        at += len.div_ceil(4).max(1) * 4;
    }
    cond
}
