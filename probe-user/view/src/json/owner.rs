//! Who holds a listener: processes, containers, pods, services, clusters.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use whereis_port_model as model;

use super::{ProcessState, Proto};

/// What stands for the value of a label that holds a secret.
const REDACTED: &str = "(redacted)";

/// Last parts of the keys of labels that hold secrets: k3d stores its
/// cluster's join token in `k3d.cluster.token`.
const SECRET_KEYS: [&str; 4] = ["token", "password", "passwd", "secret"];

/// A process.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Process<'a> {
    /// Its id in the tool's PID namespace.
    pub pid: u32,
    /// Its id in its own PID namespace, when that is another one.
    pub inner_pid: Option<u32>,
    /// Its id in each PID namespace it is in, outermost first.
    pub nspid: &'a [u32],
    /// The name people know it by: `comm`, completed where the kernel cut it.
    pub name: &'a str,
    /// Its name for the kernel, at most 15 bytes.
    pub comm: &'a str,
    /// Its arguments.
    pub cmdline: &'a [String],
    /// Its executable, as seen in its own mount namespace.
    pub exe: Option<&'a str>,
    /// Its working directory, likewise.
    pub cwd: Option<&'a str>,
    /// Its real user id.
    pub uid: u32,
    /// The user's name on this host; null when it has none here.
    pub user: Option<&'a str>,
    /// Its start in clock ticks since boot: with `pid`, its identity.
    pub start_ticks: u64,
    /// Its start in seconds since the epoch.
    pub started_at: Option<u64>,
    /// Its cgroup's path.
    pub cgroup: Option<&'a str>,
    /// The inode of its network namespace, which may not be the socket's.
    pub netns_inode: Option<u64>,
    /// Its parents, nearest first.
    pub ancestors: Vec<Ancestor<'a>>,
    /// Whether it runs; null where not known.
    pub state: Option<ProcessState>,
    /// Whether its cgroup is frozen; null where not known.
    pub frozen: Option<bool>,
    /// Whether the file that it runs was removed or replaced since; null where not known.
    pub program_deleted: Option<bool>,
}

impl<'a> From<&'a model::Process> for Process<'a> {
    fn from(process: &'a model::Process) -> Self {
        Self {
            pid: process.pid,
            inner_pid: process.inner_pid(),
            nspid: &process.nspid,
            name: process.name(),
            comm: &process.comm,
            cmdline: &process.cmdline,
            exe: process.exe.as_deref(),
            cwd: process.cwd.as_deref(),
            uid: process.uid,
            user: process.user.as_deref(),
            start_ticks: process.start.0,
            started_at: process.started_at,
            cgroup: process.cgroup.as_ref().map(|c| c.0.as_str()),
            netns_inode: process.netns.and_then(model::NetnsId::inode),
            ancestors: process.ancestors.iter().map(Into::into).collect(),
            state: process.health.state.map(Into::into),
            frozen: process.health.frozen,
            program_deleted: process.health.program_deleted,
        }
    }
}

/// A parent of a process.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Ancestor<'a> {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: &'a str,
}

impl<'a> From<&'a model::Ancestor> for Ancestor<'a> {
    fn from(ancestor: &'a model::Ancestor) -> Self {
        Self { pid: ancestor.pid, comm: &ancestor.comm }
    }
}

/// A container.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Container<'a> {
    /// The runtime: `docker`, `podman`, `containerd`, `nerdctl`, `cri-o`, `lxc`,
    /// `systemd-nspawn`, `unknown runtime`.
    pub runtime: &'a str,
    /// The full id.
    pub id: &'a str,
    /// The name.
    pub name: Option<&'a str>,
    /// The image, as the user named it.
    pub image: Option<&'a str>,
    /// Its labels. Values of labels that hold secrets are redacted.
    pub labels: BTreeMap<&'a str, &'a str>,
    /// The Compose project and service that it is of.
    pub compose: Option<Compose<'a>>,
    /// The service of a swarm that it is a task of.
    pub swarm_service: Option<&'a str>,
    /// The systemd unit that runs it, of Podman's units and quadlets.
    pub systemd_unit: Option<&'a str>,
    /// The networks it is attached to.
    pub networks: Vec<Network<'a>>,
    /// The ports it publishes or exposes.
    pub ports: Vec<Published>,
    /// `bridge`, `host`, `container:ID`, a network's name.
    pub network_mode: Option<&'a str>,
    /// Its first process, in the tool's PID namespace.
    pub pid: Option<u32>,
    /// Whether it is the sandbox (`pause`) that holds its pod's namespaces.
    pub sandbox: bool,
    /// Which of its pod's containers it is: `main`, `init`, `sidecar` (an init container that
    /// is restarted always) or `ephemeral`; null where no Kubernetes API said.
    pub sort: Option<ContainerSort>,
    /// Who said all this: `Docker API`, `cgroup path`.
    pub via: String,
}

impl<'a> From<&'a model::Container> for Container<'a> {
    fn from(container: &'a model::Container) -> Self {
        Self {
            runtime: container.runtime.as_str(),
            id: &container.id,
            name: container.name.as_deref(),
            image: container.image.as_deref(),
            labels: container.labels.iter().map(|(k, v)| (k.as_str(), label_value(k, v))).collect(),
            compose: container.compose().map(|(project, service)| Compose { project, service }),
            swarm_service: container.swarm_service(),
            systemd_unit: container.systemd_unit(),
            networks: container.networks.iter().map(Into::into).collect(),
            ports: container.ports.iter().map(Into::into).collect(),
            network_mode: container.network_mode.as_deref(),
            pid: container.pid,
            sandbox: container.sandbox,
            sort: container.sort.map(Into::into),
            via: container.via.to_string(),
        }
    }
}

/// A service of a Compose project.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Compose<'a> {
    /// The project.
    pub project: &'a str,
    /// The service.
    pub service: &'a str,
}

/// The sorts of container in a pod.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContainerSort {
    /// One that the pod is there for.
    Main,
    /// One that runs before the others.
    Init,
    /// An init container that goes on beside the others.
    Sidecar,
    /// One that was added for debugging.
    Ephemeral,
}

impl From<model::ContainerKind> for ContainerSort {
    fn from(sort: model::ContainerKind) -> Self {
        match sort {
            model::ContainerKind::Main => Self::Main,
            model::ContainerKind::Init => Self::Init,
            model::ContainerKind::Sidecar => Self::Sidecar,
            model::ContainerKind::Ephemeral => Self::Ephemeral,
        }
    }
}

/// A label's value, or what stands for it when its key says that it is a secret.
fn label_value<'a>(key: &str, value: &'a str) -> &'a str {
    let last = key.rsplit(['.', '/', '-', '_']).next().unwrap_or(key);
    if SECRET_KEYS.iter().any(|secret| last.eq_ignore_ascii_case(secret)) {
        REDACTED
    } else {
        value
    }
}

/// A network that a container is attached to.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Network<'a> {
    /// Its name.
    pub name: &'a str,
    /// The container's addresses there.
    pub addresses: &'a [IpAddr],
}

impl<'a> From<&'a model::Network> for Network<'a> {
    fn from(network: &'a model::Network) -> Self {
        Self { name: &network.name, addresses: &network.addresses }
    }
}

/// A port that a container publishes, or only exposes.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Published {
    /// The protocol.
    pub proto: Proto,
    /// The port inside the container.
    pub container_port: u16,
    /// The port on the host; null when it is only exposed.
    pub host_port: Option<u16>,
    /// The host's address it is bound to; null when not said.
    pub host_ip: Option<IpAddr>,
}

impl From<&model::Published> for Published {
    fn from(port: &model::Published) -> Self {
        Self {
            proto: port.proto.into(),
            container_port: port.container_port.0,
            host_port: port.host_port.map(|p| p.0),
            host_ip: port.host_ip,
        }
    }
}

/// A part of Kubernetes or of what runs around it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Component<'a> {
    /// Its name: `kube-apiserver`, `etcd`.
    pub name: &'a str,
    /// What the port is for.
    pub role: &'a str,
    /// Whether process and arguments (or a device) prove it; if not, only the number of the
    /// port speaks for it.
    pub confirmed: bool,
    /// Certificates, configurations and directories that its arguments name.
    pub files: Vec<NamedFile<'a>>,
}

impl<'a> From<&'a model::Component> for Component<'a> {
    fn from(component: &'a model::Component) -> Self {
        let file = |(option, path): &'a (String, String)| NamedFile { option, path };
        Self {
            name: &component.name,
            role: &component.role,
            confirmed: component.confirmed,
            files: component.files.iter().map(file).collect(),
        }
    }
}

/// A file that an argument names.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NamedFile<'a> {
    /// The option: `--tls-cert-file`.
    pub option: &'a str,
    /// The path, as its process sees it.
    pub path: &'a str,
}

/// A Kubernetes pod.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Pod<'a> {
    /// Its namespace.
    pub namespace: Option<&'a str>,
    /// Its name.
    pub name: Option<&'a str>,
    /// Its UID; for a static pod the hash of its manifest.
    pub uid: Option<&'a str>,
    /// Its labels. Values of labels that hold secrets are redacted.
    pub labels: BTreeMap<&'a str, &'a str>,
    /// Whether it uses the node's network; null when not known.
    pub host_network: Option<bool>,
    /// Whether the kubelet runs it from a manifest of its own; null when not known.
    pub is_static: Option<bool>,
    /// What made it: `ReplicaSet/my-nginx-6d4cf56db6`.
    pub owner: Option<&'a str>,
    /// The node it runs on, as the API says.
    pub node: Option<&'a str>,
    /// The zone it is in, as the EndpointSlices of a Service say.
    pub zone: Option<&'a str>,
}

impl<'a> From<&'a model::Pod> for Pod<'a> {
    fn from(pod: &'a model::Pod) -> Self {
        Self {
            namespace: pod.namespace.as_deref(),
            name: pod.name.as_deref(),
            uid: pod.uid.as_deref(),
            labels: pod.labels.iter().map(|(k, v)| (k.as_str(), label_value(k, v))).collect(),
            host_network: pod.host_network,
            is_static: pod.is_static,
            owner: pod.owner.as_deref(),
            node: pod.node.as_deref(),
            zone: pod.zone.as_deref(),
        }
    }
}

/// A Kubernetes service.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Service<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The port's name or number.
    pub port: Option<&'a str>,
}

impl<'a> From<&'a model::Service> for Service<'a> {
    fn from(service: &'a model::Service) -> Self {
        Self { namespace: &service.namespace, name: &service.name, port: service.port.as_deref() }
    }
}

/// A Kubernetes cluster.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Cluster<'a> {
    /// Its name; null where only what made it is known.
    pub name: Option<&'a str>,
    /// What made it: `kind`, `k3d`, `minikube`, `talos`.
    pub distribution: &'a str,
    /// The node's role in it.
    pub role: Option<&'a str>,
    /// The node's name.
    pub node: Option<&'a str>,
    /// How this is known.
    pub source: &'a str,
}

impl<'a> From<&'a model::Cluster> for Cluster<'a> {
    fn from(cluster: &'a model::Cluster) -> Self {
        Self {
            name: Some(cluster.name.as_str()).filter(|name| !name.is_empty()),
            distribution: &cluster.distribution,
            role: cluster.role.as_deref(),
            node: cluster.node.as_deref(),
            source: &cluster.source,
        }
    }
}
