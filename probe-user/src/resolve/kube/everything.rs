//! Reading what APIs know, so that a recording of it can answer any question.

use super::super::facts::Facts;
use super::{request, site};
use crate::model::KubeWish;
use crate::node::Node;

/// Of how many services of one cluster the endpoints are read: each is a request, and all
/// have the same short time.
const SERVICES: usize = 256;

/// Asks the APIs of clusters that have a node here for all that answers may need of them:
/// services with their endpoints, and the pods of those nodes. Others are not asked.
pub fn read(node: &dyn Node) {
    let facts = Facts::new(node);
    let contexts = facts.take(node.kube_contexts());
    for site in site::of(&facts, &contexts) {
        let mut wishes = vec![KubeWish::Services];
        wishes.extend(site.nodes.iter().map(|node| KubeWish::PodsOn(node.name.clone())));
        let said = request(&facts, &site, wishes);
        let services = said.into_iter().flat_map(|(_, said)| said.services);
        let endpoints = services.take(SERVICES).map(|s| KubeWish::Endpoints(s.name)).collect();
        // What is answered is the recorder's.
        let _kept = request(&facts, &site, endpoints);
    }
}
