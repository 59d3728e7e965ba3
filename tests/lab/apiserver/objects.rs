//! The objects that a server has.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::Result;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde_json::{Value, json};

/// What there is in a cluster.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Services.
    pub services: Vec<core::Service>,
    /// EndpointSlices.
    pub slices: Vec<discovery::EndpointSlice>,
    /// Pods.
    pub pods: Vec<core::Pod>,
    /// Nodes.
    pub nodes: Vec<core::Node>,
}

impl Objects {
    /// A cluster of `services` Services with a NodePort each, the first being `first`, and
    /// `endpoints` endpoints of each, all on a node with `address`: what `kube::Proxy::many`
    /// has rules for.
    pub fn many(services: u16, endpoints: u16, first: u16, address: &str) -> Self {
        let mut objects = Self { nodes: vec![node("node-1", address)], ..Self::default() };
        for n in 0..services {
            let name = format!("svc{n}");
            objects.services.push(service("default", &name, first + n));
            let number = |e: u16| u32::from(n) * u32::from(endpoints) + u32::from(e);
            // Those that `kube::Proxy::many` has rules for.
            let address = |e: u16| Ipv4Addr::from(0x0af4_0000_u32.wrapping_add(number(e) + 2));
            let addresses: Vec<String> = (0..endpoints).map(|e| address(e).to_string()).collect();
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            objects.slices.push(slice("default", &name, &addresses));
        }
        objects
    }
}

fn meta(namespace: Option<&str>, name: &str) -> ObjectMeta {
    let annotation = ("kubectl.kubernetes.io/last-applied-configuration", "x".repeat(600));
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        uid: Some(format!("5f0d8a4e-0000-4000-8000-{name:0>12}")),
        // Real objects have such a thing, often longer than the rest.
        annotations: Some([(annotation.0.to_owned(), annotation.1)].into()),
        ..ObjectMeta::default()
    }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A Service of type NodePort with the port `http`, 80 to 8080, that selects pods by
/// `app=NAME`.
pub fn service(namespace: &str, name: &str, node_port: u16) -> core::Service {
    core::Service {
        metadata: meta(Some(namespace), name),
        spec: Some(core::ServiceSpec {
            type_: Some("NodePort".to_owned()),
            cluster_ip: Some("10.96.0.7".to_owned()),
            cluster_ips: Some(vec!["10.96.0.7".to_owned()]),
            selector: Some(labels(&[("app", name)])),
            ports: Some(vec![core::ServicePort {
                name: Some("http".to_owned()),
                protocol: Some("TCP".to_owned()),
                port: 80,
                target_port: Some(IntOrString::Int(8080)),
                node_port: Some(node_port.into()),
                ..core::ServicePort::default()
            }]),
            ..core::ServiceSpec::default()
        }),
        status: None,
    }
}

/// A slice of a Service's endpoints, which are ready.
pub fn slice(namespace: &str, service: &str, addresses: &[&str]) -> discovery::EndpointSlice {
    let mut metadata = meta(Some(namespace), &format!("{service}-x7k2p"));
    metadata.labels = Some(labels(&[("kubernetes.io/service-name", service)]));
    let endpoint = |(n, address): (usize, &&str)| discovery::Endpoint {
        addresses: vec![(*address).to_owned()],
        conditions: Some(discovery::EndpointConditions {
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
        }),
        node_name: Some("node-1".to_owned()),
        zone: Some("zone-a".to_owned()),
        target_ref: Some(core::ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(format!("{service}-{n}")),
            ..core::ObjectReference::default()
        }),
        ..discovery::Endpoint::default()
    };
    discovery::EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: addresses.iter().enumerate().map(endpoint).collect(),
        metadata,
        ports: Some(vec![discovery::EndpointPort {
            name: Some("http".to_owned()),
            port: Some(8080),
            protocol: Some("TCP".to_owned()),
            ..discovery::EndpointPort::default()
        }]),
    }
}

/// A running Pod with one container, labelled `app=APP`.
pub fn pod(namespace: &str, name: &str, app: &str, address: &str) -> core::Pod {
    let mut metadata = meta(Some(namespace), name);
    metadata.labels = Some(labels(&[("app", app)]));
    core::Pod {
        metadata,
        spec: Some(core::PodSpec {
            node_name: Some("node-1".to_owned()),
            containers: vec![core::Container {
                name: "main".to_owned(),
                image: Some("nginx".to_owned()),
                ports: Some(vec![core::ContainerPort {
                    container_port: 8080,
                    ..core::ContainerPort::default()
                }]),
                ..core::Container::default()
            }],
            ..core::PodSpec::default()
        }),
        status: Some(core::PodStatus {
            phase: Some("Running".to_owned()),
            pod_ip: Some(address.to_owned()),
            pod_ips: Some(vec![core::PodIP { ip: address.to_owned() }]),
            ..core::PodStatus::default()
        }),
    }
}

/// A Node with one address.
pub fn node(name: &str, address: &str) -> core::Node {
    let mut metadata = meta(None, name);
    metadata.labels = Some(labels(&[("node-role.kubernetes.io/control-plane", "")]));
    core::Node {
        metadata,
        spec: None,
        status: Some(core::NodeStatus {
            addresses: Some(vec![core::NodeAddress {
                type_: "InternalIP".to_owned(),
                address: address.to_owned(),
            }]),
            ..core::NodeStatus::default()
        }),
    }
}

/// One object as it is sent, and what lists filter by.
pub(super) struct Object {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Labels, and the fields that can be selected.
    pub(super) keys: BTreeMap<String, String>,
    pub(super) json: String,
}

/// All objects, by the name of their kind in paths.
pub(super) struct Stored(BTreeMap<&'static str, Vec<Object>>);

impl Stored {
    pub(super) fn new(objects: &Objects) -> Result<Self> {
        let mut all = BTreeMap::new();
        all.insert("services", stored(&objects.services)?);
        all.insert("endpointslices", stored(&objects.slices)?);
        all.insert("pods", stored(&objects.pods)?);
        all.insert("nodes", stored(&objects.nodes)?);
        let beta: Vec<Value> =
            objects.slices.iter().map(beta).collect::<Result<_, serde_json::Error>>()?;
        all.insert("endpointslices.v1beta1", stored(&beta)?);
        let old: Vec<Value> =
            objects.slices.iter().map(endpoints).collect::<Result<_, serde_json::Error>>()?;
        all.insert("endpoints", stored(&old)?);
        Ok(Self(all))
    }

    /// Adds a Service, and gives it as it is sent.
    pub(super) fn add_service(&mut self, service: &core::Service) -> Result<String> {
        let new = stored(std::slice::from_ref(service))?;
        let json = new.iter().map(|object| object.json.clone()).collect();
        self.0.entry("services").or_default().extend(new);
        Ok(json)
    }

    pub(super) fn of(&self, kind: &str) -> Option<&[Object]> {
        self.0.get(kind).map(Vec::as_slice)
    }
}

fn stored<T: Serialize>(objects: &[T]) -> Result<Vec<Object>> {
    let one = |object: &T| -> Result<Object> {
        let mut value = serde_json::to_value(object)?;
        value["metadata"]["managedFields"] = json!([{
            "manager": "kube-controller-manager", "operation": "Update", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:ports": {".": {}, "f:type": {}}, "x": "y".repeat(900)}},
        }]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut keys: BTreeMap<String, String> = value["metadata"]["labels"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), text(value)))
            .collect();
        keys.insert("status.podIP".to_owned(), text(&value["status"]["podIP"]));
        keys.insert("spec.nodeName".to_owned(), text(&value["spec"]["nodeName"]));
        keys.insert("metadata.name".to_owned(), text(&value["metadata"]["name"]));
        Ok(Object {
            namespace: text(&value["metadata"]["namespace"]),
            name: text(&value["metadata"]["name"]),
            keys,
            json: value.to_string(),
        })
    };
    objects.iter().map(one).collect()
}

/// A slice as `v1beta1` has it: node and zone are in the topology.
fn beta(slice: &discovery::EndpointSlice) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(slice)?;
    value["apiVersion"] = "discovery.k8s.io/v1beta1".into();
    for endpoint in value["endpoints"].as_array_mut().into_iter().flatten() {
        let (node, zone) = (endpoint["nodeName"].take(), endpoint["zone"].take());
        if let Some(fields) = endpoint.as_object_mut() {
            fields.retain(|name, _| name != "nodeName" && name != "zone");
        }
        endpoint["topology"] =
            json!({"kubernetes.io/hostname": node, "topology.kubernetes.io/zone": zone});
    }
    Ok(value)
}

/// The Endpoints that a slice is one of.
fn endpoints(slice: &discovery::EndpointSlice) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(slice)?;
    let name = value["metadata"]["labels"]["kubernetes.io/service-name"].clone();
    let address = |e: &Value| json!({"ip": e["addresses"][0], "nodeName": e["nodeName"], "targetRef": e["targetRef"]});
    let addresses: Vec<Value> =
        value["endpoints"].as_array().into_iter().flatten().map(address).collect();
    let mut metadata = value["metadata"].take();
    metadata["name"] = name;
    Ok(json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": metadata,
        "subsets": [{"addresses": addresses, "ports": value["ports"]}],
    }))
}
