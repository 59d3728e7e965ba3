//! The life cycle programs: attached, read, and gone when this is dropped, or
//! when the process is killed: all of them hang on descriptors.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::programs::{CgroupAttachMode, CgroupSock, KProbe, ProgramError, RawTracePoint};
use aya::{Ebpf, util::KernelVersion};
use aya_log::EbpfLogger;
use probe_common::{config, event};
use rustix::fs::{Mode, OFlags};

use super::drops::{self, Drops};
use super::load::{self, LoadError};
use super::object::{self, DropSetup, Setup};
use super::translate::{self, ClockOffsets};
use crate::WatchRequest;
use crate::live::btf::ProbePart;
use crate::live::{cgroups, host, tables};
use whereis_port_model::{
    CgroupPath, Event, EventKind, Gap, GapKind, GapSource, Impact, PortRange, Proto, SocketInode,
};

/// How many records are read at once: whoever reads them wants to print, and to
/// look at the clock.
const AT_ONCE: usize = 16_384;
/// How many cgroups' paths are remembered.
const PATHS: usize = 4096;

/// The inode number of the root of a cgroup hierarchy.
const ROOT: u64 = 1;

/// What the program on NAT is called.
const NAT: &str = "NAT events (eBPF)";

/// What the programs on drops are called.
const DROPS: &str = "drop events (eBPF)";

/// The programs that tell of events, attached for as long as this lives.
pub(in crate::live) struct EventPrograms {
    // Dropping it detaches the programs.
    _programs: Ebpf,
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    mountinfo: String,
    paths: HashMap<u64, Option<CgroupPath>>,
    /// UDP sockets that are bound: one that is released was a server's only if it
    /// is among these.
    bound: HashSet<SocketInode>,
    /// What is dropped, where that is wanted and can be told.
    drops: Option<Drops>,
    attached: Vec<&'static str>,
    gaps: Vec<Gap>,
}

impl std::fmt::Debug for EventPrograms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("attached", &self.attached).finish_non_exhaustive()
    }
}

/// Loads and attaches what is wanted.
///
/// # Errors
/// When nothing of it can be had.
pub(in crate::live) fn start(wanted: &WatchRequest) -> Result<EventPrograms, LoadError> {
    let wants = |kind| wanted.kinds.contains(&kind);
    let mut bits = 0;
    if wants(EventKind::Listen) || wants(EventKind::Close) {
        bits |= config::LISTEN;
    }
    if wants(EventKind::Bind) || wants(EventKind::Close) {
        bits |= config::BIND;
    }
    for (kind, bit) in [
        (EventKind::Connect, config::CONNECT),
        (EventKind::Accept, config::ACCEPT),
        (EventKind::Nat, config::NAT),
        (EventKind::Drop, config::DROP),
    ] {
        if wants(kind) {
            bits |= bit;
        }
    }
    if is_older(5, 8) {
        return Err(LoadError::new("the kernel is older than 5.8, which brought ring buffers")
            .remedy("a newer kernel"));
    }
    let layout = load::layout();
    let offsets = layout.offsets;
    let log = if tracing::enabled!(tracing::Level::DEBUG) { 4 } else { 0 };
    let ports = wanted
        .ports
        .map_or(u32::MAX << 16, |range| u32::from(range.first.0) | u32::from(range.last.0) << 16);
    let names = wants(EventKind::Drop).then(drops::KernelNames::read);
    let setup = Setup {
        offsets,
        config: bits,
        ports,
        pidns: own_pidns()?,
        log,
        buffer: wanted.buffer,
        drops: names.as_ref().map(|names| DropSetup {
            has_reason: names.reasons.are_given(),
            has_reset_reason: names.reasons.are_given_for_resets(),
            no_drops: names.reasons.no_drops(),
        }),
    };
    let mut ebpf =
        object::open(&setup).map_err(|error| LoadError::from_error("making BPF maps", &error))?;
    let logger = if log > 0 { EbpfLogger::init(&mut ebpf).ok() } else { None };
    let mut events = EventPrograms {
        ring: map(&mut ebpf, "EVENTS")?,
        lost: map(&mut ebpf, "LOST")?,
        _programs: ebpf,
        logger,
        mountinfo: host::mountinfo(),
        paths: HashMap::new(),
        bound: HashSet::new(),
        drops: None,
        attached: Vec::new(),
        gaps: Vec::new(),
    };
    if bits & (config::LISTEN | config::CONNECT | config::ACCEPT) != 0 {
        let attached = load::check(&layout, ProbePart::Listen).and_then(|()| events.tcp());
        events.note("TCP events (eBPF)", attached);
    }
    if bits & config::BIND != 0 {
        let attached = load::check(&layout, ProbePart::Bind).and_then(|()| events.udp());
        events.note("UDP events (eBPF)", attached);
    }
    if bits & config::NAT != 0 {
        let attached = load::check(&layout, ProbePart::Nat).and_then(|()| events.nat());
        // Conntrack's own events tell of NAT too.
        match attached {
            Ok(()) => events.attached.push(NAT),
            Err(refused) => tracing::debug!("no kprobe for NAT: {refused}"),
        }
    }
    if let Some(names) = names {
        let ports: Vec<_> = match wanted.drops.as_slice() {
            [] => wanted.ports.into_iter().collect(),
            some => some.to_vec(),
        };
        let attached =
            load::check(&layout, ProbePart::Drops).and_then(|()| events.dropped(&ports, names));
        events.note(DROPS, attached);
    }
    match events.gaps.iter().find(|gap| gap.impact == Impact::Port) {
        // Without any program there is nothing but conntrack, which needs none.
        Some(gap) if events.attached.is_empty() => {
            let refused = LoadError::new(gap.reason.clone());
            Err(match gap.remedy.clone() {
                Some(remedy) => refused.remedy(remedy),
                None => refused,
            })
        }
        _ => Ok(events),
    }
}

impl EventPrograms {
    fn note(&mut self, source: &'static str, attached: Result<(), LoadError>) {
        match attached {
            Ok(()) => self.attached.push(source),
            Err(refused) => {
                let source = GapSource::new(GapKind::Events, source);
                let mut gap = Gap::new(Impact::Port, source, refused.reason);
                gap.remedy = refused.remedy;
                self.gaps.push(gap);
            }
        }
    }

    fn tcp(&mut self) -> Result<(), LoadError> {
        let refused = |error: ProgramError| {
            let what = "the tracepoint inet_sock_set_state";
            permitted_with("CAP_BPF and CAP_PERFMON", LoadError::from_error(what, &error))
        };
        let program: &mut RawTracePoint = program(&mut self._programs, "tcp_state")?;
        program.load().map_err(refused)?;
        program.attach("inet_sock_set_state").map_err(refused)?;
        Ok(())
    }

    fn udp(&mut self) -> Result<(), LoadError> {
        let root = cgroup_root(&self.mountinfo)?;
        // In a cgroup namespace the mount begins at the container's own cgroup.
        if rustix::fs::fstat(&root).is_ok_and(|stat| stat.st_ino != ROOT) {
            let gap = Gap::new(
                Impact::Port,
                GapSource::new(GapKind::Events, "UDP events (eBPF)"),
                "only this cgroup and those below it are seen, for the tool is in a cgroup namespace",
            );
            self.gaps
                .push(gap.remedy("run it in the machine's own cgroup namespace (--cgroupns=host)"));
        }
        for name in ["bound4", "bound6", "released"] {
            let refused = |error: ProgramError| {
                let what = "programs at the root of cgroup2";
                let rights = "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";
                permitted_with(rights, LoadError::from_error(what, &error))
            };
            let program: &mut CgroupSock = program(&mut self._programs, name)?;
            program.load().map_err(refused)?;
            // `Single` is no flags at all: attached by a link, a program always
            // stands beside those of others.
            program.attach(&root, CgroupAttachMode::Single).map_err(refused)?;
        }
        Ok(())
    }

    fn nat(&mut self) -> Result<(), LoadError> {
        // The object is the same for all machines, and an argument of a kernel
        // function is in a register of x86-64.
        if !cfg!(target_arch = "x86_64") {
            return Err(LoadError::new("the kprobe on conntrack is for x86-64"));
        }
        let refused =
            |error: ProgramError| LoadError::from_error("the kprobe on conntrack", &error);
        let program: &mut KProbe = program(&mut self._programs, "confirmed")?;
        program.load().map_err(refused)?;
        program.attach("__nf_conntrack_confirm", 0).map_err(refused)?;
        Ok(())
    }

    fn dropped(&mut self, ports: &[PortRange], names: drops::KernelNames) -> Result<(), LoadError> {
        let has_reasons = names.reasons.are_given();
        let drops = Drops::new(&mut self._programs, ports, names)?;
        drops::attach(&mut self._programs)?;
        self.drops = Some(drops);
        let mut less = Vec::new();
        if !has_reasons {
            let why =
                "the kernel is older than 5.17 and gives no reason: the place in its code is told";
            less.push(("reasons of drops", LoadError::new(why)));
        }
        less.extend(drops::attach_refusals(&mut self._programs));
        for (what, refused) in less {
            let source = GapSource::new(GapKind::Events, what);
            let mut gap = Gap::new(Impact::Name, source, refused.reason);
            gap.remedy = refused.remedy;
            self.gaps.push(gap);
        }
        Ok(())
    }

    /// When counts of drops are to be read.
    pub(in crate::live) fn due(&self) -> Option<Instant> {
        self.drops.as_ref().map(Drops::due)
    }

    /// Takes in the UDP sockets that were bound before the programs ran.
    pub(in crate::live) fn already_bound(&mut self, sockets: HashSet<SocketInode>) {
        self.bound.extend(sockets);
    }

    /// Becomes readable when something has happened.
    pub(in crate::live) fn fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// What has happened since the last call, in that order as each CPU saw it: a
    /// part of it when it is very much, unless `all` up to now is asked for.
    pub(in crate::live) fn drain(&mut self, all: bool) -> Vec<Event> {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        let clock = clock();
        let mut events = Vec::new();
        let (paths, mountinfo) = (&mut self.paths, &self.mountinfo);
        let mut path = |id: u64| path_of(paths, mountinfo, id);
        let now = since_epoch();
        let mut left = if all { usize::MAX } else { AT_ONCE };
        while left > 0
            && let Some(bytes) = self.ring.next()
        {
            left -= 1;
            if bytes.starts_with(&event::DROP.to_ne_bytes()) {
                if let Some(drops) = &mut self.drops {
                    drops.wake();
                }
                continue;
            }
            let Some(event) = translate::record(&bytes, clock, &mut path) else { continue };
            // What comes while this reads is not waited for.
            if event.at > now {
                left = left.min(1);
            }
            if event.proto == Proto::Udp {
                match (event.kind, event.inode) {
                    (EventKind::Bind, Some(inode)) => drop(self.bound.insert(inode)),
                    // What sent without being bound is a client.
                    (EventKind::Close, Some(inode)) if !self.bound.remove(&inode) => continue,
                    _ => {}
                }
            }
            events.push(event);
        }
        if let Some(drops) = &mut self.drops
            && (all || drops.due() <= Instant::now())
        {
            events.extend(drops.take(clock));
        }
        events
    }

    /// How many events there was no room for.
    pub(in crate::live) fn lost(&self) -> u64 {
        let lost = self.lost.get(&0, 0).map_or(0, |cpus| cpus.iter().sum());
        lost + self.drops.as_ref().map_or(0, Drops::uncounted)
    }

    /// What is attached, in a user's words.
    pub(in crate::live) fn attached(&self) -> &[&'static str] {
        &self.attached
    }

    /// Whether the program on NAT runs.
    pub(in crate::live) fn tells_nat(&self) -> bool {
        self.attached.contains(&NAT)
    }

    /// What could not be attached, and why.
    pub(in crate::live) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }
}

/// Says which rights were missing, if any were: a pin does not help here.
pub(super) fn permitted_with(rights: &str, refused: LoadError) -> LoadError {
    if refused.remedy.is_some() {
        return refused.remedy(format!("run as root, or with {rights}"));
    }
    refused
}

fn path_of(
    paths: &mut HashMap<u64, Option<CgroupPath>>,
    mountinfo: &str,
    id: u64,
) -> Option<CgroupPath> {
    if let Some(known) = paths.get(&id) {
        return known.clone();
    }
    let path = cgroups::path(mountinfo, id).ok().flatten();
    if paths.len() >= PATHS {
        paths.clear();
    }
    paths.insert(id, path.clone());
    path
}

pub(super) fn program<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut T, LoadError>
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| LoadError::new(format!("the object has no program {name}")))?
        .try_into()
        .map_err(|error| LoadError::from_error(name, &error))
}

pub(super) fn map<T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &str,
) -> Result<T, LoadError> {
    let map = ebpf.take_map(name);
    map.ok_or_else(|| LoadError::new(format!("the object has no map {name}")))?
        .try_into()
        .map_err(|error| LoadError::from_error(name, &error))
}

/// The root of cgroup v2: where it is mounted, else from a mount that nobody
/// sees and that ends with its descriptor.
fn cgroup_root(mountinfo: &str) -> Result<OwnedFd, LoadError> {
    // Without links, programs would stay attached after the tool's end.
    if is_older(5, 9) {
        return Err(LoadError::new(
            "the kernel is older than 5.9 and tells of no UDP socket's end",
        )
        .remedy("a newer kernel"));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Some(point) = cgroups::mount_point(mountinfo) {
        return rustix::fs::open(&point, flags, Mode::empty())
            .map_err(|error| LoadError::new(format!("{point}: {}", io::Error::from(error))));
    }
    unseen_mount().map_err(|error| {
        LoadError::new(format!("no cgroup2 is mounted, and mounting one failed: {error}"))
            .remedy("mount -t cgroup2 none /sys/fs/cgroup/unified, and run it as root")
    })
}

fn unseen_mount() -> io::Result<OwnedFd> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let context = rustix::mount::fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&mount, c".", flags, Mode::empty())?)
}

/// Whether the running kernel is surely older than this.
fn is_older(major: u8, minor: u8) -> bool {
    KernelVersion::current().is_ok_and(|running| running < KernelVersion::new(major, minor, 0))
}

/// The inode number of the tool's PID namespace.
fn own_pidns() -> Result<u32, LoadError> {
    let stat = rustix::fs::stat("/proc/self/ns/pid").map_err(|error| {
        LoadError::new(format!("/proc/self/ns/pid: {}", io::Error::from(error)))
    })?;
    u32::try_from(stat.st_ino).map_err(|_| LoadError::new("the PID namespace has a strange number"))
}

/// The time since the epoch, in nanoseconds.
fn since_epoch() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    u64::try_from(now).unwrap_or(u64::MAX)
}

fn clock() -> ClockOffsets {
    use rustix::time::{ClockId, clock_gettime};
    let nanoseconds = |clock| {
        let time = clock_gettime(clock);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    // In a time namespace the clock is shifted, and records are not.
    let boottime = tables::boottime("/proc/self/timens_offsets".as_ref());
    let since_boot = nanoseconds(ClockId::Boottime) - i128::from(boottime);
    ClockOffsets { epoch: nanoseconds(ClockId::Realtime) - since_boot, boottime }
}
