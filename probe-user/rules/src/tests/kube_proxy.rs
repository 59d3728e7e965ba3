//! Rules as kube-proxy writes them: a service of three pods, one without any.

use super::*;
use CmpOp::{Eq, Neq};

const SVC: [u8; 4] = [10, 96, 0, 10];
const EMPTY: [u8; 4] = [10, 96, 0, 20];
const NODE_PORT: u16 = 30080;
const LOCAL: Option<RouteKind> = Some(RouteKind::Local);
const MASQ: u32 = 0x4000;

fn cluster_ip(address: [u8; 4]) -> Vec<Expr> {
    [daddr_in(&address, Eq), tcp_dport(80)].concat()
}

fn or_mark() -> Vec<Expr> {
    target(XtTarget::Mark(MarkOp { mark: MASQ, mask: MASQ }))
}

/// The rules of `nat`; `node_ports` is the condition of KUBE-NODEPORTS, `ext` the chain
/// of what comes from outside.
fn nat(node_ports: Vec<Expr>, ext: Vec<Vec<Expr>>) -> World {
    let mut world = World::default();
    for (chain, hook) in [("PREROUTING", Hook::Prerouting), ("OUTPUT", Hook::Output)] {
        world = world.base(&format!("nat {chain}"), hook, vec![jump("KUBE-SERVICES")]);
    }
    world = world
        .base("nat POSTROUTING", Hook::Postrouting, vec![jump("KUBE-POSTROUTING")])
        .chain(
            "nat KUBE-SERVICES",
            vec![
                rule([cluster_ip(SVC), jump("KUBE-SVC-A")]),
                rule([node_ports, jump("KUBE-NODEPORTS")]),
            ],
        )
        .chain("nat KUBE-NODEPORTS", vec![rule([tcp_dport(NODE_PORT), jump("KUBE-EXT-A")])])
        .chain("nat KUBE-EXT-A", ext)
        .chain("nat KUBE-MARK-MASQ", vec![or_mark()])
        .chain(
            "nat KUBE-SVC-A",
            vec![
                rule([saddr_in(&[10, 244], Neq), cluster_ip(SVC), jump("KUBE-MARK-MASQ")]),
                rule([random(715_827_883), jump("KUBE-SEP-1")]),
                rule([random(1 << 30), jump("KUBE-SEP-2")]),
                jump("KUBE-SEP-3"),
            ],
        )
        .chain("nat KUBE-SVL-A", vec![jump("KUBE-SEP-2")])
        .chain("nat KUBE-POSTROUTING", postrouting());
    for pod in 1..=3 {
        let itself = rule([saddr_in(&[10, 244, 0, pod], Eq), jump("KUBE-MARK-MASQ")]);
        let chain = format!("nat KUBE-SEP-{pod}");
        world = world.chain(&chain, vec![itself, dnat(&format!("10.244.0.{pod}:8080"))]);
    }
    world
}

fn postrouting() -> Vec<Vec<Expr>> {
    let masquerade = NatRange { addresses: None, ports: None, base: None, flags: 0x10 };
    vec![
        rule([
            vec![Expr::Match(XtMatch::Mark { mark: MASQ, mask: MASQ, invert: true }.into())],
            back(),
        ]),
        target(XtTarget::Mark(MarkOp { mark: MASQ, mask: 0 })),
        target(XtTarget::Masquerade(masquerade)),
    ]
}

fn by_addrtype() -> Vec<Expr> {
    addrtype(None, LOCAL)
}

/// Of `externalTrafficPolicy: Cluster`.
fn to_all() -> Vec<Vec<Expr>> {
    vec![jump("KUBE-MARK-MASQ"), jump("KUBE-SVC-A")]
}

fn node_port() -> Packet {
    Packet { dport: NODE_PORT, ..from_anybody() }
}

#[test]
fn a_node_port_leads_to_each_pod_as_likely_and_is_masqueraded() {
    let pod = |n, rule| {
        format!(
            "passes to 10.244.0.{n}:8080 with mark 0x4000, 33.3 % [nat PREROUTING 1, nat KUBE-SERVICES 2, nat KUBE-NODEPORTS 1, nat KUBE-EXT-A 1, nat KUBE-MARK-MASQ 1, nat KUBE-EXT-A 2, nat KUBE-SVC-A {rule}, nat KUBE-SEP-{n} 2]"
        )
    };
    let world = nat(by_addrtype(), to_all());
    // No pod comes in by this interface, so who asks needs no assumption.
    let all = world.says(Hook::Prerouting, node_port());
    assert_eq!(all, [pod(1, 2), pod(2, 3), pod(3, 4)]);
    let other = Packet { dport: 30099, ..node_port() };
    assert_eq!(world.says_one(Hook::Prerouting, other), "passes []");
    let udp = Packet { proto: Proto::Udp, ..node_port() };
    assert_eq!(world.says_one(Hook::Prerouting, udp), "passes []");
    // Not an address of this node: a node port of another one.
    let elsewhere = Packet { destination: ip("192.0.2.99"), ..node_port() };
    assert_eq!(world.says_one(Hook::Prerouting, elsewhere), "passes []");
    // From this node the same, by the other hook.
    let all = world.says(Hook::Output, local("127.0.0.1:30080"));
    assert_eq!(all[0], pod(1, 2).replace("PREROUTING", "OUTPUT"));
    assert_eq!(all.len(), 3);
}

#[test]
fn node_ports_of_some_addresses_only() {
    let one = daddr_in(&[192, 0, 2, 10], Eq);
    let world = nat(one, to_all());
    assert_eq!(world.says(Hook::Prerouting, node_port()).len(), 3);
    assert_eq!(world.says_one(Hook::Output, local("127.0.0.1:30080")), "passes []");
}

#[test]
fn a_cluster_ip_masquerades_all_but_pods() {
    let world = nat(by_addrtype(), to_all());
    let all = world.says(Hook::Output, local("10.96.0.10:80"));
    assert_eq!(
        all[0],
        "passes to 10.244.0.1:8080 with mark 0x4000, 33.3 % [nat OUTPUT 1, nat KUBE-SERVICES 1, nat KUBE-SVC-A 1, nat KUBE-MARK-MASQ 1, nat KUBE-SVC-A 2, nat KUBE-SEP-1 2]"
    );
    let pod = |last: u8| Packet {
        source: PacketSender::Address(IpAddr::from([10, 244, 0, last])),
        destination: IpAddr::from(SVC),
        iif: Some(bridge()),
        ..packet()
    };
    let all = world.says(Hook::Prerouting, pod(9));
    assert!(all.len() == 3 && all.iter().all(|one| !one.contains("mark")), "{all:?}");
    // A pod that reaches itself.
    let all = world.says(Hook::Prerouting, pod(2));
    assert!(!all[0].contains("mark") && !all[2].contains("mark"), "{all:?}");
    assert_eq!(
        all[1],
        "passes to 10.244.0.2:8080 with mark 0x4000, 33.3 % [nat PREROUTING 1, nat KUBE-SERVICES 1, nat KUBE-SVC-A 3, nat KUBE-SEP-2 1, nat KUBE-MARK-MASQ 1, nat KUBE-SEP-2 2]"
    );
}

/// `externalTrafficPolicy: Local`: from outside only to the pods of this node.
#[test]
fn local_traffic_policy_tells_inside_from_outside() {
    let from_here = || addrtype(LOCAL, None);
    let world = nat(
        by_addrtype(),
        vec![
            rule([saddr_in(&[10, 244], Eq), jump("KUBE-SVC-A")]),
            rule([from_here(), jump("KUBE-MARK-MASQ")]),
            rule([from_here(), jump("KUBE-SVC-A")]),
            jump("KUBE-SVL-A"),
        ],
    );
    assert_eq!(
        world.says_one(Hook::Prerouting, node_port()),
        "passes to 10.244.0.2:8080 [nat PREROUTING 1, nat KUBE-SERVICES 2, nat KUBE-NODEPORTS 1, nat KUBE-EXT-A 4, nat KUBE-SVL-A 1, nat KUBE-SEP-2 2]"
    );
    let all = world.says(Hook::Output, local("192.0.2.10:30080"));
    assert!(all.len() == 3 && all.iter().all(|one| one.contains("with mark 0x4000")), "{all:?}");
}

#[test]
fn the_mark_masquerades_on_the_way_out() {
    let world = nat(by_addrtype(), to_all());
    let marked = Packet { mark: MASQ, ..packet() };
    assert_eq!(
        world.says_one(Hook::Postrouting, marked),
        "passes masqueraded [nat POSTROUTING 1, nat KUBE-POSTROUTING 2, nat KUBE-POSTROUTING 3]"
    );
    assert_eq!(world.says_one(Hook::Postrouting, packet()), "passes []");
}

#[test]
fn a_service_without_endpoints_refuses() {
    const NEW: u16 = 8;
    let new = |chain| rule([xt_state(NEW, false), jump(chain)]);
    let refuse = || target(XtTarget::Reject(Rejection::Port));
    let loopback =
        rule([saddr_in(&[127], Neq), daddr_in(&[127], Eq), xt_state(0x86, true), drop_it()]);
    let world = World::default()
        .base(
            "filter INPUT",
            Hook::Input,
            vec![new("KUBE-EXTERNAL-SERVICES"), jump("KUBE-FIREWALL")],
        )
        .base("filter OUTPUT", Hook::Output, vec![new("KUBE-SERVICES"), jump("KUBE-FIREWALL")])
        .chain("filter KUBE-SERVICES", vec![rule([cluster_ip(EMPTY), refuse()])])
        .chain(
            "filter KUBE-EXTERNAL-SERVICES",
            vec![rule([tcp_dport(30081), by_addrtype(), refuse()])],
        )
        .chain("filter KUBE-FIREWALL", vec![loopback]);
    let text = world.says_one(Hook::Input, Packet { dport: 30081, ..from_anybody() });
    assert_eq!(text, "refused by Port [filter INPUT 1, filter KUBE-EXTERNAL-SERVICES 1]");
    let text = world.says_one(Hook::Output, local("10.96.0.20:80"));
    assert_eq!(text, "refused by Port [filter OUTPUT 1, filter KUBE-SERVICES 1]");
    assert_eq!(world.says_one(Hook::Input, node_port()), "passes []");
    // Somebody on the wire who claims to speak to loopback.
    let spoofed = Packet { destination: ip("127.0.0.1"), ..from_anybody() };
    let text = world.says_one(Hook::Input, spoofed.clone());
    assert_eq!(text, "dropped [filter INPUT 2, filter KUBE-FIREWALL 1]");
    // By a node port it may.
    let translated = Packet { original: Some((ip(HOST), NODE_PORT)), ..spoofed };
    assert!(world.says_one(Hook::Input, translated).starts_with("passes to 127.0.0.1:80"));
}

/// The nftables mode: verdict maps by address, protocol and port, then by a number.
#[test]
fn verdict_maps_of_the_nftables_mode() {
    let key = |address: [u8; 4], port: u16| {
        let [high, low] = port.to_be_bytes();
        [&address[..], &[6, 0, 0, 0, high, low, 0, 0]].concat()
    };
    let load = vec![
        payload(PayloadBase::Network, 16, 4),
        Expr::Meta { key: MetaKey::L4proto, dreg: Reg(1) },
        Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, dreg: Reg(2) },
    ];
    let vmap = |set: &str| vec![Expr::Map { set: set.into(), sreg: Reg(0), dreg: None }];
    let to = |chain: &str| RuleVerdict::Goto(chain.into());
    let services = || rule([load.clone(), vmap("service-ips")]);
    let endpoints = vec![
        leads(&0_u32.to_ne_bytes(), to("endpoint-1")),
        leads(&1_u32.to_ne_bytes(), to("endpoint-2")),
    ];
    let table = "kube-proxy-nat";
    let chain = |name: &str| format!("{table} {name}");
    let hook = Hook::Output;
    let world = World::default()
        .base(&chain("nat-output"), hook, vec![jump("services")])
        .chain(&chain("services"), vec![services()])
        .chain(&chain("service-a"), vec![[vec![numgen(2, 0)], vmap("__map0")].concat()])
        .chain(&chain("endpoint-1"), vec![dnat("10.244.0.1:8080")])
        .chain(&chain("endpoint-2"), vec![dnat("10.244.0.2:8080")])
        .concat(table, "service-ips", &[4, 1, 2], vec![leads(&key(SVC, 80), to("service-a"))])
        .set(table, "__map0", 4, endpoints);
    let way = "kube-proxy-nat nat-output 1, kube-proxy-nat services 1, kube-proxy-nat service-a 1";
    assert_eq!(
        world.says(hook, local("10.96.0.10:80")),
        [
            format!("passes to 10.244.0.1:8080, 50.0 % [{way}, kube-proxy-nat endpoint-1 1]"),
            format!("passes to 10.244.0.2:8080, 50.0 % [{way}, kube-proxy-nat endpoint-2 1]"),
        ]
    );
    assert_eq!(world.says_one(hook, local("10.96.0.10:81")), "passes []");
}
