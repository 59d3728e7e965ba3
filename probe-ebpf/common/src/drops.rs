//! Packets that the kernel throws away or refuses, counted by cause.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What became of a packet: [`DropKey::kind`].
pub mod fate {
    /// It was thrown away: tracepoint `skb:kfree_skb`.
    pub const DROPPED: u8 = 1;
    /// A TCP reset was sent for it: tracepoint `tcp:tcp_send_reset`.
    pub const RESET: u8 = 2;
    /// An ICMP error was sent for it: tracepoint `icmp:icmp_send` (Linux 6.11, IPv4).
    pub const ICMP: u8 = 3;
}

/// Bits of the TCP flags, as they are in the header.
pub mod flag {
    /// No more data comes.
    pub const FIN: u8 = 1;
    /// A connection begins.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// Acknowledges.
    pub const ACK: u8 = 16;
    /// Those that are told apart.
    pub const KEPT: u8 = FIN | SYN | RST | ACK;
}

/// How many packets in a tenth of a second one CPU looks at each of. Of more than these
/// it takes each [`SAMPLED`]th, which counts for all of them.
pub const EACH: u32 = 1000;
/// See [`EACH`].
pub const SAMPLED: u32 = 16;

/// One cause: packets that differ in nothing of this are counted together.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
pub struct DropKey {
    /// The reason's number: of `enum skb_drop_reason`, of `enum sk_rst_reason`, or the type
    /// of ICMP times 256 and its code. 0 where the kernel gives none.
    pub reason: u32,
    /// Inode number of the network namespace, 0 when not known.
    pub netns: u32,
    /// Where in the kernel's code, where it gives no reason (before Linux 5.17); else 0.
    pub location: u64,
    /// The sender in network byte order, an IPv4 address in the first four bytes. Zeros where
    /// senders were too many to tell apart.
    pub source: [u8; 16],
    /// Whom it was sent to, likewise: as it was in the packet then, so behind NAT.
    pub destination: [u8; 16],
    /// Index of the device in its namespace, 0 when not known.
    pub ifindex: u32,
    /// The port that it was sent to, as it was in the packet then.
    pub port: u16,
    /// What became of it, see [`fate`].
    pub kind: u8,
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// The flags of TCP that are told apart, see [`flag::KEPT`].
    pub flags: u8,
    /// 1 when it came into the namespace by a device, 0 when it was sent from there.
    pub came_in: u8,
    /// Always 0.
    pub reserved: [u8; 5],
}

/// How often, and when.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
pub struct DropCount {
    /// How many packets.
    pub packets: u64,
    /// How many of these were not looked at, see [`EACH`].
    pub estimated: u64,
    /// The first: nanoseconds of `CLOCK_BOOTTIME`.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// Of the first: where in the kernel's code it was let go, 0 when not known.
    pub location: u64,
    /// Of the first: whom it was sent to before NAT, zeros for no NAT.
    pub original: [u8; 16],
    /// Of the first: the name of the device, ends at the first zero. Untrusted.
    pub device: [u8; 16],
    /// Of the first: the port that it was sent to before NAT.
    pub original_port: u16,
    /// Of the first: the port that it came from.
    pub source_port: u16,
    /// Of the first: index of the device that it came into the namespace by, 0 for none.
    pub came_by: u32,
}

/// What one CPU remembers.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
pub struct DropState {
    /// When the tenth of a second began: nanoseconds of `CLOCK_BOOTTIME`.
    pub since: u64,
    /// How many packets since.
    pub seen: u32,
    /// Always 0.
    pub reserved: u32,
    /// How many packets there was no room to count by their cause.
    pub uncounted: u64,
}

/// The record in the ring buffer: there is a cause that was not there before.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
pub struct NewDropRecord {
    /// [`crate::event::DROP`].
    pub kind: u16,
    /// Size of this record in bytes.
    pub size: u16,
    /// Always 0.
    pub reserved: u32,
}
