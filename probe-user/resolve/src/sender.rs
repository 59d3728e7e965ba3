//! A question about one sender: whether it gets through to a port, and by which way.

use std::collections::HashSet;
use std::net::IpAddr;

use super::facts::{Facts, container_name};
use super::few::few;
use super::path::{self, PacketDestination, Sender, TracedConnection};
use super::{answer_from, cluster, find_netns, health, kube, place, published, reach};
use whereis_port_model::Node;
use whereis_port_model::{
    Answer, AskedSender, Container, Gap, GapKind, Impact, Link, LinkKind, NetnsId, Path, Pid,
    Proto, Query, RouteKind, RouteQuery, Scope, SenderName, Vantage, Verdict,
};
use whereis_port_rules::PacketSender;

/// How many addresses are tried.
const ADDRESSES: usize = 64;
/// From so many ports on they are not tried one by one.
const PORTS: u16 = 16;

/// The sender that a question means.
struct ResolvedSender {
    /// Whose connection it is, or through which namespace it comes.
    netns: NetnsId,
    sender: Sender,
    asked: AskedSender,
}

/// Answers what becomes of connections that one sender makes to the ports of a question.
///
/// # Errors
/// What is wrong with the sender: nobody is called so, or it can't be told what is meant.
pub fn answer_for(node: &dyn Node, query: &Query, name: &SenderName) -> Result<Answer, String> {
    let facts = Facts::new(node);
    let (first, last) = (query.ports.first.0, query.ports.last.0);
    if last - first >= PORTS {
        return Err(format!("--from asks of at most {PORTS} ports at once"));
    }
    let found = find(&facts, name)?;
    if let (Some(from), Scope::Address(to)) = (found.asked.address, &query.scope)
        && from.is_ipv6() != to.to_canonical().is_ipv6()
    {
        return Err(format!("{from} and {to} are not of one version of IP: nobody connects so"));
    }
    facts.world.prefetch_sockets(&query.filter());
    // Who has the port anyway is asked only where that tells of more addresses. What keeps that
    // answer from being complete is no matter of this one.
    let paths = match query.scope {
        Scope::Everywhere => answer_from(&facts, query, &|_| true).paths,
        Scope::Address(_) => Vec::new(),
    };
    let facts = facts.again();
    let mut entries = Vec::new();
    let protos = Proto::ALL.into_iter().filter(|p| query.proto.is_none_or(|asked| asked == *p));
    for (proto, port) in protos.flat_map(|proto| (first..=last).map(move |port| (proto, port))) {
        for address in destinations(&facts, &found, query, &paths) {
            let to = PacketDestination { proto, address, port };
            let sender = Sender { from: vantage(&facts, &found, address), ..found.sender.clone() };
            entries.push(path::attempt(&facts, found.netns, sender, to));
        }
    }
    let asked = matches!(query.scope, Scope::Address(_));
    let mut paths = ways(&entries);
    cluster::name(&facts, &mut paths);
    let known: HashSet<path::WayKey> = paths.iter().map(path::way_key).collect();
    let joined = kube::join_ways(&facts, query, &mut paths);
    paths.retain(|path| known.contains(&path::way_key(path)));
    let mut reach = reach::of_sender(&facts, &entries, asked);
    let mut findings = health::check(&facts, &paths, &mut reach);
    findings.extend(joined.findings);
    findings.extend(joined.unserved);
    let verdict = if reach.iter().any(|r| r.reachable == Some(true)) {
        Verdict::Found
    } else if reach.iter().any(|r| r.reachable.is_none()) || reach.is_empty() {
        Verdict::Unknown
    } else {
        Verdict::NotFound
    };
    facts.say_cut(Impact::Reach);
    let mut gaps = facts.gaps();
    gaps.retain(|gap| gap.impact != Impact::Bind);
    Ok(Answer {
        query: query.clone(),
        sender: Some(found.asked),
        verdict,
        drops: health::drops(&facts, &paths),
        paths,
        more: facts.unshown(),
        reach,
        held: Vec::new(),
        more_held: 0,
        within: None,
        flows: None,
        gaps,
        findings,
    })
}

/// Where a sender is, seen from the tool's namespace.
fn vantage(facts: &Facts<'_>, found: &ResolvedSender, to: IpAddr) -> Vantage {
    match &found.sender.by {
        Some(_) => found.sender.from,
        None if found.netns != facts.host.own_netns => Vantage::Containers,
        None if to.is_loopback() => Vantage::Loopback,
        None => Vantage::Node,
    }
}

/// The addresses that are tried: the one that was asked for; or those of the tool's namespace, and
/// where nobody there has the port, those at which others have it, as far as the sender has a
/// route there.
fn destinations(
    facts: &Facts<'_>,
    found: &ResolvedSender,
    query: &Query,
    paths: &[Path],
) -> Vec<IpAddr> {
    if let Scope::Address(address) = query.scope {
        let to = address.to_canonical();
        // Whoever connects to the unspecified address gets its own loopback.
        let is_own = to.is_unspecified() && found.sender.by.is_none();
        return vec![if is_own { path::loopback(to.is_ipv6()) } else { to }];
    }
    let mut all: Vec<IpAddr> = Vec::new();
    let mut add = |address: IpAddr| {
        if !all.contains(&address) {
            all.push(address);
        }
    };
    let usable = |netns| path::usable_addresses(facts, netns);
    let own = facts.host.own_netns;
    let is_own_process = found.sender.by.is_none() && found.netns == own;
    if is_own_process {
        let theirs = facts.addresses_of(own);
        let loopback =
            |a: &&whereis_port_model::Address| a.address == path::loopback(a.address.is_ipv6());
        theirs.iter().filter(loopback).for_each(|a| add(a.address));
    }
    usable(own).into_iter().for_each(&mut add);
    if let Some((nic, _)) = &found.sender.by {
        let narrow = path::link_local_only(facts, own);
        narrow.iter().filter(|a| a.ifindex == nic.index).for_each(|a| add(a.address));
    }
    let hops = || {
        let firsts = paths.iter().filter_map(|path| path.hops.first());
        firsts.filter_map(|hop| Some((hop, hop.netns.as_ref()?.id)))
    };
    // Who has the port here is meant, and not who has one of that number elsewhere; least of
    // all the sender itself.
    let is_here = hops().any(|(_, netns)| netns == own);
    // What other machines would send to others' addresses is a matter of their routes.
    let is_outside = found.sender.by.is_some();
    let meant = |netns: NetnsId| netns == own || !is_here && !is_outside && netns != found.netns;
    for (hop, netns) in hops().filter(|(_, netns)| meant(*netns)) {
        match hop.endpoint.address {
            Some(address) if address.is_loopback() && !is_own_process => {}
            Some(address) if !address.is_unspecified() => add(address),
            _ if netns != own => {
                usable(netns)
                    .into_iter()
                    .filter(|a| leads(facts, found.netns, *a))
                    .for_each(&mut add);
            }
            _ => {}
        }
    }
    if let Some(from) = found.asked.address {
        all.retain(|to| to.is_ipv6() == from.is_ipv6());
    }
    if all.len() > ADDRESSES {
        let left = all.len() - ADDRESSES;
        facts.gap(Gap::new(
            Impact::Reach,
            GapKind::Addresses,
            format!("{left} more addresses were not tried: ask for one, as ADDRESS:PORT"),
        ));
        all.truncate(ADDRESSES);
    }
    all
}

/// Whether a namespace has a route to an address of another one.
fn leads(facts: &Facts<'_>, netns: NetnsId, to: IpAddr) -> bool {
    let query = RouteQuery::new(netns, to, 0);
    super::route::decide(facts, &query).is_some_and(|found| found.kind == RouteKind::Unicast)
}

/// Each way that the connections take, once.
fn ways(entries: &[TracedConnection]) -> Vec<Path> {
    let mut known = HashSet::new();
    let mut paths = Vec::new();
    for arrival in entries.iter().flat_map(|entry| &entry.arrivals) {
        let path = path::to_path(arrival.clone());
        if !path.hops.is_empty() && known.insert(path::way_key(&path)) {
            paths.push(path);
        }
    }
    paths
}

/// Finds who is meant.
fn find(facts: &Facts<'_>, name: &SenderName) -> Result<ResolvedSender, String> {
    match name {
        SenderName::Process(pid) => of_process(facts, *pid),
        SenderName::Container(name) => {
            let all = facts.take(facts.world.containers());
            let meant: Vec<&Container> =
                all.iter().filter(|c| super::reverse::is_container(c, name)).collect();
            of_container(facts, &format!("container {name:?}"), &meant, &all)
        }
        SenderName::Pod(namespace, name) => {
            let all = facts.take(facts.world.containers());
            let is_it = |c: &&Container| {
                let pod = c.pod.as_ref().filter(|pod| pod.name.as_ref() == Some(name));
                pod.is_some_and(|pod| {
                    namespace.is_none() || pod.namespace.as_ref() == namespace.as_ref()
                })
            };
            let mut meant: Vec<&Container> = all.iter().filter(is_it).collect();
            let pods: HashSet<_> =
                meant.iter().filter_map(|c| c.pod.as_ref()?.namespace.as_ref()).collect();
            if pods.len() > 1 {
                return Err(format!(
                    "pods of several namespaces are called {name:?}: write pod:NAMESPACE/{name}, with one of {}",
                    few(&pods)
                ));
            }
            // What its containers have in common is theirs; the first stands for all.
            meant.sort_by_key(|c| (c.sandbox, c.name.clone()));
            meant.truncate(1);
            of_container(facts, &format!("pod {name:?}"), &meant, &all)
        }
        SenderName::Netns(name) => {
            let netns = find_netns(facts, name)?;
            let text = format!("netns {}", facts.netns_ref(netns));
            Ok(anybody(facts, netns, text))
        }
        SenderName::Address(address) => of_address(facts, address.to_canonical()),
        SenderName::Device(name) => of_device(facts, name),
    }
}

/// Some process of a namespace.
fn anybody(facts: &Facts<'_>, netns: NetnsId, name: String) -> ResolvedSender {
    let asked = AskedSender {
        name,
        netns: Some(facts.netns_ref(netns)),
        process: None,
        device: None,
        address: None,
    };
    ResolvedSender { netns, sender: Sender::process(Vantage::Node), asked }
}

fn of_process(facts: &Facts<'_>, pid: Pid) -> Result<ResolvedSender, String> {
    let process = facts
        .process(pid)
        .ok_or_else(|| format!("there is no process {pid}, or it can't be read: ps -fp {pid}"))?;
    let name = format!("{}, pid {pid}", process.name());
    let netns = process.netns.ok_or_else(|| {
        format!(
            "the network namespace of {name} can't be read: ask as root, or with CAP_SYS_PTRACE"
        )
    })?;
    let mut found = anybody(facts, netns, name);
    found.sender.process = Some(pid);
    found.asked.process = Some(pid);
    Ok(found)
}

fn of_container(
    facts: &Facts<'_>,
    what: &str,
    meant: &[&Container],
    all: &[Container],
) -> Result<ResolvedSender, String> {
    let container = match meant {
        [one] => *one,
        [] => {
            let names = all.iter().map(container_name).collect::<std::collections::BTreeSet<_>>();
            let there = match names.len() {
                0 => "no container runtime tells of any here".to_owned(),
                _ => format!("there is {}", few(&names)),
            };
            return Err(format!(
                "no {what} is known on this node: {there}; or use pid:N or netns:NAME"
            ));
        }
        several => {
            let ids: Vec<&str> = several.iter().map(|c| c.id.get(..12).unwrap_or(&c.id)).collect();
            return Err(format!("{what} is several: ask by id: {}", few(ids)));
        }
    };
    let netns = published::home(facts, container).ok_or_else(|| {
        format!("where {what} runs is not known: its first process is not visible from here, or it does not run")
    })?;
    let name = match container
        .pod
        .as_ref()
        .and_then(|pod| Some((pod.namespace.as_ref()?, pod.name.as_ref()?)))
    {
        Some((namespace, name)) => format!("pod {namespace}/{name}"),
        None => format!("container {}", container_name(container)),
    };
    let mut found = anybody(facts, netns, name);
    found.sender.process = container.pid;
    found.asked.process = container.pid;
    Ok(found)
}

/// Who has an address: a namespace of this node, or somebody beyond it.
fn of_address(facts: &Facts<'_>, address: IpAddr) -> Result<ResolvedSender, String> {
    let own = facts.host.own_netns;
    if address.is_loopback() || facts.addresses_of(own).iter().any(|a| a.address == address) {
        let mut found = anybody(facts, own, format!("this host ({address})"));
        found.asked.address = Some(address);
        found.sender.address = Some(address);
        return Ok(found);
    }
    let query = RouteQuery::new(own, address, 0);
    let route = super::route::decide(facts, &query);
    let oif = route.filter(|r| r.kind == RouteKind::Unicast).and_then(|r| r.oif);
    let links = facts.links_of(own);
    let link = links.iter().find(|l| Some(l.index) == oif);
    // Behind a device that leads outside is another machine, whoever here has that address.
    let outside =
        link.is_some_and(|l| path::leads_outside(l, &links) && l.kind != LinkKind::Bridge);
    let near = if outside { Vec::new() } else { place::locate(facts, own, address) };
    if let Some(netns) = near.first() {
        let name = format!("{address} (netns {})", facts.netns_ref(*netns));
        let mut found = anybody(facts, *netns, name);
        found.asked.address = Some(address);
        found.sender.address = Some(address);
        return Ok(found);
    }
    let Some(link) = link else {
        return Err(format!(
            "no route leads to {address}, so by which device it sends is not known: use the name of a device"
        ));
    };
    Ok(behind(facts, link, PacketSender::Address(address), format!("{address} by {}", link.name)))
}

/// Whoever sends by a device of the tool's namespace.
fn behind(facts: &Facts<'_>, link: &Link, source: PacketSender, name: String) -> ResolvedSender {
    let links = facts.links_of(link.netns);
    let from =
        if path::leads_outside(link, &links) { Vantage::Outside } else { Vantage::Containers };
    let address = match source {
        PacketSender::Address(address) => Some(address),
        PacketSender::Elsewhere => None,
    };
    let device = Some(link.name.clone());
    let asked = AskedSender { name, netns: None, process: None, device, address };
    ResolvedSender { netns: link.netns, sender: Sender::behind(from, link, (source, None)), asked }
}

fn of_device(facts: &Facts<'_>, name: &str) -> Result<ResolvedSender, String> {
    let own = facts.host.own_netns;
    let links = facts.links_of(own);
    let Some(link) = links.iter().find(|l| l.name == name) else {
        let names = links.iter().map(|l| &l.name).collect::<Vec<_>>();
        return Err(format!(
            "nobody is called {name:?}: write pod:NAMESPACE/NAME, container:NAME, pid:N, netns:NAME, an address, or a device of this namespace ({})",
            few(names)
        ));
    };
    if link.kind == LinkKind::Loopback {
        return Ok(anybody(facts, own, "this host".to_owned()));
    }
    Ok(behind(facts, link, PacketSender::Elsewhere, format!("whoever sends by {name}")))
}
