//! Rules as conditions and actions.
//!
//! nf_tables runs a rule as a program over registers. Lowering follows the registers
//! once and keeps what counts: what of a packet is tested, and what is done to it. It
//! knows no packet and no set, so each rule is lowered once; running it, telling it in
//! words, and telling which ports it takes are folds over the same form.

mod registers;
mod targets;

use std::sync::Arc;

use crate::model::{
    BitOp, Bytes, ChainId, CmpOp, CtKey, Expr, Family, FibResult, MetaKey, NatKind, PayloadBase,
    Reg, Rejection, Rule, RuleVerdict, XtMatch,
};
use registers::Registers;

/// A chain, with what each of its rules does. Making one costs about as much as running it
/// once: a [`RuleSource`](crate::RuleSource) should keep it.
#[derive(Debug)]
pub struct Chain {
    /// The rules as the kernel told them.
    pub(super) rules: Arc<[Rule]>,
    /// What they do, in the same order.
    pub(super) programs: Vec<RuleProgram>,
}

/// What a rule does, in order. A test that does not hold ends the rule.
pub(super) type RuleProgram = Box<[Op]>;

/// Where a rule keeps a value that later parts of it refer to.
pub(super) type ValueSlot = u8;

/// A part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    /// Ends the rule unless it holds.
    Test(Test),
    /// Ends the rule for a packet that has no such field: one without a socket, or
    /// without a connection.
    Needs(Field),
    /// Draws a number from `offset` to `offset + modulus - 1`.
    Draw { slot: ValueSlot, modulus: u32, offset: u32, how: Draw },
    /// Looks a key up. Without an element for it the rule ends; else the slot gets its
    /// data, or its verdict is followed where there is no slot.
    Find { set: Arc<str>, key: SetKey, slot: Option<ValueSlot> },
    /// Keeps the value that a term has now.
    Keep { slot: ValueSlot, term: Term },
    /// Does something.
    Do(Action),
}

/// How a number is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Draw {
    Random,
    InTurn,
    /// By a hash of these; of both ends of the connection without.
    Hash(Option<SetKey>),
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// The first bytes of a term compare so with a value, as in memcmp.
    Compare { term: Term, op: CmpOp, value: Bytes },
    /// The first bytes of a term lie in a range, both ends included, or outside.
    Range { term: Term, invert: bool, from: Bytes, to: Bytes },
    /// A key is in a set, or not.
    In { set: Arc<str>, key: SetKey, invert: bool },
    /// A match of iptables: as it is, a typed condition.
    Match(Arc<XtMatch>),
    /// May hold or not: what is not modelled, in words.
    Opaque(String),
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Term {
    /// Something of the packet, or of its connection.
    Field(Field),
    /// A constant.
    Constant(Bytes),
    /// The number that was drawn, 4 bytes in the machine's order.
    Drawn(ValueSlot),
    /// What a map gave, from a byte on. The set and key are those of the look-up.
    Data { slot: ValueSlot, at: u32, find: Arc<(Arc<str>, SetKey)> },
    /// What a term was before it was changed.
    Kept { slot: ValueSlot, was: Box<Term> },
    /// Something computed of another, so many bytes long.
    Computed { of: Box<Term>, how: Compute, len: u32 },
    /// Another from a byte on.
    Part { of: Box<Term>, at: u32 },
    /// Not known: a register that nothing was loaded to.
    Unknown,
}

/// A computation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Compute {
    Bits(BitOp),
    /// Swaps the bytes of each so many.
    Swap(u32),
}

/// Several terms in a row, each in whole words of 4 bytes: as many as the set's key has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SetKey {
    /// The terms, and how many bytes each has.
    pub(super) parts: Vec<(Term, u32)>,
    /// How many of them were loaded for this: what is behind was left by others.
    pub(super) own: usize,
}

/// Something of a packet, or of its connection. Its bytes are those that the kernel
/// loads to a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    /// The first bytes of the source address.
    Saddr { ipv6: bool, len: u8 },
    /// The first bytes of the destination address.
    Daddr { ipv6: bool, len: u8 },
    /// The protocol in the IP header.
    Protocol { ipv6: bool },
    /// The source port.
    Sport,
    /// The destination port.
    Dport,
    /// Any other bytes of the packet.
    Header { base: PayloadBase, offset: u32, len: u32 },
    /// What [`Expr::Meta`] loads.
    Meta(MetaKey),
    /// What [`Expr::Ct`] loads, of a direction.
    Ct { key: CtKey, reply: Option<bool> },
    /// What the routing tables say.
    Fib { result: FibResult, saddr: bool, iif: bool, oif: bool, mark: bool, present: bool },
    /// What is not modelled, in words, and how many bytes it has at most.
    Other { what: Box<str>, len: u32 },
}

/// What a rule does to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Writes something about the packet.
    SetMeta {
        key: MetaKey,
        to: Term,
    },
    /// Writes something about its connection.
    SetCt {
        key: CtKey,
        to: Term,
    },
    /// Copies the connection's mark to the packet's (`true`), or the other way.
    CopyMark {
        restore: bool,
    },
    /// Changes bytes of the packet without NAT.
    SetPayload {
        base: PayloadBase,
        offset: u32,
        len: u32,
    },
    Verdict(RuleVerdict),
    /// Sets up NAT, and accepts.
    Nat(Box<Nat>),
    /// DNAT to this machine.
    Redirect {
        ports: Option<(Term, Term)>,
        flags: u32,
    },
    /// SNAT to the address of the interface that it goes out by.
    Masquerade,
    /// Gives the packet to a socket.
    Tproxy {
        address: Option<Term>,
        port: Option<Term>,
        /// Without such a socket the packet is dropped; else the rule does nothing.
        drops: bool,
    },
    Reject(Rejection),
    /// Accepts, as NAT does: what was done before decides.
    Settle,
    Notrack,
    /// Decides nothing: `LOG`. Its name, where iptables tells it.
    Nothing(Option<Box<str>>),
    /// What happens is not known: its name. Untrusted.
    Unknown(Box<str>),
}

/// A translation: what is left out stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nat {
    pub(super) kind: Translates,
    /// Whether it is for IPv6 packets. `None` where the table says so already.
    pub(super) ipv6: Option<bool>,
    /// Lowest and highest address.
    pub(super) addresses: Option<(Term, Term)>,
    /// Lowest and highest port.
    pub(super) ports: Option<(Term, Term)>,
    /// Of a shifted range (`8080-8090/8080`): the port that maps to the first.
    pub(super) base: Option<u16>,
    /// `NF_NAT_RANGE_*`.
    pub(super) flags: u32,
}

/// What a translation changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Translates {
    Source,
    Destination,
    /// `NETMAP`: the source behind routing, the destination before.
    ByHook,
}

impl Chain {
    /// Understands the rules of a chain, which are in order.
    pub fn new(id: &ChainId, rules: Arc<[Rule]>) -> Self {
        let programs = rules.iter().map(|rule| lower(id.table.family, rule)).collect();
        Self { rules, programs }
    }
}

/// What a rule of a table of this family does.
pub(super) fn lower(family: Family, rule: &Rule) -> RuleProgram {
    let mut lowering =
        Lowering { family, ipv6: None, ops: Vec::new(), registers: Registers::default(), slots: 0 };
    for expr in &rule.exprs {
        lowering.expr(expr);
    }
    lowering.ops.into_boxed_slice()
}

struct Lowering {
    family: Family,
    /// The IP version that was tested before, in a table of both.
    ipv6: Option<bool>,
    ops: Vec<Op>,
    registers: Registers,
    slots: ValueSlot,
}

impl Lowering {
    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Meta { key, dreg } => {
                let field = Field::Meta(key.clone());
                if matches!(key, MetaKey::Skuid | MetaKey::Skgid) {
                    self.ops.push(Op::Needs(field.clone()));
                }
                self.load(*dreg, field);
            }
            Expr::Payload { base, offset, len, dreg } => {
                self.load(*dreg, self.header(*base, *offset, *len));
            }
            Expr::Ct { key, reply, dreg } => {
                let field = Field::Ct { key: *key, reply: *reply };
                if *key != CtKey::State {
                    self.ops.push(Op::Needs(field.clone()));
                }
                self.load(*dreg, field);
            }
            Expr::Fib { dreg, result, saddr, iif, oif, mark, present } => self.load(
                *dreg,
                Field::Fib {
                    result: *result,
                    saddr: *saddr,
                    iif: *iif,
                    oif: *oif,
                    mark: *mark,
                    present: *present,
                },
            ),
            Expr::Load { dreg, len, what } => {
                self.load(*dreg, Field::Other { what: what.as_str().into(), len: *len });
            }
            Expr::Immediate { dreg, value } => {
                let len = u32::try_from(value.0.len()).unwrap_or(16);
                self.registers.write(*dreg, Term::Constant(value.clone()), len);
            }
            Expr::Numgen { dreg, modulus, offset, random } => {
                let how = if *random { Draw::Random } else { Draw::InTurn };
                self.draw(*dreg, *modulus, *offset, how);
            }
            Expr::Hash { dreg, modulus, offset, of } => {
                let key = of.map(|(reg, _)| self.key(reg));
                self.draw(*dreg, *modulus, *offset, Draw::Hash(key));
            }
            Expr::Bitwise { sreg, dreg, len, op } => {
                self.compute(*sreg, *dreg, *len, Compute::Bits(op.clone()));
            }
            Expr::Byteorder { sreg, dreg, len, size } => {
                self.compute(*sreg, *dreg, *len, Compute::Swap(*size));
            }
            Expr::Cmp { sreg, op, value } => {
                let term = self.read(*sreg);
                if let (Term::Field(Field::Meta(MetaKey::Nfproto)), CmpOp::Eq) = (&term, op) {
                    self.ipv6 = Some(value.0.first() == Some(&10));
                }
                self.test(Test::Compare { term, op: *op, value: value.clone() });
            }
            Expr::Range { sreg, invert, from, to } => {
                let (from, to) = (Bytes::clone(from), Bytes::clone(to));
                let term = self.read(*sreg);
                self.test(Test::Range { term, invert: *invert, from, to });
            }
            Expr::Lookup { set, sreg, invert } => {
                let key = self.key(*sreg);
                self.test(Test::In { set: Arc::clone(set), key, invert: *invert });
            }
            Expr::Map { set, sreg, dreg } => self.find(set, *sreg, *dreg),
            Expr::Match(one) => self.test(Test::Match(Arc::clone(one))),
            Expr::Opaque(what) => self.test(Test::Opaque(what.clone())),
            expr => {
                let action = self.action(expr);
                self.act(action);
            }
        }
    }

    fn action(&mut self, expr: &Expr) -> Action {
        let pair = |this: &mut Self, pair: Option<(Reg, Reg)>| {
            pair.map(|(first, last)| (this.read(first), this.read(last)))
        };
        match expr {
            Expr::SetMeta { key, sreg } => {
                Action::SetMeta { key: key.clone(), to: self.read(*sreg) }
            }
            Expr::SetCt { key, sreg } => Action::SetCt { key: *key, to: self.read(*sreg) },
            Expr::SetPayload { base, offset, len, .. } => {
                Action::SetPayload { base: *base, offset: *offset, len: *len }
            }
            Expr::Verdict(verdict) => Action::Verdict(verdict.clone()),
            Expr::Nat { kind, ipv6, address, port, flags } => Action::Nat(Box::new(Nat {
                kind: match kind {
                    NatKind::Snat => Translates::Source,
                    NatKind::Dnat => Translates::Destination,
                },
                ipv6: Some(*ipv6),
                addresses: pair(self, *address),
                ports: pair(self, *port),
                base: None,
                flags: *flags,
            })),
            Expr::Redirect { port, flags } => {
                Action::Redirect { ports: pair(self, *port), flags: *flags }
            }
            Expr::Masquerade { .. } => Action::Masquerade,
            Expr::Tproxy { address, port } => Action::Tproxy {
                address: address.map(|reg| self.read(reg)),
                port: port.map(|reg| self.read(reg)),
                drops: false,
            },
            Expr::Reject(how) => Action::Reject(*how),
            Expr::Notrack => Action::Notrack,
            Expr::Target(target) => targets::lower(self, target),
            // Everything else loads or tests.
            _ => Action::Nothing(None),
        }
    }

    fn test(&mut self, test: Test) {
        self.ops.push(Op::Test(test));
    }

    fn act(&mut self, action: Action) {
        match &action {
            Action::SetMeta { key: MetaKey::Mark, .. } | Action::CopyMark { restore: true } => {
                self.changes(&Field::Meta(MetaKey::Mark));
            }
            Action::SetCt { key: CtKey::Mark, .. } | Action::CopyMark { restore: false } => {
                self.changes(&Field::Ct { key: CtKey::Mark, reply: None });
            }
            _ => {}
        }
        self.ops.push(Op::Do(action));
    }

    /// A field is about to change: registers have what it was.
    fn changes(&mut self, field: &Field) {
        let (ops, slots) = (&mut self.ops, &mut self.slots);
        self.registers.keep(field, |term| {
            let slot = *slots;
            *slots = slots.saturating_add(1);
            ops.push(Op::Keep { slot, term: term.clone() });
            Term::Kept { slot, was: Box::new(term) }
        });
    }

    fn slot(&mut self) -> ValueSlot {
        self.slots = self.slots.saturating_add(1);
        self.slots - 1
    }

    fn load(&mut self, dreg: Reg, field: Field) {
        let len = field.len();
        self.registers.write(dreg, Term::Field(field), len);
    }

    fn read(&mut self, sreg: Reg) -> Term {
        self.registers.read(sreg)
    }

    fn key(&mut self, sreg: Reg) -> SetKey {
        self.registers.key(sreg)
    }

    fn draw(&mut self, dreg: Reg, modulus: u32, offset: u32, how: Draw) {
        let slot = self.slot();
        self.ops.push(Op::Draw { slot, modulus, offset, how });
        self.registers.write(dreg, Term::Drawn(slot), 4);
    }

    fn find(&mut self, set: &Arc<str>, sreg: Reg, dreg: Option<Reg>) {
        let key = self.key(sreg);
        let slot = dreg.is_some().then(|| self.slot());
        if let Some((dreg, slot)) = dreg.zip(slot) {
            let find = Arc::new((Arc::clone(set), key.clone()));
            self.registers.write_data(dreg, Term::Data { slot, at: 0, find });
        }
        self.ops.push(Op::Find { set: Arc::clone(set), key, slot });
    }

    fn compute(&mut self, sreg: Reg, dreg: Reg, len: u32, how: Compute) {
        let of = Box::new(self.registers.peek(sreg));
        self.registers.overwrite(dreg, Term::Computed { of, how, len }, len);
    }

    /// What some bytes of a packet are.
    fn header(&self, base: PayloadBase, offset: u32, len: u32) -> Field {
        let ipv6 = match self.family {
            Family::Ip => false,
            Family::Ip6 => true,
            // Without a test of the version, the place itself tells most often.
            _ => self.ipv6.unwrap_or(matches!(offset, 8 | 24)),
        };
        let short = u8::try_from(len).unwrap_or(u8::MAX);
        match (base, offset, len, ipv6) {
            (PayloadBase::Network, 12, 1..=4, false) | (PayloadBase::Network, 8, 1..=16, true) => {
                Field::Saddr { ipv6, len: short }
            }
            (PayloadBase::Network, 16, 1..=4, false) | (PayloadBase::Network, 24, 1..=16, true) => {
                Field::Daddr { ipv6, len: short }
            }
            (PayloadBase::Network, 9, 1, false) | (PayloadBase::Network, 6, 1, true) => {
                Field::Protocol { ipv6 }
            }
            (PayloadBase::Transport, 0, 2, _) => Field::Sport,
            (PayloadBase::Transport, 2, 2, _) => Field::Dport,
            _ => Field::Header { base, offset, len },
        }
    }
}

impl Field {
    /// How many bytes it has in a register.
    pub(super) fn len(&self) -> u32 {
        match self {
            Self::Saddr { len, .. } | Self::Daddr { len, .. } => u32::from(*len),
            Self::Protocol { .. } => 1,
            Self::Sport | Self::Dport => 2,
            Self::Header { len, .. } | Self::Other { len, .. } => *len,
            Self::Meta(key) => match key {
                MetaKey::Iifname | MetaKey::Oifname => 16,
                MetaKey::Nfproto | MetaKey::L4proto | MetaKey::Pkttype => 1,
                MetaKey::Protocol => 2,
                _ => 4,
            },
            Self::Ct { key, .. } => match key {
                CtKey::Direction | CtKey::Protocol => 1,
                CtKey::ProtoSrc | CtKey::ProtoDst => 2,
                CtKey::Src | CtKey::Dst => 16,
                _ => 4,
            },
            Self::Fib { result: FibResult::Oifname, present: false, .. } => 16,
            Self::Fib { .. } => 4,
        }
    }
}

impl Term {
    /// Whether it is made of a field.
    pub(super) fn has(&self, field: &dyn Fn(&Field) -> bool) -> bool {
        match self {
            Self::Field(one) => field(one),
            Self::Computed { of, .. } | Self::Part { of, .. } => of.has(field),
            Self::Constant(_)
            | Self::Drawn(_)
            | Self::Data { .. }
            | Self::Kept { .. }
            | Self::Unknown => false,
        }
    }
}
