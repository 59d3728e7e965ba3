//! Where nothing listens, but something listens beside it: at another address, or on another port.

use std::net::{TcpStream, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Netns, Run, Test, within};
use serde_json::Value;

/// What is noticed, if it has this code.
fn noticed<'a>(run: &'a Run, code: &str) -> Result<&'a Value> {
    let findings = run.answer()?["findings"].as_array().context("no findings")?;
    findings
        .iter()
        .find(|finding| finding["code"] == code)
        .with_context(|| format!("{code} was not noticed: {}{}", run.stdout, run.stderr))
}

/// Whether nothing is noticed of this kind at all.
fn nothing_noticed(run: &Run) -> Test {
    let findings = run.answer()?["findings"].as_array().context("no findings")?;
    let is_such = |f: &&Value| f["code"] == "other_address" || f["code"] == "other_port";
    ensure!(!findings.iter().any(|f| is_such(&f)), "{}", run.stdout);
    Ok(())
}

/// A host with a container beside it, at 10.88.0.2.
fn container(lab: &Lab) -> Result<Netns> {
    let inner = lab.netns("inner")?;
    lab.veth((lab.host(), "toinner", "10.88.0.1/24"), (&inner, "eth0", "10.88.0.2/24"))?;
    Ok(inner)
}

/// Rules that send a port of the host to one of the container.
fn publish(lab: &Lab, port: u16, inner: u16) -> Test {
    lab.nft(
        lab.host(),
        &format!(
            "table ip t {{
                chain out {{ type nat hook output priority -100; tcp dport {port} dnat to 10.88.0.2:{inner}; }}
                chain pre {{ type nat hook prerouting priority -100; tcp dport {port} dnat to 10.88.0.2:{inner}; }}
            }}"
        ),
    )
}

#[test]
fn a_server_on_the_loopback_of_its_container_is_named() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let inner = container(&lab)?;
    publish(&lab, 28100, 9000)?;
    let server = lab.listen_like(&inner, "tcp 127.0.0.1:9000", &["app"])?;
    ensure!(within(lab.host(), || Ok(TcpStream::connect("10.88.0.1:28100").is_err()))?);
    let run = lab.whereis(&["28100/tcp"])?;
    let finding = noticed(&run, "other_address")?;
    let what = finding["what"].as_str().context("no words")?;
    ensure!(
        what.contains(&format!("app, pid {}, listens on 127.0.0.1:9000 only", server.pid)),
        "{what}"
    );
    ensure!(finding["fix"]["kind"] == "bind", "{finding}");
    let text = lab.tool().arg("28100/tcp").run()?.stdout;
    ensure!(text.contains("let it listen on 0.0.0.0, or on 10.88.0.2"), "{text}");
    // Once it listens there, all is well.
    let _right = lab.listen(&inner, "tcp 10.88.0.2:9000")?;
    nothing_noticed(&lab.whereis(&["28100/tcp"])?)
}

#[test]
fn a_forwarder_to_the_wrong_address_is_told_what_would_help() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let inner = container(&lab)?;
    let _server = lab.listen(&inner, "tcp 127.0.0.1:9000")?;
    let argv = ["socat", "TCP-LISTEN:28101,fork", "TCP:10.88.0.2:9000"];
    let _socat = lab.listen_like(lab.host(), "tcp 0.0.0.0:28101", &argv)?;
    let run = lab.whereis(&["28101/tcp"])?;
    noticed(&run, "other_address")?;
    let reach = run.answer()?["reachable"].as_array().context("no statement")?;
    let shut = reach.iter().find(|r| r["from"] == "loopback").context("no loopback")?;
    ensure!(shut["reachable"] == false && shut["fix"]["kind"] == "bind", "{shut}");
    Ok(())
}

#[test]
fn of_an_address_the_others_are_told() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let inner = container(&lab)?;
    let six = lab.listen(lab.host(), "tcp [::1]:28102")?;
    let run = lab.whereis(&["127.0.0.1:28102/tcp"])?;
    ensure!(run.code == Some(1), "{:?} {}", run.code, run.stdout);
    let finding = noticed(&run, "other_address")?;
    let what = finding["what"].as_str().context("no words")?;
    ensure!(what.contains(&format!("pid {}, listens on [::1]:28102 only", six.pid)), "{what}");
    ensure!(finding["fix"]["kind"] == "connect_elsewhere", "{finding}");
    // One of IPv6 alone, and one of UDP.
    let _only = lab.listen(lab.host(), "tcp [::]:28103 --v6only 1")?;
    let run = lab.whereis(&["127.0.0.1:28103/tcp"])?;
    let what = noticed(&run, "other_address")?["what"].to_string();
    ensure!(what.contains("listens on [::]:28103 for IPv6 only"), "{what}");
    let _udp = within(lab.host(), || Ok(UdpSocket::bind("127.0.0.1:28104")?))?;
    let run = lab.whereis(&["10.88.0.1:28104"])?;
    let what = noticed(&run, "other_address")?["what"].to_string();
    ensure!(what.contains("10.88.0.1:28104/udp: ") && what.contains("127.0.0.1:28104"), "{what}");
    // What another namespace has on its own loopback is nothing beside ours.
    let _theirs = lab.listen(&inner, "tcp [::1]:28105")?;
    nothing_noticed(&lab.whereis(&["127.0.0.1:28105/tcp"])?)?;
    // Where somebody takes it, nothing is wrong.
    let _four = lab.listen(lab.host(), "tcp 127.0.0.1:28102")?;
    nothing_noticed(&lab.whereis(&["127.0.0.1:28102/tcp"])?)
}

#[test]
fn by_another_interface_it_is_not_heard() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _inner = container(&lab)?;
    let _bound = lab.listen(lab.host(), "tcp 0.0.0.0:28106 --device toinner")?;
    ensure!(within(lab.host(), || Ok(TcpStream::connect("127.0.0.1:28106").is_err()))?);
    publish(&lab, 28107, 9001)?;
    let _inner_bound = lab.listen(&_inner, "tcp 0.0.0.0:9001 --device lo")?;
    let run = lab.whereis(&["28107/tcp"])?;
    let finding = noticed(&run, "other_address")?;
    let what = finding["what"].to_string();
    ensure!(what.contains("0.0.0.0:9001 by interface lo only"), "{what}");
    ensure!(finding["fix"]["text"].to_string().contains("without being bound"), "{finding}");
    Ok(())
}

#[test]
fn of_a_wrong_port_the_right_one_is_told() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let inner = container(&lab)?;
    publish(&lab, 28108, 8080)?;
    // Nothing at all is there: nothing to tell.
    nothing_noticed(&lab.whereis(&["28108/tcp"])?)?;
    let server = lab.listen_like(&inner, "tcp 0.0.0.0:80", &["web"])?;
    let _inside = lab.listen(&inner, "tcp 127.0.0.1:8081")?;
    let run = lab.whereis(&["28108/tcp"])?;
    let finding = noticed(&run, "other_port")?;
    let what = finding["what"].as_str().context("no words")?;
    let says = format!("but web, pid {}, listens on 0.0.0.0:80", server.pid);
    ensure!(what.contains("nothing has port 8080") && what.ends_with(&says), "{what}");
    ensure!(finding["fix"]["text"].to_string().contains("port 80"), "{finding}");
    // A replay says the same.
    let file = lab.dir().join("beside.json");
    let path = file.to_str().context("path")?;
    let live = lab.whereis(&["28108/tcp", "--record", path])?;
    ensure!(live.answer()? == lab.whereis(&["28108/tcp", "--replay", path])?.answer()?);
    Ok(())
}
