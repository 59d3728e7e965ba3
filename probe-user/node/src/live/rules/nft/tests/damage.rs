//! Messages that are cut off or changed.

use super::super::sets;
use super::super::wire::{Attributes, Fields};
use super::*;

/// A rule of iptables-nft 1.8.9 on Linux 6.18, `-A PREROUTING -i eth+ -p tcp --dport
/// 8080 -m comment --comment web -j DNAT --to-destination 10.0.0.5:80`; and one of nft
/// 1.0.6, `tcp dport vmap { 80 : jump c } comment "web"`. Recorded by reading a dump of
/// `NFT_MSG_GETRULE` in a namespace of its own.
const RULES: [&str; 2] = [include_str!("iptables.hex"), include_str!("nft.hex")];

fn bytes(text: &str) -> Vec<u8> {
    hex(text).0.to_vec()
}

fn parse(body: &[u8]) -> Option<Rule> {
    let message = wire::NftMessage { family: 2, body };
    RawRule::of(message).map(|rule| rule.parse(&mut NameInterner::default()))
}

#[test]
fn recorded_rules_are_read_as_they_were_written() {
    let rule = parse(&bytes(RULES[0])).unwrap();
    assert_eq!(rule.comment.as_deref(), Some("web"));
    assert_eq!(rule.packets, Some(0));
    assert_eq!(rule.exprs[1], Expr::Cmp { sreg: Reg(0), op: CmpOp::Eq, value: hex("657468") });
    assert!(matches!(rule.exprs.last(), Some(Expr::Target(_))), "{rule:?}");
    let rule = parse(&bytes(RULES[1])).unwrap();
    assert_eq!(rule.comment.as_deref(), Some("web"));
    assert_eq!(
        rule.exprs.last(),
        Some(&Expr::Map { set: "__map0".into(), sreg: Reg(0), dreg: None })
    );
}

#[test]
fn a_rule_that_is_cut_off_says_so() {
    for text in RULES {
        let whole = bytes(text);
        let wanted = parse(&whole).unwrap();
        let list = Fields::of(&whole).get(4).unwrap();
        let start = list.as_ptr().addr() - whole.as_ptr().addr();
        for end in start + 1..start + list.len() {
            // The same rule with less of its list, which is the last that is told then.
            let rule = parse(&whole[..end]);
            assert_ne!(rule.as_ref().map(|rule| &rule.exprs), Some(&wanted.exprs), "{end}");
        }
        // Each expression that is damaged is still one that may hold or not.
        for end in 1..list.len() {
            let body = expr::body(Family::Ip, &list[..end], &mut NameInterner::default());
            let is_start = Attributes(list).scan(0, |at, (_, value)| {
                *at += (value.len() + 4).next_multiple_of(4);
                Some(*at)
            });
            if is_start.into_iter().all(|at| at != end) {
                assert!(
                    body.exprs.iter().any(|expr| matches!(expr, Expr::Opaque(_))),
                    "{end}: {body:?}"
                );
            }
        }
    }
}

/// A generator of numbers that needs no seed from outside (splitmix64).
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((mixed ^ (mixed >> 31)) & 0xffff_ffff).unwrap()
}

#[test]
fn no_damage_stops_the_reader() {
    let originals: Vec<Vec<u8>> = RULES.iter().map(|text| bytes(text)).collect();
    let mut state = 4;
    let mut different = 0;
    for round in 0..20_000 {
        let original = &originals[round % originals.len()];
        let mut damaged = original.clone();
        for _ in 0..=next(&mut state) % 4 {
            let at = next(&mut state) % damaged.len();
            damaged[at] = u8::try_from(next(&mut state) & 0xff).unwrap();
        }
        damaged.truncate(next(&mut state) % (damaged.len() * 2));
        for family in [1, 2, 5, 10, 77] {
            let message = wire::NftMessage { family, body: &damaged };
            let mut names = NameInterner::default();
            let rule = RawRule::of(message).map(|rule| rule.parse(&mut names));
            different += usize::from(rule != parse(original));
            let (id, mut parts) = (chain_id(NetnsId::Inode(1), Family::Ip, "t", ""), Vec::new());
            let id = SetId { table: id.table, name: "s".into() };
            let _ = objects::table(id.table.netns, message, &mut names);
            let _ = objects::base_chain(id.table.netns, message, &mut names);
            sets::parts(message, &mut names, &mut parts);
            if let Some(set) = sets::set(&id, message) {
                let _ = sets::elements(&Set { interval: true, concat: false, ..set }, parts);
            }
        }
        // The same as a whole answer of the kernel.
        let _ = wire::messages(&damaged).count();
    }
    assert!(different > 50_000);
}
