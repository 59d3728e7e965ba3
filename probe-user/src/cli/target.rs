//! Questions as understood: `53/udp`, `[::1]:8080`, `8000-8010`, `https`.

use std::net::IpAddr;

use crate::model::{Port, PortRange, Proto, Query, Scope};

/// A target that is no question.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{target:?} is not a port: {reason}")]
pub struct BadTarget {
    target: String,
    reason: String,
}

/// Understands a target. `services` is the text of services(5).
///
/// # Errors
/// Says what is wrong with the target and, where it can, what was meant.
pub fn parse_target(target: &str, services: &str) -> Result<Query, BadTarget> {
    let bad = |reason: String| BadTarget { target: target.to_owned(), reason };
    let (place, proto) = match target.rsplit_once('/') {
        None => (target, None),
        Some((place, "tcp" | "TCP")) => (place, Some(Proto::Tcp)),
        Some((place, "udp" | "UDP")) => (place, Some(Proto::Udp)),
        Some((_, other)) => return Err(bad(format!("unknown protocol {other:?}, use tcp or udp"))),
    };
    let (scope, port) = split(place).map_err(bad)?;
    let ports = ports(port, services, proto).map_err(bad)?;
    // A service name can say the protocol too: only one that has it counts.
    Ok(Query { text: target.to_owned(), ports, proto, scope, subject: None })
}

fn split(place: &str) -> Result<(Scope, &str), String> {
    if let Some(rest) = place.strip_prefix('[') {
        let (address, port) =
            rest.split_once("]:").ok_or("an address in brackets needs a port: [ADDRESS]:PORT")?;
        let address = address
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| format!("{address:?} is not an IPv6 address"))?;
        return Ok((Scope::Address(IpAddr::V6(address)), port));
    }
    match place.rsplit_once(':') {
        None => {
            if place.parse::<std::net::Ipv4Addr>().is_ok() {
                return Err(format!("the port is missing: {place}:PORT"));
            }
            Ok((Scope::Everywhere, place))
        }
        Some(("", port)) => Ok((Scope::Everywhere, port)),
        Some((address, port)) => {
            if let Ok(v4) = address.parse::<std::net::Ipv4Addr>() {
                return Ok((Scope::Address(v4.into()), port));
            }
            if address == "localhost" {
                return Ok((Scope::Address(crate::model::LOOPBACK4), port));
            }
            if place.parse::<std::net::Ipv6Addr>().is_ok()
                || address.parse::<std::net::Ipv6Addr>().is_ok()
            {
                return Err(format!("an IPv6 address needs brackets: [{address}]:{port}"));
            }
            Err(format!("{address:?} is not an IP address; names are not looked up"))
        }
    }
}

fn ports(text: &str, services: &str, proto: Option<Proto>) -> Result<PortRange, String> {
    if text.is_empty() {
        return Err("the port is missing".to_owned());
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
    service(text, services, proto).map(PortRange::one).ok_or_else(|| {
        let of = proto.map_or_else(String::new, |p| format!(" for {p}"));
        let meant = super::command_like(text)
            .map_or_else(String::new, |name| format!("; did you mean the command `{name}`?"));
        format!(
            "no number from 1 to 65535, and no service of that name{of} in /etc/services{meant}"
        )
    })
}

fn number(text: &str) -> Result<Port, String> {
    let out_of_range = || format!("{text:?} is out of range, ports are 1 to 65535");
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(out_of_range());
    }
    text.parse().ok().filter(|p| *p != 0).map(Port).ok_or_else(out_of_range)
}

/// The port of a service name or alias, from the text of services(5).
fn service(name: &str, services: &str, proto: Option<Proto>) -> Option<Port> {
    services.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let official = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let known = Proto::ALL.into_iter().find(|p| p.as_str() == protocol)?;
        let named = official == name || words.any(|alias| alias == name);
        (named && proto.is_none_or(|p| p == known)).then(|| port.parse().ok().map(Port))?
    })
}

/// How many letters differ: left out, put in, exchanged with another, or with
/// the next one.
pub(super) fn distance(one: &str, other: &str) -> usize {
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
mod tests {
    use super::*;

    const SERVICES: &str = "\
# comment
ssh             22/tcp                          # SSH
domain          53/tcp
domain          53/udp
http            80/tcp          www             # WorldWideWeb HTTP
bootps          67/udp
z3950           210/tcp         wais
iso-tsap        102/tcp         tsap
sctponly        9999/sctp
broken
";

    fn check(target: &str, expected: (u16, u16, Option<Proto>, Option<&str>)) {
        let query = parse_target(target, SERVICES).unwrap();
        let address = match query.scope {
            Scope::Everywhere => None,
            Scope::Address(a) => Some(a.to_string()),
        };
        let found = (query.ports.first.0, query.ports.last.0, query.proto, address.as_deref());
        assert_eq!(found, expected, "{target}");
        assert_eq!(query.text, target);
    }

    #[test]
    fn every_form_is_understood() {
        use Proto::{Tcp, Udp};
        check("30518", (30518, 30518, None, None));
        check(":30518", (30518, 30518, None, None));
        check("53/udp", (53, 53, Some(Udp), None));
        check("8000-8010", (8000, 8010, None, None));
        check("8000-8010/tcp", (8000, 8010, Some(Tcp), None));
        check("127.0.0.1:80", (80, 80, None, Some("127.0.0.1")));
        check("localhost:80/tcp", (80, 80, Some(Tcp), Some("127.0.0.1")));
        check("[::1]:80/udp", (80, 80, Some(Udp), Some("::1")));
        check("0.0.0.0:80", (80, 80, None, Some("0.0.0.0")));
        check("ssh", (22, 22, None, None));
        check("www", (80, 80, None, None));
        check("iso-tsap", (102, 102, None, None));
        check("bootps/udp", (67, 67, Some(Udp), None));
        check("10.0.0.1:http", (80, 80, None, Some("10.0.0.1")));
        check("65535", (65535, 65535, None, None));
    }

    #[test]
    fn what_is_no_port_is_named_with_the_reason() {
        for (target, part) in [
            ("0", "out of range"),
            ("65536", "out of range"),
            ("99999999999999999999", "out of range"),
            ("-1", "out of range"),
            ("1-0", "out of range"),
            ("9000-8000", "use 8000-9000"),
            ("80/sctpx", "sctpx"),
            ("80/", "unknown protocol"),
            ("::1:80", "[::1]:80"),
            ("fe80::1", "brackets"),
            ("[::1]", "needs a port"),
            ("[::1]80", "needs a port"),
            ("[1.2.3.4]:80", "not an IPv6 address"),
            ("1.2.3.4", "port is missing"),
            ("1.2.3.4:", "port is missing"),
            ("1.2.3:80", "not an IP address"),
            ("example.org:80", "not looked up"),
            ("nosuch", "no service"),
            ("bootps/tcp", "for tcp"),
            ("", "port is missing"),
            ("sctponly", "no service"),
            ("lsit", "did you mean the command `list`?"),
            ("docter", "did you mean the command `doctor`?"),
        ] {
            let error = parse_target(target, SERVICES).unwrap_err().to_string();
            assert!(error.contains(part), "{target}: {error}");
            assert!(error.contains(&format!("{target:?}")), "{target}: {error}");
        }
    }

    #[test]
    fn letters_that_differ_are_counted() {
        for (one, other, expected) in
            [("list", "list", 0), ("lsit", "list", 1), ("lis", "list", 1), ("", "man", 3)]
        {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }
}
