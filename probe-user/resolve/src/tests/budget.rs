//! Namespaces whose rules are written to be an answer to everything, or to never end.

use std::net::SocketAddr;

use super::*;
use whereis_port_model::{
    BaseChain, Bytes, ChainId, ChainKind, CmpOp, Expr, Family, Hook, MetaKey, NatRange,
    PayloadBase, Reg, Rule, RuleVerdict, RulesBackend, Ruleset, Table, TableId, XtTarget,
};

fn chain(netns: NetnsId, name: &str) -> ChainId {
    let table =
        TableId { netns, backend: RulesBackend::Nft, family: Family::Ip, name: "nat".into() };
    ChainId { table, name: name.into() }
}

fn dnat(to: &str) -> Expr {
    let to: SocketAddr = to.parse().unwrap();
    let (addresses, ports) = (Some((to.ip(), to.ip())), Some((to.port(), to.port())));
    Expr::Target(XtTarget::Dnat(NatRange { addresses, ports, base: None, flags: 3 }).into())
}

/// `tcp dport`.
fn dport(op: CmpOp, port: u16) -> Vec<Expr> {
    vec![
        Expr::Meta { key: MetaKey::L4proto, dreg: Reg(0) },
        Expr::Cmp { sreg: Reg(0), op: CmpOp::Eq, value: Bytes::from(vec![6]) },
        Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, dreg: Reg(0) },
        Expr::Cmp { sreg: Reg(0), op, value: Bytes::from(port.to_be_bytes().to_vec()) },
    ]
}

fn with(mut exprs: Vec<Expr>, last: Expr) -> Vec<Expr> {
    exprs.push(last);
    exprs
}

impl TestNode {
    /// Rules of a chain; one called `out` hangs in the output hook.
    fn rules(mut self, netns: NetnsId, name: &str, rules: Vec<Vec<Expr>>) -> Self {
        let id = chain(netns, name);
        if name == "out" {
            let (handle, accepts, devices) = (Some(1), true, Vec::new());
            let base = BaseChain {
                id: id.clone(),
                handle,
                hook: Hook::Output,
                priority: -100,
                kind: ChainKind::Nat,
                accepts,
                devices,
            };
            let id = id.table.clone();
            self.rulesets.push(Ruleset {
                netns,
                generation: None,
                changed_by: None,
                tables: vec![Table { id, handle: Some(1), dormant: false, comment: None }],
                base_chains: vec![base],
            });
        }
        let number = |(handle, exprs)| Rule { handle, comment: None, exprs, packets: None };
        let rules: Vec<Rule> = (1..).zip(rules).map(number).collect();
        self.chains.insert(id, rules.into());
        self
    }

    fn owned_by(mut self, netns: NetnsId, user_ns: u64) -> Self {
        self.netns.iter_mut().find(|n| n.id == netns).unwrap().user_ns = Some(user_ns);
        self
    }

    /// Chains of jumps, each of which is made once more with another mark: nothing is the
    /// same twice.
    fn bomb(mut self, netns: NetnsId) -> Self {
        let jump = |to: usize| vec![Expr::Verdict(RuleVerdict::Jump(format!("c{to}").into()))];
        let mark = |mark: u32| {
            let value = Bytes::from(mark.to_ne_bytes().to_vec());
            vec![
                Expr::Immediate { dreg: Reg(0), value },
                Expr::SetMeta { key: MetaKey::Mark, sreg: Reg(0) },
            ]
        };
        for at in 0..14 {
            let rules = (0..8).flat_map(|n| [mark(n), jump(at + 1)]).collect();
            self = self.rules(netns, &format!("c{at}"), rules);
        }
        self.rules(netns, "c14", Vec::new()).rules(netns, "out", vec![jump(0)])
    }
}

fn gaps(answer: &Answer) -> String {
    let gap = |g: &Gap| format!("{:?} {}: {}", g.impact, g.source, g.reason);
    answer.gaps.iter().map(gap).collect::<Vec<_>>().join("\n")
}

#[test]
fn rules_of_others_that_never_end_are_cut_and_named_and_the_listener_is_found() {
    let mut node = TestNode::new().tcp(HOST, "0.0.0.0:8080").held_by(10, HOST, "web");
    for n in 0..20 {
        let id = NetnsId::Inode(1000 + n);
        node = node.namespace(id, &format!("x{n}")).owned_by(id, 7);
        for address in 1..20 {
            node = node.address(id, &format!("10.{n}.0.{address}"));
        }
        node = node.bomb(id);
    }
    let answer = node.ask("8080");
    assert_eq!(shape(&answer), ["0.0.0.0:8080 > web"]);
    let asked = node.asked.get();
    assert!(asked < 1000, "the same chains are asked for again and again: {asked}");
    let answer = node.ask("1");
    assert_eq!(answer.verdict, Verdict::Unknown);
    let gaps = gaps(&answer);
    assert!(
        gaps.contains("Port packet rules of 20 network namespaces x0, x1, x2, …")
            && gaps.contains("connections were not tried"),
        "{gaps}"
    );
}

#[test]
fn rules_of_others_leave_the_host_what_its_own_need() {
    let own = vec![with(dport(CmpOp::Eq, 9090), dnat("192.0.2.10:8080"))];
    let mut node =
        TestNode::new().tcp(HOST, "0.0.0.0:8080").held_by(10, HOST, "web").rules(HOST, "out", own);
    for n in 0..20 {
        let id = NetnsId::Inode(n);
        node = node.namespace(id, &format!("x{n}")).bomb(id);
    }
    // They come first.
    node.netns.rotate_left(1);
    let answer = node.ask("9090");
    let host = "127.0.0.1:9090 > 192.0.2.10:8080 > 0.0.0.0:8080 > web";
    assert!(shape(&answer).iter().any(|path| path.ends_with(&host[14..])), "{:?}", shape(&answer));
    assert!(!gaps(&answer).contains("network namespace host"), "{}", gaps(&answer));
}

#[test]
fn rules_that_take_every_port_are_no_answer_to_one() {
    let all = || vec![with(dport(CmpOp::Neq, 12345), dnat("203.0.113.9:80"))];
    let node =
        TestNode::new().namespace(A, "sidecar").address(A, "10.0.0.2").rules(A, "out", all());
    let answer = node.ask("29999");
    assert_eq!((answer.verdict, shape(&answer)), (Verdict::NotFound, Vec::new()));
    assert!(gaps(&answer).contains("sidecar: they take nearly every port"), "{}", gaps(&answer));
    // Nor to one of an address that is not theirs.
    let answer = node.ask("192.0.2.10:29999");
    assert_eq!((answer.verdict, shape(&answer)), (Verdict::NotFound, Vec::new()));
    assert_eq!(node.ask("10.0.0.2:29999/tcp").verdict, Verdict::Found, "asked for there");
    // Where something listens on the port, they are a part of the way to it.
    let node = node.tcp(A, "0.0.0.0:29999").held_by(20, A, "app");
    assert!(shape(&node.ask("29999")).len() > 1);
    // The node's own rules are what was asked for.
    let node = TestNode::new().rules(HOST, "out", all());
    assert_eq!(node.ask("29999").verdict, Verdict::Found);
}

#[test]
fn a_rule_of_another_namespace_for_one_port_is_an_answer() {
    let one = vec![with(dport(CmpOp::Eq, 8080), dnat("203.0.113.9:80"))];
    let node = TestNode::new().namespace(A, "c").address(A, "10.0.0.2").rules(A, "out", one);
    assert_eq!(node.ask("8080").verdict, Verdict::Found);
    assert_eq!(node.ask("8081").verdict, Verdict::NotFound);
}

#[test]
fn lists_and_ranges_have_the_ports_that_questions_find() {
    let mask = Expr::Bitwise {
        sreg: Reg(0),
        dreg: Reg(0),
        len: 2,
        op: whereis_port_model::BitOp::MaskXor {
            mask: Bytes::from(vec![0xff, 0xfe]).into(),
            xor: Bytes::from(vec![0, 0]).into(),
        },
    };
    let mut masked = dport(CmpOp::Eq, 7200);
    masked.insert(3, mask);
    let node = TestNode::new().rules(HOST, "out", vec![with(masked, dnat("203.0.113.9:80"))]);
    assert_eq!(node.ask("7201").verdict, Verdict::Found);
    assert_eq!(node.ask("7202").verdict, Verdict::NotFound);
    assert_eq!(node.ask("7190-7210").verdict, Verdict::Found);
    assert_eq!(node.ask("7202-7210").verdict, Verdict::NotFound);
    let listed = |node: &TestNode| {
        let listing = crate::list(node, &crate::ListFilter::default());
        (listing.rows.iter().map(|row| row.port.0).collect::<Vec<_>>(), listing.gaps)
    };
    assert_eq!(listed(&node).0, [7200, 7201]);
    // Of very many, one stands for all in a range, and a list says that there are more.
    let many = vec![with(dport(CmpOp::Lte, 30000), dnat("203.0.113.9:80"))];
    let node = TestNode::new().rules(HOST, "out", many);
    assert_eq!(node.ask("29990-30010").verdict, Verdict::Found);
    assert!(gaps(&node.ask("29990-30010")).contains("30000 ports are taken by a rule"));
    assert_eq!(node.ask("30001-30010").verdict, Verdict::NotFound);
    let (ports, gaps) = listed(&node);
    assert!(ports.is_empty() && gaps.iter().any(|gap| gap.impact == Impact::Port), "{gaps:?}");
}

#[test]
fn a_port_with_very_many_ways_shows_a_few_and_says_how_many_more() {
    let sport = |port: u16| {
        let value = Bytes::from(port.to_be_bytes().to_vec());
        vec![
            Expr::Payload { base: PayloadBase::Transport, offset: 0, len: 2, dreg: Reg(1) },
            Expr::Cmp { sreg: Reg(1), op: CmpOp::Eq, value },
        ]
    };
    let rule = |n: u16| {
        let to = dnat(&format!("203.0.{}.{}:80", n >> 8, n & 255));
        with([dport(CmpOp::Eq, 8080), sport(n)].concat(), to)
    };
    let node = TestNode::new().rules(HOST, "out", (1..2000).map(rule).collect());
    let answer = node.ask("8080/tcp");
    assert_eq!(answer.verdict, Verdict::Found);
    assert!(answer.paths.len() <= 10, "{}", answer.paths.len());
    assert!(answer.more > 100, "{}", answer.more);
}
