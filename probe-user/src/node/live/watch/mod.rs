//! Watching this node: by programs in the kernel where they can be had, else by
//! comparing readings.

mod kernel;
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
    if !wanted.ebpf {
        return Err(Gap::new(Impact::Port, "eBPF", "eBPF is not used, as --no-ebpf says"));
    }
    match kernel::Kernel::start(wanted) {
        Ok(watch) => Ok(Box::new(watch)),
        Err(refused) => {
            let why = format!("eBPF is not available: {}", refused.reason);
            let mut gap = Gap::new(Impact::Port, "eBPF", why);
            gap.remedy = refused.remedy;
            Err(gap)
        }
    }
}
