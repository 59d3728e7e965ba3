//! A k3s server with Cilium and Hubble.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use lab::kube::{Endpoint, Proxy, Service, Shape};
use lab::{Backend, Lab, Netns};

use crate::cut::Cut;

/// The node's address.
const NODE: &str = "192.168.50.56";
/// The container of cilium-agent: systemd's layout, as k3s uses it.
const CILIUM: &str = "kubepods.slice/kubepods-burstable.slice/\
    kubepods-burstable-podb8f0f3d4_2b0c_4f6a_9a40_6a1c6d6f0a52.slice/\
    cri-containerd-5d1f8f6a0c8f4f0e6a9d0d1f4b7c3e2a9182736455463728190afbecd1e2f304.scope";

/// The container of the pod my-nginx, whose class of service is the lowest.
const NGINX: &str = "kubepods.slice/kubepods-besteffort.slice/\
    kubepods-besteffort-pod0c9d2f5e_77a1_4e0b_8d3f_52f6b1c3a9e4.slice/\
    cri-containerd-9be1a3c0d4f7e2856174a0c3b6d9e8f2314507968a7b5c4d3e2f10a9b8c7d6e5.scope";
/// Its address, and that of the other pod, which is on another node.
const HERE: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 202);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 188);

/// Records the node.
pub(crate) fn record(dir: &Path) -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host();
    host.ip(&["tuntap", "add", "dev", "eth0", "mode", "tap"])?;
    host.address("eth0", &format!("{NODE}/24"))?;
    host.ip(&["link", "set", "eth0", "up"])?;
    host.ip(&["route", "add", "default", "via", "192.168.50.1"])?;
    for name in ["cilium_host", "cilium_net"] {
        if name == "cilium_host" {
            host.ip(&["link", "add", name, "type", "veth", "peer", "name", "cilium_net"])?;
            host.address(name, "10.42.0.77/32")?;
        }
        host.ip(&["link", "set", name, "up"])?;
    }
    host.ip(&["link", "add", "cilium_vxlan", "type", "vxlan", "external", "dstport", "8472"])?;
    host.ip(&["link", "set", "cilium_vxlan", "up"])?;
    let pod = pod(&lab)?;
    rules(&lab)?;

    let k3s = "system.slice/k3s.service";
    let session = "user.slice/user-0.slice/session-7.scope";
    let server = format!(
        "tcp [::]:6443 tcp 127.0.0.1:6444 tcp 127.0.0.1:2379 tcp {NODE}:2379 \
         tcp 127.0.0.1:2380 tcp {NODE}:2380 tcp 127.0.0.1:2381 tcp 127.0.0.1:2382 \
         tcp [::]:10250 tcp 127.0.0.1:10248 tcp 127.0.0.1:10249 tcp 127.0.0.1:10256 \
         tcp 127.0.0.1:10257 tcp 127.0.0.1:10258 tcp 127.0.0.1:10259 --comm k3s-server"
    );
    let agent = format!("tcp {NODE}:4240 tcp [::]:4244 tcp 127.0.0.1:9879 tcp 127.0.0.1:9890");
    let forward = |service: &str, ports: &str| {
        format!("kubectl port-forward -n kube-system {service} --address 127.0.0.1 {ports}")
    };
    let (ui, relay) =
        (forward("svc/hubble-ui", "12000:80"), forward("svc/hubble-relay", "4245:80"));
    let containerd = "containerd -c /var/lib/rancher/k3s/agent/etc/containerd/config.toml \
        -a /run/k3s/containerd/containerd.sock --state /run/k3s/containerd \
        --root /var/lib/rancher/k3s/agent/containerd";
    let processes = [
        // k3s hides its arguments: this is all that is left of them.
        (k3s, server.as_str(), "/usr/local/bin/k3s server"),
        (k3s, "tcp 127.0.0.1:10010", containerd),
        (CILIUM, &agent, "cilium-agent --config-dir=/tmp/cilium/config-map"),
        (session, "tcp 127.0.0.1:12000 --under cilium", &ui),
        (session, "tcp 127.0.0.1:4245 --under cilium", &relay),
    ];
    let mut running = vec![lab.listen_in(&pod, NGINX, "tcp 0.0.0.0:80", &["nginx"])?];
    for (group, listen, argv) in processes {
        let argv: Vec<&str> = match argv.strip_suffix("k3s server") {
            // One argument with a space in it, as k3s rewrites its own.
            Some(_) => vec![argv],
            None => argv.split_whitespace().collect(),
        };
        running.push(lab.listen_in(host, group, listen, &argv)?);
    }
    let cut = Cut { lab: lab.name(), netns: &lab.inodes(), unit: "", wsl: false };
    crate::record(&lab, lab.tool(), &cut, dir, "k3s.json")
}

/// The pod's namespace, and the ways to the pods as Cilium lays them.
fn pod(lab: &Lab) -> Result<Netns> {
    let (host, pod) = (lab.host(), lab.netns("my-nginx")?);
    let link = "lxc5e2f0a91b3c4";
    host.ip(&["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", &pod.name])?;
    host.ip(&["link", "set", link, "up"])?;
    pod.address("eth0", &format!("{HERE}/32"))?;
    pod.ip(&["link", "set", "eth0", "up"])?;
    pod.ip(&["route", "add", "10.42.0.77", "dev", "eth0", "scope", "link"])?;
    pod.ip(&["route", "add", "default", "via", "10.42.0.77"])?;
    host.ip(&["route", "add", "10.42.0.77", "dev", "cilium_host", "scope", "link"])?;
    for pods in ["10.42.0.0/24", "10.42.1.0/24"] {
        let via = ["via", "10.42.0.77", "dev", "cilium_host", "src", "10.42.0.77"];
        host.ip(&[&["route", "add", pods][..], &via].concat())?;
    }
    for name in ["ip_forward", "conf/all/route_localnet"] {
        host.sysctl(&format!("ipv4/{name}"), "1")?;
    }
    Ok(pod)
}

/// What the kube-proxy inside k3s 1.28 writes.
fn rules(lab: &Lab) -> Result<()> {
    let mut api = Service::new("kubernetes", Ipv4Addr::new(10, 43, 0, 1));
    api.port = 443;
    api.port_name = "https".to_owned();
    api.endpoints = vec![Endpoint::here(NODE.parse()?, 6443)];
    let nginx = Service::new("my-nginx", Ipv4Addr::new(10, 43, 209, 89))
        .on(30995)
        .to(&[Endpoint::here(HERE, 80), Endpoint::elsewhere(ELSEWHERE, 80)]);
    let proxy = Proxy::new("10.42.0.0/16", vec![api, nginx]);
    lab.iptables(lab.host(), Backend::Nft, &proxy.iptables(Shape::Current))
}
