//! The tables of iptables-legacy.

use std::io;

use crate::model::{BaseChain, NetnsId, Rule, TableId};

/// One table as the kernel gave it.
#[derive(Debug)]
pub(in crate::node::live::rules) struct LegacyTable {
    id: TableId,
}

impl LegacyTable {
    pub(in crate::node::live::rules) fn id(&self) -> &TableId {
        &self.id
    }

    pub(in crate::node::live::rules) fn base_chains(&self) -> Vec<BaseChain> {
        Vec::new()
    }

    pub(in crate::node::live::rules) fn chain(&self, _name: &str) -> Option<Vec<Rule>> {
        None
    }
}

/// The tables of the calling thread's namespace that exist.
pub(in crate::node::live::rules) fn tables(_netns: NetnsId) -> io::Result<Vec<LegacyTable>> {
    Ok(Vec::new())
}
