//! UNIX sockets, and others without a port.

use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Run, Test, within};
use serde_json::Value;

/// The only answer of a run.
fn answer(run: &Run) -> Result<&Value> {
    run.json["unix"].get(0).with_context(|| format!("{}{}", run.stdout, run.stderr))
}

fn verdict(run: &Run) -> Result<(&str, Option<i32>)> {
    Ok((answer(run)?["verdict"].as_str().context("no verdict")?, run.code))
}

#[test]
fn who_listens_at_a_path_is_told_with_its_clients() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let path = lab.dir().join("web.sock");
    let name = path.to_str().context("path")?;
    let listener = UnixListener::bind(&path)?;
    let _clients = [UnixStream::connect(&path)?, UnixStream::connect(&path)?];
    let _served = [listener.accept()?.0, listener.accept()?.0];
    let _waiting = UnixStream::connect(&path)?;
    let run = lab.whereis(&[name])?;
    ensure!(verdict(&run)? == ("found", Some(0)), "{}", run.stdout);
    let found = &answer(&run)?["listeners"][0];
    ensure!(found["kind"] == "unix_stream" && found["path"] == name, "{found}");
    ensure!(found["end"]["process"]["pid"] == std::process::id(), "{found}");
    ensure!(found["accept_queue"] == 1, "{found}");
    let client = &found["clients"][0];
    ensure!(client["pid"] == std::process::id() && client["connections"] == 2, "{client}");
    let text = lab.tool().arg(&format!("unix://{name}")).run()?.stdout;
    ensure!(
        text.starts_with(&format!("{name} stream")) && text.contains("2 connections"),
        "{text}"
    );
    // By a link it is the same socket.
    let link = lab.dir().join("link.sock");
    std::os::unix::fs::symlink(&path, &link)?;
    let run = lab.whereis(&[link.to_str().context("path")?])?;
    ensure!(verdict(&run)? == ("found", Some(0)), "{}", run.stdout);
    // A recording tells the same, and a redacted one no name.
    let file = lab.dir().join("unix.json");
    let file = file.to_str().context("path")?;
    let live = lab.whereis(&[name, "--record", file])?;
    ensure!(answer(&live)? == answer(&lab.whereis(&[name, "--replay", file])?)?);
    lab.whereis(&[name, "--record", file, "--redact"])?;
    ensure!(!std::fs::read_to_string(file)?.contains("web.sock"), "a name is left in it");
    // Once it is closed, the file is left over.
    drop(listener);
    let run = lab.whereis(&[name])?;
    let answer = answer(&run)?;
    ensure!(answer["file"] == "socket" && answer["listeners"] == serde_json::json!([]), "{answer}");
    let sure = answer["verdict"] == "not_found" && answer["stale"] == true;
    ensure!(sure || lab::is_other_kernel(), "{answer}");
    Ok(())
}

#[test]
fn another_file_of_the_same_name_is_not_it() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let path = lab.dir().join("twice.sock");
    let name = path.to_str().context("path")?;
    let _first = UnixListener::bind(&path)?;
    std::fs::remove_file(&path)?;
    let second = UnixListener::bind(&path)?;
    let run = lab.whereis(&[name])?;
    let found = answer(&run)?;
    ensure!(found["listeners"].as_array().is_some_and(|all| all.len() == 1), "{found}");
    ensure!(found["elsewhere"] == 1, "{found}");
    drop(second);
    let run = lab.whereis(&[name])?;
    ensure!(verdict(&run)?.0 != "found" && answer(&run)?["elsewhere"] == 1, "{}", run.stdout);
    let text = lab.tool().arg(name).run()?.stdout;
    ensure!(text.contains("was removed or replaced"), "{text}");
    // What is no socket, and what is not there.
    let plain = lab.dir().join("plain");
    std::fs::write(&plain, "")?;
    let run = lab.whereis(&[plain.to_str().context("path")?])?;
    ensure!(
        answer(&run)?["file"] == "no_socket" && answer(&run)?["stale"] == false,
        "{}",
        run.stdout
    );
    let run = lab.whereis(&["/nosuch/x.sock"])?;
    ensure!(answer(&run)?["file"] == "missing", "{}", run.stdout);
    Ok(())
}

#[test]
fn other_kinds_and_abstract_names_are_told() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let inner = lab.netns("inner")?;
    let name = format!("{}/abstract", lab.name());
    let _abstract = within(&inner, || {
        use std::os::linux::net::SocketAddrExt as _;
        let at = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
        Ok(UnixListener::bind_addr(&at)?)
    })?;
    let run = lab.whereis(&[&format!("@{name}")])?;
    ensure!(verdict(&run)?.0 == "found", "{}", run.stdout);
    let found = &answer(&run)?["listeners"][0];
    ensure!(found["netns"]["inode"] == inner.inode, "{found}");
    ensure!(found["abstract_name"] == name.as_str() && answer(&run)?["file"].is_null(), "{found}");
    let log = lab.dir().join("log.sock");
    let _log = UnixDatagram::bind(&log)?;
    let run = lab.whereis(&[log.to_str().context("path")?])?;
    ensure!(answer(&run)?["listeners"][0]["kind"] == "unix_datagram", "{}", run.stdout);
    let packets = lab.dir().join("seq.sock");
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let family = rustix::net::AddressFamily::UNIX;
    let seq = rustix::net::socket_with(family, rustix::net::SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&seq, &rustix::net::SocketAddrUnix::new(&packets)?)?;
    rustix::net::listen(&seq, 7)?;
    let run = lab.whereis(&[packets.to_str().context("path")?])?;
    let found = &answer(&run)?["listeners"][0];
    ensure!(found["kind"] == "unix_seqpacket" && found["accept_queue_limit"] == 7, "{found}");
    // All of them are in the list, which has none without being asked for them.
    let run = lab.whereis(&["list", "-x"])?;
    let all = run.json["sockets"].as_array().context("no list")?;
    for path in [&log, &packets] {
        ensure!(all.iter().any(|one| one["path"] == path.to_str().unwrap_or_default()), "{path:?}");
    }
    let table = lab.tool().args(&["list", "-x"]).run()?.stdout;
    ensure!(table.contains("seqpacket") && table.contains("seq.sock"), "{table}");
    ensure!(!lab.tool().arg("list").run()?.stdout.contains("seq.sock"));
    Ok(())
}

#[test]
fn who_sees_all_packets_is_in_the_list_of_all_sockets() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _raw = lab.listen(lab.host(), "tcp 127.0.0.1:28150 --raw")?;
    let run = lab.whereis(&["list", "--all-sockets"])?;
    let all = run.json["sockets"].as_array().context("no list")?;
    let here = |one: &&Value| one["netns"]["inode"] == lab.host().inode;
    let raw = all.iter().filter(here).find(|one| one["kind"] == "raw").context("no raw socket")?;
    ensure!(raw["ip_protocol"] == 17 && raw["end"]["process"]["pid"].is_u64(), "{raw}");
    ensure!(raw["text"] == "every packet of UDP", "{raw}");
    // Not among UNIX sockets.
    let run = lab.whereis(&["list", "-x"])?;
    let all = run.json["sockets"].as_array().context("no list")?;
    ensure!(!all.iter().any(|one| one["kind"] == "raw"), "{}", run.stdout);
    Ok(())
}

#[test]
fn paths_and_ports_are_asked_for_apart() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    for args in [&["/run/x.sock", "80"][..], &["/run/x.sock", "--tls"], &["./x.sock"]] {
        let run = lab.tool().args(args).run()?;
        ensure!(run.code == Some(2), "{args:?}: {}{}", run.stdout, run.stderr);
    }
    let run = lab.tool().args(&["list", "-x", "-o", "csv"]).run()?;
    ensure!(run.code == Some(2), "{}", run.stderr);
    Ok(())
}
