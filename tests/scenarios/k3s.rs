//! What must be true of the answers on a k3s server with Cilium.

use anyhow::ensure;
use lab::Test;

use super::{Answer, items};

/// All in one process, whose name is its own: the port tells which of its roles it is.
pub(super) fn k3s(answer: &Answer, sockets: usize) -> Test {
    ensure!(answer.paths().len() == sockets);
    for path in answer.paths() {
        let end = path.end();
        ensure!(end["process"]["name"] == "k3s-server" && end["unit"] == "k3s.service", "{end}");
        ensure!(end["container"].is_null() && end["pod"].is_null(), "{end}");
        ensure!(path.0["netns"]["name"] == "host");
        ensure!(end["component"]["name"] == "k3s server", "{}", end["component"]);
        ensure!(end["component"]["confirmed"] == true, "{}", end["component"]);
        ensure!(end["cluster"]["name"] == "default" && end["cluster"]["role"] == "server", "{end}");
    }
    Ok(())
}

pub(super) fn on_loopback(answer: &Answer, port: u16) -> Test {
    k3s(answer, 1)?;
    answer.is_open("loopback", &format!("127.0.0.1:{port}"))?;
    answer.is_shut("node")?;
    answer.is_shut("outside")
}

pub(super) fn vxlan(answer: &Answer) -> Test {
    ensure!(!answer.paths().is_empty());
    for path in answer.paths() {
        ensure!(path.ending() == "kernel" && path.pids().is_empty());
        ensure!(path.hops()[0]["kind"] == "kernel");
        ensure!(path.sources(0).contains(&"rtnetlink"), "{:?}", path.sources(0));
        ensure!(path.end()["why"].as_str().is_some_and(|why| why.contains("cilium_vxlan")));
    }
    ensure!(!answer.text.to_lowercase().contains("flannel"), "8472 alone names nobody");
    answer.is_open("outside", "192.168.50.56:8472")
}

pub(super) fn cilium(answer: &Answer) -> Test {
    let path = answer.path()?;
    let end = path.end();
    ensure!(end["process"]["name"] == "cilium-agent", "{end}");
    ensure!(path.0["netns"]["name"] == "host", "its pod has the host's network");
    ensure!(end["pod"]["uid"] == "b8f0f3d4-2b0c-4f6a-9a40-6a1c6d6f0a52", "{}", end["pod"]);
    ensure!(end["container"]["runtime"] == "containerd", "{}", end["container"]);
    // No containerd was there to name them: said, and not guessed.
    ensure!(end["pod"]["name"].is_null() && end["container"]["name"].is_null());
    ensure!(items(&answer.answer()["gaps"]).any(|gap| gap["impact"] == "name"));
    answer.is_open("outside", "192.168.50.56:4244")
}

pub(super) fn port_forward(answer: &Answer, service: &str, port: u16) -> Test {
    let path = answer.path()?;
    let hops = path.hops();
    ensure!(hops.len() == 2 && hops[0]["address"] == "127.0.0.1", "{:?}", path.steps());
    ensure!(hops[1]["kind"] == "forward" && hops[1]["port"] == port, "{}", hops[1]);
    ensure!(hops[1]["name"].as_str().is_some_and(|name| name.ends_with(service)), "{}", hops[1]);
    ensure!(path.ending() == "elsewhere");
    let process = &path.end()["process"];
    ensure!(process["name"] == "kubectl" && process["ancestors"][0]["comm"] == "cilium");
    answer.is_shut("outside")
}

/// No socket anywhere: two pods by rules, one of them on another node.
pub(super) fn node_port(answer: &Answer) -> Test {
    let ends: Vec<_> = answer.paths().iter().map(|path| path.ending().to_owned()).collect();
    ensure!(ends.iter().any(|end| end == "process"), "{ends:?}");
    for path in answer.paths() {
        let hops = path.hops();
        let leads_to = |ip: &str| hops.iter().any(|hop| hop["address"] == ip);
        if path.ending() == "process" {
            ensure!(leads_to("10.42.0.202"), "{:?}", path.steps());
            ensure!(path.end()["process"]["name"] == "nginx", "{}", path.end());
        } else {
            ensure!(leads_to("10.42.1.188"), "{:?}", path.steps());
            ensure!(hops.iter().any(|hop| hop["kind"] == "off_node"), "{:?}", path.steps());
        }
    }
    ensure!(ends.iter().any(|end| end != "process"), "the other pod is on another node");
    for word in ["default/my-nginx", "10.42.0.202:80", "10.42.1.188:80", "cilium_host"] {
        ensure!(answer.text.contains(word), "{word} is not said");
    }
    answer.is_open("loopback", "127.0.0.1:30995")?;
    answer.is_open("node", "192.168.50.56:30995")?;
    answer.is_open("outside", "192.168.50.56:30995")
}

/// A pod's port, which is nobody's on the host.
pub(super) fn pod(answer: &Answer) -> Test {
    let path = answer.listener()?;
    let end = path.end();
    ensure!(end["process"]["name"] == "nginx", "{end}");
    ensure!(end["pod"]["uid"] == "0c9d2f5e-77a1-4e0b-8d3f-52f6b1c3a9e4", "{}", end["pod"]);
    answer.is_shut("loopback")
}
