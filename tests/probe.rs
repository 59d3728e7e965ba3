//! The programs in the kernel: pinned iterators, and events as they happen.

mod answers;
mod drops;
mod events;
mod nat;
mod pins;
mod weather;

use anyhow::{Result, ensure};
use lab::{Lab, Mounts, Run};

/// What the source is called that a pin gives.
const PINNED: &str = "eBPF iterator (pinned)";

/// Pins in there.
fn pin(lab: &Lab, mounts: &Mounts, args: &[&str]) -> Result<Run> {
    let run = lab.tool().inside(mounts).arg("pin").args(args).run()?;
    ensure!(run.code == Some(0), "pin {args:?}: {:?}: {}", run.code, run.stderr);
    Ok(run)
}

/// Whether a run has read a pinned iterator, and without trouble.
fn used_pin(run: &Run) -> bool {
    used(run, PINNED)
}

/// Whether a run has read a source, and without trouble.
fn used(run: &Run, name: &str) -> bool {
    let sources = run.json["sources"].as_array();
    sources.into_iter().flatten().any(|source| source["name"] == name && source["ok"] == true)
}
