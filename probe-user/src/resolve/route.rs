//! Which route a packet takes.

use std::net::IpAddr;

use super::facts::Facts;
use crate::model::{Route, RouteFound, RouteKind, RouteQuery};

/// The way a packet takes: as the kernel decided it, or, where that was not asked for,
/// by the addresses and the main table.
pub(super) fn decide(facts: &Facts<'_>, query: &RouteQuery) -> Option<RouteFound> {
    if let Some(found) = facts.take(facts.node.route(query)) {
        return Some(found);
    }
    let to = query.to.to_canonical();
    let addresses = facts.take(facts.node.addresses(&[query.netns]));
    let of_interface = |index: u32, to: std::net::IpAddr| {
        let fits = |a: &&crate::model::Address| {
            a.ifindex == index && a.address.is_ipv6() == to.is_ipv6() && !a.address.is_loopback()
        };
        addresses.iter().find(fits)
    };
    let is_own =
        |a: &crate::model::Address| a.address == to || to.is_loopback() && a.address.is_loopback();
    if addresses.iter().any(is_own) {
        let links = facts.take(facts.node.links(&[query.netns]));
        let lo = links.iter().find(|l| l.kind == crate::model::LinkKind::Loopback);
        return Some(RouteFound {
            kind: RouteKind::Local,
            oif: lo.map(|l| l.index),
            gateway: None,
            source: Some(to),
        });
    }
    let routes = facts.take(facts.node.routes(&[query.netns]));
    let Some(route) = lookup(&routes, to) else {
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

/// The route to `address`: the longest prefix, the first of equals.
pub(super) fn lookup(routes: &[Route], address: IpAddr) -> Option<&Route> {
    let mut best: Option<&Route> = None;
    for route in routes.iter().filter(|r| covers(r.destination, r.prefix, address)) {
        if best.is_none_or(|b| b.prefix < route.prefix) {
            best = Some(route);
        }
    }
    best
}

/// Whether `network`/`prefix` has `address` in it.
pub(super) fn covers(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(n), IpAddr::V4(a)) => {
            let shift = 32u32.saturating_sub(u32::from(prefix));
            let cut = |a: std::net::Ipv4Addr| u32::from(a).checked_shr(shift).unwrap_or(0);
            cut(n) == cut(a)
        }
        (IpAddr::V6(n), IpAddr::V6(a)) => {
            let shift = 128u32.saturating_sub(u32::from(prefix));
            let cut = |a: std::net::Ipv6Addr| u128::from(a).checked_shr(shift).unwrap_or(0);
            cut(n) == cut(a)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NetnsId;

    fn route(destination: &str, prefix: u8, ifindex: u32) -> Route {
        Route {
            netns: NetnsId::Inode(1),
            destination: destination.parse().unwrap(),
            prefix,
            gateway: None,
            ifindex: Some(ifindex),
        }
    }

    #[test]
    fn the_longest_prefix_wins() {
        let routes = [
            route("0.0.0.0", 0, 1),
            route("172.16.0.0", 12, 2),
            route("172.18.0.0", 16, 3),
            route("::", 0, 9),
        ];
        for (address, ifindex) in
            [("172.18.0.4", 3), ("172.19.0.4", 2), ("8.8.8.8", 1), ("fd00::1", 9)]
        {
            let found = lookup(&routes, address.parse().unwrap()).and_then(|r| r.ifindex);
            assert_eq!(found, Some(ifindex), "{address}");
        }
        assert_eq!(lookup(&routes[1..3], "8.8.8.8".parse().unwrap()), None);
    }

    #[test]
    fn prefixes_at_the_edges() {
        assert!(covers("1.2.3.4".parse().unwrap(), 32, "1.2.3.4".parse().unwrap()));
        assert!(!covers("1.2.3.4".parse().unwrap(), 32, "1.2.3.5".parse().unwrap()));
        assert!(covers("::".parse().unwrap(), 0, "fe80::1".parse().unwrap()));
        assert!(!covers("fe80::".parse().unwrap(), 10, "fd00::1".parse().unwrap()));
    }
}
