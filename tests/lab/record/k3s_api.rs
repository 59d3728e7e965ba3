//! The same k3s server with the API of its cluster: who asks it knows the pods of Cilium and
//! Hubble by name, and those of other nodes.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use lab::kube::{Endpoint, Service};
use lab::{K3sApi, K3sContainer, K3sPod, Lab, Proc};
use serde_json::json;

use crate::cut::Cut;
use crate::k3s::{self, ELSEWHERE, HERE, NODE};

/// Who the node is: what it is called in every recording.
const NAME: &str = "node1";
/// Its containers, by ids as long as containerd's.
const CILIUM: &str = "5d1f8f6a0c8f4f0e6a9d0d1f4b7c3e2a9182736455463728190afbecd1e2f304";
const NGINX: &str = "9be1a3c0d4f7e2856174a0c3b6d9e8f2314507968a7b5c4d3e2f10a9b8c7d6e5";
const OTHER_NGINX: &str = "41c7f0be29ad83561f0e9d8c7b6a594837261504f3e2d1c0bfae9d8c7b6a5948";
const RELAY: &str = "e30b7f4c19d2a86553f0c1e2d3b4a5968778695a4b3c2d1e0fa1b2c3d4e5f607";
const UI: &str = "7a95c3e1f0b24d6881f2e3d4c5b6a7988990a1b2c3d4e5f60718293a4b5c6d7e";
const UI_BACKEND: &str = "2f6d8b04a1c3e5f7980b1c2d3e4f5a6b7c8d9e0f102132435465768798a9bacb";
/// The pods of Hubble, on this node.
const RELAY_IP: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 118);
const UI_IP: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 63);

/// Records the node.
pub(crate) fn record(dir: &Path) -> Result<()> {
    if let Some(reason) = lab::no_kube() {
        bail!("{reason}");
    }
    let lab = Lab::new()?;
    k3s::links(&lab)?;
    let mut api = K3sApi::new(&lab, NODE)?;
    let behind = api.netns().path.to_str().context("path of a namespace")?;
    let mut running = Vec::from(k3s::server(&lab, &format!("--relay 6443:{behind}"))?);
    api.serve(NODE)?;
    nodes(&api)?;
    running.extend(pods(&lab, &api)?);
    services(&lab, &api)?;
    running.extend(k3s::forwards(&lab)?);

    // The node's name in the API is the host's.
    let named = ["unshare", "--uts", "sh", "-c", "hostname node1; exec \"$@\"", "sh"];
    let kubeconfig = api.kubeconfig();
    let kubeconfig = ["--kubeconfig", kubeconfig.to_str().context("path")?];
    let tool = lab.tool().through(&named).args(&kubeconfig);
    // The API is not of the node.
    let mut netns = lab.inodes();
    netns.retain(|inode| *inode != api.netns().inode);
    let cut = Cut { lab: lab.name(), netns: &netns, unit: "", wsl: false };
    crate::record(&lab, tool, &cut, dir, "k3s-api.json")
}

fn nodes(api: &K3sApi<'_>) -> Result<()> {
    let server = ["control-plane", "etcd", "master"];
    api.node(NAME, NODE, &server)?;
    api.node("server1", "192.168.50.55", &server)?;
    api.node("server3", "192.168.50.60", &server)?;
    api.node("agent1", "192.168.50.54", &[])
}

/// Tells the API of the pods, and starts what runs in those of this node.
fn pods(lab: &Lab, api: &K3sApi<'_>) -> Result<Vec<Proc>> {
    let mut running = Vec::new();
    let agent = K3sPod {
        namespace: "kube-system",
        name: "cilium-7x2qj",
        label: ("k8s-app", "cilium"),
        owner: ("DaemonSet", "cilium"),
        node: NAME,
        address: NODE,
        host_network: true,
        containers: &[K3sContainer {
            name: "cilium-agent",
            image: "quay.io/cilium/cilium:v1.14.4",
            port: Some(("peer-service", 4244)),
            id: CILIUM,
        }],
    };
    let uid = api.pod(&agent)?;
    running.extend(k3s::cilium(lab, &group("burstable", &uid, CILIUM))?);

    let nginx = K3sPod {
        namespace: "default",
        name: "my-nginx-684dd4dcd4-4kx2p",
        label: ("run", "my-nginx"),
        owner: ("ReplicaSet", "my-nginx-684dd4dcd4"),
        node: NAME,
        address: &HERE.to_string(),
        host_network: false,
        containers: &[K3sContainer {
            name: "my-nginx",
            image: "docker.io/library/nginx:latest",
            port: Some(("http", 80)),
            id: NGINX,
        }],
    };
    let other = K3sContainer { id: OTHER_NGINX, ..nginx.containers[0] };
    api.pod(&K3sPod {
        name: "my-nginx-684dd4dcd4-t9m6w",
        node: "agent1",
        address: &ELSEWHERE.to_string(),
        containers: &[other],
        ..nginx
    })?;
    let uid = api.pod(&nginx)?;
    let netns = k3s::pod(lab, "my-nginx", "lxc5e2f0a91b3c4", HERE)?;
    let inside = group("besteffort", &uid, NGINX);
    running.push(lab.listen_in(&netns, &inside, "tcp 0.0.0.0:80", &["nginx"])?);

    let relay = K3sPod {
        namespace: "kube-system",
        name: "hubble-relay-6f8fc7bf96-p9w4h",
        label: ("k8s-app", "hubble-relay"),
        owner: ("ReplicaSet", "hubble-relay-6f8fc7bf96"),
        address: &RELAY_IP.to_string(),
        containers: &[K3sContainer {
            name: "hubble-relay",
            image: "quay.io/cilium/hubble-relay:v1.14.4",
            port: Some(("grpc", 4245)),
            id: RELAY,
        }],
        ..nginx
    };
    let uid = api.pod(&relay)?;
    let netns = k3s::pod(lab, "hubble-relay", "lxc0b7d4e6f2a18", RELAY_IP)?;
    let inside = group("besteffort", &uid, RELAY);
    running.push(lab.listen_in(&netns, &inside, "tcp [::]:4245", &["hubble-relay", "serve"])?);

    let ui = K3sPod {
        name: "hubble-ui-6548d56557-mz8vr",
        label: ("k8s-app", "hubble-ui"),
        owner: ("ReplicaSet", "hubble-ui-6548d56557"),
        address: &UI_IP.to_string(),
        containers: &[
            K3sContainer {
                name: "frontend",
                image: "quay.io/cilium/hubble-ui:v0.12.1",
                port: Some(("http", 8081)),
                id: UI,
            },
            K3sContainer {
                name: "backend",
                image: "quay.io/cilium/hubble-ui-backend:v0.12.1",
                port: Some(("grpc", 8090)),
                id: UI_BACKEND,
            },
        ],
        ..relay
    };
    let uid = api.pod(&ui)?;
    let netns = k3s::pod(lab, "hubble-ui", "lxc9c3a5d1e7f40", UI_IP)?;
    for (id, listen, argv) in
        [(UI, "tcp 0.0.0.0:8081", "nginx"), (UI_BACKEND, "tcp [::]:8090", "/usr/bin/backend")]
    {
        let inside = group("besteffort", &uid, id);
        running.push(lab.listen_in(&netns, &inside, listen, &[argv])?);
    }
    Ok(running)
}

/// The Services in the API, and the rules that its kube-proxy would write for them.
fn services(lab: &Lab, api: &K3sApi<'_>) -> Result<()> {
    let nginx = json!({
        "type": "NodePort", "clusterIP": "10.43.209.89", "selector": {"run": "my-nginx"},
        "ports": [{"port": 80, "targetPort": 80, "nodePort": 30995}],
    });
    api.service("default", "my-nginx", &nginx, 2)?;
    let mut more = Vec::new();
    for (name, ip, port_name, target, pod, pod_port) in [
        ("hubble-relay", [10, 43, 117, 50], "", "grpc", RELAY_IP, 4245),
        ("hubble-ui", [10, 43, 38, 204], "http", "http", UI_IP, 8081),
    ] {
        let ip = Ipv4Addr::from(ip);
        let mut port = json!({"port": 80, "targetPort": target});
        if !port_name.is_empty() {
            port["name"] = json!(port_name);
        }
        let spec =
            json!({"clusterIP": ip.to_string(), "selector": {"k8s-app": name}, "ports": [port]});
        api.service("kube-system", name, &spec, 1)?;
        let mut service = Service::new(name, ip).to(&[Endpoint::here(pod, pod_port)]);
        service.namespace = "kube-system".to_owned();
        service.port_name = port_name.to_owned();
        more.push(service);
    }
    k3s::rules(lab, more)
}

/// The control group of a container: systemd's layout, as k3s uses it.
fn group(class: &str, uid: &str, container: &str) -> String {
    format!(
        "kubepods.slice/kubepods-{class}.slice/kubepods-{class}-pod{}.slice/\
         cri-containerd-{container}.scope",
        uid.replace('-', "_")
    )
}
