//! Cilium's datapath as a part of a packet's way (bpf/bpf_sock.c, bpf_lxc.c, lib/nodeport.h and
//! lib/policy.h of 1.12 to 1.19).
//!
//! ```text
//! a process of the node ── connect() ──▶ socket LB: internal scope, and entries for all addresses
//! a pod ── connect() ──▶ socket LB, the same; without it the packet at its device, exact entries
//! others ── packet ──▶ a device with Cilium's program: external scope, exact entries, source ranges
//! whoever ──▶ a pod: its endpoint's policy
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use whereis_port_rules::route::covers;
use whereis_port_rules::{Packet, PacketSender};

use super::balance::{Frontends, evidence};
use super::cross::seen_source;
use super::in_the_way::is_unread;
use super::{Arrival, ForwardPath, PacketDestination, StopKind, Walk};
use crate::few::few;
use whereis_port_model::{
    Attached, Balancer, CgroupHook, CgroupOf, Cilium, CiliumEndpoint, CiliumIdentity, CiliumPolicy,
    CiliumPolicyOf, Condition, ConditionCode, DeviceHook, End, Frontend, FrontendKind,
    FrontendScope, HopKind, InTheWay, LOOPBACK4, NetnsId, Pid, Port, RouteFound, RouteKind, Server,
    SourceRanges,
};

/// The root of all cgroups, by its inode.
const ROOT_CGROUP: u64 = 1;

/// Whether socket LB translates what somebody connects to.
enum SocketLbState {
    /// For those in this cgroup and below it, where it is not for all.
    On(Option<u64>),
    Off,
    Unread,
}

/// What socket LB does with an address.
enum Lookup<'f> {
    Nothing,
    /// There is an entry, and it is left alone.
    Passed(&'f Frontend),
    Taken(&'f Frontend),
}

impl Walk<'_, '_> {
    /// What there is of Cilium in a namespace that its maps have services of.
    pub(super) fn cilium(&self, netns: NetnsId) -> Option<Rc<Cilium>> {
        if let Some(known) = self.facts.memo.cilium.borrow().get(&netns) {
            return known.clone();
        }
        let has = !self.frontends(netns, Balancer::Cilium).is_empty();
        let read = || self.facts.take(self.facts.world.cilium(&[netns]));
        let found = if has { read().first().cloned().map(Rc::new) } else { None };
        self.facts.memo.cilium.borrow_mut().insert(netns, found.clone());
        found
    }

    /// Cilium at `connect()` of a process of a namespace.
    pub(super) fn socket_balanced(
        &self,
        way: &ForwardPath,
        netns: NetnsId,
        to: PacketDestination,
    ) -> Option<Vec<Arrival>> {
        let all = self.frontends(netns, Balancer::Cilium);
        all.at(to.port).next()?;
        let cilium = self.cilium(netns);
        let mut way = way.clone();
        match self.socket_lb(netns, to, cilium.as_deref()) {
            SocketLbState::Off => return None,
            SocketLbState::On(None) => {}
            // Nearly all processes of a node are below it.
            SocketLbState::On(Some(_)) => {}
            SocketLbState::Unread => {
                way.unsure.push(InTheWay::UnreadSocketLb(self.facts.netns_ref(netns)));
            }
        }
        match self.look_up(netns, &all, cilium.as_deref(), to, true) {
            Lookup::Nothing => None,
            Lookup::Passed(frontend) => {
                let ends = self.local_unbalanced(way, netns, to);
                Some(passed(frontend, ends))
            }
            Lookup::Taken(frontend) if frontend.proxy_port.is_some() => {
                Some(self.to_proxy(way, netns, to, frontend, None))
            }
            Lookup::Taken(frontend) if is_delegated(frontend) => {
                Some(self.delegated(way, netns, to, frontend))
            }
            Lookup::Taken(frontend) => Some(self.balanced(&way, netns, to, frontend, None)),
        }
    }

    /// Cilium at the device that a packet comes in by.
    pub(super) fn device_balanced(
        &self,
        way: &ForwardPath,
        packet: &Packet,
    ) -> Option<Vec<Arrival>> {
        let netns = packet.netns;
        let all = self.frontends(netns, Balancer::Cilium);
        all.at(packet.dport).next()?;
        let iif = packet.iif.as_ref()?.index;
        let cilium = self.cilium(netns);
        let to = PacketDestination {
            proto: packet.proto,
            address: packet.destination,
            port: packet.dport,
        };
        let is_pod = cilium.as_ref().is_some_and(|cilium| cilium.behind(iif).is_some());
        if is_pod {
            return self.pod_balanced(way, packet, &all, cilium.as_deref(), to);
        }
        if !self.takes_at(netns, iif) {
            return None;
        }
        let frontend = all.pick(to, FrontendScope::External)?;
        let hop = || self.frontend_hop(netns, to, frontend);
        if frontend.flags.iter().any(|flag| flag == "not-routable") {
            let mut way = way.clone();
            way.hops.push(hop());
            let why = "Cilium drops it: a cluster IP is not taken from outside the cluster";
            return Some(vec![way.stop(StopKind::Dropped, why)]);
        }
        let mut ended = Vec::new();
        let Some(way) = admit_source(way, packet, frontend, hop, &mut ended) else {
            return Some(ended);
        };
        if frontend.proxy_port.is_some() {
            ended.extend(self.to_proxy(way, netns, to, frontend, Some(packet)));
        } else if is_delegated(frontend) {
            ended.extend(self.delegated(way, netns, to, frontend));
        } else {
            ended.extend(self.balanced(&way, netns, to, frontend, Some(packet)));
        }
        Some(ended)
    }

    /// What a pod sends: translated by its own `connect()`, or else at its device.
    fn pod_balanced(
        &self,
        way: &ForwardPath,
        packet: &Packet,
        all: &Frontends,
        cilium: Option<&Cilium>,
        to: PacketDestination,
    ) -> Option<Vec<Arrival>> {
        let netns = packet.netns;
        let mut way = way.clone();
        let frontend = match self.socket_lb(netns, to, cilium) {
            SocketLbState::On(_) => match self.look_up(netns, all, cilium, to, false) {
                Lookup::Nothing => return None,
                Lookup::Passed(frontend) => {
                    return Some(passed(frontend, self.unbalanced(way, packet.clone())));
                }
                Lookup::Taken(frontend) => frontend,
            },
            SocketLbState::Off => all.pick(to, FrontendScope::Internal)?,
            SocketLbState::Unread => {
                way.unsure.push(InTheWay::UnreadSocketLb(self.facts.netns_ref(netns)));
                all.pick(to, FrontendScope::Internal)?
            }
        };
        Some(if frontend.proxy_port.is_some() {
            self.to_proxy(way, netns, to, frontend, Some(packet))
        } else if is_delegated(frontend) {
            self.delegated(way, netns, to, frontend)
        } else {
            self.balanced(&way, netns, to, frontend, Some(packet))
        })
    }

    /// Whether socket LB is on in a namespace, for the process that connects where it is known.
    fn socket_lb(
        &self,
        netns: NetnsId,
        to: PacketDestination,
        cilium: Option<&Cilium>,
    ) -> SocketLbState {
        let at = if to.address.is_ipv6() { CgroupHook::Connect6 } else { CgroupHook::Connect4 };
        let pins = cilium.and_then(|cilium| cilium.socket_lb.as_ref());
        let link = pins.map(|links| links.iter().find(|link| link.at == at));
        let in_cgroup = |of: CgroupOf| -> Option<bool> {
            let read = self.facts.world.cgroup_programs(of);
            let known = !is_unread(&read.gaps);
            let all = self.facts.take(read).filter(|_| known)?;
            let pinned = link.flatten().map(|link| link.program);
            let is_its = |one: &whereis_port_model::CgroupProgram| {
                one.at == at
                    && (one.program.balancer == Some(Balancer::Cilium)
                        || one.program.id.is_some() && one.program.id == pinned)
            };
            Some(all.iter().any(is_its))
        };
        match (self.sender, link) {
            (_, Some(None)) => SocketLbState::Off,
            (Some(pid), _) if !self.anybody && cilium.is_some() => {
                match in_cgroup(CgroupOf::Process(pid)) {
                    Some(true) => SocketLbState::On(None),
                    Some(false) => SocketLbState::Off,
                    None => SocketLbState::Unread,
                }
            }
            (_, Some(Some(link))) => {
                SocketLbState::On((link.cgroup != ROOT_CGROUP).then_some(link.cgroup))
            }
            // Nothing was read of this, as in older recordings.
            (_, None) if cilium.is_none() => SocketLbState::On(None),
            (_, None) => {
                let first = self.member(netns).map(CgroupOf::Process);
                let asked = std::iter::once(CgroupOf::ROOT).chain(first).map(in_cgroup);
                let answers: Vec<Option<bool>> = asked.collect();
                match () {
                    () if answers.contains(&Some(true)) => SocketLbState::On(None),
                    () if answers.contains(&None) => SocketLbState::Unread,
                    () => SocketLbState::Off,
                }
            }
        }
    }

    /// Some process of a namespace.
    fn member(&self, netns: NetnsId) -> Option<Pid> {
        let all = &self.facts.world.netns.value;
        all.iter().find(|one| one.id == netns)?.members.first().copied()
    }

    /// What a `connect()` finds: the exact address, else the entry that stands for all addresses
    /// of the node (`sock4_wildcard_lookup_full`), which is not taken for everything
    /// (`sock4_skip_xlate`).
    fn look_up<'f>(
        &self,
        netns: NetnsId,
        all: &'f Frontends,
        cilium: Option<&Cilium>,
        to: PacketDestination,
        is_node: bool,
    ) -> Lookup<'f> {
        let loopback = to.address.is_loopback();
        let any = if to.address.is_ipv6() {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        let identity = || self.identity(netns, cilium, to.address);
        let of_node = || {
            let found =
                all.pick(PacketDestination { address: any, ..to }, FrontendScope::Internal)?;
            let here = is_node && loopback || identity() == CiliumIdentity::HOST;
            let other =
                || [CiliumIdentity::REMOTE_NODE, CiliumIdentity::API_SERVER].contains(&identity());
            let fits = match found.kind {
                Some(FrontendKind::NodePort) => here || other(),
                Some(FrontendKind::HostPort) => here && (loopback || !has(found, "loopback")),
                _ => false,
            };
            fits.then_some(found)
        };
        let exact = all.pick(to, FrontendScope::Internal);
        let Some(found) = exact.or_else(of_node) else { return Lookup::Nothing };
        let mitigated = match found.kind {
            Some(FrontendKind::ExternalIp) => true,
            Some(FrontendKind::HostPort) => !loopback,
            _ => false,
        };
        if mitigated && identity() != CiliumIdentity::HOST {
            return Lookup::Passed(found);
        }
        Lookup::Taken(found)
    }

    /// The identity of an address; of the node's own also where the map is not known.
    fn identity(&self, netns: NetnsId, cilium: Option<&Cilium>, address: IpAddr) -> u32 {
        cilium.and_then(|cilium| cilium.identity(address)).unwrap_or_else(|| {
            let local = self.route(netns, address, 0).is_some_and(|r| r.kind == RouteKind::Local);
            if local { CiliumIdentity::HOST } else { CiliumIdentity::WORLD }
        })
    }

    /// Whether Cilium's program takes what comes in by a device: one with its maps is there.
    fn takes_at(&self, netns: NetnsId, ifindex: u32) -> bool {
        let read = self.facts.world.attached(&[netns]);
        // That it was not read makes the way unsure already.
        if !read.gaps.is_empty() {
            return true;
        }
        let comes_in = |one: &&Attached| {
            use DeviceHook::{TcIngress, TcxIngress, Xdp};
            one.ifindex == Some(ifindex) && matches!(one.at, Xdp | TcIngress | TcxIngress)
        };
        self.facts.take(read).iter().filter(comes_in).any(Attached::is_known)
    }

    /// A service that a proxy of the node serves: it chooses the backend.
    fn to_proxy(
        &self,
        mut way: ForwardPath,
        netns: NetnsId,
        to: PacketDestination,
        frontend: &Frontend,
        packet: Option<&Packet>,
    ) -> Vec<Arrival> {
        let port = frontend.proxy_port.unwrap_or_default();
        let at = if to.address.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { LOOPBACK4 };
        way.hops.push(self.frontend_hop(netns, to, frontend));
        let mut hop = self.frontend_hop(netns, to, frontend);
        hop.kind = HopKind::Dnat;
        (hop.endpoint.address, hop.endpoint.port) = (Some(at), Some(Port(port)));
        hop.detail = "to the proxy, which chooses the backend".to_owned();
        way.hops.push(hop);
        way.unsure.push(InTheWay::Proxy(port));
        match packet {
            None => {
                self.local_unbalanced(way, netns, PacketDestination { address: at, port, ..to })
            }
            Some(packet) => {
                let mut packet = packet.clone();
                packet.tproxy = Some((at, port));
                self.deliver(way, packet)
            }
        }
    }

    /// A service of which connections to backends of this node go up to its own stack as they
    /// are, for a proxy that is not Cilium's.
    fn delegated(
        &self,
        mut way: ForwardPath,
        netns: NetnsId,
        to: PacketDestination,
        frontend: &Frontend,
    ) -> Vec<Arrival> {
        way.hops.push(self.frontend_hop(netns, to, frontend));
        let why = "Cilium leaves it to a proxy of this node, which is not known";
        let mut end = End::default();
        end.evidence.push(evidence(frontend));
        vec![way.stop_with(StopKind::Unknown, why, None, end)]
    }

    /// The policy of the endpoint that a packet goes to: `None` when it may stop it, and the way
    /// that is left otherwise.
    pub(super) fn admitted_by_policy(
        &self,
        mut way: ForwardPath,
        packet: &Packet,
        route: &RouteFound,
        ended: &mut Vec<Arrival>,
    ) -> Option<ForwardPath> {
        let netns = packet.netns;
        let Some(cilium) = self.cilium(netns) else { return Some(way) };
        let Some(endpoint) = cilium.pod_at(packet.destination) else { return Some(way) };
        // The node gets to its pods, whatever their policy says.
        let Some(iif) = &packet.iif else { return Some(way) };
        let of = CiliumPolicyOf { netns, endpoint: endpoint.id };
        let read = self.facts.world.cilium_policy(of);
        let is_whole = read.gaps.is_empty();
        let Some(policy) = self.facts.take(read).filter(|_| is_whole) else {
            way.unsure.push(InTheWay::Policy(endpoint.id));
            return Some(way);
        };
        let proto = packet.proto.number();
        let decide = |identity: u32| {
            PolicyVerdict::of(CiliumPolicy::decide(&policy, identity, proto, packet.dport))
        };
        // What comes in by a device of Cilium's goes to the pod past the rules that masquerade.
        let is_cilium = cilium.behind(iif.index).is_some() || self.takes_at(netns, iif.index);
        let source =
            if is_cilium { packet.source } else { seen_source(self, netns, packet, route) };
        let known = match source {
            PacketSender::Address(address) => Some(self.identity(netns, Some(&cilium), address)),
            PacketSender::Elsewhere => {
                cilium.behind(iif.index).map(|pod| self.identity(netns, Some(&cilium), pod.address))
            }
        };
        // A pod that gets to itself by a service is not asked (`ct_state.loopback`).
        if endpoint.ifindex == iif.index {
            return Some(way);
        }
        if let Some(identity) = known {
            return self.judged(way, endpoint, decide(identity), "this client", ended);
        }
        let ipv6 = packet.destination.is_ipv6();
        let world = outsiders(&cilium, ipv6);
        let base = decide(world.base);
        // Who outside gets something else than everybody.
        let others: Vec<String> = world
            .others
            .iter()
            .filter(|one| decide(one.identity) != base)
            .map(|one| prefix_text((one.address, one.prefix)))
            .collect();
        if others.is_empty() {
            return self.judged(way, endpoint, base, "other machines", ended);
        }
        let list = few(&others);
        let is = Condition {
            code: ConditionCode::Client,
            text: format!("the client's address is in {list}"),
        };
        let is_not = Condition {
            code: ConditionCode::OtherClient,
            text: format!("the client's address is not in {list}"),
        };
        let special = world.others.iter().map(|one| decide(one.identity));
        let special = special.filter(|one| *one != base).max().unwrap_or(base);
        let mut inside = way.clone();
        inside.depends.push(is);
        way.depends.push(is_not);
        let inside = self.judged(inside, endpoint, special, "other machines", ended);
        let outside = self.judged(way, endpoint, base, "other machines", ended);
        match (inside, outside) {
            (Some(mut inside), Some(outside)) => {
                // Both get through, one of them by a proxy.
                inside.depends.pop();
                let new = outside.unsure.into_iter().filter(|one| !inside.unsure.contains(one));
                let new: Vec<InTheWay> = new.collect();
                inside.unsure.extend(new);
                Some(inside)
            }
            (inside, outside) => inside.or(outside),
        }
    }

    /// What a policy's verdict makes of a way.
    fn judged(
        &self,
        mut way: ForwardPath,
        endpoint: &CiliumEndpoint,
        verdict: PolicyVerdict,
        who: &str,
        ended: &mut Vec<Arrival>,
    ) -> Option<ForwardPath> {
        let id = endpoint.id;
        match verdict {
            PolicyVerdict::Passes => return Some(way),
            PolicyVerdict::Proxied(port) => {
                way.unsure.push(InTheWay::Proxy(port));
                return Some(way);
            }
            PolicyVerdict::Authenticated => {
                way.unsure.push(InTheWay::Policy(id));
                return Some(way);
            }
            PolicyVerdict::Refused | PolicyVerdict::Missing => {}
        }
        let how = if verdict == PolicyVerdict::Refused { "denies" } else { "does not allow" };
        let why = format!("dropped: Cilium's policy of endpoint {id} {how} {who}");
        ended.push(way.stop(StopKind::Dropped, why));
        None
    }
}

/// Says of what Cilium leaves alone that it does.
fn passed(frontend: &Frontend, mut ends: Vec<Arrival>) -> Vec<Arrival> {
    let kind = match frontend.kind {
        Some(FrontendKind::ExternalIp) => "external IPs",
        _ => "host ports",
    };
    for end in &mut ends {
        if let Some(why) = &mut end.end.why {
            why.push_str(&format!("; Cilium translates no {kind} for clients on this node"));
        }
    }
    ends
}

/// What a policy says of a connection, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PolicyVerdict {
    /// An entry refuses it.
    Refused,
    /// No entry lets it through.
    Missing,
    /// Both sides have to be authenticated first.
    Authenticated,
    /// A proxy on this port decides.
    Proxied(u16),
    Passes,
}

impl PolicyVerdict {
    fn of(entry: Option<&CiliumPolicy>) -> Self {
        match entry {
            None => Self::Missing,
            Some(entry) if entry.deny => Self::Refused,
            Some(entry) if entry.auth => Self::Authenticated,
            Some(entry) if entry.proxy != 0 => Self::Proxied(entry.proxy),
            Some(_) => Self::Passes,
        }
    }
}

/// The identities of those outside the cluster.
struct Outsiders {
    /// Of whoever is not told apart.
    base: u32,
    /// Prefixes with identities of their own: other nodes, and those that policies name.
    others: Vec<CiliumIdentity>,
}

fn outsiders(cilium: &Cilium, ipv6: bool) -> Outsiders {
    /// Identities that a node gives to prefixes (`LocalIdentityFlag`), and to nodes by labels.
    const LOCAL: std::ops::Range<u32> = 0x0100_0000..0x0300_0000;
    let all = cilium.identities.iter().flatten().filter(|one| one.address.is_ipv6() == ipv6);
    let (mut base, mut others) = (CiliumIdentity::WORLD, Vec::new());
    for one in all {
        let is_node =
            [CiliumIdentity::REMOTE_NODE, CiliumIdentity::API_SERVER].contains(&one.identity);
        match one.prefix {
            0 => base = one.identity,
            _ if is_node || LOCAL.contains(&one.identity) => others.push(*one),
            _ => {}
        }
    }
    Outsiders { base, others }
}

/// Whether clients' addresses let a packet in: `None` when they do not, or the way of those
/// whom they let in.
fn admit_source(
    way: &ForwardPath,
    packet: &Packet,
    frontend: &Frontend,
    hop: impl Fn() -> whereis_port_model::Hop,
    ended: &mut Vec<Arrival>,
) -> Option<ForwardPath> {
    let mut way = way.clone();
    let Some(SourceRanges { deny, ranges }) = &frontend.sources else { return Some(way) };
    let list: Vec<String> = ranges.iter().map(|range| prefix_text(*range)).collect();
    let list = few(&list);
    let drop = |mut way: ForwardPath, ended: &mut Vec<Arrival>| {
        way.hops.push(hop());
        let mut end = End::default();
        end.evidence.push(evidence(frontend));
        let why = if *deny {
            format!("dropped by Cilium: loadBalancerSourceRanges of the service deny {list}")
        } else {
            format!("dropped by Cilium: loadBalancerSourceRanges of the service allow {list} only")
        };
        ended.push(way.stop_with(StopKind::Dropped, why, None, end));
    };
    if let PacketSender::Address(address) = packet.source {
        let inside = ranges.iter().any(|(of, prefix)| covers(*of, *prefix, address));
        if inside == *deny {
            drop(way, ended);
            return None;
        }
        return Some(way);
    }
    match (ranges.is_empty(), deny) {
        (true, true) => return Some(way),
        (true, false) => {
            drop(way, ended);
            return None;
        }
        (false, _) => {}
    }
    let inside = Condition {
        code: ConditionCode::Client,
        text: format!("the client's address is in {list}"),
    };
    let outside = Condition {
        code: ConditionCode::OtherClient,
        text: format!("the client's address is not in {list}"),
    };
    let (lets, stops) = if *deny { (outside, inside) } else { (inside, outside) };
    let mut stopped = way.clone();
    stopped.depends.push(stops);
    drop(stopped, ended);
    way.depends.push(lets);
    Some(way)
}

fn prefix_text((address, prefix): (IpAddr, u8)) -> String {
    format!("{address}/{prefix}")
}

fn has(frontend: &Frontend, flag: &str) -> bool {
    frontend.flags.iter().any(|one| one == flag)
}

/// Whether a service is left to a proxy of the node where a backend is here.
fn is_delegated(frontend: &Frontend) -> bool {
    has(frontend, "delegated") && frontend.backends.iter().any(|one: &Server| one.active)
}
