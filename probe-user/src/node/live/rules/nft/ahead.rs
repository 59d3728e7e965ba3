//! Chains that most questions of a big node need, read while its chains are listed.
//!
//! The kernel has no way to ask for base chains only: where kube-proxy has made tens of
//! thousands of chains, finding the base chains takes it as long as giving the rules that
//! a packet passes first. Both go on at the same time, in threads of their own.

use std::thread::{self, JoinHandle};

use super::names::Names;
use super::objects;
use super::wire::Message;
use super::{Conversation, read_rules};
use crate::model::{ChainId, NetnsId, Rule};

/// From so many chains on, reading ahead is worth a thread.
const MANY: usize = 1000;
/// The chains that every packet to a service passes, where kube-proxy writes rules by
/// iptables. Elsewhere there are none of that name, and the kernel says so at once.
const CHAINS: [&str; 2] = ["KUBE-SERVICES", "KUBE-NODEPORTS"];

/// What is being read ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// How many chains were listed.
    listed: usize,
    reading: Vec<(ChainId, JoinHandle<Option<Found>>)>,
}

/// Rules, and the generation that they are of.
type Found = (u32, Vec<Rule>);

impl Ahead {
    /// Takes notice of a chain that is listed, and begins to read when there are many, in
    /// the namespace of the calling thread.
    pub(super) fn listed(&mut self, netns: NetnsId, message: Message<'_>, names: &mut Names) {
        self.listed += 1;
        if self.listed != MANY {
            return;
        }
        let Some(ChainId { table, .. }) = objects::chain_id(netns, message, names) else { return };
        for name in CHAINS {
            let id = ChainId { table: table.clone(), name: name.into() };
            let wanted = id.clone();
            let thread = thread::Builder::new().name("rules".to_owned());
            // Without a thread it is read when it is asked for.
            if let Ok(thread) = thread.spawn(move || read(&wanted)) {
                self.reading.push((id, thread));
            }
        }
    }

    /// The rules of a chain, if they were read ahead and are of that generation.
    pub(super) fn take(&mut self, id: &ChainId, generation: u32) -> Option<Vec<Rule>> {
        let at = self.reading.iter().position(|(of, _)| of == id)?;
        let (_, thread) = self.reading.swap_remove(at);
        let (of, rules) = thread.join().ok()??;
        (of == generation && !rules.is_empty()).then_some(rules)
    }
}

/// Reads the rules of a chain of one generation; `None` when that fails, and then they are
/// read again when they are asked for.
fn read(id: &ChainId) -> Option<Found> {
    let mut talk = Conversation::open().ok()?;
    let generation = talk.generation().ok()?;
    let rules = read_rules(id, &mut talk, &mut Names::default()).ok()?;
    (talk.generation().ok()? == generation).then_some((generation, rules))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Backend, Family, TableId};

    fn id(name: &str) -> ChainId {
        let netns = NetnsId::Inode(1);
        let table =
            TableId { netns, backend: Backend::Nft, family: Family::Ip, name: "nat".into() };
        ChainId { table, name: name.into() }
    }

    fn rule() -> Rule {
        Rule { handle: 7, comment: None, exprs: Vec::new(), packets: None }
    }

    fn ahead(found: Option<Found>) -> Ahead {
        Ahead { listed: MANY, reading: vec![(id("KUBE-SERVICES"), thread::spawn(|| found))] }
    }

    #[test]
    fn what_was_read_ahead_is_used_once() {
        let mut ahead = ahead(Some((3, vec![rule()])));
        assert_eq!(ahead.take(&id("KUBE-NODEPORTS"), 3), None);
        assert_eq!(ahead.take(&id("KUBE-SERVICES"), 3), Some(vec![rule()]));
        assert_eq!(ahead.take(&id("KUBE-SERVICES"), 3), None);
    }

    #[test]
    fn what_may_be_otherwise_by_now_is_not_used() {
        assert_eq!(ahead(Some((2, vec![rule()]))).take(&id("KUBE-SERVICES"), 3), None);
        assert_eq!(ahead(None).take(&id("KUBE-SERVICES"), 3), None);
        // Without rules it is not known whether there is such a chain.
        assert_eq!(ahead(Some((3, Vec::new()))).take(&id("KUBE-SERVICES"), 3), None);
    }
}
