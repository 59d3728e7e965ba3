//! From one namespace into the next, and to the socket at the end.

use std::net::IpAddr;

use whereis_port_rules::route::covers;
use whereis_port_rules::{Nic, Packet, PacketSender, SeenAs};

use super::neighbours::Neighbours;
use super::senders::{bridge_behind, is_ipvlan, is_upper, leads_outside};
use super::{Arrival, ForwardPath, PacketDestination, Stop, StopKind, Walk, mesh, settings, stage};
use crate::facts::Facts;
use crate::place::{at_address, by_device, locate};
use crate::walk::{follow, nothing, off_node};
use whereis_port_model::forward::{self, ClientFilter};
use whereis_port_model::{
    Advice, Command, Condition, ConditionCode, Container, End, Ending, FixKind, Hook, Link,
    LinkKind, NetnsId, Pid, Port, RouteFound, RouteKind, Socket,
};

/// A namespace that a packet comes into, the address there that it is sent to, and by which
/// interface, where that does not follow from the address.
type NetnsEntry = (NetnsId, IpAddr, Option<u32>);

/// A packet leaves a namespace by an interface. What goes over a bridge of another one passes the
/// rules there, if that is set so (`br_netfilter`).
pub(super) fn leave(
    walk: &Walk<'_, '_>,
    way: ForwardPath,
    packet: Packet,
    route: &RouteFound,
) -> Vec<Arrival> {
    let next = route.gateway.unwrap_or(packet.destination);
    let mut ended = Vec::new();
    for way in walk.over_bridge(way, &packet, route.oif, next, &mut ended) {
        ended.extend(arrive_next(walk, way, packet.clone(), route));
    }
    ended
}

/// The macvlan or ipvlan above a device that has an address, in whichever namespace.
pub(super) fn above(walk: &Walk<'_, '_>, lower: &Link, address: IpAddr) -> Option<Link> {
    let facts = walk.facts;
    let all = facts.all_addresses();
    all.iter().filter(|a| a.address == address && a.netns != lower.netns).find_map(|a| {
        let links = facts.links_of(a.netns);
        let link = links.iter().find(|l| l.index == a.ifindex && is_upper(l) && l.up)?;
        let is_above = link.peer == Some(lower.index) && link.peer_netns == Some(lower.netns);
        is_above.then(|| link.clone())
    })
}

fn arrive_next(
    walk: &Walk<'_, '_>,
    way: ForwardPath,
    packet: Packet,
    route: &RouteFound,
) -> Vec<Arrival> {
    let mut ended = Vec::new();
    if let Some(way) = walk.admitted_by_policy(way, &packet, route, &mut ended) {
        ended.extend(leave_admitted(walk, way, packet, route));
    }
    ended
}

fn leave_admitted(
    walk: &Walk<'_, '_>,
    way: ForwardPath,
    packet: Packet,
    route: &RouteFound,
) -> Vec<Arrival> {
    let facts = walk.facts;
    let from = packet.netns;
    let destination = packet.destination;
    let stays = packet.seen_as.is_none_or(|seen| seen == SeenAs::Itself);
    if stays && matches!(packet.source, PacketSender::Address(source) if source.is_loopback()) {
        let why =
            "its source stays a loopback address, so no answer comes back: no rule masquerades it";
        return vec![way.stop(StopKind::NoWay, why)];
    }
    // The next hop, if one of this node's namespaces has its address; else the
    // destination itself: some networks deliver by programs, whatever the route says.
    let next = route.gateway.unwrap_or(destination);
    let others = |address| {
        let mut places = locate(facts, from, address);
        places.retain(|id| *id != from);
        places
    };
    // By a device that leads outside it is gone, whoever here has such an address; a bridge
    // with such a port has others as well.
    let links = facts.links_of(from);
    let out = links.iter().find(|l| Some(l.index) == route.oif);
    let leads_outside = out.is_some_and(|out| leads_outside(out, &links));
    let is_bridge = out.is_some_and(|out| out.kind == LinkKind::Bridge);
    let having = |address| others(address).into_iter().map(move |id| (id, address, None));
    let mut places: Vec<NetnsEntry> = Vec::new();
    let mut unanswered = None;
    if let (RouteKind::Unicast, Some(oif)) = (route.kind, &packet.oif) {
        match walk.neighbours((from, oif.index), next) {
            Neighbours::At(ends) => {
                places = ends.into_iter().map(|(id, index)| (id, next, Some(index))).collect();
            }
            Neighbours::Nobody => {
                let why = format!(
                    "nobody on {} has {next}: all that are joined to it are seen",
                    oif.name
                );
                return vec![way.stop(StopKind::NoNeighbour, why)];
            }
            Neighbours::Silent(holder, mode) => {
                let holder = facts.netns_ref(holder);
                let why = format!(
                    "nobody on {} answers for {next}: network namespace {holder} has it, and arp_ignore is {mode} there",
                    oif.name
                );
                return vec![way.stop(StopKind::NoNeighbour, why)];
            }
            Neighbours::Deaf((holder, by)) => {
                let name = walk.nic(holder, by).name;
                let why = format!(
                    "nobody on {} answers for {next}: {name} of network namespace {} has it, and does no ARP",
                    oif.name,
                    facts.netns_ref(holder)
                );
                let mut way = way;
                way.entered.push(holder);
                return vec![way.stop(StopKind::NoNeighbour, why)];
            }
            Neighbours::Misdirected(hardware) => {
                let (why, fix) = walk.misdirected((from, oif.index), next, hardware);
                return vec![way.stop_with(StopKind::NoNeighbour, why, fix, End::default())];
            }
            Neighbours::Filtered(holder) => {
                let holder = facts.netns_ref(holder);
                let why = format!(
                    "nobody on {} answers for {next}: network namespace {holder} has it, and its reverse path filter (rp_filter) drops the question",
                    oif.name
                );
                return vec![way.stop(StopKind::NoNeighbour, why)];
            }
            Neighbours::Stranger => {
                let why = format!(
                    "who has {next} on {} is not known: none of those that are joined to it has, and somebody answered when it was last looked for",
                    oif.name
                );
                return vec![way.stop(StopKind::Unknown, why)];
            }
            Neighbours::Unknown { unanswered: is } => unanswered = is.then_some(next),
        }
    }
    // Where not all of a link is seen, whoever there has the address. Programs, as Cilium's, and
    // devices of other kinds deliver elsewhere, too: there it is whoever near by has it.
    let by_program = route.oif.is_some_and(|oif| walk.may_be_delivered((from, oif), from))
        || walk.cilium(from).is_some();
    if places.is_empty() && (!leads_outside || is_bridge) {
        let seen = route.oif.and_then(|oif| walk.seen_on_link((from, oif), next));
        places = match seen.filter(|_| !by_program) {
            Some(ends) => ends.into_iter().map(|(id, index)| (id, next, Some(index))).collect(),
            None => having(next).collect(),
        };
    }
    // A gateway that is nobody's address, as those of Azure and Cilium: a program delivers, or it
    // is known by its hardware address, and whoever is at the other end gets it.
    if let Some(oif) = route.oif.filter(|_| places.is_empty() && next != destination) {
        match walk.other_end((from, oif)) {
            Some((end, index)) if !walk.may_be_delivered((from, oif), end) => {
                if let Some(hardware) = walk.misses((from, oif), next, (end, index)) {
                    let (why, fix) = walk.misdirected((from, oif), next, hardware);
                    return vec![way.stop_with(StopKind::NoNeighbour, why, fix, End::default())];
                }
                if walk.is_unheard((from, oif), next) {
                    let why = format!(
                        "whether anybody answers for {next}, where the route to {destination} leads, is not known"
                    );
                    return vec![way.stop(StopKind::Unknown, why)];
                }
                places = vec![(end, next, Some(index))];
            }
            _ if by_program && !leads_outside => places = having(destination).collect(),
            _ => {}
        }
    }
    if let Some(upper) = out.filter(|_| places.is_empty()).and_then(|out| above(walk, out, next)) {
        let (name, device) = (facts.netns_ref(upper.netns), &upper.name);
        let kind = if is_ipvlan(&upper) { "ipvlan" } else { "macvlan" };
        let why = format!(
            "{next} is that of {device} in {name}, a {kind} above the device it leaves by: what this host sends there does not come to it"
        );
        let mut way = way;
        // Where it would come to.
        way.entered.push(upper.netns);
        return vec![way.stop(StopKind::NoNeighbour, why)];
    }
    if places.is_empty() {
        let to =
            PacketDestination { proto: packet.proto, address: destination, port: packet.dport };
        let mut way = way;
        walk.goes_out(&mut way, &packet, None);
        let mut path = off_node(facts, from, to, route);
        if let (Some(next), Some(why)) = (unanswered, &mut path.end.why) {
            why.push_str(&format!("; nobody answered for {next} when it was last looked for"));
        }
        return vec![way.arrive(path, None)];
    }
    let several = places.len() > 1;
    let mut arrivals = Vec::new();
    for (netns, address, by) in &places {
        let mut way = way.clone();
        if let Some(bridge) = walk.kept_apart((from, route.oif), *netns) {
            arrivals.push(way.stop(StopKind::NoWay, isolated(&bridge)));
            continue;
        }
        if let (Some(out), Some(by)) = (route.oif, by)
            && let Some(stopped) = walk.undiscovered(&way, (from, out), (*netns, *by), *address)
        {
            arrivals.push(stopped);
            continue;
        }
        if let Some(port) = walk.turned_back(&packet, &links, (out, *netns)) {
            let why = format!(
                "it would leave by {}, the port of {} that it came in by, and hairpin mode is off there: `bridge -d link` shows it",
                port.name,
                out.map_or("the bridge", |out| out.name.as_str()),
            );
            let fix = Advice::from("let it: ")
                .command(Command::new("bridge link set dev").name(&port.name).args("hairpin on"));
            // Where it would come to.
            way.entered.push(*netns);
            arrivals.push(way.stop_with(
                StopKind::NoWay,
                why,
                Some(fix.of(FixKind::SetBridgePort)),
                End::default(),
            ));
            continue;
        }
        if several {
            let place = facts.netns_ref(*netns);
            let text = format!("{place} is who answers for {address}, which others have, too");
            way.depends.push(Condition { code: ConditionCode::Neighbour, text });
        }
        walk.goes_out(&mut way, &packet, Some(*netns));
        way.legs.iter_mut().for_each(|legs| legs.push(packet.clone()));
        let mut packet = packet.clone();
        packet.netns = *netns;
        packet.source = seen_source(walk, from, &packet, route);
        packet.seen_as = None;
        packet.original = None;
        packet.tproxy = None;
        packet.mark = 0;
        packet.ct_mark = 0;
        packet.untracked = false;
        packet.zone = 0;
        (packet.uid, packet.gid) = (None, None);
        packet.oif = None;
        let by = by.or_else(|| walk.enters_by((from, route.oif), *netns, *address));
        packet.iif = by.map(|index| walk.nic(*netns, index));
        arrivals.extend(walk.external(way, packet));
    }
    arrivals
}

/// Why nothing gets from one port of a bridge to another.
pub(super) fn isolated(bridge: &str) -> String {
    format!("both ports of {bridge} between them are isolated: `bridge -d link` shows it")
}

/// Whom the next namespace sees as the sender.
pub(super) fn seen_source(
    walk: &Walk<'_, '_>,
    from: NetnsId,
    packet: &Packet,
    route: &RouteFound,
) -> PacketSender {
    match packet.seen_as {
        Some(SeenAs::Address(address)) => PacketSender::Address(address),
        Some(SeenAs::Masqueraded) => {
            let source = route.source.or_else(|| walk.route(from, packet.destination, 0)?.source);
            source.map_or(PacketSender::Elsewhere, PacketSender::Address)
        }
        Some(SeenAs::Itself) | None => packet.source,
    }
}

impl Walk<'_, '_> {
    /// What the rules of a bridge's namespace make of a packet between two of its ports: one of
    /// them is the peer of `device`, where the packet is now. The rules for packets that are
    /// forwarded see the bridge as the device at both ends.
    pub(super) fn over_bridge(
        &self,
        way: ForwardPath,
        packet: &Packet,
        device: Option<u32>,
        next: IpAddr,
        ended: &mut Vec<Arrival>,
    ) -> Vec<ForwardPath> {
        let Some((netns, nic)) = self.filtering_bridge(packet.netns, device, next) else {
            return vec![way];
        };
        let mut bridged = packet.clone();
        bridged.netns = netns;
        (bridged.iif, bridged.oif) = (Some(nic.clone()), Some(nic));
        (bridged.uid, bridged.gid, bridged.mark, bridged.ct_mark) = (None, None, 0, 0);
        (bridged.original, bridged.seen_as, bridged.tproxy) = (None, None, None);
        let asked = (packet.destination, packet.dport);
        let going = stage::pass(self.facts, Hook::Prerouting, vec![(way, bridged)], ended);
        let mut kept = Vec::new();
        for (way, mut bridged) in going {
            if (bridged.destination, bridged.dport) != asked || bridged.tproxy.is_some() {
                let why = "rules translate it on the bridge (br_netfilter), which is not followed";
                ended.push(way.stop(StopKind::Unknown, why));
            } else {
                bridged.original = Some(asked);
                kept.push((way, bridged));
            }
        }
        let going = stage::pass(self.facts, Hook::Forward, kept, ended);
        let passed = stage::pass(self.facts, Hook::Postrouting, going, ended);
        let stays = |packet: &Packet| packet.seen_as.is_none_or(|seen| seen == SeenAs::Itself);
        let (same, other): (Vec<_>, Vec<_>) =
            passed.into_iter().partition(|(_, packet)| stays(packet));
        ended.extend(other.into_iter().map(|(way, _)| {
            let why = "rules change its source on the bridge (br_netfilter), which is not followed";
            way.stop(StopKind::Unknown, why)
        }));
        same.into_iter().map(|(way, _)| way).collect()
    }

    /// The bridge at which a device, and another namespace, are at ports that are isolated from
    /// each other.
    pub(super) fn kept_apart(
        &self,
        (one, device): (NetnsId, Option<u32>),
        other: NetnsId,
    ) -> Option<String> {
        let ports = |netns: NetnsId, only: Option<u32>| {
            let links = self.facts.links_of(netns);
            let port = |link: &Link| {
                let theirs = self.facts.links_of(link.peer_netns?);
                let is_isolated = |l: &&Link| l.bridge_port.is_some_and(|port| port.isolated);
                theirs.iter().filter(is_isolated).find(|l| Some(l.index) == link.peer).cloned()
            };
            let meant = links.iter().filter(|l| only.is_none_or(|index| l.index == index));
            meant.filter_map(port).collect::<Vec<Link>>()
        };
        let of_other = ports(other, None);
        let apart = ports(one, Some(device?)).into_iter().find(|port| {
            let same = |l: &Link| (l.netns, l.master) == (port.netns, port.master);
            port.master.is_some() && of_other.iter().any(same)
        })?;
        let links = self.facts.links_of(apart.netns);
        let bridge = links.iter().find(|l| Some(l.index) == apart.master);
        Some(bridge.map_or_else(String::new, |bridge| bridge.name.clone()))
    }

    /// The port of a bridge by which a packet goes back to where it came from, and may not: what
    /// `br_netfilter` translates to an address on the same bridge is bridged, not routed
    /// (`br_nf_pre_routing_finish`), and never leaves by the port it came in by
    /// (`should_deliver`), unless that has hairpin mode.
    fn turned_back(
        &self,
        packet: &Packet,
        links: &[Link],
        (out, to): (Option<&Link>, NetnsId),
    ) -> Option<Link> {
        let bridge = out.filter(|out| out.kind == LinkKind::Bridge)?;
        let came_by = packet.iif.as_ref().map(|nic| nic.index);
        let (true, Some(_), PacketSender::Address(source)) =
            (came_by == Some(bridge.index), packet.original, packet.source)
        else {
            return None;
        };
        let is_theirs = self.facts.addresses_of(to).iter().any(|a| a.address == source);
        let ipv6 = packet.destination.is_ipv6();
        let filters = settings(self.facts, bridge.netns)?.filters_bridged(ipv6);
        let port = links.iter().find(|l| {
            l.master == Some(bridge.index)
                && l.peer_netns == Some(to)
                && l.bridge_port.is_some_and(|port| !port.hairpin)
        })?;
        (is_theirs && filters).then(|| port.clone())
    }

    /// The bridge that a device's peer is a port of, in a namespace whose rules see what goes over
    /// bridges, unless that namespace has the next hop itself.
    pub(super) fn filtering_bridge(
        &self,
        netns: NetnsId,
        device: Option<u32>,
        next: IpAddr,
    ) -> Option<(NetnsId, Nic)> {
        let found = self.bridge_between((netns, device?), netns, next.is_ipv6())?;
        let is_theirs = self.facts.addresses_of(found.0).iter().any(|a| a.address == next);
        (!is_theirs).then_some(found)
    }

    /// The same, unless that namespace is the other end itself.
    pub(super) fn bridge_between(
        &self,
        (netns, device): (NetnsId, u32),
        end: NetnsId,
        ipv6: bool,
    ) -> Option<(NetnsId, Nic)> {
        let links = self.facts.links_of(netns);
        let link = links.iter().find(|l| l.index == device)?;
        let place = link.peer_netns.filter(|place| *place != netns && *place != end)?;
        let bridge = bridge_behind(self.facts, link)?;
        let filters = settings(self.facts, place)?.filters_bridged(ipv6);
        filters.then(|| (place, self.nic(place, bridge.index)))
    }

    /// The device by which a packet that leaves by one of another namespace comes in: its other end,
    /// or the bridge that this is a port of; else the one that has the address.
    pub(super) fn enters_by(
        &self,
        (from, oif): (NetnsId, Option<u32>),
        netns: NetnsId,
        address: IpAddr,
    ) -> Option<u32> {
        let links = self.facts.links_of(from);
        let out = links.iter().find(|l| Some(l.index) == oif && l.kind == LinkKind::Veth);
        let peer = out.filter(|l| l.peer_netns == Some(netns)).and_then(|l| l.peer);
        let theirs = self.facts.links_of(netns);
        let port = theirs.iter().find(|l| Some(l.index) == peer);
        let addresses = self.facts.addresses_of(netns);
        let has = || addresses.iter().find(|a| a.address == address).map(|a| a.ifindex);
        port.map(|port| port.master.unwrap_or(port.index)).or_else(has)
    }

    /// The device that a socket sees a packet come in by: what a host sends to itself goes over
    /// loopback, and counts as come in by the device that has the address (`rt_iif` of IPv4,
    /// `IP6CB(skb)->iif`).
    fn seen_device(&self, netns: NetnsId, device: u32, address: IpAddr) -> u32 {
        let links = self.facts.links_of(netns);
        let is_loopback = |l: &Link| l.index == device && l.kind == LinkKind::Loopback;
        if !links.iter().any(is_loopback) {
            return device;
        }
        let addresses = self.facts.addresses_of(netns);
        addresses.iter().find(|a| a.address == address).map_or(device, |a| a.ifindex)
    }

    pub(super) fn no_transparent(&self, netns: NetnsId) -> bool {
        let read = self.facts.take(self.facts.world.transparent(&[netns]));
        read.first().is_some_and(|told| told.any == Some(false))
    }

    /// A packet is for this namespace: the socket that takes it.
    pub(super) fn deliver(&self, mut way: ForwardPath, packet: Packet) -> Vec<Arrival> {
        let facts = self.facts;
        if let Some(why) = self.no_way_back(&way, &packet) {
            return vec![way.stop(StopKind::NoWay, why)];
        }
        if packet.tproxy.is_some() && self.no_transparent(packet.netns) {
            let why = "no socket here is transparent (IP_TRANSPARENT), and TPROXY gives packets to no other";
            return vec![way.stop(StopKind::Dropped, why)];
        }
        self.is_looked_up(&mut way, packet.netns);
        let (address, port) = packet.tproxy.unwrap_or((packet.destination, packet.dport));
        let asked = (packet.proto, Port(port));
        let sockets = match &packet.iif {
            Some(nic) => {
                let device = self.seen_device(packet.netns, nic.index, address);
                by_device(facts, packet.netns, address, asked, device)
            }
            None => at_address(facts, packet.netns, address, asked.1, asked.0),
        };
        if sockets.is_empty() {
            let mut path = nothing(facts, packet.netns, address, Port(port), packet.proto, false);
            path.end.containers = facts.containers_of(packet.netns).to_vec();
            path.end.pod = path.end.containers.iter().rev().find_map(|c| c.pod.clone());
            path.end.cluster = path.end.containers.iter().rev().find_map(Container::cluster);
            path.end.pod = path.end.containers.iter().rev().find_map(|c| c.pod.clone());
            let why = path.end.why.clone().unwrap_or_default();
            let stop = Stop { kind: StopKind::Nothing, why, fix: None };
            return vec![way.arrive(path, Some(stop))];
        }
        let mut arrivals = Vec::new();
        let answered = self.answered(way, &packet, &sockets, &mut arrivals);
        for (way, socket) in screened(facts, answered, &packet, &mut arrivals) {
            let mut way = way;
            let holder = holder(facts, socket);
            self.is_taken_by(&mut way, socket, holder);
            let mut visited = self.visited.borrow_mut();
            let paths = follow(facts, socket, &mut visited);
            let paths = mesh::through(facts, &packet, socket, paths, &mut visited);
            arrivals.extend(paths.into_iter().map(|path| {
                let kind = match path.end.ending {
                    Ending::Nothing => Some(StopKind::Nothing),
                    // A forwarder takes it, and can't pass it on.
                    Ending::Stopped => path
                        .end
                        .stop
                        .filter(|stop| *stop == StopKind::NoNeighbour)
                        .or(Some(StopKind::NoWay)),
                    _ => path
                        .end
                        .stop
                        .filter(|stop| matches!(stop, StopKind::Unknown | StopKind::Reserved)),
                };
                let why = path.end.why.clone().unwrap_or_default();
                let fix = path.end.fix.clone();
                let stop = kind.map(|kind| Stop { kind, why, fix });
                way.clone().arrive(path, stop)
            }));
        }
        arrivals
    }
}

fn holder(facts: &Facts<'_>, socket: &Socket) -> Option<Pid> {
    facts.owners(&[socket.inode].into()).of(socket.inode).first().map(|owner| owner.pid)
}

/// Those ways on which a forwarder does not end the connection at once, for who the client is.
fn screened<'s>(
    facts: &Facts<'_>,
    ways: Vec<(ForwardPath, &'s Socket)>,
    packet: &Packet,
    ended: &mut Vec<Arrival>,
) -> Vec<(ForwardPath, &'s Socket)> {
    let mut kept = Vec::new();
    'ways: for (mut way, socket) in ways {
        let process = holder(facts, socket).and_then(|pid| facts.process(pid));
        let forward = process
            .filter(forward::is_its_program)
            .and_then(|process| forward::of(&process, socket));
        let Some(forward) = forward else {
            kept.push((way, socket));
            continue;
        };
        let kind = forward.kind;
        for screen in &forward.screens {
            let (network, prefix) = match screen {
                ClientFilter::Network(network, prefix) => (*network, *prefix),
                ClientFilter::Other(option) => {
                    let why = format!(
                        "{kind} ends connections of some clients at once, and whose is not followed: {option} in its arguments"
                    );
                    ended.push(way.stop(StopKind::Unknown, why));
                    continue 'ways;
                }
            };
            let only = format!(
                "{kind} ends the connection at once: range={network}/{prefix} in its arguments"
            );
            match packet.source {
                PacketSender::Address(from) if covers(network, prefix, from.to_canonical()) => {}
                PacketSender::Address(_) => {
                    ended.push(way.stop(StopKind::NoWay, only));
                    continue 'ways;
                }
                PacketSender::Elsewhere => {
                    let is = |not| format!("the client's address is{not} in {network}/{prefix}");
                    let mut other = way.clone();
                    let not = Condition { code: ConditionCode::OtherClient, text: is(" not") };
                    other.depends.push(not);
                    ended.push(other.stop(StopKind::NoWay, only));
                    way.depends.push(Condition { code: ConditionCode::Client, text: is("") });
                }
            }
        }
        kept.push((way, socket));
    }
    kept
}
