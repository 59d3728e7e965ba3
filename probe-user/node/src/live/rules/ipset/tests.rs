//! Sets of the kernel, in namespaces of the tests, and damaged listings.

use super::*;
use crate::live::rules::xt::lab::{in_a_namespace, run};
use whereis_port_model::IpSetMember;

const NETNS: NetnsId = NetnsId::Inode(1);

/// As ipset writes members, but with the prefix length always.
fn as_text(member: &IpSetMember) -> String {
    let address = |(address, prefix): (std::net::IpAddr, u8)| format!("{address}/{prefix}");
    let proto = member.proto.map(|proto| format!("{proto}:")).unwrap_or_default();
    let ports = member.ports.map(|(first, last)| match first == last {
        true => format!("{proto}{first}"),
        false => format!("{proto}{first}-{last}"),
    });
    let parts = [member.address.map(address), ports, member.second.map(address)];
    let parts = parts.into_iter().chain([member.iface.clone()]).flatten().collect::<Vec<_>>();
    format!("{}{}", parts.join(","), if member.nomatch { " nomatch" } else { "" })
}

fn members(set: &IpSet) -> Option<Vec<String>> {
    let mut members: Vec<String> = set.members.as_ref()?.iter().map(as_text).collect();
    members.sort();
    Some(members)
}

#[test]
fn members_of_every_type_are_those_that_were_added() {
    in_a_namespace(&["ipset"], || {
        // What is created, what is added, and what is read then.
        type Case<'a> = (&'a str, &'a [&'a str], Option<&'a [&'a str]>);
        let sets: &[Case<'_>] = &[
            ("hash:ip", &["10.0.0.1", "10.0.0.9"], Some(&["10.0.0.1/32", "10.0.0.9/32"])),
            ("hash:ip netmask 24", &["10.0.1.77"], Some(&["10.0.1.0/24"])),
            ("hash:ip family inet6", &["fd00::1"], Some(&["fd00::1/128"])),
            (
                "hash:net",
                &["10.0.0.0/8", "10.1.0.0/16 nomatch", "192.0.2.1"],
                Some(&["10.0.0.0/8", "10.1.0.0/16 nomatch", "192.0.2.1/32"]),
            ),
            ("hash:net family inet6", &["fd00:1::/32"], Some(&["fd00:1::/32"])),
            (
                "hash:ip,port comment counters timeout 600",
                &["10.96.0.1,tcp:443", "10.96.0.1,udp:53", "10.96.0.2,sctp:9 comment x"],
                Some(&["10.96.0.1/32,17:53", "10.96.0.1/32,6:443", "10.96.0.2/32,132:9"]),
            ),
            (
                "hash:ip,port,ip",
                &["10.36.0.5,tcp:8080,10.36.0.5"],
                Some(&["10.36.0.5/32,6:8080,10.36.0.5/32"]),
            ),
            (
                "hash:ip,port,net",
                &["10.36.0.5,tcp:8080,192.0.2.0/24"],
                Some(&["10.36.0.5/32,6:8080,192.0.2.0/24"]),
            ),
            ("hash:net,port", &["10.0.0.0/8,udp:53"], Some(&["10.0.0.0/8,17:53"])),
            ("hash:net,iface", &["10.0.0.0/8,eth0"], Some(&["10.0.0.0/8,eth0"])),
            ("hash:net,iface", &["10.0.0.0/8,physdev:eth0"], None),
            (
                "bitmap:port range 30000-32767",
                &["30080", "31000-31001"],
                Some(&["30080", "31000", "31001"]),
            ),
            ("bitmap:ip range 10.0.0.0/24", &["10.0.0.7"], Some(&["10.0.0.7/32"])),
            ("bitmap:ip range 10.0.0.0/16 netmask 24", &["10.0.7.0"], Some(&["10.0.7.0/24"])),
            ("hash:ip", &[], Some(&[])),
            ("bitmap:ip,mac range 10.0.0.0/24", &["10.0.0.1,02:00:00:00:00:01"], None),
            ("list:set", &["S0"], None),
        ];
        let mut script = String::new();
        for (number, (kind, added, _)) in sets.iter().enumerate() {
            script += &format!("create S{number} {kind}\n");
            script.extend(added.iter().map(|member| format!("add S{number} {member}\n")));
        }
        run("ipset", &["restore"], &script);
        for (number, (kind, _, wanted)) in sets.iter().enumerate() {
            let index = u16::try_from(number).unwrap();
            let set = read(NETNS, index).unwrap().unwrap();
            let wanted: Option<Vec<String>> =
                wanted.map(|wanted| wanted.iter().map(ToString::to_string).collect());
            assert_eq!(members(&set), wanted, "{kind}");
            assert_eq!(set.kind, kind.split(' ').next().unwrap());
            assert_eq!((set.name, set.id), (format!("S{number}"), IpSetId { netns: NETNS, index }));
        }
        assert_eq!(read(NETNS, 1000).unwrap(), None);
        run("ipset", &["destroy", "S1"], "");
        assert_eq!(read(NETNS, 1).unwrap(), None);
    });
}

#[test]
fn a_set_of_many_members_is_read_whole_up_to_the_limit() {
    in_a_namespace(&["ipset"], || {
        run("ipset", &["create", "H", "hash:ip", "maxelem", "100000"], "");
        run("ipset", &["create", "B", "bitmap:port", "range", "0-65535"], "");
        run("ipset", &["add", "B", "1-60000"], "");
        let script: String =
            (0..20_000).map(|n| format!("add H 10.0.{}.{}\n", n / 256, n % 256)).collect();
        run("ipset", &["restore"], &script);
        for (index, count) in [(0, 20_000), (1, 60_000)] {
            let count_with = |limit| {
                let set = read_up_to(limit, NETNS, index).unwrap().unwrap();
                set.members.map(|members| members.len())
            };
            assert_eq!(count_with(MEMBERS), Some(count));
            assert_eq!(count_with(count), Some(count));
            assert_eq!(count_with(count - 1), None);
        }
    });
}

#[test]
fn without_the_right_it_is_an_error() {
    in_a_namespace(&["ipset"], || {
        use rustix::thread::{CapabilitySet, CapabilitySets};
        run("ipset", &["create", "S", "hash:ip"], "");
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).unwrap();
        let error = read(NETNS, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    });
}

/// Made by hand, in the form that Linux 6.18 has: 10.96.0.1,tcp:443.
#[test]
fn damaged_listings_are_no_trouble() {
    let mut whole = Vec::new();
    let mut attribute = |kind: u16, value: &[u8]| {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        whole.extend_from_slice(&bytes);
        bytes
    };
    let address = [8, 0, 1, 0x40, 10, 96, 0, 1];
    let mut member = vec![12, 0, 1, 0x80];
    member.extend(address);
    member.extend([6, 0, 4, 0x40, 1, 0xbb, 0, 0, 5, 0, 7, 0, 6, 0, 0, 0]);
    let mut data = vec![32, 0, 7, 0x80];
    data.extend(member);
    attribute(3, b"hash:ip,port\0");
    attribute(8, &data);
    let parse = |bytes: &[u8]| {
        let mut listing = SetListing::new(10);
        listing.add(bytes);
        listing.finish()
    };
    let (kind, members) = parse(&whole);
    assert_eq!(kind, "hash:ip,port");
    assert_eq!(members.unwrap().iter().map(as_text).collect::<Vec<_>>(), ["10.96.0.1/32,6:443"]);
    for end in 0..whole.len() {
        parse(&whole[..end]);
    }
    for at in 0..whole.len() {
        for value in 0..=255 {
            let mut changed = whole.clone();
            changed[at] = value;
            parse(&changed);
        }
    }
}
