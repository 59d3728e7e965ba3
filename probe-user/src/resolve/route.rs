//! Which route a packet takes.

use whereis_port_rules::route;

use super::facts::Facts;
use crate::model::{RouteFound, RouteKind, RouteQuery};

/// `RT_TABLE_LOCAL`.
pub(super) const LOCAL_TABLE: u32 = 255;

/// The way a packet takes: as the kernel decided it, or, where that was not asked for,
/// by the addresses and the main table.
pub(super) fn decide(facts: &Facts<'_>, query: &RouteQuery) -> Option<RouteFound> {
    if let Some(found) = facts.take(facts.world.route(query)) {
        return Some(found);
    }
    let to = query.to.to_canonical();
    let addresses = facts.addresses_of(query.netns);
    let of_interface = |index: u32, to: std::net::IpAddr| {
        let fits = |a: &&crate::model::Address| {
            a.ifindex == index && a.address.is_ipv6() == to.is_ipv6() && !a.address.is_loopback()
        };
        addresses.iter().find(fits)
    };
    let is_own =
        |a: &crate::model::Address| a.address == to || to.is_loopback() && a.address.is_loopback();
    if addresses.iter().any(is_own) {
        let links = facts.links_of(query.netns);
        let lo = links.iter().find(|l| l.kind == crate::model::LinkKind::Loopback);
        return Some(RouteFound {
            kind: RouteKind::Local,
            oif: lo.map(|l| l.index),
            gateway: None,
            source: Some(to),
        });
    }
    // In the table that comes first; another one may be for packets with a mark alone.
    let locals = facts.take(facts.world.local_routes(&[query.netns]));
    let takes = |l: &crate::model::LocalRoute| {
        l.table == LOCAL_TABLE && route::covers(l.destination, l.prefix, to)
    };
    if locals.iter().any(takes) {
        return Some(RouteFound {
            kind: RouteKind::Local,
            oif: None,
            gateway: None,
            source: Some(to),
        });
    }
    let routes = facts.take(facts.world.routes(&[query.netns]));
    let Some(route) = route::lookup(routes.iter(), to) else {
        return Some(RouteFound { kind: RouteKind::None, oif: None, gateway: None, source: None });
    };
    let source = route.ifindex.and_then(|index| of_interface(index, to)).map(|a| a.address);
    Some(RouteFound {
        kind: RouteKind::Unicast,
        oif: route.ifindex,
        gateway: route.gateway,
        source,
    })
}
