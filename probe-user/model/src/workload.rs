//! What made a process or container: of which many are alike.

use std::fmt;

use super::{Container, End, Ending, NetnsRef, Path, Pod, Port, Proto};

/// What made what is at the end of a path. Names are untrusted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Its kind.
    pub kind: WorkloadKind,
    /// What it is in: a Kubernetes namespace, a Compose project.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// The kinds of what makes processes and containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    /// A Deployment.
    Deployment,
    /// A ReplicaSet that no Deployment is known of.
    ReplicaSet,
    /// A DaemonSet.
    DaemonSet,
    /// A StatefulSet.
    StatefulSet,
    /// A Job.
    Job,
    /// Another controller of pods.
    Controller,
    /// A pod that nothing is known to have made.
    Pod,
    /// A service of a Compose project.
    ComposeService,
    /// A service of a swarm.
    SwarmService,
    /// Containers of one image.
    Image,
}

impl Workload {
    /// What made the innermost container of an end, or its pod.
    pub fn of(end: &End) -> Option<Self> {
        if let Some(workload) = end.pod.as_ref().and_then(of_pod) {
            return Some(workload);
        }
        end.containers.last().and_then(of_container)
    }
}

/// `pods of shop/cart`, `service web of Compose project blog`, `image nginx`.
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match (self.kind, &self.namespace) {
            (WorkloadKind::ComposeService, Some(project)) => {
                write!(f, "service {name} of Compose project {project}")
            }
            (WorkloadKind::ComposeService, None) => write!(f, "Compose service {name}"),
            (WorkloadKind::SwarmService, _) => write!(f, "swarm service {name}"),
            (WorkloadKind::Image, _) => write!(f, "image {name}"),
            (_, Some(namespace)) => write!(f, "pods of {namespace}/{name}"),
            (_, None) => write!(f, "pods of {name}"),
        }
    }
}

fn of_container(container: &Container) -> Option<Workload> {
    if let Some((project, service)) = container.compose() {
        return Some(Workload {
            kind: WorkloadKind::ComposeService,
            namespace: Some(project.to_owned()),
            name: service.to_owned(),
        });
    }
    let (kind, name) = match (container.swarm_service(), &container.image) {
        (Some(service), _) => (WorkloadKind::SwarmService, service.to_owned()),
        (None, Some(image)) => (WorkloadKind::Image, image.clone()),
        (None, None) => return None,
    };
    Some(Workload { kind, namespace: None, name })
}

/// What made a pod: as the API says, or as its labels and its name tell, without what tells its
/// pods apart.
fn of_pod(pod: &Pod) -> Option<Workload> {
    let (namespace, name) = (pod.namespace.as_ref()?, pod.name.as_ref()?);
    let label = |key: &str| pod.labels.get(key).map(String::as_str);
    let stem = |name: &str| name.rsplit_once('-').map(|(stem, _)| stem.to_owned());
    let hash = label("pod-template-hash");
    let made =
        |kind, name: String| Some(Workload { kind, namespace: Some(namespace.clone()), name });
    match pod.owner.as_ref().and_then(|owner| owner.split_once('/')) {
        Some(("ReplicaSet", set)) => {
            // A Deployment calls its sets by its name and the hash of their template.
            let deployment = set.rsplit_once('-').filter(|(_, end)| match hash {
                Some(hash) => hash == *end,
                None => is_hash(end),
            });
            return match deployment {
                Some((deployment, _)) => made(WorkloadKind::Deployment, deployment.to_owned()),
                None => made(WorkloadKind::ReplicaSet, set.to_owned()),
            };
        }
        Some((kind, owner)) => {
            let kind = match kind {
                "DaemonSet" => WorkloadKind::DaemonSet,
                "StatefulSet" => WorkloadKind::StatefulSet,
                "Job" => WorkloadKind::Job,
                // A static pod's is its node.
                "Node" => return made(WorkloadKind::Pod, name.clone()),
                _ => WorkloadKind::Controller,
            };
            return made(kind, owner.to_owned());
        }
        None => {}
    }
    // A ReplicaSet's pods end in its hash and five characters, a DaemonSet's in these alone,
    // a StatefulSet's in a number.
    let told = if let Some(hash) = hash {
        let stem = stem(name);
        let deployment =
            stem.and_then(|stem| Some(stem.strip_suffix(hash)?.strip_suffix('-')?.to_owned()));
        deployment.map(|name| (WorkloadKind::Deployment, name))
    } else if label("statefulset.kubernetes.io/pod-name").is_some() {
        stem(name).map(|name| (WorkloadKind::StatefulSet, name))
    } else if label("controller-revision-hash").is_some() {
        // Of a StatefulSet by its number; both have the label.
        let number = name.rsplit_once('-').is_some_and(|(_, end)| end.parse::<u32>().is_ok());
        let kind = if number { WorkloadKind::StatefulSet } else { WorkloadKind::DaemonSet };
        stem(name).map(|name| (kind, name))
    } else {
        label("batch.kubernetes.io/job-name")
            .or_else(|| label("job-name"))
            .map(|job| (WorkloadKind::Job, job.to_owned()))
    };
    let (kind, name) = told.unwrap_or_else(|| (WorkloadKind::Pod, name.clone()));
    made(kind, name)
}

/// Whether this looks like the hash of a template: Kubernetes writes them with few letters, so
/// that they are no words (`SafeEncodeString`).
fn is_hash(text: &str) -> bool {
    (6..=10).contains(&text.len())
        && text.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b))
}

/// Paths of an answer that are alike: the same port leads to the same program of the same workload,
/// or ends in the same way.
#[derive(Debug, Clone, PartialEq)]
pub struct PathGroup<'a> {
    /// The port; `None` where it is not known.
    pub port: Option<Port>,
    /// The protocol.
    pub proto: Proto,
    /// How they end.
    pub ending: Ending,
    /// The program that serves it. Untrusted.
    pub program: Option<&'a str>,
    /// What made what serves it.
    pub workload: Option<Workload>,
    /// The paths, by their places in the answer.
    pub paths: Vec<usize>,
    /// The namespaces whose port it is.
    pub netns: Vec<&'a NetnsRef>,
}

impl<'a> PathGroup<'a> {
    /// The groups of some paths: what no process serves first, then the largest.
    pub fn of(paths: &'a [Path]) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for (at, path) in paths.iter().enumerate() {
            let Some(hop) = path.hops.first() else { continue };
            let new = Self {
                port: hop.endpoint.port,
                proto: hop.proto,
                ending: path.end.ending,
                program: path.end.processes.first().map(super::Process::name),
                workload: Workload::of(&path.end),
                paths: vec![at],
                netns: hop.netns.iter().collect(),
            };
            match groups.iter_mut().find(|known| known.is_like(&new)) {
                Some(known) => {
                    known.paths.push(at);
                    let netns = new.netns.into_iter();
                    let new: Vec<_> = netns.filter(|netns| !known.netns.contains(netns)).collect();
                    known.netns.extend(new);
                }
                None => groups.push(new),
            }
        }
        groups.sort_by_key(|group| {
            (group.ending == Ending::Process, std::cmp::Reverse(group.paths.len()))
        });
        groups
    }

    fn is_like(&self, other: &Self) -> bool {
        (self.port, self.proto, self.ending, self.program, &self.workload)
            == (other.port, other.proto, other.ending, other.program, &other.workload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, owner: Option<&str>, labels: &[(&str, &str)]) -> Pod {
        Pod {
            namespace: Some("shop".to_owned()),
            name: Some(name.to_owned()),
            owner: owner.map(str::to_owned),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Pod::default()
        }
    }

    fn made(pod: &Pod) -> (WorkloadKind, String) {
        let workload = of_pod(pod).unwrap();
        (workload.kind, workload.name)
    }

    #[test]
    fn what_made_a_pod_is_told_by_its_owner_or_its_labels() {
        let of = |kind, name: &str| (kind, name.to_owned());
        let hash = [("pod-template-hash", "6d4cf56db6")];
        let by_set = Some("ReplicaSet/cart-6d4cf56db6");
        let deployment = of(WorkloadKind::Deployment, "cart");
        assert_eq!(made(&pod("cart-6d4cf56db6-abcde", by_set, &hash)), deployment);
        assert_eq!(made(&pod("cart-6d4cf56db6-abcde", by_set, &[])), deployment);
        assert_eq!(made(&pod("cart-6d4cf56db6-abcde", None, &hash)), deployment);
        // No hash, and so no Deployment.
        let set = pod("my-web-abcde", Some("ReplicaSet/my-web"), &[]);
        assert_eq!(made(&set), of(WorkloadKind::ReplicaSet, "my-web"));
        let revision = [("controller-revision-hash", "x")];
        assert_eq!(
            made(&pod("proxy-b9ed2", None, &revision)),
            of(WorkloadKind::DaemonSet, "proxy")
        );
        assert_eq!(made(&pod("db-0", None, &revision)), of(WorkloadKind::StatefulSet, "db"));
        let job = [("job-name", "backup")];
        assert_eq!(made(&pod("backup-x7", None, &job)), of(WorkloadKind::Job, "backup"));
        assert_eq!(made(&pod("alone", None, &[])), of(WorkloadKind::Pod, "alone"));
        let static_pod = pod("etcd-node1", Some("Node/node1"), &[]);
        assert_eq!(made(&static_pod), of(WorkloadKind::Pod, "etcd-node1"));
    }
}
