//! The virtual servers of IPVS, in the namespace of the calling thread.

mod text;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::live::genl::{Genl, u16_of, u32_of};
use crate::live::netlink::{NESTED, attribute, find};
use crate::live::{files, gaps};
use whereis_port_model::{Balancer, Frontend, GapKind, GapSource, Impact, NetnsId, Read, Server};

/// There as soon as the kernel has IPVS, and in every namespace. Anybody may read it.
const TABLE: &str = "/proc/thread-self/net/ip_vs";
const CONNTRACK: &str = "/proc/sys/net/ipv4/vs/conntrack";

/// The commands and attributes of generic netlink (`linux/ip_vs.h`). Numbers are in
/// host byte order, but ports.
mod uapi {
    pub(super) const GET_SERVICE: u8 = 4;
    pub(super) const GET_DEST: u8 = 8;
    /// Attributes of a message.
    pub(super) const SERVICE: u16 = 1;
    pub(super) const DEST: u16 = 2;
    /// Attributes of a service.
    pub(super) const SVC_AF: u16 = 1;
    pub(super) const SVC_PROTOCOL: u16 = 2;
    pub(super) const SVC_ADDR: u16 = 3;
    pub(super) const SVC_PORT: u16 = 4;
    pub(super) const SVC_FWMARK: u16 = 5;
    pub(super) const SVC_SCHED_NAME: u16 = 6;
    pub(super) const SVC_FLAGS: u16 = 7;
    pub(super) const SVC_TIMEOUT: u16 = 8;
    /// Attributes of a destination.
    pub(super) const DEST_ADDR: u16 = 1;
    pub(super) const DEST_PORT: u16 = 2;
    pub(super) const DEST_FWD_METHOD: u16 = 3;
    pub(super) const DEST_WEIGHT: u16 = 4;
    pub(super) const DEST_ACTIVE_CONNS: u16 = 7;
    /// Since Linux 3.18.
    pub(super) const DEST_ADDR_FAMILY: u16 = 11;
    pub(super) const FLAG_PERSISTENT: u32 = 1;
    pub(super) const FLAG_ONE_PACKET: u32 = 4;
    pub(super) const FWD_MASK: u32 = 7;
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Whether the kernel has IPVS. It is not asked otherwise: that would load it.
pub(super) fn is_there() -> bool {
    files::is_there(TABLE)
}

/// All virtual servers of the namespace.
pub(super) fn frontends(netns: NetnsId) -> Read<Vec<Frontend>> {
    if !is_there() {
        return Read::default();
    }
    let mut read = match by_netlink(netns) {
        Ok(frontends) => Read::whole(frontends),
        // That needs CAP_NET_ADMIN. The table lacks little: how long clients are kept
        // at a server, and the version of IP of a service by mark without servers.
        Err(error) => match files::text(TABLE, files::TABLE) {
            Ok(table) => Read::whole(text::parse(netns, &table)),
            Err(_) => {
                let source = GapSource::new(GapKind::Balancer, format!("IPVS of netns {netns}"));
                Read::partial(Vec::new(), gaps::error_gap(&error, Impact::Port, source))
            }
        },
    };
    if files::text(CONNTRACK, files::SMALL).is_ok_and(|text| text.trim() != "0") {
        for frontend in &mut read.value {
            frontend.flags.push("conntrack".to_owned());
        }
    }
    read
}

fn by_netlink(netns: NetnsId) -> io::Result<Vec<Frontend>> {
    let mut genl = Genl::open()?;
    let Some(family) = genl.family("IPVS")? else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no IPVS in generic netlink"));
    };
    let found = genl.dump(family, uapi::GET_SERVICE, None, |attributes| {
        let service = find(attributes, uapi::SERVICE)?;
        frontend(netns, service).zip(id(service))
    })?;
    let with_servers = |(mut frontend, id): (Frontend, Vec<u8>)| {
        let ipv6 = frontend.address.is_some_and(|address| address.is_ipv6());
        let service = Some((uapi::SERVICE | NESTED, id.as_slice()));
        frontend.backends = genl.dump(family, uapi::GET_DEST, service, |attributes| {
            server(ipv6, find(attributes, uapi::DEST)?)
        })?;
        Ok(frontend)
    };
    found.into_iter().map(with_servers).collect()
}

/// A service out of its attributes. `None` for damage, and for versions of IP that
/// are not known.
fn frontend(netns: NetnsId, service: &[u8]) -> Option<Frontend> {
    let family = u16_of(service, uapi::SVC_AF)?;
    let mark = u32_of(service, uapi::SVC_FWMARK);
    let flags = u32_of(service, uapi::SVC_FLAGS).unwrap_or_default();
    let persistent = flags & uapi::FLAG_PERSISTENT != 0;
    let mut new = empty(netns, "genetlink IPVS");
    if mark.is_some() {
        new.mark = mark;
        new.address = Some(any(family)?);
    } else {
        new.proto = Some(u8::try_from(u16_of(service, uapi::SVC_PROTOCOL)?).ok()?);
        new.address = Some(address(family, find(service, uapi::SVC_ADDR)?)?);
        new.port = u16::from_be(u16_of(service, uapi::SVC_PORT)?);
    }
    let scheduler = find(service, uapi::SVC_SCHED_NAME);
    new.scheduler = scheduler.map(|name| {
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    });
    if persistent {
        new.affinity = u32_of(service, uapi::SVC_TIMEOUT);
    }
    new.flags = flag_names(persistent, flags & uapi::FLAG_ONE_PACKET != 0);
    Some(new)
}

/// The attributes by which the kernel finds a service again.
fn id(service: &[u8]) -> Option<Vec<u8>> {
    let key: &[u16] = if find(service, uapi::SVC_FWMARK).is_some() {
        &[uapi::SVC_AF, uapi::SVC_FWMARK]
    } else {
        &[uapi::SVC_AF, uapi::SVC_PROTOCOL, uapi::SVC_ADDR, uapi::SVC_PORT]
    };
    let one = |kind: &u16| attribute(*kind, find(service, *kind)?).ok();
    key.iter().map(one).collect::<Option<Vec<_>>>().map(|all| all.concat())
}

/// A destination out of its attributes. `ipv6` is of its service: older kernels do not
/// say it here.
fn server(ipv6: bool, dest: &[u8]) -> Option<Server> {
    let of_service = if ipv6 { AF_INET6 } else { AF_INET };
    let family = u16_of(dest, uapi::DEST_ADDR_FAMILY).unwrap_or(of_service);
    let ip = address(family, find(dest, uapi::DEST_ADDR)?)?;
    let port = u16::from_be(u16_of(dest, uapi::DEST_PORT)?);
    let weight = u32_of(dest, uapi::DEST_WEIGHT)?;
    let method = match u32_of(dest, uapi::DEST_FWD_METHOD)? & uapi::FWD_MASK {
        0 => Some("masq"),
        1 => Some("local"),
        2 => Some("tunnel"),
        3 => Some("route"),
        _ => None,
    };
    let connections = u32_of(dest, uapi::DEST_ACTIVE_CONNS);
    Some(made(SocketAddr::new(ip, port), weight, method, connections))
}

fn made(to: SocketAddr, weight: u32, method: Option<&str>, connections: Option<u32>) -> Server {
    Server {
        to,
        weight: Some(weight),
        active: weight != 0,
        state: (weight == 0).then(|| "draining".to_owned()),
        method: method.map(str::to_owned),
        connections,
    }
}

fn empty(netns: NetnsId, source: &str) -> Frontend {
    Frontend {
        netns,
        balancer: Balancer::Ipvs,
        proto: None,
        address: None,
        port: 0,
        mark: None,
        kind: None,
        scope: None,
        scheduler: None,
        affinity: None,
        id: None,
        proxy_port: None,
        sources: None,
        flags: Vec::new(),
        backends: Vec::new(),
        name: None,
        source: source.to_owned(),
    }
}

fn flag_names(persistent: bool, one_packet: bool) -> Vec<String> {
    let named = [(persistent, "persistent"), (one_packet, "one-packet")];
    named.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned()).collect()
}

/// An address of 16 bytes, of which those of IPv4 are the first four.
fn address(family: u16, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        AF_INET6 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        _ => None,
    }
}

fn any(family: u16) -> Option<IpAddr> {
    address(family, &[0; 16])
}

/// For the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(in crate::live) fn fuzz(bytes: &[u8]) {
    let netns = NetnsId::Inode(1);
    frontend(netns, bytes);
    id(bytes);
    server(true, bytes);
    text::parse(netns, &String::from_utf8_lossy(bytes));
}

#[cfg(test)]
mod tests;
