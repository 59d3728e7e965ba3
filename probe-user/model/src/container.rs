//! Containers, pods, services and clusters, as far as their runtimes tell.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{ContainerKind, ContainerRef, Pid, PodRef, Port, Proto, ToldBy};

/// What runs a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// Docker Engine.
    Docker,
    /// Podman.
    Podman,
    /// containerd, by CRI or by `ctr`.
    Containerd,
    /// nerdctl on containerd.
    Nerdctl,
    /// CRI-O.
    CriO,
    /// LXC, LXD or Incus.
    Lxc,
    /// systemd-nspawn or another systemd-machined machine.
    Nspawn,
    /// Something whose cgroup has a container's shape but no runtime's mark.
    Unknown,
}

impl Runtime {
    /// The name as users write it.
    pub fn as_str(self) -> &'static str {
        self.described().name
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a runtime, or its state files, say of one container. Names, labels and
/// images are untrusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The runtime.
    pub runtime: Runtime,
    /// The full id (64 hex digits; the name for LXC and systemd-nspawn).
    pub id: String,
    /// The name, without Docker's leading slash.
    pub name: Option<String>,
    /// The image it was made from, as the user named it.
    pub image: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The networks it is attached to.
    pub networks: Vec<Network>,
    /// The ports it publishes or exposes.
    pub ports: Vec<Published>,
    /// Docker's network mode: `bridge`, `host`, `container:ID`, a network's name.
    pub network_mode: Option<String>,
    /// Its first process, in the tool's PID namespace.
    pub pid: Option<Pid>,
    /// The containers it runs inside of, outermost first.
    pub parents: Vec<ContainerRef>,
    /// The pod it belongs to.
    pub pod: Option<Pod>,
    /// Whether it is the sandbox (`pause`) that holds its pod's namespaces.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sandbox: bool,
    /// Which sort of its pod's containers it is. Only the API says: to a runtime all are alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort: Option<ContainerKind>,
    /// Its state, as its runtime calls it (`exited`, `paused`), where it was asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Who said all this: `Docker API`, `Podman API`, `state file /var/lib/…`.
    pub via: ToldBy,
}

impl Container {
    fn label(&self, label: &str) -> Option<&str> {
        self.labels.get(label).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The Compose project and its service that it is of. podman-compose sets its own labels,
    /// and Docker's.
    pub fn compose(&self) -> Option<(&str, &str)> {
        let of = |prefix: &str| {
            let label = |name: &str| self.label(&format!("{prefix}.compose.{name}"));
            Some((label("project")?, label("service")?))
        };
        of("com.docker").or_else(|| of("io.podman"))
    }

    /// The service of a swarm that it is a task of.
    pub fn swarm_service(&self) -> Option<&str> {
        self.label("com.docker.swarm.service.name")
    }

    /// The systemd unit that runs it, as Podman's units and quadlets say.
    pub fn systemd_unit(&self) -> Option<&str> {
        self.label("PODMAN_SYSTEMD_UNIT").filter(|_| self.runtime == Runtime::Podman)
    }

    /// The cluster its labels name: kind, k3d, minikube and Talos label their
    /// node containers.
    pub fn cluster(&self) -> Option<Cluster> {
        const LABELS: [(&str, &str, &str); 4] = [
            ("io.x-k8s.kind.cluster", "kind", "io.x-k8s.kind.role"),
            ("k3d.cluster", "k3d", "k3d.role"),
            ("name.minikube.sigs.k8s.io", "minikube", "role.minikube.sigs.k8s.io"),
            ("talos.cluster.name", "talos", "talos.type"),
        ];
        LABELS.into_iter().find_map(|(label, distribution, role)| {
            let name = self.labels.get(label).filter(|n| !n.is_empty())?;
            Some(Cluster {
                name: name.clone(),
                distribution: distribution.to_owned(),
                role: self.labels.get(role).filter(|r| !r.is_empty()).cloned(),
                node: self.name.clone(),
                source: format!("label {label}"),
            })
        })
    }
}

impl Container {
    /// Whether a swarm made it for a service: its ports are the service's.
    pub fn is_swarm_task(&self) -> bool {
        self.labels.contains_key("com.docker.swarm.service.id")
    }
}

/// A network that a container is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The container's addresses there.
    pub addresses: Vec<IpAddr>,
    /// Its driver, as the engine calls it (`bridge`, `macvlan`), where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Whether the engine lets nothing in or out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
}

impl Network {
    /// A network of which nothing more is known.
    pub fn new(name: impl Into<String>, addresses: Vec<IpAddr>) -> Self {
        Self { name: name.into(), addresses, driver: None, internal: false }
    }

    /// Whether the engine publishes no ports of containers on it.
    pub fn publishes_nothing(&self) -> bool {
        self.internal || matches!(self.driver.as_deref(), Some("macvlan" | "ipvlan" | "null"))
    }
}

/// A port that a container publishes on its host, or only exposes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// The protocol.
    pub proto: Proto,
    /// The port inside the container.
    pub container_port: Port,
    /// The port on the host; `None` when it is only exposed.
    pub host_port: Option<Port>,
    /// The host's address it is bound to; `None` when not said.
    pub host_ip: Option<IpAddr>,
}

/// A Kubernetes pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its UID as the kubelet uses it: for a static pod the hash of its manifest.
    pub uid: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether it uses the node's network, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_network: Option<bool>,
    /// Whether the kubelet runs it from a manifest of its own, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_static: Option<bool>,
    /// What made it, as the API says: `ReplicaSet/my-nginx-6d4cf56db6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The node it runs on, as the API says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The zone it is in, as the EndpointSlices of a Service say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl From<&PodRef> for Pod {
    fn from(pod: &PodRef) -> Self {
        let is_static = is_manifest_hash(&pod.uid).then_some(true);
        Self { uid: Some(pod.uid.clone()), is_static, ..Self::default() }
    }
}

/// Whether a pod's UID is no UUID but the hash of a manifest, which the kubelet
/// gives to the pods that it runs from files.
pub fn is_manifest_hash(uid: &str) -> bool {
    uid.len() == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A Kubernetes service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The port's name or number.
    pub port: Option<String>,
}

/// A Kubernetes cluster, as named by something on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name; empty where only what made it is known.
    pub name: String,
    /// What made it: `kind`, `k3d`, `minikube`, `talos`.
    pub distribution: String,
    /// The node's role in it: `control-plane`, `worker`.
    pub role: Option<String>,
    /// The node's name.
    pub node: Option<String>,
    /// How this is known.
    pub source: String,
}
