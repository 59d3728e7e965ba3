//! What agents print, as the tool does.

use std::sync::Arc;

use serde_json::{Value, json};

/// A way of a NodePort to a pod, as a node tells it that has the pod (`pod` is its name) or
/// that sends it to another node.
pub fn service_path(port: u16, service: &str, address: &str, pod: Option<&str>) -> Value {
    let hop = |kind: &str, address: &str, port: u16, detail: &str| {
        json!({"kind": kind, "netns": {"inode": 4026531833u64, "name": "host"}, "address": address,
            "name": null, "port": port, "proto": "tcp", "detail": detail, "socket": null,
            "evidence": [{"source": "packet rules", "detail": "x".repeat(300)}]})
    };
    let taken = format!("NodePort of Service default/{service}, kube-proxy (iptables)");
    let last = match pod {
        Some(_) => hop("listener", "0.0.0.0", 80, "nginx, pid 812"),
        None => hop("off_node", address, 80, "leaves this node by next hop 10.0.0.1, by eth0"),
    };
    json!({
        "netns": {"inode": 4026531833u64, "name": "host"},
        "hops": [hop("service", "0.0.0.0", port, &taken), hop("dnat", address, 80, "50 %"), last],
        "from": ["node"], "contexts": [],
        "end": {
            "ending": if pod.is_some() { "process" } else { "elsewhere" },
            "why": if pod.is_some() { Value::Null } else { "no network namespace that is visible on this node has it".into() },
            "process": pod.map(|_| json!({"name": "nginx", "pid": 812, "cmdline": ["nginx", "x".repeat(500)]})),
            "processes": [], "containers": [],
            "container": pod.map(|_| json!({"name": "web", "image": "nginx:1.27", "runtime": "containerd"})),
            "pod": pod.map(|pod| json!({"namespace": "default", "name": pod, "owner": null})),
            "service": {"namespace": "default", "name": service, "port": "http"},
            "cluster": null, "component": null, "unit": null, "evidence": [],
        },
    })
}

/// A document with one answer that has these paths.
pub fn answer(node: &str, paths: &[Value]) -> Arc<str> {
    document(node, if paths.is_empty() { "not_found" } else { "found" }, paths)
}

/// A document that says that nothing is there, surely or not.
pub fn nothing(node: &str, sure: bool) -> Arc<str> {
    document(node, if sure { "not_found" } else { "unknown" }, &[])
}

fn document(node: &str, verdict: &str, paths: &[Value]) -> Arc<str> {
    let gap =
        json!({"source": "packet rules", "reason": "refused", "remedy": null, "impact": "port"});
    let gaps = if verdict == "unknown" { vec![gap] } else { Vec::new() };
    json!({
        "schema_version": 1, "tool_version": "0.1.0",
        "host": {"hostname": node, "kernel": "6.1.0", "own_netns": {}, "pid_namespace_is_initial": true, "euid": 0},
        "answers": [{"query": {"text": "30518"}, "verdict": verdict, "paths": paths, "reachable": [],
            "findings": [], "flows": null, "gaps": gaps}],
        "sources": [],
    })
    .to_string()
    .into()
}
