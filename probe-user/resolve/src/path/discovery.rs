//! Whether an IPv6 address is found on a link: neighbour discovery is ICMPv6, and passes the
//! rules of who asks and of who answers. Those of them that let through TCP alone cut IPv6 off.

use std::net::{IpAddr, Ipv6Addr};

use whereis_port_rules::{Discovery, Fate, Packet, PacketSender};

use super::neighbours::is_known;
use super::senders::is_macvlan;
use super::stage::HookPart;
use super::{Arrival, ForwardPath, NetnsDevice, StopKind, Walk, hops, stage};
use whereis_port_model::{Advice, End, FixKind, Hook, LinkKind};

impl Walk<'_, '_> {
    /// Where a packet leaves a namespace by a device, for an address that another device has:
    /// that this is surely not found.
    pub(super) fn undiscovered(
        &self,
        way: &ForwardPath,
        asker: NetnsDevice,
        holder: NetnsDevice,
        address: IpAddr,
    ) -> Option<Arrival> {
        let IpAddr::V6(address) = address else { return None };
        if !self.discovers(asker) || !self.discovers(holder) {
            return None;
        }
        if is_known(self.neighbour_state(asker, address.into())) {
            return None;
        }
        let asks = self.own_address(asker)?;
        let (source, target) =
            (PacketSender::Address(asks.into()), PacketSender::Address(address.into()));
        let question = |netns| {
            let group = IpAddr::V6(group_of(address));
            Packet::discovery(netns, Discovery::Solicitation, source, group)
        };
        let answer =
            |netns| Packet::discovery(netns, Discovery::Advertisement, target, asks.into());
        let dropped = self
            .drops(question(asker.0), Hook::Output, asker)
            .or_else(|| self.drops(question(holder.0), Hook::Input, holder))
            .or_else(|| self.drops(answer(holder.0), Hook::Output, holder))
            .or_else(|| self.drops(answer(asker.0), Hook::Input, asker))?;
        Some(stopped(way, address, &dropped))
    }

    /// The same of somebody elsewhere, who comes in by a device.
    pub(super) fn undiscovered_from_outside(
        &self,
        way: &ForwardPath,
        holder: NetnsDevice,
        address: IpAddr,
    ) -> Option<Arrival> {
        let IpAddr::V6(address) = address else { return None };
        if !self.discovers(holder) {
            return None;
        }
        let group = IpAddr::V6(group_of(address));
        let question =
            Packet::discovery(holder.0, Discovery::Solicitation, PacketSender::Elsewhere, group);
        let dropped = self.drops(question, Hook::Input, holder)?;
        Some(stopped(way, address, &dropped))
    }

    /// Whether who is on a device's link is looked for by neighbour discovery.
    fn discovers(&self, (netns, device): NetnsDevice) -> bool {
        let links = self.facts.links_of(netns);
        let link = links.iter().find(|link| link.index == device);
        link.is_some_and(|link| match &link.kind {
            LinkKind::Bridge | LinkKind::Veth | LinkKind::Device => true,
            _ => is_macvlan(link),
        })
    }

    /// An address of a device from which it asks.
    fn own_address(&self, (netns, device): NetnsDevice) -> Option<Ipv6Addr> {
        let all = self.facts.addresses_of(netns);
        all.iter().filter(|a| a.ifindex == device).find_map(|a| match a.address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        })
    }

    /// The rule that surely drops a message as it comes in or goes out.
    fn drops(
        &self,
        mut message: Packet,
        hook: Hook,
        (netns, device): NetnsDevice,
    ) -> Option<String> {
        let nic = Some(self.nic(netns, device));
        let hooks = if hook == Hook::Input {
            message.iif = nic;
            [Hook::Prerouting, Hook::Input]
        } else {
            message.oif = nic;
            [Hook::Output, Hook::Postrouting]
        };
        hooks.into_iter().find_map(|hook| {
            let outcomes = stage::outcomes(self.facts, hook, HookPart::All, &message)?;
            let stops = |fate| matches!(fate, Fate::Dropped | Fate::Rejected(_));
            let sure = outcomes.iter().all(|one| stops(one.fate) && one.depends.is_empty());
            outcomes.first().filter(|_| sure).map(hops::deciding_rule)
        })
    }
}

fn stopped(way: &ForwardPath, address: Ipv6Addr, rule: &str) -> Arrival {
    let why = format!(
        "nobody on the link finds {address}: neighbour discovery (ICMPv6) is dropped by {rule}"
    );
    let fix = Advice::from("let ICMPv6 through, at least its types 133 to 136").of(FixKind::Other);
    way.clone().stop_with(StopKind::NoNeighbour, why, Some(fix), End::default())
}

/// The group that is asked for an address (`ff02::1:ff00:0/104`, RFC 4291).
fn group_of(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}
