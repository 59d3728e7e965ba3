//! The connections that conntrack knows now.

use super::super::LiveNode;
use crate::model::{Flow, FlowFilter, NetnsId, Read};

impl LiveNode {
    pub(in crate::node::live) fn flows_inside(
        &self,
        _netns: &[NetnsId],
        _filter: &FlowFilter,
    ) -> Read<Vec<Flow>> {
        Read::default()
    }
}
