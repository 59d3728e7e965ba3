//! What Cilium's programs balance, from the maps that its agent pins.
//!
//! They are looked for in each bpffs that somebody sees, by one process for each: those
//! of the node itself, and those of nodes that are containers. Where nothing is pinned,
//! that is one look into one directory.

mod assemble;
mod datapath;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, makedev};
use rustix::io::Errno;

use crate::Topology as _;
use crate::live::ebpf::maps::{self, Map, MapEntries};
use crate::live::mounts::Bpffs;
use crate::live::reader::Stat;
use crate::live::safefs::Unreadable;
use crate::live::{LiveNode, files, procs};
use whereis_port_model::{
    CgroupHook, Cilium, CiliumEndpoint, CiliumIdentity, CiliumPolicy, CiliumPolicyOf, Frontend,
    Gap, GapKind, GapSource, Impact, NetnsId, Read, SocketLb,
};

const SOURCE: &str = "Cilium's maps";
/// Where the agent pins its maps, in whichever bpffs.
const GLOBALS: &str = "/tc/globals";
/// Where it pins the links of socket LB; the directory is there and empty without it (1.14).
const SOCKET_LB: &str = "/cilium/socketlb/links/cgroup";
/// The links there, with the calls that they translate.
const SOCKET_LINKS: [(&str, u32, CgroupHook); 4] = [
    ("cil_sock4_connect", 10, CgroupHook::Connect4),
    ("cil_sock6_connect", 11, CgroupHook::Connect6),
    ("cil_sock4_sendmsg", 14, CgroupHook::Sendmsg4),
    ("cil_sock6_sendmsg", 15, CgroupHook::Sendmsg6),
];
/// The map of identities, the newest first.
const IDENTITIES: [&str; 2] = ["cilium_ipcache_v2", "cilium_ipcache"];
/// The maps of services, and those of their backends: the newest first. While an agent
/// is updated there may be two of these, of which one is not filled yet.
const FAMILIES: [(&str, [&str; 3]); 2] = [
    (
        "cilium_lb4_services_v2",
        ["cilium_lb4_backends_v3", "cilium_lb4_backends_v2", "cilium_lb4_backends"],
    ),
    (
        "cilium_lb6_services_v2",
        ["cilium_lb6_backends_v3", "cilium_lb6_backends_v2", "cilium_lb6_backends"],
    ),
];
/// What tells of Cilium to those who may not look into the bpffs.
const SIGNS: [&str; 2] = ["/sys/class/net/cilium_host", "/run/cilium"];

/// Where a Cilium pins its maps.
#[derive(Debug)]
pub(super) struct CiliumPins {
    netns: NetnsId,
    /// The directory, as it is called where it is mounted.
    shown: PathBuf,
    maps: OwnedFd,
    /// That of socket LB's links, if it is there.
    socket_lb: Option<OwnedFd>,
}

impl LiveNode {
    /// Where each Cilium that can be seen pins its maps.
    fn cilium_places(&self) -> &Read<Vec<CiliumPins>> {
        self.balance.cilium_places.get_or_init(|| self.find_cilium_places())
    }

    fn find_cilium_places(&self) -> Read<Vec<CiliumPins>> {
        let mut all: Read<Vec<CiliumPins>> = Read::default();
        let mut looked = BTreeSet::new();
        for (task, bpffs) in &self.found().0.bpffs {
            if looked.contains(&bpffs.device) {
                continue;
            }
            match self.pins(task, bpffs, GLOBALS) {
                Ok(Some(maps)) => {
                    let Some(netns) = self.network_of(task) else { continue };
                    let socket_lb = self.pins(task, bpffs, SOCKET_LB).ok().flatten();
                    all.value.push(CiliumPins { netns, shown: shown(bpffs), maps, socket_lb });
                }
                Ok(None) => {}
                // Covered by another mount, or gone: perhaps another process sees it.
                Err(Unreadable::Missing) => continue,
                Err(error) => {
                    let is_there = || SIGNS.iter().any(|sign| files::is_there(*sign));
                    if error != Unreadable::Denied || is_there() {
                        all.gaps.push(gap(&shown(bpffs).display().to_string(), &error.into()));
                    }
                }
            }
            looked.insert(bpffs.device);
        }
        all
    }

    /// Every frontend of every Cilium that can be seen.
    pub(super) fn read_cilium(&self) -> Read<Vec<Frontend>> {
        let since = Instant::now();
        let places = self.cilium_places();
        let mut all = Read { value: Vec::new(), gaps: places.gaps.clone() };
        for place in &places.value {
            let read = read(place.netns, &place.shown, place.maps.as_fd());
            let mut frontends = read.take(&mut all.gaps);
            self.name_frontends(place.netns, &mut frontends, &mut all.gaps);
            all.value.extend(frontends);
        }
        if !places.value.is_empty() || !all.gaps.is_empty() {
            let detail = format!("{} frontends", all.value.len());
            self.log(SOURCE, since, &all.gaps, detail);
        }
        all
    }

    /// Names frontends by what the agent says, if it can be asked.
    fn name_frontends(&self, netns: NetnsId, frontends: &mut [Frontend], gaps: &mut Vec<Gap>) {
        if frontends.is_empty() {
            return;
        }
        let Some((pid, names)) = self.containers.cilium_names(netns) else { return };
        let names = match names {
            Ok(names) => names,
            Err(failure) => {
                let source = GapSource::new(GapKind::Runtime, format!("cilium-agent, pid {pid}"));
                gaps.push(Gap::new(Impact::Name, source, failure.to_string()));
                return;
            }
        };
        // An entry for all addresses of the node is of whoever has the port at one of them.
        let own: BTreeSet<IpAddr> = self
            .addresses(&[netns])
            .value
            .iter()
            .filter(|address| !address.address.is_loopback())
            .map(|address| address.address)
            .collect();
        for frontend in frontends {
            let Some(address) = frontend.address else { continue };
            let at = |address: IpAddr| names.at(address, frontend.port, frontend.proto);
            let of_node = || {
                let same = own.iter().filter(|own| own.is_ipv4() == address.is_ipv4());
                same.into_iter().find_map(|own| at(*own))
            };
            let name = at(address).or_else(|| of_node().filter(|_| address.is_unspecified()));
            if let Some(name) = name {
                frontend.name = Some(name.to_owned());
                frontend.source.push_str(&format!(", named by its agent (pid {pid})"));
            }
        }
    }

    /// What else there is of the datapath of a namespace.
    pub(super) fn read_cilium_datapath(&self, netns: NetnsId) -> Read<Vec<Cilium>> {
        let places = self.cilium_places();
        let mut all: Read<Vec<Cilium>> = Read { value: Vec::new(), gaps: places.gaps.clone() };
        for place in places.value.iter().filter(|place| place.netns == netns) {
            let since = Instant::now();
            let read = datapath_of(place);
            self.log("Cilium's endpoints", since, &read.gaps, String::new());
            all.value.push(read.take(&mut all.gaps));
        }
        all
    }

    /// An endpoint's policy. `None` when it has none.
    pub(super) fn read_cilium_policy(
        &self,
        of: CiliumPolicyOf,
    ) -> Read<Option<Arc<[CiliumPolicy]>>> {
        let places = self.cilium_places();
        let endpoint = of.endpoint;
        let mut all = Read { value: None, gaps: places.gaps.clone() };
        for place in places.value.iter().filter(|place| place.netns == of.netns) {
            let names =
                [format!("cilium_policy_v2_{endpoint:05}"), format!("cilium_policy_{endpoint:05}")];
            for name in names {
                match entries(place.maps.as_fd(), &name, datapath::knows_policies) {
                    Ok(Some(entries)) => {
                        all.value = Some(entries.iter().filter_map(datapath::policy).collect());
                        return all;
                    }
                    Ok(None) => {}
                    Err(error) => {
                        all.gaps
                            .push(beside(&place.shown.join(name).display().to_string(), &error));
                    }
                }
            }
        }
        all
    }

    /// The ids of all maps in the directories that those of services are in.
    pub(super) fn ids_of_cilium_maps(&self) -> BTreeSet<u32> {
        let places = self.cilium_places().value.iter();
        let with_services = places.filter(|place| has_services(place.maps.as_fd()));
        with_services.flat_map(|place| ids_in(place.maps.as_fd())).collect()
    }

    /// Opens a directory of pins in a bpffs. `None` when there is none, or somebody else than
    /// root could have put something into it.
    fn pins(&self, task: &str, bpffs: &Bpffs, path: &str) -> Result<Option<OwnedFd>, Unreadable> {
        let Ok(rest) = Path::new(path).strip_prefix(&bpffs.root) else { return Ok(None) };
        let root = self.reader.root_of(&self.root.join(task))?;
        let is_it = |stat: Stat| stat.dev == makedev(bpffs.device.0, bpffs.device.1);
        let (point, stat) = root.look(&bpffs.point)?;
        // Only what is on that file system, which is the kernel's own, is touched.
        if !is_it(stat) || !maps::is_bpffs(&point) {
            return Err(Unreadable::Missing);
        }
        let directory = if rest.as_os_str().is_empty() {
            point
        } else {
            match root.look(&bpffs.point.join(rest)) {
                Ok((directory, stat)) if is_it(stat) => directory,
                Ok(_) | Err(Unreadable::Missing) => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        Ok(maps::is_trusted(&directory).then_some(directory))
    }

    /// The network namespace that the Cilium of a mount namespace works for: that of the
    /// process that sees it. For the own mount namespace, when it is that of the whole
    /// machine, it is the machine's: the tool may have been started in another.
    fn network_of(&self, task: &str) -> Option<NetnsId> {
        let link = |path: &str, kind: &[u8]| procs::inode_link(&self.proc, path, kind).ok()?;
        let found = &self.found().0;
        if task == "self" {
            let mounts = link("self/ns/mnt", b"mnt:");
            let machine = mounts.is_some() && mounts == link("1/ns/mnt", b"mnt:");
            return found.initial.filter(|_| machine).or(found.own);
        }
        link(&format!("{task}/ns/net"), b"net:").map(NetnsId::Inode)
    }
}

/// The directory of the maps, as it is called where it is mounted.
fn shown(bpffs: &Bpffs) -> PathBuf {
    Path::new(GLOBALS).strip_prefix(&bpffs.root).map_or(bpffs.point.clone(), |rest| {
        if rest.as_os_str().is_empty() { bpffs.point.clone() } else { bpffs.point.join(rest) }
    })
}

/// Reads what is pinned in a directory.
fn read(netns: NetnsId, directory: &Path, fd: BorrowedFd<'_>) -> Read<Vec<Frontend>> {
    let mut all: Read<Vec<Frontend>> = Read::default();
    for (services, versions) in FAMILIES {
        let open = |name: &str, fits: Fits| {
            let path = directory.join(name).display().to_string();
            entries(fd, name, fits).map_err(|error| gap(&path, &error))
        };
        let entries = match open(services, parse::knows_services) {
            Ok(Some(entries)) => entries,
            Ok(None) => continue,
            Err(gap) => {
                all.gaps.push(gap);
                continue;
            }
        };
        let mut backends = assemble::Backends::new();
        for version in versions {
            match open(version, parse::knows_backends) {
                Ok(Some(entries)) => backends = assemble::backends(&entries),
                Ok(None) => {}
                Err(gap) => all.gaps.push(gap),
            }
            if !backends.is_empty() {
                break;
            }
        }
        if backends.is_empty() && assemble::has_slots(&entries) {
            let error = io::Error::other("its services have backends, but no map says which");
            all.gaps.push(gap(&directory.display().to_string(), &error));
        }
        let source = directory.join(services).display().to_string();
        let mut found = assemble::frontends(netns, &source, &entries, &backends);
        if assemble::asks_sources(&found) {
            let ranges = services.replace("services_v2", "source_range");
            match open(&ranges, datapath::knows_ranges) {
                Ok(Some(entries)) => assemble::add_sources(&mut found, &entries),
                Ok(None) => {}
                Err(gap) => all.gaps.push(gap),
            }
        }
        all.value.extend(found);
    }
    all
}

/// Reads what there is besides services.
fn datapath_of(place: &CiliumPins) -> Read<Cilium> {
    let mut gaps = Vec::new();
    let fd = place.maps.as_fd();
    let mut open = |name: &str, fits: Fits| {
        entries(fd, name, fits).unwrap_or_else(|error| {
            gaps.push(beside(&place.shown.join(name).display().to_string(), &error));
            None
        })
    };
    let endpoints = open("cilium_lxc", datapath::knows_endpoints);
    let mut identities = None;
    for name in IDENTITIES {
        // While an agent is updated the newer one may not be filled yet.
        let found: Option<Vec<CiliumIdentity>> = open(name, datapath::knows_identities)
            .map(|entries| entries.iter().filter_map(datapath::identity).collect());
        identities = found.or(identities);
        if identities.as_ref().is_some_and(|all| !all.is_empty()) {
            break;
        }
    }
    let endpoints = endpoints.iter().flat_map(MapEntries::iter).filter_map(datapath::endpoint);
    let mut endpoints: Vec<CiliumEndpoint> = endpoints.collect();
    endpoints.sort_by_key(|one| (one.address, one.id));
    let socket_lb = place.socket_lb.as_ref().and_then(|links| match socket_links(links.as_fd()) {
        Ok(links) => Some(links),
        Err(error) => {
            gaps.push(beside("socket LB", &error));
            None
        }
    });
    let cilium = Cilium { netns: place.netns, socket_lb, endpoints, identities };
    Read { value: cilium, gaps }
}

/// The links of socket LB.
fn socket_links(directory: BorrowedFd<'_>) -> io::Result<Vec<SocketLb>> {
    let mut all = Vec::new();
    for (name, attach_type, at) in SOCKET_LINKS {
        let Some(pin) = pin(directory, name)? else { continue };
        match maps::cgroup_link(pin.as_fd())? {
            Some((cgroup, program, found)) if found == attach_type => {
                all.push(SocketLb { at, cgroup, program });
            }
            _ => return Err(io::Error::other(format!("{name} is no such link"))),
        }
    }
    Ok(all)
}

/// A gap of what does not hide a port.
fn beside(path: &str, error: &io::Error) -> Gap {
    Gap { impact: Impact::Reach, ..gap(path, error) }
}

/// How many pinned maps are looked at: an agent has a few for each endpoint.
const MOST_MAPS: usize = 20_000;

/// Whether a directory has a map of services.
fn has_services(directory: BorrowedFd<'_>) -> bool {
    FAMILIES.iter().any(|(services, _)| matches!(pin(directory, *services), Ok(Some(_))))
}

/// The ids of the maps that are pinned in a directory.
fn ids_in(directory: BorrowedFd<'_>) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    // Opened anew: a descriptor that only names a directory can't be read.
    let Ok(listing) = procs::open_dir(directory, c".") else { return ids };
    let mut left = MOST_MAPS;
    let add = |name: &std::ffi::CStr| {
        if left > 0
            && let Ok(Some(pin)) = pin(directory, name)
        {
            left -= 1;
            // Programs and links may be pinned there, too.
            ids.extend(maps::id_of(pin.as_fd()).ok());
        }
    };
    let _so_far = procs::each_name(listing, add);
    ids
}

/// Whether a map with keys and values of these sizes can be read.
type Fits = fn(usize, usize) -> bool;

/// The entries of a map. `None` when nothing is pinned under this name.
fn entries(directory: BorrowedFd<'_>, name: &str, fits: Fits) -> io::Result<Option<MapEntries>> {
    let Some(pin) = pin(directory, name)? else { return Ok(None) };
    let map = Map::open(pin.as_fd())?;
    if !fits(map.key_size, map.value_size) {
        let (key, value) = (map.key_size, map.value_size);
        let what = format!("entries of {key} and {value} bytes are of a version that is not known");
        return Err(io::Error::other(what));
    }
    map.entries().map(Some)
}

/// Opens what is pinned under a name, by root alone. `None` when nothing is.
fn pin(directory: BorrowedFd<'_>, name: impl rustix::path::Arg) -> io::Result<Option<OwnedFd>> {
    // Another file system can be mounted on the name: it is not looked at.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::NO_XDEV | ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let pin = match rustix::fs::openat2(directory, name, flags, Mode::empty(), within) {
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::XDEV) => return Err(io::Error::other("something is mounted on it")),
        pin => pin?,
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&pin)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is no pinned map"));
    }
    if !maps::is_trusted(&pin) {
        return Err(io::Error::other("somebody else than root can write to it"));
    }
    Ok(Some(pin))
}

fn gap(path: &str, error: &io::Error) -> Gap {
    let source = GapSource::new(GapKind::Balancer, format!("{SOURCE} ({path})"));
    let gap = Gap::new(Impact::Port, source, error.to_string());
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            gap.remedy("run as root, or with CAP_BPF and the right to read the file")
        }
        _ => gap.remedy("ask its agent: cilium-dbg service list"),
    }
}

/// For the fuzz targets: one byte says how many entries of the map of services follow,
/// and which version of the map of backends is behind them.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let ipv6 = first & 1 != 0;
    let services = if ipv6 { (24, 12) } else { (12, 12) };
    let backends = match (ipv6, first >> 1 & 3) {
        (false, 0) => (2, 8),
        (false, 1) => (4, 8),
        (false, _) => (4, 12),
        (true, 0) => (2, 20),
        (true, 1) => (4, 20),
        (true, _) => (4, 24),
    };
    let length = usize::from(first >> 3) * (services.0 + services.1);
    let (front, back) = rest.split_at(length.min(rest.len()));
    let backends = assemble::backends(&MapEntries::of_bytes(backends, back));
    let services = MapEntries::of_bytes(services, front);
    assemble::frontends(NetnsId::Inode(1), "fuzz", &services, &backends);
}
