//! What the notations of all forwarders have in common.

use std::net::{IpAddr, Ipv4Addr};

use crate::{Port, PortRange, Proto};

use super::ForwardTarget;

/// The address that a command line says is listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BindAddress {
    /// Not said, or said by a name that only a lookup would resolve.
    Any,
    /// `localhost`: 127.0.0.1, ::1 or both.
    Loopback,
    /// This address; an unspecified one stands for the wildcard of either family.
    Ip(IpAddr),
}

impl BindAddress {
    /// From how a command line puts it, brackets allowed.
    pub(super) fn from(text: &str) -> Self {
        match unbracket(text) {
            "localhost" => Self::Loopback,
            text => text.parse().map_or(Self::Any, Self::Ip),
        }
    }

    /// Whether a socket bound to `address` can be the one that is meant.
    pub(super) fn takes(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Self::Any => true,
            Self::Loopback => address.is_loopback(),
            Self::Ip(ip) if ip.is_unspecified() => address.is_unspecified(),
            Self::Ip(ip) => ip.to_canonical() == address,
        }
    }
}

/// The last part of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The text without the brackets that IPv6 addresses wear.
pub(super) fn unbracket(text: &str) -> &str {
    text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text)
}

/// A port number from 1 on, in decimal digits only.
pub(super) fn port(text: &str) -> Option<Port> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|p| *p != 0).map(Port)
}

/// A port number or one of the few names that are the same on every machine.
pub(super) fn port_or_service(text: &str) -> Option<Port> {
    const SERVICES: [(&str, u16); 12] = [
        ("ssh", 22),
        ("smtp", 25),
        ("domain", 53),
        ("http", 80),
        ("ntp", 123),
        ("imap2", 143),
        ("ldap", 389),
        ("https", 443),
        ("imaps", 993),
        ("mysql", 3306),
        ("postgresql", 5432),
        ("http-alt", 8080),
    ];
    port(text).or_else(|| {
        SERVICES.iter().find(|(name, _)| *name == text).map(|(_, number)| Port(*number))
    })
}

/// `PORT` or `FIRST-LAST`.
pub(super) fn range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(PortRange { first, last })
}

/// `HOST:PORT` at its last colon, the host without brackets.
pub(super) fn host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    Some((unbracket(host), port))
}

/// The target that a host, by address or name, and a port stand for.
pub(super) fn target(host: &str, port: Port, proto: Proto) -> Option<ForwardTarget> {
    let host = unbracket(host);
    if host == "localhost" {
        return Some(ForwardTarget::Address(Ipv4Addr::LOCALHOST.into(), port, proto));
    }
    match host.parse() {
        Ok(ip) => Some(ForwardTarget::Address(ip, port, proto)),
        Err(_) if is_host_name(host) => Some(ForwardTarget::Host(host.to_owned(), port, proto)),
        Err(_) => None,
    }
}

fn is_host_name(text: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    !text.is_empty() && text.len() <= 255 && text.chars().all(allowed)
}

/// Words in one line, cut at a length at which nobody reads on.
pub(super) fn quote<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    const LONGEST: usize = 300;
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().take(LONGEST + 1));
        if line.chars().count() > LONGEST {
            line = line.chars().take(LONGEST).collect();
            line.push('…');
            break;
        }
    }
    line
}
