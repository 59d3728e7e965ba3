//! Rows of what Cilium balances: it has an entry for each address of the node, and one for all
//! of them, twice where clients in the cluster get something else.

use std::net::IpAddr;

use crate::model::{Balancer, Frontend, FrontendKind, ListRow, Proto};
use crate::resolve::facts::Facts;
use crate::resolve::path;

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

/// Whether something on this node serves a frontend by a protocol.
pub(super) fn serves(
    facts: &Facts<'_>,
    frontend: &Frontend,
    proto: Proto,
    rows: &[ListRow],
) -> bool {
    let addresses = facts.all_addresses();
    frontend.backends.iter().any(|server| {
        let (to, port) = (server.to.ip(), server.to.port());
        let mut places = addresses.iter().filter(|a| a.address == to).map(|a| a.netns);
        places.any(|netns| {
            rows.iter().any(|row| {
                (row.netns.id, row.proto, row.port.0) == (netns, proto, port)
                    && (row.address.is_unspecified() || row.address == to)
            })
        })
    })
}

/// Adds a row: one stands for all addresses of the node, and for both scopes.
pub(super) fn add_row(rows: &mut Vec<ListRow>, frontend: &Frontend, row: ListRow) {
    let of_node = |kind: Option<FrontendKind>| {
        matches!(kind, Some(FrontendKind::NodePort | FrontendKind::HostPort))
    };
    let is_same = |known: &&mut ListRow| {
        (known.netns.id, known.proto, known.port) == (row.netns.id, row.proto, row.port)
            && known.taken_by == row.taken_by
            && (known.address == row.address
                || of_node(frontend.kind)
                    && known.address.is_unspecified()
                    && known.address.is_ipv4() == row.address.is_ipv4())
    };
    // The entry for all addresses comes before those of single ones.
    match rows.iter_mut().filter(|_| frontend.balancer == Balancer::Cilium).find(is_same) {
        Some(known) => merge(known, row),
        None => rows.push(row),
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
