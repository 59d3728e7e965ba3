//! One reading of every process with its namespaces: `iter/task` (Linux 5.8).

use core::ffi::c_void;
use core::mem::MaybeUninit;

use probe_common::{MISSING, TaskRecord, record};

use crate::iterator::{Meta, begin, write};
use crate::kernel::{Address, follow, load, load16, offset};
use crate::task::{PidNs, netns};

/// `struct bpf_iter__task`, kernel/bpf/task_iter.c.
#[repr(C)]
pub(crate) struct Task {
    meta: *const Meta,
    task: *const c_void,
}

/// Called for each task, and a last time without any.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub(crate) fn tasks(context: *const Task) -> i32 {
    // SAFETY: the kernel's context; the verifier checks every access.
    let (meta, task) = unsafe { ((*context).meta, (*context).task) };
    // SAFETY: the context's own.
    unsafe { begin(meta) };
    if task.is_null() {
        return 0;
    }
    // SAFETY: all pointers come from the context, or were followed from there.
    unsafe {
        let leader = follow(task, offset!(task_group_leader));
        let proxy = follow(task, offset!(task_nsproxy));
        // Nearly all threads are in the namespaces of their process.
        if task != leader && proxy == follow(leader, offset!(task_nsproxy)) {
            return 0;
        }
        let reader = PidNs::of_reader();
        let mut space = MaybeUninit::<TaskRecord>::uninit();
        let record = space.as_mut_ptr();
        (&raw mut (*record).kind).write(record::TASK);
        (&raw mut (*record).size).write(size_of::<TaskRecord>() as u16);
        (&raw mut (*record).tgid).write(reader.id(leader));
        (&raw mut (*record).tid).write(reader.id(task));
        (&raw mut (*record).netns).write(netns(task));
        (&raw mut (*record).mntns).write(mntns(proxy));
        (&raw mut (*record).reserved).write(0);
        (&raw mut (*record).start).write(load(leader, offset!(task_start)));
        load16(&raw mut (*record).comm, task, offset!(task_comm));
        write(meta, record);
    }
    0
}

/// The number of a mount namespace; 0 when this kernel does not tell.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
unsafe fn mntns(proxy: Address) -> u32 {
    let at = offset!(nsproxy_mnt);
    if at == MISSING {
        return 0;
    }
    // SAFETY: as said by the caller.
    unsafe { load(follow(proxy, at), offset!(mnt_inum)) }
}
