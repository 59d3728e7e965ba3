//! Conditions as nft writes them: for each, packets for which it holds, for which it
//! does not, and for which that is not known.

use super::*;
use CmpOp::{Eq, Neq};

fn world(hook: Hook, condition: Vec<Expr>) -> World {
    World::default().base("filter c", hook, vec![rule([condition, drop_it()])])
}

/// Whether it surely holds.
fn holds_at(hook: Hook, condition: Vec<Expr>, packet: Packet) -> bool {
    match world(hook, condition).says_one(hook, packet).split_once(" [").unwrap() {
        (fate, "filter c 1]") if fate.starts_with("dropped") => true,
        (fate, "]") if fate.starts_with("passes") => false,
        other => panic!("{other:?}"),
    }
}

fn holds(condition: Vec<Expr>, packet: Packet) -> bool {
    holds_at(Hook::Input, condition, packet)
}

/// What it depends on.
fn depends(condition: Vec<Expr>, packet: Packet) -> String {
    let outcomes = world(Hook::Input, condition).run(Hook::Input, packet);
    assert_complete(&outcomes);
    let dropped = outcomes.iter().find(|outcome| outcome.fate == Fate::Dropped).unwrap();
    assert_eq!((outcomes.len(), dropped.depends.len()), (2, 1));
    dropped.depends[0].text.clone()
}

fn is(load: Expr, op: CmpOp, value: &[u8]) -> Vec<Expr> {
    vec![load, cmp(op, value)]
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

#[test]
fn interfaces() {
    for (key, op, value, input, output) in [
        (MetaKey::Iifname, Eq, name("eth0"), true, false),
        (MetaKey::Iifname, Eq, name("eth"), false, false),
        // `eth*`.
        (MetaKey::Iifname, Eq, b"eth".to_vec(), true, false),
        (MetaKey::Iifname, Neq, name("docker0"), true, true),
        (MetaKey::Iif, Eq, 2_u32.to_ne_bytes().to_vec(), true, false),
        (MetaKey::Iif, Neq, 2_u32.to_ne_bytes().to_vec(), false, true),
        (MetaKey::Oifname, Eq, name("eth0"), false, true),
        (MetaKey::Oifname, Neq, name("lo"), true, true),
        (MetaKey::Oif, Eq, 2_u32.to_ne_bytes().to_vec(), false, true),
    ] {
        let test = || is(meta(key.clone()), op, &value);
        let at_output = holds_at(Hook::Output, test(), local("192.0.2.99:80"));
        assert_eq!((holds(test(), packet()), at_output), (input, output), "{key:?} {op:?}");
    }
}

#[test]
fn protocols_and_ports() {
    let udp = || Packet { proto: Proto::Udp, ..packet() };
    let dport = |op, port: u16| is(payload(PayloadBase::Transport, 2, 2), op, &port.to_be_bytes());
    for (test, wanted) in [
        (tcp_dport(80), true),
        (tcp_dport(81), false),
        (dport(CmpOp::Neq, 80), false),
        (dport(CmpOp::Lt, 256), true),
        (dport(CmpOp::Gt, 80), false),
        (dport(CmpOp::Gte, 80), true),
        ([dport(CmpOp::Gte, 70), dport(CmpOp::Lte, 79)].concat(), false),
        (is(meta(MetaKey::Nfproto), CmpOp::Eq, &[2]), true),
        (is(meta(MetaKey::Protocol), CmpOp::Eq, &[0x86, 0xdd]), false),
        (is(payload(PayloadBase::Network, 9, 1), CmpOp::Eq, &[6]), true),
        // `tcp flags syn / fin,syn,rst,ack`.
        (
            vec![payload(PayloadBase::Transport, 13, 1), masked(1, &[0x17]), cmp(CmpOp::Eq, &[2])],
            true,
        ),
        (
            vec![payload(PayloadBase::Transport, 13, 1), masked(1, &[0x10]), cmp(CmpOp::Neq, &[0])],
            false,
        ),
    ] {
        assert_eq!(holds(test.clone(), packet()), wanted, "{test:?}");
    }
    assert!(!holds(tcp_dport(80), udp()));
    let range = |from: u16, to: u16, invert| {
        let bytes = |port: u16| Bytes::from(port.to_be_bytes().to_vec());
        let range =
            Expr::Range { sreg: Reg(0), invert, from: bytes(from).into(), to: bytes(to).into() };
        vec![payload(PayloadBase::Transport, 2, 2), range]
    };
    for (from, to, is_in) in [(80, 80, true), (79, 81, true), (81, 90, false), (1, 79, false)] {
        assert_eq!(holds(range(from, to, false), packet()), is_in);
        assert_eq!(holds(range(from, to, true), packet()), !is_in);
    }
}

#[test]
fn destinations() {
    let daddr = |len| payload(PayloadBase::Network, 16, len);
    for (test, wanted) in [
        (is(daddr(4), CmpOp::Eq, &[192, 0, 2, 10]), true),
        (is(daddr(4), CmpOp::Neq, &[192, 0, 2, 10]), false),
        (is(daddr(1), CmpOp::Eq, &[192]), true),
        (is(daddr(3), CmpOp::Eq, &[192, 0, 3]), false),
        // 192.0.0.0/12 and 192.16.0.0/12.
        (vec![daddr(4), masked(4, &[255, 240, 0, 0]), cmp(CmpOp::Eq, &[192, 0, 0, 0])], true),
        (vec![daddr(4), masked(4, &[255, 240, 0, 0]), cmp(CmpOp::Eq, &[192, 16, 0, 0])], false),
    ] {
        assert_eq!(holds(test.clone(), packet()), wanted, "{test:?}");
    }
}

#[test]
fn a_known_client_is_compared_and_an_unknown_one_asked_for() {
    let (in_it, outside) = (saddr_in(&[198, 51], CmpOp::Eq), saddr_in(&[198, 51], CmpOp::Neq));
    assert!(holds(in_it.clone(), packet()) && !holds(outside.clone(), packet()));
    let network = "the client's address is in 198.51.0.0/16";
    assert_eq!(depends(in_it, from_anybody()), network);
    assert_eq!(depends(outside, from_anybody()), network.replace(" is ", " is not "));
    let one = saddr_in(&[198, 51, 100, 7], CmpOp::Eq);
    assert_eq!(depends(one, from_anybody()), "the client's address is 198.51.100.7");
    let odd = vec![
        payload(PayloadBase::Network, 12, 4),
        masked(4, &[255, 240, 0, 0]),
        cmp(CmpOp::Eq, &[172, 16, 0, 0]),
    ];
    assert_eq!(depends(odd, from_anybody()), "the client's address is in 172.16.0.0/12");
    // Both addresses at once: the other one decides first.
    let both =
        |last| is(payload(PayloadBase::Network, 12, 8), CmpOp::Eq, &[10, 0, 0, 1, 192, 0, 2, last]);
    assert!(!holds(both(11), from_anybody()));
    assert_eq!(depends(both(10), from_anybody()), "the client's address is 10.0.0.1");
}

/// Nobody elsewhere has an address of this node, or of loopback.
#[test]
fn a_client_elsewhere_is_not_here() {
    for network in [&[127][..], &[127, 0, 0, 1], &[192, 0, 2, 10]] {
        assert!(!holds(saddr_in(network, CmpOp::Eq), from_anybody()));
        assert!(holds(saddr_in(network, CmpOp::Neq), from_anybody()));
    }
    // Nor one that is behind another interface.
    let by_tap = Packet { iif: Some(Nic { index: 9, name: "tap0".into() }), ..from_anybody() };
    assert!(!holds(saddr_in(&[10], CmpOp::Eq), by_tap));
}

#[test]
fn the_same_client_is_asked_for_once() {
    let rules = vec![
        rule([saddr_in(&[10], CmpOp::Neq), mark(1)]),
        rule([marked(0), saddr_in(&[10], CmpOp::Eq), accept()]),
        rule([saddr_in(&[10], CmpOp::Eq), reject()]),
        drop_it(),
    ];
    let world = World::default().base("filter c", Hook::Input, rules);
    assert_eq!(
        world.says(Hook::Input, from_anybody()),
        [
            "dropped with mark 0x1, if the client's address is not in 10.0.0.0/8 [filter c 1, filter c 4]",
            "passes, if the client's address is in 10.0.0.0/8 [filter c 2]",
        ]
    );
}

/// Who is in a network is in those around it, and in no other one.
#[test]
fn what_is_assumed_of_a_client_decides_other_networks() {
    let says = |rules| {
        let world = World::default().base("filter c", Hook::Input, rules);
        world.says(Hook::Input, from_anybody())
    };
    let (small, wide, other) = ([10, 0, 0, 1], [10], [11]);
    let test = |network: &[u8], then| rule([saddr_in(network, Eq), then]);
    // In the small one, so in the wide one, and not in the other.
    assert_eq!(
        says(vec![
            test(&small, mark(1)),
            rule([marked(1), saddr_in(&other, Eq), reject()]),
            rule([marked(1), saddr_in(&wide, Neq), reject()]),
        ]),
        [
            "passes with mark 0x1, if the client's address is 10.0.0.1 [filter c 1]",
            "passes, if the client's address is not 10.0.0.1 []",
        ]
    );
    // Not in the wide one, so not in the small one; in the wide one nothing is known.
    assert_eq!(
        says(vec![test(&wide, accept()), test(&small, reject()), test(&other, drop_it())]).len(),
        3
    );
    assert_eq!(
        says(vec![rule([saddr_in(&wide, Eq), saddr_in(&small, Eq), drop_it()])]),
        [
            "dropped, if the client's address is in 10.0.0.0/8 and the client's address is 10.0.0.1 [filter c 1]",
            "passes, if the client's address is in 10.0.0.0/8 and the client's address is not 10.0.0.1 []",
            "passes, if the client's address is not in 10.0.0.0/8 []",
        ]
    );
}

#[test]
fn a_range_of_clients_is_one_question() {
    let ends = [cmp(CmpOp::Gte, &[10, 0, 0, 5]), cmp(CmpOp::Lte, &[10, 0, 0, 9])];
    let range = [vec![payload(PayloadBase::Network, 12, 4)], ends.to_vec()].concat();
    let question = "the client's address (rule 1 of ip filter chain c)";
    assert_eq!(depends(range, from_anybody()), question);
}

#[test]
fn what_a_client_sends_from_is_not_known() {
    let sport = is(payload(PayloadBase::Transport, 0, 2), CmpOp::Gte, &1024_u16.to_be_bytes());
    let question = "the client's port (rule 1 of ip filter chain c)";
    assert_eq!(depends(sport.clone(), packet()), question);
    assert!(holds(sport.clone(), Packet { sport: Some(4000), ..packet() }));
    assert!(!holds(sport, Packet { sport: Some(53), ..packet() }));
    let ttl = is(payload(PayloadBase::Network, 8, 1), CmpOp::Eq, &[1]);
    assert_eq!(depends(ttl, packet()), "a field of the IP header (rule 1 of ip filter chain c)");
    let mac = is(payload(PayloadBase::Link, 6, 6), CmpOp::Eq, &[0; 6]);
    assert_eq!(depends(mac, packet()), "the frame's header (rule 1 of ip filter chain c)");
}

#[test]
fn users_are_those_of_local_sockets() {
    let root = |op| is(meta(MetaKey::Skuid), op, &0_u32.to_ne_bytes());
    // Without a socket the rule ends, also when it says "not".
    assert!(!holds(root(CmpOp::Eq), packet()) && !holds(root(CmpOp::Neq), packet()));
    let by = |uid| Packet { uid, ..local("192.0.2.99:80") };
    assert!(holds_at(Hook::Output, root(CmpOp::Eq), by(Some(0))));
    assert!(holds_at(Hook::Output, root(CmpOp::Neq), by(Some(1000))));
    let all = world(Hook::Output, root(CmpOp::Eq)).says(Hook::Output, by(None));
    let question = "the user who connects (rule 1 of ip filter chain c)";
    assert_eq!(all[0], format!("dropped, if {question} [filter c 1]"));
}

#[test]
fn connection_states() {
    const INVALID: u32 = 1;
    const OLD: u32 = 2 | 4;
    const NEW: u32 = 8;
    const UNTRACKED: u32 = 64;
    let at = |priority, bits, packet: Packet| {
        let rules = vec![rule([ct_state(bits), drop_it()])];
        let world = World::default().base_at("filter c", Hook::Prerouting, priority, true, rules);
        world.says_one(Hook::Prerouting, packet).starts_with("dropped")
    };
    let untracked = || Packet { untracked: true, ..packet() };
    for (priority, bits, wanted) in [
        (0, NEW, true),
        (0, OLD, false),
        (0, NEW | OLD, true),
        (0, INVALID | UNTRACKED, false),
        // Before conntrack.
        (-300, NEW, false),
        (-300, INVALID, true),
    ] {
        assert_eq!(at(priority, bits, packet()), wanted, "{priority} {bits}");
    }
    assert!(at(0, UNTRACKED, untracked()) && !at(0, NEW | INVALID, untracked()));
}

#[test]
fn what_a_connection_was_made_for() {
    let ct = |key, reply| Expr::Ct { key, reply, dreg: Reg(0) };
    let translated = || Packet { original: Some((ip("203.0.113.5"), 8080)), ..packet() };
    let port = |n: u16| n.to_be_bytes();
    for (test, wanted) in [
        (is(ct(CtKey::ProtoDst, Some(false)), CmpOp::Eq, &port(8080)), true),
        (is(ct(CtKey::ProtoDst, Some(false)), CmpOp::Eq, &port(80)), false),
        (is(ct(CtKey::Dst, Some(false)), CmpOp::Eq, &[203, 0, 113, 5]), true),
        (is(ct(CtKey::Src, Some(true)), CmpOp::Eq, &[192, 0, 2, 10]), true),
        (is(ct(CtKey::ProtoSrc, Some(true)), CmpOp::Eq, &port(80)), true),
        (is(ct(CtKey::Direction, None), CmpOp::Eq, &[0]), true),
        (
            // `ct status dnat`.
            vec![
                ct(CtKey::Status, None),
                masked(4, &0x20_u32.to_ne_bytes()),
                cmp(CmpOp::Neq, &[0; 4]),
            ],
            true,
        ),
    ] {
        assert_eq!(holds(test.clone(), translated()), wanted, "{test:?}");
        // Without a connection the rule ends.
        let alone = Packet { untracked: true, ..translated() };
        assert!(!holds(test, alone));
    }
    let dnat =
        vec![ct(CtKey::Status, None), masked(4, &0x20_u32.to_ne_bytes()), cmp(CmpOp::Neq, &[0; 4])];
    assert!(!holds(dnat, packet()));
}

#[test]
fn marks_are_set_a_bit_at_a_time_saved_and_restored() {
    let or = |bit: u32| {
        let op = BitOp::MaskXor {
            mask: Bytes::from((!bit).to_ne_bytes().to_vec()).into(),
            xor: Bytes::from(bit.to_ne_bytes().to_vec()).into(),
        };
        vec![
            meta(MetaKey::Mark),
            Expr::Bitwise { sreg: Reg(0), dreg: Reg(0), len: 4, op },
            Expr::SetMeta { key: MetaKey::Mark, sreg: Reg(0) },
        ]
    };
    let save = vec![meta(MetaKey::Mark), Expr::SetCt { key: CtKey::Mark, sreg: Reg(0) }];
    let restore = vec![
        Expr::Ct { key: CtKey::Mark, reply: None, dreg: Reg(0) },
        Expr::SetMeta { key: MetaKey::Mark, sreg: Reg(0) },
    ];
    let bits = |mask: u32| vec![meta(MetaKey::Mark), masked(4, &mask.to_ne_bytes())];
    let rules = vec![
        or(0x4000),
        or(0x1),
        save,
        mark(0),
        restore,
        rule([bits(0x4000), vec![cmp(CmpOp::Eq, &0x4000_u32.to_ne_bytes())], drop_it()]),
    ];
    let world = World::default().base("filter c", Hook::Input, rules);
    let all = world.says_one(Hook::Input, packet());
    assert!(all.starts_with("dropped with mark 0x4001 with ct mark 0x4001 ["), "{all}");
}

/// `nft` compares four bytes with what the kernel stores as one.
#[test]
fn whether_a_way_back_exists() {
    let by = |iif, result, value: u32| {
        let fib = Expr::Fib {
            dreg: Reg(0),
            result,
            saddr: true,
            iif,
            oif: false,
            mark: false,
            present: true,
        };
        is(fib, CmpOp::Eq, &value.to_le_bytes())
    };
    let over = |nic| Packet { iif: Some(nic), ..packet() };
    let lo = Nic { index: 1, name: "lo".into() };
    for result in [FibResult::Oif, FibResult::Oifname] {
        for nic in [lo.clone(), eth0()] {
            assert!(holds(by(true, result, 1), over(nic.clone())), "exists by {}", nic.name);
            assert!(!holds(by(true, result, 0), over(nic.clone())), "missing by {}", nic.name);
        }
    }
    // A packet from this node's own address, from a wire.
    let spoofed = Packet { source: PacketSender::Address(ip(HOST)), ..over(eth0()) };
    assert!(holds(by(true, FibResult::Oif, 0), spoofed.clone()));
    assert!(!holds(by(true, FibResult::Oif, 1), spoofed));
}

#[test]
fn whether_an_address_is_local() {
    let fib = |saddr, iif| Expr::Fib {
        dreg: Reg(0),
        result: FibResult::AddrType,
        saddr,
        iif,
        oif: false,
        mark: false,
        present: false,
    };
    let local = |saddr, iif| is(fib(saddr, iif), CmpOp::Eq, &2_u32.to_ne_bytes());
    let elsewhere = Packet { destination: ip("203.0.113.5"), ..packet() };
    assert!(holds(local(false, false), packet()));
    assert!(!holds(local(false, false), elsewhere.clone()));
    assert!(!holds(local(true, false), packet()) && !holds(local(true, false), from_anybody()));
    assert!(!holds(local(false, true), elsewhere));
    let question = "which interface has the address (rule 1 of ip filter chain c)";
    assert_eq!(depends(local(false, true), packet()), question);
}
