//! Rows of what Cilium balances: it has an entry for each address of the node, and one for all
//! of them, twice where clients in the cluster get something else.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use crate::facts::Facts;
use crate::path;
use whereis_port_model::{Balancer, Frontend, FrontendKind, ListRow, NetnsId, Port, Proto};

/// Whether it is at an address of the service alone that other machines use through this node.
pub(super) fn is_exposed(frontend: &Frontend) -> bool {
    frontend.balancer == Balancer::Cilium
        && matches!(frontend.kind, Some(FrontendKind::ExternalIp | FrontendKind::LoadBalancer))
}

/// The address of a row: that of all addresses of the node may stand for loopback alone.
pub(super) fn address_of(frontend: &Frontend) -> Option<IpAddr> {
    let address = frontend.address?;
    let is_loopback = frontend.kind == Some(FrontendKind::HostPort)
        && address.is_unspecified()
        && frontend.flags.iter().any(|flag| flag == "loopback");
    Some(if is_loopback { path::loopback(address.is_ipv6()) } else { address })
}

/// What listens on this node at the backends of frontends whose balancer tells no protocols.
pub(super) struct ServedBackends(HashSet<(SocketAddr, Proto)>);

impl ServedBackends {
    pub(super) fn of(facts: &Facts<'_>, frontends: &[Frontend], rows: &[ListRow]) -> Self {
        let untold = frontends.iter().filter(|frontend| frontend.proto.is_none());
        let backends: HashSet<SocketAddr> =
            untold.flat_map(|frontend| &frontend.backends).map(|server| server.to).collect();
        if backends.is_empty() {
            return Self(HashSet::new());
        }
        let mut at: HashMap<NetnsId, Vec<IpAddr>> = HashMap::new();
        for address in facts.all_addresses().iter() {
            at.entry(address.netns).or_default().push(address.address);
        }
        let mut served = HashSet::new();
        for row in rows {
            let all = at.get(&row.netns.id).into_iter().flatten().copied();
            let takes = |address: &IpAddr| row.address.is_unspecified() || row.address == *address;
            let places = all.filter(takes).map(|address| SocketAddr::new(address, row.port.0));
            served.extend(places.filter(|to| backends.contains(to)).map(|to| (to, row.proto)));
        }
        Self(served)
    }

    /// Whether something on this node serves a frontend by a protocol.
    pub(super) fn serves(&self, frontend: &Frontend, proto: Proto) -> bool {
        frontend.backends.iter().any(|server| self.0.contains(&(server.to, proto)))
    }
}

/// The rows of frontends: one stands for all addresses of the node, and for both scopes.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) all: Vec<ListRow>,
    /// Where those of Cilium with a port are.
    at: HashMap<(NetnsId, Proto, Port), Vec<usize>>,
}

impl Rows {
    pub(super) fn add(&mut self, frontend: &Frontend, row: ListRow) {
        let of_node =
            matches!(frontend.kind, Some(FrontendKind::NodePort | FrontendKind::HostPort));
        if frontend.balancer != Balancer::Cilium {
            self.all.push(row);
            return;
        }
        let same = self.at.entry((row.netns.id, row.proto, row.port)).or_default();
        // The entry for all addresses comes before those of single ones.
        for at in same.iter() {
            let Some(known) = self.all.get_mut(*at) else { continue };
            let stands =
                known.address.is_unspecified() && known.address.is_ipv4() == row.address.is_ipv4();
            if known.address == row.address || of_node && stands {
                merge(known, row);
                return;
            }
        }
        same.push(self.all.len());
        self.all.push(row);
    }
}

/// Adds where the same port leads for others.
fn merge(known: &mut ListRow, row: ListRow) {
    let targets = row.target.into_iter().chain(row.others);
    for target in targets {
        if known.target.is_none() {
            known.end = row.end.clone();
            known.target = Some(target);
        } else if known.target.as_ref() != Some(&target) && !known.others.contains(&target) {
            known.others.push(target);
        }
    }
    known.more = known.more.max(row.more);
}
