//! Namespaces with an address on the network of the host's own card: nothing publishes them.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use lab::{Landing, Netns, Run, Test};

use crate::paths::in_the_way::said;
use crate::paths::node::Node;

/// A namespace with a macvlan above a card of the host, its address, and a machine on that wire,
/// which the tool is not to see.
fn above(node: &mut Node) -> Result<(Netns, Netns, Ipv4Addr)> {
    let host = node.host().clone();
    let (inner, other) = (node.lab.netns("upper")?, node.lab.netns("other")?);
    let ip = |last: u8| Ipv4Addr::new(10, node.number(), 8, last);
    let (here, there) = (format!("{}/24", ip(1)), format!("{}/24", ip(2)));
    node.lab.veth((&host, "nic0", &here), (&other, "nic0", &there))?;
    let to = ["netns", &inner.name, "type", "macvlan", "mode", "bridge"];
    host.ip(&[&["link", "add", "up0", "link", "nic0"], &to[..]].concat())?;
    inner.address("up0", &format!("{}/24", ip(64)))?;
    inner.ip(&["link", "set", "up0", "up"])?;
    Ok((inner, other, ip(64)))
}

/// Asks where a namespace is not seen.
fn without(node: &Node, hidden: &Netns, args: &[&str]) -> Result<Run> {
    let script = format!("umount -l {} && exec \"$@\"", hidden.path.display());
    let wrapper = ["unshare", "-mpf", "--propagation", "private", "--mount-proc", "sh", "-c"];
    let wrapper = [&wrapper[..], &[&script, "sh"]].concat();
    node.lab.tool().netns(node.host()).through(&wrapper).args(args).run()
}

#[test]
fn a_macvlan_is_reached_by_other_machines_and_not_by_its_host() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let (inner, other, ip) = above(&mut node)?;
    let port = lab::unused_port()?;
    node.serve(&inner, "upper", &format!("tcp 0.0.0.0:{port}"))?;
    let to = SocketAddr::new(ip.into(), port);
    let landed = other.connect("tcp", to)?;
    ensure!(landed == Landing::At("upper".to_owned()), "THE LAB: {landed}");
    let landed = node.host().connect("tcp", to)?;
    ensure!(landed.server().is_none(), "THE LAB: {landed}");
    let run = without(&node, &other, &["--json", &port.to_string()])?;
    let outside = said(&run, "outside", to)?;
    ensure!(outside["reachable"] == true && outside["code"] == "shared_network", "{outside}");
    ensure!(outside["why"].as_str().is_some_and(|why| why.contains("nic0")), "{outside}");
    let here = said(&run, "node", to)?;
    ensure!(here["reachable"] == false, "{here}");
    ensure!(here["why"].as_str().is_some_and(|why| why.contains("macvlan above")), "{here}");
    let all = run.answer()?["reachable"].to_string();
    ensure!(!all.contains("HOSTPORT"), "{all}");
    // Its own rules stop others.
    let rule =
        "table inet f { chain input { type filter hook input priority 0; tcp dport PORT drop\n}\n}";
    node.lab.nft(&inner, &rule.replace("PORT", &port.to_string()))?;
    ensure!(other.connect("tcp", to)? == Landing::TimedOut, "THE LAB");
    let run = without(&node, &other, &["--json", &port.to_string()])?;
    let outside = said(&run, "outside", to)?;
    ensure!(outside["reachable"] == false && outside["code"] == "dropped", "{outside}");
    // From the host alone.
    let question = format!("{to}/tcp");
    let args = ["--json", "--try", "--from", "127.0.0.1", &question];
    let run = without(&node, &other, &args)?;
    ensure!(run.code == Some(1), "exit {:?}: {}", run.code, run.stdout);
    Ok(())
}
