//! The sockets of namespaces and who holds them: from the probe where it can be
//! had, joined with the kernel's own tables.
//!
//! The probe sees every socket that a descriptor leads to. The kernel's tables
//! also have those without one: held by the kernel itself, left behind, on their
//! way between two processes. The probe is read meanwhile; what is in a table and
//! not seen by it is looked for once more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::time::Instant;

use super::ebpf::{self, ProbeMode, ProbeReading};
use super::enter::{EnterError, NetnsHandle};
use super::joined::{self, SocketCounts, SocketHolder};
use super::netns::TaskNamespaces;
use super::{LiveNode, SocketsRead, files, gaps, owners, procs, sockdiag};
use whereis_port_model::{
    Gap, GapKind, GapSource, Impact, NetnsId, Owner, Owners, Pid, PortRange, PortSocket, Process,
    Read, Socket, SocketFilter, SocketInode,
};

/// How many open files the kernel has to have before loading the iterator for one
/// reading is cheaper than walking all descriptors: loading takes some 80 ms, the
/// walk a little more than one microsecond for each descriptor and core.
const LOADING_PAYS: u64 = 200_000;

/// What one reading of the probe gave, sorted for looking up.
#[derive(Debug)]
pub(super) struct Probed {
    filter: SocketFilter,
    sockets: HashMap<u32, Vec<Socket>>,
    counts: HashMap<u32, SocketCounts>,
    owners: Vec<Owner>,
    holders: Vec<SocketHolder>,
}

/// In which namespaces all processes are.
#[derive(Debug)]
pub(super) struct ProcessScan {
    /// Where each is.
    pub(super) places: Vec<TaskNamespaces>,
    /// Those that `/proc` has and the reading has not.
    pub(super) unseen: Vec<Pid>,
}

/// The sockets of one namespace; `Ok(Ok(None))` when they were not needed.
type NetnsSockets = Result<io::Result<Option<Vec<Socket>>>, EnterError>;

impl LiveNode {
    /// Reads the sockets of namespaces, each once, and notes what it gave.
    pub(super) fn read_sockets(&self, missing: Vec<NetnsId>, filter: &SocketFilter) {
        let since = Instant::now();
        let doors = self.doors(missing);
        // All of them: then the kernel's counts tell whether anything is left
        // that no descriptor leads to.
        let whole = filter.ports.is_none();
        let by_count = whole && self.may_probe();
        let asked = *filter;
        let mut results = self.pool.in_each(&doors, move |door| {
            let counts = count_here();
            // Whoever asks has the kernel walk through the hash table of all namespaces: with a
            // hundred of them, to count takes a fraction of that, however few sockets there are.
            if by_count && counts.is_some_and(|counts| counts.total() > 0) {
                return Ok(None);
            }
            let any = |proto, v6| counts.is_none_or(|counts| counts.any(proto, v6));
            sockdiag::dump_some(door.id, &asked, any).map(Some)
        });
        self.probe(filter, whole);
        if by_count {
            self.read_uncounted(&doors, filter, &mut results);
        }
        let table = |(door, result): (&NetnsHandle, NetnsSockets)| match result {
            Ok(Ok(table)) => Ok(Read::whole(table.unwrap_or_default())),
            // Without any file it is gone with its sockets, unless a descriptor holds it.
            Err(EnterError::Gone) if door.id.inode().is_some() => {
                self.gone.borrow_mut().insert(door.id);
                Ok(Read::default())
            }
            Ok(Err(error)) => self.sockets_by_proc(door.id, filter, &error.to_string()),
            Err(refused) => self.sockets_by_proc(door.id, filter, &gaps::reason(refused)),
        };
        let tables: Vec<_> = doors.iter().zip(results).map(table).collect();
        self.see_new_ones(filter, tables.iter().flatten().flat_map(|read| &read.value));
        let mut total = 0;
        let mut closed = Vec::new();
        let mut gaps = Vec::new();
        for (door, read) in doors.into_iter().zip(tables) {
            let read = self.join(&door, filter, read);
            match &read {
                Ok(read) => {
                    total += read.value.len();
                    gaps.extend(read.gaps.iter().cloned());
                }
                Err(why) => closed.push((door.id, why.clone())),
            }
            let read = SocketsRead { netns: door.id, filter: *filter, read };
            self.sockets.borrow_mut().push(read);
        }
        gaps.extend(self.closed_gaps(&closed));
        self.log("socket tables", since, &gaps, format!("{total} sockets"));
    }

    /// Adds the sockets that the probe saw to those of a namespace's tables.
    fn join(
        &self,
        door: &NetnsHandle,
        filter: &SocketFilter,
        read: Result<Read<Vec<Socket>>, String>,
    ) -> Result<Read<Vec<Socket>>, String> {
        let probed = self.probed.borrow();
        let Some(inode) = door.id.inode() else { return read };
        let mut seen = probed
            .iter()
            .filter_map(|p| p.sockets.get(&(inode as u32)))
            .flatten()
            .filter(|socket| filter.matches(socket))
            .peekable();
        if seen.peek().is_none() {
            return read;
        }
        let mut read = match read {
            Ok(read) => read,
            // The probe knows what descriptors lead to, whatever this user may enter.
            Err(why) => Read::partial(Vec::new(), without_descriptor(door.id, &why)),
        };
        if read.value.is_empty() && probed.len() == 1 {
            read.value.extend(seen.cloned());
            return Ok(read);
        }
        let known: HashSet<SocketInode> =
            read.value.iter().map(|s| s.inode).filter(|inode| *inode != 0).collect();
        let mut added = BTreeSet::new();
        for socket in seen {
            if !known.contains(&socket.inode) && added.insert(socket.inode) {
                read.value.push(socket.clone());
            }
        }
        Ok(read)
    }

    /// Reads the tables that were left out, where the kernel counts other sockets
    /// than the probe saw.
    fn read_uncounted(
        &self,
        doors: &[NetnsHandle],
        filter: &SocketFilter,
        results: &mut [NetnsSockets],
    ) {
        let left: Vec<usize> =
            (0..doors.len()).filter(|at| matches!(results[*at], Ok(Ok(None)))).collect();
        if left.is_empty() {
            return;
        }
        let left_doors: Vec<NetnsHandle> = left.iter().map(|at| doors[*at].clone()).collect();
        let counts = {
            let known = self.probed.borrow();
            known.iter().find(|p| p.filter.covers(filter)).map(|probed| probed.counts.clone())
        };
        let asked = *filter;
        let tables = self.pool.in_each(&left_doors, move |door| {
            let inode = door.id.inode().and_then(|inode| u32::try_from(inode).ok());
            if let (Some(counts), Some(inode)) = (&counts, inode) {
                let seen = counts.get(&inode).copied().unwrap_or_default();
                if count_here() == Some(seen) {
                    return Ok(None);
                }
            }
            sockdiag::dump(door.id, &asked).map(Some)
        });
        for (at, table) in left.into_iter().zip(tables) {
            results[at] = table;
        }
    }

    /// A socket that was opened while the probe was read may be in the tables only.
    /// What nobody holds is therefore looked for once more; there is not much of
    /// it: sockets of the kernel, left behind or on their way.
    fn see_new_ones<'a>(&self, filter: &SocketFilter, tables: impl Iterator<Item = &'a Socket>) {
        if !self.is_probed() {
            return;
        }
        let unheld: Vec<&Socket> =
            tables.filter(|s| s.inode != 0 && !self.is_held(s.inode)).collect();
        let ports = unheld.iter().map(|socket| socket.port);
        let (Some(first), Some(last)) = (ports.clone().min(), ports.max()) else { return };
        // A process that is hidden from the probe holds what it holds.
        let inodes = unheld.iter().map(|socket| socket.inode).collect();
        let hidden = self.owners_unseen(&inodes);
        if hidden.is_ok_and(|owners| owners.denied_total > 0 || !owners.holders.is_empty()) {
            return;
        }
        let range = PortRange { first, last };
        self.probe(&SocketFilter { ports: Some(range), ..*filter }, false);
    }

    /// The sockets that the probe saw in namespaces that nothing but a socket
    /// leads to: no process is in there, and no file refers to them.
    pub(super) fn strangers(&self, filter: &SocketFilter) -> Vec<Socket> {
        let known = &self.found().0.netns;
        let is_strange = |netns: &u32| !known.contains_key(&NetnsId::Inode((*netns).into()));
        let probed = self.probed.borrow();
        let strange = probed.iter().flat_map(|probed| &probed.sockets);
        let sockets = strange.filter(|(netns, _)| is_strange(netns)).flat_map(|(_, all)| all);
        let mut seen = HashSet::new();
        let wanted = sockets.filter(|s| filter.matches(s) && seen.insert(s.inode));
        wanted.cloned().collect()
    }

    /// Begins to read the probe, before anything else is read.
    pub(super) fn begin_probe(&self, filter: &SocketFilter) {
        if self.begun.borrow().is_none() && self.probed.borrow().is_empty() {
            let wanted = joined::filter(filter, filter.ports.is_none());
            let begun = self.probe.get_or_init(ProbeMode::find).begin(&wanted);
            *self.begun.borrow_mut() = begun;
        }
    }

    /// Whether the probe is there, or would be loaded.
    fn may_probe(&self) -> bool {
        self.probe.get_or_init(ProbeMode::find).is_ready() || loading_pays()
    }

    /// Reads the probe, if that is the cheapest way, and notes what it saw.
    fn probe(&self, filter: &SocketFilter, others: bool) {
        let since = Instant::now();
        let wanted = joined::filter(filter, others);
        let probe = self.probe.get_or_init(ProbeMode::find);
        let begun = self.begun.borrow_mut().take().and_then(|begun| begun.end(&wanted));
        let name = probe.sockets_name();
        let reading = match begun.or_else(|| probe.sockets(&wanted)) {
            Some(reading) => reading.map_err(|error| format!("reading it failed: {error}")),
            None if loading_pays() => {
                ebpf::load_and_read(&wanted).map_err(|refused| refused.to_string())
            }
            None => return,
        };
        match reading {
            Ok(mut reading) => {
                joined::sort(&mut reading);
                let probed = self.sorted(filter, &reading);
                let detail = format!("{} descriptors of sockets asked for", reading.sockets.len());
                self.log(name, since, &[], detail);
                self.probed.borrow_mut().push(probed);
            }
            // Everything it gives is read in another way then.
            Err(why) => {
                self.probe_failed.set(true);
                let gap = Gap::new(Impact::Name, GapSource::new(GapKind::Ebpf, name), why);
                self.log(name, since, &[gap], "not used".to_owned());
            }
        }
    }

    /// Sockets in every state, by the probe if it can be read without loading anything; with
    /// them their holders become known.
    pub(super) fn probe_ports(&self, filter: &SocketFilter) -> Option<Vec<PortSocket>> {
        let since = Instant::now();
        let probe = self.probe.get_or_init(ProbeMode::find);
        let mut reading = probe.sockets(&joined::filter_of_ports(filter))?.ok()?;
        joined::sort(&mut reading);
        let sockets = joined::port_sockets(&reading);
        // No listener is to be missed by who asks what this reading is of: it has no counts.
        let mut probed = self.sorted(filter, &reading);
        probed.counts.clear();
        self.log(
            probe.sockets_name(),
            since,
            &[],
            format!("{} sockets in any state", sockets.len()),
        );
        self.probed.borrow_mut().push(probed);
        Some(sockets)
    }

    fn sorted(&self, filter: &SocketFilter, reading: &ProbeReading) -> Probed {
        let boottime = boottime(&self.root.join("self/timens_offsets"));
        Probed {
            filter: *filter,
            sockets: joined::sockets(reading),
            counts: joined::counts(reading),
            owners: joined::owners(reading, boottime),
            holders: joined::holders(reading, boottime),
        }
    }

    /// Where every process is, if one reading of the probe tells.
    pub(super) fn places(&self) -> Option<&ProcessScan> {
        let read = || {
            let since = Instant::now();
            let probe = self.probe.get_or_init(ProbeMode::find);
            // Listed first: what is not in the reading then is hidden from the
            // probe, or has ended.
            let listed =
                if probe.is_ready() { procs::pids(&self.proc).ok()? } else { return None };
            let reading = probe.tasks()?.ok()?;
            let known: HashSet<Pid> = reading.tasks.iter().map(|task| task.tgid).collect();
            let unseen = listed.into_iter().filter(|pid| !known.contains(pid)).collect();
            let places = joined::places(&reading);
            self.log("eBPF tasks", since, &[], format!("{} processes", places.len()));
            Some(ProcessScan { places, unseen })
        };
        self.places.get_or_init(read).as_ref()
    }

    /// Who holds these sockets, by the probe, and by the descriptors of processes
    /// that it does not show: a kernel may keep some from it.
    pub(super) fn owners_probed(&self, inodes: &BTreeSet<SocketInode>) -> io::Result<Owners> {
        let mut owners = self.owners_unseen(inodes)?;
        owners.holders.extend(self.holders(inodes));
        Ok(owners)
    }

    /// What those processes hold. Without a reading of all processes that could be
    /// anyone, and all are looked at.
    fn owners_unseen(&self, inodes: &BTreeSet<SocketInode>) -> io::Result<Owners> {
        let unseen = match self.places() {
            Some(places) => places.unseen.clone(),
            None => {
                let unheld = inodes.iter().filter(|inode| !self.is_held(**inode));
                let unheld: BTreeSet<SocketInode> = unheld.copied().collect();
                if unheld.is_empty() {
                    return Ok(Owners::default());
                }
                return Ok(owners::scan(&self.proc, &unheld)?);
            }
        };
        if unseen.is_empty() {
            return Ok(Owners::default());
        }
        Ok(owners::scan_only(&self.proc, unseen, inodes)?)
    }

    /// Whether the probe was used whenever it was to be, so that it knows every
    /// holder of every socket.
    pub(super) fn is_probed(&self) -> bool {
        !self.probed.borrow().is_empty() && !self.probe_failed.get()
    }

    /// Who holds these sockets, as the probe saw each last.
    fn holders(&self, inodes: &BTreeSet<SocketInode>) -> Vec<Owner> {
        let probed = self.probed.borrow();
        let mut owners = Vec::with_capacity(inodes.len());
        for inode in inodes {
            let mut readings = probed.iter().rev().map(|probed| probed.of(*inode));
            owners.extend_from_slice(readings.find(|of| !of.is_empty()).unwrap_or_default());
        }
        owners
    }

    /// What the probe knows of a process that `/proc` hides from this user, but
    /// that still runs.
    pub(super) fn hidden(&self, pid: Pid) -> Option<Process> {
        let probed = self.probed.borrow();
        let holder = probed.iter().rev().find_map(|probed| {
            let at = probed.holders.binary_search_by_key(&pid, |holder| holder.pid).ok()?;
            probed.holders.get(at).cloned()
        })?;
        let id = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
        match rustix::process::test_kill_process(id) {
            Ok(()) | Err(rustix::io::Errno::PERM) => {}
            Err(_) => return None,
        }
        Some(Process {
            pid,
            start: holder.start,
            started_at: None,
            comm: holder.comm,
            cmdline: Vec::new(),
            exe: None,
            cwd: None,
            uid: holder.uid?,
            fs: None,
            // Nothing of its program is known.
            own_word: holder.uid != Some(0),
            user: None,
            nspid: vec![pid],
            netns: holder.netns,
            cgroup: None,
            monitored: None,
            ancestors: Vec::new(),
            health: whereis_port_model::ProcessHealth::default(),
        })
    }

    /// Whether the probe saw any holder of a socket.
    fn is_held(&self, inode: SocketInode) -> bool {
        self.probed.borrow().iter().any(|probed| !probed.of(inode).is_empty())
    }
}

impl Probed {
    /// The holders of one socket.
    fn of(&self, inode: SocketInode) -> &[Owner] {
        let start = self.owners.partition_point(|o| o.inode < inode);
        let length = self.owners[start..].iter().take_while(|o| o.inode == inode).count();
        &self.owners[start..start + length]
    }
}

/// What a time namespace adds to the time since boot, in nanoseconds, by the file
/// `timens_offsets` of a process in it.
pub(super) fn boottime(offsets: &Path) -> i64 {
    let text = files::text(offsets, files::SMALL);
    text.ok().and_then(|text| parse_boottime(&text)).unwrap_or(0)
}

/// The line `boottime SECONDS NANOSECONDS` of `/proc/PID/timens_offsets`.
fn parse_boottime(text: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("boottime"))?;
    let mut fields = line.split_whitespace();
    let seconds: i64 = fields.next()?.parse().ok()?;
    let nanoseconds: i64 = fields.next()?.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// What the kernel counts in the namespace of this thread.
fn count_here() -> Option<SocketCounts> {
    let four = files::text("/proc/thread-self/net/sockstat", files::SMALL).ok()?;
    let six = files::text("/proc/thread-self/net/sockstat6", files::SMALL).unwrap_or_default();
    joined::parse_sockstat(&four, &six)
}

/// Whether so many files are open that loading the iterator is cheaper than the
/// walk. The kernel's count costs one read.
fn loading_pays() -> bool {
    let text = files::text("/proc/sys/fs/file-nr", files::SMALL).unwrap_or_default();
    let open = text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
    open.is_some_and(|open| open > LOADING_PAYS)
}

fn without_descriptor(netns: NetnsId, why: &str) -> Gap {
    Gap::new(
        Impact::Port,
        GapSource::new(GapKind::Sockets, format!("netns {netns} that no process holds")),
        why.to_owned(),
    )
    .remedy("run as root, or with CAP_SYS_ADMIN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_time_namespace_is_read() {
        let text = "monotonic           0         0\nboottime      -12        500\n";
        assert_eq!(parse_boottime(text), Some(-11_999_999_500));
        assert_eq!(parse_boottime("monotonic 0 0\n"), None);
    }
}
