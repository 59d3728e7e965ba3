//! Whether a socket could be bound to a port, what keeps it from that, and what would help.
//!
//! Kernel: `__inet_bind` (net/ipv4/af_inet.c) and `__inet6_bind` (net/ipv6/af_inet6.c) look at
//! the address first, then whether the user may have the port, then who has it already.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::conflict;
use super::facts::Facts;
use super::few;
use super::held;
use super::reserved;
use super::{answer_within, find_netns};
use whereis_port_model::Node;
use whereis_port_model::{
    Address, Advice, Bind, BindAsk, BindError, BindNote, Capability, CgroupOf, CgroupProgram,
    Command, Finding, FindingCode, FixKind, GapKind, HeldSockets, Hop, HopKind, Impact, InTheWay,
    LinkKind, NetnsId, Path, PortFacts, PortRange, PortSocket, Proto, Query, RouteKind, RouteQuery,
    Scope, SocketFilter,
};

/// The first port that needs no capability, before Linux 4.11 and unless it is set.
const PRIVILEGED: u16 = 1024;

/// A question: could such a socket be bound there?
#[derive(Debug, Clone)]
pub struct BindQuestion {
    /// The port, and the address and protocol if they were named. Of a range the first counts.
    pub query: Query,
    /// The namespace, by the name that lists show or its inode number; the own one otherwise.
    pub netns: Option<String>,
    /// The user; that of the tool otherwise.
    pub uid: Option<u32>,
    /// `SO_REUSEADDR`.
    pub reuse_addr: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// `IPV6_V6ONLY`.
    pub v6only: bool,
    /// The interface to bind to.
    pub device: Option<String>,
    /// Whether it is to be tried as well: the socket is closed at once.
    pub attempt: bool,
}

/// Answers one question: for each protocol that it is about.
///
/// # Errors
/// A namespace or interface that there is none of.
pub fn bind(node: &dyn Node, question: &BindQuestion) -> Result<Vec<Bind>, String> {
    let facts = Facts::new(node);
    let netns = match &question.netns {
        Some(name) => find_netns(&facts, name)?,
        None => facts.host.own_netns,
    };
    // The interface of such an address comes before the one that the socket was bound to.
    let zone = match question.query.scope {
        Scope::Address(IpAddr::V6(address)) if is_of_link(address) => question.query.zone.as_ref(),
        _ => None,
    };
    let named = zone.or(question.device.as_ref());
    let ifindex = named.map(|name| device(&facts, netns, name)).transpose()?;
    let mut binds = predict(&facts, question, netns, ifindex, true);
    for bind in &mut binds {
        bind.zone = zone.cloned();
    }
    for bind in binds.iter_mut().filter(|_| question.attempt) {
        let read = node.try_bind(&bind.ask);
        bind.tried = read.value;
        bind.gaps.extend(read.gaps);
    }
    Ok(binds)
}

/// What becomes of it, for each protocol, by the kernel's rules; with `rules`, also which packet
/// rules take the port.
pub(super) fn predict(
    facts: &Facts<'_>,
    question: &BindQuestion,
    netns: NetnsId,
    ifindex: Option<u32>,
    rules: bool,
) -> Vec<Bind> {
    let protos = Proto::ALL.into_iter().filter(|p| question.query.proto.is_none_or(|q| q == *p));
    let one = |proto| {
        let facts = facts.again();
        let ask = ask(&facts, question, netns, ifindex, proto);
        let mut bind = of(&facts, &question.query, ask);
        let is_proxys = bind.held.iter().any(|one| reserved::is_of_kube_proxy(&one.end.processes));
        if rules && is_proxys && bind.predicted == Some(false) {
            bind.notes.extend(taken(&facts, &question.query, &bind.ask));
        }
        if rules && bind.predicted != Some(false) {
            let taken = taken(&facts, &question.query, &bind.ask);
            // A balancer's own program keeps others from what it serves, and from nothing else.
            let of_balancer = programs(&facts, ask.address).into_iter().filter(is_known);
            if !taken.is_empty() {
                for program in of_balancer {
                    bind.predicted = None;
                    bind.notes.push(BindNote::Program(InTheWay::OnCgroup(program)));
                }
            }
            bind.notes.extend(taken);
        }
        bind
    };
    protos.map(one).collect()
}

fn device(facts: &Facts<'_>, netns: NetnsId, name: &str) -> Result<u32, String> {
    let links = facts.links_of(netns);
    let found = links.iter().find(|link| link.name == name).map(|link| link.index);
    found.ok_or_else(|| {
        let names = few::few(links.iter().map(|link| &link.name));
        format!(
            "no interface {name:?} in network namespace {}: there is {names}",
            facts.netns_ref(netns)
        )
    })
}

fn ask(
    facts: &Facts<'_>,
    question: &BindQuestion,
    netns: NetnsId,
    ifindex: Option<u32>,
    proto: Proto,
) -> BindAsk {
    let host = &facts.host;
    let has = |capability| host.has(capability);
    // Older recordings do not have the capability itself.
    let of_node =
        || has(Capability::CapNetBindService) || host.euid == 0 && has(Capability::CapSysAdmin);
    let own = match host.binds_privileged {
        Some(may) if netns == host.own_netns => may,
        Some(_) => has(Capability::CapNetBindService),
        None => of_node(),
    };
    let address = match question.query.scope {
        Scope::Address(address) => address,
        Scope::Everywhere if has_ipv6(&held::port_facts(facts, netns)) == Some(false) => {
            Ipv4Addr::UNSPECIFIED.into()
        }
        Scope::Everywhere => Ipv6Addr::UNSPECIFIED.into(),
    };
    BindAsk {
        netns,
        proto,
        address,
        v6only: question.v6only,
        port: question.query.ports.first,
        ifindex,
        uid: question.uid.unwrap_or(host.euid),
        privileged: question.uid.map_or(own, |uid| uid == 0 || uid == host.euid && own),
        reuse_addr: question.reuse_addr,
        reuse_port: question.reuse_port,
    }
}

/// Whether the kernel has IPv6: then it has settings of it.
fn has_ipv6(settings: &PortFacts) -> Option<bool> {
    settings.nonlocal4?;
    Some(settings.nonlocal6.is_some())
}

/// What becomes of such a bind.
fn of(facts: &Facts<'_>, query: &Query, ask: BindAsk) -> Bind {
    let settings = held::port_facts(facts, ask.netns);
    let mut notes = Vec::new();
    let address = address(facts, &ask, &settings, &mut notes);
    let allowed = allowed(&ask, &settings, &mut notes);
    let filter = SocketFilter { proto: Some(ask.proto), ports: Some(PortRange::one(ask.port)) };
    let read = facts.world.port_sockets(&[ask.netns], &filter);
    let is_whole = read.gaps.is_empty();
    let sockets = facts.take(read);
    let free = free(facts, &ask, &sockets).or_whole(is_whole);
    let permitted = permitted(facts, &ask, &mut notes);
    let checks = [
        (address, BindError::Invalid),
        (allowed, BindError::Privileged),
        (free, BindError::InUse),
        (permitted, BindError::NotPermitted),
    ];
    let failing = checks.iter().find(|(works, _)| *works == Check::No);
    let error = failing.map(|(_, error)| match error {
        BindError::Invalid => refusal(&notes),
        error => *error,
    });
    let predicted = if failing.is_some() {
        Some(false)
    } else if checks.iter().all(|(works, _)| *works == Check::Yes) {
        Some(true)
    } else {
        None
    };
    let blocks = |found: &PortSocket| conflict(facts, &ask, found);
    let in_the_way: Vec<&PortSocket> =
        sockets.iter().filter(|found| blocks(found) != Some(false)).collect();
    if in_the_way.iter().any(|found| blocks(found).is_none()) {
        notes.push(BindNote::OptionsNotKnown);
    }
    let (held, more_held) = held::gather(facts, &in_the_way, &blocks);
    alternatives(facts, &ask, &sockets, free, &mut notes);
    worth_knowing(&ask, &settings, &mut notes);
    let fix = fix(&ask, &notes, &held);
    let mut gaps = facts.gaps();
    gaps.retain(|gap| match gap.impact {
        Impact::Bind => predicted.is_none(),
        Impact::Owner => !held.is_empty(),
        _ => false,
    });
    Bind {
        text: query.text.clone(),
        ask,
        zone: None,
        everywhere: query.scope == Scope::Everywhere,
        netns: facts.netns_ref(ask.netns),
        predicted,
        error,
        notes,
        held,
        more_held,
        fix,
        tried: None,
        gaps,
    }
}

/// What one of the kernel's checks says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Yes,
    No,
    Unknown,
}

impl Check {
    fn of(known: Option<bool>) -> Self {
        match known {
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None => Self::Unknown,
        }
    }

    /// The same, when what it says yes of was not all.
    fn or_whole(self, is_whole: bool) -> Self {
        if self == Self::Yes && !is_whole { Self::Unknown } else { self }
    }
}

/// Whether the namespace has the address, or needs not.
fn address(
    facts: &Facts<'_>,
    ask: &BindAsk,
    settings: &PortFacts,
    notes: &mut Vec<BindNote>,
) -> Check {
    let known = match ask.address.to_canonical() {
        any if any.is_unspecified() => {
            if any.is_ipv6() && has_ipv6(settings) == Some(false) {
                notes.push(BindNote::NoIpv6);
                return Check::No;
            }
            Some(true)
        }
        _ if ask.address.is_ipv6() && has_ipv6(settings) == Some(false) => {
            notes.push(BindNote::NoIpv6);
            return Check::No;
        }
        IpAddr::V4(address) => own4(facts, ask, address, settings),
        IpAddr::V6(address) => {
            if address.is_multicast() && ask.proto == Proto::Tcp {
                return Check::No;
            }
            if is_of_link(address) && ask.ifindex.is_none() {
                notes.push(BindNote::NeedsInterface);
                return Check::No;
            }
            if address.is_multicast() {
                return Check::Yes;
            }
            own6(facts, ask, address, settings)
        }
    };
    match known {
        Some(true) => {}
        Some(false) => {
            let is_ipv6 = ask.address.to_canonical().is_ipv6();
            let all = facts.addresses_of(ask.netns);
            let own = all.iter().filter(|a| a.address.is_ipv6() == is_ipv6);
            let own: Vec<String> = own.map(|one| written(facts, one)).collect();
            let more = own.len().saturating_sub(few::NAMED);
            notes.push(BindNote::NotOwn(own.into_iter().take(few::NAMED).collect(), more));
        }
        None => notes.push(BindNote::OwnNotKnown),
    }
    Check::of(known)
}

/// `__ipv6_addr_needs_scope_id`: an address of an interface or a link alone.
fn is_of_link(address: Ipv6Addr) -> bool {
    match address.octets() {
        [0xff, scope, ..] => matches!(scope & 0xf, 1 | 2),
        _ => address.is_unicast_link_local(),
    }
}

/// An address as somebody has to write it who binds to it.
fn written(facts: &Facts<'_>, one: &Address) -> String {
    let links = facts.links_of(one.netns);
    let link = links.iter().find(|link| link.index == one.ifindex);
    match (one.address, link) {
        (IpAddr::V6(address), Some(link)) if is_of_link(address) => {
            format!("{address}%{}", link.name)
        }
        (address, _) => address.to_string(),
    }
}

/// The error that belongs to what is said of the address.
fn refusal(notes: &[BindNote]) -> BindError {
    notes
        .iter()
        .find_map(|note| match note {
            BindNote::NoIpv6 => Some(BindError::NoFamily),
            BindNote::NotOwn(..) => Some(BindError::NotAvailable),
            _ => None,
        })
        .unwrap_or(BindError::Invalid)
}

/// Kernel: `inet_addr_type_table` asks the local table, in which AnyIP's routes are, too; groups
/// and broadcasts may be bound to.
fn own4(facts: &Facts<'_>, ask: &BindAsk, address: Ipv4Addr, settings: &PortFacts) -> Option<bool> {
    if address.is_multicast() || address.is_broadcast() {
        return Some(true);
    }
    if settings.nonlocal4 == Some(true) {
        return Some(true);
    }
    // A VRF has a table of its own.
    if vrf(facts, ask.netns, ask.ifindex).is_some() {
        return None;
    }
    let query = RouteQuery::new(ask.netns, address.into(), 0);
    let is_own = match facts.take(facts.world.route(&query)).map(|route| route.kind) {
        Some(kind) => matches!(kind, RouteKind::Local | RouteKind::Broadcast),
        None => {
            let addresses = facts.addresses_of(ask.netns);
            if !addresses.iter().any(|a| a.address == address) {
                return None;
            }
            true
        }
    };
    if is_own { Some(true) } else { settings.nonlocal4 }
}

/// Kernel: `ipv6_chk_addr` asks the addresses of interfaces, and nothing else.
fn own6(facts: &Facts<'_>, ask: &BindAsk, address: Ipv6Addr, settings: &PortFacts) -> Option<bool> {
    let addresses = facts.addresses_of(ask.netns);
    let mut known = addresses.iter().filter(|a| a.address == address);
    // One of an interface alone, or of this host alone, has to be at the interface bound to.
    let is_narrow = address.is_unicast_link_local() || address.is_loopback();
    let is_there = match ask.ifindex {
        Some(index) if is_narrow => known.any(|a| a.ifindex == index),
        _ => known.next().is_some(),
    };
    if is_there { Some(true) } else { settings.nonlocal6 }
}

/// Whether the user may have the port.
fn allowed(ask: &BindAsk, settings: &PortFacts, notes: &mut Vec<BindNote>) -> Check {
    if ask.privileged {
        return Check::Yes;
    }
    match settings.unprivileged_from {
        Some(from) if ask.port.0 < from => {
            notes.push(BindNote::Privileged(from));
            Check::No
        }
        None if ask.port.0 < PRIVILEGED => {
            notes.push(BindNote::PrivilegedNotKnown);
            Check::Unknown
        }
        _ => Check::Yes,
    }
}

/// Whether no socket is in the way.
fn free(facts: &Facts<'_>, ask: &BindAsk, sockets: &[PortSocket]) -> Check {
    let each: Vec<Option<bool>> = sockets.iter().map(|found| conflict(facts, ask, found)).collect();
    let unknown = each.contains(&None);
    // UDP looks no further once it has met a socket that it may share the port with: then it
    // depends on which it meets first.
    let may_stop = ask.proto == Proto::Udp && ask.reuse_port && unknown;
    if each.contains(&Some(true)) && !may_stop {
        Check::No
    } else if unknown {
        Check::Unknown
    } else {
        Check::Yes
    }
}

/// Whether a socket keeps another one from being bound.
pub(super) fn conflict(facts: &Facts<'_>, asked: &BindAsk, other: &PortSocket) -> Option<bool> {
    // TCP counts the ports of each VRF apart, unless a setting joins them.
    if asked.proto == Proto::Tcp
        && vrf(facts, asked.netns, asked.ifindex) != vrf(facts, asked.netns, other.socket.ifindex)
    {
        return conflict::conflict(asked, other).filter(|conflicts| !conflicts);
    }
    conflict::conflict(asked, other)
}

/// The VRF that a device is, or belongs to.
fn vrf(facts: &Facts<'_>, netns: NetnsId, ifindex: Option<u32>) -> Option<u32> {
    let index = ifindex?;
    let links = facts.links_of(netns);
    let is_vrf = |index: u32| {
        let kind = |kind: &LinkKind| matches!(kind, LinkKind::Other(kind) if kind == "vrf");
        links.iter().any(|link| link.index == index && kind(&link.kind))
    };
    let master = links.iter().find(|link| link.index == index).and_then(|link| link.master);
    [Some(index), master].into_iter().flatten().find(|index| is_vrf(*index))
}

/// The programs that have a word in it when a socket of this kind of address is bound: of the
/// cgroup that the tool is in, and of those above it. Who binds may be in another one.
fn programs(facts: &Facts<'_>, address: IpAddr) -> Vec<CgroupProgram> {
    let ipv6 = address.to_canonical().is_ipv6();
    let all = facts.world.cgroup_programs(CgroupOf::Own).value;
    all.iter().flat_map(|all| all.iter()).filter(|one| one.at.binds(ipv6)).cloned().collect()
}

fn is_known(program: &CgroupProgram) -> bool {
    program.program.balancer.is_some()
}

/// Whether no program of a cgroup may refuse it. Kernel: `BPF_CGROUP_RUN_PROG_INET4_BIND_LOCK` and
/// `…_POST_BIND` in `net/ipv4/af_inet.c`, the same of IPv6 in `net/ipv6/af_inet6.c`.
fn permitted(facts: &Facts<'_>, ask: &BindAsk, notes: &mut Vec<BindNote>) -> Check {
    let read = facts.world.cgroup_programs(CgroupOf::Own);
    // An older recording says nothing of them.
    if read.gaps.iter().any(|gap| gap.source.kind != GapKind::Recording) {
        notes.push(BindNote::ProgramsNotRead);
        return Check::Yes;
    }
    let mut all = programs(facts, ask.address);
    all.retain(|one| !is_known(one));
    let check = if all.is_empty() { Check::Yes } else { Check::Unknown };
    notes.extend(all.into_iter().map(|one| BindNote::Program(InTheWay::OnCgroup(one))));
    check
}

/// What may refuse a server where nothing has the port: "surely nothing" is not "a bind works".
pub(super) fn refusers(facts: &Facts<'_>, query: &Query, paths: &[Path]) -> Vec<Finding> {
    if !paths.is_empty() || query.subject.is_some() {
        return Vec::new();
    }
    let address = match query.scope {
        Scope::Address(address) => address,
        Scope::Everywhere => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut all = programs(facts, address);
    if query.scope == Scope::Everywhere {
        for one in programs(facts, Ipv4Addr::UNSPECIFIED.into()) {
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    all.retain(|one| !is_known(one));
    let finding = |one: CgroupProgram| {
        let what = InTheWay::OnCgroup(one);
        Finding {
            code: FindingCode::BindProgram,
            what: format!("{what} may refuse a server that binds here, and is not evaluated"),
            cause: None,
            fix: what.advice(),
            evidence: Vec::new(),
        }
    };
    all.into_iter().take(few::NAMED).map(finding).collect()
}

/// Of what does not work for both versions of IP, what does for one.
fn alternatives(
    facts: &Facts<'_>,
    ask: &BindAsk,
    sockets: &[PortSocket],
    both: Check,
    notes: &mut Vec<BindNote>,
) {
    let is_dual = ask.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !ask.v6only;
    if both == Check::Yes || !is_dual {
        return;
    }
    let four = BindAsk { address: Ipv4Addr::UNSPECIFIED.into(), ..*ask };
    let six = BindAsk { v6only: true, ..*ask };
    for (ipv6, alone) in [(false, four), (true, six)] {
        let refused = programs(facts, alone.address).iter().any(|one| !is_known(one));
        if !refused && free(facts, &alone, sockets) == Check::Yes {
            notes.push(BindNote::OnlyFor { ipv6 });
        }
    }
}

/// Who else may want the port.
fn worth_knowing(ask: &BindAsk, settings: &PortFacts, notes: &mut Vec<BindNote>) {
    let Some(range) = settings.ephemeral.filter(|range| range.contains(ask.port)) else { return };
    match settings.is_reserved(ask.port) {
        Some(true) => notes.push(BindNote::Reserved),
        Some(false) => notes.push(BindNote::Ephemeral(range)),
        None => {}
    }
}

/// Rules and balancers take what is sent to a port before any socket does.
fn taken(facts: &Facts<'_>, query: &Query, ask: &BindAsk) -> Vec<BindNote> {
    let query = Query { proto: Some(ask.proto), ..query.clone() };
    let answer = answer_within(&facts.again(), &query, &|_| true);
    let mut notes = Vec::new();
    let mut firsts: Vec<&Hop> = answer.paths.iter().filter_map(|path| path.hops.first()).collect();
    let is_narrow = |hop: &Hop| hop.endpoint.address.is_some_and(|to| !to.is_unspecified());
    firsts.sort_by_key(|hop| is_narrow(hop));
    let mut wide: Vec<&str> = Vec::new();
    for hop in firsts {
        if is_narrow(hop) && wide.contains(&hop.detail.as_str()) {
            continue;
        }
        wide.extend((!is_narrow(hop)).then_some(hop.detail.as_str()));
        let is_rule = matches!(hop.kind, HopKind::Dnat | HopKind::Service);
        let here = hop.netns.as_ref().is_some_and(|netns| netns.id == ask.netns);
        // Nobody else is told of an address that others have.
        let words = match hop.endpoint.address {
            Some(to) if !to.is_unspecified() => format!("{} (of {to} alone)", hop.detail),
            _ => hop.detail.clone(),
        };
        let note = BindNote::TakenByRules(words);
        if is_rule && here && !notes.contains(&note) && notes.len() < few::NAMED {
            notes.push(note);
        }
    }
    notes
}

fn fix(ask: &BindAsk, notes: &[BindNote], held: &[HeldSockets]) -> Option<Advice> {
    let mut fix = Advice::new();
    for note in notes {
        let one = match note {
            BindNote::Privileged(from) => Advice::from(format!(
                "use a port from {from} on; or let the program have it: setcap cap_net_bind_service=+ep PROGRAM; or everybody: "
            ))
            .command(
                Command::new("sysctl -w")
                    .arg(format!("net.ipv4.ip_unprivileged_port_start={}", ask.port)),
            )
            .of(FixKind::SetSysctl),
            BindNote::NotOwn(own, _) if !own.is_empty() => {
                Advice::from(format!("bind to one that is there: {}", few::few(own)))
                    .of(FixKind::Bind)
            }
            BindNote::NeedsInterface => {
                Advice::from("name its interface: --device NAME").of(FixKind::Bind)
            }
            _ => continue,
        };
        fix = fix.or(one);
    }
    for one in held.iter().filter(|held| held.blocks != Some(false)).take(few::NAMED) {
        if let Some(theirs) = &one.fix {
            let between = if fix.is_empty() { "" } else { "; and " };
            fix = fix.and(between, theirs.clone());
        }
    }
    (!fix.is_empty()).then_some(fix)
}
