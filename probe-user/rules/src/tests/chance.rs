//! Random choices, and outcomes that are told as one.

use super::*;

fn output(rules: Vec<Vec<Expr>>) -> World {
    World::default().base("filter output", Hook::Output, rules)
}

fn says(world: &World) -> Vec<String> {
    world.says(Hook::Output, local("192.0.2.99:80"))
}

#[test]
fn statistic_random_and_nth_share_what_is_left() {
    // As kube-proxy writes three backends: .33333333349, .5, and the rest.
    let backends = |rules: Vec<Vec<Expr>>| World::default().base("nat OUTPUT", Hook::Output, rules);
    let world = backends(vec![
        rule([random(715_827_883), dnat("10.0.0.1:8080")]),
        rule([random(1 << 30), dnat("10.0.0.2:8080")]),
        dnat("10.0.0.3:8080"),
    ]);
    let third = |n: u8| format!("passes to 10.0.0.{n}:8080, 33.3 % [nat OUTPUT {n}]");
    assert_eq!(says(&world), [third(1), third(2), third(3)]);
    let nth = |every| vec![Expr::Match(XtMatch::Nth { every, invert: false }.into())];
    let world = backends(vec![
        rule([nth(3), dnat("10.0.0.1:8080")]),
        rule([nth(2), dnat("10.0.0.2:8080")]),
        dnat("10.0.0.3:8080"),
    ]);
    assert_eq!(says(&world), [third(1), third(2), third(3)]);
    let not = vec![Expr::Match(XtMatch::Random { probability: 1 << 29, invert: true }.into())];
    let world = output(vec![rule([not, drop_it()])]);
    assert_eq!(says(&world), ["dropped, 75.0 % [filter output 1]", "passes, 25.0 % []"]);
}

#[test]
fn what_is_sure_or_impossible_is_no_chance() {
    let world = output(vec![rule([random(1 << 31), mark(1)]), rule([random(0), drop_it()])]);
    assert_eq!(says(&world), ["passes with mark 0x1 [filter output 1]"]);
}

#[test]
fn one_number_is_compared_twice() {
    let eq = |n: u32| cmp(CmpOp::Eq, &n.to_ne_bytes());
    let neq = |n: u32| cmp(CmpOp::Neq, &n.to_ne_bytes());
    // Not 0 and not 1 of 4 is a half, not nine sixteenths.
    let world = output(vec![vec![numgen(4, 0), neq(0), neq(1), Expr::Reject(Rejection::Port)]]);
    assert_eq!(says(&world), ["passes, 50.0 % []", "refused by Port, 50.0 % [filter output 1]"]);
    // The one or the other never.
    let world = output(vec![rule([vec![numgen(4, 0), eq(0), eq(1)], drop_it()])]);
    assert_eq!(says(&world), ["passes []"]);
    // The same, and then a test that is sure.
    let world = output(vec![rule([vec![numgen(4, 0), eq(0), neq(1)], drop_it()])]);
    assert_eq!(says(&world), ["dropped, 25.0 % [filter output 1]", "passes, 75.0 % []"]);
    // Another number is another one.
    let world = output(vec![rule([vec![numgen(2, 0), eq(0), numgen(2, 0), eq(0)], drop_it()])]);
    assert_eq!(says(&world), ["dropped, 25.0 % [filter output 1]", "passes, 75.0 % []"]);
}

/// `numgen random mod 10 2-4`, `numgen inc mod 10 < 3`: nft turns numbers to network
/// order before it compares them.
#[test]
fn numbers_are_compared_in_network_order() {
    let turned = Expr::Byteorder { sreg: Reg(0), dreg: Reg(0), len: 4, size: 4 };
    let be = |n: u32| n.to_be_bytes();
    for (tests, share) in [
        (vec![cmp(CmpOp::Lt, &be(3))], 30),
        (vec![cmp(CmpOp::Gte, &be(2)), cmp(CmpOp::Lte, &be(4))], 30),
        (vec![cmp(CmpOp::Gt, &be(8))], 10),
        (
            vec![Expr::Range {
                sreg: Reg(0),
                invert: true,
                from: Bytes::from(be(2).to_vec()).into(),
                to: Bytes::from(be(4).to_vec()).into(),
            }],
            70,
        ),
    ] {
        let load = vec![numgen(10, 0), turned.clone()];
        let world = output(vec![rule([load, tests, drop_it()])]);
        let all = says(&world);
        assert_eq!(all[0], format!("dropped, {share}.0 % [filter output 1]"));
        assert_eq!(all[1], format!("passes, {}.0 % []", 100 - share));
    }
}

#[test]
fn numbers_are_masked_and_looked_up() {
    let odd = Expr::Bitwise {
        sreg: Reg(0),
        dreg: Reg(0),
        len: 4,
        op: BitOp::MaskXor {
            mask: Bytes::from(1_u32.to_ne_bytes().to_vec()).into(),
            xor: Bytes::from(vec![0; 4]).into(),
        },
    };
    let rules =
        vec![rule([vec![numgen(5, 10), odd, cmp(CmpOp::Eq, &1_u32.to_ne_bytes())], drop_it()])];
    // 11 and 13 of 10 to 14.
    assert_eq!(says(&output(rules)), ["dropped, 40.0 % [filter output 1]", "passes, 60.0 % []"]);
    let key = |n: u32| element(&n.to_ne_bytes());
    for (invert, share) in [(false, "20.0"), (true, "80.0")] {
        let lookup = Expr::Lookup { set: "few".into(), sreg: Reg(0), invert };
        let world = output(vec![rule([vec![numgen(10, 0), lookup], drop_it()])]);
        let world = world.set("filter", "few", 4, vec![key(3), key(9), key(77)]);
        assert_eq!(says(&world)[0], format!("dropped, {share} % [filter output 1]"));
    }
}

/// Packets spread over several uplinks by their mark.
#[test]
fn a_mark_may_be_a_random_number() {
    let set = Expr::SetMeta { key: MetaKey::Mark, sreg: Reg(0) };
    let world = output(vec![
        vec![numgen(3, 100), set.clone()],
        rule([marked(101), drop_it()]),
        rule([marked(102), reject()]),
    ]);
    assert_eq!(
        says(&world),
        [
            "dropped with mark 0x65, 33.3 % [filter output 1, filter output 2]",
            "passes with mark 0x64, 33.3 % [filter output 1]",
            "refused by Port with mark 0x66, 33.3 % [filter output 1, filter output 3]",
        ]
    );
    let set_ct = Expr::SetCt { key: CtKey::Mark, sreg: Reg(0) };
    let get_ct = Expr::Ct { key: CtKey::Mark, reply: None, dreg: Reg(0) };
    let one = cmp(CmpOp::Eq, &1_u32.to_ne_bytes());
    let world = output(vec![vec![numgen(2, 0), set_ct], rule([vec![get_ct, one], drop_it()])]);
    assert_eq!(
        says(&world),
        [
            "dropped with ct mark 0x1, 50.0 % [filter output 1, filter output 2]",
            "passes, 50.0 % [filter output 1]",
        ]
    );
}

#[test]
fn a_map_of_numbers_leads_on_where_it_has_an_element() {
    let vmap = Expr::Map { set: "m".into(), sreg: Reg(0), dreg: None };
    let key = |n: u32| n.to_ne_bytes();
    let world =
        output(vec![vec![numgen(4, 0), vmap], reject()]).chain("filter a", vec![drop_it()]).set(
            "filter",
            "m",
            4,
            vec![
                leads(&key(0), RuleVerdict::Accept),
                leads(&key(1), RuleVerdict::Goto("a".into())),
                leads(&key(2), RuleVerdict::Return),
            ],
        );
    assert_eq!(
        says(&world),
        [
            "dropped, 25.0 % [filter output 1, filter a 1]",
            "passes, 50.0 % [filter output 1]",
            "refused by Port, 25.0 % [filter output 2]",
        ]
    );
}

#[test]
fn equal_outcomes_are_told_once() {
    // By different rules: their probabilities add up.
    let world = output(vec![
        rule([random(1 << 29), drop_it()]),
        rule([random(1 << 30), drop_it()]),
        accept(),
    ]);
    let all = says(&world);
    assert_eq!(all, ["dropped, 62.5 % [filter output 1]", "passes, 37.5 % [filter output 3]"]);
    // With another mark it is another outcome.
    let world = output(vec![rule([random(1 << 30), mark(1)])]);
    assert_eq!(says(&world).len(), 2);
    // Chance and a condition: no answer to the condition may lose a part.
    let world =
        output(vec![rule([random(1 << 30), drop_it()]), rule([limit(), drop_it()]), accept()]);
    let question = "limit (rule 2 of ip filter chain output)";
    assert_eq!(
        says(&world),
        [
            "dropped, 50.0 % [filter output 1]".to_owned(),
            format!("dropped, 50.0 %, if {question} [filter output 2]"),
            format!("passes, 50.0 %, if not: {question} [filter output 3]"),
        ]
    );
}
