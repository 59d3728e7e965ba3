//! Packets that die on their way to a port: each cause made for real, told with the kernel's
//! reason, the rule and exact counts.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Backend, Lab, Netns, Test, Trace, programs_of, within};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

/// A host with a server's port, and another machine beside it.
struct Place {
    lab: Lab,
    outside: Netns,
    port: u16,
}

const HOST: Ipv4Addr = Ipv4Addr::new(10, 217, 0, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 217, 0, 2);

impl Place {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let outside = lab.netns("outside")?;
        lab.veth((lab.host(), "v0", "10.217.0.1/24"), (&outside, "v1", "10.217.0.2/24"))?;
        let port = lab::unused_port()?;
        Ok(Self { lab, outside, port })
    }

    /// Watches the port.
    fn trace(&self) -> Result<Trace> {
        let port = self.port.to_string();
        let trace = Trace::start(self.lab.tool(), &["--json", "-e", "drop", &port])?;
        let gaps = trace.start["gaps"].as_array().context("no gaps")?;
        let is_port = |gap: &&Value| gap["impact"] == "port";
        ensure!(!gaps.iter().any(|gap| is_port(&gap)), "{}", trace.start);
        Ok(trace)
    }

    fn at(&self) -> SocketAddr {
        (HOST, self.port).into()
    }

    /// Sends datagrams from outside.
    fn send(&self, count: usize) -> Test {
        within(&self.outside, || {
            let socket = UdpSocket::bind((OUTSIDE, 0))?;
            for _ in 0..count {
                // An error that came back for the one before is told here.
                if socket.send_to(b"x", self.at()).is_err() {
                    socket.send_to(b"x", self.at())?;
                }
            }
            Ok(())
        })
    }

    /// Sends a packet as it is, from its IP header on.
    fn send_raw(&self, to: Ipv4Addr, packet: &[u8]) -> Test {
        within(&self.outside, || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
            let to = SocketAddr::from((to, 0)).into();
            ensure!(socket.send_to(packet, &to)? == packet.len());
            Ok(())
        })
    }

    /// The drops of this lab that the trace told of, one for each cause: the last one, with all counts.
    fn told(&self, trace: Trace) -> Result<Vec<Value>> {
        let (events, summary) = trace.interrupt()?;
        ensure!(summary["lost"] == 0, "{summary}");
        let inodes = self.lab.inodes();
        let mut last: Vec<Value> = Vec::new();
        for event in events {
            ensure!(event["kind"] == "drop", "{event}");
            if !event["netns"]["inode"].as_u64().is_some_and(|inode| inodes.contains(&inode)) {
                continue;
            }
            let key = |event: &Value| {
                let drop = &event["drop"];
                ["fate", "reason", "flags", "source"].map(|key| drop[key].clone())
            };
            last.retain(|known| key(known) != key(&event));
            last.push(event);
        }
        Ok(last)
    }
}

/// The only drop with this fate and reason.
fn one<'a>(told: &'a [Value], fate: &str, reason: &str) -> Result<&'a Value> {
    let is_it = |e: &&Value| e["drop"]["fate"] == fate && e["drop"]["reason"] == reason;
    let mut found = told.iter().filter(is_it);
    let one = found.next().with_context(|| format!("no {fate} {reason} in {told:#?}"))?;
    ensure!(found.next().is_none(), "several {fate} {reason} in {told:#?}");
    Ok(one)
}

/// Whether the kernel gives reasons; before Linux 5.17 it does not.
fn has_reasons(trace: &Trace) -> bool {
    !trace.start["gaps"].to_string().contains("gives no reason")
}

/// Leaves a test on a kernel that can't give what it is about.
macro_rules! reasons_or_skip {
    ($trace:expr) => {
        if !has_reasons(&$trace) {
            lab::skip_on_this_kernel("the kernel gives no reasons for drops");
            return Ok(());
        }
    };
}

/// An IPv4 packet; the kernel fills in the header's checksum.
fn packet(from: Ipv4Addr, to: Ipv4Addr, ttl: u8, protocol: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + body.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, ttl, protocol, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(body);
    packet
}

/// A datagram without a checksum.
fn datagram(port: u16) -> Vec<u8> {
    [&4000_u16.to_be_bytes()[..], &port.to_be_bytes(), &9_u16.to_be_bytes(), &[0, 0], b"x"].concat()
}

#[test]
fn a_rule_of_nftables_is_named_and_its_drops_are_counted() -> Test {
    lab::rules_or_skip!();
    let place = Place::new()?;
    place.lab.nft(
        place.lab.host(),
        &format!(
            "table inet filter {{\n chain input {{\n  type filter hook input priority 0\n\
             \n  tcp dport 1 accept\n  th dport {} drop\n }}\n}}\n",
            place.port
        ),
    )?;
    let trace = place.trace()?;
    reasons_or_skip!(trace);
    place.send(25)?;
    let landing = place.outside.connect("tcp", place.at())?;
    ensure!(landing == lab::Landing::TimedOut, "{landing:?}");
    let told = place.told(trace)?;
    let udp = told.iter().find(|e| e["proto"] == "udp").context("no UDP")?;
    ensure!(udp["drop"]["reason"] == "NETFILTER_DROP", "{udp}");
    ensure!(udp["drop"]["total"] == 25 && udp["drop"]["estimated"] == false, "{udp}");
    ensure!(udp["address"] == "10.217.0.1" && udp["port"] == place.port, "{udp}");
    ensure!(udp["netns"]["inode"] == place.lab.host().inode, "{udp}");
    ensure!(udp["drop"]["device"] == "v0" && udp["drop"]["came_in"] == true, "{udp}");
    ensure!(udp["drop"]["source"] == "10.217.0.2", "{udp}");
    ensure!(udp["actor"].is_null() && udp["process"].is_null(), "{udp}");
    let tcp = told.iter().find(|e| e["proto"] == "tcp").context("no TCP")?;
    ensure!(tcp["drop"]["flags"] == serde_json::json!(["SYN"]), "{tcp}");
    for event in [udp, tcp] {
        let rule = event["drop"]["rule"].as_str().with_context(|| event.to_string())?;
        ensure!(rule.contains("dropped by") && rule.contains("inet filter"), "{rule}");
        ensure!(rule.contains("input") && rule.contains(&place.port.to_string()), "{rule}");
    }
    Ok(())
}

#[test]
fn a_rule_of_iptables_is_named() -> Test {
    lab::rules_or_skip!();
    for backend in Backend::ALL {
        let place = Place::new()?;
        let rules = format!("*filter\n-A INPUT -p udp --dport {} -j DROP\nCOMMIT\n", place.port);
        place.lab.iptables(place.lab.host(), backend, &rules)?;
        let trace = place.trace()?;
        reasons_or_skip!(trace);
        place.send(3)?;
        let told = place.told(trace)?;
        let drop = &one(&told, "dropped", "NETFILTER_DROP")?["drop"];
        ensure!(drop["total"] == 3, "{drop}");
        let rule = drop["rule"].as_str().with_context(|| drop.to_string())?;
        ensure!(rule.contains("INPUT") && rule.contains("→ drop"), "{}: {rule}", backend.name());
    }
    Ok(())
}

#[test]
fn a_port_that_was_translated_is_found_by_either_number() -> Test {
    lab::rules_or_skip!();
    let place = Place::new()?;
    let behind = lab::unused_port()?;
    place.lab.nft(
        place.lab.host(),
        &format!(
            "table ip t {{\n chain nat {{\n  type nat hook prerouting priority -100\n\
             \n  udp dport {} redirect to :{behind}\n }}\n chain input {{\n\
             \n  type filter hook input priority 0\n  udp dport {behind} drop\n }}\n}}\n",
            place.port
        ),
    )?;
    let trace = place.trace()?;
    reasons_or_skip!(trace);
    place.send(4)?;
    let told = place.told(trace)?;
    let event = one(&told, "dropped", "NETFILTER_DROP")?;
    ensure!(event["port"] == behind && event["drop"]["total"] == 4, "{event}");
    let original = &event["drop"]["original"];
    ensure!(original["address"] == "10.217.0.1" && original["port"] == place.port, "{event}");
    let rule = event["drop"]["rule"].as_str().with_context(|| event.to_string())?;
    ensure!(rule.contains(&behind.to_string()), "{rule}");
    Ok(())
}

#[test]
fn who_is_refused_is_told_so() -> Test {
    lab::root_or_skip!();
    let place = Place::new()?;
    let trace = place.trace()?;
    reasons_or_skip!(trace);
    let is_missing = |what: &str| trace.start["gaps"].to_string().contains(what);
    let (resets, errors) = (!is_missing("resets that are"), !is_missing("ICMP errors that are"));
    let landing = place.outside.connect("tcp", place.at())?;
    ensure!(landing == lab::Landing::Refused, "{landing:?}");
    place.send(1)?;
    let told = place.told(trace)?;
    let no_socket = |proto: &str| {
        let is_it = |e: &&Value| {
            e["proto"] == proto
                && e["drop"]["fate"] == "dropped"
                && e["drop"]["reason"] == "NO_SOCKET"
        };
        told.iter().find(is_it).with_context(|| format!("{proto}: {told:#?}"))
    };
    ensure!(no_socket("tcp")?["drop"]["flags"][0] == "SYN");
    ensure!(no_socket("udp")?["drop"]["rule"].is_null());
    // Before Linux 6.10 only resets of sockets were told of, and before 6.11 no errors.
    let reset =
        told.iter().any(|e| e["drop"]["fate"] == "reset" && e["drop"]["reason"] == "NO_SOCKET");
    ensure!(reset || !resets || lab::is_other_kernel(), "{told:#?}");
    if errors {
        one(&told, "icmp", "ICMP port unreachable")?;
    }
    Ok(())
}

#[test]
fn ipv6_is_told_as_well() -> Test {
    lab::root_or_skip!();
    let place = Place::new()?;
    let trace = place.trace()?;
    reasons_or_skip!(trace);
    let to = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, place.port));
    let landing = place.lab.host().connect("tcp", to)?;
    ensure!(landing == lab::Landing::Refused, "{landing:?}");
    let told = place.told(trace)?;
    let event = one(&told, "dropped", "NO_SOCKET")?;
    ensure!(event["address"] == "::1" && event["port"] == place.port, "{event}");
    ensure!(event["drop"]["source"] == "::1" && event["drop"]["device"] == "lo", "{event}");
    ensure!(event["drop"]["total"] == 1 && event["drop"]["flags"][0] == "SYN", "{event}");
    Ok(())
}

#[test]
fn the_reverse_path_filter_is_named() -> Test {
    lab::root_or_skip!();
    let place = Place::new()?;
    place.lab.host().sysctl("ipv4/conf/all/rp_filter", "1")?;
    let trace = place.trace()?;
    reasons_or_skip!(trace);
    let from = Ipv4Addr::new(10, 218, 0, 9);
    place.send_raw(HOST, &packet(from, HOST, 64, 17, &datagram(place.port)))?;
    let told = place.told(trace)?;
    // Linux 6.1 has no reason for it yet.
    let reason =
        if lab::is_other_kernel() && told.is_empty() { return Ok(()) } else { "IP_RPFILTER" };
    let event = one(&told, "dropped", reason)?;
    ensure!(event["drop"]["source"] == "10.218.0.9" && event["drop"]["total"] == 1, "{event}");
    ensure!(event["drop"]["rule"].as_str().is_some_and(|r| r.contains("reverse path")), "{event}");
    Ok(())
}

#[test]
fn a_checksum_and_a_time_to_live_that_are_wrong_are_told() -> Test {
    lab::root_or_skip!();
    let place = Place::new()?;
    let behind = place.lab.netns("behind")?;
    place.lab.veth((place.lab.host(), "w0", "10.219.0.1/24"), (&behind, "w1", "10.219.0.2/24"))?;
    place.lab.host().sysctl("ipv4/ip_forward", "1")?;
    place.outside.ip(&["route", "add", "10.219.0.0/24", "via", "10.217.0.1"])?;
    let trace = place.trace()?;
    reasons_or_skip!(trace);
    let to = Ipv4Addr::new(10, 219, 0, 2);
    place.send_raw(to, &packet(OUTSIDE, to, 1, 17, &datagram(place.port)))?;
    // A SYN with a checksum that is none.
    let ports = [4000_u16.to_be_bytes(), place.port.to_be_bytes()].concat();
    let syn = [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 16, 0, 0xde, 0xad, 0, 0]].concat();
    place.send_raw(HOST, &packet(OUTSIDE, HOST, 64, 6, &syn))?;
    let told = place.told(trace)?;
    let expired = told.iter().filter(|e| e["proto"] == "udp").collect::<Vec<_>>();
    ensure!(expired.iter().any(|e| e["drop"]["fate"] == "dropped"), "{told:#?}");
    let wrong = told.iter().find(|e| e["proto"] == "tcp").context("no SYN")?;
    ensure!(wrong["drop"]["reason"] == "TCP_CSUM" && wrong["drop"]["total"] == 1, "{wrong}");
    if !lab::is_other_kernel() {
        one(&told, "icmp", "ICMP time exceeded in transit")?;
        one(&told, "dropped", "IP_INHDR")?;
    }
    Ok(())
}

#[test]
fn who_finds_the_accept_queue_full_is_counted() -> Test {
    lab::root_or_skip!();
    let place = Place::new()?;
    let new = |flags| {
        let flags = SocketFlags::CLOEXEC | flags;
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
    };
    let listener: OwnedFd = within(place.lab.host(), || {
        let listener = new(SocketFlags::empty())?;
        rustix::net::bind(&listener, &place.at())?;
        rustix::net::listen(&listener, 1)?;
        Ok(listener)
    })?;
    // The kernel lets in one more than the limit.
    let mut clients = Vec::new();
    within(&place.outside, || {
        for _ in 0..2 {
            let client = new(SocketFlags::empty())?;
            rustix::net::connect(&client, &place.at())?;
            clients.push(client);
        }
        Ok(())
    })?;
    let mut trace = place.trace()?;
    within(&place.outside, || {
        for _ in 0..3 {
            let client = new(SocketFlags::NONBLOCK)?;
            let pending = rustix::net::connect(&client, &place.at());
            ensure!(pending == Err(rustix::io::Errno::INPROGRESS), "{pending:?}");
            clients.push(client);
        }
        Ok(())
    })?;
    let event = loop {
        let line = trace.line()?;
        if line["drop"]["fate"] == "queue_full" {
            break line;
        }
    };
    ensure!(event["port"] == place.port && event["address"] == "10.217.0.1", "{event}");
    ensure!(event["drop"]["total"].as_u64() >= Some(3), "{event}");
    ensure!(event["netns"]["inode"] == place.lab.host().inode, "{event}");
    drop((listener, clients));
    Ok(())
}

#[test]
fn the_line_says_it_in_words() -> Test {
    lab::rules_or_skip!();
    let place = Place::new()?;
    let rules = format!(
        "table inet t {{\n chain c {{\n  type filter hook input priority 0\n  udp dport {} drop\n }}\n}}\n",
        place.port
    );
    place.lab.nft(place.lab.host(), &rules)?;
    let mut trace =
        Trace::start(place.lab.tool(), &["-e", "drop", "-n", "1", &place.port.to_string()])?;
    place.send(1)?;
    let line = trace.text()?;
    let at = format!("10.217.0.1:{}", place.port);
    for word in ["drop", "udp", &at, "10.217.0.2", "1 packet", "dropped", "v0"] {
        ensure!(line.contains(word), "no {word:?} in {line}");
    }
    if !trace.stderr().contains("gives no reason") {
        ensure!(line.contains("NETFILTER_DROP") && line.contains("inet t"), "{line}");
    }
    Ok(())
}

#[test]
fn a_question_that_watches_says_how_many_died() -> Test {
    lab::rules_or_skip!();
    let place = Place::new()?;
    let rules = format!(
        "table inet t {{\n chain c {{\n  type filter hook input priority 0\n  tcp dport {} drop\n }}\n}}\n",
        place.port
    );
    place.lab.nft(place.lab.host(), &rules)?;
    let _server = place.lab.listen(place.lab.host(), &format!("tcp 0.0.0.0:{}", place.port))?;
    let question = place.port.to_string();
    let tool = place.lab.tool().args(&["--json", &question, "--watch", "3s"]);
    let mut command = tool.command()?;
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let begun = std::time::Instant::now();
    // TCP's events, and three for what is dropped.
    while programs_of(child.id())?.len() < 3 {
        ensure!(begun.elapsed() < Duration::from_secs(30), "nothing is watched");
        std::thread::sleep(Duration::from_millis(5));
    }
    let landing = place.outside.connect("tcp", place.at())?;
    ensure!(landing == lab::Landing::TimedOut, "{landing:?}");
    let output = child.wait_with_output()?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let findings = answer["answers"][0]["findings"].as_array().context("no findings")?;
    let found = findings.iter().find(|finding| finding["code"] == "packets_dropped");
    let found = found.with_context(|| answer.to_string())?;
    let what = found["what"].as_str().context("no words")?;
    for word in ["SYN", "arrived", "dropped by", "inet t", "no connection was accepted"] {
        ensure!(what.contains(word), "no {word:?} in {what}");
    }
    Ok(())
}

#[test]
fn nothing_is_loaded_for_it_unless_it_is_asked_for() -> Test {
    lab::root_or_skip!();
    let place = Place::new()?;
    let usual =
        Trace::start(place.lab.tool(), &["--json", "-e", "listen", &place.port.to_string()])?;
    let asked = place.trace()?;
    let (usual, asked) = (programs_of(usual.pid())?.len(), programs_of(asked.pid())?.len());
    ensure!(usual == 1 && asked >= 1, "{usual} {asked}");
    Ok(())
}
