//! Against the real kernel, in network namespaces of the tests' own.

mod big;
mod damage;
mod lab;
mod limits;
mod node;
mod sets;
mod steady;

use super::*;
use lab::{Lab, can_make_labs};
use whereis_port_model::{
    BitOp, Bytes, ChainKind, CmpOp, Expr, Family, FibResult, Hook, MapsTo, MetaKey, NatKind,
    PayloadBase, Reg, Rejection, RuleVerdict, RulesBackend, TableId,
};

fn chain_id(netns: NetnsId, family: Family, table: &str, name: &str) -> ChainId {
    let table = TableId { netns, backend: RulesBackend::Nft, family, name: table.into() };
    ChainId { table, name: name.into() }
}

/// Bytes as hex digits, with blanks.
fn hex(text: &str) -> Bytes {
    let text: String = text.split_whitespace().collect();
    serde_json::from_value(serde_json::Value::String(text)).unwrap()
}

fn rules(lab: &Lab, family: Family, table: &str, chain: &str) -> Vec<Rule> {
    let (mut tables, mut talk) = lab.tables();
    let id = chain_id(lab.id, family, table, chain);
    tables.chain(&id, &mut talk).unwrap().unwrap().to_vec()
}

const PROTO: Expr = Expr::Meta { key: MetaKey::L4proto, dreg: Reg(0) };

fn tcp_dport(port: &str) -> Vec<Expr> {
    let cmp = |value| Expr::Cmp { sreg: Reg(0), op: CmpOp::Eq, value: hex(value) };
    vec![
        PROTO,
        cmp("06"),
        Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, dreg: Reg(0) },
        cmp(port),
    ]
}

#[test]
fn tables_and_base_chains_are_those_of_the_kernel() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.nft(
        r#"table ip a { comment "first one"
             chain pre { type nat hook prerouting priority dstnat; policy accept; }
             chain regular { }
             chain out { type route hook output priority -150; policy drop; }
           }
           table inet asleep { flags dormant; chain in { type filter hook input priority 0; }; }
           table netdev d { chain in { type filter hook ingress device "lo" priority -500; }; }
           table ip6 empty { }"#,
    );
    let (tables, _) = lab.tables();
    let names: Vec<_> = tables.tables.iter().map(|t| (t.id.to_string(), t.dormant)).collect();
    let name = |name: &str, dormant| (name.to_owned(), dormant);
    assert_eq!(
        names,
        [
            name("ip a", false),
            name("inet asleep", true),
            name("netdev d", false),
            name("ip6 empty", false)
        ]
    );
    assert_eq!(tables.tables[0].comment.as_deref(), Some("first one"));
    assert!(tables.tables.is_sorted_by_key(|table| table.handle));
    let chains: Vec<_> = tables
        .base_chains
        .iter()
        .map(|c| (&*c.id.name, c.hook, c.priority, c.kind, c.accepts, c.devices.join(",")))
        .collect();
    assert_eq!(
        chains,
        [
            ("pre", Hook::Prerouting, -100, ChainKind::Nat, true, String::new()),
            ("out", Hook::Output, -150, ChainKind::Route, false, String::new()),
            ("in", Hook::Ingress, -500, ChainKind::Filter, true, "lo".to_owned()),
        ]
    );
    let before = tables.generation;
    lab.nft("delete table ip6 empty");
    assert_eq!(lab.tables().0.generation, before + 1);
}

#[test]
fn a_chain_without_rules_is_not_one_that_does_not_exist() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.nft("table ip t { chain empty { }; chain full { accept; }; }; table ip6 t { chain six { drop; }; }");
    let (mut tables, mut talk) = lab.tables();
    for all in [false, true] {
        if all {
            tables.expect_all(&mut talk).unwrap();
        }
        let mut count = |family, name: &str| {
            let id = chain_id(lab.id, family, "t", name);
            tables.chain(&id, &mut talk).unwrap().map(|rules| rules.len())
        };
        assert_eq!(count(Family::Ip, "empty"), Some(0));
        assert_eq!(count(Family::Ip, "full"), Some(1));
        assert_eq!(count(Family::Ip, "none"), None);
        assert_eq!(count(Family::Ip, "six"), None);
        assert_eq!(count(Family::Ip6, "six"), Some(1));
        assert_eq!(count(Family::Inet, "full"), None);
    }
}

#[test]
fn rules_of_iptables_are_read_in_order() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.iptables(
        "*nat
:DOCKER - [0:0]
:DOCKER2 - [0:0]
-A PREROUTING -j DOCKER
-A DOCKER ! -i docker0 -p tcp --dport 8080 -j ACCEPT
-A DOCKER -d 10.1.0.0/16 -g DOCKER2
-A DOCKER -d 10.1.2.4/30 -j RETURN
COMMIT
",
    );
    let read = rules(&lab, Family::Ip, "nat", "DOCKER");
    let docker0 = Expr::Cmp { sreg: Reg(0), op: CmpOp::Neq, value: hex("646f636b65723000") };
    let mut wanted = vec![Expr::Meta { key: MetaKey::Iifname, dreg: Reg(0) }, docker0];
    wanted.extend(tcp_dport("1f90"));
    wanted.push(Expr::Verdict(RuleVerdict::Accept));
    assert_eq!(read[0].exprs, wanted);
    assert_eq!(read[0].packets, Some(0));
    assert_eq!(
        read[1].exprs,
        [
            Expr::Payload { base: PayloadBase::Network, offset: 16, len: 2, dreg: Reg(0) },
            Expr::Cmp { sreg: Reg(0), op: CmpOp::Eq, value: hex("0a01") },
            Expr::Verdict(RuleVerdict::Goto("DOCKER2".into())),
        ]
    );
    assert_eq!(
        read[2].exprs[1],
        Expr::Bitwise {
            sreg: Reg(0),
            dreg: Reg(0),
            len: 4,
            op: BitOp::MaskXor { mask: hex("fffffffc").into(), xor: hex("00000000").into() },
        }
    );
    assert!(read.is_sorted_by_key(|rule| rule.handle));
    let first = rules(&lab, Family::Ip, "nat", "PREROUTING");
    assert_eq!(first[0].exprs, [Expr::Verdict(RuleVerdict::Jump("DOCKER".into()))]);
}

/// The expressions of one rule that nft loads into a chain of a table.
fn one(lab: &Lab, family: &str, hook: &str, rule: &str) -> Vec<Expr> {
    lab.nft(&format!(
        "table {family} t; delete table {family} t;
         table {family} t {{ map m {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; }}
           map v {{ type inet_service : verdict; }}; set s {{ type inet_service; flags dynamic; }}
           map o {{ type inet_service : counter; }}; counter c {{ }}; limit l {{ rate 1/second; }}
           chain other {{ }}; chain c {{ {hook}; {rule}; }}; }}"
    ));
    let of = if family == "inet" { Family::Inet } else { Family::Ip };
    rules(lab, of, "t", "c").remove(0).exprs
}

#[test]
fn every_form_of_nat_is_understood() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    let nat = |rule: &str| one(&lab, "ip", "type nat hook prerouting priority -100", rule);
    let immediate = |dreg, value: &str| Expr::Immediate { dreg: Reg(dreg), value: hex(value) };
    let both = |low, high| Some((Reg(low), Reg(high)));
    let dnat =
        |address, port, flags| Expr::Nat { kind: NatKind::Dnat, ipv6: false, address, port, flags };
    let mut wanted = tcp_dport("1f90");
    wanted.extend([immediate(0, "0a580005"), immediate(4, "0050")]);
    wanted.push(dnat(both(0, 0), both(4, 4), 3));
    assert_eq!(nat("tcp dport 8080 dnat to 10.88.0.5:80"), wanted);

    assert_eq!(nat("dnat to 10.2.2.2")[..], [immediate(0, "0a020202"), dnat(both(0, 0), None, 1)]);
    let range = nat("meta l4proto tcp dnat to 10.3.3.3-10.3.3.4:8000-8010 random,persistent");
    assert_eq!(range.last(), Some(&dnat(both(0, 4), both(8, 12), 0xf)));
    let map = nat("ip protocol tcp dnat ip to ip daddr . tcp dport map @m");
    assert_eq!(
        map[map.len() - 2..],
        [
            Expr::Map { set: "m".into(), sreg: Reg(0), dreg: Some(Reg(0)) },
            dnat(both(0, 0), both(1, 1), 3)
        ]
    );
    let numgen =
        nat("meta l4proto tcp dnat to numgen random mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }");
    assert_eq!(numgen[2], Expr::Numgen { dreg: Reg(0), modulus: 2, offset: 0, random: true });
    assert!(matches!(&numgen[3], Expr::Map { dreg: Some(Reg(0)), .. }), "{numgen:?}");
    let hash = nat(
        "meta l4proto tcp dnat to jhash ip saddr . tcp sport mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }",
    );
    let hashed = Expr::Hash { dreg: Reg(0), modulus: 2, offset: 0, of: Some((Reg(4), 8)) };
    assert!(hash.contains(&hashed), "{hash:?}");
    assert_eq!(
        nat("tcp dport 22 redirect to :2222").last(),
        Some(&Expr::Redirect { port: both(0, 0), flags: 2 })
    );
    assert_eq!(nat("redirect"), [Expr::Redirect { port: None, flags: 0 }]);
    let post = "type nat hook postrouting priority 100";
    assert_eq!(one(&lab, "ip", post, "masquerade random"), [Expr::Masquerade { flags: 4 }]);
    let snat = one(&lab, "inet", post, "snat ip6 to fd00::1");
    assert!(matches!(snat.last(), Some(Expr::Nat { kind: NatKind::Snat, ipv6: true, .. })));
}

#[test]
fn every_expression_of_a_filter_is_understood() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    let pre = |rule: &str| one(&lab, "inet", "type filter hook prerouting priority -150", rule);
    let first = |rule: &str| pre(rule).remove(0);
    let cmp = |value: &str| Expr::Cmp { sreg: Reg(0), op: CmpOp::Eq, value: hex(value) };
    let fib = Expr::Fib {
        dreg: Reg(0),
        result: FibResult::AddrType,
        saddr: false,
        iif: false,
        oif: false,
        mark: false,
        present: false,
    };
    assert_eq!(pre("fib daddr type local")[..], [fib, cmp("02000000")]);
    let present = pre("fib saddr . iif oif missing drop");
    assert!(
        matches!(present[0], Expr::Fib { saddr: true, iif: true, present: true, .. }),
        "{present:?}"
    );
    assert_eq!(
        pre("meta mark set mark or 0x4000")[1..],
        [
            Expr::Bitwise {
                sreg: Reg(0),
                dreg: Reg(0),
                len: 4,
                op: BitOp::MaskXor { mask: hex("ffbfffff").into(), xor: hex("00400000").into() }
            },
            Expr::SetMeta { key: MetaKey::Mark, sreg: Reg(0) }
        ]
    );
    let vmap = pre("tcp dport vmap @v");
    assert_eq!(vmap.last(), Some(&Expr::Map { set: "v".into(), sreg: Reg(0), dreg: None }));
    let out = pre("tcp dport != @s drop");
    let lookup = Expr::Lookup { set: "s".into(), sreg: Reg(0), invert: true };
    assert_eq!(out[3..], [lookup, Expr::Verdict(RuleVerdict::Drop)]);
    assert_eq!(
        pre("tcp dport 8000-8010")[3..],
        [
            Expr::Cmp { sreg: Reg(0), op: CmpOp::Gte, value: hex("1f40") },
            Expr::Cmp { sreg: Reg(0), op: CmpOp::Lte, value: hex("1f4a") }
        ]
    );
    assert_eq!(
        pre("tcp dport != 8000-8010")[3],
        Expr::Range {
            sreg: Reg(0),
            invert: true,
            from: hex("1f40").into(),
            to: hex("1f4a").into()
        }
    );
    assert_eq!(first("notrack"), Expr::Notrack);
    let tproxy = pre("meta nfproto ipv4 tcp dport 80 tproxy ip to 127.0.0.1:15001");
    assert!(
        matches!(tproxy.last(), Some(Expr::Tproxy { address: Some(_), port: Some(_) })),
        "{tproxy:?}"
    );
    let shift = pre("meta mark set meta mark << 4");
    assert!(matches!(shift[1], Expr::Bitwise { op: BitOp::Shl(4), .. }), "{shift:?}");
    let limit = pre("limit rate 1/second drop");
    assert_eq!(limit[..], [Expr::Opaque("limit".into()), Expr::Verdict(RuleVerdict::Drop)]);
    assert_eq!(first("log prefix \"x\""), Expr::NoEffect("log".into()));
    assert_eq!(first("counter name c accept"), Expr::NoEffect("counter".into()));
    assert_eq!(first("limit name l accept"), Expr::Opaque("limit".into()));
    let named = pre("counter name tcp dport map @o accept");
    assert_eq!(named[3], Expr::Opaque("map of objects".into()));
    assert_eq!(first("quota 10 bytes accept"), Expr::Opaque("quota".into()));
    let add = pre("update @s { tcp dport } accept");
    assert_eq!(add[3], Expr::NoEffect("dynset".into()));
    let meter = pre("add @s { tcp dport limit rate 1/second } accept");
    assert_eq!(meter[3], Expr::Opaque("dynset limit".into()));
    assert!(matches!(first("socket transparent 1"), Expr::Load { dreg: Reg(0), .. }));
    let mss = pre("tcp option maxseg size 1 drop");
    assert!(mss.iter().any(|expr| matches!(expr, Expr::Load { .. })), "{mss:?}");
}

#[test]
fn how_a_packet_is_refused_is_told() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    let hook = "type filter hook input priority 0";
    for (family, rule, wanted) in [
        ("ip", "reject", Rejection::Port),
        ("ip", "reject with icmp type host-unreachable", Rejection::Other),
        ("inet", "reject", Rejection::Port),
        ("inet", "reject with icmpx type admin-prohibited", Rejection::Other),
        ("inet", "reject with icmp type port-unreachable", Rejection::Port),
        ("inet", "reject with icmpv6 type port-unreachable", Rejection::Port),
        ("inet", "reject with icmpv6 type addr-unreachable", Rejection::Other),
        ("inet", "meta l4proto tcp reject with tcp reset", Rejection::Reset),
    ] {
        let read = one(&lab, family, hook, rule);
        assert_eq!(read.last(), Some(&Expr::Reject(wanted)), "{family} {rule}");
    }
}
