//! Sets of ipset.

use std::io;

use crate::model::{IpSet, NetnsId};

/// A set of the calling thread's namespace.
pub(in crate::node::live::rules) fn read(
    _netns: NetnsId,
    _index: u16,
) -> io::Result<Option<IpSet>> {
    Ok(None)
}
