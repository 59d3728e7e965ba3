//! Rules in bad weather: deep, circular, replaced while they are read, out of reach,
//! or not there at all.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;
use lab::{Backend, Lab, Netns, Test};

/// A user without any rights.
const NOBODY: u32 = 65534;

/// A lab whose host has an address that is not loopback's.
fn node() -> anyhow::Result<Lab> {
    let lab = Lab::new()?;
    let out = lab.netns("out")?;
    lab.veth((lab.host(), "eth0", "172.30.0.1/24"), (&out, "eth0", "172.30.0.2/24"))?;
    lab.host().ip(&["route", "add", "default", "via", "172.30.0.2"])?;
    Ok(lab)
}

/// What the tool says of a port, as JSON text.
fn ask(lab: &Lab, port: &str) -> anyhow::Result<String> {
    Ok(lab.tool().args(&["--json", port]).run()?.stdout)
}

/// Rules of nft that jump so many times before they translate the port.
fn deep(jumps: usize, port: &str) -> String {
    let mut rules =
        format!("table ip deep {{\n chain c{jumps} {{ tcp dport {port} dnat to 10.9.9.9:80; }}\n");
    for n in (1..jumps).rev() {
        // Writing to a string can't fail.
        let _infallible = writeln!(rules, " chain c{n} {{ jump c{}; }}", n + 1);
    }
    rules
        + " chain pre { type nat hook prerouting priority dstnat; jump c1; }\n \
        chain out { type nat hook output priority -100; jump c1; }\n}\n"
}

#[test]
fn rules_as_deep_as_the_kernel_allows_are_followed() -> Test {
    lab::rules_or_skip!();
    let lab = node()?;
    let port = lab::unused_port()?.to_string();
    // The kernel's stack has 16 places.
    lab.nft(lab.host(), &deep(15, &port))?;
    let said = ask(&lab, &port)?;
    ensure!(said.contains("10.9.9.9"), "{said}");
    // One that is deeper is refused by the kernel: what is asked of rules here can't be.
    ensure!(lab.nft(lab.host(), &deep(64, "9").replace("deep", "deeper")).is_err());
    let said = ask(&lab, &port)?;
    ensure!(said.contains("10.9.9.9"), "{said}");
    Ok(())
}

#[test]
fn legacy_rules_are_followed_64_jumps_deep() -> Test {
    lab::rules_or_skip!();
    let lab = node()?;
    let port = lab::unused_port()?.to_string();
    let mut rules = "*nat\n".to_owned();
    for n in 1..=64 {
        let _infallible = writeln!(rules, ":C{n} - [0:0]");
    }
    rules += "-A PREROUTING -j C1\n-A OUTPUT -j C1\n";
    for n in 1..64 {
        let _infallible = writeln!(rules, "-A C{n} -j C{}", n + 1);
    }
    let dnat = "-j DNAT --to-destination 10.9.9.9:80";
    let _infallible = writeln!(rules, "-A C64 -p tcp --dport {port} {dnat}\nCOMMIT");
    lab.iptables(lab.host(), Backend::Legacy, &rules)?;
    let said = ask(&lab, &port)?;
    ensure!(said.contains("10.9.9.9"), "{said}");
    Ok(())
}

#[test]
fn a_loop_is_refused_by_the_kernel_and_what_was_there_is_still_told() -> Test {
    lab::rules_or_skip!();
    let lab = node()?;
    let port = lab::unused_port()?.to_string();
    let rules = format!(
        "*nat\n-A OUTPUT -p tcp --dport {port} -j DNAT --to-destination 10.9.9.9\nCOMMIT\n"
    );
    for backend in Backend::ALL {
        lab.iptables(lab.host(), backend, &rules)?;
        let circle = "*nat\n:A - [0:0]\n:B - [0:0]\n-A OUTPUT -j A\n-A A -j B\n-A B -j A\nCOMMIT\n";
        ensure!(lab.iptables(lab.host(), backend, circle).is_err(), "{backend:?} takes a loop");
    }
    let said = ask(&lab, &port)?;
    ensure!(said.contains("10.9.9.9"), "{said}");
    Ok(())
}

/// The ruleset of one of two generations: every part of it names the same target.
fn generation(target: u8, port: &str) -> String {
    format!(
        "table ip swap {{}}\nflush table ip swap\ntable ip swap {{\n\
         chain to{target} {{ meta l4proto tcp dnat to 10.9.9.{target}:80; }}\n\
         chain pick {{ tcp dport {port} jump to{target}; }}\n\
         chain out {{ type nat hook output priority -100; jump pick; }}\n}}\n"
    )
}

#[test]
fn rules_replaced_while_they_are_read_never_give_a_mixture() -> Test {
    lab::rules_or_skip!();
    let lab = node()?;
    let port = lab::unused_port()?.to_string();
    lab.nft(lab.host(), &generation(1, &port))?;
    let done = AtomicBool::new(false);
    let write = |netns: &Netns| -> Test {
        for target in [2, 1].into_iter().cycle() {
            if done.load(Ordering::Relaxed) {
                break;
            }
            lab.nft(netns, &format!("delete table ip swap\n{}", generation(target, &port)))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(lab.host()));
        let answers: anyhow::Result<Vec<String>> = (0..30).map(|_| ask(&lab, &port)).collect();
        done.store(true, Ordering::Relaxed);
        let wrote = writer.join().map_err(|_panic| anyhow::anyhow!("the writer panicked"))?;
        wrote?;
        for said in answers? {
            let told = ["10.9.9.1:80", "10.9.9.2:80"].map(|target| said.contains(target));
            let excused = said.contains("changed while") || said.contains("keep changing");
            ensure!(
                excused || told == [true, false] || told == [false, true],
                "neither one generation nor the other: {said}"
            );
        }
        Ok(())
    })
}

#[test]
fn without_the_right_the_answer_says_that_rules_are_unknown() -> Test {
    lab::rules_or_skip!();
    let lab = node()?;
    let port = lab::unused_port()?.to_string();
    lab.nft(lab.host(), &generation(1, &port))?;
    let run = lab.tool().uid(NOBODY).args(&["--json", &port]).run()?;
    ensure!(run.code == Some(3), "\"surely nothing\" is wrong: {:?} {}", run.code, run.stdout);
    let gaps = run.gap_text();
    ensure!(gaps.contains("packet rules") && gaps.contains("CAP_NET_ADMIN"), "{gaps}");
    Ok(())
}

#[test]
fn a_namespace_without_any_rules_has_no_gap_and_gets_none_by_asking() -> Test {
    lab::rules_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?.to_string();
    let _here = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
    let run = lab.tool().args(&["--json", &port]).run()?;
    run.is_found()?.path_in(lab.host())?;
    let mine = lab.host().inode.to_string();
    let about_rules = |gap: &&str| gap.contains("packet rules") && gap.contains(&mine);
    let gaps = run.gap_text();
    ensure!(!gaps.lines().any(|gap| about_rules(&gap)), "{gaps}");
    let list = |argv: &[&str]| -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&lab.command(lab.host(), argv)?.output()?.stdout).into_owned())
    };
    ensure!(list(&["nft", "list", "tables"])?.is_empty(), "asking made a table");
    let legacy = list(&["cat", "/proc/self/net/ip_tables_names"])?;
    ensure!(legacy.is_empty(), "asking made the legacy tables {legacy}");
    Ok(())
}
