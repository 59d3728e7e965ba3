//! One reading of every inet socket that a descriptor leads to, in all
//! namespaces: `iter/task_file` (Linux 5.8) with `bpf_sock_from_file` (5.11).

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::helpers::generated::bpf_sock_from_file;
use probe_common::{Filter, MISSING, OtherRecord, SocketRecord, TCP, UDP, record};

use crate::iterator::{Meta, begin, write};
use crate::kernel::{
    Address, addresses, at, bytes, family, net, netns_of, number, offset, pointer, remote_port,
};
use crate::task::{PidNs, current, leader, netns};

/// MPTCP listeners: the subflow that is in the TCP tables has the same inode.
const MPTCP: u16 = 262;

/// `struct bpf_iter__task_file`, kernel/bpf/task_iter.c.
#[repr(C)]
pub(crate) struct TaskFile {
    meta: *const Meta,
    task: *const c_void,
    fd: u32,
    file: *mut c_void,
}

/// Called for each descriptor of each process, and of each thread with
/// descriptors of its own; a last time without any.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub(crate) fn sockets(context: *const TaskFile) -> i32 {
    // SAFETY: the kernel's context; the verifier checks every access.
    let (meta, task, fd, file) =
        unsafe { ((*context).meta, (*context).task, (*context).fd, (*context).file) };
    // SAFETY: the context's own.
    unsafe { begin(meta) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: the file of the context.
    let socket = unsafe { bpf_sock_from_file(file.cast()) } as Address;
    if socket.is_null() {
        return 0;
    }
    let Ok(name) = bpf_get_current_comm() else { return 0 };
    let filter = Filter::from_name(&name).unwrap_or(Filter::ALL);
    // SAFETY: the kernel gave this pointer with its type, and what it leads to.
    let (sk, port) = unsafe {
        let sk = typed::<Address>(socket, offset!(socket_sk));
        if sk.is_null() {
            return 0;
        }
        (sk, typed::<u16>(sk, offset!(sock_num)))
    };
    let in_range = port >= filter.first && port <= filter.last;
    // Nearly all sockets go no further than this when one port is asked for.
    if !in_range && filter.flags & Filter::WANT_OTHERS == 0 {
        return 0;
    }
    let Some(family) = family(sk) else { return 0 };
    let protocol = match number::<u16>(sk, offset!(sock_protocol)) {
        MPTCP => TCP,
        protocol => protocol as u8,
    };
    let wanted = match protocol {
        TCP => Filter::WANT_TCP,
        UDP => Filter::WANT_UDP,
        _ => return 0,
    };
    let state: u8 = number(sk, offset!(sock_state));
    let passes = in_range
        && filter.flags & wanted != 0
        && (filter.states >> (state & 15)) & 1 != 0
        && (filter.netns == 0 || filter.netns == netns_of(sk));
    let inode = number(pointer(file, offset!(file_inode)), offset!(inode_ino));
    if !passes {
        if filter.flags & Filter::WANT_OTHERS != 0 {
            let other = OtherRecord {
                kind: record::OTHER,
                size: size_of::<OtherRecord>() as u16,
                family,
                protocol,
                state,
                reserved: 0,
                inode,
                netns: netns_of(sk),
                local_port: port,
                reserved2: 0,
            };
            // SAFETY: the context's own.
            unsafe { write(meta, &raw const other) };
        }
        return 0;
    }
    let (leader, reader) = (leader(task), PidNs::of(current()));
    let mut space = MaybeUninit::<SocketRecord>::uninit();
    let record = space.as_mut_ptr();
    // Written field by field, and the addresses in place: a second copy would
    // not fit the stack.
    // SAFETY: the record is ours, and every field is written.
    unsafe {
        (&raw mut (*record).kind).write(record::SOCKET);
        (&raw mut (*record).size).write(size_of::<SocketRecord>() as u16);
        (&raw mut (*record).family).write(family);
        (&raw mut (*record).protocol).write(protocol);
        (&raw mut (*record).state).write(state);
        (&raw mut (*record).v6only).write(v6only(sk));
        (&raw mut (*record).inode).write(inode);
        (&raw mut (*record).netns).write(netns_of(sk));
        (&raw mut (*record).ifindex).write(number(sk, offset!(sock_bound_dev_if)));
        (&raw mut (*record).netns_cookie).write(number(net(sk), offset!(net_cookie)));
        let cgroup = pointer(pointer(sk, offset!(sock_cgroup)), offset!(cgroup_kn));
        (&raw mut (*record).cgroup).write(number(cgroup, offset!(kernfs_id)));
        addresses(sk, family, &raw mut (*record).local, &raw mut (*record).remote);
        (&raw mut (*record).local_port).write(port);
        (&raw mut (*record).remote_port).write(remote_port(sk));
        (&raw mut (*record).uid).write(number(sk, offset!(sock_uid)));
        (&raw mut (*record).start).write(number(leader, offset!(task_start)));
        (&raw mut (*record).tgid).write(reader.id(leader));
        (&raw mut (*record).tid).write(reader.id(task));
        (&raw mut (*record).fd).write(fd);
        (&raw mut (*record).sock_type).write(number(sk, offset!(sock_type)));
        (&raw mut (*record).reserved).write(0);
        (&raw mut (*record).task_netns).write(netns(task));
        (&raw mut (*record).reserved2).write(0);
        bytes(&raw mut (*record).comm, at(leader, offset!(task_comm)));
        write(meta, record);
    }
    0
}

/// Reads a field through a pointer whose type the verifier knows: one instruction
/// where the helper is a call. Offsets are constants to the verifier, which checks
/// that such a field is there.
///
/// # Safety
/// `base` comes from the kernel with its type.
#[inline(always)]
unsafe fn typed<T: Copy>(base: Address, offset: u32) -> T {
    let address = (base as u64).wrapping_add(u64::from(offset)) as *const T;
    // SAFETY: as said by the caller; a field of an object that is gone reads as 0.
    unsafe { core::ptr::read_volatile(address) }
}

#[inline(always)]
fn v6only(sk: Address) -> u8 {
    let at = offset!(sock_ipv6only);
    if at == MISSING {
        return 2;
    }
    let byte: u8 = number(sk, at);
    u8::from(u32::from(byte) & offset!(sock_ipv6only_mask) != 0)
}
