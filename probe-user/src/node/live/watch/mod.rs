//! Watching this node: by programs in the kernel where they can be had, else by
//! comparing readings.

mod snapshots;

use std::io;

use crate::model::{Gap, Impact};
use crate::node::{Wanted, Watch};

use snapshots::Snapshots;

/// The name of the source of events that two readings' comparison gave.
pub const COMPARISON: &str = "comparing readings";

/// Starts to watch this node. What can't be watched is in the gaps of the watch.
///
/// # Errors
/// When procfs is not mounted: then nothing can be told.
pub fn watch(wanted: &Wanted) -> io::Result<Box<dyn Watch>> {
    let why = match in_kernel(wanted) {
        Ok(watch) => return Ok(watch),
        Err(why) => why,
    };
    Ok(Box::new(Snapshots::start(wanted, why)?))
}

/// The watch by eBPF programs, or why there is none.
fn in_kernel(wanted: &Wanted) -> Result<Box<dyn Watch>, Gap> {
    let gap = |why: &str| Gap::new(Impact::Port, "eBPF", format!("eBPF is not available: {why}"));
    if !wanted.ebpf {
        return Err(Gap::new(Impact::Port, "eBPF", "eBPF is not used, as --no-ebpf says"));
    }
    Err(gap("this version has no programs for it"))
}
