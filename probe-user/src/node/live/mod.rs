//! The node the tool runs on. The only code that touches the system.

mod containers;
mod safefs;

use std::path::PathBuf;

/// How to read.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where procfs is mounted.
    pub proc: PathBuf,
    /// Whether to ask container runtimes over their sockets.
    pub runtimes: bool,
}

/// The live node.
#[derive(Debug)]
pub struct LiveNode;
