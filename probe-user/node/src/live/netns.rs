//! Finding every network namespace of the node.
//!
//! A namespace lives on through a process, a thread, a bind mount, an open
//! descriptor of it or a socket. The first three are looked at. Descriptors are
//! looked through only when a port was not found (`owners::namespaces`): that
//! costs reading every table of the node. To a namespace that only a socket keeps
//! alive nothing but the socket leads: the probe sees it (`tables`), and without
//! it such a socket is not seen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::enter::{MountNamespace, NetnsHandle, NetnsPath};
use super::procs::{each_name, inode_link, is_denied, is_gone, open_dir, other_threads, pids};
use super::reader::Reader;
use super::tables::ProcessScan;
use super::{files, mounts};
use whereis_port_model::{Gap, GapKind, GapSource, Impact, Netns, NetnsId, Pid};

/// The namespaces that were found, and how each is entered.
#[derive(Debug, Default)]
pub(super) struct NetnsScan {
    /// The namespaces by id.
    pub(super) netns: BTreeMap<NetnsId, Netns>,
    /// How each can be entered.
    pub(super) doors: HashMap<NetnsId, NetnsHandle>,
    /// Processes and threads in each, as paths below `/proc`. Unlike its members
    /// these are in it themselves, and not only one of their threads.
    pub(super) tasks: HashMap<NetnsId, Vec<String>>,
    /// The namespace of the calling process.
    pub(super) own: Option<NetnsId>,
    /// The initial namespace, as far as kthreadd or init show it.
    pub(super) initial: Option<NetnsId>,
    /// Processes whose namespace could not be told at all.
    pub(super) untold: Vec<Pid>,
    /// Each bpffs that somebody sees, with a process or thread that does, as a path
    /// below `/proc`. The own ones come first.
    pub(super) bpffs: Vec<(String, mounts::Bpffs)>,
    /// What of the mounts was too much to look at.
    cut: Cut,
    /// Inode of `/proc/PID/net/tcp` to the namespace, where both were readable.
    by_proc_net: HashMap<u64, NetnsId>,
}

/// How many bytes of the mount tables of others are read: of one, of all those that belong
/// to the tool's own user namespace, and of all that belong to another one, which anybody can
/// make. A container has some 5,000.
const ONE_TABLE: usize = 4 << 20;
const TABLES: [usize; 2] = [64 << 20, 16 << 20];
/// How many namespaces one mount table of others can add.
const PINS: usize = 4096;
/// How many paths are kept that lead to a namespace.
const PATHS: usize = 16;

/// What was left out of mount tables.
#[derive(Debug, Default)]
struct Cut {
    /// Tables of which only the beginning was read, or nothing.
    tables: usize,
    /// The first one of them, as a path below `/proc`.
    first: String,
    /// What would have been too much of tables that were read.
    mounts: usize,
}

/// Directories in which namespaces are pinned by name.
const PINNED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// The namespaces of a process, or of a thread that is somewhere else than its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskNamespaces {
    pub(super) pid: Pid,
    /// Equal to `pid` for the process itself.
    pub(super) tid: Pid,
    /// Inode of the network namespace.
    pub(super) netns: u64,
    /// Inode of the mount namespace.
    pub(super) mntns: u64,
}

/// Looks at all processes and their threads, at the usual directories and at
/// the mounts of every mount namespace. `places` spares the walk over `/proc`:
/// where every process and thread is, in any order, but for those it has not seen.
pub(super) fn find(
    proc: &OwnedFd,
    root: &Path,
    places: Option<&ProcessScan>,
    reader: &Reader,
) -> Result<NetnsScan, Errno> {
    let mut search = NetnsSearch::new(proc, root, reader)?;
    match places {
        Some(ProcessScan { places, unseen }) => {
            let mut places = places.clone();
            places.sort_unstable();
            for place in places {
                search.place(proc, place);
            }
            search.found.number(proc);
            for pid in unseen {
                search.process(proc, *pid);
            }
        }
        None => {
            for pid in pids(proc)? {
                search.process(proc, pid);
            }
            search.found.recognise(proc);
        }
    }
    for dir in PINNED {
        search.pinned_in(Path::new(dir));
    }
    Ok(search.found)
}

impl NetnsScan {
    /// Namespaces of unreadable processes are mostly ones that other processes
    /// live in too: the inode below `/proc/PID/net` of a readable one tells.
    fn recognise(&mut self, proc: &OwnedFd) {
        if self.unnamed().next().is_none() {
            return;
        }
        let mut told = Vec::new();
        for (id, tasks) in self.tasks.iter().filter(|(id, _)| id.inode().is_some()) {
            let stat = tasks.iter().find_map(|task| {
                let link = inode_link(proc, format!("{task}/ns/net"), b"net:").ok()?;
                (link == id.inode()).then(|| proc_net(proc, task))?.ok()
            });
            told.extend(stat.map(|inode| (inode, *id)));
        }
        for (inode, id) in told {
            self.is_proc_net(inode, id);
        }
    }

    /// Notes the numbers of those that can't be entered through any process: what
    /// is read below `/proc/PID/net` can then be told to be theirs.
    fn number(&mut self, proc: &OwnedFd) {
        for (id, tasks) in &self.tasks {
            let open = |task: &String| {
                inode_link(proc, format!("{task}/ns/net"), b"net:").is_ok_and(|i| i == id.inode())
            };
            if !tasks.iter().any(open) {
                let inode = tasks.iter().find_map(|task| proc_net(proc, task).ok());
                self.by_proc_net.extend(inode.map(|inode| (inode, *id)));
            }
        }
    }

    /// Takes in that `inode` is the one of `/proc/PID/net/tcp` of `known`: what
    /// was found under that number alone was this namespace.
    pub(super) fn is_proc_net(&mut self, inode: u64, known: NetnsId) {
        self.by_proc_net.insert(inode, known);
        let veiled = NetnsId::ProcNet(inode);
        let Some(same) = self.netns.remove(&veiled) else { return };
        self.doors.remove(&veiled);
        let tasks = self.tasks.remove(&veiled).unwrap_or_default();
        let into = self.tasks.entry(known).or_default();
        into.extend(tasks);
        into.truncate(Netns::MEMBERS);
        if let Some(netns) = self.netns.get_mut(&known) {
            netns.members.extend(same.members);
            netns.members.sort_unstable();
            netns.members.dedup();
            netns.members.truncate(Netns::MEMBERS);
        }
        if self.initial == Some(veiled) {
            self.initial = Some(known);
        }
    }

    /// What was not looked at because it was too much.
    pub(super) fn gaps(&self) -> Vec<Gap> {
        let Cut { tables, first, mounts } = &self.cut;
        let mut gaps = Vec::new();
        if *tables > 0 {
            let more =
                if *tables > 1 { format!(" and {} more", tables - 1) } else { String::new() };
            let why = "so many mounts that not all were looked at: network namespaces may be pinned there";
            let source = GapSource::new(GapKind::Proc, format!("{first}/mountinfo{more}"));
            gaps.push(Gap::new(Impact::Port, source, why));
        }
        if *mounts > 0 {
            let why = format!("{mounts} more are pinned by mounts than are looked at");
            gaps.push(Gap::new(Impact::Port, GapKind::NetworkNamespaces, why));
        }
        gaps
    }

    /// The namespaces known by nothing but a number below `/proc/PID/net`.
    pub(super) fn unnamed(&self) -> impl Iterator<Item = NetnsId> {
        self.netns.keys().copied().filter(|id| id.inode().is_none())
    }

    /// Whether a process or thread is in a namespace still: its number may be
    /// another's by now.
    pub(super) fn is_in(&self, proc: &OwnedFd, task: &str, id: NetnsId) -> bool {
        match inode_link(proc, format!("{task}/ns/net"), b"net:") {
            Ok(inode) => inode == id.inode(),
            Err(_) => proc_net(proc, task).is_ok_and(|inode| {
                NetnsId::ProcNet(inode) == id || self.by_proc_net.get(&inode) == Some(&id)
            }),
        }
    }
}

/// The number that the kernel gave the files of the namespace's `/proc/PID/net`.
fn proc_net(proc: &OwnedFd, task: &str) -> Result<u64, Errno> {
    rustix::fs::statat(proc, format!("{task}/net/tcp"), AtFlags::empty()).map(|stat| stat.st_ino)
}

/// The same of the namespace this thread is in.
pub(super) fn proc_net_here() -> Option<u64> {
    rustix::fs::stat("/proc/thread-self/net/tcp").ok().map(|stat| stat.st_ino)
}

/// The search for namespaces, as far as it got.
struct NetnsSearch {
    found: NetnsScan,
    root: PathBuf,
    reader: Reader,
    /// Mount namespaces whose mounts have been read.
    mounts_read: HashSet<u64>,
    /// How much may still be read of the mount tables of others: see [`TABLES`].
    left: [usize; 2],
    /// The tool's own user namespace.
    own_userns: Option<u64>,
    /// The device of nsfs: what is not on it is no namespace.
    nsfs: u64,
}

/// What a process or thread gave of its namespace.
#[derive(PartialEq, Eq)]
enum NetnsEvidence {
    /// Which one it is.
    Inode,
    /// Which one it is among those that are told apart only.
    ProcNet,
    /// It has ended and has none.
    None,
    /// It could not be read.
    Refused,
}

impl NetnsSearch {
    fn new(proc: &OwnedFd, root: &Path, reader: &Reader) -> Result<Self, Errno> {
        let nsfs = rustix::fs::statat(proc, c"self/ns/net", AtFlags::empty())?.st_dev;
        let mut search = Self {
            found: NetnsScan::default(),
            root: root.to_owned(),
            reader: reader.clone(),
            mounts_read: HashSet::new(),
            left: TABLES,
            own_userns: inode_link(proc, c"self/ns/user", b"user:").ok().flatten(),
            nsfs,
        };
        let own = inode_link(proc, c"self/ns/net", b"net:")?.ok_or(Errno::INVAL)?;
        let own = NetnsId::Inode(own);
        search.found.own = Some(own);
        search.entry(own).ways.push(NetnsPath::Path(root.join("self/ns/net")));
        if let Some(door) = search.found.doors.get_mut(&own) {
            door.own = true;
        }
        if let Ok(inode) = proc_net(proc, "self") {
            search.found.by_proc_net.insert(inode, own);
        }
        search.mounts(proc, "self", true)?;
        Ok(search)
    }

    /// The door of a namespace, which is made when it is new.
    fn entry(&mut self, id: NetnsId) -> &mut NetnsHandle {
        self.found.netns.entry(id).or_insert_with(|| Netns {
            id,
            cookie: None,
            name: None,
            paths: Vec::new(),
            members: Vec::new(),
            user_ns: None,
        });
        self.found.doors.entry(id).or_insert_with(|| NetnsHandle {
            id,
            own: false,
            ways: Vec::new(),
        })
    }

    /// Looks at one process by paths below `/proc`: opening its directory first
    /// would double the system calls, and a number used again meanwhile does no
    /// harm, for every door is checked when it is opened.
    fn process(&mut self, proc: &OwnedFd, pid: Pid) {
        let leader = pid.to_string();
        let mut told = self.task(proc, pid, &leader);
        let mut refused = told == NetnsEvidence::Refused;
        if told == NetnsEvidence::Inode {
            refused |= self.mounts(proc, &leader, false).is_err();
        }
        // A leader that has ended has no namespaces, but its threads have: only
        // without `task` the process is gone.
        match other_threads(proc, pid) {
            Ok(threads) => {
                for tid in threads {
                    let thread = format!("{pid}/task/{tid}");
                    let of_thread = self.task(proc, pid, &thread);
                    refused |= of_thread == NetnsEvidence::Refused;
                    if told == NetnsEvidence::None && of_thread == NetnsEvidence::Inode {
                        refused |= self.mounts(proc, &thread, false).is_err();
                        told = of_thread;
                    }
                }
            }
            Err(error) => refused |= !is_gone(error),
        }
        if refused {
            self.found.untold.push(pid);
        }
        // Kernel threads live in the initial namespaces.
        if pid == KTHREADD && is_kthreadd(proc) {
            self.found.initial =
                self.found.netns.values().find(|n| n.members.contains(&pid)).map(|n| n.id);
        }
    }

    /// Takes in one process or thread whose place is known.
    fn place(&mut self, proc: &OwnedFd, place: TaskNamespaces) {
        let TaskNamespaces { pid, tid, netns, mntns } = place;
        let id = NetnsId::Inode(netns);
        let known = self.found.tasks.get(&id).is_some_and(|tasks| tasks.len() >= Netns::MEMBERS);
        let new_mounts = !self.mounts_read.contains(&mntns);
        if !known || new_mounts {
            let task = if tid == pid { pid.to_string() } else { format!("{pid}/task/{tid}") };
            if !known {
                self.member(id, pid, &task);
            }
            if new_mounts && self.mounts(proc, &task, false).is_err() {
                self.found.untold.push(pid);
            }
        }
        if pid == KTHREADD && tid == pid && is_kthreadd(proc) {
            self.found.initial = Some(id);
        }
    }

    /// Looks at one process or thread. Without ptrace rights the namespace still
    /// shows by the inode number of a file below its `net`, which the kernel
    /// makes per namespace.
    fn task(&mut self, proc: &OwnedFd, pid: Pid, task: &str) -> NetnsEvidence {
        match inode_link(proc, format!("{task}/ns/net"), b"net:") {
            Ok(Some(inode)) => {
                self.member(NetnsId::Inode(inode), pid, task);
                return NetnsEvidence::Inode;
            }
            Err(error) if is_denied(error) => {}
            Err(error) if !is_gone(error) => return NetnsEvidence::Refused,
            Ok(None) | Err(_) => return NetnsEvidence::None,
        }
        match proc_net(proc, task) {
            Ok(inode) => {
                let id = self.found.by_proc_net.get(&inode).copied();
                self.member(id.unwrap_or(NetnsId::ProcNet(inode)), pid, task);
                NetnsEvidence::ProcNet
            }
            Err(error) if is_gone(error) => NetnsEvidence::None,
            Err(_) => NetnsEvidence::Refused,
        }
    }

    fn member(&mut self, id: NetnsId, pid: Pid, task: &str) {
        let path = self.root.join(task).join("ns/net");
        let door = self.entry(id);
        let ways = door.ways.iter().filter(|way| matches!(way, NetnsPath::Path(_))).count();
        if ways < Netns::MEMBERS {
            door.ways.push(NetnsPath::Path(path));
        }
        let tasks = self.found.tasks.entry(id).or_default();
        if tasks.len() < Netns::MEMBERS {
            tasks.push(task.to_owned());
        }
        if let Some(netns) = self.found.netns.get_mut(&id)
            && netns.members.len() < Netns::MEMBERS
            && netns.members.last() != Some(&pid)
        {
            netns.members.push(pid);
        }
    }

    /// Reads the mounts of a process's mount namespace, once for each.
    fn mounts(&mut self, proc: &OwnedFd, task: &str, own: bool) -> Result<(), Errno> {
        let Ok(Some(mount_ns)) = inode_link(proc, format!("{task}/ns/mnt"), b"mnt:") else {
            // It has just ended: ptrace rights were there a moment ago.
            return Ok(());
        };
        if self.mounts_read.contains(&mount_ns) {
            return Ok(());
        }
        let userns = || inode_link(proc, format!("{task}/ns/user"), b"user:").ok().flatten();
        let share = usize::from(!own && userns() != self.own_userns);
        let limit = if own { files::TABLE } else { ONE_TABLE.min(self.left[share]) };
        let text = match files::read(proc, format!("{task}/mountinfo"), limit) {
            Ok(text) => text,
            Err(error) if is_gone(error) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.mounts_read.insert(mount_ns);
        if !own {
            self.left[share] -= text.bytes.len();
        }
        if text.cut {
            self.found.cut.tables += 1;
            if self.found.cut.first.is_empty() {
                task.clone_into(&mut self.found.cut.first);
            }
        }
        let table = mounts::interesting(&text.bytes, if own { usize::MAX } else { PINS });
        self.found.cut.mounts += table.left_out;
        self.found.bpffs.extend(table.bpffs.into_iter().map(|bpffs| (task.to_owned(), bpffs)));
        let mounts = Arc::new(MountNamespace::new(self.root.join(task), self.reader.clone()));
        for pin in table.pins {
            let id = NetnsId::Inode(pin.inode);
            let door = self.entry(id);
            let ways = door.ways.iter().filter(|way| matches!(way, NetnsPath::Mount(..))).count();
            if ways < Netns::MEMBERS {
                door.ways.push(NetnsPath::Mount(Arc::clone(&mounts), pin.point.clone()));
            }
            self.pinned(id, &pin.point, false);
        }
        Ok(())
    }

    /// Every namespace pinned in a directory, whether a mount of it is visible
    /// in this mount namespace or not.
    fn pinned_in(&mut self, dir: &Path) {
        let Ok(directory) = open_dir(rustix::fs::CWD, dir) else { return };
        // What somebody else than root could have put there can be anything.
        let Ok(stat) = rustix::fs::fstat(&directory) else { return };
        if stat.st_uid != 0 || stat.st_mode & 0o022 != 0 {
            return;
        }
        let mut names = Vec::new();
        let _so_far = each_name(&directory, |name| names.push(name.to_owned()));
        for name in names {
            // A plain file where a namespace was is not on nsfs.
            if let Ok(stat) = rustix::fs::statat(&directory, &name, AtFlags::empty())
                && stat.st_dev == self.nsfs
            {
                let path = dir.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                let id = NetnsId::Inode(stat.st_ino);
                self.entry(id).ways.push(NetnsPath::Path(path.clone()));
                self.pinned(id, &path, true);
            }
        }
    }

    /// Notes a path that pins a namespace. Only a path that was looked up in our own mount
    /// namespace gives a name: a container could call its namespace what it likes, and a
    /// mount in a table may be hidden by another one.
    fn pinned(&mut self, id: NetnsId, path: &Path, found: bool) {
        let Some(netns) = self.found.netns.get_mut(&id) else { return };
        let path = path.to_string_lossy();
        if netns.paths.len() < PATHS && !netns.paths.iter().any(|p| *p == path) {
            netns.paths.push(path.to_string());
        }
        let name = path.strip_prefix("/run/netns/").or(path.strip_prefix("/var/run/netns/"));
        if netns.name.is_none()
            && found
            && let Some(name) = name
        {
            netns.name = Some(name.to_owned());
        }
    }
}

/// The parent of all kernel threads. Only the initial PID namespace has it.
const KTHREADD: Pid = 2;

/// Whether process 2 is kthreadd: in another PID namespace it is anybody, but
/// then it has a parent.
fn is_kthreadd(proc: &OwnedFd) -> bool {
    let stat = files::read(proc, c"2/stat", files::SMALL).unwrap_or_default().bytes;
    stat.starts_with(b"2 (kthreadd) ") && super::procs::parse_parent(&stat) == Some(0)
}

/// The user namespace that owns the network namespace of this thread (Linux 4.9).
pub(super) fn user_ns() -> Option<u64> {
    Some(rustix::fs::fstat(owner_of_own().ok()?).ok()?.st_ino)
}

/// The same, and those above it, as far as they are seen from here.
///
/// # Errors
/// EPERM where it is outside of the caller's own one.
pub(super) fn user_namespaces() -> rustix::io::Result<Vec<u64>> {
    const NS_GET_PARENT: libc::Ioctl = 0xb702;
    /// User namespaces are nested no deeper.
    const DEPTH: usize = 33;
    let mut at = owner_of_own()?;
    let mut all = Vec::new();
    while all.len() < DEPTH {
        all.push(rustix::fs::fstat(&at)?.st_ino);
        match ask_namespace(&at, NS_GET_PARENT) {
            Ok(parent) => at = parent,
            Err(_) => break,
        }
    }
    Ok(all)
}

fn owner_of_own() -> rustix::io::Result<OwnedFd> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let here = rustix::fs::open(c"/proc/thread-self/ns/net", flags, rustix::fs::Mode::empty())?;
    ask_namespace(&here, NS_GET_USERNS)
}

/// Another namespace that one knows of (`ioctl_ns(2)`).
#[expect(unsafe_code, reason = "no library has these calls")]
fn ask_namespace(one: &OwnedFd, request: libc::Ioctl) -> rustix::io::Result<OwnedFd> {
    // SAFETY: these requests have no argument, and give a new descriptor or an error.
    let other = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(one), request) };
    if other < 0 {
        let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        return Err(rustix::io::Errno::from_raw_os_error(error));
    }
    // SAFETY: the kernel made this descriptor just now, for nobody else.
    Ok(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(other) })
}

/// The cookie of the namespace of this thread (`SO_NETNS_COOKIE`, Linux 5.14).
#[expect(unsafe_code, reason = "no library has this socket option yet")]
pub(super) fn cookie() -> Option<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)
            .ok()?;
    let mut cookie = 0u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `length` bytes, 8, to `cookie`, which
    // has 8, and the length to `length`; both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (result == 0 && length == 8).then_some(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_found_under_two_numbers_becomes_one() {
        let (veiled, known) = (NetnsId::ProcNet(5), NetnsId::Inode(7));
        let netns = |id, members| Netns {
            id,
            cookie: None,
            name: None,
            paths: Vec::new(),
            members,
            user_ns: None,
        };
        let mut found = NetnsScan { initial: Some(veiled), ..NetnsScan::default() };
        found.netns.insert(veiled, netns(veiled, vec![2, 1]));
        found.netns.insert(known, netns(known, vec![3]));
        found.tasks.insert(veiled, vec!["2".to_owned()]);
        assert_eq!(found.unnamed().count(), 1);
        found.is_proc_net(5, known);
        assert_eq!(found.netns.keys().collect::<Vec<_>>(), [&known]);
        assert_eq!(found.netns[&known].members, [1, 2, 3]);
        assert_eq!(found.tasks[&known], ["2"]);
        assert_eq!(found.initial, Some(known));
    }

    #[test]
    fn the_own_namespace_is_found_and_can_be_opened() {
        let root = Path::new("/proc");
        let found =
            find(&super::super::procs::open_root(root).unwrap(), root, None, &Reader::default());
        let found = found.unwrap();
        let own = found.own.unwrap();
        assert!(!found.netns[&own].members.is_empty());
        assert!(found.doors[&own].own);
        assert!(found.doors[&own].open().is_ok());
    }

    #[test]
    fn places_that_are_known_give_what_the_walk_gives() {
        let root = Path::new("/proc");
        let proc = super::super::procs::open_root(root).unwrap();
        let place = |pid: Pid| {
            let link = |name: &str| {
                inode_link(&proc, format!("{pid}/ns/{name}"), format!("{name}:").as_bytes())
            };
            let (netns, mntns) = (link("net").ok()??, link("mnt").ok()??);
            Some(TaskNamespaces { pid, tid: pid, netns, mntns })
        };
        let mut places: Vec<TaskNamespaces> =
            pids(&proc).unwrap().into_iter().filter_map(place).collect();
        let me = std::process::id();
        let mine = places.iter().find(|place| place.pid == me).copied().unwrap();
        // Neither of these exists: the number of a process can be stale.
        places.push(TaskNamespaces { pid: u32::MAX, tid: u32::MAX, ..mine });
        places.push(TaskNamespaces { pid: u32::MAX, tid: u32::MAX - 1, netns: 5, mntns: 6 });
        let lowest: Vec<Pid> =
            places.iter().filter(|p| p.netns == mine.netns).map(|p| p.pid).collect();
        let lowest = lowest[..lowest.len().min(Netns::MEMBERS)].to_vec();
        places.reverse();
        let places = ProcessScan { places, unseen: Vec::new() };
        let reader = Reader::default();
        let known = find(&proc, root, Some(&places), &reader).unwrap();
        let walked = find(&proc, root, None, &reader).unwrap();
        let own = walked.own.unwrap();
        assert_eq!((known.own, known.initial), (walked.own, walked.initial));
        assert_eq!(known.netns[&own].paths, walked.netns[&own].paths);
        assert_eq!(known.netns[&own].members, lowest);
        let gone = known.doors[&NetnsId::Inode(5)].open();
        assert_eq!(gone.err(), Some(super::super::enter::EnterError::Gone));
        assert!(known.doors[&own].open().is_ok());
    }
}
