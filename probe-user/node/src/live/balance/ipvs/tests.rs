use super::*;

const NETNS: NetnsId = NetnsId::Inode(7);

fn attributes(all: &[(u16, &[u8])]) -> Vec<u8> {
    all.iter().flat_map(|(kind, value)| attribute(*kind, value).unwrap()).collect()
}

fn v4(address: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&address);
    bytes
}

/// As `net/netfilter/ipvs/ip_vs_ctl.c` writes one.
fn tcp_service(flags: u32) -> Vec<u8> {
    let both = [flags.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat();
    attributes(&[
        (1, &2_u16.to_ne_bytes()),
        (2, &6_u16.to_ne_bytes()),
        (3, &v4([172, 17, 0, 1])),
        (4, &30006_u16.to_be_bytes()),
        (6, b"wrr\0"),
        (7, &both),
        (8, &300_u32.to_ne_bytes()),
        (9, &u32::MAX.to_ne_bytes()),
    ])
}

fn mark_service() -> Vec<u8> {
    attributes(&[
        (1, &10_u16.to_ne_bytes()),
        (5, &0x100_u32.to_ne_bytes()),
        (6, b"rr\0"),
        (7, &[0; 8]),
    ])
}

fn dest(weight: u32, method: u32, family: Option<u16>) -> Vec<u8> {
    let family = family.map(u16::to_ne_bytes);
    let mut all: Vec<(u16, &[u8])> = Vec::new();
    let address = v4([10, 36, 1, 5]);
    let (port, weight) = (8080_u16.to_be_bytes(), weight.to_ne_bytes());
    let (method, active) = (method.to_ne_bytes(), 4_u32.to_ne_bytes());
    all.extend([(1, &address[..]), (2, &port), (3, &method), (4, &weight), (7, &active)]);
    all.extend(family.as_ref().map(|family| (11, &family[..])));
    attributes(&all)
}

#[test]
fn a_service_is_read_from_its_attributes() {
    let plain = frontend(NETNS, &tcp_service(2)).unwrap();
    assert_eq!(plain.address, Some("172.17.0.1".parse().unwrap()));
    assert_eq!((plain.proto, plain.port, plain.mark), (Some(6), 30006, None));
    assert_eq!(plain.scheduler.as_deref(), Some("wrr"));
    // Every service has a timeout; it means something only where clients are kept.
    assert_eq!((plain.affinity, plain.flags.len()), (None, 0));
    let sticky = frontend(NETNS, &tcp_service(1 | 4)).unwrap();
    assert_eq!((sticky.affinity, &*sticky.flags.join(" ")), (Some(300), "persistent one-packet"));
}

#[test]
fn a_service_by_mark_takes_every_port_of_its_version_of_ip() {
    let marked = frontend(NETNS, &mark_service()).unwrap();
    assert_eq!(marked.mark, Some(0x100));
    assert_eq!((marked.proto, marked.port), (None, 0));
    assert_eq!(marked.address, Some("::".parse().unwrap()));
}

#[test]
fn a_service_is_named_to_the_kernel_as_the_kernel_named_it() {
    let by_address = id(&tcp_service(0)).unwrap();
    assert_eq!(by_address, tcp_service(0)[..by_address.len()]);
    let kinds = |bytes: &[u8]| (1..=9).filter(|k| find(bytes, *k).is_some()).collect();
    let all: Vec<u16> = kinds(&by_address);
    assert_eq!(all, [1, 2, 3, 4]);
    let by_mark: Vec<u16> = kinds(&id(&mark_service()).unwrap());
    assert_eq!(by_mark, [1, 5]);
}

#[test]
fn a_destination_is_read_from_its_attributes() {
    let one = server(false, &dest(3, 0, Some(2))).unwrap();
    assert_eq!(one.to, "10.36.1.5:8080".parse().unwrap());
    assert_eq!((one.weight, one.active, one.connections), (Some(3), true, Some(4)));
    assert_eq!((one.method.as_deref(), one.state), (Some("masq"), None));

    let idle = server(false, &dest(0, 0, Some(2))).unwrap();
    assert!(!idle.active && idle.state.as_deref() == Some("draining"), "{idle:?}");

    // The bits above the method are flags of connections.
    let methods = [(1, Some("local")), (2, Some("tunnel")), (3, Some("route")), (0x104, None)];
    for (number, name) in methods {
        assert_eq!(server(false, &dest(1, number, None)).unwrap().method.as_deref(), name);
    }
    // Servers of another version of IP than their service, and kernels that don't say.
    assert!(server(true, &dest(1, 2, Some(2))).unwrap().to.is_ipv4());
    assert!(server(true, &dest(1, 0, None)).unwrap().to.is_ipv6());
    assert!(server(false, &dest(1, 0, Some(99))).is_none());
}

#[test]
fn damage_is_left_out() {
    let service = tcp_service(1);
    for end in 0..service.len() {
        let cut = frontend(NETNS, &service[..end]);
        // The port is the last that must be there; its padding may lack.
        assert_eq!(cut.is_some(), end >= 42, "cut at {end}: {cut:?}");
    }
    let dest = dest(1, 0, None);
    for end in 0..dest.len() {
        let cut = server(false, &dest[..end]);
        assert_eq!(cut.is_some(), end >= 44, "cut at {end}: {cut:?}");
    }
}

/// Written by Linux 6.1, with the header, and made longer.
const TABLE: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
UDP  0A600001:0035 wrr ops 
  -> 0A240105:1F90      Masq    3      2          1
  -> 0A240106:1F90      Route   0      0          0
TCP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0050 rr persistent 75000 00000080
  -> [fd00:0000:0000:0000:0000:0000:0000:0002]:1F90      Tunnel  1      0          0
FWM  00000100 lc 
  -> 0A240105:0000      Local   1      0          0
FWM  00000200 lc 
IP_99  0A600001:0000 rr 
  -> 0A240107:1F90      Masq    1      0          0
";

#[test]
fn the_table_says_the_same_in_text() {
    let all = text::parse(NETNS, TABLE);
    assert_eq!(all.len(), 4, "{all:?}");
    let [udp, six, marked, no_servers] = &all[..] else { panic!() };
    assert_eq!((udp.proto, udp.port), (Some(17), 53));
    assert_eq!(udp.address, Some("10.96.0.1".parse().unwrap()));
    assert_eq!((udp.scheduler.as_deref(), &*udp.flags.join(" ")), (Some("wrr"), "one-packet"));
    let [busy, idle] = &udp.backends[..] else { panic!("{udp:?}") };
    assert_eq!(busy.to, "10.36.1.5:8080".parse().unwrap());
    assert_eq!((busy.weight, busy.active, busy.connections), (Some(3), true, Some(2)));
    assert_eq!((idle.active, idle.method.as_deref()), (false, Some("route")));

    assert_eq!((six.proto, six.port), (Some(6), 80));
    assert_eq!(six.address, Some("fd00::1".parse().unwrap()));
    assert_eq!((six.affinity, &*six.flags.join(" ")), (None, "persistent"));
    assert_eq!(six.backends[0].to, "[fd00::2]:8080".parse().unwrap());

    assert_eq!((marked.mark, marked.proto), (Some(0x100), None));
    assert_eq!(marked.address, Some("0.0.0.0".parse().unwrap()));
    assert_eq!((no_servers.mark, no_servers.address), (Some(0x200), None));
    // What comes below a line that makes no sense is not of the service above it.
    assert!(no_servers.backends.is_empty());
}

#[test]
fn any_text_is_read_without_harm() {
    for end in 0..TABLE.len() {
        text::parse(NETNS, &TABLE[..end]);
    }
    assert!(
        text::parse(NETNS, "TCP :: rr\nTCP [::]: rr\nFWM x y\n  -> 1:1 Masq -1 0 0\n").is_empty()
    );
}
