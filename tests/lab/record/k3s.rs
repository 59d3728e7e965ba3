//! A k3s server with Cilium and Hubble.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use lab::kube::{Endpoint, Proxy, Service, Shape};
use lab::{Backend, Lab, Netns, Proc};

use crate::cut::Cut;

/// The node's address.
pub(crate) const NODE: &str = "192.168.50.56";
/// The container of cilium-agent: systemd's layout, as k3s uses it.
const CILIUM: &str = "kubepods.slice/kubepods-burstable.slice/\
    kubepods-burstable-podb8f0f3d4_2b0c_4f6a_9a40_6a1c6d6f0a52.slice/\
    cri-containerd-5d1f8f6a0c8f4f0e6a9d0d1f4b7c3e2a9182736455463728190afbecd1e2f304.scope";

/// The container of the pod my-nginx, whose class of service is the lowest.
const NGINX: &str = "kubepods.slice/kubepods-besteffort.slice/\
    kubepods-besteffort-pod0c9d2f5e_77a1_4e0b_8d3f_52f6b1c3a9e4.slice/\
    cri-containerd-9be1a3c0d4f7e2856174a0c3b6d9e8f2314507968a7b5c4d3e2f10a9b8c7d6e5.scope";
/// Its address, and that of the other pod, which is on another node.
pub(crate) const HERE: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 202);
pub(crate) const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 188);

/// Records the node.
pub(crate) fn record(dir: &Path) -> Result<()> {
    let lab = Lab::new()?;
    links(&lab)?;
    let pod = pod(&lab, "my-nginx", "lxc5e2f0a91b3c4", HERE)?;
    rules(&lab, Vec::new())?;
    let mut running = vec![lab.listen_in(&pod, NGINX, "tcp 0.0.0.0:80", &["nginx"])?];
    running.extend(server(&lab, "")?);
    running.extend(cilium(&lab, CILIUM)?);
    running.extend(forwards(&lab)?);
    let cut = Cut { lab: lab.name(), netns: &lab.inodes(), unit: "", wsl: false };
    crate::record(&lab, lab.tool(), &cut, dir, "k3s.json")
}

/// The node's network, and Cilium's devices in it.
pub(crate) fn links(lab: &Lab) -> Result<()> {
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
    host.ip(&["route", "add", "10.42.0.77", "dev", "cilium_host", "scope", "link"])?;
    for pods in ["10.42.0.0/24", "10.42.1.0/24"] {
        let via = ["via", "10.42.0.77", "dev", "cilium_host", "src", "10.42.0.77"];
        host.ip(&[&["route", "add", pods][..], &via].concat())?;
    }
    for name in ["ip_forward", "conf/all/route_localnet"] {
        host.sysctl(&format!("ipv4/{name}"), "1")?;
    }
    Ok(())
}

/// The process of k3s, told `more`, and its containerd.
pub(crate) fn server(lab: &Lab, more: &str) -> Result<[Proc; 2]> {
    let listen = format!(
        "tcp [::]:6443 tcp 127.0.0.1:6444 tcp 127.0.0.1:2379 tcp {NODE}:2379 \
         tcp 127.0.0.1:2380 tcp {NODE}:2380 tcp 127.0.0.1:2381 tcp 127.0.0.1:2382 \
         tcp [::]:10250 tcp 127.0.0.1:10248 tcp 127.0.0.1:10249 tcp 127.0.0.1:10256 \
         tcp 127.0.0.1:10257 tcp 127.0.0.1:10258 tcp 127.0.0.1:10259 {more} --comm k3s-server"
    );
    let containerd = "containerd -c /var/lib/rancher/k3s/agent/etc/containerd/config.toml \
        -a /run/k3s/containerd/containerd.sock --state /run/k3s/containerd \
        --root /var/lib/rancher/k3s/agent/containerd";
    let containerd: Vec<&str> = containerd.split_whitespace().collect();
    let group = "system.slice/k3s.service";
    Ok([
        // k3s hides its arguments: this, in one, is all that is left of them.
        lab.listen_in(lab.host(), group, &listen, &["/usr/local/bin/k3s server"])?,
        lab.listen_in(lab.host(), group, "tcp 127.0.0.1:10010", &containerd)?,
    ])
}

/// Cilium's agent in its container, whose control group is `group`.
pub(crate) fn cilium(lab: &Lab, group: &str) -> Result<[Proc; 1]> {
    let listen = format!("tcp {NODE}:4240 tcp [::]:4244 tcp 127.0.0.1:9879 tcp 127.0.0.1:9890");
    let argv = ["cilium-agent", "--config-dir=/tmp/cilium/config-map"];
    Ok([lab.listen_in(lab.host(), group, &listen, &argv)?])
}

/// The two `kubectl port-forward` that `cilium hubble` starts.
pub(crate) fn forwards(lab: &Lab) -> Result<Vec<Proc>> {
    let all = [("svc/hubble-ui", "12000"), ("svc/hubble-relay", "4245")];
    let start = |(service, port): (&str, &str)| {
        let argv =
            format!("kubectl port-forward -n kube-system {service} --address 127.0.0.1 {port}:80");
        let argv: Vec<&str> = argv.split_whitespace().collect();
        let session = "user.slice/user-0.slice/session-7.scope";
        let listen = format!("tcp 127.0.0.1:{port} --under cilium");
        lab.listen_in(lab.host(), session, &listen, &argv)
    };
    all.into_iter().map(start).collect()
}

/// A pod's namespace, joined to the node as Cilium does it.
pub(crate) fn pod(lab: &Lab, name: &str, link: &str, address: Ipv4Addr) -> Result<Netns> {
    let (host, pod) = (lab.host(), lab.netns(name)?);
    host.ip(&["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", &pod.name])?;
    host.ip(&["link", "set", link, "up"])?;
    pod.address("eth0", &format!("{address}/32"))?;
    pod.ip(&["link", "set", "eth0", "up"])?;
    pod.ip(&["route", "add", "10.42.0.77", "dev", "eth0", "scope", "link"])?;
    pod.ip(&["route", "add", "default", "via", "10.42.0.77"])?;
    Ok(pod)
}

/// What the kube-proxy inside k3s 1.28 writes for the API's Service, that of my-nginx and `more`.
pub(crate) fn rules(lab: &Lab, more: Vec<Service>) -> Result<()> {
    let mut api = Service::new("kubernetes", Ipv4Addr::new(10, 43, 0, 1));
    api.port = 443;
    api.port_name = "https".to_owned();
    api.endpoints = vec![Endpoint::here(NODE.parse()?, 6443)];
    let nginx = Service::new("my-nginx", Ipv4Addr::new(10, 43, 209, 89))
        .on(30995)
        .to(&[Endpoint::here(HERE, 80), Endpoint::elsewhere(ELSEWHERE, 80)]);
    let mut services = vec![api, nginx];
    services.extend(more);
    let proxy = Proxy::new("10.42.0.0/16", services);
    lab.iptables(lab.host(), Backend::Nft, &proxy.iptables(Shape::Current))
}
