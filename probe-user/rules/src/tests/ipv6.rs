//! The same for IPv6, and tables for both.

use super::*;

fn octets(text: &str) -> Vec<u8> {
    fields::octets(ip(text))
}

fn from_anybody() -> Packet {
    Packet { destination: ip(HOST6), source: PacketSender::Elsewhere, ..packet() }
}

fn saddr(bytes: &[u8], op: CmpOp) -> Vec<Expr> {
    vec![payload(PayloadBase::Network, 8, u32::try_from(bytes.len()).unwrap()), cmp(op, bytes)]
}

fn nft_dnat(ipv6: bool, to: &str) -> Vec<Expr> {
    let translate = Expr::Nat {
        kind: NatKind::Dnat,
        ipv6,
        address: Some((Reg(0), Reg(0))),
        port: Some((Reg(4), Reg(4))),
        flags: 3,
    };
    vec![immediate(0, &octets(to)), immediate(4, &8080_u16.to_be_bytes()), translate]
}

#[test]
fn addresses_are_told_and_known_as_those_of_ipv4() {
    let says = |test| {
        let world = World::default().base("six-x c", Hook::Input, vec![rule([test, drop_it()])]);
        world.says(Hook::Input, from_anybody())[0].clone()
    };
    for (bytes, wanted) in [
        (octets("2001:db8:5::1"), "is 2001:db8:5::1"),
        (octets("2001:db8:5::")[..6].to_vec(), "is in 2001:db8:5::/48"),
    ] {
        let text = says(saddr(&bytes, CmpOp::Eq));
        assert_eq!(text, format!("dropped, if the client's address {wanted} [six-x c 1]"));
    }
    for own in ["::1", HOST6] {
        assert_eq!(says(saddr(&octets(own), CmpOp::Eq)), "passes []");
        assert_eq!(says(saddr(&octets(own), CmpOp::Neq)), "dropped [six-x c 1]");
    }
    let daddr = vec![payload(PayloadBase::Network, 24, 16), cmp(CmpOp::Eq, &octets(HOST6))];
    assert_eq!(says(daddr), "dropped [six-x c 1]");
    assert_eq!(says(vec![meta(MetaKey::Nfproto), cmp(CmpOp::Eq, &[10])]), "dropped [six-x c 1]");
    assert_eq!(says(tcp_dport(80)), "dropped [six-x c 1]");
}

#[test]
fn in_a_table_for_both_each_translation_is_for_its_own() {
    let rules = vec![nft_dnat(false, "10.0.0.1"), nft_dnat(true, "2001:db8:1::1")];
    let world = World::default().base("inet-nat PREROUTING", Hook::Prerouting, rules);
    assert_eq!(
        world.says_one(Hook::Prerouting, from_anybody()),
        "passes to [2001:db8:1::1]:8080 [inet-nat PREROUTING 2]"
    );
    assert_eq!(
        world.says_one(Hook::Prerouting, packet()),
        "passes to 10.0.0.1:8080 [inet-nat PREROUTING 1]"
    );
}

#[test]
fn redirect_goes_to_the_first_address_or_to_loopback() {
    let port = vec![immediate(0, &8080_u16.to_be_bytes())];
    let redirect = Expr::Redirect { port: Some((Reg(0), Reg(0))), flags: 2 };
    let world = |chain: &str, hook| {
        World::default().base(chain, hook, vec![[port.clone(), vec![redirect.clone()]].concat()])
    };
    let elsewhere = Packet { destination: ip("2001:db8:9::9"), ..from_anybody() };
    assert_eq!(
        world("inet-nat c", Hook::Prerouting).says_one(Hook::Prerouting, elsewhere),
        "passes to [2001:db8::10]:8080 [inet-nat c 1]"
    );
    assert_eq!(
        world("inet-nat c", Hook::Output).says_one(Hook::Output, local("[2001:db8:9::9]:80")),
        "passes to [::1]:8080 [inet-nat c 1]"
    );
}

/// With IPv4 an address has one type; with IPv6 the node's own is unicast, too.
#[test]
fn the_nodes_own_addresses_are_unicast_as_well() {
    let world = |kind| {
        let rules = vec![rule([addrtype(None, Some(kind)), drop_it()])];
        World::default().base("six-x c", Hook::Input, rules)
    };
    let dropped = |kind| world(kind).says_one(Hook::Input, from_anybody()).starts_with("dropped");
    assert!(dropped(RouteKind::Unicast) && dropped(RouteKind::Local));
    for kind in [RouteKind::Multicast, RouteKind::None, RouteKind::Anycast, RouteKind::Unreachable]
    {
        assert!(!dropped(kind), "{kind:?}");
    }
}
