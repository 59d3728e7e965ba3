//! What a cgroup path says about containers, pods and units.

use serde::{Deserialize, Serialize};

use super::Runtime;

/// A cgroup path as the kernel prints it in `/proc/PID/cgroup`, relative to the
/// reader's cgroup namespace. Untrusted below the first container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CgroupPath(pub String);

/// A container as its cgroup path names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerRef {
    /// The runtime, as far as the path tells.
    pub runtime: Runtime,
    /// The full id, or the name for LXC and systemd-nspawn.
    pub id: String,
    /// The pod, when the path has a pod's part above the container's.
    pub pod: Option<PodRef>,
}

/// A pod as a cgroup path names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// The UID with dashes; for a static pod the hash of its manifest.
    pub uid: String,
}

impl CgroupPath {
    /// The containers in the path, outermost first. Monitors (conmon) are not
    /// containers.
    pub fn containers(&self) -> Vec<ContainerRef> {
        Vec::new()
    }

    /// The innermost systemd unit (`nginx.service`, `session-3.scope`) that is
    /// not a container's own scope, unescaped.
    pub fn unit(&self) -> Option<String> {
        None
    }
}
