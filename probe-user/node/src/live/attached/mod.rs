//! What is attached where packets pass: programs and filters on devices, programs of cgroups.
//!
//! Devices are asked by rtnetlink inside their namespace (`IFLA_XDP`, queueing disciplines, filters),
//! and by bpf(2) for what rtnetlink does not tell (tcx, netkit, sk_lookup). Nobody is kept from
//! asking rtnetlink; bpf(2) needs `CAP_NET_ADMIN`, and `CAP_SYS_ADMIN` for names.

mod parse;

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::ebpf::programs::{self, AttachTarget, AttachType, ProgramInfo};
use super::enter::NetnsHandle;
use super::netlink::{Netlink, NetlinkRequest, ROUTE};
use super::{LiveNode, NetnsCache, cgroups, files, host, procs};
use crate::Attachments;
use parse::{AttachableDevice, Qdisc};
use whereis_port_model::{
    Attached, Attachment, Balancer, CgroupHook, CgroupOf, CgroupPath, CgroupProgram, DeviceHook,
    Gap, GapKind, GapSource, Impact, NetnsId, Pid, Program, Read,
};

const SOURCE: &str = "attached programs";
/// The most that is read of one namespace: answers of a dump, and bytes of it.
const MOST: usize = 100_000;
const BYTES: usize = 256 << 20;
/// How many devices of a namespace are asked for programs one by one.
const DEVICES: usize = 10_000;
/// How many filters of one place are kept: one more says nothing new.
const FILTERS: usize = 64;
/// How far up a cgroup's parents are asked.
const DEPTH: usize = 64;

const RTM_GETLINK: u16 = 18;
const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;

/// `BPF_SK_LOOKUP` and what devices have, of `enum bpf_attach_type`.
const SK_LOOKUP: AttachType = AttachType(36);
const TCX: [(AttachType, DeviceHook); 2] =
    [(AttachType(46), DeviceHook::TcxIngress), (AttachType(47), DeviceHook::TcxEgress)];
const NETKIT: [(AttachType, DeviceHook); 2] =
    [(AttachType(54), DeviceHook::NetkitPrimary), (AttachType(55), DeviceHook::NetkitPeer)];
/// What cgroups have that can keep a connection from being made, or a socket from being bound.
const OF_CGROUP: [(AttachType, CgroupHook); 11] = [
    (AttachType(0), CgroupHook::Ingress),
    (AttachType(1), CgroupHook::Egress),
    (AttachType(2), CgroupHook::SockCreate),
    (AttachType(8), CgroupHook::Bind4),
    (AttachType(9), CgroupHook::Bind6),
    (AttachType(10), CgroupHook::Connect4),
    (AttachType(11), CgroupHook::Connect6),
    (AttachType(12), CgroupHook::PostBind4),
    (AttachType(13), CgroupHook::PostBind6),
    (AttachType(14), CgroupHook::Sendmsg4),
    (AttachType(15), CgroupHook::Sendmsg6),
];

/// What was read of devices and cgroups so far.
#[derive(Debug, Default)]
pub(super) struct AttachedCache {
    devices: NetnsCache<Attached>,
    cgroups: RefCell<HashMap<CgroupOf, Read<Option<Vec<CgroupProgram>>>>>,
    abouts: RefCell<HashMap<u32, ProgramInfo>>,
    /// `Err` says why it can't be looked at.
    tree: OnceCell<Result<Option<CgroupTree>, String>>,
}

impl Attachments for LiveNode {
    fn attached(&self, netns: &[NetnsId]) -> Read<Vec<Attached>> {
        let read = self.inside(SOURCE, Impact::Reach, &self.attached.devices, netns, on_devices);
        read.map(|all| {
            let told = |mut one: Attached| {
                if let Attachment::Program(program) = &mut one.what {
                    self.tell(program);
                }
                one
            };
            all.into_iter().map(told).collect()
        })
    }

    fn cgroup_programs(&self, of: &CgroupOf) -> Read<Option<Vec<CgroupProgram>>> {
        if let Some(known) = self.attached.cgroups.borrow().get(of) {
            return known.clone();
        }
        let since = Instant::now();
        let read = match self.of_cgroup(*of) {
            Ok(value) => Read::whole(value),
            Err(error) => Read::partial(None, gap("cgroups", &error)),
        };
        self.log("programs of cgroups", since, &read.gaps, String::new());
        self.attached.cgroups.borrow_mut().insert(*of, read.clone());
        read
    }
}

impl LiveNode {
    /// Adds to a program what the kernel says of it, as far as it may be asked.
    fn tell(&self, program: &mut Program) {
        let Some(id) = program.id else { return };
        let mut known = self.attached.abouts.borrow_mut();
        let about = known.entry(id).or_insert_with(|| {
            // Unloaded meanwhile, or without the right to ask: then it has an id alone.
            programs::about(id).ok().flatten().unwrap_or_default()
        });
        if program.name.is_empty() {
            program.name.clone_from(&about.name);
        }
        let is_of = |maps: &BTreeSet<u32>| about.maps.iter().any(|map| maps.contains(map));
        let of_cilium = !about.maps.is_empty() && is_of(self.cilium_maps());
        program.balancer = of_cilium.then_some(Balancer::Cilium);
    }

    /// The programs that take effect in a cgroup. `None` when it is gone.
    fn of_cgroup(&self, of: CgroupOf) -> io::Result<Option<Vec<CgroupProgram>>> {
        let Some(tree) = self.cgroup_tree()? else { return Ok(Some(Vec::new())) };
        let cgroup = match of {
            CgroupOf::Id(id) => by_id(tree, id)?,
            CgroupOf::Process(pid) => self.cgroup_of(tree, &pid.to_string())?,
            CgroupOf::Own => self.cgroup_of(tree, "self")?,
        };
        let Some(cgroup) = cgroup else { return Ok(None) };
        let mut all = Vec::new();
        for (attach_type, at) in OF_CGROUP {
            let ids = programs::attached(AttachTarget::Effective(cgroup.as_fd()), attach_type)?;
            for id in ids {
                let mut program = Program { id: Some(id), name: String::new(), balancer: None };
                self.tell(&mut program);
                let is_own = |about: &programs::ProgramInfo| about.only_watches_binds();
                if self.attached.abouts.borrow().get(&id).is_some_and(is_own) {
                    continue;
                }
                all.push(CgroupProgram { at, cgroup: None, program });
            }
        }
        if !all.is_empty() {
            find_places(tree, cgroup, &mut all)?;
        }
        Ok(Some(all))
    }

    /// The tree of cgroup2. `None` where nothing can be attached, for there is none.
    fn cgroup_tree(&self) -> io::Result<Option<&CgroupTree>> {
        let tree = self.attached.tree.get_or_init(|| {
            // Until a hierarchy of version 2 is mounted for the first time, processes have no
            // line of it (`cgrp_dfl_visible`, kernel/cgroup/cgroup.c).
            let own = files::read(&*self.proc, c"self/cgroup", files::SMALL);
            let own = own.map_err(|error| error.to_string())?.text();
            if !own.lines().any(|line| line.starts_with("0::")) {
                return Ok(None);
            }
            self.find_cgroup_tree().map(Some).map_err(|error| error.to_string())
        });
        tree.as_ref().map(Option::as_ref).map_err(|why| io::Error::other(why.clone()))
    }

    /// In the own mount namespace, or in that of a parent: `ip netns exec` mounts another
    /// `/sys`.
    fn find_cgroup_tree(&self) -> io::Result<CgroupTree> {
        let mountinfo = self.mountinfo.get_or_init(host::mountinfo);
        if let Some(point) = cgroups::mount_point(mountinfo) {
            let root = rustix::fs::open(&point, DIRECTORY, Mode::empty())?;
            return CgroupTree::new(root, point);
        }
        let mut why = io::Error::other("no cgroup2 is mounted here");
        let own = self.process(std::process::id());
        for parent in own.iter().flat_map(|own| &own.ancestors) {
            match self.cgroup_tree_of(parent.pid) {
                Ok(Some(tree)) => return Ok(tree),
                Ok(None) => {}
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// In the mount namespace of another process.
    fn cgroup_tree_of(&self, pid: Pid) -> io::Result<Option<CgroupTree>> {
        let mountinfo = files::read(&*self.proc, format!("{pid}/mountinfo"), files::TABLE)?.text();
        let Some(point) = cgroups::mount_point(&mountinfo) else { return Ok(None) };
        let root = self.reader.root_of(&self.root.join(pid.to_string()))?;
        let (found, _) = root.look(Path::new(&point))?;
        let again = format!("/proc/self/fd/{}", found.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        CgroupTree::new(rustix::fs::open(again, flags, Mode::empty())?, point).map(Some)
    }

    /// The cgroup v2 that a process is in.
    fn cgroup_of(&self, tree: &CgroupTree, process: &str) -> io::Result<Option<OwnedFd>> {
        let text = match files::read(&*self.proc, format!("{process}/cgroup"), files::SMALL) {
            Ok(text) => text.text(),
            // The process has ended, before it was opened or after.
            Err(Errno::NOENT | Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) else {
            return Ok(None);
        };
        let path = format!("./{}", path.trim_start_matches('/'));
        match rustix::fs::openat(&tree.root, path, DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The tree of cgroup2.
#[derive(Debug)]
struct CgroupTree {
    root: OwnedFd,
    /// Where it is mounted.
    point: String,
}

impl CgroupTree {
    fn new(root: OwnedFd, point: String) -> io::Result<Self> {
        /// `CGROUP2_SUPER_MAGIC`.
        const MAGIC: rustix::fs::FsWord = 0x6367_7270;
        let kind = rustix::fs::fstatfs(&root)?.f_type;
        if kind != MAGIC {
            return Err(io::Error::other(format!("{point} is no cgroup2")));
        }
        Ok(Self { root, point })
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// `struct file_handle` with the id of a node of kernfs (`FILEID_KERNFS`, Linux 5.5).
#[repr(C)]
struct Handle {
    length: u32,
    kind: i32,
    id: u64,
}

/// Opens a cgroup by its id. `None` when there is none with it.
fn by_id(tree: &CgroupTree, id: u64) -> io::Result<Option<OwnedFd>> {
    const FILEID_KERNFS: i32 = 0xfe;
    let mut handle = Handle { length: 8, kind: FILEID_KERNFS, id };
    #[expect(unsafe_code, reason = "no library opens what only has a number")]
    // SAFETY: the handle is as long as it says, and is only read.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            tree.root.as_raw_fd(),
            std::ptr::from_mut(&mut handle),
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ESTALE | libc::ENOENT) => Ok(None),
            _ => Err(error),
        };
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "the descriptor comes as a number")]
    // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Finds to which cgroups programs are attached: the one that they take effect in, or one
/// above it.
fn find_places(tree: &CgroupTree, cgroup: OwnedFd, all: &mut [CgroupProgram]) -> io::Result<()> {
    let mut at = cgroup;
    for _ in 0..DEPTH {
        let path = procs::link(rustix::fs::CWD, format!("/proc/self/fd/{}", at.as_raw_fd()))?;
        // One that lies outside of what is mounted here has no path.
        let Ok(path) = path.strip_prefix(&tree.point) else { break };
        let path = CgroupPath(format!("/{}", path.display()));
        for (attach_type, hook) in OF_CGROUP {
            let unplaced = |one: &&mut CgroupProgram| one.at == hook && one.cgroup.is_none();
            if !all.iter_mut().any(|one| unplaced(&one)) {
                continue;
            }
            let ids = programs::attached(AttachTarget::Of(at.as_fd()), attach_type)?;
            let here =
                |one: &&mut CgroupProgram| one.program.id.is_some_and(|id| ids.contains(&id));
            for one in all.iter_mut().filter(unplaced).filter(here) {
                one.cgroup = Some(path.clone());
            }
        }
        if path.0 == "/" || all.iter().all(|one| one.cgroup.is_some()) {
            break;
        }
        at = rustix::fs::openat(&at, c"..", DIRECTORY, Mode::empty())?;
    }
    Ok(())
}

/// What is attached in the namespace of the calling thread. Names are told later.
fn on_devices(door: &NetnsHandle) -> Read<Vec<Attached>> {
    let mut all: Read<Vec<Attached>> = Read::default();
    let (netns, source) = (door.id, format!("netns {}", door.id));
    let devices = match by_rtnetlink(netns, &mut all.value) {
        Ok(devices) => devices,
        Err(error) => {
            all.gaps.push(gap(&source, &error));
            return all;
        }
    };
    if let Err(error) = by_bpf(netns, &devices, &mut all.value) {
        all.gaps.push(gap(&source, &error));
    }
    all
}

/// Adds XDP programs, and what tc has.
fn by_rtnetlink(netns: NetnsId, all: &mut Vec<Attached>) -> io::Result<Vec<AttachableDevice>> {
    let mut talk = Netlink::open(ROUTE, BYTES)?;
    // `struct ifinfomsg` and `struct tcmsg`, of all.
    let links = NetlinkRequest::dump(RTM_GETLINK, &[0; 16]);
    let devices = talk.collect(&links, MOST, |message| parse::device(message.body))?;
    for device in &devices {
        for id in &device.xdp {
            let program = Program { id: Some(*id), name: String::new(), balancer: None };
            all.push(Attached {
                netns,
                ifindex: Some(device.index),
                at: DeviceHook::Xdp,
                what: Attachment::Program(program),
            });
        }
    }
    let qdiscs = NetlinkRequest::dump(RTM_GETQDISC, &[0; 20]);
    let qdiscs = talk.collect(&qdiscs, MOST, |message| parse::qdisc(message.body))?;
    for Qdisc { index, handle, kind } in qdiscs {
        let parents: Vec<(u32, DeviceHook)> = match kind.as_str() {
            "clsact" => {
                vec![(0xffff_fff2, DeviceHook::TcIngress), (0xffff_fff3, DeviceHook::TcEgress)]
            }
            "ingress" => vec![(0xffff_fff2, DeviceHook::TcIngress)],
            // Those that the kernel makes by itself have no number, and nobody's filters.
            _ if handle == 0 => Vec::new(),
            _ => vec![(handle, DeviceHook::TcEgress)],
        };
        if parse::LOSSY.contains(&kind.as_str()) {
            let what = Attachment::Qdisc(kind);
            all.push(Attached { netns, ifindex: Some(index), at: DeviceHook::TcEgress, what });
        }
        for (parent, at) in parents {
            let filters = NetlinkRequest::dump(RTM_GETTFILTER, &parse::filters_of(index, parent));
            let filters = talk.collect(&filters, MOST, |message| parse::filter(message.body))?;
            let mut found: Vec<Attachment> = Vec::new();
            for what in filters {
                if !found.contains(&what) && found.len() < FILTERS {
                    found.push(what);
                }
            }
            let attached = |what| Attached { netns, ifindex: Some(index), at, what };
            all.extend(found.into_iter().map(attached));
        }
    }
    Ok(devices)
}

/// Adds what only bpf(2) tells.
fn by_bpf(netns: NetnsId, devices: &[AttachableDevice], all: &mut Vec<Attached>) -> io::Result<()> {
    let mut add = |ifindex, at, ids: Vec<u32>| {
        let program = |id| Program { id: Some(id), name: String::new(), balancer: None };
        let attached = |id| Attached { netns, ifindex, at, what: Attachment::Program(program(id)) };
        all.extend(ids.into_iter().map(attached));
    };
    let here = rustix::fs::open(
        "/proc/thread-self/ns/net",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let ids = programs::attached(AttachTarget::Of(here.as_fd()), SK_LOOKUP)?;
    add(None, DeviceHook::SkLookup, ids);
    if devices.len() > DEVICES {
        return Err(io::Error::other(format!("it has more than {DEVICES} devices")));
    }
    for device in devices {
        let hooks = TCX.iter().chain(NETKIT.iter().filter(|_| device.is_netkit));
        for (attach_type, at) in hooks {
            match programs::attached(AttachTarget::Device(device.index), *attach_type) {
                Ok(ids) => add(Some(device.index), *at, ids),
                // It went away meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn gap(source: &str, error: &io::Error) -> Gap {
    let source = GapSource::new(GapKind::Attached, source);
    let gap = Gap::new(Impact::Reach, source, error.to_string());
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            gap.remedy("run as root, or with CAP_NET_ADMIN and CAP_DAC_READ_SEARCH")
        }
        _ => gap,
    }
}

/// For the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    for message in super::netlink::messages(bytes) {
        drop((parse::device(message.body), parse::qdisc(message.body)));
        parse::filter(message.body);
    }
}

#[cfg(test)]
mod tests;
