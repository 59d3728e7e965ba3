use super::describe;
use crate::model::*;

fn chain(family: Family) -> ChainId {
    let netns = NetnsId::Inode(1);
    let table = TableId { netns, backend: RulesBackend::Nft, family, name: "nat".into() };
    ChainId { table, name: "c".into() }
}

fn text(exprs: Vec<Expr>) -> String {
    let rule = Rule { handle: 1, comment: None, exprs, packets: None };
    describe(&chain(Family::Ip), &rule)
}

fn meta(key: MetaKey) -> Expr {
    Expr::Meta { key, dreg: Reg(0) }
}

fn cmp(op: CmpOp, value: &[u8]) -> Expr {
    Expr::Cmp { sreg: Reg(0), op, value: Bytes::from(value.to_vec()) }
}

fn payload(base: PayloadBase, offset: u32, len: u32, reg: u8) -> Expr {
    Expr::Payload { base, offset, len, dreg: Reg(reg) }
}

#[test]
fn rules_read_as_users_write_them() {
    let docker = vec![
        meta(MetaKey::Iifname),
        cmp(CmpOp::Neq, b"docker0\0"),
        meta(MetaKey::L4proto),
        cmp(CmpOp::Eq, &[6]),
        payload(PayloadBase::Transport, 2, 2, 0),
        cmp(CmpOp::Eq, &8080_u16.to_be_bytes()),
        Expr::Immediate { dreg: Reg(0), value: Bytes::from(vec![172, 17, 0, 2]) },
        Expr::Immediate { dreg: Reg(4), value: Bytes::from(vec![0, 80]) },
        Expr::Nat {
            kind: NatKind::Dnat,
            ipv6: false,
            address: Some((Reg(0), Reg(0))),
            port: Some((Reg(4), Reg(4))),
            flags: 3,
        },
    ];
    assert_eq!(text(docker), "iifname != \"docker0\" tcp dport 8080 → dnat to 172.17.0.2:80");
    let range = vec![
        payload(PayloadBase::Network, 16, 1, 0),
        cmp(CmpOp::Neq, &[127]),
        payload(PayloadBase::Transport, 2, 2, 0),
        cmp(CmpOp::Gte, &8000_u16.to_be_bytes()),
        cmp(CmpOp::Lte, &8010_u16.to_be_bytes()),
        Expr::Verdict(RuleVerdict::Drop),
    ];
    assert_eq!(text(range), "ip daddr != 127.0.0.0/8 th dport 8000-8010 → drop");
    let state = vec![
        Expr::Ct { key: CtKey::State, reply: None, dreg: Reg(0) },
        Expr::Bitwise {
            sreg: Reg(0),
            dreg: Reg(0),
            len: 4,
            op: BitOp::MaskXor {
                mask: Bytes::from(8_u32.to_ne_bytes().to_vec()).into(),
                xor: Bytes::from(vec![0; 4]).into(),
            },
        },
        cmp(CmpOp::Neq, &[0; 4]),
        Expr::Reject(Rejection::Port),
    ];
    assert_eq!(text(state), "ct state new → reject");
    let map = vec![
        payload(PayloadBase::Network, 16, 4, 0),
        Expr::Meta { key: MetaKey::L4proto, dreg: Reg(1) },
        payload(PayloadBase::Transport, 2, 2, 2),
        Expr::Map { set: "service-ips".into(), sreg: Reg(0), dreg: None },
    ];
    assert_eq!(text(map), "ip daddr . meta l4proto . th dport vmap @service-ips");
    let mark = vec![
        meta(MetaKey::Mark),
        Expr::Bitwise {
            sreg: Reg(0),
            dreg: Reg(0),
            len: 4,
            op: BitOp::MaskXor {
                mask: Bytes::from((!0x4000_u32).to_ne_bytes().to_vec()).into(),
                xor: Bytes::from(0x4000_u32.to_ne_bytes().to_vec()).into(),
            },
        },
        Expr::SetMeta { key: MetaKey::Mark, sreg: Reg(0) },
    ];
    assert_eq!(text(mark), "→ mark | 0x4000");
    let half = XtMatch::Random { probability: 1 << 30, invert: false };
    let half =
        vec![Expr::Match(half.into()), Expr::Verdict(RuleVerdict::Jump("KUBE-SEP-A".into()))];
    assert_eq!(text(half), "statistic random 50 % → jump KUBE-SEP-A");
    let odd = XtMatch::Unknown { name: "hashlimit".into(), revision: 3 };
    assert_eq!(text(vec![Expr::Match(odd.into())]), "(match hashlimit)");
}

#[test]
fn odd_registers_and_values_do_no_harm() {
    for reg in [0, 15, 16, 255] {
        for len in [0, 1, 3, 64] {
            let value = Bytes::from(vec![0xff; len]);
            let sreg = Reg(reg);
            let exprs = vec![
                Expr::Payload {
                    base: PayloadBase::Network,
                    offset: 16,
                    len: u32::MAX / 8,
                    dreg: sreg,
                },
                Expr::Cmp { sreg, op: CmpOp::Lte, value: value.clone() },
                Expr::Range {
                    sreg,
                    invert: true,
                    from: value.clone().into(),
                    to: value.clone().into(),
                },
                Expr::Lookup { set: "__set0".into(), sreg, invert: false },
                Expr::Immediate { dreg: sreg, value },
                Expr::Redirect { port: Some((sreg, sreg)), flags: 0 },
                Expr::Tproxy { address: Some(sreg), port: Some(sreg) },
            ];
            assert!(!text(exprs).is_empty());
        }
    }
}
