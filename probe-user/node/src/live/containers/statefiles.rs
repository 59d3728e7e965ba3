//! What runtimes leave in files: names without asking a daemon.
//!
//! The parsers in [`parse`] take what containerd, CRI-O, Docker, nerdctl and
//! Podman write; the readers try the places where it can be, below a root.

mod parse;

#[cfg(feature = "fuzzing")]
pub(super) use parse::fuzz;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use self::parse::{
    Bundle, blank, container_of_log, data_root_in, docker_config, pod_of_logs, stored,
};
use super::super::reader::RootDirectory;
use super::super::safefs::Unreadable;
use super::procs::option_values;
use super::trust::Who;
use whereis_port_model::parse_error::told;
use whereis_port_model::{Container, ContainerRef, Pod, Runtime, Teller, ToldBy, is_manifest_hash};

/// The largest file that is read, in bytes.
const MAX_FILE: usize = 8 * 1024 * 1024;

/// The process that watches over a container: a containerd shim or conmon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Monitor {
    pub(super) argv: Vec<String>,
    pub(super) cwd: Option<PathBuf>,
}

/// Where daemons that run say that they keep files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StateDirs {
    /// Docker's data directories.
    pub(super) data_roots: Vec<String>,
    /// The state directories of containerd.
    pub(super) states: Vec<String>,
}

/// What a monitor's command line says.
#[derive(Debug, PartialEq, Eq)]
enum MonitorArgs<'a> {
    /// A shim of containerd, with the namespace it works in.
    Shim { namespace: &'a str },
    /// conmon: the container's id, its name and its bundle.
    Conmon { id: &'a str, name: Option<&'a str>, bundle: Option<&'a str> },
}

impl Monitor {
    fn watch(&self) -> Option<MonitorArgs<'_>> {
        let program = Path::new(self.argv.first()?).file_name()?.to_str()?;
        let one = |names: &[&str]| option_values(&self.argv, names).first().copied();
        if program.starts_with("containerd-shim") {
            return Some(MonitorArgs::Shim { namespace: one(&["-namespace", "--namespace"])? });
        }
        (program == "conmon").then_some(())?;
        Some(MonitorArgs::Conmon {
            id: one(&["-c", "--cid"])?,
            name: one(&["-n", "--name"]),
            bundle: one(&["-b", "--bundle"]),
        })
    }
}

/// Looks for the container below `root`, where its runtime keeps its files: at the usual
/// places, and then where those say that run it. Only files of its `holder` count.
///
/// The error is the first file that is there but can't be read.
pub(super) fn find(
    root: &RootDirectory,
    target: &ContainerRef,
    monitor: Option<&Monitor>,
    told: &StateDirs,
    holder: &Who,
) -> Result<Option<Container>, (String, Unreadable)> {
    let mut reader = StateFileReader { root, told, holder, refused: None };
    let found = match target.runtime {
        Runtime::Lxc | Runtime::Nspawn => Some(by_name(target)),
        Runtime::Docker => reader.docker(target, monitor),
        Runtime::Podman | Runtime::CriO => reader.storage(target, monitor),
        Runtime::Containerd | Runtime::Nerdctl => reader.containerd(target, monitor),
        Runtime::Unknown => reader
            .docker(target, monitor)
            .or_else(|| reader.storage(target, monitor))
            .or_else(|| reader.containerd(target, monitor)),
    };
    let found = found.or_else(|| reader.logs(target));
    match (found, reader.refused) {
        (Some(mut container), _) => {
            if container.pod.is_none() {
                container.pod = target.pod.as_ref().map(Pod::from);
            } else if let (Some(pod), Some(uid)) = (&mut container.pod, &target.pod) {
                // The path is the kubelet's word; an annotation of a static pod
                // may have another one.
                pod.uid = Some(uid.uid.clone());
                if is_manifest_hash(&uid.uid) {
                    pod.is_static = Some(true);
                }
            }
            Ok(Some(container))
        }
        (None, Some(refused)) => Err(refused),
        (None, None) => Ok(None),
    }
}

/// LXC's and systemd's containers are named by their cgroup.
pub(super) fn by_name(target: &ContainerRef) -> Container {
    let mut container = blank(target, ToldBy::default());
    container.name = Some(target.id.clone());
    container
}

/// Reads state files below one root, and trusts those of one holder.
struct StateFileReader<'a> {
    root: &'a RootDirectory,
    told: &'a StateDirs,
    holder: &'a Who,
    refused: Option<(String, Unreadable)>,
}

impl StateFileReader<'_> {
    fn read(&mut self, path: &Path) -> Option<Vec<u8>> {
        match self.holders(path) {
            Ok(content) => Some(content),
            Err(error) => {
                self.refuse(path, error);
                None
            }
        }
    }

    /// The content of a file that only who holds the container can have written.
    fn holders(&self, path: &Path) -> Result<Vec<u8>, Unreadable> {
        let (owners, content) = self.root.read_owned(path, MAX_FILE)?;
        match owners.into_iter().find(|owner| !self.holder.vouches_for(*owner)) {
            None => Ok(content),
            Some(owner) => Err(Unreadable::Foreign(owner)),
        }
    }

    fn refuse(&mut self, path: &Path, error: Unreadable) {
        if error != Unreadable::Missing {
            self.refused.get_or_insert_with(|| (path.display().to_string(), error));
        }
    }

    /// Takes in that something was waited for that need not be there.
    fn waited(&mut self, path: &Path, error: Unreadable) {
        if matches!(error, Unreadable::Silent(_) | Unreadable::LeftOut(_)) {
            self.refuse(path, error);
        }
    }

    /// Parses what was read; what can't be parsed counts as unreadable.
    fn parsed<T>(&mut self, path: &Path, result: serde_json::Result<T>) -> Option<T> {
        result.map_err(|e| self.refuse(path, Unreadable::Failed(told(&e)))).ok()
    }

    fn docker(&mut self, target: &ContainerRef, monitor: Option<&Monitor>) -> Option<Container> {
        let mut roots: Vec<PathBuf> = Vec::new();
        let configured = Path::new("/etc/docker/daemon.json");
        match self.root.read(configured, MAX_FILE) {
            Ok(content) => roots.extend(data_root_in(&content)),
            Err(error) => self.waited(configured, error),
        }
        roots.extend(Runtime::Docker.described().states.iter().map(PathBuf::from));
        // The OCI bundle mounts files of the data directory into the container.
        if let Some((_, bundle)) = self.bundle(target, monitor) {
            roots.extend(bundle.data_root());
        }
        roots.extend(self.told.data_roots.iter().map(PathBuf::from));
        for root in roots {
            let dir = root.join("containers").join(&target.id);
            let path = dir.join("config.v2.json");
            let Some(config) = self.read(&path) else { continue };
            let host = self.read(&dir.join("hostconfig.json"));
            let parsed = docker_config(&config, host.as_deref());
            let Some(mut container) = self.parsed(&path, parsed) else { continue };
            if container.id == target.id {
                container.via = ToldBy::file(&path);
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
        if let Some(MonitorArgs::Shim { namespace }) = monitor.and_then(Monitor::watch)
            && !namespace.contains('/')
        {
            // A shim runs in the bundle of its first container; those of the
            // others (of the same pod) are beside it.
            let beside = monitor.and_then(|m| m.cwd.as_deref()).and_then(Path::parent);
            places.extend(beside.map(|dir| dir.join(&target.id)));
            namespaces.push(namespace.into());
        }
        let told = self.told.states.iter().map(String::as_str);
        for state in Runtime::Containerd.described().states.iter().copied().chain(told) {
            let tasks = Path::new(state).join("io.containerd.runtime.v2.task");
            let mut names = namespaces.clone();
            if names.is_empty() {
                names = self.root.list(&tasks, 64).unwrap_or_else(|error| {
                    self.waited(&tasks, error);
                    Vec::new()
                });
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
        let mut container = bundle.container(target, ToldBy::file(&path));
        // <tasks>/<namespace>/<id>/config.json
        if let Some(beside) = path.parent().and_then(Path::parent) {
            self.pod(&bundle, target, &mut container, |id| beside.join(id).join("config.json"));
        }
        Some(container)
    }

    /// Adds what the bundle of a container's sandbox says of the pod.
    fn pod(
        &mut self,
        bundle: &Bundle,
        target: &ContainerRef,
        container: &mut Container,
        config: impl FnOnce(&str) -> PathBuf,
    ) {
        let Some(id) = bundle.sandbox_id(target) else { return };
        let content = self.holders(&config(&id)).ok();
        let sandbox = content.and_then(|c| serde_json::from_slice::<Bundle>(&c).ok());
        if let Some(sandbox) = sandbox {
            sandbox.describe_pod(container);
        }
    }

    /// The names that the kubelet gives to logs: everybody may read them, and they
    /// are there where nothing else is.
    fn logs(&mut self, target: &ContainerRef) -> Option<Container> {
        const MOST: usize = 16_384;
        let uid = &target.pod.as_ref()?.uid;
        let owner = self.root.owner(Path::new("/var/log/pods")).ok()?;
        self.holder.vouches_for(owner).then_some(())?;
        let list = |dir: &str| self.root.list(Path::new(dir), MOST).unwrap_or_default();
        let dirs = list("/var/log/pods");
        let (dir, (namespace, name)) = dirs.iter().find_map(|dir| {
            let dir = dir.to_str()?;
            Some((dir, pod_of_logs(dir, uid)?))
        })?;
        let mut container =
            blank(target, ToldBy::new(Teller::StateFile, format!("/var/log/pods/{dir}")));
        let links = list("/var/log/containers");
        container.name = links.iter().find_map(|l| container_of_log(l.to_str()?, &target.id));
        let pod = target.pod.as_ref().map(Pod::from).unwrap_or_default();
        container.pod = Some(Pod { namespace: Some(namespace), name: Some(name), ..pod });
        Some(container)
    }

    fn storage(&mut self, target: &ContainerRef, monitor: Option<&Monitor>) -> Option<Container> {
        let mut name = None;
        let mut stores: Vec<PathBuf> = Vec::new();
        if let Some(MonitorArgs::Conmon { id, name: given, bundle }) =
            monitor.and_then(Monitor::watch)
            && id == target.id
        {
            name = given.map(str::to_owned);
            // <store>/overlay-containers/<id>/userdata
            let dir = bundle.map(Path::new).and_then(|b| b.parent()?.parent());
            stores.extend(dir.map(Path::to_owned));
        }
        for storage in Runtime::Podman.described().states {
            stores.push(Path::new(storage).join("overlay-containers"));
        }
        let mut container = blank(target, ToldBy::new(Teller::Conmon, ""));
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
                    container = bundle.container(target, ToldBy::file(&path));
                    // Podman's names are not in the bundle, CRI-O's are.
                    container.name = container.name.take().or(monitors);
                    self.pod(&bundle, target, &mut container, |id| {
                        store.join(id).join("userdata/config.json")
                    });
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
                    container.via = ToldBy::file(&path);
                }
            }
            if found && container.name.is_some() && container.image.is_some() {
                break;
            }
        }
        (found || named_by_monitor).then_some(container)
    }
}

#[cfg(test)]
mod tests;
