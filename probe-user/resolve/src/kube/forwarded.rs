//! Where kubectl leads: of which cluster the API is, by the connection that it has to it, and
//! the pods behind what its arguments name, as that API has them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::super::facts::Facts;
use super::names::is_running;
use super::site::{self, ClusterSite};
use super::{contexts, exposed, request};
use whereis_port_model::{
    Cluster, Evidence, EvidenceSource, KubeContext, KubePod, KubeService, KubeWish, NetnsId,
    ObjectName, Port, Process, Proto, Service, SocketFilter, SocketInode, SocketState,
};

/// How many pods are led to of which it chose one.
const PODS: usize = 8;

/// The API that a process is connected to.
#[derive(Debug)]
pub(crate) struct ApiConnection {
    context: KubeContext,
    /// The other end of the connection.
    pub(crate) to: SocketAddr,
    pub(crate) evidence: Evidence,
}

impl ApiConnection {
    /// The cluster, by its context.
    pub(crate) fn cluster(&self) -> Cluster {
        Cluster {
            name: self.context.cluster.clone(),
            distribution: "kubernetes".to_owned(),
            node: None,
            role: None,
            source: format!("the connection to its API, context {}", self.context.name),
        }
    }
}

/// The API of a context to which a process has a connection; of several contexts with the same
/// server the one that its arguments name, or the current one.
pub(crate) fn connected(
    facts: &Facts<'_>,
    process: &Process,
    said: Option<&str>,
) -> Option<ApiConnection> {
    let netns = process.netns?;
    let contexts = facts.take_of_api(facts.world.kube_contexts());
    let servers: Vec<(&KubeContext, SocketAddr)> = contexts
        .iter()
        .filter_map(|context| Some((context, contexts::server(&context.server)?)))
        .map(|(context, (address, port))| (context, SocketAddr::new(address, port)))
        .collect();
    if servers.is_empty() {
        return None;
    }
    let filter = SocketFilter { proto: Some(Proto::Tcp), ports: None };
    // What is not read here is another question's gap.
    let all = &facts.world.port_sockets(&[netns], &filter).value;
    let peer = |to: SocketAddr| SocketAddr::new(to.ip().to_canonical(), to.port());
    let mut open: Vec<(SocketInode, SocketAddr)> = Vec::new();
    for found in all.iter().filter(|found| found.socket.state == SocketState::Established) {
        let Some(to) = found.peer.map(peer) else { continue };
        if found.socket.inode != 0 && servers.iter().any(|(_, server)| *server == to) {
            open.push((found.socket.inode, to));
        }
    }
    let inodes: BTreeSet<SocketInode> = open.iter().map(|(inode, _)| *inode).collect();
    if inodes.is_empty() {
        return None;
    }
    let owners = facts.owners(&inodes);
    let holds = |inode| owners.of(inode).iter().any(|owner| owner.pid == process.pid);
    let to: BTreeSet<SocketAddr> =
        open.iter().filter(|(inode, _)| holds(*inode)).map(|(_, to)| *to).collect();
    let own: Vec<&(&KubeContext, SocketAddr)> =
        servers.iter().filter(|(_, server)| to.contains(server)).collect();
    let named = own.iter().find(|(context, _)| said == Some(context.name.as_str()));
    let (context, to) = match named {
        Some(one) => **one,
        None => {
            let first = own.iter().find(|(c, _)| c.current).or(own.first())?;
            // Two servers, and no word which of them is meant.
            own.iter().all(|(_, to)| *to == first.1).then_some(**first)?
        }
    };
    let detail =
        format!("pid {} is connected to {to}, the server of context {}", process.pid, context.name);
    Some(ApiConnection {
        context: context.clone(),
        to,
        evidence: Evidence::new(EvidenceSource::Descriptors, detail),
    })
}

/// The pods that something of an API stands for.
#[derive(Debug)]
pub(crate) struct SelectedPods {
    /// At most [`PODS`].
    pub(crate) pods: Vec<ChosenPod>,
    /// How many there are in all, as far as they were asked for.
    pub(crate) total: usize,
    /// Whether there may be others on nodes that were not asked.
    pub(crate) elsewhere: bool,
    /// The Service that was named.
    pub(crate) service: Option<Service>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct ChosenPod {
    pub(crate) name: ObjectName,
    /// The node that it is on.
    pub(crate) node: Option<String>,
    /// Its network namespace, if it is here.
    pub(crate) netns: Option<NetnsId>,
    /// Its port.
    pub(crate) port: Port,
}

/// The pods behind `svc/web`, `deploy/web` or `pod/web-1`, as the API of a cluster with a node
/// here has them, with the port of each. `None` where that is not known.
pub(crate) fn chosen(
    facts: &Facts<'_>,
    connected: &ApiConnection,
    object: &str,
    namespace: Option<&str>,
    port: &str,
) -> Option<SelectedPods> {
    let contexts = facts.take_of_api(facts.world.kube_contexts());
    let same = |site: &ClusterSite| {
        site.context.server == connected.context.server && site.context.ca == connected.context.ca
    };
    let site = site::of(facts, &contexts).into_iter().find(same)?;
    let (kind, name) = object.split_once('/')?;
    let namespace = namespace.or(connected.context.namespace.as_deref()).unwrap_or("default");
    let of = ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
    let mut service: Option<KubeService> = None;
    let wishes = match kind {
        "po" | "pod" | "pods" => vec![KubeWish::Pod(of)],
        "svc" | "service" | "services" => {
            let said = request(facts, &site, vec![KubeWish::Service(of)]);
            let found = said.iter().flat_map(|(_, said)| &said.services).next()?.clone();
            let (namespace, labels) = (namespace.to_owned(), found.selector.clone());
            service = Some(found);
            (!labels.is_empty()).then(|| vec![KubeWish::PodsWith { namespace, labels }])?
        }
        _ => site.nodes.iter().map(|node| KubeWish::PodsOn(node.name.clone())).collect(),
    };
    let said = request(facts, &site, wishes);
    let is_its = |pod: &&KubePod| {
        pod.name.namespace == namespace
            && is_running(pod)
            && (service.is_some() || is_of(kind, name, pod))
    };
    let pods: Vec<&KubePod> = said.iter().flat_map(|(_, said)| &said.pods).filter(is_its).collect();
    let of_pod = |pod: &&KubePod| {
        Some(ChosenPod {
            name: pod.name.clone(),
            node: pod.node.clone(),
            netns: site.netns_of(facts, pod),
            port: port_of(service.as_ref(), pod, port)?,
        })
    };
    let service = service.as_ref().map(|service| Service {
        namespace: service.name.namespace.clone(),
        name: service.name.name.clone(),
        port: service_port(service, port).map(exposed::name),
    });
    let all: Vec<ChosenPod> = pods.iter().filter_map(of_pod).collect();
    // Of what makes pods, others may be on nodes that are not asked.
    let elsewhere = !matches!(kind, "po" | "pod" | "pods") && service.is_none();
    let total = all.len();
    (total > 0).then(|| SelectedPods {
        pods: all.into_iter().take(PODS).collect(),
        total,
        elsewhere,
        service,
    })
}

/// Whether a pod is one of what `KIND/NAME` stands for, by what made it.
fn is_of(kind: &str, name: &str, pod: &KubePod) -> bool {
    let owner = pod.owner.as_deref().and_then(|owner| owner.split_once('/'));
    let made_by = |of: &str| owner == Some((of, name));
    match kind.split('.').next().unwrap_or(kind) {
        "po" | "pod" | "pods" => pod.name.name == name,
        "deploy" | "deployment" | "deployments" => owner.is_some_and(|(of, set)| {
            // A ReplicaSet's name is that of its Deployment and a hash.
            of == "ReplicaSet" && set.rsplit_once('-').is_some_and(|(of, _)| of == name)
        }),
        "rs" | "replicaset" | "replicasets" => made_by("ReplicaSet"),
        "sts" | "statefulset" | "statefulsets" => made_by("StatefulSet"),
        "ds" | "daemonset" | "daemonsets" => made_by("DaemonSet"),
        "rc" => made_by("ReplicationController"),
        "job" | "jobs" => made_by("Job"),
        _ => false,
    }
}

fn service_port<'a>(
    service: &'a KubeService,
    port: &str,
) -> Option<&'a whereis_port_model::KubeServicePort> {
    let number = port.parse().ok().map(Port);
    let is_it = |one: &&whereis_port_model::KubeServicePort| {
        one.proto == Some(Proto::Tcp)
            && (Some(one.port) == number || one.name.as_deref() == Some(port))
    };
    service.ports.iter().find(is_it)
}

/// The pod's port that a number or a name stands for: of a Service its own, which leads on.
fn port_of(service: Option<&KubeService>, pod: &KubePod, port: &str) -> Option<Port> {
    let number = port.parse().ok().map(Port);
    if let Some(service) = service {
        // The port of one without an address is the pods' own.
        let headless = service.cluster_ips.is_empty();
        return match service_port(service, port) {
            Some(of) if !headless || number.is_none() => exposed::target(of, pod),
            _ => number.filter(|_| headless),
        };
    }
    let declared = pod.containers.iter().flat_map(|container| &container.ports);
    let named = |p: &&whereis_port_model::KubeContainerPort| {
        p.name.as_deref() == Some(port) && p.proto == Some(Proto::Tcp)
    };
    number.or_else(|| declared.into_iter().find(named).map(|p| p.port))
}

impl ClusterSite {
    /// The network namespace of a pod, if it is here: the one that has its address, among those
    /// that are joined to the nodes of the cluster.
    fn netns_of(&self, facts: &Facts<'_>, pod: &KubePod) -> Option<NetnsId> {
        if pod.host_network {
            let at = self.nodes.iter().position(|node| Some(&node.name) == pod.node.as_ref())?;
            return self.netns.get(at).copied();
        }
        let is_its = |address: &IpAddr| pod.ips.contains(address);
        let all = facts.all_addresses();
        let places = all.iter().filter(|a| is_its(&a.address)).map(|a| a.netns);
        let places: BTreeSet<NetnsId> = places.filter(|netns| self.is_joined(*netns)).collect();
        let mut places = places.into_iter();
        places.next().filter(|_| places.next().is_none())
    }
}
