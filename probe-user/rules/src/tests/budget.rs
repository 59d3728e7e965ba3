//! Rules that are written to be followed for ever. What counts is how many steps they take.

use super::*;

const TO: &str = "10.0.0.1:80";

/// `tcp sport`.
fn sport(port: u16) -> Vec<Expr> {
    vec![payload(PayloadBase::Transport, 0, 2), cmp(CmpOp::Eq, &port.to_be_bytes())]
}

/// Chains that lead to the next one by these rules, and a rule of prerouting behind them.
fn deep(depth: usize, rules: impl Fn(&str) -> Vec<Vec<Expr>>) -> World {
    let mut world = World::default();
    for at in 0..depth {
        world = world.chain(&format!("nat c{at}"), rules(&format!("c{}", at + 1)));
    }
    world = world.chain(&format!("nat c{depth}"), Vec::new());
    world.base("nat pre", Hook::Prerouting, vec![jump("c0"), rule([tcp_dport(80), dnat(TO)])])
}

#[test]
fn a_chain_that_does_nothing_is_run_once_however_often_it_is_called() {
    let world = deep(14, |next| vec![jump(next); 8]);
    assert_eq!(
        world.says_one(Hook::Prerouting, packet()),
        "passes to 10.0.0.1:80 [nat pre 2]",
        "what comes behind them is found"
    );
    // 8 to the power of 14 calls.
    assert!(world.spent.get() < 10_000, "{}", world.spent.get());
    // By a map or for good it is the same.
    let world = deep(14, |next| vec![goto(next); 1]);
    assert_eq!(world.says_one(Hook::Prerouting, packet()), "passes to 10.0.0.1:80 [nat pre 2]");
}

#[test]
fn a_chain_that_does_something_is_run_each_time() {
    let world = World::default()
        .chain("nat once", vec![rule([marked(1), dnat(TO)]), mark(1)])
        .base("nat pre", Hook::Prerouting, vec![jump("once"), jump("once")]);
    let outcomes = world.run(Hook::Prerouting, packet());
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].packet.destination, ip("10.0.0.1"));
}

#[test]
fn an_assumption_makes_a_chain_worth_another_call() {
    let world = World::default()
        .chain("nat first", vec![rule([sport(1), jump("second")])])
        .chain("nat second", vec![rule([sport(2), mark(1)])])
        .base("nat pre", Hook::Prerouting, vec![jump("first"), jump("second")]);
    let marks: BTreeSet<u32> =
        world.run(Hook::Prerouting, packet()).iter().map(|o| o.packet.mark).collect();
    assert_eq!(marks, BTreeSet::from([0, 1]));
}

#[test]
fn many_conditions_on_the_sender_that_lead_to_the_same_are_one() {
    let rules = (1..400).map(|port| rule([sport(port), dnat(TO)])).collect();
    let world = World::default().base("nat pre", Hook::Prerouting, rules);
    let outcomes = world.run(Hook::Prerouting, packet());
    assert_eq!(outcomes.len(), 2, "{:#?}", outcomes.iter().map(told).collect::<Vec<_>>());
    let depends = &outcomes[0].depends;
    assert_eq!(
        said(depends),
        "one of 399 conditions holds, such as: the client's port (rule 1 of ip nat chain pre)"
    );
    let other = said(&outcomes[1].depends);
    assert!(other.len() < 1000 && other.contains("other conditions turn out so"), "{other}");
    assert!(world.spent.get() < 1_000_000, "{}", world.spent.get());
}

#[test]
fn of_many_targets_that_depend_on_the_sender_a_few_are_told_and_the_number_of_the_others() {
    let to = |port: u16| format!("10.1.{}.{}:80", port >> 8, port & 255);
    let rules = (1..2000).map(|port| rule([sport(port), dnat(&to(port))])).collect();
    let world = World::default().base("nat pre", Hook::Prerouting, rules);
    let outcomes = world.run(Hook::Prerouting, packet());
    assert!(outcomes.len() < 40, "{}", outcomes.len());
    let more: usize = outcomes.iter().map(|outcome| outcome.more).sum();
    // So many branches one hook makes.
    assert!(more > 400, "{more}");
    assert!(outcomes.iter().any(|outcome| outcome.fate == Fate::Unknown));
    assert!(outcomes[0].fate == Fate::Passes && outcomes[0].packet.dport == 80);
}

#[test]
fn many_chains_that_drop_some_senders_are_one_outcome() {
    let mut world = World::default();
    for port in 1..300 {
        world =
            world.base(&format!("t{port} out"), Hook::Output, vec![rule([sport(port), drop_it()])]);
    }
    let outcomes = world.run(Hook::Output, local("10.0.0.9:80"));
    let fates: Vec<Fate> = outcomes.iter().map(|outcome| outcome.fate).collect();
    assert_eq!(fates.len(), 2, "{fates:?}");
    assert!(fates.contains(&Fate::Dropped) && fates.contains(&Fate::Passes));
}

#[test]
fn what_has_no_steps_left_is_not_known() {
    let mut world = deep(14, |next| {
        let mut rules = vec![jump(next); 8];
        rules.push(mark(1));
        rules
    });
    world.limit = Some(20_000);
    let fates: Vec<Fate> =
        world.run(Hook::Prerouting, packet()).iter().map(|outcome| outcome.fate).collect();
    assert_eq!(fates, [Fate::Unknown]);
    assert!(world.spent.get() < 21_000, "it ends there: {}", world.spent.get());
}

#[test]
fn a_map_of_many_elements_costs_as_many_steps() {
    let elements = (0..4000_u32).map(|n| leads(&n.to_ne_bytes(), RuleVerdict::Drop)).collect();
    let choose =
        vec![numgen(1000, 0), Expr::Map { set: "choice".into(), sreg: Reg(0), dreg: None }];
    let mut world = World::default().set("nat", "choice", 4, elements).base(
        "nat pre",
        Hook::Prerouting,
        vec![choose],
    );
    world.limit = Some(100_000);
    let outcomes = world.run(Hook::Prerouting, packet());
    assert_eq!(outcomes[0].fate, Fate::Unknown);
}
