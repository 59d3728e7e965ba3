//! What a packet meets on its way that is seen, and not evaluated: programs and filters on the
//! devices that it passes, programs of the cgroups at both ends, rules for the frames in a
//! bridge, and whatever of all this could not be read.
//!
//! It does not change the way that is followed: it makes the way's end unsure
//! ([`Arrival::unsure`](super::Arrival)).

use whereis_port_rules::{Nic, Packet};

use super::{ForwardPath, NetnsDevice, PacketDestination, Walk, ruleset, settings};
use crate::facts::Facts;
use whereis_port_model::{
    Attached, BaseChain, CgroupHook, CgroupOf, DeviceHook, Family, Gap, GapKind, Hook, InTheWay,
    Link, LinkKind, NetnsId, Pid, Proto, Socket,
};

/// What sees packets of this node over a bridge, and answers to them.
const LOCAL: [Hook; 4] = [Hook::Prerouting, Hook::Input, Hook::Output, Hook::Postrouting];
/// How deep devices lie below each other: a bridge on a bond on VLANs.
const DEPTH: usize = 8;
/// How many things on one way are told.
const TOLD: usize = 8;

impl ForwardPath {
    /// Notes something, once.
    fn meet(&mut self, what: InTheWay) {
        if self.unsure.len() < TOLD && !self.unsure.contains(&what) {
            self.unsure.push(what);
        }
    }
}

/// Whether a fact could not be read, though it was asked for: a recording that was made
/// before such facts were read says that for all of them together.
pub(crate) fn is_unread(gaps: &[Gap]) -> bool {
    gaps.iter().any(|gap| gap.source.kind != GapKind::Recording)
}

impl Walk<'_, '_> {
    /// A packet meets the rules of a namespace: perhaps they are not known.
    pub(super) fn rules_unread(&self, way: &mut ForwardPath, netns: NetnsId) {
        let read = self.facts.world.rulesets(&[netns]);
        // A recording without them, as a redacted one, tells no more than who may not read them.
        if !read.gaps.is_empty() {
            way.meet(InTheWay::UnreadRules(self.facts.netns_ref(netns)));
        }
    }

    /// A packet comes into its namespace by a device.
    pub(super) fn comes_in(&self, way: &mut ForwardPath, packet: &Packet) {
        let Some(nic) = &packet.iif else { return };
        for device in self.below(packet.netns, nic.index, self.sender_of(packet)) {
            self.meet_device(way, device, nic.index);
        }
        self.meet_bridge(way, packet.netns, nic, &LOCAL);
        self.meet_in_namespace(way, packet, nic);
    }

    /// What of a namespace meets every packet that comes in by a link, or leaves by one.
    fn meet_in_namespace(&self, way: &mut ForwardPath, packet: &Packet, nic: &Nic) {
        if &*nic.name == "lo" {
            return;
        }
        let netns = packet.netns;
        let place = || self.facts.netns_ref(netns);
        if settings(self.facts, netns).is_some_and(|s| s.ipsec_policies.unwrap_or(0) > 0) {
            way.meet(InTheWay::IpsecPolicies(place()));
        }
        let is_arp = |c: &whereis_port_model::BaseChain| c.id.table.family == Family::Arp;
        let asks = packet.destination.is_ipv4();
        if asks && ruleset(self.facts, netns).is_some_and(|all| all.base_chains.iter().any(is_arp))
        {
            way.meet(InTheWay::ArpRules(place()));
        }
    }

    /// A packet leaves its namespace by a device, for another namespace where that is known.
    pub(super) fn goes_out(&self, way: &mut ForwardPath, packet: &Packet, to: Option<NetnsId>) {
        let Some(nic) = &packet.oif else { return };
        for device in self.below(packet.netns, nic.index, to) {
            self.meet_device(way, device, nic.index);
        }
        self.meet_bridge(way, packet.netns, nic, &LOCAL);
        self.meet_in_namespace(way, packet, nic);
        if let Some(to) = to {
            self.crosses_bridge(way, packet.netns, nic, to);
        }
    }

    /// A bridge of a third namespace joins both.
    fn crosses_bridge(&self, way: &mut ForwardPath, from: NetnsId, nic: &Nic, to: NetnsId) {
        let links = self.facts.links_of(from);
        let out = links.iter().find(|l| l.index == nic.index);
        let peer = out.and_then(|l| Some((l.peer_netns.filter(|host| *host != to)?, l.peer?)));
        let Some((host, index)) = peer else { return };
        let links = self.facts.links_of(host);
        let bridge = links.iter().find(|l| l.index == index).and_then(|l| l.master);
        let Some(bridge) = bridge else { return };
        self.meet_device(way, (host, index), bridge);
        let leads = |l: &&Link| l.master == Some(bridge) && l.peer_netns == Some(to);
        for port in links.iter().filter(leads) {
            self.meet_device(way, (host, port.index), bridge);
        }
        let hooks = [Hook::Prerouting, Hook::Forward, Hook::Postrouting];
        self.meet_bridge(way, host, &self.nic(host, bridge), &hooks);
    }

    /// What is attached at the devices of who sends a packet: it sees that, and the answer.
    pub(super) fn sends(&self, way: &mut ForwardPath, netns: NetnsId) {
        let all = self.attached(way, netns);
        for one in all.iter().filter(|one| !one.is_known() && one.at != DeviceHook::SkLookup) {
            if let Some(index) = one.ifindex {
                let device = self.nic(netns, index).name.to_string();
                way.meet(InTheWay::OnDevice { device, at: one.at, what: one.what.clone() });
            }
        }
    }

    /// A packet goes over the loopback device of its namespace.
    pub(super) fn loops(&self, way: &mut ForwardPath, netns: NetnsId, nic: &Nic) {
        self.meet_attached(way, (netns, nic.index));
    }

    /// A packet gets to the choice of its socket.
    pub(super) fn is_looked_up(&self, way: &mut ForwardPath, netns: NetnsId) {
        for one in self.attached(way, netns).iter().filter(|one| one.ifindex.is_none()) {
            way.meet(InTheWay::OnDevice {
                device: self.facts.netns_ref(netns).to_string(),
                at: one.at,
                what: one.what.clone(),
            });
        }
    }

    /// A process connects: its cgroup's programs, or, of whoever connects, those of all.
    pub(super) fn connects(&self, way: &mut ForwardPath, to: PacketDestination) {
        let of = self.sender.map_or(CgroupOf::ROOT, CgroupOf::Process);
        let ipv6 = to.address.is_ipv6();
        let is_on_it = |at| match at {
            CgroupHook::Ingress | CgroupHook::Egress | CgroupHook::SockCreate => true,
            CgroupHook::Connect4 => !ipv6,
            CgroupHook::Connect6 => ipv6,
            CgroupHook::Sendmsg4 => !ipv6 && to.proto == Proto::Udp,
            CgroupHook::Sendmsg6 => ipv6 && to.proto == Proto::Udp,
            CgroupHook::Bind4
            | CgroupHook::Bind6
            | CgroupHook::PostBind4
            | CgroupHook::PostBind6 => false,
        };
        self.meet_in_cgroup(way, of, is_on_it);
    }

    /// A socket takes a packet, and answers: what its cgroup has to say to both.
    pub(super) fn is_taken_by(&self, way: &mut ForwardPath, socket: &Socket, holder: Option<Pid>) {
        let by_holder = || holder.map(CgroupOf::Process);
        let Some(of) = socket.cgroup_id.map(CgroupOf::Id).or_else(by_holder) else { return };
        let is_on_it = |at| matches!(at, CgroupHook::Ingress | CgroupHook::Egress);
        self.meet_in_cgroup(way, of, is_on_it);
    }

    fn meet_in_cgroup(
        &self,
        way: &mut ForwardPath,
        of: CgroupOf,
        is_on_it: impl Fn(CgroupHook) -> bool,
    ) {
        let read = self.facts.world.cgroup_programs(of);
        if is_unread(&read.gaps) {
            way.meet(InTheWay::UnreadCgroups);
        }
        let all = self.facts.take(read);
        let known = |one: &&whereis_port_model::CgroupProgram| one.program.balancer.is_some();
        for one in all.iter().flat_map(|all| all.iter()).filter(|one| is_on_it(one.at)) {
            if !known(&one) {
                way.meet(InTheWay::OnCgroup(one.clone()));
            }
        }
    }

    /// What is attached in a namespace.
    fn attached(&self, way: &mut ForwardPath, netns: NetnsId) -> std::rc::Rc<[Attached]> {
        let read = self.facts.world.attached(&[netns]);
        if is_unread(&read.gaps) {
            way.meet(InTheWay::UnreadDevices(self.facts.netns_ref(netns)));
        }
        self.facts.take(read)
    }

    /// Notes what meets the frames of a device, of a packet and of the answer to it, where
    /// packets are `seen` at that one or another above it.
    fn meet_device(&self, way: &mut ForwardPath, device: NetnsDevice, seen: u32) {
        self.meet_attached(way, device);
        self.meet_netdev(way, device, seen);
    }

    /// Notes what is attached to a device, in either direction.
    fn meet_attached(&self, way: &mut ForwardPath, (netns, index): NetnsDevice) {
        let all = self.attached(way, netns);
        let is_on_it =
            |one: &&Attached| one.ifindex == Some(index) && one.at != DeviceHook::SkLookup;
        for one in all.iter().filter(is_on_it) {
            if one.is_known() {
                continue;
            }
            let device = self.nic(netns, index).name.to_string();
            way.meet(InTheWay::OnDevice { device, at: one.at, what: one.what.clone() });
        }
    }

    /// Notes rules for the frames of a device below the one that packets are seen at, a port of a
    /// bridge: those of the device itself are evaluated.
    fn meet_netdev(&self, way: &mut ForwardPath, (netns, index): NetnsDevice, seen: u32) {
        let Some(rules) = ruleset(self.facts, netns).filter(|_| index != seen) else { return };
        let nic = self.nic(netns, index);
        let is_its = |chain: &&BaseChain| {
            matches!(chain.hook, Hook::Ingress | Hook::Egress)
                && chain.devices.iter().any(|device| **device == *nic.name)
        };
        if rules.base_chains.iter().filter(is_its).any(|chain| does_something(self.facts, chain)) {
            let netns = self.facts.netns_ref(netns);
            way.meet(InTheWay::BridgeRules { device: nic.name.to_string(), netns });
        }
    }

    /// Notes rules for the frames of a bridge, at hooks that have any.
    fn meet_bridge(&self, way: &mut ForwardPath, netns: NetnsId, nic: &Nic, hooks: &[Hook]) {
        let links = self.facts.links_of(netns);
        let is_it = |l: &Link| l.index == nic.index && l.kind == LinkKind::Bridge;
        if links.iter().any(is_it) && has_bridge_rules(self.facts, netns, hooks) {
            let netns = self.facts.netns_ref(netns);
            way.meet(InTheWay::BridgeRules { device: nic.name.to_string(), netns });
        }
    }

    /// The namespace that a packet came from, where its address tells it.
    fn sender_of(&self, packet: &Packet) -> Option<NetnsId> {
        let whereis_port_rules::PacketSender::Address(address) = packet.source else { return None };
        let all = self.facts.all_addresses();
        let of = all.iter().find(|a| a.address == address && a.netns != packet.netns);
        of.map(|a| a.netns)
    }

    /// A device, and those that its packets pass below it: the ports of a bridge or bond, of
    /// which it is the one that leads to `other`, where that is known, and the device under a
    /// VLAN or macvlan.
    fn below(&self, netns: NetnsId, index: u32, other: Option<NetnsId>) -> Vec<NetnsDevice> {
        let mut all = vec![(netns, index)];
        let mut edge = all.clone();
        for _ in 0..DEPTH {
            let mut next: Vec<NetnsDevice> = Vec::new();
            for (netns, index) in edge {
                let links = self.facts.links_of(netns);
                let Some(link) = links.iter().find(|l| l.index == index) else { continue };
                next.extend(under(link, &links, other));
            }
            next.retain(|device| !all.contains(device));
            next.sort_unstable();
            next.dedup();
            if next.is_empty() {
                break;
            }
            all.extend(&next);
            edge = next;
        }
        all
    }
}

/// The devices right under one.
fn under(link: &Link, links: &[Link], other: Option<NetnsId>) -> Vec<NetnsDevice> {
    let ports: Vec<&Link> = links.iter().filter(|l| l.master == Some(link.index)).collect();
    let of = |ports: Vec<&Link>| ports.iter().map(|l| (l.netns, l.index)).collect();
    if link.kind == LinkKind::Bridge {
        let leads: Vec<&Link> =
            ports.iter().copied().filter(|l| other.is_some() && l.peer_netns == other).collect();
        if !leads.is_empty() {
            return of(leads);
        }
        // From outside: not by those that lead to a namespace of this node.
        let outer: Vec<&Link> =
            ports.iter().copied().filter(|l| other.is_none() && l.peer_netns.is_none()).collect();
        return of(if outer.is_empty() { ports } else { outer });
    }
    if !ports.is_empty() {
        return of(ports);
    }
    match (&link.kind, link.peer) {
        // The other end is no device below.
        (LinkKind::Veth, _) | (_, None) => Vec::new(),
        (LinkKind::Other(kind), _) if kind == "netkit" => Vec::new(),
        (_, Some(index)) => vec![(link.peer_netns.unwrap_or(link.netns), index)],
    }
}

/// Whether a namespace has rules for frames in bridges, at these hooks.
fn has_bridge_rules(facts: &Facts<'_>, netns: NetnsId, hooks: &[Hook]) -> bool {
    let Some(rules) = ruleset(facts, netns) else { return false };
    let mut chains = rules
        .base_chains
        .iter()
        .filter(|c| c.id.table.family == Family::Bridge && hooks.contains(&c.hook));
    chains.any(|chain| does_something(facts, chain))
}

/// Whether a chain may do anything: an empty one that lets all pass does not.
fn does_something(facts: &Facts<'_>, chain: &BaseChain) -> bool {
    let rules = facts.take(facts.world.chain(&chain.id));
    !chain.accepts || rules.is_none_or(|rules| !rules.is_empty())
}
