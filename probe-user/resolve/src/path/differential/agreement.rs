//! Whether a list has a port exactly when a packet to it is taken.

use std::net::{IpAddr, SocketAddr};

use whereis_port_rules::ports::{self, Here, TakenPorts};
use whereis_port_rules::{Nic, Packet, PacketSender, traverse};

use super::super::{loopback, ruleset};
use super::world::World;
use crate::facts::Facts;
use crate::from_node::{self, FromNode};
use whereis_port_model::{Hook, Proto};

/// Ports inside, outside and at the edges of what the rules name.
const PORTS: [u16; 16] =
    [1, 7, 999, 1000, 1001, 1002, 1003, 1004, 1009, 1010, 1999, 2000, 2500, 2501, 3000, 65535];

/// Compares both for all of these ports, and tells how many were listed.
pub(super) fn check(
    facts: &Facts<'_>,
    world: &World,
    ipv6: bool,
    disagreed: &mut Vec<String>,
) -> usize {
    let netns = world.host.id;
    let here = from_node::here(facts, netns);
    let source = FromNode::new(facts, netns);
    let Some(rules) = ruleset(facts, netns) else { return 0 };
    let found = ports::taken(&source, &rules, &here);
    if facts.budget.is_used_up(&facts.budget.of(netns)) {
        disagreed.push("a list of so few rules takes all steps of a question".to_owned());
    }
    if let Some(rule) = &found.unclear {
        disagreed.push(format!("nothing of these rules is unclear, but {rule}"));
    }
    let is_own = |a: &IpAddr| match a {
        IpAddr::V4(a) => !ipv6 && !a.is_loopback(),
        IpAddr::V6(a) => ipv6 && !a.is_loopback() && !a.is_unicast_link_local(),
    };
    let own = here.addresses.iter().copied().filter(is_own);
    let addresses: Vec<IpAddr> = own.chain([loopback(ipv6)]).collect();
    let mut count = 0;
    for proto in Proto::ALL {
        for port in PORTS {
            for address in &addresses {
                let packets = packets(&here, proto, *address, port);
                let of = |(hook, packet)| traverse(&source, &rules, hook, packet);
                let taken = packets.into_iter().flat_map(of).any(|outcome| {
                    let packet = &outcome.packet;
                    let is_changed = |to| to != (packet.destination, packet.dport);
                    packet.tproxy.is_some() || packet.original.is_some_and(is_changed)
                });
                let listed = is_listed(&found, proto, *address, port);
                count += usize::from(listed);
                // A translation to where it was sent anyway is none, and what is said of
                // all addresses is said of the node's own, not of loopback's.
                let no_news = leads_to(&found, proto, *address, port) || address.is_loopback();
                if taken != listed && !(listed && no_news) {
                    disagreed
                        .push(format!("{address}:{port}/{proto}: taken {taken}, listed {listed}"));
                }
            }
        }
    }
    count
}

/// One to each, by everybody that a list knows of.
fn packets(here: &Here, proto: Proto, to: IpAddr, port: u16) -> Vec<(Hook, Packet)> {
    let packet = |source, iif: Option<Nic>| {
        let mut packet = Packet::new(here.netns, proto, source, SocketAddr::new(to, port));
        packet.oif = iif.is_none().then(|| Nic { index: 1, name: "lo".into() });
        packet.iif = iif;
        packet
    };
    let mut all = vec![(Hook::Output, packet(PacketSender::Address(to), None))];
    let devices = here.devices.iter().filter(|_| !to.is_loopback());
    let from =
        |device: &Nic| (Hook::Prerouting, packet(PacketSender::Elsewhere, Some(device.clone())));
    all.extend(devices.map(from));
    all
}

fn is_listed(found: &TakenPorts, proto: Proto, address: IpAddr, port: u16) -> bool {
    let of = |at: Option<IpAddr>| at.is_none_or(|at| at == address);
    let one = found.ports.iter().any(|t| (t.proto, t.port) == (proto, port) && of(t.address));
    let n = u128::from(port);
    one || found.many.iter().any(|m| m.proto == proto && !m.ports.within(n, n).is_empty())
}

fn leads_to(found: &TakenPorts, proto: Proto, address: IpAddr, port: u16) -> bool {
    let is_it = |t: &&ports::TakenPort| (t.proto, t.port) == (proto, port);
    let many = || found.many.iter().any(|many| many.proto == proto);
    // What is redirected goes to the address of the device that it came in by.
    let to = |t: &ports::TakenPort| {
        [address, loopback(address.is_ipv6())].iter().any(|a| t.targets.contains(&(*a, port)))
    };
    found.ports.iter().filter(is_it).any(to) || many()
}
