//! What both examples share: where rules come from, and how answers are printed.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;

use whereis_port_rules::{
    Address, BaseChain, Bytes, ChainId, ChainKind, CmpOp, Expr, Family, Hook, Link, LinkKind,
    MetaKey, NatKind, NetnsId, PayloadBase, Reg, Route, Rule, RulesBackend, Ruleset, Snapshot,
    Table, TableId,
};

/// How many steps a question may take: rules of a recording are somebody else's.
pub(crate) const STEPS: usize = 40_000_000;

/// Prints an answer, or says what is wrong with what was asked.
pub(crate) fn report(answer: Result<String, String>) -> ExitCode {
    match answer {
        Ok(text) => {
            print!("{}", shown(&text));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{}", shown(&why));
            ExitCode::from(2)
        }
    }
}

/// Names and comments are somebody else's words: what a terminal would obey is written out.
fn shown(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => all.push(c),
            c if c.is_control() => all.extend(c.escape_default()),
            c => all.push(c),
        }
    }
    all
}

/// The rules of a recording that `whereis-port list --record FILE` made.
#[expect(clippy::disallowed_methods, reason = "the evaluator does no I/O, who uses it does")]
pub(crate) fn load(path: &str) -> Result<Snapshot, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("can't read {path}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("can't understand {path}: {error}"))
}

/// A few rules to try, as iptables-nft and Docker write them: TCP port 8080 of this machine is
/// that of a container, port 80 of 172.17.0.2. What else comes in is dropped but SSH.
pub(crate) fn few_rules() -> Snapshot {
    let netns = NetnsId::Inode(1);
    let mut rules = Snapshot::new();
    let link = |index, name: &str, kind| Link {
        netns,
        index,
        name: name.to_owned(),
        up: true,
        kind,
        master: None,
        peer: None,
        peer_netns: None,
        bridge_port: None,
        hardware: None,
        noarp: false,
    };
    rules.add_link(link(1, "lo", LinkKind::Loopback));
    rules.add_link(link(2, "eth0", LinkKind::Device));
    rules.add_link(link(3, "docker0", LinkKind::Bridge));
    let networks = [(1, [127, 0, 0, 1], 8), (2, [10, 0, 0, 1], 24), (3, [172, 17, 0, 1], 16)];
    for (ifindex, address, prefix) in networks {
        let address = IpAddr::from(address);
        rules.add_address(Address { netns, ifindex, address, prefix });
        let route = |destination, prefix, gateway| Route {
            netns,
            destination,
            prefix,
            gateway,
            ifindex: Some(ifindex),
        };
        rules.add_route(route(address, prefix, None));
        if ifindex == 2 {
            let gateway = IpAddr::from([10, 0, 0, 254]);
            rules.add_route(route(IpAddr::from([0, 0, 0, 0]), 0, Some(gateway)));
        }
    }

    let table = |name: &str| TableId {
        netns,
        backend: RulesBackend::Nft,
        family: Family::Ip,
        name: name.into(),
    };
    let chain = |of: &str, name: &str| ChainId { table: table(of), name: name.into() };
    let base = |id, hook, priority, kind, accepts| BaseChain {
        id,
        handle: None,
        hook,
        priority,
        kind,
        accepts,
        devices: Vec::new(),
    };
    let (nat, input) = (chain("nat", "PREROUTING"), chain("filter", "INPUT"));
    let docker = chain("nat", "DOCKER");
    let tables = ["nat", "filter"].map(|name| Table {
        id: table(name),
        handle: None,
        dormant: false,
        comment: None,
    });
    rules.add_ruleset(Ruleset {
        netns,
        generation: None,
        changed_by: None,
        tables: tables.into(),
        base_chains: vec![
            base(nat.clone(), Hook::Prerouting, -100, ChainKind::Nat, true),
            base(input.clone(), Hook::Input, 0, ChainKind::Filter, false),
        ],
    });
    let jump = Expr::Verdict(whereis_port_rules::RuleVerdict::Jump("DOCKER".into()));
    rules.add_chain(nat, vec![rule(1, vec![jump])]);
    // tcp dport 8080 dnat to 172.17.0.2:80
    let mut to_container = tcp_to(8080);
    to_container.extend([
        Expr::Immediate { dreg: Reg(0), value: Bytes::from(IpAddr::from([172, 17, 0, 2])) },
        Expr::Immediate { dreg: Reg(4), value: Bytes::from(80_u16.to_be_bytes().as_slice()) },
        Expr::Nat {
            kind: NatKind::Dnat,
            ipv6: false,
            address: Some((Reg(0), Reg(0))),
            port: Some((Reg(4), Reg(4))),
            flags: 0,
        },
    ]);
    rules.add_chain(docker, vec![rule(1, to_container)]);
    // tcp dport 22 accept
    let mut ssh = tcp_to(22);
    ssh.push(Expr::Verdict(whereis_port_rules::RuleVerdict::Accept));
    rules.add_chain(input, vec![rule(1, ssh)]);
    rules
}

fn rule(handle: u64, exprs: Vec<Expr>) -> Rule {
    Rule { handle, comment: None, exprs, packets: None }
}

/// `tcp dport PORT`, as nft compiles it: a field is loaded to a register and compared.
fn tcp_to(port: u16) -> Vec<Expr> {
    let is = |value: &[u8]| Expr::Cmp { sreg: Reg(0), op: CmpOp::Eq, value: Bytes::from(value) };
    vec![
        Expr::Meta { key: MetaKey::L4proto, dreg: Reg(0) },
        is(&[6]),
        Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, dreg: Reg(0) },
        is(&port.to_be_bytes()),
    ]
}

/// Adds a line.
pub(crate) fn line(text: &mut String, indent: usize, words: &str) {
    let _ = writeln!(text, "{:indent$}{words}", "");
}
