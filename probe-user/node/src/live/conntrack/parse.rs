//! What one message of nfnetlink's conntrack says about NAT.
//!
//! Kernel: `net/netfilter/nf_conntrack_netlink.c`, attributes as in
//! `linux/netfilter/nfnetlink_conntrack.h`; numbers in network byte order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::netlink::{Attributes, NetlinkMessage};
use whereis_port_model::{NatEvent, Proto};

/// `NFNL_SUBSYS_CTNETLINK << 8`, and with `IPCTNL_MSG_CT_DELETE`.
pub(super) const CT_NEW: u16 = 1 << 8;
const CT_DELETE: u16 = 1 << 8 | 2;

pub(super) const CTA_TUPLE_ORIG: u16 = 1;
pub(super) const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TIMESTAMP: u16 = 20;
/// When the event was made (Linux 6.14, where `nf_conntrack_timestamp` is 1).
const CTA_TIMESTAMP_EVENT: u16 = 27;
const CTA_TIMESTAMP_START: u16 = 1;
const CTA_TIMESTAMP_STOP: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
pub(super) const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
pub(super) const CTA_PROTO_NUM: u16 = 1;
pub(super) const CTA_PROTO_SRC_PORT: u16 = 2;
pub(super) const CTA_PROTO_DST_PORT: u16 = 3;
pub(super) const IPPROTO_TCP: u8 = 6;
pub(super) const IPPROTO_UDP: u8 = 17;

/// A connection that NAT changes begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NatMessage {
    pub(super) proto: Proto,
    pub(super) nat: NatEvent,
    /// Nanoseconds since the epoch; `None` where the kernel takes no times of
    /// connections, which is its default.
    pub(super) at: Option<u64>,
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) proto: Proto,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

/// What the message tells; `None` if it is of another kind, of another protocol,
/// of a connection that NAT leaves as it is, or damaged.
pub(super) fn nat_message(message: &NetlinkMessage<'_>) -> Option<NatMessage> {
    let begins = match message.kind {
        CT_NEW => true,
        CT_DELETE => false,
        _ => return None,
    };
    let mut original = None;
    let mut reply = None;
    let mut event_time = None;
    let mut life = (None, None);
    for (kind, value) in Attributes(message.attributes()) {
        match kind {
            CTA_TUPLE_ORIG => original = Some(tuple(value)?),
            CTA_TUPLE_REPLY => reply = Some(tuple(value)?),
            CTA_TIMESTAMP => life = timestamps(value),
            CTA_TIMESTAMP_EVENT => event_time = number(value),
            _ => {}
        }
    }
    let (original, reply) = (original?, reply?);
    // The reply goes the other way. What kind of NAT it is does not matter, and
    // the status bits don't tell all: IPVS sets none.
    let nat = NatEvent {
        begins,
        source: original.source,
        destination: original.destination,
        new_source: reply.destination,
        new_destination: reply.source,
    };
    let changed = (nat.source, nat.destination) != (nat.new_source, nat.new_destination);
    if !changed || original.proto != reply.proto || !same_family(&nat) {
        return None;
    }
    let at = event_time.or(if begins { life.0 } else { life.1 });
    Some(NatMessage { proto: original.proto, nat, at })
}

/// Whether all four addresses are of one family: conntrack has no other NAT.
fn same_family(nat: &NatEvent) -> bool {
    let others = [nat.destination, nat.new_source, nat.new_destination];
    others.iter().all(|address| address.is_ipv4() == nat.source.is_ipv4())
}

pub(super) fn tuple(attributes: &[u8]) -> Option<Tuple> {
    let mut addresses = (None, None);
    let mut ports = (None, None);
    let mut proto = None;
    for (kind, value) in Attributes(attributes) {
        match kind {
            CTA_TUPLE_IP => {
                for (kind, value) in Attributes(value) {
                    match kind {
                        CTA_IP_V4_SRC => addresses.0 = Some(ipv4(value)?),
                        CTA_IP_V4_DST => addresses.1 = Some(ipv4(value)?),
                        CTA_IP_V6_SRC => addresses.0 = Some(ipv6(value)?),
                        CTA_IP_V6_DST => addresses.1 = Some(ipv6(value)?),
                        _ => {}
                    }
                }
            }
            CTA_TUPLE_PROTO => {
                for (kind, value) in Attributes(value) {
                    match kind {
                        CTA_PROTO_NUM => proto = Some(protocol(value)?),
                        CTA_PROTO_SRC_PORT => ports.0 = Some(port(value)?),
                        CTA_PROTO_DST_PORT => ports.1 = Some(port(value)?),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Tuple {
        proto: proto?,
        source: SocketAddr::new(addresses.0?, ports.0?),
        destination: SocketAddr::new(addresses.1?, ports.1?),
    })
}

/// When the connection began and when it ended.
fn timestamps(attributes: &[u8]) -> (Option<u64>, Option<u64>) {
    let mut times = (None, None);
    for (kind, value) in Attributes(attributes) {
        match kind {
            CTA_TIMESTAMP_START => times.0 = number(value),
            CTA_TIMESTAMP_STOP => times.1 = number(value),
            _ => {}
        }
    }
    times
}

fn ipv4(value: &[u8]) -> Option<IpAddr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into())
}

fn ipv6(value: &[u8]) -> Option<IpAddr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into())
}

fn port(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.try_into().ok()?))
}

fn number(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

fn protocol(value: &[u8]) -> Option<Proto> {
    match value {
        [IPPROTO_TCP] => Some(Proto::Tcp),
        [IPPROTO_UDP] => Some(Proto::Udp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::netlink::messages;
    use super::*;

    /// Messages as Linux 6.18 sent them; `fixtures/record.sh` says how.
    macro_rules! recorded {
        ($name:literal) => {
            bytes(include_str!(concat!("fixtures/", $name, ".hex")))
        };
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|pair| byte(pair).unwrap()).collect()
    }

    fn parse(bytes: &[u8]) -> Option<NatMessage> {
        messages(bytes).find_map(|message| nat_message(&message))
    }

    fn nat(begins: bool, addresses: [&str; 4]) -> NatEvent {
        let [source, destination, new_source, new_destination] =
            addresses.map(|a| a.parse().unwrap());
        NatEvent { begins, source, destination, new_source, new_destination }
    }

    #[test]
    fn both_addresses_of_a_tcp_connection_are_told_before_and_after_nat() {
        let addresses = ["127.0.0.1:56930", "127.0.0.1:8080", "127.0.0.9:56930", "127.0.0.1:9090"];
        let begins = parse(&recorded!("tcp-begins")).unwrap();
        assert_eq!(begins, NatMessage { proto: Proto::Tcp, nat: nat(true, addresses), at: None });
        let ends = parse(&recorded!("tcp-ends")).unwrap();
        assert_eq!(ends, NatMessage { proto: Proto::Tcp, nat: nat(false, addresses), at: None });
    }

    #[test]
    fn ipv6_and_udp_are_read_likewise() {
        let six = ["[::1]:55266", "[::1]:8080", "[::1]:55266", "[::1]:9090"];
        for (begins, recorded) in
            [(true, recorded!("tcp6-begins")), (false, recorded!("tcp6-ends"))]
        {
            let message = parse(&recorded).unwrap();
            assert_eq!((message.proto, message.nat), (Proto::Tcp, nat(begins, six)));
        }
        let udp = ["127.0.0.1:55231", "127.0.0.1:5353", "127.0.0.1:55231", "127.0.0.1:5300"];
        for (begins, recorded) in [(true, recorded!("udp-begins")), (false, recorded!("udp-ends"))]
        {
            let message = parse(&recorded).unwrap();
            assert_eq!((message.proto, message.nat), (Proto::Udp, nat(begins, udp)));
        }
    }

    #[test]
    fn what_nat_leaves_alone_and_other_protocols_are_not_told() {
        for recorded in [
            recorded!("no-nat-begins"),
            recorded!("no-nat-ends"),
            recorded!("icmp-begins"),
            recorded!("icmp-ends"),
        ] {
            assert_eq!(parse(&recorded), None);
        }
    }

    #[test]
    fn the_kernels_own_times_are_taken_where_it_has_them() {
        let begins = parse(&recorded!("timestamp-begins")).unwrap().at.unwrap();
        let ends = parse(&recorded!("timestamp-ends")).unwrap().at.unwrap();
        // Recorded on 22 November 2026, within a second.
        assert_eq!(begins / 86_400_000_000_000, 20_779);
        assert!(begins < ends && ends - begins < 1_000_000_000, "{begins} {ends}");
    }

    #[test]
    fn before_linux_6_14_an_end_has_the_times_of_the_connection_only() {
        let mut message = recorded!("timestamp-ends");
        // The last attribute of the recording: 4 bytes of header and a number.
        let event_time = message.len() - 12;
        assert_eq!(message[event_time..][..4], [12, 0, 27, 0]);
        let with_event_time = parse(&message).unwrap().at.unwrap();
        message.truncate(event_time);
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        let stop = parse(&message).unwrap().at.unwrap();
        assert!(stop <= with_event_time && with_event_time - stop < 1_000_000, "{stop}");
    }

    #[test]
    fn damage_never_panics_and_never_gives_what_is_no_nat() {
        let all = [
            recorded!("tcp-begins"),
            recorded!("tcp6-begins"),
            recorded!("udp-ends"),
            recorded!("icmp-begins"),
            recorded!("timestamp-ends"),
        ];
        let check = |bytes: &[u8]| {
            if let Some(NatMessage { nat, .. }) = parse(bytes) {
                let came = (nat.source, nat.destination);
                assert_ne!(came, (nat.new_source, nat.new_destination), "{bytes:02x?}");
                assert!(same_family(&nat), "{bytes:02x?}");
            }
        };
        // A small generator with a fixed seed: a failure can be repeated.
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % below as u64).unwrap()
        };
        for message in &all {
            for length in 0..message.len() {
                check(&message[..length]);
                // The same, but with a header that says so.
                let mut short = message[..length].to_vec();
                if let Some(header) = short.first_chunk_mut::<4>() {
                    *header = u32::try_from(length).unwrap().to_ne_bytes();
                }
                check(&short);
            }
            for at in 0..message.len() {
                for value in [0, 1, 2, 3, 4, 0x7f, 0x80, 0xff] {
                    let mut changed = message.clone();
                    changed[at] = value;
                    check(&changed);
                }
            }
            for _ in 0..20_000 {
                let mut changed = message.clone();
                for _ in 0..=random(6) {
                    let at = random(changed.len());
                    changed[at] = u8::try_from(random(256)).unwrap();
                }
                check(&changed);
            }
        }
    }
}
