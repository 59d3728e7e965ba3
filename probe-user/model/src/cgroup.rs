//! What a cgroup path says about containers, pods and units.
//!
//! The layouts are those of moby, containerd, CRI-O, Podman, nerdctl, LXC,
//! systemd-nspawn and the kubelet; each has a row in the tests.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Runtime;
use super::runtimes::RUNTIMES;

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

/// A unit, and whose service manager runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedUnit {
    /// Its name.
    pub name: String,
    /// The user; `None` for the manager of the system.
    pub user: Option<u32>,
}

/// What one component of a cgroup's path stands for.
enum CgroupComponent<'a> {
    /// A container.
    Container(Runtime, Cow<'a, str>),
    /// A container and, in the same component, its pod's slice.
    InSlice(Runtime, &'a str, &'a str),
    /// A pod: containers below belong to it.
    Pod(String),
    /// A container's monitor: nothing at or below it is a container.
    Monitor,
    /// A level that a container's own processes made, or nothing special.
    Other,
}

impl CgroupPath {
    /// The containers in the path, outermost first. Monitors (conmon) are not
    /// containers.
    pub fn containers(&self) -> Vec<ContainerRef> {
        self.walk().0
    }

    /// The path of the directory in which the outermost container's own cgroup is: who
    /// owns it can make containers' names there. `None` outside of containers.
    pub fn above_container(&self) -> Option<&str> {
        let parts = self.parts();
        let mut in_pod = false;
        let at = (0..parts.len()).find(|&at| match classify(&parts, at, in_pod) {
            CgroupComponent::Container(..) | CgroupComponent::InSlice(..) => true,
            CgroupComponent::Pod(_) => {
                in_pod = true;
                false
            }
            CgroupComponent::Monitor | CgroupComponent::Other => false,
        })?;
        // The same part may be there before as something else: parts are counted.
        let mut end = 0;
        for part in &parts[..at] {
            end += self.0.get(end..)?.find(part)? + part.len();
        }
        self.0.get(..end)
    }

    fn parts(&self) -> Vec<&str> {
        let path = self.0.strip_suffix(" (deleted)").unwrap_or(&self.0);
        path.split('/').filter(|p| !p.is_empty() && *p != "." && *p != "..").collect()
    }

    /// The innermost systemd unit (`nginx.service`, `session-3.scope`) that is
    /// not a container's own scope, unescaped. Slices group units and are none
    /// themselves; what lies inside a container is that container's affair and
    /// is given when it is a unit of the container's own systemd.
    pub fn unit(&self) -> Option<String> {
        self.walk().1
    }

    /// The unit that a service manager made this cgroup for. Below a unit's own cgroup any name
    /// is that of who runs in there, so that the first one counts; below that of a user's
    /// manager, the first one of theirs.
    pub fn managed_unit(&self) -> Option<ManagedUnit> {
        let parts = self.parts();
        let mut parts = parts.iter().copied();
        // systemd makes its own units in slices only.
        let mut first = |needs_slice: bool| {
            let mut in_slice = !needs_slice;
            let part = parts.find(|part| {
                let is_slice = part.ends_with(".slice");
                in_slice |= is_slice;
                !is_slice
            })?;
            unit_name(part).filter(|_| in_slice)
        };
        let name = first(true)?;
        let user = name.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service"));
        match user.and_then(|uid| uid.parse().ok()) {
            Some(uid) => Some(ManagedUnit { name: first(false)?, user: Some(uid) }),
            None => Some(ManagedUnit { name, user: None }),
        }
    }

    fn walk(&self) -> (Vec<ContainerRef>, Option<String>) {
        let parts = self.parts();
        let mut found: Vec<ContainerRef> = Vec::new();
        let mut pod = None;
        let mut unit = None;
        for (at, &part) in parts.iter().enumerate() {
            match classify(&parts, at, pod.is_some()) {
                CgroupComponent::Container(runtime, id) => {
                    found.push(ContainerRef { runtime, id: id.into_owned(), pod: pod.take() });
                }
                CgroupComponent::InSlice(runtime, slice, id) => {
                    let pod = pod_slice(slice).map(|uid| PodRef { uid }).or(pod.take());
                    found.push(ContainerRef { runtime, id: id.to_owned(), pod });
                }
                CgroupComponent::Pod(uid) => pod = Some(PodRef { uid }),
                CgroupComponent::Monitor => return (found, unit_name(part).or(unit)),
                CgroupComponent::Other => unit = unit_name(part).or(unit),
            }
        }
        (found, unit)
    }
}

fn classify<'a>(parts: &[&'a str], at: usize, in_pod: bool) -> CgroupComponent<'a> {
    let part = parts[at];
    if is_id(part) {
        return bare(parts, at, in_pod);
    }
    if let Some(uid) = part.strip_prefix("pod").filter(|u| is_uuid(u, b'-') || is_hash(u)) {
        return CgroupComponent::Pod(uid.to_owned());
    }
    if let Some(uid) = pod_slice(part) {
        return CgroupComponent::Pod(uid);
    }
    if let Some((slice, rest)) = part.split_once(':')
        && let Some((prefix, id)) = rest.split_once(':')
        && let (Some(runtime), true) = (runtime_of(prefix), is_id(id))
    {
        return CgroupComponent::InSlice(runtime, slice, id);
    }
    let stem = part.strip_suffix(".scope").unwrap_or(part);
    if let Some((prefix, id)) = stem.rsplit_once('-').filter(|(_, id)| is_id(id)) {
        if RUNTIMES.iter().any(|one| one.monitor_scopes.contains(&prefix)) {
            return CgroupComponent::Monitor;
        }
        if let Some(runtime) = runtime_of(prefix) {
            return CgroupComponent::Container(runtime, id.into());
        }
    }
    by_name(parts, at)
}

/// A component that is an id and nothing else: what it is depends on what is
/// above and below it.
fn bare<'a>(parts: &[&'a str], at: usize, in_pod: bool) -> CgroupComponent<'a> {
    let above = &parts[..at];
    // Podman's pods have the same shape: their containers follow with a prefix.
    let holds_libpod = parts.get(at + 1).is_some_and(|p| p.starts_with("libpod-"));
    if holds_libpod || above.last() == Some(&"libpod_parent") {
        return CgroupComponent::Other;
    }
    let parent = above.last().copied();
    // BuildKit's build steps look like containers, but nobody can name them.
    if parent == Some("buildkit") {
        return CgroupComponent::Other;
    }
    let by_parent = || {
        let parent = parent?;
        RUNTIMES.iter().find(|one| one.parents.contains(&parent)).map(|one| one.runtime)
    };
    // Below `--cgroup-parent NAME` any runtime puts its bare ids.
    let otherwise = if in_pod { Runtime::Containerd } else { Runtime::Unknown };
    let runtime = by_parent().unwrap_or(otherwise);
    CgroupComponent::Container(runtime, parts[at].into())
}

/// Containers that are known by a name: LXC, systemd-nspawn and other machines.
fn by_name<'a>(parts: &[&'a str], at: usize) -> CgroupComponent<'a> {
    let part = parts[at];
    let parent = at.checked_sub(1).map(|i| parts[i]);
    if part.starts_with("lxc.monitor") || parent == Some("lxc.monitor") {
        return CgroupComponent::Monitor;
    }
    let lxc = match parent {
        Some("lxc.payload" | "lxc") => Some(part),
        _ => part.strip_prefix("lxc.payload."),
    };
    if let Some(name) = lxc.filter(|n| !n.is_empty()) {
        return CgroupComponent::Container(Runtime::Lxc, name.into());
    }
    let nspawn = part.strip_prefix("systemd-nspawn@").and_then(|p| p.strip_suffix(".service"));
    let machine = (parent == Some("machine.slice"))
        .then(|| part.strip_prefix("machine-").and_then(|p| p.strip_suffix(".scope")))
        .flatten();
    if nspawn.is_some() && parts.get(at + 1) == Some(&"supervisor") {
        return CgroupComponent::Monitor;
    }
    match nspawn.or(machine).filter(|n| !n.is_empty()) {
        Some(name) => CgroupComponent::Container(Runtime::Nspawn, unescape(name)),
        None => CgroupComponent::Other,
    }
}

fn runtime_of(prefix: &str) -> Option<Runtime> {
    RUNTIMES.iter().find(|one| one.scopes.contains(&prefix)).map(|one| one.runtime)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

fn is_hash(text: &str) -> bool {
    text.len() == 32 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `text` is a UUID whose groups are separated by `separator`.
fn is_uuid(text: &str, separator: u8) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == separator,
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// The pod's UID in the name of a systemd slice. A slice's name repeats its
/// parents', and has `_` for the dashes of the UID.
fn pod_slice(part: &str) -> Option<String> {
    let stem = part.strip_suffix(".slice")?;
    let uid = stem.rsplit('-').next()?.strip_prefix("pod")?;
    (is_uuid(uid, b'_') || is_hash(uid)).then(|| uid.replace('_', "-"))
}

fn unit_name(part: &str) -> Option<String> {
    let unit = [".service", ".scope", ".socket"].iter().any(|s| part.ends_with(s));
    unit.then(|| unescape(part).into_owned())
}

/// Undoes systemd's `\xNN`. What is not such an escape is kept as it is.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains("\\x") {
        return text.into();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 2..at + 4).filter(|_| bytes[at..].starts_with(b"\\x"));
        let byte = hex
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned().into()
}

/// Chooses the line of `/proc/PID/cgroup` that says most: the one that names
/// the most containers, and among equals the v2 line unless it is the root,
/// then `name=systemd`, `memory`, `pids`, any other; the v2 root last.
///
/// `None` when there is no line at all, as on a kernel without cgroups.
pub fn parse_proc_cgroup(text: &str) -> Option<CgroupPath> {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        path.starts_with('/').then(|| (controllers, CgroupPath(path.to_owned())))
    });
    lines
        .map(|(controllers, path)| {
            let has = |name: &str| controllers.split(',').any(|c| c == name);
            let rank = match () {
                () if path.0 == "/" => 0,
                () if controllers.is_empty() => 5,
                () if has("name=systemd") => 4,
                () if has("memory") => 3,
                () if has("pids") => 2,
                () => 1,
            };
            (path.containers().len(), rank, path)
        })
        // The first of equals; `max_by_key` would take the last.
        .reduce(|best, next| if (next.0, next.1) > (best.0, best.1) { next } else { best })
        .map(|(_, _, path)| path)
}

#[cfg(test)]
mod tests;
