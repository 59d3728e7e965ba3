//! What must be true of the answers on a Docker host with three kind clusters.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use lab::{Test, View};
use serde_json::Value;

use super::{Answer, items};

/// The process at the end, and the cluster it belongs to.
pub(super) fn serves(path: View<'_>, process: &str, cluster: &str) -> Test {
    let end = path.end();
    ensure!(path.ending() == "process" && end["process"]["name"] == process, "{end}");
    let named = &end["cluster"];
    ensure!(named["name"] == cluster && named["distribution"] == "kind", "{named}");
    ensure!(named["role"] == "control-plane", "{named}");
    let node = format!("{cluster}-control-plane");
    ensure!(end["containers"][0]["name"] == node.as_str(), "{end}");
    ensure!(end["containers"][0]["image"] == "kindest/node:v1.20.2", "{end}");
    Ok(())
}

pub(super) fn api_server(answer: &Answer, cluster: &str, address: &str, port: u16) -> Test {
    let path = answer.path()?;
    let steps = path.steps();
    let expected = [
        format!("listener 127.0.0.1:{port}/tcp"),
        format!("forward {address}:6443/tcp"),
        "listener [::]:6443/tcp".to_owned(),
    ];
    ensure!(steps == expected, "{steps:?}");
    serves(path, "kube-apiserver", cluster)?;
    let pod = &path.end()["pod"];
    ensure!(pod["namespace"] == "kube-system", "{pod}");
    ensure!(pod["name"] == format!("kube-apiserver-{cluster}-control-plane"), "{pod}");
    ensure!(path.sources(1) == ["command line", "Docker API"], "{:?}", path.sources(1));
    answer.is_open("loopback", &format!("127.0.0.1:{port}"))?;
    answer.is_shut("outside")?;
    for other in ["cluster1", "cluster2", "cluster3"] {
        ensure!(other == cluster || !answer.text.contains(other), "{other} has no part in it");
    }
    Ok(())
}

/// As many listeners of `process` as `each` in every cluster, never merged.
pub(super) fn in_each_cluster(answer: &Answer, process: &str, each: usize) -> Test {
    let mut count: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for path in answer.paths() {
        let cluster = path.end()["cluster"]["name"].as_str().context("no cluster")?;
        serves(path, process, cluster)?;
        ensure!(path.hops().len() == 1, "{:?}", path.steps());
        let name = format!("{cluster}-control-plane");
        ensure!(path.0["netns"]["name"] == name.as_str(), "{}", path.0["netns"]);
        let inode = path.hops()[0]["socket"]["inode"].as_u64().context("no inode")?;
        ensure!(count.entry(cluster).or_default().insert(inode), "one socket twice");
    }
    let counts: Vec<(&str, usize)> = count.iter().map(|(name, all)| (*name, all.len())).collect();
    ensure!(counts == [("cluster1", each), ("cluster2", each), ("cluster3", each)], "{counts:?}");
    Ok(())
}

pub(super) fn three_api_servers(answer: &Answer) -> Test {
    in_each_cluster(answer, "kube-apiserver", 1)?;
    // Each by its own published port, and by its own address.
    for (port, address) in [(45381, "172.18.0.2"), (20971, "172.18.0.4"), (8876, "172.18.0.3")] {
        answer.is_open("loopback", &format!("127.0.0.1:{port}"))?;
        answer.is_open("node", &format!("{address}:6443"))?;
        answer.is_open("containers", &format!("{address}:6443"))?;
    }
    ensure!(answer.reach("loopback").len() == 3, "the host itself has no 6443");
    answer.is_shut("outside")
}

pub(super) fn etcd_of_each_cluster(answer: &Answer) -> Test {
    in_each_cluster(answer, "etcd", 2)?;
    answer.is_shut("loopback")?;
    answer.is_shut("outside")?;
    answer.is_open("node", "172.18.0.4:2379")
}

pub(super) fn kubelets(answer: &Answer) -> Test {
    in_each_cluster(answer, "kubelet", 1)?;
    answer.is_shut("loopback")?;
    answer.is_shut("outside")?;
    for path in answer.paths() {
        ensure!(items(&path.end()["containers"]).count() == 1, "kubelet is in no pod");
        ensure!(path.end()["pod"].is_null());
    }
    Ok(())
}

pub(super) fn controller_managers(answer: &Answer) -> Test {
    in_each_cluster(answer, "kube-controller-manager", 1)?;
    ["loopback", "node", "outside", "containers"].iter().try_for_each(|from| answer.is_shut(from))
}

/// The same whether kube-proxy holds a socket for the port or not: packets go by
/// its rules.
pub(super) fn node_port_of_cluster1(answer: &Answer) -> Test {
    let by_rules: Vec<_> = answer
        .paths()
        .into_iter()
        .filter(|path| path.end()["process"]["name"] == "nginx")
        .collect();
    ensure!(!by_rules.is_empty(), "no path ends in nginx");
    for path in by_rules {
        ensure!(path.0["netns"]["name"] == "cluster1-control-plane", "{}", path.0["netns"]);
        let end = path.end();
        ensure!(end["pod"]["name"] == "nginx-app" && end["pod"]["namespace"] == "default", "{end}");
        ensure!(end["cluster"]["name"] == "cluster1", "{end}");
        let last = path.hops().last().map(|hop| (hop["address"].clone(), hop["port"].clone()));
        let (address, port) = last.context("no hops")?;
        ensure!(address == "0.0.0.0" && port == 80, "{address}:{port}");
        let by_dnat = path.hops().iter().any(|hop| hop["address"] == "10.244.0.5");
        ensure!(by_dnat, "{:?}", path.steps());
    }
    for word in ["default/nginx-app", "10.244.0.5:80"] {
        ensure!(answer.text.contains(word), "{word} is not said");
    }
    answer.is_shut("loopback")?;
    answer.is_shut("outside")?;
    answer.is_open("node", "172.18.0.2:30518")?;
    answer.is_open("containers", "172.18.0.2:30518")?;
    let fixes = answer.fixes();
    for word in ["extraPortMappings", "30518", "recreate", "kind-cluster1", "port-forward"] {
        ensure!(fixes.contains(word), "{word}: {fixes}");
    }
    Ok(())
}

/// By Docker's proxy and by Docker's rules: nothing is behind either.
pub(super) fn published_and_nothing_behind(answer: &Answer) -> Test {
    let paths = answer.paths();
    let steps: Vec<_> = paths.iter().map(View::steps).collect();
    let expected = [
        ["listener 0.0.0.0:30001/tcp", "forward 172.18.0.3:30000/tcp"],
        ["dnat 0.0.0.0:30001/tcp", "dnat 172.18.0.3:30000/tcp"],
    ];
    ensure!(steps == expected, "{steps:?}");
    for path in &paths {
        ensure!(path.ending() == "nothing" && path.pids().is_empty());
        ensure!(path.end()["why"].as_str().is_some_and(|why| why.contains("30000")));
    }
    ensure!(paths[0].container() == Some("cluster3-control-plane"));
    ensure!(paths[0].end()["cluster"]["name"] == "cluster3");
    for from in ["loopback", "node", "outside", "containers"] {
        answer.is_shut(from)?;
    }
    ensure!(answer.fixes().contains("nodePort 30000"), "{}", answer.fixes());
    Ok(())
}

/// Docker Desktop: an owner exists and can't be seen; the name is Docker's word.
pub(super) fn desktop(answer: &Answer) -> Test {
    let path = answer.path()?;
    ensure!(path.ending() == "outside_pid_namespace" && path.pids().is_empty());
    ensure!(path.container() == Some("cluster2-control-plane"));
    ensure!(path.end()["cluster"]["name"] == "cluster2");
    ensure!(path.steps() == ["listener 127.0.0.1:20971/tcp", "forward 172.18.0.4:6443/tcp"]);
    ensure!(path.sources(1) == ["Docker API"], "{:?}", path.sources(1));
    for words in ["an owner exists", "PID namespace", "Docker Desktop", "Docker API"] {
        ensure!(answer.text.contains(words), "{words} is not said");
    }
    answer.is_open("loopback", "127.0.0.1:20971")
}

pub(super) fn desktop_inner(answer: &Answer) -> Test {
    let names: Vec<_> = answer.paths().iter().map(|path| path.container()).collect();
    let all = ["cluster1-control-plane", "cluster2-control-plane", "cluster3-control-plane"];
    ensure!(names == all.map(Some), "{names:?}");
    for path in answer.paths() {
        ensure!(path.ending() == "outside_pid_namespace" && path.pids().is_empty());
        ensure!(path.hops().iter().all(|hop| hop["kind"] != "listener"), "none is visible");
    }
    for port in [20971, 45381, 8876] {
        answer.is_open("loopback", &format!("127.0.0.1:{port}"))?;
    }
    ensure!(answer.text.contains("docker exec"));
    Ok(())
}

/// Not "nothing": what is inside the containers can't be seen.
pub(super) fn not_known(answer: &Answer) -> Test {
    ensure!(answer.answer()["verdict"] == "unknown" && answer.paths().is_empty());
    ensure!(items(&answer.answer()["gaps"]).any(|gap| gap["impact"] == "port"));
    Ok(())
}

pub(super) fn desktop_list(answer: &Answer) -> Test {
    let (sockets, rules): (Vec<&Value>, Vec<&Value>) =
        items(&answer.json["listeners"]).partition(|row| row["kind"] == "listener");
    ensure!(sockets.len() == 4, "{} sockets", sockets.len());
    ensure!(sockets.iter().all(|row| row["ending"] == "outside_pid_namespace"));
    // Docker's rules are in this namespace, though its processes can't be seen.
    // Those for loopback are never come to: what is sent there is docker-proxy's.
    ensure!(rules.len() == 1, "{} ports of rules", rules.len());
    ensure!(rules.iter().all(|row| row["taken_by"] == "Docker"), "{rules:?}");
    Ok(())
}
