//! The ports at which a Service can be reached.

use std::collections::HashMap;
use std::net::IpAddr;

use whereis_port_model::{KubeEndpoints, KubePod, KubeService, KubeServicePort, Port, Proto};

/// One port of a Service, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exposed<'a> {
    pub(super) at: ExposedAt,
    /// `None` for a protocol that the tool does not know.
    pub(super) proto: Option<Proto>,
    pub(super) port: Port,
    /// The Service's port behind it; `None` for the health check, which is of the Service
    /// as a whole.
    pub(super) of: Option<&'a KubeServicePort>,
}

/// Where a Service has a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExposedAt {
    /// On every node.
    Node,
    /// On the cluster's, external or load balancer's addresses.
    Address,
    /// On every node, for load balancers that ask whether it has local endpoints.
    HealthCheck,
}

/// Every port of a Service.
pub(super) fn of(service: &KubeService) -> Vec<Exposed<'_>> {
    let mut all = Vec::new();
    let has_address = !service.cluster_ips.is_empty()
        || !service.external_ips.is_empty()
        || !service.load_balancer_ips.is_empty();
    for port in &service.ports {
        if let Some(node_port) = port.node_port {
            all.push(Exposed {
                at: ExposedAt::Node,
                proto: port.proto,
                port: node_port,
                of: Some(port),
            });
        }
        if has_address {
            all.push(Exposed {
                at: ExposedAt::Address,
                proto: port.proto,
                port: port.port,
                of: Some(port),
            });
        }
    }
    if let Some(port) = service.health_check_node_port {
        all.push(Exposed { at: ExposedAt::HealthCheck, proto: Some(Proto::Tcp), port, of: None });
    }
    all
}

/// The Service's port that is at an address, if it is one of its own or, with a NodePort, of
/// a node.
pub(super) fn at<'a>(
    service: &'a KubeService,
    (address, of_node): (IpAddr, bool),
    proto: Proto,
    port: Port,
) -> Option<Exposed<'a>> {
    let is_its = |one: &IpAddr| *one == address.to_canonical();
    let has_address = service.cluster_ips.iter().any(is_its)
        || service.external_ips.iter().any(is_its)
        || service.load_balancer_ips.iter().any(is_its);
    of(service).into_iter().find(|exposed| {
        let here = match exposed.at {
            ExposedAt::Address => has_address,
            // A node's address may be an external one of a Service, too.
            ExposedAt::Node => of_node && !has_address,
            ExposedAt::HealthCheck => false,
        };
        here && exposed.proto == Some(proto) && exposed.port == port
    })
}

/// The ports of many Services, by where they are.
pub(super) struct ServiceIndex<'a> {
    at_address: HashMap<(IpAddr, Proto, Port), Of<'a>>,
    at_node: HashMap<(Proto, Port), Of<'a>>,
}

/// A Service and its port.
type Of<'a> = (&'a KubeService, Option<&'a KubeServicePort>);

impl<'a> ServiceIndex<'a> {
    pub(super) fn new(services: impl Iterator<Item = &'a KubeService>) -> Self {
        let (mut at_address, mut at_node) = (HashMap::new(), HashMap::new());
        for service in services {
            let own = service.cluster_ips.iter().chain(&service.external_ips);
            let own: Vec<&IpAddr> = own.chain(&service.load_balancer_ips).collect();
            for one in of(service) {
                let Some(proto) = one.proto else { continue };
                match one.at {
                    ExposedAt::Node => {
                        at_node.entry((proto, one.port)).or_insert((service, one.of));
                    }
                    ExposedAt::Address => {
                        for address in &own {
                            let key = (**address, proto, one.port);
                            at_address.entry(key).or_insert((service, one.of));
                        }
                    }
                    ExposedAt::HealthCheck => {}
                }
            }
        }
        Self { at_address, at_node }
    }

    /// Whose port is at an address, which may be the node's.
    pub(super) fn at(
        &self,
        address: IpAddr,
        of_node: bool,
        proto: Proto,
        port: Port,
    ) -> Option<Of<'a>> {
        let own = self.at_address.get(&(address.to_canonical(), proto, port));
        own.or_else(|| self.at_node.get(&(proto, port)).filter(|_| of_node)).copied()
    }
}

/// The Service's port that is reached by `port`: by its NodePort first.
pub(super) fn port_for(
    service: &KubeService,
    proto: Proto,
    port: Port,
) -> Option<&KubeServicePort> {
    let mut all = of(service);
    all.retain(|e| e.proto == Some(proto) && e.port == port);
    all.sort_by_key(|e| e.at != ExposedAt::Node);
    all.into_iter().find_map(|e| e.of)
}

/// Whether a Service selects a pod and forwards to this port of it.
pub(super) fn selects(service: &KubeService, pod: &KubePod, port: Port) -> bool {
    let selector = &service.selector;
    !selector.is_empty()
        && service.name.namespace == pod.name.namespace
        && selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
        && service.ports.iter().any(|of| target(of, pod) == Some(port))
}

/// The Service's port that forwards to this port of a pod.
pub(super) fn port_to<'a>(
    service: &'a KubeService,
    pod: &KubePod,
    proto: Proto,
    port: Port,
) -> Option<&'a KubeServicePort> {
    let leads = |of: &&KubeServicePort| of.proto == Some(proto) && target(of, pod) == Some(port);
    service.ports.iter().find(leads)
}

/// The port of a pod that a Service's port leads to: a number, or the name of a port that
/// one of the pod's containers declares.
pub(super) fn target(of: &KubeServicePort, pod: &KubePod) -> Option<Port> {
    if let Ok(number) = of.target.parse() {
        return Some(Port(number));
    }
    let declared = pod.containers.iter().flat_map(|container| &container.ports);
    let named = |p: &&whereis_port_model::KubeContainerPort| {
        p.name.as_deref() == Some(of.target.as_str()) && p.proto == of.proto
    };
    declared.into_iter().find(named).map(|port| port.port)
}

/// Whether a slice has a port of its Service: those of pods that lack a port of the name that
/// the Service leads to are in a slice without it.
pub(super) fn has(slice: &KubeEndpoints, port: &KubeServicePort) -> bool {
    slice.ports.iter().any(|one| one.name == port.name && one.proto == port.proto)
}

/// A Service's port as people write it: its name, or its number.
pub(super) fn name(port: &KubeServicePort) -> String {
    port.name.clone().unwrap_or_else(|| port.port.to_string())
}
