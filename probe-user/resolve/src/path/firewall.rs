//! What a firewall would do with a packet that is for a namespace itself.

use std::net::SocketAddr;

use whereis_port_rules::{Fate, Nic, Packet, PacketSender};

use super::stage::{self, HookPart};
use super::{PacketDestination, hops};
use crate::facts::Facts;
use whereis_port_model::{Hook, NetnsId};

/// Whether the chains of INPUT let a packet pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// They do, whoever sends it.
    Passes,
    /// They stop it, whoever sends it; by which rule, in words.
    Stopped(String),
    /// It depends on who sends it, or is not known.
    Depends,
}

/// What becomes at INPUT of a packet of another machine that comes in by a device, where no rule
/// translates it before.
pub(crate) fn admission(
    facts: &Facts<'_>,
    netns: NetnsId,
    nic: &Nic,
    to: PacketDestination,
) -> Admission {
    let destination = SocketAddr::new(to.address, to.port);
    let mut packet = Packet::new(netns, to.proto, PacketSender::Elsewhere, destination);
    packet.iif = Some(nic.clone());
    packet.original = Some((to.address, to.port));
    let Some(outcomes) = stage::outcomes(facts, Hook::Input, HookPart::All, &packet) else {
        return Admission::Passes;
    };
    let stops = |fate: Fate| matches!(fate, Fate::Dropped | Fate::Rejected(_));
    match outcomes.first() {
        Some(first) if outcomes.iter().all(|one| stops(one.fate)) => {
            let what = if first.fate == Fate::Dropped { "dropped" } else { "refused" };
            Admission::Stopped(format!("{what} by {}", hops::deciding_rule(first)))
        }
        _ if outcomes.iter().all(|one| one.fate == Fate::Passes) => Admission::Passes,
        _ => Admission::Depends,
    }
}
