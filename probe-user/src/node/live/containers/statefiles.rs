//! What runtimes leave in files: names without asking a daemon.
//!
//! The parsers are pure and take what containerd, CRI-O, Docker, nerdctl and
//! Podman write; the readers try the places where it can be, below a root.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bollard::models::{ContainerConfig, NetworkSettings};
use serde::Deserialize;

use super::super::safefs::{Root, Unreadable};
use super::docker::described;
use super::procs::option_values;
use crate::model::{Container, ContainerRef, Network, Pod, Port, Proto, Published, Runtime};

/// The largest file that is read, in bytes.
const MAX_FILE: usize = 8 * 1024 * 1024;

/// Where containerds keep the state of running containers: the system's, the
/// one that dockerd starts, k3s's and RKE2's, k0s's, MicroK8s's, Talos's.
const CONTAINERD_STATES: [&str; 6] = [
    "/run/containerd",
    "/run/docker/containerd/daemon",
    "/run/k3s/containerd",
    "/run/k0s/containerd",
    "/var/snap/microk8s/common/run/containerd",
    "/system/run/containerd",
];

/// Where CRI-O and Podman keep containers.
const STORAGES: [&str; 2] = ["/run/containers/storage", "/var/lib/containers/storage"];

/// Where Docker keeps containers, unless told otherwise.
const DOCKER_ROOTS: [&str; 2] = ["/var/lib/docker", "/var/snap/docker/common/var-lib-docker"];

/// The process that watches over a container: a containerd shim or conmon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Monitor {
    pub(super) argv: Vec<String>,
    pub(super) cwd: Option<PathBuf>,
}

/// What a monitor's command line says.
#[derive(Debug, PartialEq, Eq)]
enum Watch<'a> {
    /// A shim of containerd, with the namespace it works in.
    Shim { namespace: &'a str },
    /// conmon: the container's id, its name and its bundle.
    Conmon { id: &'a str, name: Option<&'a str>, bundle: Option<&'a str> },
}

impl Monitor {
    fn watch(&self) -> Option<Watch<'_>> {
        let program = Path::new(self.argv.first()?).file_name()?.to_str()?;
        let one = |names: &[&str]| option_values(&self.argv, names).first().copied();
        if program.starts_with("containerd-shim") {
            return Some(Watch::Shim { namespace: one(&["-namespace", "--namespace"])? });
        }
        (program == "conmon").then_some(())?;
        Some(Watch::Conmon {
            id: one(&["-c", "--cid"])?,
            name: one(&["-n", "--name"]),
            bundle: one(&["-b", "--bundle"]),
        })
    }
}

/// Looks for the container below `root`, where its runtime keeps its files.
///
/// The error is the first file that is there but can't be read.
pub(super) fn find(
    root: &Root,
    target: &ContainerRef,
    monitor: Option<&Monitor>,
    data_roots: &[String],
) -> Result<Option<Container>, (String, Unreadable)> {
    let mut reader = Reader { root, refused: None };
    let found = match target.runtime {
        Runtime::Lxc | Runtime::Nspawn => Some(by_name(target)),
        Runtime::Docker => reader.docker(target, monitor, data_roots),
        Runtime::Podman | Runtime::CriO => reader.storage(target, monitor),
        Runtime::Containerd | Runtime::Nerdctl => reader.containerd(target, monitor),
        Runtime::Unknown => reader
            .docker(target, monitor, data_roots)
            .or_else(|| reader.storage(target, monitor))
            .or_else(|| reader.containerd(target, monitor)),
    };
    match (found, reader.refused) {
        (Some(mut container), _) => {
            if container.pod.is_none() {
                container.pod = target.pod.as_ref().map(Pod::from);
            } else if let (Some(pod), Some(uid)) = (&mut container.pod, &target.pod) {
                // The path is the kubelet's word; an annotation of a static pod
                // may have another one.
                pod.uid = Some(uid.uid.clone());
            }
            Ok(Some(container))
        }
        (None, Some(refused)) => Err(refused),
        (None, None) => Ok(None),
    }
}

/// LXC's and systemd's containers are named by their cgroup.
pub(super) fn by_name(target: &ContainerRef) -> Container {
    let mut container = blank(target, "cgroup path".to_owned());
    container.name = Some(target.id.clone());
    container
}

struct Reader<'a> {
    root: &'a Root,
    refused: Option<(String, Unreadable)>,
}

impl Reader<'_> {
    fn read(&mut self, path: &Path) -> Option<Vec<u8>> {
        match self.root.read(path, MAX_FILE) {
            Ok(content) => Some(content),
            Err(error) => {
                self.refuse(path, error);
                None
            }
        }
    }

    fn refuse(&mut self, path: &Path, error: Unreadable) {
        if error != Unreadable::Missing {
            self.refused.get_or_insert_with(|| (path.display().to_string(), error));
        }
    }

    /// Parses what was read; what can't be parsed counts as unreadable.
    fn parsed<T>(&mut self, path: &Path, result: serde_json::Result<T>) -> Option<T> {
        result.map_err(|e| self.refuse(path, Unreadable::Failed(e.to_string()))).ok()
    }

    fn docker(
        &mut self,
        target: &ContainerRef,
        monitor: Option<&Monitor>,
        data_roots: &[String],
    ) -> Option<Container> {
        let mut roots: Vec<PathBuf> = data_roots.iter().map(PathBuf::from).collect();
        // The OCI bundle mounts files of the data directory into the container.
        if let Some((_, bundle)) = self.bundle(target, monitor) {
            roots.extend(bundle.data_root(&target.id));
        }
        let configured = Path::new("/etc/docker/daemon.json");
        if let Ok(content) = self.root.read(configured, MAX_FILE) {
            roots.extend(data_root_in(&content));
        }
        roots.extend(DOCKER_ROOTS.map(PathBuf::from));
        for root in roots {
            let dir = root.join("containers").join(&target.id);
            let path = dir.join("config.v2.json");
            let Some(config) = self.read(&path) else { continue };
            let host = self.read(&dir.join("hostconfig.json"));
            let parsed = docker_config(&config, host.as_deref());
            let Some(mut container) = self.parsed(&path, parsed) else { continue };
            if container.id == target.id {
                container.via = format!("state file {}", path.display());
                return Some(container);
            }
        }
        None
    }

    /// The OCI bundle of a container of containerd, with its path.
    fn bundle(
        &mut self,
        target: &ContainerRef,
        monitor: Option<&Monitor>,
    ) -> Option<(PathBuf, Bundle)> {
        let mut places: Vec<PathBuf> = Vec::new();
        let mut namespaces: Vec<OsString> = Vec::new();
        if let Some(Watch::Shim { namespace }) = monitor.and_then(Monitor::watch)
            && !namespace.contains('/')
        {
            // A shim runs in the bundle of its first container; those of the
            // others (of the same pod) are beside it.
            let beside = monitor.and_then(|m| m.cwd.as_deref()).and_then(Path::parent);
            places.extend(beside.map(|dir| dir.join(&target.id)));
            namespaces.push(namespace.into());
        }
        for state in CONTAINERD_STATES {
            let tasks = Path::new(state).join("io.containerd.runtime.v2.task");
            let mut names = namespaces.clone();
            if names.is_empty() {
                names = self.root.list(&tasks, 64).unwrap_or_default();
            }
            places.extend(names.iter().map(|name| tasks.join(name).join(&target.id)));
        }
        places.into_iter().find_map(|dir| {
            let path = dir.join("config.json");
            let content = self.read(&path)?;
            let bundle = self.parsed(&path, serde_json::from_slice(&content))?;
            Some((path, bundle))
        })
    }

    fn containerd(
        &mut self,
        target: &ContainerRef,
        monitor: Option<&Monitor>,
    ) -> Option<Container> {
        let (path, bundle) = self.bundle(target, monitor)?;
        Some(bundle.container(target, format!("state file {}", path.display())))
    }

    fn storage(&mut self, target: &ContainerRef, monitor: Option<&Monitor>) -> Option<Container> {
        let mut name = None;
        let mut stores: Vec<PathBuf> = Vec::new();
        if let Some(Watch::Conmon { id, name: given, bundle }) = monitor.and_then(Monitor::watch)
            && id == target.id
        {
            name = given.map(str::to_owned);
            // <store>/overlay-containers/<id>/userdata
            let dir = bundle.map(Path::new).and_then(|b| b.parent()?.parent());
            stores.extend(dir.map(Path::to_owned));
        }
        for storage in STORAGES {
            stores.push(Path::new(storage).join("overlay-containers"));
        }
        let mut container = blank(target, "conmon's command line".to_owned());
        let named_by_monitor = name.is_some();
        container.name = name;
        let mut found = false;
        for store in stores {
            let path = store.join(&target.id).join("userdata/config.json");
            if !found && let Some(content) = self.read(&path) {
                let parsed = serde_json::from_slice::<Bundle>(&content);
                if let Some(bundle) = self.parsed(&path, parsed) {
                    found = true;
                    let monitors = container.name.take();
                    container = bundle.container(target, format!("state file {}", path.display()));
                    // Podman's names are not in the bundle, CRI-O's are.
                    container.name = container.name.take().or(monitors);
                }
            }
            for file in ["containers.json", "volatile-containers.json"] {
                let path = store.join(file);
                if let Some(content) = self.read(&path)
                    && let Some(stored) = self.parsed(&path, stored(&content, &target.id))
                    && let Some(stored) = stored
                {
                    found = true;
                    container.name = container.name.or(stored.name);
                    container.image = container.image.or(stored.image);
                    container.pod = container.pod.or(stored.pod);
                    container.via = format!("state file {}", path.display());
                }
            }
            if found && container.name.is_some() && container.image.is_some() {
                break;
            }
        }
        (found || named_by_monitor).then_some(container)
    }
}

fn blank(target: &ContainerRef, via: String) -> Container {
    Container {
        runtime: target.runtime,
        id: target.id.clone(),
        name: None,
        image: None,
        labels: BTreeMap::new(),
        networks: Vec::new(),
        ports: Vec::new(),
        network_mode: None,
        pid: None,
        parents: Vec::new(),
        pod: target.pod.as_ref().map(Pod::from),
        via,
    }
}

/// Docker's `config.v2.json` and `hostconfig.json` (moby 20.10 to 29).
fn docker_config(config: &[u8], host: Option<&[u8]>) -> serde_json::Result<Container> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config {
        #[serde(rename = "ID")]
        id: String,
        name: Option<String>,
        state: Option<State>,
        config: Option<ContainerConfig>,
        network_settings: Option<NetworkSettings>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct State {
        pid: Option<i64>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Host {
        network_mode: Option<String>,
    }
    let config: Config = serde_json::from_slice(config)?;
    let host = host.and_then(|text| serde_json::from_slice::<Host>(text).ok());
    Ok(described(
        Runtime::Docker,
        config.id,
        config.name,
        config.state.and_then(|s| s.pid),
        config.config.unwrap_or_default(),
        config.network_settings.unwrap_or_default(),
        host.and_then(|h| h.network_mode),
    ))
}

/// `data-root` of Docker's `daemon.json`.
fn data_root_in(content: &[u8]) -> Option<PathBuf> {
    let settings: serde_json::Value = serde_json::from_slice(content).ok()?;
    let root = settings.get("data-root").or_else(|| settings.get("graph"))?;
    Some(PathBuf::from(root.as_str()?))
}

/// The parts of an OCI `config.json` that are used.
#[derive(Debug, Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    mounts: Option<Vec<Mount>>,
}

#[derive(Debug, Deserialize)]
struct Mount {
    #[serde(default)]
    source: Option<String>,
}

impl Bundle {
    fn annotation(&self, keys: &[&str]) -> Option<String> {
        let all = self.annotations.as_ref()?;
        keys.iter().find_map(|key| all.get(*key)).filter(|v| !v.is_empty()).cloned()
    }

    /// Docker's data directory, by the files in it that are mounted.
    fn data_root(&self, id: &str) -> Option<PathBuf> {
        let end = format!("/containers/{id}/hostname");
        let mut sources = self.mounts.iter().flatten().filter_map(|m| m.source.as_deref());
        sources.find_map(|source| source.strip_suffix(&end)).map(PathBuf::from)
    }

    /// What the annotations of containerd's CRI plugin, of CRI-O and of nerdctl
    /// say.
    fn container(&self, target: &ContainerRef, via: String) -> Container {
        let mut container = blank(target, via);
        let sandbox = self.annotation(&[
            "io.kubernetes.cri.container-type",
            "io.kubernetes.cri-o.ContainerType",
        ]);
        container.name = self.annotation(&[
            "io.kubernetes.cri.container-name",
            "io.kubernetes.container.name",
            "nerdctl/name",
        ]);
        if sandbox.as_deref() == Some("sandbox") {
            // The pause container, which only holds the pod's namespaces.
            container.name = Some("pause".to_owned());
        }
        container.image = self.annotation(&[
            "io.kubernetes.cri.image-name",
            "io.kubernetes.cri.podsandbox.image-name",
            "io.kubernetes.cri-o.ImageName",
            "io.kubernetes.cri-o.Image",
        ]);
        let pod = Pod {
            namespace: self
                .annotation(&["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]),
            name: self.annotation(&[
                "io.kubernetes.cri.sandbox-name",
                "io.kubernetes.pod.name",
                "io.kubernetes.cri-o.KubeName",
            ]),
            uid: self.annotation(&["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"]),
        };
        if pod.name.is_some() {
            container.pod = Some(pod);
        }
        if let Some(labels) = self.annotation(&["io.kubernetes.cri-o.Labels"]) {
            container.labels = serde_json::from_str(&labels).unwrap_or_default();
        }
        self.nerdctl(&mut container);
        container
    }

    fn nerdctl(&self, container: &mut Container) {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        #[derive(Default)]
        struct Mapping {
            host_port: u16,
            container_port: u16,
            protocol: String,
            #[serde(rename = "HostIP")]
            host_ip: String,
        }
        if self.annotation(&["nerdctl/namespace"]).is_none() {
            return;
        }
        container.runtime = Runtime::Nerdctl;
        for (key, value) in self.annotations.iter().flatten() {
            // nerdctl copies the container's labels; its own are shown as facts.
            if !key.starts_with("nerdctl/") && !key.starts_with("io.containerd.") {
                container.labels.insert(key.clone(), value.clone());
            }
        }
        let list = |key: &str| self.annotation(&[key]).unwrap_or_default();
        let mappings: Vec<Mapping> = serde_json::from_str(&list("nerdctl/ports")).unwrap_or_default();
        container.ports = mappings
            .into_iter()
            .filter_map(|mapping| {
                Some(Published {
                    proto: Proto::ALL.into_iter().find(|p| p.as_str() == mapping.protocol)?,
                    container_port: Some(Port(mapping.container_port)).filter(|p| p.0 != 0)?,
                    host_port: Some(Port(mapping.host_port)).filter(|p| p.0 != 0),
                    host_ip: mapping.host_ip.parse().ok(),
                })
            })
            .collect();
        let networks: Vec<String> =
            serde_json::from_str(&list("nerdctl/networks")).unwrap_or_default();
        container.network_mode = networks.first().cloned();
        container.networks =
            networks.into_iter().map(|name| Network { name, addresses: Vec::new() }).collect();
    }
}

/// What `containers.json` of containers/storage says of a container.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stored {
    name: Option<String>,
    image: Option<String>,
    pod: Option<Pod>,
}

fn stored(content: &[u8], id: &str) -> serde_json::Result<Option<Stored>> {
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        #[serde(default)]
        names: Option<Vec<String>>,
        #[serde(default)]
        metadata: String,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "kebab-case", default)]
    struct Metadata {
        image_name: Option<String>,
        name: Option<String>,
        metadata_name: Option<String>,
        pod_name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
    }
    let entries: Vec<Entry> = serde_json::from_slice(content)?;
    Ok(entries.into_iter().find(|e| e.id == id).map(|entry| {
        let text = |t: Option<String>| t.filter(|t| !t.is_empty());
        let metadata: Metadata = serde_json::from_str(&entry.metadata).unwrap_or_default();
        let pod_name = text(metadata.pod_name);
        Stored {
            name: text(metadata.metadata_name)
                .or_else(|| text(metadata.name))
                .or_else(|| entry.names.into_iter().flatten().next()),
            image: text(metadata.image_name),
            pod: pod_name.map(|name| Pod {
                namespace: text(metadata.namespace),
                // CRI-O's full name; its annotations have the short one.
                name: Some(name),
                uid: text(metadata.uid),
            }),
        }
    }))
}

#[cfg(test)]
mod tests;
