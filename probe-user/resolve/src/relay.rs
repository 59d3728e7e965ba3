//! Where forwarders lead whose arguments do not say it all: by the namespaces that they hold,
//! what they answer at a socket of their own, and what a daemon of their user publishes.

use std::net::IpAddr;

use super::facts::Facts;
use super::published;
use super::walk;
use whereis_port_model::forward::{self, Forward, ForwardTarget};
use whereis_port_model::{
    Endpoint, Evidence, EvidenceSource, Forwarded, LOOPBACK4, NetnsId, Port, Process, Proto, Relay,
    Socket, Teller,
};

/// The address that podman gives a container behind slirp4netns, where it can't be read
/// (`slirp4netns(1)`: 10.0.2.100).
const SLIRP_GUEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 2, 100));

/// Where a listener of a forwarder leads.
#[derive(Debug, Clone)]
pub(super) struct Lead {
    pub(super) place: NetnsId,
    /// The address and port there; `None` where nobody says the port.
    pub(super) to: Option<(IpAddr, Port)>,
    pub(super) proto: Proto,
    pub(super) evidence: Vec<Evidence>,
}

impl Lead {
    pub(super) fn endpoint(&self) -> Endpoint {
        let (address, port) = self.to.unzip();
        Endpoint { address, name: None, port }
    }
}

/// Where a listener leads, as far as its forwarder shows it in another way than by arguments.
pub(super) fn of(
    facts: &Facts<'_>,
    socket: &Socket,
    process: &Process,
    forward: &Forward,
) -> Option<Lead> {
    let is = |kind: &str| forward.kind == kind;
    let relay = || facts.take(facts.world.relay(process.pid));
    match &forward.target {
        ForwardTarget::InNetns(_, address, port, proto) if is(forward::PASTA) => {
            let (place, evidence) = held(socket, process, &relay())?;
            let to = Some((address.unwrap_or(LOOPBACK4), *port));
            Some(Lead { place, to, proto: *proto, evidence: vec![evidence] })
        }
        ForwardTarget::Unsaid(_) if is(forward::ROOTLESSPORT) => {
            let relay = relay();
            let (place, evidence) = held(socket, process, &relay)?;
            let published = relay.containers.iter().find_map(|container| {
                let port = container.ports.iter().find(|p| published::publishes(p, socket))?;
                Some((container, port))
            });
            let mut evidence = vec![evidence];
            let to = published.map(|(container, port)| {
                evidence.push(published::evidence(container, port));
                let own = facts.addresses_of(place);
                let has = |address: &IpAddr| own.iter().any(|a| a.address == *address);
                let said = container.networks.iter().flat_map(|n| n.addresses.iter().copied());
                let outer = own.iter().map(|a| a.address).filter(|a| !a.is_loopback());
                let address = said.filter(has).chain(outer).min_by_key(IpAddr::is_ipv6);
                (address.unwrap_or(SLIRP_GUEST), port.container_port)
            });
            Some(Lead { place, to, proto: socket.proto, evidence })
        }
        ForwardTarget::Unsaid(_) if is(forward::ROOTLESSKIT) => {
            let relay = relay();
            let (place, evidence) = held(socket, process, &relay)?;
            Some(by_api(socket, process, &relay, place, vec![evidence]))
        }
        ForwardTarget::Unsaid(_) if is(forward::SLIRP4NETNS) => {
            let path = forward::slirp_netns(&process.cmdline)?;
            let place = walk::named_netns(facts, process, &path)?;
            Some(by_api(socket, process, &relay(), place, Vec::new()))
        }
        _ => None,
    }
}

/// The only namespace that a forwarder holds besides those that its listener and it are in.
fn held(socket: &Socket, process: &Process, relay: &Relay) -> Option<(NetnsId, Evidence)> {
    let mut others = relay.netns.iter().filter(|netns| **netns != socket.netns);
    let (place, more) = (*others.next()?, others.next());
    if more.is_some() {
        return None;
    }
    let detail = format!("pid {} or a child of it is in netns {place}, or holds it", process.pid);
    Some((place, Evidence::new(EvidenceSource::Process, detail)))
}

/// What the forwarder's API says of the listener.
fn by_api(
    socket: &Socket,
    process: &Process,
    relay: &Relay,
    place: NetnsId,
    mut evidence: Vec<Evidence>,
) -> Lead {
    let is_it = |one: &&Forwarded| {
        let any = one.host_ip.is_none_or(|ip| ip.is_unspecified());
        one.proto == socket.proto
            && one.host_port == socket.port
            && (any && socket.is_wildcard() || one.host_ip == Some(socket.effective_address()))
    };
    let found = relay.forwards.iter().find(is_it);
    let to = found.map(|one| {
        let path = relay.socket.as_deref().unwrap_or_default();
        let to = std::net::SocketAddr::new(one.to.unwrap_or(LOOPBACK4), one.to_port.0);
        let detail = format!("pid {} at {path}: port {} to {to}", process.pid, one.host_port);
        evidence.push(Evidence::new(EvidenceSource::Told(Teller::Forwarder), detail));
        (to.ip(), one.to_port)
    });
    Lead { place, to, proto: socket.proto, evidence }
}
