//! Cilium's other maps, as bytes: endpoints, identities, source ranges and policies.
//!
//! Addresses and ports are in network order, the rest in the machine's own. An LPM trie's key
//! begins with the length of its prefix in bits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use whereis_port_model::{CiliumEndpoint, CiliumIdentity, CiliumPolicy};

/// Whether maps of endpoints with keys and values of these sizes can be read.
pub(super) fn knows_endpoints(key_size: usize, value_size: usize) -> bool {
    key_size == 20 && value_size >= 8
}

/// Whether maps of identities with keys and values of these sizes can be read.
pub(super) fn knows_identities(key_size: usize, value_size: usize) -> bool {
    key_size == 24 && matches!(value_size, 12 | 24)
}

/// Whether maps of source ranges with keys and values of these sizes can be read.
pub(super) fn knows_ranges(key_size: usize, value_size: usize) -> bool {
    matches!((key_size, value_size), (12 | 24, 1))
}

/// Whether maps of policies with keys and values of these sizes can be read.
pub(super) fn knows_policies(key_size: usize, value_size: usize) -> bool {
    matches!((key_size, value_size), (8, 16 | 24) | (12, 12 | 24))
}

/// `endpoint_key` and `endpoint_info`.
pub(super) fn endpoint((key, value): (&[u8], &[u8])) -> Option<CiliumEndpoint> {
    let (address, rest) = key.split_first_chunk::<16>()?;
    let address = of_family(*rest.first()?, *address)?;
    let [i0, i1, i2, i3, _, _, e0, e1] = *value.first_chunk::<8>()?;
    let ifindex = u32::from_ne_bytes([i0, i1, i2, i3]);
    // The node's own addresses have the number of the host's endpoint in some versions.
    let id = if ifindex == 0 { 0 } else { u16::from_ne_bytes([e0, e1]) };
    Some(CiliumEndpoint { address, ifindex, id })
}

/// `ipcache_key` and `remote_endpoint_info`: prefix, cluster, family, address.
pub(super) fn identity((key, value): (&[u8], &[u8])) -> Option<CiliumIdentity> {
    let (head, address) = key.split_first_chunk::<8>()?;
    let [p0, p1, p2, p3, c0, c1, _, family] = *head;
    let address = of_family(family, *address.first_chunk::<16>()?)?;
    // What precedes the address are 32 bits.
    let prefix = u32::from_ne_bytes([p0, p1, p2, p3]).checked_sub(32)?;
    let identity = u32::from_ne_bytes(*value.first_chunk::<4>()?);
    // Another cluster's, whose addresses may be the same.
    let is_own = [c0, c1] == [0, 0];
    is_own.then_some(CiliumIdentity { address, prefix: u8::try_from(prefix).ok()?, identity })
}

/// `lb4_src_range_key` or `lb6_src_range_key`: the number of the service, and addresses.
pub(super) fn source_range(key: &[u8]) -> Option<(u16, (IpAddr, u8))> {
    let (head, address) = key.split_first_chunk::<8>()?;
    let [p0, p1, p2, p3, i0, i1, _, _] = *head;
    let prefix = u32::from_ne_bytes([p0, p1, p2, p3]).checked_sub(32)?;
    let address: IpAddr = match (address.first_chunk::<16>(), address.first_chunk::<4>()) {
        (Some(address), _) => Ipv6Addr::from(*address).into(),
        (None, Some(address)) => Ipv4Addr::from(*address).into(),
        (None, None) => return None,
    };
    Some((u16::from_be_bytes([i0, i1]), (address, u8::try_from(prefix).ok()?)))
}

/// `policy_key` and `policy_entry`: a hash before 1.14, a trie since, and with a precedence in
/// the second version of it.
pub(super) fn policy((key, value): (&[u8], &[u8])) -> Option<CiliumPolicy> {
    // What precedes protocol and port in a trie's prefix: the identity, and the direction.
    const BEFORE: u32 = 40;
    let (prefix, identity, egress, proto, port) = match *key {
        [i0, i1, i2, i3, p0, p1, proto, egress] => {
            let port = [p0, p1];
            let prefix = match (proto, port) {
                (0, _) => 0,
                (_, [0, 0]) => 8,
                _ => 24,
            };
            (prefix, [i0, i1, i2, i3], egress, proto, port)
        }
        [l0, l1, l2, l3, i0, i1, i2, i3, egress, proto, p0, p1] => {
            let prefix = u32::from_ne_bytes([l0, l1, l2, l3]).checked_sub(BEFORE)?;
            (u8::try_from(prefix).ok()?, [i0, i1, i2, i3], egress, proto, [p0, p1])
        }
        _ => return None,
    };
    let [x0, x1, flags, auth] = *value.first_chunk::<4>()?;
    let precedence = match value {
        [_, _, _, _, a, b, c, d, _, _, _, _] => u32::from_ne_bytes([*a, *b, *c, *d]),
        _ => 0,
    };
    Some(CiliumPolicy {
        egress: egress & 1 != 0,
        identity: u32::from_ne_bytes(identity),
        proto,
        port: u16::from_be_bytes(port),
        prefix,
        deny: flags & 1 != 0,
        proxy: u16::from_be_bytes([x0, x1]),
        auth: auth & 0x7f != 0,
        precedence,
    })
}

/// `ENDPOINT_KEY_IPV4` and `ENDPOINT_KEY_IPV6`.
fn of_family(family: u8, address: [u8; 16]) -> Option<IpAddr> {
    let [a, b, c, d, ..] = address;
    match family {
        1 => Some(Ipv4Addr::from([a, b, c, d]).into()),
        2 => Some(Ipv6Addr::from(address).into()),
        _ => None,
    }
}
