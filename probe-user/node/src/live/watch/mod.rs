//! Watching this node: by programs in the kernel where they can be had, else by
//! comparing readings.

mod all;
mod queues;
mod snapshots;

use std::io;

use crate::live::ebpf;
use crate::{Watch, WatchRequest};
use whereis_port_model::{EventKind, Gap, GapKind, Impact};

use all::{All, SocketEvents};
use snapshots::Snapshots;

/// The name of the source of events that two readings' comparison gave.
pub const COMPARISON: &str = "comparing readings";

/// Starts to watch this node. What can't be watched is in the gaps of the watch.
///
/// # Errors
/// When procfs is not mounted: then nothing can be told.
pub fn watch(wanted: &WatchRequest) -> io::Result<Box<dyn Watch>> {
    let sockets = match programs(wanted) {
        Ok(events) => SocketEvents::Programs(Box::new(events)),
        Err(why) => SocketEvents::Comparison(Snapshots::start(wanted, why)?),
    };
    Ok(Box::new(All::new(sockets, wanted)))
}

/// The programs, or why they can't be had.
fn programs(wanted: &WatchRequest) -> Result<ebpf::EventPrograms, Gap> {
    if !wanted.ebpf {
        return Err(Gap::new(Impact::Port, GapKind::Ebpf, "eBPF is not used, as --no-ebpf says"));
    }
    let mut events = ebpf::start(wanted).map_err(|refused| {
        let why = format!("eBPF is not available: {}", refused.reason);
        let mut gap = Gap::new(Impact::Port, GapKind::Ebpf, why);
        gap.remedy = refused.remedy;
        gap
    })?;
    // After attaching: what is bound meanwhile is told by the programs.
    if wanted.kinds.contains(&EventKind::Close) {
        events.already_bound(all::bound(wanted));
    }
    Ok(events)
}
