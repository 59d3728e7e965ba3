//! Names for the ends of paths.

use super::super::few::{NAMED, few};
use super::site::ClusterSite;
use super::{QueriedCluster, service_of};
use super::{compare, exposed};
use whereis_port_model::forward::is_its_program;
use whereis_port_model::{
    Cluster, Container, Evidence, EvidenceSource, HopKind, KubeContainer, KubeEndpoint, KubeNode,
    KubePod, KubeService, ObjectName, Path, Pod, Process, Proto, Query, Service, Subject,
};

/// Who said it.
pub(super) const API: &str = "Kubernetes API";

/// Names pod, service and cluster at the end of a path.
pub(super) fn add(cluster: &QueriedCluster, query: &Query, path: &mut Path) {
    if let Some(pod) = pod_of(cluster, path).cloned() {
        name_pod(cluster, path, &pod);
    } else if let Some((endpoint, name)) = endpoint_of(cluster, path) {
        let detail = format!("{}: endpoint of Service {name}", cluster.site.source());
        if let Some(pod) = &endpoint.pod {
            path.end.pod = Some(Pod {
                namespace: Some(pod.namespace.clone()),
                name: Some(pod.name.clone()),
                node: endpoint.node.clone(),
                zone: endpoint.zone.clone(),
                ..path.end.pod.take().unwrap_or_default()
            });
        }
        path.end.evidence.push(Evidence::new(EvidenceSource::KubernetesApi, detail));
    }
    name_service(cluster, query, path);
    name_cluster(cluster, path);
}

/// Whether a path leads to this Service.
pub(super) fn is_of(path: &Path, name: &ObjectName) -> bool {
    service_of(path).is_some_and(|service| service == *name)
}

/// The pod at the end of a path, as the API has it: by its UID, its container, its name, or
/// the address that a path leaves the node for.
pub(super) fn pod_of<'a>(cluster: &'a QueriedCluster, path: &Path) -> Option<&'a KubePod> {
    let end = &path.end;
    if let Some(known) = &end.pod {
        let containers: Vec<&str> = end.containers.iter().map(|c| c.id.as_str()).collect();
        let is_it = |pod: &&KubePod| {
            let has_uid = |uid: &String| pod.uid == *uid || pod.config_hash.as_ref() == Some(uid);
            let has_container = pod
                .containers
                .iter()
                .any(|c| c.id.as_deref().is_some_and(|id| containers.contains(&id)));
            match &known.uid {
                // A name is used again by the pod that follows.
                Some(uid) => has_uid(uid) || has_container,
                None => {
                    has_container
                        || cluster.site.proves(path)
                            && known.name.as_ref() == Some(&pod.name.name)
                            && known.namespace.as_ref() == Some(&pod.name.namespace)
                }
            }
        };
        return cluster.pods.iter().find(is_it);
    }
    let last = path.hops.last().filter(|hop| hop.kind == HopKind::OffNode)?;
    let address = last.endpoint.address?;
    let mut at = cluster
        .pods
        .iter()
        .filter(|pod| !pod.host_network && pod.ips.contains(&address) && is_running(pod));
    at.next().filter(|_| at.next().is_none())
}

/// Whether a pod may have the address that it had: one that ended keeps it in the API.
pub(super) fn is_running(pod: &KubePod) -> bool {
    !matches!(pod.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// The endpoint that a path leaves the node for.
fn endpoint_of<'a>(
    cluster: &'a QueriedCluster,
    path: &Path,
) -> Option<(&'a KubeEndpoint, &'a ObjectName)> {
    let last = path.hops.last().filter(|hop| hop.kind == HopKind::OffNode)?;
    let address = last.endpoint.address?;
    let service = service_of(path)?;
    let slices = cluster.endpoints.iter().filter(|slice| slice.service == service);
    slices
        .flat_map(|slice| slice.endpoints.iter().map(move |e| (e, &slice.service)))
        .find(|(endpoint, _)| endpoint.addresses.contains(&address))
}

/// The zone of a pod, as an endpoint of a Service has it.
fn zone_of(cluster: &QueriedCluster, pod: &KubePod) -> Option<String> {
    let mut endpoints = cluster.endpoints.iter().flat_map(|slice| &slice.endpoints);
    endpoints.find(|e| e.pod.as_ref() == Some(&pod.name) && e.zone.is_some())?.zone.clone()
}

/// What the API says of a container: by its id, else by its name, which no two containers of
/// a pod share. The status names the last container that the kubelet told of, which may not
/// be the one that runs.
fn said_of<'a>(pod: &'a KubePod, container: &Container) -> Option<&'a KubeContainer> {
    let by_id = pod.containers.iter().find(|c| c.id.as_deref() == Some(&container.id));
    by_id.or_else(|| {
        let known = container.pod.as_ref()?;
        let same = known.name.as_ref() == Some(&pod.name.name)
            && known.namespace.as_ref() == Some(&pod.name.namespace);
        pod.containers.iter().find(|c| same && container.name.as_ref() == Some(&c.name))
    })
}

fn name_pod(cluster: &QueriedCluster, path: &mut Path, pod: &KubePod) {
    let known = path.end.pod.take().unwrap_or_default();
    let mut detail = format!("{}: Pod {}", cluster.site.source(), pod.name);
    if let Some(phase) = pod.phase.as_deref().filter(|phase| *phase != "Running") {
        detail.push_str(&format!(", {phase}"));
    }
    path.end.evidence.push(Evidence::new(EvidenceSource::KubernetesApi, detail));
    path.end.pod = Some(Pod {
        namespace: Some(pod.name.namespace.clone()),
        name: Some(pod.name.name.clone()),
        uid: known.uid.or_else(|| Some(pod.uid.clone())),
        labels: pod.labels.clone(),
        host_network: Some(pod.host_network),
        is_static: Some(pod.config_hash.is_some()),
        owner: pod.owner.clone().filter(|owner| !owner.starts_with("Node/")),
        node: pod.node.clone(),
        zone: zone_of(cluster, pod),
    });
    // What only a cgroup told of has no name yet.
    for container in &mut path.end.containers {
        if let Some(said) = said_of(pod, container) {
            // A sandbox is none of the containers that a pod lists.
            container.sort = Some(said.sort).filter(|_| !container.sandbox);
            container.name.get_or_insert_with(|| said.name.clone());
            if container.image.is_none() {
                container.image.clone_from(&said.image);
            }
        }
    }
}

/// The Service that leads to the pod at the end, with the name of its port.
fn name_service(cluster: &QueriedCluster, query: &Query, path: &mut Path) {
    let Some(first) = path.hops.first() else { return };
    let Some(asked) = first.endpoint.port else { return };
    let proto = first.proto;
    if let Some(service) = health_checked(cluster, path) {
        path.end.why = Some(format!(
            "health check of Service {}: load balancers ask here whether this node has an endpoint of it",
            service.name
        ));
        path.end.service = Some(Service {
            namespace: service.name.namespace.clone(),
            name: service.name.name.clone(),
            port: None,
        });
        let detail = told(cluster, service);
        path.end.evidence.push(Evidence::new(EvidenceSource::KubernetesApi, detail));
        return;
    }
    if let Some(name) = service_of(path) {
        let Some(service) = cluster.services.iter().find(|s| s.name == name) else { return };
        let port = exposed::port_for(service, proto, asked);
        if let (Some(port), Some(said)) = (port, path.end.service.as_mut()) {
            said.port.get_or_insert_with(|| exposed::name(port));
        }
        path.end
            .evidence
            .push(Evidence::new(EvidenceSource::KubernetesApi, told(cluster, service)));
        return;
    }
    if is_unnamed_frontend(path) {
        // It is one Service's own, whoever else selects the pod behind it.
        name_frontend(cluster, path);
        return;
    }
    // What a pod's hostPort leads to is led there by no Service, whichever selects the pod.
    if compare::is_host_port(path) {
        return;
    }
    let Some(pod) = pod_of(cluster, path) else { return };
    let last = path.hops.last().and_then(|hop| hop.endpoint.port);
    let Some(port) = last else { return };
    let leads = |service: &&KubeService| exposed::selects(service, pod, port);
    let services: Vec<&KubeService> = cluster.services.iter().filter(leads).collect();
    // Of several, whose name is asked for.
    let is_meant = |s: &&&KubeService| match &query.subject {
        Some(Subject::Service(namespace, name)) => {
            s.name.name == *name && namespace.as_ref().is_none_or(|n| s.name.namespace == *n)
        }
        _ => false,
    };
    let Some(service) = services.iter().find(is_meant).or(services.first()).copied() else {
        return;
    };
    let others = few(services.iter().map(|s| &s.name).filter(|name| **name != service.name));
    let of = exposed::port_to(service, pod, proto, port);
    let mut detail = told(cluster, service);
    if !others.is_empty() {
        // One is named in the field, the others where it is said how it is known.
        detail.push_str(&format!("; Services that lead there too: {}", others));
    }
    path.end.service = Some(Service {
        namespace: service.name.namespace.clone(),
        name: service.name.name.clone(),
        port: of.map(exposed::name),
    });
    path.end.evidence.push(Evidence::new(EvidenceSource::KubernetesApi, detail));
}

/// Programs that answer at the health check ports of Services.
const ANSWERS: [&str; 8] = [
    "kube-proxy",
    "cilium-agent",
    "k3s",
    "k3s-server",
    "k3s-agent",
    "kubelite",
    "kube-router",
    "microshift",
];

/// The Service whose health check a listener of the node is: its port is one, and who answers
/// there is what serves these.
fn health_checked<'a>(cluster: &'a QueriedCluster, path: &Path) -> Option<&'a KubeService> {
    let [only] = path.hops.as_slice() else { return None };
    let netns = only.netns.as_ref()?.id;
    let answers =
        |p: &Process| ANSWERS.contains(&p.comm.as_str()) && !p.own_word && is_its_program(p);
    let is_one = only.socket.is_some()
        && only.proto == Proto::Tcp
        && cluster.site.netns.contains(&netns)
        && path.end.stop.is_none()
        && !path.end.processes.is_empty()
        && path.end.processes.iter().all(answers);
    let port = only.endpoint.port.filter(|_| is_one)?;
    cluster.services.iter().find(|service| service.health_check_node_port == Some(port))
}

/// Whether a path begins with a frontend of a balancer that has no name for it: IPVS, Cilium.
pub(super) fn is_unnamed_frontend(path: &Path) -> bool {
    path.end.service.is_none()
        && path.hops.first().is_some_and(|hop| hop.kind == HopKind::Service && hop.socket.is_none())
}

/// Names a frontend by its address, port and protocol, which no two Services share.
fn name_frontend(cluster: &QueriedCluster, path: &mut Path) {
    let Some(first) = path.hops.first_mut() else { return };
    let (Some(address), Some(port)) = (first.endpoint.address, first.endpoint.port) else { return };
    // What is at no address of a Service is at the node's.
    let found = cluster.services.iter().find_map(|service| {
        Some((service, exposed::at(service, (address, true), first.proto, port)?))
    });
    let Some((service, at)) = found else { return };
    // `NodePort, Cilium (eBPF)`
    if let Some((kind, by)) = first.detail.split_once(", ") {
        first.detail = format!("{kind} of Service {}, {by}", service.name);
    }
    path.end.service = Some(Service {
        namespace: service.name.namespace.clone(),
        name: service.name.name.clone(),
        port: at.of.map(exposed::name),
    });
    let detail = told(cluster, service);
    path.end.evidence.push(Evidence::new(EvidenceSource::KubernetesApi, detail));
}

/// A Service in one line: `context kind-cluster1: Service default/web NodePort 10.96.5.127 80:30518/TCP`.
pub(super) fn told(cluster: &QueriedCluster, service: &KubeService) -> String {
    let mut text =
        format!("{}: Service {} {}", cluster.site.source(), service.name, service.kind.as_str());
    let mut addresses: Vec<String> = service.cluster_ips.iter().map(ToString::to_string).collect();
    addresses.extend(service.external_ips.iter().map(|a| format!("external {a}")));
    addresses.extend(service.load_balancer_ips.iter().map(|a| format!("load balancer {a}")));
    if addresses.is_empty() {
        addresses.push("headless".to_owned());
    }
    text.push_str(&format!(" {}", few(addresses)));
    for port in service.ports.iter().take(NAMED) {
        let node = port.node_port.map_or_else(String::new, |p| format!(":{p}"));
        let proto = port.proto.map_or_else(|| "?".to_owned(), |p| p.to_string());
        text.push_str(&format!(" {}{node}/{proto} to {}", port.port, port.target));
    }
    if service.ports.len() > NAMED {
        text.push_str(&format!(" and {} more", service.ports.len() - NAMED));
    }
    text
}

/// The cluster by its API, where nothing nearer named it; its node's name where that was
/// missing.
fn name_cluster(cluster: &QueriedCluster, path: &mut Path) {
    let node = cluster.site.node_of(path);
    let off_node = path.hops.last().is_some_and(|hop| hop.kind == HopKind::OffNode);
    // A pod of another cluster may have the same name: its UID is that of one alone.
    let is_its = cluster.site.proves(path) || pod_of(cluster, path).is_some();
    let in_it = is_its
        && (path.end.pod.is_some() || path.end.service.is_some() || path.end.component.is_some());
    match &mut path.end.cluster {
        Some(known) => {
            if let Some(node) = node.filter(|_| known.node.is_none() && !off_node) {
                known.node = Some(node.name.clone());
                known.role = known.role.take().or_else(|| node.roles.first().cloned());
            }
            if known.name.is_empty() && !off_node {
                known.name = named(cluster, None).name;
                known.source.push_str(&format!(", its name by {}", cluster.site.source()));
            }
        }
        None if in_it => path.end.cluster = Some(named(cluster, node.filter(|_| !off_node))),
        None => {}
    }
}

/// The cluster as its API and its context name it.
pub(super) fn named(cluster: &QueriedCluster, node: Option<&KubeNode>) -> Cluster {
    of_site(&cluster.site, node)
}

/// The same, of a cluster of which nothing more was asked.
pub(super) fn of_site(site: &ClusterSite, node: Option<&KubeNode>) -> Cluster {
    let context = &site.context;
    let any = node.or_else(|| site.nodes.first());
    let (distribution, name) = any.map_or(("kubernetes", None), distribution);
    Cluster {
        name: name.unwrap_or_else(|| context.cluster.clone()),
        distribution: distribution.to_owned(),
        role: node.and_then(|node| node.roles.first().cloned()),
        node: node.map(|node| node.name.clone()),
        source: format!("{API}, context {}", context.name),
    }
}

/// What made a cluster, by what its nodes say of themselves, and the cluster's name where
/// they say that.
fn distribution(node: &KubeNode) -> (&'static str, Option<String>) {
    let id = node.provider_id.as_deref().unwrap_or_default();
    // `kind://docker/cluster1/cluster1-control-plane`
    if let Some(rest) = id.strip_prefix("kind://") {
        return ("kind", rest.split('/').nth(1).map(str::to_owned));
    }
    let version = node.version.as_deref().unwrap_or_default();
    let known = ["k3s", "rke2", "k0s"];
    let by_id =
        known.into_iter().find(|name| id.strip_prefix(name).is_some_and(|r| r.starts_with("://")));
    let by_version = known.into_iter().find(|name| version.contains(&format!("+{name}")));
    (by_id.or(by_version).unwrap_or("kubernetes"), None)
}
