//! Blobs as they were recorded, as the kernel has them, and damaged ones.

use super::lab::{in_a_namespace, run};
use super::*;
use crate::live::netlink::{Attributes, NETFILTER, Netlink, NetlinkRequest, find};
use crate::live::rules::legacy;
use whereis_port_model::{Expr, NetnsId};

fn bytes(hex: &str) -> Vec<u8> {
    let hex = hex.replace([' ', '\n'], "");
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Each line: what was given to iptables-nft 1.8.9, and the blob that `nft
/// --debug=netlink list ruleset` showed for it then on Linux 6.18, x86-64.
const MATCHES: &[(&str, u8, &str, &str)] = &[
    ("addrtype", 1, "--dst-type LOCAL", "0000 0400 00000000"),
    (
        "multiport",
        1,
        "--dports 8443,9443",
        concat!(
            "01 02 fb20 e324",
            "0000000000000000000000000000000000000000000000000000",
            "000000000000000000000000000000 00"
        ),
    ),
    (
        "statistic",
        0,
        "--mode random --probability 0.5",
        "0000 0000 00000040 0000000000000000 0000000000000000",
    ),
];

#[test]
fn recorded_blobs_are_read() {
    use whereis_port_model::{MarkOp, NatRange, Side};
    let read: Vec<_> = MATCHES
        .iter()
        .map(|(name, revision, _, hex)| match match_of(name, *revision, false, &bytes(hex)) {
            MatchInfo::Match(test) => test,
            MatchInfo::Comment(text) => panic!("{text}"),
        })
        .collect();
    let local = XtMatch::Addrtype {
        source: 0,
        destination: 4,
        invert_source: false,
        invert_destination: false,
        limit_in: false,
        limit_out: false,
    };
    let ports = vec![(8443, 8443), (9443, 9443)];
    let multiport = XtMatch::Multiport { side: Side::Destination, ports, invert: false };
    let random = XtMatch::Random { probability: 1 << 30, invert: false };
    assert_eq!(read, [local, multiport, random]);

    let dnat = bytes(
        "03000000 ac110002 000000000000000000000000 ac110002 000000000000000000000000 0050 0050
         0000 0000 0000",
    );
    let address: IpAddr = "172.17.0.2".parse().unwrap();
    let range = NatRange {
        addresses: Some((address, address)),
        ports: Some((80, 80)),
        base: None,
        flags: 3,
    };
    assert_eq!(target_of("DNAT", 2, false, &dnat), XtTarget::Dnat(range));
    let redirect = bytes("01000000 02000000 00000000 00000000 3a99 3a99 00000000");
    let range = NatRange { addresses: None, ports: Some((15001, 15001)), base: None, flags: 2 };
    assert_eq!(target_of("REDIRECT", 0, false, &redirect), XtTarget::Redirect(range));
    let or_mark = MarkOp { mark: 0x4000, mask: 0x4000 };
    let blob = bytes("00400000 00400000");
    assert_eq!(target_of("MARK", 2, false, &blob), XtTarget::Mark(or_mark));
}

#[test]
fn blobs_of_every_length_are_no_trouble() {
    let matches = [
        "comment",
        "addrtype",
        "tcp",
        "udp",
        "multiport",
        "statistic",
        "mark",
        "connmark",
        "state",
        "conntrack",
        "recent",
        "set",
        "iprange",
        "owner",
        "limit",
        "",
    ];
    let targets = [
        "DNAT",
        "SNAT",
        "REDIRECT",
        "MASQUERADE",
        "NETMAP",
        "MARK",
        "CONNMARK",
        "REJECT",
        "TPROXY",
        "CT",
        "NOTRACK",
        "SET",
        "LOG",
        "HMARK",
        "",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    for round in 0..8 {
        // Small values make sense more often than others.
        let blob: Vec<u8> = (0..300).map(|_| random() >> round).collect();
        for length in 0..=blob.len() {
            let blob = &blob[..length];
            for revision in 0..=5 {
                for ipv6 in [false, true] {
                    for name in matches {
                        match_of(name, revision, ipv6, blob);
                    }
                    for name in targets {
                        target_of(name, revision, ipv6, blob);
                    }
                }
            }
        }
    }
    let unknown = |name: &str, revision| XtMatch::Unknown { name: name.to_owned(), revision };
    for (name, revision) in [("tcp", 0), ("conntrack", 3), ("tcp", 1), ("time", 0)] {
        assert_eq!(
            match_of(name, revision, false, &[0; 7]),
            MatchInfo::Match(unknown(name, revision))
        );
    }
    assert!(matches!(target_of("DNAT", 2, false, &[0; 41]), XtTarget::Unknown { revision: 2, .. }));
}

/// Chain by table, as every option is allowed in one place only.
const RULES: &str = "*raw
:T - [0:0]
-A T -p tcp -m tcp ! --sport 1:1024 --dport 80 ! --tcp-flags SYN,ACK SYN
-A T -p tcp -m tcp --syn ! --dport 8000:8010 -j NOTRACK
-A T -p udp -m udp --sport 53 ! --dport :1024 -j CT --notrack
-A T -j CT --zone 5
-A T -p tcp -m multiport ! --sports 1,2:5,7
-A T -p udp -m multiport --ports 53
-A T -m mark --mark 0x4000/0x4000 -j TRACE
-A T -m mark ! --mark 7 -j MARK --set-xmark 0x8000/0xffff
-A T -m connmark ! --mark 0x1/0xf -j CONNMARK --set-xmark 0x1/0xff
-A T -j CONNMARK --save-mark
-A T -j CONNMARK --restore-mark
-A T -j CONNMARK --restore-mark --nfmask 0xf --ctmask 0xf
-A T -j MARK --or-mark 0x4000
-A T -m statistic --mode nth --every 3 --packet 0
-A T -m statistic --mode random ! --probability 0.25
-A T -m addrtype ! --src-type LOCAL --dst-type UNICAST,BROADCAST --limit-iface-in
-A T -m recent --name KUBE-SEP-X --rcheck --seconds 10800 --reap --mask 255.255.255.255 --rsource
-A T -m recent --set --name KUBE-SEP-X
-A T -m iprange ! --src-range 10.0.0.1-10.0.0.9 --dst-range 10.1.0.0-10.1.0.255
-A T -m state --state NEW,RELATED,UNTRACKED
-A T -m conntrack ! --ctstate INVALID,DNAT --ctproto 6 --ctorigdst 10.0.0.0/8 ! --ctorigsrc 1.2.3.4 --ctorigdstport 80:90 ! --ctorigsrcport 7 --ctdir ORIGINAL
-A T -m conntrack --ctreplsrc 10.0.0.0/8 ! --ctrepldst 1.2.3.4 --ctdir REPLY --ctstatus ASSURED,CONFIRMED
-A T -m conntrack --ctexpire 1:2 --ctreplsrcport 80
-A T -m set --match-set IPP dst,dst
-A T -m set ! --match-set IPP src,dst ! --update-counters
-A T -m set --match-set IPP dst,src --packets-gt 5
-A T -m set --match-set IPP dst,src --return-nomatch -j SET --add-set IPP dst,dst
-A T -m limit --limit 5/s -j LOG
-A T -m socket --transparent -j NFLOG
-A T -m physdev --physdev-in x -j AUDIT --type accept
-A T -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A OUTPUT -m owner --uid-owner 101-103 -j RETURN
-A OUTPUT -m owner ! --uid-owner 0 --gid-owner 5
COMMIT
*nat
:T - [0:0]
-A T -j DNAT --to-destination 172.17.0.2
-A T -p tcp -j DNAT --to-destination 172.17.0.4-172.17.0.6:8000-8010 --persistent
-A T -p tcp -j DNAT --to-destination :80 --random
-A T -p tcp -m tcp --dport 8080:8090 -j DNAT --to-destination 10.0.0.1:80-90/8080
-A T -p tcp -j REDIRECT --to-ports 15001
-A T -j REDIRECT
-A PREROUTING -j NETMAP --to 10.5.0.0/16
-A POSTROUTING -p tcp -j SNAT --to-source 192.0.2.1:1000-2000 --random-fully
-A POSTROUTING -j MASQUERADE
-A POSTROUTING -p tcp -j MASQUERADE --to-ports 1000-2000 --random-fully
COMMIT
*mangle
-A PREROUTING -p tcp -j TPROXY --on-port 15006 --on-ip 127.0.0.1 --tproxy-mark 0x1/0xff
-A PREROUTING -p udp -j TPROXY --on-port 15006
COMMIT
*filter
:T - [0:0]
-A T -p tcp -j REJECT --reject-with tcp-reset
-A T -j REJECT
-A T -j REJECT --reject-with icmp-host-prohibited
COMMIT
";

/// The same of IPv6.
const RULES6: &str = "*raw
:T - [0:0]
-A T -m iprange --src-range fd00::1-fd00::9
-A T -m conntrack --ctorigdst fd00::/64 --ctstate NEW
-A T -m addrtype --dst-type LOCAL
-A T -m recent --rcheck --seconds 10800 --reap --name X --mask ffff:: --rsource
-A T -m set --match-set IPP6 dst,dst
COMMIT
*nat
-A PREROUTING -p tcp -j DNAT --to-destination [fd00::2]:80
-A PREROUTING -p tcp -j REDIRECT --to-ports 15001
-A PREROUTING -j NETMAP --to fd05::/64
-A POSTROUTING -j SNAT --to-source fd00::3
-A POSTROUTING -j MASQUERADE
-A POSTROUTING -p tcp -j MASQUERADE --to-ports 1000-2000
COMMIT
*mangle
-A PREROUTING -p tcp -j TPROXY --on-port 15006 --on-ip fd00::4 --tproxy-mark 0x1/0xff
COMMIT
*filter
:T - [0:0]
-A T -p tcp -j REJECT --reject-with tcp-reset
-A T -j REJECT
-A T -j REJECT --reject-with icmp6-adm-prohibited
COMMIT
";

const TOOLS: &[&str] = &[
    "ipset",
    "iptables-legacy-restore",
    "ip6tables-legacy-restore",
    "iptables-nft-restore",
    "ip6tables-nft-restore",
];

fn make_sets() {
    run("ipset", &["create", "IPP", "hash:ip,port", "counters"], "");
    run("ipset", &["create", "IPP6", "hash:ip,port", "family", "inet6"], "");
}

/// The rules that were given, each with the matches and the target of its entry.
fn of_legacy(rules: &str, ipv6: bool) -> Vec<(String, Vec<XtMatch>, Option<XtTarget>)> {
    let tables: Vec<_> = legacy::tables(NetnsId::Inode(1), |_| true).unwrap();
    let (mut name, mut numbers) = (String::new(), std::collections::HashMap::new());
    let mut read = Vec::new();
    for line in rules.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["-A", chain, ..] => {
                let is_it = |table: &&legacy::LegacyTable| {
                    *table.id().name == name && table.id().family.takes(ipv6)
                };
                let rules = tables.iter().find(is_it).unwrap().chain(chain).unwrap();
                let number = numbers.entry((name.clone(), (*chain).to_owned())).or_insert(0);
                let exprs = rules[*number].exprs.clone();
                *number += 1;
                let matches = exprs.iter().filter_map(|expr| match expr {
                    Expr::Match(test) => Some((**test).clone()),
                    _ => None,
                });
                let target = exprs.iter().find_map(|expr| match expr {
                    Expr::Target(target) => Some((**target).clone()),
                    _ => None,
                });
                read.push((line.to_owned(), matches.collect(), target));
            }
            [word] if word.starts_with('*') => name = word[1..].to_owned(),
            _ => {}
        }
    }
    read
}

#[test]
fn options_are_what_was_asked_for() {
    in_a_namespace(TOOLS, || {
        make_sets();
        run("iptables-legacy-restore", &[], RULES);
        run("ip6tables-legacy-restore", &[], RULES6);
        for (name, rules, ipv6) in [("options", RULES, false), ("options6", RULES6, true)] {
            let text: Vec<String> = of_legacy(rules, ipv6)
                .into_iter()
                .map(|(rule, matches, target)| {
                    let matches = matches.iter().map(|test| format!("\n    {test:?}"));
                    let target = target.iter().map(|target| format!("\n    {target:?}"));
                    format!("{rule}{}", matches.chain(target).collect::<String>())
                })
                .collect();
            insta::assert_snapshot!(name, text.join("\n"));
        }
    });
}

/// Table, chain, and the matches and target of nf_tables' compat layer, of every
/// rule of a family.
fn of_nft(family: u8) -> Vec<(String, String, Vec<XtMatch>, Option<XtTarget>)> {
    let mut netlink = Netlink::open(NETFILTER, usize::MAX).unwrap();
    let mut rules = Vec::new();
    // NFT_MSG_GETRULE.
    let request = NetlinkRequest::dump(10 << 8 | 7, &[family, 0, 0, 0]);
    netlink
        .ask(&request, |message| {
            let rule = message.attributes();
            let (mut matches, mut target) = (Vec::new(), None);
            for (_, expression) in Attributes(find(rule, 4).unwrap_or_default()) {
                let name = text(find(expression, 1).unwrap());
                let data = find(expression, 2).unwrap_or_default();
                if name != "match" && name != "target" {
                    continue;
                }
                let extension = text(find(data, 1).unwrap());
                let revision = *find(data, 2).unwrap().last().unwrap();
                let info = find(data, 3).unwrap();
                if name == "target" {
                    target = Some(target_of(&extension, revision, family == 10, info));
                } else if let MatchInfo::Match(test) =
                    match_of(&extension, revision, family == 10, info)
                {
                    matches.push(test);
                }
            }
            let (table, chain) = (find(rule, 1).unwrap(), find(rule, 2).unwrap());
            rules.push((text(table), text(chain), matches, target));
            true
        })
        .unwrap();
    rules
}

#[test]
fn iptables_nft_says_the_same() {
    in_a_namespace(TOOLS, || {
        make_sets();
        run("iptables-legacy-restore", &[], RULES);
        run("ip6tables-legacy-restore", &[], RULES6);
        run("iptables-nft-restore", &[], RULES);
        run("ip6tables-nft-restore", &[], RULES6);
        let mut compared = 0;
        for (rules, ipv6, family) in [(RULES, false, 2), (RULES6, true, 10)] {
            let mut nft = of_nft(family);
            let mut name = String::new();
            let mut legacy = of_legacy(rules, ipv6).into_iter();
            for line in rules.lines() {
                if let Some(table) = line.strip_prefix('*') {
                    name = table.to_owned();
                }
                let Some(rule) = line.strip_prefix("-A ") else { continue };
                let chain = rule.split(' ').next().unwrap();
                let at = nft.iter().position(|(t, c, ..)| *t == name && c == chain).unwrap();
                let (_, _, matches, target) = nft.remove(at);
                let (_, wanted, wanted_target) = legacy.next().unwrap();
                // What iptables-nft writes as expressions of nf_tables is no match there.
                for test in matches {
                    assert!(wanted.contains(&test), "{line}: {test:?} is not in {wanted:?}");
                    compared += 1;
                }
                if target.is_some() {
                    assert_eq!(target, wanted_target, "{line}");
                    compared += 1;
                }
            }
        }
        assert!(compared > 60, "{compared}");
    });
}

#[test]
fn a_set_in_a_rule_is_found_by_its_index() {
    in_a_namespace(TOOLS, || {
        make_sets();
        run("ipset", &["add", "IPP", "10.0.0.1,tcp:80"], "");
        run(
            "iptables-legacy-restore",
            &[],
            "*raw\n-A OUTPUT -m set --match-set IPP dst,dst\nCOMMIT\n",
        );
        let netns = NetnsId::Inode(1);
        let rules = legacy::tables(netns, |_| true).unwrap()[0].chain("OUTPUT").unwrap();
        let [Expr::Match(one)] = rules[0].exprs.as_slice() else { panic!("{rules:?}") };
        let XtMatch::Set { index, source, .. } = &**one else { panic!("{one:?}") };
        assert_eq!(*source, [false, false]);
        let set = crate::live::rules::ipset::read(netns, *index).unwrap().unwrap();
        assert_eq!((set.name.as_str(), set.members.unwrap().len()), ("IPP", 1));
    });
}
