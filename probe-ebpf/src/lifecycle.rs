//! TCP listens, connects and accepts, UDP binds and releases, as they happen.
//!
//! TCP: the raw tracepoint `inet_sock_set_state` (tracepoint since Linux 4.16).
//! It has the same arguments as the `tp_btf` one and needs no BTF id, so that
//! attaching costs no reading of the kernel's whole BTF.
//! UDP: cgroup programs at the root of cgroup v2, `post_bind4`, `post_bind6`
//! (Linux 4.17) and `sock_release` (5.9).

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_probe_read_kernel_str_bytes;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    bpf_ktime_get_boot_ns,
};
use aya_ebpf::macros::{cgroup_sock, map, raw_tracepoint};
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use aya_ebpf::programs::{RawTracePointContext, SockContext};
use aya_log_ebpf::debug;
use probe_common::{EventRecord, TCP, UDP, config, event, state};

use crate::kernel::{
    Address, addresses, at, bytes, family, global, local_port, net, netns_of, number, offset,
    pointer, remote_port,
};
use crate::task::{current, id_in, leader, netns_untyped};

/// Which events are wanted: bits of [`config`].
#[unsafe(no_mangle)]
pub(crate) static CONFIG: u32 = 0;
/// The local ports that are wanted: the lowest in the low half, the highest in
/// the high half. Connects have none yet and always pass.
#[unsafe(no_mangle)]
static PORTS: u32 = u32::MAX << 16;
/// Inode number of the PID namespace of the tool.
#[unsafe(no_mangle)]
static PIDNS: u32 = 0;

/// What happens.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(16 << 20, 0);
/// How many events were lost because `EVENTS` was full.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// TCP: `(sk, old state, new state)`.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub(crate) fn tcp_state(context: RawTracePointContext) -> i32 {
    let (old, new): (i32, i32) = (context.arg(1), context.arg(2));
    let (kind, wanted, in_process) = match (old as u8, new as u8) {
        (_, state::LISTEN) => (event::LISTEN, config::LISTEN, true),
        // Not to SYN_RECV: that is a connection, which begins as a copy of its listener.
        (state::LISTEN, state::CLOSE) => (event::UNLISTEN, config::LISTEN, true),
        (_, state::SYN_SENT) => (event::CONNECT, config::CONNECT, true),
        (state::SYN_RECV, state::ESTABLISHED) => (event::ACCEPT, config::ACCEPT, false),
        _ => return 0,
    };
    if global(&raw const CONFIG) & wanted == 0 {
        return 0;
    }
    let sk: *const core::ffi::c_void = context.arg(0);
    if number::<u16>(sk, offset!(sock_protocol)) != u16::from(TCP) {
        return 0;
    }
    let port = local_port(sk);
    if kind != event::CONNECT && !is_wanted(port) {
        return 0;
    }
    debug!(&context, "tcp state {} to {}, port {}", old, new, port);
    tell(kind, sk, TCP, in_process);
    0
}

/// UDP over IPv4 was bound. The result allows it.
#[cgroup_sock(post_bind4)]
pub(crate) fn bound4(context: SockContext) -> i32 {
    udp(&context, event::BIND);
    1
}

/// UDP over IPv6 was bound.
#[cgroup_sock(post_bind6)]
pub(crate) fn bound6(context: SockContext) -> i32 {
    udp(&context, event::BIND);
    1
}

/// A socket is being released.
#[cgroup_sock(sock_release)]
pub(crate) fn released(context: SockContext) -> i32 {
    udp(&context, event::RELEASE);
    1
}

#[inline(always)]
fn udp(context: &SockContext, kind: u16) {
    // SAFETY: the verifier checks the access to the context.
    let protocol = unsafe { (*context.sock).protocol };
    if global(&raw const CONFIG) & config::BIND == 0 || protocol != u32::from(UDP) {
        return;
    }
    // The context is the kernel's own socket; the verifier translates the fields
    // of `bpf_sock` only, and has none for the port of a socket that is released.
    let sk = context.as_ptr().cast_const();
    let port = local_port(sk);
    // A server may have connected since it was bound: whose end is to be told is
    // known to the reader.
    if port == 0 || !is_wanted(port) {
        return;
    }
    tell(kind, sk, UDP, true);
}

#[inline(always)]
fn is_wanted(port: u16) -> bool {
    let ports = global(&raw const PORTS);
    port >= ports as u16 && port <= (ports >> 16) as u16
}

/// Writes one event, or counts it as lost.
#[inline(always)]
fn tell(kind: u16, sk: Address, protocol: u8, in_process: bool) {
    let Some(family) = family(sk) else { return };
    let Some(mut entry) = EVENTS.reserve::<EventRecord>(0) else {
        return count_lost();
    };
    let task = current();
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is ours until it is submitted, and every field is written.
    unsafe {
        (&raw mut (*record).kind).write(kind);
        (&raw mut (*record).size).write(size_of::<EventRecord>() as u16);
        (&raw mut (*record).family).write(family);
        (&raw mut (*record).protocol).write(protocol);
        (&raw mut (*record).in_process).write(u8::from(in_process));
        (&raw mut (*record).reserved).write(0);
        (&raw mut (*record).time).write(bpf_ktime_get_boot_ns());
        (&raw mut (*record).netns).write(netns_of(sk));
        (&raw mut (*record).netns_cookie).write(number(net(sk), offset!(net_cookie)));
        addresses(sk, family, &raw mut (*record).local, &raw mut (*record).remote);
        (&raw mut (*record).local_port).write(local_port(sk));
        (&raw mut (*record).remote_port).write(remote_port(sk));
        (&raw mut (*record).inode).write(inode_of(pointer(sk, offset!(sock_socket))));
        (&raw mut (*record).reserved2).write(0);
        if in_process {
            actor(record, task);
        } else {
            nobody(record);
        }
    }
    entry.submit(0);
}

/// Counts an event that there was no room for.
#[inline(always)]
pub(crate) fn count_lost() {
    if let Some(lost) = LOST.get_ptr_mut(0) {
        // SAFETY: a slot of this CPU, which nobody else writes now.
        unsafe { *lost += 1 };
    }
}

/// The id of the running process in the tool's PID namespace; `outer` is the one
/// in the initial namespace.
#[inline(always)]
pub(crate) fn id_of_tool(outer: u32) -> u32 {
    match global(&raw const PIDNS) {
        INITIAL_PIDNS => outer,
        pidns => id_in(leader(current()), pidns),
    }
}

/// The inode of a `socket`.
#[inline(always)]
fn inode_of(socket: Address) -> u64 {
    number(at(socket, offset!(socket_inode)), offset!(inode_ino))
}

/// Writes who does it.
///
/// # Safety
/// `record` is a reserved entry.
#[inline(always)]
unsafe fn actor(record: *mut EventRecord, task: Address) {
    // SAFETY: as said by the caller; the helpers take nothing.
    unsafe {
        let (tgid, uid) = (bpf_get_current_pid_tgid(), bpf_get_current_uid_gid());
        (&raw mut (*record).task_netns).write(netns_untyped(task));
        (&raw mut (*record).cgroup).write(bpf_get_current_cgroup_id());
        (&raw mut (*record).start).write(number(leader(task), offset!(task_start)));
        (&raw mut (*record).uid).write(uid as u32);
        (&raw mut (*record).outer_tgid).write((tgid >> 32) as u32);
        (&raw mut (*record).tgid).write(id_of_tool((tgid >> 32) as u32));
        let thread = match global(&raw const PIDNS) {
            INITIAL_PIDNS => tgid as u32,
            pidns => id_in(task, pidns),
        };
        (&raw mut (*record).tid).write(thread);
        bytes(&raw mut (*record).comm, at(task, offset!(task_comm)));
        let node = cgroup_node(task);
        text(&raw mut (*record).cgroup_name, pointer(node, offset!(kernfs_name)));
        let parent = pointer(node, offset!(kernfs_parent));
        text(&raw mut (*record).cgroup_parent, pointer(parent, offset!(kernfs_name)));
    }
}

/// Writes that nobody here does it.
///
/// # Safety
/// `record` is a reserved entry.
#[inline(always)]
unsafe fn nobody(record: *mut EventRecord) {
    // SAFETY: as said by the caller.
    unsafe {
        (&raw mut (*record).task_netns).write(0);
        (&raw mut (*record).cgroup).write(0);
        (&raw mut (*record).start).write(0);
        (&raw mut (*record).uid).write(0);
        (&raw mut (*record).outer_tgid).write(0);
        (&raw mut (*record).tgid).write(0);
        (&raw mut (*record).tid).write(0);
        (&raw mut (*record).comm).write([0; 16]);
        (&raw mut (*record).cgroup_name).cast::<u8>().write(0);
        (&raw mut (*record).cgroup_parent).cast::<u8>().write(0);
    }
}

/// Reads a text to where it ends with a zero, if it can be read, else is empty.
///
/// # Safety
/// `into` can be written.
#[inline(always)]
unsafe fn text(into: *mut [u8; 104], from: Address) {
    // SAFETY: as said by the caller.
    unsafe {
        into.cast::<u8>().write(0);
        let _ = bpf_probe_read_kernel_str_bytes(from.cast(), &mut *into);
    }
}

/// `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
const INITIAL_PIDNS: u32 = 0xEFFF_FFFC;

/// The node of a task's cgroup: where cgroup v1 is used, its v2 cgroup is the root
/// for all, and the memory hierarchy tells instead.
#[inline(always)]
fn cgroup_node(task: Address) -> Address {
    let set = pointer(task, offset!(task_cgroups));
    let memory = pointer(pointer(set, offset!(css_set_memory)), offset!(css_cgroup));
    let memory = pointer(memory, offset!(cgroup_kn));
    let unified = pointer(pointer(set, offset!(css_set_dfl)), offset!(cgroup_kn));
    let is_root = pointer(unified, offset!(kernfs_parent)).is_null();
    if is_root && !memory.is_null() { memory } else { unified }
}
