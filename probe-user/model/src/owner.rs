//! Who holds which socket.

use serde::{Deserialize, Serialize};

use super::{Pid, SocketInode, StartTime};

/// One process that has a descriptor for a socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// The socket.
    pub inode: SocketInode,
    /// The process.
    pub pid: Pid,
    /// Guards against a reused PID.
    pub start: StartTime,
    /// The thread, when only a thread with its own descriptor table holds it.
    pub tid: Option<Pid>,
    /// The lowest descriptor number.
    pub fd: u32,
}

/// What a pass over the descriptor tables found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// Every holder of every socket that was asked for, by inode, then PID.
    pub holders: Vec<Owner>,
    /// Processes whose descriptor table could not be read, at most
    /// [`Owners::DENIED`] of them, and how many there were.
    pub denied: Vec<Pid>,
    /// How many could not be read.
    pub denied_total: u32,
    /// Sockets that nobody held and that were gone at a second look: they closed
    /// while they were read.
    #[serde(default)]
    pub gone: Vec<SocketInode>,
}

impl Owners {
    /// How many unreadable processes are named.
    pub const DENIED: usize = 16;

    /// The holders of one socket, found without a walk over all.
    pub fn of(&self, inode: SocketInode) -> &[Owner] {
        let start = self.holders.partition_point(|o| o.inode < inode);
        let length = self.holders[start..].iter().take_while(|o| o.inode == inode).count();
        &self.holders[start..start + length]
    }
}
