//! Questions as understood: `53/udp`, `[::1]:8080`, `8000-8010`, `https`, and what people copy
//! from error messages, other tools and browsers.

mod names;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use names::HostNames;

use crate::{Port, PortRange, Proto, Query, ResolvedName, Scope};

/// How many ports and ranges one target may list.
const LISTED: usize = 64;

/// A target that is no question.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{target:?} is not a port: {reason}")]
pub struct BadTarget {
    target: String,
    reason: String,
}

/// Understands a target: a question for each port or range that it lists, and for each address
/// of a name.
///
/// # Errors
/// Says what is wrong with the target and, where it can, what was meant.
pub fn parse_target(target: &str, names: &HostNames) -> Result<Vec<Query>, BadTarget> {
    understand(target.trim(), names).map_err(|reason| BadTarget {
        // What stands before an @ may be a password.
        target: match target.split_once("://").and_then(|(_, rest)| rest.split_once('@')) {
            Some((before, after)) if !before.contains('/') => {
                format!("{}://…@{after}", target.split("://").next().unwrap_or_default())
            }
            _ => target.to_owned(),
        },
        reason,
    })
}

/// The UNIX socket that a target names: a whole path, or an abstract name behind `@`.
pub fn unix_target(target: &str) -> Option<String> {
    let target = target.trim();
    let name = target.strip_prefix("unix://").or(target.strip_prefix("unix:")).unwrap_or(target);
    // Abstract names have dashes and slashes; one that looks like an address of mail is none.
    let is_name = name.starts_with('/') || name.len() > 1 && name.starts_with('@');
    is_name.then(|| name.to_owned())
}

fn understand(target: &str, names: &HostNames) -> Result<Vec<Query>, String> {
    if let Some((scheme, rest)) = target.split_once("://") {
        return url(target, scheme, rest, names);
    }
    if target.contains('/') && looks_like_path(target) {
        return Err("it looks like a path: of a socket, write all of it, from / on".to_owned());
    }
    // As `docker ps` writes it: what is published, and the port inside.
    if let Some((outer, inner)) = target.split_once("->") {
        let proto = inner.rsplit_once('/').map_or("tcp", |(_, proto)| proto);
        let outer = format!("{outer}/{proto}");
        let (place, proto) = protocol(&outer)?;
        return queries(target, place, proto, names);
    }
    let (place, proto) = protocol(target)?;
    queries(target, place, proto, names)
}

/// The parts of a target without its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TargetParts<'a> {
    host: HostPart<'a>,
    zone: Option<&'a str>,
    ports: &'a str,
}

/// The host of a target, as it was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HostPart<'a> {
    Any,
    Address(IpAddr),
    Name(&'a str),
}

/// The protocol, which is named in front or behind.
fn protocol(target: &str) -> Result<(&str, Option<Proto>), String> {
    let named = |word: &str| match word.to_ascii_lowercase().as_str() {
        "tcp" => Some(Proto::Tcp),
        "udp" => Some(Proto::Udp),
        _ => None,
    };
    let (place, behind) = match target.rsplit_once('/') {
        None => (target, None),
        Some((place, word)) => match named(word) {
            Some(proto) => (place, Some(proto)),
            None if place.parse::<IpAddr>().is_ok() && word.parse::<u8>().is_ok() => {
                return Err(format!("it looks like a network; ask for one address: {place}:PORT"));
            }
            None if named(place).is_some() => return protocol_first(place, word),
            None => return Err(format!("unknown protocol {word:?}, use tcp or udp")),
        },
    };
    match place.split_once(':').and_then(|(word, rest)| Some((named(word)?, rest))) {
        Some((proto, _)) if behind.is_some_and(|behind| behind != proto) => {
            Err("it names two protocols".to_owned())
        }
        Some((proto, rest)) => Ok((rest, Some(proto))),
        None => Ok((place, behind)),
    }
}

/// `tcp/80`, as nmap and firewalls write it.
fn protocol_first<'a>(word: &str, rest: &'a str) -> Result<(&'a str, Option<Proto>), String> {
    let proto = Proto::ALL.into_iter().find(|p| p.as_str().eq_ignore_ascii_case(word));
    Ok((rest, proto))
}

fn split(place: &str) -> Result<TargetParts<'_>, String> {
    if let Some(rest) = place.strip_prefix('[') {
        let (address, ports) =
            rest.split_once("]:").ok_or("an address in brackets needs a port: [ADDRESS]:PORT")?;
        let (address, zone) = zone(address)?;
        let address = address
            .parse::<Ipv6Addr>()
            .map_err(|_| format!("{address:?} is not an IPv6 address"))?;
        return Ok(TargetParts { host: HostPart::Address(address.into()), zone, ports });
    }
    // As netstat writes [::]:80.
    if let Some(ports) = place.strip_prefix(":::").filter(|ports| !ports.contains(':')) {
        return Ok(TargetParts {
            host: HostPart::Address(Ipv6Addr::UNSPECIFIED.into()),
            zone: None,
            ports,
        });
    }
    let any = |ports| Ok(TargetParts { host: HostPart::Any, zone: None, ports });
    match place.rsplit_once(':') {
        None if place.parse::<Ipv4Addr>().is_ok() => {
            Err(format!("the port is missing: {place}:PORT"))
        }
        None => any(place),
        Some(("" | "*", ports)) => any(ports),
        Some((host, ports)) => {
            let (bare, zone) = zone(host)?;
            if let Ok(v4) = bare.parse::<Ipv4Addr>() {
                return Ok(TargetParts { host: HostPart::Address(v4.into()), zone, ports });
            }
            if bare.is_empty() || bare.ends_with(':') && place.parse::<Ipv6Addr>().is_ok() {
                return Err(format!("the port is missing: [{place}]:PORT"));
            }
            if place.parse::<Ipv6Addr>().is_ok() || bare.parse::<Ipv6Addr>().is_ok() {
                return Err(format!("an IPv6 address needs brackets: [{host}]:{ports}"));
            }
            if host.parse::<u16>().is_ok() {
                return Err(format!(
                    "it looks like two ports; ask for one of them: {host} or {ports}"
                ));
            }
            let is_dotted = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            if is_dotted || zone.is_some() || host.contains(':') {
                return Err(format!("{host:?} is not an IP address"));
            }
            Ok(TargetParts { host: HostPart::Name(host), zone: None, ports })
        }
    }
}

/// An address and the interface that stands behind it.
fn zone(address: &str) -> Result<(&str, Option<&str>), String> {
    match address.split_once('%') {
        None => Ok((address, None)),
        // Interfaces have names of up to 15 bytes (IFNAMSIZ).
        Some((_, zone)) if zone.is_empty() || zone.len() > 15 || zone.contains('/') => {
            Err(format!("{zone:?} is no name of an interface"))
        }
        Some((address, zone)) => Ok((address, Some(zone))),
    }
}

/// The port that a URL of this kind has when it names none.
fn usual_port(scheme: &str) -> Option<u16> {
    Some(match scheme {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        "ftp" => 21,
        "ssh" | "sftp" | "git+ssh" => 22,
        "ldap" => 389,
        "ldaps" => 636,
        "mysql" | "mariadb" => 3306,
        "postgres" | "postgresql" => 5432,
        "redis" => 6379,
        "mongodb" => 27017,
        "amqp" => 5672,
        "amqps" => 5671,
        "nats" => 4222,
        "mqtt" => 1883,
        "mqtts" => 8883,
        "git" => 9418,
        _ => return None,
    })
}

fn url(target: &str, scheme: &str, rest: &str, names: &HostNames) -> Result<Vec<Query>, String> {
    let scheme = scheme.to_ascii_lowercase();
    if matches!(scheme.as_str(), "unix" | "file") {
        return Err("it looks like a path: of a socket, write all of it, from / on".to_owned());
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    if place.is_empty() {
        return Err("it looks like a URL without a host".to_owned());
    }
    let proto = if scheme == "udp" { Proto::Udp } else { Proto::Tcp };
    let bare = place.rsplit_once(']').map_or(place, |(_, behind)| behind);
    let place = match (bare.contains(':'), usual_port(&scheme)) {
        (true, _) => place.to_owned(),
        (false, Some(port)) => format!("{place}:{port}"),
        (false, None) => match names.service(&scheme, Some(proto)) {
            Some(port) => format!("{place}:{port}"),
            None => return Err(format!("a URL of {scheme:?} has no usual port: name one")),
        },
    };
    queries(target, &place, Some(proto), names)
}

/// A question for each port or range, and for each address.
fn queries(
    target: &str,
    place: &str,
    proto: Option<Proto>,
    names: &HostNames,
) -> Result<Vec<Query>, String> {
    let parts = split(place)?;
    let listed: Vec<&str> = parts.ports.split(',').collect();
    if listed.len() > LISTED {
        return Err(format!("it lists more than {LISTED} ports"));
    }
    let mut all = Vec::new();
    for one in &listed {
        let ports = ports(one.trim(), names, proto)?;
        // Of a list each has an answer of its own.
        let text = match listed.len() {
            1 => target.to_owned(),
            _ => {
                let host = place.strip_suffix(parts.ports).unwrap_or_default();
                let behind = proto.map_or_else(String::new, |proto| format!("/{proto}"));
                format!("{host}{}{behind}", one.trim())
            }
        };
        let query = |scope, name| Query {
            text: text.clone(),
            ports,
            proto,
            scope,
            zone: parts.zone.map(str::to_owned),
            name,
            subject: None,
        };
        match parts.host {
            HostPart::Any => all.push(query(Scope::Everywhere, None)),
            HostPart::Address(address) => all.push(query(Scope::Address(address), None)),
            HostPart::Name(name) => {
                let known = names.addresses(name)?;
                let of = known.addresses.len();
                for (at, address) in known.addresses.into_iter().enumerate() {
                    let name = name.to_owned();
                    let (ordered, source) = (known.ordered, known.source.to_owned());
                    let named = ResolvedName { name, at, of, ordered, source };
                    all.push(query(Scope::Address(address), Some(named)));
                }
            }
        }
    }
    Ok(all)
}

/// Whether something with a slash is rather a path than a port with its protocol.
fn looks_like_path(target: &str) -> bool {
    target.starts_with('/') || target.starts_with("./") || target.starts_with("~/")
}

fn ports(text: &str, names: &HostNames, proto: Option<Proto>) -> Result<PortRange, String> {
    if text.is_empty() {
        return Err("the port is missing".to_owned());
    }
    if text == "*" {
        return Err("it stands for any port: `whereis-port list` shows them all".to_owned());
    }
    // A service name can hold a dash too, but begins with no digit and no dash.
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    if numeric {
        if let Some((first, last)) = text.split_once('-')
            && !first.is_empty()
        {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("the range runs backwards, use {last}-{first}"));
            }
            return Ok(PortRange { first, last });
        }
        return Ok(PortRange::one(number(text)?));
    }
    names.service(text, proto).map(PortRange::one).ok_or_else(|| no_port(text, proto, names))
}

/// What something looks like that is no port.
fn no_port(text: &str, proto: Option<Proto>, names: &HostNames) -> String {
    let of = proto.map_or_else(String::new, |p| format!(" for {p}"));
    let no = format!("no number from 1 to 65535, and no service of that name{of} in /etc/services");
    if let Some(name) = closest(text, &names.commands) {
        return format!("{no}; did you mean the command `{name}`?");
    }
    let is_host = text.contains('.') || names.addresses(text).is_ok();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if is_host && text.bytes().all(plain) {
        return format!("{no}; it looks like the name of a host, without a port: {text}:PORT");
    }
    if text.bytes().all(plain) {
        return format!("{no}; of a process or container: --name {text}");
    }
    no
}

fn number(text: &str) -> Result<Port, String> {
    let out_of_range = || format!("{text:?} is out of range, ports are 1 to 65535");
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(out_of_range());
    }
    text.parse().ok().filter(|p| *p != 0).map(Port).ok_or_else(out_of_range)
}

/// The one of these names that `word` is, or most likely was meant to be.
fn closest<'a>(word: &str, names: &'a [String]) -> Option<&'a String> {
    let near = names.iter().map(|name| (distance(word, name), name));
    near.filter(|(distance, name)| *distance * 3 <= name.len().max(3)).min().map(|(_, name)| name)
}

/// How many letters differ: left out, put in, exchanged with another, or with
/// the next one.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // Nothing so long is a command; and the table below stays small.
    if one.len() > 32 || other.len() > 32 {
        return usize::MAX / 4;
    }
    let mut table = vec![vec![0; other.len() + 1]; one.len() + 1];
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = usize::from(one[i - 1] != other[j - 1]);
                let mut least = (table[i - 1][j] + 1)
                    .min(table[i][j - 1] + 1)
                    .min(table[i - 1][j - 1] + changed);
                if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                    least = least.min(table[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    table[one.len()][other.len()]
}

#[cfg(test)]
mod tests;
