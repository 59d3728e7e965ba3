//! What conntrack says of one connection that it knows: as a message of a dump,
//! or as a line of `/proc/net/nf_conntrack`.

use std::net::{IpAddr, SocketAddr};

use super::super::netlink::{Attributes, NetlinkMessage, find};
use super::parse::{CT_NEW, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, Tuple, tuple};
use whereis_port_model::{Flow, FlowCounts, NetnsId, Proto};

const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_ZONE: u16 = 18;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
/// `CTA_COUNTERS_PACKETS` and `CTA_COUNTERS_BYTES`, of 64 bits.
const CTA_COUNTERS: [u16; 2] = [1, 2];
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const IPS_SEEN_REPLY: u32 = 1 << 1;

/// `enum tcp_conntrack` of `linux/netfilter/nf_conntrack_tcp.h`.
const STATES: [&str; 10] = [
    "none",
    "syn_sent",
    "syn_recv",
    "established",
    "fin_wait",
    "close_wait",
    "last_ack",
    "time_wait",
    "close",
    "syn_sent2",
];

/// The connection that a message of a dump tells of; `None` when it is of another
/// protocol, or damaged.
pub(super) fn of_message(netns: NetnsId, message: &NetlinkMessage<'_>) -> Option<Flow> {
    if message.kind != CT_NEW {
        return None;
    }
    let mut tuples = (None, None);
    let mut details = Details::default();
    for (kind, value) in Attributes(message.attributes()) {
        match kind {
            CTA_TUPLE_ORIG => tuples.0 = Some(tuple(value)?),
            CTA_TUPLE_REPLY => tuples.1 = Some(tuple(value)?),
            CTA_STATUS => details.answered = number(value)? & IPS_SEEN_REPLY != 0,
            CTA_PROTOINFO => details.state = tcp_state(value),
            CTA_TIMEOUT => details.timeout = number(value),
            CTA_ZONE => details.zone = u16::from_be_bytes(value.try_into().ok()?),
            CTA_COUNTERS_ORIG => details.sent = counters(value),
            CTA_COUNTERS_REPLY => details.received = counters(value),
            _ => {}
        }
    }
    flow(netns, tuples.0?, tuples.1?, details)
}

/// What a flow has beside its addresses.
#[derive(Debug, Default)]
struct Details {
    state: Option<String>,
    answered: bool,
    zone: u16,
    timeout: Option<u32>,
    /// Packets and bytes.
    sent: Option<[u64; 2]>,
    received: Option<[u64; 2]>,
}

/// Packets and bytes, where the kernel counts them.
fn counters(value: &[u8]) -> Option<[u64; 2]> {
    let [packets, bytes] =
        CTA_COUNTERS.map(|kind| Some(u64::from_be_bytes(find(value, kind)?.try_into().ok()?)));
    Some([packets?, bytes?])
}

fn flow(netns: NetnsId, original: Tuple, reply: Tuple, details: Details) -> Option<Flow> {
    let addresses = [original.destination, reply.source, reply.destination];
    let one_family = addresses.iter().all(|a| a.is_ipv4() == original.source.is_ipv4());
    let Details { state, answered, zone, timeout, sent, received } = details;
    let counts = sent.zip(received).map(|([sent_packets, sent_bytes], received)| FlowCounts {
        sent_packets,
        sent_bytes,
        received_packets: received[0],
        received_bytes: received[1],
    });
    (original.proto == reply.proto && one_family).then_some(Flow {
        netns,
        proto: original.proto,
        source: original.source,
        destination: original.destination,
        // The reply goes the other way.
        served_by: reply.source,
        seen_as: reply.destination,
        state,
        answered,
        zone,
        timeout,
        counts,
    })
}

fn tcp_state(attributes: &[u8]) -> Option<String> {
    let state = find(find(attributes, CTA_PROTOINFO_TCP)?, CTA_PROTOINFO_TCP_STATE)?;
    let number = usize::from(*state.first()?);
    Some(STATES.get(number).map_or_else(|| format!("state {number}"), ToString::to_string))
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// The connection of a line of `/proc/net/nf_conntrack`; `None` when it is of
/// another protocol, or unlike what kernels write.
pub(super) fn of_line(netns: NetnsId, line: &str) -> Option<Flow> {
    // ipv4 2 tcp 6 431999 ESTABLISHED src=… dst=… sport=… dport=… [UNREPLIED]
    // src=… dst=… sport=… dport=… [ASSURED] mark=0 zone=0 use=2
    let mut words = line.split_ascii_whitespace().skip(2);
    let proto = match words.next()? {
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        _ => return None,
    };
    let _number = words.next()?;
    // Offloaded connections have no timeout.
    let mut words = words.peekable();
    let timeout = words.peek()?.parse().ok();
    let mut details = Details { answered: true, timeout, ..Details::default() };
    let mut addresses = Vec::with_capacity(4);
    let mut ports = Vec::with_capacity(4);
    let mut counts: Vec<u64> = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some(("src" | "dst", address)) => addresses.push(address.parse().ok()?),
            Some(("sport" | "dport", port)) => ports.push(port.parse().ok()?),
            Some(("packets" | "bytes", count)) => counts.push(count.parse().ok()?),
            Some(("zone", zone)) => details.zone = zone.parse().ok()?,
            None if word == "[UNREPLIED]" => details.answered = false,
            None if proto == Proto::Tcp && addresses.is_empty() && !is_number(word) => {
                details.state = Some(word.to_ascii_lowercase());
            }
            _ => {}
        }
    }
    if let [packets, bytes, back, bytes_back] = counts[..] {
        (details.sent, details.received) = (Some([packets, bytes]), Some([back, bytes_back]));
    }
    let direction = |at: usize| {
        let address = |at: usize| -> Option<SocketAddr> {
            let (ip, port): (&IpAddr, &u16) = (addresses.get(at)?, ports.get(at)?);
            Some(SocketAddr::new(*ip, *port))
        };
        Some(Tuple { proto, source: address(at)?, destination: address(at + 1)? })
    };
    flow(netns, direction(0)?, direction(2)?, details)
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::super::super::netlink::messages;
    use super::*;

    const NETNS: NetnsId = NetnsId::Inode(7);

    /// A connection to 192.0.2.1:8080 that is translated, as Linux 6.18 dumps it.
    fn dumped() -> Vec<u8> {
        let hex = include_str!("fixtures/dump.hex");
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|pair| byte(pair).unwrap()).collect()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_dumped_connection_has_its_addresses_before_and_after_nat_and_its_state() {
        let flows: Vec<Flow> =
            messages(&dumped()).filter_map(|message| of_message(NETNS, &message)).collect();
        let [tcp, udp] = flows.as_slice() else { panic!("{flows:?}") };
        assert_eq!((tcp.netns, tcp.proto, udp.proto), (NETNS, Proto::Tcp, Proto::Udp));
        assert_eq!(tcp.destination, address("127.0.0.1:8080"));
        assert_eq!(tcp.served_by, address("127.0.0.1:9090"));
        assert_eq!(tcp.source.ip(), address("127.0.0.1:0").ip());
        assert_eq!(tcp.seen_as.ip(), address("127.0.0.9:0").ip());
        assert_eq!((tcp.state.as_deref(), tcp.answered), (Some("established"), true));
        assert!(tcp.timeout.is_some_and(|seconds| (400_000..=432_000).contains(&seconds)));
        assert_eq!((udp.state.as_deref(), udp.answered, udp.zone), (None, false, 0));
        assert_eq!((udp.destination.port(), udp.served_by.port()), (5353, 5300));
    }

    #[test]
    fn damaged_messages_never_panic() {
        let whole = dumped();
        for end in 0..whole.len() {
            for message in messages(&whole[..end]) {
                let _ = of_message(NETNS, &message);
            }
        }
        for at in 0..whole.len() {
            for value in [0, 1, 2, 4, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                for message in messages(&changed) {
                    let _ = of_message(NETNS, &message);
                }
            }
        }
    }

    #[test]
    fn lines_of_proc_are_read() {
        let tcp = "ipv4     2 tcp      6 431999 ESTABLISHED src=192.0.2.10 dst=192.0.2.1 \
                   sport=47186 dport=8080 packets=4 bytes=269 src=172.30.0.2 dst=192.0.2.10 \
                   sport=80 dport=47186 packets=3 bytes=200 [ASSURED] mark=0 zone=3 use=2";
        let flow = of_line(NETNS, tcp).unwrap();
        assert_eq!(flow.source, address("192.0.2.10:47186"));
        assert_eq!(flow.destination, address("192.0.2.1:8080"));
        assert_eq!(flow.served_by, address("172.30.0.2:80"));
        assert_eq!(flow.seen_as, address("192.0.2.10:47186"));
        assert_eq!(flow.state.as_deref(), Some("established"));
        assert_eq!((flow.answered, flow.zone, flow.timeout), (true, 3, Some(431_999)));

        let udp = "ipv6     10 udp      17 29 src=fe80::1 dst=fe80::2 sport=5 dport=53 \
                   [UNREPLIED] src=fe80::2 dst=fe80::1 sport=53 dport=5 mark=0 zone=0 use=2";
        let flow = of_line(NETNS, udp).unwrap();
        assert_eq!(flow.destination, address("[fe80::2]:53"));
        assert_eq!((flow.state, flow.answered), (None, false));

        let offloaded = "ipv4 2 tcp 6 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 \
                         dst=1.1.1.1 sport=2 dport=1 [OFFLOAD] mark=0 zone=0 use=3";
        assert_eq!(of_line(NETNS, offloaded).unwrap().timeout, None);
        let icmp = "ipv4 2 icmp 1 29 src=1.1.1.1 dst=2.2.2.2 type=8 code=0 id=3 src=2.2.2.2 \
                    dst=1.1.1.1 type=0 code=0 id=3 mark=0 zone=0 use=2";
        for line in [icmp, "", "ipv4 2 tcp", "ipv4 2 tcp 6 1 X src=a", &tcp[..80], &udp[..100]] {
            assert_eq!(of_line(NETNS, line), None, "{line}");
        }
    }
}
