//! Where two sources that both may speak for a container say different things.
//!
//! The one that is asked first names the container; that another one says otherwise is
//! told beside it, for nobody here can tell who is right.

use super::short;
use whereis_port_model::{
    Container, ContainerRef, Gap, GapKind, GapSource, Impact, Runtime, is_manifest_hash,
};

/// What `other` says otherwise than `told`.
pub(super) fn gap(target: &ContainerRef, told: &Container, other: &Container) -> Option<Gap> {
    let pod = |container: &Container| {
        let pod = container.pod.as_ref()?;
        Some(format!("{}/{}", pod.namespace.as_ref()?, pod.name.as_ref()?))
    };
    let cluster = |container: &Container| container.cluster().map(|cluster| cluster.name);
    // The API of Docker tells what a pod's container is called there, CRI what it is
    // called in its pod; and an image has many names outside of Docker.
    let is_dockers = told.runtime == Runtime::Docker && other.runtime == Runtime::Docker;
    let names = told.pod.is_none() || told.runtime != Runtime::Docker;
    let name = |container: &Container| container.name.clone().filter(|_| names);
    let image = |container: &Container| container.image.clone().filter(|_| is_dockers);
    let differences: Vec<String> = [
        ("name", name(told), name(other)),
        ("image", image(told), image(other)),
        ("pod", pod(told), pod(other)),
        ("cluster", cluster(told), cluster(other)),
    ]
    .into_iter()
    .filter_map(|(what, a, b)| match (a, b) {
        (Some(a), Some(b)) if a != b => {
            Some(disagreement(what, (&told.via.to_string(), &a), (&other.via.to_string(), &b)))
        }
        _ => None,
    })
    .collect();
    (!differences.is_empty()).then(|| {
        Gap::new(
            Impact::Name,
            GapSource::new(GapKind::Container, short(target)),
            differences.join("; "),
        )
        .remedy("ask the container runtime itself")
    })
}

/// Takes the pod's UID from the cgroup path, which is the kubelet's word, and says when the
/// runtime has another one. That of a static pod has two.
pub(super) fn pod_uid(target: &ContainerRef, container: &mut Container) -> Option<Gap> {
    let (pod, path) = (container.pod.as_mut()?, target.pod.as_ref()?);
    let told = pod.uid.replace(path.uid.clone()).filter(|uid| *uid != path.uid)?;
    (!is_manifest_hash(&path.uid) && !is_manifest_hash(&told)).then(|| {
        let said = disagreement(
            "pod",
            ("the cgroup path", &path.uid),
            (&container.via.to_string(), &told),
        );
        Gap::new(Impact::Name, GapSource::new(GapKind::Container, short(target)), said)
    })
}

fn disagreement(what: &str, (one, a): (&str, &str), (other, b): (&str, &str)) -> String {
    // What is quoted is what is left out of a redacted recording.
    let (a, b) = (a.replace('"', "'"), b.replace('"', "'"));
    format!("{one} says that its {what} is {a:?}, {other} says {b:?}")
}
