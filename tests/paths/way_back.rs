//! Whether what comes in may come from where it does: reverse path filters.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use lab::{Landing, Netns, Test};
use serde_json::Value;

use crate::paths::in_the_way::said;
use crate::paths::node::{Node, case};

/// A host with two network cards and a server: `eth0`, with the default route, and `eth1`.
struct TwoCards {
    node: Node,
    port: u16,
    /// A machine on the second wire.
    second: Netns,
}

impl TwoCards {
    fn new() -> Result<Self> {
        let mut node = Node::new()?;
        let port = lab::unused_port()?;
        node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
        let second = node.lab.netns("second")?;
        let n = node.number();
        let at = |last: &str| format!("10.{n}.{last}/24");
        let machines: [(&Netns, &[&str]); 2] =
            [(node.host(), &[&at("5.1")]), (&second, &[&at("5.2"), &at("55.9")])];
        node.lab.lan_by("eth1", &machines)?;
        Ok(Self { node, port, second })
    }

    fn ip(&self, third: u8, fourth: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.node.number(), third, fourth)
    }

    fn filter(&self, device: &str, mode: &str) -> Test {
        self.node.host().sysctl(&format!("ipv4/conf/{device}/rp_filter"), mode)
    }

    /// What a connection of the second machine to the host becomes, from one of its addresses.
    fn lands(&self, from: Ipv4Addr) -> Result<Landing> {
        let (to, from) = (self.ip(5, 1).to_string(), from.to_string());
        self.second.ip(&["route", "replace", &to, "dev", "eth1", "src", &from])?;
        self.second.connect("tcp", (self.ip(5, 1), self.port).into())
    }

    fn said_of(&self, address: Ipv4Addr) -> Result<Value> {
        let run = self.node.lab.whereis(&[&self.port.to_string()])?;
        said(&run, "outside", (IpAddr::from(address), self.port).into())
    }
}

fn has(entry: &Value, code: &str, words: &str) -> Test {
    let conditions = entry["conditions"].as_array().context("no conditions")?;
    let is_it = |one: &Value| {
        one["code"] == code && one["text"].as_str().is_some_and(|text| text.contains(words))
    };
    ensure!(conditions.iter().any(is_it), "{entry}");
    Ok(())
}

#[test]
fn a_strict_filter_takes_only_those_who_are_routed_back_by_the_same_device() -> Test {
    lab::root_or_skip!();
    let two = TwoCards::new()?;
    let (near, far) = (two.ip(5, 2), two.ip(55, 9));
    let web = Landing::At("web".to_owned());
    // Its other network is where the default route leads.
    let by = two.ip(0, 2).to_string();
    let network = format!("{}/24", two.ip(55, 0));
    two.node.host().ip(&["route", "add", &network, "via", &by])?;
    for (mode, lands) in [("0", None), ("2", None), ("1", Some(Landing::TimedOut))] {
        two.filter("all", mode)?;
        let near_lands = two.lands(near)?;
        ensure!(near_lands == web, "THE LAB: rp_filter {mode}, from {near}: {near_lands}");
        // Where it is let in, the answer leaves by the other device, and gets lost there.
        let far_lands = two.lands(far)?;
        if let Some(lands) = &lands {
            ensure!(far_lands == *lands, "THE LAB: rp_filter {mode}, from {far}: {far_lands}");
        }
        let entry = two.said_of(two.ip(5, 1))?;
        if lands.is_none() {
            ensure!(entry["reachable"] == true, "rp_filter {mode}: {entry}");
            continue;
        }
        ensure!(entry["reachable"].is_null(), "{entry}");
        let why = entry["why"].as_str().unwrap_or_default();
        ensure!(why.contains("reverse path filter of eth1"), "{why}");
        has(&entry, "other_client", "routed back by eth1")?;
        // By the other device come all but those that this one leads to.
        let entry = two.said_of(two.node.ip())?;
        ensure!(entry["reachable"] == true, "{entry}");
        let why = entry["why"].as_str().unwrap_or_default();
        ensure!(why.contains(&format!("{}/24", two.ip(5, 0))), "{why}");
    }
    // What is set for the device counts where it is more.
    two.filter("all", "0")?;
    two.filter("eth1", "1")?;
    ensure!(two.lands(far)? == Landing::TimedOut && two.lands(near)? == web, "THE LAB");
    ensure!(two.said_of(two.ip(5, 1))?["reachable"].is_null());
    ensure!(two.said_of(two.node.ip())?["reachable"] == true);
    two.filter("all", "2")?;
    ensure!(two.said_of(two.ip(5, 1))?["reachable"] == true, "the greater of both: loose");
    Ok(())
}

#[test]
fn a_loose_filter_wants_any_way_back() -> Test {
    lab::root_or_skip!();
    let two = TwoCards::new()?;
    let far = two.ip(55, 9);
    two.node.host().ip(&["route", "del", "default"])?;
    two.filter("all", "2")?;
    let landed = two.lands(far)?;
    ensure!(landed == Landing::TimedOut, "THE LAB: {landed}");
    let entry = two.said_of(two.ip(5, 1))?;
    ensure!(entry["reachable"].is_null(), "{entry}");
    has(&entry, "other_client", "no route leads back to the client's address")
}

#[test]
fn with_one_device_that_has_all_routes_a_strict_filter_drops_nobody() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let ip = node.serve_in_pod("pod", inner)?;
    node.add_pod()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    node.host().sysctl("ipv4/conf/all/rp_filter", "1")?;
    let rules = format!(
        "table ip nat {{ chain pre {{ type nat hook prerouting priority -100; \
           tcp dport {inner} dnat to {ip}:{inner}; }}\n }}"
    );
    node.lab.nft(node.host(), &rules)?;
    node.check(
        &port.to_string(),
        &[case("outside", node.ip(), &["web"]), case("containers", node.gateway(), &["web"])],
    )?;
    node.check(&inner.to_string(), &[case("outside", node.ip(), &["pod"])])
}

#[test]
fn of_a_sender_on_this_node_the_address_decides() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let n = node.number();
    let peer = node.lab.netns("peer")?;
    let at = |last: &str| format!("10.{n}.{last}");
    let (near, far, to) = (at("6.9"), at("66.9"), at("6.1"));
    node.lab
        .veth((node.host(), "up0", &format!("{to}/24")), (&peer, "up0", &format!("{near}/24")))?;
    peer.address("up0", &format!("{far}/24"))?;
    node.host().ip(&["route", "add", &format!("{}/24", at("66.0")), "via", &at("0.2")])?;
    node.host().sysctl("ipv4/conf/all/rp_filter", "1")?;
    let address: IpAddr = to.parse()?;
    let lands = |from: &str| -> Result<Landing> {
        peer.ip(&["route", "replace", &to, "dev", "up0", "src", from])?;
        peer.connect("tcp", (address, port).into())
    };
    ensure!(lands(&near)? == Landing::At("web".to_owned()), "THE LAB");
    ensure!(lands(&far)? == Landing::TimedOut, "THE LAB");
    // Of several devices of this kind the tool tries one.
    node.host().ip(&["link", "del", "br0"])?;
    let run = node.lab.whereis(&[&port.to_string()])?;
    let all = run.answer()?["reachable"].as_array().context("no reach")?.clone();
    let is_it = |one: &&Value| one["from"] == "containers";
    let entry = all.iter().find(is_it).with_context(|| format!("{all:#?}"))?;
    ensure!(entry["reachable"] == true, "{entry}");
    let why = entry["why"].as_str().unwrap_or_default();
    ensure!(why.contains("reverse path filter of up0") && why.contains(&far), "{why}");
    Ok(())
}
