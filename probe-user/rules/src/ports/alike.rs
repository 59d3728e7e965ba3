//! Which ports and addresses the rules of a namespace treat in the same way.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Here, PortSearch, is_taken, target};
use crate::model::{BaseChain, Hook, Proto, Ruleset};
use crate::wide::{Ranges, Wide, numbered};
use crate::{Fate, Nic, Outcome, Packet, RuleSource, nat, traverse};

/// A part of all packets to the ports of a namespace, and what its first hook does to them.
#[derive(Debug, Clone)]
pub struct PacketClass {
    /// The hook: prerouting for packets of others, output for those of its own processes.
    pub pass: Hook,
    /// The protocol.
    pub proto: Proto,
    /// Whether it is IPv6.
    pub ipv6: bool,
    /// The ports that they were sent to.
    pub ports: Ranges,
    /// The addresses that they were sent to, as numbers.
    pub addresses: Ranges,
    /// The indices of the devices that they may have come in by; none at output.
    pub devices: Vec<u32>,
    /// What becomes of them.
    pub outcome: Outcome,
}

impl PacketClass {
    /// Where a packet to one of its ports goes, if rules send it elsewhere.
    pub fn target(&self, port: u16) -> Option<(IpAddr, u16)> {
        let packet = &self.outcome.packet;
        let wide = packet.wide.as_ref()?;
        is_taken(&self.outcome).then(|| target(packet, wide, port))
    }
}

/// What the first hook does to packets to every port of a namespace's addresses; `None` where
/// that can't be told of all of them.
pub fn pieces(source: &dyn RuleSource, ruleset: &Ruleset, here: &Here) -> Option<Vec<PacketClass>> {
    let mut all = Vec::new();
    let found = super::TakenPorts::default();
    let ports = (1, u16::MAX);
    let kept = std::collections::BTreeMap::new();
    let search = PortSearch { source, ruleset, here, ports, kept, found };
    for ipv6 in [false, true] {
        let takes = |chain: &BaseChain| chain.id.table.family.takes(ipv6);
        if !ruleset.base_chains.iter().any(takes) {
            continue;
        }
        for proto in Proto::ALL {
            for (pass, packet) in search.first_packets(proto, ipv6) {
                for outcome in traverse(source, ruleset, pass, packet) {
                    if matches!(outcome.fate, Fate::NotModelled | Fate::Unknown) {
                        return None;
                    }
                    let wide = Arc::clone(outcome.packet.wide.as_ref()?);
                    all.push(PacketClass {
                        pass,
                        proto,
                        ipv6,
                        ports: wide.ports.clone(),
                        addresses: wide.addresses.clone(),
                        devices: wide.devices.iter().map(|nic| nic.index).collect(),
                        outcome,
                    });
                }
            }
        }
    }
    Some(all)
}

/// What a hook does to a packet to some other addresses that comes in by any of some devices:
/// each outcome with the addresses that it holds for; `None` where that can't be told.
pub fn at_addresses(
    source: &dyn RuleSource,
    ruleset: &Ruleset,
    hook: Hook,
    packet: &Packet,
    (devices, addresses): (&[Nic], &[IpAddr]),
) -> Option<Vec<(Ranges, Outcome)>> {
    let mut wide = packet.clone();
    wide.wide = Some(Arc::new(Wide {
        ports: Ranges::ports([(packet.dport, packet.dport)]),
        addresses: numbered(addresses),
        devices: devices.into(),
        same_port: true,
        same_address: true,
        from_itself: false,
        tproxy_port: false,
    }));
    let wide = wide.with_addresses(numbered(addresses));
    let mut all = Vec::new();
    for outcome in traverse(source, ruleset, hook, wide) {
        if matches!(outcome.fate, Fate::NotModelled | Fate::Unknown) {
            return None;
        }
        let addresses = outcome.packet.wide.as_ref()?.addresses.clone();
        all.push((addresses, outcome));
    }
    Some(all)
}

/// Whether an address is among numbers.
pub fn has(numbers: &Ranges, address: IpAddr) -> bool {
    let number = nat::number(address);
    !numbers.within(number, number).is_empty()
}
