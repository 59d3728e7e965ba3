//! A k3s server with Cilium and Hubble.

use std::path::Path;

use anyhow::Result;
use lab::Lab;

use crate::cut::Cut;

/// The node's address.
const NODE: &str = "192.168.50.56";
/// The container of cilium-agent: systemd's layout, as k3s uses it.
const CILIUM: &str = "kubepods.slice/kubepods-burstable.slice/\
    kubepods-burstable-podb8f0f3d4_2b0c_4f6a_9a40_6a1c6d6f0a52.slice/\
    cri-containerd-5d1f8f6a0c8f4f0e6a9d0d1f4b7c3e2a9182736455463728190afbecd1e2f304.scope";

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
    let mut running = Vec::new();
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
