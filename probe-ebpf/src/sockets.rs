//! One reading of every inet socket that a descriptor leads to, in all
//! namespaces: `iter/task_file` (Linux 5.8) with `bpf_sock_from_file` (5.11).

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::helpers::generated::bpf_sock_from_file;
use probe_common::{
    AF_INET, AF_INET6, Filter, MISSING, OtherRecord, SocketRecord, TCP, UDP, record,
};

use crate::iterator::{Meta, begin, write};
use crate::kernel::{Address, follow, load, load16, number, offset};
use crate::task::{PidNs, netns};

/// MPTCP listeners: the subflow that is in the TCP tables has the same inode.
const MPTCP: u16 = 262;

/// `SOCK_STREAM` and `SOCK_DGRAM`.
const STREAM: u16 = 1;
const DATAGRAM: u16 = 2;

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
    // SAFETY: all pointers come from the context, or were followed from there.
    unsafe {
        let sk = follow(socket, offset!(socket_sk));
        if sk.is_null() {
            return 0;
        }
        let port: u16 = load(sk, offset!(sock_num));
        let in_range = port >= filter.first && port <= filter.last;
        // Nearly all sockets go no further than this when one port is asked for.
        if !in_range && filter.flags & Filter::WANT_OTHERS == 0 {
            return 0;
        }
        let family = load::<u16>(sk, offset!(sock_family)) as u8;
        if family != AF_INET && family != AF_INET6 {
            return 0;
        }
        let protocol = match load::<u16>(sk, offset!(sock_protocol)) {
            MPTCP => TCP,
            protocol => protocol as u8,
        };
        // A raw socket for a protocol has its number, and holds no port.
        let kind: u16 = load(sk, offset!(sock_type));
        let wanted = match (protocol, kind) {
            (TCP, STREAM) => Filter::WANT_TCP,
            (UDP, DATAGRAM) => Filter::WANT_UDP,
            _ => return 0,
        };
        let state: u8 = load(sk, offset!(sock_state));
        let net = follow(sk, offset!(sock_net));
        let netns: u32 = load(net, offset!(net_inum));
        let inode: u64 = load(follow(file, offset!(file_inode)), offset!(inode_ino));
        let passes = in_range
            && filter.flags & wanted != 0
            && (filter.states >> (state & 15)) & 1 != 0
            && (filter.netns == 0 || filter.netns == netns);
        if passes {
            let what = Socket { sk, net, family, protocol, state, port, netns, inode };
            tell(meta, task, fd, what);
        } else if filter.flags & Filter::WANT_OTHERS != 0 {
            let other = OtherRecord {
                kind: record::OTHER,
                size: size_of::<OtherRecord>() as u16,
                family,
                protocol,
                state,
                reserved: 0,
                inode,
                netns,
                local_port: port,
                reserved2: 0,
            };
            write(meta, &raw const other);
        }
    }
    0
}

/// What is known of a socket that passes.
#[derive(Clone, Copy)]
struct Socket {
    sk: Address,
    net: Address,
    family: u8,
    protocol: u8,
    state: u8,
    port: u16,
    netns: u32,
    inode: u64,
}

/// Writes one descriptor for a socket: field by field, and in place. A second
/// copy would not fit the stack.
///
/// # Safety
/// All pointers come from the context, or were followed from there.
#[inline(always)]
unsafe fn tell(meta: *const Meta, task: Address, fd: u32, socket: Socket) {
    let sk = socket.sk;
    let mut space = MaybeUninit::<SocketRecord>::uninit();
    let record = space.as_mut_ptr();
    // SAFETY: the record is ours, and every field is written; else as said by the caller.
    unsafe {
        let leader = follow(task, offset!(task_group_leader));
        let reader = PidNs::of_reader();
        (&raw mut (*record).kind).write(record::SOCKET);
        (&raw mut (*record).size).write(size_of::<SocketRecord>() as u16);
        (&raw mut (*record).family).write(socket.family);
        (&raw mut (*record).protocol).write(socket.protocol);
        (&raw mut (*record).state).write(socket.state);
        (&raw mut (*record).v6only).write(v6only(sk, socket.family));
        (&raw mut (*record).inode).write(socket.inode);
        (&raw mut (*record).netns).write(socket.netns);
        (&raw mut (*record).ifindex).write(load(sk, offset!(sock_bound_dev_if)));
        (&raw mut (*record).netns_cookie).write(load(socket.net, offset!(net_cookie)));
        (&raw mut (*record).cgroup).write(cgroup(sk));
        let (local, remote) = (&raw mut (*record).local, &raw mut (*record).remote);
        if socket.family == AF_INET6 {
            load16(local, sk, offset!(sock_v6_rcv_saddr));
            load16(remote, sk, offset!(sock_v6_daddr));
        } else {
            four(local, load(sk, offset!(sock_rcv_saddr)));
            four(remote, load(sk, offset!(sock_daddr)));
        }
        (&raw mut (*record).local_port).write(socket.port);
        (&raw mut (*record).remote_port).write(u16::from_be(load(sk, offset!(sock_dport))));
        (&raw mut (*record).uid).write(load(sk, offset!(sock_uid)));
        (&raw mut (*record).start).write(load(leader, offset!(task_start)));
        let tgid = reader.id(leader);
        (&raw mut (*record).tgid).write(tgid);
        (&raw mut (*record).tid).write(if task == leader { tgid } else { reader.id(task) });
        (&raw mut (*record).fd).write(fd);
        (&raw mut (*record).sock_type).write(load(sk, offset!(sock_type)));
        (&raw mut (*record).reserved).write(0);
        (&raw mut (*record).task_netns).write(netns(task));
        (&raw mut (*record).task_uid).write(user(leader));
        load16(&raw mut (*record).comm, leader, offset!(task_comm));
        write(meta, record);
    }
}

/// The user of a process; `u32::MAX` when this kernel does not tell.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
unsafe fn user(leader: Address) -> u32 {
    let (at, uid) = (offset!(task_cred), offset!(cred_uid));
    if at == MISSING || uid == MISSING {
        return u32::MAX;
    }
    // SAFETY: as said by the caller.
    unsafe { load(follow(leader, at), uid) }
}

/// The id of the socket's cgroup; 0 when this kernel does not tell.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
unsafe fn cgroup(sk: Address) -> u64 {
    let (at, node) = (offset!(sock_cgroup), offset!(cgroup_kn));
    if at == MISSING || node == MISSING {
        return 0;
    }
    // SAFETY: as said by the caller.
    unsafe { load(follow(follow(sk, at), node), offset!(kernfs_id)) }
}

/// Writes an IPv4 address as records have it.
///
/// # Safety
/// `into` can be written.
#[inline(always)]
unsafe fn four(into: *mut [u8; 16], address: u32) {
    let words = into.cast::<u32>();
    // SAFETY: as said by the caller.
    unsafe {
        words.write_unaligned(address);
        words.add(1).write_unaligned(0);
        words.add(2).write_unaligned(0);
        words.add(3).write_unaligned(0);
    }
}

/// Through the helper: the verifier lets nobody load a part of a bit field.
#[inline(always)]
fn v6only(sk: Address, family: u8) -> u8 {
    let at = offset!(sock_ipv6only);
    if at == MISSING || family != AF_INET6 {
        return 2;
    }
    let byte: u8 = number(sk, at);
    u8::from(u32::from(byte) & offset!(sock_ipv6only_mask) != 0)
}
