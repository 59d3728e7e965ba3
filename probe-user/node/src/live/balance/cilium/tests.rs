use std::net::IpAddr;

use super::*;
use crate::live::ebpf::maps::making;
use whereis_port_model::{FrontendKind, FrontendScope};

type Entry = (Vec<u8>, Vec<u8>);

const NETNS: NetnsId = NetnsId::Inode(7);

fn address(text: &str) -> Vec<u8> {
    match text.parse().unwrap() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A service or a slot.
struct Made {
    address: &'static str,
    port: u16,
    slot: u16,
    proto: u8,
    scope: u8,
    union: u32,
    count: u16,
    id: u16,
    flags: [u8; 2],
}

const MADE: Made = Made {
    address: "10.96.0.1",
    port: 80,
    slot: 0,
    proto: 6,
    scope: 0,
    union: 0,
    count: 0,
    id: 1,
    flags: [0x40, 0],
};

impl Made {
    fn entry(&self) -> Entry {
        let mut key = address(self.address);
        key.extend(self.port.to_be_bytes());
        key.extend(self.slot.to_ne_bytes());
        key.extend([self.proto, self.scope, 0, 0]);
        let mut value = self.union.to_ne_bytes().to_vec();
        value.extend(self.count.to_ne_bytes());
        value.extend(self.id.to_be_bytes());
        value.extend(self.flags);
        value.extend([0, 0]);
        (key, value)
    }

    /// The service, and a slot for each of these backends.
    fn with(&self, ids: &[u32]) -> Vec<Entry> {
        let slot = |(at, id): (u16, &u32)| {
            let flags = [0, self.flags[1] & 0x20];
            Made { slot: at, union: *id, count: 0, flags, ..*self }.entry()
        };
        std::iter::once(self.entry()).chain((1..).zip(ids).map(slot)).collect()
    }
}

/// A backend of version 1, 2 or 3.
fn backend(version: u8, id: u32, to: &str, port: u16, state: u8) -> Entry {
    let key = if version == 1 {
        u16::try_from(id).unwrap().to_ne_bytes().to_vec()
    } else {
        id.to_ne_bytes().to_vec()
    };
    let mut value = address(to);
    value.extend(port.to_be_bytes());
    value.extend([6, state]);
    if version == 3 {
        value.extend([1, 0, 9, 0]);
    }
    (key, value)
}

/// Pins these maps in a bpffs and reads them. `None` where no maps can be made.
fn pinned(maps: &[(&str, Vec<Entry>)]) -> Option<Read<Vec<Frontend>>> {
    let mut result = None;
    let there = making::with_bpffs(|dir| {
        for (name, entries) in maps {
            let sizes = entries.first().map_or((4, 12), |(k, v)| (k.len(), v.len()));
            making::pin(&dir.join(name), sizes, entries).unwrap();
        }
        let fd = rustix::fs::open(dir, OFlags::PATH, Mode::empty()).unwrap();
        result = Some(read(NETNS, Path::new("/bpf"), fd.as_fd()));
    });
    assert!(there || !rustix::process::geteuid().is_root(), "no bpffs");
    result
}

fn whole(maps: &[(&str, Vec<Entry>)]) -> Option<Vec<Frontend>> {
    let read = pinned(maps)?;
    assert_eq!(read.gaps, []);
    Some(read.value)
}

fn servers(frontend: &Frontend) -> Vec<(String, bool, Option<&str>)> {
    let one = |s: &whereis_port_model::Server| s.to.to_string();
    frontend.backends.iter().map(|s| (one(s), s.active, s.state.as_deref())).collect()
}

#[test]
#[cfg(target_endian = "little")]
fn an_entry_of_a_real_map() {
    // From a published dump: 10.96.32.28:80, slot 3, backend 11 of service 7.
    let key = [0x0a, 0x60, 0x20, 0x1c, 0, 0x50, 3, 0, 0, 0, 0, 0];
    let key = parse::service_key(&key).unwrap();
    assert_eq!(key.address, "10.96.32.28".parse::<IpAddr>().unwrap());
    assert_eq!((key.port, key.slot, key.proto, key.scope), (80, 3, 0, 0));
    let value = parse::service_value(&[0x0b, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0]).unwrap();
    assert_eq!((value.backend(), value.count, value.id), (11, 0, 7));
    assert!(!key.is_service());
}

#[test]
fn kinds_scopes_and_what_flags_say() {
    let kinds = [
        (0x40, 0, FrontendKind::ClusterIp),
        (0x42, 0, FrontendKind::NodePort),
        (0x48, 0x08, FrontendKind::HostPort),
        (0x60, 0, FrontendKind::LoadBalancer),
        (0x41, 0, FrontendKind::ExternalIp),
        (0x40, 0x01, FrontendKind::LocalRedirect),
    ];
    for (first, second, kind) in kinds {
        let (_, value) = Made { flags: [first, second], ..MADE }.entry();
        assert_eq!(parse::service_value(&value).unwrap().kind(), kind);
    }
    let words = |flags| parse::service_value(&Made { flags, ..MADE }.entry().1).unwrap().words();
    assert_eq!(words([0x40, 0x20]), [] as [&str; 0]);
    assert_eq!(words([0xc4, 0x90]), ["local", "source-range", "internal-local", "dsr"]);
    assert_eq!(words([0x00, 0x40]), ["source-range-deny", "not-routable"]);
    // The same bit is something else on what is no host port.
    assert_eq!(words([0x48, 0x08]), ["loopback"]);
    assert_eq!(words([0x42, 0x08]), ["delegated"]);
    // Bits that nobody knows yet keep nothing from being read.
    assert_eq!(words([0xff, 0xff]).len(), 7);
}

#[test]
fn the_union_of_a_service_is_one_thing_at_a_time() {
    let value = |union, flags| parse::service_value(&Made { union, flags, ..MADE }.entry().1);
    let affine = value(0x0200_2a30, [0x50, 0]).unwrap();
    assert_eq!((affine.affinity(), affine.algorithm()), (Some(10_800), Some("maglev")));
    assert_eq!(affine.proxy_port(), None);
    let plain = value(0x0100_0000, [0x40, 0]).unwrap();
    assert_eq!((plain.affinity(), plain.algorithm()), (None, Some("random")));
    let l7 = value(u32::from(12_345u16.to_be()), [0x50, 0x04]).unwrap();
    assert_eq!((l7.proxy_port(), l7.affinity(), l7.algorithm()), (Some(12_345), None, None));
}

#[test]
fn services_of_both_families_with_their_backends() {
    let node = Made { address: "0.0.0.0", port: 30_080, count: 1, flags: [0x02, 0], ..MADE };
    let exact = Made { address: "192.0.2.1", flags: [0x42, 0], ..node };
    let cluster = Made { address: "fd00::1", count: 2, id: 0x0102, proto: 0, ..MADE };
    let maps = [
        ("cilium_lb4_services_v2", [node.with(&[5, 6]), exact.with(&[5, 6])].concat()),
        (
            "cilium_lb4_backends_v3",
            vec![backend(3, 5, "10.0.1.5", 8080, 0), backend(3, 6, "10.0.1.6", 8080, 2)],
        ),
        ("cilium_lb6_services_v2", cluster.with(&[1, 2, 99])),
        (
            "cilium_lb6_backends_v2",
            vec![backend(2, 1, "fd00::5", 53, 0), backend(2, 2, "fd00::6", 53, 1)],
        ),
    ];
    let Some(found) = whole(&maps) else { return };
    let [node, exact, cluster] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((node.netns, node.port, node.proto, node.id), (NETNS, 30_080, Some(6), Some(1)));
    assert_eq!(node.address, Some("0.0.0.0".parse().unwrap()));
    assert_eq!((node.kind, node.scope), (Some(FrontendKind::NodePort), None));
    assert_eq!(node.flags, [] as [&str; 0]);
    assert_eq!(node.source, "/bpf/cilium_lb4_services_v2");
    let two = [
        ("10.0.1.5:8080".to_owned(), true, None),
        // Beyond the service's count.
        ("10.0.1.6:8080".to_owned(), false, Some("quarantined")),
    ];
    assert_eq!(servers(node), two);
    assert_eq!(servers(exact), two);
    assert_eq!((cluster.proto, cluster.id), (None, Some(0x0102)));
    assert_eq!(cluster.kind, Some(FrontendKind::ClusterIp));
    let two = [
        ("[fd00::5]:53".to_owned(), true, None),
        ("[fd00::6]:53".to_owned(), true, Some("terminating")),
    ];
    assert_eq!(servers(cluster), two);
}

#[test]
fn the_newest_backends_that_are_filled_count() {
    let services = ("cilium_lb4_services_v2", Made { count: 1, ..MADE }.with(&[5]));
    let v1 = ("cilium_lb4_backends", vec![backend(1, 5, "10.0.0.1", 1, 0)]);
    let v2 = ("cilium_lb4_backends_v2", vec![backend(2, 5, "10.0.0.2", 2, 0)]);
    let v3 = ("cilium_lb4_backends_v3", vec![backend(3, 5, "10.0.0.3", 3, 0)]);
    let empty = ("cilium_lb4_backends_v3", Vec::new());
    let first = |maps: &[(&str, Vec<Entry>)]| Some(servers(whole(maps)?.first()?)[0].0.clone());
    let Some(newest) = first(&[services.clone(), v2.clone(), v3]) else { return };
    assert_eq!(newest, "10.0.0.3:3");
    let filled = first(&[services.clone(), v1.clone(), v2, empty]);
    assert_eq!(filled.as_deref(), Some("10.0.0.2:2"));
    assert_eq!(first(&[services, v1]).as_deref(), Some("10.0.0.1:1"));
}

#[test]
fn two_scopes_no_backends_and_marks_that_drop_the_rest() {
    let outside = Made { count: 0, flags: [0x62, 0x20], ..MADE };
    let inside = Made { scope: 1, count: 1, ..outside };
    let mark = Made { address: "10.96.0.9", port: 0, proto: 0, ..MADE };
    let maps = [
        ("cilium_lb4_services_v2", [outside.with(&[]), inside.with(&[5]), mark.with(&[])].concat()),
        ("cilium_lb4_backends_v3", vec![backend(3, 5, "10.0.0.3", 3, 0)]),
    ];
    let Some(found) = whole(&maps) else { return };
    let scopes: Vec<_> = found.iter().map(|f| (f.scope, f.backends.len())).collect();
    let expected = [(Some(FrontendScope::External), 0), (Some(FrontendScope::Internal), 1)];
    assert_eq!(scopes, expected);
}

#[test]
fn quarantined_slots_are_marked_before_1_18_and_counted_since() {
    let servers_of = |service: Made, quarantined: u8, slots: [u8; 2]| {
        let mut entries = service.with(&[5, 6]);
        entries[0].1[10] = quarantined;
        for (slot, flags) in entries[1..].iter_mut().zip(slots) {
            slot.1[8..10].copy_from_slice(&[service.flags[0], flags]);
        }
        let backends = vec![backend(3, 5, "10.0.1.5", 80, 0), backend(3, 6, "10.0.1.6", 80, 0)];
        let maps = [("cilium_lb4_services_v2", entries), ("cilium_lb4_backends_v3", backends)];
        let found = whole(&maps)?;
        let states: Vec<_> =
            found[0].backends.iter().map(|s| (s.active, s.state.clone())).collect();
        Some(states)
    };
    let active = (true, None);
    let quarantined = (false, Some("quarantined".to_owned()));
    // Of 1.14: a slot is marked.
    let old = Made { count: 2, ..MADE };
    let Some(found) = servers_of(old, 0, [0, 0x40]) else { return };
    assert_eq!(found, [active.clone(), quarantined.clone()]);
    // Of 1.19: slots have the flags of a service whose source ranges refuse.
    let new = Made { count: 2, flags: [0xe0, 0x40], ..MADE };
    assert_eq!(servers_of(new, 0, [0x40, 0x40]), Some(vec![active.clone(), active.clone()]));
    let new = Made { count: 1, flags: [0xe0, 0x40], ..MADE };
    assert_eq!(servers_of(new, 1, [0x40, 0x40]), Some(vec![active, quarantined]));
}

#[test]
fn source_ranges_are_those_of_the_service() {
    let entry = |prefix: u32, id: u16, at: [u8; 4]| {
        let key = [&prefix.to_ne_bytes()[..], &id.to_be_bytes(), &[0, 0], &at].concat();
        (key, vec![0])
    };
    let allow = Made { id: 53, flags: [0xe0, 0], ..MADE };
    let deny = Made { address: "10.96.0.2", id: 54, flags: [0xe0, 0x40], ..MADE };
    let all = Made { address: "10.96.0.3", id: 55, flags: [0x60, 0], ..MADE };
    let mut found = Vec::new();
    let there = making::with_bpffs(|dir| {
        let services = [allow.with(&[]), deny.with(&[]), all.with(&[])].concat();
        making::pin(&dir.join("cilium_lb4_services_v2"), (12, 12), &services).unwrap();
        let ranges = [entry(64, 53, [172, 31, 251, 20]), entry(40, 54, [10, 0, 0, 0])];
        making::pin_trie(&dir.join("cilium_lb4_source_range"), (12, 1), &ranges).unwrap();
        let fd = rustix::fs::open(dir, OFlags::PATH, Mode::empty()).unwrap();
        let read = read(NETNS, Path::new("/bpf"), fd.as_fd());
        assert_eq!(read.gaps, []);
        found = read.value;
    });
    assert!(there || !rustix::process::geteuid().is_root());
    let sources: Vec<_> = found.iter().map(|one| one.sources.clone()).collect();
    let ranges = |deny, address: &str, prefix| {
        Some(whereis_port_model::SourceRanges {
            deny,
            ranges: vec![(address.parse().unwrap(), prefix)],
        })
    };
    if there {
        assert_eq!(
            sources,
            [ranges(false, "172.31.251.20", 32), ranges(true, "10.0.0.0", 8), None]
        );
    }
}

#[test]
fn endpoints_identities_and_policies_as_the_maps_have_them() {
    let bytes = |hex: &str| -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    };
    // Of a real node with Cilium 1.14.
    let key = bytes("0af5006500000000000000000000000001000000");
    let value = bytes("0f00000000005400000000000000000000000000");
    let endpoint = datapath::endpoint((&key, &value)).unwrap();
    assert_eq!(endpoint.address, "10.245.0.101".parse::<IpAddr>().unwrap());
    assert_eq!((endpoint.ifindex, endpoint.id), (15, 84));
    let key = bytes("40000000000000010af50065000000000000000000000000");
    let found = datapath::identity((&key, &bytes("93e800000000000000000000"))).unwrap();
    assert_eq!((found.prefix, found.identity), (32, 0xe893));
    let key = bytes("200000000000000100000000000000000000000000000000");
    let found = datapath::identity((&key, &bytes("020000000000000000000000"))).unwrap();
    assert_eq!((found.prefix, found.identity), (0, 2));
    // A rule from a prefix to 8080, and whoever to whatever.
    let value = bytes("000006000000000000000000000000000000000000000000");
    let rule = datapath::policy((&bytes("400000000100000100061f90"), &value)).unwrap();
    assert_eq!((rule.identity, rule.proto, rule.port), (0x0100_0001, 6, 8080));
    assert_eq!((rule.prefix, rule.egress, rule.deny, rule.auth), (24, false, false, false));
    let all = datapath::policy((&bytes("280000000000000000000000"), &value)).unwrap();
    assert_eq!((all.identity, all.prefix), (0, 0));
    // Of the second version: a proxy, a refusal, and what comes first.
    let value = bytes("271101000100000000000000");
    let second = datapath::policy((&bytes("400000000000000000061f90"), &value)).unwrap();
    assert_eq!((second.proxy, second.deny, second.precedence), (10001, true, 1));
    // A hash, of 1.13: identity, port, protocol, direction.
    let value = bytes("000000000000000000000000000000000000000000000000");
    let old = datapath::policy((&bytes("050000001f900600"), &value)).unwrap();
    assert_eq!((old.identity, old.port, old.proto, old.prefix), (5, 8080, 6, 24));
    for length in 0..32 {
        let cut = vec![0xff; length];
        let _ = (datapath::endpoint((&cut, &cut)), datapath::identity((&cut, &cut)));
        let _ = (datapath::policy((&cut, &cut)), datapath::source_range(&cut));
    }
}

#[test]
fn what_can_not_be_read_is_a_gap() {
    let services = ("cilium_lb4_services_v2", Made { count: 1, ..MADE }.with(&[5]));
    let Some(read) = pinned(std::slice::from_ref(&services)) else { return };
    assert!(read.gaps[0].reason.contains("no map says which"), "{:?}", read.gaps);
    assert_eq!(read.gaps[0].impact, Impact::Port);
    let other = ("cilium_lb4_services_v2", vec![(vec![0; 14], vec![0; 12])]);
    let read = pinned(&[other]).unwrap();
    assert!(read.gaps[0].reason.contains("14 and 12 bytes"), "{:?}", read.gaps);
    assert!(read.gaps[0].remedy.as_deref().unwrap().contains("cilium-dbg"), "{:?}", read.gaps);
    assert_eq!(read.value, []);
}

#[test]
fn what_others_than_root_can_write_is_not_read() {
    let there = making::with_bpffs(|dir| {
        use std::os::unix::fs::PermissionsExt as _;
        let entries = MADE.with(&[]);
        let path = dir.join("cilium_lb4_services_v2");
        making::pin(&path, (12, 12), &entries).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let fd = rustix::fs::open(dir, OFlags::PATH, Mode::empty()).unwrap();
        let read = read(NETNS, Path::new("/bpf"), fd.as_fd());
        assert_eq!((read.value.len(), read.gaps.len()), (0, 1), "{read:?}");
    });
    assert!(there || !rustix::process::geteuid().is_root());
}

#[test]
fn damaged_bytes_are_no_services() {
    let (key, value) = Made { count: 1, ..MADE }.entry();
    let (_, other) = backend(3, 1, "fd00::1", 1, 0);
    for length in 0..40 {
        let cut = |bytes: &[u8]| bytes.iter().copied().cycle().take(length).collect::<Vec<u8>>();
        assert_eq!(parse::service_key(&cut(&key)).is_some(), matches!(length, 12 | 24));
        assert_eq!(parse::service_value(&cut(&value)).is_some(), length == 12);
        let known = matches!(length, 8 | 12 | 20 | 24);
        assert_eq!(parse::backend(&cut(&other)).is_some(), known, "{length}");
        assert_eq!(parse::backend_id(&cut(&key)).is_some(), matches!(length, 2 | 4));
    }
    // Every bit of an entry, changed.
    for bit in 0..96 {
        let change = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        let changed = parse::service_value(&change(&value)).unwrap();
        let (_, _, _) = (changed.words(), changed.kind(), changed.algorithm());
        let changed = parse::service_key(&change(&key)).unwrap();
        let padding = bit >= 80;
        assert_eq!(Some(changed) == parse::service_key(&key), padding, "{bit}");
    }
}

#[test]
fn changed_maps_never_panic() {
    let node = Made { count: 2, union: 0x0200_2a30, flags: [0x52, 0x20], ..MADE };
    let entries = [node.with(&[5, 6]), vec![backend(3, 5, "10.0.1.5", 80, 0)]].concat();
    let mut whole = vec![3 << 3 | 2 << 1];
    whole.extend(entries.iter().flat_map(|(key, value)| [key.as_slice(), value]).flatten());
    // A simple generator, always the same.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            bytes[at] = u8::try_from(random(256)).unwrap();
        }
        bytes.truncate(1 + random(bytes.len()));
        fuzz(&bytes);
    }
}
