//! Addresses that no interface has, and that rules take: external ones of Services. Pods often
//! listen on the same port number as the Service has there.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, ensure};
use lab::{Backend, Landing, Test};

use crate::paths::node::Node;

const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 50);

/// As kube-proxy writes it, of external addresses that others may have, too.
const PHYSDEV: &str = "-m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL";

#[test]
fn an_external_address_is_found_beside_a_pod_of_the_same_port() -> Test {
    lab::rules_or_skip!();
    for (backend, condition) in [(Backend::Nft, ""), (Backend::Legacy, PHYSDEV)] {
        let mut node = Node::new()?;
        let port = lab::unused_port()?;
        let ip = node.serve_in_pod("pod", port)?;
        let (host, outside) = (node.host().clone(), node.outside.clone());
        let rules = format!(
            "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d {EXTERNAL}/32 -p tcp -m tcp --dport {port} \
             {condition} -j DNAT --to-destination {ip}:{port}\nCOMMIT\n"
        );
        node.lab.iptables(&host, backend, &rules)?;
        outside.ip(&["route", "add", &format!("{EXTERNAL}/32"), "via", &node.ip().to_string()])?;
        let to = SocketAddr::from((EXTERNAL, port));
        let landed = outside.connect("tcp", to)?;
        ensure!(matches!(&landed, Landing::At(name) if name == "pod"), "THE LAB: {landed}");

        let is_open = |entry: &serde_json::Value| {
            entry["from"] == "outside"
                && entry["address"] == to.to_string()
                && entry["reachable"] == true
        };
        let run = node.lab.tool().netns(&host).args(&["--json", &format!("{port}/tcp")]).run()?;
        let reach = run.answer()?["reachable"].as_array().context("no reach")?.clone();
        ensure!(reach.iter().any(is_open), "{condition}: {}", run.stdout);

        let from = ["--json", "--from", &node.outside_ip().to_string(), &format!("{port}/tcp")];
        let run = node.lab.tool().netns(&host).args(&from).run()?;
        ensure!(run.code == Some(0), "{condition}: exit {:?}: {}", run.code, run.stdout);

        let list = ["list", "--json", "-O", "port,address,reach", "--netns", &host.name];
        let run = node.lab.tool().netns(&host).args(&list).run()?;
        let rows = run.json["listeners"].as_array().context("no listeners")?;
        let row = rows.iter().find(|row| row["address"] == EXTERNAL.to_string());
        let row = row.with_context(|| run.stdout.clone())?;
        ensure!(row["reach"] == "network", "{condition}: {row}");

        let run = node.lab.tool().netns(&host).args(&["audit", "--json"]).run()?;
        let exposures = run.json["exposures"].as_array().context("no exposures")?;
        let openings = exposures.iter().filter_map(|one| one["openings"].as_array()).flatten();
        let is_open = |one: &serde_json::Value| {
            one["from"] == "outside" && one["address"] == to.to_string() && one["open"] == true
        };
        ensure!(openings.into_iter().any(is_open), "{condition}: the audit has no {to}");
    }
    Ok(())
}
