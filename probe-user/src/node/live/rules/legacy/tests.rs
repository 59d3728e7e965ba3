//! Tables as the kernel gives them, in namespaces of the tests, and damaged ones.

use std::time::Instant;

use super::*;
use crate::node::live::rules::xt::lab::{in_a_namespace, run};

const NETNS: NetnsId = NetnsId::Inode(1);

#[test]
fn scratch() {
    in_a_namespace(&["iptables-legacy-restore"], || {
        assert!(tables(NETNS).unwrap().is_empty());
        run(
            "iptables-legacy-restore",
            &[],
            "*nat\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -m comment --comment hi -j DNAT --to-destination 172.17.0.2:80\n-A DOCKER -i eth+ -s 10.1.2.0/23 -j RETURN\nCOMMIT\n",
        );
        let tables = tables(NETNS).unwrap();
        for t in &tables {
            println!("{t:?}");
            for b in t.base_chains() {
                println!("{b:?}");
            }
            for c in t.chain_names() {
                println!("{c} {:#?}", t.chain(&c));
            }
        }
    });
}

#[test]
fn speed() {
    in_a_namespace(&["iptables-legacy-restore"], || {
        use std::fmt::Write as _;
        let mut text = "*nat\n".to_owned();
        for s in 0..9375 {
            for c in ["SVC", "SEP", "FW"] {
                writeln!(text, ":KUBE-{c}-{s} - [0:0]").unwrap();
            }
        }
        for s in 0..9375 {
            writeln!(text, "-A PREROUTING -d 10.96.{}.{}/32 -p tcp -m comment --comment \"ns/svc:{s} cluster IP\" -m tcp --dport 80 -j KUBE-SVC-{s}", s / 256, s % 256).unwrap();
            for i in 0..4 {
                writeln!(text, "-A KUBE-SVC-{s} -m comment --comment \"ns/svc:{s}\" -m statistic --mode random --probability 0.5 -j KUBE-SEP-{s}").unwrap();
                let _ = i;
            }
            writeln!(text, "-A KUBE-SEP-{s} -p tcp -m tcp -m comment --comment x -j DNAT --to-destination 10.0.{}.{}:8080", s / 256, s % 256).unwrap();
            writeln!(text, "-A KUBE-SEP-{s} -s 10.0.0.1 -j RETURN").unwrap();
            writeln!(text, "-A KUBE-FW-{s} -j DROP").unwrap();
        }
        let text = text.replace("-j DROP", "-j RETURN") + "COMMIT\n";
        run("iptables-legacy-restore", &[], &text);
        for _ in 0..3 {
            let start = Instant::now();
            let tables = tables(NETNS).unwrap();
            let read = start.elapsed();
            let start = Instant::now();
            let rules = tables[0].chain("KUBE-SVC-5000").unwrap();
            let one = start.elapsed();
            let start = Instant::now();
            let all: usize =
                tables[0].chain_names().map(|n| tables[0].chain(&n).unwrap().len()).sum();
            println!(
                "{tables:?} read {read:?} chain {one:?} {} all {:?} {all}",
                rules.len(),
                start.elapsed()
            );
        }
    });
}
