use std::cell::Cell;
use std::collections::HashMap;

use super::super::Chain;
use super::*;
use crate::model::*;

const NETNS: NetnsId = NetnsId::Inode(1);

/// Rules written down.
#[derive(Default)]
struct Written {
    chains: HashMap<ChainId, Arc<[Rule]>>,
    sets: HashMap<SetId, (Set, Arc<[Element]>)>,
    spent: Cell<usize>,
}

impl RuleSource for Written {
    fn chain(&self, chain: &ChainId) -> Option<Arc<Chain>> {
        let rules = self.chains.get(chain)?;
        Some(Arc::new(Chain::new(chain, Arc::clone(rules))))
    }
    fn set(&self, set: &SetId) -> Option<Set> {
        self.sets.get(set).map(|(head, _)| head.clone())
    }
    fn set_elements(&self, set: &SetId) -> Option<Arc<[Element]>> {
        self.sets.get(set).map(|(_, elements)| Arc::clone(elements))
    }
    fn set_element(&self, set: &SetId, key: &Bytes) -> Option<Option<Element>> {
        let (head, elements) = self.sets.get(set)?;
        Some(element_of(&head.fields, elements, key).cloned())
    }
    fn spend(&self, steps: usize) -> bool {
        self.spent.set(self.spent.get() + steps);
        true
    }
    fn ip_set(&self, _: &IpSetId) -> Option<Arc<IpSet>> {
        None
    }
    fn route(&self, query: &RouteQuery) -> Option<RouteFound> {
        let local = query.to.to_string() == "192.0.2.10";
        let kind = if local { RouteKind::Local } else { RouteKind::Unicast };
        Some(RouteFound { kind, oif: None, gateway: None, source: None })
    }
    fn first_address(&self, _: NetnsId, _: u32, _: bool) -> Option<IpAddr> {
        None
    }
}

/// A node with one device and one address.
fn taken(rules: &Written, ruleset: &Ruleset) -> TakenPorts {
    let device = Nic { index: 2, name: "eth0".into() };
    let here = Here {
        netns: NETNS,
        devices: [device].into(),
        addresses: vec!["192.0.2.10".parse().unwrap(), IpAddr::from([127, 0, 0, 1])],
    };
    super::taken(rules, ruleset, &here)
}

fn table(name: &str) -> TableId {
    TableId { netns: NETNS, backend: RulesBackend::Nft, family: Family::Ip, name: name.into() }
}

fn id(table_name: &str, name: &str) -> ChainId {
    ChainId { table: table(table_name), name: name.into() }
}

fn rule(comment: &str, exprs: Vec<Expr>) -> Rule {
    let comment = (!comment.is_empty()).then(|| comment.to_owned());
    Rule { handle: 1, comment, exprs, packets: None }
}

fn jump(chain: &str) -> Expr {
    Expr::Verdict(RuleVerdict::Jump(chain.into()))
}

fn local() -> Expr {
    Expr::Match(
        XtMatch::Addrtype {
            source: 0,
            destination: 4,
            invert_source: false,
            invert_destination: false,
            limit_in: false,
            limit_out: false,
        }
        .into(),
    )
}

fn dport(port: u16) -> Vec<Expr> {
    vec![
        Expr::Meta { key: MetaKey::L4proto, dreg: Reg(0) },
        Expr::Cmp { sreg: Reg(0), op: CmpOp::Eq, value: Bytes::from(vec![6]) },
        Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, dreg: Reg(0) },
        Expr::Cmp { sreg: Reg(0), op: CmpOp::Eq, value: Bytes::from(port.to_be_bytes().to_vec()) },
    ]
}

fn dnat(to: &str) -> Expr {
    let to: std::net::SocketAddr = to.parse().unwrap();
    Expr::Target(
        XtTarget::Dnat(NatRange {
            addresses: Some((to.ip(), to.ip())),
            ports: Some((to.port(), to.port())),
            base: None,
            flags: 3,
        })
        .into(),
    )
}

fn with(mut exprs: Vec<Expr>, last: Expr) -> Vec<Expr> {
    exprs.push(last);
    exprs
}

impl Written {
    fn put(&mut self, table: &str, chain: &str, rules: Vec<Rule>) {
        self.chains.insert(id(table, chain), rules.into());
    }

    fn ruleset(&self, table_name: &str, chain: &str) -> Ruleset {
        Ruleset {
            netns: NETNS,
            generation: None,
            changed_by: None,
            tables: vec![
                Table { id: table(table_name), handle: None, dormant: false, comment: None },
                Table { id: table("filter"), handle: None, dormant: false, comment: None },
            ],
            base_chains: [
                (table_name, chain, Hook::Prerouting),
                (table_name, chain, Hook::Output),
                ("filter", "INPUT", Hook::Input),
            ]
            .map(|(table_name, chain, hook)| BaseChain {
                id: id(table_name, chain),
                handle: None,
                hook,
                priority: if hook == Hook::Input { 0 } else { -100 },
                kind: if hook == Hook::Input { ChainKind::Filter } else { ChainKind::Nat },
                accepts: true,
                devices: Vec::new(),
            })
            .into_iter()
            .filter(|base| self.chains.contains_key(&base.id))
            .collect(),
        }
    }
}

fn shown(all: &[TakenPort]) -> Vec<String> {
    let one = |t: &TakenPort| {
        let targets: Vec<String> =
            t.targets.iter().map(|(a, p)| std::net::SocketAddr::new(*a, *p).to_string()).collect();
        let service = t.meaning.service.as_ref().map(|s| format!("{}/{}", s.namespace, s.name));
        format!(
            "{} {}/{} {:?} > {} of {}, {} {} {}",
            t.address.map_or("*".to_owned(), |a| a.to_string()),
            t.port,
            t.proto,
            t.meaning.by.unwrap_or("-"),
            targets.join(" "),
            t.total,
            t.meaning.what.unwrap_or("-"),
            service.unwrap_or_default(),
            t.meaning.refused.unwrap_or_default(),
        )
    };
    all.iter().map(one).collect()
}

#[test]
fn a_published_port_of_docker_is_taken_once() {
    let mut rules = Written::default();
    rules.put("nat", "PREROUTING", vec![rule("", vec![local(), jump("DOCKER")])]);
    rules.put(
        "nat",
        "DOCKER",
        vec![
            rule("", vec![Expr::Verdict(RuleVerdict::Return)]),
            rule("", with(dport(8080), dnat("172.17.0.2:80"))),
        ],
    );
    // A chain that returns at once takes nothing.
    assert!(taken(&rules, &rules.ruleset("nat", "PREROUTING")).ports.is_empty());
    rules.put("nat", "DOCKER", vec![rule("", with(dport(8080), dnat("172.17.0.2:80")))]);
    assert_eq!(
        shown(&taken(&rules, &rules.ruleset("nat", "PREROUTING")).ports),
        ["* 8080/tcp \"Docker\" > 172.17.0.2:80 of 1, published port  "]
    );
}

#[test]
fn a_hostport_of_cni_is_taken_where_its_own_chain_says() {
    let mut rules = Written::default();
    rules.put("nat", "PREROUTING", vec![rule("", vec![local(), jump("CNI-HOSTPORT-DNAT")])]);
    let many = XtMatch::Multiport {
        side: Side::Destination,
        ports: vec![(80, 80), (443, 443)],
        invert: false,
    };
    let comment = "dnat name: \"cbr0\" id: \"deadbeef\"";
    let to_chain = vec![Expr::Match(many.into()), jump("CNI-DN-1")];
    rules.put("nat", "CNI-HOSTPORT-DNAT", vec![rule(comment, to_chain)]);
    rules.put(
        "nat",
        "CNI-DN-1",
        vec![
            rule("", with(dport(80), dnat("10.4.0.2:8080"))),
            rule("", with(dport(444), dnat("10.4.0.2:9"))),
        ],
    );
    let all = taken(&rules, &rules.ruleset("nat", "PREROUTING")).ports;
    assert_eq!(shown(&all), ["* 80/tcp \"CNI portmap\" > 10.4.0.2:8080 of 1, hostPort  "]);
    assert_eq!(all[0].meaning.container_id.as_deref(), Some("deadbeef"));
    assert_eq!(all[0].meaning.place.as_deref(), Some("network cbr0"));
}

/// kube-proxy's rules: services with a NodePort, and four endpoints each.
fn kube(services: u16) -> Written {
    let mut rules = Written::default();
    let (mut portals, mut ports) = (Vec::new(), Vec::new());
    for n in 0..services {
        let spn = format!("default/s{n}:http");
        let (ext, svc) = (format!("KUBE-EXT-{n}"), format!("KUBE-SVC-{n}"));
        let vip = [10, 96, (n >> 8) as u8, n as u8];
        let mut of_vip = vec![
            Expr::Payload { base: PayloadBase::Network, offset: 16, len: 4, dreg: Reg(0) },
            Expr::Cmp { sreg: Reg(0), op: CmpOp::Eq, value: Bytes::from(vip.to_vec()) },
        ];
        of_vip.extend(with(dport(80), jump(&svc)));
        portals.push(rule(&format!("{spn} cluster IP"), of_vip));
        ports.push(rule(&spn, with(dport(20000 + n), jump(&ext))));
        rules.put(
            "nat",
            &ext,
            vec![rule("", vec![jump("KUBE-MARK-MASQ")]), rule("", vec![jump(&svc)])],
        );
        let mut balance = Vec::new();
        for e in 0..4 {
            let sep = format!("KUBE-SEP-{n}-{e}");
            let of = u32::try_from(4 - e).unwrap();
            let often = XtMatch::Random { probability: (1 << 31) / of, invert: false };
            balance.push(rule(&spn, vec![Expr::Match(often.into()), jump(&sep)]));
            let to = format!("10.244.{e}.5:80");
            rules.put(
                "nat",
                &sep,
                vec![rule("", vec![jump("KUBE-MARK-MASQ")]), rule(&spn, vec![dnat(&to)])],
            );
        }
        rules.put("nat", &svc, balance);
    }
    portals.push(rule("kubernetes service nodeports", vec![local(), jump("KUBE-NODEPORTS")]));
    rules.put("nat", "PREROUTING", vec![rule("", vec![jump("KUBE-SERVICES")])]);
    rules.put("nat", "KUBE-SERVICES", portals);
    rules.put("nat", "KUBE-NODEPORTS", ports);
    rules.put("nat", "KUBE-MARK-MASQ", vec![]);
    rules
}

#[test]
fn node_ports_have_their_service_and_cluster_addresses_are_left_out() {
    let mut rules = kube(1);
    rules.put("filter", "INPUT", vec![rule("", vec![jump("KUBE-EXTERNAL-SERVICES")])]);
    let refuse = vec![
        local(),
        Expr::Match(
            XtMatch::Tcp {
                sports: (0, u16::MAX),
                dports: (30001, 30001),
                invert_sports: false,
                invert_dports: false,
                flags: (0, 0),
                invert_flags: false,
                option: 0,
            }
            .into(),
        ),
        Expr::Target(XtTarget::Reject(Rejection::Port).into()),
    ];
    rules.put(
        "filter",
        "KUBE-EXTERNAL-SERVICES",
        vec![rule("default/gone has no endpoints", refuse)],
    );
    let all = taken(&rules, &rules.ruleset("nat", "PREROUTING")).ports;
    assert_eq!(
        shown(&all),
        [
            "* 20000/tcp \"kube-proxy (iptables)\" > 10.244.0.5:80 10.244.1.5:80 10.244.2.5:80 10.244.3.5:80 of 4, NodePort default/s0 ",
            "* 30001/tcp \"kube-proxy (iptables)\" >  of 0, NodePort default/gone has no endpoints",
        ]
    );
    assert!(all[1].refused);
}

#[test]
fn rules_are_looked_at_about_once_however_many_there_are() {
    let rules = kube(5000);
    let count: usize = rules.chains.values().map(|rules| rules.len()).sum();
    assert!(count > 75_000, "{count}");
    let ruleset = rules.ruleset("nat", "PREROUTING");
    assert_eq!(taken(&rules, &ruleset).ports.len(), 5000);
    // Four times: by TCP and UDP, for packets of others and of the node itself.
    let spent = rules.spent.get();
    assert!(spent < 100 * count, "{spent} steps for {count} rules");
}

#[test]
fn chains_that_call_each_other_end() {
    let mut rules = Written::default();
    rules.put("nat", "PREROUTING", vec![rule("", vec![jump("a")])]);
    rules.put("nat", "a", vec![rule("", with(dport(1), jump("b"))), rule("", vec![jump("b")])]);
    rules.put("nat", "b", vec![rule("", vec![jump("a")])]);
    assert!(taken(&rules, &rules.ruleset("nat", "PREROUTING")).ports.is_empty());
}

/// A set whose keys are protocol and port.
fn ports_set(id: SetId, maps_to: MapsTo) -> Set {
    Set {
        id,
        interval: false,
        concat: true,
        dynamic: false,
        key_len: 8,
        fields: vec![1, 2],
        maps_to,
        comment: None,
    }
}

#[test]
fn elements_of_verdict_maps_and_of_maps_for_dnat_are_ports() {
    let mut rules = Written::default();
    let key = vec![
        Expr::Meta { key: MetaKey::L4proto, dreg: Reg(0) },
        Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, dreg: Reg(1) },
    ];
    let set = |table_name: &str, name: &str| SetId { table: table(table_name), name: name.into() };
    let of = |id: SetId, element: Element, maps_to| {
        (id.clone(), (ports_set(id, maps_to), Arc::from([element])))
    };
    let element = |port: u16, verdict: Option<RuleVerdict>, data: Option<Vec<u8>>| {
        let [high, low] = port.to_be_bytes();
        let key = Bytes::from(vec![6, 0, 0, 0, high, low, 0, 0]);
        let data = data.map(Bytes::from);
        Element { key, key_end: None, catch_all: false, verdict, data, comment: None }
    };
    let chain = "external-ULMVA6XW-ns1/svc1/tcp/p80";
    let map = Expr::Map { set: "service-nodeports".into(), sreg: Reg(0), dreg: None };
    rules.put("kube-proxy", "services", vec![rule("", with(key.clone(), map))]);
    let goto = RuleVerdict::Goto(chain.into());
    rules.sets.extend([of(
        set("kube-proxy", "service-nodeports"),
        element(30080, Some(goto), None),
        MapsTo::Verdict,
    )]);
    rules.put("kube-proxy", chain, vec![rule("", vec![dnat("10.180.0.1:80")])]);
    assert_eq!(
        shown(&taken(&rules, &rules.ruleset("kube-proxy", "services")).ports),
        ["* 30080/tcp \"kube-proxy (nftables)\" > 10.180.0.1:80 of 1, NodePort ns1/svc1 "]
    );

    let map = Expr::Map { set: "hostports".into(), sreg: Reg(0), dreg: Some(Reg(0)) };
    let nat = Expr::Nat {
        kind: NatKind::Dnat,
        ipv6: false,
        address: Some((Reg(0), Reg(0))),
        port: Some((Reg(1), Reg(1))),
        flags: 3,
    };
    rules.put("crio-hostports", "hostports", vec![rule("", with(with(key, map), nat))]);
    let data = vec![10, 85, 0, 7, 0, 80, 0, 0];
    let element = element(8080, None, Some(data));
    rules.sets.extend([of(set("crio-hostports", "hostports"), element, MapsTo::Data)]);
    assert_eq!(
        shown(&taken(&rules, &rules.ruleset("crio-hostports", "hostports")).ports),
        ["* 8080/tcp \"CRI-O\" > 10.85.0.7:80 of 1, hostPort  "]
    );
}

fn load(base: PayloadBase, offset: u32, len: u32) -> Expr {
    Expr::Payload { base, offset, len, dreg: Reg(0) }
}

fn compare(op: CmpOp, value: &[u8]) -> Expr {
    Expr::Cmp { sreg: Reg(0), op, value: Bytes::from(value.to_vec()) }
}

/// The ports that a rule with such a test takes, as ranges, and a rule that is not clear.
fn ports(test: Vec<Expr>) -> (Vec<(u128, u128)>, Option<String>) {
    let mut rules = Written::default();
    rules.put("nat", "PREROUTING", vec![rule("", with(test, dnat("10.0.0.2:80")))]);
    let id = SetId { table: table("nat"), name: "some".into() };
    let range = |from: [u8; 2], to: [u8; 2]| Element {
        key: Bytes::from(from.as_slice()),
        key_end: Some(Bytes::from(to.as_slice())),
        catch_all: false,
        verdict: None,
        data: None,
        comment: None,
    };
    let head = Set { key_len: 2, fields: vec![2], ..ports_set(id.clone(), MapsTo::Nothing) };
    rules.sets.insert(id, (head, [range([0, 5], [0, 9]), range([1, 0], [1, 1])].into()));
    let found = taken(&rules, &rules.ruleset("nat", "PREROUTING"));
    let one = |n: u16| (u128::from(n), u128::from(n));
    let tcp = found.ports.iter().filter(|t| t.proto == Proto::Tcp).map(|t| one(t.port));
    let many = found.many.iter().filter(|many| many.proto == Proto::Tcp);
    let many = many.flat_map(|many| many.ports.as_ranges().to_vec());
    (Ranges::new(tcp.chain(many)).as_ranges().to_vec(), found.unclear)
}

#[test]
fn whatever_tests_the_port_the_ports_that_it_takes_are_told() {
    const ALL: u128 = 0xffff;
    let port = || load(PayloadBase::Transport, 2, 2);
    let mask = |len: u32, mask: &[u8]| Expr::Bitwise {
        sreg: Reg(0),
        dreg: Reg(0),
        len,
        op: BitOp::MaskXor {
            mask: Bytes::from(mask.to_vec()).into(),
            xor: Bytes::from(vec![0; mask.len()]).into(),
        },
    };
    let lookup = |invert| Expr::Lookup { set: "some".into(), sreg: Reg(0), invert };
    let xt = |one: XtMatch| Expr::Match(one.into());
    let multiport =
        |invert| xt(XtMatch::Multiport { side: Side::Destination, ports: vec![(1, 2)], invert });
    let tcp = |invert| {
        xt(XtMatch::Tcp {
            sports: (0, u16::MAX),
            dports: (53, 54),
            invert_sports: false,
            invert_dports: invert,
            flags: (0, 0),
            invert_flags: false,
            option: 0,
        })
    };
    let range = |invert| {
        let [from, to] = [[0, 1], [0, 9]].map(|port| Bytes::from(port.to_vec()).into());
        Expr::Range { sreg: Reg(0), invert, from, to }
    };
    let swap = Expr::Byteorder { sreg: Reg(0), dreg: Reg(0), len: 2, size: 2 };
    let source = || load(PayloadBase::Network, 12, 4);
    let every = vec![(1, ALL)];
    for (test, wanted) in [
        (vec![port(), mask(2, &[0xff, 0xfe]), compare(CmpOp::Eq, &[28, 32])], vec![(7200, 7201)]),
        (vec![port(), compare(CmpOp::Neq, &[0, 22])], vec![(1, 21), (23, ALL)]),
        (vec![port(), compare(CmpOp::Lt, &[4, 0])], vec![(1, 1023)]),
        (vec![port(), compare(CmpOp::Gte, &[4, 0])], vec![(1024, ALL)]),
        (vec![port(), compare(CmpOp::Gt, &[4, 0])], vec![(1025, ALL)]),
        (vec![port(), lookup(false)], vec![(5, 9), (256, 257)]),
        (vec![port(), lookup(true)], vec![(1, 4), (10, 255), (258, ALL)]),
        (vec![port(), Expr::Opaque("new".into()), compare(CmpOp::Eq, &[0, 22])], vec![(22, 22)]),
        (vec![port(), range(false)], vec![(1, 9)]),
        (vec![port(), range(true)], vec![(10, ALL)]),
        (vec![multiport(false)], vec![(1, 2)]),
        (vec![multiport(true)], vec![(3, ALL)]),
        (vec![tcp(false)], vec![(53, 54)]),
        (vec![tcp(true)], vec![(1, 52), (55, ALL)]),
        (
            vec![
                load(PayloadBase::Transport, 0, 4),
                mask(4, &[0, 0, 0xff, 0]),
                compare(CmpOp::Eq, &[0; 4]),
            ],
            vec![(1, 255)],
        ),
        (
            vec![load(PayloadBase::Transport, 0, 4), compare(CmpOp::Eq, &[0, 7, 0, 80])],
            vec![(80, 80)],
        ),
        (vec![port(), swap, compare(CmpOp::Eq, &[22, 0])], vec![(22, 22)]),
        (dport(80), vec![(80, 80)]),
        ([vec![source(), compare(CmpOp::Neq, &[10, 0, 0, 1])], dport(80)].concat(), vec![(80, 80)]),
        (
            [vec![load(PayloadBase::Transport, 0, 2), compare(CmpOp::Eq, &[0, 7])], dport(80)]
                .concat(),
            vec![(80, 80)],
        ),
        ([vec![Expr::Opaque("limit".into())], dport(80)].concat(), vec![(80, 80)]),
        ([vec![port(), compare(CmpOp::Neq, &[0, 22])], dport(80)].concat(), vec![(80, 80)]),
        // Every port, whatever it is.
        (vec![local()], every.clone()),
        // Which of them, a program over bytes of the packet knows.
        (vec![xt(XtMatch::Unknown { name: "bpf".to_owned(), revision: 0 })], every),
    ] {
        assert_eq!(ports(test.clone()), (wanted, None), "{test:?}");
    }
    // By the last byte of the port alone.
    let (by_byte, unclear) =
        ports(vec![load(PayloadBase::Transport, 3, 1), compare(CmpOp::Eq, &[80])]);
    assert_eq!((by_byte.len(), by_byte[1], unclear), (256, (336, 336), None));
    // A set that could not be read may have any.
    let missing = vec![port(), Expr::Lookup { set: "gone".into(), sreg: Reg(0), invert: false }];
    assert_eq!(ports(missing).0, [(1, ALL)]);
    // It is no port behind an IP header of unknown length.
    let behind = vec![load(PayloadBase::Network, 22, 2), compare(CmpOp::Eq, &[0, 80])];
    assert_eq!(ports(behind).0, [(1, ALL)]);
}

#[test]
fn rules_that_take_ports_as_they_are_named_leave_nothing_unclear() {
    let rules = kube(3);
    assert_eq!(taken(&rules, &rules.ruleset("nat", "PREROUTING")).unclear, None);
}
