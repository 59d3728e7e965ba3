//! Which cluster an end belongs to, where no label of a container says it: by the
//! arguments of the components themselves, and by the files that a distribution keeps on
//! its own nodes.

use super::component;
use super::facts::Facts;
use crate::model::{Cluster, Evidence, EvidenceSource, Path, Process};

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
            |c: &&crate::model::Component| c.confirmed && !path.end.processes.is_empty();
        if let Some(component) = found.as_ref().filter(by_arguments) {
            let detail = format!("{} by its program and arguments", component.name);
            path.end.evidence.push(Evidence::new(EvidenceSource::CommandLine, detail));
        }
        path.end.component = found;
        if path.end.cluster.is_none()
            && let Some(cluster) = of(facts, path)
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
        here(facts, &mut cluster);
    }
    Some(cluster)
}

/// What this machine's own name and files add to a cluster that it is a node of.
fn here(facts: &Facts<'_>, cluster: &mut Cluster) {
    let node = cluster.node.get_or_insert_with(|| facts.host.hostname.clone());
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
