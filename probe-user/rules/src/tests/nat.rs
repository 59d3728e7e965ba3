//! Translations: of whom, when, and to where.

use super::*;

fn prerouting(rules: Vec<Vec<Expr>>) -> World {
    World::default().base("nat PREROUTING", Hook::Prerouting, rules)
}

fn says(world: &World) -> String {
    world.says_one(Hook::Prerouting, packet())
}

/// nft's `dnat to`, with an address and perhaps a port.
fn native(kind: NatKind, address: [u8; 4], port: Option<u16>) -> Vec<Expr> {
    let mut exprs = vec![immediate(0, &address)];
    if let Some(port) = port {
        exprs.push(immediate(4, &port.to_be_bytes()));
    }
    let port = port.map(|_| (Reg(4), Reg(4)));
    exprs.push(Expr::Nat { kind, ipv6: false, address: Some((Reg(0), Reg(0))), port, flags: 3 });
    exprs
}

fn redirect(ports: Option<(u16, u16)>) -> Vec<Expr> {
    target(XtTarget::Redirect(NatRange { addresses: None, ports, base: None, flags: 2 }))
}

#[test]
fn dnat_changes_the_destination_and_ends_all_nat_chains() {
    for (to, wanted) in [
        (dnat("10.0.0.1:8080"), "passes to 10.0.0.1:8080 [nat PREROUTING 2]"),
        (
            native(NatKind::Dnat, [10, 0, 0, 1], Some(8080)),
            "passes to 10.0.0.1:8080 [nat PREROUTING 2]",
        ),
        (native(NatKind::Dnat, [10, 0, 0, 1], None), "passes to 10.0.0.1:80 [nat PREROUTING 2]"),
    ] {
        let world = prerouting(vec![
            rule([tcp_dport(81), dnat("10.9.9.9:1")]),
            rule([tcp_dport(80), to]),
            dnat("10.9.9.9:2"),
        ])
        .base_at(
            "late-nat PREROUTING",
            Hook::Prerouting,
            -90,
            true,
            vec![dnat("10.9.9.9:3")],
        );
        assert_eq!(says(&world), wanted);
    }
}

#[test]
fn accept_in_a_nat_chain_goes_on_with_the_next() {
    let world = prerouting(vec![accept()]).base_at(
        "late-nat PREROUTING",
        Hook::Prerouting,
        -90,
        true,
        vec![dnat("10.0.0.1:80")],
    );
    assert_eq!(says(&world), "passes to 10.0.0.1:80 [nat PREROUTING 1, late-nat PREROUTING 1]");
}

#[test]
fn the_address_stays_when_only_the_port_is_set_and_the_other_way_round() {
    let range = |addresses, ports| {
        let range = NatRange { addresses, ports, base: None, flags: 0 };
        says(&prerouting(vec![target(XtTarget::Dnat(range))]))
    };
    let host = ip("10.0.0.1");
    assert_eq!(range(None, Some((81, 81))), "passes to 192.0.2.10:81 [nat PREROUTING 1]");
    assert_eq!(range(Some((host, host)), None), "passes to 10.0.0.1:80 [nat PREROUTING 1]");
    assert_eq!(range(None, None), "passes [nat PREROUTING 1]");
}

#[test]
fn of_an_address_range_each_is_as_likely() {
    let range = |last: &str| {
        let addresses = Some((ip("10.0.0.1"), ip(last)));
        let range = NatRange { addresses, ports: None, base: None, flags: 1 };
        prerouting(vec![target(XtTarget::Dnat(range))])
    };
    let all = range("10.0.0.4").says(Hook::Prerouting, packet());
    let same = "one client always gets the same of 10.0.0.1 to 10.0.0.4";
    let quarter = |n| format!("passes to 10.0.0.{n}:80, 25.0 % [nat PREROUTING 1] ({same})");
    assert_eq!(all, [quarter(1), quarter(2), quarter(3), quarter(4)]);
    // Nobody wants to read thousands.
    assert_eq!(says(&range("10.0.255.255")), "not modelled [nat PREROUTING 1]");
}

#[test]
fn port_ranges_keep_a_port_that_is_in_them() {
    const RANDOM: u32 = 4;
    const OFFSET: u32 = 0x20;
    let ranged = |ports, base, flags: u32| {
        let flags = flags | 3;
        let range = NatRange { ports: Some(ports), base, flags, ..to("10.0.0.1:1") };
        says(&prerouting(vec![target(XtTarget::Dnat(range))]))
    };
    let at = |port: u16| format!("passes to 10.0.0.1:{port} [nat PREROUTING 1]");
    assert_eq!(ranged((70, 90), None, 0), at(80));
    assert_eq!(
        ranged((8000, 8010), None, 0),
        format!("{} (another port up to 8010 if 8000 is taken)", at(8000))
    );
    assert_eq!(ranged((8000, 8000), None, RANDOM), at(8000));
    for ports in [(8000, 8010), (70, 90)] {
        assert_eq!(ranged(ports, None, RANDOM), "not modelled [nat PREROUTING 1]");
    }
    // 78-88 → 8000-8010: the third stays the third.
    assert_eq!(ranged((8000, 8010), Some(78), OFFSET), at(8002));
    assert_eq!(ranged((8000, 8001), Some(77), OFFSET), at(8001));
}

#[test]
fn redirect_goes_to_the_interface_or_to_loopback() {
    let rules = || vec![redirect(Some((8080, 8080)))];
    let elsewhere = Packet { destination: ip("203.0.113.5"), ..packet() };
    let text = prerouting(rules()).says_one(Hook::Prerouting, elsewhere.clone());
    assert_eq!(text, "passes to 192.0.2.10:8080 [nat PREROUTING 1]");
    let output = World::default().base("nat OUTPUT", Hook::Output, rules());
    let text = output.says_one(Hook::Output, local("203.0.113.5:80"));
    assert_eq!(text, "passes to 127.0.0.1:8080 [nat OUTPUT 1]");
    // An interface without an address.
    let bare = Nic { index: 9, name: "tap0".into() };
    let lost =
        prerouting(rules()).says_one(Hook::Prerouting, Packet { iif: Some(bare), ..elsewhere });
    assert_eq!(lost, "dropped [nat PREROUTING 1]");
    // nft's, with the port kept.
    let native = prerouting(vec![vec![Expr::Redirect { port: None, flags: 0 }]]);
    let elsewhere = Packet { destination: ip("203.0.113.5"), ..packet() };
    let text = native.says_one(Hook::Prerouting, elsewhere);
    assert_eq!(text, "passes to 192.0.2.10:80 [nat PREROUTING 1]");
}

#[test]
fn only_the_first_tracked_packet_is_translated_and_once() {
    let world = prerouting(vec![dnat("10.0.0.1:80")]);
    let decided = Packet { original: Some((ip(HOST), 80)), ..packet() };
    assert_eq!(world.says_one(Hook::Prerouting, decided), "passes []");
    let untracked = Packet { untracked: true, ..packet() };
    assert_eq!(world.says_one(Hook::Prerouting, untracked), "passes untracked []");
    let raw = |priority| {
        prerouting(vec![dnat("10.0.0.1:80")]).base_at(
            "raw PREROUTING",
            Hook::Prerouting,
            priority,
            true,
            vec![vec![Expr::Notrack]],
        )
    };
    assert_eq!(says(&raw(-300)), "passes untracked [raw PREROUTING 1]");
    // Too late: conntrack has seen it.
    assert_eq!(says(&raw(-150)), "passes to 10.0.0.1:80 [nat PREROUTING 1]");
}

/// Rules before NAT see the old destination, those behind it the new one.
#[test]
fn chains_around_nat_see_one_destination_each() {
    let check = |port| vec![rule([tcp_dport(port), drop_it()])];
    for (priority, port, wanted) in [
        (-150, 8080, "passes to 10.0.0.1:8080 [nat PREROUTING 1]"),
        (-150, 80, "dropped [mangle PREROUTING 1]"),
        (-50, 80, "passes to 10.0.0.1:8080 [nat PREROUTING 1]"),
        (-50, 8080, "dropped to 10.0.0.1:8080 [nat PREROUTING 1, mangle PREROUTING 1]"),
    ] {
        let hook = Hook::Prerouting;
        let world = prerouting(vec![dnat("10.0.0.1:8080")]);
        let world = world.base_at("mangle PREROUTING", hook, priority, true, check(port));
        assert_eq!(says(&world), wanted, "{priority} {port}");
    }
}

#[test]
fn the_source_is_translated_on_the_way_out() {
    let masquerade = NatRange { addresses: None, ports: None, base: None, flags: 0 };
    let snat = NatRange { ports: None, ..to("192.0.2.1:0") };
    let some = NatRange { addresses: Some((ip("192.0.2.1"), ip("192.0.2.9"))), ..snat };
    let netmap = NatRange { addresses: Some((ip("10.1.0.0"), ip("10.1.255.255"))), ..snat };
    for (what, wanted) in [
        (target(XtTarget::Masquerade(masquerade)), "passes masqueraded [nat POSTROUTING 1]"),
        (vec![Expr::Masquerade { flags: 0 }], "passes masqueraded [nat POSTROUTING 1]"),
        (target(XtTarget::Snat(snat)), "passes as 192.0.2.1 [nat POSTROUTING 1]"),
        (native(NatKind::Snat, [192, 0, 2, 1], None), "passes as 192.0.2.1 [nat POSTROUTING 1]"),
        (
            target(XtTarget::Snat(some)),
            "passes as 192.0.2.1 [nat POSTROUTING 1] (the source becomes one of 192.0.2.1 to 192.0.2.9)",
        ),
        // 198.51.100.7 in 10.1.0.0/16.
        (target(XtTarget::Netmap(netmap)), "passes as 10.1.100.7 [nat POSTROUTING 1]"),
    ] {
        let rules = vec![what, target(XtTarget::Masquerade(masquerade))];
        let world = World::default().base("nat POSTROUTING", Hook::Postrouting, rules);
        assert_eq!(world.says_one(Hook::Postrouting, packet()), wanted);
        let decided = Packet { seen_as: Some(SeenAs::Itself), ..packet() };
        assert_eq!(world.says_one(Hook::Postrouting, decided), "passes []");
    }
}

#[test]
fn netmap_keeps_the_host() {
    let range =
        NatRange { addresses: Some((ip("10.1.2.0"), ip("10.1.2.255"))), ..to("10.1.2.0:0") };
    let range = NatRange { ports: None, ..range };
    let world = prerouting(vec![target(XtTarget::Netmap(range))]);
    assert_eq!(says(&world), "passes to 10.1.2.10:80 [nat PREROUTING 1]");
}

/// `dnat to numgen random mod 3 map { 0 : 10.0.0.1 . 8081, … }`.
#[test]
fn dnat_to_a_map_of_random_numbers() {
    let target = |n: u8| [10, 0, 0, n, 0x1f, 0x90 + n, 0, 0];
    let key = |n: u32| n.to_ne_bytes();
    let map = Expr::Map { set: "__map0".into(), sreg: Reg(0), dreg: Some(Reg(4)) };
    let translate = Expr::Nat {
        kind: NatKind::Dnat,
        ipv6: false,
        address: Some((Reg(4), Reg(4))),
        port: Some((Reg(5), Reg(5))),
        flags: 3,
    };
    let world = |modulus| {
        prerouting(vec![vec![numgen(modulus, 0), map.clone(), translate.clone()], drop_it()]).set(
            "nat",
            "__map0",
            4,
            (0..3).map(|n| maps(&key(u32::from(n)), &target(n))).collect(),
        )
    };
    let to = |n, share| format!("passes to 10.0.0.{n}:{}, {share} % ", 8080 + n);
    let all = world(3).says(Hook::Prerouting, packet());
    let starts: Vec<_> = (0..3).map(|n| to(n, "33.3")).collect();
    assert!(all.len() == 3 && all.iter().zip(&starts).all(|(a, b)| a.starts_with(b)), "{all:?}");
    // A number without an element ends the rule.
    let all = world(4).says(Hook::Prerouting, packet());
    assert_eq!(all[0], "dropped, 25.0 % [nat PREROUTING 2]");
    assert!(all[1].starts_with(&to(0, "25.0")), "{all:?}");
    // The element that was chosen is told.
    let outcomes = world(3).run(Hook::Prerouting, packet());
    let told = |o: &Outcome| o.trail.iter().any(|step| step.element.is_some());
    assert!(outcomes.iter().all(told));
    let words: Vec<String> = outcomes.iter().map(|o| text::summary(&o.trail)).collect();
    assert!(words[1].ends_with("dnat to 10.0.0.1:8081"), "{words:?}");
}

#[test]
fn session_affinity_is_a_note_and_keeps_the_shares() {
    let recent = |name: &str, set| {
        let name = name.to_owned();
        vec![Expr::Match(XtMatch::Recent { name, set, seconds: 10800, invert: false }.into())]
    };
    let (a, b) = ("KUBE-SEP-AAAA", "KUBE-SEP-BBBB");
    let world = prerouting(vec![
        rule([recent(a, false), dnat("10.0.0.1:80")]),
        rule([recent(b, false), dnat("10.0.0.2:80")]),
        rule([random(1 << 30), recent(a, true), dnat("10.0.0.1:80")]),
        rule([recent(b, true), dnat("10.0.0.2:80")]),
    ]);
    let note = "(session affinity: who came in the last 10800 s may always get the same)";
    assert_eq!(
        world.says(Hook::Prerouting, packet()),
        [
            format!("passes to 10.0.0.1:80, 50.0 % [nat PREROUTING 3] {note}"),
            format!("passes to 10.0.0.2:80, 50.0 % [nat PREROUTING 4] {note}"),
        ]
    );
    // A list that decides more than that is a condition, whatever its name.
    for name in ["knock", "KUBE-SEP-AAAA"] {
        let world = prerouting(vec![
            rule([recent(name, false), dnat("10.0.0.1:80")]),
            rule([recent(name, false), dnat("10.0.0.2:80")]),
        ]);
        let list = format!("in the recent list {name:?} of the last 10800 s");
        assert_eq!(
            world.says(Hook::Prerouting, packet()),
            [
                format!(
                    "passes to 10.0.0.1:80, if the client's address is {list} [nat PREROUTING 1]"
                ),
                format!("passes, if the client's address is not {list} []"),
            ]
        );
    }
}

/// Two programs that hook their own nat tables in at the same priority.
#[test]
fn nat_tables_of_equal_priority_are_tried_in_both_orders() {
    let both = |one: &str, other: &str| {
        prerouting(vec![dnat(one)])
            .base("other-nat PREROUTING", Hook::Prerouting, vec![dnat(other)])
            .says(Hook::Prerouting, packet())
    };
    let question = "the order of ip other-nat chain PREROUTING and ip nat chain PREROUTING is";
    assert_eq!(
        both("10.0.0.1:80", "10.0.0.2:80"),
        [
            format!(
                "passes to 10.0.0.1:80, if {question} not that of their tables [nat PREROUTING 1]"
            ),
            format!(
                "passes to 10.0.0.2:80, if {question} that of their tables [other-nat PREROUTING 1]"
            ),
        ]
    );
    assert_eq!(both("10.0.0.1:80", "10.0.0.1:80").len(), 1);
}
