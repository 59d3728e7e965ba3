//! Ports that the API has and this node's rules don't: what people hunt for when a
//! NodePort does not answer.

use std::net::IpAddr;

use super::super::facts::Facts;
use super::super::few::{NAMED, few};
use super::super::path;
use super::compare::KUBE_PROXY;
use super::exposed::{self, Exposed, ExposedAt};
use super::names::{is_of, named, told};
use super::{Joined, QueriedCluster, begins_in, is_everywhere, service_of};
use whereis_port_model::{
    Advice, Balancer, Cause, ChainId, Command, Container, End, Ending, Endpoint, Evidence,
    EvidenceSource, Finding, FindingCode, FixKind, Gap, GapKind, GapSource, Hop, HopKind, Impact,
    KubeService, KubeServicePort, NetnsId, Path, Port, PortRange, Proto, Published, Query, Reach,
    Scope, Service, SetId, SocketFilter, StopKind, Vantage,
};

/// Adds a path that ends in nothing for each NodePort which the API has and no rule of its
/// node takes, and says why that may be so.
pub(super) fn add(
    facts: &Facts<'_>,
    cluster: &QueriedCluster,
    query: &Query,
    paths: &mut Vec<Path>,
    joined: &mut Joined,
) {
    addresses(facts, cluster, query, paths, joined);
    if !is_everywhere(query) {
        return;
    }
    let one = query.ports.first == query.ports.last;
    let most = if one { NAMED } else { TOLD };
    let mut told = 0;
    let mut untold = Vec::new();
    for service in &cluster.services {
        for one in exposed::of(service).into_iter().filter(|one| one.at != ExposedAt::Address) {
            let asked = query.ports.contains(one.port)
                && one.proto.is_some_and(|p| query.proto.is_none_or(|asked| asked == p));
            let Some(proto) = one.proto.filter(|_| asked) else { continue };
            if told == most {
                untold.push(format!("{}/{proto} of {}", one.port, service.name));
                continue;
            }
            told += 1;
            match one.at {
                ExposedAt::Node => node_port(facts, cluster, service, (one, proto), paths, joined),
                ExposedAt::HealthCheck if paths.iter().any(|path| is_of(path, &service.name)) => {}
                ExposedAt::HealthCheck => joined.findings.push(health_check(cluster, service, one)),
                ExposedAt::Address => {}
            }
        }
    }
    if !untold.is_empty() {
        let count = untold.len();
        joined.findings.push(Finding {
            code: FindingCode::Kubernetes,
            what: format!("{count} more ports of Services are in the API: {}", few(untold)),
            cause: None,
            fix: None,
            evidence: Vec::new(),
        });
        let why = format!("of {count} ports of Services it was not looked at who takes them here");
        let source = GapSource::new(GapKind::KubernetesApi, cluster.site.source());
        let gap = Gap::new(Impact::Name, source, why);
        facts.gap(if one { gap } else { gap.remedy("ask for fewer ports at once") });
    }
}

/// How many ports of Services are compared with the rules of this node, when several are
/// asked for.
const TOLD: usize = 64;

fn node_port(
    facts: &Facts<'_>,
    cluster: &QueriedCluster,
    service: &KubeService,
    (one, proto): (Exposed<'_>, Proto),
    paths: &mut Vec<Path>,
    joined: &mut Joined,
) {
    let evidence = vec![Evidence::new(EvidenceSource::KubernetesApi, told(cluster, service))];
    let name = &service.name;
    let what = format!("Service {name} has NodePort {}/{proto} in the API", one.port);
    if let Some(container) = cluster.site.unseen.as_ref().filter(|_| cluster.site.netns.is_empty())
    {
        // What it publishes is found without the API.
        let out = |p: &Published| p.container_port == one.port && p.host_port.is_some();
        if !container.ports.iter().any(out) {
            let finding = in_container(cluster, container, service, (one, what), evidence);
            joined.findings.push(finding);
        }
        return;
    }
    if cluster.site.netns.is_empty() {
        let nodes = Command::new("kubectl --context").arg(&cluster.site.context.name);
        let fix =
            Advice::from("ask on a node of it, or: ").command(nodes.args("get nodes -o wide"));
        let fix = fix.of(FixKind::AskElsewhere);
        joined.findings.push(Finding {
            code: FindingCode::Kubernetes,
            what: format!(
                "{what} of context {}; this machine is no node of that cluster",
                cluster.site.context.name
            ),
            cause: None,
            fix: Some(fix),
            evidence,
        });
        return;
    }
    for netns in &cluster.site.netns {
        let mut takes = paths.iter().filter(|path| is_taken(path, *netns, one, proto));
        if let Some(first) = takes.next() {
            let of_other = service_of(first).filter(|other| *other != *name);
            let all_others = takes.all(|path| service_of(path).is_some_and(|of| of != *name));
            if let Some(other) = of_other.filter(|_| all_others) {
                let (cause, fix) = cause(facts, *netns);
                joined.findings.push(Finding {
                    code: FindingCode::Kubernetes,
                    what: format!("{what}, and rules here lead to Service {other}"),
                    cause: Some(cause),
                    fix,
                    evidence: evidence.clone(),
                });
            }
            continue;
        }
        let place = facts.netns_ref(*netns);
        let node = cluster.site.node_in(*netns);
        let node_name = node.map_or_else(|| "this node".to_owned(), |n| format!("node {}", n.name));
        // Of rules that could not be read, or are left out of a recording, nothing is said.
        let is_cut = facts.budget.is_used_up(&facts.budget.of(*netns));
        let unread = is_cut || facts.has_gap(hides_rules);
        if unread {
            joined.findings.push(Finding {
                code: FindingCode::Kubernetes,
                what: match is_cut {
                    false => {
                        format!("{what}; whether rules of {node_name} take it could not be read")
                    }
                    true => format!(
                        "{what}; whether rules of {node_name} take it is not known: not all of them were followed"
                    ),
                },
                cause: None,
                fix: None,
                evidence: evidence.clone(),
            });
            continue;
        }
        let (cause, fix) = cause(facts, *netns);
        let only_in_api = Cause::OnlyInApi { node: node_name };
        let why = only_in_api.to_string();
        joined.findings.push(Finding {
            code: FindingCode::Kubernetes,
            what: format!("{what}, and {why}"),
            cause: Some(cause),
            fix: fix.clone(),
            evidence: evidence.clone(),
        });
        if *netns == facts.host.own_netns {
            let all = [Vantage::Loopback, Vantage::Node, Vantage::Outside, Vantage::Containers];
            let closed = |from| Reach {
                netns: Some(place.clone()),
                from,
                by: Vec::new(),
                address: None,
                reachable: Some(false),
                why: only_in_api.clone().into(),
                conditions: Vec::new(),
                fix: fix.clone(),
                source: None,
                accepted: false,
                tried: None,
            };
            joined.reach.extend(all.map(closed));
        }
        let hop = Hop {
            kind: HopKind::Service,
            netns: Some(place),
            endpoint: Endpoint {
                address: Some(std::net::Ipv4Addr::UNSPECIFIED.into()),
                name: None,
                port: Some(one.port),
            },
            proto,
            detail: format!("NodePort of Service {name}, by the API only"),
            socket: None,
            evidence: evidence.clone(),
            share: None,
        };
        let end = End {
            ending: Ending::Nothing,
            why: Some(why),
            service: Some(Service {
                namespace: name.namespace.clone(),
                name: name.name.clone(),
                port: one.of.map(exposed::name),
            }),
            cluster: Some(named(cluster, node)),
            ..End::default()
        };
        // A socket that holds the port says less than that nobody serves it.
        paths.push(Path { hops: vec![hop], end, ..Path::default() });
    }
}

/// How many Services are asked after of which nothing is seen.
const ASKED: usize = 8;

/// Services whose cluster address no rule of a node takes: that of each is among kube-proxy's
/// rules, whoever serves it.
fn addresses(
    facts: &Facts<'_>,
    cluster: &QueriedCluster,
    query: &Query,
    paths: &mut Vec<Path>,
    joined: &mut Joined,
) {
    if query.ports.first != query.ports.last || is_everywhere(query) && !paths.is_empty() {
        return;
    }
    let of = |service: &'_ KubeService| -> Vec<IpAddr> {
        let all = service.cluster_ips.iter().chain(&service.external_ips);
        all.chain(&service.load_balancer_ips).copied().collect()
    };
    let mut asked = 0;
    for service in &cluster.services {
        let own = of(service);
        let at = match query.scope {
            Scope::Address(address) => own.contains(&address.to_canonical()),
            Scope::Everywhere => true,
        };
        let port = service.ports.iter().find(|port| {
            let proto = port.proto.is_some_and(|p| query.proto.is_none_or(|asked| asked == p));
            proto && query.ports.contains(port.port)
        });
        let Some((port, proto)) = port.and_then(|port| Some((port, port.proto?))) else { continue };
        let Some(first) = service.cluster_ips.first().copied().filter(|_| at) else { continue };
        asked += 1;
        for netns in cluster.site.netns.iter().filter(|_| asked <= ASKED) {
            let place = Some(*netns);
            let here = |path: &&Path| begins_in(path) == place;
            // Who has the address himself answers in the Service's place.
            let stands_in = |path: &&Path| {
                let first = path.hops.first();
                first.is_some_and(|hop| {
                    let address = hop.endpoint.address.map(|address| address.to_canonical());
                    hop.socket.is_some()
                        && address.is_some_and(|a| service.cluster_ips.contains(&a))
                })
            };
            if let Some(path) = paths.iter().find(|path| here(path) && stands_in(path)) {
                joined.findings.push(in_its_place(cluster, service, path));
                continue;
            }
            let is_said = |path: &&Path| {
                let kind = path.hops.first().map(|hop| hop.kind);
                matches!(kind, Some(HopKind::Service | HopKind::Dnat)) || path.end.service.is_some()
            };
            if paths.iter().any(|path| here(&path) && is_said(&path)) {
                continue;
            }
            let to = path::PacketDestination { proto, address: first, port: port.port.0 };
            let sender = path::Sender::process(Vantage::Node);
            let tried = path::attempt(facts, *netns, sender, to);
            let is_cut = facts.budget.is_used_up(&facts.budget.of(*netns));
            let is_followed = |a: &path::Arrival| {
                a.stop.as_ref().is_none_or(|stop| stop.kind != StopKind::Unknown)
            };
            if tried.arrivals.iter().any(path::is_taken) {
                continue;
            }
            let at = (service, port, proto);
            if is_cut || facts.has_gap(hides_rules) {
                joined.findings.push(unread_address(cluster, at, (*netns, query)));
            } else if !tried.arrivals.is_empty() && tried.arrivals.iter().all(is_followed) {
                only_in_api(facts, cluster, at, (*netns, query), paths, joined);
            }
        }
    }
}

/// A process of the node that is bound to a Service's cluster address: `NodeLocal DNSCache`.
fn in_its_place(cluster: &QueriedCluster, service: &KubeService, path: &Path) -> Finding {
    let first = path.hops.first();
    let who = first.map_or("a process", |hop| hop.detail.as_str());
    let at = first.and_then(|hop| hop.endpoint.address).map_or_else(String::new, |a| a.to_string());
    Finding {
        code: FindingCode::Kubernetes,
        what: format!(
            "{at} is the cluster IP of Service {}, and {who}, is bound to it: on this node it answers in \
             the Service's place",
            service.name
        ),
        cause: Some("it is a cache on each node, as NodeLocal DNSCache".to_owned()),
        fix: None,
        evidence: vec![Evidence::new(EvidenceSource::KubernetesApi, told(cluster, service))],
    }
}

/// What the API says of a Service's addresses: those that are asked for.
fn in_api(service: &KubeService, port: &KubeServicePort, proto: Proto, query: &Query) -> String {
    let asked = match query.scope {
        Scope::Address(address) => Some(address.to_canonical()),
        Scope::Everywhere => None,
    };
    let all = service.cluster_ips.iter().chain(&service.external_ips);
    let all = all.chain(&service.load_balancer_ips);
    let all = all.filter(|address| asked.is_none_or(|asked| asked == **address));
    let all = all.map(|address| std::net::SocketAddr::new(*address, port.port.0).to_string());
    format!("Service {} has {}/{proto} in the API", service.name, few(all.collect::<Vec<_>>()))
}

/// The node of a namespace, in words.
fn node_name(cluster: &QueriedCluster, netns: NetnsId) -> String {
    let node = cluster.site.node_in(netns);
    node.map_or_else(|| "this node".to_owned(), |node| format!("node {}", node.name))
}

/// The same where the rules of a node could not be read, or followed.
fn unread_address(
    cluster: &QueriedCluster,
    (service, port, proto): (&KubeService, &KubeServicePort, Proto),
    (netns, query): (NetnsId, &Query),
) -> Finding {
    let what = in_api(service, port, proto, query);
    let node = node_name(cluster, netns);
    Finding {
        code: FindingCode::Kubernetes,
        what: format!("{what}; whether rules of {node} take it could not be read"),
        cause: None,
        fix: None,
        evidence: vec![Evidence::new(EvidenceSource::KubernetesApi, told(cluster, service))],
    }
}

/// Adds what the API says of a Service that no rule of a node has.
fn only_in_api(
    facts: &Facts<'_>,
    cluster: &QueriedCluster,
    (service, port, proto): (&KubeService, &KubeServicePort, Proto),
    (netns, query): (NetnsId, &Query),
    paths: &mut Vec<Path>,
    joined: &mut Joined,
) {
    let evidence = vec![Evidence::new(EvidenceSource::KubernetesApi, told(cluster, service))];
    let node = cluster.site.node_in(netns);
    let (cause, fix) = cause(facts, netns);
    let why = Cause::OnlyInApi { node: node_name(cluster, netns) }.to_string();
    joined.findings.push(Finding {
        code: FindingCode::Kubernetes,
        what: format!("{}, and {why}", in_api(service, port, proto, query)),
        cause: Some(cause),
        fix,
        evidence: evidence.clone(),
    });
    let asked = match query.scope {
        Scope::Address(address) => Some(address.to_canonical()),
        Scope::Everywhere => None,
    };
    let address = asked.or(service.external_ips.first().copied());
    let address = address.or(service.load_balancer_ips.first().copied());
    let hop = Hop {
        kind: HopKind::Service,
        netns: Some(facts.netns_ref(netns)),
        endpoint: Endpoint {
            address: address.or(service.cluster_ips.first().copied()),
            name: None,
            port: Some(port.port),
        },
        proto,
        detail: format!("address of Service {}, by the API only", service.name),
        socket: None,
        evidence,
        share: None,
    };
    let end = End {
        ending: Ending::Nothing,
        why: Some(why),
        service: Some(Service {
            namespace: service.name.namespace.clone(),
            name: service.name.name.clone(),
            port: Some(exposed::name(port)),
        }),
        cluster: Some(named(cluster, node)),
        ..End::default()
    };
    paths.push(Path { hops: vec![hop], end, ..Path::default() });
}

/// Whether a gap may hide rules or a load balancer that take a port, also because they are
/// left out of a recording.
fn hides_rules(gap: &Gap) -> bool {
    gap.impact == Impact::Port
        && matches!(
            gap.source.kind,
            GapKind::PacketRules | GapKind::IpSet | GapKind::Balancer | GapKind::Recording
        )
}

/// A NodePort of a node that a runtime knows as its container, and whose network is out of
/// sight: what the API says, and the ways there that need no more.
fn in_container(
    cluster: &QueriedCluster,
    container: &Container,
    service: &KubeService,
    (one, what): (Exposed<'_>, String),
    evidence: Vec<Evidence>,
) -> Finding {
    let name = container.name.as_deref().unwrap_or(&container.id);
    let of = &service.name;
    let mut fix = Advice::new();
    if let Some(port) = one.of {
        let context = Command::new("kubectl --context").arg(&cluster.site.context.name);
        let forward = context.args("-n").arg(&of.namespace).args("port-forward");
        let forward = forward.arg(format!("svc/{}", of.name));
        fix = fix.command(forward.arg(format!("{}:{}", one.port, port.port)));
        fix = fix.of(FixKind::PortForward);
    }
    if let Some(kind) = container.cluster().filter(|cluster| cluster.distribution == "kind") {
        let recreate = Advice::from("recreate kind cluster ").name(&kind.name).words(format!(
            " with extraPortMappings for containerPort {} (ports can't be added to an existing node)",
            one.port
        ));
        fix = fix.or(recreate.of(FixKind::Publish));
    }
    Finding {
        code: FindingCode::Kubernetes,
        what: format!(
            "{what} of context {}: it opens on node {name}, which is a container whose network can't be \
             seen from here, and doesn't publish it",
            cluster.site.context.name
        ),
        cause: None,
        fix: (!fix.is_empty()).then_some(fix),
        evidence,
    }
}

/// Whether rules or a load balancer of a namespace take the port.
fn is_taken(path: &Path, netns: NetnsId, one: Exposed<'_>, proto: Proto) -> bool {
    let first = path.hops.first().filter(|_| begins_in(path) == Some(netns));
    first.is_some_and(|hop| {
        let kind = matches!(hop.kind, HopKind::Service | HopKind::Dnat)
            // What filters refuse for want of a backend has no rule of NAT.
            || path.end.service.is_some();
        kind && hop.endpoint.port == Some(one.port) && hop.proto == proto
    })
}

/// Why a node may have no rules for a NodePort, and what to look at.
fn cause(facts: &Facts<'_>, netns: NetnsId) -> (String, Option<Advice>) {
    let logs = Advice::from(KUBE_PROXY).of(FixKind::Inspect);
    let frontends = facts.take(facts.world.frontends(&[netns]));
    if frontends.iter().any(|f| f.balancer == Balancer::Cilium) {
        let cause = "Cilium balances here and does not have it: its kube-proxy replacement may be off for \
                     NodePorts, or it lags behind";
        return (
            cause.to_owned(),
            Some(
                Advice::from(
                    "see cilium-dbg service list and cilium-dbg status in the Cilium pod of this node",
                )
                .of(FixKind::Inspect),
            ),
        );
    }
    if !frontends.is_empty() {
        let cause = "kube-proxy (IPVS) serves other Services here: it lags behind, or its nodePortAddresses \
                     leave out this node's addresses";
        return (cause.to_owned(), Some(logs));
    }
    if has_node_ports(facts, netns) && runs_kube_proxy(facts, netns) == Some(false) {
        let cause = "kube-proxy does not seem to run on this node: nothing listens on its health port 10256, \
                     and the rules that are here are those that it left";
        return (cause.to_owned(), Some(logs));
    }
    if has_node_ports(facts, netns) {
        let cause = "kube-proxy has rules for other NodePorts here and none for this one: it lags behind, \
                     its nodePortAddresses leave this node out, or the Service is labelled for another proxy \
                     (service.kubernetes.io/service-proxy-name)";
        return (cause.to_owned(), Some(logs));
    }
    let cause = "there is no rule of kube-proxy for any NodePort here: it does not run on this node, or \
                 can't reach the API";
    (cause.to_owned(), Some(logs))
}

/// Whether something listens on kube-proxy's health port in a namespace; `None` when that could
/// not be read.
fn runs_kube_proxy(facts: &Facts<'_>, netns: NetnsId) -> Option<bool> {
    let port = PortRange::one(Port(10256));
    let filter = SocketFilter { proto: Some(Proto::Tcp), ports: Some(port) };
    let read = facts.world.sockets(&[netns], &filter);
    (!read.value.is_empty() || read.gaps.is_empty()).then_some(!read.value.is_empty())
}

/// Whether kube-proxy has rules for any NodePort in a namespace. What each of them takes is
/// not asked: there may be thousands.
fn has_node_ports(facts: &Facts<'_>, netns: NetnsId) -> bool {
    let Some(ruleset) = path::ruleset(facts, netns) else { return false };
    ruleset.tables.iter().any(|table| match &*table.id.name {
        "nat" => {
            let chain = ChainId { table: table.id.clone(), name: "KUBE-NODEPORTS".into() };
            facts.take(facts.world.chain(&chain)).is_some_and(|rules| !rules.is_empty())
        }
        "kube-proxy" => {
            let map = SetId { table: table.id.clone(), name: "service-nodeports".into() };
            facts.take(facts.world.set_elements(&map)).is_some_and(|ports| !ports.is_empty())
        }
        _ => false,
    })
}

fn health_check(cluster: &QueriedCluster, service: &KubeService, one: Exposed<'_>) -> Finding {
    Finding {
        code: FindingCode::Kubernetes,
        what: format!(
            "{} is the health check port of Service {}: load balancers ask there whether a node has an \
             endpoint of it",
            one.port, service.name
        ),
        cause: None,
        fix: None,
        evidence: vec![Evidence::new(EvidenceSource::KubernetesApi, told(cluster, service))],
    }
}
