//! The list, its filters, order and formats.

use anyhow::{Context, bail, ensure};
use lab::{Lab, Netns, Proc, Run, Test};
use serde_json::Value;

struct Some4 {
    lab: Lab,
    other: Netns,
    plain: Proc,
    _held: Proc,
}

fn some() -> anyhow::Result<Some4> {
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let plain =
        lab.listen(lab.host(), "tcp 127.0.0.1:21501 udp 127.0.0.1:21502 udp [::1]:21503")?;
    let held = lab.listen_like(&other, "tcp [::]:21504 --v6only 1", &["gunicorn-master"])?;
    Ok(Some4 { lab, other, plain, _held: held })
}

fn ports(run: &Run) -> anyhow::Result<Vec<u64>> {
    // Nothing that passes the filters is "nothing there", sure or not.
    let empty = run.json["listeners"].as_array().is_some_and(Vec::is_empty);
    let fits = if empty { matches!(run.code, Some(1 | 3)) } else { run.code == Some(0) };
    ensure!(fits, "{:?}: {}{}", run.code, run.stdout, run.stderr);
    let mut ports: Vec<u64> =
        run.listeners()?.iter().filter_map(|l| l.0["port"].as_u64()).collect();
    ports.sort_unstable();
    Ok(ports)
}

#[test]
fn filters() -> Test {
    lab::root_or_skip!();
    let some = some()?;
    let pid = some.plain.pid.to_string();
    let (tcp, udp, v4, v6): (&[u64], &[u64], &[u64], &[u64]) =
        (&[21501, 21504], &[21502, 21503], &[21501, 21502], &[21503, 21504]);
    for (args, expected) in [
        (["list"].as_slice(), [21501, 21502, 21503, 21504].as_slice()),
        // With no argument it lists.
        (&[], &[21501, 21502, 21503, 21504]),
        (&["list", "-t"], tcp),
        (&["list", "-u"], udp),
        (&["list", "-4"], v4),
        (&["list", "-6"], v6),
        // Both of a kind stand for either, as with ss.
        (&["list", "-t", "-u"], &[21501, 21502, 21503, 21504]),
        (&["list", "-4", "-6"], &[21501, 21502, 21503, 21504]),
        (&["list", "-u", "-6"], &[21503]),
        (&["list", "--pid", &pid], &[21501, 21502, 21503]),
        (&["list", "--netns", &some.other.name], &[21504]),
        (&["list", "--netns", &some.other.inode.to_string()], &[21504]),
        (&["list", "--process", "gunicorn-master"], &[21504]),
        (&["list", "--container", "no-such-container"], &[]),
    ] {
        let run = some.lab.whereis(args)?;
        let found = ports(&run).with_context(|| format!("{args:?}"))?;
        ensure!(found == expected, "{args:?}: {found:?}");
    }
    Ok(())
}

#[test]
fn a_filter_that_can_not_fit_is_not_an_empty_list() -> Test {
    lab::root_or_skip!();
    let some = some()?;
    let empty = some.lab.netns("empty")?;
    for form in [&[][..], &["--json"], &["-o", "csv"]] {
        let run = some.lab.tool().args(&["list", "--netns", "nosuch"]).args(form).run()?;
        ensure!(run.code == Some(2) && run.stdout.is_empty(), "{:?}: {}", run.code, run.stdout);
        ensure!(run.stderr.contains("nosuch"), "{}", run.stderr);
        ensure!(run.stderr.contains(&some.other.name), "{}", run.stderr);
    }
    // A namespace in which nobody listens is one.
    for name in [&empty.name, &empty.inode.to_string()] {
        let run = some.lab.whereis(&["list", "--netns", name])?;
        ensure!(run.code == Some(1), "{name}: {:?}: {}", run.code, run.stderr);
    }
    Ok(())
}

#[test]
fn a_namespace_that_is_called_host_is_not_the_hosts() -> Test {
    lab::root_or_skip!();
    let some = some()?;
    let mounts = some.lab.mounts(&format!(
        "touch /run/other; mount --bind /run/netns/{} /run/other
         mount -t tmpfs -o mode=755 tmpfs /run/netns
         touch /run/netns/host; mount --bind /run/other /run/netns/host; umount /run/other",
        some.other.name
    ))?;
    let run = |args: &[&str]| some.lab.tool().inside(&mounts).args(args).run();
    let inode = some.other.inode;
    let asked = run(&["--json", "--no-kube", "21504/tcp"])?;
    // Other labs may have the same port.
    let netns = &asked.path_in(&some.other)?.0["netns"];
    let expected = serde_json::json!({"inode": inode, "name": "host", "is_host": false});
    ensure!(*netns == expected, "{netns}");
    let text = run(&["--no-kube", "21504/tcp"])?.stdout;
    ensure!(text.contains("in \"host\""), "{text}");
    let whole = run(&["--no-kube", "-v", "21504/tcp"])?.stdout;
    ensure!(whole.contains(&format!("netns \"host\" ({inode})")), "{whole}");
    let of_host = run(&["list", "--json", "--no-kube", "--netns", "host"])?;
    let rows = of_host.json["listeners"].as_array().context("no listeners")?;
    ensure!(rows.iter().all(|row| row["netns"]["is_host"] == true), "{}", of_host.stdout);
    let by_inode = run(&["list", "--json", "--no-kube", "--netns", &inode.to_string()])?;
    ensure!(ports(&by_inode)? == [21504], "{}", by_inode.stdout);
    Ok(())
}

#[test]
fn order_and_formats() -> Test {
    lab::root_or_skip!();
    let some = some()?;
    let pid = some.plain.pid.to_string();
    let run = |args: &[&str]| some.lab.tool().args(&["list", "--pid", &pid]).args(args).run();
    let at = |text: &str| -> anyhow::Result<Vec<usize>> {
        ["21501", "21502", "21503"]
            .iter()
            .map(|port| text.find(port).with_context(|| format!("no {port}: {text}")))
            .collect()
    };
    let rising = at(&run(&["-s", "port"])?.stdout)?;
    ensure!(rising.is_sorted(), "{rising:?}");
    let falling = at(&run(&["-s", "port:desc"])?.stdout)?;
    ensure!(falling.iter().rev().is_sorted(), "{falling:?}");

    for format in ["table", "wide", "csv"] {
        let with = run(&["-o", format])?.stdout;
        let without = run(&["-o", format, "--no-headers"])?.stdout;
        at(&with)?;
        let lines = |text: &str| text.lines().count();
        ensure!(lines(&with) == lines(&without) + 1, "{format}: {with}{without}");
        ensure!(with.contains("lab-helper"), "{format}: {with}");
    }
    let csv = run(&["-o", "csv"])?.stdout;
    let columns: Vec<usize> = csv.lines().map(|line| line.matches(',').count()).collect();
    ensure!(columns.windows(2).all(|pair| pair[0] == pair[1]), "{csv}");
    Ok(())
}

#[test]
fn lines_are_objects_and_say_what_the_document_says() -> Test {
    lab::root_or_skip!();
    let some = some()?;
    let pid = some.plain.pid.to_string();
    let run = |form: &[&str]| some.lab.tool().args(&["list", "--pid", &pid]).args(form).run();
    let document = run(&["--json"])?;
    for form in [&["--ndjson"][..], &["-o", "ndjson"]] {
        let lines: Vec<Value> = run(form)?
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
            .collect::<anyhow::Result<_>>()?;
        let of = |kind: &str| -> Vec<&Value> {
            lines.iter().filter(|line| line["type"] == kind).collect()
        };
        ensure!(of("list").len() == 1 && lines[0]["schema_version"] == 1, "{lines:?}");
        ensure!(lines.last().is_some_and(|end| end["type"] == "list_end" && end["listeners"] == 3));
        let ports: Vec<&Value> = of("listener").iter().map(|row| &row["port"]).collect();
        ensure!(ports == [21501, 21502, 21503], "{ports:?}");
        ensure!(of("listener").iter().all(|row| row["process"]["ref"] == 0), "{lines:?}");
        let [process] = of("process")[..] else { bail!("not one process: {lines:?}") };
        ensure!(process["cmdline"] == document.json["processes"][0]["cmdline"], "{process}");
    }
    Ok(())
}
