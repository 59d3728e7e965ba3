//! Where rules and API differ about a Service that both have, and why a Service has
//! nobody to serve it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::few::{NAMED, few};
use super::exposed::{self, ExposedAt};
use super::names::{is_of, is_running, pod_of, told};
use super::{Joined, QueriedCluster, is_everywhere, service_of};
use whereis_port_model::{
    Advice, Command, ContainerKind, Ending, Evidence, EvidenceSource, Finding, FindingCode,
    FixKind, HopKind, KubeContainer, KubeEndpoint, KubeEndpoints, KubePod, KubeService,
    KubeServicePort, ObjectName, Path, Port, Query,
};

/// What to look at where the rules of kube-proxy are not what they should be.
pub(super) const KUBE_PROXY: &str = "see whether kube-proxy runs here, and its logs: \
    kubectl -n kube-system get pods -o wide | grep kube-proxy";

/// Compares what paths and API say of each Service.
pub(super) fn add(cluster: &QueriedCluster, query: &Query, paths: &[Path], joined: &mut Joined) {
    let findings = &mut joined.findings;
    // Another cluster on this machine may have Services of the same names.
    let of_nodes = paths.iter().filter(|path| cluster.site.passes(path));
    let ours: &[Path] = &of_nodes.cloned().collect::<Vec<_>>();
    for name in &cluster.absent {
        if ours.iter().any(|path| is_of(path, name)) {
            findings.push(absent(cluster, name));
        }
    }
    let nothing = paths.is_empty();
    for service in &cluster.services {
        if cluster.endpoints_of.contains(&service.name) && is_asked(service, query, ours, nothing) {
            of_service(cluster, service, query, ours, findings);
        }
    }
    for found in ours.iter().filter_map(|path| unserved(cluster, path)) {
        if !joined.unserved.contains(&found) {
            joined.unserved.push(found);
        }
    }
}

/// Whether the question is about a Service: a path leads there, it has the port on every node,
/// or it is all that could have it. That its own address has such a port is no news otherwise.
fn is_asked(service: &KubeService, query: &Query, paths: &[Path], nothing: bool) -> bool {
    let has = |at: ExposedAt| {
        let mut all = exposed::of(service).into_iter();
        all.any(|one| one.at == at && query.ports.contains(one.port))
    };
    // A hostPort leads to a pod whoever else does.
    paths.iter().any(|path| is_of(path, &service.name) && !is_host_port(path))
        || has(ExposedAt::Node) && is_everywhere(query)
        || has(ExposedAt::Address) && nothing
}

/// Whether rules of no Service take what a path begins with.
pub(super) fn is_host_port(path: &Path) -> bool {
    path.hops.first().is_some_and(|hop| hop.kind == HopKind::Dnat && hop.socket.is_none())
}

/// Rules lead to a Service that does not exist.
fn absent(cluster: &QueriedCluster, name: &ObjectName) -> Finding {
    Finding {
        code: FindingCode::Kubernetes,
        what: format!("rules of this node lead to Service {name}, which the API does not have"),
        cause: Some(
            "it was deleted, and kube-proxy does not run here any more or lags behind".to_owned(),
        ),
        fix: Some(Advice::from(KUBE_PROXY).of(FixKind::Inspect)),
        evidence: vec![Evidence::new(
            EvidenceSource::KubernetesApi,
            format!("{}: Service {name} not found", cluster.site.source()),
        )],
    }
}

fn of_service(
    cluster: &QueriedCluster,
    service: &KubeService,
    query: &Query,
    paths: &[Path],
    findings: &mut Vec<Finding>,
) {
    let slices: Vec<&KubeEndpoints> =
        cluster.endpoints.iter().filter(|slice| slice.service == service.name).collect();
    let endpoints: Vec<&KubeEndpoint> = slices.iter().flat_map(|slice| &slice.endpoints).collect();
    let serving = taking(&endpoints);
    let evidence = || vec![Evidence::new(EvidenceSource::KubernetesApi, told(cluster, service))];
    if serving.is_empty() {
        findings.push(Finding {
            code: FindingCode::Kubernetes,
            what: format!("Service {} has no endpoint that is ready", service.name),
            cause: Some(why_none(cluster, service, &endpoints)),
            fix: Some(Advice::from(look(service)).of(FixKind::Inspect)),
            evidence: evidence(),
        });
        return;
    }
    for port in asked(service, query, paths) {
        if !slices.iter().any(|slice| exposed::has(slice, port)) {
            findings.push(Finding {
                code: FindingCode::Kubernetes,
                what: format!(
                    "Service {} has no endpoint for its port {}",
                    service.name,
                    exposed::name(port)
                ),
                cause: Some(lacking(cluster, service, port)),
                fix: Some(Advice::from(look(service)).of(FixKind::Inspect)),
                evidence: evidence(),
            });
        }
    }
    let here: BTreeSet<&str> = cluster.site.nodes.iter().map(|node| node.name.as_str()).collect();
    let local = |e: &&&KubeEndpoint| e.node.as_deref().is_some_and(|node| here.contains(node));
    let none_here = !here.is_empty() && !serving.iter().any(|e| local(&e));
    for (policy, internal) in [("externalTrafficPolicy", false), ("internalTrafficPolicy", true)] {
        let is_local = if internal { service.internal_local } else { service.external_local };
        if !is_local || !none_here || !is_asked_at(service, query, paths, internal) {
            continue;
        }
        let nodes: BTreeSet<&str> = serving.iter().filter_map(|e| e.node.as_deref()).collect();
        let nodes: Vec<String> = nodes.into_iter().map(str::to_owned).collect();
        if nodes.is_empty() {
            findings
                .push(Finding { evidence: evidence(), ..of_no_node(service, policy, &serving) });
            return;
        }
        findings.push(Finding {
            code: FindingCode::Kubernetes,
            what: format!(
                "Service {} has {policy} Local and no ready endpoint on this node; {} has",
                service.name,
                few(&nodes)
            ),
            cause: None,
            fix: Some(if internal {
                let words =
                    "connect from a pod of one of them, or set internalTrafficPolicy to Cluster";
                Advice::from(words).of(FixKind::ChangePolicy)
            } else {
                Advice::from("use an address of ").names(&nodes, "or").of(FixKind::ConnectElsewhere)
            }),
            evidence: evidence(),
        });
        return;
    }
    // Whose rules were followed to the end, all branches of them.
    let of: Vec<&Path> = paths
        .iter()
        .filter(|path| is_of(path, &service.name) && path.end.ending != Ending::Stopped)
        .collect();
    for (port, first) in ports_of(service, query, &of) {
        let ours =
            of.iter().filter(|p| p.hops.first().and_then(|h| h.endpoint.port) == Some(first));
        let internal = ours.clone().any(|path| is_internal(service, path));
        let by_rules: BTreeSet<IpAddr> = ours.filter_map(|path| backend(path)).collect();
        if by_rules.is_empty() {
            continue;
        }
        let families: BTreeSet<bool> = by_rules.iter().map(IpAddr::is_ipv6).collect();
        let in_api: BTreeSet<IpAddr> = serving
            .iter()
            .filter(|e| {
                !(if internal { service.internal_local } else { service.external_local })
                    || local(e)
            })
            .flat_map(|e| e.addresses.iter().copied())
            .filter(|a| families.contains(&a.is_ipv6()))
            .collect();
        let stale: Vec<&IpAddr> = by_rules.difference(&in_api).collect();
        let lacking: Vec<&IpAddr> = in_api.difference(&by_rules).collect();
        let mut parts = Vec::new();
        if !stale.is_empty() {
            parts.push(format!(
                "rules lead to {}, which is no ready endpoint in the API",
                few(stale)
            ));
        }
        if !lacking.is_empty() {
            parts.push(format!(
                "rules don't lead to {}, which is a ready endpoint in the API",
                few(lacking)
            ));
        }
        if !parts.is_empty() {
            findings.push(Finding {
                code: FindingCode::Kubernetes,
                what: format!(
                    "rules and API differ about Service {} port {}: {}",
                    service.name,
                    exposed::name(port),
                    parts.join("; ")
                ),
                cause: Some("kube-proxy lags behind or does not run here any more".to_owned()),
                fix: Some(Advice::from(KUBE_PROXY).of(FixKind::Inspect)),
                evidence: evidence(),
            });
        }
    }
}

/// A policy that asks for endpoints of this node, of which none says that it is on any: who makes
/// them by hand has to.
fn of_no_node(service: &KubeService, policy: &str, serving: &[&KubeEndpoint]) -> Finding {
    let addresses = few(serving.iter().flat_map(|endpoint| &endpoint.addresses));
    let cluster = Advice::from(format!("set {policy} to Cluster")).of(FixKind::ChangePolicy);
    let named = Advice::from("say in its endpoints on which node they are: nodeName");
    Finding {
        code: FindingCode::Kubernetes,
        what: format!(
            "Service {} has {policy} Local, and its endpoints ({addresses}) are on no node: none serves \
             it from outside of the cluster",
            service.name
        ),
        cause: Some("endpoints that are made by hand have no nodeName".to_owned()),
        fix: Some(cluster.or(named.of(FixKind::ChangePolicy))),
        evidence: Vec::new(),
    }
}

/// Whether a path begins at a cluster address of a Service.
fn is_internal(service: &KubeService, path: &Path) -> bool {
    let address = path.hops.first().and_then(|hop| hop.endpoint.address);
    address.is_some_and(|address| service.cluster_ips.contains(&address.to_canonical()))
}

/// Whether the question is about the cluster addresses of a Service, or about its others.
fn is_asked_at(service: &KubeService, query: &Query, paths: &[Path], internal: bool) -> bool {
    let mut of = paths.iter().filter(|path| is_of(path, &service.name)).peekable();
    if of.peek().is_some() {
        return of.any(|path| is_internal(service, path) == internal);
    }
    match query.scope {
        whereis_port_model::Scope::Address(address) => {
            service.cluster_ips.contains(&address.to_canonical()) == internal
        }
        // Ports of nodes are not for the inside.
        whereis_port_model::Scope::Everywhere => !internal,
    }
}

/// The ports of a Service that the question is about.
fn asked<'a>(service: &'a KubeService, query: &Query, paths: &[Path]) -> Vec<&'a KubeServicePort> {
    let begins = |port: Port| {
        let mut firsts = paths.iter().filter(|path| is_of(path, &service.name));
        firsts.any(|path| path.hops.first().and_then(|hop| hop.endpoint.port) == Some(port))
    };
    let all = exposed::of(service).into_iter();
    let asked = all.filter(|one| query.ports.contains(one.port) || begins(one.port));
    let asked = asked.filter(|one| query.proto.is_none_or(|proto| one.proto == Some(proto)));
    let mut ports: Vec<&KubeServicePort> = Vec::new();
    for port in asked.filter_map(|one| one.of) {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

/// Why pods are ready, and none has a port that a Service leads to.
fn lacking(cluster: &QueriedCluster, service: &KubeService, port: &KubeServicePort) -> String {
    let pods: Vec<&KubePod> = cluster.pods.iter().filter(|pod| is_selected(service, pod)).collect();
    if port.target.parse::<u16>().is_ok() {
        // Who makes endpoints by hand names their ports.
        return "its endpoints have other ports".to_owned();
    }
    let declared: BTreeSet<String> = pods
        .iter()
        .flat_map(|pod| &pod.containers)
        .flat_map(|container| &container.ports)
        .map(|port| {
            let name = port.name.as_ref().map_or_else(String::new, |name| format!("{name} "));
            format!("{name}{}", port.port)
        })
        .collect();
    let declares = match (pods.is_empty(), declared.is_empty()) {
        (true, _) => String::new(),
        (false, true) => ": they declare no port".to_owned(),
        (false, false) => format!(": they declare {}", few(declared)),
    };
    format!("targetPort is {}, a name that no port of its pods has{declares}", port.target)
}

/// Whether a Service selects a pod.
fn is_selected(service: &KubeService, pod: &KubePod) -> bool {
    let has = |(key, value): (&String, &String)| pod.labels.get(key) == Some(value);
    !service.selector.is_empty()
        && service.name.namespace == pod.name.namespace
        && service.selector.iter().all(has)
}

/// The ports of a Service that paths begin with.
fn ports_of<'a>(
    service: &'a KubeService,
    query: &Query,
    paths: &[&Path],
) -> Vec<(&'a KubeServicePort, Port)> {
    let mut ports = Vec::new();
    for first in paths.iter().filter_map(|path| path.hops.first()) {
        let Some(asked) = first.endpoint.port.filter(|port| query.ports.contains(*port)) else {
            continue;
        };
        if let Some(port) = exposed::port_for(service, first.proto, asked)
            && !ports.contains(&(port, asked))
        {
            ports.push((port, asked));
        }
    }
    ports
}

/// Where rules of a Service lead: the address of the step behind the first.
fn backend(path: &Path) -> Option<IpAddr> {
    let first = path.hops.first().filter(|hop| hop.kind == HopKind::Service)?;
    let next = path.hops.get(1)?;
    (first.netns == next.netns || next.kind == HopKind::Dnat)
        .then_some(next.endpoint.address)
        .flatten()
}

/// The endpoints that take connections: the ready ones, or where there are none, those
/// that still serve while they end.
fn taking<'a>(endpoints: &[&'a KubeEndpoint]) -> Vec<&'a KubeEndpoint> {
    let ready: Vec<&KubeEndpoint> = endpoints.iter().filter(|e| e.ready).copied().collect();
    if !ready.is_empty() {
        return ready;
    }
    endpoints.iter().filter(|e| e.serving && e.terminating).copied().collect()
}

fn why_none(
    cluster: &QueriedCluster,
    service: &KubeService,
    endpoints: &[&KubeEndpoint],
) -> String {
    if endpoints.is_empty() {
        if service.selector.is_empty() {
            return "it has no selector, and nobody made endpoints for it".to_owned();
        }
        return why_no_pod(cluster, service);
    }
    let name = |e: &&KubeEndpoint| {
        let pod = e.pod.as_ref().and_then(|name| cluster.pods.iter().find(|p| p.name == *name));
        let trouble = pod.and_then(self::trouble);
        let what = match (e.terminating, trouble) {
            (true, _) => "ending".to_owned(),
            (false, _) if pod.is_some_and(|pod| pod.is_ending) => "being deleted".to_owned(),
            (false, Some(trouble)) => format!("not ready ({trouble})"),
            (false, None) => "not ready".to_owned(),
        };
        let name = match (&e.pod, e.addresses.first()) {
            (Some(pod), _) => pod.to_string(),
            (None, Some(address)) => address.to_string(),
            (None, None) => "an endpoint".to_owned(),
        };
        format!("{name} is {what}")
    };
    few(endpoints.iter().map(name))
}

/// Why pods are no endpoints of a Service, or that there are none.
fn why_no_pod(cluster: &QueriedCluster, service: &KubeService) -> String {
    let labels = few(selector(service));
    let pods: Vec<&KubePod> = cluster.pods.iter().filter(|pod| is_selected(service, pod)).collect();
    if pods.is_empty() && cluster.selected.contains(&service.name) {
        let namespace = &service.name.namespace;
        return format!("no pod in namespace {namespace} has the labels of its selector: {labels}");
    }
    if pods.is_empty() {
        return format!("no running pod matches its selector {labels}");
    }
    let why = |pod: &&KubePod| {
        let phase = pod.phase.as_deref().unwrap_or("of unknown phase");
        let what = match (&pod.unscheduled, trouble(pod)) {
            (Some(why), _) => format!("is on no node: {why}"),
            (None, _) if pod.is_ending => "is being deleted".to_owned(),
            (None, _) if !is_running(pod) => format!("has ended ({phase})"),
            (None, Some(trouble)) => format!("is not ready ({trouble})"),
            (None, None) if pod.ips.is_empty() => format!("has no address yet ({phase})"),
            (None, None) => format!("is {phase}, and no endpoint yet"),
        };
        format!("{} {what}", pod.name)
    };
    few(pods.iter().map(why))
}

/// What keeps a pod from being ready: `container web: CrashLoopBackOff, exit code 1, 5 restarts`.
fn trouble(pod: &KubePod) -> Option<String> {
    let waits = |c: &&KubeContainer| c.waiting.is_some();
    let runs = |c: &&KubeContainer| !c.ready && c.running && c.sort == ContainerKind::Main;
    let ended = |c: &&KubeContainer| {
        !c.ready && !c.running && c.exit_code.is_some() && c.sort == ContainerKind::Main
    };
    let mut all = [pod.containers.iter().find(waits), pod.containers.iter().find(ended)]
        .into_iter()
        .chain([pod.containers.iter().find(runs)]);
    let one = all.find_map(|one| one)?;
    let mut text = format!("container {}: ", one.name);
    match &one.waiting {
        Some(reason) => text.push_str(reason),
        None if !one.running => text.push_str("it has ended"),
        // The kubelet says so of what has passed its probe.
        None => match &one.probe {
            Some(probe) => {
                text.push_str(&format!(
                    "it runs, and its readiness probe has not succeeded: {probe}"
                ));
            }
            None => text.push_str("it runs, and a probe of it has not succeeded"),
        },
    }
    let image = one
        .image
        .as_deref()
        .filter(|_| one.waiting.as_deref().is_some_and(|why| why.contains("Image")));
    if let Some(image) = image {
        text.push_str(&format!(", image {image}"));
    }
    if let Some(code) = one.exit_code.filter(|_| !one.running) {
        text.push_str(&format!(", exit code {code}"));
    }
    match one.restarts {
        0 => {}
        1 => text.push_str(", 1 restart"),
        n => text.push_str(&format!(", {n} restarts")),
    }
    Some(text)
}

fn selector(service: &KubeService) -> impl Iterator<Item = String> {
    service.selector.iter().map(|(key, value)| format!("{key}={value}"))
}

/// What shows the endpoints of a Service and the pods that it selects.
fn look(service: &KubeService) -> Command {
    let of = Command::new("kubectl -n").arg(&service.name.namespace);
    if (1..=NAMED).contains(&service.selector.len()) {
        let terms: Vec<String> = selector(service).collect();
        return of.args("get endpointslices,pods -l").arg(terms.join(","));
    }
    of.args("describe service").name(&service.name.name)
}

/// A pod is there and nobody listens where its Service, or a hostPort of its own, leads.
fn unserved(cluster: &QueriedCluster, path: &Path) -> Option<Finding> {
    if path.end.ending != Ending::Nothing {
        return None;
    }
    let (first, last) = (path.hops.first()?, &path.hops.last()?.endpoint);
    let (address, port) = (last.address?, last.port?);
    let service = match is_host_port(path) {
        true => None,
        false => {
            let name = service_of(path)?;
            Some(cluster.services.iter().find(|service| service.name == name)?)
        }
    };
    let at = |pod: &&KubePod| !pod.host_network && is_running(pod) && pod.ips.contains(&address);
    let pod = pod_of(cluster, path).or_else(|| cluster.pods.iter().find(at))?;
    let leads = match (service, first.endpoint.port) {
        (Some(service), _) => format!("Service {} leads to", service.name),
        (None, Some(asked)) => format!("hostPort {asked} leads to"),
        (None, None) => return None,
    };
    let logs = Command::new("kubectl -n").arg(&pod.name.namespace);
    let evidence = match service {
        Some(service) => told(cluster, service),
        None => format!("{}: Pod {}", cluster.site.source(), pod.name),
    };
    let what = format!("{leads} port {port} of Pod {}, where nothing listens", pod.name);
    // What has not begun, or has ended, listens nowhere.
    let (cause, fix) = match trouble(pod).filter(|_| !runs_whole(pod, port)) {
        Some(trouble) => {
            let describe = logs.args("describe pod").name(&pod.name.name);
            (format!("it is not ready ({trouble})"), describe)
        }
        None if pod.is_ending => {
            ("it is being deleted".to_owned(), logs.args("describe pod").name(&pod.name.name))
        }
        None => {
            let declared: BTreeSet<u16> =
                pod.containers.iter().flat_map(|c| &c.ports).map(|port| port.port.0).collect();
            let declares = if declared.is_empty() {
                "its containers declare no port".to_owned()
            } else {
                format!("its containers declare {}", few(declared))
            };
            let which = if service.is_some() { "targetPort" } else { "containerPort" };
            let cause = format!(
                "{which} is not what the program listens on ({declares}), or it has not started"
            );
            (cause, logs.args("logs").name(&pod.name.name))
        }
    };
    Some(Finding {
        code: FindingCode::Kubernetes,
        what,
        cause: Some(cause),
        fix: Some(Advice::from(fix).of(FixKind::Inspect)),
        evidence: vec![Evidence::new(EvidenceSource::KubernetesApi, evidence)],
    })
}

/// Whether the containers of a pod run that may listen on a port: the one that declares it, or,
/// where none does, all.
fn runs_whole(pod: &KubePod, port: Port) -> bool {
    let main = || pod.containers.iter().filter(|c| c.sort == ContainerKind::Main);
    let declares = |c: &&KubeContainer| c.ports.iter().any(|one| one.port == port);
    match main().find(declares) {
        Some(container) => container.running,
        None => main().all(|container| container.running),
    }
}
