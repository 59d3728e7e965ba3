//! Which route of a table leads to an address.

use std::net::IpAddr;

use crate::model::Route;

/// The route to `address`: the longest prefix, the first of equals.
pub fn lookup<'r>(
    routes: impl IntoIterator<Item = &'r Route>,
    address: IpAddr,
) -> Option<&'r Route> {
    let mut best: Option<&Route> = None;
    for route in routes.into_iter().filter(|r| covers(r.destination, r.prefix, address)) {
        if best.is_none_or(|b| b.prefix < route.prefix) {
            best = Some(route);
        }
    }
    best
}

/// Whether `network`/`prefix` has `address` in it.
#[inline]
pub fn covers(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
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
