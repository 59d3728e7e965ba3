//! From a program over registers back to conditions and actions.

use std::net::SocketAddr;

use super::values::{self, Kind};
use super::xt;
use crate::model::{
    Base, BitOp, Bytes, ChainId, CmpOp, CtKey, Expr, Family, FibResult, MetaKey, NatKind, Reg,
    Rejection, Rule,
};

/// What a register holds.
#[derive(Debug, Clone)]
struct Loaded {
    text: String,
    kind: Kind,
    bytes: u32,
    /// Bits that were cut out of it.
    mask: Option<Bytes>,
    /// A constant, which is written as its use needs.
    value: Option<Bytes>,
    /// Whether something looked at it: it is no part of a later key.
    used: bool,
}

/// A rule in words.
pub(super) struct Program {
    pub(super) conditions: Vec<String>,
    pub(super) actions: Vec<String>,
    registers: [Option<Loaded>; 16],
    family: Family,
    ipv6: Option<bool>,
    proto: Option<String>,
}

impl Program {
    pub(super) fn of(chain: &ChainId, rule: &Rule) -> Self {
        let mut program = Self {
            conditions: Vec::new(),
            actions: Vec::new(),
            registers: Default::default(),
            family: chain.table.family,
            ipv6: None,
            proto: None,
        };
        for expr in &rule.exprs {
            program.step(expr);
        }
        program
    }

    fn step(&mut self, expr: &Expr) {
        match expr {
            Expr::Meta { key, dreg } => {
                let (text, kind, bytes) = meta(key);
                self.load(*dreg, text, kind, bytes);
            }
            Expr::Payload { base, offset, len, dreg } => self.payload(*base, *offset, *len, *dreg),
            Expr::Ct { key, reply, dreg } => {
                let (text, kind, bytes) = ct(*key, *reply);
                self.load(*dreg, text, kind, bytes);
            }
            Expr::Fib { dreg, result, saddr, iif, oif, mark, present } => {
                let mut text = format!("fib {}", if *saddr { "saddr" } else { "daddr" });
                for (is, word) in [(*mark, " . mark"), (*iif, " . iif"), (*oif, " . oif")] {
                    text.push_str(if is { word } else { "" });
                }
                let (what, kind) = match result {
                    _ if *present => (" exists", Kind::Other),
                    FibResult::Oif => (" oif", Kind::Number),
                    FibResult::Oifname => (" oifname", Kind::Interface),
                    FibResult::AddrType => (" type", Kind::AddressType),
                };
                self.load(*dreg, text + what, kind, 4);
            }
            Expr::Numgen { dreg, modulus, offset, random } => {
                let how = if *random { "random" } else { "inc" };
                let text = format!("numgen {how} mod {modulus}{}", plus(*offset));
                self.load(*dreg, text, Kind::Number, 4);
            }
            Expr::Hash { dreg, modulus, offset, of } => {
                let of = of.map_or_else(
                    || "symhash".to_owned(),
                    |(reg, _)| format!("jhash {}", self.key(reg)),
                );
                let text = format!("{of} mod {modulus}{}", plus(*offset));
                self.load(*dreg, text, Kind::Number, 4);
            }
            Expr::Load { dreg, len, what } => self.load(*dreg, what.clone(), Kind::Other, *len),
            Expr::Immediate { dreg, value } => {
                let bytes = u32::try_from(value.0.len()).unwrap_or(16);
                self.load(*dreg, String::new(), Kind::Other, bytes);
                if let Some(loaded) = self.at(*dreg) {
                    loaded.value = Some(value.clone());
                }
            }
            Expr::Bitwise { sreg, dreg, len: _, op } => self.bitwise(*sreg, *dreg, op),
            Expr::Byteorder { sreg, dreg, .. } => self.copy(*sreg, *dreg),
            Expr::Cmp { sreg, op, value } => self.compare(*sreg, *op, value),
            Expr::Range { sreg, invert, from, to } => {
                let Some(loaded) = self.take(*sreg) else { return self.unknown("range") };
                let not = if *invert { "!= " } else { "" };
                let (from, to) =
                    (values::value(loaded.kind, &from.0), values::value(loaded.kind, &to.0));
                self.condition(format!("{} {not}{from}-{to}", loaded.text));
            }
            Expr::Lookup { set, sreg, invert } => {
                let not = if *invert { "!= " } else { "" };
                let key = self.key(*sreg);
                self.condition(format!("{key} {not}{}", named(set)));
            }
            Expr::Map { set, sreg, dreg: None } => {
                let key = self.key(*sreg);
                self.condition(format!("{key} vmap {}", named(set)));
            }
            Expr::Map { set, sreg, dreg: Some(dreg) } => {
                let text = format!("{} map {}", self.key(*sreg), named(set));
                self.load(*dreg, text, Kind::Other, 4);
            }
            _ => self.act(expr),
        }
    }

    /// Expressions that do something, and those that test on their own.
    fn act(&mut self, expr: &Expr) {
        match expr {
            Expr::SetMeta { key, sreg } => {
                let text = self.assigned(*sreg, &meta(key).0, meta(key).1);
                self.actions.push(text);
            }
            Expr::SetCt { key, sreg } => {
                let (name, kind, _) = ct(*key, None);
                let text = self.assigned(*sreg, &name, kind);
                self.actions.push(text);
            }
            Expr::SetPayload { base, offset, len, .. } => {
                let header = header(*base);
                self.actions.push(format!("change {len} bytes at {header}+{offset}"));
            }
            Expr::Verdict(verdict) => self.actions.push(values::verdict(verdict)),
            Expr::Nat { kind, ipv6, address, port, flags: _ } => {
                let word = if *kind == NatKind::Dnat { "dnat" } else { "snat" };
                let to = self.target(*ipv6, *address, *port);
                self.actions.push(format!("{word} to {to}"));
            }
            Expr::Redirect { port, .. } => {
                let to = port.map(|ports| self.ports(ports));
                self.actions.push(to.map_or("redirect".into(), |to| format!("redirect to :{to}")));
            }
            Expr::Masquerade { .. } => self.actions.push("masquerade".to_owned()),
            Expr::Tproxy { address, port } => {
                let address = address.map(|reg| (reg, reg));
                let port = port.map(|reg| (reg, reg));
                let to = self.target(self.family == Family::Ip6, address, port);
                self.actions.push(format!("tproxy to {to}"));
            }
            Expr::Reject(rejection) => self.actions.push(reject(*rejection)),
            Expr::Notrack => self.actions.push("notrack".to_owned()),
            Expr::Match(one) => {
                if let Some(text) = xt::condition(one, self.proto.as_deref()) {
                    self.condition(text);
                }
            }
            Expr::Target(one) => self.actions.push(xt::action(one)),
            Expr::NoEffect(_) => {}
            Expr::Opaque(what) => self.condition(format!("({what})")),
            // Everything else loads or compares.
            _ => {}
        }
    }

    fn payload(&mut self, base: Base, offset: u32, len: u32, dreg: Reg) {
        let ipv6 = self.ipv6.unwrap_or(match self.family {
            Family::Ip => false,
            Family::Ip6 => true,
            _ => matches!(offset, 8 | 24),
        });
        let ip = if ipv6 { "ip6" } else { "ip" };
        let address = Kind::Address { ipv6 };
        let th = || self.proto.clone().unwrap_or_else(|| "th".to_owned());
        let (text, kind) = match (base, offset, len, ipv6) {
            (Base::Network, 12, ..=4, false) | (Base::Network, 8, ..=16, true) => {
                (format!("{ip} saddr"), address)
            }
            (Base::Network, 16, ..=4, false) | (Base::Network, 24, ..=16, true) => {
                (format!("{ip} daddr"), address)
            }
            (Base::Network, 9, 1, false) => ("ip protocol".to_owned(), Kind::Protocol),
            (Base::Network, 6, 1, true) => ("ip6 nexthdr".to_owned(), Kind::Protocol),
            (Base::Transport, 0, 2, _) => (format!("{} sport", th()), Kind::Port),
            (Base::Transport, 2, 2, _) => (format!("{} dport", th()), Kind::Port),
            (Base::Transport, 13, 1, _) => ("tcp flags".to_owned(), Kind::Other),
            _ => (format!("@{},{},{}", header(base), offset * 8, len * 8), Kind::Other),
        };
        self.load(dreg, text, kind, len);
    }

    fn bitwise(&mut self, sreg: Reg, dreg: Reg, op: &BitOp) {
        self.copy(sreg, dreg);
        let Some(loaded) = self.at(dreg) else { return };
        match op {
            BitOp::MaskXor { mask, xor } if xor.0.iter().all(|b| *b == 0) => {
                loaded.mask = Some((**mask).clone());
            }
            BitOp::MaskXor { mask, xor } => {
                let (mask, xor) = (values::number(&mask.0), values::number(&xor.0));
                let sets = mask & xor == 0 && mask | xor == u32::MAX;
                let more = match (sets, mask) {
                    (true, _) => format!(" | {xor:#x}"),
                    (_, u32::MAX) => format!(" ^ {xor:#x}"),
                    _ => format!(" & {mask:#x} ^ {xor:#x}"),
                };
                loaded.text.push_str(&more);
            }
            BitOp::Shl(bits) => loaded.text.push_str(&format!(" << {bits}")),
            BitOp::Shr(bits) => loaded.text.push_str(&format!(" >> {bits}")),
            BitOp::Other => loaded.text.push_str(" (computed)"),
        }
    }

    fn compare(&mut self, sreg: Reg, op: CmpOp, value: &Bytes) {
        let Some(loaded) = self.take(sreg) else { return self.unknown("compare") };
        let is_zero = value.0.iter().all(|b| *b == 0);
        let sign = match op {
            CmpOp::Eq => "",
            CmpOp::Neq => "!= ",
            CmpOp::Lt => "< ",
            CmpOp::Lte => "<= ",
            CmpOp::Gt => "> ",
            CmpOp::Gte => ">= ",
        };
        let name = &loaded.text;
        let shown = values::value(loaded.kind, &value.0);
        let text = match (loaded.kind, &loaded.mask, op) {
            (Kind::State, Some(mask), CmpOp::Neq | CmpOp::Eq) if is_zero => {
                let not = if op == CmpOp::Eq { "!= " } else { "" };
                format!("{name} {not}{}", values::states(values::number(&mask.0)))
            }
            (Kind::Address { .. }, Some(mask), _) if values::prefix_of(&mask.0).is_some() => {
                let prefix = values::prefix_of(&mask.0).unwrap_or_default();
                format!("{name} {sign}{shown}/{prefix}")
            }
            (_, Some(mask), _) => {
                let sign = if sign.is_empty() { "== " } else { sign };
                format!("{name} & {} {sign}{shown}", values::value(loaded.kind, &mask.0))
            }
            // A range is two comparisons of one register.
            (_, None, CmpOp::Lte) if self.begins_range(name) => {
                let begin = self.conditions.pop().unwrap_or_default();
                format!("{}-{shown}", begin.replacen(">= ", "", 1))
            }
            (_, None, _) => format!("{name} {sign}{shown}"),
        };
        match (loaded.kind, op) {
            (Kind::Protocol, CmpOp::Eq) => self.proto = Some(shown),
            (Kind::Family, CmpOp::Eq) => {
                // Only the guard of what follows in a table of both versions.
                self.ipv6 = Some(value.0.first() == Some(&10));
                return;
            }
            _ => {}
        }
        self.condition(text);
    }

    fn begins_range(&self, name: &str) -> bool {
        let begin = format!("{name} >= ");
        self.conditions.last().is_some_and(|last| last.starts_with(&begin))
    }

    /// Adds a condition. One that names the protocol says again what was tested.
    fn condition(&mut self, text: String) {
        if let Some(proto) = &self.proto {
            let names_it = text.strip_prefix(proto.as_str()).is_some_and(|t| t.starts_with(' '));
            let said = [format!("meta l4proto {proto}"), format!("ip protocol {proto}")];
            if names_it {
                self.conditions.retain(|c| !said.contains(c));
            }
        }
        self.conditions.push(text);
    }

    fn unknown(&mut self, what: &str) {
        self.conditions.push(format!("({what})"));
    }

    fn load(&mut self, dreg: Reg, text: String, kind: Kind, bytes: u32) {
        for register in &mut self.registers {
            if register.as_ref().is_some_and(|loaded| loaded.used) {
                *register = None;
            }
        }
        if let Some(register) = self.registers.get_mut(usize::from(dreg.0)) {
            *register = Some(Loaded { text, kind, bytes, mask: None, value: None, used: false });
        }
    }

    fn copy(&mut self, sreg: Reg, dreg: Reg) {
        let loaded = self.at(sreg).cloned();
        if let Some(register) = self.registers.get_mut(usize::from(dreg.0)) {
            *register = loaded;
        }
    }

    fn at(&mut self, reg: Reg) -> Option<&mut Loaded> {
        self.registers.get_mut(usize::from(reg.0))?.as_mut()
    }

    /// What a register holds, which is looked at.
    fn take(&mut self, reg: Reg) -> Option<Loaded> {
        let loaded = self.at(reg)?;
        loaded.used = true;
        Some(loaded.clone())
    }

    /// The key that begins at a register: `ip daddr . meta l4proto . th dport`.
    fn key(&mut self, reg: Reg) -> String {
        let mut parts = Vec::new();
        let mut at = u32::from(reg.0);
        while let Some(loaded) = u8::try_from(at).ok().and_then(|at| self.take(Reg(at))) {
            parts.push(match &loaded.mask {
                Some(mask) => format!("{} & {}", loaded.text, values::value(loaded.kind, &mask.0)),
                None => loaded.text,
            });
            at += loaded.bytes.div_ceil(4).max(1);
        }
        if parts.is_empty() { "(unknown)".to_owned() } else { parts.join(" . ") }
    }

    fn assigned(&mut self, sreg: Reg, name: &str, kind: Kind) -> String {
        let short = name.strip_prefix("meta ").unwrap_or(name);
        let Some(loaded) = self.take(sreg) else { return format!("{short} set") };
        let text = match (&loaded.value, &loaded.mask) {
            (Some(value), _) => return format!("{short} = {}", values::value(kind, &value.0)),
            (None, Some(mask)) => {
                format!("{} & {}", loaded.text, values::value(loaded.kind, &mask.0))
            }
            (None, None) => loaded.text,
        };
        match text.strip_prefix(name).filter(|rest| rest.starts_with(' ')) {
            Some(rest) => format!("{short}{rest}"),
            None => format!("{short} = {text}"),
        }
    }

    fn target(
        &mut self,
        ipv6: bool,
        address: Option<(Reg, Reg)>,
        port: Option<(Reg, Reg)>,
    ) -> String {
        let kind = Kind::Address { ipv6 };
        let Some((first, last)) = address else {
            return port.map_or_else(String::new, |ports| format!(":{}", self.ports(ports)));
        };
        let Some(loaded) = self.take(first) else { return "(unknown)".to_owned() };
        let Some(value) = loaded.value else {
            // A map gives the address, and the port with it.
            let port = port.filter(|(first, _)| self.at(*first).is_some());
            let port = port.map(|ports| format!(" port {}", self.ports(ports)));
            return format!("{}{}", loaded.text, port.unwrap_or_default());
        };
        let end = self.take(last).and_then(|l| l.value).filter(|end| *end != value);
        let ports = port.map(|ports| self.ports(ports));
        let one = super::target(&value).map(|(address, _)| address);
        match (one, end, ports) {
            (Some(address), None, Some(port)) => match port.parse() {
                Ok(port) => SocketAddr::new(address, port).to_string(),
                Err(_) => format!("{address}:{port}"),
            },
            (_, end, port) => {
                let mut text = values::value(kind, &value.0);
                if let Some(end) = end {
                    text.push_str(&format!("-{}", values::value(kind, &end.0)));
                }
                port.map_or(text.clone(), |port| format!("{text}:{port}"))
            }
        }
    }

    fn ports(&mut self, (first, last): (Reg, Reg)) -> String {
        let mut text = |reg| match self.take(reg) {
            Some(Loaded { value: Some(value), .. }) => {
                // A register of four bytes holds a port in its first two.
                let port = value.0.get(..2).unwrap_or(&value.0);
                values::value(Kind::Port, port)
            }
            Some(loaded) => loaded.text,
            None => "(unknown)".to_owned(),
        };
        let from = text(first);
        if first == last { from } else { format!("{from}-{}", text(last)) }
    }
}

fn plus(offset: u32) -> String {
    if offset == 0 { String::new() } else { format!(" offset {offset}") }
}

fn header(base: Base) -> &'static str {
    match base {
        Base::Link => "ll",
        Base::Network => "nh",
        Base::Transport => "th",
        Base::Inner => "ih",
    }
}

/// The name of a set. Anonymous ones are known by their elements only.
fn named(set: &str) -> String {
    if set.starts_with("__") { "{ … }".to_owned() } else { format!("@{set}") }
}

pub(super) fn reject(rejection: Rejection) -> String {
    match rejection {
        Rejection::Reset => "reject with a TCP reset",
        Rejection::Port => "reject",
        Rejection::Other => "reject as unreachable",
    }
    .to_owned()
}

fn meta(key: &MetaKey) -> (String, Kind, u32) {
    let (text, kind, bytes) = match key {
        MetaKey::Mark => ("meta mark", Kind::Mark, 4),
        MetaKey::Iif => ("iif", Kind::Number, 4),
        MetaKey::Oif => ("oif", Kind::Number, 4),
        MetaKey::Iifname => ("iifname", Kind::Interface, 16),
        MetaKey::Oifname => ("oifname", Kind::Interface, 16),
        MetaKey::Nfproto => ("meta nfproto", Kind::Family, 1),
        MetaKey::L4proto => ("meta l4proto", Kind::Protocol, 1),
        MetaKey::Skuid => ("meta skuid", Kind::Number, 4),
        MetaKey::Skgid => ("meta skgid", Kind::Number, 4),
        MetaKey::Prandom => ("meta random", Kind::Number, 4),
        MetaKey::Protocol => ("meta protocol", Kind::Other, 2),
        MetaKey::Pkttype => ("meta pkttype", Kind::Other, 1),
        MetaKey::Other(number) => return (format!("meta key {number}"), Kind::Other, 4),
    };
    (text.to_owned(), kind, bytes)
}

fn ct(key: CtKey, reply: Option<bool>) -> (String, Kind, u32) {
    let (text, kind, bytes) = match key {
        CtKey::State => ("state", Kind::State, 4),
        CtKey::Direction => ("direction", Kind::Other, 1),
        CtKey::Status => ("status", Kind::Mark, 4),
        CtKey::Mark => ("mark", Kind::Mark, 4),
        CtKey::Src => ("saddr", Kind::Other, 16),
        CtKey::Dst => ("daddr", Kind::Other, 16),
        CtKey::Protocol => ("protocol", Kind::Protocol, 1),
        CtKey::ProtoSrc => ("proto-src", Kind::Port, 2),
        CtKey::ProtoDst => ("proto-dst", Kind::Port, 2),
        CtKey::Other(number) => return (format!("ct key {number}"), Kind::Other, 4),
    };
    let direction = match reply {
        Some(true) => "reply ",
        Some(false) => "original ",
        None => "",
    };
    (format!("ct {direction}{text}"), kind, bytes)
}
