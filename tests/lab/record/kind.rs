//! Three kind clusters on one Docker, as the host sees them and as a WSL2
//! distribution with Docker Desktop would.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use lab::kube::{Endpoint, Proxy, Service, Shape};
use lab::{Backend, Docker, KindNode, Netns, Proc};

use crate::cut::Cut;

/// Hides the namespaces that are pinned by mounts: a WSL2 distribution has
/// mounts of its own. `--mount-proc` has made them private before.
const DISTRIBUTION: &str = r#"
    awk '{ for (i = 7; i < NF; i++) if ($i == "-" && $(i + 1) == "nsfs") print $5 }' \
        /proc/self/mountinfo | sort -r | while read -r point; do umount -l "$point"; done
    exec "$@""#;

/// One cluster of one node.
struct Cluster {
    name: &'static str,
    address: &'static str,
    published: &'static str,
    /// Whether the Service nginx-app is there, on a NodePort.
    has_nginx: bool,
}

/// The NodePort of nginx-app.
const NODE_PORT: u16 = 30518;

const CLUSTERS: [Cluster; 3] = [
    Cluster {
        name: "cluster1",
        address: "172.18.0.2",
        published: "-p 127.0.0.1:45381:6443",
        has_nginx: true,
    },
    Cluster {
        name: "cluster2",
        address: "172.18.0.4",
        published: "-p 127.0.0.1:20971:6443",
        has_nginx: false,
    },
    Cluster {
        name: "cluster3",
        address: "172.18.0.3",
        published: "-p 0.0.0.0:30001:30000 -p 127.0.0.1:8876:6443",
        has_nginx: false,
    },
];

/// Records both views of the host, and the host with a later kube-proxy.
pub(crate) fn record(dir: &Path) -> Result<()> {
    record_with(Shape::V1_20, dir)?;
    record_with(Shape::Current, dir)
}

fn record_with(shape: Shape, dir: &Path) -> Result<()> {
    let docker = Docker::start()?;
    let lab = docker.lab();
    lab.host().ip(&["tuntap", "add", "dev", "eth0", "mode", "tap"])?;
    lab.host().address("eth0", "192.168.1.20/24")?;
    lab.host().ip(&["link", "set", "eth0", "up"])?;
    docker.network("kind", "172.18.0.0/16")?;
    let mut nodes = Vec::new();
    for cluster in &CLUSTERS {
        let name = format!("{}-control-plane", cluster.name);
        let options = format!("--network kind --ip {} {}", cluster.address, cluster.published);
        nodes.push(docker.kind_node(&name, cluster.name, &options)?);
    }
    let mut running = Vec::new();
    for (cluster, node) in CLUSTERS.iter().zip(&nodes) {
        running.extend(start(cluster, node, shape)?);
        running.extend(services(&docker, cluster, node, shape)?);
    }
    if shape == Shape::Current {
        let cut = Cut { lab: lab.name(), netns: &lab.inodes(), unit: "docker.service", wsl: false };
        return crate::record(lab, lab.tool(), &cut, dir, "kind-1.24.json");
    }
    let cut = Cut { lab: lab.name(), netns: &lab.inodes(), unit: "docker.service", wsl: false };
    crate::record(lab, lab.tool(), &cut, dir, "kind.json")?;

    let distribution = ["unshare", "-pf", "--mount-proc", "sh", "-c", DISTRIBUTION, "sh"];
    let socket = format!("unix://{}", docker.socket().display());
    let tool = lab.tool().through(&distribution).env("DOCKER_HOST", &socket);
    crate::record(lab, tool, &Cut { wsl: true, ..cut }, dir, "kind-wsl2.json")
}

/// Starts the components of a control-plane node.
fn start(cluster: &Cluster, node: &KindNode<'_>, shape: Shape) -> Result<Vec<Proc>> {
    // kube-proxy held the NodePorts of its services until 1.23.
    let held = if cluster.has_nginx && shape == Shape::V1_20 {
        format!(" tcp 0.0.0.0:{NODE_PORT}")
    } else {
        String::new()
    };
    let ip = cluster.address;
    let host = &node.container.name;
    let pod = |name: &str, listen: &str, argv: &str| component(node, None, name, listen, argv);
    let mut running = vec![
        node.daemon("containerd.service", "tcp 127.0.0.1:0", &["/usr/local/bin/containerd"])?,
        pod(
            "kube-controller-manager",
            "tcp 127.0.0.1:10257",
            &format!(
                "kube-controller-manager --bind-address=127.0.0.1 --cluster-cidr=10.244.0.0/16 \
                 --cluster-name={} --port=0 --service-cluster-ip-range=10.96.0.0/16",
                cluster.name
            ),
        )?,
        pod(
            "kube-scheduler",
            "tcp 127.0.0.1:10259",
            "kube-scheduler --bind-address=127.0.0.1 --port=0",
        )?,
        pod(
            "kube-apiserver",
            "tcp [::]:6443",
            &format!(
                "kube-apiserver --advertise-address={ip} --etcd-servers=https://127.0.0.1:2379 \
                 --insecure-port=0 --secure-port=6443 \
                 --service-account-issuer=https://kubernetes.default.svc.cluster.local \
                 --service-cluster-ip-range=10.96.0.0/16 \
                 --tls-cert-file=/etc/kubernetes/pki/apiserver.crt"
            ),
        )?,
        pod(
            "etcd",
            &format!("tcp 127.0.0.1:2379 tcp {ip}:2379 tcp {ip}:2380 tcp 127.0.0.1:2381"),
            &format!(
                "etcd --advertise-client-urls=https://{ip}:2379 --data-dir=/var/lib/etcd \
                 --initial-cluster={host}=https://{ip}:2380 \
                 --listen-client-urls=https://127.0.0.1:2379,https://{ip}:2379 \
                 --listen-metrics-urls=http://127.0.0.1:2381 \
                 --listen-peer-urls=https://{ip}:2380 --name={host}"
            ),
        )?,
    ];
    let kubelet = format!(
        "/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml --container-runtime=remote \
         --container-runtime-endpoint=unix:///run/containerd/containerd.sock --node-ip={ip} \
         --provider-id=kind://docker/{}/{host} --cgroup-root=/kubelet",
        cluster.name
    );
    let kubelet: Vec<&str> = kubelet.split_whitespace().collect();
    running.push(node.daemon("kubelet.service", "tcp 127.0.0.1:10248 tcp [::]:10250", &kubelet)?);
    running.push(pod(
        "kube-proxy",
        &format!("tcp 127.0.0.1:10249 tcp [::]:10256{held}"),
        &format!(
            "/usr/local/bin/kube-proxy --config=/var/lib/kube-proxy/config.conf \
             --hostname-override={host}"
        ),
    )?);
    Ok(running)
}

/// The rules that kube-proxy writes, and the pod of nginx-app.
fn services(
    docker: &Docker,
    cluster: &Cluster,
    node: &KindNode<'_>,
    shape: Shape,
) -> Result<Option<Proc>> {
    let netns = &node.container.netns;
    for name in ["ip_forward", "conf/all/route_localnet"] {
        netns.sysctl(&format!("ipv4/{name}"), "1")?;
    }
    let mut api = Service::new("kubernetes", Ipv4Addr::new(10, 96, 0, 1));
    api.port = 443;
    api.port_name = "https".to_owned();
    api.endpoints = vec![Endpoint::here(cluster.address.parse()?, 6443)];
    let mut proxy = Proxy::new("10.244.0.0/16", vec![api]);
    let mut running = None;
    if cluster.has_nginx {
        let ip = Ipv4Addr::new(10, 244, 0, 5);
        let pod = pod_netns(docker, node, ip)?;
        running = Some(component(node, Some(&pod), "nginx-app", "tcp 0.0.0.0:80", "nginx")?);
        proxy.services.push(
            Service::new("nginx-app", Ipv4Addr::new(10, 96, 5, 127))
                .on(NODE_PORT)
                .to(&[Endpoint::here(ip, 80)]),
        );
    }
    // Docker's resolver has rules in there too, by the same backend.
    docker.lab().iptables(netns, Backend::Nft, &proxy.iptables(shape))?;
    Ok(running)
}

/// A namespace for a pod, joined to its node as kindnet does.
fn pod_netns(docker: &Docker, node: &KindNode<'_>, ip: Ipv4Addr) -> Result<Netns> {
    let lab = docker.lab();
    let pod = lab.netns("nginx-app")?;
    let pid = node.container.pid.to_string();
    let link = "link add eth0 type veth peer name veth5f3a9c21 netns";
    let link: Vec<&str> = link.split(' ').chain([pid.as_str()]).collect();
    pod.ip(&link)?;
    pod.address("eth0", &format!("{ip}/24"))?;
    pod.ip(&["link", "set", "eth0", "up"])?;
    for words in [
        "ip address add 10.244.0.1/32 dev veth5f3a9c21",
        "ip link set veth5f3a9c21 up",
        &format!("ip route add {ip}/32 dev veth5f3a9c21"),
    ] {
        let argv: Vec<&str> = words.split(' ').collect();
        let status = lab.command(&node.container.netns, &argv)?.status()?;
        anyhow::ensure!(status.success(), "{words}: {status}");
    }
    pod.ip(&["route", "replace", "10.244.0.1/32", "dev", "eth0", "scope", "link"])?;
    pod.ip(&["route", "add", "default", "via", "10.244.0.1"])?;
    Ok(pod)
}

/// Starts a component in a container of its pod, and leaves in the node what
/// containerd keeps there of such a container.
fn component(
    node: &KindNode<'_>,
    netns: Option<&Netns>,
    name: &str,
    listen: &str,
    argv: &str,
) -> Result<Proc> {
    let host = &node.container.name;
    // A static pod is called after its node; its uid is a hash of its manifest.
    let random = hex(&format!("pod {name} {host}"), 32);
    let parts = [&random[..8], &random[8..12], &random[12..16], &random[16..20], &random[20..]];
    let (pod, uid) = match name {
        "kube-proxy" => (format!("{name}-{}", &random[..5]), parts.join("-")),
        "nginx-app" => (name.to_owned(), parts.join("-")),
        _ => (format!("{name}-{host}"), random),
    };
    let id = hex(&format!("container {name} {host}"), 64);
    let bundle = serde_json::json!({
        "ociVersion": "1.0.2",
        "annotations": {
            "io.kubernetes.cri.container-name": name,
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.image-name": match name {
                "etcd" => "k8s.gcr.io/etcd:3.4.13-0".to_owned(),
                "nginx-app" => "docker.io/library/nginx:latest".to_owned(),
                _ => format!("k8s.gcr.io/{name}:v1.20.2"),
            },
            "io.kubernetes.cri.sandbox-name": pod,
            "io.kubernetes.cri.sandbox-namespace": if netns.is_some() {
                "default"
            } else {
                "kube-system"
            },
        },
    });
    let dir = format!(
        "/proc/{}/root/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}",
        node.container.pid
    );
    std::fs::create_dir_all(&dir)?;
    std::fs::write(format!("{dir}/config.json"), bundle.to_string())?;
    let argv: Vec<&str> = argv.split_whitespace().collect();
    let started = match netns {
        Some(netns) => node.pod(netns, &uid, &id, listen, &argv)?,
        None => node.component(&uid, &id, listen, &argv)?,
    };
    Ok(started.0)
}

/// Hexadecimal digits that look random and are the same in every recording.
fn hex(of: &str, digits: usize) -> String {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    let mut text = String::new();
    let mut bytes = of.bytes().cycle();
    while text.len() < digits {
        for byte in bytes.by_ref().take(of.len() + 1) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        text.push_str(&format!("{state:016x}"));
    }
    text.truncate(digits);
    text
}
