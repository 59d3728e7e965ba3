//! What a big node costs: `cargo test --release … a_big_node -- --ignored --nocapture`.

use std::fmt::Write as _;
use std::time::Instant;

use super::*;

/// What kube-proxy makes of so many services with two endpoints each.
fn kube_proxy(services: u32) -> String {
    let mut chains = String::from(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n",
    );
    let mut rules = String::from(
        "-A PREROUTING -j KUBE-SERVICES\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n",
    );
    for n in 0..services {
        let hash = format!("{:016X}", u64::from(n) * 2_654_435_761);
        let (ip, port) = (
            format!("10.{}.{}.{}", 96 + n / 62_500, n / 250 % 250, n % 250 + 1),
            30_000 + n % 2700,
        );
        let comment = format!("-m comment --comment \"ns{}/service-{n}:http\"", n % 40);
        let _ = write!(
            chains,
            ":KUBE-SVC-{hash} - [0:0]\n:KUBE-SEP-A{hash} - [0:0]\n:KUBE-SEP-B{hash} - [0:0]\n"
        );
        let _ = writeln!(
            rules,
            "-A KUBE-SERVICES -d {ip}/32 -p tcp {comment} -m tcp --dport 80 -j KUBE-SVC-{hash}"
        );
        let _ = writeln!(
            rules,
            "-A KUBE-NODEPORTS -p tcp {comment} -m tcp --dport {port} -j KUBE-SVC-{hash}"
        );
        let _ = writeln!(
            rules,
            "-A KUBE-SVC-{hash} ! -s 10.244.0.0/16 -d {ip}/32 -p tcp {comment} -m tcp --dport 80 -j KUBE-MARK-MASQ"
        );
        let _ = writeln!(
            rules,
            "-A KUBE-SVC-{hash} {comment} -m statistic --mode random --probability 0.5 -j KUBE-SEP-A{hash}"
        );
        let _ = writeln!(rules, "-A KUBE-SVC-{hash} {comment} -j KUBE-SEP-B{hash}");
        for end in ["A", "B"] {
            let _ = writeln!(
                rules,
                "-A KUBE-SEP-{end}{hash} -s 10.244.1.5/32 {comment} -j KUBE-MARK-MASQ"
            );
            let _ = writeln!(
                rules,
                "-A KUBE-SEP-{end}{hash} -p tcp {comment} -m tcp -j DNAT --to-destination 10.244.1.5:8080"
            );
        }
    }
    chains + &rules + "COMMIT\n"
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096 / 1_000_000
}

#[test]
#[ignore = "measures, and takes ten seconds"]
fn a_big_node() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.iptables(&kube_proxy(8333));
    let ms = |since: Instant| since.elapsed().as_secs_f64() * 1000.0;
    for round in 0..3 {
        let (before, since) = (resident(), Instant::now());
        let (mut tables, mut talk) = lab.tables();
        println!("round {round}: rulesets {:.1} ms", ms(since));
        let since = Instant::now();
        let mut rules = 0;
        for name in ["PREROUTING", "KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-SVC-0000000000000000"] {
            let id = chain_id(lab.id, Family::Ip, "nat", name);
            rules += tables.chain(&id, &mut talk).unwrap().unwrap().len();
        }
        println!("  {rules} rules of 4 chains {:.1} ms, +{} MB", ms(since), resident() - before);
        let (mut tables, mut talk) = lab.tables();
        let (before, since) = (resident(), Instant::now());
        tables.expect_all(&mut talk).unwrap();
        println!("  all rules {:.1} ms, +{} MB", ms(since), resident() - before);
        let since = Instant::now();
        let names: Vec<ChainId> = tables.told.chains.keys().cloned().collect();
        let count: usize =
            names.iter().map(|id| tables.chain(id, &mut talk).unwrap().unwrap().len()).sum();
        println!("  {count} rules asked for {:.1} ms, {} MB", ms(since), resident());
    }
}
