//! The way back: whether routing takes a packet that comes in, for where it comes from.
//!
//! The kernel's reverse path filter drops what comes in by a device that an answer would not
//! leave by (strict), or whose sender no route leads to (loose). Policy routing may choose
//! another route by the source or by the device. Where the sender's address is known, the
//! kernel decides; else it is a condition.

use whereis_port_rules::{ANYWHERE4, ANYWHERE6, Nic, Packet, PacketSender};

use super::{Arrival, ForwardPath, StopKind, Walk, senders, settings};
use crate::route;
use whereis_port_model::{
    Advice, Command, Condition, ConditionCode, End, FixKind, InputFound, InputQuery, NetnsId,
    PacketFlow, Route, RouteFound,
};

/// How many more addresses of a sender are tried.
const ADDRESSES: usize = 8;
/// How many networks a condition names.
const NAMED: usize = 3;

/// What `rp_filter` is set to for a way back by the same device.
const STRICT: u8 = 1;

impl Walk<'_, '_> {
    /// What routing makes of a packet that came in, whose destination `route` leads to: the ways
    /// on. Where it is dropped for its source, that way ends.
    pub(super) fn admit(
        &self,
        mut way: ForwardPath,
        packet: &Packet,
        mut route: RouteFound,
        ended: &mut Vec<Arrival>,
    ) -> Vec<(ForwardPath, RouteFound)> {
        let Some(iif) = &packet.iif else { return vec![(way, route)] };
        let PacketSender::Address(from) = packet.source else {
            return match self.admit_anybody(way, packet, iif, ended) {
                Some(way) => self.route_anybody(way, packet, iif, route),
                None => Vec::new(),
            };
        };
        match self.input(packet, iif, from) {
            None => {}
            Some(InputFound::Routed(found)) => route = with_source(found, &route),
            // Among those that the sender stands for may be the server itself, and nothing
            // gives it another address.
            Some(InputFound::SourceRefused) if self.anybody && self.is_own(packet.netns, from) => {
                let (mut other, is) = (way.clone(), |not| {
                    format!("the client's address is{not} {from}, which is the server's own")
                });
                other.depends.push(Condition { code: ConditionCode::Client, text: is("") });
                ended.push(self.refused(other, packet, iif, from));
                let not = Condition { code: ConditionCode::OtherClient, text: is(" not") };
                way.depends.push(not);
            }
            Some(InputFound::SourceRefused) => {
                ended.push(self.refused(way, packet, iif, from));
                return Vec::new();
            }
        }
        // Whoever is there may send from any of its addresses.
        let filters = || self.reverse_path(packet.netns, iif).is_some();
        if self.anybody && way.entered.len() == 1 && filters() {
            let of = |address: &std::net::IpAddr| Condition {
                code: ConditionCode::Client,
                text: format!("the client's address is {address}"),
            };
            for address in self.beside(packet, from) {
                if self.input(packet, iif, address) == Some(InputFound::SourceRefused) {
                    let mut other = way.clone();
                    other.depends.push(of(&address));
                    ended.push(self.refused(other, packet, iif, address));
                    let not = Condition {
                        code: ConditionCode::OtherClient,
                        text: format!("the client's address is not {address}"),
                    };
                    way.depends.push(not);
                }
            }
        }
        vec![(way, route)]
    }

    /// The routes of a packet whose sender is not known: policy routing may ask for the source.
    fn route_anybody(
        &self,
        mut way: ForwardPath,
        packet: &Packet,
        iif: &Nic,
        route: RouteFound,
    ) -> Vec<(ForwardPath, RouteFound)> {
        let ipv6 = packet.destination.is_ipv6();
        let rules = route::policies(self.facts, packet.netns, ipv6);
        if rules.is_empty() {
            return vec![(way, route)];
        }
        let of = |from| match self.input(packet, iif, from) {
            Some(InputFound::Routed(found)) => Some(with_source(found, &route)),
            Some(InputFound::SourceRefused) | None => None,
        };
        let main = of(self.anywhere(packet.netns, ipv6)).unwrap_or_else(|| route.clone());
        let mut ways = Vec::new();
        let asks = |rule: &&whereis_port_model::PolicyRule| {
            rule.from.is_some_and(|(_, prefix)| prefix > 0)
        };
        route::say_untried(self.facts, packet.netns, rules.iter().filter(asks).count());
        for rule in rules.iter().filter(asks).take(route::TRIED) {
            let Some((network, prefix)) = rule.from else { continue };
            let from = one_of(network, prefix);
            let Some(found) = of(from).filter(|_| !self.is_own(packet.netns, from)) else {
                continue;
            };
            if (found.kind, found.oif, found.gateway) == (main.kind, main.oif, main.gateway) {
                continue;
            }
            let text = |not| {
                let rule = route::words(rule);
                format!("the client's address is{not} in {network}/{prefix}, by {rule}")
            };
            let mut other = way.clone();
            other.depends.push(Condition { code: ConditionCode::Client, text: text("") });
            ways.push((other, found));
            let code = ConditionCode::OtherClient;
            way.depends.push(Condition { code, text: text(" not") });
        }
        ways.insert(0, (way, main));
        ways
    }

    /// An address that may be any other machine's.
    pub(super) fn anywhere(&self, netns: NetnsId, ipv6: bool) -> std::net::IpAddr {
        match ipv6 {
            true => ANYWHERE6.into(),
            false if self.is_own(netns, ANYWHERE4.into()) => {
                std::net::Ipv4Addr::new(203, 0, 113, 77).into()
            }
            false => ANYWHERE4.into(),
        }
    }

    /// Why an answer to a packet that came in gets nowhere, if it surely does not: the namespace
    /// has no route to who sent it. Other machines may be on a network of the first namespace
    /// that they come into; behind that they are beyond a gateway.
    pub(super) fn no_way_back(&self, way: &ForwardPath, packet: &Packet) -> Option<String> {
        let netns = packet.netns;
        packet.iif.as_ref().filter(|nic| &*nic.name != "lo")?;
        // Routes by the source are asked for where the answer is sent.
        if !route::policies(self.facts, netns, packet.destination.is_ipv6()).is_empty() {
            return None;
        }
        let routes = self.facts.take(self.facts.world.routes(&[netns]));
        let ipv6 = packet.destination.is_ipv6();
        let of_version = |r: &&whereis_port_model::Route| r.destination.is_ipv6() == ipv6;
        // One that has addresses has routes to their networks: without any, they were not read.
        routes.iter().find(of_version)?;
        let name = || self.facts.netns_ref(netns);
        match packet.source {
            PacketSender::Address(from) if from.is_ipv6() == ipv6 && !from.is_loopback() => {
                (!senders::has_route(self.facts, netns, from)).then(|| {
                    format!("its answer gets nowhere: no route of {} leads back to {from}", name())
                })
            }
            PacketSender::Elsewhere if way.entered.len() > 1 => {
                let by_gateway = routes.iter().filter(of_version).any(|r| r.gateway.is_some());
                let somewhere = if ipv6 { ANYWHERE6.into() } else { ANYWHERE4.into() };
                (!by_gateway && !senders::has_route(self.facts, netns, somewhere)).then(|| {
                    format!("its answer gets nowhere: {} has no route to other networks", name())
                })
            }
            _ => None,
        }
    }

    pub(super) fn input(
        &self,
        packet: &Packet,
        iif: &Nic,
        from: std::net::IpAddr,
    ) -> Option<InputFound> {
        let ipv6 = packet.destination.is_ipv6();
        if from.is_ipv6() != ipv6 {
            return None;
        }
        let asks = |rule: &whereis_port_model::PolicyRule| rule.more;
        let by_flow = route::policies(self.facts, packet.netns, ipv6).iter().any(asks);
        let flow = by_flow.then_some(PacketFlow {
            proto: packet.proto,
            sport: packet.sport,
            dport: Some(packet.dport),
        });
        let query = InputQuery {
            netns: packet.netns,
            to: packet.destination,
            from,
            iif: iif.index,
            mark: packet.mark,
            flow,
        };
        self.facts.take(self.facts.world.input_route(&query))
    }

    pub(super) fn is_own(&self, netns: NetnsId, address: std::net::IpAddr) -> bool {
        self.facts.addresses_of(netns).iter().any(|a| a.address == address)
    }

    /// Whether the kernel sends from an address: IPv4 has it on an interface, or by a route of the
    /// table `local` (`__ip_dev_find()` of `net/ipv4/devinet.c`).
    pub(super) fn may_send_from(&self, netns: NetnsId, address: std::net::IpAddr) -> bool {
        let in_table = || {
            let all = self.facts.take(self.facts.world.local_routes(&[netns]));
            let covers = |l: &whereis_port_model::LocalRoute| {
                whereis_port_rules::route::covers(l.destination, l.prefix, address)
            };
            let elsewhere = |l: &&whereis_port_model::LocalRoute| l.table != route::LOCAL_TABLE;
            // Where nothing was read, nothing is known of other tables either.
            !all.iter().filter(elsewhere).any(covers)
                || all.iter().filter(|l| !elsewhere(l)).any(covers)
        };
        address.is_ipv6() || address.is_loopback() || self.is_own(netns, address) || in_table()
    }

    /// The other addresses of the namespace that has one.
    fn beside(&self, packet: &Packet, from: std::net::IpAddr) -> Vec<std::net::IpAddr> {
        let all = self.facts.all_addresses();
        let Some(sender) = all.iter().find(|a| a.address == from && a.netns != packet.netns) else {
            return Vec::new();
        };
        let is_other = |a: &&whereis_port_model::Address| {
            a.netns == sender.netns && a.address != from && !a.address.is_loopback()
        };
        let same = |a: &whereis_port_model::Address| a.address.is_ipv6() == from.is_ipv6();
        let others = all.iter().filter(is_other).filter(|a| same(a));
        others.map(|a| a.address).take(ADDRESSES).collect()
    }

    /// A way that ends since the kernel takes nothing from this address by this device.
    pub(super) fn refused(
        &self,
        way: ForwardPath,
        packet: &Packet,
        iif: &Nic,
        from: std::net::IpAddr,
    ) -> Arrival {
        let mode = self.reverse_path(packet.netns, iif);
        let Some(mode) = mode.filter(|_| !self.is_own(packet.netns, from)) else {
            let why = format!(
                "{} takes nothing from {from}: it is this namespace's own address, or no host's",
                iif.name
            );
            return way.stop(StopKind::NoWay, why);
        };
        let back = self.route(packet.netns, from, 0).and_then(|route| route.oif);
        let back = match back.filter(|oif| *oif != iif.index) {
            Some(oif) => {
                format!("packets to {from} leave by {}", self.nic(packet.netns, oif).name)
            }
            None => format!("no route leads back to {from}"),
        };
        let why = format!("{}: {back}", filter(iif, mode));
        way.stop_with(StopKind::ReversePath, why, Some(loosen(iif, mode)), End::default())
    }

    /// The reverse path filter of a device, if it is on.
    pub(super) fn reverse_path(&self, netns: NetnsId, iif: &Nic) -> Option<u8> {
        let settings = settings(self.facts, netns)?;
        let of = settings.reverse_path?.into_iter().find(|one| one.device == *iif.name)?;
        Some(of.mode)
    }

    /// Of a sender whose address is not known.
    fn admit_anybody(
        &self,
        mut way: ForwardPath,
        packet: &Packet,
        iif: &Nic,
        ended: &mut Vec<Arrival>,
    ) -> Option<ForwardPath> {
        // IPv6 has no such filter but by rules.
        let mode = match packet.destination.is_ipv4() {
            true => self.reverse_path(packet.netns, iif),
            false => None,
        };
        let links = self.facts.links_of(packet.netns);
        let is_inner = |index| {
            links.iter().find(|l| l.index == index).is_some_and(|l| senders::is_inner(l, &links))
        };
        // Who is behind a bridge is on its network.
        let Some(mode) = mode.filter(|_| !is_inner(iif.index)) else { return Some(way) };
        let routes = self.facts.take(self.facts.world.routes(&[packet.netns]));
        let policies = self.facts.take(self.facts.world.policy_rules(&[packet.netns]));
        let by_policy = policies.iter().any(|rule| !rule.ipv6 && !rule.is_usual());
        let v4 = || routes.iter().filter(|r| r.destination.is_ipv4());
        let default = v4().find(|r| r.prefix == 0);
        let by_others: Vec<&Route> = v4()
            .filter(|r| r.prefix > 0 && r.ifindex != Some(iif.index))
            .filter(|r| r.ifindex.is_none_or(|index| !is_inner(index)))
            .collect();
        let is_default = default.is_some_and(|r| r.ifindex == Some(iif.index)) && !by_policy;
        let client = |code, text: String| Condition { code, text };
        let (passes, stops) = match mode {
            STRICT if is_default && by_others.is_empty() => return Some(way),
            STRICT if is_default => {
                let networks = named(&by_others);
                (
                    client(
                        ConditionCode::OtherClient,
                        format!("the client's address is not {networks}"),
                    ),
                    client(ConditionCode::Client, format!("the client's address is {networks}")),
                )
            }
            STRICT => {
                let text =
                    |not| format!("the client's address is{not} routed back by {}", iif.name);
                (
                    client(ConditionCode::Client, text("")),
                    client(ConditionCode::OtherClient, text(" not")),
                )
            }
            _ if default.is_some() => return Some(way),
            _ => (
                client(
                    ConditionCode::Client,
                    "a route leads back to the client's address".to_owned(),
                ),
                client(
                    ConditionCode::OtherClient,
                    "no route leads back to the client's address".to_owned(),
                ),
            ),
        };
        let mut other = way.clone();
        other.depends.push(stops);
        let fix = Some(loosen(iif, mode));
        ended.push(other.stop_with(StopKind::ReversePath, filter(iif, mode), fix, End::default()));
        way.depends.push(passes);
        Some(way)
    }
}

/// A route with the source that a packet of this node would have there.
fn with_source(found: RouteFound, route: &RouteFound) -> RouteFound {
    let same = found.oif == route.oif;
    let source = found.source.or(route.source.filter(|_| same));
    RouteFound { source, ..found }
}

/// An address in a network, not its first one.
fn one_of(network: std::net::IpAddr, prefix: u8) -> std::net::IpAddr {
    match network {
        std::net::IpAddr::V4(a) if prefix < 32 => {
            std::net::Ipv4Addr::from_bits(a.to_bits() | 1).into()
        }
        std::net::IpAddr::V6(a) if prefix < 128 => {
            std::net::Ipv6Addr::from_bits(a.to_bits() | 1).into()
        }
        one => one,
    }
}

fn filter(iif: &Nic, mode: u8) -> String {
    format!("dropped by the reverse path filter of {} (rp_filter is {mode})", iif.name)
}

/// What makes the filter take it.
fn loosen(iif: &Nic, mode: u8) -> Advice {
    let route = Advice::from(format!("add a route back to the client by {}", iif.name));
    let route = route.of(FixKind::Other);
    if mode != STRICT {
        return route;
    }
    let set = Command::new("sysctl -w").arg(format!("net/ipv4/conf/{}/rp_filter=2", iif.name));
    route.words(", or: ").command(set).of(FixKind::SetSysctl)
}

/// `in 192.168.77.0/24 or 10.0.0.0/8`.
fn named(routes: &[&Route]) -> String {
    let networks = routes.iter().take(NAMED).map(|r| format!("{}/{}", r.destination, r.prefix));
    let mut text = networks.collect::<Vec<_>>().join(" or ");
    let more = routes.len().saturating_sub(NAMED);
    if more > 0 {
        text.push_str(&format!(" or {more} more networks that other devices lead to"));
    }
    format!("in {text}")
}
