//! What Cilium's programs balance, from the maps that its agent pins.

use crate::model::{Frontend, Read};
use crate::node::live::LiveNode;

impl LiveNode {
    /// Every frontend of every Cilium that can be seen.
    pub(super) fn read_cilium(&self) -> Read<Vec<Frontend>> {
        Read::default()
    }
}
