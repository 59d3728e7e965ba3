//! Which cluster an end belongs to, where no label of a container says it: by the
//! arguments of the components themselves.

use super::component;
use super::facts::Facts;
use crate::model::{Cluster, Evidence, Path, Process};

/// Names component and cluster at the end of each path.
pub(super) fn name(facts: &Facts<'_>, paths: &mut [Path]) {
    for path in paths {
        let found = component::of_path(path);
        let by_arguments =
            |c: &&crate::model::Component| c.confirmed && !path.end.processes.is_empty();
        if let Some(component) = found.as_ref().filter(by_arguments) {
            let detail = format!("{} by its program and arguments", component.name);
            path.end.evidence.push(Evidence::new("command line", detail));
        }
        path.end.component = found;
        if path.end.cluster.is_none()
            && let Some(cluster) = of(facts, path)
        {
            path.end.evidence.push(Evidence::new("command line", cluster.source.clone()));
            path.end.cluster = Some(cluster);
        }
    }
}

fn of(facts: &Facts<'_>, path: &Path) -> Option<Cluster> {
    path.end.component.as_ref().filter(|component| component.confirmed)?;
    // Inside of a container the machine's name is another's.
    let host = path.end.containers.is_empty().then(|| facts.host.hostname.clone());
    path.end.processes.iter().find_map(|process| by_arguments(process, host.as_deref()))
}

/// What the arguments of a component say of its cluster.
fn by_arguments(process: &Process, host: Option<&str>) -> Option<Cluster> {
    let option = |name: &str| option(&process.cmdline, name);
    let cluster =
        |name: &str, distribution: &str, role: Option<&str>, node: Option<&str>, source: &str| {
            Cluster {
                name: name.to_owned(),
                distribution: distribution.to_owned(),
                role: role.map(str::to_owned),
                node: node.or(host).map(str::to_owned),
                source: source.to_owned(),
            }
        };
    match process.name() {
        "kubelet" => {
            // `kind://docker/cluster2/cluster2-control-plane`
            let id = option("provider-id")?.strip_prefix("kind://")?;
            let mut parts = id.split('/').skip(1);
            let name = parts.next().filter(|name| !name.is_empty())?;
            Some(cluster(name, "kind", None, parts.next(), "kubelet's --provider-id"))
        }
        "kube-controller-manager" => {
            let name = option("cluster-name").filter(|name| !name.is_empty())?;
            Some(cluster(name, "kubernetes", Some("control-plane"), None, "--cluster-name"))
        }
        // It hides its arguments, and its cluster has no name of its own.
        "k3s-server" => Some(cluster("default", "k3s", Some("server"), None, "process k3s-server")),
        "k3s-agent" => Some(cluster("default", "k3s", Some("agent"), None, "process k3s-agent")),
        "kubelite" => Some(cluster("microk8s-cluster", "microk8s", None, None, "process kubelite")),
        "microshift" => Some(cluster("microshift", "microshift", None, None, "process microshift")),
        _ => None,
    }
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
