//! Ports that the kernel of another machine holds, told by its own netlink.

use anyhow::ensure;
use lab::Test;

use super::Answer;

/// Every path ends in the kernel, which is named with where it was read.
pub(super) fn owns(answer: &Answer, what: &str, source: &str) -> Test {
    ensure!(!answer.paths().is_empty());
    for path in answer.paths() {
        ensure!(path.ending() == "kernel" && path.pids().is_empty(), "{}", path.0);
        let why = path.end()["why"].as_str().unwrap_or_default();
        ensure!(why.contains(what), "{why}");
        ensure!(path.sources(0).contains(&source), "{:?}", path.sources(0));
    }
    Ok(())
}
