//! What is on a packet's way and is not evaluated: never "reachable", whatever it does.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use lab::{Attached, Landing, Netns, Place, Run, Test};
use serde_json::Value;

use crate::paths::node::{Case, LOOPBACK, Node, case};

/// What the tool says of reaching an address from a vantage.
pub(crate) fn said(run: &Run, from: &str, to: SocketAddr) -> Result<Value> {
    let all = run.answer()?["reachable"].as_array().context("no reach")?;
    let (to, same) = (to.to_string(), |entry: &&Value| entry["from"] == from);
    let entry = all.iter().filter(same).find(|entry| entry["address"] == to.as_str());
    entry.cloned().with_context(|| format!("nothing is said of {to} from {from}: {all:#?}"))
}

/// Checks that the tool does not claim to know whether `to` can be reached, and what it names.
fn is_unknown(node: &Node, from: &str, to: (IpAddr, u16), names: &str, code: &str) -> Test {
    let run = node.lab.whereis(&[&to.1.to_string()])?;
    let entry = said(&run, from, to.into())?;
    ensure!(entry["reachable"].is_null(), "{entry}");
    let why = entry["why"].as_str().unwrap_or_default();
    ensure!(why.contains(names), "{why:?} does not name {names:?}");
    ensure!(entry["code"] == "not_evaluated", "{entry}");
    let conditions = entry["conditions"].as_array().context("no conditions")?;
    ensure!(conditions.iter().any(|one| one["code"] == code), "{entry}");
    Ok(())
}

/// A host with a server, and a pod.
fn served() -> Result<(Node, Netns, u16)> {
    let mut node = Node::new()?;
    let pod = node.add_pod()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    Ok((node, pod, port))
}

/// Attaches a program, or says that this kernel has no such place.
fn attach(netns: &Netns, place: Place<'_>, gives: i32) -> Option<Attached> {
    match netns.attach(place, gives) {
        Ok(attached) => Some(attached),
        Err(error) => {
            lab::skip_on_this_kernel(&format!("no program can be attached: {error:#}"));
            None
        }
    }
}

/// A program on the way in from other machines: none, one that lets pass, and one that drops.
fn from_outside(place: Place<'_>, drops: (i32, &str), passes: i32, names: &str) -> Test {
    let (node, _pod, port) = served()?;
    let to = (IpAddr::from(node.ip()), port);
    let plain: &[Case<'_>] =
        &[case("outside", node.ip(), &["web"]), case("loopback", LOOPBACK, &["web"])];
    node.check(&port.to_string(), plain)?;
    for (gives, lands) in [(passes, "web"), drops] {
        // What drops all drops what asks for neighbours, too: it comes last.
        let Some(attached) = attach(node.host(), place, gives) else { return Ok(()) };
        let landed = node.outside.connect("tcp", to.into())?;
        ensure!(landed.to_string() == lands, "THE LAB: {landed}, not {lands}");
        is_unknown(
            &node,
            "outside",
            to,
            &names.replace("ID", &attached.id.to_string()),
            "program",
        )?;
    }
    Ok(())
}

#[test]
fn xdp_on_the_device_that_it_comes_in_by() -> Test {
    lab::root_or_skip!();
    from_outside(Place::Xdp("eth0"), (1, "timeout"), 2, "the XDP program wp_test (id ID) on eth0")
}

#[test]
fn tcx_at_ingress() -> Test {
    lab::root_or_skip!();
    from_outside(
        Place::TcxIngress("eth0"),
        (2, "timeout"),
        0,
        "the tcx ingress program wp_test (id ID) on eth0",
    )
}

#[test]
fn a_program_that_chooses_sockets() -> Test {
    lab::root_or_skip!();
    from_outside(
        Place::SkLookup,
        (0, "refused"),
        1,
        "the sk_lookup program wp_test (id ID) of network namespace",
    )
}

#[test]
fn what_is_attached_elsewhere_is_in_nobodys_way() -> Test {
    lab::root_or_skip!();
    let (node, pod, port) = served()?;
    let Some(_attached) = attach(&pod, Place::Xdp("eth0"), 1) else { return Ok(()) };
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["web"]),
            case("node", node.ip(), &["web"]),
            case("outside", node.ip(), &["web"]),
        ],
    )
}

#[test]
fn tc_on_the_way_to_a_pod_behind_a_proxy_of_the_host() -> Test {
    lab::root_or_skip!();
    if !lab::has("tc") {
        lab::skip("tc is not installed (package iproute2)");
        return Ok(());
    }
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let ip = node.serve_in_pod("web", inner)?;
    let rules = format!(
        "table ip nat {{ chain pre {{ type nat hook prerouting priority -100; \
           tcp dport {port} dnat to {ip}:{inner}; }}\n }}"
    );
    node.lab.nft(node.host(), &rules)?;
    node.check(&port.to_string(), &[case("outside", node.ip(), &["web"])])?;
    let tc = |args: &str| -> Test {
        let words: Vec<&str> = ["tc"].into_iter().chain(args.split_whitespace()).collect();
        let status = node.lab.command(node.host(), &words)?.status()?;
        ensure!(status.success(), "tc {args}");
        Ok(())
    };
    tc("qdisc add dev veth0 clsact")?;
    // One that only chooses a class is in nobody's way.
    tc("filter add dev veth0 egress u32 match u32 0 0 classid 1:1")?;
    node.check(&port.to_string(), &[case("outside", node.ip(), &["web"])])?;
    tc("filter del dev veth0 egress")?;
    tc("filter add dev veth0 egress u32 match u32 0 0 action mirred egress redirect dev lo")?;
    let to = (IpAddr::from(node.ip()), port);
    let landed = node.outside.connect("tcp", to.into())?;
    ensure!(landed.server().is_none(), "THE LAB: {landed}");
    is_unknown(&node, "outside", to, "the tc egress filter u32 with mirred on veth0", "program")
}

#[test]
fn programs_of_the_servers_cgroup_and_of_one_above_it() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let host = node.host().clone();
    let argv = ["/usr/bin/web"];
    let listen = format!("tcp 0.0.0.0:{port} --answer web");
    let _web = node.lab.listen_in(&host, "zq.slice/zq.service", &listen, &argv)?;
    let to = (IpAddr::from(node.ip()), port);
    let above = node.lab.cgroup().to_owned();
    let own = above.join("zq.slice/zq.service");
    let Some(passes) = attach(&host, Place::CgroupEgress(&own), 1) else { return Ok(()) };
    let landed = node.outside.connect("tcp", to.into())?;
    ensure!(landed == Landing::At("web".to_owned()), "THE LAB: {landed}");
    let named = format!("the cgroup egress program wp_test (id {}) of unit zq.service", passes.id);
    is_unknown(&node, "outside", to, &named, "program")?;
    drop(passes);
    let drops = host.attach(Place::CgroupIngress(&above), 0)?;
    let landed = node.outside.connect("tcp", to.into())?;
    ensure!(landed == Landing::TimedOut, "THE LAB: {landed}");
    let named = format!("the cgroup ingress program wp_test (id {}) on /", drops.id);
    is_unknown(&node, "outside", to, &named, "program")?;
    // Another's cgroup matters to nobody here.
    drop(drops);
    let aside = above.join("aside");
    std::fs::create_dir(&aside)?;
    let _drops = host.attach(Place::CgroupIngress(&aside), 0)?;
    let run = node.lab.whereis(&[&port.to_string()])?;
    ensure!(said(&run, "outside", to.into())?["reachable"] == true);
    node.servers.clear();
    Ok(())
}

#[test]
fn rules_for_the_frames_of_a_bridge() -> Test {
    lab::rules_or_skip!();
    let (node, pod, port) = served()?;
    let to = (IpAddr::from(node.gateway()), port);
    let rules =
        "table bridge guard { chain in { type filter hook input priority 0; policy accept; }\n }";
    node.lab.nft(node.host(), rules)?;
    // An empty chain does nothing.
    node.check(&port.to_string(), &[case("containers", node.gateway(), &["web"])])?;
    let rules = format!(
        "table bridge guard {{ chain more {{ type filter hook input priority 1; \
           tcp dport {port} drop; }}\n }}"
    );
    node.lab.nft(node.host(), &rules)?;
    let landed = pod.connect("tcp", to.into())?;
    ensure!(landed == Landing::TimedOut, "THE LAB: {landed}");
    is_unknown(&node, "containers", to, "the rules for frames of", "bridge_rules")
}

#[test]
fn what_leaves_by_a_device_meets_the_rules_of_it() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let ip = node.serve_in_pod("web", inner)?;
    let rules = format!(
        "table ip nat {{ chain pre {{ type nat hook prerouting priority -100; \
           tcp dport {port} dnat to {ip}:{inner}; }}\n }}\n\
         table netdev out {{ chain out {{ type filter hook egress device \"br0\" priority 0; \
           policy accept; tcp dport {inner} drop; }}\n }}"
    );
    node.lab.nft(node.host(), &rules)?;
    node.check(&port.to_string(), &[case("outside", node.ip(), &["timeout"])])
}

#[test]
fn a_plain_user_who_can_read_no_rules_is_not_told_that_a_port_is_reachable() -> Test {
    lab::rules_or_skip!();
    let (node, _pod, port) = served()?;
    let asked = port.to_string();
    for user in [None, Some(65534)] {
        let tool = node.lab.tool().args(&["--json", &asked]);
        let run = match user {
            Some(uid) => tool.uid(uid).run()?,
            None => tool.run()?,
        };
        let all = run.answer()?["reachable"].as_array().context("no reach")?.clone();
        ensure!(!all.is_empty());
        let yes = all.iter().filter(|entry| entry["reachable"] == true).count();
        ensure!((yes == 0) == user.is_some(), "as {user:?}: {all:#?}");
    }
    Ok(())
}
