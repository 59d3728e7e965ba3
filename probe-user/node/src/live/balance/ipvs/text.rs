//! The table of `/proc/net/ip_vs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{empty, flag_names, made};
use whereis_port_model::{Frontend, NetnsId, Server};

/// All services with their destinations. Lines that make no sense are left out, and
/// with a service its destinations.
pub(super) fn parse(netns: NetnsId, text: &str) -> Vec<Frontend> {
    let mut all: Vec<Frontend> = Vec::new();
    let mut known = false;
    for line in text.lines() {
        if let Some(line) = line.trim_start().strip_prefix("-> ") {
            if let (true, Some(last)) = (known, all.last_mut())
                && let Some(server) = server(line)
            {
                // The table does not say it of a service by mark.
                let any: IpAddr = match server.to {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                last.address.get_or_insert(any);
                last.backends.push(server);
            }
            continue;
        }
        let new = service(netns, line);
        known = new.is_some();
        all.extend(new);
    }
    all
}

/// `TCP  AC110001:7536 rr persistent 75000 FFFFFFFF`, `FWM  00000100 wrr ops`.
fn service(netns: NetnsId, line: &str) -> Option<Frontend> {
    let mut words = line.split_whitespace();
    let kind = words.next()?;
    let key = words.next()?;
    let mut new = empty(netns, "/proc/net/ip_vs");
    if kind == "FWM" {
        new.mark = Some(u32::from_str_radix(key, 16).ok()?);
    } else {
        new.proto = Some(match kind {
            "TCP" => 6,
            "UDP" => 17,
            "SCTP" => 132,
            _ => return None,
        });
        let at = endpoint(key)?;
        new.address = Some(at.ip());
        new.port = at.port();
    }
    new.scheduler = Some(words.next()?.to_owned());
    let flags: Vec<&str> = words.collect();
    // The time behind it is counted in ticks, of which no file says how long they are.
    new.flags = flag_names(flags.contains(&"persistent"), flags.contains(&"ops"));
    Some(new)
}

/// `0A240105:1F90      Masq    1      0          0`, behind the arrow.
fn server(line: &str) -> Option<Server> {
    let mut words = line.split_whitespace();
    let to = endpoint(words.next()?)?;
    let method = match words.next()? {
        "Masq" => Some("masq"),
        "Local" => Some("local"),
        "Tunnel" => Some("tunnel"),
        "Route" => Some("route"),
        _ => None,
    };
    let weight = words.next()?.parse().ok()?;
    let connections = words.next()?.parse().ok()?;
    Some(made(to, weight, method, Some(connections)))
}

/// `AC110001:7536`, `[fd00:0000:0000:0000:0000:0000:0000:0001]:0050`: hexadecimal, as
/// people write it.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip: IpAddr = match address.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into(),
        None => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?).into(),
    };
    Some(SocketAddr::new(ip, port))
}
