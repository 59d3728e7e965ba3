//! TPROXY, and rules of a device before everything else.

use super::*;

fn given(world: &World) -> (String, Option<(IpAddr, u16)>) {
    let outcomes = world.run(Hook::Prerouting, packet());
    assert_eq!(outcomes.len(), 1);
    (told(&outcomes[0]), outcomes[0].packet.tproxy)
}

#[test]
fn the_socket_is_told_and_the_destination_stays() {
    let mark = MarkOp { mark: 1, mask: u32::MAX };
    let legacy = |address, port| {
        let to = target(XtTarget::Tproxy { address, port, mark });
        World::default().base(
            "mangle PREROUTING",
            Hook::Prerouting,
            vec![rule([tcp_dport(80), to]), drop_it()],
        )
    };
    let way = "passes with mark 0x1 [mangle PREROUTING 1]".to_owned();
    let socket = (ip("127.0.0.1"), 15006);
    assert_eq!(given(&legacy(Some(socket.0), Some(15006))), (way.clone(), Some(socket)));
    assert_eq!(given(&legacy(None, Some(15006))), (way.clone(), Some((ip(HOST), 15006))));
    assert_eq!(given(&legacy(None, None)), (way, Some((ip(HOST), 80))));
}

/// nft's decides nothing: the rule goes on.
#[test]
fn in_nft_the_rule_goes_on() {
    let tproxy = vec![
        immediate(4, &15006_u16.to_be_bytes()),
        Expr::Tproxy { address: None, port: Some(Reg(4)) },
    ];
    let world = |rules| World::default().base("mangle c", Hook::Prerouting, rules);
    let socket = Some((ip(HOST), 15006));
    let all = given(&world(vec![rule([tproxy.clone(), mark(1), accept()]), drop_it()]));
    assert_eq!(all, ("passes with mark 0x1 [mangle c 1]".to_owned(), socket));
    let all = given(&world(vec![tproxy, drop_it()]));
    assert_eq!(all.0, "dropped [mangle c 1, mangle c 2]");
}

#[test]
fn ingress_is_of_one_device() {
    let world = |device: &str| {
        let mut world = World::default().base(
            "netdev-x c",
            Hook::Ingress,
            vec![rule([tcp_dport(80), drop_it()])],
        );
        world.base_chains[0].devices = vec![device.to_owned()];
        world.says_one(Hook::Ingress, packet())
    };
    assert_eq!(world("eth0"), "dropped [netdev-x c 1]");
    assert_eq!(world("eth1"), "passes []");
}
