//! What has a port on which nothing listens, so that nobody can be bound to it.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Netns, Run, Test, within};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde_json::Value;

/// The only holder of an answer in which nothing was found, in a namespace.
fn held<'a>(run: &'a Run, netns: &Netns) -> Result<&'a Value> {
    let answer = run.answer()?;
    let nothing = answer["verdict"] != "found" && matches!(run.code, Some(1 | 3));
    ensure!(nothing, "exit {:?}: {}{}", run.code, run.stdout, run.stderr);
    let all = answer["held"].as_array().context("nothing held")?;
    let here: Vec<&Value> = all.iter().filter(|h| h["netns"]["inode"] == netns.inode).collect();
    ensure!(here.len() == 1, "not one holder: {}{}", run.stdout, run.stderr);
    Ok(here[0])
}

/// Whether a server can be bound there, as the kernel says.
fn can_bind(netns: &Netns, address: &str) -> Result<bool> {
    within(netns, || Ok(bound(address, false).is_ok()))
}

/// A TCP socket that is bound, with or without SO_REUSEADDR, and nothing else.
fn bound(address: &str, reuse: bool) -> Result<std::os::fd::OwnedFd> {
    let address: std::net::SocketAddr = address.parse()?;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, reuse)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

#[test]
fn an_outgoing_connection_has_its_own_port() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _server = lab.listen(lab.host(), "tcp 127.0.0.1:21444")?;
    let client = within(lab.host(), || {
        let socket = bound("127.0.0.1:23344", false)?;
        rustix::net::connect(&socket, &"127.0.0.1:21444".parse::<std::net::SocketAddr>()?)?;
        Ok(socket)
    })?;
    ensure!(!can_bind(lab.host(), "0.0.0.0:23344")?);
    let run = lab.whereis(&["23344/tcp"])?;
    let held = held(&run, lab.host())?;
    ensure!(held["role"] == "outgoing" && held["state"] == "established", "{held}");
    ensure!(held["peer"] == "127.0.0.1:21444" && held["blocks_bind"] == true, "{held}");
    ensure!(held["end"]["process"]["pid"] == std::process::id(), "{held}");
    ensure!(held["fix"]["commands"][0][0] == "kill", "{held}");
    ensure!(held["ephemeral"] == false, "{held}");
    let text = lab.tool().arg("23344/tcp").run()?;
    let says = |words: &str| text.stdout.contains(words);
    ensure!(says("for its connection to 127.0.0.1:21444"), "{}", text.stdout);
    ensure!(says("a bind there fails") && !says("all that could hold it"), "{}", text.stdout);
    // A plain user is told of the socket, and that it is not known whose it is.
    let run = lab.tool().args(&["--json", "23344/tcp"]).uid(65534).run()?;
    let theirs = self::held(&run, lab.host())?;
    ensure!(theirs["role"] == "outgoing" && theirs["end"]["process"].is_null(), "{theirs}");
    drop(client);
    Ok(())
}

#[test]
fn surely_nothing_is_said_where_a_bind_works() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    ensure!(can_bind(lab.host(), "0.0.0.0:23343")?);
    let run = lab.tool().arg("23343/tcp").run()?;
    let sure = run.code == Some(1) && run.stdout.contains("all that could hold it was readable");
    ensure!(sure || lab::is_other_kernel(), "{:?}: {}", run.code, run.stdout);
    Ok(())
}

#[test]
fn a_port_that_the_kernel_gave_out_is_said_to_be_one() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _server = lab.listen(lab.host(), "tcp 127.0.0.1:21444")?;
    let client = within(lab.host(), || Ok(TcpStream::connect("127.0.0.1:21444")?))?;
    let port = client.local_addr()?.port();
    let run = lab.whereis(&[&format!("{port}/tcp")])?;
    let held = held(&run, lab.host())?;
    ensure!(held["role"] == "outgoing" && held["ephemeral"] == true, "{held}");
    let reserve = format!("net.ipv4.ip_local_reserved_ports={port}");
    ensure!(held["fix"]["commands"][1][2] == reserve.as_str(), "{held}");
    Ok(())
}

#[test]
fn what_a_closed_listener_accepted_is_still_there() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let (client, mut served) = within(lab.host(), || {
        let listener = TcpListener::bind("0.0.0.0:23380")?;
        let client = TcpStream::connect("127.0.0.1:23380")?;
        Ok((client, listener.accept()?.0))
    })?;
    ensure!(!can_bind(lab.host(), "0.0.0.0:23380")?);
    let run = lab.whereis(&["23380/tcp"])?;
    let is = held(&run, lab.host())?;
    ensure!(is["role"] == "likely_accepted" && is["state"] == "established", "{is}");
    ensure!(is["end"]["process"]["pid"] == std::process::id(), "{is}");
    // The client goes, the process does not notice: CLOSE_WAIT.
    drop(client);
    served.read_to_end(&mut Vec::new())?;
    let run = lab.whereis(&["23380/tcp"])?;
    ensure!(held(&run, lab.host())?["state"] == "close_wait", "{}", run.stdout);
    Ok(())
}

#[test]
fn what_the_kernel_alone_remembers_is_told_with_its_time() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    within(lab.host(), || {
        let listener = TcpListener::bind("127.0.0.1:23381")?;
        let mut client = TcpStream::connect("127.0.0.1:23381")?;
        let served = listener.accept()?.0;
        // Whoever closes first has to remember.
        drop(served);
        client.read_to_end(&mut Vec::new())?;
        Ok(())
    })?;
    ensure!(!can_bind(lab.host(), "127.0.0.1:23381")?);
    let run = lab.whereis(&["23381/tcp"])?;
    let held = held(&run, lab.host())?;
    ensure!(held["role"] == "time_wait" && held["inode"] == 0, "{held}");
    let ms = held["expires_ms"].as_u64().context("no time")?;
    ensure!(ms > 0 && ms <= 60_000, "{held}");
    ensure!(held["end"]["ending"] == "kernel", "{held}");
    let text = lab.tool().arg("23381/tcp").run()?;
    ensure!(text.stdout.contains("without SO_REUSEADDR"), "{}", text.stdout);
    ensure!(within(lab.host(), || Ok(bound("127.0.0.1:23381", true).is_ok()))?);
    Ok(())
}

#[test]
fn a_socket_that_is_merely_bound_keeps_others_away() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _bound = within(lab.host(), || bound("0.0.0.0:23382", false))?;
    ensure!(!can_bind(lab.host(), "127.0.0.1:23382")?);
    let run = lab.whereis(&["23382/tcp"])?;
    if lab::is_other_kernel() && run.answer()?["held"] == serde_json::json!([]) {
        // Before Linux 6.8 nothing tells of it but the iterator: that is said.
        ensure!(run.gaps().iter().any(|gap| gap["impact"] == "bind"), "{}", run.stdout);
        let text = lab.tool().arg("23382/tcp").run()?;
        ensure!(!text.stdout.contains("all that could hold it"), "{}", text.stdout);
        return Ok(());
    }
    let held = held(&run, lab.host())?;
    ensure!(held["role"] == "bound" && held["blocks_bind"] == true, "{held}");
    ensure!(held["end"]["process"]["pid"] == std::process::id(), "{held}");
    Ok(())
}

#[test]
fn udp_with_a_peer_has_its_port_as_well() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _udp = within(lab.host(), || {
        let udp = UdpSocket::bind("127.0.0.1:23383")?;
        udp.connect("127.0.0.1:9")?;
        Ok(udp)
    })?;
    let run = lab.whereis(&["23383"])?;
    let held = held(&run, lab.host())?;
    ensure!(held["role"] == "connected_udp" && held["peer"] == "127.0.0.1:9", "{held}");
    ensure!(run.answer()?["query"]["proto"].is_null() && held["proto"] == "udp", "{held}");
    Ok(())
}

#[test]
fn a_listener_at_one_address_is_in_the_way_of_all_addresses() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let listener = lab.listen(lab.host(), "tcp 127.0.0.2:23384")?;
    for all in ["0.0.0.0:23384/tcp", "[::]:23384/tcp"] {
        let run = lab.whereis(&[all])?;
        let held = held(&run, lab.host())?;
        ensure!(held["role"] == "listener" && held["address"] == "127.0.0.2", "{held}");
        ensure!(held["end"]["process"]["pid"] == listener.pid, "{held}");
    }
    let run = lab.whereis(&["127.0.0.1:23384/tcp"])?;
    ensure!(run.answer()?["held"] == serde_json::json!([]), "{}", run.stdout);
    ensure!(can_bind(lab.host(), "127.0.0.1:23384")?);
    Ok(())
}

#[test]
fn other_namespaces_are_looked_into_when_nothing_listens() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let inner = lab.netns("inner")?;
    let _udp = within(&inner, || {
        let udp = UdpSocket::bind("127.0.0.1:23385")?;
        udp.connect("127.0.0.1:9")?;
        Ok(udp)
    })?;
    let run = lab.whereis(&["23385/udp"])?;
    let held = held(&run, &inner)?;
    ensure!(held["netns"]["name"] == inner.name.as_str(), "{held}");
    let text = lab.tool().arg("23385/udp").run()?;
    ensure!(
        text.stdout.contains(&format!("it is taken in netns {}", inner.name)),
        "{}",
        text.stdout
    );
    Ok(())
}

#[test]
fn a_recording_has_what_holds_a_port() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    lab.lan(&[(lab.host(), &["192.0.2.77/24"])])?;
    let _bound = within(lab.host(), || {
        let udp = UdpSocket::bind("192.0.2.77:23386")?;
        udp.connect("192.0.2.78:9")?;
        Ok(udp)
    })?;
    let file = lab.dir().join("held.json");
    let path = file.to_str().context("path")?;
    let live = lab.whereis(&["23386", "--record", path])?;
    let replayed = lab.whereis(&["23386", "--replay", path])?;
    ensure!(live.answer()? == replayed.answer()?, "{}\n{}", live.stdout, replayed.stdout);
    ensure!(held(&live, lab.host())?["peer"] == "192.0.2.78:9", "{}", live.stdout);
    // A recorded list answers the same question later.
    let listed = lab.dir().join("list.json");
    let listed = listed.to_str().context("path")?;
    lab.whereis(&["list", "--record", listed, "--redact"])?;
    let text = std::fs::read_to_string(listed)?;
    ensure!(!text.contains("192.0.2.7"), "an address is left in it");
    let replayed = lab.whereis(&["23386", "--replay", listed])?;
    let all = replayed.answer()?["held"].as_array().context("nothing held")?;
    let ours = all.iter().find(|h| h["netns"]["inode"] == lab.host().inode).context("not there")?;
    ensure!(ours["role"] == "connected_udp" && ours["peer"] != "192.0.2.78:9", "{ours}");
    ensure!(ours["end"]["process"]["pid"] == std::process::id(), "{ours}");
    Ok(())
}
