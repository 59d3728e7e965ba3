//! Tables as the kernel gives them, in namespaces of the tests, and damaged ones.

use super::index::TableInfo;
use super::*;
use crate::live::rules::xt::lab::{in_a_namespace, run};
use whereis_port_model::{BitOp, Bytes, CmpOp, Expr, MetaKey, PayloadBase, Reg, XtTarget};

const NETNS: NetnsId = NetnsId::Inode(1);
const TOOLS: &[&str] = &["iptables-legacy-restore", "ip6tables-legacy-restore", "ip"];

fn restore(rules: &str) {
    run("iptables-legacy-restore", &[], rules);
}

fn restore6(rules: &str) {
    run("ip6tables-legacy-restore", &[], rules);
}

fn table(family: Family, name: &str) -> LegacyTable {
    let mut tables = tables(NETNS, |_| true).unwrap();
    tables.retain(|table| (table.id().family, &*table.id().name) == (family, name));
    assert_eq!(tables.len(), 1, "{name}");
    tables.remove(0)
}

/// Tables recorded by `fixtures/record.py` from Linux 6.18 with iptables 1.8.9.
const RECORDED: [(&str, bool, &str); 2] = [
    ("nat", false, include_str!("fixtures/nat4.hex")),
    ("filter", true, include_str!("fixtures/filter6.hex")),
];

fn recorded(hex: &str) -> (Vec<u8>, Vec<u8>) {
    let mut lines = hex.lines().map(|line| {
        let digits = line.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    });
    (lines.next().unwrap(), lines.next().unwrap())
}

fn open(name: &str, ipv6: bool, info: &[u8], entries: Vec<u8>) -> Option<LegacyTable> {
    let raw =
        RawTable { name: name.to_owned(), info: TableInfo::parse(info)?, entries: entries.into() };
    LegacyTable::new(NETNS, ipv6, raw).ok()
}

/// Every chain's rules, one line each: number, comment, and expressions.
fn as_text(table: &LegacyTable) -> String {
    let mut lines = Vec::new();
    for chain in table.chain_names() {
        lines.push(format!("{chain}:"));
        for rule in table.chain(&chain).unwrap() {
            let comment = rule.comment.map(|text| format!(" {text:?}")).unwrap_or_default();
            lines.push(format!("  {}{comment}", rule.handle));
            lines.extend(rule.exprs.iter().map(|expr| format!("    {expr:?}")));
        }
    }
    lines.join("\n")
}

#[test]
fn recorded_tables_are_read() {
    for (name, ipv6, hex) in RECORDED {
        let (info, entries) = recorded(hex);
        let table = open(name, ipv6, &info, entries).unwrap();
        insta::assert_snapshot!(format!("recorded_{name}"), as_text(&table));
    }
}

#[test]
fn chains_are_found_by_the_jumps_to_them() {
    for (name, ipv6, hex) in RECORDED {
        let (info, entries) = recorded(hex);
        let (one, other) = (
            open(name, ipv6, &info, entries.clone()).unwrap(),
            open(name, ipv6, &info, entries).unwrap(),
        );
        let mut going: Vec<std::sync::Arc<str>> =
            one.base_chains().into_iter().map(|chain| chain.id.name).collect();
        let mut met = 0;
        while let Some(chain) = going.pop() {
            met += 1;
            let rules = one.chain(&chain).unwrap();
            for expr in rules.iter().flat_map(|rule| &rule.exprs) {
                if let Expr::Verdict(RuleVerdict::Jump(to) | RuleVerdict::Goto(to)) = expr {
                    going.push(to.clone());
                }
            }
            assert!(!one.index.has_looked_for_all());
            assert!(other.chain_names().any(|known| known == chain));
            assert_eq!(other.chain(&chain), Some(rules));
        }
        assert!(met > one.base_chains().len());
        assert_eq!(one.chain("no such chain"), None);
    }
}

#[test]
fn damaged_tables_end_somewhere() {
    for (name, ipv6, hex) in RECORDED {
        let (info, entries) = recorded(hex);
        let walk = |info: &[u8], entries: Vec<u8>| {
            let Some(table) = open(name, ipv6, info, entries) else { return false };
            let bases = table.base_chains();
            assert!(bases.len() <= 5);
            let most = table.index.entries.len() / 112;
            for chain in table.chain_names() {
                assert!(table.chain(&chain).unwrap().len() <= most);
            }
            true
        };
        assert!(walk(&info, entries.clone()));
        for end in 0..entries.len() {
            walk(&info, entries[..end].to_vec());
        }
        for end in 0..info.len() {
            walk(&info[..end], entries.clone());
        }
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
        };
        let mut whole = 0;
        for _ in 0..5_000 {
            let (mut info, mut entries) = (info.clone(), entries.clone());
            for _ in 0..=random(8) {
                let value = [0, 1, 0x7f, 0x80, 0xff, 112, 40, 168][random(8)];
                if random(8) == 0 {
                    let at = random(info.len());
                    info[at] = value;
                } else {
                    let at = random(entries.len());
                    entries[at] = value;
                }
            }
            whole += usize::from(walk(&info, entries));
        }
        // Most changes leave the sizes alone: then the rules were walked too.
        assert!(whole > 1_000, "{whole}");
    }
}

#[test]
fn no_table_is_made_by_asking() {
    in_a_namespace(TOOLS, || {
        let listed =
            |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        assert!(tables(NETNS, |_| true).unwrap().is_empty());
        assert_eq!(listed("ip_tables_names") + &listed("ip6_tables_names"), "");
        restore("*raw\nCOMMIT\n");
        restore6("*mangle\nCOMMIT\n");
        let names: Vec<_> =
            tables(NETNS, |_| true).unwrap().iter().map(|table| table.id().to_string()).collect();
        assert_eq!(names, ["ip raw (legacy)", "ip6 mangle (legacy)"]);
        assert_eq!(listed("ip_tables_names") + &listed("ip6_tables_names"), "raw\nmangle\n");
    });
}

#[test]
fn chains_hang_where_the_kernel_has_them() {
    in_a_namespace(TOOLS, || {
        for name in ["raw", "mangle", "nat", "filter", "security"] {
            restore(&format!("*{name}\n:OUTPUT DROP [0:0]\nCOMMIT\n"));
        }
        let mut chains: Vec<_> =
            tables(NETNS, |_| true).unwrap().iter().flat_map(LegacyTable::base_chains).collect();
        chains.sort_by_key(|chain| (chain.hook, chain.priority));
        let of = |hook| {
            let chains = chains.iter().filter(|chain| chain.hook == hook);
            let all: Vec<_> =
                chains.map(|c| (&*c.id.table.name, c.priority, c.kind, c.accepts)).collect();
            all
        };
        use ChainKind::{Filter, Nat, Route};
        let prerouting =
            [("raw", -300, Filter, true), ("mangle", -150, Filter, true), ("nat", -100, Nat, true)];
        assert_eq!(of(Hook::Prerouting), prerouting);
        assert_eq!(
            of(Hook::Output),
            [
                ("raw", -300, Filter, false),
                ("mangle", -150, Route, false),
                ("nat", -100, Nat, false),
                ("filter", 0, Filter, false),
                ("security", 50, Filter, false),
            ]
        );
        let input = [
            ("mangle", -150, Filter, true),
            ("filter", 0, Filter, true),
            ("security", 50, Filter, true),
            ("nat", 100, Nat, true),
        ];
        assert_eq!(of(Hook::Input), input);
        assert_eq!(of(Hook::Forward).len(), 3);
        assert_eq!(of(Hook::Postrouting).len(), 2);
        let names = chains.iter().filter(|chain| chain.hook == Hook::Postrouting);
        assert!(names.into_iter().all(|chain| &*chain.id.name == "POSTROUTING"));
    });
}

#[test]
fn jumps_name_their_chain() {
    in_a_namespace(TOOLS, || {
        let mut rules = "*filter\n:EMPTY - [0:0]\n".to_owned();
        let depth = 64;
        rules.extend((0..depth).map(|n| format!(":C{n} - [0:0]\n")));
        rules += "-A INPUT -j C0\n-A INPUT -j EMPTY\n-A INPUT -g C7\n-A INPUT\n";
        rules += "-A OUTPUT -j C0\n-A FORWARD -j QUEUE\n-A FORWARD -j RETURN\n";
        rules.extend((1..depth).map(|n| format!("-A C{} -j C{n}\n", n - 1)));
        rules += &format!("-A C{0} -j RETURN\n-A C{0} -j DROP\n", depth - 1);
        restore(&(rules + "COMMIT\n"));
        let table = table(Family::Ip, "filter");
        let verdicts = |chain: &str| {
            let rules = table.chain(chain).unwrap();
            let numbers: Vec<_> = rules.iter().map(|rule| rule.handle).collect();
            assert_eq!(numbers, (1..=u64::try_from(rules.len()).unwrap()).collect::<Vec<_>>());
            rules.into_iter().map(|rule| rule.exprs).collect::<Vec<_>>()
        };
        let is = |verdict| vec![Expr::Verdict(verdict)];
        let jump = |name: &str| is(RuleVerdict::Jump(name.into()));
        let input = [jump("C0"), jump("EMPTY"), is(RuleVerdict::Goto("C7".into())), vec![]];
        assert_eq!(verdicts("INPUT"), input);
        assert_eq!(verdicts("OUTPUT"), [jump("C0")]);
        assert_eq!(verdicts("FORWARD"), [is(RuleVerdict::Queue), is(RuleVerdict::Return)]);
        for n in 1..depth {
            assert_eq!(verdicts(&format!("C{}", n - 1)), [jump(&format!("C{n}"))]);
        }
        assert_eq!(verdicts("C63"), [is(RuleVerdict::Return), is(RuleVerdict::Drop)]);
        assert_eq!(verdicts("EMPTY"), Vec::<Vec<Expr>>::new());
        assert_eq!(table.chain("C64"), None);
        assert_eq!(table.chain("ERROR"), None);
        assert_eq!(table.chain_names().count(), 3 + 1 + depth);
    });
}

/// What is loaded, and what is compared, unless inverted by an operator.
fn masked(load: Expr, mask: Option<&[u8]>, op: CmpOp, value: &[u8]) -> Vec<Expr> {
    let bitwise = mask.map(|mask| {
        let len = u32::try_from(mask.len()).unwrap();
        let op = BitOp::MaskXor {
            mask: Bytes::from(mask.to_vec()).into(),
            xor: Bytes::from(vec![0; mask.len()]).into(),
        };
        Expr::Bitwise { sreg: Reg(0), dreg: Reg(0), len, op }
    });
    let compare = Expr::Cmp { sreg: Reg(0), op, value: Bytes::from(value.to_vec()) };
    [Some(load), bitwise, Some(compare)].into_iter().flatten().collect()
}

#[test]
fn tests_of_headers_are_those_that_nft_would_make() {
    use CmpOp::{Eq, Neq};
    in_a_namespace(TOOLS, || {
        let load =
            |offset, len| Expr::Payload { base: PayloadBase::Network, offset, len, dreg: Reg(0) };
        let meta = |key| Expr::Meta { key, dreg: Reg(0) };
        let iif = |op, value: &[u8]| masked(meta(MetaKey::Iifname), None, op, value);
        let oif = |op, value: &[u8]| masked(meta(MetaKey::Oifname), None, op, value);
        let proto = |op, number| masked(meta(MetaKey::L4proto), None, op, &[number]);
        let v4: Vec<(&str, Vec<Expr>)> = vec![
            ("", vec![]),
            ("-s 10.1.2.3", masked(load(12, 4), None, Eq, &[10, 1, 2, 3])),
            ("! -d 127.0.0.0/8", masked(load(16, 1), None, Neq, &[127])),
            ("-d 10.1.0.0/16", masked(load(16, 2), None, Eq, &[10, 1])),
            (
                "! -s 10.96.0.0/12",
                masked(load(12, 4), Some(&[255, 240, 0, 0]), Neq, &[10, 96, 0, 0]),
            ),
            (
                "-s 10.0.0.1/255.0.0.255",
                masked(load(12, 4), Some(&[255, 0, 0, 255]), Eq, &[10, 0, 0, 1]),
            ),
            ("-s 0.0.0.0/0", vec![]),
            ("! -s 0.0.0.0/0", masked(load(12, 4), Some(&[0; 4]), Neq, &[0; 4])),
            ("-i docker0", iif(Eq, b"docker0\0")),
            ("! -i docker0", iif(Neq, b"docker0\0")),
            ("-i eth+", iif(Eq, b"eth")),
            ("! -o eth+", oif(Neq, b"eth")),
            ("-o a23456789012345", oif(Eq, b"a23456789012345\0")),
            ("-i +", vec![]),
            ("-p udp", proto(Eq, 17)),
            ("! -p udp", proto(Neq, 17)),
            ("-f", masked(load(6, 2), Some(&[0x1f, 0xff]), Neq, &[0, 0])),
            ("! -f", masked(load(6, 2), Some(&[0x1f, 0xff]), Eq, &[0, 0])),
            (
                "-p tcp -s 10.0.0.0/8 -i lo",
                [masked(load(12, 1), None, Eq, &[10]), iif(Eq, b"lo\0"), proto(Eq, 6)].concat(),
            ),
        ];
        let fd00 = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let mut mask = [0; 16];
        mask[..4].fill(255);
        mask[4] = 0x80;
        let mut prefix = [0; 16];
        prefix[..4].copy_from_slice(&[0xfd, 0, 0, 1]);
        let v6: Vec<(&str, Vec<Expr>)> = vec![
            ("-d fd00::1", masked(load(24, 16), None, Eq, &fd00)),
            ("! -s fd00:1::/32", masked(load(8, 4), None, Neq, &[0xfd, 0, 0, 1])),
            ("-s fd00:1::/33", masked(load(8, 16), Some(&mask), Eq, &prefix)),
            ("-i eth+ -p tcp", [iif(Eq, b"eth"), proto(Eq, 6)].concat()),
            ("! -p udp", proto(Neq, 17)),
        ];
        for (family, rules) in [(Family::Ip, v4), (Family::Ip6, v6)] {
            let mut script = "*filter\n:T - [0:0]\n".to_owned();
            script.extend(rules.iter().map(|(rule, _)| format!("-A T {rule} -j ACCEPT\n")));
            script += "COMMIT\n";
            if family == Family::Ip {
                restore(&script)
            } else {
                restore6(&script)
            }
            let read = table(family, "filter").chain("T").unwrap();
            assert_eq!(read.len(), rules.len());
            for (read, (rule, mut wanted)) in read.into_iter().zip(rules) {
                wanted.push(Expr::Verdict(RuleVerdict::Accept));
                assert_eq!(read.exprs, wanted, "{rule}");
            }
        }
    });
}

#[test]
fn comments_and_counters_are_the_rules() {
    in_a_namespace(TOOLS, || {
        run("ip", &["link", "set", "lo", "up"], "");
        restore(
            "*nat\n-A OUTPUT -p udp -m comment --comment \"web: \u{e9}\" -j REDIRECT\n\
             -A OUTPUT -p tcp -m comment --comment x -m comment --comment y\nCOMMIT\n",
        );
        let rules = table(Family::Ip, "nat").chain("OUTPUT").unwrap();
        assert_eq!(rules[0].packets, Some(0));
        assert_eq!(rules[0].comment.as_deref(), Some("web: \u{e9}"));
        let [Expr::Target(target)] = &rules[0].exprs[2..] else { panic!("{rules:?}") };
        assert!(matches!(**target, XtTarget::Redirect(_)));
        assert_eq!(rules[1].comment.as_deref(), Some("y"));
        assert_eq!(rules[1].exprs.len(), 2);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", "127.0.0.1:9").unwrap();
        let rules = table(Family::Ip, "nat").chain("OUTPUT").unwrap();
        assert_eq!(rules[0].packets, Some(1));
    });
}

#[test]
fn without_the_right_it_is_an_error() {
    in_a_namespace(TOOLS, || {
        use rustix::thread::{CapabilitySet, CapabilitySets};
        restore("*nat\nCOMMIT\n");
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).unwrap();
        let error = tables(NETNS, |_| true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    });
}

#[test]
fn a_chain_of_a_large_table_is_found() {
    in_a_namespace(TOOLS, || {
        let services = 2_000;
        let mut rules = "*nat\n".to_owned();
        rules.extend((0..services).map(|n| format!(":SVC-{n} - [0:0]\n")));
        for n in 0..services {
            let address = format!("10.96.{}.{}", n / 256, n % 256);
            rules += &format!("-A PREROUTING -d {address} -p tcp -j SVC-{n}\n");
            rules += &format!("-A SVC-{n} -p tcp -j DNAT --to-destination :{}\n", n + 1);
        }
        restore(&(rules + "COMMIT\n"));
        let table = table(Family::Ip, "nat");
        assert_eq!(table.chain("PREROUTING").unwrap().len(), services);
        for n in 0..services {
            let rules = table.chain(&format!("SVC-{n}")).unwrap();
            let [rule] = rules.as_slice() else { panic!("{rules:?}") };
            let Some(Expr::Target(target)) = rule.exprs.last() else { panic!("{rule:?}") };
            let XtTarget::Dnat(range) = &**target else { panic!("{target:?}") };
            let port = u16::try_from(n + 1).unwrap();
            assert_eq!(range.ports, Some((port, port)));
        }
    });
}
