//! Reading something of many namespaces, and saying in few words what of them
//! could not be read.

use std::io;
use std::time::Instant;

use super::enter::{self, Door, Refused};
use super::{LiveNode, Memo, gaps, owners, procnet};
use crate::model::{Gap, Impact, NetnsId, Read, Socket, SocketFilter};

impl LiveNode {
    /// Reads something of each namespace from inside it, once. What a vanished
    /// namespace held is gone with it, and no gap.
    pub(super) fn inside<T: Clone + Send>(
        &self,
        name: &'static str,
        impact: Impact,
        memo: &Memo<T>,
        netns: &[NetnsId],
        work: impl Fn(&Door) -> Read<Vec<T>> + Sync,
    ) -> Read<Vec<T>> {
        let missing: Vec<NetnsId> =
            netns.iter().copied().filter(|id| !memo.borrow().contains_key(id)).collect();
        let since = (!missing.is_empty()).then(Instant::now);
        if since.is_some() {
            let doors = self.doors(missing);
            let results = enter::in_each(&doors, work);
            memo.borrow_mut().extend(doors.iter().map(|door| door.id).zip(results));
        }
        let memo = memo.borrow();
        let mut all: Read<Vec<T>> = Read::default();
        let mut refused = Vec::new();
        for id in netns {
            match memo.get(id) {
                Some(Ok(read)) => all.value.extend(read.clone().take(&mut all.gaps)),
                Some(Err(Refused::Gone)) | None => {}
                Some(Err(why)) => refused.push((*id, gaps::reason(*why))),
            }
        }
        all.gaps.extend(gaps::each_reason(&refused, |source, why, _| {
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
    pub(super) fn held(&self) -> &Option<Gap> {
        self.held.get_or_init(|| {
            let since = Instant::now();
            let known = self.found().0.netns.keys().filter_map(|id| id.inode()).collect();
            let gap = match owners::namespaces(&self.proc, known) {
                Ok(owners) => gaps::held(&owners.holders),
                Err(error) => Some(Gap::new(Impact::Port, "/proc/*/fd", error.to_string())),
            };
            self.log("namespaces held by descriptors", since, gap.as_slice(), String::new());
            gap
        })
    }

    /// The sockets of a namespace that can't be entered, or whose kernel lacks
    /// sock_diag, from the tables of a process or thread in it. `Err` says why
    /// there are none to read.
    pub(super) fn sockets_by_proc(
        &self,
        id: NetnsId,
        filter: &SocketFilter,
        why: &str,
    ) -> Result<Read<Vec<Socket>>, String> {
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
                    return Ok(Read::whole(sockets));
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
        gaps::each_reason(closed, |source, why, ids| {
            let visible = ids.iter().any(|id| found.tasks.contains_key(id));
            let why = match (unnamed, ids) {
                _ if visible => why,
                (0, _) => format!("no process of it is visible, and {why}"),
                (_, [_]) => format!(
                    "{why}; it may be one of the {unnamed} unnamed namespaces whose sockets were read through /proc/PID/net"
                ),
                _ => format!(
                    "{why}; each may be one of the {unnamed} unnamed namespaces whose sockets were read through /proc/PID/net"
                ),
            };
            Gap::new(Impact::Port, format!("sockets of {source}"), why)
                .remedy("run as root, or with CAP_SYS_ADMIN")
        })
    }
}
