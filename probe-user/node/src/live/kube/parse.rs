//! Objects of the API as JSON, and what of them is kept. Fields that an older version
//! does not have, or that a newer one adds, do no harm.

pub(super) mod names;
mod objects;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer};

use whereis_port_model::{
    ContainerKind, KubeContainer, KubeContainerPort, KubeEndpoint, KubeEndpointPort, KubeEndpoints,
    KubeNode, KubePod, KubeService, KubeServicePort, ObjectName, Port, Proto, ServiceKind,
};

pub(super) use objects::Object;

/// A list that may be `null`, as Go writes an empty one.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(from)?.unwrap_or_default())
}

/// A map that may be `null`.
fn map<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::<BTreeMap<String, String>>::deserialize(from)?.unwrap_or_default())
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    deletion_timestamp: Option<String>,
    #[serde(deserialize_with = "map")]
    labels: BTreeMap<String, String>,
    annotations: Option<Annotations>,
    #[serde(deserialize_with = "list")]
    owner_references: Vec<OwnerReference>,
}

/// The only annotations that are used: others hold whole objects.
#[derive(Deserialize, Default)]
struct Annotations {
    #[serde(rename = "kubernetes.io/config.hash")]
    config_hash: Option<String>,
    #[serde(rename = "kubernetes.io/ingress.class")]
    ingress_class: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct OwnerReference {
    kind: String,
    name: String,
    controller: Option<bool>,
}

impl Meta {
    fn name(&self) -> ObjectName {
        ObjectName { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// A number or a name.
#[derive(Deserialize)]
#[serde(untagged)]
enum IntOrString {
    Int(i64),
    String(String),
}

fn proto(name: Option<&str>) -> Option<Proto> {
    match name {
        None | Some("" | "TCP") => Some(Proto::Tcp),
        Some("UDP") => Some(Proto::Udp),
        Some(_) => None,
    }
}

fn port(number: Option<i64>) -> Option<Port> {
    number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0).map(Port)
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = Vec::new();
    for address in texts.into_iter().filter_map(|text| text.parse().ok()) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

#[derive(Deserialize)]
pub(super) struct Service {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: ServiceSpec,
    #[serde(default)]
    status: ServiceStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    r#type: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs", deserialize_with = "list")]
    cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs", deserialize_with = "list")]
    external_ips: Vec<String>,
    external_traffic_policy: Option<String>,
    internal_traffic_policy: Option<String>,
    session_affinity: Option<String>,
    health_check_node_port: Option<i64>,
    #[serde(deserialize_with = "list")]
    ports: Vec<ServicePort>,
    #[serde(deserialize_with = "map")]
    selector: BTreeMap<String, String>,
    external_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<i64>,
    target_port: Option<IntOrString>,
    node_port: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: LoadBalancer,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LoadBalancer {
    #[serde(deserialize_with = "list")]
    ingress: Vec<LoadBalancerIngress>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LoadBalancerIngress {
    ip: Option<String>,
}

impl Service {
    pub(super) fn into_model(self) -> KubeService {
        let spec = self.spec;
        let local = |policy: Option<&str>| policy == Some("Local");
        KubeService {
            gateway: self.metadata.labels.get(names::GATEWAY_NAME).cloned(),
            name: self.metadata.name(),
            kind: match spec.r#type.as_deref() {
                Some("NodePort") => ServiceKind::NodePort,
                Some("LoadBalancer") => ServiceKind::LoadBalancer,
                Some("ExternalName") => ServiceKind::ExternalName,
                _ => ServiceKind::ClusterIp,
            },
            // "None" of a headless Service is no address.
            cluster_ips: addresses(spec.cluster_ip.iter().chain(&spec.cluster_ips)),
            external_ips: addresses(&spec.external_ips),
            load_balancer_ips: addresses(
                self.status.load_balancer.ingress.iter().filter_map(|i| i.ip.as_ref()),
            ),
            external_local: local(spec.external_traffic_policy.as_deref()),
            internal_local: local(spec.internal_traffic_policy.as_deref()),
            affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
            health_check_node_port: port(spec.health_check_node_port),
            ports: spec.ports.into_iter().filter_map(ServicePort::into_model).collect(),
            selector: spec.selector,
            external_name: spec.external_name.filter(|name| !name.is_empty()),
        }
    }
}

impl ServicePort {
    fn into_model(self) -> Option<KubeServicePort> {
        let number = port(self.port)?;
        Some(KubeServicePort {
            name: self.name.filter(|name| !name.is_empty()),
            proto: proto(self.protocol.as_deref()),
            port: number,
            target: match self.target_port {
                Some(IntOrString::Int(0)) | None => number.to_string(),
                Some(IntOrString::Int(target)) => target.to_string(),
                Some(IntOrString::String(name)) => name,
            },
            node_port: port(self.node_port),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Slice {
    #[serde(default)]
    metadata: Meta,
    #[serde(default, deserialize_with = "list")]
    ports: Vec<EndpointPort>,
    #[serde(default, deserialize_with = "list")]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct EndpointPort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<i64>,
}

impl EndpointPort {
    fn into_model(self) -> KubeEndpointPort {
        KubeEndpointPort {
            name: self.name.filter(|name| !name.is_empty()),
            proto: proto(self.protocol.as_deref()),
            port: port(self.port),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    #[serde(deserialize_with = "list")]
    addresses: Vec<String>,
    conditions: Conditions,
    node_name: Option<String>,
    zone: Option<String>,
    target_ref: Option<TargetRef>,
    /// `v1beta1` has node and zone in here.
    #[serde(deserialize_with = "map")]
    topology: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TargetRef {
    kind: String,
    namespace: Option<String>,
    name: String,
}

impl TargetRef {
    fn pod(self, namespace: &str) -> Option<ObjectName> {
        let namespace = self.namespace.unwrap_or_else(|| namespace.to_owned());
        (self.kind == "Pod").then_some(ObjectName { namespace, name: self.name })
    }
}

impl Slice {
    pub(super) fn into_model(self, service: &ObjectName) -> KubeEndpoints {
        let endpoint = |e: Endpoint| {
            // What is not said of readiness is ready; serving is so then, too.
            let ready = e.conditions.ready.unwrap_or(true);
            KubeEndpoint {
                addresses: addresses(&e.addresses),
                ready,
                serving: e.conditions.serving.unwrap_or(ready),
                terminating: e.conditions.terminating.unwrap_or(false),
                node: e.node_name.or_else(|| e.topology.get("kubernetes.io/hostname").cloned()),
                zone: e.zone.or_else(|| e.topology.get("topology.kubernetes.io/zone").cloned()),
                pod: e.target_ref.and_then(|target| target.pod(&service.namespace)),
            }
        };
        KubeEndpoints {
            service: service.clone(),
            ports: self.ports.into_iter().map(EndpointPort::into_model).collect(),
            endpoints: self.endpoints.into_iter().map(endpoint).collect(),
        }
    }
}

/// The older Endpoints.
#[derive(Deserialize)]
pub(super) struct Endpoints {
    #[serde(default, deserialize_with = "list")]
    subsets: Vec<Subset>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Subset {
    #[serde(deserialize_with = "list")]
    addresses: Vec<EndpointAddress>,
    #[serde(deserialize_with = "list")]
    not_ready_addresses: Vec<EndpointAddress>,
    #[serde(deserialize_with = "list")]
    ports: Vec<EndpointPort>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct EndpointAddress {
    ip: String,
    node_name: Option<String>,
    target_ref: Option<TargetRef>,
}

impl Endpoints {
    pub(super) fn into_model(self, service: &ObjectName) -> Vec<KubeEndpoints> {
        let subset = |subset: Subset| {
            let endpoint = |ready: bool| {
                move |at: EndpointAddress| KubeEndpoint {
                    addresses: addresses([&at.ip]),
                    ready,
                    serving: ready,
                    terminating: false,
                    node: at.node_name,
                    zone: None,
                    pod: at.target_ref.and_then(|target| target.pod(&service.namespace)),
                }
            };
            let ready = subset.addresses.into_iter().map(endpoint(true));
            let others = subset.not_ready_addresses.into_iter().map(endpoint(false));
            KubeEndpoints {
                service: service.clone(),
                ports: subset.ports.into_iter().map(EndpointPort::into_model).collect(),
                endpoints: ready.chain(others).collect(),
            }
        };
        self.subsets.into_iter().map(subset).collect()
    }
}

#[derive(Deserialize)]
pub(super) struct Pod {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
    #[serde(deserialize_with = "list")]
    containers: Vec<Container>,
    #[serde(deserialize_with = "list")]
    init_containers: Vec<Container>,
    #[serde(deserialize_with = "list")]
    ephemeral_containers: Vec<Container>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    image: Option<String>,
    /// Only init containers have one of their own.
    restart_policy: Option<String>,
    #[serde(deserialize_with = "list")]
    ports: Vec<ContainerPort>,
    readiness_probe: Option<Probe>,
}

/// What is asked of a container, by one of these.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Probe {
    http_get: Option<ProbeAt>,
    tcp_socket: Option<ProbeAt>,
    grpc: Option<ProbeAt>,
    exec: Option<ProbeCommand>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ProbeAt {
    scheme: Option<String>,
    host: Option<String>,
    port: Option<IntOrString>,
    path: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ProbeCommand {
    #[serde(deserialize_with = "list")]
    command: Vec<String>,
}

impl Probe {
    fn words(self) -> Option<String> {
        let at = |at: &ProbeAt| {
            let port = match &at.port {
                Some(IntOrString::Int(port)) => port.to_string(),
                Some(IntOrString::String(name)) => name.clone(),
                None => String::new(),
            };
            let host = at.host.as_deref().unwrap_or_default();
            format!("{host}:{port}{}", at.path.as_deref().unwrap_or_default())
        };
        let words = match self {
            Self { http_get: Some(one), .. } => {
                format!("{} GET {}", one.scheme.as_deref().unwrap_or("HTTP"), at(&one))
            }
            Self { tcp_socket: Some(one), .. } => format!("TCP connect to {}", at(&one)),
            Self { grpc: Some(one), .. } => format!("gRPC health check of {}", at(&one)),
            Self { exec: Some(one), .. } => format!("command {}", one.command.join(" ")),
            _ => return None,
        };
        Some(short(&words))
    }
}

/// The beginning of the first line of a text that may be anybody's.
fn short(text: &str) -> String {
    const MOST: usize = 160;
    text.lines().next().unwrap_or_default().chars().take(MOST).collect()
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort {
    name: Option<String>,
    protocol: Option<String>,
    container_port: Option<i64>,
    host_port: Option<i64>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs", deserialize_with = "list")]
    pod_ips: Vec<PodIp>,
    #[serde(deserialize_with = "list")]
    container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "list")]
    init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "list")]
    ephemeral_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "list")]
    conditions: Vec<PodCondition>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodCondition {
    r#type: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
}

impl PodCondition {
    /// Why a pod is on no node, where this says so.
    fn unscheduled(&self) -> Option<String> {
        (self.r#type == "PodScheduled" && self.status == "False").then_some(())?;
        let words = self.message.as_deref().or(self.reason.as_deref());
        Some(short(words.unwrap_or("the scheduler found no node for it")))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    ready: bool,
    #[serde(rename = "restartCount")]
    restart_count: i64,
    state: ContainerState,
    #[serde(rename = "lastState")]
    last_state: ContainerState,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ContainerState {
    waiting: Option<Waiting>,
    running: Option<serde::de::IgnoredAny>,
    terminated: Option<Terminated>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Waiting {
    reason: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Terminated {
    #[serde(rename = "exitCode")]
    exit_code: Option<i32>,
}

impl Pod {
    pub(super) fn into_model(self) -> KubePod {
        let (meta, spec, status) = (self.metadata, self.spec, self.status);
        let owner = meta.owner_references.iter().find(|owner| owner.controller == Some(true));
        let sorts = [
            (spec.containers, ContainerKind::Main, &status.container_statuses),
            (spec.init_containers, ContainerKind::Init, &status.init_container_statuses),
            (
                spec.ephemeral_containers,
                ContainerKind::Ephemeral,
                &status.ephemeral_container_statuses,
            ),
        ];
        let containers = sorts.into_iter().flat_map(|(all, sort, statuses)| {
            all.into_iter().map(move |container| {
                let status = statuses.iter().find(|status| status.name == container.name);
                container.into_model(sort, status)
            })
        });
        KubePod {
            name: meta.name(),
            is_ending: meta.deletion_timestamp.is_some(),
            config_hash: meta.annotations.and_then(|annotations| annotations.config_hash),
            uid: meta.uid,
            node: spec.node_name.filter(|node| !node.is_empty()),
            phase: status.phase,
            host_network: spec.host_network.unwrap_or(false),
            ips: addresses(status.pod_ip.iter().chain(status.pod_ips.iter().map(|ip| &ip.ip))),
            labels: meta.labels,
            owner: owner.map(|owner| format!("{}/{}", owner.kind, owner.name)),
            containers: containers.collect(),
            unscheduled: status.conditions.iter().find_map(PodCondition::unscheduled),
        }
    }
}

impl Container {
    fn into_model(self, sort: ContainerKind, status: Option<&ContainerStatus>) -> KubeContainer {
        let id = status.and_then(|status| status.container_id.as_deref());
        // `containerd://<id>`
        let id = id.and_then(|id| id.split_once("://")).map(|(_, id)| id.to_owned());
        let declared = |p: ContainerPort| {
            Some(KubeContainerPort {
                name: p.name.filter(|name| !name.is_empty()),
                proto: proto(p.protocol.as_deref()),
                port: port(p.container_port)?,
                host_port: port(p.host_port),
                host_ip: p.host_ip.and_then(|ip| ip.parse().ok()),
            })
        };
        let stays = self.restart_policy.as_deref() == Some("Always");
        KubeContainer {
            name: self.name,
            sort: if sort == ContainerKind::Init && stays { ContainerKind::Sidecar } else { sort },
            id,
            image: self.image.filter(|image| !image.is_empty()),
            ready: status.is_some_and(|status| status.ready),
            ports: self.ports.into_iter().filter_map(declared).collect(),
            running: status.is_some_and(|status| status.state.running.is_some()),
            waiting: status.and_then(|s| s.state.waiting.as_ref()?.reason.clone()),
            exit_code: status.and_then(|s| {
                let ended = s.state.terminated.as_ref().or(s.last_state.terminated.as_ref());
                ended?.exit_code
            }),
            restarts: status.map_or(0, |s| u32::try_from(s.restart_count).unwrap_or(0)),
            probe: self.readiness_probe.and_then(Probe::words),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Node {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeSpec {
    #[serde(rename = "providerID")]
    provider_id: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct NodeStatus {
    #[serde(deserialize_with = "list")]
    addresses: Vec<NodeAddress>,
    #[serde(deserialize_with = "list")]
    conditions: Vec<NodeCondition>,
    node_info: NodeInfo,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeAddress {
    address: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeCondition {
    r#type: String,
    status: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct NodeInfo {
    kubelet_version: Option<String>,
}

impl Node {
    pub(super) fn into_model(self) -> KubeNode {
        const ROLE: &str = "node-role.kubernetes.io/";
        let roles = self.metadata.labels.keys().filter_map(|label| label.strip_prefix(ROLE));
        // Kubernetes before 1.20 calls it "master", and both names stand there for a time.
        let mut roles: Vec<String> = roles
            .map(|role| if role == "master" { "control-plane" } else { role })
            .filter(|role| !role.is_empty())
            .map(str::to_owned)
            .collect();
        roles.sort_by_key(|role| (role != "control-plane", role.clone()));
        roles.dedup();
        let status = self.status;
        let ready = status.conditions.iter().find(|condition| condition.r#type == "Ready");
        KubeNode {
            name: self.metadata.name,
            addresses: addresses(status.addresses.iter().map(|a| &a.address)),
            roles,
            provider_id: self.spec.provider_id.filter(|id| !id.is_empty()),
            ready: ready.map(|condition| condition.status == "True"),
            version: status.node_info.kubelet_version,
        }
    }
}

#[cfg(feature = "fuzzing")]
pub(in super::super) fn fuzz(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let name = ObjectName { namespace: "default".to_owned(), name: "web".to_owned() };
    match kind % 6 {
        0 => drop(serde_json::from_slice(bytes).map(Service::into_model)),
        1 => drop(serde_json::from_slice(bytes).map(|slice: Slice| slice.into_model(&name))),
        2 => drop(serde_json::from_slice(bytes).map(|all: Endpoints| all.into_model(&name))),
        3 => drop(serde_json::from_slice(bytes).map(Pod::into_model)),
        4 => drop(serde_json::from_slice(bytes).map(Node::into_model)),
        _ => names::fuzz(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_does_not_stay_says_why() {
        let pod = serde_json::json!({
            "spec": {"containers": [{"name": "crash"}, {"name": "web"}]},
            "status": {"containerStatuses": [
                {"name": "crash", "restartCount": 5, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                 "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}},
                {"name": "web", "ready": false, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}},
            ]},
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let all = pod.into_model().containers;
        let [crash, web] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(crash.waiting.as_deref(), Some("CrashLoopBackOff"));
        assert_eq!((crash.exit_code, crash.restarts, crash.running), (Some(1), 5, false));
        assert_eq!((web.running, web.ready, web.waiting.as_deref()), (true, false, None));
    }

    #[test]
    fn containers_have_their_sort_and_the_id_of_their_own_status() {
        let pod = serde_json::json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "containers": [{"name": "web"}],
                "initContainers": [
                    {"name": "migrate"},
                    {"name": "mesh", "restartPolicy": "Always"},
                    {"name": "future", "restartPolicy": "Never"},
                ],
                "ephemeralContainers": [{"name": "debugger-x", "targetContainerName": "web"}],
            },
            "status": {
                "containerStatuses": [{"name": "web", "containerID": "containerd://aa"}],
                "initContainerStatuses": [{"name": "mesh", "containerID": "containerd://bb"}],
                "ephemeralContainerStatuses":
                    [{"name": "debugger-x", "containerID": "containerd://cc"}],
            },
        });
        let pod = serde_json::from_value::<Pod>(pod).unwrap().into_model();
        let said: Vec<_> =
            pod.containers.iter().map(|c| (c.name.as_str(), c.sort, c.id.as_deref())).collect();
        assert_eq!(
            said,
            [
                ("web", ContainerKind::Main, Some("aa")),
                ("migrate", ContainerKind::Init, None),
                ("mesh", ContainerKind::Sidecar, Some("bb")),
                ("future", ContainerKind::Init, None),
                ("debugger-x", ContainerKind::Ephemeral, Some("cc")),
            ]
        );
    }
}
