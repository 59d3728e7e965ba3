//! What the API of a Kubernetes cluster adds to what the kernel said: names of pods and
//! services at the ends of paths, and where the two differ.
//!
//! An API is asked only when the answer has to do with Kubernetes, and only that of a
//! cluster which has a node here (`site.rs`), or that the user named. What belongs to one
//! cluster never names anything of another.

mod by_name;
mod compare;
mod contexts;
mod everything;
mod exposed;
mod forwarded;
mod known;
mod missing;
mod names;
mod rows;
mod site;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;

use super::facts::Facts;
pub use everything::read;
pub(super) use forwarded::{ApiConnection, chosen, connected};
pub(super) use known::SubjectPlaces;
pub use rows::name_services;
use site::ClusterSite;
use whereis_port_model::{
    Advice, Ending, Finding, Gap, GapKind, Hop, HopKind, Impact, KubeAsk, KubeEndpoints,
    KubeObjects, KubePod, KubeService, KubeWish, ListRow, NetnsId, ObjectName, Path, Query, Reach,
    Scope, Subject,
};

/// How many services of one cluster are looked at closely.
const SERVICES: usize = 16;

/// What the APIs said in one answer.
#[derive(Default)]
pub(super) struct Joined {
    /// Where API and kernel differ, and what else is worth saying.
    pub(super) findings: Vec<Finding>,
    /// Services that lead to a port of a pod where nobody listens, which may be said in a
    /// better way: by what the pod does listen on.
    pub(super) unserved: Vec<Finding>,
    /// From where ports that only the API has can't be reached.
    reach: Vec<Reach>,
    clusters: Vec<QueriedCluster>,
}

/// One cluster and what its API said for this answer.
struct QueriedCluster {
    site: ClusterSite,
    services: Vec<KubeService>,
    /// Whether all services were listed, so that one which is not there does not exist.
    all_services: bool,
    /// Services that were asked for by name and don't exist.
    absent: Vec<ObjectName>,
    endpoints: Vec<KubeEndpoints>,
    /// The services whose endpoints were read.
    endpoints_of: BTreeSet<ObjectName>,
    /// Those without any endpoint of which the pods were read that they select.
    selected: BTreeSet<ObjectName>,
    pods: Vec<KubePod>,
}

impl QueriedCluster {
    /// Leaves out Services that have nothing to do with the subject: others have the same
    /// port, or lead to the same port of other pods.
    fn only_of(&mut self, subject: &Subject, meant: &[Path]) {
        let is_named = |(namespace, name): (&Option<String>, &String), of: &ObjectName| {
            of.name == *name && namespace.as_ref().is_none_or(|wanted| of.namespace == *wanted)
        };
        let leads = |service: &KubeService| {
            if meant.iter().any(|path| names::is_of(path, &service.name)) {
                return true;
            }
            if let Subject::Pod(namespace, name) = subject {
                let mut slices = self.endpoints.iter().filter(|s| s.service == service.name);
                let has = |slice: &KubeEndpoints| {
                    let mut pods = slice.endpoints.iter().filter_map(|e| e.pod.as_ref());
                    pods.any(|pod| is_named((namespace, name), pod))
                };
                if slices.any(has) {
                    return true;
                }
            }
            meant.iter().any(|path| {
                let port = path.hops.last().and_then(|hop| hop.endpoint.port);
                names::pod_of(self, path)
                    .zip(port)
                    .is_some_and(|(pod, port)| exposed::selects(service, pod, port))
            })
        };
        let is_its = |service: &KubeService| match subject {
            Subject::Service(namespace, name) => is_named((namespace, name), &service.name),
            _ => leads(service),
        };
        let keep: BTreeSet<ObjectName> =
            self.services.iter().filter(|s| is_its(s)).map(|s| s.name.clone()).collect();
        self.services.retain(|service| keep.contains(&service.name));
    }
}

impl Joined {
    /// Whether an API named the container whose name a gap misses.
    pub(super) fn fills(&self, gap: &Gap) -> bool {
        let id = gap.source.name.as_str();
        let named = |pod: &KubePod| {
            pod.containers.iter().any(|c| c.id.as_deref().is_some_and(|full| full.starts_with(id)))
        };
        // A gap that says what to do about it is worth reading all the same.
        gap.impact == Impact::Name
            && gap.remedy.is_none()
            && gap.source.kind == GapKind::Container
            && !id.is_empty()
            && self.clusters.iter().any(|cluster| cluster.pods.iter().any(named))
    }
}

/// Asks the APIs that concern the answer, names what is in `paths`, and adds paths that
/// only an API knows of. What is said is about those paths that are `wanted`, which only their
/// names may tell.
pub(super) fn join(
    facts: &Facts<'_>,
    query: &Query,
    paths: &mut Vec<Path>,
    wanted: &dyn Fn(&Path) -> bool,
) -> Joined {
    join_whole(facts, query, paths, (true, wanted))
}

/// The same of the ways of one sender: of what is not among them nothing is said.
pub(super) fn join_ways(facts: &Facts<'_>, query: &Query, paths: &mut Vec<Path>) -> Joined {
    join_whole(facts, query, paths, (false, &|_| true))
}

fn join_whole(
    facts: &Facts<'_>,
    query: &Query,
    paths: &mut Vec<Path>,
    (are_all, wanted): (bool, &dyn Fn(&Path) -> bool),
) -> Joined {
    let mut joined = Joined::default();
    let contexts = facts.world.kube_contexts();
    contexts::add(facts, &contexts.value, paths, &mut joined.findings);
    // A kubeconfig that can't be read says nothing of what has to do with no cluster.
    if !concerns(facts, &contexts.value, query, paths) {
        return joined;
    }
    let contexts = facts.take_of_api(contexts);
    for site in site::of(facts, &contexts) {
        let mut cluster = ask(facts, site, query, paths);
        for path in paths.iter_mut().filter(|path| cluster.site.has(path)) {
            names::add(&cluster, query, path);
        }
        name_namespaces(facts, &cluster, paths);
        by_name::add(facts, &cluster, paths);
        let meant: Vec<Path> = paths.iter().filter(|path| wanted(path)).cloned().collect();
        if let Some(subject) = &query.subject {
            cluster.only_of(subject, &meant);
        }
        if are_all {
            missing::add(facts, &cluster, query, paths, &mut joined);
        }
        let meant: Vec<Path> = paths.iter().filter(|path| wanted(path)).cloned().collect();
        compare::add(&cluster, query, &meant, &mut joined);
        joined.clusters.push(cluster);
    }
    joined
}

/// Which rows are of nodes of the cluster that an API or its context calls so, or of pods on
/// them.
pub(super) fn rows_of(facts: &Facts<'_>, rows: &[&ListRow], name: &str) -> BTreeSet<usize> {
    let contexts = facts.take_of_api(facts.world.kube_contexts());
    let mut found = BTreeSet::new();
    for site in site::of(facts, &contexts) {
        if names::of_site(&site, None).name != name {
            continue;
        }
        let is_its = |row: &&ListRow| {
            let netns = row.netns.id;
            let of_node = row.service.is_some()
                || row.component.as_ref().is_some_and(|component| component.confirmed)
                || row.end.pod.is_some();
            site.netns.contains(&netns) && of_node || site.is_joined(netns) && row.end.pod.is_some()
        };
        found.extend(rows.iter().enumerate().filter(|(_, row)| is_its(row)).map(|(at, _)| at));
    }
    found
}

/// Names the namespaces of pods after them: where only the API knows the pod, they had the
/// name of a container until now. A process may listen elsewhere than in its pod's network, so
/// the pod's address has to be there.
fn name_namespaces(facts: &Facts<'_>, cluster: &QueriedCluster, paths: &mut [Path]) {
    for path in paths.iter().filter(|path| cluster.site.has(path)) {
        let Some(pod) = names::pod_of(cluster, path).filter(|pod| !pod.host_network) else {
            continue;
        };
        let of_pod = addresses_of(facts, &cluster.site, path);
        let netns = path.hops.last().and_then(|hop| hop.netns.as_ref());
        if let Some(netns) = netns.filter(|_| of_pod.iter().any(|a| pod.ips.contains(a))) {
            facts.name_after_pod(netns.id, &pod.name);
        }
    }
    for hop in paths.iter_mut().flat_map(|path| &mut path.hops) {
        if let Some(netns) = &mut hop.netns {
            *netns = facts.netns_ref(netns.id);
        }
    }
}

/// Adds to the reachability what the APIs know of it, and makes fixes exact that name a
/// port of a Service.
pub(super) fn complete(joined: &Joined, paths: &[Path], reach: &mut Vec<Reach>) {
    for one in &joined.reach {
        if !reach.iter().any(|known| known.from == one.from) {
            reach.push(one.clone());
        }
    }
    for cluster in &joined.clusters {
        for service in &cluster.services {
            let of = |path: &&Path| names::is_of(path, &service.name);
            let port = paths.iter().filter(of).find_map(|path| {
                let first = path.hops.first()?;
                let port = exposed::port_for(service, first.proto, first.endpoint.port?)?;
                Some((first.endpoint.port?, port.port))
            });
            let Some((asked, port)) = port else { continue };
            let name = &service.name;
            let fixes = reach.iter_mut().filter_map(|reach| reach.fix.as_mut());
            for command in fixes.flat_map(Advice::commands_mut) {
                command.fill_ports(name, asked, port);
            }
        }
    }
}

/// Whether Kubernetes has anything to do with the answer, as far as the node tells.
fn concerns(
    facts: &Facts<'_>,
    contexts: &[whereis_port_model::KubeContext],
    query: &Query,
    paths: &[Path],
) -> bool {
    if contexts.iter().any(|context| context.asked_for) {
        return true;
    }
    let of_kube = |path: &Path| {
        let end = &path.end;
        end.pod.is_some()
            || end.service.is_some()
            || end.cluster.is_some()
            || end.component.is_some()
            || path.hops.iter().any(|hop| hop.kind == HopKind::Service)
    };
    if paths.iter().any(of_kube) {
        return true;
    }
    // A free port, or one that something else holds in the range of NodePorts: only on
    // what looks like a node of a cluster.
    let node_port = super::owner::NODE_PORTS.contains(&query.ports.first.0);
    let free = paths.is_empty();
    (free || node_port)
        && (facts.netns.iter().any(site::is_of_pod) || site::any_here(facts, contexts))
}

/// Reads what the answer needs of one cluster: the services by name where rules name them,
/// all of them where something is not explained otherwise, then their endpoints and pods.
fn ask(facts: &Facts<'_>, site: ClusterSite, query: &Query, paths: &[Path]) -> QueriedCluster {
    let ours: Vec<&Path> = paths.iter().filter(|path| site.has(path)).collect();
    let mut named: BTreeSet<ObjectName> = ours.iter().filter_map(|p| service_of(p)).collect();
    let unexplained = ours.is_empty()
        || ours.iter().any(|p| p.end.service.is_none() && (p.end.pod.is_some() || is_idle(p)))
        || ours.iter().any(|p| names::is_unnamed_frontend(p))
        || named.is_empty() && super::owner::NODE_PORTS.contains(&query.ports.first.0);
    let mut wishes: Vec<KubeWish> = if unexplained {
        vec![KubeWish::Services]
    } else {
        named.iter().cloned().map(KubeWish::Service).collect()
    };
    wishes.extend(pods_of(facts, &site, &ours));
    let mut cluster = QueriedCluster {
        site,
        services: Vec::new(),
        all_services: false,
        absent: Vec::new(),
        endpoints: Vec::new(),
        endpoints_of: BTreeSet::new(),
        selected: BTreeSet::new(),
        pods: Vec::new(),
    };
    for (wish, said) in request(facts, &cluster.site, wishes) {
        match wish {
            KubeWish::Services => cluster.all_services = true,
            KubeWish::Service(name) if said.services.is_empty() => cluster.absent.push(name),
            _ => {}
        }
        cluster.services.extend_from_slice(&said.services);
        cluster.pods.extend_from_slice(&said.pods);
    }
    // Rules of a Service that is gone, or has another port now: whose is the port today?
    let is_old = |service: &KubeService| {
        let mut all = exposed::of(service).into_iter();
        named.contains(&service.name) && !all.any(|one| query.ports.contains(one.port))
    };
    let is_left = !cluster.absent.is_empty() || cluster.services.iter().any(is_old);
    if is_left && !cluster.all_services && query.ports.first == query.ports.last {
        for (_, said) in request(facts, &cluster.site, vec![KubeWish::Services]) {
            for service in &said.services {
                if cluster.services.iter().all(|known| known.name != service.name) {
                    cluster.services.push(service.clone());
                }
            }
        }
    }
    // Of all services those that have to do with the question.
    let on_port = |service: &KubeService| {
        let asked = |e: &exposed::Exposed<'_>| query.ports.contains(e.port);
        exposed::of(service).iter().any(asked)
    };
    let mut leads = BTreeSet::new();
    for path in paths.iter().filter(|path| cluster.site.has(path)) {
        if let Some(pod) = names::pod_of(&cluster, path)
            && let Some(port) = path.hops.last().and_then(|hop| hop.endpoint.port)
        {
            let selects = |s: &&KubeService| exposed::selects(s, pod, port);
            leads.extend(cluster.services.iter().filter(selects).map(|s| s.name.clone()));
        }
    }
    cluster.services.retain(|s| named.contains(&s.name) || leads.contains(&s.name) || on_port(s));
    named.extend(cluster.services.iter().map(|s| s.name.clone()));
    let known = |name: &ObjectName| cluster.services.iter().any(|s| s.name == *name);
    let wishes = named.into_iter().filter(known).take(SERVICES).map(KubeWish::Endpoints);
    for (wish, said) in request(facts, &cluster.site, wishes.collect()) {
        if let KubeWish::Endpoints(name) = wish {
            cluster.endpoints_of.insert(name);
        }
        cluster.endpoints.extend_from_slice(&said.endpoints);
    }
    for (wish, said) in request(facts, &cluster.site, unready(&cluster)) {
        for pod in said.pods.iter().take(SELECTED) {
            if !cluster.pods.iter().any(|known| known.uid == pod.uid) {
                cluster.pods.push(pod.clone());
            }
        }
        if let KubeWish::PodsWith { namespace, labels } = wish {
            let of = |s: &&KubeService| s.name.namespace == namespace && s.selector == labels;
            cluster.selected.extend(cluster.services.iter().filter(of).map(|s| s.name.clone()));
        }
    }
    cluster
}

/// How many pods that a Service selects are looked at to say why it has no endpoint.
const SELECTED: usize = 32;

/// The pods that keep Services from having an endpoint that is ready: what keeps these is
/// theirs to say.
fn unready(cluster: &QueriedCluster) -> Vec<KubeWish> {
    let known = |name: &ObjectName| cluster.pods.iter().any(|pod| pod.name == *name);
    let mut names: BTreeSet<ObjectName> = BTreeSet::new();
    let mut wishes: BTreeSet<KubeWish> = BTreeSet::new();
    for service in cluster.services.iter().filter(|s| cluster.endpoints_of.contains(&s.name)) {
        let slices = cluster.endpoints.iter().filter(|slice| slice.service == service.name);
        let (mut all, mut lacks) = (Vec::new(), false);
        for slice in slices {
            lacks |= !service.ports.iter().all(|port| exposed::has(slice, port));
            all.extend(&slice.endpoints);
        }
        if all.is_empty() && !service.selector.is_empty() && wishes.len() < super::few::NAMED {
            let (namespace, labels) = (service.name.namespace.clone(), service.selector.clone());
            wishes.insert(KubeWish::PodsWith { namespace, labels });
        }
        if !lacks && all.iter().any(|endpoint| endpoint.ready || endpoint.terminating) {
            continue;
        }
        names.extend(all.into_iter().filter_map(|endpoint| endpoint.pod.clone()));
    }
    names.retain(|name| !known(name));
    wishes.extend(names.into_iter().take(super::few::NAMED).map(KubeWish::Pod));
    wishes.into_iter().collect()
}

/// Asks one API, and gives what it answered; what it did not is a gap.
fn request(
    facts: &Facts<'_>,
    site: &ClusterSite,
    wishes: Vec<KubeWish>,
) -> Vec<(KubeWish, Rc<KubeObjects>)> {
    let context = site.context.id();
    let asks: Vec<KubeAsk> =
        wishes.into_iter().map(|wish| KubeAsk { context: context.clone(), wish }).collect();
    if asks.is_empty() {
        return Vec::new();
    }
    let reads = facts.world.kube(&asks);
    let said = asks.into_iter().zip(reads).map(|(ask, read)| (ask.wish, facts.take_of_api(read)));
    said.filter(|(_, objects)| objects.answered).collect()
}

/// The Service that a path names.
fn service_of(path: &Path) -> Option<ObjectName> {
    let service = path.end.service.as_ref()?;
    Some(ObjectName { namespace: service.namespace.clone(), name: service.name.clone() })
}

/// Whether nothing at the end of a path serves: a socket that holds a NodePort, or nobody.
fn is_idle(path: &Path) -> bool {
    path.end.ending == Ending::Nothing
        || path
            .end
            .processes
            .first()
            .is_some_and(|process| process.name() == "kube-proxy" && !process.own_word)
}

/// The pods to ask for: by name where that is known, else by the address that the path
/// leads to; pods of the node's own network by their node.
fn pods_of(facts: &Facts<'_>, site: &ClusterSite, paths: &[&Path]) -> BTreeSet<KubeWish> {
    let mut wishes = BTreeSet::new();
    for path in paths {
        let pod = path.end.pod.as_ref();
        let off_node = path.hops.last().is_some_and(|hop| hop.kind == HopKind::OffNode);
        match pod {
            None if !off_node => {}
            Some(pod) if pod.namespace.is_some() && pod.name.is_some() => {
                if let (Some(namespace), Some(name)) = (&pod.namespace, &pod.name) {
                    wishes.insert(KubeWish::Pod(ObjectName {
                        namespace: namespace.clone(),
                        name: name.clone(),
                    }));
                }
            }
            _ => match addresses_of(facts, site, path) {
                addresses if addresses.is_empty() => {
                    wishes.extend(site.nodes.iter().map(|n| KubeWish::PodsOn(n.name.clone())));
                }
                addresses => wishes.extend(addresses.into_iter().map(KubeWish::PodsAt)),
            },
        }
    }
    wishes
}

/// The addresses that a pod at the end of a path can have in the API: those of its own
/// namespace, or where the path leaves the node.
fn addresses_of(facts: &Facts<'_>, site: &ClusterSite, path: &Path) -> Vec<IpAddr> {
    let Some(last) = path.hops.last() else { return Vec::new() };
    let usable = |address: &IpAddr| !address.is_loopback() && !address.is_unspecified();
    if last.kind == HopKind::OffNode {
        return last.endpoint.address.into_iter().filter(usable).collect();
    }
    let Some(netns) = last.netns.as_ref().map(|netns| netns.id) else { return Vec::new() };
    if site.netns.contains(&netns) {
        // In the node's network all pods have the node's address.
        return Vec::new();
    }
    let of_pod = facts.addresses_of(netns);
    let of_pod = of_pod.iter().map(|a| a.address);
    let link_local = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
    of_pod.filter(usable).filter(|a| !link_local(a)).collect()
}

/// The namespace in which a path begins.
fn begins_in(path: &Path) -> Option<NetnsId> {
    path.hops.first().and_then(|hop: &Hop| hop.netns.as_ref()).map(|netns| netns.id)
}

/// Whether the question is about a port wherever it is, so that what is not on this node's
/// addresses is of interest, too.
fn is_everywhere(query: &Query) -> bool {
    query.scope == Scope::Everywhere
}
