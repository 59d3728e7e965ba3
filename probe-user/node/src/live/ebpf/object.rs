//! The compiled programs, and how they are loaded.

use aya::{Btf, Ebpf, EbpfLoader};
use probe_common::Offsets;
use zerocopy::IntoBytes as _;

use super::drops;

/// The programs, built by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("PROBE_OBJECT"));

/// Names the version of the programs: the beginning of the hash of [`OBJECT`].
pub(super) const VERSION: &str = env!("PROBE_VERSION");

/// What is set in the programs before they are loaded.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// Where the kernel keeps what they read.
    pub(super) offsets: Offsets,
    /// Which events are wanted: bits of [`probe_common::config`].
    pub(super) config: u32,
    /// The lowest port in the low half, the highest in the high half.
    pub(super) ports: u32,
    /// Inode number of the tool's PID namespace.
    pub(super) pidns: u32,
    /// How much the programs log: 0 for nothing, 5 for everything.
    pub(super) log: u8,
    /// Bytes of the ring buffer, where they are not to be the object's own number.
    pub(super) buffer: Option<u32>,
    /// What the programs on drops have to know, where drops are wanted.
    pub(super) drops: Option<DropSetup>,
}

/// What the programs on drops have to know of the running kernel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DropSetup {
    /// Whether `kfree_skb` gives a reason.
    pub(super) has_reason: bool,
    /// Whether `tcp_send_reset` does.
    pub(super) has_reset_reason: bool,
    /// Numbers of reasons that are no drops, as bits.
    pub(super) no_drops: [u64; 4],
}

/// Makes the maps and prepares the programs; none is loaded yet.
pub(super) fn open(setup: &Setup) -> Result<Ebpf, aya::EbpfError> {
    let offsets = setup.offsets.as_bytes();
    let known = setup.drops.unwrap_or_default();
    let given = [known.has_reason, known.has_reset_reason].map(u32::from);
    let mut loader = EbpfLoader::new();
    loader
        // The programs need no relocation against the kernel's types.
        .btf(None::<&Btf>)
        .override_global("OFFSETS", offsets, true)
        .override_global("CONFIG", &setup.config, true)
        .override_global("PORTS", &setup.ports, true)
        .override_global("PIDNS", &setup.pidns, true)
        .override_global("HAS_REASON", &given[0], true)
        .override_global("HAS_RESET_REASON", &given[1], true)
        .override_global("NO_DROPS", &known.no_drops, true)
        .override_global("AYA_LOG_LEVEL", &setup.log, false);
    if setup.config == 0 {
        // The iterators need no buffers: the smallest there are.
        loader.map_max_entries("EVENTS", 4096).map_max_entries("AYA_LOGS", 4096);
    }
    if setup.drops.is_some() {
        loader
            .map_max_entries("DROP_PORTS", drops::PORTS)
            .map_max_entries("DROPS", drops::CAUSES)
            .map_max_entries("DROPS_OF_MANY", drops::CAUSES_OF_MANY);
    }
    if let Some(bytes) = setup.buffer {
        loader.map_max_entries("EVENTS", bytes);
    }
    loader.load(OBJECT)
}
