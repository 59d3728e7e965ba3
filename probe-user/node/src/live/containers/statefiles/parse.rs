//! Pure parsers of what runtimes leave in files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::super::docker::{ContainerConfig, NetworkSettings, described};
use whereis_port_model::{
    Container, ContainerRef, Network, Pod, Port, Proto, Published, Runtime, ToldBy,
    is_manifest_hash,
};

pub(super) fn blank(target: &ContainerRef, via: ToldBy) -> Container {
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
        sandbox: false,
        sort: None,
        state: None,
    }
}

/// Docker's `config.v2.json` and `hostconfig.json` (moby 20.10 to 29).
pub(super) fn docker_config(config: &[u8], host: Option<&[u8]>) -> serde_json::Result<Container> {
    /// Docker's `config.v2.json`.
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ConfigV2 {
        #[serde(rename = "ID")]
        id: String,
        name: Option<String>,
        state: Option<DockerState>,
        config: Option<ContainerConfig>,
        network_settings: Option<NetworkSettings>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct DockerState {
        pid: Option<i64>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct HostConfig {
        network_mode: Option<String>,
    }
    let config: ConfigV2 = serde_json::from_slice(config)?;
    let host = host.and_then(|text| serde_json::from_slice::<HostConfig>(text).ok());
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
pub(super) fn data_root_in(content: &[u8]) -> Option<PathBuf> {
    let settings: serde_json::Value = serde_json::from_slice(content).ok()?;
    let root = settings.get("data-root").or_else(|| settings.get("graph"))?;
    Some(PathBuf::from(root.as_str()?))
}

/// The parts of an OCI `config.json` that are used.
#[derive(Debug, Deserialize)]
pub(super) struct Bundle {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    mounts: Option<Vec<OciMount>>,
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Debug, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Option<Vec<OciNamespace>>,
}

#[derive(Debug, Deserialize)]
struct OciNamespace {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct OciMount {
    #[serde(default)]
    source: Option<String>,
}

impl Bundle {
    fn annotation(&self, keys: &[&str]) -> Option<String> {
        let all = self.annotations.as_ref()?;
        keys.iter().find_map(|key| all.get(*key)).filter(|v| !v.is_empty()).cloned()
    }

    /// Docker's data directory, by the files in it that are mounted: its own
    /// `hostname`, or that of the container whose network it shares.
    pub(super) fn data_root(&self) -> Option<PathBuf> {
        self.mounts.iter().flatten().filter_map(|m| m.source.as_deref()).find_map(|source| {
            let (root, rest) = source.rsplit_once("/containers/")?;
            let (id, file) = rest.split_once('/')?;
            (id.len() == 64 && file == "hostname").then(|| PathBuf::from(root))
        })
    }

    /// What the annotations of containerd's CRI plugin, of CRI-O and of nerdctl
    /// say.
    pub(super) fn container(&self, target: &ContainerRef, via: ToldBy) -> Container {
        let mut container = blank(target, via);
        let sandbox = self
            .annotation(&["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]);
        container.name = self.annotation(&[
            "io.kubernetes.cri.container-name",
            "io.kubernetes.container.name",
            "nerdctl/name",
        ]);
        if sandbox.as_deref() == Some("sandbox") {
            // The pause container, which only holds the pod's namespaces.
            container.name = Some("pause".to_owned());
            container.sandbox = true;
        }
        container.image = self.annotation(&[
            "io.kubernetes.cri.image-name",
            "io.kubernetes.cri.podsandbox.image-name",
            "io.kubernetes.cri-o.ImageName",
            "io.kubernetes.cri-o.Image",
        ]);
        let pod = Pod {
            namespace: self.annotation(&[
                "io.kubernetes.cri.sandbox-namespace",
                "io.kubernetes.pod.namespace",
            ]),
            name: self.annotation(&[
                "io.kubernetes.cri.sandbox-name",
                "io.kubernetes.pod.name",
                "io.kubernetes.cri-o.KubeName",
            ]),
            uid: self.annotation(&["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"]),
            ..Pod::default()
        };
        if pod.name.is_some() {
            container.pod = Some(pod);
        }
        if container.sandbox {
            self.describe_pod(&mut container);
        }
        if let Some(labels) = self.annotation(&["io.kubernetes.cri-o.Labels"]) {
            container.labels = serde_json::from_str(&labels).unwrap_or_default();
        }
        self.nerdctl(&mut container);
        container
    }

    /// The sandbox of the pod that the container belongs to, when it is not the
    /// sandbox itself.
    pub(super) fn sandbox_id(&self, target: &ContainerRef) -> Option<String> {
        let id =
            self.annotation(&["io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"])?;
        // It becomes part of a path.
        let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
        (is_id && id != target.id).then_some(id)
    }

    /// Adds what this bundle, of a sandbox, says of the pod as a whole.
    pub(super) fn describe_pod(&self, container: &mut Container) {
        let Some(pod) = &mut container.pod else { return };
        let json = |key: &str| -> BTreeMap<String, String> {
            let text = self.annotation(&[key]).unwrap_or_default();
            serde_json::from_str(&text).unwrap_or_default()
        };
        pod.labels = json("io.kubernetes.cri-o.Labels");
        pod.labels.retain(|key, _| !is_kubelets(key));
        let annotations = json("io.kubernetes.cri-o.Annotations");
        let source = annotations.get("kubernetes.io/config.source").cloned();
        pod.is_static = match source.as_deref() {
            Some("file" | "http") => Some(true),
            Some("api") => Some(false),
            _ => pod.uid.as_deref().is_some_and(is_manifest_hash).then_some(true),
        };
        let namespaces = self.linux.as_ref().and_then(|linux| linux.namespaces.as_ref());
        pod.host_network = namespaces.map(|all| !all.iter().any(|n| n.kind == "network"));
        if pod.host_network == Some(true) {
            container.network_mode = Some("host".to_owned());
        }
    }

    fn nerdctl(&self, container: &mut Container) {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        #[derive(Default)]
        struct CniPortMapping {
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
        let mappings: Vec<CniPortMapping> =
            serde_json::from_str(&list("nerdctl/ports")).unwrap_or_default();
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
            networks.into_iter().map(|name| Network::new(name, Vec::new())).collect();
    }
}

/// Whether the kubelet adds this label to those of the pod.
fn is_kubelets(label: &str) -> bool {
    label.starts_with("io.kubernetes.pod.") || label == "io.kubernetes.container.name"
}

/// Namespace and name of the pod with this UID, by the directory in which the
/// kubelet keeps its logs: `<namespace>_<pod>_<uid>`.
pub(super) fn pod_of_logs(dir: &str, uid: &str) -> Option<(String, String)> {
    let (namespace, pod) = dir.strip_suffix(uid)?.strip_suffix('_')?.split_once('_')?;
    let named = !namespace.is_empty() && !pod.is_empty() && !pod.contains('_');
    named.then(|| (namespace.to_owned(), pod.to_owned()))
}

/// The name of the container with this id, by the link to its log:
/// `<pod>_<namespace>_<container>-<id>.log`.
pub(super) fn container_of_log(file: &str, id: &str) -> Option<String> {
    let stem = file.strip_suffix(".log")?.strip_suffix(id)?.strip_suffix('-')?;
    let name = stem.rsplit_once('_')?.1;
    (!name.is_empty()).then(|| name.to_owned())
}

/// What `containers.json` of containers/storage says of a container.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StoredContainer {
    pub(super) name: Option<String>,
    pub(super) image: Option<String>,
    pub(super) pod: Option<Pod>,
}

pub(super) fn stored(content: &[u8], id: &str) -> serde_json::Result<Option<StoredContainer>> {
    #[derive(Deserialize)]
    struct StorageEntry {
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
    let entries: Vec<StorageEntry> = serde_json::from_slice(content)?;
    Ok(entries.into_iter().find(|e| e.id == id).map(|entry| {
        let text = |t: Option<String>| t.filter(|t| !t.is_empty());
        let metadata: Metadata = serde_json::from_str(&entry.metadata).unwrap_or_default();
        let pod_name = text(metadata.pod_name);
        StoredContainer {
            name: text(metadata.metadata_name)
                .or_else(|| text(metadata.name))
                .or_else(|| entry.names.into_iter().flatten().next()),
            image: text(metadata.image_name),
            pod: pod_name.map(|name| Pod {
                namespace: text(metadata.namespace),
                // CRI-O's full name; its annotations have the short one.
                name: Some(name),
                uid: text(metadata.uid),
                ..Pod::default()
            }),
        }
    }))
}

#[cfg(feature = "fuzzing")]
pub(in super::super) fn fuzz(bytes: &[u8]) {
    const ID: &str = "62cd9120f9578c9f7657bec5a544d3e851e487bacb6dbbbe060cae6f083a57e0";
    let target = ContainerRef { runtime: Runtime::Docker, id: ID.to_owned(), pod: None };
    let _ = docker_config(bytes, Some(bytes));
    data_root_in(bytes);
    let _ = stored(bytes, ID);
    if let Ok(bundle) = serde_json::from_slice::<Bundle>(bytes) {
        bundle.data_root();
        bundle.sandbox_id(&target);
        bundle.describe_pod(&mut bundle.container(&target, ToldBy::default()));
    }
    let text = String::from_utf8_lossy(bytes);
    let (dir, file) = text.split_once('/').unwrap_or((&text, ""));
    pod_of_logs(dir, ID);
    container_of_log(file, ID);
}
