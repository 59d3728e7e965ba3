//! What Kubernetes APIs say, cut down to what leads from ports to pods, and which APIs
//! the kubeconfig files of a node name. Everything textual is untrusted.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Port, Proto};

/// A context of a kubeconfig file, without anything secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KubeContext {
    /// Whether it is that of the pod's own service account, which no file has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_cluster: bool,
    /// Its name; `in-cluster` for the service account of a pod.
    pub name: String,
    /// The cluster's name in the file.
    pub cluster: String,
    /// The server, as written: `https://127.0.0.1:20971`.
    pub server: String,
    /// The namespace that the context sets.
    pub namespace: Option<String>,
    /// The file that defines the context.
    pub file: String,
    /// Whether it is what kubectl would use: the current context, or the one asked for.
    pub current: bool,
    /// Whether the user named it by `--context` or `--kubeconfig`.
    pub asked_for: bool,
    /// The SHA-256 of the cluster's certificate authority (DER), in hex.
    pub ca: Option<String>,
}

impl KubeContext {
    /// How the context is named in questions to the node.
    pub fn id(&self) -> ContextId {
        ContextId { file: self.file.clone(), name: self.name.clone() }
    }
}

/// Which context: names repeat in several files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContextId {
    /// The file.
    pub file: String,
    /// The context's name.
    pub name: String,
}

/// A name in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// The Kubernetes namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One thing that is asked of one API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KubeAsk {
    /// Which API.
    pub context: ContextId,
    /// What.
    pub wish: KubeWish,
}

/// What can be asked. Each is one request, or one paged list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KubeWish {
    /// Every Service that can be seen.
    Services,
    /// One Service.
    Service(ObjectName),
    /// The EndpointSlices of a Service (Endpoints where the API has no slices).
    Endpoints(ObjectName),
    /// One Pod.
    Pod(ObjectName),
    /// The Pods with this address.
    PodsAt(IpAddr),
    /// The Pods on a node.
    PodsOn(String),
    /// The Pods of a namespace with these labels, at least.
    PodsWith {
        /// The Kubernetes namespace.
        namespace: String,
        /// The labels; with none it would be all Pods, and is not asked.
        labels: BTreeMap<String, String>,
    },
    /// Every Node.
    Nodes,
    /// One Node.
    Node(String),
    /// What routes connections by the names that clients ask for, of one kind of API.
    ByName(NameApi),
}

/// The APIs that route by name: each is a group of Kubernetes' API, which may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameApi {
    /// Ingress and IngressClass (`networking.k8s.io`).
    Ingress,
    /// Gateway, GatewayClass and HTTPRoute (`gateway.networking.k8s.io`).
    Gateway,
    /// IngressRoute (`traefik.io`).
    Traefik,
    /// Gateway and VirtualService (`networking.istio.io`).
    Istio,
}

/// An IngressClass or GatewayClass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeClass {
    /// Which of the two.
    pub api: NameApi,
    /// Its name.
    pub name: String,
    /// The controller that is to serve it: `k8s.io/ingress-nginx`. Untrusted.
    pub controller: String,
}

/// A Gateway, of the Gateway API or of Istio.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeGateway {
    /// Which of the two.
    pub api: NameApi,
    /// Namespace and name.
    pub name: ObjectName,
    /// Its class, of the Gateway API.
    pub class: Option<String>,
    /// The pods that serve it, of Istio: those with these labels.
    pub selector: BTreeMap<String, String>,
    /// The hosts that it takes, of Istio. Untrusted.
    pub hosts: Vec<String>,
}

/// The kinds of object that route by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of Kubernetes")]
pub enum NameKind {
    Ingress,
    HttpRoute,
    IngressRoute,
    VirtualService,
}

impl NameKind {
    /// The name as Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::HttpRoute => "HTTPRoute",
            Self::IngressRoute => "IngressRoute",
            Self::VirtualService => "VirtualService",
        }
    }
}

/// An object that routes by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeNames {
    /// Its kind.
    pub kind: NameKind,
    /// Namespace and name.
    pub name: ObjectName,
    /// Its class, of an Ingress or IngressRoute that says so.
    pub class: Option<String>,
    /// The Gateways that it is to be served by.
    pub gateways: Vec<ObjectName>,
    /// Those of them that refused it, by its status.
    pub refused: Vec<ObjectName>,
    /// The addresses under which a controller says that it serves it.
    pub addresses: Vec<IpAddr>,
    /// What leads where.
    pub rules: Vec<KubeNameRule>,
}

/// A host and path, and where they lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeNameRule {
    /// The host; `None` for any. Untrusted.
    pub host: Option<String>,
    /// The path as it is written; `None` for any. Untrusted.
    pub path: Option<String>,
    /// How a path is compared.
    pub compare: PathCompare,
    /// What else has to be so, in the words of the object: headers, methods; of an IngressRoute
    /// all of it. Untrusted.
    pub matches: Option<String>,
    /// Whether the object has a certificate for it.
    pub tls: bool,
    /// Where it leads; none where it answers itself, as redirects do.
    pub to: Vec<NameTarget>,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathCompare {
    /// What begins with it.
    #[default]
    Prefix,
    /// It alone.
    Exact,
    /// A regular expression.
    Regex,
    /// As the controller likes.
    Controller,
}

/// Where a name leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameTarget {
    /// The Service, or what else the object names instead, with its kind. Untrusted.
    pub service: ObjectName,
    /// Its port, by number or name.
    pub port: Option<String>,
}

/// What an API answered to one wish: only the kind that was asked for is filled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeObjects {
    /// Whether the API answered. When it did not, the gaps say why, and that something is
    /// not in the lists says nothing.
    pub answered: bool,
    /// Services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<KubeService>,
    /// EndpointSlices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<KubeEndpoints>,
    /// Pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<KubePod>,
    /// Nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<KubeNode>,
    /// Classes of what routes by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<KubeClass>,
    /// Gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<KubeGateway>,
    /// What routes by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<KubeNames>,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeService {
    /// Namespace and name.
    pub name: ObjectName,
    /// Its type.
    pub kind: ServiceKind,
    /// Its cluster addresses; empty for a headless one.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// The addresses that the load balancer got.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `sessionAffinity: ClientIP`.
    pub affinity: bool,
    /// `spec.healthCheckNodePort`.
    pub health_check_node_port: Option<Port>,
    /// Its ports.
    pub ports: Vec<KubeServicePort>,
    /// Which pods it selects; empty for one without a selector, whose endpoints somebody
    /// else makes.
    pub selector: BTreeMap<String, String>,
    /// The name that one of type ExternalName stands for. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_name: Option<String>,
    /// The Gateway that it was made for (label `gateway.networking.k8s.io/gateway-name`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
}

/// The types of Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of Kubernetes")]
pub enum ServiceKind {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

impl ServiceKind {
    /// Whether it is a name only, without an address or port.
    pub fn is_name(self) -> bool {
        self == Self::ExternalName
    }

    /// The name as Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalName => "ExternalName",
        }
    }
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeServicePort {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The protocol; `None` for one that the tool does not know (SCTP).
    pub proto: Option<Proto>,
    /// The port on the Service's addresses.
    pub port: Port,
    /// The port of the pods: a number or the name of a container's port.
    pub target: String,
    /// The port on every node.
    pub node_port: Option<Port>,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeEndpoints {
    /// The Service it belongs to.
    pub service: ObjectName,
    /// Its ports: name and number.
    pub ports: Vec<KubeEndpointPort>,
    /// The endpoints.
    pub endpoints: Vec<KubeEndpoint>,
}

/// A port of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeEndpointPort {
    /// The name of the Service's port.
    pub name: Option<String>,
    /// The protocol; `None` for one that the tool does not know.
    pub proto: Option<Proto>,
    /// The port; `None` stands for all.
    pub port: Option<Port>,
}

/// One endpoint: usually a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeEndpoint {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it takes new connections.
    pub ready: bool,
    /// Whether it answers, be it ending or not.
    pub serving: bool,
    /// Whether it is ending.
    pub terminating: bool,
    /// The node it is on.
    pub node: Option<String>,
    /// The zone it is in.
    pub zone: Option<String>,
    /// The pod.
    pub pod: Option<ObjectName>,
}

/// A Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubePod {
    /// Namespace and name.
    pub name: ObjectName,
    /// Its UID in the API.
    pub uid: String,
    /// The hash that the kubelet knows a static pod by (`kubernetes.io/config.hash`).
    pub config_hash: Option<String>,
    /// The node it is on.
    pub node: Option<String>,
    /// Its phase: `Running`, `Pending`.
    pub phase: Option<String>,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What made it: `ReplicaSet/my-nginx-6d4cf56db6`, `DaemonSet/cilium`.
    pub owner: Option<String>,
    /// Its containers, of every sort.
    pub containers: Vec<KubeContainer>,
    /// Why it is on no node, in the scheduler's words. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unscheduled: Option<String>,
    /// Whether it is being deleted: it may run until its time to end is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_ending: bool,
}

/// A container of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeContainer {
    /// Its name.
    pub name: String,
    /// Which sort.
    pub sort: ContainerKind,
    /// The runtime's id without the `containerd://` before it.
    pub id: Option<String>,
    /// The image.
    pub image: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// The ports that it declares.
    pub ports: Vec<KubeContainerPort>,
    /// Whether it runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub running: bool,
    /// Why it waits to be started: `CrashLoopBackOff`, `ImagePullBackOff`. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// With what it ended when it ran last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How often it was started again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u32,
    /// What is asked whether it is ready: `HTTP GET :8080/healthz`. Untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The kinds of container in a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerKind {
    /// One that the pod is there for.
    #[default]
    Main,
    /// One that runs before the others.
    Init,
    /// An init container with `restartPolicy: Always`, which goes on beside the others.
    Sidecar,
    /// One that was added for debugging.
    Ephemeral,
}

impl ContainerKind {
    /// What people call it; `None` for what goes without saying.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Main => None,
            Self::Init => Some("init container"),
            Self::Sidecar => Some("sidecar"),
            Self::Ephemeral => Some("ephemeral container"),
        }
    }
}

/// A port that a container declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeContainerPort {
    /// Its name.
    pub name: Option<String>,
    /// The protocol; `None` for one that the tool does not know.
    pub proto: Option<Proto>,
    /// The port.
    pub port: Port,
    /// The port on the node.
    pub host_port: Option<Port>,
    /// The node's address for it.
    pub host_ip: Option<IpAddr>,
}

/// A Node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeNode {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its roles, by labels: `control-plane`, `worker`.
    pub roles: Vec<String>,
    /// `spec.providerID`: `kind://docker/cluster1/cluster1-control-plane`.
    pub provider_id: Option<String>,
    /// Whether it is ready.
    pub ready: Option<bool>,
    /// The kubelet's version.
    pub version: Option<String>,
}
