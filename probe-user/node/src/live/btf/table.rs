//! Which fields are read, where they are in the kernel's structs, of what type
//! they must be, and who needs them.

use probe_common::Offsets;

use super::parts::ProbePart::{self, Bind, Cgroup, Detail, Drops, Listen, Nat, Sockets, Tasks};

/// What a field must be for the programs to understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldShape {
    /// An integer of so many bytes that is no bit field.
    Number(u32),
    /// A pointer.
    Pointer,
    /// Anything of so many bytes.
    Bytes(u32),
    /// A struct or array of any size.
    Any,
}
use FieldShape::{Any, Bytes, Number, Pointer};

/// One field that the programs read: where it is, what it must be, and who needs it.
pub(super) struct FieldSpec {
    /// Where its offset is kept.
    pub(super) slot: fn(&mut Offsets) -> &mut u32,
    /// The struct.
    pub(super) of: &'static str,
    /// The member, with members of members; `|` stands between names that it had
    /// in different versions.
    pub(super) path: &'static str,
    pub(super) shape: FieldShape,
    pub(super) parts: &'static [ProbePart],
}

const SOCKET: &[ProbePart] = &[Sockets, Listen, Bind];
const OPENED: &[ProbePart] = &[Sockets];
const EVENT: &[ProbePart] = &[Listen, Bind];
const TASK: &[ProbePart] = &[Sockets, Tasks, Listen, Bind];
const INUM: &[ProbePart] = &[Sockets, Tasks, Listen, Bind, Nat, Drops];
const INODE: &[ProbePart] = SOCKET;
const CGROUP: &[ProbePart] = &[Cgroup];
const NAT: &[ProbePart] = &[Nat];
const DROPS: &[ProbePart] = &[Drops];
const IPV6: &[ProbePart] = &[Detail("addresses of IPv6 sockets")];
const COOKIE: &[ProbePart] = &[Detail("cookies of network namespaces")];
const SOCKET_CGROUP: &[ProbePart] = &[Detail("cgroups of sockets")];
const SOCKET_OR_NAME: &[ProbePart] = &[Cgroup, Detail("cgroups of sockets")];
const USERS: &[ProbePart] = &[Detail("users of processes that /proc hides")];
const MOUNTS: &[ProbePart] = &[Detail("mount namespaces of processes, from the pass over tasks")];
const DEVICE: &[ProbePart] = &[Detail("interfaces that sockets are bound to")];
const INNER: &[ProbePart] = &[Detail("process ids of events, for a tool inside a PID namespace")];
/// Where cgroup v2 names the container, nothing is lost.
pub(super) const V1: &[ProbePart] =
    &[Detail("containers of processes that have exited, where they are in cgroup v1")];
pub(super) const V6ONLY: &[ProbePart] = &[Detail("whether IPv6 sockets take IPv4 too")];

const fn row(
    slot: fn(&mut Offsets) -> &mut u32,
    of: &'static str,
    path: &'static str,
    shape: FieldShape,
    parts: &'static [ProbePart],
) -> FieldSpec {
    FieldSpec { slot, of, path, shape, parts }
}

/// All but those that are no plain offset of a field, see `offsets`.
#[rustfmt::skip]
pub(super) const ROWS: &[FieldSpec] = &[
    row(|o| &mut o.sock_family, "sock", "__sk_common.skc_family", Number(2), SOCKET),
    row(|o| &mut o.sock_state, "sock", "__sk_common.skc_state", Number(1), &[Sockets, Bind]),
    row(|o| &mut o.sock_num, "sock", "__sk_common.skc_num", Number(2), SOCKET),
    row(|o| &mut o.sock_dport, "sock", "__sk_common.skc_dport", Number(2), SOCKET),
    row(|o| &mut o.sock_rcv_saddr, "sock", "__sk_common.skc_rcv_saddr", Number(4), SOCKET),
    row(|o| &mut o.sock_daddr, "sock", "__sk_common.skc_daddr", Number(4), SOCKET),
    row(|o| &mut o.sock_v6_rcv_saddr, "sock", "__sk_common.skc_v6_rcv_saddr", Bytes(16), IPV6),
    row(|o| &mut o.sock_v6_daddr, "sock", "__sk_common.skc_v6_daddr", Bytes(16), IPV6),
    row(|o| &mut o.sock_net, "sock", "__sk_common.skc_net.net", Pointer, SOCKET),
    row(|o| &mut o.sock_bound_dev_if, "sock", "__sk_common.skc_bound_dev_if", Number(4), DEVICE),
    row(|o| &mut o.sock_type, "sock", "sk_type", Number(2), OPENED),
    row(|o| &mut o.sock_protocol, "sock", "sk_protocol", Number(2), &[Sockets, Listen]),
    row(|o| &mut o.sock_uid, "sock", "sk_uid", Bytes(4), OPENED),
    row(|o| &mut o.sock_socket, "sock", "sk_socket", Pointer, EVENT),
    row(|o| &mut o.sock_cgroup, "sock", "sk_cgrp_data.cgroup", Pointer, SOCKET_CGROUP),
    row(|o| &mut o.inet_sport, "inet_sock", "inet_sport", Number(2), EVENT),
    row(|o| &mut o.socket_sk, "socket", "sk", Pointer, OPENED),
    row(|o| &mut o.file_inode, "file", "f_inode", Pointer, OPENED),
    row(|o| &mut o.inode_ino, "inode", "i_ino", Number(8), INODE),
    row(|o| &mut o.net_inum, "net", "ns.inum", Number(4), INUM),
    row(|o| &mut o.net_cookie, "net", "net_cookie", Number(8), COOKIE),
    row(|o| &mut o.cgroup_kn, "cgroup", "kn", Pointer, SOCKET_OR_NAME),
    row(|o| &mut o.kernfs_id, "kernfs_node", "id", Number(8), SOCKET_CGROUP),
    row(|o| &mut o.kernfs_name, "kernfs_node", "name", Pointer, CGROUP),
    row(|o| &mut o.kernfs_parent, "kernfs_node", "__parent|parent", Pointer, CGROUP),
    row(|o| &mut o.task_tgid, "task_struct", "tgid", Number(4), TASK),
    row(|o| &mut o.task_pid, "task_struct", "pid", Number(4), TASK),
    row(|o| &mut o.task_start, "task_struct", "start_boottime|real_start_time", Number(8), TASK),
    row(|o| &mut o.task_comm, "task_struct", "comm", Bytes(16), TASK),
    row(|o| &mut o.task_group_leader, "task_struct", "group_leader", Pointer, TASK),
    row(|o| &mut o.task_thread_pid, "task_struct", "thread_pid", Pointer, TASK),
    row(|o| &mut o.task_nsproxy, "task_struct", "nsproxy", Pointer, TASK),
    row(|o| &mut o.task_cred, "task_struct", "real_cred", Pointer, USERS),
    row(|o| &mut o.cred_uid, "cred", "uid", Bytes(4), USERS),
    row(|o| &mut o.task_cgroups, "task_struct", "cgroups", Pointer, CGROUP),
    row(|o| &mut o.pid_level, "pid", "level", Number(4), TASK),
    row(|o| &mut o.pid_numbers, "pid", "numbers", Any, TASK),
    row(|o| &mut o.upid_nr, "upid", "nr", Number(4), TASK),
    row(|o| &mut o.upid_ns, "upid", "ns", Pointer, TASK),
    row(|o| &mut o.pidns_inum, "pid_namespace", "ns.inum", Number(4), INNER),
    row(|o| &mut o.nsproxy_net, "nsproxy", "net_ns", Pointer, TASK),
    row(|o| &mut o.nsproxy_mnt, "nsproxy", "mnt_ns", Pointer, MOUNTS),
    row(|o| &mut o.mnt_inum, "mnt_namespace", "ns.inum", Number(4), MOUNTS),
    row(|o| &mut o.css_set_dfl, "css_set", "dfl_cgrp", Pointer, CGROUP),
    row(|o| &mut o.css_cgroup, "cgroup_subsys_state", "cgroup", Pointer, V1),
    row(|o| &mut o.skb_nfct, "sk_buff", "_nfct", Number(8), NAT),
    row(|o| &mut o.skb_sk, "sk_buff", "sk", Pointer, &[Nat, Drops]),
    row(|o| &mut o.skb_head, "sk_buff", "head", Pointer, DROPS),
    row(|o| &mut o.skb_network_header, "sk_buff", "network_header", Number(2), DROPS),
    row(|o| &mut o.skb_protocol, "sk_buff", "protocol", Number(2), DROPS),
    row(|o| &mut o.skb_dev, "sk_buff", "dev", Pointer, DROPS),
    row(|o| &mut o.skb_iif, "sk_buff", "skb_iif", Number(4), DROPS),
    row(|o| &mut o.skb_refdst, "sk_buff", "_skb_refdst", Number(8), DROPS),
    row(|o| &mut o.dst_dev, "dst_entry", "dev", Pointer, DROPS),
    row(|o| &mut o.dev_ifindex, "net_device", "ifindex", Number(4), DROPS),
    row(|o| &mut o.dev_name, "net_device", "name", Bytes(16), DROPS),
    row(|o| &mut o.dev_net, "net_device", "nd_net.net", Pointer, DROPS),
    row(|o| &mut o.ct_status, "nf_conn", "status", Number(8), NAT),
    row(|o| &mut o.ct_net, "nf_conn", "ct_net.net", Pointer, NAT),
    row(|o| &mut o.ct_original, "nf_conn", "tuplehash[0].tuple", Any, NAT),
    row(|o| &mut o.ct_reply, "nf_conn", "tuplehash[1].tuple", Any, NAT),
    row(|o| &mut o.tuple_src, "nf_conntrack_tuple", "src.u3", Bytes(16), NAT),
    row(|o| &mut o.tuple_src_port, "nf_conntrack_tuple", "src.u", Bytes(2), NAT),
    row(|o| &mut o.tuple_family, "nf_conntrack_tuple", "src.l3num", Number(2), NAT),
    row(|o| &mut o.tuple_dst, "nf_conntrack_tuple", "dst.u3", Bytes(16), NAT),
    row(|o| &mut o.tuple_dst_port, "nf_conntrack_tuple", "dst.u", Bytes(2), NAT),
    row(|o| &mut o.tuple_proto, "nf_conntrack_tuple", "dst.protonum", Number(1), NAT),
];

/// Who needs the size of `upid`.
pub(super) const UPID_SIZE: &[ProbePart] = TASK;
/// Who needs the way from a `socket` to its inode.
pub(super) const SOCKET_INODE: &[ProbePart] = EVENT;
