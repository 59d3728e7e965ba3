//! The records of the ring buffer: what happens, when it happens.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The kinds of event, the first field of each.
pub mod event {
    /// TCP: a socket listens now.
    pub const LISTEN: u16 = 1;
    /// TCP: a socket listens no more.
    pub const UNLISTEN: u16 = 2;
    /// UDP: a socket was bound to a port.
    pub const BIND: u16 = 3;
    /// UDP: a bound socket was released.
    pub const RELEASE: u16 = 4;
    /// TCP: a connection is being made from here.
    pub const CONNECT: u16 = 5;
    /// TCP: a listener got a connection.
    pub const ACCEPT: u16 = 6;
    /// A connection was confirmed that NAT has changed: a [`super::NatRecord`].
    pub const NAT: u16 = 7;
    /// There is a new cause of drops: a [`crate::NewDropRecord`].
    pub const DROP: u16 = 8;
}

/// Bits of the global `CONFIG`: what is written.
pub mod config {
    /// [`super::event::LISTEN`] and [`super::event::UNLISTEN`].
    pub const LISTEN: u32 = 1;
    /// [`super::event::BIND`] and [`super::event::RELEASE`].
    pub const BIND: u32 = 2;
    /// [`super::event::CONNECT`].
    pub const CONNECT: u32 = 4;
    /// [`super::event::ACCEPT`].
    pub const ACCEPT: u32 = 8;
    /// [`super::event::NAT`].
    pub const NAT: u32 = 16;
    /// [`super::event::DROP`].
    pub const DROP: u32 = 32;
}

/// A socket's event.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
pub struct EventRecord {
    /// Which event, see [`event`].
    pub kind: u16,
    /// Size of this record in bytes.
    pub size: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// 1 when `pid` and what follows from it is the process that caused the
    /// event; 0 when the kernel did it for somebody else (a packet came in).
    pub in_process: u8,
    /// Always 0.
    pub reserved: u8,
    /// When: nanoseconds of `CLOCK_BOOTTIME`.
    pub time: u64,
    /// Inode number of the socket's network namespace, 0 when not known.
    pub netns: u32,
    /// Inode number of the network namespace that the process is in, 0 when not known.
    pub task_netns: u32,
    /// Cookie of the socket's network namespace, 0 when not known.
    pub netns_cookie: u64,
    /// Id of the process's cgroup v2.
    pub cgroup: u64,
    /// Start of the process: nanoseconds since boot, time in suspend included.
    /// 0 when not known.
    pub start: u64,
    /// The bound address in network byte order; an IPv4 address in the first four bytes.
    pub local: [u8; 16],
    /// The peer's address, likewise; zeros for none.
    pub remote: [u8; 16],
    /// The bound port.
    pub local_port: u16,
    /// The peer's port, 0 for none.
    pub remote_port: u16,
    /// User id of the process, in the initial user namespace.
    pub uid: u32,
    /// The process, in the PID namespace of the tool. 0 when it is not in there.
    pub tgid: u32,
    /// The thread, likewise.
    pub tid: u32,
    /// The process, in the initial PID namespace.
    pub outer_tgid: u32,
    /// Always 0.
    pub reserved2: u32,
    /// Inode number in sockfs, 0 when not known.
    pub inode: u64,
    /// Name of the thread, ends at the first zero. Untrusted.
    pub comm: [u8; 16],
    /// The last part of the path of the process's cgroup in the v1 memory
    /// hierarchy, or of its v2 cgroup where v1 is not used; ends at the first zero.
    pub cgroup_name: [u8; 104],
    /// The part before that.
    pub cgroup_parent: [u8; 104],
}

/// NAT of one connection.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
pub struct NatRecord {
    /// [`event::NAT`].
    pub kind: u16,
    /// Size of this record in bytes.
    pub size: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// `IPPROTO_TCP`, `IPPROTO_UDP` and others.
    pub protocol: u8,
    /// 1 when the process caused it: the packet was sent from here.
    pub in_process: u8,
    /// Always 0.
    pub reserved: u8,
    /// When: nanoseconds of `CLOCK_BOOTTIME`.
    pub time: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The process, in the PID namespace of the tool. 0 unless `in_process`.
    pub tgid: u32,
    /// Source of the packet as it came, network byte order.
    pub source: [u8; 16],
    /// Destination of the packet as it came.
    pub destination: [u8; 16],
    /// Source of the reply: where the packet was sent on to.
    pub reply_source: [u8; 16],
    /// Destination of the reply: whom the receiver sees as the sender.
    pub reply_destination: [u8; 16],
    /// Ports of the four, in the same order.
    pub ports: [u16; 4],
    /// User id of the process, in the initial user namespace. 0 unless `in_process`.
    pub uid: u32,
    /// Always 0.
    pub reserved2: u32,
    /// Name of the thread. Untrusted.
    pub comm: [u8; 16],
}
