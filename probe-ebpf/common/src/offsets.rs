//! Where the running kernel keeps what the programs read.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A field that the running kernel does not have, or whose type is not known.
pub const MISSING: u32 = u32::MAX;

/// Offsets in bytes, from the running kernel's BTF, or [`MISSING`]. A global of
/// the programs (`OFFSETS`), so that the verifier sees constants.
///
/// Each field is named `struct_member`; members of members are joined.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
pub struct Offsets {
    /// `sock.__sk_common.skc_family`, u16.
    pub sock_family: u32,
    /// `sock.__sk_common.skc_state`, u8.
    pub sock_state: u32,
    /// `sock.__sk_common.skc_num`, u16, host byte order.
    pub sock_num: u32,
    /// `sock.__sk_common.skc_dport`, u16, network byte order.
    pub sock_dport: u32,
    /// `sock.__sk_common.skc_rcv_saddr`, 4 bytes.
    pub sock_rcv_saddr: u32,
    /// `sock.__sk_common.skc_daddr`, 4 bytes.
    pub sock_daddr: u32,
    /// `sock.__sk_common.skc_v6_rcv_saddr`, 16 bytes.
    pub sock_v6_rcv_saddr: u32,
    /// `sock.__sk_common.skc_v6_daddr`, 16 bytes.
    pub sock_v6_daddr: u32,
    /// `sock.__sk_common.skc_net.net`, pointer to `net`.
    pub sock_net: u32,
    /// `sock.__sk_common.skc_bound_dev_if`, u32.
    pub sock_bound_dev_if: u32,
    /// The byte that holds the bit field `sock.__sk_common.skc_ipv6only`.
    pub sock_ipv6only: u32,
    /// The bit in that byte: a mask, not an offset.
    pub sock_ipv6only_mask: u32,
    /// `sock.sk_type`, u16.
    pub sock_type: u32,
    /// `sock.sk_protocol`, u16 (Linux 5.6).
    pub sock_protocol: u32,
    /// `sock.sk_uid`, u32.
    pub sock_uid: u32,
    /// `sock.sk_socket`, pointer to `socket`.
    pub sock_socket: u32,
    /// `sock.sk_cgrp_data.cgroup`, pointer to `cgroup` (Linux 5.16; before, the
    /// low bit of a word told its use, and this is missing).
    pub sock_cgroup: u32,
    /// `socket.sk`, pointer to `sock`.
    pub socket_sk: u32,
    /// `socket_alloc.vfs_inode` less `socket_alloc.socket`: from a `socket` to its `inode`.
    pub socket_inode: u32,
    /// `file.f_inode`, pointer to `inode`.
    pub file_inode: u32,
    /// `inode.i_ino`, u64.
    pub inode_ino: u32,
    /// `net.ns.inum`, u32.
    pub net_inum: u32,
    /// `net.net_cookie`, u64 (Linux 5.12).
    pub net_cookie: u32,
    /// `cgroup.kn`, pointer to `kernfs_node`.
    pub cgroup_kn: u32,
    /// `kernfs_node.id`, u64 (Linux 5.5).
    pub kernfs_id: u32,
    /// `kernfs_node.name`, pointer to a string.
    pub kernfs_name: u32,
    /// `kernfs_node.__parent`, pointer to `kernfs_node` (`parent` before Linux 6.15).
    pub kernfs_parent: u32,
    /// `task_struct.tgid`, u32.
    pub task_tgid: u32,
    /// `task_struct.pid`, u32.
    pub task_pid: u32,
    /// `task_struct.start_boottime`, u64 (`real_start_time` before Linux 5.5).
    pub task_start: u32,
    /// `task_struct.comm`, 16 bytes.
    pub task_comm: u32,
    /// `task_struct.group_leader`, pointer to `task_struct`.
    pub task_group_leader: u32,
    /// `task_struct.thread_pid`, pointer to `pid`.
    pub task_thread_pid: u32,
    /// `task_struct.nsproxy`, pointer to `nsproxy`, null when it has ended.
    pub task_nsproxy: u32,
    /// `task_struct.real_cred`, pointer to `cred`.
    pub task_cred: u32,
    /// `cred.uid`, u32: the real user id.
    pub cred_uid: u32,
    /// `task_struct.cgroups`, pointer to `css_set`.
    pub task_cgroups: u32,
    /// `inet_sock.inet_sport`, u16, network byte order: the bound port, which
    /// stays when `skc_num` is cleared on closing.
    pub inet_sport: u32,
    /// `pid_namespace.ns.inum`, u32.
    pub pidns_inum: u32,
    /// `pid.level`, u32.
    pub pid_level: u32,
    /// `pid.numbers`, array of `upid`.
    pub pid_numbers: u32,
    /// Size of `upid`.
    pub upid_size: u32,
    /// `upid.nr`, u32.
    pub upid_nr: u32,
    /// `upid.ns`, pointer to `pid_namespace`.
    pub upid_ns: u32,
    /// `nsproxy.net_ns`, pointer to `net`.
    pub nsproxy_net: u32,
    /// `nsproxy.mnt_ns`, pointer to `mnt_namespace`.
    pub nsproxy_mnt: u32,
    /// `mnt_namespace.ns.inum`, u32.
    pub mnt_inum: u32,
    /// `css_set.dfl_cgrp`, pointer to `cgroup`.
    pub css_set_dfl: u32,
    /// `css_set.subsys[memory_cgrp_id]`, pointer to `cgroup_subsys_state`. The
    /// index is the value of the enumerator.
    pub css_set_memory: u32,
    /// `cgroup_subsys_state.cgroup`, pointer to `cgroup`.
    pub css_cgroup: u32,
    /// `sk_buff._nfct`, a word; the pointer to `nf_conn` without its low three bits.
    pub skb_nfct: u32,
    /// `sk_buff.sk`, pointer to `sock`.
    pub skb_sk: u32,
    /// `sk_buff.head`, pointer to the buffer.
    pub skb_head: u32,
    /// `sk_buff.network_header`, u16: from `head`.
    pub skb_network_header: u32,
    /// `sk_buff.protocol`, u16, network byte order.
    pub skb_protocol: u32,
    /// `sk_buff.dev`, pointer to `net_device`.
    pub skb_dev: u32,
    /// `sk_buff.skb_iif`, u32: the device that it came by, 0 for one that was sent from here.
    pub skb_iif: u32,
    /// `sk_buff._skb_refdst`, a word; the pointer to `dst_entry` without its lowest bit.
    pub skb_refdst: u32,
    /// `dst_entry.dev`, pointer to `net_device`.
    pub dst_dev: u32,
    /// `net_device.ifindex`, u32.
    pub dev_ifindex: u32,
    /// `net_device.name`, 16 bytes.
    pub dev_name: u32,
    /// `net_device.nd_net.net`, pointer to `net`.
    pub dev_net: u32,
    /// `nf_conn.status`, u64.
    pub ct_status: u32,
    /// `nf_conn.ct_net.net`, pointer to `net`.
    pub ct_net: u32,
    /// `nf_conn.tuplehash[0].tuple`.
    pub ct_original: u32,
    /// `nf_conn.tuplehash[1].tuple`.
    pub ct_reply: u32,
    /// `nf_conntrack_tuple.src.u3`, 16 bytes.
    pub tuple_src: u32,
    /// `nf_conntrack_tuple.src.u`, u16, network byte order.
    pub tuple_src_port: u32,
    /// `nf_conntrack_tuple.src.l3num`, u16: the family.
    pub tuple_family: u32,
    /// `nf_conntrack_tuple.dst.u3`, 16 bytes.
    pub tuple_dst: u32,
    /// `nf_conntrack_tuple.dst.u`, u16, network byte order.
    pub tuple_dst_port: u32,
    /// `nf_conntrack_tuple.dst.protonum`, u8.
    pub tuple_proto: u32,
}

impl Offsets {
    /// A kernel of which nothing is known.
    pub const NONE: Self = Self {
        sock_family: MISSING,
        sock_state: MISSING,
        sock_num: MISSING,
        sock_dport: MISSING,
        sock_rcv_saddr: MISSING,
        sock_daddr: MISSING,
        sock_v6_rcv_saddr: MISSING,
        sock_v6_daddr: MISSING,
        sock_net: MISSING,
        sock_bound_dev_if: MISSING,
        sock_ipv6only: MISSING,
        sock_ipv6only_mask: MISSING,
        sock_type: MISSING,
        sock_protocol: MISSING,
        sock_uid: MISSING,
        sock_socket: MISSING,
        sock_cgroup: MISSING,
        socket_sk: MISSING,
        socket_inode: MISSING,
        file_inode: MISSING,
        inode_ino: MISSING,
        net_inum: MISSING,
        net_cookie: MISSING,
        cgroup_kn: MISSING,
        kernfs_id: MISSING,
        kernfs_name: MISSING,
        kernfs_parent: MISSING,
        task_tgid: MISSING,
        task_pid: MISSING,
        task_start: MISSING,
        task_comm: MISSING,
        task_group_leader: MISSING,
        task_thread_pid: MISSING,
        task_nsproxy: MISSING,
        task_cred: MISSING,
        cred_uid: MISSING,
        task_cgroups: MISSING,
        inet_sport: MISSING,
        pidns_inum: MISSING,
        pid_level: MISSING,
        pid_numbers: MISSING,
        upid_size: MISSING,
        upid_nr: MISSING,
        upid_ns: MISSING,
        nsproxy_net: MISSING,
        nsproxy_mnt: MISSING,
        mnt_inum: MISSING,
        css_set_dfl: MISSING,
        css_set_memory: MISSING,
        css_cgroup: MISSING,
        skb_nfct: MISSING,
        skb_sk: MISSING,
        skb_head: MISSING,
        skb_network_header: MISSING,
        skb_protocol: MISSING,
        skb_dev: MISSING,
        skb_iif: MISSING,
        skb_refdst: MISSING,
        dst_dev: MISSING,
        dev_ifindex: MISSING,
        dev_name: MISSING,
        dev_net: MISSING,
        ct_status: MISSING,
        ct_net: MISSING,
        ct_original: MISSING,
        ct_reply: MISSING,
        tuple_src: MISSING,
        tuple_src_port: MISSING,
        tuple_family: MISSING,
        tuple_dst: MISSING,
        tuple_dst_port: MISSING,
        tuple_proto: MISSING,
    };
}
