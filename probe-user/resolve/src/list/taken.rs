//! Ports that rules and load balancers take: rows of their own, or the target of the
//! listener that stands for them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use whereis_port_rules::dialect;
use whereis_port_rules::ports::{self, TakenPort};

use super::{ListFilter, cilium};
use crate::facts::Facts;
use crate::from_node::{self, FromNode};
use crate::path;
use crate::reserved;
use crate::route;
use crate::ruled::say_unclear;
use whereis_port_model::{
    Address, Balancer, ChainId, End, Ending, Endpoint, Frontend, FrontendKind, Gap, GapKind,
    GapSource, HopKind, Impact, ListRow, NetnsId, Port, PortKind, Proto, RouteKind, RouteQuery,
    Ruleset, Service, SetId, StopKind,
};

/// Adds what rules and balancers take in these namespaces to the rows of sockets.
pub(super) fn add(
    facts: &Facts<'_>,
    places: &[NetnsId],
    filter: &ListFilter,
    rows: &mut Vec<ListRow>,
) {
    facts.world.prefetch_rules(places);
    path::read_rulesets(facts, places);
    let mut new = Vec::new();
    let mut unclear: Vec<NetnsId> = Vec::new();
    for netns in places {
        let ruleset = path::ruleset(facts, *netns);
        if ruleset.is_none() {
            unclear.push(*netns);
        }
        if let Some(ruleset) = ruleset {
            let here = from_node::here(facts, *netns);
            let found = ports::taken(&FromNode::new(facts, *netns), &ruleset, &here);
            let asked = filter.ports.map_or(1..=u16::MAX, |p| p.first.0..=p.last.0);
            say_unclear(facts, *netns, &found, asked);
            if found.unclear.is_some() || !found.many.is_empty() {
                unclear.push(*netns);
            }
            for taken in found.ports {
                new.push(of_rules(facts, *netns, taken));
            }
        }
    }
    let frontends = facts.take(facts.world.frontends(places));
    let mut balanced = cilium::Rows::default();
    let served = cilium::ServedBackends::of(facts, &frontends, rows);
    for frontend in frontends.iter() {
        for proto in protos_of(frontend, &served) {
            if let Some(row) = of_balancer(facts, frontend, proto) {
                balanced.add(frontend, row);
            }
        }
    }
    new.extend(balanced.all);
    mark_node_ports(rows, &new, &unclear);
    // What is at addresses of services alone comes after what is the node's: what is made of
    // rules has a limit, and each address is told apart from all others.
    for netns in places {
        if let Some(ruleset) = path::ruleset(facts, *netns) {
            if has_many_services(facts, &ruleset) {
                let name = facts.netns_ref(*netns);
                let source =
                    GapSource::new(GapKind::Services, format!("addresses of their own in {name}"));
                let why =
                    "they are too many to list what is at external and load balancers' addresses";
                facts.gap(Gap::new(Impact::Way, source, why).remedy("ask for one port"));
                continue;
            }
            let here = from_node::here(facts, *netns);
            let found = ports::services(&FromNode::new(facts, *netns), &ruleset, &here);
            // Cluster IPs are no ports of the node: a question finds them.
            let is_told = |taken: &TakenPort| taken.meaning.what != Some(dialect::CLUSTER_IP);
            let told = found.ports.into_iter().filter(is_told);
            new.extend(told.map(|taken| of_rules(facts, *netns, taken)));
        }
    }
    new.retain(|row| {
        filter.proto.is_none_or(|proto| proto == row.proto)
            && filter.ports.is_none_or(|ports| ports.contains(row.port))
            && filter.ipv4.is_none_or(|ipv4| ipv4 == row.address.is_ipv4())
    });
    merge(rows, new, &|netns, ipv4| {
        let addresses = facts.addresses_of(netns);
        addresses.iter().map(|a| a.address).filter(|a| a.is_ipv4() == ipv4).collect()
    });
    let order: HashMap<NetnsId, usize> =
        facts.all_netns().into_iter().enumerate().map(|(at, id)| (id, at)).collect();
    // Stable: sockets stay in their order.
    rows.sort_by_cached_key(|row| {
        let place = order.get(&row.netns.id).copied();
        (place, row.port, row.proto, row.address.is_ipv6(), row.address, row.socket.is_none())
    });
}

/// How many rules or elements of kube-proxy are few: some hundred services.
const FEW: usize = 600;

/// Whether kube-proxy has more services in a namespace than are listed by address. That there is
/// no such chain or map is no gap.
fn has_many_services(facts: &Facts<'_>, ruleset: &Ruleset) -> bool {
    ruleset.tables.iter().any(|table| match &*table.id.name {
        "nat" => {
            let chain = ChainId { table: table.id.clone(), name: "KUBE-SERVICES".into() };
            facts.world.chain(&chain).value.as_ref().is_some_and(|rules| rules.len() > FEW)
        }
        "kube-proxy" => {
            let map = SetId { table: table.id.clone(), name: "service-ips".into() };
            facts.world.set_elements(&map).value.as_ref().is_some_and(|all| all.len() > FEW)
        }
        _ => false,
    })
}

/// Says of the sockets of kube-proxy which only reserve a port for rules or balancers.
fn mark_node_ports(rows: &mut [ListRow], new: &[ListRow], unclear: &[NetnsId]) {
    let key = |row: &ListRow| (row.netns.id, row.proto, row.port);
    let taken: HashSet<_> = new.iter().map(|row| (key(row), row.address)).collect();
    let everywhere: HashSet<_> = new.iter().map(key).collect();
    for row in rows {
        let Some(socket) = &row.socket else { continue };
        if !reserved::is_of_kube_proxy(&row.end.processes) {
            continue;
        }
        let wild = row.address.is_unspecified();
        let at = |address: IpAddr| taken.contains(&(key(row), address));
        let is_taken = match wild {
            true => everywhere.contains(&key(row)),
            false => at(row.address) || at(any(row.address.is_ipv6())),
        };
        let known = (is_taken || !unclear.contains(&row.netns.id)).then_some(is_taken);
        let mut end = (*row.end).clone();
        reserved::mark_node_port(socket, &mut end, known);
        row.end = Rc::new(end);
    }
}

/// A listener that leads to the same place stands for the rule, as docker-proxy does; so do several
/// that have all addresses of the namespace between them, which `own` tells of a version of IP.
fn merge(rows: &mut Vec<ListRow>, new: Vec<ListRow>, own: &dyn Fn(NetnsId, bool) -> Vec<IpAddr>) {
    let mut listeners: HashMap<(NetnsId, Proto, Port), Vec<usize>> = HashMap::new();
    for (at, row) in rows.iter().enumerate() {
        listeners.entry((row.netns.id, row.proto, row.port)).or_default().push(at);
    }
    for taken in new {
        let same = listeners.get(&(taken.netns.id, taken.proto, taken.port));
        let mut stands = false;
        let mut each: Vec<IpAddr> = Vec::new();
        let everywhere = taken.address.is_unspecified();
        for at in same.into_iter().flatten() {
            let Some(row) = rows.get_mut(*at) else { continue };
            let reserves = row.end.stop == Some(StopKind::Reserved);
            let leads = row.target.is_some() && row.target == taken.target;
            let one = everywhere && row.address.is_ipv4() == taken.address.is_ipv4();
            let whole = row.address.is_unspecified() || row.address == taken.address || one;
            if let Some(socket) = row.socket.as_ref().filter(|_| whole && (leads || reserves)) {
                let both = socket.is_wildcard() && socket.v6only == Some(false);
                let all = row.address.is_unspecified() || !everywhere;
                stands |= both || all && row.address.is_ipv4() == taken.address.is_ipv4();
                each.push(row.address);
                if reserves && row.target.is_none() {
                    row.target.clone_from(&taken.target);
                    row.target_detail.clone_from(&taken.target_detail);
                }
                row.taken_by.clone_from(&taken.taken_by);
                row.port_kind = taken.port_kind;
                row.service.clone_from(&taken.service);
                row.others.clone_from(&taken.others);
                row.more = taken.more;
            }
        }
        if !stands && everywhere && !each.is_empty() {
            let all = own(taken.netns.id, taken.address.is_ipv4());
            stands = !all.is_empty() && all.iter().all(|address| each.contains(address));
        }
        if !stands {
            rows.push(taken);
        }
    }
}

fn of_rules(facts: &Facts<'_>, netns: NetnsId, taken: TakenPort) -> ListRow {
    let meaning = &taken.meaning;
    let service = meaning.service.as_ref().map(|name| Service {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        port: name.port.clone(),
    });
    let mut targets: Vec<Endpoint> = Vec::new();
    targets.extend(taken.targets.iter().map(|(to, port)| endpoint(*to, *port)));
    let more = taken.total.saturating_sub(targets.len());
    let detail = match (meaning.what, &meaning.place) {
        (Some(what), Some(place)) => Some(format!("{what}, {place}")),
        (Some(what), None) => Some(what.to_owned()),
        (None, place) => place.clone(),
    };
    let why = meaning.refused.filter(|_| taken.refused).map(str::to_owned);
    let address = taken.address.unwrap_or(any(taken.ipv6));
    let port_kind = match meaning.what {
        Some(dialect::NODE_PORT) => PortKind::NodePort,
        Some(dialect::HOST_PORT) => PortKind::HostPort,
        Some(dialect::PUBLISHED) => PortKind::Published,
        Some(dialect::EXTERNAL_IP) => PortKind::ExternalIp,
        Some(dialect::LOAD_BALANCER_IP) => PortKind::LoadBalancer,
        _ if service.is_some() => PortKind::Service,
        _ => PortKind::Rules,
    };
    let row = row(facts, netns, taken.proto, address, taken.port);
    let by = meaning.by.map(str::to_owned);
    ListRow { port_kind, ..led(row, service, by, targets, more, detail, why) }
}

/// The protocols that a frontend takes. Where its balancer does not tell, those that its
/// backends on this node serve.
fn protos_of(frontend: &Frontend, served: &cilium::ServedBackends) -> Vec<Proto> {
    match frontend.proto {
        Some(number) => Proto::ALL.into_iter().filter(|p| p.number() == number).collect(),
        None => {
            let serves = |proto: &Proto| served.serves(frontend, *proto);
            let all: Vec<Proto> = Proto::ALL.into_iter().filter(serves).collect();
            if all.is_empty() { vec![Proto::Tcp] } else { all }
        }
    }
}

/// A balancer's frontend on one of the namespace's addresses, or on one that others reach
/// through it.
fn of_balancer(facts: &Facts<'_>, frontend: &Frontend, proto: Proto) -> Option<ListRow> {
    let address = cilium::address_of(frontend)?;
    if frontend.port == 0 || frontend.kind == Some(FrontendKind::ClusterIp) {
        return None;
    }
    if !cilium::is_exposed(frontend) {
        // Addresses of services are on a dummy interface with IPVS: they are no ports of
        // the node.
        let links = facts.links_of(frontend.netns);
        let dummy = links.iter().find(|l| l.name == "kube-ipvs0").map(|l| l.index);
        let of_dummy = |a: &Address| a.address == address && Some(a.ifindex) == dummy;
        let of_service = dummy.is_some() && facts.addresses_of(frontend.netns).iter().any(of_dummy);
        let query = RouteQuery::new(frontend.netns, address, 0);
        let is_own = || route::decide(facts, &query).is_some_and(|r| r.kind == RouteKind::Local);
        if of_service || !address.is_unspecified() && !is_own() {
            return None;
        }
    }
    let service = frontend.name.as_deref().and_then(|name| {
        let (namespace, rest) = name.split_once('/')?;
        let (name, port) = rest.split_once(':').map_or((rest, None), |(n, p)| (n, Some(p)));
        let port = port.map(str::to_owned);
        Some(Service { namespace: namespace.to_owned(), name: name.to_owned(), port })
    });
    let by = match frontend.balancer {
        Balancer::Ipvs => "IPVS",
        Balancer::Cilium => "Cilium",
    };
    let all = frontend.backends.iter().filter(|server| server.active);
    let mut targets: Vec<Endpoint> = all.map(|s| endpoint(s.to.ip(), s.to.port())).collect();
    let more = targets.len().saturating_sub(TakenPort::TARGETS);
    targets.truncate(TakenPort::TARGETS);
    let why = targets.is_empty().then(|| "has no backends".to_owned());
    let row = row(facts, frontend.netns, proto, address, frontend.port);
    let mut row = led(row, service, Some(by.to_owned()), targets, more, None, why);
    row.kind = HopKind::Service;
    row.port_kind = match frontend.kind {
        Some(FrontendKind::NodePort) => PortKind::NodePort,
        Some(FrontendKind::HostPort) => PortKind::HostPort,
        Some(FrontendKind::ExternalIp) => PortKind::ExternalIp,
        Some(FrontendKind::LoadBalancer) => PortKind::LoadBalancer,
        Some(FrontendKind::ClusterIp | FrontendKind::LocalRedirect) | None => PortKind::Service,
    };
    Some(row)
}

fn endpoint(address: IpAddr, port: u16) -> Endpoint {
    Endpoint { address: Some(address), name: None, port: Some(Port(port)) }
}

fn any(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// A row without a socket that leads nowhere yet.
fn row(facts: &Facts<'_>, netns: NetnsId, proto: Proto, address: IpAddr, port: u16) -> ListRow {
    ListRow {
        netns: facts.netns_ref(netns),
        kind: HopKind::Dnat,
        port_kind: PortKind::Rules,
        reached: None,
        proto,
        address,
        port: Port(port),
        socket: None,
        taken_by: None,
        service: None,
        end: Rc::default(),
        component: None,
        target: None,
        others: Vec::new(),
        more: 0,
        target_detail: None,
    }
}

/// The row of what rules or a balancer take to these targets.
fn led(
    row: ListRow,
    service: Option<Service>,
    by: Option<String>,
    mut targets: Vec<Endpoint>,
    more: usize,
    detail: Option<String>,
    why: Option<String>,
) -> ListRow {
    let ending = match (targets.is_empty(), &why) {
        (true, Some(_)) => Ending::Nothing,
        _ => Ending::Elsewhere,
    };
    let end = Rc::new(End { ending, why, service: service.clone(), ..End::default() });
    let target = (!targets.is_empty()).then(|| targets.remove(0));
    ListRow {
        kind: if service.is_some() { HopKind::Service } else { HopKind::Dnat },
        end,
        service,
        taken_by: by,
        more,
        target_detail: detail.filter(|_| target.is_some()),
        target,
        others: targets,
        ..row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(target: u16) -> ListRow {
        ListRow {
            netns: whereis_port_model::NetnsRef { id: NetnsId::Inode(1), name: None },
            kind: HopKind::Dnat,
            port_kind: PortKind::Published,
            reached: None,
            proto: Proto::Tcp,
            address: any(false),
            port: Port(8080),
            socket: None,
            taken_by: Some("Docker".to_owned()),
            service: None,
            end: Rc::default(),
            component: None,
            target: Some(endpoint(any(false), target)),
            others: Vec::new(),
            more: 0,
            target_detail: None,
        }
    }

    #[test]
    fn a_listener_stands_for_a_rule_that_leads_to_the_same_place_only() {
        let socket = whereis_port_model::Socket {
            netns: NetnsId::Inode(1),
            proto: Proto::Tcp,
            state: whereis_port_model::SocketState::Listen,
            address: any(false),
            port: Port(8080),
            v6only: None,
            inode: 1,
            uid: 0,
            ifindex: None,
            cgroup_id: None,
            queue: None,
        };
        let listener = ListRow { socket: Some(socket), taken_by: None, ..taken(80) };
        let mut rows = vec![listener.clone()];
        merge(&mut rows, vec![taken(80)], &|_, _| Vec::new());
        assert_eq!((rows.len(), rows[0].taken_by.as_deref()), (1, Some("Docker")));
        let mut rows = vec![listener];
        merge(&mut rows, vec![taken(81)], &|_, _| Vec::new());
        assert_eq!((rows.len(), rows[0].taken_by.as_deref()), (2, None));
        // One for each address that there is, or not for all.
        let at = |address: &str| ListRow {
            address: address.parse().unwrap(),
            ..ListRow { socket: rows[0].socket.clone(), taken_by: None, ..taken(80) }
        };
        let both = vec![at("127.0.0.1"), at("10.0.0.1")];
        let own = |addresses: &'static [&str]| {
            move |_, _| addresses.iter().map(|a| a.parse().unwrap()).collect()
        };
        let mut rows = both.clone();
        merge(&mut rows, vec![taken(80)], &own(&["127.0.0.1", "10.0.0.1"]));
        assert_eq!(rows.len(), 2);
        let mut rows = both;
        merge(&mut rows, vec![taken(80)], &own(&["127.0.0.1", "10.0.0.1", "10.0.0.2"]));
        assert_eq!(rows.len(), 3);
    }
}
