//! Pods of a healthy containerd.

use anyhow::{Context, Result, ensure};
use lab::{Containerd, POD_IMAGE, PodSpec, Run, Test, View};

const UID: &str = "0f7a2b1c-5d34-4f6e-8a90-1b2c3d4e5f60";

/// Asks until containerd was quick enough: on a busy machine it may not be, and
/// the tool does not wait for it.
fn ask(containerd: &Containerd, args: &[&str]) -> Result<Run> {
    let mut run = containerd.lab().whereis(args)?;
    for _ in 0..10 {
        if !run.gap_text().contains("no answer within") {
            break;
        }
        run = containerd.lab().whereis(args)?;
    }
    Ok(run)
}

#[test]
fn a_port_in_a_pod_is_answered_with_pod_container_labels_and_image() -> Test {
    lab::containerd_or_skip!();
    let containerd = Containerd::shared()?;
    let pod = containerd.pod(&PodSpec {
        namespace: "default",
        name: "web-abc",
        uid: UID,
        labels: &[("app", "web"), ("tier", "front")],
        annotations: &[("kubernetes.io/config.source", "api")],
        ..PodSpec::default()
    })?;
    let web = pod.run("web", "listen tcp 0.0.0.0:22101", 22101)?;
    let side = pod.run("side", "listen tcp 0.0.0.0:22102", 22102)?;
    for (port, name, container) in [("22101", "web", &web), ("22102", "side", &side)] {
        let run = ask(containerd, &[port])?;
        let path = run.is_found()?.path_in(&pod.netns)?;
        ensure!(path.pids() == [u64::from(container.pid)], "{}", path.0);
        let end = path.end();
        let told = &end["container"];
        ensure!(told["name"] == name, "{told}");
        ensure!(told["id"] == container.id.as_str(), "{told}");
        ensure!(told["runtime"] == "containerd" && told["image"] == POD_IMAGE, "{told}");
        ensure!(told["labels"]["io.kubernetes.container.name"] == name, "{told}");
        let told = &end["pod"];
        ensure!(told["namespace"] == "default" && told["name"] == "web-abc", "{told}");
        ensure!(told["uid"] == UID, "{told}");
        ensure!(told["labels"] == serde_json::json!({"app": "web", "tier": "front"}), "{told}");
        ensure!(told["host_network"] == false && told["is_static"] == false, "{told}");
        // Both are in the pod's namespace, which is named after the pod.
        ensure!(path.hops()[0]["netns"]["name"] == "default/web-abc", "{}", path.0);
        let evidence = end["evidence"].as_array().context("no evidence")?;
        ensure!(evidence.iter().any(|e| e["source"] == "CRI"), "{end}");
        ensure!(run.gap_text().is_empty(), "{}", run.gap_text());
    }
    Ok(())
}

#[test]
fn a_pod_on_the_nodes_network_is_told_as_one() -> Test {
    lab::containerd_or_skip!();
    let containerd = Containerd::shared()?;
    // The UID of a static pod is the hash of its manifest.
    let uid = "8daa50c3a64c9ff60bb9eab7b44b56fd";
    let pod = containerd.pod(&PodSpec {
        namespace: "kube-system",
        name: "etcd-node1",
        uid,
        annotations: &[("kubernetes.io/config.source", "file"), ("kubernetes.io/config.hash", uid)],
        host_network: true,
        ..PodSpec::default()
    })?;
    let etcd = pod.run("etcd", "listen tcp 127.0.0.1:22379", 22379)?;
    let run = ask(containerd, &["22379"])?;
    let path = run.is_found()?.path_in(containerd.lab().host())?;
    ensure!(path.pids() == [u64::from(etcd.pid)], "{}", path.0);
    ensure!(path.container() == Some("etcd"), "{}", path.0);
    let told = &path.end()["pod"];
    ensure!(told["namespace"] == "kube-system" && told["name"] == "etcd-node1", "{told}");
    ensure!(told["uid"] == uid, "{told}");
    ensure!(told["host_network"] == true && told["is_static"] == true, "{told}");
    // The node's namespace is not called after one pod that uses it.
    let name = path.hops()[0]["netns"]["name"].as_str().unwrap_or_default();
    ensure!(!name.contains("etcd"), "{}", path.0);
    Ok(())
}

#[test]
fn the_list_names_pods_too() -> Test {
    lab::containerd_or_skip!();
    let containerd = Containerd::shared()?;
    let pod = containerd.pod(&PodSpec {
        namespace: "shop",
        name: "cart-0",
        uid: "1f7a2b1c-5d34-4f6e-8a90-1b2c3d4e5f61",
        labels: &[("app", "cart")],
        ..PodSpec::default()
    })?;
    pod.run("cart", "listen tcp 0.0.0.0:22103", 22103)?;
    let run = ask(containerd, &["list"])?;
    let listeners = run.listeners()?;
    let is_it = |l: &&View<'_>| l.netns() == Some(pod.netns.inode) && l.0["port"] == 22103;
    let cart = listeners.iter().find(is_it).context("no row")?;
    ensure!(cart.container() == Some("cart"), "{}", cart.0);
    ensure!(cart.0["pod"]["name"] == "cart-0", "{}", cart.0);
    ensure!(cart.0["pod"]["labels"]["app"] == "cart", "{}", cart.0);
    Ok(())
}

/// The sandbox holds the pod's namespace, also when nothing else is in it yet.
#[test]
fn a_sandbox_is_told_from_the_containers_of_its_pod() -> Test {
    lab::containerd_or_skip!();
    let containerd = Containerd::shared()?;
    let pod = containerd.pod(&PodSpec {
        namespace: "default",
        name: "lonely",
        uid: "2f7a2b1c-5d34-4f6e-8a90-1b2c3d4e5f62",
        ..PodSpec::default()
    })?;
    // Somebody who entered the pod's network, as `kubectl debug node` does.
    let guest = containerd.lab().listen(&pod.netns, "tcp 127.0.0.1:22104")?;
    let run = ask(containerd, &["22104"])?;
    let path = run.is_found()?.path_in(&pod.netns)?;
    ensure!(path.pids() == [u64::from(guest.pid)], "{}", path.0);
    ensure!(path.hops()[0]["netns"]["name"] == "default/lonely", "{}", path.0);
    Ok(())
}

#[test]
fn a_runtime_in_a_container_is_asked_in_its_own_place() -> Test {
    lab::containerd_or_skip!();
    let node = "ab".repeat(32);
    let containerd = Containerd::start_in(&node)?;
    let pod = containerd.pod(&PodSpec {
        namespace: "default",
        name: "web-abc",
        uid: UID,
        ..PodSpec::default()
    })?;
    let web = pod.run("web", "listen tcp 0.0.0.0:22105", 22105)?;
    let run = ask(&containerd, &["22105"])?;
    let path = run.is_found()?.path_in(&pod.netns)?;
    ensure!(path.pids() == [u64::from(web.pid)], "{}", path.0);
    let containers = path.end()["containers"].as_array().context("no containers")?;
    let ids: Vec<&str> = containers.iter().filter_map(|c| c["id"].as_str()).collect();
    ensure!(ids == [node.as_str(), web.id.as_str()], "{ids:?}");
    ensure!(path.container() == Some("web"), "{}", path.0);
    ensure!(path.end()["pod"]["name"] == "web-abc", "{}", path.0);
    let text = path.end()["evidence"].to_string();
    ensure!(text.contains("containerd.sock in container abababababab"), "{text}");
    Ok(())
}
