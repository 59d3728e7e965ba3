//! Rules that are written to take all time or memory, or to be an answer to every question:
//! in namespaces that any user can make, and in one's own.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::{Lab, Proc, Test};

/// A lab whose host has an address that is not loopback's.
fn node() -> anyhow::Result<Lab> {
    let lab = Lab::new()?;
    let out = lab.netns("out")?;
    lab.veth((lab.host(), "eth0", "172.30.0.1/24"), (&out, "eth0", "172.30.0.2/24"))?;
    Ok(lab)
}

/// A network namespace with these rules, in a user namespace of its own.
fn of_user(lab: &Lab, name: &str, rules: &str) -> anyhow::Result<Proc> {
    let (file, done) = (lab.dir().join(format!("{name}.nft")), lab.dir().join(name));
    std::fs::write(&file, rules)?;
    let script = format!(
        "ip link set lo up && ip addr add 10.1.2.1/32 dev lo && ip addr add 10.1.2.2/32 dev lo && \
         nft -f {} && touch {} && exec sleep 1000",
        file.display(),
        done.display()
    );
    let argv = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", &script];
    let mut holder = lab.spawn(lab.host(), &argv)?;
    while !done.exists() {
        ensure!(!holder.has_exited()?, "{name} could not be made");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(holder)
}

/// Chains of jumps, each made once more with another mark, so that none is like another.
fn bomb() -> String {
    let mut rules = "table ip bomb {\n chain c14 { }\n".to_owned();
    for at in (0..14).rev() {
        let each: String =
            (0..8).map(|n| format!("meta mark set {n}; jump c{}; ", at + 1)).collect();
        // Writing to a string can't fail.
        let _infallible = writeln!(rules, " chain c{at} {{ {each} }}");
    }
    rules + " chain out { type nat hook output priority -100; jump c0; }\n}\n"
}

#[test]
fn rules_of_users_that_never_end_hide_no_listener_and_are_named() -> Test {
    lab::rules_or_skip!();
    let lab = node()?;
    let _users: Vec<Proc> =
        (0..3).map(|n| of_user(&lab, &format!("u{n}"), &bomb())).collect::<Result<_, _>>()?;
    let port = lab::unused_port()?.to_string();
    let web = lab.listen(lab.host(), &format!("tcp 0.0.0.0:{port}"))?;
    let run = lab.tool().args(&["--json", &port]).run()?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.pid() == Some(u64::from(web.pid)), "{}", run.stdout);
    let run = lab.tool().args(&["--json", &lab::unused_port()?.to_string()]).run()?;
    let gaps = run.gap_text();
    ensure!(run.code == Some(3), "\"surely nothing\" is wrong: {:?} {gaps}", run.code);
    ensure!(gaps.contains("takes more steps than one question may"), "{gaps}");
    Ok(())
}

#[test]
fn rules_of_a_user_for_any_port_are_no_answer_to_one() -> Test {
    lab::rules_or_skip!();
    let lab = node()?;
    let mut rules = "table ip every {\n".to_owned();
    for hook in ["output", "prerouting"] {
        let _infallible = writeln!(rules, " chain {hook} {{ type nat hook {hook} priority -100;");
        for port in 1..=100 {
            let _infallible =
                writeln!(rules, "  tcp sport {port} tcp dport != {port} dnat to 10.1.2.2:80");
        }
        rules += " }\n";
    }
    let _user = of_user(&lab, "every", &(rules + "}\n"))?;
    let port = lab::unused_port()?.to_string();
    let run = lab.tool().args(&["--json", &port]).run()?;
    ensure!(run.code != Some(0), "{}", run.stdout);
    let web = lab.listen(lab.host(), &format!("tcp 0.0.0.0:{port}"))?;
    let run = lab.tool().args(&["--json", &port]).run()?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.pid() == Some(u64::from(web.pid)), "{}", run.stdout);
    Ok(())
}

#[test]
fn of_thousands_of_rules_that_may_hold_a_few_are_shown_and_the_number_of_the_others() -> Test {
    lab::rules_or_skip!();
    let lab = node()?;
    let port = lab::unused_port()?.to_string();
    let mut rules = "table ip maybe {\n".to_owned();
    for hook in ["output", "prerouting"] {
        let _infallible = writeln!(rules, " chain {hook} {{ type nat hook {hook} priority -100;");
        for n in 1..=2000 {
            let _infallible = writeln!(
                rules,
                "  tcp sport {n} tcp dport {port} dnat to 10.1.{}.{}:80",
                n >> 8,
                n & 255
            );
        }
        rules += " }\n";
    }
    lab.nft(lab.host(), &(rules + "}\n"))?;
    let run = lab.tool().args(&["--json", &format!("{port}/tcp")]).run()?;
    let more = run.is_found()?.answer()?["more_paths"].as_u64().context("no more_paths")?;
    ensure!(more > 100 && run.paths()?.len() < 20, "{more} more than {}", run.paths()?.len());
    ensure!(run.stdout.len() < 200_000, "{} bytes", run.stdout.len());
    let run = lab.tool().args(&[&format!("{port}/tcp")]).run()?;
    ensure!(run.stdout.len() < 20_000, "{} bytes", run.stdout.len());
    ensure!(run.stdout.contains("more ways by rules, depending on who connects"), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_set_of_very_many_addresses_hides_no_port_of_a_list() -> Test {
    lab::rules_or_skip!();
    let lab = node()?;
    let port = lab::unused_port()?.to_string();
    let elements: Vec<String> =
        (0..150_000).map(|n| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)).collect();
    lab.nft(
        lab.host(),
        &format!(
            "table ip t {{\n set big {{ type ipv4_addr; elements = {{ {} }}\n }}\n \
             chain out {{ type nat hook output priority -100; \
             ip daddr @big tcp dport {port} dnat to 10.1.1.1:80; }}\n}}\n",
            elements.join(",")
        ),
    )?;
    let run = lab.tool().args(&["list", "-o", "csv", "--no-headers"]).run()?;
    ensure!(run.stdout.lines().any(|row| row.starts_with(&port)), "{}", run.stdout);
    Ok(())
}

#[test]
fn ports_that_a_mask_chooses_are_in_lists_and_ranges() -> Test {
    lab::rules_or_skip!();
    let lab = node()?;
    let port = 700;
    lab.nft(
        lab.host(),
        &format!(
            "table ip t {{\n chain out {{ type nat hook output priority -100; \
             tcp dport & 0xfffe == {port} dnat to 10.9.9.4:80; }}\n}}\n"
        ),
    )?;
    let one = lab.tool().args(&["--json", &format!("{port}/tcp")]).run()?;
    one.is_found()?;
    let range = format!("{}-{}/tcp", port - 5, port + 9);
    lab.tool().args(&["--json", &range]).run()?.is_found()?;
    let list = lab.tool().args(&["list", "-o", "csv", "--no-headers"]).run()?;
    for port in [port, port + 1] {
        let row = |line: &&str| line.starts_with(&format!("{port},tcp,"));
        ensure!(list.stdout.lines().any(|line| row(&line)), "{port}: {}", list.stdout);
    }
    // These are not taken. Of rules of other tests it may be unknown.
    let beside = format!("{}-{}/tcp", port + 2, port + 9);
    let run = lab.tool().args(&["--json", &beside]).run()?;
    ensure!(matches!(run.code, Some(1 | 3)), "{:?} {}", run.code, run.stdout);
    Ok(())
}

#[test]
fn what_there_was_no_time_for_is_said() -> Test {
    lab::rules_or_skip!();
    let lab = node()?;
    let other = lab.netns("other")?;
    lab.nft(&other, "table ip t {\n chain out { type nat hook output priority 0; }\n}\n")?;
    let port = lab::unused_port()?.to_string();
    let web = lab.listen(lab.host(), &format!("tcp 0.0.0.0:{port}"))?;
    let run = lab.tool().args(&["--timeout", "1ms", "--json", &port]).run()?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.pid() == Some(u64::from(web.pid)), "{}", run.stdout);
    for (time, says) in [("0s", "no time at all"), ("5", "unit is missing"), ("x", "no number")] {
        let run = lab.tool().args(&["--timeout", time, &port]).run()?;
        ensure!(run.code == Some(2) && run.stderr.contains(says), "{time}: {}", run.stderr);
    }
    Ok(())
}
