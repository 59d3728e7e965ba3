//! Links, addresses and routes by rtnetlink: one conversation for all that is asked about a
//! namespace, which is entered once for it.
//!
//! Kernel: `net/core/rtnetlink.c` and its families; payloads are understood by
//! netlink-packet-route. Dumps hold the kernel's lock of all namespaces (`rtnl_mutex`), so
//! nothing is won by asking several at once.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InetDevConf, InfoBareUdp, InfoBridgePort, InfoData, InfoGeneve,
    InfoKind, InfoPortData, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as Nud,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use rtnetlink::RouteMessageBuilder;

use super::enter::{EnterError, NetnsHandle, Pool};
use super::netlink::{Netlink, NetlinkMessage, NetlinkRequest, ROUTE};
use whereis_port_model::{
    Address, BridgePort, HardwareAddress, InputFound, InputQuery, Link, LinkKind, LocalRoute,
    Neighbour, NeighbourState, NetnsId, PacketFlow, PolicyRule, Route, RouteFound, RouteKind,
    RouteQuery,
};

/// How many answers a dump may have: whoever has a namespace can fill its tables.
const MOST: usize = 250_000;
/// How many bytes: so many answers with all that is said of them.
const BYTES: usize = 512 << 20;
/// How many conversations are kept: each has a descriptor. Namespaces beyond these are entered
/// again when something else is asked about them.
const KEPT: usize = 128;

/// The conversations of a node, by namespace.
#[derive(Debug, Default)]
pub(super) struct Rtnls {
    kept: RefCell<HashMap<NetnsId, Rtnl>>,
    /// How many were begun.
    begun: Cell<usize>,
}

impl Rtnls {
    /// Asks something about each namespace, in the thread that calls.
    pub(super) fn each<T>(
        &self,
        pool: &Pool,
        doors: &[NetnsHandle],
        mut ask: impl FnMut(&NetnsHandle, &mut Rtnl) -> io::Result<T>,
    ) -> Vec<Result<io::Result<T>, EnterError>> {
        let mut kept = self.kept.borrow_mut();
        let mut answers = Vec::with_capacity(doors.len());
        for some in doors.chunks(KEPT) {
            let new: Vec<NetnsHandle> =
                some.iter().filter(|door| !kept.contains_key(&door.id)).cloned().collect();
            if kept.len() + new.len() > KEPT {
                kept.retain(|id, _| some.iter().any(|door| door.id == *id));
            }
            let mut failed = HashMap::new();
            for (door, opened) in new.iter().zip(pool.in_each(&new, |_| Rtnl::open())) {
                match opened {
                    Ok(Ok(rtnl)) => _ = kept.insert(door.id, rtnl),
                    Ok(Err(error)) => _ = failed.insert(door.id, Ok(Err(error))),
                    Err(refused) => _ = failed.insert(door.id, Err(refused)),
                }
            }
            self.begun.set(self.begun.get() + new.len());
            answers.extend(some.iter().map(|door| match kept.get_mut(&door.id) {
                Some(rtnl) => Ok(ask(door, rtnl)),
                None => failed.remove(&door.id).unwrap_or(Err(EnterError::Gone)),
            }));
            kept.retain(|_, rtnl| !rtnl.0.is_spoilt());
        }
        answers
    }

    /// How many conversations were begun so far.
    #[cfg(test)]
    pub(super) fn begun(&self) -> usize {
        self.begun.get()
    }
}

/// The IPv4 settings of every device of the calling thread's namespace, by its name
/// (`IFLA_INET_CONF`): what `/proc/sys/net/ipv4/conf` has in a file each.
pub(super) fn device_settings() -> io::Result<Vec<(String, InetDevConf)>> {
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    Rtnl::open()?.dump(&RouteNetlinkMessage::GetLink(question), |answer| {
        let RouteNetlinkMessage::NewLink(message) = answer else { return None };
        let (mut name, mut conf) = (None, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(is) => name = Some(is),
                LinkAttribute::AfSpecUnspec(all) => {
                    conf = all.into_iter().find_map(|of| match of {
                        AfSpecUnspec::Inet(of) => of.into_iter().find_map(|of| match of {
                            AfSpecInet::DevConf(conf) => Some(conf),
                            _ => None,
                        }),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Some((name?, conf?))
    })
}

/// A conversation about one namespace.
#[derive(Debug)]
pub(super) struct Rtnl(Netlink);

/// A message of rtnetlink; `None` for what the library does not understand.
fn understood(message: NetlinkMessage<'_>) -> Option<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.message_type = message.kind;
    RouteNetlinkMessage::deserialize(&header, message.body).ok()
}

impl Rtnl {
    /// About the namespace of the calling thread.
    fn open() -> io::Result<Self> {
        Netlink::open(ROUTE, BYTES).map(Self)
    }

    /// Everything there is of a kind, unless that is too much.
    fn dump<T>(
        &mut self,
        question: &RouteNetlinkMessage,
        parse: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let request = NetlinkRequest::dump(question.message_type(), &payload(question));
        self.0.collect(&request, MOST, |message| understood(message).and_then(&parse))
    }

    /// The one answer to a question.
    fn get(&mut self, question: &RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        let request = NetlinkRequest::get(question.message_type(), &payload(question));
        Ok(self.0.collect(&request, 1, understood)?.pop())
    }

    /// The interfaces, with the namespaces of their peers where `known` has them.
    pub(super) fn links(&mut self, netns: NetnsId, known: &[Opened]) -> io::Result<Vec<Link>> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let messages = self.dump(&question, |answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(message),
            _ => None,
        })?;
        let wanted: HashSet<i32> = messages.iter().filter_map(peer_nsid).collect();
        let peers = self.peer_namespaces(known, wanted)?;
        Ok(messages.iter().map(|message| link(netns, message, &peers)).collect())
    }

    /// Which known namespaces this one has the `wanted` numbers for.
    fn peer_namespaces(
        &mut self,
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
                self.get(&RouteNetlinkMessage::GetNsId(message))?
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

    /// The addresses of all interfaces.
    pub(super) fn addresses(&mut self, netns: NetnsId) -> io::Result<Vec<Address>> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump(&question, |answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => address(netns, &message),
            _ => None,
        })
    }

    /// The unicast routes of the main table, and the local ones of all.
    pub(super) fn routes(&mut self, netns: NetnsId) -> io::Result<Vec<Routed>> {
        let mut routes = Vec::new();
        for question in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            let question = RouteNetlinkMessage::GetRoute(question);
            routes.extend(self.dump(&question, |answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => routed(netns, &message),
                _ => None,
            })?);
        }
        Ok(routes)
    }

    /// The kernel's decision for a packet that a process here sends.
    pub(super) fn route(&mut self, query: &RouteQuery) -> io::Result<RouteFound> {
        let from = query.of.from.filter(|from| from.is_ipv6() == query.to.is_ipv6());
        let mut message = match (query.to, from) {
            (IpAddr::V4(to), from) => {
                let of = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32);
                match from {
                    Some(IpAddr::V4(from)) => of.source_prefix(from, 32).build(),
                    _ => of.build(),
                }
            }
            (IpAddr::V6(to), from) => {
                let of = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, 128);
                match from {
                    Some(IpAddr::V6(from)) => of.source_prefix(from, 128).build(),
                    _ => of.build(),
                }
            }
        };
        as_question(&mut message);
        if query.mark != 0 {
            message.attributes.push(RouteAttribute::Mark(query.mark));
        }
        if let Some(uid) = query.of.uid {
            message.attributes.push(RouteAttribute::Uid(uid));
        }
        if let Some(oif) = query.of.oif {
            message.attributes.push(RouteAttribute::Oif(oif));
        }
        if let Some(proto) = query.of.proto {
            let flow = PacketFlow { proto, sport: query.of.sport, dport: query.of.dport };
            message.attributes.extend(of_flow(&flow));
        }
        self.decided(message)
    }

    /// The kernel's decision for a packet that comes in. One whose source it refuses is told by
    /// `EXDEV`, since Linux 6.14 by `EINVAL`, like a route that throws packets away: `query` has
    /// a destination for which there is none.
    pub(super) fn input_route(&mut self, query: &InputQuery) -> io::Result<InputFound> {
        let mut message = match (query.to, query.from) {
            (IpAddr::V4(to), IpAddr::V4(from)) => {
                let of = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32);
                of.source_prefix(from, 32).build()
            }
            (IpAddr::V6(to), IpAddr::V6(from)) => {
                let of = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, 128);
                of.source_prefix(from, 128).build()
            }
            _ => return Err(io::Error::other("addresses of two versions of IP")),
        };
        as_question(&mut message);
        message.attributes.push(RouteAttribute::Iif(query.iif));
        if query.mark != 0 {
            message.attributes.push(RouteAttribute::Mark(query.mark));
        }
        message.attributes.extend(query.flow.iter().flat_map(of_flow));
        match self.decided(message) {
            Ok(found) if found.kind == RouteKind::Blackhole && query.to.is_ipv4() => {
                Ok(InputFound::SourceRefused)
            }
            Ok(found) => Ok(InputFound::Routed(found)),
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                Ok(InputFound::SourceRefused)
            }
            Err(error) => Err(error),
        }
    }

    fn decided(&mut self, question: RouteMessage) -> io::Result<RouteFound> {
        let nowhere = |kind| RouteFound { kind, oif: None, gateway: None, source: None };
        match self.get(&RouteNetlinkMessage::GetRoute(question)) {
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

    /// Who is known on the links, and for whom this namespace answers there.
    pub(super) fn neighbours(&mut self, netns: NetnsId) -> io::Result<Vec<Neighbour>> {
        let mut all = Vec::new();
        for flags in [NeighbourFlags::empty(), NeighbourFlags::Proxy] {
            let mut message = NeighbourMessage::default();
            message.header.flags = flags;
            let question = RouteNetlinkMessage::GetNeighbour(message);
            all.extend(self.dump(&question, |answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => neighbour(netns, &message),
                _ => None,
            })?);
        }
        Ok(all)
    }

    /// The rules of policy routing, of both versions of IP.
    pub(super) fn policies(&mut self, netns: NetnsId) -> io::Result<Vec<PolicyRule>> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let dump = self.dump(&RouteNetlinkMessage::GetRule(message), |answer| match answer {
                RouteNetlinkMessage::NewRule(message) => policy(netns, &message),
                _ => None,
            });
            match dump {
                Ok(some) => rules.extend(some),
                // A kernel without policy routing has no rules.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rules)
    }
}

/// Some port that the kernel gives to a client.
const EPHEMERAL: u16 = 49_152;

fn of_flow(flow: &PacketFlow) -> [RouteAttribute; 3] {
    [
        RouteAttribute::IpProto(flow.proto.number()),
        RouteAttribute::Sport(flow.sport.unwrap_or(EPHEMERAL)),
        RouteAttribute::Dport(flow.dport.unwrap_or(EPHEMERAL)),
    ]
}

/// What the library's builder sets is for adding routes.
fn as_question(message: &mut RouteMessage) {
    message.header.table = 0;
    message.header.protocol = RouteProtocol::Unspec;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unspec;
}

/// What of a question comes behind the header.
fn payload(question: &RouteNetlinkMessage) -> Vec<u8> {
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    bytes
}

/// A namespace that may be that of a peer. The descriptor is shared by all who
/// ask: opening each anew in each would be the square of their number.
#[derive(Debug)]
pub(super) struct Opened {
    door: NetnsHandle,
    fd: Option<OwnedFd>,
}

/// How many are kept open: a process may have 1024 descriptors by default. The
/// others are opened when it is their turn.
const KEPT_OPEN: usize = 512;

/// Opens namespaces, the likeliest peers first.
pub(super) fn open_all(doors: Vec<NetnsHandle>) -> Vec<Opened> {
    let open = |(n, door): (usize, NetnsHandle)| {
        let fd = if n < KEPT_OPEN { door.open().ok() } else { None };
        Opened { door, fd }
    };
    doors.into_iter().enumerate().map(open).collect()
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
    let mut hardware = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(n) => name.clone_from(n),
            LinkAttribute::Controller(index) => master = Some(*index),
            LinkAttribute::Link(index) => peer = Some(*index),
            LinkAttribute::Address(bytes) => hardware = ethernet(bytes),
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
        bridge_port: bridge_port(message),
        hardware,
        noarp: message.header.flags.contains(LinkFlags::Noarp),
    }
}

fn ethernet(bytes: &[u8]) -> Option<HardwareAddress> {
    bytes.try_into().ok().map(HardwareAddress)
}

/// How a port of a bridge is set.
fn bridge_port(message: &LinkMessage) -> Option<BridgePort> {
    let infos = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    let set = infos.iter().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(set)) => Some(set),
        _ => None,
    })?;
    let is = |wanted: InfoBridgePort| set.contains(&wanted);
    Some(BridgePort {
        isolated: is(InfoBridgePort::Isolated(true)),
        hairpin: is(InfoBridgePort::HairpinMode(true)),
    })
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

fn address(netns: NetnsId, message: &AddressMessage) -> Option<Address> {
    let mut of_link = None;
    let mut local = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link IFA_ADDRESS is the peer's.
            AddressAttribute::Address(a) => of_link = Some(*a),
            AddressAttribute::Local(a) => local = Some(*a),
            // Not in use, or not yet: somebody else has it, or may have it.
            AddressAttribute::Flags(flags)
                if flags.intersects(AddressFlags::Dadfailed | AddressFlags::Tentative)
                    && !flags.contains(AddressFlags::Optimistic) =>
            {
                return None;
            }
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

/// A route that is of use here.
#[derive(Debug, Clone)]
pub(super) enum Routed {
    Unicast(Route),
    Local(LocalRoute),
}

fn routed(netns: NetnsId, message: &RouteMessage) -> Option<Routed> {
    if message.header.kind != RouteType::Local {
        return route(netns, message).map(Routed::Unicast);
    }
    let header = &message.header;
    let mut found = LocalRoute {
        netns,
        destination: match header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        },
        prefix: header.destination_prefix_length,
        table: header.table.into(),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => found.destination = ip(a)?,
            RouteAttribute::Table(table) => found.table = *table,
            _ => {}
        }
    }
    Some(Routed::Local(found))
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

fn neighbour(netns: NetnsId, message: &NeighbourMessage) -> Option<Neighbour> {
    let header = &message.header;
    let address = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    })?;
    let hardware = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => ethernet(bytes),
        _ => None,
    });
    let state = match header.state {
        _ if header.flags.contains(NeighbourFlags::Proxy) => NeighbourState::Proxied,
        Nud::Incomplete | Nud::Failed => NeighbourState::Unanswered,
        Nud::Reachable | Nud::Stale | Nud::Delay | Nud::Probe => NeighbourState::Answered,
        Nud::None => return None,
        // What is not known may have an answer.
        _ => NeighbourState::Set,
    };
    Some(Neighbour { netns, ifindex: header.ifindex, address, state, hardware })
}

/// A rule of policy routing. What it asks that is not known here counts as more.
fn policy(netns: NetnsId, message: &RuleMessage) -> Option<PolicyRule> {
    let header = &message.header;
    let ipv6 = match header.family {
        AddressFamily::Inet => false,
        AddressFamily::Inet6 => true,
        _ => return None,
    };
    let leads = header.action == RuleAction::ToTable;
    let mut rule = PolicyRule {
        netns,
        ipv6,
        priority: 0,
        inverted: header.flags.contains(RuleFlags::Invert),
        from: None,
        to: None,
        iif: None,
        uids: None,
        more: header.tos != 0,
        table: leads.then_some(header.table.into()),
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = leads.then_some(*table),
            RuleAttribute::Source(from) => rule.from = Some((*from, header.src_len)),
            RuleAttribute::Destination(to) => rule.to = Some((*to, header.dst_len)),
            RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
            RuleAttribute::UidRange(range) => rule.uids = Some((range.start, range.end)),
            // Who made it, and what of its table does not count: of the tables that every
            // namespace has there is nothing that it asks of a packet.
            RuleAttribute::Protocol(_) => {}
            RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            _ => rule.more = true,
        }
    }
    Some(rule)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    let id = NetnsId::Inode(1);
    for answer in super::netlink::messages(bytes).filter_map(understood) {
        match answer {
            RouteNetlinkMessage::NewLink(message) => drop(link(id, &message, &HashMap::new())),
            RouteNetlinkMessage::NewAddress(message) => drop(address(id, &message)),
            RouteNetlinkMessage::NewRoute(message) => {
                drop((routed(id, &message), decision(&message)));
            }
            RouteNetlinkMessage::NewRule(message) => drop(policy(id, &message)),
            RouteNetlinkMessage::NewNeighbour(message) => drop(neighbour(id, &message)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: NetnsId = NetnsId::Inode(1);

    #[test]
    fn the_loopback_interface_and_its_address_are_read() {
        let mut rtnl = Rtnl::open().unwrap();
        let links = rtnl.links(HERE, &[]).unwrap();
        let lo = links.iter().find(|l| l.name == "lo").unwrap();
        assert_eq!((lo.kind.clone(), lo.master, lo.peer), (LinkKind::Loopback, None, None));
        let addresses = rtnl.addresses(HERE).unwrap();
        let local = addresses.iter().find(|a| a.address == whereis_port_model::LOOPBACK4).unwrap();
        assert_eq!((local.ifindex, local.prefix), (lo.index, 8));
    }

    #[test]
    fn routes_are_read_without_local_and_broadcast_ones() {
        for route in Rtnl::open().unwrap().routes(HERE).unwrap() {
            let route = match route {
                Routed::Unicast(route) => route,
                Routed::Local(local) => {
                    assert!(local.prefix > 0 || local.table != 255, "{local:?}");
                    continue;
                }
            };
            assert!(!route.destination.is_loopback(), "{route:?}");
            assert!(route.ifindex.is_some(), "{route:?}");
        }
    }
}
