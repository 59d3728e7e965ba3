//! Which clusters have a node on this machine, and which namespaces are their nodes'.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::component;
use super::super::facts::Facts;
use super::super::walk;
use whereis_port_model::{
    Address, Container, ContextId, KubeAsk, KubeContext, KubeNode, KubeWish, Netns, NetnsId, Path,
    Port, PortRange, Proto, SocketFilter,
};

/// Kubeconfig files that a distribution writes for the node's own cluster.
const OF_NODE: [&str; 4] =
    ["/etc/kubernetes/", "/etc/rancher/", "/var/lib/k0s/", "/var/snap/microk8s/"];

/// A cluster that has nodes here, or that the user named.
#[derive(Debug)]
pub(super) struct ClusterSite {
    pub(super) context: KubeContext,
    /// The nodes that are here.
    pub(super) nodes: Vec<KubeNode>,
    /// Their network namespaces, in the order of `nodes`.
    pub(super) netns: Vec<NetnsId>,
    /// Namespaces that are joined to others by their devices, and to none of these nodes': what
    /// is in there is of another node, or of no cluster.
    foreign: BTreeSet<NetnsId>,
    /// Those that are joined to one of them: the pods' that are here.
    joined: BTreeSet<NetnsId>,
    /// The ids of the containers that they are; `None` for the machine itself.
    containers: Vec<Option<String>>,
    /// A node that is a container of this machine, whose namespace can't be seen from here.
    pub(super) unseen: Option<Container>,
}

/// The clusters that concern this machine.
pub(super) fn of(facts: &Facts<'_>, contexts: &[KubeContext]) -> Vec<ClusterSite> {
    let addresses = facts.all_addresses();
    let mut wanted: Vec<&KubeContext> = Vec::new();
    for context in contexts {
        // Several contexts of one cluster differ in their user only.
        let same = |known: &&&KubeContext| known.server == context.server && known.ca == context.ca;
        let known = wanted.iter().position(|known| same(&known));
        match known {
            Some(at) if context.current && !wanted[at].current => wanted[at] = context,
            Some(_) => {}
            None if may_be_here(context, &addresses) || context.current || context.asked_for => {
                wanted.push(context);
            }
            None => {}
        }
    }
    let nodes = nodes_of(facts, &wanted);
    let mut sites: Vec<ClusterSite> = Vec::new();
    for (context, nodes) in wanted.into_iter().zip(nodes) {
        let mut site = ClusterSite {
            context: context.clone(),
            nodes: Vec::new(),
            netns: Vec::new(),
            foreign: BTreeSet::new(),
            joined: BTreeSet::new(),
            containers: Vec::new(),
            unseen: None,
        };
        let trusted = context.asked_for || may_be_here(context, &addresses);
        // Who may not see nodes may see all else: where the API server itself runs is one.
        // One that does not answer at all tells nothing of whose it is.
        let answers =
            |site: &ClusterSite| !super::request(facts, site, vec![KubeWish::Services]).is_empty();
        if nodes.is_none() && serves_here(facts, context) && answers(&site) {
            site.netns.push(facts.host.own_netns);
            site.containers.push(None);
        }
        for node in nodes.unwrap_or_default() {
            if let Some(netns) = place(facts, &node, &addresses) {
                let container = facts.containers_of(netns).first().map(|c| c.id.clone());
                // A private address may be another network's: a remote cluster needs the
                // name of this machine, too.
                if container.is_none() && !trusted && !is_called(&facts.host.hostname, &node.name) {
                    continue;
                }
                if !site.netns.contains(&netns) {
                    site.netns.push(netns);
                    site.containers.push(container);
                    site.nodes.push(node.clone());
                }
            } else if site.unseen.is_none() {
                site.unseen = container_of(facts, &node);
            }
        }
        let again = sites.iter().any(|known| known.netns == site.netns && !site.netns.is_empty());
        let here = !site.netns.is_empty() || site.unseen.is_some();
        if !again && (here || context.asked_for) {
            sites.push(site);
        }
    }
    if sites.iter().any(|site| !site.netns.is_empty()) {
        let pairs = joined(facts);
        sites.iter_mut().for_each(|site| site.tell_apart(&pairs));
    }
    sites
}

/// Which namespaces devices join, both ways.
fn joined(facts: &Facts<'_>) -> BTreeSet<(NetnsId, NetnsId)> {
    let all = facts.take(facts.world.links(&facts.all_netns()));
    let pairs = all.iter().filter_map(|link| Some((link.netns, link.peer_netns?)));
    pairs.filter(|(a, b)| a != b).flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

impl ClusterSite {
    fn tell_apart(&mut self, pairs: &BTreeSet<(NetnsId, NetnsId)>) {
        let is_node = |netns: &NetnsId| self.netns.contains(netns);
        let to_node = pairs.iter().filter(|(_, to)| is_node(to)).map(|(from, _)| *from);
        let joined: BTreeSet<NetnsId> = to_node.filter(|netns| !is_node(netns)).collect();
        let all = pairs.iter().map(|(from, _)| *from);
        self.foreign = all.filter(|netns| !is_node(netns) && !joined.contains(netns)).collect();
        self.joined = joined;
    }

    /// Whether the devices or containers on a path's way prove that it is of a node of this
    /// cluster: what is not proven so may be, and needs the word of the API.
    pub(super) fn proves(&self, path: &Path) -> bool {
        let outer = path.end.containers.first().map(|outer| &outer.id);
        let in_node = self.containers.iter().flatten().any(|node| Some(node) == outer);
        let hops = path.hops.iter().filter_map(|hop| hop.netns.as_ref());
        let passes = hops.map(|netns| netns.id).any(|netns| self.netns.contains(&netns));
        let last = path.hops.iter().rev().find_map(|hop| hop.netns.as_ref());
        in_node || passes || last.is_some_and(|netns| self.joined.contains(&netns.id))
    }

    /// Whether what a path says of rules is of a node of this cluster, as far as these are seen.
    pub(super) fn passes(&self, path: &Path) -> bool {
        let mut hops = path.hops.iter().filter_map(|hop| hop.netns.as_ref());
        self.netns.is_empty() || hops.any(|netns| self.netns.contains(&netns.id))
    }

    /// Whether a path belongs to this cluster: it goes through one of its nodes, or ends in
    /// a container of one.
    pub(super) fn has(&self, path: &Path) -> bool {
        let end = &path.end;
        let outer = match end.containers.first() {
            Some(outer) if end.pod.is_none() || end.containers.len() > 1 => Some(&outer.id),
            // A pod's container on the machine itself is inside no other.
            Some(_) | None => None,
        };
        let last = path.hops.iter().rev().find_map(|hop| hop.netns.as_ref());
        // On the machine itself there may be nodes of several clusters.
        let is_foreign = |netns: NetnsId| self.foreign.contains(&netns);
        if outer.is_none() && last.is_some_and(|netns| is_foreign(netns.id)) {
            return false;
        }
        let ends_in = |container: &Option<String>| container.as_ref() == outer;
        if (end.pod.is_some() || outer.is_some()) && self.containers.iter().any(ends_in) {
            return true;
        }
        // What is inside of another cluster's node is not this one's.
        if outer.is_some() {
            return false;
        }
        let through = |netns: NetnsId| self.netns.contains(&netns);
        last.is_some_and(|netns| through(netns.id))
            || super::begins_in(path).is_some_and(through) && end.containers.is_empty()
    }

    /// Whether a namespace is joined to a node of this cluster.
    pub(super) fn is_joined(&self, netns: NetnsId) -> bool {
        self.joined.contains(&netns)
    }

    /// The node that a namespace is of.
    pub(super) fn node_in(&self, netns: NetnsId) -> Option<&KubeNode> {
        let at = self.netns.iter().position(|known| *known == netns)?;
        self.nodes.get(at)
    }

    /// The node on which a path ends: by its containers, else the only one.
    pub(super) fn node_of(&self, path: &Path) -> Option<&KubeNode> {
        let outer = path.end.containers.first().map(|outer| &outer.id);
        let at = self.containers.iter().position(|c| c.is_some() && c.as_ref() == outer);
        let at = at.or_else(|| self.containers.iter().position(Option::is_none));
        at.and_then(|at| self.nodes.get(at))
    }

    /// The API as evidence names it.
    pub(super) fn source(&self) -> String {
        format!("context {}", self.context.name)
    }
}

/// Whether a namespace was made for a pod by a network plug-in.
pub(super) fn is_of_pod(netns: &Netns) -> bool {
    netns.paths.iter().any(|path| path.contains("/netns/cni-"))
}

/// Whether any context looks like that of a cluster which has a node here.
pub(super) fn any_here(facts: &Facts<'_>, contexts: &[KubeContext]) -> bool {
    let addresses = facts.all_addresses();
    contexts.iter().any(|context| may_be_here(context, &addresses))
}

/// Whether a context's server is on this machine, or its file is one that a distribution
/// writes on the cluster's own nodes.
fn may_be_here(context: &KubeContext, addresses: &[Address]) -> bool {
    let here = |host: &str| match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || addresses.iter().any(|a| a.address == address),
        Err(_) => host == "localhost",
    };
    OF_NODE.iter().any(|start| context.file.starts_with(start))
        || context.in_cluster
        || host_of(&context.server).is_some_and(here)
}

/// The host in a URL.
pub(super) fn host_of(server: &str) -> Option<&str> {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next()?;
    let authority = authority.rsplit('@').next()?;
    if authority.starts_with('[') {
        return authority.split_once(']').map(|(host, _)| &host[1..]);
    }
    authority.split(':').next()
}

/// Whether a context's API server runs in this very namespace.
fn serves_here(facts: &Facts<'_>, context: &KubeContext) -> bool {
    let own = facts.host.own_netns;
    let Some((host, port)) = super::contexts::server(&context.server) else { return false };
    let filter = SocketFilter { proto: Some(Proto::Tcp), ports: Some(PortRange::one(Port(port))) };
    let all = facts.take(facts.world.sockets(&[own], &filter));
    let mut takes = all.iter().filter(|socket| socket.match_rank(host).is_some());
    let is_own = host.is_loopback() || facts.addresses_of(own).iter().any(|a| a.address == host);
    is_own
        && takes.any(|socket| {
            let mut paths = walk::from_socket(facts, socket).into_iter();
            paths.any(|path| {
                component::of_path(&path)
                    .is_some_and(|component| component.confirmed && component.is_api)
            })
        })
}

/// The nodes of each cluster: the one called like this machine where there is one, else all.
/// `None` where the API does not tell of them.
fn nodes_of(facts: &Facts<'_>, contexts: &[&KubeContext]) -> Vec<Option<Vec<KubeNode>>> {
    let name = facts.host.hostname.to_ascii_lowercase();
    let ids: Vec<ContextId> = contexts.iter().map(|context| context.id()).collect();
    let ask = |wish: &dyn Fn() -> KubeWish, ids: &[ContextId]| -> Vec<KubeAsk> {
        ids.iter().map(|context| KubeAsk { context: context.clone(), wish: wish() }).collect()
    };
    let first = facts.world.kube(&ask(&|| KubeWish::Node(name.clone()), &ids));
    let mut nodes: Vec<Option<Option<Vec<KubeNode>>>> = first
        .into_iter()
        .map(|read| {
            let said = facts.take_of_api(read);
            // No answer is told by its gap, and asking again would give another.
            let is_told = !said.answered || !said.nodes.is_empty();
            is_told.then(|| said.answered.then(|| said.nodes.clone()))
        })
        .collect();
    let left: Vec<ContextId> =
        ids.iter().zip(&nodes).filter(|(_, n)| n.is_none()).map(|(id, _)| id.clone()).collect();
    if !left.is_empty() {
        let mut said = facts.world.kube(&ask(&|| KubeWish::Nodes, &left)).into_iter();
        for slot in nodes.iter_mut().filter(|slot| slot.is_none()) {
            *slot = said.next().map(|read| {
                let said = facts.take_of_api(read);
                said.answered.then(|| said.nodes.clone())
            });
        }
    }
    nodes.into_iter().map(Option::flatten).collect()
}

/// The namespace that a node is, by its address. Private addresses repeat: the tool's own
/// namespace counts before the machine's, a container has to be called like the node, and
/// among others there must be only one.
fn place(facts: &Facts<'_>, node: &KubeNode, addresses: &[Address]) -> Option<NetnsId> {
    let mut found: Vec<NetnsId> = Vec::new();
    for address in addresses.iter().filter(|a| node.addresses.contains(&a.address)) {
        if !found.contains(&address.netns) {
            found.push(address.netns);
        }
    }
    let near = [Some(facts.host.own_netns), facts.host.host_netns];
    let near = near.into_iter().flatten().find(|netns| found.contains(netns));
    if near.is_some() {
        return near;
    }
    let container = |netns: &NetnsId| {
        let containers = facts.containers_of(*netns);
        containers
            .first()
            .map(|outer| containers.len() == 1 && outer.name.as_ref() == Some(&node.name))
    };
    let kinds: Vec<Option<bool>> = found.iter().map(container).collect();
    let of_kind = |kind: Option<bool>| {
        let mut all = found.iter().zip(&kinds).filter(move |(_, k)| **k == kind).map(|(n, _)| *n);
        all.next().filter(|_| all.next().is_none())
    };
    of_kind(Some(true)).or_else(|| of_kind(None))
}

/// The container that a node is, by a runtime's word alone: it is labelled as a node of a
/// cluster, and has the node's name and one of its addresses.
fn container_of(facts: &Facts<'_>, node: &KubeNode) -> Option<Container> {
    let is_it = |container: &Container| {
        let mut addresses = container.networks.iter().flat_map(|network| &network.addresses);
        container.cluster().is_some()
            && container.name.as_ref() == Some(&node.name)
            && addresses.any(|address| node.addresses.contains(address))
    };
    facts.take(facts.world.containers()).iter().find(|c| is_it(c)).cloned()
}

/// Whether a node's name is this machine's, with or without its domain.
fn is_called(hostname: &str, node: &str) -> bool {
    let short = |name: &str| name.split('.').next().unwrap_or(name).to_ascii_lowercase();
    hostname.eq_ignore_ascii_case(node) || short(hostname) == short(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_server_is_found() {
        for (server, host) in [
            ("https://127.0.0.1:20971", Some("127.0.0.1")),
            ("https://[::1]:6443/", Some("::1")),
            ("https://localhost", Some("localhost")),
            ("https://api.example.com:6443/k8s/clusters/c-1?x", Some("api.example.com")),
            ("127.0.0.1:8080", Some("127.0.0.1")),
        ] {
            assert_eq!(host_of(server), host, "{server}");
        }
    }

    #[test]
    fn a_node_is_called_like_its_machine_with_or_without_a_domain() {
        assert!(is_called("Node1", "node1"));
        assert!(is_called("node1.example.com", "node1"));
        assert!(!is_called("node1", "node10"));
    }
}
