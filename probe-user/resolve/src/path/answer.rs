//! The answer to a packet that was taken: back through every namespace that the packet passed,
//! by its own routes, and through the rules there, as one of a connection that conntrack knows.
//!
//! ```text
//! socket ──▶ OUTPUT ──▶ route ──▶ POSTROUTING ──▶ the namespace before
//!   PREROUTING ──▶ route ──▶ FORWARD ──▶ POSTROUTING ──▶ … ──▶ INPUT, or who is outside
//! ```
//!
//! NAT is undone where conntrack does it: of the destination right behind the rules that
//! translate, of the source when it leaves.

use std::net::IpAddr;

use whereis_port_rules::{Nic, Packet, PacketSender, ReplyState, SeenAs};

use super::neighbours::Neighbours;
use super::stage::HookPart::{BeforeIpvs, BehindIpvs};
use super::stage::{self, Going};
use super::{Arrival, ForwardPath, StopKind, Walk, ruleset};
use crate::route;
use whereis_port_model::{
    BaseChain, ChainKind, Condition, ConditionCode, End, Hook, InputFound, NeighbourState, NetnsId,
    Proto, RouteFound, RouteKind, Socket,
};

/// Some port that the kernel gives to a client.
const EPHEMERAL: u16 = 49_152;

/// The paths of an answer: those on which it gets back, and where it is lost.
struct ReplyPaths {
    /// The ways on which it gets back.
    back: Vec<ForwardPath>,
    /// Those on which it does not.
    lost: Vec<Arrival>,
}

/// An answer between two namespaces: the packet as it left, and its route.
struct Left {
    way: ForwardPath,
    packet: Packet,
    route: RouteFound,
    /// Which of the namespaces it left, counted from the first.
    at: usize,
}

impl Walk<'_, '_> {
    /// The sockets that take a packet, each with the ways on which its answer gets back. Where it
    /// does not, that way ends.
    pub(super) fn answered<'s>(
        &self,
        way: ForwardPath,
        packet: &Packet,
        sockets: &'s [Socket],
        ended: &mut Vec<Arrival>,
    ) -> Vec<(ForwardPath, &'s Socket)> {
        let legs = way.legs.clone().unwrap_or_default();
        let by_program = |netns| self.cilium(netns).is_some();
        let places = || legs.iter().map(|leg| leg.netns).chain([packet.netns]);
        if way.legs.is_none() || packet.tproxy.is_some() || places().any(by_program) {
            return sockets.iter().map(|socket| (way.clone(), socket)).collect();
        }
        let mut all = Vec::new();
        for socket in sockets {
            let answered = self.answer(&way, &legs, packet, socket);
            ended.extend(answered.lost);
            let of = Legs { legs: &legs, packet };
            for way in answered.back {
                let through = self.goes_on(way, &of, ended);
                all.extend(through.into_iter().map(|way| (way, socket)));
            }
        }
        all
    }

    /// What follows the answer, on the way of the first packet: rules may let through only what
    /// begins a connection.
    fn goes_on(
        &self,
        way: ForwardPath,
        of: &Legs<'_>,
        ended: &mut Vec<Arrival>,
    ) -> Vec<ForwardPath> {
        if of.packet.proto != Proto::Tcp {
            return vec![way];
        }
        let ipv6 = of.packet.destination.is_ipv6();
        let mut ways = vec![way];
        let mut lost = Vec::new();
        for at in 0..=of.legs.len() {
            let leg = of.leg(at);
            let is_end = at == of.legs.len();
            let over_loopback = leg.iif.as_ref().filter(|nic| self.is_loopback(leg.netns, nic));
            let mut before = leg.clone();
            before.established = true;
            before.untracked = false;
            before.zone = 0;
            before.mark = 0;
            let first = leg.original.unwrap_or((leg.destination, leg.dport));
            (before.destination, before.dport) = first;
            // From the namespace before, or from somebody on the same link who sent it.
            let by = match at.checked_sub(1).map(|before| of.leg(before)) {
                Some(before) => before.oif.as_ref().map(|nic| (before.netns, nic.index)),
                None => leg.iif.as_ref().map(|nic| (leg.netns, nic.index)),
            };
            let bridged = by.and_then(|by| self.bridge_between(by, leg.netns, ipv6));
            ways = self.over_if(bridged, ways, &before, &mut lost);
            let at_devices = |going: Vec<Going>, iif: Option<&Nic>, oif: Option<&Nic>| {
                let at = |(way, mut packet): Going| {
                    (packet.iif, packet.oif) = (iif.cloned(), oif.cloned());
                    (way, packet)
                };
                going.into_iter().map(at).collect::<Vec<Going>>()
            };
            let mut pass = |hook, going| stage::pass(self.facts, hook, going, &mut lost);
            let start: Vec<Going> = ways.iter().map(|way| (way.clone(), before.clone())).collect();
            let (iif, oif) = (leg.iif.as_ref(), leg.oif.as_ref());
            let going = match (over_loopback, iif) {
                (Some(lo), _) => {
                    let going = at_devices(start, None, Some(lo));
                    let going = self.translated(Hook::Output, going, leg, &mut lost);
                    let going = stage::pass(self.facts, Hook::Postrouting, going, &mut lost);
                    let going = at_devices(going, Some(lo), None);
                    stage::pass(self.facts, Hook::Prerouting, going, &mut lost)
                }
                (None, Some(_)) => {
                    let going = pass(Hook::Ingress, at_devices(start, iif, None));
                    self.translated(Hook::Prerouting, going, leg, &mut lost)
                }
                (None, None) => {
                    self.translated(Hook::Output, at_devices(start, None, oif), leg, &mut lost)
                }
            };
            let going = at_devices(going, iif, oif);
            let mut pass = |hook, going| stage::pass(self.facts, hook, going, &mut lost);
            let going = match (is_end, iif) {
                (true, _) => pass(Hook::Input, going),
                (false, Some(_)) => {
                    let going = pass(Hook::Forward, going);
                    pass(Hook::Postrouting, going)
                }
                (false, None) => pass(Hook::Postrouting, going),
            };
            ways = going.into_iter().map(|(way, _)| way).collect();
        }
        for one in &mut lost {
            is_of(one, FOLLOWS);
        }
        ended.extend(lost);
        ways
    }

    /// The first hook for a packet of a connection that is translated: what comes behind NAT sees
    /// where it is sent to.
    fn translated(
        &self,
        hook: Hook,
        going: Vec<Going>,
        leg: &Packet,
        lost: &mut Vec<Arrival>,
    ) -> Vec<Going> {
        let mut going = stage::pass_part(self.facts, hook, BeforeIpvs, going, lost);
        for (_, packet) in &mut going {
            (packet.destination, packet.dport) = (leg.destination, leg.dport);
        }
        stage::pass_part(self.facts, hook, BehindIpvs, going, lost)
    }

    /// The answer to a client that is known, or to those who may be.
    fn answer(
        &self,
        way: &ForwardPath,
        legs: &[Packet],
        packet: &Packet,
        socket: &Socket,
    ) -> ReplyPaths {
        let first = legs.first().unwrap_or(packet);
        let of = Legs { legs, packet };
        if let PacketSender::Address(client) = first.source {
            return self.answer_to(way, &of, client, socket);
        }
        let mut all: Vec<(ClientCandidate, ReplyPaths)> = Vec::new();
        for client in self.clients(first) {
            let answered = self.answer_to(way, &of, client.address, socket);
            all.push((client, answered));
        }
        // Whom the first namespace has no route to is none of its clients.
        let is_served = |(_, one): &(ClientCandidate, ReplyPaths)| !one.back.is_empty();
        if all.iter().any(is_served) {
            let reaches = |client: &ClientCandidate| {
                first.iif.is_none()
                    || super::senders::has_route(self.facts, first.netns, client.address)
            };
            all.retain(|(client, one)| !one.back.is_empty() || reaches(client));
        }
        if all.iter().all(is_served) && all.iter().all(|(_, one)| one.lost.is_empty())
            || all.iter().all(|(_, one)| one.back.is_empty())
        {
            let one = all.into_iter().next().map(|(_, one)| one);
            return one.unwrap_or_else(|| ReplyPaths { back: vec![way.clone()], lost: Vec::new() });
        }
        let mut together = ReplyPaths { back: Vec::new(), lost: Vec::new() };
        let mut shut: Vec<Condition> = Vec::new();
        for (client, one) in &all {
            if one.back.is_empty() {
                shut.push(client.condition(false));
            }
        }
        for (client, mut one) in all {
            let is = client.condition(true);
            for lost in &mut one.lost {
                lost.depends.push(is.clone());
            }
            for back in &mut one.back {
                back.depends.extend(shut.clone());
            }
            together.lost.extend(one.lost);
            if together.back.is_empty() {
                together.back = one.back;
            }
        }
        together
    }

    /// Who may have sent a packet that came in from outside: somebody on the network of the device,
    /// somebody behind a router, and those of whom rules of policy routing ask.
    fn clients(&self, first: &Packet) -> Vec<ClientCandidate> {
        let ipv6 = first.destination.is_ipv6();
        let netns = first.netns;
        let mut all = vec![ClientCandidate { address: self.anywhere(netns, ipv6), network: None }];
        let iif = first.iif.as_ref().map(|nic| nic.index);
        let addresses = self.facts.addresses_of(netns);
        let on = addresses.iter().find(|a| {
            Some(a.ifindex) == iif && a.address.is_ipv6() == ipv6 && !is_link_local(a.address)
        });
        if let Some(near) = on.and_then(|a| self.somebody(netns, a.address, a.prefix)) {
            all.push(near);
        }
        let rules = route::policies(self.facts, netns, ipv6);
        let networks: std::collections::BTreeSet<(IpAddr, u8)> =
            rules.iter().filter_map(|rule| rule.to.filter(|(_, prefix)| *prefix > 0)).collect();
        route::say_untried(self.facts, netns, networks.len());
        let tried = networks.into_iter().take(route::TRIED);
        all.extend(tried.filter_map(|(network, prefix)| self.somebody(netns, network, prefix)));
        all
    }

    /// Some address of a network that is not this namespace's own.
    fn somebody(&self, netns: NetnsId, network: IpAddr, prefix: u8) -> Option<ClientCandidate> {
        let all: Vec<IpAddr> = match network {
            IpAddr::V4(a) => {
                let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
                let base = a.to_bits() & !host;
                let some = [host.saturating_sub(1), 1, 2, 0, host];
                some.iter()
                    .map(|n| std::net::Ipv4Addr::from_bits(base | (n & host)).into())
                    .collect()
            }
            IpAddr::V6(a) => {
                let host = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
                let base = a.to_bits() & !host;
                let some = [0xfffe_u128, 1, 2, 0];
                some.iter()
                    .map(|n| std::net::Ipv6Addr::from_bits(base | (n & host)).into())
                    .collect()
            }
        };
        let address = all.into_iter().find(|address| !self.is_own(netns, *address))?;
        Some(ClientCandidate { address, network: Some((network, prefix)) })
    }

    /// The answer to one client.
    fn answer_to(
        &self,
        way: &ForwardPath,
        of: &Legs<'_>,
        client: IpAddr,
        socket: &Socket,
    ) -> ReplyPaths {
        let mut answered = ReplyPaths { back: Vec::new(), lost: Vec::new() };
        let mut going = self.leaves_server(way.clone(), of, client, socket, &mut answered);
        while !going.is_empty() {
            let mut next = Vec::new();
            for left in going {
                self.crosses_back(left, of, client, &mut answered, &mut next);
            }
            going = next;
        }
        for lost in &mut answered.lost {
            is_of(lost, ANSWER);
        }
        answered
    }

    /// Out of the namespace of the socket.
    fn leaves_server(
        &self,
        way: ForwardPath,
        of: &Legs<'_>,
        client: IpAddr,
        socket: &Socket,
        answered: &mut ReplyPaths,
    ) -> Vec<Left> {
        let first = of.packet;
        let netns = first.netns;
        let mut packet = of.answer_in(first, client);
        packet.uid = Some(socket.uid);
        let to = packet.destination;
        let is_loop = first.iif.as_ref().is_some_and(|nic| self.is_loopback(netns, nic));
        if is_link_local(first.destination) || is_link_local(to) {
            answered.back.push(way);
            return Vec::new();
        }
        if !self.may_send_from(netns, first.destination) {
            let why = format!(
                "{} sends nothing from {}, which is local by a route of another table than local",
                self.facts.netns_ref(netns),
                first.destination
            );
            answered.lost.push(match self.no_transparent(netns) {
                true => nowhere(way, &why),
                false => way.stop(StopKind::Unknown, format!("{why}: a transparent socket may")),
            });
            return Vec::new();
        }
        let out =
            |packet: &Packet| self.route_out_by(packet, Some(first.destination), socket.ifindex);
        let found = out(&packet);
        let Some(found) = found.filter(|found| self.is_known(netns, found, to)) else {
            answered.back.push(way);
            return Vec::new();
        };
        // Rules of packets ask for another user than routes do.
        packet.uid = None;
        if let Some(why) = self.no_way(&found, &packet, Some(first.destination)) {
            answered.lost.push(nowhere(way, &why));
            return Vec::new();
        }
        packet.oif = found.oif.map(|index| self.nic(netns, index));
        let mark = packet.mark;
        let mut ended = Vec::new();
        let going = self.pass(Hook::Output, vec![(way, packet)], first, client, &mut ended);
        let mut left = Vec::new();
        for (way, mut packet) in going {
            let mut route = found.clone();
            let rerouted = packet.mark != mark && self.marks_reroute(netns);
            let again = || out(&packet);
            if let Some(again) = rerouted.then(again).flatten() {
                if let Some(why) = self.no_way(&again, &packet, Some(first.destination)) {
                    ended.push(nowhere(way, &why));
                    continue;
                }
                packet.oif = again.oif.map(|index| self.nic(netns, index));
                route = again;
            }
            for (way, packet) in
                self.pass(Hook::Postrouting, vec![(way, packet)], first, client, &mut ended)
            {
                if is_loop || route.kind == RouteKind::Local {
                    answered.back.extend(self.loops_back(way, packet, first, client, &mut ended));
                } else {
                    left.push(Left { way, packet, route: route.clone(), at: of.legs.len() });
                }
            }
        }
        answered.lost.extend(ended);
        left
    }

    /// Over loopback, to a client in the same namespace.
    fn loops_back(
        &self,
        way: ForwardPath,
        mut packet: Packet,
        first: &Packet,
        client: IpAddr,
        ended: &mut Vec<Arrival>,
    ) -> Vec<ForwardPath> {
        packet.iif = packet.oif.take();
        packet.original = Some((packet.destination, packet.dport));
        let back = self.pass(Hook::Prerouting, vec![(way, packet)], first, client, ended);
        let back = self.pass(Hook::Input, back, first, client, ended);
        back.into_iter().map(|(way, _)| way).collect()
    }

    /// From one namespace into the one that the packet came from, and through it.
    fn crosses_back(
        &self,
        left: Left,
        of: &Legs<'_>,
        client: IpAddr,
        answered: &mut ReplyPaths,
        next: &mut Vec<Left>,
    ) {
        let Left { way, packet, route, at } = left;
        let hop = route.gateway.unwrap_or(packet.destination);
        let here = of.leg(at);
        // Where the next hop is the namespace itself, a program delivers, as Cilium's at
        // cilium_host: it knows whose address that is.
        let by_program = route.gateway.is_some_and(|gateway| self.is_own(packet.netns, gateway));
        let is_on_way = |end: &(NetnsId, u32)| {
            (0..at).any(|at| of.leg(at).netns == end.0)
                || self.is_own(end.0, packet.destination)
                || hop == packet.destination
        };
        // By the same device, and to somebody else there.
        let strays = |oif| match self.neighbours((packet.netns, oif), hop) {
            Neighbours::At(ends) => !ends.iter().any(is_on_way),
            // Somebody who is only thought of is nowhere to be seen.
            Neighbours::Nobody => matches!(of.leg(0).source, PacketSender::Address(_)),
            Neighbours::Misdirected(_) | Neighbours::Deaf(_) => true,
            _ => false,
        };
        let is_same_device = here.iif.as_ref().map(|nic| nic.index) == route.oif;
        let same = by_program || is_same_device && !route.oif.is_some_and(strays);
        let bridge = self.filtering_bridge(packet.netns, route.oif, hop);
        let there = match route.oif.filter(|_| !same) {
            Some(oif) => self.neighbours((packet.netns, oif), hop),
            None => Neighbours::Unknown { unanswered: false },
        };
        // Of a link that is not seen as a whole: who sent it here is there, and who is seen there.
        let is_near = |netns: NetnsId| {
            let seen = route.oif.and_then(|oif| self.seen_on_link((packet.netns, oif), hop));
            at > 0 && of.leg(at - 1).netns == netns
                || seen.is_none_or(|ends| ends.iter().any(|end| end.0 == netns))
        };
        let leads_to = |netns| match &there {
            Neighbours::At(ends) => ends.iter().any(|end| end.0 == netns),
            Neighbours::Silent(..)
            | Neighbours::Filtered(_)
            | Neighbours::Deaf(_)
            | Neighbours::Misdirected(_)
            | Neighbours::Nobody
            | Neighbours::Stranger
            | Neighbours::Unknown { .. } => same && is_near(netns),
        };
        let device = packet.oif.as_ref().map_or("?", |nic| &*nic.name).to_owned();
        let elsewhere = || {
            let name = self.facts.netns_ref(packet.netns);
            format!(
                "the answer leaves {name} by {device} to {hop}, another way than it was asked, which is not followed"
            )
        };
        if there == Neighbours::Nobody {
            let why = format!("it leaves by {device}, where nobody has {hop}");
            answered.lost.push(nowhere(way, &why));
            return;
        }
        if let (Some(oif), Neighbours::Misdirected(hardware)) = (route.oif, &there) {
            let (why, fix) = self.misdirected((packet.netns, oif), hop, *hardware);
            let why = format!("its answer gets nowhere: {why}");
            answered.lost.push(way.stop_with(StopKind::NoWay, why, fix, End::default()));
            return;
        }
        if let Neighbours::Deaf(_) = there {
            let why = format!("it leaves by {device}, where nobody answers for {hop}");
            answered.lost.push(nowhere(way, &why));
            return;
        }
        let is_unknown =
            matches!(there, Neighbours::Stranger | Neighbours::Unknown { .. }) && !same;
        // Whoever it leaves to has to pass it on, when it is not the client.
        let passed_on = match &there {
            Neighbours::At(ends) => {
                !same && !ends.iter().any(|end| self.is_own(end.0, packet.destination))
            }
            _ => false,
        };
        // Somebody who did not answer just now forwards nothing.
        let is_silent = |oif| {
            self.neighbour_state((packet.netns, oif), hop) == Some(NeighbourState::Unanswered)
        };
        if hop != packet.destination
            && !matches!(there, Neighbours::At(_))
            && route.oif.is_some_and(is_silent)
        {
            let why = format!(
                "whether the answer gets back is not known: nobody on {device} answered for {hop}, the gateway, when it was last looked for"
            );
            answered.lost.push(way.stop(StopKind::Unknown, why));
            return;
        }
        let is_known = matches!(here.source, PacketSender::Address(_));
        if at == 0 && is_known && (is_unknown || passed_on) {
            answered.lost.push(way.stop(StopKind::Unknown, elsewhere()));
            return;
        }
        if at == 0 {
            // Who is outside, or behind a device of this namespace.
            let Some((netns, nic)) = bridge.filter(|_| same) else {
                answered.back.push(way);
                return;
            };
            let over = self.over(way, packet, netns, &nic, &mut answered.lost);
            answered.back.extend(over.into_iter().map(|(way, _)| way));
            return;
        }
        // Who sent it may be on the same link, when it is not of the first namespace itself.
        let sender = of.leg(0);
        let straight = sender.iif.is_some()
            && sender.source == PacketSender::Address(hop)
            && (same || matches!(there, Neighbours::At(_)));
        let is_its = |at: &usize| {
            let netns = of.leg(*at).netns;
            self.is_own(netns, hop) && leads_to(netns)
        };
        let to = match (0..at).rev().find(is_its) {
            Some(to) => Some(to),
            None if straight => None,
            // A gateway that is nobody's address, for which the other end answers.
            None => match route.oif.map(|oif| self.neighbours((packet.netns, oif), hop)) {
                Some(Neighbours::Nobody) => {
                    let why = format!("it leaves by {device}, where nobody has {hop}");
                    answered.lost.push(nowhere(way, &why));
                    return;
                }
                // Where the link was not seen as a whole, the other end is not known to answer.
                Some(Neighbours::Unknown { .. })
                    if same
                        && hop != packet.destination
                        && !by_program
                        && route
                            .oif
                            .is_some_and(|oif| self.is_unheard((packet.netns, oif), hop)) =>
                {
                    let why = format!("whether anybody on {device} answers for {hop} is not known");
                    answered.lost.push(way.stop(StopKind::Unknown, why));
                    return;
                }
                _ if same && hop != packet.destination => Some(at - 1),
                _ => {
                    answered.lost.push(way.stop(StopKind::Unknown, elsewhere()));
                    return;
                }
            },
        };
        let passed = |at: usize| of.leg(at).netns;
        // Past those that the packet went through: on one link with the client, or the one before.
        let skipped = to.map_or(0, |to| to + 1)..at;
        let translates = skipped.clone().rev().find(|at| {
            let leg = of.leg(*at);
            is_translated(leg) || is_seen_otherwise(leg)
        });
        let bridged =
            bridge.as_ref().filter(|(netns, _)| skipped.clone().any(|at| passed(at) == *netns));
        match (translates, bridged) {
            // Its rules see what goes over the bridge, and so does its NAT.
            (_, Some((netns, nic))) => {
                let Some(at) = skipped.clone().find(|at| passed(*at) == *netns) else { return };
                self.goes_through(way, &packet, of, (at, client), nic.clone(), answered, next);
            }
            (Some(by), None) => {
                let name = self.facts.netns_ref(of.leg(by).netns);
                let why = format!(
                    "it goes straight to {hop}, past {name}, which translated the connection: no rule masquerades it"
                );
                answered.lost.push(nowhere(way, &why));
            }
            (None, None) => {
                let others = match &bridge {
                    Some((netns, nic)) => self.over(way, packet, *netns, nic, &mut answered.lost),
                    None => vec![(way, packet)],
                };
                for (way, packet) in others {
                    let Some(to) = to else {
                        answered.back.push(way);
                        continue;
                    };
                    let leg = of.leg(to);
                    let has = self
                        .enters_by((packet.netns, route.oif), leg.netns, hop)
                        .filter(|index| !self.is_loopback(leg.netns, &self.nic(leg.netns, *index)));
                    let by = has.or(leg.oif.as_ref().map(|nic| nic.index));
                    let Some(by) = by.map(|index| self.nic(leg.netns, index)) else {
                        answered.back.push(way);
                        continue;
                    };
                    self.goes_through(way, &packet, of, (to, client), by, answered, next);
                }
            }
        }
    }

    /// Over a bridge whose namespace's rules see that, and is not passed otherwise.
    fn over(
        &self,
        way: ForwardPath,
        packet: Packet,
        netns: NetnsId,
        nic: &Nic,
        lost: &mut Vec<Arrival>,
    ) -> Vec<Going> {
        let mut bridged = packet.clone();
        bridged.netns = netns;
        (bridged.iif, bridged.oif) = (Some(nic.clone()), Some(nic.clone()));
        (bridged.uid, bridged.gid, bridged.mark, bridged.ct_mark) = (None, None, 0, 0);
        bridged.original = None;
        let mut passed = vec![(way, bridged)];
        for hook in [Hook::Prerouting, Hook::Forward, Hook::Postrouting] {
            passed = stage::pass(self.facts, hook, passed, lost);
        }
        passed.into_iter().map(|(way, _)| (way, packet.clone())).collect()
    }

    /// The same of several ways, where there is such a bridge.
    fn over_if(
        &self,
        bridge: Option<(NetnsId, Nic)>,
        ways: Vec<ForwardPath>,
        packet: &Packet,
        lost: &mut Vec<Arrival>,
    ) -> Vec<ForwardPath> {
        let Some((netns, nic)) = bridge else { return ways };
        let over = |way| self.over(way, packet.clone(), netns, &nic, lost);
        ways.into_iter().flat_map(over).map(|(way, _)| way).collect()
    }

    /// Through a namespace that the packet passed, or to the process that sent it.
    #[expect(clippy::too_many_arguments, reason = "a step of the way, and what it adds to")]
    fn goes_through(
        &self,
        way: ForwardPath,
        came: &Packet,
        of: &Legs<'_>,
        (at, client): (usize, IpAddr),
        iif: Nic,
        answered: &mut ReplyPaths,
        next: &mut Vec<Left>,
    ) {
        let leg = of.leg(at);
        let netns = leg.netns;
        let mut packet = of.answer_in(leg, client);
        (packet.source, packet.sport) = (came.source, came.sport);
        (packet.destination, packet.iif) = (came.destination, Some(iif.clone()));
        let mut ended = Vec::new();
        let going = stage::pass(self.facts, Hook::Ingress, vec![(way, packet)], &mut ended);
        let going = self.pass(Hook::Prerouting, going, leg, client, &mut ended);
        for (way, mut packet) in going {
            if packet.untracked && (is_translated(leg) || is_seen_otherwise(leg)) {
                let why = format!(
                    "{} does not track it, so what was translated is not translated back",
                    self.facts.netns_ref(netns)
                );
                ended.push(nowhere(way, &why));
                continue;
            }
            let from = match packet.source {
                PacketSender::Address(from) => from,
                PacketSender::Elsewhere => packet.destination,
            };
            // Without these the route is that of any packet that goes there.
            let ipv6 = from.is_ipv6();
            // What is passed on has to be forwarded by the device that it comes in by.
            let asks_source = leg.iif.is_some()
                || !route::policies(self.facts, netns, ipv6).is_empty()
                || self.reverse_path(netns, &iif).is_some()
                || self.is_own(netns, from);
            let input = || self.input(&packet, &iif, from);
            let found = match asks_source.then(input).flatten() {
                Some(InputFound::Routed(found)) => Some(found),
                Some(InputFound::SourceRefused) => {
                    ended.push(self.refused(way, &packet, &iif, from));
                    continue;
                }
                None => self.route_out(&packet, None),
            };
            if leg.iif.is_none() {
                let going = vec![(way, packet)];
                let taken = self.pass(Hook::Input, going, leg, client, &mut ended);
                answered.back.extend(taken.into_iter().map(|(way, _)| way));
                continue;
            }
            let to = packet.destination;
            let Some(found) = found.filter(|found| self.is_known(netns, found, to)) else {
                answered.back.push(way);
                continue;
            };
            if let Some(why) = self.no_way(&found, &packet, Some(from)) {
                ended.push(nowhere(way, &why));
                continue;
            }
            packet.oif = found.oif.map(|index| self.nic(netns, index));
            let going = vec![(way, packet)];
            let going = self.pass(Hook::Forward, going, leg, client, &mut ended);
            for (way, packet) in self.pass(Hook::Postrouting, going, leg, client, &mut ended) {
                next.push(Left { way, packet, route: found.clone(), at });
            }
        }
        answered.lost.extend(ended);
    }

    /// A hook of a namespace, with what conntrack translates back there.
    fn pass(
        &self,
        hook: Hook,
        going: Vec<Going>,
        leg: &Packet,
        client: IpAddr,
        ended: &mut Vec<Arrival>,
    ) -> Vec<Going> {
        let going = self.pass_hook(hook, going, leg, client, ended);
        if !matches!(hook, Hook::Prerouting | Hook::Output) || leg.untracked {
            return going;
        }
        // In another zone conntrack does not know what it answers.
        let (same, other): (Vec<Going>, Vec<Going>) =
            going.into_iter().partition(|(_, packet)| packet.untracked || packet.zone == leg.zone);
        ended.extend(other.into_iter().map(|(way, packet)| {
            let why = format!(
                "whether its answer gets back is not known: it is in conntrack zone {} of {}, and what it answers is in zone {}",
                packet.zone,
                self.facts.netns_ref(leg.netns),
                leg.zone
            );
            way.stop(StopKind::Unknown, why)
        }));
        same
    }

    fn pass_hook(
        &self,
        hook: Hook,
        going: Vec<Going>,
        leg: &Packet,
        client: IpAddr,
        ended: &mut Vec<Arrival>,
    ) -> Vec<Going> {
        let tracked =
            |packet: &Packet| !packet.untracked && !leg.untracked && packet.zone == leg.zone;
        match hook {
            Hook::Prerouting | Hook::Output if is_seen_otherwise(leg) => {
                let going = stage::pass_part(self.facts, hook, BeforeIpvs, going, ended);
                let back = |(way, mut packet): Going| {
                    if tracked(&packet) {
                        packet.destination = match leg.source {
                            PacketSender::Address(source) => source,
                            PacketSender::Elsewhere => client,
                        };
                    }
                    (way, packet)
                };
                let going = going.into_iter().map(back).collect();
                stage::pass_part(self.facts, hook, BehindIpvs, going, ended)
            }
            Hook::Postrouting => {
                let going = stage::pass(self.facts, hook, going, ended);
                let back = |(way, mut packet): Going| {
                    if let Some((address, port)) = leg.original.filter(|_| tracked(&packet)) {
                        packet.source = PacketSender::Address(address);
                        packet.sport = Some(port);
                    }
                    (way, packet)
                };
                let going: Vec<Going> = going.into_iter().map(back).collect();
                stage::pass(self.facts, Hook::Egress, going, ended)
            }
            hook => stage::pass(self.facts, hook, going, ended),
        }
    }

    /// Whether a mark that is set at output makes the kernel choose another route.
    fn marks_reroute(&self, netns: NetnsId) -> bool {
        let is_one = |c: &BaseChain| c.hook == Hook::Output && c.kind == ChainKind::Route;
        ruleset(self.facts, netns).is_some_and(|rules| rules.base_chains.iter().any(is_one))
    }

    /// Whether that there is no route is known: who has addresses has routes to their networks,
    /// and without any they were not read.
    fn is_known(&self, netns: NetnsId, found: &RouteFound, to: IpAddr) -> bool {
        let routes = || self.facts.take(self.facts.world.routes(&[netns]));
        found.kind != RouteKind::None
            || routes().iter().any(|r| r.destination.is_ipv6() == to.is_ipv6())
    }

    fn is_loopback(&self, netns: NetnsId, nic: &Nic) -> bool {
        let links = self.facts.links_of(netns);
        let is_it = |l: &&whereis_port_model::Link| l.index == nic.index;
        links.iter().find(is_it).is_some_and(|l| l.kind == whereis_port_model::LinkKind::Loopback)
    }
}

/// The packet in each namespace that it passed, and where it was taken.
struct Legs<'a> {
    legs: &'a [Packet],
    packet: &'a Packet,
}

impl Legs<'_> {
    fn leg(&self, at: usize) -> &Packet {
        self.legs.get(at).unwrap_or(self.packet)
    }

    /// The answer to a packet as it is in one namespace, before any hook.
    fn answer_in(&self, leg: &Packet, client: IpAddr) -> Packet {
        let to = match leg.source {
            PacketSender::Address(source) => source,
            PacketSender::Elsewhere => client,
        };
        let from = PacketSender::Address(leg.destination);
        let mut packet = Packet::new(leg.netns, leg.proto, from, (to, EPHEMERAL).into());
        packet.sport = Some(leg.dport);
        packet.ct_mark = leg.ct_mark;
        packet.answer = Some(ReplyState {
            known: !leg.untracked,
            client: leg.source,
            asked: leg.original.unwrap_or((leg.destination, leg.dport)),
            dnat: is_translated(leg),
            snat: is_seen_otherwise(leg),
        });
        packet
    }
}

/// Somebody who may be the client.
struct ClientCandidate {
    address: IpAddr,
    /// On this network; anywhere else without one.
    network: Option<(IpAddr, u8)>,
}

impl ClientCandidate {
    fn condition(&self, is: bool) -> Condition {
        let place = match self.network {
            Some((network, prefix)) => format!("in the network of {network}/{prefix}"),
            None => "beyond a router".to_owned(),
        };
        let code = if is { ConditionCode::Client } else { ConditionCode::OtherClient };
        let not = if is { "" } else { " not" };
        Condition { code, text: format!("the client is{not} {place}") }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

fn is_translated(leg: &Packet) -> bool {
    leg.original.is_some_and(|to| to != (leg.destination, leg.dport))
}

fn is_seen_otherwise(leg: &Packet) -> bool {
    leg.seen_as.is_some_and(|seen| seen != SeenAs::Itself)
}

fn nowhere(way: ForwardPath, why: &str) -> Arrival {
    way.stop(StopKind::NoWay, format!("its answer gets nowhere: {why}"))
}

/// What is stopped, other than the first packet.
const ANSWER: &str = "its answer";
const FOLLOWS: &str = "the packet after its answer, of an established connection,";

/// Says of what stops a packet which one it is.
fn is_of(lost: &mut Arrival, which: &str) {
    let Some(stop) = lost.stop.as_mut().filter(|stop| stop.kind != StopKind::Unknown) else {
        return;
    };
    if !stop.why.starts_with(which) {
        let old = std::mem::take(&mut stop.why);
        let said = matches!(stop.kind, StopKind::Dropped | StopKind::Rejected);
        stop.why = format!("{which}{} {old}", if said { " is" } else { ":" });
        lost.end.why = Some(stop.why.clone());
    }
}
