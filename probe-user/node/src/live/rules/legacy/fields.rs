//! An entry as a rule: the program that iptables-nft would write for it.

use super::entry::{Extension, XtEntry};
use super::index::ChainIndex;
use crate::live::rules::xt::{self, MatchInfo};
use whereis_port_model::{BitOp, Bytes, CmpOp, Expr, MetaKey, PayloadBase, Reg, Rule, RuleVerdict};

/// What is inverted (`IPT_INV_*`, `IP6T_INV_*`).
const IN: u8 = 1;
const OUT: u8 = 2;
const SOURCE: u8 = 8;
const DESTINATION: u8 = 0x10;
const FRAGMENT: u8 = 0x20;
const PROTO: u8 = 0x40;
/// Flags of an entry: `IPT_F_FRAG`, and `IP6T_F_PROTO`.
const TESTS_FRAGMENT: u8 = 1;
const TESTS_PROTO: u8 = 1;
const NAME: usize = 16;
/// Every test loads what it tests into this one.
const REG: Reg = Reg(0);

/// The rule that an entry is.
pub(super) fn rule(number: u64, entry: &XtEntry<'_>, index: &ChainIndex, ipv6: bool) -> Rule {
    let mut exprs = Vec::new();
    addresses(entry, &mut exprs);
    interfaces(entry, &mut exprs);
    proto(entry, ipv6, &mut exprs);
    if !ipv6 && entry.u8(entry.layout.flags) & TESTS_FRAGMENT != 0 {
        fragment(entry, &mut exprs);
    }
    let mut comment = None;
    for extension in entry.matches() {
        let Some(Extension { name, revision, data }) = extension else {
            exprs.push(Expr::Opaque("match of an odd size".to_owned()));
            continue;
        };
        match xt::match_of(&String::from_utf8_lossy(name), revision, ipv6, data) {
            MatchInfo::Match(test) => exprs.push(Expr::Match(test.into())),
            // Of several the last one, as of nf_tables: the first is often a number.
            MatchInfo::Comment(text) => comment = Some(text),
        }
    }
    exprs.extend(target(entry, index, ipv6));
    Rule { handle: number, comment, exprs, packets: entry.packets() }
}

/// What stands for a rule that can't be read, and for all behind it.
pub(super) fn damaged(number: u64) -> Rule {
    let exprs = vec![Expr::Opaque("entry of an odd size".to_owned())];
    Rule { handle: number, comment: None, exprs, packets: None }
}

fn target(entry: &XtEntry<'_>, index: &ChainIndex, ipv6: bool) -> Option<Expr> {
    let Some(target) = entry.target() else {
        return Some(Expr::Opaque("target of an odd size".to_owned()));
    };
    if target.name.is_empty() {
        return match index.verdict(entry) {
            Some(RuleVerdict::Continue) => None,
            Some(verdict) => Some(Expr::Verdict(verdict)),
            None => Some(Expr::Opaque("verdict that makes no sense".to_owned())),
        };
    }
    let name = String::from_utf8_lossy(target.name);
    Some(Expr::Target(xt::target_of(&name, target.revision, ipv6, target.data).into()))
}

fn op(entry: &XtEntry<'_>, inverted: u8) -> CmpOp {
    if entry.u8(entry.layout.inverted) & inverted != 0 { CmpOp::Neq } else { CmpOp::Eq }
}

fn addresses(entry: &XtEntry<'_>, exprs: &mut Vec<Expr>) {
    let length = entry.layout.address;
    for (side, inverted) in [(0, SOURCE), (1, DESTINATION)] {
        let value = entry.slice(side * length, length);
        let mask = entry.slice((side + 2) * length, length);
        let offset = entry.layout.header + u32_of(side * length);
        masked(value, mask, op(entry, inverted), exprs, |len| Expr::Payload {
            base: PayloadBase::Network,
            offset,
            len,
            dreg: REG,
        });
    }
}

fn interfaces(entry: &XtEntry<'_>, exprs: &mut Vec<Expr>) {
    let tests = [(0, IN, MetaKey::Iifname), (1, OUT, MetaKey::Oifname)];
    for (side, inverted, key) in tests {
        let at = entry.layout.interfaces + side * NAME;
        let (name, mask) = (entry.slice(at, NAME), entry.slice(at + 2 * NAME, NAME));
        // What the mask leaves out does not count, whatever it is.
        let name: Vec<u8> = name.iter().zip(mask).map(|(name, mask)| name & mask).collect();
        masked(&name, mask, op(entry, inverted), exprs, |_| Expr::Meta { key, dreg: REG });
    }
}

/// A value under a mask. One that covers whole bytes from the first one on makes
/// the value shorter; another one is a computation.
fn masked(
    value: &[u8],
    mask: &[u8],
    op: CmpOp,
    exprs: &mut Vec<Expr>,
    load: impl FnOnce(u32) -> Expr,
) {
    let covered = mask.iter().take_while(|byte| **byte == 0xff).count();
    let is_empty = |bytes: &[u8]| bytes.iter().skip(covered).all(|byte| *byte == 0);
    let is_prefix = is_empty(mask) && is_empty(value);
    if is_prefix && covered == 0 && op == CmpOp::Eq {
        return;
    }
    if is_prefix && covered > 0 {
        let value = value.get(..covered).unwrap_or(value);
        exprs.push(load(u32_of(covered)));
        exprs.push(Expr::Cmp { sreg: REG, op, value: Bytes::from(value) });
    } else {
        let len = u32_of(value.len());
        exprs.push(load(len));
        exprs.push(bitwise(mask));
        exprs.push(Expr::Cmp { sreg: REG, op, value: Bytes::from(value) });
    }
}

fn bitwise(mask: &[u8]) -> Expr {
    let xor = Bytes::from(vec![0; mask.len()]);
    let op = BitOp::MaskXor { mask: Bytes::from(mask).into(), xor: xor.into() };
    Expr::Bitwise { sreg: REG, dreg: REG, len: u32_of(mask.len()), op }
}

fn proto(entry: &XtEntry<'_>, ipv6: bool, exprs: &mut Vec<Expr>) {
    let proto = entry.u16(entry.layout.proto);
    let is_tested = !ipv6 || entry.u8(entry.layout.flags) & TESTS_PROTO != 0;
    if proto == 0 || !is_tested {
        return;
    }
    let Ok(number) = u8::try_from(proto) else {
        return exprs.push(Expr::Opaque(format!("protocol {proto}")));
    };
    exprs.push(Expr::Meta { key: MetaKey::L4proto, dreg: REG });
    let value = Bytes::from(vec![number]);
    exprs.push(Expr::Cmp { sreg: REG, op: op(entry, PROTO), value });
}

/// Whether it is a fragment other than the first.
fn fragment(entry: &XtEntry<'_>, exprs: &mut Vec<Expr>) {
    exprs.push(Expr::Payload { base: PayloadBase::Network, offset: 6, len: 2, dreg: REG });
    exprs.push(bitwise(&[0x1f, 0xff]));
    let op = if op(entry, FRAGMENT) == CmpOp::Eq { CmpOp::Neq } else { CmpOp::Eq };
    exprs.push(Expr::Cmp { sreg: REG, op, value: Bytes::from(vec![0, 0]) });
}

fn u32_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
