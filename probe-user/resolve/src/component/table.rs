//! What components listen on. The ports are those of their sources and documents; an
//! option that moves one is looked at first.

use std::net::IpAddr;

use super::arguments::Arguments;
use whereis_port_model::{End, Proto, StopKind};

/// A component, and what its port is for.
type ComponentRole = (&'static str, &'static str);

/// What ports of a Kubernetes API are called.
const API: &str = "Kubernetes API";
const API_OPEN: &str = "Kubernetes API without TLS and without login";
const API_AND_JOINS: &str = "Kubernetes API, and joins of nodes";
const API_BEHIND: &str = "Kubernetes API behind 6443";
const API_OF_MICROK8S: &str = "Kubernetes API of MicroK8s";

/// Whether a role of this table is that of a Kubernetes API.
pub(super) fn is_api(role: &str) -> bool {
    [API, API_OPEN, API_AND_JOINS, API_BEHIND, API_OF_MICROK8S].contains(&role)
}

/// What a program uses this port for.
pub(super) fn role(
    program: &str,
    arguments: &Arguments<'_>,
    end: &End,
    (proto, address, port): (Proto, Option<IpAddr>, u16),
) -> Option<ComponentRole> {
    let loopback = address.is_some_and(|address| address.is_loopback());
    if proto == Proto::Udp {
        return udp(program, port);
    }
    let fixed = |name: &'static str, ports: &[(u16, &'static str)]| {
        ports.iter().find(|(known, _)| *known == port).map(|(_, role)| (name, *role))
    };
    match program {
        "kube-apiserver" => {
            if port == arguments.port("secure-port", 6443) {
                Some(("kube-apiserver", API))
            } else if port == arguments.port("insecure-port", 8080) && port != 0 {
                Some(("kube-apiserver", API_OPEN))
            } else {
                None
            }
        }
        "etcd" => {
            if arguments.names("listen-client-urls", port, 2379) {
                Some(("etcd", "etcd for its clients: API servers"))
            } else if arguments.names("listen-peer-urls", port, 2380) {
                Some(("etcd", "etcd for its peers"))
            } else if arguments.names("listen-metrics-urls", port, 2381) {
                Some(("etcd", "metrics and health of etcd"))
            } else {
                None
            }
        }
        "kubelet" => [
            ("port", 10250, "kubelet API: logs, exec, metrics"),
            ("healthz-port", 10248, "health of kubelet"),
            ("read-only-port", 10255, "kubelet API, read-only, without login"),
        ]
        .into_iter()
        .find(|(option, default, _)| arguments.port(option, *default) == port)
        .map(|(_, _, role)| ("kubelet", role))
        .or_else(|| loopback.then_some(("kubelet", "streams of exec and attach"))),
        "kube-controller-manager" => {
            if port == arguments.port("secure-port", 10257) || port == arguments.port("port", 10252)
            {
                Some(("kube-controller-manager", "metrics and health of the controller manager"))
            } else {
                None
            }
        }
        "kube-scheduler" => {
            if port == arguments.port("secure-port", 10259) || port == arguments.port("port", 10251)
            {
                Some(("kube-scheduler", "metrics and health of the scheduler"))
            } else {
                None
            }
        }
        "cloud-controller-manager" => (port == arguments.port("secure-port", 10258)).then_some((
            "cloud-controller-manager",
            "metrics and health of the cloud controller manager",
        )),
        "kube-proxy" => {
            if arguments.names("metrics-bind-address", port, 10249) {
                Some(("kube-proxy", "metrics of kube-proxy"))
            } else if arguments.names("healthz-bind-address", port, 10256) {
                Some(("kube-proxy", "health of kube-proxy, for load balancers"))
            } else if end.stop == Some(StopKind::Reserved) {
                Some(("kube-proxy", "holds the port of a Service"))
            } else if super::super::owner::NODE_PORTS.contains(&port) {
                Some(("kube-proxy", "holds a NodePort, or is a Service's health check"))
            } else {
                None
            }
        }
        "k3s" | "k3s-server" | "k3s-agent" | "rke2" => k3s(program, arguments, port),
        "kubelite" => fixed(
            "kubelite",
            &[
                (16443, API),
                (10250, "kubelet API: logs, exec, metrics"),
                (10248, "health of kubelet"),
                (10249, "metrics of kube-proxy"),
                (10255, "kubelet API, read-only, without login"),
                (10256, "health of kube-proxy, for load balancers"),
                (10257, "metrics and health of the controller manager"),
                (10259, "metrics and health of the scheduler"),
            ],
        ),
        "k0s" => fixed(
            "k0s",
            &[
                (9443, "joins of nodes"),
                (8132, "konnectivity agents"),
                (8133, "konnectivity administration"),
            ],
        ),
        "machine-config-server" => fixed(
            "machine-config-server",
            &[(22623, "configuration of new nodes"), (22624, "configuration of new nodes, no TLS")],
        ),
        "microshift-etcd" => fixed(
            "microshift-etcd",
            &[(2379, "etcd for its clients: API servers"), (2380, "etcd for its peers")],
        ),
        "k8s-dqlite" => fixed("k8s-dqlite", &[(19001, "dqlite, for API servers and peers")]),
        "microshift" => fixed(
            "microshift",
            &[
                (6443, API),
                (10250, "kubelet API: logs, exec, metrics"),
                (10248, "health of kubelet"),
                (10257, "metrics and health of the controller manager"),
                (10259, "metrics and health of the scheduler"),
            ],
        ),
        "containerd" => {
            if port == 1338 {
                Some(("containerd", "metrics of containerd"))
            } else {
                loopback.then_some(("containerd", "CRI streams of exec, attach and port-forward"))
            }
        }
        "crio" => {
            if port == 9537 {
                Some(("crio", "metrics of CRI-O"))
            } else {
                loopback.then_some(("crio", "CRI streams of exec, attach and port-forward"))
            }
        }
        "dockerd" => {
            if address == Some(IpAddr::from([127, 0, 0, 11])) {
                return Some(("dockerd", "embedded DNS of Docker"));
            }
            fixed(
                "dockerd",
                &[
                    (2375, "Docker API without TLS: whoever reaches it is root here"),
                    (2376, "Docker API"),
                    (2377, "management of a swarm"),
                    (7946, "gossip of a swarm"),
                    (9323, "metrics of Docker"),
                ],
            )
        }
        "coredns" => fixed(
            "coredns",
            &[
                (53, "DNS of the cluster"),
                (9153, "metrics of CoreDNS"),
                (8080, "health of CoreDNS"),
                (8181, "readiness of CoreDNS"),
            ],
        ),
        "node-cache" => fixed(
            "node-local-dns",
            &[
                (53, "DNS cache of the node"),
                (9253, "metrics of the DNS cache"),
                (8080, "health of the DNS cache"),
            ],
        ),
        "cilium-agent" | "cilium-health-responder" => fixed(
            "cilium-agent",
            &[
                (4240, "health checks between Cilium's nodes"),
                (4244, "Hubble server, for hubble-relay"),
                (4250, "mutual authentication"),
                (4251, "health of the SPIRE agent"),
                (6060, "profiles of the Cilium agent"),
                (9879, "health of the Cilium agent"),
                (9890, "gops of the Cilium agent"),
                (9962, "metrics of the Cilium agent"),
                (9965, "metrics of Hubble"),
            ],
        ),
        "cilium-operator"
        | "cilium-operator-generic"
        | "cilium-operator-aws"
        | "cilium-operator-azure" => fixed(
            "cilium-operator",
            &[
                (9234, "API of the Cilium operator"),
                (9891, "gops of the Cilium operator"),
                (9963, "metrics of the Cilium operator"),
                (6061, "profiles of the Cilium operator"),
            ],
        ),
        // https://istio.io/latest/docs/ops/deployment/application-requirements/
        "envoy" if arguments.has("istio/proxy/") => fixed(
            "istio-proxy",
            &[
                (15000, "administration of Istio's sidecar"),
                (15001, "Istio's sidecar, for what goes out"),
                (15006, "Istio's sidecar, for what comes in"),
                (15008, "HBONE of Istio's sidecar: its tunnel by mutual TLS"),
                (15021, "health of Istio's sidecar"),
                (15090, "metrics of Istio's sidecar"),
            ],
        ),
        "pilot-agent" => fixed(
            "istio-agent",
            &[
                (15004, "debug interface of Istio's agent"),
                (15020, "metrics and health of Istio's agent"),
                (15053, "DNS of Istio's agent"),
            ],
        ),
        "ztunnel" => fixed(
            "ztunnel",
            &[
                (15000, "administration of ztunnel"),
                (15001, "ztunnel of Istio, for what goes out"),
                (15006, "ztunnel of Istio, for what comes in"),
                (15008, "HBONE of ztunnel: the mesh's tunnel by mutual TLS"),
                (15020, "metrics of ztunnel"),
                (15021, "health of ztunnel"),
                (15053, "DNS of ztunnel"),
                (15080, "SOCKS of ztunnel"),
            ],
        ),
        "linkerd2-proxy" => fixed(
            "linkerd-proxy",
            &[
                (4140, "Linkerd's proxy, for what goes out"),
                (4143, "Linkerd's proxy, for what comes in"),
                (4190, "tap of Linkerd's proxy"),
                (4191, "administration and metrics of Linkerd's proxy"),
            ],
        ),
        "cilium-envoy" => fixed(
            "cilium-envoy",
            &[
                (9878, "health of Cilium's Envoy"),
                (9901, "administration of Cilium's Envoy"),
                (9964, "metrics of Cilium's Envoy"),
            ],
        ),
        "hubble-relay" => fixed(
            "hubble-relay",
            &[
                (4245, "Hubble relay, for its clients"),
                (9893, "gops of hubble-relay"),
                (6062, "profiles of hubble-relay"),
                (9966, "metrics of hubble-relay"),
            ],
        ),
        "calico-node" => {
            fixed("calico-node", &[(9099, "health of Felix"), (9091, "metrics of Felix")])
        }
        "calico-typha" => fixed(
            "calico-typha",
            &[
                (5473, "Typha, for Felix on each node"),
                (9098, "health of Typha"),
                (9093, "metrics of Typha"),
            ],
        ),
        "bird" | "bird6" | "gobgpd" | "bgpd" => fixed("bgp", &[(179, "BGP")]),
        "speaker" | "controller" if is_of_metallb(end) => fixed(
            "metallb",
            &[
                (7472, "metrics of MetalLB"),
                (7946, "memberlist of MetalLB"),
                (9443, "webhook of MetalLB"),
            ],
        ),
        "nginx-ingress-controller" | "nginx-ingress" => fixed(
            "ingress-nginx",
            &[
                (10254, "metrics and health of ingress-nginx"),
                (8443, "admission webhook of ingress-nginx"),
            ],
        ),
        "traefik" => fixed(
            "traefik",
            &[
                (80, "HTTP of the ingress"),
                (443, "HTTPS of the ingress"),
                (8000, "HTTP of the ingress"),
                (8443, "HTTPS of the ingress"),
                (8080, "health and dashboard of Traefik"),
                (9000, "health and dashboard of Traefik"),
                (9100, "metrics of Traefik"),
            ],
        ),
        "metrics-server" => (port == arguments.port("secure-port", 10250) || port == 4443)
            .then_some(("metrics-server", "metrics API, for the API server")),
        "node_exporter" => fixed("node_exporter", &[(9100, "metrics of the node")]),
        "apid" => fixed("talos", &[(50000, "API of Talos")]),
        "trustd" => fixed("talos", &[(50001, "trust of Talos")]),
        _ => None,
    }
}

fn udp(program: &str, port: u16) -> Option<ComponentRole> {
    match (program, port) {
        ("coredns", 53) => Some(("coredns", "DNS of the cluster")),
        ("node-cache", 53) => Some(("node-local-dns", "DNS cache of the node")),
        ("flanneld", 8285) => Some(("flanneld", "packets between nodes (udp backend)")),
        ("dockerd", 7946) => Some(("dockerd", "gossip of a swarm")),
        ("speaker", 7946) => Some(("metallb", "memberlist of MetalLB")),
        _ => None,
    }
}

/// One process with many roles: the port tells which.
fn k3s(program: &str, arguments: &Arguments<'_>, port: u16) -> Option<ComponentRole> {
    let agent = program == "k3s-agent" || arguments.command() == Some("agent");
    let name = match (program, agent) {
        ("rke2", true) => "rke2 agent",
        ("rke2", false) => "rke2",
        (_, true) => "k3s agent",
        (_, false) => "k3s server",
    };
    let role = match port {
        10248 => "health of kubelet",
        10249 => "metrics of kube-proxy",
        10250 => "kubelet API: logs, exec, metrics",
        10256 => "health of kube-proxy, for load balancers",
        // The API of RKE2 is a process of its own.
        6443 | 6444 if agent || program == "rke2" => {
            "load balancer of this node's clients to the servers"
        }
        5001 => "peers of the embedded registry",
        9345 => "joins of nodes",
        _ if agent => return None,
        6443 => API_AND_JOINS,
        6444 => API_BEHIND,
        2379 => "etcd for its clients: API servers",
        2380 => "etcd for its peers",
        2381 => "metrics and health of etcd",
        2382 => "etcd for its clients, by HTTP",
        10252 | 10257 => "metrics and health of the controller manager",
        10258 => "metrics and health of the cloud controller manager",
        10251 | 10259 => "metrics and health of the scheduler",
        _ => return None,
    };
    Some((name, role))
}

/// "speaker" and "controller" are anybody's names.
fn is_of_metallb(end: &End) -> bool {
    let image = end.containers.last().and_then(|container| container.image.as_deref());
    let namespace = end.pod.as_ref().and_then(|pod| pod.namespace.as_deref());
    image.is_some_and(|image| image.contains("metallb"))
        || namespace.is_some_and(|namespace| namespace.starts_with("metallb"))
}

/// What a tunnel device is of, by the name that its maker gives it.
pub(super) fn device(name: &str) -> Option<ComponentRole> {
    Some(match name {
        "cilium_vxlan" | "cilium_geneve" => ("cilium", "packets between Cilium's nodes"),
        "cilium_wg0" => ("cilium", "packets between Cilium's nodes, encrypted"),
        "vxlan.calico" | "vxlan-v6.calico" => ("calico", "packets between Calico's nodes"),
        "wireguard.cali" | "wg-v6.cali" => ("calico", "packets between Calico's nodes, encrypted"),
        "flannel-wg" | "flannel-wg-v6" => ("flannel", "packets between flannel's nodes, encrypted"),
        "genev_sys_6081" => ("ovs", "packets between nodes of Open vSwitch"),
        "vxlan_sys_4789" => ("ovs", "packets between nodes of Open vSwitch"),
        "antrea-tun0" => ("antrea", "packets between Antrea's nodes"),
        _ if name.starts_with("flannel.") => ("flannel", "packets between flannel's nodes"),
        _ => return None,
    })
}

/// What usually has a port. No proof of anything.
pub(super) fn usual(proto: Proto, port: u16) -> Option<ComponentRole> {
    const TCP: [(u16, ComponentRole); 18] = [
        (2379, ("etcd", "etcd for its clients: API servers")),
        (2380, ("etcd", "etcd for its peers")),
        (2381, ("etcd", "metrics and health of etcd")),
        (4240, ("cilium-agent", "health checks between Cilium's nodes")),
        (4244, ("cilium-agent", "Hubble server, for hubble-relay")),
        (4245, ("hubble-relay", "Hubble relay, for its clients")),
        (6443, ("kube-apiserver", API)),
        (9345, ("rke2", "joins of nodes")),
        (10248, ("kubelet", "health of kubelet")),
        (10249, ("kube-proxy", "metrics of kube-proxy")),
        (10250, ("kubelet", "kubelet API: logs, exec, metrics")),
        (10256, ("kube-proxy", "health of kube-proxy, for load balancers")),
        (10257, ("kube-controller-manager", "metrics and health of the controller manager")),
        (10258, ("cloud-controller-manager", "metrics and health of the cloud controller manager")),
        (10259, ("kube-scheduler", "metrics and health of the scheduler")),
        (16443, ("kubelite", API_OF_MICROK8S)),
        (50000, ("talos", "API of Talos")),
        (50001, ("talos", "trust of Talos")),
    ];
    const UDP: [(u16, ComponentRole); 4] = [
        (4789, ("vxlan", "packets between nodes (VXLAN)")),
        (6081, ("geneve", "packets between nodes (GENEVE)")),
        (8472, ("vxlan", "packets between nodes (VXLAN of flannel or Cilium)")),
        (51871, ("cilium", "packets between Cilium's nodes, encrypted")),
    ];
    let table: &[(u16, ComponentRole)] = if proto == Proto::Tcp { &TCP } else { &UDP };
    table.iter().find(|(known, _)| *known == port).map(|(_, role)| *role)
}
