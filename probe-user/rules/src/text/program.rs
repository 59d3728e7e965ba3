//! What a rule does, in words: its conditions and its actions.

use std::net::SocketAddr;

use super::super::lower::{
    Action, Compute, Draw, Field, Nat, Op, SetKey, Term, Test, Translates, ValueSlot, lower,
};
use super::values::{self, ValueKind};
use super::xt;
use crate::model::{
    BitOp, Bytes, ChainId, CmpOp, CtKey, Family, FibResult, MetaKey, PayloadBase, Rejection, Rule,
    Side, XtMatch,
};

/// A test of a rule, in words.
pub(super) struct ConditionText {
    pub(super) text: String,
    /// Whether it tests the destination port.
    pub(super) tests_port: bool,
    /// Whether it says no more than the protocol.
    is_protocol: bool,
    /// What it says the lowest value of.
    from: Option<Term>,
}

/// A rule in words: what it tests, and what it does.
pub(super) struct RuleText {
    pub(super) conditions: Vec<ConditionText>,
    pub(super) actions: Vec<String>,
    /// The protocol that was tested.
    proto: Option<String>,
    /// Numbers that were drawn.
    drawn: Vec<(ValueSlot, String)>,
    /// Whether the rule is of IPv4 alone.
    ipv4: bool,
}

/// A value in words, with what decides how it is written.
struct ValueText {
    text: String,
    kind: ValueKind,
    /// Bits that were cut out of it.
    mask: Option<Bytes>,
    /// A constant, which is written as its use needs.
    value: Option<Bytes>,
}

impl ValueText {
    fn new(text: impl Into<String>, kind: ValueKind) -> Self {
        Self { text: text.into(), kind, mask: None, value: None }
    }

    fn with_mask(self) -> String {
        match &self.mask {
            Some(mask) => format!("{} & {}", self.text, values::value(self.kind, &mask.0)),
            None => self.text,
        }
    }
}

impl RuleText {
    pub(super) fn of(chain: &ChainId, rule: &Rule) -> Self {
        let ipv4 = chain.table.family == Family::Ip;
        let (conditions, actions, drawn) = (Vec::new(), Vec::new(), Vec::new());
        let mut program = Self { conditions, actions, proto: None, drawn, ipv4 };
        for op in &lower(chain.table.family, rule) {
            program.op(op);
        }
        program
    }

    /// Its conditions in one line.
    pub(super) fn conditions(&self) -> String {
        let all: Vec<&str> = self.conditions.iter().map(|one| one.text.as_str()).collect();
        all.join(" ")
    }

    fn op(&mut self, op: &Op) {
        match op {
            Op::Test(test) => self.test(test),
            Op::Draw { slot, modulus, offset, how } => {
                let plus = if *offset == 0 { String::new() } else { format!(" offset {offset}") };
                let what = match how {
                    Draw::Random => "numgen random".to_owned(),
                    Draw::InTurn => "numgen inc".to_owned(),
                    Draw::Hash(None) => "symhash".to_owned(),
                    Draw::Hash(Some(key)) => format!("jhash {}", self.key(key)),
                };
                self.drawn.push((*slot, format!("{what} mod {modulus}{plus}")));
            }
            Op::Find { set, key, slot: None } => {
                let text = format!("{} vmap {}", self.key(key), named(set));
                self.condition(text, key.has(&is_dport));
            }
            // What is done with it says what it is.
            Op::Find { slot: Some(_), .. } | Op::Needs(_) | Op::Keep { .. } => {}
            Op::Do(action) => self.act(action),
        }
    }

    fn test(&mut self, test: &Test) {
        match test {
            Test::Compare { term: Term::Unknown, .. } => self.condition("(compare)".into(), false),
            Test::Range { term: Term::Unknown, .. } => self.condition("(range)".into(), false),
            Test::Compare { term: Term::Field(field), op, value }
                if let Field::Fib { present: true, .. } = field =>
            {
                let there = (*op == CmpOp::Eq) == value.0.iter().any(|byte| *byte != 0);
                let what = if there { "exists" } else { "missing" };
                self.condition(format!("{} {what}", self.field(field).text), false);
            }
            Test::Compare { term, op, value } => self.compare(term, *op, value),
            Test::Range { term, invert, from, to } => {
                let said = self.term(term);
                let value = |bytes: &Bytes| values::value(said.kind, &bytes.0);
                let (from, to) = (value(from), value(to));
                let text = format!("{} {}{from}-{to}", said.text, not(*invert));
                self.condition(text, term.has(&is_dport));
            }
            Test::In { set, key, invert } => {
                let text = format!("{} {}{}", self.key(key), not(*invert), named(set));
                self.condition(text, key.has(&is_dport));
            }
            Test::Match(one) => {
                if let Some(text) = xt::condition(one, self.proto.as_deref()) {
                    self.condition(text, tests_port(one));
                }
            }
            Test::Opaque(what) => self.condition(format!("({what})"), false),
        }
    }

    fn act(&mut self, action: &Action) {
        let text = match action {
            Action::SetMeta { key, to } => self.assigned(to, &Field::Meta(key.clone())),
            Action::SetCt { key, to } => self.assigned(to, &Field::Ct { key: *key, reply: None }),
            Action::CopyMark { restore: true } => "mark = ct mark".to_owned(),
            Action::CopyMark { restore: false } => "ct mark = mark".to_owned(),
            Action::SetPayload { base, offset, len } => {
                format!("change {len} bytes at {}+{offset}", header(*base))
            }
            Action::Verdict(verdict) => values::verdict(verdict),
            Action::Nat(nat) => {
                let word = match nat.kind {
                    Translates::Source => "snat",
                    Translates::Destination => "dnat",
                    Translates::ByHook => "netmap",
                };
                format!("{word} to {}", self.target(nat))
            }
            Action::Redirect { ports, .. } => match ports {
                Some(ports) => format!("redirect to :{}", self.ports(ports)),
                None => "redirect".to_owned(),
            },
            Action::Masquerade => "masquerade".to_owned(),
            Action::Tproxy { address, port, .. } => self.tproxy(address.as_ref(), port.as_ref()),
            Action::Reject(rejection) => reject(*rejection),
            Action::Notrack => "notrack".to_owned(),
            Action::Nothing(Some(name)) => name.to_lowercase(),
            Action::Unknown(name) => format!("(target {name})"),
            Action::Nothing(None) | Action::Settle => return,
        };
        self.actions.push(text);
    }

    fn compare(&mut self, term: &Term, op: CmpOp, value: &Bytes) {
        let said = self.term(term);
        let is_zero = value.0.iter().all(|b| *b == 0);
        let sign = match op {
            CmpOp::Eq => "",
            CmpOp::Neq => "!= ",
            CmpOp::Lt => "< ",
            CmpOp::Lte => "<= ",
            CmpOp::Gt => "> ",
            CmpOp::Gte => ">= ",
        };
        let name = &said.text;
        let shown = values::value(said.kind, &value.0);
        let text = match (said.kind, &said.mask, op) {
            (ValueKind::State, Some(mask), CmpOp::Neq | CmpOp::Eq) if is_zero => {
                let not = not(op == CmpOp::Eq);
                format!("{name} {not}{}", values::states(values::number(&mask.0)))
            }
            (ValueKind::Address { .. }, Some(mask), _) if values::prefix_of(&mask.0).is_some() => {
                let prefix = values::prefix_of(&mask.0).unwrap_or_default();
                format!("{name} {sign}{shown}/{prefix}")
            }
            (_, Some(mask), _) => {
                let sign = if sign.is_empty() { "== " } else { sign };
                format!("{name} & {} {sign}{shown}", values::value(said.kind, &mask.0))
            }
            // A range is two comparisons of one term.
            (_, None, CmpOp::Lte) if self.begins_range(term) => {
                let begin = self.conditions.pop().map(|begin| begin.text).unwrap_or_default();
                format!("{}-{shown}", begin.replacen(">= ", "", 1))
            }
            (_, None, _) => format!("{name} {sign}{shown}"),
        };
        let is_protocol =
            said.kind == ValueKind::Protocol && op == CmpOp::Eq && said.mask.is_none();
        match (said.kind, op) {
            (ValueKind::Protocol, CmpOp::Eq) => self.proto = Some(shown),
            // Only the guard of what follows in a table of both versions.
            (ValueKind::Family, CmpOp::Eq) => return,
            _ => {}
        }
        self.condition(text, term.has(&is_dport));
        if let Some(last) = self.conditions.last_mut() {
            last.from = (op == CmpOp::Gte && said.mask.is_none()).then(|| term.clone());
            last.is_protocol =
                is_protocol && !term.has(&|f| matches!(f, Field::Protocol { ipv6: true }));
        }
    }

    fn begins_range(&self, term: &Term) -> bool {
        self.conditions.last().is_some_and(|last| last.from.as_ref() == Some(term))
    }

    /// Adds a condition. One that names the protocol says again what was tested.
    fn condition(&mut self, text: String, tests_port: bool) {
        if let Some(proto) = &self.proto
            && text.strip_prefix(proto.as_str()).is_some_and(|text| text.starts_with(' '))
        {
            self.conditions.retain(|condition| !condition.is_protocol);
        }
        self.conditions.push(ConditionText { text, tests_port, is_protocol: false, from: None });
    }

    fn term(&self, term: &Term) -> ValueText {
        match term {
            Term::Field(field) => self.field(field),
            Term::Constant(value) => {
                ValueText { value: Some(value.clone()), ..ValueText::new("", ValueKind::Other) }
            }
            Term::Drawn(slot) => {
                let drawn = self.drawn.iter().find(|(known, _)| known == slot);
                ValueText::new(drawn.map_or("(unknown)", |(_, text)| text), ValueKind::Number)
            }
            Term::Data { find, .. } => {
                let (set, key) = &**find;
                ValueText::new(format!("{} map {}", self.key(key), named(set)), ValueKind::Other)
            }
            Term::Kept { was, .. } => self.term(was),
            Term::Part { of, .. } => self.term(of),
            Term::Computed { of, how, .. } => computed(self.term(of), how),
            Term::Unknown => ValueText::new("(unknown)", ValueKind::Other),
        }
    }

    fn field(&self, field: &Field) -> ValueText {
        let address = |side, ipv6: bool| {
            let ip = if ipv6 { "ip6" } else { "ip" };
            ValueText::new(format!("{ip} {side}"), ValueKind::Address { ipv6 })
        };
        let th = self.proto.as_deref().unwrap_or("th");
        match field {
            Field::Saddr { ipv6, .. } => address("saddr", *ipv6),
            Field::Daddr { ipv6, .. } => address("daddr", *ipv6),
            Field::Protocol { ipv6: false } => ValueText::new("ip protocol", ValueKind::Protocol),
            Field::Protocol { ipv6: true } => ValueText::new("ip6 nexthdr", ValueKind::Protocol),
            Field::Sport => ValueText::new(format!("{th} sport"), ValueKind::Port),
            Field::Dport => ValueText::new(format!("{th} dport"), ValueKind::Port),
            Field::Header { base: PayloadBase::Transport, offset: 13, len: 1 } => {
                ValueText::new("tcp flags", ValueKind::Other)
            }
            Field::Header { base: PayloadBase::Network, offset, len }
                if let Some((.., name)) = IPV4.iter().find(|(o, l, _)| (o, l) == (offset, len))
                    && self.ipv4 =>
            {
                let kind = if *len == 1 { ValueKind::Number } else { ValueKind::Port };
                ValueText::new(format!("ip {name}"), kind)
            }
            Field::Header { base, offset, len } => {
                let place = format!("@{},{},{}", header(*base), offset * 8, len * 8);
                ValueText::new(place, ValueKind::Other)
            }
            Field::Meta(key) => meta(key),
            Field::Ct { key, reply } => ct(*key, *reply),
            Field::Fib { result, saddr, iif, oif, mark, present } => {
                let mut text = format!("fib {}", if *saddr { "saddr" } else { "daddr" });
                for (is, word) in [(*mark, " . mark"), (*iif, " . iif"), (*oif, " . oif")] {
                    text.push_str(if is { word } else { "" });
                }
                let (what, kind) = match result {
                    FibResult::Oif => (" oif", ValueKind::Number),
                    FibResult::Oifname => (" oifname", ValueKind::Interface),
                    FibResult::AddrType => (" type", ValueKind::AddressType),
                };
                let kind = if *present { ValueKind::Other } else { kind };
                ValueText::new(text + what, kind)
            }
            Field::Other { what, .. } => ValueText::new(what.to_string(), ValueKind::Other),
        }
    }

    /// A key: `ip daddr . meta l4proto . th dport`.
    fn key(&self, key: &SetKey) -> String {
        let own = key.parts.iter().take(key.own);
        let parts: Vec<String> = own.map(|(term, _)| self.term(term).with_mask()).collect();
        if parts.is_empty() { "(unknown)".to_owned() } else { parts.join(" . ") }
    }

    fn assigned(&self, to: &Term, field: &Field) -> String {
        let ValueText { text: name, kind, .. } = self.field(field);
        let short = name.strip_prefix("meta ").unwrap_or(&name);
        let said = match to {
            Term::Unknown => return format!("{short} set"),
            to => self.term(to),
        };
        if let Some(value) = &said.value {
            return format!("{short} = {}", values::value(kind, &value.0));
        }
        let text = said.with_mask();
        match text.strip_prefix(&name).filter(|rest| rest.starts_with(' ')) {
            Some(rest) => format!("{short}{rest}"),
            None => format!("{short} = {text}"),
        }
    }

    fn target(&self, nat: &Nat) -> String {
        let ports = nat.ports.as_ref();
        let Some((first, last)) = &nat.addresses else {
            return ports.map_or_else(String::new, |ports| format!(":{}", self.ports(ports)));
        };
        let said = self.term(first);
        let Some(value) = said.value else {
            // A map gives the address, and the port with it.
            let is_other = |(port, _): &&(Term, Term)| !matches!(port, Term::Data { .. });
            let port = ports.filter(is_other).map(|ports| format!(" port {}", self.ports(ports)));
            return format!("{}{}", said.text, port.unwrap_or_default());
        };
        let one = super::target(&value).map(|(address, _)| address);
        if let (Some(address), true, Some((Term::Constant(from), Term::Constant(to)))) =
            (one, first == last, ports)
            && from == to
            && nat.base.is_none()
        {
            let port = u16::try_from(values::number_be(&from.0)).unwrap_or_default();
            return SocketAddr::new(address, port).to_string();
        }
        let ipv6 = one.is_some_and(|address| address.is_ipv6());
        let kind = ValueKind::Address { ipv6 };
        let mut text = values::value(kind, &value.0);
        if let Some(end) = self.term(last).value.filter(|end| *end != value) {
            text.push_str(&format!("-{}", values::value(kind, &end.0)));
        }
        if let Some(ports) = ports {
            text.push_str(&format!(":{}", self.ports(ports)));
        }
        if let Some(base) = nat.base {
            text.push_str(&format!("/{base}"));
        }
        text
    }

    fn tproxy(&self, address: Option<&Term>, port: Option<&Term>) -> String {
        let address = address.map(|term| {
            let said = self.term(term);
            let value = said.value.as_ref().and_then(super::target);
            value.map_or(said.text, |(address, _)| match (address, port) {
                (std::net::IpAddr::V6(address), Some(_)) => format!("[{address}]"),
                _ => address.to_string(),
            })
        });
        let port = port.map(|term| self.port(term));
        match (address, port) {
            (Some(address), Some(port)) => format!("tproxy to {address}:{port}"),
            (Some(address), None) => format!("tproxy to {address}"),
            (None, Some(port)) => format!("tproxy to :{port}"),
            (None, None) => "tproxy to the same port".to_owned(),
        }
    }

    fn port(&self, term: &Term) -> String {
        let said = self.term(term);
        match &said.value {
            // A register of four bytes holds a port in its first two.
            Some(value) => values::value(ValueKind::Port, value.0.get(..2).unwrap_or(&value.0)),
            None => said.text,
        }
    }

    fn ports(&self, (first, last): &(Term, Term)) -> String {
        let from = self.port(first);
        if first == last { from } else { format!("{from}-{}", self.port(last)) }
    }
}

impl SetKey {
    /// Whether a part that was loaded for it is made of a field.
    fn has(&self, field: &dyn Fn(&Field) -> bool) -> bool {
        self.parts.iter().take(self.own).any(|(term, _)| term.has(field))
    }
}

fn is_dport(field: &Field) -> bool {
    *field == Field::Dport
}

/// Whether a match says something of destination ports.
fn tests_port(one: &XtMatch) -> bool {
    let some = |ports: (u16, u16), invert: bool| ports != (0, u16::MAX) || invert;
    match one {
        XtMatch::Tcp { dports, invert_dports, .. } | XtMatch::Udp { dports, invert_dports, .. } => {
            some(*dports, *invert_dports)
        }
        XtMatch::Multiport { side, .. } => *side != Side::Source,
        _ => false,
    }
}

fn computed(mut said: ValueText, how: &Compute) -> ValueText {
    match how {
        Compute::Swap(_) => {}
        Compute::Bits(BitOp::MaskXor { mask, xor }) if xor.0.iter().all(|b| *b == 0) => {
            said.mask = Some(Bytes::clone(mask));
        }
        Compute::Bits(BitOp::MaskXor { mask, xor }) => {
            let (mask, xor) = (values::number(&mask.0), values::number(&xor.0));
            let sets = mask & xor == 0 && mask | xor == u32::MAX;
            let more = match (sets, mask) {
                (true, _) => format!(" | {xor:#x}"),
                (_, u32::MAX) => format!(" ^ {xor:#x}"),
                _ => format!(" & {mask:#x} ^ {xor:#x}"),
            };
            said.text.push_str(&more);
        }
        Compute::Bits(BitOp::Shl(bits)) => said.text.push_str(&format!(" << {bits}")),
        Compute::Bits(BitOp::Shr(bits)) => said.text.push_str(&format!(" >> {bits}")),
        Compute::Bits(BitOp::Other) => said.text.push_str(" (computed)"),
    }
    said
}

fn not(invert: bool) -> &'static str {
    if invert { "!= " } else { "" }
}

fn header(base: PayloadBase) -> &'static str {
    match base {
        PayloadBase::Link => "ll",
        PayloadBase::Network => "nh",
        PayloadBase::Transport => "th",
        PayloadBase::Inner => "ih",
    }
}

/// The name of a set. Anonymous ones are known by their elements only.
fn named(set: &str) -> String {
    if set.starts_with("__") { "{ … }".to_owned() } else { format!("@{set}") }
}

fn reject(rejection: Rejection) -> String {
    match rejection {
        Rejection::Reset => "reject with a TCP reset",
        Rejection::Port => "reject",
        Rejection::Other => "reject as unreachable",
    }
    .to_owned()
}

/// What `nft` calls the keys of `meta`, by number (`enum nft_meta_keys`).
const META: [&str; 37] = [
    "length",
    "protocol",
    "priority",
    "mark",
    "iif",
    "oif",
    "iifname",
    "oifname",
    "iiftype",
    "oiftype",
    "skuid",
    "skgid",
    "nftrace",
    "rtclassid",
    "secmark",
    "nfproto",
    "l4proto",
    "ibrname",
    "obrname",
    "pkttype",
    "cpu",
    "iifgroup",
    "oifgroup",
    "cgroup",
    "random",
    "secpath",
    "iifkind",
    "oifkind",
    "ibrpvid",
    "ibrvproto",
    "time",
    "day",
    "hour",
    "sdif",
    "sdifname",
    "broute",
    "ibrhwaddr",
];

/// What `nft` calls the keys of `ct`, by number (`enum nft_ct_keys`).
const CT: [&str; 24] = [
    "state",
    "direction",
    "status",
    "mark",
    "secmark",
    "expiration",
    "helper",
    "l3proto",
    "saddr",
    "daddr",
    "protocol",
    "proto-src",
    "proto-dst",
    "label",
    "packets",
    "bytes",
    "avgpkt",
    "zone",
    "event",
    "saddr",
    "daddr",
    "saddr",
    "daddr",
    "id",
];

/// What `nft` calls the fields of IPv4's header that rules ask for, by offset and length in bytes.
const IPV4: [(u32, u32, &str); 5] =
    [(1, 1, "dscp"), (2, 2, "length"), (4, 2, "id"), (6, 2, "frag-off"), (8, 1, "ttl")];

fn meta(key: &MetaKey) -> ValueText {
    let (text, kind) = match key {
        MetaKey::Mark => ("meta mark", ValueKind::Mark),
        MetaKey::Iif => ("iif", ValueKind::Number),
        MetaKey::Oif => ("oif", ValueKind::Number),
        MetaKey::Iifname => ("iifname", ValueKind::Interface),
        MetaKey::Oifname => ("oifname", ValueKind::Interface),
        MetaKey::Nfproto => ("meta nfproto", ValueKind::Family),
        MetaKey::L4proto => ("meta l4proto", ValueKind::Protocol),
        MetaKey::Skuid => ("meta skuid", ValueKind::Number),
        MetaKey::Skgid => ("meta skgid", ValueKind::Number),
        MetaKey::Prandom => ("meta random", ValueKind::Number),
        MetaKey::Protocol => ("meta protocol", ValueKind::Other),
        MetaKey::Pkttype => ("meta pkttype", ValueKind::Other),
        MetaKey::Other(number) => {
            let name = usize::try_from(*number).ok().and_then(|n| META.get(n)).copied();
            let text = name.map_or_else(|| format!("meta key {number}"), |n| format!("meta {n}"));
            return ValueText::new(text, ValueKind::Other);
        }
    };
    ValueText::new(text, kind)
}

fn ct(key: CtKey, reply: Option<bool>) -> ValueText {
    let (text, kind) = match key {
        CtKey::State => ("state", ValueKind::State),
        CtKey::Direction => ("direction", ValueKind::Other),
        CtKey::Status => ("status", ValueKind::Mark),
        CtKey::Mark => ("mark", ValueKind::Mark),
        CtKey::Src => ("saddr", ValueKind::Other),
        CtKey::Dst => ("daddr", ValueKind::Other),
        CtKey::Protocol => ("protocol", ValueKind::Protocol),
        CtKey::ProtoSrc => ("proto-src", ValueKind::Port),
        CtKey::ProtoDst => ("proto-dst", ValueKind::Port),
        CtKey::Other(number) => {
            let name = usize::try_from(number).ok().and_then(|n| CT.get(n)).copied();
            let text = name.map_or_else(|| format!("ct key {number}"), |n| format!("ct {n}"));
            return ValueText::new(text, ValueKind::Other);
        }
    };
    let direction = match reply {
        Some(true) => "reply ",
        Some(false) => "original ",
        None => "",
    };
    ValueText::new(format!("ct {direction}{text}"), kind)
}
