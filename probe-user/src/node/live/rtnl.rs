//! Links, addresses and routes by rtnetlink, in the namespace of the calling
//! thread.
//!
//! Links and addresses are read for every question, in many namespaces: there a
//! plain socket takes a third of the time of a runtime and its connection.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBareUdp, InfoData, InfoGeneve, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket as Netlink, SocketAddr, protocols::NETLINK_ROUTE};

use futures_util::TryStreamExt as _;
use rtnetlink::{Handle, RouteMessageBuilder};

use super::enter::Door;
use super::genl;
use crate::model::{Address, Link, LinkKind, NetnsId, Route, RouteFound, RouteKind};

/// A conversation on a netlink socket of this thread's namespace.
struct Rtnl {
    socket: Netlink,
    buffer: Vec<u8>,
}

impl Rtnl {
    fn open() -> io::Result<Self> {
        let mut socket = Netlink::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, buffer: Vec::with_capacity(64 * 1024) })
    }

    /// Everything there is of a kind.
    fn dump(&mut self, question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(question, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut answers = Vec::new();
        while !self.receive(&mut answers)? {}
        Ok(answers)
    }

    /// The one answer to a question.
    fn ask(&mut self, question: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        self.send(question, NLM_F_REQUEST)?;
        let mut answers = Vec::new();
        self.receive(&mut answers)?;
        Ok(answers.pop())
    }

    fn send(&mut self, question: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut message = NetlinkMessage::from(question);
        message.header.flags = flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Reads once, and says whether that was the end. What the library does not
    /// understand is passed over.
    fn receive(&mut self, answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0)?;
        let mut rest = self.buffer.as_slice();
        while let Some((_, next)) = genl::split(rest) {
            let this = &rest[..rest.len() - next.len()];
            rest = next;
            match NetlinkMessage::deserialize(this).map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(answer)) => answers.push(answer),
                Ok(NetlinkPayload::Done(done)) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                Ok(NetlinkPayload::Done(_)) => return Ok(true),
                Ok(NetlinkPayload::Error(error)) if error.code.is_some() => {
                    return Err(error.to_io());
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

/// The interfaces, with the namespaces of their peers where `known` has them.
pub(super) fn links(netns: NetnsId, known: &[Opened]) -> io::Result<Vec<Link>> {
    let mut rtnl = Rtnl::open()?;
    let answers = rtnl.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let messages: Vec<LinkMessage> = answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(message),
            _ => None,
        })
        .collect();
    let wanted: HashSet<i32> = messages.iter().filter_map(peer_nsid).collect();
    let peers = peer_namespaces(&mut rtnl, known, wanted)?;
    Ok(messages.iter().map(|m| link(netns, m, &peers)).collect())
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
fn peer_namespaces(
    rtnl: &mut Rtnl,
    known: &[Opened],
    mut wanted: HashSet<i32>,
) -> io::Result<HashMap<i32, NetnsId>> {
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
        if let Some(RouteNetlinkMessage::NewNsId(found)) =
            rtnl.ask(RouteNetlinkMessage::GetNsId(message))?
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

/// Asks the kernel which way packets take, in the namespace it was opened in.
pub(super) struct Router(Rtnl);

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Router").finish()
    }
}

impl Router {
    pub(super) fn open() -> io::Result<Self> {
        Rtnl::open().map(Self)
    }

    /// The kernel's decision for a packet that a process here sends.
    pub(super) fn route(&mut self, to: IpAddr, mark: u32) -> io::Result<RouteFound> {
        let mut message = match to {
            IpAddr::V4(to) => {
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32).build()
            }
            IpAddr::V6(to) => {
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, 128).build()
            }
        };
        // What the builder sets is for adding routes.
        message.header.table = 0;
        message.header.protocol = netlink_packet_route::route::RouteProtocol::Unspec;
        message.header.scope = netlink_packet_route::route::RouteScope::Universe;
        message.header.kind = RouteType::Unspec;
        if mark != 0 {
            message.attributes.push(RouteAttribute::Mark(mark));
        }
        let nowhere = |kind| RouteFound { kind, oif: None, gateway: None, source: None };
        match self.0.ask(RouteNetlinkMessage::GetRoute(message)) {
            Ok(Some(RouteNetlinkMessage::NewRoute(message))) => Ok(decision(&message)),
            Ok(_) => Ok(nowhere(RouteKind::None)),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENETUNREACH) => Ok(nowhere(RouteKind::None)),
                Some(libc::EHOSTUNREACH) => Ok(nowhere(RouteKind::Unreachable)),
                Some(libc::EACCES) => Ok(nowhere(RouteKind::Prohibit)),
                Some(libc::EINVAL) => Ok(nowhere(RouteKind::Blackhole)),
                _ => Err(error),
            },
        }
    }
}

fn decision(message: &RouteMessage) -> RouteFound {
    let kind = match message.header.kind {
        RouteType::Local => RouteKind::Local,
        RouteType::Broadcast => RouteKind::Broadcast,
        RouteType::Anycast => RouteKind::Anycast,
        RouteType::Multicast => RouteKind::Multicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        _ => RouteKind::Unicast,
    };
    let mut found = RouteFound { kind, oif: None, gateway: None, source: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(a) => found.gateway = ip(a),
            RouteAttribute::Oif(index) => found.oif = Some(*index),
            RouteAttribute::PrefSource(a) => found.source = ip(a),
            _ => {}
        }
    }
    found
}

/// The addresses of all interfaces.
pub(super) fn addresses(netns: NetnsId) -> io::Result<Vec<Address>> {
    let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answers = Rtnl::open()?.dump(question)?;
    let address = |answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => address(netns, &message),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(address).collect())
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
        let mut messages: Vec<_> = handle.route().get(v4).execute().try_collect().await?;
        messages.extend(handle.route().get(v6).execute().try_collect::<Vec<_>>().await?);
        Ok(messages)
    })?;
    Ok(messages.iter().filter_map(|m| route(netns, m)).collect())
}

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

fn route(netns: NetnsId, message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        netns,
        destination: match header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
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
