use super::*;
use crate::model::*;
use crate::resolve::rules::Source;

const NETNS: NetnsId = NetnsId::Inode(1);

/// Rules written down.
#[derive(Default)]
struct Written {
    chains: HashMap<ChainId, Arc<[Rule]>>,
    sets: HashMap<SetId, Arc<[Element]>>,
}

impl Source for Written {
    fn chain(&self, chain: &ChainId) -> Option<Arc<[Rule]>> {
        self.chains.get(chain).cloned()
    }
    fn set(&self, _: &SetId) -> Option<Set> {
        None
    }
    fn set_elements(&self, set: &SetId) -> Option<Arc<[Element]>> {
        self.sets.get(set).cloned()
    }
    fn set_element(&self, _: &SetId, _: &Bytes) -> Option<Option<Element>> {
        None
    }
    fn ip_set(&self, _: &IpSetId) -> Option<IpSet> {
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

fn table(name: &str) -> TableId {
    TableId { netns: NETNS, backend: Backend::Nft, family: Family::Ip, name: name.into() }
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
        Expr::Payload { base: Base::Transport, offset: 2, len: 2, dreg: Reg(0) },
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
            base_chains: [Hook::Prerouting, Hook::Output]
                .map(|hook| BaseChain {
                    id: id(table_name, chain),
                    handle: None,
                    hook,
                    priority: -100,
                    kind: ChainKind::Nat,
                    accepts: true,
                    devices: Vec::new(),
                })
                .to_vec(),
        }
    }
}

fn shown(all: &[Taken]) -> Vec<String> {
    let one = |t: &Taken| {
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
    assert!(taken(&rules, &rules.ruleset("nat", "PREROUTING")).is_empty());
    rules.put("nat", "DOCKER", vec![rule("", with(dport(8080), dnat("172.17.0.2:80")))]);
    assert_eq!(
        shown(&taken(&rules, &rules.ruleset("nat", "PREROUTING"))),
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
    let all = taken(&rules, &rules.ruleset("nat", "PREROUTING"));
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
            Expr::Payload { base: Base::Network, offset: 16, len: 4, dreg: Reg(0) },
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
            balance.push(rule(&spn, vec![jump(&sep)]));
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
    let all = taken(&rules, &rules.ruleset("nat", "PREROUTING"));
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
    let mut search = Search::new(&rules, &ruleset);
    for base in &ruleset.base_chains {
        search.walk(&base.id, &Cond::default());
    }
    assert!(search.visits < 2 * count, "{} looks at {count} rules", search.visits);
    assert_eq!(search.finish().len(), 5000);
}

#[test]
fn chains_that_call_each_other_end() {
    let mut rules = Written::default();
    rules.put("nat", "PREROUTING", vec![rule("", vec![jump("a")])]);
    rules.put("nat", "a", vec![rule("", with(dport(1), jump("b"))), rule("", vec![jump("b")])]);
    rules.put("nat", "b", vec![rule("", vec![jump("a")])]);
    assert!(taken(&rules, &rules.ruleset("nat", "PREROUTING")).is_empty());
}

#[test]
fn elements_of_verdict_maps_and_of_maps_for_dnat_are_ports() {
    let mut rules = Written::default();
    let key = vec![
        Expr::Meta { key: MetaKey::L4proto, dreg: Reg(0) },
        Expr::Payload { base: Base::Transport, offset: 2, len: 2, dreg: Reg(1) },
    ];
    let set = |table_name: &str, name: &str| SetId { table: table(table_name), name: name.into() };
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
    rules
        .sets
        .insert(set("kube-proxy", "service-nodeports"), [element(30080, Some(goto), None)].into());
    rules.put("kube-proxy", chain, vec![rule("", vec![dnat("10.180.0.1:80")])]);
    assert_eq!(
        shown(&taken(&rules, &rules.ruleset("kube-proxy", "services"))),
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
    rules.sets.insert(set("crio-hostports", "hostports"), [element(8080, None, Some(data))].into());
    assert_eq!(
        shown(&taken(&rules, &rules.ruleset("crio-hostports", "hostports"))),
        ["* 8080/tcp \"CRI-O\" > 10.85.0.7:80 of 1, hostPort  "]
    );
}
