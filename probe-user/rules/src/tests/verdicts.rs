//! Verdicts, chains that call each other, and the chains of a hook.

use super::*;

fn input(rules: Vec<Vec<Expr>>) -> World {
    World::default().base("filter input", Hook::Input, rules)
}

fn says(world: &World) -> String {
    world.says_one(Hook::Input, packet())
}

#[test]
fn a_verdict_ends_the_chain_and_tells_its_rule() {
    let queue = verdict(RuleVerdict::Queue);
    for (last, wanted) in [
        (accept(), "passes [filter input 2]"),
        (drop_it(), "dropped [filter input 2]"),
        (reject(), "refused by Port [filter input 2]"),
        (vec![Expr::Reject(Rejection::Reset)], "refused by Reset [filter input 2]"),
        (queue, "queued [filter input 2]"),
    ] {
        let rules = vec![rule([tcp_dport(81), drop_it()]), rule([tcp_dport(80), last]), reject()];
        assert_eq!(says(&input(rules)), wanted);
    }
}

#[test]
fn without_a_verdict_the_policy_decides() {
    let nothing = || vec![rule([tcp_dport(22), drop_it()]), vec![Expr::NoEffect("log".into())]];
    assert_eq!(says(&input(nothing())), "passes []");
    let drops = World::default().base_at("filter input", Hook::Input, 0, false, nothing());
    assert_eq!(says(&drops), "dropped [filter input policy]");
}

#[test]
fn return_in_a_base_chain_is_its_policy() {
    let rules = || vec![rule([tcp_dport(80), back()]), reject()];
    assert_eq!(says(&input(rules())), "passes []");
    let drops = World::default().base_at("filter input", Hook::Input, 0, false, rules());
    assert_eq!(says(&drops), "dropped [filter input policy]");
}

#[test]
fn continue_goes_on_in_the_rule_and_break_ends_it() {
    let on = verdict(RuleVerdict::Continue);
    let rules = vec![on.clone(), rule([on, drop_it()]), reject()];
    assert_eq!(says(&input(rules)), "dropped [filter input 2]");
    let off = verdict(RuleVerdict::Break);
    let rules = vec![rule([off, drop_it()]), reject()];
    assert_eq!(says(&input(rules)), "refused by Port [filter input 2]");
}

#[test]
fn jumps_come_back_and_gotos_do_not() {
    // input calls a, a calls b, b calls c; each but the last has another rule behind.
    type Call = fn(&str) -> Vec<Expr>;
    const J: Call = jump;
    const G: Call = goto;
    let world = |calls: [Call; 3], last: Vec<Expr>| {
        let [one, two, three] = calls;
        input(vec![one("a"), rule([mark(1), accept()])])
            .chain("filter a", vec![two("b"), rule([mark(2), accept()])])
            .chain("filter b", vec![three("c"), rule([mark(3), accept()])])
            .chain("filter c", vec![last])
    };
    for (calls, last, wanted) in [
        ([J, J, J], accept(), "passes [filter input 1, filter a 1, filter b 1, filter c 1]"),
        ([G, G, G], accept(), "passes [filter input 1, filter a 1, filter b 1, filter c 1]"),
        // What came back did nothing: only the rule behind the call is told.
        ([J, J, J], back(), "passes with mark 0x3 [filter input 1, filter a 1, filter b 2]"),
        // c's end is b's, so it goes on in a.
        ([J, J, G], back(), "passes with mark 0x2 [filter input 1, filter a 2]"),
        ([J, J, G], Vec::new(), "passes with mark 0x2 [filter input 1, filter a 2]"),
        ([J, G, G], back(), "passes with mark 0x1 [filter input 2]"),
        ([J, G, J], back(), "passes with mark 0x3 [filter input 1, filter a 1, filter b 2]"),
        // Out of the base chain by G: its policy.
        ([G, G, G], back(), "passes []"),
        ([G, J, G], back(), "passes with mark 0x2 [filter input 1, filter a 2]"),
    ] {
        assert_eq!(says(&world(calls, last)), wanted);
    }
}

#[test]
fn goto_out_of_a_base_chain_ends_with_its_policy() {
    let world = World::default()
        .base_at("filter input", Hook::Input, 0, false, vec![goto("a"), accept()])
        .chain("filter a", vec![rule([tcp_dport(22), accept()])]);
    assert_eq!(says(&world), "dropped [filter input policy]");
}

#[test]
fn a_called_chain_that_did_something_stays_in_the_trail() {
    for call in [jump("a"), goto("a")] {
        let world = input(vec![call, marked(1), rule([marked(1), drop_it()])])
            .chain("filter a", vec![mark(1)]);
        let all = says(&world);
        assert!(all.contains("[filter input 1, filter a 1"), "{all}");
    }
}

/// What a rule did is told, whatever else becomes of the rule.
#[test]
fn a_rule_that_marked_stays_in_the_trail() {
    let of = |rules| says(&input(rules).chain("filter none", Vec::new()));
    assert_eq!(of(vec![rule([mark(1), back()])]), "passes with mark 0x1 [filter input 1]");
    assert_eq!(of(vec![rule([mark(1), jump("none")])]), "passes with mark 0x1 [filter input 1]");
    assert_eq!(of(vec![rule([mark(1), goto("none")])]), "passes with mark 0x1 [filter input 1]");
    assert_eq!(of(vec![rule([mark(1), tcp_dport(22)])]), "passes with mark 0x1 [filter input 1]");
    let maybe = input(vec![rule([mark(1), limit(), drop_it()])]).says(Hook::Input, packet());
    let question = "limit (rule 1 of ip filter chain input)";
    assert_eq!(
        maybe,
        [
            format!("dropped with mark 0x1, if {question} [filter input 1]"),
            format!("passes with mark 0x1, if not: {question} [filter input 1]"),
        ]
    );
}

#[test]
fn accept_goes_on_with_the_next_chain_and_drop_is_final() {
    let world = |first: Vec<Expr>, second: Vec<Expr>| {
        // In the order of priorities, not of writing.
        World::default()
            .base_at("b input", Hook::Input, 10, true, vec![second])
            .base_at("a input", Hook::Input, -10, false, vec![first])
            .base_at("a forward", Hook::Forward, 0, true, vec![drop_it()])
    };
    for (first, second, wanted) in [
        (accept(), accept(), "passes [a input 1, b input 1]"),
        (accept(), drop_it(), "dropped [a input 1, b input 1]"),
        (accept(), reject(), "refused by Port [a input 1, b input 1]"),
        (drop_it(), accept(), "dropped [a input 1]"),
        (reject(), accept(), "refused by Port [a input 1]"),
        (back(), accept(), "dropped [a input policy]"),
    ] {
        assert_eq!(says(&world(first, second)), wanted);
    }
}

#[test]
fn of_equal_priority_the_later_registered_chain_runs_first() {
    let world = |one: &str, other: &str| {
        World::default().base(one, Hook::Input, vec![reject()]).base(
            other,
            Hook::Input,
            vec![drop_it()],
        )
    };
    assert_eq!(says(&world("a one", "a two")), "dropped [a two 1]");
    // Of two tables only the order of the tables is known.
    assert_eq!(says(&world("a one", "b two")), "dropped [b two 1]");
    // Legacy tables are there from the beginning on.
    assert_eq!(says(&world("a one", "legacy-b two")), "refused by Port [a one 1]");
}

#[test]
fn chains_of_the_other_ip_version_do_not_see_it() {
    let world = input(vec![accept()]).base("six-filter input", Hook::Input, vec![drop_it()]);
    assert_eq!(says(&world), "passes [filter input 1]");
}

#[test]
fn what_is_not_modelled_goes_both_ways() {
    let question = "limit (rule 1 of ip filter chain input)";
    let world = input(vec![rule([tcp_dport(80), limit(), accept()]), drop_it()]);
    assert_eq!(
        world.says(Hook::Input, packet()),
        [
            format!("dropped, if not: {question} [filter input 2]"),
            format!("passes, if {question} [filter input 1]"),
        ]
    );
    // Where both ways end alike there is nothing to assume.
    let world = input(vec![rule([limit(), accept()]), accept()]);
    assert!(says(&world).starts_with("passes ["));
    // What is not reached needs no assumption.
    let world = input(vec![rule([tcp_dport(22), limit(), accept()]), drop_it()]);
    assert_eq!(says(&world), "dropped [filter input 2]");
}

/// Twenty rules that log some packets would be a million ways.
#[test]
fn a_condition_on_which_nothing_depends_is_none() {
    let log = || vec![Expr::NoEffect("log".into())];
    let world = input((0..20).map(|_| rule([limit(), log()])).collect());
    assert_eq!(says(&world), "passes []");
    let often = input(vec![rule([random(1 << 30), log()]), drop_it()]);
    assert_eq!(says(&often), "dropped [filter input 2]");
    // Two conditions, and a mark behind them.
    let world = input(vec![rule([limit(), log(), limit(), mark(1)])]);
    assert_eq!(world.says(Hook::Input, packet()).len(), 2);
}

#[test]
fn the_same_question_has_one_answer_and_another_rules_has_its_own() {
    // The chain is called twice; its limit is one question.
    let world = input(vec![jump("a"), jump("a"), accept()])
        .chain("filter a", vec![rule([limit(), back()]), rule([marked(1), drop_it()]), mark(1)]);
    let question = "limit (rule 1 of ip filter chain a)";
    assert_eq!(
        world.says(Hook::Input, packet()),
        [
            format!(
                "dropped with mark 0x1, if not: {question} [filter input 1, filter a 3, filter input 2, filter a 2]"
            ),
            format!("passes, if {question} [filter input 3]"),
        ]
    );
    // Two tables have a rule 1 in a chain of the same name each.
    let world = World::default()
        .base_at("mangle INPUT", Hook::Input, -150, true, vec![rule([limit(), mark(1)])])
        .base_at("filter INPUT", Hook::Input, 0, true, vec![rule([limit(), drop_it()])]);
    assert_eq!(world.says(Hook::Input, packet()).len(), 4);
}

#[test]
fn loops_and_chains_that_can_not_be_read_are_unknown() {
    let circle = input(vec![jump("a")]).chain("filter a", vec![jump("b")]);
    let circle = circle.chain("filter b", vec![goto("a")]);
    assert!(says(&circle).starts_with("unknown ["));
    let own = input(vec![goto("input")]);
    assert!(says(&own).starts_with("unknown ["));
    let lost = input(vec![rule([tcp_dport(80), jump("gone")]), accept()]);
    assert_eq!(says(&lost), "unknown [filter input 1]");
    let elsewhere = input(vec![rule([tcp_dport(22), jump("gone")]), accept()]);
    assert_eq!(says(&elsewhere), "passes [filter input 2]");
}

#[test]
fn deep_chains_are_followed_as_far_as_the_kernel_goes() {
    let mut world = input(vec![jump("c1"), drop_it()]);
    for at in 1..100 {
        world = world.chain(&format!("filter c{at}"), vec![jump(&format!("c{}", at + 1))]);
    }
    let ends = world.chain("filter c100", vec![accept()]);
    let text = says(&ends);
    assert!(text.starts_with("passes [filter input 1, filter c1 1,"), "{text}");
    assert!(text.ends_with("filter c99 1, filter c100 1]"), "{text}");
}

#[test]
fn too_many_branches_are_unknown_and_do_not_take_forever() {
    let rules = (0..64).map(|bit| rule([limit(), mark(1 << (bit % 32))])).collect();
    let outcomes = input(rules).run(Hook::Input, packet());
    assert!(outcomes.iter().any(|outcome| outcome.fate == Fate::Unknown));
}
