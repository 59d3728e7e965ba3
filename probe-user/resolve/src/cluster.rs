//! Which cluster an end belongs to, where no label of a container says it: by the
//! arguments of the components themselves, and by the files that a distribution keeps on
//! its own nodes.

use std::collections::BTreeSet;

use super::component;
use super::facts::Facts;
use whereis_port_model::{
    Cluster, Evidence, EvidenceSource, HopKind, ListRow, NetnsId, Path, Port, PortRange, Process,
    Proto, SocketFilter,
};

#[cfg(test)]
mod tests;

/// What Docker Desktop calls the node of its cluster, and the cluster.
const DOCKER_DESKTOP: &str = "docker-desktop";

/// Where distributions keep what their components get as arguments, and what that says. A
/// directory ends with a slash; the files are those that kubeadm writes.
const PLACES: [(&str, &str); 16] = [
    ("/var/lib/rancher/rke2/", "rke2"),
    ("/etc/rancher/rke2/", "rke2"),
    ("/var/lib/rancher/k3s/", "k3s"),
    ("/var/lib/k0s/", "k0s"),
    ("/var/snap/microk8s/", "microk8s"),
    ("/snap/microk8s/", "microk8s"),
    ("/system/secrets/", "talos"),
    ("/etc/kubernetes/static-pod-resources/", "openshift"),
    ("/etc/kubernetes/static-pod-certs/", "openshift"),
    ("/var/lib/microshift/", "microshift"),
    ("/var/lib/minikube/", "minikube"),
    ("/etc/kubernetes/controller-manager.conf", "kubeadm"),
    ("/etc/kubernetes/scheduler.conf", "kubeadm"),
    ("/etc/kubernetes/bootstrap-kubelet.conf", "kubeadm"),
    ("/etc/kubernetes/pki/apiserver.crt", "kubeadm"),
    ("/etc/kubernetes/pki/etcd/server.crt", "kubeadm"),
];

/// The kubeconfig that a distribution writes on its nodes: the cluster's name is in it.
const KUBECONFIGS: [(&str, &str); 3] = [
    ("kubeadm", "/etc/kubernetes/admin.conf"),
    ("kubeadm", "/etc/kubernetes/super-admin.conf"),
    ("k0s", "/var/lib/k0s/pki/admin.conf"),
];

/// Names component and cluster at the end of each path.
pub(super) fn name(facts: &Facts<'_>, paths: &mut [Path]) {
    for path in paths {
        let found = component::of_path(path);
        let by_arguments =
            |c: &&whereis_port_model::Component| c.confirmed && !path.end.processes.is_empty();
        if let Some(component) = found.as_ref().filter(by_arguments) {
            let detail = format!("{} by its program and arguments", component.name);
            path.end.evidence.push(Evidence::new(EvidenceSource::CommandLine, detail));
        }
        path.end.component = found;
        if path.end.cluster.is_none()
            && let Some(cluster) = of(facts, path).or_else(|| of_service(facts, path))
        {
            path.end
                .evidence
                .push(Evidence::new(EvidenceSource::CommandLine, cluster.source.clone()));
            path.end.cluster = Some(cluster);
        }
    }
}

fn of(facts: &Facts<'_>, path: &Path) -> Option<Cluster> {
    path.end.component.as_ref().filter(|component| component.confirmed)?;
    // Arguments are those of who started it: on the machine itself, of root.
    let is_roots = |process: &&Process| {
        process.uid == 0 && !process.own_word || !path.end.containers.is_empty()
    };
    let mut cluster = path.end.processes.iter().filter(is_roots).find_map(by_arguments)?;
    // Inside of a container the machine's name and files are another's. A pod of the node
    // itself is no such container.
    if path.end.containers.iter().all(|container| container.pod.is_some()) {
        let netns = path.hops.iter().rev().find_map(|hop| hop.netns.as_ref())?.id;
        here(facts, netns, &mut cluster);
    }
    Some(cluster)
}

/// The cluster of a node whose rules or balancer take a port for a Service, by the controller
/// manager that runs beside them: it is told the cluster's name.
fn of_service(facts: &Facts<'_>, path: &Path) -> Option<Cluster> {
    let first = path.hops.first()?;
    let netns = first.netns.as_ref()?.id;
    if first.kind != HopKind::Service && path.end.service.is_none() {
        return None;
    }
    let manager = holder(facts, netns, CONTROLLER_MANAGER)?;
    let mut cluster = by_arguments(&manager).filter(|cluster| !cluster.name.is_empty())?;
    cluster.source.push_str(", on the node of its rules");
    // What it runs on says nothing of where the path ends.
    (cluster.role, cluster.node) = (None, None);
    Some(cluster)
}

/// The ports of the kubelet and of kube-controller-manager.
const KUBELET: Port = Port(10250);
const CONTROLLER_MANAGER: Port = Port(10257);

/// Root's process that listens on a port of a namespace.
fn holder(facts: &Facts<'_>, netns: NetnsId, port: Port) -> Option<Process> {
    let filter = SocketFilter { proto: Some(Proto::Tcp), ports: Some(PortRange::one(port)) };
    // A name that can't be told is not missed.
    let sockets = facts.world.sockets(&[netns], &filter).value;
    let inode = sockets.first()?.inode;
    let owners = facts.world.owners(&[inode].into()).value;
    let pid = owners.of(inode).first()?.pid;
    let process = facts.world.processes(&[pid]).value.first()?.clone();
    (process.uid == 0 && !process.own_word).then_some(process)
}

/// Which rows are of the cluster with this name, by the arguments of its components: these, and
/// the ports of Services in the namespaces that they are in.
pub(super) fn rows_of(rows: &[&ListRow], name: &str) -> BTreeSet<usize> {
    let is_of = |row: &ListRow| {
        let confirmed = row.component.as_ref().is_some_and(|component| component.confirmed);
        let roots = row.end.processes.iter().filter(|p| p.uid == 0 && !p.own_word);
        confirmed && roots.filter_map(by_arguments).any(|cluster: Cluster| cluster.name == name)
    };
    let named: BTreeSet<NetnsId> =
        rows.iter().filter(|row| is_of(row)).map(|row| row.netns.id).collect();
    let of_service = |row: &ListRow| named.contains(&row.netns.id) && row.kind == HopKind::Service;
    let all = rows.iter().enumerate();
    all.filter(|(_, row)| is_of(row) || of_service(row)).map(|(at, _)| at).collect()
}

/// What this machine's own name and files add to a cluster that it is a node of.
fn here(facts: &Facts<'_>, netns: NetnsId, cluster: &mut Cluster) {
    if cluster.node.is_none() {
        cluster.node = node_of(facts, netns);
    }
    // The files are those of the machine's own node.
    if netns != facts.host.host_netns.unwrap_or(facts.host.own_netns) {
        return;
    }
    let node = cluster.node.as_deref().unwrap_or_default();
    if node == DOCKER_DESKTOP && matches!(cluster.distribution.as_str(), "kubeadm" | "kubernetes") {
        DOCKER_DESKTOP.clone_into(&mut cluster.name);
        DOCKER_DESKTOP.clone_into(&mut cluster.distribution);
        cluster.source.push_str(", node docker-desktop");
    }
    if !cluster.name.is_empty() {
        return;
    }
    let files: Vec<&str> = KUBECONFIGS
        .iter()
        .filter(|(distribution, _)| *distribution == cluster.distribution)
        .map(|(_, file)| *file)
        .collect();
    // What could not be read of them is said where they are asked for what is in them.
    if files.is_empty() {
        return;
    }
    let contexts = facts.world.kube_contexts().value;
    if let Some(context) = contexts.iter().find(|c| files.contains(&c.file.as_str())) {
        cluster.name.clone_from(&context.cluster);
        cluster.source.push_str(&format!(", its name by {}", context.file));
    }
}

/// The name of the node that a namespace is: what its kubelet is told, else that of the machine
/// for its own namespace.
fn node_of(facts: &Facts<'_>, netns: NetnsId) -> Option<String> {
    let kubelet = holder(facts, netns, KUBELET).filter(|process| process.name() == "kubelet");
    let told = kubelet.as_ref().and_then(|kubelet| option(&kubelet.cmdline, "hostname-override"));
    let told = told.filter(|name| !name.is_empty()).map(str::to_owned);
    let is_machine = netns == facts.host.host_netns.unwrap_or(facts.host.own_netns);
    told.or_else(|| is_machine.then(|| facts.host.hostname.clone()))
}

/// What the program and arguments of a component say of its cluster. The name is empty
/// where they don't say it.
fn by_arguments(process: &Process) -> Option<Cluster> {
    let option = |name: &str| option(&process.cmdline, name);
    let cluster = |name: &str, distribution: &str, role: Option<&str>, source: String| Cluster {
        name: name.to_owned(),
        distribution: distribution.to_owned(),
        role: role.map(str::to_owned),
        node: option("hostname-override").filter(|node| !node.is_empty()).map(str::to_owned),
        source,
    };
    let program = process.name();
    if program == "kubelet"
        && let Some(provider) = option("provider-id")
        && let Some(named) = provided(provider)
    {
        return Some(named);
    }
    let command = process.cmdline.get(1).map_or("", String::as_str);
    let of_process = || format!("process {program}");
    // Names that a distribution gives to every cluster are in its own kubeconfigs, too.
    match (program, command) {
        // It hides its arguments, and its cluster has no name of its own.
        ("k3s-server", _) => return Some(cluster("default", "k3s", Some("server"), of_process())),
        ("k3s-agent", _) => return Some(cluster("default", "k3s", Some("agent"), of_process())),
        ("rke2", role @ ("server" | "agent")) => {
            return Some(cluster("default", "rke2", Some(role), format!("process rke2 {role}")));
        }
        ("k0s", role @ ("controller" | "worker")) => {
            return Some(cluster("", "k0s", Some(role), format!("process k0s {role}")));
        }
        ("kubelite" | "k8s-dqlite", _) => {
            return Some(cluster("microk8s-cluster", "microk8s", None, of_process()));
        }
        ("microshift" | "microshift-etcd", _) => {
            return Some(cluster("microshift", "microshift", None, of_process()));
        }
        ("machined" | "apid" | "trustd", _) => {
            return Some(cluster("", "talos", None, of_process()));
        }
        ("machine-config-server", _) => {
            let name = option("apiserver-url").and_then(of_api_host).unwrap_or_default();
            let source = "process machine-config-server".to_owned();
            return Some(cluster(name, "openshift", Some("control-plane"), source));
        }
        _ => {}
    }
    let role = matches!(
        program,
        "kube-apiserver" | "kube-controller-manager" | "kube-scheduler" | "etcd" | "hyperkube"
    )
    .then_some("control-plane");
    let place = place(process);
    let distribution = place.map(|(distribution, _)| distribution);
    // Every minikube says "mk" there.
    let named = option("cluster-name").filter(|name| !name.is_empty());
    let named = named.filter(|_| distribution != Some("minikube"));
    if program == "kube-controller-manager"
        && let Some(name) = named
    {
        let distribution = distribution.unwrap_or("kubernetes");
        return Some(cluster(name, distribution, role, "--cluster-name".to_owned()));
    }
    let (distribution, path) = place?;
    let name = match distribution {
        "k3s" | "rke2" => "default",
        "microk8s" => "microk8s-cluster",
        "microshift" => "microshift",
        _ => "",
    };
    Some(cluster(name, distribution, role, format!("{path} in the arguments of {program}")))
}

/// `kind://docker/cluster2/cluster2-control-plane`, `rke2://node-1`.
fn provided(id: &str) -> Option<Cluster> {
    let (distribution, rest) = id.split_once("://")?;
    let (name, node) = match distribution {
        "kind" => {
            let mut parts = rest.split('/').skip(1);
            (parts.next().filter(|name| !name.is_empty())?, parts.next())
        }
        "k3s" | "rke2" => ("default", Some(rest)),
        _ => return None,
    };
    Some(Cluster {
        name: name.to_owned(),
        distribution: distribution.to_owned(),
        role: None,
        node: node.filter(|node| !node.is_empty()).map(str::to_owned),
        source: "kubelet's --provider-id".to_owned(),
    })
}

/// The cluster's name in the host of OpenShift's own API: `https://api-int.NAME.DOMAIN:6443`.
fn of_api_host(url: &str) -> Option<&str> {
    let host = url.strip_prefix("https://")?;
    let (name, _) = host.strip_prefix("api-int.")?.split_once('.')?;
    (!name.is_empty()).then_some(name)
}

/// The distribution whose places a component's program or arguments name, and the place.
fn place(process: &Process) -> Option<(&'static str, &'static str)> {
    // `--config=/…`, `--config /…`, and one path behind the other.
    let words = process.cmdline.iter().flat_map(|argument| argument.split(['=', ',']));
    let paths: Vec<&str> = words.chain(process.exe.as_deref()).collect();
    let is_there = |place: &str| {
        let named = |path: &&str| {
            if place.ends_with('/') { path.starts_with(place) } else { *path == place }
        };
        paths.iter().any(named)
    };
    let found = PLACES.iter().find(|(place, _)| is_there(place))?;
    Some((found.1, found.0))
}

/// The value of `--name=value` or `--name value`.
fn option<'a>(cmdline: &'a [String], name: &str) -> Option<&'a str> {
    let mut arguments = cmdline.iter().skip(1);
    while let Some(argument) = arguments.next() {
        let Some(rest) = argument.strip_prefix("--").and_then(|rest| rest.strip_prefix(name))
        else {
            continue;
        };
        match rest.strip_prefix('=') {
            Some(value) => return Some(value),
            None if rest.is_empty() => return arguments.next().map(String::as_str),
            None => {}
        }
    }
    None
}
