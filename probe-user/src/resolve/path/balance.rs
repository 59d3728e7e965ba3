//! Load balancers that are no rules: where they stand in a packet's way.
//!
//! Cilium rewrites a connect() of a local process before there is any packet, and a
//! packet from outside at the device, before netfilter. IPVS takes what netfilter's
//! INPUT let through, and what a local process sends at OUTPUT.

use std::net::IpAddr;

use super::super::rules::Packet;
use super::{Arrival, StopKind, To, Walk, Way, cross, hops, stage};
use crate::model::{
    Balancer, End, Endpoint, Evidence, Frontend, FrontendKind, FrontendScope, Hook, Hop, HopKind,
    NetnsId, Port, RouteKind, Server, Service,
};

impl Walk<'_, '_> {
    fn frontends(&self, netns: NetnsId, balancer: Balancer) -> Vec<Frontend> {
        let all = self.facts.take(self.facts.node.frontends(&[netns]));
        all.into_iter().filter(|f| f.balancer == balancer).collect()
    }

    /// Cilium at connect(): the exact address, else the entry that stands for every
    /// address of the node.
    pub(super) fn socket_balanced(
        &self,
        way: &Way,
        netns: NetnsId,
        to: To,
    ) -> Option<Vec<Arrival>> {
        let all = self.frontends(netns, Balancer::Cilium);
        let exact = || pick(&all, to, FrontendScope::Internal);
        let wildcard = || {
            let any = if to.address.is_ipv6() {
                IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
            } else {
                IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
            };
            let local = self.route(netns, to.address, 0)?.kind == RouteKind::Local;
            let of_node = |f: &&Frontend| {
                matches!(f.kind, Some(FrontendKind::NodePort | FrontendKind::HostPort))
            };
            pick(&all, To { address: any, ..to }, FrontendScope::Internal)
                .filter(|f| local && of_node(f))
        };
        let frontend = exact().or_else(wildcard)?;
        Some(self.balanced(way, netns, to, frontend, None))
    }

    /// Cilium at the device: only the exact address.
    pub(super) fn device_balanced(&self, way: &Way, packet: &Packet) -> Option<Vec<Arrival>> {
        let all = self.frontends(packet.netns, Balancer::Cilium);
        let to = To { proto: packet.proto, address: packet.destination, port: packet.dport };
        let frontend = pick(&all, to, FrontendScope::External)?;
        Some(self.balanced(way, packet.netns, to, frontend, Some(packet)))
    }

    /// IPVS: by address and port, or by mark.
    pub(super) fn virtual_server(&self, way: &Way, packet: &Packet) -> Option<Vec<Arrival>> {
        let all = self.frontends(packet.netns, Balancer::Ipvs);
        let to = To { proto: packet.proto, address: packet.destination, port: packet.dport };
        let marked = || all.iter().find(|f| f.mark.is_some_and(|mark| mark == packet.mark));
        let frontend = pick(&all, to, FrontendScope::Internal).or_else(marked)?;
        Some(self.balanced(way, packet.netns, to, frontend, Some(packet)))
    }

    /// One way for each server that takes new connections.
    fn balanced(
        &self,
        way: &Way,
        netns: NetnsId,
        to: To,
        frontend: &Frontend,
        packet: Option<&Packet>,
    ) -> Vec<Arrival> {
        let mut way = way.clone();
        way.hops.push(self.frontend_hop(netns, to, frontend));
        way.service = frontend.name.as_deref().and_then(service).or(way.service);
        if let Some(port) = frontend.proxy_port {
            way.notes.push(format!("a proxy of Cilium on port {port} serves it (L7)"));
        }
        if let Some(seconds) = frontend.affinity {
            way.notes.push(format!("session affinity for {seconds} s"));
        }
        let active: Vec<&Server> = frontend.backends.iter().filter(|b| b.active).collect();
        if active.is_empty() {
            let what = frontend.name.clone().unwrap_or_else(|| to_text(to));
            let why = match frontend.backends.len() {
                0 => format!("service {what} has no backends"),
                n => format!("none of the {n} backends of service {what} takes new connections"),
            };
            let mut end = End::default();
            end.evidence.push(evidence(frontend));
            return vec![way.stop_with(StopKind::NoBackend, why, None, end)];
        }
        let total: f64 = active.iter().map(|b| f64::from(b.weight.unwrap_or(1))).sum();
        let mut arrivals = Vec::new();
        for server in &active {
            let mut way = way.clone();
            let share = f64::from(server.weight.unwrap_or(1)) / total.max(1.0);
            way.probability *= share;
            let mut hop = self.frontend_hop(netns, to, frontend);
            hop.kind = HopKind::Dnat;
            hop.endpoint.address = Some(server.to.ip());
            let port = if server.to.port() == 0 { to.port } else { server.to.port() };
            hop.endpoint.port = Some(Port(port));
            hop.detail = match share < 1.0 {
                true => hops::percent(share),
                false => "the only backend".to_owned(),
            };
            if let Some(method) = server.method.as_ref().filter(|m| *m != "masq") {
                hop.detail.push_str(&format!(", {method}"));
            }
            way.hops.push(hop);
            arrivals.extend(self.to_server(way, netns, to, server, packet));
        }
        arrivals
    }

    /// On to a server: no rule translates it again, but it is routed and filtered.
    fn to_server(
        &self,
        way: Way,
        netns: NetnsId,
        to: To,
        server: &Server,
        packet: Option<&Packet>,
    ) -> Vec<Arrival> {
        let port = if server.to.port() == 0 { to.port } else { server.to.port() };
        let Some(packet) = packet else {
            // A process that connects: as if it had asked for the server itself.
            let to = To { proto: to.proto, address: server.to.ip(), port };
            return self.local_unbalanced(way, netns, to);
        };
        let mut packet = packet.clone();
        packet.destination = server.to.ip();
        packet.dport = port;
        packet.original.get_or_insert((to.address, to.port));
        let Some(route) = self.route(netns, packet.destination, packet.mark) else {
            let why = format!("the route to {} is not known", packet.destination);
            return vec![way.stop(StopKind::Unknown, why)];
        };
        if route.kind == RouteKind::Local {
            return self.deliver(way, packet);
        }
        packet.oif = route.oif.map(|index| self.nic(netns, index));
        let mut ended = Vec::new();
        let going = vec![(way, packet)];
        for (way, packet) in stage::pass(self.facts, Hook::Postrouting, going, &mut ended) {
            ended.extend(cross::leave(self, way, packet, &route));
        }
        ended
    }

    fn frontend_hop(&self, netns: NetnsId, to: To, frontend: &Frontend) -> Hop {
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
        Hop {
            kind: HopKind::Service,
            netns: Some(self.facts.netns_ref(netns)),
            endpoint: Endpoint { address: Some(to.address), name: None, port: Some(Port(to.port)) },
            proto: to.proto,
            detail,
            socket: None,
            evidence: vec![evidence(frontend)],
        }
    }
}

fn evidence(frontend: &Frontend) -> Evidence {
    let source = match frontend.balancer {
        Balancer::Ipvs => "IPVS",
        Balancer::Cilium => "Cilium's maps",
    };
    let to = match (frontend.address, frontend.mark) {
        (Some(address), _) => std::net::SocketAddr::new(address, frontend.port).to_string(),
        (None, Some(mark)) => format!("mark {mark}"),
        (None, None) => format!("port {}", frontend.port),
    };
    let id = frontend.id.map_or_else(String::new, |id| format!(", service {id}"));
    Evidence::new(
        source,
        format!("{to} has {} backends{id} ({})", frontend.backends.len(), frontend.source),
    )
}

fn to_text(to: To) -> String {
    format!("{}/{}", std::net::SocketAddr::new(to.address, to.port), to.proto)
}

/// The frontend that takes a connection, that of the right scope first.
fn pick(all: &[Frontend], to: To, scope: FrontendScope) -> Option<&Frontend> {
    // A service of IPVS without a port takes all ports that no other one takes.
    let exact = |f: &&Frontend| f.port == to.port;
    let any = |f: &&Frontend| f.port == 0 && f.balancer == Balancer::Ipvs;
    let takes = |f: &&Frontend| {
        f.address == Some(to.address)
            && (exact(f) || any(f))
            && f.proto.is_none_or(|proto| proto == to.proto.number())
    };
    let mut fits: Vec<&Frontend> = all.iter().filter(takes).collect();
    fits.sort_by_key(|f| !exact(f));
    let scoped = fits.iter().find(|f| f.scope == Some(scope));
    scoped.or_else(|| fits.iter().find(|f| f.scope.is_none())).copied()
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
