//! Who is on a link: whether an address that a packet leaves for is anybody's.
//!
//! The ports of a bridge, and both ends of a device pair, lead to namespaces that are seen. When
//! all do, and no more is joined to them, the link has no other members: an address that none
//! of these takes is nobody's.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;

use whereis_port_rules::route::covers;

use super::in_the_way::is_unread;
use super::senders::is_macvlan;
use super::{NetnsDevice, Walk, settings};
use whereis_port_model::{
    Advice, Command, FixKind, HardwareAddress, InputFound, InputQuery, Link, LinkKind, Neighbour,
    NeighbourState, NetnsId, RouteKind,
};

/// How many devices of one link are looked at.
const DEVICES: usize = 4096;

/// Who answers for an address on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Neighbours {
    /// These namespaces, by these devices.
    At(Vec<NetnsDevice>),
    /// A namespace has it, and does not answer for it by this device: the mode of `arp_ignore`.
    Silent(NetnsId, u8),
    /// A namespace has it, and its reverse path filter drops the question.
    Filtered(NetnsId),
    /// A namespace has it, and answers nobody who asks by this device, which does no ARP.
    Deaf(NetnsDevice),
    /// It is sent to this hardware address, which none on the link has: it is set, or else the
    /// device's own, since it asks nobody.
    Misdirected(HardwareAddress),
    /// All that are on the link are seen, and none has it.
    Nobody,
    /// The same, but somebody is noted to have answered, or is set to be there.
    Stranger,
    /// It can't be told. Nobody did when it was last looked for, perhaps.
    Unknown {
        /// Whether the kernel has noted that.
        unanswered: bool,
    },
}

/// The devices with which a link ends elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    seen: Rc<[NetnsDevice]>,
    /// Whether these are all.
    whole: bool,
}

impl Walk<'_, '_> {
    /// Who answers for an address on the link of a device.
    pub(super) fn neighbours(&self, device: NetnsDevice, address: IpAddr) -> Neighbours {
        let memo = &self.facts.memo.neighbours;
        if let Some(known) = memo.borrow().get(&(device, address)) {
            return known.clone();
        }
        let found = self.find_neighbours(device, address);
        memo.borrow_mut().insert((device, address), found.clone());
        found
    }

    /// What the kernel has noted of an address on the link of a device.
    pub(super) fn neighbour_state(
        &self,
        device: NetnsDevice,
        address: IpAddr,
    ) -> Option<NeighbourState> {
        self.neighbour(device, address).map(|n| n.state)
    }

    fn neighbour(&self, (netns, index): NetnsDevice, address: IpAddr) -> Option<Neighbour> {
        let known = self.facts.take(self.facts.world.neighbours(&[netns]));
        known.iter().find(|n| n.ifindex == index && n.address == address).cloned()
    }

    /// The hardware address that packets for an address are sent to whoever has it: that which is
    /// set, and that of a device which asks nobody (`arp_constructor()`, `ndisc_constructor()`).
    fn sent_to(&self, device: NetnsDevice, address: IpAddr) -> Option<HardwareAddress> {
        let is_set = |n: &Neighbour| n.state == NeighbourState::Set;
        match self.neighbour(device, address).filter(is_set) {
            Some(set) => set.hardware,
            None => {
                let links = self.facts.links_of(device.0);
                let link = links.iter().find(|link| link.index == device.1)?;
                link.hardware.filter(|_| link.noarp)
            }
        }
    }

    fn hardware(&self, (netns, index): NetnsDevice) -> Option<HardwareAddress> {
        let links = self.facts.links_of(netns);
        links.iter().find(|link| link.index == index)?.hardware
    }

    /// The hardware address that packets for an address are sent to, where it is not that of the
    /// device at the other end.
    pub(super) fn misses(
        &self,
        device: NetnsDevice,
        address: IpAddr,
        end: NetnsDevice,
    ) -> Option<HardwareAddress> {
        let to = self.sent_to(device, address)?;
        let own = self.hardware(end)?;
        (own != to).then_some(to)
    }

    /// Whether a namespace has neighbours that are set, or devices that ask for none.
    pub(super) fn may_misdirect(&self, netns: NetnsId) -> bool {
        let known = self.facts.take(self.facts.world.neighbours(&[netns]));
        known.iter().any(|n| n.state == NeighbourState::Set)
            || self.facts.links_of(netns).iter().any(|link| link.noarp)
    }

    /// Why what is sent to a hardware address gets to nobody, and what helps.
    pub(super) fn misdirected(
        &self,
        (netns, index): NetnsDevice,
        address: IpAddr,
        to: HardwareAddress,
    ) -> (String, Option<Advice>) {
        let device = self.nic(netns, index).name;
        // Where nobody has the address, it is not found either when it is looked for.
        let ends = self.ends_of_link((netns, index), address.is_ipv6());
        let has = |end: &NetnsDevice| {
            self.facts.addresses_of(end.0).iter().any(|one| one.address == address)
        };
        let helps = netns == self.facts.host.own_netns
            && ends.is_some_and(|ends| ends.seen.iter().any(has));
        let is_set = self.neighbour_state((netns, index), address) == Some(NeighbourState::Set);
        let (why, command) = if is_set && self.hardware((netns, index)) != Some(to) {
            let why = format!(
                "what is for {address} is sent to {to}, which nobody on {device} has: so it is set in `ip neigh`"
            );
            let delete = Command::new("ip neigh del").arg(address.to_string());
            (why, delete.args("dev").name(&*device))
        } else {
            let why = format!(
                "{device} asks nobody who has {address} (`arp off`), and it is not set in `ip neigh`"
            );
            (why, Command::new("ip link set").name(&*device).args("arp on"))
        };
        let advice = Advice::from("look for it again: ").command(command).of(FixKind::Other);
        (why, helps.then_some(advice))
    }

    fn find_neighbours(&self, device: NetnsDevice, address: IpAddr) -> Neighbours {
        let state = self.neighbour_state(device, address);
        let unknown = Neighbours::Unknown { unanswered: state == Some(NeighbourState::Unanswered) };
        let ipv6 = address.is_ipv6();
        let Some(Ends { seen: ends, whole: true }) = self.ends_of_link(device, ipv6) else {
            return unknown;
        };
        // Whose address it is answers; with IPv6 only by the device that has it.
        let has = |end: &NetnsDevice| {
            let all = self.facts.addresses_of(end.0);
            all.iter().any(|a| a.address == address && (!ipv6 || a.ifindex == end.1))
        };
        // What is set is not asked for, and leads wherever it is set to.
        if let Some(hardware) = self.sent_to(device, address) {
            let own: Vec<_> = ends.iter().map(|end| (*end, self.hardware(*end))).collect();
            let at: Vec<NetnsDevice> =
                own.iter().filter(|(_, own)| *own == Some(hardware)).map(|(end, _)| *end).collect();
            if !at.is_empty() {
                return Neighbours::At(at);
            }
            // Recordings may not tell.
            if own.iter().all(|(_, own)| own.is_some()) {
                return Neighbours::Misdirected(hardware);
            }
        }
        let at: Vec<NetnsDevice> = ends.iter().copied().filter(has).collect();
        // Who is known already is not asked.
        let is_asked = !is_known(state);
        let (silent, at): (Vec<NetnsDevice>, Vec<NetnsDevice>) =
            at.into_iter().partition(|end| is_asked && self.ignores(*end, address).is_some());
        let (filtered, at): (Vec<NetnsDevice>, Vec<NetnsDevice>) = at
            .into_iter()
            .partition(|end| is_asked && self.filters_question(*end, device, address));
        let (deaf, at): (Vec<NetnsDevice>, Vec<NetnsDevice>) =
            at.into_iter().partition(|end| is_asked && !ipv6 && self.does_no_arp(*end));
        if !at.is_empty() {
            return Neighbours::At(at);
        }
        if let Some(end) = deaf.first() {
            return Neighbours::Deaf(*end);
        }
        if let Some((netns, _)) = filtered.first() {
            return Neighbours::Filtered(*netns);
        }
        if let Some((end, mode)) =
            silent.iter().find_map(|end| Some((end, self.ignores(*end, address)?)))
        {
            return Neighbours::Silent(end.0, mode);
        }
        // All at once, for there may be hundreds.
        let ids: Vec<NetnsId> = ends.iter().map(|end| end.0).collect();
        let (_, _, _) = (
            self.facts.world.local_routes(&ids),
            self.facts.world.settings(&ids),
            self.facts.world.neighbours(&ids),
        );
        let mut at = Vec::new();
        for end in ends.iter().copied() {
            if super::local_route(self.facts, end.0, address).is_some() {
                at.push(end);
                continue;
            }
            match self.answers_for_others(end, device, address) {
                Some(true) => at.push(end),
                Some(false) => {}
                None => return unknown,
            }
        }
        match state {
            _ if !at.is_empty() => Neighbours::At(at),
            _ if is_known(state) => Neighbours::Stranger,
            _ => Neighbours::Nobody,
        }
    }

    fn does_no_arp(&self, (netns, index): NetnsDevice) -> bool {
        self.facts.links_of(netns).iter().any(|link| link.index == index && link.noarp)
    }

    /// The mode of `arp_ignore` by which a namespace does not answer for its address by a device
    /// (`arp_ignore()` of `net/ipv4/arp.c`).
    fn ignores(&self, (netns, index): NetnsDevice, address: IpAddr) -> Option<u8> {
        if address.is_ipv6() {
            return None;
        }
        let device = self.nic(netns, index).name;
        let modes = settings(self.facts, netns)?.arp_ignore?;
        let mode = modes.iter().find(|one| *one.device == *device)?.mode;
        let all = self.facts.addresses_of(netns);
        let is_own = all.iter().any(|a| a.address == address && a.ifindex == index);
        (mode == 8 || matches!(mode, 1 | 2) && !is_own).then_some(mode)
    }

    /// Whether the reverse path filter of a device drops the question for an address: it is for
    /// ARP as for every other packet (`ip_route_input_noref()` in `arp_process()`).
    fn filters_question(&self, end: NetnsDevice, asker: NetnsDevice, address: IpAddr) -> bool {
        let (netns, iif) = end;
        if address.is_ipv6() || self.reverse_path(netns, &self.nic(netns, iif)).is_none() {
            return false;
        }
        let all = self.facts.addresses_of(asker.0);
        let of_asker = || all.iter().filter(|a| a.ifindex == asker.1 && a.address.is_ipv4());
        let near = of_asker().find(|a| covers(a.address, a.prefix, address));
        let Some(from) = near.or_else(|| of_asker().next()).map(|a| a.address) else {
            return false;
        };
        let query = InputQuery { netns, to: address, from, iif, mark: 0, flow: None };
        self.facts.take(self.facts.world.input_route(&query)) == Some(InputFound::SourceRefused)
    }

    /// Whether a namespace answers for an address that it does not have (`arp_process()` of
    /// `net/ipv4/arp.c`): it forwards, it is set to, and it leads there by another device. `None`
    /// where that is not known.
    fn answers_for_others(
        &self,
        end: NetnsDevice,
        asker: NetnsDevice,
        address: IpAddr,
    ) -> Option<bool> {
        let (netns, index) = end;
        let known = self.facts.take(self.facts.world.neighbours(&[netns]));
        let is_it = |n: &&whereis_port_model::Neighbour| n.address == address;
        let proxied = known.iter().filter(is_it).any(|n| n.state == NeighbourState::Proxied);
        let device = self.nic(netns, index).name;
        let settings = settings(self.facts, netns)?;
        if !proxied && !settings.proxy_arp.as_ref()?.iter().any(|name| **name == *device) {
            return Some(false);
        }
        if address.is_ipv6() {
            return None;
        }
        let refuses = settings.unforwarding4.as_ref()?;
        if settings.forward4? && refuses.iter().any(|name| **name == *device)
            || !settings.forward4?
        {
            return Some(false);
        }
        let all = self.facts.addresses_of(asker.0);
        let from = all.iter().find(|a| a.ifindex == asker.1 && a.address.is_ipv4())?.address;
        let (to, iif) = (address, index);
        let query = InputQuery { netns, to, from, iif, mark: 0, flow: None };
        match self.facts.take(self.facts.world.input_route(&query))? {
            InputFound::SourceRefused => Some(false),
            // To the same device only `proxy_arp_pvlan` answers.
            InputFound::Routed(found) if found.oif == Some(index) => None,
            InputFound::Routed(found) => Some(found.kind == RouteKind::Unicast),
        }
    }

    /// Of a link that is not seen as a whole: those on it that have an address. `None` where it is
    /// no bridge and no pair.
    pub(super) fn seen_on_link(
        &self,
        device: NetnsDevice,
        address: IpAddr,
    ) -> Option<Vec<NetnsDevice>> {
        let ends = self.ends_of_link(device, address.is_ipv6())?;
        let has =
            |end: &NetnsDevice| self.facts.addresses_of(end.0).iter().any(|a| a.address == address);
        let gets_it = |end: &NetnsDevice| has(end) && self.misses(device, address, *end).is_none();
        Some(ends.seen.iter().copied().filter(gets_it).collect())
    }

    /// The devices with which a link ends elsewhere; `None` of what is no bridge and no pair.
    fn ends_of_link(&self, start: NetnsDevice, ipv6: bool) -> Option<Ends> {
        let memo = &self.facts.memo.link_ends;
        if let Some(known) = memo.borrow().get(&(start, ipv6)) {
            return known.clone();
        }
        let found = self.find_ends(start, ipv6);
        memo.borrow_mut().insert((start, ipv6), found.clone());
        found
    }

    /// Every link that can be read, and whether these are all.
    fn all_links(&self) -> (Rc<Links>, bool) {
        let memo = &self.facts.memo.all_links;
        if let Some(known) = &*memo.borrow() {
            return known.clone();
        }
        // Namespaces that can't be read may be joined to any.
        let all = self.facts.world.links(&self.facts.all_netns());
        let unread = is_unread(&all.gaps);
        let known = (Rc::new(Links::new(self.facts.take(all))), !unread);
        *memo.borrow_mut() = Some(known.clone());
        known
    }

    fn find_ends(&self, start: NetnsDevice, ipv6: bool) -> Option<Ends> {
        let own = self.facts.links_of(start.0);
        let first = own.iter().find(|l| l.index == start.1)?;
        if !matches!(first.kind, LinkKind::Bridge | LinkKind::Veth) {
            return None;
        }
        let (link, mut whole) = self.all_links();
        let mut ends = Vec::new();
        let mut seen: HashSet<NetnsDevice> = HashSet::from([start]);
        let mut ports: Vec<&Link> = match first.kind {
            LinkKind::Bridge => {
                // Whether the bridge itself gets to what stands on it is not looked into.
                whole =
                    whole && self.plain(&link, first) && link.above(first).all(|upper| !upper.up);
                link.ports(first)
            }
            LinkKind::Veth if first.master.is_none() => vec![first],
            _ => return None,
        };
        while let Some(port) = ports.pop() {
            // Nothing gets through a pair of which one end is down.
            if !port.up {
                continue;
            }
            if seen.len() > DEVICES {
                whole = false;
                break;
            }
            whole = whole && self.plain(&link, port);
            let Some(peer) = link.peer(port) else {
                whole = false;
                continue;
            };
            if !peer.up {
                continue;
            }
            whole = whole && self.plain(&link, peer);
            let end = match peer.master {
                None => peer,
                Some(master) => {
                    let bridge = link.of((peer.netns, master));
                    let Some(bridge) = bridge.filter(|one| one.kind == LinkKind::Bridge) else {
                        whole = false;
                        continue;
                    };
                    whole = whole && self.plain(&link, bridge);
                    if !bridge.up || !seen.insert((bridge.netns, bridge.index)) {
                        continue;
                    }
                    let is_other = |l: &&Link| l.index != peer.index;
                    ports.extend(link.ports(bridge).into_iter().filter(is_other));
                    bridge
                }
            };
            let addresses = self.facts.addresses_of(end.netns);
            let of_end = |a: &&whereis_port_model::Address| {
                a.ifindex == end.index && a.address.is_ipv6() == ipv6
            };
            // Without an address of its own a program may answer in the kernel's place, as
            // gVisor's does. A bridge needs none, nor who is set to answer for others.
            let proxies = || {
                let set = settings(self.facts, end.netns).and_then(|set| set.proxy_arp);
                !ipv6 && set.is_some_and(|names| names.contains(&end.name))
            };
            if addresses.iter().any(|a| of_end(&a)) || end.kind == LinkKind::Bridge || proxies() {
                ends.push((end.netns, end.index));
            } else {
                whole = false;
            }
            // Who stands on that end is on the link as well.
            for upper in link.above(end).filter(|upper| upper.up) {
                let addresses = self.facts.addresses_of(upper.netns);
                let of_upper = |a: &whereis_port_model::Address| {
                    a.ifindex == upper.index && a.address.is_ipv6() == ipv6
                };
                ends.push((upper.netns, upper.index));
                whole = whole && addresses.iter().any(of_upper);
            }
        }
        Some(Ends { seen: ends.into(), whole })
    }

    /// The other end of a device pair, as far as it is seen and no port of a bridge: what leaves
    /// by the one comes in by the other, to whomever it is addressed.
    pub(super) fn other_end(&self, device: NetnsDevice) -> Option<NetnsDevice> {
        let (link, _) = self.all_links();
        let (one, peer) = (link.of(device)?, link.peer(link.of(device)?)?);
        (one.master.is_none() && peer.master.is_none()).then_some((peer.netns, peer.index))
    }

    /// Whether a program may deliver what leaves by a device, or it was not read whether there is
    /// one: the settings at its other end are read together with that.
    pub(super) fn may_be_delivered(&self, device: NetnsDevice, end: NetnsId) -> bool {
        self.has_program(device)
            || settings(self.facts, end).is_none_or(|read| read.unforwarding4.is_none())
    }

    /// Whether nothing tells that a gateway at the other end of a pair answers, which is nobody's
    /// address: nobody did yet, and no program delivers.
    pub(super) fn is_unheard(&self, device: NetnsDevice, gateway: IpAddr) -> bool {
        let delivered = |(end, _): NetnsDevice| self.may_be_delivered(device, end);
        !is_known(self.neighbour_state(device, gateway))
            && self.other_end(device).is_some_and(|end| !delivered(end))
    }

    /// Whether a program is attached to a device or to the other end of its pair: it may deliver
    /// packets wherever it likes.
    pub(super) fn has_program(&self, device: NetnsDevice) -> bool {
        [Some(device), self.other_end(device)].into_iter().flatten().any(|(netns, index)| {
            let attached = self.facts.world.attached(&[netns]);
            let is_on_it = |one: &whereis_port_model::Attached| one.ifindex == Some(index);
            // A recording that does not tell of them is of a node that may have some.
            !attached.gaps.is_empty() || attached.value.iter().any(is_on_it)
        })
    }

    /// Whether nothing is attached to a device, and no other one stands on it: a program, a
    /// filter or a macvlan may lead elsewhere.
    fn plain(&self, links: &Links, link: &Link) -> bool {
        let attached = self.facts.world.attached(&[link.netns]);
        let is_on_it = |one: &whereis_port_model::Attached| one.ifindex == Some(link.index);
        !is_unread(&attached.gaps)
            && !attached.value.iter().any(is_on_it)
            && !links.has_other_above(link)
    }
}

/// Whether a neighbour was found already, or nobody is asked for it.
pub(super) fn is_known(state: Option<NeighbourState>) -> bool {
    matches!(state, Some(NeighbourState::Answered | NeighbourState::Set))
}

/// Every link of every namespace.
pub(crate) struct Links {
    all: Rc<[Link]>,
    at: HashMap<NetnsDevice, usize>,
    ports: HashMap<NetnsDevice, Vec<usize>>,
    /// Those that stand on another one.
    above: HashMap<NetnsDevice, Vec<usize>>,
}

impl Links {
    fn new(all: Rc<[Link]>) -> Self {
        let mut at = HashMap::new();
        let mut above: HashMap<NetnsDevice, Vec<usize>> = HashMap::new();
        let mut ports: HashMap<NetnsDevice, Vec<usize>> = HashMap::new();
        for (n, link) in all.iter().enumerate() {
            at.entry((link.netns, link.index)).or_insert(n);
            if let Some(master) = link.master {
                ports.entry((link.netns, master)).or_default().push(n);
            }
            if let Some(peer) = link.peer.filter(|_| link.kind != LinkKind::Veth) {
                let lower = (link.peer_netns.unwrap_or(link.netns), peer);
                above.entry(lower).or_default().push(n);
            }
        }
        Self { all, at, ports, above }
    }

    fn of(&self, device: NetnsDevice) -> Option<&Link> {
        self.all.get(*self.at.get(&device)?)
    }

    /// What stands on a device.
    fn all_above(&self, lower: &Link) -> impl Iterator<Item = &Link> {
        let above = self.above.get(&(lower.netns, lower.index)).into_iter().flatten();
        above.filter_map(|n| self.all.get(*n))
    }

    /// The macvlans on it, each with a hardware address of its own.
    fn above(&self, lower: &Link) -> impl Iterator<Item = &Link> {
        self.all_above(lower).filter(|link| is_macvlan(link))
    }

    /// Whether anything else stands on it.
    fn has_other_above(&self, lower: &Link) -> bool {
        self.all_above(lower).any(|link| !is_macvlan(link))
    }

    fn ports(&self, bridge: &Link) -> Vec<&Link> {
        let ports = self.ports.get(&(bridge.netns, bridge.index)).into_iter().flatten();
        ports.filter_map(|n| self.all.get(*n)).collect()
    }

    /// The other end of a device pair, where it is seen.
    fn peer(&self, link: &Link) -> Option<&Link> {
        if link.kind != LinkKind::Veth {
            return None;
        }
        let peer = self.of((link.peer_netns.unwrap_or(link.netns), link.peer?))?;
        // Without a namespace it may be in one that is not seen.
        let joined = peer.kind == LinkKind::Veth
            && peer.peer == Some(link.index)
            && peer.peer_netns.unwrap_or(peer.netns) == link.netns;
        joined.then_some(peer)
    }
}
