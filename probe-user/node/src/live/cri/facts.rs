//! From a runtime's answers to containers. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde::Deserialize;

use super::proto::{self, NODE, POD, PodSandbox, PodSandboxStatus, PodSandboxStatusResponse};
use whereis_port_model::{
    Container, Network, Pod, Port, Proto, Published, Runtime, ToldBy, is_manifest_hash,
};

/// Where the kubelet puts the names that belong to a pod.
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Where the kubelet has a pod from: `api`, `file` or `http`.
const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// The ports of a container's specification, as JSON.
const PORTS: &str = "io.kubernetes.container.ports";

/// A container, with its pod as far as the runtime told of it.
pub(super) fn from_container(
    runtime: Runtime,
    told: proto::Container,
    pod: Option<&PodSandbox>,
    status: Option<&PodSandboxStatus>,
) -> Container {
    let label = |name: &str| told.labels.get(name).filter(|v| !v.is_empty()).cloned();
    let mut pod = match pod {
        Some(pod) => from_pod(pod),
        // The kubelet repeats at each container which pod it is of.
        None => Pod {
            namespace: label(POD_NAMESPACE),
            name: label(POD_NAME),
            uid: label(POD_UID),
            is_static: label(POD_UID).filter(|uid| is_manifest_hash(uid)).map(|_| true),
            ..Pod::default()
        },
    };
    let place = PodNetwork::of(status);
    pod.host_network = place.host_network;
    let name = told.metadata.as_ref().map(|m| m.name.clone()).filter(|n| !n.is_empty());
    let ports = told.annotations.get(PORTS).map(|text| ports(text)).unwrap_or_default();
    let mut container = blank(runtime, told.id);
    container.name = name.or_else(|| told.labels.get(CONTAINER_NAME).cloned());
    container.image = told.image.as_ref().and_then(image_name);
    container.labels = told.labels.into_iter().collect();
    container.pod = Some(pod);
    container.ports = ports;
    place.apply(&mut container);
    container
}

/// A pod's sandbox, seen as the container that it mostly is.
pub(super) fn from_sandbox(
    runtime: Runtime,
    told: &PodSandbox,
    status: Option<&PodSandboxStatusResponse>,
) -> Container {
    /// The part `info` of a verbose status.
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct VerboseInfo {
        image: String,
        pid: u32,
    }
    let info = status.and_then(|s| s.info.get("info"));
    let info: VerboseInfo =
        info.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let mut container = blank(runtime, told.id.clone());
    container.name = Some("pause".to_owned());
    container.sandbox = true;
    container.image = Some(info.image).filter(|i| !i.is_empty());
    container.pid = Some(info.pid).filter(|pid| *pid != 0);
    container.labels = sorted(&told.labels);
    let place = PodNetwork::of(status.and_then(|s| s.status.as_ref()));
    let mut pod = from_pod(told);
    pod.host_network = place.host_network;
    container.pod = Some(pod);
    place.apply(&mut container);
    container
}

/// The name of an image, unless it is only the digest that the kubelet asks for.
pub(super) fn image_name(image: &proto::ImageSpec) -> Option<String> {
    let names = [&image.user_specified_image, &image.image];
    names.into_iter().find(|n| !n.is_empty() && !is_digest(n)).cloned()
}

fn is_digest(image: &str) -> bool {
    let hex = image.strip_prefix("sha256:").unwrap_or(image);
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

fn from_pod(told: &PodSandbox) -> Pod {
    let text = |t: &str| Some(t.to_owned()).filter(|t| !t.is_empty());
    let metadata = told.metadata.clone().unwrap_or_default();
    let mut labels = sorted(&told.labels);
    labels.retain(|key, _| ![POD_NAME, POD_NAMESPACE, POD_UID, CONTAINER_NAME].contains(&&**key));
    let is_static = match told.annotations.get(CONFIG_SOURCE).map(String::as_str) {
        Some("file" | "http") => Some(true),
        Some("api") => Some(false),
        _ => is_manifest_hash(&metadata.uid).then_some(true),
    };
    Pod {
        namespace: text(&metadata.namespace),
        name: text(&metadata.name),
        uid: text(&metadata.uid),
        labels,
        is_static,
        ..Pod::default()
    }
}

/// Which network a pod has.
#[derive(Default)]
struct PodNetwork {
    host_network: Option<bool>,
    addresses: Vec<IpAddr>,
}

impl PodNetwork {
    fn of(status: Option<&PodSandboxStatus>) -> Self {
        let Some(status) = status else { return Self::default() };
        let options = status.linux.as_ref().and_then(|l| l.namespaces.as_ref());
        let mode = options.and_then(|n| n.options.as_ref()).map(|o| o.network);
        let network = status.network.iter();
        let ips = network.flat_map(|n| {
            std::iter::once(n.ip.as_str()).chain(n.additional_ips.iter().map(|a| a.ip.as_str()))
        });
        Self {
            host_network: match mode {
                Some(POD) => Some(false),
                Some(NODE) => Some(true),
                _ => None,
            },
            addresses: ips.filter_map(|ip| ip.parse().ok()).collect(),
        }
    }

    fn apply(self, container: &mut Container) {
        if self.host_network == Some(true) {
            container.network_mode = Some("host".to_owned());
            // Kubernetes repeats each port as a host port; nothing is published.
            for port in &mut container.ports {
                port.host_port = None;
                port.host_ip = None;
            }
        } else if !self.addresses.is_empty() {
            let network = Network::new("pod", self.addresses);
            container.networks.push(network);
        }
    }
}

fn ports(text: &str) -> Vec<Published> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Given {
        container_port: u16,
        #[serde(default)]
        host_port: u16,
        #[serde(default, rename = "hostIP")]
        host_ip: String,
        #[serde(default)]
        protocol: String,
    }
    let given: Vec<Given> = serde_json::from_str(text).unwrap_or_default();
    let port = |number: u16| Some(Port(number)).filter(|p| p.0 != 0);
    let published = |given: Given| {
        let protocol = given.protocol.to_lowercase();
        let protocol = if protocol.is_empty() { "tcp" } else { &protocol };
        Some(Published {
            proto: Proto::ALL.into_iter().find(|p| p.as_str() == protocol)?,
            container_port: port(given.container_port)?,
            host_port: port(given.host_port),
            host_ip: given.host_ip.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified()),
        })
    };
    let mut ports: Vec<Published> = given.into_iter().filter_map(published).collect();
    ports.sort();
    ports.dedup();
    ports
}

fn blank(runtime: Runtime, id: String) -> Container {
    Container {
        runtime,
        id,
        name: None,
        image: None,
        labels: BTreeMap::new(),
        networks: Vec::new(),
        ports: Vec::new(),
        network_mode: None,
        pid: None,
        parents: Vec::new(),
        pod: None,
        sandbox: false,
        sort: None,
        state: None,
        via: ToldBy::default(),
    }
}

fn sorted(labels: &HashMap<String, String>) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}
