//! Reading what APIs know, so that a recording of it can answer any question.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::facts::Facts;
use super::{request, site};
use whereis_port_model::Node;
use whereis_port_model::{KubeEndpoints, KubeNode, KubeWish, NameApi};

/// Of how many services of one cluster the endpoints are read: each is a request, and all
/// have the same short time.
const SERVICES: usize = 256;

/// Of how many pods on other nodes the objects are read, for the same reason.
const ELSEWHERE: usize = 64;

/// Asks the APIs of clusters that have a node here for all that answers may need of them:
/// services with their endpoints, the pods of those nodes, and those on other nodes that
/// services lead to. Other APIs are not asked.
pub fn read(node: &dyn Node) {
    let facts = Facts::new(node);
    let contexts = facts.take_of_api(facts.world.kube_contexts());
    for site in site::of(&facts, &contexts) {
        let mut wishes = vec![
            KubeWish::Services,
            KubeWish::ByName(NameApi::Ingress),
            KubeWish::ByName(NameApi::Gateway),
            KubeWish::ByName(NameApi::Traefik),
            KubeWish::ByName(NameApi::Istio),
        ];
        wishes.extend(site.nodes.iter().map(|node| KubeWish::PodsOn(node.name.clone())));
        let said = request(&facts, &site, wishes);
        let services = said.iter().flat_map(|(_, said)| &said.services);
        let names = services.take(SERVICES).map(|service| service.name.clone());
        let endpoints = names.map(KubeWish::Endpoints).collect();
        let said = request(&facts, &site, endpoints);
        let slices = said.iter().flat_map(|(_, said)| &said.endpoints);
        let away = elsewhere(slices, &site.nodes);
        let pods = away.into_iter().take(ELSEWHERE).map(KubeWish::PodsAt).collect();
        // What is answered is the recorder's.
        let _kept = request(&facts, &site, pods);
    }
}

/// The addresses of the pods behind services that are not on these nodes.
fn elsewhere<'a>(
    slices: impl Iterator<Item = &'a KubeEndpoints>,
    here: &[KubeNode],
) -> BTreeSet<IpAddr> {
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let away = endpoints.filter(|endpoint| {
        let is_here = |name: &String| here.iter().any(|node| node.name == *name);
        endpoint.pod.is_some() && !endpoint.node.as_ref().is_some_and(is_here)
    });
    away.flat_map(|endpoint| endpoint.addresses.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use whereis_port_model::{KubeEndpoint, ObjectName};

    #[test]
    fn pods_of_other_nodes_are_asked_for_by_address_and_those_of_no_pod_not() {
        let name = |name: &str| ObjectName { namespace: "a".to_owned(), name: name.to_owned() };
        let endpoint = |ip: &str, node: &str, pod: Option<&str>| KubeEndpoint {
            addresses: vec![ip.parse().unwrap()],
            ready: true,
            serving: true,
            terminating: false,
            node: Some(node.to_owned()),
            zone: None,
            pod: pod.map(name),
        };
        let slice = KubeEndpoints {
            service: name("web"),
            ports: Vec::new(),
            endpoints: vec![
                endpoint("10.42.0.2", "here", Some("web-1")),
                endpoint("10.42.1.3", "there", Some("web-2")),
                endpoint("192.0.2.1", "there", None),
            ],
        };
        let here = KubeNode {
            name: "here".to_owned(),
            addresses: Vec::new(),
            provider_id: None,
            roles: Vec::new(),
            ready: None,
            version: None,
        };
        let found = elsewhere([&slice].into_iter(), &[here]);
        assert_eq!(
            found.into_iter().collect::<Vec<IpAddr>>(),
            ["10.42.1.3".parse::<IpAddr>().unwrap()]
        );
    }
}
