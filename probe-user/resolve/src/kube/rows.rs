//! Names for the rows of a list that a load balancer has without one: IPVS and Cilium know
//! addresses only.

use std::collections::HashSet;

use super::super::facts::Facts;
use super::exposed::{self, ServiceIndex};
use super::{request, site};
use whereis_port_model::Node;
use whereis_port_model::{Gap, HopKind, KubeWish, ListRow, Listing, Proto, Service};

/// Names the services of rows, by one question for all services to each API that has a
/// node here. None is asked where nothing lacks a name.
pub fn name_services(node: &dyn Node, listing: &mut Listing) {
    if !listing.rows.iter().any(is_unnamed) {
        return;
    }
    let facts = Facts::new(node);
    let contexts = facts.take_of_api(facts.world.kube_contexts());
    for site in site::of(&facts, &contexts) {
        let of_site = |row: &&mut ListRow| is_unnamed(row) && site.netns.contains(&row.netns.id);
        if !listing.rows.iter_mut().any(|row| of_site(&row)) {
            continue;
        }
        let addresses = facts.take(facts.world.addresses(&site.netns));
        let own: HashSet<_> = addresses.iter().map(|a| (a.netns, a.address)).collect();
        let said = request(&facts, &site, vec![KubeWish::Services]);
        let services = ServiceIndex::new(said.iter().flat_map(|(_, objects)| &objects.services));
        for row in listing.rows.iter_mut().filter(of_site) {
            let of_node =
                row.address.is_unspecified() || own.contains(&(row.netns.id, row.address));
            let name = |proto| {
                let (service, port) = services.at(row.address, of_node, proto, row.port)?;
                Some(Service {
                    namespace: service.name.namespace.clone(),
                    name: service.name.name.clone(),
                    port: port.map(exposed::name),
                })
            };
            // Cilium did not tell protocols before 1.17: the row's is a guess.
            let guessed = row.taken_by.as_deref() == Some("Cilium");
            let other = if row.proto == Proto::Tcp { Proto::Udp } else { Proto::Tcp };
            match name(row.proto) {
                Some(service) => row.service = Some(service),
                None if guessed => {
                    if let Some(service) = name(other) {
                        (row.service, row.proto) = (Some(service), other);
                    }
                }
                None => {}
            }
        }
    }
    let gaps = facts.gaps().into_iter().filter(|gap| !listing.gaps.contains(gap));
    let gaps: Vec<Gap> = gaps.collect();
    listing.gaps.extend(gaps);
}

fn is_unnamed(row: &ListRow) -> bool {
    row.kind == HopKind::Service && row.service.is_none()
}
