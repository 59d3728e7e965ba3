//! Rules as Docker writes them: port 8080 of this node is port 80 of a container.

use super::*;
use CmpOp::{Eq, Neq};

const WEB: [u8; 4] = [172, 17, 0, 2];

fn local_type() -> Vec<Expr> {
    addrtype(None, Some(RouteKind::Local))
}

fn nat() -> World {
    let masquerade = NatRange { addresses: None, ports: None, base: None, flags: 0 };
    let bridge = |key, op| interface(key, op, "docker0");
    World::default()
        .base("nat PREROUTING", Hook::Prerouting, vec![rule([local_type(), jump("DOCKER")])])
        .base(
            "nat OUTPUT",
            Hook::Output,
            vec![rule([daddr_in(&[127], Neq), local_type(), jump("DOCKER")])],
        )
        .base(
            "nat POSTROUTING",
            Hook::Postrouting,
            vec![rule([
                saddr_in(&[172, 17], Eq),
                bridge(MetaKey::Oifname, Neq),
                target(XtTarget::Masquerade(masquerade)),
            ])],
        )
        .chain(
            "nat DOCKER",
            vec![
                rule([bridge(MetaKey::Iifname, Eq), back()]),
                rule([bridge(MetaKey::Iifname, Neq), tcp_dport(8080), dnat("172.17.0.2:80")]),
            ],
        )
}

fn filter(user: Vec<Vec<Expr>>) -> World {
    let bridge = |key, op| interface(key, op, "docker0");
    let out = || bridge(MetaKey::Oifname, Eq);
    World::default()
        .base_at(
            "filter FORWARD",
            Hook::Forward,
            0,
            false,
            vec![
                jump("DOCKER-USER"),
                rule([out(), xt_state(2 | 4, false), accept()]),
                rule([out(), jump("DOCKER")]),
                rule([bridge(MetaKey::Iifname, Eq), bridge(MetaKey::Oifname, Neq), accept()]),
            ],
        )
        .chain("filter DOCKER-USER", user)
        .chain(
            "filter DOCKER",
            vec![
                rule([
                    daddr_in(&WEB, Eq),
                    bridge(MetaKey::Iifname, Neq),
                    out(),
                    tcp_dport(80),
                    accept(),
                ]),
                rule([bridge(MetaKey::Iifname, Neq), out(), drop_it()]),
            ],
        )
}

/// To the container, from somebody, behind DNAT and routing.
fn forwarded(dport: u16) -> Packet {
    Packet {
        destination: IpAddr::from(WEB),
        dport,
        oif: Some(bridge()),
        original: Some((ip(HOST), 8080)),
        ..from_anybody()
    }
}

#[test]
fn a_published_port_leads_to_the_container() {
    let way = "passes to 172.17.0.2:80 [nat PREROUTING 1, nat DOCKER 2]";
    let to_8080 = || Packet { dport: 8080, ..from_anybody() };
    assert_eq!(nat().says_one(Hook::Prerouting, to_8080()), way);
    let text = nat().says_one(Hook::Output, local("192.0.2.10:8080"));
    assert_eq!(text, way.replace("PREROUTING", "OUTPUT"));
    // Loopback is left to docker-proxy, and so are containers of the same network.
    assert_eq!(nat().says_one(Hook::Output, local("127.0.0.1:8080")), "passes []");
    let inside = Packet { iif: Some(bridge()), ..to_8080() };
    assert_eq!(nat().says_one(Hook::Prerouting, inside), "passes []");
    assert_eq!(nat().says_one(Hook::Prerouting, packet()), "passes []");
    let elsewhere = Packet { destination: ip("192.0.2.99"), ..to_8080() };
    assert_eq!(nat().says_one(Hook::Prerouting, elsewhere), "passes []");
}

#[test]
fn what_is_forwarded_must_be_published() {
    let world = filter(vec![back()]);
    let text = world.says_one(Hook::Forward, forwarded(80));
    assert_eq!(text, "passes to 172.17.0.2:80 [filter FORWARD 3, filter DOCKER 1]");
    let text = world.says_one(Hook::Forward, forwarded(81));
    assert_eq!(text, "dropped to 172.17.0.2:81 [filter FORWARD 3, filter DOCKER 2]");
    let outward = Packet { iif: Some(bridge()), oif: Some(eth0()), ..packet() };
    assert_eq!(world.says_one(Hook::Forward, outward), "passes [filter FORWARD 4]");
    let through = Packet { oif: Some(eth0()), ..packet() };
    assert_eq!(world.says_one(Hook::Forward, through), "dropped [filter FORWARD policy]");
}

#[test]
fn docker_user_decides_first() {
    let from_eth0 = || interface(MetaKey::Iifname, Eq, "eth0");
    let world = filter(vec![rule([from_eth0(), saddr_in(&[10], Neq), drop_it()]), back()]);
    assert_eq!(
        world.says(Hook::Forward, forwarded(80)),
        [
            "dropped to 172.17.0.2:80, if the client's address is not in 10.0.0.0/8 [filter FORWARD 1, filter DOCKER-USER 1]",
            "passes to 172.17.0.2:80, if the client's address is in 10.0.0.0/8 [filter FORWARD 3, filter DOCKER 1]",
        ]
    );
    // The port that was asked for, which is no longer in the packet.
    let asked = |port: u16| {
        vec![
            Expr::Ct { key: CtKey::ProtoDst, reply: Some(false), dreg: Reg(0) },
            cmp(Eq, &port.to_be_bytes()),
        ]
    };
    for (port, wanted) in [(8080, "dropped"), (80, "passes")] {
        let world = filter(vec![rule([asked(port), drop_it()])]);
        let text = world.says_one(Hook::Forward, forwarded(80));
        assert!(text.starts_with(wanted), "{port}: {text}");
    }
}

#[test]
fn what_a_container_sends_out_is_masqueraded() {
    let from_it = |oif| Packet {
        source: PacketSender::Address(IpAddr::from(WEB)),
        destination: ip("203.0.113.5"),
        iif: None,
        oif: Some(oif),
        ..packet()
    };
    let text = nat().says_one(Hook::Postrouting, from_it(eth0()));
    assert_eq!(text, "passes masqueraded [nat POSTROUTING 1]");
    assert_eq!(nat().says_one(Hook::Postrouting, from_it(bridge())), "passes []");
}

/// A port published on 127.0.0.1 only: others on the network are kept from it.
#[test]
fn loopback_ports_are_guarded_before_everything_else() {
    let guard = rule([
        daddr_in(&[127, 0, 0, 1], Eq),
        interface(MetaKey::Iifname, Neq, "lo"),
        tcp_dport(8080),
        drop_it(),
    ]);
    let hook = Hook::Prerouting;
    let world = nat().base_at("raw PREROUTING", hook, -300, true, vec![guard]);
    let to_it = Packet { destination: ip("127.0.0.1"), dport: 8080, ..from_anybody() };
    assert_eq!(world.says_one(hook, to_it.clone()), "dropped [raw PREROUTING 1]");
    let lo = Nic { index: 1, name: "lo".into() };
    // It came by loopback, and output has decided on its connection.
    let own = Packet { iif: Some(lo), original: Some((ip("127.0.0.1"), 8080)), ..to_it };
    assert_eq!(world.says_one(hook, own), "passes []");
}
