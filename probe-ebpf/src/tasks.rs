//! One reading of every process with its namespaces: `iter/task` (Linux 5.8).

use core::ffi::c_void;
use core::mem::MaybeUninit;

use probe_common::{TaskRecord, record};

use crate::iterator::{Meta, begin, write};
use crate::kernel::{at, bytes, number, offset, pointer};
use crate::task::{PidNs, current, leader, netns};

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
    let leader = leader(task);
    let proxy = pointer(task, offset!(task_nsproxy));
    // Nearly all threads are in the namespaces of their process.
    if task != leader && proxy == pointer(leader, offset!(task_nsproxy)) {
        return 0;
    }
    let reader = PidNs::of(current());
    let mntns = pointer(proxy, offset!(nsproxy_mnt));
    let mut space = MaybeUninit::<TaskRecord>::uninit();
    let record = space.as_mut_ptr();
    // SAFETY: the record is ours, and every field is written.
    unsafe {
        (&raw mut (*record).kind).write(record::TASK);
        (&raw mut (*record).size).write(size_of::<TaskRecord>() as u16);
        (&raw mut (*record).tgid).write(reader.id(leader));
        (&raw mut (*record).tid).write(reader.id(task));
        (&raw mut (*record).netns).write(netns(task));
        (&raw mut (*record).mntns).write(number(mntns, offset!(mnt_inum)));
        (&raw mut (*record).reserved).write(0);
        (&raw mut (*record).start).write(number(leader, offset!(task_start)));
        bytes(&raw mut (*record).comm, at(task, offset!(task_comm)));
        write(meta, record);
    }
    0
}
