//! Packet rules at random, as text for `nft` and for `iptables-restore`.

use super::build::Topology;
use super::random::Random;
use super::{PORT, TRANSLATED};

const DEVICES: &[&str] = &["br0", "br1", "pair0", "eth0", "up1", "lo"];

/// A match on one thing.
fn condition(random: &mut Random, it: &Topology, hook: &str) -> String {
    let device = random.pick(DEVICES);
    let network = format!("{}.0/24", it.net(random.below(5)));
    let one = it.addresses.iter().filter(|one| one.is_ipv4());
    let one = one.clone().nth(usize::try_from(random.below(one.count() as u64)).unwrap_or(0));
    let one = one.map_or_else(|| network.clone(), ToString::to_string);
    match random.below(12) {
        0 | 1 if hook != "output" && hook != "postrouting" => format!("iifname {device}"),
        0 | 1 => format!("oifname {device}"),
        2 if hook == "forward" => format!("oifname != {device}"),
        3 => format!("ip saddr {network}"),
        4 => format!("ip daddr {network}"),
        5 => format!("ip daddr {one}"),
        6 => format!("ip saddr {{ {one}, 192.0.2.0/24 }}"),
        7 if hook == "prerouting" || hook == "input" => "fib daddr type local".to_owned(),
        8 if hook == "prerouting" || hook == "input" => {
            format!("fib saddr . iif oif {}", random.pick(&["missing", "exists"]))
        }
        9 => format!("ct state {}", random.pick(&["new", "invalid", "established,related"])),
        10 if hook != "output" => format!("ct status {}", random.pick(&["dnat", "snat"])),
        _ => format!("ip ttl > {}", random.pick(&["10", "63", "64"])),
    }
}

fn verdict(random: &mut Random, hook: &str) -> &'static str {
    let refusing: &[&str] = match hook {
        "prerouting" | "postrouting" => &["drop"],
        _ => &["drop", "reject with tcp reset", "reject"],
    };
    if random.one_in(3) { "accept" } else { random.pick(refusing) }
}

/// A line of a filter.
fn filter(random: &mut Random, it: &Topology, hook: &str) -> String {
    let side = random.pick(&["dport", "dport", "dport", "dport", "sport"]);
    let ports = random.pick(&["7400", "7400-7401", "7401", "!= 7400", "{ 22, 7400 }"]);
    let first = condition(random, it, hook);
    if random.one_in(6) {
        let map = random.pick(&["{ 7400 : drop, 7401 : accept }", "{ 7401 : drop }"]);
        return format!("{first} tcp dport vmap {map}\n");
    }
    let second = match random.one_in(3) {
        true => condition(random, it, hook),
        false => String::new(),
    };
    format!("{first} {second} tcp {side} {ports} {}\n", verdict(random, hook))
}

/// A table of nf_tables, of the host.
pub(super) fn nft(random: &mut Random, it: &Topology) -> String {
    let mut text = "table inet f {\n".to_owned();
    for hook in ["prerouting", "input", "forward", "output", "postrouting"] {
        let often = if matches!(hook, "prerouting" | "postrouting") { 4 } else { 2 };
        if !random.one_in(often) {
            continue;
        }
        let mut lines = String::new();
        // Most firewalls begin so: rules are for the first packet.
        if !random.one_in(4) {
            lines += "ct state established,related accept\n";
        }
        for _ in 0..=random.below(2) {
            lines += &filter(random, it, hook);
        }
        if random.one_in(10) {
            lines += &format!("ct status dnat accept\ntcp dport {PORT}-{TRANSLATED} drop\n");
        }
        let policy = match random.one_in(10) && hook == "forward" {
            true => "policy drop; ",
            false => "",
        };
        text +=
            &format!("chain {hook} {{\ntype filter hook {hook} priority 0; {policy}\n{lines}}}\n");
    }
    if random.one_in(6) {
        let mark = random.pick(&["meta mark set 0x7", "meta mark set 0x10", "notrack"]);
        let first = condition(random, it, "output");
        let (hook, first) = match random.one_in(2) {
            true => ("output", first),
            false => ("prerouting", condition(random, it, "prerouting")),
        };
        let kind = if hook == "output" { "route" } else { "filter" };
        // Before connections are known, nothing may ask for them.
        let first = if first.contains("ct ") { String::new() } else { first };
        text += &format!(
            "chain mark_{hook} {{\ntype {kind} hook {hook} priority -300;\n{first} {mark}\n}}\n"
        );
    }
    text += "}\ntable ip n {\n";
    for hook in ["prerouting", "output"] {
        if !random.one_in(2) {
            continue;
        }
        let first = match random.below(3) {
            0 => "fib daddr type local".to_owned(),
            1 => String::new(),
            _ => condition(random, it, hook),
        };
        let target = target(random, it);
        let line = match random.below(5) {
            0 => format!("{first} tcp dport {TRANSLATED} redirect to :{PORT}\n"),
            1 => format!("{first} dnat to tcp dport map {{ {TRANSLATED} : {target} }}\n"),
            2 => format!("{first} tcp dport {TRANSLATED} dnat to {target}\n"),
            _ => format!("{first} tcp dport {TRANSLATED} dnat to {target}:{PORT}\n"),
        };
        text += &format!("chain {hook} {{\ntype nat hook {hook} priority -100;\n{line}}}\n");
    }
    if random.one_in(2) {
        let line = match random.below(4) {
            0 => format!("ip saddr {0}.0/24 ip daddr != {0}.0/24 masquerade\n", it.net(1)),
            1 => format!("oifname {} masquerade\n", random.pick(DEVICES)),
            2 => "ct status dnat masquerade\n".to_owned(),
            _ => format!("ip saddr {}.0/24 snat to {}\n", it.net(random.below(4)), it.node.ip()),
        };
        text +=
            &format!("chain postrouting {{\ntype nat hook postrouting priority 100;\n{line}}}\n");
    }
    text + "}\n"
}

fn target(random: &mut Random, it: &Topology) -> String {
    let at = usize::try_from(random.below(it.targets.len() as u64 + 1)).unwrap_or(0);
    let local = || if at % 2 == 0 { "127.0.0.1".to_owned() } else { it.node.ip().to_string() };
    it.targets.get(at).map_or_else(local, ToString::to_string)
}

/// Rules of a container's own namespace.
pub(super) fn of_a_pod(random: &mut Random) -> String {
    let line = match random.below(3) {
        0 => format!("tcp dport {PORT} drop"),
        1 => format!("iifname eth0 tcp dport {PORT} reject with tcp reset"),
        _ => format!("ip saddr 10.0.0.0/8 tcp dport {PORT} accept"),
    };
    format!("table inet p {{ chain i {{ type filter hook input priority 0;\n{line}\n}}\n}}\n")
}

/// A rule of a filter of iptables.
fn line(random: &mut Random, it: &Topology, chain: &str) -> String {
    let device = random.pick(DEVICES);
    let network = format!("{}.0/24", it.net(random.below(5)));
    let first = match random.below(7) {
        0 | 1 if chain != "OUTPUT" => format!("-i {device}"),
        0 | 1 => format!("-o {device}"),
        2 => format!("-s {network}"),
        3 => format!("! -s {network}"),
        4 => format!("-d {network}"),
        5 => "-m addrtype --dst-type LOCAL".to_owned(),
        _ => format!("-m conntrack --ctstate {}", random.pick(&["NEW", "INVALID", "DNAT"])),
    };
    let ports = random.pick(&[
        "-p tcp --dport 7400",
        "-p tcp --dport 7400:7401",
        "-p tcp -m multiport --dports 22,7400",
        "-p tcp ! --dport 7400",
        "-p tcp --syn --dport 7401",
    ]);
    let verdict =
        random.pick(&["ACCEPT", "DROP", "REJECT", "REJECT --reject-with tcp-reset", "RETURN"]);
    let target =
        if verdict.contains("tcp-reset") && !ports.contains("-p tcp") { "DROP" } else { verdict };
    format!("-A {chain} {first} {ports} -j {target}\n")
}

/// Tables of iptables, of the host.
pub(super) fn iptables(random: &mut Random, it: &Topology) -> String {
    let mut text = "*filter\n".to_owned();
    let chains = ["INPUT", "FORWARD", "OUTPUT"];
    for chain in chains {
        let policy = if chain == "FORWARD" && random.one_in(4) { "DROP" } else { "ACCEPT" };
        text += &format!(":{chain} {policy} [0:0]\n");
    }
    for chain in chains {
        if !random.one_in(4) {
            text += &format!("-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n");
        }
        if random.one_in(2) {
            for _ in 0..=random.below(2) {
                text += &line(random, it, chain);
            }
        }
    }
    text +=
        "COMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n";
    for chain in ["PREROUTING", "OUTPUT"] {
        if !random.one_in(2) {
            continue;
        }
        let first = match (random.below(4), chain) {
            (0, _) => "-m addrtype --dst-type LOCAL".to_owned(),
            (1, _) => "! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL".to_owned(),
            (2, "PREROUTING") => format!("! -i {}", random.pick(DEVICES)),
            _ => String::new(),
        };
        let target = target(random, it);
        let how = match random.below(4) {
            0 => format!("REDIRECT --to-ports {PORT}"),
            _ => format!("DNAT --to-destination {target}:{PORT}"),
        };
        text += &format!("-A {chain} {first} -p tcp --dport {TRANSLATED} -j {how}\n");
    }
    if random.one_in(2) {
        let net = it.net(1);
        text += &match random.below(3) {
            0 => format!("-A POSTROUTING -s {net}.0/24 ! -o br0 -j MASQUERADE\n"),
            1 => "-A POSTROUTING -m conntrack --ctstate DNAT -j MASQUERADE\n".to_owned(),
            _ => "-A POSTROUTING -o br0 -j MASQUERADE\n".to_owned(),
        };
    }
    text + "COMMIT\n"
}
