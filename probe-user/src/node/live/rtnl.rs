//! Links, addresses and routes by rtnetlink, in the namespace of the calling
//! thread.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBareUdp, InfoData, InfoGeneve, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::enter::Door;
use crate::model::{Address, Link, LinkKind, NetnsId, Route};

/// Runs a conversation on a netlink socket of this thread's namespace. The
/// runtime is the thread's own: a pooled one could belong to another namespace.
fn talk<T, F: Future<Output = Result<T, rtnetlink::Error>>>(
    conversation: impl FnOnce(Handle) -> F,
) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let result = conversation(handle).await;
        connection.abort();
        result.map_err(|error| match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        })
    })
}

async fn all<T>(
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, rtnetlink::Error> {
    stream.try_collect().await
}

/// The interfaces, with the namespaces of their peers where `known` has them.
pub(super) fn links(netns: NetnsId, known: &[Opened]) -> io::Result<Vec<Link>> {
    talk(|handle| async move {
        let messages = all(handle.link().get().execute()).await?;
        let wanted: HashSet<i32> = messages.iter().filter_map(peer_nsid).collect();
        let peers = peer_namespaces(&handle, known, wanted).await?;
        Ok(messages.iter().map(|m| link(netns, m, &peers)).collect())
    })
}

/// A namespace that may be that of a peer. The descriptor is shared by all who
/// ask: opening each anew in each would be the square of their number.
#[derive(Debug)]
pub(super) struct Opened {
    door: Door,
    fd: Option<OwnedFd>,
}

/// How many are kept open: a process may have 1024 descriptors by default. The
/// others are opened when it is their turn.
const KEPT_OPEN: usize = 512;

/// Opens namespaces, the likeliest peers first.
pub(super) fn open_all(doors: Vec<Door>) -> Vec<Opened> {
    let open = |(n, door): (usize, Door)| {
        let fd = if n < KEPT_OPEN { door.open().ok() } else { None };
        Opened { door, fd }
    };
    doors.into_iter().enumerate().map(open).collect()
}

/// Which known namespaces this one has the `wanted` numbers for.
async fn peer_namespaces(
    handle: &Handle,
    known: &[Opened],
    mut wanted: HashSet<i32>,
) -> Result<HashMap<i32, NetnsId>, rtnetlink::Error> {
    let mut peers = HashMap::new();
    for Opened { door, fd } in known {
        if wanted.is_empty() {
            break;
        }
        let opened_now;
        let fd = match fd {
            Some(fd) => fd,
            None => match door.open() {
                Ok(fd) => {
                    opened_now = fd;
                    &opened_now
                }
                Err(_) => continue,
            },
        };
        let Ok(number) = u32::try_from(fd.as_raw_fd()) else { continue };
        let mut message = NsidMessage::default();
        message.attributes.push(NsidAttribute::Fd(number));
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        let request = NetlinkMessage::new(
            header,
            NetlinkPayload::from(RouteNetlinkMessage::GetNsId(message)),
        );
        let mut replies = Box::pin(handle.clone().request(request)?);
        while let Some(reply) = replies.next().await {
            if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(found)) = reply.payload
            {
                // -1 says that no number was given.
                let id = found.attributes.iter().find_map(|a| match a {
                    NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                    _ => None,
                });
                if let Some(id) = id {
                    wanted.remove(&id);
                    peers.insert(id, door.id);
                }
                break;
            }
        }
    }
    Ok(peers)
}

fn peer_nsid(message: &LinkMessage) -> Option<i32> {
    message.attributes.iter().find_map(|a| match a {
        LinkAttribute::LinkNetNsId(id) => Some(*id),
        _ => None,
    })
}

fn link(netns: NetnsId, message: &LinkMessage, peers: &HashMap<i32, NetnsId>) -> Link {
    let mut name = String::new();
    let mut master = None;
    let mut peer = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(n) => name.clone_from(n),
            LinkAttribute::Controller(index) => master = Some(*index),
            LinkAttribute::Link(index) => peer = Some(*index),
            _ => {}
        }
    }
    Link {
        netns,
        index: message.header.index,
        name,
        up: message.header.flags.contains(LinkFlags::Up),
        kind: kind(message),
        master,
        peer,
        peer_netns: peer_nsid(message).and_then(|id| peers.get(&id).copied()),
    }
}

fn kind(message: &LinkMessage) -> LinkKind {
    let infos = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => Some(infos.as_slice()),
        _ => None,
    });
    let data = infos.into_iter().flatten().find_map(|i| match i {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    let kind = infos.into_iter().flatten().find_map(|i| match i {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    match (kind, data) {
        (None, _) if message.header.link_layer_type == LinkLayerType::Loopback => {
            LinkKind::Loopback
        }
        (None, _) => LinkKind::Device,
        (Some(InfoKind::Bridge), _) => LinkKind::Bridge,
        (Some(InfoKind::Veth), _) => LinkKind::Veth,
        (Some(InfoKind::Wireguard), _) => LinkKind::Wireguard,
        (Some(InfoKind::Vxlan), Some(InfoData::Vxlan(data))) => {
            let external = data.iter().any(|d| matches!(d, InfoVxlan::CollectMetadata(true)));
            let vni = data.iter().find_map(|d| match d {
                InfoVxlan::Id(vni) => Some(*vni),
                _ => None,
            });
            // The kernel's own default when it sends none, VXLAN's from before
            // IANA gave 4789 (drivers/net/vxlan).
            let port = data.iter().find_map(|d| match d {
                InfoVxlan::Port(port) => Some(*port),
                _ => None,
            });
            LinkKind::Vxlan { port: port.unwrap_or(8472), vni: vni.filter(|_| !external) }
        }
        (Some(InfoKind::Geneve), Some(InfoData::Geneve(data))) => LinkKind::Geneve {
            port: data
                .iter()
                .find_map(|d| match d {
                    InfoGeneve::Port(port) => Some(*port),
                    _ => None,
                })
                .unwrap_or(6081),
        },
        (Some(InfoKind::BareUdp), Some(InfoData::BareUdp(data))) => LinkKind::Bareudp {
            port: data
                .iter()
                .find_map(|d| match d {
                    InfoBareUdp::Port(port) => Some(*port),
                    _ => None,
                })
                .unwrap_or(0),
        },
        (Some(other), _) => LinkKind::Other(other.to_string()),
    }
}

/// The addresses of all interfaces.
pub(super) fn addresses(netns: NetnsId) -> io::Result<Vec<Address>> {
    // The handle lives until the end: the connection closes with the last one,
    // and an unfinished dump would look like an empty one.
    let messages = talk(|handle| async move { all(handle.address().get().execute()).await })?;
    Ok(messages.iter().filter_map(|m| address(netns, m)).collect())
}

fn address(netns: NetnsId, message: &AddressMessage) -> Option<Address> {
    let mut of_link = None;
    let mut local = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link IFA_ADDRESS is the peer's.
            AddressAttribute::Address(a) => of_link = Some(*a),
            AddressAttribute::Local(a) => local = Some(*a),
            _ => {}
        }
    }
    Some(Address {
        netns,
        ifindex: message.header.index,
        address: local.or(of_link)?,
        prefix: message.header.prefix_len,
    })
}

/// The unicast routes of the main table.
pub(super) fn routes(netns: NetnsId) -> io::Result<Vec<Route>> {
    let messages = talk(|handle| async move {
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let mut messages = all(handle.route().get(v4).execute()).await?;
        messages.extend(all(handle.route().get(v6).execute()).await?);
        Ok(messages)
    })?;
    Ok(messages.iter().filter_map(|m| route(netns, m)).collect())
}

fn route(netns: NetnsId, message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        netns,
        destination: match header.address_family {
            netlink_packet_route::AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            netlink_packet_route::AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        },
        prefix: header.destination_prefix_length,
        gateway: None,
        ifindex: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => route.destination = ip(a)?,
            RouteAttribute::Gateway(a) => route.gateway = ip(a),
            RouteAttribute::Oif(index) => route.ifindex = Some(*index),
            _ => {}
        }
    }
    Some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: NetnsId = NetnsId::Inode(1);

    #[test]
    fn the_loopback_interface_and_its_address_are_read() {
        let links = links(HERE, &[]).unwrap();
        let lo = links.iter().find(|l| l.name == "lo").unwrap();
        assert_eq!((lo.kind.clone(), lo.master, lo.peer), (LinkKind::Loopback, None, None));
        let addresses = addresses(HERE).unwrap();
        let local = addresses.iter().find(|a| a.address == crate::model::LOOPBACK4).unwrap();
        assert_eq!((local.ifindex, local.prefix), (lo.index, 8));
    }

    #[test]
    fn routes_are_read_without_local_and_broadcast_ones() {
        for route in routes(HERE).unwrap() {
            assert!(!route.destination.is_loopback(), "{route:?}");
            assert!(route.ifindex.is_some(), "{route:?}");
        }
    }
}
