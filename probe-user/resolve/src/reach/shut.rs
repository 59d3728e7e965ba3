//! From where a port can't be reached, said once for all namespaces in which it
//! is so for the same reason, and what would help.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::beside;
use crate::facts::{Facts, container_name};
use crate::few::few;
use crate::owner;
use crate::path::is_unread;
use crate::publish::{self, How};
use whereis_port_model::{
    Advice, Cause, Command, Container, End, FixKind, InTheWay, NetnsId, ObjectName, Path, Port,
    Proto, Published, Reach, Service, Socket, Vantage,
};

/// The listeners of other namespaces that are shut for somebody.
pub(super) struct Shut {
    /// Where the port has a listener that is not for loopback alone.
    open: Vec<(NetnsId, Proto, Port)>,
    loopback: Vec<Inside>,
    unpublished: Vec<Inside>,
    /// Names of those that no link leads to.
    unlinked: Vec<String>,
}

/// What could lead into one of these namespaces, and was not read: rules of the own one, and who
/// is joined to them.
fn unread(facts: &Facts<'_>, from: Vantage, inside: &[&Inside]) -> Option<InTheWay> {
    let own = facts.host.own_netns;
    if is_unread(&facts.world.rulesets(&[own]).gaps) {
        return Some(InTheWay::UnreadRules(facts.netns_ref(own)));
    }
    if from == Vantage::Loopback {
        return None;
    }
    let hidden = |netns: &NetnsId| is_unread(&facts.world.links(&[*netns]).gaps);
    let netns = inside.iter().map(|one| one.socket.netns).find(hidden)?;
    Some(InTheWay::UnreadDevices(facts.netns_ref(netns)))
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
    best: Option<SocketAddr>,
}

impl Shut {
    pub(super) fn new(paths: &[Path]) -> Self {
        let sockets = paths.iter().filter_map(|path| path.hops.first()?.socket.as_ref());
        let open = sockets.filter(|s| !s.is_loopback()).map(|s| (s.netns, s.proto, s.port));
        Self {
            open: open.collect(),
            loopback: Vec::new(),
            unpublished: Vec::new(),
            unlinked: Vec::new(),
        }
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
        best: Option<SocketAddr>,
        from: Vec<Vantage>,
    ) {
        // A socket and rules that take the same port: the rules know more.
        let same = |one: &&mut Inside| {
            let (a, b) = (&one.socket, socket);
            (a.netns, a.proto, a.port) == (b.netns, b.proto, b.port)
        };
        if let Some(known) = self.unpublished.iter_mut().find(same) {
            if end.service.is_some() && known.end.service.is_none() {
                known.end = end.clone();
                known.best = best.or(known.best);
            }
            return;
        }
        self.unpublished.push(Inside {
            name: name.to_owned(),
            socket: socket.clone(),
            from,
            end: end.clone(),
            inner,
            best,
        });
    }

    /// No address of it that the own namespace has a link to.
    pub(super) fn unlinked(&mut self, name: &str) {
        if self.unlinked.iter().all(|known| known != name) {
            self.unlinked.push(name.to_owned());
        }
    }

    /// One statement for each vantage and reason.
    pub(super) fn finish(self, facts: &Facts<'_>) -> Vec<Reach> {
        let mut reach = Vec::new();
        if !self.unlinked.is_empty() {
            let cause = Cause::NoLink(few(self.unlinked.iter().map(String::as_str)));
            reach.push(super::entry(Vantage::Node, None, None, cause));
        }
        for from in [Vantage::Loopback, Vantage::Node, Vantage::Outside, Vantage::Containers] {
            let of = |all: &'_ [Inside]| -> Vec<usize> {
                (0..all.len()).filter(|at| all[*at].from.contains(&from)).collect()
            };
            // Without all that could lead there anyhow it is not known.
            let mut say = |cause: Cause, fix: Option<Advice>, inside: &[&Inside]| {
                reach.push(match unread(facts, from, inside) {
                    Some(what) => {
                        let cause = Cause::NotEvaluated(Box::new(what));
                        super::entry(from, None, None, cause)
                    }
                    None => Reach { fix, ..super::entry(from, None, Some(false), cause) },
                });
            };
            let loopback: Vec<&Inside> =
                of(&self.loopback).into_iter().map(|at| &self.loopback[at]).collect();
            if let Some(first) = loopback.first() {
                let address = first.socket.effective_address();
                say(Cause::BoundInside { address, names: names(&loopback) }, None, &loopback);
            }
            let unpublished: Vec<&Inside> =
                of(&self.unpublished).into_iter().map(|at| &self.unpublished[at]).collect();
            if !unpublished.is_empty() {
                let cause = Cause::NotPublished {
                    names: names(&unpublished),
                    ports: each(unpublished.iter().map(|one| one.socket.port)),
                };
                say(cause, unpublished_fix(facts, &unpublished, from), &unpublished);
            }
        }
        reach
    }
}

fn names(all: &[&Inside]) -> Vec<String> {
    each(all.iter().map(|one| one.name.clone()))
}

/// Each once, in the order of the first ones.
fn each<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut each: Vec<T> = Vec::new();
    for one in all {
        if !each.contains(&one) {
            each.push(one);
        }
    }
    each
}

/// `a`, `a and b`, `a, b and c`, each once.
fn join(all: impl Iterator<Item = String>, word: &str) -> String {
    let mut each = each(all);
    match each.pop() {
        None => String::new(),
        Some(last) if each.is_empty() => last,
        Some(last) => format!("{} {word} {last}", each.join(", ")),
    }
}

fn unpublished_fix(facts: &Facts<'_>, all: &[&Inside], from: Vantage) -> Option<Advice> {
    let mut ways = Advice::new();
    let direct = join(all.iter().filter_map(|one| Some(one.best?.to_string())), "or");
    if from == Vantage::Loopback && !direct.is_empty() {
        ways = ways.words(format!("use {direct} from this host")).of(FixKind::ConnectElsewhere);
    }
    if let [one] = all
        && let Some(command) = tunnel(one)
    {
        ways = ways.or(Advice::from(command).of(FixKind::PortForward));
    }
    ways = publish(facts, all, from).into_iter().fold(ways, |ways, way| ways.or(way));
    (!ways.is_empty()).then_some(ways)
}

/// Kubernetes' own way to a port of a pod or service, which needs no new node.
fn tunnel(one: &Inside) -> Option<Command> {
    let cluster = one.end.cluster.as_ref().filter(|c| c.distribution == "kind")?;
    let context = Command::new("kubectl --context").arg(format!("kind-{}", cluster.name));
    if let Some(Service { namespace, name, .. }) = &one.end.service {
        let service = ObjectName { namespace: namespace.clone(), name: name.clone() };
        return Some(context.port_forward(service));
    }
    if owner::is_node_port(&one.socket, &one.end.processes) {
        return Some(context.args("port-forward svc/SERVICE").any_ports());
    }
    let pod = one.end.pod.as_ref()?;
    let (namespace, name) = (pod.namespace.as_ref()?, pod.name.as_ref()?);
    let port = one.socket.port;
    let ports = match one.inner.filter(|inner| *inner != port) {
        Some(inner) => format!("{port}:{inner}"),
        None => port.to_string(),
    };
    let of = context.args("-n").arg(namespace).args("port-forward");
    Some(of.arg(format!("pod/{name}")).arg(ports))
}

/// How to publish the ports of these listeners on the host.
fn publish(facts: &Facts<'_>, all: &[&Inside], from: Vantage) -> Vec<Advice> {
    let mut ways = Vec::new();
    let port = join(all.iter().map(|one| one.socket.port.to_string()), "and");
    let of = |distribution: &str| -> Vec<String> {
        let clusters = all.iter().filter_map(|one| one.end.cluster.as_ref());
        let names = clusters.filter(|c| c.distribution == distribution).map(|c| c.name.clone());
        names.collect::<BTreeSet<_>>().into_iter().collect()
    };
    let (kind, k3d, minikube) = (of("kind"), of("k3d"), of("minikube"));
    if !kind.is_empty() {
        let word = if kind.len() > 1 { "clusters" } else { "cluster" };
        let recreate = Advice::from(format!("recreate kind {word} ")).names(&kind, "and");
        ways.push(recreate.words(format!(
            " with extraPortMappings for containerPort {port} \
             (ports can't be added to an existing node)"
        )));
    }
    if let Some(name) = k3d.first() {
        let port = all.first().map_or_else(String::new, |one| one.socket.port.to_string());
        let edit = Command::new("k3d cluster edit --port-add");
        ways.push(edit.arg(format!("HOSTPORT:{port}@loadbalancer")).name(name).into());
    }
    if let Some(name) = minikube.first() {
        let service = Command::new("minikube -p").arg(name).args("service SERVICE");
        ways.push(Advice::from(service).words(", or kubectl port-forward"));
    }
    let plain = |one: &&&Inside| {
        one.end.cluster.is_none() && one.end.pod.is_none() && one.end.containers.len() == 1
    };
    let mut containers = BTreeSet::new();
    let mut others = Vec::new();
    for one in all.iter().filter(plain) {
        for container in &one.end.containers {
            match publish::how(facts, one.socket.netns, container, one.socket.port, from) {
                How::Recreate(name) => _ = containers.insert(name),
                How::Other(advice) if !others.contains(&advice) => others.push(advice),
                How::Other(_) | How::Nothing => {}
            }
        }
    }
    let containers: Vec<String> = containers.into_iter().collect();
    if !containers.is_empty() {
        let word = if containers.len() > 1 { "containers" } else { "container" };
        let recreate = Advice::from(format!("recreate {word} ")).names(&containers, "and");
        ways.push(recreate.words(format!(" with -p HOSTPORT:{port}")));
    }
    let ways = ways.into_iter().map(|way: Advice| way.of(FixKind::Publish));
    ways.chain(others).collect()
}

/// What opens a port of this host that is bound to its loopback.
pub(super) fn loopback_fix(facts: &Facts<'_>, socket: &Socket, end: &End) -> Advice {
    let port = socket.port.0;
    let at = super::at(socket.effective_address(), port);
    let ssh = Command::new("ssh -L").arg(format!("{port}:{at}")).name(&facts.host.hostname);
    let publisher = end.containers.iter().find_map(|container| {
        let publishes =
            |p: &&Published| p.host_port == Some(socket.port) && p.proto == socket.proto;
        container.ports.iter().find(publishes).map(|port| (container, port))
    });
    let open = match publisher {
        Some((container, published)) => recreate(container, published),
        None => Advice::from("bind it to another address").of(FixKind::Bind),
    };
    Advice::from("tunnel to it from there: ").command(ssh).of(FixKind::SshTunnel).or(open)
}

/// How a container comes to publish a port on more than loopback.
pub(super) fn recreate(container: &Container, published: &Published) -> Advice {
    let inner = published.container_port;
    let advice = match container.cluster().filter(|cluster| cluster.distribution == "kind") {
        // kind makes the API server's mapping by itself; all others are asked for.
        Some(cluster) if inner == Port(6443) => Advice::from("recreate kind cluster ")
            .name(&cluster.name)
            .words(" with networking.apiServerAddress"),
        Some(cluster) => Advice::from("recreate kind cluster ")
            .name(&cluster.name)
            .words(format!(" with a listenAddress for containerPort {inner} in extraPortMappings")),
        None => {
            let host = published.host_port.map_or_else(String::new, |port| format!("{port}:"));
            Advice::from("recreate container ")
                .name(container_name(container))
                .words(format!(" with -p {host}{inner}"))
        }
    };
    advice.of(FixKind::Publish)
}

/// Whether a container at the end publishes a port.
pub(super) fn is_published(port: Port, end: &End) -> bool {
    end.containers.iter().flat_map(|c| &c.ports).any(|p| p.host_port == Some(port))
}

/// What gives a published port something to lead to.
pub(super) fn dead_fix(facts: &Facts<'_>, port: Port, end: &End) -> Advice {
    if let Some(fix) = end.unserved.and_then(|place| beside::fix(facts, place)) {
        return fix;
    }
    let publishes = |p: &&Published| p.host_port == Some(port);
    let inner = end.containers.iter().find_map(|c| c.ports.iter().find(publishes));
    match (&end.cluster, inner.map(|p| p.container_port)) {
        (Some(cluster), Some(port)) if owner::NODE_PORTS.contains(&port.0) => {
            Advice::from(format!(
                "create a Service of type NodePort with nodePort {port} in {} cluster ",
                cluster.distribution
            ))
            .name(&cluster.name)
            .of(FixKind::CreateService)
        }
        _ => Advice::from("start what should listen there, or remove the published port")
            .of(FixKind::Start),
    }
}
