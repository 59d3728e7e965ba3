//! Random rulesets. Packets of a connection that is open pass all filters: what is
//! compared is what becomes of the first one.

use std::fmt;

use super::world::{CLIENT, HOST, OTHER, POD, of_ipv6};

/// Numbers that a seed decides (splitmix64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Rules, and the program that loads them from its input.
pub(super) struct Rules {
    pub(super) program: String,
    pub(super) text: String,
    /// What `ipset restore` makes before.
    pub(super) sets: String,
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}\n{}", self.sets, self.program, self.text)
    }
}

pub(super) fn ruleset(random: &mut Random, ipv6: bool) -> Rules {
    let (program, text) = match random.below(4) {
        0 => ("iptables-nft-restore", iptables(random)),
        1 => ("iptables-legacy-restore", iptables(random)),
        _ => ("nft -f -", nft(random)),
    };
    let sets = if program == "nft -f -" { "" } else { IP_SETS };
    let translated = |text: &str| if ipv6 { to_ipv6(text) } else { text.to_owned() };
    let program = if ipv6 { program.replace("iptables", "ip6tables") } else { program.to_owned() };
    Rules { program, text: translated(&text), sets: translated(sets) }
}

/// The same of IPv6: rules say the same of the addresses that stand for these.
fn to_ipv6(text: &str) -> String {
    let words = [
        ("10.77.0.0/24", "fd00:77::/64"),
        ("10.78.0.0/24", "fd00:78::/64"),
        ("10.0.0.0/8", "fd00::/16"),
        ("127.0.0.0/8", "::1/128"),
        ("10.78.0.0-", "fd00:78::-"),
        ("10.78.0.9", "fd00:78::9"),
        ("/32", "/128"),
        ("ip daddr", "ip6 daddr"),
        ("ip saddr", "ip6 saddr"),
        ("dnat ip to", "dnat ip6 to"),
        ("table ip t", "table ip6 t"),
        ("ipv4_addr", "ipv6_addr"),
        ("family inet", "family inet6"),
    ];
    let mut text = text.to_owned();
    for (v4, v6) in words {
        text = text.replace(v4, v6);
    }
    for v4 in [HOST, OTHER, CLIENT, POD, "127.0.0.1"] {
        let v6 = of_ipv6(v4);
        // Before a port.
        text = text.replace(&format!("{v4}:"), &format!("[{v6}]:"));
        text = text.replace(v4, v6);
    }
    text
}

/// What rules of iptables ask.
const IP_SETS: &str = "create ports bitmap:port range 1000-3000
add ports 1001
add ports 1003-1005
create addresses hash:ip family inet
add addresses 10.77.0.1
add addresses 10.78.0.2
create pairs hash:ip,port family inet
add pairs 10.77.0.3,tcp:1002
add pairs 10.78.0.2,udp:1001
add pairs 10.77.0.1,tcp:2000-2500
create nets hash:net,port family inet
add nets 10.77.0.0/24,tcp:1001
add nets 10.77.0.3/32,tcp:1001 nomatch
add nets 127.0.0.0/8,udp:1003
add nets 10.0.0.0/8,udp:1002
";

const ADDRESSES: [&str; 4] = [HOST, OTHER, POD, "127.0.0.1"];
const TARGETS: [&str; 3] = [HOST, OTHER, POD];
const ALL_PORTS: [u16; 4] = [1001, 1002, 1003, 1009];

fn port(random: &mut Random) -> u16 {
    *random.of(&ALL_PORTS)
}

fn network(random: &mut Random) -> String {
    match random.below(5) {
        0 => "10.77.0.0/24".to_owned(),
        1 => "10.0.0.0/8".to_owned(),
        2 => "127.0.0.0/8".to_owned(),
        3 => format!("{CLIENT}/32"),
        _ => format!("{}/32", random.of(&ADDRESSES)),
    }
}

// ---- iptables -------------------------------------------------------------------

/// Some tests. `early`: before conntrack, where an open connection is not known, so
/// that the port must be among them.
fn xt_tests(random: &mut Random, chain: &str, early: bool) -> String {
    let mut all = String::new();
    if early || random.one_in(2) {
        let proto = *random.of(&["tcp", "udp"]);
        let (a, b) = (port(random), port(random));
        all.push_str(&match random.below(4) {
            0 if !early && random.one_in(3) => {
                format!(" -p {proto} -m multiport ! --dports {a},2000:3000")
            }
            0 => format!(" -p {proto} -m multiport --dports {a},{b}"),
            1 => format!(" -p {proto} -m {proto} --dport {}:{}", a.min(b), a.max(b)),
            2 if !early => format!(" -p {proto} -m {proto} ! --dport {a}"),
            _ => format!(" -p {proto} -m {proto} --dport {a}"),
        });
    }
    for _ in 0..random.below(3) {
        let not = if random.one_in(4) { "! " } else { "" };
        match random.below(11) {
            10 if !early => all.push_str(&format!(
                " -m conntrack --ctorigdst {} {not}--ctorigdstport {}",
                random.of(&ADDRESSES),
                port(random)
            )),
            8 => all.push_str(&format!(
                " -m set {not}--match-set {}",
                random.of(&["addresses dst", "addresses src", "pairs dst,dst", "nets dst,dst"])
            )),
            9 => all.push_str(&format!(" -m set {not}--match-set ports dst")),
            0 if !all.contains("-d ") => all.push_str(&format!(" {not}-d {}", network(random))),
            1 if !all.contains("-s ") => all.push_str(&format!(" {not}-s {}", network(random))),
            2 if chain.starts_with("PRE") || chain == "INPUT" || chain == "FORWARD" => {
                if !all.contains("-i ") {
                    all.push_str(&format!(" {not}-i {}", random.of(&["v0", "p0", "lo", "v+"])));
                }
            }
            3 => all.push_str(&format!(
                " -m mark {not}--mark {}",
                random.of(&["0x1", "0x2/0x3", "0x0"])
            )),
            4 => all.push_str(&format!(
                " -m addrtype {not}--dst-type {}",
                random.of(&["LOCAL", "UNICAST"])
            )),
            5 if !early => all.push_str(&format!(
                " -m conntrack {not}--ctstate {}",
                random.of(&["NEW", "DNAT", "INVALID"])
            )),
            6 => all.push_str(" -m statistic --mode random --probability 0.5"),
            _ => all.push_str(" -m comment --comment \"a comment\""),
        }
    }
    all
}

fn xt_table(random: &mut Random, name: &str, chains: &[&str], text: &mut String) {
    let (nat, early) = (name == "nat", matches!(name, "raw" | "mangle"));
    text.push_str(&format!("*{name}\n"));
    for chain in chains {
        let policy = if name == "filter" && random.one_in(8) { "DROP" } else { "ACCEPT" };
        text.push_str(&format!(":{chain} {policy} [0:0]\n"));
    }
    text.push_str(":U0 - [0:0]\n:U1 - [0:0]\n:U2 - [0:0]\n");
    if name == "filter" {
        for chain in chains {
            text.push_str(&format!(
                "-A {chain} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n"
            ));
        }
    }
    let users = ["U0", "U1", "U2"];
    let all: Vec<&str> = chains.iter().copied().chain(users).collect();
    for _ in 0..random.below(if nat { 9 } else { 6 }) {
        let chain = *random.of(&all);
        let tests = xt_tests(random, chain, early);
        let at = users.iter().position(|user| *user == chain);
        let later: Vec<&str> = users.iter().copied().skip(at.map_or(0, |at| at + 1)).collect();
        let target = match random.below(6) {
            0 | 1 if !later.is_empty() => {
                let how = if random.one_in(3) { "-g" } else { "-j" };
                format!("{how} {}", random.of(&later))
            }
            2 => "-j RETURN".to_owned(),
            3 if early => "-j MARK --set-xmark 0x1/0xffffffff".to_owned(),
            _ if nat && chain == "POSTROUTING" => "-j MASQUERADE".to_owned(),
            4 if nat => format!("-p tcp -j REDIRECT --to-ports {}", port(random)),
            _ if nat => {
                let to = *random.of(&TARGETS);
                if random.one_in(3) {
                    format!("-j DNAT --to-destination {to}")
                } else {
                    format!("-p udp -j DNAT --to-destination {to}:{}", port(random))
                }
            }
            4 if name == "filter" => "-j REJECT".to_owned(),
            5 => "-j DROP".to_owned(),
            _ => "-j ACCEPT".to_owned(),
        };
        // A protocol may be tested once only.
        let (tests, target) = match target.split_once(" -j ") {
            Some((proto, rest)) if proto.starts_with("-p") => {
                let named = tests.contains("-p ");
                let same = tests.contains(proto);
                match (named, same) {
                    (false, _) => (format!("{tests} {proto}"), format!("-j {rest}")),
                    (true, true) => (tests, format!("-j {rest}")),
                    (true, false) => (tests, "-j ACCEPT".to_owned()),
                }
            }
            _ => (tests, target),
        };
        text.push_str(&format!("-A {chain}{tests} {target}\n"));
    }
    text.push_str("COMMIT\n");
}

fn iptables(random: &mut Random) -> String {
    let mut text = String::new();
    if random.one_in(3) {
        xt_table(random, "raw", &["PREROUTING", "OUTPUT"], &mut text);
    }
    if random.one_in(3) {
        xt_table(random, "mangle", &["PREROUTING", "OUTPUT"], &mut text);
    }
    xt_table(random, "nat", &["PREROUTING", "OUTPUT", "POSTROUTING"], &mut text);
    if random.one_in(2) {
        xt_table(random, "filter", &["INPUT", "FORWARD", "OUTPUT"], &mut text);
    }
    text
}

// ---- nftables -------------------------------------------------------------------

/// `incoming`: of a chain that only packets from a device come to.
fn nft_tests(random: &mut Random, early: bool, incoming: bool) -> String {
    let mut all = String::new();
    if early || random.one_in(2) {
        let proto = *random.of(&["tcp", "udp", "th"]);
        let proto = if proto == "th" { "meta l4proto { tcp, udp } th" } else { proto };
        let (a, b) = (port(random), port(random));
        // What chooses ports by anything else than their number.
        let not = if random.one_in(3) { "!= " } else { "" };
        all.push_str(&match random.below(11) {
            6 => format!("{proto} dport & 0xfffe == {} ", a & 0xfffe),
            7 if !early => format!("{proto} dport {not}{{ 1-{a}, 2000-2500 }} "),
            8 if !early => format!("{proto} dport {} {a} ", random.of(&["<", "<=", ">", ">="])),
            9 => format!("{proto} dport @ranges ip daddr . th dport {not}@nets "),
            10 if !early => format!("{proto} dport != 7 ct original proto-dst {not}{a} "),
            0 => format!("{proto} dport {{ {a}, {} }} ", if a == b { 7 } else { b }),
            1 if a != b => format!("{proto} dport {}-{} ", a.min(b), a.max(b)),
            2 => format!("{proto} dport @ports "),
            3 => format!("{proto} dport @ranges "),
            4 if !early => format!("{proto} dport != {a} "),
            _ => format!("{proto} dport {a} "),
        });
    }
    for _ in 0..random.below(3) {
        let not = if random.one_in(4) { "!= " } else { "" };
        all.push_str(&match random.below(10) {
            9 if incoming => {
                format!("fib daddr . iif type {not}{} ", random.of(&["local", "unicast"]))
            }
            0 => format!("ip daddr {not}{} ", network(random)),
            1 => format!("ip saddr {not}{} ", network(random)),
            2 => format!("iifname {not}\"{}\" ", random.of(&["v0", "p0", "lo", "v*"])),
            3 => format!("meta mark {not}{} ", random.of(&["1", "0"])),
            4 => "meta mark & 0x1 == 0x1 ".to_owned(),
            5 => format!("fib daddr type {not}local "),
            6 if !early => format!("ct state {not}new "),
            7 => "ip daddr . meta l4proto . th dport @pairs ".to_owned(),
            _ => "numgen random mod 2 == 0 ".to_owned(),
        });
    }
    all
}

fn nft_rule(random: &mut Random, kind: &str, later: &[String], incoming: bool) -> String {
    let (nat, early) = (kind == "nat", kind == "early");
    let tests = nft_tests(random, early, incoming);
    let to = *random.of(&TARGETS);
    let verdict = match random.below(8) {
        0 | 1 if !later.is_empty() => {
            let how = *random.of(&["jump", "jump", "goto"]);
            format!("{how} {}", random.of(later))
        }
        2 => "return".to_owned(),
        3 => (*random.of(&[
            "meta mark set meta mark | 0x1",
            "meta mark set 0x2 return",
            "numgen random mod 2 0-1 meta mark set 0x1",
            "numgen random mod 4 1-2 numgen inc mod 4 > 3 drop",
            "numgen random mod 4 > 3 meta mark set 0x1",
            "meta mark set numgen random mod 1 offset 3",
            "meta mark set numgen random mod 2 offset 1",
            "numgen inc mod 1 vmap { 0 : continue } meta mark set 0x1",
        ]))
        .to_owned(),
        4 if !later.is_empty() && !tests.contains("dport") && random.one_in(3) => format!(
            "tcp dport vmap {{ 1-1001 : jump {}, 1002-1008 : accept, 3000-65535 : continue }}",
            random.of(later),
        ),
        4 if !later.is_empty() && !tests.contains("dport") => format!(
            "tcp dport vmap {{ 1001 : jump {}, 1002 : accept, 1003 : continue }} {}",
            random.of(later),
            random.of(&["", "drop", "meta mark set 0x1 accept", "return"]),
        ),
        5 if nat => format!("meta l4proto {{ tcp, udp }} redirect to :{}", port(random)),
        6 if nat => {
            let other = random.of(&TARGETS);
            format!("dnat to numgen random mod 2 map {{ 0 : {to}, 1 : {other} }}")
        }
        7 if nat => "meta l4proto tcp dnat ip to tcp dport map @forwards".to_owned(),
        _ if nat && random.one_in(3) => format!("dnat to {to}"),
        _ if nat => format!("meta l4proto {{ tcp, udp }} dnat to {to}:{}", port(random)),
        5 if !early => "reject".to_owned(),
        6 => "drop".to_owned(),
        _ => "accept".to_owned(),
    };
    format!("    {tests}counter {verdict}\n")
}

fn nft_chains(random: &mut Random, kind: &str, bases: &[(&str, String)], text: &mut String) {
    let letter = kind.chars().next().unwrap_or('x');
    let users: Vec<String> = (0..3).map(|n| format!("{letter}{n}")).collect();
    // What is jumped to must be there before.
    for at in (0..users.len()).rev() {
        text.push_str(&format!("  chain {} {{\n", users[at]));
        for _ in 0..random.below(3) {
            text.push_str(&nft_rule(random, kind, &users[at + 1..], false));
        }
        text.push_str("  }\n");
    }
    for (name, head) in bases {
        let policy = if kind == "filter" && random.one_in(8) { "drop" } else { "accept" };
        text.push_str(&format!("  chain {name} {{\n    {head} policy {policy};\n"));
        if kind == "filter" {
            text.push_str("    ct state established,related accept\n");
        }
        for _ in 0..random.below(5) {
            text.push_str(&nft_rule(random, kind, &users, name.starts_with("prerouting")));
        }
        text.push_str("  }\n");
    }
}

fn nft(random: &mut Random) -> String {
    let mut text = String::from(
        "table ip t {
  set ports { type inet_service; elements = { 1001, 1003 } }
  set ranges { type inet_service; flags interval; elements = { 1002-1003, 2000-3000 } }
  set nets { type ipv4_addr . inet_service; flags interval; elements = { 10.77.0.0/24 . 1001-1002, 10.77.0.3 . 1003, 127.0.0.0/8 . 1000-3000, 10.78.0.0-10.78.0.9 . 2000 } }
  set pairs { type ipv4_addr . inet_proto . inet_service; elements = { 10.77.0.1 . tcp . 1001, 10.77.0.3 . udp . 1002, 10.78.0.2 . tcp . 1003 } }
  map forwards { type inet_service : ipv4_addr; elements = { 1001 : 10.78.0.2, 1002 : 10.77.0.3 } }
",
    );
    let base = |hook: &str, kind: &str, priority: i32| {
        (format!("{hook}_{kind}"), format!("type {kind} hook {hook} priority {priority};"))
    };
    let make = |all: Vec<(String, String)>| all;
    let nat = make(vec![base("prerouting", "nat", -100), base("output", "nat", -100)]);
    let nat: Vec<(&str, String)> = nat.iter().map(|(n, h)| (n.as_str(), h.clone())).collect();
    nft_chains(random, "nat", &nat, &mut text);
    if random.one_in(2) {
        let priority = *random.of(&[-110, 0, 10]);
        let all = make(vec![
            base("input", "filter", priority),
            base("forward", "filter", priority),
            base("output", "filter", priority),
        ]);
        let all: Vec<(&str, String)> = all.iter().map(|(n, h)| (n.as_str(), h.clone())).collect();
        nft_chains(random, "filter", &all, &mut text);
    }
    if random.one_in(3) {
        let priority = *random.of(&[-300, -150]);
        let all =
            make(vec![base("prerouting", "filter", priority), base("output", "route", priority)]);
        let all: Vec<(&str, String)> = all.iter().map(|(n, h)| (n.as_str(), h.clone())).collect();
        nft_chains(random, "early", &all, &mut text);
    }
    if random.one_in(3) {
        text.push_str(
            "  chain post { type nat hook postrouting priority 100; oifname \"p0\" masquerade; }\n",
        );
    }
    text.push_str("}\n");
    text
}
