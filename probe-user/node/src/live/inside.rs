//! Reading something of many namespaces, and saying in few words what of them
//! could not be read.

use std::io;
use std::time::Instant;

use super::enter::{EnterError, NetnsHandle};
use super::gaps::read_or_gap;
use super::rtnl::Rtnl;
use super::{LiveNode, NetnsCache, gaps, owners, procnet};
use whereis_port_model::{
    Gap, GapKind, GapSource, Impact, NetnsId, PortSocket, Read, Socket, SocketFilter,
};

impl LiveNode {
    /// Reads something of each namespace from inside it, once. What a vanished
    /// namespace held is gone with it, and no gap.
    pub(super) fn inside<T: Clone + Send + 'static>(
        &self,
        name: &'static str,
        impact: Impact,
        memo: &NetnsCache<T>,
        netns: &[NetnsId],
        work: impl Fn(&NetnsHandle) -> Read<Vec<T>> + Send + Sync + 'static,
    ) -> Read<Vec<T>> {
        self.once(name, impact, memo, netns, |doors| self.pool.in_each(doors, work))
    }

    /// Asks something about each namespace by rtnetlink, once.
    pub(super) fn by_rtnl<T: Clone>(
        &self,
        name: &'static str,
        kind: GapKind,
        memo: &NetnsCache<T>,
        netns: &[NetnsId],
        mut ask: impl FnMut(NetnsId, &mut Rtnl) -> io::Result<Vec<T>>,
    ) -> Read<Vec<T>> {
        self.once(name, Impact::Reach, memo, netns, |doors| {
            let answers =
                self.rtnls.each(&self.pool, doors, |door, rtnl| ask(door.id, rtnl)).into_iter();
            let source = |door: &NetnsHandle| GapSource::new(kind, format!("netns {}", door.id));
            let read = |(door, answer): (&NetnsHandle, Result<_, _>)| {
                answer.map(|answer| read_or_gap(answer, Impact::Reach, source(door)))
            };
            doors.iter().zip(answers).map(read).collect()
        })
    }

    fn once<T: Clone>(
        &self,
        name: &'static str,
        impact: Impact,
        memo: &NetnsCache<T>,
        netns: &[NetnsId],
        read: impl FnOnce(&[NetnsHandle]) -> Vec<Result<Read<Vec<T>>, EnterError>>,
    ) -> Read<Vec<T>> {
        let missing: Vec<NetnsId> =
            netns.iter().copied().filter(|id| !memo.borrow().contains_key(id)).collect();
        let since = (!missing.is_empty()).then(Instant::now);
        if since.is_some() {
            let doors = self.doors(missing);
            let results = read(&doors);
            memo.borrow_mut().extend(doors.iter().map(|door| door.id).zip(results));
        }
        let memo = memo.borrow();
        let mut all: Read<Vec<T>> = Read::default();
        let mut refused = Vec::new();
        for id in netns {
            match memo.get(id) {
                Some(Ok(read)) => all.value.extend(read.clone().take(&mut all.gaps)),
                Some(Err(EnterError::Gone)) | None => {}
                Some(Err(why)) => refused.push((*id, gaps::reason(*why))),
            }
        }
        all.gaps.extend(gaps::each_reason(&refused, |source, why, _| {
            let source = GapSource::new(GapKind::NetworkNamespaces, source);
            let gap = Gap::new(impact, source, why);
            gap.remedy("run as root, or with CAP_SYS_ADMIN")
        }));
        if let Some(since) = since {
            let total: usize = memo.values().flatten().map(|r| r.value.len()).sum();
            let detail = format!("{total} from {} namespaces", memo.len());
            self.log(name, since, &all.gaps, detail);
        }
        all
    }

    /// Whether descriptors hold namespaces that are seen in no other way. Those of
    /// processes that can't be read are not counted: they nearly never do.
    pub(super) fn held(&self) -> &[Gap] {
        self.held.get_or_init(|| {
            let since = Instant::now();
            let gone = self.gone.borrow();
            let known = self.found().0.netns.keys().filter(|id| !gone.contains(id));
            let known = known.filter_map(|id| id.inode()).collect();
            let gaps = match owners::namespaces(&self.proc, known, &self.reader) {
                Ok((owners, untold)) => {
                    gaps::held(&owners.holders).into_iter().chain(gaps::untold(&untold)).collect()
                }
                Err(error) => vec![Gap::new(Impact::Port, GapKind::Descriptors, error.to_string())],
            };
            self.log("namespaces held by descriptors", since, &gaps, String::new());
            gaps
        })
    }

    /// The listeners of a namespace that can't be entered, or whose kernel lacks
    /// sock_diag, from the tables of a process or thread in it. `Err` says why
    /// there are none to read.
    pub(super) fn sockets_by_proc(
        &self,
        id: NetnsId,
        filter: &SocketFilter,
        why: &str,
    ) -> Result<Read<Vec<Socket>>, String> {
        let sockets = self.port_sockets_by_proc(id, filter, why)?;
        let listeners = sockets.into_iter().map(|s| s.socket).filter(|s| s.state.is_listener());
        Ok(Read::whole(listeners.collect()))
    }

    /// The same of sockets in whatever state.
    pub(super) fn port_sockets_by_proc(
        &self,
        id: NetnsId,
        filter: &SocketFilter,
        why: &str,
    ) -> Result<Vec<PortSocket>, String> {
        let found = &self.found().0;
        let mut last = why.to_owned();
        for task in found.tasks.get(&id).into_iter().flatten() {
            let since = Instant::now();
            let read = procnet::read(&self.root.join(task).join("net"), id, filter);
            // Asked afterwards: what was read is of the one that is there now.
            if !found.is_in(&self.proc, task, id) {
                continue;
            }
            match read {
                Ok(sockets) => {
                    let detail = format!(
                        "fallback for netns {id} ({why}): v6only and bound device not told"
                    );
                    self.log("/proc/PID/net", since, &[], detail);
                    return Ok(sockets);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => last = format!("/proc/{task}/net: {error}"),
            }
        }
        Err(last)
    }

    /// One gap for all namespaces whose sockets nothing tells, as far as the
    /// reason is the same.
    pub(super) fn closed_gaps(&self, closed: &[(NetnsId, String)]) -> Vec<Gap> {
        let found = &self.found().0;
        let unnamed = found.unnamed().count();
        // A process that ended meanwhile was seen, and says nothing of the namespaces that
        // no process showed.
        let (visible, hidden): (Vec<_>, Vec<_>) =
            closed.iter().cloned().partition(|(id, _)| found.tasks.contains_key(id));
        let gap = |source: &str, why: String| {
            Gap::new(Impact::Port, GapSource::new(GapKind::Sockets, source), why)
                .remedy("run as root, or with CAP_SYS_ADMIN")
        };
        let mut gaps = gaps::each_reason(&hidden, |source, why, ids| {
            let each = if ids.len() == 1 { "it" } else { "each" };
            let why = match unnamed {
                0 => format!("no process of it is visible, and {why}"),
                _ => format!(
                    "{why}; {each} may be one of the {unnamed} unnamed namespaces whose sockets were read through /proc/PID/net"
                ),
            };
            gap(&source, why)
        });
        gaps.extend(gaps::each_reason(&visible, |source, why, _| gap(&source, why)));
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::super::conntrack::Lab;
    use super::*;
    use crate::{Conntrack as _, Netfilter as _, Sockets as _, Topology as _};
    use whereis_port_model::{FlowFilter, Port, PortRange, RouteKind, RouteQuery};

    #[test]
    fn a_namespace_is_asked_by_one_thread_and_about_its_network_over_one_socket() {
        if !Lab::can_be_made() {
            return;
        }
        let lab = Lab::new();
        let node = LiveNode::new().unwrap();
        let (id, ports) = (lab.door.id, PortRange::one(Port(1)));
        let all = [id];
        assert_eq!(node.links(&all).value.len(), 1);
        assert_eq!(node.addresses(&all).value.len(), 2);
        assert_eq!((node.routes(&all).value, node.kernel_ports(&all).value), (vec![], vec![]));
        for to in ["127.0.0.1", "127.0.0.2", "::1"] {
            let to = to.parse().unwrap();
            let found = node.route(&RouteQuery::new(id, to, 0)).value.unwrap();
            assert_eq!(found.kind, RouteKind::Local);
        }
        assert_eq!(node.rtnls.begun(), 1);
        node.sockets(&all, &SocketFilter { proto: None, ports: Some(ports) });
        node.settings(&all);
        node.rulesets(&all);
        node.flows(&all, &FlowFilter { proto: None, ports });
        node.connections(&all);
        // Those that looked for namespaces looked into all that there are.
        let known = node.netns().value.len();
        assert!(node.pool.threads() <= known.min(super::super::procs::cores(2)));
    }

    #[test]
    #[expect(unsafe_code, reason = "the thread, which has nothing yet, leaves its namespace")]
    fn a_namespace_that_loses_its_last_process_is_held_by_a_descriptor_all_the_same() {
        if !Lab::can_be_made() {
            return;
        }
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            // SAFETY: only the network namespace changes, and no descriptor.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
                .unwrap();
            let ns = rustix::fs::open(
                "/proc/thread-self/ns/net",
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            );
            tell.send(ns.unwrap()).unwrap();
            let _ = stopped.recv();
        });
        let descriptor = told.recv().unwrap();
        let id = NetnsId::Inode(rustix::fs::fstat(&descriptor).unwrap().st_ino);
        let mut node = LiveNode::new().unwrap();
        assert!(node.netns().value.iter().any(|netns| netns.id == id));
        drop(stop);
        thread.join().unwrap();
        // Neither the thread, which has a namespace for a moment after it was joined, nor one of
        // those that looked for namespaces and stayed in the last is in it any more.
        node.pool = super::super::enter::Pool::default();
        let is_in = |task: std::io::Result<std::fs::DirEntry>| {
            let link = std::fs::read_link(task.unwrap().path().join("ns/net"));
            link.is_ok_and(|link| link.to_string_lossy() == format!("net:[{id}]"))
        };
        while std::fs::read_dir("/proc/self/task").unwrap().any(is_in) {
            std::thread::yield_now();
        }
        let filter = SocketFilter { proto: None, ports: Some(PortRange::one(Port(1))) };
        assert_eq!(node.sockets(&[id], &filter).value, []);
        let number = std::os::fd::AsRawFd::as_raw_fd(&descriptor);
        let way = format!("--net=/proc/{}/fd/{number} ", std::process::id());
        let gaps = node.unseen().gaps;
        let leads = |gap: &Gap| gap.remedy.as_ref().is_some_and(|r| r.to_string().contains(&way));
        let several = |gap: &Gap| gap.impact == Impact::Port && gap.reason.contains("descriptors");
        assert!(gaps.iter().any(|gap| leads(gap) || several(gap)), "{way}: {gaps:?}");
    }
}
