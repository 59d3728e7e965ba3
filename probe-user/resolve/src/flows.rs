//! What the connections that conntrack knows now say: how many there are on the
//! ports of a question, and whether rules do what they promise.

mod parties;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::facts::Facts;
use super::few::few;
use whereis_port_model::Node;
use whereis_port_model::{
    Advice, Answer, Balancer, Command, Evidence, EvidenceSource, Finding, FindingCode, FixKind,
    Flow, FlowFilter, Flows, FlowsTo, Gap, GapKind, HopKind, Impact, NetnsId, Path, Proto, Query,
    Scope,
};

/// Adds to an answer which connections there are now. Without `each`, those are
/// counted that concern one port and a namespace on the answer's paths; with it,
/// they are listed, of all namespaces.
pub fn add(node: &dyn Node, answer: &mut Answer, each: bool) {
    let query = &answer.query.clone();
    if !each && query.ports.first != query.ports.last {
        return;
    }
    let facts = Facts::new(node);
    let places = if each { facts.all_netns() } else { on_paths(&facts, answer) };
    if places.is_empty() {
        return;
    }
    // A count is of what the answer shows. For each protocol the kernel walks through the
    // table of all connections.
    let proto = query.proto.or_else(|| if each { None } else { only_proto(answer) });
    let filter = FlowFilter { proto, ports: query.ports };
    let read = facts.world.flows(&places, &filter);
    // That a count, which nobody asked for, is missing altogether is no news.
    let told = each || !read.value.is_empty();
    let unread = !read.gaps.is_empty() && read.value.is_empty();
    let untold = cilium_tracks(&facts, &places);
    if each && untold {
        answer.gaps.push(
            Gap::new(
                Impact::Flow,
                GapKind::Connections,
                "Cilium keeps those that it translates in maps of its own, which are not read",
            )
            .remedy("ask its agent: cilium-dbg bpf ct list global"),
        );
    }
    if told {
        let new: Vec<Gap> = read.gaps.into_iter().filter(|g| !answer.gaps.contains(g)).collect();
        answer.gaps.extend(new);
    }
    // That there are none is said only where all are told.
    if unread || untold && read.value.is_empty() {
        return;
    }
    let mut flows = read.value;
    compare(answer, &flows, facts.host.own_netns);
    if !flows.is_empty() {
        flows.retain(|flow| is_asked(flow, query));
        retain_served(&facts, &places, &mut flows);
    }
    let order = |id: NetnsId| places.iter().position(|place| *place == id);
    flows.sort_by_cached_key(|f| (order(f.netns), f.proto, f.destination, f.served_by, f.source));
    let mut summary = summary(&flows);
    for (id, open) in count(flows.iter().filter(|f| f.is_open()).map(|f| f.netns)) {
        summary.places.push((facts.netns_ref(id), open));
    }
    summary.places.sort_by_key(|(place, _)| order(place.id));
    if each {
        summary.parties = parties::of(&facts, &flows);
        let open: Vec<&Flow> = flows.iter().filter(|flow| flow.is_open()).collect();
        summary.clients = Some(parties::clients(&distinct(&open), &summary.parties));
        let new = facts.gaps().into_iter().filter(|gap| gap.impact == Impact::Flow);
        let new: Vec<Gap> = new.filter(|gap| !answer.gaps.contains(gap)).collect();
        answer.gaps.extend(new);
        let named = flows.into_iter().map(|flow| (facts.netns_ref(flow.netns), flow));
        summary.each = Some(named.collect());
    }
    answer.flows = Some(summary);
}

/// Whether Cilium translates connections of these namespaces: conntrack does not know them.
fn cilium_tracks(facts: &Facts<'_>, places: &[NetnsId]) -> bool {
    let frontends = facts.world.frontends(places).value;
    frontends.iter().any(|one| one.balancer == Balancer::Cilium)
}

/// Says of what rules and balancers take whether connections go there now.
fn compare(answer: &mut Answer, flows: &[Flow], own: NetnsId) {
    if flows.is_empty() {
        return;
    }
    let root = |path: &Path| {
        let hop = path.hops.first()?;
        let taken = matches!(hop.kind, HopKind::Dnat | HopKind::Service);
        let (netns, port) = (hop.netns.as_ref()?.id, hop.endpoint.port?);
        let address = hop.endpoint.address.filter(|a| !a.is_unspecified());
        taken.then_some(Front { netns, proto: hop.proto, address, port: port.0 })
    };
    let target = |path: &Path| {
        let hop = path.hops.get(1)?;
        Some(SocketAddr::new(hop.endpoint.address?, hop.endpoint.port?.0))
    };
    let mut fronts: Vec<(Front, Vec<SocketAddr>)> = Vec::new();
    for path in &answer.paths {
        let Some(front) = root(path) else { continue };
        match fronts.iter_mut().find(|(known, _)| *known == front) {
            Some((_, targets)) => targets.extend(target(path)),
            None => fronts.push((front, target(path).into_iter().collect())),
        }
    }
    for (front, targets) in fronts {
        let confirmed = confirm(flows, front, &targets);
        for path in answer.paths.iter_mut().filter(|path| root(path) == Some(front)) {
            let leads_to = target(path);
            let evidence = confirmed.targets.iter().find(|(to, _)| Some(*to) == leads_to);
            if let (Some(hop), Some((_, evidence))) = (path.hops.get_mut(1), evidence) {
                hop.evidence.push(evidence.clone());
            }
        }
        if let Some(changed) = &confirmed.changed {
            let finding = old_connections(front, changed, front.netns == own);
            if !answer.findings.contains(&finding) {
                answer.findings.push(finding);
            }
        }
    }
}

/// The namespaces that an answer's paths go through, in the order of all.
fn on_paths(facts: &Facts<'_>, answer: &Answer) -> Vec<NetnsId> {
    let hops = answer.paths.iter().flat_map(|path| &path.hops);
    let on: BTreeSet<NetnsId> = hops.filter_map(|hop| Some(hop.netns.as_ref()?.id)).collect();
    facts.all_netns().into_iter().filter(|id| on.contains(id)).collect()
}

/// Whether it is to the address that was asked for, or served there.
fn is_asked(flow: &Flow, query: &Query) -> bool {
    let Scope::Address(address) = query.scope else { return true };
    let address = address.to_canonical();
    address.is_unspecified() || [flow.destination.ip(), flow.served_by.ip()].contains(&address)
}

/// The protocol of all paths, where they have the same.
fn only_proto(answer: &Answer) -> Option<Proto> {
    let mut protos = answer.paths.iter().flat_map(|path| &path.hops).map(|hop| hop.proto);
    let first = protos.next()?;
    protos.all(|proto| proto == first).then_some(first)
}

/// Keeps what something here serves. The addresses of `places` nearly always tell; those of
/// all namespaces, which may be hundreds, are read when they don't.
fn retain_served(facts: &Facts<'_>, places: &[NetnsId], flows: &mut Vec<Flow>) {
    let addresses = |netns: &[NetnsId]| -> HashSet<IpAddr> {
        facts.take(facts.world.addresses(netns)).iter().map(|a| a.address).collect()
    };
    let none = HashSet::new();
    if flows.iter().all(|flow| is_served(flow, &none)) {
        return;
    }
    let near = addresses(places);
    if flows.iter().all(|flow| is_served(flow, &near)) {
        return;
    }
    let local = addresses(&facts.all_netns());
    flows.retain(|flow| is_served(flow, &local));
}

/// Whether something here serves it, or passes it on. What clients of this node
/// have open to the same port elsewhere is another matter.
fn is_served(flow: &Flow, local: &HashSet<IpAddr>) -> bool {
    let is_here = |address: IpAddr| address.is_loopback() || local.contains(&address);
    flow.is_translated() || is_here(flow.destination.ip()) || is_here(flow.served_by.ip())
}

/// Counts the connections that go on. `flows` are in the order of namespaces.
fn summary(flows: &[Flow]) -> Flows {
    let open: Vec<&Flow> = flows.iter().filter(|flow| flow.is_open()).collect();
    let connections = distinct(&open);
    let peers: BTreeSet<IpAddr> = connections.iter().map(|flow| flow.source.ip()).collect();
    let mut to: Vec<FlowsTo> = count(connections.iter().map(|flow| flow.served_by))
        .into_iter()
        .map(|(server, connections)| FlowsTo { server, connections })
        .collect();
    to.sort_by_key(|to| (std::cmp::Reverse(to.connections), to.server));
    Flows {
        open: connections.len(),
        peers: peers.len(),
        unanswered: connections.iter().filter(|flow| !flow.answered).count(),
        to,
        places: Vec::new(),
        each: None,
        parties: BTreeMap::new(),
        clients: None,
    }
}

/// Of a connection that several namespaces track on its way only the first: a flow
/// goes on as one that begins where it, translated, ends. Each namespace has a
/// loopback of its own, where nothing comes from another.
fn distinct<'a>(flows: &[&'a Flow]) -> Vec<&'a Flow> {
    type Leg = (Proto, SocketAddr, SocketAddr);
    let before = |f: &Flow| -> Leg { (f.proto, f.source, f.destination) };
    let after = |f: &Flow| -> Leg { (f.proto, f.seen_as, f.served_by) };
    let mut leads_to: HashMap<Leg, Vec<usize>> = HashMap::new();
    for (at, flow) in flows.iter().enumerate() {
        leads_to.entry(after(flow)).or_default().push(at);
    }
    let is_further = |at: usize, flow: &Flow| {
        let others = leads_to.get(&before(flow)).into_iter().flatten();
        let mut others = others.filter_map(|other| Some((*other, *flows.get(*other)?)));
        // Without NAT each of two is the other's continuation: the first stays.
        let plain = before(flow) == after(flow);
        !flow.destination.ip().is_loopback()
            && others.any(|(other, known)| {
                let same = plain && before(known) == after(known);
                known.netns != flow.netns && (!same || other < at)
            })
    };
    let all = flows.iter().enumerate();
    all.filter(|(at, flow)| !is_further(*at, flow)).map(|(_, flow)| *flow).collect()
}

fn count<K: Ord>(all: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
    let mut counts = BTreeMap::new();
    for key in all {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

/// What connections are sent to, as the rules of a namespace take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Front {
    /// The namespace whose rules take it.
    pub(super) netns: NetnsId,
    pub(super) proto: Proto,
    /// The address before NAT; `None` for any.
    pub(super) address: Option<IpAddr>,
    /// The port before NAT.
    pub(super) port: u16,
}

/// What the connections of now say of where rules lead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Confirmed {
    /// Targets that connections have now, each with the evidence for its hop.
    pub(super) targets: Vec<(SocketAddr, Evidence)>,
    /// Where connections go that rules send no new ones to.
    pub(super) changed: Option<StaleTranslations>,
}

/// Connections that rules would not translate as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StaleTranslations {
    /// In words.
    pub(super) what: String,
    /// The servers of those that are translated.
    servers: Vec<IpAddr>,
}

/// What ends connections that go where rules send no new ones.
fn old_connections(front: Front, changed: &StaleTranslations, is_own: bool) -> Finding {
    let Front { proto, port, .. } = front;
    let mut fix = Advice::from("to end them");
    for (n, server) in changed.servers.iter().take(SERVERS).enumerate() {
        let delete = Command::new("conntrack -D -p").args(proto.as_str());
        let delete = delete.args("--orig-port-dst").arg(port.to_string());
        let delete = delete.args("--reply-src").arg(server.to_string());
        fix = fix.words(if n == 0 { ": " } else { ", " }).command(delete);
    }
    Finding {
        code: FindingCode::OldConnections,
        what: format!("of the connections to {port}/{proto}, {}", changed.what),
        cause: Some("rules were changed since they began".to_owned()),
        fix: (is_own && !changed.servers.is_empty()).then(|| fix.of(FixKind::Other)),
        evidence: vec![Evidence::new(EvidenceSource::Conntrack, changed.what.clone())],
    }
}

/// How many servers are named whose connections could be ended.
const SERVERS: usize = 4;

/// Compares where the connections to `front` lead with where the rules lead new
/// ones, `targets`. `flows` are those that `Conntrack::flows` gives for the front's
/// port, of its namespace or of more. That no connection confirms a target proves
/// nothing, and one that began before a rule keeps the way it began with. One that
/// is not translated at all is of note only where the front has an address: rules
/// may take the port at some addresses only.
pub(super) fn confirm(flows: &[Flow], front: Front, targets: &[SocketAddr]) -> Confirmed {
    let is_of_front = |flow: &&Flow| {
        flow.is_open()
            && (flow.netns, flow.proto) == (front.netns, front.proto)
            && flow.destination.port() == front.port
            && front.address.is_none_or(|address| address == flow.destination.ip())
    };
    let found = flows.iter().filter(is_of_front);
    let servers = count(found.map(|flow| (flow.served_by, flow.is_translated())));
    let mut confirmed = Confirmed::default();
    let mut others = Vec::new();
    let mut old = Vec::new();
    for ((server, translated), number) in servers {
        let (s, are) = if number == 1 { ("", "is") } else { ("s", "are") };
        if targets.contains(&server) {
            let detail = format!("{number} connection{s} now translated to {server}");
            confirmed.targets.push((server, Evidence::new(EvidenceSource::Conntrack, detail)));
        } else if translated {
            others.push(format!("{number} connection{s} {are} still translated to {server}"));
            old.push(server.ip());
        } else if front.address.is_some() {
            others.push(format!("{number} connection{s} {are} not translated"));
        }
    }
    if !others.is_empty() {
        old.dedup();
        confirmed.changed = Some(StaleTranslations { what: few(others), servers: old });
    }
    confirmed
}

#[cfg(test)]
mod tests;
