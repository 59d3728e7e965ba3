//! A connection from somewhere to somewhere.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use whereis_port_rules::{Nic, Packet, PacketSender, SeenAs};

use super::neighbours::Neighbours;
use super::stage::HookPart::{BeforeIpvs, BehindIpvs};
use super::stage::{self, Going};
use super::{
    Arrival, ForwardPath, MAX_DEPTH, PacketDestination, StopKind, Walk, cross, forwards, settings,
};
use crate::facts::Facts;
use crate::route;
use crate::walk::Visited;
use whereis_port_model::{
    Advice, Command, Condition, End, FixKind, FsIds, Hook, LOOPBACK4, LinkKind, NetnsId, Pid,
    RouteFound, RouteKind, RouteOf, RouteQuery,
};

/// What happens to a connection that a process of `netns` makes: `sender`, where it is known
/// which.
pub(crate) fn from_process(
    facts: &Facts<'_>,
    netns: NetnsId,
    sender: Option<Pid>,
    to: PacketDestination,
    visited: &mut Visited,
) -> Vec<Arrival> {
    from_bound(facts, netns, (sender, None), to, visited)
}

/// The same of one that is bound to an address of its own, where that is meant.
pub(crate) fn from_bound(
    facts: &Facts<'_>,
    netns: NetnsId,
    (sender, bound): (Option<Pid>, Option<IpAddr>),
    to: PacketDestination,
    visited: &mut Visited,
) -> Vec<Arrival> {
    let bound = bound.filter(|from| from.is_ipv6() == to.address.is_ipv6());
    let walk = Walk { facts, visited: &RefCell::new(visited), sender, bound, anybody: false };
    walk.local(ForwardPath::begin(), netns, to)
}

/// What happens to a connection that comes into `netns` by an interface, from the namespace `of`
/// where that is one of this node.
pub(crate) fn from_elsewhere(
    facts: &Facts<'_>,
    netns: NetnsId,
    (iif, source, of): (Nic, PacketSender, Option<NetnsId>),
    to: PacketDestination,
) -> Vec<Arrival> {
    let mut visited = Visited::new();
    let walk = Walk {
        facts,
        visited: &RefCell::new(&mut visited),
        sender: None,
        bound: None,
        anybody: true,
    };
    let mut way = ForwardPath::begin();
    if let Some(of) = of.filter(|of| *of != netns) {
        if let Some(bridge) = walk.kept_apart((netns, Some(iif.index)), of) {
            return vec![way.stop(StopKind::NoWay, cross::isolated(&bridge))];
        }
        walk.sends(&mut way, of);
        if walk.may_misdirect(of)
            && let Some(route) = walk.route(of, to.address, 0)
            && let (RouteKind::Unicast, Some(oif)) = (route.kind, route.oif)
            && let next = route.gateway.unwrap_or(to.address)
            && let Neighbours::Misdirected(hardware) = walk.neighbours((of, oif), next)
        {
            let (why, fix) = walk.misdirected((of, oif), next, hardware);
            return vec![way.stop_with(StopKind::NoNeighbour, why, fix, End::default())];
        }
    }
    let device = Some(iif.index);
    let own = facts.addresses_of(netns).iter().any(|a| a.address == to.address);
    if own && source == PacketSender::Elsewhere && of.is_none() {
        let stopped = walk.undiscovered_from_outside(&way, (netns, iif.index), to.address);
        if let Some(stopped) = stopped {
            return vec![stopped];
        }
    }
    let mut packet = packet(netns, source, to, Some(iif), None);
    // What is for one that stands on the device never comes to its namespace.
    let links = facts.links_of(netns);
    let by = links.iter().find(|link| Some(link.index) == device);
    if let Some(upper) = by.and_then(|by| cross::above(&walk, by, to.address)) {
        packet.netns = upper.netns;
        packet.iif = Some(walk.nic(upper.netns, upper.index));
        return walk.external(way, packet);
    }
    let mut ended = Vec::new();
    for way in walk.over_bridge(way, &packet, device, to.address, &mut ended) {
        ended.extend(walk.external(way, packet.clone()));
    }
    ended
}

/// That rules of policy routing of a namespace let no process of it send there; who stands for it
/// is root.
pub(super) fn refused_at_once(
    facts: &Facts<'_>,
    netns: NetnsId,
    to: PacketDestination,
) -> Option<Arrival> {
    if route::policies(facts, netns, to.address.is_ipv6()).is_empty() {
        return None;
    }
    let mut visited = Visited::new();
    let walk = Walk {
        facts,
        visited: &RefCell::new(&mut visited),
        sender: None,
        bound: None,
        anybody: true,
    };
    let mut packet = packet(netns, PacketSender::Elsewhere, to, None, None);
    packet.uid = Some(0);
    let found = walk.route_of_process(&packet)?;
    let why = walk.no_way(&found, &packet, found.source)?;
    Some(ForwardPath::begin().stop(StopKind::NoRoute, why))
}

fn packet(
    netns: NetnsId,
    source: PacketSender,
    to: PacketDestination,
    iif: Option<Nic>,
    oif: Option<Nic>,
) -> Packet {
    let destination = SocketAddr::new(to.address, to.port);
    let mut packet = Packet::new(netns, to.proto, source, destination);
    (packet.iif, packet.oif) = (iif, oif);
    packet
}

impl Walk<'_, '_> {
    pub(super) fn route(&self, netns: NetnsId, to: IpAddr, mark: u32) -> Option<RouteFound> {
        route::decide(self.facts, &RouteQuery::new(netns, to, mark))
    }

    /// The route of a packet that this namespace sends, from an address where one is chosen.
    pub(super) fn route_out(&self, packet: &Packet, from: Option<IpAddr>) -> Option<RouteFound> {
        self.route_out_by(packet, from, None)
    }

    /// The same of a socket that is bound to a device: where no route leads by that, IPv4 takes
    /// everybody to be on its link (`ip_route_output_key_hash_rcu`).
    pub(super) fn route_out_by(
        &self,
        packet: &Packet,
        from: Option<IpAddr>,
        oif: Option<u32>,
    ) -> Option<RouteFound> {
        let of = RouteOf {
            from,
            uid: packet.uid,
            proto: Some(packet.proto),
            sport: packet.sport,
            dport: Some(packet.dport),
            oif,
        };
        let (netns, to, mark) = (packet.netns, packet.destination, packet.mark);
        route::decide(self.facts, &RouteQuery { netns, to, mark, of })
    }

    /// The same of one that a process sends: of IPv4 the kernel asks once more when it has chosen
    /// the source (`ip_route_connect`), of IPv6 only where it found nothing without it
    /// (`ip6_dst_lookup_tail`).
    fn route_of_process(&self, packet: &Packet) -> Option<RouteFound> {
        if let Some(from) = self.bound {
            let found = self.route_out(packet, Some(from))?;
            return Some(RouteFound { source: Some(from), ..found });
        }
        let first = self.route_out(packet, None)?;
        let again = packet.destination.is_ipv4() && no_way(&first, packet.destination).is_none();
        match first.source.filter(|_| again && first.kind != RouteKind::Local) {
            Some(from) => {
                let second = self.route_out(packet, Some(from))?;
                Some(RouteFound { source: Some(from), ..second })
            }
            None => Some(first),
        }
    }

    /// The users whose packets take different routes, with what that assumes: those of whom
    /// rules of policy routing ask, where it is not known who connects.
    fn users(&self, packet: &Packet) -> Vec<(Option<u32>, Option<Condition>)> {
        let one = vec![(packet.uid, None)];
        let rules = route::policies(self.facts, packet.netns, packet.destination.is_ipv6());
        let ranges: Vec<_> = rules.iter().filter_map(|r| Some((r, r.uids?))).take(USERS).collect();
        if packet.uid.is_some() || ranges.is_empty() {
            return one;
        }
        let by = |uid| {
            let mut packet = packet.clone();
            packet.uid = Some(uid);
            self.route_of_process(&packet)
        };
        let named = |uid: &u32| ranges.iter().any(|(_, (a, b))| (a..=b).contains(&uid));
        let other = [0, 65_534, 4_000_000_000].into_iter().find(|uid| !named(uid));
        let mut all: Vec<(Option<u32>, Option<Condition>)> = Vec::new();
        if let Some(other) = other {
            let text = "it is sent by a user of whom no ip rule asks".to_owned();
            all.push((Some(other), Some(Condition::of_rule(text))));
        }
        for (rule, (first, last)) in &ranges {
            let text =
                format!("it is sent by a user from {first} to {last}, by {}", route::words(rule));
            all.push((Some(*first), Some(Condition::of_rule(text))));
        }
        let routes: Vec<_> = all.iter().filter_map(|(uid, _)| Some(by((*uid)?))).collect();
        if routes.windows(2).all(|pair| pair[0] == pair[1]) { one } else { all }
    }

    pub(super) fn nic(&self, netns: NetnsId, index: u32) -> Nic {
        let links = self.facts.links_of(netns);
        let name = links.iter().find(|l| l.index == index).map(|l| l.name.as_str());
        Nic { index, name: Arc::from(name.unwrap_or_default()) }
    }

    /// A process of a namespace connects.
    pub(super) fn local(
        &self,
        mut way: ForwardPath,
        netns: NetnsId,
        to: PacketDestination,
    ) -> Vec<Arrival> {
        self.connects(&mut way, to);
        match self.socket_balanced(&way, netns, to) {
            Some(arrivals) => arrivals,
            None => self.local_unbalanced(way, netns, to),
        }
    }

    /// The same, past what takes connections before there is a packet.
    pub(super) fn local_unbalanced(
        &self,
        mut way: ForwardPath,
        netns: NetnsId,
        to: PacketDestination,
    ) -> Vec<Arrival> {
        self.rules_unread(&mut way, netns);
        let mut packet = packet(netns, PacketSender::Elsewhere, to, None, None);
        if let Some(ids) = self.socket_ids(netns) {
            (packet.uid, packet.gid) = (Some(ids.uid), Some(ids.gid));
        }
        let mut all = Vec::new();
        for (uid, condition) in self.users(&packet) {
            let mut way = way.clone();
            way.depends.extend(condition);
            let mut packet = packet.clone();
            packet.uid = uid;
            all.extend(self.local_by(way, packet, to));
        }
        all
    }

    /// The same for one user.
    fn local_by(
        &self,
        way: ForwardPath,
        mut packet: Packet,
        to: PacketDestination,
    ) -> Vec<Arrival> {
        let netns = packet.netns;
        let Some(route) = self.route_of_process(&packet) else {
            return vec![
                way.stop(StopKind::Unknown, format!("the route to {} is not known", to.address)),
            ];
        };
        if let Some(stop) = self.no_way(&route, &packet, route.source) {
            return vec![way.stop(StopKind::NoRoute, stop)];
        }
        if route.kind == RouteKind::Local && self.is_loopback_down(netns) {
            let up = Advice::from(Command::new("ip link set lo up")).of(FixKind::SetLinkUp);
            let why = "the loopback interface, which it would go by, is down";
            return vec![way.stop_with(StopKind::NoRoute, why, Some(up), End::default())];
        }
        let source = match route.kind {
            // 127.0.0.1 to all of 127.0.0.0/8, for one.
            RouteKind::Local => route.source.or(Some(to.address)),
            _ => route.source,
        };
        if let Some(from) = source.filter(|from| !self.may_send_from(netns, *from)) {
            let why = format!(
                "nothing is sent from {from}: it is local by a route of another table than local"
            );
            return vec![way.stop(StopKind::NoRoute, why)];
        }
        packet.source = source.map_or(PacketSender::Elsewhere, PacketSender::Address);
        packet.oif = route.oif.map(|index| self.nic(netns, index));
        let mut ended = Vec::new();
        let going = vec![(way, packet)];
        let balances = self.has_virtual_servers(netns);
        // What NAT sends elsewhere is routed again at once, and what IPVS takes is never
        // seen by the filters behind it.
        let before = stage::pass_part(self.facts, Hook::Output, BeforeIpvs, going, &mut ended);
        for (way, mut packet) in before {
            packet.original.get_or_insert((to.address, to.port));
            if packet.destination != to.address
                && let Some((kind, why, fix)) = self.not_rerouted(&packet)
            {
                ended.push(way.stop_with(kind, why, fix, End::default()));
                continue;
            }
            let taken = if balances { self.virtual_server(&way, &packet) } else { None };
            if let Some(arrivals) = taken {
                ended.extend(arrivals);
                continue;
            }
            let going = vec![(way, packet)];
            let behind = stage::pass_part(self.facts, Hook::Output, BehindIpvs, going, &mut ended);
            for (way, packet) in behind {
                let same = packet.destination == to.address && packet.mark == 0;
                let route = if same { Some(route.clone()) } else { self.rerouted(&packet) };
                ended.extend(self.sent(way, packet, to, (true, route)));
            }
        }
        ended
    }

    fn is_loopback_down(&self, netns: NetnsId) -> bool {
        let links = self.facts.links_of(netns);
        links.iter().any(|link| link.kind == LinkKind::Loopback && !link.up)
    }

    /// The user and group of the process that connects, as rules of a namespace count them: those
    /// of its user namespace.
    fn socket_ids(&self, netns: NetnsId) -> Option<FsIds> {
        let process = self.facts.process(self.sender?)?;
        let users = |id: NetnsId| self.facts.netns.iter().find(|n| n.id == id)?.user_ns;
        let same = self.facts.host.init_pid_ns
            && users(netns).is_some()
            && users(netns) == self.facts.host.host_netns.and_then(users);
        process.fs.filter(|_| same && process.netns == Some(netns))
    }

    /// Why a packet whose destination changed at output can't go there.
    fn not_rerouted(&self, packet: &Packet) -> Option<(StopKind, String, Option<Advice>)> {
        let route = self.rerouted(packet)?;
        if let Some(why) = self.no_way(&route, packet, source_of(packet)) {
            return Some((StopKind::NoRoute, why, None));
        }
        let (why, fix) = self.martian(packet, &route, true)?;
        Some((StopKind::LoopbackOnWire, why, Some(fix)))
    }

    /// The route of a packet that rules changed behind the first decision (`ip_route_me_harder`).
    fn rerouted(&self, packet: &Packet) -> Option<RouteFound> {
        self.route_out(packet, source_of(packet))
    }

    /// Why a route leads nowhere, with the rules of policy routing that may be why.
    pub(super) fn no_way(
        &self,
        route: &RouteFound,
        packet: &Packet,
        from: Option<IpAddr>,
    ) -> Option<String> {
        let why = no_way(route, packet.destination)?;
        let rules = route::policies(self.facts, packet.netns, packet.destination.is_ipv6());
        let iif = packet.iif.as_ref().map(|nic| &*nic.name);
        Some(match route::by_policy(&rules, (from, packet.to()), iif) {
            Some(rules) => format!("{why}, by {rules}"),
            None => why,
        })
    }

    /// A packet comes in by an interface.
    pub(super) fn external(&self, mut way: ForwardPath, packet: Packet) -> Vec<Arrival> {
        way.entered.push(packet.netns);
        if way.entered.len() > MAX_DEPTH || way.hops.len() > 2 * MAX_DEPTH {
            let why = "too many steps: routes or rules may lead in a circle";
            return vec![way.stop(StopKind::Unknown, why)];
        }
        self.rules_unread(&mut way, packet.netns);
        self.comes_in(&mut way, &packet);
        if let Some(arrivals) = self.device_balanced(&way, &packet) {
            return arrivals;
        }
        self.unbalanced(way, packet)
    }

    /// The same, past what takes packets before there are any rules.
    pub(super) fn unbalanced(&self, way: ForwardPath, packet: Packet) -> Vec<Arrival> {
        let to = PacketDestination {
            proto: packet.proto,
            address: packet.destination,
            port: packet.dport,
        };
        let mut ended = Vec::new();
        let going = stage::pass(self.facts, Hook::Ingress, vec![(way, packet)], &mut ended);
        let going = stage::pass(self.facts, Hook::Prerouting, going, &mut ended);
        for (way, mut packet) in going {
            packet.original.get_or_insert((to.address, to.port));
            let route = self.route(packet.netns, packet.destination, packet.mark);
            ended.extend(self.sent(way, packet, to, (false, route)));
        }
        ended
    }

    /// Behind the first hook: routed to this namespace, or on.
    fn sent(
        &self,
        way: ForwardPath,
        packet: Packet,
        to: PacketDestination,
        (output, route): (bool, Option<RouteFound>),
    ) -> Vec<Arrival> {
        let netns = packet.netns;
        let Some(route) = route else {
            let why = format!("the route to {} is not known", packet.destination);
            return vec![way.stop(StopKind::Unknown, why)];
        };
        // What comes in by a device may have another one.
        let by_policy =
            || !route::policies(self.facts, netns, packet.destination.is_ipv6()).is_empty();
        let stop = self.no_way(&route, &packet, source_of(&packet));
        if let Some(stop) = stop.filter(|_| output || !by_policy()) {
            return vec![way.stop(StopKind::NoRoute, stop)];
        }
        if let Some(stop) = self.martian(&packet, &route, output) {
            let (why, fix) = stop;
            let end = End::default();
            return vec![way.stop_with(StopKind::LoopbackOnWire, why, Some(fix), end)];
        }
        let mut ended = Vec::new();
        let iif = packet.iif.as_ref().map(|nic| nic.name.to_string());
        let stays = || self.not_forwarding(netns, to.address.is_ipv6(), iif.as_deref()).is_some();
        let ways = if !output && (route.kind == RouteKind::Local || !stays()) {
            self.admit(way, &packet, route, &mut ended)
        } else {
            vec![(way, route)]
        };
        for (way, route) in ways {
            match self.no_way(&route, &packet, source_of(&packet)) {
                Some(stop) => ended.push(way.stop(StopKind::NoRoute, stop)),
                None => ended.extend(self.sent_by(way, packet.clone(), to, (output, route))),
            }
        }
        ended
    }

    /// The same by a route.
    fn sent_by(
        &self,
        way: ForwardPath,
        mut packet: Packet,
        to: PacketDestination,
        (output, route): (bool, RouteFound),
    ) -> Vec<Arrival> {
        let netns = packet.netns;
        let iif = packet.iif.as_ref().map(|nic| nic.name.to_string());
        let mut ended = Vec::new();
        packet.oif = route.oif.map(|index| self.nic(netns, index));
        let source = packet.source;
        let going = vec![(way, packet)];
        if route.kind == RouteKind::Local {
            let going = if output {
                self.looped(going, &mut ended)
            } else {
                let clear = |(way, mut packet): Going| {
                    packet.oif = None;
                    (way, packet)
                };
                going.into_iter().map(clear).collect()
            };
            for (way, mut packet) in stage::pass(self.facts, Hook::Input, going, &mut ended) {
                packet.source = source;
                let served = self.virtual_server(&way, &packet);
                ended.extend(served.unwrap_or_else(|| self.deliver(way, packet)));
            }
            return ended;
        }
        let going = if output {
            going
        } else {
            if let Some((why, fix)) =
                self.not_forwarding(netns, to.address.is_ipv6(), iif.as_deref())
            {
                let refuse = |(way, _): Going| {
                    let end = End::default();
                    way.stop_with(StopKind::NotForwarding, why.clone(), fix.clone(), end)
                };
                ended.extend(going.into_iter().map(refuse));
                return ended;
            }
            stage::pass(self.facts, Hook::Forward, going, &mut ended)
        };
        let going = stage::pass(self.facts, Hook::Postrouting, going, &mut ended);
        for (way, packet) in stage::pass(self.facts, Hook::Egress, going, &mut ended) {
            ended.extend(cross::leave(self, way, packet, &route));
        }
        ended
    }

    /// Over the loopback device and in again, without a second NAT. Behind it rules see the source
    /// that those before it gave.
    pub(super) fn looped(&self, going: Vec<Going>, ended: &mut Vec<Arrival>) -> Vec<Going> {
        let out = stage::pass(self.facts, Hook::Postrouting, going, ended);
        let out = stage::pass(self.facts, Hook::Egress, out, ended);
        let back = |(mut way, mut packet): Going| {
            packet.iif = packet.oif.take();
            if let Some(nic) = &packet.iif {
                self.loops(&mut way, packet.netns, nic);
                packet.source = self.seen_behind_loopback(&packet, nic.index);
            }
            (way, packet)
        };
        let back = out.into_iter().map(back).collect();
        let back = stage::pass(self.facts, Hook::Ingress, back, ended);
        stage::pass(self.facts, Hook::Prerouting, back, ended)
    }

    /// The source of what was sent over loopback, as it comes in: masquerading takes an address of
    /// that device which others may know, else that of some other device (`inet_select_addr()` of
    /// `net/ipv4/devinet.c`; for IPv6 the destination itself, which is the namespace's own).
    fn seen_behind_loopback(&self, packet: &Packet, loopback: u32) -> PacketSender {
        match packet.seen_as {
            Some(SeenAs::Address(address)) => PacketSender::Address(address),
            Some(SeenAs::Masqueraded) if packet.destination.is_ipv6() => {
                PacketSender::Address(packet.destination)
            }
            Some(SeenAs::Masqueraded) => {
                let all = self.facts.addresses_of(packet.netns);
                let is_one = |a: &&whereis_port_model::Address| {
                    a.address.is_ipv4() && !a.address.is_loopback() && !is_link_local4(a.address)
                };
                let of = |device: u32| all.iter().filter(is_one).find(move |a| a.ifindex == device);
                let mut devices: Vec<u32> = all.iter().filter(is_one).map(|a| a.ifindex).collect();
                devices.sort_unstable();
                devices.dedup();
                let of_other = match devices.as_slice() {
                    [one] => of(*one),
                    // Which device the kernel has first is not told.
                    _ => None,
                };
                let found = of(loopback).or(of_other);
                found.map_or(PacketSender::Elsewhere, |a| PacketSender::Address(a.address))
            }
            Some(SeenAs::Itself) | None => packet.source,
        }
    }

    /// Whether the kernel refuses to forward.
    pub(super) fn not_forwarding(
        &self,
        netns: NetnsId,
        ipv6: bool,
        iif: Option<&str>,
    ) -> Option<(String, Option<Advice>)> {
        let named = |names: Vec<String>| names.iter().any(|name| Some(&**name) == iif);
        let all = forwards(self.facts, netns, ipv6);
        let settings = settings(self.facts, netns);
        let (off, name) = if ipv6 {
            let forced = settings.and_then(|set| set.force_forward6).is_some_and(named);
            let off = all == Some(false) && !forced;
            (off, "net.ipv6.conf.all.forwarding".to_owned())
        } else {
            // The device that it came in by decides (`IN_DEV_FORWARD()`).
            let refuses = settings.and_then(|set| set.unforwarding4).filter(|_| iif.is_some());
            let off = refuses.map_or(all == Some(false), named);
            let name = match iif {
                // With slashes, for a name may have points in it.
                Some(device) if all == Some(true) => format!("net/ipv4/conf/{device}/forwarding"),
                _ => "net.ipv4.ip_forward".to_owned(),
            };
            (off, name)
        };
        let is_own = netns == self.facts.host.own_netns;
        off.then(|| match is_own {
            true => {
                let set = Command::new("sysctl -w").arg(format!("{name}=1"));
                let fix = Advice::from(set).of(FixKind::SetSysctl);
                (format!("{name} is 0: this node does not forward"), Some(fix))
            }
            false => {
                let place = self.facts.netns_ref(netns);
                (format!("{name} is 0 in {place}: it does not forward"), None)
            }
        })
    }

    /// Loopback addresses on a wire, which the kernel refuses.
    fn martian(
        &self,
        packet: &Packet,
        route: &RouteFound,
        output: bool,
    ) -> Option<(String, Advice)> {
        let nic = |index| self.nic(packet.netns, index);
        let out = route.oif.map(nic).or_else(|| packet.oif.clone());
        let from_loopback =
            matches!(packet.source, PacketSender::Address(source) if source.is_loopback());
        let (nic, what) = if output {
            let leaves = from_loopback && route.kind != RouteKind::Local;
            (leaves.then_some(out?)?, "a packet from a loopback address can't leave by")
        } else {
            let came = packet.iif.clone()?;
            let wire = &*came.name != "lo";
            let loopback = packet.destination.is_loopback();
            ((wire && loopback).then_some(came)?, "a packet to a loopback address can't come in by")
        };
        if packet.destination.is_ipv6() {
            return Some((
                format!("{what} {}: IPv6 has no route_localnet", nic.name),
                Advice::from("connect to another address of this node, or to its IPv4 address")
                    .of(FixKind::ConnectElsewhere),
            ));
        }
        let settings = settings(self.facts, packet.netns)?;
        let allowed = settings.route_localnet_all != Some(false)
            || settings.route_localnet.iter().any(|name| **name == *nic.name);
        let elsewhere = "connect to another address of this node";
        if !allowed && output && !self.masquerades(packet, &nic) {
            // Letting it out is not enough.
            return Some((
                format!(
                    "{what} {} (net.ipv4.conf.{}.route_localnet is 0), and no rule masquerades it",
                    nic.name, nic.name
                ),
                Advice::from(elsewhere).of(FixKind::ConnectElsewhere),
            ));
        }
        (!allowed).then(|| {
            // With slashes, a name may have points in it.
            let set = Command::new("sysctl -w")
                .arg(format!("net/ipv4/conf/{}/route_localnet=1", nic.name));
            (
                format!("{what} {} (net.ipv4.conf.{}.route_localnet is 0)", nic.name, nic.name),
                Advice::from(format!("{elsewhere}, or: "))
                    .command(set)
                    .of(FixKind::ConnectElsewhere),
            )
        })
    }

    /// Whether rules would give a packet another source if it left by a device.
    fn masquerades(&self, packet: &Packet, nic: &Nic) -> bool {
        let mut packet = packet.clone();
        packet.oif = Some(nic.clone());
        let going = vec![(ForwardPath::begin(), packet)];
        let passed = stage::pass(self.facts, Hook::Postrouting, going, &mut Vec::new());
        let is_seen_otherwise = |(_, packet): &Going| match packet.seen_as {
            Some(SeenAs::Masqueraded) => true,
            Some(SeenAs::Address(address)) => !address.is_loopback(),
            Some(SeenAs::Itself) | None => false,
        };
        !passed.is_empty() && passed.iter().all(is_seen_otherwise)
    }
}

/// How many ranges of users are told apart.
const USERS: usize = 4;

/// The source of a packet, where it is known.
fn source_of(packet: &Packet) -> Option<IpAddr> {
    match packet.source {
        PacketSender::Address(source) => Some(source),
        PacketSender::Elsewhere => None,
    }
}

/// 169.254.0.0/16, which is of the scope of a link.
fn is_link_local4(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(a) if a.is_link_local())
}

/// Why a route leads nowhere.
pub(super) fn no_way(route: &RouteFound, to: IpAddr) -> Option<String> {
    let why = match route.kind {
        RouteKind::None => "no route leads",
        RouteKind::Blackhole => "a blackhole route leads",
        RouteKind::Unreachable => "an unreachable route leads",
        RouteKind::Prohibit => "a prohibit route leads",
        RouteKind::Unicast
        | RouteKind::Local
        | RouteKind::Broadcast
        | RouteKind::Anycast
        | RouteKind::Multicast => return None,
    };
    Some(format!("{why} to {to}"))
}

/// The loopback address of a version of IP.
pub(crate) fn loopback(ipv6: bool) -> IpAddr {
    if ipv6 { std::net::Ipv6Addr::LOCALHOST.into() } else { LOOPBACK4 }
}
