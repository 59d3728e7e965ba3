//! What is known of each container runtime before anything of it is read: the one table of them.
//!
//! A name in it decides nothing alone: who may speak for a container is decided by what the
//! kernel says of the process behind a name (`node/live/containers/trust.rs`).

use super::Runtime;

/// A runtime.
#[derive(Debug)]
pub struct Description {
    /// Which one.
    pub runtime: Runtime,
    /// Its name as users write it.
    pub name: &'static str,
    /// The programs that can be asked for its containers.
    pub daemons: &'static [Daemon],
    /// How the programs begin that watch over one container or pod each.
    pub monitors: &'static [&'static str],
    /// What stands before an id in a cgroup's name: `docker-ID.scope`, `….slice:cri-containerd:ID`.
    pub scopes: &'static [&'static str],
    /// The same of cgroups in which monitors are.
    pub monitor_scopes: &'static [&'static str],
    /// The cgroups directly above those that are called by a bare id.
    pub parents: &'static [&'static str],
    /// Where it keeps the state of its containers, unless told otherwise.
    pub states: &'static [&'static str],
    /// The program that keeps published ports from others without serving them, as `comm`.
    pub reserves: Option<&'static str>,
    /// How a container is stopped.
    pub stop: Option<(&'static str, By)>,
    /// How a container that was paused goes on.
    pub go_on: Option<(&'static str, By)>,
}

/// A program that can be asked for containers.
#[derive(Debug)]
pub struct Daemon {
    /// Its names, as `comm`.
    pub programs: &'static [&'static str],
    /// What it speaks.
    pub speaks: Speaks,
    /// What the file names of its sockets have in them, where others have other ones.
    pub marks: &'static [&'static str],
    /// Where the machine's own one listens.
    pub sockets: &'static [&'static str],
    /// Where a user's own one listens, below the directory of what runs for that user.
    pub user_sockets: &'static [&'static str],
}

/// In what way a daemon can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// The REST API of Docker, which Podman has, too.
    Api,
    /// The Container Runtime Interface of Kubernetes.
    Cri,
}

/// What a command calls a container by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Its name.
    Name,
    /// Its name, as the value of the option before it.
    Value,
    /// Its id, of containers in pods: the command knows no others.
    PodId,
}

/// Where containers/storage keeps containers: CRI-O's and Podman's.
const STORAGES: [&str; 2] = ["/run/containers/storage", "/var/lib/containers/storage"];

/// A runtime of which nothing is known but its name.
const fn bare(runtime: Runtime, name: &'static str) -> Description {
    Description {
        runtime,
        name,
        daemons: &[],
        monitors: &[],
        scopes: &[],
        monitor_scopes: &[],
        parents: &[],
        states: &[],
        reserves: None,
        stop: None,
        go_on: None,
    }
}

/// Every runtime.
pub static RUNTIMES: [Description; 8] = [
    Description {
        daemons: &[
            Daemon {
                programs: &["dockerd"],
                speaks: Speaks::Api,
                marks: &[],
                sockets: &["/var/run/docker.sock"],
                user_sockets: &["docker.sock"],
            },
            // k3s serves CRI for Docker with `--docker`; its containerd is a process of its own.
            Daemon {
                programs: &["cri-dockerd", "k3s", "k3s-server", "k3s-agent"],
                speaks: Speaks::Cri,
                marks: &["dockerd", "dockershim"],
                sockets: &[
                    "/var/run/cri-dockerd.sock",
                    "/run/k3s/cri-dockerd/cri-dockerd.sock",
                    "/var/run/dockershim.sock",
                ],
                user_sockets: &[],
            },
        ],
        monitors: &["containerd-shim"],
        scopes: &["docker"],
        parents: &["docker"],
        states: &["/var/lib/docker", "/var/snap/docker/common/var-lib-docker"],
        reserves: Some("dockerd"),
        stop: Some(("docker stop", By::Name)),
        go_on: Some(("docker unpause", By::Name)),
        ..bare(Runtime::Docker, "docker")
    },
    Description {
        daemons: &[Daemon {
            programs: &["podman"],
            speaks: Speaks::Api,
            marks: &[],
            sockets: &["/run/podman/podman.sock"],
            user_sockets: &["podman/podman.sock"],
        }],
        monitors: &["conmon"],
        scopes: &["libpod", "libpod-payload"],
        monitor_scopes: &["libpod-conmon"],
        states: &STORAGES,
        reserves: Some("conmon"),
        stop: Some(("podman stop", By::Name)),
        go_on: Some(("podman unpause", By::Name)),
        ..bare(Runtime::Podman, "podman")
    },
    Description {
        // Of kubeadm and kind, k3s and RKE2, k0s, MicroK8s.
        daemons: &[Daemon {
            programs: &["containerd", "kubelet"],
            speaks: Speaks::Cri,
            marks: &[],
            sockets: &[
                "/run/containerd/containerd.sock",
                "/run/k3s/containerd/containerd.sock",
                "/run/k0s/containerd.sock",
                "/var/snap/microk8s/common/run/containerd.sock",
            ],
            user_sockets: &[],
        }],
        monitors: &["containerd-shim"],
        scopes: &["cri-containerd"],
        // nerdctl and ctr make `/NAMESPACE/ID`.
        parents: &["default", "k8s.io", "moby"],
        // The system's, the one that dockerd starts, and those above; Talos's.
        states: &[
            "/run/containerd",
            "/run/docker/containerd/daemon",
            "/run/k3s/containerd",
            "/run/k0s/containerd",
            "/var/snap/microk8s/common/run/containerd",
            "/system/run/containerd",
        ],
        stop: Some(("crictl stop", By::PodId)),
        go_on: Some(("ctr -n k8s.io task resume", By::PodId)),
        ..bare(Runtime::Containerd, "containerd")
    },
    Description {
        scopes: &["nerdctl"],
        stop: Some(("nerdctl stop", By::Name)),
        go_on: Some(("nerdctl unpause", By::Name)),
        ..bare(Runtime::Nerdctl, "nerdctl")
    },
    Description {
        daemons: &[Daemon {
            programs: &["crio"],
            speaks: Speaks::Cri,
            marks: &["crio"],
            sockets: &["/var/run/crio/crio.sock"],
            user_sockets: &[],
        }],
        monitors: &["conmon"],
        scopes: &["crio"],
        monitor_scopes: &["crio-conmon"],
        states: &STORAGES,
        stop: Some(("crictl stop", By::PodId)),
        ..bare(Runtime::CriO, "cri-o")
    },
    Description {
        stop: Some(("lxc-stop -n", By::Value)),
        go_on: Some(("lxc-unfreeze -n", By::Value)),
        ..bare(Runtime::Lxc, "lxc")
    },
    Description {
        stop: Some(("machinectl terminate", By::Name)),
        ..bare(Runtime::Nspawn, "systemd-nspawn")
    },
    bare(Runtime::Unknown, "unknown runtime"),
];

impl Runtime {
    /// What is known of it.
    pub fn described(self) -> &'static Description {
        let found = RUNTIMES.iter().find(|one| one.runtime == self);
        // A test sees that each is there.
        found.unwrap_or(&RUNTIMES[RUNTIMES.len() - 1])
    }

    /// The daemons of all runtimes that speak so.
    pub fn daemons(speaks: Speaks) -> impl Iterator<Item = (Self, &'static Daemon)> {
        let each = |one: &'static Description| one.daemons.iter().map(|d| (one.runtime, d));
        RUNTIMES.iter().flat_map(each).filter(move |(_, daemon)| daemon.speaks == speaks)
    }

    /// The runtimes and daemons of a program.
    pub fn of_program(comm: &str) -> Option<(Self, &'static Daemon)> {
        let all = [Speaks::Api, Speaks::Cri].into_iter().flat_map(Self::daemons);
        all.into_iter().find(|(_, daemon)| daemon.programs.contains(&comm))
    }

    /// Whether a program watches over containers.
    pub fn is_monitor(program: &str) -> bool {
        RUNTIMES.iter().flat_map(|one| one.monitors).any(|begin| program.starts_with(begin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_runtime_is_described_once_and_no_name_means_two() {
        use Runtime::{Containerd, CriO, Docker, Lxc, Nerdctl, Nspawn, Podman, Unknown};
        for runtime in [Docker, Podman, Containerd, Nerdctl, CriO, Lxc, Nspawn, Unknown] {
            let all = RUNTIMES.iter().filter(|one| one.runtime == runtime);
            assert_eq!(all.count(), 1, "{runtime:?}");
            assert_eq!(runtime.described().runtime, runtime);
        }
        let scopes = RUNTIMES.iter().flat_map(|one| one.scopes.iter().chain(one.monitor_scopes));
        let parents = RUNTIMES.iter().flat_map(|one| one.parents);
        let daemons = RUNTIMES.iter().flat_map(|one| one.daemons);
        let programs = daemons.clone().flat_map(|daemon| daemon.programs);
        let sockets = daemons.flat_map(|daemon| daemon.sockets);
        for names in
            [scopes.collect::<Vec<_>>(), parents.collect(), programs.collect(), sockets.collect()]
        {
            let mut once = names.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), names.len(), "{names:?}");
        }
    }
}
