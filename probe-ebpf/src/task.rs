//! Processes and threads: their ids as the reader knows them.

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_get_current_task_btf};

use crate::kernel::{Address, Number as _, follow, load, number, offset, pointer};

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

/// The id of a task in the namespace with this inode number; 0 when it is not in
/// there, or deeper than six levels. One function, without a branch for each pointer, since the verifier
/// follows every way through every level.
#[inline(never)]
pub(crate) fn id_in(task: Address, inum: u32) -> u32 {
    let pid = u64::read(field(task, offset!(task_thread_pid))) as Address;
    let levels = u32::read(field(pid, offset!(pid_level))).wrapping_add(1);
    // No loop: the compiler makes it end by an equality, which older verifiers
    // can't tell to be reached.
    macro_rules! look {
        ($($level:literal)*) => {$(
            if $level < levels {
                let entry = entry(pid, $level);
                let namespace = u64::read(field(entry, offset!(upid_ns))) as Address;
                if u32::read(field(namespace, offset!(pidns_inum))) == inum {
                    return u32::read(field(entry, offset!(upid_nr)));
                }
            }
        )*};
    }
    look!(0 1 2 3 4 5);
    0
}

/// The address of a field. At one that is wrong the helper reads nothing.
#[inline(always)]
fn field(base: Address, offset: u32) -> Address {
    (base as u64).wrapping_add(u64::from(offset)) as Address
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
