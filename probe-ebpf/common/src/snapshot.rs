//! The records of the iterators: one reading of the node.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The kinds of record, the first field of each.
pub mod record {
    /// A [`super::HeaderRecord`].
    pub const HEADER: u16 = 1;
    /// A [`super::SocketRecord`].
    pub const SOCKET: u16 = 2;
    /// An [`super::OtherRecord`].
    pub const OTHER: u16 = 3;
    /// A [`super::TaskRecord`].
    pub const TASK: u16 = 4;
}

/// The first record of every reading: says what wrote it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
pub struct HeaderRecord {
    /// [`record::HEADER`].
    pub kind: u16,
    /// Size of this record in bytes.
    pub size: u16,
    /// [`crate::ABI`] of the program.
    pub abi: u32,
}

/// One descriptor of one process for one socket.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
pub struct SocketRecord {
    /// [`record::SOCKET`].
    pub kind: u16,
    /// Size of this record in bytes.
    pub size: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// TCP state, see [`crate::state`].
    pub state: u8,
    /// `IPV6_V6ONLY`: 0 or 1; 2 when the kernel's layout does not tell.
    pub v6only: u8,
    /// Inode number in sockfs.
    pub inode: u64,
    /// Inode number of the socket's network namespace in nsfs.
    pub netns: u32,
    /// Interface index that the socket is bound to, 0 for none.
    pub ifindex: u32,
    /// Cookie of the socket's network namespace (Linux 5.12), 0 when not known.
    pub netns_cookie: u64,
    /// Id of the socket's cgroup v2, 0 when not known.
    pub cgroup: u64,
    /// The bound address in network byte order; an IPv4 address in the first four bytes.
    pub local: [u8; 16],
    /// The peer's address, likewise; zeros for none.
    pub remote: [u8; 16],
    /// The bound port.
    pub local_port: u16,
    /// The peer's port, 0 for none.
    pub remote_port: u16,
    /// User id of the socket, in the initial user namespace.
    pub uid: u32,
    /// Start of the process: nanoseconds since boot, time in suspend included.
    pub start: u64,
    /// The process, in the PID namespace of the reader. 0 when it is not in there.
    pub tgid: u32,
    /// The thread whose descriptor table it is, likewise. The leader's, as a rule.
    pub tid: u32,
    /// The descriptor.
    pub fd: u32,
    /// `SOCK_STREAM` (1) or `SOCK_DGRAM` (2).
    pub sock_type: u16,
    /// Always 0.
    pub reserved: u16,
    /// Inode number of the network namespace that the process is in, 0 when not known.
    pub task_netns: u32,
    /// Real user id of the process, in the initial user namespace; `u32::MAX` when
    /// not known.
    pub task_uid: u32,
    /// Name of the process, ends at the first zero. Untrusted.
    pub comm: [u8; 16],
}

/// A socket that was not asked for: it counts when the descriptors' sockets are
/// compared with the kernel's own count.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
pub struct OtherRecord {
    /// [`record::OTHER`].
    pub kind: u16,
    /// Size of this record in bytes.
    pub size: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// TCP state, see [`crate::state`].
    pub state: u8,
    /// Always 0.
    pub reserved: u8,
    /// Inode number in sockfs.
    pub inode: u64,
    /// Inode number of the socket's network namespace in nsfs.
    pub netns: u32,
    /// The bound port, 0 for none.
    pub local_port: u16,
    /// Always 0.
    pub reserved2: u16,
}

/// One process, or a thread that is in other namespaces than its process.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
pub struct TaskRecord {
    /// [`record::TASK`].
    pub kind: u16,
    /// Size of this record in bytes.
    pub size: u16,
    /// The process, in the PID namespace of the reader.
    pub tgid: u32,
    /// The thread, likewise; equal to `tgid` for the leader.
    pub tid: u32,
    /// Inode number of its network namespace; 0 for a task that has ended.
    pub netns: u32,
    /// Inode number of its mount namespace; 0 for a task that has ended.
    pub mntns: u32,
    /// Always 0.
    pub reserved: u32,
    /// Start of the process: nanoseconds since boot, time in suspend included.
    pub start: u64,
    /// Name of the task, ends at the first zero. Untrusted.
    pub comm: [u8; 16],
}
