//! Processes and threads: their ids as the reader knows them.

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_get_current_task_btf};

use crate::kernel::{Address, follow, load, number, offset, pointer};

/// More levels of PID namespaces than this are not looked at. The kernel allows 32.
const LEVELS: u32 = 8;

/// The PID namespace of whoever reads an iterator, and how deep it is.
#[derive(Clone, Copy)]
pub(crate) struct PidNs {
    namespace: Address,
    level: u32,
}

/// The running task.
#[inline(always)]
pub(crate) fn current() -> Address {
    // SAFETY: takes nothing.
    unsafe { bpf_get_current_task() as Address }
}

impl PidNs {
    /// That of the running task, which in an iterator is the reader.
    #[inline(always)]
    pub(crate) fn of_reader() -> Self {
        // SAFETY: the helper's pointer has its type (Linux 5.11).
        unsafe {
            let task = bpf_get_current_task_btf() as Address;
            let pid = follow(task, offset!(task_thread_pid));
            let level = load(pid, offset!(pid_level));
            Self { namespace: namespace(pid, level), level }
        }
    }

    /// The id of a task in this namespace; 0 when it is not in there.
    ///
    /// # Safety
    /// As for [`load`].
    #[inline(always)]
    pub(crate) unsafe fn id(&self, task: Address) -> u32 {
        // SAFETY: as said by the caller.
        unsafe {
            let pid = follow(task, offset!(task_thread_pid));
            // The initial namespace holds all: there is nothing to compare.
            if self.level == 0 {
                let first = offset!(pid_numbers).wrapping_add(offset!(upid_nr));
                return load(pid, first);
            }
            let level: u32 = load(pid, offset!(pid_level));
            if level < self.level || namespace(pid, self.level) != self.namespace {
                return 0;
            }
            number(entry(pid, self.level), offset!(upid_nr))
        }
    }
}

/// The id of a task in the namespace with this inode number; 0 when it is not in there.
#[inline(always)]
pub(crate) fn id_in(task: Address, inum: u32) -> u32 {
    let pid = pointer(task, offset!(task_thread_pid));
    let deepest: u32 = number(pid, offset!(pid_level));
    let mut level = 0;
    while level < LEVELS && level <= deepest {
        let here: u32 = number(namespace(pid, level), offset!(pidns_inum));
        if here == inum {
            return number(entry(pid, level), offset!(upid_nr));
        }
        level += 1;
    }
    0
}

#[inline(always)]
fn entry(pid: Address, level: u32) -> Address {
    let offset = offset!(pid_numbers).wrapping_add(level.wrapping_mul(offset!(upid_size)));
    (pid as u64).wrapping_add(u64::from(offset)) as Address
}

#[inline(always)]
fn namespace(pid: Address, level: u32) -> Address {
    pointer(entry(pid, level), offset!(upid_ns))
}

/// The leader of a task's process.
#[inline(always)]
pub(crate) fn leader(task: Address) -> Address {
    pointer(task, offset!(task_group_leader))
}

/// The number of the network namespace that a task is in; 0 when it has ended.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub(crate) unsafe fn netns(task: Address) -> u32 {
    // SAFETY: as said by the caller.
    unsafe {
        let proxy = follow(task, offset!(task_nsproxy));
        load(follow(proxy, offset!(nsproxy_net)), offset!(net_inum))
    }
}

/// The same, of a task whose pointer has no type to the verifier.
#[inline(always)]
pub(crate) fn netns_untyped(task: Address) -> u32 {
    let proxy = pointer(task, offset!(task_nsproxy));
    number(pointer(proxy, offset!(nsproxy_net)), offset!(net_inum))
}
