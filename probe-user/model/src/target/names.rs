//! Names that a target may have, and what this host's files say of them: services(5), hosts(5)
//! and, for the order of addresses, gai.conf(5). DNS is never asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{LOOPBACK4, Port, Proto};

/// How many addresses of one name are asked for.
const ADDRESSES: usize = 8;

/// The files of the node that say what names of hosts and services mean.
#[derive(Debug, Clone, Default)]
pub struct HostNames {
    /// The text of services(5).
    pub services: String,
    /// The text of hosts(5); `None` where it is not that of the node that is asked.
    pub hosts: Option<String>,
    /// The text of gai.conf(5).
    pub order: String,
    /// Whether the loopback has `::1`: without it, `::1` comes last.
    pub ipv6_loopback: bool,
    /// The names of the tool's commands: what a word may have been meant to be.
    pub commands: Vec<String>,
}

/// The addresses of a host's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddresses {
    /// In the order in which they are tried, where that is known, else in that of the file.
    pub addresses: Vec<IpAddr>,
    /// Whether they are tried in this order.
    pub ordered: bool,
    /// Where it says so.
    pub source: &'static str,
}

impl HostNames {
    /// The addresses of a host's name, or why there are none.
    ///
    /// # Errors
    /// What to do instead.
    pub fn addresses(&self, name: &str) -> Result<HostAddresses, String> {
        let name = name.trim_end_matches('.');
        let mut found = self.hosts.as_deref().map_or_else(Vec::new, |text| hosts(text, name));
        let mut source = "/etc/hosts";
        if found.is_empty() && is_localhost(name) {
            found = vec![Ipv6Addr::LOCALHOST.into(), LOOPBACK4];
            source = "RFC 6761";
        }
        if found.is_empty() {
            let not = match self.hosts {
                Some(_) => "it is not in /etc/hosts, and DNS is not asked",
                None => "names are not known of a recording",
            };
            return Err(format!(
                "{name:?} looks like the name of a host: {not}; use its address (getent ahosts {})",
                if is_plain(name) { name } else { "NAME" }
            ));
        }
        // Of other addresses more decides, such as where a route leads.
        let ordered = found.iter().all(IpAddr::is_loopback);
        if ordered {
            found.sort_by_key(|address| self.place(*address));
        }
        found.truncate(ADDRESSES);
        Ok(HostAddresses { addresses: found, ordered, source })
    }

    /// Before the other ones come those with less.
    ///
    /// RFC 6724, section 6, of which loopback addresses leave rules 1 (one that can't be used
    /// comes last) and 6 (precedence), then the file's order; measured with glibc 2.36.
    fn place(&self, address: IpAddr) -> (bool, std::cmp::Reverse<u32>) {
        let unusable = address.is_ipv6() && !self.ipv6_loopback;
        (unusable, std::cmp::Reverse(precedence(&self.order, address)))
    }

    /// The port of a service name or alias, from the text of services(5).
    pub fn service(&self, name: &str, proto: Option<Proto>) -> Option<Port> {
        self.services.lines().find_map(|line| {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let official = words.next()?;
            let (port, protocol) = words.next()?.split_once('/')?;
            let known = Proto::ALL.into_iter().find(|p| p.as_str() == protocol)?;
            let named = official == name || words.any(|alias| alias == name);
            (named && proto.is_none_or(|p| p == known)).then(|| port.parse().ok().map(Port))?
        })
    }
}

/// Whether a name is of the loopback wherever it is (RFC 6761, section 6.3).
fn is_localhost(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether a name is one that may stand in a command as it is.
fn is_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !name.is_empty() && !name.starts_with('-') && name.bytes().all(plain)
}

/// The addresses that hosts(5) has for a name, each once, in its order.
fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&address) {
            found.push(address);
            // No name that is meant has so many.
            if found.len() > 4 * ADDRESSES {
                break;
            }
        }
    }
    found
}

/// What gai.conf(5) says of an address: the longest prefix that it is in. As soon as the file
/// has one entry, those that the resolver is built with count no more.
fn precedence(text: &str, address: IpAddr) -> u32 {
    let built_in: [(Ipv6Addr, u8, u32); 2] =
        [(Ipv6Addr::LOCALHOST, 128, 50), (Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96, 10)];
    let entry = |line: &str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        words.next().filter(|word| *word == "precedence")?;
        let (prefix, length) = words.next()?.split_once('/')?;
        let value = words.next()?.parse().ok()?;
        Some((prefix.parse().ok()?, length.parse().ok().filter(|l| *l <= 128)?, value))
    };
    let mut table: Vec<(Ipv6Addr, u8, u32)> = text.lines().filter_map(entry).collect();
    if table.is_empty() {
        table = built_in.to_vec();
    }
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let is_in = |(prefix, length, _): &&(Ipv6Addr, u8, u32)| {
        let differ = u128::from(*prefix) ^ u128::from(address);
        *length == 0 || differ >> (128 - u32::from(*length)) == 0
    };
    let rest = 40;
    table.iter().filter(is_in).max_by_key(|entry| entry.1).map_or(rest, |entry| entry.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &str, order: &str, ipv6_loopback: bool, name: &str, expected: &[&str]) {
        let names = HostNames {
            hosts: Some(hosts.to_owned()),
            order: order.to_owned(),
            ipv6_loopback,
            ..HostNames::default()
        };
        let found = names.addresses(name).map(|known| known.addresses).unwrap_or_default();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{name} in {hosts:?}, {order:?}");
    }

    /// As `getaddrinfo` of glibc 2.36 said with these very files.
    #[test]
    fn the_order_is_that_of_the_resolver() {
        let both = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n";
        check(both, "", true, "localhost", &["::1", "127.0.0.1"]);
        check(both, "", true, "LOCALHOST.", &["::1", "127.0.0.1"]);
        check(both, "", false, "localhost", &["127.0.0.1", "::1"]);
        let four_first = "#label ::1/128 0\nprecedence ::ffff:0:0/96  100\n";
        check(both, four_first, true, "localhost", &["127.0.0.1", "::1"]);
        check("127.0.0.1 localhost\n", "", true, "localhost", &["127.0.0.1"]);
        let several = "127.0.0.1 x\n127.0.0.5 x # no\n127.0.0.3 x y\n127.0.0.5 x\n";
        check(several, "", true, "x", &["127.0.0.1", "127.0.0.5", "127.0.0.3"]);
        check(several, "", true, "no", &[]);
    }

    #[test]
    fn localhost_is_the_loopback_where_no_file_says_so() {
        check("", "", true, "localhost", &["::1", "127.0.0.1"]);
        check("", "", true, "app.localhost", &["::1", "127.0.0.1"]);
        check("nonsense localhost\n10.0.0.1\n", "", true, "localhost", &["::1", "127.0.0.1"]);
        check("10.0.0.1 api\n", "", true, "localhosts", &[]);
    }

    #[test]
    fn the_order_of_other_addresses_is_not_told() {
        let names =
            HostNames { hosts: Some("10.0.0.1 y\n127.0.0.1 y\n".into()), ..HostNames::default() };
        assert!(!names.addresses("y").unwrap().ordered);
    }
}
