//! Targets of iptables as actions.

use super::{Action, Compute, Field, Lowering, Nat, Op, Term, Translates};
use crate::model::{BitOp, Bytes, CtKey, MarkOp, MetaKey, NatRange, RuleVerdict, XtTarget};

/// `NF_NAT_RANGE_NETMAP`.
const NETMAP: u32 = 0x40;

pub(super) fn lower(lowering: &mut Lowering, target: &XtTarget) -> Action {
    match target {
        XtTarget::Dnat(to) => nat(Translates::Destination, to, 0),
        XtTarget::Snat(to) => nat(Translates::Source, to, 0),
        XtTarget::Netmap(to) => nat(Translates::ByHook, to, NETMAP),
        XtTarget::Redirect(to) => Action::Redirect { ports: ports(to), flags: to.flags },
        XtTarget::Masquerade(_) => Action::Masquerade,
        XtTarget::Mark(op) => set_mark(*op),
        XtTarget::Connmark(op) => Action::SetCt {
            key: CtKey::Mark,
            to: marked(Field::Ct { key: CtKey::Mark, reply: None }, *op),
        },
        XtTarget::ConnmarkCopy { restore } => Action::CopyMark { restore: *restore },
        XtTarget::Reject(how) => Action::Reject(*how),
        XtTarget::Tproxy { address, port, mark } => {
            // Terminal, unlike that of nf_tables: what follows is not run.
            lowering.ops.push(Op::Do(Action::Tproxy {
                address: address.map(|address| Term::Constant(Bytes::from(address))),
                port: port.map(port_term),
                drops: true,
            }));
            lowering.act(set_mark(*mark));
            Action::Settle
        }
        XtTarget::Notrack => Action::Notrack,
        XtTarget::Zone(zone) => Action::SetCt {
            key: CtKey::ZONE,
            to: Term::Constant(Bytes::from(zone.to_ne_bytes().as_slice())),
        },
        XtTarget::Queue => Action::Verdict(RuleVerdict::Queue),
        XtTarget::NoEffect(name) => Action::Nothing(Some(name.as_str().into())),
        XtTarget::Unknown { name, revision: _ } => Action::Unknown(name.as_str().into()),
    }
}

fn set_mark(op: MarkOp) -> Action {
    Action::SetMeta { key: MetaKey::Mark, to: marked(Field::Meta(MetaKey::Mark), op) }
}

/// `(old & !mask) ^ mark`.
fn marked(field: Field, MarkOp { mark, mask }: MarkOp) -> Term {
    let bytes = |word: u32| Bytes::from(word.to_ne_bytes().as_slice());
    if mask == u32::MAX {
        return Term::Constant(bytes(mark));
    }
    let (mask, xor) = (Box::new(bytes(!mask)), Box::new(bytes(mark)));
    let how = Compute::Bits(BitOp::MaskXor { mask, xor });
    Term::Computed { of: Box::new(Term::Field(field)), how, len: 4 }
}

fn nat(kind: Translates, to: &NatRange, more: u32) -> Action {
    let addresses = to.addresses.map(|(first, last)| {
        (Term::Constant(Bytes::from(first)), Term::Constant(Bytes::from(last)))
    });
    let flags = to.flags | more;
    Action::Nat(Box::new(Nat {
        kind,
        ipv6: None,
        addresses,
        ports: ports(to),
        base: to.base,
        flags,
    }))
}

fn ports(to: &NatRange) -> Option<(Term, Term)> {
    to.ports.map(|(first, last)| (port_term(first), port_term(last)))
}

/// A port as registers have it.
fn port_term(port: u16) -> Term {
    Term::Constant(Bytes::from(port.to_be_bytes().as_slice()))
}
