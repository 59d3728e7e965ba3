//! What must be true of the answers on a k3s server with Cilium and Hubble whose API was
//! asked when it was recorded.

use anyhow::{Context, ensure};
use lab::{Test, View};

use super::{Answer, items, k3s};

/// The API named the pod, its node and its cluster, and nothing is missed.
fn is_named(answer: &Answer, path: View<'_>, pod: &str, node: &str) -> Test {
    let end = path.end();
    let (namespace, name) = pod.split_once('/').context("a pod's namespace")?;
    ensure!(end["pod"]["namespace"] == namespace && end["pod"]["name"] == name, "{}", end["pod"]);
    ensure!(end["pod"]["node"] == node, "{}", end["pod"]);
    ensure!(end["cluster"]["name"] == "default" && end["cluster"]["distribution"] == "k3s");
    ensure!(items(&end["evidence"]).any(|e| e["source"] == "Kubernetes API"), "{end}");
    is_whole(answer)
}

fn is_whole(answer: &Answer) -> Test {
    ensure!(items(&answer.answer()["gaps"]).next().is_none(), "{}", answer.answer()["gaps"]);
    Ok(())
}

/// One of two pods is on another node: the API knows it all the same.
pub(super) fn node_port(answer: &Answer) -> Test {
    k3s::node_port(answer)?;
    let paths = answer.paths();
    ensure!(paths.len() == 2, "{} paths", paths.len());
    for path in paths {
        if path.ending() == "process" {
            is_named(answer, path, "default/my-nginx-684dd4dcd4-4kx2p", "node1")?;
            let container = &path.end()["container"];
            ensure!(container["name"] == "my-nginx", "{container}");
            ensure!(container["image"] == "docker.io/library/nginx:latest", "{container}");
        } else {
            is_named(answer, path, "default/my-nginx-684dd4dcd4-t9m6w", "agent1")?;
        }
        let service = &path.end()["service"];
        ensure!(service["namespace"] == "default" && service["name"] == "my-nginx", "{service}");
    }
    Ok(())
}

/// The pod's port, which the Service leads to; its cluster address is no listener.
pub(super) fn pod(answer: &Answer) -> Test {
    let path = answer.listener()?;
    is_named(answer, path, "default/my-nginx-684dd4dcd4-4kx2p", "node1")?;
    ensure!(path.end()["service"]["name"] == "my-nginx", "{}", path.end()["service"]);
    answer.is_shut("loopback")
}

pub(super) fn cilium(answer: &Answer) -> Test {
    let path = answer.path()?;
    ensure!(path.end()["process"]["name"] == "cilium-agent", "{}", path.end());
    is_named(answer, path, "kube-system/cilium-7x2qj", "node1")?;
    let pod = &path.end()["pod"];
    ensure!(pod["host_network"] == true && pod["owner"] == "DaemonSet/cilium", "{pod}");
    answer.is_open("outside", "192.168.50.56:4244")
}

/// A port-forward on the host, and the relay itself in its pod.
pub(super) fn relay(answer: &Answer) -> Test {
    let paths = answer.paths();
    let [forward, relay] = paths.as_slice() else { anyhow::bail!("{} paths", paths.len()) };
    ensure!(forward.end()["process"]["name"] == "kubectl", "{}", forward.end());
    let hops = forward.hops();
    let last = hops.last().context("no hop")?;
    ensure!(last["kind"] == "forward" && last["port"] == 80, "{last}");
    ensure!(relay.end()["process"]["name"] == "hubble-relay", "{}", relay.end());
    is_named(answer, *relay, "kube-system/hubble-relay-6f8fc7bf96-p9w4h", "node1")?;
    ensure!(relay.end()["service"]["name"] == "hubble-relay", "{}", relay.end()["service"]);
    answer.is_shut("outside")
}

/// Port 8081 of the pod is where the port-forward's Service leads.
pub(super) fn ui(answer: &Answer) -> Test {
    let path = answer.path()?;
    is_named(answer, path, "kube-system/hubble-ui-6548d56557-mz8vr", "node1")?;
    ensure!(path.end()["container"]["name"] == "frontend", "{}", path.end()["container"]);
    ensure!(path.end()["service"]["name"] == "hubble-ui", "{}", path.end()["service"]);
    answer.is_shut("outside")
}

/// k3s itself is in no pod, and the API does not make it one.
pub(super) fn server(answer: &Answer, sockets: usize) -> Test {
    k3s::k3s(answer, sockets)?;
    is_whole(answer)
}

/// The user's context is for this port.
pub(super) fn api_server(answer: &Answer) -> Test {
    server(answer, 1)?;
    let path = answer.path()?;
    let contexts: Vec<_> = items(&path.0["contexts"]).map(|context| &context["name"]).collect();
    ensure!(contexts == ["default"], "{contexts:?}");
    answer.is_open("outside", "192.168.50.56:6443")
}

/// No pod has it: it is the kernel's, and Cilium's.
pub(super) fn vxlan(answer: &Answer) -> Test {
    k3s::vxlan(answer)?;
    for path in answer.paths() {
        ensure!(path.end()["pod"].is_null(), "{}", path.end()["pod"]);
    }
    is_whole(answer)
}
