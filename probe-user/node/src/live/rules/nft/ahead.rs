//! Chains that most questions of a big node need, read while its chains are listed.
//!
//! The kernel has no way to ask for base chains only: where kube-proxy has made tens of
//! thousands of chains, finding the base chains takes it as long as giving the rules that
//! a packet passes first. Both go on at the same time, in threads of their own.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::super::allowance::Allowance;
use super::names::NameInterner;
use super::objects;
use super::wire::NftMessage;
use super::{Conversation, read_rules};
use whereis_port_model::{ChainId, NetnsId, Rule};

/// From so many chains on, reading ahead is worth a thread.
const MANY: usize = 1000;
/// The chains that every packet to a service passes, where kube-proxy writes rules by
/// iptables. Elsewhere there are none of that name, and the kernel says so at once.
const CHAINS: [&str; 2] = ["KUBE-SERVICES", "KUBE-NODEPORTS"];

/// Chains that are being read before they are asked for.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    /// How many chains were listed.
    listed: usize,
    reading: Vec<(ChainId, JoinHandle<Option<ReadAheadRules>>)>,
}

/// The rules of a chain, and the generation that they are of.
#[derive(Debug)]
struct ReadAheadRules {
    generation: u32,
    rules: Vec<Rule>,
}

impl ReadAhead {
    /// Takes notice of a chain that is listed, and begins to read when there are many, in
    /// the namespace of the calling thread.
    pub(super) fn listed(
        &mut self,
        netns: NetnsId,
        message: NftMessage<'_>,
        names: &mut NameInterner,
        allowance: &Arc<Allowance>,
    ) {
        self.listed += 1;
        if self.listed != MANY {
            return;
        }
        let Some(ChainId { table, .. }) = objects::chain_id(netns, message, names) else { return };
        for name in CHAINS {
            let id = ChainId { table: table.clone(), name: name.into() };
            let (wanted, allowance) = (id.clone(), Arc::clone(allowance));
            let thread = thread::Builder::new().name("rules".to_owned());
            // Without a thread it is read when it is asked for.
            if let Ok(thread) = thread.spawn(move || read(&wanted, allowance)) {
                self.reading.push((id, thread));
            }
        }
    }

    /// The rules of a chain, if they were read ahead and are of that generation.
    pub(super) fn take(&mut self, id: &ChainId, generation: u32) -> Option<Vec<Rule>> {
        let at = self.reading.iter().position(|(of, _)| of == id)?;
        let (_, thread) = self.reading.swap_remove(at);
        let found = thread.join().ok()??;
        // Without rules it is not known whether there is such a chain.
        let is_of_use = found.generation == generation && !found.rules.is_empty();
        is_of_use.then_some(found.rules)
    }
}

/// Reads the rules of a chain of one generation; `None` when that fails, and then they are
/// read again when they are asked for.
fn read(id: &ChainId, allowance: Arc<Allowance>) -> Option<ReadAheadRules> {
    let mut talk = Conversation::open(allowance).ok()?;
    let generation = talk.settled().ok()?;
    let rules = read_rules(id, &mut talk, &mut NameInterner::default()).ok()?;
    talk.is_still(generation).ok()?.then_some(ReadAheadRules { generation, rules })
}

#[cfg(test)]
mod tests {
    use super::*;
    use whereis_port_model::{Family, RulesBackend, TableId};

    fn id(name: &str) -> ChainId {
        let netns = NetnsId::Inode(1);
        let table =
            TableId { netns, backend: RulesBackend::Nft, family: Family::Ip, name: "nat".into() };
        ChainId { table, name: name.into() }
    }

    fn found(generation: u32) -> Option<ReadAheadRules> {
        let rule = Rule { handle: 7, comment: None, exprs: Vec::new(), packets: None };
        Some(ReadAheadRules { generation, rules: vec![rule] })
    }

    fn taken(found: Option<ReadAheadRules>, name: &str, generation: u32) -> Option<Vec<u64>> {
        let reading = vec![(id("KUBE-SERVICES"), thread::spawn(|| found))];
        let mut ahead = ReadAhead { listed: MANY, reading };
        let rules = ahead.take(&id(name), generation)?;
        assert_eq!(ahead.take(&id(name), generation), None);
        Some(rules.into_iter().map(|rule| rule.handle).collect())
    }

    #[test]
    fn what_was_read_ahead_is_used_once() {
        assert_eq!(taken(found(3), "KUBE-SERVICES", 3), Some(vec![7]));
        assert_eq!(taken(found(3), "KUBE-NODEPORTS", 3), None);
    }

    #[test]
    fn what_may_be_otherwise_by_now_is_not_used() {
        assert_eq!(taken(found(2), "KUBE-SERVICES", 3), None);
        assert_eq!(taken(None, "KUBE-SERVICES", 3), None);
        // It is not known whether there is this chain.
        let none = ReadAheadRules { generation: 3, rules: Vec::new() };
        assert_eq!(taken(Some(none), "KUBE-SERVICES", 3), None);
    }
}
