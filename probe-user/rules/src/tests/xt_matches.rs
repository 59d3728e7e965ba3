//! Matches of iptables: for each, when it holds, and what is not known.

use super::*;
use Is::{No, Open, Yes};

/// How a match turns out.
#[derive(Debug, PartialEq)]
enum Is {
    Yes,
    No,
    /// It depends on this.
    Open(String),
}

fn at(hook: Hook, one: XtMatch, packet: Packet) -> Is {
    is_with(World::default(), hook, one, packet)
}

fn is(one: XtMatch, packet: Packet) -> Is {
    at(Hook::Input, one, packet)
}

fn is_with(world: World, hook: Hook, one: XtMatch, packet: Packet) -> Is {
    let rules = vec![rule([vec![Expr::Match(one.into())], drop_it()])];
    let outcomes = world.base_at("legacy-x C", hook, 0, true, rules).run(hook, packet);
    assert_complete(&outcomes);
    let dropped = outcomes.iter().find(|outcome| outcome.fate == Fate::Dropped);
    match (outcomes.len(), dropped) {
        (1, Some(_)) => Yes,
        (1, None) => No,
        (_, dropped) => Open(said(&dropped.unwrap().depends)),
    }
}

fn open(what: &str) -> Is {
    Open(format!("{what} (rule 1 of ip legacy-x (legacy) chain C)"))
}

#[test]
fn addrtype() {
    const UNICAST: u16 = 1 << 1;
    const LOCAL: u16 = 1 << 2;
    let of = |source, destination, invert, limit_in| XtMatch::Addrtype {
        source,
        destination,
        invert_source: invert,
        invert_destination: invert,
        limit_in,
        limit_out: false,
    };
    let elsewhere = || Packet { destination: ip("203.0.113.5"), ..packet() };
    assert_eq!(is(of(0, LOCAL, false, false), packet()), Yes);
    assert_eq!(is(of(0, LOCAL, true, false), packet()), No);
    assert_eq!(is(of(0, LOCAL, false, false), elsewhere()), No);
    assert_eq!(is(of(0, LOCAL | UNICAST, false, false), elsewhere()), Yes);
    assert_eq!(is(of(LOCAL, 0, false, false), packet()), No);
    assert_eq!(is(of(LOCAL, 0, true, false), from_anybody()), Yes);
    let from_here = local("192.0.2.99:80");
    assert_eq!(at(Hook::Output, of(LOCAL, UNICAST, false, false), from_here), Yes);
    // Local, but perhaps on another interface; what is not local at all is not.
    let limited = open("which interface has the address");
    assert_eq!(is(of(0, LOCAL, false, true), packet()), limited);
    assert_eq!(is(of(0, LOCAL, false, true), elsewhere()), No);
}

#[test]
fn tcp_and_udp() {
    let all = (0, u16::MAX);
    let tcp = |sports, dports, invert_dports, flags| XtMatch::Tcp {
        sports,
        dports,
        invert_sports: false,
        invert_dports,
        flags,
        invert_flags: false,
        option: 0,
    };
    let udp =
        |dports| XtMatch::Udp { sports: all, dports, invert_sports: false, invert_dports: false };
    let by_udp = || Packet { proto: Proto::Udp, ..packet() };
    assert_eq!(is(tcp(all, (80, 80), false, (0, 0)), packet()), Yes);
    assert_eq!(is(tcp(all, (80, 80), true, (0, 0)), packet()), No);
    assert_eq!(is(tcp(all, (81, 90), false, (0, 0)), packet()), No);
    assert_eq!(is(tcp(all, (81, 90), true, (0, 0)), packet()), Yes);
    assert_eq!(is(tcp(all, (80, 80), false, (0, 0)), by_udp()), No);
    assert_eq!(is(udp((80, 80)), by_udp()), Yes);
    assert_eq!(is(udp((80, 80)), packet()), No);
    // `--syn`, and what only later packets have.
    assert_eq!(is(tcp(all, all, false, (0x17, 2)), packet()), Yes);
    assert_eq!(is(tcp(all, all, false, (0x10, 0x10)), packet()), No);
    assert_eq!(is(tcp((1024, 65535), all, false, (0, 0)), packet()), open("the client's port"));
    // A port that does not fit decides, whatever is not known.
    assert_eq!(is(tcp((1024, 65535), (81, 81), false, (0, 0)), packet()), No);
}

#[test]
fn multiport() {
    let of = |side, invert| XtMatch::Multiport { side, ports: vec![(22, 22), (80, 90)], invert };
    let to = |dport, sport| Packet { dport, sport, ..packet() };
    for (side, dport, sport, wanted) in [
        (Side::Destination, 80, None, Yes),
        (Side::Destination, 90, None, Yes),
        (Side::Destination, 91, None, No),
        (Side::Destination, 22, None, Yes),
        (Side::Source, 80, Some(22), Yes),
        (Side::Source, 80, Some(23), No),
        (Side::Source, 80, None, open("the client's port")),
        (Side::Either, 80, None, Yes),
        (Side::Either, 91, Some(22), Yes),
        (Side::Either, 91, Some(91), No),
        (Side::Either, 91, None, open("the client's port")),
    ] {
        let inverted = match wanted {
            Yes => No,
            No => Yes,
            Open(_) => open("the client's port"),
        };
        assert_eq!(is(of(side, false), to(dport, sport)), wanted, "{side:?} {dport} {sport:?}");
        assert_eq!(is(of(side, true), to(dport, sport)), inverted, "{side:?} {dport} {sport:?}");
    }
}

#[test]
fn marks() {
    let mark = |mark, mask, invert| XtMatch::Mark { mark, mask, invert };
    let marked = || Packet { mark: 0x4001, ct_mark: 7, ..packet() };
    assert_eq!(is(mark(0x4000, 0x4000, false), marked()), Yes);
    assert_eq!(is(mark(0x4000, 0x4000, false), packet()), No);
    assert_eq!(is(mark(0x4000, 0x4000, true), packet()), Yes);
    assert_eq!(is(mark(0x4000, u32::MAX, false), marked()), No);
    let connmark = |mark, invert| XtMatch::Connmark { mark, mask: u32::MAX, invert };
    assert_eq!(is(connmark(7, false), marked()), Yes);
    assert_eq!(is(connmark(8, true), marked()), Yes);
    // Without a connection it does not hold, inverted or not.
    let untracked = || Packet { untracked: true, ..marked() };
    assert_eq!(is(connmark(7, false), untracked()), No);
    assert_eq!(is(connmark(8, true), untracked()), No);
}

fn conntrack(states: Option<(u16, bool)>) -> XtMatch {
    let (bits, invert) = states.unwrap_or_default();
    let mut one = match xt_state(bits, invert).remove(0) {
        Expr::Match(one) => (*one).clone(),
        other => panic!("{other:?}"),
    };
    if let XtMatch::Conntrack { states: of_one, .. } = &mut one {
        *of_one = states;
    }
    one
}

#[test]
fn ctstate() {
    const INVALID: u16 = 1;
    const OLD: u16 = 2 | 4;
    const NEW: u16 = 8;
    const DNAT: u16 = 0x80;
    const UNTRACKED: u16 = 0x100;
    let state = |bits, invert| conntrack(Some((bits, invert)));
    let translated = || Packet { original: Some((ip("203.0.113.5"), 8080)), ..packet() };
    let left_alone = || Packet { original: Some((ip(HOST), 80)), ..packet() };
    let untracked = || Packet { untracked: true, ..packet() };
    for (bits, packet, wanted) in [
        (NEW, packet(), Yes),
        (OLD, packet(), No),
        (INVALID, packet(), No),
        (DNAT, translated(), Yes),
        (NEW, translated(), Yes),
        (DNAT, left_alone(), No),
        (NEW, untracked(), No),
        (UNTRACKED | INVALID, untracked(), Yes),
    ] {
        let inverted = if wanted == Yes { No } else { Yes };
        assert_eq!(is(state(bits, false), packet.clone()), wanted, "{bits}");
        assert_eq!(is(state(bits, true), packet), inverted, "{bits}");
    }
}

#[test]
fn ctorigdst_and_others_of_the_connection() {
    let translated = || Packet { original: Some((ip("203.0.113.5"), 8080)), ..packet() };
    let all = |change: &dyn Fn(&mut XtMatch)| {
        let mut one = conntrack(None);
        change(&mut one);
        one
    };
    let host = ip("255.255.255.255");
    let origdst = |address: &str, invert: bool| {
        let wanted = Some((ip(address), host, invert));
        all(&|one| {
            if let XtMatch::Conntrack { orig_destination, .. } = one {
                *orig_destination = wanted;
            }
        })
    };
    assert_eq!(is(origdst("203.0.113.5", false), translated()), Yes);
    assert_eq!(is(origdst("192.0.2.10", false), translated()), No);
    assert_eq!(is(origdst("192.0.2.10", true), translated()), Yes);
    let origdport = |first, last| {
        all(&|one| {
            if let XtMatch::Conntrack { orig_dport, .. } = one {
                *orig_dport = Some((first, last, false));
            }
        })
    };
    assert_eq!(is(origdport(8000, 9000), translated()), Yes);
    assert_eq!(is(origdport(80, 80), translated()), No);
    let untracked = Packet { untracked: true, ..translated() };
    assert_eq!(is(origdport(8000, 9000), untracked), No);
    let reply = |reply| {
        all(&|one| {
            if let XtMatch::Conntrack { reply_direction, .. } = one {
                *reply_direction = Some(reply);
            }
        })
    };
    assert_eq!((is(reply(true), packet()), is(reply(false), packet())), (No, Yes));
}

#[test]
fn iprange_and_owner() {
    let from =
        |a, b, invert| XtMatch::Iprange { source: Some((ip(a), ip(b), invert)), destination: None };
    assert_eq!(is(from("198.51.100.0", "198.51.100.7", false), packet()), Yes);
    assert_eq!(is(from("198.51.100.0", "198.51.100.6", false), packet()), No);
    assert_eq!(is(from("198.51.100.0", "198.51.100.6", true), packet()), Yes);
    let anybody = is(from("198.51.100.0", "198.51.100.6", false), from_anybody());
    assert_eq!(anybody, open("the client's address"));
    let to =
        |invert| XtMatch::Iprange { source: None, destination: Some((ip(HOST), ip(HOST), invert)) };
    assert_eq!((is(to(false), packet()), is(to(true), packet())), (Yes, No));
    let owner = |invert| XtMatch::Owner { uid: Some((0, 99, invert)), gid: None, other: false };
    let by = |uid| Packet { uid, ..local("192.0.2.99:80") };
    assert_eq!(at(Hook::Output, owner(false), by(Some(99))), Yes);
    assert_eq!(at(Hook::Output, owner(false), by(Some(100))), No);
    assert_eq!(at(Hook::Output, owner(true), by(Some(100))), Yes);
    assert_eq!(at(Hook::Output, owner(false), by(None)), open("the user who connects"));
    // No socket of this node sent it.
    assert_eq!((is(owner(false), packet()), is(owner(true), packet())), (No, Yes));
}

#[test]
fn what_is_not_understood_may_hold() {
    let policy = XtMatch::Unknown { name: "policy".into(), revision: 0 };
    assert_eq!(is(policy, packet()), open("match policy"));
}

#[test]
fn only_what_came_over_a_port_of_a_bridge_has_one() {
    let with = |over_bridge_port, asks, invert, packet| {
        let world = World { over_bridge_port, ..World::default() };
        let (inside, outside) = ("veth+".to_owned(), String::new());
        is_with(world, Hook::Prerouting, XtMatch::Physdev { asks, invert, inside, outside }, packet)
    };
    let (named, is_in, is_bridged) = (1, 8, 4);
    // kube-proxy's, of external addresses: `! --physdev-is-in`.
    assert_eq!(with(Some(false), is_in, is_in, packet()), Yes);
    assert_eq!(with(Some(true), is_in, is_in, packet()), No);
    assert_eq!(with(Some(false), is_in, 0, packet()), No);
    assert_eq!(with(Some(true), is_in, 0, packet()), Yes);
    assert_eq!(with(None, is_in, is_in, packet()), open("physdev ! is-in"));
    assert_eq!(with(Some(false), named, 0, packet()), No);
    assert_eq!(with(Some(true), named, 0, packet()), open("physdev in veth+"));
    assert_eq!(with(Some(true), is_bridged, is_bridged, packet()), Yes);
    let iif = packet().iif;
    let onward = || Packet { oif: iif.clone(), ..packet() };
    assert_eq!(with(Some(true), is_bridged, 0, onward()), Yes);
    assert_eq!(with(Some(true), is_bridged, is_bridged, onward()), No);
    assert_eq!(with(Some(true), 2, 0, packet()), No);
    assert_eq!(with(Some(true), 2, 0, onward()), open("physdev out "));
    // What this host sends came over none.
    assert_eq!(with(None, is_in, is_in, local("192.0.2.99:80")), Yes);
}

#[test]
fn no_transparent_socket_takes_what_there_is_none_of() {
    let with = |any, transparent| {
        let world = World { transparent: any, ..World::default() };
        is_with(world, Hook::Prerouting, XtMatch::Socket { transparent }, packet())
    };
    assert_eq!(with(Some(false), true), No);
    assert_eq!(with(Some(true), true), open("match socket"));
    assert_eq!(with(None, true), open("match socket"));
    assert_eq!(with(Some(false), false), open("match socket"));
}

#[test]
fn the_reverse_path_is_that_of_the_route_to_the_sender() {
    let is = |loose, invert, from: PacketSender, nic: Nic| {
        let mut packet = packet();
        (packet.source, packet.iif) = (from, Some(nic));
        let one = XtMatch::Rpfilter { loose, mark: false, accept_local: false, invert };
        is_with(World::default(), Hook::Prerouting, one, packet)
    };
    let (near, own) = (PacketSender::Address(ip("10.244.0.5")), PacketSender::Address(ip(HOST)));
    assert_eq!(is(false, false, near, bridge()), Yes);
    assert_eq!(is(false, true, near, bridge()), No);
    // Another next hop of the route could be this one.
    assert_eq!(is(false, true, near, eth0()), open("the route back"));
    assert_eq!(is(true, true, near, eth0()), No);
    assert_eq!(is(false, true, own, eth0()), Yes);
    // Other machines come in where the route to them leads.
    assert_eq!(is(false, true, PacketSender::Elsewhere, eth0()), No);
    assert_eq!(is(false, true, own, Nic { index: 1, name: "lo".into() }), No);
}

#[test]
fn nothing_is_sent_to_a_group() {
    let is = |kind, invert| is(XtMatch::Pkttype { kind, invert }, packet());
    assert_eq!([is(0, false), is(1, false), is(2, false)], [Yes, No, No]);
    assert_eq!([is(0, true), is(1, true)], [No, Yes]);
}

/// A member with an address in CIDR notation and a port, as far as they are there.
fn member(net: &str, tcp_port: Option<u16>, nomatch: bool) -> IpSetMember {
    let address = net.split_once('/').map(|(a, len)| (ip(a), len.parse().unwrap()));
    IpSetMember {
        address,
        address_to: None,
        proto: tcp_port.map(|_| 6),
        ports: tcp_port.map(|port| (port, port)),
        second: None,
        iface: None,
        nomatch,
    }
}

fn in_set(kind: &str, members: Option<Vec<IpSetMember>>, sides: &[bool], packet: Packet) -> Is {
    let id = IpSetId { netns: NETNS, index: 3 };
    let set = IpSet { id, name: "some".into(), kind: kind.into(), members };
    let world = World { ip_sets: vec![set], ..World::default() };
    let one = |invert| XtMatch::Set { index: 3, source: sides.to_vec(), invert, other: false };
    let world_again = World { ip_sets: world.ip_sets.clone(), ..World::default() };
    let plain = is_with(world, Hook::Input, one(false), packet.clone());
    let inverted = is_with(world_again, Hook::Input, one(true), packet);
    match (&plain, &inverted) {
        (Yes, No) | (No, Yes) | (Open(_), Open(_)) => plain,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ipsets() {
    let dst = [false];
    let src = [true];
    let net = |net: &str| member(net, None, false);
    let nets = || Some(vec![net("10.0.0.0/8"), net("192.0.2.0/24")]);
    assert_eq!(in_set("hash:net", nets(), &dst, packet()), Yes);
    assert_eq!(in_set("hash:net", nets(), &src, packet()), No);
    assert_eq!(in_set("hash:net", nets(), &src, from_anybody()), open("the client's address"));
    assert_eq!(in_set("hash:net", Some(Vec::new()), &src, from_anybody()), No);
    let except = |other: &str| Some(vec![net("192.0.2.0/24"), member(other, None, true)]);
    assert_eq!(in_set("hash:net", except("192.0.2.8/29"), &dst, packet()), No);
    assert_eq!(in_set("hash:net", except("192.0.2.64/29"), &dst, packet()), Yes);
    // The most exact one decides: back in, within the exception.
    let mut again = except("192.0.2.8/29").unwrap();
    again.push(net("192.0.2.10/32"));
    assert_eq!(in_set("hash:net", Some(again), &dst, packet()), Yes);
    let both = [false, false];
    let with_port = |port| Some(vec![member("192.0.2.10/32", Some(port), false)]);
    assert_eq!(in_set("hash:ip,port", with_port(80), &both, packet()), Yes);
    assert_eq!(in_set("hash:ip,port", with_port(81), &both, packet()), No);
    let udp = Packet { proto: Proto::Udp, ..packet() };
    assert_eq!(in_set("hash:ip,port", with_port(80), &both, udp), No);
    let ports = IpSetMember { ports: Some((79, 90)), ..member("", None, false) };
    assert_eq!(in_set("bitmap:port", Some(vec![ports]), &dst, packet()), Yes);
    // Too many to be read, or not there at all.
    assert_eq!(in_set("hash:ip", None, &dst, packet()), open("what is in an ipset"));
    let gone = XtMatch::Set { index: 9, source: vec![false], invert: false, other: false };
    assert_eq!(is(gone, packet()), open("what is in an ipset"));
}
