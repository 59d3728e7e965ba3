//! Load balancers that are no rules: where they stand in a packet's way.
//!
//! Where Cilium stands is said in [`super::cilium`]. IPVS takes what netfilter's
//! INPUT let through, and what a local process sends at OUTPUT, behind NAT and before
//! the filters. It sends the packet to a server as if a process here had.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use whereis_port_rules::{Packet, PacketSender, dialect};

use super::{Arrival, ForwardPath, PacketDestination, StopKind, Walk, cross, hops, stage};
use crate::budget::WAY;
use whereis_port_model::{
    Advice, Balancer, Command, End, Endpoint, Evidence, EvidenceSource, FixKind, Frontend,
    FrontendKind, FrontendScope, Hook, Hop, HopKind, NetnsId, Port, RouteFound, RouteKind, Server,
    Service,
};

/// The frontends of a balancer, by their ports.
pub(super) struct Frontends {
    all: Rc<[Frontend]>,
    by_port: HashMap<u16, Vec<usize>>,
    marked: Vec<usize>,
}

impl Frontends {
    fn new(all: Rc<[Frontend]>, balancer: Balancer) -> Self {
        let mut by_port: HashMap<u16, Vec<usize>> = HashMap::new();
        let mut marked = Vec::new();
        for (at, one) in all.iter().enumerate().filter(|(_, one)| one.balancer == balancer) {
            match one.mark {
                Some(_) => marked.push(at),
                None => by_port.entry(one.port).or_default().push(at),
            }
        }
        Self { all, by_port, marked }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_port.is_empty() && self.marked.is_empty()
    }

    fn marked(&self) -> impl Iterator<Item = &Frontend> {
        self.marked.iter().filter_map(|at| self.all.get(*at))
    }

    /// Those with a port.
    pub(super) fn at(&self, port: u16) -> impl Iterator<Item = &Frontend> {
        self.by_port.get(&port).into_iter().flatten().filter_map(|at| self.all.get(*at))
    }

    /// The frontend that takes a connection: that of its protocol first, and of the right scope.
    pub(super) fn pick(&self, to: PacketDestination, scope: FrontendScope) -> Option<&Frontend> {
        let rank = |f: &&Frontend| {
            let of_scope = f.scope == Some(scope);
            let takes = f.address == Some(to.address)
                && f.proto.is_none_or(|proto| proto == to.proto.number())
                && (of_scope || f.scope.is_none());
            takes.then_some((f.proto.is_some(), of_scope))
        };
        let mut best: Option<&Frontend> = None;
        for one in self.at(to.port).filter(|one| rank(one).is_some()) {
            // The first of equals.
            if best.is_none_or(|best| rank(&one) > rank(&best)) {
                best = Some(one);
            }
        }
        best
    }
}

impl Walk<'_, '_> {
    /// What a balancer of a namespace takes.
    pub(super) fn frontends(&self, netns: NetnsId, balancer: Balancer) -> Rc<Frontends> {
        let mut memo = self.facts.memo.frontends.borrow_mut();
        let read = || {
            let all = self.facts.take(self.facts.world.frontends(&[netns]));
            Rc::new(Frontends::new(all, balancer))
        };
        let all = Rc::clone(memo.entry((netns, balancer)).or_insert_with(read));
        self.facts.budget.spend(&self.facts.budget.of(netns), 1);
        all
    }

    /// Whether IPVS takes anything of a namespace.
    pub(super) fn has_virtual_servers(&self, netns: NetnsId) -> bool {
        !self.frontends(netns, Balancer::Ipvs).is_empty()
    }

    /// IPVS: by mark, else by address and port, else by address alone.
    pub(super) fn virtual_server(
        &self,
        way: &ForwardPath,
        packet: &Packet,
    ) -> Option<Vec<Arrival>> {
        let all = self.frontends(packet.netns, Balancer::Ipvs);
        let to = PacketDestination {
            proto: packet.proto,
            address: packet.destination,
            port: packet.dport,
        };
        let of_family =
            |f: &Frontend| f.address.is_none_or(|a| a.is_ipv6() == to.address.is_ipv6());
        let marked = all.marked().find(|f| f.mark == Some(packet.mark) && of_family(f));
        let any_port = || all.pick(PacketDestination { port: 0, ..to }, FrontendScope::Internal);
        let frontend =
            marked.or_else(|| all.pick(to, FrontendScope::Internal)).or_else(any_port)?;
        Some(self.balanced(way, packet.netns, to, frontend, Some(packet)))
    }

    /// One way for each server that takes new connections.
    pub(super) fn balanced(
        &self,
        way: &ForwardPath,
        netns: NetnsId,
        to: PacketDestination,
        frontend: &Frontend,
        packet: Option<&Packet>,
    ) -> Vec<Arrival> {
        let mut way = ForwardPath { legs: None, ..way.clone() };
        way.hops.push(self.frontend_hop(netns, to, frontend));
        way.service = frontend.name.as_deref().and_then(service).or(way.service);
        let serves = |b: &&Server| b.active && weight(frontend, b) > 0;
        let active: Vec<&Server> = frontend.backends.iter().filter(serves).collect();
        if active.is_empty() {
            let what = frontend.name.clone().unwrap_or_else(|| to_text(to));
            let policy = local_policy(frontend);
            let why = match frontend.backends.len() {
                0 if policy.is_some() => {
                    format!("service {what} has no backends on this node")
                }
                0 => format!("service {what} has no backends"),
                n => format!("none of the {n} backends of service {what} takes new connections"),
            };
            let mut end = End::default();
            end.evidence.push(evidence(frontend));
            let fix = policy.map(|policy| {
                let see = Command::new("kubectl get endpointslices -A");
                let advice = Advice::from(stage::local_only(policy));
                advice.command(see).of(FixKind::ChangePolicy)
            });
            return vec![way.stop_with(StopKind::NoBackend, why, fix, end)];
        }
        let weights: Vec<u64> = active.iter().map(|server| weight(frontend, server)).collect();
        let total: u64 = weights.iter().sum();
        let mut arrivals = Vec::new();
        let share = self.facts.budget.of(netns);
        for (at, (server, weight)) in active.iter().zip(weights).enumerate() {
            if !self.facts.budget.spend(&share, WAY) {
                let mut rest =
                    way.stop(StopKind::Unknown, "there are more servers than are followed");
                rest.more = active.len() - at;
                arrivals.push(rest);
                break;
            }
            let server = Server { to: target(frontend, server, to), ..(*server).clone() };
            let mut way = way.clone();
            #[expect(clippy::cast_precision_loss, reason = "a share to be shown as percent")]
            let share = weight as f64 / total.max(1) as f64;
            way.probability *= share;
            let mut hop = self.frontend_hop(netns, to, frontend);
            hop.kind = HopKind::Dnat;
            hop.endpoint.address = Some(server.to.ip());
            hop.endpoint.port = Some(Port(server.to.port()));
            hop.share = (share < 1.0).then_some(share);
            hop.detail = match share < 1.0 {
                true => hops::percent(share),
                false => "the only backend".to_owned(),
            };
            if let Some(method) = server.method.as_ref().filter(|m| *m != "masq") {
                hop.detail.push_str(&format!(", {method}"));
            }
            way.hops.push(hop);
            arrivals.extend(self.to_server(way, netns, to, frontend, &server, packet));
        }
        arrivals
    }

    /// On to a server: no rule translates it again, but it is routed and filtered.
    fn to_server(
        &self,
        way: ForwardPath,
        netns: NetnsId,
        to: PacketDestination,
        frontend: &Frontend,
        server: &Server,
        packet: Option<&Packet>,
    ) -> Vec<Arrival> {
        let Some(packet) = packet else {
            // A process that connects: as if it had asked for the server itself.
            let to = PacketDestination {
                proto: to.proto,
                address: server.to.ip(),
                port: server.to.port(),
            };
            return self.local_unbalanced(way, netns, to);
        };
        let mut packet = packet.clone();
        packet.original.get_or_insert((to.address, to.port));
        // Cilium gives a pod that gets to itself another address (`IPV4_LOOPBACK`).
        if frontend.balancer == Balancer::Cilium
            && packet.source == PacketSender::Address(server.to.ip())
        {
            packet.source = PacketSender::Elsewhere;
        }
        let Some(route) = self.route(netns, server.to.ip(), packet.mark) else {
            let why = format!("the route to {} is not known", server.to.ip());
            return vec![way.stop(StopKind::Unknown, why)];
        };
        // Servers that are reached by other ways than NAT get the packet as it is.
        let as_it_is = matches!(server.method.as_deref(), Some("route" | "tunnel" | "local"));
        if !as_it_is {
            packet.destination = server.to.ip();
            packet.dport = server.to.port();
        }
        let output = packet.iif.is_none();
        let mut ended = Vec::new();
        if route.kind == RouteKind::Local || server.method.as_deref() == Some("local") {
            if !output {
                return self.deliver(way, packet);
            }
            let going = vec![(way, packet)];
            let going = stage::pass_part(
                self.facts,
                Hook::Output,
                stage::HookPart::BehindIpvs,
                going,
                &mut ended,
            );
            let going = self.looped(going, &mut ended);
            for (way, packet) in stage::pass(self.facts, Hook::Input, going, &mut ended) {
                ended.extend(self.deliver(way, packet));
            }
            return ended;
        }
        let by_ipvs = frontend.balancer == Balancer::Ipvs;
        let from_loopback =
            matches!(packet.source, PacketSender::Address(source) if source.is_loopback());
        if by_ipvs && from_loopback {
            let why = format!(
                "IPVS sends nothing from a loopback address to {}, another machine",
                server.to.ip()
            );
            let fix = Advice::from("connect to another address of this node");
            let fix = Some(fix.of(FixKind::ConnectElsewhere));
            return vec![way.stop_with(StopKind::NoWay, why, fix, End::default())];
        }
        packet.oif = route.oif.map(|index| self.nic(netns, index));
        if by_ipvs {
            packet.iif = None;
            packet.untracked |= !frontend.flags.iter().any(|flag| flag == "conntrack");
        }
        let mut going = vec![(way, packet)];
        if by_ipvs {
            going = stage::pass(self.facts, Hook::Output, going, &mut ended);
        }
        // As it is, it goes to the server all the same.
        let route = if as_it_is && route.gateway.is_none() {
            RouteFound { gateway: Some(server.to.ip()), ..route }
        } else {
            route
        };
        let going = stage::pass(self.facts, Hook::Postrouting, going, &mut ended);
        for (way, packet) in stage::pass(self.facts, Hook::Egress, going, &mut ended) {
            ended.extend(cross::leave(self, way, packet, &route));
        }
        ended
    }

    pub(super) fn frontend_hop(
        &self,
        netns: NetnsId,
        to: PacketDestination,
        frontend: &Frontend,
    ) -> Hop {
        let by = match frontend.balancer {
            Balancer::Ipvs => "IPVS",
            Balancer::Cilium => "Cilium (eBPF)",
        };
        let mut detail = match frontend.kind {
            Some(FrontendKind::ClusterIp) => "cluster IP, ",
            Some(FrontendKind::NodePort) => "NodePort, ",
            Some(FrontendKind::ExternalIp) => "external IP, ",
            Some(FrontendKind::HostPort) => "hostPort, ",
            Some(FrontendKind::LoadBalancer) => "load balancer IP, ",
            Some(FrontendKind::LocalRedirect) => "local redirect, ",
            None => "",
        }
        .to_owned();
        if let Some(name) = &frontend.name {
            detail.push_str(&format!("Service {name}, "));
        }
        detail.push_str(by);
        if let Some(scheduler) = &frontend.scheduler {
            detail.push_str(&format!(", scheduler {scheduler}"));
        }
        if let Some(seconds) = frontend.affinity {
            detail.push_str(&format!(", session affinity for {seconds} s"));
        } else if is_sticky(frontend) {
            detail.push_str(", session affinity");
        }
        if let Some(port) = frontend.proxy_port {
            detail.push_str(&format!(", served by a proxy of Cilium on port {port} (L7)"));
        }
        Hop {
            kind: HopKind::Service,
            netns: Some(self.facts.netns_ref(netns)),
            endpoint: Endpoint { address: Some(to.address), name: None, port: Some(Port(to.port)) },
            proto: to.proto,
            detail,
            socket: None,
            evidence: vec![evidence(frontend)],
            share: None,
        }
    }
}

/// The policy by which Cilium leaves only backends of this node, in words: each of the two is for
/// one scope, and for both where there is one.
fn local_policy(frontend: &Frontend) -> Option<&'static str> {
    let has = |flag: &str| frontend.flags.iter().any(|known| known == flag);
    let (internal, external) = (has("internal-local"), has("local"));
    match (frontend.kind, frontend.scope) {
        _ if frontend.balancer != Balancer::Cilium => None,
        (Some(FrontendKind::ClusterIp), _) | (_, Some(FrontendScope::Internal)) => {
            internal.then_some(dialect::INTERNAL_POLICY)
        }
        _ => external.then_some(dialect::EXTERNAL_POLICY),
    }
}

pub(super) fn evidence(frontend: &Frontend) -> Evidence {
    let source = match frontend.balancer {
        Balancer::Ipvs => EvidenceSource::Ipvs,
        Balancer::Cilium => EvidenceSource::Cilium,
    };
    let to = match (frontend.address, frontend.mark) {
        (_, Some(mark)) => format!("mark {mark:#x}"),
        (Some(address), None) => SocketAddr::new(address, frontend.port).to_string(),
        (None, None) => format!("port {}", frontend.port),
    };
    let id = frontend.id.map_or_else(String::new, |id| format!(", service {id}"));
    let flags = match frontend.flags.as_slice() {
        [] => String::new(),
        flags => format!(", flags {}", flags.join(", ")),
    };
    let backends = match frontend.backends.len() {
        1 => "1 backend".to_owned(),
        n => format!("{n} backends"),
    };
    Evidence::new(source, format!("{to} has {backends}{id}{flags} ({})", frontend.source))
}

fn to_text(to: PacketDestination) -> String {
    format!("{}/{}", SocketAddr::new(to.address, to.port), to.proto)
}

/// How many connections of all a server gets: only some of IPVS's schedulers look at
/// the weights.
fn weight(frontend: &Frontend, server: &Server) -> u64 {
    match frontend.scheduler.as_deref() {
        Some("rr" | "lc" | "dh") => 1,
        // The heaviest gets all, the others nothing as long as it is there.
        Some("fo" | "ovf") => {
            let all = frontend.backends.iter().filter(|b| b.active);
            u64::from(all.map(|b| b.weight).max() == Some(server.weight))
        }
        _ => u64::from(server.weight.unwrap_or(1)),
    }
}

/// Whether IPVS keeps a client at a server.
fn is_sticky(frontend: &Frontend) -> bool {
    frontend.balancer == Balancer::Ipvs && frontend.flags.iter().any(|flag| flag == "persistent")
}

/// Where a server gets its connections: those without a port of their own, and those
/// of a service that takes many ports and keeps clients at a server, keep the port.
fn target(frontend: &Frontend, server: &Server, to: PacketDestination) -> SocketAddr {
    let keeps = frontend.port == 0 && is_sticky(frontend);
    let port = if keeps || server.to.port() == 0 { to.port } else { server.to.port() };
    SocketAddr::new(server.to.ip(), port)
}

/// The name of a service as a balancer tells it: `namespace/name:port`.
fn service(name: &str) -> Option<Service> {
    let (namespace, rest) = name.split_once('/')?;
    let (name, port) = match rest.split_once(':') {
        Some((name, port)) => (name, Some(port.to_owned())),
        None => (rest, None),
    };
    Some(Service { namespace: namespace.to_owned(), name: name.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use whereis_port_model::Proto;

    fn server(to: &str, weight: u32) -> Server {
        Server {
            to: to.parse().unwrap(),
            weight: Some(weight),
            active: weight > 0,
            state: None,
            method: None,
            connections: None,
        }
    }

    fn virtual_server(scheduler: &str, flags: &[&str], backends: Vec<Server>) -> Frontend {
        Frontend {
            netns: NetnsId::Inode(1),
            balancer: Balancer::Ipvs,
            proto: Some(6),
            address: Some([10, 0, 0, 1].into()),
            port: 80,
            mark: None,
            kind: None,
            scope: None,
            scheduler: Some(scheduler.to_owned()),
            affinity: None,
            id: None,
            proxy_port: None,
            sources: None,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            backends,
            name: None,
            source: String::new(),
        }
    }

    #[test]
    fn weights_count_as_the_scheduler_counts_them() {
        let servers =
            || vec![server("10.0.0.2:1", 0), server("10.0.0.3:1", 3), server("10.0.0.4:1", 5)];
        let weights = |scheduler| -> Vec<u64> {
            let all = virtual_server(scheduler, &[], servers());
            all.backends.iter().skip(1).map(|server| weight(&all, server)).collect()
        };
        assert_eq!(weights("rr"), [1, 1]);
        assert_eq!(weights("wlc"), [3, 5]);
        assert_eq!(weights("fo"), [0, 1]);
    }

    #[test]
    fn a_server_keeps_the_port_where_it_has_none_of_its_own() {
        let to = PacketDestination { proto: Proto::Tcp, address: [10, 0, 0, 1].into(), port: 80 };
        let at = |flags: &[&str], port, server_at: &str| {
            let all = Frontend { port, ..virtual_server("rr", flags, Vec::new()) };
            target(&all, &server(server_at, 1), to).port()
        };
        assert_eq!(at(&[], 80, "10.0.0.2:8080"), 8080);
        assert_eq!(at(&[], 0, "10.0.0.2:0"), 80);
        assert_eq!(at(&[], 0, "10.0.0.2:8080"), 8080);
        // It could not tell to which of its ports a client comes back.
        assert_eq!(at(&["persistent"], 0, "10.0.0.2:8080"), 80);
        assert_eq!(at(&["persistent"], 80, "10.0.0.2:8080"), 8080);
    }

    #[test]
    fn a_service_by_mark_is_not_one_by_address() {
        let to = PacketDestination { proto: Proto::Tcp, address: [0, 0, 0, 0].into(), port: 0 };
        let mut marked = virtual_server("rr", &[], Vec::new());
        (marked.address, marked.port, marked.proto) = (Some(to.address), 0, None);
        let takes = |one: &Frontend| {
            let all = Frontends::new(Rc::from(vec![one.clone()]), Balancer::Ipvs);
            all.pick(to, FrontendScope::Internal).is_some()
        };
        assert!(takes(&marked));
        marked.mark = Some(1);
        assert!(!takes(&marked));
    }
}
