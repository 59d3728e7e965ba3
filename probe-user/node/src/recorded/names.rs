//! Pseudonyms: for each name, id and address one replacement, the same wherever
//! it stands, and of the same shape.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use whereis_port_model::HardwareAddress;

/// What a name names, which its pseudonym shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum PseudonymKind {
    Host,
    User,
    Container,
    Image,
    Network,
    Netns,
    Pod,
    Namespace,
    Cluster,
    Label,
    Value,
    Interface,
    Unit,
    Path,
    Name,
}

impl PseudonymKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::User => "user",
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Netns => "netns",
            Self::Pod => "pod",
            Self::Namespace => "namespace",
            Self::Cluster => "cluster",
            Self::Label => "label",
            Self::Value => "value",
            Self::Interface => "if",
            Self::Unit => "unit",
            Self::Path => "path",
            Self::Name => "name",
        }
    }
}

/// All pseudonyms given so far.
#[derive(Debug, Default)]
pub(super) struct Pseudonyms {
    names: HashMap<String, String>,
    counts: HashMap<PseudonymKind, u32>,
    /// By the first digits of an id, which often stand for it, and by all.
    id_heads: HashMap<String, u64>,
    ids: HashMap<String, u64>,
    v4_networks: HashMap<[u8; 3], u32>,
    v6_networks: HashMap<[u16; 4], u32>,
    v6_hosts: HashMap<[u16; 4], u32>,
    hardware: HashMap<HardwareAddress, u32>,
}

/// How many digits of a container's id people and tools use for all of it.
const SHORT_ID: usize = 12;

/// The next number for `key`, from 1 on, or the one that it has.
fn number<K: std::hash::Hash + Eq>(of: &mut HashMap<K, u32>, key: K) -> u32 {
    let next = u32::try_from(of.len()).unwrap_or(u32::MAX).saturating_add(1);
    *of.entry(key).or_insert(next)
}

impl Pseudonyms {
    /// The pseudonym of a name. Ids, addresses, numbers and the empty name keep
    /// their shape.
    pub(super) fn name(&mut self, kind: PseudonymKind, text: &str) -> String {
        if let Some(known) = self.known(text) {
            return known.to_owned();
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return text.to_owned();
        }
        if let Ok(ip) = text.parse() {
            return self.ip(ip).to_string();
        }
        if is_id(text) {
            return self.id(text);
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let pseudonym = format!("{}-{count}", kind.as_str());
        self.names.insert(text.to_owned(), pseudonym.clone());
        pseudonym
    }

    /// The pseudonym of a name that has one already.
    pub(super) fn known(&self, text: &str) -> Option<&str> {
        self.names.get(text).map(String::as_str)
    }

    /// The pseudonym of an id in hexadecimal digits, dashes and underscores left
    /// where they are. Ids that begin with the same 12 digits keep doing so.
    pub(super) fn id(&mut self, id: &str) -> String {
        let digits: String =
            id.chars().filter(char::is_ascii_hexdigit).map(|c| c.to_ascii_lowercase()).collect();
        let head = digits.get(..SHORT_ID).unwrap_or(&digits).to_owned();
        let next = |of: &HashMap<String, u64>| u64::try_from(of.len()).unwrap_or(u64::MAX) + 1;
        let head_number = next(&self.id_heads);
        let head_number = *self.id_heads.entry(head).or_insert(head_number);
        // An odd factor keeps them apart and makes them look like ids.
        let head_number = head_number.wrapping_mul(0x9e37_79b9_7f4b) & 0xffff_ffff_ffff;
        let mut fake = format!("{head_number:012x}");
        let number = next(&self.ids);
        let mut state = *self.ids.entry(digits).or_insert(number);
        while fake.len() < id.len() {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            fake.push_str(&format!("{:08x}", state >> 32));
        }
        let mut fake = fake.chars();
        id.chars()
            .map(|c| if c.is_ascii_hexdigit() { fake.next().unwrap_or('0') } else { c })
            .collect()
    }

    /// The pseudonym of an address. Loopback, wildcard, broadcast and multicast
    /// addresses name no one. Neighbours in an IPv4 /24 or an IPv6 /64 stay such.
    pub(super) fn ip(&mut self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(ip) => self.v4(ip).into(),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(v4) => self.v4(v4).to_ipv6_mapped().into(),
                None => self.v6(ip).into(),
            },
        }
    }

    /// The pseudonym of a hardware address: a locally administered one.
    pub(super) fn hardware(&mut self, address: HardwareAddress) -> HardwareAddress {
        if address.0 == [0; 6] {
            return address;
        }
        let [a, b, c, d] = number(&mut self.hardware, address).to_be_bytes();
        HardwareAddress([2, 0, a, b, c, d])
    }

    fn v4(&mut self, ip: Ipv4Addr) -> Ipv4Addr {
        if ip.is_loopback() || ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() {
            return ip;
        }
        let [a, b, c, host] = ip.octets();
        let network = number(&mut self.v4_networks, [a, b, c]) - 1;
        // 198.18.0.0/15 first; 240.0.0.0/4, reserved too, for what goes beyond.
        let network = match network {
            0..512 => 0xc6_12_00 + network,
            beyond => 0xf0_00_00 + (beyond & 0x0e_ff_ff),
        };
        Ipv4Addr::from_bits((network << 8) | u32::from(host))
    }

    fn v6(&mut self, ip: Ipv6Addr) -> Ipv6Addr {
        if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
            return ip;
        }
        let [a, b, c, d, e, f, g, host] = ip.segments();
        // An interface id made from a hardware address tells the machine.
        let (high, low) = match [e, f, g, host] {
            [0, 0, 0, small] => (0, u32::from(small)),
            interface => (1, number(&mut self.v6_hosts, interface)),
        };
        let network = if ip.is_unicast_link_local() {
            [0xfe80, 0, 0, 0]
        } else {
            let network = number(&mut self.v6_networks, [a, b, c, d]);
            [0x2001, 0xdb8, halves(network).0, halves(network).1]
        };
        let [a, b, c, d] = network;
        Ipv6Addr::new(a, b, c, d, high, 0, halves(low).0, halves(low).1)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
fn halves(number: u32) -> (u16, u16) {
    ((number >> 16) as u16, number as u16)
}

/// Whether all of `text` is an id: at least 12 hexadecimal digits, or a UUID.
pub(super) fn is_id(text: &str) -> bool {
    id_at(text.as_bytes(), 0) == Some(text.len())
}

/// Where the ids in `text` begin and end.
pub(super) fn ids_in(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut ids = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let starts = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
        // Kubernetes glues `pod` to the UID, and `d` is a digit too.
        let skip = if bytes[at..].starts_with(b"pod") { 3 } else { 0 };
        match id_at(bytes, at + skip).filter(|_| starts) {
            Some(end) => {
                ids.push((at + skip, end));
                at = end;
            }
            None => at += 1,
        }
    }
    ids
}

/// The end of the id that begins at `start`.
fn id_at(bytes: &[u8], start: usize) -> Option<usize> {
    let rest = bytes.get(start..)?;
    let ends = |length: usize| !rest.get(length).is_some_and(u8::is_ascii_alphanumeric);
    let hex = |part: &[u8]| part.iter().all(u8::is_ascii_hexdigit);
    // 8-4-4-4-12, with dashes or, in systemd's names, underscores.
    if let Some(uuid) = rest.get(..36)
        && ends(36)
        && [8, 13, 18, 23].iter().all(|at| matches!(uuid[*at], b'-' | b'_'))
        && uuid.split(|b| matches!(b, b'-' | b'_')).map(<[u8]>::len).eq([8, 4, 4, 4, 12])
        && uuid.split(|b| matches!(b, b'-' | b'_')).all(hex)
    {
        return Some(start + 36);
    }
    let length = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    (length >= SHORT_ID && ends(length)).then_some(start + length)
}
