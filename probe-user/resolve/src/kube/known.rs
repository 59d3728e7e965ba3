//! What APIs know of something whose ports are asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::facts::Facts;
use super::super::few::few;
use super::exposed::{self, ExposedAt};
use super::request;
use super::site::{self, ClusterSite};
use whereis_port_model::{
    End, Evidence, EvidenceSource, Finding, FindingCode, KubePod, KubeService, KubeWish,
    ObjectName, Port, Proto, Subject,
};

/// Where a subject is, as far as APIs say.
#[derive(Default)]
pub(crate) struct SubjectPlaces {
    /// Addresses and ports of endpoints.
    pub(crate) places: BTreeSet<(IpAddr, Port)>,
    /// Ports of nodes that lead there.
    pub(crate) ports: BTreeSet<(Port, Proto)>,
    /// Addresses of services that lead there.
    pub(crate) addresses: BTreeSet<(IpAddr, Port, Proto)>,
    /// Endpoints of a Service without an address of its own: who asks for its name gets
    /// theirs.
    pub(crate) endpoints: BTreeSet<(IpAddr, Port, Proto)>,
    /// Why a Service has no port that leads there.
    pub(crate) findings: Vec<Finding>,
    /// UIDs and manifests' hashes of its pods.
    uids: BTreeSet<String>,
    /// Containers of its pods.
    containers: BTreeSet<String>,
}

impl SubjectPlaces {
    /// Asks the APIs of the clusters that have a node here.
    pub(crate) fn of(facts: &Facts<'_>, subject: &Subject) -> Self {
        let mut known = Self::default();
        let (Subject::Pod(namespace, name) | Subject::Service(namespace, name)) = subject else {
            return known;
        };
        let contexts = facts.take_of_api(facts.world.kube_contexts());
        if contexts.is_empty() {
            return known;
        }
        for site in site::of(facts, &contexts) {
            let namespace = namespace
                .clone()
                .or_else(|| site.context.namespace.clone())
                .unwrap_or_else(|| "default".to_owned());
            let name = ObjectName { namespace, name: name.clone() };
            let wishes = match subject {
                Subject::Pod(..) => vec![KubeWish::Pod(name), KubeWish::Services],
                _ => vec![KubeWish::Service(name.clone()), KubeWish::Endpoints(name)],
            };
            let mut services: Vec<KubeService> = Vec::new();
            let (mut endpoints, mut pods) = (Vec::new(), Vec::new());
            for (wish, said) in request(facts, &site, wishes) {
                if let (KubeWish::Service(name), []) = (&wish, said.services.as_slice()) {
                    known.findings.push(noted(&site, format!("the API has no Service {name}")));
                }
                services.extend_from_slice(&said.services);
                for slice in &said.endpoints {
                    for endpoint in &slice.endpoints {
                        for port in &slice.ports {
                            let Some(number) = port.port else { continue };
                            for address in &endpoint.addresses {
                                known.places.insert((*address, number));
                                endpoints.extend(port.proto.map(|proto| (*address, number, proto)));
                            }
                        }
                    }
                }
                said.pods.iter().for_each(|pod| known.pod(pod));
                pods.extend_from_slice(&said.pods);
            }
            if matches!(subject, Subject::Pod(..)) {
                let leads = |service: &KubeService, pod: &KubePod| {
                    service.ports.iter().any(|port| selects(service, port, pod))
                };
                services.retain(|service| pods.iter().any(|pod| leads(service, pod)));
            }
            services.iter().for_each(|service| known.service(service));
            if let (Subject::Service(..), [service]) = (subject, services.as_slice()) {
                let portless = portless(&site, service);
                known.findings.push(portless.unwrap_or_else(|| exists(&site, service)));
            }
            // Of a Service, not of those that a pod is in.
            if services.iter().all(|service| service.cluster_ips.is_empty()) {
                known.endpoints.extend(endpoints);
            }
        }
        known
    }

    fn pod(&mut self, pod: &KubePod) {
        self.uids.insert(pod.uid.clone());
        self.uids.extend(pod.config_hash.clone());
        for container in &pod.containers {
            self.containers.extend(container.id.clone());
            for port in &container.ports {
                self.places.extend(pod.ips.iter().map(|address| (*address, port.port)));
                if let (Some(host), Some(proto)) = (port.host_port, port.proto) {
                    self.ports.insert((host, proto));
                }
            }
        }
    }

    fn service(&mut self, service: &KubeService) {
        for one in exposed::of(service) {
            let Some(proto) = one.proto else { continue };
            match one.at {
                ExposedAt::Node | ExposedAt::HealthCheck => {
                    self.ports.insert((one.port, proto));
                }
                ExposedAt::Address => {
                    let own = service.cluster_ips.iter().chain(&service.external_ips);
                    let all = own.chain(&service.load_balancer_ips);
                    self.addresses.extend(all.map(|address| (*address, one.port, proto)));
                }
            }
        }
    }

    /// Whether something ends in one of the pods.
    pub(crate) fn has(&self, end: &End) -> bool {
        let uid = end.pod.as_ref().and_then(|pod| pod.uid.as_ref());
        uid.is_some_and(|uid| self.uids.contains(uid))
            || end.containers.iter().any(|c| self.containers.contains(&c.id))
    }
}

/// Why a Service has no port on any node, if it has none.
fn portless(site: &ClusterSite, service: &KubeService) -> Option<Finding> {
    let name = &service.name;
    if let Some(other) = service.external_name.as_ref().filter(|_| service.kind.is_name()) {
        return Some(noted(
            site,
            format!(
                "Service {name} is of type ExternalName: in the cluster its name stands for {other}, \
                 which DNS looks up, and no port of a node leads there"
            ),
        ));
    }
    let has_address = exposed::of(service).iter().any(|one| one.at != ExposedAt::HealthCheck);
    (!has_address).then(|| {
        let what = format!(
            "Service {name} is headless: its name stands for the addresses of its endpoints"
        );
        noted(site, what)
    })
}

/// What a Service has, where nothing is seen to lead there.
fn exists(site: &ClusterSite, service: &KubeService) -> Finding {
    let addresses = service.cluster_ips.iter().chain(&service.external_ips);
    let addresses = addresses.chain(&service.load_balancer_ips);
    let ports = service.ports.iter().map(|port| {
        let node = port.node_port.map_or_else(String::new, |node| format!(" and NodePort {node}"));
        let proto = port.proto.map_or_else(|| "?".to_owned(), |proto| proto.to_string());
        format!("port {}/{proto}{node}", port.port)
    });
    let what = format!(
        "the API has Service {}: {}, {}",
        service.name,
        few(addresses),
        few(ports.collect::<Vec<String>>())
    );
    noted(site, what)
}

fn noted(site: &ClusterSite, what: String) -> Finding {
    Finding {
        code: FindingCode::Kubernetes,
        what,
        cause: None,
        fix: None,
        evidence: vec![Evidence::new(EvidenceSource::KubernetesApi, site.source())],
    }
}

/// Whether a port of a Service leads to a pod.
fn selects(
    service: &KubeService,
    port: &whereis_port_model::KubeServicePort,
    pod: &KubePod,
) -> bool {
    exposed::target(port, pod).is_some_and(|port| exposed::selects(service, pod, port))
}
