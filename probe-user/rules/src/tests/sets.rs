//! Sets, maps and verdict maps.

use super::*;

fn input(rules: Vec<Vec<Expr>>) -> World {
    World::default().base("filter input", Hook::Input, rules)
}

fn lookup(name: &str, invert: bool) -> Expr {
    Expr::Lookup { set: name.into(), sreg: Reg(0), invert }
}

fn vmap(name: &str) -> Expr {
    Expr::Map { set: name.into(), sreg: Reg(0), dreg: None }
}

fn dport() -> Expr {
    payload(PayloadBase::Transport, 2, 2)
}

fn saddr() -> Expr {
    payload(PayloadBase::Network, 12, 4)
}

fn range(from: &[u8], to: &[u8]) -> Element {
    Element { key_end: Some(Bytes::from(to.to_vec())), ..element(from) }
}

fn port(port: u16) -> [u8; 2] {
    port.to_be_bytes()
}

#[test]
fn a_port_is_in_a_set_or_is_not() {
    let ports = || vec![element(&port(22)), element(&port(80)), range(&port(8000), &port(8010))];
    for (dport_of, is_in) in [(80, true), (81, false), (8000, true), (8010, true), (8011, false)] {
        for invert in [false, true] {
            let world = input(vec![rule([vec![dport(), lookup("p", invert)], drop_it()])]);
            let world = world.set("filter", "p", 2, ports());
            let text = world.says_one(Hook::Input, Packet { dport: dport_of, ..packet() });
            let wanted = if is_in == invert { "passes []" } else { "dropped [filter input 1]" };
            assert_eq!(text, wanted, "{dport_of} {invert}");
        }
    }
}

#[test]
fn a_verdict_map_leads_each_port_elsewhere() {
    let on = RuleVerdict::Continue;
    let rules =
        vec![rule([vec![dport(), vmap("m")], mark(1), accept()]), rule([marked(0), reject()])];
    let world = input(rules)
        .chain("filter web", vec![rule([saddr_in(&[10], CmpOp::Eq), accept()])])
        .chain("filter dns", vec![drop_it()])
        .set(
            "filter",
            "m",
            2,
            vec![
                leads(&port(80), RuleVerdict::Jump("web".into())),
                leads(&port(53), RuleVerdict::Goto("dns".into())),
                leads(&port(22), RuleVerdict::Accept),
                leads(&port(23), RuleVerdict::Drop),
                leads(&port(24), RuleVerdict::Return),
                leads(&port(25), on),
                leads(&port(26), RuleVerdict::Break),
            ],
        );
    for (to, wanted) in [
        // web's chain came back, and the next rule decides.
        (80, "refused by Port [filter input 2]"),
        (53, "dropped [filter input 1, filter dns 1]"),
        (22, "passes [filter input 1]"),
        (23, "dropped [filter input 1]"),
        (24, "passes []"),
        (25, "passes with mark 0x1 [filter input 1]"),
        (26, "refused by Port [filter input 2]"),
        // In no element: the rule ends.
        (99, "refused by Port [filter input 2]"),
    ] {
        let text = world.says_one(Hook::Input, Packet { dport: to, ..packet() });
        assert_eq!(text, wanted, "{to}");
    }
    let outcomes = world.run(Hook::Input, Packet { dport: 53, ..packet() });
    let chosen = outcomes[0].trail[0].element.as_ref().unwrap();
    assert_eq!(chosen.key, Bytes::from(port(53).to_vec()));
}

#[test]
fn the_catch_all_element_is_for_the_rest() {
    let all = Element { catch_all: true, ..leads(&[], RuleVerdict::Drop) };
    let world = input(vec![vec![dport(), vmap("m")]]);
    let world =
        world.set("filter", "m", 2, vec![all.clone(), leads(&port(80), RuleVerdict::Accept)]);
    assert_eq!(world.says_one(Hook::Input, packet()), "passes [filter input 1]");
    let other = Packet { dport: 81, ..packet() };
    assert_eq!(world.says_one(Hook::Input, other), "dropped [filter input 1]");
    // The same for a client that is not known.
    let one = leads(&[10, 0, 0, 1], RuleVerdict::Accept);
    let world = input(vec![vec![saddr(), vmap("m")]]).set("filter", "m", 4, vec![all, one]);
    assert_eq!(
        world.says(Hook::Input, from_anybody()),
        [
            "dropped, if the client's address is not 10.0.0.1 [filter input 1]",
            "passes, if the client's address is 10.0.0.1 [filter input 1]",
        ]
    );
}

/// `ip daddr . meta l4proto . th dport vmap @service-ips`.
#[test]
fn concatenations_are_keys_of_all_their_parts() {
    let load = || {
        vec![
            payload(PayloadBase::Network, 16, 4),
            Expr::Meta { key: MetaKey::L4proto, dreg: Reg(1) },
            Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, dreg: Reg(2) },
        ]
    };
    let key = |last, proto, port| [192, 0, 2, last, proto, 0, 0, 0, 0, port, 0, 0];
    let world = |elements| {
        input(vec![[load(), vec![vmap("service-ips")]].concat()]).concat(
            "filter",
            "service-ips",
            &[4, 1, 2],
            elements,
        )
    };
    let drops = |key: [u8; 12]| leads(&key, RuleVerdict::Drop);
    for (wrong, right) in [
        (key(11, 6, 80), key(10, 6, 80)),
        (key(10, 17, 80), key(10, 6, 80)),
        (key(10, 6, 81), key(10, 6, 80)),
    ] {
        assert_eq!(world(vec![drops(wrong)]).says_one(Hook::Input, packet()), "passes []");
        let both = vec![drops(wrong), drops(right)];
        assert_eq!(world(both).says_one(Hook::Input, packet()), "dropped [filter input 1]");
    }
    // Each part in a range of its own.
    let ranged = |from, to| {
        let key_end = Some(Bytes::from(to));
        vec![Element { key_end, ..drops(from) }]
    };
    let inside = ranged(key(0, 6, 70), key(255, 6, 90).to_vec());
    assert_eq!(world(inside).says_one(Hook::Input, packet()), "dropped [filter input 1]");
    let outside = ranged(key(0, 6, 81), key(255, 6, 90).to_vec());
    assert_eq!(world(outside).says_one(Hook::Input, packet()), "passes []");
}

#[test]
fn a_client_that_is_not_known_may_be_in_a_set() {
    let question = "the client's address is in set blocked of ip filter";
    let members = || vec![element(&[10, 0, 0, 1]), range(&[10, 1, 0, 0], &[10, 1, 255, 255])];
    let rules = |invert| {
        vec![
            rule([vec![saddr(), lookup("blocked", invert)], drop_it()]),
            // The same question has the same answer.
            rule([vec![saddr(), lookup("blocked", !invert)], reject()]),
        ]
    };
    let says = |invert, packet| {
        input(rules(invert)).set("filter", "blocked", 4, members()).says(Hook::Input, packet)
    };
    let is_not = question.replace(" is ", " is not ");
    assert_eq!(
        says(false, from_anybody()),
        [
            format!("dropped, if {question} [filter input 1]"),
            format!("refused by Port, if {is_not} [filter input 2]"),
        ]
    );
    assert_eq!(
        says(true, from_anybody()),
        [
            format!("dropped, if {is_not} [filter input 1]"),
            format!("refused by Port, if {question} [filter input 2]"),
        ]
    );
    // Whoever is known is looked up, and nobody is in an empty set.
    assert_eq!(says(false, packet()), ["refused by Port [filter input 2]"]);
    let empty = input(rules(false)).set("filter", "blocked", 4, Vec::new());
    assert_eq!(empty.says(Hook::Input, from_anybody()), ["refused by Port [filter input 2]"]);
}

/// `tcp dport . ip saddr @allowed`: what is known must fit an element.
#[test]
fn of_a_key_that_is_known_in_part_the_rest_is_asked_for() {
    let load = || {
        vec![
            dport(),
            Expr::Payload { base: PayloadBase::Network, offset: 12, len: 4, dreg: Reg(1) },
        ]
    };
    let world = |port| {
        let rules = vec![[load(), vec![lookup("allowed", false)], accept()].concat(), drop_it()];
        let key = [0, port, 0, 0, 10, 0, 0, 1];
        input(rules).set("filter", "allowed", 8, vec![element(&key)])
    };
    assert_eq!(world(22).says(Hook::Input, from_anybody()), ["dropped [filter input 2]"]);
    assert_eq!(world(80).says(Hook::Input, from_anybody()).len(), 2);
}

/// Anonymous sets of two tables have the same name.
#[test]
fn sets_of_two_tables_are_two() {
    let rules = |last| vec![rule([vec![saddr(), lookup("__set0", false)], last])];
    let world = World::default()
        .base_at("a input", Hook::Input, 0, true, rules(mark(1)))
        .base_at("b input", Hook::Input, 1, true, rules(drop_it()))
        .set("a", "__set0", 4, vec![element(&[10, 0, 0, 1])])
        .set("b", "__set0", 4, vec![element(&[10, 0, 0, 2])]);
    assert_eq!(world.says(Hook::Input, from_anybody()).len(), 4);
}

#[test]
fn a_map_by_client_goes_every_way() {
    let rules = vec![vec![saddr(), vmap("m")], reject()];
    let world = input(rules).set(
        "filter",
        "m",
        4,
        vec![
            leads(&[10, 0, 0, 1], RuleVerdict::Accept),
            Element {
                key_end: Some(Bytes::from(vec![10, 1, 255, 255])),
                ..leads(&[10, 1, 0, 0], RuleVerdict::Drop)
            },
        ],
    );
    let all: Vec<String> = world.run(Hook::Input, from_anybody()).iter().map(told).collect();
    assert_eq!(
        all,
        [
            "passes, if the client's address is 10.0.0.1 [filter input 1]",
            "dropped, if the client's address is one of 10.1.0.0 to 10.1.255.255 [filter input 1]",
            "refused by Port, if the client's address is not 10.0.0.1 and the client's address is not one of 10.1.0.0 to 10.1.255.255 [filter input 2]",
        ]
    );
}

#[test]
fn sets_that_can_not_be_read_are_asked_for_and_such_maps_unknown() {
    let world = input(vec![rule([vec![dport(), lookup("gone", false)], drop_it()])]);
    let question = "a match in set gone, which could not be read (rule 1 of ip filter chain input)";
    assert_eq!(
        world.says(Hook::Input, packet()),
        [
            format!("dropped, if {question} [filter input 1]"),
            format!("passes, if not: {question} []"),
        ]
    );
    let world = input(vec![vec![dport(), vmap("gone")], accept()]);
    assert_eq!(world.says_one(Hook::Input, packet()), "not modelled [filter input 1]");
}

/// kube-proxy's nftables mode remembers clients in sets.
#[test]
fn sets_that_rules_fill_are_asked_whatever_their_name() {
    let rules = vec![rule([vec![saddr(), lookup("affinity-x", false)], drop_it()]), accept()];
    let world = input(rules).set("filter", "affinity-x", 4, vec![element(&[10, 0, 0, 1])]);
    assert_eq!(
        world.says(Hook::Input, from_anybody()),
        [
            "dropped, if the client's address is in set affinity-x of ip filter [filter input 1]",
            "passes, if the client's address is not in set affinity-x of ip filter [filter input 2]",
        ]
    );
}

/// kube-proxy's nftables mode remembers clients so: `ip saddr @affinity-… goto endpoint-…`.
#[test]
fn sets_that_only_choose_among_what_others_get_are_a_note() {
    let before = |name, to| rule([vec![saddr(), lookup(name, false)], dnat(to)]);
    let rules = |first| {
        vec![
            before("a", first),
            before("b", "10.0.0.2:80"),
            rule([random(1 << 30), dnat("10.0.0.1:80")]),
            dnat("10.0.0.2:80"),
        ]
    };
    let world = |first| {
        World::default()
            .base("nat PREROUTING", Hook::Prerouting, rules(first))
            .memory("nat", "a", &[10, 9, 0, 1])
            .memory("nat", "b", &[10, 9, 0, 2])
    };
    let note = "(session affinity: who came before may always get the same)";
    assert_eq!(
        world("10.0.0.1:80").says(Hook::Prerouting, from_anybody()),
        [
            format!("passes to 10.0.0.1:80, 50.0 % [nat PREROUTING 3] {note}"),
            format!("passes to 10.0.0.2:80, 50.0 % [nat PREROUTING 4] {note}"),
        ]
    );
    // Where nobody else gets, it decides.
    let decides =
        "passes to 10.0.0.3:80, if the client's address is in set a of ip nat [nat PREROUTING 1]";
    let says = world("10.0.0.3:80").says(Hook::Prerouting, from_anybody());
    assert!(says.iter().any(|one| one == decides), "{says:?}");
}
