//! Ports that CNI's `portmap` plugin opens, as nerdctl, containerd and k3s use it.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use lab::{Backend, Netns, Test};
use serde_json::{Value, json};

use crate::paths::node::{LOOPBACK, Node, case};

/// Where Debian keeps the plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// Why the plugins can't be used here, if they can't.
fn missing() -> Option<String> {
    lab::no_rules().or_else(|| {
        let there = ["bridge", "portmap", "host-local"]
            .iter()
            .all(|name| Path::new(PLUGINS).join(name).is_file());
        (!there).then(|| "no plugins (package containernetworking-plugins)".to_owned())
    })
}

/// Runs a plugin for `container` and returns its result.
fn plugin(
    node: &Node,
    backend: Backend,
    name: &str,
    container: &Netns,
    config: &Value,
) -> Result<Value> {
    // The plugins run `iptables`, whichever that is.
    let programs = node.lab.dir().join(backend.name());
    if !programs.exists() {
        std::fs::create_dir(&programs)?;
        let target = format!("/usr/sbin/xtables-{}-multi", backend.name());
        for program in ["iptables", "ip6tables", "iptables-save", "ip6tables-save"] {
            std::os::unix::fs::symlink(&target, programs.join(program))?;
        }
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = node.lab.command(node.host(), &[&format!("{PLUGINS}/{name}")])?;
    command
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", format!("{}-{}", container.name, "c0ffee"))
        .env("CNI_NETNS", &container.path)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", PLUGINS);
    let said = node.lab.talk(command, &config.to_string()).with_context(|| name.to_owned())?;
    serde_json::from_str(&said).with_context(|| format!("{name} says {said}"))
}

/// A container with its own bridge `cni0`, and these ports of the host leading to
/// it: address, port, port inside.
fn container(
    node: &mut Node,
    backend: Backend,
    name: &str,
    ports: &[(&str, u16, u16)],
) -> Result<Netns> {
    let netns = node.lab.netns(name)?;
    let state = node.lab.dir().join("ipam");
    let mut config = json!({
        "cniVersion": "0.4.0",
        "name": "lab",
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": true,
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "dataDir": state,
            "ranges": [[{ "subnet": format!("10.{}.3.0/24", node.number()) }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    });
    let result = plugin(node, backend, "bridge", &netns, &config)?;
    let mappings: Vec<Value> = ports
        .iter()
        .map(|(ip, outer, inner)| {
            json!({
                "hostIP": ip, "hostPort": outer, "containerPort": inner, "protocol": "tcp",
            })
        })
        .collect();
    config["type"] = json!("portmap");
    config["prevResult"] = result;
    config["capabilities"] = json!({ "portMappings": true });
    config["runtimeConfig"] = json!({ "portMappings": mappings });
    plugin(node, backend, "portmap", &netns, &config)?;
    Ok(netns)
}

fn portmap(backend: Backend) -> Test {
    let mut node = Node::new()?;
    let [all, other, one, inner, second] = [(); 5].map(|()| lab::unused_port());
    let (all, other, one, inner, second) = (all?, other?, one?, inner?, second?);
    let ip = node.ip();
    let address = ip.to_string();
    let ports = [("", all, inner), ("", other, second), (address.as_str(), one, inner)];
    let web = container(&mut node, backend, "web", &ports)?;
    node.serve(&web, "web", &format!("tcp 0.0.0.0:{inner} tcp 0.0.0.0:{second}"))?;
    // Its neighbour has a port of its own, in the same chain.
    let loopback = lab::unused_port()?;
    let ports = [("127.0.0.1", loopback, inner)];
    let neighbour = container(&mut node, backend, "neighbour", &ports)?;
    node.serve(&neighbour, "neighbour", &format!("tcp 0.0.0.0:{inner}"))?;
    node.add_pod()?;
    for port in [all, other] {
        node.check(
            &port.to_string(),
            &[
                case("loopback", LOOPBACK, &["web"]),
                case("loopback", std::net::Ipv6Addr::LOCALHOST, &["refused"]),
                case("node", ip, &["web"]),
                case("outside", ip, &["web"]),
                case("containers", node.gateway(), &["web"]),
            ],
        )?;
    }
    node.check(
        &one.to_string(),
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", ip, &["web"]),
            case("node", Ipv4Addr::new(10, node.number(), 3, 1), &["refused"]),
            case("outside", ip, &["web"]),
        ],
    )?;
    node.check(
        &loopback.to_string(),
        &[
            case("loopback", LOOPBACK, &["neighbour"]),
            case("node", ip, &["refused"]),
            case("outside", ip, &["refused"]),
        ],
    )
}

#[test]
fn ports_of_the_portmap_plugin() -> Test {
    if let Some(reason) = missing() {
        lab::skip(&reason);
        return Ok(());
    }
    portmap(Backend::Nft)
}

#[test]
fn ports_of_the_portmap_plugin_in_legacy_tables() -> Test {
    if let Some(reason) = missing() {
        lab::skip(&reason);
        return Ok(());
    }
    portmap(Backend::Legacy)
}
