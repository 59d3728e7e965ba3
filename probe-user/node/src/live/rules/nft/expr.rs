//! Expressions of rules, out of their netlink attributes.
//!
//! Attribute numbers: `linux/netfilter/nf_tables.h`. What is not understood becomes
//! [`Expr::Opaque`] or [`Expr::Load`], never nothing.

use super::super::xt::{self, MatchInfo};
use super::data::{reg, regs, text, value, verdict};
use super::names::NameInterner;
use super::wire::{Attributes, Fields};
use whereis_port_model::{
    BitOp, CmpOp, CtKey, Expr, Family, FibResult, MetaKey, NatKind, PayloadBase, Rejection,
    RuleVerdict,
};

/// `NFPROTO_IPV6`.
const IPV6: u32 = 10;
/// What an expression loads whose length is not known: as much as any register has.
const LONGEST: u32 = 16;

/// What a rule does, as it is put together from its expressions.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) exprs: Vec<Expr>,
    pub(super) comment: Option<String>,
    pub(super) packets: Option<u64>,
}

/// `NFTA_RULE_EXPRESSIONS`.
pub(super) fn body(family: Family, list: &[u8], names: &mut NameInterner) -> Body {
    let mut body = Body { exprs: Vec::with_capacity(8), ..Body::default() };
    for (kind, expression) in Attributes(list) {
        let fields = Fields::of(expression);
        match fields.name(1) {
            Some(name) if kind == 1 => {
                let data = fields.get(2).unwrap_or_default();
                add(&mut body, family, name, data, names);
            }
            _ => body.exprs.push(opaque("a damaged expression")),
        }
    }
    body.exprs.shrink_to_fit();
    body
}

fn add(body: &mut Body, family: Family, name: &[u8], data: &[u8], names: &mut NameInterner) {
    let fields = Fields::of(data);
    let expr = match name {
        b"counter" => {
            body.packets = fields.u64(2).or(body.packets);
            return;
        }
        b"match" | b"target" => return compat(body, family, name == b"match", &fields),
        b"reject" => reject(&fields, is_ipv6(family, &body.exprs)),
        // The packet leaves for another device; nothing here sees it again.
        b"fwd" => {
            body.exprs.push(no_effect("fwd"));
            Some(Expr::Verdict(RuleVerdict::Drop))
        }
        b"meta" => meta(&fields),
        b"payload" => payload(&fields),
        b"cmp" => cmp(&fields),
        b"range" => range(&fields),
        b"bitwise" => bitwise(&fields),
        b"byteorder" => byteorder(&fields),
        b"immediate" => immediate(&fields, names),
        b"lookup" => lookup(&fields, names),
        b"nat" => nat(&fields),
        b"redir" => redirect(&fields),
        b"masq" => Some(Expr::Masquerade { flags: fields.u32(1).unwrap_or_default() }),
        b"tproxy" => tproxy(&fields),
        b"fib" => fib(&fields),
        b"ct" => ct(&fields),
        b"numgen" => numgen(&fields),
        b"hash" => hash(&fields),
        b"notrack" => Some(Expr::Notrack),
        b"queue" => Some(Expr::Verdict(RuleVerdict::Queue)),
        b"objref" => objref(&fields),
        b"dynset" => Some(dynset(&fields)),
        // Offloading is of connections that exist; a copy is another packet.
        b"log" | b"last" | b"flow_offload" | b"dup" => Some(no_effect(&text(name))),
        // It changes an option of the header if it has no register to load to.
        b"exthdr" => exthdr(&fields),
        b"socket" => load(&fields, 2, LONGEST, "socket"),
        b"rt" => load(&fields, 1, LONGEST, "rt"),
        b"osf" => load(&fields, 1, LONGEST, "osf"),
        b"xfrm" => load(&fields, 1, LONGEST, "xfrm"),
        b"tunnel" => load(&fields, 2, LONGEST, "tunnel"),
        b"inner" => inner(&fields),
        // Limit, quota, connlimit, synproxy, and all that is newer than this.
        _ => None,
    };
    body.exprs.push(expr.unwrap_or_else(|| opaque(&text(name))));
}

fn opaque(what: &str) -> Expr {
    Expr::Opaque(what.to_owned())
}

fn no_effect(what: &str) -> Expr {
    Expr::NoEffect(what.to_owned())
}

/// Whether the addresses in a rule are of IPv6: of the table, or as an `inet` rule
/// asked before.
fn is_ipv6(family: Family, before: &[Expr]) -> bool {
    let pairs = before.windows(2).rev();
    let asked = pairs.filter_map(|pair| match pair {
        [Expr::Meta { key: MetaKey::Nfproto, .. }, Expr::Cmp { op: CmpOp::Eq, value, .. }] => {
            value.0.first()
        }
        _ => None,
    });
    family == Family::Ip6 || asked.map(|family| u32::from(*family)).next() == Some(IPV6)
}

fn compat(body: &mut Body, family: Family, is_match: bool, fields: &Fields<'_>) {
    let name = text(fields.name(1).unwrap_or_default());
    let revision = u8::try_from(fields.u32(2).unwrap_or_default()).unwrap_or(u8::MAX);
    let info = fields.get(3).unwrap_or_default();
    let ipv6 = is_ipv6(family, &body.exprs);
    if !is_match {
        return body.exprs.push(Expr::Target(xt::target_of(&name, revision, ipv6, info).into()));
    }
    match xt::match_of(&name, revision, ipv6, info) {
        MatchInfo::Match(info) => body.exprs.push(Expr::Match(info.into())),
        MatchInfo::Comment(comment) => body.comment = Some(comment),
    }
}

fn meta(fields: &Fields<'_>) -> Option<Expr> {
    let key = match fields.u32(2)? {
        1 => MetaKey::Protocol,
        3 => MetaKey::Mark,
        4 => MetaKey::Iif,
        5 => MetaKey::Oif,
        6 => MetaKey::Iifname,
        7 => MetaKey::Oifname,
        10 => MetaKey::Skuid,
        11 => MetaKey::Skgid,
        15 => MetaKey::Nfproto,
        16 => MetaKey::L4proto,
        19 => MetaKey::Pkttype,
        24 => MetaKey::Prandom,
        other => MetaKey::Other(other),
    };
    match fields.get(1) {
        Some(_) => Some(Expr::Meta { key, dreg: reg(fields, 1)? }),
        None => Some(Expr::SetMeta { key, sreg: reg(fields, 3)? }),
    }
}

fn payload(fields: &Fields<'_>) -> Option<Expr> {
    let base = match fields.u32(2)? {
        0 => PayloadBase::Link,
        1 => PayloadBase::Network,
        2 => PayloadBase::Transport,
        3 => PayloadBase::Inner,
        // That of a tunnel (Linux 6.2), or a newer one.
        _ => return load(fields, 1, fields.u32(4)?, "payload of a tunnel"),
    };
    let (offset, len) = (fields.u32(3)?, fields.u32(4)?);
    match fields.get(1) {
        Some(_) => Some(Expr::Payload { base, offset, len, dreg: reg(fields, 1)? }),
        None => Some(Expr::SetPayload { base, offset, len, sreg: reg(fields, 5)? }),
    }
}

fn cmp(fields: &Fields<'_>) -> Option<Expr> {
    let op = match fields.u32(2)? {
        0 => CmpOp::Eq,
        1 => CmpOp::Neq,
        2 => CmpOp::Lt,
        3 => CmpOp::Lte,
        4 => CmpOp::Gt,
        5 => CmpOp::Gte,
        _ => return None,
    };
    Some(Expr::Cmp { sreg: reg(fields, 1)?, op, value: value(fields.get(3))? })
}

fn range(fields: &Fields<'_>) -> Option<Expr> {
    let invert = match fields.u32(2)? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let (from, to) = (value(fields.get(3))?.into(), value(fields.get(4))?.into());
    Some(Expr::Range { sreg: reg(fields, 1)?, invert, from, to })
}

fn bitwise(fields: &Fields<'_>) -> Option<Expr> {
    // The number of bits is in the machine's byte order: it is a register's content.
    let bits = || value(fields.get(7))?.0.first_chunk().copied().map(u32::from_ne_bytes);
    // Before Linux 5.6 there is but one operation, and no attribute says which.
    let op = match fields.u32(6).unwrap_or_default() {
        0 => {
            BitOp::MaskXor { mask: value(fields.get(4))?.into(), xor: value(fields.get(5))?.into() }
        }
        1 => BitOp::Shl(bits()?),
        2 => BitOp::Shr(bits()?),
        _ => BitOp::Other,
    };
    let (sreg, dreg) = (reg(fields, 1)?, reg(fields, 2)?);
    Some(Expr::Bitwise { sreg, dreg, len: fields.u32(3)?, op })
}

fn byteorder(fields: &Fields<'_>) -> Option<Expr> {
    let (sreg, dreg) = (reg(fields, 1)?, reg(fields, 2)?);
    Some(Expr::Byteorder { sreg, dreg, len: fields.u32(4)?, size: fields.u32(5)? })
}

fn immediate(fields: &Fields<'_>, names: &mut NameInterner) -> Option<Expr> {
    if fields.u32(1)? == 0 {
        return verdict(fields.get(2), names).map(Expr::Verdict);
    }
    Some(Expr::Immediate { dreg: reg(fields, 1)?, value: value(fields.get(2))? })
}

fn lookup(fields: &Fields<'_>, names: &mut NameInterner) -> Option<Expr> {
    let set = names.get(fields.name(1)?);
    let sreg = reg(fields, 2)?;
    match fields.u32(3) {
        Some(0) => Some(Expr::Map { set, sreg, dreg: None }),
        Some(_) => Some(Expr::Map { set, sreg, dreg: Some(reg(fields, 3)?) }),
        None => {
            Some(Expr::Lookup { set, sreg, invert: fields.u32(5).unwrap_or_default() & 1 != 0 })
        }
    }
}

fn nat(fields: &Fields<'_>) -> Option<Expr> {
    let kind = match fields.u32(1)? {
        0 => NatKind::Snat,
        1 => NatKind::Dnat,
        _ => return None,
    };
    Some(Expr::Nat {
        kind,
        ipv6: fields.u32(2)? == IPV6,
        address: regs(fields, 3, 4)?,
        port: regs(fields, 5, 6)?,
        flags: fields.u32(7).unwrap_or_default(),
    })
}

fn redirect(fields: &Fields<'_>) -> Option<Expr> {
    Some(Expr::Redirect { port: regs(fields, 1, 2)?, flags: fields.u32(3).unwrap_or_default() })
}

fn tproxy(fields: &Fields<'_>) -> Option<Expr> {
    let said = |kind| fields.get(kind).map_or(Some(None), |_| reg(fields, kind).map(Some));
    Some(Expr::Tproxy { address: said(2)?, port: said(3)? })
}

fn fib(fields: &Fields<'_>) -> Option<Expr> {
    let result = match fields.u32(2)? {
        1 => FibResult::Oif,
        2 => FibResult::Oifname,
        3 => FibResult::AddrType,
        _ => return None,
    };
    let flags = fields.u32(3)?;
    let has = |bit: u32| flags & bit != 0;
    Some(Expr::Fib {
        dreg: reg(fields, 1)?,
        result,
        saddr: has(1),
        mark: has(4),
        iif: has(8),
        oif: has(16),
        present: has(32),
    })
}

fn ct(fields: &Fields<'_>) -> Option<Expr> {
    let key = match fields.u32(2)? {
        0 => CtKey::State,
        1 => CtKey::Direction,
        2 => CtKey::Status,
        3 => CtKey::Mark,
        8 | 19 | 21 => CtKey::Src,
        9 | 20 | 22 => CtKey::Dst,
        10 => CtKey::Protocol,
        11 => CtKey::ProtoSrc,
        12 => CtKey::ProtoDst,
        other => CtKey::Other(other),
    };
    let reply = fields.get(3).and_then(|direction| direction.first()).map(|side| *side != 0);
    match fields.get(1) {
        Some(_) => Some(Expr::Ct { key, reply, dreg: reg(fields, 1)? }),
        None => Some(Expr::SetCt { key, sreg: reg(fields, 4)? }),
    }
}

fn numgen(fields: &Fields<'_>) -> Option<Expr> {
    let random = match fields.u32(3)? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let offset = fields.u32(4).unwrap_or_default();
    Some(Expr::Numgen { dreg: reg(fields, 1)?, modulus: fields.u32(2)?, offset, random })
}

fn hash(fields: &Fields<'_>) -> Option<Expr> {
    let of = match fields.u32(7).unwrap_or_default() {
        0 => Some((reg(fields, 1)?, fields.u32(3)?)),
        1 => None,
        _ => return None,
    };
    let offset = fields.u32(6).unwrap_or_default();
    Some(Expr::Hash { dreg: reg(fields, 2)?, modulus: fields.u32(4)?, offset, of })
}

fn load(fields: &Fields<'_>, dreg: usize, len: u32, what: &str) -> Option<Expr> {
    Some(Expr::Load { dreg: reg(fields, dreg)?, len, what: what.to_owned() })
}

fn exthdr(fields: &Fields<'_>) -> Option<Expr> {
    match fields.get(1) {
        Some(_) => load(fields, 1, fields.u32(4).unwrap_or(LONGEST), "exthdr"),
        None => Some(no_effect("exthdr")),
    }
}

/// An expression about the packet inside a tunnel's: what it loads is not known.
fn inner(fields: &Fields<'_>) -> Option<Expr> {
    let expression = Fields::of(fields.get(5)?);
    load(&Fields::of(expression.get(2)?), 1, LONGEST, "inner")
}

fn reject(fields: &Fields<'_>, ipv6: bool) -> Option<Expr> {
    let code = fields.get(2).and_then(|code| code.first()).copied();
    Some(Expr::Reject(match (fields.u32(1)?, code) {
        (1, _) => Rejection::Reset,
        // ICMP_PORT_UNREACH, ICMPV6_PORT_UNREACH, NFT_REJECT_ICMPX_PORT_UNREACH.
        (0, Some(3)) if !ipv6 => Rejection::Port,
        (0, Some(4)) if ipv6 => Rejection::Port,
        (2, Some(1)) => Rejection::Port,
        (0 | 2, _) => Rejection::Other,
        _ => return None,
    }))
}

/// A stateful object. Those that only count or attach something to the connection
/// do not decide; quotas, limits and numbers of connections do.
fn objref(fields: &Fields<'_>) -> Option<Expr> {
    // A map chooses the object, and the rule ends where it has none.
    if fields.get(1).is_none() {
        return Some(opaque("map of objects"));
    }
    Some(match fields.u32(1)? {
        1 => no_effect("counter"),
        2 => opaque("quota"),
        3 => no_effect("ct helper"),
        4 => opaque("limit"),
        5 => opaque("connlimit"),
        6 => no_effect("tunnel"),
        7 => no_effect("ct timeout"),
        8 => no_effect("secmark"),
        9 => no_effect("ct expectation"),
        10 => opaque("synproxy"),
        _ => return None,
    })
}

/// Adding to a set does not decide, unless a limit hangs on the element.
fn dynset(fields: &Fields<'_>) -> Expr {
    let name = |expression: &[u8]| text(Fields::of(expression).name(1).unwrap_or_default());
    let one = fields.get(7).map(name);
    let several = Attributes(fields.get(10).unwrap_or_default()).map(|(_, e)| name(e));
    let mut attached = one.into_iter().chain(several);
    if let Some(deciding) = attached.find(|name| !["counter", "last"].contains(&name.as_str())) {
        return Expr::Opaque(format!("dynset {deciding}"));
    }
    // NFT_DYNSET_F_INV: holds if it can't be added.
    if fields.u32(9).unwrap_or_default() & 1 != 0 {
        return opaque("dynset inverted");
    }
    no_effect("dynset")
}
