//! Targets as people paste them, asked of real sockets.

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Run, Test, within};
use serde_json::Value;

/// The answers of a run.
fn answers(run: &Run) -> Result<&Vec<Value>> {
    run.json["answers"].as_array().with_context(|| format!("{}{}", run.stdout, run.stderr))
}

/// The addresses that were asked for, each with its verdict.
fn verdicts(run: &Run) -> Result<Vec<String>> {
    let one = |answer: &Value| {
        let word = |value: &Value| value.as_str().unwrap_or("any").to_owned();
        format!("{} {}", word(&answer["query"]["address"]), word(&answer["verdict"]))
    };
    Ok(answers(run)?.iter().map(one).collect())
}

/// What hosts(5) says to who asks in such a mount namespace.
fn with_files(lab: &Lab, name: &str, hosts: &str) -> Result<lab::Mounts> {
    let dir = lab.dir().join(name);
    std::fs::create_dir(&dir)?;
    std::fs::write(dir.join("hosts"), hosts)?;
    std::fs::write(dir.join("gai.conf"), "")?;
    let dir = dir.display();
    let bind = |name: &str| format!("mount --bind {dir}/{name} /etc/{name}");
    let order = bind("gai.conf");
    lab.mounts(&format!("{}; if test -e /etc/gai.conf; then {order}; fi", bind("hosts")))
}

const BOTH: &str = "127.0.0.1 localhost\n::1 localhost\n10.9.8.7 api.internal\n127.0.0.1 me\n";

#[test]
fn localhost_is_both_of_its_addresses() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mounts = with_files(&lab, "both", BOTH)?;
    let ask = |args: &[&str]| lab.tool().inside(&mounts).arg("--json").args(args).run();
    let _six = lab.listen(lab.host(), "tcp [::1]:28120 --answer six")?;
    let run = ask(&["localhost:28120/tcp"])?;
    ensure!(verdicts(&run)? == ["::1 found", "127.0.0.1 not_found"], "{}", run.stdout);
    // One is enough, as for a browser.
    ensure!(run.code == Some(0), "{:?}", run.code);
    let name = &answers(&run)?[1]["query"]["name"];
    ensure!(name["number"] == 2 && name["addresses"] == 2 && name["in_order"] == true, "{name}");
    ensure!(answers(&run)?[1]["findings"][0]["code"] == "other_address", "{}", run.stdout);
    let text = lab.tool().inside(&mounts).arg("localhost:28120/tcp").run()?.stdout;
    ensure!(text.starts_with("localhost is ::1, which is tried first, and 127.0.0.1"), "{text}");
    let _four = lab.listen(lab.host(), "tcp 127.0.0.1:28120 --answer four")?;
    ensure!(verdicts(&ask(&["http://localhost:28120/x"])?)? == ["::1 found", "127.0.0.1 found"]);
    let wait = ask(&["wait", "localhost:28120", "--timeout", "5s"])?;
    ensure!(wait.code == Some(0), "{}{}", wait.stdout, wait.stderr);
    // Nothing on either.
    let run = ask(&["localhost:28121"])?;
    ensure!(run.code == Some(1) && answers(&run)?.len() == 2, "{}", run.stdout);
    // Files that say otherwise; without ::1 it comes last.
    let four = with_files(&lab, "four", "127.0.0.1 localhost\n")?;
    let run = lab.tool().inside(&four).args(&["--json", "localhost:28120"]).run()?;
    ensure!(verdicts(&run)? == ["127.0.0.1 found"], "{}", run.stdout);
    lab.host().ip(&["addr", "del", "::1/128", "dev", "lo"])?;
    let run = ask(&["localhost:28121"])?;
    ensure!(verdicts(&run)? == ["127.0.0.1 not_found", "::1 not_found"], "{}", run.stdout);
    Ok(())
}

#[test]
fn names_come_from_the_file_alone() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mounts = with_files(&lab, "both", BOTH)?;
    let ask = |target: &str| lab.tool().inside(&mounts).arg("--json").arg(target).run();
    let _server = lab.listen(lab.host(), "tcp 127.0.0.1:28122")?;
    ensure!(verdicts(&ask("me:28122")?)? == ["127.0.0.1 found"]);
    let run = ask("https://api.internal/")?;
    ensure!(answers(&run)?[0]["query"]["address"] == "10.9.8.7", "{}", run.stdout);
    ensure!(answers(&run)?[0]["query"]["first_port"] == 443, "{}", run.stdout);
    let run = ask("example.org:80")?;
    ensure!(run.code == Some(2) && run.stderr.contains("DNS is not asked"), "{}", run.stderr);
    Ok(())
}

#[test]
fn what_is_pasted_finds_the_same() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let four = lab.listen(lab.host(), "tcp 0.0.0.0:28123")?;
    let pids = |target: &str| -> Result<Vec<String>> {
        let run = lab.whereis(&[target])?;
        let each = answers(&run)?.iter().flat_map(|answer| answer["paths"].as_array().cloned());
        Ok(each.flatten().map(|path| path["end"]["process"]["pid"].to_string()).collect())
    };
    let wanted = [four.pid.to_string()];
    for target in [
        "*:28123",
        "tcp:28123",
        "tcp/28123",
        "0.0.0.0:28123",
        "0.0.0.0:28123->80/tcp",
        "http://127.0.0.1:28123/x?y#z",
        "tcp://0.0.0.0:28123",
        "127.0.0.1%lo:28123",
        "28123,28124",
        "28124,28123-28125/tcp",
    ] {
        ensure!(pids(target)? == wanted, "{target}: {:?}", pids(target)?);
    }
    // Bound to all of IPv4, it is in the way of [::] and takes nothing there.
    for target in [":::28123", "[::]:28123/tcp"] {
        let run = lab.whereis(&[target])?;
        ensure!(run.code == Some(1), "{target}: {}", run.stdout);
        let held = &answers(&run)?[0]["held"][0];
        ensure!(held["role"] == "listener" && held["blocks_bind"] == true, "{target}: {held}");
    }
    // One that takes both is what 0.0.0.0 means as well.
    let both = lab.listen(lab.host(), "tcp [::]:28126 --v6only 0")?;
    for target in ["0.0.0.0:28126", ":::28126"] {
        ensure!(pids(target)? == [both.pid.to_string()], "{target}");
    }
    let only = lab.listen(lab.host(), "tcp [::]:28127 --v6only 1")?;
    ensure!(lab.whereis(&["0.0.0.0:28127/tcp"])?.code == Some(1));
    ensure!(pids("[::]:28127/tcp")? == [only.pid.to_string()]);
    Ok(())
}

#[test]
fn an_address_of_one_interface_is_of_that_one() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    lab.veth((lab.host(), "one", "10.88.1.1/24"), (&other, "two", "10.88.1.2/24"))?;
    for (netns, link) in [(lab.host(), "one"), (&other, "two")] {
        netns.ip(&["addr", "add", "fe80::77/64", "dev", link, "nodad"])?;
    }
    let _here = lab.listen(lab.host(), "tcp [::]:28128")?;
    let run = lab.whereis(&["[fe80::77%one]:28128/tcp"])?;
    ensure!(run.code == Some(0) && answers(&run)?[0]["query"]["zone"] == "one", "{}", run.stdout);
    let all = answers(&run)?[0]["paths"].as_array().context("no paths")?;
    ensure!(all.iter().all(|p| p["netns"]["inode"] == lab.host().inode), "{}", run.stdout);
    // It is no address of the loopback, and of no interface that is not there.
    let run = lab.whereis(&["[fe80::77%lo]:28128/tcp"])?;
    ensure!(matches!(run.code, Some(1 | 3)), "{}", run.stdout);
    let run = lab.whereis(&["[fe80::77%nosuch]:28128/tcp"])?;
    ensure!(run.code == Some(2) && run.stderr.contains("there is lo, one"), "{}", run.stderr);
    // What is bound to another interface does not take it.
    let _bound = lab.listen(lab.host(), "tcp 0.0.0.0:28129 --device one")?;
    ensure!(lab.whereis(&["127.0.0.1%lo:28129/tcp"])?.code == Some(1));
    ensure!(lab.whereis(&["10.88.1.1%one:28129/tcp"])?.code == Some(0));
    Ok(())
}

#[test]
fn who_is_called_so_is_found_by_name() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _server = lab.listen_like(lab.host(), "tcp 127.0.0.1:28130", &["wp-named-app"])?;
    let run = lab.whereis(&["--name", "wp-named-app"])?;
    ensure!(run.is_found()?.answer()?["query"]["first_port"] == 28130, "{}", run.stdout);
    let run = lab.whereis(&["--name", "wp-named"])?;
    ensure!(matches!(run.code, Some(1 | 3)), "a part is no name: {}", run.stdout);
    let bare = lab.whereis(&["wp-named-app"])?;
    ensure!(bare.code == Some(2) && bare.stderr.contains("--name wp-named-app"), "{}", bare.stderr);
    Ok(())
}

#[test]
fn bad_targets_end_with_2_and_say_what_they_look_like() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    for (target, part) in [
        ("10.0.0.0/8", "looks like a network"),
        ("80:30518/TCP", "looks like two ports"),
        ("http://", "URL without a host"),
        ("db.example.org", "name of a host, without a port"),
        ("fe80::1:80", "needs brackets"),
    ] {
        let run = within(lab.host(), || lab.tool().arg(target).run())?;
        ensure!(run.code == Some(2) && run.stderr.contains(part), "{target}: {}", run.stderr);
    }
    Ok(())
}

/// A connection to the loopback is to that of who connects: what another namespace has there is
/// no find, and is said all the same.
#[test]
fn the_loopback_of_another_namespace_is_not_meant() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let port = lab::unused_port()?;
    let server = lab.listen(&other, &format!("tcp 127.0.0.1:{port}"))?;
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let landed = lab.host().connect("tcp", to)?;
    ensure!(landed == lab::Landing::Refused, "THE LAB: {landed}");
    let asked = format!("{to}/tcp");
    let run = lab.whereis(&[&asked])?;
    ensure!(run.code == Some(1), "{}", run.stdout);
    let answer = &answers(&run)?[0];
    ensure!(answer["verdict"] == "not_found" && answer["paths"] == serde_json::json!([]));
    let held = answer["held"].as_array().context("nothing held")?;
    ensure!(held.len() == 1 && held[0]["netns"]["inode"] == other.inode, "{}", run.stdout);
    ensure!(held[0]["end"]["process"]["pid"] == server.pid, "{}", run.stdout);
    let shown = lab.tool().args(&["--color", "never", &asked]).run()?;
    ensure!(shown.stdout.contains("but it is taken in netns"), "{}", shown.stdout);
    // Who names the namespace means its loopback.
    let inode = other.inode.to_string();
    let run = lab.whereis(&["--netns", &inode, &asked])?;
    ensure!(run.code == Some(0), "{}", run.stdout);
    let from = format!("netns:{inode}");
    ensure!(lab.whereis(&["--from", &from, &asked])?.code == Some(0));
    // Where the own one has it, nothing else is said.
    let here = lab.listen(lab.host(), &format!("tcp 0.0.0.0:{port}"))?;
    let run = lab.whereis(&[&asked])?;
    let answer = &answers(&run)?[0];
    ensure!(answer["paths"][0]["end"]["process"]["pid"] == here.pid, "{}", run.stdout);
    ensure!(answer["held"] == serde_json::json!([]), "{}", run.stdout);
    Ok(())
}
