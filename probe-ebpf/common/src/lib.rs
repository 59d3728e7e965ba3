//! What the kernel side and the user side of whereis-port share: the records
//! that programs write, the offsets that they read the kernel's structures at,
//! and the filter of a reading.
//!
//! Every struct is `repr(C)`, of a fixed size, without padding; numbers are in
//! the byte order of the machine unless a field says otherwise. With the feature
//! `user`, `zerocopy` proves at compile time that there is no padding, and reads
//! records from bytes with a check of their length.
#![no_std]

mod drops;
mod filter;
mod lifecycle;
mod offsets;
mod snapshot;

pub use drops::{DropCount, DropKey, DropState, EACH, NewDropRecord, SAMPLED, fate, flag};
pub use filter::Filter;
pub use lifecycle::{EventRecord, NatRecord, config, event};
pub use offsets::{MISSING, Offsets};
pub use snapshot::{HeaderRecord, OtherRecord, SocketRecord, TaskRecord, record};

/// Changes with every change of a record, of the filter or of an offset: a pinned
/// program of another version is not read.
pub const ABI: u32 = 2;

/// `AF_INET`.
pub const AF_INET: u8 = 2;
/// `AF_INET6`.
pub const AF_INET6: u8 = 10;
/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;

/// TCP states, `include/net/tcp_states.h`. UDP uses `ESTABLISHED` for a
/// connected socket and `CLOSE` for one that is not.
pub mod state {
    /// Connected.
    pub const ESTABLISHED: u8 = 1;
    /// A connection is being made from here.
    pub const SYN_SENT: u8 = 2;
    /// A connection is being made to here.
    pub const SYN_RECV: u8 = 3;
    /// Not connected.
    pub const CLOSE: u8 = 7;
    /// Listening.
    pub const LISTEN: u8 = 10;
}
