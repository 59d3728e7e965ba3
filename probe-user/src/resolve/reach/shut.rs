//! From where a port can't be reached, said once for all namespaces in which it
//! is so for the same reason, and what would help.

use crate::model::{Container, End, NetnsId, Path, Port, Proto, Published, Reach, Socket, Vantage};
use crate::resolve::facts::{Facts, container_name};
use crate::resolve::owner;

/// The listeners of other namespaces that are shut for somebody.
pub(super) struct Shut {
    /// Where the port has a listener that is not for loopback alone.
    open: Vec<(NetnsId, Proto, Port)>,
    loopback: Vec<Inside>,
    unpublished: Vec<Inside>,
}

/// One of them.
struct Inside {
    name: String,
    socket: Socket,
    from: Vec<Vantage>,
    end: End,
    /// The port of what is at the end.
    inner: Option<Port>,
    /// What to connect to from this host instead.
    best: Option<String>,
}

impl Shut {
    pub(super) fn new(paths: &[Path]) -> Self {
        let sockets = paths.iter().filter_map(|path| path.hops.first()?.socket.as_ref());
        let open = sockets.filter(|s| !s.is_loopback()).map(|s| (s.netns, s.proto, s.port));
        Self { open: open.collect(), loopback: Vec::new(), unpublished: Vec::new() }
    }

    /// Bound to the loopback of its own namespace. That says nothing where
    /// another socket takes the same port from outside.
    pub(super) fn loopback(
        &mut self,
        socket: &Socket,
        name: &str,
        from: impl Iterator<Item = Vantage>,
    ) {
        if !self.open.contains(&(socket.netns, socket.proto, socket.port)) {
            self.loopback.push(Inside {
                name: name.to_owned(),
                socket: socket.clone(),
                from: from.collect(),
                end: End::default(),
                inner: None,
                best: None,
            });
        }
    }

    /// Bound to more, and not published on this host.
    pub(super) fn unpublished(
        &mut self,
        socket: &Socket,
        name: &str,
        (end, inner): (&End, Option<Port>),
        best: Option<String>,
    ) {
        // A socket and rules that take the same port: the rules know more.
        let same = |one: &&mut Inside| {
            let (a, b) = (&one.socket, socket);
            (a.netns, a.proto, a.port) == (b.netns, b.proto, b.port)
        };
        if let Some(known) = self.unpublished.iter_mut().find(same) {
            if end.service.is_some() && known.end.service.is_none() {
                known.end = end.clone();
                known.best = best.or(known.best.take());
            }
            return;
        }
        self.unpublished.push(Inside {
            name: name.to_owned(),
            socket: socket.clone(),
            from: vec![Vantage::Loopback, Vantage::Outside],
            end: end.clone(),
            inner,
            best,
        });
    }

    /// One statement for each vantage and reason.
    pub(super) fn finish(self) -> Vec<Reach> {
        let mut reach = Vec::new();
        for from in [Vantage::Loopback, Vantage::Node, Vantage::Outside, Vantage::Containers] {
            let of = |all: &'_ [Inside]| -> Vec<usize> {
                (0..all.len()).filter(|at| all[*at].from.contains(&from)).collect()
            };
            let mut say = |why: String, fix: Option<String>| {
                reach.push(Reach { from, address: None, reachable: Some(false), why, fix });
            };
            let loopback: Vec<&Inside> =
                of(&self.loopback).into_iter().map(|at| &self.loopback[at]).collect();
            if let Some(first) = loopback.first() {
                let bound = first.socket.effective_address();
                say(format!("bound to {bound} inside {} only", names(&loopback)), None);
            }
            let unpublished: Vec<&Inside> =
                of(&self.unpublished).into_iter().map(|at| &self.unpublished[at]).collect();
            if !unpublished.is_empty() {
                let ports = join(unpublished.iter().map(|one| one.socket.port.to_string()), "and");
                let whose = names(&unpublished);
                let word = if ports.contains(' ') { "ports" } else { "port" };
                let verb = if whose.contains(' ') { "don't" } else { "doesn't" };
                say(
                    format!("it listens inside {whose}, which {verb} publish {word} {ports} here"),
                    unpublished_fix(&unpublished, from),
                );
            }
        }
        reach
    }
}

fn names(all: &[&Inside]) -> String {
    join(all.iter().map(|one| one.name.clone()), "and")
}

/// `a`, `a and b`, `a, b and c`, each once.
fn join(all: impl Iterator<Item = String>, word: &str) -> String {
    let mut each: Vec<String> = Vec::new();
    for one in all {
        if !each.contains(&one) {
            each.push(one);
        }
    }
    match each.pop() {
        None => String::new(),
        Some(last) if each.is_empty() => last,
        Some(last) => format!("{} {word} {last}", each.join(", ")),
    }
}

fn unpublished_fix(all: &[&Inside], from: Vantage) -> Option<String> {
    let mut ways = Vec::new();
    let direct = join(all.iter().filter_map(|one| one.best.clone()), "or");
    if from == Vantage::Loopback && !direct.is_empty() {
        ways.push(format!("use {direct} from this host"));
    }
    if let [one] = all {
        ways.extend(tunnel(one));
    }
    ways.extend(publish(all));
    (!ways.is_empty()).then(|| ways.join("; or "))
}

/// Kubernetes' own way to a port of a pod or service, which needs no new node.
fn tunnel(one: &Inside) -> Option<String> {
    let cluster = one.end.cluster.as_ref().filter(|c| c.distribution == "kind")?;
    let context = format!("kubectl --context kind-{}", cluster.name);
    if let Some(service) = &one.end.service {
        let (namespace, name) = (&service.namespace, &service.name);
        return Some(format!(
            "{context} -n {namespace} port-forward svc/{name} LOCALPORT:SERVICEPORT"
        ));
    }
    if owner::is_node_port(&one.socket, &one.end.processes) {
        return Some(format!("{context} port-forward svc/SERVICE LOCALPORT:SERVICEPORT"));
    }
    let pod = one.end.pod.as_ref()?;
    let (namespace, name) = (pod.namespace.as_ref()?, pod.name.as_ref()?);
    let port = one.socket.port;
    let ports = match one.inner.filter(|inner| *inner != port) {
        Some(inner) => format!("{port}:{inner}"),
        None => port.to_string(),
    };
    Some(format!("{context} -n {namespace} port-forward pod/{name} {ports}"))
}

/// How to publish the ports of these listeners on the host.
fn publish(all: &[&Inside]) -> Vec<String> {
    let mut ways = Vec::new();
    let port = join(all.iter().map(|one| one.socket.port.to_string()), "and");
    let of = |distribution: &str| {
        let clusters = all.iter().filter_map(|one| one.end.cluster.as_ref());
        join(clusters.filter(|c| c.distribution == distribution).map(|c| c.name.clone()), "and")
    };
    let (kind, k3d, minikube) = (of("kind"), of("k3d"), of("minikube"));
    if !kind.is_empty() {
        let word = if kind.contains(' ') { "clusters" } else { "cluster" };
        ways.push(format!(
            "recreate kind {word} {kind} with extraPortMappings for containerPort {port} \
             (ports can't be added to an existing node)"
        ));
    }
    if !k3d.is_empty() {
        ways.push(format!("k3d cluster edit {k3d} --port-add HOSTPORT:{port}@loadbalancer"));
    }
    if !minikube.is_empty() {
        ways.push(format!("minikube -p {minikube} service, or kubectl port-forward"));
    }
    let plain = |one: &&&Inside| {
        one.end.cluster.is_none() && one.end.pod.is_none() && one.end.containers.len() == 1
    };
    let containers = all.iter().filter(plain).flat_map(|one| &one.end.containers);
    let containers = join(containers.map(container_name), "and");
    if !containers.is_empty() {
        let word = if containers.contains(' ') { "containers" } else { "container" };
        ways.push(format!("recreate {word} {containers} with -p HOSTPORT:{port}"));
    }
    ways
}

/// What opens a port of this host that is bound to its loopback.
pub(super) fn loopback_fix(facts: &Facts<'_>, socket: &Socket, end: &End) -> String {
    let port = socket.port.0;
    let at = super::at(socket.effective_address(), port);
    let tunnel = format!("tunnel to it from there: ssh -L {port}:{at} {}", facts.host.hostname);
    let publisher = end.containers.iter().find_map(|container| {
        let publishes =
            |p: &&Published| p.host_port == Some(socket.port) && p.proto == socket.proto;
        container.ports.iter().find(publishes).map(|port| (container, port))
    });
    let open = match publisher {
        Some((container, published)) => recreate(container, published),
        None => "bind it to another address".to_owned(),
    };
    format!("{tunnel}; or {open}")
}

/// How a container comes to publish a port on more than loopback.
pub(super) fn recreate(container: &Container, published: &Published) -> String {
    let inner = published.container_port;
    match container.cluster().filter(|cluster| cluster.distribution == "kind") {
        // kind makes the API server's mapping by itself; all others are asked for.
        Some(cluster) if inner == Port(6443) => {
            format!("recreate kind cluster {} with networking.apiServerAddress", cluster.name)
        }
        Some(cluster) => format!(
            "recreate kind cluster {} with a listenAddress for containerPort {inner} in extraPortMappings",
            cluster.name
        ),
        None => {
            let host = published.host_port.map_or_else(String::new, |port| format!("{port}:"));
            format!("recreate container {} with -p {host}{inner}", container_name(container))
        }
    }
}

/// What gives a published port something to lead to.
pub(super) fn dead_fix(socket: &Socket, end: &End) -> String {
    let publishes = |p: &&Published| p.host_port == Some(socket.port);
    let inner = end.containers.iter().find_map(|c| c.ports.iter().find(publishes));
    match (&end.cluster, inner.map(|p| p.container_port)) {
        (Some(cluster), Some(port)) if owner::NODE_PORTS.contains(&port.0) => format!(
            "create a Service of type NodePort with nodePort {port} in {} cluster {}",
            cluster.distribution, cluster.name
        ),
        _ => "start what should listen there, or remove the published port".to_owned(),
    }
}
